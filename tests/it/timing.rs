//! Where the time of a reply went: each cause that is injected is the phase with the most of it, and the
//! phases add up to the whole.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::common::{
    Carafe, LARGE_BYTES, connect, connect_narrow, exchange, pattern, read_to_end, root_with, skip,
    sparse_file, until,
};
use crate::gated::{Asked, Gated, NAME};
use crate::scrape::{get, metrics_of};

/// For how long a cause lasts: much longer than all else takes.
const HELD: Duration = Duration::from_millis(400);

/// A server of `small`, `middle` (4 MiB) and `large`, with an access log as JSON.
struct Scene {
    logs: TempDir,
    root: TempDir,
    carafe: Carafe,
}

impl Scene {
    fn new(flags: &[&str]) -> Self {
        let (root, logs) = (
            root_with(&[("small", b"small")]),
            tempfile::tempdir().unwrap(),
        );
        fs::write(root.path().join("middle"), pattern(1, 4 << 20)).unwrap();
        sparse_file(&root.path().join("large"), LARGE_BYTES as u64);
        let carafe = serve(root.path(), logs.path(), flags);
        Self { logs, root, carafe }
    }

    fn ask(&self, name: &str) -> TcpStream {
        ask(connect(self.carafe.addr()), name)
    }

    /// Begins the log anew.
    fn clear(&self) {
        fs::write(self.logs.path().join("log"), "").unwrap();
    }

    /// The line of the last reply with this target.
    fn line(&self, target: &str) -> Value {
        line(self.logs.path(), target)
    }
}

fn serve(root: &Path, logs: &Path, flags: &[&str]) -> Carafe {
    let log = logs.join("log");
    let flags = [
        &[
            "--access-log",
            log.to_str().unwrap(),
            "--log-format",
            "json",
        ],
        flags,
    ]
    .concat();
    Carafe::serve(root, &flags)
}

