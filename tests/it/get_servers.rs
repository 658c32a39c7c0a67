//! `carafe get` from servers that people have: whole, continued, with the server's time, and an error
//! where there is nothing. What isn't installed is skipped aloud.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::common::{Carafe, assert_same, has_tool, pattern, until};
use crate::origin::{get, listing};
use crate::proxied::Nginx;
use tempfile::{TempDir, tempdir};

const BIG_BYTES: usize = 3_000_000;

/// A file that was modified in the year 2001, as a folder of a server.
fn root() -> TempDir {
    let root = tempdir().unwrap();
    let path = root.path().join("big");
    fs::write(&path, pattern(7, BIG_BYTES)).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(long_ago()).unwrap();
    root
}

fn long_ago() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)
}

/// Whole; nothing; and into a pipe that is closed. `base` ends with a slash.
fn check(base: &str, modified: Option<SystemTime>) {
    let folder = tempdir().unwrap();
    let url = format!("{base}big");
    get(folder.path(), &[&url]).is(0, "");
    let file = folder.path().join("big");
    assert_same("big", &fs::read(&file).unwrap(), &pattern(7, BIG_BYTES));
    if let Some(modified) = modified {
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), modified);
    }
    let outcome = get(folder.path(), &[&format!("{base}none")]);
    assert_eq!(outcome.code, Some(8), "{outcome:?}");
    assert!(outcome.stderr.contains("the server says 404 Not Found"));
    assert_eq!(listing(folder.path()), ["big"]);
    fs::remove_file(&file).unwrap();
}

/// Killed in the middle, and continued by the next one.
fn check_continued(base: &str) {
    let folder = tempdir().unwrap();
    let url = format!("{base}big");
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "trap '' XFSZ; ulimit -f 2000; exec \"$@\"", "sh"])
        .args([env!("CARGO_BIN_EXE_carafe"), "get", &url])
        .current_dir(folder.path());
    assert_eq!(crate::fake::run(&mut limited, b"").code, Some(3));
    let part = fs::metadata(folder.path().join("big.part")).unwrap().len();
    assert!((1..BIG_BYTES as u64).contains(&part));
    let outcome = get(folder.path(), &["-v", &url]);
    let told = format!(" {part} of them from an earlier download, in ");
    assert!(outcome.stderr.contains(&told), "{outcome:?}");
    let file = fs::read(folder.path().join("big")).unwrap();
    assert_same("big", &file, &pattern(7, BIG_BYTES));
}

/// A server on a port that its first line of output names; it ends with it.
pub(crate) struct Python(Child, u16);

impl Python {
    pub(crate) fn serve(root: &Path) -> Self {
        let mut child = Command::new("python3")
            .args(["-u", "-m", "http.server", "--bind", "127.0.0.1", "0"])
            .current_dir(root)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let words: Vec<_> = line.split(' ').collect();
        let at = words.iter().position(|word| *word == "port").unwrap();
        Self(child, words[at + 1].parse().unwrap())
    }

    /// Of its first folder, with a slash at the end.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.1)
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn pythons_server_speaks_http_1_0() {
    if !has_tool("python3") {
        return;
    }
    let root = root();
    let python = Python::serve(root.path());
    check(&python.url(), Some(long_ago()));
}

#[test]
fn carafe_and_nginx_before_it() {
    let root = root();
    let carafe = Carafe::serve(root.path(), &[]);
    let base = format!("http://{}/", carafe.addr());
    // A file that was just written has no tag yet.
    until("it can be continued", || {
        let mut stream = TcpStream::connect(carafe.addr()).unwrap();
        stream
            .write_all(b"HEAD /big HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut head = String::new();
        stream.read_to_string(&mut head).unwrap();
        head.contains("\r\nETag: \"")
    });
    // It gives no time to a file that has just changed.
    check(&base, None);
    check_continued(&base);
    if has_tool("nginx") {
        let nginx = Nginx::before(&carafe);
        let base = format!("http://{}/files/", nginx.addr());
        check(&base, None);
        check_continued(&base);
    }
    carafe.stop();
}
