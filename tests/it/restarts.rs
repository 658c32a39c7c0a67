//! Restarts without a gap: SIGUSR2 has the program at our path take over.

use std::fs;
use std::io::{Read as _, Write as _};
use std::iter;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::common::{
    Carafe, Followed, LARGE_BYTES, PATIENCE, PATIENT, assert_no_trouble, assert_same,
    begin_download, connect, count_lines, exchange, pattern, root_with, skip, until,
};
use crate::scrape::{Page, get};
use crate::soaking::Soak;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const SMALL: &[u8] = b"small bytes";

/// A server and its successors. All of them are killed with it.
struct Line {
    first: Child,
    /// All of them write to one.
    log: Followed,
    pids: Vec<u32>,
    root: TempDir,
    /// Where the program lies: a link that can be changed.
    folder: TempDir,
}

impl Line {
    fn new(flags: &[&str]) -> Self {
        Self::start(flags, |program| Command::new(program))
    }

    /// By a command that ends in `carafe`.
    fn start(flags: &[&str], command: impl FnOnce(&Path) -> Command) -> Self {
        let root = root_with(&[
            ("small", SMALL.to_vec()),
            ("large", pattern(5, LARGE_BYTES)),
        ]);
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("carafe");
        symlink(env!("CARGO_BIN_EXE_carafe"), &program).unwrap();
        let mut command = command(&program);
        command.arg("serve").arg(root.path()).args(flags);
        command.stderr(Stdio::piped()).env_remove("RUST_LOG");
        let mut first = command.spawn().unwrap();
        let log = Followed::new(first.stderr.take().unwrap());
        log.wait_for("] serving \"");
        Self {
            pids: vec![first.id()],
            first,
            log,
            root,
            folder,
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = *self.pids.last().unwrap();
        kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
    }

    /// Has the next one take over.
    fn restart(&mut self) {
        self.signal(Signal::USR2);
        let parts = |text: &str| text.matches(" takes over\n").count();
        let mut text = String::new();
        until("another one takes over", || {
            text = self.log.wait_for("");
            parts(&text) == self.pids.len()
        });
        let (before, _) = text.rsplit_once(" takes over\n").unwrap();
        let (_, pid) = before.rsplit_once(' ').unwrap();
        self.pids.push(pid.parse().unwrap());
    }

    /// Puts another program, or nothing, in the place of the link.
    fn replace_program(&self, script: Option<&str>) {
        let program = self.folder.path().join("carafe");
        let next = self.folder.path().join("next");
        match script {
            Some(script) => {
                fs::write(&next, script).unwrap();
                fs::set_permissions(&next, fs::Permissions::from_mode(0o755)).unwrap();
            }
            None => symlink(env!("CARGO_BIN_EXE_carafe"), &next).unwrap(),
        }
        fs::rename(next, program).unwrap();
    }

    /// Where it listens, by what its lines have in front.
    fn address(&self, front: &str) -> SocketAddr {
        let text = self.log.wait_for(front);
        let mut lines = text.lines();
        let address = lines.find_map(|line| line.strip_prefix(front)?.parse().ok());
        address.expect("it is announced")
    }

    /// The end of the last one.
    fn stop(self) -> String {
        self.signal(Signal::TERM);
        self.log.wait_for_end()
    }
}

fn has_ended(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Who was started by one that has ended may wait for ever for somebody who asks how it went.
    stat.rsplit_once(") ")
        .is_none_or(|(_, state)| state.starts_with('Z'))
}

impl Drop for Line {
    fn drop(&mut self) {
        for &pid in self.pids.iter().filter(|&&pid| !has_ended(pid)) {
            let _ = kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL);
        }
        let _ = self.first.wait();
    }
}

const LISTENING: &str = "listening on ";

