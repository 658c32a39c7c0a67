//! A folder, and how what lies beneath it is opened: so that nothing outside is reached, and, on
//! the loop, so that no disk is waited for.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, statat};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::file::version::Snapshot;
use crate::file::{FsClass, FsClasses, Lookup, LookupError, MayBlock, Mount, OpenFile};
use crate::limits::{LINKS_MAX, OPEN_ATTEMPTS_MAX};

/// Opens what is found: for reading, never as a controlling terminal, and without waiting for a
/// FIFO's writer.
const OPEN_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// A handle to look beneath.
pub(super) const FOLDER_FLAGS: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// How the kernel resolves a whole name, relative links included.
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

/// How look-ups are kept beneath the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Containment {
    /// openat2(2), since Linux 5.6: the kernel resolves the whole name, relative links included.
    Openat2,
    /// Component by component with O_NOFOLLOW, where openat2 is missing. No link is followed.
    Walk,
}

/// Which names with components that begin with a dot are served.
#[derive(Clone, Debug)]
pub enum DotFiles {
    /// Those whose components that begin with a dot are among these.
    Allow(Arc<[Box<[u8]>]>),
    /// All.
    AllowAll,
}

impl DotFiles {
    fn allows(&self, component: &[u8]) -> bool {
        match self {
            Self::Allow(names) => names.iter().any(|name| **name == *component),
            Self::AllowAll => true,
        }
    }
}

impl From<bool> for DotFiles {
    /// All or none.
    fn from(all: bool) -> Self {
        match all {
            true => Self::AllowAll,
            false => Self::Allow(Arc::default()),
        }
    }
}

/// What a component of a path names.
#[derive(Clone, Copy, Debug)]
pub(super) enum Component {
    /// A folder on the way, to look in.
    Folder,
    /// The file.
    File,
}

/// The folder. Helpers look beneath it, too.
#[derive(Debug)]
pub struct RootDir {
    folder: OwnedFd,
    containment: Containment,
    dotfiles: DotFiles,
    /// The class of the folder's own file system, as far as it is known without a try.
    own_class: FsClass,
    /// openat2 can be asked to look nowhere but in memory (RESOLVE_CACHED, since Linux 5.12).
    asks_cache: bool,
    /// The kind of the folder's own file system, once a file on it was opened.
    kind: OnceLock<FsClass>,
    kinds: FsClasses,
}

impl RootDir {
    /// Opens a folder, and finds out how it can be looked beneath.
    ///
    /// # Errors
    /// The folder can't be opened or searched, or is none.
    pub fn open(path: &Path, dotfiles: impl Into<DotFiles>) -> io::Result<Self> {
        let dotfiles = dotfiles.into();
        let folder = rustix::fs::open(path, FOLDER_FLAGS, Mode::empty())?;
        // Some sandboxes answer EPERM for a system call that they don't know.
        match probe(&folder, ResolveFlags::BENEATH) {
            Err(Errno::NOSYS | Errno::PERM) => Ok(Self::new(folder, Containment::Walk, dotfiles)),
            Err(error) => Err(error.into()),
            Ok(()) => Ok(Self::new(folder, Containment::Openat2, dotfiles)),
        }
    }

    /// An open folder, contained in a given way.
    #[must_use]
    pub fn new(folder: OwnedFd, containment: Containment, dotfiles: DotFiles) -> Self {
        let cached = ResolveFlags::BENEATH | ResolveFlags::CACHED;
        // What is not in memory is EAGAIN; EINVAL is a kernel that doesn't know the flag.
        let asks_cache = containment == Containment::Openat2
            && matches!(probe(&folder, cached), Ok(()) | Err(Errno::AGAIN));
        let kinds = FsClasses::default();
        Self {
            own_class: kinds.of_directory(&folder),
            folder,
            containment,
            dotfiles,
            asks_cache,
            kind: OnceLock::new(),
            kinds,
        }
    }

    /// Takes all file systems beneath for one of this kind.
    pub(super) fn assume(&mut self, kind: FsClass) {
        self.kinds = FsClasses::assumed(kind);
        self.kind = OnceLock::new();
        self.own_class = self.kinds.of_directory(&self.folder);
    }

    /// Opens a regular file or a folder. May wait for a disk.
    ///
    /// # Errors
    /// See [`LookupError`]; never [`LookupError::WouldBlock`].
    pub fn find(&self, path: &[u8]) -> Result<Lookup, LookupError> {
        self.opened(self.open_path(path, OPEN_FLAGS).map_err(classify)?)
    }

