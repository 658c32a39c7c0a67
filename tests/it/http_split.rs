//! HTTP in pieces: a request gives one answer, wherever its bytes are split. The server has read
//! a piece when the next one is sent.

use crate::common::{Carafe, PATIENT, pattern, root_with, until};
use crate::talk::{Talk, age_all, get, without_dates};
use tempfile::TempDir;

/// No name in the root is the beginning of a method.
fn server() -> (TempDir, Carafe) {
    let root = root_with(&[("a", pattern(1, 500)), ("b", b"bb".to_vec())]);
    age_all(root.path());
    let carafe = Carafe::serve(root.path(), &PATIENT);
    // What tells their versions comes when they are old enough, and stays.
    for path in ["/a", "/b"] {
        until("the file is old enough", || {
            let answer = Talk::to(carafe.addr()).get(path);
            answer.field("etag").is_some() && answer.field("last-modified").is_some()
        });
    }
    (root, carafe)
}

/// What comes, without dates, when the request is sent in these pieces.
#[track_caller]
fn ask_in_pieces(carafe: &Carafe, pieces: &[&[u8]]) -> String {
    let mut talk = Talk::to(carafe.addr());
    let (last, first) = pieces.split_last().unwrap();
    for piece in first {
        talk.say_and_see_read(piece);
    }
    talk.say(last);
    without_dates(&talk.rest())
}

/// Splits at these places, one after the other; the answer must stay the same.
#[track_caller]
fn assert_splits(carafe: &Carafe, request: &str, places: impl IntoIterator<Item = usize>) {
    let bytes = request.as_bytes();
    let whole = ask_in_pieces(carafe, &[bytes]);
    assert!(whole.starts_with("HTTP/1.1 "), "{whole}");
    for at in places {
        let (first, second) = bytes.split_at(at);
        let split = ask_in_pieces(carafe, &[first, second]);
        assert_eq!(split, whole, "split at {at} of {request:?}");
    }
}

fn last(path: &str) -> String {
    get(path, "Connection: close\r\n")
}

#[test]
fn a_request_split_at_every_byte() {
    let (_root, carafe) = server();
    for request in [
        last("/a"),
        "HEAD /a HTTP/1.0\r\nRange: bytes=1-2\r\n\r\n".into(),
        "GET /a HTTP/1.0\n\n".into(),
        get("/a", "Connection: close\r\nRange: bytes=-5\r\n"),
        "OPTIONS * HTTP/1.0\r\n\r\n".into(),
        "POST /a HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc".into(),
        // These are no known methods: their bytes are tried as names, and name nothing.
        "BREW /a HTTP/1.0\r\n\r\n".into(),
    ] {
        assert_splits(&carafe, &request, 1..request.len());
    }
    carafe.stop_clean();
}

#[test]
fn a_request_that_is_refused_split_at_every_byte() {
    let (_root, carafe) = server();
    for request in [
        get("/a", "A: b\r\n c\r\n"),
        get("/a", "Content-Length: 1\r\nContent-Length: 1\r\n"),
        "GET /a HTTP/1.1\r\nA: b\r\n\r\n".into(),
        "\r\n\nGET /a HTTP/1.0\r\n\r\n".into(),
        "PRI * HTTP/2.0\n".into(),
        "GET\t/a FTP/1.1 \n".into(),
        "GET a HTTP/1.1\r\nHost: h\r\n\r\n".into(),
    ] {
        assert_splits(&carafe, &request, 1..request.len());
    }
    carafe.stop_clean();
}

#[test]
fn long_lines_and_heads_split_near_their_limits() {
    let (_root, carafe) = server();
    let long =
        |method: &str, bytes: usize| format!("{method} /a?{} HTTP/1.0\r\n\r\n", "q".repeat(bytes));
    // The longest line has 8,192 bytes, the longest name 1,024.
    let get_line = long("GET", 8_192 - 16);
    assert_splits(
        &carafe,
        &get_line,
        [1_024, 1_025, 1_026, 8_191, 8_192, 8_193],
    );
    let too_long = long("GET", 8_193 - 16);
    assert_splits(&carafe, &too_long, [1_025, 8_192, 8_193]);
    let head = get("/a", &format!("A: {}\r\n", "b".repeat(17_000)));
    assert_splits(&carafe, &head, [8_192, 16_383, 16_384, 16_385, 17_000]);
    carafe.stop_clean();
}

#[test]
fn a_long_line_of_an_unknown_method_is_a_name_wherever_it_is_split() {
    let (_root, carafe) = server();
    let line = |bytes: usize| {
        let rest = " HTTP/1.0";
        let path = "q".repeat(bytes - "BREW /".len() - rest.len());
        format!("BREW /{path}{rest}")
    };
    // As long as a name may be, it can wait for its end; beyond that it is refused as a name.
    for (bytes, expected) in [(1_024, "HTTP/1.1 501"), (1_025, ""), (2_000, "")] {
        let request = format!("{}\r\n\r\n", line(bytes));
        for at in [100, bytes.min(1_024), bytes, bytes + 1] {
            let (first, second) = request.as_bytes().split_at(at);
            let split = ask_in_pieces(&carafe, &[first, second]);
            assert_eq!(
                split.get(..12).unwrap_or(&split),
                expected,
                "{bytes} at {at}"
            );
        }
        let whole = ask_in_pieces(&carafe, &[request.as_bytes()]);
        assert_eq!(whole.get(..12).unwrap_or(&whole), expected, "{bytes} whole");
    }
    carafe.stop_clean();
}

#[test]
fn two_requests_in_a_row_split_at_every_byte() {
    let (_root, carafe) = server();
    let both = get("/a", "") + &last("/b");
    assert_splits(&carafe, &both, 1..both.len());
    let head_first = "HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n".to_owned() + &last("/b");
    assert_splits(&carafe, &head_first, 1..head_first.len());
    // Empty lines after a request are skipped.
    let apart = get("/a", "") + "\r\n\r\n" + &last("/b");
    let empty_lines = get("/a", "").len();
    assert_splits(&carafe, &apart, empty_lines - 1..empty_lines + 6);
    carafe.stop_clean();
}

#[test]
fn requests_byte_by_byte() {
    let (_root, carafe) = server();
    let both = get("/a", "") + &get("/missing", "") + &last("/b");
    let whole = ask_in_pieces(&carafe, &[both.as_bytes()]);
    let single: Vec<_> = both.as_bytes().chunks(1).collect();
    assert_eq!(ask_in_pieces(&carafe, &single), whole);
    // Without waiting for the server: splits where they fall.
    let mut talk = Talk::to(carafe.addr());
    for byte in both.as_bytes().chunks(1) {
        talk.say(byte);
    }
    assert_eq!(without_dates(&talk.rest()), whole);
    carafe.stop_clean();
}
