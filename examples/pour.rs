//! carafe's core in one file, for a first read: one edge-triggered poll loop, its connections in a
//! slab, each a state machine `ReadingName` -> `Sending(offset)` -> `Closing`. It speaks the whole
//! bare protocol. "Twin" names what a part has grown into in src/, and where to read on.
//!
//!     cargo run --example pour -- ROOT 127.0.0.1:7890
//!     printf 'NAME\n' | nc 127.0.0.1 7890
//!
//! The examples beside it do the same task and wait in other ways; they take their connections from
//! here (docs/guide/ways.md).
//!
//! A blocking call sleeps in the kernel; here one call, `poll`, sleeps for all sockets. mio is a thin
//! layer over epoll: `register` is epoll_ctl(2), always with EPOLLET; `Poll::poll` is epoll_wait(2),
//! not poll(2); a `Token` is a number that it hands back; an `Interest` says which directions.
//! Edge-triggered, it tells of a socket when something comes or room is made (an edge), not for as long
//! as bytes are there. Who stops with bytes unread, and whose client sends nothing more, would sleep
//! for ever. So whoever waits has seen WouldBlock, and whoever stops earlier, for its budget, is in the
//! run queue.

#![allow(
    missing_docs,
    missing_debug_implementations,
    reason = "public is what the examples beside it use"
)]

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::{ffi::OsStrExt as _, fs::FileExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, ffi::OsStr, fmt::Display, mem};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

const LISTENER: Token = Token(usize::MAX);
const NAME_BYTES_MAX: usize = 1024;
pub const LOOKUPS_MAX: u8 = 16;
const SENT_BYTES_MAX: u64 = 1024 * 1024;
pub const DISCARDED_BYTES_MAX: usize = 1024 * 1024;
pub const CLOSING_TIME: Duration = Duration::from_secs(2);
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
pub const ACCEPT_RETRY: Duration = Duration::from_millis(500);

/// What a state wants next. Twin: `conn::step::Step`.
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

/// What a connection that was stepped wants of its loop. Twin: `reactor::event::Action`.
pub enum Next {
    Wait,
    Yield,
    /// Its socket is to be dropped.
    End,
}

/// Twin: `conn::State`, where each state has its own data.
#[derive(Clone, Copy)]
enum State {
    ReadingName,
    Sending,
    Closing,
    /// Freed at the end of the turn.
    Ended,
}

/// Twin: `conn::Conn`.
pub struct Conn {
    state: State,
    /// When the next step comes at the latest. Twin: `reactor::timer_wheel`.
    pub deadline: Instant,
    /// When the name must be whole.
    expires: Instant,
    name: Vec<u8>,
    lookups: u8,
    /// What is sent, and the length that is promised.
    file: Option<(File, u64)>,
    offset: u64,
    outcome: &'static str,
    discarded: usize,
}

/// What a step may use beside its connection. Twin: `conn::StepIo`.
pub struct Turn {
    pub root: PathBuf,
    pub name_gap: Duration,
    scratch: Vec<u8>,
    pub now: Instant,
    /// The step comes because its connection's deadline has passed.
    pub is_due: bool,
}

impl Conn {
    /// One that was just accepted.
    pub fn new(turn: &Turn) -> Self {
        let expires = turn.now + 10 * turn.name_gap;
        Self {
            state: State::ReadingName,
            deadline: expires,
            expires,
            name: Vec::new(),
            lookups: 0,
            file: None,
            offset: 0,
            outcome: "",
            discarded: 0,
        }
    }

    /// Steps its state until it waits or ends. Twin: `conn::Conn::step`.
    pub fn step(&mut self, socket: &mut TcpStream, turn: &mut Turn) -> Next {
        let how = loop {
            let action = match self.state {
                State::ReadingName => self.read_name(socket, turn),
                State::Sending => self.send(socket, turn),
                State::Closing => self.discard(socket, turn),
                State::Ended => return Next::End,
            };
            match action {
                Action::Wait => return Next::Wait,
                Action::Yield => return Next::Yield,
                // Its first attempt is made before it waits: its edge may have come already.
                Action::Enter(state) => (self.state, turn.is_due) = (state, false),
                Action::Close(how) => break how,
                Action::Reset(how) => {
                    // With SO_LINGER on, and no time, close(2) discards what is unsent and sends a reset.
                    let _ = socket2::SockRef::from(&*socket).set_linger(Some(Duration::ZERO));
                    break how;
                }
            }
        };
        if !matches!(self.state, State::Closing) {
            self.log(how);
        }
        self.state = State::Ended;
        Next::End
    }

    /// Whether it waits for room to send, not for bytes.
    pub fn is_sending(&self) -> bool {
        matches!(self.state, State::Sending)
    }

