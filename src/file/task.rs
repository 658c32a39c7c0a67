//! What the loop leaves to threads: to open a file, to read a part of one, to list a directory, or to make
//! a piece of a body.

use std::fmt;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;

use rustix::fs::Advice;

use super::fs_class::{FsClass, MayBlock, Mount};
use super::list::{ListError, ListTask, Listed};
use super::open_file::{Lookup, LookupError, OpenFile};
use super::piece::{Piece, PieceError, PieceTask};
use super::semaphore::Permit;
use super::version::FileVersion;
use crate::limits::{COLD_BLOCK_BYTES, READ_AHEAD_BUFFER_BYTES, TASK_RESULT_BYTES_MAX};
use crate::trace::record::{self, Call, TaskKind};

/// Something that may wait for a disk. A connection has one at a time.
pub enum DiskTask {
    /// Opens a file.
    Open {
        /// Its name, by which the result is recognized.
        name: Box<[u8]>,
        /// Opens it. What lies further than it may wait is [`LookupError::OtherMount`].
        open: Box<dyn Fn(MayBlock) -> Result<Lookup, LookupError> + Send>,
    },
    /// Makes the list of a directory, perhaps for several connections.
    List(Arc<ListTask>),
    /// Reads a part of a file.
    Read(ReadTask),
    /// Makes a piece of a body.
    Make(PieceTask),
}

/// What a task came to.
#[derive(Debug)]
pub enum TaskResult {
    /// A file was opened, or was not.
    Opened {
        /// Its name.
        name: Box<[u8]>,
        /// What the name leads to.
        lookup: Result<Lookup, LookupError>,
    },
    /// A directory was listed, or was not.
    Listed(Listed),
    /// A part of a file was read, or was not.
    Read(io::Result<Chunk>),
    /// A piece of a body was made, or was not.
    Made(Result<Piece, PieceError>),
    /// The task leads further than its thread may go: to this mount.
    NeedsRemoteLane(DiskTask, Mount),
    /// The thread panicked.
    Panicked,
}

/// A part of a file that was read.
#[derive(Debug)]
pub struct Chunk {
    /// Its offsets. What `kept` lacks of it lies beyond the file's end.
    pub range: Range<u64>,
    /// The bytes, if the loop is to send them from memory; else it is enough that the kernel has them.
    pub kept: Option<Box<ChunkBytes>>,
}

/// Bytes that a disk thread hands over to the loop.
#[derive(Debug)]
pub struct ChunkBytes {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The file's version after they were read.
    pub version: FileVersion,
    /// The memory that they have of what all results may have.
    pub permit: Option<Permit>,
}

impl DiskTask {
    /// Does the task, if it waits for no more than this.
    #[must_use]
    pub fn run(self, may_block: MayBlock) -> TaskResult {
        match self {
            Self::Open { name, open } => match open(may_block) {
                Err(LookupError::OtherMount(mount)) => {
                    TaskResult::NeedsRemoteLane(Self::Open { name, open }, mount)
                }
                lookup => TaskResult::Opened { name, lookup },
            },
            Self::List(task) => match task.run(may_block) {
                Err(ListError::Failed(LookupError::OtherMount(mount))) => {
                    TaskResult::NeedsRemoteLane(Self::List(task), mount)
                }
                listed => TaskResult::Listed(listed),
            },
            Self::Read(read) => TaskResult::Read(read.run()),
            Self::Make(task) => match task.run(may_block) {
                Err(PieceError::OtherMount(mount)) => {
                    TaskResult::NeedsRemoteLane(Self::Make(task), mount)
                }
                made => TaskResult::Made(made),
            },
        }
    }

    /// How many bytes the thread may hand over.
    pub(super) fn kept_bytes(&self) -> Option<u64> {
        match self {
            Self::Read(read) if read.keeps => Some(read.range.end - read.range.start),
            Self::Make(_) => Some(PieceTask::kept_bytes()),
            _ => None,
        }
    }

    /// What a trace calls it.
    pub(super) fn kind(&self) -> TaskKind {
        match self {
            Self::Open { .. } => TaskKind::Open,
            Self::List(_) => TaskKind::List,
            Self::Read(_) => TaskKind::Read,
            Self::Make(_) => TaskKind::Make,
        }
    }

