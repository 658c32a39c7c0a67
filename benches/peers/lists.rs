//! Lists of large folders: what one costs, and for how long it holds up the loop.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::time::{Duration, Instant, SystemTime};

use crate::Result;
use crate::bench::{Bench, Contestant};
use crate::processes::{cpu_time, move_helpers, waited};
use crate::servers::{Need, Peer, Server};
use crate::table::{Against, Table, Target};

/// Who is compared.
const PEERS: &[Peer] = &[Peer::Carafe, Peer::Before, Peer::Nginx, Peer::Lighttpd];

/// The folder that is listed.
const FOLDER: &str = "listed";

/// A turn takes so many seconds at most.
const LONGEST_TURN_S: f64 = 0.005;

/// For so long the loop's thread may wait for its core during a request whose turns count: wake-ups take a
/// part of it.
const WAITED_MAX: Duration = Duration::from_micros(500);

/// Lists of 10,000 and of 100,000 entries, asked for by one client.
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
        let changing = File::open(folder.join("entry0"))?;
        let asked_again = format!("A list of {entries} entries, asked for again and again");
        let anew = format!("A list of {entries} entries, one of which changes before each request");
        let mut cost = Table::new(asked_again, "server CPU in ms a list", &[]);
        let mut cost_anew = Table::new(anew.clone(), "server CPU in ms a list", &[]);
        let mut longest = Table::new(
            anew,
            "the longest turn of the loop in ms, by the bounds of the histogram in /metrics, without requests \
             during which the loop's thread had to wait for its core",
            &[Target {
                of: "carafe",
                against: Against::Nothing,
                at_most: LONGEST_TURN_S * 1e3,
            }],
        );
        for _ in 0..bench.rounds {
            for &peer in PEERS {
                let contestant = Contestant::over_http(peer);
                let Some(server) = bench.start_one(contestant, Need::Lists, &content)? else {
                    continue;
                };
                let told = |error| format!("{}: {error}", peer.label());
                let same = cpu_ms(bench, &server, || Ok(())).map_err(told)?;
                cost.push(&peer.label(), same);
                let touch = || Ok(changing.set_modified(SystemTime::now())?);
                let anew = cpu_ms(bench, &server, touch).map_err(told)?;
                cost_anew.push(&peer.label(), anew);
                if let Some(metrics) = server.metrics()? {
                    move_helpers(server.pid()?, bench.place.cores.load)?;
                    let turn_s = longest_turn_s(bench, &server, metrics, touch).map_err(told)?;
                    if let Some(turn_s) = turn_s {
                        longest.push(&peer.label(), turn_s * 1e3);
                    }
                }
            }
        }
        tables.extend([cost, cost_anew, longest]);
    }
    fs::remove_dir_all(&folder)?;
    Ok(tables)
}

/// A list after the other, until the turn is over. `change` is called before each.
fn cpu_ms(bench: &Bench, server: &Server, change: impl Fn() -> Result<()>) -> Result<f64> {
    // A folder is watched once it was asked for again.
    for _ in 0..3 {
        get(server.address, &format!("/{FOLDER}/"))?;
    }
    let (before, began) = (cpu_time(server.pid()?)?, Instant::now());
    let mut lists = 0.0;
    while began.elapsed() < bench.turn {
        change()?;
        get(server.address, &format!("/{FOLDER}/"))?;
        lists += 1.0;
    }
    let cpu = cpu_time(server.pid()?)? - before;
    Ok(cpu.as_secs_f64() * 1e3 / lists)
}

/// The longest turn while lists are made, to the bound of its bucket. While another thread has the loop's core
/// a turn takes as long as that one likes, so such requests don't count: `None` if all were.
fn longest_turn_s(
    bench: &Bench,
    server: &Server,
    metrics: SocketAddrV4,
    change: impl Fn() -> Result<()>,
) -> Result<Option<f64>> {
    let (began, pid) = (Instant::now(), server.pid()?);
    let mut longest = None::<f64>;
    while began.elapsed() < bench.turn {
        let (before, waited_before) = (turns(metrics)?, waited(pid)?);
        change()?;
        get(server.address, &format!("/{FOLDER}/"))?;
        let (after, waited) = (turns(metrics)?, waited(pid)? - waited_before);
        if waited < WAITED_MAX {
            let turn = longest_s(&before, &after);
            longest = Some(longest.map_or(turn, |longest| longest.max(turn)));
        }
    }
    Ok(longest)
}

/// How many turns took no longer than each of the histogram's bounds, in seconds.
fn turns(metrics: SocketAddrV4) -> Result<Vec<(f64, u64)>> {
    let page = get(metrics, "/metrics")?;
    let buckets = page.lines().filter_map(|line| {
        let bucket = line.strip_prefix("carafe_loop_turn_duration_seconds_bucket{le=\"");
        bucket?.split_once("\"} ")
    });
    let parsed = buckets.map(|(bound, count)| {
        let bound = bound.trim_start_matches('+').parse()?;
        Ok((bound, count.parse()?))
    });
    parsed.collect()
}

/// The bound of the last bucket that a turn between these two looks fell into.
fn longest_s(before: &[(f64, u64)], after: &[(f64, u64)]) -> f64 {
    let new = before
        .iter()
        .zip(after)
        .map(|(old, new)| (new.0, new.1 - old.1));
    let all = new.clone().next_back().map_or(0, |(_, count)| count);
    let mut bounds = new.skip_while(|&(_, count)| count < all);
    bounds.next().map_or(0.0, |(bound, _)| bound)
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
