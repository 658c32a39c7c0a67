//! The rows of the comparison.

use crate::bench::{Bench, Contestant};
use crate::content::Content;
use crate::load::Protocol;
use crate::minimal::Mode;
use crate::servers::{Logs, Need, Peer};
use crate::table::{Against, Table, Target};
use crate::{Result, cold, crowd, growth, idle, lists};

/// The server's CPU time is divided by this.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Per {
    /// A whole download.
    Download,
    /// 1,048,576 bytes received.
    Mebibyte,
}

/// A row: how it is called on the command line, and how it is measured.
pub struct Row {
    /// What the filter looks at.
    pub key: &'static str,
    /// Measures it.
    pub run: fn(&Bench) -> Result<Vec<Table>>,
}

/// All of them.
pub const ROWS: &[Row] = &[
    Row {
        key: "small",
        run: small,
    },
    Row {
        key: "kept",
        run: kept,
    },
    Row {
        key: "gathered",
        run: gathered,
    },
    Row {
        key: "site",
        run: site,
    },
    Row {
        key: "64k",
        run: medium,
    },
    Row {
        key: "1m",
        run: mebibyte,
    },
    Row {
        key: "1g",
        run: gibibyte,
    },
    Row {
        key: "bulk",
        run: crowd::row,
    },
    Row {
        key: "cold",
        run: cold::row,
    },
    Row {
        key: "idle",
        run: idle::row,
    },
    Row {
        key: "connections",
        run: growth::connections,
    },
    Row {
        key: "files",
        run: growth::files,
    },
    Row {
        key: "full",
        run: growth::full,
    },
    Row {
        key: "lists",
        run: lists::row,
    },
];

const PLAIN: Contestant = Contestant::of(Peer::Minimal(Mode::Plain));
const DEFERRED: Contestant = Contestant::of(Peer::Minimal(Mode::Deferred));
const MORE: Contestant = Contestant::of(Peer::Minimal(Mode::More));
/// One sendfile for all of the file, and one for as much as nginx takes at a time.
const WHOLE: Contestant = Contestant::of(Peer::Minimal(Mode::SendFile(usize::MAX)));
const PARTS: Contestant = Contestant::of(Peer::Minimal(Mode::SendFile(256 * 1024)));

/// What a log may cost, of what a request costs without one.
const fn log_target(of: &'static str) -> Target {
    Target {
        of,
        against: Against::Best(&["carafe"]),
        at_most: 1.1,
    }
}

const fn ratio(against: &'static [&'static str], at_most: f64) -> Target {
    Target {
        of: "carafe",
        against: Against::Best(against),
        at_most,
    }
}

/// CPU time of the servers in turn, in microseconds.
fn cpu(
    bench: &Bench,
    table: &mut Table,
    contestants: &[Contestant],
    need: Need,
    contents: &[Content],
    clients: usize,
    per: Per,
) -> Result<()> {
    let first = contents.first().ok_or("no file to ask for")?;
    let servers = bench.start(contestants, need, first)?;
    for _ in 0..bench.rounds {
        for (contestant, server) in &servers {
            let protocol = contestant.protocol();
            let measured = bench.measure_in_turn(server, protocol, contents, clients)?;
            let count = match per {
                Per::Download => measured.tally.downloads as f64,
                Per::Mebibyte => measured.tally.bytes as f64 / f64::from(1 << 20),
            };
            table.push(&contestant.label(), measured.cpu_us() / count);
        }
    }
    Ok(())
}

fn small(bench: &Bench) -> Result<Vec<Table>> {
    const LOOPS: &[&str] = &[
        "C loop, plain",
        "C loop, deferred accept",
        "C loop, deferred accept and MSG_MORE",
    ];
    let mut table = Table::new(
        "1 KiB, one connection each, 64 clients",
        "server CPU in us a download",
        &[
            ratio(LOOPS, 1.1),
            ratio(&["nginx"], 0.6),
            log_target("carafe, default log"),
            log_target("carafe, access log"),
        ],
    );
    let contestants = [
        Contestant::of(Peer::Carafe),
        Contestant::of(Peer::Carafe).logging(Logs::Default),
        Contestant::of(Peer::Carafe).logging(Logs::Access),
        Contestant::of(Peer::Before),
        Contestant::over_http(Peer::Carafe),
        PLAIN,
        DEFERRED,
        MORE,
        Contestant::of(Peer::Nginx),
        Contestant::of(Peer::Lighttpd),
        Contestant::of(Peer::Darkhttpd),
        Contestant::of(Peer::Tutorial),
    ];
    let content = bench.file("1k", 1024)?;
    cpu(
        bench,
        &mut table,
        &contestants,
        Need::Small,
        &[content],
        64,
        Per::Download,
    )?;
    Ok(vec![table])
}

