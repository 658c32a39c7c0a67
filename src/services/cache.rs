//! Files that were asked for before, kept by name: small ones with their bytes, longer ones open.
//!
//! What is kept is invalidated by events, not by age: a request whose last byte arrived after a
//! change sees the change. Three rules hold that up:
//!
//! - Watch, then look. Every folder on the way and the file itself are watched (inotify(7)) before
//!   the file's state and bytes are read, each by its handle, and no link is followed. A hard link
//!   elsewhere shows only on the file itself.
//! - Every look-up first reads the inotify descriptor. The kernel queues an event before the call
//!   that made the change returns, so what was changed before the request was sent is in there.
//! - What events can't tell is not kept: files on other machines or in other processes, names with a
//!   symbolic link on the way. Writes through a mapping and new mounts make no event,
//!   so whatever was looked at more than a second ago is looked at anew.

use std::collections::{BTreeMap, HashMap};
use std::mem::MaybeUninit;
use std::ops::Bound::{Excluded, Unbounded};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;
use std::{ffi, io};

use lru::LruCache;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use super::beneath::{Beneath, Component};
use crate::disk::{Kind, Opened};
use crate::limits::{
    CACHE_FRESH, CACHE_NAMES_MAX, CACHED_CONTENTS_BYTES_MAX, INOTIFY_BUFFER_BYTES, NAME_BYTES_MAX,
};
use crate::service::OpenFile;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of files that are kept in memory.
    pub bytes_max: usize,
    /// Files that are kept open.
    pub open_max: usize,
}

/// The cache of one root.
#[derive(Debug)]
pub struct Cache {
    inotify: OwnedFd,
    bounds: Bounds,
    /// By name: components with single slashes between them.
    files: LruCache<Box<[u8]>, Kept>,
    bytes: usize,
    open: usize,
    /// Names that were asked for and are not kept.
    others: LruCache<Box<[u8]>, Other>,
    watches: Watches,
}

#[derive(Debug)]
struct Kept {
    file: Rc<OpenFile>,
    looked_at: Instant,
}

/// Why a name isn't kept. Most names are asked for once.
#[derive(Clone, Copy, Debug)]
enum Other {
    AskedOnce,
    /// It can't be kept; perhaps later.
    Unfit {
        found: Instant,
    },
}

/// What the cache knows of a name.
#[derive(Debug)]
pub enum Known {
    /// This is the file.
    File(Rc<OpenFile>),
    /// It is worth keeping: see [`Cache::load`].
    Wanted,
    /// Look it up.
    Unknown,
}

/// Events that may make another file of a name: in a folder, and of the folder itself.
const FOLDER_EVENTS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// Events that may make other bytes or another state of a file. What is asked for as a file may be a
/// folder on the way to others, of which it takes nothing.
const FILE_EVENTS: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::MASK_ADD);

