//! Proxies that say for whom they speak: by a PROXY header, or in each request of HTTP. What is a header, and
//! however it is split, is beside the code.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;

use crate::authority::Authority;
use crate::common::{
    Carafe, LARGE_BYTES, PATIENCE, assert_same, connect, count_lines, exchange, has_tool, pattern,
    read_to_end, reason_count, root_with, shell, skip, until,
};
use crate::proxied::{Haproxy, Nginx};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

const SMALL: &[u8] = b"small bytes";
const HEADER: &[u8] = b"PROXY TCP4 192.0.2.7 10.0.0.1 50000 80\r\n";

/// Who is trusted. Tests' own clients are at 127.0.0.1.
const PROXY: &str = "127.0.0.2";

fn root() -> TempDir {
    root_with(&[
        ("small", SMALL.to_vec()),
        ("large", pattern(3, LARGE_BYTES)),
    ])
}

fn server(flags: &[&str]) -> (TempDir, Carafe) {
    let root = root();
    let flags = [&["--trusted-proxy", PROXY], flags].concat();
    let carafe = Carafe::serve(root.path(), &flags);
    (root, carafe)
}

/// A connection of the proxy's.
fn connect_as_proxy(carafe: &Carafe) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let source: SocketAddr = format!("{PROXY}:0").parse().unwrap();
    socket.bind(&source.into()).unwrap();
    socket.connect(&carafe.addr().into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.into()
}

pub(crate) fn exchange_as_proxy(carafe: &Carafe, pieces: &[&[u8]]) -> io::Result<Vec<u8>> {
    let mut proxy = connect_as_proxy(carafe);
    proxy.set_nodelay(true)?;
    for piece in pieces {
        proxy.write_all(piece)?;
    }
    let mut reply = Vec::new();
    proxy.read_to_end(&mut reply)?;
    Ok(reply)
}

const GET: &[u8] = b"GET /small HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";

#[test]
fn the_client_behind_a_proxy_is_logged_and_the_proxy_beside_it() {
    for workers in ["1", "2"] {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let flags = ["--workers", workers, "--access-log", log.to_str().unwrap()];
        let (_root, carafe) = server(&[&flags[..], &["--log-format", "json"]].concat());
        let reply = exchange_as_proxy(&carafe, &[HEADER, b"small\n"]).unwrap();
        assert_eq!(reply, SMALL);
        let bytes: Vec<&[u8]> = HEADER.chunks(1).chain([&GET[..1], &GET[1..]]).collect();
        let reply = exchange_as_proxy(&carafe, &bytes).unwrap();
        assert!(reply.ends_with(SMALL));
        let shown = carafe.stop();
        let lines = shown
            .lines()
            .filter(|line| line.contains("] 192.0.2.7:50000 via 127.0.0.2:"));
        assert_eq!(lines.count(), 2, "{shown}");
        let lines = fs::read_to_string(&log).unwrap();
        let part = r#""peer":"192.0.2.7","port":50000,"proxy":"127.0.0.2","#;
        assert_eq!(count_lines(&lines, part), 2, "{lines}");
    }
}

#[test]
fn who_is_not_trusted_is_who_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let (_root, carafe) = server(&["--listing", "--access-log", log.to_str().unwrap()]);
    // Names of their own, and no file's.
    let signature = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    for header in [HEADER, b"PROXY UNKNOWN\r\n", signature] {
        assert_eq!(exchange(carafe.addr(), header).unwrap_or_default(), b"");
    }
    let forged = b"GET /small HTTP/1.0\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n";
    assert!(exchange(carafe.addr(), forged).unwrap().ends_with(SMALL));
    let shown = carafe.stop();
    assert!(
        !shown.contains("192.0.2.7:") && !shown.contains(" via "),
        "{shown}"
    );
    let hint = "refused: a PROXY header, and not of a --trusted-proxy";
    assert_eq!(count_lines(&shown, hint), 3, "{shown}");
    let lines = fs::read_to_string(&log).unwrap();
    assert!(
        lines
            .lines()
            .all(|line| line.starts_with("127.0.0.1 - - [")),
        "{lines}"
    );
}

