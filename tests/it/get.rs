//! `carafe get` as its users meet it: the real program against servers that behave and servers
//! that do not.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::fake::{Outcome, Untouched, carafe, receive_once, reset, run, serve};
use crate::origin::listing;
use tempfile::{TempDir, tempdir};

const NOTHING: &str = "the server sent nothing: it has no such file, or an empty one";

type Requests = Arc<Mutex<Vec<Vec<u8>>>>;

/// The source's server: one read is the name, byte for byte; the file or nothing; close.
fn tutorial(files: &'static [(&[u8], &[u8])]) -> (SocketAddr, Requests) {
    let requests = Requests::default();
    let seen = Arc::clone(&requests);
    let address = serve(move |mut stream| {
        let name = receive_once(&stream);
        seen.lock().unwrap().push(name.clone());
        if let Some((_, body)) = files.iter().find(|(file, _)| *file == name) {
            stream.write_all(body).unwrap();
        }
    });
    (address, requests)
}

/// A server that takes any name and sends the body.
fn server_of(body: &'static [u8]) -> SocketAddr {
    serve(move |mut stream| {
        receive_once(&stream);
        stream.write_all(body).unwrap();
    })
}

/// A server that sends "half", waits until `arrived` holds, and resets.
fn breaking_server(arrived: impl Fn() -> bool + Send + 'static) -> SocketAddr {
    serve(move |mut stream| {
        receive_once(&stream);
        stream.write_all(b"half").unwrap();
        wait_until(&arrived);
        reset(stream);
    })
}

fn wait_until(holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "it never came");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn has_bytes(path: PathBuf, count: u64) -> impl Fn() -> bool + Send + 'static {
    move || fs::metadata(&path).is_ok_and(|metadata| metadata.len() == count)
}

fn get<W: AsRef<OsStr>>(folder: &TempDir, server: SocketAddr, words: &[W]) -> Outcome {
    let mut command = carafe(folder.path());
    command.arg("get").arg(server.to_string()).args(words);
    run(&mut command, b"")
}

#[test]
fn a_name_and_its_lf_are_sent_at_once_and_the_file_lands_beside_us() {
    let folder = tempdir().unwrap();
    let (server, requests) = tutorial(&[(b"sub/a.txt\n", b"wine")]);
    get(&folder, server, &["sub/a.txt"]).is(0, "");
    assert_eq!(*requests.lock().unwrap(), [b"sub/a.txt\n"]);
    assert_eq!(listing(folder.path()), ["[接收]a.txt"]);
    assert_eq!(
        fs::read(folder.path().join("[接收]a.txt")).unwrap(),
        b"wine"
    );
}

