//! Which file systems can make the loop wait: by their type, and by a try.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};

use crate::trace::record::{self, Call};
use rustix::io::{Errno, ReadWriteFlags};

/// What reading from a file system may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsClass {
    /// The files are in memory (tmpfs): nothing ever waits.
    InMemory,
    /// The kernel can be asked whether a read would wait (preadv2(2) with RWF_NOWAIT).
    Nowait,
    /// On this machine, but the kernel can't be asked: what was read once is taken to be in memory.
    ReadOnce,
    /// Over a network, by another process (FUSE), or unknown: any call may wait, close(2) too.
    Remote,
}

/// How long a caller may wait, and so how far a path may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MayBlock {
    /// The loop must not wait at all: it finds only what is in memory.
    Never,
    /// A local thread may wait for a disk of this machine, which answers sooner or later.
    OnDisk,
    /// A remote thread may wait for whatever the path leads to, perhaps for ever.
    Forever,
}

/// Tells mounts beneath the root apart, so that tasks that wait for one don't hold up those that wait
/// for another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mount(u32);

impl Mount {
    /// No mount: the lane of jobs that are replaced while they wait.
    pub(super) const LATEST: Self = Self(1);

    /// What is mounted on an entry of the directory with this device and inode.
    #[must_use]
    pub fn at(device: u64, inode: u64, entry: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        (device, inode, entry).hash(&mut hasher);
        // Two mounts whose hashes are the same share a lane, which costs only time.
        Self(hasher.finish() as u32)
    }
}

/// Types of file systems (statfs(2)) whose files are in memory: tmpfs, ramfs.
const MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// Types that are on this machine: ext2 to ext4, XFS, Btrfs, F2FS, Bcachefs, ZFS, EROFS, SquashFS,
/// ISO 9660, UDF, FAT, exFAT, NTFS, JFS, ReiserFS, HFS+, NILFS2, and overlays, as containers have them:
/// the layers are taken for local ones. Whatever is not named may be anything.
const LOCAL: [u64; 18] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0xf2f5_2010,
    0xca45_1a4e,
    0x2fc1_2fc1,
    0xe0f5_e1e2,
    0x7371_7368,
    0x9660,
    0x1501_3346,
    0x4d44,
    0x2011_bab0,
    0x7366_746e,
    0x3153_464a,
    0x5265_4973,
    0x482b,
    0x3434,
    0x794c_7630,
];

/// The classes of the file systems that were met.
#[derive(Debug, Default)]
pub struct FsClasses {
    /// If set, every file system is taken for one of this class.
    assumed: Option<FsClass>,
    /// By device and type: the numbers of devices that aren't disks are given again.
    known: Mutex<HashMap<(u64, u64), FsClass>>,
}

impl FsClasses {
    /// Takes every file system for one of this class, so that a test needs no network.
    #[must_use]
    pub fn assumed(class: FsClass) -> Self {
        Self {
            assumed: Some(class),
            known: Mutex::default(),
        }
    }

    /// The class of the file system of a regular file on this device. May wait.
    pub fn of(&self, file: impl AsFd, device: u64) -> FsClass {
        if let Some(class) = self.assumed {
            return class;
        }
        let file = file.as_fd();
        let Some(type_) = type_of(file) else {
            return FsClass::Remote;
        };
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&class) = known().get(&(device, type_)) {
            return class;
        }
        let class = match by_type(type_) {
            FsClass::ReadOnce => by_trial(file),
            class => class,
        };
        known().insert((device, type_), class);
        class
    }

    /// The class of a directory's file system, without a try: [`FsClass::ReadOnce`] stands for all that
    /// are on this machine.
    #[must_use]
    pub fn of_directory(&self, directory: impl AsFd) -> FsClass {
        match self.assumed {
            Some(FsClass::Nowait) => FsClass::ReadOnce,
            Some(class) => class,
            None => type_of(directory.as_fd()).map_or(FsClass::Remote, by_type),
        }
    }
}

fn type_of(file: BorrowedFd<'_>) -> Option<u64> {
    // Types have 32 bits; the field's width and sign differ by platform.
    let found = record::call(Call::StatFs, || rustix::fs::fstatfs(file)).ok()?;
    Some(u64::from(found.f_type as u32))
}

fn by_type(type_: u64) -> FsClass {
    if MEMORY.contains(&type_) {
        FsClass::InMemory
    } else if LOCAL.contains(&type_) {
        FsClass::ReadOnce
    } else {
        FsClass::Remote
    }
}

/// A file system that can't read without waiting says so of any read.
fn by_trial(file: BorrowedFd<'_>) -> FsClass {
    match preadv2_nowait(file, &mut [0], 0) {
        Ok(_) | Err(Errno::AGAIN) => FsClass::Nowait,
        Err(_) => FsClass::ReadOnce,
    }
}

/// Reads what is in memory, if the file system can be asked for just that.
pub(super) fn preadv2_nowait(
    file: impl AsFd,
    buf: &mut [u8],
    at: u64,
) -> rustix::io::Result<usize> {
    record::transfer(Call::ReadNowait, buf.len(), || {
        let mut into = [IoSliceMut::new(buf)];
        rustix::io::preadv2(file, &mut into, at, ReadWriteFlags::NOWAIT)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn a_file_in_memory_is_never_cold_and_proc_is_foreign() {
        let classes = FsClasses::default();
        if let Ok(directory) = File::open("/dev/shm") {
            assert_eq!(classes.of_directory(&directory), FsClass::InMemory);
        }
        let proc = File::open("/proc/self/stat").unwrap();
        assert_eq!(classes.of(&proc, 1), FsClass::Remote);
        let proc = File::open("/proc").unwrap();
        assert_eq!(classes.of_directory(&proc), FsClass::Remote);
    }

    #[test]
    fn what_is_assumed_is_not_asked() {
        let proc = File::open("/proc/self/stat").unwrap();
        for (class, of_directory) in [
            (FsClass::InMemory, FsClass::InMemory),
            (FsClass::Nowait, FsClass::ReadOnce),
            (FsClass::ReadOnce, FsClass::ReadOnce),
            (FsClass::Remote, FsClass::Remote),
        ] {
            let classes = FsClasses::assumed(class);
            assert_eq!(classes.of(&proc, 1), class);
            assert_eq!(classes.of_directory(&proc), of_directory);
        }
    }

    #[test]
    fn a_class_is_known_by_device_and_type() {
        let classes = FsClasses::default();
        let file = tempfile::tempfile().unwrap();
        let class = classes.of(&file, 7);
        assert_eq!(classes.known.lock().unwrap().len(), 1);
        assert_eq!(classes.of(&file, 7), class);
        assert_eq!(classes.known.lock().unwrap().len(), 1);
        // The number stays, another file system has it now.
        let proc = File::open("/proc/self/stat").unwrap();
        assert_eq!(classes.of(&proc, 7), FsClass::Remote);
    }
}
