//! What reading a file may cost. The loop must never wait for a disk: what kind of file system a
//! file is on says how it can be told that a read would wait, and who reads then ([`thread_pool`]).

mod budget;
mod fs_class;
mod list;
mod task;
pub mod thread_pool;
pub mod version;

use std::cell::{OnceCell, RefCell};
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use rustix::io::ReadWriteFlags;

use crate::limits::{COLD_BLOCK_BYTES, TASK_RESULT_BYTES_MAX};

pub use budget::{Budget, Lease};
pub use fs_class::{FsClasses, Place};
pub use list::{List, ListError, ListMemory, ListTask, Listed, Reservation};
pub use task::{Chunk, DiskTask, Fetched, Mount, Opened, Reach, Read};

use thread_pool::ThreadPool;

/// What reading from a file system may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsClass {
    /// It is in memory: nothing ever waits.
    InMemory,
    /// It can be asked whether a read would wait (preadv2 with RWF_NOWAIT).
    Nowait,
    /// It is on this machine and can't be asked. What was read once is taken for read.
    ReadOnce,
    /// Over a network, by another process (FUSE), or unknown: anything may wait, the close too.
    Remote,
}

/// An open file, and what reading it may cost.
#[derive(Debug)]
pub struct DiskFile {
    /// Only the drop takes it.
    file: Option<Arc<File>>,
    kind: FsClass,
    /// Of [`FsClass::ReadOnce`]: what was read.
    seen: RefCell<Seen>,
    /// Who closes it, if the loop must not.
    closer: Option<ThreadPool>,
    /// Its descriptor's part of those that files may have.
    lease: OnceCell<Lease>,
    /// Which mount it is on, if that may not answer.
    mount: Mount,
}

/// Why a file was not read.
#[derive(Debug)]
pub enum ReadError {
    /// The read would have to wait for a disk, or may have to.
    Cold,
    /// It failed.
    Failed(io::Error),
}

/// What the loop wants to do with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadMode {
    /// Copy them.
    Copy,
    /// Let sendfile send them.
    Sendfile,
}

/// Which pages of a range are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// The last one.
    Last,
    /// The first one, too.
    Both,
}

impl DiskFile {
    /// Takes an open file.
    #[must_use]
    pub fn new(file: File, kind: FsClass) -> Self {
        Self {
            file: Some(Arc::new(file)),
            kind,
            seen: RefCell::default(),
            closer: None,
            lease: OnceCell::new(),
            mount: Mount::default(),
        }
    }

    /// The file itself.
    #[must_use]
    pub fn file(&self) -> &File {
        self.shared()
    }

    /// What reading it may cost.
    #[must_use]
    pub fn kind(&self) -> FsClass {
        self.kind
    }

    /// Takes a descriptor's part of the budget, unless it has one. Says whether it has one now.
    pub(crate) fn take_lease(&self, of: &Budget) -> bool {
        if self.lease.get().is_none()
            && let Some(lease) = of.lease(1)
        {
            // It was empty a moment ago.
            let _ = self.lease.set(lease);
        }
        self.lease.get().is_some()
    }

    fn shared(&self) -> &Arc<File> {
        self.file.as_ref().expect("only the drop takes it")
    }

    /// Lets helpers close it, if the close may wait.
    pub(crate) fn close_by(&mut self, helpers: &ThreadPool, mount: Mount) {
        if self.kind == FsClass::Remote {
            (self.closer, self.mount) = (Some(helpers.clone()), mount);
        }
    }

    /// Whether reading so many bytes from `start` on may wait for a disk. Of a file that can be
    /// asked, the last page is: the kernel reads in order, so those before it came earlier. `ends`
    /// asks for the first one, too: it tells a file of which somebody wanted the end alone.
    #[must_use]
    pub fn is_cold(&self, start: u64, count: usize, ends: Probe) -> bool {
        let last = start + (count as u64).saturating_sub(1);
        match self.kind {
            FsClass::InMemory => false,
            FsClass::Nowait => {
                !self.is_there(last) || (ends == Probe::Both && !self.is_there(start))
            }
            FsClass::ReadOnce => !self.seen.borrow().covers(start..last + 1),
            FsClass::Remote => true,
        }
    }

    /// Whether the page of a byte is in memory.
    fn is_there(&self, at: u64) -> bool {
        read_if_there(self.file(), &mut [0], at).is_ok()
    }

