//! The metrics on their own port: they are right, and they are there when the server is full or
//! stopping.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use crate::common::{
    Carafe, ENDED, LARGE_BYTES, begin_download, connect, count_lines, exchange, reason_count,
    reply_count, root_with, sparse_file, until, vanish,
};
use crate::scrape::{Page, get, metrics_of, watch_under_load};
use carafe::limits::METRICS_CONNECTIONS_MAX;
use rustix::process::Signal;
use tempfile::TempDir;

/// A server of `small` and `large`, and where its metrics are.
fn server(flags: &[&str]) -> (TempDir, Carafe, SocketAddr) {
    let root = root_with(&[("small", b"small bytes")]);
    sparse_file(&root.path().join("large"), LARGE_BYTES as u64);
    // Silent clients are counted, too.
    let flags = [&["--metrics", "127.0.0.1:0", "--no-defer-accept"], flags].concat();
    let carafe = Carafe::serve(root.path(), &flags);
    let metrics = metrics_of(&carafe);
    (root, carafe, metrics)
}

#[test]
fn the_page_counts_clients_replies_and_bytes() {
    let (_root, carafe, metrics) = server(&[]);
    for _ in 0..3 {
        assert_eq!(exchange(carafe.addr(), b"small\n").unwrap(), b"small bytes");
    }
    exchange(carafe.addr(), b"missing\n").unwrap();
    let (gone, _) = begin_download(carafe.addr(), "large");
    vanish(gone);
    carafe.wait_for_log("reset by peer");
    let silent = [(); 2].map(|()| connect(carafe.addr()));
    let (sending, _) = begin_download(carafe.addr(), "large");
    // It lingers: its name had no end.
    let mut closing = connect(carafe.addr());
    closing.write_all(b"small").unwrap();
    closing.read_to_end(&mut Vec::new()).unwrap();

    let page = Page::get(metrics);
    page.assert_conserved();
    assert_eq!(page.value("carafe_connections_accepted_total"), 9.0);
    let states = ["reading", "idle", "sending", "closing"].map(|state| page.open(state));
    assert_eq!(states, [2.0, 0.0, 1.0, 1.0]);
    let ended = |reason| {
        page.value(&format!(
            "carafe_connections_ended_total{{reason=\"{reason}\"}}"
        ))
    };
    assert_eq!(
        [
            ended("closed"),
            ended("client left"),
            ended("reset by peer")
        ],
        [4.0, 0.0, 1.0]
    );
    let replied = |outcome| {
        page.value(&format!(
            "carafe_reply_outcomes_total{{outcome=\"{outcome}\"}}"
        ))
    };
    assert_eq!(
        ["complete", "refused", "reset by peer"].map(replied),
        [3.0, 1.0, 1.0]
    );
    let replies = |class| page.value(&format!("carafe_replies_total{{class=\"{class}\"}}"));
    assert_eq!(
        [replies("2xx"), replies("4xx"), replies("5xx")],
        [3.0, 2.0, 0.0]
    );
    assert!(page.value("carafe_body_sent_bytes_total") > 33.0);
    assert_eq!(page.value("carafe_request_duration_seconds_count"), 5.0);
    assert_eq!(
        page.value("carafe_request_duration_seconds_bucket{le=\"+Inf\"}"),
        5.0
    );
    assert!(page.value("carafe_loop_turn_duration_seconds_count") > 0.0);
    assert_eq!(page.sum("carafe_log_lines_dropped_total"), 0.0);
    assert!(page.value("process_max_fds") >= page.value("process_open_fds"));
    // The scrape's own is among them.
    until("the descriptors are counted", || {
        let open = carafe.descriptors() as f64;
        Page::get(metrics).value("process_open_fds") == open + 1.0
    });
    drop((silent, sending, closing));
    until("all have ended", || {
        Page::get(metrics).sum("carafe_connections_open") == 0.0
    });
    Page::get(metrics).assert_conserved();
    carafe.stop();
}

#[test]
fn the_page_is_right_at_every_moment_under_load() {
    let (_root, carafe, metrics) = server(&[]);
    watch_under_load(&carafe, metrics);
    let log = carafe.stop();
    assert_eq!(reason_count(&log, ""), 600, "{log}");
}

