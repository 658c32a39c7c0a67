//! The cache in the real binary: what a warm download costs in system calls, and that no client is
//! sent what a file was before.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Carafe, exchange, has_tool, pattern, root_with, skip, until};
use crate::talk::{Talk, age_all};
use carafe::limits::{LARGE_STEP_BYTES, RESIDENT_FRESH};
use rustix::process::Signal;

/// How often each system call succeeded between the downloads of `begin` and `end`.
fn count_calls(trace: &str) -> BTreeMap<String, usize> {
    let begin = trace.find("\"begin\\n\"").expect("it was asked for");
    let end = trace.rfind("\"end\\n\"").expect("it was asked for");
    let mut counts = BTreeMap::new();
    for line in trace[begin..end].lines().skip(1) {
        let call = line.split('(').next().unwrap_or_default();
        let outcome = if line.contains(" = -1 ") {
            " failed"
        } else {
            ""
        };
        *counts.entry(format!("{call}{outcome}")).or_default() += 1;
    }
    counts
}

/// What the loop's thread calls while a client on a kept connection asks so many times, after it has asked
/// some times to warm the server up, and how long the counted part took. The root has files `begin` and `end`.
fn counted(
    root: &Path,
    flags: &[&str],
    warm_up: usize,
    times: usize,
    ask: impl Fn(&mut Talk),
) -> (BTreeMap<String, usize>, Duration) {
    let calls = root.join("calls");
    let carafe = Carafe::serve_traced(root, &calls, &[], flags);
    let mut talk = Talk::to(carafe.addr());
    (0..warm_up).for_each(|_| ask(&mut talk));
    exchange(carafe.addr(), b"begin\n").unwrap();
    let began = Instant::now();
    (0..times).for_each(|_| ask(&mut talk));
    let took = began.elapsed();
    exchange(carafe.addr(), b"end\n").unwrap();
    drop(talk);
    carafe.signal(Signal::TERM);
    assert_eq!(carafe.wait().0.code(), Some(0));
    (count_calls(&fs::read_to_string(&calls).unwrap()), took)
}

#[test]
fn a_warm_download_costs_four_calls_and_a_look_at_inotify() {
    const CLIENTS: usize = 64;
    const EACH: usize = 20;
    const DOWNLOADS: usize = CLIENTS * EACH;
    if !has_tool("strace") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    for name in ["begin", "end", "small"] {
        fs::write(root.path().join(name), b"a few bytes").unwrap();
    }
    let calls = root.path().join("calls");
    // Only its loop's thread is traced.
    let carafe = Carafe::serve_traced(root.path(), &calls, &[], &["-q"]);
    let addr = carafe.addr();
    for _ in 0..3 {
        assert_eq!(exchange(addr, b"small\n").unwrap(), b"a few bytes");
    }
    exchange(addr, b"begin\n").unwrap();
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                for _ in 0..EACH {
                    assert_eq!(exchange(addr, b"small\n").unwrap(), b"a few bytes");
                }
            });
        }
    });
    // Once a second the file is looked at anew.
    let looks = began.elapsed().as_secs() as usize + 1;
    exchange(addr, b"end\n").unwrap();
    carafe.signal(Signal::TERM);
    assert_eq!(carafe.wait().0.code(), Some(0));

    let mut counts = count_calls(&fs::read_to_string(&calls).unwrap());
    let mut take = |call: &str| counts.remove(call).unwrap_or_default();
    // What the download at the beginning still did is among them.
    let opened = take("openat2");
    // Twice more when the clock has moved on since it was written.
    assert!(opened <= looks + 4, "{opened} looks in {looks} s");
    assert_eq!(take("preadv2"), opened);
    assert_eq!(take("accept4"), DOWNLOADS + 1);
    assert_eq!(take("recvfrom"), DOWNLOADS + 1);
    assert_eq!(take("sendto"), DOWNLOADS + 1);
    assert_eq!(take("close"), DOWNLOADS + 1 + opened);
    let inotify = take("read failed") + take("read");
    assert!(inotify >= DOWNLOADS, "{inotify} looks at inotify");
    assert_eq!(take("openat2 failed"), 0);
    for call in ["epoll_ctl", "write", "writev", "sendfile", "setsockopt"] {
        assert_eq!(take(call), 0, "{call}");
    }
    assert!(take("fstatfs") <= 1, "the file system is known");
    // A debug build asks whether what it closes is open.
    take("fcntl");
    let turns = take("epoll_wait");
    let rest: usize = counts.values().sum();
    assert!(rest <= 4 * turns, "{turns} turns: {counts:?}");
}

