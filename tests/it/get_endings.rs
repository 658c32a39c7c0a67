//! Every way a body can end, over HTTP/1.0 and 1.1, into a file and into a pipe: what has the file's
//! name is whole, and whoever reads the pipe is told by the exit code.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;

use crate::common::until;
use crate::fake::{Outcome, carafe, run};
use crate::origin::{Origin, listing};
use tempfile::tempdir;

/// How a server ends what it sends.
#[derive(Clone, Copy, Debug)]
enum End {
    Fin,
    Reset,
    /// It says no more, and keeps the connection.
    Silence,
}
use End::{Fin, Reset, Silence};

const ALL: &[End] = &[Fin, Reset, Silence];
const BREAKS: &[End] = &[Reset, Silence];

/// What stands in the folder afterwards.
#[derive(Clone, Copy, Debug)]
enum Stands {
    /// The whole file, under its name.
    Named(&'static str),
    /// A `.part`, and nothing under the name.
    Part(&'static str),
    Nothing,
}
use Stands::{Named, Nothing, Part};

/// An answer without its version, the ways it is ended, and what comes of that.
type Row = (&'static str, &'static [End], i32, Stands);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // By its length.
    ("200 OK\r\nContent-Length: 4\r\n\r\nwine", ALL, 0, Named("wine")),
    ("200 OK\r\nContent-Length: 4\r\n\r\nwine and more", ALL, 0, Named("wine")),
    ("200 OK\r\nContent-Length: 4, 4\r\n\r\nwine", ALL, 0, Named("wine")),
    ("200 OK\r\nContent-Length: 0\r\n\r\n", ALL, 0, Named("")),
    ("200 OK\r\nContent-Length: 4\r\n\r\nwi", ALL, 4, Part("wi")),
    ("200 OK\r\nContent-Length: 4\r\n\r\n", ALL, 4, Nothing),
    ("200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nwine", ALL, 7, Nothing),
    ("200 OK\r\nContent-Length: +4\r\n\r\nwine", ALL, 7, Nothing),
    // By its chunks.
    ("200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwine\r\n0\r\n\r\n", ALL, 0, Named("wine")),
    ("200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwine\r\n0\r\nA: b\r\n\r\nmore", ALL, 0, Named("wine")),
    ("200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n4\r\nwine\r\n0\r\n\r\n", ALL, 0, Named("wine")),
    ("200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ALL, 0, Named("")),
    ("200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwine\r\n0\r\nA: b\r\n", ALL, 4, Part("wine")),
    ("200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwine\r\n0\r\n", ALL, 4, Part("wine")),
    ("200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwine\r\n0", ALL, 4, Part("wine")),
    ("200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwine\r\n", ALL, 4, Part("wine")),
    ("200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwi", ALL, 4, Part("wi")),
    ("200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4", ALL, 4, Nothing),
    ("200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", ALL, 4, Nothing),
    ("200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nwine\r\n0\r\n\r\n", ALL, 7, Part("wi")),
    ("200 OK\r\nTransfer-Encoding: chunked\r\n\r\nwine", &[Fin, Reset], 4, Nothing),
    ("200 OK\r\nTransfer-Encoding: chunked\r\n\r\nwine\r\n", ALL, 7, Nothing),
    // By the connection's end.
    ("200 OK\r\n\r\nwine", &[Fin], 0, Named("wine")),
    ("200 OK\r\n\r\nwine", BREAKS, 4, Part("wine")),
    ("200 OK\r\n\r\n", &[Fin], 0, Named("")),
    ("200 OK\r\n\r\n", BREAKS, 4, Nothing),
    ("200 OK\r\nTransfer-Encoding: identity\r\n\r\nwine", &[Fin], 0, Named("wine")),
    ("200 OK\r\nTransfer-Encoding: identity\r\n\r\nwine", BREAKS, 4, Part("wine")),
    // Coded.
    ("200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nwine", ALL, 0, Named("wine")),
    ("200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nwi", ALL, 4, Part("wi")),
    ("200 OK\r\nTransfer-Encoding: gzip\r\n\r\nwine", ALL, 7, Nothing),
    ("200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n4\r\nwine\r\n0\r\n\r\n", ALL, 7, Nothing),
    ("200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwine\r\n0\r\n\r\n", ALL, 7, Nothing),
    // No body yet.
    ("200 OK\r\nContent-Length: 4\r\n", ALL, 4, Nothing),
    ("103 Early\r\n\r\n", ALL, 4, Nothing),
    ("404 No\r\nContent-Length: 4\r\n\r\nwi", ALL, 8, Nothing),
    ("206 Partial\r\nContent-Range: bytes 0-3/8\r\nContent-Length: 4\r\n\r\nwine", ALL, 7, Nothing),
];

/// The second answer of a download of 8 bytes, "wine, ok", whose first one broke after "wine".
#[rustfmt::skip]
const JOINED: &[Row] = &[
    ("206 P\r\nETag: \"a\"\r\nContent-Range: bytes 4-7/8\r\nContent-Length: 4\r\n\r\n, ok", ALL, 0, Named("wine, ok")),
    ("206 P\r\nETag: \"a\"\r\nContent-Range: bytes 4-7/8\r\nContent-Length: 4\r\n\r\n, ", ALL, 4, Part("wine, ")),
    ("206 P\r\nETag: \"a\"\r\nContent-Range: bytes 4-7/8\r\nContent-Length: 4\r\n\r\n", ALL, 4, Part("wine")),
    ("206 P\r\nETag: \"a\"\r\nContent-Range: bytes 4-7/8\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n, ok\r\n0\r\n\r\n", ALL, 0, Named("wine, ok")),
    ("206 P\r\nETag: \"a\"\r\nContent-Range: bytes 4-7/8\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n, ok\r\n", ALL, 4, Part("wine, ok")),
    ("206 P\r\nETag: \"a\"\r\nContent-Range: bytes 4-7/8\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n, ok!\r\n", ALL, 7, Part("wine")),
    ("206 P\r\nETag: \"a\"\r\nContent-Range: bytes 4-7/8\r\n\r\n, ok", &[Fin], 0, Named("wine, ok")),
    ("206 P\r\nETag: \"a\"\r\nContent-Range: bytes 4-7/8\r\n\r\n, ok", BREAKS, 4, Part("wine, ok")),
    ("206 P\r\nETag: \"a\"\r\nContent-Range: bytes 4-7/8\r\n\r\n, ", ALL, 4, Part("wine, ")),
    ("206 P\r\nETag: \"a\"\r\nContent-Range: bytes 4-7/8\r\n\r\n, ok and more", ALL, 7, Part("wine")),
    // Of another coding, another version, another place.
    ("206 P\r\nETag: \"a\"\r\nContent-Range: bytes 4-7/8\r\nContent-Encoding: gzip\r\n\r\n, ok", ALL, 4, Part("wine")),
    ("206 P\r\nETag: \"a\"\r\nContent-Range: bytes 4-7/8\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n, ok", ALL, 4, Part("wine")),
    ("206 P\r\nETag: \"b\"\r\nContent-Range: bytes 4-7/8\r\nContent-Length: 4\r\n\r\n, ok", ALL, 4, Part("wine")),
    ("206 P\r\nETag: \"a\"\r\nContent-Range: bytes 3-6/8\r\nContent-Length: 4\r\n\r\n, ok", ALL, 4, Part("wine")),
];

/// Sends this text and ends so. A reset comes when the client has all of the text: it would overtake it.
fn send(mut stream: TcpStream, text: &str, end: End) {
    let (local, remote) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
    // A client that has enough may be gone.
    let _ = stream.write_all(text.as_bytes());
    match end {
        Fin => {}
        Reset => {
            until("it is acknowledged", || {
                crate::common::queued_bytes(local, remote)
                    .is_none_or(|queues| queues.unacknowledged == 0)
            });
            crate::fake::reset(stream);
        }
        Silence => std::mem::forget(stream),
    }
}

fn get(folder: &Path, end: End, words: &[&str]) -> Outcome {
    let mut command = carafe(folder);
    command.args(["get", "-q", "--retry-delay", "0s"]);
    if let Silence = end {
        // Long enough for a busy machine to bring what there is.
        command.args(["-t", "1500ms"]);
    }
    run(command.args(words), b"")
}

/// Asserts what came of one download into a file and of one into a pipe.
fn check(what: &str, origin: &Origin, end: End, retries: &str, code: i32, stands: Stands) {
    let url = origin.url("/x");
    let folder = tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let flags = ["--retries", retries, &url];
    let outcome = get(folder.path(), end, &[&["-O"], &flags[..]].concat());
    assert_eq!(outcome.code, Some(code), "{what}: {outcome:?}");
    let names = listing(folder.path());
    match stands {
        Named(body) => {
            assert_eq!(names, ["x"], "{what}");
            assert_eq!(fs::read_to_string(path("x")).unwrap(), body, "{what}");
        }
        Part(body) => {
            assert!(!names.contains(&"x".to_owned()), "{what}: {names:?}");
            assert_eq!(fs::read_to_string(path("x.part")).unwrap(), body, "{what}");
        }
        Nothing => assert!(names.is_empty(), "{what}: {names:?}"),
    }
}

fn check_pipe(what: &str, origin: &Origin, end: End, retries: &str, code: i32, stands: Stands) {
    let folder = tempdir().unwrap();
    let flags = ["-o", "-", "--retries", retries, &origin.url("/x")];
    let outcome = get(folder.path(), end, &flags);
    assert_eq!(outcome.code, Some(code), "{what}: {outcome:?}");
    let (Named(body) | Part(body)) = stands else {
        return assert_eq!(outcome.stdout, b"", "{what}");
    };
    assert_eq!(String::from_utf8(outcome.stdout).unwrap(), body, "{what}");
    assert!(listing(folder.path()).is_empty());
}

/// Runs every row in every way, several at once: silences take their time.
fn each(rows: &'static [Row], check: impl Fn(&str, &'static str, End, i32, Stands) + Sync) {
    let mut cases = Vec::new();
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        for &(answer, ends, code, stands) in rows {
            cases.extend(ends.iter().map(|end| (version, answer, *end, code, stands)));
        }
    }
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                while let Some(&(version, answer, end, code, stands)) =
                    cases.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
                {
                    check(version, answer, end, code, stands);
                }
            });
        }
    });
}

#[test]
fn no_half_file_has_a_name() {
    each(ROWS, |version, answer, end, code, stands| {
        let text = format!("{version} {answer}");
        let what = format!("{end:?} {text:?}");
        let origin = Origin::start(move |_, _, stream| send(stream, &text, end));
        check(&what, &origin, end, "0", code, stands);
        check_pipe(&what, &origin, end, "0", code, stands);
    });
}

#[test]
fn no_file_is_joined_from_halves_that_do_not_fit() {
    each(JOINED, |version, answer, end, code, stands| {
        let (first, second) = (
            format!("{version} 200 OK\r\nETag: \"a\"\r\nContent-Length: 8\r\n\r\nwine"),
            format!("{version} {answer}"),
        );
        let what = format!("{end:?} {second:?}");
        let origin = |first: String, second: String| {
            Origin::start(move |_, count, stream| match count {
                0 => send(stream, &first, Fin),
                1 => send(stream, &second, end),
                // Nothing more is to be had.
                _ => {}
            })
        };
        let here = origin(first.clone(), second.clone());
        check(&what, &here, end, "1", code, stands);
        check_pipe(&what, &origin(first, second), end, "1", code, stands);
    });
}
