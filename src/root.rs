//! From a name to an open regular file beneath the root. A name is bytes from a stranger; the
//! kernel, not string handling, keeps it inside (openat2 with RESOLVE_BENEATH).
//!
//! The error type is its own: an `io::Error` of kind WouldBlock from a file must never reach the
//! socket's logic, which would wait for an edge that never comes.

pub mod cache;
mod containment;
pub mod listing;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use crate::escape::Escaped;
use crate::file::thread_pool::ThreadPool;
use crate::file::version::FileVersion;
use crate::file::{
    Budget, DiskTask, FsClass, Lookup, LookupError, MayBlock, Mount, OpenFile, TaskResult,
};
use crate::limits::OPEN_FILES_SWEEP_MIN;
use crate::protocol::Told;
use cache::{Bounds, Cache};
use containment::{RootDir, WELL_KNOWN, is_well_known, path_of};

pub use containment::{Containment, DotFiles};

use containment::classify;
pub(crate) use containment::{EMPTY_NAME, HIDDEN, NO_SUCH_FILE, NOT_REGULAR};

/// The folder that is served.
#[derive(Debug)]
pub struct Root {
    beneath: Arc<RootDir>,
    /// Where it was opened, if it was opened by its path.
    path: Option<PathBuf>,
    /// What may wait for a disk is left to helpers.
    has_helpers: bool,
    open_files: OpenFiles,
    cache: Option<Cache>,
    reopening: Reopening,
}

impl Root {
    /// Opens a folder, and finds out once whether the kernel has openat2. `dotfiles` says which
    /// names that begin with a dot are served.
    ///
    /// # Errors
    /// The folder can't be opened or searched, or is none.
    pub fn open(path: &Path, dotfiles: impl Into<DotFiles>) -> io::Result<Self> {
        let mut root = Self::on(RootDir::open(path, dotfiles)?);
        root.path = Some(path.to_owned());
        Ok(root)
    }

    /// Gives back what the cache needn't hold open. Returns when it is to be asked again.
    pub fn rest(&mut self, now: Instant) -> Option<Instant> {
        self.cache.as_mut()?.rest(now)
    }

    /// Has a helper open the folder that has its path now. The path may lead to what doesn't answer,
    /// and the next one may not: a few helpers may wait at the same time, and who began last is
    /// believed.
    pub fn reopen(&mut self, helpers: &ThreadPool, told: Told) {
        let Some(path) = self.path.clone() else {
            return;
        };
        let reopening = &mut self.reopening;
        reopening.asked += 1;
        let (number, dotfiles) = (reopening.asked, self.beneath.dotfiles().clone());
        let opened = Arc::clone(&reopening.opened);
        reopening.helpers = Some(helpers.clone());
        helpers.replace_waiting(move || {
            let beneath = RootDir::open(&path, dotfiles);
            let mut opened = opened.lock().unwrap_or_else(PoisonError::into_inner);
            opened.push((number, beneath));
            drop(opened);
            told();
        });
    }

    /// Takes the folder that a helper has opened. If there is none, the old one stays.
    pub fn reopened(&mut self) {
        let opened = &self.reopening.opened;
        let opened = std::mem::take(&mut *opened.lock().unwrap_or_else(PoisonError::into_inner));
        for (number, beneath) in opened {
            if number > self.reopening.taken {
                self.reopening.taken = number;
                self.replace(beneath);
            }
        }
    }

