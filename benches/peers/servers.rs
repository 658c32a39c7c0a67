//! The servers: how each is started at its best, and ended.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use carafe::descriptors::descriptor_limit;
use rustix::process::{Pid, Signal, kill_process};

use crate::load::Protocol;
use crate::minimal::Mode;
use crate::processes::{self, Cores};
use crate::{MINIMAL, Result};

/// The tutorial's download server: one client after the other.
const TUTORIAL: &str = r#"
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
server.bind(("127.0.0.1", 0))
server.listen(128)
print("listening on 127.0.0.1:%d" % server.getsockname()[1], flush=True)
while True:
    client, address = server.accept()
    name = client.recv(1024).decode("utf-8")
    content = None
    try:
        with open(name, "rb") as f:
            content = f.read()
    except OSError:
        print("no such file: %s" % name)
    if content:
        client.send(content)
    client.close()
"#;

/// How long a server may take to start.
const START: Duration = Duration::from_secs(20);

/// How long it may take to end before it is killed.
const END: Duration = Duration::from_secs(3);

/// Between two looks at what a process does.
const POLL: Duration = Duration::from_millis(5);

/// Tries to find a port that nobody takes between our look and the server's bind.
const PORT_TRIES: usize = 5;

/// What a row asks of a server beyond its files.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Need {
    /// One connection for each small file: accepting is deferred until the request is there.
    Small,
    /// The same for small files on kept connections.
    Kept,
    /// Large files.
    Large,
    /// Files that are not in memory.
    Cold,
    /// Clients that say nothing, for minutes.
    Idle,
    /// Small files on kept connections, of which there may be so many.
    Room(u32),
    /// As many small files as are asked for, kept in memory where a server does that.
    ManyFiles,
    /// Lists of folders.
    Lists,
}

/// What a server writes of its requests while it is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Logs {
    /// Nothing.
    Quiet,
    /// What carafe writes when nobody has told it anything: a line a connection, to stderr.
    Default,
    /// An access log. nginx and lighttpd gather its lines.
    Access,
}

/// A server to compare.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Peer {
    /// This package's program.
    Carafe,
    /// Another build of it, from `--before`.
    Before,
    /// The least loop.
    Minimal(Mode),
    /// nginx, one worker.
    Nginx,
    /// nginx, which sends files by sendfile whatever their length.
    NginxSendfile,
    /// nginx, with a pool of threads for reading files.
    NginxThreads,
    /// lighttpd.
    Lighttpd,
    /// darkhttpd.
    Darkhttpd,
    /// The tutorial's server.
    Tutorial,
}

impl Peer {
    /// Its name in tables.
    pub fn label(self) -> String {
        match self {
            Self::Carafe => "carafe".into(),
            Self::Before => "carafe before".into(),
            Self::Minimal(Mode::Plain) => "C loop, plain".into(),
            Self::Minimal(Mode::Deferred) => "C loop, deferred accept".into(),
            Self::Minimal(Mode::More) => "C loop, deferred accept and MSG_MORE".into(),
            Self::Minimal(Mode::KeepAlive) => "C loop, kept alive".into(),
            Self::Minimal(Mode::SendFile(usize::MAX)) => "C loop, one sendfile".into(),
            Self::Minimal(Mode::SendFile(chunk)) => {
                format!("C loop, sendfile of {} KiB", chunk / 1024)
            }
            Self::Nginx => "nginx".into(),
            Self::NginxSendfile => "nginx, sendfile".into(),
            Self::NginxThreads => "nginx, aio threads".into(),
            Self::Lighttpd => "lighttpd".into(),
            Self::Darkhttpd => "darkhttpd".into(),
            Self::Tutorial => "the tutorial's server".into(),
        }
    }

