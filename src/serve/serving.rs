//! The application on the loop: steps clients through their protocol, and does what goes on around them:
//! who waits for a descriptor or a disk, whom logs and counters are told of.

mod signals;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use signal_hook_mio::v1_0::Signals;

use super::conn_record::{Active, ConnRecord, EndLog, Role};
use super::request_memory::RequestMemory;
use super::telemetry::Telemetry;
use super::timing::{ReplyTime, Timed};
use crate::conn::transport::Socket;
use crate::conn::{StepIo, Timeouts};
use crate::daemon::service_manager::ServiceManager;
use crate::daemon::sources::{
    DISK_TASKS, HAND_OVER, HANGUP, OTHER_ENDED, RELOADED, SIGNALS, STOP_NOW, SUCCESSOR,
};
use crate::daemon::succession::Succession;
use crate::daemon::tls::LoopTls;
use crate::daemon::unix_socket::SocketFile;
use crate::daemon::workers::Worker;
use crate::file::DiskTasks;
use crate::limits::FD_WAIT_RETRY;
use crate::peer::Peer;
use crate::peer::client_limit::{Admission, ClientLimit};
use crate::peer::proxies::{Front, Proxies};
use crate::protocol::Protocol;
use crate::reactor::event::{Action, Event, Reclaimable};
use crate::reactor::{Context, Handler, ListenerId, LoopHandle, Reactor, Remote, SourceId, Token};
use crate::telemetry::log_writer::LineWriter;
use crate::telemetry::rate_limit::RateLimit;
use crate::telemetry::response::Response;
use crate::telemetry::{Reason, Stats};
use crate::tls::session::Blocked;
use crate::tls::transport::TlsTransport;
use crate::trace::transport::TracedSocket;

/// Which signals have come.
#[derive(Clone, Copy, Debug)]
pub(super) enum Signalled {
    Not,
    /// This one, at that time.
    Once(i32, Instant),
    /// Again: this one ends everything at once.
    Again(u8),
}

/// The application: a protocol, and what happens around its connections.
pub(super) struct Serving<P> {
    protocol: P,
    timeouts: Timeouts,
    /// How long a drain may take.
    pub(super) drain_timeout: Duration,
    pub(super) signals: Option<Signals>,
    pub(super) signalled: Signalled,
    /// Drain after the first answer.
    pub(super) once: bool,
    /// What became of replies after which their connections go on, in one step.
    finished: Vec<Response>,
    /// Connections that wait for a descriptor, first come first.
    fd_waiters: VecDeque<Token>,
    /// Their shortage is warned about.
    shortage: RateLimit,
    disk_tasks: DiskTasks<Token>,
    request_memory: RequestMemory,
    end_log: EndLog,
    pub(super) telemetry: Telemetry,
    pub(super) worker: Worker,
    pub(super) tls: Option<LoopTls>,
    pub(super) proxies: Proxies,
    pub(super) client_limit: Option<Arc<ClientLimit>>,
    /// Clients that reach it are warned about.
    refusals: RateLimit,
    /// The first loop's.
    pub(super) manager: Option<ServiceManager>,
    /// The first loop's, of a server that can be restarted.
    pub(super) succession: Option<Succession>,
    /// The first loop's: the files of all loops' sockets.
    socket_files: Vec<SocketFile>,
    remote: Remote,
    log_writer: LineWriter,
}

