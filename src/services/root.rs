//! From a name to an open regular file beneath the root. A name is bytes from a stranger; the
//! kernel, not string handling, keeps it inside (openat2 with RESOLVE_BENEATH).
//!
//! The error type is its own: an `io::Error` of kind WouldBlock from a file must never reach the
//! socket's logic, which would wait for an edge that never comes.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::{Rc, Weak};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::limits::{OPEN_ATTEMPTS_MAX, OPEN_FILES_SWEEP_MIN};
use crate::service::{FileVersion, OpenFile};

/// Opens what is found: for reading, never as a controlling terminal, and without waiting for a
/// FIFO's writer.
const OPEN_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// A handle to look beneath.
const FOLDER_FLAGS: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// How look-ups are kept beneath the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Containment {
    /// openat2(2), since Linux 5.6: the kernel resolves the whole name, relative links included.
    Openat2,
    /// Component by component with O_NOFOLLOW, where openat2 is missing. No link is followed.
    Walk,
}

/// Why a name brings no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupError {
    /// It names nothing that is served; the text says why. To the client all are the same.
    Refused(&'static str),
    /// No descriptor is free, in this process or in the system.
    NoDescriptor,
    /// Anything else is a failure of ours.
    Failed(Errno),
}

/// The folder that is served.
#[derive(Debug)]
pub struct Root {
    folder: OwnedFd,
    containment: Containment,
    hidden: bool,
    /// Files that connections hold open: one descriptor for one version of a file.
    open_files: HashMap<FileVersion, Weak<OpenFile>>,
    sweep_at: usize,
}

impl Root {
    /// Opens a folder, and finds out once whether the kernel has openat2. `hidden` serves names
    /// with components that begin with a dot.
    ///
    /// # Errors
    /// The folder can't be opened, or is none.
    pub fn open(path: &Path, hidden: bool) -> io::Result<Self> {
        let folder = rustix::fs::open(path, FOLDER_FLAGS, Mode::empty())?;
        let probe = rustix::fs::openat2(
            &folder,
            c".",
            FOLDER_FLAGS,
            Mode::empty(),
            ResolveFlags::BENEATH,
        );
        // Some sandboxes answer EPERM for a system call that they don't know.
        let containment = match probe {
            Err(Errno::NOSYS | Errno::PERM) => Containment::Walk,
            _ => Containment::Openat2,
        };
        Ok(Self::with_containment(folder, hidden, containment))
    }

    /// A root on an open folder, contained in a given way.
    #[must_use]
    pub fn with_containment(folder: OwnedFd, hidden: bool, containment: Containment) -> Self {
        let (open_files, sweep_at) = (HashMap::new(), OPEN_FILES_SWEEP_MIN);
        Self {
            folder,
            containment,
            hidden,
            open_files,
            sweep_at,
        }
    }

    /// How look-ups are contained here.
    #[must_use]
    pub fn containment(&self) -> Containment {
        self.containment
    }

    /// Opens the regular file that `name` names.
    ///
    /// # Errors
    /// See [`LookupError`].
    pub fn lookup(&mut self, name: &[u8]) -> Result<Rc<OpenFile>, LookupError> {
        let path = self.checked(name).map_err(LookupError::Refused)?;
        let opened = match self.containment {
            Containment::Openat2 => self.open_beneath(path),
            Containment::Walk => self.open_by_walking(path),
        };
        let file = opened.map_err(classify)?;
        let stat = rustix::fs::fstat(&file).map_err(LookupError::Failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(LookupError::Refused(NOT_REGULAR));
        }
        Ok(self.share(OpenFile::new(File::from(file), stat)))
    }

    /// The rules that concern the name alone. Leading slashes are ignored.
    fn checked<'n>(&self, name: &'n [u8]) -> Result<&'n [u8], &'static str> {
        let path = name
            .iter()
            .position(|&byte| byte != b'/')
            .map_or(&[][..], |at| &name[at..]);
        if path.is_empty() {
            return Err("an empty name");
        }
        if path.contains(&0) {
            return Err("NUL in the name");
        }
        for component in path.split(|&byte| byte == b'/') {
            if component == b".." {
                return Err("a component is ..");
            }
            if component.starts_with(b".") && !self.hidden {
                return Err("hidden");
            }
        }
        Ok(path)
    }

    fn open_beneath(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let mut attempts = 0;
        loop {
            match rustix::fs::openat2(&self.folder, path, OPEN_FLAGS, Mode::empty(), resolve) {
                // The tree was changed during the look-up and the kernel couldn't be sure.
                Err(Errno::AGAIN | Errno::INTR) if attempts < OPEN_ATTEMPTS_MAX => attempts += 1,
                result => return result,
            }
        }
    }

    fn open_by_walking(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let mut components = path
            .split(|&byte| byte == b'/')
            .filter(|part| !part.is_empty());
        // A name that ends in a slash can only mean a folder.
        let last = components
            .next_back()
            .filter(|_| !path.ends_with(b"/"))
            .ok_or(Errno::NOTDIR)?;
        let mut folder = None::<OwnedFd>;
        for component in components {
            let base = folder
                .as_ref()
                .map_or(self.folder.as_fd(), |folder| folder.as_fd());
            let flags = FOLDER_FLAGS | OFlags::NOFOLLOW;
            folder = Some(rustix::fs::openat(base, component, flags, Mode::empty())?);
        }
        let base = folder
            .as_ref()
            .map_or(self.folder.as_fd(), |folder| folder.as_fd());
        rustix::fs::openat(base, last, OPEN_FLAGS | OFlags::NOFOLLOW, Mode::empty())
    }

    /// The handle that others already have on the same version, or this one.
    fn share(&mut self, opened: OpenFile) -> Rc<OpenFile> {
        let version = opened.version();
        if let Some(shared) = self.open_files.get(&version).and_then(Weak::upgrade) {
            return shared;
        }
        if self.open_files.len() >= self.sweep_at {
            self.open_files.retain(|_, file| file.strong_count() > 0);
            self.sweep_at = OPEN_FILES_SWEEP_MIN.max(2 * self.open_files.len());
        }
        let shared = Rc::new(opened);
        self.open_files.insert(version, Rc::downgrade(&shared));
        shared
    }
}

const NOT_REGULAR: &str = "not a regular file";

/// Which failures of an open are the name's fault.
fn classify(errno: Errno) -> LookupError {
    LookupError::Refused(match errno {
        Errno::NOENT | Errno::NOTDIR => "no such file",
        Errno::ACCESS | Errno::PERM => "permission denied",
        Errno::LOOP => "a link that is not followed",
        Errno::XDEV => "leads out of the root",
        Errno::NAMETOOLONG => "the name is too long",
        Errno::INVAL => "not a name",
        // What open(2) says of a socket, and of a device without a driver.
        Errno::NXIO | Errno::NODEV => NOT_REGULAR,
        Errno::MFILE | Errno::NFILE => return LookupError::NoDescriptor,
        other => return LookupError::Failed(other),
    })
}
