//! A folder in one piece, as a tar of all that its list and those beneath it show. A disk thread plans it
//! beforehand, so that its length and its version are known; disk threads make it, piece by piece, while it
//! is sent. A file that isn't the planned one any more can't be sent: the tar is cut off there.

use std::ffi::CStr;
use std::ops::Range;
use std::sync::Arc;

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::Root;
use super::containment::{RootDir, Seen, path_of};
use super::folder::{Folder, Progress, read_folder};
use crate::file::version::{self, FileVersion, Stamp, Trust};
use crate::file::{
    List, ListError, Lookup, LookupError, MayBlock, OpenFile, Piece, PieceError, Pieces, Semaphore,
};
use crate::http::listing::tar::{Kind, Member, Plan, PlanBuilder, Version};
use crate::limits::{
    ARCHIVE_MEMBER_BYTES_MAX, COPIED_PART_BYTES_MAX, LISTING_SLICE_ENTRIES, PATH_BYTES_MAX,
    TASK_RESULT_BYTES_MAX,
};
use crate::trace::record::{self, Call};

/// What is called so in a tar lies where it is unpacked.
const HERE: &[u8] = b".";

/// The name of the folder in its tar: its own one. `top` is the root's, which may be none.
pub(super) fn name_in_tar<'n>(folder: &'n [u8], top: &'n [u8]) -> &'n [u8] {
    let mut components = folder.split(|&byte| byte == b'/');
    let own = components.rfind(|component| !component.is_empty());
    own.or(Some(top).filter(|top| !top.contains(&b'/')))
        .unwrap_or(HERE)
}

/// A folder's tar, to be sent.
#[derive(Debug)]
pub struct Archive {
    root: Arc<RootDir>,
    /// The folder's path beneath the root, which ends in a slash unless it is the root.
    folder: Box<[u8]>,
    plan: Arc<List>,
    /// The descriptors that files may have.
    descriptors: Semaphore,
}

impl Archive {
    /// The tar of a folder that was planned.
    #[must_use]
    pub fn new(root: &Root, folder: &[u8], plan: Arc<List>) -> Self {
        Self {
            root: Arc::clone(root.directory()),
            folder: path_of(folder).into(),
            plan,
            descriptors: root.open_files.descriptors.clone(),
        }
    }

    fn plan(&self) -> Plan<'_> {
        Plan::new(self.plan.bytes())
    }

    /// See [`Plan::digest`].
    #[must_use]
    pub fn digest(&self) -> Option<&[u8]> {
        self.plan().digest()
    }

    /// What the folder is called in it, without a slash.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        let path = self.plan().member(0).path;
        path.strip_suffix(b"/").unwrap_or(path)
    }

    /// Opens a member's file, which must be the one that was planned.
    fn open(
        &self,
        member: &Member<'_>,
        planned: Version,
        may_block: MayBlock,
    ) -> Result<Arc<OpenFile>, PieceError> {
        let within = &member.path[self.name().len() + 1..];
        let path = [&self.folder, within].concat();
        let file = match self.root.find(&path, may_block) {
            Ok(Lookup::File(file)) => file,
            Err(LookupError::OtherMount(mount)) => return Err(PieceError::OtherMount(mount)),
            Err(LookupError::Failed(errno)) => return Err(PieceError::Failed(errno.into())),
            Err(LookupError::NoDescriptor) => return Err(PieceError::Failed(Errno::MFILE.into())),
            Ok(Lookup::Directory(_)) | Err(LookupError::Refused(_) | LookupError::WouldBlock) => {
                return Err(PieceError::Changed);
            }
        };
        let facts = file.facts();
        let is_planned = planned.inode.is_none_or(|inode| inode == file.inode().1)
            && (facts.length, facts.modified, facts.changed)
                == (planned.length, member.modified, planned.changed);
        is_planned.then_some(file).ok_or(PieceError::Changed)
    }
}

impl Pieces for Archive {
    fn length(&self) -> u64 {
        self.plan().length()
    }

