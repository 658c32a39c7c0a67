//! How connections that speak HTTP live and end: their clocks, who must go first, the drain, and
//! what is counted and logged.

use std::fs;
use std::io::Read as _;

use crate::common::{
    Carafe, ENDED, LARGE_BYTES, assert_conserved, assert_reset, assert_same, count_lines, exchange,
    has_tool, pattern, reason_count, reply_count, root_with, until, vanish,
};
use crate::talk::{Talk, ask, get};
use rustix::process::Signal;
use tempfile::TempDir;

const SMALL: &[u8] = b"small bytes";

fn server(flags: &[&str]) -> (TempDir, Carafe) {
    let root = root_with(&[("small", SMALL.to_vec()), ("large", large())]);
    let carafe = Carafe::serve(root.path(), flags);
    (root, carafe)
}

fn large() -> Vec<u8> {
    pattern(9, LARGE_BYTES)
}

/// A connection on which one request was answered.
fn kept(carafe: &Carafe) -> Talk {
    let mut talk = Talk::to(carafe.addr());
    assert_eq!(talk.get("/small").body, SMALL);
    talk
}

/// One on which `large` is under way, as far as the buffers hold.
fn downloading(carafe: &Carafe) -> Talk {
    let mut talk = Talk::narrow(carafe.addr());
    talk.say(get("/large", ""));
    assert_eq!(talk.head().status, 200);
    talk
}

fn drain(carafe: &Carafe) {
    carafe.signal(Signal::TERM);
    carafe.wait_for_log("draining\n");
}

// ---- clocks ----

#[test]
fn a_request_has_its_time_from_accept_or_from_its_first_byte() {
    let (_root, carafe) = server(&["--request-timeout", "300ms", "--keep-alive", "1h"]);
    for first in ["", "G", "GET ", "GET /small HTTP/1.1\r\nHost: h\r\n"] {
        let mut talk = Talk::to(carafe.addr());
        talk.say(first);
        talk.ends();
        // A later one. Before its first byte only the keep-alive counts, which is long.
        if !first.is_empty() {
            let mut talk = kept(&carafe);
            talk.say(first);
            talk.ends();
        }
    }
    // Two of them in one write: the second one is cut.
    let mut talk = Talk::to(carafe.addr());
    talk.say(get("/small", "") + "GET /sma");
    assert_eq!(talk.answer().body, SMALL);
    talk.ends();
    let log = carafe.stop_warned(&[]);
    assert_eq!(reason_count(&log, "request timeout"), 8, "{log}");
    assert_eq!(
        count_lines(&log, "\"GET /small HTTP/1.1\" 200 "),
        4,
        "{log}"
    );
}

#[test]
fn an_idle_connection_is_closed_in_order() {
    let (_root, carafe) = server(&["--keep-alive", "200ms", "-v"]);
    let mut idle = [kept(&carafe), kept(&carafe), kept(&carafe)];
    for talk in &mut idle {
        talk.ends();
    }
    let log = carafe.stop_warned(&[]);
    assert!(log.contains("accepted 3, closed 3;"), "{log}");
    // One line for each reply; that nothing came after it is for those who debug.
    let info: Vec<_> = log.lines().filter(|line| line.contains(" INFO ")).collect();
    assert_eq!(count_lines(&info.join("\n"), ENDED), 3, "{log}");
    assert_eq!(count_lines(&log, " - closed"), 3, "{log}");
}

#[test]
fn a_slow_reader_on_a_kept_connection_gets_it_all() {
    let (_root, carafe) = server(&["--request-timeout", "200ms"]);
    let mut talk = downloading(&carafe);
    // What comes meanwhile: its edge is no news to a connection that is sending.
    talk.say(get("/small", ""));
    let started = carafe.cpu_ticks();
    // A request's clock stands while a reply is sent, longer than it would run.
    let mut other = Talk::to(carafe.addr());
    other.ends();
    assert!(carafe.cpu_ticks() - started < 50, "it spins");
    assert_same("large", &talk.take(LARGE_BYTES), &large());
    assert_eq!(talk.answer().body, SMALL);
    talk.say(get("/small", "Connection: close\r\n"));
    assert_eq!(talk.answer().body, SMALL);
    talk.ends();
    carafe.stop_clean();
}

#[test]
fn a_client_that_takes_nothing_is_reset() {
    let (_root, carafe) = server(&["--stall-timeout", "200ms"]);
    let talk = downloading(&carafe);
    carafe.wait_for_log(" stalled");
    let mut rest = Vec::new();
    let result = talk.stream.into_inner().read_to_end(&mut rest);
    assert_reset(result.map(|_| rest));
    carafe.stop();
}

