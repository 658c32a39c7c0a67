//! Which file systems can make the loop wait: by their type, and by a try.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, StatFs, StatxFlags};
use rustix::io::Errno;

use super::{FsClass, read_if_there};

/// Types of file systems (statfs(2)) whose files are in memory: tmpfs, ramfs.
const MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// An overlay: its files are those of its layers.
const OVERLAY: u64 = 0x794c_7630;

/// Types that are on this machine: ext2 to ext4, XFS, Btrfs, F2FS, Bcachefs, ZFS, EROFS, SquashFS,
/// ISO 9660, UDF, FAT, exFAT, NTFS, JFS, ReiserFS, HFS+, NILFS2. Whatever is not named may be
/// anything.
const LOCAL: [u64; 17] = [
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
];

/// The kinds of file systems that were met.
#[derive(Debug, Default)]
pub struct FsClasses {
    /// All are taken for this one.
    assumed: Option<FsClass>,
    /// By device and type: the numbers of devices that aren't disks are given again.
    known: Mutex<HashMap<(u64, u64), FsClass>>,
}

impl FsClasses {
    /// Takes every file system for one of this kind, so that a test needs no network.
    #[must_use]
    pub fn assumed(kind: FsClass) -> Self {
        Self {
            assumed: Some(kind),
            known: Mutex::default(),
        }
    }

    /// The kind that a regular file's file system on this device is of. May wait.
    pub fn of(&self, file: impl AsFd, device: u64) -> FsClass {
        if let Some(kind) = self.assumed {
            return kind;
        }
        let file = file.as_fd();
        let Some(type_) = type_of(file) else {
            return FsClass::Remote;
        };
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&kind) = known().get(&(device, type_)) {
            return kind;
        }
        let kind = match place(file, type_) {
            Place::Memory => FsClass::InMemory,
            Place::Local => by_trial(file),
            Place::Foreign => FsClass::Remote,
        };
        known().insert((device, type_), kind);
        kind
    }

    /// What can be said of a folder's file system.
    #[must_use]
    pub fn place_of(&self, folder: impl AsFd) -> Place {
        match self.assumed {
            Some(FsClass::InMemory) => Place::Memory,
            Some(FsClass::Nowait | FsClass::ReadOnce) => Place::Local,
            Some(FsClass::Remote) => Place::Foreign,
            None => {
                let folder = folder.as_fd();
                type_of(folder).map_or(Place::Foreign, |type_| place(folder, type_))
            }
        }
    }
}

/// Where a file system is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In memory.
    Memory,
    /// On a disk of this machine.
    Local,
    /// Elsewhere, perhaps.
    Foreign,
}

fn type_of(file: BorrowedFd<'_>) -> Option<u64> {
    rustix::fs::fstatfs(file).ok().map(|found| type_in(&found))
}

/// Types have 32 bits; the field's width and sign differ by platform.
fn type_in(found: &StatFs) -> u64 {
    u64::from(found.f_type as u32)
}

fn place(file: BorrowedFd<'_>, type_: u64) -> Place {
    match type_ {
        OVERLAY if has_foreign_layer(file) => Place::Foreign,
        _ => place_by_type(type_),
    }
}

/// An overlay is taken for what containers have: one of local layers.
fn place_by_type(type_: u64) -> Place {
    match type_ {
        OVERLAY => Place::Local,
        _ if MEMORY.contains(&type_) => Place::Memory,
        _ if LOCAL.contains(&type_) => Place::Local,
        _ => Place::Foreign,
    }
}

/// A file system that can't read without waiting says so of any read.
fn by_trial(file: BorrowedFd<'_>) -> FsClass {
    match read_if_there(file, &mut [0], 0) {
        Ok(_) | Err(Errno::AGAIN) => FsClass::Nowait,
        Err(_) => FsClass::ReadOnce,
    }
}

// ---- overlays ----

/// Whether a layer of a file's overlay is known to be foreign. A container doesn't see the layers
/// of its root; its engine has them on a local disk.
fn has_foreign_layer(file: BorrowedFd<'_>) -> bool {
    let Ok(status) = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID) else {
        return false;
    };
    let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
    layers(&mounts, status.stx_mnt_id).iter().any(|layer| {
        let found = rustix::fs::statfs(layer);
        found.is_ok_and(|found| place_by_type(type_in(&found)) == Place::Foreign)
    })
}

