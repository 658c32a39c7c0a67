//! Where a download goes. A regular file is written as a locked `.part` beside it and takes its
//! name only when whole; anything else (standard output, a device, a FIFO) is written into.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::Failure;
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

/// One download's target. Nothing is created or opened before the first byte.
#[derive(Debug)]
pub(super) struct Target {
    place: Place,
    file: Option<File>,
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
    /// The permission bits of the file that is replaced.
    mode: Option<u32>,
}

impl Target {
    /// Finds out what the destination is. A symbolic link stays: what it leads to is written.
    ///
    /// # Errors
    /// [`Exit::FileIo`]: a directory, a link that leads nowhere, or a path that can't be looked up.
    pub(super) fn at(destination: &Destination) -> Result<Self, Failure> {
        let place = match destination {
            Destination::Stdout => Place::Stdout,
            Destination::File(path) => place(path).map_err(|error| cannot_write(path, &error))?,
        };
        Ok(Self { place, file: None })
    }

    /// Writes all of `bytes`. `Break` says that the other end of a pipe has closed: whoever reads
    /// has had enough.
    ///
    /// # Errors
    /// [`Exit::FileIo`], with the path and the reason.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<ControlFlow<()>, Failure> {
        let written = match &mut self.file {
            Some(file) => file.write_all(bytes),
            none => self
                .place
                .open()
                .and_then(|file| none.insert(file).write_all(bytes)),
        };
        match written {
            Ok(()) => Ok(ControlFlow::Continue(())),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
            Err(error) => Err(cannot_write(self.place.written_path(), &error)),
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
        regular
            .replace(file)
            .map_err(|error| cannot_write(&regular.path, &error))
    }

    /// After a failure: says what is left of the download. A `.part` without a byte is removed.
    pub(super) fn kept(&self) -> Option<String> {
        let (Place::Regular(Regular { part, .. }), Some(file)) = (&self.place, &self.file) else {
            return None;
        };
        let bytes = file.metadata().map_or(0, |metadata| metadata.len());
        if bytes == 0 {
            // What can't be removed is in nobody's way: the next download takes it over.
            let _ = fs::remove_file(part);
            return None;
        }
        let part = Escaped(part.as_os_str().as_bytes());
        Some(format!("{bytes} bytes are kept in {part}"))
    }
}

impl Place {
    fn open(&self) -> io::Result<File> {
        match self {
            // The descriptor itself: the standard library's handle would flush at every LF.
            Self::Stdout => Ok(io::stdout().as_fd().try_clone_to_owned()?.into()),
            Self::Stream(path) => OpenOptions::new().write(true).open(path),
            Self::Regular(regular) => regular.open_part(),
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
    /// Opens and locks the `.part`, and empties it once it is ours alone.
    fn open_part(&self) -> io::Result<File> {
        let busy = || io::Error::new(ErrorKind::ResourceBusy, "another download is writing it");
        for _ in 0..limits::PART_ATTEMPTS_MAX {
            let file = self.open_unlocked()?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(busy()),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            if names(&self.part, &file)? {
                file.set_len(0)?;
                return Ok(file);
            }
        }
        Err(busy())
    }

    /// A planted link is not followed, and a planted FIFO does not block. What will replace a file
    /// is nobody else's to read before it has that file's permissions.
    fn open_unlocked(&self) -> io::Result<File> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(if self.mode.is_some() { 0o600 } else { 0o666 })
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&self.part)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        Ok(file)
    }

    /// Syncs first: a file system may report a full disk only then, and what has the target's name
    /// must be whole.
    fn replace(&self, part: &File) -> io::Result<()> {
        if let Some(mode) = self.mode {
            part.set_permissions(Permissions::from_mode(mode))?;
        }
        part.sync_data()?;
        fs::rename(&self.part, &self.path)
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
    let mut part = OsString::from(file);
    part.push(".part");
    part.into()
}

/// A path that ends in `/` or `..` has no file's name.
fn regular(path: PathBuf, mode: Option<u32>) -> io::Result<Place> {
    if path.file_name().is_none() || path.as_os_str().as_bytes().ends_with(b"/") {
        return Err(io::Error::other("there is no such directory"));
    }
    let part = part_of(&path);
    Ok(Place::Regular(Regular { path, part, mode }))
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
