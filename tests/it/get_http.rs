//! `carafe get` with URLs, as its users meet it: names, framings, redirects, failures that pass and
//! failures that last.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;

use crate::fake::{Untouched, carafe, run};
use crate::origin::{Origin, Version, cut, get, listing, saying};
use tempfile::tempdir;

fn wine() -> Version {
    Version::new("wine", "\"red\"")
}

#[test]
fn a_url_lands_beside_us_under_its_decoded_last_component() {
    let folder = tempdir().unwrap();
    let origin = Origin::honest(&wine());
    for (path, flags, name) in [
        ("/a/b.txt?c=/d#e", &[][..], "b.txt"),
        ("/%E6%9C%A8 x", &[], "木 x"),
        ("/木", &["-O"], "木"),
        ("/", &["-o", "root"], "root"),
    ] {
        let mut command = carafe(folder.path());
        command.arg("get").args(flags).arg(origin.url(path));
        run(&mut command, b"").is(0, "");
        assert_eq!(listing(folder.path()), [name]);
        assert_eq!(fs::read(folder.path().join(name)).unwrap(), b"wine");
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    let paths: Vec<_> = origin.asked().into_iter().map(|asked| asked.path).collect();
    assert_eq!(
        paths,
        ["/a/b.txt?c=/d", "/%E6%9C%A8%20x", "/%E6%9C%A8", "/"]
    );
}

#[test]
fn what_is_sent_is_a_plain_get() {
    let folder = tempdir().unwrap();
    let origin = Origin::honest(&wine());
    get(folder.path(), &[&origin.url("/x")]).is(0, "");
    let asked = &origin.asked()[0];
    let host = origin.address.to_string();
    let agent = concat!("carafe/", env!("CARGO_PKG_VERSION"));
    assert_eq!(asked.method, "GET");
    for (name, value) in [
        ("host", Some(&*host)),
        ("user-agent", Some(agent)),
        ("accept-encoding", Some("identity")),
        ("connection", Some("close")),
        ("range", None),
        ("if-range", None),
        ("content-length", None),
    ] {
        assert_eq!(asked.field(name), value, "{name}");
    }
}

#[test]
fn what_cannot_be_asked_for_is_refused_before_connecting() {
    let folder = tempdir().unwrap();
    let untouched = Untouched::new();
    let url = |path: &str| format!("http://{}{path}", untouched.address());
    let no_name = |path| format!("'{}': no file's name; -o FILE gives one", url(path));
    let wont_do = |url: &str, why: &str| format!("'{url}' won't do: {why}");
    let sum = "0".repeat(64);
    let cases: [(&[&str], &str); 16] = [
        (&[&url("/")], &no_name("/")),
        (&[&url("")], &no_name("")),
        (&[&url("/a%2Fb")], &no_name("/a%2Fb")),
        (&[&url("/a%00b")], &no_name("/a%00b")),
        (&[&url("/%2E%2e")], &no_name("/%2E%2e")),
        (
            &[&url("/x"), &url("/a/x")],
            "x: two names would be written to it",
        ),
        (
            &[&url("/x"), &url("/x.part")],
            "x.part: two names would be written to it",
        ),
        (
            &[&url("/x.part.meta"), &url("/x")],
            "x.part.meta: two names would be written to it",
        ),
        (
            &["-o", "f", &url("/x"), &url("/y")],
            "f: two names would be written to it",
        ),
        (
            &["ftp://h/x"],
            &wont_do("ftp://h/x", "it takes http://, https:// or gopher://"),
        ),
        (&[&url("/x"), "y"], &wont_do("y", "unexpected")),
        (
            &["http://u:p@h/x"],
            &wont_do("http://u:p@h/x", "it takes no user and no password"),
        ),
        (
            &["gopher://h/1x"],
            &wont_do("gopher://h/1x", "it takes gopher://HOST[:PORT]/9NAME"),
        ),
        (
            &["gopher://h/9a%0Ab"],
            r"'a\x0ab': a name takes no LF and no NUL",
        ),
        (
            &["--sha256", &sum, &url("/x"), &url("/y")],
            "--sha256 is for one file",
        ),
        (
            &["--unterminated", &url("/x")],
            "--unterminated is for the bare protocol",
        ),
    ];
    for (words, line) in cases {
        let outcome = if words.contains(&"-o") {
            run(carafe(folder.path()).arg("get").args(words), b"")
        } else {
            get(folder.path(), words)
        };
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        let line = line.trim_end_matches("unexpected");
        assert!(
            outcome.stderr.starts_with(&format!("carafe: {line}")),
            "{outcome:?}"
        );
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    }
    assert!(listing(folder.path()).is_empty());
}

#[test]
fn bad_flags_are_refused() {
    let folder = tempdir().unwrap();
    for (words, line) in [
        (
            &["-j", "0"][..],
            "--jobs: '0' won't do: it takes a whole number from 1 to 64",
        ),
        (
            &["--sha256", "+a"],
            "--sha256: '+a' won't do: it takes 64 hexadecimal digits",
        ),
        (
            &["--retries", "-1"],
            "--retries: '-1' won't do: it takes a whole number from 0 to",
        ),
        (
            &["--retry-delay", "1"],
            "--retry-delay: '1' won't do: it takes a duration",
        ),
    ] {
        let mut command = carafe(folder.path());
        command.args(["get", "http://h/x"]).args(words);
        let outcome = run(&mut command, b"");
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(
            outcome.stderr.starts_with(&format!("carafe: {line}")),
            "{outcome:?}"
        );
    }
    let outcome = get(folder.path(), &["h:1"]);
    outcome.is(
        2,
        "carafe: required arguments were not provided: <NAME>; --help shows what there is\n",
    );
}

#[test]
fn a_gopher_url_is_a_bare_download() {
    let folder = tempdir().unwrap();
    let server = crate::fake::serve(|mut stream| {
        let name = crate::fake::receive_once(&stream);
        assert_eq!(name, b"sub/a b\n");
        stream.write_all(b"wine").unwrap();
    });
    for kind in [9, 0] {
        get(
            folder.path(),
            &[&format!("gopher://{server}/{kind}sub/a%20b")],
        )
        .is(0, "");
        assert_eq!(fs::read(folder.path().join("a b")).unwrap(), b"wine");
    }
}

#[test]
fn gopher_and_http_mix() {
    let folder = tempdir().unwrap();
    let origin = Origin::honest(&wine());
    let server = crate::fake::serve(|mut stream| {
        crate::fake::receive_once(&stream);
        stream.write_all(b"wine").unwrap();
    });
    let words = [&format!("gopher://{server}/9a"), &origin.url("/b")];
    get(folder.path(), &words).is(0, "");
    assert_eq!(listing(folder.path()), ["a", "b"]);
}

#[test]
fn every_framing_is_understood() {
    let framings = [
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwine",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nwine and more",
        "HTTP/1.1 200 OK\r\n\r\nwine",
        "HTTP/1.0 200 OK\r\n\r\nwine",
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\nwine",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b\r\nw\r\n03\r\nine\r\n0\r\nX: y\r\n\r\n",
    ];
    for framing in framings {
        let folder = tempdir().unwrap();
        get(folder.path(), &[&saying(framing).url("/x")]).is(0, "");
        assert_eq!(
            fs::read(folder.path().join("x")).unwrap(),
            b"wine",
            "{framing}"
        );
        assert_eq!(listing(folder.path()), ["x"]);
    }
}

#[test]
fn an_empty_file_is_a_file() {
    let folder = tempdir().unwrap();
    let origin = Origin::honest(&Version::new("", "\"none\""));
    get(folder.path(), &[&origin.url("/x")]).is(0, "");
    assert_eq!(fs::read(folder.path().join("x")).unwrap(), b"");
    assert_eq!(listing(folder.path()), ["x"]);
}

#[test]
fn a_body_is_not_decoded() {
    let folder = tempdir().unwrap();
    let origin =
        saying("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nwine");
    get(folder.path(), &[&origin.url("/x")]).is(0, "");
    assert_eq!(fs::read(folder.path().join("x")).unwrap(), b"wine");
}

#[test]
fn what_a_proxy_has_changed_is_a_file_but_is_not_continued() {
    let head = "HTTP/1.1 203 Transformed\r\nETag: \"red\"\r\nContent-Length: 4\r\n\r\n";
    let folder = tempdir().unwrap();
    let origin = saying(format!("{head}wine"));
    get(folder.path(), &[&origin.url("/x")]).is(0, "");
    assert_eq!(fs::read(folder.path().join("x")).unwrap(), b"wine");

    let folder = tempdir().unwrap();
    let origin = saying(format!("{head}wi"));
    let outcome = get(folder.path(), &["--retries", "1", &origin.url("/x")]);
    assert_eq!(outcome.code, Some(4), "{outcome:?}");
    assert!(origin.asked().iter().all(|asked| asked.from().is_none()));
    assert!(!folder.path().join("x.part.meta").exists());
}

#[test]
fn an_answer_cut_off_anywhere_is_no_file() {
    let length = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwine".to_vec();
    let chunked =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nw\r\n3\r\nine\r\n0\r\n\r\n";
    for whole in [length, chunked.to_vec()] {
        // Without the last line end of a chunked answer nothing is missing but politeness.
        for end in 0..whole.len() - 2 {
            let folder = tempdir().unwrap();
            let origin = saying(&whole[..end]);
            let outcome = get(folder.path(), &["--retries", "0", &origin.url("/x")]);
            assert_eq!(outcome.code, Some(4), "{end}: {outcome:?}");
            assert!(!folder.path().join("x").exists(), "{end}");
        }
    }
}

#[test]
fn what_is_no_http_is_a_protocol_error_and_not_retried() {
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(5_000));
    for answer in [
        "wine\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nwine",
        "HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\nwine",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nwine",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nwine",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nwine",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nwine\r\n",
        "HTTP/1.1 200 OK\r\nX: \x1b[2J\r\n\r\nwine",
        &long,
        &many,
    ] {
        let folder = tempdir().unwrap();
        let origin = saying(answer);
        let outcome = get(folder.path(), &[&origin.url("/x")]);
        let shown: String = answer.chars().take(80).collect();
        assert_eq!(outcome.code, Some(7), "{shown}: {outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{shown}: {outcome:?}");
        assert_eq!(origin.asked().len(), 1, "{shown}");
        assert!(!folder.path().join("x").exists());
    }
}

