//! Lists of directories. A disk thread reads, sorts and renders, and hands the loop the finished bytes.
//!
//! A request gets a list that was begun after the request came, or one that the cache knows to be the
//! same. Requests that come while a list waits for its thread share it, and a list that equals one that is
//! still being sent is that one.

use std::ffi::CStr;
use std::mem;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Instant;

use rustix::fs::{FileType, Stat};

use super::Root;
use super::archive::{self, Order};
use super::containment::RootDir;
use super::folder::{Progress, read_folder};
use crate::escape::Excerpt;
use crate::file::{
    DiskTask, FreshList, List, ListError, ListMemory, ListTask, Listed, MayBlock, TaskResult,
};
use crate::http::date;
use crate::http::listing::entries::{Entries, Entry, Kind, Sort};
use crate::http::listing::{Format, ListingStyle, render};
use crate::limits::{
    ARCHIVE_ENTRIES_MAX, LISTING_ENTRIES_MAX, LISTING_SLICE_ENTRIES, LISTINGS_BYTES_MAX,
};

/// Lists that wait for their thread, and what lists say of this server.
#[derive(Debug)]
pub struct Listings {
    /// What the root is called.
    top: Arc<[u8]>,
    /// Where Gopher menus say that this server is, if not at the address that each client has reached.
    address: Option<(String, u16)>,
    /// The file that stands for a folder.
    index: Option<Arc<[u8]>>,
    memory: ListMemory,
    queued: Vec<Queued>,
}

impl Default for Listings {
    fn default() -> Self {
        Self {
            top: Arc::from(*b"/"),
            address: None,
            index: None,
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
    form: Form,
    task: Weak<ListTask>,
}

/// What is made of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// A list of what is in it.
    List(ListingStyle),
    /// The plan of a tar of all that is in it and beneath.
    Plan,
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

    /// Which file stands for a folder, in place of a list.
    pub fn set_index(&mut self, name: &[u8]) {
        self.index = Some(name.into());
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
        match listed(results) {
            Some(listed) => {
                root.note_listed(name, style, &listed);
                Ok(listed.map(|fresh| fresh.list))
            }
            None => match root.kept_list(name, &style) {
                Some(list) => Ok(Ok(list)),
                None => {
                    let form = Form::List(style);
                    Err(DiskTask::List(self.task(root.directory(), name, form)))
                }
            },
        }
    }

    /// As [`Listings::list`], the plan of a tar, which no cache keeps.
    ///
    /// # Errors
    /// As [`Listings::list`].
    pub fn plan(
        &mut self,
        root: &Root,
        name: &[u8],
        results: &[TaskResult],
    ) -> Result<Result<Arc<List>, ListError>, DiskTask> {
        match listed(results) {
            Some(listed) => Ok(listed.map(|fresh| fresh.list)),
            None => Err(DiskTask::List(self.task(
                root.directory(),
                name,
                Form::Plan,
            ))),
        }
    }

    /// The task for a list: one that waits to be begun, if there is one for the same list, or a new one.
    fn task(&mut self, root: &Arc<RootDir>, name: &[u8], form: Form) -> Arc<ListTask> {
        self.queued.retain(|queued| queued.task.strong_count() > 0);
        let is_same = |queued: &&Queued| {
            std::ptr::eq(queued.root.as_ptr(), Arc::as_ptr(root))
                && *queued.name == *name
                && queued.form == form
        };
        let same = self.queued.iter().filter(is_same);
        let mut same = same.filter_map(|queued| queued.task.upgrade());
        if let Some(task) = same.find(|task| task.can_be_joined()) {
            return task;
        }
        let work = Work {
            root: Arc::clone(root),
            name: name.into(),
            form: form.clone(),
            top: Arc::clone(&self.top),
            index: self.index.clone(),
            memory: self.memory.clone(),
        };
        let task = ListTask::new(move |task, may_block| work.make(task, may_block));
        self.queued.push(Queued {
            root: Arc::downgrade(root),
            name: name.into(),
            form,
            task: Arc::downgrade(&task),
        });
        task
    }
}

/// What a thread has made for a request, if it has.
fn listed(results: &[TaskResult]) -> Option<Listed> {
    results.iter().find_map(|result| match result {
        TaskResult::Listed(listed) => Some(listed.clone()),
        _ => None,
    })
}

/// What a thread needs to make a list.
struct Work {
    root: Arc<RootDir>,
    name: Box<[u8]>,
    form: Form,
    top: Arc<[u8]>,
    index: Option<Arc<[u8]>>,
    memory: ListMemory,
}

impl Work {
    fn make(&self, task: &ListTask, may_block: MayBlock) -> Listed {
        let begun = Instant::now();
        let progress = &mut Progress {
            task,
            may_block,
            memory: self.memory.reserve(),
        };
        let (bytes, shows_events_only) = match &self.form {
            Form::Plan => {
                let order = Order {
                    root: &self.root,
                    folder: &self.name,
                    top: &self.top,
                    index: self.index.as_deref(),
                    entries_max: ARCHIVE_ENTRIES_MAX,
                };
                (archive::plan(&order, progress)?, false)
            }
            Form::List(style) => self.render(style, progress)?,
        };
        progress.check(bytes.len())?;
        let memory = mem::replace(&mut progress.memory, self.memory.reserve());
        Ok(FreshList {
            list: self.memory.share(bytes, memory),
            begun,
            took: begun.elapsed(),
            shows_events_only,
        })
    }

    /// The list, and what [`Work::read`] says.
    fn render(
        &self,
        style: &ListingStyle,
        progress: &mut Progress<'_>,
    ) -> Result<(Vec<u8>, bool), ListError> {
        let (entries, shows_events_only) = self.read(style.sort, progress)?;
        let (total, shown) = entries.total_and_shown();
        if shown < total {
            let name = Excerpt::of_request(&self.name);
            log::warn!("the list of \"{name}\" shows {shown} of its {total} entries");
        }
        let entry_bytes = entries.bytes();
        let bytes = render(&style.format, &self.top, &self.name, entries, |bytes| {
            progress.check(entry_bytes + bytes)
        })?;
        Ok((bytes, shows_events_only))
    }

    /// Reads the directory. What vanishes meanwhile, what is neither file nor folder, and what can't be
    /// read is left out, as the root would refuse it. Says whether all changes of what is shown make events
    /// in the directory: those of what a link leads to, of a file with another name, and of a folder's
    /// content, which change its time, don't.
    fn read(&self, sort: Sort, progress: &mut Progress<'_>) -> Result<(Entries, bool), ListError> {
        let mut entries = Entries::new(sort, LISTING_ENTRIES_MAX);
        let (mut read, mut shows_events_only) = (0_usize, true);
        let may_block = progress.may_block;
        read_folder(&self.root, &self.name, may_block, |_, name, seen| {
            if read.is_multiple_of(LISTING_SLICE_ENTRIES) {
                progress.check(entries.bytes())?;
            }
            read += 1;
            if let Some(seen) = seen
                && let Some(entry) = shown(name, &seen.leads_to)
            {
                shows_events_only &=
                    seen.link.is_none() && entry.kind == Kind::File && seen.leads_to.st_nlink == 1;
                entries.push(entry);
            }
            Ok(())
        })?;
        Ok((entries, shows_events_only))
    }
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
