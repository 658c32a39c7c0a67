//! A directory, and how what lies beneath it is opened: so that nothing outside is reached, and, on
//! the loop, so that no disk is waited for. openat2(2) does both. RESOLVE_BENEATH lets no `..`, link or
//! absolute path lead out; RESOLVE_CACHED, since Linux 5.12, finds only what is in memory.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::dot_segments::has_dotted_segment;
use crate::file::version::Snapshot;
use crate::file::{FsClass, FsClasses, Lookup, LookupError, MayBlock, Mount, OpenFile};
use crate::limits::{LINKS_MAX, OPEN_ATTEMPTS_MAX};
use crate::trace::record::{self, Call, Handle};

/// Opens what is found: for reading, never as a controlling terminal, and without waiting for a
/// FIFO's writer.
pub(super) const FILE_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// Opens a directory to look beneath.
pub(super) const DIRECTORY_FLAGS: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens whatever has a name, to see what it is.
const PATH_FLAGS: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// How the kernel resolves a whole name, relative links included.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

/// The same, on the directory's own file system alone.
const BENEATH_HERE: ResolveFlags = BENEATH.union(ResolveFlags::NO_XDEV);

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
        if all {
            Self::AllowAll
        } else {
            Self::Allow(Arc::default())
        }
    }
}

/// The directory that is served. Threads of the pool look beneath it, too.
#[derive(Debug)]
pub struct RootDir {
    directory: Handle,
    dotfiles: DotFiles,
    /// The class of the directory's own file system, as [`FsClasses::of_directory`] knows it.
    own_class: FsClass,
    /// The class of the files there, once one was opened.
    file_class: OnceLock<FsClass>,
    classes: FsClasses,
}

impl RootDir {
    /// Opens a directory.
    ///
    /// # Errors
    /// It can't be opened or searched, or is none. The kernel doesn't offer what is needed to look
    /// beneath it: [`io::ErrorKind::Unsupported`].
    pub fn open(path: &Path, dotfiles: impl Into<DotFiles>) -> io::Result<Self> {
        let directory = rustix::fs::open(path, DIRECTORY_FLAGS, Mode::empty())?;
        let probe =
            |resolve| rustix::fs::openat2(&directory, c".", PATH_FLAGS, Mode::empty(), resolve);
        // EAGAIN: it is not in memory, or it may not be searched, which only the long way tells.
        let probed = match probe(BENEATH_HERE | ResolveFlags::CACHED) {
            Err(Errno::AGAIN) => probe(BENEATH_HERE),
            probed => probed,
        };
        match probed {
            Ok(_) => {}
            // EINVAL: Linux 5.6 to 5.11. Some sandboxes answer EPERM for a call that they don't know.
            Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => {
                return Err(io::Error::new(io::ErrorKind::Unsupported, NO_OPENAT2));
            }
            Err(error) => return Err(error.into()),
        }
        let classes = FsClasses::default();
        Ok(Self {
            own_class: classes.of_directory(&directory),
            directory: directory.into(),
            dotfiles: dotfiles.into(),
            file_class: OnceLock::new(),
            classes,
        })
    }

    /// Takes all file systems beneath for one of this class.
    pub(super) fn assume(&mut self, class: FsClass) {
        self.classes = FsClasses::assumed(class);
        self.file_class = OnceLock::new();
        self.own_class = self.classes.of_directory(&self.directory);
    }

    /// Opens a regular file or a directory, if that waits for no more than `may_block` allows.
    ///
    /// # Errors
    /// See [`LookupError`]. What leads further is [`LookupError::WouldBlock`] where nothing may be
    /// waited for, and [`LookupError::OtherMount`] where a disk may.
    pub fn find(&self, path: &[u8], may_block: MayBlock) -> Result<Lookup, LookupError> {
        let resolve = self.resolve_flags(may_block)?;
        let file = open_beneath(&self.directory, path, FILE_FLAGS, resolve);
        self.lookup_of(
            file.map_err(|errno| self.error(errno, path, may_block))?,
            may_block,
        )
    }

    /// Whether nothing has this path, not even a link that leads nowhere, as far as that is known without
    /// waiting. A link's end may come to be where nobody watches.
    pub(super) fn is_absent(&self, path: &[u8]) -> bool {
        let flags = PATH_FLAGS | OFlags::NOFOLLOW;
        self.resolve_flags(MayBlock::Never).is_ok_and(|resolve| {
            open_beneath(&self.directory, path, flags, resolve).err() == Some(Errno::NOENT)
        })
    }

