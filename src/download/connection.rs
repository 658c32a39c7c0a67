//! A connection whose every wait has a limit, by TCP alone or with TLS on it, and what is said when it
//! fails.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};

use super::backoff::FetchError;
use crate::download::args::ClientArgs;
use crate::escape::{Escaped, EscapedText};
use crate::failure::{Exit, Failure};
use crate::flags::ServerAddress;
use crate::tls::client::{Connector, Refusal};
use crate::units;

/// How long a connect, a silence and the whole download may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeLimits {
    args: ClientArgs,
    deadline: Option<Instant>,
}

impl TimeLimits {
    /// The time for the whole download begins now.
    pub(super) fn starting_now(args: ClientArgs) -> Self {
        let deadline = args
            .max_time
            .and_then(|time| Instant::now().checked_add(time));
        Self { args, deadline }
    }

    /// The time that is left for the whole download, if it has a limit.
    pub(super) fn left(&self) -> Option<Duration> {
        self.deadline
            .map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// This limit, or what is left for the whole download if that is less.
    fn at_most(&self, limit: Duration) -> io::Result<Duration> {
        match self.left() {
            Some(Duration::ZERO) => Err(self.timed_out()),
            Some(left) => Ok(left.min(limit)),
            None => Ok(limit),
        }
    }

    /// The error of a wait that came to its end.
    fn timed_out(&self) -> io::Error {
        let is_over = self.left() == Some(Duration::ZERO);
        let text = match self.args.max_time.filter(|_| is_over) {
            Some(time) => format!("it takes longer than {}", units::duration(time)),
            None => {
                let timeout = units::duration(self.args.timeout);
                format!("nothing moved for {timeout}")
            }
        };
        io::Error::new(ErrorKind::TimedOut, text)
    }
}

/// A connection to a server.
#[derive(Debug)]
pub(super) enum Connection {
    Plain(Socket),
    /// With rustls's blocking stream, for which an end without a close_notify is none: it is an error
    /// (RFC 8446, 6.1).
    Tls(Box<StreamOwned<ClientConnection, Socket>>),
}

/// A socket on which no read and no write waits longer than it may.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    time_limits: TimeLimits,
}

impl Connection {
    /// Connects without TLS.
    ///
    /// # Errors
    /// [`Exit::Network`].
    pub(super) fn open(
        server: &ServerAddress,
        time_limits: &TimeLimits,
    ) -> Result<Self, FetchError> {
        Socket::open(server, time_limits).map(Self::Plain)
    }

    /// Connects, and shakes hands by TLS, for a protocol by its name in ALPN if it has one.
    ///
    /// # Errors
    /// [`Exit::Network`]; [`Exit::Untrusted`] if the server can't show who it is.
    pub(super) fn open_tls(
        server: &ServerAddress,
        time_limits: &TimeLimits,
        connector: &Connector,
        protocol: Option<&[u8]>,
    ) -> Result<Self, FetchError> {
        let tls = connector
            .connect(&server.host, protocol)
            .map_err(|line| Failure::new(Exit::Untrusted, line))?;
        let socket = Socket::open(server, time_limits)?;
        // The request follows the handshake's last bytes at once, and would wait for their ACK. A socket
        // that has gone already says so when it is written to.
        let _ = socket.stream.set_nodelay(true);
        let mut stream = StreamOwned::new(tls, socket);
        while stream.conn.is_handshaking() {
            let shaken = stream.conn.complete_io(&mut stream.sock);
            shaken.map_err(|error| handshake_failed(&error))?;
        }
        Ok(Self::Tls(Box::new(stream)))
    }

    /// Tells the server that nothing more will be sent.
    ///
    /// # Errors
    /// The connection has gone.
    pub(super) fn shutdown_write(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.stream.shutdown(Shutdown::Write),
            Self::Tls(stream) => {
                stream.conn.send_close_notify();
                stream.flush()?;
                stream.sock.stream.shutdown(Shutdown::Write)
            }
        }
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer).map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => {
                    let cut = "the server closed the connection without a close_notify of TLS";
                    io::Error::new(ErrorKind::UnexpectedEof, cut)
                }
                _ => error,
            }),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

