//! A client's transport where certificates are configured: its first byte tells whether it speaks TLS.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::server::UnbufferedServerConnection;
use rustls::{HandshakeKind, ServerConfig};

use super::session::{Attempts, Blocked, Buffers, Server, Session};
use crate::conn::transport::{SendFileError, Transport};
use crate::conn::{Conn, StepIo};
use crate::file::{OpenFile, Probe, ReadError};
use crate::limits::{LINGER_IDLE, TLS_HANDSHAKES_PER_TURN_MAX, TLS_STEPS_PER_HANDSHAKE};
use crate::protocol::Protocol;
use crate::reactor::event::{Action, Event, StepContext};
use crate::telemetry::{Reason, Stage};

/// A record of the handshake begins with it (RFC 8446, 5.1). No name does.
const HANDSHAKE: u8 = 0x16;

/// What a client speaks.
#[derive(Debug, Default)]
pub enum Wire {
    /// Not a byte has come.
    #[default]
    Unknown,
    /// Not TLS.
    Plain,
    /// TLS.
    Tls(Box<TlsClient>),
}

/// A client that speaks TLS.
#[derive(Debug)]
pub struct TlsClient {
    session: Session<Server>,
    /// This turn begins no more handshakes.
    is_deferred: bool,
    /// How its handshake ended was counted.
    is_counted: bool,
    /// All is over but its close_notify, for which the socket has no room.
    ending: Option<Action>,
}

/// What all loops have counted of handshakes.
#[derive(Debug, Default)]
pub struct Handshakes {
    /// Those with a certificate.
    pub full: AtomicU64,
    /// Those that resumed a session.
    pub resumed: AtomicU64,
    /// Those that came to nothing.
    pub failed: AtomicU64,
}

impl Handshakes {
    /// Each kind by its word, and how many there were.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, u64); 3] {
        let kinds = [
            ("full", &self.full),
            ("resumed", &self.resumed),
            ("failed", &self.failed),
        ];
        kinds.map(|(kind, count)| (kind, count.load(Ordering::Relaxed)))
    }
}

/// What one loop has for its TLS clients.
#[derive(Debug)]
pub struct Terminator {
    config: Arc<ServerConfig>,
    handshakes: Arc<Handshakes>,
    buffers: Buffers,
    /// How many more it begins in this turn.
    begins: u32,
    /// Steps of clients since one more was granted for them.
    steps: u32,
}

impl Terminator {
    /// For one loop; the configuration and the counters are all loops'.
    #[must_use]
    pub fn new(config: Arc<ServerConfig>, handshakes: Arc<Handshakes>) -> Self {
        Self {
            config,
            handshakes,
            buffers: Buffers::default(),
            begins: TLS_HANDSHAKES_PER_TURN_MAX,
            steps: 0,
        }
    }

    /// A turn is over.
    pub fn turn_over(&mut self) {
        self.begins = TLS_HANDSHAKES_PER_TURN_MAX;
    }

    /// A client has had its step. A turn of very many steps takes long, and so begins more handshakes.
    fn count_step(&mut self) {
        self.steps += 1;
        if self.steps == TLS_STEPS_PER_HANDSHAKE {
            self.steps = 0;
            self.begins += 1;
        }
    }

    fn accept(&self, read: &[u8]) -> io::Result<Box<TlsClient>> {
        let connection = UnbufferedServerConnection::new(Arc::clone(&self.config));
        let connection = connection.map_err(io::Error::other)?;
        Ok(Box::new(TlsClient {
            session: Session::new(Server(connection), read)?,
            is_deferred: false,
            is_counted: false,
            ending: None,
        }))
    }
}

impl Wire {
    /// What is kept of what the client sends, in bytes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        match self {
            Self::Unknown | Self::Plain => 0,
            Self::Tls(client) => client.session.held_bytes(),
        }
    }
}

/// A client's transport for one step.
#[derive(Debug)]
pub struct TlsTransport<'a, T> {
    socket: Attempts<'a, T>,
    wire: &'a mut Wire,
    tls: &'a mut Terminator,
}

impl<'a, T: Transport> TlsTransport<'a, T> {
    /// Over a socket. `blocked` is empty when the step begins.
    pub fn new(
        socket: &'a mut T,
        blocked: &'a mut Blocked,
        wire: &'a mut Wire,
        tls: &'a mut Terminator,
    ) -> Self {
        Self {
            socket: Attempts::new(socket, blocked),
            wire,
            tls,
        }
    }

    /// Steps a connection over it.
    pub fn step<P: Protocol>(
        mut self,
        conn: &mut Conn,
        event: Event,
        mut io: StepIo<'_, '_, (), P>,
    ) -> Action {
        self.tls.count_step();
        if let Some(ending) = self.before_step(event) {
            return ending;
        }
        let next = conn.step(&mut io.over(&mut self), event);
        self.after_step(next, conn.stage(), io.turn)
    }

    /// Before a step of the connection: what is kept goes out first. What happens instead of the step,
    /// if all is over but the goodbye.
    pub fn before_step(&mut self, event: Event) -> Option<Action> {
        let Wire::Tls(client) = self.wire else {
            return None;
        };
        // What is wrong with the socket shows in the step.
        let flushed = client.session.send_kept(&mut self.socket, false);
        let ending = client.ending?;
        let waits = matches!(flushed, Err(error) if error.kind() == ErrorKind::WouldBlock);
        let is_late = matches!(event, Event::Deadline | Event::Stop(_) | Event::Reclaim);
        Some(if waits && !is_late {
            Action::Wait
        } else {
            ending
        })
    }