#[test]
fn a_status_that_is_no_file_is_8_and_some_of_them_pass() {
    for (status, asked, line) in [
        ("404 Not Here", 1, "the server says 404 Not Found"),
        ("429 Slow Down", 3, "the server says 429 Too Many Requests"),
        ("408 Late", 3, "the server says 408 Request Timeout"),
        ("501 Never", 1, "the server says 501 Not Implemented"),
        ("500 Oh", 3, "the server says 500 Internal Server Error"),
        ("204 Nothing", 1, "the server says 204 No Content"),
        ("304 As Before", 1, "the server says 304 Not Modified"),
        (
            "416 Not That",
            1,
            "the server says 416 Range Not Satisfiable",
        ),
        ("502 a", 3, "the server says 502 Bad Gateway"),
        ("503 b", 3, "the server says 503 Service Unavailable"),
        ("504 c", 3, "the server says 504 Gateway Timeout"),
    ] {
        let folder = tempdir().unwrap();
        let origin = saying(format!(
            "HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\nsorry"
        ));
        let url = origin.url("/x");
        let outcome = get(folder.path(), &["-q", "--retries", "2", &url]);
        outcome.is(8, &format!("carafe: {url}: {line}\n"));
        assert_eq!(origin.asked().len(), asked, "{status}");
        assert!(listing(folder.path()).is_empty());
    }
}

