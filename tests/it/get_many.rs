//! `carafe get` with URLs: what is checked, what goes to standard output, several at once, and what
//! a terminal shows.

use std::fs;
use std::io::Write as _;
use std::process::Command;
use std::sync::{Arc, Barrier};

use crate::common::pattern;
use crate::fake::{Outcome, carafe, run};
use crate::origin::{Origin, Version, cut, get, listing, saying};
use tempfile::tempdir;

fn wine() -> Version {
    Version::new("wine", "\"red\"")
}

// ---- checks ----

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_right_digest_passes_in_either_case() {
    let folder = tempdir().unwrap();
    let origin = Origin::honest(&wine());
    let sum = sha256(b"wine");
    for sum in [sum.clone(), sum.to_uppercase()] {
        get(folder.path(), &["--sha256", &sum, &origin.url("/x")]).is(0, "");
        assert_eq!(listing(folder.path()), ["x"]);
    }
}

#[test]
fn a_wrong_digest_never_takes_the_name_and_is_not_continued() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("x"), "old").unwrap();
    let origin = Origin::honest(&wine());
    let url = origin.url("/x");
    let (wanted, got) = ("0".repeat(64), sha256(b"wine"));
    let line = format!("its SHA-256 is {got}, not {wanted}; 4 bytes are kept in x.part");
    for _ in 0..2 {
        get(folder.path(), &["--sha256", &wanted, &url]).is(9, &format!("carafe: {url}: {line}\n"));
        assert_eq!(listing(folder.path()), ["x", "x.part"]);
        assert_eq!(fs::read(folder.path().join("x")).unwrap(), b"old");
        assert_eq!(fs::read(folder.path().join("x.part")).unwrap(), b"wine");
    }
    assert_eq!(origin.from(), [None, None]);
}

#[test]
fn a_digest_covers_what_was_there_before_and_every_restart() {
    let body = pattern(3, 300_000);
    let version = Version::new(body.clone(), "\"a\"");
    let folder = tempdir().unwrap();
    let whole = version.clone();
    let origin = Origin::of(move |asked, count| match count {
        // Broken off twice, begun anew twice, and then continued.
        0 => cut(whole.answer(asked), 100_000),
        1 => cut(whole.answer(asked), 50_000),
        2 => cut(
            Version::new(pattern(4, 300_000), "\"b\"").answer(asked),
            200_000,
        ),
        3 => cut(whole.answer(asked), 120_000),
        _ => whole.answer(asked),
    });
    let sum = sha256(&body);
    let url = origin.url("/x");
    let flags = ["-q", "--retries", "0", "--sha256", &sum, &url];
    for code in [4, 4, 4, 4, 0] {
        assert_eq!(get(folder.path(), &flags).code, Some(code));
    }
    let starts = [
        None,
        Some(100_000),
        Some(150_000),
        Some(200_000),
        Some(120_000),
    ];
    assert_eq!(origin.from(), starts);
    assert!(fs::read(folder.path().join("x")).unwrap() == body);
}

#[test]
fn a_bare_download_may_be_checked_too() {
    let folder = tempdir().unwrap();
    let server = crate::fake::serve(|mut stream| {
        crate::fake::receive_once(&stream);
        stream.write_all(b"wine").unwrap();
    });
    let server = server.to_string();
    get(folder.path(), &["--sha256", &sha256(b"wine"), &server, "x"]).is(0, "");
    let outcome = get(folder.path(), &["--sha256", &"f".repeat(64), &server, "y"]);
    assert_eq!(outcome.code, Some(9), "{outcome:?}");
    assert_eq!(listing(folder.path()), ["x", "y.part"]);
}

// ---- standard output ----

fn to_stdout(words: &[&str]) -> Outcome {
    let folder = tempdir().unwrap();
    let mut command = carafe(folder.path());
    command.args(["get", "-q", "--retry-delay", "0s", "-o", "-"]);
    let outcome = run(command.args(words), b"");
    assert!(listing(folder.path()).is_empty());
    outcome
}

#[test]
fn standard_output_takes_several_in_order_whatever_the_jobs() {
    let origin = Origin::of(|asked, _| Version::new(asked.path.clone(), "\"a\"").answer(asked));
    let urls: Vec<_> = (0..9).map(|n| origin.url(&format!("/{n}/"))).collect();
    let words: Vec<_> = ["-j", "4"]
        .into_iter()
        .chain(urls.iter().map(|url| &**url))
        .collect();
    let outcome = to_stdout(&words);
    outcome.is(0, "");
    assert_eq!(outcome.stdout, b"/0//1//2//3//4//5//6//7//8/");
}

#[test]
fn standard_output_is_continued_but_never_begun_anew() {
    let version = Version::new(pattern(5, 1000), "\"a\"");
    let whole = version.clone();
    let origin = Origin::of(move |asked, _| cut(whole.answer(asked), 300));
    let outcome = to_stdout(&[&origin.url("/x")]);
    outcome.is(0, "");
    assert!(outcome.stdout == version.body);

    let origin = Origin::of(move |asked, count| match count {
        0 => cut(version.answer(asked), 300),
        _ => Version::new(pattern(6, 1000), "\"b\"").answer(asked),
    });
    let outcome = to_stdout(&[&origin.url("/x")]);
    let line = "what was written already can't be taken back";
    outcome.is(3, &format!("carafe: {}: {line}\n", origin.url("/x")));
    assert_eq!(outcome.stdout, &pattern(5, 1000)[..300]);
    // Without a validator nothing could be continued: it is not even tried.
    let origin = saying("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nwine");
    assert_eq!(to_stdout(&[&origin.url("/x")]).code, Some(4));
    assert_eq!(origin.asked().len(), 1);
}

