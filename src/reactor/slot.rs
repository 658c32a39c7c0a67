//! A connection's place in the slab: what the loop keeps beside what the application keeps. There
//! are as many as connections, and most of those wait: a place is small, and given back.

use std::io;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Poll};
use slab::Slab;

use super::app::Token;
use crate::limits::{PLACES_KEPT, SHRINK_DELAY};
use crate::stats::Reason;
use crate::timers::Deadline;
use crate::turn::Why;

/// A socket, what the loop knows of it, and what the application does. `S` is a socket.
#[derive(Debug)]
pub(crate) struct Slot<C, S = TcpStream> {
    pub(crate) socket: S,
    pub(crate) generation: u32,
    pub(crate) registered: bool,
    /// It came by a listener aside.
    pub(crate) aside: bool,
    pub(crate) run: Run,
    pub(crate) deadline: Deadline,
    pub(crate) conn: C,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    /// Waits for an edge.
    Waiting,
    /// Waits for a wake-up.
    Parked,
    /// In the run queue: it stopped for its budget.
    Again,
    /// In the run queue: it was parked and woken.
    Woken,
    /// Ended; the reap will take it.
    Ended,
}

impl Run {
    /// What it is stepped with when its turn in the run queue comes, if it stands there.
    pub(super) fn queued_for(self) -> Option<Why> {
        match self {
            Self::Again => Some(Why::Again),
            Self::Woken => Some(Why::Woken),
            Self::Waiting | Self::Parked | Self::Ended => None,
        }
    }
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

/// What the slab allocates for one connection, its own tag included. Its type is private; this is
/// the same one.
pub(super) const fn entry_bytes<C>() -> usize {
    #[allow(dead_code, reason = "only its size is asked for")]
    enum Entry<T> {
        Vacant(usize),
        Occupied(T),
    }
    size_of::<Entry<Slot<C>>>()
}

/// When the slab gives back what it doesn't need. A load that comes and goes must not pay for
/// that, so it happens a while after most connections have left, if they have not come back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shrinking {
    at: Option<Instant>,
}

impl Shrinking {
    /// Connections have left.
    pub(super) fn have_left<T>(&mut self, slots: &Slab<T>, now: Instant) {
        if self.at.is_none() && is_far_too_large(slots) {
            self.at = Some(now + SHRINK_DELAY);
        }
    }

    /// When to look again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.at
    }

    /// Whether the time has come; and if the slab is still too large, it gives back what lies
    /// behind its last connection.
    pub(super) fn is_due<T>(&mut self, slots: &mut Slab<T>, now: Instant) -> bool {
        let is_due = self.at.is_some_and(|at| at <= now);
        if is_due {
            self.at = None;
            if is_far_too_large(slots) {
                slots.shrink_to_fit();
            }
        }
        is_due
    }
}

/// Three quarters of it are vacant. (A slab doubles: right after it grew, half of it is.)
fn is_far_too_large<T>(slots: &Slab<T>) -> bool {
    slots.capacity() > PLACES_KEPT && slots.len() <= slots.capacity() / 4
}
