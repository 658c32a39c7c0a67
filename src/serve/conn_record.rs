//! A connection as `serve` keeps it: who it is, and the lines that the log has of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::StatusCode;
use log::LevelFilter;

use crate::conn::Conn;
use crate::escape::Excerpt;
use crate::limits::{LOG_TEXT_BYTES_MAX, REQUEST_MEMORY_SHARE_BYTES};
use crate::peer::client_limit::Admission;
use crate::reactor::event::{Action, Reclaimable};
use crate::telemetry::Reason;
use crate::telemetry::Stage;
use crate::telemetry::line_text::LineText as _;
use crate::telemetry::response::Response;
use crate::tls::transport::Wire;
use crate::trace::record::Awaited;

use super::timing::Timing;
use crate::peer::proxies::Origin;
use crate::peer::{Client, Peer};

/// A connection as its slot holds it. Of those that only wait, most have sent nothing yet: of such a one
/// there is the address and no more.
#[derive(Debug)]
pub struct ConnRecord {
    /// The client: who has connected, or for whom a trusted proxy speaks since its header was taken.
    pub(super) peer: Peer,
    pub(super) admission: Admission,
    /// `None` while not a byte has come. Until when one must have come is the deadline in the slot.
    active: Option<Box<Active>>,
}

/// What a connection does, and what its last log line needs.
#[derive(Debug)]
pub struct Active {
    pub(super) accepted_at: Instant,
    /// It stands in the line of those who wait for a descriptor.
    pub(super) waits_for_fd: bool,
    /// What it holds of a request, as [`super::request_memory::RequestMemory`] knows it, in bytes.
    pub(super) held: u32,
    pub(super) role: Role,
    /// What a trusted proxy has said of it.
    pub(super) origin: Option<Box<Origin>>,
    pub(super) wire: Wire,
    /// Where the time of its replies goes, if anybody wants to know.
    pub(super) timing: Option<Box<Timing>>,
    pub(crate) conn: Conn,
}

impl ConnRecord {
    /// One that was just accepted. Its request must have come within `request_timeout`, and may be
    /// there already.
    pub(crate) fn new(
        peer: Option<SocketAddr>,
        role: Role,
        accepted_at: Instant,
        request_timeout: Duration,
    ) -> Self {
        let conn = Conn::new(accepted_at + request_timeout);
        Self {
            peer: Peer::new(peer),
            admission: Admission::default(),
            active: Some(Active::new(accepted_at, role, conn)),
        }
    }

    /// What a step is made with. `deadline` is the one in the slot.
    pub(crate) fn activate(
        &mut self,
        deadline: Option<Instant>,
        request_timeout: Duration,
    ) -> (&mut Peer, &mut Admission, &mut Active) {
        let active = self.active.get_or_insert_with(|| {
            let expires = deadline.expect("it fell silent with a deadline, which the loop keeps");
            let accepted_at = expires.checked_sub(request_timeout).unwrap_or(expires);
            Active::silent(accepted_at, expires)
        });
        (&mut self.peer, &mut self.admission, active)
    }

    /// After a step: one that has sent nothing yet, and waits until this `deadline`, gives back all
    /// that [`ConnRecord::activate`] can make again.
    pub(crate) fn hibernate(&mut self, action: Action, deadline: Option<Instant>) {
        let is_silent = |active: &mut Box<Active>| {
            matches!(
                (active.role, &active.wire),
                (Role::Client(_), Wire::Unknown)
            ) && active.origin.is_none()
                && action == Action::Wait
                && deadline.is_some()
                && active.conn.silent_until() == deadline
        };
        drop(self.active.take_if(is_silent));
    }

    /// What it waits for, if it may be ended when others need its place.
    pub(super) fn reclaimable(&self) -> Option<Reclaimable> {
        match &self.active {
            Some(active) => active.reclaimable(),
            None => Some(Reclaimable::Silent),
        }
    }

    /// What it does.
    pub(super) fn stage(&self) -> Stage {
        let active = self.active.as_ref();
        active.map_or(Stage::Reading, |active| active.conn.stage())
    }

    /// What is or was sent, once a request was answered.
    pub(super) fn response(&self) -> Option<&Response> {
        self.active.as_ref()?.conn.response()
    }

