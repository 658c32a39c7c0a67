//! What is served: bytes received go in, a verdict comes out. A service knows no sockets and no
//! waiting; the connection asks it at every moment at which a request might be whole.

pub mod bare;
pub mod http;
pub mod metrics;
pub mod thanks;

use std::cell::{Cell, OnceCell};
use std::fmt;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::StatusCode;
use rustix::fs::Stat;
use rustix::io::Errno;

use crate::file::thread_pool::ThreadPool;
use crate::file::version::{self, Facts, FileVersion, Snapshot, Trust};
use crate::file::{DiskFile, DiskTask, FsClass, List, Listed, Mount};
use crate::telemetry::Reason;

/// Decides what the bytes of a client ask for.
pub trait Protocol {
    /// Judges everything received so far and not yet answered.
    fn judge(&mut self, request: &Request<'_>) -> Decision;

    /// Has helpers open anew, by its path, what it serves: that may wait for ever. When one of them
    /// is ready it calls `told`, after which [`Protocol::reopened`] is due. Replies under way keep what
    /// they have.
    fn reopen(&mut self, _helpers: &ThreadPool, _told: Told) {}

    /// Takes what helpers have opened anew.
    fn reopened(&mut self) {}

    /// Gives back what it keeps for requests that haven't come. Returns when it wants to be asked
    /// again at the latest.
    fn rest(&mut self, _now: Instant) -> Option<Instant> {
        None
    }
}

/// Says that something is done.
pub type Told = Box<dyn FnOnce() + Send>;

/// What a client has sent, and when the service is asked about it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// All bytes of the request so far; at least one.
    pub bytes: &'a [u8],
    /// What is known about what follows.
    pub moment: InputState,
    /// How many guesses this connection has been granted (see [`Decision::NeedMore`]).
    pub guesses: u8,
    /// The connection has carried a reply before: it was kept alive.
    pub is_later: bool,
    /// The server is stopping: this reply is the connection's last.
    pub draining: bool,
    /// Places for connections are short: this reply is the connection's last.
    pub is_crowded: bool,
    /// What helpers have found for this request (see [`Decision::Suspend`]).
    pub brought: &'a [Brought],
    /// Where the client found this server.
    pub reached: Reached<'a>,
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
    /// Nobody knows.
    fn default() -> Self {
        Self(&|| None)
    }
}

impl fmt::Debug for Reached<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reached")
    }
}

/// What a helper has brought for a request.
#[derive(Debug)]
pub enum Brought {
    /// What is under a name.
    Found {
        /// The name, as it was looked up.
        name: Box<[u8]>,
        /// What it brings.
        found: Result<Found, LookupError>,
    },
    /// The list that was asked for.
    Listed(Listed),
}

/// What a name brings.
#[derive(Debug)]
pub enum Found {
    /// A regular file.
    File(Rc<OpenFile>),
    /// A folder, open for reading.
    Folder(OwnedFd),
}

/// Why a name brings no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupError {
    /// It names nothing that is served; the text says why. To the client all are the same.
    Refused(&'static str),
    /// No descriptor is free, in this process or in the system.
    NoDescriptor,
    /// The look-up may have to wait for a disk: a helper must do it.
    Cold,
    /// It leads away from the root's own file system, to this mount: a helper must do it who may wait
    /// for ever. Only helpers find that out.
    Elsewhere(Mount),
    /// Anything else is a failure of ours.
    Failed(Errno),
}

/// What the connection knows when it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputState {
    /// Bytes have come, and more may be in the receive queue.
    Arrived,
    /// The receive queue is empty.
    WouldBlock,
    /// Nothing has come for as long as the last verdict asked for.
    IdleTimeout,
    /// The client has shut its side: a zero-length read.
    Ended,
}

/// The service's answer.
#[derive(Debug)]
pub enum Decision {
    /// The request isn't whole.
    NeedMore {
        /// The service tried the bytes as they stand, at a cost: one more of the connection's
        /// guesses is spent.
        guessed: bool,
        /// Ask again after so much silence.
        quiet: Option<Duration>,
    },
    /// There is no descriptor to look for a file now. Ask again.
    WaitForFd,
    /// Something must be looked up that may wait for a disk. Ask again when a helper has brought it.
    Suspend(DiskTask),
    /// Here is the answer.
    Reply(Reply),
    /// A failure of our own: the peer must see an error.
    Abort(Reason),
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// What was asked for, as the log shows it.
    pub subject: Box<[u8]>,
    /// What goes in front of the body. With one, the peer knows the body's length, and a body that
    /// is cut short needs no reset to be seen as such.
    pub head: Vec<u8>,
    /// What is sent.
    pub body: Body,
    /// How the connection ends when all is sent.
    pub outcome: Outcome,
    /// How many of the request's bytes were used, its end included.
    pub used: usize,
    /// What ended the request.
    pub ended_by: RequestEnd,
    /// What becomes of the connection.
    pub then: Then,
    /// Its status; the bare protocol has none.
    pub status: Option<StatusCode>,
    /// What an access log says of it; none for the bare protocol, which has no more than a name.
    pub exchange: Option<Box<Exchange>>,
}

