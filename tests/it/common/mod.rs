//! What the tests of the real binary share: a server that is killed with its test, a client that
//! speaks by the byte, and waiting for facts instead of for time.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};

/// How long a fact may take to come true before the test fails. Never decides a test that passes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The real binary, serving. Killed on drop.
pub struct Carafe {
    child: Child,
    /// The first one announced.
    addr: SocketAddr,
    stderr: Arc<Lines>,
}

/// Flags of the mode in which the tests run. A test's own flag must not be among them.
fn mode_flags() -> Vec<String> {
    let flags = std::env::var("CARAFE_SERVE_FLAGS").unwrap_or_default();
    flags.split_whitespace().map(str::to_owned).collect()
}

/// Names a program that serves in carafe's place: the core in one file, examples/pour.rs.
pub const POUR: &str = "CARAFE_POUR";

/// Lines of a stream as they come.
#[derive(Default)]
struct Lines {
    text: Mutex<(String, bool)>,
    changed: Condvar,
}

impl Carafe {
    /// Serves `root` on a free port of 127.0.0.1.
    pub fn serve(root: &Path, flags: &[&str]) -> Self {
        if let Some(pour) = std::env::var_os(POUR) {
            return Self::pour(&pour, root, flags);
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_carafe"));
        command
            .arg("serve")
            .arg(root)
            .args(["-p", "0", "--bind", "127.0.0.1"])
            .args(mode_flags())
            .args(flags);
        Self::start(command)
    }

    /// The core in one file, examples/pour.rs, instead. It has one flag.
    fn pour(program: &OsStr, root: &Path, flags: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.arg(root).arg("127.0.0.1:0");
        let gap = flags
            .iter()
            .skip_while(|flag| **flag != "--name-gap")
            .nth(1);
        if let Some(gap) = gap {
            let gap = carafe::units::parse_duration(gap).expect("a duration");
            command.arg(gap.as_millis().to_string());
        }
        Self::start(command)
    }

    /// As [`Carafe::serve`], with a descriptor limit of its own.
    pub fn serve_limited(root: &Path, descriptors: u32, flags: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        let script = format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"");
        shell.args(["-c", &script]);
        Self::serve_under(shell, root, flags)
    }

    /// As [`Carafe::serve`], while strace, told what else by `options`, writes its calls to a file.
    /// The server stays our child (-D).
    pub fn serve_traced(root: &Path, calls: &Path, options: &[&str], flags: &[&str]) -> Self {
        let mut strace = Command::new("strace");
        strace.args(["-D", "-qq", "-o"]).arg(calls).args(options);
        Self::serve_under(strace, root, flags)
    }

    /// Serves by a command that runs the one after it, without the flags of a mode.
    pub fn serve_under(mut outer: Command, root: &Path, flags: &[&str]) -> Self {
        outer
            .args([env!("CARGO_BIN_EXE_carafe"), "serve"])
            .arg(root);
        outer.args(["-p", "0", "--bind", "127.0.0.1"]).args(flags);
        Self::start(outer)
    }

    /// Starts a command that becomes carafe, and waits until it listens.
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self::start_anywhere(command, |text| listening(text).next())
    }

    /// As [`Carafe::start`], of a server that may have no address: `find` says where it listens, or that it
    /// isn't known yet. Its stdin is the command's.
    pub fn start_anywhere(mut command: Command, find: impl Fn(&str) -> Option<SocketAddr>) -> Self {
        command.stderr(Stdio::piped()).env_remove("RUST_LOG");
        let mut child = command.spawn().expect("carafe starts");
        let stderr = Lines::follow(child.stderr.take().expect("piped"));
        let text = stderr.wait(|text| find(text).is_some());
        let addr = find(&text).expect("it is announced");
        Self {
            child,
            addr,
            stderr,
        }
    }

    /// As [`Carafe::serve`], by a unix socket at `path` and nothing else. It has no address.
    pub fn serve_by_unix_socket(root: &Path, path: &Path, flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_carafe"));
        command.arg("serve").arg(root).arg("-b");
        command.arg(format!("unix:{}", path.display())).args(flags);
        command.stdin(Stdio::null());
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Self::start_anywhere(command, |text| {
            text.contains("listening on unix:").then_some(nowhere)
        })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
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
        if std::env::var_os(POUR).is_none() {
            assert_eq!(status.code(), Some(0), "{text}");
            assert_conserved(&text);
        }
        text
    }

    /// As [`Carafe::stop`]; and nothing at warn or above was logged.
    pub fn stop_clean(self) {
        assert_no_trouble(&self.stop());
    }

    /// Open descriptors of the server.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("procfs")
            .count()
    }

    /// Sockets that the server has open: its listeners and its connections. Helpers and the cache
    /// open files at moments of their own, so who counts clients doesn't count those.
    pub fn sockets(&self) -> usize {
        self.open(|target| target.to_string_lossy().starts_with("socket:"))
    }

    /// How many descriptors the server has for a file.
    pub fn descriptors_of(&self, file: &Path) -> usize {
        let file = fs::canonicalize(file).expect("it is there");
        self.open(|target| target == file)
    }

    /// How many of the server's descriptors lead to what is looked for.
    fn open(&self, is_wanted: impl Fn(&Path) -> bool) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("procfs")
            .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .filter(|target| is_wanted(target))
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

