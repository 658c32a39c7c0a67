//! carafe under systemd: sockets that are passed to it, and what the service manager is told.

use std::fs;
use std::io::{ErrorKind, Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{self, UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use crate::common::{
    Carafe, PATIENCE, connect, count_lines, exchange, has_tool, reserved_port, root_with, skip,
    until,
};
use crate::scrape::{get, metrics_of};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use rustix::process::Signal;
use tempfile::TempDir;

const SMALL: &[u8] = b"small bytes";

fn root() -> TempDir {
    root_with(&[("small", SMALL)])
}

fn serve(root: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_carafe"));
    command.arg("serve").arg(root.path());
    command
}

/// `carafe serve` with so many descriptors from 3 on, as systemd passes them: its stdin and its stdout,
/// which a child can be given.
fn activated(root: &TempDir, count: usize) -> Command {
    let mut command = Command::new("sh");
    let script = "exec 3<&0 4<&1 </dev/null >/dev/null; LISTEN_PID=$$ exec \"$0\" \"$@\"";
    command.args(["-c", script, env!("CARGO_BIN_EXE_carafe"), "serve"]);
    command.arg(root.path());
    command.env("LISTEN_FDS", count.to_string());
    command
}

/// Starts it. An address is that of the first listener that has one.
fn start(command: Command) -> Carafe {
    Carafe::start_anywhere(command, |text| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix("listening on ")?.parse().ok())
    })
}

fn tcp_listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn read_to_end(mut client: impl Read) -> Vec<u8> {
    let mut reply = Vec::new();
    client.read_to_end(&mut reply).unwrap();
    reply
}

fn ask_unix(path: &Path) -> Vec<u8> {
    let mut client = UnixStream::connect(path).unwrap();
    client.write_all(b"small\n").unwrap();
    read_to_end(client)
}

// ---- sockets that are passed ----

#[test]
fn sockets_that_were_passed_are_served_and_nothing_else_is_bound() {
    for workers in ["1", "3"] {
        let root = root();
        let path = root.path().join("socket");
        let (tcp, address) = tcp_listener();
        let unix = UnixListener::bind(&path).unwrap();
        let mut command = activated(&root, 2);
        command.args(["--workers", workers]);
        command
            .stdin(OwnedFd::from(tcp))
            .stdout(OwnedFd::from(unix));
        let carafe = start(command);
        carafe.wait_for_log("serving");
        assert_eq!(count_lines(&carafe.log(), "listening on "), 2);
        for _ in 0..10 {
            assert_eq!(exchange(address, b"small\n").unwrap(), SMALL);
            assert_eq!(ask_unix(&path), SMALL);
        }
        carafe.stop_clean();
        // The file is whoever's that made it.
        assert!(path.exists());
    }
}

#[test]
fn a_drain_leaves_a_passed_sockets_queue_to_the_next_server() {
    for workers in ["1", "2"] {
        let root = root();
        let (listener, address) = tcp_listener();
        let start = || {
            let mut command = activated(&root, 1);
            command.args(["--workers", workers]);
            command.stdin(OwnedFd::from(listener.try_clone().unwrap()));
            start(command)
        };
        for _ in 0..2 {
            let carafe = start();
            assert_eq!(exchange(address, b"small\n").unwrap(), SMALL);
            // Its queue was empty once, so those who come now are the next one's.
            carafe.stop_clean();
            let waiting = [(); 5].map(|()| {
                let mut client = connect(address);
                client.write_all(b"small\n").unwrap();
                client
            });
            let next = start();
            for client in waiting {
                assert_eq!(read_to_end(client), SMALL);
            }
            next.stop_clean();
        }
    }
}

#[test]
fn systemd_activates_it_by_several_sockets() {
    if !has_tool("systemd-socket-activate") {
        return;
    }
    let root = root();
    let path = root.path().join("socket");
    let (_reserved, port) = reserved_port();
    let has_ipv6 = TcpListener::bind("[::1]:0").is_ok();
    let mut listeners = vec![format!("127.0.0.1:{port}"), path.display().to_string()];
    if has_ipv6 {
        listeners.push(format!("[::1]:{port}"));
    } else {
        skip("ipv6", "there is no loopback address");
    }
    let mut command = Command::new("systemd-socket-activate");
    for listener in &listeners {
        command.args(["-l", listener]);
    }
    command
        .args(["--", env!("CARGO_BIN_EXE_carafe"), "serve"])
        .arg(root.path());
    // It starts the server when the first client comes, who is served, too.
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let first = thread::spawn(move || {
        let mut client = None;
        until("it listens", || {
            client = TcpStream::connect(address).ok();
            client.is_some()
        });
        let mut client = client.unwrap();
        client.write_all(b"small\n").unwrap();
        read_to_end(client)
    });
    command.stdin(Stdio::null());
    let carafe = start(command);
    carafe.wait_for_log("serving");
    assert_eq!(first.join().unwrap(), SMALL);
    assert_eq!(count_lines(&carafe.log(), "listening on "), listeners.len());
    assert_eq!(exchange(address, b"small\n").unwrap(), SMALL);
    assert_eq!(ask_unix(&path), SMALL);
    if has_ipv6 {
        let ipv6 = format!("[::1]:{port}").parse().unwrap();
        assert_eq!(exchange(ipv6, b"small\n").unwrap(), SMALL);
    }
    carafe.stop_clean();
}

