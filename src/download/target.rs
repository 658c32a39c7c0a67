//! Where a download goes. A regular file is written as a locked `.part` beside it and takes its
//! name only when whole; anything else (standard output, a device, a FIFO) is written into.
//!
//! Beside a `.part` that can be continued lies a `.part.meta`, which says of what version it is.
//! Whoever empties a `.part` removes the meta first, and writes a new one before the first byte: at
//! no moment does a meta lie beside bytes of another version.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, FileTimes, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Seek as _, Write as _};
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};
use xxhash_rust::xxh64::xxh64;

use super::Failure;
use super::resume::Record;
use crate::escape::Escaped;
use crate::failure::Exit;
use crate::limits;

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) enum Destination {
    Stdout,
    File(PathBuf),
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("standard output"),
            Self::File(path) => Escaped(path.as_os_str().as_bytes()).fmt(f),
        }
    }
}

/// One download's target. Nothing is created before the answer begins.
#[derive(Debug)]
pub(super) struct Target {
    place: Place,
    file: Option<Arc<File>>,
    /// How many bytes of the file are in it.
    bytes: u64,
    /// Of these bytes, if somebody wants to know.
    digest: Option<Sha256>,
    /// When the file was last modified where it comes from.
    modified: Option<SystemTime>,
    left: Left,
    /// What was found on the way, for the person who looks on.
    notes: Vec<String>,
    /// How many of them were taken.
    notes_taken: usize,
}

#[derive(Debug)]
enum Place {
    Stdout,
    /// A device, a FIFO, a terminal, an open descriptor: never replaced.
    Stream(PathBuf),
    Regular(Regular),
}

/// A regular file, or one that does not exist yet.
#[derive(Debug)]
struct Regular {
    path: PathBuf,
    part: PathBuf,
    meta: PathBuf,
    /// The permission bits that it will have: those of the file that is replaced, or a new one's.
    mode: u32,
}

/// A `.part` that is open, and ours.
#[derive(Debug)]
struct PartFile {
    file: Arc<File>,
    path: PathBuf,
    meta: PathBuf,
}

/// What would be left of a download if it ended now; shared with who tells it after a signal.
#[derive(Clone, Debug, Default)]
pub(super) struct Left(Arc<Mutex<Option<PartFile>>>);

impl Left {
    fn lock(&self) -> MutexGuard<'_, Option<PartFile>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether both are one download's.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Says what is left. A `.part` without a byte is removed.
    pub(super) fn kept(&self) -> Option<String> {
        let left = self.lock();
        let PartFile { file, path, meta } = left.as_ref()?;
        let bytes = file.metadata().map_or(0, |metadata| metadata.len());
        let shown = Escaped(path.as_os_str().as_bytes());
        match (bytes, names(path, file).unwrap_or(false)) {
            (0, false) => None,
            (_, false) => Some(format!("{shown} was moved or removed meanwhile")),
            (0, true) => {
                // What can't be removed is in nobody's way: the next download takes it over.
                let _ = fs::remove_file(meta);
                let _ = fs::remove_file(path);
                None
            }
            (bytes, true) => Some(format!("{bytes} bytes are kept in {shown}")),
        }
    }
}

impl Target {
    /// Finds out what the destination is. A symbolic link stays: what it leads to is written. A new
    /// file gets this mode.
    ///
    /// # Errors
    /// [`Exit::FileIo`]: a directory, a link that leads nowhere, or a path that can't be looked up.
    pub(super) fn at(
        destination: &Destination,
        new_mode: u32,
        digests: bool,
    ) -> Result<Self, Failure> {
        let place = match destination {
            Destination::Stdout => Place::Stdout,
            Destination::File(path) => {
                place(path, new_mode).map_err(|error| cannot_write(path, &error))?
            }
        };
        Ok(Self {
            place,
            file: None,
            bytes: 0,
            digest: digests.then(Sha256::new),
            modified: None,
            left: Left::default(),
            notes: Vec::new(),
            notes_taken: 0,
        })
    }

    /// Takes over what an earlier download of this URL has left, if that can be continued, and gives
    /// what is known of it.
    ///
    /// # Errors
    /// [`Exit::FileIo`]: the `.part` can't be opened or read, or is another download's.
    pub(super) fn earlier(&mut self, url: &str) -> Result<Option<Record>, Failure> {
        let Place::Regular(regular) = &mut self.place else {
            return Ok(None);
        };
        let Some(file) = regular.open_part(false, &mut self.notes)? else {
            return Ok(None);
        };
        let bytes = file.metadata().map(|metadata| metadata.len());
        let bytes = bytes.map_err(|error| cannot_write(&regular.part, &error))?;
        let record = regular.read_meta().and_then(|meta| Record::parse(&meta));
        let record = match record {
            Some(record) if bytes > 0 && !record.is_of(url) => {
                let part = Escaped(regular.part.as_os_str().as_bytes());
                let line = format!("{part} is another URL's; starting again from zero");
                self.notes.push(line);
                None
            }
            record => record.filter(|record| bytes > 0 && record.may_have(bytes)),
        };
        if record.is_some() {
            self.bytes = absorb(&file, self.digest.as_mut())
                .map_err(|error| cannot_write(&regular.part, &error))?;
            self.file = Some(Arc::new(file));
            self.share();
        }
        Ok(record)
    }

