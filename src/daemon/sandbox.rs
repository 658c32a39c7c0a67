//! What a server that was taken over by an intruder could still do: as little as the kernel lets us say.
//! Before the first thread starts, Landlock leaves the process the files that it will open (landlock(7));
//! before the first client comes, seccomp leaves all threads the calls that they make (seccomp(2), the
//! list is in [`calls`]). Neither can be undone, and no program that could be run gets more
//! (PR_SET_NO_NEW_PRIVS).

pub mod calls;

use std::env;
use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{self, Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, make_bitflags,
};

use super::address::ListenAddress;
use super::args::ServeArgs;
use crate::failure::{Exit, Failure};

/// The kernel's Landlock as it is known here. An older one restricts what it knows of this.
const KNOWN: ABI = ABI::V6;

/// What the process itself reads, beside what its flags name: the time zone, descriptors and limits, and
/// where the cryptography gets chance from if getrandom(2) fails.
const ALWAYS_READ: [&str; 7] = [
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/proc/self",
    "/proc/sys/net",
    "/sys/devices/system/cpu",
    "/dev/urandom",
    "/dev/null",
];

/// What the kernel takes from this process, or nothing.
#[derive(Debug)]
pub(crate) struct Sandbox {
    is_wanted: bool,
    /// What this kernel can't take.
    missing: Vec<String>,
}

impl Sandbox {
    /// Leaves the process the files that it opens from now on. Threads that run already are not concerned, so
    /// there must be none.
    pub(crate) fn of_files(args: &ServeArgs) -> Self {
        let is_wanted = !args.no_sandbox;
        let missing = is_wanted.then(|| enforce(&grants(args)));
        let why = match missing {
            Some(Ok(RulesetStatus::NotEnforced)) => Some(String::new()),
            Some(Err(error)) => Some(format!(" ({error})")),
            Some(Ok(_)) | None => None,
        };
        let missing = why.map(|why| format!("no Landlock{why}: an intruder could open any file"));
        Self {
            is_wanted,
            missing: missing.into_iter().collect(),
        }
    }

    /// Leaves all threads the calls that they make, and says what is missing: a kernel that is too old, or that
    /// doesn't let containers do this, serves as well.
    pub(crate) fn and_calls(mut self) {
        if !self.is_wanted {
            log::info!(
                "no sandbox: an intruder could open every file of this user and run any program, \
                 not only read ROOT"
            );
            return;
        }
        if let Err(why) = calls::restrict() {
            let missing = format!("no seccomp ({why}): an intruder could make any system call");
            self.missing.push(missing);
        }
        if !self.missing.is_empty() {
            log::info!("the sandbox is not whole: {}", self.missing.join("; "));
        }
    }
}

fn enforce(grants: &[Grant]) -> Result<RulesetStatus, RulesetError> {
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))?
        .create()?;
    for (path, access) in grants {
        // What isn't there needs no right; it gets none when it comes.
        if let Ok(opened) = PathFd::new(path) {
            ruleset = ruleset.add_rule(PathBeneath::new(opened, *access))?;
        }
    }
    Ok(ruleset.restrict_self()?.ruleset)
}

/// A path, and what may be done to it and beneath it.
type Grant = (PathBuf, BitFlags<AccessFs>);