    /// What it waits for after a step that wanted this.
    pub(super) fn awaited(&self, action: Action) -> Awaited {
        match &self.active {
            Some(active) if action == Action::Suspend && !active.conn.awaits_task() => {
                Awaited::Descriptor
            }
            Some(_) if action == Action::Suspend => Awaited::Disk,
            _ => Awaited::Nothing,
        }
    }

    /// What there is to say of one that has ended. A silent one ends without a step only if it can't
    /// be watched, in the turn in which it came.
    pub(super) fn into_active(self, now: Instant) -> Box<Active> {
        self.active.unwrap_or_else(|| Active::silent(now, now))
    }
}

impl Active {
    fn new(accepted_at: Instant, role: Role, conn: Conn) -> Box<Self> {
        Box::new(Self {
            accepted_at,
            waits_for_fd: false,
            held: 0,
            role,
            origin: None,
            wire: Wire::Unknown,
            timing: None,
            conn,
        })
    }

    /// What it holds of what its client sends, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        let origin = self.origin.as_deref().map_or(0, Origin::held_bytes);
        self.conn.held_bytes() + self.wire.held_bytes() + origin
    }

    /// Whom a log is told of; `peer` is its record's.
    pub(super) fn client(&self, peer: Peer) -> Client {
        let proxy = match self.origin.as_deref() {
            Some(&Origin::Proxy(proxy)) => Some(proxy),
            _ => None,
        };
        Client { peer, proxy }
    }

    fn reclaimable(&self) -> Option<Reclaimable> {
        use Reclaimable::{Idle, Large, Partial, Silent};
        match self.conn.reclaimable() {
            // Half a record of TLS is more than it has said in HTTP.
            Some(Silent | Partial | Idle)
                if self.wire.held_bytes() > REQUEST_MEMORY_SHARE_BYTES =>
            {
                Some(Large)
            }
            kind => kind,
        }
    }

    /// A client from which not a byte has come, and which has until `expires`.
    fn silent(accepted_at: Instant, expires: Instant) -> Box<Self> {
        let role = Role::Client(Stage::Reading);
        Self::new(accepted_at, role, Conn::silent(expires))
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

/// The log's lines of replies and connections, made one after the other in the same memory.
#[derive(Debug, Default)]
pub(super) struct EndLog {
    line: String,
}

impl EndLog {
    /// One line for the end of a connection, unless its replies had theirs. A reply's time begins when
    /// its request had come, that of a connection without one when it was accepted. `is_check`: a proxy has
    /// looked whether somebody listens.
    pub(super) fn end(
        &mut self,
        whose: Client,
        client: &Active,
        reason: Reason,
        now: Instant,
        is_check: bool,
    ) {
        if let Some(response) = client.conn.response() {
            return self.response(whose, response, now, reason);
        }
        let Some(line) = self.begin(whose) else {
            return;
        };
        let target = client.conn.target();
        if !target.is_empty() {
            push_quoted(line, Excerpt::of_request(target));
        } else if client.conn.was_kept_alive() || is_check {
            return log::debug!("{line} - {}", reason.of_connection());
        } else {
            line.push_str(" -");
        }
        push_sent(line, None, (0, 0), now - client.accepted_at);
        line.push_str(reason.as_str());
        log::info!("{line}");
    }

    /// One line for one reply.
    pub(super) fn response(
        &mut self,
        whose: Client,
        response: &Response,
        now: Instant,
        reason: Reason,
    ) {
        let Some(line) = self.begin(whose) else {
            return;
        };
        let sent = (response.offset, response.body_len);
        push_quoted(line, Excerpt::new(&response.target, LOG_TEXT_BYTES_MAX));
        push_sent(line, response.status, sent, now - response.asked_at);
        response.push_end(line, reason);
        log::info!("{line}");
    }

    /// Begins a line, if there shall be any.
    fn begin(&mut self, whose: Client) -> Option<&mut String> {
        let is_wanted = log::max_level() >= LevelFilter::Info;
        self.line.clear();
        is_wanted.then(|| {
            whose.push_to(&mut self.line);
            &mut self.line
        })
    }
}

fn push_quoted(line: &mut String, text: Excerpt<'_>) {
    line.push_str(" \"");
    text.push_to(line);
    line.push('"');
}

/// What was sent, of how many bytes, and how long that took, to the millisecond: ` 200 17/17 bytes 0.001s `. The
/// bare protocol has no status.
fn push_sent(
    line: &mut String,
    status: Option<StatusCode>,
    (sent, of): (u64, u64),
    took: Duration,
) {
    let took = took.saturating_add(Duration::from_micros(500));
    if let Some(status) = status {
        line.push(' ');
        line.push_number(status.as_u16());
    }
    line.push(' ');
    line.push_number(sent);
    line.push('/');
    line.push_number(of);
    line.push_str(" bytes ");
    line.push_number(took.as_secs());
    line.push('.');
    line.push_thousandths(took.subsec_millis());
    line.push_str("s ");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::REQUEST_TIMEOUT;
    use crate::protocol::{Decision, Protocol, Request};
    use crate::reactor::event::Event;
    use crate::testing::{Bench, Read, Scripted, WRITABLE};

    /// Release only: mio's sockets are larger in debug builds.
    #[cfg(not(debug_assertions))]
    #[test]
    fn a_slot_of_the_slab_takes_64_bytes() {
        assert_eq!(crate::reactor::Reactor::<ConnRecord>::slot_bytes(), 64);
    }

    /// Wants more, whatever comes.
    struct Insatiable;

    impl Protocol for Insatiable {
        fn respond(&mut self, _: &Request<'_>) -> Decision {
            Decision::NEED_MORE
        }
    }

    fn peer() -> Option<SocketAddr> {
        "[::ffff:192.0.2.1]:50000".parse().ok()
    }

    /// A client of this role after its first step, in which it read this; and its deadline.
    fn accepted(role: Role, read: Read) -> (ConnRecord, Option<Instant>) {
        let mut bench = Bench::new(Scripted::new([read], []), Insatiable);
        assert_eq!(bench.step(Event::Start), Action::Wait);
        let mut client = ConnRecord::new(peer(), role, bench.now, REQUEST_TIMEOUT);
        client.activate(None, REQUEST_TIMEOUT).2.conn = bench.conn;
        client.hibernate(Action::Wait, bench.deadline);
        (client, bench.deadline)
    }

    const CLIENT: Role = Role::Client(Stage::Reading);

    #[test]
    fn one_that_has_said_nothing_is_silent_and_no_other_is() {
        let (client, _) = accepted(CLIENT, Read::Block);
        assert!(client.active.is_none());
        let (client, _) = accepted(CLIENT, Read::Bytes(b"na".to_vec()));
        assert!(client.active.is_some());
        let (client, _) = accepted(Role::Admin, Read::Block);
        assert!(client.active.is_some());
    }

    #[test]
    fn one_that_must_be_asked_again_at_another_time_is_not_silent() {
        let (mut client, deadline) = accepted(Role::Admin, Read::Block);
        client.activate(deadline, REQUEST_TIMEOUT).2.role = CLIENT;
        for (next, at) in [
            (Action::Wait, None),
            (
                Action::Wait,
                deadline.map(|at| at + Duration::from_nanos(1)),
            ),
            (Action::Suspend, deadline),
            (Action::Yield, deadline),
            (Action::Close(Reason::ClientLeft), deadline),
        ] {
            client.hibernate(next, at);
            assert!(client.active.is_some(), "{next:?} {at:?}");
        }
    }

    #[test]
    fn a_silent_one_that_speaks_is_who_it_was() {
        let (mut client, deadline) = accepted(CLIENT, Read::Block);
        let (_, _, active) = client.activate(deadline, REQUEST_TIMEOUT);
        assert_eq!(Some(active.accepted_at + REQUEST_TIMEOUT), deadline);
        assert_eq!(active.conn.silent_until(), deadline);
        client.hibernate(Action::Wait, deadline);
        assert!(client.active.is_none(), "it was an alarm for nothing");
        assert_eq!(client.peer.to_string(), "192.0.2.1:50000");
    }

    /// What doesn't concern a silent client touches no socket, and leaves it silent.
    #[test]
    fn a_silent_one_is_not_changed_by_what_is_not_for_it() {
        for event in [WRITABLE, Event::Drain] {
            let mut bench = Bench::new(Scripted::default(), Insatiable);
            bench.conn = Conn::silent(bench.now + REQUEST_TIMEOUT);
            bench.deadline = Some(bench.now + REQUEST_TIMEOUT);
            assert_eq!(bench.step(event), Action::Wait);
            assert_eq!(bench.conn.silent_until(), bench.deadline);
            assert!(bench.transport.guards.is_empty());
        }
    }
}
