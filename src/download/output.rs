//! Where a download goes. A regular file is written by way of a `.part` (`part_file.rs`); anything
//! else (standard output, a device, a FIFO) is written into.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::FileType;
use sha2::{Digest as _, Sha256};

use super::part_file::{PartFile, RegularFile, SharedPart, cannot_write, seek_to_end};
use super::resume::{Existing, Record};
use super::target_dir::{ParentDir, TargetDir};
use crate::escape::Escaped;
use crate::failure::{Exit, Failure};

/// Why nothing is written to a path.
const IS_FOLDER: &str = "it is a directory";

/// What the command line asks for.
#[derive(Debug)]
pub(super) enum Destination {
    Stdout,
    File(PathBuf),
    /// A file of a mirror, by its path beneath the mirror's folder.
    Mirrored(Arc<TargetDir>, PathBuf),
}

impl Destination {
    pub(super) fn is_stdout(&self) -> bool {
        matches!(self, Self::Stdout)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("standard output"),
            Self::File(path) => Escaped(path.as_os_str().as_bytes()).fmt(f),
            Self::Mirrored(target, path) => {
                let path = target.path_of(path);
                Escaped(path.as_os_str().as_bytes()).fmt(f)
            }
        }
    }
}

/// Where one download writes. Nothing is created before the answer begins.
#[derive(Debug)]
pub(super) struct Output {
    kind: OutputKind,
    /// What is there of a mirror's file.
    existing: Option<Existing>,
    file: Option<Arc<File>>,
    /// How many bytes of the file are in it.
    bytes: u64,
    /// Of these bytes, if `--sha256` asks for it.
    digest: Option<Sha256>,
    /// When the file was last modified where it comes from.
    modified: Option<SystemTime>,
    part: SharedPart,
    /// What a person is told of files that stood in the way.
    notes: Vec<String>,
    /// How many of them were taken.
    notes_taken: usize,
}

#[derive(Debug)]
enum OutputKind {
    Stdout,
    /// A device, a FIFO, a terminal, an open descriptor: never replaced.
    Stream(PathBuf),
    /// A folder, where a mirror's file should go: no byte can.
    Folder(PathBuf),
    RegularFile(RegularFile),
}

impl Output {
    /// Finds out what the destination is. A symbolic link stays: what it leads to is written; but in a
    /// mirror the file takes its place. A new file gets this mode.
    ///
    /// # Errors
    /// [`Exit::FileIo`]: a directory, a link that leads nowhere, or a path that can't be looked up.
    pub(super) fn at(
        destination: &Destination,
        new_mode: u32,
        digests: bool,
    ) -> Result<Self, Failure> {
        let mut existing = None;
        let kind = match destination {
            Destination::Stdout => OutputKind::Stdout,
            Destination::File(path) => {
                output_kind(path, new_mode).map_err(|error| cannot_write(path, &error))?
            }
            Destination::Mirrored(target, path) => {
                let mirrored = mirrored(target, path, new_mode, &mut existing);
                mirrored.map_err(|error| cannot_write(&target.path_of(path), &error))?
            }
        };
        Ok(Self {
            kind,
            existing,
            file: None,
            bytes: 0,
            digest: digests.then(Sha256::new),
            modified: None,
            part: SharedPart::default(),
            notes: Vec::new(),
            notes_taken: 0,
        })
    }

    /// What is there already, if it may be what is asked for.
    pub(super) fn existing(&self) -> Option<&Existing> {
        self.existing.as_ref()
    }

    /// Opens the `.part` that an earlier download of this URL has left, if it can be continued, and
    /// returns its record.
    ///
    /// # Errors
    /// [`Exit::FileIo`]: the `.part` can't be opened or read, or is another download's.
    pub(super) fn resume(&mut self, url: &str) -> Result<Option<Record>, Failure> {
        let OutputKind::RegularFile(regular) = &mut self.kind else {
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
            self.bytes = seek_to_end(&file, self.digest.as_mut())
                .map_err(|error| cannot_write(&regular.part, &error))?;
            self.file = Some(Arc::new(file));
            self.share();
        }
        Ok(record)
    }

    /// Shows the open `.part` to the thread that tells of it after a signal.
    fn share(&self) {
        if let (OutputKind::RegularFile(regular), Some(file)) = (&self.kind, &self.file) {
            *self.part.lock() = Some(PartFile {
                file: Arc::clone(file),
                parent: regular.parent.clone(),
                path: regular.part.clone(),
                meta: regular.meta.clone(),
            });
        }
    }

    /// Begins at zero. The record, if there is one, is on disk before the first byte.
    ///
    /// # Errors
    /// [`Exit::FileIo`], with the path and the reason; or a pipe has taken bytes already.
    pub(super) fn begin(&mut self, record: Option<&Record>) -> Result<(), Failure> {
        if self.is_irrevocable() {
            let line = "what was written already can't be taken back";
            return Err(Failure::new(Exit::FileIo, line));
        }
        if self.file.is_none() {
            let opened = match &mut self.kind {
                OutputKind::RegularFile(regular) => regular.open_part(true, &mut self.notes)?,
                stream => {
                    let opened = stream.open_stream();
                    let path = stream.written_path();
                    Some(opened.map_err(|error| cannot_write(path, &error))?)
                }
            };
            self.file = opened.map(Arc::new);
            self.share();
        }
        if let (OutputKind::RegularFile(regular), Some(file)) = (&self.kind, &self.file) {
            regular.empty(file, record)?;
        }
        self.bytes = 0;
        if let Some(digest) = &mut self.digest {
            digest.reset();
        }
        Ok(())
    }