    fn make(&self, range: Range<u64>, may_block: MayBlock) -> Result<Piece, PieceError> {
        let (plan, mut bytes) = (self.plan(), Vec::new());
        let at = |bytes: &Vec<u8>| range.start + bytes.len() as u64;
        let piece = |bytes, file| Ok(Piece::new(range.start, bytes, file));
        for index in plan.members_from(range.start) {
            let (member, offset) = (plan.member(index), plan.offset(index));
            let head = member.head();
            // The first member may be wanted from its middle on. A head's length fits.
            let begun = (at(&bytes) - offset).min(head.len() as u64) as usize;
            bytes.extend_from_slice(&head[begun..]);
            let content = offset + head.len() as u64;
            let sent = at(&bytes) - content;
            if let Kind::File(planned) = member.kind
                && sent < planned.length
                && at(&bytes) < range.end
            {
                let file = self.open(&member, planned, may_block)?;
                let wanted = planned.length.min(range.end - content) - sent;
                if wanted > COPIED_PART_BYTES_MAX && file.acquire_descriptor(&self.descriptors) {
                    return piece(bytes, Some((file, sent..planned.length)));
                }
                let count = wanted.min(TASK_RESULT_BYTES_MAX - bytes.len() as u64);
                read_unchanged(&file, sent, count, &mut bytes)?;
                if sent + count < planned.length {
                    return piece(bytes, None);
                }
            }
            // Less than a block.
            let padding = (plan.offset(index + 1) - at(&bytes)) as usize;
            bytes.resize(bytes.len() + padding, 0);
            let is_full = bytes.len() as u64 > TASK_RESULT_BYTES_MAX - ARCHIVE_MEMBER_BYTES_MAX;
            if is_full || at(&bytes) >= range.end {
                return piece(bytes, None);
            }
        }
        let end = (self.length() - at(&bytes)) as usize;
        bytes.resize(bytes.len() + end, 0);
        piece(bytes, None)
    }
}

/// Adds so many bytes of a file, unless it became shorter or was overwritten meanwhile.
fn read_unchanged(
    file: &OpenFile,
    start: u64,
    count: u64,
    bytes: &mut Vec<u8>,
) -> Result<(), PieceError> {
    let (begin, mut done) = (bytes.len(), 0);
    // It fits in a piece.
    bytes.resize(begin + count as usize, 0);
    while done < count {
        let into = &mut bytes[begin + done as usize..];
        let read = file.read_blocking(into, start + done);
        match read.map_err(PieceError::Failed)? {
            0 => return Err(PieceError::Changed),
            more => done += more as u64,
        }
    }
    let is_overwritten = file.is_overwritten().map_err(PieceError::Failed)?;
    (!is_overwritten).then_some(()).ok_or(PieceError::Changed)
}

/// What an archive is to be made of.
pub(super) struct Order<'a> {
    pub(super) root: &'a RootDir,
    /// The folder's name.
    pub(super) folder: &'a [u8],
    /// What the root is called.
    pub(super) top: &'a [u8],
    /// The file that stands for a folder: who sees it doesn't see what lies beside it.
    pub(super) index: Option<&'a [u8]>,
    /// How many entries there may be.
    pub(super) entries_max: usize,
}

/// What was found in a folder.
struct Child {
    name: Vec<u8>,
    kind: ChildKind,
    mode: u32,
    modified: Stamp,
    trust: Trust,
}

enum ChildKind {
    Folder,
    Link(Vec<u8>),
    File(Version),
}

impl Child {
    /// The memory that it takes, in bytes.
    fn bytes(&self) -> usize {
        let target = match &self.kind {
            ChildKind::Link(target) => target.capacity(),
            ChildKind::Folder | ChildKind::File(_) => 0,
        };
        size_of::<Self>() + self.name.capacity() + target
    }
}

/// A plan under way.
struct Walk<'a, 'p> {
    order: &'a Order<'a>,
    progress: &'a mut Progress<'p>,
    /// What the clock that stamps files showed before the first one was looked at.
    clock: Stamp,
    plan: PlanBuilder,
    /// How many entries were found.
    entries: usize,
    /// The memory of those that are not in the plan yet, in bytes.
    ahead_bytes: usize,
}

