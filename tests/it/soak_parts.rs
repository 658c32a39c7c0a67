//! `carafe soak --part` and `carafe soak merge`: several generators, one report. And `--hdr`, for other programs.

use std::fs;
use std::process::Command;

use jiff::Timestamp;
use serde_json::Value;

use crate::common::{Carafe, pattern, root_with, skip};
use crate::soaking::{Soak, Soaked, soak_words, word};

/// The parts of a run, which are begun at the same moment, and their reports' names.
fn parts(words: &str, of: u64) -> (tempfile::TempDir, Vec<Soaked>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let at = Timestamp::now().as_second() + 2;
    let running: Vec<_> = (1..=of)
        .map(|number| {
            let words = format!("{words} --part {number}/{of} --start-at {at} --seed 7");
            Soak::start(&words.split_whitespace().collect::<Vec<_>>())
        })
        .collect();
    let soaked: Vec<_> = running.into_iter().map(Soak::wait).collect();
    let files = soaked.iter().zip(1..).map(|(part, number)| {
        let file = folder.path().join(format!("{number}.json"));
        fs::write(&file, part.json.to_string()).unwrap();
        word(&file).to_owned()
    });
    let files = files.collect();
    (folder, soaked, files)
}

#[test]
fn three_parts_are_one_run() {
    let root = root_with(&[("body", &pattern(7, 1_000))]);
    let carafe = Carafe::serve(root.path(), &[]);
    for (load, model) in [("-c 7 -n 100", "closed"), ("--rate 100 -n 100", "open")] {
        let words = format!(
            "http://{}/body {load} --verify --fail-if errors>0",
            carafe.addr()
        );
        let (_folder, soaked, files) = parts(&words, 3);
        let started: Vec<_> = soaked.iter().map(Soaked::started).collect();
        assert_eq!(started, [34, 33, 33], "{model}");
        let merge = format!("merge {} --fail-if errors>0", files.join(" "));
        let whole = soak_words(&merge);
        whole.assert_pass();
        assert_eq!((whole.started(), whole.count("complete")), (100, 100));
        assert_eq!(whole.number("latency.total.count"), 100);
        assert_eq!(whole.at("load.model"), model);
        let max = soaked
            .iter()
            .map(|part| part.number("latency.total.max"))
            .max();
        assert_eq!(Some(whole.number("latency.total.max")), max);
        if model == "open" {
            assert_eq!(whole.at("load.rate_asked").as_f64(), Some(100.0));
        } else {
            assert_eq!(whole.number("load.clients"), 7);
        }
        let whole = soak_words(&format!("merge {} {}", files[0], files[2]));
        whole.assert_not_offered();
        soak_words(&format!("merge {} {}", files[0], files[0])).complaint();
    }
    soak_words("merge").complaint();
    let addr = carafe.addr();
    for bad in ["--part 4/3", "--part 3/3 -c 2", "--start-at soon"] {
        soak_words(&format!("{addr} body {bad}")).complaint();
    }
}

/// Reads an interval log, and tells its count, median, p99 and maximum.
const READER: &str = "
import sys
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
all = HdrHistogram(1, 24 * 3600 * 1000000, 3)
log = HistogramLogReader(sys.argv[1], all)
while log.add_next_interval_histogram(all): pass
print(all.get_total_count(), *(all.get_value_at_percentile(p) for p in (50, 99, 100)))
";