    fn replace(&mut self, beneath: io::Result<RootDir>) {
        let path = self.path.as_deref().unwrap_or(Path::new(""));
        let shown = Escaped(path.as_os_str().as_encoded_bytes());
        match beneath {
            Ok(beneath) => {
                let old = std::mem::replace(&mut self.beneath, Arc::new(beneath));
                if let Some(helpers) = &self.reopening.helpers {
                    // Its close may wait, too.
                    helpers.run(Mount::default(), move || drop(old));
                }
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
    pub fn with_containment(
        folder: OwnedFd,
        dotfiles: impl Into<DotFiles>,
        containment: Containment,
    ) -> Self {
        Self::on(RootDir::new(folder, containment, dotfiles.into()))
    }

    fn on(beneath: RootDir) -> Self {
        Self {
            beneath: Arc::new(beneath),
            path: None,
            has_helpers: false,
            open_files: OpenFiles::default(),
            cache: None,
            reopening: Reopening::default(),
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

    #[cfg(test)]
    pub(super) fn cache(&mut self) -> &mut Cache {
        self.cache.as_mut().expect("it has one")
    }

    /// Lets no more files be open at the same time. More of them are [`LookupError::NoDescriptor`].
    pub fn set_open_files_max(&mut self, most: u64) {
        self.open_files.descriptors = Budget::new(most);
    }

    /// Leaves to helpers what may wait for a disk: it is [`LookupError::WouldBlock`] from now on.
    pub fn use_helpers(&mut self) {
        self.has_helpers = true;
    }

    /// As [`Root::use_helpers`], and takes all file systems for one of a kind, until the root is
    /// opened anew. So a test needs no network.
    pub fn assume(&mut self, kind: FsClass) {
        self.use_helpers();
        if let Some(beneath) = Arc::get_mut(&mut self.beneath) {
            beneath.assume(kind);
        }
    }

    /// Opens the regular file that `name` names. `results` are those of the tasks that were done for it.
    ///
    /// # Errors
    /// See [`LookupError`].
    pub fn lookup(
        &mut self,
        name: &[u8],
        results: &[TaskResult],
    ) -> Result<Arc<OpenFile>, LookupError> {
        match self.find(name, results)? {
            Lookup::File(file) => Ok(file),
            Lookup::Directory(_) => Err(LookupError::Refused(NOT_REGULAR)),
        }
    }

    /// As [`Root::find`], but a name of slashes alone is the root itself.
    ///
    /// # Errors
    /// See [`LookupError`].
    pub fn find_or_top(
        &mut self,
        name: &[u8],
        results: &[TaskResult],
    ) -> Result<Lookup, LookupError> {
        match path_of(name) {
            b"" => self.open_path(TOP, results),
            _ => self.find(name, results),
        }
    }

    /// Opens the regular file or the folder that `name` names. `results` are those of the tasks that were
    /// done for it.
    ///
    /// # Errors
    /// See [`LookupError`].
    pub fn find(&mut self, name: &[u8], results: &[TaskResult]) -> Result<Lookup, LookupError> {
        let path = self.beneath.checked(name).map_err(LookupError::Refused)?;
        let now = self.cache.is_some().then(Instant::now);
        if let (Some(cache), Some(now)) = (&mut self.cache, now)
            && let Some(file) = cache.get(path, now)
        {
            return Ok(Lookup::File(file));
        }
        let found = match self.open_path(path, results) {
            Err(LookupError::NoDescriptor)
                if self.cache.as_mut().is_some_and(Cache::close_files) =>
            {
                self.open_path(path, results)
            }
            found => found,
        }?;
        if let (Lookup::File(file), Some(cache), Some(now)) = (&found, &mut self.cache, now) {
            let is_new = known(path, results).is_none();
            if let Some(kept) = cache.found(&self.beneath, path, file, is_new, now) {
                return Ok(Lookup::File(kept));
            }
        }
        Ok(found)
    }

    fn open_path(&mut self, path: &[u8], results: &[TaskResult]) -> Result<Lookup, LookupError> {
        if let Some(found) = known(path, results) {
            return match found {
                Ok(Lookup::File(file)) => self.open_files.share(Arc::clone(file)).map(Lookup::File),
                Ok(Lookup::Directory(folder)) => {
                    let again = rustix::io::fcntl_dupfd_cloexec(folder, 0);
                    again.map(Lookup::Directory).map_err(classify)
                }
                Err(error) => Err(*error),
            };
        }
        match self.beneath.find_within(path, self.may_block())? {
            Lookup::File(file) => self.open_files.share(file).map(Lookup::File),
            directory @ Lookup::Directory(_) => Ok(directory),
        }
    }

    /// What a helper has to do for a name whose look-up was [`LookupError::WouldBlock`].
    #[must_use]
    pub fn errand(&self, name: &[u8]) -> DiskTask {
        let path: Box<[u8]> = path_or_top(name).into();
        let beneath = Arc::clone(&self.beneath);
        DiskTask::Open {
            name: path.clone(),
            open: Box::new(move |may_block| beneath.find_within(&path, may_block)),
        }
    }

    /// Whether this name is served by HTTP alone.
    pub(super) fn is_for_http(&self, name: &[u8]) -> bool {
        is_well_known(name) && !self.beneath.shows(WELL_KNOWN)
    }

    /// How long the loop itself may wait.
    fn may_block(&self) -> MayBlock {
        if self.has_helpers {
            MayBlock::Never
        } else {
            MayBlock::Forever
        }
    }

    /// Where it is looked: helpers do, too.
    #[must_use]
    pub(super) fn beneath(&self) -> &Arc<RootDir> {
        &self.beneath
    }
}

/// At which time of asking a root was opened anew, and what came of it.
type Opening = (u64, io::Result<RootDir>);

/// The root, while helpers open it anew.
#[derive(Debug, Default)]
struct Reopening {
    /// How often it was asked for, and the latest time of which the end is known.
    asked: u64,
    taken: u64,
    /// What was opened and not yet taken.
    opened: Arc<Mutex<Vec<Opening>>>,
    helpers: Option<ThreadPool>,
}

/// Files that connections hold open: one descriptor for one version of a file.
#[derive(Debug)]
struct OpenFiles {
    by_version: HashMap<FileVersion, Weak<OpenFile>>,
    sweep_at: usize,
    /// Those that they may have.
    descriptors: Budget,
}

impl Default for OpenFiles {
    fn default() -> Self {
        Self {
            by_version: HashMap::new(),
            sweep_at: OPEN_FILES_SWEEP_MIN,
            descriptors: Budget::new(u64::MAX),
        }
    }
}

impl OpenFiles {
    /// The handle that others already have on the same version, or this one, if it may keep its
    /// descriptor.
    fn share(&mut self, opened: Arc<OpenFile>) -> Result<Arc<OpenFile>, LookupError> {
        let version = opened.version();
        if let Some(shared) = self.by_version.get(&version).and_then(Weak::upgrade) {
            shared.note_seen_again(&opened);
            return Ok(shared);
        }
        if !opened.take_lease(&self.descriptors) {
            return Err(LookupError::NoDescriptor);
        }
        if self.by_version.len() >= self.sweep_at {
            self.by_version.retain(|_, file| file.strong_count() > 0);
            self.sweep_at = OPEN_FILES_SWEEP_MIN.max(2 * self.by_version.len());
        }
        self.by_version.insert(version, Arc::downgrade(&opened));
        Ok(opened)
    }
}

/// The root itself, as a path beneath it.
const TOP: &[u8] = b".";

/// The path of a name, which may be the root itself.
pub(super) fn path_or_top(name: &[u8]) -> &[u8] {
    match path_of(name) {
        b"" => TOP,
        path => path,
    }
}

/// What a helper has found under a path.
fn known<'r>(path: &[u8], results: &'r [TaskResult]) -> Option<&'r Result<Lookup, LookupError>> {
    results.iter().find_map(|result| match result {
        TaskResult::Opened { name, lookup } if **name == *path => Some(lookup),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::os::unix::net::UnixListener;
    use std::sync::mpsc;

    use rustix::fs::{CWD, FileType, Mode};

    use super::containment::FOLDER_FLAGS;

    /// A root in both ways of containment.
    fn both(path: &Path, hidden: bool) -> [Root; 2] {
        [Containment::Openat2, Containment::Walk].map(|containment| {
            let folder = rustix::fs::open(path, FOLDER_FLAGS, Mode::empty()).unwrap();
            Root::with_containment(folder, hidden, containment)
        })
    }

    fn content(file: &OpenFile) -> Vec<u8> {
        let mut bytes = vec![0; file.length() as usize];
        assert!(file.contents().is_none(), "nothing is kept in memory here");
        assert_eq!(file.read_blocking(&mut bytes, 0).unwrap(), bytes.len());
        bytes
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
                    content(&root.lookup(name.as_bytes(), &[]).unwrap()),
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
                let found = root.find(name.as_bytes(), &[]);
                assert!(
                    matches!(found, Ok(Lookup::Directory(_))),
                    "{name}: {found:?}"
                );
            }
            for name in ["file/", "a/b/c/", "file/x"] {
                let found = root.find(name.as_bytes(), &[]);
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
                let result = root.lookup(name.as_bytes(), &[]);
                assert!(
                    matches!(result, Err(LookupError::Refused(_))),
                    "{name}: {result:?}"
                );
            }
            let long = vec![b'x'; 256];
            assert!(matches!(
                root.lookup(&long, &[]),
                Err(LookupError::Refused(_))
            ));
        }
    }

    #[test]
    fn hidden_names_are_served_when_asked_for_but_never_the_parent() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".hidden"), b"secret").unwrap();
        for mut root in both(folder.path(), true) {
            assert_eq!(content(&root.lookup(b".hidden", &[]).unwrap()), b"secret");
            assert_eq!(content(&root.lookup(b"./.hidden", &[]).unwrap()), b"secret");
            assert!(matches!(
                root.lookup(b"../x", &[]),
                Err(LookupError::Refused(_))
            ));
        }
    }

