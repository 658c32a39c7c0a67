//! `serve --trace`: that it holds what strace sees and nothing more, when it is written, and that names from
//! peers stay text. What the page shows is in `tests/it/browser.rs`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use regex::Regex;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::authority::{Authority, FAR, tls_exchange};
use crate::common::{
    Carafe, assert_same, connect, connect_narrow, exchange, has_tool, pattern, root_with,
    run_carafe, skip, until, vanish,
};
use crate::gated::{Gated, NAME};
use crate::trusted_proxies::exchange_as_proxy;

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

/// What strace has seen of these objects, from the loops' first wait until the trace was written. A debug build asks whether what it closes is open, and where the entries of a folder
/// are read, which rustix does, the trace can't see. The cache lets go of inotify when its loop has ended.
fn seen(folder: &Path, objects: &[String]) -> Calls {
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
    let mut calls = Calls::new();
    for (_, name, arguments, result) in &lines[first..written.unwrap()] {
        // Only the table of mounts is asked so, whose name strace leaves out.
        let concerns_any =
            name == "ppoll" || objects.iter().any(|object| arguments.contains(object));
        let is_left_out = name == "getdents64"
            || arguments.ends_with("F_GETFD")
            || (name == "close" && arguments.contains(INOTIFY));
        if concerns_any && !is_left_out {
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

const INOTIFY: &str = "<anon_inode:inotify>";

/// A server whose calls strace writes down, and whose trace holds them.
struct Observed {
    folder: TempDir,
    root: TempDir,
    carafe: Carafe,
}

impl Observed {
    /// `None`, said aloud, without strace.
    fn serve(root: TempDir, flags: &[&str]) -> Option<Self> {
        has_tool("strace").then_some(())?;
        let folder = tempfile::tempdir().unwrap();
        let [calls, trace] = ["calls", "trace.json"].map(|name| folder.path().join(name));
        fs::create_dir(&calls).unwrap();
        let options = ["-ff", "-ttt", "-yy", "-s", "0", "--signal=none"];
        let flags = [flags, &["-q", "--trace", trace.to_str().unwrap()]].concat();
        let carafe = Carafe::serve_traced(root.path(), &calls.join("of"), &options, &flags);
        Some(Self {
            folder,
            root,
            carafe,
        })
    }

    /// Ends it. Both tell the same, which is given. Calls on sockets at this path count, too.
    fn agreed(self, path: Option<&Path>) -> Calls {
        self.carafe.signal(Signal::TERM);
        assert_eq!(self.carafe.wait().0.code(), Some(0));
        let mut objects = vec!["<TCP:".to_owned(), INOTIFY.to_owned()];
        objects.push(format!("<{}", self.root.path().display()));
        objects.extend(path.map(|path| format!("\"{}\"]>", path.display())));
        let seen = seen(&self.folder.path().join("calls"), &objects);
        let traced = traced(&events(&self.folder.path().join("trace.json")));
        assert_eq!(seen, traced);
        seen
    }
}

/// What each request of a connection is answered with begins to come before the next is sent.
fn ask_one_by_one(stream: &mut (impl Read + Write), paths: &[&str]) {
    for (index, path) in paths.iter().enumerate() {
        let is_last = index + 1 == paths.len();
        let close = if is_last { "Connection: close\r\n" } else { "" };
        write!(stream, "GET /{path} HTTP/1.1\r\nHost: x\r\n{close}\r\n").unwrap();
        if is_last {
            stream.read_to_end(&mut Vec::new()).unwrap();
        } else {
            stream.read_exact(&mut [0]).unwrap();
        }
    }
}

fn assert_has(calls: &Calls, names: &[&str]) {
    for name in names {
        assert!(calls.contains_key(*name), "{name}: {calls:?}");
    }
}

#[test]
fn every_call_that_strace_sees_is_in_it_and_none_more() {
    let large = pattern(1, 3_000_000);
    let root = root_with(&[("small", b"a few bytes".as_slice()), ("large", &large)]);
    fs::create_dir(root.path().join("folder")).unwrap();
    std::os::unix::fs::symlink("small", root.path().join("link")).unwrap();
    let Some(observed) = Observed::serve(root, &["--listing"]) else {
        return;
    };
    let addr = observed.carafe.addr();
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
    ask_one_by_one(&mut connect(addr), &["small", "folder/", "", "large"]);
    let calls = observed.agreed(None);
    let names = "accept4 recvfrom sendto sendfile openat2 close epoll_ctl";
    assert_has(&calls, &names.split(' ').collect::<Vec<_>>());
}

/// By all that a client can come by, to two loops, in all the ways to ask and to leave, and from a disk that
/// is waited for.
#[test]
fn the_calls_for_every_kind_of_client_are_in_it() {
    let large = pattern(1, 3_000_000);
    let root = root_with(&[("small", b"a few bytes".as_slice()), ("large", &large)]);
    let slow = root.path().join("slow");
    fs::create_dir(&slow).unwrap();
    let cold = Gated::mount(&slow, pattern(2, 1 << 20));
    let (authority, sockets) = (Authority::new(), tempfile::tempdir().unwrap());
    authority.sign("one", &["localhost"], FAR);
    let [certificate, key] = [authority.crt("one"), authority.key("one")];
    let socket = sockets.path().join("socket");
    let (local, trusted) = (format!("unix:{}", socket.display()), "127.0.0.2");
    let [certificate, key] = [&certificate, &key].map(|path| path.to_str().unwrap());
    let mut flags = vec!["--workers", "2", "-b", &local, "--trusted-proxy", trusted];
    flags.extend(["--tls-cert", certificate, "--tls-key", key]);
    let Some(observed) = Observed::serve(root, &flags) else {
        return;
    };
    let addr = observed.carafe.addr();
    for _ in 0..3 {
        // Several requests at once, of which one is for a range and one has no answer but its head.
        let mut pipelined = connect(addr);
        let requests = "GET /large HTTP/1.1\r\nHost: x\r\nRange: bytes=7-40\r\n\r\n\
            HEAD /small HTTP/1.1\r\nHost: x\r\n\r\n";
        pipelined.write_all(requests.as_bytes()).unwrap();
        ask_one_by_one(&mut pipelined, &["none", "small"]);
        ask_one_by_one(
            &mut authority.connect(addr, "localhost"),
            &["small", "large"],
        );
        let mut by_name = authority.connect(addr, "localhost");
        assert_eq!(
            tls_exchange(&mut by_name, b"small\n").unwrap(),
            b"a few bytes"
        );
        ask_one_by_one(
            &mut UnixStream::connect(&socket).unwrap(),
            &["small", "large"],
        );
        let said = b"PROXY TCP4 192.0.2.7 10.0.0.1 50000 80\r\n".as_slice();
        let through = exchange_as_proxy(&observed.carafe, &[said, b"small\n"]);
        assert_eq!(through.unwrap(), b"a few bytes");
        if cold.is_ok() {
            let name = format!("slow/{NAME}\n");
            let bytes = exchange(addr, name.as_bytes()).unwrap();
            assert_same("from a disk", &bytes, &pattern(2, 1 << 20));
        }
        // These leave: before they have asked, in the middle in good order, and by a reset.
        drop(connect(addr));
        for resets in [false, true] {
            let mut leaves = connect_narrow(addr, 4096);
            leaves.write_all(b"large\n").unwrap();
            leaves.read_exact(&mut [0; 100]).unwrap();
            if resets {
                vanish(leaves);
            }
        }
    }
    if let Err(error) = cold {
        skip("fuse", &error.to_string());
    }
    let calls = observed.agreed(Some(&socket));
    let names = "accept4 recvfrom sendto sendfile setsockopt shutdown getsockopt";
    assert_has(&calls, &names.split(' ').collect::<Vec<_>>());
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