    /// The remote mount that it waits for, as far as that is known before it is begun: an open and a list
    /// find that out.
    #[must_use]
    pub fn mount(&self) -> Option<Mount> {
        match self {
            Self::Read(read) if read.file.fs_class() == FsClass::Remote => Some(read.file.mount()),
            _ => None,
        }
    }
}

impl TaskResult {
    /// The same result for another connection: only for a list do several wait.
    pub(super) fn shared(&self) -> Self {
        match self {
            Self::Listed(listed) => Self::Listed(listed.clone()),
            _ => Self::Panicked,
        }
    }
}

impl fmt::Debug for DiskTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { name, .. } => f.debug_tuple("Open").field(name).finish(),
            Self::List(task) => f.debug_tuple("List").field(task).finish(),
            Self::Read(read) => f.debug_tuple("Read").field(read).finish(),
            Self::Make(task) => f.debug_tuple("Make").field(task).finish(),
        }
    }
}

/// A read that the loop can't do itself.
#[derive(Debug)]
pub struct ReadTask {
    file: Arc<OpenFile>,
    /// The byte that is wanted first.
    wanted: u64,
    range: Range<u64>,
    /// What the kernel is told to read next.
    ahead: Range<u64>,
    /// The bytes are handed over; else it is enough that the kernel has them in memory.
    keeps: bool,
}

impl ReadTask {
    /// The read that lets the loop have a file's bytes from `start` on; nothing is needed beyond
    /// `end`. It reads `most`, a multiple of [`COLD_BLOCK_BYTES`], and as much ahead. If the loop
    /// `copies` them itself, or can't know that they will still be in memory, they are handed over.
    #[must_use]
    pub fn new(file: &Arc<OpenFile>, start: u64, end: u64, most: u64, copies: bool) -> Self {
        let (range, keeps) = match (file.fs_class(), copies) {
            (FsClass::ReadOnce, _) => {
                // Whole blocks are read, once each: from the first one on that was not read yet.
                let mut first = start - start % COLD_BLOCK_BYTES;
                while file.was_read(&(first..first + COLD_BLOCK_BYTES)) {
                    first += COLD_BLOCK_BYTES;
                }
                (first..first + most, false)
            }
            (FsClass::Remote, _) | (_, true) => (
                start..end.min(start + most.min(TASK_RESULT_BYTES_MAX)),
                true,
            ),
            // Whole blocks, so that none of them is taken for missing any longer.
            (_, false) => (
                start - start % COLD_BLOCK_BYTES..(start + most).next_multiple_of(COLD_BLOCK_BYTES),
                false,
            ),
        };
        Self {
            file: Arc::clone(file),
            wanted: start.max(range.start),
            ahead: range.end..end.min(range.end + most),
            range,
            keeps,
        }
    }

    fn run(self) -> io::Result<Chunk> {
        // A few blocks: the length fits.
        let length = (self.range.end - self.range.start) as usize;
        let buffer_bytes = if self.keeps {
            length
        } else {
            length.min(READ_AHEAD_BUFFER_BYTES)
        };
        let mut buffer = vec![0; buffer_bytes];
        let mut at = self.range.start;
        let end = loop {
            let done = (at - self.range.start) as usize;
            if done == length {
                break at;
            }
            let into = if self.keeps {
                &mut buffer[done..]
            } else {
                &mut buffer[..buffer_bytes.min(length - done)]
            };
            match self.file.read_blocking(into, at) {
                Ok(0) => break self.range.end,
                Ok(count) => at += count as u64,
                // What was read before the error is good.
                Err(_) if at > self.wanted => break at,
                Err(error) => return Err(error),
            }
        };
        self.read_ahead();
        let range = self.range.start..end;
        self.file.note_read(&range);
        let kept = if self.keeps {
            buffer.truncate((at - self.range.start) as usize);
            Some(Box::new(ChunkBytes {
                bytes: buffer,
                version: self.file.version_now()?,
                permit: None,
            }))
        } else {
            None
        };
        Ok(Chunk { range, kept })
    }

