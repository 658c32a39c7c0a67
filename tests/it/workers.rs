//! Several loops side by side: all serve, they count as one, and they end together. Which loop a
//! client comes to is the kernel's choice, by its port; where a test needs clients on several, it
//! has so many that all on one is out of the question.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use crate::common::{
    Carafe, LARGE_BYTES, assert_conserved, assert_reset, begin_download, connect, count_lines,
    exchange, raise_own_limit, reason_count, reply_count, root_with, run_carafe, sparse_file,
    until, wait_for_a_second_signal,
};
use crate::scrape::{Page, get, metrics_of, watch_under_load};
use rustix::process::Signal;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

const SMALL: &[u8] = b"small bytes";

/// A root of `small` and `large`.
fn root() -> TempDir {
    let root = root_with(&[("small", SMALL)]);
    sparse_file(&root.path().join("large"), LARGE_BYTES as u64);
    root
}

/// A server of it, with so many loops.
fn server(workers: &str, flags: &[&str]) -> (TempDir, Carafe) {
    let root = root();
    // Silent clients count, too.
    let flags = [&["--workers", workers, "--no-defer-accept"], flags].concat();
    let carafe = Carafe::serve(root.path(), &flags);
    (root, carafe)
}

/// How many clients each loop has accepted, from the debug log of a server that has ended.
fn accepted_by_loop(log: &str) -> Vec<u64> {
    let count = |index| {
        let (_, counts) = log.split_once(&format!(" loop {index}: accepted "))?;
        counts.split([',', ';']).next()?.parse().ok()
    };
    (0..).map_while(count).collect()
}

/// Downloads of `large` under way.
fn begin_downloads(carafe: &Carafe, count: usize) -> Vec<TcpStream> {
    let begin = |_| begin_download(carafe.addr(), "large").0;
    (0..count).map(begin).collect()
}

/// Takes what is left of downloads.
fn finish(downloads: Vec<TcpStream>) {
    for mut client in downloads {
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert_eq!(rest.len() + 1, LARGE_BYTES);
    }
}

#[test]
fn all_loops_serve_and_count_as_one() {
    let (_root, carafe) = server("3", &["-v", "--metrics", "127.0.0.1:0"]);
    let metrics = metrics_of(&carafe);
    for _ in 0..200 {
        assert_eq!(exchange(carafe.addr(), b"small\n").unwrap(), SMALL);
        assert_eq!(exchange(carafe.addr(), b"missing\n").unwrap(), b"");
    }
    let silent = [(); 30].map(|()| connect(carafe.addr()));
    let accepted = |page: &Page| page.value("carafe_connections_accepted_total");
    until("every loop has shown what it counted", || {
        let page = Page::get(metrics);
        page.assert_conserved();
        accepted(&page) == 430.0 && page.sum("carafe_connections_ended_total") == 400.0
    });
    let page = Page::get(metrics);
    page.assert_conserved();
    assert_eq!(page.open("reading"), 30.0);
    assert_eq!(page.value("carafe_body_sent_bytes_total"), 200.0 * 11.0);
    assert_eq!(page.value("carafe_replies_total{class=\"2xx\"}"), 200.0);
    assert_eq!(page.value("carafe_replies_total{class=\"4xx\"}"), 200.0);
    assert_eq!(page.value("carafe_request_duration_seconds_count"), 400.0);
    // A turn accepts 128 clients at most, and may take one that came while it worked on another.
    assert!(page.value("carafe_loop_turn_duration_seconds_count") > 430.0 / 128.0);
    drop(silent);
    until("all have left", || {
        Page::get(metrics).sum("carafe_connections_open") == 0.0
    });
    let log = carafe.stop();
    let by_loop = accepted_by_loop(&log);
    assert_eq!(by_loop.len(), 3, "{log}");
    assert!(by_loop.iter().all(|&accepted| accepted > 0), "{by_loop:?}");
    assert_eq!(by_loop.iter().sum::<u64>(), 430);
    let summary = "accepted 430, closed 400, client left 30; replied 400, complete 200, refused 200; 2200 bytes sent";
    assert_eq!(count_lines(&log, summary), 1, "{log}");
    for once in ["listening on ", "metrics on ", "serving \"", "draining"] {
        assert_eq!(count_lines(&log, once), 1, "{once}: {log}");
    }
}

#[test]
fn the_page_is_right_at_every_moment_under_load() {
    let (_root, carafe) = server("2", &["--metrics", "127.0.0.1:0"]);
    let metrics = metrics_of(&carafe);
    watch_under_load(&carafe, metrics);
    let log = carafe.stop();
    assert_eq!(reason_count(&log, ""), 600, "{log}");
}

