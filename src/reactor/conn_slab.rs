//! A connection's place in the slab: what the loop keeps beside what the application keeps. There
//! are as many as connections, and most of those wait: a place is small, and given back.

use std::io;
use std::ops::{Index, IndexMut};
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Poll};
use slab::Slab;

use super::event::Reclaimable;
use super::handler::Token;
use crate::limits::{LARGE_STEP_BYTES, SHRINK_DELAY, SLAB_SLOTS_KEPT};
use crate::reactor::event::{Event, Readiness};
use crate::reactor::timer_wheel::Deadline;
use crate::trace::record::{self, Call};

/// A line of connections that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Those that wait for the same, and may be ended when others need their place.
    Waiting(Reclaimable),
    /// All connections of the admin listeners, the oldest in front.
    Admin,
}

impl Line {
    pub(super) const COUNT: usize = Reclaimable::Idle as usize + 2;

    pub(super) fn index(self) -> usize {
        match self {
            Self::Waiting(reclaimable) => reclaimable as usize,
            Self::Admin => Self::COUNT - 1,
        }
    }
}

impl From<Reclaimable> for Line {
    fn from(reclaimable: Reclaimable) -> Self {
        Self::Waiting(reclaimable)
    }
}

/// The keys of a connection's neighbours in its line, or [`NOBODY`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Link {
    pub(super) prev: u32,
    pub(super) next: u32,
}

/// The key of the slab's first place, which is nobody's.
pub(super) const NOBODY: u32 = 0;

/// A socket, what the loop knows of it, and what the application does. `S` is a socket.
#[derive(Debug)]
pub(crate) struct Slot<C, S = TcpStream> {
    pub(crate) socket: S,
    pub(crate) generation: u32,
    pub(crate) registered: bool,
    /// An admin listener accepted it.
    pub(crate) is_admin: bool,
    pub(crate) schedule: Schedule,
    /// The line of reclaimable connections that it waits in, and its neighbours there.
    pub(crate) line: Option<Line>,
    pub(crate) link: Link,
    pub(crate) deadline: Deadline,
    pub(crate) conn: C,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Schedule {
    /// Waits for an edge.
    Waiting,
    /// Waits for an edge in the middle of a bulk transfer: when the edge comes, small requests
    /// go first.
    WaitingBulk,
    /// Waits for a wake-up.
    Suspended,
    /// In the run queue: it stopped for its budget.
    Yielded,
    /// In the run queue after edges: they came in the middle of a bulk transfer, or when the turn's budget was
    /// used up. (With all that they said a slot would take 8 bytes more.)
    Ready {
        /// One of them told of the peer's FIN, or of an error.
        ended: bool,
    },
    /// In the run queue: it was suspended and woken.
    Woken,
    /// Ended; the reap will take it.
    Ended,
}

impl Schedule {
    /// Queued after an edge, and after those before it that had no step.
    pub(super) fn ready(self, edge: Readiness) -> Self {
        Self::Ready {
            ended: edge.read_closed || edge.dead || self == Self::Ready { ended: true },
        }
    }

    /// What it is stepped with when its turn in the run queue comes, if it stands there.
    pub(super) fn queued_for(self) -> Option<Event> {
        match self {
            Self::Yielded => Some(Event::Resume),
            Self::Ready { ended } => Some(Event::Ready(Readiness {
                readable: true,
                writable: true,
                read_closed: ended,
                dead: false,
            })),
            Self::Woken => Some(Event::Woken),
            Self::Waiting | Self::WaitingBulk | Self::Suspended | Self::Ended => None,
        }
    }

