//! The command line of the real binary: help, exit codes, one line for what it can't use, and
//! where it listens.

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::common::{Carafe, exchange, reserved_port, run_carafe, skip, until};
use tempfile::TempDir;

const SMALL: &[u8] = b"small bytes";

fn root() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("small"), SMALL).unwrap();
    root
}

fn run(words: &str) -> Output {
    let args: Vec<_> = words.split_whitespace().map(OsStr::new).collect();
    run_carafe(&args)
}

/// The one line on stderr, of a run that ended with this code and said nothing else.
fn complaint(output: &Output, code: i32) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(text.matches('\n').count(), 1, "{text}");
    assert!(output.stdout.is_empty());
    text
}

/// A port that is taken for as long as the listener lives.
fn taken_port() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    (listener, port)
}

fn serve_on(root: &Path, flags: &[&str]) -> Carafe {
    let mut command = Command::new(env!("CARGO_BIN_EXE_carafe"));
    command.arg("serve").arg(root).args(flags);
    Carafe::start(command)
}

fn has_ipv6() -> bool {
    let has = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !has {
        skip("ipv6", "there is no ::1 here");
    }
    has
}

fn assert_serves(addr: SocketAddr) {
    assert_eq!(exchange(addr, b"small\n").unwrap(), SMALL, "{addr}");
}

#[test]
fn help_and_version_go_to_stdout() {
    let version = run("--version");
    assert_eq!(version.status.code(), Some(0));
    let expected = format!("carafe {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8_lossy(&version.stdout), expected);
    for words in [
        "--help",
        "help",
        "help serve",
        "-h",
        "serve --help",
        "get --help",
        "thank -h",
        "say -h",
    ] {
        let help = run(words);
        assert_eq!(help.status.code(), Some(0), "{words}");
        assert!(help.stderr.is_empty(), "{words}");
        let text = String::from_utf8(help.stdout).unwrap();
        assert!(text.contains("Usage: carafe"), "{words}: {text}");
    }
}

#[test]
fn without_a_command_the_help_is_a_usage_error() {
    let output = run("");
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    let text = String::from_utf8(output.stderr).unwrap();
    for command in ["serve", "get", "thank", "say"] {
        assert!(text.contains(command), "{text}");
    }
}

#[test]
fn a_closed_stdout_makes_no_panic() {
    for words in ["--help", "--version", "serve --help"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_carafe"))
            .args(words.split(' '))
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{words}");
        assert!(output.stderr.is_empty(), "{words}");
    }
    let binary = OsStr::new(env!("CARGO_BIN_EXE_carafe"));
    crate::common::shell("\"$1\" --help >&-", &[binary]);
}

#[test]
fn a_bad_value_is_one_line_before_anything_is_bound() {
    let (_listener, port) = taken_port();
    // With a port that is taken, binding first would be another complaint.
    let cases = [
        (
            "--bind lo",
            "--bind: 'lo' won't do: it takes an IP address, such as 127.0.0.1, ::1 or fe80::1%eth0",
        ),
        (
            "--backlog 0",
            "--backlog: '0' won't do: it takes a whole number from 1 to 1073741824",
        ),
        (
            "--workers 0",
            "--workers: '0' won't do: it takes a whole number from 1 to 512",
        ),
        (
            "--backlog many",
            "--backlog: 'many' won't do: it takes a whole number from 1",
        ),
        (
            "--max-connections 0",
            "--max-connections: '0' won't do: it takes a whole number from 1",
        ),
        (
            "--open-files -3",
            "--open-files: '-3' won't do: it takes a whole number",
        ),
        (
            "--open-files 0",
            "--open-files: '0' won't do: it takes a whole number from 1",
        ),
        (
            "--open-files 1000000000",
            "--open-files: '1000000000' won't do: with ",
        ),
        (
            "--request-timeout 0s",
            "--request-timeout: '0s' won't do: it takes a duration from 1ms",
        ),
        (
            "--stall-timeout 10",
            "--stall-timeout: '10' won't do: it takes a duration from 1ms",
        ),
        (
            "--name-gap soon",
            "--name-gap: 'soon' won't do: it takes a duration from 1ms",
        ),
        (
            "--drain -1s",
            "--drain: '-1s' won't do: it takes a duration",
        ),
        (
            "--drain 2years",
            "--drain: '2years' won't do: it takes a duration of at most a year",
        ),
        ("-q -v", "the argument '--quiet' cannot be used with"),
        ("--quick", "unexpected argument '--quick' found"),
        ("there", "unexpected argument 'there' found"),
    ];
    for (flags, expected) in cases {
        let output = run(&format!("serve . -b 127.0.0.1 -p {port} {flags}"));
        let text = complaint(&output, 2);
        let begin = format!("carafe: {expected}");
        assert!(text.starts_with(&begin), "{flags}: {text}");
    }
    let text = complaint(&run("serve . -p 65536"), 2);
    assert_eq!(
        text,
        "carafe: --port: '65536' won't do: it takes a port, 0 to 65535\n"
    );
}

#[test]
fn a_root_that_is_no_folder_is_a_usage_error() {
    let (_listener, port) = taken_port();
    let root = root();
    for name in ["missing", "small"] {
        let path = root.path().join(name);
        let flags = ["-b", "127.0.0.1", "-p", &port].map(OsStr::new);
        let args = [&[OsStr::new("serve"), path.as_os_str()], &flags[..]].concat();
        let text = complaint(&run_carafe(&args), 2);
        let begin = format!(
            "carafe: ROOT: '{}' won't do: it takes a folder",
            path.display()
        );
        assert!(text.starts_with(&begin), "{text}");
    }
}

#[test]
fn a_root_that_cannot_be_searched_is_a_usage_error() {
    let outer = tempfile::tempdir().unwrap();
    let closed = outer.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o444)).unwrap();
    let Some(mut command) = crate::common::unprivileged(outer.path()) else {
        return;
    };
    command.arg("serve").arg(&closed).args(["-p", "0"]);
    let text = complaint(&command.output().unwrap(), 2);
    assert!(text.contains("Permission denied"), "{text}");
}

