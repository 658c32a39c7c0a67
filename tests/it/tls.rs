//! TLS in the real binary: its clients, its certificates, and how it ends.

use std::ffi::OsStr;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;

use carafe::limits::TLS_EXPIRY_WARNING;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustix::process::Signal;
use rustls::version::{TLS12, TLS13};
use tempfile::TempDir;

use crate::authority::{Authority, FAR, TlsStream, tls_connect, tls_exchange};
use crate::common::{
    Carafe, LARGE_BYTES, assert_same, connect, count_lines, exchange, has_tool, pattern,
    reason_count, reply_count, resident_bytes, root_with, run_carafe, shell, sparse_file, until,
};
use crate::proxied::{Haproxy, Nginx};
use crate::scrape::{Page, metrics_of};

const BIG_BYTES: usize = 3_000_000;

fn root() -> TempDir {
    root_with(&[
        ("small", b"small bytes".to_vec()),
        ("big", pattern(0, BIG_BYTES)),
        ("empty", Vec::new()),
    ])
}

/// A server with a certificate for `localhost`.
fn server(flags: &[&str]) -> (Authority, TempDir, Carafe) {
    let (authority, root) = (Authority::new(), root());
    authority.sign("one", &["localhost"], FAR);
    let carafe = authority.serve(root.path(), &["one"], flags);
    (authority, root, carafe)
}

/// Runs a script with the authority's path as `$1`, the port as `$2` and a folder of its own as `$3`.
fn run(authority: &Authority, carafe: &Carafe, script: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let script = format!("set -e; cd \"$3\"; {script}");
    let (ca, port) = (authority.path(), carafe.port());
    shell(
        &script,
        &[ca.as_os_str(), OsStr::new(&port), folder.path().as_os_str()],
    )
}

// ---- clients ----

#[test]
fn curl_fetches_by_both_versions() {
    if !has_tool("curl") {
        return;
    }
    let (authority, _root, carafe) = server(&["--hsts"]);
    let curl = "curl -sSf --noproxy '*' --cacert $1 --resolve localhost:$2:127.0.0.1";
    for version in ["--tls-max 1.2", "--tlsv1.3"] {
        let fetch = |path: &str| {
            let script = format!("{curl} {version} https://localhost:$2/{path}");
            run(&authority, &carafe, &script)
        };
        assert_same("big", &fetch("big"), &pattern(0, BIG_BYTES));
        assert_eq!(fetch("empty"), b"");
        // Two on one connection.
        assert_eq!(
            fetch("small https://localhost:$2/small"),
            b"small bytessmall bytes"
        );
        let head = String::from_utf8(fetch("small -I")).unwrap();
        assert!(
            head.contains("\r\nStrict-Transport-Security: max-age=31536000\r\n"),
            "{head}"
        );
    }
    // Without TLS, all is as it was, on the same port.
    let script = format!("{curl} -i http://localhost:$2/small");
    let plain = String::from_utf8(run(&authority, &carafe, &script)).unwrap();
    assert!(
        plain.ends_with("small bytes") && !plain.contains("Strict-"),
        "{plain}"
    );
    assert_eq!(exchange(carafe.addr(), b"small\n").unwrap(), b"small bytes");
    carafe.stop_clean();
}

#[test]
fn wget_fetches() {
    if !has_tool("wget") {
        return;
    }
    let (authority, _root, carafe) = server(&[]);
    let script = "wget -q --no-proxy --ca-certificate=$1 -O - https://localhost:$2/big";
    assert_same(
        "big",
        &run(&authority, &carafe, script),
        &pattern(0, BIG_BYTES),
    );
    carafe.stop_clean();
}

