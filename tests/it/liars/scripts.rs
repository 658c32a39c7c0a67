//! Servers in Python, as processes of their own: one that leaks, the tutorial's, and the HTTP
//! server that comes with Python.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Serves one body to any name, and keeps something of each connection, in one of three ways.
const KEEPING: &str = r#"
import os, resource, socket, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
server = socket.create_server(("127.0.0.1", 0), backlog=1024)
print("port", server.getsockname()[1], "", flush=True)
body = open(sys.argv[1], "rb").read()
kept, served = [], 0
while True:
    client, _ = server.accept()
    try:
        name = b""
        while not name.endswith(b"\n"):
            more = client.recv(1024)
            if not more:
                break
            name += more
        client.sendall(body)
    except OSError:
        pass
    client.close()
    served += 1
    if sys.argv[2] == "leak":
        kept.append((os.dup(0), bytearray(b"x") * 10240))
    elif sys.argv[2] == "cache" and served <= 100:
        kept.append((os.dup(0) if served == 1 else None, bytearray(b"x") * 65536))
    elif sys.argv[2] == "collect":
        kept.append(bytearray(b"x") * 262144)
        if served % 25 == 0:
            kept.clear()
"#;

/// The tutorial's server, but for its port and folder: what one recv brings is the name.
const TUTORIAL: &str = r#"
import os, socket, sys
os.chdir(sys.argv[1])
tcp_server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
tcp_server.bind(("127.0.0.1", 0))
tcp_server.listen(128)
print("port", tcp_server.getsockname()[1], "", flush=True)
while True:
    client, address = tcp_server.accept()
    file_name = client.recv(1024).decode("utf-8")
    try:
        with open(file_name, "rb") as file:
            client.send(file.read())
    except OSError:
        pass
    client.close()
"#;

/// A server that is killed on drop.
pub(crate) struct Script {
    child: Child,
    pub(crate) addr: SocketAddr,
}

impl Script {
    /// Serves this file, and forgets neither a descriptor nor 10 KB of each connection.
    pub(crate) fn leaky(body: &Path) -> Self {
        Self::keeping(body, "leak")
    }

    /// [`KEEPING`] with this file: `leak`; `cache`, full after a hundred downloads; or `collect`, which lets go
    /// after each 25.
    pub(crate) fn keeping(body: &Path, how: &str) -> Self {
        let mut command = Command::new("python3");
        Self::start(command.args(["-c", KEEPING]).arg(body).arg(how))
    }

    /// [`TUTORIAL`] with this folder.
    pub(crate) fn tutorial(folder: &Path) -> Self {
        Self::start(Command::new("python3").args(["-c", TUTORIAL]).arg(folder))
    }

    /// `python3 -m http.server` with this folder.
    pub(crate) fn http_server(folder: &Path) -> Self {
        let mut command = Command::new("python3");
        command.args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]);
        Self::start(command.arg("--directory").arg(folder))
    }

    /// Waits for the line with `port N `.
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        // What it may still say goes nowhere, but stops it nowhere.
        std::thread::spawn(move || stdout.read_to_end(&mut Vec::new()));
        let port = line
            .split_once("port ")
            .and_then(|(_, rest)| rest.split_once(' '));
        let port: u16 = port.expect("a port").0.parse().unwrap();
        Self {
            child,
            addr: SocketAddr::from(([127, 0, 0, 1], port)),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
