//! The application on the reactor: starts requests by the load's model, and ends the stage.

mod arrivals;
mod dial;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::unix::SourceFd;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use signal_hook_mio::v1_0::Signals;

use super::check::{Checker, Reference};
use super::client::{Client, InFlight, Phase, connect_class};
use super::outcome::Class;
use super::plan::{Choice, Plan};
use super::population::ClientKind;
use super::tally::Tally;
use crate::escape::Escaped;
use crate::limits::{SCRATCH_BYTES, SOAK_BACK_OFF, SOAK_STARTS_MAX, SOAK_TICK};
use crate::reactor::event::{Action, Event};
use crate::reactor::{self, Handler, ListenerId, Reactor, SourceId, Token};
use crate::telemetry::Reason;
use arrivals::arrival;

/// What a client's step may use of the loop.
pub type Context<'a> = reactor::Context<'a, Client>;

type LoopHandle = reactor::LoopHandle<Client>;

const CLOCK: SourceId = SourceId(0);
const SIGNALS: SourceId = SourceId(1);

/// How requests are started.
#[derive(Clone, Debug)]
pub enum Workload {
    /// So many clients, each of which waits for its answer.
    Closed(Vec<ClientKind>),
    /// Arrivals a second; so many connections at most.
    Open {
        /// Arrivals a second.
        rate: f64,
        /// Connections at most.
        clients_max: u64,
    },
    /// Each of these names once, by a few clients at once, to learn what they bring.
    Learn(Range<u32>),
}

/// How far a stage goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct StageLimits {
    /// How long requests are started.
    pub time: Option<Duration>,
    /// How many requests are started.
    pub requests: Option<u64>,
    /// Over what time the full load is reached.
    pub ramp: Duration,
}

/// Who looks on while a stage goes on.
pub trait Observer {
    /// Called a few times a second. It must not block.
    fn observe(&mut self, engine: &Engine<'_>);
}

/// One stage of a run, and what it has in common with the others.
#[allow(missing_debug_implementations, reason = "a checker has none")]
pub struct Engine<'a> {
    pub(super) plan: &'a Plan,
    pub(super) tally: Tally,
    pub(super) buffer: Box<[u8]>,
    /// What each name must bring.
    pub references: Vec<Option<Reference>>,
    workload: Workload,
    limits: StageLimits,
    observer: Option<&'a mut dyn Observer>,
    /// When the stage began.
    began: Instant,
    /// Requests started in this stage.
    stage_started: u64,
    /// Arrivals of the open model: how many were begun.
    arrivals: u64,
    /// Arrivals that were due in earlier stages and never begun.
    never_started: u64,
    /// Requests of all stages, which number their choices: of each client of the closed model, and
    /// of the open one.
    numbers: Vec<u64>,
    arrival_number: u64,
    /// When a client of the closed model starts again.
    restarts: BinaryHeap<Reverse<(Instant, u32)>>,
    /// Connections kept alive for the next arrival.
    idle: Vec<Token>,
    /// What was left for them.
    queued_for_idle: VecDeque<InFlight>,
    /// When a request was last started.
    last_start: Instant,
    in_flight: u64,
    in_flight_max: u64,
    /// Sockets that are open: those of requests, and those kept alive.
    sockets: u64,
    /// So many connections that are kept alive must make room.
    evictions: u64,
    /// An arrival waits for room: whoever makes some starts the clock.
    arrival_waits: bool,
    /// Of these, by clients that say nothing: they hold up no end.
    silent: u64,
    phases: [u64; 4],
    clock: OwnedFd,
    signals: Signals,
    cut_short: bool,
    /// The stage ends; nothing is started any more.
    is_over: bool,
    /// When that was.
    over_at: Instant,
    next_tick: Instant,
}

impl<'a> Engine<'a> {
    /// Belongs to no client of the closed model.
    pub(super) const NO_CLIENT: u32 = u32::MAX;

