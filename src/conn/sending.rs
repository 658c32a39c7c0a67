//! Sending(offset): moves a reply's body, a budget's worth a turn, and chooses how to end.

use std::io::{self, ErrorKind};

use super::Step::{self, Enter, EnterWaiting, Stay};
use super::closing::Closing;
use super::{Delivery, Env, State, blame};
use crate::escape::Escaped;
use crate::limits::{COPIED_BODY_BYTES_MAX, TURN_BYTES_MAX};
use crate::service::{Body, OpenFile, Reply, RequestEnd};
use crate::stats::Reason;
use crate::transport::{SendFileError, Transport};
use crate::turn::{Next, Turn, Why};

#[derive(Debug)]
pub(super) struct Sending {
    pub(super) delivery: Delivery,
    body: Body,
    ended_by: RequestEnd,
    rest: Rest,
    /// How the reply has gone so far.
    pace: Pace,
}

/// What is known, when a request is answered, of the input after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// The request's last read brought nothing more.
    Unknown,
    /// There is more, or it had the time to come.
    Some,
    /// The receive queue was found empty in this very step.
    Empty,
}

#[derive(Debug)]
enum Pace {
    /// All in the turn in which the request was answered.
    FirstTurn,
    /// It had to wait. `acked` is what the peer had acknowledged when that was last looked at.
    Resumed { acked: u64 },
}

/// Why no more of a body could be sent.
enum SendError {
    WouldBlock,
    Socket(io::Error),
    File(io::Error),
    FileEnded,
}

impl From<io::Error> for SendError {
    /// An error of the socket.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::WouldBlock => Self::WouldBlock,
            _ => Self::Socket(error),
        }
    }
}

impl Sending {
    pub(super) fn new(reply: Reply, rest: Rest) -> Self {
        let Reply {
            subject,
            body,
            outcome,
            ended_by,
            ..
        } = reply;
        let delivery = Delivery {
            subject,
            offset: 0,
            promised: body.length(),
            outcome,
        };
        Self {
            delivery,
            body,
            ended_by,
            rest,
            pace: Pace::FirstTurn,
        }
    }

    pub(super) fn step<T: Transport, S>(&mut self, env: &mut Env<'_, '_, T, S>, why: Why) -> Step {
        match why {
            Why::Stop(reason) => return Stay(Next::Reset(reason)),
            Why::Deadline => return Stay(self.check_stall(env)),
            Why::Ready(edge) if !(edge.writable || edge.dead) => return Stay(Next::Wait),
            _ => {}
        }
        let budget_ends = self.delivery.offset + TURN_BYTES_MAX;
        while self.delivery.offset < self.delivery.promised {
            if self.delivery.offset >= budget_ends {
                self.pause(env);
                return Stay(Next::Again);
            }
            let until = budget_ends.min(self.delivery.promised);
            if self.was_overwritten(until) {
                return Stay(Next::Reset(Reason::FileChanged));
            }
            match self.send_until(until, env) {
                Ok(sent) => self.delivery.offset += sent,
                Err(SendError::WouldBlock) => {
                    self.pause(env);
                    return Stay(Next::Wait);
                }
                Err(SendError::Socket(error)) => return Stay(Next::Reset(blame(&error))),
                Err(SendError::File(error)) => {
                    self.warn(&format_args!("can't be read: {error}"));
                    return Stay(Next::Reset(Reason::ReadFailed));
                }
                Err(SendError::FileEnded) => {
                    self.warn(&"became shorter while it was sent");
                    return Stay(Next::Reset(Reason::FileShort));
                }
            }
        }
        self.finish(env)
    }

    /// Sends what it can of the bytes from the offset to `until`, which is beyond it.
    fn send_until<T: Transport, S>(
        &self,
        until: u64,
        env: &mut Env<'_, '_, T, S>,
    ) -> Result<u64, SendError> {
        let offset = self.delivery.offset;
        // Both fit: a turn's bytes are few.
        let count = (until - offset) as usize;
        let sent = match &self.body {
            Body::Bytes(bytes) => {
                let start = offset as usize;
                env.transport
                    .write(&bytes[start..start + count], self.closes_at_once(env.turn))?
            }
            Body::File(file) if file.length() <= COPIED_BODY_BYTES_MAX => {
                self.copy(file, count, env)?
            }
            Body::File(file) => match env.transport.send_file(file.file(), offset, count) {
                Ok(0) => return Err(SendError::FileEnded),
                Ok(sent) => sent,
                Err(SendFileError::Unsupported) => self.copy(file, count, env)?,
                Err(SendFileError::WouldBlock) => return Err(SendError::WouldBlock),
                Err(SendFileError::Socket(error)) => return Err(SendError::Socket(error)),
                Err(SendFileError::File(error)) => return Err(SendError::File(error)),
            },
        };
        Ok(sent as u64)
    }

