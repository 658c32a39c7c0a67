//! From a name to an open regular file beneath the root. A name is bytes from a stranger; the
//! kernel, not string handling, keeps it inside (openat2 with RESOLVE_BENEATH).
//!
//! The error type is its own: an `io::Error` of kind WouldBlock from a file must never reach the
//! socket's logic, which would wait for an edge that never comes.

#[allow(
    clippy::cast_possible_truncation,
    reason = "lengths of pieces, and of what is in memory"
)]
pub mod archive;
pub mod cache;
mod containment;
mod folder;
pub mod listing;
mod open_files;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::escape::Escaped;
use crate::file::{
    DiskTask, FsClass, List, ListError, Listed, Lookup, LookupError, MayBlock, Mount, OpenFile,
    Semaphore, TaskResult, ThreadPool,
};
use crate::http::coding::Coding;
use crate::http::listing::ListingStyle;
use crate::trace::record::{self, Call};
use cache::{Cache, CacheLimits};
use containment::{RootDir, WELL_KNOWN, classify, is_well_known, path_of};
use open_files::OpenFiles;

pub use containment::DotFiles;
pub(crate) use containment::{EMPTY_NAME, HIDDEN, NO_SUCH_FILE, NOT_REGULAR};

/// The directory that is served.
#[derive(Debug)]
pub struct Root {
    directory: Arc<RootDir>,
    path: PathBuf,
    /// The time, as the loop has read it last.
    now: Instant,
    /// The cache has taken in what has changed since bytes of a request were read last, in this turn.
    is_caught_up: bool,
    /// That will do for the request that things are looked up for.
    needs_no_more: bool,
    /// How long the loop itself may wait.
    may_block: MayBlock,
    open_files: OpenFiles,
    cache: Option<Cache>,
    /// Where a thread leaves the directory that it has opened anew.
    reopened: Arc<Mutex<Reopened>>,
    /// How often the root was to be opened anew.
    reopens: u64,
    /// The threads that open it anew, and close the old directory.
    reopeners: Option<ThreadPool>,
}

/// What threads that opened the root anew have found: the result of the latest request, until the loop
/// takes it.
#[derive(Debug, Default)]
struct Reopened {
    number: u64,
    found: Option<io::Result<RootDir>>,
}

impl Reopened {
    /// Takes a result unless that of a later request has come. Returns the one that isn't needed: its
    /// close(2) may wait, so it must be dropped without the lock.
    fn offer(&mut self, number: u64, found: io::Result<RootDir>) -> Option<io::Result<RootDir>> {
        if number <= self.number {
            return Some(found);
        }
        self.number = number;
        self.found.replace(found)
    }
}

impl Root {
    /// Opens a directory. `dotfiles` says which names that begin with a dot are served.
    ///
    /// # Errors
    /// It can't be opened or searched, or is none. The kernel doesn't offer what is needed to look
    /// beneath it: [`io::ErrorKind::Unsupported`].
    pub fn open(path: &Path, dotfiles: impl Into<DotFiles>) -> io::Result<Self> {
        Ok(Self {
            directory: Arc::new(RootDir::open(path, dotfiles)?),
            path: path.to_owned(),
            now: Instant::now(),
            is_caught_up: false,
            needs_no_more: false,
            may_block: MayBlock::Forever,
            open_files: OpenFiles::default(),
            cache: None,
            reopened: Arc::default(),
            reopens: 0,
            reopeners: None,
        })
    }

    /// What comes next is looked up for a request, in the turn of this time. `is_new`: bytes of it were read
    /// since the last look-up, so that the cache must take in what has changed before they came. Of requests
    /// that came together, one has it do so.
    pub fn begin(&mut self, now: Instant, is_new: bool) {
        self.is_caught_up &= !is_new && now == self.now;
        self.needs_no_more = self.is_caught_up;
        self.now = now;
    }

