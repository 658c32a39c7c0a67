//! Very many clients that say nothing: what they weigh in the real binary, and that their memory is
//! given back. In a process of its own because of the descriptors they take.

use std::io::{Read as _, Write as _};
use std::sync::{Mutex, PoisonError};

use crate::authority::{Authority, FAR};
use crate::common::{
    Carafe, connect, exchange, raise_own_limit, reason_count, reply_count, resident_bytes,
    root_with, until, vanish,
};
use rustix::process::Signal;
use tempfile::TempDir;

/// Descriptors that are no connections, here or in the server.
const SPARE: u64 = 300;

/// What a silent client may weigh, in bytes. Sockets are larger in debug builds: each is tied to
/// its poll.
const EACH_BYTES_MAX: u64 = if cfg!(debug_assertions) { 128 } else { 64 };

fn root() -> TempDir {
    root_with(&[("small", b"small bytes")])
}

const FLAGS: [&str; 6] = [
    "--request-timeout",
    "1h",
    "--open-files",
    "50",
    "-q",
    "--no-defer-accept",
];

#[test]
fn silent_clients_weigh_little_and_their_memory_is_given_back() {
    let most = raise_own_limit().saturating_sub(SPARE).min(15_000);
    let root = root();
    weigh(Carafe::serve(root.path(), &FLAGS), most);
}

/// What TLS keeps of a client begins with its hello.
#[test]
fn where_tls_is_spoken_they_weigh_no_more() {
    let most = raise_own_limit().saturating_sub(SPARE).min(5_000);
    let (authority, root) = (Authority::new(), root());
    authority.sign("one", &["localhost"], FAR);
    weigh(authority.serve(root.path(), &["one"], &FLAGS), most);
}

/// The descriptors of this process are enough for one crowd at a time.
static CROWD: Mutex<()> = Mutex::new(());

/// Weighs so many silent clients of a server, and ends it.
fn weigh(carafe: Carafe, most: u64) {
    let _alone = CROWD.lock().unwrap_or_else(PoisonError::into_inner);
    let before = carafe.sockets();
    let come_and_go = |count: u64| {
        let clients: Vec<_> = (0..count).map(|_| connect(carafe.addr())).collect();
        until("they are let in", || {
            carafe.sockets() == before + count as usize
        });
        let held = resident_bytes(&carafe);
        drop(clients);
        until("they are gone", || carafe.sockets() == before);
        held
    };
    // What is needed once is there when clients of every kind have come and gone.
    assert_eq!(exchange(carafe.addr(), b"small\n").unwrap(), b"small bytes");
    come_and_go(most.min(1024));
    let at_first = resident_bytes(&carafe);
    for _ in 0..2 {
        let taken = come_and_go(most).saturating_sub(at_first);
        let each = taken as f64 / most as f64;
        let _ = writeln!(
            std::io::stderr(),
            "{most} silent connections take {each:.1} bytes each"
        );
        assert!(taken <= most * EACH_BYTES_MAX, "{each} bytes each");
        until("their memory is given back", || {
            resident_bytes(&carafe).saturating_sub(at_first) <= taken / 2
        });
    }
    carafe.signal(Signal::TERM);
    assert_eq!(carafe.wait().0.code(), Some(0));
}

#[test]
fn a_client_that_is_silent_for_a_while_is_served_and_known_by_its_address() {
    let root = root();
    let carafe = Carafe::serve(root.path(), &["--no-defer-accept"]);
    let (before, mut client) = (carafe.sockets(), connect(carafe.addr()));
    let (leaver, breaker) = (connect(carafe.addr()), connect(carafe.addr()));
    let own = [&client, &leaver, &breaker].map(|client| client.local_addr().unwrap());
    until("all are let in", || carafe.sockets() == before + 3);
    client.write_all(b"small\n").unwrap();
    let mut reply = Vec::new();
    client.read_to_end(&mut reply).unwrap();
    assert_eq!(reply, b"small bytes");
    drop(leaver);
    carafe.wait_for_log("client left");
    vanish(breaker);
    carafe.wait_for_log("reset by peer");
    let log = carafe.stop();
    let line_of = |address: std::net::SocketAddr| {
        let of_it = format!(" {address} ");
        log.lines().find(|line| line.contains(&of_it)).unwrap()
    };
    assert!(line_of(own[0]).contains(" \"small\" 11/11 bytes "), "{log}");
    assert!(line_of(own[1]).contains(" - 0/0 bytes "), "{log}");
    assert!(line_of(own[2]).ends_with("s reset by peer"), "{log}");
    assert_eq!(reply_count(&log, "complete"), 1, "{log}");
    assert_eq!(reason_count(&log, "reset by peer"), 1, "{log}");
    assert_eq!(reason_count(&log, "client left"), 1, "{log}");
}