#[test]
fn openssl_asks_by_name_and_resumes() {
    if !has_tool("openssl") {
        return;
    }
    let (authority, _root, carafe) = server(&[]);
    let client = "openssl s_client -connect 127.0.0.1:$2 -servername localhost -CAfile $1 \
                  -verify_return_error";
    for version in ["-tls1_2", "-tls1_3"] {
        let script = format!(
            "printf 'small\\n' | {client} {version} -quiet 2>log || {{ cat log >&2; exit 1; }}"
        );
        assert_eq!(run(&authority, &carafe, &script), b"small bytes");
        // The answer comes after the ticket of TLS 1.3, and the end after both.
        let ask = format!("printf 'small\\n' | {client} {version} -ign_eof");
        let script = format!("{ask} -sess_out ticket >/dev/null 2>&1; {ask} -sess_in ticket 2>&1");
        let text = String::from_utf8_lossy(&run(&authority, &carafe, &script)).into_owned();
        assert!(text.contains("\nReused, TLSv1."), "{text}");
    }
    // It refuses what is older, with an alert.
    let refused = |flags: &str| {
        let script = format!("{client} {flags} 2>&1 </dev/null || true");
        let text = String::from_utf8_lossy(&run(&authority, &carafe, &script)).into_owned();
        // handshake_failure (RFC 8446, 6.2).
        assert!(text.contains("SSL alert number 40"), "{flags}: {text}");
    };
    refused("-tls1_1 -cipher ALL:@SECLEVEL=0");
    // And who takes no signature of the certificate's kind.
    refused("-tls1_2 -cipher aRSA");
    let log = carafe.stop();
    assert_eq!(reason_count(&log, "TLS failed"), 2, "{log}");
}

#[test]
fn a_renegotiation_is_refused() {
    if !has_tool("openssl") {
        return;
    }
    let (authority, _root, carafe) = server(&[]);
    let script = "printf 'R\\n' | openssl s_client -tls1_2 -CAfile \"$1\" -connect localhost:$2 2>&1 || true";
    let said = String::from_utf8_lossy(&run(&authority, &carafe, script)).into_owned();
    assert!(said.contains("RENEGOTIATING\n"), "{said}");
    assert!(said.contains(":no renegotiation:"), "{said}");
    let log = carafe.stop();
    assert_eq!(reason_count(&log, "TLS failed"), 1, "{log}");
}

#[test]
fn chromium_shows_a_page() {
    if !has_tool("chromium") {
        return;
    }
    let (authority, root, carafe) = server(&["--listing"]);
    fs::write(
        root.path().join("page.html"),
        "<title>page</title><p id=p>by TLS",
    )
    .unwrap();
    let script = "chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage \
        --no-first-run --user-data-dir=$3/profile --ignore-certificate-errors \
        --dump-dom https://localhost:$2/page.html 2>/dev/null";
    let page = String::from_utf8(run(&authority, &carafe, script)).unwrap();
    assert!(page.contains("by TLS"), "{page}");
    carafe.stop();
}

/// What follows the head.
fn body_of(reply: &[u8]) -> &[u8] {
    let mut fours = reply.windows(4);
    let end = fours.position(|four| four == b"\r\n\r\n");
    &reply[end.unwrap() + 4..]
}

const ASK: &[u8] = b"GET /big HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

#[test]
fn nginx_asks_by_tls() {
    if !has_tool("nginx") {
        return;
    }
    let (authority, _root, carafe) = server(&[]);
    let here = format!(
        "location / {{
            proxy_pass https://{}; proxy_http_version 1.1; proxy_ssl_verify on;
            proxy_ssl_server_name on; proxy_ssl_name localhost; proxy_ssl_trusted_certificate {};
        }}",
        carafe.addr(),
        authority.path().display()
    );
    let nginx = Nginx::with("", &here);
    for _ in 0..3 {
        let reply = exchange(nginx.addr(), ASK).unwrap();
        assert_same("big", body_of(&reply), &pattern(0, BIG_BYTES));
    }
    drop(nginx);
    carafe.stop_clean();
}

#[test]
fn haproxy_asks_by_tls() {
    if !has_tool("haproxy") {
        return;
    }
    let (authority, _root, carafe) = server(&[]);
    let more = format!(
        "ssl verify required sni str(localhost) ca-file {}",
        authority.path().display()
    );
    let haproxy = Haproxy::before(&carafe.addr().to_string(), &more, "http");
    for _ in 0..3 {
        let mut client = UnixStream::connect(haproxy.path()).unwrap();
        client.write_all(ASK).unwrap();
        let mut reply = Vec::new();
        client.read_to_end(&mut reply).unwrap();
        assert_same("big", body_of(&reply), &pattern(0, BIG_BYTES));
    }
    drop(haproxy);
    carafe.stop_clean();
}

