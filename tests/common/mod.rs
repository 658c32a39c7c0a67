//! What the tests of the real binary share: a server that is killed with its test, a client that
//! speaks by the byte, and waiting for facts instead of for time.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a fact may take to come true before the test fails. Never decides a test that passes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The real binary, serving. Killed on drop.
pub struct Carafe {
    child: Child,
    addresses: Vec<SocketAddr>,
    stderr: Arc<Lines>,
}

/// Lines of a stream as they come.
#[derive(Default)]
struct Lines {
    text: Mutex<(String, bool)>,
    changed: Condvar,
}

impl Carafe {
    /// Serves `root` on a free port of 127.0.0.1.
    pub fn serve(root: &Path, flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_carafe"));
        command
            .arg("serve")
            .arg(root)
            .args(["-p", "0", "--bind", "127.0.0.1"])
            .args(flags);
        Self::start(command)
    }

    /// As [`Carafe::serve`], with a descriptor limit of its own.
    pub fn serve_limited(root: &Path, descriptors: u32, flags: &[&str]) -> Self {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            &format!("ulimit -n {descriptors}; exec \"$0\" \"$@\""),
        ]);
        command
            .arg(env!("CARGO_BIN_EXE_carafe"))
            .arg("serve")
            .arg(root);
        command.args(["-p", "0", "--bind", "127.0.0.1"]).args(flags);
        Self::start(command)
    }

    /// Starts a command that becomes carafe, and waits until it listens.
    pub fn start(mut command: Command) -> Self {
        command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .env_remove("RUST_LOG");
        let mut child = command.spawn().expect("carafe starts");
        let stderr = Lines::follow(child.stderr.take().expect("piped"));
        let text = stderr.wait(|text| listening(text).next().is_some());
        // The addresses are announced in one go.
        let addresses = listening(&text).collect();
        Self {
            child,
            addresses,
            stderr,
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addresses[0]
    }

    pub fn port(&self) -> String {
        self.addr().port().to_string()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Standard output, if the command piped it.
    pub fn stdout(&mut self) -> std::process::ChildStdout {
        self.child.stdout.take().expect("stdout is piped")
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a pid");
        kill_process(pid, signal).expect("the server is there");
    }

    /// Waits until stderr holds this text.
    pub fn wait_for_log(&self, needle: &str) -> String {
        self.stderr.wait(|text| text.contains(needle))
    }

    /// All of stderr so far.
    pub fn log(&self) -> String {
        self.stderr.text.lock().unwrap().0.clone()
    }

    /// Waits for the end, and gives the exit status and all of stderr.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                let text = self.stderr.wait_for_end();
                return (status, text);
            }
            assert!(
                Instant::now() < end,
                "still running; its log:\n{}",
                self.log()
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// SIGTERM; it must end well, with no connection open. Gives stderr.
    pub fn stop(self) -> String {
        self.signal(Signal::TERM);
        let (status, text) = self.wait();
        assert_eq!(status.code(), Some(0), "{text}");
        assert_conserved(&text);
        text
    }

    /// As [`Carafe::stop`]; and nothing at warn or above was logged.
    pub fn stop_clean(self) {
        let text = self.stop();
        assert!(
            !text.contains(" WARN ") && !text.contains(" ERROR "),
            "{text}"
        );
    }

    /// Open descriptors of the server.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("procfs")
            .count()
    }

    /// Memory held, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("procfs");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .expect("VmRSS");
        let kib: u64 = line
            .split_whitespace()
            .nth(1)
            .expect("a number")
            .parse()
            .expect("kB");
        kib * 1024
    }

    /// Processor time used, in clock ticks of 10 ms.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("procfs");
        let after_name = stat.rsplit_once(") ").expect("a name").1;
        let fields: Vec<_> = after_name.split(' ').collect();
        fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
    }
}

