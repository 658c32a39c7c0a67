//! Vanishing, slow and hostile peers: each connection ends for one reason, nothing is left behind,
//! and well-behaved clients are served meanwhile.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use crate::common::{
    Carafe, LARGE_BYTES, assert_reset, begin_download, connect, connect_narrow, count_lines,
    exchange, pattern, reason_count, reply_count, sparse_file, until, vanish,
};
use tempfile::TempDir;

/// How far a client got before it vanishes.
#[derive(Clone, Copy, Debug)]
enum Stage {
    BeforeName,
    MidName,
    Sending,
    Closing,
}

const STAGES: [Stage; 4] = [
    Stage::BeforeName,
    Stage::MidName,
    Stage::Sending,
    Stage::Closing,
];

fn client_at(stage: Stage, addr: SocketAddr) -> TcpStream {
    let mut client = match stage {
        Stage::Sending => return begin_download(addr, "large").0,
        _ => connect(addr),
    };
    match stage {
        Stage::BeforeName | Stage::Sending => {}
        Stage::MidName => client.write_all(b"some na").unwrap(),
        Stage::Closing => {
            // A name without an end: the server lingers for what may follow.
            client.write_all(b"small").unwrap();
            client.read_to_end(&mut Vec::new()).unwrap();
        }
    }
    client
}

/// A root with a file to hold the server in Sending and one that is served at once.
fn root() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    sparse_file(&root.path().join("large"), LARGE_BYTES as u64);
    fs::write(root.path().join("small"), b"small bytes").unwrap();
    root
}

fn assert_probe(addr: SocketAddr) {
    assert_eq!(exchange(addr, b"small\n").unwrap(), b"small bytes");
}

/// What the line for a connection that has ended holds, even if the kernel doesn't know any more whose
/// it was.
const ENDED: &str = "INFO  carafe::serve::conn_record] ";

/// Fifty clients at every stage leave by `leave`; all must be forgotten.
fn vanishing(leave: impl Fn(TcpStream)) -> String {
    const ROUNDS: usize = 50;
    let root = root();
    // Who leaves without a word is accepted all the same.
    let carafe = Carafe::serve(root.path(), &["--no-defer-accept"]);
    // The first client of each stage has tables grow to their size.
    for stage in STAGES {
        leave(client_at(stage, carafe.addr()));
    }
    assert_probe(carafe.addr());
    let is_over = |ended: usize| count_lines(&carafe.log(), ENDED) == ended;
    until("the first clients are logged", || is_over(STAGES.len() + 1));
    let (descriptors, memory) = (carafe.descriptors(), carafe.resident_bytes());
    for stage in STAGES {
        for _ in 0..ROUNDS {
            leave(client_at(stage, carafe.addr()));
        }
        assert_probe(carafe.addr());
    }
    let clients = (STAGES.len() + 1) + STAGES.len() * (ROUNDS + 1);
    until("each client is logged as ended", || is_over(clients));
    // The cache may keep the large file, for a while.
    until("nobody's descriptor is left", || {
        carafe.descriptors() <= descriptors + 1
    });
    let grown = carafe.resident_bytes().saturating_sub(memory);
    assert!(grown < 2 << 20, "{grown} bytes more");
    let log = carafe.stop_warned(&[]);
    assert_eq!(count_lines(&log, ENDED), clients, "one line for each");
    log
}

#[test]
fn clients_that_leave_by_fin_leave_nothing_behind() {
    let log = vanishing(|client| {
        // Closing alone would be a reset where bytes are unread.
        let _ = client.shutdown(Shutdown::Write);
    });
    assert_eq!(reason_count(&log, "client left"), 51, "before a name");
    assert_eq!(reply_count(&log, "refused"), 51, "a FIN ends the name");
    assert_eq!(reason_count(&log, "reset by peer"), 51, "while sending");
    assert_eq!(reply_count(&log, "complete"), 51 + 5, "closing, probes");
}

