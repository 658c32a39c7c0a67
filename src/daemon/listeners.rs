//! The listening sockets: on one or several addresses, of both families where there are both, for one or
//! several loops.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::Path;

use mio::net::TcpListener;
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, Type};

use super::activation::Passed;
use super::address::ListenAddress;
use super::succession::ListenerKind;
use super::unix_socket::{self, SocketFile};
use crate::daemon::args::ListenArgs;
use crate::escape::Escaped;
use crate::failure::{Exit, Failure};
use crate::limits::DEFER_ACCEPT_SECONDS;
use crate::sockopt;
use crate::telemetry::log_writer::LineWriter;

/// A listener for clients.
#[derive(Debug)]
pub struct ClientListener {
    pub(crate) socket: TcpListener,
    pub(crate) kind: ListenerKind,
    /// A unix socket's, for the first loop.
    pub(crate) file: Option<SocketFile>,
}

impl From<TcpListener> for ClientListener {
    fn from(socket: TcpListener) -> Self {
        Self {
            socket,
            kind: ListenerKind::Own,
            file: None,
        }
    }
}

/// Listeners for each of so many loops: what was passed, and what the flags ask for. Loops are bound to the
/// same addresses and ports, among which the kernel shares out those who connect (`SO_REUSEPORT`, socket(7)).
/// Where a service manager has passed sockets, nothing is bound by default, and after another process nothing
/// at all.
pub(crate) fn bind_for(
    loops: u64,
    listen: &ListenArgs,
    port: u16,
    passed: Passed,
    log_writer: &LineWriter,
) -> Result<Vec<Vec<ClientListener>>, Failure> {
    let binds = !passed.is_succession && (passed.clients.is_empty() || !listen.bind.is_empty());
    let mut all: Vec<Vec<ClientListener>> = (0..loops).map(|_| Vec::new()).collect();
    let (mut first, mut own) = (Vec::new(), Vec::new());
    for (kind, socket) in passed.clients {
        let listener = take_passed(kind, socket, listen)?;
        if kind == ListenerKind::Own {
            // There are as many of an address as there were loops.
            let address = listener.socket.local_addr().ok();
            let index = own.iter().filter(|&&other| other == address).count();
            own.push(address);
            let loops = all.len();
            all[index % loops].push(listener);
        } else {
            first.push(listener);
        }
    }
    if binds {
        first.extend(bind_all(listen, port, log_writer)?);
    }
    for listeners in all.iter_mut().skip(1) {
        for listener in &first {
            listeners.push(listen_beside(listener, listen)?);
        }
    }
    all[0].extend(first);
    Ok(all)
}

/// Gives a socket that was passed what one that is bound here has.
fn take_passed(
    kind: ListenerKind,
    socket: TcpListener,
    listen: &ListenArgs,
) -> Result<ClientListener, Failure> {
    let set = || {
        let file = match ListenAddress::of(&socket)? {
            ListenAddress::Unix(path) if kind == ListenerKind::File => Some(SocketFile::of(&path)?),
            ListenAddress::Unix(_) => None,
            ListenAddress::Ip(_) => {
                SockRef::from(&socket).set_tcp_nodelay(true)?;
                defer_accept(&socket, listen)?;
                None
            }
        };
        Ok(file)
    };
    let file = set().map_err(|error: io::Error| {
        Failure::new(
            Exit::Failed,
            format!("a socket that was passed can't be used: {error}"),
        )
    })?;
    Ok(ClientListener { socket, kind, file })
}

/// Binds what the flags ask for; by default both families on one socket.
pub(crate) fn bind_all(
    listen: &ListenArgs,
    port: u16,
    log_writer: &LineWriter,
) -> Result<Vec<ClientListener>, Failure> {
    let bind = |address, only_v6| {
        let listener = bind(address, listen.backlog, only_v6)?;
        defer_accept(&listener, listen)?;
        Ok(listener)
    };
    if listen.bind.is_empty() {
        let everything = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let bound = match bind(everything, false) {
            Err(error) if lacks_ipv6(&error) => {
                log_writer.announce(&format_args!("IPv6 is off here ({error}): IPv4 only"));
                let ipv4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
                bind(ipv4, false).map_err(|error| cannot_bind(ipv4, PORT, &error))?
            }
            result => result.map_err(|error| cannot_bind(everything, PORT, &error))?,
        };
        return Ok(vec![bound.into()]);
    }
    let all_ipv4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let wants_ipv4 = listen
        .ip_addresses()
        .any(|address| address.ip() == all_ipv4);
    let mut port = port;
    let mut listeners = Vec::with_capacity(listen.bind.len());
    for address in &listen.bind {
        let mut at = match address {
            ListenAddress::Ip(at) => *at,
            ListenAddress::Unix(path) => {
                listeners.push(bind_unix(path, listen)?);
                continue;
            }
        };
        at.set_port(port);
        let listener = bind(at, wants_ipv4).map_err(|error| cannot_bind(at, PORT, &error))?;
        if port == 0 {
            // One server has one port: the first one's is good for all.
            let bound = listener.local_addr();
            port = bound.map_err(|error| cannot_bind(at, PORT, &error))?.port();
        }
        listeners.push(listener.into());
    }
    Ok(listeners)
}

