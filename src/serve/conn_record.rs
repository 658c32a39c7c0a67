//! A connection as `serve` keeps it: who it is, and the lines that the log has of it.

use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::StatusCode;
use mio::net::TcpStream;

use crate::conn::Conn;
use crate::escape::Excerpt;
use crate::reactor::event::{Action, Event};
use crate::telemetry::Reason;
use crate::telemetry::Stage;
use crate::telemetry::response::Response;

/// A connection. Of those that only wait, most have said nothing yet: such a one is a place in the
/// slab and no more.
#[derive(Debug)]
pub enum ConnRecord {
    /// Not a byte has come. Until when one must have come is the deadline in its place; who it is,
    /// the kernel knows.
    Silent,
    /// Anything else.
    Active(Box<Active>),
    /// It ended before a byte came.
    Left(Box<Farewell>),
}

/// What the log says of one that ended before a byte came.
#[derive(Debug)]
pub struct Farewell {
    peer: Peer,
    accepted_at: Instant,
}

/// A connection that does something, and what its last log line needs.
#[derive(Debug)]
pub struct Active {
    pub(super) peer: Peer,
    pub(super) accepted_at: Instant,
    /// It stands in the line of those who wait for a descriptor.
    pub(super) waits_for_fd: bool,
    /// What it holds of a request, as [`super::request_memory::RequestMemory`] knows it, in bytes.
    pub(super) held: u32,
    pub(super) role: Role,
    pub(crate) conn: Conn,
}

impl ConnRecord {
    /// One that was just accepted, and has `patience` to name a file. It may have done so already.
    pub(crate) fn new(peer: Peer, role: Role, accepted_at: Instant, patience: Duration) -> Self {
        let conn = Conn::new(accepted_at + patience);
        Self::Active(Active::new(peer, accepted_at, role, conn))
    }

    /// What a step for this is made with; `None` if it would change nothing. A silent client's
    /// `deadline` is the one in its place, and its `peer` is asked for.
    pub(crate) fn wake(
        &mut self,
        event: Event,
        deadline: Option<Instant>,
        patience: Duration,
        peer: impl FnOnce() -> Peer,
    ) -> Option<&mut Active> {
        if let Self::Silent = self {
            if Conn::ignores_while_silent(event) {
                return None;
            }
            let expires = deadline.expect("it fell silent with a deadline, which the loop keeps");
            let since = expires.checked_sub(patience).unwrap_or(expires);
            *self = Self::Active(Active::silent(peer(), since, expires));
        }
        match self {
            Self::Active(active) => Some(active),
            Self::Silent | Self::Left(_) => None,
        }
    }

    /// After a step: one that has said nothing yet, and waits until this `deadline`, gives back all
    /// that can be had from there again; one that has ended gives back all but its farewell, since
    /// very many may end in one turn.
    pub(crate) fn rest(&mut self, next: Action, deadline: Option<Instant>) {
        let Self::Active(active) = self else { return };
        if !matches!(active.role, Role::Client(_)) {
            return;
        }
        match next {
            Action::Wait if deadline.is_some() && active.conn.silent_until() == deadline => {
                *self = Self::Silent;
            }
            Action::Close(_) | Action::Reset(_) if active.has_said_nothing() => {
                *self = Self::Left(Box::new(Farewell {
                    peer: active.peer,
                    accepted_at: active.accepted_at,
                }));
            }
            _ => {}
        }
    }

    /// What there is to say of one that has ended. A silent one ends without a step only if it can't
    /// be watched, in the turn in which it came.
    pub(super) fn into_active(self, now: Instant) -> Box<Active> {
        let (peer, accepted_at) = match self {
            Self::Active(active) => return active,
            Self::Left(farewell) => (farewell.peer, farewell.accepted_at),
            Self::Silent => (Peer(None), now),
        };
        Active::silent(peer, accepted_at, now)
    }
}

impl Active {
    fn new(peer: Peer, accepted_at: Instant, role: Role, conn: Conn) -> Box<Self> {
        Box::new(Self {
            peer,
            accepted_at,
            waits_for_fd: false,
            held: 0,
            role,
            conn,
        })
    }

    /// A client from which not a byte has come, and which has until `expires`.
    fn silent(peer: Peer, accepted_at: Instant, expires: Instant) -> Box<Self> {
        let role = Role::Client(Stage::Reading);
        Self::new(peer, accepted_at, role, Conn::silent(expires))
    }

    fn has_said_nothing(&self) -> bool {
        let conn = &self.conn;
        !self.waits_for_fd
            && conn.target().is_empty()
            && conn.response().is_none()
            && !conn.was_kept_alive()
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
    Admin,
}

/// One line for the end of a connection, unless its replies had theirs. A reply's time begins when
/// its request had come, that of a connection without one when it was accepted.
pub(super) fn log_end(client: &Active, reason: Reason, now: Instant) {
    let peer = client.peer;
    let Some(response) = client.conn.response() else {
        let seconds = (now - client.accepted_at).as_secs_f64();
        match client.conn.target() {
            b"" if client.conn.was_kept_alive() => {
                log::debug!("{peer} - {}", reason.of_connection())
            }
            b"" => log::info!("{peer} - 0/0 bytes {seconds:.3}s {reason}"),
            part => {
                log::info!(
                    "{peer} \"{}\" 0/0 bytes {seconds:.3}s {reason}",
                    Excerpt::of_request(part)
                );
            }
        }
        return;
    };
    log_response(
        peer,
        response,
        now - response.asked_at,
        &response.end(reason),
    );
}

/// A status and a space; nothing for the bare protocol, which has none.
struct Status(Option<StatusCode>);

impl Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(status) => write!(f, "{} ", status.as_u16()),
            None => Ok(()),
        }
    }
}

