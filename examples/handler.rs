//! The sixth of seven ways, after `pour.rs`: the same connections on carafe's own loop. What `pour.rs` does in its
//! `Reactor` is `carafe::reactor` here: edges, the run queue, deadlines on a wheel, generations, what
//! happens when descriptors run out. What is left to say is a `Handler`.
//!
//!     cargo run --example handler -- ROOT 127.0.0.1:7890

#[path = "pour.rs"]
#[allow(dead_code, reason = "it has a loop of its own")]
mod pour;

use std::io;
use std::net::SocketAddr;

use carafe::reactor::event::{Action, Event};
use carafe::reactor::{Context, Handler, ListenerId, LoopHandle, Reactor, SourceId, Token};
use carafe::telemetry::Reason;
use mio::net::TcpStream;
use pour::{Conn, Next, Turn};

const CONNECTIONS_MAX: usize = 100_000;

struct Files(Turn);

impl Handler for Files {
    type Conn = Conn;

    fn accepted(
        &mut self,
        _: ListenerId,
        _: Option<SocketAddr>,
        cx: &mut Context<'_, Conn>,
    ) -> Conn {
        self.0.now = cx.turn.now;
        Conn::new(&self.0)
    }

    /// Whatever the event is, the attempt tells; only a deadline is news of its own.
    fn step(
        &mut self,
        conn: &mut Conn,
        socket: &mut TcpStream,
        event: Event,
        cx: &mut Context<'_, Conn>,
    ) -> Action {
        if let Event::Stop(reason) = event {
            return Action::Reset(reason);
        }
        (self.0.now, self.0.is_due) = (cx.turn.now, event == Event::Deadline);
        let next = conn.step(socket, &mut self.0);
        cx.turn.deadline = Some(conn.deadline);
        match next {
            Next::Wait => Action::Wait,
            Next::Yield => Action::Yield,
            // Where the client must see a reset, the connection has set SO_LINGER.
            Next::End => Action::Close(Reason::Complete),
        }
    }

    fn source(&mut self, _: SourceId, _: &mut LoopHandle<Conn>) {}

    fn ended(&mut self, _: Conn, _: Token, _: Reason, _: &mut LoopHandle<Conn>) {}
}

fn main() -> io::Result<()> {
    let (listener, turn) = pour::start()?;
    let mut reactor = Reactor::new(vec![listener], CONNECTIONS_MAX)?;
    reactor.run(&mut Files(turn))?;
    Ok(())
}
