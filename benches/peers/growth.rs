//! What a request costs as something grows: connections, files, and how full the server is.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::Result;
use crate::bench::{Bench, Contestant};
use crate::content::Content;
use crate::idle::at_most;
use crate::load::{Load, Protocol};
use crate::servers::{Need, Peer, Server};
use crate::table::{Against, Table, Target};

/// Who is compared, over HTTP keep-alive.
const PEERS: &[Peer] = &[Peer::Carafe, Peer::Before, Peer::Nginx, Peer::Lighttpd];

/// The unit of all these tables.
const UNIT: &str = "server CPU in us a request";

/// Clients that ask, where their number isn't what grows.
const CLIENTS: usize = 64;

/// Files of which a server comes to know in a second at least: carafe's thread watches one after the other, beside
/// the loop on the same core, and only those that are asked for a second time.
const FILES_WARMED_A_SECOND: usize = 3_000;

/// How long the files have lain unchanged when they are asked for.
const FILES_AGE: Duration = Duration::from_secs(300);

/// Connections that all ask.
pub fn connections(bench: &Bench) -> Result<Vec<Table>> {
    let target = Target {
        of: "carafe, 10000",
        against: Against::Best(&["carafe, 1", "carafe, 64"]),
        at_most: 1.3,
    };
    let title = "1 KiB over HTTP keep-alive, by connections";
    let mut table = Table::new(title, UNIT, &[target]);
    let contents = [bench.file("1k", 1024)?];
    for _ in 0..bench.rounds {
        for count in [1, 64, 1_000, 10_000] {
            for &peer in PEERS {
                if at_most(count, peer) == count {
                    let row = (peer, count as usize);
                    measure(bench, &mut table, row, Need::Kept, &contents)?;
                }
            }
        }
    }
    Ok(vec![table])
}

/// Files that are asked for in turn.
pub fn files(bench: &Bench) -> Result<Vec<Table>> {
    const COUNTS: [usize; 3] = [10, 10_000, 100_000];
    let target = Target {
        of: "carafe, 100000 files",
        against: Against::Best(&["carafe, 10 files"]),
        at_most: 1.2,
    };
    let title = "1 KiB over HTTP keep-alive, 64 connections, by files";
    let mut table = Table::new(title, UNIT, &[target]);
    let [.., most] = COUNTS;
    let names = (0..most).map(|number| (format!("file{number}"), 1024));
    let contents = bench.maker.make_all(&bench.place.root, names)?;
    // Servers look more often at a file that has changed just now.
    thread::sleep(FILES_AGE);
    let room = at_most(most as u64, Peer::Lighttpd);
    table.notes.push(format!(
        "lighttpd holds the files that it knows open, and answers 403 when it has no descriptor left: \
         it was asked for {room} at most. The files have lain unchanged for {} s, \
         and each server was asked for them for {} s before, of the most",
        FILES_AGE.as_secs(),
        most / FILES_WARMED_A_SECOND
    ));
    let is_able = |peer, count| peer != Peer::Lighttpd || count as u64 <= room;
    for _ in 0..bench.rounds {
        for count in COUNTS {
            for &peer in PEERS.iter().filter(|&&peer| is_able(peer, count)) {
                let contestant = Contestant::by(peer, Protocol::KeepAlive);
                let contents = &contents[..count];
                let Some(server) = bench.start_one(contestant, Need::ManyFiles, &contents[0])?
                else {
                    continue;
                };
                let time = Duration::from_secs((count / FILES_WARMED_A_SECOND) as u64);
                let load = |time| {
                    let protocol = Protocol::KeepAlive;
                    Load::begin_in_turn(server.address, protocol, contents, CLIENTS)?.run(time)
                };
                load(time)?;
                let label = format!("{}, {count} files", contestant.label());
                push(bench, &mut table, &label, (&server, CLIENTS), contents)?;
            }
        }
    }
    Ok(vec![table])
}

/// Nine tenths of the connections that there may be are taken, beside the same in an empty server.
pub fn full(bench: &Bench) -> Result<Vec<Table>> {
    const ROOM: u32 = 2_000;
    let target = Target {
        of: "carafe, nine tenths full",
        against: Against::Best(&["carafe, empty"]),
        at_most: 1.1,
    };
    let title = format!("1 KiB over HTTP keep-alive, 64 connections of at most {ROOM}");
    let mut table = Table::new(title, UNIT, &[target]);
    let contents = [bench.file("1k", 1024)?];
    let contestant = Contestant::by(Peer::Carafe, Protocol::KeepAlive);
    for _ in 0..bench.rounds {
        for (how, taken) in [("empty", 0), ("nine tenths full", ROOM / 10 * 9)] {
            let need = Need::Room(ROOM);
            let Some(server) = bench.start_one(contestant, need, &contents[0])? else {
                return Ok(Vec::new());
            };
            let kept = (CLIENTS as u32..taken).map(|_| kept_alive(&server, &contents[0]));
            let kept = kept.collect::<Result<Vec<_>>>()?;
            let label = format!("{}, {how}", contestant.label());
            push(bench, &mut table, &label, (&server, CLIENTS), &contents)?;
            drop(kept);
        }
    }
    Ok(vec![table])
}

fn measure(
    bench: &Bench,
    table: &mut Table,
    (peer, clients): (Peer, usize),
    need: Need,
    contents: &[Content],
) -> Result<()> {
    let contestant = Contestant::by(peer, Protocol::KeepAlive);
    if let Some(server) = bench.start_one(contestant, need, &contents[0])? {
        let label = format!("{}, {clients}", contestant.label());
        push(bench, table, &label, (&server, clients), contents)?;
    }
    Ok(())
}

fn push(
    bench: &Bench,
    table: &mut Table,
    label: &str,
    (server, clients): (&Server, usize),
    contents: &[Content],
) -> Result<()> {
    let measured = bench.measure_in_turn(server, Protocol::KeepAlive, contents, clients)?;
    table.push(label, measured.cpu_us() / measured.tally.downloads as f64);
    Ok(())
}

/// A connection that has had an answer and may ask again.
fn kept_alive(server: &Server, content: &Content) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(server.address)?;
    stream.write_all(&Protocol::KeepAlive.request(&content.name))?;
    let mut answer = [0; 4096];
    let mut count = 0;
    while (count as u64) < content.length {
        count += match stream.read(&mut answer)? {
            0 => return Err("a connection was not kept".into()),
            count => count,
        };
    }
    Ok(stream)
}