    /// Twin: `conn::reading`.
    fn read_name(&mut self, socket: &mut TcpStream, turn: &mut Turn) -> Action {
        let before = self.name.len();
        loop {
            match socket.read(&mut turn.scratch) {
                // A zero-length read: the client has shut its side.
                Ok(0) if self.name.is_empty() => return Action::Close("client left"),
                Ok(0) => return self.answer(turn),
                Ok(count) => self.name.extend_from_slice(&turn.scratch[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return Action::Close("reset by peer"),
            }
            if has_end(&mut self.name) {
                return self.answer(turn);
            }
        }
        // The clock counts only after a look at the socket: bytes may have come while the process
        // was suspended (SIGSTOP).
        if turn.is_due && turn.now >= self.expires {
            return Action::Close("request timeout");
        }
        // Some clients send a name without a line feed, and wait: bytes that name a file are the name,
        // and after `name_gap` of silence what has come is.
        let is_name = if self.name.len() == before {
            turn.is_due
        } else {
            self.deadline = self.expires.min(turn.now + turn.name_gap);
            self.lookups = self.lookups.saturating_add(1);
            self.lookups <= LOOKUPS_MAX && look_up(&self.name, &turn.root).is_ok()
        };
        if is_name {
            self.answer(turn)
        } else {
            Action::Wait
        }
    }

    /// To a client all refusals are the same: no byte, and an end in order. Twin: `protocol::bare`.
    fn answer(&mut self, turn: &Turn) -> Action {
        match look_up(&self.name, &turn.root) {
            Ok(found) => (self.file, self.outcome) = (Some(found), "complete"),
            Err(why) => self.outcome = why,
        }
        Action::Enter(State::Sending)
    }

    /// Twin: `conn::sending`, with sendfile, and threads where a disk would be waited for. The socket is
    /// not read: a client that has shut its side gets its file all the same.
    fn send(&mut self, socket: &mut TcpStream, turn: &mut Turn) -> Action {
        if turn.is_due {
            return Action::Reset("stalled");
        }
        self.deadline = turn.now + STALL_TIMEOUT;
        let budget_ends = self.offset + SENT_BYTES_MAX;
        while let Some((file, len)) = self.file.as_ref().filter(|file| self.offset < file.1) {
            if self.offset >= budget_ends {
                return Action::Yield;
            }
            let most = (len - self.offset).min(turn.scratch.len() as u64) as usize;
            // A body that is cut short must not look whole.
            let count = match file.read_at(&mut turn.scratch[..most], self.offset) {
                Ok(0) => return Action::Reset("file became shorter"),
                Ok(count) => count,
                Err(_) => return Action::Reset("read failed"),
            };
            match socket.write(&turn.scratch[..count]) {
                // A short write is no error: what the kernel didn't take is read from the file again.
                Ok(taken) => self.offset += taken as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Action::Wait,
                Err(_) => return Action::Close("reset by peer"),
            }
        }
        // `write` has only copied the bytes into the kernel. close(2) with unread input sends a reset,
        // which discards what still lies there or is under way. So the write side
        // alone is shut, and the peer's FIN waited for. Twin: `conn::closing`'s table knows when not.
        if socket.shutdown(Shutdown::Write).is_err() {
            return Action::Close("reset by peer");
        }
        self.log(self.outcome);
        self.deadline = turn.now + CLOSING_TIME;
        Action::Enter(State::Closing)
    }

    /// Reads and throws away until the peer's FIN. Twin: `conn::closing`.
    fn discard(&mut self, socket: &mut TcpStream, turn: &mut Turn) -> Action {
        while self.discarded < DISCARDED_BYTES_MAX && !turn.is_due {
            match socket.read(&mut turn.scratch) {
                Ok(0) => break, // The peer's FIN: nothing more can come that would make the close a reset.
                Ok(count) => self.discarded += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Action::Wait,
                Err(_) => break,
            }
        }
        Action::Close("closed")
    }

    fn log(&self, how: &str) {
        let len = self.file.as_ref().map_or(0, |file| file.1);
        log_end(&self.name, self.offset, len, how);
    }
}

/// Whether a name is whole: by its line feed, before which one CR is no part of it, or by its length.
pub fn has_end(name: &mut Vec<u8>) -> bool {
    let Some(line_feed) = name.iter().position(|&byte| byte == b'\n') else {
        return name.len() > NAME_BYTES_MAX;
    };
    let has_cr = name[..line_feed].ends_with(b"\r");
    name.truncate(line_feed - usize::from(has_cr));
    true
}

/// Twin: `root`, which asks the kernel to stay beneath the root (openat2): here a rename between the
/// look and the open could lead out of it.
pub fn look_up(name: &[u8], root: &Path) -> Result<(File, u64), &'static str> {
    let mut components = name.split(|&byte| byte == b'/');
    if name.len() > NAME_BYTES_MAX {
        return Err("refused: the name is too long");
    } else if components.any(|component| component.starts_with(b".")) {
        return Err("refused: a component begins with a dot");
    }
    let slashes = name.iter().take_while(|&&byte| byte == b'/').count();
    let path = root.join(OsStr::from_bytes(&name[slashes..]));
    let path = path.canonicalize().map_err(|_| "refused: no such file")?;
    // open(2) of a FIFO would wait for its other end.
    if !path.starts_with(root) || !path.is_file() {
        return Err("refused: not a regular file");
    }
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
    let (len, file) = opened.map_err(|_| "refused: it can't be opened")?;
    Ok((file, len))
}

/// Twin: `reactor::Reactor`.
struct Reactor {
    poll: Poll,
    listener: TcpListener,
    accept_at: Option<Instant>,
    conns: Slab<(TcpStream, Conn)>,
    run_queue: Vec<usize>,
    turn: Turn,
}

impl Reactor {
    /// Wait, accept, step those with news, those who yielded and those who are due, reap. Twin:
    /// `Reactor::turn`.
    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        let deadlines = self.conns.iter().map(|(_, (_, conn))| conn.deadline);
        let yielded = mem::take(&mut self.run_queue);
        let next = match yielded[..] {
            [] => deadlines.chain(self.accept_at).min(),
            _ => Some(self.turn.now),
        };
        let timeout = next.map(|at| at.saturating_duration_since(Instant::now()));
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => events.clear(),
            result => result?,
        }
        let now = Instant::now();
        self.turn.now = now;
        let mut ready: Vec<_> = events.iter().map(|event| event.token()).collect();
        ready.extend(yielded.into_iter().map(Token));
        if self.accept_at.is_some_and(|at| at <= now) || ready.contains(&LISTENER) {
            self.accept();
        }
        for token in ready.into_iter().filter(|&token| token != LISTENER) {
            self.step(token.0, false);
        }
        let all = self.conns.iter();
        let due = all.filter_map(|(key, (_, conn))| (conn.deadline <= now).then_some(key));
        for key in due.collect::<Vec<_>>() {
            self.step(key, true);
        }
        // Nothing is freed before: a key may be among the events and among those who yielded, and its
        // connection may have ended at the first. Dropping the socket is close(2), which takes it out of
        // epoll, too: no event of the next turn means it.
        self.conns
            .retain(|_, (_, conn)| !matches!(conn.state, State::Ended));
        Ok(())
    }

    /// Twin: `reactor::listener`, which lets a bounded number in each turn.
    fn accept(&mut self) {
        self.accept_at = None;
        loop {
            let token = Token(self.conns.vacant_key());
            // The twin registers a socket when its first attempt would block: most never wait.
            let both = Interest::READABLE | Interest::WRITABLE;
            let socket = self.listener.accept().and_then(|(mut socket, _)| {
                let registered = self.poll.registry().register(&mut socket, token, both);
                registered.map(|()| socket)
            });
            let socket = match socket {
                Ok(socket) => socket,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    // Out of descriptors: who waits in the backlog makes no new edge.
                    log(format_args!("accept: {error}"));
                    return self.accept_at = Some(self.turn.now + ACCEPT_RETRY);
                }
            };
            self.conns.insert((socket, Conn::new(&self.turn)));
            self.step(token.0, false);
        }
    }

    fn step(&mut self, key: usize, is_due: bool) {
        // One that yielded may have ended since, and its key may be another's, whom a step does no harm.
        // Twin: `reactor::handler::Token` has a generation.
        let Some((socket, conn)) = self.conns.get_mut(key) else {
            return;
        };
        self.turn.is_due = is_due;
        if let Next::Yield = conn.step(socket, &mut self.turn) {
            self.run_queue.push(key);
        }
    }
}

