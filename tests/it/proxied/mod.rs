//! Servers of others: nginx, in front of carafe with a path before its own or by itself, HAProxy, and those
//! that list folders.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::common::{Carafe, reserved_port, until};
use socket2::Socket;
use tempfile::TempDir;

/// Where Debian has nginx's module for what isn't HTTP.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// A server that writes its number to `pid` when it listens, and ends with it.
struct Daemon {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Daemon {
    /// Starts it with this configuration, which lies in `conf`, in its folder.
    fn on_a_port(
        command: impl Fn(&Path) -> Command,
        configuration: impl Fn(&Path, SocketAddr) -> String,
    ) -> Self {
        // The port was free a moment ago. Where somebody has taken it the server ends.
        let mut tries = (0..10).filter_map(|_| Self::start(&command, &configuration));
        tries.next().expect("a port is free")
    }

    fn start(
        command: impl Fn(&Path) -> Command,
        configuration: impl Fn(&Path, SocketAddr) -> String,
    ) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let configuration = configuration(folder.path(), address);
        fs::write(folder.path().join("conf"), configuration).unwrap();
        let mut command = command(folder.path());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut daemon = Self {
            child: child.unwrap(),
            address,
            folder,
        };
        let mut is_up = false;
        until("the server is up, or has ended", || {
            let pid = fs::read_to_string(daemon.folder.path().join("pid"));
            is_up = pid.is_ok_and(|pid| pid.ends_with('\n')) && TcpStream::connect(address).is_ok();
            is_up || daemon.child.try_wait().unwrap().is_some()
        });
        is_up.then_some(daemon)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// nginx, which ends with it.
pub(crate) struct Nginx(Daemon);

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
        Self::http(above, "", here)
    }

    /// It serves by TLS with this pair.
    pub(crate) fn tls(certificate: &Path, key: &Path, here: &str) -> Self {
        let (certificate, key) = (certificate.display(), key.display());
        let here = format!("ssl_certificate {certificate}; ssl_certificate_key {key}; {here}");
        Self::http("", " ssl", &here)
    }

    fn http(above: &str, mode: &str, here: &str) -> Self {
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|of| format!("{of}_temp_path {of};"))
            .concat();
        Self::on_a_port("", |address| {
            format!(
                "http {{
                    access_log access; {temporary} {above}
                    server {{ listen {address}{mode}; {here} }}
                }}"
            )
        })
    }

    /// Whether it can forward what isn't HTTP.
    pub(crate) fn can_stream() -> bool {
        Path::new(STREAM_MODULE).exists()
    }

    /// `here` stands in a server that forwards anything.
    pub(crate) fn streaming(here: &str) -> Self {
        Self::on_a_port(&format!("load_module {STREAM_MODULE};"), |address| {
            format!("stream {{ server {{ listen {address}; {here} }} }}")
        })
    }

    fn on_a_port(above: &str, servers: impl Fn(SocketAddr) -> String) -> Self {
        let command = |folder: &Path| {
            let mut command = Command::new("nginx");
            command
                .args(["-c", "conf", "-e", "error", "-p"])
                .arg(folder);
            command
        };
        Self(Daemon::on_a_port(command, |_, address| {
            format!(
                "{above} daemon off; master_process off; pid pid; error_log error; events {{ }} {}",
                servers(address)
            )
        }))
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.0.address
    }

    pub(crate) fn access_log(&self) -> PathBuf {
        self.0.folder.path().join("access")
    }
}

/// carafe's root behind `/files/`, with more said of that.
fn files(carafe: &Carafe, more: &str) -> String {
    let address = carafe.addr();
    format!("location /files/ {{ proxy_pass http://{address}/; {more} }}")
}

/// A server that lists folders; it ends with it.
pub(crate) struct Lister(Daemon);

