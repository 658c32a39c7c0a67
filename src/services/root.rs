//! From a name to an open regular file beneath the root. A name is bytes from a stranger; the
//! kernel, not string handling, keeps it inside (openat2 with RESOLVE_BENEATH).
//!
//! The error type is its own: an `io::Error` of kind WouldBlock from a file must never reach the
//! socket's logic, which would wait for an edge that never comes.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::time::Instant;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::escape::Escaped;
use crate::limits::{OPEN_ATTEMPTS_MAX, OPEN_FILES_SWEEP_MIN};
use crate::service::{FileVersion, OpenFile};

use super::cache::{Bounds, Cache, Known};

/// Opens what is found: for reading, never as a controlling terminal, and without waiting for a
/// FIFO's writer.
pub(super) const OPEN_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// A handle to look beneath.
pub(super) const FOLDER_FLAGS: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

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

/// What a name brings.
#[derive(Debug)]
pub enum Found {
    /// A regular file.
    File(Rc<OpenFile>),
    /// A folder, open for reading.
    Folder(OwnedFd),
}

/// The folder that is served.
#[derive(Debug)]
pub struct Root {
    folder: OwnedFd,
    /// Where it was opened, if it was opened by its path.
    path: Option<PathBuf>,
    containment: Containment,
    hidden: bool,
    open_files: OpenFiles,
    cache: Option<Cache>,
}

impl Root {
    /// Opens a folder, and finds out once whether the kernel has openat2. `hidden` serves names
    /// with components that begin with a dot.
    ///
    /// # Errors
    /// The folder can't be opened or searched, or is none.
    pub fn open(path: &Path, hidden: bool) -> io::Result<Self> {
        let (folder, containment) = open_folder(path)?;
        let mut root = Self::with_containment(folder, hidden, containment);
        root.path = Some(path.to_owned());
        Ok(root)
    }

    /// Opens the folder that has its path now. If there is none, the old one stays.
    pub fn reopen(&mut self) {
        let Some(path) = &self.path else { return };
        let shown = Escaped(path.as_os_str().as_encoded_bytes());
        match open_folder(path) {
            Ok((folder, containment)) => {
                (self.folder, self.containment) = (folder, containment);
                if let Some(cache) = &mut self.cache {
                    cache.clear();
                }
                log::info!("ROOT \"{shown}\" was opened anew");
            }
            Err(error) => {
                log::warn!("ROOT \"{shown}\" can't be opened anew, the old one stays: {error}");
            }
        }
    }

    /// A root on an open folder, contained in a given way.
    #[must_use]
    pub fn with_containment(folder: OwnedFd, hidden: bool, containment: Containment) -> Self {
        Self {
            folder,
            path: None,
            containment,
            hidden,
            open_files: OpenFiles::default(),
            cache: None,
        }
    }

    /// Keeps files that are asked for again.
    ///
    /// # Errors
    /// As [`Cache::new`]; nothing is kept then.
    pub fn set_cache(&mut self, bounds: Bounds) -> io::Result<()> {
        self.cache = Some(Cache::new(bounds)?);
        Ok(())
    }

    /// Opens the regular file that `name` names.
    ///
    /// # Errors
    /// See [`LookupError`].
    pub fn lookup(&mut self, name: &[u8]) -> Result<Rc<OpenFile>, LookupError> {
        match self.find(name)? {
            Found::File(file) => Ok(file),
            Found::Folder(_) => Err(LookupError::Refused(NOT_REGULAR)),
        }
    }

    /// As [`Root::find`], but a name of slashes alone is the root itself.
    ///
    /// # Errors
    /// See [`LookupError`].
    pub fn find_or_top(&mut self, name: &[u8]) -> Result<Found, LookupError> {
        if name.iter().any(|&byte| byte != b'/') {
            return self.find(name);
        }
        let flags = OPEN_FLAGS | OFlags::DIRECTORY;
        let top = rustix::fs::openat(&self.folder, ".", flags, Mode::empty());
        top.map(Found::Folder).map_err(classify)
    }