    /// Closes files that the cache holds open, if nobody has asked for any for a while. Returns when this
    /// is due again.
    pub fn release_idle(&mut self, now: Instant) -> Option<Instant> {
        self.cache.as_mut()?.release_idle(now)
    }

    /// Has a thread open the directory that has the root's path now, and call `done`. The path may lead to
    /// a file system that doesn't answer, and lead elsewhere when this is called again: so a few threads
    /// may wait at the same time, and the latest request's result counts.
    pub fn reopen(&mut self, pool: &ThreadPool, done: impl FnOnce() + Send + 'static) {
        self.reopens += 1;
        self.reopeners = Some(pool.clone());
        let (number, path) = (self.reopens, self.path.clone());
        let (dotfiles, reopened) = (
            self.directory.dotfiles().clone(),
            Arc::clone(&self.reopened),
        );
        pool.replace_waiting(move || {
            let found = RootDir::open(&path, dotfiles);
            let mut reopened = reopened.lock().unwrap_or_else(PoisonError::into_inner);
            let unneeded = reopened.offer(number, found);
            drop(reopened);
            done();
            drop(unneeded);
        });
    }

    /// Takes the directory that a thread has opened anew. If it couldn't be opened, the old one stays.
    pub fn reopened(&mut self) {
        let mut reopened = self.reopened.lock().unwrap_or_else(PoisonError::into_inner);
        let found = reopened.found.take();
        drop(reopened);
        let shown = Escaped(self.path.as_os_str().as_encoded_bytes());
        match found {
            None => {}
            Some(Ok(directory)) => {
                let old = std::mem::replace(&mut self.directory, Arc::new(directory));
                if let Some(pool) = &self.reopeners {
                    // close(2) may wait, too.
                    pool.run(Mount::default(), move || drop(old));
                }
                if let Some(cache) = &mut self.cache {
                    cache.clear();
                }
                log::info!("ROOT \"{shown}\" was opened anew");
            }
            Some(Err(error)) => {
                log::warn!("ROOT \"{shown}\" can't be opened anew, the old one stays: {error}");
            }
        }
    }

