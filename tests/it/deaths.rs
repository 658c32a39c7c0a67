//! The server killed in the middle of its work, at the very call where it hurts most, and calls that a
//! sandbox or a limit refuses: strace does both.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Command;

use crate::common::{
    Carafe, LARGE_BYTES, assert_reset, assert_same, connect, exchange, has_tool, pattern,
    root_with, shell, skip,
};
use rustix::process::Signal;

const NO_CALLS: &str = "/dev/null";

/// A server of these files whose calls of one kind are tampered with, as strace(1) says it.
fn tampered(root: &Path, call: &str, how: &str, flags: &[&str]) -> Carafe {
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:{how}"));
    let options = ["-e", &trace, "-e", &inject];
    Carafe::serve_traced(root, NO_CALLS.as_ref(), &options, flags)
}

#[test]
fn a_server_killed_between_two_pieces_leaves_a_reset_or_less_than_was_announced() {
    if !has_tool("strace") {
        return;
    }
    let root = root_with(&[("large", pattern(1, LARGE_BYTES))]);
    for when in [1, 2, 3] {
        let kill = format!("signal=KILL:when={when}");
        let carafe = tampered(root.path(), "sendfile", &kill, &[]);
        let mut client = connect(carafe.addr());
        client.write_all(b"large\n").unwrap();
        let mut bytes = Vec::new();
        assert_reset(client.read_to_end(&mut bytes).map(|_| bytes));
        drop(carafe);

        let carafe = tampered(root.path(), "sendfile", &kill, &[]);
        let mut client = connect(carafe.addr());
        client
            .write_all(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
            .unwrap();
        let mut bytes = Vec::new();
        // In order, or by what it hadn't read; its length tells.
        let _ = client.read_to_end(&mut bytes);
        let is_announced = bytes.windows(16).any(|part| part == b"Content-Length: ");
        assert!(is_announced || bytes.is_empty(), "{when}");
        assert!(bytes.len() < LARGE_BYTES, "{when}");
    }
}

#[test]
fn a_kernel_or_a_sandbox_without_openat2_is_said_at_the_start() {
    if !has_tool("strace") {
        return;
    }
    let root = root_with(&[("file", "bytes")]);
    for error in ["ENOSYS", "EPERM", "EINVAL"] {
        let inject = format!("inject=openat2:error={error}");
        let run = Command::new("strace")
            .args([
                "-D",
                "-qq",
                "-o",
                NO_CALLS,
                "-e",
                "trace=openat2",
                "-e",
                &inject,
            ])
            .args([env!("CARGO_BIN_EXE_carafe"), "serve", "-p", "0"])
            .arg(root.path())
            .output()
            .unwrap();
        assert_eq!(run.status.code(), Some(1), "{error}");
        let text = String::from_utf8(run.stderr).unwrap();
        let begin = format!(
            "carafe: '{}' can't be served: openat2(2)",
            root.path().display()
        );
        assert!(
            text.starts_with(&begin) && text.lines().count() == 1,
            "{text}"
        );
        assert!(
            text.contains("Linux 5.12") && text.contains("seccomp"),
            "{text}"
        );
    }
}

/// A client that says how its download ended: `fin` or `rst`, and after how many bytes.
const CLIENT: &str = "\
import socket, sys, time
host, port = sys.argv[1].rsplit(':', 1)
s = socket.create_connection((host, int(port)))
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
s.sendall(b'file\\n')
count, end = 0, 'fin'
try:
    while piece := s.recv(65536):
        count += len(piece)
except ConnectionResetError:
    end = 'rst'
print(end, count)
";

#[test]
fn a_short_body_that_may_not_fit_is_guarded_before_its_first_byte() {
    if !has_tool("strace") || !has_tool("python3") || !has_tool("ip") {
        return;
    }
    let own_network = Command::new("unshare").args(["-n", "true"]).status();
    if !own_network.is_ok_and(|status| status.success()) {
        return skip(
            "netns",
            "there are no network namespaces, or not for this user",
        );
    }
    let root = root_with(&[("file", pattern(1, 12_000))]);
    const SCRIPT: &str = "\
set -e; ip link set lo up; echo 4096 4096 4096 > /proc/sys/net/ipv4/tcp_wmem
strace -D -qq -o /dev/null -e trace=sendto -e inject=sendto:signal=KILL:when=1 \
    \"$1\" serve \"$2\" -p 0 -b 127.0.0.1 -q 2>\"$2/.log\" >/dev/null &
until grep -q '^listening on ' \"$2/.log\"; do sleep 0.01; done
python3 -c \"$3\" \"$(sed -n 's/^listening on //p' \"$2/.log\")\"; kill %1 2>/dev/null || true";
    let args = [
        OsStr::new(env!("CARGO_BIN_EXE_carafe")),
        root.path().as_os_str(),
        OsStr::new(CLIENT),
    ];
    let script = SCRIPT.replace('\'', "'\\''");
    let script = format!("exec unshare -n bash -c '{script}' bash \"$@\"");
    let said = String::from_utf8(shell(&script, &args)).unwrap();
    assert_eq!(said, "rst 0\n");
}

#[test]
fn where_sendfile_is_forbidden_files_are_copied() {
    if !has_tool("strace") {
        return;
    }
    let large = pattern(1, LARGE_BYTES);
    let root = root_with(&[("large", &large)]);
    for error in ["EPERM", "EACCES", "ENOSYS", "EOPNOTSUPP"] {
        let carafe = tampered(root.path(), "sendfile", &format!("error={error}"), &[]);
        let got = exchange(carafe.addr(), b"large\n").unwrap();
        assert_same(error, &got, &large);
        carafe.stop_clean();
    }
}

#[test]
fn a_limit_of_the_size_of_files_costs_lines_of_the_log_and_nothing_else() {
    let root = root_with(&[("www/file", "bytes")]);
    let log = root.path().join("log");
    let mut command = Command::new("sh");
    // In blocks of 512 or 1024 bytes.
    command.args(["-c", "ulimit -f 1; exec \"$0\" \"$@\""]);
    command.args([env!("CARGO_BIN_EXE_carafe"), "serve"]);
    command.arg(root.path().join("www")).args(["-p", "0"]);
    command.arg("--access-log").arg(&log);
    let carafe = Carafe::start(command);
    // A line has more than fifty bytes.
    for _ in 0..50 {
        assert_eq!(exchange(carafe.addr(), b"file\n").unwrap(), b"bytes");
    }
    carafe.signal(Signal::TERM);
    let (status, text) = carafe.wait();
    assert_eq!(status.code(), Some(0), "{text}");
    assert!(text.contains(" access log lines dropped"), "{text}");
    assert!(fs::metadata(&log).unwrap().len() <= 1024);
}
