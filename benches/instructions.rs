//! User-space instructions of a warm 1 KiB download, by valgrind's callgrind: the same on a busy
//! machine as on a quiet one. Two runs of the real binary are compared, one with more downloads than
//! the other, so that what starting and stopping costs falls out.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a bench says what failed by panicking"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

const CLIENTS: usize = 64;
const FILE_BYTES: usize = 1024;

/// Asks so many times, in rounds of [`CLIENTS`] at once: a turn of the loop serves several.
type Load = fn(SocketAddr, rounds: usize);

fn main() {
    let measures = std::env::args().any(|argument| argument == "--bench");
    let has_valgrind = Command::new("valgrind").arg("--version").output().is_ok();
    if !has_valgrind {
        println!("valgrind is not on this machine: left out");
        return;
    }
    let (few, many) = if measures { (10, 110) } else { (1, 2) };
    let loads: [(&str, Load); 2] = [
        ("a connection each, by name", one_each),
        ("a request on a kept connection", kept),
    ];
    for (what, load) in loads {
        let (less, more) = (count(load, few), count(load, many));
        let each = (more - less) / ((many - few) * CLIENTS) as u64;
        println!("{what}: {each} instructions");
    }
}

/// Instructions of a server's life with so many rounds.
fn count(load: Load, rounds: usize) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, [7; FILE_BYTES]).unwrap();
    // Old enough for both validators: what every answer has is kept.
    std::thread::sleep(Duration::from_millis(1_100));
    let profile = folder.path().join("profile");
    let (mut server, address) = start(folder.path(), &profile);
    load(address, rounds);
    let pid = Pid::from_raw(server.id() as i32).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert!(server.wait().unwrap().success());
    let text = fs::read_to_string(&profile).unwrap();
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    total.unwrap().trim().parse().unwrap()
}

fn start(root: &Path, profile: &Path) -> (Child, SocketAddr) {
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--tool=callgrind"]);
    command.arg(format!("--callgrind-out-file={}", profile.display()));
    command
        .arg(env!("CARGO_BIN_EXE_carafe"))
        .arg("serve")
        .arg(root);
    command.args(["-p", "0", "-b", "127.0.0.1", "-q"]);
    let mut server = command.stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(server.stderr.take().unwrap()).lines();
    let mut addresses = lines.map_while(|line| {
        let line = line.ok()?;
        Some(
            line.strip_prefix("listening on ")
                .map(|at| at.parse().unwrap()),
        )
    });
    let address = addresses.find_map(|address| address);
    (server, address.unwrap())
}

fn one_each(address: SocketAddr, rounds: usize) {
    for _ in 0..rounds {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let mut client = TcpStream::connect(address).unwrap();
                client.write_all(b"file\n").unwrap();
                client
            })
            .collect();
        for mut client in clients {
            let mut bytes = Vec::new();
            client.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes.len(), FILE_BYTES);
        }
    }
}

fn kept(address: SocketAddr, rounds: usize) {
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|_| BufReader::new(TcpStream::connect(address).unwrap()))
        .collect();
    for _ in 0..rounds {
        for client in &mut clients {
            let request = b"GET /file HTTP/1.1\r\nHost: localhost\r\n\r\n";
            client.get_mut().write_all(request).unwrap();
        }
        for client in &mut clients {
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                assert_ne!(client.read_line(&mut line).unwrap(), 0);
            }
            client.read_exact(&mut [0; FILE_BYTES]).unwrap();
        }
    }
}
