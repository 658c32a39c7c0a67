//! A connection's place in the slab: what the loop keeps beside what the application keeps.

use std::io;

use mio::net::TcpStream;
use mio::{Interest, Poll};

use super::app::Token;
use crate::stats::Reason;
use crate::timers::Deadline;
use crate::turn::Why;

#[derive(Debug)]
pub(super) struct Slot<C> {
    pub(super) socket: TcpStream,
    pub(super) generation: u32,
    pub(super) registered: bool,
    /// It came by a listener aside.
    pub(super) aside: bool,
    pub(super) run: Run,
    pub(super) deadline: Deadline,
    pub(super) conn: C,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    /// Waits for an edge.
    Waiting,
    /// Waits for a wake-up.
    Parked,
    /// In the run queue, to be stepped with this.
    Queued(Why),
    /// Ended; the reap will take it.
    Ended,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Close(Reason),
    Reset(Reason),
}

impl<C> Slot<C> {
    /// Once, when its first attempt would block.
    pub(super) fn register(&mut self, poll: &Poll, token: Token) -> io::Result<()> {
        if !self.registered {
            let both = Interest::READABLE | Interest::WRITABLE;
            poll.registry()
                .register(&mut self.socket, token.pack(), both)?;
            self.registered = true;
        }
        Ok(())
    }
}