    /// As [`RootDir::find`], but goes no further than `may_block`.
    ///
    /// # Errors
    /// See [`LookupError`]; what lies further is [`LookupError::WouldBlock`], or, from the disk on,
    /// [`LookupError::OtherMount`].
    pub fn find_within(&self, path: &[u8], may_block: MayBlock) -> Result<Lookup, LookupError> {
        match self.bounds(may_block)? {
            Some(bounds) => self.find_here(path, bounds, may_block),
            None => self.find(path),
        }
    }

    /// What keeps openat2 within `may_block`. `None`: nothing need.
    fn bounds(&self, may_block: MayBlock) -> Result<Option<Bounds>, LookupError> {
        // Who walks doesn't see where a file system ends.
        let is_further = self.own_class == FsClass::Remote || self.containment == Containment::Walk;
        let (flags, attempts) = match (may_block, self.own_class) {
            (MayBlock::Forever, _) => return Ok(None),
            (MayBlock::Never, _) if is_further => return Err(LookupError::WouldBlock),
            (MayBlock::OnDisk, _) if is_further => {
                return Err(LookupError::OtherMount(Mount::default()));
            }
            (MayBlock::Never, FsClass::InMemory) => (ResolveFlags::empty(), 0),
            (MayBlock::Never, _) if !self.asks_cache => return Err(LookupError::WouldBlock),
            (MayBlock::Never, _) => (ResolveFlags::CACHED, 0),
            (MayBlock::OnDisk, _) => (ResolveFlags::empty(), OPEN_ATTEMPTS_MAX),
        };
        let resolve = RESOLVE | ResolveFlags::NO_XDEV | flags;
        Ok(Some(Bounds { resolve, attempts }))
    }

    /// Looks on the folder's own file system.
    fn find_here(
        &self,
        path: &[u8],
        bounds: Bounds,
        may_block: MayBlock,
    ) -> Result<Lookup, LookupError> {
        let file =
            bounds
                .open(&self.folder, path, OPEN_FLAGS)
                .map_err(|errno| match is_further(errno) {
                    true => self.further(path, may_block),
                    false => classify(errno),
                })?;
        let state = Snapshot::of(&file).map_err(LookupError::Failed)?;
        opened(file, state, |file| {
            *self
                .kind
                .get_or_init(|| self.kinds.of(file, state.stat.st_dev))
        })
    }

    /// A path leads further than this.
    fn further(&self, path: &[u8], may_block: MayBlock) -> LookupError {
        match may_block {
            MayBlock::Never => LookupError::WouldBlock,
            MayBlock::OnDisk | MayBlock::Forever => {
                LookupError::OtherMount(self.mount_on_the_way(path))
            }
        }
    }