/// What the flags make the process open, now or after a signal.
fn grants(args: &ServeArgs) -> Vec<Grant> {
    let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    let append = make_bitflags!(AccessFs::{WriteFile | MakeReg});
    let always = ALWAYS_READ.iter().map(PathBuf::from);
    let root = reopened_root(&args.root);
    let tls = args.tls.tls_cert.iter().chain(&args.tls.tls_key);
    let tls = tls.flat_map(|file| replaceable(file));
    let reads = always.chain(root).chain(tls).map(|path| (path, read));
    let log = args.access_log.iter().filter(|log| **log != Path::new("-"));
    // A FIFO is opened for both.
    let fifo = log
        .clone()
        .filter(|log| fs::metadata(log).is_ok_and(|metadata| metadata.file_type().is_fifo()));
    let fifo = fifo.map(|log| (log.clone(), append | AccessFs::ReadFile));
    let logs = log.flat_map(|log| replaceable(log));
    let logs = logs.map(|path| (path, append));
    let sockets = args.listen.bind.iter().filter_map(|address| match address {
        ListenAddress::Unix(path) => Some(folder_of(path)?.to_owned()),
        ListenAddress::Ip(_) => None,
    });
    let socket = make_bitflags!(AccessFs::{ReadDir | MakeSock | RemoveFile});
    let sockets = sockets.map(|folder| (folder, socket));
    // Its trace is written beside it, and then takes its name.
    let trace = args.trace.iter().flat_map(|file| replaceable(file));
    let traces = trace.map(|folder| (folder, append | AccessFs::Truncate | AccessFs::RemoveFile));
    let written = fifo.chain(logs).chain(traces);
    reads.chain(written).chain(sockets).collect()
}

/// What SIGHUP may find at ROOT's path. Deploys swap a link that ROOT is, or is in: then it is whatever
/// lies beside the link, and beside what it leads to.
fn reopened_root(root: &Path) -> Vec<PathBuf> {
    let absolute = path::absolute(root).unwrap_or_else(|_| root.to_owned());
    let links = absolute
        .ancestors()
        .take(2)
        .filter(|path| path.is_symlink());
    let beside = links.flat_map(replaceable);
    std::iter::once(root.to_owned()).chain(beside).collect()
}

/// A file that may be replaced by another of its name: its folder, and that to which a link there leads.
/// Where that is the top of all, or somebody's home, there is more in it than is good to give away: then only the
/// file itself, as it is now.
fn replaceable(file: &Path) -> Vec<PathBuf> {
    let absolute = path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let real = fs::canonicalize(file).unwrap_or_else(|_| absolute.clone());
    let home = env::home_dir();
    let folders = [absolute, real].into_iter().map(|path| {
        let folder = folder_of(&path);
        let folder =
            folder.filter(|folder| *folder != Path::new("/") && home.as_deref() != Some(folder));
        folder.map_or(path.clone(), Path::to_owned)
    });
    folders.collect()
}

fn folder_of(path: &Path) -> Option<&Path> {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Some(Path::new(".")),
        folder => folder,
    }
}

/// A user as whom to serve, and that user's groups.
#[derive(Debug)]
pub(crate) struct Account {
    user: nix::unistd::User,
    groups: Vec<nix::unistd::Gid>,
}

impl Account {
    /// Looks a user up, whose name the system knows.
    ///
    /// # Errors
    /// There is none, or this process may not become anybody.
    pub(crate) fn find(name: &str) -> Result<Self, Failure> {
        let wont_do = |why: &str| Failure::usage(format!("--user: '{name}' won't do: {why}"));
        if !rustix::process::geteuid().is_root() {
            return Err(wont_do("it takes a start as root"));
        }
        let user = nix::unistd::User::from_name(name).ok().flatten();
        let user = user.ok_or_else(|| wont_do("it takes the name of a user of this machine"))?;
        let name = std::ffi::CString::new(name).map_err(|_| wont_do("it takes a name"))?;
        let groups = nix::unistd::getgrouplist(&name, user.gid);
        let groups = groups.map_err(|error| wont_do(&error.to_string()))?;
        Ok(Self { user, groups })
    }

    /// Is that user from now on, with all threads (nptl(7)).
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn assume(&self) -> Result<(), Failure> {
        nix::unistd::setgroups(&self.groups)
            .and_then(|()| nix::unistd::setgid(self.user.gid))
            .and_then(|()| nix::unistd::setuid(self.user.uid))
            .map_err(|error| {
                let name = &self.user.name;
                Failure::new(
                    Exit::Failed,
                    format!("--user: the kernel won't make us {name}: {error}"),
                )
            })
    }
}