    /// Has the kernel read what the sender will want next.
    fn read_ahead(&self) {
        let Range { start, end } = self.ahead;
        if let Some(file) = self.file.handle()
            && let Some(length) = NonZeroU64::new(end.saturating_sub(start))
        {
            // Only a hint.
            let _ = record::call(Call::ReadAhead, || {
                rustix::fs::fadvise(file, start, Some(length), Advice::WillNeed)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::open_file::{Probe, ReadError};
    use super::super::version::Snapshot;
    use super::*;
    use std::fs::{self, File};

    const BLOCK: u64 = COLD_BLOCK_BYTES;

    fn file(class: FsClass, length: u64) -> (tempfile::NamedTempFile, Arc<OpenFile>) {
        let named = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        fs::write(named.path(), bytes).unwrap();
        let file = open(File::open(named.path()).unwrap(), class);
        (named, file)
    }

    fn open(file: File, class: FsClass) -> Arc<OpenFile> {
        let state = Snapshot::of(&file).unwrap();
        Arc::new(OpenFile::new(file, state, class))
    }

    fn run(read: ReadTask) -> io::Result<Chunk> {
        match DiskTask::Read(read).run(MayBlock::Forever) {
            TaskResult::Read(chunk) => chunk,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_block_of_a_file_that_cannot_be_asked_is_read_once() {
        let length = 2 * BLOCK + 5;
        let (_named, file) = file(FsClass::ReadOnce, length);
        let is_cold = |start, count| file.would_block(start, count, Probe::Last);
        assert!(is_cold(0, 1) && is_cold(BLOCK, 1) && is_cold(2 * BLOCK, 5));
        for (wanted, range) in [
            (BLOCK + 7, BLOCK..2 * BLOCK),
            (2 * BLOCK, 2 * BLOCK..3 * BLOCK),
        ] {
            let chunk = run(ReadTask::new(&file, wanted, length, BLOCK, true)).unwrap();
            assert_eq!(chunk.range, range);
            assert!(chunk.kept.is_none());
        }
        assert!(!is_cold(BLOCK, BLOCK as usize + 5) && is_cold(BLOCK - 1, 2));
        // The next block that was not read.
        file.note_read(&(0..BLOCK - 1));
        assert!(is_cold(0, 1), "a part of a block is none");
        let read = ReadTask::new(&file, 0, length, BLOCK, false);
        assert_eq!(run(read).unwrap().range, 0..BLOCK);
        assert!(!is_cold(0, length as usize));
        let mut bytes = [0; 3];
        assert_eq!(file.read_nowait(&mut bytes, 2 * BLOCK + 4).unwrap(), 1);
    }

    #[test]
    fn a_remote_file_is_fetched_in_chunks_with_its_state() {
        let length = TASK_RESULT_BYTES_MAX + 5;
        let (named, file) = file(FsClass::Remote, length);
        let read = file.read_nowait(&mut [0], 0);
        assert!(matches!(read, Err(ReadError::WouldBlock)));
        let read = |copies| {
            run(ReadTask::new(
                &file,
                3,
                length,
                TASK_RESULT_BYTES_MAX,
                copies,
            ))
            .unwrap()
        };
        for copies in [true, false] {
            let chunk = read(copies);
            assert_eq!(chunk.range, 3..TASK_RESULT_BYTES_MAX + 3);
            let ChunkBytes { bytes, version, .. } = *chunk.kept.unwrap();
            assert_eq!(bytes.len() as u64, TASK_RESULT_BYTES_MAX);
            assert_eq!((bytes[0], version.length), (3, length));
        }
        // What is missing is beyond the end.
        named.as_file().set_len(10).unwrap();
        let chunk = read(true);
        assert_eq!(chunk.range, 3..TASK_RESULT_BYTES_MAX + 3);
        assert_eq!(chunk.kept.unwrap().bytes.len(), 7);
    }

    #[test]
    fn a_short_read_without_waiting_has_a_reason_that_a_blocking_one_finds() {
        let (_named, file) = file(FsClass::Nowait, 10);
        let read = file.read_nowait(&mut [0; 11], 0);
        assert!(matches!(read, Err(ReadError::WouldBlock)));
        let chunk = run(ReadTask::new(&file, 0, 11, BLOCK, true)).unwrap();
        assert_eq!(chunk.kept.unwrap().bytes.len(), 10);
    }

    #[test]
    fn a_read_that_fails_at_once_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        for class in [FsClass::Nowait, FsClass::ReadOnce, FsClass::Remote] {
            let file = open(File::open(directory.path()).unwrap(), class);
            assert!(run(ReadTask::new(&file, 0, 10, BLOCK, true)).is_err());
        }
    }
}
