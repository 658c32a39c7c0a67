//! The few socket options that neither the standard library nor socket2 has, made by nix's macro,
//! which compiles under `forbid(unsafe_code)`. Each names its kernel type.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::sync::LazyLock;
use std::time::Duration;

use crate::trace::record::{self, Call};
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use nix::sys::socket::{getsockopt, setsockopt};
use nix::{getsockopt_impl, setsockopt_impl, sockopt_impl};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, SockRef};

/// The head of the kernel's `struct tcp_info` (`include/uapi/linux/tcp.h`), as far as
/// `tcpi_bytes_acked`. The kernel fills as much as is asked for, so every Linux since 4.1 serves
/// this length; a longer struct would not fit older ones.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the kernel's header documents them")]
pub struct TcpInfoHead {
    pub state: u8,
    pub flags: [u8; 7],
    pub rto_to_rcv_mss: [u32; 4],
    /// Of a listener: how many connections wait to be accepted (`tcp_get_info`).
    pub unacked: u32,
    pub sacked_to_total_retrans: [u32; 19],
    pub pacing_rate: u64,
    pub max_pacing_rate: u64,
    /// RFC 4898 tcpEStatsAppHCThruOctetsAcked: bytes that the peer has acknowledged.
    pub bytes_acked: u64,
}

sockopt_impl!(
    /// TCP_INFO: what the kernel knows about the connection.
    TcpInfo, GetOnly, libc::IPPROTO_TCP, libc::TCP_INFO, TcpInfoHead
);

/// The kernel's `struct tcp_info` as far as `tcpi_rwnd_limited`, which every Linux since 4.10 fills.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the kernel's header documents them")]
pub struct LongTcpInfo {
    pub state_to_last_ack_sent: [u8; 52],
    /// Milliseconds since data came.
    pub last_data_recv: u32,
    pub last_ack_recv_to_delivery_rate: [u64; 14],
    /// Microseconds in which something that was written was not sent or not acknowledged.
    pub busy_time: u64,
    /// Those of them in which the next segment didn't fit into the peer's window.
    pub rwnd_limited: u64,
}

sockopt_impl!(
    /// TCP_INFO, further.
    TcpInfoTimes, GetOnly, libc::IPPROTO_TCP, libc::TCP_INFO, LongTcpInfo
);

/// For what a TCP connection has waited, as the kernel counts it, in its ticks of up to 10 ms.
#[derive(Clone, Copy, Debug)]
pub struct TcpTimes {
    /// Since data came last.
    pub since_data_came: Duration,
    /// For how long in all there was something that was not sent, or that the peer had not acknowledged.
    pub busy: Duration,
    /// For how much of that the next segment didn't fit into its receive window.
    pub window_full: Duration,
}

/// For what a connection has waited.
///
/// # Errors
/// Only if the descriptor is no TCP socket.
pub fn tcp_times(socket: &impl AsFd) -> io::Result<TcpTimes> {
    let info = getsockopt(socket, TcpInfoTimes)?;
    Ok(TcpTimes {
        since_data_came: Duration::from_millis(info.last_data_recv.into()),
        busy: Duration::from_micros(info.busy_time),
        window_full: Duration::from_micros(info.rwnd_limited),
    })
}

sockopt_impl!(
    /// IP_MINTTL, an `int`: segments with a lower TTL are dropped (RFC 5082).
    MinTtl, Both, libc::IPPROTO_IP, libc::IP_MINTTL, i32
);

sockopt_impl!(
    /// IPV6_MINHOPCOUNT, an `int`: the same for IPv6.
    MinHopCount, Both, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, i32
);

sockopt_impl!(
    /// TCP_DEFER_ACCEPT, an `int` of seconds: a listener's clients are accepted when they have said
    /// something, or after so long (tcp(7)). The kernel counts in retransmissions of its SYN-ACK,
    /// so it reads back rounded up.
    DeferAccept, Both, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, i32
);

/// The memory of a socket, as `include/uapi/linux/sock_diag.h` orders it, as far as what was sent holds it.
const SK_MEMINFO_WMEM_ALLOC: usize = 2;

sockopt_impl!(
    /// SO_MEMINFO: the kernel fills as much as is asked for.
    MemInfo, GetOnly, libc::SOL_SOCKET, SO_MEMINFO, [u32; SK_MEMINFO_WMEM_ALLOC + 1]
);

/// `include/uapi/asm-generic/socket.h`.
const SO_MEMINFO: i32 = 55;

sockopt_impl!(
    /// SO_MAX_PACING_RATE, an `unsigned long` of bytes a second (socket(7)). TCP paces by itself where the
    /// queueing discipline doesn't.
    MaxPacingRate, Both, libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, libc::c_ulong
);

/// Has the kernel send no faster than so many bytes a second on a socket, or on each that a listener will
/// accept: they inherit it.
///
/// # Errors
/// The descriptor is no socket.
pub fn set_pacing_rate_max(socket: &impl AsFd, bytes_per_second: u64) -> io::Result<()> {
    Ok(setsockopt(socket, MaxPacingRate, &bytes_per_second)?)
}

