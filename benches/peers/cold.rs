//! Downloads from memory beside downloads from a slow disk: does the server wait for the disk with
//! everybody? The disk is slow for the server alone, by a control group of its own.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

use rustix::fs::{major, minor, stat};

use crate::Result;
use crate::bench::{Bench, Contestant, WARM_UP};
use crate::content::Content;
use crate::load::{Load, Tally};
use crate::servers::{Need, Peer, Server};
use crate::table::{Against, Table, Target};

/// Bytes a second that the server may read.
const DISK_BYTES_PER_S: u64 = 4_000_000;

/// Clients of the file in memory.
const HOT_CLIENTS: usize = 16;

/// Clients of the disk, each of a file of its own.
const COLD_CLIENTS: usize = 4;

/// Longer than a turn takes to read.
const COLD_BYTES: u64 = 32 << 20;

/// How often a turn is tried: the kernel drops pages from memory if it can, and is not told to.
const ATTEMPTS: usize = 3;

/// How often a cold client looks whether the turn is over.
const LOOK: Duration = Duration::from_millis(50);

const CONTESTANTS: &[Contestant] = &[
    Contestant::of(Peer::Carafe),
    Contestant::of(Peer::Before),
    Contestant::of(Peer::Nginx),
    Contestant::of(Peer::NginxThreads),
    Contestant::of(Peer::Lighttpd),
];

/// Hot downloads, alone and beside cold ones.
pub fn row(bench: &Bench) -> Result<Vec<Table>> {
    let title = format!(
        "{HOT_CLIENTS} clients of 1 KiB in memory beside {COLD_CLIENTS} of a disk throttled to 4 MB/s"
    );
    let target = Target {
        of: "carafe, beside",
        against: Against::Best(&["carafe, alone"]),
        at_most: 1.5,
    };
    let mut table = Table::new(title, "p99 of the small downloads in ms", &[target]);
    let throttle = match Throttle::new(&bench.place.root) {
        Ok(throttle) => throttle,
        Err(error) => {
            println!("cold: skipped, as no disk can be throttled here: {error}");
            return Ok(Vec::new());
        }
    };
    let hot = bench.file("1k", 1024)?;
    let names = (0..COLD_CLIENTS).map(|number| format!("cold{number}"));
    let cold: Vec<_> = names
        .map(|name| bench.file(&name, COLD_BYTES))
        .collect::<Result<_>>()?;
    for _ in 0..bench.rounds {
        for &contestant in CONTESTANTS {
            let label = contestant.label();
            let turn = || attempt(bench, &throttle, contestant, &hot, &cold);
            let mut measured = turn();
            for _ in 1..ATTEMPTS {
                let Err(error) = &measured else { break };
                println!("cold: {label} once more: {error}");
                measured = turn();
            }
            let measured = measured.map_err(|error| format!("{label}: {error}"))?;
            let Some((alone, beside)) = measured else {
                continue;
            };
            table.push(&format!("{label}, alone"), alone.percentile_ms(99.0));
            table.push(&format!("{label}, beside"), beside.percentile_ms(99.0));
        }
    }
    Ok(vec![table])
}

/// A turn of a server of its own: one that stood still would stand still in the next turn. Nothing if it isn't on the
/// machine.
fn attempt(
    bench: &Bench,
    throttle: &Throttle,
    contestant: Contestant,
    hot: &Content,
    cold: &[Content],
) -> Result<Option<(Tally, Tally)>> {
    let Some(server) = bench.start_one(contestant, Need::Cold, hot)? else {
        return Ok(None);
    };
    throttle.add(&server)?;
    measure(bench, &server, contestant, hot, cold).map(Some)
}

