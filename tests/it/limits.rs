//! Scarce descriptors: clients wait and are served, nobody sees an empty answer or a refusal, and
//! the loop doesn't spin meanwhile.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Barrier;
use std::thread;

use crate::common::{
    Carafe, LARGE_BYTES, assert_reset, begin_download, connect, count_lines, exchange, pattern,
    raise_own_limit, run_carafe, sparse_file, until,
};
use tempfile::TempDir;

const CLIENTS: usize = 200;

/// Processor time that a short wait may cost, in ticks of 10 ms. A loop that spins uses 100 a
/// second.
const IDLE_TICKS_MAX: u64 = 20;

/// The connection cap is reached.
const FULL: &str = "connections is reached: new clients wait";

/// No descriptor for one more client.
const NO_ROOM: &str = "accept: Too many open files (os error 24): new clients wait";

/// No descriptor for one more file.
const NO_FILE: &str = "no descriptor is free for a file: clients wait";

/// A root with `small` and a number of files that hold a download in Sending.
fn root(large: usize) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("small"), b"small bytes").unwrap();
    for index in 0..large {
        let path = root.path().join(format!("large{index}"));
        sparse_file(&path, LARGE_BYTES as u64);
    }
    root
}

/// Clients that say nothing, and are let in.
fn silent_clients(carafe: &Carafe, count: usize) -> Vec<TcpStream> {
    let before = carafe.sockets();
    let clients = (0..count).map(|_| connect(carafe.addr())).collect();
    until("all are let in", || carafe.sockets() == before + count);
    clients
}

fn ask(addr: SocketAddr, name: &str) -> TcpStream {
    let mut client = connect(addr);
    client.write_all(format!("{name}\n").as_bytes()).unwrap();
    client
}

