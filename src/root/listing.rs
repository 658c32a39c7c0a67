//! Lists of directories. A disk thread reads, sorts and renders, and hands the loop the finished bytes.
//!
//! A request gets a list that was begun after the request came, or one that the cache knows to be the
//! same. Requests that come while a list waits for its thread share it, and a list that equals one that is
//! still being sent is that one.

use std::ffi::CStr;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Weak};
use std::time::Instant;

use rustix::fs::{Access, AtFlags, Dir, FileType, Mode, Stat, accessat};
use rustix::io::Errno;

use super::containment::RootDir;
use super::{Root, path_or_root};
use crate::escape::Excerpt;
use crate::file::{
    DiskTask, FreshList, List, ListError, ListMemory, ListTask, Listed, Lookup, LookupError,
    MayBlock, Permit, TaskResult,
};
use crate::http::date;
use crate::http::listing::entries::{Entries, Entry, Kind, Sort};
use crate::http::listing::{Format, ListingStyle, render};
use crate::limits::{LISTING_ENTRIES_MAX, LISTING_SLICE_ENTRIES, LISTINGS_BYTES_MAX};

/// Lists that wait for their thread, and what lists say of this server.
#[derive(Debug)]
pub struct Listings {
    /// What the root is called.
    top: Arc<[u8]>,
    /// Where Gopher menus say that this server is, if not at the address that each client has reached.
    address: Option<(String, u16)>,
    memory: ListMemory,
    queued: Vec<Queued>,
}

impl Default for Listings {
    fn default() -> Self {
        Self {
            top: Arc::from(*b"/"),
            address: None,
            memory: ListMemory::new(LISTINGS_BYTES_MAX),
            queued: Vec::new(),
        }
    }
}

/// A list that other requests may wait for, too.
#[derive(Debug)]
struct Queued {
    root: Weak<RootDir>,
    name: Box<[u8]>,
    style: ListingStyle,
    task: Weak<ListTask>,
}

impl Listings {
    /// No list is under way.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What pages call the root.
    pub fn set_top(&mut self, name: &[u8]) {
        self.top = name.into();
    }

    /// Where a Gopher menu's items are found, whatever the address that its reader has connected to.
    pub fn set_address(&mut self, host: String, port: u16) {
        self.address = Some((host, port));
    }

    /// A list as a Gopher menu (RFC 1436), or as Gopher+ has it. Those who have connected to different
    /// addresses get different menus: each is told the one that it has `reached`.
    ///
    /// # Errors
    /// As [`Listings::list`].
    pub fn menu(
        &mut self,
        root: &mut Root,
        name: &[u8],
        plus: bool,
        reached: impl Fn() -> Option<SocketAddr>,
        results: &[TaskResult],
    ) -> Result<Result<Arc<List>, ListError>, DiskTask> {
        let reached = || reached().map(|reached| (reached.ip().to_string(), reached.port()));
        // If there is none, the connection broke, and nobody reads the menu.
        let (host, port) = self.address.clone().or_else(reached).unwrap_or_default();
        let style = ListingStyle {
            sort: Sort::default(),
            format: Format::Gopher { host, port, plus },
        };
        self.list(root, name, style, results)
    }

    /// The list of what has this name: as a thread begins it, or as it was if nothing has changed since.
    ///
    /// # Errors
    /// There is no result yet: this task is to be done first.
    pub fn list(
        &mut self,
        root: &mut Root,
        name: &[u8],
        style: ListingStyle,
        results: &[TaskResult],
    ) -> Result<Result<Arc<List>, ListError>, DiskTask> {
        let listed = results.iter().find_map(|result| match result {
            TaskResult::Listed(listed) => Some(listed.clone()),
            _ => None,
        });
        match listed {
            Some(listed) => {
                root.note_listed(name, style, &listed);
                Ok(listed.map(|fresh| fresh.list))
            }
            None => match root.kept_list(name, &style) {
                Some(list) => Ok(Ok(list)),
                None => Err(DiskTask::List(self.task(root.directory(), name, style))),
            },
        }
    }

    /// The task for a list: one that waits to be begun, if there is one for the same list, or a new one.
    fn task(&mut self, root: &Arc<RootDir>, name: &[u8], style: ListingStyle) -> Arc<ListTask> {
        self.queued.retain(|queued| queued.task.strong_count() > 0);
        let is_same = |queued: &&Queued| {
            std::ptr::eq(queued.root.as_ptr(), Arc::as_ptr(root))
                && *queued.name == *name
                && queued.style == style
        };
        let same = self.queued.iter().filter(is_same);
        let mut same = same.filter_map(|queued| queued.task.upgrade());
        if let Some(task) = same.find(|task| task.can_be_joined()) {
            return task;
        }
        let work = Work {
            root: Arc::clone(root),
            name: name.into(),
            style: style.clone(),
            top: Arc::clone(&self.top),
            memory: self.memory.clone(),
        };
        let task = ListTask::new(move |task, may_block| work.make(task, may_block));
        self.queued.push(Queued {
            root: Arc::downgrade(root),
            name: name.into(),
            style,
            task: Arc::downgrade(&task),
        });
        task
    }
}

