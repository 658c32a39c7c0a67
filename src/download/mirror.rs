//! `get -r`: reads the lists of folders, level by level, and finds what there is to fetch. Nothing outside
//! a folder is asked for there or written here, whatever its lists say.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::mem;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::Method;

use super::backoff::{Backoff, FetchError};
use super::connection::TimeLimits;
use super::http_client::{HttpClient, Wanted, holds_whole, refusal};
use super::list::{self, Form};
use super::output::Destination;
use super::part_file::{SharedPart, cannot_write, whole_name_of};
use super::resume;
use super::target_dir::TargetDir;
use super::transfer::{DownloadSpec, Session};
use super::url::{DownloadSource, Entry, FolderUrl, HttpUrl, Link};
use super::{local_name, pool};
use crate::escape::{Escaped, EscapedText, Excerpt};
use crate::failure::{Exit, Failure};
use crate::limits;

/// A folder to mirror.
#[derive(Debug)]
pub(super) struct MirrorSpec {
    /// The URL, as it was asked for.
    pub(super) label: Vec<u8>,
    pub(super) url: HttpUrl,
    /// The folder here that becomes the same.
    pub(super) path: PathBuf,
}

/// A folder there that has been read, or will be.
#[derive(Debug)]
pub(super) struct Folder {
    url: FolderUrl,
    /// The first folder, which nothing may lead out of.
    bounds: Arc<FolderUrl>,
    target: Arc<TargetDir>,
    /// Where it lies beneath the target.
    path: PathBuf,
    /// How far beneath.
    depth: usize,
}

impl Folder {
    /// A folder in this one, unless it is too deep.
    fn child(&self, entry: &Entry) -> Option<Arc<Self>> {
        if self.depth == limits::MIRROR_DEPTH_MAX {
            return None;
        }
        let url = self.url.join(&Entry {
            is_folder: true,
            ..entry.clone()
        });
        Some(Arc::new(Self {
            url: FolderUrl::of(&url).expect("it ends with a slash"),
            bounds: Arc::clone(&self.bounds),
            target: Arc::clone(&self.target),
            path: beneath(&self.path, entry),
            depth: self.depth + 1,
        }))
    }
}

/// A file that a list names.
#[derive(Debug)]
pub(super) struct ListedFile {
    folder: Arc<Folder>,
    entry: Entry,
}

impl ListedFile {
    /// How it is fetched.
    pub(super) fn spec(&self) -> DownloadSpec {
        let Folder {
            url,
            bounds,
            target,
            path,
            ..
        } = &*self.folder;
        let (url, path) = (url.join(&self.entry), beneath(path, &self.entry));
        DownloadSpec {
            label: url.identity().into_bytes(),
            destination: Destination::Mirrored(Arc::clone(target), path),
            source: DownloadSource::Http(url),
            bounds: Some(Arc::clone(bounds)),
        }
    }

    /// The folder that it has turned out to be.
    ///
    /// # Errors
    /// It is too deep.
    pub(super) fn as_folder(&self) -> Result<Arc<Folder>, Failure> {
        self.folder.child(&self.entry).ok_or_else(|| too_deep(1))
    }
}

/// The failure of so many folders.
fn too_deep(count: usize) -> Failure {
    let line = format!("folders that are too deep are left out: {count}");
    Failure::new(Exit::Protocol, line)
}

/// The name here of what a list names.
fn local(entry: &Entry) -> Vec<u8> {
    local_name::escaped(&entry.name())
}

/// Its path, that of the folder given.
fn beneath(folder: &Path, entry: &Entry) -> PathBuf {
    folder.join(OsStr::from_bytes(&local(entry)))
}

/// What is to be looked at next.
#[derive(Debug)]
enum Unread<'a> {
    First(&'a MirrorSpec),
    Beneath(Arc<Folder>),
}