#[test]
fn several_megabytes_in_odd_pieces_are_whole() {
    let folder = tempdir().unwrap();
    let body: Vec<u8> = (0..5_000_011_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let sent = body.clone();
    let server = serve(move |mut stream| {
        receive_once(&stream);
        let mut rest = &sent[..];
        for size in [1, 2, 3, 65_537, 7, 131_073, 4_099].into_iter().cycle() {
            let (piece, later) = rest.split_at(rest.len().min(size));
            stream.write_all(piece).unwrap();
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
    });
    get(&folder, server, &["big", "-O"]).is(0, "");
    assert_eq!(listing(folder.path()), ["big"]);
    assert!(fs::read(folder.path().join("big")).unwrap() == body);
}

#[test]
fn the_sources_server_is_asked_once_more_without_the_lf() {
    let folder = tempdir().unwrap();
    let (server, requests) = tutorial(&[(b"x", b"wine")]);
    get(&folder, server, &["x"]).is(0, "");
    assert_eq!(*requests.lock().unwrap(), [&b"x\n"[..], b"x"]);
    assert_eq!(fs::read(folder.path().join("[接收]x")).unwrap(), b"wine");
}

#[test]
fn verbose_tells_of_the_second_try_and_of_the_end() {
    let folder = tempdir().unwrap();
    let (server, _) = tutorial(&[(b"x", b"wine")]);
    let outcome = get(&folder, server, &["-v", "x"]);
    let lines: Vec<_> = outcome.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{outcome:?}");
    assert_eq!(
        lines[0],
        "carafe: x: nothing came; trying once more without the LF"
    );
    let rest = lines[1].strip_prefix("carafe: x: 4 bytes in ").unwrap();
    let seconds = rest.strip_suffix(" s to [接收]x").unwrap();
    assert!(seconds.parse::<f64>().unwrap() < 60.0);
}

#[test]
fn the_second_try_ends_the_name_with_a_half_close() {
    let folder = tempdir().unwrap();
    let mut connections = 0;
    let server = serve(move |mut stream| {
        connections += 1;
        if connections == 1 {
            receive_once(&stream);
        } else {
            let mut name = Vec::new();
            stream.read_to_end(&mut name).unwrap();
            assert_eq!(name, b"x");
            stream.write_all(b"wine").unwrap();
        }
    });
    get(&folder, server, &["x"]).is(0, "");
    assert_eq!(listing(folder.path()), ["[接收]x"]);
}

#[test]
fn unterminated_sends_the_bare_name_and_leaves_the_connection_open() {
    let folder = tempdir().unwrap();
    let server = serve(|mut stream| {
        assert_eq!(receive_once(&stream), b"x");
        stream
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        assert!(stream.read(&mut [0]).is_err(), "neither a byte nor an end");
        stream.write_all(b"wine").unwrap();
    });
    get(&folder, server, &["--unterminated", "x"]).is(0, "");
    assert_eq!(listing(folder.path()), ["[接收]x"]);
}

#[test]
fn no_byte_is_no_file_and_changes_nothing() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("[接收]x"), "old").unwrap();
    for (words, tries) in [(&["x"][..], 2), (&["--unterminated", "x"], 1)] {
        let (server, requests) = tutorial(&[]);
        get(&folder, server, words).is(8, &format!("carafe: x: {NOTHING}\n"));
        assert_eq!(requests.lock().unwrap().len(), tries);
        assert_eq!(listing(folder.path()), ["[接收]x"]);
        assert_eq!(fs::read(folder.path().join("[接收]x")).unwrap(), b"old");
    }
}

#[test]
fn a_reset_before_any_byte_is_the_networks_failure_and_not_retried() {
    let folder = tempdir().unwrap();
    let requests = Requests::default();
    let seen = Arc::clone(&requests);
    let server = serve(move |stream| {
        seen.lock().unwrap().push(receive_once(&stream));
        reset(stream);
    });
    let reason = "the download broke off after 0 bytes: Connection reset by peer (os error 104)";
    get(&folder, server, &["x"]).is(4, &format!("carafe: x: {reason}\n"));
    assert_eq!(requests.lock().unwrap().len(), 1);
    assert!(listing(folder.path()).is_empty());
}

#[test]
fn a_reset_midway_leaves_the_old_target_and_keeps_the_part() {
    let folder = tempdir().unwrap();
    let part = folder.path().join("x.part");
    fs::write(folder.path().join("x"), "old").unwrap();
    let server = breaking_server(has_bytes(part.clone(), 4));
    get(&folder, server, &["-O", "x"]).is(
        4,
        "carafe: x: the download broke off after 4 bytes: Connection reset by peer \
         (os error 104); 4 bytes are kept in x.part\n",
    );
    assert_eq!(fs::read(folder.path().join("x")).unwrap(), b"old");
    assert_eq!(fs::read(part).unwrap(), b"half");
}

#[test]
fn what_is_left_of_an_earlier_download_is_overwritten() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("x.part"), "longer than the file").unwrap();
    get(&folder, server_of(b"wine"), &["-O", "x"]).is(0, "");
    assert_eq!(listing(folder.path()), ["x"]);
    assert_eq!(fs::read(folder.path().join("x")).unwrap(), b"wine");
}

#[test]
fn a_locked_part_belongs_to_another_download() {
    let folder = tempdir().unwrap();
    let part = folder.path().join("x.part");
    fs::write(&part, "theirs").unwrap();
    let handle = File::open(&part).unwrap();
    handle.lock().unwrap();
    get(&folder, server_of(b"wine"), &["-O", "x"]).is(
        3,
        "carafe: x: cannot write x.part: another download is writing it\n",
    );
    assert_eq!(listing(folder.path()), ["x.part"]);
    assert_eq!(fs::read(part).unwrap(), b"theirs");
}

