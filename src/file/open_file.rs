//! A regular file that was opened: how to read it without waiting for a disk, and what fstat(2) said of
//! it then.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::fs_class::{FsClass, Mount, preadv2_nowait};
use super::semaphore::{Permit, Semaphore};
use super::thread_pool::ThreadPool;
use super::version::{self, Facts, FileVersion, Snapshot, Trust};
use crate::limits::{COLD_BLOCK_BYTES, READ_AHEAD_USUAL_BYTES, RESIDENT_FRESH};
use crate::random::random;
use crate::trace::record::{self, Call, Handle};

/// What a name leads to.
#[derive(Debug)]
pub enum Lookup {
    /// A regular file.
    File(Arc<OpenFile>),
    /// A directory, open for reading.
    Directory(Handle),
}

/// Why a name leads to no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupError {
    /// The name names nothing that is served; the text says why in the log. To the client all are alike.
    Refused(&'static str),
    /// No descriptor is free, in this process or in the system.
    NoDescriptor,
    /// The look-up may have to wait for a disk, so a disk thread must do it.
    WouldBlock,
    /// The name leads to another mount, which may never answer, so a remote thread must do it. Only local
    /// threads find that out.
    OtherMount(Mount),
    /// Anything else is a failure of ours.
    Failed(Errno),
}

/// Why a file was not read.
#[derive(Debug)]
pub enum ReadError {
    /// The read would have to wait for a disk, or may have to.
    WouldBlock,
    /// It failed.
    Failed(io::Error),
}

/// Which pages of a range the kernel is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// The last one: the kernel reads in order, so that the pages before that one came earlier.
    Last,
    /// The first one, too, as of some files only the end was ever wanted; and of a range that is longer than
    /// what the kernel reads at once one in between, by chance: somebody else may have asked about the last.
    Sample,
}

/// Identifies a file, whatever its names and its state are: device and inode number.
pub type Inode = (u64, u64);

/// A regular file, with what fstat said when it was opened. The loop and disk threads share it. A cache may hold
/// very many, so that what only an open one needs is in a block of its own.
#[derive(Debug)]
pub struct OpenFile {
    source: Source,
    version: FileVersion,
    fs_class: FsClass,
    /// How far its state tells this version from later ones: a [`Trust`].
    trust: AtomicU8,
    /// See [`OpenFile::header_fields`].
    header_fields: OnceLock<NamedFields>,
}

/// The header fields of answers with a file that was asked for by one name.
#[derive(Debug)]
struct NamedFields {
    /// The name, and the fields behind it: to compare the one brings the others into the CPU's cache.
    text: Box<[u8]>,
    name_bytes: usize,
    variant: u8,
}

/// Where a file's bytes are.
#[derive(Debug)]
enum Source {
    /// On the disk or in the page cache.
    Open(Box<Opened>),
    /// All bytes are in memory, and the file was closed.
    InMemory(Box<[u8]>),
}

/// What was found in memory last, and when.
type Resident = Option<(Range<u64>, Instant)>;

/// A file that is open for reading.
#[derive(Debug)]
struct Opened {
    file: Handle,
    /// One of the descriptors that files may have, given back after the close.
    permit: OnceLock<Permit>,
    /// What was read before, if its class is [`FsClass::ReadOnce`]. Of [`FsClass::Nowait`], what was
    /// found missing, and not read since.
    blocks: Mutex<Blocks>,
    resident: Mutex<Resident>,
    /// The threads that close the file, if close(2) may wait, and the mount that it may wait for.
    closer: OnceLock<(ThreadPool, Mount)>,
}

impl OpenFile {
    /// A file that was just opened, its state, and its file system's class.
    #[must_use]
    pub fn new(file: File, state: Snapshot, fs_class: FsClass) -> Self {
        let version = FileVersion::from(&state.stat);
        let is_local = fs_class != FsClass::Remote;
        Self {
            source: Source::Open(Box::new(Opened {
                file: Handle::from(OwnedFd::from(file)),
                permit: OnceLock::new(),
                blocks: Mutex::default(),
                resident: Mutex::default(),
                closer: OnceLock::new(),
            })),
            version,
            fs_class,
            trust: AtomicU8::new(version::trust(version.changed, state.clock, is_local) as u8),
            header_fields: OnceLock::new(),
        }
    }