#[test]
fn a_passed_socket_may_be_the_metrics() {
    let root = root();
    let (clients, address) = tcp_listener();
    let (metrics, metrics_at) = tcp_listener();
    let mut command = activated(&root, 2);
    command.env("LISTEN_FDNAMES", "web:metrics");
    command
        .stdin(OwnedFd::from(clients))
        .stdout(OwnedFd::from(metrics));
    let carafe = start(command);
    assert_eq!(exchange(address, b"small\n").unwrap(), SMALL);
    assert_eq!(metrics_of(&carafe), metrics_at);
    assert_eq!(get(metrics_at, "/healthz").0, 200);
    carafe.stop_clean();
}

#[test]
fn what_is_no_listener_is_refused() {
    let root = root();
    let refused = |first: OwnedFd| -> Output {
        let mut command = activated(&root, 1);
        command.stdin(first);
        command.output().unwrap()
    };
    let file = fs::File::open(root.path().join("small")).unwrap();
    let connected = UnixStream::pair().unwrap().0;
    let datagrams = UnixDatagram::unbound().unwrap();
    for passed in [file.into(), connected.into(), datagrams.into()] {
        let output = refused(passed);
        let line = "carafe: LISTEN_FDS: descriptor 3 won't do: it takes a stream socket that listens \
                    (Accept=no)\n";
        assert_eq!(String::from_utf8_lossy(&output.stderr), line);
        assert_eq!(output.status.code(), Some(2));
    }
}

#[test]
fn what_the_environment_says_of_them_must_be_so() {
    let root = root();
    let refused = |given: &[(&str, &str)], flags: &[&str]| {
        let mut command = activated(&root, 2);
        command.envs(given.iter().copied()).args(flags);
        let sockets = [tcp_listener().0, tcp_listener().0].map(OwnedFd::from);
        let [first, second] = sockets;
        let output = command.stdin(first).stdout(second).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    for count in ["abc", "-1", "2147483647", "99999999999"] {
        let line = refused(&[("LISTEN_FDS", count)], &[]);
        let expected = format!(
            "carafe: LISTEN_FDS: '{count}' won't do: it takes a number of sockets, 1024 at most\n"
        );
        assert_eq!(line, expected);
    }
    let twice = refused(&[("LISTEN_FDNAMES", "metrics:metrics")], &[]);
    assert!(
        twice.contains("several sockets are called metrics"),
        "{twice}"
    );
    let names = [("LISTEN_FDNAMES", "web:metrics")];
    let also = refused(&names, &["--metrics", "127.0.0.1:0"]);
    assert!(
        also.contains("--metrics: a socket called metrics"),
        "{also}"
    );
}

#[test]
fn sockets_for_another_process_are_left_alone() {
    let root = root();
    let mut command = serve(&root);
    command.args(["-p", "0", "-b", "127.0.0.1"]);
    command.env("LISTEN_FDS", "1").env("LISTEN_PID", "1");
    let carafe = Carafe::start(command);
    assert_eq!(exchange(carafe.addr(), b"small\n").unwrap(), SMALL);
    carafe.stop_clean();
}

// ---- the service manager ----

/// A service manager's end of the conversation.
struct Manager {
    socket: UnixDatagram,
    /// What NOTIFY_SOCKET says.
    name: String,
    _folder: TempDir,
}

impl Manager {
    fn new(is_abstract: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let (socket, name) = if is_abstract {
            // As unlikely as the folder's name to be anybody else's.
            let address = net::SocketAddr::from_abstract_name(path.to_str().unwrap()).unwrap();
            let socket = UnixDatagram::bind_addr(&address).unwrap();
            (socket, format!("@{}", path.display()))
        } else {
            (
                UnixDatagram::bind(&path).unwrap(),
                path.display().to_string(),
            )
        };
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            socket,
            name,
            _folder: folder,
        }
    }

    fn start(&self, root: &TempDir, watchdog: Option<Duration>, flags: &[&str]) -> Carafe {
        let mut command = serve(root);
        command.args(["-p", "0", "-b", "127.0.0.1"]).args(flags);
        command.env("NOTIFY_SOCKET", &self.name);
        if let Some(watchdog) = watchdog {
            command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        }
        Carafe::start(command)
    }

    /// The next message.
    fn hear(&self) -> std::io::Result<String> {
        let mut bytes = [0; 1000];
        let length = self.socket.recv(&mut bytes)?;
        Ok(String::from_utf8(bytes[..length].to_vec()).unwrap())
    }

    /// The first message that begins so; others may come before.
    fn hear_of(&self, beginning: &str) -> String {
        loop {
            let message = self.hear().expect("it is told");
            if message.starts_with(beginning) {
                return message;
            }
        }
    }

    /// Waits until it hears nothing for a second.
    fn hear_nothing(&self) {
        self.socket
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        until(
            "it is silent",
            || matches!(self.hear(), Err(error) if error.kind() == ErrorKind::WouldBlock),
        );
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
}

/// The clock that systemd compares with, in microseconds.
fn monotonic() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1000
}

