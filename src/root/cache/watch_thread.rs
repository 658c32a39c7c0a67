//! The thread that makes and removes watches, one for each cache. The loop must not: the first watch
//! of a directory makes the kernel visit every name beneath it that it remembers, those of no file
//! too, and the file system may have to be asked for permission.

use std::any::Any;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;

use rustix::fs::inotify::{self, WatchFlags};
use rustix::io::Errno;

use super::super::containment::{DIRECTORY_FLAGS, FILE_FLAGS, RootDir};
use super::watches::Watches;
use crate::file::{FsClass, Inode, Lookup, MayBlock};
use crate::limits::{
    CACHE_DISCARDED_READS_MAX, CACHED_CONTENTS_BYTES_MAX, INOTIFY_BUFFER_BYTES, WATCH_STACK_BYTES,
};
use crate::trace::record::{self, Call, Handle};

/// Events that may make another file of a name: in a directory, and of the directory itself. Nothing is
/// taken from a watch that it has already: its list may be kept.
const DIRECTORY_EVENTS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::MASK_ADD);

/// Events that may make another list of a directory: what is written to its files changes their lengths
/// and times.
const LIST_EVENTS: WatchFlags = DIRECTORY_EVENTS
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::CLOSE_WRITE);

/// Events that may make other bytes or another state of a file. What is written through a mapping, or by
/// io_submit(2), makes no event but the close; a mapping holds the file open. If a directory has the
/// file's place by now, nothing is taken from its watch.
const FILE_EVENTS: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::MASK_ADD);

/// What the thread is to do, in this order.
#[derive(Debug)]
pub(super) enum WatchTask {
    /// Watches a name, a file's or a folder's, and the directories on the way to it.
    Watch {
        /// Beneath this directory.
        root: Arc<RootDir>,
        /// The name.
        name: Box<[u8]>,
    },
    /// Removes watches.
    Remove(Vec<i32>),
    /// Removes all watches, and throws away the events that are queued: they concern nothing that is kept.
    Clear {
        watches: Box<Watches>,
        /// What is freed, which takes long if it is much.
        forgotten: Box<dyn Any + Send>,
    },
}

/// What came of [`WatchTask::Watch`].
#[derive(Debug)]
pub(super) struct WatchedPath {
    /// Watches that were made, each with the length of its path: a beginning of the name.
    pub(super) watches: Vec<(usize, i32)>,
    /// What is watched; `None` if the name can't be kept.
    pub(super) found: Option<Found>,
}

/// What has a name that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A regular file.
    File(Inode),
    /// A folder, whose list may be kept.
    Folder,
}

/// The thread. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct WatchThread {
    tasks: Sender<WatchTask>,
    results: Receiver<WatchedPath>,
}

impl WatchThread {
    /// Starts it.
    pub(super) fn start(inotify: Arc<OwnedFd>) -> io::Result<Self> {
        let (tasks, receiver) = channel();
        let (sender, results) = channel();
        thread::Builder::new()
            .name("watch".into())
            .stack_size(WATCH_STACK_BYTES)
            .spawn(move || work(&receiver, &sender, &inotify))?;
        Ok(Self { tasks, results })
    }

    /// Gives it something to do. If it has died, [`WatchThread::take`] says so.
    pub(super) fn send(&self, task: WatchTask) {
        let _ = self.tasks.send(task);
    }

    /// What came of the next watch that it was asked for.
    pub(super) fn take(&self) -> Result<WatchedPath, TryRecvError> {
        self.results.try_recv()
    }

    /// One that has died.
    #[cfg(test)]
    pub(super) fn dead() -> Self {
        let ((tasks, _), (_, results)) = (channel(), channel());
        Self { tasks, results }
    }

    /// As [`WatchThread::take`], but waits for it.
    #[cfg(test)]
    pub(super) fn wait(&self) -> WatchedPath {
        self.results.recv().expect("the thread lives")
    }
}