impl Socket {
    /// Connects to the first of the host's addresses that answers. Each has the connect timeout for
    /// itself, and so has the search for them.
    ///
    /// # Errors
    /// [`Exit::Network`], with the error of every address. A host that can't be found today won't be
    /// found in a second either.
    fn open(server: &ServerAddress, time_limits: &TimeLimits) -> Result<Self, FetchError> {
        let permanent = |why: &dyn std::fmt::Display| {
            let host = Escaped(server.host.as_bytes());
            let why = EscapedText(&why.to_string()).to_string();
            Failure::new(Exit::Network, format!("cannot resolve {host}: {why}"))
        };
        let addresses = resolve(server, time_limits).map_err(|error| permanent(&error))?;
        let mut refusals = Vec::new();
        for address in addresses {
            match connect(address, time_limits) {
                Ok(stream) => {
                    let time_limits = *time_limits;
                    return Ok(Self {
                        stream,
                        time_limits,
                    });
                }
                Err(error) => refusals.push(format!("{address}: {error}")),
            }
        }
        let line = format!("cannot connect: {}", refusals.join("; "));
        Err(FetchError::Transient(
            Failure::new(Exit::Network, line),
            None,
        ))
    }

    /// With a limit for the whole download, each wait may be shorter than the one before.
    fn limit_wait(&self) -> io::Result<()> {
        if self.time_limits.deadline.is_none() {
            return Ok(());
        }
        let limit = self.time_limits.at_most(self.time_limits.args.timeout)?;
        limit_silence(&self.stream, limit)
    }

    /// The kernel reports our own timeout as `EAGAIN`.
    fn map_timeout(&self, error: io::Error) -> io::Error {
        match error.kind() {
            ErrorKind::WouldBlock => self.time_limits.timed_out(),
            _ => error,
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.limit_wait()?;
            match self.stream.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result.map_err(|error| self.map_timeout(error)),
            }
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.limit_wait()?;
            match self.stream.write(bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result.map_err(|error| self.map_timeout(error)),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The addresses of a host. The resolver knows no limit; a thread of its own waits for it, and is
/// left behind if that takes too long.
fn resolve(server: &ServerAddress, time_limits: &TimeLimits) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = server.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, server.port)]);
    }
    let limit = time_limits.at_most(time_limits.args.connect_timeout)?;
    let (host, port) = (server.host.clone(), server.port);
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().spawn(move || {
        let found = (host.as_str(), port).to_socket_addrs();
        // Nobody may be waiting any more.
        let _ = sender.send(found.map(Vec::from_iter));
    })?;
    receiver.recv_timeout(limit).unwrap_or_else(|_| {
        let limit = units::duration(limit);
        let text = format!("no answer within {limit}");
        Err(io::Error::new(ErrorKind::TimedOut, text))
    })
}

fn connect(address: SocketAddr, time_limits: &TimeLimits) -> io::Result<TcpStream> {
    let limit = time_limits.at_most(time_limits.args.connect_timeout)?;
    let stream = TcpStream::connect_timeout(&address, limit)?;
    limit_silence(&stream, time_limits.args.timeout)?;
    Ok(stream)
}

fn limit_silence(stream: &TcpStream, timeout: Duration) -> io::Result<()> {
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))
}

/// A server that broke off may be better later; one that can't show who it is stays so.
fn handshake_failed(error: &io::Error) -> FetchError {
    match Refusal::of(error) {
        Some(refusal) if refusal.is_certificate => {
            Failure::new(Exit::Untrusted, refusal.line).into()
        }
        Some(refusal) => {
            let line = format!("TLS could not be set up: {}", refusal.line);
            Failure::new(Exit::Network, line).into()
        }
        None => {
            let failure = if error.kind() == ErrorKind::UnexpectedEof {
                let line = "TLS could not be set up: the server closed the connection";
                Failure::new(Exit::Network, line)
            } else {
                broken("TLS could not be set up", error)
            };
            FetchError::Transient(failure, None)
        }
    }
}

/// The failure of a connection, in words.
pub(super) fn broken(what: &str, error: &io::Error) -> Failure {
    let error = EscapedText(&error.to_string()).to_string();
    Failure::new(Exit::Network, format!("{what}: {error}"))
}
