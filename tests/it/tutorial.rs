//! The four programs that carafe began with, and the commands that have become of them, understand each
//! other. And `carafe notes`, as it is started.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::common::{Carafe, pattern, root_with, run_carafe};

fn example(name: &str) -> Command {
    let binary = std::env::current_exe().unwrap();
    let example: PathBuf = binary.parent().unwrap().join("../examples").join(name);
    assert!(example.exists(), "cargo test builds the examples");
    let mut command = Command::new(example);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// One that asks, and what it is answered; its output.
fn answered(mut command: Command, at: SocketAddr, last: &str) -> String {
    let mut child = command.spawn().unwrap();
    let answers = format!("127.0.0.1\n{}\n{last}\n", at.port());
    child
        .stdin
        .take()
        .unwrap()
        .write_all(answers.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// One that listens on a free port, and where.
fn listening(mut command: Command) -> (Child, String) {
    let mut child = command.arg("0").spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    let port = line.trim().rsplit(':').next().unwrap();
    (child, format!("127.0.0.1:{port}"))
}

#[test]
fn texts_are_understood_both_ways() {
    let carafe = Carafe::thank(&["--once"]);
    assert_eq!(
        answered(example("text_client"), carafe.addr(), "你好"),
        "thank you !\n"
    );
    let (mut server, at) = listening(example("text_server"));
    let said = run_carafe(&["say".as_ref(), at.as_ref(), "你好".as_ref()]);
    assert_eq!(String::from_utf8(said.stdout).unwrap(), "thank you !\n");
    let mut printed = String::new();
    server
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut printed)
        .unwrap();
    assert_eq!(printed, "你好\n");
    assert!(server.wait().unwrap().success());
}

#[test]
fn files_are_understood_both_ways() {
    let file = pattern(1, 3_000_000);
    let root = root_with(&[("file", &file[..])]);
    let here = tempfile::tempdir().unwrap();
    let carafe = Carafe::serve(root.path(), &[]);
    for (name, comes) in [("file", true), ("missing", false)] {
        let mut client = example("download_client");
        client.current_dir(here.path());
        answered(client, carafe.addr(), name);
        let got = fs::read(here.path().join(format!("[接收]{name}")));
        assert_eq!(got.is_ok_and(|got| got == file), comes, "{name}");
    }
    let mut server = example("download_server");
    server.current_dir(root.path());
    let (mut server, at) = listening(server);
    let path = here.path().join("got");
    let got = run_carafe(&[
        "get".as_ref(),
        "--unterminated".as_ref(),
        at.as_ref(),
        "file".as_ref(),
        "-o".as_ref(),
        path.as_ref(),
    ]);
    assert!(got.status.success(), "{got:?}");
    assert!(fs::read(&path).unwrap() == file);
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn notes_are_played_as_they_are_asked_for() {
    let notes = run_carafe(&["notes".as_ref(), "9".as_ref()]);
    assert!(notes.status.success(), "{notes:?}");
    let text = String::from_utf8(notes.stdout).unwrap();
    assert!(
        text.starts_with("Note 9. ") && text.contains("recv("),
        "{text}"
    );
    let bad = run_carafe(&["notes".as_ref(), "10".as_ref()]);
    let complaint = String::from_utf8(bad.stderr).unwrap();
    assert_eq!(
        (bad.status.code(), complaint.lines().count()),
        (Some(2), 1),
        "{complaint}"
    );
}