#[test]
fn a_warm_reply_by_sendfile_costs_four_calls_and_a_look_at_inotify() {
    const REQUESTS: usize = 300;
    if !has_tool("strace") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let content = pattern(7, LARGE_STEP_BYTES as usize);
    fs::write(root.path().join("large"), &content).unwrap();
    age_all(root.path());
    for name in ["begin", "end"] {
        fs::write(root.path().join(name), b"a few bytes").unwrap();
    }
    let (counts, took) = counted(root.path(), &["-q"], 10, REQUESTS, |talk| {
        assert!(talk.get("/large").body == content);
    });
    let count = |call: &str| counts.get(call).copied().unwrap_or_default();
    // Those who ask for the beginning and the end have some of each. Once a second the file is looked
    // at anew, and what is in memory is asked about when that was believed for long enough.
    let looks = took.as_secs() as usize + 1;
    assert_eq!(count("sendfile"), REQUESTS);
    assert!(count("sendto") <= REQUESTS + 2, "{counts:?}");
    assert!(count("recvfrom") <= REQUESTS + 2, "{counts:?}");
    assert!(count("recvfrom failed") <= 4, "{counts:?}");
    assert!(count("epoll_wait") <= REQUESTS + 6, "{counts:?}");
    let asked = 2 * (took.as_micros() / RESIDENT_FRESH.as_micros() + 2) as usize;
    assert!(count("preadv2") <= asked + 2 * looks, "{counts:?}");
}

#[test]
fn a_large_warm_file_is_looked_at_once_a_turn_and_asked_about_once_a_mebibyte() {
    const MEBIBYTES: usize = 5;
    if !has_tool("strace") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let content = pattern(8, MEBIBYTES << 20);
    fs::write(root.path().join("large"), &content).unwrap();
    age_all(root.path());
    let calls = tempfile::NamedTempFile::new().unwrap();
    let carafe = Carafe::serve_traced(root.path(), calls.path(), &[], &["-q"]);
    assert!(exchange(carafe.addr(), b"large\n").unwrap() == content);
    carafe.signal(Signal::TERM);
    assert_eq!(carafe.wait().0.code(), Some(0));

    let trace = fs::read_to_string(calls.path()).unwrap();
    let begin = trace.find("sendfile(").expect("it was sent");
    let turns = trace[begin..].split("\nepoll_wait(");
    let of = |turn: &str, call: &str| turn.matches(&format!("\n{call}(")).count();
    for turn in turns.clone() {
        assert!(of(turn, "fstat") <= 1 && of(turn, "preadv2") <= 1, "{turn}");
    }
    let asked: usize = turns.clone().map(|turn| of(turn, "preadv2")).sum();
    // A turn is a MiB, unless the socket was full before.
    assert!(asked < MEBIBYTES.max(turns.count()), "{asked}");
    assert!(trace[begin..].contains("fstat("));
}

#[test]
fn a_reply_that_is_looked_up_costs_four_calls_more_than_one_from_the_cache() {
    const REQUESTS: usize = 300;
    if !has_tool("strace") {
        return;
    }
    let root = root_with(&[("file", "a few bytes"), ("begin", ""), ("end", "")]);
    let (mut counts, _) = counted(root.path(), &["-q", "--cache", "0"], 1, REQUESTS, |talk| {
        assert_eq!(talk.get("/file").body, b"a few bytes");
    });
    // A debug build asks whether what it closes is open.
    counts.remove("fcntl");
    for call in ["openat2", "fstat", "preadv2", "close", "recvfrom", "sendto"] {
        let count = counts.remove(call).unwrap_or_default();
        // Those who ask for the beginning and the end have some of each.
        assert!((REQUESTS..REQUESTS + 8).contains(&count), "{call}: {count}");
    }
    let turns = counts.remove("epoll_wait").unwrap_or_default();
    assert!(turns <= REQUESTS + 8, "{turns} turns");
    let rest: usize = counts.values().sum();
    assert!(rest <= 16, "{counts:?}");
}

