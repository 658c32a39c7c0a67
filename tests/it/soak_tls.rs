//! `carafe soak` by TLS: carafe and nginx, bodies that are cut, certificates that won't do, and what a report
//! says of it.

use std::fs;

use tempfile::TempDir;

use crate::authority::{Authority, FAR};
use crate::common::{Carafe, has_tool, pattern, root_with};
use crate::origin::tls::{End, TlsOrigin};
use crate::proxied::Nginx;
use crate::soaking::{Soaked, soak, soak_words, word};

const ALL_KINDS: &str = "--mix fast=40%,slow=10%,abort=10%,halfclose=20%,split=10%,idle=10%";

/// An authority, what it has signed, and a folder of files.
fn given() -> (Authority, TempDir) {
    let authority = Authority::new();
    authority.sign("one", &["localhost", "127.0.0.1"], FAR);
    let root = root_with(&[("a", pattern(0, 100_000)), ("b", b"b".to_vec())]);
    (authority, root)
}

/// A run that trusts the authority.
fn soak_by(authority: &Authority, words: &str) -> Soaked {
    soak_words(&format!("{words} --cacert {}", word(&authority.path())))
}

fn serve(authority: &Authority, root: &TempDir) -> Carafe {
    authority.serve(root.path(), &["one"], &[])
}

#[test]
fn clients_of_all_kinds_ask_by_url_and_by_name() {
    let (authority, root) = given();
    let carafe = serve(&authority, &root);
    let (port, against) = (carafe.port(), word(root.path()));
    for target in [
        format!("https://localhost:{port}/a https://localhost:{port}/b"),
        format!("--tls localhost:{port} a b"),
    ] {
        let words = format!("{target} -n 200 -c 8 --slow-rate 1MB --against {against} {ALL_KINDS}");
        let soaked = soak_by(&authority, &words);
        assert_eq!(soaked.code, Some(0), "{soaked:?}");
        let handshakes = soaked.number("tls.handshakes");
        assert!(handshakes > 8, "{soaked:?}");
        assert_eq!(soaked.number("latency.handshake.count"), handshakes);
        assert!(soaked.number("latency.handshake.p50") > 0);
        assert!(soaked.stdout.contains(" handshake "), "{soaked:?}");
        let told = format!("TLS: {handshakes} handshakes, ");
        assert!(soaked.stdout.contains(&told), "{soaked:?}");
        assert!(!soaked.stdout.contains("NOT CHECKED"), "{soaked:?}");
    }
    carafe.stop_clean();
}

/// A client that half-closes says its goodbye (close_notify) behind the name, and it may come when the server
/// has sent all: a close with unread input would reset, and drop what is unsent.
#[test]
fn a_goodbye_behind_a_name_costs_no_byte() {
    let (authority, root) = given();
    let carafe = serve(&authority, &root);
    let words = format!("--tls localhost:{} a --verify", carafe.port());
    let load = "--mix halfclose=100% -c 16 -n 1000 --fail-if errors>0";
    let soaked = soak_by(&authority, &format!("{words} {load}"));
    assert_eq!(soaked.code, Some(0), "{soaked:?}");
    carafe.stop_clean();
}

#[test]
fn sessions_are_resumed_or_not() {
    let (authority, root) = given();
    let carafe = serve(&authority, &root);
    let words = format!(
        "https://localhost:{}/b -n 50 -c 1 --verify --no-keep-alive",
        carafe.port()
    );
    let resumed = soak_by(&authority, &words);
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    // One handshake more, before the load, has learned the body; the last one's ticket is unused.
    assert_eq!(resumed.number("tls.handshakes"), 50, "{resumed:?}");
    assert!(resumed.number("tls.resumed") >= 49, "{resumed:?}");
    let full = soak_by(&authority, &format!("{words} --no-resumption"));
    assert_eq!(full.code, Some(0), "{full:?}");
    assert_eq!(full.number("tls.handshakes"), 50, "{full:?}");
    assert_eq!(full.number("tls.resumed"), 0, "{full:?}");
    carafe.stop_clean();
}

