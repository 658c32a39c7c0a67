//! What /proc says about a server, and which core a process runs on.

use std::fs;
use std::time::Duration;

use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

use crate::Result;

/// The two cores of a measurement.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    /// The servers run here.
    pub server: usize,
    /// The load runs here.
    pub load: usize,
}

impl Cores {
    /// The first two that this process may use; the same twice where there is only one.
    pub fn choose() -> Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        let server = cores.next().ok_or("no core to run on")?;
        let load = cores.next().unwrap_or(server);
        Ok(Self { server, load })
    }
}

/// Keeps this thread, and what it will start, on one core.
pub fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// Has all threads of a process but its first one run on a core.
pub fn move_helpers(pid: u32, core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let name = task?.file_name();
        let thread = name.to_str().and_then(|name| name.parse().ok());
        let thread = thread
            .and_then(Pid::from_raw)
            .filter(|thread| thread.as_raw_pid() != pid as i32);
        // It may have ended meanwhile.
        if let Some(thread) = thread {
            _ = sched_setaffinity(Some(thread), &set);
        }
    }
    Ok(())
}

/// CPU time of a process's threads so far: the scheduler's nanoseconds.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let mut sum_ns = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the listing and the look.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
            continue;
        };
        let first = text.split_ascii_whitespace().next().unwrap_or_default();
        sum_ns += first.parse::<u64>()?;
    }
    if sum_ns == 0 {
        return Err("this kernel has no schedstat: the servers' CPU time can't be told".into());
    }
    Ok(Duration::from_nanos(sum_ns))
}

/// For how long a process's first thread could have run and had no core.
pub fn waited(pid: u32) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/schedstat"))?;
    let waited_ns = text.split_ascii_whitespace().nth(1);
    Ok(Duration::from_nanos(waited_ns.unwrap_or_default().parse()?))
}

/// Resident memory in bytes, counted page by page: the counters of `stat` are behind by some.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    let number = line.and_then(|line| line.split_ascii_whitespace().next());
    Ok(number.ok_or("no Rss in smaps_rollup")?.parse::<u64>()? * 1024)
}

/// The processes that a process has started.
pub fn children(parent: u32) -> Vec<u32> {
    let Ok(all) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| parent_of(pid) == Some(parent)).collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; the state and the parent follow it.
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Where a program is: on PATH, or where a distribution puts daemons.
pub fn find_program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders =
        std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let mut files = folders.map(|folder| folder.join(name));
    files.find(|file| file.is_file())
}