impl<P: Protocol> Serving<P> {
    /// On this loop, of so many connections at most. It takes no signals yet.
    pub(super) fn new(
        protocol: P,
        timeouts: Timeouts,
        reactor: &Reactor<ConnRecord>,
        connections_max: usize,
        socket_files: Vec<SocketFile>,
        log_writer: LineWriter,
    ) -> Self {
        let remote = reactor.remote();
        let notify = move || {
            if let Err(error) = remote.notify(DISK_TASKS) {
                log::error!("the loop can't be woken: {error}");
            }
        };
        Self {
            protocol,
            timeouts,
            drain_timeout: Duration::ZERO,
            signals: None,
            signalled: Signalled::Not,
            once: false,
            finished: Vec::new(),
            fd_waiters: VecDeque::new(),
            shortage: RateLimit::default(),
            disk_tasks: DiskTasks::new(notify),
            request_memory: RequestMemory::new(connections_max),
            end_log: EndLog::default(),
            telemetry: Telemetry::default(),
            worker: Worker::default(),
            tls: None,
            proxies: Proxies::default(),
            client_limit: None,
            refusals: RateLimit::default(),
            manager: None,
            succession: None,
            socket_files,
            remote: reactor.remote(),
            log_writer,
        }
    }

    /// Clients may come.
    pub(super) fn is_ready(&mut self) {
        if let Some(manager) = &mut self.manager {
            manager.ready();
        }
    }

    /// Disk threads have done something: wakes those who wait for it.
    fn collect_results(&mut self, control: &mut LoopHandle<ConnRecord>) {
        let (waiting, panics) = self.disk_tasks.collect();
        control.stats.helper_panics += panics;
        for token in waiting {
            control.wake(token);
        }
        self.protocol.reopened();
    }

    /// Puts a client into the line of those who wait for a descriptor, or takes it out.
    fn update_fd_queue(
        &mut self,
        client: &mut Active,
        waits: bool,
        token: Token,
        control: &mut LoopHandle<ConnRecord>,
    ) {
        if waits == client.waits_for_fd {
            return;
        }
        client.waits_for_fd = waits;
        if waits {
            self.fd_waiters.push_back(token);
            if self.shortage.allows(control.now()) {
                log::warn!("no descriptor is free for a file: clients wait");
            }
        } else {
            self.fd_waiters.retain(|&waiter| waiter != token);
            self.wake_first(control);
        }
    }

    /// One step of a client, and what is to be told of it.
    fn step_client(
        &mut self,
        (peer, client): (Peer, &mut Active),
        mut plain: TracedSocket<'_>,
        event: Event,
        cx: &mut Context<'_, ConnRecord>,
    ) -> Action {
        let token = cx.token();
        let mut task = None;
        let mut task_result = if client.conn.awaits_task() {
            self.disk_tasks.take(token)
        } else {
            None
        };
        let event = match event {
            // Who is first in the line looks for a descriptor now and then, the others only whether
            // they are still to wait.
            Event::Deadline if client.waits_for_fd && self.fd_waiters.front() != Some(&token) => {
                Event::Drain
            }
            event => event,
        };
        let timings = &mut self.telemetry.timings;
        timings.begin(&mut client.timing, event, cx.turn.now, &plain);
        let mut protocol = Timed::new(&mut self.protocol, client.timing.as_deref_mut());
        let mut io = StepIo {
            transport: &mut (),
            protocol: &mut protocol,
            timeouts: &self.timeouts,
            turn: &mut cx.turn,
            finished: &mut self.finished,
            task: &mut task,
            task_result: &mut task_result,
        };
        let next = match &mut self.tls {
            None => client.conn.step(&mut io.over(&mut plain), event),
            Some(tls) => {
                let (blocked, tls) = (&mut Blocked::default(), &mut tls.terminator);
                let transport = TlsTransport::new(&mut plain, blocked, &mut client.wire, tls);
                transport.step(&mut client.conn, event, io)
            }
        };
        timings.end(&mut client.timing, &client.conn, next, &plain);
        self.weigh(client, next, cx.turn.now);
        if let Some(task) = task {
            self.disk_tasks.send(token, task);
        }
        if client.waits_for_fd {
            // It has looked, so whoever needs no file of its own may come in.
            cx.control.set_accepting(true);
        }
        if !self.finished.is_empty() {
            // A file may have been closed.
            self.wake_first(cx.control);
        }
        for response in self.finished.drain(..) {
            let (stats, reason) = (&mut cx.control.stats, response.reason());
            let whose = self.proxies.client_of(client.client(peer), &response);
            let took = cx.turn.now - response.asked_at;
            let time = ReplyTime::new(&mut client.timing, took, took);
            self.telemetry
                .count_reply(whose, &response, reason, time, stats);
            self.end_log.response(whose, &response, cx.turn.now, reason);
        }
        self.telemetry.on_step(client);
        // Who looks for a descriptor by a disk thread keeps its place until it has one, unless that may
        // be never: all the others would wait as long.
        let keeps_place = client.waits_for_fd && !self.disk_tasks.is_remote(token);
        let stands = !client.conn.awaits_task() || keeps_place;
        self.update_fd_queue(client, next == Action::Suspend && stands, token, cx.control);
        if self.fd_waiters.front() == Some(&token) {
            // Who is first looks again now and then: other processes free descriptors, too.
            let again = cx.turn.now + FD_WAIT_RETRY;
            cx.turn.deadline = cx.turn.deadline.map(|deadline| deadline.min(again));
        }
        if self.once && client.conn.response().is_some() {
            self.drain(cx.control);
        }
        next
    }