impl Cache {
    /// Keeps nothing yet.
    ///
    /// # Errors
    /// There is no inotify instance: no descriptor, or the user's limit is reached.
    pub fn new(bounds: Bounds) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self {
            inotify,
            bounds,
            files: LruCache::unbounded(),
            bytes: 0,
            open: 0,
            others: LruCache::new(CACHE_NAMES_MAX),
            watches: Watches::default(),
        })
    }

    /// Looks a name up, after every change so far was taken in.
    pub fn get(&mut self, name: &[u8], now: Instant) -> Known {
        self.take_events();
        if let Some(kept) = self.files.get(name) {
            if now.saturating_duration_since(kept.looked_at) < CACHE_FRESH {
                return Known::File(Rc::clone(&kept.file));
            }
            self.drop_file(name);
            return Known::Wanted;
        }
        match self.others.get_mut(name) {
            Some(Other::AskedOnce) => Known::Wanted,
            Some(Other::Unfit { found }) if now.saturating_duration_since(*found) < CACHE_FRESH => {
                Known::Unknown
            }
            _ if !is_canonical(name) => Known::Unknown,
            _ => {
                self.others.put(name.into(), Other::AskedOnce);
                Known::Unknown
            }
        }
    }

    /// Opens a name beneath the root and keeps what it finds, if it can be kept. `share` may know
    /// an open file of the same version.
    pub fn load(
        &mut self,
        root: &Beneath,
        name: &[u8],
        now: Instant,
        share: impl FnOnce(Rc<OpenFile>) -> Rc<OpenFile>,
    ) -> Option<Rc<OpenFile>> {
        let Some(file) = self.open_watched(root, name) else {
            self.watches.release(name, &self.inotify);
            self.others.put(name.into(), Other::Unfit { found: now });
            return None;
        };
        self.others.pop(name);
        let mut file = Rc::new(file);
        match file.contents() {
            Some(contents) => self.bytes += contents.len(),
            None => {
                self.open += 1;
                file = share(file);
            }
        }
        let kept = Kept {
            file: Rc::clone(&file),
            looked_at: now,
        };
        self.files.put(name.into(), kept);
        self.shrink(self.bounds);
        Some(file)
    }

    /// Closes the files that are kept open, for others who need descriptors. Says whether there
    /// were any.
    pub fn close_files(&mut self) -> bool {
        let had_some = self.open > 0;
        self.shrink(Bounds {
            open_max: 0,
            ..self.bounds
        });
        had_some
    }

    /// Forgets everything: another folder is the root now.
    pub fn clear(&mut self) {
        self.forget(b"");
        self.others.clear();
    }

    fn shrink(&mut self, bounds: Bounds) {
        while self.bytes > bounds.bytes_max
            || self.open > bounds.open_max
            || self.files.len() > CACHE_NAMES_MAX.get()
        {
            let Some((name, kept)) = self.files.pop_lru() else {
                return;
            };
            self.discount(&kept);
            self.watches.release(&name, &self.inotify);
        }
    }

    fn discount(&mut self, kept: &Kept) {
        match kept.file.contents() {
            Some(contents) => self.bytes -= contents.len(),
            None => self.open -= 1,
        }
    }

    fn drop_file(&mut self, name: &[u8]) {
        if let Some(kept) = self.files.pop(name) {
            self.discount(&kept);
        }
    }

    /// Forgets a name and everything beneath it.
    fn forget(&mut self, path: &[u8]) {
        // Its own watch may be gone already.
        self.drop_file(path);
        for watched in self.watches.at_or_beneath(path) {
            self.drop_file(&watched);
            self.watches.release(&watched, &self.inotify);
        }
        // Then those of the folders on the way to it are still there.
        self.watches.release(path, &self.inotify);
    }

    // ---- events ----

    fn take_events(&mut self) {
        if self.files.is_empty() {
            // Nothing is watched for that could have changed.
            return;
        }
        let mut buffer = [MaybeUninit::uninit(); INOTIFY_BUFFER_BYTES];
        let mut stale = Vec::new();
        let mut lost = false;
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    lost |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
                    let name = event.file_name().map(ffi::CStr::to_bytes);
                    self.watches.named_by(event.wd(), name, &mut stale);
                    if event.events().contains(ReadFlags::IGNORED) {
                        self.watches.is_gone(event.wd());
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // Without events nothing that is kept can be trusted.
                Err(_) => {
                    lost = true;
                    break;
                }
            }
        }
        if lost {
            self.clear();
        }
        for path in stale {
            self.forget(&path);
        }
    }

    // ---- loading ----

    /// Watches the way to a file, and then opens and reads it.
    fn open_watched(&mut self, root: &Beneath, name: &[u8]) -> Option<OpenFile> {
        if !self.watch(b"", root.folder(), FOLDER_EVENTS) {
            return None;
        }
        let mut folder: Option<OwnedFd> = None;
        let mut begin = 0;
        while let Some(length) = name[begin..].iter().position(|&byte| byte == b'/') {
            let base = folder.as_ref().unwrap_or(root.folder());
            let component = &name[begin..begin + length];
            let next = root
                .open_component(base, component, Component::Folder)
                .ok()?;
            if !self.watch(&name[..begin + length], &next, FOLDER_EVENTS) {
                return None;
            }
            folder = Some(next);
            begin += length + 1;
        }
        let base = folder.as_ref().unwrap_or(root.folder());
        let file = root
            .open_component(base, &name[begin..], Component::File)
            .ok()?;
        if !self.watch(name, &file, FILE_EVENTS) {
            return None;
        }
        let Ok(Opened::File(file)) = root.opened(file) else {
            return None;
        };
        if file.disk().is_none_or(|disk| disk.kind() == Kind::Foreign) {
            return None;
        }
        let most = CACHED_CONTENTS_BYTES_MAX.min(self.bounds.bytes_max as u64);
        match file.length() <= most {
            true => file.into_contents(),
            false => Some(file).filter(|_| self.bounds.open_max > 0),
        }
    }

    /// Watches what a handle is open on.
    fn watch(&mut self, path: &[u8], handle: &impl AsFd, events: WatchFlags) -> bool {
        let at = format!("/proc/self/fd/{}", handle.as_fd().as_raw_fd());
        match inotify::add_watch(&self.inotify, at, events) {
            Ok(watch) => {
                self.watches.note(path, watch, &self.inotify);
                true
            }
            Err(error) => {
                log::debug!("a name can't be watched, so it isn't kept: {error}");
                false
            }
        }
    }
}