    /// The program that must be on the machine.
    fn program(self) -> Option<&'static str> {
        match self {
            Self::Nginx | Self::NginxSendfile | Self::NginxThreads => Some("nginx"),
            Self::Lighttpd => Some("lighttpd"),
            Self::Darkhttpd => Some("darkhttpd"),
            Self::Tutorial => Some("python3"),
            Self::Carafe | Self::Before | Self::Minimal(_) => None,
        }
    }

    /// How it is asked for one file a connection.
    pub fn protocol(self) -> Protocol {
        match self {
            Self::Carafe | Self::Before | Self::Minimal(_) => Protocol::Bare,
            Self::Tutorial => Protocol::Unterminated,
            _ => Protocol::Http,
        }
    }
}

/// Where things are.
#[derive(Debug)]
pub struct Place {
    /// The folder that is served.
    pub root: PathBuf,
    /// Configurations and logs.
    pub work: PathBuf,
    /// The program under test.
    pub carafe: PathBuf,
    /// Another build of it.
    pub before: Option<PathBuf>,
    /// Which cores are whose.
    pub cores: Cores,
}

/// A server that runs, until this is dropped.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddrV4,
    /// Who it is.
    pub peer: Peer,
    child: Child,
    /// What it has said.
    log: PathBuf,
}

impl Server {
    /// The process that serves: nginx has a master above it.
    pub fn pid(&self) -> Result<u32> {
        match self.peer {
            Peer::Nginx | Peer::NginxSendfile | Peer::NginxThreads => {
                let workers = processes::children(self.child.id());
                Ok(*workers.first().ok_or("nginx has no worker")?)
            }
            _ => Ok(self.child.id()),
        }
    }

    /// Where its metrics are, if it says so.
    pub fn metrics(&self) -> Result<Option<SocketAddrV4>> {
        let said = fs::read_to_string(&self.log)?;
        let address = said.lines().find_map(|line| line.split_once("metrics on "));
        Ok(address.and_then(|(_, address)| address.trim().parse().ok()))
    }

