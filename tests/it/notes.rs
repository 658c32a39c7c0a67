//! The tutorial's nine notes on TCP sockets, each shown on the running server.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use crate::common::{
    Carafe, PATIENT, assert_conserved, assert_no_trouble, assert_same, connect, exchange, pattern,
    proc_address, read_to_end, root_with, send_and_see_read, serve_unprivileged, until,
};
use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

/// More than the buffers of both ends hold, so that sending it has to wait for the reader.
const BIG_BYTES: usize = 32 * 1024 * 1024;

fn kind_of<T>(result: std::io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

/// A client whose big download has begun and now waits for it to read.
fn stalled_download(carafe: &Carafe) -> TcpStream {
    let mut client = connect(carafe.addr());
    client.write_all(b"big\n").unwrap();
    client.peek(&mut [0]).unwrap();
    client
}

#[test]
fn note_1_a_server_binds_or_nobody_finds_it() {
    let root = root_with(&[("a", "hello")]);
    let serve = |address: &str, port: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_carafe"));
        command.args(["serve", "--bind", address, "-p", port]);
        command.arg(root.path());
        command
    };
    let carafe = Carafe::start(serve("127.0.3.1", "0"));
    assert_eq!(exchange(carafe.addr(), b"a\n").unwrap(), b"hello");
    // Nobody has bound the same port of the neighbouring address.
    let elsewhere = SocketAddr::from(([127, 0, 3, 2], carafe.addr().port()));
    let found = TcpStream::connect(elsewhere);
    assert_eq!(kind_of(found), Some(ErrorKind::ConnectionRefused));
    // Who can't bind doesn't serve, and says so.
    let second = serve("127.0.3.1", &carafe.port()).output().unwrap();
    let complaint = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1), "{complaint}");
    let expected = format!("carafe: {} can't be listened on", carafe.addr());
    assert!(complaint.contains(&expected), "{complaint}");
    carafe.stop_clean();
}

#[test]
fn note_2_a_client_usually_does_not_bind() {
    let root = root_with(&[("a", "hello")]);
    let carafe = Carafe::serve(root.path(), &[]);
    let fetch = |mut client: TcpStream| {
        client.write_all(b"a\n").unwrap();
        assert_eq!(read_to_end(&mut client), b"hello");
        carafe.wait_for_log(&format!("{} \"a\" 5/5 bytes", client.local_addr().unwrap()));
    };
    // The kernel gives each client an address of its own.
    let (first, second) = (connect(carafe.addr()), connect(carafe.addr()));
    assert_ne!(first.local_addr().unwrap(), second.local_addr().unwrap());
    fetch(first);
    fetch(second);
    // One that binds is served as well, under the address it chose.
    let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let chosen = SocketAddr::from(([127, 0, 3, 3], 0));
    bound.bind(&chosen.into()).unwrap();
    bound.connect(&carafe.addr().into()).unwrap();
    let bound = TcpStream::from(bound);
    assert_eq!(bound.local_addr().unwrap().ip(), chosen.ip());
    fetch(bound);
    carafe.stop_clean();
}

#[test]
fn note_3_listen_makes_the_socket_passive() {
    let root = root_with(&[("a", "hello")]);
    let carafe = Carafe::serve(root.path(), &[]);
    // Bound but not listening: nobody can connect.
    let active = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    active
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let there = active.local_addr().unwrap().as_socket().unwrap();
    assert_eq!(
        kind_of(TcpStream::connect(there)),
        Some(ErrorKind::ConnectionRefused)
    );
    // Only LISTEN, number 0A in the kernel's table, distinguishes the server's socket from it.
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let row = format!(" {} 00000000:0000 0A ", proc_address(carafe.addr()));
    assert!(table.contains(&row), "{table}");
    assert_eq!(exchange(carafe.addr(), b"a\n").unwrap(), b"hello");
    carafe.stop_clean();
}

#[test]
fn note_4_a_client_connects_before_it_sends() {
    let root = root_with(&[("a", "hello")]);
    let carafe = Carafe::serve(root.path(), &[]);
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let too_early = client.send_with_flags(b"a\n", libc::MSG_NOSIGNAL);
    assert!(too_early.is_err(), "{too_early:?}");
    client.connect(&carafe.addr().into()).unwrap();
    client.send(b"a\n").unwrap();
    assert_eq!(read_to_end(&mut client.into()), b"hello");
    carafe.stop_clean();
}