    /// The same version of the file with all its bytes in memory; `None` if reading them would wait for a
    /// disk. A file of [`FsClass::ReadOnce`] is read all the same: a thread read it a moment ago.
    #[must_use]
    pub fn read_contents(&self) -> Option<Self> {
        let length = self.length() as usize; // Whoever calls knows that it is short.
        let mut contents = vec![0; length].into_boxed_slice();
        let count = match self.fs_class {
            FsClass::ReadOnce => self.read_blocking(&mut contents, 0).ok()?,
            _ => self.read_nowait(&mut contents, 0).ok()?,
        };
        (count == length).then(|| Self {
            source: Source::InMemory(contents),
            version: self.version,
            fs_class: self.fs_class,
            trust: AtomicU8::new(self.trust() as u8),
            header_fields: OnceLock::new(),
        })
    }

    /// The bytes, if they are in memory.
    #[must_use]
    pub fn contents(&self) -> Option<&[u8]> {
        match &self.source {
            Source::Open(_) => None,
            Source::InMemory(contents) => Some(contents),
        }
    }

    /// The header fields that every response with this file has that was asked for by this name, if they are
    /// kept. `variant` tells itself (0) from the sibling of another, and its codings.
    #[must_use]
    pub fn header_fields(&self, name: &[u8], variant: u8) -> Option<&[u8]> {
        let kept = self.header_fields.get()?;
        let (kept_name, fields) = kept.text.split_at(kept.name_bytes);
        (kept_name == name && kept.variant == variant).then_some(fields)
    }

    /// Keeps these fields. Most files are asked for in one way only: the first one keeps its place.
    pub fn keep_header_fields(&self, name: &[u8], variant: u8, fields: &[u8]) {
        self.header_fields.get_or_init(|| NamedFields {
            text: [name, fields].concat().into(),
            name_bytes: name.len(),
            variant,
        });
    }

    /// The open file, if its bytes are not in memory.
    #[must_use]
    pub fn handle(&self) -> Option<&Handle> {
        self.opened().map(|opened| &opened.file)
    }

    fn opened(&self) -> Option<&Opened> {
        match &self.source {
            Source::Open(opened) => Some(opened),
            Source::InMemory(_) => None,
        }
    }

    /// Whether reading it may wait.
    #[must_use]
    pub fn fs_class(&self) -> FsClass {
        self.fs_class
    }

    // ---- reading ----

    /// Whether reading `count` bytes from `start` on may wait for a disk. If the kernel can be asked, it
    /// is asked about a few pages, as `probe` says.
    ///
    /// To ask about a page has the kernel read that one page, if it isn't in memory (filemap_get_pages()
    /// reads ahead for RWF_NOWAIT, too). So the next answer would be that it is, whatever lies before it:
    /// once a page was missing, all that was asked about is, until a disk thread has read it.
    #[must_use]
    pub fn would_block(&self, start: u64, count: usize, probe: Probe) -> bool {
        let range = start..start + (count as u64).max(1);
        match (&self.source, self.fs_class) {
            (Source::InMemory(_), _) | (_, FsClass::InMemory) => false,
            (_, FsClass::Nowait) => self.blocks().is_some_and(|mut missing| {
                let was_missing = missing.contain_any(&range);
                if !was_missing && !self.is_resident_by(probe, &range) {
                    missing.insert(&range);
                    return true;
                }
                was_missing
            }),
            (_, FsClass::ReadOnce) => !self.was_read(&range),
            (_, FsClass::Remote) => true,
        }
    }