    /// What keeps openat2 from waiting longer.
    fn resolve_flags(&self, may_block: MayBlock) -> Result<ResolveFlags, LookupError> {
        match (may_block, self.own_class) {
            (MayBlock::Forever, _) => Ok(BENEATH),
            (MayBlock::Never, FsClass::Remote) => Err(LookupError::WouldBlock),
            (MayBlock::OnDisk, FsClass::Remote) => Err(LookupError::OtherMount(Mount::default())),
            // tmpfs doesn't remember which names there are not: RESOLVE_CACHED wouldn't say so.
            (MayBlock::OnDisk, _) | (MayBlock::Never, FsClass::InMemory) => Ok(BENEATH_HERE),
            (MayBlock::Never, _) => Ok(BENEATH_HERE | ResolveFlags::CACHED),
        }
    }

    /// What an errno of openat2 means for a look-up of this path.
    fn error(&self, errno: Errno, path: &[u8], may_block: MayBlock) -> LookupError {
        match may_block {
            MayBlock::Never if needs_blocking(errno) => LookupError::WouldBlock,
            MayBlock::OnDisk if needs_blocking(errno) => {
                LookupError::OtherMount(self.mount_on_the_way(path))
            }
            _ => classify(errno),
        }
    }

    /// What a handle that [`RootDir::find`] has opened is, if it is served.
    pub(super) fn lookup_of(
        &self,
        file: Handle,
        may_block: MayBlock,
    ) -> Result<Lookup, LookupError> {
        let state = Snapshot::of(&file).map_err(LookupError::Failed)?;
        match FileType::from_raw_mode(state.stat.st_mode) {
            FileType::RegularFile => {
                let class = || self.classes.of(&file, state.stat.st_dev);
                let class = match may_block {
                    MayBlock::Forever => class(),
                    MayBlock::Never | MayBlock::OnDisk => *self.file_class.get_or_init(class),
                };
                let file = OpenFile::new(OwnedFd::from(file).into(), state, class);
                Ok(Lookup::File(Arc::new(file)))
            }
            FileType::Directory => Ok(Lookup::Directory(file)),
            _ => Err(LookupError::Refused(NOT_REGULAR)),
        }
    }