    fn copy<T: Transport, S>(
        &self,
        file: &OpenFile,
        count: usize,
        env: &mut Env<'_, '_, T, S>,
    ) -> Result<usize, SendError> {
        let count = count.min(env.turn.scratch.len());
        let offset = self.delivery.offset;
        let filled = match file.read_at(&mut env.turn.scratch[..count], offset) {
            Ok(0) => return Err(SendError::FileEnded),
            Ok(filled) => filled,
            Err(error) => return Err(SendError::File(error)),
        };
        let completes = offset + filled as u64 == self.delivery.promised;
        let more = completes && self.closes_at_once(env.turn);
        Ok(env.transport.write(&env.turn.scratch[..filled], more)?)
    }

    /// Whether the close follows the last byte without a look at the receive queue: the request
    /// had an end, nothing came after it, and there was no time for more to come.
    fn closes_at_once(&self, turn: &Turn<'_>) -> bool {
        matches!(self.pace, Pace::FirstTurn)
            && self.ended_by != RequestEnd::Guess
            && self.rest != Rest::Some
            && !turn.draining
    }

    /// Before the last bytes of a reply that took more than one turn: were those before them
    /// overwritten meanwhile? A fault in asking shows in the reading itself.
    fn was_overwritten(&self, until: u64) -> bool {
        let (Body::File(file), Pace::Resumed { .. }) = (&self.body, &self.pace) else {
            return false;
        };
        let overwritten =
            until == self.delivery.promised && file.is_overwritten().unwrap_or_default();
        if overwritten {
            self.warn(&"changed while it was sent");
        }
        overwritten
    }

    /// Stops before the end, for the budget or for the peer.
    fn pause<T, S>(&mut self, env: &mut Env<'_, '_, T, S>) {
        if matches!(self.pace, Pace::FirstTurn) {
            self.pace = Pace::Resumed { acked: 0 };
        }
        env.turn.deadline = Some(env.turn.now + env.timeouts.stall);
    }

    /// Writable edges alone come minutes apart for an honest slow reader with a large buffer,
    /// so acknowledged bytes decide.
    fn check_stall<T: Transport, S>(&mut self, env: &mut Env<'_, '_, T, S>) -> Next {
        let acked = env.transport.acked_bytes();
        match self.pace {
            Pace::Resumed { acked: before } if before == acked => Next::Reset(Reason::Stalled),
            _ => {
                self.pace = Pace::Resumed { acked };
                env.turn.deadline = Some(env.turn.now + env.timeouts.stall);
                Next::Wait
            }
        }
    }

    /// All bytes are accepted. Unread input would turn the close into a reset that eats them.
    fn finish<T: Transport, S>(&mut self, env: &mut Env<'_, '_, T, S>) -> Step {
        let close = Stay(Next::Close(self.delivery.outcome.reason()));
        if self.closes_at_once(env.turn) {
            return close;
        }
        let guessed = self.ended_by == RequestEnd::Guess;
        let draining = env.turn.draining;
        match self.look(env) {
            Ok(0) => close,
            Ok(n) if guessed && !draining && is_terminator(&env.turn.scratch[..n]) => close,
            Ok(n) => match self.linger(env, n as u64) {
                Ok(closing) => Enter(State::Closing(closing)),
                Err(error) => Stay(Next::Close(blame(&error))),
            },
            Err(error) if error.kind() != ErrorKind::WouldBlock => Stay(Next::Close(blame(&error))),
            Err(_) if !guessed && self.rest != Rest::Some && !draining => close,
            Err(_) => match self.linger(env, 0) {
                Ok(closing) => {
                    env.turn.deadline = Some(closing.deadline());
                    EnterWaiting(State::Closing(closing))
                }
                Err(error) => Stay(Next::Close(blame(&error))),
            },
        }
    }

    /// The one read before a close, unless the answer is known.
    fn look<T: Transport, S>(&self, env: &mut Env<'_, '_, T, S>) -> io::Result<usize> {
        match (self.rest, &self.pace) {
            (Rest::Empty, Pace::FirstTurn) => Err(ErrorKind::WouldBlock.into()),
            _ => env.transport.read(env.turn.scratch),
        }
    }

    /// Shuts the write side; `discarded` bytes of input were thrown away already.
    fn linger<T: Transport, S>(
        &mut self,
        env: &mut Env<'_, '_, T, S>,
        discarded: u64,
    ) -> io::Result<Closing> {
        env.transport.shutdown_write()?;
        let nothing = Delivery {
            subject: Box::default(),
            ..self.delivery
        };
        let delivery = std::mem::replace(&mut self.delivery, nothing);
        Ok(Closing::new(delivery, discarded, env))
    }

    fn warn(&self, what: &dyn std::fmt::Display) {
        let Delivery {
            subject,
            offset,
            promised,
            ..
        } = &self.delivery;
        log::warn!(
            "\"{}\" {what} ({offset} of {promised} bytes sent)",
            Escaped(subject)
        );
    }
}

/// The end of a line that a guessed name didn't wait for.
fn is_terminator(bytes: &[u8]) -> bool {
    matches!(bytes, b"\n" | b"\r\n")
}
