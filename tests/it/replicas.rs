//! Replicas: the same files on several servers, with inodes and times of their own. `--etag content` has them
//! speak of a file with one tag.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};
use tempfile::{TempDir, tempdir};

use crate::common::{
    Carafe, LARGE_BYTES, assert_same, pattern, reserved_port, root_with, skip, until,
};
use crate::fake::{carafe, run};
use crate::gated::{Asked, Gated, NAME};
use crate::talk::{Answer, Talk, get};

const CONTENT: [&str; 2] = ["--etag", "content"];

fn root() -> TempDir {
    let root = root_with(&[("large", pattern(5, LARGE_BYTES)), ("small", vec![7; 100])]);
    // Stamps that are older than any clock's tick.
    until("the file can be told from later ones", || {
        let changed = root.path().join("large").metadata().unwrap().ctime();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.unwrap() > Duration::from_secs(changed as u64 + 2)
    });
    root
}

/// The same files elsewhere, written at another time.
fn copy(root: &TempDir) -> TempDir {
    let copy = tempdir().unwrap();
    for entry in fs::read_dir(root).unwrap() {
        let entry = entry.unwrap();
        let to = copy.path().join(entry.file_name());
        fs::copy(entry.path(), &to).unwrap();
        let times = File::options().write(true).open(&to).unwrap();
        times
            .set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1))
            .unwrap();
    }
    copy
}

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn head(address: SocketAddr, path: &str, fields: &str) -> Answer {
    let mut talk = Talk::to(address);
    talk.say(format!("HEAD {path} HTTP/1.1\r\nHost: h\r\n{fields}\r\n"));
    talk.head()
}

/// A file's tag, when a thread has found it out.
fn tag(address: SocketAddr, path: &str, fields: &str) -> String {
    let mut tag = None;
    until("it has a tag", || {
        let answer = head(address, path, fields);
        assert_eq!(answer.status, 200);
        tag = answer.field("etag").map(str::to_owned);
        tag.is_some()
    });
    tag.unwrap()
}

#[test]
fn the_same_bytes_have_the_same_tag_everywhere() {
    let first = root();
    let second = copy(&first);
    let servers = [&first, &second].map(|root| Carafe::serve(root.path(), &CONTENT));
    for name in ["large", "small"] {
        let bytes = fs::read(first.path().join(name)).unwrap();
        let expected = format!("\"{}\"", sha256(&bytes));
        for server in &servers {
            let path = format!("/{name}");
            assert_eq!(tag(server.addr(), &path, ""), expected);
            let fields = format!("If-None-Match: {expected}\r\n");
            // Often enough for the cache.
            for _ in 0..5 {
                assert_eq!(head(server.addr(), &path, &fields).status, 304);
                assert_eq!(tag(server.addr(), &path, ""), expected);
            }
        }
    }
    for server in servers {
        server.stop_clean();
    }
    // Without the flag they have tags of their own.
    let servers = [&first, &second].map(|root| Carafe::serve(root.path(), &[]));
    let tags = servers.each_ref().map(|server| {
        let answer = head(server.addr(), "/small", "");
        answer.field("etag").expect("it is old enough").to_owned()
    });
    assert_ne!(tags[0], tags[1]);
}

#[test]
fn a_download_that_breaks_off_goes_on_at_another_replica() {
    let first = root();
    let second = copy(&first);
    let (_reserved, port) = reserved_port();
    let port = port.to_string();
    let serve = |root: &TempDir, flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_carafe"));
        command.arg("serve").arg(root.path());
        command.args(["-b", "127.0.0.1", "-p", &port]).args(flags);
        Carafe::start(command)
    };
    let url = format!("http://127.0.0.1:{port}/large");
    // The other way round, without it all is sent again.
    for flags in [&CONTENT[..], &[]] {
        let slowly = [flags, &["--limit-rate", "8MiB"]].concat();
        let (server, downloads) = (serve(&first, &slowly), tempdir().unwrap());
        has_tag(server.addr());
        let mut download = carafe(downloads.path());
        download.args(["get", "-q", "--retries", "0", &url]);
        let mut download = download.stderr(Stdio::null()).spawn().unwrap();
        let part = downloads.path().join("large.part");
        until("some of it is there", || {
            part.metadata().is_ok_and(|part| part.len() > 1 << 20)
        });
        drop(server);
        assert_eq!(download.wait().unwrap().code(), Some(4));
        let had = part.metadata().unwrap().len();
        let server = serve(&second, flags);
        has_tag(server.addr());
        let outcome = run(carafe(downloads.path()).args(["get", &url]), b"");
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        let bytes = fs::read(downloads.path().join("large")).unwrap();
        assert_same("large", &bytes, &pattern(5, LARGE_BYTES));
        let log = server.stop();
        let (before, _) = log.rsplit_once(" bytes sent").unwrap();
        let (_, sent) = before.rsplit_once(' ').unwrap();
        let is_rest = sent.parse::<u64>().unwrap() < LARGE_BYTES as u64;
        assert_eq!(is_rest, !flags.is_empty(), "{had} were there: {log}");
    }
}

