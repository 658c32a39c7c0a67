//! One process as /proc shows it: its CPU time, memory, descriptors and sockets.
//!
//! All files are opened once, through the process's own folder in /proc. They stay with that one
//! process: after its end they say so (ESRCH), also when its number belongs to another. And a
//! load generator that has run out of descriptors can still look.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, openat, statat};
use rustix::io::Errno;

/// What a process uses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time so far, in microseconds. The kernel counts it in ticks, of 10,000.
    pub cpu_us: u64,
    /// Resident memory, in bytes.
    pub rss_bytes: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// TCP sockets in use in its network namespace.
    pub tcp_in_use: u64,
    /// TCP sockets in TIME_WAIT in its network namespace.
    pub tcp_time_wait: u64,
}

/// What is kept open of a process.
#[derive(Debug)]
pub struct Process {
    folder: OwnedFd,
    stat: File,
    /// Of its network namespace; IPv6 may be missing.
    sockets: Option<File>,
    sockets_6: Option<File>,
    /// Since Linux 6.2 the size of /proc/PID/fd is the number of descriptors.
    fd_size_counts: bool,
}

impl Process {
    /// Opens what it takes to look at a process, and says its name.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such process, and whatever else /proc says.
    pub fn open(pid: u32) -> io::Result<(Self, String)> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(CWD, format!("/proc/{pid}"), flags, Mode::empty())?;
        let file = |name: &str| {
            openat(
                &folder,
                name,
                OFlags::RDONLY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map(File::from)
        };
        let stat = file("stat")?;
        let sockets = file("net/sockstat").ok();
        let sockets_6 = file("net/sockstat6").ok();
        let name = Stat::parse(&content(&stat)?)?.name;
        // Our own size can't be zero where it counts, as this folder itself is open.
        let fd_size_counts = File::open("/proc/self/fd")?.metadata()?.len() > 0;
        let process = Self {
            folder,
            stat,
            sockets,
            sockets_6,
            fd_size_counts,
        };
        Ok((process, name))
    }

    /// Looks at it.
    ///
    /// # Errors
    ///
    /// Those of /proc; [`is_end`] knows those that say that the process has ended.
    pub fn usage(&self) -> io::Result<Usage> {
        let stat = Stat::parse(&content(&self.stat)?)?;
        if stat.has_ended {
            return Err(Errno::SRCH.into());
        }
        let sockets = |file: &Option<File>| {
            let text = file.as_ref().map(content);
            text.and_then(Result::ok).unwrap_or_default()
        };
        let (four, six) = (sockets(&self.sockets), sockets(&self.sockets_6));
        let in_use = socket_count(&four, "TCP:", "inuse") + socket_count(&six, "TCP6:", "inuse");
        Ok(Usage {
            cpu_us: stat.cpu_ticks.saturating_mul(1_000_000)
                / rustix::param::clock_ticks_per_second(),
            rss_bytes: stat
                .rss_pages
                .saturating_mul(rustix::param::page_size() as u64),
            descriptors: self.descriptors()?,
            tcp_in_use: in_use,
            tcp_time_wait: socket_count(&four, "TCP:", "tw"),
        })
    }

    fn descriptors(&self) -> io::Result<u64> {
        if self.fd_size_counts {
            let size = statat(&self.folder, "fd", AtFlags::empty())?.st_size;
            return Ok(size.unsigned_abs());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let listing = Dir::new(openat(&self.folder, "fd", flags, Mode::empty())?)?;
        let mut count = 0;
        for entry in listing {
            let entry = entry?;
            count += u64::from(!entry.file_name().to_bytes().starts_with(b"."));
        }
        Ok(count)
    }
}

/// What /proc/PID/stat says. Its memory is the same count as statm's.
#[derive(Debug)]
struct Stat {
    name: String,
    has_ended: bool,
    cpu_ticks: u64,
    rss_pages: u64,
}

impl Stat {
    fn parse(text: &str) -> io::Result<Self> {
        Self::fields(text).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn fields(text: &str) -> Option<Self> {
        // The name may hold anything, also spaces and parentheses.
        let (head, rest) = text.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        let fields: Vec<_> = rest.split_ascii_whitespace().collect();
        // proc_pid_stat(5) numbers fields from 1, and `rest` begins with the third.
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            name: name.to_owned(),
            // A zombie is over, though its parent hasn't asked yet.
            has_ended: matches!(*fields.first()?, "Z" | "X"),
            cpu_ticks: number(14)?.saturating_add(number(15)?),
            rss_pages: number(24)?,
        })
    }
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
        let tail = "S 1 2 3 0 -1 4194304 5 6 7 8 90 10 11 12 20 0 1 0 777 4096000 321 18446744";
        for name in ["sh", "a b", "a) S 1 (b", "((", "))", ""] {
            let text = format!("42 ({name}) {tail}\n");
            let stat = Stat::parse(&text).expect(name);
            assert_eq!(stat.name, name);
            assert_eq!(
                (stat.cpu_ticks, stat.rss_pages, stat.has_ended),
                (100, 321, false)
            );
        }
        let zombie = format!("42 (x) {}", tail.replacen('S', "Z", 1));
        assert!(Stat::parse(&zombie).expect("a zombie").has_ended);
        for bad in ["", "42", "42 (x", "42 (x)", "42 (x) S 1 2 3"] {
            assert!(Stat::parse(bad).is_err(), "{bad}");
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

        let (mut process, _) = Process::open(child.id()).expect("cat");
        let one = process.descriptors().expect("a count");
        process.fd_size_counts = false;
        assert_eq!(one, process.descriptors().expect("a listing"));
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
