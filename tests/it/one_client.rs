//! What one client can take: connections, places of those who need them more, and the line.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use rustix::process::Signal;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::common::{
    Carafe, LARGE_BYTES, PATIENCE, PATIENT, assert_conserved, assert_reset, begin_download,
    has_tool, raise_own_limit, reason_count, root_with, run_carafe, skip, sparse_file, until,
};

fn root() -> TempDir {
    let root = root_with(&[("small", b"small bytes")]);
    sparse_file(&root.path().join("large"), LARGE_BYTES as u64);
    root
}

/// Connects from an address of this machine.
fn connect_from(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    try_connect_from(from, to).unwrap()
}

/// As [`connect_from`], for who may be let in no more: the reset may come before connect(2) returns.
fn try_connect_from(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    // Less than a download.
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&to.into())?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Ok(stream)
}

/// Asks for the small file.
fn ask(mut client: TcpStream) -> std::io::Result<Vec<u8>> {
    client.write_all(b"small\n")?;
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes)?;
    Ok(bytes)
}

const GREEDY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const HONEST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// One whose download has begun, and who takes no more of it.
fn downloader(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let mut client = connect_from(from, to);
    client.write_all(b"large\n").unwrap();
    client.read_exact(&mut [0]).unwrap();
    client
}

#[test]
fn a_client_has_as_many_connections_as_it_may_over_all_loops() {
    for workers in ["1", "3"] {
        let root = root();
        let limit = ["--max-connections-per-client", "5", "--workers", workers];
        let carafe = Carafe::serve(root.path(), &[&limit[..], &PATIENT].concat());
        let addr = carafe.addr();
        let mut clients: Vec<_> = (0..5).map(|_| downloader(GREEDY, addr)).collect();
        for _ in 0..3 {
            assert_reset(try_connect_from(GREEDY, addr).and_then(ask));
        }
        assert_eq!(ask(connect_from(HONEST, addr)).unwrap(), b"small bytes");
        // Who leaves makes room.
        drop(clients.pop());
        carafe.wait_for_log("reset by peer");
        assert_eq!(ask(connect_from(GREEDY, addr)).unwrap(), b"small bytes");
        drop(clients);
        carafe.signal(Signal::TERM);
        let (status, log) = carafe.wait();
        assert_eq!(status.code(), Some(0), "{log}");
        assert_eq!(reason_count(&log, "too many connections"), 3, "{log}");
        assert!(log.contains("127.0.0.2:"), "{log}");
        assert!(log.contains("has 5 connections: more are reset"), "{log}");
        assert_conserved(&log);
    }
}

#[test]
fn who_takes_nothing_makes_room_when_it_is_short() {
    let root = root();
    // A quarter of eight seconds is long enough to be slow.
    let flags = ["--max-connections", "4", "--stall-timeout", "8s"];
    let carafe = Carafe::serve(root.path(), &flags);
    let slow: Vec<_> = (0..4)
        .map(|_| begin_download(carafe.addr(), "large"))
        .collect();
    let newcomer = connect_from(HONEST, carafe.addr());
    assert_eq!(ask(newcomer).unwrap(), b"small bytes");
    let log = carafe.wait_for_log("evicted");
    assert!(!log.contains("stalled"), "{log}");
    drop(slow);
}

/// What table A of hostile clients does, by one address among others that aren't this machine's own.
#[test]
fn with_the_default_flags_one_address_shuts_nobody_out() {
    if !has_tool("ip") {
        return;
    }
    raise_own_limit();
    let in_network = || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            return skip("netns", &format!("no network of the test's own: {error}"));
        }
        let up =
            "ip link set lo up && ip addr add 10.0.0.1/24 dev lo && ip addr add 10.0.0.2/24 dev lo";
        let is_up = Command::new("sh").args(["-c", up]).status().unwrap();
        assert!(is_up.success());
        one_address_takes_its_share();
    };
    // The namespace is the thread's alone.
    thread::spawn(in_network).join().unwrap();
}

