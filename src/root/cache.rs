//! Files that were asked for before, kept by name: small ones with their bytes, longer ones open.
//!
//! What is kept is invalidated by events, not by age: a request whose last byte arrived after a
//! change sees the change. Four rules hold that up:
//!
//! - Watch, then look. A thread watches every directory on the way and the file itself (inotify(7)),
//!   each by its handle, and follows no link. Only when the cache knows the watches does the loop read
//!   the file's state and bytes. A hard link elsewhere shows only on the file itself.
//! - Before a look-up the inotify descriptor is read to its end, once for all requests that came
//!   together. The kernel queues an event before the call that made the change returns, so what was
//!   changed before the request was sent is in there. If there is more than a look-up may read,
//!   everything is forgotten.
//! - What came while a name's watches were being made is taken in once more when they are known.
//! - What events can't tell is not kept: files on other machines or in other processes, names with a
//!   symbolic link on the way. Writes through a mapping and by AIO make no event before the file is
//!   closed, so a file is looked at anew after a tenth of the time that it had lain unchanged, 1 to
//!   10 s, or longer where very many are kept. So is every file after a mount, for which the kernel is
//!   asked once a second.
//!
//! A folder's list is kept by the same rules while its folder is watched, if all that may change in it
//! makes an event there.
//!
//! Nobody waits for the cache: a request whose name it doesn't have is answered by a plain look-up.

mod folders;
mod mounts;
mod watch_thread;
mod watches;

use std::borrow::Cow;
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

use lru::LruCache;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader};
use rustix::io::Errno;

use super::containment::RootDir;
use crate::file::{FreshList, FsClass, Inode, List, OpenFile};
use crate::http::coding::Coding;
use crate::http::listing::ListingStyle;
use crate::limits::{
    CACHE_EVENTS_MAX, CACHE_FILE_BYTES, CACHE_FRESH, CACHE_FRESH_MAX, CACHE_FRESH_SHARE,
    CACHE_GHOST_BYTES, CACHE_GHOST_TURNOVER, CACHE_IDLE, CACHE_INVALIDATIONS_MAX, CACHE_LIST_SHARE,
    CACHE_LOOKS_A_SECOND, CACHE_NAMES_MAX, CACHE_REUSE_WINDOW, CACHE_SPARE_SHARE,
    CACHE_WATCH_BYTES, CACHED_CONTENTS_BYTES_MAX, COPIED_BODY_BYTES_MAX, INOTIFY_BUFFER_BYTES,
    NAME_BYTES_MAX,
};
use crate::random::random;
use crate::trace::record::{self, Call};

use folders::Folders;
use mounts::Mounts;
use watch_thread::{Found, WatchTask, WatchThread, WatchedPath};
use watches::Watches;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheLimits {
    /// Bytes of memory for all: contents, names, watches and what keeps them together.
    pub bytes_max: usize,
    /// Files that are kept open.
    pub open_max: usize,
}

/// The cache of one root.
#[derive(Debug)]
pub struct Cache {
    inotify: Arc<OwnedFd>,
    limits: CacheLimits,
    /// Names that are watched: components with single slashes between them.
    files: LruCache<Arc<[u8]>, Watched>,
    /// The bytes that the contents and the entries of `files` take.
    file_bytes: usize,
    /// Names of the files that are kept open.
    open: LruCache<Arc<[u8]>, ()>,
    folders: Folders,
    /// When a file was last looked up.
    asked_at: Option<Instant>,
    /// Names of files that are not watched.
    ghosts: LruCache<Arc<[u8]>, Ghost>,
    ghost_bytes: usize,
    watches: Watches,
    mounts: Mounts,
    /// Started for the first name that is worth watching.
    thread: Option<WatchThread>,
    pending: Option<Pending>,
    /// When events were lost, or there were too many.
    lost_at: Option<Instant>,
}

/// A name that is watched.
#[derive(Debug)]
struct Watched {
    /// The file that is watched under this name.
    inode: Inode,
    /// The file as it was looked at after its watches were made.
    file: Option<Arc<OpenFile>>,
    looked_at: Instant,
    /// Until when that is believed, if there is no event.
    believed_until: Instant,
    asked_at: Instant,
    /// In which codings it was looked for since, and nothing has that name: a bit for each.
    absent: u8,
}