impl Lister {
    /// lighttpd, with `mod_dirlisting`.
    pub(crate) fn lighttpd(root: &Path) -> Self {
        let command = |folder: &Path| {
            let mut command = Command::new("lighttpd");
            command.arg("-D").arg("-f").arg(folder.join("conf"));
            command
        };
        Self(Daemon::on_a_port(command, |folder, address| {
            let (ip, port) = (address.ip(), address.port());
            let (root, folder) = (root.display(), folder.display());
            format!(
                "server.modules = ( \"mod_dirlisting\" )
                server.document-root = \"{root}\"
                server.bind = \"{ip}\"
                server.port = {port}
                server.pid-file = \"{folder}/pid\"
                server.errorlog = \"{folder}/error\"
                server.stat-cache-engine = \"disable\"
                dir-listing.activate = \"enable\"
                mimetype.assign = ( \"\" => \"application/octet-stream\" )\n"
            )
        }))
    }

    /// Apache, with `mod_autoindex`, whose columns are links that sort.
    pub(crate) fn apache(root: &Path) -> Self {
        let command = |folder: &Path| {
            let mut command = Command::new("apache2");
            command.arg("-X").arg("-f").arg(folder.join("conf"));
            command
        };
        Self(Daemon::on_a_port(command, |folder, address| {
            let (root, folder) = (root.display(), folder.display());
            let modules = ["mpm_event", "authz_core", "dir", "autoindex"]
                .map(|name| {
                    format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n")
                })
                .concat();
            format!(
                "ServerRoot {folder}\nDefaultRuntimeDir {folder}\nPidFile {folder}/pid\n\
                ErrorLog {folder}/error\nServerName localhost\nListen {address}\n{modules}\
                DocumentRoot {root}\n<Directory {root}>\nRequire all granted\n\
                Options Indexes FollowSymLinks\nIndexOptions FancyIndexing HTMLTable NameWidth=*\n\
                </Directory>\n"
            )
        }))
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.0.address
    }
}

/// Varnish in front of carafe, which ends with it.
pub(crate) struct Varnish(Daemon);

impl Varnish {
    /// What is said in `vcl_recv` is up to the test.
    pub(crate) fn before(carafe: &Carafe, receive: &str) -> Self {
        let (ip, port) = (carafe.addr().ip(), carafe.port());
        let command = |folder: &Path| {
            // It writes its number without the end of a line.
            let script = "echo $$ > pid; exec varnishd -F -j none -n \"$PWD/n\" -f \"$PWD/conf\" \
                -s malloc,64m -a \"$(cat address)\"";
            let mut command = Command::new("sh");
            command.args(["-c", script]).current_dir(folder);
            command
        };
        Self(Daemon::on_a_port(command, |folder, address| {
            fs::write(folder.join("address"), address.to_string()).unwrap();
            format!(
                "vcl 4.1; backend default {{ .host = \"{ip}\"; .port = \"{port}\"; }}
                sub vcl_recv {{ {receive} }}\n"
            )
        }))
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.0.address
    }
}

/// HAProxy, which ends with it.
pub(crate) struct Haproxy {
    child: Child,
    place: HaproxyPlace,
    folder: TempDir,
}

/// A configuration with one server.
fn one_server(bind: &str, server: &str, more: &str, mode: &str) -> String {
    format!(
        "defaults\n mode {mode}\n timeout client 60s\n timeout server 60s\n timeout connect 60s\n\
        frontend f\n bind {bind}\n default_backend b\n\
        backend b\n server s {server} {more}\n",
    )
}

/// Where it listens.
enum HaproxyPlace {
    /// A unix socket, which nobody else takes.
    Path(PathBuf),
    /// A port, and what keeps it from others.
    Port(
        SocketAddr,
        #[expect(dead_code, reason = "it only lives")] Socket,
    ),
}

impl Haproxy {
    /// In front of a server at this address, of which `more` is said, in the mode `http` or `tcp`; on a unix
    /// socket.
    pub(crate) fn before(server: &str, more: &str, mode: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("haproxy");
        let configuration = one_server(&format!("unix@{}", path.display()), server, more, mode);
        let haproxy = Self::start(folder, HaproxyPlace::Path(path), &configuration);
        until("it listens", || UnixStream::connect(haproxy.path()).is_ok());
        haproxy
    }

    /// As [`Self::before`], on a port of 127.0.0.1.
    pub(crate) fn on_a_port(server: &str, more: &str, mode: &str) -> Self {
        Self::configured(|address, _| one_server(&address.to_string(), server, more, mode))
    }

    /// With what `configuration` makes of an address to listen on and of a folder to write to.
    pub(crate) fn configured(configuration: impl FnOnce(SocketAddr, &Path) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (reserved, port) = reserved_port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let configuration = configuration(address, folder.path());
        let place = HaproxyPlace::Port(address, reserved);
        let haproxy = Self::start(folder, place, &configuration);
        until("it listens", || TcpStream::connect(address).is_ok());
        haproxy
    }

    fn start(folder: TempDir, place: HaproxyPlace, configuration: &str) -> Self {
        let path = folder.path().join("conf");
        fs::write(&path, configuration).unwrap();
        let mut command = Command::new("haproxy");
        command.args(["-db", "-f"]).arg(&path);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self {
            child: command.spawn().unwrap(),
            place,
            folder,
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn path(&self) -> &Path {
        match &self.place {
            HaproxyPlace::Path(path) => path,
            HaproxyPlace::Port(..) => panic!("it is on a port"),
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        match &self.place {
            HaproxyPlace::Port(address, _) => *address,
            HaproxyPlace::Path(_) => panic!("it is on a unix socket"),
        }
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