/// What all lists of one command have named so far.
#[derive(Debug, Default)]
pub(super) struct Walk(Mutex<Found>);

#[derive(Debug, Default)]
struct Found {
    files: Vec<ListedFile>,
    /// The folders of the next level.
    folders: Vec<Arc<Folder>>,
    /// Of all lists.
    entries: usize,
    lists: usize,
    /// Of the lists that were not read as there were too many.
    lists_left_out: usize,
}

impl Walk {
    /// Reads the lists of the first folders and of all beneath, makes the folders here, and returns what is to be
    /// fetched. `fail` is told what can't be mirrored.
    pub(super) fn first_files(
        &self,
        mirrors: &[MirrorSpec],
        session: &Session<'_>,
        fail: impl Fn(&[u8], Failure) + Sync,
    ) -> Vec<ListedFile> {
        self.read(mirrors.iter().map(Unread::First).collect(), session, fail)
    }

    /// As [`Walk::first_files`], of files that turned out to be folders.
    pub(super) fn files_beneath(
        &self,
        folders: Vec<Arc<Folder>>,
        session: &Session<'_>,
        fail: impl Fn(&[u8], Failure) + Sync,
    ) -> Vec<ListedFile> {
        let level = folders.into_iter().map(Unread::Beneath).collect();
        self.read(level, session, fail)
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(
        &self,
        mut level: Vec<Unread<'_>>,
        session: &Session<'_>,
        fail: impl Fn(&[u8], Failure) + Sync,
    ) -> Vec<ListedFile> {
        let first = level.first().map(Unread::label).unwrap_or_default();
        while !level.is_empty() {
            pool::each(&level, session.jobs(), |unread| {
                if !self.found().may_read_another() {
                    return ControlFlow::Continue(());
                }
                let label = unread.label();
                let guard = session.active.enter(&label, &SharedPart::default());
                let read = unread.read(&label, session);
                drop(guard);
                match read {
                    Ok((folder, listed)) => {
                        let complain = |failure| fail(&label, failure);
                        let mut found = self.found();
                        found.add(&folder, listed, complain);
                        session.console.count_lists(found.lists);
                    }
                    Err(failure) => fail(&label, failure),
                }
                ControlFlow::Continue(())
            });
            let folders = mem::take(&mut self.found().folders);
            level = folders.into_iter().map(Unread::Beneath).collect();
        }
        let mut found = self.found();
        let count = mem::take(&mut found.lists_left_out);
        if count > 0 {
            let max = limits::MIRROR_LISTS_MAX;
            let line = format!("{count} lists are left out: there are more than {max}");
            fail(&first, Failure::new(Exit::Protocol, line));
        }
        mem::take(&mut found.files)
    }
}

impl Found {
    /// Counts a list, which is read if there aren't too many.
    fn may_read_another(&mut self) -> bool {
        let may = self.lists < limits::MIRROR_LISTS_MAX;
        let count = if may {
            &mut self.lists
        } else {
            &mut self.lists_left_out
        };
        *count += 1;
        may
    }

    /// Adds what the list of a folder names, or nothing of it if that is too much.
    fn add(&mut self, folder: &Arc<Folder>, listed: Listed, complain: impl Fn(Failure)) {
        let max = limits::MIRROR_ENTRIES_MAX;
        if listed.is_too_long || listed.entries.len() > max - self.entries {
            let line = format!("left out: there are more than {max} entries in all lists");
            return complain(Failure::new(Exit::Protocol, line));
        }
        listed.tell_what_is_missing(&complain);
        self.entries += listed.entries.len();
        let mut deep_count = 0;
        for entry in listed.entries {
            if !entry.is_folder {
                let folder = Arc::clone(folder);
                self.files.push(ListedFile { folder, entry });
            } else if let Some(child) = folder.child(&entry) {
                self.folders.push(child);
            } else {
                deep_count += 1;
            }
        }
        if deep_count > 0 {
            complain(too_deep(deep_count));
        }
    }
}

impl Unread<'_> {
    fn label(&self) -> Vec<u8> {
        match self {
            Self::First(mirror) => mirror.label.clone(),
            Self::Beneath(folder) => folder.url.url().identity().into_bytes(),
        }
    }