impl Drop for Carafe {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Lines {
    fn follow(stream: impl std::io::Read + Send + 'static) -> Arc<Self> {
        let lines = Arc::new(Self::default());
        let writer = Arc::clone(&lines);
        thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                writer
                    .text
                    .lock()
                    .unwrap()
                    .0
                    .push_str(&String::from_utf8_lossy(&line));
                writer.changed.notify_all();
                line.clear();
            }
            writer.text.lock().unwrap().1 = true;
            writer.changed.notify_all();
        });
        lines
    }

    fn wait(&self, is_there: impl Fn(&str) -> bool) -> String {
        let text = self.text.lock().unwrap();
        let (text, _) = self
            .changed
            .wait_timeout_while(text, PATIENCE, |(text, ended)| !is_there(text) && !*ended)
            .unwrap();
        assert!(is_there(&text.0), "never came; so far:\n{}", text.0);
        text.0.clone()
    }

    fn wait_for_end(&self) -> String {
        let text = self.text.lock().unwrap();
        let (text, _) = self
            .changed
            .wait_timeout_while(text, PATIENCE, |(_, ended)| !*ended)
            .unwrap();
        text.0.clone()
    }
}

fn listening(text: &str) -> impl Iterator<Item = SocketAddr> {
    text.lines()
        .filter_map(|line| line.strip_prefix("listening on ")?.parse().ok())
}

/// The summary line: accepted = sum of the reasons, and nothing open.
pub fn assert_conserved(log: &str) {
    let summary = log
        .lines()
        .rev()
        .find_map(|line| line.split_once("accepted "))
        .expect("summary");
    let counts = summary.1.split(';').next().expect("counts");
    let mut numbers = counts.split(", ").map(|part| {
        part.rsplit(' ')
            .next()
            .and_then(|n| n.parse::<u64>().ok())
            .expect("a count")
    });
    let accepted = numbers.next().expect("accepted");
    assert_eq!(accepted, numbers.sum::<u64>(), "{counts}");
    assert!(!counts.contains("open"), "{counts}");
}

/// The count behind a reason in the summary line; zero if it did not occur.
pub fn reason_count(log: &str, reason: &str) -> u64 {
    let summary = log
        .lines()
        .rev()
        .find_map(|line| line.split_once("accepted "))
        .expect("summary");
    let counts = summary.1.split(';').next().expect("counts");
    counts
        .split(", ")
        .find_map(|part| part.strip_prefix(reason)?.trim().parse().ok())
        .unwrap_or(0)
}

/// Connects, with patience for every later read and write.
pub fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Sends bytes and reads to the end: what came, or the error (a reset, mostly).
pub fn exchange(addr: SocketAddr, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = connect(addr);
    stream.write_all(request)?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    Ok(reply)
}

/// Sends a name, shuts the write side, and reads to the end.
pub fn exchange_half_closed(addr: SocketAddr, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = connect(addr);
    stream.write_all(request)?;
    stream.shutdown(Shutdown::Write)?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    Ok(reply)
}

/// Asks again and again until it is true; the test fails if it never is.
pub fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_true() {
        assert!(Instant::now() < end, "never came true: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Says aloud that a test is skipped, past the capture of its output, and fails instead where
/// `CARAFE_MAY_SKIP` is set and doesn't name `what`.
pub fn skip(what: &str, why: &str) {
    if let Ok(allowed) = std::env::var("CARAFE_MAY_SKIP") {
        let is_allowed = allowed.split_whitespace().any(|name| name == what);
        assert!(is_allowed, "{what} must not be skipped here: {why}");
    }
    let _ = writeln!(std::io::stderr(), "SKIPPED {what}: {why}");
}

/// Whether a program is on the PATH; a skip aloud if it isn't.
pub fn has_tool(tool: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(tool).is_file()));
    if !found {
        skip(tool, "it is not installed");
    }
    found
}

/// Runs a shell command line with arguments `$1`..., and gives its stdout. It must succeed.
pub fn shell(script: &str, args: &[&OsStr]) -> Vec<u8> {
    let output = Command::new("bash")
        .args(["-c", script, "bash"])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("bash runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{script}: {}\n{stderr}",
        output.status
    );
    output.stdout
}