#[test]
fn requests_that_came_together_cost_one_look_at_inotify() {
    const TOGETHER: usize = 16;
    const ROUNDS: usize = 50;
    if !has_tool("strace") {
        return;
    }
    let root = root_with(&[("file", "a few bytes"), ("begin", ""), ("end", "")]);
    age_all(root.path());
    let (counts, _) = counted(root.path(), &["-q"], 10, ROUNDS, |talk| {
        talk.say("GET /file HTTP/1.1\r\nHost: x\r\n\r\n".repeat(TOGETHER));
        for _ in 0..TOGETHER {
            assert_eq!(talk.answer().body, b"a few bytes");
        }
    });
    let count = |call: &str| counts.get(call).copied().unwrap_or_default();
    // The kernel may bring what was sent together in two parts.
    let looks = count("read failed");
    assert!((ROUNDS..3 * ROUNDS).contains(&looks), "{counts:?}");
    assert!(count("sendto") >= ROUNDS * TOGETHER, "{counts:?}");
}

#[test]
fn no_watch_is_made_for_what_is_not_there_or_asked_for_once_and_none_by_the_loop() {
    const NAMES: usize = 100;
    if !has_tool("strace") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("folder")).unwrap();
    for number in 0..NAMES {
        fs::write(root.path().join(format!("folder/{number}")), b"x").unwrap();
    }
    let calls = tempfile::NamedTempFile::new().unwrap();
    let options = ["-f", "-e", "trace=inotify_add_watch,inotify_rm_watch"];
    let carafe = Carafe::serve_traced(root.path(), calls.path(), &options, &["-q"]);
    let traced = || fs::read_to_string(calls.path()).unwrap();
    let ask = |name: &str| exchange(carafe.addr(), format!("{name}\n").as_bytes()).unwrap();
    for number in 0..NAMES {
        // Twice, as for what is kept.
        for _ in 0..2 {
            assert_eq!(ask(&format!("folder/none-{number}")), b"");
        }
        assert_eq!(ask(&format!("folder/{number}")), b"x");
    }
    assert_eq!(traced().matches("watch(").count(), 0);
    // The root, its folder and the file.
    until("a file is watched", || {
        assert_eq!(ask("folder/1"), b"x");
        traced().matches("inotify_add_watch(").count() == 3
    });
    let pid = carafe.pid().to_string();
    carafe.signal(Signal::TERM);
    assert_eq!(carafe.wait().0.code(), Some(0));
    assert!(!traced().lines().any(|line| {
        let is_call = line.contains("watch(");
        is_call && line.split_whitespace().next() == Some(&*pid)
    }));
}

#[test]
fn whoever_asks_after_a_change_sees_the_change() {
    const ROUNDS: usize = 300;
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("file");
    fs::write(&path, b"0").unwrap();
    let carafe = Carafe::serve(root.path(), &[]);
    let addr = carafe.addr();
    let expect = |bytes: &[u8]| assert_eq!(exchange(addr, b"file\n").unwrap(), bytes);
    for _ in 0..3 {
        expect(b"0");
    }
    for round in 0..ROUNDS {
        let bytes = format!("round {round}");
        // In place and by rename, in turn.
        let written = root
            .path()
            .join(if round % 2 == 0 { "file" } else { "new" });
        fs::write(&written, &bytes).unwrap();
        fs::rename(&written, &path).unwrap();
        // Until it is watched, or kept, or once more.
        for _ in 0..=round % 7 {
            expect(bytes.as_bytes());
        }
    }
    fs::remove_file(&path).unwrap();
    expect(b"");
    carafe.stop_clean();
}

/// Maps a file and closes it, writes through the mapping on a line of stdin, and ends the mapping on another.
const MAPS: &str = "\
import mmap, sys
with open(sys.argv[1], 'r+b') as file:
    mapping = mmap.mmap(file.fileno(), 0)
print('mapped', flush=True)
sys.stdin.readline()
mapping[:] = b'after.'
print('written', flush=True)
sys.stdin.readline()
mapping.close()
print('closed', flush=True)
";

