//! The body of an answer: where it ends, and that no byte follows it.

use crate::http::response::{Chunk, Chunks, Framing};
use crate::soak::in_flight::{InFlight, RequestEnd};
use crate::soak::ledger::Ledger;
use crate::soak::outcome::Class;

/// A body that is coming.
pub(super) struct BodyReader {
    remaining: Remaining,
    /// Whether the connection may carry another request after it.
    keep_alive: bool,
}

enum Remaining {
    UntilClose,
    Length(u64),
    Chunked(Box<Chunks>),
}

impl BodyReader {
    pub(super) fn new(framing: Framing, keep_alive: bool) -> Self {
        let remaining = match framing {
            Framing::UntilClose => Remaining::UntilClose,
            Framing::Length(length) => Remaining::Length(length),
            Framing::Chunked => Remaining::Chunked(Box::default()),
        };
        Self {
            remaining,
            keep_alive,
        }
    }

    /// Whether only the connection's end tells that it is whole.
    pub(super) fn ends_with_connection(&self) -> bool {
        matches!(self.remaining, Remaining::UntilClose)
    }

    /// Checks what one read brought. An error is the request's end, be it a good one.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        request: &mut InFlight,
        ledger: &mut Ledger<'_>,
    ) -> Result<(), RequestEnd> {
        let used = match &mut self.remaining {
            Remaining::UntilClose => return ledger.take(request, bytes),
            Remaining::Length(left) => {
                // It is at most the bytes' length.
                let used = (*left).min(bytes.len() as u64) as usize;
                *left -= used as u64;
                ledger.take(request, &bytes[..used])?;
                if *left > 0 {
                    return Ok(());
                }
                used
            }
            Remaining::Chunked(chunks) => {
                let mut at = 0;
                loop {
                    match chunks.next(bytes, at) {
                        Chunk::Data(range) => {
                            at = range.end;
                            ledger.take(request, &bytes[range])?;
                        }
                        Chunk::NeedMore => return Ok(()),
                        Chunk::End(used) => break used,
                        Chunk::Bad(reason) => {
                            return Err(RequestEnd::new(Class::BadAnswer, reason));
                        }
                    }
                }
            }
        };
        Err(if used == bytes.len() {
            request.body_ended(self.keep_alive)
        } else {
            RequestEnd::new(Class::BadAnswer, "bytes follow the body")
        })
    }

    /// How the request ends when the server shuts its side.
    pub(super) fn peer_closed(&self, request: &mut InFlight) -> RequestEnd {
        let received = request.received;
        let what = match &self.remaining {
            Remaining::UntilClose => return request.body_ended(false),
            Remaining::Length(left) => format!("{received} bytes of {}", received + left),
            Remaining::Chunked(_) => format!("{received} bytes, and no last chunk"),
        };
        RequestEnd::new(Class::Short, what)
    }
}