/// The folders that a mount lies over, as /proc/self/mountinfo has them (proc_pid_mountinfo(5)).
fn layers(mounts: &[u8], id: u64) -> Vec<PathBuf> {
    let id = format!("{id} ");
    let mut lines = mounts.split(|&byte| byte == b'\n');
    let Some(line) = lines.find(|line| line.starts_with(id.as_bytes())) else {
        return Vec::new();
    };
    let options = line.split(|&byte| byte == b' ').next_back();
    let mut folders = Vec::new();
    // Commas within an option are escaped.
    for option in options.unwrap_or_default().split(|&byte| byte == b',') {
        let option = unescaped(option);
        let Some(equals) = option.iter().position(|&byte| byte == b'=') else {
            continue;
        };
        let (name, value) = (&option[..equals], &option[equals + 1..]);
        if matches!(name, b"lowerdir" | b"upperdir" | b"lowerdir+" | b"datadir+") {
            folders.extend(split(value, b':').map(<[u8]>::to_vec));
        }
    }
    let without_backslashes = |folder: Vec<u8>| {
        let kept = folder.into_iter().filter(|&byte| byte != b'\\');
        PathBuf::from(OsString::from_vec(kept.collect()))
    };
    folders.into_iter().map(without_backslashes).collect()
}

/// Splits at a byte that has no backslash before it.
fn split(text: &[u8], at: u8) -> impl Iterator<Item = &[u8]> {
    let mut escaped = false;
    text.split(move |&byte| {
        let splits = byte == at && !escaped;
        escaped = byte == b'\\' && !escaped;
        splits
    })
}

/// A field of mountinfo: space, tab, line feed and backslash are octal there.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = (byte == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        (rest, _) = match octal {
            Some(meant) => (&after[3..], bytes.push(meant)),
            None => (after, bytes.push(byte)),
        };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::path::Path;

    #[test]
    fn a_file_in_memory_is_never_cold_and_proc_is_foreign() {
        let kinds = FsClasses::default();
        let folder = File::open("/dev/shm");
        if let Ok(folder) = folder {
            assert_eq!(kinds.place_of(&folder), Place::Memory);
        }
        let proc = File::open("/proc/self/stat").unwrap();
        assert_eq!(kinds.of(&proc, 1), FsClass::Remote);
        assert_eq!(kinds.place_of(File::open("/proc").unwrap()), Place::Foreign);
    }

    #[test]
    fn what_is_assumed_is_not_asked() {
        let proc = File::open("/proc/self/stat").unwrap();
        for (kind, place) in [
            (FsClass::InMemory, Place::Memory),
            (FsClass::Nowait, Place::Local),
            (FsClass::ReadOnce, Place::Local),
            (FsClass::Remote, Place::Foreign),
        ] {
            let kinds = FsClasses::assumed(kind);
            assert_eq!((kinds.of(&proc, 1), kinds.place_of(&proc)), (kind, place));
        }
    }

    #[test]
    fn a_kind_is_known_by_device_and_type() {
        let kinds = FsClasses::default();
        let file = tempfile::tempfile().unwrap();
        let kind = kinds.of(&file, 7);
        assert_eq!(kinds.known.lock().unwrap().len(), 1);
        assert_eq!(kinds.of(&file, 7), kind);
        assert_eq!(kinds.known.lock().unwrap().len(), 1);
        // The number stays, another file system has it now.
        let proc = File::open("/proc/self/stat").unwrap();
        assert_eq!(kinds.of(&proc, 7), FsClass::Remote);
    }

    #[test]
    fn the_layers_of_an_overlay_are_found_in_mountinfo() {
        let mounts = b"27 1 254:0 / / rw - ext4 /dev/vda rw\n\
            46 27 0:40 / /o rw,relatime shared:1 - overlay overlay \
            rw,lowerdir=/a\\040b:/c\\134:d:/e,upperdir=/up\\134\\054per,workdir=/work,uuid=on\n\
            47 27 0:41 / /p ro - overlay none ro,lowerdir+=/x,lowerdir+=/y,datadir+=/z\n";
        let paths = |id| {
            let found = layers(mounts, id);
            found
                .iter()
                .map(|path| path.display().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(paths(46), ["/a b", "/c:d", "/e", "/up,per"]);
        assert_eq!(paths(47), ["/x", "/y", "/z"]);
        assert!(paths(27).is_empty() && paths(4).is_empty());
        assert_eq!(Path::new("/a b"), layers(mounts, 46)[0]);
    }
}