#[test]
fn a_reader_that_has_had_enough_ends_it_quietly() {
    let folder = tempdir().unwrap();
    // More than the pipe and the sockets hold.
    let origin = Origin::honest(&Version::new(vec![b'w'; 32 << 20], "\"a\""));
    crate::fake::have_enough(carafe(folder.path()).args([
        "get",
        "-o",
        "-",
        &origin.url("/a"),
        &origin.url("/b"),
    ]));
    assert_eq!(origin.asked().len(), 1);
}

// ---- several at once ----

#[test]
fn four_go_at_once_and_one_that_fails_stops_nobody() {
    let folder = tempdir().unwrap();
    // Nobody is answered before all four have asked.
    let together = Arc::new(Barrier::new(4));
    let origin = Origin::start(move |asked, _, mut stream| {
        together.wait();
        let answer = match asked.path.as_str() {
            "/no" => b"HTTP/1.1 404 No\r\n\r\n".to_vec(),
            path => Version::new(path, "\"a\"").answer(asked),
        };
        stream.write_all(&answer).unwrap();
    });
    let urls = ["/a", "/no", "/b", "/c"].map(|path| origin.url(path));
    let words: Vec<_> = ["-j", "4"]
        .into_iter()
        .chain(urls.iter().map(|url| &**url))
        .collect();
    let line = format!("carafe: {}: the server says 404 Not Found\n", urls[1]);
    get(folder.path(), &words).is(8, &line);
    assert_eq!(listing(folder.path()), ["a", "b", "c"]);
    assert_eq!(fs::read(folder.path().join("b")).unwrap(), b"/b");
}

#[test]
fn the_lowest_number_is_the_exit_code_and_lines_are_whole() {
    let folder = tempdir().unwrap();
    fs::create_dir(folder.path().join("dir")).unwrap();
    let origin = Origin::of(|asked, _| match asked.path.as_str() {
        path if path.starts_with("/no") => b"HTTP/1.1 404 No\r\n\r\n".to_vec(),
        path if path.starts_with("/bad") => b"bad\r\n\r\n".to_vec(),
        path if path.starts_with("/cut") => Vec::new(),
        _ => wine().answer(asked),
    });
    for (paths, code) in [
        (&["/no", "/bad"][..], 7),
        (&["/no", "/bad", "/cut"], 4),
        (&["/no", "/bad", "/cut", "/dir"], 3),
    ] {
        let path = |n: usize| match paths[n % paths.len()] {
            "/dir" => format!("/{n}/dir"),
            path => format!("{path}{n}"),
        };
        let urls: Vec<_> = (0..7).map(|n| origin.url(&path(n))).collect();
        let flags = ["-j", "3", "--retries", "0"].into_iter();
        let words: Vec<_> = flags.chain(urls.iter().map(|url| &**url)).collect();
        let outcome = get(folder.path(), &words);
        assert_eq!(outcome.code, Some(code), "{outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), urls.len(), "{outcome:?}");
        let is_whole = |line: &str| line.starts_with("carafe: http://") && line.contains(": ");
        assert!(outcome.stderr.lines().all(is_whole), "{outcome:?}");
    }
}

#[test]
fn names_of_the_bare_protocol_go_at_once_too() {
    let folder = tempdir().unwrap();
    let together = Arc::new(Barrier::new(3));
    let server = crate::fake::serve(move |mut stream| {
        let together = Arc::clone(&together);
        std::thread::spawn(move || {
            let name = crate::fake::receive_once(&stream);
            together.wait();
            stream.write_all(&name).unwrap();
        });
    });
    get(
        folder.path(),
        &["-j", "3", &server.to_string(), "a", "b", "c"],
    )
    .is(0, "");
    assert_eq!(fs::read(folder.path().join("c")).unwrap(), b"c\n");
}

// ---- a terminal ----

#[test]
fn a_terminal_sees_how_much_of_how_much_and_a_pipe_nothing() {
    const SPAWN: &str =
        "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let folder = tempdir().unwrap();
    let origin = Origin::honest(&Version::new(vec![b'w'; 3 << 20], "\"a\""));
    get(folder.path(), &[&origin.url("/x")]).is(0, "");
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: python3 is missing");
        return;
    }
    let mut command = Command::new("python3");
    command
        .args([
            "-c",
            SPAWN,
            env!("CARGO_BIN_EXE_carafe"),
            "get",
            "-O",
            "-j",
            "2",
        ])
        .args([origin.url("/y"), origin.url("/z")])
        .env("TERM", "xterm")
        .current_dir(folder.path());
    let outcome = run(&mut command, b"");
    let screen = String::from_utf8(outcome.stdout).unwrap();
    assert_eq!(outcome.code, Some(0), "{screen:?}");
    assert!(screen.contains("/3.00 MiB"), "{screen:?}");
    assert!(screen.contains("eta "), "{screen:?}");
    assert!(screen.contains('%'), "{screen:?}");
    assert!(screen.contains(" of 2 files "), "{screen:?}");
    for name in ["y", "z"] {
        let line = format!("/{name}: 3145728 bytes in ");
        assert!(screen.contains(&line), "{screen:?}");
    }
}
