//! A connection as `serve` keeps it: who it is, and the lines that the log has of it.

use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;

use crate::conn::{Conn, Delivery, Stage};
use crate::escape::Escaped;
use crate::stats::Reason;
use crate::turn::{Next, Why};

/// A connection. Of those that only wait, most have said nothing yet: such a one is a place in the
/// slab and no more.
#[derive(Debug)]
pub enum Client {
    /// Not a byte has come. Until when one must have come is the deadline in its place; who it is,
    /// the kernel knows.
    Silent,
    /// Anything else.
    Active(Box<Active>),
}

/// A connection that does something, and what its last log line needs.
#[derive(Debug)]
pub struct Active {
    pub(super) peer: Peer,
    pub(super) accepted_at: Instant,
    /// It stands in the line of those who wait for a descriptor.
    pub(super) in_line: bool,
    pub(super) role: Role,
    pub(super) conn: Conn,
}

impl Client {
    /// One that was just accepted, and has `patience` to name a file. It may have done so already.
    pub(crate) fn new(peer: Peer, role: Role, accepted_at: Instant, patience: Duration) -> Self {
        Self::Active(Box::new(Active {
            peer,
            accepted_at,
            in_line: false,
            role,
            conn: Conn::new(accepted_at + patience),
        }))
    }

    /// What a step for this is made with; `None` if it would change nothing. A silent client's
    /// `deadline` is the one in its place, and its `peer` is asked for.
    pub(crate) fn wake(
        &mut self,
        why: Why,
        deadline: Option<Instant>,
        patience: Duration,
        peer: impl FnOnce() -> Peer,
    ) -> Option<&mut Active> {
        if let Self::Silent = self {
            if Conn::ignores_while_silent(why) {
                return None;
            }
            let expires = deadline.expect("it fell silent with a deadline, which the loop keeps");
            *self = Self::Active(Box::new(Active {
                peer: peer(),
                accepted_at: expires - patience,
                in_line: false,
                role: Role::Client(Stage::Reading),
                conn: Conn::silent(expires),
            }));
        }
        match self {
            Self::Active(active) => Some(active),
            Self::Silent => None,
        }
    }

    /// After a step: one that has said nothing yet, and waits until this `deadline`, gives back all
    /// that can be had from there again.
    pub(crate) fn rest(&mut self, next: Next, deadline: Option<Instant>) {
        if let Self::Active(active) = self
            && next == Next::Wait
            && matches!(active.role, Role::Client(_))
            && deadline.is_some()
            && active.conn.silent_until() == deadline
        {
            *self = Self::Silent;
        }
    }

    /// What there is to say of one that has ended. A silent one ends without a step only if it can't
    /// be watched, in the turn in which it came.
    pub(super) fn into_active(self, now: Instant) -> Box<Active> {
        match self {
            Self::Active(active) => active,
            Self::Silent => Box::new(Active {
                peer: Peer(None),
                accepted_at: now,
                in_line: false,
                role: Role::Client(Stage::Reading),
                conn: Conn::silent(now),
            }),
        }
    }
}

/// The other end, as logs show it. A silent client's address is asked for when it does something,
/// and of a connection that was reset the kernel doesn't tell it any more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) Option<SocketAddr>);

impl Peer {
    /// Asks the kernel.
    pub(super) fn of(socket: &TcpStream) -> Self {
        socket.peer_addr().map_or(Self(None), Self::new)
    }

    /// An IPv4 address in IPv6's clothes is shown without them.
    pub(super) fn new(address: SocketAddr) -> Self {
        Self(Some(SocketAddr::new(
            address.ip().to_canonical(),
            address.port(),
        )))
    }
}

impl Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("-"),
        }
    }
}

/// Who a connection is to the counters.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    /// A client, counted as one that does this.
    Client(Stage),
    /// It reads the metrics, and isn't counted.
    Monitor,
}

/// One line for the end of a connection, unless its replies had theirs. A reply's time begins when
/// its request had come, that of a connection without one when it was accepted.
pub(super) fn log_end(client: &Active, reason: Reason, now: Instant) {
    let peer = client.peer;
    let Some(delivery) = client.conn.delivery() else {
        let seconds = (now - client.accepted_at).as_secs_f64();
        match client.conn.subject() {
            b"" if client.conn.was_kept_alive() => log::debug!("{peer} - {reason}"),
            b"" => log::info!("{peer} - 0/0 bytes {seconds:.3}s {reason}"),
            part => {
                log::info!(
                    "{peer} \"{}\" 0/0 bytes {seconds:.3}s {reason}",
                    Escaped(part)
                );
            }
        }
        return;
    };
    log_delivery(
        peer,
        delivery,
        now - delivery.asked_at,
        &delivery.end(reason),
    );
}

/// One line for one reply.
pub(super) fn log_delivery(peer: Peer, delivery: &Delivery, took: Duration, end: &dyn Display) {
    let Delivery {
        subject,
        offset,
        promised,
        ..
    } = delivery;
    let seconds = took.as_secs_f64();
    log::info!(
        "{peer} \"{}\" {offset}/{promised} bytes {seconds:.3}s {end}",
        Escaped(subject)
    );
}