#[test]
fn half_closed_clients_get_the_whole_and_a_goodbye() {
    let (authority, _root, carafe) = server(&["--exact-names"]);
    for versions in [&[&TLS12], &[&TLS13]] {
        let mut stream = tls_connect(&authority.client(versions), carafe.addr(), "localhost");
        stream.write_all(b"big").unwrap();
        // No line feed: the end of its side is the name's.
        stream.conn.send_close_notify();
        let mut reply = Vec::new();
        stream.flush().unwrap();
        stream.sock.shutdown(Shutdown::Write).unwrap();
        stream.read_to_end(&mut reply).unwrap();
        assert_same("big", &reply, &pattern(0, BIG_BYTES));
    }
    carafe.stop_clean();
}

// ---- certificates ----

/// The first name of the certificate that a client got.
fn certificate_of(stream: &mut TlsStream) -> Vec<u8> {
    stream.write_all(b"small\n").unwrap();
    stream.read_exact(&mut [0; 11]).unwrap();
    stream.conn.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn the_servers_name_chooses_the_certificate() {
    let (authority, root) = (Authority::new(), root());
    authority.sign("one", &["localhost"], FAR);
    authority.sign("two", &["two.example", "*.wild.example"], FAR);
    let carafe = authority.serve(root.path(), &["one", "two"], &[]);
    for name in ["localhost", "two.example", "a.wild.example"] {
        // The client checks the name.
        let mut stream = authority.connect(carafe.addr(), name);
        assert_eq!(
            tls_exchange(&mut stream, b"small\n").unwrap(),
            b"small bytes",
            "{name}"
        );
    }
    // Nobody's: the first one's, which the client refuses.
    let mut stream = authority.connect(carafe.addr(), "three.example");
    let error = tls_exchange(&mut stream, b"small\n").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
    let log = carafe.stop();
    assert_eq!(reason_count(&log, "TLS failed"), 1, "{log}");
}

#[test]
fn a_hangup_brings_a_new_certificate_and_a_bad_one_none() {
    let (authority, _root, carafe) = server(&["--workers", "2"]);
    let get = || certificate_of(&mut authority.connect(carafe.addr(), "localhost"));
    let first = get();
    // A download that goes on meanwhile.
    let mut under_way = authority.connect(carafe.addr(), "localhost");
    under_way.write_all(b"big\n").unwrap();
    under_way.read_exact(&mut [0; 1000]).unwrap();

    fs::write(authority.key("one"), "no key").unwrap();
    carafe.signal(Signal::HUP);
    carafe.wait_for_log("the certificates stay as they were");
    assert_eq!(get(), first);

    authority.sign("one", &["localhost"], FAR);
    carafe.signal(Signal::HUP);
    carafe.wait_for_log("certificates were read anew");
    assert_ne!(get(), first);
    let mut rest = Vec::new();
    under_way.read_to_end(&mut rest).unwrap();
    assert_same("the rest", &rest, &pattern(0, BIG_BYTES)[1000..]);
    carafe.stop_warned(&["--tls-key: '"]);
}

/// certbot keeps each renewal's files, and links that lead to the last ones, which it makes anew one by one.
#[test]
fn a_renewal_by_links_is_served_and_drops_nobody() {
    let (authority, root) = (Authority::new(), root());
    let folder = tempfile::tempdir().unwrap();
    let (live, archive) = (
        folder.path().join("live/name"),
        folder.path().join("archive/name"),
    );
    fs::create_dir_all(&live).unwrap();
    fs::create_dir_all(&archive).unwrap();
    let issue = |nth: u32| {
        authority.sign("one", &["localhost"], FAR);
        let file = |name: &str| archive.join(format!("{name}{nth}.pem"));
        fs::rename(authority.crt("one"), file("fullchain")).unwrap();
        fs::rename(authority.key("one"), file("privkey")).unwrap();
    };
    let link = |name: &str, nth: u32| {
        let link = live.join(format!("{name}.pem"));
        let _ = fs::remove_file(&link);
        symlink(format!("../../archive/name/{name}{nth}.pem"), link).unwrap();
    };
    issue(1);
    link("privkey", 1);
    link("fullchain", 1);
    let (chain, key) = (live.join("fullchain.pem"), live.join("privkey.pem"));
    let flags = [
        "--tls-cert",
        chain.to_str().unwrap(),
        "--tls-key",
        key.to_str().unwrap(),
    ];
    let carafe = Carafe::serve(root.path(), &flags);
    let get = || certificate_of(&mut authority.connect(carafe.addr(), "localhost"));
    let first = get();
    let mut under_way = authority.connect(carafe.addr(), "localhost");
    under_way.write_all(b"big\n").unwrap();
    under_way.read_exact(&mut [0; 1000]).unwrap();
    let mut kept = authority.connect(carafe.addr(), "localhost");
    let mut ask = || {
        let request = b"GET /small HTTP/1.1\r\nHost: h\r\n\r\n";
        kept.write_all(request).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\nsmall bytes") {
            let mut byte = [0];
            kept.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
    };
    ask();

    issue(2);
    link("privkey", 2);
    carafe.signal(Signal::HUP);
    carafe.wait_for_log("the certificates stay as they were");
    assert_eq!(get(), first);
    link("fullchain", 2);
    carafe.signal(Signal::HUP);
    carafe.wait_for_log("certificates were read anew");
    assert_ne!(get(), first);
    ask();
    let mut rest = Vec::new();
    under_way.read_to_end(&mut rest).unwrap();
    assert_same("the rest", &rest, &pattern(0, BIG_BYTES)[1000..]);
    carafe.stop_warned(&["--tls-key: '"]);
}

#[test]
fn the_metrics_tell_when_a_certificate_ends_and_what_became_of_handshakes() {
    let (authority, root) = (Authority::new(), root());
    let soon = Timestamp::now() + TLS_EXPIRY_WARNING / 2;
    let day = soon.to_zoned(TimeZone::UTC).date();
    let day = (i32::from(day.year()), day.month() as u8, day.day() as u8);
    authority.sign("soon", &["localhost"], day);
    authority.sign("late", &["late.example"], (2021, 1, 1));
    authority.sign("far", &["far.example"], FAR);
    let flags = ["--metrics", "127.0.0.1:0"];
    let carafe = authority.serve(root.path(), &["soon", "late", "far"], &flags);
    let metrics = metrics_of(&carafe);
    let config = authority.client(&[&TLS13]);
    for _ in 0..3 {
        let mut stream = tls_connect(&config, carafe.addr(), "localhost");
        tls_exchange(&mut stream, b"small\n").unwrap();
    }
    let mut hostile = connect(carafe.addr());
    hostile.write_all(b"\x16\x03\x01\x00\x05hello").unwrap();
    let _ = hostile.read_to_end(&mut Vec::new());
    until("all are counted", || {
        Page::get(metrics).sum("carafe_tls_handshakes_total") == 4.0
    });
    let page = Page::get(metrics);
    page.assert_conserved();
    for (result, count) in [("full", 1.0), ("resumed", 2.0), ("failed", 1.0)] {
        let name = format!("carafe_tls_handshakes_total{{result=\"{result}\"}}");
        assert_eq!(page.value(&name), count, "{result}");
    }
    for (label, year) in [("late", 2021), ("far", 2100)] {
        let path = authority.crt(label);
        let gauge = "carafe_tls_certificate_end_timestamp_seconds";
        let name = format!("{gauge}{{certificate=\"{}\"}}", path.display());
        let ends = Timestamp::from_second(page.value(&name) as i64).unwrap();
        assert_eq!(i32::from(ends.to_zoned(TimeZone::UTC).year()), year);
    }
    let log = carafe.stop_warned(&["soon.crt' ends in ", "late.crt' has ended"]);
    assert_eq!(count_lines(&log, "far.crt"), 0, "{log}");
}

#[test]
fn what_wont_do_is_refused_in_one_line() {
    let authority = Authority::new();
    authority.sign("one", &["localhost"], FAR);
    authority.sign("two", &["localhost"], FAR);
    let path = |path: std::path::PathBuf| path.to_str().unwrap().to_owned();
    let (crt, key, other) = (
        path(authority.crt("one")),
        path(authority.key("one")),
        path(authority.key("two")),
    );
    let missing = path(authority.crt("missing"));
    for (words, said) in [
        (
            vec!["--tls-cert", &crt],
            "--tls-cert: each takes a --tls-key that goes with it",
        ),
        (
            vec!["--tls-key", &key],
            "--tls-key: each takes a --tls-cert that goes with it",
        ),
        (
            vec!["--tls-only"],
            "--tls-only: takes a --tls-cert and its --tls-key",
        ),
        (
            vec!["--hsts"],
            "--hsts: takes a --tls-cert and its --tls-key",
        ),
        (
            vec!["--tls-cert", &crt, "--tls-key", &crt],
            "without a passphrase (there is none in it)",
        ),
        (
            vec!["--tls-cert", &key, "--tls-key", &key],
            "a certificate in PEM (there is none in it)",
        ),
        (
            vec!["--tls-cert", &missing, "--tls-key", &key],
            "(No such file or directory",
        ),
        (
            vec!["--tls-cert", &crt, "--tls-key", &other],
            "won't do: it takes the key of '",
        ),
        (
            vec!["--tls-cert", "/dev/null", "--tls-key", &key],
            "(there is none in it)",
        ),
    ] {
        let words: Vec<_> = ["serve", "/"]
            .iter()
            .chain(&words)
            .map(OsStr::new)
            .collect();
        let output = run_carafe(&words);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(
            text.contains(said) && text.matches('\n').count() == 1,
            "{said}: {text}"
        );
    }
}

/// Keys as OpenSSL and ACME's clients write them.
#[test]
fn keys_come_in_every_form() {
    if !has_tool("openssl") {
        return;
    }
    let root = root();
    let folder = tempfile::tempdir().unwrap();
    for (form, make) in [
        (
            "PKCS#8",
            "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out k",
        ),
        ("SEC1", "openssl ecparam -name secp384r1 -genkey -out k"),
        ("PKCS#1", "openssl genrsa -traditional -out k 2048"),
        ("Ed25519", "openssl genpkey -algorithm ed25519 -out k"),
    ] {
        let sign = "openssl req -x509 -new -key k -subj /CN=localhost -days 30 -out c";
        let script = format!("cd \"$1\"; {{ {make} && {sign}; }} 2>/dev/null");
        shell(&script, &[folder.path().as_os_str()]);
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let flags = ["--tls-cert", &at("c"), "--tls-key", &at("k")];
        let carafe = Carafe::serve(root.path(), &flags);
        let ask = "printf 'small\\n' | openssl s_client -connect 127.0.0.1:$1 -quiet 2>/dev/null";
        assert_eq!(
            shell(ask, &[OsStr::new(&carafe.port())]),
            b"small bytes",
            "{form}"
        );
        carafe.stop_clean();
    }
}

// ---- who comes without ----

#[test]
fn where_tls_is_required_http_is_sent_to_it_and_names_are_closed() {
    let (authority, _root, carafe) = server(&["--tls-only"]);
    let ask = |request: &str| {
        let reply = exchange(carafe.addr(), request.as_bytes()).unwrap();
        String::from_utf8(reply).unwrap()
    };
    for (request, location) in [
        (
            "GET /a%20b?c HTTP/1.1\r\nHost: h:81\r\nConnection: close\r\n\r\n",
            "https://h:81/a%20b?c",
        ),
        (
            "HEAD / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
            "https://h/",
        ),
        (
            "GET http://h/x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
            "https://h/x",
        ),
    ] {
        let reply = ask(request);
        assert!(reply.starts_with("HTTP/1.1 301 "), "{reply}");
        assert!(
            reply.contains(&format!("\r\nLocation: {location}\r\n")),
            "{reply}"
        );
    }
    assert!(ask("GET /small HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 403 "));
    assert_eq!(ask("small\n"), "");
    assert_eq!(ask("GET /small\r\n"), "");
    let mut stream = authority.connect(carafe.addr(), "localhost");
    assert_eq!(
        tls_exchange(&mut stream, b"small\n").unwrap(),
        b"small bytes"
    );
    let log = carafe.stop();
    assert_eq!(count_lines(&log, "a client without TLS"), 3, "{log}");
}

// ---- ends ----

#[test]
fn a_body_that_is_cut_off_has_no_goodbye() {
    let (authority, root, carafe) = server(&[]);
    let path = root.path().join("shrinks");
    let file = sparse_file(&path, LARGE_BYTES as u64);
    let mut stream = authority.connect(carafe.addr(), "localhost");
    stream.write_all(b"shrinks\n").unwrap();
    stream.read_exact(&mut [0; 1000]).unwrap();
    file.set_len(5000).unwrap();
    let error = stream.read_to_end(&mut Vec::new()).unwrap_err();
    let is_cut = matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
    );
    assert!(is_cut, "{error}");
    carafe.stop_warned(&["became shorter while it was sent"]);
}