    /// From now on this is what is left.
    fn share(&self) {
        if let (Place::Regular(regular), Some(file)) = (&self.place, &self.file) {
            *self.left.lock() = Some(PartFile {
                file: Arc::clone(file),
                path: regular.part.clone(),
                meta: regular.meta.clone(),
            });
        }
    }

    /// Begins at zero. The record, if there is one, is on disk before the first byte.
    ///
    /// # Errors
    /// [`Exit::FileIo`], with the path and the reason. Into a pipe nobody writes twice.
    pub(super) fn begin(&mut self, record: Option<&Record>) -> Result<(), Failure> {
        if self.is_past_recall() {
            let line = "what was written already can't be taken back";
            return Err(Failure::new(Exit::FileIo, line));
        }
        if self.file.is_none() {
            let opened = match &mut self.place {
                Place::Regular(regular) => regular.open_part(true, &mut self.notes)?,
                stream => {
                    let opened = stream.open_stream();
                    let path = stream.written_path();
                    Some(opened.map_err(|error| cannot_write(path, &error))?)
                }
            };
            self.file = opened.map(Arc::new);
            self.share();
        }
        if let (Place::Regular(regular), Some(file)) = (&self.place, &self.file) {
            regular.empty(file, record)?;
        }
        self.bytes = 0;
        if let Some(digest) = &mut self.digest {
            digest.reset();
        }
        Ok(())
    }

    /// Whether bytes have gone where they can't be overwritten.
    pub(super) fn is_past_recall(&self) -> bool {
        self.bytes > 0 && !matches!(self.place, Place::Regular(_))
    }

    /// How many bytes of the file are in the target.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What was found on the way since this was last asked.
    pub(super) fn take_notes(&mut self) -> Vec<String> {
        let notes = self.notes[self.notes_taken..].to_vec();
        self.notes_taken = self.notes.len();
        notes
    }

    /// What would be left if the program ended.
    pub(super) fn left(&self) -> &Left {
        &self.left
    }

    /// The time that the file will have; none, if it is the time of its download.
    pub(super) fn set_modified(&mut self, time: Option<SystemTime>) {
        self.modified = time;
    }