fn work(tasks: &Receiver<WatchTask>, results: &Sender<WatchedPath>, inotify: &OwnedFd) {
    for task in tasks {
        match task {
            WatchTask::Watch { root, name } => {
                let mut watches = Vec::new();
                let found = watch(&root, &name, inotify, &mut watches);
                if results.send(WatchedPath { watches, found }).is_err() {
                    return;
                }
            }
            WatchTask::Remove(watches) => remove(&watches, inotify),
            WatchTask::Clear { watches, forgotten } => {
                remove(&watches.all(), inotify);
                discard_events(inotify);
                drop((watches, forgotten));
            }
        }
    }
}

fn remove(watches: &[i32], inotify: &OwnedFd) {
    for &watch in watches {
        // The kernel removes that of what is no more by itself.
        let _ = record::call(Call::Unwatch, || inotify::remove_watch(inotify, watch));
    }
}

fn discard_events(inotify: &OwnedFd) {
    let mut buffer = [MaybeUninit::uninit(); INOTIFY_BUFFER_BYTES];
    for _ in 0..CACHE_DISCARDED_READS_MAX {
        let read = record::transfer(Call::ReadEvents, INOTIFY_BUFFER_BYTES, || {
            let read = rustix::io::read(inotify, &mut buffer);
            read.map(|(bytes, _)| bytes.len())
        });
        match read {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// Watches a name, if it can be kept.
fn watch(
    root: &RootDir,
    name: &[u8],
    inotify: &OwnedFd,
    watches: &mut Vec<(usize, i32)>,
) -> Option<Found> {
    // What can't be kept costs no watch.
    let handle = walk(root, name, |_, _, _| Some(()))?;
    let last_events = match what_is(root, handle)? {
        Found::File(_) => FILE_EVENTS,
        Found::Folder => LIST_EVENTS,
    };
    // Each is watched before it is looked at, or beneath.
    let handle = walk(root, name, |end, handle, is_last| {
        let events = if is_last {
            last_events
        } else {
            DIRECTORY_EVENTS
        };
        let at = format!("/proc/self/fd/{}", handle.as_raw_fd());
        match record::call(Call::Watch, || inotify::add_watch(inotify, at, events)) {
            Ok(watch) => {
                watches.push((end, watch));
                Some(())
            }
            Err(error) => {
                log::debug!("a name can't be watched, so it isn't kept: {error}");
                None
            }
        }
    })?;
    what_is(root, handle)
}

/// Opens a name component by component, and shows each handle before it looks beneath it, and whether it is
/// the last. An empty name is the root itself.
fn walk(
    root: &RootDir,
    name: &[u8],
    mut show: impl FnMut(usize, BorrowedFd<'_>, bool) -> Option<()>,
) -> Option<Handle> {
    if root.is_remote() {
        return None;
    }
    let top = root.directory();
    show(0, top.as_fd(), name.is_empty())?;
    let mut handle: Option<Handle> = None;
    let mut begin = 0;
    while begin < name.len() {
        let length = name[begin..].iter().position(|&byte| byte == b'/');
        let end = length.map_or(name.len(), |length| begin + length);
        let is_last = end == name.len();
        let base = handle.as_ref().map_or(top.as_fd(), Handle::as_fd);
        let flags = if is_last { FILE_FLAGS } else { DIRECTORY_FLAGS };
        let next = root.open_component(base, &name[begin..end], flags).ok()?;
        show(end, next.as_fd(), is_last)?;
        handle = Some(next);
        begin = end + 1;
    }
    let again = || record::call(Call::Duplicate, || top.as_fd().try_clone_to_owned()).ok();
    handle.or_else(|| again().map(Handle::from))
}

/// What this is, if it is on this machine. Where the loop can't ask whether a read would wait, it finds what
/// it will read in memory.
fn what_is(root: &RootDir, handle: Handle) -> Option<Found> {
    let file = match root.lookup_of(handle, MayBlock::OnDisk).ok()? {
        Lookup::File(file) => file,
        Lookup::Directory(_) => return Some(Found::Folder),
    };
    match file.fs_class() {
        FsClass::Remote => return None,
        FsClass::ReadOnce if file.length() <= CACHED_CONTENTS_BYTES_MAX => {
            drop(file.read_contents())
        }
        _ => {}
    }
    Some(Found::File(file.inode()))
}
