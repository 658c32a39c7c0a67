//! Who makes room for others. Connections that only wait stand in lines, the one that goes first
//! in front; a line is linked through the places in the slab, so that to enter, to leave and to go
//! cost the same however many there are.

use super::Reactor;
use super::conn_slab::{ConnSlab, End, Schedule};
use super::handler::{Handler, Token};
use super::listener::Accepting;
use crate::limits::{CONNECTIONS_KEPT_FREE_SHARE, RECLAIMS_PER_CLIENT_MAX};
use crate::reactor::event::{Event, Reclaimable};
use crate::telemetry::Reason;

/// A line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Silent,
    Partial,
    Large,
    Suspended,
    Lingering,
    Idle,
    /// All that came by a listener aside, the oldest in front.
    Aside,
}

impl From<Reclaimable> for Line {
    fn from(reclaimable: Reclaimable) -> Self {
        match reclaimable {
            Reclaimable::Silent => Self::Silent,
            Reclaimable::Partial => Self::Partial,
            Reclaimable::Large => Self::Large,
            Reclaimable::Suspended => Self::Suspended,
            Reclaimable::Lingering => Self::Lingering,
            Reclaimable::Idle => Self::Idle,
        }
    }
}

/// Between whom a connection stands: their keys, or [`NOBODY`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Link {
    before: u32,
    behind: u32,
}

/// The key of the slab's first place, which is nobody's.
const NOBODY: u32 = 0;

/// The lines: their ends, and how long they are.
#[derive(Debug, Default)]
pub(super) struct Lines([Probe; 7]);

#[derive(Clone, Copy, Debug, Default)]
struct Probe {
    first: u32,
    last: u32,
    len: usize,
}

impl Lines {
    pub(super) fn len(&self, line: Line) -> usize {
        self.0[line as usize].len
    }

    /// The key of the one in front.
    pub(super) fn first(&self, line: Line) -> Option<u32> {
        Some(self.0[line as usize].first).filter(|&key| key != NOBODY)
    }

    /// Puts a connection that stands nowhere at the end of a line.
    pub(super) fn push<C>(&mut self, slots: &mut ConnSlab<C>, key: u32, line: Line) {
        let ends = &mut self.0[line as usize];
        let before = std::mem::replace(&mut ends.last, key);
        ends.len += 1;
        match before {
            NOBODY => ends.first = key,
            before => slots[before as usize].link.behind = key,
        }
        let slot = &mut slots[key as usize];
        slot.line = Some(line);
        slot.link = Link {
            before,
            behind: NOBODY,
        };
    }

    /// Takes a connection out of its line, if it stands in one.
    pub(super) fn remove<C>(&mut self, slots: &mut ConnSlab<C>, key: u32) {
        let slot = &mut slots[key as usize];
        let Some(line) = slot.line.take() else { return };
        let Link { before, behind } = slot.link;
        let ends = &mut self.0[line as usize];
        ends.len -= 1;
        match before {
            NOBODY => ends.first = behind,
            before => slots[before as usize].link.behind = behind,
        }
        match behind {
            NOBODY => ends.last = before,
            behind => slots[behind as usize].link.before = before,
        }
    }
}

impl<C> Reactor<C> {
    /// After a step: a connection enters the line of those who wait as it does. Whoever stands there
    /// already keeps its place, unless the step has sent something: each request that is answered
    /// puts a connection behind all others, while an edge that brings nothing does not (epoll reports
    /// once, after it was registered, that an idle socket is writable).
    pub(super) fn line_up<A: Handler<Conn = C>>(&mut self, app: &A, token: Token, moved: u64) {
        let slot = &self.slots[token.key as usize];
        if slot.aside || slot.run == Schedule::Ended {
            return;
        }
        let line = app.reclaimable(&slot.conn).map(Line::from);
        if line == slot.line && moved == 0 {
            return;
        }
        self.lines.remove(&mut self.slots, token.key);
        if let Some(line) = line {
            self.lines.push(&mut self.slots, token.key, line);
        }
    }

