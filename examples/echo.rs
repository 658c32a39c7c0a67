//! The last of seven: another task on carafe's loop. What a client sends comes back.
//!
//!     cargo run --example echo -- 127.0.0.1:7007
//!     nc 127.0.0.1 7007
//!
//! An echo server that forgets one thing hangs: what couldn't be sent has to be sent before more is read, or the
//! buffer grows for as long as its client sends and doesn't read.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use carafe::reactor::event::{Action, Event};
use carafe::reactor::{Context, Handler, ListenerId, LoopHandle, Reactor, SourceId, Token};
use carafe::telemetry::Reason;
use mio::net::{TcpListener, TcpStream};

const CONNECTIONS_MAX: usize = 100_000;
/// What one step moves at most, in bytes: then others have their turn.
const STEP_BYTES_MAX: u64 = 256 * 1024;
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

struct Echo;

/// What was read and is not sent yet.
#[derive(Default)]
struct Conn {
    unsent: Vec<u8>,
    is_finished: bool,
}

impl Conn {
    /// Until a call would block, the budget is used up, or the client has shut its side and has all.
    fn echo(&mut self, socket: &mut TcpStream, cx: &mut Context<'_, Self>) -> io::Result<Action> {
        while cx.turn.bytes_moved < STEP_BYTES_MAX {
            if !self.unsent.is_empty() {
                let count = socket.write(&self.unsent)?;
                self.unsent.drain(..count);
                cx.turn.bytes_moved += count as u64;
            } else if self.is_finished {
                return Ok(Action::Close(Reason::Complete));
            } else {
                let count = socket.read(cx.turn.scratch)?;
                self.unsent.extend_from_slice(&cx.turn.scratch[..count]);
                self.is_finished = count == 0;
            }
        }
        // Nothing has blocked, so no edge will come.
        Ok(Action::Yield)
    }
}

impl Handler for Echo {
    type Conn = Conn;

    fn accepted(
        &mut self,
        _: ListenerId,
        _: Option<SocketAddr>,
        _: &mut Context<'_, Conn>,
    ) -> Conn {
        Conn::default()
    }

    fn step(
        &mut self,
        conn: &mut Conn,
        socket: &mut TcpStream,
        event: Event,
        cx: &mut Context<'_, Conn>,
    ) -> Action {
        match event {
            Event::Deadline => return Action::Reset(Reason::Stalled),
            Event::Stop(reason) => return Action::Reset(reason),
            _ => cx.turn.deadline = Some(cx.turn.now + IDLE_TIMEOUT),
        }
        match conn.echo(socket, cx) {
            Ok(action) => action,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Action::Wait,
            Err(_) => Action::Close(Reason::PeerReset),
        }
    }

    fn source(&mut self, _: SourceId, _: &mut LoopHandle<Conn>) {}

    fn ended(&mut self, _: Conn, _: Token, _: Reason, _: &mut LoopHandle<Conn>) {}
}

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1);
    let address = address.unwrap_or_else(|| "127.0.0.1:7007".to_owned());
    let listener = TcpListener::bind(address.parse().map_err(io::Error::other)?)?;
    eprintln!("listening on {}", listener.local_addr()?);
    let mut reactor = Reactor::new(vec![listener], CONNECTIONS_MAX)?;
    reactor.run(&mut Echo)?;
    Ok(())
}