    /// Notes what a client holds after a step.
    fn weigh(&mut self, client: &mut Active, next: Action, now: Instant) {
        let held = client.held_bytes();
        self.request_memory.note(&mut client.held, held);
        if next == Action::Close(Reason::OutOfMemory) {
            self.request_memory.run_out();
            if self.shortage.allows(now) {
                log::warn!("there is no memory for what clients send: some are closed");
            }
        }
    }

    /// Counts a connection as this client's, if it may have one more.
    fn admit(&mut self, peer: Peer, now: Instant) -> Admission {
        let Some(limit) = &self.client_limit else {
            return Admission::Uncounted;
        };
        let admission = limit.admit(peer.ip());
        if admission == Admission::Refused && self.refusals.allows(now) {
            let most = limit.most();
            log::warn!(
                "{peer} has {most} connections: more are reset (--max-connections-per-client)"
            );
        }
        admission
    }

    /// A descriptor may be free. The first in the line looks before one more client is let in, who
    /// would take it; it keeps its place until it has what it waits for.
    fn wake_first(&self, control: &mut LoopHandle<ConnRecord>) {
        if let Some(&first) = self.fd_waiters.front() {
            control.wake(first);
        }
        control.set_accepting(self.fd_waiters.is_empty());
    }
}

impl<P: Protocol> Handler for Serving<P> {
    type Conn = ConnRecord;

    fn accepted(
        &mut self,
        from: ListenerId,
        peer: Option<SocketAddr>,
        cx: &mut Context<'_, ConnRecord>,
    ) -> ConnRecord {
        let (accepted_at, role) = (cx.turn.now, self.telemetry.on_accept(from));
        let timeouts = match role {
            Role::Client(_) => self.timeouts,
            Role::Admin => super::telemetry::TIMEOUTS,
        };
        let mut client = ConnRecord::new(peer, role, accepted_at, timeouts.request);
        // One that a proxy may speak for is counted when it has.
        if matches!(role, Role::Client(_)) && !self.proxies.trusts(client.peer) {
            client.admission = self.admit(client.peer, accepted_at);
        }
        client
    }

    // The loop and what records it for a trace both call it: neither shall pay for the other.
    #[inline(always)]
    fn step(
        &mut self,
        client: &mut ConnRecord,
        socket: &mut TcpStream,
        event: Event,
        cx: &mut Context<'_, ConnRecord>,
    ) -> Action {
        let connected = client.peer;
        let (peer, admission, active) = client.activate(cx.turn.deadline, self.timeouts.request);
        let next = match active.role {
            Role::Admin => self
                .telemetry
                .answer(active, socket, event, cx, &self.log_writer),
            Role::Client(_) => {
                let whose = (&mut *peer, &mut active.origin);
                let (scratch, now) = (&mut *cx.turn.scratch, cx.turn.now);
                let front = self.proxies.take_header(whose, socket, scratch, now);
                let plain = Socket::new(socket).withheld(front == Front::Awaited);
                let plain = TracedSocket::new(plain);
                if peer.ip() != connected.ip() {
                    *admission = self.admit(*peer, now);
                }
                match front {
                    _ if *admission == Admission::Refused => {
                        Action::Reset(Reason::TooManyConnections)
                    }
                    Front::Awaited | Front::Known => {
                        self.step_client((*peer, active), plain, event, cx)
                    }
                    Front::Bad => Action::Close(Reason::BadProxyHeader),
                    Front::Broken => Action::Close(Reason::PeerReset),
                }
            }
        };
        client.hibernate(next, cx.turn.deadline);
        next
    }

