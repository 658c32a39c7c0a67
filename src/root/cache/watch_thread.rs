//! The thread that makes and removes watches, one for each cache. The loop must not: the first watch
//! of a directory makes the kernel visit every name beneath it that it remembers, those of no file
//! too, and the file system may have to be asked for permission.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;

use rustix::fs::inotify::{self, WatchFlags};
use rustix::io::Errno;

use super::super::containment::{DIRECTORY_FLAGS, FILE_FLAGS, RootDir};
use crate::file::{FsClass, Inode, Lookup, MayBlock};
use crate::limits::{
    CACHE_DISCARDED_READS_MAX, CACHED_CONTENTS_BYTES_MAX, INOTIFY_BUFFER_BYTES, WATCH_STACK_BYTES,
};

/// Events that may make another file of a name: in a directory, and of the directory itself.
const DIRECTORY_EVENTS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// Events that may make other bytes or another state of a file. If a directory has its place by now,
/// nothing is taken from its watch.
const FILE_EVENTS: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::MASK_ADD);

/// What the thread is to do, in this order.
#[derive(Debug)]
pub(super) enum WatchTask {
    /// Watches a name and the directories on the way to it.
    Watch {
        /// Beneath this directory.
        root: Arc<RootDir>,
        /// The name.
        name: Box<[u8]>,
    },
    /// Removes watches.
    Remove(Vec<i32>),
    /// Removes watches, and throws away the events that are queued: they concern nothing that is kept.
    Clear(Vec<i32>),
}

/// What came of [`WatchTask::Watch`].
#[derive(Debug)]
pub(super) struct WatchedPath {
    /// Watches that were made, each with the length of its path: a beginning of the name.
    pub(super) watches: Vec<(usize, i32)>,
    /// The file that is watched; `None` if the name can't be kept.
    pub(super) file: Option<Inode>,
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
                let file = watch(&root, &name, inotify, &mut watches);
                if results.send(WatchedPath { watches, file }).is_err() {
                    return;
                }
            }
            WatchTask::Remove(watches) => remove(&watches, inotify),
            WatchTask::Clear(watches) => {
                remove(&watches, inotify);
                discard_events(inotify);
            }
        }
    }
}

fn remove(watches: &[i32], inotify: &OwnedFd) {
    for &watch in watches {
        // The kernel removes that of what is no more by itself.
        let _ = inotify::remove_watch(inotify, watch);
    }
}

fn discard_events(inotify: &OwnedFd) {
    let mut buffer = [MaybeUninit::uninit(); INOTIFY_BUFFER_BYTES];
    for _ in 0..CACHE_DISCARDED_READS_MAX {
        match rustix::io::read(inotify, &mut buffer) {
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
) -> Option<Inode> {
    // What can't be kept costs no watch.
    let file = walk(root, name, |_, _, _| Some(()))?;
    is_local_file(root, file)?;
    // Each is watched before it is looked at, or beneath.
    let file = walk(root, name, |end, handle, events| {
        let at = format!("/proc/self/fd/{}", handle.as_raw_fd());
        match inotify::add_watch(inotify, at, events) {
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
    is_local_file(root, file)
}

/// Opens a name component by component, and shows each handle before it looks beneath it.
fn walk(
    root: &RootDir,
    name: &[u8],
    mut show: impl FnMut(usize, BorrowedFd<'_>, WatchFlags) -> Option<()>,
) -> Option<OwnedFd> {
    if root.is_remote() {
        return None;
    }
    show(0, root.directory().as_fd(), DIRECTORY_EVENTS)?;
    let mut directory: Option<OwnedFd> = None;
    let mut begin = 0;
    while let Some(length) = name[begin..].iter().position(|&byte| byte == b'/') {
        let end = begin + length;
        let base = directory.as_ref().unwrap_or(root.directory());
        let next = root.open_component(base, &name[begin..end], DIRECTORY_FLAGS);
        let next = next.ok()?;
        show(end, next.as_fd(), DIRECTORY_EVENTS)?;
        directory = Some(next);
        begin = end + 1;
    }
    let base = directory.as_ref().unwrap_or(root.directory());
    let file = root.open_component(base, &name[begin..], FILE_FLAGS);
    let file = file.ok()?;
    show(name.len(), file.as_fd(), FILE_EVENTS)?;
    Some(file)
}

/// Which regular file this is, if it is one on this machine. Where the loop can't ask whether a read
/// would wait, it finds what it will read in memory.
fn is_local_file(root: &RootDir, file: OwnedFd) -> Option<Inode> {
    let Ok(Lookup::File(file)) = root.lookup_of(file, MayBlock::OnDisk) else {
        return None;
    };
    match file.fs_class() {
        FsClass::Remote => return None,
        FsClass::ReadOnce if file.length() <= CACHED_CONTENTS_BYTES_MAX => {
            drop(file.read_contents())
        }
        _ => {}
    }
    Some(file.inode())
}