    /// Reads without waiting. Zero means that the file ends there.
    ///
    /// # Errors
    /// It would have to wait, or it failed.
    pub fn read(&self, buf: &mut [u8], at: u64) -> Result<usize, ReadError> {
        match self.kind {
            FsClass::Nowait => match read_if_there(self.file(), buf, at) {
                Ok(count) if count == buf.len() => Ok(count),
                // A helper tells the rest's reason: a page that isn't there, the file's end, or a
                // failure.
                _ => Err(ReadError::Cold),
            },
            _ if self.is_cold(at, buf.len(), Probe::Last) => Err(ReadError::Cold),
            _ => self.read_anyhow(buf, at),
        }
    }

    /// Reads, even if that waits.
    ///
    /// # Errors
    /// It failed.
    pub fn read_anyhow(&self, buf: &mut [u8], at: u64) -> Result<usize, ReadError> {
        loop {
            match self.file().read_at(buf, at) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map_err(ReadError::Failed),
            }
        }
    }

    /// The read that a helper has to do so that the loop gets the bytes from `start` on; nothing is
    /// needed beyond `end`. It reads `most`, a multiple of [`COLD_BLOCK_BYTES`], and as much ahead. Where the loop can't know that they will be in memory when it wants to
    /// copy them, they are handed over.
    #[must_use]
    pub fn errand(&self, start: u64, end: u64, most: u64, usage: ReadMode) -> Read {
        let block = COLD_BLOCK_BYTES;
        // From the next block on that was not read yet, whole ones: they are read once.
        let first = || {
            let mut first = start - start % block;
            while self.seen.borrow().covers(first..first + block) {
                first += block;
            }
            first..first + most
        };
        let (range, keep) = match (self.kind, usage) {
            (FsClass::ReadOnce, _) => (first(), false),
            (FsClass::Remote, _) | (_, ReadMode::Copy) => (
                start..end.min(start + most.min(TASK_RESULT_BYTES_MAX)),
                true,
            ),
            (_, ReadMode::Sendfile) => (start..end.min(start + most), false),
        };
        Read {
            file: Arc::clone(self.shared()),
            wanted: start.max(range.start),
            ahead: range.end..end.min(range.end + most),
            range,
            keep,
            mount: self.mount,
            reach: match self.kind {
                FsClass::Remote => Reach::Anywhere,
                FsClass::InMemory | FsClass::Nowait | FsClass::ReadOnce => Reach::Disk,
            },
        }
    }

    /// A helper has read this.
    pub fn note_read(&self, range: &Range<u64>) {
        if self.kind == FsClass::ReadOnce {
            self.seen.borrow_mut().add(range);
        }
    }
}

impl Drop for DiskFile {
    fn drop(&mut self) {
        if let (Some(file), Some(helpers)) = (self.file.take(), &self.closer) {
            let lease = self.lease.take();
            helpers.run(self.mount, move || drop((file, lease)));
        }
    }
}

/// Reads what is in memory, if the file system can be asked for just that.
fn read_if_there(file: impl AsFd, buf: &mut [u8], at: u64) -> rustix::io::Result<usize> {
    rustix::io::preadv2(
        file,
        &mut [IoSliceMut::new(buf)],
        at,
        ReadWriteFlags::NOWAIT,
    )
}

/// Blocks of a file that were read.
#[derive(Debug, Default)]
struct Seen(Vec<u64>);

impl Seen {
    fn covers(&self, range: Range<u64>) -> bool {
        let mut blocks = range.start / COLD_BLOCK_BYTES..range.end.div_ceil(COLD_BLOCK_BYTES);
        blocks.all(|block| {
            let (word, bit) = place(block);
            self.0.get(word).is_some_and(|bits| bits & bit != 0)
        })
    }

    /// Adds the blocks that are whole.
    fn add(&mut self, range: &Range<u64>) {
        for block in range.start.div_ceil(COLD_BLOCK_BYTES)..range.end / COLD_BLOCK_BYTES {
            let (word, bit) = place(block);
            if self.0.len() <= word {
                self.0.resize(word + 1, 0);
            }
            self.0[word] |= bit;
        }
    }
}

