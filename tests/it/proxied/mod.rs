//! Proxies in front of carafe: nginx, which puts a path before its own, and HAProxy.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::common::{Carafe, until};
use tempfile::TempDir;

/// nginx, which ends with it.
pub(crate) struct Nginx {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Nginx {
    /// With carafe's root behind `/files/`.
    pub(crate) fn before(carafe: &Carafe) -> Self {
        Self::with("", &files(carafe, ""))
    }

    /// As [`Self::before`], and keeps what it may, as answers tell.
    pub(crate) fn caching(carafe: &Carafe) -> Self {
        let here = "proxy_cache kept; proxy_cache_key $uri; proxy_http_version 1.1;
            proxy_set_header Connection ''; add_header X-Cache $upstream_cache_status;";
        Self::with(
            "proxy_cache_path cache keys_zone=kept:1m;",
            &files(carafe, here),
        )
    }

    /// `above` stands above its server, `here` in it.
    pub(crate) fn with(above: &str, here: &str) -> Self {
        // The port was free a moment ago. Where somebody has taken it nginx ends.
        let mut tries = (0..10).filter_map(|_| Self::start(above, here));
        tries.next().expect("a port is free")
    }

    fn start(above: &str, here: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|of| format!("{of}_temp_path {of};"))
            .concat();
        let configuration = format!(
            "daemon off; master_process off; pid pid; error_log error;
            events {{ }}
            http {{
                access_log access; {temporary} {above}
                server {{
                    listen {address};
                    {here}
                }}
            }}"
        );
        fs::write(folder.path().join("conf"), configuration).unwrap();
        let child = Command::new("nginx")
            .args(["-c", "conf", "-e", "error", "-p"])
            .arg(folder.path())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut nginx = Self {
            child,
            address,
            folder,
        };
        let mut is_up = false;
        until("nginx is up, or has ended", || {
            // It writes its number when it listens.
            let pid = fs::read_to_string(nginx.folder.path().join("pid"));
            is_up = pid.is_ok_and(|pid| pid.ends_with('\n')) && TcpStream::connect(address).is_ok();
            is_up || nginx.child.try_wait().unwrap().is_some()
        });
        is_up.then_some(nginx)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn access_log(&self) -> PathBuf {
        self.folder.path().join("access")
    }
}

/// carafe's root behind `/files/`, with more said of that.
fn files(carafe: &Carafe, more: &str) -> String {
    let address = carafe.addr();
    format!("location /files/ {{ proxy_pass http://{address}/; {more} }}")
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// HAProxy, which ends with it. It listens on a unix socket: nobody else takes that.
pub(crate) struct Haproxy {
    child: Child,
    socket: PathBuf,
    _folder: TempDir,
}

impl Haproxy {
    /// In front of a server at this address, of which `more` is said, in the mode `http` or `tcp`.
    pub(crate) fn before(server: &str, more: &str, mode: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("haproxy");
        let configuration = format!(
            "defaults\n mode {mode}\n timeout client 60s\n timeout server 60s\n timeout connect 60s\n\
            frontend f\n bind unix@{}\n default_backend b\n\
            backend b\n server s {server} {more}\n",
            socket.display(),
        );
        let path = folder.path().join("conf");
        fs::write(&path, configuration).unwrap();
        let mut command = Command::new("haproxy");
        command.args(["-db", "-f"]).arg(&path);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let haproxy = Self {
            child,
            socket,
            _folder: folder,
        };
        until("it listens", || {
            UnixStream::connect(&haproxy.socket).is_ok()
        });
        haproxy
    }

    pub(crate) fn path(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