// ---- stopping ----

#[test]
fn downloads_on_several_loops_are_finished_while_draining() {
    let (_root, carafe) = server("3", &["-v"]);
    let downloads = begin_downloads(&carafe, 24);
    carafe.signal(Signal::TERM);
    carafe.wait_for_log("draining\n");
    let late = TcpStream::connect_timeout(&carafe.addr(), std::time::Duration::from_millis(300));
    assert!(late.is_err(), "a client was let in while draining");
    finish(downloads);
    let (status, log) = carafe.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_conserved(&log);
    assert_eq!(reply_count(&log, "complete"), 24, "{log}");
    let by_loop = accepted_by_loop(&log);
    let busy = by_loop.iter().filter(|&&accepted| accepted > 0).count();
    assert!(busy > 1, "{by_loop:?}");
    assert_eq!(count_lines(&log, "draining"), 1, "{log}");
}

#[test]
fn downloads_left_at_the_drains_end_are_reset_and_the_exit_says_so() {
    let (_root, carafe) = server("3", &["--drain", "300ms"]);
    let downloads = begin_downloads(&carafe, 12);
    carafe.signal(Signal::TERM);
    let (status, log) = carafe.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert_conserved(&log);
    assert_eq!(reason_count(&log, "drain deadline"), 12, "{log}");
    for mut client in downloads {
        assert_reset(client.read_to_end(&mut Vec::new()).map(|_| Vec::new()));
    }
}

#[test]
fn a_second_signal_ends_all_at_once_with_its_number() {
    for (second, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let (_root, carafe) = server("3", &[]);
        let downloads = begin_downloads(&carafe, 12);
        carafe.signal(Signal::TERM);
        carafe.wait_for_log("draining\n");
        wait_for_a_second_signal();
        carafe.signal(second);
        let (status, log) = carafe.wait();
        assert_eq!(status.code(), Some(code), "{log}");
        assert_conserved(&log);
        assert_eq!(reason_count(&log, "stopped"), 12, "{log}");
        for mut client in downloads {
            assert_reset(client.read_to_end(&mut Vec::new()).map(|_| Vec::new()));
        }
    }
}

/// With one client, all loops but one have nobody, mostly also the first, which has the signals and
/// the metrics. It stays for the others.
#[test]
fn metrics_and_signals_are_there_until_the_last_loop_ends() {
    let flags = ["--metrics", "127.0.0.1:0", "--drain", "1h"];
    let draining = || {
        let (root, carafe) = server("8", &flags);
        let downloads = begin_downloads(&carafe, 1);
        carafe.signal(Signal::TERM);
        carafe.wait_for_log("draining\n");
        let metrics = metrics_of(&carafe);
        // The accept queues are looked at for the last time within these requests.
        let shut = std::time::Instant::now() + 2 * carafe::limits::HANDSHAKE_GRACE;
        while std::time::Instant::now() < shut {
            assert_eq!(get(metrics, "/healthz"), (503, "draining\n".to_owned()));
            let page = Page::get(metrics);
            page.assert_conserved();
            assert_eq!(page.open("sending"), 1.0);
        }
        until("nobody has anything to do", || carafe.is_asleep());
        (root, carafe, downloads)
    };
    let (_root, carafe, downloads) = draining();
    finish(downloads);
    let (status, log) = carafe.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(reply_count(&log, "complete"), 1, "{log}");

    let (_root, carafe, downloads) = draining();
    carafe.signal(Signal::INT);
    let (status, log) = carafe.wait();
    assert_eq!(status.code(), Some(130), "{log}");
    assert_eq!(reason_count(&log, "stopped"), 1, "{log}");
    drop(downloads);
}

// ---- the port ----