    /// Opens the regular file or the folder that `name` names.
    ///
    /// # Errors
    /// See [`LookupError`].
    pub fn find(&mut self, name: &[u8]) -> Result<Found, LookupError> {
        let path = self.checked(name).map_err(LookupError::Refused)?;
        if let Some(file) = self.kept(path) {
            return Ok(Found::File(file));
        }
        match self.look_up(path) {
            Err(LookupError::NoDescriptor)
                if self.cache.as_mut().is_some_and(Cache::close_files) =>
            {
                self.look_up(path)
            }
            found => found,
        }
    }

    /// The file of a name from the cache, or put there now.
    fn kept(&mut self, path: &[u8]) -> Option<Rc<OpenFile>> {
        let cache = self.cache.as_mut()?;
        let now = Instant::now();
        match cache.get(path, now) {
            Known::File(file) => Some(file),
            Known::Unknown => None,
            Known::Wanted => {
                let open_files = &mut self.open_files;
                cache.load(&self.folder, path, now, |file| open_files.share(file))
            }
        }
    }

    fn look_up(&mut self, path: &[u8]) -> Result<Found, LookupError> {
        let opened = match self.containment {
            Containment::Openat2 => self.open_beneath(path),
            Containment::Walk => self.open_by_walking(path),
        };
        let file = opened.map_err(classify)?;
        let stat = rustix::fs::fstat(&file).map_err(LookupError::Failed)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let file = OpenFile::new(File::from(file), stat);
                Ok(Found::File(self.open_files.share(file)))
            }
            FileType::Directory => Ok(Found::Folder(file)),
            _ => Err(LookupError::Refused(NOT_REGULAR)),
        }
    }

    /// Whether a component of this name may be served.
    #[must_use]
    pub fn shows(&self, component: &[u8]) -> bool {
        self.hidden || !component.starts_with(b".")
    }

    /// What a name leads to, if it stays beneath the root.
    #[must_use]
    pub fn stat(&self, name: &[u8]) -> Option<Stat> {
        let path = self.checked(name).ok()?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let found = match self.containment {
            Containment::Openat2 => {
                rustix::fs::openat2(&self.folder, path, flags, Mode::empty(), resolve)
            }
            Containment::Walk => self.open_by_walking(path),
        };
        rustix::fs::fstat(found.ok()?).ok()
    }

    /// The rules that concern the name alone. Leading slashes are ignored.
    fn checked<'n>(&self, name: &'n [u8]) -> Result<&'n [u8], &'static str> {
        let path = name
            .iter()
            .position(|&byte| byte != b'/')
            .map_or(&[][..], |at| &name[at..]);
        if path.is_empty() {
            return Err(EMPTY_NAME);
        }
        if path.contains(&0) {
            return Err("NUL in the name");
        }
        for component in path.split(|&byte| byte == b'/') {
            if component == b".." {
                return Err("a component is ..");
            }
            if !self.shows(component) {
                return Err("a component begins with a dot");
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
        let last = components.next_back().ok_or(Errno::NOTDIR)?;
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
        let mut flags = OPEN_FLAGS | OFlags::NOFOLLOW;
        // A name that ends in a slash can only mean a folder.
        flags.set(OFlags::DIRECTORY, path.ends_with(b"/"));
        rustix::fs::openat(base, last, flags, Mode::empty())
    }
}

/// Files that connections hold open: one descriptor for one version of a file.
#[derive(Debug)]
struct OpenFiles {
    by_version: HashMap<FileVersion, Weak<OpenFile>>,
    sweep_at: usize,
}

impl Default for OpenFiles {
    fn default() -> Self {
        Self {
            by_version: HashMap::new(),
            sweep_at: OPEN_FILES_SWEEP_MIN,
        }
    }
}

impl OpenFiles {
    /// The handle that others already have on the same version, or this one.
    fn share(&mut self, opened: OpenFile) -> Rc<OpenFile> {
        let version = opened.version();
        if let Some(shared) = self.by_version.get(&version).and_then(Weak::upgrade) {
            return shared;
        }
        if self.by_version.len() >= self.sweep_at {
            self.by_version.retain(|_, file| file.strong_count() > 0);
            self.sweep_at = OPEN_FILES_SWEEP_MIN.max(2 * self.by_version.len());
        }
        let shared = Rc::new(opened);
        self.by_version.insert(version, Rc::downgrade(&shared));
        shared
    }
}

/// Opens a folder to look beneath, and finds out how that can be done.
fn open_folder(path: &Path) -> io::Result<(OwnedFd, Containment)> {
    let folder = rustix::fs::open(path, FOLDER_FLAGS, Mode::empty())?;
    let probe = rustix::fs::openat2(
        &folder,
        c".",
        FOLDER_FLAGS,
        Mode::empty(),
        ResolveFlags::BENEATH,
    );
    // Some sandboxes answer EPERM for a system call that they don't know.
    match probe {
        Err(Errno::NOSYS | Errno::PERM) => Ok((folder, Containment::Walk)),
        Err(error) => Err(error.into()),
        Ok(_) => Ok((folder, Containment::Openat2)),
    }
}

/// Why what is found under a name is refused; it may be a folder.
pub(super) const NOT_REGULAR: &str = "not a regular file";

/// Why a name of slashes alone is refused; it is the root itself.
pub(super) const EMPTY_NAME: &str = "an empty name";

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
    use std::os::unix::net::UnixListener;

    use crate::service::{Body, Piece};

    use rustix::fs::{CWD, FileType};

    /// A root in both ways of containment.
    fn both(path: &Path, hidden: bool) -> [Root; 2] {
        [Containment::Openat2, Containment::Walk].map(|containment| {
            let folder = rustix::fs::open(path, FOLDER_FLAGS, Mode::empty()).unwrap();
            Root::with_containment(folder, hidden, containment)
        })
    }

    fn content(file: &Rc<OpenFile>) -> Vec<u8> {
        match Body::File(Rc::clone(file)).piece(0) {
            Piece::Bytes(bytes) => bytes.to_vec(),
            Piece::File { file, length, .. } => {
                let mut bytes = vec![0; length as usize];
                file.read_exact_at(&mut bytes, 0).unwrap();
                bytes
            }
        }
    }

    #[test]
    fn files_beneath_are_found_and_leading_slashes_ignored() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        fs::write(folder.path().join("a/b/c"), b"deep").unwrap();
        fs::write(folder.path().join("top"), b"flat").unwrap();
        for mut root in both(folder.path(), false) {
            for (name, expected) in [
                ("top", &b"flat"[..]),
                ("///top", b"flat"),
                ("a/b/c", b"deep"),
                ("/a//b/c", b"deep"),
            ] {
                assert_eq!(
                    content(&root.lookup(name.as_bytes()).unwrap()),
                    expected,
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn folders_are_found_with_and_without_a_slash() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        fs::write(folder.path().join("file"), b"x").unwrap();
        for mut root in both(folder.path(), false) {
            for name in ["a", "a/", "/a//", "a/b", "/a/b/"] {
                let found = root.find(name.as_bytes());
                assert!(matches!(found, Ok(Found::Folder(_))), "{name}: {found:?}");
            }
            for name in ["file/", "a/b/c/", "file/x"] {
                let found = root.find(name.as_bytes());
                assert!(matches!(found, Err(LookupError::Refused(_))), "{name}");
            }
        }
    }

    #[test]
    fn what_is_no_name_of_a_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("folder")).unwrap();
        fs::write(at(".hidden"), b"secret").unwrap();
        symlink(outside.path(), at("absolute")).unwrap();
        symlink("../outside", at("climbing")).unwrap();
        symlink("loop", at("loop")).unwrap();
        rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        for mut root in both(folder.path(), false) {
            for name in [
                "",
                "/",
                "//",
                "..",
                "../x",
                "a/../folder",
                "/..",
                "a/..",
                ".",
                "./folder",
                ".hidden",
                "folder/.x",
                "missing",
                "folder",
                "folder/",
                "folder/missing",
                "absolute",
                "climbing",
                "loop",
                "fifo",
                "socket",
                "fifo/x",
                "missing\0",
            ] {
                let result = root.lookup(name.as_bytes());
                assert!(
                    matches!(result, Err(LookupError::Refused(_))),
                    "{name}: {result:?}"
                );
            }
            let long = vec![b'x'; 256];
            assert!(matches!(root.lookup(&long), Err(LookupError::Refused(_))));
        }
    }

    #[test]
    fn hidden_names_are_served_when_asked_for_but_never_the_parent() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".hidden"), b"secret").unwrap();
        for mut root in both(folder.path(), true) {
            assert_eq!(content(&root.lookup(b".hidden").unwrap()), b"secret");
            assert_eq!(content(&root.lookup(b"./.hidden").unwrap()), b"secret");
            assert!(matches!(root.lookup(b"../x"), Err(LookupError::Refused(_))));
        }
    }

    #[test]
    fn a_relative_link_inside_is_followed_by_openat2_only() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), b"linked").unwrap();
        symlink("file", folder.path().join("link")).unwrap();
        let [mut by_openat2, mut by_walking] = both(folder.path(), false);
        assert_eq!(content(&by_openat2.lookup(b"link").unwrap()), b"linked");
        assert!(matches!(
            by_walking.lookup(b"link"),
            Err(LookupError::Refused(_))
        ));
    }

    #[test]
    fn a_root_that_moves_is_still_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        fs::create_dir(&old).unwrap();
        fs::write(old.join("file"), b"kept").unwrap();
        let mut root = Root::open(&old, false).unwrap();
        fs::rename(&old, &new).unwrap();
        assert_eq!(content(&root.lookup(b"file").unwrap()), b"kept");
    }

    #[test]
    fn a_root_opened_anew_is_what_its_path_leads_to_or_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("root");
        for name in ["one", "two"] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("file"), name).unwrap();
        }
        symlink("one", &link).unwrap();
        let mut root = Root::open(&link, false).unwrap();
        let one = root.lookup(b"file").unwrap();
        fs::remove_file(&link).unwrap();
        root.reopen();
        assert_eq!(content(&root.lookup(b"file").unwrap()), b"one");
        symlink("two", &link).unwrap();
        root.reopen();
        assert_eq!(content(&root.lookup(b"file").unwrap()), b"two");
        assert_eq!(content(&one), b"one");
    }

    #[test]
    fn one_version_of_a_file_has_one_descriptor() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, b"one").unwrap();
        let mut root = Root::open(folder.path(), false).unwrap();
        let first = root.lookup(b"file").unwrap();
        let again = root.lookup(b"file").unwrap();
        assert!(Rc::ptr_eq(&first, &again));
        fs::write(&path, b"two!").unwrap();
        let changed = root.lookup(b"file").unwrap();
        assert!(!Rc::ptr_eq(&first, &changed));
        assert_eq!(content(&changed), b"two!");
    }

    #[test]
    fn the_table_of_open_files_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        let mut root = Root::open(folder.path(), false).unwrap();
        for number in 0..10 * OPEN_FILES_SWEEP_MIN {
            let name = number.to_string();
            fs::write(folder.path().join(&name), name.as_bytes()).unwrap();
            root.lookup(name.as_bytes()).unwrap();
        }
        assert!(root.open_files.by_version.len() <= OPEN_FILES_SWEEP_MIN);
    }

    #[test]
    fn whose_fault_an_errno_is() {
        assert_eq!(classify(Errno::MFILE), LookupError::NoDescriptor);
        assert_eq!(classify(Errno::NFILE), LookupError::NoDescriptor);
        for errno in [
            Errno::IO,
            Errno::NOMEM,
            Errno::AGAIN,
            Errno::STALE,
            Errno::INTR,
        ] {
            assert_eq!(classify(errno), LookupError::Failed(errno));
        }
    }

    #[test]
    fn a_root_must_be_a_folder() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Root::open(file.path(), false).is_err());
        assert!(Root::open(Path::new("/no/such/folder"), false).is_err());
    }

    #[test]
    fn a_mode_that_forbids_is_a_refusal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, b"x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        // The superuser may read it all the same.
        let result = Root::open(folder.path(), false).unwrap().lookup(b"file");
        assert!(matches!(
            result,
            Ok(_) | Err(LookupError::Refused("permission denied"))
        ));
    }
}
