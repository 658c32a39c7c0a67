//! Plays a run on real sockets: the same core, on epoll, and clients that do move by move what the run says.
//!
//! A block is 4 MiB here, and a client's receive buffer small, so that a file is longer than what two sockets hold. Deadlines pass by the run's moves,
//! and descriptors are counted. What can't be played is a client that reads while the server is in a step.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream as Client};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, SockRef, Socket, Type};

use crate::core::{Core, Errno, Event, Kernel, Rules};
use crate::world::{BUDGET_BLOCKS, DEADLINE_TICKS, FILE_BLOCKS, Move};

const BLOCK_BYTES: u64 = 4 * 1024 * 1024;
const LISTENER: Token = Token(usize::MAX);
/// Loopback needs microseconds.
const PAUSE: Duration = Duration::from_millis(50);
const RECEIVE_BUFFER_BYTES: usize = 16 * 1024;

struct Real {
    poll: Poll,
    listener: TcpListener,
    sockets: Vec<Option<TcpStream>>,
    descriptors: u8,
    timers: Vec<(usize, u32, u8)>,
    file_bytes: u64,
    body: Vec<u8>,
    has_slept: bool,
}

impl Real {
    fn new(descriptors: u8) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(([127, 0, 0, 1], 0).into())?;
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            sockets: Vec::new(),
            descriptors,
            timers: Vec::new(),
            file_bytes: FILE_BLOCKS * BLOCK_BYTES,
            body: vec![0; BLOCK_BYTES as usize],
            has_slept: false,
        })
    }

    fn socket(&mut self, fd: usize) -> Result<&mut TcpStream, Errno> {
        self.sockets[fd].as_mut().ok_or(Errno::Reset)
    }
}

fn errno(error: &io::Error) -> Errno {
    match error.kind() {
        ErrorKind::WouldBlock => Errno::WouldBlock,
        _ => Errno::Reset,
    }
}

impl Kernel for Real {
    type Fd = usize;

    fn wait(&mut self, may_sleep: bool) -> Vec<Event> {
        let mut events = Events::with_capacity(16);
        let timeout = if may_sleep { PAUSE } else { Duration::ZERO };
        let _ = self.poll.poll(&mut events, Some(timeout));
        let of = |event: &mio::event::Event| match event.token() {
            LISTENER => Event::Listener,
            Token(key) => {
                let hangup = event.is_read_closed() && event.is_write_closed();
                Event::Socket { key, hangup }
            }
        };
        let mut all: Vec<_> = events.iter().map(of).collect();
        self.timers.retain(|&(key, generation, age)| {
            if age >= DEADLINE_TICKS {
                all.push(Event::Timer { key, generation });
            }
            age < DEADLINE_TICKS
        });
        self.has_slept = all.is_empty();
        all
    }

    fn accept(&mut self, _: usize) -> Result<usize, Errno> {
        if self.descriptors == 0 {
            return Err(Errno::NoDescriptor);
        }
        let (socket, _) = self.listener.accept().map_err(|error| errno(&error))?;
        self.descriptors -= 1;
        self.sockets.push(Some(socket));
        Ok(self.sockets.len() - 1)
    }

    fn register(&mut self, &fd: &usize, key: usize, both: bool) {
        let interest = if both {
            Interest::READABLE | Interest::WRITABLE
        } else {
            Interest::READABLE
        };
        if let Some(socket) = &mut self.sockets[fd] {
            let _ = self.poll.registry().register(socket, Token(key), interest);
        }
    }

    fn set_timer(&mut self, key: usize, generation: u32) {
        self.timers.push((key, generation, 0));
    }

    fn read(&mut self, &fd: &usize) -> Result<Option<u8>, Errno> {
        let mut byte = [0];
        let read = self.socket(fd)?.read(&mut byte);
        let count = read.map_err(|error| errno(&error))?;
        Ok((count > 0).then_some(byte[0]))
    }

