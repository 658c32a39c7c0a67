//! One request under way, and how it ends.

use std::borrow::Cow;
use std::time::Instant;

use super::check::{Checker, Mismatch};
use super::outcome::Class;
use super::plan::{Choice, Plan};
use super::population::ClientKind;

/// One request under way.
pub(super) struct InFlight {
    pub(super) choice: Choice,
    /// When it should have been started, in the open model.
    pub(super) due: Option<Instant>,
    /// When it was: connect was called, or its connection was idle.
    pub(super) started: Instant,
    pub(super) checker: Checker,
    /// The length that the body must have, if that is known.
    pub(super) expected: Option<u64>,
    /// HTTP: another status than 200.
    pub(super) bad_status: Option<u16>,
    pub(super) sent: Option<Instant>,
    pub(super) has_answer: bool,
    /// Bytes of the body so far.
    pub(super) received: u64,
}

/// How a request ends, and in a failure's case what happened.
pub(super) struct RequestEnd {
    pub(super) class: Class,
    pub(super) what: Cow<'static, str>,
    /// The connection may carry another request.
    pub(super) reusable: bool,
    /// The connection broke, or ended; before the answer, if there was none.
    pub(super) is_unanswered: bool,
}

impl RequestEnd {
    pub(super) fn new(class: Class, what: impl Into<Cow<'static, str>>) -> Self {
        Self {
            class,
            what: what.into(),
            reusable: false,
            is_unanswered: false,
        }
    }

    /// The same, for a connection that ended by itself.
    pub(super) fn unanswered(self) -> Self {
        Self {
            is_unanswered: true,
            ..self
        }
    }
}

impl InFlight {
    /// Whether its times count: those of the other kinds are of their own making.
    pub(super) fn counts_time(&self) -> bool {
        matches!(self.choice.kind, ClientKind::Fast | ClientKind::HalfClose)
    }

    /// Whether it is among those whose waiting is watched.
    pub(super) fn waits(&self) -> bool {
        self.counts_time() && self.sent.is_some()
    }

    /// Where its client breaks off, and whether by a reset.
    pub(super) fn abort_at(&self) -> Option<(u64, bool)> {
        let aborts = self.choice.kind == ClientKind::Abort;
        aborts.then(|| Plan::abort_at(self.choice.variate, self.expected))
    }

    /// The answer is a status, and not what was asked for: its body is compared with nothing.
    pub(super) fn refuse(&mut self, status: u16) {
        self.bad_status = Some(status);
        self.checker = Checker::Nothing;
        self.expected = None;
    }

    /// Checks bytes of the body. The buffer is for what they are compared with.
    pub(super) fn take(&mut self, bytes: &[u8], buffer: &mut [u8]) -> Result<(), RequestEnd> {
        let checked = self.checker.take(self.received, bytes, buffer);
        checked.map_err(corrupt)?;
        self.received += bytes.len() as u64;
        match self.abort_at() {
            Some((at, _)) if self.received >= at => Err(RequestEnd::new(Class::Aborted, "")),
            _ => Ok(()),
        }
    }

    /// How it ends after a body that ended in order, whole or not.
    pub(super) fn body_ended(&mut self, reusable: bool) -> RequestEnd {
        let received = self.received;
        let end = match (self.bad_status, self.expected) {
            (Some(status), _) => RequestEnd::new(Class::Status, format!("status {status}")),
            (None, Some(expected)) if received < expected => {
                let what = format!("{received} bytes of {expected}");
                return RequestEnd::new(Class::Short, what);
            }
            _ => match self.checker.finish(received) {
                Ok(()) => RequestEnd::new(Class::Complete, ""),
                Err(mismatch) => return corrupt(mismatch),
            },
        };
        RequestEnd { reusable, ..end }
    }
}

fn corrupt(mismatch: Mismatch) -> RequestEnd {
    let Mismatch { offset, among } = mismatch;
    let what = match among {
        1 => format!("wrong at offset {offset}"),
        _ => format!("wrong in the block of {among} bytes at offset {offset}"),
    };
    RequestEnd::new(Class::Corrupt, what)
}
