//! carafe's core in one file, for a first read: one edge-triggered poll loop, its connections in a
//! slab, each a state machine `ReadingName` -> `Sending(offset)` -> `Closing`. It speaks the whole
//! bare protocol. "Twin" names what a part has grown into in src/, and where to read on.
//!
//!     cargo run --example pour -- ROOT 127.0.0.1:7890
//!     printf 'NAME\n' | nc 127.0.0.1 7890
//!
//! A blocking call sleeps in the kernel; here one call, `poll`, sleeps for all sockets. Edge-triggered,
//! it tells of a socket when something comes or room is made (an edge), not for as long as bytes are
//! there. Who stops with bytes unread, and whose client sends nothing more, would sleep for ever. So
//! whoever waits has seen WouldBlock, and whoever stops earlier, for its budget, is in the run queue.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::{ffi::OsStrExt as _, fs::FileExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, ffi::OsStr, mem};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

const LISTENER: Token = Token(usize::MAX);
const NAME_BYTES_MAX: usize = 1024;
const LOOKUPS_MAX: u8 = 16;
const CONN_TURN_BYTES_MAX: u64 = 1024 * 1024;
const CLOSING_BYTES_MAX: u64 = 1024 * 1024;
const CLOSING_TIME: Duration = Duration::from_secs(2);
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
const ACCEPT_RETRY: Duration = Duration::from_millis(500);

/// What a step wants next. Twin: `reactor::event::Action`.
enum Action {
    /// An attempt would have blocked: wait for an edge or the deadline.
    Wait,
    /// The budget is used up, and no new edge will come: step it in the next turn.
    Yield,
    Enter(State),
    /// The end: the socket is dropped. Waiting for the peer's FIN, as `Closing` does, comes before.
    Close(&'static str),
    /// The peer must see an error.
    Reset(&'static str),
}

/// Twin: `conn::State`.
enum State {
    ReadingName(ReadingName),
    Sending(Sending),
    Closing(Closing),
}

/// What a step may use. Twin: `conn::StepIo`.
struct StepIo<'a> {
    socket: &'a mut TcpStream,
    scratch: &'a mut [u8],
    root: &'a Path,
    now: Instant,
    /// When the next step comes at the latest, `is_due` then. Twin: `reactor::timer_wheel`.
    deadline: &'a mut Instant,
    is_due: bool,
    name_gap: Duration,
}

/// Twin: `conn::reading`.
struct ReadingName {
    name: Vec<u8>,
    lookups: u8,
    expires: Instant,
}

impl ReadingName {
    fn step(&mut self, io: &mut StepIo) -> Action {
        let (before, name) = (self.name.len(), &mut self.name);
        loop {
            match io.socket.read(io.scratch) {
                // A zero-length read: the client has shut its side.
                Ok(0) if name.is_empty() => return Action::Close("client left"),
                Ok(0) => return answer(name, io),
                Ok(count) => name.extend_from_slice(&io.scratch[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return Action::Close("reset by peer"),
            }
            if let Some(at) = name.iter().position(|&byte| byte == b'\n') {
                let line = &name[..at];
                return answer(line.strip_suffix(b"\r").unwrap_or(line), io);
            }
            let lacks_lf = name.len() == NAME_BYTES_MAX + 1 && name.ends_with(b"\r");
            if name.len() > NAME_BYTES_MAX && !lacks_lf {
                return answer(name, io);
            }
        }
        // The clock counts only after a look at the socket: bytes may have come while the process
        // was suspended (SIGSTOP).
        if io.is_due && io.now >= self.expires {
            return Action::Close("request timeout");
        }
        // After `name_gap` of silence what has come is the name.
        if name.len() == before {
            return if io.is_due {
                answer(name, io)
            } else {
                Action::Wait
            };
        }
        // Some clients send a name without a line feed, and wait: bytes that name a file are the name.
        *io.deadline = self.expires.min(io.now + io.name_gap);
        self.lookups = self.lookups.saturating_add(1);
        if self.lookups <= LOOKUPS_MAX && look_up(name, io.root).is_ok() {
            return answer(name, io);
        }
        Action::Wait
    }
}

/// To a client all refusals are the same: no byte, and an end in order.
fn answer(name: &[u8], io: &StepIo) -> Action {
    let (file, outcome) = match look_up(name, io.root) {
        Ok(file) => (Some(file), "complete"),
        Err(why) => (None, why),
    };
    let name = name.escape_ascii().to_string();
    Action::Enter(State::Sending(Sending {
        name,
        file,
        offset: 0,
        outcome,
    }))
}

/// Twin: `root`, which asks the kernel to stay beneath the root (openat2): here a rename between the
/// look and the open could lead out of it. Gives the file and the length that is promised.
fn look_up(name: &[u8], root: &Path) -> Result<(File, u64), &'static str> {
    if name.len() > NAME_BYTES_MAX {
        return Err("refused: the name is too long");
    }
    let slashes = name.iter().take_while(|&&byte| byte == b'/').count();
    let name = &name[slashes..];
    let mut components = name.split(|&byte| byte == b'/');
    if name.is_empty() || name.contains(&0) || components.any(|one| one.starts_with(b".")) {
        return Err("refused: not served");
    }
    let no_such_file = |_| "refused: no such file";
    let path = root
        .join(OsStr::from_bytes(name))
        .canonicalize()
        .map_err(no_such_file)?;
    // open(2) of a FIFO would wait for its other end.
    if !path.starts_with(root) || !path.is_file() {
        return Err("refused: not a regular file");
    }
    let file = File::open(path).map_err(no_such_file)?;
    let len = file.metadata().map_err(no_such_file)?.len();
    Ok((file, len))
}

/// Twin: `conn::sending`, with sendfile, and helper threads where a disk would be waited for. The socket
/// is not read: a client that has shut its side gets its file all the same.
struct Sending {
    name: String,
    file: Option<(File, u64)>,
    offset: u64,
    outcome: &'static str,
}

impl Sending {
    fn step(&mut self, io: &mut StepIo) -> Action {
        if io.is_due {
            return Action::Reset("stalled");
        }
        *io.deadline = io.now + STALL_TIMEOUT;
        let budget_ends = self.offset + CONN_TURN_BYTES_MAX;
        while let Some((file, len)) = self.file.as_ref().filter(|file| self.offset < file.1) {
            if self.offset >= budget_ends {
                return Action::Yield;
            }
            let most = (len - self.offset).min(io.scratch.len() as u64) as usize;
            // A body that is cut short must not look whole.
            let count = match file.read_at(&mut io.scratch[..most], self.offset) {
                Ok(0) => return Action::Reset("file became shorter"),
                Ok(count) => count,
                Err(_) => return Action::Reset("read failed"),
            };
            match io.socket.write(&io.scratch[..count]) {
                // A short write is no error: what the kernel didn't take is read from the file again.
                Ok(taken) => self.offset += taken as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Action::Wait,
                Err(_) => return Action::Close("reset by peer"),
            }
        }
        self.log(self.outcome);
        // `write` has only copied the bytes into the kernel. close(2) with unread input sends a reset,
        // which discards what still lies there, and often what the peer has not read yet. So the write side
        // alone is shut, and the peer's FIN waited for. Twin: `conn::closing`'s table knows when not.
        if io.socket.shutdown(Shutdown::Write).is_err() {
            return Action::Close("reset by peer");
        }
        *io.deadline = io.now + CLOSING_TIME;
        Action::Enter(State::Closing(Closing { discarded: 0 }))
    }

