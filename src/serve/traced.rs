//! The application with every call of the loop recorded: what `--trace` puts between the two.

use std::net::SocketAddr;
use std::time::Instant;

use mio::net::TcpStream;

use super::conn_record::ConnRecord;
use super::serving::Serving;
use crate::protocol::Protocol;
use crate::reactor::event::{Action, Event, Reclaimable};
use crate::reactor::{Context, Handler, ListenerId, LoopHandle, SourceId, Token};
use crate::telemetry::{Reason, Stats};
use crate::trace::record::{self, What};

/// An application, and what the loop does with it as records.
pub(super) struct Traced<'a, P> {
    app: &'a mut Serving<P>,
    /// The loop's index, in front of the numbers of its connections.
    number: u64,
    /// When the loop began to wait, until something tells that it has ended.
    waits_since: Option<Instant>,
}

impl<'a, P> Traced<'a, P> {
    pub(super) fn new(app: &'a mut Serving<P>) -> Self {
        let number = (app.worker.index() as u64) << 32;
        record::hold();
        Self {
            app,
            number,
            waits_since: None,
        }
    }

    /// The wait has ended at `now`, the turn's time. What follows is for this connection.
    fn begin(&mut self, now: Instant, token: Option<Token>) -> Instant {
        if let Some(since) = self.waits_since.take() {
            record::note_span(since, now, What::Waited);
        }
        let conn = token.map(|token| self.number | u64::from(token.generation()));
        record::set_conn(conn.unwrap_or(0));
        Instant::now()
    }
}

impl<P: Protocol> Handler for Traced<'_, P> {
    type Conn = ConnRecord;

    fn accepted(
        &mut self,
        from: ListenerId,
        peer: Option<SocketAddr>,
        cx: &mut Context<'_, ConnRecord>,
    ) -> ConnRecord {
        let began = self.begin(cx.turn.now, Some(cx.token()));
        record::note(began, What::Accepted(peer));
        self.app.accepted(from, peer, cx)
    }

    fn step(
        &mut self,
        client: &mut ConnRecord,
        socket: &mut TcpStream,
        event: Event,
        cx: &mut Context<'_, ConnRecord>,
    ) -> Action {
        let began = self.begin(cx.turn.now, Some(cx.token()));
        self.app.telemetry.timings.note_step(began);
        let (before, asked) = (client.stage(), client.response().map(|one| one.asked_at));
        let action = self.app.step(client, socket, event, cx);
        if let Some(response) = client.response()
            && Some(response.asked_at) != asked
        {
            record::note_asked(response.asked_at, &response.target, None);
        }
        record::note(
            began,
            What::Step {
                event,
                action,
                stages: [before, client.stage()],
                awaited: client.awaited(action),
                moved: cx.turn.bytes_moved,
            },
        );
        // The loop may register the socket now, which is still for this connection.
        action
    }

    fn source(&mut self, id: SourceId, control: &mut LoopHandle<ConnRecord>) {
        let began = self.begin(control.now(), None);
        self.app.source(id, control);
        record::note(began, What::Source(id.0));
    }

    fn reclaimable(&self, client: &ConnRecord) -> Option<Reclaimable> {
        self.app.reclaimable(client)
    }

    fn holds_too_much(&self) -> bool {
        self.app.holds_too_much()
    }

    fn draining(&mut self) {
        self.app.draining();
    }

    fn may_end(&self) -> bool {
        self.app.may_end()
    }

    fn turn_over(&mut self, stats: &Stats, now: Instant) -> Option<Instant> {
        record::set_conn(0);
        let due = self.app.turn_over(stats, now);
        // A wait after which nothing was called goes on.
        self.waits_since.get_or_insert(now);
        record::hand_over();
        due
    }

    fn ended(
        &mut self,
        client: ConnRecord,
        token: Token,
        reason: Reason,
        control: &mut LoopHandle<ConnRecord>,
    ) {
        let began = self.begin(control.now(), Some(token));
        self.app.ended(client, token, reason, control);
        record::note(began, What::Ended(reason));
        record::set_conn(0);
    }
}