#[test]
fn a_planted_part_is_neither_followed_nor_waited_for() {
    let folder = tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    symlink("planted", path("a.part")).unwrap();
    mkfifo(&path("b.part"));
    let server = server_of(b"wine");
    let cases = [
        ("a", "Too many levels of symbolic links (os error 40)"),
        ("b", "it is not a regular file"),
    ];
    for (name, reason) in cases {
        let line = format!("carafe: {name}: cannot write {name}.part: {reason}\n");
        get(&folder, server, &["-O", name]).is(3, &line);
    }
    assert_eq!(listing(folder.path()), ["a.part", "b.part"]);
}

#[test]
fn a_part_that_is_no_regular_file_is_left_alone() {
    let folder = tempdir().unwrap();
    mkfifo(&folder.path().join("x.part"));
    let _reader = File::options()
        .read(true)
        .write(true)
        .open(folder.path().join("x.part"))
        .unwrap();
    get(&folder, server_of(b"wine"), &["-O", "x"]).is(
        3,
        "carafe: x: cannot write x.part: it is not a regular file\n",
    );
    assert_eq!(listing(folder.path()), ["x.part"]);
}

fn mkfifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_device_is_written_into() {
    let folder = tempdir().unwrap();
    let server = server_of(b"wine");
    get(&folder, server, &["-o", "/dev/null", "x"]).is(0, "");
    let kind = fs::symlink_metadata("/dev/null").unwrap().file_type();
    assert!(kind.is_char_device());
    get(&folder, server, &["-o", "/dev/full", "x"]).is(
        3,
        "carafe: x: cannot write /dev/full: No space left on device (os error 28)\n",
    );
}

#[test]
fn a_fifo_is_written_into() {
    let folder = tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    mkfifo(&fifo);
    let path = fifo.clone();
    let reader = std::thread::spawn(move || fs::read(path).unwrap());
    get(&folder, server_of(b"wine"), &["-o", "fifo", "x"]).is(0, "");
    assert_eq!(reader.join().unwrap(), b"wine");
    assert_eq!(listing(folder.path()), ["fifo"]);
    assert!(fs::symlink_metadata(fifo).unwrap().file_type().is_fifo());
}

#[test]
fn a_link_stays_and_the_file_behind_it_is_replaced() {
    let folder = tempdir().unwrap();
    let real = folder.path().join("real");
    fs::create_dir(&real).unwrap();
    fs::write(real.join("file"), "old").unwrap();
    symlink("real/file", folder.path().join("link")).unwrap();

    let server = breaking_server(has_bytes(real.join("file.part"), 4));
    assert_eq!(get(&folder, server, &["-o", "link", "x"]).code, Some(4));
    assert_eq!(fs::read(real.join("file")).unwrap(), b"old");

    get(&folder, server_of(b"wine"), &["-o", "link", "x"]).is(0, "");
    assert_eq!(listing(folder.path()), ["link", "real"]);
    assert_eq!(listing(&real), ["file"]);
    assert_eq!(fs::read(real.join("file")).unwrap(), b"wine");
    assert!(folder.path().join("link").is_symlink());
}

#[test]
fn what_cannot_be_a_target_is_refused_before_connecting() {
    let folder = tempdir().unwrap();
    fs::create_dir(folder.path().join("[接收]d")).unwrap();
    fs::write(folder.path().join("file"), "old").unwrap();
    symlink("nowhere", folder.path().join("dangling")).unwrap();
    let untouched = Untouched::new();
    let long = "n".repeat(256);
    let cases: [(&[&str], &str); 6] = [
        (&["d"], "d: cannot write [接收]d: it is a directory"),
        (
            &["x", "-o", "new/"],
            "x: cannot write new/: there is no such directory",
        ),
        (
            &["x", "-o", "new/.."],
            "x: cannot write new/..: there is no such directory",
        ),
        (
            &["x", "-o", "dangling"],
            "x: cannot write dangling: it is a link that leads nowhere",
        ),
        (
            &["x", "-o", "file/x"],
            "x: cannot write file/x: Not a directory (os error 20)",
        ),
        (
            &[&long],
            &format!("{long}: cannot write {long}: File name too long (os error 36)"),
        ),
    ];
    for (words, line) in cases {
        get(&folder, untouched.address(), words).is(3, &format!("carafe: {line}\n"));
    }
    assert_eq!(listing(folder.path()), ["[接收]d", "dangling", "file"]);
}

