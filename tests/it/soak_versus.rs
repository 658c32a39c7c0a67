//! `carafe soak A --versus B` and `carafe soak compare`: two servers, or two runs, beside each other.

use std::fs;

use serde_json::Value;

use crate::common::{Carafe, pattern, root_with};
use crate::fake::Untouched;
use crate::soaking::{Soaked, soak_words, word};
use tempfile::TempDir;

/// carafe that serves a file of this length, and its folder.
fn serving(length: usize) -> (TempDir, Carafe) {
    let root = root_with(&[("body", &pattern(7, length))]);
    let carafe = Carafe::serve(root.path(), &[]);
    (root, carafe)
}

fn difference<'a>(soaked: &'a Soaked, quantity: &str) -> &'a Value {
    let all = soaked.at("comparison.differences").as_array().unwrap();
    let found = all.iter().find(|found| found["quantity"] == quantity);
    found.unwrap_or_else(|| panic!("no {quantity}: {all:#?}"))
}

/// How a slow server and a fast one came out, in the order in which they were named. What noise makes of the
/// intervals is a unit test's.
fn medians(words: &str) -> (Soaked, [f64; 2]) {
    let soaked = soak_words(&format!(
        "{words} --settle 200ms --fail-if p50.diff>0us,errors>0"
    ));
    assert_eq!(soaked.threshold("errors>0"), "held");
    let ended = soaked.at("comparison.ended").as_array().unwrap();
    let counts = ended.iter().map(|of| of[0].as_u64().unwrap());
    assert_eq!(counts.sum::<u64>(), soaked.started(), "{ended:?}");
    assert!(soaked.stdout.contains("A or B"), "{}", soaked.stdout);
    let of = |quantity| {
        let values = &difference(&soaked, quantity)["values"];
        [0, 1].map(|side| values[side].as_f64().unwrap())
    };
    let (cpu, medians) = (of("cpu"), of("p50"));
    assert_eq!(
        cpu[0] < cpu[1],
        medians[0] < medians[1],
        "{cpu:?} {medians:?}"
    );
    (soaked, medians)
}

/// The slower one is so on purpose: its file is larger by far.
#[test]
fn the_slower_of_two_is_found_in_either_model_and_in_either_place() {
    let ((_small, fast), (_large, slow)) = (serving(1_000), serving(8_000_000));
    let (a, b) = (fast.addr(), slow.addr());
    let pids = format!("--pid {} --pid {}", fast.pid(), slow.pid());
    let (soaked, [first, second]) =
        medians(&format!("{a} body --versus {b} --rate 40 -z 4s {pids}"));
    assert!(first < second);
    assert_ne!(soaked.threshold("p50.diff>0us"), "held");
    let ended = soaked.at("comparison.ended");
    assert_eq!(ended[0][0], ended[1][0], "arrivals come in pairs");

    let pids = format!("--pid {} --pid {}", slow.pid(), fast.pid());
    let (soaked, [first, second]) = medians(&format!(
        "http://{b}/body --versus http://{a}/ -c 2 -z 4s {pids}"
    ));
    assert!(first > second);
    assert_ne!(soaked.threshold("p50.diff>0us"), "failed");
}

#[test]
fn a_body_that_differs_between_two_is_a_wrong_one() {
    let ((_a, one), (_b, other)) = (serving(1_000), serving(1_001));
    let words = format!(
        "{} body --versus {} --verify -n 40 -c 2",
        one.addr(),
        other.addr()
    );
    let soaked = soak_words(&words);
    soaked.assert_fail();
    // Of the first server's all are right, of the second one's none.
    let ended = soaked.at("comparison.ended").as_array().unwrap();
    assert_eq!(
        (&ended[0][1], &ended[1][1]),
        (&Value::from(0), &ended[1][0])
    );
    assert!(ended[1][0].as_u64() > Some(0), "{ended:?}");
}

