//! A regular file on its way: written as a locked `.part` beside it, which takes the file's name only
//! when it is whole.
//!
//! Beside a `.part` that can be continued lies a `.part.meta`, which says of what version it is.
//! Whoever empties a `.part` removes the meta first, and writes a new one before the first byte: at
//! no moment does a meta lie beside bytes of another version.

use std::ffi::OsString;
use std::fs::{File, FileTimes, Permissions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use rustix::fs::{OFlags, Stat};
use sha2::{Digest as _, Sha256};
use xxhash_rust::xxh64::xxh64;

use super::resume::Record;
use super::target_dir::ParentDir;
use crate::escape::Escaped;
use crate::failure::{Exit, Failure};
use crate::limits;

/// Opens a `.part`.
const PART_FLAGS: OFlags = OFlags::RDWR.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK);

/// A regular file, or one that does not exist yet.
#[derive(Debug)]
pub(super) struct RegularFile {
    pub(super) parent: ParentDir,
    pub(super) path: PathBuf,
    pub(super) part: PathBuf,
    pub(super) meta: PathBuf,
    /// The permission bits that it will have: those of the file that is replaced, or a new one's.
    mode: u32,
}

/// A `.part` that is open, and ours.
#[derive(Debug)]
pub(super) struct PartFile {
    pub(super) file: Arc<File>,
    pub(super) parent: ParentDir,
    pub(super) path: PathBuf,
    pub(super) meta: PathBuf,
}

/// The `.part` of a download, shared with the thread that says after a signal what is kept.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedPart(Arc<Mutex<Option<PartFile>>>);

impl SharedPart {
    pub(super) fn lock(&self) -> MutexGuard<'_, Option<PartFile>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether both are one download's.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Says what is kept. A `.part` without a byte is removed.
    pub(super) fn kept(&self) -> Option<String> {
        let part = self.lock();
        let PartFile {
            file,
            parent,
            path,
            meta,
        } = part.as_ref()?;
        let bytes = file.metadata().map_or(0, |metadata| metadata.len());
        let shown = Escaped(path.as_os_str().as_bytes());
        match (bytes, is_name_of(parent, path, file).unwrap_or(false)) {
            (0, false) => None,
            (_, false) => Some(format!("{shown} was moved or removed meanwhile")),
            (0, true) => {
                // If that fails the next download takes the empty `.part` over.
                let _ = parent.remove(meta);
                let _ = parent.remove(path);
                None
            }
            (bytes, true) => Some(format!("{bytes} bytes are kept in {shown}")),
        }
    }
}

/// What stands where a `.part` would.
enum PartLookup {
    /// A file of ours alone, locked.
    Ours(File),
    /// A regular file that others may write into, or who wrote it; the reason.
    Foreign(&'static str),
    Missing,
}

impl RegularFile {
    /// A path that ends in `/` or `..` has no file's name.
    pub(super) fn at(parent: ParentDir, path: PathBuf, mode: u32) -> io::Result<Self> {
        if path.file_name().is_none() || path.as_os_str().as_bytes().ends_with(b"/") {
            return Err(io::Error::other("there is no such directory"));
        }
        Ok(Self {
            part: part_of(&path, 0),
            meta: meta_of(&path, 0),
            parent,
            path,
            mode,
        })
    }

    /// Opens and locks a `.part`, so that it is ours alone; `None` if there is none and it is not to
    /// be created. One that others have, or could have written, is left alone: another name is taken.
    pub(super) fn open_part(
        &mut self,
        creates: bool,
        notes: &mut Vec<String>,
    ) -> Result<Option<File>, Failure> {
        for nth in 0..limits::PART_NAMES_MAX {
            (self.part, self.meta) = (part_of(&self.path, nth), meta_of(&self.path, nth));
            let found = self.open_current(creates);
            match found.map_err(|error| cannot_write(&self.part, &error))? {
                PartLookup::Ours(file) => return Ok(Some(file)),
                PartLookup::Missing => return Ok(None),
                PartLookup::Foreign(why) => {
                    let part = Escaped(self.part.as_os_str().as_bytes());
                    let line = format!("{part} is left alone: {why}");
                    if !notes.contains(&line) {
                        notes.push(line);
                    }
                }
            }
        }
        let error = io::Error::other("all these names are taken by files that aren't ours");
        Err(cannot_write(&self.part, &error))
    }

    fn open_current(&self, creates: bool) -> io::Result<PartLookup> {
        let busy = || io::Error::new(ErrorKind::ResourceBusy, "another download is writing it");
        for _ in 0..limits::PART_ATTEMPTS_MAX {
            let created = if creates { self.create()? } else { None };
            let is_new = created.is_some();
            let file = match created.map_or_else(|| self.open_existing(), Ok) {
                Ok(file) => file,
                Err(error) => match error.kind() {
                    ErrorKind::NotFound if creates => continue,
                    ErrorKind::NotFound => return Ok(PartLookup::Missing),
                    ErrorKind::PermissionDenied => {
                        return Ok(PartLookup::Foreign("it can't be opened"));
                    }
                    _ => return Err(error),
                },
            };
            if !is_new && let Some(why) = self.why_not_ours(&file)? {
                return Ok(PartLookup::Foreign(why));
            }
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(busy()),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            if is_name_of(&self.parent, &self.part, &file)? {
                return Ok(PartLookup::Ours(file));
            }
        }
        Err(busy())
    }