/// Plans a folder's tar: what is in a folder follows it, in the order of its names' bytes.
///
/// # Errors
/// A folder can't be read, nobody waits any more, or it is too much.
pub(super) fn plan(order: &Order<'_>, progress: &mut Progress<'_>) -> Result<Vec<u8>, ListError> {
    let mut walk = Walk {
        order,
        progress,
        clock: version::stamp_clock(),
        plan: PlanBuilder::default(),
        entries: 0,
        ahead_bytes: 0,
    };
    let folder = path_of(order.folder);
    // The path in the tar of what is added.
    let mut path = [name_in_tar(folder, order.top), b"/"].concat();
    let top = path.len();
    let (stat, children) = walk.read(folder)?;
    let itself = Member {
        path: &path,
        kind: Kind::Folder,
        mode: stat.st_mode,
        modified: FileVersion::from(&stat).modified,
    };
    walk.plan.push(&itself, Trust::Second);
    let mut ahead = vec![children.into_iter()];
    while let Some(children) = ahead.last_mut() {
        let Some(child) = children.next() else {
            ahead.pop();
            path.pop();
            let parent = path.iter().rposition(|&byte| byte == b'/');
            path.truncate(parent.map_or(0, |slash| slash + 1));
            continue;
        };
        walk.ahead_bytes -= child.bytes();
        let parent = path.len();
        path.extend_from_slice(&child.name);
        if folder.len() + path.len() - top > PATH_BYTES_MAX {
            // Nobody can ask for it.
            path.truncate(parent);
            continue;
        }
        let is_folder = matches!(child.kind, ChildKind::Folder);
        if is_folder {
            path.push(b'/');
        }
        let kind = match &child.kind {
            ChildKind::Folder => Kind::Folder,
            ChildKind::Link(target) => Kind::Link(target),
            ChildKind::File(version) => Kind::File(*version),
        };
        let member = Member {
            path: &path,
            kind,
            mode: child.mode,
            modified: child.modified,
        };
        walk.plan.push(&member, child.trust);
        if is_folder {
            let within = [folder, &path[top..]].concat();
            let children = match walk.read(&within) {
                Ok((_, children)) => children,
                // It is gone, or its list can't be made: none is shown.
                Err(ListError::Failed(LookupError::Refused(_)))
                    if !walk.progress.task.is_cancelled() =>
                {
                    Vec::new()
                }
                Err(error) => return Err(error),
            };
            ahead.push(children.into_iter());
        } else {
            path.truncate(parent);
        }
    }
    walk.progress.check(walk.plan.bytes())?;
    Ok(walk.plan.finish())
}

impl Walk<'_, '_> {
    /// Reads a folder: what it is itself, and what its list shows, in order.
    fn read(&mut self, name: &[u8]) -> Result<(Stat, Vec<Child>), ListError> {
        let (mut children, mut index) = (Vec::new(), None);
        let (order, clock, may_block) = (self.order, self.clock, self.progress.may_block);
        let stat = read_folder(order.root, name, may_block, |folder, entry, seen| {
            if self.entries.is_multiple_of(LISTING_SLICE_ENTRIES) {
                self.progress.check(self.plan.bytes() + self.ahead_bytes)?;
            }
            let is_index = order.index == Some(entry.to_bytes());
            let child = seen.and_then(|seen| child(folder, entry, &seen, clock));
            if is_index && !matches!(&child, Some((_, FileType::Directory))) {
                index = Some(child.is_some());
            }
            let Some((child, _)) = child else {
                return Ok(());
            };
            self.entries += 1;
            if self.entries > order.entries_max {
                return Err(ListError::TooMany);
            }
            self.ahead_bytes += child.bytes();
            children.push(child);
            Ok(())
        })?;
        if index.is_some() {
            // What lies beside an index isn't shown, even if that can't be.
            let all: usize = children.iter().map(Child::bytes).sum();
            children.retain(|child| order.index == Some(&*child.name));
            let kept: usize = children.iter().map(Child::bytes).sum();
            self.ahead_bytes -= all - kept;
        }
        children.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok((stat, children))
    }
}