    /// An engine that has not begun. Signals that arrive from now on end it early.
    ///
    /// # Errors
    /// The clock or the signals' descriptors can't be made.
    pub fn new(
        plan: &'a Plan,
        references: Vec<Option<Reference>>,
        signals: Signals,
    ) -> io::Result<Self> {
        let now = Instant::now();
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self {
            plan,
            tally: Tally::new(now),
            buffer: vec![0; SCRATCH_BYTES].into(),
            references,
            workload: Workload::Learn(0..0),
            limits: StageLimits::default(),
            observer: None,
            began: now,
            stage_started: 0,
            arrivals: 0,
            never_started: 0,
            numbers: Vec::new(),
            arrival_number: 0,
            restarts: BinaryHeap::new(),
            idle: Vec::new(),
            queued_for_idle: VecDeque::new(),
            last_start: now,
            in_flight: 0,
            in_flight_max: 0,
            sockets: 0,
            evictions: 0,
            arrival_waits: false,
            silent: 0,
            phases: [0; 4],
            clock: rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?,
            signals,
            cut_short: false,
            is_over: false,
            over_at: now,
            next_tick: now,
        })
    }

    /// What is asked of whom.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        self.plan
    }

    /// Whoever looks on from now on.
    pub fn set_observer(&mut self, observer: &'a mut dyn Observer) {
        self.observer = Some(observer);
    }

    /// Forgets what was counted: what follows is the load.
    pub fn begin_count(&mut self) {
        self.tally = Tally::new(Instant::now());
        self.in_flight_max = 0;
        self.numbers.clear();
    }

    /// Runs one stage to its end.
    ///
    /// # Errors
    /// The loop can't be made, or fails.
    pub fn run_stage(&mut self, workload: Workload, limits: StageLimits) -> io::Result<()> {
        let mut reactor = Reactor::new(Vec::new(), 0)?;
        reactor.add_source(&mut SourceFd(&self.clock.as_raw_fd()), CLOCK)?;
        reactor.add_source(&mut self.signals, SIGNALS)?;
        (self.workload, self.limits) = (workload, limits);
        self.began = Instant::now();
        self.next_tick = self.began;
        (self.stage_started, self.arrivals, self.is_over) = (0, 0, false);
        (self.last_start, self.over_at) = (self.began, self.began);
        (self.evictions, self.arrival_waits) = (0, false);
        self.restarts.clear();
        let clients = self.clients();
        self.numbers
            .resize(self.numbers.len().max(clients as usize), 0);
        for client_id in 0..clients {
            let share = f64::from(client_id) / f64::from(clients);
            self.restarts.push(Reverse((
                self.began + limits.ramp.mul_f64(share),
                client_id,
            )));
        }
        self.arm(self.began)?;
        let ran = reactor.run(self);
        reactor.remove_source(&mut self.signals)?;
        ran?;
        self.idle.clear();
        while let Some(request) = self.queued_for_idle.pop_front() {
            self.finish(request, Class::Unfinished, String::new);
        }
        self.never_started += self.were_due().saturating_sub(self.arrivals);
        Ok(())
    }

    /// How long the stage offered its load.
    #[must_use]
    pub fn offered(&self) -> Duration {
        let took = self.began.elapsed();
        let offered = match self.workload {
            Workload::Open { rate, .. } => {
                let last = self.last_start.saturating_duration_since(self.began);
                last.max(arrival(self.arrivals, rate, self.limits.ramp))
            }
            _ => took,
        };
        offered.min(self.limits.time.unwrap_or(took)).min(took)
    }

    /// The closed model's clients. There are fewer than 2^21.
    fn clients(&self) -> u32 {
        match &self.workload {
            Workload::Closed(kinds) => kinds.len() as u32,
            Workload::Learn(_) => 8,
            Workload::Open { .. } => 0,
        }
    }

    /// Whether a signal has ended the run.
    #[must_use]
    pub fn was_cut_short(&self) -> bool {
        self.cut_short
    }

    /// What was counted.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// What was counted, to be closed.
    pub fn tally_mut(&mut self) -> &mut Tally {
        &mut self.tally
    }

    /// Arrivals that were due and never begun.
    #[must_use]
    pub fn never_started(&self) -> u64 {
        self.never_started
    }

    /// The most requests that were under way at one time.
    #[must_use]
    pub fn in_flight_max(&self) -> u64 {
        self.in_flight_max
    }

    /// How many clients are in a phase.
    #[must_use]
    pub fn phase(&self, phase: Phase) -> u64 {
        self.phases[phase as usize]
    }

    // ---- what clients call ----

    pub(super) fn enter(&mut self, from: Option<Phase>, to: Option<Phase>) {
        if let Some(from) = from {
            self.phases[from as usize] -= 1;
        }
        if let Some(to) = to {
            self.phases[to as usize] += 1;
        }
    }

    /// Counts the end of a request.
    pub(super) fn finish(
        &mut self,
        request: InFlight,
        class: Class,
        what: impl FnOnce() -> String,
    ) {
        let now = Instant::now();
        self.in_flight -= 1;
        self.silent -= u64::from(request.choice.kind == ClientKind::Idle);
        self.rearm();
        if request.waits() {
            self.tally
                .wait_ends(now, class == Class::Timeout || class == Class::Unfinished);
        }
        let name = &self.plan.names[request.choice.name as usize].shown;
        self.tally
            .end(class, || format!("{}: {}", Escaped(name), what()));
        if class != Class::Complete {
            return;
        }
        self.tally.count_completed();
        if request.counts_time() {
            let since_due = request.due.map(|due| now.saturating_duration_since(due));
            self.tally
                .complete(now - request.started, since_due, request.received);
        }
        if !matches!(request.checker, Checker::Nothing | Checker::Learn(..)) {
            self.tally.checked.0 += 1;
            self.tally.checked.1 += request.received;
        }
        if let Some(reference) = request.checker.into_reference() {
            self.references[request.choice.name as usize] = Some(reference);
        }
    }

    /// The next request of a connection that is free.
    pub(super) fn next_for_idle(&mut self, client_id: u32) -> Option<InFlight> {
        if client_id == Self::NO_CLIENT {
            return self.queued_for_idle.pop_front();
        }
        let may = self.may_start(Instant::now());
        may.then(|| self.next_request(client_id)).flatten()
    }

    /// What becomes of a connection that has nothing to do.
    pub(super) fn keep(&mut self, cx: &mut Context<'_>) -> Action {
        match self.workload {
            Workload::Open { .. } if self.evictions > 0 => {
                self.evictions -= 1;
                Action::Close(Reason::ClientLeft)
            }
            Workload::Open { .. } if self.may_start(cx.turn.now) => {
                cx.turn.deadline = None;
                self.idle.push(cx.token());
                Action::Suspend
            }
            _ => Action::Close(Reason::ClientLeft),
        }
    }

    /// A connection that was kept alive is no more.
    pub(super) fn forget_idle(&mut self, token: Token) {
        self.idle.retain(|&idle| idle != token);
    }

    // ---- starting ----

    fn may_start(&self, now: Instant) -> bool {
        let in_time = self.limits.time.is_none_or(|time| now < self.began + time);
        let in_number = self
            .limits
            .requests
            .is_none_or(|most| self.stage_started < most);
        let has_more = !matches!(&self.workload, Workload::Learn(names) if names.is_empty());
        in_time && in_number && has_more && !self.is_over
    }

    /// A client's next request, by the closed model.
    fn next_request(&mut self, client_id: u32) -> Option<InFlight> {
        let choice = match &mut self.workload {
            Workload::Learn(names) => Choice {
                kind: ClientKind::Fast,
                name: names.next()?,
                variate: 0.0,
            },
            Workload::Closed(kinds) => {
                // Each client has its own sequence, so that a run is replayed client by client.
                let number = &mut self.numbers[client_id as usize];
                *number += 1;
                self.plan.choose(
                    u64::from(client_id) << 40 | *number,
                    Some(kinds[client_id as usize]),
                )
            }
            Workload::Open { .. } => return None,
        };
        Some(self.request(choice, None))
    }

    /// Counts a request's start.
    fn request(&mut self, choice: Choice, due: Option<Instant>) -> InFlight {
        let reference = &self.references[choice.name as usize];
        let expected = reference.as_ref().map(Reference::length);
        let checker = match reference {
            _ if matches!(self.workload, Workload::Learn(_)) => {
                Checker::Learn(Default::default(), Box::default())
            }
            Some(reference) if choice.kind != ClientKind::Idle => {
                // A file that can't be opened any more brings an unchecked body; the report counts
                // those that were checked.
                reference.checker().unwrap_or(Checker::Nothing)
            }
            _ => Checker::Nothing,
        };
        self.tally.start();
        self.stage_started += 1;
        self.in_flight += 1;
        self.in_flight_max = self.in_flight_max.max(self.in_flight);
        self.silent += u64::from(choice.kind == ClientKind::Idle);
        let request = InFlight::new(choice, due, checker, expected);
        self.last_start = request.started;
        if let Some(due) = due {
            self.tally
                .record_lateness(request.started.saturating_duration_since(due));
        }
        request
    }

    /// Opens a connection for a request.
    pub(super) fn connect(&mut self, client_id: u32, request: InFlight, control: &mut LoopHandle) {
        match self.open_socket(request.choice.kind) {
            Ok(socket) => {
                self.sockets += 1;
                let client = Client::new(client_id, request, self);
                control.connect(socket, client);
            }
            Err(error) => {
                self.finish(request, connect_class(&error), || {
                    format!("connecting: {error}")
                });
                self.restart(client_id, true);
            }
        }
    }

    /// A client of the closed model starts again: at once, or a little later if it could not
    /// connect.
    fn restart(&mut self, client_id: u32, connect_failed: bool) {
        if client_id != Self::NO_CLIENT {
            let pause = if connect_failed {
                SOAK_BACK_OFF
            } else {
                Duration::ZERO
            };
            self.restarts
                .push(Reverse((Instant::now() + pause, client_id)));
        }
    }

    /// Starts what is due, a bounded number: those under way want their turn, too.
    fn start_due(&mut self, now: Instant, control: &mut LoopHandle) {
        for _ in 0..SOAK_STARTS_MAX {
            let is_due = |&Reverse((at, _)): &Reverse<(Instant, u32)>| at <= now;
            if !self.restarts.peek().is_some_and(is_due) || !self.may_start(now) {
                break;
            }
            if let Some(Reverse((_, client_id))) = self.restarts.pop()
                && let Some(request) = self.next_request(client_id)
            {
                self.connect(client_id, request, control);
            }
        }
        for _ in 0..SOAK_STARTS_MAX {
            let due = self.next_arrival(now).filter(|&due| due <= now);
            let is_begun = due.is_some_and(|due| self.begin_arrival(due, control));
            if !is_begun {
                break;
            }
        }
    }

    // ---- the clock ----

    /// What happens at any moment at which the clock has run, or a connection has ended.
    fn advance(&mut self, control: &mut LoopHandle) {
        let now = Instant::now();
        if self.cut_short {
            self.is_over = true;
        }
        self.start_due(now, control);
        let starts = self.next_arrival(now).is_some() || self.may_start(now) && self.clients() > 0;
        let silence_ends = match self.limits.time {
            Some(time) => self.began + time,
            None => self.last_start + self.plan.timeout,
        };
        let is_silent = self.silent > 0 && now < silence_ends;
        let goes_on = self.in_flight > self.silent || starts || is_silent;
        let over = self
            .limits
            .time
            .map(|time| self.began + time + self.plan.timeout);
        if !goes_on || self.is_over || over.is_some_and(|over| over <= now) {
            self.is_over = true;
            self.over_at = now;
            control.stop();
        }
    }

    fn tick(&mut self, control: &mut LoopHandle) -> io::Result<()> {
        let now = Instant::now();
        if now >= self.next_tick {
            // Ticks meet the ends of the seconds that the tally keeps.
            let counted = now.saturating_duration_since(self.tally.began());
            let into = counted.as_nanos() % SOAK_TICK.as_nanos();
            // It is less than a tick.
            self.next_tick = now + SOAK_TICK - Duration::from_nanos(into as u64);
            let clients = self.phases.iter().sum();
            self.tally.roll(now, clients);
            if let Some(observer) = self.observer.take() {
                observer.observe(self);
                self.observer = Some(observer);
            }
        }
        self.advance(control);
        let restarts = self.restarts.peek().map(|Reverse((at, _))| *at);
        let arrival = self.next_arrival(now);
        self.arrival_waits = arrival.is_some() && !self.may_begin();
        let arrival = arrival.filter(|_| !self.arrival_waits);
        let next = [restarts.filter(|_| self.may_start(now)), arrival];
        self.arm(
            next.into_iter()
                .flatten()
                .fold(self.next_tick, Instant::min),
        )
    }

    fn arm(&self, at: Instant) -> io::Result<()> {
        // Zero would disarm it.
        let wait = at
            .saturating_duration_since(Instant::now())
            .max(Duration::from_nanos(1));
        let spec = |time: Duration| Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().into(),
        };
        let value = Itimerspec {
            it_interval: spec(Duration::ZERO),
            it_value: spec(wait),
        };
        rustix::time::timerfd_settime(self.clock.as_fd(), TimerfdTimerFlags::empty(), &value)?;
        Ok(())
    }
}

