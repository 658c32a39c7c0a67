//! How long a small download takes beside large ones that fill the server's core.

use std::thread;
use std::time::Duration;

use rustix::process::setpriority_process;

use crate::Result;
use crate::bench::{Bench, Contestant, WARM_UP};
use crate::content::Content;
use crate::load::{Load, Tally};
use crate::processes::cpu_time;
use crate::servers::{Need, Peer, Server};
use crate::table::{Against, Table, Target};

/// Bulk readers in the table's row.
const READERS: usize = 32;

/// Large enough that hardly ever one of the readers connects anew.
pub const BULK_BYTES: u64 = 256 << 20;

/// Turns of this row are longer by this factor: the slowest server serves a few small files a
/// second.
const LONGER: u32 = 3;

/// Who is compared.
const CONTESTANTS: &[Contestant] = &[
    Contestant::of(Peer::Carafe),
    Contestant::of(Peer::Before),
    Contestant::of(Peer::Nginx),
    Contestant::of(Peer::Lighttpd),
];

/// One small client beside 32 bulk readers.
pub fn row(bench: &Bench) -> Result<Vec<Table>> {
    let title = format!("One small client (1 KiB) beside {READERS} bulk readers");
    let target = Target {
        of: "carafe",
        against: Against::Best(&["lighttpd"]),
        at_most: 0.5,
    };
    let new = |unit| Table::new(title.clone(), unit, &[target]);
    let mut tables = [
        new("p50 in ms"),
        new("p99 in ms"),
        Table::new(title.clone(), "bulk throughput in MiB/s", &[]),
        Table::new(title.clone(), "server CPU in percent of its core", &[]),
    ];
    let (small, bulk) = (bench.file("1k", 1024)?, bench.file("bulk", BULK_BYTES)?);
    let servers = bench.start(CONTESTANTS, Need::Large, &bulk)?;
    for _ in 0..bench.rounds {
        for (contestant, server) in &servers {
            let beside = beside(bench, server, *contestant, &small, &bulk, READERS)?;
            let label = contestant.label();
            tables[0].push(&label, beside.small.percentile_ms(50.0));
            tables[1].push(&label, beside.small.percentile_ms(99.0));
            let mebibytes = beside.bulk.bytes as f64 / f64::from(1 << 20);
            let seconds = beside.bulk.elapsed.as_secs_f64();
            tables[2].push(&label, mebibytes / seconds);
            tables[3].push(&label, beside.cpu.as_secs_f64() / seconds * 100.0);
        }
    }
    Ok(tables.into())
}

/// What a turn with both kinds of clients brought.
pub struct Beside {
    /// The small client's.
    pub small: Tally,
    bulk: Tally,
    /// The server's, during the bulk readers' turn.
    cpu: Duration,
}

/// One turn of one server.
pub fn beside(
    bench: &Bench,
    server: &Server,
    contestant: Contestant,
    small: &Content,
    bulk: &Content,
    readers: usize,
) -> Result<Beside> {
    let turn = bench.turn * LONGER;
    let protocol = contestant.protocol();
    let pid = server.pid()?;
    thread::scope(|scope| {
        let (tell, ready) = std::sync::mpsc::channel();
        let bulk = scope.spawn(move || {
            let load = Load::begin(server.address, protocol, bulk, readers)?;
            let mut load = load.discarding();
            load.run(WARM_UP)?;
            let _ = tell.send(());
            let before = cpu_time(pid)?;
            let tally = load.run(turn + 2 * WARM_UP)?;
            Ok((tally, cpu_time(pid)? - before))
        });
        let small = scope.spawn(move || {
            // Both kinds share a core: what the readers do there must not be this client's wait.
            let _ = setpriority_process(None, -20);
            // An error of the other thread is reported from there.
            let _ = ready.recv();
            let mut load = Load::begin(server.address, protocol, small, 1)?;
            load.run(turn)
        });
        let joined = (small.join(), bulk.join());
        let (Ok(small), Ok(bulk)) = joined else {
            return Err("a thread of the load panicked".into());
        };
        let told = |error| format!("{}: {error}", contestant.label());
        let (bulk, cpu) = bulk.map_err(told)?;
        Ok(Beside {
            bulk,
            cpu,
            small: small.map_err(told)?,
        })
    })
}