    /// Whether the pages of a range that a probe is about are in memory.
    fn is_resident_by(&self, probe: Probe, range: &Range<u64>) -> bool {
        let length = range.end - range.start;
        // The remainder is less than the length, so that it fits.
        let by_chance = || range.start + (random() % u128::from(length)) as u64;
        self.is_resident(range.end - 1)
            && (probe == Probe::Last
                || self.is_resident(range.start)
                    && (length <= READ_AHEAD_USUAL_BYTES || self.is_resident(by_chance())))
    }

    /// Whether this range was found in memory a moment ago ([`RESIDENT_FRESH`]): then it isn't asked about
    /// again, which is a tenth of what a warm answer with a file of 64 KiB costs.
    #[must_use]
    pub fn was_resident(&self, range: &Range<u64>, now: Instant) -> bool {
        let Some(resident) = self.resident() else {
            return true;
        };
        resident.as_ref().is_some_and(|(found, at)| {
            let is_fresh = now.saturating_duration_since(*at) < RESIDENT_FRESH;
            is_fresh && found.start <= range.start && range.end <= found.end
        })
    }

    /// Notes that this range was just found in memory, by [`Probe::Sample`].
    pub fn note_resident(&self, range: Range<u64>, now: Instant) {
        if let Some(mut resident) = self.resident() {
            *resident = Some((range, now));
        }
    }

