//! Where `carafe get` writes: whose files it takes over, what gets the name, and what it is called.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, UNIX_EPOCH};

use crate::common::{pattern, until, with_default_interrupt};
use crate::fake::{carafe, run};
use crate::origin::{Origin, Version, cut, get, has_bytes, listing};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::{TempDir, tempdir};

fn wine() -> Version {
    Version::new(pattern(1, 1000), "\"red\"")
}

/// A server that goes silent after 400 of 1000 bytes, until it is told to go on.
fn hesitant() -> (Origin, Sender<()>) {
    let (sender, receiver) = channel::<()>();
    let receiver = std::sync::Mutex::new(receiver);
    let origin = Origin::start(move |asked, _, mut stream| {
        let answer = wine().answer(asked);
        let (first, rest) = answer.split_at(answer.len() - 600);
        stream.write_all(first).unwrap();
        let _ = receiver.lock().unwrap().recv();
        let _ = stream.write_all(rest);
    });
    (origin, sender)
}

fn begin(folder: &Path, words: &[&str]) -> Child {
    let mut command = with_default_interrupt(env!("CARGO_BIN_EXE_carafe"));
    command.current_dir(folder);
    command.args(["get", "--retries", "0"]).args(words);
    let piped = command.stdout(Stdio::null()).stderr(Stdio::piped());
    piped.spawn().unwrap()
}

/// How it ended, and what it said.
fn end(child: Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

// ---- what was written is what is named ----

#[test]
fn nothing_but_what_was_written_gets_the_name() {
    type Meddle = fn(&Path);
    let moved = "x.part was moved, removed or replaced meanwhile";
    let cases: [(&str, Meddle, &str, &str); 4] = [
        (
            "replaced",
            |part| {
                fs::rename(part, part.with_file_name("gone")).unwrap();
                fs::write(part, "water").unwrap();
            },
            moved,
            "x.part was moved or removed meanwhile",
        ),
        (
            "moved",
            |part| fs::rename(part, part.with_file_name("gone")).unwrap(),
            moved,
            "x.part was moved or removed meanwhile",
        ),
        (
            "removed",
            |part| fs::remove_file(part).unwrap(),
            moved,
            "x.part was moved or removed meanwhile",
        ),
        (
            "added to",
            |part| {
                let mut part = fs::OpenOptions::new().append(true).open(part).unwrap();
                part.write_all(&[b'w'; 2000]).unwrap();
            },
            "somebody else wrote into x.part",
            "2400 bytes are kept in x.part",
        ),
    ];
    for (what, meddle, why, kept) in cases {
        let folder = tempdir().unwrap();
        fs::write(folder.path().join("x"), "old").unwrap();
        let (origin, go_on) = hesitant();
        let url = origin.url("/x");
        let child = begin(folder.path(), &[&url]);
        let part = folder.path().join("x.part");
        until("400 bytes are there", || has_bytes(&part, 400));
        meddle(&part);
        go_on.send(()).unwrap();
        let line = format!("carafe: {url}: cannot write x: {why}; {kept}\n");
        assert_eq!(end(child), (Some(3), line), "{what}");
        assert_eq!(fs::read(folder.path().join("x")).unwrap(), b"old", "{what}");
        if what == "replaced" {
            assert_eq!(fs::read(&part).unwrap(), b"water");
        }
    }
}

#[test]
fn a_failure_does_not_speak_of_a_part_that_is_gone() {
    let folder = tempdir().unwrap();
    let (origin, go_on) = hesitant();
    let url = origin.url("/x");
    let child = begin(folder.path(), &["-t", "1s", &url]);
    let part = folder.path().join("x.part");
    until("400 bytes are there", || has_bytes(&part, 400));
    fs::remove_file(&part).unwrap();
    let broken = "the download broke off after 400 bytes: nothing moved for 1s";
    let line = format!("carafe: {url}: {broken}; x.part was moved or removed meanwhile\n");
    assert_eq!(end(child), (Some(4), line));
    drop(go_on);
}

#[test]
fn a_folder_in_the_metas_place_is_named() {
    let folder = tempdir().unwrap();
    fs::create_dir(folder.path().join("x.part.meta")).unwrap();
    let origin = Origin::honest(&wine());
    let url = origin.url("/x");
    let line = "cannot write x.part.meta: Is a directory (os error 21)";
    get(folder.path(), &[&url]).is(3, &format!("carafe: {url}: {line}\n"));
    assert_eq!(listing(folder.path()), ["x.part.meta"]);
}

// ---- whose .part it is ----

/// A folder with a download that was cut off after 400 bytes.
fn cut_off() -> TempDir {
    let folder = tempdir().unwrap();
    let origin = Origin::of(|asked, _| cut(wine().answer(asked), 400));
    let outcome = get(folder.path(), &["-q", "--retries", "0", &origin.url("/x")]);
    assert_eq!(outcome.code, Some(4), "{outcome:?}");
    assert_eq!(listing(folder.path()), ["x.part", "x.part.meta"]);
    // As if it had come from the server that the test asks next.
    folder
}

#[test]
fn a_part_that_others_have_a_hand_in_is_left_alone() {
    type Plant = fn(&Path);
    let cases: [(&str, Plant); 4] = [
        ("others may write into it", |part| {
            fs::set_permissions(part, Permissions::from_mode(0o666)).unwrap();
        }),
        ("it has another name, too", |part| {
            fs::hard_link(part, part.with_file_name("victim")).unwrap();
        }),
        ("it is another user's", |part| {
            chown(part, Some(65534), None).unwrap()
        }),
        ("its .meta is another user's", |part| {
            let meta = part.with_file_name("x.part.meta");
            chown(meta, Some(65534), None).unwrap();
        }),
    ];
    for (why, plant) in cases {
        let needs_root = why.contains("another user's");
        if needs_root && !rustix::process::geteuid().is_root() {
            crate::common::skip("root", why);
            continue;
        }
        for by_name in [false, true] {
            let folder = cut_off();
            let part = folder.path().join("x.part");
            plant(&part);
            let before = fs::metadata(&part).unwrap();
            let (origin, url) = (Origin::honest(&wine()), String::new());
            let server = crate::fake::serve(|mut stream| {
                crate::fake::receive_once(&stream);
                stream.write_all(&wine().body).unwrap();
            });
            let (label, words) = if by_name {
                ("x".to_owned(), vec![server.to_string(), "x".to_owned()])
            } else {
                (origin.url("/x"), vec![origin.url("/x")])
            };
            drop(url);
            let line = format!("carafe: {label}: x.part is left alone: {why}\n");
            get(folder.path(), &words).is(0, &line);
            // The planted file is as it was, and the new one is nobody's but ours.
            let after = fs::metadata(&part).unwrap();
            assert_eq!(before.ino(), after.ino(), "{why}");
            assert_eq!(fs::read(&part).unwrap(), &wine().body[..400], "{why}");
            let target = folder.path().join("x");
            assert!(fs::read(&target).unwrap() == wine().body, "{why}");
            let metadata = fs::metadata(&target).unwrap();
            assert_ne!(metadata.ino(), before.ino());
            assert_eq!(metadata.uid(), rustix::process::geteuid().as_raw());
            assert!(origin.from().iter().all(Option::is_none), "{why}");
            assert!(!folder.path().join("x.part.1").exists());
        }
    }
}

#[test]
fn what_is_written_beside_a_strangers_part_is_continued_there() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("x.part"), "theirs").unwrap();
    fs::set_permissions(folder.path().join("x.part"), Permissions::from_mode(0o666)).unwrap();
    let origin = Origin::of(|asked, count| match count {
        0 => cut(wine().answer(asked), 400),
        _ => wine().answer(asked),
    });
    let url = origin.url("/x");
    let outcome = get(folder.path(), &["-q", "--retries", "0", &url]);
    assert!(
        outcome.stderr.ends_with("400 bytes are kept in x.part.1\n"),
        "{outcome:?}"
    );
    assert_eq!(get(folder.path(), &["-q", &url]).code, Some(0));
    assert_eq!(origin.from(), [None, Some(400)]);
    assert_eq!(listing(folder.path()), ["x", "x.part"]);
    assert_eq!(fs::read(folder.path().join("x.part")).unwrap(), b"theirs");
    assert!(fs::read(folder.path().join("x")).unwrap() == wine().body);
}