fn one_address_takes_its_share() {
    let root = root();
    for index in 0..300 {
        fs::write(root.path().join(format!("file{index}")), vec![0; 4 << 20]).unwrap();
    }
    let (greedy, honest) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let requests: [fn(usize) -> Vec<u8>; 4] = [
        |_| Vec::new(),
        |_| b"GET /small HTTP/1.1\r\nHost: h\r\nX-Never".to_vec(),
        |_| b"large\n".to_vec(),
        |index| format!("file{index}\n").into_bytes(),
    ];
    for request in requests {
        let mut command = Command::new("sh");
        let script = "ulimit -n 1000; exec \"$0\" serve \"$1\" -p 0 -b 10.0.0.1 --no-defer-accept";
        command.args(["-c", script, env!("CARGO_BIN_EXE_carafe")]);
        command.arg(root.path());
        let carafe = Carafe::start(command);
        let addr = carafe.addr();
        let hold = |index| {
            // It may be reset already.
            let mut client = try_connect_from(greedy, addr).ok()?;
            let _ = client.write_all(&request(index));
            Some(client)
        };
        let held: Vec<_> = (0..300).map(hold).collect();
        until("the one has its share", || {
            carafe.log().contains("too many connections")
        });
        for _ in 0..50 {
            assert_eq!(ask(connect_from(honest, addr)).unwrap(), b"small bytes");
        }
        assert!(carafe.sockets() < 250, "{}", carafe.sockets());
        drop(held);
    }
}

#[test]
fn a_connection_is_sent_no_more_than_its_rate() {
    const RATE: u64 = 4_000_000;
    const SECONDS: u64 = 2;
    let root = root_with(&[("file", vec![7; (RATE * SECONDS) as usize])]);
    let carafe = Carafe::serve(root.path(), &["--limit-rate", "4MB"]);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // As on a network: the first ten segments aren't paced.
    socket.set_tcp_mss(1460).unwrap();
    let began = Instant::now();
    socket.connect(&carafe.addr().into()).unwrap();
    let mut client = TcpStream::from(socket);
    client.write_all(b"file\n").unwrap();
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).unwrap();
    let took = began.elapsed();
    assert_eq!(bytes.len() as u64, RATE * SECONDS);
    // However late this thread is, it is not early.
    assert!(
        took >= Duration::from_secs(SECONDS).mul_f64(0.94),
        "{took:?}"
    );
    carafe.stop_clean();
}

#[test]
fn a_rate_that_would_be_a_stall_is_refused() {
    for (flags, says) in [
        (
            &["--limit-rate", "4095"][..],
            "takes a number of bytes of at least 4096",
        ),
        (
            &["--limit-rate", "64kB", "--min-rate", "40kB"],
            "takes twice --min-rate (40000) at least",
        ),
        (
            &["--limit-rate", "64kB", "-b", "unix:/no/such/folder/socket"],
            "--limit-rate: takes an address to listen on, since unix sockets know no rate",
        ),
        (
            &["--max-connections-per-client", "-1"],
            "takes a whole number from 0",
        ),
    ] {
        let args = ["serve"].iter().chain(flags).map(std::ffi::OsStr::new);
        let output = run_carafe(&args.collect::<Vec<_>>());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(says), "{stderr}");
    }
}

#[test]
fn of_a_proxys_connections_those_count_for_whom_it_speaks() {
    let root = root();
    let flags = [
        "--max-connections-per-client",
        "2",
        "--trusted-proxy",
        "127.0.0.2",
    ];
    let carafe = Carafe::serve(root.path(), &[&flags[..], &PATIENT].concat());
    let ask_for = |client: &str| {
        let mut proxied = connect_from(GREEDY, carafe.addr());
        let header = format!("PROXY TCP4 {client} 192.0.2.9 50000 80\r\nlarge\n");
        proxied.write_all(header.as_bytes()).unwrap();
        let first = proxied.read_exact(&mut [0]);
        (proxied, first)
    };
    let held: Vec<_> = ["192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.2"]
        .map(ask_for)
        .into();
    assert!(held.iter().all(|(_, first)| first.is_ok()));
    let (_, refused) = ask_for("192.0.2.1");
    assert_eq!(
        refused.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionReset
    );
    ask_for("192.0.2.3").1.unwrap();
    let log = carafe.wait_for_log("too many connections");
    assert!(log.contains("192.0.2.1:50000 has 2 connections"), "{log}");
}
