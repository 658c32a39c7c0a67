//! The least that a server can do for a download: the yardstick. One file, held open or in memory,
//! whatever the client asks for. It runs as a process of its own: this program, started again.

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;

use nix::sys::socket::setsockopt;
use nix::{getsockopt_impl, setsockopt_impl, sockopt_impl};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Ipv4Addr, RecvFlags, SendFlags, SocketAddrV4, SocketFlags, SocketType,
    accept_with, bind, getsockname, listen, recv, send, socket_with,
};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::Result;

sockopt_impl!(
    /// TCP_DEFER_ACCEPT, an `int`: for so many seconds a client that has said nothing isn't accepted.
    DeferAccept, Both, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, i32
);

/// Events taken at a time.
const EVENTS: usize = 512;

/// The accept queue: no client of a bench must find it full.
const BACKLOG: i32 = 4096;

/// How the loop serves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// One connection each: accept4, recv, send, close.
    Plain,
    /// The same behind TCP_DEFER_ACCEPT, so that a client is accepted with its request.
    Deferred,
    /// As `Deferred`, and the send carries MSG_MORE, so that FIN rides on the data.
    More,
    /// HTTP, kept alive: recv, send of a ready answer.
    KeepAlive,
    /// As `Deferred`, by sendfile, so many bytes a call at most.
    SendFile(usize),
}

impl Mode {
    /// As an argument of this program.
    pub fn to_argument(self) -> String {
        match self {
            Self::Plain => "plain".into(),
            Self::Deferred => "deferred".into(),
            Self::More => "more".into(),
            Self::KeepAlive => "keep-alive".into(),
            Self::SendFile(chunk) => chunk.to_string(),
        }
    }

    fn from_argument(text: &str) -> Result<Self> {
        Ok(match text {
            "plain" => Self::Plain,
            "deferred" => Self::Deferred,
            "more" => Self::More,
            "keep-alive" => Self::KeepAlive,
            chunk => Self::SendFile(chunk.parse()?),
        })
    }
}

enum Body {
    Memory(Vec<u8>),
    File { file: File, length: u64 },
}

#[derive(PartialEq)]
enum Registered {
    No,
    ForReading,
    ForWriting,
}

struct Conn {
    socket: OwnedFd,
    has_asked: bool,
    sent: u64,
    registered: Registered,
}

/// What a step of a connection came to.
enum Step {
    Waits(EventFlags),
    Done,
}

struct Loop {
    epoll: OwnedFd,
    listener: OwnedFd,
    mode: Mode,
    body: Body,
    /// By descriptor, the cheapest of tables.
    conns: Vec<Option<Conn>>,
    scratch: Vec<u8>,
}

