//! `carafe get` by TLS: whom it believes, what becomes of a body that was cut, where redirects may lead, and
//! the servers that people have.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::tempdir;

use crate::authority::{Authority, FAR};
use crate::common::{Carafe, assert_same, has_tool, pattern, reply_count, root_with, skip};
use crate::fake::{Outcome, Untouched, serve};
use crate::origin::tls::{End, TlsOrigin};
use crate::origin::{Asked, Origin, Version, cut, get, listing, saying};
use crate::proxied::Nginx;

const BIG_BYTES: usize = 3_000_000;

/// An authority, and what it has signed for this machine.
fn authority() -> Authority {
    let authority = Authority::new();
    authority.sign("one", &["localhost", "127.0.0.1", "::1"], FAR);
    authority
}

/// `carafe get` that trusts this authority.
fn get_by(authority: &Authority, folder: &Path, words: &[&str]) -> Outcome {
    let path = authority.path();
    get(
        folder,
        &[&["--cacert", path.to_str().unwrap()], words].concat(),
    )
}

fn wine() -> Version {
    Version::new("wine", "\"red\"")
}

// ---- what it fetches ----

#[test]
fn carafe_gives_by_tls_what_is_asked_for_by_url_and_by_name() {
    let (authority, folder) = (authority(), tempdir().unwrap());
    authority.sign("other", &["other.example"], FAR);
    let root = root_with(&[("big", pattern(0, BIG_BYTES)), ("small", b"small".to_vec())]);
    // Who doesn't say whom it wants gets the first certificate.
    let carafe = authority.serve(root.path(), &["other", "one"], &[]);
    let port = carafe.port();
    get_by(
        &authority,
        folder.path(),
        &[&format!("https://localhost:{port}/big")],
    )
    .is(0, "");
    let place = format!("localhost:{port}");
    get_by(
        &authority,
        folder.path(),
        &["--tls", &place, "small", "sub/none"],
    )
    .is(
        8,
        "carafe: sub/none: the server sent nothing: it has no such file, or an empty one\n",
    );
    assert_same(
        "big",
        &fs::read(folder.path().join("big")).unwrap(),
        &pattern(0, BIG_BYTES),
    );
    assert_eq!(fs::read(folder.path().join("small")).unwrap(), b"small");
    assert_eq!(listing(folder.path()), ["big", "small"]);
    let log = carafe.stop();
    assert_eq!(reply_count(&log, "complete"), 2, "{log}");
}

#[test]
fn an_address_is_a_name_in_a_certificate() {
    let (authority, folder) = (authority(), tempdir().unwrap());
    for address in ["127.0.0.1:0", "[::1]:0"] {
        if TcpListener::bind(address).is_err() {
            skip("ipv6", "there is no ::1 here");
            continue;
        }
        let honest =
            |asked: &Asked, _: usize| -> (Vec<u8>, End) { (wine().answer(asked), End::Fin) };
        let origin = TlsOrigin::start(&authority, "one", address, honest);
        get_by(&authority, folder.path(), &[&origin.url("/x")]).is(0, "");
        assert_eq!(fs::read(folder.path().join("x")).unwrap(), b"wine");
        let asked = &origin.asked.lock().unwrap()[0];
        assert_eq!(asked.field("host"), Some(&*origin.address.to_string()));
        fs::remove_file(folder.path().join("x")).unwrap();
    }
}