#[test]
fn a_server_may_ask_for_a_longer_rest() {
    let folder = tempdir().unwrap();
    let origin = Origin::of(|asked, count| match count {
        0 => b"HTTP/1.1 429 Wait\r\nRetry-After: 1\r\n\r\n".to_vec(),
        1 => b"HTTP/1.1 503 Busy\r\nRetry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n".to_vec(),
        _ => wine().answer(asked),
    });
    let url = origin.url("/x");
    let says =
        |status, rest| format!("carafe: {url}: the server says {status}; trying again in {rest}");
    let expected = format!(
        "{} (1 of 3)\n{} (2 of 3)\n",
        says("429 Too Many Requests", "1s"),
        says("503 Service Unavailable", "0s")
    );
    get(folder.path(), &[&url]).is(0, &expected);
}

#[test]
fn a_refused_connection_is_tried_again() {
    let folder = tempdir().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("http://{closed}/x");
    let outcome = get(folder.path(), &["--retries", "2", &url]);
    assert_eq!(outcome.code, Some(4));
    let lines: Vec<_> = outcome.stderr.lines().collect();
    let refused =
        format!("carafe: {url}: cannot connect: {closed}: Connection refused (os error 111)");
    assert_eq!(lines.len(), 3);
    assert!(
        lines.iter().all(|line| line.starts_with(&refused)),
        "{lines:?}"
    );
}