    /// Which mount a path leads to, component by component and link by link. That is known by where
    /// it is mounted: nothing of it is touched, since it may not answer. Whatever else keeps a path
    /// from its end is for the look-up itself to find.
    fn mount_on_the_way(&self, path: &[u8]) -> Mount {
        let mut folder = None::<OwnedFd>;
        let (mut ahead, mut at, mut links) = (Vec::from(path), 0, 0);
        while at < ahead.len() {
            let length = ahead[at..].iter().position(|&byte| byte == b'/');
            let component = &ahead[at..at + length.unwrap_or(ahead.len() - at)];
            at += component.len() + 1;
            if component.is_empty() {
                continue;
            }
            let base = folder.as_ref().unwrap_or(&self.folder);
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let found = match HERE.open(base, component, flags) {
                Ok(found) => found,
                Err(Errno::XDEV) => return mount_on(base, component),
                Err(_) => break,
            };
            match rustix::fs::fstat(&found).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
                Ok(FileType::Directory) => folder = Some(found),
                Ok(FileType::Symlink) if links < LINKS_MAX => {
                    links += 1;
                    let target = rustix::fs::readlinkat(&found, c"", Vec::new());
                    let target = target.unwrap_or_default().into_bytes();
                    if target.starts_with(b"/") {
                        break;
                    }
                    let after = ahead.get(at..).unwrap_or_default();
                    (ahead, at) = ([&target, &b"/"[..], after].concat(), 0);
                }
                _ => break,
            }
        }
        Mount::default()
    }

    /// The folder itself.
    pub(super) fn folder(&self) -> &OwnedFd {
        &self.folder
    }

    /// Whether anything beneath may wait for another machine or process.
    pub(super) fn is_foreign(&self) -> bool {
        self.own_class == FsClass::Remote
    }

    /// Opens one component of a path in a folder on the way, without following a link or leaving the
    /// file system. May wait for a disk.
    pub(super) fn open_component(
        &self,
        folder: &OwnedFd,
        name: &[u8],
        component: Component,
    ) -> Result<OwnedFd, Errno> {
        let flags = OFlags::NOFOLLOW
            | match component {
                Component::Folder => FOLDER_FLAGS,
                Component::File => OPEN_FLAGS,
            };
        match self.containment {
            Containment::Walk => rustix::fs::openat(folder, name, flags, Mode::empty()),
            Containment::Openat2 => {
                let resolve = RESOLVE | ResolveFlags::NO_XDEV;
                rustix::fs::openat2(folder, name, flags, Mode::empty(), resolve)
            }
        }
    }

    /// What was opened, with the kind of its file system.
    pub(super) fn opened(&self, file: OwnedFd) -> Result<Lookup, LookupError> {
        let state = Snapshot::of(&file).map_err(LookupError::Failed)?;
        opened(file, state, |file| self.kinds.of(file, state.stat.st_dev))
    }

    /// Which names that begin with a dot are served.
    #[must_use]
    pub fn dotfiles(&self) -> &DotFiles {
        &self.dotfiles
    }

    /// Whether a component of this name may be served.
    #[must_use]
    pub fn shows(&self, component: &[u8]) -> bool {
        !component.starts_with(b".") || self.dotfiles.allows(component)
    }

    /// What an entry of an open folder is; of a link, what it leads to, if the root follows it.
    /// `name` is the entry's own, beneath this. `None`: it is nothing that is served, or gone.
    ///
    /// # Errors
    /// What lies further than `may_block` is as in [`RootDir::find_within`].
    pub fn look_at(
        &self,
        folder: BorrowedFd<'_>,
        entry: &CStr,
        name: &[u8],
        may_block: MayBlock,
    ) -> Result<Option<Stat>, LookupError> {
        let bounds = self.bounds(may_block)?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let found = match bounds {
            Some(bounds) => bounds
                .open(folder, entry, flags | OFlags::NOFOLLOW)
                .and_then(rustix::fs::fstat),
            None => statat(folder, entry, AtFlags::SYMLINK_NOFOLLOW),
        };
        let target = || {
            let path = self.checked(name).map_err(|_| Errno::NOENT)?;
            match bounds {
                Some(bounds) => bounds.open(&self.folder, path, flags),
                None => self.open_path(path, flags),
            }
            .and_then(rustix::fs::fstat)
        };
        let found = found.and_then(|stat| match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => target(),
            _ => Ok(stat),
        });
        match found {
            Ok(stat) => Ok(Some(stat)),
            Err(errno) if bounds.is_some() && is_further(errno) => {
                Err(self.further(path_of(name), may_block))
            }
            Err(_) => Ok(None),
        }
    }

    /// The rules that concern the name alone, from which dot segments were removed. Leading slashes
    /// are ignored. What lies beneath [`WELL_KNOWN`] may be looked up.
    pub(super) fn checked<'n>(&self, name: &'n [u8]) -> Result<&'n [u8], &'static str> {
        let path = path_of(name);
        if path.is_empty() {
            return Err(EMPTY_NAME);
        }
        if path.contains(&0) {
            return Err("NUL in the name");
        }
        for (at, component) in path.split(|&byte| byte == b'/').enumerate() {
            if component == b".." {
                return Err("a component is ..");
            }
            if !self.shows(component) && (at, component) != (0, WELL_KNOWN) {
                return Err(HIDDEN);
            }
        }
        Ok(path)
    }

    fn open_path(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        match self.containment {
            Containment::Openat2 => UNBOUND.open(&self.folder, path, flags),
            Containment::Walk => self.open_by_walking(path, flags),
        }
    }

    fn open_by_walking(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut components = path
            .split(|&byte| byte == b'/')
            .filter(|part| !part.is_empty());
        let last = components.next_back().ok_or(Errno::NOTDIR)?;
        let mut folder = None::<OwnedFd>;
        for component in components {
            let base = folder.as_ref().unwrap_or(&self.folder);
            let flags = FOLDER_FLAGS | OFlags::NOFOLLOW;
            folder = Some(rustix::fs::openat(base, component, flags, Mode::empty())?);
        }
        let base = folder.as_ref().unwrap_or(&self.folder);
        let mut flags = flags | OFlags::NOFOLLOW;
        // A name that ends in a slash can only mean a folder.
        flags.set(OFlags::DIRECTORY, path.ends_with(b"/"));
        rustix::fs::openat(base, last, flags, Mode::empty())
    }
}

