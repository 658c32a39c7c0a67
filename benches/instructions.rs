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

fn main() {
    let measures = std::env::args().any(|argument| argument == "--bench");
    let rounds = if measures { 15 } else { 1 };
    let loads: [(&str, Load); 2] = [
        ("a connection each, by name", one_each),
        ("a request on a kept connection", kept),
    ];
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.json");
    let flags: [(&str, &[&str]); 2] = [
        ("", &[]),
        (", with --trace", &["--trace", trace.to_str().unwrap()]),
    ];
    for (what, load) in loads {
        for (how, flags) in flags {
            match count(load, flags, rounds) {
                Ok(each) => println!("{what}{how}: {each} instructions"),
                Err(error) => {
                    println!("{what}: left out, since the server can't be traced: {error}");
                }
            }
        }
    }
}

/// Instructions of the loop's thread for one request, the median of so many.
fn count(load: Load, flags: &[&str], rounds: usize) -> nix::Result<u64> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, [7; FILE_BYTES]).unwrap();
    // Old enough for both validators: what every answer has is kept.
    thread::sleep(Duration::from_millis(1_100));
    let (mut server, address) = start(folder.path(), flags);
    let loop_thread = Pid::from_raw(server.id() as i32);
    let mut client = None;
    let mut counts = Vec::new();
    for _ in 0..rounds {
        // The cache has the file then, and has looked at it a moment ago.
        for _ in 0..4 {
            load(&mut client, address);
            thread::sleep(Duration::from_millis(100));
        }
        let steps = thread::scope(|scope| {
            let (attached, is_attached) = mpsc::channel();
            let tracer = scope.spawn(move || single_step(loop_thread, &attached));
            if is_attached.recv().is_err() {
                return tracer.join().unwrap();
            }
            load(&mut client, address);
            while !tracer.is_finished() {
                thread::sleep(Duration::from_millis(10));
                // A signal that is ignored stops a thread that is traced all the same. Sent between
                // two steps it goes to another thread, and is lost.
                if is_waiting(loop_thread) {
                    kill(loop_thread, Signal::SIGWINCH)?;
                }
            }
            tracer.join().unwrap()
        });
        counts.push(steps?);
    }
    server.kill().unwrap();
    let _ = server.wait();
    counts.sort_unstable();
    Ok(counts[counts.len() / 2])
}

/// Whether the thread is in a system call that waits, as epoll_wait(2): proc(5), the field `State`.
fn is_waiting(thread: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{thread}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.starts_with('S')
}

/// Steps a thread, and counts, until it is sent a signal. Says when it is traced: a signal that comes
/// before is lost. In a system call a step lasts as long as the call.
fn single_step(thread: Pid, attached: &Sender<()>) -> nix::Result<u64> {
    ptrace::attach(thread)?;
    waitpid(thread, Some(WaitPidFlag::__WALL))?;
    // Who waits for this is there.
    let _ = attached.send(());
    let mut steps = 0;
    loop {
        ptrace::step(thread, None)?;
        match waitpid(thread, Some(WaitPidFlag::__WALL))? {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => steps += 1,
            _ => break,
        }
    }
    ptrace::detach(thread, None)?;
    Ok(steps)
}

fn start(root: &Path, flags: &[&str]) -> (Child, SocketAddr) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_carafe"));
    command.arg("serve").arg(root);
    command
        .args(["-p", "0", "-b", "127.0.0.1", "-q"])
        .args(flags);
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
