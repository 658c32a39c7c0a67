//! The words between the loop and what runs on it: why something is called, what it is given for
//! that one step, and what it wants next. Types only, no logic.

use std::time::Instant;

use crate::telemetry::Reason;

/// Why a connection is stepped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It was just accepted, or just entered its state: act before any waiting.
    Start,
    /// The poll reported an edge; several, if others went first: then a try tells what there is.
    Ready(Readiness),
    /// It stopped for its budget in an earlier turn. Whatever it waits for may be there.
    Resume,
    /// Its deadline has passed.
    Deadline,
    /// It was suspended, and what it waited for may be there now.
    Woken,
    /// A drain begins: it shall end if it is kept alive and has nothing to do. One that waits for a descriptor
    /// only looks whether it has waited too long, and so an application may send it this at any time.
    Drain,
    /// Others need its place, or its memory: it shall end if it is [`Reclaimable`] still, after a
    /// look at its socket.
    Reclaim,
    /// It must end now. What can't be closed well is reset, for this reason.
    Stop(Reason),
}

/// What a connection waits for that may be ended with [`Event::Reclaim`] when others need its place.
/// Of each kind, the one that has waited for longest goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reclaimable {
    /// Its first byte. Silent connections and partial requests go before all others, and of these
    /// two the kind of which there are more: that is what a flood consists of.
    Silent,
    /// The rest of a request.
    Partial,
    /// The rest of a request of which what has come holds more memory than a connection's share. These
    /// go first when memory is short.
    Large,
    /// What it needs for an answer, a disk's for instance, while its request holds more than a share.
    /// These go only when memory is short.
    Suspended,
    /// The peer's FIN: it has sent everything.
    Lingering,
    /// Its peer, who takes next to nothing of what it is sent.
    Slow,
    /// Another request: it is kept alive.
    Idle,
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
    /// Both directions are shut or the socket holds an error: a reset, as long as our own side is open.
    pub dead: bool,
}

/// What a step wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// An attempt would have blocked: wait for an edge or the deadline.
    Wait,
    /// Waits for something that is no readiness. No edge reaches it but the peer's death, which is
    /// [`Event::Ready`] with [`Readiness::dead`]; [`Event::Woken`], [`Event::Deadline`],
    /// [`Event::Stop`], [`Event::Drain`] and [`Event::Reclaim`] do.
    Suspend,
    /// The budget is used up and nothing has blocked: no new edge will come, step it next turn.
    Yield,
    /// Close in order: a FIN after what the kernel has accepted.
    Close(Reason),
    /// Close with a reset: the peer must see an error.
    Reset(Reason),
}

/// What one step may use.
#[derive(Debug)]
pub struct StepContext<'a> {
    /// The time, read once a turn.
    pub now: Instant,
    /// The loop's one buffer. Nothing in it outlives the step.
    pub scratch: &'a mut [u8],
    /// When [`Event::Deadline`] shall come; kept between steps.
    pub deadline: Option<Instant>,
    /// Bytes that the step sent or discarded, without those of requests: what it took of the turn that all share.
    pub bytes_moved: u64,
    /// The first signal was taken: what ends now waits for its peer's FIN.
    pub draining: bool,
    /// Places are short: nobody is kept alive.
    pub is_crowded: bool,
}