    /// All its processes.
    pub fn pids(&self) -> Vec<u32> {
        let mut pids = processes::children(self.child.id());
        pids.push(self.child.id());
        pids
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pids = self.pids();
        let signal = |pid: u32, signal| {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                // It may have ended by itself.
                let _ = kill_process(pid, signal);
            }
        };
        signal(self.child.id(), Signal::TERM);
        let deadline = Instant::now() + END;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            // A drain waits for clients that will not come back.
            if self.peer == Peer::Carafe || self.peer == Peer::Before {
                signal(self.child.id(), Signal::TERM);
            }
            sleep(POLL);
        }
        for pid in pids {
            signal(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// Starts a server; `None` where the machine doesn't have it. `file` is what the minimal loop
/// gives.
pub fn start(
    (peer, logs): (Peer, Logs),
    need: Need,
    place: &Place,
    file: &str,
) -> Result<Option<Server>> {
    let mut program = PathBuf::new();
    if let Some(name) = peer.program() {
        match processes::find_program(name) {
            Some(found) => program = found,
            None => return Ok(None),
        }
    }
    if peer == Peer::Before && place.before.is_none() {
        return Ok(None);
    }
    processes::pin(place.cores.server)?;
    let started = match peer {
        Peer::Carafe => carafe(peer, logs, &place.carafe, need, place),
        Peer::Before => {
            let before = place.before.as_deref().unwrap_or(&program);
            carafe(peer, logs, before, need, place)
        }
        Peer::Minimal(mode) => {
            let mut command = Command::new(std::env::current_exe()?);
            command.args([MINIMAL, &mode.to_argument(), file]);
            says_its_port(peer, command, place)
        }
        Peer::Tutorial => {
            let mut command = Command::new(program);
            command.args(["-c", TUTORIAL]);
            says_its_port(peer, command, place)
        }
        Peer::Nginx
        | Peer::NginxSendfile
        | Peer::NginxThreads
        | Peer::Lighttpd
        | Peer::Darkhttpd => takes_a_port((peer, logs), &program, need, place),
    };
    processes::pin(place.cores.load)?;
    let started = started.map_err(|error| format!("{}: {error}", peer.label()));
    Ok(Some(started?))
}

fn carafe(peer: Peer, logs: Logs, program: &Path, need: Need, place: &Place) -> Result<Server> {
    let mut command = Command::new(program);
    command.arg("serve").arg(&place.root);
    command.args(["-p", "0", "-b", "127.0.0.1"]);
    match logs {
        Logs::Default => {}
        Logs::Quiet => _ = command.arg("-q"),
        Logs::Access => {
            let file = place.work.join("carafe.access");
            _ = command.args(["-q", "--access-log"]).arg(file);
        }
    }
    match need {
        Need::Idle => {
            // One descriptor in four is for files by default: here nobody asks for one.
            command.args(["--request-timeout", "600s", "--open-files", "100"]);
            let help = Command::new(program).args(["serve", "--help"]).output()?;
            if String::from_utf8_lossy(&help.stdout).contains("--no-defer-accept") {
                command.arg("--no-defer-accept");
            }
        }
        Need::Room(connections) => {
            command.args(["--max-connections", &connections.to_string()]);
        }
        Need::ManyFiles => _ = command.args(["--cache", "1GiB"]),
        Need::Lists => _ = command.args(["--listing", "--metrics", "127.0.0.1:0"]),
        Need::Small | Need::Kept | Need::Large | Need::Cold => {}
    }
    says_its_port(peer, command, place)
}

/// Starts a program that takes a free port and prints `listening on ADDRESS`.
fn says_its_port(peer: Peer, mut command: Command, place: &Place) -> Result<Server> {
    let log = place.work.join("started.log");
    command.current_dir(&place.root);
    let mut server = spawn(peer, command, 0, &log)?;
    let deadline = Instant::now() + START;
    loop {
        let text = fs::read_to_string(&log)?;
        let mut lines = text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        let address =
            lines.find_map(|line| line.split_once("listening on ")?.1.trim().parse().ok());
        if let Some(address) = address {
            server.address = address;
            return Ok(server);
        }
        if Instant::now() > deadline || server.child.try_wait()?.is_some() {
            return Err(format!("did not start: {text}").into());
        }
        sleep(POLL);
    }
}

/// Starts a program that must be told its port.
fn takes_a_port(
    (peer, logs): (Peer, Logs),
    program: &Path,
    need: Need,
    place: &Place,
) -> Result<Server> {
    let mut said = String::new();
    for _ in 0..PORT_TRIES {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let command = match peer {
            Peer::Lighttpd => lighttpd(program, port, (need, logs), place)?,
            Peer::Darkhttpd => darkhttpd(program, port, place),
            _ => nginx(program, peer, port, (need, logs), place)?,
        };
        let log = place.work.join("started.log");
        let mut server = spawn(peer, command, port, &log)?;
        let deadline = Instant::now() + START;
        while Instant::now() < deadline && server.child.try_wait()?.is_none() {
            if TcpStream::connect(server.address).is_ok() {
                return Ok(server);
            }
            sleep(POLL);
        }
        said = fs::read_to_string(&log)?;
    }
    Err(format!("did not start: {said}").into())
}

/// Starts a program that says what it has to say in this file.
fn spawn(peer: Peer, mut command: Command, port: u16, log: &Path) -> Result<Server> {
    let output = File::create(log)?;
    let child = command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()?;
    Ok(Server {
        address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, port),
        peer,
        child,
        log: log.to_owned(),
    })
}

fn nginx(
    program: &Path,
    peer: Peer,
    port: u16,
    (need, logs): (Need, Logs),
    place: &Place,
) -> Result<Command> {
    let work = place.work.display();
    let mut text = String::new();
    if rustix::process::geteuid().is_root() {
        text.push_str("user root;\n");
    }
    let deferred = match need {
        Need::Small => "deferred",
        _ => "",
    };
    // Header and small body leave in one writev when the body is read; sendfile takes two calls
    // and a cork around them.
    let sendfile = match need {
        _ if peer == Peer::NginxSendfile => "on",
        Need::Small | Need::Kept | Need::Room(_) | Need::ManyFiles => "off",
        Need::Large | Need::Cold | Need::Idle | Need::Lists => "on",
    };
    let access_log = match logs {
        Logs::Access => format!("{work}/nginx.access combined buffer=64k flush=1s"),
        Logs::Quiet | Logs::Default => "off".into(),
    };
    let autoindex = if need == Need::Lists { "on" } else { "off" };
    let aio = match peer {
        Peer::NginxThreads => "aio threads;",
        _ => "",
    };
    write!(
        text,
        "daemon off;
worker_processes 1;
pid {work}/nginx.pid;
error_log {work}/nginx.log error;
events {{ use epoll; worker_connections 19000; multi_accept on; }}
http {{
    access_log {access_log};
    autoindex {autoindex};
    sendfile {sendfile};
    tcp_nopush on;
    open_file_cache max=10000 inactive=60s;
    open_file_cache_valid 60s;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    client_header_timeout 600s;
    default_type application/octet-stream;
    client_body_temp_path {work}/body;
    proxy_temp_path {work}/proxy;
    fastcgi_temp_path {work}/fastcgi;
    uwsgi_temp_path {work}/uwsgi;
    scgi_temp_path {work}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096 {deferred};
        root {root};
        {aio}
    }}
}}
",
        root = place.root.display()
    )?;
    let file = place.work.join("nginx.conf");
    fs::write(&file, text)?;
    let mut command = Command::new(program);
    command.arg("-p").arg(&place.work).arg("-c").arg(file);
    command.arg("-e").arg(place.work.join("nginx.log"));
    Ok(command)
}

