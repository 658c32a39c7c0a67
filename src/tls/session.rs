//! One TLS connection over a transport: rustls decides, this keeps what is left over between two calls.
//!
//! - What comes is read into the loop's buffer and decrypted there. A record that is half there is kept,
//!   and so is what was decrypted beyond what was asked for: no edge tells of that.
//! - A write counts as accepted once the socket has taken all that became of it. Until then it blocks,
//!   and what is left of the ciphertext is kept; the caller comes with the same bytes again.
//! - rustls sees the same bytes again until it has used them: it knows places in them.
//! - close_notify goes out when the write side is shut, and so never after what was cut off.

use std::fmt;
use std::io::{self, ErrorKind};
use std::ops::Deref;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, UnbufferedConnectionCommon, UnbufferedStatus,
};
use rustls::{CommonState, Error, InvalidMessage};

use crate::conn::transport::Transport;
use crate::limits::{TLS_INPUT_BYTES, TLS_OUTPUT_BYTES, TLS_WRITE_BYTES_MAX};

/// A side of a connection, as rustls has it.
pub trait Side: fmt::Debug {
    /// What rustls tells the two by.
    type Data;

    /// Goes on with what has come.
    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// What is known of the connection.
    fn common(&self) -> &CommonState;
}

/// The server's side.
pub struct Server(pub UnbufferedServerConnection);

/// The client's.
pub struct Client(pub UnbufferedClientConnection);

macro_rules! side {
    ($side:ident, $data:ident) => {
        impl Side for $side {
            type Data = $data;

            fn process<'c, 'i>(
                &'c mut self,
                incoming: &'i mut [u8],
            ) -> UnbufferedStatus<'c, 'i, $data> {
                self.0.process_tls_records(incoming)
            }

            fn common(&self) -> &CommonState {
                let common: &UnbufferedConnectionCommon<$data> = &self.0;
                common.deref()
            }
        }

        impl fmt::Debug for $side {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($side))
            }
        }
    };
}

side!(Server, ServerConnectionData);
side!(Client, ClientConnectionData);

/// What all sessions of a loop share: nothing in it outlives a call.
#[derive(Debug)]
pub struct Buffers {
    input: Box<[u8]>,
    output: Box<[u8]>,
    /// Pieces that shall share records.
    joined: Vec<u8>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self {
            input: vec![0; TLS_INPUT_BYTES].into(),
            output: vec![0; TLS_OUTPUT_BYTES].into(),
            joined: Vec::with_capacity(TLS_WRITE_BYTES_MAX),
        }
    }
}

/// What would have blocked in this step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Blocked {
    read: bool,
    write: bool,
}

/// A transport that is not asked again in a step in which it would have blocked.
#[derive(Debug)]
pub struct Attempts<'a, T> {
    /// The transport.
    pub inner: &'a mut T,
    blocked: &'a mut Blocked,
}

impl<'a, T: Transport> Attempts<'a, T> {
    /// In a step of which this is known.
    pub fn new(inner: &'a mut T, blocked: &'a mut Blocked) -> Self {
        Self { inner, blocked }
    }

    pub(super) fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.blocked.read {
            return Err(ErrorKind::WouldBlock.into());
        }
        let result = self.inner.read(buf);
        self.blocked.read = would_block(&result);
        result
    }

    pub(super) fn write(&mut self, bytes: &[u8], more: bool) -> io::Result<usize> {
        if self.blocked.write {
            return Err(ErrorKind::WouldBlock.into());
        }
        let result = self.inner.write(bytes, more);
        self.blocked.write = would_block(&result);
        result
    }
}

fn would_block<V>(result: &io::Result<V>) -> bool {
    matches!(result, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// How far the peer's side is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PeerSide {
    Open,
    /// Its close_notify has come.
    Closed,
    /// A FIN has come without one.
    Cut,
}

/// What one read of the socket has brought.
#[derive(Default)]
struct Received {
    /// How many bytes were decrypted.
    decrypted: usize,
    /// The read was a short one, which has emptied the receive queue.
    is_short: bool,
}

/// Why a connection ended that the peer has broken, as an [`io::Error`] holds it.
#[derive(Debug)]
pub struct Fault(pub Error);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TLS: {}", self.0)
    }
}

