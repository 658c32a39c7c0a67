//! The log: what is said at which level, and that a stuck reader of it stops no client.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::path::Path;
use std::process::Command;

use crate::common::{Carafe, ENDED, connect, count_lines, exchange, is_of_root, until, vanish};
use rustix::process::Signal;
use tempfile::TempDir;

const SMALL: &[u8] = b"small bytes";

fn root() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("small"), SMALL).unwrap();
    root
}

/// A client that leaves without a word is accepted, and so logged.
const ACCEPT_ALL: &str = "--no-defer-accept";

/// Everything that may be logged in a run without faults, in the order of the levels.
fn use_every_level(carafe: &Carafe) {
    assert_eq!(exchange(carafe.addr(), b"small\n").unwrap(), SMALL);
    assert_eq!(exchange(carafe.addr(), b"missing\n").unwrap(), b"");
    vanish(connect(carafe.addr()));
}

fn serve_with_env(root: &Path, variable: &str, flags: &[&str]) -> Carafe {
    let mut command = Command::new("env");
    command
        .args([variable, env!("CARGO_BIN_EXE_carafe"), "serve"])
        .arg(root)
        .args(["-p", "0", "--bind", "127.0.0.1", ACCEPT_ALL])
        .args(flags);
    Carafe::start(command)
}

fn levels(log: &str) -> [usize; 3] {
    [" INFO ", " DEBUG ", " TRACE "].map(|level| count_lines(log, level))
}

#[test]
fn one_line_tells_what_became_of_a_connection() {
    let root = root();
    let carafe = Carafe::serve(root.path(), &[ACCEPT_ALL]);
    use_every_level(&carafe);
    carafe.wait_for_log("reset by peer");
    let log = carafe.stop_warned(&[]);
    assert_eq!(count_lines(&log, ENDED), 3, "{log}");
    assert!(log.contains(" \"small\" 11/11 bytes "), "{log}");
    assert!(log.contains(" \"missing\" 0/0 bytes "), "{log}");
    assert!(log.contains("s refused: no such file\n"), "{log}");
    assert_eq!(levels(&log)[1..], [0, 0], "{log}");
}

#[test]
fn quiet_says_only_what_must_be_seen() {
    let root = root();
    let carafe = Carafe::serve(root.path(), &["-q"]);
    use_every_level(&carafe);
    let addr = carafe.addr();
    let log = {
        carafe.signal(Signal::TERM);
        carafe.wait().1
    };
    let lines: Vec<_> = log.lines().filter(|line| !is_of_root(line)).collect();
    assert_eq!(lines, [&*format!("listening on {addr}"), "draining"]);
}

#[test]
fn verbose_tells_of_peers_that_broke_off() {
    let root = root();
    let carafe = Carafe::serve(root.path(), &[ACCEPT_ALL, "-v"]);
    use_every_level(&carafe);
    carafe.wait_for_log("the connection broke: Connection reset by peer");
    let [info, debug, trace] = levels(&carafe.stop_warned(&[]));
    assert!(info > 0 && debug > 0);
    assert_eq!(trace, 0);
}

#[test]
fn twice_verbose_traces_the_state_machine() {
    let root = root();
    let carafe = Carafe::serve(root.path(), &["-vv"]);
    use_every_level(&carafe);
    carafe.wait_for_log("ReadingName -> Sending");
    carafe.stop_clean();
}

#[test]
fn rust_log_sets_the_level_and_flags_override_it() {
    let root = root();
    // The variable, the flags, and what is said at info, debug and trace.
    let cases: [(&str, &[&str], [bool; 3]); 4] = [
        ("RUST_LOG=warn", &[], [false, false, false]),
        ("RUST_LOG=debug", &[], [true, true, false]),
        ("RUST_LOG=carafe=trace", &[], [true, true, true]),
        ("RUST_LOG=trace", &["-q"], [false, false, false]),
    ];
    for (variable, flags, expected) in cases {
        let carafe = serve_with_env(root.path(), variable, flags);
        use_every_level(&carafe);
        carafe.signal(Signal::TERM);
        let (status, log) = carafe.wait();
        assert_eq!(status.code(), Some(0), "{log}");
        assert_eq!(levels(&log).map(|n| n > 0), expected, "{variable}: {log}");
    }
}