    /// Finds the mount that a path leads to, component by component and link by link. The mount is known
    /// by the entry that it is mounted on; nothing of it is touched, since it may not answer. Errors on
    /// the way are for the look-up itself to find.
    fn mount_on_the_way(&self, path: &[u8]) -> Mount {
        let mut directory = None::<Handle>;
        let (mut ahead, mut at, mut links) = (Vec::from(path), 0, 0);
        while at < ahead.len() {
            let length = ahead[at..].iter().position(|&byte| byte == b'/');
            let component = &ahead[at..at + length.unwrap_or(ahead.len() - at)];
            at += component.len() + 1;
            if component.is_empty() {
                continue;
            }
            let base = directory
                .as_ref()
                .map_or(self.directory.as_fd(), Handle::as_fd);
            let flags = PATH_FLAGS | OFlags::NOFOLLOW;
            // `..` may lead out of the root here, which does no harm: nothing of it is served.
            let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
            let found = match open_beneath(base, component, flags, resolve) {
                Ok(found) => found,
                Err(Errno::XDEV) => return mount_on(base, component),
                Err(_) => break,
            };
            match fstat(&found).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
                Ok(FileType::Directory) => directory = Some(found),
                Ok(FileType::Symlink) if links < LINKS_MAX => {
                    links += 1;
                    let target = record::call(Call::ReadLink, || {
                        rustix::fs::readlinkat(&found, c"", Vec::new())
                    });
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

    /// The directory itself.
    pub(super) fn directory(&self) -> &Handle {
        &self.directory
    }

    /// Whether anything beneath may wait for another machine or process.
    pub(super) fn is_remote(&self) -> bool {
        self.own_class == FsClass::Remote
    }

    /// Whether a directory's file system may wait for another machine or process.
    pub(super) fn is_remote_directory(&self, directory: impl AsFd) -> bool {
        self.classes.of_directory(directory) == FsClass::Remote
    }

    /// Opens one component of a path in a directory on the way, without following a link or leaving
    /// the file system. May wait for a disk.
    pub(super) fn open_component(
        &self,
        directory: impl AsFd,
        component: &[u8],
        flags: OFlags,
    ) -> Result<Handle, Errno> {
        open_beneath(directory, component, flags | OFlags::NOFOLLOW, BENEATH_HERE)
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

    /// What an entry of an open directory is, and what it leads to, if the root follows it.
    /// `folder` is the directory's own name, beneath this. `None`: it is nothing that is served, or gone.
    ///
    /// # Errors
    /// What leads further than `may_block` is as in [`RootDir::find`].
    pub fn look_at(
        &self,
        (directory, folder): (BorrowedFd<'_>, &[u8]),
        entry: &CStr,
        may_block: MayBlock,
    ) -> Result<Option<Seen>, LookupError> {
        let name = || [folder, b"/", entry.to_bytes()].concat();
        let resolve = self.resolve_flags(may_block)?;
        let look = |directory, path: &[u8], flags| {
            let found = open_beneath(directory, path, flags, resolve)?;
            let stat = fstat(&found)?;
            Ok((found, stat))
        };
        let found = look(directory, entry.to_bytes(), PATH_FLAGS | OFlags::NOFOLLOW);
        let found = match found {
            Ok((link, stat)) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                let name = name();
                let Ok(path) = self.validate(&name) else {
                    return Ok(None);
                };
                let leads_to = look(self.directory.as_fd(), path, PATH_FLAGS);
                leads_to.map(|(_, leads_to)| Seen {
                    leads_to,
                    link: Some((link, stat)),
                })
            }
            found => found.map(|(_, leads_to)| Seen {
                leads_to,
                link: None,
            }),
        };
        match found.map_err(|errno| self.error(errno, path_of(&name()), may_block)) {
            Ok(seen) => Ok(Some(seen)),
            Err(error @ (LookupError::WouldBlock | LookupError::OtherMount(_))) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// The rules that concern the name alone, from which dot segments were removed. Leading slashes
    /// are ignored. What lies beneath [`WELL_KNOWN`] may be looked up.
    pub(super) fn validate<'n>(&self, name: &'n [u8]) -> Result<&'n [u8], &'static str> {
        let path = path_of(name);
        if path.is_empty() {
            return Err(EMPTY_NAME);
        }
        if path.contains(&0) {
            return Err("NUL in the name");
        }
        if !has_dotted_segment(path) {
            return Ok(path);
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
}

/// What an entry of a directory is.
#[derive(Debug)]
pub struct Seen {
    /// What is found under its name, links followed.
    pub leads_to: Stat,
    /// The entry itself, if it is a symbolic link.
    pub link: Option<(Handle, Stat)>,
}

fn fstat(file: impl AsFd) -> rustix::io::Result<Stat> {
    record::call(Call::Stat, || rustix::fs::fstat(file))
}

/// What is mounted on an entry of a directory.
fn mount_on(directory: impl AsFd, entry: &[u8]) -> Mount {
    fstat(directory).map_or(Mount::default(), |stat| {
        Mount::at(stat.st_dev, stat.st_ino, entry)
    })
}

/// Asks openat2, several times if it isn't sure: the tree was changed meanwhile. What isn't in memory
/// looks the same, and so is asked for once.
fn open_beneath(
    directory: impl AsFd,
    path: impl Arg + Copy,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<Handle, Errno> {
    let is_cached = resolve.contains(ResolveFlags::CACHED);
    let mut attempts = if is_cached { 0 } else { OPEN_ATTEMPTS_MAX };
    loop {
        match record::call(Call::Open, || {
            rustix::fs::openat2(&directory, path, flags, Mode::empty(), resolve)
        }) {
            Err(Errno::AGAIN | Errno::INTR) if attempts > 0 => attempts -= 1,
            result => return result.map(Handle::from),
        }
    }
}

/// Whether openat2 has come to where it was told to stop: another file system or the way out of the
/// root, what isn't in memory, what it isn't sure of.
fn needs_blocking(errno: Errno) -> bool {
    matches!(errno, Errno::AGAIN | Errno::INTR | Errno::XDEV)
}

/// What is missing where a root can't be served.
const NO_OPENAT2: &str = "openat2(2) with RESOLVE_CACHED is not offered by this kernel, or a \
    sandbox's seccomp filter forbids it: use Linux 5.12 or later, and allow openat2 in the sandbox";

/// Why what is found under a name is refused; it may be a directory.
pub(crate) const NOT_REGULAR: &str = "not a regular file";

/// Why a name is refused under which nothing is.
pub(crate) const NO_SUCH_FILE: &str = "no such file";

/// Why a name is refused that would show what is hidden.
pub(crate) const HIDDEN: &str = "a component begins with a dot";

/// The directory at the top that HTTP has a meaning for (RFC 8615). It is not hidden there.
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
