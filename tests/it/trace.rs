//! `serve --trace`: that it holds what strace sees and nothing more, when it is written, and that names from
//! peers stay text. What the page shows is in `tests/it/browser.rs`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;

use regex::Regex;
use rustix::process::Signal;
use serde_json::Value;

use crate::common::{
    Carafe, assert_same, connect, connect_narrow, exchange, has_tool, pattern, root_with,
    run_carafe, until,
};

/// The events of a trace for Perfetto. All that its format wants of them is there.
fn events(path: &Path) -> Vec<Value> {
    let mut trace: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let Value::Array(events) = trace["traceEvents"].take() else {
        panic!("{trace}");
    };
    for event in &events {
        assert!(event["pid"].is_u64() && event["tid"].is_u64(), "{event}");
        assert!(event["name"].is_string(), "{event}");
        match event["ph"].as_str().unwrap() {
            "X" => assert!(event["ts"].as_f64().zip(event["dur"].as_f64()).is_some()),
            "i" => assert!(event["ts"].is_f64()),
            "M" => assert!(event["args"]["name"].is_string(), "{event}"),
            other => panic!("{other}"),
        }
    }
    events
}

/// How often each system call was made, and how many bytes it has moved.
type Calls = BTreeMap<String, (usize, i64)>;

fn count(calls: &mut Calls, name: &str, result: i64) {
    let entry = calls.entry(name.to_owned()).or_default();
    entry.0 += 1;
    entry.1 += result.max(0);
}

/// What strace has seen of sockets, files beneath a root and inotify, from the loop's first wait until the
/// trace was written. A debug build asks whether what it closes is open, and where the entries of a folder
/// are read, which rustix does, the trace can't see.
fn seen(folder: &Path, root: &Path) -> Calls {
    let line = Regex::new(r"^(\d+\.\d+) (\w+)\((.*?)(?:\) += (-?\d+).*)?$").unwrap();
    let mut lines = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        for found in text.lines().filter_map(|text| line.captures(text)) {
            let part = |at: usize| found.get(at).map_or("", |part| part.as_str()).to_owned();
            lines.push((part(1).parse::<f64>().unwrap(), part(2), part(3), part(4)));
        }
    }
    lines.sort_by(|a, b| a.0.total_cmp(&b.0));
    let first = lines
        .iter()
        .position(|line| line.1 == "epoll_wait")
        .unwrap();
    let written = lines.iter().position(|line| line.2.contains(".json.part"));
    let beneath = format!("<{}", root.display());
    let mut calls = Calls::new();
    for (_, name, arguments, result) in &lines[first..written.unwrap()] {
        let concerns =
            ["<TCP:", "<anon_inode:inotify>", &beneath].map(|what| arguments.contains(what));
        let is_left_out = matches!(&**name, "getdents64") || arguments.ends_with("F_GETFD");
        if concerns.contains(&true) && !is_left_out {
            let moves = [
                "recvfrom", "sendto", "sendmsg", "sendfile", "pread64", "preadv2",
            ];
            let result = if moves.contains(&&**name) {
                result.parse().unwrap()
            } else {
                0
            };
            count(&mut calls, name, result);
        }
    }
    calls
}

/// The same of a trace.
fn traced(events: &[Value]) -> Calls {
    let waits = events.iter().filter(|event| event["name"] == "epoll_wait");
    let first = waits
        .map(|event| event["ts"].as_f64().unwrap())
        .min_by(f64::total_cmp)
        .unwrap();
    let mut calls = Calls::new();
    for event in events
        .iter()
        .filter(|event| event["ts"].as_f64() >= Some(first))
    {
        if let Some(result) = event["args"]["result"].as_i64() {
            count(&mut calls, event["name"].as_str().unwrap(), result);
        }
    }
    calls
}