#[test]
fn another_implementation_reads_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let venv = Command::new("python3")
        .args(["-m", "venv"])
        .arg(at("venv"))
        .output();
    let pip = Command::new(at("venv/bin/pip"))
        .args(["-q", "install", "hdrhistogram"])
        .output();
    let is_there = [venv, pip]
        .iter()
        .all(|ran| ran.as_ref().is_ok_and(|ran| ran.status.success()));
    if !is_there {
        return skip("hdrhistogram", "PyPI's hdrhistogram can't be installed");
    }
    let root = root_with(&[("body", &pattern(7, 1_000))]);
    let carafe = Carafe::serve(root.path(), &[]);
    let log = at("log.hdr");
    let soaked = soak_words(&format!(
        "http://{}/body --rate 300 -n 500 --fail-if errors>0 --hdr {}",
        carafe.addr(),
        word(&log)
    ));
    soaked.assert_pass();
    let read = Command::new(at("venv/bin/python"))
        .args(["-c", READER])
        .arg(&log)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&read.stdout);
    let expected = ["count", "p50", "p99", "max"].map(|figure| {
        soaked
            .number(&format!("latency.corrected.{figure}"))
            .to_string()
    });
    assert_eq!(told.trim(), expected.join(" "), "{read:?}");
}

/// The manifest for Kubernetes starts runs that this program understands.
#[test]
fn the_manifest_starts_parts() {
    let manifest = include_str!("../../packaging/soak-job.json");
    let job: Value = serde_json::from_str(manifest).unwrap();
    assert_eq!(
        (&job["apiVersion"], &job["kind"]),
        (&"batch/v1".into(), &"Job".into())
    );
    let spec = &job["spec"];
    assert_eq!(spec["completionMode"], "Indexed");
    assert_eq!(spec["completions"], spec["parallelism"]);
    let container = &spec["template"]["spec"]["containers"][0];
    let script = container["command"][2].as_str().unwrap();
    let of = spec["completions"].as_u64().unwrap();
    assert!(script.contains(&format!("/{of} ")), "{script}");
    // The shell makes of it what would be run; nobody is there, and a port of no server is refused.
    let script = script.replace(
        "carafe soak",
        &format!("{} soak", env!("CARGO_BIN_EXE_carafe")),
    );
    let script = script.replace("http://server:8080/", "http://127.0.0.1:0/");
    let script = script.replace("/tmp/part.json", "/dev/null");
    let ran = Command::new("sh")
        .args(["-c", &script])
        .env("JOB_COMPLETION_INDEX", "3")
        .env("START", "2026-05-06T07:08:09Z")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&ran.stderr);
    assert!(told.contains("a port is 1 to 65535"), "{told}");
}

/// Four generators hold sixty thousand clients at four servers, each pair of them in a network of its own. From one
/// address, whoever connects while more than half of its 28,232 ports are in use waits for seconds.
#[test]
#[ignore = "sixty thousand clients take root, namespaces and a minute; see docs/soak.md"]
fn four_parts_hold_sixty_thousand_clients() {
    let root = root_with(&[("body", "ant")]);
    let folder = tempfile::tempdir().unwrap();
    let script = "ulimit -n 40000; ip link set lo up; \
        \"$1\" serve -q -p 7890 -b 127.0.0.1 --request-timeout 5m \"$2\" & server=$!; sleep 2; \
        \"$1\" soak 127.0.0.1:7890 body -c 60000 --source 127.0.1.0/30 --mix fast=1%,idle=99% --ramp 15s -z 40s --timeout 2m \
        --part $3/4 --start-at $4 --fail-if 'errors>0' --json \"$5\" --quiet; kill $server; wait";
    let at = (Timestamp::now().as_second() + 6).to_string();
    let files: Vec<_> = (1..=4)
        .map(|part| folder.path().join(format!("{part}.json")))
        .collect();
    let parts: Vec<_> = files
        .iter()
        .zip(1..)
        .map(|(file, part)| {
            Command::new("unshare")
                .args(["-n", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_carafe")])
                .arg(root.path())
                .args([&part.to_string(), &at])
                .arg(file)
                .spawn()
                .unwrap()
        })
        .collect();
    for mut part in parts {
        part.wait().unwrap();
    }
    let files: Vec<_> = files.iter().map(|file| word(file)).collect();
    let whole = soak_words(&format!("merge {} --fail-if errors>0", files.join(" ")));
    whole.assert_pass();
    assert_eq!(whole.number("load.clients"), 60_000);
    // All that say nothing are there until the end.
    assert_eq!(whole.count("unfinished"), 59_400);
}
