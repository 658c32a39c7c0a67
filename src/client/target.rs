//! Where a download goes. A regular file is written as a locked `.part` beside it and takes its
//! name only when whole; anything else (standard output, a device, a FIFO) is written into.
//!
//! Beside a `.part` that can be continued lies a `.part.meta`, which says of what version it is.
//! Whoever empties a `.part` removes the meta first, and writes a new one before the first byte: at
//! no moment does a meta lie beside bytes of another version.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Seek as _, Write as _};
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::Failure;
use super::resume::Record;
use crate::cli::Exit;
use crate::escape::Escaped;
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
    file: Option<File>,
    /// How many bytes of the file are in it.
    bytes: u64,
    /// Of these bytes, if somebody wants to know.
    digest: Option<Sha256>,
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
    /// The permission bits of the file that is replaced.
    mode: Option<u32>,
}

impl Target {
    /// Finds out what the destination is. A symbolic link stays: what it leads to is written.
    ///
    /// # Errors
    /// [`Exit::FileIo`]: a directory, a link that leads nowhere, or a path that can't be looked up.
    pub(super) fn at(destination: &Destination, digests: bool) -> Result<Self, Failure> {
        let place = match destination {
            Destination::Stdout => Place::Stdout,
            Destination::File(path) => place(path).map_err(|error| cannot_write(path, &error))?,
        };
        Ok(Self {
            place,
            file: None,
            bytes: 0,
            digest: digests.then(Sha256::new),
        })
    }

    /// Takes over what an earlier download of this URL has left, if that can be continued, and gives
    /// what is known of it.
    ///
    /// # Errors
    /// [`Exit::FileIo`]: the `.part` can't be opened or read, or is another download's.
    pub(super) fn earlier(&mut self, url: &str) -> Result<Option<Record>, Failure> {
        let Place::Regular(regular) = &self.place else {
            return Ok(None);
        };
        let taken = regular.open_earlier(url).and_then(|earlier| match earlier {
            Some((mut file, record)) => {
                self.bytes = absorb(&mut file, self.digest.as_mut())?;
                self.file = Some(file);
                Ok(Some(record))
            }
            None => Ok(None),
        });
        taken.map_err(|error| cannot_write(&regular.part, &error))
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
        let begun = self
            .place
            .begin(self.file.take(), record)
            .map_err(|error| cannot_write(self.place.written_path(), &error))?;
        self.file = Some(begun);
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

    /// Writes all of `bytes`. `Break` says that the other end of a pipe has closed: whoever reads
    /// has had enough.
    ///
    /// # Errors
    /// [`Exit::FileIo`], with the path and the reason.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<ControlFlow<()>, Failure> {
        if self.file.is_none() {
            self.begin(None)?;
        }
        let file = self.file.as_mut().expect("it has begun");
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
        let Place::Regular(regular) = &self.place else {
            return Ok(());
        };
        regular
            .remove_meta()
            .map_err(|error| cannot_write(&regular.meta, &error))
    }

    /// Gives a whole file its name, in one step.
    ///
    /// # Errors
    /// [`Exit::FileIo`]; an existing file is as it was.
    pub(super) fn finish(&self) -> Result<(), Failure> {
        let (Place::Regular(regular), Some(file)) = (&self.place, &self.file) else {
            return Ok(());
        };
        regular
            .replace(file)
            .map_err(|error| cannot_write(&regular.path, &error))
    }

    /// After a failure: says what is left of the download. A `.part` without a byte is removed.
    pub(super) fn kept(&self) -> Option<String> {
        let (Place::Regular(regular), Some(file)) = (&self.place, &self.file) else {
            return None;
        };
        let part = &regular.part;
        let bytes = file.metadata().map_or(0, |metadata| metadata.len());
        if bytes == 0 {
            // What can't be removed is in nobody's way: the next download takes it over.
            let _ = regular.remove_meta();
            let _ = fs::remove_file(part);
            return None;
        }
        let part = Escaped(part.as_os_str().as_bytes());
        Some(format!("{bytes} bytes are kept in {part}"))
    }
}

