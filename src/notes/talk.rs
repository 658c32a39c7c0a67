//! Sockets whose calls are drawn on a chart. Each is made, blocking as in the notes, and what it gives is
//! what is shown.

use std::io::{self, Read as _};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::errno::Errno;
use rustix::io::ioctl_fionread;
use socket2::{Domain, Socket, Type};

use super::chart::{Chart, Line, Side, Wire};
use crate::limits::{NOTES_CONNECT_TIMEOUT, NOTES_RECEIVE_TIMEOUT};

/// What a call came to; an error of the kernel's is part of what is shown.
pub(super) type Outcome<T> = Result<T, Errno>;

/// What is sent to a side.
fn to(side: Side, label: impl Into<String>) -> Option<Wire> {
    Some(Wire {
        to: side,
        label: label.into(),
        is_lost: false,
    })
}

fn other(side: Side) -> Side {
    match side {
        Side::Client => Side::Server,
        Side::Server => Side::Client,
    }
}

fn errno(error: &io::Error) -> Errno {
    // A timeout of the standard library's has no number.
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::ETIMEDOUT))
}

impl Chart<'_> {
    /// Draws a call, and what it came to in words.
    fn call<T>(
        &mut self,
        by: Side,
        call: String,
        outcome: io::Result<T>,
        words: impl FnOnce(&T) -> String,
        wire: Option<Wire>,
    ) -> io::Result<Outcome<T>> {
        let outcome = outcome.map_err(|error| errno(&error));
        let result = match &outcome {
            Ok(value) => words(value),
            Err(errno) => format!("{errno:?}"),
        };
        self.add(Line::Call {
            by,
            call,
            result,
            wire,
            answer: None,
        })?;
        Ok(outcome)
    }

    pub(super) fn heading(&mut self, text: &'static str) -> io::Result<()> {
        self.add(Line::Heading(text))
    }

    pub(super) fn socket(&mut self, by: Side) -> io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_read_timeout(Some(NOTES_RECEIVE_TIMEOUT))?;
        let number = socket.as_raw_fd();
        let _ = self.call(by, "socket()".into(), Ok(()), |()| number.to_string(), None)?;
        Ok(socket)
    }

    pub(super) fn bind(
        &mut self,
        by: Side,
        socket: &Socket,
        at: SocketAddr,
    ) -> io::Result<Outcome<()>> {
        let call = format!("bind({}, {at})", socket.as_raw_fd());
        self.call(by, call, socket.bind(&at.into()), |()| "0".into(), None)
    }

    pub(super) fn listen(&mut self, socket: &Socket, backlog: i32) -> io::Result<Outcome<()>> {
        let call = format!("listen({}, {backlog})", socket.as_raw_fd());
        self.call(
            Side::Server,
            call,
            socket.listen(backlog),
            |()| "0".into(),
            None,
        )
    }

    /// Its own address.
    pub(super) fn address(&mut self, by: Side, socket: &Socket) -> io::Result<SocketAddr> {
        let call = format!("getsockname({})", socket.as_raw_fd());
        let address = address_of(socket)?;
        let _ = self.call(by, call, Ok(()), |()| address.to_string(), None)?;
        Ok(address)
    }

    pub(super) fn connect(&mut self, socket: &Socket, at: SocketAddr) -> io::Result<Outcome<()>> {
        self.connect_within(socket, at, NOTES_RECEIVE_TIMEOUT)
    }

    /// As `connect`, of one for whom there is no place: it gives up sooner than the kernel.
    pub(super) fn connect_in_vain(
        &mut self,
        socket: &Socket,
        at: SocketAddr,
    ) -> io::Result<Outcome<()>> {
        self.connect_within(socket, at, NOTES_CONNECT_TIMEOUT)
    }

    fn connect_within(
        &mut self,
        socket: &Socket,
        at: SocketAddr,
        within: Duration,
    ) -> io::Result<Outcome<()>> {
        let outcome = socket.connect_timeout(&at.into(), within);
        let outcome = outcome.map_err(|error| errno(&error));
        let (result, answer) = match outcome {
            Ok(()) => ("0".into(), Some("SYN, ACK")),
            Err(Errno::ECONNREFUSED) => ("ECONNREFUSED".into(), Some("RST")),
            Err(Errno::ETIMEDOUT) => (format!("gave up after {} ms", within.as_millis()), None),
            Err(errno) => (format!("{errno:?}"), None),
        };
        self.add(Line::Call {
            by: Side::Client,
            call: format!("connect({}, {at})", socket.as_raw_fd()),
            result,
            wire: Some(Wire {
                to: Side::Server,
                label: "SYN".into(),
                is_lost: answer.is_none(),
            }),
            answer: answer.and_then(|label| to(Side::Client, label)),
        })?;
        Ok(outcome)
    }

    /// The new socket, and whom it is for.
    pub(super) fn accept(&mut self, listener: &Socket) -> io::Result<Outcome<Socket>> {
        let call = format!("accept({})", listener.as_raw_fd());
        let accepted = listener.accept().and_then(|(socket, peer)| {
            socket.set_read_timeout(Some(NOTES_RECEIVE_TIMEOUT))?;
            Ok((socket, peer.as_socket()))
        });
        let words = |(socket, peer): &(Socket, Option<SocketAddr>)| {
            let peer = peer
                .map(|peer| format!(", from port {}", peer.port()))
                .unwrap_or_default();
            format!("{}{peer}", socket.as_raw_fd())
        };
        let outcome = self.call(Side::Server, call, accepted, words, None)?;
        Ok(outcome.map(|(socket, _)| socket))
    }

    pub(super) fn send(
        &mut self,
        by: Side,
        socket: &Socket,
        text: &str,
    ) -> io::Result<Outcome<usize>> {
        let call = format!("send({}, \"{text}\")", socket.as_raw_fd());
        // Without the flag an error would be a signal, too: send(2).
        let outcome = socket.send_with_flags(text.as_bytes(), libc::MSG_NOSIGNAL);
        let wire = outcome
            .as_ref()
            .ok()
            .and_then(|sent| to(other(by), format!("{sent} bytes")));
        self.call(by, call, outcome, usize::to_string, wire)
    }

    /// As much as the kernel takes at once, which is more than it can deliver before the peer reads.
    pub(super) fn send_much(&mut self, by: Side, socket: &Socket) -> io::Result<Outcome<usize>> {
        let call = format!("send({}, 4 MiB, DONTWAIT)", socket.as_raw_fd());
        socket.set_nonblocking(true)?;
        let outcome = socket.send_with_flags(&vec![b'x'; 4 << 20], libc::MSG_NOSIGNAL);
        self.call(by, call, outcome, usize::to_string, to(other(by), "bytes"))
    }

    /// All that comes, until it ends, well or otherwise.
    pub(super) fn receive_all(&mut self, by: Side, socket: &Socket) -> io::Result<()> {
        let mut bytes = Vec::new();
        let end = (&*socket).read_to_end(&mut bytes);
        let end = end.map_or_else(|error| format!("{:?}", errno(&error)), |_| "0".into());
        let call = format!("recv({}), again and again", socket.as_raw_fd());
        let words = |bytes: &Vec<u8>| format!("{} in all, then {end}", bytes.len());
        let _ = self.call(by, call, Ok(bytes), words, None)?;
        Ok(())
    }

    /// What has come, or zero bytes for a FIN.
    pub(super) fn receive(&mut self, by: Side, socket: &Socket) -> io::Result<Outcome<String>> {
        let call = format!("recv({})", socket.as_raw_fd());
        let mut buffer = [0; 64];
        let read = (&*socket).read(&mut buffer);
        let text = read.map(|count| String::from_utf8_lossy(&buffer[..count]).into_owned());
        let words = |text: &String| match text.len() {
            0 => "0".into(),
            count => format!("{count}, \"{text}\""),
        };
        self.call(by, call, text, words, None)
    }

    /// The end of what it sends.
    pub(super) fn half_close(&mut self, by: Side, socket: &Socket) -> io::Result<()> {
        let call = format!("shutdown({}, SHUT_WR)", socket.as_raw_fd());
        let outcome = socket.shutdown(Shutdown::Write);
        let _ = self.call(by, call, outcome, |()| "0".into(), to(other(by), "FIN"))?;
        Ok(())
    }

    /// Closes a connection's socket: with a reset if it has not read everything.
    pub(super) fn close(&mut self, by: Side, socket: Socket) -> io::Result<()> {
        let label = match ioctl_fionread(&socket)? {
            0 => "FIN",
            _ => "RST",
        };
        self.drop_socket(by, socket, to(other(by), label))
    }

    /// Closes one without a connection.
    pub(super) fn close_listener(&mut self, by: Side, socket: Socket) -> io::Result<()> {
        self.drop_socket(by, socket, None)
    }

    fn drop_socket(&mut self, by: Side, socket: Socket, wire: Option<Wire>) -> io::Result<()> {
        let call = format!("close({})", socket.as_raw_fd());
        drop(socket);
        let _ = self.call(by, call, Ok(()), |()| "0".into(), wire)?;
        Ok(())
    }
}

/// Where a socket is.
pub(super) fn address_of(socket: &Socket) -> io::Result<SocketAddr> {
    let address = socket.local_addr()?.as_socket();
    address.ok_or_else(|| io::Error::other("a socket of IPv4 has no such address"))
}
