//! Stopping: no new client comes in, none that connected is lost, and what can't be finished is
//! reset.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use crate::common::{
    Carafe, ENDED, LARGE_BYTES, assert_conserved, assert_reset, begin_download, connect,
    count_lines, exchange, pattern, reason_count, reply_count, until, wait_for_a_second_signal,
};
use rustix::process::Signal;
use tempfile::TempDir;

const SMALL: &[u8] = b"small bytes";

fn large() -> Vec<u8> {
    pattern(9, LARGE_BYTES)
}

/// A server of `small` and `large`.
fn server(flags: &[&str]) -> (TempDir, Carafe) {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("small"), SMALL).unwrap();
    fs::write(root.path().join("large"), large()).unwrap();
    let carafe = Carafe::serve(root.path(), flags);
    (root, carafe)
}

/// The first signal, taken.
fn drain(carafe: &Carafe) {
    carafe.signal(Signal::TERM);
    carafe.wait_for_log("draining\n");
}

/// The end: exit code, conservation, stderr.
fn assert_ends(carafe: Carafe, code: i32) -> String {
    let (status, log) = carafe.wait();
    assert_eq!(status.code(), Some(code), "{log}");
    assert_conserved(&log);
    log
}

fn read_to_end(client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A client that has been let in: a later one was answered.
fn silent_client(carafe: &Carafe) -> TcpStream {
    let client = connect(carafe.addr());
    assert_eq!(exchange(carafe.addr(), b"small\n").unwrap(), SMALL);
    client
}

#[test]
fn an_idle_server_ends_with_zero_and_a_summary() {
    for signal in [Signal::TERM, Signal::INT] {
        let (_root, carafe) = server(&[]);
        carafe.signal(signal);
        let log = assert_ends(carafe, 0);
        assert!(log.contains("accepted 0; replied 0; 0 bytes sent"), "{log}");
    }
}

#[test]
fn the_summary_counts_by_reason() {
    let (_root, carafe) = server(&[]);
    for _ in 0..3 {
        exchange(carafe.addr(), b"small\n").unwrap();
    }
    exchange(carafe.addr(), b"missing\n").unwrap();
    drop(connect(carafe.addr()));
    carafe.wait_for_log("client left");
    let log = carafe.stop();
    let summary =
        "accepted 5, closed 4, client left 1; replied 4, complete 3, refused 1; 33 bytes sent";
    assert!(log.contains(summary), "{log}");
}

#[test]
fn clients_that_wait_in_the_queue_at_the_signal_are_served() {
    let (_root, carafe) = server(&[]);
    carafe.signal(Signal::STOP);
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let mut client = connect(carafe.addr());
            client.write_all(b"small\n").unwrap();
            client
        })
        .collect();
    carafe.signal(Signal::TERM);
    carafe.signal(Signal::CONT);
    for mut client in clients {
        assert_eq!(read_to_end(&mut client).unwrap(), SMALL);
    }
    let log = assert_ends(carafe, 0);
    assert_eq!(reply_count(&log, "complete"), 20, "{log}");
}

#[test]
fn a_download_under_way_is_finished() {
    let (_root, carafe) = server(&[]);
    let (mut client, first) = begin_download(carafe.addr(), "large");
    drain(&carafe);
    let mut bytes = vec![first];
    client.read_to_end(&mut bytes).unwrap();
    assert!(bytes == large(), "{} bytes came", bytes.len());
    drop(client);
    let log = assert_ends(carafe, 0);
    assert_eq!(reply_count(&log, "complete"), 1, "{log}");
}

#[test]
fn new_clients_are_kept_out_while_old_ones_are_served() {
    let (_root, carafe) = server(&[]);
    let mut old = silent_client(&carafe);
    let mut idle = silent_client(&carafe);
    drain(&carafe);
    // Its answer shows that the turn that took the signal has come to the clients.
    old.write_all(b"small\n").unwrap();
    assert_eq!(read_to_end(&mut old).unwrap(), SMALL);
    for _ in 0..2 {
        let late = TcpStream::connect_timeout(&carafe.addr(), Duration::from_millis(300));
        assert!(late.is_err(), "a client was let in while draining");
    }
    idle.write_all(b"small\n").unwrap();
    assert_eq!(read_to_end(&mut idle).unwrap(), SMALL);
    drop((old, idle));
    let log = assert_ends(carafe, 0);
    assert_eq!(reply_count(&log, "complete"), 4, "two and two before them");
}

