//! What a client reads from and writes to: its socket, or TLS on it. Calls would block as the socket's do.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::Shutdown;

use mio::net::TcpStream;
use rustls::HandshakeKind;

use crate::conn::transport::Socket;
use crate::soak::plan::TlsTarget;
use crate::tls::session::{Attempts, Blocked, Buffers, Client, Session};

/// A connection as its client speaks on it.
pub(super) enum Channel {
    Plain,
    Tls(Box<Session<Client>>),
}

impl Channel {
    /// Begins TLS on a socket that has connected. Nothing is sent yet.
    pub(super) fn tls(target: &TlsTarget) -> io::Result<Self> {
        let session = Session::new(Client(target.begin()?), &[])?;
        Ok(Self::Tls(Box::new(session)))
    }

    /// Goes on with the handshake. When it is over, returns whether it resumed a session.
    pub(super) fn shake_hands(
        &mut self,
        socket: &mut TcpStream,
        buffers: &mut Buffers,
    ) -> io::Result<bool> {
        let Self::Tls(session) = self else {
            return Ok(false);
        };
        session.shake_hands(
            &mut Attempts::new(&mut Socket::new(socket), &mut Blocked::default()),
            buffers,
        )?;
        Ok(session.common().handshake_kind() == Some(HandshakeKind::Resumed))
    }

    /// Reads what has come; zero bytes are an end, be it TLS's or the socket's alone.
    pub(super) fn read(
        &mut self,
        socket: &mut TcpStream,
        bytes: &mut [u8],
        buffers: &mut Buffers,
    ) -> io::Result<usize> {
        let Self::Tls(session) = self else {
            return socket.read(bytes);
        };
        let read = session.read(
            &mut Attempts::new(&mut Socket::new(socket), &mut Blocked::default()),
            bytes,
            buffers,
        );
        match read {
            Err(_) if session.is_cut() => Ok(0),
            read => read,
        }
    }

    /// Whether the last end was the socket's alone: anybody on the way can forge that.
    pub(super) fn is_cut(&self) -> bool {
        matches!(self, Self::Tls(session) if session.is_cut())
    }

    /// Writes; what would have blocked is written again.
    pub(super) fn write(
        &mut self,
        socket: &mut TcpStream,
        bytes: &[u8],
        buffers: &mut Buffers,
    ) -> io::Result<usize> {
        match self {
            Self::Plain => socket.write(bytes),
            Self::Tls(session) => session.write(
                &mut Attempts::new(&mut Socket::new(socket), &mut Blocked::default()),
                bytes,
                false,
                buffers,
            ),
        }
    }

    /// Says that nothing more will be written.
    pub(super) fn shutdown_write(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        match self {
            Self::Plain => socket.shutdown(Shutdown::Write),
            Self::Tls(session) => session.shutdown_write(&mut Attempts::new(
                &mut Socket::new(socket),
                &mut Blocked::default(),
            )),
        }
    }

    /// Whether nothing of an answer, and no end, has come. Tickets of TLS are read away.
    pub(super) fn is_quiet(&mut self, socket: &mut TcpStream, buffers: &mut Buffers) -> bool {
        let waits = match self {
            Self::Plain => socket.peek(&mut [0]),
            Self::Tls(_) => self.read(socket, &mut [0], buffers),
        };
        matches!(waits, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }
}
