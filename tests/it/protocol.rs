//! Where a name ends: by LF, by the client's FIN, by a guess, by silence; and how a connection
//! ends after it. Bytes come apart where the tests say so: a part is sent when the server has
//! read the one before.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{
    Carafe, PATIENCE, PATIENT, assert_same, connect, exchange, exchange_half_closed, pattern,
    queued_bytes, read_to_end, root_with, send_and_see_read, until,
};
use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

/// More than the buffers of both ends hold, so that sending it has to wait for the reader.
const BIG_BYTES: usize = 16 * 1024 * 1024;

/// More than the server reads at once, and than it finds when it looks before the close.
const JUNK_BYTES: usize = 300_000;

/// A connection whose every write is a segment.
fn connect_unmerged(carafe: &Carafe) -> TcpStream {
    let client = connect(carafe.addr());
    client.set_nodelay(true).unwrap();
    client
}

/// The client was neither answered nor closed, although the server has read what it sent.
fn assert_waits(client: &TcpStream, why: &str) {
    client.set_nonblocking(true).unwrap();
    let peeked = client.peek(&mut [0]).map_err(|error| error.kind());
    client.set_nonblocking(false).unwrap();
    assert_eq!(peeked, Err(ErrorKind::WouldBlock), "{why}");
}

/// How a client goes on after the name.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Bytes(&'static [u8]),
    Fin,
    Nothing,
}

const LF: Ending = Ending::Bytes(b"\n");
const CRLF: Ending = Ending::Bytes(b"\r\n");

fn end(client: &mut TcpStream, ending: Ending) {
    match ending {
        Ending::Bytes(bytes) => client.write_all(bytes).unwrap(),
        Ending::Fin => client.shutdown(Shutdown::Write).unwrap(),
        Ending::Nothing => {}
    }
}

/// Sends a name in parts that are read one by one, ends it, and gives the reply.
fn ask_in_parts(carafe: &Carafe, parts: &[&[u8]], ending: Ending) -> Vec<u8> {
    let mut client = connect_unmerged(carafe);
    for part in parts {
        send_and_see_read(&mut client, part);
    }
    end(&mut client, ending);
    read_to_end(&mut client)
}

#[test]
fn a_name_ends_at_lf_at_the_fin_or_where_it_names_a_file() {
    let root = root_with(&[("name", "plain"), ("odd\r", "with a CR"), ("d/x", "below")]);
    let carafe = Carafe::serve(root.path(), &PATIENT);
    let rows: [(&[u8], Ending, &str); 16] = [
        (b"name", LF, "plain"),
        (b"name", CRLF, "plain"),
        (b"name", Ending::Fin, "plain"),
        (b"name", Ending::Nothing, "plain"),
        // One CR is dropped, and only before LF.
        (b"odd\r", CRLF, "with a CR"),
        (b"odd\r", Ending::Nothing, "with a CR"),
        (b"odd\r", LF, ""),
        (b"name\r", Ending::Fin, ""),
        // Leading slashes are ignored.
        (b"/name", LF, "plain"),
        (b"///name", Ending::Fin, "plain"),
        (b"//d/x", Ending::Nothing, "below"),
        (b"d//x", LF, "below"),
        // An empty name names nothing.
        (b"\n", Ending::Fin, ""),
        (b"\r\n", Ending::Fin, ""),
        (b"/", LF, ""),
        (b"/", Ending::Fin, ""),
    ];
    for (name, ending, expected) in rows {
        let got = match ending {
            Ending::Bytes(end) => exchange(carafe.addr(), &[name, end].concat()).unwrap(),
            _ => ask_in_parts(&carafe, &[name], ending),
        };
        let got = got.escape_ascii().to_string();
        assert_eq!(got, expected, "{} {ending:?}", name.escape_ascii());
    }
    carafe.stop_clean();
}

#[test]
fn an_empty_file_is_served_as_nothing_in_good_order() {
    let root = root_with(&[("empty", "")]);
    let carafe = Carafe::serve(root.path(), &PATIENT);
    for ending in [LF, Ending::Fin, Ending::Nothing] {
        assert_eq!(ask_in_parts(&carafe, &[b"empty"], ending), b"");
    }
    let log = carafe.wait_for_log("\"empty\" 0/0 bytes");
    let mut lines = log.lines().filter(|line| line.contains("\"empty\""));
    assert!(lines.all(|line| line.ends_with(" complete")), "{log}");
    carafe.stop_clean();
}