    /// Creates the `.part`; `None` if something has its name. Nobody else reads or writes it before
    /// it has its own: its permissions come then.
    fn create(&self) -> io::Result<Option<File>> {
        let flags = PART_FLAGS | OFlags::CREATE | OFlags::EXCL;
        match self.parent.open(&self.part, flags, 0o600) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A planted link is not followed, and a planted FIFO does not block.
    fn open_existing(&self) -> io::Result<File> {
        let file = self.parent.open(&self.part, PART_FLAGS, 0)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        Ok(file)
    }

    /// Why somebody else may have written what is there, or would see their own file overwritten.
    fn why_not_ours(&self, file: &File) -> io::Result<Option<&'static str>> {
        let metadata = file.metadata()?;
        let meta = self.parent.stat(&self.meta);
        let is_others = |meta: io::Result<Option<Stat>>| {
            meta.is_ok_and(|meta| meta.is_some_and(|meta| !is_own(meta.st_uid)))
        };
        Ok(match metadata {
            _ if !is_own(metadata.uid()) => Some("it is another user's"),
            _ if metadata.nlink() != 1 => Some("it has another name, too"),
            _ if metadata.mode() & 0o022 != 0 => Some("others may write into it"),
            _ if is_others(meta) => Some("its .meta is another user's"),
            _ => None,
        })
    }

    /// Reads the meta; `None` if there is none, or one that another user may have written.
    pub(super) fn read_meta(&self) -> Option<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = self.parent.open(&self.meta, flags, 0).ok()?;
        let metadata = file.metadata().ok()?;
        if !is_own(metadata.uid()) || metadata.mode() & 0o022 != 0 {
            return None;
        }
        let mut bytes = Vec::new();
        let read = file.take(limits::META_BYTES_MAX).read_to_end(&mut bytes);
        read.ok().map(|_| bytes)
    }

    /// Empties the locked `.part` and writes of what version it will be. Without a meta this download
    /// can't be continued later, which is no failure.
    pub(super) fn empty(&self, mut part: &File, record: Option<&Record>) -> Result<(), Failure> {
        self.remove_meta()?;
        part.set_len(0)
            .and_then(|()| part.rewind())
            .map_err(|error| cannot_write(&self.part, &error))?;
        if let Some(record) = record
            && self.write_meta(record).is_err()
        {
            self.remove_meta()?;
        }
        Ok(())
    }

    fn write_meta(&self, record: &Record) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let mut file = self.parent.open(&self.meta, flags, 0o600)?;
        file.write_all(&record.to_bytes())?;
        file.sync_all()
    }

    /// A removal is on disk when this returns: a meta must not come back beside other bytes.
    pub(super) fn remove_meta(&self) -> Result<(), Failure> {
        let removed = match self.parent.remove(&self.meta) {
            Ok(()) => self.parent.sync(&self.meta),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        removed.map_err(|error| cannot_write(&self.meta, &error))
    }

    /// Syncs: a file system may report a full disk only then, and what has the target's name must be
    /// whole. A time that can't be set is no failure.
    pub(super) fn prepare(&self, part: &File, modified: Option<SystemTime>) -> io::Result<()> {
        part.set_permissions(Permissions::from_mode(self.mode))?;
        if let Some(modified) = modified {
            let _ = part.set_times(FileTimes::new().set_modified(modified));
        }
        part.sync_data()
    }

    /// What was written is what is named. No call renames what a descriptor holds, so the name is
    /// looked at before and after: who puts another file in its place between the two gives that file
    /// the name, but not unnoticed.
    pub(super) fn replace(&self, part: &File, bytes: u64) -> io::Result<()> {
        let shown = Escaped(self.part.as_os_str().as_bytes());
        if !is_name_of(&self.parent, &self.part, part)? {
            let line = format!("{shown} was moved, removed or replaced meanwhile");
            return Err(io::Error::other(line));
        }
        if part.metadata()?.len() != bytes {
            let line = format!("somebody else wrote into {shown}");
            return Err(io::Error::other(line));
        }
        self.parent.rename(&self.part, &self.path)?;
        // A meta without a `.part` says nothing to anybody, and the next download removes it.
        let _ = self.parent.remove(&self.meta);
        if !is_name_of(&self.parent, &self.path, part)? {
            return Err(io::Error::other("another file has taken its place"));
        }
        Ok(())
    }
}

fn is_own(uid: u32) -> bool {
    uid == rustix::process::geteuid().as_raw()
}

/// Where a download waits until it is whole: the file's name with `.part` after it, or, where such
/// names are others', `.part.1` and so on.
pub(super) fn part_of(file: &Path, nth: u32) -> PathBuf {
    match nth {
        0 => beside(file, ".part"),
        _ => beside(file, &format!(".part.{nth}")),
    }
}

