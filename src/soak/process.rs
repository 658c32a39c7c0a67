//! One process as /proc shows it: its CPU time, memory, descriptors and sockets.
//!
//! Its files in /proc are opened once. They stay with that one process: after its end they say so
//! (ESRCH), also when its number belongs to another. And a load generator that has run out of
//! descriptors can still look.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use procfs::FromRead as _;
use procfs::process::Stat;
use rustix::io::Errno;

use super::report::Usage;

/// What is kept open of a process.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    /// Its CPU time to the nanosecond: /proc has it in ticks of 10 ms.
    cpu_clock: Option<ClockId>,
    stat: File,
    /// Of its network namespace; IPv6 may be missing.
    sockets: Option<File>,
    sockets_6: Option<File>,
}

impl Process {
    /// Opens what it takes to look at a process, and says its name.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such process, and whatever else /proc says.
    pub fn open(pid: u32) -> io::Result<(Self, String)> {
        let file = |name: &str| File::open(format!("/proc/{pid}/{name}"));
        let cpu_clock = i32::try_from(pid).map(Pid::from_raw);
        let process = Self {
            pid,
            cpu_clock: cpu_clock.ok().and_then(|pid| clock_getcpuclockid(pid).ok()),
            stat: file("stat")?,
            sockets: file("net/sockstat").ok(),
            sockets_6: file("net/sockstat6").ok(),
        };
        let name = process.stat()?.comm;
        Ok((process, name))
    }

    /// Looks at it.
    ///
    /// # Errors
    ///
    /// Those of /proc; [`is_end`] knows those that say that the process has ended.
    pub fn usage(&self) -> io::Result<Usage> {
        let sockets = |file: &Option<File>| {
            let text = file.as_ref().map(content);
            text.and_then(Result::ok).unwrap_or_default()
        };
        let (four, six) = (sockets(&self.sockets), sockets(&self.sockets_6));
        let in_use = socket_count(&four, "TCP:", "inuse") + socket_count(&six, "TCP6:", "inuse");
        let descriptors = self.descriptors()?;
        let cpu_time = self.cpu_clock.and_then(|clock| clock.now().ok());
        // Last: while this file tells of a living process, its number is no other's.
        let stat = self.stat()?;
        Ok(Usage {
            cpu_us: match cpu_time {
                Some(time) => Duration::from(time).as_micros() as u64,
                None => {
                    let ticks = stat.utime.saturating_add(stat.stime);
                    ticks.saturating_mul(1_000_000) / procfs::ticks_per_second()
                }
            },
            rss_bytes: stat.rss.saturating_mul(procfs::page_size()),
            descriptors,
            tcp_in_use: in_use,
            tcp_time_wait: socket_count(&four, "TCP:", "tw"),
        })
    }

    /// What /proc/PID/stat says of a process that lives. Its memory is the same count as statm's.
    fn stat(&self) -> io::Result<Stat> {
        let text = content(&self.stat)?;
        let stat = Stat::from_read(text.as_bytes()).map_err(io::Error::other)?;
        // A zombie is over, though its parent hasn't asked yet.
        if matches!(stat.state, 'Z' | 'X') {
            return Err(Errno::SRCH.into());
        }
        Ok(stat)
    }

    /// Since Linux 6.2 the size of /proc/PID/fd is the number of descriptors. procfs counts `.` and `..`
    /// with them where it isn't.
    fn descriptors(&self) -> io::Result<u64> {
        let folder = format!("/proc/{}/fd", self.pid);
        match fs::metadata(&folder)?.len() {
            0 => listed(&folder),
            count => Ok(count),
        }
    }
}

fn listed(folder: &str) -> io::Result<u64> {
    let mut count = 0;
    for entry in fs::read_dir(folder)? {
        entry?;
        count += 1;
    }
    Ok(count)
}

/// One number of /proc/net/sockstat, such as TCP's `tw`; 0 where it is missing.
fn socket_count(text: &str, protocol: &str, what: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(protocol));
    let mut words = line.unwrap_or_default().split_ascii_whitespace();
    words.find(|&word| word == what);
    words
        .next()
        .and_then(|count| count.parse().ok())
        .unwrap_or(0)
}

/// The whole of a small file in /proc as it is now. A read from the start makes it anew, and
/// these are far shorter than a page, which one read gives at once.
fn content(file: &File) -> io::Result<String> {
    let mut buffer = [0; 4096];
    let length = file.read_at(&mut buffer, 0)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// Whether an error of [`Process::usage`] says that the process has ended.
#[must_use]
pub fn is_end(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let tail = "S 1 2 3 0 -1 4194304 5 6 7 8 90 10 11 12 20 0 1 0 777 4096000 321 18446744 \
             1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20";
        for name in ["sh", "a b", "a) S 1 (b", "((", "))", ""] {
            let text = format!("42 ({name}) {tail}\n");
            let stat = Stat::from_read(text.as_bytes()).expect(name);
            assert_eq!(stat.comm, name);
            assert_eq!(
                (stat.utime + stat.stime, stat.rss, stat.state),
                (100, 321, 'S')
            );
        }
    }

    #[test]
    fn sockets_are_counted_by_protocol() {
        let text = "sockets: used 9\nTCP: inuse 5 orphan 0 tw 31 alloc 7 mem 2\nUDP: inuse 8\n";
        assert_eq!(socket_count(text, "TCP:", "inuse"), 5);
        assert_eq!(socket_count(text, "TCP:", "tw"), 31);
        assert_eq!(socket_count(text, "UDP:", "tw"), 0);
        assert_eq!(socket_count(text, "TCP6:", "inuse"), 0);
    }

    #[test]
    fn both_ways_of_counting_descriptors_agree() {
        // Before its exec the child has what this process has open, for a moment.
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cat");
        let input = child.stdin.as_mut().expect("a pipe");
        input.write_all(b"x").expect("cat reads");
        let output = child.stdout.as_mut().expect("a pipe");
        output.read_exact(&mut [0]).expect("cat writes");

        let (process, _) = Process::open(child.id()).expect("cat");
        let one = process.descriptors().expect("a count");
        let folder = format!("/proc/{}/fd", child.id());
        assert_eq!(one, listed(&folder).expect("a listing"));
        assert!(one >= 3);
        child.kill().expect("its end");
        child.wait().expect("its end");
    }

    #[test]
    fn an_open_process_is_not_taken_for_another_after_its_end() {
        let mut child = Command::new("sleep").arg("1000").spawn().expect("sleep");
        let (process, _) = Process::open(child.id()).expect("sleep");
        assert!(process.usage().is_ok());
        child.kill().expect("its end");
        child.wait().expect("its end");
        assert!(is_end(&process.usage().expect_err("its end")));
    }
}