#[test]
fn a_short_name_byte_by_byte_is_served_as_soon_as_it_is_whole() {
    let root = root_with(&[("sixteen-bytes-16", "hello")]);
    let carafe = Carafe::serve(root.path(), &PATIENT);
    let parts: Vec<_> = b"sixteen-bytes-16".chunks(1).collect();
    assert_eq!(ask_in_parts(&carafe, &parts, Ending::Nothing), b"hello");
    carafe.stop_clean();
}

#[test]
fn a_long_name_byte_by_byte_runs_out_of_guesses_and_waits_for_its_end() {
    let name = b"seventeen-bytes17";
    // In memory: no guess waits for a disk, or what comes meanwhile would be guessed at together.
    let root = tempfile::tempdir_in("/dev/shm").unwrap();
    std::fs::write(root.path().join("seventeen-bytes17"), "hello").unwrap();
    let carafe = Carafe::serve(root.path(), &PATIENT);
    for ending in [LF, CRLF, Ending::Fin] {
        let mut client = connect_unmerged(&carafe);
        name.chunks(1)
            .for_each(|byte| send_and_see_read(&mut client, byte));
        assert_waits(&client, "sixteen guesses are spent");
        end(&mut client, ending);
        assert_eq!(read_to_end(&mut client), b"hello", "{ending:?}");
    }
    carafe.stop_clean();
}

#[test]
fn when_guesses_have_run_out_the_gap_takes_the_name_as_it_stands() {
    let root = root_with(&[("seventeen-bytes17", "hello")]);
    // The gap is longer than the time between two bytes.
    let carafe = Carafe::serve(root.path(), &["--name-gap", "3s"]);
    let parts: Vec<_> = b"seventeen-bytes17".chunks(1).collect();
    assert_eq!(ask_in_parts(&carafe, &parts, Ending::Nothing), b"hello");
    carafe.stop_clean();
}

#[test]
fn a_name_that_names_nothing_is_refused_after_the_gap() {
    let root = root_with(&[("name", "hello")]);
    let carafe = Carafe::serve(
        root.path(),
        &["--name-gap", "50ms", "--request-timeout", "1h"],
    );
    assert_eq!(exchange(carafe.addr(), b"missing").unwrap(), b"");
    carafe.wait_for_log("\"missing\" 0/0 bytes");
    carafe.wait_for_log("refused: no such file");
    carafe.stop_clean();
}

#[test]
fn a_name_may_be_split_within_a_character_and_before_its_end() {
    let root = root_with(&[("文.txt", "wine"), ("name", "plain")]);
    let carafe = Carafe::serve(root.path(), &PATIENT);
    let name = "文.txt".as_bytes();
    for split in 1..name.len() {
        let (head, tail) = name.split_at(split);
        for ending in [LF, CRLF, Ending::Fin, Ending::Nothing] {
            let got = ask_in_parts(&carafe, &[head, tail], ending);
            assert_eq!(got, b"wine", "split at {split}, {ending:?}");
        }
    }
    // Between CR and LF: the CR is not yet known to be a part of the end.
    assert_eq!(ask_in_parts(&carafe, &[b"/nam", b"e\r"], LF), b"plain");
    carafe.stop_clean();
}

/// A path of `len` bytes whose components the file system takes.
fn long_path(letter: char, len: usize) -> String {
    let mut path: Vec<_> = std::iter::repeat_n(letter, len).collect();
    for slash in (200..len - 1).step_by(201) {
        path[slash] = '/';
    }
    path.into_iter().collect()
}