#[test]
fn a_part_that_cannot_be_made_is_a_failure_here() {
    let folder = tempdir().unwrap();
    get(&folder, server_of(b"wine"), &["-o", "no/x", "x"]).is(
        3,
        "carafe: x: cannot write no/x.part: No such file or directory (os error 2)\n",
    );
}

#[test]
fn a_full_disk_midway_leaves_the_old_target_and_keeps_what_fits() {
    let folder = tempdir().unwrap();
    let target = folder.path().join("x");
    fs::write(&target, "old").unwrap();
    let server = serve(|mut stream| {
        receive_once(&stream);
        // The client may be gone before all is sent.
        let _ = stream.write_all(&[b'w'; 1 << 20]);
    });
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$@\"", "sh"])
        .arg(env!("CARGO_BIN_EXE_carafe"))
        .args(["get", &server.to_string(), "-O", "x"])
        .current_dir(folder.path());
    let outcome = run(&mut limited, b"");
    let kept = fs::metadata(folder.path().join("x.part")).unwrap().len();
    assert!((1..1 << 20).contains(&kept));
    outcome.is(
        3,
        &format!(
            "carafe: x: cannot write x.part: File too large (os error 27); \
             {kept} bytes are kept in x.part\n"
        ),
    );
    assert_eq!(fs::read(target).unwrap(), b"old");
}

#[test]
fn a_part_without_a_byte_is_not_left_behind() {
    let folder = tempdir().unwrap();
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh"])
        .arg(env!("CARGO_BIN_EXE_carafe"))
        .args(["get", &server_of(b"wine").to_string(), "-O", "x"])
        .current_dir(folder.path());
    run(&mut limited, b"").is(
        3,
        "carafe: x: cannot write x.part: File too large (os error 27)\n",
    );
    assert!(listing(folder.path()).is_empty());
}

#[test]
fn a_whole_file_that_cannot_take_its_name_is_kept() {
    let folder = tempdir().unwrap();
    let target = folder.path().join("x");
    let server = serve(move |mut stream| {
        receive_once(&stream);
        fs::create_dir(&target).unwrap();
        stream.write_all(b"wine").unwrap();
    });
    get(&folder, server, &["-O", "x"]).is(
        3,
        "carafe: x: cannot write x: Is a directory (os error 21); 4 bytes are kept in x.part\n",
    );
    assert_eq!(fs::read(folder.path().join("x.part")).unwrap(), b"wine");
}

#[test]
fn the_targets_permissions_are_kept_and_its_bytes_hidden_meanwhile() {
    let folder = tempdir().unwrap();
    let mode = |name: &str| {
        let metadata = fs::metadata(folder.path().join(name)).unwrap();
        metadata.permissions().mode() & 0o777
    };
    for bits in [0o640, 0o444, 0o755] {
        let target = folder.path().join("x");
        fs::write(&target, "old").unwrap();
        fs::set_permissions(&target, Permissions::from_mode(bits)).unwrap();
        let server = breaking_server(has_bytes(folder.path().join("x.part"), 4));
        assert_eq!(get(&folder, server, &["-O", "x"]).code, Some(4));
        assert_eq!(mode("x.part"), 0o600);
        get(&folder, server_of(b"wine"), &["-O", "x"]).is(0, "");
        assert_eq!(mode("x"), bits);
        fs::remove_file(&target).unwrap();
    }
}

#[test]
fn standard_output_takes_several_names_one_after_the_other() {
    let folder = tempdir().unwrap();
    let (server, _) = tutorial(&[
        (b"a\n", b"red "),
        (b"b/../c\n", b"and "),
        (b"d/\n", b"white"),
    ]);
    let outcome = get(&folder, server, &["-o", "-", "a", "b/../c", "d/"]);
    outcome.is(0, "");
    assert_eq!(outcome.stdout, b"red and white");
    assert!(listing(folder.path()).is_empty());
}