    fn source(&mut self, id: SourceId, control: &mut LoopHandle<ConnRecord>) {
        match id {
            SIGNALS => self.take_signals(control),
            STOP_NOW => control.stop(),
            HANGUP => self.reopen_root(None),
            SUCCESSOR => self.hand_over(control),
            HAND_OVER => control.hand_over(self.drain_timeout),
            RELOADED => {
                if let Some(manager) = &mut self.manager {
                    manager.reloaded();
                }
            }
            // The turn asks whether this loop may end.
            OTHER_ENDED => {}
            DISK_TASKS => self.collect_results(control),
            _ => self.drain(control),
        }
    }

    fn reclaimable(&self, client: &ConnRecord) -> Option<Reclaimable> {
        client.reclaimable()
    }

    fn holds_too_much(&self) -> bool {
        self.request_memory.is_too_much()
    }

    fn draining(&mut self) {
        if self.worker.begins_to_drain() {
            self.log_writer.announce(&format_args!("draining"));
        }
    }

    fn may_end(&self) -> bool {
        self.worker.may_end()
    }

    fn turn_over(&mut self, stats: &Stats, now: Instant) -> Option<Instant> {
        self.worker.publish(stats, self.telemetry.stages());
        let due = self.protocol.release_idle(now);
        let looks = self.tls.as_mut().and_then(|tls| {
            tls.terminator.turn_over();
            Some(tls.watch.as_mut()?.check(now))
        });
        let tells = match &mut self.manager {
            Some(manager) => manager.turn_over(stats, now, &self.worker),
            None => self.worker.turned(now),
        };
        due.into_iter().chain(looks).chain(tells).min()
    }

    #[inline(always)]
    fn ended(
        &mut self,
        client: ConnRecord,
        token: Token,
        reason: Reason,
        control: &mut LoopHandle<ConnRecord>,
    ) {
        let (now, peer) = (control.now(), client.peer);
        if let (Admission::Counted, Some(limit)) = (client.admission, &self.client_limit) {
            limit.leave(peer.ip());
        }
        let mut client = client.into_active(now);
        let mut whose = client.client(peer);
        self.update_fd_queue(&mut client, false, token, control);
        self.request_memory.note(&mut client.held, 0);
        if client.conn.awaits_task() {
            self.disk_tasks.forget(token);
        }
        self.telemetry.on_close(&client);
        match client.role {
            Role::Admin => log::debug!("{peer} metrics: {reason}"),
            Role::Client(_) => {
                if let Some(response) = client.conn.response() {
                    let asked_ago = now - response.asked_at;
                    let took = match client.conn.lingers_since() {
                        Some(since) => since - response.asked_at,
                        None => asked_ago,
                    };
                    let time = ReplyTime::new(&mut client.timing, took, asked_ago);
                    whose = self.proxies.client_of(whose, response);
                    self.telemetry
                        .count_reply(whose, response, reason, time, &mut control.stats);
                }
                let origin = client.origin.as_deref();
                let is_check = matches!(reason, Reason::ClientLeft | Reason::PeerReset)
                    && self.proxies.speaks_for_itself(peer, origin);
                self.end_log.end(whose, &client, reason, now, is_check);
            }
        }
        // The descriptors it held are free once it is dropped.
        drop(client);
        self.wake_first(control);
    }
}