#[test]
fn a_port_in_use_is_a_failure_in_one_line() {
    let (_listener, port) = taken_port();
    let text = complaint(&run(&format!("serve . -q -b 127.0.0.1 -p {port}")), 1);
    let begin = format!("carafe: 127.0.0.1:{port} can't be listened on: ");
    assert!(text.starts_with(&begin), "{text}");
    let text = complaint(&run(&format!("thank -q -b 127.0.0.1 -p {port}")), 1);
    assert!(text.starts_with(&begin), "{text}");
    assert!(text.ends_with("; -p takes another port\n"), "{text}");
    assert_eq!(text.matches(&port).count(), 1, "{text}");
    let text = complaint(
        &run(&format!("serve . -q -p 0 --metrics 127.0.0.1:{port}")),
        1,
    );
    assert!(text.starts_with(&begin), "{text}");
    assert!(text.ends_with("; --metrics takes another port\n"), "{text}");
}

#[test]
fn every_address_is_announced_and_served() {
    if !has_ipv6() {
        return;
    }
    let root = root();
    let carafe = serve_on(root.path(), &["-p", "0", "-b", "127.0.0.1", "-b", "::1"]);
    until("both are announced", || carafe.announced().len() == 2);
    let addresses = carafe.announced();
    assert_eq!(addresses[0].ip(), Ipv4Addr::LOCALHOST);
    assert_eq!(addresses[1].ip(), Ipv6Addr::LOCALHOST);
    assert_eq!(addresses[0].port(), addresses[1].port(), "one port for all");
    addresses.into_iter().for_each(assert_serves);
    carafe.stop_clean();
}

#[test]
fn both_wildcards_share_a_port() {
    if !has_ipv6() {
        return;
    }
    let root = root();
    let (_reserving, port) = reserved_port();
    let flags = ["-p", &port.to_string(), "-b", "0.0.0.0", "-b", "::"];
    let carafe = serve_on(root.path(), &flags);
    until("both are announced", || carafe.announced().len() == 2);
    let wildcards = [
        (Ipv4Addr::UNSPECIFIED, port).into(),
        (Ipv6Addr::UNSPECIFIED, port).into(),
    ];
    assert_eq!(carafe.announced(), wildcards);
    assert_serves((Ipv4Addr::LOCALHOST, port).into());
    assert_serves((Ipv6Addr::LOCALHOST, port).into());
    carafe.stop_clean();
}

#[test]
fn by_default_one_socket_takes_both_families_and_logs_canonical_addresses() {
    if !has_ipv6() {
        return;
    }
    let root = root();
    let carafe = serve_on(root.path(), &["-p", "0"]);
    assert_eq!(carafe.addr().ip(), Ipv6Addr::UNSPECIFIED);
    let port = carafe.addr().port();
    assert_serves((Ipv4Addr::LOCALHOST, port).into());
    assert_serves((Ipv6Addr::LOCALHOST, port).into());
    carafe.wait_for_log("] 127.0.0.1:");
    carafe.wait_for_log("] [::1]:");
    assert_eq!(carafe.announced().len(), 1);
    assert!(!carafe.log().contains("ffff"), "{}", carafe.log());
    carafe.stop_clean();
}
