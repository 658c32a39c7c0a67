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
use super::client::{Client, Order, Phase, connect_class};
use super::outcome::Class;
use super::plan::{Choice, Plan};
use super::population::Kind;
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
pub enum Load {
    /// So many clients, each of which waits for its answer.
    Closed(Vec<Kind>),
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
pub struct Bounds {
    /// How long requests are started.
    pub time: Option<Duration>,
    /// How many requests are started.
    pub requests: Option<u64>,
    /// Over what time the full load is reached.
    pub ramp: Duration,
}

/// Who looks on while a stage goes on.
pub trait Onlooker {
    /// Called a few times a second. It must not block.
    fn look(&mut self, engine: &Engine<'_>);
}

/// One stage of a run, and what it has in common with the others.
#[allow(missing_debug_implementations, reason = "a checker has none")]
pub struct Engine<'a> {
    pub(super) plan: &'a Plan,
    pub(super) tally: Tally,
    pub(super) buffer: Box<[u8]>,
    /// What each name must bring.
    pub references: Vec<Option<Reference>>,
    load: Load,
    bounds: Bounds,
    onlooker: Option<&'a mut dyn Onlooker>,
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
    resting: BinaryHeap<Reverse<(Instant, u32)>>,
    /// Connections kept alive for the next arrival.
    free: Vec<Token>,
    /// What was left for them.
    for_free: VecDeque<Order>,
    /// When a request was last started.
    last_start: Instant,
    in_flight: u64,
    in_flight_max: u64,
    /// Sockets that are open: those of requests, and those kept alive.
    sockets: u64,
    /// So many connections that are kept alive must make room.
    dismissed: u64,
    /// An arrival waits for room: whoever makes some starts the clock.
    is_full: bool,
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
    pub(super) const NOBODY: u32 = u32::MAX;

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
            load: Load::Learn(0..0),
            bounds: Bounds::default(),
            onlooker: None,
            began: now,
            stage_started: 0,
            arrivals: 0,
            never_started: 0,
            numbers: Vec::new(),
            arrival_number: 0,
            resting: BinaryHeap::new(),
            free: Vec::new(),
            for_free: VecDeque::new(),
            last_start: now,
            in_flight: 0,
            in_flight_max: 0,
            sockets: 0,
            dismissed: 0,
            is_full: false,
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
    pub fn set_onlooker(&mut self, onlooker: &'a mut dyn Onlooker) {
        self.onlooker = Some(onlooker);
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
    pub fn run_stage(&mut self, load: Load, bounds: Bounds) -> io::Result<()> {
        let mut reactor = Reactor::new(Vec::new(), 0)?;
        reactor.add_source(&mut SourceFd(&self.clock.as_raw_fd()), CLOCK)?;
        reactor.add_source(&mut self.signals, SIGNALS)?;
        (self.load, self.bounds) = (load, bounds);
        self.began = Instant::now();
        self.next_tick = self.began;
        (self.stage_started, self.arrivals, self.is_over) = (0, 0, false);
        (self.last_start, self.over_at) = (self.began, self.began);
        (self.dismissed, self.is_full) = (0, false);
        self.resting.clear();
        let clients = self.clients();
        self.numbers
            .resize(self.numbers.len().max(clients as usize), 0);
        for user in 0..clients {
            let share = f64::from(user) / f64::from(clients);
            self.resting
                .push(Reverse((self.began + bounds.ramp.mul_f64(share), user)));
        }
        self.arm(self.began)?;
        let ran = reactor.run(self);
        reactor.remove_source(&mut self.signals)?;
        ran?;
        self.free.clear();
        while let Some(order) = self.for_free.pop_front() {
            self.finish(order, Class::Unfinished, String::new);
        }
        self.never_started += self.were_due().saturating_sub(self.arrivals);
        Ok(())
    }

    /// How long the stage offered its load.
    #[must_use]
    pub fn offered(&self) -> Duration {
        let took = self.began.elapsed();
        let offered = match self.load {
            Load::Open { rate, .. } => {
                let last = self.last_start.saturating_duration_since(self.began);
                last.max(arrival(self.arrivals, rate, self.bounds.ramp))
            }
            _ => took,
        };
        offered.min(self.bounds.time.unwrap_or(took)).min(took)
    }

    /// The closed model's clients. There are fewer than 2^21.
    fn clients(&self) -> u32 {
        match &self.load {
            Load::Closed(kinds) => kinds.len() as u32,
            Load::Learn(_) => 8,
            Load::Open { .. } => 0,
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
    pub(super) fn finish(&mut self, order: Order, class: Class, what: impl FnOnce() -> String) {
        let now = Instant::now();
        self.in_flight -= 1;
        self.silent -= u64::from(order.choice.kind == Kind::Idle);
        self.make_room();
        if order.waits() {
            self.tally
                .wait_ends(now, class == Class::Timeout || class == Class::Unfinished);
        }
        let name = &self.plan.names[order.choice.name as usize].shown;
        self.tally
            .end(class, || format!("{}: {}", Escaped(name), what()));
        if class != Class::Complete {
            return;
        }
        self.tally.count_completed();
        if order.counts_time() {
            let since_due = order.due.map(|due| now.saturating_duration_since(due));
            self.tally
                .complete(now - order.started, since_due, order.received);
        }
        if !matches!(order.checker, Checker::Nothing | Checker::Learn(..)) {
            self.tally.checked.0 += 1;
            self.tally.checked.1 += order.received;
        }
        if let Some(reference) = order.checker.learnt() {
            self.references[order.choice.name as usize] = Some(reference);
        }
    }

    /// The next request of a connection that is free.
    pub(super) fn order_for_free(&mut self, user: u32) -> Option<Order> {
        if user == Self::NOBODY {
            return self.for_free.pop_front();
        }
        let may = self.may_start(Instant::now());
        may.then(|| self.next_order(user)).flatten()
    }

    /// What becomes of a connection that has nothing to do.
    pub(super) fn keep(&mut self, cx: &mut Context<'_>) -> Action {
        match self.load {
            Load::Open { .. } if self.dismissed > 0 => {
                self.dismissed -= 1;
                Action::Close(Reason::ClientLeft)
            }
            Load::Open { .. } if self.may_start(cx.turn.now) => {
                cx.turn.deadline = None;
                self.free.push(cx.token());
                Action::Suspend
            }
            _ => Action::Close(Reason::ClientLeft),
        }
    }

    /// A connection that was kept alive is no more.
    pub(super) fn forget_free(&mut self, token: Token) {
        self.free.retain(|&free| free != token);
    }

    // ---- starting ----

    fn may_start(&self, now: Instant) -> bool {
        let in_time = self.bounds.time.is_none_or(|time| now < self.began + time);
        let in_number = self
            .bounds
            .requests
            .is_none_or(|most| self.stage_started < most);
        let has_more = !matches!(&self.load, Load::Learn(names) if names.is_empty());
        in_time && in_number && has_more && !self.is_over
    }

    /// A client's next request, by the closed model.
    fn next_order(&mut self, user: u32) -> Option<Order> {
        let choice = match &mut self.load {
            Load::Learn(names) => Choice {
                kind: Kind::Fast,
                name: names.next()?,
                whim: 0.0,
            },
            Load::Closed(kinds) => {
                // Each client has its own sequence, so that a run is replayed client by client.
                let number = &mut self.numbers[user as usize];
                *number += 1;
                self.plan
                    .choose(u64::from(user) << 40 | *number, Some(kinds[user as usize]))
            }
            Load::Open { .. } => return None,
        };
        Some(self.order(choice, None))
    }

    /// Counts a request's start.
    fn order(&mut self, choice: Choice, due: Option<Instant>) -> Order {
        let reference = &self.references[choice.name as usize];
        let expected = reference.as_ref().map(Reference::length);
        let checker = match reference {
            _ if matches!(self.load, Load::Learn(_)) => {
                Checker::Learn(Default::default(), Box::default())
            }
            Some(reference) if choice.kind != Kind::Idle => {
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
        self.silent += u64::from(choice.kind == Kind::Idle);
        let order = Order::new(choice, due, checker, expected);
        self.last_start = order.started;
        if let Some(due) = due {
            self.tally
                .late_by(order.started.saturating_duration_since(due));
        }
        order
    }

    /// Opens a connection for a request.
    pub(super) fn connect(&mut self, user: u32, order: Order, control: &mut LoopHandle) {
        match self.open_socket(order.choice.kind) {
            Ok(socket) => {
                self.sockets += 1;
                let client = Client::new(user, order, self);
                control.connect(socket, client);
            }
            Err(error) => {
                self.finish(order, connect_class(&error), || {
                    format!("connecting: {error}")
                });
                self.rest(user, true);
            }
        }
    }

    /// A client of the closed model starts again: at once, or a little later if it could not
    /// connect.
    fn rest(&mut self, user: u32, was_turned_away: bool) {
        if user != Self::NOBODY {
            let pause = if was_turned_away {
                SOAK_BACK_OFF
            } else {
                Duration::ZERO
            };
            self.resting.push(Reverse((Instant::now() + pause, user)));
        }
    }

    /// Starts what is due, a bounded number: those under way want their turn, too.
    fn start_due(&mut self, now: Instant, control: &mut LoopHandle) {
        for _ in 0..SOAK_STARTS_MAX {
            let is_due = |&Reverse((at, _)): &Reverse<(Instant, u32)>| at <= now;
            if !self.resting.peek().is_some_and(is_due) || !self.may_start(now) {
                break;
            }
            if let Some(Reverse((_, user))) = self.resting.pop()
                && let Some(order) = self.next_order(user)
            {
                self.connect(user, order, control);
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
    fn go_on(&mut self, control: &mut LoopHandle) {
        let now = Instant::now();
        if self.cut_short {
            self.is_over = true;
        }
        self.start_due(now, control);
        let starts = self.next_arrival(now).is_some() || self.may_start(now) && self.clients() > 0;
        let silence_ends = match self.bounds.time {
            Some(time) => self.began + time,
            None => self.last_start + self.plan.timeout,
        };
        let is_silent = self.silent > 0 && now < silence_ends;
        let goes_on = self.in_flight > self.silent || starts || is_silent;
        let over = self
            .bounds
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
            if let Some(onlooker) = self.onlooker.take() {
                onlooker.look(self);
                self.onlooker = Some(onlooker);
            }
        }
        self.go_on(control);
        let resting = self.resting.peek().map(|Reverse((at, _))| *at);
        let arrival = self.next_arrival(now);
        self.is_full = arrival.is_some() && !self.has_room();
        let arrival = arrival.filter(|_| !self.is_full);
        let next = [resting.filter(|_| self.may_start(now)), arrival];
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
        why: Event,
        cx: &mut Context<'_>,
    ) -> Action {
        client.step(socket, why, self, cx)
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
        self.forget_free(token);
        self.sockets -= 1;
        self.make_room();
        match client.order_left() {
            Some(order) if self.is_over => self.finish(order, Class::Unfinished, String::new),
            Some(order) => self.connect(client.user, order, control),
            None => self.rest(client.user, client.was_turned_away),
        }
        self.go_on(control);
    }
}