#[test]
fn a_new_file_has_the_permissions_of_the_mask_and_its_part_none_for_others() {
    for mask in ["022", "002", "077"] {
        let folder = tempdir().unwrap();
        let (origin, go_on) = hesitant();
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &format!("umask {mask}; exec \"$@\""), "sh"]);
        command
            .arg(env!("CARGO_BIN_EXE_carafe"))
            .args(["get", &origin.url("/x")]);
        let mut child = command.current_dir(folder.path()).spawn().unwrap();
        let part = folder.path().join("x.part");
        until("400 bytes are there", || has_bytes(&part, 400));
        assert_eq!(fs::metadata(&part).unwrap().mode() & 0o777, 0o600);
        go_on.send(()).unwrap();
        assert!(child.wait().unwrap().success());
        let mode = fs::metadata(folder.path().join("x")).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o666 & !u32::from_str_radix(mask, 8).unwrap());
    }
}

// ---- names ----

#[test]
fn the_longest_names_are_saved_and_continued() {
    for count in [242, 243, 245, 246, 250, 251, 255] {
        let name = "n".repeat(count);
        let folder = tempdir().unwrap();
        let origin = Origin::of(|asked, count| match count {
            0 => cut(wine().answer(asked), 400),
            _ => wine().answer(asked),
        });
        let url = origin.url(&format!("/{name}"));
        let flags = ["-q", "--retries", "0", &url];
        assert_eq!(get(folder.path(), &flags).code, Some(4), "{count}");
        assert_eq!(listing(folder.path()).len(), 2, "{count}");
        get(folder.path(), &[&url]).is(0, "");
        assert_eq!(listing(folder.path()), [name], "{count}");
        assert_eq!(origin.from(), [None, Some(400)], "{count}");
    }
    let name = "n".repeat(255);
    let folder = tempdir().unwrap();
    let server = crate::fake::serve(|mut stream| {
        crate::fake::receive_once(&stream);
        stream.write_all(b"wine").unwrap();
    });
    let mut command = carafe(folder.path());
    run(command.args(["get", &server.to_string(), &name]), b"").is(0, "");
    assert_eq!(listing(folder.path()), [name]);
}

