//! An intruder who has taken over the real binary: ptrace(2) makes its loop's thread call what the intruder
//! wants. All calls outside the list kill it, all files outside what it serves are shut.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use carafe::daemon::sandbox::calls;
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::common::{Carafe, count_lines, exchange, has_tool, root_with, run_carafe, skip, until};

/// uretprobe and uprobe, which a kernel's own trampolines make: it lets them past every filter, and kills or
/// refuses who calls them from elsewhere.
const TRAMPOLINES: std::ops::RangeInclusive<i64> = 335..=336;

/// Numbers of calls beyond those that any kernel has.
const CALLS_END: i64 = 500;

/// The server's first thread, stopped in its wait.
struct Intruder {
    thread: Pid,
    /// As it was.
    registers: libc::user_regs_struct,
}

impl Intruder {
    /// `None`, said aloud, where nobody may be traced.
    fn of(carafe: &Carafe, is_sandboxed: bool) -> Option<Self> {
        let thread = Pid::from_raw(carafe.pid() as i32);
        // It listens a moment before.
        until("it is in its sandbox, or has none, and waits", || {
            let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap();
            is_sandboxed == status.contains("Seccomp:\t2\n") && carafe.is_asleep()
        });
        if let Err(error) = ptrace::attach(thread) {
            skip("ptrace", &format!("nobody may be traced here: {error}"));
            return None;
        }
        waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        let registers = ptrace::getregs(thread).unwrap();
        let code = ptrace::read(thread, (registers.rip - 2) as ptrace::AddressType).unwrap();
        assert_eq!(code & 0xffff, 0x050f, "it waits in a system call: {code:x}");
        Some(Self { thread, registers })
    }

    /// Makes one call. `Err` is the signal that it died of.
    fn call(&self, number: i64, arguments: [u64; 6]) -> Result<Result<u64, Errno>, Signal> {
        let [rdi, rsi, rdx, r10, r8, r9] = arguments;
        let registers = libc::user_regs_struct {
            // To the call once more; the one that it waits in isn't taken up again.
            rip: self.registers.rip - 2,
            orig_rax: u64::MAX,
            rax: number as u64,
            rdi,
            rsi,
            rdx,
            r10,
            r8,
            r9,
            ..self.registers
        };
        ptrace::setregs(self.thread, registers).unwrap();
        ptrace::step(self.thread, None).unwrap();
        match waitpid(self.thread, Some(WaitPidFlag::__WALL)).unwrap() {
            WaitStatus::Stopped(..) => {
                let result = ptrace::getregs(self.thread).unwrap().rax as i64;
                Ok(match result {
                    -4095..0 => Err(Errno::from_raw(-result as i32)),
                    _ => Ok(result as u64),
                })
            }
            WaitStatus::Signaled(_, signal, _) => Err(signal),
            other => panic!("{number}: {other:?}"),
        }
    }

    /// Opens a path.
    fn open(&self, path: &Path, flags: i32) -> Result<u64, Errno> {
        let mut bytes = path.as_os_str().as_encoded_bytes().to_vec();
        bytes.resize(bytes.len() / 8 * 8 + 8, 0);
        let at = self.registers.rsp - 8192;
        for (index, word) in bytes.chunks(8).enumerate() {
            let word = i64::from_ne_bytes(word.try_into().unwrap());
            let to = (at + 8 * index as u64) as ptrace::AddressType;
            ptrace::write(self.thread, to, word).unwrap();
        }
        let here = i64::from(libc::AT_FDCWD) as u64;
        let arguments = [here, at, flags as u64, 0o600, 0, 0];
        self.call(libc::SYS_openat, arguments).unwrap()
    }

    /// Lets it go on.
    fn leave(self) {
        ptrace::setregs(self.thread, self.registers).unwrap();
        ptrace::detach(self.thread, None).unwrap();
    }
}

fn root() -> TempDir {
    root_with(&[
        ("root/file", "bytes"),
        ("root/sub/file", "bytes"),
        ("secret", "secret"),
    ])
}