/// Whether a path is the only way to write it, and short enough to be remembered: strangers choose
/// those of no file.
fn is_canonical(name: &[u8]) -> bool {
    name.len() <= NAME_BYTES_MAX
        && !name
            .split(|&byte| byte == b'/')
            .any(|component| component.is_empty() || component == b".")
}

/// What is watched: folders and files, by path and by watch. One inode has one watch, whatever its
/// paths are.
#[derive(Debug, Default)]
struct Watches {
    /// In the order of their bytes, so that what is beneath a folder stands together.
    by_path: BTreeMap<Box<[u8]>, i32>,
    paths: HashMap<i32, Vec<Box<[u8]>>>,
}

impl Watches {
    /// A path is watched by this watch, and by no other.
    fn note(&mut self, path: &[u8], watch: i32, inotify: &OwnedFd) {
        match self.by_path.insert(path.into(), watch) {
            Some(before) if before == watch => return,
            Some(before) => self.unlink(path, before, inotify),
            None => {}
        }
        self.paths.entry(watch).or_default().push(path.into());
    }

    /// Adds the paths that an event means: entries of a folder, or the watched itself.
    fn named_by(&self, watch: i32, name: Option<&[u8]>, into: &mut Vec<Box<[u8]>>) {
        let paths = self.paths.get(&watch).into_iter().flatten();
        into.extend(paths.map(|path| match name {
            None => path.clone(),
            Some(name) if path.is_empty() => name.into(),
            Some(name) => [path, &b"/"[..], name].concat().into(),
        }));
    }

    /// The kernel has removed this watch: what it watched is no more.
    fn is_gone(&mut self, watch: i32) {
        for path in self.paths.remove(&watch).into_iter().flatten() {
            self.by_path.remove(&path);
        }
    }

    /// The paths that are watched: this one, and those beneath it.
    fn at_or_beneath(&self, path: &[u8]) -> Vec<Box<[u8]>> {
        let itself = self.by_path.get_key_value(path).into_iter();
        let beneath = self.beneath(path);
        itself
            .map(|(path, _)| path)
            .chain(beneath)
            .cloned()
            .collect()
    }

