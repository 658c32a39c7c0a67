//! A socket whose system calls are recorded.

use std::io;
use std::net::SocketAddr;

use super::record::{Call, Failed, call, made, transfer};
use crate::conn::transport::{SendFileError, Socket, Transport};
use crate::file::OpenFile;
use crate::sockopt::TcpTimes;

/// A client's socket for one step. Without a trace it is the socket.
#[derive(Debug)]
pub struct TracedSocket<'a>(Socket<'a>);

impl<'a> TracedSocket<'a> {
    /// Over a socket.
    pub fn new(socket: Socket<'a>) -> Self {
        Self(socket)
    }

    /// For what the kernel has waited, which it tells of TCP alone.
    #[must_use]
    pub fn tcp_times(&self) -> Option<TcpTimes> {
        made(Call::AskTcpInfo, || self.0.tcp_times())
    }
}

impl Transport for TracedSocket<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.0.is_withheld() {
            return self.0.read(buf);
        }
        transfer(Call::Receive, buf.len(), || self.0.read(buf))
    }

    fn write(&mut self, bytes: &[u8], more: bool) -> io::Result<usize> {
        transfer(Call::Send, bytes.len(), || self.0.write(bytes, more))
    }

    fn write_gathered(&mut self, first: &[u8], second: &[u8], more: bool) -> io::Result<usize> {
        transfer(Call::SendGathered, first.len() + second.len(), || {
            self.0.write_gathered(first, second, more)
        })
    }

    fn flush(&mut self) {
        if self.0.holds_back() {
            made(Call::Flush, || self.0.flush());
        }
    }

    fn send_file(
        &mut self,
        file: &OpenFile,
        offset: u64,
        count: usize,
    ) -> Result<usize, SendFileError> {
        if file.handle().is_none() {
            return self.0.send_file(file, offset, count);
        }
        transfer(Call::SendFile, count, || {
            self.0.send_file(file, offset, count)
        })
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        call(Call::ShutDown, || self.0.shutdown_write())
    }

    fn reset_on_close(&mut self, on: bool) {
        made(Call::Guard, || self.0.reset_on_close(on));
    }

    fn takes_at_once(&self) -> u64 {
        self.0.takes_at_once()
    }

    fn acked_bytes(&mut self, sent: u64) -> u64 {
        made(Call::AskTcpInfo, || self.0.acked_bytes(sent))
    }

    fn peer_has_finished(&mut self) -> bool {
        made(Call::AskTcpInfo, || self.0.peer_has_finished())
    }

    fn reached_address(&self) -> Option<SocketAddr> {
        made(Call::AskAddress, || self.0.reached_address())
    }
}

impl Failed for SendFileError {
    fn errno(&self) -> i32 {
        match self {
            Self::WouldBlock => libc::EAGAIN,
            Self::Socket(error) | Self::File(error) => error.errno(),
            Self::Unsupported => libc::EOPNOTSUPP,
        }
    }
}
