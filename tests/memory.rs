//! Very many clients that send a part of a request, or more requests than are answered: what they
//! hold in the server, and that others are served meanwhile. In a process of its own because of the
//! descriptors they take.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what failed by panicking"
)]

#[allow(dead_code, reason = "it uses a part")]
#[path = "it/common/mod.rs"]
mod common;
#[allow(dead_code, reason = "it uses a part")]
#[path = "it/talk/mod.rs"]
mod talk;

use std::io::Write as _;
use std::net::TcpStream;
use std::process::Command;

use carafe::limits::{REQUEST_MEMORY_SHARE_BYTES, REQUEST_READ_BYTES_MAX};
use common::{
    Carafe, LARGE_BYTES, connect, connect_narrow, raise_own_limit, reason_count, resident_bytes,
    root_with, sparse_file, until,
};
use talk::{Talk, get};
use tempfile::TempDir;

/// Descriptors that are no connections, here or in the server.
const SPARE: u64 = 300;

/// What a connection that has sent something weighs beside that, in bytes, in a debug build.
const CONNECTION_BYTES: u64 = 2048;

/// Memory that is no connection's: the page cache's share of the program, helpers, tables.
const REST_BYTES: u64 = 8 * 1024 * 1024;

fn root() -> TempDir {
    let root = root_with(&[("small", b"small bytes")]);
    sparse_file(&root.path().join("large"), LARGE_BYTES as u64);
    root
}

/// As many as this process may have, up to 4,000.
fn clients() -> u64 {
    raise_own_limit().saturating_sub(SPARE).min(4_000)
}

/// The first so many bytes of a head that is not whole.
fn part_of_a_head(bytes: usize) -> Vec<u8> {
    let mut head = b"GET /small HTTP/1.1\r\nHost: h\r\nX: ".to_vec();
    head.resize(bytes, b'x');
    head
}

/// Says as much as the kernel takes.
fn say(mut client: &TcpStream, bytes: &[u8]) {
    client.set_nonblocking(true).unwrap();
    let _ = client.write(bytes);
}

#[test]
fn parts_of_requests_hold_no_more_than_their_share_all_together() {
    let (root, count) = (root(), clients());
    let most = count.to_string();
    let flags = ["--max-connections", &most, "--request-timeout", "1h"];
    let carafe = Carafe::serve(root.path(), &flags);
    let idle = carafe.sockets();
    let mut honest = Talk::to(carafe.addr());
    assert_eq!(honest.get("/small").status, 200);
    let before = resident_bytes(&carafe);
    let head = part_of_a_head(15_000);
    // Theirs is longer than a share, too, but they ask for something.
    let flood: Vec<_> = (0..count - 1)
        .map(|at| {
            let client = connect(carafe.addr());
            say(&client, &head);
            if at % 1000 == 0 {
                assert_eq!(honest.get("/small").status, 200);
            }
            client
        })
        .collect();
    assert_eq!(honest.get("/small").status, 200);
    let newcomer = &mut Talk::to(carafe.addr());
    let long = format!("X: {}\r\n", "x".repeat(10_000));
    assert_eq!(newcomer.ask(&get("/small", &long)).status, 200);
    let taken = resident_bytes(&carafe).saturating_sub(before);
    let most = count * (REQUEST_MEMORY_SHARE_BYTES as u64 + CONNECTION_BYTES) + REST_BYTES;
    assert!(taken <= most, "{taken} bytes for {count}");
    drop(flood);
    until("they are gone", || carafe.sockets() < idle + 10);
    carafe.stop();
}

#[test]
fn requests_behind_one_that_waits_stay_with_the_kernel() {
    let (root, count) = (root(), clients());
    let carafe = Carafe::serve(root.path(), &[]);
    let before = resident_bytes(&carafe);
    let requests = get("/large", "") + &get("/small", "").repeat(2000);
    let flood: Vec<_> = (0..count)
        .map(|_| {
            let client = connect_narrow(carafe.addr(), 4096);
            say(&client, requests.as_bytes());
            client
        })
        .collect();
    let mut honest = Talk::to(carafe.addr());
    assert_eq!(honest.get("/small").status, 200);
    let taken = resident_bytes(&carafe).saturating_sub(before);
    let most = count * (REQUEST_READ_BYTES_MAX as u64 + CONNECTION_BYTES) + REST_BYTES;
    assert!(taken <= most, "{taken} bytes for {count}");
    drop(flood);
    until("their memory is given back", || {
        resident_bytes(&carafe).saturating_sub(before) <= taken / 2
    });
    carafe.stop();
}

#[test]
fn without_memory_those_are_closed_who_want_more_and_the_others_are_served() {
    let (root, count) = (root(), clients());
    let mut shell = Command::new("sh");
    // The program and its threads' stacks have the larger part of it.
    shell.args(["-c", "ulimit -v 40000; exec \"$0\" \"$@\""]);
    // Far more than there is memory for.
    let flags = ["--max-connections", "15000", "--request-timeout", "1h"];
    let carafe = Carafe::serve_under(shell, root.path(), &flags);
    let head = part_of_a_head(8_000);
    let mut flood = Vec::new();
    for at in 0..count {
        let client = connect(carafe.addr());
        say(&client, &head);
        flood.push(client);
        if at % 500 == 0 {
            assert_eq!(Talk::to(carafe.addr()).get("/small").status, 200, "{at}");
        }
    }
    assert_eq!(Talk::to(carafe.addr()).get("/small").status, 200);
    drop(flood);
    assert_eq!(Talk::to(carafe.addr()).get("/small").status, 200);
    let log = carafe.stop();
    assert!(reason_count(&log, "out of memory") > 0, "{log}");
}