#[test]
fn a_name_has_1024_bytes_at_most_however_it_is_split() {
    let names = [('a', 1023, true), ('b', 1024, true), ('c', 1025, false)]
        .map(|(letter, len, is_served)| (long_path(letter, len), is_served));
    let root = root_with(&names.clone().map(|(name, _)| (name, "far below")));
    let carafe = Carafe::serve(root.path(), &PATIENT);
    for (name, is_served) in &names {
        let expected: &[u8] = if *is_served { b"far below" } else { b"" };
        let len = name.len();
        for ending in [LF, CRLF, Ending::Fin, Ending::Nothing] {
            for split in [0, 1, 512, 1022, 1023, 1024, len].into_iter() {
                let (head, tail) = name.as_bytes().split_at(split.min(len));
                let got = ask_in_parts(&carafe, &[head, tail], ending);
                assert_eq!(got, expected, "{len} bytes split at {split}, {ending:?}");
            }
        }
        let mut whole = name.clone().into_bytes();
        whole.extend(b"\r\n");
        assert_eq!(exchange(carafe.addr(), &whole).unwrap(), expected);
        let got = exchange_half_closed(carafe.addr(), name.as_bytes()).unwrap();
        assert_eq!(got, expected, "{len} bytes and the FIN in one go");
    }
    carafe.stop_clean();
}

#[test]
fn a_cr_after_the_longest_name_waits_for_its_lf() {
    let name = long_path('b', 1024);
    let root = root_with(&[(&name, "far below")]);
    // Nothing is guessed, so what is in hand is neither served nor refused before its end.
    let carafe = Carafe::serve(root.path(), &["--exact-names", "--request-timeout", "1h"]);
    let mut client = connect_unmerged(&carafe);
    send_and_see_read(&mut client, name.as_bytes());
    assert_waits(&client, "1024 bytes");
    send_and_see_read(&mut client, b"\r");
    assert_waits(&client, "and a CR");
    client.write_all(b"\n").unwrap();
    assert_eq!(read_to_end(&mut client), b"far below");
    // Anything else makes it too long at once.
    let got = ask_in_parts(&carafe, &[name.as_bytes(), b"\r"], Ending::Bytes(b"x"));
    assert_eq!(got, b"");
    assert_eq!(
        ask_in_parts(&carafe, &[name.as_bytes(), b"\r"], Ending::Fin),
        b""
    );
    carafe.wait_for_log("refused: the name is too long");
    carafe.stop_clean();
}

#[test]
fn too_long_a_name_is_refused_before_it_ends() {
    let root = root_with(&[("name", "plain")]);
    for flags in [&PATIENT[..], &["--exact-names", "--request-timeout", "1h"]] {
        let carafe = Carafe::serve(root.path(), flags);
        for len in [1025, 1026, 1027, 5000, 100_000, 1_000_000] {
            let got = exchange(carafe.addr(), &vec![b'x'; len]).unwrap();
            assert_eq!(got, b"", "{len} bytes without an end");
        }
        // An LF that comes too late changes nothing.
        let mut late = vec![b'/'; 1100];
        late.extend(b"name\n");
        assert_eq!(exchange(carafe.addr(), &late).unwrap(), b"");
        carafe.stop_clean();
    }
}

#[test]
fn exact_names_end_at_lf_and_fin_only() {
    let root = root_with(&[("name", "plain"), ("name2", "longer")]);
    let carafe = Carafe::serve(
        root.path(),
        &[
            "--exact-names",
            "--name-gap",
            "20ms",
            "--request-timeout",
            "1h",
        ],
    );
    for (rest, ending, expected) in [
        (&b""[..], LF, b"plain".to_vec()),
        (b"", CRLF, b"plain".to_vec()),
        (b"", Ending::Fin, b"plain".to_vec()),
        (b"2", LF, b"longer".to_vec()),
        (b"2", Ending::Fin, b"longer".to_vec()),
    ] {
        let mut client = connect_unmerged(&carafe);
        send_and_see_read(&mut client, b"name");
        assert_waits(&client, "a file's name without an end");
        client.write_all(rest).unwrap();
        end(&mut client, ending);
        assert_eq!(read_to_end(&mut client), expected, "{ending:?}");
    }
    carafe.stop_clean();
}