/// What a thread needs to make a list.
struct Work {
    root: Arc<RootDir>,
    name: Box<[u8]>,
    style: ListingStyle,
    top: Arc<[u8]>,
    memory: ListMemory,
}

impl Work {
    fn make(&self, task: &ListTask, may_block: MayBlock) -> Listed {
        let begun = Instant::now();
        let mut memory = self.memory.reserve();
        let (entries, shows_events_only) = self.read(task, may_block, &mut memory)?;
        let (total, shown) = entries.total_and_shown();
        if shown < total {
            let name = Excerpt::of_request(&self.name);
            log::warn!("the list of \"{name}\" shows {shown} of its {total} entries");
        }
        let entry_bytes = entries.bytes();
        let ListingStyle { format, .. } = &self.style;
        let bytes = render(format, &self.top, &self.name, entries, |bytes| {
            check_in_progress(task, &mut memory, entry_bytes + bytes)
        })?;
        resize(&mut memory, bytes.len())?;
        Ok(FreshList {
            list: self.memory.share(bytes, memory),
            begun,
            shows_events_only,
        })
    }

    /// Reads the directory. What vanishes meanwhile, what is neither file nor folder, and what can't be
    /// read is left out, as the root would refuse it. Says whether all changes of what is shown make events
    /// in the directory: those of what a link leads to, of a file with another name, and of a folder's
    /// content, which change its time, don't.
    fn read(
        &self,
        task: &ListTask,
        may_block: MayBlock,
        memory: &mut Permit,
    ) -> Result<(Entries, bool), ListError> {
        let found = self.root.find(path_or_root(&self.name), may_block)?;
        let Lookup::Directory(directory) = found else {
            return Err(LookupError::Refused("not a folder").into());
        };
        let mut directory = Dir::new(directory).map_err(LookupError::Failed)?;
        let mut entries = Entries::new(self.style.sort, LISTING_ENTRIES_MAX);
        let mut shows_events_only = true;
        let mut read = 0;
        while let Some(dirent) = directory.read() {
            let dirent = dirent.map_err(LookupError::Failed)?;
            let name = dirent.file_name();
            if read % LISTING_SLICE_ENTRIES == 0 {
                check_in_progress(task, memory, entries.bytes())?;
            }
            read += 1;
            if matches!(name.to_bytes(), b"." | b"..") || !self.root.shows(name.to_bytes()) {
                continue;
            }
            let within = directory.fd().map_err(LookupError::Failed)?;
            let stat = self.root.look_at((within, &self.name), name, may_block)?;
            if let Some(stat) = stat
                && let Some(entry) = shown(name, &stat)
                && is_readable(within, name, &stat)
            {
                shows_events_only &=
                    dirent.file_type() == FileType::RegularFile && stat.st_nlink == 1;
                entries.push(entry);
            }
        }
        Ok((entries, shows_events_only))
    }
}

/// Fails if nobody waits for the list any more, or if there is less memory than it needs.
fn check_in_progress(task: &ListTask, memory: &mut Permit, bytes: usize) -> Result<(), ListError> {
    if task.is_cancelled() {
        // There is nobody to be told why.
        return Err(LookupError::Refused("nobody waits").into());
    }
    resize(memory, bytes)
}

fn resize(memory: &mut Permit, bytes: usize) -> Result<(), ListError> {
    let fits = memory.resize(bytes as u64);
    fits.then_some(()).ok_or(ListError::NoMemory)
}

/// Whether the server may read what was found to be in a directory. A link leads to where it was found
/// to lead.
fn is_readable(folder: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> bool {
    // What everybody may read needs no question of its own: a large folder has many such files.
    let everybody = Mode::RUSR | Mode::RGRP | Mode::ROTH;
    if Mode::from_raw_mode(stat.st_mode).contains(everybody) {
        return true;
    }
    let denied = accessat(folder, name, Access::READ_OK, AtFlags::EACCESS);
    denied != Err(Errno::ACCESS)
}

fn shown(name: &CStr, stat: &Stat) -> Option<Entry> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Folder,
        _ => return None,
    };
    Some(Entry {
        name: name.to_bytes().to_vec(),
        kind,
        // The kernel never reports a negative length.
        size: stat.st_size as u64,
        mtime: date::from_stat((stat.st_mtime, stat.st_mtime_nsec)),
    })
}
