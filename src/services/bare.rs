//! The bare protocol: a name comes in, the file's bytes go out. This room decides where a name
//! ends when nothing in the stream need say so.

use std::time::Duration;

use crate::escape::Escaped;
use crate::limits::{GUESSES_MAX, NAME_BYTES_MAX};
use crate::service::{Body, Moment, Outcome, Reply, Request, RequestEnd, Service, Verdict};
use crate::services::root::{LookupError, Root};
use crate::stats::Reason;

/// Methods of RFC 9110, section 9, and RFC 5789. What begins like a request line is left to its
/// line feed: a browser's first segment must not be taken for a name.
const HTTP_METHODS: [&[u8]; 9] = [
    b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH",
];

/// Serves a root's files by name.
#[derive(Debug)]
pub struct Bare {
    root: Root,
    /// Silence that ends an unterminated name; `None`: only a line feed and EOF do.
    name_gap: Option<Duration>,
}

impl Bare {
    /// `name_gap` is `None` for exact names.
    #[must_use]
    pub fn new(root: Root, name_gap: Option<Duration>) -> Self {
        Self { root, name_gap }
    }

    /// Nothing but time can end this name; the bytes in hand are tried as they stand.
    fn guess(&mut self, request: &Request<'_>) -> Verdict {
        let quiet = match (self.name_gap, http_likeness(request.bytes)) {
            (None, _) | (_, HttpLikeness::Method) => {
                return Verdict::NeedMore {
                    guessed: false,
                    quiet: None,
                };
            }
            (_, HttpLikeness::Beginning) => None,
            (gap, HttpLikeness::None) => gap,
        };
        if request.guesses >= GUESSES_MAX || request.bytes.len() > NAME_BYTES_MAX {
            return Verdict::NeedMore {
                guessed: false,
                quiet,
            };
        }
        match self.answer(request.bytes, request.bytes.len(), RequestEnd::Guess) {
            // Perhaps a part of a name. A failure of ours will show again when the name is whole.
            Verdict::Reply(Reply {
                outcome: Outcome::Refused(_),
                ..
            })
            | Verdict::Abandon(_) => Verdict::NeedMore {
                guessed: true,
                quiet,
            },
            decided => decided,
        }
    }

    /// Answers a whole name.
    fn answer(&mut self, name: &[u8], used: usize, ended_by: RequestEnd) -> Verdict {
        let found = if name.len() > NAME_BYTES_MAX {
            Err(LookupError::Refused("the name is too long"))
        } else {
            self.root.lookup(name)
        };
        let (body, outcome) = match found {
            Ok(file) => (Body::File(file), Outcome::Complete),
            Err(LookupError::Refused(why)) => (Body::empty(), Outcome::Refused(why)),
            Err(LookupError::NoDescriptor) => return Verdict::Later,
            Err(LookupError::Failed(errno)) => {
                log::warn!("\"{}\" can't be opened: {errno}", Escaped(name));
                return Verdict::Abandon(Reason::OpenFailed);
            }
        };
        let subject = name[..name.len().min(NAME_BYTES_MAX)].into();
        Verdict::Reply(Reply {
            subject,
            body,
            outcome,
            used,
            ended_by,
        })
    }
}

impl Service for Bare {
    fn judge(&mut self, request: &Request<'_>) -> Verdict {
        let bytes = request.bytes;
        // A CR may stand between the longest name and its line feed.
        let line = &bytes[..bytes.len().min(NAME_BYTES_MAX + 2)];
        if let Some(line_feed) = line.iter().position(|&byte| byte == b'\n') {
            let line = &line[..line_feed];
            let name = line.strip_suffix(b"\r").unwrap_or(line);
            return self.answer(name, line_feed + 1, RequestEnd::LineFeed);
        }
        let too_long = match bytes.len() {
            ..=NAME_BYTES_MAX => false,
            len => len > NAME_BYTES_MAX + 1 || !bytes.ends_with(b"\r"),
        };
        match request.moment {
            _ if too_long => self.answer(bytes, bytes.len(), RequestEnd::Guess),
            Moment::Arrived => Verdict::NeedMore {
                guessed: false,
                quiet: None,
            },
            Moment::Drained => self.guess(request),
            Moment::Quiet => self.answer(bytes, bytes.len(), RequestEnd::Guess),
            Moment::Ended => self.answer(bytes, bytes.len(), RequestEnd::Eof),
        }
    }
}

/// How much bytes look like an HTTP request line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HttpLikeness {
    None,
    /// They could become a method and a space.
    Beginning,
    /// They begin with a method and a space.
    Method,
}

fn http_likeness(bytes: &[u8]) -> HttpLikeness {
    let is_method = |method: &&[u8]| {
        bytes
            .strip_prefix(*method)
            .is_some_and(|r| r.starts_with(b" "))
    };
    if HTTP_METHODS.iter().any(is_method) {
        HttpLikeness::Method
    } else if HTTP_METHODS.iter().any(|method| method.starts_with(bytes)) {
        HttpLikeness::Beginning
    } else {
        HttpLikeness::None
    }
}