/// The warning that those get who run the tests as root, which is no trouble.
pub fn is_of_root(line: &str) -> bool {
    line.contains(" WARN  carafe::serve] running as root: ")
}

/// What else was logged at warn or above.
fn trouble(log: &str) -> impl Iterator<Item = &str> {
    let is_trouble = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
    log.lines()
        .filter(is_trouble)
        .filter(|line| !is_of_root(line))
}

/// Nothing was logged at warn or above.
pub fn assert_no_trouble(log: &str) {
    assert_eq!(trouble(log).next(), None, "{log}");
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

/// The count of connections behind a reason in the summary line; zero if it did not occur.
pub fn reason_count(log: &str, reason: &str) -> u64 {
    summary_count(log, "accepted ", reason)
}

/// The count of replies behind an outcome in the summary line; zero if it did not occur.
pub fn reply_count(log: &str, outcome: &str) -> u64 {
    summary_count(log, "replied ", outcome)
}

fn summary_count(log: &str, part: &str, word: &str) -> u64 {
    let summary = log
        .lines()
        .rev()
        .find(|line| line.contains("accepted "))
        .expect("summary");
    let (_, counts) = summary.split_once(part).expect("both are there");
    let counts = counts.split(';').next().expect("counts");
    counts
        .split(", ")
        .find_map(|part| part.strip_prefix(word)?.trim().parse().ok())
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

/// A port that nobody else takes while the socket lives. It doesn't listen, so that those who
/// reuse addresses may.
pub fn reserved_port() -> (Socket, u16) {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    socket.bind(&any.into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, port)
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

// ---- files and downloads ----

/// The next number of a sequence that looks random and is the same in every run (xorshift64).
pub fn next_random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Bytes that differ by seed and by place, so that no part can stand in for another.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&next_random(&mut state).to_le_bytes());
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
    let server = stream.peer_addr().expect("a peer");
    let client = stream.local_addr().expect("an address");
    until("the server has read them", || {
        queued_bytes(server, client).is_none_or(|queues| queues.unread == 0)
    });
    // One that has sent nothing, too, is let in before the second of these is answered.
    for _ in 0..2 {
        exchange(server, b"..\n").expect("an orderly refusal");
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
pub fn serve_unprivileged(outer: &Path, flags: &[&str]) -> Option<Carafe> {
    let mut command = unprivileged(outer)?;
    command.arg("serve").arg(outer.join("www"));
    command.args(["-p", "0", "--bind", "127.0.0.1"]).args(flags);
    Some(Carafe::start(command))
}

/// The program without privileges, copied into `outer` if need be.
pub fn unprivileged(outer: &Path) -> Option<Command> {
    if !rustix::process::geteuid().is_root() {
        return Some(Command::new(env!("CARGO_BIN_EXE_carafe")));
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
    command.arg(copy);
    Some(command)
}

/// Waits that are longer than any test: no silence ends a name.
pub const PATIENT: [&str; 4] = ["--name-gap", "1h", "--request-timeout", "1h"];

/// Connects with a receive buffer of about so many bytes, set before the window is announced.
pub fn connect_narrow(addr: SocketAddr, buffer_bytes: usize) -> TcpStream {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(addr),
        socket2::Type::STREAM,
        None,
    )
    .expect("a socket");
    socket
        .set_recv_buffer_size(buffer_bytes)
        .expect("SO_RCVBUF");
    socket.connect(&addr.into()).expect("connect");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Begins a download and takes its first byte; then the server has opened the file, and one that
/// is much larger than the socket buffers holds it in Sending for as long as nobody reads on.
pub fn begin_download(addr: SocketAddr, name: &str) -> (TcpStream, u8) {
    let mut stream = connect_narrow(addr, 64 * 1024);
    stream
        .write_all(format!("{name}\n").as_bytes())
        .expect("the name is sent");
    let mut first = [0];
    stream.read_exact(&mut first).expect("the first byte");
    (stream, first[0])
}

/// More than the two sockets' buffers hold together, in bytes.
pub const LARGE_BYTES: usize = 32 * 1024 * 1024;

/// A file of zeros that takes no room.
pub fn sparse_file(path: &Path, len: u64) -> fs::File {
    let mut options = fs::File::options();
    let file = options
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .expect("a file");
    file.set_len(len).expect("a length");
    file
}

/// Lets so much time pass that the same signal is a second one, and no part of the first.
pub fn wait_for_a_second_signal() {
    std::thread::sleep(2 * carafe::limits::SIGNAL_PAIR_TIME);
}

/// Closes with a reset instead of a FIN.
pub fn vanish(stream: TcpStream) {
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .expect("SO_LINGER");
}

/// Fails unless the stream ended with the peer's reset.
pub fn assert_reset(result: std::io::Result<Vec<u8>>) {
    // Without the bytes, which would drown the message.
    let error = result.map(|bytes| bytes.len()).expect_err("a good end");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
}

/// What `strace -f` saw: threads, and their calls with their results. A call during which another thread
/// made one stands there in two parts.
pub fn strace_calls(text: &str) -> Vec<(&str, String)> {
    let mut calls = Vec::<(&str, String)>::new();
    let mut begun = HashMap::new();
    for line in text.lines() {
        let Some((thread, call)) = line.split_once(' ') else {
            continue;
        };
        let call = call.trim_start();
        if let Some(beginning) = call.strip_suffix(" <unfinished ...>") {
            begun.insert(thread, beginning);
        } else if let Some((_, end)) = call.split_once(" resumed>")
            && let Some(beginning) = begun.remove(thread)
        {
            calls.push((thread, [beginning, end].concat()));
        } else {
            calls.push((thread, call.to_owned()));
        }
    }
    calls
}

/// What the log's line for a connection from this machine that has ended holds.
pub const ENDED: &str = "] 127.0.0.1:";

/// How many lines of a log hold this text.
pub fn count_lines(log: &str, needle: &str) -> usize {
    log.lines().filter(|line| line.contains(needle)).count()
}

// ---- the server from outside ----

impl Carafe {
    /// Whether the loop's thread waits for something to come, or has ended.
    pub fn is_asleep(&self) -> bool {
        // One that has ended is a zombie.
        matches!(self.state(), 'S' | 'Z')
    }

    /// Whether SIGSTOP has taken effect.
    pub fn is_stopped(&self) -> bool {
        self.state() == 'T'
    }

    /// The loop's thread state, by proc(5)'s letter. The first thread has the process's number.
    fn state(&self) -> char {
        let pid = self.pid();
        let stat = fs::read_to_string(format!("/proc/{pid}/task/{pid}/stat")).expect("procfs");
        let after_name = stat.rsplit_once(") ").expect("a name").1;
        after_name.chars().next().expect("a state")
    }

    /// Every address announced so far.
    pub fn announced(&self) -> Vec<SocketAddr> {
        listening(&self.log()).collect()
    }

    /// `carafe thank` on a free port of 127.0.0.1, with its stdout in a pipe.
    pub fn thank(flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_carafe"));
        command
            .args(["thank", "-p", "0", "--bind", "127.0.0.1"])
            .args(flags)
            .stdout(Stdio::piped());
        Self::start(command)
    }

    /// As [`Carafe::start`], but stderr is a pipe that nobody reads beyond the first announcement.
    pub fn start_unread(mut command: Command) -> (Self, std::process::ChildStderr) {
        command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .env_remove("RUST_LOG");
        let mut child = command.spawn().expect("carafe starts");
        let mut pipe = child.stderr.take().expect("piped");
        let mut text = Vec::new();
        // By the byte, so that nothing beyond the line leaves the pipe.
        while !(text.ends_with(b"\n") && text.windows(13).any(|part| part == b"listening on ")) {
            let mut byte = [0];
            pipe.read_exact(&mut byte).expect("an announcement");
            text.push(byte[0]);
        }
        let addr = listening(&String::from_utf8_lossy(&text))
            .next()
            .expect("it is announced");
        let carafe = Self {
            child,
            addr,
            stderr: Arc::default(),
        };
        (carafe, pipe)
    }

    /// Reads at last what [`Carafe::start_unread`] left in the pipe.
    pub fn read_log(&mut self, pipe: std::process::ChildStderr) {
        self.stderr = Lines::follow(pipe);
    }

    /// As [`Carafe::stop`], with these warnings, and no others. Gives stderr.
    pub fn stop_warned(self, warnings: &[&str]) -> String {
        let text = self.stop();
        for warning in warnings {
            assert!(text.contains(warning), "{text}");
        }
        let is_expected = |line: &str| warnings.iter().any(|warning| line.contains(warning));
        assert!(trouble(&text).all(is_expected), "{text}");
        text
    }

    /// Sets the running server's descriptor limit so that it can open `spare` more than it has.
    pub fn leave_descriptors(&self, spare: usize) {
        let first_denied = self.free_descriptors().nth(spare).expect("endless");
        self.limit_descriptors(first_denied);
    }

    /// Numbers that the server's next descriptors will have. The limit bounds these; how many are
    /// open says little where some with high numbers were inherited.
    pub fn free_descriptors(&self) -> impl Iterator<Item = u64> {
        let names = fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("procfs");
        let names = names.map(|entry| entry.expect("procfs").file_name());
        let open: Vec<u64> = names
            .map(|name| name.to_string_lossy().parse().expect("a number"))
            .collect();
        (0..).filter(move |number| !open.contains(number))
    }

    /// Sets the running server's descriptor limit.
    pub fn limit_descriptors(&self, current: u64) {
        let pid = Pid::from_raw(self.pid() as i32).expect("a pid");
        let maximum = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        let limit = rustix::process::Rlimit {
            current: Some(current),
            maximum,
        };
        rustix::process::prlimit(Some(pid), rustix::process::Resource::Nofile, limit)
            .expect("our child's limit");
    }
}

/// A stream of a child, read by a thread as it comes.
pub struct Followed(Arc<Lines>);

impl Followed {
    pub fn new(stream: impl std::io::Read + Send + 'static) -> Self {
        Self(Lines::follow(stream))
    }

    /// Waits until it holds this text, and gives all so far.
    pub fn wait_for(&self, needle: &str) -> String {
        self.0.wait(|text| text.contains(needle))
    }

    /// Waits for the end, and gives all.
    pub fn wait_for_end(&self) -> String {
        self.0.wait_for_end()
    }
}

/// A program that SIGINT ends, even where the tests run in the background of a shell: that has it ignored, and
/// who is started by them inherits it.
pub fn with_default_interrupt(program: &str) -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal=INT", program]);
    command
}

/// Runs the binary to its end.
pub fn run_carafe(args: &[&OsStr]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_carafe"))
        .args(args)
        .stdin(Stdio::null())
        .env_remove("RUST_LOG")
        .output()
        .expect("carafe runs")
}

/// Raises this process's descriptor limit as far as it goes, and gives it.
pub fn raise_own_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, limit).expect("the soft limit may rise to the hard one");
    maximum.unwrap_or(u64::MAX)
}

/// Memory held, in bytes, as the pages have it: the counter in `status` lags behind.
pub fn resident_bytes(carafe: &Carafe) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", carafe.pid()))
        .expect("as the kernel writes it");
    let line = rollup.lines().find(|line| line.starts_with("Rss:"));
    let kib = line
        .expect("as the kernel writes it")
        .split_whitespace()
        .nth(1)
        .expect("as the kernel writes it");
    kib.parse::<u64>().expect("as the kernel writes it") * 1024
}