    /// Whether bytes have gone where they can't be overwritten.
    pub(super) fn is_irrevocable(&self) -> bool {
        self.bytes > 0 && !matches!(self.kind, OutputKind::RegularFile(_))
    }

    /// How many bytes of the file are in the output.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The notes that were not taken yet.
    pub(super) fn take_notes(&mut self) -> Vec<String> {
        let notes = self.notes[self.notes_taken..].to_vec();
        self.notes_taken = self.notes.len();
        notes
    }

    /// The `.part`, as the signal thread sees it.
    pub(super) fn shared_part(&self) -> &SharedPart {
        &self.part
    }

    /// The time that the file will have; none, if it is the time of its download.
    pub(super) fn set_modified(&mut self, time: Option<SystemTime>) {
        self.modified = time;
    }

    /// Writes all of `bytes`. `Break` says that the reader of a pipe has closed it.
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
            Err(error) => Err(cannot_write(self.kind.written_path(), &error)),
        }
    }

    /// The SHA-256 of all bytes, in lower-case hexadecimal digits, if it was asked for at first.
    pub(super) fn sha256(&self) -> Option<String> {
        let digest = self.digest.clone()?.finalize();
        Some(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Removes what a later download needs to continue these bytes.
    ///
    /// # Errors
    /// [`Exit::FileIo`], with the path and the reason.
    pub(super) fn forbid_resuming(&self) -> Result<(), Failure> {
        match &self.kind {
            OutputKind::RegularFile(regular) => regular.remove_meta(),
            _ => Ok(()),
        }
    }

    /// Gives a whole file its name, in one step.
    ///
    /// # Errors
    /// [`Exit::FileIo`]; an existing file is as it was.
    pub(super) fn finish(&self) -> Result<(), Failure> {
        let (OutputKind::RegularFile(regular), Some(file)) = (&self.kind, &self.file) else {
            return Ok(());
        };
        let prepared = regular.prepare(file, self.modified);
        prepared.map_err(|error| cannot_write(&regular.part, &error))?;
        // Locked: the signal thread tells of the `.part` either before or after the rename.
        let mut part = self.part.lock();
        let named = regular.replace(file, self.bytes);
        named.map_err(|error| cannot_write(&regular.path, &error))?;
        *part = None;
        Ok(())
    }
}

impl OutputKind {
    fn open_stream(&self) -> io::Result<File> {
        match self {
            Self::Stream(path) => OpenOptions::new().write(true).open(path),
            Self::Folder(_) => Err(io::Error::other(IS_FOLDER)),
            // The descriptor itself: the standard library's handle would flush at every LF.
            _ => Ok(io::stdout().as_fd().try_clone_to_owned()?.into()),
        }
    }

    fn written_path(&self) -> &Path {
        match self {
            Self::Stdout => Path::new("standard output"),
            Self::Stream(path) | Self::Folder(path) => path,
            Self::RegularFile(regular) => &regular.part,
        }
    }
}

fn output_kind(path: &Path, new_mode: u32) -> io::Result<OutputKind> {
    let is_link = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err(io::Error::other(IS_FOLDER)),
        Ok(metadata) if metadata.is_file() && !is_descriptor(path) => {
            let path = if is_link {
                fs::canonicalize(path)?
            } else {
                path.to_owned()
            };
            let mode = metadata.mode() & 0o777;
            RegularFile::at(ParentDir::ByPath, path, mode).map(OutputKind::RegularFile)
        }
        Ok(_) => Ok(OutputKind::Stream(path.to_owned())),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Err(_) if is_link => Err(io::Error::other("it is a link that leads nowhere")),
        Err(_) => RegularFile::at(ParentDir::ByPath, path.to_owned(), new_mode)
            .map(OutputKind::RegularFile),
    }
}

/// A file of a mirror. Whatever has its name, but for a folder, it takes the place of. A folder is told when
/// there are bytes for it: what is asked for may be one, too.
fn mirrored(
    target: &TargetDir,
    path: &Path,
    new_mode: u32,
    existing: &mut Option<Existing>,
) -> io::Result<OutputKind> {
    let parent = target.open(path.parent().unwrap_or(Path::new("")))?;
    let parent = ParentDir::Open(Arc::new(parent));
    let path = target.path_of(path);
    let found = parent.stat(&path)?;
    let mode = match found.map(|stat| (stat, FileType::from_raw_mode(stat.st_mode))) {
        Some((_, FileType::Directory)) => return Ok(OutputKind::Folder(path)),
        Some((stat, FileType::RegularFile)) => {
            *existing = Some(Existing::from(&stat));
            stat.st_mode & 0o777
        }
        _ => new_mode,
    };
    RegularFile::at(parent, path, mode).map(OutputKind::RegularFile)
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