#[test]
fn note_5_each_accepted_connection_is_a_new_socket() {
    let root = root_with(&[("first", "one"), ("second", "two")]);
    let carafe = Carafe::serve(root.path(), &PATIENT);
    let before = carafe.sockets();
    let (mut first, mut second) = (connect(carafe.addr()), connect(carafe.addr()));
    send_and_see_read(&mut first, b"fir");
    send_and_see_read(&mut second, b"sec");
    until("each has a socket of its own", || {
        carafe.sockets() == before + 2
    });
    // What one says isn't mixed with what the other says.
    second.write_all(b"ond\n").unwrap();
    assert_eq!(read_to_end(&mut second), b"two");
    first.write_all(b"st\n").unwrap();
    assert_eq!(read_to_end(&mut first), b"one");
    until("both sockets are closed", || carafe.sockets() == before);
    carafe.stop_clean();
}

#[test]
fn note_6_new_clients_come_while_an_accepted_one_is_served() {
    let big = pattern(0, BIG_BYTES);
    let root = root_with(&[("big", &big[..]), ("a", b"hello")]);
    let carafe = Carafe::serve(root.path(), &[]);
    let mut slow = stalled_download(&carafe);
    for _ in 0..10 {
        assert_eq!(exchange(carafe.addr(), b"a\n").unwrap(), b"hello");
    }
    carafe.wait_for_log("\"a\" 5/5 bytes");
    assert!(!carafe.log().contains("\"big\""), "it is still being sent");
    assert_same("the first client", &read_to_end(&mut slow), &big);
    carafe.stop_clean();
}

fn outer_of_note_7() -> tempfile::TempDir {
    root_with(&[
        ("www/big", &pattern(0, BIG_BYTES)[..]),
        ("www/POEM", b"verse"),
    ])
}

#[test]
fn note_7_closing_the_listener_stops_new_clients_and_no_accepted_one() {
    let outer = outer_of_note_7();
    show_note_7(Carafe::serve(&outer.path().join("www"), &[]));
}

#[test]
fn note_7_holds_for_a_server_without_privileges() {
    let outer = outer_of_note_7();
    if let Some(carafe) = serve_unprivileged(outer.path(), &[]) {
        show_note_7(carafe);
    }
}

fn show_note_7(carafe: Carafe) {
    let big = pattern(0, BIG_BYTES);
    let mut sending = stalled_download(&carafe);
    let mut reading = connect(carafe.addr());
    // No gap ends what may become a method.
    send_and_see_read(&mut reading, b"PO");
    carafe.signal(Signal::TERM);
    carafe.wait_for_log("draining");
    until("new clients are let in no more", || {
        kind_of(TcpStream::connect(carafe.addr())) == Some(ErrorKind::ConnectionRefused)
    });
    let late = TcpStream::connect(carafe.addr());
    assert_eq!(kind_of(late), Some(ErrorKind::ConnectionRefused));
    assert_same("who was being sent", &read_to_end(&mut sending), &big);
    reading.write_all(b"EM\n").unwrap();
    assert_eq!(read_to_end(&mut reading), b"verse");
    drop((sending, reading));
    let (status, log) = carafe.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_conserved(&log);
    assert_no_trouble(&log);
}

#[test]
fn note_8_closing_the_accepted_socket_ends_that_clients_service() {
    let root = root_with(&[("a", "hello"), ("b", "other")]);
    let carafe = Carafe::serve(root.path(), &PATIENT);
    let before = carafe.sockets();
    let mut other = connect(carafe.addr());
    send_and_see_read(&mut other, b"/");
    let mut client = connect(carafe.addr());
    client.write_all(b"a\n").unwrap();
    assert_eq!(read_to_end(&mut client), b"hello");
    until("its socket is closed, and only its", || {
        carafe.sockets() == before + 1
    });
    // The service is over: another name brings nothing, not even an orderly end.
    let _ = client.write_all(b"b\n");
    until("the closed socket answers with a reset", || {
        client.write_all(b"b\n").is_err()
    });
    assert!(!matches!(client.read(&mut [0]), Ok(1..)));
    other.write_all(b"b\n").unwrap();
    assert_eq!(read_to_end(&mut other), b"other");
    carafe.stop_clean();
}

#[test]
fn note_9_a_zero_length_read_tells_that_the_client_has_gone() {
    let root = root_with(&[("a", "hello")]);
    let carafe = Carafe::serve(root.path(), &PATIENT);
    let before = carafe.sockets();
    let client = connect(carafe.addr());
    let peer = client.local_addr().unwrap();
    until("it is accepted", || carafe.sockets() == before + 1);
    drop(client);
    let log = carafe.wait_for_log("client left");
    let line = log
        .lines()
        .find(|line| line.contains("client left"))
        .unwrap();
    assert!(line.contains(&format!("{peer} - 0/0 bytes")), "{line}");
    until("its socket is closed", || carafe.sockets() == before);
    carafe.stop_clean();
}