#[test]
fn clients_that_leave_by_reset_leave_nothing_behind() {
    let log = vanishing(vanish);
    assert_eq!(reason_count(&log, "reset by peer"), 4 * 51, "{log}");
    assert_eq!(reply_count(&log, "complete"), 5, "the probes");
}

#[test]
fn trickling_clients_are_cut_off_while_others_are_served() {
    const CLIENTS: usize = 50;
    let root = root();
    let carafe = Carafe::serve(root.path(), &["--request-timeout", "300ms"]);
    let mut tricklers: Vec<_> = (0..CLIENTS).map(|_| connect(carafe.addr())).collect();
    // A timeout that each byte moved would never come.
    until("every trickler is cut off", || {
        for client in &mut tricklers {
            let _ = client.write(b"x");
        }
        assert_probe(carafe.addr());
        count_lines(&carafe.log(), "request timeout") == CLIENTS
    });
    carafe.stop_clean();
}

#[test]
fn a_reader_that_never_reads_is_reset() {
    let root = root();
    let carafe = Carafe::serve(root.path(), &["--stall-timeout", "300ms"]);
    let (mut client, _) = begin_download(carafe.addr(), "large");
    carafe.wait_for_log(" stalled");
    let mut rest = Vec::new();
    assert_reset(client.read_to_end(&mut rest).map(|_| rest));
    assert_probe(carafe.addr());
    carafe.stop_clean();
}

#[test]
fn a_reader_that_takes_less_than_the_least_rate_is_reset() {
    let root = root();
    let flags = ["--stall-timeout", "300ms", "--min-rate", "1GiB"];
    let carafe = Carafe::serve(root.path(), &flags);
    let (mut client, _) = begin_download(carafe.addr(), "large");
    let mut piece = [0; 64];
    let end = loop {
        // Some bytes at a time, however long it takes.
        match client.read(&mut piece) {
            Ok(0) => break Ok(Vec::new()),
            Ok(_) => thread::sleep(Duration::from_millis(1)),
            Err(error) => break Err(error),
        }
    };
    assert_reset(end);
    carafe.wait_for_log(" stalled");
    assert_probe(carafe.addr());
    carafe.stop_clean();
}

/// Reads `step` bytes, pauses, and so on to the end: an honest reader on a slow line.
fn slow_reader_gets_it_whole(len: usize, step: usize, pause: Duration, stall_timeout: &str) {
    let root = tempfile::tempdir().unwrap();
    let bytes = pattern(3, len);
    fs::write(root.path().join("slowly"), &bytes).unwrap();
    let carafe = Carafe::serve(root.path(), &["--stall-timeout", stall_timeout]);
    let mut client = connect_narrow(carafe.addr(), 64 * 1024);
    client.write_all(b"slowly\n").unwrap();
    let (mut all, mut piece) = (Vec::with_capacity(len), vec![0; step]);
    loop {
        match client.read(&mut piece).unwrap() {
            0 => break,
            n => all.extend_from_slice(&piece[..n]),
        }
        thread::sleep(pause);
    }
    assert!(all == bytes, "{} of {len} bytes came", all.len());
    carafe.stop_clean();
}

#[test]
fn an_honest_slow_reader_outlasts_the_stall_timeout() {
    slow_reader_gets_it_whole(12_000_000, 128 * 1024, Duration::from_millis(40), "400ms");
}

#[test]
#[ignore = "long form: five minutes at 20 kB/s with the default stall timeout"]
fn an_honest_20_kb_reader_outlasts_the_default_stall_timeout() {
    slow_reader_gets_it_whole(6_000_000, 4_000, Duration::from_millis(200), "60s");
}

#[test]
fn a_flood_of_connects_and_resets_disturbs_nobody() {
    let root = root();
    let carafe = Carafe::serve(root.path(), &[]);
    let addr = carafe.addr();
    let flood = thread::spawn(move || {
        for _ in 0..500 {
            vanish(connect(addr));
        }
    });
    while !flood.is_finished() {
        assert_probe(addr);
    }
    flood.join().unwrap();
    assert_probe(addr);
    carafe.stop_clean();
}