fn ask(mut stream: TcpStream, name: &str) -> TcpStream {
    let head = format!("GET /{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

fn line(logs: &Path, target: &str) -> Value {
    let mut found = None;
    until("the reply is logged", || {
        let text = fs::read_to_string(logs.join("log")).unwrap();
        let lines = text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        let mut lines = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
        found = lines.rfind(|line| line["target"] == target);
        found.is_some()
    });
    found.unwrap()
}

/// The phase with the most of a reply's time, and how much that is. All together are the whole.
#[track_caller]
fn longest(line: &Value) -> (String, Duration) {
    let phases = line["phases_seconds"].as_object().unwrap();
    let times = phases
        .iter()
        .map(|(name, time)| (name.clone(), time.as_f64().unwrap()));
    let (sum, whole) = (
        times.clone().map(|(_, time)| time).sum::<f64>(),
        line["duration_seconds"].as_f64().unwrap(),
    );
    assert!((sum - whole).abs() <= whole / 100.0, "{line}");
    let (name, time) = times.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    (name, Duration::from_secs_f64(time))
}

#[track_caller]
fn assert_longest(line: &Value, name: &str, at_least: Duration) {
    let (found, time) = longest(line);
    assert!(found == name && time >= at_least, "{line}");
}

#[test]
fn a_client_that_reads_slowly_is_named() {
    // The kernel counts in ticks.
    let line = read_slowly(&Scene::new(&[]));
    assert_longest(&line, "client", HELD * 9 / 10);
}

fn read_slowly(scene: &Scene) -> Value {
    let mut client = ask(connect_narrow(scene.carafe.addr(), 64 * 1024), "large");
    client.read_exact(&mut [0; 100]).unwrap();
    thread::sleep(HELD);
    read_to_end(&mut client);
    scene.line("/large")
}

#[test]
fn a_client_by_a_unix_socket_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let root = root_with(&[("large", pattern(1, 4 << 20))]);
    let log = folder.path().join("log");
    let flags = [
        "--access-log",
        log.to_str().unwrap(),
        "--log-format",
        "json",
    ];
    let _carafe = Carafe::serve_by_unix_socket(root.path(), &socket, &flags);
    let mut client = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    client.write_all(b"large\n").unwrap();
    client.read_exact(&mut [0; 100]).unwrap();
    thread::sleep(HELD);
    client.read_to_end(&mut Vec::new()).unwrap();
    // The server may have sent for a while after the first bytes.
    assert_longest(&line(folder.path(), "large"), "client", HELD * 9 / 10);
}

#[test]
fn a_disk_that_takes_its_time_is_named() {
    let Some(slow) = SlowDisk::new() else { return };
    for asked in [Asked::Open, Asked::Read] {
        assert_longest(&slow.wait_for(asked), "disk", HELD);
    }
}

/// A server of a file whose disk waits at will.
struct SlowDisk {
    gated: Gated,
    scene: Scene,
}

impl SlowDisk {
    /// `None`, said aloud, where that can't be.
    fn new() -> Option<Self> {
        let scene = Scene::new(&[]);
        let at = scene.root.path().join("slow");
        fs::create_dir(&at).unwrap();
        match Gated::mount(&at, pattern(1, 1 << 20)) {
            Ok(gated) => Some(Self { gated, scene }),
            Err(error) => {
                skip("fuse", &error.to_string());
                None
            }
        }
    }

    fn wait_for(&self, asked: Asked) -> Value {
        let (name, gates) = (format!("slow/{NAME}"), &self.gated.gates);
        self.scene.clear();
        gates.shut(asked);
        let mut client = self.scene.ask(&name);
        gates.wait_for(asked);
        thread::sleep(HELD);
        gates.open(asked);
        read_to_end(&mut client);
        drop(client);
        self.scene.line(&format!("/{name}"))
    }
}

#[test]
fn too_few_descriptors_are_named() {
    let line = run_short(&Scene::new(&FEW));
    assert_longest(&line, "descriptor", HELD);
}

const FEW: [&str; 4] = ["--open-files", "1", "--cache", "0"];

fn run_short(scene: &Scene) -> Value {
    let mut holds = ask(connect_narrow(scene.carafe.addr(), 64 * 1024), "large");
    holds.read_exact(&mut [0; 100]).unwrap();
    let mut waits = scene.ask("middle");
    scene.carafe.wait_for_log("no descriptor is free");
    thread::sleep(HELD);
    drop(holds);
    read_to_end(&mut waits);
    // Its reply is over when its connection is: the server waits for the client's FIN.
    drop(waits);
    scene.line("/middle")
}

/// While the process stands, those who ask and those who take what they asked for wait for the loop.
#[test]
fn a_process_that_was_stopped_is_named() {
    let (stood, [small, large]) = stop_a_while(&Scene::new(&[]));
    // What was in the buffers went meanwhile.
    assert_longest(&large, "loop", HELD / 2);
    let (name, time) = longest(&small);
    assert_eq!(name, "loop");
    assert!(
        time >= HELD / 2 && time <= stood + HELD,
        "{time:?} of {stood:?}"
    );
}

fn stop_a_while(scene: &Scene) -> (Duration, [Value; 2]) {
    let mut large = ask(connect_narrow(scene.carafe.addr(), 64 * 1024), "large");
    large.read_exact(&mut [0; 100]).unwrap();
    let stopped = Instant::now();
    scene.carafe.signal(Signal::STOP);
    until("it stands", || scene.carafe.is_stopped());
    let mut small = scene.ask("small");
    let reader = thread::spawn(move || read_to_end(&mut large));
    thread::sleep(HELD);
    let stood = stopped.elapsed();
    scene.carafe.signal(Signal::CONT);
    read_to_end(&mut small);
    drop(small);
    reader.join().unwrap();
    (stood, ["/small", "/large"].map(|target| scene.line(target)))
}

#[test]
fn answers_tell_clients_where_the_time_went() {
    let scene = Scene::new(&["--server-timing"]);
    for name in ["small", "missing"] {
        let head = String::from_utf8(read_to_end(&mut scene.ask(name))).unwrap();
        let field = head
            .lines()
            .find_map(|line| line.strip_prefix("Server-Timing: "));
        let field = field.unwrap_or_else(|| panic!("{head}"));
        for metric in field.split(", ") {
            let (phase, millis) = metric.split_once(";dur=").unwrap();
            assert!(["loop", "lookup", "disk"].contains(&phase), "{field}");
            assert!(millis.parse::<f64>().unwrap() >= 0.0, "{field}");
        }
        assert!(field.contains("lookup;dur="), "{field}");
    }
    // A name is answered with the file alone.
    assert_eq!(exchange(scene.carafe.addr(), b"small\n").unwrap(), b"small");
    let silent = Carafe::serve(scene.root.path(), &[]);
    let answer = read_to_end(&mut ask(connect(silent.addr()), "small"));
    assert!(!String::from_utf8(answer).unwrap().contains("Server-Timing"));
}

/// Of requests that come together each waits for those before it, and each has times of its own.
#[test]
fn pipelined_replies_have_times_of_their_own() {
    let scene = Scene::new(&["--metrics", "127.0.0.1:0"]);
    let mut client = connect(scene.carafe.addr());
    let one = |name: &str| format!("GET /{name} HTTP/1.1\r\nHost: x\r\n\r\n");
    let all = ["small", "middle", "missing"].map(one).concat();
    client.write_all(all.as_bytes()).unwrap();
    read_to_end(&mut ask(client, "small"));
    for target in ["/middle", "/missing", "/small"] {
        longest(&scene.line(target));
    }
    let (_, page) = get(metrics_of(&scene.carafe), "/metrics");
    let counted = "carafe_reply_phase_duration_seconds_count{phase=\"lookup\"} 4";
    assert!(page.contains(counted), "{page}");
}

/// Others who load much share the loop with it, whatever else this machine does.
fn load_beside_others(scene: &Scene) -> Value {
    let (is_over, loaded) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let mut buffer = vec![0; 1 << 20];
                while !is_over.load(Ordering::Relaxed) {
                    let mut other = scene.ask("large");
                    while other.read(&mut buffer).unwrap() > 0 && !is_over.load(Ordering::Relaxed) {
                        loaded.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        until("they load", || loaded.load(Ordering::Relaxed) > 100);
        read_to_end(&mut scene.ask("middle"));
        is_over.store(true, Ordering::Relaxed);
    });
    scene.line("/middle")
}

#[test]
#[ignore = "five minutes, and a machine that does nothing else: what the readers' own threads take is the client's time"]
fn each_cause_is_named_in_99_of_100_runs() {
    let (scene, few, slow) = (Scene::new(&[]), Scene::new(&FEW), SlowDisk::new());
    let readers = || vec![load_beside_others(&scene)];
    let mut causes: Vec<(_, _, &dyn Fn() -> Vec<Value>)> = vec![("bulk readers", "loop", &readers)];
    let (reader, short) = (|| vec![read_slowly(&scene)], || vec![run_short(&few)]);
    causes.push(("a slow reader", "client", &reader));
    causes.push(("few descriptors", "descriptor", &short));
    let stop = || stop_a_while(&scene).1.to_vec();
    causes.push(("SIGSTOP", "loop", &stop));
    let disk = || {
        let opens_and_reads = [Asked::Open, Asked::Read];
        let slow = slow.iter();
        slow.flat_map(|slow| opens_and_reads.map(|asked| slow.wait_for(asked)))
            .collect()
    };
    causes.push(("a slow disk", "disk", &disk));
    let mut counts = Vec::new();
    for (cause, phase, run) in causes {
        let is_named = |_: &u8| {
            for scene in [&scene, &few] {
                scene.clear();
            }
            run().iter().all(|line| longest(line).0 == phase)
        };
        let count = (0..100).filter(is_named).count();
        eprintln!("{cause}: {count} of 100");
        counts.push((cause, count));
    }
    assert!(counts.iter().all(|&(_, count)| count >= 99), "{counts:?}");
}
