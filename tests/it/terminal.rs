//! What a person at a terminal sees: what to open, short lines, colours only if they are wanted; and
//! that programs see the same lines as ever.

use std::net::SocketAddr;
use std::process::Command;

use crate::common::{Carafe, exchange, root_with};
use crate::pty::OnTerminal;

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
    let shown = carafe.screen.wait_for("\n");
    let mut lines = shown.lines();
    assert_eq!(lines.next(), Some(&*format!("listening on {addr}")));
    // A warning is none of the things that are kept quiet.
    assert!(
        lines.all(|line| line.contains("running as root: ")),
        "{shown}"
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