/// A request and its answer, as an access log has them. Text is bytes from the peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    /// The request line: method, target and version.
    pub line: Box<[u8]>,
    /// The Referer field.
    pub referer: Option<Box<[u8]>>,
    /// The User-Agent field.
    pub agent: Option<Box<[u8]>>,
}

impl Reply {
    /// A body and nothing else; the connection's end is the body's.
    #[must_use]
    pub fn bare(
        subject: Box<[u8]>,
        body: Body,
        outcome: Outcome,
        used: usize,
        ended_by: RequestEnd,
    ) -> Self {
        let (head, then, status, exchange) = (Vec::new(), Then::Close, None, None);
        Self {
            subject,
            head,
            body,
            outcome,
            used,
            ended_by,
            then,
            status,
            exchange,
        }
    }
}

/// What becomes of a connection after a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It ends.
    Close,
    /// It is read for another request.
    ReadOn,
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

/// What marked the end of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestEnd {
    /// A line feed; of an HTTP head, the one of its empty line.
    LineFeed,
    /// The client's FIN.
    Eof,
    /// Nothing did: the bytes in hand were taken for the whole.
    Guess,
    /// It goes on: with a body that nobody reads.
    Unread,
}

/// What a reply sends.
#[derive(Clone, Debug)]
pub enum Body {
    /// Bytes in memory, shared by all who are sent the same.
    Bytes(Rc<[u8]>),
    /// A folder's list, shared likewise.
    List(Arc<List>),
    /// A file, shared by all who are sent the same, whether it is open or in memory.
    File(Rc<OpenFile>),
    /// Several pieces, one after the other.
    Parts(Rc<[Part]>),
}

/// One of several pieces of a body.
#[derive(Clone, Debug)]
pub enum Part {
    /// Bytes in memory.
    Bytes(Box<[u8]>),
    /// A part of a file.
    File {
        /// The file.
        file: Rc<OpenFile>,
        /// Where the part begins, in bytes.
        start: u64,
        /// How long it is, in bytes.
        length: u64,
    },
}

impl Part {
    fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { length, .. } => *length,
        }
    }
}

/// What of a body comes next.
#[derive(Clone, Copy, Debug)]
pub enum Piece<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// So many bytes of an open file, from an offset on.
    File {
        /// The file.
        file: &'a DiskFile,
        /// Where they begin.
        start: u64,
        /// How many they are.
        length: u64,
    },
}

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
            Self::Parts(parts) => parts.iter().map(Part::length).sum(),
        }
    }

    /// What comes at an offset, as far as it is of one piece. Empty at the end.
    #[must_use]
    pub fn piece(&self, offset: u64) -> Piece<'_> {
        // What is in memory is no longer than an address.
        match self {
            Self::Bytes(bytes) => Piece::Bytes(&bytes[offset as usize..]),
            Self::List(list) => Piece::Bytes(&list.bytes()[offset as usize..]),
            Self::File(file) => file.piece(offset, file.length() - offset),
            Self::Parts(parts) => {
                let mut within = offset;
                for part in parts.iter() {
                    if within < part.length() {
                        return part.piece(within);
                    }
                    within -= part.length();
                }
                Piece::Bytes(&[])
            }
        }
    }

    /// The file that it is of, if it is of one.
    #[must_use]
    pub fn file(&self) -> Option<&OpenFile> {
        match self {
            Self::Bytes(_) | Self::List(_) => None,
            Self::File(file) => Some(file),
            Self::Parts(parts) => parts.iter().find_map(|part| match part {
                Part::Bytes(_) => None,
                Part::File { file, .. } => Some(&**file),
            }),
        }
    }
}

impl Part {
    fn piece(&self, within: u64) -> Piece<'_> {
        match self {
            Self::Bytes(bytes) => Piece::Bytes(&bytes[within as usize..]),
            Self::File {
                file,
                start,
                length,
            } => file.piece(start + within, length - within),
        }
    }
}

/// A regular file, with what fstat said when it was opened.
#[derive(Debug)]
pub struct OpenFile {
    bytes: FileBytes,
    stat: Stat,
    /// Another machine, or a process, answers for its file system.
    is_foreign: bool,
    /// The same file may be given another inode number later.
    is_numbered_anew: bool,
    /// How far its state tells this version from later ones.
    trust: Cell<Trust>,
}

/// Where a file's bytes are.
#[derive(Debug)]
enum FileBytes {
    /// On the disk or in the page cache: it is open for reading.
    Open(DiskFile),
    /// In memory, all of them. It was closed.
    Contents {
        contents: Box<[u8]>,
        fields: OnceCell<Box<[u8]>>,
    },
}

/// A file, whatever its names and its state are: device and inode number.
pub type Inode = (u64, u64);