#[test]
fn every_call_that_strace_sees_is_in_it_and_none_more() {
    if !has_tool("strace") {
        return;
    }
    let large = pattern(1, 3_000_000);
    let root = root_with(&[("small", b"a few bytes".as_slice()), ("large", &large)]);
    fs::create_dir(root.path().join("folder")).unwrap();
    std::os::unix::fs::symlink("small", root.path().join("link")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let calls = folder.path().join("calls");
    fs::create_dir(&calls).unwrap();
    let trace = folder.path().join("trace.json");
    let options = ["-ff", "-ttt", "-yy", "-s", "0", "--signal=none"];
    let flags = ["-q", "--listing", "--trace", trace.to_str().unwrap()];
    let carafe = Carafe::serve_traced(root.path(), &calls.join("of"), &options, &flags);
    let addr = carafe.addr();
    for _ in 0..4 {
        assert_eq!(exchange(addr, b"small\n").unwrap(), b"a few bytes");
        assert_eq!(exchange(addr, b"link\n").unwrap(), b"a few bytes");
        assert_eq!(exchange(addr, b"none\n").unwrap(), b"");
    }
    // It takes its bytes slowly, and what it leaves in the receive queue is looked at.
    let mut slow = connect_narrow(addr, 4096);
    slow.write_all(b"large\nand more").unwrap();
    let mut got = Vec::new();
    slow.read_to_end(&mut got).unwrap();
    assert_same("a slow download", &got, &large);
    let mut kept = connect(addr);
    for path in ["small", "folder/", "", "large"] {
        let mut answer = Vec::new();
        let close = if path == "large" {
            "Connection: close\r\n"
        } else {
            ""
        };
        write!(kept, "GET /{path} HTTP/1.1\r\nHost: x\r\n{close}\r\n").unwrap();
        if path == "large" {
            kept.read_to_end(&mut answer).unwrap();
        } else {
            answer.resize(1, 0);
            kept.read_exact(&mut answer).unwrap();
        }
    }
    carafe.signal(Signal::TERM);
    assert_eq!(carafe.wait().0.code(), Some(0));
    let (seen, traced) = (seen(&calls, root.path()), traced(&events(&trace)));
    assert_eq!(seen, traced);
    for call in [
        "accept4",
        "recvfrom",
        "sendto",
        "sendfile",
        "openat2",
        "close",
        "epoll_ctl",
    ] {
        assert!(seen.contains_key(call), "{call}: {seen:?}");
    }
}

#[test]
fn a_signal_has_it_written_and_the_end_again() {
    let root = root_with(&[("small", b"a few bytes")]);
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.json");
    let carafe = Carafe::serve(root.path(), &["--trace", trace.to_str().unwrap()]);
    let ends = || {
        let events = events(&trace);
        events.iter().filter(|event| event["name"] == "end").count()
    };
    assert_eq!(exchange(carafe.addr(), b"small\n").unwrap(), b"a few bytes");
    carafe.signal(Signal::USR1);
    carafe.wait_for_log("the trace was written");
    assert_eq!(ends(), 1);
    assert_eq!(exchange(carafe.addr(), b"small\n").unwrap(), b"a few bytes");
    carafe.signal(Signal::TERM);
    let (status, log) = carafe.wait();
    assert!(status.success(), "{log}");
    assert_eq!(ends(), 2);
}

#[test]
fn only_the_last_of_it_is_kept() {
    let root = root_with(&[("small", b"a few bytes")]);
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.json");
    let flags = ["--trace", trace.to_str().unwrap(), "--trace-for", "300ms"];
    let carafe = Carafe::serve(root.path(), &flags);
    assert_eq!(exchange(carafe.addr(), b"small\n").unwrap(), b"a few bytes");
    // A drain takes a second at least.
    carafe.signal(Signal::TERM);
    assert!(carafe.wait().0.success());
    let times = events(&trace)
        .into_iter()
        .filter(|event| event["ph"] == "X");
    for event in times {
        let end = event["ts"].as_f64().unwrap() + event["dur"].as_f64().unwrap();
        assert!(event["name"] != "sendto" && end <= 300_000.0, "{event}");
    }
}

#[test]
fn names_from_peers_stay_text() {
    const NAME: &str = "</script><script>alert(1)</script>\u{2028}\"<!--";
    let root = root_with(&[(NAME.replace('/', "_"), b"x")]);
    let folder = tempfile::tempdir().unwrap();
    for file in ["trace.html", "trace.json"] {
        let trace = folder.path().join(file);
        let carafe = Carafe::serve(root.path(), &["--trace", trace.to_str().unwrap()]);
        exchange(carafe.addr(), format!("{NAME}\n").as_bytes()).unwrap();
        carafe.signal(Signal::USR1);
        // The bar is not over, so what was asked for is not known only by its end.
        carafe.wait_for_log("the trace was written");
        carafe.stop();
        let text = fs::read_to_string(&trace).unwrap();
        if file == "trace.html" {
            assert!(text.contains("alert(1)"));
            assert!(!text.contains("<script>alert") && !text.contains("<!--"));
            continue;
        }
        let names = events(&trace);
        let asked = names.iter().find(|event| event["cat"] == "asked").unwrap();
        let name = asked["name"].as_str().unwrap();
        assert!(name.starts_with("</script><script>"), "{name}");
    }
}

#[test]
fn what_cannot_be_written_is_refused_before_anything_is_bound() {
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().join("none/trace.html");
    let cases: [(&[&str], &str); 3] = [
        (
            &["--trace", "trace.txt"],
            "carafe: --trace: 'trace.txt' won't do: it takes a file whose name ends in .html or .json\n",
        ),
        (
            &["--trace-for", "10s"],
            "carafe: --trace-for: takes a --trace whose time it is\n",
        ),
        (
            &["--trace", none.to_str().unwrap()],
            "it takes a file to write to",
        ),
    ];
    for (flags, line) in cases {
        let arguments: Vec<_> = ["serve"].iter().chain(flags).map(OsStr::new).collect();
        let output = run_carafe(&arguments);
        assert_eq!(output.status.code(), Some(2), "{flags:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.ends_with(line) || said.contains(line), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn a_trace_that_cannot_be_written_any_more_ends_nothing() {
    let root = root_with(&[("small", b"a few bytes")]);
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.html");
    let carafe = Carafe::serve(root.path(), &["--trace", trace.to_str().unwrap()]);
    fs::remove_dir_all(folder.path()).unwrap();
    carafe.signal(Signal::USR1);
    until("it is said", || {
        carafe.log().contains("the trace can't be written")
    });
    assert_eq!(exchange(carafe.addr(), b"small\n").unwrap(), b"a few bytes");
    carafe.stop();
}
