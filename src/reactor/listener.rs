//! One listener: whether an accept may find a client, and how a drain closes it. It may be a unix socket's:
//! mio's types for TCP hold a descriptor of either family, and epoll makes no difference.

use std::fmt;
use std::io;
use std::iter;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Instant;

use mio::Registry;
use mio::net::{TcpListener, TcpStream};
use mio::unix::SourceFd;
use rustix::net::{SocketFlags, acceptfrom_with};

use crate::limits::HANDSHAKE_GRACE;
use crate::sockopt;
use crate::telemetry::rate_limit::RateLimit;
use crate::trace::record::{self, Call};

#[derive(Debug)]
pub(super) struct Listener {
    /// `None` once it is closed.
    pub(super) socket: Option<Arc<TcpListener>>,
    pub(super) state: Accepting,
    /// Clients whose handshake was under way have come by then.
    pub(super) grace_ends: Option<Instant>,
    /// An admin listener: its connections aren't counted, and it stays open until the loop ends.
    pub(super) is_admin: bool,
    /// Another process may have it, too, and accept those whom this one leaves in its queue.
    pub(super) is_shared: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accepting {
    /// The queue was empty; an edge will come.
    Waiting,
    /// The queue may hold clients.
    Ready,
    /// No descriptor or no slot is free: until a connection ends, or then.
    BackedOff { until: Option<Instant> },
}

impl Listener {
    pub(super) fn new(socket: TcpListener, is_admin: bool) -> Self {
        Self {
            socket: Some(Arc::new(socket)),
            state: Accepting::Waiting,
            grace_ends: None,
            is_admin,
            is_shared: false,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.socket.is_none()
    }

    pub(super) fn is_ready(&self) -> bool {
        self.state == Accepting::Ready && !self.is_closed()
    }

    /// Whether nothing is to be done before an edge has come.
    pub(super) fn only_waits(&self) -> bool {
        self.state == Accepting::Waiting && self.grace_ends.is_none()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let until = match self.state {
            Accepting::BackedOff { until } => until,
            Accepting::Waiting => self.grace_ends,
            Accepting::Ready => None,
        };
        until.filter(|_| !self.is_closed())
    }

    /// Drops new SYNs. To close the listener instead would reset the clients in its queue. One that is
    /// shared, or a unix socket, whose file is gone by now, is closed when its queue was empty once.
    pub(super) fn shut(&mut self, now: Instant) {
        let Some(socket) = &self.socket else { return };
        if self.is_shared || sockopt::is_unix(&**socket) {
            self.grace_ends = Some(now);
            return;
        }
        if let Err(error) = sockopt::set_ttl_min(&**socket, sockopt::TTL_OF_NOBODY) {
            log::warn!("new clients can't be kept out while those here are served: {error}");
        }
        // Who is connected and silent is let in when its deferral is over.
        let deferral = sockopt::defer_accept(&**socket).unwrap_or_default();
        self.grace_ends = Some(now + deferral + HANDSHAKE_GRACE);
    }

    /// Closes it, and takes it out of the poll: while another process has it, too, that doesn't follow.
    pub(super) fn close(&mut self, registry: &Registry) {
        let Some(socket) = self.socket.take() else {
            return;
        };
        let descriptor = socket.as_raw_fd();
        let deregister = || registry.deregister(&mut SourceFd(&descriptor));
        if let Err(error) = record::call(Call::Deregister, deregister) {
            log::debug!("a listener is watched still: {error}");
        }
        record::close(Call::CloseListener, socket);
    }

    /// Whether the accept queue holds a client. If it is empty, an edge will come.
    pub(super) fn is_wanted(&mut self) -> bool {
        let waiting = self.socket.as_deref().map(sockopt::accept_queue_len);
        let is_wanted = !matches!(waiting, Some(Ok(0)));
        if !is_wanted {
            self.state = Accepting::Waiting;
        }
        is_wanted
    }

    /// Stops accepting until a connection ends or may end, or until `until`. Without a free
    /// descriptor, accept(2) fails before it looks whether a client is in the queue.
    pub(super) fn back_off(
        &mut self,
        until: Option<Instant>,
        shortage: &mut RateLimit,
        now: Instant,
        why: fmt::Arguments<'_>,
    ) {
        if !self.is_wanted() {
            return;
        }
        self.state = Accepting::BackedOff { until };
        if shortage.allows(now) {
            log::warn!("{why}: new clients wait");
        }
    }

    /// Whether an accept may find a client.
    pub(super) fn may_try(&self, now: Instant) -> bool {
        match self.state {
            Accepting::Ready => true,
            Accepting::BackedOff { until } => until.is_some_and(|until| until <= now),
            Accepting::Waiting => false,
        }
    }
}

/// Takes a client, and its address, which one that comes by a unix socket hasn't.
pub(super) fn accept(listener: &TcpListener) -> io::Result<(TcpStream, Option<SocketAddr>)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (socket, peer) = record::call(Call::Accept, || acceptfrom_with(listener, flags))?;
    let peer = peer.and_then(|peer| peer.try_into().ok());
    Ok((socket.into(), peer))
}

/// How many clients wait in the queue of a listener that is about to be closed.
pub(super) fn clients_left(listener: &TcpListener) -> u64 {
    if sockopt::is_unix(listener) {
        // Nothing tells, so they are counted one by one.
        return iter::from_fn(|| accept(listener).ok()).count() as u64;
    }
    sockopt::accept_queue_len(listener).map_or(0, u64::from)
}

/// accept(2): errors already pending on the new socket; the listener is as good as before.
pub(super) fn concerns_one_client(error: &io::Error) -> bool {
    const ONE_CLIENTS: [i32; 10] = [
        libc::EINTR,
        libc::ECONNABORTED,
        libc::EPROTO,
        libc::ENOPROTOOPT,
        libc::ENETDOWN,
        libc::ENETUNREACH,
        libc::EHOSTDOWN,
        libc::EHOSTUNREACH,
        libc::ENONET,
        libc::EOPNOTSUPP,
    ];
    error
        .raw_os_error()
        .is_some_and(|errno| ONE_CLIENTS.contains(&errno))
}
