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
//!   symbolic link on the way. Writes through a mapping and new mounts make no event, so whatever was
//!   looked at more than a second ago is looked at anew.

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
    CACHE_AGAIN, CACHE_FRESH, CACHE_IDLE, CACHE_NAMES_MAX, CACHED_CONTENTS_BYTES_MAX,
    INOTIFY_BUFFER_BYTES, NAME_BYTES_MAX,
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
    /// When anybody last asked for anything.
    asked_at: Option<Instant>,
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
    AskedOnce {
        at: Instant,
    },
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
            asked_at: None,
            others: LruCache::new(CACHE_NAMES_MAX),
            watches: Watches::default(),
        })
    }

    /// Looks a name up, after every change so far was taken in.
    pub fn get(&mut self, name: &[u8], now: Instant) -> Known {
        self.take_events();
        self.asked_at = Some(now);
        let since = |then| now.saturating_duration_since(then);
        if let Some(kept) = self.files.get(name) {
            let age = since(kept.looked_at);
            if age < CACHE_FRESH && !kept.file.gains_by_a_look() {
                return Known::File(Rc::clone(&kept.file));
            }
            self.drop_file(name);
            if age < CACHE_AGAIN {
                return Known::Wanted;
            }
            self.watches.release(name, &self.inotify);
        }
        match self.others.get(name) {
            Some(Other::AskedOnce { at }) if since(*at) < CACHE_AGAIN => Known::Wanted,
            Some(Other::Unfit { found }) if since(*found) < CACHE_FRESH => Known::Unknown,
            _ if !is_canonical(name) => Known::Unknown,
            _ => {
                self.others.put(name.into(), Other::AskedOnce { at: now });
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
        let is_open = |kept: &Kept| kept.file.contents().is_none();
        let open = self.files.iter().filter(|(_, kept)| is_open(kept));
        let names: Vec<_> = open.map(|(name, _)| name.clone()).collect();
        for name in &names {
            self.drop_file(name);
            self.watches.release(name, &self.inotify);
        }
        !names.is_empty()
    }

    /// Closes what is kept open when nobody has asked for anything for a while: a file that was
    /// removed keeps its place on the disk as long as it is open, and nobody looks for events.
    /// Returns when that will be.
    pub fn rest(&mut self, now: Instant) -> Option<Instant> {
        if self.open == 0 {
            return None;
        }
        let at = self.asked_at? + CACHE_IDLE;
        if now < at {
            return Some(at);
        }
        self.close_files();
        None
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
mod tests;