    /// Reads the list, and makes the folder here.
    fn read(&self, label: &[u8], session: &Session<'_>) -> Result<(Arc<Folder>, Listed), Failure> {
        match self {
            Self::First(mirror) => {
                let (url, listed) = fetch(label, &mirror.url, None, session)?;
                // A page in a list's place would be one without links, too.
                if listed.is_blank {
                    return Err(no_list("its page has no links"));
                }
                let path = &mirror.path;
                let target = TargetDir::make(path).map_err(|error| cannot_write(path, &error))?;
                let folder = Folder {
                    bounds: Arc::new(url.clone()),
                    url,
                    target: Arc::new(target),
                    path: PathBuf::new(),
                    depth: 0,
                };
                Ok((Arc::new(folder), listed))
            }
            Self::Beneath(folder) => {
                let url = folder.url.url();
                let (final_url, listed) = fetch(label, url, Some(&folder.bounds), session)?;
                if final_url.url().identity() != url.identity() {
                    let line = "the server redirects to the list of another folder";
                    return Err(Failure::new(Exit::Protocol, line));
                }
                let (target, path) = (&folder.target, &folder.path);
                let made = target.make_folder(path);
                made.map_err(|error| cannot_write(&target.path_of(path), &error))?;
                Ok((Arc::clone(folder), listed))
            }
        }
    }
}

/// Fetches a list, as often as it takes and may, and returns whose it is.
fn fetch(
    label: &[u8],
    url: &HttpUrl,
    bounds: Option<&FolderUrl>,
    session: &Session<'_>,
) -> Result<(FolderUrl, Listed), Failure> {
    let args = session.args;
    let time_limits = TimeLimits::starting_now(args.client);
    let client = HttpClient::new(session, time_limits, bounds);
    let mut backoff = Backoff::new(args.retries, args.retry_delay);
    loop {
        match attempt(&client, url) {
            Ok(listed) => return Ok(listed),
            Err(FetchError::Permanent(failure)) => return Err(failure),
            Err(FetchError::Transient(failure, retry_after)) => {
                let note = |line: &str| {
                    let note = format!("{}: {line}", Escaped(label));
                    session.console.note(&note);
                };
                backoff.rest(failure, retry_after, time_limits.left(), note)?;
            }
        }
    }
}

fn attempt(client: &HttpClient<'_>, url: &HttpUrl) -> Result<(FolderUrl, Listed), FetchError> {
    let (folder, form, text) = ask(client, url, Wanted::List)?;
    let listed = match (Listed::read(form, &text, &folder), form) {
        (Err(_), Form::Json) => {
            // Programs that know this server read its JSON; its page is for everybody.
            let (_, form, text) = ask(client, url, Wanted::Page)?;
            Listed::read(form, &text, &folder)
        }
        (listed, _) => listed,
    };
    let listed = listed.map_err(|why| no_list(&why))?;
    Ok((folder, listed))
}

fn no_list(why: &str) -> Failure {
    let why = EscapedText(why);
    Failure::new(Exit::Protocol, format!("the server sends no list: {why}"))
}

/// Asks for what should be a list, and returns of which folder, in which form, and its text.
fn ask(
    client: &HttpClient<'_>,
    url: &HttpUrl,
    wanted: Wanted<'_>,
) -> Result<(FolderUrl, Form, Vec<u8>), FetchError> {
    let (url, response) = client.ask_anywhere(&Method::GET, url, wanted)?;
    if !holds_whole(response.status) {
        return Err(refusal(response.status, &response.headers));
    }
    let form = Form::of(&response.headers).filter(|_| resume::is_plain(&response.headers));
    let form = form.ok_or_else(|| no_list("it is neither a page nor JSON"))?;
    let url = FolderUrl::of(&url).ok_or_else(|| no_list("its address has no / at the end"))?;
    let max = limits::MIRROR_LIST_BYTES_MAX;
    let text = response.body.all(max);
    let text = text.map_err(|error| error.into_fetch_error("the list broke off"))?;
    let text = text.ok_or_else(|| no_list(&format!("it has more than {max} bytes")))?;
    Ok((url, form, text))
}

