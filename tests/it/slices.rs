//! A cache of slices in front of the server: a real nginx, which asks for a file's parts one by one and
//! joins them only as long as the entity tag stays.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::common::{Carafe, assert_same, has_tool, pattern, shell, until};
use tempfile::TempDir;

/// Three slices and a half.
const LENGTH: usize = 3_500_000;

/// An nginx that listens on a socket in a folder of its own.
struct Nginx {
    process: Child,
    folder: TempDir,
}

impl Nginx {
    fn before(origin: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {};\n", at(kind)));
        let configuration = format!(
            "daemon off; master_process off; pid {}; error_log {} info;\n\
             events {{}}\n\
             http {{ access_log off; {}\
             proxy_cache_path {} keys_zone=slices:1m;\n\
             server {{ listen unix:{}; location / {{\n\
             slice 1m; proxy_cache slices; proxy_cache_key $uri$slice_range;\n\
             proxy_set_header Range $slice_range; proxy_http_version 1.1;\n\
             proxy_cache_valid 200 206 1h; proxy_pass http://{origin}; }} }} }}\n",
            at("pid"),
            at("log"),
            temporary.concat(),
            at("cache"),
            at("socket"),
        );
        fs::write(folder.path().join("conf"), configuration).unwrap();
        let process = Command::new("nginx")
            .arg("-c")
            .arg(folder.path().join("conf"))
            .arg("-e")
            .arg(folder.path().join("log"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let nginx = Self { process, folder };
        until("nginx listens", || {
            UnixStream::connect(nginx.socket()).is_ok()
        });
        nginx
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// What curl gets, which must be all that was announced.
    fn curl(&self, flags: &str, path: &str) -> Vec<u8> {
        let script = format!("curl -sSf {flags} --unix-socket \"$1\" \"http://h/$2\"");
        shell(&script, &[self.socket().as_os_str(), OsStr::new(path)])
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// What an answer says of a file's validators.
fn validators(addr: SocketAddr, path: &str) -> (Option<String>, Option<String>) {
    let url = format!("http://{addr}/{path}");
    let head = shell("curl -sSfI \"$1\"", &[OsStr::new(&url)]);
    let head = String::from_utf8(head).unwrap();
    let field = |name: &str| {
        let mut lines = head.lines();
        lines.find_map(|line| line.strip_prefix(name).map(str::to_owned))
    };
    (field("ETag: "), field("Last-Modified: "))
}

#[test]
fn a_file_that_was_asked_for_when_it_was_new_is_joined_from_slices_later() {
    if !has_tool("nginx") || !has_tool("curl") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let carafe = Carafe::serve(root.path(), &[]);
    let nginx = Nginx::before(carafe.addr());
    for name in ["one", "two", "three"] {
        let bytes = pattern(name.len() as u64, LENGTH);
        fs::write(root.path().join(name), &bytes).unwrap();
        // The first slice is asked for at once, or when the file has a tag, and another one when it has
        // the date, too.
        let (mut tag, mut date) = validators(carafe.addr(), name);
        if name == "two" {
            until("it has a tag", || {
                (tag, date) = validators(carafe.addr(), name);
                tag.is_some()
            });
        }
        assert_same(name, &nginx.curl("-r 0-10", name), &bytes[..11]);
        assert_same(
            name,
            &nginx.curl("-r 1100000-1100009", name),
            &bytes[1_100_000..][..10],
        );
        until("it has all validators", || {
            let (now, later) = (validators(carafe.addr(), name), tag.clone());
            assert!(later.is_none() || now.0 == later, "a tag stays");
            (tag, date) = now;
            date.is_some()
        });
        assert_same(name, &nginx.curl("", name), &bytes);
        assert_same(name, &nginx.curl("", name), &bytes);
    }
    let log = nginx.log();
    assert!(!log.contains("mismatch"), "{log}");
    drop(nginx);
    carafe.stop_clean();
}