#[test]
fn a_name_steers_no_terminal_and_is_one_line() {
    let folder = tempdir().unwrap();
    let origin = Origin::honest(&wine());
    get(folder.path(), &[&origin.url("/a%1b%5B2J%0Ab%C2%9B")]).is(0, "");
    assert_eq!(listing(folder.path()), ["a%1B[2J%0Ab%C2%9B"]);
    // Who gives a name has it as it stands.
    let name = OsStr::from_bytes(b"\x1b");
    let mut command = carafe(folder.path());
    command.arg("get").arg(origin.url("/x")).arg("-o").arg(name);
    run(&mut command, b"").is(0, "");
    assert!(folder.path().join(name).exists());
}

#[test]
fn a_prefix_is_a_folder_that_is_made() {
    let folder = tempdir().unwrap();
    let origin = Origin::honest(&wine());
    for _ in 0..2 {
        let mut command = carafe(folder.path());
        command.args(["get", "-P", "a/b", &origin.url("/x"), &origin.url("/y")]);
        run(&mut command, b"").is(0, "");
    }
    assert_eq!(listing(&folder.path().join("a/b")), ["x", "y"]);
    fs::write(folder.path().join("file"), "").unwrap();
    let mut command = carafe(folder.path());
    command.args(["get", "-P", "file", &origin.url("/x")]);
    run(&mut command, b"").is(3, "carafe: cannot make file: File exists (os error 17)\n");
    let mut command = carafe(folder.path());
    command.args(["get", "-P", "d", "-o", "x", &origin.url("/x")]);
    assert_eq!(run(&mut command, b"").code, Some(2));
}

#[test]
fn a_file_has_the_time_that_its_server_says() {
    let seconds = 784_111_777;
    let dated = |version: Version| Version {
        validators: format!(
            "{}Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
            version.validators
        ),
        ..version
    };
    let time = |folder: &TempDir| {
        let modified = fs::metadata(folder.path().join("x")).unwrap().modified();
        modified.unwrap().duration_since(UNIX_EPOCH).unwrap()
    };
    // Whole, in two parts, and with the news that all is there already.
    for bytes in [0, 400, 1000] {
        let folder = tempdir().unwrap();
        let origin = Origin::of(move |asked, count| {
            let version = dated(wine());
            match count {
                0 if bytes == 1000 => {
                    let length = "Transfer-Encoding: chunked\r\n";
                    let body = [b"3e8\r\n", &version.body[..], b"\r\n"].concat();
                    version.with_head("200 OK", length, &body)
                }
                0 if bytes > 0 => cut(version.answer(asked), bytes),
                _ => version.answer(asked),
            }
        });
        let outcome = get(folder.path(), &["-q", &origin.url("/x")]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        assert_eq!(time(&folder), Duration::from_secs(seconds), "{bytes}");
    }
    let folder = tempdir().unwrap();
    get(folder.path(), &[&Origin::honest(&wine()).url("/x")]).is(0, "");
    assert!(time(&folder) > Duration::from_secs(seconds + 1));
}

// ---- signals ----

#[test]
fn a_signal_says_what_is_kept() {
    for (signal, number) in [(Signal::INT, 2), (Signal::TERM, 15)] {
        let folder = tempdir().unwrap();
        let (origin, _go_on) = hesitant();
        let silent = Origin::start(|_, _, stream| std::mem::forget(stream));
        let urls = [origin.url("/x"), silent.url("/y")];
        let child = begin(folder.path(), &["-j", "2", &urls[0], &urls[1]]);
        let part = folder.path().join("x.part");
        until("400 bytes are there", || has_bytes(&part, 400));
        until("both are asked", || !silent.asked().is_empty());
        kill_process(Pid::from_raw(child.id() as i32).unwrap(), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.signal(), Some(number));
        let stderr = String::from_utf8(output.stderr).unwrap();
        let mut lines: Vec<_> = stderr.lines().collect();
        lines.sort_by_key(|line| line.contains("/y"));
        let expected = [
            format!(
                "carafe: {}: interrupted; 400 bytes are kept in x.part",
                urls[0]
            ),
            format!("carafe: {}: interrupted", urls[1]),
        ];
        assert_eq!(lines, expected);
        assert_eq!(listing(folder.path()), ["x.part", "x.part.meta"]);
    }
}
