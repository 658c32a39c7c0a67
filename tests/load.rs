//! Very many clients at once, in a process of their own because of the descriptors they take.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what failed by panicking"
)]

#[allow(dead_code, reason = "it uses a part")]
#[path = "it/common/mod.rs"]
mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use common::{
    Carafe, connect, exchange, pattern, raise_own_limit, reason_count, reply_count, skip,
    sparse_file, until,
};
use rustix::process::Signal;
use tempfile::TempDir;

/// Descriptors that are no connections, here or in the server.
const SPARE: u64 = 300;

/// A root with the file `small`, and its bytes.
fn root() -> (TempDir, Vec<u8>) {
    let root = tempfile::tempdir().unwrap();
    let bytes = pattern(5, 1000);
    fs::write(root.path().join("small"), &bytes).unwrap();
    (root, bytes)
}

/// All name the file, then all take its bytes.
fn all_are_served(clients: Vec<TcpStream>, bytes: &[u8]) {
    for mut client in &clients {
        client.write_all(b"small\n").unwrap();
    }
    for mut client in clients {
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        assert!(got == bytes, "{} bytes came", got.len());
    }
}

#[test]
fn ten_thousand_clients_at_once_are_all_served() {
    let limit = raise_own_limit();
    // The server keeps a quarter of its limit for files; the other tests here need some too.
    let here = limit.saturating_sub(2000 + SPARE);
    let most = (limit * 3 / 4).saturating_sub(SPARE).min(here) as usize;
    let clients_wanted = most.min(10_000);
    if clients_wanted < 10_000 {
        let why = format!("{limit} descriptors allow {clients_wanted} clients");
        skip("10000-clients", &why);
    }
    let (root, bytes) = root();
    let carafe = Carafe::serve(root.path(), &["--request-timeout", "5m"]);
    let (sockets, memory) = (carafe.sockets(), carafe.resident_bytes());
    let clients: Vec<_> = (0..clients_wanted)
        .map(|_| connect(carafe.addr()))
        .collect();
    until("all are let in", || {
        carafe.sockets() == sockets + clients_wanted
    });
    let each = carafe.resident_bytes().saturating_sub(memory) / clients_wanted as u64;
    let _ = writeln!(
        std::io::stderr(),
        "{clients_wanted} idle connections take {each} bytes each"
    );
    assert!(each < 1024, "{each} bytes for an idle connection");
    all_are_served(clients, &bytes);
    until("all are forgotten", || carafe.sockets() == sockets);
    let log = carafe.stop_warned(&[]);
    assert_eq!(reply_count(&log, "complete"), clients_wanted as u64);
}

#[test]
fn a_burst_of_two_thousand_waits_for_a_server_that_stands_still() {
    const BURST: usize = 2000;
    let text = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    if text.trim().parse::<usize>().unwrap() < BURST {
        return skip("burst", "net.core.somaxconn is below 2000");
    }
    raise_own_limit();
    let (root, bytes) = root();
    let carafe = Carafe::serve(root.path(), &[]);
    carafe.signal(Signal::STOP);
    let clients: Vec<_> = (0..BURST).map(|_| connect(carafe.addr())).collect();
    carafe.signal(Signal::CONT);
    all_are_served(clients, &bytes);
    let log = carafe.stop_warned(&[]);
    assert_eq!(reply_count(&log, "complete"), BURST as u64);
}

#[test]
fn bulk_readers_and_small_downloads_do_not_starve_each_other() {
    const BULK_BYTES: u64 = 16 << 30;
    let (root, bytes) = root();
    sparse_file(&root.path().join("bulk"), BULK_BYTES);
    let carafe = Carafe::serve(root.path(), &[]);
    let (addr, is_over) = (carafe.addr(), AtomicBool::new(false));
    let taken: [AtomicU64; 8] = Default::default();
    let so_far = || taken.each_ref().map(|n| n.load(Ordering::Relaxed));
    thread::scope(|scope| {
        for taken in &taken {
            let mut client = connect(addr);
            client.write_all(b"bulk\n").unwrap();
            let is_over = &is_over;
            scope.spawn(move || {
                let mut buffer = vec![0; 256 * 1024];
                while !is_over.load(Ordering::Relaxed) {
                    let n = client.read(&mut buffer).unwrap();
                    assert!(n > 0, "a bulk download ended");
                    taken.fetch_add(n as u64, Ordering::Relaxed);
                }
            });
        }
        until("all bulk downloads are under way", || {
            so_far().iter().all(|&taken| taken > 0)
        });
        let before = so_far();
        for _ in 0..200 {
            assert_eq!(exchange(addr, b"small\n").unwrap(), bytes);
        }
        let after = so_far();
        is_over.store(true, Ordering::Relaxed);
        for (before, after) in before.into_iter().zip(after) {
            assert!(before < after, "a bulk reader got nothing meanwhile");
            assert!(after < BULK_BYTES, "{after}: a bulk download is over");
        }
    });
    let log = carafe.stop_warned(&[]);
    assert_eq!(reason_count(&log, "reset by peer"), 8);
    assert_eq!(reply_count(&log, "complete"), 200);
}
