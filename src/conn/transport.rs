//! What a connection may do to its socket and with a file, and the socket that does it. Tests put a
//! scripted one in its place.

use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use mio::net::TcpStream;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use socket2::SockRef;

use crate::file::{OpenFile, Probe, ReadError};
use crate::limits::{SEND_BUFFER_SHARE, SENDFILE_CHUNK_BYTES};
use crate::sockopt::{self, TcpTimes};

/// A non-blocking byte stream. Calls that would block fail with [`io::ErrorKind::WouldBlock`];
/// EINTR never comes through.
pub trait Transport {
    /// Reads what is there. Zero means that the peer has shut its side.
    ///
    /// # Errors
    /// `WouldBlock`, or the connection broke.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes what the kernel takes. `more` promises that within this step the connection is closed,
    /// written to or flushed: the kernel may hold a part of a segment back for it (MSG_MORE).
    ///
    /// # Errors
    /// `WouldBlock`, or the connection broke.
    fn write(&mut self, bytes: &[u8], more: bool) -> io::Result<usize>;

    /// As [`Transport::write`], of two pieces with one call. Where the kernel can gather them, nothing is
    /// copied together.
    ///
    /// # Errors
    /// `WouldBlock`, or the connection broke.
    fn write_gathered(&mut self, first: &[u8], second: &[u8], more: bool) -> io::Result<usize> {
        self.write(&[first, second].concat(), more)
    }

    /// Has the kernel send what it holds back.
    fn flush(&mut self);

    /// Sends up to `count` bytes of the file from `offset` on, without copying them to user
    /// space. Zero means that the file ends there.
    ///
    /// # Errors
    /// Whose fault it was.
    fn send_file(
        &mut self,
        file: &OpenFile,
        offset: u64,
        count: usize,
    ) -> Result<usize, SendFileError>;

    /// Whether [`Transport::send_file`] can do it at all.
    fn sends_files(&self) -> bool {
        true
    }

    /// Whether nobody between here and the peer can read along.
    fn is_encrypted(&self) -> bool {
        false
    }

    /// Whether sending so many bytes of the file from `start` on may wait for a disk: see
    /// [`OpenFile::would_block`].
    fn would_block(&mut self, file: &OpenFile, start: u64, count: usize, probe: Probe) -> bool {
        file.would_block(start, count, probe)
    }

    /// Reads from the file: see [`OpenFile::read_nowait`].
    ///
    /// # Errors
    /// The read would have to wait for a disk, or failed.
    fn read_file(
        &mut self,
        file: &OpenFile,
        buf: &mut [u8],
        start: u64,
    ) -> Result<usize, ReadError> {
        file.read_nowait(buf, start)
    }

    /// Says that no more will be written: a FIN after what was accepted.
    ///
    /// # Errors
    /// The connection broke before.
    fn shutdown_write(&mut self) -> io::Result<()>;

    /// While on, the end of the socket, even by the process's sudden death, is a reset:
    /// SO_LINGER with zero seconds. A body that was cut short must not end like a whole one.
    fn reset_on_close(&mut self, on: bool);

    /// The longest body, in bytes, that one call takes whole or not at all, as long as the peer has
    /// taken what came before: only the end of the process between two calls can cut one.
    fn takes_at_once(&self) -> u64 {
        SENDFILE_CHUNK_BYTES
    }

    /// How many bytes the peer has acknowledged, of `sent` in all that were written. A FIN counts for one.
    fn acked_bytes(&mut self, sent: u64) -> u64;

    /// Whether the peer has shut its side, as one does that has left, and one that only has no more
    /// to say.
    fn peer_has_finished(&mut self) -> bool;

    /// The address to which the peer has connected.
    fn reached_address(&self) -> Option<SocketAddr>;
}

/// Why a file could not be sent on.
#[derive(Debug)]
pub enum SendFileError {
    /// The socket has no room.
    WouldBlock,
    /// The socket failed.
    Socket(io::Error),
    /// The file could not be read.
    File(io::Error),
    /// It can't be done, or isn't allowed: copy instead.
    Unsupported,
}

/// The real transport, for one step: TCP, or a unix socket in mio's type for TCP.
#[derive(Debug)]
pub struct Socket<'a> {
    stream: &'a mut TcpStream,
    /// The kernel may hold back what was written last.
    holds_back: bool,
    /// What comes next isn't the connection's own.
    is_withheld: bool,
}

impl<'a> Socket<'a> {
    /// The transport of a non-blocking socket.
    pub fn new(stream: &'a mut TcpStream) -> Self {
        Self {
            stream,
            holds_back: false,
            is_withheld: false,
        }
    }

