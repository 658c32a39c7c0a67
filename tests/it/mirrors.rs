//! Who walks lists: mirrors and directory readers, at the server itself and behind a proxy that puts a
//! path in front of it. What isn't installed is skipped aloud.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use crate::common::{Carafe, has_tool, root_with, shell, until};
use crate::proxied::Nginx;
use crate::talk::Talk;
use carafe::http::target::encode_segment;
use tempfile::TempDir;

/// Folders, four deep, and files in each.
const FILES: [&str; 9] = [
    "f1",
    "a/f1",
    "a/f2",
    "a/b/f1",
    "a/b/c/f1",
    "a/b/c/d/f1",
    "with space:/f 1",
    "100%/#?&",
    "接/收",
];

fn root() -> TempDir {
    root_with(&FILES.map(|name| (name, name)))
}

/// The targets of the requests in an access log of the combined format, each with how often a method
/// that brings a body was used on it.
fn requests(log: &Path) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for line in fs::read_to_string(log).unwrap().lines() {
        let request = line.split('"').nth(1).unwrap();
        let mut words = request.split(' ');
        if words.next() == Some("GET") {
            // A colon needs no escape, and lftp takes it away.
            let target = words.next().unwrap().replace("%3A", ":");
            *counts.entry(target).or_default() += 1;
        }
    }
    counts
}

/// What there is to ask for, encoded, beneath a path.
fn everything(beneath: &str) -> Vec<String> {
    let mut all = Vec::new();
    for name in FILES {
        let encode = |part: &str| encode_segment(part.as_bytes()).replace("%3A", ":");
        let encoded: Vec<_> = name.split('/').map(encode).collect();
        for depth in 0..encoded.len() {
            let slash = if depth == 0 { "" } else { "/" };
            all.push(format!("{beneath}{}{slash}", encoded[..depth].join("/")));
        }
        all.push(format!("{beneath}{}", encoded.join("/")));
    }
    all.sort();
    all.dedup();
    all
}

/// Each file, and each folder's list, was asked for once, and nothing else was.
#[track_caller]
fn assert_each_once(counts: &BTreeMap<String, u32>, beneath: &str) {
    let everything = everything(beneath).into_iter().map(|target| (target, 1));
    assert_eq!(*counts, everything.collect());
}

/// All files have come.
#[track_caller]
fn assert_whole(folder: &Path) {
    for name in FILES {
        assert_eq!(fs::read_to_string(folder.join(name)).unwrap(), name);
    }
}

/// Runs a script with a URL as `$1` and a folder as `$2`, which it is in.
#[track_caller]
fn run(script: &str, url: &str, folder: &Path) {
    let script = format!("set -e; cd \"$2\"; {script}");
    shell(&script, &[OsStr::new(url), folder.as_os_str()]);
}

const WGET: &str = "wget -q -r -l inf -nH --restrict-file-names=nocontrol -e robots=off";

#[test]
fn mirrors_ask_for_each_file_and_each_folder_once() {
    for (tool, script) in [
        ("wget", format!("{WGET} -np \"$1\"")),
        // From the middle, without a bound above: the way up is one of its links.
        ("wget", format!("{WGET} \"$1a/b/\"")),
        (
            "lftp",
            "lftp -c \"set net:max-retries 1; open $1; mirror . .\"".into(),
        ),
    ] {
        if !has_tool(tool) {
            continue;
        }
        let (root, folder) = (root(), tempfile::tempdir().unwrap());
        let log = folder.path().join("log");
        let flags = ["--listing", "--access-log", log.to_str().unwrap()];
        let carafe = Carafe::serve(root.path(), &flags);
        let copy = folder.path().join("copy");
        fs::create_dir(&copy).unwrap();
        run(&script, &format!("http://{}/", carafe.addr()), &copy);
        carafe.stop_clean();
        assert_each_once(&requests(&log), "/");
        assert_whole(&copy);
    }
}

#[test]
fn behind_a_path_nothing_leads_out_of_it() {
    if !(has_tool("nginx") && has_tool("wget")) {
        return;
    }
    let (root, copy) = (root(), tempfile::tempdir().unwrap());
    let carafe = Carafe::serve(root.path(), &["--listing"]);
    let nginx = Nginx::before(&carafe);
    // Up and down all links.
    let script = format!("{WGET} \"$1files/a/b/\"");
    run(&script, &format!("http://{}/", nginx.addr()), copy.path());
    let log = nginx.access_log();
    // nginx writes a line when it has sent an answer.
    let count = everything("/files/").len();
    until("all have their lines", || {
        fs::read_to_string(&log).unwrap().lines().count() >= count
    });
    assert_each_once(&requests(&log), "/files/");
    assert_whole(&copy.path().join("files"));
    let mut talk = Talk::to(nginx.addr());
    for (path, location) in [
        ("/files/a", "a/"),
        ("/files/a/b?sort=size", "b/?sort=size"),
        ("/files/with%20space:", "with%20space%3A/"),
    ] {
        assert_eq!(talk.get(path).field("location"), Some(location), "{path}");
    }
    drop(talk);
    drop(nginx);
    carafe.stop_clean();
}