#[test]
fn standard_output_keeps_what_came_before_a_reset() {
    let folder = tempdir().unwrap();
    let outcome = get(&folder, breaking_server(|| true), &["-o", "-", "x"]);
    outcome.is(
        4,
        "carafe: x: the download broke off after 4 bytes: Connection reset by peer (os error 104)\n",
    );
    assert_eq!(outcome.stdout, b"half");
}

#[test]
fn a_reader_that_has_had_enough_ends_it_quietly() {
    let folder = tempdir().unwrap();
    let requests = Requests::default();
    let seen = Arc::clone(&requests);
    let server = serve(move |mut stream| {
        seen.lock().unwrap().push(receive_once(&stream));
        // More than the pipe and the sockets hold. The client goes before all is sent.
        let _ = stream.write_all(&vec![b'w'; 32 << 20]);
    });
    crate::fake::have_enough(carafe(folder.path()).args([
        "get",
        &server.to_string(),
        "a",
        "b",
        "-o",
        "-",
    ]));
    assert_eq!(*requests.lock().unwrap(), [b"a\n"]);
}

#[test]
fn a_redirected_standard_output_is_written_into_and_not_replaced() {
    for name in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        let folder = tempdir().unwrap();
        let redirected = folder.path().join("redirected");
        fs::write(&redirected, "earlier, ").unwrap();
        let stdout = OpenOptions::new().append(true).open(&redirected).unwrap();
        let before = fs::metadata(&redirected).unwrap().ino();
        let server = server_of(b"wine");
        let status = carafe(folder.path())
            .args(["get", &server.to_string(), "a", "-o", name])
            .stdout(stdout)
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(0), "{name}");
        assert_eq!(fs::read(&redirected).unwrap(), b"earlier, wine", "{name}");
        assert_eq!(fs::metadata(&redirected).unwrap().ino(), before, "{name}");
        assert_eq!(listing(folder.path()), ["redirected"], "{name}");
    }
}

#[test]
fn a_descriptor_opened_on_a_file_is_written_into_and_not_replaced() {
    let folder = tempdir().unwrap();
    let server = server_of(b"wine");
    let status = Command::new("bash")
        .args(["-c", "exec \"$0\" get \"$1\" a -o /dev/fd/3 3>target"])
        .args([env!("CARGO_BIN_EXE_carafe"), &server.to_string()])
        .current_dir(folder.path())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(fs::read(folder.path().join("target")).unwrap(), b"wine");
    assert_eq!(listing(folder.path()), ["target"]);
}

#[test]
fn what_cannot_be_asked_for_is_refused_before_connecting() {
    let folder = tempdir().unwrap();
    let untouched = Untouched::new();
    let long = "n".repeat(1025);
    let cases: [(&[&str], &str); 11] = [
        (&[""], "a name takes 1 to 1024 bytes, and this one has 0"),
        (
            &[&long],
            "a name takes 1 to 1024 bytes, and this one has 1025",
        ),
        (&["a\nb"], r"'a\x0ab': a name takes no LF and no NUL"),
        (&["ok", "a/"], "'a/': no file's name; -o FILE gives one"),
        (&["-O", "a/.."], "'a/..': no file's name; -o FILE gives one"),
        (&["."], "'.': no file's name; -o FILE gives one"),
        (
            &["-o", "f", "a", "b"],
            "f: two names would be written to it",
        ),
        (&["a/x", "b/x"], "[接收]x: two names would be written to it"),
        (&["-O", "x", "x"], "x: two names would be written to it"),
        (
            &["-O", "x", "x.part"],
            "x.part: two names would be written to it",
        ),
        (
            &["-O", "x.part", "x"],
            "x.part: two names would be written to it",
        ),
    ];
    for (words, line) in cases {
        get(&folder, untouched.address(), words).is(2, &format!("carafe: {line}\n"));
    }
    assert!(listing(folder.path()).is_empty());
}

