//! How things end on the loop: single connections, a drain, everything.

use std::time::Duration;

use socket2::SockRef;

use super::Reactor;
use super::conn_slab::Schedule;
use super::handler::{Handler, Life, Token};
use super::listener::{Accepting, clients_left};
use crate::limits::{EVENTS_PER_TURN_MAX, SLAB_SLOTS_KEPT};
use crate::reactor::event::Event;
use crate::telemetry::Reason;
use crate::trace::record::{self, Call};

impl<C> Reactor<C> {
    /// It has ended; the reap will close it.
    pub(super) fn mark_ended(&mut self, token: Token, reason: Reason) {
        self.set_schedule(token, Schedule::Ended);
        self.lines.remove(&mut self.slots, token.key);
        self.admin_open -= usize::from(self.slots[token.key as usize].is_admin);
        self.ending.push((token, reason));
    }

    /// The same, and its peer sees an error: without SO_LINGER the close would look like a good end.
    pub(super) fn reset(&mut self, token: Token, reason: Reason) {
        let socket = SockRef::from(&self.slots[token.key as usize].socket);
        let _ = record::call(Call::Reset, || socket.set_linger(Some(Duration::ZERO)));
        self.mark_ended(token, reason);
    }

    /// Releases what ended in this turn.
    pub(super) fn reap<A: Handler<Conn = C>>(&mut self, app: &mut A) {
        if self.ending.is_empty() {
            return;
        }
        let mut ending = std::mem::take(&mut self.ending);
        for (token, reason) in ending.drain(..) {
            let slot = self.slots.remove(token.key as usize);
            record::close(Call::CloseSocket, slot.socket);
            if !slot.is_admin {
                self.control.stats.count_ended(reason);
            }
            app.ended(slot.conn, token, reason, &mut self.control);
        }
        self.ending = ending;
        self.slots.note_removals(self.control.now);
        for listener in &mut self.listeners {
            if let Accepting::BackedOff { .. } = listener.state {
                listener.state = Accepting::Ready;
            }
        }
    }

    /// Where very many may end in one turn, what they hold is freed as they go.
    pub(super) fn reap_if_many<A: Handler<Conn = C>>(&mut self, app: &mut A) {
        if self.ending.len() >= EVENTS_PER_TURN_MAX {
            self.reap(app);
        }
    }

    /// Frees memory that is no longer needed, a while after most connections have ended.
    pub(super) fn shrink(&mut self) {
        if !self.slots.shrink(self.control.now) {
            return;
        }
        self.run_queue.shrink_to(SLAB_SLOTS_KEPT);
        self.ending.shrink_to(SLAB_SLOTS_KEPT);
        if self.slots.len() == 0 {
            // What the wheel holds still belongs to those who are gone.
            self.timers.clear();
        }
    }

    /// Begins a drain: new SYNs are dropped, while clients in the accept queue are still accepted.
    pub(super) fn begin_drain<A: Handler<Conn = C>>(&mut self, app: &mut A) {
        if let Life::DrainAsked { deadline } = self.control.life {
            let deadline = Some(deadline);
            self.control.life = Life::Draining { deadline };
            for listener in &mut self.listeners {
                if self.control.is_handed_over {
                    listener.close(self.poll.registry());
                } else if !listener.is_admin {
                    listener.shut(self.control.now);
                }
            }
            app.draining();
            // To close a connection that is kept alive may cross with a request on it. After a handover there is
            // time: the next answer says that it is the last.
            if !self.control.is_handed_over {
                for token in self.open_tokens() {
                    self.step(app, token, Event::Drain);
                }
            }
        }
    }

    /// The drain's deadline: whatever is left has to end in this turn.
    pub(super) fn end_drain<A: Handler<Conn = C>>(&mut self, app: &mut A) {
        self.control.life = Life::Draining { deadline: None };
        for listener in self.listeners.iter_mut().filter(|one| !one.is_admin) {
            let own = listener.socket.as_deref().filter(|_| !listener.is_shared);
            self.control.stats.never_accepted += own.map_or(0, clients_left);
            listener.close(self.poll.registry());
        }
        self.end_all(app, Reason::DrainDeadline);
    }

    /// Closes what can be closed well, and resets the rest for this reason.
    pub(super) fn end_all<A: Handler<Conn = C>>(&mut self, app: &mut A, reason: Reason) {
        self.insert_outgoing(app);
        for token in self.open_tokens() {
            self.step(app, token, Event::Stop(reason));
            if self.schedule_of(token) != Some(Schedule::Ended) {
                self.reset(token, reason);
            }
            self.reap_if_many(app);
        }
    }

    /// All connections that have not ended.
    fn open_tokens(&self) -> Vec<Token> {
        let open = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.schedule != Schedule::Ended);
        open.map(|(key, slot)| Token {
            key: key as u32,
            generation: slot.generation,
        })
        .collect()
    }
}
