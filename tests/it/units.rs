//! The units in packaging/, by systemd-analyze: they are sound, leave little, and what they forbid is nothing
//! that carafe does. What isn't installed is skipped aloud.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::authority::{Authority, tls_connect, tls_exchange};
use crate::common::{Carafe, exchange, has_tool, root_with};
use crate::scrape::{get as metrics, metrics_of};
use crate::talk::{Talk, get};
use regex::Regex;

const SERVICE: &str = include_str!("../../packaging/carafe.service");
/// The pages that say how little the service leaves.
const PAGES: [&str; 2] = [
    include_str!("../../docs/operators.md"),
    include_str!("../../README.md"),
];

/// What systemd-analyze prints.
fn analyzed(words: &[&str], unit: Option<&Path>) -> String {
    let mut command = Command::new("systemd-analyze");
    let output = command.args(words).args(unit).output().unwrap();
    let [text, complaints] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success(), "{text}{complaints}");
    assert_eq!(complaints, "", "{text}");
    text
}

#[test]
fn units_are_sound_and_leave_as_little_as_the_pages_say() {
    if !has_tool("systemd-analyze") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let service = folder.path().join("carafe.service");
    // Neither the binary nor its manual page is installed here.
    let here = SERVICE.replace("/usr/bin/carafe", env!("CARGO_BIN_EXE_carafe"));
    fs::write(&service, here.replace("Documentation=", "#")).unwrap();
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    let socket = folder.path().join("carafe.socket");
    fs::copy(packaging.join("carafe.socket"), &socket).unwrap();
    for unit in [&service, &socket] {
        analyzed(&["verify"], Some(unit));
    }
    let offline = ["security", "--offline=true", "--no-pager"];
    let text = analyzed(&offline, Some(&service));
    let level = Regex::new(r"exposure level for carafe.service: ([0-9]+\.[0-9])").unwrap();
    let level: f64 = level.captures(&text).unwrap()[1].parse().unwrap();
    let said = Regex::new(r"exposure level of ([0-9]\.[0-9])").unwrap();
    for page in PAGES {
        let said: f64 = said.captures(page).unwrap()[1].parse().unwrap();
        assert!(level <= said, "{level} is more than {said}: {text}");
    }
}

/// The calls that a filter's words let through.
fn calls_of(words: &str) -> BTreeSet<String> {
    let words = words.split_whitespace().map(str::to_owned);
    let (mut sets, calls): (Vec<_>, Vec<_>) = words.partition(|word| word.starts_with('@'));
    let mut calls = BTreeSet::from_iter(calls);
    while let Some(set) = sets.pop() {
        for line in analyzed(&["syscall-filter", "--no-pager", &set], None).lines() {
            match line.trim() {
                comment if comment.starts_with('#') || comment == set => {}
                inner if inner.starts_with('@') => sets.push(inner.to_owned()),
                call => {
                    calls.insert(call.to_owned());
                }
            }
        }
    }
    calls
}

#[test]
fn the_service_forbids_nothing_that_is_called() {
    if !has_tool("systemd-analyze") || !has_tool("strace") {
        return;
    }
    let mut filters = SERVICE
        .lines()
        .filter_map(|line| line.strip_prefix("SystemCallFilter="));
    let allowed = calls_of(filters.next().unwrap());
    let denied = calls_of(filters.next().unwrap().strip_prefix('~').unwrap());
    assert!(filters.next().is_none() && allowed.len() > 200 && denied.contains("chroot"));
    let root = root_with(&[("d/small", vec![1; 10]), ("d/large", vec![2; 300_000])]);
    let outer = tempfile::tempdir().unwrap();
    let calls = outer.path().join("calls");
    let authority = Authority::new();
    authority.sign("a", &["localhost"], (2040, 1, 1));
    let (certificate, key) = (authority.crt("a"), authority.key("a"));
    let socket = format!("unix:{}", outer.path().join("socket").display());
    let log = outer.path().join("log");
    let flags = [
        ["--tls-cert", certificate.to_str().unwrap()],
        ["--tls-key", key.to_str().unwrap()],
        ["--access-log", log.to_str().unwrap()],
        ["--metrics", "127.0.0.1:0"],
        ["--workers", "2"],
        ["--bind", &socket],
    ];
    let flags = [&["--listing"][..], &flags.concat()].concat();
    let carafe = Carafe::serve_traced(root.path(), &calls, &["-f"], &flags);
    for _ in 0..3 {
        assert_eq!(exchange(carafe.addr(), b"d/small\n").unwrap().len(), 10);
    }
    let mut talk = Talk::to(carafe.addr());
    for path in ["/d/", "/d/?tar", "/d/large", "/none"] {
        assert!(matches!(talk.ask(&get(path, "")).status, 200 | 404));
    }
    drop(talk);
    let config = authority.client(rustls::ALL_VERSIONS);
    let mut tls = tls_connect(&config, carafe.addr(), "localhost");
    assert_eq!(tls_exchange(&mut tls, b"d/large\n").unwrap().len(), 300_000);
    drop(tls);
    assert_eq!(metrics(metrics_of(&carafe), "/metrics").0, 200);
    carafe.signal(rustix::process::Signal::HUP);
    carafe.wait_for_log("opened anew");
    carafe.stop();
    let calls = fs::read_to_string(calls).unwrap();
    let call = Regex::new(r"(?m)^\d+ +([a-z0-9_]+)\(").unwrap();
    let called: BTreeSet<_> = call
        .captures_iter(&calls)
        .map(|call| call[1].to_owned())
        .collect();
    assert!(called.contains("openat2") && called.contains("sendfile"));
    let forbidden: Vec<_> = called
        .iter()
        .filter(|&call| !allowed.contains(call) || denied.contains(call))
        .collect();
    assert!(forbidden.is_empty(), "{forbidden:?}");
}
