//! The system calls of a server that serves. Whoever makes another is no longer this program, so the kernel
//! kills the process: it notes the call in its log (audit, type 1326), whoever supervises the process sees
//! SIGSYS, and nothing is tried twice. An error in its place would be met only by the intruder, who would go on
//! trying. So that no library's other way of doing a thing ends a server, the list is made of families:
//! beside what strace shows, what glibc and musl do in its place on other kernels.

use std::collections::BTreeMap;

use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
    apply_filter_all_threads,
};

/// Calls that are made with any arguments. What they can open is Landlock's to say.
const FREE: &[&[i64]] = &[
    FILES,
    DESCRIPTORS,
    SOCKETS,
    WAITING,
    MEMORY,
    THREADS,
    CLOCKS,
    #[cfg(target_arch = "x86_64")]
    OLD,
];

/// Names, and what has them.
const FILES: &[i64] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getcwd,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
];

/// What is open.
const DESCRIPTORS: &[i64] = &[
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_readahead,
    libc::SYS_fadvise64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_flock,
    libc::SYS_dup,
];

/// Connections that come; none is begun.
const SOCKETS: &[i64] = &[
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendfile,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
];

/// Waiting for what happens, and waking who waits.
const WAITING: &[i64] = &[
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_futex,
    libc::SYS_ppoll,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
];

/// The allocator's. Nothing that can be run: see [`conditional`].
const MEMORY: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
];

/// Threads, from their beginning to their end, and what a process may know of itself.
const THREADS: &[i64] = &[
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_membarrier,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];

const CLOCKS: &[i64] = &[
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
];

/// What newer processors' kernels leave out, and musl still calls.
#[cfg(target_arch = "x86_64")]
const OLD: &[i64] = &[
    libc::SYS_access,
    libc::SYS_epoll_wait,
    libc::SYS_lstat,
    libc::SYS_open,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_stat,
    libc::SYS_time,
    libc::SYS_unlink,
];

/// `include/uapi/linux/prctl.h`.
const PR_GET_AUXV: libc::c_int = 0x4155_5856;

/// An argument's index, its length, how it is compared and with what.
type Condition = (
    u8,
    seccompiler::SeccompCmpArgLen,
    seccompiler::SeccompCmpOp,
    u64,
);

/// Calls of which one of these conditions must hold.
fn conditional() -> Vec<(i64, Vec<Condition>)> {
    let no_code = |argument| vec![(argument, Dword, MaskedEq(libc::PROT_EXEC as u64), 0)];
    let one_of = |argument, values: &[u64]| {
        let equals = |&value: &u64| (argument, Dword, Eq, value);
        values.iter().map(equals).collect::<Vec<_>>()
    };
    let thread = libc::CLONE_THREAD as u64;
    let own = u64::from(std::process::id());
    let commands = [
        libc::F_GETFD,
        libc::F_SETFD,
        libc::F_GETFL,
        libc::F_SETFL,
        libc::F_DUPFD_CLOEXEC,
    ]
    .map(|command| command as u64);
    // Of a terminal, whether it is one and how wide.
    let requests = [
        libc::FIONBIO,
        libc::FIONREAD,
        libc::TCGETS,
        libc::TIOCGWINSZ,
    ];
    // rustix looks for the clock in the auxiliary vector.
    let options = [libc::PR_SET_NAME, libc::PR_SET_VMA, PR_GET_AUXV].map(|option| option as u64);
    vec![
        (libc::SYS_mmap, no_code(2)),
        (libc::SYS_mprotect, no_code(2)),
        (libc::SYS_clone, vec![(0, Qword, MaskedEq(thread), thread)]),
        (libc::SYS_fcntl, one_of(1, &commands)),
        (libc::SYS_ioctl, one_of(1, &requests.map(u64::from))),
        (libc::SYS_prctl, one_of(0, &options)),
        // Limits are read, not set.
        (libc::SYS_prlimit64, vec![(2, Qword, Eq, 0)]),
        // abort(3).
        (libc::SYS_tgkill, one_of(0, &[own])),
    ]
}

/// What a tracer makes of a call that it answers itself: -1, as a filter sees it. Nothing is called.
const NO_CALL: i64 = u32::MAX as i64;

/// Every call that may be made, some with certain arguments only.
#[must_use]
pub fn allowed() -> Vec<i64> {
    let free = FREE.iter().copied().flatten().copied();
    let conditional = conditional().into_iter().map(|(call, _)| call);
    let others = [libc::SYS_clone3, NO_CALL];
    free.chain(conditional).chain(others).collect()
}

/// Restricts all threads, those to come too.
///
/// # Errors
/// seccompiler doesn't know the processor, or the kernel has no filters, or refuses them.
pub(super) fn restrict() -> Result<(), seccompiler::Error> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    for program in programs(arch)? {
        apply_filter_all_threads(&program)?;
    }
    Ok(())
}

/// Two filters, of which the stricter answer counts. The first one makes clone3(2) unknown: its flags are in
/// memory, where no filter looks, and for this error glibc takes clone(2). The list comes last, as it has no
/// seccomp(2).
fn programs(arch: TargetArch) -> Result<[BpfProgram; 2], seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = allowed()
        .into_iter()
        .map(|call| (call, Vec::new()))
        .collect();
    for (call, conditions) in conditional() {
        let rule = |(argument, length, operator, value)| {
            let condition = SeccompCondition::new(argument, length, operator, value)?;
            SeccompRule::new(vec![condition])
        };
        rules.insert(
            call,
            conditions.into_iter().map(rule).collect::<Result<_, _>>()?,
        );
    }
    let allow = SeccompAction::Allow;
    let list = SeccompFilter::new(rules, SeccompAction::KillProcess, allow.clone(), arch)?;
    let unknown = SeccompAction::Errno(libc::ENOSYS as u32);
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let without = SeccompFilter::new(clone3, allow, unknown, arch)?;
    Ok([without.try_into()?, list.try_into()?])
}