#[test]
fn nobody_is_lost_refused_or_served_wrong_bytes() {
    for workers in ["1", "2"] {
        let mut line = Line::new(&["-p", "0", "-b", "127.0.0.1", "--workers", workers]);
        let address = line.address(LISTENING);
        let (is_over, served) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            for client in 0..4 {
                let (is_over, served) = (&is_over, &served);
                scope.spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        let reply = if client % 2 == 0 {
                            exchange(address, b"small\n")
                        } else {
                            exchange(address, b"GET /small HTTP/1.0\r\n\r\n")
                        };
                        let reply = reply.expect("no reset, and nobody refuses");
                        assert!(reply.ends_with(SMALL), "{reply:?}");
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            for _ in 0..5 {
                let before = served.load(Ordering::Relaxed);
                line.restart();
                until("more are served", || {
                    served.load(Ordering::Relaxed) > before + 50
                });
            }
            is_over.store(true, Ordering::Relaxed);
        });
        for pid in &line.pids[..5] {
            until("those before have ended", || has_ended(*pid));
        }
        let log = line.stop();
        assert_no_trouble(&log);
        let replied = log.lines().filter_map(|line| {
            let (_, counts) = line.split_once("; replied ")?;
            counts.split([',', ';']).next()?.parse::<u64>().ok()
        });
        let replied: u64 = replied.sum();
        assert_eq!(
            replied,
            served.into_inner(),
            "what all of them have counted"
        );
    }
}

/// Has so many take over while `carafe soak` compares every byte, at a rate, by names or by HTTP.
fn restart_under_soak(restarts: u32, rate: u32, workers: &str, is_http: bool) {
    let flags = ["-p", "0", "-b", "127.0.0.1", "--metrics", "127.0.0.1:0"];
    // A machine with other work may be slow to ask.
    let mut line = Line::new(&[&flags[..], &["--workers", workers], &PATIENT].concat());
    let (address, metrics) = (line.address(LISTENING), line.address("metrics on "));
    let words = format!("--verify --rate {rate} -z 10m -t 60s");
    let mut words: Vec<_> = words.split(' ').map(str::to_owned).collect();
    words.extend((!is_http).then(|| address.to_string()));
    for number in 0..10 {
        let bytes = pattern(number, 1 + 997 * number as usize);
        fs::write(line.root.path().join(format!("f{number}")), bytes).unwrap();
        words.push(if is_http {
            format!("http://{address}/f{number}")
        } else {
            format!("f{number}")
        });
    }
    let load = Soak::start(&words);
    // Half a second's.
    let replies = f64::from(rate) / 2.0;
    let is_loaded = |what: &str| {
        until(what, || {
            Page::get(metrics).sum("carafe_replies_total") >= replies
        });
    };
    is_loaded("the first one serves");
    for _ in 0..restarts {
        line.restart();
        is_loaded("the next one serves");
    }
    load.signal(Signal::INT);
    let soaked = load.wait();
    // Whether so much was asked at all is the machine's affair.
    soaked.assert_no_failure();
    let complete = u64::from((1 + restarts) * rate / 2);
    assert!(soaked.count("complete") >= complete, "{soaked:?}");
    for pid in &line.pids[..restarts as usize] {
        until("those before have ended", || has_ended(*pid));
    }
    assert_no_trouble(&line.stop());
}

#[test]
fn five_in_a_row_lose_no_request_of_a_verifying_load() {
    restart_under_soak(5, 500, "1", false);
    restart_under_soak(5, 500, "2", true);
}

#[test]
#[ignore = "a minute of a heavy load"]
fn twenty_in_a_row_lose_no_request_of_a_heavy_load() {
    for workers in ["1", "2"] {
        for is_http in [false, true] {
            restart_under_soak(20, 2000, workers, is_http);
        }
    }
}

