//! The sockets of a soak's clients.

use std::io;
use std::net::SocketAddr;

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

use crate::soak::plan::{Choice, Plan};
use crate::soak::population::ClientKind;
use crate::sockopt;

/// Opens a socket as a kind of client has it, and begins to connect it. The number of the request
/// chooses among the local addresses, which are taken in turn.
pub(super) fn connect(plan: &Plan, choice: Choice, number: u64) -> io::Result<TcpStream> {
    let (kind, address) = (choice.kind, plan.address(choice.side));
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    if kind == ClientKind::Slow {
        // Before connect: the window is announced with the SYN.
        socket.set_recv_buffer_size(plan.slow_buffer)?;
    }
    // The request follows the handshake's last bytes at once, and would wait for their ACK.
    if kind == ClientKind::Split || plan.tls(choice.side).is_some() {
        socket.set_tcp_nodelay(true)?;
    }
    if let Some(turn) = number.checked_rem(plan.sources.len() as u64) {
        sockopt::bind_without_port(&socket)?;
        let source = SocketAddr::new(plan.sources[turn as usize], 0);
        socket.bind(&source.into())?;
    }
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}