    /// Keeps files that are asked for again.
    ///
    /// # Errors
    /// As [`Cache::new`]; nothing is kept then.
    pub fn set_cache(&mut self, limits: CacheLimits) -> io::Result<()> {
        self.cache = Some(Cache::new(limits)?);
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn cache(&mut self) -> &mut Cache {
        self.cache.as_mut().expect("it has one")
    }

    /// Lets no more files be open at the same time. More of them are [`LookupError::NoDescriptor`].
    pub fn set_open_files_max(&mut self, most: u64) {
        self.open_files.descriptors = Semaphore::new(most);
    }

    /// Leaves what may wait for a disk to threads: it is [`LookupError::WouldBlock`] from now on.
    pub fn never_block(&mut self) {
        self.may_block = MayBlock::Never;
    }

    /// As [`Root::never_block`], and takes all file systems for one of a class, until the root is
    /// opened anew. So a test needs no network.
    pub fn assume(&mut self, class: FsClass) {
        self.never_block();
        if let Some(directory) = Arc::get_mut(&mut self.directory) {
            directory.assume(class);
        }
    }

    /// Opens the regular file that `name` names. `results` are those of the tasks that were done for
    /// it.
    ///
    /// # Errors
    /// See [`LookupError`].
    pub fn find_file(
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
    pub fn find_or_root(
        &mut self,
        name: &[u8],
        results: &[TaskResult],
    ) -> Result<Lookup, LookupError> {
        match self.find(name, results) {
            Err(LookupError::Refused(EMPTY_NAME)) => self.open_path(ROOT, results),
            found => found,
        }
    }

    /// Opens the regular file or the directory that `name` names. `results` are those of the tasks
    /// that were done for it.
    ///
    /// # Errors
    /// See [`LookupError`].
    pub fn find(&mut self, name: &[u8], results: &[TaskResult]) -> Result<Lookup, LookupError> {
        let path = self
            .directory
            .validate(name)
            .map_err(LookupError::Refused)?;
        if let Some(cache) = &mut self.cache {
            if !self.needs_no_more {
                cache.catch_up(self.now);
                self.is_caught_up = true;
            }
            if let Some(file) = cache.get(path, self.now) {
                return Ok(Lookup::File(file));
            }
        }
        self.find_uncached(path, results)
    }

    /// The file that a name's file is in a coding, if it lies beside it and is not older. The file was
    /// found for the same request, so that the cache knows of all changes before it.
    ///
    /// # Errors
    /// See [`LookupError`]; none is [`LookupError::Refused`].
    pub fn find_sibling(
        &mut self,
        name: &[u8],
        file: &OpenFile,
        coding: Coding,
        results: &[TaskResult],
    ) -> Result<Option<Arc<OpenFile>>, LookupError> {
        let path = path_of(name);
        let sibling = [path, coding.suffix()].concat();
        let mut found = None;
        if let Some(cache) = &mut self.cache {
            if cache.lacks_sibling(path, coding, self.now) {
                return Ok(None);
            }
            found = cache.get(&sibling, self.now);
        }
        let found = match found {
            Some(file) => Ok(Lookup::File(file)),
            None => self.find_uncached(&sibling, results),
        };
        match found {
            Ok(Lookup::File(sibling)) => {
                Ok(Some(sibling).filter(|sibling| sibling.is_as_new_as(file)))
            }
            Err(LookupError::Refused(why)) => {
                let is_new = result_for(&sibling, results).is_none();
                if let Some(cache) = &mut self.cache
                    && (is_new && why == NO_SUCH_FILE)
                {
                    let directory = &self.directory;
                    cache.note_no_sibling(path, coding, || directory.is_absent(&sibling));
                }
                Ok(None)
            }
            Ok(Lookup::Directory(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The list of a folder, if the cache has it and nothing that it shows has changed.
    fn kept_list(&mut self, folder: &[u8], style: &ListingStyle) -> Option<Arc<List>> {
        let now = Instant::now();
        self.cache.as_mut()?.list(folder_path(folder), style, now)
    }

    /// Tells the cache what a thread has made, or that there was no memory for it.
    fn note_listed(&mut self, folder: &[u8], style: ListingStyle, listed: &Listed) {
        let Some(cache) = &mut self.cache else { return };
        match listed {
            Ok(fresh) => {
                let (path, now) = (folder_path(folder), Instant::now());
                cache.note_listed(&self.directory, path, style, fresh, now);
            }
            Err(ListError::NoMemory) => cache.forget_lists(),
            Err(ListError::Failed(_) | ListError::TooMany) => {}
        }
    }

    /// Looks a path up that the cache doesn't have, and tells it.
    fn find_uncached(
        &mut self,
        path: &[u8],
        results: &[TaskResult],
    ) -> Result<Lookup, LookupError> {
        let found = match self.open_path(path, results) {
            Err(LookupError::NoDescriptor)
                if self.cache.as_mut().is_some_and(Cache::close_files) =>
            {
                self.open_path(path, results)
            }
            found => found,
        }?;
        if let (Lookup::File(file), Some(cache)) = (&found, &mut self.cache) {
            let is_new = result_for(path, results).is_none();
            if let Some(cached) = cache.note_found(&self.directory, path, file, is_new, self.now) {
                return Ok(Lookup::File(cached));
            }
        }
        Ok(found)
    }

    fn open_path(&mut self, path: &[u8], results: &[TaskResult]) -> Result<Lookup, LookupError> {
        if let Some(found) = result_for(path, results) {
            return match found {
                Ok(Lookup::File(file)) => self.open_files.share(Arc::clone(file)).map(Lookup::File),
                Ok(Lookup::Directory(directory)) => {
                    let again = record::call(Call::Duplicate, || {
                        rustix::io::fcntl_dupfd_cloexec(directory, 0)
                    });
                    again
                        .map(|again| Lookup::Directory(again.into()))
                        .map_err(classify)
                }
                Err(error) => Err(*error),
            };
        }
        match self.directory.find(path, self.may_block)? {
            Lookup::File(file) => self.open_files.share(file).map(Lookup::File),
            directory @ Lookup::Directory(_) => Ok(directory),
        }
    }

    /// The task for a name whose look-up was [`LookupError::WouldBlock`].
    #[must_use]
    pub fn open_task(&self, name: &[u8]) -> DiskTask {
        let path: Box<[u8]> = path_or_root(name).into();
        let directory = Arc::clone(&self.directory);
        DiskTask::Open {
            name: path.clone(),
            open: Box::new(move |may_block| directory.find(&path, may_block)),
        }
    }

    /// Whether a name is hidden from whom it has no meaning for (see [`WELL_KNOWN`]). It can be looked up.
    pub(super) fn is_hidden(&self, name: &[u8]) -> bool {
        is_well_known(name) && !self.directory.shows(WELL_KNOWN)
    }

    /// Where names are looked up: threads of the pool do that, too.
    #[must_use]
    fn directory(&self) -> &Arc<RootDir> {
        &self.directory
    }
}

/// The root itself, as a path beneath it.
const ROOT: &[u8] = b".";

/// The path of a name, which may be the root itself.
fn path_or_root(name: &[u8]) -> &[u8] {
    match path_of(name) {
        b"" => ROOT,
        path => path,
    }
}

/// The path of a folder, without the slash at its end. The root's is empty.
fn folder_path(name: &[u8]) -> &[u8] {
    let path = path_of(name);
    path.strip_suffix(b"/").unwrap_or(path)
}

/// What a task has found under a path.
fn result_for<'r>(
    path: &[u8],
    results: &'r [TaskResult],
) -> Option<&'r Result<Lookup, LookupError>> {
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

    use crate::limits::OPEN_FILES_SWEEP_MIN;

    fn content(file: &OpenFile) -> Vec<u8> {
        let mut bytes = vec![0; file.length() as usize];
        assert!(file.contents().is_none(), "nothing is kept in memory here");
        assert_eq!(file.read_blocking(&mut bytes, 0).unwrap(), bytes.len());
        bytes
    }

    #[test]
    fn files_beneath_are_found_and_leading_slashes_ignored() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("a/b")).unwrap();
        fs::write(directory.path().join("a/b/c"), b"deep").unwrap();
        fs::write(directory.path().join("top"), b"flat").unwrap();
        let mut root = Root::open(directory.path(), false).unwrap();
        for (name, expected) in [
            ("top", &b"flat"[..]),
            ("///top", b"flat"),
            ("a/b/c", b"deep"),
            ("/a//b/c", b"deep"),
        ] {
            assert_eq!(
                content(&root.find_file(name.as_bytes(), &[]).unwrap()),
                expected,
                "{name}"
            );
        }
    }

    #[test]
    fn folders_are_found_with_and_without_a_slash() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("a/b")).unwrap();
        fs::write(directory.path().join("file"), b"x").unwrap();
        let mut root = Root::open(directory.path(), false).unwrap();
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

    #[test]
    fn what_is_no_name_of_a_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("folder")).unwrap();
        fs::write(at(".hidden"), b"secret").unwrap();
        symlink(outside.path(), at("absolute")).unwrap();
        symlink("../outside", at("climbing")).unwrap();
        symlink("loop", at("loop")).unwrap();
        rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        let mut root = Root::open(directory.path(), false).unwrap();
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
            let result = root.find_file(name.as_bytes(), &[]);
            assert!(
                matches!(result, Err(LookupError::Refused(_))),
                "{name}: {result:?}"
            );
        }
        let long = vec![b'x'; 256];
        assert!(matches!(
            root.find_file(&long, &[]),
            Err(LookupError::Refused(_))
        ));
    }

    #[test]
    fn hidden_names_are_served_when_asked_for_but_never_the_parent() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(".hidden"), b"secret").unwrap();
        let mut root = Root::open(directory.path(), true).unwrap();
        assert_eq!(
            content(&root.find_file(b".hidden", &[]).unwrap()),
            b"secret"
        );
        assert_eq!(
            content(&root.find_file(b"./.hidden", &[]).unwrap()),
            b"secret"
        );
        assert!(matches!(
            root.find_file(b"../x", &[]),
            Err(LookupError::Refused(_))
        ));
    }

    #[test]
    fn a_relative_link_inside_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("file"), b"linked").unwrap();
        symlink("file", directory.path().join("link")).unwrap();
        let mut root = Root::open(directory.path(), false).unwrap();
        assert_eq!(content(&root.find_file(b"link", &[]).unwrap()), b"linked");
    }

    #[test]
    fn a_root_that_moves_is_still_the_root() {
        let directory = tempfile::tempdir().unwrap();
        let (old, new) = (directory.path().join("old"), directory.path().join("new"));
        fs::create_dir(&old).unwrap();
        fs::write(old.join("file"), b"kept").unwrap();
        let mut root = Root::open(&old, false).unwrap();
        fs::rename(&old, &new).unwrap();
        assert_eq!(content(&root.find_file(b"file", &[]).unwrap()), b"kept");
    }

    #[test]
    fn a_root_opened_anew_is_what_its_path_leads_to_or_the_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("root");
        for name in ["one", "two"] {
            fs::create_dir(directory.path().join(name)).unwrap();
            fs::write(directory.path().join(name).join("file"), name).unwrap();
        }
        symlink("one", &link).unwrap();
        let mut root = Root::open(&link, false).unwrap();
        let (pool, told) = (ThreadPool::new(1), mpsc::channel());
        let reopen = |root: &mut Root| {
            let tell = told.0.clone();
            root.reopen(&pool, move || tell.send(()).unwrap());
            told.1.recv().unwrap();
            root.reopened();
        };
        let one = root.find_file(b"file", &[]).unwrap();
        fs::remove_file(&link).unwrap();
        reopen(&mut root);
        assert_eq!(content(&root.find_file(b"file", &[]).unwrap()), b"one");
        symlink("two", &link).unwrap();
        reopen(&mut root);
        assert_eq!(content(&root.find_file(b"file", &[]).unwrap()), b"two");
        assert_eq!(content(&one), b"one");
    }

    #[test]
    fn who_opened_a_root_too_late_is_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("file"), b"kept").unwrap();
        let mut root = Root::open(directory.path(), false).unwrap();
        root.reopened.lock().unwrap().number = 2;
        let late = tempfile::tempdir().unwrap();
        let late = RootDir::open(late.path(), false);
        root.reopened.lock().unwrap().offer(1, late);
        root.reopened();
        assert_eq!(content(&root.find_file(b"file", &[]).unwrap()), b"kept");
    }

    #[test]
    fn one_version_of_a_file_has_one_descriptor() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, b"one").unwrap();
        let mut root = Root::open(directory.path(), false).unwrap();
        let first = root.find_file(b"file", &[]).unwrap();
        let again = root.find_file(b"file", &[]).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        fs::write(&path, b"two!").unwrap();
        let changed = root.find_file(b"file", &[]).unwrap();
        assert!(!Arc::ptr_eq(&first, &changed));
        assert_eq!(content(&changed), b"two!");
    }

    #[test]
    fn the_table_of_open_files_is_swept() {
        let directory = tempfile::tempdir().unwrap();
        let mut root = Root::open(directory.path(), false).unwrap();
        for number in 0..10 * OPEN_FILES_SWEEP_MIN {
            let name = number.to_string();
            fs::write(directory.path().join(&name), name.as_bytes()).unwrap();
            root.find_file(name.as_bytes(), &[]).unwrap();
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
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, b"x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        // The superuser may read it all the same.
        let result = Root::open(directory.path(), false)
            .unwrap()
            .find_file(b"file", &[]);
        assert!(matches!(
            result,
            Ok(_) | Err(LookupError::Refused("permission denied"))
        ));
    }
}