    fn send(&mut self, &fd: &usize, from: u64, most: u64) -> Result<Option<u64>, Errno> {
        let most = most.min(self.file_bytes.saturating_sub(from));
        if most == 0 {
            return Ok(None);
        }
        let mut sent = 0;
        while sent < most {
            let count = (most - sent).min(BLOCK_BYTES) as usize;
            let socket = self.sockets[fd].as_mut().ok_or(Errno::Reset)?;
            match socket.write(&self.body[..count]) {
                Ok(count) => sent += count as u64,
                Err(_) if sent > 0 => break,
                Err(error) => return Err(errno(&error)),
            }
        }
        Ok(Some(sent))
    }

    fn file_len(&mut self, _: &usize) -> u64 {
        self.file_bytes
    }

    fn budget(&self) -> u64 {
        BUDGET_BLOCKS * BLOCK_BYTES
    }

    fn shutdown(&mut self, &fd: &usize) {
        if let Some(socket) = &self.sockets[fd] {
            let _ = socket.shutdown(Shutdown::Write);
        }
    }

    fn close(&mut self, &fd: &usize, with_reset: bool) {
        if let Some(socket) = self.sockets[fd].take() {
            if with_reset {
                let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
            }
            self.descriptors += 1;
        }
    }

    fn mistake(&mut self, _: &'static str) {}
}

/// What a client has at the end.
#[derive(Default)]
struct Seen {
    socket: Option<Client>,
    said: usize,
    bytes: u64,
    end: Option<&'static str>,
}

impl Seen {
    fn send(&mut self, byte: u8) {
        if let Some(socket) = &mut self.socket {
            let _ = socket.write_all(&[byte]);
        }
    }

    /// Reads all there is.
    fn read(&mut self) {
        let Some(socket) = &mut self.socket else {
            return;
        };
        let mut piece = vec![0; 64 * 1024];
        while self.end.is_none() {
            match socket.read(&mut piece) {
                Ok(0) => self.end = Some("FIN"),
                Ok(count) => self.bytes += count as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.end = Some("a reset"),
            }
        }
    }
}

/// Plays a run, then lets the clients read until nothing more happens. Says what the client has that it is about.
pub fn play(rules: Rules, descriptors: u8, moves: &[Move], client: usize) -> io::Result<String> {
    if moves.iter().any(|mv| matches!(mv, Move::ReadAlways(_))) {
        return Ok("it can't be played: a client reads while the server is in a step\n".to_owned());
    }
    let (mut kernel, mut core) = (Real::new(descriptors)?, Core::new(rules));
    let mut seen = [Seen::default(), Seen::default()];
    for &mv in moves {
        match mv {
            Move::Turn => core.turn(&mut kernel),
            Move::Connect(index) => {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
                socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
                socket.connect(&kernel.listener.local_addr()?.into())?;
                socket.set_read_timeout(Some(PAUSE))?;
                seen[index].socket = Some(socket.into());
            }
            Move::Say(index) => {
                seen[index].said += 1;
                let byte = b"a\n"[seen[index].said - 1];
                seen[index].send(byte);
            }
            Move::Junk(index) => seen[index].send(b'j'),
            Move::HalfClose(index) => {
                seen[index]
                    .socket
                    .as_ref()
                    .map(|socket| socket.shutdown(Shutdown::Write));
            }
            Move::Read(index) => seen[index].read(),
            Move::Leave(index) => {
                if let Some(socket) = seen[index].socket.take() {
                    SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
                }
            }
            Move::Tick => kernel.timers.iter_mut().for_each(|timer| timer.2 += 1),
            Move::Truncate => kernel.file_bytes = BLOCK_BYTES,
            Move::ReadAlways(_) => {}
        }
    }
    kernel.has_slept = false;
    while !kernel.has_slept {
        core.turn(&mut kernel);
        seen.iter_mut().for_each(Seen::read);
    }
    let Seen { bytes, end, .. } = &seen[client];
    let mib = bytes / (1024 * 1024);
    let all = FILE_BLOCKS * BLOCK_BYTES / (1024 * 1024);
    let end = end.map_or("and waits".to_owned(), |end| format!("and {end}"));
    let who = ["A", "B"][client];
    Ok(format!("client {who} has {mib} of {all} MiB, {end}\n"))
}