    /// How a connection waits after a step that moved this many bytes.
    pub(super) fn waiting_after(moved: u64) -> Self {
        match moved {
            ..LARGE_STEP_BYTES => Self::Waiting,
            _ => Self::WaitingBulk,
        }
    }
}

impl<C> Slot<C> {
    /// Once, when its first attempt would block.
    pub(super) fn register(&mut self, poll: &Poll, token: Token) -> io::Result<()> {
        if !self.registered {
            let both = Interest::READABLE | Interest::WRITABLE;
            let registry = poll.registry();
            record::call(Call::Register, || {
                registry.register(&mut self.socket, token.pack(), both)
            })?;
            self.registered = true;
        }
        Ok(())
    }
}

/// What the slab allocates for one connection, its own tag included. The type of that is private;
/// this is the same one.
pub(super) const fn entry_bytes<C>() -> usize {
    #[allow(dead_code, reason = "only its size is asked for")]
    enum Entry<T> {
        Vacant(usize),
        Occupied(T),
    }
    size_of::<Entry<Option<Slot<C>>>>()
}

/// The slab. It gives back what it doesn't need: a while after most connections have left, since a
/// load that comes and goes must not pay for that.
#[derive(Debug)]
pub(super) struct ConnSlab<C> {
    /// The first place is nobody's. With it the slab never frees its memory, but only makes it
    /// smaller: glibc takes the size of a large block that is freed for one that will be wanted
    /// again, and keeps as much of its heap from then on (M_TRIM_THRESHOLD in mallopt(3)).
    slab: Slab<Option<Slot<C>>>,
    shrink_at: Option<Instant>,
}

/// A key is given to somebody until that one is removed.
const SOMEBODY: &str = "the key is a connection's";

impl<C> ConnSlab<C> {
    pub(super) fn new() -> Self {
        let mut slab = Slab::new();
        slab.insert(None);
        Self {
            slab,
            shrink_at: None,
        }
    }

    /// How many are taken.
    pub(super) fn len(&self) -> usize {
        self.slab.len() - 1
    }

    pub(super) fn capacity(&self) -> usize {
        self.slab.capacity()
    }

    /// The key that the next one will have.
    pub(super) fn vacant_key(&self) -> usize {
        self.slab.vacant_key()
    }

    pub(super) fn insert(&mut self, slot: Slot<C>) {
        self.slab.insert(Some(slot));
    }

    pub(super) fn get(&self, key: usize) -> Option<&Slot<C>> {
        self.slab.get(key)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, key: usize) -> Option<&mut Slot<C>> {
        self.slab.get_mut(key)?.as_mut()
    }

    /// Somebody must be there.
    pub(super) fn remove(&mut self, key: usize) -> Slot<C> {
        self.slab.remove(key).expect(SOMEBODY)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Slot<C>)> {
        let places = self.slab.iter();
        places.filter_map(|(key, slot)| Some((key, slot.as_ref()?)))
    }

    /// Takes note that connections were removed: the slab may have become too large.
    pub(super) fn note_removals(&mut self, now: Instant) {
        if self.shrink_at.is_none() && self.is_far_too_large() {
            self.shrink_at = Some(now + SHRINK_DELAY);
        }
    }

    /// When [`ConnSlab::shrink`] has something to do.
    pub(super) fn shrink_at(&self) -> Option<Instant> {
        self.shrink_at
    }

    /// If it is time and the slab is still too large, it gives back what lies behind the last
    /// connection. Returns whether it was time.
    pub(super) fn shrink(&mut self, now: Instant) -> bool {
        let is_time = self.shrink_at.is_some_and(|at| at <= now);
        if is_time {
            self.shrink_at = None;
            if self.is_far_too_large() {
                self.slab.shrink_to_fit();
            }
        }
        is_time
    }

    /// Three quarters of it are vacant. (A slab doubles: right after it grew, half of it is.)
    fn is_far_too_large(&self) -> bool {
        self.capacity() > SLAB_SLOTS_KEPT && self.len() <= self.capacity() / 4
    }
}

impl<C> Index<usize> for ConnSlab<C> {
    type Output = Slot<C>;

    fn index(&self, key: usize) -> &Slot<C> {
        self.get(key).expect(SOMEBODY)
    }
}

impl<C> IndexMut<usize> for ConnSlab<C> {
    fn index_mut(&mut self, key: usize) -> &mut Slot<C> {
        self.get_mut(key).expect(SOMEBODY)
    }
}