    fn log(&self, how: &str) {
        let len = self.file.as_ref().map_or(0, |(_, len)| *len);
        log(&format!(
            "\"{}\" {}/{len} bytes {how}",
            self.name, self.offset
        ));
    }
}

/// Reads and throws away until the peer's FIN. Twin: `conn::closing`.
struct Closing {
    discarded: u64,
}

impl Closing {
    fn step(&mut self, io: &mut StepIo) -> Action {
        while self.discarded < CLOSING_BYTES_MAX && !io.is_due {
            match io.socket.read(io.scratch) {
                Ok(0) => break, // The peer's FIN: it has everything.
                Ok(count) => self.discarded += count as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Action::Wait,
                Err(_) => break,
            }
        }
        Action::Close("closed")
    }
}

struct Conn {
    socket: TcpStream,
    state: State,
    deadline: Instant,
}

/// Twin: `reactor::Reactor`.
struct Reactor {
    poll: Poll,
    listener: TcpListener,
    accept_at: Option<Instant>,
    conns: Slab<Conn>,
    run_queue: Vec<usize>,
    ended: Vec<usize>,
    root: PathBuf,
    scratch: Vec<u8>,
    now: Instant,
    name_gap: Duration,
}

impl Reactor {
    /// One turn: wait, accept, step those with news, those who yielded and those who are due, reap.
    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        let deadlines = self.conns.iter().map(|(_, conn)| conn.deadline);
        let mut next = deadlines.chain(self.accept_at).min();
        if !self.run_queue.is_empty() {
            next = Some(self.now);
        }
        let timeout = next.map(|at| at.saturating_duration_since(Instant::now()));
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        self.now = Instant::now();
        let yielded = mem::take(&mut self.run_queue);
        if self.accept_at.is_some_and(|at| at <= self.now)
            || events.iter().any(|event| event.token() == LISTENER)
        {
            self.accept();
        }
        let ready = events.iter().map(|event| event.token());
        for token in ready.filter(|&token| token != LISTENER) {
            self.step(token.0, false);
        }
        for key in yielded {
            self.step(key, false);
        }
        let (conns, now) = (&self.conns, self.now);
        let is_due = |(key, conn): (usize, &Conn)| (conn.deadline <= now).then_some(key);
        for key in conns.iter().filter_map(is_due).collect::<Vec<_>>() {
            self.step(key, true);
        }
        // Nothing is freed before: a key may be among the events and among those who yielded, and its
        // connection may have ended at the first. Dropping the socket is close(2), which takes it out of
        // epoll, too: no event of the next turn means it.
        for key in self.ended.drain(..) {
            self.conns.remove(key);
        }
        Ok(())
    }

