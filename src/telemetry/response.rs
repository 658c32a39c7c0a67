//! What became of a response, as the counters and the access log tell of it.

use std::fmt;
use std::time::Instant;

use http::StatusCode;

use super::Reason;

/// What became of a reply.
#[derive(Debug)]
pub struct Response {
    /// What was asked for: over HTTP the request line. Bytes from the peer.
    pub target: Box<[u8]>,
    /// The body's bytes that the kernel has accepted.
    pub offset: u64,
    /// The body's length.
    pub body_len: u64,
    /// Why it brought nothing; `None` if it brings what was asked for.
    pub refused: Option<&'static str>,
    /// When the request had come.
    pub asked_at: Instant,
    /// Its status; the bare protocol has none.
    pub status: Option<StatusCode>,
    /// What an access log says of it.
    pub http_log: Option<Box<HttpLogFields>>,
}

impl Response {
    /// Why it ends if nothing goes wrong.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self.refused {
            None => Reason::Complete,
            Some(_) => Reason::Refused,
        }
    }

    /// How it ended in words, given why its connection did.
    #[must_use]
    pub fn end(&self, reason: Reason) -> ResponseEnd {
        let why = self.refused.filter(|_| reason == Reason::Refused);
        ResponseEnd { reason, why }
    }
}

/// How a reply ended, in words.
#[derive(Clone, Copy, Debug)]
pub struct ResponseEnd {
    reason: Reason,
    /// Why it was refused.
    why: Option<&'static str>,
}

impl fmt::Display for ResponseEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)?;
        match self.why {
            Some(why) => write!(f, ": {why}"),
            None => Ok(()),
        }
    }
}

/// Fields of a request that an access log has. Text is bytes from the peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpLogFields {
    /// The Referer field.
    pub referer: Option<Box<[u8]>>,
    /// The User-Agent field.
    pub agent: Option<Box<[u8]>>,
    /// The end of X-Forwarded-For, where proxies are trusted.
    pub forwarded_for: Option<Box<[u8]>>,
}