#[test]
fn a_download_that_broke_goes_on_where_it_broke() {
    let (authority, folder) = (authority(), tempdir().unwrap());
    let version = Version::new(pattern(3, BIG_BYTES), "\"red\"");
    let origin = TlsOrigin::start(&authority, "one", "127.0.0.1:0", move |asked, before| {
        match before {
            0 => (cut(version.answer(asked), 1_000_000), End::Fin),
            // By an end that is none, too.
            1 => (cut(version.answer(asked), 1_000_000), End::CloseNotify),
            _ => (version.answer(asked), End::CloseNotify),
        }
    });
    let outcome = get_by(&authority, folder.path(), &[&origin.url("/big")]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(origin.from(), [None, Some(1_000_000), Some(2_000_000)]);
    assert_same(
        "big",
        &fs::read(folder.path().join("big")).unwrap(),
        &pattern(3, BIG_BYTES),
    );
}

#[test]
fn a_body_is_whole_by_its_length_or_by_a_close_notify() {
    let authority = authority();
    const LENGTH: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwine";
    const CHUNKS: &str =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwine\r\n0\r\n\r\n";
    const CLOSE: &str = "HTTP/1.1 200 OK\r\n\r\nwine";
    for (answer, end, is_whole) in [
        (LENGTH, End::CloseNotify, true),
        (LENGTH, End::Fin, true),
        (&LENGTH[..LENGTH.len() - 1], End::CloseNotify, false),
        (&LENGTH[..LENGTH.len() - 1], End::Fin, false),
        (CHUNKS, End::Fin, true),
        (&CHUNKS[..CHUNKS.len() - 5], End::CloseNotify, false),
        (&CHUNKS[..CHUNKS.len() - 5], End::Fin, false),
        (CLOSE, End::CloseNotify, true),
        (CLOSE, End::Fin, false),
        ("HTTP/1.1 200 OK\r\n", End::Fin, false),
        ("", End::CloseNotify, false),
    ] {
        let folder = tempdir().unwrap();
        let origin = TlsOrigin::saying(&authority, answer, end);
        let outcome = get_by(
            &authority,
            folder.path(),
            &["--retries=0", &origin.url("/x")],
        );
        let case = format!("{answer:?}, {end:?}: {outcome:?}");
        assert_eq!(outcome.code, Some(if is_whole { 0 } else { 4 }), "{case}");
        assert_eq!(folder.path().join("x").exists(), is_whole, "{case}");
        let says_why = outcome.stderr.contains("without a close_notify of TLS");
        assert_eq!(says_why, !is_whole && end == End::Fin, "{case}");
    }
    // So it is with names.
    for (end, code) in [(End::CloseNotify, 0), (End::Fin, 4)] {
        let folder = tempdir().unwrap();
        let origin = TlsOrigin::start(&authority, "one", "127.0.0.1:0", move |_, _| {
            (b"wine".to_vec(), end)
        });
        let place = origin.address.to_string();
        let words = ["--tls", &place, "GET x"];
        let outcome = get_by(&authority, folder.path(), &words);
        assert_eq!(outcome.code, Some(code), "{end:?}: {outcome:?}");
    }
}

// ---- whom it believes ----

#[test]
fn a_certificate_that_wont_do_is_refused_in_one_line_and_not_tried_again() {
    let (authority, folder) = (authority(), tempdir().unwrap());
    authority.sign("old", &["127.0.0.1"], (2021, 5, 6));
    authority.sign("other", &["a.example", "b.example"], FAR);
    let stranger = Authority::new();
    for (label, trusted, line) in [
        (
            "old",
            &authority,
            "has expired: it ended 2021-05-06 00:00 UTC; --insecure",
        ),
        (
            "other",
            &authority,
            "is for a.example, b.example, not for 127.0.0.1; --insecure",
        ),
        (
            "one",
            &stranger,
            "nobody who is trusted here has signed the server's certificate; --cacert FILE",
        ),
    ] {
        let honest = |asked: &Asked, _: usize| (wine().answer(asked), End::CloseNotify);
        let origin = TlsOrigin::start(&authority, label, "127.0.0.1:0", honest);
        let outcome = get_by(trusted, folder.path(), &[&origin.url("/x")]);
        assert_eq!(outcome.code, Some(5), "{outcome:?}");
        assert!(outcome.stderr.contains(line), "{outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
        assert!(origin.from().is_empty() && listing(folder.path()).is_empty());

        let outcome = get(folder.path(), &["--insecure", "-q", &origin.url("/x")]);
        let warning = "no server's certificate is checked; anybody may have sent what comes";
        outcome.is(0, &format!("carafe: --insecure: {warning}\n"));
        let outcome = get(folder.path(), &["--insecure", "-v", &origin.url("/x")]);
        let told = "to x, from a server that was not checked (--insecure)\n";
        assert!(outcome.stderr.ends_with(told), "{outcome:?}");
        fs::remove_file(folder.path().join("x")).unwrap();
    }
}

#[test]
fn a_certificate_that_signed_itself_is_trusted_by_its_name() {
    if !has_tool("openssl") {
        return;
    }
    let folder = tempdir().unwrap();
    let script = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key \
                  -out crt -subj /CN=own -addext subjectAltName=DNS:localhost -days 1 2>&1";
    let made = Command::new("sh")
        .args(["-c", script])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let root = root_with(&[("small", b"small".to_vec())]);
    let flags = ["--tls-cert", &path("crt"), "--tls-key", &path("key")];
    let carafe = Carafe::serve(root.path(), &flags);
    let url = |host: &str| format!("https://{host}:{}/small", carafe.port());
    let trusting = |host: &str| get(folder.path(), &["--cacert", &path("crt"), &url(host)]);
    trusting("localhost").is(0, "");
    let outcome = trusting("127.0.0.1");
    assert_eq!(outcome.code, Some(5), "{outcome:?}");
    let line = "is for localhost, not for 127.0.0.1";
    assert!(outcome.stderr.contains(line), "{outcome:?}");
    carafe.stop();
}

#[test]
fn the_systems_authorities_are_those_of_openssls_variables() {
    let (authority, folder) = (authority(), tempdir().unwrap());
    let origin = TlsOrigin::saying(
        &authority,
        wine().with_head("200 OK", "", b""),
        End::CloseNotify,
    );
    let by_system = |variable: &str| {
        let mut command = crate::fake::carafe(folder.path());
        command
            .args(["get", &origin.url("/x")])
            .env_remove("SSL_CERT_DIR")
            .env("SSL_CERT_FILE", variable);
        crate::fake::run(&mut command, b"")
    };
    by_system(authority.path().to_str().unwrap()).is(0, "");
    let empty = folder.path().join("empty");
    fs::write(&empty, "").unwrap();
    let outcome = by_system(empty.to_str().unwrap());
    assert_eq!(outcome.code, Some(5), "{outcome:?}");
    assert!(
        outcome.stderr.contains("no authorities to trust"),
        "{outcome:?}"
    );
}

#[test]
fn what_does_not_speak_tls_is_no_server_for_it() {
    let folder = tempdir().unwrap();
    for (answer, line) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
            "what the server says is no TLS",
        ),
        (b"", "the server closed the connection"),
    ] {
        let plain = serve(move |mut stream| {
            // All of its hello: a close with unread bytes resets.
            let hello = stream.read(&mut [0; 4096]).unwrap();
            assert!(hello > 0);
            stream.write_all(answer).unwrap();
        });
        let url = format!("https://{plain}/x");
        let outcome = get(folder.path(), &["--insecure", "--retries=0", &url]);
        assert_eq!(outcome.code, Some(4), "{outcome:?}");
        let line = format!("TLS could not be set up: {line}\n");
        assert!(outcome.stderr.ends_with(&line), "{outcome:?}");
    }
}

