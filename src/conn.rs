//! One connection: `ReadingName` -> `Sending(offset)` -> `Closing`, or back to `ReadingName` if it
//! is kept alive. It knows a transport and a protocol; no poll, no slab, no clock. Each state is a
//! struct with what only that state needs.
//!
//! The steps of a state say what should happen (`Step`); [`Conn::step`] alone makes it happen.
//! On entering a state its first attempt is made at once: waiting comes after WouldBlock only.

mod body_source;
mod closing;
mod input_buffer;
mod progress;
mod reading;
mod sending;
mod step;
pub mod transport;

use std::time::Instant;

use crate::conn::transport::Transport;
use crate::limits::REPLIES_PER_STEP_MAX;
use crate::protocol::Protocol;
use crate::reactor::event::{Action, Event, Reclaimable};
use crate::telemetry::Stage;
use crate::telemetry::response::Response;

use closing::Closing;
use reading::Reading;
use sending::{AfterReply, Sending};
use step::Step::{self, Enter, EnterWaiting, Stay};

pub use step::{StepIo, Timeouts};

/// One client.
#[derive(Debug)]
pub struct Conn {
    state: State,
    /// The guard: SO_LINGER of zero is set in advance, so that the kernel's close resets the connection
    /// if the process dies. Whoever waits for an answer, or for the rest of one, must see an error.
    aborts_on_close: bool,
}

#[derive(Debug)]
enum State {
    ReadingName(Reading),
    Sending(Sending),
    Closing(Closing),
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            Self::ReadingName(_) => "ReadingName",
            Self::Sending(_) => "Sending",
            Self::Closing(_) => "Closing",
        }
    }
}

impl From<Sending> for State {
    fn from(sending: Sending) -> Self {
        Self::Sending(sending)
    }
}

impl From<AfterReply> for State {
    fn from(after: AfterReply) -> Self {
        match after {
            AfterReply::Close(closing) => Self::Closing(closing),
            AfterReply::ReadOn(kept) => Self::ReadingName(Reading::after_reply(kept)),
        }
    }
}

impl Conn {
    /// A connection that was accepted just now and has until `expires` to name a file.
    #[must_use]
    pub fn new(expires: Instant) -> Self {
        Self {
            state: State::ReadingName(Reading::new(expires)),
            aborts_on_close: false,
        }
    }

    /// A connection that has waited for its first byte since it was accepted: its guard is on.
    #[must_use]
    pub fn silent(expires: Instant) -> Self {
        Self {
            aborts_on_close: true,
            ..Self::new(expires)
        }
    }

    /// Until when it may go on saying nothing, if it waits for its first byte. Then
    /// [`Conn::silent`] makes the same connection again, so that this one need not be kept.
    #[must_use]
    pub fn silent_until(&self) -> Option<Instant> {
        match &self.state {
            State::ReadingName(reading) if self.aborts_on_close => reading.silent_until(),
            _ => None,
        }
    }

    /// The driver: steps the state until it has to wait or ends.
    pub fn step<T: Transport, P: Protocol>(
        &mut self,
        io: &mut StepIo<'_, '_, T, P>,
        mut event: Event,
    ) -> Action {
        let mut replies = 0;
        loop {
            let mut action = match &mut self.state {
                State::ReadingName(reading) => {
                    let step = reading.step(io, event);
                    self.follow(step)
                }
                State::Sending(sending) => {
                    let step = sending.step(io, event);
                    self.follow(step)
                }
                State::Closing(closing) => Some(closing.step(io, event)),
            };
            if action.is_none() && matches!(self.state, State::ReadingName(_)) {
                replies += 1;
                action = (replies == REPLIES_PER_STEP_MAX).then_some(Action::Yield);
            }
            self.set_abort_on_close(io.transport, action);
            if let Some(action) = action {
                if !matches!(action, Action::Close(_) | Action::Reset(_)) {
                    io.transport.flush();
                }
                return action;
            }
            event = Event::Start;
        }
    }