/// Lets a listener's clients be accepted when they have said something, or after so many seconds.
///
/// # Errors
/// Only if the descriptor is no TCP socket.
pub fn set_defer_accept(listener: &impl AsFd, seconds: i32) -> io::Result<()> {
    Ok(setsockopt(listener, DeferAccept, &seconds)?)
}

/// How long a listener's silent clients wait, at most.
///
/// # Errors
/// Only if the descriptor is no TCP socket.
pub fn defer_accept(listener: &impl AsFd) -> io::Result<Duration> {
    let seconds = record::call(Call::AskListener, || getsockopt(listener, DeferAccept))?;
    Ok(Duration::from_secs(seconds.unsigned_abs().into()))
}

/// How many connections wait in a listener's accept queue. Of a unix socket's the kernel tells only
/// whether there is one.
///
/// # Errors
/// Only if the descriptor is no socket.
pub fn accept_queue_len(listener: &impl AsFd) -> io::Result<u32> {
    if is_unix(listener) {
        return Ok(u32::from(is_ready(listener, PollFlags::IN)?));
    }
    let info = record::call(Call::AskListener, || getsockopt(listener, TcpInfo));
    Ok(info?.unacked)
}

/// Whether it is a unix socket (unix(7)), which has no options of TCP's.
#[must_use]
pub fn is_unix(socket: &impl AsFd) -> bool {
    record::call(Call::AskListener, || SockRef::from(socket).domain())
        .is_ok_and(|domain| domain == Domain::UNIX)
}

/// poll(2), without a wait.
fn is_ready(socket: &impl AsFd, flags: PollFlags) -> io::Result<bool> {
    let mut sockets = [PollFd::new(socket, flags)];
    poll(&mut sockets, Some(&Timespec::default()))?;
    Ok(sockets[0].revents().contains(flags))
}

/// Higher than what senders begin with (64 or 128) less the hops on the way. A neighbour that
/// begins with 255 gets through, and is treated like those who came before.
pub const TTL_OF_NOBODY: i32 = 255;

/// Drops segments whose TTL or hop count is lower; zero takes all. On a listener that concerns
/// SYNs, while the ACKs that end a handshake pass, so it keeps new clients out and loses none of
/// those in its queue. A socket filter would do the same, but newer kernels want CAP_NET_ADMIN for
/// one on a TCP socket.
///
/// # Errors
/// Only if the descriptor is no IP socket.
pub fn set_ttl_min(socket: &impl AsFd, ttl_min: i32) -> io::Result<()> {
    // An IPv6 socket takes both: IPv4 clients may come by it too.
    let set = Call::SetListener;
    record::call(set, || setsockopt(socket, MinTtl, &ttl_min))?;
    let ask = Call::AskListener;
    if record::call(ask, || SockRef::from(socket).domain())? == Domain::IPV6 {
        record::call(set, || setsockopt(socket, MinHopCount, &ttl_min))?;
    }
    Ok(())
}

/// Leaves the choice of the port to connect(2), which may share it among servers: ip(7),
/// IP_BIND_ADDRESS_NO_PORT. Without it a bind to an address takes a port of its own.
///
/// # Errors
/// Only if the descriptor is no IP socket.
pub fn bind_without_port(socket: &impl AsFd) -> io::Result<()> {
    Ok(setsockopt(socket, IpBindAddressNoPort, &true)?)
}

/// What the kernel lets the send buffer of a TCP socket grow to, in bytes: tcp(7), `tcp_wmem`. Where it
/// doesn't say, as much as it does by default.
#[must_use]
pub fn send_buffer_max() -> u64 {
    static MAX: LazyLock<u64> = LazyLock::new(|| {
        let sizes = fs::read_to_string("/proc/sys/net/ipv4/tcp_wmem").unwrap_or_default();
        let max = sizes.split_whitespace().nth(2);
        max.and_then(|max| max.parse().ok()).unwrap_or(4 << 20)
    });
    *MAX
}

/// How many of our bytes the peer has acknowledged so far.
///
/// # Errors
/// Only if the descriptor is no TCP socket.
pub fn acked_bytes(socket: &impl AsFd) -> io::Result<u64> {
    Ok(getsockopt(socket, TcpInfo)?.bytes_acked)
}

/// How much memory holds what was sent by a unix socket and its peer hasn't read, in bytes: never less than
/// the bytes themselves, and none when it has read all.
///
/// # Errors
/// Only if the descriptor is no socket.
pub fn unread_memory(socket: &impl AsFd) -> io::Result<u64> {
    Ok(u64::from(
        getsockopt(socket, MemInfo)?[SK_MEMINFO_WMEM_ALLOC],
    ))
}