impl Handler for Engine<'_> {
    type Conn = Client;

    fn accepted(&mut self, _: ListenerId, _: SocketAddr, _: &mut Context<'_>) -> Client {
        unreachable!("the loop has no listener")
    }

    fn step(
        &mut self,
        client: &mut Client,
        socket: &mut TcpStream,
        event: Event,
        cx: &mut Context<'_>,
    ) -> Action {
        client.step(socket, event, self, cx)
    }

    fn source(&mut self, id: SourceId, control: &mut LoopHandle) {
        if id == SIGNALS && self.signals.pending().next().is_some() {
            self.cut_short = true;
        }
        let mut expirations = [0; 8];
        match rustix::io::read(&self.clock, &mut expirations) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => log::error!("the clock can't be read: {error}"),
        }
        if let Err(error) = self.tick(control) {
            log::error!("the clock can't be set: {error}");
            self.is_over = true;
            control.stop();
        }
    }

    fn ended(&mut self, mut client: Client, token: Token, _: Reason, control: &mut LoopHandle) {
        client.leave(self);
        self.forget_idle(token);
        self.sockets -= 1;
        self.rearm();
        match client.take_in_flight() {
            Some(request) if self.is_over => self.finish(request, Class::Unfinished, String::new),
            Some(request) => self.connect(client.client_id, request, control),
            None => self.restart(client.client_id, client.connect_failed),
        }
        self.advance(control);
    }
}
