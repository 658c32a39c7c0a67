//! What the clients' tests share: fake servers on free ports, and runs of the real program.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A server whose connections are handled one after the other. It ends with the test's process, which is
/// that of all suites: together they hold more descriptors than 1024.
pub(crate) fn serve(mut handle: impl FnMut(TcpStream) + Send + 'static) -> SocketAddr {
    crate::common::raise_own_limit();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            handle(stream.unwrap());
        }
    });
    address
}

/// What one read brings: all of a request that was written at once.
pub(crate) fn receive_once(mut stream: &TcpStream) -> Vec<u8> {
    let mut buffer = [0; 1024];
    let count = stream.read(&mut buffer).unwrap();
    buffer[..count].to_vec()
}

/// Closes so that the peer's next read fails.
pub(crate) fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
}

/// A port that a program must not connect to.
pub(crate) struct Untouched(TcpListener);

impl Untouched {
    pub(crate) fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    #[track_caller]
    pub(crate) fn assert(&self, why: &str) {
        self.0.set_nonblocking(true).unwrap();
        assert!(self.0.accept().is_err(), "a client came: {why}");
    }
}

impl Drop for Untouched {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert("nobody may connect");
        }
    }
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Outcome {
    /// Asserts the exit code and all of stderr.
    #[track_caller]
    pub(crate) fn is(&self, code: i32, stderr: &str) {
        assert_eq!((self.code, self.stderr.as_str()), (Some(code), stderr));
    }
}

/// The program, in a folder of its own.
pub(crate) fn carafe(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_carafe"));
    command.current_dir(folder);
    command
}

/// Runs a command to its end with `input` on its stdin, which is a pipe.
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Outcome {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that asks for nothing may be gone before it could read.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    Outcome {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Reads ten bytes of what it prints, and no more: it ends without a word, and did not get all.
pub(crate) fn have_enough(command: &mut Command) {
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut head = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut head).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "it did not get all");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}