/// What an entry of a folder becomes in a tar, and what it leads to.
fn child(folder: &Folder, entry: &CStr, seen: &Seen, clock: Stamp) -> Option<(Child, FileType)> {
    let leads_to = FileType::from_raw_mode(seen.leads_to.st_mode);
    let (stat, kind, trust) = match (&seen.link, leads_to) {
        (Some((link, stat)), FileType::RegularFile | FileType::Directory) => {
            let target = record::call(Call::ReadLink, || {
                rustix::fs::readlinkat(link, c"", Vec::new())
            })
            .ok()?;
            (stat, ChildKind::Link(target.into_bytes()), Trust::Second)
        }
        (None, FileType::Directory) => (&seen.leads_to, ChildKind::Folder, Trust::Second),
        (None, FileType::RegularFile) => {
            let stat = &seen.leads_to;
            let FileVersion {
                inode,
                length,
                changed,
                ..
            } = stat.into();
            // Something mounted on a file is of another class, perhaps.
            let is_local = !folder.is_remote && stat.st_dev == folder.stat.st_dev;
            let keeps_inode = is_local && version::is_fine(changed);
            let version = Version {
                inode: keeps_inode.then_some(inode),
                length,
                changed,
            };
            let trust = version::trust(changed, clock, is_local);
            (stat, ChildKind::File(version), trust)
        }
        _ => return None,
    };
    let child = Child {
        name: entry.to_bytes().to_vec(),
        kind,
        mode: stat.st_mode,
        modified: FileVersion::from(stat).modified,
        trust,
    };
    Some((child, leads_to))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::file::{ListMemory, ListTask};

    /// The paths of a tar of `d`, with so much memory and so many entries at most.
    fn paths(root: &RootDir, bytes_max: u64, entries_max: usize) -> Result<Vec<String>, ListError> {
        let order = Order {
            root,
            folder: b"/d/",
            top: b"/",
            index: None,
            entries_max,
        };
        let task = ListTask::new(|_, _| Err(ListError::NoMemory));
        let mut progress = Progress {
            task: &task,
            may_block: MayBlock::Forever,
            memory: ListMemory::new(bytes_max).reserve(),
        };
        let bytes = plan(&order, &mut progress)?;
        let plan = Plan::new(&bytes);
        let path = |index| String::from_utf8_lossy(plan.member(index).path).into_owned();
        Ok((0..plan.count()).map(path).collect())
    }

    #[test]
    fn what_is_in_a_folder_follows_it_and_there_are_limits() {
        let directory = tempfile::tempdir().unwrap();
        let d = directory.path().join("d");
        for folder in ["a", "b/c"] {
            fs::create_dir_all(d.join(folder)).unwrap();
        }
        for file in ["a/z", "a-", "B", "b/c/x", "b/c-"] {
            fs::write(d.join(file), "").unwrap();
        }
        let root = RootDir::open(directory.path(), false).unwrap();
        let expected = [
            "d/", "d/B", "d/a/", "d/a/z", "d/a-", "d/b/", "d/b/c/", "d/b/c/x", "d/b/c-",
        ];
        assert_eq!(paths(&root, 10_000, 8).unwrap(), expected);
        assert_eq!(paths(&root, 10_000, 7), Err(ListError::TooMany));
        assert_eq!(paths(&root, 500, 8), Err(ListError::NoMemory));
    }

    #[test]
    fn what_the_folder_is_called() {
        for (folder, top, expected) in [
            (&b"a/b/"[..], &b"www"[..], &b"b"[..]),
            (b"a", b"www", b"a"),
            (b"", b"www", b"www"),
            (b"", b"/", b"."),
        ] {
            assert_eq!(name_in_tar(folder, top), expected);
        }
    }
}
