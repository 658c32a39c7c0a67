//! The few socket options that neither the standard library nor socket2 has, made by nix's macro,
//! which compiles under `forbid(unsafe_code)`. Each names its kernel type.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::getsockopt;
use nix::{getsockopt_impl, sockopt_impl};

/// The head of the kernel's `struct tcp_info` (`include/uapi/linux/tcp.h`), as far as
/// `tcpi_bytes_acked`. The kernel fills as much as is asked for, so every Linux since 4.1 serves
/// this length; a longer struct would not fit older ones.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the kernel's header documents them")]
pub struct TcpInfoHead {
    pub flags: [u8; 8],
    pub counters: [u32; 24],
    pub pacing_rate: u64,
    pub max_pacing_rate: u64,
    /// RFC 4898 tcpEStatsAppHCThruOctetsAcked: bytes that the peer has acknowledged.
    pub bytes_acked: u64,
}

sockopt_impl!(
    /// TCP_INFO: what the kernel knows about the connection.
    TcpInfo, GetOnly, libc::IPPROTO_TCP, libc::TCP_INFO, TcpInfoHead
);

/// How many of our bytes the peer has acknowledged so far.
///
/// # Errors
/// Only if the descriptor is no TCP socket.
pub fn acked_bytes(socket: &impl AsFd) -> io::Result<u64> {
    Ok(getsockopt(socket, TcpInfo)?.bytes_acked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_struct_ends_where_the_kernel_says() {
        assert_eq!(std::mem::offset_of!(TcpInfoHead, bytes_acked), 120);
        assert_eq!(size_of::<TcpInfoHead>(), 128);
        assert_eq!(std::mem::offset_of!(libc::tcp_info, tcpi_bytes_acked), 120);
    }

    #[test]
    fn acknowledged_bytes_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let before = acked_bytes(&server).unwrap();
        server.write_all(&[7; 1000]).unwrap();
        client.read_exact(&mut [0; 1000]).unwrap();
        // The answer carries the acknowledgement of everything read before it.
        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0; 1]).unwrap();
        assert_eq!(acked_bytes(&server).unwrap() - before, 1000);
    }

    #[test]
    fn what_is_no_socket_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        assert!(acked_bytes(&file).is_err());
    }
}
