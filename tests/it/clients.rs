//! Clients that people have, and the tutorial's own programs, bring the same bytes as the file
//! holds. What isn't installed is skipped aloud.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::common::{Carafe, assert_same, has_tool, pattern, root_with, shell, skip};
use rustix::process::{Pid, Signal, kill_process};

const BIG_BYTES: usize = 20 * 1024 * 1024;

/// The tutorial's download client, as its readers type it in; to stdout instead of to a file.
const TUTORIAL_CLIENT: &str = "\
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
s.connect((sys.argv[1], int(sys.argv[2])))
s.send(sys.argv[3].encode('utf-8'))
while True:
    data = s.recv(1024)
    if not data:
        break
    sys.stdout.buffer.write(data)
s.close()
";

/// The tutorial's download server, on a free port that it prints.
const TUTORIAL_SERVER: &str = "\
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
s.bind(('127.0.0.1', 0))
s.listen(128)
print(s.getsockname()[1], flush=True)
while True:
    client, address = s.accept()
    try:
        name = client.recv(1024).decode('utf-8')
        with open(name, 'rb') as f:
            client.sendall(f.read())
    except (OSError, ValueError):
        pass
    client.close()
";

/// A client that brings a file to its stdout: a shell script with the host as `$1`, the port as
/// `$2`, the name as `$3`, and a Python program as `$4`.
struct Tool {
    name: &'static str,
    script: &'static str,
}

const CURL: Tool = Tool {
    name: "curl",
    script: r#"curl -sS "gopher://$1:$2/9$3""#,
};

const TOOLS: [Tool; 8] = [
    CURL,
    Tool {
        name: "nc",
        script: r#"printf %s "$3" | nc -N "$1" "$2""#,
    },
    Tool {
        name: "ncat",
        script: r#"printf %s "$3" | ncat "$1" "$2""#,
    },
    Tool {
        name: "ncat",
        script: r#"printf '%s\r\n' "$3" | ncat "$1" "$2""#,
    },
    Tool {
        name: "socat",
        script: r#"printf %s "$3" | socat -t 60 - "TCP:$1:$2""#,
    },
    Tool {
        name: "bash",
        script: r#"exec 3<>"/dev/tcp/$1/$2"; printf %s "$3" >&3; cat <&3"#,
    },
    Tool {
        name: "bash",
        script: r#"exec 3<>"/dev/tcp/$1/$2"; printf '%s\n' "$3" >&3; cat <&3"#,
    },
    Tool {
        name: "python3",
        script: r#"python3 -c "$4" "$1" "$2" "$3""#,
    },
];

/// These send 100 KB after the name that nobody asked for: more than the server reads at once.
const TOOLS_WITH_JUNK: [Tool; 2] = [
    Tool {
        name: "nc",
        script: r#"{ printf '%s\n' "$3"; head -c 100000 /dev/zero; } | nc -N "$1" "$2""#,
    },
    Tool {
        name: "socat",
        script: r#"{ printf '%s\n' "$3"; head -c 100000 /dev/zero; } | socat -t 60 - "TCP:$1:$2""#,
    },
];