/// Where a block has its bit. Files are shorter than 2^63 bytes, so that the word's index fits.
fn place(block: u64) -> (usize, u64) {
    ((block / 64) as usize, 1 << (block % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const BLOCK: u64 = COLD_BLOCK_BYTES;

    fn file(kind: FsClass, length: u64) -> (tempfile::NamedTempFile, DiskFile) {
        let named = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        fs::write(named.path(), bytes).unwrap();
        let file = DiskFile::new(File::open(named.path()).unwrap(), kind);
        (named, file)
    }

    fn run(read: Read) -> io::Result<Chunk> {
        match DiskTask::Read(read).run(Reach::Anywhere) {
            Fetched::Read(portion) => portion,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_block_of_a_file_that_cannot_be_asked_is_read_once() {
        let length = 2 * BLOCK + 5;
        let (_named, file) = file(FsClass::ReadOnce, length);
        let is_cold = |start, count| file.is_cold(start, count, Probe::Last);
        assert!(is_cold(0, 1) && is_cold(BLOCK, 1) && is_cold(2 * BLOCK, 5));
        for (wanted, range) in [
            (BLOCK + 7, BLOCK..2 * BLOCK),
            (2 * BLOCK, 2 * BLOCK..3 * BLOCK),
        ] {
            let portion = run(file.errand(wanted, length, BLOCK, ReadMode::Copy)).unwrap();
            assert_eq!(portion.range, range);
            assert!(portion.kept.is_none());
            file.note_read(&portion.range);
        }
        assert!(!is_cold(BLOCK, BLOCK as usize + 5) && is_cold(BLOCK - 1, 2));
        // The next block that was not read.
        file.note_read(&(0..BLOCK - 1));
        assert!(is_cold(0, 1), "a part of a block is none");
        let read = file.errand(0, length, BLOCK, ReadMode::Sendfile);
        assert_eq!(run(read).unwrap().range, 0..BLOCK);
        file.note_read(&(0..BLOCK));
        assert!(!is_cold(0, length as usize));
        let mut bytes = [0; 3];
        assert_eq!(file.read(&mut bytes, 2 * BLOCK + 4).unwrap(), 1);
    }

    #[test]
    fn a_foreign_file_is_fetched_in_portions_with_its_state() {
        let length = TASK_RESULT_BYTES_MAX + 5;
        let (named, file) = file(FsClass::Remote, length);
        assert!(matches!(file.read(&mut [0], 0), Err(ReadError::Cold)));
        for usage in [ReadMode::Copy, ReadMode::Sendfile] {
            let portion = run(file.errand(3, length, TASK_RESULT_BYTES_MAX, usage)).unwrap();
            assert_eq!(portion.range, 3..TASK_RESULT_BYTES_MAX + 3);
            let (bytes, stat) = portion.kept.unwrap();
            assert_eq!(bytes.len() as u64, TASK_RESULT_BYTES_MAX);
            assert_eq!((bytes[0], stat.st_size as u64), (3, length));
        }
        // What is missing is beyond the end.
        named.as_file().set_len(10).unwrap();
        let portion = run(file.errand(3, length, TASK_RESULT_BYTES_MAX, ReadMode::Copy)).unwrap();
        assert_eq!(portion.range, 3..TASK_RESULT_BYTES_MAX + 3);
        assert_eq!(portion.kept.unwrap().0.len(), 7);
    }

    #[test]
    fn what_is_in_memory_is_warm_and_read_at_once() {
        for kind in [FsClass::InMemory, FsClass::Nowait] {
            let (_named, file) = file(kind, 10_000);
            assert!(!file.is_cold(0, 10_000, Probe::Both), "{kind:?}");
            let mut bytes = [0; 100];
            assert_eq!(file.read(&mut bytes, 9_900).unwrap(), 100);
            assert_eq!(bytes[0], (9_900 % 251) as u8);
        }
        // A short read of a file that can be asked has a reason that a helper finds.
        let (_named, file) = file(FsClass::Nowait, 10);
        assert!(matches!(file.read(&mut [0; 11], 0), Err(ReadError::Cold)));
        let portion = run(file.errand(0, 11, BLOCK, ReadMode::Copy)).unwrap();
        assert_eq!(portion.kept.unwrap().0.len(), 10);
    }

    #[test]
    fn a_read_that_fails_at_once_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        for kind in [FsClass::Nowait, FsClass::ReadOnce, FsClass::Remote] {
            let file = DiskFile::new(File::open(folder.path()).unwrap(), kind);
            assert!(run(file.errand(0, 10, BLOCK, ReadMode::Copy)).is_err());
        }
    }
}
