//! What is watched, by path and by watch.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use lru::LruCache;

use crate::limits::{CACHE_IDLE_DIRECTORIES_MAX, CACHE_WATCH_BYTES};

/// Directories and files that are watched. One inode has one watch, whatever its paths are. All
/// directories on the way to what is watched are watched.
#[derive(Debug)]
pub(super) struct Watches {
    /// Sorted by their bytes, so that all paths beneath a directory are one range.
    by_path: BTreeMap<Arc<[u8]>, i32>,
    /// Sorted, so that the paths of a watch are one range.
    by_watch: BTreeSet<(i32, Arc<[u8]>)>,
    /// Directories beneath which nothing is watched any more. They stay watched for a while: the kernel
    /// may take long to watch one anew.
    idle: LruCache<Arc<[u8]>, ()>,
    idle_max: usize,
    /// Watches that no path has any more.
    removed: Vec<i32>,
    bytes: usize,
}

impl Watches {
    /// Nothing is watched. `idle_bytes` is what directories may take beneath which nothing is.
    pub(super) fn new(idle_bytes: usize) -> Self {
        Self::with_idle_max((idle_bytes / CACHE_WATCH_BYTES).min(CACHE_IDLE_DIRECTORIES_MAX))
    }

    fn with_idle_max(idle_max: usize) -> Self {
        Self {
            by_path: BTreeMap::new(),
            by_watch: BTreeSet::new(),
            idle: LruCache::unbounded(),
            idle_max,
            removed: Vec::new(),
            bytes: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_path.is_empty()
    }

    /// What they take, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_path.len()
    }

    /// The watch of a path.
    pub(super) fn of(&self, path: &[u8]) -> Option<i32> {
        self.by_path.get(path).copied()
    }

    /// A path that has no watch is watched by this one.
    pub(super) fn add(&mut self, path: &[u8], watch: i32) {
        if let Some(parent) = parent(path) {
            self.idle.pop(parent);
        }
        let path: Arc<[u8]> = path.into();
        self.bytes += path.len() + CACHE_WATCH_BYTES;
        self.by_watch.insert((watch, Arc::clone(&path)));
        self.by_path.insert(path, watch);
    }

    /// The paths that a watch has, so many at most.
    pub(super) fn paths(&self, watch: i32, most: usize) -> Vec<Arc<[u8]>> {
        let paths = self.beginning_with(watch).map(|(_, path)| path);
        paths.take(most).cloned().collect()
    }

    fn beginning_with(&self, watch: i32) -> impl Iterator<Item = &(i32, Arc<[u8]>)> {
        self.by_watch
            .range((watch, Arc::default())..)
            .take_while(move |(other, _)| *other == watch)
    }

    /// The paths that are watched: this one, and those beneath it, so many at most.
    pub(super) fn at_or_beneath(&self, path: &[u8], most: usize) -> Vec<Arc<[u8]>> {
        let itself = self.by_path.get_key_value(path).into_iter();
        let itself = itself.map(|(path, _)| path);
        let all = itself.chain(self.beneath(path));
        all.take(most).cloned().collect()
    }

    fn beneath<'a>(&'a self, path: &[u8]) -> impl Iterator<Item = &'a Arc<[u8]>> {
        let prefix: Vec<u8> = match path {
            b"" => Vec::new(),
            path => [path, b"/"].concat(),
        };
        self.by_path
            .range::<[u8], _>((Excluded(&prefix[..]), Unbounded))
            .map(|(path, _)| path)
            .take_while(move |path| path.starts_with(&prefix))
    }

    /// Watches a path no more.
    pub(super) fn remove(&mut self, path: &[u8]) {
        let Some((path, watch)) = self.by_path.remove_entry(path) else {
            return;
        };
        self.idle.pop(&path);
        self.bytes -= path.len() + CACHE_WATCH_BYTES;
        self.by_watch.remove(&(watch, path));
        self.remove_unless_known(watch);
    }

    /// A watch that was made, and perhaps has no path.
    pub(super) fn remove_unless_known(&mut self, watch: i32) {
        if self.beginning_with(watch).next().is_none() {
            self.removed.push(watch);
        }
    }

    /// Something beneath a directory is watched no more.
    pub(super) fn left(&mut self, path: &[u8]) {
        if let Some(parent) = parent(path) {
            self.left_within(parent);
        }
    }

    /// Nothing beneath this directory may be watched now.
    pub(super) fn left_within(&mut self, directory: &[u8]) {
        self.note_if_idle(directory);
        while self.idle.len() > self.idle_max {
            self.remove_idle();
        }
    }

    /// Watches the directory no more beneath which nothing was watched for the longest time. Says
    /// whether there was any.
    pub(super) fn remove_idle(&mut self) -> bool {
        let Some((path, ())) = self.idle.pop_lru() else {
            return false;
        };
        self.remove(&path);
        if let Some(parent) = parent(&path) {
            self.note_if_idle(parent);
        }
        true
    }

    fn note_if_idle(&mut self, directory: &[u8]) {
        if self.beneath(directory).next().is_none()
            && let Some((directory, _)) = self.by_path.get_key_value(directory)
        {
            self.idle.put(Arc::clone(directory), ());
        }
    }

    /// The watches that no path has any more, since this was called last.
    pub(super) fn take_removed(&mut self) -> Vec<i32> {
        std::mem::take(&mut self.removed)
    }

    /// Takes all away.
    pub(super) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::with_idle_max(self.idle_max))
    }

    /// All watches, and those that no path has any more.
    pub(super) fn all(&self) -> Vec<i32> {
        let mut all = self.removed.clone();
        all.extend(self.by_watch.iter().map(|(watch, _)| watch));
        all.dedup();
        all
    }
}

/// The directory that a path is in. The root has none.
fn parent(path: &[u8]) -> Option<&[u8]> {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => Some(&path[..slash]),
        None if path.is_empty() => None,
        None => Some(b""),
    }
}