#[test]
fn every_listener_is_handed_over_and_downloads_are_finished() {
    for workers in ["1", "2"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let unix = format!("unix:{}", path.display());
        let flags = [
            "-p",
            "0",
            "-b",
            "127.0.0.1",
            "-b",
            &unix,
            "--metrics",
            "127.0.0.1:0",
        ];
        let mut line = Line::new(&[&flags[..], &["--workers", workers]].concat());
        let (address, metrics) = (line.address(LISTENING), line.address("metrics on "));
        let mut downloads = Vec::new();
        for _ in 0..2 {
            let (download, first) = begin_download(address, "large");
            downloads.push((download, first));
            line.restart();
            assert_eq!(exchange(address, b"small\n").unwrap(), SMALL);
            let mut client = UnixStream::connect(&path).unwrap();
            client.write_all(b"small\n").unwrap();
            let mut reply = Vec::new();
            client.read_to_end(&mut reply).unwrap();
            assert_eq!(reply, SMALL);
            // Never the one that goes, which would say that it drains.
            for _ in 0..5 {
                assert_eq!(get(metrics, "/healthz"), (200, "ok\n".to_owned()));
            }
        }
        assert!(!has_ended(line.pids[0]) && !has_ended(line.pids[1]));
        for (mut download, first) in downloads {
            let mut bytes = vec![first];
            download.read_to_end(&mut bytes).unwrap();
            assert_same("large", &bytes, &pattern(5, LARGE_BYTES));
        }
        for pid in &line.pids[..2] {
            until("it has ended", || has_ended(*pid));
        }
        assert!(path.exists());
        assert_eq!(line.first.wait().unwrap().code(), Some(0));
        let log = line.stop();
        assert_no_trouble(&log);
        assert!(!path.exists(), "the last one's file");
    }
}

#[test]
fn a_kept_connection_has_its_next_answer_from_the_process_that_goes() {
    let mut line = Line::new(&["-p", "0", "-b", "127.0.0.1"]);
    let mut client = connect(line.address(LISTENING));
    let mut ask = || {
        client
            .write_all(b"GET /small HTTP/1.1\r\nHost: h\r\n\r\n")
            .unwrap();
        let mut reply = Vec::new();
        until("the answer is whole", || {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            reply.push(byte[0]);
            reply.ends_with(SMALL)
        });
        String::from_utf8(reply).unwrap()
    };
    assert!(!ask().contains("Connection: close"));
    line.restart();
    assert!(!has_ended(line.pids[0]));
    assert!(ask().contains("Connection: close"));
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    drop(client);
    until("it has ended", || has_ended(line.pids[0]));
    line.stop();
}

#[test]
fn one_that_fails_to_start_changes_nothing() {
    let mut line = Line::new(&["-p", "0", "-b", "127.0.0.1"]);
    let address = line.address(LISTENING);
    let (mut download, first) = begin_download(address, "large");
    let mut failures = 0;
    let mut fails = |line: &Line| {
        failures += 1;
        line.signal(Signal::USR2);
        until("it says so", || {
            let text = line.log.wait_for("");
            count_lines(&text, "; this process goes on") == failures
        });
        assert_eq!(exchange(address, b"small\n").unwrap(), SMALL);
    };
    line.replace_program(Some("#!/bin/sh\nexit 3\n"));
    fails(&line);
    line.log.wait_for("exit status: 3");
    line.replace_program(Some("no program"));
    fails(&line);
    fs::remove_file(line.folder.path().join("carafe")).unwrap();
    fails(&line);
    // It can't open what the first one has opened.
    line.replace_program(None);
    let (root, moved) = (
        line.root.path().to_owned(),
        line.folder.path().join("moved"),
    );
    fs::rename(&root, &moved).unwrap();
    fails(&line);
    line.log.wait_for("carafe: ROOT: ");
    fs::rename(&moved, &root).unwrap();
    // At last.
    line.restart();
    assert_eq!(exchange(address, b"small\n").unwrap(), SMALL);
    let mut bytes = vec![first];
    download.read_to_end(&mut bytes).unwrap();
    assert_same("large", &bytes, &pattern(5, LARGE_BYTES));
    drop(download);
    until("the first one has ended", || has_ended(line.pids[0]));
    line.stop();
}