// ---- room ----

#[test]
fn those_idle_for_longest_make_room_where_no_other_can() {
    let flags = "--max-connections 10 --request-timeout 1h --keep-alive 1h --stall-timeout 1h";
    let flags: Vec<_> = flags.split(' ').collect();
    let (_root, carafe) = server(&flags);
    let mut idle: Vec<_> = (0..7).map(|_| kept(&carafe)).collect();
    // Those who download stay whatever comes.
    let mut busy: Vec<_> = (0..2).map(|_| downloading(&carafe)).collect();
    // Nine are there. The first one asks again, so the second one is idle for longest.
    assert_eq!(idle[0].get("/small").body, SMALL);
    busy.push(downloading(&carafe));
    for at in [1, 2, 3] {
        busy.push(downloading(&carafe));
        idle[at].ends();
    }
    for talk in &mut busy {
        assert_same("large", &talk.take(LARGE_BYTES), &large());
    }
    for at in [0, 4, 5, 6] {
        assert_eq!(idle[at].get("/small").body, SMALL, "{at}");
    }
    drop((idle, busy));
    let log = carafe.stop_warned(&[]);
    assert!(log.contains("accepted 13, closed 13;"), "{log}");
}

#[test]
fn a_full_server_keeps_all_alive_until_one_more_wants_a_place_and_all_are_told() {
    let (_root, carafe) = server(&["--max-connections", "10"]);
    let mut talks: Vec<_> = (0..10).map(|_| kept(&carafe)).collect();
    for talk in &mut talks {
        assert!(!talk.get("/small").is_last());
    }
    // One more: who is idle for longest makes room, and nobody is kept alive.
    let busy = downloading(&carafe);
    talks[0].ends();
    let answer = talks[1].get("/small");
    assert_eq!((answer.is_last(), &*answer.body), (true, SMALL));
    talks[1].ends();
    // A place is free.
    assert!(!talks[2].get("/small").is_last());
    drop((talks, busy));
    carafe.stop();
}

/// Who has asked for nothing makes room for those who ask: they lose no answer and no connection.
#[test]
fn silent_clients_and_parts_of_requests_go_first_and_the_oldest_of_them() {
    let flags = ["--max-connections", "30", "--request-timeout", "1h"];
    let (_root, carafe) = server(&[&flags[..], &["--no-defer-accept"]].concat());
    let before = carafe.sockets();
    for part in ["", "GET /small HTTP/1.1\r\n"] {
        let mut honest: Vec<_> = (0..3).map(|_| kept(&carafe)).collect();
        let mut flood: Vec<_> = (0..27)
            .map(|_| {
                let mut talk = Talk::to(carafe.addr());
                // One after the other: their order is that in which they are heard.
                talk.say_and_see_read_by(part, &mut honest[0]);
                talk
            })
            .collect();
        for oldest in &mut flood[..20] {
            // All places are taken: this one needs one, and so will the one after it.
            let mut newcomer = Talk::to(carafe.addr());
            let answer = newcomer.get("/small");
            assert_eq!((answer.is_last(), &*answer.body), (false, SMALL));
            oldest.ends();
            honest.push(newcomer);
            for talk in &mut honest {
                let answer = talk.get("/small");
                assert_eq!((answer.is_last(), &*answer.body), (false, SMALL));
            }
        }
        // Those who have come last are there yet, and may ask.
        for talk in &mut flood[20..] {
            let whole = match part {
                "" => get("/small", ""),
                _ => "Host: h\r\n\r\n".to_owned(),
            };
            assert_eq!(talk.ask(&whole).body, SMALL);
        }
        drop((honest, flood));
        until("all are gone", || carafe.sockets() == before);
    }
    let log = carafe.stop_warned(&[]);
    assert_eq!(reason_count(&log, "evicted"), 40, "{log}");
}

#[test]
fn a_single_place_goes_from_client_to_client() {
    let (_root, carafe) = server(&["--max-connections", "1"]);
    for _ in 0..5 {
        let answer = ask(carafe.addr(), &get("/small", ""));
        assert_eq!(&*answer.body, SMALL);
    }
    let log = carafe.stop();
    assert!(log.contains("accepted 5, closed 5;"), "{log}");
}

// ---- the drain ----