#[test]
fn every_call_outside_the_list_is_the_last() {
    let (outer, allowed) = (root(), calls::allowed());
    let root = outer.path().join("root");
    let is_outside = |number: &i64| !allowed.contains(number) && !TRAMPOLINES.contains(number);
    for number in (0..CALLS_END).filter(is_outside) {
        let carafe = Carafe::serve(&root, &["-q"]);
        let Some(intruder) = Intruder::of(&carafe, true) else {
            return;
        };
        let end = intruder.call(number, [0; 6]);
        assert_eq!(end.unwrap_err(), Signal::SIGSYS, "{number}");
    }
}

#[test]
fn calls_that_may_be_made_may_not_be_made_with_everything() {
    let outer = root();
    let root = outer.path().join("root");
    let code = (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC) as u64;
    let private = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
    for (number, arguments) in [
        (libc::SYS_mmap, [0, 4096, code, private, u64::MAX, 0]),
        (libc::SYS_mprotect, [0, 4096, code, 0, 0, 0]),
        (libc::SYS_clone, [libc::SIGCHLD as u64, 0, 0, 0, 0, 0]),
        (libc::SYS_ioctl, [0, libc::TIOCSTI, 0, 0, 0, 0]),
        (libc::SYS_fcntl, [0, libc::F_SETOWN as u64, 1, 0, 0, 0]),
        (
            libc::SYS_prctl,
            [libc::PR_SET_DUMPABLE as u64, 1, 0, 0, 0, 0],
        ),
        (libc::SYS_prlimit64, [0, 0, 1, 0, 0, 0]),
        (libc::SYS_tgkill, [1, 1, 9, 0, 0, 0]),
    ] {
        let carafe = Carafe::serve(&root, &["-q"]);
        let Some(intruder) = Intruder::of(&carafe, true) else {
            return;
        };
        let end = intruder.call(number, arguments);
        assert_eq!(end.unwrap_err(), Signal::SIGSYS, "{number}");
    }
    let carafe = Carafe::serve(&root, &["-q"]);
    let Some(intruder) = Intruder::of(&carafe, true) else {
        return;
    };
    // So that glibc makes the call whose flags can be seen.
    assert_eq!(
        intruder.call(libc::SYS_clone3, [0; 6]).unwrap(),
        Err(Errno::ENOSYS)
    );
    assert!(intruder.call(libc::SYS_getpid, [0; 6]).unwrap().is_ok());
}

#[test]
fn nothing_outside_can_be_opened() {
    let (outer, logs) = (root(), root_with(&[("access.log", "")]));
    let root = outer.path().join("root");
    symlink(outer.path().join("secret"), root.join("link")).unwrap();
    let log = logs.path().join("access.log");
    let carafe = Carafe::serve(&root, &["--access-log", log.to_str().unwrap()]);
    let Some(intruder) = Intruder::of(&carafe, true) else {
        return;
    };
    let (read, write) = (libc::O_RDONLY, libc::O_WRONLY);
    assert!(intruder.open(&root.join("sub/file"), read).is_ok());
    assert!(intruder.open(&log, write | libc::O_APPEND).is_ok());
    let create = write | libc::O_CREAT;
    for (path, flags) in [
        (outer.path().join("secret"), read),
        (root.join("link"), read),
        (root.join("../secret"), read),
        (outer.path().into(), read),
        (root.join("file"), write),
        (root.join("new"), create),
        (outer.path().join("new"), create),
        (log.clone(), read),
        ("/etc/passwd".into(), read),
        ("/etc/shadow".into(), read),
        ("/".into(), read),
        ("/proc/1/environ".into(), read),
        ("/proc/self/mem".into(), write),
        ("/proc/self/root/etc/passwd".into(), read),
        (env!("CARGO_BIN_EXE_carafe").into(), read),
    ] {
        let opened = intruder.open(&path, flags);
        assert_eq!(opened, Err(Errno::EACCES), "{}", path.display());
    }
    intruder.leave();
    // It serves as before.
    assert_eq!(exchange(carafe.addr(), b"sub/file\n").unwrap(), b"bytes");
    carafe.stop_clean();
}