impl Place {
    /// Opens what isn't open; a `.part` is emptied, too.
    fn begin(&self, file: Option<File>, record: Option<&Record>) -> io::Result<File> {
        match (self, file) {
            (Self::Regular(regular), Some(file)) => regular.empty(file, record),
            (Self::Regular(regular), None) => {
                let file = regular.open_part(true)?;
                let file = file.ok_or(ErrorKind::NotFound)?;
                regular.empty(file, record)
            }
            (_, Some(file)) => Ok(file),
            // The descriptor itself: the standard library's handle would flush at every LF.
            (Self::Stdout, None) => Ok(io::stdout().as_fd().try_clone_to_owned()?.into()),
            (Self::Stream(path), None) => OpenOptions::new().write(true).open(path),
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

impl Regular {
    /// Opens and locks the `.part`, so that it is ours alone; `None` if it isn't there and is not to
    /// be created.
    fn open_part(&self, creates: bool) -> io::Result<Option<File>> {
        let busy = || io::Error::new(ErrorKind::ResourceBusy, "another download is writing it");
        for _ in 0..limits::PART_ATTEMPTS_MAX {
            let file = match self.open_unlocked(creates) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::NotFound && !creates => return Ok(None),
                Err(error) => return Err(error),
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(busy()),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            if names(&self.part, &file)? {
                return Ok(Some(file));
            }
        }
        Err(busy())
    }

    /// A planted link is not followed, and a planted FIFO does not block. What will replace a file
    /// is nobody else's to read before it has that file's permissions.
    fn open_unlocked(&self, creates: bool) -> io::Result<File> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(creates)
            .truncate(false)
            .mode(if self.mode.is_some() { 0o600 } else { 0o666 })
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&self.part)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        Ok(file)
    }

    /// The locked `.part` with what its meta says, if that fits the URL and the `.part`.
    fn open_earlier(&self, url: &str) -> io::Result<Option<(File, Record)>> {
        let Some(file) = self.open_part(false)? else {
            return Ok(None);
        };
        let bytes = file.metadata()?.len();
        let record = self
            .read_meta()
            .and_then(|meta| Record::from_bytes(&meta, url, bytes));
        Ok(record.filter(|_| bytes > 0).map(|record| (file, record)))
    }

    /// The meta's bytes; `None` if there is none that can be read.
    fn read_meta(&self) -> Option<Vec<u8>> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&self.meta)
            .ok()?;
        let mut bytes = Vec::new();
        let read = file.take(limits::META_BYTES_MAX).read_to_end(&mut bytes);
        read.ok().map(|_| bytes)
    }

    /// Empties the locked `.part` and says of what version it will be. A meta that can't be written
    /// only means that nobody will continue this download.
    fn empty(&self, mut part: File, record: Option<&Record>) -> io::Result<File> {
        self.remove_meta()?;
        part.set_len(0)?;
        part.rewind()?;
        if let Some(record) = record
            && self.write_meta(record).is_err()
        {
            self.remove_meta()?;
        }
        Ok(part)
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

    /// A removal is on disk when this returns: a meta must not come back beside other bytes. Where
    /// the name is too long, there can't be one.
    fn remove_meta(&self) -> io::Result<()> {
        match fs::remove_file(&self.meta) {
            Ok(()) => {
                let folder = self.meta.parent().filter(|path| *path != Path::new(""));
                File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
            }
            Err(error) => match error.kind() {
                ErrorKind::NotFound | ErrorKind::InvalidFilename => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Syncs first: a file system may report a full disk only then, and what has the target's name
    /// must be whole.
    fn replace(&self, part: &File) -> io::Result<()> {
        if let Some(mode) = self.mode {
            part.set_permissions(Permissions::from_mode(mode))?;
        }
        part.sync_data()?;
        fs::rename(&self.part, &self.path)?;
        // A meta without a `.part` says nothing to anybody, and the next download removes it.
        let _ = fs::remove_file(&self.meta);
        Ok(())
    }
}

fn place(path: &Path) -> io::Result<Place> {
    let is_link = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err(io::Error::other("it is a directory")),
        Ok(metadata) if metadata.is_file() && !is_descriptor(path) => {
            let path = if is_link {
                fs::canonicalize(path)?
            } else {
                path.to_owned()
            };
            regular(path, Some(metadata.mode() & 0o777))
        }
        Ok(_) => Ok(Place::Stream(path.to_owned())),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Err(_) if is_link => Err(io::Error::other("it is a link that leads nowhere")),
        Err(_) => regular(path.to_owned(), None),
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

/// Where a download waits until it is whole: the file's name with `.part` after it.
pub(super) fn part_of(file: &Path) -> PathBuf {
    beside(file, ".part")
}

/// Where it stands of what version that is.
pub(super) fn meta_of(file: &Path) -> PathBuf {
    beside(file, ".part.meta")
}

fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(file);
    path.push(suffix);
    path.into()
}

/// Goes to the end of what is there, and gives its length. The digest takes it in on the way.
fn absorb(file: &mut File, digest: Option<&mut Sha256>) -> io::Result<u64> {
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
fn regular(path: PathBuf, mode: Option<u32>) -> io::Result<Place> {
    if path.file_name().is_none() || path.as_os_str().as_bytes().ends_with(b"/") {
        return Err(io::Error::other("there is no such directory"));
    }
    let part = part_of(&path);
    let meta = meta_of(&path);
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