#[test]
fn a_stalled_client_is_reset_at_the_drains_end_and_the_exit_says_so() {
    let (_root, carafe) = server(&["--drain", "300ms"]);
    let (mut client, _) = begin_download(carafe.addr(), "large");
    drain(&carafe);
    let log = assert_ends(carafe, 1);
    assert_eq!(reason_count(&log, "drain deadline"), 1, "{log}");
    assert_reset(read_to_end(&mut client));
}

#[test]
fn a_client_without_a_name_is_closed_in_order_at_the_drains_end() {
    let (_root, carafe) = server(&["--drain", "300ms", "--no-defer-accept"]);
    let mut silent = silent_client(&carafe);
    drain(&carafe);
    let log = assert_ends(carafe, 0);
    assert_eq!(reason_count(&log, "request timeout"), 1, "{log}");
    assert_eq!(read_to_end(&mut silent).unwrap(), b"");
    assert!(silent.take_error().unwrap().is_none(), "a reset came");
}

#[test]
fn a_lingering_client_is_closed_in_order_at_the_drains_end() {
    let (_root, carafe) = server(&["--drain", "300ms"]);
    let mut lingering = connect(carafe.addr());
    // A name without an end: the server waits for what may follow.
    lingering.write_all(b"small").unwrap();
    assert_eq!(read_to_end(&mut lingering).unwrap(), SMALL);
    drain(&carafe);
    let log = assert_ends(carafe, 0);
    assert_eq!(reply_count(&log, "complete"), 1, "{log}");
    assert!(lingering.take_error().unwrap().is_none(), "a reset came");
}

#[test]
fn a_second_signal_ends_at_once_with_its_number() {
    let endings = [
        (Signal::TERM, Signal::INT, 130),
        (Signal::INT, Signal::TERM, 143),
        (Signal::TERM, Signal::TERM, 143),
    ];
    for (first, second, code) in endings {
        let (_root, carafe) = server(&[]);
        let (mut client, _) = begin_download(carafe.addr(), "large");
        carafe.signal(first);
        carafe.wait_for_log("draining\n");
        if first == second {
            wait_for_a_second_signal();
        }
        carafe.signal(second);
        let log = assert_ends(carafe, code);
        assert_eq!(reason_count(&log, "stopped"), 1, "{log}");
        assert_reset(read_to_end(&mut client));
    }
}

/// timeout(1) sends its signal to the program, and then to the program's group.
#[test]
fn a_signal_that_comes_twice_at_once_is_one() {
    let (_root, carafe) = server(&[]);
    let (mut client, _) = begin_download(carafe.addr(), "large");
    for _ in 0..2 {
        carafe.signal(Signal::TERM);
    }
    read_to_end(&mut client).unwrap();
    let log = assert_ends(carafe, 0);
    assert_eq!(reply_count(&log, "complete"), 1, "{log}");
}

#[test]
fn a_finished_download_waits_for_its_clients_fin_while_draining() {
    let (_root, carafe) = server(&[]);
    let (mut holding, _) = begin_download(carafe.addr(), "large");
    let mut other = silent_client(&carafe);
    drain(&carafe);
    read_to_end(&mut holding).unwrap();
    // The other one is asked for, served and gone after the first has all it wants.
    other.write_all(b"small\n").unwrap();
    assert_eq!(read_to_end(&mut other).unwrap(), SMALL);
    drop(other);
    until("it and the one that let it in are logged", || {
        count_lines(&carafe.log(), ENDED) == 2
    });
    assert!(!carafe.log().contains("\"large\""), "it was not waited for");
    drop(holding);
    let log = assert_ends(carafe, 0);
    assert!(log.contains("\"large\""), "{log}");
    assert_eq!(reply_count(&log, "complete"), 3, "{log}");
}

