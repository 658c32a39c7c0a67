//! How a reply goes: in one step, or whether its peer takes enough of what it is sent to be waited for.
//! Writable edges alone come minutes apart for an honest slow reader with a large buffer, so what counts
//! is what the peer has acknowledged.

use std::time::{Duration, Instant};

use super::step::Timeouts;
use crate::limits::{SLOW_SHARE, STALL_CHECKS};

#[derive(Debug)]
pub(super) enum Progress {
    /// All in the step in which the request was answered.
    FirstStep,
    /// It had to wait.
    Resumed {
        mark: Mark,
        /// It waited for its turn alone: the peer took all that the last one gave it.
        fast_reader: bool,
    },
}

/// When the peer had last taken enough to be waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    at: Instant,
    /// What it had acknowledged then.
    acked: u64,
    /// For a good while it has taken too little.
    is_slow: bool,
    /// When it will be looked at again.
    next_check: Instant,
}

/// How many of the bytes sent a peer has acknowledged.
#[derive(Clone, Copy)]
pub(super) struct Acked {
    pub(super) bytes: u64,
    pub(super) of: u64,
    pub(super) at: Instant,
}

impl Acked {
    /// Whether the peer may go on. If it has all, it waits for us.
    fn is_enough_since(self, mark: Mark, timeouts: &Timeouts) -> bool {
        let has_all = self.bytes > 0 && self.bytes >= self.of;
        let fresh = self.bytes.saturating_sub(mark.acked);
        fresh >= timeouts.least_bytes(timeouts.stall) || has_all
    }
}

impl Mark {
    /// The mark of a peer that may go on.
    fn moved_to(self, acked: Acked) -> Self {
        Self {
            at: acked.at,
            acked: acked.bytes,
            is_slow: false,
            ..self
        }
    }
}

impl Progress {
    pub(super) fn is_first_step(&self) -> bool {
        matches!(self, Self::FirstStep)
    }

    /// Whether it waited for its turn alone.
    pub(super) fn is_fast_reader(&self) -> bool {
        matches!(
            self,
            Self::Resumed {
                fast_reader: true,
                ..
            }
        )
    }

    /// Whether its place is the peer's no more if others need it.
    pub(super) fn is_slow(&self) -> bool {
        matches!(self, Self::Resumed { mark, .. } if mark.is_slow)
    }

    /// The reply stops before its end. `fast_reader`: for its budget alone. Returns when the peer will be
    /// looked at.
    pub(super) fn pause(&mut self, fast_reader: bool, now: Instant, stall: Duration) -> Instant {
        let mark = match *self {
            Self::FirstStep => Mark {
                at: now,
                // The first look finds what it has acknowledged so far.
                acked: 0,
                is_slow: false,
                next_check: now + stall / STALL_CHECKS,
            },
            Self::Resumed { mark, .. } if fast_reader => Mark { at: now, ..mark },
            Self::Resumed { mark, .. } => mark,
        };
        *self = Self::Resumed { mark, fast_reader };
        mark.next_check
    }

    /// The peer must take some bytes within the stall timeout, and is looked at often enough for the timeout
    /// to count from when it last did. Returns when it will be looked at again, unless it has stalled.
    pub(super) fn check(&mut self, acked: Acked, timeouts: &Timeouts) -> Option<Instant> {
        let Self::Resumed { mark, fast_reader } = self else {
            return Some(acked.at + timeouts.stall);
        };
        let (now, stall) = (acked.at, timeouts.stall);
        if *fast_reader || acked.is_enough_since(*mark, timeouts) {
            *mark = mark.moved_to(acked);
        } else if now >= mark.at + stall {
            return None;
        } else {
            mark.is_slow = now >= mark.at + stall / SLOW_SHARE;
        }
        mark.next_check = (now + stall / STALL_CHECKS).min(mark.at + stall);
        Some(mark.next_check)
    }

    /// Whether a peer that was slow has taken enough since the last look.
    pub(super) fn has_caught_up(&mut self, acked: Acked, timeouts: &Timeouts) -> bool {
        let Self::Resumed { mark, .. } = self else {
            return true;
        };
        let has_taken = acked.is_enough_since(*mark, timeouts);
        if has_taken {
            *mark = mark.moved_to(acked);
        }
        has_taken
    }

    /// The peer's clock stood for so long.
    pub(super) fn excuse(&mut self, waited: Duration) {
        if let Self::Resumed { mark, .. } = self {
            mark.at += waited;
            mark.next_check += waited;
        }
    }
}
