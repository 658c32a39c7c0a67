//! Lists of folders, made in slices: a folder of ten thousand files must not hold up the loop.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::{Dir, FileType, Stat};

use super::beneath::Beneath;
use super::root::{Root, path_or_top};
use crate::disk::{Errand, Opened, Reach};
use crate::http::date;
use crate::http::listing::{Entry, Format, Kind, Renderer, Sort, accepts_json};
use crate::limits::{
    FOLDER_ENTRIES_MAX, FOLDER_FORGOTTEN, FOLDER_SLICE_ENTRIES, FOLDERS_AT_ONCE_MAX,
};
use crate::service::{Brought, LookupError};

/// Lists that are under way, and where a Gopher client finds this server.
#[derive(Debug, Default)]
pub struct Folders {
    host: String,
    port: u16,
    jobs: Vec<Job>,
}

/// How a list shall look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    sort: Sort,
    format: Format,
}

impl Look {
    /// What a request's query and Accept fields ask for.
    pub fn new<'a>(query: Option<&[u8]>, mut accept: impl Iterator<Item = &'a [u8]>) -> Self {
        let format = match accept.any(accepts_json) {
            true => Format::Json,
            false => Format::Html,
        };
        let sort = Sort::from_query(query);
        Self { sort, format }
    }
}

/// A list.
#[derive(Debug)]
pub enum Listed {
    /// Here it is.
    Whole {
        /// Its bytes.
        bytes: Rc<[u8]>,
        /// Their type.
        content_type: &'static str,
    },
    /// There is more to do: ask again when others had their turn.
    GoesOn,
    /// Reading the folder may have to wait for a disk: ask again when a helper has.
    Cold(Errand),
    /// The folder can't be read.
    Failed(LookupError),
}

impl Listed {
    fn without(error: LookupError, root: &Root, name: &[u8]) -> Self {
        match error {
            LookupError::Cold => Self::Cold(errand(root, name)),
            error => Self::Failed(error),
        }
    }
}

/// A list under way.
#[derive(Debug)]
struct Job {
    name: Box<[u8]>,
    look: Look,
    stage: Stage,
    /// When somebody last asked for it.
    asked_at: Instant,
}

#[derive(Debug)]
enum Stage {
    Reading { folder: Dir, entries: Vec<Entry> },
    Rendering { renderer: Renderer, bytes: Vec<u8> },
}

impl Folders {
    /// No list is under way.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Where a Gopher menu's items are found.
    pub fn set_address(&mut self, host: String, port: u16) {
        (self.host, self.port) = (host, port);
    }

    /// A list as a Gopher menu (RFC 1436).
    pub fn menu(
        &mut self,
        root: &Root,
        name: &[u8],
        folder: OwnedFd,
        brought: &[Brought],
    ) -> Listed {
        let (host, port) = (self.host.clone(), self.port);
        let look = Look {
            sort: Sort::default(),
            format: Format::Gopher { host, port },
        };
        self.list(root, name, folder, look, brought)
    }

    /// Goes on with the list that was asked for, or begins it. Clients that ask for the same one at
    /// the same time share its making. Where too many are under way it begins later: to make room by
    /// dropping one whose clients still ask would leave none that ever ends.
    ///
    /// A folder that a helper had to look for is read by a helper, too.
    pub fn list(
        &mut self,
        root: &Root,
        name: &[u8],
        folder: OwnedFd,
        look: Look,
        brought: &[Brought],
    ) -> Listed {
        let is_same = |job: &Job| *job.name == *name && job.look == look;
        let job = match self.jobs.iter().position(is_same) {
            Some(at) => self.jobs.remove(at),
            None if !self.has_room() => return Listed::GoesOn,
            None => {
                let begun = match entries_of(name, brought) {
                    Some(entries) => {
                        entries.map(|entries| Job::render(name, look, entries.to_vec()))
                    }
                    None if Root::was_brought(name, brought) => Err(LookupError::Cold),
                    None => Job::begin(name, folder, look),
                };
                match begun {
                    Ok(job) => job,
                    Err(error) => return Listed::without(error, root, name),
                }
            }
        };
        match job.go_on(root) {
            Ok(Progress::GoesOn(job)) => {
                self.jobs.push(Job {
                    asked_at: Instant::now(),
                    ..job
                });
                Listed::GoesOn
            }
            Ok(Progress::Whole(bytes, format)) => Listed::Whole {
                bytes: bytes.into(),
                content_type: format.content_type(),
            },
            Err(error) => Listed::without(error, root, name),
        }
    }

