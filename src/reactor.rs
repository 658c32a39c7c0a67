//! The loop: one poll, the listeners, the slab of connections, their deadlines and the run queue.
//! It knows readiness and time; no names, no files. What runs on it is a [`Handler`].
//!
//! One turn, in order: wait (not at all if something is ready to run) · read the clock once ·
//! sources · accept, a bounded number · the events, then the run queue as it stood · deadlines ·
//! reap. Handlers never free anything: they say how a connection ends, and the reap releases it: one that ends
//! in its first step at once, as nothing names it yet, others at the end of the turn, or earlier where a slot
//! or memory is needed. A token that outlives its connection fails by its generation.
//!
//! Polling is edge-triggered. A socket is registered, once and for both directions, when it first has to wait:
//! an attempt would block, or a short read has shown that the next one would. Whoever stops without having
//! seen WouldBlock goes to the run queue, since no new edge will come.

pub(crate) mod conn_slab;
pub mod event;
mod handler;
mod lines;
mod listener;
mod reclaim;
mod shutdown;
pub mod timer_wheel;

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Waker};

use crate::limits::{
    ACCEPT_RETRY, ACCEPTS_PER_TURN_MAX, EVENTS_PER_TURN_MAX, LOOP_TURN_BYTES_MAX, SCRATCH_BYTES,
};
use crate::reactor::event::{Action, Event, Readiness};
use crate::reactor::timer_wheel::{Deadline, Timers};
use crate::sockopt;
use crate::telemetry::rate_limit::RateLimit;
use crate::telemetry::{Reason, Stats};

pub use handler::{Context, Handler, ListenerId, LoopHandle, Remote, SourceId, Token};

use conn_slab::{ConnSlab, Line, Link, Schedule, Slot};
use handler::{FIRST_GENERATION, LISTENER, Life, SOURCE, WAKER};
use lines::Lines;
use listener::{Accepting, Listener, concerns_one_client};

/// How the loop came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A drain is over.
    Drained,
    /// [`LoopHandle::stop`] was called.
    Stopped,
}

/// The loop.
#[derive(Debug)]
pub struct Reactor<C> {
    poll: Poll,
    events: Events,
    remote: Remote,
    listeners: Vec<Listener>,
    slots: ConnSlab<C>,
    connections_max: usize,
    /// Open connections of the admin listeners, and how many there may be.
    admin_open: usize,
    admin_max: usize,
    /// The connections that may be ended when others need their place.
    lines: Lines,
    /// A moment after a client has waited for a place.
    crowded_until: Option<Instant>,
    generation: u32,
    /// By the keys of the slab.
    timers: Timers<u32>,
    run_queue: VecDeque<Token>,
    /// What this turn's steps have read and sent.
    bytes_moved: u64,
    ending: Vec<(Token, Reason)>,
    /// The connections that this turn's events name.
    ready: Vec<(Token, Readiness)>,
    sources: Vec<SourceId>,
    scratch: Box<[u8]>,
    control: LoopHandle<C>,
    /// Shortages that keep clients out, and sockets that can't be watched, are warned about.
    shortage: RateLimit,
    unwatched: RateLimit,
}

impl<C> Reactor<C> {
    /// A loop over listeners that are bound, listening and non-blocking.
    ///
    /// # Errors
    /// The poll can't be made.
    pub fn new(listeners: Vec<TcpListener>, connections_max: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(
            poll.registry(),
            Token {
                key: 0,
                generation: WAKER,
            }
            .pack(),
        )?;
        let now = Instant::now();
        let mut reactor = Self {
            poll,
            events: Events::with_capacity(EVENTS_PER_TURN_MAX),
            remote: Remote {
                waker: Arc::new(waker),
                inbox: Arc::default(),
            },
            listeners: Vec::new(),
            slots: ConnSlab::new(),
            connections_max,
            admin_open: 0,
            admin_max: 0,
            lines: Lines::default(),
            crowded_until: None,
            generation: FIRST_GENERATION,
            timers: Timers::new(now),
            run_queue: VecDeque::new(),
            bytes_moved: 0,
            // What stays is allocated before what comes and goes: nothing below it on the heap
            // could be given back.
            ending: Vec::with_capacity(EVENTS_PER_TURN_MAX),
            ready: Vec::with_capacity(EVENTS_PER_TURN_MAX),
            sources: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            control: LoopHandle {
                stats: Stats::default(),
                now,
                wakes: Vec::new(),
                outgoing: Vec::new(),
                life: Life::Running,
                is_accepting: true,
                is_handed_over: false,
                is_crowded: false,
            },
            shortage: RateLimit::default(),
            unwatched: RateLimit::default(),
        };
        for socket in listeners {
            reactor.add_listener(socket, false)?;
        }
        Ok(reactor)
    }

