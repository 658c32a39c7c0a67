//! A socket under a schedule whose peer speaks TLS: rustls on both sides.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, ServerConfig};

use super::wire::Wire as Tcp;
use super::{Edges, Turning};
use crate::conn::transport::{SendFileError, Transport};
use crate::file::{OpenFile, Probe, ReadError};
use crate::reactor::event::{Action, Event, StepContext};
use crate::telemetry::Stage;
use crate::tls::session::Blocked;
use crate::tls::transport::{Terminator, TlsTransport, Wire};

/// How a client ends its side, when it has asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientEnd {
    /// It doesn't.
    Open,
    /// By a close_notify alone.
    Notify,
    /// By a close_notify and a FIN.
    NotifyAndFin,
    /// By a FIN alone.
    Fin,
}

/// The server's transport, and the client at its other end.
#[allow(missing_debug_implementations, reason = "what is done to it has none")]
pub struct TlsWire {
    /// The socket between the two.
    pub tcp: Tcp,
    client: ClientConnection,
    end: ClientEnd,
    /// The client has said all that it will, but for what TLS makes it say.
    has_said_all: bool,
    /// It changes its keys, so many times.
    key_updates: u32,
    /// How many of the sent bytes it has taken.
    taken: usize,
    /// What it has received.
    pub received: Vec<u8>,
    /// Whether the server has said goodbye.
    pub is_told_goodbye: bool,
    /// What the client found wrong.
    pub error: Option<rustls::Error>,
    /// What is done to what it says, once, in so many times.
    harm: Option<(usize, Harm)>,
    wire: Wire,
    terminator: Terminator,
    blocked: Blocked,
}

/// Changes what a client says.
type Harm = Box<dyn FnOnce(&mut Vec<u8>)>;

impl TlsWire {
    /// A client that asks for this over a socket on which nothing has come yet.
    ///
    /// # Panics
    /// The client can't be made.
    pub fn new(
        tcp: Tcp,
        (server, client): (&Arc<ServerConfig>, &Arc<ClientConfig>),
        request: &[u8],
        end: ClientEnd,
        key_updates: u32,
    ) -> Self {
        let name = "localhost".try_into().expect("a name");
        let mut client = ClientConnection::new(Arc::clone(client), name).expect("it is configured");
        client.writer().write_all(request).expect("it is short");
        Self {
            tcp,
            client,
            end,
            has_said_all: false,
            key_updates,
            taken: 0,
            received: Vec::new(),
            is_told_goodbye: false,
            error: None,
            harm: None,
            wire: Wire::Unknown,
            terminator: Terminator::new(Arc::clone(server), Arc::default()),
            blocked: Blocked::default(),
        }
    }

    /// Does something to what the client says, before it says it for the first, second... time.
    pub fn harm(&mut self, flight: usize, harm: impl FnOnce(&mut Vec<u8>) + 'static) {
        self.harm = Some((flight, Box::new(harm)));
    }

    fn line(&mut self) -> TlsTransport<'_, Tcp> {
        TlsTransport::new(
            &mut self.tcp,
            &mut self.blocked,
            &mut self.wire,
            &mut self.terminator,
        )
    }

    /// The client takes what was sent, and answers.
    pub fn pump(&mut self) {
        let mut sent = &self.tcp.sent[self.taken..];
        while !sent.is_empty() && self.error.is_none() {
            let taken = self.client.read_tls(&mut sent).expect("it is memory");
            if taken == 0 {
                break;
            }
            match self.client.process_new_packets() {
                Ok(state) => self.is_told_goodbye |= state.peer_has_closed(),
                Err(error) => self.error = Some(error),
            }
            // An error means that there is nothing now.
            let _ = self.client.reader().read_to_end(&mut self.received);
        }
        self.taken = self.tcp.sent.len() - sent.len();
        if !self.client.is_handshaking() && !self.has_said_all {
            if matches!(self.end, ClientEnd::Notify | ClientEnd::NotifyAndFin) {
                self.client.send_close_notify();
            }
            self.has_said_all = true;
        }
        if self.key_updates > 0 && self.end == ClientEnd::Open && !self.received.is_empty() {
            self.key_updates -= 1;
            // TLS 1.2 has none.
            let _ = self.client.refresh_traffic_keys();
        }
        let mut said = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut said).expect("it is memory");
        }
        match &mut self.harm {
            Some((0, _)) if !said.is_empty() => {
                if let Some((_, harm)) = self.harm.take() {
                    harm(&mut said);
                }
            }
            Some((left, _)) if !said.is_empty() => *left -= 1,
            _ => {}
        }
        let fin = matches!(self.end, ClientEnd::NotifyAndFin | ClientEnd::Fin);
        self.tcp.say(&said, fin && self.has_said_all);
    }
}

impl Turning for TlsWire {
    fn begin_turn(&mut self) {
        self.pump();
        self.blocked = Blocked::default();
        self.terminator.turn_over();
        self.tcp.begin_turn();
    }

    fn holds_back(&self) -> bool {
        self.tcp.holds_back()
    }

    fn before_step(&mut self, event: Event) -> Option<Action> {
        self.line().before_step(event)
    }

    fn after_step(&mut self, next: Action, stage: Stage, turn: &mut StepContext<'_>) -> Action {
        self.line().after_step(next, stage, turn)
    }
}

impl Edges for TlsWire {
    fn edge(&mut self) -> Option<Event> {
        self.pump();
        self.tcp.edge()
    }
}

impl Transport for TlsWire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.line().read(buf)
    }

    fn write(&mut self, bytes: &[u8], more: bool) -> io::Result<usize> {
        self.line().write(bytes, more)
    }

    fn write_gathered(&mut self, first: &[u8], second: &[u8], more: bool) -> io::Result<usize> {
        self.line().write_gathered(first, second, more)
    }

    fn flush(&mut self) {
        self.line().flush();
    }

    fn send_file(
        &mut self,
        file: &OpenFile,
        offset: u64,
        count: usize,
    ) -> Result<usize, SendFileError> {
        self.line().send_file(file, offset, count)
    }

    fn sends_files(&self) -> bool {
        matches!(self.wire, Wire::Plain)
    }

    fn is_encrypted(&self) -> bool {
        matches!(self.wire, Wire::Tls(_))
    }

    fn would_block(&mut self, file: &OpenFile, start: u64, count: usize, probe: Probe) -> bool {
        self.line().would_block(file, start, count, probe)
    }

    fn read_file(
        &mut self,
        file: &OpenFile,
        buf: &mut [u8],
        start: u64,
    ) -> Result<usize, ReadError> {
        self.line().read_file(file, buf, start)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.line().shutdown_write()
    }

    fn reset_on_close(&mut self, on: bool) {
        self.line().reset_on_close(on);
    }

    fn acked_bytes(&mut self, sent: u64) -> u64 {
        self.line().acked_bytes(sent)
    }

    fn peer_has_finished(&mut self) -> bool {
        self.line().peer_has_finished()
    }

    fn reached_address(&self) -> Option<SocketAddr> {
        None
    }
}