    /// Whether one more may begin, if need be for one that nobody asks for any more: its folder has
    /// another name now.
    fn has_room(&mut self) -> bool {
        // They stand in the order in which they were asked for.
        let is_forgotten = |job: &Job| job.asked_at.elapsed() > FOLDER_FORGOTTEN;
        if self.jobs.len() == FOLDERS_AT_ONCE_MAX && self.jobs.first().is_some_and(is_forgotten) {
            self.jobs.remove(0);
        }
        self.jobs.len() < FOLDERS_AT_ONCE_MAX
    }
}

/// What one slice of work came to.
enum Progress {
    GoesOn(Job),
    Whole(Vec<u8>, Format),
}

impl Job {
    fn begin(name: &[u8], folder: OwnedFd, look: Look) -> Result<Self, LookupError> {
        let stage = Stage::Reading {
            folder: Dir::new(folder).map_err(LookupError::Failed)?,
            entries: Vec::new(),
        };
        Ok(Self {
            name: name.into(),
            look,
            stage,
            asked_at: Instant::now(),
        })
    }

    /// A list of entries that were read.
    fn render(name: &[u8], look: Look, entries: Vec<Entry>) -> Self {
        let renderer = Renderer::new(look.format.clone(), name, look.sort, entries);
        Self {
            name: name.into(),
            look,
            stage: Stage::Rendering {
                renderer,
                bytes: Vec::new(),
            },
            asked_at: Instant::now(),
        }
    }

    /// One slice.
    fn go_on(mut self, root: &Root) -> Result<Progress, LookupError> {
        match &mut self.stage {
            Stage::Reading { folder, entries } => {
                let reach = root.reach();
                if !read_slice(folder, entries, &self.name, root.beneath(), reach)? {
                    return Ok(Progress::GoesOn(self));
                }
                let entries = std::mem::take(entries);
                Ok(Progress::GoesOn(Self::render(
                    &self.name, self.look, entries,
                )))
            }
            Stage::Rendering { renderer, bytes } => match renderer.next_chunk(FOLDER_SLICE_ENTRIES)
            {
                Some(chunk) => {
                    bytes.extend_from_slice(&chunk);
                    Ok(Progress::GoesOn(self))
                }
                None => Ok(Progress::Whole(std::mem::take(bytes), self.look.format)),
            },
        }
    }
}

/// What a helper has read of a folder.
fn entries_of<'b>(name: &[u8], brought: &'b [Brought]) -> Option<Result<&'b [Entry], LookupError>> {
    brought.iter().find_map(|brought| match brought {
        Brought::Listed { name: of, entries } if **of == *name => {
            Some(entries.as_deref().map_err(|&error| error))
        }
        _ => None,
    })
}

/// Reads a folder as a helper does: it holds nobody up.
fn errand(root: &Root, name: &[u8]) -> Errand {
    let (name, root) = (Box::<[u8]>::from(name), Arc::clone(root.beneath()));
    Errand::List {
        name: name.clone(),
        list: Box::new(move |reach| {
            let Opened::Folder(folder) = root.find_within(path_or_top(&name), reach)? else {
                return Err(LookupError::Refused("not a folder"));
            };
            let mut folder = Dir::new(folder).map_err(LookupError::Failed)?;
            let mut entries = Vec::new();
            while !read_slice(&mut folder, &mut entries, &name, &root, reach)? {}
            Ok(entries)
        }),
    }
}

/// Reads some entries; says whether those were the last. What vanishes meanwhile, and what is
/// neither file nor folder, is left out, as the root would refuse it.
fn read_slice(
    folder: &mut Dir,
    entries: &mut Vec<Entry>,
    path: &[u8],
    root: &Beneath,
    reach: Reach,
) -> Result<bool, LookupError> {
    for _ in 0..FOLDER_SLICE_ENTRIES {
        let Some(entry) = folder.read() else {
            return Ok(true);
        };
        let entry = entry.map_err(LookupError::Failed)?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") || !root.shows(name.to_bytes()) {
            continue;
        }
        let within = folder.fd().map_err(LookupError::Failed)?;
        let path = [path, b"/", name.to_bytes()].concat();
        let stat = root.look_at(within, name, &path, reach)?;
        entries.extend(stat.and_then(|stat| shown(name, &stat)));
        if entries.len() == FOLDER_ENTRIES_MAX {
            return Ok(true);
        }
    }
    Ok(false)
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