#[test]
fn a_drain_lets_downloads_end_whole() {
    let (authority, root, carafe) = server(&[]);
    let large = pattern(1, LARGE_BYTES);
    fs::write(root.path().join("large"), &large).unwrap();
    let idle = {
        let mut stream = authority.connect(carafe.addr(), "localhost");
        stream
            .write_all(b"HEAD /small HTTP/1.1\r\nHost: h\r\n\r\n")
            .unwrap();
        stream.read_exact(&mut [0; 12]).unwrap();
        stream
    };
    let mut stream = authority.connect(carafe.addr(), "localhost");
    stream.write_all(b"large\n").unwrap();
    stream.read_exact(&mut [0; 1000]).unwrap();
    carafe.signal(Signal::TERM);
    carafe.wait_for_log("draining");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_same("large", &rest, &large[1000..]);
    drop((stream, idle));
    let (status, log) = carafe.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(reply_count(&log, "complete"), 2, "{log}");
}

#[test]
fn who_takes_nothing_is_reset_by_tls_too() {
    let (authority, root, carafe) = server(&["--stall-timeout", "1s"]);
    sparse_file(&root.path().join("large"), 10 * LARGE_BYTES as u64);
    let mut stream = authority.connect(carafe.addr(), "localhost");
    stream.write_all(b"large\n").unwrap();
    stream.read_exact(&mut [0; 1000]).unwrap();
    carafe.wait_for_log(" stalled");
    assert!(stream.read_to_end(&mut Vec::new()).is_err());
    carafe.stop();
}

// ---- memory ----

/// What a kept TLS connection that says nothing may take, in bytes.
const IDLE_BYTES_MAX: u64 = 8 * 1024;

#[test]
fn a_kept_connection_takes_little() {
    const COUNT: u64 = 400;
    let (authority, _root, carafe) = server(&["-q"]);
    let config = authority.client(&[&TLS13]);
    let come = |count: u64| -> Vec<TlsStream> {
        let one = |_| {
            let mut stream = tls_connect(&config, carafe.addr(), "localhost");
            stream
                .write_all(b"HEAD /small HTTP/1.1\r\nHost: h\r\n\r\n")
                .unwrap();
            stream.read_exact(&mut [0; 12]).unwrap();
            stream
        };
        (0..count).map(one).collect()
    };
    let first = come(50);
    let before = resident_bytes(&carafe);
    let kept = come(COUNT);
    let each = resident_bytes(&carafe).saturating_sub(before) / COUNT;
    let _ = writeln!(
        std::io::stderr(),
        "a kept TLS connection takes {each} bytes"
    );
    assert!(each <= IDLE_BYTES_MAX, "{each} bytes");
    drop((first, kept));
}