impl OpenFile {
    /// Takes a file, its state, and what its file system is like.
    #[must_use]
    pub fn new(file: File, state: Snapshot, kind: FsClass) -> Self {
        let Snapshot { stat, clock } = state;
        let (changed, is_foreign) = (version::changed(&stat), kind == FsClass::Remote);
        // FAT and most of FUSE number a file when they meet it.
        let is_numbered_anew =
            is_foreign || (kind == FsClass::ReadOnce && !version::is_fine(changed));
        Self {
            bytes: FileBytes::Open(DiskFile::new(file, kind)),
            stat,
            is_foreign,
            is_numbered_anew,
            trust: Cell::new(version::trust(changed, clock, !is_foreign)),
        }
    }

    /// The same version of the file with all its bytes in memory; nothing if reading them would wait
    /// for a disk. A file that can't be asked is read all the same: it was read a moment ago.
    #[must_use]
    pub fn read_contents(&self) -> Option<Self> {
        let length = self.length() as usize; // Whoever calls knows that it is short.
        let disk = self.disk()?;
        let mut contents = vec![0; length].into_boxed_slice();
        let read = match disk.kind() {
            FsClass::ReadOnce => disk.read_anyhow(&mut contents, 0),
            _ => disk.read(&mut contents, 0),
        };
        let is_whole = matches!(read, Ok(count) if count == length);
        is_whole.then(|| Self {
            bytes: FileBytes::Contents {
                contents,
                fields: OnceCell::new(),
            },
            trust: self.trust.clone(),
            ..*self
        })
    }

    /// The bytes, if they are in memory.
    #[must_use]
    pub fn contents(&self) -> Option<&[u8]> {
        match &self.bytes {
            FileBytes::Open(_) => None,
            FileBytes::Contents { contents, .. } => Some(contents),
        }
    }

    /// Where the header fields that every answer with this file has may be kept. Only a file in
    /// memory has the place: it belongs to one name.
    #[must_use]
    pub fn fields(&self) -> Option<&OnceCell<Box<[u8]>>> {
        match &self.bytes {
            FileBytes::Open(_) => None,
            FileBytes::Contents { fields, .. } => Some(fields),
        }
    }

    /// The open file, if its bytes are not in memory.
    #[must_use]
    pub fn disk(&self) -> Option<&DiskFile> {
        match &self.bytes {
            FileBytes::Open(disk) => Some(disk),
            FileBytes::Contents { .. } => None,
        }
    }

    /// Lets helpers close it, if the close may wait.
    pub(crate) fn close_by(&mut self, helpers: &ThreadPool, mount: Mount) {
        if let FileBytes::Open(disk) = &mut self.bytes {
            disk.close_by(helpers, mount);
        }
    }

    /// A part of it, which must not reach beyond its length.
    fn piece(&self, start: u64, length: u64) -> Piece<'_> {
        match &self.bytes {
            FileBytes::Open(file) => Piece::File {
                file,
                start,
                length,
            },
            // What is in memory is no longer than an address.
            FileBytes::Contents { contents, .. } => {
                Piece::Bytes(&contents[start as usize..][..length as usize])
            }
        }
    }

    /// The length at open, in bytes: what was promised, whatever happens to the file.
    #[must_use]
    pub fn length(&self) -> u64 {
        version::length(&self.stat)
    }

    /// The file that was opened.
    #[must_use]
    pub fn inode(&self) -> Inode {
        (self.stat.st_dev, self.stat.st_ino)
    }

    /// The version that was opened.
    #[must_use]
    pub fn version(&self) -> FileVersion {
        version::version(&self.stat)
    }

    /// What its validators are made of.
    #[must_use]
    pub fn facts(&self) -> Facts {
        Facts {
            inode: (!self.is_numbered_anew).then_some(self.stat.st_ino),
            length: self.length(),
            modified: version::modified(&self.stat),
            changed: version::changed(&self.stat),
            trust: self.trust.get(),
        }
    }

    /// The same version was seen again later, by `other`.
    pub fn note_seen_again(&self, other: &Self) {
        self.trust.set(self.trust.get().max(other.trust.get()));
    }

    /// Whether another look would find that its state can be trusted further: the clock has moved on.
    #[must_use]
    pub fn gains_by_a_look(&self) -> bool {
        let trusted = self.trust.get();
        trusted < Trust::Second && {
            let changed = version::changed(&self.stat);
            version::trust(changed, version::stamp_clock(), !self.is_foreign) > trusted
        }
    }

    /// Whether the bytes that were promised may have been overwritten since: see
    /// [`version::is_overwritten`].
    ///
    /// # Errors
    /// As fstat(2).
    pub fn is_overwritten(&self) -> io::Result<bool> {
        let Some(disk) = self.disk() else {
            return Ok(false);
        };
        let now = rustix::fs::fstat(disk.file().as_fd())?;
        Ok(self.is_overwritten_by(&now))
    }

    /// As [`OpenFile::is_overwritten`], given what fstat said later.
    #[must_use]
    pub fn is_overwritten_by(&self, now: &Stat) -> bool {
        version::is_overwritten(&self.stat, now)
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
