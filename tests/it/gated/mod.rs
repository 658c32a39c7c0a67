//! A file system whose every answer waits at a gate that the test opens: slower than any disk, and
//! no clock decides. It serves one file, over FUSE.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, Request,
};

use crate::common::PATIENCE;

/// The file's name.
pub(crate) const NAME: &str = "file";

const FILE: INodeNo = INodeNo(2);

/// What the file system is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Asked {
    Attributes,
    Lookup,
    Open,
    Read,
    /// A close.
    Flush,
    List,
    /// What the file system is like.
    Statfs,
}

/// The gates.
#[derive(Default)]
pub(crate) struct Gates {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    shut: HashSet<Asked>,
    /// Which have come since their gate was shut.
    came: HashSet<Asked>,
}

impl Gates {
    /// From now on those of a kind wait.
    pub(crate) fn shut(&self, asked: Asked) {
        let mut state = self.state.lock().unwrap();
        state.shut.insert(asked);
        state.came.remove(&asked);
    }

    /// Lets all of a kind pass.
    pub(crate) fn open(&self, asked: Asked) {
        self.state.lock().unwrap().shut.remove(&asked);
        self.changed.notify_all();
    }

    /// Waits until one of a kind has come since its gate was shut.
    pub(crate) fn wait_for(&self, asked: Asked) {
        let state = self.state.lock().unwrap();
        let has_come = |state: &mut State| state.came.contains(&asked);
        let (state, result) = self
            .changed
            .wait_timeout_while(state, PATIENCE, |state| !has_come(state))
            .unwrap();
        drop(state);
        assert!(!result.timed_out(), "{asked:?} never came");
    }

    fn pass(&self, asked: Asked) {
        let mut state = self.state.lock().unwrap();
        state.came.insert(asked);
        self.changed.notify_all();
        let is_shut = |state: &mut State| state.shut.contains(&asked);
        drop(self.changed.wait_while(state, is_shut).unwrap());
    }
}

/// The file system, mounted. Its end opens all gates and unmounts it.
pub(crate) struct Gated {
    pub(crate) gates: Arc<Gates>,
    session: Option<BackgroundSession>,
}

impl Gated {
    /// Mounts it on a folder. Only root may, where FUSE is.
    pub(crate) fn mount(at: &Path, content: Vec<u8>) -> io::Result<Self> {
        Self::mount_with(at, content, &[])
    }

    /// As [`Gated::mount`], and the kernel checks permissions, for which it asks for attributes.
    pub(crate) fn mount_checked(at: &Path, content: Vec<u8>) -> io::Result<Self> {
        Self::mount_with(at, content, &[MountOption::DefaultPermissions])
    }

    fn mount_with(at: &Path, content: Vec<u8>, options: &[MountOption]) -> io::Result<Self> {
        let gates = Arc::new(Gates::default());
        let mut config = Config::default();
        config.mount_options = vec![MountOption::RO, MountOption::FSName("gated".into())];
        config.mount_options.extend_from_slice(options);
        // One that waits doesn't hold up the others.
        config.n_threads = Some(32);
        let files = Files {
            gates: Arc::clone(&gates),
            content,
        };
        let session = fuser::spawn_mount(files, at, &config)?;
        Ok(Self {
            gates,
            session: Some(session),
        })
    }
}

impl Drop for Gated {
    fn drop(&mut self) {
        let mut state = self.gates.state.lock().unwrap();
        state.shut.clear();
        drop(state);
        self.gates.changed.notify_all();
        drop(self.session.take());
    }
}

struct Files {
    gates: Arc<Gates>,
    content: Vec<u8>,
}

impl Files {
    fn attr(&self, inode: INodeNo) -> FileAttr {
        let is_file = inode == FILE;
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        FileAttr {
            ino: inode,
            size: if is_file {
                self.content.len() as u64
            } else {
                0
            },
            blocks: 0,
            atime: then,
            mtime: then,
            ctime: then,
            crtime: then,
            kind: if is_file {
                FileType::RegularFile
            } else {
                FileType::Directory
            },
            perm: 0o755,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Files {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.gates.pass(Asked::Lookup);
        match name.to_str() {
            Some(NAME) => reply.entry(&Duration::ZERO, &self.attr(FILE), Generation(0)),
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.gates.pass(Asked::Attributes);
        reply.attr(&Duration::ZERO, &self.attr(inode));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.gates.pass(Asked::Open);
        reply.opened(FileHandle(1), FopenFlags::empty());
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.gates.pass(Asked::Read);
        let rest = self.content.get(offset as usize..).unwrap_or_default();
        reply.data(&rest[..rest.len().min(size as usize)]);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.gates.pass(Asked::Statfs);
        reply.statfs(0, 0, 0, 0, 0, 512, 255, 0);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.gates.pass(Asked::Flush);
        reply.ok();
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        self.gates.pass(Asked::List);
        if offset == 0 {
            let _ = reply.add(FILE, 1, FileType::RegularFile, NAME);
        }
        reply.ok();
    }
}