/// One line for each connection. Twin: `serve::conn_record`.
pub fn log_end(name: &[u8], sent: u64, len: u64, how: &str) {
    log(format_args!(
        "\"{}\" {sent}/{len} bytes {how}",
        name.escape_ascii()
    ));
}

/// Twin: `telemetry::log_writer`, which a terminal that takes nothing can't hold up.
pub fn log(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// What the command line says: where to listen, and what a turn needs.
pub fn start() -> io::Result<(TcpListener, Turn)> {
    let args: Vec<String> = env::args().collect();
    let [_, root, address, rest @ ..] = &args[..] else {
        log("usage: ROOT ADDRESS:PORT [MILLISECONDS AFTER WHICH A NAME ENDS]");
        std::process::exit(2);
    };
    let gap = rest.first().and_then(|gap| gap.parse().ok());
    let turn = Turn {
        root: PathBuf::from(root).canonicalize()?,
        name_gap: Duration::from_millis(gap.unwrap_or(1000)),
        scratch: vec![0; 64 * 1024],
        now: Instant::now(),
        is_due: false,
    };
    let listener = TcpListener::bind(address.parse().map_err(io::Error::other)?)?;
    log(format_args!("listening on {}", listener.local_addr()?));
    Ok((listener, turn))
}

fn main() -> io::Result<()> {
    let (mut listener, turn) = start()?;
    let poll = Poll::new()?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut reactor = Reactor {
        poll,
        listener,
        accept_at: None,
        conns: Slab::new(),
        run_queue: Vec::new(),
        turn,
    };
    let mut events = Events::with_capacity(1024);
    loop {
        reactor.turn(&mut events)?;
    }
}
