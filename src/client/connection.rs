//! From a server's address to a connection whose silence has a limit, and what to say when it
//! fails.

use std::io::{self, ErrorKind};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use super::Failure;
use crate::cli::{ClientArgs, Exit, ServerAddress};
use crate::escape::Escaped;

/// Connects to the first of the host's addresses that answers. Each has the connect timeout for
/// itself, and no read or write of the connection waits longer than the timeout.
///
/// # Errors
/// [`Exit::Network`], with what came of every address.
pub(super) fn connect(server: &ServerAddress, patience: &ClientArgs) -> Result<TcpStream, Failure> {
    let addresses = (server.host.as_str(), server.port)
        .to_socket_addrs()
        .map_err(|error| {
            let host = Escaped(server.host.as_bytes());
            Failure::new(Exit::Network, format!("cannot resolve {host}: {error}"))
        })?;
    let mut refusals = Vec::new();
    for address in addresses {
        let connected = TcpStream::connect_timeout(&address, patience.connect_timeout)
            .and_then(|stream| limit_silence(&stream, patience.timeout).map(|()| stream));
        match connected {
            Ok(stream) => return Ok(stream),
            Err(error) => refusals.push(format!("{address}: {error}")),
        }
    }
    let line = format!("cannot connect: {}", refusals.join("; "));
    Err(Failure::new(Exit::Network, line))
}

fn limit_silence(stream: &TcpStream, timeout: Duration) -> io::Result<()> {
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))
}

/// The failure of a connection, in words. The kernel reports our own timeout as `EAGAIN`.
pub(super) fn broken(what: &str, error: &io::Error, patience: &ClientArgs) -> Failure {
    let line = if error.kind() == ErrorKind::WouldBlock {
        let timeout = humantime::format_duration(patience.timeout);
        format!("{what}: nothing moved for {timeout}")
    } else {
        format!("{what}: {error}")
    };
    Failure::new(Exit::Network, line)
}