/// Where it stands of what version that is.
pub(super) fn meta_of(file: &Path, nth: u32) -> PathBuf {
    match nth {
        0 => beside(file, ".part.meta"),
        _ => beside(file, &format!(".part.{nth}.meta")),
    }
}

/// The name of the file whose `.part`, or what lies beside that, this name would be.
pub(super) fn whole_name_of(name: &[u8]) -> Option<&[u8]> {
    let name = name.strip_suffix(b".meta").unwrap_or(name);
    let name = match name {
        [name @ .., b'.', b'0'..=b'9'] => name,
        name => name,
    };
    name.strip_suffix(b".part")
}

/// The longest that is put after a name, in bytes.
const SUFFIX_BYTES_MAX: usize = ".part.9.meta".len();

/// The same place with another name. A long name is cut, and told from others that begin alike by its
/// hash.
fn beside(file: &Path, suffix: &str) -> PathBuf {
    let name = file.file_name().unwrap_or_default().as_bytes();
    let length_max = limits::FILE_NAME_BYTES_MAX - SUFFIX_BYTES_MAX;
    if name.len() <= length_max || name.len() > limits::FILE_NAME_BYTES_MAX {
        let mut path = OsString::from(file);
        path.push(suffix);
        return path.into();
    }
    let hash = format!("~{:016x}", xxh64(name, 0));
    let cut = length_max - hash.len();
    // Not in the middle of a character.
    let is_boundary = |at: &usize| name[*at] & 0xc0 != 0x80;
    let cut = (0..=cut).rev().find(is_boundary).unwrap_or(cut);
    let short = [&name[..cut], hash.as_bytes(), suffix.as_bytes()].concat();
    file.with_file_name(OsString::from_vec(short))
}

/// Seeks to the end of the file, and returns its length; the digest takes in all bytes before it.
pub(super) fn seek_to_end(mut file: &File, digest: Option<&mut Sha256>) -> io::Result<u64> {
    let Some(digest) = digest else {
        return file.seek(io::SeekFrom::End(0));
    };
    let mut buffer = vec![0; limits::CLIENT_BUFFER_BYTES];
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(bytes),
            Ok(count) => {
                digest.update(&buffer[..count]);
                bytes += count as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether the path is still this file's name. Between open and lock, the download that held the
/// lock may have renamed or removed it; what we locked then is its file, not ours to empty.
fn is_name_of(parent: &ParentDir, path: &Path, file: &File) -> io::Result<bool> {
    let ours = file.metadata()?;
    let named = parent.stat(path)?;
    Ok(named.is_some_and(|named| (named.st_dev, named.st_ino) == (ours.dev(), ours.ino())))
}

pub(super) fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    let path = Escaped(path.as_os_str().as_bytes());
    Failure::new(Exit::FileIo, format!("cannot write {path}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beside_a_name_fit_and_differ() {
        let long = |count: usize, last: &str| {
            let fill = count - 1;
            PathBuf::from(format!(
                "a/{}{}{last}",
                "文".repeat(fill / 3),
                "n".repeat(fill % 3)
            ))
        };
        for count in [1, 243, 244, 250, 255] {
            let (file, twin) = (long(count, "x"), long(count, "y"));
            let all: Vec<_> = (0..limits::PART_NAMES_MAX)
                .flat_map(|nth| {
                    [
                        part_of(&file, nth),
                        meta_of(&file, nth),
                        part_of(&twin, nth),
                    ]
                })
                .collect();
            for (index, path) in all.iter().enumerate() {
                let name = path.file_name().unwrap();
                assert!(
                    name.len() <= limits::FILE_NAME_BYTES_MAX,
                    "{count}: {name:?}"
                );
                assert!(name.to_str().is_some(), "{name:?}");
                assert_eq!(path.parent(), Some(Path::new("a")));
                assert!(!all[..index].contains(path), "{path:?}");
            }
        }
        assert_eq!(part_of(Path::new("a/x"), 0), Path::new("a/x.part"));
        assert_eq!(meta_of(Path::new("x"), 2), Path::new("x.part.2.meta"));
    }

    #[test]
    fn a_name_beside_a_file_is_known_for_one() {
        let all = (0..limits::PART_NAMES_MAX).flat_map(|nth| {
            [
                part_of(Path::new("a.b"), nth),
                meta_of(Path::new("a.b"), nth),
            ]
        });
        for path in all {
            let name = path.as_os_str().as_bytes();
            assert_eq!(whole_name_of(name), Some(&b"a.b"[..]), "{path:?}");
        }
        for name in ["a.party", "a.part.x", "part", "a.meta", "a.1"] {
            assert_eq!(whole_name_of(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn a_part_that_was_renamed_or_replaced_is_not_ours() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.part");
        let file = File::create(&path).expect("a file");
        let is_name = || is_name_of(&ParentDir::ByPath, &path, &file);
        assert!(is_name().expect("it is there"));
        std::fs::rename(&path, folder.path().join("x")).expect("renamed");
        assert!(!is_name().expect("it is gone"));
        File::create(&path).expect("another file");
        assert!(!is_name().expect("it is another"));
    }
}