#[test]
fn what_begins_like_http_is_not_subject_to_the_gap() {
    // A method and a path without a version are HTTP/0.9.
    let root = root_with(&[("x", "a file"), ("POEM", "verse")]);
    let carafe = Carafe::serve(
        root.path(),
        &["--name-gap", "20ms", "--request-timeout", "1h"],
    );
    for (head, tail, expected) in [
        (&b"GET /x"[..], &b""[..], b"a file".to_vec()),
        (b"GET ", b"/x", b"a file".to_vec()),
        (b"G", b"ET /x", b"a file".to_vec()),
        (b"DELETE /", b"x", b"".to_vec()),
        (b"PO", b"EM", b"verse".to_vec()),
        (b"PATCH", b"", b"".to_vec()),
    ] {
        let shown = head.escape_ascii().to_string();
        let mut client = connect_unmerged(&carafe);
        send_and_see_read(&mut client, head);
        // This one speaks later, and its gap has passed.
        assert_eq!(exchange(carafe.addr(), b"missing").unwrap(), b"");
        // What ended in the same turn has arrived a turn later.
        assert_eq!(exchange(carafe.addr(), b"missing\n").unwrap(), b"");
        assert_waits(&client, &shown);
        client.write_all(tail).unwrap();
        client.write_all(b"\n").unwrap();
        assert_eq!(read_to_end(&mut client), expected, "{shown}");
    }
    carafe.stop_clean();
}

#[test]
fn files_named_like_http_are_served_all_the_same() {
    let root = root_with(&[("GE", "short"), ("GET", "method"), ("GET x", "spaced")]);
    let carafe = Carafe::serve(root.path(), &PATIENT);
    // The beginning of a method is served if it names a file.
    assert_eq!(exchange(carafe.addr(), b"GE").unwrap(), b"short");
    assert_eq!(exchange(carafe.addr(), b"GET").unwrap(), b"method");
    // A method and a space wait for their end, although they name a file.
    for ending in [LF, CRLF, Ending::Fin] {
        let mut client = connect_unmerged(&carafe);
        send_and_see_read(&mut client, b"GET x");
        assert_waits(&client, "a method and a space");
        end(&mut client, ending);
        assert_eq!(read_to_end(&mut client), b"spaced", "{ending:?}");
    }
    carafe.stop_clean();
}

#[test]
fn the_request_timeout_is_not_moved_by_single_bytes() {
    let root = root_with(&[("name", "plain")]);
    let carafe = Carafe::serve(
        root.path(),
        &["--request-timeout", "300ms", "--name-gap", "1h"],
    );
    let silent = connect(carafe.addr());
    let mut slow = connect_unmerged(&carafe);
    let peer = slow.local_addr().unwrap();
    slow.set_nonblocking(true).unwrap();
    // Too few bytes a second for the limit of a name's length to end it.
    until("the slow client is closed", || {
        thread::sleep(Duration::from_millis(15));
        let _ = slow.write(b"x");
        let peeked = slow.peek(&mut [0]).map_err(|error| error.kind());
        peeked != Err(ErrorKind::WouldBlock)
    });
    let mut silent = silent;
    assert_eq!(read_to_end(&mut silent), b"");
    for peer in [peer, silent.local_addr().unwrap()] {
        let log = carafe.wait_for_log(&format!(" {peer} "));
        let line = log.lines().find(|line| line.contains(&peer.to_string()));
        assert!(line.unwrap().ends_with("request timeout"), "{log}");
    }
    carafe.stop_clean();
}

#[test]
fn junk_after_the_name_does_not_cost_a_slow_starter_a_byte() {
    let big = pattern(0, BIG_BYTES);
    let root = root_with(&[("big", &big)]);
    let carafe = Carafe::serve(root.path(), &[]);
    let mut client = connect(carafe.addr());
    let mut writer = client.try_clone().unwrap();
    // The server doesn't read while it sends, so this may have to wait.
    let junk = thread::spawn(move || {
        let mut request = b"big\n".to_vec();
        request.resize(JUNK_BYTES, b'j');
        writer.write_all(&request).unwrap();
    });
    let ends = (carafe.addr(), client.local_addr().unwrap());
    until("the server has filled the buffers", || {
        queued_bytes(ends.0, ends.1).is_some_and(|queues| queues.unacknowledged > 0)
    });
    assert_same("after a slow start", &read_to_end(&mut client), &big);
    junk.join().unwrap();
    drop(client);
    carafe.stop_clean();
}