impl std::error::Error for Fault {}

/// A message of the handshake that the loop's buffer doesn't hold.
const TOO_LONG: Error = Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge);

/// What has been decrypted: into the reader's buffer, and what it has no room for beside it.
struct Plaintext<'a> {
    buf: &'a mut [u8],
    filled: usize,
    rest: &'a mut Vec<u8>,
}

impl Plaintext<'_> {
    fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        let fits = bytes.len().min(self.buf.len() - self.filled);
        self.buf[self.filled..][..fits].copy_from_slice(&bytes[..fits]);
        self.filled += fits;
        keep(self.rest, &bytes[fits..])
    }
}

/// Keeps bytes of which a peer decides how many there are.
fn keep(kept: &mut Vec<u8>, bytes: &[u8]) -> io::Result<()> {
    kept.try_reserve_exact(bytes.len())?;
    kept.extend_from_slice(bytes);
    Ok(())
}

/// Takes what goes away in front, and the memory with the last of it.
fn take(kept: &mut Vec<u8>, count: usize) {
    if count == kept.len() {
        *kept = Vec::new();
    } else {
        kept.drain(..count);
    }
}

/// A TLS connection.
#[derive(Debug)]
pub struct Session<S> {
    side: S,
    /// What has come of a record, or of a message that takes several.
    partial: Vec<u8>,
    /// rustls has not seen what is in `partial`.
    is_unseen: bool,
    /// What was decrypted and not read yet.
    plaintext: Vec<u8>,
    /// Ciphertext that the socket has not taken.
    outgoing: Vec<u8>,
    /// How many bytes of a write became what was kept of it; it is accepted when that is gone.
    unaccepted: usize,
    peer_side: PeerSide,
    /// The peer has said something since it was written to last.
    is_asking: bool,
    /// A FIN shall follow what is kept.
    fin_follows: bool,
    has_said_goodbye: bool,
    has_failed: bool,
    /// Accepted bytes, and what of them and all else the socket has taken.
    plain_sent: u64,
    cipher_sent: u64,
}

impl<S: Side> Session<S> {
    /// A connection of which these bytes have been read already.
    ///
    /// # Errors
    /// There is no memory for them.
    pub fn new(side: S, read: &[u8]) -> io::Result<Self> {
        let mut partial = Vec::new();
        keep(&mut partial, read)?;
        Ok(Self {
            side,
            is_unseen: !partial.is_empty(),
            partial,
            plaintext: Vec::new(),
            outgoing: Vec::new(),
            unaccepted: 0,
            peer_side: PeerSide::Open,
            is_asking: false,
            fin_follows: false,
            has_said_goodbye: false,
            has_failed: false,
            plain_sent: 0,
            cipher_sent: 0,
        })
    }

    /// What rustls knows of the connection.
    pub fn common(&self) -> &CommonState {
        self.side.common()
    }

    /// Whether the peer has broken the protocol, or can't agree with us on one.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Whether the peer was told that no more comes.
    #[must_use]
    pub fn has_said_goodbye(&self) -> bool {
        self.has_said_goodbye
    }

    /// Whether something was sent: a server has answered the hello.
    #[must_use]
    pub fn has_answered(&self) -> bool {
        self.cipher_sent > 0 || !self.outgoing.is_empty()
    }