    /// Twin: `reactor::listener`, which lets a bounded number in each turn.
    fn accept(&mut self) {
        self.accept_at = None;
        loop {
            let mut socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    // Out of descriptors: who waits in the backlog makes no new edge.
                    log(&format!("accept: {error}"));
                    return self.accept_at = Some(self.now + ACCEPT_RETRY);
                }
            };
            // The twin registers a socket when its first attempt would block: most never wait.
            let token = Token(self.conns.vacant_key());
            let both = Interest::READABLE | Interest::WRITABLE;
            if let Err(error) = self.poll.registry().register(&mut socket, token, both) {
                log(&format!("register: {error}"));
                continue;
            }
            let expires = self.now + 10 * self.name_gap;
            let state = ReadingName {
                name: Vec::new(),
                lookups: 0,
                expires,
            };
            let state = State::ReadingName(state);
            self.conns.insert(Conn {
                socket,
                state,
                deadline: expires,
            });
            self.step(token.0, false);
        }
    }

    /// Steps a connection's state until it waits or ends. Twin: `conn::Conn::step`.
    fn step(&mut self, key: usize, is_due: bool) {
        if self.ended.contains(&key) {
            return;
        }
        let conn = &mut self.conns[key];
        let mut io = StepIo {
            socket: &mut conn.socket,
            scratch: &mut self.scratch,
            root: &self.root,
            now: self.now,
            deadline: &mut conn.deadline,
            is_due,
            name_gap: self.name_gap,
        };
        let how = loop {
            let action = match &mut conn.state {
                State::ReadingName(reading) => reading.step(&mut io),
                State::Sending(sending) => sending.step(&mut io),
                State::Closing(closing) => closing.step(&mut io),
            };
            match action {
                Action::Wait => return,
                Action::Yield => return self.run_queue.push(key),
                // Its first attempt is made before it waits: its edge may have come already.
                Action::Enter(state) => (conn.state, io.is_due) = (state, false),
                Action::Close(how) => break how,
                Action::Reset(how) => {
                    // With SO_LINGER on, and no time, close(2) discards what is unsent and sends a reset.
                    let linger = Some(Duration::ZERO);
                    let _ = socket2::SockRef::from(&*io.socket).set_linger(linger);
                    break how;
                }
            }
        };
        match &conn.state {
            State::ReadingName(_) => log(how),
            State::Sending(sending) => sending.log(how),
            State::Closing(_) => {}
        }
        self.ended.push(key);
    }
}

/// Twin: `telemetry::log_writer`, which a terminal that takes nothing can't hold up.
fn log(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn main() -> io::Result<()> {
    let args: Vec<String> = env::args().collect();
    let [_, root, address, rest @ ..] = &args[..] else {
        log("usage: pour ROOT ADDRESS:PORT [MILLISECONDS AFTER WHICH A NAME ENDS]");
        std::process::exit(2);
    };
    let root = PathBuf::from(root).canonicalize()?;
    let gap = rest.first().and_then(|gap| gap.parse().ok());
    let name_gap = Duration::from_millis(gap.unwrap_or(1000));
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let mut listener = TcpListener::bind(address)?;
    let poll = Poll::new()?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    log(&format!("listening on {}", listener.local_addr()?));
    let (conns, run_queue, ended) = (Slab::new(), Vec::new(), Vec::new());
    let (accept_at, scratch, now) = (None, vec![0; 64 * 1024], Instant::now());
    let mut reactor = Reactor {
        poll,
        listener,
        accept_at,
        conns,
        run_queue,
        ended,
        root,
        scratch,
        now,
        name_gap,
    };
    let mut events = Events::with_capacity(1024);
    loop {
        reactor.turn(&mut events)?;
    }
}