#[test]
fn requests_name_their_clients() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let (_root, carafe) = server(&["--access-log", log.to_str().unwrap()]);
    let mut proxy = connect_as_proxy(&carafe);
    let requests = [
        "GET /small HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.8\r\n\r\n",
        "GET /small HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 6.6.6.6\r\nx-forwarded-for: 192.0.2.9, 127.0.0.2\r\n\r\n",
        "GET /small HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    ];
    proxy.write_all(requests.concat().as_bytes()).unwrap();
    read_to_end(&mut proxy);
    // Behind a header: the proxy's word, then that of the proxy behind it.
    let forwarded = [
        &b"PROXY TCP4 127.0.0.2 10.0.0.1 50000 80\r\n"[..],
        b"GET /small HTTP/1.0\r\nX-Forwarded-For: 192.0.2.10\r\n\r\n",
    ];
    exchange_as_proxy(&carafe, &forwarded).unwrap();
    let shown = carafe.stop();
    for client in ["192.0.2.8", "192.0.2.9", "192.0.2.10"] {
        assert_eq!(
            count_lines(&shown, &format!("] {client} via 127.0.0.2:")),
            1,
            "{shown}"
        );
    }
    let lines = fs::read_to_string(&log).unwrap();
    let clients: Vec<_> = lines
        .lines()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(
        clients,
        ["192.0.2.8", "192.0.2.9", "127.0.0.2", "192.0.2.10"]
    );
}

