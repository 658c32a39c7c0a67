//! The access log: a line for every reply, in a file that may be moved away, get stuck or be full.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use crate::common::{
    Carafe, LARGE_BYTES, assert_same, begin_download, count_lines, exchange, exchange_half_closed,
    pattern, reply_count, root_with, run_carafe, until, vanish,
};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

/// What the server says when it has opened the log anew.
const REOPENED: &str = "access.log\" was opened anew";

/// A server of `small` and `large`, with an access log in the folder that is given first.
fn server(flags: &[&str]) -> (TempDir, TempDir, Carafe) {
    let logs = tempfile::tempdir().unwrap();
    let root = root_with(&[("small", b"small bytes".to_vec()), ("large", large())]);
    let carafe = serve(root.path(), &logs.path().join("access.log"), flags);
    (logs, root, carafe)
}

fn serve(root: &Path, log: &Path, flags: &[&str]) -> Carafe {
    let flags = [&["--access-log", log.to_str().unwrap()], flags].concat();
    Carafe::serve(root, &flags)
}

fn large() -> Vec<u8> {
    pattern(3, LARGE_BYTES)
}

fn read(logs: &TempDir, name: &str) -> String {
    fs::read_to_string(logs.path().join(name)).unwrap()
}

/// A hangup, taken: the log says this so many times.
fn hang_up(carafe: &Carafe, says: &str, times: usize) {
    carafe.signal(Signal::HUP);
    until("the hangup is taken", || {
        count_lines(&carafe.log(), says) == times
    });
}

/// A file that is served, one that isn't there, and one whose client goes away.
fn use_it(carafe: &Carafe) {
    assert_eq!(exchange(carafe.addr(), b"small\n").unwrap(), b"small bytes");
    assert_eq!(exchange(carafe.addr(), b"missing\n").unwrap(), b"");
    // Its line comes when the server has seen that the client is done.
    carafe.wait_for_log("refused: no such file");
    let (client, _) = begin_download(carafe.addr(), "large");
    vanish(client);
    carafe.wait_for_log("reset by peer");
}

#[test]
fn every_reply_is_a_line_in_apaches_combined_format() {
    let (logs, _root, carafe) = server(&[]);
    use_it(&carafe);
    carafe.stop();
    let text = read(&logs, "access.log");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    for (line, request, status) in [
        (lines[0], "NAME small", " 200 11 "),
        (lines[1], "NAME missing", " 404 - "),
        (lines[2], "NAME large", " 499 "),
    ] {
        assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
        assert!(
            line.contains(&format!(" +0000] \"{request}\"{status}")),
            "{line}"
        );
        assert!(line.ends_with(" \"-\" \"-\""), "{line}");
        let year = line.split(['/', ':']).nth(2).unwrap();
        assert!(year.parse::<u16>().is_ok_and(|year| year > 2025), "{line}");
    }
}

#[test]
fn every_reply_is_a_json_object_on_a_line() {
    let (logs, _root, carafe) = server(&["--log-format", "json"]);
    use_it(&carafe);
    carafe.stop();
    let text = read(&logs, "access.log");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3, "{text}");
    for (line, target, status, promised, reason) in [
        (&lines[0], "small", 200, 11, "complete"),
        (&lines[1], "missing", 404, 0, "refused: no such file"),
        (&lines[2], "large", 499, LARGE_BYTES, "reset by peer"),
    ] {
        assert_eq!(line["target"], target);
        assert_eq!(line["status"], status, "{line}");
        assert_eq!(line["bytes_promised"], promised, "{line}");
        assert_eq!(line["reason"], reason);
        assert_eq!(
            (&line["protocol"], &line["peer"]),
            (&"bare".into(), &"127.0.0.1".into())
        );
        assert!(line["port"].as_u64().unwrap() > 0);
        assert!(line["duration_seconds"].as_f64().unwrap() >= 0.0);
        assert!(line["time"].as_str().unwrap().ends_with('Z'));
    }
    let sent = lines[2]["bytes_sent"].as_u64().unwrap();
    assert!(sent > 0 && sent < LARGE_BYTES as u64, "{sent}");
}

#[test]
fn no_name_forges_a_line() {
    let forged = b"x\" 200 9\r127.0.0.1 - - [\x1b[2J\\\xff\xe2\x80\xa8";
    for format in ["combined", "json"] {
        let (logs, _root, carafe) = server(&["--log-format", format]);
        exchange_half_closed(carafe.addr(), forged).unwrap();
        carafe.stop();
        let text = read(&logs, "access.log");
        let line = text.strip_suffix('\n').unwrap();
        assert!(
            !line.contains(|c: char| c.is_control() || c == '\u{2028}'),
            "{line}"
        );
        match format {
            "json" => {
                let line: Value = serde_json::from_str(line).unwrap();
                assert_eq!(line["target"], String::from_utf8_lossy(forged).as_ref());
            }
            _ => assert_eq!(line.matches('"').count(), 6, "{line}"),
        }
    }
}