    /// Writes all of `bytes`. `Break` says that the other end of a pipe has closed: whoever reads
    /// has had enough.
    ///
    /// # Errors
    /// [`Exit::FileIo`], with the path and the reason.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<ControlFlow<()>, Failure> {
        if self.file.is_none() {
            self.begin(None)?;
        }
        let mut file = &**self.file.as_ref().expect("it has begun");
        match file.write_all(bytes) {
            Ok(()) => {
                self.bytes += bytes.len() as u64;
                if let Some(digest) = &mut self.digest {
                    digest.update(bytes);
                }
                Ok(ControlFlow::Continue(()))
            }
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
            Err(error) => Err(cannot_write(self.place.written_path(), &error)),
        }
    }

    /// The SHA-256 of all bytes, in lower-case hexadecimal digits, if it was asked for at first.
    pub(super) fn sha256(&self) -> Option<String> {
        let digest = self.digest.clone()?.finalize();
        Some(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Sees to it that nobody continues what is here.
    ///
    /// # Errors
    /// [`Exit::FileIo`], with the path and the reason.
    pub(super) fn forget(&self) -> Result<(), Failure> {
        match &self.place {
            Place::Regular(regular) => regular.remove_meta(),
            _ => Ok(()),
        }
    }

    /// Gives a whole file its name, in one step.
    ///
    /// # Errors
    /// [`Exit::FileIo`]; an existing file is as it was.
    pub(super) fn finish(&self) -> Result<(), Failure> {
        let (Place::Regular(regular), Some(file)) = (&self.place, &self.file) else {
            return Ok(());
        };
        let prepared = regular.prepare(file, self.modified);
        prepared.map_err(|error| cannot_write(&regular.part, &error))?;
        // Who tells what is left waits until the `.part` has its name, or has not.
        let mut left = self.left.lock();
        let named = regular.replace(file, self.bytes);
        named.map_err(|error| cannot_write(&regular.path, &error))?;
        *left = None;
        Ok(())
    }
}

impl Place {
    fn open_stream(&self) -> io::Result<File> {
        match self {
            Self::Stream(path) => OpenOptions::new().write(true).open(path),
            // The descriptor itself: the standard library's handle would flush at every LF.
            _ => Ok(io::stdout().as_fd().try_clone_to_owned()?.into()),
        }
    }

    fn written_path(&self) -> &Path {
        match self {
            Self::Stdout => Path::new("standard output"),
            Self::Stream(path) => path,
            Self::Regular(regular) => &regular.part,
        }
    }
}

/// What stands where a `.part` would.
enum Found {
    /// A file of ours alone, locked.
    Ours(File),
    /// A regular file that others may write into, or who wrote it; the reason.
    Theirs(&'static str),
    Nothing,
}

impl Regular {
    /// Opens and locks a `.part`, so that it is ours alone; `None` if there is none and it is not to
    /// be created. One that others have, or could have written, is left alone: another name is taken.
    fn open_part(
        &mut self,
        creates: bool,
        notes: &mut Vec<String>,
    ) -> Result<Option<File>, Failure> {
        for nth in 0..limits::PART_NAMES_MAX {
            (self.part, self.meta) = (part_of(&self.path, nth), meta_of(&self.path, nth));
            let found = self.open_this(creates);
            match found.map_err(|error| cannot_write(&self.part, &error))? {
                Found::Ours(file) => return Ok(Some(file)),
                Found::Nothing => return Ok(None),
                Found::Theirs(why) => {
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

    fn open_this(&self, creates: bool) -> io::Result<Found> {
        let busy = || io::Error::new(ErrorKind::ResourceBusy, "another download is writing it");
        for _ in 0..limits::PART_ATTEMPTS_MAX {
            let created = if creates { self.create()? } else { None };
            let is_new = created.is_some();
            let file = match created.map_or_else(|| self.open_existing(), Ok) {
                Ok(file) => file,
                Err(error) => match error.kind() {
                    ErrorKind::NotFound if creates => continue,
                    ErrorKind::NotFound => return Ok(Found::Nothing),
                    ErrorKind::PermissionDenied => {
                        return Ok(Found::Theirs("it can't be opened"));
                    }
                    _ => return Err(error),
                },
            };
            if !is_new && let Some(why) = self.why_not_ours(&file)? {
                return Ok(Found::Theirs(why));
            }
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(busy()),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            if names(&self.part, &file)? {
                return Ok(Found::Ours(file));
            }
        }
        Err(busy())
    }

    /// Creates the `.part`; `None` if something has its name. Nobody else reads or writes it before
    /// it has its own: its permissions come then.
    fn create(&self) -> io::Result<Option<File>> {
        let created = part_options().create_new(true).mode(0o600).open(&self.part);
        match created {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A planted link is not followed, and a planted FIFO does not block.
    fn open_existing(&self) -> io::Result<File> {
        let file = part_options().open(&self.part)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        Ok(file)
    }

    /// Why somebody else may have written what is there, or would see their own file overwritten.
    fn why_not_ours(&self, file: &File) -> io::Result<Option<&'static str>> {
        let metadata = file.metadata()?;
        let meta = fs::symlink_metadata(&self.meta);
        Ok(match metadata {
            _ if !is_own(&metadata) => Some("it is another user's"),
            _ if metadata.nlink() != 1 => Some("it has another name, too"),
            _ if metadata.mode() & 0o022 != 0 => Some("others may write into it"),
            _ if meta.is_ok_and(|meta| !is_own(&meta)) => Some("its .meta is another user's"),
            _ => None,
        })
    }

    /// The meta's bytes; `None` if there is none that can be read, and that we wrote.
    fn read_meta(&self) -> Option<Vec<u8>> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&self.meta)
            .ok()?;
        let metadata = file.metadata().ok()?;
        if !is_own(&metadata) || metadata.mode() & 0o022 != 0 {
            return None;
        }
        let mut bytes = Vec::new();
        let read = file.take(limits::META_BYTES_MAX).read_to_end(&mut bytes);
        read.ok().map(|_| bytes)
    }

    /// Empties the locked `.part` and says of what version it will be. A meta that can't be written
    /// only means that nobody will continue this download.
    fn empty(&self, mut part: &File, record: Option<&Record>) -> Result<(), Failure> {
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
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.meta)?;
        file.write_all(&record.to_bytes())?;
        file.sync_all()
    }

    /// A removal is on disk when this returns: a meta must not come back beside other bytes.
    fn remove_meta(&self) -> Result<(), Failure> {
        let removed = match fs::remove_file(&self.meta) {
            Ok(()) => {
                let folder = self.meta.parent().filter(|path| *path != Path::new(""));
                File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all())
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        removed.map_err(|error| cannot_write(&self.meta, &error))
    }

    /// Syncs: a file system may report a full disk only then, and what has the target's name must be
    /// whole. A time that can't be set is no failure.
    fn prepare(&self, part: &File, modified: Option<SystemTime>) -> io::Result<()> {
        part.set_permissions(Permissions::from_mode(self.mode))?;
        if let Some(modified) = modified {
            let _ = part.set_times(FileTimes::new().set_modified(modified));
        }
        part.sync_data()
    }

    /// What was written is what is named. No call renames what a descriptor holds, so the name is
    /// looked at before and after: who puts another file in its place between the two gives that file
    /// the name, but not unnoticed.
    fn replace(&self, part: &File, bytes: u64) -> io::Result<()> {
        let shown = Escaped(self.part.as_os_str().as_bytes());
        if !names(&self.part, part)? {
            let line = format!("{shown} was moved, removed or replaced meanwhile");
            return Err(io::Error::other(line));
        }
        if part.metadata()?.len() != bytes {
            let line = format!("somebody else wrote into {shown}");
            return Err(io::Error::other(line));
        }
        fs::rename(&self.part, &self.path)?;
        // A meta without a `.part` says nothing to anybody, and the next download removes it.
        let _ = fs::remove_file(&self.meta);
        if !names(&self.path, part)? {
            return Err(io::Error::other("another file has taken its place"));
        }
        Ok(())
    }
}

fn part_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options
}

fn is_own(metadata: &Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw()
}

fn place(path: &Path, new_mode: u32) -> io::Result<Place> {
    let is_link = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err(io::Error::other("it is a directory")),
        Ok(metadata) if metadata.is_file() && !is_descriptor(path) => {
            let path = if is_link {
                fs::canonicalize(path)?
            } else {
                path.to_owned()
            };
            regular(path, metadata.mode() & 0o777)
        }
        Ok(_) => Ok(Place::Stream(path.to_owned())),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Err(_) if is_link => Err(io::Error::other("it is a link that leads nowhere")),
        Err(_) => regular(path.to_owned(), new_mode),
    }
}

/// Whether the path names our own standard output: `-`, or a way to its descriptor.
pub(super) fn is_stdout(path: &Path) -> bool {
    ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"]
        .iter()
        .any(|name| path == Path::new(name))
}

/// Whether the path names a file that is open already. A rename would take that file's name from
/// under whoever opened it.
fn is_descriptor(path: &Path) -> bool {
    path == Path::new("/dev/stderr")
        || path.starts_with("/dev/fd")
        || path.starts_with("/proc/self/fd")
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

/// The longest that is put after a name, in bytes.
const SUFFIX_BYTES_MAX: usize = ".part.9.meta".len();

/// The same place with another name. A long name is cut, and told from others that begin alike by its
/// hash.
fn beside(file: &Path, suffix: &str) -> PathBuf {
    let name = file.file_name().unwrap_or_default().as_bytes();
    let room = limits::FILE_NAME_BYTES_MAX - SUFFIX_BYTES_MAX;
    if name.len() <= room || name.len() > limits::FILE_NAME_BYTES_MAX {
        let mut path = OsString::from(file);
        path.push(suffix);
        return path.into();
    }
    let hash = format!("~{:016x}", xxh64(name, 0));
    let cut = room - hash.len();
    // Not in the middle of a character.
    let is_boundary = |at: &usize| name[*at] & 0xc0 != 0x80;
    let cut = (0..=cut).rev().find(is_boundary).unwrap_or(cut);
    let short = [&name[..cut], hash.as_bytes(), suffix.as_bytes()].concat();
    file.with_file_name(OsString::from_vec(short))
}

/// Goes to the end of what is there, and gives its length. The digest takes it in on the way.
fn absorb(mut file: &File, digest: Option<&mut Sha256>) -> io::Result<u64> {
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

/// A path that ends in `/` or `..` has no file's name.
fn regular(path: PathBuf, mode: u32) -> io::Result<Place> {
    if path.file_name().is_none() || path.as_os_str().as_bytes().ends_with(b"/") {
        return Err(io::Error::other("there is no such directory"));
    }
    let (part, meta) = (part_of(&path, 0), meta_of(&path, 0));
    Ok(Place::Regular(Regular {
        path,
        part,
        meta,
        mode,
    }))
}

/// Whether the path is still this file's name. Between open and lock, the download that held the
/// lock may have renamed or removed it; what we locked then is its file, not ours to empty.
fn names(path: &Path, file: &File) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
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
    fn a_part_that_was_renamed_or_replaced_is_not_ours() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.part");
        let file = File::create(&path).expect("a file");
        assert!(names(&path, &file).expect("it is there"));
        fs::rename(&path, folder.path().join("x")).expect("renamed");
        assert!(!names(&path, &file).expect("it is gone"));
        File::create(&path).expect("another file");
        assert!(!names(&path, &file).expect("it is another"));
    }
}
