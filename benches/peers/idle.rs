//! What a connection costs that says nothing, and what is left when all of them have gone.

use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use carafe::descriptors::descriptor_limit;
use carafe::soak::process::Process;

use crate::Result;
use crate::bench::{Bench, Contestant};
use crate::content::Content;
use crate::load::Protocol;
use crate::processes::resident_bytes;
use crate::servers::{Need, Peer, Server};
use crate::table::{Against, Table, Target};

/// Connections in the table's row, where the descriptor limit allows them.
const CONNECTIONS: u64 = 15_000;

/// Descriptors that a server and the load need for other things.
const SPARE: u64 = 1_000;

/// A server may take so long to accept all, or to see that all have gone.
const PATIENCE: Duration = Duration::from_secs(20);

/// Memory may be given back a little later than the connections.
const SETTLE: Duration = Duration::from_millis(1_500);

/// Who is compared.
const CONTESTANTS: &[Contestant] = &[
    Contestant::of(Peer::Carafe),
    Contestant::of(Peer::Before),
    Contestant::of(Peer::Nginx),
    Contestant::of(Peer::Lighttpd),
    Contestant::of(Peer::Darkhttpd),
];

/// How many connections this machine allows a server of those.
pub fn at_most(connections: u64, peer: Peer) -> u64 {
    let limit = descriptor_limit().unwrap_or(u64::MAX);
    let limit = match peer {
        // It keeps half of its descriptors for files.
        Peer::Lighttpd => limit / 2,
        _ => limit,
    };
    connections.min(limit.saturating_sub(SPARE))
}

/// Memory by connection, all of them idle, and after they left.
pub fn row(bench: &Bench) -> Result<Vec<Table>> {
    let count = at_most(CONNECTIONS, Peer::Carafe);
    let title = format!("{count} idle connections");
    let target = |at_most| Target {
        of: "carafe",
        against: Against::Nothing,
        at_most,
    };
    let unit = "resident memory in bytes a connection, beyond that of the idle server";
    let mut held = Table::new(title.clone(), unit, &[target(64.0)]);
    // A quarter, so that what is kept doesn't pass for memory given back.
    let mut left = Table::new(title, "the same after they left", &[target(16.0)]);
    let content = bench.file("1k", 1024)?;
    for _ in 0..bench.rounds {
        for &contestant in CONTESTANTS {
            let count = at_most(count, contestant.peer);
            if let Some(memory) = measure(bench, contestant, &content, count)? {
                held.push(&contestant.label(), memory.held / count as f64);
                left.push(&contestant.label(), memory.left / count as f64);
            }
        }
    }
    held.notes.push(format!(
        "lighttpd keeps half of its descriptors for files: it had {} connections",
        at_most(count, Peer::Lighttpd)
    ));
    Ok(vec![held, left])
}

/// Bytes beyond what the server had before.
pub struct Memory {
    /// With all connections open.
    pub held: f64,
    /// After they left.
    pub left: f64,
}

/// A new server, which then has so many connections.
pub fn measure(
    bench: &Bench,
    contestant: Contestant,
    content: &Content,
    count: u64,
) -> Result<Option<Memory>> {
    let Some(server) = bench.start_one(contestant, Need::Idle, content)? else {
        return Ok(None);
    };
    // What the first downloads take belongs to no connection.
    bench.measure(&server, Protocol::Http, content, 64)?;
    let (process, _) = Process::open(server.pid()?)?;
    let open_before = settled(&process)?;
    let before = resident_bytes(server.pid()?)? as f64;
    let mut connections = Vec::new();
    for _ in 0..count {
        match TcpStream::connect_timeout(&server.address.into(), PATIENCE) {
            Ok(connection) => connections.push(connection),
            Err(error) => {
                let (label, so_far) = (contestant.label(), connections.len());
                println!("{label} is left out: with {so_far} connections, the next says: {error}");
                return Ok(None);
            }
        }
    }
    wait_for(&process, &server, |open| open >= open_before + count)?;
    let held = resident_bytes(server.pid()?)? as f64 - before;
    drop(connections);
    wait_for(&process, &server, |open| open <= open_before)?;
    sleep(SETTLE);
    let left = resident_bytes(server.pid()?)? as f64 - before;
    Ok(Some(Memory { held, left }))
}

/// How many descriptors are open once the clients of the warm-up have been seen to go.
fn settled(process: &Process) -> Result<u64> {
    let mut open = process.usage()?.descriptors;
    loop {
        sleep(SETTLE / 5);
        let now = process.usage()?.descriptors;
        if now == open {
            return Ok(open);
        }
        open = now;
    }
}

fn wait_for(process: &Process, server: &Server, is_so: impl Fn(u64) -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let open = process.usage()?.descriptors;
        if is_so(open) {
            return Ok(());
        }
        if Instant::now() > deadline {
            let label = server.peer.label();
            return Err(format!("{label}: stays at {open} descriptors").into());
        }
        sleep(Duration::from_millis(10));
    }
}