/// Whether the peer has shut its side (tcp(7), CLOSE-WAIT).
///
/// # Errors
/// Only if the descriptor is no socket.
pub fn peer_has_finished(socket: &impl AsFd) -> io::Result<bool> {
    const TCP_CLOSE_WAIT: u8 = 8; // include/net/tcp_states.h
    if is_unix(socket) {
        return is_ready(socket, PollFlags::RDHUP);
    }
    Ok(getsockopt(socket, TcpInfo)?.state == TCP_CLOSE_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn the_struct_ends_where_the_kernel_says() {
        assert_eq!(std::mem::offset_of!(TcpInfoHead, bytes_acked), 120);
        assert_eq!(size_of::<TcpInfoHead>(), 128);
        assert_eq!(
            std::mem::offset_of!(TcpInfoHead, unacked),
            std::mem::offset_of!(libc::tcp_info, tcpi_unacked)
        );
        assert_eq!(std::mem::offset_of!(libc::tcp_info, tcpi_bytes_acked), 120);
        assert_eq!(
            std::mem::offset_of!(LongTcpInfo, last_data_recv),
            std::mem::offset_of!(libc::tcp_info, tcpi_last_data_recv)
        );
        // After `tcpi_delivery_rate`; libc's struct ends before.
        assert_eq!(std::mem::offset_of!(LongTcpInfo, busy_time), 168);
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
    fn the_accept_queue_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(accept_queue_len(&listener).unwrap(), 0);
        let _clients = [
            TcpStream::connect(address).unwrap(),
            TcpStream::connect(address).unwrap(),
        ];
        assert_eq!(accept_queue_len(&listener).unwrap(), 2);
        let _accepted = listener.accept().unwrap();
        assert_eq!(accept_queue_len(&listener).unwrap(), 1);
    }

    #[test]
    fn a_silent_client_is_accepted_late_and_one_that_speaks_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(defer_accept(&listener).unwrap(), Duration::ZERO);
        set_defer_accept(&listener, 1).unwrap();
        assert_eq!(defer_accept(&listener).unwrap(), Duration::from_secs(1));
        let address = listener.local_addr().unwrap();
        let silent = TcpStream::connect(address).unwrap();
        let mut speaks = TcpStream::connect(address).unwrap();
        speaks.write_all(b"x").unwrap();
        for client in [speaks, silent] {
            let peer = listener.accept().unwrap().1;
            assert_eq!(peer, client.local_addr().unwrap());
        }
    }

    #[test]
    fn the_least_ttl_keeps_new_clients_out_and_those_in_the_queue() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                assert_ne!(address, "127.0.0.1:0");
                continue;
            };
            let address = listener.local_addr().unwrap();
            let mut queued = TcpStream::connect(address).unwrap();
            set_ttl_min(&listener, TTL_OF_NOBODY).unwrap();
            assert_eq!(getsockopt(&listener, MinTtl).unwrap(), TTL_OF_NOBODY);
            let late = TcpStream::connect_timeout(&address, std::time::Duration::from_millis(100));
            assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
            queued.write_all(b"x").unwrap();
            let (mut accepted, _) = listener.accept().unwrap();
            accepted.read_exact(&mut [0]).unwrap();
            set_ttl_min(&listener, 0).unwrap();
            TcpStream::connect(address).unwrap();
        }
    }

    #[test]
    fn the_least_hop_count_is_set_where_there_is_one() {
        let Ok(listener) = TcpListener::bind("[::1]:0") else {
            return;
        };
        set_ttl_min(&listener, TTL_OF_NOBODY).unwrap();
        assert_eq!(getsockopt(&listener, MinHopCount).unwrap(), TTL_OF_NOBODY);
    }

    #[test]
    fn of_a_unix_socket_is_known_what_its_peer_has_left() {
        let (mut client, mut server) = UnixStream::pair().unwrap();
        assert!(is_unix(&server) && acked_bytes(&server).is_err());
        assert_eq!(unread_memory(&server).unwrap(), 0);
        server.write_all(&[7; 1000]).unwrap();
        assert!(unread_memory(&server).unwrap() >= 1000);
        client.read_exact(&mut [0; 1000]).unwrap();
        assert_eq!(unread_memory(&server).unwrap(), 0);
        assert!(!peer_has_finished(&server).unwrap());
        client.shutdown(Shutdown::Write).unwrap();
        assert!(peer_has_finished(&server).unwrap());
    }

    #[test]
    fn of_a_unix_sockets_queue_is_known_whether_anybody_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(accept_queue_len(&listener).unwrap(), 0);
        let _clients = [(); 2].map(|()| UnixStream::connect(&path).unwrap());
        assert_eq!(accept_queue_len(&listener).unwrap(), 1);
    }

    #[test]
    fn the_pacing_rate_is_inherited() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // More than 32 bits hold.
        set_pacing_rate_max(&listener, 5_000_000_000).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(getsockopt(&accepted, MaxPacingRate).unwrap(), 5_000_000_000);
    }

    #[test]
    fn what_is_no_socket_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        assert!(acked_bytes(&file).is_err());
    }
}