    fn add_listener(&mut self, mut socket: TcpListener, is_admin: bool) -> io::Result<ListenerId> {
        let key = self.listeners.len() as u32;
        let token = Token {
            key,
            generation: LISTENER,
        };
        self.poll
            .registry()
            .register(&mut socket, token.pack(), Interest::READABLE)?;
        self.listeners.push(Listener::new(socket, is_admin));
        Ok(ListenerId(key))
    }

    /// Adds an admin listener, for those who read metrics and the like: up to `connections_max` of
    /// them, whatever the others are limited to. They aren't counted, they are let in when nobody
    /// else is, and neither they nor their listener hold up a drain's end.
    ///
    /// # Errors
    /// It can't be registered.
    pub fn add_admin_listener(
        &mut self,
        socket: TcpListener,
        connections_max: usize,
    ) -> io::Result<ListenerId> {
        let id = self.add_listener(socket, true)?;
        self.admin_max += connections_max;
        Ok(id)
    }

    /// The listeners that are open, in their order.
    #[must_use]
    pub fn listeners(&self) -> Vec<Weak<TcpListener>> {
        let open = self.listeners.iter().filter_map(|one| one.socket.as_ref());
        open.map(Arc::downgrade).collect()
    }

    /// A drain leaves those in this listener's queue to another process, which has it, too.
    pub fn share(&mut self, listener: ListenerId) {
        self.listeners[listener.0 as usize].is_shared = true;
    }

    /// Watches a source; its readiness becomes [`Handler::source`].
    ///
    /// # Errors
    /// It can't be registered.
    pub fn add_source(
        &mut self,
        source: &mut impl mio::event::Source,
        id: SourceId,
    ) -> io::Result<()> {
        let token = Token {
            key: id.0,
            generation: SOURCE,
        };
        self.poll
            .registry()
            .register(source, token.pack(), Interest::READABLE)
    }

    /// Watches a source no more, so that another loop may.
    ///
    /// # Errors
    /// It isn't watched.
    pub fn remove_source(&mut self, source: &mut impl mio::event::Source) -> io::Result<()> {
        self.poll.registry().deregister(source)
    }

    /// A handle for other threads.
    #[must_use]
    pub fn remote(&self) -> Remote {
        self.remote.clone()
    }

    /// What the slab holds for one connection, in bytes.
    #[must_use]
    pub const fn slot_bytes() -> usize {
        conn_slab::entry_bytes::<C>()
    }

    /// How many connections the slab has memory for.
    #[must_use]
    pub fn places(&self) -> usize {
        self.slots.capacity()
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.control.stats
    }

    /// Runs turn after turn until a drain is over or the application stops the loop.
    ///
    /// # Errors
    /// The poll itself fails; the connections are reset.
    pub fn run<A: Handler<Conn = C>>(&mut self, app: &mut A) -> io::Result<Ending> {
        self.control.now = Instant::now();
        loop {
            if let Err(error) = self.turn(app) {
                self.end_all(app, Reason::PollFailed);
                self.reap(app);
                return Err(error);
            }
            let ending = match self.control.life {
                Life::Stopped => Ending::Stopped,
                Life::Draining { .. } if self.is_empty() && app.may_end() => Ending::Drained,
                _ => continue,
            };
            self.end_all(app, Reason::Stopped);
            self.reap(app);
            app.turn_over(&self.control.stats, self.control.now);
            return Ok(ending);
        }
    }

    /// Whether no connection is open and no listener can bring one, admin listeners left out.
    fn is_empty(&self) -> bool {
        let mut accepting = self.listeners.iter().filter(|listener| !listener.is_admin);
        self.slots.len() == self.admin_open && accepting.all(Listener::is_closed)
    }