#[test]
fn the_longest_name_passes() {
    let folder = tempdir().unwrap();
    let name = "n".repeat(1024);
    let expected = format!("{name}\n");
    let server = serve(move |mut stream| {
        let mut request = vec![0; expected.len()];
        stream.read_exact(&mut request).unwrap();
        assert_eq!(request, expected.as_bytes());
        stream.write_all(b"wine").unwrap();
    });
    get(&folder, server, &["-o", "x", &name]).is(0, "");
}

#[test]
fn names_are_bytes_and_a_cr_at_their_end_survives_the_lf() {
    let folder = tempdir().unwrap();
    let (server, requests) = tutorial(&[(b"\xff\n", b"wine"), (b"a\r\r\n", b"wine")]);
    let names = [OsStr::from_bytes(b"\xff"), OsStr::new("a\r")];
    let output = [OsStr::new("-o"), OsStr::new("-")];
    get(&folder, server, &[names, output].concat()).is(0, "");
    assert_eq!(*requests.lock().unwrap(), [&b"\xff\n"[..], b"a\r\r\n"]);
}

#[test]
fn the_lowest_number_of_several_failures_is_the_exit_code() {
    let folder = tempdir().unwrap();
    let server = serve(|mut stream| match receive_once(&stream).first() {
        Some(b'r') => reset(stream),
        Some(b'w') => stream.write_all(b"wine").unwrap(),
        _ => {}
    });
    fs::create_dir(folder.path().join("dir")).unwrap();
    let cases: [(&[&str], i32, usize); 4] = [
        (&["no", "r", "w1"], 4, 2),
        (&["no", "w2", "r", "dir"], 3, 3),
        (&["w3", "no"], 8, 1),
        (&["w4", "w5"], 0, 0),
    ];
    for (names, code, failures) in cases {
        let outcome = get(&folder, server, &[&["-O"], names].concat());
        assert_eq!(outcome.code, Some(code), "{outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), failures, "{outcome:?}");
    }
    let whole = ["dir", "w1", "w2", "w3", "w4", "w5"];
    assert_eq!(listing(folder.path()), whole);
}

#[test]
fn a_name_is_shown_escaped() {
    let folder = tempdir().unwrap();
    let (server, _) = tutorial(&[]);
    get(&folder, server, &["a\x1b[2J\u{202e}"])
        .is(8, &format!("carafe: a\\x1b[2J\\xe2\\x80\\xae: {NOTHING}\n"));
}

#[test]
fn silence_has_a_limit() {
    let folder = tempdir().unwrap();
    let server = serve(|mut stream| {
        if receive_once(&stream) == b"half\n" {
            stream.write_all(b"half").unwrap();
        }
        std::mem::forget(stream);
    });
    get(&folder, server, &["-t", "200ms", "-O", "-q", "x", "half"]).is(
        4,
        "carafe: x: the download broke off after 0 bytes: nothing moved for 200ms\n\
         carafe: half: the download broke off after 4 bytes: nothing moved for 200ms; \
         4 bytes are kept in half.part\n",
    );
}

#[test]
fn a_refused_connection_names_the_address() {
    let folder = tempdir().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    get(&folder, closed, &["x"]).is(
        4,
        &format!("carafe: x: cannot connect: {closed}: Connection refused (os error 111)\n"),
    );
}

#[test]
fn every_address_of_a_host_is_tried() {
    let folder = tempdir().unwrap();
    let port = server_of(b"wine").port();
    let mut command = carafe(folder.path());
    command.args(["get", &format!("localhost:{port}"), "x"]);
    run(&mut command, b"").is(0, "");
}

#[test]
fn connecting_has_a_limit() {
    let folder = tempdir().unwrap();
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    // A full accept queue answers no further handshake.
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        queued.push(stream);
    }
    let outcome = get(&folder, address, &["--connect-timeout", "200ms", "x"]);
    let line = format!("carafe: x: cannot connect: {address}: connection timed out\n");
    outcome.is(4, &line);
}

const QUESTIONS: &str = "server ip: \nserver port: \nfile name: \n";

fn get_asking(folder: &TempDir, flags: &[&str], answers: &[u8]) -> Outcome {
    let mut command = carafe(folder.path());
    command.arg("get").args(flags);
    run(&mut command, answers)
}