fn kept(bench: &Bench) -> Result<Vec<Table>> {
    let mut table = Table::new(
        "1 KiB over HTTP keep-alive, 64 connections",
        "server CPU in us a request",
        &[
            ratio(&["lighttpd"], 0.9),
            ratio(&["nginx"], 0.75),
            ratio(&["C loop, kept alive"], 1.08),
            log_target("carafe, default log"),
            log_target("carafe, access log"),
            Target {
                of: "carafe, access log",
                against: Against::Best(&["nginx, access log"]),
                at_most: 0.95,
            },
        ],
    );
    let contestants = [
        (Peer::Carafe, Logs::Quiet),
        (Peer::Carafe, Logs::Default),
        (Peer::Carafe, Logs::Access),
        (Peer::Before, Logs::Quiet),
        (Peer::Minimal(Mode::KeepAlive), Logs::Quiet),
        (Peer::Nginx, Logs::Quiet),
        (Peer::Nginx, Logs::Access),
        (Peer::Lighttpd, Logs::Quiet),
        (Peer::Lighttpd, Logs::Access),
        (Peer::Darkhttpd, Logs::Quiet),
    ]
    .map(|(peer, logs)| Contestant::by(peer, Protocol::KeepAlive).logging(logs));
    let content = bench.file("1k", 1024)?;
    cpu(
        bench,
        &mut table,
        &contestants,
        Need::Kept,
        &[content],
        64,
        Per::Download,
    )?;
    Ok(vec![table])
}

/// What goes out with its head by one sendmsg.
fn gathered(bench: &Bench) -> Result<Vec<Table>> {
    let contestants = [Peer::Carafe, Peer::Before, Peer::Nginx, Peer::Lighttpd]
        .map(|peer| Contestant::by(peer, Protocol::KeepAlive));
    [16, 32]
        .into_iter()
        .map(|kib| {
            let title = format!("{kib} KiB over HTTP keep-alive, 64 connections");
            let unit = "server CPU in us a request";
            let mut table = Table::new(title, unit, &[ratio(&["nginx", "lighttpd"], 1.0)]);
            let content = bench.file(&format!("{kib}k"), kib << 10)?;
            let contents = [content];
            let (need, per) = (Need::Kept, Per::Download);
            cpu(bench, &mut table, &contestants, need, &contents, 64, per)?;
            Ok(table)
        })
        .collect()
}

/// What a page of the web loads, in KiB: style sheets, scripts, two pages, fonts, drawings, pictures and
/// a manifest, as HttpArena's static test has them.
const SITE_KIB: [u64; 20] = [
    8, 18, 25, 60, 200, 12, 22, 35, 200, 300, 55, 120, 18, 22, 15, 70, 6, 8, 45, 3,
];

fn site(bench: &Bench) -> Result<Vec<Table>> {
    let mut table = Table::new(
        "Twenty files of 3 to 300 KiB in turn, over HTTP keep-alive, 64 connections",
        "server CPU in us a request",
        &[ratio(&["nginx", "nginx, sendfile", "lighttpd"], 1.0)],
    );
    let names = (0..).map(|number| format!("site{number}"));
    let files = names.zip(SITE_KIB.map(|kib| kib << 10));
    let contents = bench.maker.make_all(&bench.place.root, files)?;
    let contestants = [
        Peer::Carafe,
        Peer::Before,
        Peer::Nginx,
        Peer::NginxSendfile,
        Peer::Lighttpd,
    ]
    .map(|peer| Contestant::by(peer, Protocol::KeepAlive));
    let (need, per) = (Need::Kept, Per::Download);
    cpu(bench, &mut table, &contestants, need, &contents, 64, per)?;
    Ok(vec![table])
}

fn medium(bench: &Bench) -> Result<Vec<Table>> {
    let mut table = Table::new(
        "64 KiB, one connection each, 64 clients",
        "server CPU in us a download",
        &[ratio(&["nginx"], 0.85)],
    );
    let contestants = [
        Contestant::of(Peer::Carafe),
        Contestant::of(Peer::Before),
        Contestant::over_http(Peer::Carafe),
        MORE,
        WHOLE,
        Contestant::of(Peer::Nginx),
        Contestant::of(Peer::Lighttpd),
        Contestant::of(Peer::Darkhttpd),
    ];
    let content = bench.file("64k", 64 << 10)?;
    cpu(
        bench,
        &mut table,
        &contestants,
        Need::Large,
        &[content],
        64,
        Per::Download,
    )?;
    Ok(vec![table])
}

fn mebibyte(bench: &Bench) -> Result<Vec<Table>> {
    let content = bench.file("1m", 1 << 20)?;
    large(
        bench,
        "1 MiB, one connection each, 64 clients",
        &content,
        64,
        1.0,
    )
}

fn gibibyte(bench: &Bench) -> Result<Vec<Table>> {
    let content = bench.file("big", bench.big_bytes)?;
    let title = format!("{} MiB, 1 client", bench.big_bytes >> 20);
    large(bench, &title, &content, 1, 0.95)
}

fn large(
    bench: &Bench,
    title: &str,
    content: &Content,
    clients: usize,
    at_most: f64,
) -> Result<Vec<Table>> {
    let targets = [ratio(&["nginx"], at_most)];
    let mut table = Table::new(title, "server CPU in us a MiB", &targets);
    let contestants = [
        Contestant::of(Peer::Carafe),
        Contestant::of(Peer::Before),
        Contestant::over_http(Peer::Carafe),
        WHOLE,
        PARTS,
        Contestant::of(Peer::Nginx),
        Contestant::of(Peer::Lighttpd),
        Contestant::of(Peer::Darkhttpd),
    ];
    cpu(
        bench,
        &mut table,
        &contestants,
        Need::Large,
        std::slice::from_ref(content),
        clients,
        Per::Mebibyte,
    )?;
    Ok(vec![table])
}
