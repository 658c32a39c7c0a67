//! What became of a response, as the counters and the access log tell of it.

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

    /// Appends how it ended in words, given why its connection did.
    pub(crate) fn push_end(&self, line: &mut String, reason: Reason) {
        line.push_str(reason.as_str());
        if let Some(why) = self.refused.filter(|_| reason == Reason::Refused) {
            line.extend([": ", why]);
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
