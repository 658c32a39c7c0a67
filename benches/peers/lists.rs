//! Lists of large folders: what one costs, and for how long it holds up the loop.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::time::Instant;

use crate::Result;
use crate::bench::{Bench, Contestant};
use crate::processes::cpu_time;
use crate::servers::{Need, Peer, Server};
use crate::table::{Against, Table, Target};

/// Who is compared.
const PEERS: &[Peer] = &[Peer::Carafe, Peer::Before, Peer::Nginx, Peer::Lighttpd];

/// The folder that is listed.
const FOLDER: &str = "listed";

/// A turn takes so many seconds at most.
const LONGEST_TURN_S: f64 = 0.005;

/// Lists of 10,000 and of 100,000 entries that don't change, asked for by one client.
pub fn row(bench: &Bench) -> Result<Vec<Table>> {
    let content = bench.file("1k", 1024)?;
    let folder = bench.place.root.join(FOLDER);
    fs::create_dir(&folder)?;
    let mut tables = Vec::new();
    let mut made = 0;
    for entries in [10_000, 100_000] {
        for number in made..entries {
            File::create(folder.join(format!("entry{number}")))?;
        }
        made = entries;
        let title = format!("A list of {entries} entries, asked for again and again");
        let target = |of, at_most| Target {
            of,
            against: Against::Nothing,
            at_most,
        };
        let mut cost = Table::new(title.clone(), "server CPU in ms a list", &[]);
        let mut longest = Table::new(
            title,
            "the longest turn of the loop in ms, by the bounds of the histogram in /metrics",
            &[target("carafe", LONGEST_TURN_S * 1e3)],
        );
        for _ in 0..bench.rounds {
            for &peer in PEERS {
                let contestant = Contestant::over_http(peer);
                let Some(server) = bench.start_one(contestant, Need::Lists, &content)? else {
                    continue;
                };
                let told = |error| format!("{}: {error}", peer.label());
                cost.push(&peer.label(), cpu_ms(bench, &server).map_err(told)?);
                if let Some(metrics) = server.metrics()? {
                    longest.push(&peer.label(), longest_turn_s(metrics)? * 1e3);
                }
            }
        }
        tables.extend([cost, longest]);
    }
    fs::remove_dir_all(&folder)?;
    Ok(tables)
}

/// A list after the other, until the turn is over.
fn cpu_ms(bench: &Bench, server: &Server) -> Result<f64> {
    get(server.address, &format!("/{FOLDER}/"))?;
    let (before, began) = (cpu_time(server.pid()?)?, Instant::now());
    let mut lists = 0.0;
    while began.elapsed() < bench.turn {
        get(server.address, &format!("/{FOLDER}/"))?;
        lists += 1.0;
    }
    let cpu = cpu_time(server.pid()?)? - before;
    Ok(cpu.as_secs_f64() * 1e3 / lists)
}

/// The bound of the last bucket that a turn fell into beyond those before it.
fn longest_turn_s(metrics: SocketAddrV4) -> Result<f64> {
    let page = get(metrics, "/metrics")?;
    let (mut longest, mut below) = (0.0, 0);
    for line in page.lines() {
        let bucket = line.strip_prefix("carafe_loop_turn_duration_seconds_bucket{le=\"");
        let Some((bound, count)) = bucket.and_then(|rest| rest.split_once("\"} ")) else {
            continue;
        };
        let count = count.parse::<u64>()?;
        if count > below {
            (longest, below) = (bound.trim_start_matches('+').parse::<f64>()?, count);
        }
    }
    Ok(longest)
}

/// A whole answer; its status is 200.
fn get(address: SocketAddrV4, target: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    let head = format!("GET {target} HTTP/1.1\r\nHost: peers\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if !answer.starts_with("HTTP/1.1 200 ") || !answer.contains("\r\n\r\n") {
        let first = answer.lines().next().unwrap_or_default();
        return Err(format!("{target}: {first}").into());
    }
    Ok(answer)
}