    /// Whether the peer's side has ended by a FIN without a close_notify.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.peer_side == PeerSide::Cut
    }

    /// Whether a read would bring something, the end included, of which no edge tells.
    #[must_use]
    pub fn has_input(&self) -> bool {
        self.is_unseen || !self.plaintext.is_empty() || self.peer_side != PeerSide::Open
    }

    /// What is kept of what the peer sends, in bytes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.partial.capacity() + self.plaintext.capacity()
    }

    /// Reads what the peer has said. Fewer bytes than asked for mean that nothing more is there.
    ///
    /// # Errors
    /// Nothing is there; the connection broke, or the peer broke the protocol.
    pub fn read<T: Transport>(
        &mut self,
        socket: &mut Attempts<'_, T>,
        buf: &mut [u8],
        buffers: &mut Buffers,
    ) -> io::Result<usize> {
        let mut filled = self.take_plaintext(buf);
        while filled < buf.len() && self.peer_side == PeerSide::Open {
            let received = match self.receive(socket, &mut buf[filled..], buffers) {
                Err(error) if filled > 0 && error.kind() == ErrorKind::WouldBlock => break,
                received => received?,
            };
            filled += received.decrypted;
            if filled > 0 && received.is_short {
                break;
            }
        }
        self.is_asking |= filled > 0 && !self.has_said_goodbye;
        match self.peer_side {
            PeerSide::Cut if filled == 0 && self.is_asking => {
                let cut = "a TLS client has left without a close_notify";
                Err(io::Error::new(ErrorKind::ConnectionAborted, cut))
            }
            _ => Ok(filled),
        }
    }

    /// Reads once from the socket, unless there is something that rustls has not seen.
    fn receive<T: Transport>(
        &mut self,
        socket: &mut Attempts<'_, T>,
        buf: &mut [u8],
        buffers: &mut Buffers,
    ) -> io::Result<Received> {
        let (kept, room) = (self.partial.len(), buffers.input.len());
        if kept == room {
            return Err(self.fail(TOO_LONG));
        }
        buffers.input[..kept].copy_from_slice(&self.partial);
        let fresh = if std::mem::take(&mut self.is_unseen) {
            0
        } else {
            let fresh = socket.read(&mut buffers.input[kept..])?;
            if fresh == 0 {
                self.peer_side = PeerSide::Cut;
                return Ok(Received::default());
            }
            fresh
        };
        Ok(Received {
            decrypted: self.process(&mut buffers.input[..kept + fresh], buf, socket)?,
            is_short: fresh > 0 && kept + fresh < room,
        })
    }

    /// Reads what is to be thrown away, after our goodbye. rustls doesn't see it: it may say nothing any more
    /// of what is wrong with it (RFC 8446, 6.1).
    ///
    /// # Errors
    /// Nothing is there, or the connection broke.
    pub fn read_away<T: Transport>(
        &mut self,
        socket: &mut Attempts<'_, T>,
        buf: &mut [u8],
    ) -> io::Result<usize> {
        (self.partial, self.plaintext) = (Vec::new(), Vec::new());
        self.is_unseen = false;
        if self.peer_side != PeerSide::Open {
            return Ok(0);
        }
        let count = socket.read(buf)?;
        if count == 0 {
            self.peer_side = PeerSide::Cut;
        }
        Ok(count)
    }

    /// Goes on with the handshake, until it is over. A client begins it.
    ///
    /// # Errors
    /// It has to wait; the connection broke, or the two can't agree.
    pub fn shake_hands<T: Transport>(
        &mut self,
        socket: &mut Attempts<'_, T>,
        buffers: &mut Buffers,
    ) -> io::Result<()> {
        while self.common().is_handshaking() {
            if !self.has_answered() {
                self.process(&mut [], &mut [], socket)?;
            }
            self.send_kept(socket, false)?;
            self.receive(socket, &mut [], buffers)?;
            if self.peer_side != PeerSide::Open {
                let closed = "the server closed the connection";
                return Err(io::Error::new(ErrorKind::UnexpectedEof, closed));
            }
        }
        self.send_kept(socket, false)
    }

    fn take_plaintext(&mut self, buf: &mut [u8]) -> usize {
        let count = self.plaintext.len().min(buf.len());
        buf[..count].copy_from_slice(&self.plaintext[..count]);
        take(&mut self.plaintext, count);
        count
    }

    /// Puts what has come to rustls, keeps what of it makes no record yet, and sends what it answers.
    /// Returns how many bytes were decrypted into `buf`.
    fn process<T: Transport>(
        &mut self,
        bytes: &mut [u8],
        buf: &mut [u8],
        socket: &mut Attempts<'_, T>,
    ) -> io::Result<usize> {
        let mut plaintext = Plaintext {
            buf,
            filled: 0,
            rest: &mut self.plaintext,
        };
        let mut used = 0;
        let result = loop {
            let UnbufferedStatus { discard, state } = self.side.process(&mut bytes[used..]);
            used += discard;
            match state.map(|state| go_on(state, Some(&mut plaintext), &mut self.outgoing)) {
                Ok(Ok(Next::Again(discard))) => used += discard,
                Ok(Ok(Next::PeerClosed)) => self.peer_side = PeerSide::Closed,
                Ok(Ok(Next::Enough)) => break Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(error) => break Err(error),
            }
        };
        let filled = plaintext.filled;
        self.partial = Vec::new();
        keep(&mut self.partial, &bytes[used..])?;
        if let Err(error) = result {
            return Err(self.refuse(&error, socket));
        }
        match self.send_kept(socket, false) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(filled),
        }
    }

    /// Tells the peer what is wrong, if the socket has room for it.
    fn refuse<T: Transport>(&mut self, error: &Error, socket: &mut Attempts<'_, T>) -> io::Error {
        // The alert comes first. Nothing after it is asked for: rustls would go on with what has come.
        if let Ok(state @ ConnectionState::EncodeTlsData(_)) =
            self.side.process(&mut self.partial).state
        {
            let _ = go_on(state, None, &mut self.outgoing);
        }
        // If it has none, the alert is lost with the connection.
        let _ = self.send_kept(socket, false);
        self.fail(error.clone())
    }

    fn fail(&mut self, why: Error) -> io::Error {
        self.has_failed = true;
        io::Error::new(ErrorKind::ConnectionAborted, Fault(why))
    }

    /// Sends what is kept.
    ///
    /// # Errors
    /// The socket takes no more of it now, or broke.
    pub fn send_kept<T: Transport>(
        &mut self,
        socket: &mut Attempts<'_, T>,
        more: bool,
    ) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            let sent = socket.write(&self.outgoing, more)?;
            self.cipher_sent += sent as u64;
            take(&mut self.outgoing, sent);
        }
        if std::mem::take(&mut self.fin_follows) {
            socket.inner.shutdown_write()?;
        }
        Ok(())
    }

    /// Encrypts and sends. What it returns as accepted, the socket has taken.
    ///
    /// # Errors
    /// The socket takes no more now, or broke.
    pub fn write<T: Transport>(
        &mut self,
        socket: &mut Attempts<'_, T>,
        bytes: &[u8],
        more: bool,
        buffers: &mut Buffers,
    ) -> io::Result<usize> {
        self.send_kept(socket, more)?;
        self.is_asking = false;
        if self.unaccepted == 0 {
            let plain = &bytes[..bytes.len().min(TLS_WRITE_BYTES_MAX)];
            let mut encrypted = self.encrypt(plain, &mut buffers.output)?;
            self.unaccepted = plain.len();
            if self.outgoing.is_empty() {
                // Most often all is taken, and nothing is kept.
                match socket.write(encrypted, more) {
                    Ok(sent) => {
                        self.cipher_sent += sent as u64;
                        encrypted = &encrypted[sent..];
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            keep(&mut self.outgoing, encrypted)?;
            self.send_kept(socket, more)?;
        }
        let accepted = self.unaccepted.min(bytes.len());
        self.unaccepted -= accepted;
        self.plain_sent += accepted as u64;
        Ok(accepted)
    }

    /// As [`Session::write`], of two pieces that share records.
    ///
    /// # Errors
    /// As [`Session::write`].
    pub fn write_gathered<T: Transport>(
        &mut self,
        socket: &mut Attempts<'_, T>,
        (first, second): (&[u8], &[u8]),
        more: bool,
        buffers: &mut Buffers,
    ) -> io::Result<usize> {
        if first.is_empty() {
            return self.write(socket, second, more, buffers);
        }
        let mut joined = std::mem::take(&mut buffers.joined);
        joined.clear();
        for piece in [first, second] {
            let room = TLS_WRITE_BYTES_MAX - joined.len();
            joined.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        let result = self.write(socket, &joined, more, buffers);
        buffers.joined = joined;
        result
    }

    fn encrypt<'o>(&mut self, plain: &[u8], output: &'o mut [u8]) -> io::Result<&'o [u8]> {
        while !self.has_failed {
            match self.side.process(&mut self.partial).state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    let count = traffic.encrypt(plain, output).map_err(unencrypted)?;
                    return Ok(&output[..count]);
                }
                // What rustls has to say comes first: a ticket, new keys.
                Ok(
                    state @ (ConnectionState::EncodeTlsData(_)
                    | ConnectionState::TransmitTlsData(_)),
                ) => {
                    go_on(state, None, &mut self.outgoing)?;
                }
                _ => break,
            }
        }
        Err(ErrorKind::NotConnected.into())
    }

    /// Says goodbye to a peer that has been told everything: a close_notify, which is kept if the
    /// socket has no room for it.
    ///
    /// # Errors
    /// The socket has no room now, or broke.
    pub fn say_goodbye<T: Transport>(&mut self, socket: &mut Attempts<'_, T>) -> io::Result<()> {
        self.is_asking = false;
        if !std::mem::replace(&mut self.has_said_goodbye, true)
            && !self.has_failed
            && let Ok(ConnectionState::WriteTraffic(mut traffic)) =
                self.side.process(&mut self.partial).state
        {
            let mut alert = [0; 64];
            let count = traffic
                .queue_close_notify(&mut alert)
                .map_err(unencrypted)?;
            self.outgoing.extend_from_slice(&alert[..count]);
        }
        self.send_kept(socket, false)
    }

    /// Says goodbye, and that no more will be written: a FIN after what is kept.
    ///
    /// # Errors
    /// The connection broke.
    pub fn shutdown_write<T: Transport>(&mut self, socket: &mut Attempts<'_, T>) -> io::Result<()> {
        self.fin_follows = true;
        match self.say_goodbye(socket) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    /// How many bytes the peer has acknowledged of what was accepted, if it has acknowledged so many of
    /// all that was sent. Never too many.
    #[must_use]
    pub fn acked_bytes(&self, of_sent: impl FnOnce(u64) -> u64) -> u64 {
        let acked = self.plain_sent.saturating_add(of_sent(self.cipher_sent));
        acked.saturating_sub(self.cipher_sent)
    }
}