    fn turn<A: Handler<Conn = C>>(&mut self, app: &mut A) -> io::Result<()> {
        self.wait(app)?;
        self.control.now = Instant::now();
        self.bytes_moved = 0;
        for id in std::mem::take(&mut self.sources) {
            app.source(id, &mut self.control);
        }
        // Whom other threads have woken is stepped in this turn, whom its steps wake in the next one.
        self.queue_woken();
        self.begin_drain(app);
        self.insert_outgoing(app);
        let queued_before = self.run_queue.len();
        for index in 0..self.listeners.len() {
            // Asked for each: the first step of a new client may change it.
            if self.is_accepting(&self.listeners[index]) {
                self.accept(app, index);
            }
        }
        self.dispatch(app, queued_before);
        self.expire(app);
        self.reap(app);
        self.resume_accepting();
        self.queue_woken();
        self.shrink();
        Ok(())
    }

    // ---- waiting ----

    /// Waits for events and sorts them.
    fn wait<A: Handler<Conn = C>>(&mut self, app: &mut A) -> io::Result<()> {
        let mut now = Instant::now();
        self.control.stats.count_turn(now - self.control.now);
        let due = app.turn_over(&self.control.stats, now);
        loop {
            let timeout = self.poll_timeout(now, due);
            match self.poll.poll(&mut self.events, timeout) {
                // What a signal interrupts has not looked: a turn without events would take
                // deadlines for passed whose bytes are there.
                Err(error) if error.kind() == ErrorKind::Interrupted => now = Instant::now(),
                result => break result?,
            }
        }
        for event in &self.events {
            let token = Token::unpack(event.token());
            match token.generation {
                LISTENER => {
                    let state = &mut self.listeners[token.key as usize].state;
                    if *state == Accepting::Waiting {
                        *state = Accepting::Ready;
                    }
                }
                SOURCE => self.sources.push(SourceId(token.key)),
                WAKER => {
                    let mut inbox = self
                        .remote
                        .inbox
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner);
                    self.sources.append(&mut inbox);
                }
                _ => {
                    let edge = readiness(event);
                    let slot = self.slots.get_mut(token.key as usize);
                    match slot.filter(|slot| slot.generation == token.generation) {
                        // A bulk sender became writable: it is queued behind this turn's small requests.
                        Some(slot) if slot.schedule == Schedule::WaitingBulk && edge.writable => {
                            slot.schedule = slot.schedule.ready(edge);
                            self.run_queue.push_back(token);
                        }
                        _ => self.ready.push((token, edge)),
                    }
                }
            }
        }
        Ok(())
    }

    /// The timeout of the poll: until the nearest deadline or `due`, zero if something can run
    /// already, `None` if only an event can end the wait.
    fn poll_timeout(&self, now: Instant, due: Option<Instant>) -> Option<Duration> {
        let drain_ends = match self.control.life {
            Life::Draining { deadline } => deadline,
            Life::DrainAsked { .. } => return Some(Duration::ZERO),
            Life::Running | Life::Stopped => None,
        };
        if !self.run_queue.is_empty() || !self.control.outgoing.is_empty() {
            return Some(Duration::ZERO);
        }
        let mut next = [due, self.timers.next(), self.slots.shrink_at(), drain_ends]
            .into_iter()
            .flatten()
            .min();
        for listener in self.listeners.iter().filter(|one| self.is_accepting(one)) {
            if listener.is_ready() {
                return Some(Duration::ZERO);
            }
            next = next.into_iter().chain(listener.next_deadline()).min();
        }
        next.map(|at| at.saturating_duration_since(now))
    }

    // ---- accepting ----

    /// Admin listeners accept even while the others are paused.
    fn is_accepting(&self, listener: &Listener) -> bool {
        self.control.is_accepting || listener.is_admin
    }

    fn accept<A: Handler<Conn = C>>(&mut self, app: &mut A, index: usize) {
        if self.listeners[index].only_waits() {
            return;
        }
        let now = self.control.now;
        let is_last_look = self.listeners[index]
            .grace_ends
            .is_some_and(|ends| ends <= now);
        if is_last_look && self.listeners[index].state == Accepting::Waiting {
            // A client may have come since the wait.
            self.listeners[index].state = Accepting::Ready;
        }
        for _ in 0..ACCEPTS_PER_TURN_MAX {
            if self.bytes_moved >= LOOP_TURN_BYTES_MAX {
                break;
            }
            let is_accepting = self.is_accepting(&self.listeners[index]);
            let listener = &mut self.listeners[index];
            let may_try = is_accepting && listener.may_try(now);
            let Some(socket) = listener.socket.as_deref().filter(|_| may_try) else {
                break;
            };
            let (open, most) = if listener.is_admin {
                (self.admin_open, self.admin_max)
            } else {
                (self.slots.len() - self.admin_open, self.connections_max)
            };
            if open >= most {
                if self.make_room(app, index, most) {
                    continue;
                }
                break;
            }
            match listener::accept(socket) {
                Ok((socket, peer)) => {
                    listener.state = Accepting::Ready;
                    self.admit(app, ListenerId(index as u32), socket, peer);
                    self.relieve(app);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    listener.state = Accepting::Waiting;
                }
                Err(error) if concerns_one_client(&error) => {
                    listener.state = Accepting::Ready;
                    log::debug!("a client was gone before it was accepted: {error}");
                }
                Err(error) => {
                    let until = Some(now + ACCEPT_RETRY);
                    listener.back_off(
                        until,
                        &mut self.shortage,
                        now,
                        format_args!("accept: {error}"),
                    );
                }
            }
        }
        let listener = &mut self.listeners[index];
        if is_last_look && listener.state == Accepting::Waiting {
            listener.close(self.poll.registry());
        }
    }

    fn admit<A: Handler<Conn = C>>(
        &mut self,
        app: &mut A,
        from: ListenerId,
        socket: TcpStream,
        peer: Option<SocketAddr>,
    ) {
        if self.control.is_draining() {
            // A socket inherits its listener's IP_MINTTL if the handshake ended after that was set.
            let _ = sockopt::set_ttl_min(&socket, 0);
        }
        let is_admin = self.listeners[from.0 as usize].is_admin;
        self.insert(app, socket, is_admin, |app, cx| {
            app.accepted(from, peer, cx)
        });
    }

    fn insert_outgoing<A: Handler<Conn = C>>(&mut self, app: &mut A) {
        if self.control.outgoing.is_empty() {
            return;
        }
        for (socket, conn) in std::mem::take(&mut self.control.outgoing) {
            self.insert(app, socket, false, |_, _| conn);
        }
    }

    /// Gives a socket its place in the slab, and its first step.
    fn insert<A: Handler<Conn = C>>(
        &mut self,
        app: &mut A,
        socket: TcpStream,
        is_admin: bool,
        make: impl FnOnce(&mut A, &mut Context<'_, C>) -> C,
    ) {
        if is_admin {
            self.admin_open += 1;
        } else {
            self.control.stats.count_accepted();
        }
        let token = Token {
            key: self.slots.vacant_key() as u32,
            generation: self.generation,
        };
        self.generation = self.generation.checked_add(1).unwrap_or(FIRST_GENERATION);
        let mut cx = Context::new(token, None, &mut self.scratch, &mut self.control);
        let conn = make(app, &mut cx);
        self.slots.insert(Slot {
            socket,
            generation: token.generation,
            registered: false,
            is_admin,
            schedule: Schedule::Waiting,
            line: None,
            link: Link::default(),
            deadline: Deadline::default(),
            conn,
        });
        if is_admin {
            self.lines.push(&mut self.slots, token.key, Line::Admin);
        }
        self.step(app, token, Event::Start);
        if self.schedule_of(token) == Some(Schedule::Ended) {
            // Its last bytes wait for the close, and nothing can name it: it was never watched.
            self.reap(app);
        }
    }

    // ---- stepping ----

    /// Steps what the events name, then the connections `queued_before` this turn, until all
    /// together have moved a turn's worth of bytes. What is left of the events is queued, since
    /// their edges won't come again; what is left of the queue stays in front for the next turn.
    fn dispatch<A: Handler<Conn = C>>(&mut self, app: &mut A, queued_before: usize) {
        let mut ready = std::mem::take(&mut self.ready);
        for (token, edge) in ready.drain(..) {
            match self.schedule_of(token) {
                Some(schedule @ (Schedule::Waiting | Schedule::WaitingBulk))
                    if self.bytes_moved >= LOOP_TURN_BYTES_MAX =>
                {
                    self.set_schedule(token, schedule.ready(edge));
                    self.run_queue.push_back(token);
                }
                Some(before @ Schedule::Ready { .. }) => {
                    self.set_schedule(token, before.ready(edge));
                }
                Some(Schedule::Waiting | Schedule::WaitingBulk) => {
                    self.step(app, token, Event::Ready(edge));
                    self.relieve(app);
                }
                Some(Schedule::Suspended | Schedule::Woken) if edge.dead => {
                    self.step(app, token, Event::Ready(edge));
                }
                // What has yielded tries everything when its turn comes.
                _ => {}
            }
        }
        self.ready = ready;
        let mut has_stepped = false;
        for _ in 0..queued_before {
            // One at least: however much the others move in each turn, the queue must go on.
            if has_stepped && self.bytes_moved >= LOOP_TURN_BYTES_MAX {
                break;
            }
            if let Some(token) = self.run_queue.pop_front()
                && let Some(event) = self.schedule_of(token).and_then(Schedule::queued_for)
            {
                self.set_schedule(token, Schedule::Waiting);
                self.step(app, token, event);
                self.relieve(app);
                has_stepped = true;
            }
        }
    }

    fn queue_woken(&mut self) {
        for token in std::mem::take(&mut self.control.wakes) {
            if self.schedule_of(token) == Some(Schedule::Suspended) {
                self.set_schedule(token, Schedule::Woken);
                self.run_queue.push_back(token);
            }
        }
    }

    fn schedule_of(&self, token: Token) -> Option<Schedule> {
        let slot = self.slots.get(token.key as usize)?;
        (slot.generation == token.generation).then_some(slot.schedule)
    }

    /// The token's connection must be there.
    fn set_schedule(&mut self, token: Token, schedule: Schedule) {
        self.slots[token.key as usize].schedule = schedule;
    }

    /// Steps one connection that is there and has not ended, and does what it wants next.
    fn step<A: Handler<Conn = C>>(&mut self, app: &mut A, token: Token, event: Event) {
        self.control.is_crowded = self.is_crowded();
        let slot = &mut self.slots[token.key as usize];
        let before = self.timers.at(&slot.deadline);
        let mut cx = Context::new(token, before, &mut self.scratch, &mut self.control);
        let next = app.step(&mut slot.conn, &mut slot.socket, event, &mut cx);
        let (mut deadline, moved) = (cx.turn.deadline, cx.turn.bytes_moved);
        self.bytes_moved += moved;
        if event == Event::Deadline && deadline == before {
            // It has passed, and nothing else was asked for.
            deadline = None;
        }
        if deadline != before && !matches!(next, Action::Close(_) | Action::Reset(_)) {
            self.timers.set(&mut slot.deadline, deadline, token.key);
        }
        match next {
            Action::Wait | Action::Suspend => {
                match (next, slot.schedule) {
                    (Action::Suspend, _) => slot.schedule = Schedule::Suspended,
                    // A deadline came while it was queued; it stays queued.
                    (_, Schedule::Yielded | Schedule::Ready { .. } | Schedule::Woken) => {}
                    _ => slot.schedule = Schedule::waiting_after(moved),
                }
                if let Err(error) = slot.register(&self.poll, token) {
                    if self.unwatched.allows(self.control.now) {
                        log::error!("a socket can't be watched: {error}");
                    }
                    self.reset(token, Reason::PollFailed);
                }
            }
            Action::Yield => {
                if slot.schedule.queued_for().is_none() {
                    self.run_queue.push_back(token);
                }
                if slot.schedule != Schedule::Woken {
                    slot.schedule = Schedule::Yielded;
                }
            }
            Action::Close(reason) => self.mark_ended(token, reason),
            Action::Reset(reason) => self.reset(token, reason),
        }
        self.update_line(app, token, moved);
    }

    // ---- deadlines ----

    fn expire<A: Handler<Conn = C>>(&mut self, app: &mut A) {
        let now = self.control.now;
        let mut expired = Vec::new();
        self.timers.expire(now, &mut expired);
        for (key, tick) in expired {
            let slot = self.slots.get_mut(key as usize);
            let Some(slot) = slot.filter(|slot| slot.schedule != Schedule::Ended) else {
                continue;
            };
            if self.timers.is_due(&mut slot.deadline, tick, now, key) {
                let generation = slot.generation;
                self.step(app, Token { key, generation }, Event::Deadline);
                self.reap_if_many(app);
            }
        }
        if let Life::Draining { deadline } = self.control.life
            && deadline.is_some_and(|deadline| deadline <= now)
        {
            self.end_drain(app);
        }
    }
}

fn readiness(event: &mio::event::Event) -> Readiness {
    Readiness {
        readable: event.is_readable(),
        writable: event.is_writable(),
        read_closed: event.is_read_closed(),
        dead: event.is_error() || event.is_write_closed(),
    }
}