    #[test]
    fn a_relative_link_inside_is_followed_by_openat2_only() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), b"linked").unwrap();
        symlink("file", folder.path().join("link")).unwrap();
        let [mut by_openat2, mut by_walking] = both(folder.path(), false);
        assert_eq!(
            content(&by_openat2.lookup(b"link", &[]).unwrap()),
            b"linked"
        );
        assert!(matches!(
            by_walking.lookup(b"link", &[]),
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
        assert_eq!(content(&root.lookup(b"file", &[]).unwrap()), b"kept");
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
        let (helpers, told) = (ThreadPool::new(1), mpsc::channel());
        let reopen = |root: &mut Root| {
            let tell = told.0.clone();
            root.reopen(&helpers, Box::new(move || tell.send(()).unwrap()));
            told.1.recv().unwrap();
            root.reopened();
        };
        let one = root.lookup(b"file", &[]).unwrap();
        fs::remove_file(&link).unwrap();
        reopen(&mut root);
        assert_eq!(content(&root.lookup(b"file", &[]).unwrap()), b"one");
        symlink("two", &link).unwrap();
        reopen(&mut root);
        assert_eq!(content(&root.lookup(b"file", &[]).unwrap()), b"two");
        assert_eq!(content(&one), b"one");
    }

    #[test]
    fn who_opened_a_root_too_late_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), b"kept").unwrap();
        let mut root = Root::open(folder.path(), false).unwrap();
        root.reopening.taken = 2;
        let late = tempfile::tempdir().unwrap();
        let late = RootDir::open(late.path(), false);
        root.reopening.opened.lock().unwrap().push((1, late));
        root.reopened();
        assert_eq!(content(&root.lookup(b"file", &[]).unwrap()), b"kept");
    }

    #[test]
    fn one_version_of_a_file_has_one_descriptor() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, b"one").unwrap();
        let mut root = Root::open(folder.path(), false).unwrap();
        let first = root.lookup(b"file", &[]).unwrap();
        let again = root.lookup(b"file", &[]).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        fs::write(&path, b"two!").unwrap();
        let changed = root.lookup(b"file", &[]).unwrap();
        assert!(!Arc::ptr_eq(&first, &changed));
        assert_eq!(content(&changed), b"two!");
    }

    #[test]
    fn the_table_of_open_files_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        let mut root = Root::open(folder.path(), false).unwrap();
        for number in 0..10 * OPEN_FILES_SWEEP_MIN {
            let name = number.to_string();
            fs::write(folder.path().join(&name), name.as_bytes()).unwrap();
            root.lookup(name.as_bytes(), &[]).unwrap();
        }
        assert!(root.open_files.by_version.len() <= OPEN_FILES_SWEEP_MIN);
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
        let result = Root::open(folder.path(), false)
            .unwrap()
            .lookup(b"file", &[]);
        assert!(matches!(
            result,
            Ok(_) | Err(LookupError::Refused("permission denied"))
        ));
    }
}