fn bind_unix(path: &Path, listen: &ListenArgs) -> Result<ClientListener, Failure> {
    let bound = unix_socket::bind(path, listen.backlog, listen.socket_mode);
    let (socket, file) = bound.map_err(|error| {
        let why = match error.kind() {
            ErrorKind::AddrInUse => "another program listens there".to_owned(),
            ErrorKind::AlreadyExists => "something else is there".to_owned(),
            _ => error.to_string(),
        };
        let shown = Escaped(path.as_os_str().as_encoded_bytes());
        Failure::new(
            Exit::Failed,
            format!("unix:{shown} can't be listened on: {why}"),
        )
    })?;
    Ok(ClientListener {
        socket,
        kind: ListenerKind::File,
        file: Some(file),
    })
}

/// mio's own bind has a fixed backlog of 128, so socket2 makes the listener. `only_v6` keeps `::`
/// out of the way of another listener on 0.0.0.0.
pub(crate) fn bind(address: SocketAddr, backlog: i32, only_v6: bool) -> io::Result<TcpListener> {
    let socket = open(address, only_v6)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(TcpListener::from_std(socket.into()))
}

fn open(address: SocketAddr, only_v6: bool) -> io::Result<RawSocket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = RawSocket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    // The server closes first, so its port is full of TIME_WAIT after a restart.
    socket.set_reuse_address(true)?;
    // Clients' sockets inherit it: no reply on a kept connection waits for the acknowledgement of
    // the one before (RFC 896), and long ones cost less. MSG_MORE holds back what shall be.
    socket.set_tcp_nodelay(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    Ok(socket)
}

/// Another loop's listener beside the first one's. What was passed, and a unix socket, are one socket for
/// all loops, and whoever is first takes a client.
fn listen_beside(first: &ClientListener, listen: &ListenArgs) -> Result<ClientListener, Failure> {
    if first.kind == ListenerKind::Own {
        return bind_beside(&first.socket, listen).map(Into::into);
    }
    let socket = first.socket.as_fd().try_clone_to_owned().map_err(|error| {
        Failure::new(Exit::Failed, format!("a listener can't be shared: {error}"))
    })?;
    Ok(ClientListener {
        socket: socket.into(),
        kind: first.kind,
        file: None,
    })
}

/// Binds another socket to a listener's address. The listener itself was bound without
/// SO_REUSEPORT and gets it only now. So its bind failed if anybody was listening there, and since
/// it listens, those of another server fail likewise: at no time could the two share a port.
fn bind_beside(first: &TcpListener, listen: &ListenArgs) -> Result<TcpListener, Failure> {
    let no_address = |error| Failure::new(Exit::Failed, format!("a listener has none: {error}"));
    let address = first.local_addr().map_err(no_address)?;
    let bound = || {
        let first = SockRef::from(first);
        first.set_reuse_port(true)?;
        let socket = open(address, address.is_ipv6() && first.only_v6()?)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(listen.backlog)?;
        defer_accept(&socket, listen)?;
        Ok(TcpListener::from_std(socket.into()))
    };
    bound().map_err(|error| cannot_bind(address, PORT, &error))
}

fn defer_accept(listener: &impl AsFd, listen: &ListenArgs) -> io::Result<()> {
    if listen.no_defer_accept {
        Ok(())
    } else {
        sockopt::set_defer_accept(listener, DEFER_ACCEPT_SECONDS)
    }
}

fn lacks_ipv6(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EAFNOSUPPORT) || error.kind() == ErrorKind::AddrNotAvailable
}

/// The flag for the clients' port.
const PORT: &str = "-p";

/// Has the kernel send no faster on each connection that these will accept, if there is a limit. Unix sockets know
/// no rate.
pub(crate) fn limit_rate<'l>(
    listeners: impl Iterator<Item = &'l ClientListener>,
    bytes_per_second: Option<u64>,
) -> Result<(), Failure> {
    let Some(bytes_per_second) = bytes_per_second else {
        return Ok(());
    };
    let ip = listeners.filter(|listener| !sockopt::is_unix(&listener.socket));
    for listener in ip {
        sockopt::set_pacing_rate_max(&listener.socket, bytes_per_second).map_err(|error| {
            Failure::new(
                Exit::Failed,
                format!("--limit-rate: the kernel refuses it: {error}"),
            )
        })?;
    }
    Ok(())
}

/// Why a listener can't be had, and what helps. `flag` sets its port.
pub(crate) fn cannot_bind(address: SocketAddr, flag: &str, error: &io::Error) -> Failure {
    let why = match error.kind() {
        ErrorKind::AddrInUse => {
            format!(
                "another program listens there (ss -ltnp shows which); {flag} takes another port"
            )
        }
        ErrorKind::AddrNotAvailable => "it is no address of this machine".to_owned(),
        ErrorKind::PermissionDenied if address.port() < 1024 => {
            format!("{error}: ports below 1024 are root's; {flag} takes another port")
        }
        _ => error.to_string(),
    };
    Failure::new(
        Exit::Failed,
        format!("{address} can't be listened on: {why}"),
    )
}

/// The kernel lowers the backlog to this in silence.
pub(crate) fn say_lower_somaxconn(backlog: i32) {
    let text = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap_or_default();
    if let Ok(somaxconn) = text.trim().parse::<i32>()
        && somaxconn < backlog
    {
        log::info!("net.core.somaxconn lowers the backlog from {backlog} to {somaxconn}");
    }
}