/// A name that isn't watched. Most names are asked for once.
#[derive(Clone, Copy, Debug)]
struct Ghost {
    asked_at: Instant,
    /// It couldn't be kept. It is tried again after a while.
    is_unfit: bool,
}

/// A name that the thread is watching.
#[derive(Debug)]
struct Pending {
    name: Arc<[u8]>,
    asked_at: Instant,
    /// Events that were read since.
    events: Vec<FsEvent>,
    /// Some events may be missing.
    is_void: bool,
}

/// An event of a watch: what is watched has changed, or this entry of it.
#[derive(Debug)]
struct FsEvent {
    watch: i32,
    entry: Option<Box<[u8]>>,
}

impl Cache {
    /// A cache that keeps nothing yet.
    ///
    /// # Errors
    /// There is no inotify instance: no descriptor, or the user's limit is reached.
    pub fn new(limits: CacheLimits) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self {
            inotify: Arc::new(inotify),
            limits,
            files: LruCache::unbounded(),
            file_bytes: 0,
            open: LruCache::unbounded(),
            folders: Folders::new(),
            asked_at: None,
            ghosts: LruCache::unbounded(),
            ghost_bytes: 0,
            watches: Watches::new(limits.bytes_max / CACHE_SPARE_SHARE),
            mounts: Mounts::new(),
            thread: None,
            pending: None,
            lost_at: None,
        })
    }

    /// Takes in every change so far.
    pub fn catch_up(&mut self, now: Instant) {
        self.asked_at = Some(now);
        self.take_watched();
        self.take_events(now);
        self.mounts.ask(now);
    }

    /// The file of a name, if it is kept and no change that was taken in concerns it.
    pub fn get(&mut self, name: &[u8], now: Instant) -> Option<Arc<OpenFile>> {
        let watched = self.files.get_mut(name)?;
        watched.asked_at = now;
        if watched.is_open() {
            self.open.promote(name);
        }
        let is_believed = watched.is_believed(&self.mounts, now);
        let file = watched.file.as_ref().filter(|_| is_believed);
        file.filter(|file| !file.gains_by_a_look()).cloned()
    }

    /// A plain look-up, after [`Cache::catch_up`], has found a file under a name. `is_new`: it was opened
    /// just now, and not by a thread some time ago. Returns what is to be sent in its place.
    pub fn note_found(
        &mut self,
        root: &Arc<RootDir>,
        name: &[u8],
        file: &Arc<OpenFile>,
        is_new: bool,
        now: Instant,
    ) -> Option<Arc<OpenFile>> {
        if let Some(watched) = self.files.peek(name) {
            if !is_new {
                return None;
            }
            if watched.inode == file.inode() {
                return self.keep(name, file, now);
            }
            self.forget(name);
        }
        if self.may_keep(file) && is_canonical(name) {
            self.note_asked(root, name, self.victim_asked_at(name, file), now);
        }
        None
    }

    /// A name that may be kept was asked for: the second time in a while it is worth watching, unless what
    /// would be forgotten for it was asked for since the first.
    fn note_asked(
        &mut self,
        root: &Arc<RootDir>,
        name: &[u8],
        victim_asked_at: Option<Instant>,
        now: Instant,
    ) {
        let since = |then| now.saturating_duration_since(then);
        let before = self.ghosts.get(name).copied();
        match before {
            Some(Ghost {
                asked_at,
                is_unfit: true,
            }) if since(asked_at) < CACHE_FRESH => {}
            Some(Ghost {
                asked_at,
                is_unfit: false,
            }) if since(asked_at) < CACHE_REUSE_WINDOW
                && victim_asked_at.is_none_or(|victim| victim < asked_at) =>
            {
                self.watch(root, name, now);
            }
            _ => self.add_ghost(name, now, false),
        }
    }

    /// When the file that would be forgotten for this one was asked for; `None` if there is room.
    fn victim_asked_at(&self, name: &[u8], file: &OpenFile) -> Option<Instant> {
        let contents = if self.fits(file) {
            usize::try_from(file.length()).unwrap_or(usize::MAX)
        } else if self.open.len() < self.limits.open_max {
            0
        } else {
            let (victim, ()) = self.open.peek_lru()?;
            return self.files.peek(victim).map(|victim| victim.asked_at);
        };
        let bytes = contents.saturating_add(2 * name.len() + CACHE_FILE_BYTES + CACHE_WATCH_BYTES);
        let has_room = self.bytes().saturating_add(bytes) <= self.limits.bytes_max
            && self.files.len() < CACHE_NAMES_MAX;
        let (_, victim) = self.files.peek_lru().filter(|_| !has_room)?;
        Some(victim.asked_at)
    }

    /// The list of a folder, if it is kept and no event says that it has changed.
    pub fn list(&mut self, path: &[u8], style: &ListingStyle, now: Instant) -> Option<Arc<List>> {
        self.catch_up(now);
        if self.is_folder_watched(path) {
            self.folders.list(path, style, now)
        } else {
            None
        }
    }

    fn is_folder_watched(&mut self, path: &[u8]) -> bool {
        self.folders.is_watched(path, self.watches.of(path))
    }

    /// A list was made, after [`Cache::list`] had none.
    pub fn note_listed(
        &mut self,
        root: &Arc<RootDir>,
        path: &[u8],
        style: ListingStyle,
        fresh: &FreshList,
        now: Instant,
    ) {
        self.catch_up(now);
        let fits = fresh.list.bytes().len() <= self.limits.bytes_max / CACHE_LIST_SHARE;
        if !fits || !fresh.shows_events_only {
            self.folders.forget(path);
        } else if self.is_folder_watched(path) {
            self.folders.keep(path, style, fresh);
            self.shrink();
        } else if path.is_empty() || is_canonical(path) {
            self.note_asked(root, path, None, now);
        }
    }

    /// Whether nothing has the name of a file's sibling, by what was known when changes were taken in
    /// last. A sibling that is there is a name of its own.
    pub fn lacks_sibling(&self, name: &[u8], coding: Coding, now: Instant) -> bool {
        let watched = self.files.peek(name);
        watched.is_some_and(|watched| {
            watched.is_believed(&self.mounts, now) && watched.absent & bit_of(coding) != 0
        })
    }

    /// A file's sibling was not found just now; `is_absent` tells whether nothing has its name. The
    /// directory is watched as long as the file is, so that an event tells when something has.
    pub fn note_no_sibling(
        &mut self,
        name: &[u8],
        coding: Coding,
        is_absent: impl FnOnce() -> bool,
    ) {
        if let Some(watched) = self.files.peek_mut(name)
            && is_absent()
        {
            watched.absent |= bit_of(coding);
        }
    }

    /// Something may have the name of a sibling now.
    fn recheck_siblings(&mut self, path: &[u8]) {
        let stems = Coding::ALL
            .iter()
            .filter_map(|coding| path.strip_suffix(coding.suffix()));
        for stem in stems {
            if let Some(watched) = self.files.peek_mut(stem) {
                watched.absent = 0;
            }
        }
    }

    fn may_keep(&self, file: &OpenFile) -> bool {
        file.handle().is_some()
            && file.fs_class() != FsClass::Remote
            && (self.fits(file) || self.limits.open_max > 0)
    }

    /// Whether a file is kept with its contents. One that sendfile suits better is while no more can be kept
    /// open.
    fn fits(&self, file: &OpenFile) -> bool {
        let most = if self.open.len() < self.limits.open_max {
            COPIED_BODY_BYTES_MAX
        } else {
            CACHED_CONTENTS_BYTES_MAX
        };
        file.length() <= most.min(self.limits.bytes_max as u64)
    }

    /// Keeps a file that is watched, if that takes no wait for a disk.
    fn keep(&mut self, name: &[u8], file: &Arc<OpenFile>, now: Instant) -> Option<Arc<OpenFile>> {
        let file = if self.fits(file) {
            Arc::new(file.read_contents()?)
        } else {
            Arc::clone(file)
        };
        let believed_until = now + self.believed_for(file.age());
        let (path, watched) = self.files.get_key_value_mut(name)?;
        watched.looked_at = now;
        watched.believed_until = believed_until;
        watched.absent = 0;
        if let Some(kept) = watched.file.as_ref().filter(|kept| kept.is_equal(&file)) {
            kept.note_seen_again(&file);
            return Some(Arc::clone(kept));
        }
        let path = Arc::clone(path);
        let before = watched.file.replace(Arc::clone(&file));
        self.discount(name, before.as_deref());
        match file.contents() {
            Some(contents) => self.file_bytes += contents.len(),
            None => _ = self.open.put(path, ()),
        }
        self.shrink();
        Some(file)
    }

    /// How long what was found of a file is believed that had been as it is for so long.
    fn believed_for(&self, age: Duration) -> Duration {
        if !self.mounts.are_watched() {
            return CACHE_FRESH;
        }
        let looks = Duration::from_secs(self.files.len() as u64) / CACHE_LOOKS_A_SECOND;
        (age / CACHE_FRESH_SHARE).clamp(CACHE_FRESH, CACHE_FRESH_MAX.max(looks))
    }

    /// Closes files that are kept open, for others who need descriptors: so many at a time, those first that
    /// were asked for longest ago. Says whether there were any.
    pub fn close_files(&mut self) -> bool {
        let had_any = !self.open.is_empty();
        for _ in 0..CACHE_INVALIDATIONS_MAX {
            self.close_oldest();
        }
        self.send_removed();
        had_any
    }

    /// Forgets the file that is kept open and was asked for longest ago.
    fn close_oldest(&mut self) {
        if let Some((name, ())) = self.open.pop_lru()
            && let Some(watched) = self.files.pop(&name)
        {
            self.note_forgotten(&name, &watched);
        }
    }

    /// Closes what is kept open when nobody has asked for anything for a while: a file that was
    /// removed keeps its place on the disk as long as it is open, and nobody looks for events. Lists are
    /// too old by then. Returns when that will be.
    pub fn release_idle(&mut self, now: Instant) -> Option<Instant> {
        if self.open.is_empty() && self.folders.is_empty() {
            return None;
        }
        let at = self.asked_at? + CACHE_IDLE;
        if now < at {
            return Some(at);
        }
        self.close_files();
        self.forget_lists();
        (!self.open.is_empty()).then_some(now)
    }

    /// Forgets lists, for others that need their memory.
    pub fn forget_lists(&mut self) {
        self.folders = Folders::new();
    }

    /// Forgets everything: another directory is the root now, or events were lost. Some descriptors are free
    /// at once; the thread closes the other files and frees the memory, which takes long if that is much.
    pub fn clear(&mut self) {
        self.close_files();
        self.folders = Folders::new();
        (self.file_bytes, self.ghost_bytes) = (0, 0);
        if let Some(pending) = &mut self.pending {
            pending.is_void = true;
            pending.events.clear();
        }
        let files = mem::replace(&mut self.files, LruCache::unbounded());
        let open = mem::replace(&mut self.open, LruCache::unbounded());
        let ghosts = mem::replace(&mut self.ghosts, LruCache::unbounded());
        let watches = self.watches.take();
        if let Some(thread) = &self.thread {
            thread.send(WatchTask::Clear {
                watches: Box::new(watches),
                forgotten: Box::new((files, open, ghosts)),
            });
        }
    }

    // ---- memory and descriptors ----

    fn bytes(&self) -> usize {
        self.file_bytes + self.folders.bytes() + self.ghost_bytes + self.watches.bytes()
    }

    /// Forgets what was used longest ago until the limits hold, and has the thread remove watches that
    /// nothing needs any more.
    fn shrink(&mut self) {
        let CacheLimits {
            bytes_max,
            open_max,
        } = self.limits;
        while self.open.len() > open_max {
            self.close_oldest();
        }
        while self.bytes() > bytes_max || self.files.len() > CACHE_NAMES_MAX {
            if let Some((name, watched)) = self.files.pop_lru() {
                self.note_forgotten(&name, &watched);
            } else if !self.folders.forget_oldest() && !self.watches.remove_idle() {
                break;
            }
        }
        self.send_removed();
    }

    fn send_removed(&mut self) {
        let removed = self.watches.take_removed();
        if let Some(thread) = &self.thread
            && !removed.is_empty()
        {
            thread.send(WatchTask::Remove(removed));
        }
    }

    fn discount(&mut self, name: &[u8], file: Option<&OpenFile>) {
        match file.map(OpenFile::contents) {
            Some(Some(contents)) => self.file_bytes -= contents.len(),
            Some(None) => _ = self.open.pop(name),
            None => {}
        }
    }

    fn note_removed(&mut self, name: &[u8], watched: &Watched) {
        self.file_bytes -= name.len() + CACHE_FILE_BYTES;
        self.discount(name, watched.file.as_deref());
    }

    /// A file was taken out to make room. Its name is watched no more.
    fn note_forgotten(&mut self, name: &[u8], watched: &Watched) {
        self.note_removed(name, watched);
        self.watches.remove(name);
        self.watches.left(name);
    }

    /// Remembers a name. If there is no room and no other name is old, few take another's place: of more
    /// names than there are places, asked for in turn, none would be met a second time.
    fn add_ghost(&mut self, name: &[u8], asked_at: Instant, is_unfit: bool) {
        let ghost = Ghost { asked_at, is_unfit };
        if let Some(known) = self.ghosts.get_mut(name) {
            *known = ghost;
            return;
        }
        let bytes_max = self.limits.bytes_max / CACHE_SPARE_SHARE;
        let has_room = |cache: &Self| {
            let bytes = cache.ghost_bytes + ghost_bytes(name);
            bytes <= bytes_max && cache.ghosts.len() < CACHE_NAMES_MAX
        };
        // Two for one: names of other lengths take less or more.
        for _ in 0..2 {
            let Some((_, oldest)) = self.ghosts.peek_lru().filter(|_| !has_room(self)) else {
                break;
            };
            let is_old = asked_at.saturating_duration_since(oldest.asked_at) >= CACHE_REUSE_WINDOW;
            if (is_old || random().is_multiple_of(CACHE_GHOST_TURNOVER))
                && let Some((name, _)) = self.ghosts.pop_lru()
            {
                self.ghost_bytes -= ghost_bytes(&name);
            }
        }
        if has_room(self) {
            self.ghosts.put(name.into(), ghost);
            self.ghost_bytes += ghost_bytes(name);
            self.shrink();
        }
    }

    /// Forgets a path and everything beneath it; if that is much, everything.
    fn forget(&mut self, path: &[u8]) {
        let watched = self
            .watches
            .at_or_beneath(path, CACHE_INVALIDATIONS_MAX + 1);
        if watched.len() > CACHE_INVALIDATIONS_MAX {
            self.clear();
            return;
        }
        for path in &watched {
            if let Some(watched) = self.files.pop(path) {
                self.note_removed(path, &watched);
            }
            self.watches.remove(path);
        }
        if !watched.is_empty() {
            self.watches.left(path);
        }
    }

    // ---- events ----

    fn take_events(&mut self, now: Instant) {
        let is_awaited = |pending: &Pending| !pending.is_void;
        if self.watches.is_empty() && !self.pending.as_ref().is_some_and(is_awaited) {
            // Nothing is watched, so there are no events.
            return;
        }
        let mut events = Vec::new();
        if !self.read_events(&mut events) {
            self.lost_at = Some(now);
            self.clear();
            return;
        }
        if events.is_empty() {
            return;
        }
        for event in &events {
            self.take_event(event);
        }
        if let Some(pending) = &mut self.pending {
            pending.events.append(&mut events);
            if pending.events.len() > CACHE_EVENTS_MAX {
                pending.is_void = true;
                pending.events.clear();
            }
        }
        self.send_removed();
    }

    /// Reads all events that are queued. Says whether they are all.
    fn read_events(&self, into: &mut Vec<FsEvent>) -> bool {
        let mut buffer = [MaybeUninit::uninit(); INOTIFY_BUFFER_BYTES];
        let mut reader = Reader::new(&*self.inotify, &mut buffer);
        while into.len() < CACHE_EVENTS_MAX {
            let next = if reader.is_buffer_empty() {
                record::call(Call::ReadEvents, || reader.next())
            } else {
                reader.next()
            };
            match next {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => return false,
                Ok(event) => into.push(FsEvent {
                    watch: event.wd(),
                    entry: event.file_name().map(|name| name.to_bytes().into()),
                }),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                // Without events nothing that is kept can be trusted.
                Err(_) => return false,
            }
        }
        false
    }

    /// Forgets what an event concerns: what is watched itself, or its entry. When the kernel removes a
    /// watch, that comes as an event of what it watched, too.
    fn take_event(&mut self, event: &FsEvent) {
        let paths = self.watches.paths(event.watch, CACHE_INVALIDATIONS_MAX + 1);
        if paths.len() > CACHE_INVALIDATIONS_MAX {
            self.clear();
            return;
        }
        for path in paths {
            self.folders.changed(&path);
            let Some(entry) = &event.entry else {
                self.forget(&path);
                continue;
            };
            let entry = match &*path {
                b"" => Cow::from(&**entry),
                path => [path, b"/", entry].concat().into(),
            };
            self.forget(&entry);
            self.recheck_siblings(&entry);
        }
    }

    // ---- watching ----

    /// Has the thread watch a name, if it has time.
    fn watch(&mut self, root: &Arc<RootDir>, name: &[u8], now: Instant) {
        let is_recent = |then| now.saturating_duration_since(then) < CACHE_FRESH;
        if self.pending.is_some() || self.lost_at.is_some_and(is_recent) {
            return;
        }
        let thread = match &mut self.thread {
            Some(thread) => thread,
            none => match WatchThread::start(Arc::clone(&self.inotify)) {
                Ok(thread) => none.insert(thread),
                Err(error) => {
                    log::debug!("no thread for watches, so nothing is kept: {error}");
                    return;
                }
            },
        };
        thread.send(WatchTask::Watch {
            root: Arc::clone(root),
            name: name.into(),
        });
        self.pending = Some(Pending {
            name: name.into(),
            asked_at: now,
            events: Vec::new(),
            is_void: false,
        });
    }

    /// Takes the watches that the thread has made for a name, if it is done.
    fn take_watched(&mut self) {
        let (Some(thread), Some(_)) = (&self.thread, &self.pending) else {
            return;
        };
        match thread.take() {
            Ok(path) => self.note_watched(&path),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => {
                // The thread has died. The next name has another one started.
                self.thread = None;
                self.pending = None;
                self.clear();
            }
        }
    }

    fn note_watched(&mut self, path: &WatchedPath) {
        let Some(pending) = self.pending.take() else {
            return;
        };
        let (name, at) = (&pending.name, pending.asked_at);
        match path.found {
            Some(found) if !pending.is_void && !self.is_replaced(name, path) => {
                for &(end, watch) in &path.watches {
                    if self.watches.of(&name[..end]).is_none() {
                        self.watches.add(&name[..end], watch);
                    }
                }
                for event in &pending.events {
                    self.take_event(event);
                }
                match (self.watches.of(name), found) {
                    (Some(_), Found::File(inode)) => self.add_file(name, inode, at),
                    (Some(watch), Found::Folder) => {
                        self.watches.left_within(name);
                        self.folders.watch(name, watch);
                    }
                    (None, _) => {}
                }
            }
            Some(_) => {}
            None => self.add_ghost(name, at, true),
        }
        for &(_, watch) in &path.watches {
            self.watches.remove_unless_known(watch);
        }
        self.shrink();
    }

    /// Whether something else than what is known was found on the way to a name. The event of that is queued,
    /// and may forget everything.
    fn is_replaced(&self, name: &[u8], path: &WatchedPath) -> bool {
        path.watches.iter().any(|&(end, watch)| {
            let known = self.watches.of(&name[..end]);
            known.is_some_and(|known| known != watch)
        })
    }

    fn add_file(&mut self, name: &Arc<[u8]>, inode: Inode, looked_at: Instant) {
        if self.ghosts.pop(&**name).is_some() {
            self.ghost_bytes -= ghost_bytes(name);
        }
        let watched = Watched {
            inode,
            file: None,
            looked_at,
            believed_until: looked_at + CACHE_FRESH,
            asked_at: looked_at,
            absent: 0,
        };
        match self.files.put(Arc::clone(name), watched) {
            Some(before) => self.discount(name, before.file.as_deref()),
            None => self.file_bytes += name.len() + CACHE_FILE_BYTES,
        }
    }
}

impl Watched {
    fn is_open(&self) -> bool {
        let file = self.file.as_ref();
        file.is_some_and(|file| file.contents().is_none())
    }

    /// Whether what was found under this name is still believed, if there was no event.
    fn is_believed(&self, mounts: &Mounts, now: Instant) -> bool {
        now < self.believed_until && !mounts.may_hide(self.looked_at)
    }
}

fn bit_of(coding: Coding) -> u8 {
    1 << coding as u8
}

fn ghost_bytes(name: &[u8]) -> usize {
    name.len() + CACHE_GHOST_BYTES
}

/// Whether a path is the only way to write it, and short enough to be remembered.
fn is_canonical(name: &[u8]) -> bool {
    name.len() <= NAME_BYTES_MAX
        && !name
            .split(|&byte| byte == b'/')
            .any(|component| component.is_empty() || component == b".")
}

#[cfg(test)]
mod tests;