    /// While it is on, reads would block: what comes next isn't the connection's own.
    #[must_use]
    pub fn withheld(mut self, is_withheld: bool) -> Self {
        self.is_withheld = is_withheld;
        self
    }

    /// Whether reads would block without a call.
    #[must_use]
    pub fn is_withheld(&self) -> bool {
        self.is_withheld
    }

    /// Whether the kernel may hold back what was written last.
    #[must_use]
    pub fn holds_back(&self) -> bool {
        self.holds_back
    }

    /// For what the kernel has waited, which it tells of TCP alone.
    #[must_use]
    pub fn tcp_times(&self) -> Option<TcpTimes> {
        sockopt::tcp_times(&self.stream).ok()
    }

    fn send(
        &mut self,
        more: bool,
        call: impl Fn(&TcpStream, SendFlags) -> rustix::io::Result<usize>,
    ) -> io::Result<usize> {
        let mut flags = SendFlags::NOSIGNAL;
        flags.set(SendFlags::MORE, more);
        let sent = retry_interrupted(|| Ok(call(self.stream, flags)?))?;
        self.holds_back = more;
        Ok(sent)
    }
}

impl Transport for Socket<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.is_withheld {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // The standard library's read is a point at which a thread can be cancelled, which costs.
        retry_interrupted(|| Ok(rustix::net::recv(&*self.stream, &mut *buf, RecvFlags::empty())?.0))
    }

    fn write(&mut self, bytes: &[u8], more: bool) -> io::Result<usize> {
        self.send(more, |stream, flags| {
            rustix::net::send(stream, bytes, flags)
        })
    }

    fn write_gathered(&mut self, first: &[u8], second: &[u8], more: bool) -> io::Result<usize> {
        let pieces = [IoSlice::new(first), IoSlice::new(second)];
        self.send(more, |stream, flags| {
            let mut nothing_else = SendAncillaryBuffer::default();
            rustix::net::sendmsg(stream, &pieces, &mut nothing_else, flags)
        })
    }

    /// tcp(7): to set TCP_NODELAY, which is set already, sends what waits. A unix socket holds nothing back.
    fn flush(&mut self) {
        if std::mem::take(&mut self.holds_back)
            && let Err(error) = self.stream.set_nodelay(true)
            && error.raw_os_error() != Some(Errno::OPNOTSUPP.raw_os_error())
        {
            log::debug!("TCP_NODELAY: {error}");
        }
    }

    fn send_file(
        &mut self,
        file: &OpenFile,
        mut offset: u64,
        count: usize,
    ) -> Result<usize, SendFileError> {
        let Some(handle) = file.handle() else {
            return Err(SendFileError::Unsupported);
        };
        let probe = offset;
        self.holds_back = false;
        loop {
            return match rustix::fs::sendfile(&*self.stream, handle, Some(&mut offset), count) {
                Ok(sent) => Ok(sent),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Err(SendFileError::WouldBlock),
                // The file system can't do it, or a sandbox forbids it. What is wrong with the file or
                // the socket shows when the bytes are copied.
                Err(
                    Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS,
                ) => Err(SendFileError::Unsupported),
                // sendfile doesn't say which end failed, so the file is asked.
                Err(errno) => Err(match file.read_blocking(&mut [0], probe) {
                    Ok(_) => SendFileError::Socket(errno.into()),
                    Err(error) => SendFileError::File(error),
                }),
            };
        }
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    fn reset_on_close(&mut self, on: bool) {
        let linger = on.then_some(Duration::ZERO);
        if let Err(error) = SockRef::from(&*self.stream).set_linger(linger) {
            log::debug!("SO_LINGER: {error}");
        }
    }

    fn takes_at_once(&self) -> u64 {
        SENDFILE_CHUNK_BYTES.min(sockopt::send_buffer_max() / SEND_BUFFER_SHARE)
    }

    /// A unix socket's peer has no kernel of its own: what it hasn't read is still in our memory.
    fn acked_bytes(&mut self, sent: u64) -> u64 {
        let of_unix = |_| match sockopt::unread_memory(&*self.stream)? {
            0 => Ok(sent + 1),
            unread => Ok(sent.saturating_sub(unread)),
        };
        let acked: io::Result<u64> = sockopt::acked_bytes(&*self.stream).or_else(of_unix);
        acked.unwrap_or(0)
    }

    fn peer_has_finished(&mut self) -> bool {
        sockopt::peer_has_finished(&*self.stream).unwrap_or(false)
    }

    fn reached_address(&self) -> Option<SocketAddr> {
        self.stream.local_addr().ok()
    }
}

fn retry_interrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