fn rest(mut client: TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Neither an answer nor an end has come.
fn assert_waiting(client: &mut TcpStream) {
    client.set_nonblocking(true).unwrap();
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
    client.set_nonblocking(false).unwrap();
}

/// With 64 descriptors, 200 clients at once name a file each.
fn two_hundred_clients_are_served(file_bytes: usize, flags: &[&str]) {
    let root = tempfile::tempdir().unwrap();
    let file = |index| pattern(index as u64, file_bytes);
    for index in 0..CLIENTS {
        fs::write(root.path().join(format!("file{index}")), file(index)).unwrap();
    }
    let carafe = Carafe::serve_limited(root.path(), 64, flags);
    let (addr, start) = (carafe.addr(), Barrier::new(CLIENTS));
    thread::scope(|scope| {
        for index in 0..CLIENTS {
            let start = &start;
            scope.spawn(move || {
                // All come at once, and none is there without asking: it would make room for those who do.
                start.wait();
                let client = connect(addr);
                (&client)
                    .write_all(format!("file{index}\n").as_bytes())
                    .unwrap();
                let bytes = rest(client).unwrap();
                assert!(bytes == file(index), "file{index}: {} bytes", bytes.len());
            });
        }
    });
    // Which of the two limits was met first, and so which warning came, is a matter of luck.
    let log = carafe.stop();
    assert_eq!(
        crate::common::reply_count(&log, "complete"),
        CLIENTS as u64,
        "{log}"
    );
}

#[test]
fn sixty_four_descriptors_serve_two_hundred_clients_with_a_large_file_each() {
    two_hundred_clients_are_served(700_000, &[]);
}

#[test]
fn sixty_four_descriptors_serve_them_too_where_most_are_for_clients() {
    // More clients than free descriptors: many of them wait for their file's.
    two_hundred_clients_are_served(700_000, &["--open-files", "1"]);
}

#[test]
fn sixty_four_descriptors_serve_two_hundred_clients_with_a_small_file_each() {
    two_hundred_clients_are_served(1000, &[]);
}

#[test]
fn waiting_for_a_slot_costs_no_processor_time() {
    let root = root(1);
    let flags = ["--max-connections", "8", "--stall-timeout", "1s"];
    let carafe = Carafe::serve(root.path(), &flags);
    let downloads: Vec<_> = (0..8)
        .map(|_| begin_download(carafe.addr(), "large0"))
        .collect();
    let waiting: Vec<_> = (0..20).map(|_| ask(carafe.addr(), "small")).collect();
    carafe.wait_for_log(FULL);
    let ticks = carafe.cpu_ticks();
    carafe.wait_for_log(" stalled");
    let used = carafe.cpu_ticks() - ticks;
    assert!(used <= IDLE_TICKS_MAX, "{used} ticks");
    for client in waiting {
        assert_eq!(rest(client).unwrap(), b"small bytes");
    }
    drop(downloads);
    carafe.stop_warned(&[FULL]);
}

#[test]
fn without_a_descriptor_for_a_client_it_waits_until_there_is_one() {
    let root = root(0);
    let carafe = Carafe::serve(root.path(), &[]);
    let silent = silent_clients(&carafe, 5);
    carafe.leave_descriptors(0);
    let mut waiting: Vec<_> = (0..5).map(|_| ask(carafe.addr(), "small")).collect();
    carafe.wait_for_log(NO_ROOM);
    let ticks = carafe.cpu_ticks();
    // The warning comes at most once a second, so a second one is a second later.
    until("it is said again", || {
        count_lines(&carafe.log(), NO_ROOM) > 1
    });
    let used = carafe.cpu_ticks() - ticks;
    assert!(used <= IDLE_TICKS_MAX, "{used} ticks");
    waiting.iter_mut().for_each(assert_waiting);
    carafe.limit_descriptors(1000);
    for client in waiting {
        assert_eq!(rest(client).unwrap(), b"small bytes");
    }
    drop(silent);
    carafe.stop_warned(&[NO_ROOM]);
}

#[test]
fn a_client_that_leaves_makes_room_for_one_that_waits_at_the_door() {
    let root = root(0);
    let carafe = Carafe::serve(root.path(), &[]);
    let mut silent = silent_clients(&carafe, 3);
    carafe.leave_descriptors(0);
    let mut waiting = ask(carafe.addr(), "small");
    carafe.wait_for_log(NO_ROOM);
    assert_waiting(&mut waiting);
    // One place for the client and one for its file.
    silent.truncate(1);
    assert_eq!(rest(waiting).unwrap(), b"small bytes");
    drop(silent);
    // It may have waited once more, for its file.
    carafe.stop();
}

/// A server whose descriptors are all taken: by stalled downloads, and by a client that has
/// named `small` and found no descriptor for it.
fn parked(root: &TempDir, stalled: usize, flags: &[&str]) -> (Carafe, Vec<TcpStream>, TcpStream) {
    let carafe = Carafe::serve(root.path(), flags);
    let stalled = (0..stalled)
        .map(|index| begin_download(carafe.addr(), &format!("large{index}")).0)
        .collect();
    let before = carafe.sockets();
    carafe.leave_descriptors(1);
    let waiting = ask(carafe.addr(), "small");
    until("the client is let in", || carafe.sockets() == before + 1);
    carafe.wait_for_log(NO_FILE);
    (carafe, stalled, waiting)
}

#[test]
fn without_a_descriptor_for_a_file_its_client_waits_until_a_download_ends() {
    let root = root(3);
    let (carafe, mut stalled, mut waiting) = parked(&root, 3, &[]);
    assert_waiting(&mut waiting);
    stalled.pop();
    assert_eq!(rest(waiting).unwrap(), b"small bytes");
    drop(stalled);
    carafe.stop_warned(&[NO_FILE]);
}

#[test]
fn without_a_descriptor_for_a_file_its_client_waits_until_the_limit_is_raised() {
    let root = root(1);
    let (carafe, stalled, mut waiting) = parked(&root, 1, &[]);
    assert_waiting(&mut waiting);
    carafe.limit_descriptors(1000);
    assert_eq!(rest(waiting).unwrap(), b"small bytes");
    drop(stalled);
    carafe.stop_warned(&[NO_FILE]);
}

#[test]
fn a_client_that_waits_for_a_descriptor_beyond_the_stall_timeout_is_reset() {
    let root = root(0);
    let (carafe, _, waiting) = parked(&root, 0, &["--stall-timeout", "300ms"]);
    assert_reset(rest(waiting));
    let log = carafe.stop_warned(&[NO_FILE, "no descriptor for \"small"]);
    assert_eq!(
        crate::common::reason_count(&log, "no descriptor"),
        1,
        "{log}"
    );
}

#[test]
fn a_client_that_waits_for_a_descriptor_comes_before_those_at_the_door() {
    let root = root(0);
    let flags = ["--request-timeout", "10m", "--stall-timeout", "3s"];
    let carafe = Carafe::serve(root.path(), &flags);
    let held = silent_clients(&carafe, 1);
    carafe.leave_descriptors(1);
    let waiting = ask(carafe.addr(), "small");
    carafe.wait_for_log(NO_FILE);
    // It would keep the one descriptor that becomes free.
    let newcomer = connect(carafe.addr());
    drop(held);
    assert_eq!(rest(waiting).unwrap(), b"small bytes");
    drop(newcomer);
    carafe.stop_warned(&[NO_FILE]);
}

#[test]
fn nobody_spins_while_one_waits_for_a_file_and_others_at_the_door() {
    let root = root(0);
    let flags = ["--request-timeout", "10m", "--stall-timeout", "1s"];
    let carafe = Carafe::serve(root.path(), &flags);
    let mut silent = silent_clients(&carafe, 2);
    carafe.leave_descriptors(0);
    let at_the_door = ask(carafe.addr(), "small");
    carafe.wait_for_log(NO_ROOM);
    let mut asks = silent.pop().unwrap();
    asks.write_all(b"small\n").unwrap();
    carafe.wait_for_log(NO_FILE);
    let ticks = carafe.cpu_ticks();
    assert_reset(rest(asks));
    let used = carafe.cpu_ticks() - ticks;
    assert!(used <= IDLE_TICKS_MAX, "{used} ticks");
    drop((silent, at_the_door));
    carafe.stop();
}

#[test]
fn nobody_spins_while_one_waits_for_a_file_and_the_server_stops() {
    let root = root(0);
    let (carafe, _, waiting) = parked(&root, 0, &["--stall-timeout", "1s", "--drain", "1m"]);
    carafe.signal(rustix::process::Signal::TERM);
    carafe.wait_for_log("draining");
    let ticks = carafe.cpu_ticks();
    // It gives up before the drain ends.
    assert_reset(rest(waiting));
    let used = carafe.cpu_ticks() - ticks;
    assert!(used <= IDLE_TICKS_MAX, "{used} ticks");
    let (status, log) = carafe.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn a_full_house_without_anybody_at_the_door_is_no_shortage() {
    let root = root(0);
    let carafe = Carafe::serve(root.path(), &["--max-connections", "1"]);
    let idle = carafe.sockets();
    for _ in 0..3 {
        assert_eq!(exchange(carafe.addr(), b"small\n").unwrap(), b"small bytes");
        until("nobody is there", || carafe.sockets() == idle);
        drop(silent_clients(&carafe, 1));
        until("nobody is there", || carafe.sockets() == idle);
    }
    carafe.stop_clean();
}

#[test]
fn more_stalled_downloads_than_open_files_leave_the_next_one_waiting_and_nobody_else() {
    let root = root(3);
    let carafe = Carafe::serve_limited(root.path(), 64, &["--open-files", "2"]);
    let download = |name: &str| begin_download(carafe.addr(), name).0;
    let mut stalled: Vec<_> = ["large0", "large1"].map(download).into();
    // The same file takes no descriptor more.
    stalled.push(download("large1"));
    let mut waiting = ask(carafe.addr(), "large2");
    carafe.wait_for_log(NO_FILE);
    let mut small = ask(carafe.addr(), "small");
    for _ in 0..20 {
        assert!(exchange(carafe.addr(), b"missing\n").unwrap().is_empty());
    }
    assert_waiting(&mut waiting);
    assert_waiting(&mut small);
    stalled.remove(0);
    assert_eq!(rest(waiting).unwrap().len(), LARGE_BYTES);
    assert_eq!(rest(small).unwrap(), b"small bytes");
    drop(stalled);
    carafe.stop_warned(&[NO_FILE]);
}

#[test]
fn a_descriptor_that_a_kept_connection_gives_back_wakes_who_waits() {
    let root = root(1);
    let carafe = Carafe::serve_limited(root.path(), 64, &["--open-files", "1"]);
    let mut kept = connect(carafe.addr());
    kept.write_all(b"GET /large0 HTTP/1.1\r\nHost: h\r\n\r\n")
        .unwrap();
    let mut byte = [0];
    kept.read_exact(&mut byte).unwrap();
    let waiting = ask(carafe.addr(), "small");
    carafe.wait_for_log(NO_FILE);
    // It takes the rest, and stays.
    let mut count = 1;
    let mut buffer = vec![0; 1 << 20];
    while count < LARGE_BYTES {
        count += kept.read(&mut buffer).unwrap();
    }
    assert_eq!(rest(waiting).unwrap(), b"small bytes");
    drop(kept);
    carafe.stop_warned(&[NO_FILE]);
}

#[test]
fn one_client_more_than_max_connections_waits_for_one_to_leave() {
    const WARNING: &str = "the limit of 3 connections is reached: new clients wait";
    let root = root(1);
    let carafe = Carafe::serve(root.path(), &["--max-connections", "3"]);
    let mut downloads: Vec<_> = (0..3)
        .map(|_| begin_download(carafe.addr(), "large0").0)
        .collect();
    let mut waiting = ask(carafe.addr(), "small");
    carafe.wait_for_log(WARNING);
    assert_waiting(&mut waiting);
    downloads.pop();
    assert_eq!(rest(waiting).unwrap(), b"small bytes");
    assert_eq!(exchange(carafe.addr(), b"small\n").unwrap(), b"small bytes");
    drop(downloads);
    carafe.stop_warned(&[WARNING]);
}

#[test]
fn more_open_files_than_descriptors_are_a_usage_error() {
    let files = raise_own_limit().to_string();
    let args = ["serve", ".", "-p", "0", "--open-files", &files];
    let output = run_carafe(&args.map(std::ffi::OsStr::new));
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    let begin = format!("carafe: --open-files: '{files}' won't do: with ");
    assert!(text.starts_with(&begin), "{text}");
    assert!(text.contains(" it takes 1 to "), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}
