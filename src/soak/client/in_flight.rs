//! One request under way, and how it ends.

use std::borrow::Cow;
use std::time::Instant;

use crate::soak::check::{Checker, Mismatch};
use crate::soak::engine::Engine;
use crate::soak::outcome::Class;
use crate::soak::plan::{Choice, Plan};
use crate::soak::population::ClientKind;

/// One request under way.
pub(in crate::soak) struct InFlight {
    pub(in crate::soak) choice: Choice,
    /// When it should have been started, in the open model.
    pub(in crate::soak) due: Option<Instant>,
    /// When it was: connect was called, or its connection was free.
    pub(in crate::soak) started: Instant,
    pub(in crate::soak) checker: Checker,
    /// The length that the body must have, if that is known.
    pub(in crate::soak) expected: Option<u64>,
    /// HTTP: another status than 200.
    pub(super) bad_status: Option<u16>,
    pub(super) sent: Option<Instant>,
    pub(super) has_answer: bool,
    /// Bytes of the body so far.
    pub(in crate::soak) received: u64,
}

impl InFlight {
    pub(in crate::soak) fn new(
        choice: Choice,
        due: Option<Instant>,
        checker: Checker,
        expected: Option<u64>,
    ) -> Self {
        Self {
            choice,
            due,
            started: Instant::now(),
            checker,
            expected,
            bad_status: None,
            sent: None,
            has_answer: false,
            received: 0,
        }
    }

    /// Whether its times count: those of the other kinds are of their own making.
    pub(in crate::soak) fn counts_time(&self) -> bool {
        matches!(self.choice.kind, ClientKind::Fast | ClientKind::HalfClose)
    }

    /// Whether it is among those whose waiting is watched.
    pub(in crate::soak) fn waits(&self) -> bool {
        self.counts_time() && self.sent.is_some()
    }

    pub(super) fn abort_at(&self) -> Option<(u64, bool)> {
        let aborts = self.choice.kind == ClientKind::Abort;
        aborts.then(|| Plan::abort_at(self.choice.variate, self.expected))
    }
}

/// How a request ends, and in a failure's case what happened.
pub(super) struct RequestEnd {
    pub(super) class: Class,
    pub(super) what: Cow<'static, str>,
    /// The connection may carry another request.
    pub(super) reusable: bool,
}

impl RequestEnd {
    pub(super) fn new(class: Class, what: impl Into<Cow<'static, str>>) -> Self {
        Self {
            class,
            what: what.into(),
            reusable: false,
        }
    }

    pub(super) fn complete(reusable: bool) -> Self {
        Self {
            reusable,
            ..Self::new(Class::Complete, "")
        }
    }
}

impl InFlight {
    /// The answer is a status, and not what was asked for.
    pub(super) fn refuse(&mut self, status: u16) {
        self.bad_status = Some(status);
        self.checker = Checker::Nothing;
        self.expected = None;
    }

    /// Checks bytes of the body.
    pub(super) fn take(&mut self, bytes: &[u8], engine: &mut Engine<'_>) -> Result<(), RequestEnd> {
        engine.tally.count_bytes(bytes.len());
        if let Err(wrong) = self.checker.take(self.received, bytes, &mut engine.buffer) {
            return Err(corrupt(wrong));
        }
        self.received += bytes.len() as u64;
        match self.abort_at() {
            Some((at, _)) if self.received >= at => Err(RequestEnd::new(Class::Aborted, "")),
            _ => Ok(()),
        }
    }

    /// The body has ended in order: is it whole?
    pub(super) fn whole(&mut self, reusable: bool) -> RequestEnd {
        let received = self.received;
        if let Some(status) = self.bad_status {
            let what = format!("status {status}");
            return RequestEnd {
                reusable,
                ..RequestEnd::new(Class::Status, what)
            };
        }
        match self.expected {
            Some(expected) if received < expected => {
                RequestEnd::new(Class::Short, format!("{received} bytes of {expected}"))
            }
            _ => match self.checker.finish(received) {
                Ok(()) => RequestEnd::complete(reusable),
                Err(wrong) => corrupt(wrong),
            },
        }
    }
}

fn corrupt(wrong: Mismatch) -> RequestEnd {
    let Mismatch { offset, among } = wrong;
    let where_ = match among {
        1 => format!("wrong at offset {offset}"),
        _ => format!("wrong in the block of {among} bytes at offset {offset}"),
    };
    RequestEnd::new(Class::Corrupt, where_)
}