    fn resident(&self) -> Option<MutexGuard<'_, Resident>> {
        let resident = &self.opened()?.resident;
        Some(resident.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the page of a byte is in memory.
    fn is_resident(&self, at: u64) -> bool {
        let handle = self.handle();
        handle.is_none_or(|file| preadv2_nowait(file, &mut [0], at).is_ok())
    }

    /// Reads without waiting. Zero means that the file ends there.
    ///
    /// # Errors
    /// It would have to wait, or it failed.
    pub fn read_nowait(&self, buf: &mut [u8], at: u64) -> Result<usize, ReadError> {
        match (self.handle(), self.fs_class) {
            (Some(file), FsClass::Nowait) => match preadv2_nowait(file, buf, at) {
                Ok(count) if count == buf.len() => Ok(count),
                // A blocking read tells the rest's reason: a page that isn't there, the file's end,
                // or a failure.
                _ => Err(ReadError::WouldBlock),
            },
            _ if self.would_block(at, buf.len(), Probe::Last) => Err(ReadError::WouldBlock),
            _ => self.read_blocking(buf, at).map_err(ReadError::Failed),
        }
    }

    /// Reads, even if that waits. Zero means that the file ends there.
    ///
    /// # Errors
    /// As read(2).
    pub fn read_blocking(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        match &self.source {
            Source::Open(opened) => loop {
                match record::transfer(Call::Read, buf.len(), || {
                    rustix::io::pread(&opened.file, &mut *buf, at)
                }) {
                    Err(Errno::INTR) => {}
                    result => return Ok(result?),
                }
            },
            Source::InMemory(contents) => {
                let start = usize::try_from(at).unwrap_or(usize::MAX);
                let left = contents.get(start..).unwrap_or_default();
                let count = left.len().min(buf.len());
                buf[..count].copy_from_slice(&left[..count]);
                Ok(count)
            }
        }
    }

    fn blocks(&self) -> Option<MutexGuard<'_, Blocks>> {
        let blocks = &self.opened()?.blocks;
        Some(blocks.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether all blocks of a range were read; only [`FsClass::ReadOnce`] notes that.
    pub(super) fn was_read(&self, range: &Range<u64>) -> bool {
        self.blocks().is_some_and(|read| read.contain_all(range))
    }

    /// Notes that a blocking read has had this range read into memory: the blocks that are whole.
    pub(super) fn note_read(&self, range: &Range<u64>) {
        let whole = range.start.next_multiple_of(COLD_BLOCK_BYTES)
            ..range.end - range.end % COLD_BLOCK_BYTES;
        match (self.fs_class, self.blocks()) {
            (FsClass::ReadOnce, Some(mut read)) => read.insert(&whole),
            (FsClass::Nowait, Some(mut missing)) => missing.remove(&whole),
            _ => {}
        }
    }

    // ---- closing ----

    /// Counts its descriptor among those that files may have, unless it was counted before. Says whether
    /// it could be.
    pub(crate) fn acquire_descriptor(&self, semaphore: &Semaphore) -> bool {
        let Some(Opened { permit, .. }) = self.opened() else {
            return true;
        };
        if permit.get().is_none()
            && let Some(taken) = semaphore.try_acquire(1)
        {
            permit.get_or_init(|| taken);
        }
        permit.get().is_some()
    }

    /// Leaves it to threads to close the file, if close(2) may wait for this mount.
    pub(super) fn defer_close_to(&self, pool: &ThreadPool, on: Mount) {
        if let (Some(opened), FsClass::Remote) = (self.opened(), self.fs_class) {
            opened.closer.get_or_init(|| (pool.clone(), on));
        }
    }

    /// The mount that it is on, if that is remote.
    pub(super) fn mount(&self) -> Mount {
        let closer = self.opened().and_then(|opened| opened.closer.get());
        closer.map_or(Mount::default(), |closer| closer.1)
    }

    // ---- its state ----

    /// The length at open, in bytes, which is promised to clients whatever happens to the file.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.version.length
    }

    /// The file that was opened.
    #[must_use]
    pub fn inode(&self) -> Inode {
        (self.version.device, self.version.inode)
    }

    /// The version that was opened.
    #[must_use]
    pub fn version(&self) -> FileVersion {
        self.version
    }

    /// Whether it is not older than what it was made of: see [`version::is_as_new`].
    #[must_use]
    pub fn is_as_new_as(&self, other: &Self) -> bool {
        version::is_as_new(self.version.modified, other.version.modified)
    }

    /// What its validators are made of.
    #[must_use]
    pub fn facts(&self) -> Facts {
        // FAT and most of FUSE give a file a number when they meet it, and another one later.
        let keeps_inode = match self.fs_class {
            FsClass::InMemory | FsClass::Nowait => true,
            FsClass::ReadOnce => version::is_fine(self.version.changed),
            FsClass::Remote => false,
        };
        Facts {
            inode: keeps_inode.then_some(self.version.inode),
            length: self.version.length,
            modified: self.version.modified,
            changed: self.version.changed,
            trust: self.trust(),
        }
    }

    fn trust(&self) -> Trust {
        let known = self.trust.load(Ordering::Relaxed);
        let all = [Trust::Nothing, Trust::Stamp, Trust::Second];
        all[usize::from(known)]
    }

    /// Notes that the same version was seen again later, when `other` was opened.
    pub fn note_seen_again(&self, other: &Self) {
        self.trust.fetch_max(other.trust() as u8, Ordering::Relaxed);
    }

    /// How long ago it was changed last, by the clock that stamps files.
    #[must_use]
    pub fn age(&self) -> Duration {
        version::age(self.version.changed, version::stamp_clock()).unwrap_or_default()
    }

    /// Whether both are the same version and hold the same bytes, if they are in memory.
    #[must_use]
    pub fn is_equal(&self, other: &Self) -> bool {
        self.version() == other.version() && self.contents() == other.contents()
    }

    /// Whether opening it again would find that its state can be trusted further: the clock has moved on.
    #[must_use]
    pub fn gains_by_a_look(&self) -> bool {
        let trusted = self.trust();
        trusted < Trust::Second && {
            let is_local = self.fs_class != FsClass::Remote;
            version::trust(self.version.changed, version::stamp_clock(), is_local) > trusted
        }
    }

    /// The version that it is now. May wait.
    ///
    /// # Errors
    /// As fstat(2).
    pub(super) fn version_now(&self) -> io::Result<FileVersion> {
        let Some(file) = self.handle() else {
            return Ok(self.version);
        };
        let stat = record::call(Call::Stat, || rustix::fs::fstat(file))?;
        Ok(FileVersion::from(&stat))
    }

    /// Whether the bytes that were promised may have been overwritten since: see
    /// [`FileVersion::is_overwritten_in`].
    ///
    /// # Errors
    /// As fstat(2).
    pub fn is_overwritten(&self) -> io::Result<bool> {
        Ok(self.version.is_overwritten_in(&self.version_now()?))
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if let Source::Open(opened) = &mut self.source
            && let Some((pool, mount)) = opened.closer.take()
        {
            let nothing = Source::InMemory(Box::default());
            let source = std::mem::replace(&mut self.source, nothing);
            pool.run(mount, move || drop(source));
        }
    }
}

/// Some of a file's blocks of [`COLD_BLOCK_BYTES`], a bit for each in words that aren't zero.
#[derive(Debug, Default)]
struct Blocks(BTreeMap<u64, u64>);

impl Blocks {
    fn contain_all(&self, range: &Range<u64>) -> bool {
        blocks_of(range).all(|block| self.contains(block))
    }