    fn beneath<'a>(&'a self, path: &[u8]) -> impl Iterator<Item = &'a Box<[u8]>> {
        let prefix: Vec<u8> = match path {
            b"" => Vec::new(),
            path => [path, b"/"].concat(),
        };
        self.by_path
            .range::<[u8], _>((Excluded(&prefix[..]), Unbounded))
            .map(|(path, _)| path)
            .take_while(move |path| path.starts_with(&prefix))
    }

    /// Watches a path no more, nor the folders on the way that are watched for nothing else.
    fn release(&mut self, path: &[u8], inotify: &OwnedFd) {
        let mut path = path;
        while self.beneath(path).next().is_none() {
            if let Some(watch) = self.by_path.remove(path) {
                self.unlink(path, watch, inotify);
            }
            match path.iter().rposition(|&byte| byte == b'/') {
                Some(slash) => path = &path[..slash],
                None if path.is_empty() => return,
                None => path = b"",
            }
        }
    }

    fn unlink(&mut self, path: &[u8], watch: i32, inotify: &OwnedFd) {
        let Some(paths) = self.paths.get_mut(&watch) else {
            return;
        };
        paths.retain(|other| **other != *path);
        if paths.is_empty() {
            self.paths.remove(&watch);
            // It may be gone already.
            let _ = inotify::remove_watch(inotify, watch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
    use std::path::Path;

    use crate::service::{Body, Piece};
    use crate::services::root::{LookupError, Root};

    const BOUNDS: Bounds = Bounds {
        bytes_max: 1024 * 1024,
        open_max: 16,
    };

    fn root(folder: &Path) -> Root {
        let mut root = Root::open(folder, false).unwrap();
        root.set_cache(BOUNDS).unwrap();
        root
    }

    fn beneath(path: &Path) -> Beneath {
        Beneath::open(path, false).unwrap()
    }

    /// What a look-up brings.
    fn served(root: &mut Root, name: &str) -> Option<Vec<u8>> {
        match root.lookup(name.as_bytes(), &[]) {
            Ok(file) => Some(match Body::File(file).piece(0) {
                Piece::Bytes(bytes) => bytes.to_vec(),
                Piece::File { file, length, .. } => {
                    let mut bytes = vec![0; length as usize];
                    file.file().read_exact_at(&mut bytes, 0).unwrap();
                    bytes
                }
            }),
            Err(LookupError::Refused(_)) => None,
            Err(error) => panic!("{name}: {error:?}"),
        }
    }

    fn is_kept(root: &mut Root, name: &str) -> bool {
        let mut look = || root.lookup(name.as_bytes(), &[]).unwrap();
        let (first, second) = (look(), look());
        first.contents().is_some() && Rc::ptr_eq(&first, &second)
    }

    #[test]
    fn what_is_asked_for_twice_is_kept() {
        let at = tempfile::tempdir().unwrap();
        fs::create_dir_all(at.path().join("a/b")).unwrap();
        fs::write(at.path().join("a/b/c"), b"deep").unwrap();
        let mut root = root(at.path());
        let first = root.lookup(b"a/b/c", &[]).unwrap();
        assert_eq!(first.contents(), None, "once is not often");
        for name in ["a/b/c", "/a/b/c"] {
            assert!(is_kept(&mut root, name), "{name}");
        }
        // The same file by other spellings is looked up each time.
        for name in ["a//b/c", "a/b//c"] {
            assert!(!is_kept(&mut root, name), "{name}");
            assert_eq!(served(&mut root, name).unwrap(), b"deep");
        }
    }

    type Change = (&'static str, fn(&Path));

    /// Every way in which a name may come to mean other bytes, beneath the root `at/root`.
    const CHANGES: &[Change] = &[
        ("overwritten in place", |at| {
            fs::write(at.join("root/a/b/file"), b"other").unwrap();
        }),
        ("made longer", |at| {
            let path = at.join("root/a/b/file");
            let mut file = File::options().append(true).open(path).unwrap();
            io::Write::write_all(&mut file, b"more").unwrap();
        }),
        ("truncated", |at| {
            let path = at.join("root/a/b/file");
            File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_len(1)
                .unwrap();
        }),
        ("written by another name outside", |at| {
            fs::write(at.join("outside"), b"linked").unwrap();
        }),
        ("replaced by rename", |at| {
            fs::write(at.join("root/new"), b"renamed").unwrap();
            fs::rename(at.join("root/new"), at.join("root/a/b/file")).unwrap();
        }),
        ("removed", |at| {
            fs::remove_file(at.join("root/a/b/file")).unwrap()
        }),
        ("renamed", |at| {
            fs::rename(at.join("root/a/b/file"), at.join("root/a/b/else")).unwrap();
        }),
        ("made a link", |at| {
            fs::write(at.join("root/a/b/target"), b"target").unwrap();
            fs::remove_file(at.join("root/a/b/file")).unwrap();
            symlink("target", at.join("root/a/b/file")).unwrap();
        }),
        ("its folder renamed", |at| {
            fs::rename(at.join("root/a/b"), at.join("root/a/c")).unwrap();
        }),
        ("a folder above replaced", |at| {
            fs::create_dir_all(at.join("root/n/b")).unwrap();
            fs::write(at.join("root/n/b/file"), b"new tree").unwrap();
            fs::rename(at.join("root/a"), at.join("root/old")).unwrap();
            fs::rename(at.join("root/n"), at.join("root/a")).unwrap();
        }),
        ("a folder above exchanged", |at| {
            fs::create_dir_all(at.join("n/b")).unwrap();
            fs::write(at.join("n/b/file"), b"exchanged").unwrap();
            let (one, other) = (at.join("n"), at.join("root/a"));
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            rustix::fs::renameat_with(rustix::fs::CWD, one, rustix::fs::CWD, other, flags).unwrap();
        }),
        ("a folder above made a link", |at| {
            fs::rename(at.join("root/a"), at.join("root/real")).unwrap();
            symlink("real", at.join("root/a")).unwrap();
            fs::write(at.join("root/real/b/file"), b"behind a link").unwrap();
        }),
        ("all removed and made anew", |at| {
            fs::remove_dir_all(at.join("root/a")).unwrap();
            fs::create_dir_all(at.join("root/a/b")).unwrap();
            fs::write(at.join("root/a/b/file"), b"anew").unwrap();
        }),
    ];

    #[test]
    fn every_change_shows_at_once() {
        for size in [10, CACHED_CONTENTS_BYTES_MAX as usize + 1] {
            for (how, change) in CHANGES {
                let at = tempfile::tempdir().unwrap();
                let path = at.path().join("root/a/b/file");
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, vec![b'x'; size]).unwrap();
                fs::hard_link(&path, at.path().join("outside")).unwrap();
                let mut root = root(&at.path().join("root"));
                for _ in 0..3 {
                    assert_eq!(root.lookup(b"a/b/file", &[]).unwrap().length(), size as u64);
                }
                // Once more after each: what is loaded anew is watched anew.
                for round in 0..2 {
                    if round == 0 {
                        change(at.path());
                    } else if path.exists() {
                        fs::write(&path, b"again").unwrap();
                    }
                    for _ in 0..3 {
                        let stat = fs::read(&path).ok();
                        let length = root.lookup(b"a/b/file", &[]).ok().map(|file| file.length());
                        assert_eq!(
                            length,
                            stat.as_ref().map(|bytes| bytes.len() as u64),
                            "{how}"
                        );
                        if stat.as_ref().is_some_and(|bytes| bytes.len() < size) {
                            assert_eq!(served(&mut root, "a/b/file"), stat, "{how}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_mode_that_changes_shows_at_once() {
        let at = tempfile::tempdir().unwrap();
        fs::create_dir(at.path().join("folder")).unwrap();
        fs::write(at.path().join("folder/file"), b"x").unwrap();
        let mut root = root(at.path());
        for path in ["folder/file", "folder"] {
            root.lookup(b"folder/file", &[]).unwrap();
            assert!(is_kept(&mut root, "folder/file"));
            let before = root.lookup(b"folder/file", &[]).unwrap();
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(at.path().join(path), mode).unwrap();
            let after = root.lookup(b"folder/file", &[]).unwrap();
            assert!(!Rc::ptr_eq(&before, &after), "{path}");
        }
    }

    #[test]
    fn a_name_with_a_link_on_the_way_is_looked_up_each_time() {
        let at = tempfile::tempdir().unwrap();
        fs::create_dir(at.path().join("real")).unwrap();
        fs::write(at.path().join("real/file"), b"one").unwrap();
        symlink("real", at.path().join("folder")).unwrap();
        symlink("real/file", at.path().join("link")).unwrap();
        let mut root = root(at.path());
        for name in ["folder/file", "link"] {
            root.lookup(name.as_bytes(), &[]).unwrap();
            assert!(!is_kept(&mut root, name), "{name}");
        }
    }

    #[test]
    fn what_was_looked_at_a_second_ago_is_looked_at_anew() {
        let at = tempfile::tempdir().unwrap();
        fs::write(at.path().join("file"), b"x").unwrap();
        let (root, start) = (beneath(at.path()), Instant::now());
        let mut cache = Cache::new(BOUNDS).unwrap();
        assert!(matches!(cache.get(b"file", start), Known::Unknown));
        assert!(matches!(cache.get(b"file", start), Known::Wanted));
        cache.load(&root, b"file", start, |file| file).unwrap();
        let almost = start + CACHE_FRESH - std::time::Duration::from_millis(1);
        assert!(matches!(cache.get(b"file", almost), Known::File(_)));
        assert!(matches!(
            cache.get(b"file", start + CACHE_FRESH),
            Known::Wanted
        ));
        assert_eq!((cache.bytes, cache.open), (0, 0));
    }

    #[test]
    fn the_least_recently_used_make_room_and_leave_no_watch() {
        let at = tempfile::tempdir().unwrap();
        let (root, now) = (beneath(at.path()), Instant::now());
        let bounds = Bounds {
            bytes_max: 250,
            open_max: 2,
        };
        let mut cache = Cache::new(bounds).unwrap();
        for number in 0..10 {
            let name = format!("{number}/file");
            fs::create_dir(at.path().join(number.to_string())).unwrap();
            fs::write(at.path().join(&name), [7; 100]).unwrap();
            cache
                .load(&root, name.as_bytes(), now, |file| file)
                .unwrap();
        }
        assert_eq!((cache.files.len(), cache.bytes), (2, 200));
        // Two files, their folders, and the root.
        assert_eq!(cache.watches.by_path.len(), 5);
        assert_eq!(cache.watches.paths.len(), 5);
        cache.clear();
        assert!(cache.watches.by_path.is_empty() && cache.watches.paths.is_empty());
        assert_eq!((cache.files.len(), cache.bytes, cache.open), (0, 0, 0));
    }

    #[test]
    fn files_kept_open_are_few_and_closed_for_others() {
        let at = tempfile::tempdir().unwrap();
        let (root, now) = (beneath(at.path()), Instant::now());
        let bounds = Bounds {
            open_max: 2,
            ..BOUNDS
        };
        let mut cache = Cache::new(bounds).unwrap();
        for name in ["1", "2", "3"] {
            let file = File::create(at.path().join(name)).unwrap();
            file.set_len(CACHED_CONTENTS_BYTES_MAX + 1).unwrap();
            cache
                .load(&root, name.as_bytes(), now, |file| file)
                .unwrap();
        }
        assert_eq!((cache.files.len(), cache.open), (2, 2));
        assert!(cache.close_files());
        assert_eq!((cache.files.len(), cache.open), (0, 0));
        assert!(!cache.close_files());
    }

    #[test]
    fn a_file_that_is_gone_leaves_no_watch() {
        for open_max in [0, 16] {
            let at = tempfile::tempdir().unwrap();
            let (root, now) = (beneath(at.path()), Instant::now());
            let mut cache = Cache::new(Bounds { open_max, ..BOUNDS }).unwrap();
            let size = match open_max {
                0 => 1,
                _ => CACHED_CONTENTS_BYTES_MAX + 1,
            };
            for number in 0..3 {
                let name = format!("{number}/in/file");
                let path = at.path().join(&name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                File::create(&path).unwrap().set_len(size).unwrap();
                let load = cache.load(&root, name.as_bytes(), now, |file| file);
                assert!(load.is_some());
                fs::remove_file(&path).unwrap();
                assert!(!matches!(cache.get(name.as_bytes(), now), Known::File(_)));
            }
            assert!(cache.files.is_empty());
            assert!(
                cache.watches.by_path.is_empty() && cache.watches.paths.is_empty(),
                "{:?}",
                cache.watches
            );
        }
    }

    #[test]
    fn a_folder_that_is_asked_for_as_a_file_is_watched_as_before() {
        let at = tempfile::tempdir().unwrap();
        fs::create_dir(at.path().join("folder")).unwrap();
        fs::write(at.path().join("folder/file"), b"x").unwrap();
        let (root, now) = (beneath(at.path()), Instant::now());
        let mut cache = Cache::new(BOUNDS).unwrap();
        assert!(
            cache
                .load(&root, b"folder/file", now, |file| file)
                .is_some()
        );
        assert!(cache.load(&root, b"folder", now, |file| file).is_none());
        cache.take_events();
        fs::write(at.path().join("folder/new"), b"").unwrap();
        let mut buffer = [MaybeUninit::uninit(); INOTIFY_BUFFER_BYTES];
        let event = Reader::new(&cache.inotify, &mut buffer)
            .next()
            .map(|event| event.events());
        assert_eq!(event, Ok(ReadFlags::CREATE));
    }

    #[test]
    fn names_that_no_file_has_take_little_memory() {
        let at = tempfile::tempdir().unwrap();
        let mut root = root(at.path());
        for number in 0..CACHE_NAMES_MAX.get() {
            let name = format!("{number:x>8000}"); // As long as an HTTP request has.
            assert!(root.lookup(name.as_bytes(), &[]).is_err());
        }
        let cache = root.cache();
        let bytes: usize = cache.others.iter().map(|(name, _)| name.len()).sum();
        assert!(bytes <= 16 * 1024 * 1024, "{bytes} bytes of names");
    }

    #[test]
    fn events_that_were_lost_clear_everything() {
        let queue = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
        let queue: usize = queue.trim().parse().unwrap();
        let at = tempfile::tempdir().unwrap();
        fs::write(at.path().join("file"), b"x").unwrap();
        let (root, now) = (beneath(at.path()), Instant::now());
        let mut cache = Cache::new(BOUNDS).unwrap();
        cache.load(&root, b"file", now, |file| file).unwrap();
        // One name again and again: an event that equals the one before it is not queued.
        for _ in 0..=queue / 2 {
            fs::write(at.path().join("other"), b"").unwrap();
            fs::remove_file(at.path().join("other")).unwrap();
        }
        assert!(!matches!(cache.get(b"file", now), Known::File(_)));
        assert!(cache.watches.by_path.is_empty());
    }
}