#[test]
fn a_drain_ends_the_idle_at_once_and_lets_the_others_finish() {
    let (_root, carafe) = server(&["--drain", "1h", "--keep-alive", "1h"]);
    let mut idle = [kept(&carafe), kept(&carafe)];
    let mut busy = downloading(&carafe);
    let mut asking = kept(&carafe);
    asking.say_and_see_read_by("GET /small HTTP/1.1\r\n", &mut idle[0]);
    let mut first = Talk::to(carafe.addr());
    first.say_and_see_read_by("HEAD /small HTTP/1.1\r\n", &mut idle[1]);
    drain(&carafe);
    for talk in &mut idle {
        talk.ends();
    }
    let answer = asking.ask("Host: h\r\n\r\n");
    assert_eq!((answer.is_last(), &*answer.body), (true, SMALL));
    first.say("Host: h\r\n\r\n");
    assert!(first.head().is_last());
    assert_same("large", &busy.take(LARGE_BYTES), &large());
    for talk in [&mut asking, &mut first, &mut busy] {
        talk.ends();
    }
    drop((idle, busy, asking, first));
    let (status, log) = carafe.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_conserved(&log);
    assert!(log.contains("accepted 5, closed 5;"), "{log}");
}

#[test]
fn a_request_that_lies_there_when_the_drain_begins_is_answered() {
    let (_root, carafe) = server(&[]);
    let mut talks = [kept(&carafe), kept(&carafe)];
    carafe.signal(Signal::STOP);
    until("it stands still", || carafe.is_stopped());
    talks[0].say(get("/small", ""));
    talks[1].say(get("/small", "") + &get("/small", ""));
    carafe.signal(Signal::TERM);
    carafe.signal(Signal::CONT);
    for (talk, asked) in talks.iter_mut().zip([1, 2]) {
        // The signal may reach another thread first; then the loop doesn't know of it yet.
        for _ in 0..asked {
            let answer = talk.answer();
            assert_eq!(&*answer.body, SMALL);
            if answer.is_last() {
                break;
            }
        }
        talk.ends();
    }
    drop(talks);
    let (status, log) = carafe.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

// ---- what breaks ----

#[test]
fn a_server_that_is_killed_leaves_no_short_body_that_looks_whole() {
    let (_root, carafe) = server(&[]);
    let mut idle = kept(&carafe);
    let mut busy = downloading(&carafe);
    carafe.signal(Signal::KILL);
    carafe.wait();
    idle.ends();
    let mut rest = Vec::new();
    let ended = busy.stream.read_to_end(&mut rest);
    assert!(ended.is_err() || rest.len() < LARGE_BYTES, "{}", rest.len());
}

#[test]
fn a_file_that_becomes_shorter_ends_in_a_reset() {
    let (root, carafe) = server(&[]);
    for fields in ["", "Range: bytes=1-\r\n", "Range: bytes=0-9,20-\r\n"] {
        let mut talk = Talk::narrow(carafe.addr());
        talk.say(get("/large", fields));
        assert!(matches!(talk.head().status, 200 | 206));
        let file = fs::File::options()
            .write(true)
            .open(root.path().join("large"));
        file.unwrap().set_len(1_000).unwrap();
        let mut rest = Vec::new();
        let result = talk.stream.read_to_end(&mut rest);
        assert_reset(result.map(|_| rest));
        fs::write(root.path().join("large"), large()).unwrap();
    }
    let log = carafe.stop_warned(&["became shorter while it was sent"]);
    assert_eq!(count_lines(&log, " became shorter while "), 3, "{log}");
}

#[test]
fn everything_is_counted_and_every_reply_is_logged() {
    let (_root, carafe) = server(&["--keep-alive", "1h"]);
    let sockets = carafe.sockets();
    for _ in 0..10 {
        let mut talk = kept(&carafe);
        assert_eq!(talk.get("/missing").status, 404);
        assert_eq!(talk.ask("\0\r\n\r\n").status, 400);
        talk.ends();
        vanish(downloading(&carafe).stream.into_inner());
        drop(downloading(&carafe));
        vanish(kept(&carafe).stream.into_inner());
        drop(kept(&carafe));
        let mut half = kept(&carafe);
        half.say("GET /sm");
        half.half_close();
        half.ends();
        assert_eq!(exchange(carafe.addr(), b"small\n").unwrap(), SMALL);
    }
    until("all are forgotten", || carafe.sockets() == sockets);
    let log = carafe.stop_warned(&[]);
    assert!(log.contains("accepted 70, "), "{log}");
    assert_eq!(reply_count(&log, "refused"), 20, "{log}");
    assert_eq!(reason_count(&log, "client left"), 10, "{log}");
    // Of each round: 3 + 2 downloads + 2 + 1 and the part of a request + 1.
    assert_eq!(count_lines(&log, ENDED), 10 * 10, "{log}");
    assert_eq!(count_lines(&log, "\"GET /large HTTP/1.1\""), 20, "{log}");
    assert_eq!(count_lines(&log, "\"GET /sm\""), 10, "{log}");
}

#[test]
fn nothing_that_a_client_sends_forges_a_line_of_the_log() {
    let (_root, carafe) = server(&[]);
    for request in [
        "GET /a\x1b[31m\"\u{202e}\u{85} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        "GET /\r[2026-01-01T00:00:00Z INFO forged] HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /x\0\x07 HTTP/1.0\r\n\r\n",
        "GET /%0aforged%0d%1b HTTP/1.0\r\n\r\n",
    ] {
        let mut talk = Talk::to(carafe.addr());
        talk.say(request);
        talk.rest();
    }
    let log = carafe.stop();
    assert_eq!(count_lines(&log, ENDED), 4, "{log}");
    let is_safe = |c: char| c == '\n' || !(c.is_control() || c == '\u{202e}');
    assert!(log.chars().all(is_safe), "{log:?}");
    assert!(
        log.lines()
            .all(|line| !line.starts_with("[2026-01-01T00:00:00Z INFO forged"))
    );
}

// ---- many, and what one costs ----

#[test]
fn a_thousand_kept_connections_at_once() {
    const CLIENTS: usize = 1_000;
    crate::common::raise_own_limit();
    let (_root, carafe) = server(&["--keep-alive", "1h"]);
    let sockets = carafe.sockets();
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| Talk::to(carafe.addr())).collect();
    for _ in 0..5 {
        for talk in &mut clients {
            talk.say(get("/small", ""));
        }
        for talk in &mut clients {
            assert_eq!(talk.answer().body, SMALL);
        }
    }
    until("only the connections are open", || {
        carafe.sockets() == sockets + CLIENTS
    });
    drop(clients);
    until("all are forgotten", || carafe.sockets() == sockets);
    let log = carafe.stop_warned(&[]);
    assert!(log.contains("accepted 1000, closed 1000;"), "{log}");
    assert_eq!(count_lines(&log, ENDED), 5 * CLIENTS);
}