#[test]
fn without_arguments_it_asks_even_a_pipe() {
    let folder = tempdir().unwrap();
    let (server, requests) = tutorial(&[(b"\xff x \n", b"wine")]);
    let port = server.port();
    let answers = [format!(" localhost\r\n{port}\n").as_bytes(), b"\xff x \r\n"].concat();
    let outcome = get_asking(&folder, &["-o", "-"], &answers);
    outcome.is(0, QUESTIONS);
    assert_eq!(outcome.stdout, b"wine");
    assert_eq!(*requests.lock().unwrap(), [b"\xff x \n"]);
    // The last line may lack its LF.
    let answers = [format!("127.0.0.1\n{port}\n").as_bytes(), b"\xff x "].concat();
    get_asking(&folder, &["-o", "x"], &answers).is(0, QUESTIONS);
    assert_eq!(listing(folder.path()), ["x"]);
}

#[test]
fn a_bad_answer_is_one_line() {
    let folder = tempdir().unwrap();
    let long = "h".repeat(70_000);
    let cases = [
        ("", "server ip: no answer: end of file"),
        (
            "\n",
            "server ip: '' won't do: it takes a host name or an IP address",
        ),
        (
            "a:1\n",
            "server ip: 'a:1' won't do: it takes a host name or an IP address",
        ),
        (&long, "server ip: the answer has more than 65536 bytes"),
        ("h\n", "server port: no answer: end of file"),
        (
            "h\n0\n",
            "server port: '0' won't do: it takes a port, 1 to 65535",
        ),
        (
            "h\n\x1b\n",
            r"server port: '\x1b' won't do: it takes a port, 1 to 65535",
        ),
        ("h\n1\n", "file name: no answer: end of file"),
        (
            "h\n1\n\n",
            "a name takes 1 to 1024 bytes, and this one has 0",
        ),
        ("h\n1\na\0b\n", r"'a\x00b': a name takes no LF and no NUL"),
        ("h\n1\na/\n", "'a/': no file's name; -o FILE gives one"),
    ];
    for (answers, line) in cases {
        let outcome = get_asking(&folder, &[], answers.as_bytes());
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        let last = outcome.stderr.lines().last().unwrap();
        assert_eq!(last, format!("carafe: {line}"));
    }
}

/// Runs the program on a terminal of its own and returns what the terminal shows.
fn on_a_terminal(folder: &TempDir, words: &[&str]) -> Option<Outcome> {
    const SPAWN: &str =
        "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: python3 is missing");
        return None;
    }
    let mut command = Command::new("python3");
    command
        .args(["-c", SPAWN, env!("CARGO_BIN_EXE_carafe")])
        .args(words)
        .env("TERM", "xterm")
        .current_dir(folder.path());
    Some(run(&mut command, b""))
}

#[test]
fn a_terminal_sees_progress_unless_quiet_and_then_where_it_went() {
    let folder = tempdir().unwrap();
    let server = server_of(&[b'w'; 3 << 20]).to_string();
    let Some(outcome) = on_a_terminal(&folder, &["get", &server, "x\x1b[2J", "-o", "x"]) else {
        return;
    };
    let screen = String::from_utf8(outcome.stdout).unwrap();
    assert_eq!(outcome.code, Some(0), "{screen:?}");
    assert!(screen.contains("B/s"), "{screen:?}");
    assert!(
        screen.contains(r"x\x1b[2J: 3145728 bytes in "),
        "{screen:?}"
    );
    assert!(screen.ends_with(" s to x\r\n"), "{screen:?}");

    let outcome = on_a_terminal(&folder, &["get", &server, "-q", "x"]).unwrap();
    assert_eq!((outcome.code, outcome.stdout), (Some(0), Vec::new()));
    let outcome = on_a_terminal(&folder, &["get", &server, "-o", "-", "x"]).unwrap();
    assert!(outcome.stdout.iter().all(|byte| *byte == b'w'));
    assert_eq!(outcome.stdout.len(), 3 << 20);
}

#[test]
fn a_server_that_half_closes_has_sent_its_file() {
    let folder = tempdir().unwrap();
    let server = serve(|mut stream| {
        receive_once(&stream);
        stream.write_all(b"wine").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        std::mem::forget(stream);
    });
    get(&folder, server, &["x"]).is(0, "");
}