/// Debian's client of Gopher, which asks for Gopher+, on a screen of its own.
#[test]
fn gopher_shows_a_folder_and_a_file_of_it() {
    if !has_tool("gopher") || !has_tool("script") {
        return;
    }
    let root = root_with(&[("notes.txt", "what the file holds\n")]);
    let carafe = Carafe::serve(root.path(), &["--listing"]);
    let home = tempfile::tempdir().unwrap();
    // script has a pty. Its time is bounded: a screen that never comes ends the reading.
    let mut client = Command::new("timeout")
        .args(["120", "script", "-qec"])
        .arg(format!("gopher 127.0.0.1 {}", carafe.addr().port()))
        .arg("/dev/null")
        .env("TERM", "xterm")
        .env("HOME", home.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut keys = client.stdin.take().unwrap();
    let mut screen = client.stdout.take().unwrap();
    let mut seen = Vec::new();
    let mut wait_for = |text: &str| {
        while !String::from_utf8_lossy(&seen).contains(text) {
            let mut bytes = [0; 4096];
            let count = screen.read(&mut bytes).unwrap();
            seen.extend_from_slice(&bytes[..count]);
            let shown = String::from_utf8_lossy(&seen);
            assert_ne!(count, 0, "{text} is not on the screen: {shown:?}");
        }
    };
    // It has never been run here.
    wait_for("Press RETURN");
    keys.write_all(b"\r").unwrap();
    wait_for("notes.txt");
    keys.write_all(b"\r").unwrap();
    wait_for("what the file holds");
    kill_process(Pid::from_child(&client), Signal::TERM).unwrap();
    client.wait().unwrap();
    carafe.stop_clean();
}

/// Whether the tool is here, and is the flavour that the script is written for.
fn is_usable(tool: &Tool) -> bool {
    if !has_tool(tool.name) {
        return false;
    }
    let is_right = tool.name != "nc" || {
        let help = Command::new("nc").arg("-h").output().unwrap();
        let text = [help.stdout, help.stderr].concat();
        // Debian's netcat-openbsd says `-N  Shutdown the network socket after EOF on stdin`.
        String::from_utf8_lossy(&text).contains("Shutdown the network socket")
    };
    if !is_right {
        skip(tool.name, "it has no -N");
    }
    is_right
}

/// What the tool prints; it must succeed.
fn run(tool: &Tool, carafe: &Carafe, name: &str) -> Vec<u8> {
    let (host, port) = (carafe.addr().ip().to_string(), carafe.port());
    let args = [&host, &port, name, TUTORIAL_CLIENT].map(OsStr::new);
    shell(tool.script, &args)
}

#[test]
fn every_client_brings_a_file_of_any_size() {
    let (big, small) = (pattern(0, BIG_BYTES), pattern(0, 700));
    let root = root_with(&[("big", &big), ("d/small.txt", &small)]);
    let carafe = Carafe::serve(root.path(), &[]);
    for tool in TOOLS.iter().filter(|tool| is_usable(tool)) {
        assert_same(tool.script, &run(tool, &carafe, "big"), &big);
        assert_same(tool.script, &run(tool, &carafe, "d/small.txt"), &small);
    }
    carafe.stop_clean();
}

#[test]
fn no_client_sees_an_error_for_an_empty_or_missing_file() {
    let root = root_with(&[("empty", "")]);
    let carafe = Carafe::serve(root.path(), &["--name-gap", "50ms"]);
    for tool in TOOLS.iter().filter(|tool| is_usable(tool)) {
        assert_eq!(run(tool, &carafe, "empty"), b"", "{}", tool.script);
        assert_eq!(run(tool, &carafe, "missing"), b"", "{}", tool.script);
    }
    carafe.stop_clean();
}

#[test]
fn input_that_nobody_asked_for_costs_no_client_a_byte() {
    let big = pattern(0, BIG_BYTES);
    let root = root_with(&[("big", &big)]);
    let carafe = Carafe::serve(root.path(), &[]);
    for tool in TOOLS_WITH_JUNK.iter().filter(|tool| is_usable(tool)) {
        assert_same(tool.script, &run(tool, &carafe, "big"), &big);
    }
    carafe.stop_clean();
}

#[test]
#[ignore = "long: 200 MB; run with -- --ignored"]
fn curl_brings_200_megabytes() {
    if !is_usable(&CURL) {
        return;
    }
    let file = pattern(0, 200 * 1024 * 1024);
    let root = root_with(&[("file", &file)]);
    let carafe = Carafe::serve(root.path(), &[]);
    assert_same("curl", &run(&CURL, &carafe, "file"), &file);
    carafe.stop_clean();
}

// ---- carafe get ----

/// A Python server; killed on drop.
struct TutorialServer {
    child: Child,
    address: String,
}

impl TutorialServer {
    /// Serves a folder.
    fn start(folder: &Path) -> Self {
        let mut child = Command::new("python3")
            .args(["-c", TUTORIAL_SERVER])
            .current_dir(folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut port).unwrap();
        let address = format!("127.0.0.1:{}", port.trim());
        Self { child, address }
    }
}

impl Drop for TutorialServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `carafe get` in a folder.
fn get(folder: &Path, server: &str, names: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_carafe"));
    command.args(["get", server]).args(names);
    command.current_dir(folder).stdin(Stdio::null());
    command.output().unwrap()
}

/// Downloads a file; it must come whole, under the tutorial's name, and with nothing beside it.
fn assert_gets(server: &str, name: &str, expected: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let output = get(folder.path(), server, &[name]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{name}: {stderr}");
    let last = name.rsplit('/').next().unwrap();
    let got = fs::read(folder.path().join(format!("[接收]{last}"))).unwrap();
    assert_same(name, &got, expected);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{name}");
}

/// A name that brings nothing is exit code 8, as wget's, and leaves no file.
fn assert_gets_nothing(server: &str, name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let output = get(folder.path(), server, &[name]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(8), "{name}: {stderr}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{name}");
}

#[test]
fn get_downloads_from_serve() {
    let (big, small) = (pattern(0, BIG_BYTES), pattern(0, 700));
    let root = root_with(&[("big", &big[..]), ("d/接收.txt", &small), ("empty", b"")]);
    let carafe = Carafe::serve(root.path(), &["--name-gap", "50ms"]);
    let server = carafe.addr().to_string();
    assert_gets(&server, "big", &big);
    assert_gets(&server, "d/接收.txt", &small);
    assert_gets_nothing(&server, "empty");
    assert_gets_nothing(&server, "missing");
    carafe.stop_clean();
}

#[test]
fn get_downloads_from_the_tutorials_server() {
    if !has_tool("python3") {
        return;
    }
    let (big, small) = (pattern(0, BIG_BYTES), pattern(0, 700));
    let root = root_with(&[("big", &big[..]), ("接收.txt", &small), ("empty", b"")]);
    let server = TutorialServer::start(root.path());
    assert_gets(&server.address, "big", &big);
    assert_gets(&server.address, "接收.txt", &small);
    assert_gets_nothing(&server.address, "empty");
    assert_gets_nothing(&server.address, "missing");
}
