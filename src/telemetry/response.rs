//! What became of a response, as the counters and the access log tell of it.

use std::fmt;
use std::time::Instant;

use http::StatusCode;

use super::Reason;

/// How a reply ended, in words.
#[derive(Clone, Copy, Debug)]
pub enum ResponseEnd {
    /// As it should; the outcome knows why something was refused.
    Outcome(Outcome),
    /// Otherwise.
    Reason(Reason),
}

impl fmt::Display for ResponseEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outcome(outcome) => outcome.fmt(f),
            Self::Reason(reason) => reason.fmt(f),
        }
    }
}

/// What became of a reply.
#[derive(Debug)]
pub struct Response {
    /// What was asked for; bytes from the peer.
    pub target: Box<[u8]>,
    /// The body's bytes that the kernel has accepted.
    pub offset: u64,
    /// The body's length.
    pub body_len: u64,
    /// How it ends if nothing goes wrong.
    pub outcome: Outcome,
    /// When the request had come.
    pub asked_at: Instant,
    /// Its status; the bare protocol has none.
    pub status: Option<StatusCode>,
    /// What an access log says of it.
    pub http_log: Option<Box<HttpLogFields>>,
}

impl Response {
    /// How it ended, given why its connection did.
    #[must_use]
    pub fn end(&self, reason: Reason) -> ResponseEnd {
        if reason == self.outcome.reason() {
            ResponseEnd::Outcome(self.outcome)
        } else {
            ResponseEnd::Reason(reason)
        }
    }
}

/// How an answered request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It brought what was asked for.
    Complete,
    /// It brought nothing, for this reason.
    Refused(&'static str),
}

impl Outcome {
    /// The reason that is counted.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Complete => Reason::Complete,
            Self::Refused(_) => Reason::Refused,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete => write!(f, "{}", Reason::Complete),
            Self::Refused(why) => write!(f, "{}: {why}", Reason::Refused),
        }
    }
}

/// A request and its answer, as an access log has them. Text is bytes from the peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpLogFields {
    /// The request line: method, target and version.
    pub line: Box<[u8]>,
    /// The Referer field.
    pub referer: Option<Box<[u8]>>,
    /// The User-Agent field.
    pub agent: Option<Box<[u8]>>,
    /// The end of X-Forwarded-For, where proxies are trusted.
    pub forwarded_for: Option<Box<[u8]>>,
}