#[test]
fn bad_flags_are_refused_before_connecting() {
    let (folder, untouched) = (tempdir().unwrap(), Untouched::new());
    fs::write(folder.path().join("text"), "no certificate").unwrap();
    let url = format!("https://{}/x", untouched.address());
    let takes = "won't do: it takes a file with a certificate in PEM";
    for (words, line) in [
        (
            &["--cacert", "none"][..],
            format!("--cacert: 'none' {takes} ("),
        ),
        (
            &["--cacert", "text"],
            format!("--cacert: 'text' {takes} (there is none in it)"),
        ),
        (
            &["--tls"],
            "--tls is for HOST:PORT; a URL says https://".into(),
        ),
        (
            &["--cacert", "text", "--insecure"],
            "the argument '--cacert <FILE>' cannot be used with '--insecure'".into(),
        ),
    ] {
        let outcome = get(folder.path(), &[words, &[&url]].concat());
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(outcome.stderr.contains(&line), "{outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    }
}

// ---- redirects ----

#[test]
fn redirects_lead_up_to_https_and_down_only_when_allowed() {
    let (authority, folder) = (authority(), tempdir().unwrap());
    let answer = |asked: &Asked, _: usize| (wine().answer(asked), End::CloseNotify);
    let above = TlsOrigin::start(&authority, "one", "127.0.0.1:0", answer);
    let to = |url: &str| format!("HTTP/1.1 302 There\r\nLocation: {url}\r\n\r\n");
    let up = saying(to(&above.url("/y")));
    get_by(&authority, folder.path(), &[&up.url("/x")]).is(0, "");
    assert_eq!(above.from().len(), 1);

    let below = Origin::honest(&wine());
    let there = below.url("/y");
    let down = TlsOrigin::saying(&authority, to(&there), End::CloseNotify);
    let around = saying(to(&down.url("/z")));
    for url in [down.url("/x"), around.url("/x")] {
        let why = "it leads from https down to http, which --allow-downgrade follows";
        let line = format!("the server redirects to '{there}', which won't do: {why}");
        get_by(&authority, folder.path(), &[&url]).is(7, &format!("carafe: {url}: {line}\n"));
    }
    assert!(below.asked().is_empty());
    let words = ["--allow-downgrade", &down.url("/x")];
    get_by(&authority, folder.path(), &words).is(0, "");
    assert_eq!(below.asked().len(), 1);
}

// ---- the servers that people have ----

#[test]
fn nginx_gives_by_tls() {
    if !has_tool("nginx") {
        return;
    }
    let (authority, folder) = (authority(), tempdir().unwrap());
    let root = root_with(&[("big", pattern(7, BIG_BYTES))]);
    for version in ["TLSv1.2", "TLSv1.3"] {
        let here = format!(
            "root {}; ssl_protocols {version}; chunked_transfer_encoding on;",
            root.path().display()
        );
        let nginx = Nginx::tls(&authority.crt("one"), &authority.key("one"), &here);
        let url = format!("https://{}/big", nginx.addr());
        get_by(&authority, folder.path(), &[&url]).is(0, "");
        let file = fs::read(folder.path().join("big")).unwrap();
        assert_same("big", &file, &pattern(7, BIG_BYTES));
    }
}

/// A program that serves, and ends with it.
struct Served(Child, SocketAddr);

impl Served {
    /// It prints a line with its address or port, as the last word.
    fn start(command: &mut Command, marks: &str) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        let line = lines
            .map(Result::unwrap)
            .find(|line| line.starts_with(marks))
            .expect("it says where it listens");
        let port = line.rsplit([' ', ':']).next().unwrap();
        let address = format!("127.0.0.1:{port}").parse().unwrap();
        Self(child, address)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn openssls_and_pythons_servers_give_by_tls() {
    let (authority, folder) = (authority(), tempdir().unwrap());
    let root = root_with(&[("big", pattern(7, BIG_BYTES))]);
    let (crt, key) = (authority.crt("one"), authority.key("one"));
    let check = |served: &Served| {
        let url = format!("https://{}/big", served.1);
        get_by(&authority, folder.path(), &[&url]).is(0, "");
        let file = fs::read(folder.path().join("big")).unwrap();
        assert_same("big", &file, &pattern(7, BIG_BYTES));
        fs::remove_file(folder.path().join("big")).unwrap();
    };
    if has_tool("openssl") {
        let mut openssl = Command::new("openssl");
        openssl
            .args(["s_server", "-WWW", "-accept", "127.0.0.1:0", "-cert"])
            .args([&crt, Path::new("-key"), &key])
            .current_dir(root.path());
        check(&Served::start(&mut openssl, "ACCEPT"));
    }
    if has_tool("python3") {
        let script = "import http.server, ssl, sys\n\
            server = http.server.HTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)\n\
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n\
            tls.load_cert_chain(sys.argv[1], sys.argv[2])\n\
            server.socket = tls.wrap_socket(server.socket, server_side=True)\n\
            print('port', server.server_port, flush=True)\n\
            server.serve_forever()\n";
        let mut python = Command::new("python3");
        python
            .args(["-c", script])
            .args([&crt, &key])
            .current_dir(root.path());
        check(&Served::start(&mut python, "port"));
    }
}