fn unencrypted(error: EncryptError) -> io::Error {
    io::Error::other(format!("TLS: {error}"))
}

/// What comes after a state of rustls.
enum Next {
    /// The next state, when so many more bytes are thrown away.
    Again(usize),
    /// The same; and no more will come from the peer.
    PeerClosed,
    /// More input is needed.
    Enough,
}

/// Does what a state of rustls asks for. `plaintext` is there where bytes may have come.
fn go_on<Data>(
    state: ConnectionState<'_, '_, Data>,
    plaintext: Option<&mut Plaintext<'_>>,
    outgoing: &mut Vec<u8>,
) -> io::Result<Next> {
    match (state, plaintext) {
        (ConnectionState::ReadTraffic(mut traffic), Some(plaintext)) => {
            let mut discard = 0;
            while let Some(record) = traffic.next_record() {
                let record = record.map_err(io::Error::other)?;
                discard += record.discard;
                plaintext.push(record.payload)?;
            }
            Ok(Next::Again(discard))
        }
        (ConnectionState::EncodeTlsData(mut data), _) => {
            if let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) {
                let start = outgoing.len();
                outgoing.resize(start + size.required_size, 0);
                data.encode(&mut outgoing[start..])
                    .map_err(io::Error::other)?;
            }
            Ok(Next::Again(0))
        }
        (ConnectionState::TransmitTlsData(data), _) => {
            data.done();
            Ok(Next::Again(0))
        }
        (ConnectionState::PeerClosed, _) => Ok(Next::PeerClosed),
        // Early data is not offered.
        _ => Ok(Next::Enough),
    }
}