#[test]
fn a_client_that_has_everything_and_never_closes_does_not_hold_up_the_end() {
    // The drain is longer than the test's patience: only its own clock can end the connection.
    let (_root, carafe) = server(&["--drain", "1h"]);
    let mut early = silent_client(&carafe);
    early.write_all(b"small").unwrap();
    assert_eq!(read_to_end(&mut early).unwrap(), SMALL);
    let mut late = silent_client(&carafe);
    drain(&carafe);
    late.write_all(b"small\n").unwrap();
    assert_eq!(read_to_end(&mut late).unwrap(), SMALL);
    let log = assert_ends(carafe, 0);
    assert_eq!(reply_count(&log, "complete"), 4, "{log}");
    for client in [early, late] {
        assert!(client.take_error().unwrap().is_none(), "a reset came");
    }
}

#[test]
fn clients_left_in_the_accept_queue_at_the_drains_end_are_told_of() {
    let flags = ["--max-connections", "1", "--drain", "300ms"];
    let (_root, carafe) = server(&[&flags[..], &["--no-defer-accept"]].concat());
    let (download, _) = begin_download(carafe.addr(), "large");
    let queued = [(); 5].map(|()| connect(carafe.addr()));
    carafe.signal(Signal::TERM);
    let log = assert_ends(carafe, 1);
    assert!(log.contains("; 5 never accepted"), "{log}");
    for mut client in queued {
        assert_reset(read_to_end(&mut client));
    }
    drop(download);
}

#[test]
fn a_restart_takes_the_same_port_at_once() {
    // An address of its own: other tests' clients don't take the port meanwhile.
    let serve = |port: &str, root: &TempDir| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_carafe"));
        command.arg("serve").arg(root.path());
        command.args(["--bind", "127.0.0.77", "-p", port]);
        Carafe::start(command)
    };
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("small"), SMALL).unwrap();
    let mut port = "0".to_owned();
    for _ in 0..3 {
        let carafe = serve(&port, &root);
        port = carafe.port();
        for _ in 0..10 {
            // The server closes first: its port is left in TIME_WAIT.
            assert_eq!(exchange(carafe.addr(), b"small\n").unwrap(), SMALL);
        }
        carafe.stop_clean();
    }
}

#[test]
fn sigquit_drains_and_ends_as_sigterm_does() {
    let (_root, carafe) = server(&[]);
    let (mut client, first) = begin_download(carafe.addr(), "large");
    carafe.signal(Signal::QUIT);
    carafe.wait_for_log("draining\n");
    let rest = read_to_end(&mut client).unwrap();
    assert!([&[first], &rest[..]].concat() == large());
    drop(client);
    assert_ends(carafe, 0);

    let (_root, carafe) = server(&[]);
    let (mut client, _) = begin_download(carafe.addr(), "large");
    carafe.signal(Signal::QUIT);
    carafe.wait_for_log("draining\n");
    wait_for_a_second_signal();
    carafe.signal(Signal::QUIT);
    assert_ends(carafe, 128 + 3);
    assert_reset(read_to_end(&mut client));
}

#[test]
fn signals_of_the_user_end_nothing() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("small"), SMALL).unwrap();
    let (log, moved) = (root.path().join("log"), root.path().join("moved"));
    let carafe = Carafe::serve(root.path(), &["--access-log", log.to_str().unwrap()]);
    assert_eq!(exchange(carafe.addr(), b"small\n").unwrap(), SMALL);
    fs::rename(&log, &moved).unwrap();
    carafe.signal(Signal::USR1);
    carafe.wait_for_log("was opened anew");
    assert_eq!(exchange(carafe.addr(), b"small\n").unwrap(), SMALL);
    carafe.signal(Signal::TERM);
    assert_ends(carafe, 0);
    for path in [log, moved] {
        assert_eq!(fs::read_to_string(path).unwrap().lines().count(), 1);
    }
}
