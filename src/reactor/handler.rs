//! What runs on the loop, and what it may tell the loop.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mio::Waker;
use mio::net::TcpStream;

use crate::reactor::event::{Action, Event, Reclaimable, StepContext};
use crate::telemetry::{Reason, Stats};

/// What runs on the loop.
pub trait Handler {
    /// What the slab keeps beside a socket.
    type Conn;

    /// A client was accepted. Its first step follows at once. By a unix socket it has no address.
    fn accepted(
        &mut self,
        from: ListenerId,
        peer: Option<SocketAddr>,
        cx: &mut Context<'_, Self::Conn>,
    ) -> Self::Conn;

    /// Steps a connection.
    fn step(
        &mut self,
        conn: &mut Self::Conn,
        socket: &mut TcpStream,
        event: Event,
        cx: &mut Context<'_, Self::Conn>,
    ) -> Action;

    /// A source is ready, or was notified by a [`Remote`]. It must be drained.
    fn source(&mut self, id: SourceId, control: &mut LoopHandle<Self::Conn>);

    /// What a connection waits for, if it may be ended by [`Event::Reclaim`]. Asked after each step.
    fn reclaimable(&self, _conn: &Self::Conn) -> Option<Reclaimable> {
        None
    }

    /// Whether connections hold more memory than they may: those that wait in the middle of a request
    /// are asked for it then, by [`Event::Reclaim`].
    fn holds_too_much(&self) -> bool {
        false
    }

    /// A drain has begun: no new client can come.
    fn draining(&mut self) {}

    /// Whether the loop may end when a drain has left nobody. While it may not, its sources are
    /// served, and it is asked again after each turn.
    fn may_end(&self) -> bool {
        true
    }

    /// A turn is over; the next one waits first. Nothing happens meanwhile, so these counters stand
    /// for as long as the loop sleeps. Returns when it shall turn again at the latest.
    fn turn_over(&mut self, _stats: &Stats, _now: Instant) -> Option<Instant> {
        None
    }

    /// A connection has ended; its socket is closed by now.
    fn ended(
        &mut self,
        conn: Self::Conn,
        token: Token,
        reason: Reason,
        control: &mut LoopHandle<Self::Conn>,
    );
}

/// Which listener a client came by: its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerId(pub u32);

/// Which source of the application is meant; the application numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceId(pub u32);

/// A connection's identity: its key in the slab and a generation, so that a late wake-up for a
/// connection that is gone can't reach its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    pub(super) key: u32,
    pub(super) generation: u32,
}

/// Generations that are no connections' mark the poll's other tokens.
pub(super) const LISTENER: u32 = 0;
pub(super) const SOURCE: u32 = 1;
pub(super) const WAKER: u32 = 2;
pub(super) const FIRST_GENERATION: u32 = 3;

const _: () = assert!(usize::BITS >= 64, "a token packs two 32-bit numbers");

impl Token {
    /// What tells it from all others of this loop.
    #[must_use]
    pub fn generation(self) -> u32 {
        self.generation
    }

    pub(super) fn pack(self) -> mio::Token {
        mio::Token((self.generation as usize) << 32 | self.key as usize)
    }

    pub(super) fn unpack(token: mio::Token) -> Self {
        Self {
            key: token.0 as u32,
            generation: (token.0 >> 32) as u32,
        }
    }
}

/// What a handler may use: its turn, its identity and the loop's controls.
#[derive(Debug)]
pub struct Context<'a, C> {
    /// The clock, the scratch buffer and the connection's deadline.
    pub turn: StepContext<'a>,
    /// The loop's controls.
    pub control: &'a mut LoopHandle<C>,
    pub(super) token: Token,
}

impl<'a, C> Context<'a, C> {
    pub(super) fn new(
        token: Token,
        deadline: Option<Instant>,
        scratch: &'a mut [u8],
        control: &'a mut LoopHandle<C>,
    ) -> Self {
        let turn = StepContext {
            now: control.now,
            scratch,
            deadline,
            bytes_moved: 0,
            draining: control.is_draining(),
            is_crowded: control.is_crowded,
        };
        Self {
            turn,
            control,
            token,
        }
    }

    /// The connection's identity.
    #[must_use]
    pub fn token(&self) -> Token {
        self.token
    }
}

/// What an application may tell the loop.
#[derive(Debug)]
pub struct LoopHandle<C> {
    /// The loop's counters.
    pub stats: Stats,
    pub(super) now: Instant,
    pub(super) wakes: Vec<Token>,
    /// Connections that the application began, and their sockets.
    pub(super) outgoing: Vec<(TcpStream, C)>,
    pub(super) life: Life,
    pub(super) is_accepting: bool,
    /// Another process accepts from the same queues.
    pub(super) is_handed_over: bool,
    /// Places are short.
    pub(super) is_crowded: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Life {
    Running,
    /// The next accept phase begins the drain.
    DrainAsked {
        deadline: Instant,
    },
    Draining {
        /// `None` once it has passed.
        deadline: Option<Instant>,
    },
    Stopped,
}

impl<C> LoopHandle<C> {
    /// The turn's time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Steps a suspended connection once more, with [`Event::Woken`]. Nothing happens if it isn't
    /// suspended any more.
    pub fn wake(&mut self, token: Token) {
        self.wakes.push(token);
    }

    /// Takes a socket whose connect has begun. Its first step follows, in the next turn at the
    /// latest; like all others it is registered when that would block. There is no limit but the
    /// application's own.
    pub fn connect(&mut self, socket: TcpStream, conn: C) {
        self.outgoing.push((socket, conn));
    }

    /// Whether new clients are let in now. While they aren't, they wait in the accept queue.
    pub fn set_accepting(&mut self, is_accepting: bool) {
        self.is_accepting = is_accepting;
    }

    /// Lets no new client in, serves those that are connected, and ends: after `timeout` at the
    /// latest.
    pub fn drain(&mut self, timeout: Duration) {
        if matches!(self.life, Life::Running) {
            let deadline = self.now + timeout;
            self.life = Life::DrainAsked { deadline };
        }
    }

    /// As [`LoopHandle::drain`], and leaves all listeners to another process at once, which has them, too.
    pub fn hand_over(&mut self, timeout: Duration) {
        self.is_handed_over = true;
        self.drain(timeout);
    }

    /// Ends the loop at once; every connection is reset.
    pub fn stop(&mut self) {
        self.life = Life::Stopped;
    }

    /// Whether [`LoopHandle::drain`] was called.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        matches!(self.life, Life::DrainAsked { .. } | Life::Draining { .. })
    }
}

/// Reaches the loop from other threads, over the poll's one waker.
#[derive(Clone, Debug)]
pub struct Remote {
    pub(super) waker: Arc<Waker>,
    pub(super) inbox: Arc<Mutex<Vec<SourceId>>>,
}

impl Remote {
    /// Makes the loop call [`Handler::source`].
    ///
    /// # Errors
    /// The waker's descriptor can't be written, which no known kernel does.
    pub fn notify(&self, id: SourceId) -> io::Result<()> {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever left the first note has woken the loop, which takes all.
        if inbox.is_empty() {
            self.waker.wake()?;
        }
        inbox.push(id);
        Ok(())
    }
}