    /// Makes what a state's step asks for happen. Returns what the loop should do, if that is all for now.
    #[inline]
    fn follow<N: Into<State>>(&mut self, step: Step<N>) -> Option<Action> {
        match step {
            Stay(action) => Some(action),
            Enter(next) => {
                self.enter(next.into());
                None
            }
            EnterWaiting(next) => {
                self.enter(next.into());
                Some(Action::Wait)
            }
        }
    }

    /// Sets the guard for what comes now: `action`, or the first attempt of a state just entered. What
    /// is over within one step needs none, unless the step itself can be cut. There is none either
    ///
    /// - for a reply with a head, which says how long the body is;
    /// - for a connection that is kept alive, between replies: to its client an end without a head is an error
    ///   as it is;
    /// - for one that is closing, whose peer would lose what it has not taken yet.
    // In the driver itself it takes a third of the instructions.
    #[inline]
    fn set_abort_on_close<T: Transport>(&mut self, transport: &mut T, action: Option<Action>) {
        let aborts = match (&self.state, action) {
            (_, Some(Action::Close(_))) | (State::Closing(_), _) => false,
            (State::Sending(sending), _) if sending.has_head() => false,
            (State::ReadingName(reading), _) if reading.is_keep_alive() => false,
            (State::Sending(sending), None) => {
                self.aborts_on_close || sending.response.body_len > transport.takes_at_once()
            }
            _ => true,
        };
        if aborts != self.aborts_on_close {
            transport.reset_on_close(aborts);
            self.aborts_on_close = aborts;
        }
    }

    /// The setter: the only place where the state changes.
    fn enter(&mut self, state: State) {
        log::trace!("{} -> {}", self.state.name(), state.name());
        assert!(
            matches!(
                (&self.state, &state),
                (State::ReadingName(_), State::Sending(_))
                    | (State::Sending(_), State::Closing(_) | State::ReadingName(_))
            ),
            "no such arrow in the state machine"
        );
        self.state = state;
    }

    /// What it does.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match &self.state {
            State::ReadingName(reading) if reading.idle_since().is_some() => Stage::Idle,
            State::ReadingName(_) => Stage::Reading,
            State::Sending(_) => Stage::Sending,
            State::Closing(_) => Stage::Closing,
        }
    }

    /// When the last byte of its reply was accepted, if it lingers since then.
    #[must_use]
    pub fn lingers_since(&self) -> Option<Instant> {
        match &self.state {
            State::Closing(closing) => Some(closing.since),
            State::ReadingName(_) | State::Sending(_) => None,
        }
    }

    /// What was asked for, as far as it came; bytes from the peer.
    #[must_use]
    pub fn target(&self) -> &[u8] {
        match &self.state {
            State::ReadingName(reading) => reading.pending(),
            State::Sending(Sending { response, .. }) | State::Closing(Closing { response, .. }) => {
                &response.target
            }
        }
    }

    /// Whether it waits for another request, or reads one.
    #[must_use]
    pub fn was_kept_alive(&self) -> bool {
        matches!(&self.state, State::ReadingName(reading) if reading.is_keep_alive())
    }

    /// What it waits for, if it may be ended when others need its place.
    #[must_use]
    pub fn reclaimable(&self) -> Option<Reclaimable> {
        match &self.state {
            State::ReadingName(reading) => reading.reclaimable(),
            State::Sending(sending) => sending.is_slow().then_some(Reclaimable::Slow),
            State::Closing(_) => Some(Reclaimable::Lingering),
        }
    }

    /// The memory that holds what has come of a request, in bytes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        match &self.state {
            State::ReadingName(reading) => reading.held_bytes(),
            State::Sending(_) | State::Closing(_) => 0,
        }
    }

    /// Whether it waits for what a disk thread does.
    #[must_use]
    pub fn awaits_task(&self) -> bool {
        match &self.state {
            State::ReadingName(reading) => reading.awaits_task(),
            State::Sending(sending) => sending.awaits_task(),
            State::Closing(_) => false,
        }
    }

    /// What is or was sent, once a request was answered.
    #[must_use]
    pub fn response(&self) -> Option<&Response> {
        match &self.state {
            State::ReadingName(_) => None,
            State::Sending(Sending { response, .. }) | State::Closing(Closing { response, .. }) => {
                Some(response)
            }
        }
    }
}