#[test]
fn junk_in_the_same_write_as_the_name_never_resets() {
    let file = pattern(0, 64 * 1024);
    let root = root_with(&[("file", &file)]);
    let carafe = Carafe::serve(root.path(), &[]);
    for junk_bytes in [1, 1000, 100_000, JUNK_BYTES] {
        let mut request = b"file\n".to_vec();
        request.resize(5 + junk_bytes, b'j');
        for round in 0..50 {
            let got = exchange(carafe.addr(), &request).unwrap();
            assert_same(&format!("round {round} of {junk_bytes}"), &got, &file);
        }
    }
    carafe.stop_clean();
}

#[test]
fn a_terminator_that_comes_after_a_guess_was_served_does_no_harm() {
    let file = pattern(0, 64 * 1024);
    let root = root_with(&[("file", &file)]);
    let carafe = Carafe::serve(root.path(), &PATIENT);
    for terminator in [&b"\n"[..], b"\r\n", b"\r"] {
        for _ in 0..20 {
            // Most of the file is still in the server's kernel when the terminator comes.
            let mut client = connect_narrow(carafe.addr());
            client.write_all(b"file").unwrap();
            client.peek(&mut [0]).unwrap();
            client.write_all(terminator).unwrap();
            assert_same("a guessed file", &read_to_end(&mut client), &file);
        }
    }
    carafe.stop_clean();
}

/// A client whose receive buffer is as small as the kernel allows.
fn connect_narrow(addr: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&addr.into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.into()
}

#[test]
fn a_half_closed_client_that_reads_slowly_gets_everything() {
    let big = pattern(0, BIG_BYTES);
    let file = &big[..8 * 1024 * 1024];
    let root = root_with(&[("file", file)]);
    let carafe = Carafe::serve(root.path(), &[]);
    let mut client = connect_narrow(carafe.addr());
    client.write_all(b"file").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let peer = client.local_addr().unwrap();
    let mut got = Vec::new();
    let mut piece = [0; 2048];
    while let Ok(n @ 1..) = client.read(&mut piece) {
        got.extend(&piece[..n]);
        if got.len() < 64 * 1024 {
            // It pauses until the server has to wait for it.
            until("the server waits", || {
                queued_bytes(carafe.addr(), peer).is_some_and(|queues| queues.unacknowledged > 0)
            });
        }
    }
    assert_same("half-closed and slow", &got, file);
    carafe.stop_clean();
}

#[test]
fn one_connection_brings_one_file() {
    let root = root_with(&[("a", "first"), ("b", "second")]);
    let carafe = Carafe::serve(root.path(), &PATIENT);
    assert_eq!(exchange(carafe.addr(), b"a\nb\n").unwrap(), b"first");
    assert_eq!(exchange(carafe.addr(), b"a\r\nb\r\n").unwrap(), b"first");
    assert_eq!(
        exchange_half_closed(carafe.addr(), b"missing\nb").unwrap(),
        b""
    );
    carafe.wait_for_log("\"missing\" 0/0 bytes");
    assert!(!carafe.log().contains("\"b\""), "{}", carafe.log());
    carafe.stop_clean();
}

#[test]
fn the_rest_of_a_name_that_came_while_the_server_was_stopped_counts() {
    let root = root_with(&[("name", "plain")]);
    let gap = Duration::from_millis(200);
    let carafe = Carafe::serve(
        root.path(),
        &["--name-gap", "200ms", "--request-timeout", "1h"],
    );
    let mut client = loop {
        let mut client = connect_unmerged(&carafe);
        let asked = Instant::now();
        client.write_all(b"na").unwrap();
        until("the server has read it and waits", || {
            let ends = (carafe.addr(), client.local_addr().unwrap());
            queued_bytes(ends.0, ends.1).is_none_or(|queues| queues.unread == 0)
        });
        carafe.signal(Signal::STOP);
        until("it is stopped", || carafe.is_stopped());
        if asked.elapsed() < gap {
            break client;
        }
        // The gap may have been over before the stop.
        carafe.signal(Signal::CONT);
    };
    client.write_all(b"me\n").unwrap();
    // The gap passes while nobody looks. A longer pause changes nothing.
    thread::sleep(2 * gap);
    carafe.signal(Signal::CONT);
    assert_eq!(read_to_end(&mut client), b"plain");
    carafe.stop_clean();
}