#[test]
fn the_service_manager_is_told_what_happens() {
    for is_abstract in [false, true] {
        let (root, manager) = (root(), Manager::new(is_abstract));
        let carafe = manager.start(&root, None, &[]);
        assert_eq!(manager.hear().unwrap(), "READY=1");
        assert_eq!(exchange(carafe.addr(), b"small\n").unwrap(), SMALL);
        manager.hear_of("STATUS=serving: ");

        let before = monotonic();
        carafe.signal(Signal::HUP);
        let message = manager.hear_of("RELOADING=1\n");
        let stamp = message
            .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
            .unwrap();
        let stamp: i64 = stamp.parse().unwrap();
        assert!(before <= stamp && stamp <= monotonic(), "{stamp}");
        manager.hear_of("READY=1");
        carafe.wait_for_log("was opened anew");

        carafe.signal(Signal::TERM);
        manager.hear_of("STOPPING=1");
        let status = manager.hear_of("STATUS=draining: ");
        assert_eq!(
            status,
            "STATUS=draining: 0 open, 1 accepted, 1 replied, 11 B sent"
        );
        assert_eq!(carafe.wait().0.code(), Some(0));
    }
}

#[test]
fn a_service_manager_that_is_not_there_is_no_reason_not_to_serve() {
    let root = root();
    let untold = "the service manager (NOTIFY_SOCKET) can't be told \"READY=1\": ";
    for (name, warnings) in [
        ("@carafe-nobody-has-this", &[untold][..]),
        ("/no/such/folder", &[untold]),
        (
            "relative",
            &["NOTIFY_SOCKET \"relative\" is no service manager's: it begins with neither / nor @"],
        ),
        ("", &[]),
    ] {
        let mut command = serve(&root);
        command
            .args(["-p", "0", "-b", "127.0.0.1"])
            .env("NOTIFY_SOCKET", name);
        let carafe = Carafe::start(command);
        assert_eq!(exchange(carafe.addr(), b"small\n").unwrap(), SMALL);
        carafe.stop_warned(warnings);
    }
}

/// Stops one thread of a server, as a loop would stand; `None`, said aloud, where that isn't allowed.
fn stop_thread(carafe: &Carafe, name: &str) -> Option<nix::unistd::Pid> {
    let tasks = fs::read_dir(format!("/proc/{}/task", carafe.pid())).unwrap();
    let mut tasks = tasks.map(|task| task.unwrap().path());
    let is_it =
        |task: &std::path::PathBuf| fs::read_to_string(task.join("comm")).unwrap().trim() == name;
    let task = tasks.find(is_it).expect("it has this thread");
    let number = task.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let thread = nix::unistd::Pid::from_raw(number);
    if let Err(error) = ptrace::attach(thread) {
        skip("ptrace", &error.to_string());
        return None;
    }
    waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
    Some(thread)
}

#[test]
fn the_watchdog_hears_nothing_of_a_loop_that_stands() {
    for (workers, thread) in [("1", "carafe"), ("2", "carafe"), ("2", "loop-1")] {
        let (root, manager) = (root(), Manager::new(false));
        let watchdog = Duration::from_millis(300);
        let carafe = manager.start(&root, Some(watchdog), &["--workers", workers]);
        // Nobody asks for anything: it turns for the watchdog's sake.
        for _ in 0..3 {
            manager.hear_of("WATCHDOG=1");
        }
        let Some(stopped) = stop_thread(&carafe, thread) else {
            return;
        };
        manager.hear_nothing();
        ptrace::detach(stopped, None).unwrap();
        manager.hear_of("WATCHDOG=1");
        carafe.stop_clean();
    }
}

#[test]
fn a_watchdog_of_another_process_is_not_fed() {
    let (root, manager) = (root(), Manager::new(false));
    let mut command = serve(&root);
    command.args(["-p", "0", "-b", "127.0.0.1"]);
    command.env("NOTIFY_SOCKET", &manager.name);
    command
        .env("WATCHDOG_USEC", "1000")
        .env("WATCHDOG_PID", "1");
    let carafe = Carafe::start(command);
    manager.hear_of("READY=1");
    carafe.signal(Signal::TERM);
    loop {
        let message = manager.hear().unwrap();
        assert!(!message.starts_with("WATCHDOG"), "{message}");
        if message == "STOPPING=1" {
            break;
        }
    }
    assert_eq!(carafe.wait().0.code(), Some(0));
}