#[test]
fn without_a_sandbox_the_same_calls_are_made() {
    let outer = root();
    let carafe = Carafe::serve(&outer.path().join("root"), &["--no-sandbox"]);
    let Some(intruder) = Intruder::of(&carafe, false) else {
        return;
    };
    assert!(
        intruder
            .open(&outer.path().join("secret"), libc::O_RDONLY)
            .is_ok()
    );
    // Not a kill: there is no such thing to run.
    assert_eq!(
        intruder.call(libc::SYS_execve, [0; 6]).unwrap(),
        Err(Errno::EFAULT)
    );
    intruder.leave();
    carafe.wait_for_log("no sandbox: an intruder could open every file");
    carafe.stop_clean();
}

#[test]
fn what_the_kernel_lacks_is_said_and_the_rest_holds() {
    if !has_tool("strace") {
        return;
    }
    let (outer, calls) = (root(), tempfile::NamedTempFile::new().unwrap());
    // An old kernel, and one whose container may not.
    for (call, error, said) in [
        ("landlock_create_ruleset", "ENOSYS", "no Landlock"),
        ("landlock_create_ruleset", "EPERM", "no Landlock"),
        ("seccomp", "ENOSYS", "no seccomp ("),
        ("seccomp", "EPERM", "no seccomp ("),
    ] {
        let inject = format!("inject={call}:error={error}");
        let trace = format!("trace={call}");
        let options = ["-e", &trace, "-e", &inject];
        let carafe = Carafe::serve_traced(&outer.path().join("root"), calls.path(), &options, &[]);
        let log = carafe.wait_for_log("the sandbox is not whole: ");
        assert!(log.contains(said), "{call} {error}: {log}");
        assert_eq!(count_lines(&log, "an intruder could"), 1, "{log}");
        assert_eq!(exchange(carafe.addr(), b"file\n").unwrap(), b"bytes");
        carafe.stop_clean();
    }
}

#[test]
fn a_link_to_the_root_may_lead_to_what_lies_beside_its_end() {
    let outer = root_with(&[
        ("web/now/file", "now"),
        ("releases/1/file", "1"),
        ("releases/2/file", "2"),
    ]);
    let link = outer.path().join("web/current");
    symlink("../releases/1", &link).unwrap();
    let carafe = Carafe::serve(&link, &[]);
    assert_eq!(exchange(carafe.addr(), b"file\n").unwrap(), b"1");
    for (count, target, content) in [(1, "../releases/2", "2"), (2, "now", "now")] {
        fs::remove_file(&link).unwrap();
        symlink(target, &link).unwrap();
        carafe.signal(rustix::process::Signal::HUP);
        until("it is open", || {
            count_lines(&carafe.log(), "was opened anew") == count
        });
        assert_eq!(
            exchange(carafe.addr(), b"file\n").unwrap(),
            content.as_bytes()
        );
    }
    carafe.stop_clean();
}

#[test]
fn as_another_user_it_reads_what_that_one_may() {
    if !rustix::process::geteuid().is_root() {
        return skip("root", "only root can become somebody else");
    }
    let outer = root_with(&[("open", "bytes"), ("shut", "secret")]);
    let mode = |name: &str, mode| {
        fs::set_permissions(outer.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("", 0o755);
    mode("open", 0o644);
    mode("shut", 0o600);
    for workers in ["1", "2"] {
        let carafe = Carafe::serve(outer.path(), &["--user", "nobody", "--workers", workers]);
        let status = fs::read_to_string(format!("/proc/{}/status", carafe.pid())).unwrap();
        assert!(status.contains("NoNewPrivs:\t1\n"), "{status}");
        assert!(
            !status.contains("Uid:\t0") && !status.contains("\t0\t0\t0"),
            "{status}"
        );
        assert_eq!(exchange(carafe.addr(), b"open\n").unwrap(), b"bytes");
        assert_eq!(exchange(carafe.addr(), b"shut\n").unwrap(), b"");
        let log = carafe.stop();
        assert!(!log.contains("running as root"), "{log}");
    }
}

#[test]
fn a_user_that_nobody_can_become_is_refused() {
    let output = run_carafe(&["serve", "--user", "no such user"].map(std::ffi::OsStr::new));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("--user: 'no such user' won't do: it takes "),
        "{stderr}"
    );
}