#[test]
fn the_one_that_comes_has_the_rights_with_which_the_first_was_started() {
    if !rustix::process::geteuid().is_root() {
        return skip("root", "only root can become somebody else");
    }
    for flag in ["--user=nobody", "--no-sandbox"] {
        let mut line = Line::new(&["-p", "0", "-b", "127.0.0.1", flag]);
        fs::set_permissions(line.root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let address = line.address(LISTENING);
        for _ in 0..2 {
            line.restart();
            assert_eq!(exchange(address, b"small\n").unwrap(), SMALL);
        }
        for pid in &line.pids[..2] {
            until("those before have ended", || has_ended(*pid));
        }
        let log = line.stop();
        assert_no_trouble(&log);
    }
}

#[test]
fn signals_that_are_sent_to_all_of_a_name_leave_who_starts_the_next_one() {
    let mut line = Line::new(&["-p", "0", "-b", "127.0.0.1"]);
    let starter = starter_of(line.pids[0]);
    for signal in [Signal::HUP, Signal::USR1, Signal::USR2] {
        kill_process(starter, signal).unwrap();
    }
    line.restart();
    until("it ends with whom it served", || {
        has_ended(line.pids[0]) && has_ended(starter.as_raw_nonzero().get() as u32)
    });
    // Without it there is no restart, and nothing else is lost.
    kill_process(starter_of(line.pids[1]), Signal::KILL).unwrap();
    line.signal(Signal::USR2);
    line.log.wait_for("a new process can't be started: ");
    assert_eq!(
        exchange(line.address(LISTENING), b"small\n").unwrap(),
        SMALL
    );
    line.stop();
}

/// The process beside a server, when it has taken its signals.
fn starter_of(server: u32) -> Pid {
    let children = fs::read_to_string(format!("/proc/{server}/task/{server}/children")).unwrap();
    let pid = children.trim().parse().expect("one");
    until("it takes signals", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let (_, caught) = status.split_once("SigCgt:\t").unwrap();
        let caught = u64::from_str_radix(caught.lines().next().unwrap(), 16).unwrap();
        caught >> (Signal::USR2.as_raw() - 1) & 1 == 1
    });
    Pid::from_raw(pid).unwrap()
}

#[test]
fn sockets_that_were_passed_are_passed_on() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let passed = OwnedFd::from(listener.try_clone().unwrap());
    let mut line = Line::start(&[], |program| {
        let mut command = Command::new("sh");
        let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ exec \"$0\" \"$@\"";
        command.args(["-c", script]).arg(program);
        command.env("LISTEN_FDS", "1").stdin(passed);
        command
    });
    for _ in 0..2 {
        assert_eq!(exchange(address, b"small\n").unwrap(), SMALL);
        line.restart();
    }
    assert_eq!(exchange(address, b"small\n").unwrap(), SMALL);
    let log = line.stop();
    assert_eq!(count_lines(&log, LISTENING), 3, "nothing else: {log}");
    // Whoever has passed it has it still.
    drop(std::net::TcpStream::connect(address).unwrap());
}

#[test]
fn the_service_manager_learns_which_process_is_the_main_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut bytes = [0; 1000];
        let length = manager.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    let mut line = Line::start(&["-p", "0", "-b", "127.0.0.1"], |program| {
        let mut command = Command::new(program);
        command.env("NOTIFY_SOCKET", &path);
        command
    });
    assert_eq!(hear(), "READY=1");
    line.restart();
    let messages = iter::repeat_with(hear).filter(|message| !message.starts_with("STATUS="));
    let messages: Vec<_> = messages.take(2).collect();
    assert_eq!(
        messages,
        [format!("MAINPID={}", line.pids[1]), "READY=1".to_owned()]
    );
    until("the first one has ended", || has_ended(line.pids[0]));
    line.signal(Signal::TERM);
    // The first one, which has stopped, doesn't say so.
    loop {
        match hear().as_str() {
            "STOPPING=1" => break,
            message => assert!(message.starts_with("STATUS="), "{message}"),
        }
    }
    line.log.wait_for_end();
}

#[test]
fn texts_are_taken_without_successors() {
    let carafe = Carafe::thank(&[]);
    carafe.signal(Signal::USR2);
    assert_eq!(exchange(carafe.addr(), b"hello").unwrap(), b"thank you !");
    carafe.stop_clean();
}
