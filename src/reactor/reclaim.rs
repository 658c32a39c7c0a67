//! Who makes room for others: connections that only wait, and of each kind the one that has waited
//! for longest.

use super::Reactor;
use super::conn_slab::{Line, NOBODY, Schedule};
use super::event::{Event, Reclaimable};
use super::handler::{Handler, Token};
use super::listener::{Accepting, Listener};
use crate::limits::{CONNECTIONS_KEPT_FREE_SHARE, CROWDED_TIME, RECLAIMS_PER_CLIENT_MAX};
use crate::telemetry::Reason;

impl<C> Reactor<C> {
    /// After a step: a connection enters the line of those that wait for the same. One that is in it
    /// already keeps its place, unless the step has sent something: each request that is answered
    /// puts a connection behind all others, while an edge that brings nothing does not (epoll reports
    /// once, after it was registered, that an idle socket is writable).
    pub(super) fn update_line<A: Handler<Conn = C>>(&mut self, app: &A, token: Token, moved: u64) {
        let slot = &self.slots[token.key as usize];
        if slot.is_admin || slot.schedule == Schedule::Ended {
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

    /// Whether a client waits for a place, or one did a moment ago, and nearly all places are taken by
    /// those who ask for something. Where nobody waits, a place that is left is no reason to close a
    /// connection; where others take places, these make room.
    pub(super) fn is_crowded(&self) -> bool {
        let mut listeners = self.listeners.iter().filter(|one| !one.is_admin);
        let backs_off = |one: &Listener| matches!(one.state, Accepting::BackedOff { .. });
        let was_wanted = self
            .crowded_until
            .is_some_and(|until| self.control.now < until);
        if !was_wanted && !listeners.any(backs_off) {
            return false;
        }
        let open = self.slots.len() - self.ending.len() - self.admin_open;
        let waiting = [
            Reclaimable::Silent,
            Reclaimable::Partial,
            Reclaimable::Large,
            Reclaimable::Slow,
        ]
        .map(|line| self.lines.len(line));
        let asking = open - waiting.iter().sum::<usize>();
        asking > self.connections_max - self.connections_max.div_ceil(CONNECTIONS_KEPT_FREE_SHARE)
    }

    /// Frees a slot for a client in the accept queue of a listener that has reached its
    /// limit. Returns whether the listener may try again at once.
    pub(super) fn make_room<A: Handler<Conn = C>>(
        &mut self,
        app: &mut A,
        index: usize,
        most: usize,
    ) -> bool {
        let listener = &mut self.listeners[index];
        let is_admin = listener.is_admin;
        if !listener.is_wanted() {
            return false;
        }
        let has_made_room = if is_admin {
            self.reclaim_admin(app)
        } else {
            self.crowded_until = Some(self.control.now + CROWDED_TIME);
            self.reclaim(app)
        };
        if !has_made_room && (is_admin || self.first_to_go().is_none()) {
            let (now, kind) = (self.control.now, if is_admin { " for metrics" } else { "" });
            let why = format_args!("the limit of {most} connections{kind} is reached");
            self.listeners[index].back_off(None, &mut self.shortage, now, why);
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
            if self.schedule_of(token) == Some(Schedule::Ended) {
                self.reap(app);
                return true;
            }
        }
        false
    }

    /// Ends those that hold the most of what the application has too much of: parts of requests.
    pub(super) fn relieve<A: Handler<Conn = C>>(&mut self, app: &mut A) {
        for line in [
            Reclaimable::Large,
            Reclaimable::Suspended,
            Reclaimable::Partial,
        ] {
            // A request may have come on some.
            for _ in 0..self.lines.len(line) {
                let Some(key) = self.lines.first(line).filter(|_| app.holds_too_much()) else {
                    break;
                };
                let token = self.token_of(key);
                self.step(app, token, Event::Reclaim);
                // The reap frees what it held.
                self.reap(app);
            }
        }
    }

    fn first_to_go(&self) -> Option<Token> {
        let are_silent_more =
            self.lines.len(Reclaimable::Silent) >= self.lines.len(Reclaimable::Partial);
        let most_and_fewest = if are_silent_more {
            [Reclaimable::Silent, Reclaimable::Partial]
        } else {
            [Reclaimable::Partial, Reclaimable::Silent]
        };
        let lines = most_and_fewest.into_iter().chain([
            Reclaimable::Large,
            Reclaimable::Lingering,
            Reclaimable::Slow,
            Reclaimable::Idle,
        ]);
        let key = lines.filter_map(|line| self.lines.first(line)).next()?;
        Some(self.token_of(key))
    }

    /// Ends a connection of an admin listener: the oldest that only waits, or else the oldest. There
    /// are few.
    fn reclaim_admin<A: Handler<Conn = C>>(&mut self, app: &mut A) -> bool {
        let mut next = self.lines.first(Line::Admin);
        let oldest = next.map(|key| self.token_of(key));
        while let Some(key) = next {
            let token = self.token_of(key);
            next = Some(self.slots[key as usize].link.next).filter(|&key| key != NOBODY);
            self.step(app, token, Event::Reclaim);
            if self.schedule_of(token) == Some(Schedule::Ended) {
                self.reap(app);
                return true;
            }
        }
        let Some(token) = oldest else { return false };
        self.step(app, token, Event::Stop(Reason::Evicted));
        if self.schedule_of(token) != Some(Schedule::Ended) {
            self.reset(token, Reason::Evicted);
        }
        self.reap(app);
        true
    }

    /// A listener that backed off need not wait for an end when a connection may be reclaimed.
    pub(super) fn resume_accepting(&mut self) {
        let backs_off =
            |one: &Listener| !one.is_admin && one.state == Accepting::BackedOff { until: None };
        if !self.listeners.iter().any(backs_off) || self.first_to_go().is_none() {
            return;
        }
        for listener in self.listeners.iter_mut().filter(|one| backs_off(one)) {
            listener.state = Accepting::Ready;
        }
    }

    fn token_of(&self, key: u32) -> Token {
        let generation = self.slots[key as usize].generation;
        Token { key, generation }
    }
}
