//! What is served: bytes received go in, a decision comes out. A protocol knows no sockets and never waits;
//! the connection asks it whenever a request might be whole.

pub mod bare;
mod gopher;
pub mod http;
pub mod metrics;
pub mod sniff;
pub mod thanks;

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::StatusCode;

use crate::file::{DiskTask, List, Notify, OpenFile, Pieces, Segment, TaskResult, ThreadPool};
use crate::telemetry::Reason;
use crate::telemetry::response::HttpLogFields;

/// Decides what the bytes of a client ask for.
pub trait Protocol {
    /// Judges everything received so far and not yet answered.
    fn respond(&mut self, request: &Request<'_>) -> Decision;

    /// Has a thread of this pool open anew, by its path, what is served: that may wait for ever. A
    /// thread that has done so calls `notify`, after which [`Protocol::reopened`] is due. Replies under
    /// way keep what they have.
    fn reopen(&mut self, _pool: &ThreadPool, _notify: Notify) {}

    /// Takes what a thread has opened anew, if one has.
    fn reopened(&mut self) {}

    /// Gives back what it keeps for requests that haven't come. Returns when it wants to be asked
    /// again at the latest.
    fn release_idle(&mut self, _now: Instant) -> Option<Instant> {
        None
    }
}

/// What a client has sent, and when the protocol is asked about it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// All bytes of the request so far; at least one.
    pub bytes: &'a [u8],
    /// What is known about what follows.
    pub input_state: InputState,
    /// Bytes of it were read just now. If not, all of it came with the request before it.
    pub is_new: bool,
    /// The turn's time.
    pub now: Instant,
    /// How many speculative look-ups the connection has used up (see [`Decision::NeedMore`]).
    pub speculative_lookups: u8,
    /// The connection has carried a reply before: it was kept alive.
    pub is_keep_alive: bool,
    /// The server is stopping: this reply is the connection's last.
    pub draining: bool,
    /// Places for connections are short: this reply is the connection's last.
    pub is_crowded: bool,
    /// It came by TLS.
    pub is_encrypted: bool,
    /// What tasks for this request came to (see [`Decision::Suspend`]).
    pub results: &'a [TaskResult],
    /// The address at which the client has reached this server.
    pub reached: Reached<'a>,
}

#[cfg(feature = "testing")]
impl<'a> Request<'a> {
    /// A connection's first request, of which nothing else is known.
    #[must_use]
    pub fn new(bytes: &'a [u8], input_state: InputState) -> Self {
        Self {
            bytes,
            input_state,
            is_new: true,
            now: Instant::now(),
            speculative_lookups: 0,
            is_keep_alive: false,
            draining: false,
            is_crowded: false,
            is_encrypted: false,
            results: &[],
            reached: Reached::default(),
        }
    }
}

/// Tells the address to which a client has connected. To know it costs a system call, so it is made
/// only for an answer that says it.
#[derive(Clone, Copy)]
pub struct Reached<'a>(&'a dyn Fn() -> Option<SocketAddr>);

impl<'a> Reached<'a> {
    /// `ask` finds it out, unless the connection broke.
    pub fn new(ask: &'a dyn Fn() -> Option<SocketAddr>) -> Self {
        Self(ask)
    }

    /// The address, of IPv4 wherever it is one.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        let address = (self.0)()?;
        Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }
}

impl Default for Reached<'_> {
    /// The address isn't known.
    fn default() -> Self {
        Self(&|| None)
    }
}

impl fmt::Debug for Reached<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reached")
    }
}

/// What the connection knows when it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputState {
    /// Bytes have come, and more may be in the receive queue.
    Arrived,
    /// The receive queue is empty.
    WouldBlock,
    /// Nothing has come for as long as the last decision asked for, or its place is needed for others.
    IdleTimeout,
    /// The client has shut its side: a zero-length read.
    Ended,
}

/// The protocol's answer.
#[derive(Debug)]
pub enum Decision {
    /// The request isn't whole.
    NeedMore {
        /// The protocol has looked for what the bytes name as they stand: one of the connection's
        /// speculative look-ups is used up.
        speculative: bool,
        /// Ask again when nothing has come for so long.
        gap: Option<Duration>,
    },
    /// No descriptor is free to open a file with. Ask again when one may be.
    WaitForFd,
    /// This task must be done first, which may wait for a disk. Ask again with its result.
    Suspend(DiskTask),
    /// The request is whole, and this is the answer.
    Reply(Reply),
    /// Our own failure: reset the connection, so that the peer sees an error.
    Abort(Reason),
}