#[test]
fn those_who_look_are_no_clients() {
    let (_root, carafe, metrics) = server(&[]);
    let idle = carafe.sockets();
    for _ in 0..20 {
        assert_eq!(get(metrics, "/healthz"), (200, "ok\n".to_owned()));
        assert_eq!(get(metrics, "/elsewhere").0, 404);
        let post = b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
        assert!(
            exchange(metrics, post)
                .unwrap()
                .starts_with(b"HTTP/1.1 405 ")
        );
        assert!(
            exchange(metrics, b"hello.txt\n")
                .unwrap()
                .starts_with(b"HTTP/1.1 400 ")
        );
        drop(connect(metrics));
        vanish(connect(metrics));
    }
    let page = Page::get(metrics);
    assert_eq!(page.value("carafe_connections_accepted_total"), 0.0);
    assert_eq!(page.sum("carafe_replies_total"), 0.0);
    until("every descriptor is back", || carafe.sockets() == idle);
    let log = carafe.stop();
    assert_eq!(count_lines(&log, ENDED), 0, "{log}");
    assert!(log.contains("accepted 0; replied 0; 0 bytes sent"), "{log}");
}

#[test]
fn the_metrics_are_there_when_the_server_is_full() {
    const WARNING: &str = "the limit of 2 connections is reached: new clients wait";
    let (_root, carafe, metrics) = server(&["--max-connections", "2"]);
    let held = [(); 2].map(|()| begin_download(carafe.addr(), "large").0);
    let mut waiting = connect(carafe.addr());
    waiting.write_all(b"small\n").unwrap();
    carafe.wait_for_log(WARNING);
    for _ in 0..3 {
        let page = Page::get(metrics);
        page.assert_conserved();
        assert_eq!(page.open("sending"), 2.0);
        assert_eq!(get(metrics, "/healthz").0, 200);
    }
    drop(held);
    let mut reply = Vec::new();
    waiting.read_to_end(&mut reply).unwrap();
    assert_eq!(reply, b"small bytes");
    carafe.stop_warned(&[WARNING]);
}

#[test]
fn nobody_keeps_those_who_look_out() {
    let (_root, carafe, metrics) = server(&[]);
    let before = carafe.sockets();
    // Some say nothing, some a part of a request, and some wait for nothing but an end of theirs.
    for begin in ["", "GET /metr", "GET /healthz HTTP/1.1\r\n\r\nand more"] {
        let mut held: Vec<TcpStream> = (0..METRICS_CONNECTIONS_MAX)
            .map(|_| {
                let mut client = connect(metrics);
                client.write_all(begin.as_bytes()).unwrap();
                client
            })
            .collect();
        until("they are let in", || {
            carafe.sockets() == before + held.len()
        });
        for _ in 0..3 {
            assert_eq!(get(metrics, "/healthz"), (200, "ok\n".to_owned()));
            // The oldest one made room.
            let mut left = held.remove(0);
            left.read_to_end(&mut Vec::new()).unwrap();
            held.push(connect(metrics));
            until("the newest one is let in", || {
                carafe.sockets() == before + METRICS_CONNECTIONS_MAX
            });
        }
        assert_eq!(exchange(carafe.addr(), b"small\n").unwrap(), b"small bytes");
        drop(held);
        until("they are gone", || carafe.sockets() == before);
    }
    carafe.stop_warned(&[]);
}

#[test]
fn while_it_drains_it_says_so_and_nobody_who_looks_holds_up_the_end() {
    let (_root, carafe, metrics) = server(&["--drain", "1h"]);
    let (mut client, _) = begin_download(carafe.addr(), "large");
    carafe.signal(Signal::TERM);
    carafe.wait_for_log("draining\n");
    let silent = connect(metrics);
    for _ in 0..3 {
        assert_eq!(get(metrics, "/healthz"), (503, "draining\n".to_owned()));
        let page = Page::get(metrics);
        page.assert_conserved();
        assert_eq!(page.sum("carafe_connections_open"), 1.0);
    }
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len() + 1, LARGE_BYTES);
    drop(client);
    let (status, log) = carafe.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    crate::common::assert_conserved(&log);
    assert_eq!(reply_count(&log, "complete"), 1, "{log}");
    drop(silent);
}

#[test]
fn a_taken_metrics_address_ends_the_start() {
    let (_root, carafe, metrics) = server(&[]);
    let address = metrics.to_string();
    let args = ["serve", ".", "-p", "0", "--metrics", &address].map(std::ffi::OsStr::new);
    let output = crate::common::run_carafe(&args);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    let begin = format!("carafe: {address} can't be listened on: ");
    assert!(text.starts_with(&begin), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    carafe.stop_clean();
}