/// One line for one reply.
pub(super) fn log_response(peer: Peer, response: &Response, took: Duration, end: &dyn Display) {
    let Response {
        target,
        offset,
        body_len,
        status,
        ..
    } = response;
    let seconds = took.as_secs_f64();
    let status = Status(*status);
    log::info!(
        "{peer} \"{}\" {status}{offset}/{body_len} bytes {seconds:.3}s {end}",
        Excerpt::of_request(target)
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::REQUEST_TIMEOUT;
    use crate::protocol::{Decision, Protocol, Request};
    use crate::testing::{Bench, READABLE, Read, Scripted, WRITABLE};

    /// Release only: mio's sockets are larger in debug builds.
    #[cfg(not(debug_assertions))]
    #[test]
    fn a_place_in_the_slab_takes_48_bytes() {
        assert_eq!(crate::reactor::Reactor::<ConnRecord>::slot_bytes(), 48);
    }

    /// Wants more, whatever comes.
    struct Insatiable;

    impl Protocol for Insatiable {
        fn respond(&mut self, _: &Request<'_>) -> Decision {
            Decision::NeedMore {
                guessed: false,
                quiet: None,
            }
        }
    }

    fn peer() -> Peer {
        Peer::new("[::ffff:192.0.2.1]:50000".parse().expect("an address"))
    }

    /// A client of this role after its first step, in which it read this; and its deadline.
    fn accepted(role: Role, read: Read) -> (ConnRecord, Option<Instant>) {
        let mut bench = Bench::new(Scripted::new([read], []), Insatiable);
        assert_eq!(bench.step(Event::Start), Action::Wait);
        let mut client = ConnRecord::new(peer(), role, bench.now, REQUEST_TIMEOUT);
        if let ConnRecord::Active(active) = &mut client {
            active.conn = bench.conn;
        }
        client.rest(Action::Wait, bench.deadline);
        (client, bench.deadline)
    }

    const CLIENT: Role = Role::Client(Stage::Reading);

    #[test]
    fn one_that_has_said_nothing_is_silent_and_no_other_is() {
        let (client, _) = accepted(CLIENT, Read::Block);
        assert!(matches!(client, ConnRecord::Silent));
        let (client, _) = accepted(CLIENT, Read::Bytes(b"na".to_vec()));
        assert!(matches!(client, ConnRecord::Active(_)));
        let (client, _) = accepted(Role::Admin, Read::Block);
        assert!(matches!(client, ConnRecord::Active(_)));
    }

    #[test]
    fn one_that_must_be_asked_again_at_another_time_is_not_silent() {
        let (mut client, deadline) = accepted(Role::Admin, Read::Block);
        if let ConnRecord::Active(active) = &mut client {
            active.role = CLIENT;
        }
        for (next, at) in [
            (Action::Wait, None),
            (
                Action::Wait,
                deadline.map(|at| at + Duration::from_nanos(1)),
            ),
            (Action::Suspend, deadline),
            (Action::Yield, deadline),
        ] {
            client.rest(next, at);
            assert!(matches!(client, ConnRecord::Active(_)), "{next:?} {at:?}");
        }
    }

    #[test]
    fn a_silent_one_that_speaks_is_who_it_was() {
        let (mut client, deadline) = accepted(CLIENT, Read::Block);
        let active = client.wake(READABLE, deadline, REQUEST_TIMEOUT, peer);
        let active = active.expect("something came");
        assert_eq!(active.peer.to_string(), "192.0.2.1:50000");
        assert_eq!(Some(active.accepted_at + REQUEST_TIMEOUT), deadline);
        assert_eq!(active.conn.silent_until(), deadline);
        client.rest(Action::Wait, deadline);
        assert!(
            matches!(client, ConnRecord::Silent),
            "it was an alarm for nothing"
        );
    }

    /// What silent clients are not woken for changes nothing, and touches no socket.
    #[test]
    fn a_silent_one_is_not_woken_for_nothing() {
        let (mut client, deadline) = accepted(CLIENT, Read::Block);
        for event in [WRITABLE, Event::Evict] {
            let nobody_asks = || unreachable!("the kernel is not asked");
            let woken = client.wake(event, deadline, REQUEST_TIMEOUT, nobody_asks);
            assert!(woken.is_none(), "{event:?}");
            let mut bench = Bench::new(Scripted::default(), Insatiable);
            bench.conn = Conn::silent(bench.now + REQUEST_TIMEOUT);
            bench.deadline = Some(bench.now + REQUEST_TIMEOUT);
            assert_eq!(bench.step(event), Action::Wait);
            assert_eq!(bench.conn.silent_until(), bench.deadline);
            assert!(bench.transport.guards.is_empty());
        }
    }

    #[test]
    fn one_that_leaves_without_a_word_is_remembered_to_its_last_line() {
        let (mut client, deadline) = accepted(CLIENT, Read::Block);
        let woken = client.wake(READABLE, deadline, REQUEST_TIMEOUT, peer);
        let accepted_at = woken.expect("something came").accepted_at;
        client.rest(Action::Close(Reason::ClientLeft), deadline);
        assert!(matches!(client, ConnRecord::Left(_)));
        let left = client.into_active(accepted_at + Duration::from_secs(1));
        assert_eq!(left.peer.to_string(), "192.0.2.1:50000");
        assert_eq!(left.accepted_at, accepted_at);
        assert!(left.has_said_nothing());
    }

    #[test]
    fn one_that_was_reset_has_no_address() {
        assert_eq!(Peer(None).to_string(), "-");
    }
}