#[test]
fn a_certificate_that_wont_do_fails_and_an_unchecked_one_is_told_everywhere() {
    let (authority, root) = given();
    authority.sign("other", &["other.example"], FAR);
    let carafe = authority.serve(root.path(), &["other"], &[]);
    let url = format!("https://localhost:{}/b", carafe.port());
    let refused = soak_by(&authority, &format!("{url} -n 3 -c 1"));
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert_eq!(refused.count("tls_failed"), 3, "{refused:?}");
    let line = "the server's certificate is for other.example, not for localhost";
    assert!(refused.sample("tls_failed").contains(line), "{refused:?}");

    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| word(&folder.path().join(name)).to_owned();
    let files = ["page", "junit", "summary"].map(path);
    let [page, junit, summary] = &files;
    let words = format!(
        "{url} -n 20 -c 2 --verify --insecure --report {page} --junit {junit} --summary {summary}"
    );
    let taken = soak_words(&words);
    assert_eq!(taken.code, Some(0), "{taken:?}");
    assert_eq!(taken.at("tls.is_insecure"), true);
    let warning = "--insecure: no server's certificate is checked";
    assert!(taken.stderr.contains(warning), "{taken:?}");
    assert!(taken.stdout.contains("NOT CHECKED"), "{taken:?}");
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        assert!(text.contains("NOT CHECKED"), "{file}: {text}");
    }
    carafe.stop();
}

#[test]
fn an_end_without_a_close_notify_is_a_short_body() {
    let (authority, _root) = given();
    let answer = "HTTP/1.1 200 OK\r\n\r\nwine";
    for (end, class) in [(End::CloseNotify, "complete"), (End::Fin, "short")] {
        let origin = TlsOrigin::saying(&authority, answer, end);
        let (url, address) = (origin.url("/x"), origin.address.to_string());
        let trusted = authority.path();
        // The origin answers what looks like a request.
        for target in [&[&*url][..], &["--tls", &address, "GET x"]] {
            let flags = ["-n", "3", "-c", "1", "--cacert", word(&trusted)];
            let soaked = soak(&[target, &flags].concat());
            assert_eq!(soaked.count(class), 3, "{end:?}: {soaked:?}");
        }
    }
}

#[test]
fn a_handshakes_time_is_a_threshold() {
    let (authority, root) = given();
    let carafe = serve(&authority, &root);
    let url = format!("https://localhost:{}/b -n 50 -c 2 --verify", carafe.port());
    let run = |condition: &str| soak_by(&authority, &format!("{url} --fail-if {condition}"));
    assert_eq!(run("handshake_max>0ms").code, Some(1));
    assert_eq!(run("handshake_max>1h").code, Some(0));
    carafe.stop_clean();
}

#[test]
fn nginx_is_asked_by_both_versions() {
    if !has_tool("nginx") {
        return;
    }
    let (authority, root) = given();
    let against = word(root.path());
    for version in ["TLSv1.2", "TLSv1.3"] {
        let here = format!("root {against}; ssl_protocols {version};");
        let nginx = Nginx::tls(&authority.crt("one"), &authority.key("one"), &here);
        let addr = nginx.addr();
        for kept in ["", "--no-keep-alive"] {
            let urls = format!("https://{addr}/a https://{addr}/b");
            let words = format!("{urls} -n 100 -c 4 --against {against} {kept}");
            let soaked = soak_by(&authority, &words);
            assert_eq!(soaked.code, Some(0), "{version} {kept}: {soaked:?}");
        }
    }
}

#[test]
fn two_servers_may_differ_in_their_scheme() {
    let (authority, root) = given();
    let carafe = serve(&authority, &root);
    let other = Carafe::serve(root.path(), &[]);
    let words = format!(
        "https://localhost:{}/b --versus http://{} -n 40 -c 2 --fail-if errors>0",
        carafe.port(),
        other.addr()
    );
    let soaked = soak_by(&authority, &words);
    assert_eq!(soaked.count("complete"), 40, "{soaked:?}");
    carafe.stop_clean();
    other.stop_clean();
}

#[test]
fn a_kept_client_takes_little_memory() {
    let (authority, root) = given();
    let carafe = serve(&authority, &root);
    let few = format!("https://localhost:{}/b --verify", carafe.port());
    let memory = |clients: u64| {
        let soaked = soak_by(
            &authority,
            &format!("{few} -c {clients} -n {}", 2 * clients),
        );
        assert_eq!(soaked.code, Some(0), "{soaked:?}");
        soaked.number("generator.rss_max_bytes")
    };
    let (little, much) = (memory(10), memory(510));
    let each = much.saturating_sub(little) / 500;
    assert!(each < 48 * 1024, "{each} bytes a client");
    carafe.stop_clean();
}
