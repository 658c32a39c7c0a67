//! What the loop asks of a helper: to open a file, to read a part of one, or to list a folder.

use std::fmt;
use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, ErrorKind};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use rustix::fs::{Advice, Stat};

use super::budget::Lease;
use super::list::{ListError, ListTask, Listed};
use super::thread_pool::ThreadPool;
use crate::limits::READ_AHEAD_BUFFER_BYTES;
use crate::protocol::{LookupError, OpenFile};

/// Something that may wait for a disk, for a helper to do. A connection has one at a time.
pub enum DiskTask {
    /// Opens a file.
    Open {
        /// Its name, which the answer is known by.
        name: Box<[u8]>,
        /// Opens it. What is found to lie further than this is [`LookupError::Elsewhere`].
        open: Box<dyn Fn(Reach) -> Result<Opened, LookupError> + Send>,
    },
    /// Makes the list of a folder, perhaps for several connections.
    List(Arc<ListTask>),
    /// Reads a part of a file.
    Read(Read),
}

/// How far somebody goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// To what is in memory, as the loop does: nothing is waited for.
    Memory,
    /// To a disk of this machine, which answers sooner or later.
    Disk,
    /// Wherever it leads. It may be for ever.
    Anywhere,
}

/// A mount beneath the root, as far as it must be told from others: those that wait for one shall
/// not hold up those that wait for another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mount(u32);

impl Mount {
    /// The lane of those of whom only the latest counts.
    pub(super) const LATEST: Self = Self(1);

    /// What is mounted on this entry of a folder, of which the device and the inode are given.
    #[must_use]
    pub fn at(device: u64, inode: u64, entry: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        (device, inode, entry).hash(&mut hasher);
        // Two that share a number share a lane.
        Self(hasher.finish() as u32)
    }
}

/// What an errand came to.
#[derive(Debug)]
pub enum Fetched {
    /// A file was opened, or was not.
    Opened {
        /// Its name.
        name: Box<[u8]>,
        /// What was found.
        found: Result<Opened, LookupError>,
    },
    /// A folder was listed, or was not.
    Listed(Listed),
    /// A part of a file was read, or was not.
    Read(io::Result<Chunk>),
    /// It leads further than the helper may go: to this mount.
    Further(DiskTask, Mount),
    /// The helper panicked.
    Panicked,
}

/// What a helper has opened.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all are files")]
pub enum Opened {
    /// A regular file.
    File(OpenFile),
    /// A folder, open for reading.
    Folder(OwnedFd),
}

/// A part of a file that was read.
#[derive(Debug)]
pub struct Chunk {
    /// Where it is. Bytes of it that are missing are beyond the file's end.
    pub range: Range<u64>,
    /// The bytes, if they were to be kept, and the file's state after they were read.
    pub kept: Option<(Vec<u8>, Stat)>,
    /// Their part of what may be kept.
    pub lease: Option<Lease>,
}

impl DiskTask {
    /// Does it if it goes no further than this. May wait.
    #[must_use]
    pub fn run(self, reach: Reach) -> Fetched {
        match self {
            Self::Open { name, open } => match open(reach) {
                Err(LookupError::Elsewhere(mount)) => {
                    Fetched::Further(Self::Open { name, open }, mount)
                }
                found => Fetched::Opened { name, found },
            },
            Self::List(task) => match task.run(reach) {
                Err(ListError::Failed(LookupError::Elsewhere(mount))) => {
                    Fetched::Further(Self::List(task), mount)
                }
                listed => Fetched::Listed(listed),
            },
            Self::Read(read) => Fetched::Read(read.run()),
        }
    }

    /// How many bytes it may bring that are then kept.
    pub(super) fn kept_bytes(&self) -> Option<u64> {
        match self {
            Self::Read(read) if read.keep => Some(read.range.end - read.range.start),
            _ => None,
        }
    }

    /// Which mount it is known to wait for, if it goes far.
    #[must_use]
    pub fn mount(&self) -> Mount {
        match self {
            Self::Open { .. } | Self::List(_) => Mount::default(),
            Self::Read(read) => read.mount,
        }
    }

    /// How far it is known to go.
    #[must_use]
    pub fn reach(&self) -> Reach {
        match self {
            // It finds out.
            Self::Open { .. } | Self::List(_) => Reach::Disk,
            Self::Read(read) => read.reach,
        }
    }
}

impl fmt::Debug for DiskTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { name, .. } => f.debug_tuple("Open").field(name).finish(),
            Self::List(task) => f.debug_tuple("List").field(task).finish(),
            Self::Read(read) => f.debug_tuple("Read").field(read).finish(),
        }
    }
}

impl Fetched {
    /// What was read is kept on this lease.
    pub(super) fn keep_on(&mut self, lease: Option<Lease>) {
        if let Self::Read(Ok(portion)) = self {
            portion.lease = lease;
        }
    }

    /// Leaves a file whose close may wait to the helpers who go far, and a list to those who make
    /// lists.
    pub(super) fn close_by(&mut self, far: &ThreadPool, mount: Mount, lists: &ThreadPool) {
        match self {
            Self::Opened {
                found: Ok(Opened::File(file)),
                ..
            } => file.close_by(far, mount),
            Self::Listed(Ok(list)) => list.free_by(lists),
            _ => {}
        }
    }
}

/// A read for a helper.
#[derive(Debug)]
pub struct Read {
    pub(super) file: Arc<File>,
    /// The byte that is wanted first.
    pub(super) wanted: u64,
    pub(super) range: Range<u64>,
    /// What the kernel shall read next.
    pub(super) ahead: Range<u64>,
    /// The bytes are wanted; else it is enough that they are in memory.
    pub(super) keep: bool,
    pub(super) reach: Reach,
    /// Which one it waits for, if it goes far.
    pub(super) mount: Mount,
}

impl Read {
    fn run(self) -> io::Result<Chunk> {
        // A block or a portion: its length fits.
        let length = (self.range.end - self.range.start) as usize;
        let room = match self.keep {
            true => length,
            false => length.min(READ_AHEAD_BUFFER_BYTES),
        };
        let mut buffer = vec![0; room];
        let mut at = self.range.start;
        let end = loop {
            let done = (at - self.range.start) as usize;
            if done == length {
                break at;
            }
            let into = match self.keep {
                true => &mut buffer[done..],
                false => &mut buffer[..room.min(length - done)],
            };
            match self.file.read_at(into, at) {
                Ok(0) => break self.range.end,
                Ok(count) => at += count as u64,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // What was read before it is good.
                Err(_) if at > self.wanted => break at,
                Err(error) => return Err(error),
            }
        };
        self.read_ahead();
        let range = self.range.start..end;
        let kept = match self.keep {
            true => {
                buffer.truncate((at - self.range.start) as usize);
                Some((buffer, rustix::fs::fstat(self.file.as_fd())?))
            }
            false => None,
        };
        Ok(Chunk {
            range,
            kept,
            lease: None,
        })
    }

    /// The sender will want what comes next.
    fn read_ahead(&self) {
        let length = self.ahead.end.saturating_sub(self.ahead.start);
        if let Some(length) = NonZeroU64::new(length) {
            // Only a hint.
            let _ = rustix::fs::fadvise(
                self.file.as_fd(),
                self.ahead.start,
                Some(length),
                Advice::WillNeed,
            );
        }
    }
}