fn measure(
    bench: &Bench,
    server: &Server,
    contestant: Contestant,
    hot: &Content,
    cold: &[Content],
) -> Result<(Tally, Tally)> {
    let protocol = contestant.protocol();
    let mut load = Load::begin(server.address, protocol, hot, HOT_CLIENTS)?;
    load.run(WARM_UP)?;
    let alone = load.run(bench.turn)?;
    for content in cold {
        content.make_cold(&bench.place.root)?;
    }
    let is_over = AtomicBool::new(false);
    let (beside, cold_bytes) = scope(|scope| {
        let clients: Vec<_> = cold
            .iter()
            .map(|content| {
                let request = protocol.request(&content.name);
                scope.spawn(|| cold_client(server.address, request, &is_over))
            })
            .collect();
        sleep(WARM_UP);
        let beside = load.run(bench.turn).and_then(|mut tally| {
            // Who waits still has waited.
            load.outstanding(&mut tally)?;
            Ok(tally)
        });
        is_over.store(true, Ordering::Relaxed);
        let bytes = clients.into_iter().map(|client| {
            let joined = client.join();
            joined.unwrap_or_else(|_| Err("a cold client panicked".into()))
        });
        (beside, bytes.sum::<Result<u64>>())
    });
    let could_be_memory = 4 * DISK_BYTES_PER_S * (bench.turn + WARM_UP).as_millis() as u64 / 1000;
    if cold_bytes? > could_be_memory {
        return Err("the disk was not slow: the files were in memory".into());
    }
    Ok((alone, beside?))
}

/// Reads until the turn is over; how many bytes came.
fn cold_client(address: SocketAddrV4, request: Vec<u8>, is_over: &AtomicBool) -> Result<u64> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LOOK))?;
    stream.write_all(&request)?;
    let mut bytes = 0;
    let mut buffer = [0; 64 * 1024];
    while !is_over.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(format!("a cold download ended after {bytes} bytes").into()),
            Ok(count) => bytes += count as u64,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}

/// A control group whose processes read slowly from one disk.
struct Throttle {
    group: PathBuf,
}

impl Throttle {
    /// For the disk that holds this folder.
    fn new(folder: &Path) -> Result<Self> {
        let disk = disk_of(folder)?;
        let name = format!("carafe-peers-{}", std::process::id());
        let (one, two) = (
            Path::new("/sys/fs/cgroup/blkio"),
            Path::new("/sys/fs/cgroup"),
        );
        let (parent, file, limit) = if one.is_dir() {
            let limit = format!("{disk} {DISK_BYTES_PER_S}");
            (one, "blkio.throttle.read_bps_device", limit)
        } else {
            fs::write(two.join("cgroup.subtree_control"), "+io")?;
            (two, "io.max", format!("{disk} rbps={DISK_BYTES_PER_S}"))
        };
        let group = parent.join(name);
        fs::create_dir(&group).map_err(|error| format!("{}: {error}", group.display()))?;
        let this = Self { group };
        fs::write(this.group.join(file), limit).map_err(|error| format!("{file}: {error}"))?;
        Ok(this)
    }

    fn add(&self, server: &Server) -> Result<()> {
        for pid in server.pids() {
            fs::write(self.group.join("cgroup.procs"), pid.to_string())?;
        }
        Ok(())
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        // A process that was ended leaves its group a moment later.
        for _ in 0..100 {
            if fs::remove_dir(&self.group).is_ok() {
                return;
            }
            sleep(LOOK);
        }
        eprintln!("peers: {} is left behind", self.group.display());
    }
}

/// The whole disk below a folder, as `MAJOR:MINOR`: partitions can't be throttled.
fn disk_of(folder: &Path) -> Result<String> {
    let device = stat(folder)?.st_dev;
    let number = format!("{}:{}", major(device), minor(device));
    let block = fs::canonicalize(Path::new("/sys/dev/block").join(&number))
        .map_err(|_| format!("{} is on no disk (try --folder)", folder.display()))?;
    if !block.join("partition").exists() {
        return Ok(number);
    }
    let disk = block.parent().ok_or("a partition of nothing")?;
    Ok(fs::read_to_string(disk.join("dev"))?.trim().to_owned())
}