    fn contain_any(&self, range: &Range<u64>) -> bool {
        blocks_of(range).any(|block| self.contains(block))
    }

    fn contains(&self, block: u64) -> bool {
        let word = self.0.get(&(block / 64)).unwrap_or(&0);
        word & bit_of(block) != 0
    }

    /// Adds the blocks of which the range has a part.
    fn insert(&mut self, range: &Range<u64>) {
        for block in blocks_of(range) {
            *self.0.entry(block / 64).or_default() |= bit_of(block);
        }
    }

    fn remove(&mut self, range: &Range<u64>) {
        for block in blocks_of(range) {
            if let Entry::Occupied(mut word) = self.0.entry(block / 64) {
                *word.get_mut() &= !bit_of(block);
                if *word.get() == 0 {
                    word.remove();
                }
            }
        }
    }
}

/// The blocks of which a range has a part.
fn blocks_of(range: &Range<u64>) -> Range<u64> {
    range.start / COLD_BLOCK_BYTES..range.end.div_ceil(COLD_BLOCK_BYTES)
}

fn bit_of(block: u64) -> u64 {
    1 << (block % 64)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    fn file(fs_class: FsClass, length: u64) -> OpenFile {
        let file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        file.write_all_at(&bytes, 0).unwrap();
        let state = Snapshot::of(&file).unwrap();
        OpenFile::new(file, state, fs_class)
    }

    #[test]
    fn what_was_found_in_memory_is_believed_for_a_moment() {
        let (file, then) = (file(FsClass::Nowait, 10_000), Instant::now());
        assert!(!file.was_resident(&(0..10), then));
        file.note_resident(100..200, then);
        for (range, expected) in [
            (100..200, true),
            (150..160, true),
            (99..200, false),
            (100..201, false),
        ] {
            assert_eq!(file.was_resident(&range, then), expected, "{range:?}");
        }
        assert!(!file.was_resident(&(100..200), then + RESIDENT_FRESH));
    }

    #[test]
    fn header_fields_are_those_of_one_name_and_variant() {
        let file = file(FsClass::Nowait, 10);
        file.keep_header_fields(b"a.js", 0, b"own");
        file.keep_header_fields(b"b.js", 0, b"linked");
        assert_eq!(file.header_fields(b"a.js", 0), Some(&b"own"[..]));
        assert_eq!(file.header_fields(b"b.js", 0), None);
        assert_eq!(file.header_fields(b"a.js", 1), None);
    }

    #[test]
    fn what_is_in_memory_is_warm_and_read_at_once() {
        for kind in [FsClass::InMemory, FsClass::Nowait] {
            let file = file(kind, 10_000);
            let copy = file.read_contents().unwrap();
            assert!(copy.handle().is_none() && copy.contents().is_some());
            for file in [file, copy] {
                assert!(!file.would_block(0, 10_000, Probe::Sample), "{kind:?}");
                let mut bytes = [0; 100];
                assert_eq!(file.read_nowait(&mut bytes, 9_900).unwrap(), 100);
                assert_eq!(bytes[0], (9_900 % 251) as u8);
                assert_eq!(file.read_blocking(&mut bytes, 10_000).unwrap(), 0);
            }
        }
    }
}