/// A root that holds these files, with the folders that they need.
pub fn root_with<N: AsRef<OsStr>, B: AsRef<[u8]>>(files: &[(N, B)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a folder");
    for (name, bytes) in files {
        let path = root.path().join(name.as_ref());
        fs::create_dir_all(path.parent().expect("beneath the root")).expect("folders");
        fs::write(path, bytes).expect("a file");
    }
    root
}

/// Bytes in which no part looks like another, so that a lost or doubled piece shows.
pub fn pattern(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len.next_multiple_of(8)];
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for word in bytes.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// The same bytes; a failure doesn't print megabytes.
pub fn assert_same(what: &str, got: &[u8], expected: &[u8]) {
    let differs_at = got.iter().zip(expected).position(|(a, b)| a != b);
    assert!(
        got == expected,
        "{what}: {} bytes instead of {}, first difference: {differs_at:?}",
        got.len(),
        expected.len()
    );
}

/// Reads to the end, which must be orderly.
pub fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut reply = Vec::new();
    stream
        .read_to_end(&mut reply)
        .expect("an orderly end, no reset");
    reply
}

/// Sends bytes and waits until the server has read them, so that the next ones come apart.
pub fn send_and_see_read(stream: &mut TcpStream, bytes: &[u8]) {
    let acked = |stream: &TcpStream| carafe::sockopt::acked_bytes(stream).expect("TCP_INFO");
    let all = acked(stream) + bytes.len() as u64;
    stream.write_all(bytes).expect("a write");
    until("the server's kernel has the bytes", || acked(stream) >= all);
    // Their edge comes with the next turn at the latest; two clients one after the other need two.
    let server = stream.peer_addr().expect("a peer");
    for _ in 0..2 {
        exchange(server, b"\n").expect("an orderly refusal");
    }
}

/// What one end of a connection holds, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Queues {
    pub unacknowledged: u64,
    pub unread: u64,
}

/// The queues of the socket that is bound to `local` and connected to `remote`, both IPv4;
/// `None` if there is no such socket any more.
pub fn queued_bytes(local: SocketAddr, remote: SocketAddr) -> Option<Queues> {
    let (local, remote) = (proc_address(local), proc_address(remote));
    let table = fs::read_to_string("/proc/net/tcp").expect("procfs");
    let mut rows = table
        .lines()
        .map(|row| row.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| row[1] == local && row[2] == remote)?;
    let (unacknowledged, unread) = row[4].split_once(':').expect("two queues");
    let bytes = |hex| u64::from_str_radix(hex, 16).expect("a hexadecimal number");
    Some(Queues {
        unacknowledged: bytes(unacknowledged),
        unread: bytes(unread),
    })
}

/// An IPv4 address as the kernel's table of sockets shows it.
pub fn proc_address(address: SocketAddr) -> String {
    let SocketAddr::V4(address) = address else {
        panic!("{address} is not IPv4")
    };
    let ip = u32::from_ne_bytes(address.ip().octets());
    format!("{ip:08X}:{:04X}", address.port())
}

/// A server without privileges, on `outer`'s folder `www`; `None`, said aloud, where that can't be.
pub fn serve_unprivileged(outer: &Path) -> Option<Carafe> {
    if !rustix::process::geteuid().is_root() {
        return Some(Carafe::serve(&outer.join("www"), &[]));
    }
    if !has_tool("setpriv") {
        return None;
    }
    // The binary's own folder may be closed to others. cp, not fs::copy: a child that is forked
    // while a copy is open for writing would make it busy.
    let binary = OsStr::new(env!("CARGO_BIN_EXE_carafe"));
    let copy = outer.join("carafe");
    shell(
        "cp \"$1\" \"$2\" && chmod 755 \"$2\" \"$3\"",
        &[binary, copy.as_os_str(), outer.as_os_str()],
    );
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    command.arg(copy).arg("serve").arg(outer.join("www"));
    command.args(["-p", "0", "--bind", "127.0.0.1"]);
    Some(Carafe::start(command))
}

/// Waits that are longer than any test: no silence ends a name.
pub const PATIENT: [&str; 4] = ["--name-gap", "1h", "--request-timeout", "1h"];
