//! What a person at a terminal sees: what to open, short lines, colours only if they are wanted; and
//! that programs see the same lines as ever.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what failed by panicking"
)]

mod common;

use std::ffi::OsStr;
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Child, Command, Stdio};

use common::{Carafe, Followed, exchange, root_with};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// A program whose stderr is a terminal.
struct OnTerminal {
    child: Child,
    screen: Followed,
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl OnTerminal {
    fn start(command: &mut Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let terminal = rustix::fs::open(OsStr::from_bytes(name.as_bytes()), flags, Mode::empty());
        let terminal = File::from(terminal.unwrap());
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(terminal)
            .env_remove("RUST_LOG")
            .spawn();
        Self {
            child: child.unwrap(),
            screen: Followed::new(File::from(master)),
        }
    }

    fn carafe(words: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_carafe"));
        command
            .args(words)
            .env_remove("NO_COLOR")
            .env("TERM", "xterm");
        command.envs(environment.iter().copied());
        Self::start(&mut command)
    }

    fn end(&mut self) -> String {
        let pid = Pid::from_raw(self.child.id() as i32).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let text = self.screen.wait_for("; replied ");
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{text}");
        text.replace("\r\n", "\n")
    }
}

fn address(screen: &str) -> SocketAddr {
    let line = screen
        .lines()
        .find_map(|line| line.strip_prefix("listening on "));
    line.unwrap().trim_end().parse().unwrap()
}

const HERE: [&str; 4] = ["-p", "0", "-b", "127.0.0.1"];

#[test]
fn a_stranger_learns_what_to_open_what_is_there_and_how_to_stop() {
    let root = root_with(&[("small", b"small bytes")]);
    let path = root.path().to_str().unwrap();
    for (flags, folders) in [
        (
            &[][..],
            "not listed (--listing does that): ask for files by name",
        ),
        (&["--listing"], "listed"),
    ] {
        let words = [&["serve", path], &HERE[..], flags].concat();
        let mut carafe = OnTerminal::carafe(&words, &[]);
        let screen = carafe.screen.wait_for("  stop ").replace("\r\n", "\n");
        let addr = address(&screen);
        let greeting = format!(
            "listening on {addr}\n\n  serving  \"{path}\"\n  folders  {folders}\n  open     \
             http://{addr}/\n  stop     Ctrl-C "
        );
        assert!(screen.starts_with(&greeting), "{screen}");
        carafe.end();
    }
}

#[test]
fn a_line_for_a_person_has_the_time_and_what_happened() {
    let root = root_with(&[("small", b"small bytes")]);
    let words = [&["serve", root.path().to_str().unwrap()], &HERE[..]].concat();
    for (environment, before, after) in [
        (("NO_COLOR", "1"), "", ""),
        (("TERM", "dumb"), "", ""),
        (("TERM", "xterm"), "\x1b[2m", "\x1b[0m"),
    ] {
        let mut carafe = OnTerminal::carafe(&words, &[environment]);
        let addr = address(&carafe.screen.wait_for("  stop "));
        assert_eq!(exchange(addr, b"small\n").unwrap(), b"small bytes");
        let screen = carafe.end();
        let line = screen
            .lines()
            .find(|line| line.contains("\"small\""))
            .unwrap();
        let line = line.strip_prefix(before).unwrap();
        let (time, rest) = line.split_at("00:00:00".len());
        assert!(
            time.bytes()
                .all(|byte| byte == b':' || byte.is_ascii_digit()),
            "{line}"
        );
        let rest = rest.strip_prefix(after).unwrap();
        assert!(rest.starts_with(" 127.0.0.1:"), "{line}");
        assert!(rest.ends_with(" complete"), "{line}");
        assert_eq!(screen.contains('\x1b'), !before.is_empty(), "{screen}");
    }
}

#[test]
fn who_wants_it_quiet_is_not_greeted() {
    let root = root_with(&[("small", b"small bytes")]);
    let words = [&["serve", root.path().to_str().unwrap(), "-q"], &HERE[..]].concat();
    let carafe = OnTerminal::carafe(&words, &[]);
    let addr = address(&carafe.screen.wait_for("listening on "));
    assert_eq!(exchange(addr, b"small\n").unwrap(), b"small bytes");
    assert_eq!(
        carafe.screen.wait_for("\n"),
        format!("listening on {addr}\r\n")
    );
}

#[test]
fn programs_see_whole_stamps_and_no_greeting() {
    let root = root_with(&[("small", b"small bytes")]);
    let carafe = Carafe::serve(root.path(), &[]);
    let log = carafe.stop();
    let mut lines = log.lines();
    assert!(lines.next().unwrap().starts_with("listening on 127.0.0.1:"));
    let serving = lines.next().unwrap();
    assert!(serving.starts_with("[20") && serving.contains("Z INFO  carafe::serve] serving \""));
    assert!(!log.contains('\x1b') && !log.contains("Ctrl-C"), "{log}");
}

#[test]
fn who_serves_a_whole_file_system_is_warned() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_carafe"));
    command.args(["serve", "//"]).args(HERE);
    let carafe = Carafe::start(command);
    carafe.wait_for_log("ROOT is /: everything on this machine that ");
    carafe.stop_warned(&["ROOT is /"]);
}
