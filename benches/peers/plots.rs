//! How the servers compare as something grows: the file, the clients, the crowd.

use carafe::soak::plot::{Axis, Plot, Shape};

use crate::Result;
use crate::bench::{Bench, Contestant};
use crate::load::Protocol;
use crate::servers::{Need, Peer};
use crate::table::median;
use crate::{crowd, idle};

/// A plot has no more rounds than this: it has many points.
const ROUNDS_MAX: usize = 3;

/// Who is drawn: its line's class and its name.
const DRAWN: &[(Peer, &str, &str)] = &[
    (Peer::Carafe, "first", "carafe"),
    (Peer::Nginx, "second", "nginx"),
    (Peer::Lighttpd, "third", "lighttpd"),
];

/// From here on a file is large: nginx does better with sendfile.
const LARGE_BYTES: u64 = 32 << 10;

/// A picture: its file's name and what it shows.
pub type Picture = (&'static str, Plot);

/// Figures of one server: where on the horizontal axis, and how much.
type Points = Vec<(f64, Option<f64>)>;

/// What a plot measures of one server at one point; `None` where there is no such thing.
type Figure<'a> = &'a dyn Fn(Contestant, u64) -> Result<Option<f64>>;

/// All plots of the page.
pub fn all(bench: &Bench) -> Result<Vec<Picture>> {
    Ok(vec![
        cpu_by_size(bench)?,
        throughput(bench)?,
        latency(bench)?,
        memory(bench)?,
    ])
}

/// Medians at each point, in turns: all servers at a point, then the next point.
fn medians(
    rounds: usize,
    points: &[u64],
    protocol: Option<Protocol>,
    figure: Figure<'_>,
) -> Result<Vec<Points>> {
    let mut lines = vec![Points::new(); DRAWN.len()];
    for &point in points {
        let mut values = vec![Vec::new(); DRAWN.len()];
        for _ in 0..rounds.min(ROUNDS_MAX) {
            for (values, &(peer, ..)) in values.iter_mut().zip(DRAWN) {
                let contestant = match protocol {
                    Some(protocol) => Contestant::by(peer, protocol),
                    None => Contestant::of(peer),
                };
                values.extend(figure(contestant, point)?);
            }
        }
        for (line, values) in lines.iter_mut().zip(values) {
            let value = (!values.is_empty()).then(|| median(&values));
            line.push((point as f64, value));
        }
    }
    Ok(lines)
}

/// The least and the greatest of all.
fn range(lines: &[Points]) -> (f64, f64) {
    let values = || lines.iter().flatten().filter_map(|(_, value)| *value);
    let least = values().fold(f64::INFINITY, f64::min);
    (least, values().fold(least, f64::max))
}

fn marks(lines: Vec<Points>) -> Vec<(&'static str, &'static str, Shape)> {
    let drawn = lines.into_iter().zip(DRAWN);
    drawn
        .map(|(line, &(_, class, label))| (class, label, Shape::Line(line)))
        .collect()
}

fn cpu_by_size(bench: &Bench) -> Result<Picture> {
    let figure = |contestant: Contestant, size: u64| {
        let need = match size {
            LARGE_BYTES.. => Need::Large,
            _ => Need::Small,
        };
        let content = bench.file(&format!("size{size}"), size)?;
        let Some(server) = bench.start_one(contestant, need, &content)? else {
            return Ok(None);
        };
        let measured = bench.measure(&server, contestant.protocol(), &content, 64)?;
        Ok(Some(measured.cpu_us() / measured.tally.downloads as f64))
    };
    let sizes: Vec<_> = (0..=5).map(|power| 1024 << (2 * power)).collect();
    let lines = medians(bench.rounds, &sizes, None, &figure)?;
    let (least, greatest) = range(&lines);
    let plot = Plot {
        title: "Server CPU per download, by file size",
        note: "us a download; one connection each, 64 clients".into(),
        x: Axis::log(1024.0, 1_048_576.0, plain).labelled(&sizes, bytes),
        y: Axis::log(least, greatest, plain),
        marks: marks(lines),
    };
    Ok(("cpu-by-size.svg", plot))
}

fn throughput(bench: &Bench) -> Result<Picture> {
    let content = bench.file("1k", 1024)?;
    let figure = |contestant: Contestant, clients: u64| {
        if idle::at_most(clients, contestant.peer) < clients {
            return Ok(None);
        }
        let Some(server) = bench.start_one(contestant, Need::Kept, &content)? else {
            return Ok(None);
        };
        let clients = usize::try_from(clients)?;
        let measured = bench.measure(&server, Protocol::KeepAlive, &content, clients)?;
        let tally = measured.tally;
        let rate = tally.downloads as f64 / tally.elapsed.as_secs_f64();
        Ok(Some(rate / 1000.0))
    };
    let clients = [1, 10, 100, 1_000, 5_000, 10_000];
    let lines = medians(bench.rounds, &clients, Some(Protocol::KeepAlive), &figure)?;
    let plot = Plot {
        title: "Throughput, by connections",
        note: "1000 requests a second; 1 KiB over HTTP keep-alive, one client core".into(),
        x: Axis::log(1.0, 10_000.0, plain),
        y: Axis::whole(range(&lines).1, plain),
        marks: marks(lines),
    };
    Ok(("throughput-by-connections.svg", plot))
}

fn latency(bench: &Bench) -> Result<Picture> {
    let (small, bulk) = (
        bench.file("1k", 1024)?,
        bench.file("bulk", crowd::BULK_BYTES)?,
    );
    let figure = |contestant: Contestant, readers: u64| {
        let Some(server) = bench.start_one(contestant, Need::Large, &bulk)? else {
            return Ok(None);
        };
        let readers = usize::try_from(readers)?;
        let beside = crowd::beside(bench, &server, contestant, &small, &bulk, readers)?;
        Ok(Some(beside.small.percentile_ms(99.0)))
    };
    let readers = [1, 4, 16, 32, 64];
    let lines = medians(1, &readers, None, &figure)?;
    let (least, greatest) = range(&lines);
    let plot = Plot {
        title: "Latency of a small download, by bulk readers beside it",
        note: "p99 in ms; 1 KiB, one connection each".into(),
        x: Axis::log(1.0, 64.0, plain).labelled(&readers, plain),
        y: Axis::log(least, greatest, plain),
        marks: marks(lines),
    };
    Ok(("latency-under-bulk.svg", plot))
}

fn memory(bench: &Bench) -> Result<Picture> {
    let content = bench.file("1k", 1024)?;
    let figure = |contestant: Contestant, count: u64| {
        if idle::at_most(count, contestant.peer) < count {
            return Ok(None);
        }
        let memory = idle::measure(bench, contestant, &content, count)?;
        Ok(memory.map(|memory| memory.held / 1024.0))
    };
    let counts = [0, 1_000, 3_000, 6_000, 9_000, 12_000, 15_000];
    let most = idle::at_most(counts[6], Peer::Carafe);
    let counts = counts.map(|count| count.min(most));
    let lines = medians(1, &counts, None, &figure)?;
    let plot = Plot {
        title: "Memory, by idle connections",
        note: "resident KiB beyond those of the idle server".into(),
        x: Axis::whole(most as f64, plain),
        y: Axis::whole(range(&lines).1, plain),
        marks: marks(lines),
    };
    Ok(("memory-by-connections.svg", plot))
}

fn plain(value: f64) -> String {
    format!("{value}")
}

fn bytes(value: f64) -> String {
    match value {
        1_048_576.0.. => format!("{} MiB", value / 1_048_576.0),
        _ => format!("{} KiB", value / 1024.0),
    }
}
