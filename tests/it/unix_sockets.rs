//! Clients that come by a unix socket: what TCP alone has, such as a drain's least TTL, has another answer
//! here.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::common::{
    Carafe, LARGE_BYTES, PATIENCE, assert_conserved, assert_no_trouble, assert_same, exchange,
    has_tool, pattern, reason_count, reply_count, root_with, run_carafe, shell, until,
};
use crate::proxied::{Haproxy, Nginx};
use rustix::process::Signal;
use tempfile::TempDir;

const SMALL: &[u8] = b"small bytes";

/// A server by a unix socket alone, of `small` and `large`.
struct Server {
    _root: TempDir,
    folder: TempDir,
    carafe: Carafe,
}

impl Server {
    fn new(flags: &[&str]) -> Self {
        let root = root_with(&[
            ("small", SMALL.to_vec()),
            ("large", pattern(9, LARGE_BYTES)),
        ]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        Self {
            carafe: Carafe::serve_by_unix_socket(root.path(), &path, flags),
            _root: root,
            folder,
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn connect(&self) -> UnixStream {
        connect(&self.path())
    }

    /// A download of `large` of which one byte was read.
    fn begin_download(&self) -> UnixStream {
        let mut client = self.connect();
        client.write_all(b"large\n").unwrap();
        client.read_exact(&mut [0]).unwrap();
        client
    }
}

fn connect(path: &Path) -> UnixStream {
    let client = UnixStream::connect(path).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    client
}

fn read_to_end(mut client: &UnixStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn ask(path: &Path, name: &str) -> Vec<u8> {
    let mut client = connect(path);
    client.write_all(format!("{name}\n").as_bytes()).unwrap();
    read_to_end(&client).unwrap()
}

/// Several requests and large files by what people put in front.
#[test]
fn clients_of_all_kinds_come_by_it() {
    for workers in ["1", "2"] {
        let server = Server::new(&["--workers", workers]);
        let path = server.path();
        for _ in 0..3 {
            assert_eq!(ask(&path, "small"), SMALL);
            assert_same("large", &ask(&path, "large"), &pattern(9, LARGE_BYTES));
        }
        if has_tool("curl") {
            let script = "curl -sS --fail --unix-socket \"$1\" http://localhost/small \
                          http://localhost/large http://localhost/small";
            let bytes = shell(script, &[path.as_os_str()]);
            let expected = [SMALL, &pattern(9, LARGE_BYTES), SMALL].concat();
            assert_same("curl's", &bytes, &expected);
        }
        let log = server.carafe.stop();
        assert!(log.contains(" unix: \"small\" 11/11 bytes "), "{log}");
        assert_no_trouble(&log);
        assert!(!path.exists());
    }
}

#[test]
fn proxies_stand_in_front_of_it() {
    let server = Server::new(&[]);
    let path = server.path();
    let large = pattern(9, LARGE_BYTES);
    if has_tool("nginx") {
        let pass = format!(
            "location / {{ proxy_pass http://unix:{}:/; }}",
            path.display()
        );
        let nginx = Nginx::with("", &pass);
        let reply = exchange(nginx.addr(), b"GET /large HTTP/1.0\r\n\r\n").unwrap();
        assert_same("nginx's", &reply[reply.len() - large.len()..], &large);
    }
    if has_tool("haproxy") {
        let haproxy = Haproxy::before(&format!("unix@{}", path.display()), "", "http");
        let mut client = connect(haproxy.path());
        client.write_all(b"GET /large HTTP/1.0\r\n\r\n").unwrap();
        let reply = read_to_end(&client).unwrap();
        assert_same("HAProxy's", &reply[reply.len() - large.len()..], &large);
    }
    server.carafe.stop_clean();
}

#[test]
fn logs_name_who_has_no_address() {
    let folder = tempfile::tempdir().unwrap();
    for (format, part) in [
        ("combined", "unix: - - ["),
        ("json", r#""peer":"unix:","port":null,"#),
    ] {
        let log = folder.path().join(format);
        let flags = [
            "--access-log",
            log.to_str().unwrap(),
            "--log-format",
            format,
        ];
        let server = Server::new(&flags);
        assert_eq!(ask(&server.path(), "small"), SMALL);
        server.carafe.stop_clean();
        let lines = fs::read_to_string(&log).unwrap();
        assert!(lines.contains(part), "{lines}");
    }
}

#[test]
fn a_socket_is_taken_over_only_when_nobody_listens() {
    let server = Server::new(&[]);
    let (path, root) = (server.path(), root_with(&[("small", SMALL)]));
    let bind = format!("unix:{}", path.display());
    let start = || {
        let args = [
            "serve".as_ref(),
            root.path().as_os_str(),
            "-b".as_ref(),
            OsStr::new(&bind),
        ];
        let output = run_carafe(&args);
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, line) = start();
    assert_eq!(code, Some(1));
    assert!(
        line.ends_with(" can't be listened on: another program listens there\n"),
        "{line}"
    );
    assert_eq!(ask(&path, "small"), SMALL);

    // It dies and leaves its file.
    server.carafe.signal(Signal::KILL);
    server.carafe.wait();
    assert!(path.exists());
    let next = Carafe::serve_by_unix_socket(root.path(), &path, &[]);
    assert_eq!(ask(&path, "small"), SMALL);
    // Another one has taken its place: that one's file stays.
    fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    next.stop_clean();
    UnixStream::connect(&path).unwrap();
    drop(other);

    fs::remove_file(&path).unwrap();
    fs::write(&path, "a file").unwrap();
    let (code, line) = start();
    assert_eq!(code, Some(1));
    assert!(
        line.ends_with(" can't be listened on: something else is there\n"),
        "{line}"
    );
}

#[test]
fn its_file_has_the_mode_that_was_asked_for() {
    let server = Server::new(&["--socket-mode", "660"]);
    let mode = fs::metadata(server.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    server.carafe.stop_clean();
}

#[test]
fn a_drain_serves_those_in_the_queue_and_lets_nobody_else_in() {
    for workers in ["1", "2"] {
        let server = Server::new(&["--workers", workers]);
        let path = server.path();
        let download = server.begin_download();
        server.carafe.signal(Signal::STOP);
        let waiting = [(); 20].map(|()| {
            let mut client = server.connect();
            client.write_all(b"small\n").unwrap();
            client
        });
        server.carafe.signal(Signal::TERM);
        server.carafe.signal(Signal::CONT);
        for client in waiting {
            assert_eq!(read_to_end(&client).unwrap(), SMALL);
        }
        until("its file is gone", || UnixStream::connect(&path).is_err());
        let rest = read_to_end(&download).unwrap();
        assert_same("large", &rest, &pattern(9, LARGE_BYTES)[1..]);
        drop(download);
        let (status, log) = server.carafe.wait();
        assert_eq!(status.code(), Some(0), "{log}");
        assert_conserved(&log);
        assert_eq!(reply_count(&log, "complete"), 21, "{log}");
    }
}

#[test]
fn a_client_that_takes_nothing_is_ended() {
    let server = Server::new(&["--stall-timeout", "500ms"]);
    let client = server.begin_download();
    server.carafe.wait_for_log("stalled");
    // There is no reset: what was sent can be read, and is too short.
    let bytes = read_to_end(&client).map_or(0, |bytes| bytes.len());
    assert!(bytes < LARGE_BYTES - 1);
    let log = server.carafe.stop();
    assert_eq!(reason_count(&log, "stalled"), 1, "{log}");
}

#[test]
fn silent_clients_make_room_only_for_those_who_wait() {
    let server = Server::new(&["--max-connections", "2"]);
    let before = server.carafe.sockets();
    let mut silent = [server.connect(), server.connect()];
    until("both are let in", || server.carafe.sockets() == before + 2);
    // The full server turns, and nobody waits.
    server.carafe.signal(Signal::HUP);
    server.carafe.wait_for_log("was opened anew");
    assert!(!server.carafe.log().contains("evicted"));
    // Somebody does.
    assert_eq!(ask(&server.path(), "small"), SMALL);
    server.carafe.wait_for_log("evicted");
    assert_eq!(read_to_end(&silent[0]).unwrap(), b"", "the first to come");
    silent[1].write_all(b"small\n").unwrap();
    assert_eq!(read_to_end(&silent[1]).unwrap(), SMALL);
    server.carafe.stop_clean();
}

#[test]
fn clients_left_in_the_queue_at_the_drains_end_are_told_of() {
    let server = Server::new(&["--max-connections", "1", "--drain", "300ms"]);
    let download = server.begin_download();
    let queued = [(); 5].map(|()| server.connect());
    server.carafe.signal(Signal::TERM);
    let (status, log) = server.carafe.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("; 5 never accepted"), "{log}");
    drop((download, queued));
}