/// Serves until it is killed, or until its parent has died.
pub fn serve(mode: &str, file: &Path) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM))?;
    let mode = Mode::from_argument(mode)?;
    let body = match mode {
        Mode::Plain | Mode::Deferred | Mode::More => Body::Memory(std::fs::read(file)?),
        Mode::KeepAlive => Body::Memory(ready_answer(&std::fs::read(file)?)),
        Mode::SendFile(_) => {
            let file = File::open(file)?;
            let length = file.metadata()?.len();
            Body::File { file, length }
        }
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let listener = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    bind(&listener, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
    if !matches!(mode, Mode::Plain | Mode::KeepAlive) {
        setsockopt(&listener, DeferAccept, &1)?;
    }
    listen(&listener, BACKLOG)?;
    let address = SocketAddrV4::try_from(getsockname(&listener)?)?;
    println!("listening on {address}");
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let listener_data = EventData::new_u64(listener.as_raw_fd() as u64);
    epoll::add(&epoll, &listener, listener_data, EventFlags::IN)?;
    let mut this = Loop {
        epoll,
        listener,
        mode,
        body,
        conns: Vec::new(),
        scratch: vec![0; 4096],
    };
    this.run()
}

/// An answer as other servers give it, with the headers that all of them send.
fn ready_answer(body: &[u8]) -> Vec<u8> {
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\nServer: minimal\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
         Content-Type: application/octet-stream\r\nContent-Length: {}\r\n\
         Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nETag: \"minimal\"\r\n\
         Accept-Ranges: bytes\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(body);
    answer
}

impl Loop {
    fn run(&mut self) -> Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        let listener = self.listener.as_raw_fd() as u64;
        loop {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            for event in &events {
                let epoll::Event { data, .. } = *event;
                if data.u64() == listener {
                    self.accept()?;
                } else {
                    self.ready(data.u64() as usize)?;
                }
            }
        }
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = match accept_with(&self.listener, flags) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::CONNABORTED) => continue,
                Err(error) => return Err(error.into()),
            };
            let conn = Conn {
                socket,
                has_asked: false,
                sent: 0,
                registered: Registered::No,
            };
            self.step(conn)?;
        }
    }

    fn ready(&mut self, key: usize) -> Result<()> {
        match self.conns.get_mut(key).and_then(Option::take) {
            Some(conn) => self.step(conn),
            None => Ok(()),
        }
    }

    fn step(&mut self, mut conn: Conn) -> Result<()> {
        match self.advance(&mut conn) {
            Ok(Step::Done) => {}
            Ok(Step::Waits(flags)) => self.wait(conn, flags)?,
            // A client that has gone is the bench's end of a measurement.
            Err(Errno::PIPE | Errno::CONNRESET) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn advance(&mut self, conn: &mut Conn) -> rustix::io::Result<Step> {
        if !conn.has_asked {
            match recv(&conn.socket, &mut self.scratch[..], RecvFlags::empty()) {
                Ok((_, 0)) => return Ok(Step::Done),
                Ok(_) => conn.has_asked = true,
                Err(Errno::AGAIN) => return Ok(Step::Waits(EventFlags::IN)),
                Err(error) => return Err(error),
            }
        }
        match self.send(conn) {
            Ok(()) if self.mode == Mode::KeepAlive => {
                (conn.has_asked, conn.sent) = (false, 0);
                Ok(Step::Waits(EventFlags::IN))
            }
            Ok(()) => Ok(Step::Done),
            Err(Errno::AGAIN) => Ok(Step::Waits(EventFlags::OUT)),
            Err(error) => Err(error),
        }
    }

    /// All of it, or an error.
    fn send(&self, conn: &mut Conn) -> rustix::io::Result<()> {
        match &self.body {
            Body::Memory(bytes) => {
                let mut flags = SendFlags::NOSIGNAL;
                flags.set(SendFlags::MORE, self.mode == Mode::More);
                while (conn.sent as usize) < bytes.len() {
                    conn.sent += send(&conn.socket, &bytes[conn.sent as usize..], flags)? as u64;
                }
            }
            Body::File { file, length } => {
                let chunk = match self.mode {
                    Mode::SendFile(chunk) => chunk,
                    _ => usize::MAX,
                };
                while conn.sent < *length {
                    let mut offset = conn.sent;
                    let want = usize::try_from(length - conn.sent).unwrap_or(chunk);
                    sendfile(&conn.socket, file, Some(&mut offset), want.min(chunk))?;
                    conn.sent = offset;
                }
            }
        }
        Ok(())
    }

    fn wait(&mut self, mut conn: Conn, flags: EventFlags) -> Result<()> {
        let wanted = match flags {
            EventFlags::IN => Registered::ForReading,
            _ => Registered::ForWriting,
        };
        let key = conn.socket.as_raw_fd() as usize;
        let data = EventData::new_u64(key as u64);
        if conn.registered == Registered::No {
            epoll::add(&self.epoll, conn.socket.as_fd(), data, flags)?;
        } else if conn.registered != wanted {
            epoll::modify(&self.epoll, conn.socket.as_fd(), data, flags)?;
        }
        conn.registered = wanted;
        if self.conns.len() <= key {
            self.conns.resize_with(key + 1, || None);
        }
        self.conns[key] = Some(conn);
        Ok(())
    }
}
