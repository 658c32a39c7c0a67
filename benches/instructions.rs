//! User-space instructions of a warm 1 KiB download: the same on a busy machine as on a quiet one. The
//! real binary's loop is single-stepped by ptrace(2), and each step counted, while a client asks: what a
//! turn costs is in it. (An instruction that repeats itself, as `rep movsb`, counts once for each time.)
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a bench says what failed by panicking"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

const FILE_BYTES: usize = 1024;

/// Asks once, by a connection that is kept if it can be. A step of ptrace takes some 30 µs, and what took
/// a second would be looked at anew: so there is one client.
type Load = fn(&mut Option<BufReader<TcpStream>>, SocketAddr);

/// What is counted, with these flags, and the most that it may be, if that is held: as it was measured last, and a
/// tenth more, by an optimized build and by one that isn't. Compilers and C libraries differ by less.
struct Row<'a> {
    what: &'static str,
    flags: Vec<&'a str>,
    load: Load,
    most: Option<[u64; 2]>,
}

fn rows(trace: &str) -> [Row<'_>; 6] {
    let row = |what, flags: &[_], load, most| Row {
        what,
        flags: flags.to_vec(),
        load,
        most,
    };
    let (each, again) = (
        "a connection each, by name",
        "a request on a kept connection",
    );
    [
        row(each, &["-q"], one_each, Some([5_600, 40_700])),
        row(each, &[], one_each, Some([7_300, 62_000])),
        row(each, &["-q", "--trace", trace], one_each, None),
        row(again, &["-q"], kept, Some([6_900, 56_000])),
        row(again, &[], kept, Some([8_650, 82_000])),
        row(again, &["-q", "--trace", trace], kept, None),
    ]
}

fn main() {
    let measures = std::env::args().any(|argument| argument == "--bench");
    let rounds = if measures { 15 } else { 2 };
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.json");
    let rows = rows(trace.to_str().unwrap());
    for row in rows.iter().filter(|row| measures || row.most.is_some()) {
        let name = [&[row.what], &row.flags[..]].concat().join(" ");
        let counts = match count(row, rounds) {
            Ok(counts) => counts,
            Err(error) => {
                println!("{name}: SKIPPED, the server can't be traced: {error}");
                continue;
            }
        };
        // Whatever else happened in a turn is in the larger ones: a new second's date and stamp, a wake-up.
        println!("{name}: {} instructions", counts[0]);
        if let Some(most) = row.most {
            let most = most[usize::from(cfg!(debug_assertions))];
            // On a busy machine all may be so late that the file was looked at anew.
            let least = if counts[0] > most {
                count(row, 3 * rounds).unwrap()[0]
            } else {
                counts[0]
            };
            assert!(least <= most, "{least} are more than {most}");
        }
    }
}

/// Instructions of the loop's thread for one request, each of so many, sorted.
fn count(row: &Row<'_>, rounds: usize) -> nix::Result<Vec<u64>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, [7; FILE_BYTES]).unwrap();
    // Old enough for both validators: what every answer has is kept.
    thread::sleep(Duration::from_millis(1_100));
    let (mut server, address) = start(folder.path(), &row.flags);
    let loop_thread = Pid::from_raw(server.id() as i32);
    let mut client = None;
    let mut counts = Vec::new();
    for _ in 0..rounds {
        // The cache has the file then, and has looked at it a moment ago.
        for _ in 0..4 {
            (row.load)(&mut client, address);
            thread::sleep(Duration::from_millis(100));
        }
        let counted = count_one(loop_thread, || (row.load)(&mut client, address));
        if counted.is_err() {
            server.kill().unwrap();
        }
        counts.push(counted?);
    }
    server.kill().unwrap();
    let _ = server.wait();
    counts.sort_unstable();
    Ok(counts)
}

/// Counts what this request takes. To attach to a thread ends its wait: what it does until it waits again isn't
/// counted.
fn count_one(loop_thread: Pid, load: impl FnOnce()) -> nix::Result<u64> {
    let steps = AtomicU64::new(0);
    thread::scope(|scope| {
        let (attached, is_attached) = mpsc::channel();
        let tracer = scope.spawn(|| single_step(loop_thread, attached, &steps));
        if is_attached.recv().is_err() {
            return tracer.join().unwrap().map(|()| 0);
        }
        while !is_waiting(loop_thread) {
            thread::sleep(Duration::from_millis(1));
        }
        let before = steps.load(Ordering::Relaxed);
        load();
        while !tracer.is_finished() {
            thread::sleep(Duration::from_millis(10));
            // A signal that is ignored stops a thread that is traced all the same. Sent between
            // two steps it goes to another thread, and is lost.
            if is_waiting(loop_thread) {
                kill(loop_thread, Signal::SIGWINCH)?;
            }
        }
        tracer.join().unwrap()?;
        Ok(steps.load(Ordering::Relaxed) - before)
    })
}

/// Whether the thread is in a system call that waits, as epoll_wait(2): proc(5), the field `State`.
fn is_waiting(thread: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{thread}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.starts_with('S')
}

/// Steps a thread, and counts, until it is sent a signal. Says when it is traced: a signal that comes
/// before is lost. In a system call a step lasts as long as the call.
fn single_step(thread: Pid, attached: Sender<()>, steps: &AtomicU64) -> nix::Result<()> {
    ptrace::attach(thread)?;
    waitpid(thread, Some(WaitPidFlag::__WALL))?;
    // Who waits for this is there.
    let _ = attached.send(());
    loop {
        ptrace::step(thread, None)?;
        match waitpid(thread, Some(WaitPidFlag::__WALL))? {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => steps.fetch_add(1, Ordering::Relaxed),
            _ => break,
        };
    }
    ptrace::detach(thread, None)
}

fn start(root: &Path, flags: &[&str]) -> (Child, SocketAddr) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_carafe"));
    command.arg("serve").arg(root);
    command.args(["-p", "0", "-b", "127.0.0.1"]).args(flags);
    command.env_remove("RUST_LOG");
    let mut server = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
    let address =
        lines.find_map(|line| Some(line.ok()?.strip_prefix("listening on ")?.parse().unwrap()));
    // The pipe stays open for whatever else there is to say.
    thread::spawn(move || lines.for_each(drop));
    (server, address.unwrap())
}

fn one_each(_: &mut Option<BufReader<TcpStream>>, address: SocketAddr) {
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"file\n").unwrap();
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len(), FILE_BYTES);
}

fn kept(client: &mut Option<BufReader<TcpStream>>, address: SocketAddr) {
    let connect = || BufReader::new(TcpStream::connect(address).unwrap());
    let client = client.get_or_insert_with(connect);
    let request = b"GET /file HTTP/1.1\r\nHost: localhost\r\n\r\n";
    client.get_mut().write_all(request).unwrap();
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        assert_ne!(client.read_line(&mut line).unwrap(), 0);
    }
    client.read_exact(&mut [0; FILE_BYTES]).unwrap();
}