    /// After a step of a connection that is at this stage now: what it wants becomes what it gets.
    pub fn after_step(&mut self, next: Action, stage: Stage, turn: &mut StepContext<'_>) -> Action {
        let Wire::Tls(client) = self.wire else {
            return next;
        };
        if !client.is_counted {
            client.count(&self.tls.handshakes, next);
        }
        match next {
            Action::Wait if std::mem::take(&mut client.is_deferred) => Action::Yield,
            // No edge tells of what was decrypted already.
            Action::Wait if stage != Stage::Sending && client.session.has_input() => Action::Yield,
            Action::Close(_) => {
                let said = client.session.say_goodbye(&mut self.socket);
                if matches!(said, Err(error) if error.kind() == ErrorKind::WouldBlock) {
                    client.ending = Some(next);
                    self.socket.inner.flush();
                    turn.deadline = Some(turn.now + LINGER_IDLE);
                    return Action::Wait;
                }
                next
            }
            // A reset would overtake the alert that tells the client why.
            Action::Reset(Reason::PeerReset) if client.session.has_failed() => {
                self.socket.inner.reset_on_close(false);
                Action::Close(Reason::TlsFailed)
            }
            _ => next,
        }
    }
}

impl TlsClient {
    fn count(&mut self, handshakes: &Handshakes, next: Action) {
        let common = self.session.common();
        let is_over = matches!(next, Action::Close(_) | Action::Reset(_));
        let counter = match common.handshake_kind() {
            Some(HandshakeKind::Resumed) if !common.is_handshaking() => &handshakes.resumed,
            Some(_) if !common.is_handshaking() => &handshakes.full,
            _ if is_over => &handshakes.failed,
            _ => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.is_counted = true;
        if let (Some(version), Some(suite)) =
            (common.protocol_version(), common.negotiated_cipher_suite())
        {
            log::trace!("{version:?}, {:?}", suite.suite());
        }
    }
}

impl<T: Transport> Transport for TlsTransport<'_, T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if let Wire::Unknown = self.wire {
            let count = self.socket.read(buf)?;
            match buf[..count].first() {
                None => return Ok(0),
                Some(&HANDSHAKE) => *self.wire = Wire::Tls(self.tls.accept(&buf[..count])?),
                Some(_) => *self.wire = Wire::Plain,
            }
            if let Wire::Plain = self.wire {
                return Ok(count);
            }
        }
        let Wire::Tls(client) = self.wire else {
            return self.socket.read(buf);
        };
        if client.session.has_said_goodbye() {
            return client.session.read_away(&mut self.socket, buf);
        }
        let begins = !client.session.has_answered();
        if begins && self.tls.begins == 0 {
            client.is_deferred = true;
            return Err(ErrorKind::WouldBlock.into());
        }
        let buffers = &mut self.tls.buffers;
        let result = client.session.read(&mut self.socket, buf, buffers);
        self.tls.begins -= u32::from(begins && client.session.has_answered());
        result
    }

    fn write(&mut self, bytes: &[u8], more: bool) -> io::Result<usize> {
        match self.wire {
            Wire::Tls(client) => {
                let buffers = &mut self.tls.buffers;
                client.session.write(&mut self.socket, bytes, more, buffers)
            }
            Wire::Unknown | Wire::Plain => self.socket.write(bytes, more),
        }
    }

    fn write_gathered(&mut self, first: &[u8], second: &[u8], more: bool) -> io::Result<usize> {
        match self.wire {
            Wire::Tls(client) => {
                let (pieces, buffers) = ((first, second), &mut self.tls.buffers);
                let session = &mut client.session;
                session.write_gathered(&mut self.socket, pieces, more, buffers)
            }
            Wire::Unknown | Wire::Plain => self.socket.inner.write_gathered(first, second, more),
        }
    }

    fn flush(&mut self) {
        self.socket.inner.flush();
    }

    fn send_file(
        &mut self,
        file: &OpenFile,
        offset: u64,
        count: usize,
    ) -> Result<usize, SendFileError> {
        match self.wire {
            Wire::Tls(_) => Err(SendFileError::Unsupported),
            Wire::Unknown | Wire::Plain => self.socket.inner.send_file(file, offset, count),
        }
    }

    fn sends_files(&self) -> bool {
        !self.is_encrypted()
    }

    fn is_encrypted(&self) -> bool {
        matches!(self.wire, Wire::Tls(_))
    }

    fn would_block(&mut self, file: &OpenFile, start: u64, count: usize, probe: Probe) -> bool {
        self.socket.inner.would_block(file, start, count, probe)
    }

    fn read_file(
        &mut self,
        file: &OpenFile,
        buf: &mut [u8],
        start: u64,
    ) -> Result<usize, ReadError> {
        self.socket.inner.read_file(file, buf, start)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        match self.wire {
            Wire::Tls(client) => client.session.shutdown_write(&mut self.socket),
            Wire::Unknown | Wire::Plain => self.socket.inner.shutdown_write(),
        }
    }

    fn reset_on_close(&mut self, on: bool) {
        self.socket.inner.reset_on_close(on);
    }

    fn takes_at_once(&self) -> u64 {
        self.socket.inner.takes_at_once()
    }

    fn acked_bytes(&mut self, sent: u64) -> u64 {
        match self.wire {
            Wire::Tls(client) => {
                let socket = &mut self.socket;
                client
                    .session
                    .acked_bytes(|sent| socket.inner.acked_bytes(sent))
            }
            Wire::Unknown | Wire::Plain => self.socket.inner.acked_bytes(sent),
        }
    }

    fn peer_has_finished(&mut self) -> bool {
        self.socket.inner.peer_has_finished()
    }

    fn reached_address(&self) -> Option<SocketAddr> {
        self.socket.inner.reached_address()
    }
}