#[test]
fn a_host_that_cannot_be_found_is_not_looked_for_again() {
    let folder = tempdir().unwrap();
    // An empty label is in no host's name; no resolver has to ask anybody.
    let url = "http://a..b/x";
    let mut command = carafe(folder.path());
    let outcome = run(command.args(["get", "--retry-delay", "1h", url]), b"");
    assert_eq!(outcome.code, Some(4), "{outcome:?}");
    let line = format!("carafe: {url}: cannot resolve a..b: ");
    assert!(outcome.stderr.starts_with(&line), "{outcome:?}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
}

#[test]
fn heads_are_taken_as_other_clients_take_them() {
    let many = "X-Field: y\r\n".repeat(1000);
    for head in [
        "HTTP/1.2 200 OK\r\nContent-Length: 4\r\n\r\n",
        "HTTP/1.1 200\r\nContent-Length: 4\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 4\n\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\tc\r\nContent-Length:\r\n 4\r\n\r\n",
        &format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 4\r\n\r\n"),
        &format!(
            "HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 4\r\n\r\n",
            "y".repeat(50_000)
        ),
    ] {
        let folder = tempdir().unwrap();
        get(folder.path(), &[&saying(format!("{head}wine")).url("/x")]).is(0, "");
        assert_eq!(fs::read(folder.path().join("x")).unwrap(), b"wine");
    }
}

#[test]
fn chunks_are_taken_as_other_clients_take_them() {
    let long = "x".repeat(5000);
    for body in [
        &format!("4;{long}\r\nwine\r\n0\r\n\r\n"),
        "0000000000000000000000004\r\nwine\r\n0\r\n\r\n",
        "4 \r\nwine\r\n0 ; a=\"b\"\r\n\r\n",
        &format!("4\r\nwine\r\n0\r\nA: {long}\r\nB: {long}\r\n\r\n"),
        "4\nwine\n0\n\n",
    ] {
        let folder = tempdir().unwrap();
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        get(folder.path(), &[&saying(format!("{head}{body}")).url("/x")]).is(0, "");
        assert_eq!(fs::read(folder.path().join("x")).unwrap(), b"wine");
    }
}

#[test]
fn a_body_whose_trailers_or_extensions_never_end_is_refused() {
    for endless in [
        "A: b\r\n",
        "A",
        "1;xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\nw\r\n",
    ] {
        let folder = tempdir().unwrap();
        let origin = Origin::start(move |_, _, mut stream| {
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            let last = if endless.starts_with('A') {
                "0\r\n"
            } else {
                ""
            };
            stream
                .write_all(format!("{head}{last}").as_bytes())
                .unwrap();
            let line = endless.repeat(1000);
            while stream.write_all(line.as_bytes()).is_ok() {}
        });
        let outcome = get(folder.path(), &[&origin.url("/x")]);
        assert_eq!(outcome.code, Some(7), "{outcome:?}");
        assert!(
            outcome
                .stderr
                .contains("extensions or trailers are too long")
        );
        assert!(!folder.path().join("x").exists());
    }
}

#[test]
fn all_of_it_may_have_a_limit() {
    let folder = tempdir().unwrap();
    let origin = Origin::start(|asked, _, mut stream| {
        if asked.path == "/drip" {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        }
        // A byte at a time, so that no silence is long.
        while stream.write_all(b"w").is_ok() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    });
    let limit = ["-q", "--max-time", "300ms"];
    let url = origin.url("/drip");
    let outcome = get(folder.path(), &[&limit[..], &[&url]].concat());
    assert_eq!(outcome.code, Some(4), "{outcome:?}");
    let late = "bytes: it takes longer than 300ms; ";
    assert!(outcome.stderr.contains(late), "{outcome:?}");
    // Not even a rest goes beyond it.
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("http://{closed}/x");
    let mut command = carafe(folder.path());
    let flags = ["get", "--max-time", "5m", "--retry-delay", "1h", &url];
    let outcome = run(command.args(flags), b"");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    // Nor does a name.
    let server = crate::fake::serve(|mut stream| {
        while stream.write_all(b"w").is_ok() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    });
    let outcome = get(
        folder.path(),
        &[&limit[..], &[&server.to_string(), "y"]].concat(),
    );
    assert_eq!(outcome.code, Some(4), "{outcome:?}");
    assert!(outcome.stderr.contains(late), "{outcome:?}");
}

#[test]
fn redirects_are_followed_and_the_name_is_the_first_ones() {
    let folder = tempdir().unwrap();
    let elsewhere = Origin::honest(&wine());
    let there = elsewhere.url("/there");
    let origin = Origin::of(move |asked, _| {
        let location = match asked.path.as_str() {
            "/a/x" => "../b?c",
            "/b?c" => "d/木 e",
            _ => &there,
        };
        format!("HTTP/1.1 302 There\r\nLocation: {location}\r\n\r\n").into_bytes()
    });
    get(folder.path(), &[&origin.url("/a/x")]).is(0, "");
    assert_eq!(listing(folder.path()), ["x"]);
    let paths: Vec<_> = origin.asked().into_iter().map(|asked| asked.path).collect();
    assert_eq!(paths, ["/a/x", "/b?c", "/d/%E6%9C%A8%20e"]);
    assert_eq!(elsewhere.asked().len(), 1);
}

#[test]
fn redirects_that_lead_nowhere_are_refused() {
    for (location, why) in [
        ("//me@h/", "it takes no user"),
        ("ftp://h/x", "it takes http://"),
        ("gopher://h/9x", "it takes http:// and https:// only"),
        ("http://h:0/", "its port is none"),
    ] {
        let folder = tempdir().unwrap();
        let origin = saying(format!(
            "HTTP/1.1 301 There\r\nLocation: {location}\r\n\r\n"
        ));
        let outcome = get(folder.path(), &[&origin.url("/x")]);
        assert_eq!(outcome.code, Some(7), "{outcome:?}");
        let line = format!("the server redirects to '{location}', which won't do: {why}");
        assert!(outcome.stderr.contains(&line), "{outcome:?}");
    }
}

#[test]
fn ten_redirects_are_followed_and_no_eleventh() {
    for (count, code) in [(10, 0), (11, 7)] {
        let folder = tempdir().unwrap();
        let origin = Origin::of(move |asked, before| {
            let to = format!("HTTP/1.1 307 There\r\nLocation: /{before}\r\n\r\n");
            if before < count {
                to.into_bytes()
            } else {
                wine().answer(asked)
            }
        });
        let outcome = get(folder.path(), &[&origin.url("/x")]);
        assert_eq!(outcome.code, Some(code), "{outcome:?}");
        assert_eq!(origin.asked().len(), 11);
    }
    let folder = tempdir().unwrap();
    let ring = saying("HTTP/1.1 302 There\r\nLocation: /x\r\n\r\n");
    let url = ring.url("/x");
    let line = "the server redirects more than 10 times";
    get(folder.path(), &[&url]).is(7, &format!("carafe: {url}: {line}\n"));
}

#[test]
fn what_a_server_says_is_shown_escaped() {
    let folder = tempdir().unwrap();
    let origin = saying("HTTP/1.1 302 There\r\nLocation: ftp://h/\u{202e}\u{9b}2J\r\n\r\n");
    let outcome = get(folder.path(), &[&origin.url("/x\u{202e}\x1b[2J")]);
    assert_eq!(outcome.code, Some(7));
    assert!(
        outcome.stderr.contains(r"/x\xe2\x80\xae\x1b[2J: "),
        "{outcome:?}"
    );
    assert!(
        outcome.stderr.contains(r"ftp://h/\xe2\x80\xae\xc2\x9b2J"),
        "{outcome:?}"
    );
    assert_eq!(outcome.stderr.lines().count(), 1);
}

#[test]
fn silence_has_a_limit_before_the_answer_and_within() {
    let folder = tempdir().unwrap();
    let origin = Origin::start(|asked, _, mut stream| {
        if asked.path == "/half" {
            stream.write_all(&cut(wine().answer(asked), 2)).unwrap();
        }
        std::mem::forget(stream);
    });
    let (none, half) = (origin.url("/none"), origin.url("/half"));
    get(
        folder.path(),
        &["-q", "-t", "200ms", "--retries", "0", &none, &half],
    )
    .is(
        4,
        &format!(
            "carafe: {none}: no answer came: nothing moved for 200ms\n\
             carafe: {half}: the download broke off after 2 bytes: nothing moved for 200ms; \
             2 bytes are kept in half.part\n"
        ),
    );
}

#[test]
#[ignore = "its gaps are time"]
fn a_slow_body_is_not_silence() {
    let folder = tempdir().unwrap();
    let origin = Origin::start(|_, _, mut stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
            .unwrap();
        for byte in b"slowly" {
            std::thread::sleep(std::time::Duration::from_millis(500));
            stream.write_all(&[*byte]).unwrap();
        }
    });
    get(
        folder.path(),
        &["-t", "2s", "--retries", "0", &origin.url("/x")],
    )
    .is(0, "");
}

#[test]
fn connecting_has_a_limit() {
    let folder = tempdir().unwrap();
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    // A full accept queue answers no further handshake.
    let mut queued = Vec::new();
    let limit = std::time::Duration::from_millis(200);
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, limit) {
        queued.push(stream);
    }
    let url = format!("http://{address}/x");
    let flags = ["--connect-timeout", "200ms", "--retries", "0", &url];
    let line = format!("cannot connect: {address}: connection timed out");
    get(folder.path(), &flags).is(4, &format!("carafe: {url}: {line}\n"));
}