#[test]
fn a_full_house_has_room_for_both() {
    let ((_a, one), (_b, other)) = (serving(1_000), serving(1_000));
    let soaked = soak_words(&format!(
        "http://{}/body --versus http://{} --rate 400 -c 2 -n 400 --fail-if errors>0",
        one.addr(),
        other.addr()
    ));
    assert_eq!(soaked.count("complete"), 400, "{soaked:#?}");
}

#[test]
fn two_runs_are_compared_with_a_warning() {
    let (_root, carafe) = serving(1_000);
    let folder = tempfile::tempdir().unwrap();
    let files = ["a.json", "b.json"].map(|name| folder.path().join(name));
    for file in &files {
        let soaked = soak_words(&format!("http://{}/body --rate 100 -z 2s", carafe.addr()));
        fs::write(file, soaked.json.to_string()).unwrap();
    }
    let [a, b] = files.each_ref().map(|file| word(file));
    let page = folder.path().join("page.html");
    let words = format!(
        "compare {a} {b} --fail-if p50.diff>10s --report {}",
        word(&page)
    );
    let soaked = soak_words(&words);
    // Where the machine was too busy to tell a median, it is undecided.
    assert_ne!(soaked.code, Some(1), "{soaked:#?}");
    assert!(soaked.notes().contains("two runs of different times"));
    assert_eq!(
        soaked.at("comparison.names"),
        &Value::from([a, b].map(Value::from).to_vec())
    );
    assert!(fs::read_to_string(&page).unwrap().contains("A or B"));
    let soaked = soak_words(&format!("compare {b} {a} --fail-if p50.diff>-10s"));
    assert_ne!(soaked.code, Some(0), "{soaked:#?}");
    // What says nothing of two reports, and a report that no run has made.
    for flag in [
        "-c 5",
        "--rate 5",
        "-z 5s",
        "--pid 1",
        "--verify",
        "--mix fast=100%",
        "--insecure",
    ] {
        for what in [format!("compare {a} {b}"), format!("merge {a}")] {
            let soaked = soak_words(&format!("{what} {flag}"));
            assert!(
                soaked.complaint().contains("has no use for it"),
                "{soaked:#?}"
            );
        }
    }
    let report = fs::read_to_string(&files[0]).unwrap();
    let seconds = format!(
        "\"seconds\":{}",
        serde_json::from_str::<Value>(&report).unwrap()["load"]["seconds"]
    );
    assert!(report.contains(&seconds), "{seconds}");
    for odd in ["\"seconds\":-2.0", "\"seconds\":1e300"] {
        fs::write(&files[0], report.replace(&seconds, odd)).unwrap();
        let soaked = soak_words(&format!("compare {a} {b}"));
        assert!(
            soaked.complaint().contains("'seconds' is no figure"),
            "{soaked:#?}"
        );
    }
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let port = Untouched::new();
    let addr = port.address();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.json");
    fs::write(&file, "{}").unwrap();
    let file = word(&file);
    for words in [
        format!("{addr} a --fail-if p99.diff>5%"),
        format!("{addr} a --versus 127.0.0.1:1 -c 3"),
        format!("{addr} a --versus {addr}"),
        format!("{addr} a --versus http://127.0.0.1:1"),
        format!("http://{addr}/a --versus 127.0.0.1:1"),
        format!("http://{addr}/a --versus http://127.0.0.1:1/b"),
        format!("{addr} a --versus 127.0.0.1:1 --pid 1"),
        format!("{addr} a --versus 127.0.0.1:1 --pid 1 --pid 1"),
        format!("{addr} a --versus 127.0.0.1:1 --fail-if cpu.diff>3%"),
        format!("{addr} a --versus 127.0.0.1:1 --fail-if speed.diff>3%"),
        format!("{addr} a --pid 1 --pid 2"),
        format!("compare {file} {file}"),
        format!("compare {file}"),
        "compare".into(),
        "compare nowhere nothing".into(),
    ] {
        soak_words(&words).complaint();
        port.assert(&words);
    }
}