#[test]
fn a_proxy_that_says_nothing_is_closed_and_complained_of() {
    let (_root, carafe) = server(&[]);
    let too_long = [b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat();
    for bytes in [&b"small\n"[..], b"PROXY TCP9 1 2 3 4\r\nsmall\n", &too_long] {
        // What nobody reads makes a reset of the close.
        let reply = exchange_as_proxy(&carafe, &[bytes]).unwrap_or_default();
        assert_eq!(reply, b"");
    }
    assert_eq!(exchange(carafe.addr(), b"small\n").unwrap(), SMALL);
    let log = carafe.stop();
    assert_eq!(reason_count(&log, "bad PROXY header"), 3, "{log}");
    assert!(
        log.contains(" WARN ") && log.contains("the trusted proxy 127.0.0.2:"),
        "{log}"
    );
}

#[test]
fn a_header_that_never_ends_is_ended_by_the_request_timeout() {
    let (_root, carafe) = server(&["--request-timeout", "300ms"]);
    for bytes in [&b"P"[..], &HEADER[..20], b""] {
        assert_eq!(
            exchange_as_proxy(&carafe, &[bytes]).unwrap_or_default(),
            b""
        );
    }
    let log = carafe.stop();
    assert_eq!(reason_count(&log, "request timeout"), 3, "{log}");
}

#[test]
fn health_checks_are_answered() {
    let (_root, carafe) = server(&["-v"]);
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    for check in [&local[..], b"PROXY UNKNOWN\r\n", b""] {
        let reply = exchange_as_proxy(&carafe, &[check, GET]).unwrap();
        assert!(reply.ends_with(SMALL));
    }
    let reply = exchange_as_proxy(&carafe, &[b"OPTIONS / HTTP/1.0\r\n\r\n"]).unwrap();
    assert!(reply.starts_with(b"HTTP/1.1 204"));
    // They only look whether the port is open.
    drop(connect_as_proxy(&carafe));
    let mut proxy = connect_as_proxy(&carafe);
    proxy.write_all(local).unwrap();
    drop(proxy);
    let is_told = |line: &&str| line.contains(" DEBUG ") && line.ends_with(" - client left");
    until("all are gone", || {
        carafe.log().lines().filter(is_told).count() == 2
    });
    assert!(!carafe.log().contains(" via "));
    carafe.stop_clean();
}

#[test]
fn a_unix_socket_may_be_a_proxys() {
    let (root, folder) = (root(), tempfile::tempdir().unwrap());
    let path = folder.path().join("socket");
    let carafe = Carafe::serve_by_unix_socket(root.path(), &path, &["--trusted-proxy", "unix"]);
    let mut proxy = UnixStream::connect(&path).unwrap();
    proxy.write_all(&[HEADER, b"small\n"].concat()).unwrap();
    let mut reply = Vec::new();
    proxy.read_to_end(&mut reply).unwrap();
    assert_eq!(reply, SMALL);
    let log = carafe.stop();
    assert!(
        log.contains("] 192.0.2.7:50000 via unix: \"small\" "),
        "{log}"
    );
}

// ---- what people put in front ----

/// A server that trusts this machine.
fn trusting_server(flags: &[&str]) -> (TempDir, Carafe) {
    let root = root();
    let flags = [&["--trusted-proxy", "127.0.0.0/8"], flags].concat();
    let carafe = Carafe::serve(root.path(), &flags);
    (root, carafe)
}

#[test]
fn curl_speaks_for_itself_also_by_tls() {
    if !has_tool("curl") {
        return;
    }
    let (root, authority) = (root(), Authority::new());
    authority.sign("one", &["localhost"], (2100, 1, 1));
    let flags = ["--trusted-proxy", "127.0.0.0/8"];
    let carafe = authority.serve(root.path(), &["one"], &flags);
    for scheme in ["http", "https"] {
        let script = "curl -sS --fail --haproxy-protocol --cacert \"$1\" --resolve \"localhost:$2:127.0.0.1\" \
                      -w '%{local_port}' -o \"$3\" \"$4://localhost:$2/large\"";
        let (port, out) = (carafe.port(), root.path().join("out"));
        let authority = authority.path();
        let arguments: [&OsStr; 4] = [
            authority.as_os_str(),
            port.as_ref(),
            out.as_ref(),
            scheme.as_ref(),
        ];
        let local_port = String::from_utf8(shell(script, &arguments)).unwrap();
        assert_same("curl's", &fs::read(&out).unwrap(), &pattern(3, LARGE_BYTES));
        let client = format!("127.0.0.1:{local_port}");
        // It is both, which isn't said twice.
        carafe.wait_for_log(&format!("] {client} \""));
    }
    carafe.stop_clean();
}

#[test]
fn haproxy_speaks_for_its_clients() {
    if !has_tool("haproxy") {
        return;
    }
    let (_root, carafe) = trusting_server(&[]);
    let address = carafe.addr().to_string();
    for version in ["send-proxy", "send-proxy-v2"] {
        // Its health checks are LOCAL.
        let more = format!("{version} check inter 20ms check-send-proxy");
        let haproxy = Haproxy::on_a_port(&address, &more, "tcp");
        let mut client = connect(haproxy.addr());
        client.write_all(b"large\n").unwrap();
        assert_same(
            "a name's",
            &read_to_end(&mut client),
            &pattern(3, LARGE_BYTES),
        );
        let name = client.local_addr().unwrap();
        let mut client = connect(haproxy.addr());
        client.write_all(GET).unwrap();
        assert!(read_to_end(&mut client).ends_with(SMALL));
        for client in [name, client.local_addr().unwrap()] {
            carafe.wait_for_log(&format!("] {client} via 127.0.0.1:"));
        }
        drop(haproxy);
    }
    carafe.stop_clean();
}

#[test]
fn haproxys_clients_may_have_no_address() {
    if !has_tool("haproxy") {
        return;
    }
    let (_root, carafe) = trusting_server(&[]);
    for version in ["send-proxy", "send-proxy-v2"] {
        let haproxy = Haproxy::before(&carafe.addr().to_string(), version, "tcp");
        let mut client = UnixStream::connect(haproxy.path()).unwrap();
        client.write_all(b"small\n").unwrap();
        let mut reply = Vec::new();
        client.read_to_end(&mut reply).unwrap();
        assert_eq!(reply, SMALL, "{version}");
    }
    carafe.stop_clean();
}

#[test]
fn nginx_speaks_for_its_clients() {
    if !has_tool("nginx") {
        return;
    }
    let (_root, carafe) = trusting_server(&[]);
    let address = carafe.addr();
    let here = format!(
        "location / {{ proxy_pass http://{address};
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }}"
    );
    let nginx = Nginx::with("", &here);
    let forged = b"GET /small HTTP/1.0\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n";
    assert!(exchange(nginx.addr(), forged).unwrap().ends_with(SMALL));
    // All of them are trusted here, so the first one is believed.
    carafe.wait_for_log("] 192.0.2.7 via 127.0.0.1:");
    drop(nginx);

    if Nginx::can_stream() {
        let nginx = Nginx::streaming(&format!("proxy_pass {address}; proxy_protocol on;"));
        let mut client = connect(nginx.addr());
        client.write_all(b"small\n").unwrap();
        let name = client.local_addr().unwrap();
        assert_eq!(read_to_end(&mut client), SMALL);
        carafe.wait_for_log(&format!("] {name} via 127.0.0.1:"));
    } else {
        skip("nginx-stream", "nginx has no module for it");
    }
    carafe.stop_clean();
}
