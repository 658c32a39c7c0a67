//! Lists that are kept, each with the folder's watch.

use std::sync::Arc;
use std::time::Instant;

use lru::LruCache;

use crate::file::{FreshList, List};
use crate::http::listing::ListingStyle;
use crate::limits::{CACHE_FILE_BYTES, CACHE_FOLDERS_MAX, CACHE_FRESH, CACHE_LIST_TIMES};

/// Folders that are watched for their lists.
#[derive(Debug)]
pub(super) struct Folders {
    by_path: LruCache<Box<[u8]>, Folder>,
    /// The bytes that the lists and their entries take.
    bytes: usize,
}

#[derive(Debug)]
struct Folder {
    /// The kernel may have removed it since, or the cache.
    watch: i32,
    /// Changes before this time may have made no event that is known here.
    watched_since: Instant,
    /// The list in the style that was asked for last, and until when it is sent.
    list: Option<(ListingStyle, Arc<List>, Instant)>,
}

impl Folder {
    fn bytes(&self, path: &[u8]) -> usize {
        let list = self
            .list
            .as_ref()
            .map_or(0, |(_, list, _)| list.bytes().len());
        path.len() + CACHE_FILE_BYTES + list
    }
}

impl Folders {
    pub(super) fn new() -> Self {
        Self {
            by_path: LruCache::unbounded(),
            bytes: 0,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_path.is_empty()
    }

    /// From now on a folder has this watch.
    pub(super) fn watch(&mut self, path: &[u8], watch: i32) {
        self.forget(path);
        let folder = Folder {
            watch,
            watched_since: Instant::now(),
            list: None,
        };
        self.bytes += folder.bytes(path);
        self.by_path.put(path.into(), folder);
        while self.by_path.len() > CACHE_FOLDERS_MAX {
            self.forget_oldest();
        }
    }

    /// Whether a folder has this watch. `None`: it is not watched for its list.
    pub(super) fn is_watched(&mut self, path: &[u8], watch: Option<i32>) -> bool {
        self.by_path
            .get(path)
            .is_some_and(|folder| Some(folder.watch) == watch)
    }

    /// Something in the folder has changed, or it has itself. An event comes after what it tells of, so all
    /// that is begun from now on shows it. The turn's time won't do: since then, and before the change, a thread
    /// may have begun a list.
    pub(super) fn changed(&mut self, path: &[u8]) {
        if let Some(folder) = self.by_path.peek_mut(path) {
            self.bytes -= folder.bytes(path);
            (folder.list, folder.watched_since) = (None, Instant::now());
            self.bytes += folder.bytes(path);
        }
    }

    /// The list of a folder that has this watch. What makes no event shows when it is made anew.
    pub(super) fn list(
        &self,
        path: &[u8],
        style: &ListingStyle,
        now: Instant,
    ) -> Option<Arc<List>> {
        let (kept, list, until) = self.by_path.peek(path)?.list.as_ref()?;
        (now < *until && kept == style).then(|| Arc::clone(list))
    }

    /// Keeps the list of a folder that is watched, if all changes since it was begun are known.
    pub(super) fn keep(&mut self, path: &[u8], style: ListingStyle, fresh: &FreshList) {
        if let Some(folder) = self.by_path.peek_mut(path)
            && fresh.begun > folder.watched_since
        {
            self.bytes -= folder.bytes(path);
            let until = fresh.begun + CACHE_FRESH.max(CACHE_LIST_TIMES * fresh.took);
            folder.list = Some((style, Arc::clone(&fresh.list), until));
            self.bytes += folder.bytes(path);
        }
    }

    pub(super) fn forget(&mut self, path: &[u8]) {
        if let Some(folder) = self.by_path.pop(path) {
            self.bytes -= folder.bytes(path);
        }
    }

    /// Forgets the folder that was asked for longest ago. Says whether there was any.
    pub(super) fn forget_oldest(&mut self) -> bool {
        let oldest = self.by_path.pop_lru();
        if let Some((path, folder)) = &oldest {
            self.bytes -= folder.bytes(path);
        }
        oldest.is_some()
    }
}