#[test]
fn a_request_on_a_kept_connection_costs_one_read_and_one_send() {
    const REQUESTS: usize = 100;
    if !has_tool("strace") {
        return;
    }
    let root = root_with(&[("small", SMALL)]);
    let calls = root.path().join("calls");
    // Only its loop's thread is traced. What the cache spares is counted in tests/cache.rs.
    let carafe = Carafe::serve_traced(root.path(), &calls, &[], &["--cache", "0"]);
    // The first look at a name may wait for the disk, which is a helper's to do.
    assert_eq!(kept(&carafe).get("/missing?first").status, 404);
    let mut talk = kept(&carafe);
    assert_eq!(talk.get("/small").body, SMALL);
    assert_eq!(talk.get("/missing?begin").status, 404);
    for _ in 0..REQUESTS {
        assert_eq!(talk.get("/small").body, SMALL);
    }
    assert_eq!(talk.get("/missing?end").status, 404);
    drop(talk);
    carafe.stop_clean();
    let text = fs::read_to_string(&calls).unwrap();
    let begin = text.find("/missing?begin").unwrap();
    let end = text.find("/missing?end").unwrap();
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    // After a request that waited for a helper the queue is looked at, and may be empty.
    let lines = text[begin..end].lines().skip(1);
    for line in lines.filter(|line| !line.contains(" EAGAIN ")) {
        *counts.entry(line.split('(').next().unwrap()).or_default() += 1;
    }
    // At the beginning the rest of the answer to the missing one, at the end the next request.
    for (call, expected) in [
        ("openat2", REQUESTS + 1),
        ("fstat", REQUESTS),
        ("close", REQUESTS),
        ("sendto", REQUESTS + 1),
    ] {
        assert_eq!(
            counts.remove(call).unwrap_or(0),
            expected,
            "{call}: {counts:?}"
        );
    }
    let reads: usize = ["recvfrom", "read"]
        .iter()
        .filter_map(|call| counts.remove(call))
        .sum();
    assert_eq!(reads, REQUESTS + 1, "{counts:?}");
    // What is in memory is read without a question, or is the answer to it.
    let preads = ["pread64", "preadv2"].iter();
    let preads: usize = preads.filter_map(|call| counts.remove(call)).sum();
    assert_eq!(preads, REQUESTS, "{counts:?}");
    // None where the next request came before it was waited for.
    let waits = counts.remove("epoll_wait").unwrap_or(0);
    assert!(waits <= REQUESTS + 1, "{waits} waits");
    // The log's line wakes the writer, and a debug build asks whether what it closes is open.
    // Nothing else happens, no epoll_ctl above all.
    counts.remove("futex");
    counts.remove("fcntl");
    assert!(counts.is_empty(), "{counts:?}");
}