/// One connection that carries three replies: the log, its last line and the metrics count alike.
#[test]
fn replies_are_counted_by_outcome_and_connections_by_reason() {
    let root = root();
    let flags = [ACCEPT_ALL, "--metrics", "127.0.0.1:0"];
    let carafe = Carafe::serve(root.path(), &flags);
    let metrics = crate::scrape::metrics_of(&carafe);
    let requests =
        "GET /missing HTTP/1.1\r\nHost: h\r\n\r\n".repeat(2) + "GET /small HTTP/1.0\r\n\r\n";
    exchange(carafe.addr(), requests.as_bytes()).unwrap();
    until("the last reply is over", || {
        crate::scrape::Page::get(metrics).sum("carafe_connections_open") == 0.0
    });
    let page = crate::scrape::Page::get(metrics);
    let replied = |outcome: &str| {
        page.value(&format!(
            "carafe_reply_outcomes_total{{outcome=\"{outcome}\"}}"
        ))
    };
    assert_eq!([replied("complete"), replied("refused")], [1.0, 2.0]);
    let closed = "carafe_connections_ended_total{reason=\"closed\"}";
    assert_eq!(page.value(closed), 1.0);
    let log = carafe.stop();
    let missing = "\"GET /missing HTTP/1.1\" 404 ";
    assert_eq!(count_lines(&log, missing), 2, "{log}");
    assert_eq!(count_lines(&log, "s refused: no such file"), 2, "{log}");
    assert!(
        log.contains("\"GET /small HTTP/1.0\" 200 11/11 bytes "),
        "{log}"
    );
    let summary = "accepted 1, closed 1; replied 3, complete 1, refused 2; ";
    assert_eq!(count_lines(&log, summary), 1, "{log}");
}

/// What the log says of a connection that never brought a whole request.
fn line_for(carafe: &Carafe, sent: &[u8]) -> String {
    let mut client = connect(carafe.addr());
    client.write_all(sent).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let _ = client.read_to_end(&mut Vec::new());
    let port = format!("] {} ", client.local_addr().unwrap());
    let log = carafe.wait_for_log(&port);
    let line = log.lines().find(|line| line.contains(&port));
    line.unwrap().to_owned()
}

#[test]
fn a_line_never_shows_the_fields_of_a_request_nor_more_than_its_beginning() {
    let root = root();
    let carafe = Carafe::serve(root.path(), &[ACCEPT_ALL]);
    let secret = "Authorization: Basic c2VjcmV0\r\nCookie: c2VjcmV0\r\n".repeat(50);
    let line = line_for(&carafe, format!("GET /x HTTP/1.1\r\n{secret}").as_bytes());
    assert!(line.contains("\"GET /x HTTP/1.1\""), "{line}");
    assert!(!line.contains("c2VjcmV0") && line.len() < 200, "{line}");
    for byte in [b'A', 0xff] {
        let line = line_for(&carafe, &[&b"GET /"[..], &[byte; 6000]].concat());
        assert!(line.len() < 500, "{line}");
    }
    carafe.stop();
}

#[test]
fn a_tls_client_is_called_one_and_is_not_kept_waiting() {
    let root = root();
    // A server that waits for the rest of a name for longer than the test may take.
    let carafe = Carafe::serve(
        root.path(),
        &[&[ACCEPT_ALL], &crate::common::PATIENT[..]].concat(),
    );
    let mut client = connect(carafe.addr());
    // A record of 512 bytes, and in it a ClientHello for TLS 1.2.
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x5b\x90\x9d\x9b\x72\x0b";
    client.write_all(hello).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"");
    drop(client);
    let log = carafe.wait_for_log("refused: a TLS client\n");
    assert!(!log.contains("\\x"), "{log}");
    carafe.stop();
}

/// So many lines of three hundred bytes that nothing on their way holds them all.
const REQUESTS: usize = 12_000;

#[test]
fn a_log_that_nobody_reads_stops_no_client() {
    let root = root();
    let mut command = Command::new(env!("CARGO_BIN_EXE_carafe"));
    command.arg("serve").arg(root.path());
    command.args(["-p", "0", "--bind", "127.0.0.1"]);
    let (mut carafe, pipe) = Carafe::start_unread(command);
    // Slashes before a name count for nothing, but each stands in the log, as far as a line shows
    // it: more than the pipe, the queue and what the writer has in hand can hold together.
    let long_name = format!("{:/>250}\n", "small");
    for _ in 0..REQUESTS {
        assert_eq!(
            exchange(carafe.addr(), long_name.as_bytes()).unwrap(),
            SMALL
        );
    }
    carafe.read_log(pipe);
    let log = carafe.wait_for_log(" lines dropped: the output didn't take them\n");
    let line = log.lines().find(|line| line.contains(" lines dropped"));
    let count = line.unwrap().strip_prefix("carafe: ").unwrap().split(' ');
    let dropped: usize = count.clone().next().unwrap().parse().unwrap();
    let logged = count_lines(&log, ENDED);
    assert!(
        dropped > 0 && logged > 0 && dropped + logged <= REQUESTS,
        "{dropped} + {logged}"
    );
    let summary = format!("; {dropped} log lines dropped");
    let log = carafe.stop_warned(&[&summary]);
    assert_eq!(
        dropped + count_lines(&log, ENDED),
        REQUESTS,
        "each is counted"
    );
}
