//! How a disk thread reads a directory, for a list or for a tar.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use rustix::fs::{Access, AtFlags, Dir, DirEntry, FileType, Mode, Stat, accessat, statat};
use rustix::io::Errno;

use super::containment::{RootDir, Seen};
use super::path_or_root;
use crate::file::{ListError, ListTask, Lookup, LookupError, MayBlock, Permit};
use crate::trace::record::{self, Call};

/// For whom something is read, how long that may wait, and the memory that it has.
pub(super) struct Progress<'a> {
    pub(super) task: &'a ListTask,
    pub(super) may_block: MayBlock,
    pub(super) memory: Permit,
}

impl Progress<'_> {
    /// Fails if nobody waits any more, or if there is less memory than so many bytes.
    pub(super) fn check(&mut self, bytes: usize) -> Result<(), ListError> {
        if self.task.is_cancelled() {
            // There is nobody to be told why.
            return Err(LookupError::Refused("nobody waits").into());
        }
        let fits = self.memory.resize(bytes as u64);
        fits.then_some(()).ok_or(ListError::NoMemory)
    }
}

/// A folder that is read.
pub(super) struct Folder {
    pub(super) stat: Stat,
    /// Whether it may wait for another machine or process.
    pub(super) is_remote: bool,
}

/// Reads what may be shown of a directory, entry by entry, and what each leads to: `None` if the root would
/// refuse it, or it can't be read. Returns what the directory itself is.
pub(super) fn read_folder(
    root: &RootDir,
    name: &[u8],
    may_block: MayBlock,
    each: impl FnMut(&Folder, &CStr, Option<Seen>) -> Result<(), ListError>,
) -> Result<Stat, ListError> {
    let found = root.find(path_or_root(name), may_block)?;
    let Lookup::Directory(directory) = found else {
        return Err(LookupError::Refused("not a folder").into());
    };
    let stat = record::call(Call::Stat, || rustix::fs::fstat(&directory));
    let folder = Folder {
        stat: stat.map_err(LookupError::Failed)?,
        is_remote: root.is_remote_directory(&directory),
    };
    let mut directory = Dir::new(directory).map_err(LookupError::Failed)?;
    let read = read_entries(root, name, may_block, (&mut directory, &folder), each);
    record::close(Call::CloseFile, directory);
    read.map(|()| folder.stat)
}

fn read_entries(
    root: &RootDir,
    name: &[u8],
    may_block: MayBlock,
    (directory, folder): (&mut Dir, &Folder),
    mut each: impl FnMut(&Folder, &CStr, Option<Seen>) -> Result<(), ListError>,
) -> Result<(), ListError> {
    while let Some(entry) = directory.read() {
        let entry = entry.map_err(LookupError::Failed)?;
        let name_of_entry = entry.file_name();
        let bytes = name_of_entry.to_bytes();
        if matches!(bytes, b"." | b"..") || !root.shows(bytes) {
            continue;
        }
        let within = directory.fd().map_err(LookupError::Failed)?;
        let seen = match plain_file((within, folder), &entry, may_block) {
            None => root.look_at((within, name), name_of_entry, may_block)?,
            seen => seen,
        };
        let seen = seen.filter(|seen| is_readable(within, name_of_entry, &seen.leads_to));
        each(folder, name_of_entry, seen)?;
    }
    Ok(())
}

/// What a regular file is, in one call where [`RootDir::look_at`] makes three: a large folder has many of
/// them. `None`: that has to tell, for it is none, or something is mounted there, which may not answer. Until
/// that is known it is asked for no more than what it has in memory (statx(2)).
fn plain_file(
    (directory, folder): (BorrowedFd<'_>, &Folder),
    entry: &DirEntry,
    may_block: MayBlock,
) -> Option<Seen> {
    if entry.file_type() != FileType::RegularFile {
        return None;
    }
    let mut flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    flags.set(AtFlags::STATX_DONT_SYNC, may_block != MayBlock::Forever);
    let stat = record::call(Call::StatEntry, || {
        statat(directory, entry.file_name(), flags)
    })
    .ok()?;
    let is_plain = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    (is_plain && stat.st_dev == folder.stat.st_dev).then_some(Seen {
        leads_to: stat,
        link: None,
    })
}

/// Whether the server may read what was found to be in a directory. A link leads to where it was found
/// to lead.
fn is_readable(folder: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> bool {
    // What everybody may read needs no question of its own: a large folder has many such files.
    let everybody = Mode::RUSR | Mode::RGRP | Mode::ROTH;
    if Mode::from_raw_mode(stat.st_mode).contains(everybody) {
        return true;
    }
    let denied = record::call(Call::MayRead, || {
        accessat(folder, name, Access::READ_OK, AtFlags::EACCESS)
    });
    denied != Err(Errno::ACCESS)
}
