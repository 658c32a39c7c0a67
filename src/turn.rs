//! The words between the loop and what runs on it: why something is called, what it is given for
//! that one step, and what it wants next. No room of its own logic.

use std::time::Instant;

use crate::stats::Reason;

/// Why a connection is stepped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It was just accepted, or just entered its state: act before any waiting.
    Start,
    /// The poll reported an edge.
    Ready(Readiness),
    /// It stopped for its budget in an earlier turn.
    Again,
    /// Its deadline has passed.
    Deadline,
    /// It was parked, and what it waited for may be there now.
    Woken,
    /// It shall end if it has nothing to do: it is kept alive, and others need its place, or the
    /// server is stopping.
    Evict,
    /// It must end now. What can't be closed well is reset, for this reason.
    Stop(Reason),
}

/// What an edge said. Hints, as epoll gives them: only the attempt tells the truth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// A read may find something.
    pub readable: bool,
    /// A write may find room.
    pub writable: bool,
    /// The peer's FIN has come. Data and FIN can share one edge.
    pub read_closed: bool,
    /// Both directions are shut or the socket holds an error: a reset.
    pub dead: bool,
}

/// What a step wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// An attempt would have blocked: wait for an edge or the deadline.
    Wait,
    /// Waits for something that is no readiness: only [`Why::Woken`], [`Why::Deadline`],
    /// [`Why::Stop`] or the peer's death bring it back.
    Park,
    /// The budget is used up and nothing has blocked: no new edge will come, step it next turn.
    Again,
    /// Close in order: a FIN after what the kernel has accepted.
    Close(Reason),
    /// Close with a reset: the peer must see an error.
    Reset(Reason),
}

/// What one step may use.
#[derive(Debug)]
pub struct Turn<'a> {
    /// The time, read once a turn.
    pub now: Instant,
    /// The loop's one buffer. Nothing in it outlives the step.
    pub scratch: &'a mut [u8],
    /// When [`Why::Deadline`] shall come; kept between steps.
    pub deadline: Option<Instant>,
    /// Bytes that the step sent or threw away: what it took of the turn that all share.
    pub moved: u64,
    /// The first signal was taken: what ends now waits for its peer's FIN.
    pub draining: bool,
}
