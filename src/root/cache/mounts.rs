//! Whether anything was mounted or unmounted, which makes no inotify event.

use std::fs::File;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::limits::CACHE_FRESH;
use crate::trace::record::{self, Call};

/// The mounts that this process sees. The kernel marks the open table when they change (proc(5)).
#[derive(Debug)]
pub(super) struct Mounts {
    table: Option<File>,
    ask_again_at: Option<Instant>,
    changed_at: Option<Instant>,
}

impl Mounts {
    /// The mounts as they are now. Without proc(5) nobody tells of changes.
    pub(super) fn new() -> Self {
        let table = File::open("/proc/self/mountinfo");
        Self {
            table: table
                .inspect_err(|error| log::debug!("mounts aren't watched: {error}"))
                .ok(),
            ask_again_at: None,
            changed_at: None,
        }
    }

    /// As without proc(5).
    #[cfg(test)]
    pub(super) fn unwatched() -> Self {
        Self {
            table: None,
            ..Self::new()
        }
    }

    /// Whether changes are told of.
    pub(super) fn are_watched(&self) -> bool {
        self.table.is_some()
    }

    /// Asks for changes, unless that was done within [`CACHE_FRESH`].
    pub(super) fn ask(&mut self, now: Instant) {
        let Some(table) = &self.table else { return };
        if self.ask_again_at.is_some_and(|at| now < at) {
            return;
        }
        self.ask_again_at = Some(now + CACHE_FRESH);
        let mut table = [PollFd::new(table, PollFlags::PRI)];
        // A poll that fails may have missed a change.
        let unchanged = record::call(Call::AskMounts, || {
            poll(&mut table, Some(&Timespec::default()))
        });
        if unchanged != Ok(0) {
            self.note_changed(now);
        }
    }

    pub(super) fn note_changed(&mut self, now: Instant) {
        self.changed_at = Some(now);
    }

    /// Whether what was found then may be hidden by a mount now.
    pub(super) fn may_hide(&self, found: Instant) -> bool {
        self.changed_at.is_some_and(|changed| found < changed)
    }
}
