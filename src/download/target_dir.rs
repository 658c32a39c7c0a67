//! Where files are written: a folder that is found by its path, or, for a mirror, one that was opened
//! beneath the mirror's own, so that no link in it leads a download out. openat2(2) with RESOLVE_BENEATH
//! sees to that.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// Opens a folder to look beneath.
const FOLDER_FLAGS: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The folder that holds a file. Paths are told whole; of a mirror, only their last component is looked
/// up, in a folder that is open.
#[derive(Clone, Debug)]
pub(super) enum ParentDir {
    /// As the file's path has it.
    ByPath,
    Open(Arc<OwnedFd>),
}

impl ParentDir {
    fn locate<'a>(&'a self, path: &'a Path) -> (BorrowedFd<'a>, &'a Path) {
        match self {
            Self::ByPath => (CWD, path),
            Self::Open(folder) => (folder.as_fd(), path.file_name().map_or(path, Path::new)),
        }
    }

    /// Opens a file in it.
    pub(super) fn open(&self, path: &Path, flags: OFlags, mode: u32) -> io::Result<File> {
        let (folder, name) = self.locate(path);
        let mode = Mode::from_raw_mode(mode);
        let file = rustix::fs::openat(folder, name, flags | OFlags::CLOEXEC, mode)?;
        Ok(file.into())
    }

    /// What has this name; a link is not followed. `None` if nothing has.
    pub(super) fn stat(&self, path: &Path) -> io::Result<Option<Stat>> {
        let (folder, name) = self.locate(path);
        match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Removes a file.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        let (folder, name) = self.locate(path);
        Ok(rustix::fs::unlinkat(folder, name, AtFlags::empty())?)
    }

    /// Gives a file another name in it, in one step.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let ((folder, from), (_, to)) = (self.locate(from), self.locate(to));
        Ok(rustix::fs::renameat(folder, from, folder, to)?)
    }

    /// Waits until it is on disk which files it has, one of which has this path.
    pub(super) fn sync(&self, path: &Path) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let parent = path.parent().filter(|path| *path != Path::new(""));
        let folder = match self {
            Self::ByPath => self.open(parent.unwrap_or(Path::new(".")), flags, 0)?,
            Self::Open(_) => self.open(Path::new("."), flags, 0)?,
        };
        folder.sync_all()
    }
}

/// The folder that a mirror is written to. Nothing that lies elsewhere is reached through it.
#[derive(Debug)]
pub(super) struct TargetDir {
    path: PathBuf,
    folder: OwnedFd,
}

impl TargetDir {
    /// Makes it if need be, with the folders above.
    ///
    /// # Errors
    /// It can't be made or opened, or the kernel has no openat2.
    pub(super) fn make(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        let folder = rustix::fs::open(path, FOLDER_FLAGS, Mode::empty())?;
        let path = path.to_owned();
        Ok(Self { path, folder })
    }

    /// Where something beneath lies, as a person is told.
    pub(super) fn path_of(&self, relative: &Path) -> PathBuf {
        self.path.join(relative)
    }

    /// Opens a folder beneath it, or itself by an empty path.
    ///
    /// # Errors
    /// There is none, or a link on the way leads out.
    pub(super) fn open(&self, relative: &Path) -> io::Result<OwnedFd> {
        let path = Path::new(".").join(relative);
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let opened = rustix::fs::openat2(&self.folder, path, FOLDER_FLAGS, Mode::empty(), resolve);
        opened.map_err(|errno| match errno {
            Errno::XDEV => io::Error::other("a link leads out of the folder"),
            errno => errno.into(),
        })
    }

    /// Makes a folder beneath it, if there is none. Those above it are there.
    ///
    /// # Errors
    /// Something else has its name, or it can't be made.
    pub(super) fn make_folder(&self, relative: &Path) -> io::Result<()> {
        if let (Some(parent), Some(name)) = (relative.parent(), relative.file_name()) {
            match rustix::fs::mkdirat(self.open(parent)?, name, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        self.open(relative).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn folders_are_made_and_no_link_leads_out() {
        let (above, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = above.path().join("a/b");
        let target = TargetDir::make(&path).unwrap();
        let makes = |relative: &str| target.make_folder(Path::new(relative));
        for _ in 0..2 {
            for relative in ["", "c", "c/d"] {
                makes(relative).unwrap();
            }
        }
        assert!(path.join("c/d").is_dir());
        symlink("c", path.join("inside")).unwrap();
        makes("inside").unwrap();
        makes("inside/e").unwrap();
        assert!(path.join("c/e").is_dir());
        for (name, to) in [
            ("absolute", outside.path()),
            ("above", Path::new("..")),
            ("by_way_of", Path::new("../../a/b/c")),
            ("magic", Path::new("/proc/self/cwd")),
        ] {
            symlink(to, path.join(name)).unwrap();
            let why = makes(name).unwrap_err().to_string();
            assert_eq!(why, "a link leads out of the folder", "{name}");
            assert!(makes(&format!("{name}/x")).is_err(), "{name}");
        }
        fs::write(path.join("file"), "").unwrap();
        assert!(makes("file").is_err() && makes("none/x").is_err());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