    /// Whether nearly all places are taken by those who ask for something. The others make room
    /// when it is wanted.
    pub(super) fn is_crowded(&self) -> bool {
        let open = self.slots.len() - self.ending.len() - self.aside_open;
        let waiting = [Line::Silent, Line::Partial, Line::Large].map(|line| self.lines.len(line));
        let asking = open - waiting.iter().sum::<usize>();
        asking > self.connections_max - self.connections_max.div_ceil(CONNECTIONS_KEPT_FREE_SHARE)
    }

    /// Makes a place for whoever waits at the door of a listener whose connections are as many as
    /// they may be. Returns whether the listener may try again at once.
    pub(super) fn make_room<A: Handler<Conn = C>>(
        &mut self,
        app: &mut A,
        index: usize,
        most: usize,
    ) -> bool {
        let listener = &mut self.listeners[index];
        let aside = listener.aside;
        if !listener.is_wanted() {
            return false;
        }
        let has_made_room = if aside {
            self.reclaim_aside(app)
        } else {
            self.reclaim(app)
        };
        if !has_made_room && (aside || self.first_to_go().is_none()) {
            let (now, aside) = (self.control.now, if aside { " aside" } else { "" });
            let why = format_args!("the limit of {most} connections{aside} is reached");
            self.listeners[index].rest(None, &mut self.shortage, now, why);
        }
        has_made_room
    }

    /// Ends the connection that is the first to go. Returns whether one has ended: a request may
    /// have come on all that were asked.
    fn reclaim<A: Handler<Conn = C>>(&mut self, app: &mut A) -> bool {
        for _ in 0..RECLAIMS_PER_CLIENT_MAX {
            let Some(token) = self.first_to_go() else {
                break;
            };
            self.step(app, token, Event::Reclaim);
            if self.run_of(token) == Some(Schedule::Ended) {
                self.reap(app);
                return true;
            }
        }
        false
    }

    /// Ends those that hold the most of what the application has too much of: parts of requests.
    pub(super) fn relieve<A: Handler<Conn = C>>(&mut self, app: &mut A) {
        for line in [Line::Large, Line::Suspended, Line::Partial] {
            // A request may have come on some.
            for _ in 0..self.lines.len(line) {
                let Some(key) = self.lines.first(line).filter(|_| app.holds_too_much()) else {
                    break;
                };
                let token = self.token_of(key);
                self.step(app, token, Event::Reclaim);
                // What it held is given back.
                self.reap(app);
            }
        }
    }

    fn first_to_go(&self) -> Option<Token> {
        let are_silent_more = self.lines.len(Line::Silent) >= self.lines.len(Line::Partial);
        let most_and_fewest = if are_silent_more {
            [Line::Silent, Line::Partial]
        } else {
            [Line::Partial, Line::Silent]
        };
        let lines = most_and_fewest
            .into_iter()
            .chain([Line::Large, Line::Lingering, Line::Idle]);
        let key = lines.filter_map(|line| self.lines.first(line)).next()?;
        Some(self.token_of(key))
    }

    /// Ends a connection aside: the oldest that only waits, or else the oldest. There are few.
    fn reclaim_aside<A: Handler<Conn = C>>(&mut self, app: &mut A) -> bool {
        let mut next = self.lines.first(Line::Aside);
        let oldest = next.map(|key| self.token_of(key));
        while let Some(key) = next {
            let token = self.token_of(key);
            next = Some(self.slots[key as usize].link.behind).filter(|&key| key != NOBODY);
            self.step(app, token, Event::Reclaim);
            if self.run_of(token) == Some(Schedule::Ended) {
                self.reap(app);
                return true;
            }
        }
        let Some(token) = oldest else { return false };
        self.step(app, token, Event::Stop(Reason::Evicted));
        if self.run_of(token) != Some(Schedule::Ended) {
            self.doom(token, End::Reset(Reason::Evicted));
        }
        self.reap(app);
        true
    }

    /// Who waits at the door for a place need not wait for an end when somebody may be ended.
    pub(super) fn wake_resting(&mut self) {
        if self.first_to_go().is_none() {
            return;
        }
        for listener in self.listeners.iter_mut().filter(|one| !one.aside) {
            if let Accepting::Resting { until: None } = listener.state {
                listener.state = Accepting::Ready;
            }
        }
    }

    fn token_of(&self, key: u32) -> Token {
        let generation = self.slots[key as usize].generation;
        Token { key, generation }
    }
}