/// How openat2 is kept where it shall look.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    resolve: ResolveFlags,
    /// How often it is asked again when it isn't sure.
    attempts: u32,
}

/// Everywhere beneath.
const UNBOUND: Bounds = Bounds {
    resolve: RESOLVE,
    attempts: OPEN_ATTEMPTS_MAX,
};

/// On one file system. Where `..` leads out of the folder that is no harm: nothing is served of what
/// is found so.
const HERE: Bounds = Bounds {
    resolve: ResolveFlags::NO_XDEV.union(ResolveFlags::NO_MAGICLINKS),
    attempts: OPEN_ATTEMPTS_MAX,
};

/// What is mounted on an entry of a folder.
fn mount_on(folder: &OwnedFd, entry: &[u8]) -> Mount {
    let stat = rustix::fs::fstat(folder);
    stat.map_or(Mount::default(), |stat| {
        Mount::at(stat.st_dev, stat.st_ino, entry)
    })
}

impl Bounds {
    fn open(
        self,
        folder: impl AsFd,
        path: impl Arg + Copy,
        flags: OFlags,
    ) -> Result<OwnedFd, Errno> {
        let mut attempts = self.attempts;
        loop {
            match rustix::fs::openat2(&folder, path, flags, Mode::empty(), self.resolve) {
                // The tree was changed during the look-up and the kernel couldn't be sure.
                Err(Errno::AGAIN | Errno::INTR) if attempts > 0 => attempts -= 1,
                result => return result,
            }
        }
    }
}

/// Whether openat2 has come to its bounds: to another file system or the way out of the folder, or to
/// what isn't in memory or isn't sure.
fn is_further(errno: Errno) -> bool {
    matches!(errno, Errno::AGAIN | Errno::INTR | Errno::XDEV)
}

fn probe(folder: &OwnedFd, resolve: ResolveFlags) -> Result<(), Errno> {
    rustix::fs::openat2(folder, c".", FOLDER_FLAGS, Mode::empty(), resolve).map(drop)
}

/// What was opened, if it is served.
fn opened(
    file: OwnedFd,
    state: Snapshot,
    kind: impl FnOnce(&OwnedFd) -> FsClass,
) -> Result<Lookup, LookupError> {
    match FileType::from_raw_mode(state.stat.st_mode) {
        FileType::RegularFile => {
            let kind = kind(&file);
            let file = OpenFile::new(File::from(file), state, kind);
            Ok(Lookup::File(Arc::new(file)))
        }
        FileType::Directory => Ok(Lookup::Directory(file)),
        _ => Err(LookupError::Refused(NOT_REGULAR)),
    }
}

/// Why what is found under a name is refused; it may be a folder.
pub(crate) const NOT_REGULAR: &str = "not a regular file";

/// Why a name is refused under which nothing is.
pub(crate) const NO_SUCH_FILE: &str = "no such file";

/// Why a name is refused that would show what is hidden.
pub(crate) const HIDDEN: &str = "a component begins with a dot";

/// The folder at the top that HTTP has a meaning for (RFC 8615). It is not hidden there.
pub(super) const WELL_KNOWN: &[u8] = b".well-known";

/// Whether a name lies beneath [`WELL_KNOWN`], or is that.
pub(super) fn is_well_known(name: &[u8]) -> bool {
    let rest = path_of(name).strip_prefix(WELL_KNOWN);
    rest.is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
}

/// Why a name of slashes alone is refused; it is the root itself.
pub(crate) const EMPTY_NAME: &str = "an empty name";

/// A name without the slashes before it.
pub(super) fn path_of(name: &[u8]) -> &[u8] {
    let begin = name.iter().position(|&byte| byte != b'/');
    begin.map_or(&[], |at| &name[at..])
}

/// Which failures of an open are the name's fault.
pub(super) fn classify(errno: Errno) -> LookupError {
    LookupError::Refused(match errno {
        Errno::NOENT | Errno::NOTDIR => NO_SUCH_FILE,
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
}