fn lighttpd(
    program: &Path,
    port: u16,
    (need, logs): (Need, Logs),
    place: &Place,
) -> Result<Command> {
    let descriptors = descriptor_limit().unwrap_or(40_000).min(40_000);
    let lists = match need {
        Need::Lists => "\"mod_dirlisting\", ",
        _ => "",
    };
    let mut text = format!(
        "server.document-root = \"{root}\"
server.bind = \"127.0.0.1\"
server.port = {port}
server.compat-module-load = \"disable\"
server.modules = ( {lists}\"mod_staticfile\" )
server.event-handler = \"linux-sysepoll\"
server.network-backend = \"sendfile\"
server.max-keep-alive-requests = 1000000000
server.max-keep-alive-idle = 600
server.max-read-idle = 600
server.max-fds = {descriptors}
server.max-connections = 19000
server.listen-backlog = 4096
server.errorlog = \"{work}/lighttpd.log\"
mimetype.assign = ( \"\" => \"application/octet-stream\" )
dir-listing.activate = \"enable\"
",
        root = place.root.display(),
        work = place.work.display()
    );
    if need == Need::Small {
        text.push_str("server.defer-accept = 1\n");
    }
    if logs == Logs::Access {
        writeln!(
            text,
            "server.modules += ( \"mod_accesslog\" )\naccesslog.filename = \"{}/lighttpd.access\"",
            place.work.display()
        )?;
    }
    let file = place.work.join("lighttpd.conf");
    fs::write(&file, text)?;
    let mut command = Command::new(program);
    command.arg("-D").arg("-f").arg(file);
    Ok(command)
}

fn darkhttpd(program: &Path, port: u16, place: &Place) -> Command {
    let mut command = Command::new(program);
    command.arg(&place.root).args(["--addr", "127.0.0.1"]);
    command.args(["--port", &port.to_string(), "--maxconn", "19000"]);
    command.args(["--no-server-id", "--log", "/dev/null"]);
    command
}
