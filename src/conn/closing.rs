//! Closing: the write side is shut; input is read and thrown away until the peer's FIN, so that
//! no reset overtakes the last bytes (RFC 9112, 9.6, tells the story).

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use super::Step::{self, Stay};
use super::{StepIo, blame};
use crate::conn::transport::Transport;
use crate::limits::{
    CONN_TURN_BYTES_MAX, HTTP_BODY_LINGER_BYTES_MAX, HTTP_BODY_LINGER_TOTAL, LINGER_BYTES_MAX,
    LINGER_IDLE, LINGER_TOTAL,
};
use crate::reactor::event::{Action, Event};
use crate::telemetry::response::Response;

#[derive(Debug)]
pub(super) struct Closing {
    pub(super) delivery: Response,
    /// The bytes of all replies.
    sent: u64,
    /// Since when the last byte is accepted.
    pub(super) since: Instant,
    patience: Patience,
    discarded: u64,
    idle_ends: Instant,
    total_ends: Instant,
    acked: u64,
}

/// How much input is thrown away, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// What a client says beyond its request.
    Ordinary,
    /// The request's body, which many clients send to its end before they read the answer.
    Body,
}

impl Patience {
    fn bytes_max(self) -> u64 {
        match self {
            Self::Ordinary => LINGER_BYTES_MAX,
            Self::Body => HTTP_BODY_LINGER_BYTES_MAX,
        }
    }

    fn total(self) -> Duration {
        match self {
            Self::Ordinary => LINGER_TOTAL,
            Self::Body => HTTP_BODY_LINGER_TOTAL,
        }
    }
}

impl Closing {
    /// The write side was just shut after `sent` bytes; `discarded` bytes of input were thrown away
    /// before.
    pub(super) fn new<T: Transport, S>(
        delivery: Response,
        sent: u64,
        (discarded, patience): (u64, Patience),
        env: &mut StepIo<'_, '_, T, S>,
    ) -> Self {
        let now = env.turn.now;
        let (idle_ends, total_ends) = (now + LINGER_IDLE, now + patience.total());
        let acked = env.transport.acked_bytes();
        Self {
            delivery,
            sent,
            since: env.turn.now,
            patience,
            discarded,
            idle_ends,
            total_ends,
            acked,
        }
    }

    pub(super) fn step<T: Transport, S>(
        &mut self,
        env: &mut StepIo<'_, '_, T, S>,
        why: Event,
    ) -> Step {
        let close = Stay(Action::Close(self.delivery.outcome.reason()));
        match why {
            Event::Stop(_) => return close,
            Event::Evict => return Stay(Action::Wait),
            Event::Deadline => self.wind_clocks(env),
            Event::Ready(edge) if !(edge.readable || edge.dead) => return Stay(Action::Wait),
            _ => {}
        }
        let budget_ends = self.discarded + CONN_TURN_BYTES_MAX;
        while self.discarded < budget_ends {
            match env.transport.read(env.turn.scratch) {
                Ok(0) => return close,
                Ok(n) => {
                    self.discarded += n as u64;
                    env.turn.moved += n as u64;
                    self.idle_ends = env.turn.now + LINGER_IDLE;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    env.turn.deadline = Some(self.deadline());
                    let is_over = self.deadline() <= env.turn.now || why == Event::Reclaim;
                    return if is_over { close } else { Stay(Action::Wait) };
                }
                Err(error) => return Stay(Action::Close(blame(&error))),
            }
            if self.discarded > self.patience.bytes_max() {
                return close;
            }
        }
        env.turn.deadline = Some(self.deadline());
        Stay(Action::Yield)
    }

    pub(super) fn deadline(&self) -> Instant {
        self.idle_ends.min(self.total_ends)
    }

    /// Both clocks stand while the peer goes on acknowledging enough: it is still taking what was sent.
    /// Our FIN counts for a byte, and its acknowledgement for nothing. A server that stops waits
    /// until the peer has everything: the process's end may take the network's with it.
    fn wind_clocks<T: Transport, S>(&mut self, env: &mut StepIo<'_, '_, T, S>) {
        let before = std::mem::replace(&mut self.acked, env.transport.acked_bytes());
        let has_all = self.acked > self.sent;
        let least = env.timeouts.least_bytes(LINGER_IDLE);
        if self.acked > before + least || (env.turn.draining && !has_all) {
            self.idle_ends = env.turn.now + LINGER_IDLE;
            self.total_ends = env.turn.now + self.patience.total();
        }
    }
}