#[test]
fn whoever_asks_after_a_mapping_has_ended_sees_what_was_written_through_it() {
    if !has_tool("python3") {
        return;
    }
    let root = root_with(&[("file", "before")]);
    let carafe = Carafe::serve(root.path(), &[]);
    let mut talk = Talk::to(carafe.addr());
    let mut python = Command::new("python3");
    python.args(["-c", MAPS]).arg(root.path().join("file"));
    python.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut python = python.spawn().unwrap();
    let (mut tell, said) = (python.stdin.take().unwrap(), python.stdout.take().unwrap());
    let mut said = BufReader::new(said).lines();
    let mut wait_for = |what: &str| assert_eq!(said.next().unwrap().unwrap(), what);
    wait_for("mapped");
    for _ in 0..5 {
        assert_eq!(talk.get("/file").body, b"before");
    }
    tell.write_all(b"\n").unwrap();
    wait_for("written");
    // Of this nobody tells.
    talk.get("/file");
    tell.write_all(b"\n").unwrap();
    wait_for("closed");
    assert_eq!(talk.get("/file").body, b"after.");
    assert!(python.wait().unwrap().success());
    drop(talk);
    carafe.stop_clean();
}

#[test]
fn a_mount_is_told_of_when_the_next_request_asks() {
    if !has_tool("strace") || !has_tool("nsenter") {
        return;
    }
    let namespace = ["-r", "-m"];
    let own = Command::new("unshare").args(namespace).arg("true").status();
    if !own.is_ok_and(|status| status.success()) {
        return skip(
            "mounts",
            "there are no mount namespaces, or not for this user",
        );
    }
    let root = root_with(&[("file", "a few bytes"), ("mounted/file", "other bytes")]);
    let calls = root.path().join("calls");
    let mut outer = Command::new("unshare");
    outer
        .args(namespace)
        .args(["strace", "-D", "-qq", "-f", "-e", "trace=ppoll", "-o"]);
    outer.arg(&calls);
    let carafe = Carafe::serve_under(outer, root.path(), &[]);
    let mut talk = Talk::to(carafe.addr());
    let mut is_told_of = || {
        assert_eq!(talk.get("/file").body, b"a few bytes");
        let calls = fs::read_to_string(&calls).unwrap();
        calls
            .lines()
            .any(|call| call.contains("revents=POLLPRI|POLLERR"))
    };
    assert!(!is_told_of() && !is_told_of());
    let mount = Command::new("nsenter")
        .args([
            "-t",
            &carafe.pid().to_string(),
            "-U",
            "-m",
            "--preserve-credentials",
        ])
        .args(["mount", "-t", "tmpfs", "none"])
        .arg(root.path().join("mounted"))
        .status();
    assert!(mount.unwrap().success());
    until("a mount is told of", is_told_of);
    drop(talk);
    carafe.stop_clean();
}

#[test]
fn a_file_that_is_removed_gives_its_place_on_the_disk_back_though_nobody_asks() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("long");
    File::create(&path).unwrap().set_len(1 << 20).unwrap();
    let carafe = Carafe::serve(root.path(), &[]);
    let is_open = || {
        let folder = format!("/proc/{}/fd", carafe.pid());
        let links = fs::read_dir(folder).unwrap().flatten();
        let mut files = links.filter_map(|link| fs::read_link(link.path()).ok());
        files.any(|file| file.to_string_lossy().starts_with(path.to_str().unwrap()))
    };
    until("it is kept", || {
        assert_eq!(exchange(carafe.addr(), b"long\n").unwrap().len(), 1 << 20);
        is_open()
    });
    fs::remove_file(&path).unwrap();
    until("it is closed", || !is_open());
    carafe.stop_clean();
}

#[test]
fn without_a_cache_nothing_is_watched() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("file"), b"x").unwrap();
    for (flags, watches) in [(&[][..], 2), (&["--cache", "0"], 0)] {
        let carafe = Carafe::serve(root.path(), flags);
        let watched = || {
            let folder = format!("/proc/{}/fdinfo", carafe.pid());
            let infos = fs::read_dir(folder).unwrap().filter_map(Result::ok);
            let text: String = infos
                .filter_map(|info| fs::read_to_string(info.path()).ok())
                .collect();
            text.matches("inotify wd:").count()
        };
        for _ in 0..10 {
            assert_eq!(exchange(carafe.addr(), b"file\n").unwrap(), b"x");
        }
        // The root and the file.
        until("they are watched", || watched() == watches);
        let threads = fs::read_dir(format!("/proc/{}/task", carafe.pid())).unwrap();
        let names = threads.filter_map(|thread| fs::read(thread.unwrap().path().join("comm")).ok());
        let watching = names.filter(|name| name == b"watch\n").count();
        assert_eq!(watching, watches / 2, "a thread does it");
        carafe.stop_clean();
    }
}
