//! Carafe beside other servers, in one run on one machine: `cargo bench --bench peers`.
//!
//! The servers run on one core and the load on another; they take turns, round by round; what is
//! judged is ratios. Nothing is installed: who is not on the machine is left out, and said so.

mod bench;
mod cold;
mod content;
mod crowd;
mod growth;
mod idle;
mod lists;
mod load;
mod minimal;
mod page;
mod picture;
mod plots;
mod processes;
mod rows;
mod servers;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use carafe::descriptors::raise_descriptor_limit;
use clap::Parser;

use bench::{Bench, Contestant};
use content::Maker;
use load::Load;
use minimal::Mode;
use processes::Cores;
use rows::ROWS;
use servers::{Need, Peer, Place};

/// What can go wrong in a bench ends it with a line.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The argument that makes this program the minimal loop.
pub const MINIMAL: &str = "--minimal-loop";

/// Carafe beside other servers.
#[derive(Debug, Parser)]
struct Args {
    /// Only rows whose name contains one of these
    rows: Vec<String>,

    /// How often each server has its turn
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,

    /// How long a turn is
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    seconds: f64,

    /// The size of the largest file, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    big: u64,

    /// Few and short turns: whether it works, and roughly how it stands
    #[arg(long)]
    quick: bool,

    /// Another build of carafe, to be measured in the same turns
    #[arg(long, value_name = "PROGRAM")]
    before: Option<PathBuf>,

    /// The folder to make files in [default: below the build's]
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,

    /// All rows and the plots, into docs/performance.md
    #[arg(long, conflicts_with = "rows")]
    write: bool,

    /// Names of the rows, and nothing else
    #[arg(long)]
    list: bool,

    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().collect();
    let done = match &arguments[..] {
        [_, flag, mode, file] if flag == MINIMAL => minimal::serve(mode, file.as_ref()),
        // `cargo test --benches` asks whether it works, not how fast it is.
        all if !all.iter().any(|argument| argument == "--bench") => smoke(),
        _ => run(&Args::parse()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let asked = |key: &str| args.rows.is_empty() || args.rows.iter().any(|row| key.contains(row));
    if args.list {
        ROWS.iter().for_each(|row| println!("{}", row.key));
        return Ok(());
    }
    let folder = tempfile::Builder::new().prefix("peers").tempdir_in(
        args.folder
            .as_deref()
            .unwrap_or(env!("CARGO_TARGET_TMPDIR").as_ref()),
    )?;
    let bench = prepare(args, folder.path())?;
    let (mut tables, mut failed) = (Vec::new(), Vec::new());
    for row in ROWS.iter().filter(|row| asked(row.key)) {
        match (row.run)(&bench) {
            Ok(of_row) => {
                of_row.iter().for_each(|table| println!("{}", table.text()));
                tables.extend(of_row);
            }
            Err(error) if load::IS_INTERRUPTED.load(Ordering::Relaxed) => return Err(error),
            // The other rows are as good as they were.
            Err(error) => {
                eprintln!("peers: {}: {error}", row.key);
                failed.push(row.key);
            }
        }
    }
    if args.write {
        page::write(&bench, &tables, &failed, &plots::all(&bench)?)?;
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(format!("not measured: {}", failed.join(", ")).into())
    }
}

fn prepare(args: &Args, folder: &std::path::Path) -> Result<Bench> {
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, load::IS_INTERRUPTED.clone())?;
    }
    let place = Place {
        root: folder.join("root"),
        work: folder.join("work"),
        carafe: env!("CARGO_BIN_EXE_carafe").into(),
        before: args.before.clone(),
        cores: Cores::choose()?,
    };
    for folder in [&place.root, &place.work] {
        std::fs::create_dir(folder)?;
    }
    let _ = raise_descriptor_limit();
    if place.cores.server == place.cores.load {
        println!("there is one core only: servers and load share it");
    }
    processes::pin(place.cores.load)?;
    Ok(Bench {
        rounds: if args.quick { 3 } else { args.rounds.max(1) },
        turn: Duration::from_secs_f64(if args.quick { 0.5 } else { args.seconds }),
        big_bytes: args.big << 20,
        place,
        maker: Maker::new(),
        missing: Default::default(),
    })
}

/// Some downloads of carafe and of the yardstick: every byte is right. It counts downloads, not
/// time, so that a machine that does other things can't fail it.
fn smoke() -> Result<()> {
    const DOWNLOADS: u64 = 100;
    let folder = tempfile::tempdir()?;
    let bench = prepare(&Args::parse_from(["peers"]), folder.path())?;
    let content = bench.file("1k", 1024)?;
    let contestants = [Peer::Carafe, Peer::Minimal(Mode::More)].map(Contestant::of);
    for (contestant, server) in bench.start(&contestants, Need::Small, &content)? {
        let mut load = Load::begin(server.address, contestant.protocol(), &content, 8)?;
        let began = Instant::now();
        let mut downloads = 0;
        while downloads < DOWNLOADS {
            if began.elapsed() > load::PATIENCE {
                return Err(format!("{}: {downloads} downloads", contestant.label()).into());
            }
            downloads += load.run(Duration::from_millis(20))?.downloads;
        }
        println!("{}: as it should be", contestant.label());
    }
    Ok(())
}