/// Tries to serve at an address that is taken.
fn assert_taken(addr: SocketAddr, flags: &[&str]) {
    let (ip, port) = (addr.ip().to_string(), addr.port().to_string());
    let args = [&["serve", ".", "--bind", &ip, "-p", &port], flags].concat();
    let args: Vec<_> = args.iter().map(OsStr::new).collect();
    let output = run_carafe(&args);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    let begin = format!("carafe: {addr} can't be listened on: ");
    assert!(text.starts_with(&begin), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn no_two_servers_share_a_port() {
    for running in ["1", "2", "5"] {
        let (_root, carafe) = server(running, &[]);
        for flags in [&[][..], &["--workers", "2"], &["--workers", "7"]] {
            assert_taken(carafe.addr(), flags);
        }
        for _ in 0..30 {
            assert_eq!(exchange(carafe.addr(), b"small\n").unwrap(), SMALL);
        }
        carafe.stop_clean();
    }
}

#[test]
fn of_servers_that_start_together_one_at_most_has_the_port() {
    let root = root();
    // An address of its own: other tests' clients don't take the port meanwhile.
    let start = |port: &str, workers: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_carafe"));
        command.arg("serve").arg(root.path());
        command.args(["--bind", "127.0.0.79", "-p", port, "--workers", workers]);
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let mut finder = start("0", "1");
    let mut line = String::new();
    let mut stderr = BufReader::new(finder.stderr.take().unwrap());
    stderr.read_line(&mut line).unwrap();
    let port = line.trim().rsplit(':').next().unwrap();
    finder.kill().unwrap();
    finder.wait().unwrap();
    for _ in 0..10 {
        let mut servers = ["2", "1", "3", "2", "4"].map(|workers| start(port, workers));
        let mut first_lines = Vec::new();
        for server in &mut servers {
            let mut line = String::new();
            let mut stderr = BufReader::new(server.stderr.take().unwrap());
            stderr.read_line(&mut line).unwrap();
            first_lines.push(line);
        }
        for mut server in servers {
            server.kill().unwrap();
            server.wait().unwrap();
        }
        let count = |what| {
            first_lines
                .iter()
                .filter(|line| line.contains(what))
                .count()
        };
        let (listen, fail) = (count("listening on "), count("can't be listened on"));
        assert!(listen <= 1 && listen + fail == 5, "{first_lines:?}");
    }
}

#[test]
fn one_loop_shares_its_port_with_nobody() {
    let (_root, carafe) = server("1", &[]);
    let other = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    other.set_reuse_address(true).unwrap();
    other.set_reuse_port(true).unwrap();
    let error = other.bind(&carafe.addr().into()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    carafe.stop_clean();
}

#[test]
fn port_zero_is_one_port_for_all_loops_and_addresses() {
    let (_root, carafe) = server("3", &["--bind", "127.0.0.2", "--bind", "127.0.0.3"]);
    let log = carafe.wait_for_log("serving ");
    assert_eq!(count_lines(&log, "listening on "), 3, "{log}");
    let announced = carafe.announced();
    let ips: Vec<_> = announced.iter().map(|addr| addr.ip().to_string()).collect();
    assert_eq!(ips, ["127.0.0.1", "127.0.0.2", "127.0.0.3"]);
    for &addr in &announced {
        assert_eq!(addr.port(), carafe.addr().port());
        for _ in 0..30 {
            assert_eq!(exchange(addr, b"small\n").unwrap(), SMALL);
        }
    }
    carafe.stop_clean();
}

#[test]
fn all_addresses_of_both_families_are_shared_out() {
    let root = root();
    let mut command = Command::new(env!("CARGO_BIN_EXE_carafe"));
    command.arg("serve").arg(root.path());
    command.args(["-p", "0", "--workers", "3", "-v"]);
    let carafe = Carafe::start(command);
    let by_ipv4 = SocketAddr::from(([127, 0, 0, 1], carafe.addr().port()));
    for _ in 0..60 {
        assert_eq!(exchange(by_ipv4, b"small\n").unwrap(), SMALL);
    }
    let log = carafe.stop();
    let by_loop = accepted_by_loop(&log);
    assert!(by_loop.iter().all(|&accepted| accepted > 0), "{by_loop:?}");
}

#[test]
fn a_restart_takes_the_same_port_at_once() {
    let root = root();
    let mut port = "0".to_owned();
    for workers in ["3", "1", "2"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_carafe"));
        command.arg("serve").arg(root.path());
        // An address of its own: other tests' clients don't take the port meanwhile.
        command.args(["--bind", "127.0.0.78", "-p", &port, "--workers", workers]);
        let carafe = Carafe::start(command);
        port = carafe.port();
        for _ in 0..30 {
            // The server closes first: its port is left in TIME_WAIT.
            assert_eq!(exchange(carafe.addr(), b"small\n").unwrap(), SMALL);
        }
        carafe.stop_clean();
    }
}

// ---- what is shared, and what is divided ----

#[test]
fn a_hangup_reaches_all_loops_and_the_one_access_log() {
    let folder = root_with(&[("old/file", b"old"), ("new/file", b"new")]);
    let (link, access_log) = (folder.path().join("root"), folder.path().join("log"));
    symlink("old", &link).unwrap();
    let flags = [
        "--workers",
        "3",
        "--access-log",
        access_log.to_str().unwrap(),
    ];
    let carafe = Carafe::serve(&link, &flags);
    for _ in 0..60 {
        assert_eq!(exchange(carafe.addr(), b"file\n").unwrap(), b"old");
    }
    // A line is written after its client has seen the end.
    until("all have their lines", || {
        let lines = fs::read_to_string(&access_log).unwrap();
        lines.lines().count() == 60
    });
    fs::remove_file(&link).unwrap();
    symlink("new", &link).unwrap();
    fs::rename(&access_log, folder.path().join("log.1")).unwrap();
    carafe.signal(Signal::HUP);
    until("all have opened everything anew", || {
        let log = carafe.log();
        count_lines(&log, "root\" was opened anew") == 3
            && count_lines(&log, "log\" was opened anew") == 1
    });
    for _ in 0..60 {
        assert_eq!(exchange(carafe.addr(), b"file\n").unwrap(), b"new");
    }
    carafe.stop_clean();
    for name in ["log.1", "log"] {
        let lines = fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(count_lines(&lines, "\"NAME file\" 200 3 "), 60, "{lines}");
        assert_eq!(lines.lines().count(), 60, "{lines}");
    }
}

#[test]
fn the_limit_of_connections_is_divided() {
    const WARNING: &str = "the limit of 2 connections is reached: new clients wait";
    let flags = ["--metrics", "127.0.0.1:0", "--max-connections", "6"];
    let (_root, carafe) = server("3", &flags);
    let metrics = metrics_of(&carafe);
    let clients: Vec<_> = (0..60)
        .map(|_| {
            // It keeps its place until it has taken everything.
            let mut client = crate::common::connect_narrow(carafe.addr(), 64 * 1024);
            client.write_all(b"large\n").unwrap();
            client
        })
        .collect();
    until("every loop has its two", || {
        Page::get(metrics).open("sending") == 6.0
    });
    carafe.wait_for_log(WARNING);
    let page = Page::get(metrics);
    assert_eq!(page.value("carafe_connections_accepted_total"), 6.0);
    drop(clients);
    until("those at the door came in", || {
        let page = Page::get(metrics);
        page.assert_conserved();
        page.value("carafe_connections_accepted_total") == 60.0
            && page.sum("carafe_connections_open") == 0.0
    });
    carafe.stop_warned(&[WARNING]);
}

#[test]
fn more_loops_than_connections_or_descriptors_are_a_usage_error() {
    let run = |script: &str, flags: &[&str]| {
        let output = Command::new("sh")
            .args(["-c", &format!("{script} exec \"$0\" \"$@\"")])
            .arg(env!("CARGO_BIN_EXE_carafe"))
            .args(["serve", ".", "-p", "0", "--bind", "127.0.0.1"])
            .args(flags)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        text
    };
    assert_eq!(
        run("", &["--workers", "4", "--max-connections", "3"]),
        "carafe: --max-connections: '3' won't do: it takes 4 at least, one for each of the workers\n"
    );
    assert_eq!(
        run("ulimit -n 64;", &["--workers", "8"]),
        "carafe: --workers: '8' won't do: with 64 descriptors it takes fewer\n"
    );
    let files = raise_own_limit().to_string();
    let text = run("", &["--workers", "2", "--open-files", &files]);
    assert!(text.starts_with("carafe: --open-files: "), "{text}");
}

#[test]
fn few_descriptors_do_for_a_few_loops() {
    let root = root();
    let carafe = Carafe::serve_limited(root.path(), 64, &["--workers", "3", "--no-defer-accept"]);
    let asking: Vec<_> = (0..60)
        .map(|_| {
            let mut client = connect(carafe.addr());
            client.write_all(b"small\n").unwrap();
            client
        })
        .collect();
    for mut client in asking {
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, SMALL);
    }
    // Whether all of a loop's places were taken at some time is a matter of luck.
    carafe.stop();
}

#[test]
fn a_loop_more_is_a_thread_more_and_one_is_none() {
    let threads = |workers| {
        let (_root, carafe) = server(workers, &[]);
        let tasks = fs::read_dir(format!("/proc/{}/task", carafe.pid())).unwrap();
        let count = tasks.count();
        carafe.stop_clean();
        count
    };
    let (one, three) = (threads("1"), threads("3"));
    // It, and the log's.
    assert_eq!([one, three], [2, 4]);
}