/// What a list says.
#[derive(Debug, Default)]
struct Listed {
    entries: Vec<Entry>,
    /// It is a page without a link, as some servers have of an empty folder.
    is_blank: bool,
    /// There were more than all lists may have together.
    is_too_long: bool,
    /// What is wrong with names that can't be files' here: the first ones, and how many there are.
    unfit: Vec<String>,
    unfit_count: usize,
    /// How many entries the folder has, if the list doesn't show all.
    total: Option<usize>,
}

impl Listed {
    fn read(form: Form, text: &[u8], folder: &FolderUrl) -> Result<Self, String> {
        let mut listed = Self::default();
        let (mut names, mut links) = (HashMap::new(), 0_usize);
        let total = list::read(form, text, |reference| {
            links += 1;
            if !listed.is_too_long {
                listed.add(folder.link(reference), reference, &mut names);
            }
        })?;
        listed.total = total;
        listed.is_blank = form == Form::Html && links == 0;
        listed.leave_out_parts(&names);
        Ok(listed)
    }

    /// Adds an entry if it has a name here that no other one has. One that comes twice is one.
    fn add(&mut self, link: Link, reference: &[u8], names: &mut HashMap<Vec<u8>, Vec<u8>>) {
        let entry = match link {
            Link::Elsewhere => return,
            Link::Unfit => return self.leave_out(reference, "it is no name of a file"),
            Link::Entry(entry) => entry,
        };
        let (name, local) = (entry.name(), local(&entry));
        if local.len() > limits::FILE_NAME_BYTES_MAX {
            return self.leave_out(&name, "its name is too long");
        }
        match names.get(&local) {
            Some(first) if *first == name => return,
            Some(_) => return self.leave_out(&name, "another one has its name here"),
            None => {}
        }
        if self.entries.len() == limits::MIRROR_ENTRIES_MAX {
            self.is_too_long = true;
            return;
        }
        names.insert(local, name);
        self.entries.push(entry);
    }

    /// A download keeps what it has of `x` in `x.part`: no file of that name would be safe beside it.
    fn leave_out_parts(&mut self, names: &HashMap<Vec<u8>, Vec<u8>>) {
        for entry in mem::take(&mut self.entries) {
            let local = local(&entry);
            if whole_name_of(&local).is_some_and(|whole| names.contains_key(whole)) {
                self.leave_out(&entry.name(), "it has the name of another one's part");
            } else {
                self.entries.push(entry);
            }
        }
    }

    fn leave_out(&mut self, name: &[u8], why: &str) {
        self.unfit_count += 1;
        if self.unfit.len() < limits::MIRROR_COMPLAINTS_MAX {
            let name = Excerpt::new(name, limits::LOG_TEXT_BYTES_MAX);
            self.unfit.push(format!("'{name}' is left out: {why}"));
        }
    }

    fn tell_what_is_missing(&self, complain: &impl Fn(Failure)) {
        for line in &self.unfit {
            complain(Failure::new(Exit::FileIo, line));
        }
        let untold = self.unfit_count - self.unfit.len();
        if untold > 0 {
            let line = format!("{untold} more are left out");
            complain(Failure::new(Exit::FileIo, line));
        }
        if let Some(total) = self.total {
            let line = format!("its list doesn't show all of its {total} entries");
            complain(Failure::new(Exit::Protocol, line));
        }
    }
}