impl Decision {
    /// The request isn't whole, and only what comes can change that.
    pub const NEED_MORE: Self = Self::NeedMore {
        speculative: false,
        gap: None,
    };
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// What was asked for, as the log shows it.
    pub target: Box<[u8]>,
    /// What goes in front of the body. With one, the peer knows the body's length, and a body that
    /// is cut short needs no reset to be seen as such.
    pub head: Vec<u8>,
    /// What is sent.
    pub body: Body,
    /// Why it brings nothing; `None` if it brings what was asked for.
    pub refused: Option<&'static str>,
    /// How many of the request's bytes were used, its end included.
    pub used: usize,
    /// What ended the request.
    pub ended_by: RequestEnd,
    /// The connection is read for another request. Otherwise it ends.
    pub keep_alive: bool,
    /// Its HTTP status; `None` for the bare protocol.
    pub status: Option<StatusCode>,
    /// What else an access log says of it; `None` for the bare protocol, which has only a name.
    pub http_log: Option<Box<HttpLogFields>>,
}

impl Reply {
    /// An answer of the bare protocol: a body alone, which ends with the connection.
    #[must_use]
    pub fn bare(
        target: Box<[u8]>,
        body: Body,
        refused: Option<&'static str>,
        used: usize,
        ended_by: RequestEnd,
    ) -> Self {
        let (head, keep_alive, status, http_log) = (Vec::new(), false, None, None);
        Self {
            target,
            head,
            body,
            refused,
            used,
            ended_by,
            keep_alive,
            status,
            http_log,
        }
    }
}

/// What marked the end of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestEnd {
    /// A line feed; of an HTTP head, the one of its empty line.
    LineFeed,
    /// The client's FIN.
    Eof,
    /// Nothing did: what had come was taken for the whole request.
    Guess,
    /// It hasn't ended: a body follows that nobody reads.
    Unread,
}

/// What a reply sends.
#[derive(Clone, Debug)]
pub enum Body {
    /// Bytes in memory, shared by all who are sent the same.
    Bytes(Rc<[u8]>),
    /// A directory's list, shared likewise.
    List(Arc<List>),
    /// A file, open or in memory, shared likewise.
    File(Arc<OpenFile>),
    /// Several parts of a file, each after some bytes; either may be empty.
    Parts(Arc<OpenFile>, Rc<[Part]>),
    /// The same of a body that disk threads make piece by piece.
    Pieces(Arc<dyn Pieces>, Rc<[Part]>),
}

/// Some bytes, and the part of a file or a body that follows them.
pub type Part = (Box<[u8]>, Range<u64>);

impl Body {
    /// A body without a byte.
    #[must_use]
    pub fn empty() -> Self {
        Self::Bytes(Rc::new([]))
    }

    /// The length promised, in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::List(list) => list.bytes().len() as u64,
            Self::File(file) => file.length(),
            Self::Parts(_, parts) | Self::Pieces(_, parts) => {
                let length = |(bytes, range): &Part| bytes.len() as u64 + range.end - range.start;
                parts.iter().map(length).sum()
            }
        }
    }

    /// The bytes that follow an offset, as far as they are sent in the same way. Empty at the end.
    #[must_use]
    pub fn segment(&self, offset: u64) -> Segment<'_> {
        // What is in memory is no longer than an address.
        match self {
            Self::Bytes(bytes) => Segment::Bytes(&bytes[offset as usize..]),
            Self::List(list) => Segment::Bytes(&list.bytes()[offset as usize..]),
            Self::File(file) => file.segment(offset, file.length() - offset),
            Self::Parts(file, parts) => {
                segment_of(parts, offset, |start, length| file.segment(start, length))
            }
            Self::Pieces(of, parts) => segment_of(parts, offset, |start, length| Segment::Piece {
                of,
                start,
                length,
            }),
        }
    }

    /// The file that it is of, if it is of one.
    #[must_use]
    pub fn file(&self) -> Option<&OpenFile> {
        match self {
            Self::Bytes(_) | Self::List(_) | Self::Pieces(..) => None,
            Self::File(file) | Self::Parts(file, _) => Some(file),
        }
    }
}

/// What follows an offset of these parts: bytes, or, from where and how long, what `of` makes of it.
fn segment_of<'a>(
    parts: &'a [Part],
    offset: u64,
    of: impl FnOnce(u64, u64) -> Segment<'a>,
) -> Segment<'a> {
    let mut within = offset;
    for (bytes, range) in parts {
        let length = bytes.len() as u64;
        if within < length {
            return Segment::Bytes(&bytes[within as usize..]);
        }
        let start = range.start + within - length;
        if start < range.end {
            return of(start, range.end - start);
        }
        within = start - range.end;
    }
    Segment::Bytes(&[])
}
