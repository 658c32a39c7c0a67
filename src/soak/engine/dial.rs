//! The sockets of a soak's clients.

use std::io;
use std::net::{IpAddr, SocketAddr};

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

use super::Engine;
use crate::soak::population::ClientKind;
use crate::sockopt;

impl Engine<'_> {
    /// Opens a socket as a kind of client has it, and begins to connect it.
    pub(super) fn open_socket(&self, kind: ClientKind) -> io::Result<TcpStream> {
        let plan = self.plan;
        let family = Domain::for_address(plan.address);
        let socket = Socket::new(
            family,
            Type::STREAM.nonblocking().cloexec(),
            Some(Protocol::TCP),
        )?;
        if kind == ClientKind::Slow {
            // Before connect: the window is announced with the SYN.
            socket.set_recv_buffer_size(plan.slow_buffer)?;
        }
        if kind == ClientKind::Split {
            socket.set_tcp_nodelay(true)?;
        }
        if let Some(source) = self.source(plan.sources.len()) {
            sockopt::bind_without_port(&socket)?;
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        match socket.connect(&plan.address.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
            _ => Ok(TcpStream::from_std(socket.into())),
        }
    }

    /// Local addresses are taken in turn.
    fn source(&self, count: usize) -> Option<IpAddr> {
        let turn = self.tally.started().checked_rem(count as u64)?;
        Some(self.plan.sources[turn as usize])
    }
}