/// The large file has one.
fn has_tag(address: SocketAddr) {
    until("it has a tag", || {
        head(address, "/large", "").field("etag").is_some()
    });
}

#[test]
fn a_part_is_of_the_bytes_that_the_tag_names() {
    let root = root();
    let server = Carafe::serve(root.path(), &CONTENT);
    let tag = tag(server.addr(), "/small", "");
    for (if_range, status) in [(&*tag, 206), ("\"another\"", 200)] {
        let fields = format!("Range: bytes=90-\r\nIf-Range: {if_range}\r\n");
        let answer = Talk::to(server.addr()).ask(&get("/small", &fields));
        assert_eq!(answer.status, status);
        assert_eq!(answer.body, vec![7; if status == 206 { 10 } else { 100 }]);
    }
    server.stop_clean();
}

#[test]
fn other_bytes_never_have_the_tag_of_those_before() {
    let root = root();
    let server = Carafe::serve(root.path(), &CONTENT);
    let path = root.path().join("small");
    let modified = path.metadata().unwrap().modified().unwrap();
    let mut before = tag(server.addr(), "/small", "");
    for round in 0..5 {
        // In place, of the same length, with the same time: by a tool that sets it.
        fs::write(&path, [round; 100]).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(modified).unwrap();
        let expected = format!("\"{}\"", sha256(&[round; 100]));
        until("it has the new one", || {
            let answer = Talk::to(server.addr()).ask(&get("/small", ""));
            assert_eq!(answer.body, [round; 100]);
            assert_ne!(answer.field("etag"), Some(&*before));
            answer.field("etag") == Some(&*expected)
        });
        before = expected;
    }
    server.stop_clean();
}

#[test]
fn a_coded_form_has_a_tag_of_its_own() {
    let root = root_with(&[("page", "the same"), ("page.gz", "the same")]);
    let flags = [&CONTENT[..], &["--precompressed"]].concat();
    let server = Carafe::serve(root.path(), &flags);
    let digest = sha256(b"the same");
    assert_eq!(tag(server.addr(), "/page", ""), format!("\"{digest}\""));
    let coded = "Accept-Encoding: gzip\r\n";
    let coded = tag(server.addr(), "/page", coded);
    assert_eq!(coded, format!("\"{digest}.gz\""));
    server.stop_clean();
}

#[test]
fn nobody_waits_for_a_tag() {
    let root = root();
    let (slow, content) = (root.path().join("slow"), pattern(6, 1 << 20));
    fs::create_dir(&slow).unwrap();
    let gated = match Gated::mount(&slow, content.clone()) {
        Ok(gated) => gated,
        Err(error) => return skip("fuse", &error.to_string()),
    };
    let server = Carafe::serve(root.path(), &CONTENT);
    gated.gates.shut(Asked::Read);
    let path = format!("/slow/{NAME}");
    let answer = head(server.addr(), &path, "");
    assert_eq!((answer.status, answer.field("etag")), (200, None));
    gated.gates.wait_for(Asked::Read);
    // Nor for that thread. (The same file's next open waits for its read, in the kernel: FUSE has it so.)
    let bytes = fs::read(root.path().join("large")).unwrap();
    let expected = format!("\"{}\"", sha256(&bytes));
    assert_eq!(tag(server.addr(), "/large", ""), expected);
    gated.gates.open(Asked::Read);
    let expected = format!("\"{}\"", sha256(&content));
    assert_eq!(tag(server.addr(), &path, ""), expected);
    server.stop_clean();
}