#[test]
fn the_log_is_appended_to() {
    let logs = tempfile::tempdir().unwrap();
    let root = root_with(&[("small", b"small bytes")]);
    let path = logs.path().join("access.log");
    fs::write(&path, "before\n").unwrap();
    for _ in 0..2 {
        let carafe = serve(root.path(), &path, &[]);
        exchange(carafe.addr(), b"small\n").unwrap();
        carafe.stop_clean();
    }
    let text = read(&logs, "access.log");
    assert!(text.starts_with("before\n"), "{text}");
    assert_eq!(count_lines(&text, "\"NAME small\" 200 11"), 2, "{text}");
}

#[test]
fn a_dash_is_standard_output() {
    let root = root_with(&[("small", b"small bytes")]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_carafe"));
    command
        .arg("serve")
        .arg(root.path())
        .args(["-p", "0", "--bind", "127.0.0.1", "--access-log", "-"])
        .stdout(Stdio::piped());
    let mut carafe = Carafe::start(command);
    let mut stdout = carafe.stdout();
    exchange(carafe.addr(), b"small\n").unwrap();
    // There is nothing to open anew.
    carafe.signal(Signal::HUP);
    carafe.wait_for_log("was opened anew");
    exchange(carafe.addr(), b"small\n").unwrap();
    carafe.stop_clean();
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    assert_eq!(count_lines(&text, "\"NAME small\" 200 11"), 2, "{text}");
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn a_log_that_cant_be_opened_is_a_usage_error() {
    let folder = tempfile::tempdir().unwrap();
    for path in [
        folder.path().to_owned(),
        folder.path().join("no/access.log"),
    ] {
        let flag = OsStr::new("--access-log");
        let output = run_carafe(&[OsStr::new("serve"), flag, path.as_os_str()]);
        assert_eq!(output.status.code(), Some(2));
        let text = String::from_utf8(output.stderr).unwrap();
        let begin = format!("carafe: --access-log: '{}' won't do: ", path.display());
        assert!(text.starts_with(&begin), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

// ---- rotation ----

#[test]
fn after_a_hangup_the_old_file_has_what_was_before_and_the_new_one_the_rest() {
    let (logs, _root, carafe) = server(&[]);
    exchange(carafe.addr(), b"before\n").unwrap();
    let path = logs.path().join("access.log");
    fs::rename(&path, logs.path().join("access.log.1")).unwrap();
    exchange(carafe.addr(), b"between\n").unwrap();
    until("their ends are counted", || {
        count_lines(&carafe.log(), "refused") == 2
    });
    hang_up(&carafe, REOPENED, 1);
    exchange(carafe.addr(), b"after\n").unwrap();
    carafe.stop_clean();
    let (old, new) = (read(&logs, "access.log.1"), read(&logs, "access.log"));
    assert_eq!(old.lines().count(), 2, "{old}");
    assert!(
        old.contains("NAME before") && old.contains("NAME between"),
        "{old}"
    );
    assert_eq!(new.lines().count(), 1, "{new}");
    assert!(new.contains("NAME after"), "{new}");
}

#[test]
fn under_load_every_line_is_in_exactly_one_of_the_files() {
    const CLIENTS: usize = 4;
    const EACH: usize = 500;
    const ROTATIONS: usize = 5;
    let (logs, _root, carafe) = server(&[]);
    let name = |number: usize| logs.path().join(format!("access.log.{number}"));
    thread::scope(|scope| {
        let addr = carafe.addr();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                scope.spawn(move || {
                    for number in 0..EACH {
                        let name = format!("{client}-{number}\n");
                        assert_eq!(exchange(addr, name.as_bytes()).unwrap(), b"");
                    }
                })
            })
            .collect();
        for rotation in 0..ROTATIONS {
            let so_far = count_lines(&carafe.log(), "refused");
            until("some more are logged", || {
                count_lines(&carafe.log(), "refused") > so_far
                    || clients.iter().all(thread::ScopedJoinHandle::is_finished)
            });
            fs::rename(logs.path().join("access.log"), name(rotation)).unwrap();
            hang_up(&carafe, REOPENED, rotation + 1);
        }
    });
    let log = carafe.stop();
    assert_eq!(reply_count(&log, "refused"), (CLIENTS * EACH) as u64);
    let files = (0..ROTATIONS)
        .map(name)
        .chain([logs.path().join("access.log")]);
    let text: String = files
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    assert_eq!(text.lines().count(), CLIENTS * EACH);
    for client in 0..CLIENTS {
        let mark = format!("\"NAME {client}-");
        let numbers = text.lines().filter_map(|line| {
            let number = line.split_once(&mark)?.1.split('"').next()?;
            number.parse::<usize>().ok()
        });
        // Each client waits for its answer, so its lines are in order, also across files.
        assert!(numbers.eq(0..EACH), "client {client}");
    }
}

#[test]
fn a_log_that_cant_be_opened_anew_goes_on_as_it_was() {
    const WARNING: &str = "access.log\" can't be opened anew: ";
    let (logs, _root, carafe) = server(&[]);
    fs::rename(logs.path().join("access.log"), logs.path().join("old")).unwrap();
    fs::create_dir(logs.path().join("access.log")).unwrap();
    hang_up(&carafe, WARNING, 1);
    exchange(carafe.addr(), b"small\n").unwrap();
    carafe.stop_warned(&[WARNING]);
    assert_eq!(count_lines(&read(&logs, "old"), "NAME small"), 1);
}

#[test]
fn a_log_that_nobody_reads_stops_no_client_and_what_is_lost_is_counted() {
    const REPLIES: usize = 3000;
    let folder = tempfile::tempdir().unwrap();
    let root = root_with(&[("small", b"small bytes")]);
    let fifo = folder.path().join("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let carafe = serve(root.path(), &fifo, &[]);
    // Keeps what is in the FIFO when the server is gone.
    let mut options = fs::File::options();
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let mut fifo = options
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(&fifo)
        .unwrap();
    // Slashes before a name count for nothing, but each stands in the log: more than the FIFO, the
    // queue and what the writer has in hand can hold together.
    let long_name = format!("{:/>1000}\n", "small");
    for _ in 0..REPLIES {
        let reply = exchange(carafe.addr(), long_name.as_bytes()).unwrap();
        assert_eq!(reply, b"small bytes");
    }
    let log = carafe.stop();
    assert_eq!(reply_count(&log, "complete"), REPLIES as u64, "{log}");
    let summary = log.lines().last().unwrap();
    let dropped = summary
        .split("; ")
        .find_map(|part| part.strip_suffix(" access log lines dropped"));
    let dropped: usize = dropped.unwrap().parse().unwrap();
    let mut text = Vec::new();
    // Ends with WouldBlock: this end could be written, too.
    let _ = fifo.read_to_end(&mut text);
    let written = text.iter().filter(|&&byte| byte == b'\n').count();
    assert!(written > 0 && dropped > REPLIES / 2, "{written}, {dropped}");
    assert_eq!(written + dropped, REPLIES);
}

// ---- the root ----

#[test]
fn after_a_hangup_the_root_is_what_its_path_leads_to() {
    const WARNING: &str = "can't be opened anew, the old one stays: ";
    const ROOT_REOPENED: &str = "root\" was opened anew";
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("root");
    for (name, seed) in [("one", 1), ("two", 2)] {
        let root = folder.path().join(name);
        fs::create_dir(&root).unwrap();
        fs::write(root.join("small"), name).unwrap();
        fs::write(root.join("large"), pattern(seed, LARGE_BYTES)).unwrap();
    }
    symlink("one", &link).unwrap();
    let carafe = Carafe::serve(&link, &[]);
    let (mut client, first) = begin_download(carafe.addr(), "large");

    let new_link = folder.path().join("new");
    symlink("two", &new_link).unwrap();
    fs::rename(&new_link, &link).unwrap();
    assert_eq!(exchange(carafe.addr(), b"small\n").unwrap(), b"one");
    hang_up(&carafe, ROOT_REOPENED, 1);
    assert_eq!(exchange(carafe.addr(), b"small\n").unwrap(), b"two");

    // Neither a hangup nor the old tree's end touches what is under way.
    fs::remove_dir_all(folder.path().join("one")).unwrap();
    let mut bytes = vec![first];
    client.read_to_end(&mut bytes).unwrap();
    assert_same("the old tree's file", &bytes, &pattern(1, LARGE_BYTES));
    drop(client);

    fs::remove_file(&link).unwrap();
    hang_up(&carafe, WARNING, 1);
    assert_eq!(exchange(carafe.addr(), b"small\n").unwrap(), b"two");
    carafe.stop_warned(&[WARNING]);
}

#[test]
fn a_hangup_while_draining_ends_nothing() {
    let (logs, _root, carafe) = server(&[]);
    let (mut client, _) = begin_download(carafe.addr(), "large");
    carafe.signal(Signal::TERM);
    carafe.wait_for_log("draining\n");
    hang_up(&carafe, REOPENED, 1);
    client.flush().unwrap();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len() + 1, LARGE_BYTES);
    drop(client);
    let (status, log) = carafe.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(
        count_lines(&read(&logs, "access.log"), "NAME large\" 200"),
        1
    );
}

#[test]
fn descriptors_are_as_many_after_hangups_as_before() {
    let (logs, _root, carafe) = server(&[]);
    let before = carafe.descriptors();
    for number in 1..=5 {
        fs::rename(logs.path().join("access.log"), logs.path().join("old")).unwrap();
        hang_up(&carafe, REOPENED, number);
    }
    // A helper closes the old root. One of its files may have been open for a moment before.
    until("as many as before", || carafe.descriptors() <= before);
    carafe.stop_clean();
}
