//! The application on the reactor: starts requests by the load's model, and ends the stage.

mod arrivals;
mod clock;
mod dial;
mod stage;

use std::cmp::Reverse;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use mio::net::TcpStream;
use mio::unix::SourceFd;
use signal_hook_mio::v1_0::Signals;

use super::check::Reference;
use super::client::{Client, NO_CLIENT, connect_class};
use super::in_flight::InFlight;
use super::ledger::Ledger;
use super::plan::{Choice, Plan};
use super::population::ClientKind;
use crate::limits::{SOAK_BACK_OFF, SOAK_STARTS_MAX, SOAK_TICK};
use crate::reactor::event::{Action, Event};
use crate::reactor::{self, Handler, ListenerId, Reactor, SourceId, Token};
use crate::telemetry::Reason;
use clock::Clock;
use stage::Stage;
pub(super) use stage::{StageLimits, Workload};

type Context<'a> = reactor::Context<'a, Client>;
type LoopHandle = reactor::LoopHandle<Client>;

const CLOCK: SourceId = SourceId(0);
const SIGNALS: SourceId = SourceId(1);

/// Who looks on while a stage goes on.
pub(super) trait Observer {
    /// Called a few times a second. It must not block.
    fn observe(&mut self, ledger: &Ledger<'_>);
}

/// A run's stages, one after the other, and what they have in common.
pub(super) struct Engine<'a> {
    pub(super) ledger: Ledger<'a>,
    /// Arrivals that were due and never begun.
    pub(super) never_started: u64,
    /// A signal has ended the run.
    pub(super) cut_short: bool,
    observer: Option<&'a mut dyn Observer>,
    /// Requests of all stages, which number their choices: of each client of the closed model, and
    /// of the open one.
    numbers: Vec<u64>,
    arrival_number: u64,
    /// Sockets that are open: those of requests, and those kept alive.
    sockets: u64,
    clock: Clock,
    signals: Signals,
    stage: Stage,
}

impl<'a> Engine<'a> {
    /// An engine that has not begun. Signals that arrive from now on end it early.
    pub(super) fn new(
        plan: &'a Plan,
        references: Vec<Option<Reference>>,
        signals: Signals,
    ) -> io::Result<Self> {
        Ok(Self {
            ledger: Ledger::new(plan, references),
            never_started: 0,
            cut_short: false,
            observer: None,
            numbers: Vec::new(),
            arrival_number: 0,
            sockets: 0,
            clock: Clock::new()?,
            signals,
            stage: Stage::new(
                Workload::Learn(0..0),
                StageLimits::default(),
                (plan.part, plan.sides() as u64),
            ),
        })
    }

    /// Whoever looks on from now on.
    pub(super) fn set_observer(&mut self, observer: &'a mut dyn Observer) {
        self.observer = Some(observer);
    }

    /// Forgets what was counted: what follows is the load.
    pub(super) fn begin_count(&mut self) {
        self.ledger.begin_count();
        self.numbers.clear();
        self.never_started = 0;
    }

    /// Runs one stage to its end.
    pub(super) fn run_stage(&mut self, workload: Workload, limits: StageLimits) -> io::Result<()> {
        let mut reactor = Reactor::new(Vec::new(), 0)?;
        reactor.add_source(&mut SourceFd(&self.clock.as_raw_fd()), CLOCK)?;
        reactor.add_source(&mut self.signals, SIGNALS)?;
        let plan = self.ledger.plan;
        self.stage = Stage::new(workload, limits, (plan.part, plan.sides() as u64));
        let clients = self.stage.workload.clients() as usize;
        self.numbers.resize(self.numbers.len().max(clients), 0);
        self.clock.wake_at(self.stage.began)?;
        self.ledger.tally.resume(self.stage.began);
        let ran = reactor.run(self);
        self.ledger
            .tally
            .pause(self.stage.over.unwrap_or_else(Instant::now));
        reactor.remove_source(&mut self.signals)?;
        ran?;
        for idle in &mut self.stage.idle {
            while let Some(request) = idle.queued.pop_front() {
                self.ledger.cut_off(request);
            }
        }
        if let (Some(arrivals), Some(over)) = (&self.stage.arrivals, self.stage.over) {
            self.never_started += arrivals.missed(over);
        }
        Ok(())
    }

    /// Waits for a moment of the calendar, or for a signal.
    pub(super) fn wait_until(&mut self, at: Timestamp) {
        while !self.cut_short {
            let left = Timestamp::now().duration_until(at);
            let Ok(left) = Duration::try_from(left) else {
                break;
            };
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(SOAK_TICK));
            self.cut_short = self.signals.pending().next().is_some();
        }
    }

    /// How long the stage offered its load.
    pub(super) fn offered(&self) -> Duration {
        let stage = &self.stage;
        let took = stage.began.elapsed();
        let by_number = stage.arrivals.as_ref().filter(|_| stage.has_started_all());
        let offered = by_number.map_or(took, |arrivals| {
            let last = stage.last_start.saturating_duration_since(stage.began);
            last.max(arrivals.next_after())
        });
        offered.min(stage.limits.time.unwrap_or(took)).min(took)
    }

    // ---- starting ----

    /// Counts a request's start.
    fn request(&mut self, choice: Choice, due: Option<Instant>) -> InFlight {
        let learns = matches!(self.stage.workload, Workload::Learn(_));
        let request = self.ledger.start(choice, due, learns);
        self.stage.started += 1;
        self.stage.last_start = request.started;
        request
    }

    /// A client's next request, by the closed model.
    fn next_request(&mut self, client_id: u32) -> Option<InFlight> {
        let choice = match &mut self.stage.workload {
            Workload::Learn(names) => Choice {
                kind: ClientKind::Fast,
                name: names.next()?,
                variate: 0.0,
                side: 0,
            },
            Workload::Closed(kinds) => {
                let number = &mut self.numbers[client_id as usize];
                *number += 1;
                let kind = kinds[client_id as usize];
                self.ledger.plan.next_of_client(client_id, *number, kind)
            }
            Workload::Open { .. } => return None,
        };
        Some(self.request(choice, None))
    }

    /// The next request of a connection that is idle.
    fn next_for_idle(&mut self, client: &Client) -> Option<InFlight> {
        if client.id == NO_CLIENT {
            return self.stage.idle[client.side].queued.pop_front();
        }
        let may = self.stage.may_start(Instant::now());
        may.then(|| self.next_request(client.id)).flatten()
    }

    /// What becomes of a connection that has nothing to do: the open model's wait for an arrival.
    fn keep_idle(&mut self, side: usize, cx: &mut Context<'_>) -> Action {
        let stage = &mut self.stage;
        let is_evicted = stage.evictions > 0;
        stage.evictions = stage.evictions.saturating_sub(1);
        if stage.arrivals.is_none() || is_evicted || !stage.may_start(cx.turn.now) {
            return Action::Close(Reason::ClientLeft);
        }
        cx.turn.deadline = None;
        stage.idle[side].tokens.push(cx.token());
        Action::Suspend
    }

    /// Opens a connection for a request.
    fn connect(&mut self, client_id: u32, request: InFlight, control: &mut LoopHandle) {
        let number = self.ledger.tally.started;
        match dial::connect(self.ledger.plan, request.choice, number) {
            Ok(socket) => {
                self.sockets += 1;
                let client = Client::new(client_id, request, &mut self.ledger);
                control.connect(socket, client);
            }
            Err(error) => {
                let class = connect_class(&error);
                let what = || format!("connecting: {error}");
                self.ledger.finish(request, class, what);
                self.restart(client_id, true);
            }
        }
    }

    /// A client of the closed model starts again: at once, or a little later if it could not
    /// connect.
    fn restart(&mut self, client_id: u32, connect_failed: bool) {
        if client_id != NO_CLIENT {
            let pause = if connect_failed {
                SOAK_BACK_OFF
            } else {
                Duration::ZERO
            };
            let at = Instant::now() + pause;
            self.stage.restarts.push(Reverse((at, client_id)));
        }
    }

    /// Starts what is due, a bounded number: those under way want their turn, too.
    fn start_due(&mut self, now: Instant, control: &mut LoopHandle) {
        for _ in 0..SOAK_STARTS_MAX {
            let is_due = |&Reverse((at, _)): &Reverse<(Instant, u32)>| at <= now;
            if !self.stage.restarts.peek().is_some_and(is_due) || !self.stage.may_start(now) {
                break;
            }
            if let Some(Reverse((_, client_id))) = self.stage.restarts.pop()
                && let Some(request) = self.next_request(client_id)
            {
                self.connect(client_id, request, control);
            }
        }
        for _ in 0..SOAK_STARTS_MAX {
            let due = self.stage.next_arrival(now).filter(|&due| due <= now);
            let is_begun = due.is_some_and(|due| self.begin_arrival(due, control));
            if !is_begun {
                break;
            }
        }
    }

    /// Begins the next arrival, if there is a place for it.
    fn begin_arrival(&mut self, due: Instant, control: &mut LoopHandle) -> bool {
        if !self.may_begin() {
            return false;
        }
        let choice = self.ledger.plan.arrival(self.arrival_number);
        let [own, other] = [choice.side, 1 - choice.side];
        let is_fast = choice.kind == ClientKind::Fast;
        let idle = self.stage.idle[own].tokens.pop();
        let fits = is_fast && idle.is_some();
        if !(fits || self.may_open())
            && let Some(token) = idle.or_else(|| self.stage.idle[other].tokens.pop())
        {
            // Its place is needed: the next try finds it.
            self.stage.evictions += 1;
            control.wake(token);
            return false;
        }
        self.arrival_number += 1;
        if let Some(arrivals) = &mut self.stage.arrivals {
            arrivals.begun += 1;
        }
        let request = self.request(choice, Some(due));
        match idle {
            Some(token) if fits => {
                self.stage.idle[own].queued.push_back(request);
                control.wake(token);
            }
            unused => {
                self.stage.idle[own].tokens.extend(unused);
                self.connect(NO_CLIENT, request, control);
            }
        }
        true
    }

    /// Whether another request may be under way.
    fn may_begin(&self) -> bool {
        match self.stage.workload {
            Workload::Open { clients_max, .. } => {
                self.ledger.in_flight < clients_max && (self.may_open() || self.stage.has_idle())
            }
            _ => true,
        }
    }

    /// Whether another socket may be open.
    fn may_open(&self) -> bool {
        match self.stage.workload {
            Workload::Open { clients_max, .. } => self.sockets < clients_max,
            _ => true,
        }
    }

    /// A request or a connection may have ended: an arrival that waits for its place doesn't wait for
    /// the next tick.
    fn wake_arrival(&mut self) {
        if self.stage.arrival_waits && self.may_begin() {
            self.stage.arrival_waits = false;
            if let Err(error) = self.clock.wake_at(Instant::now()) {
                log::error!("the clock can't be set: {error}");
            }
        }
    }

    // ---- the clock ----

    /// What happens at any moment at which the clock has run, or a connection has ended.
    fn advance(&mut self, control: &mut LoopHandle) {
        let now = Instant::now();
        if self.cut_short {
            self.end_stage(now, control);
        }
        self.start_due(now, control);
        let (stage, ledger) = (&self.stage, &self.ledger);
        // Also in the open model: that nobody arrives any more is a part of the time that was asked for.
        let starts = stage.next_arrival(now).is_some() || stage.may_start(now);
        let time_is_up = stage.limits.time.map(|time| stage.began + time);
        let silence_ends = time_is_up.unwrap_or(stage.last_start + ledger.plan.timeout);
        let is_silent = ledger.silent > 0 && now < silence_ends;
        let goes_on = ledger.in_flight > ledger.silent || starts || is_silent;
        let is_overdue = time_is_up.is_some_and(|end| end + ledger.plan.timeout <= now);
        if !goes_on || is_overdue {
            self.end_stage(now, control);
        }
    }

    fn end_stage(&mut self, now: Instant, control: &mut LoopHandle) {
        self.stage.over.get_or_insert(now);
        control.stop();
    }

    fn tick(&mut self, control: &mut LoopHandle) -> io::Result<()> {
        let now = Instant::now();
        if now >= self.stage.next_tick {
            // Ticks meet the ends of the seconds that the tally keeps.
            let counted = now.saturating_duration_since(self.ledger.tally.began);
            let into = counted.as_nanos() % SOAK_TICK.as_nanos();
            let into = Duration::from_nanos(u64::try_from(into).unwrap_or_default());
            self.stage.next_tick = now + SOAK_TICK.saturating_sub(into);
            let clients = self.ledger.clients();
            self.ledger.tally.roll(now, clients);
            if let Some(observer) = &mut self.observer {
                observer.observe(&self.ledger);
            }
        }
        self.advance(control);
        let arrival = self.stage.next_arrival(now);
        self.stage.arrival_waits = arrival.is_some() && !self.may_begin();
        let arrival = arrival.filter(|_| !self.stage.arrival_waits);
        let restart = self.stage.restarts.peek().map(|Reverse((at, _))| *at);
        let restart = restart.filter(|_| self.stage.may_start(now));
        let end = self.stage.limits.time.map(|time| self.stage.began + time);
        let end = end.filter(|&end| end > now);
        let next = [arrival, restart, end].into_iter().flatten();
        self.clock
            .wake_at(next.fold(self.stage.next_tick, Instant::min))
    }

    fn step_client(
        &mut self,
        client: &mut Client,
        socket: &mut TcpStream,
        event: Event,
        cx: &mut Context<'_>,
    ) -> Action {
        if client.request.is_none() && matches!(event, Event::Ready(_)) {
            // The server closes an idle connection. What was left for it goes to another one.
            self.stage.forget_idle(cx.token());
            client.request = self.next_for_idle(client);
            return Action::Close(Reason::ClientLeft);
        }
        loop {
            if client.request.is_none() {
                let Some(request) = self.next_for_idle(client) else {
                    return self.keep_idle(client.side, cx);
                };
                if !client.begin(request, socket, &mut self.ledger) {
                    return Action::Close(Reason::ClientLeft);
                }
            }
            let action = client.step(socket, event, &mut self.ledger, &mut cx.turn);
            if let Some(action) = action {
                return action;
            }
        }
    }
}

impl Handler for Engine<'_> {
    type Conn = Client;

    fn accepted(&mut self, _: ListenerId, _: Option<SocketAddr>, _: &mut Context<'_>) -> Client {
        unreachable!("the loop has no listener")
    }

    fn step(
        &mut self,
        client: &mut Client,
        socket: &mut TcpStream,
        event: Event,
        cx: &mut Context<'_>,
    ) -> Action {
        let action = if let Event::Stop(reason) = event {
            if let Some(request) = client.request.take() {
                self.ledger.cut_off(request);
            }
            Action::Reset(reason)
        } else {
            self.step_client(client, socket, event, cx)
        };
        self.wake_arrival();
        action
    }

    fn source(&mut self, id: SourceId, control: &mut LoopHandle) {
        if id == SIGNALS && self.signals.pending().next().is_some() {
            self.cut_short = true;
        }
        if let Err(error) = self.tick(control) {
            log::error!("the clock can't be set: {error}");
            self.end_stage(Instant::now(), control);
        }
    }

    fn ended(&mut self, mut client: Client, token: Token, _: Reason, control: &mut LoopHandle) {
        client.leave(&mut self.ledger);
        self.stage.forget_idle(token);
        self.sockets -= 1;
        match client.request.take() {
            Some(request) if self.stage.over.is_some() => self.ledger.cut_off(request),
            Some(request) => self.connect(client.id, request, control),
            None => self.restart(client.id, client.connect_failed),
        }
        self.advance(control);
        self.wake_arrival();
    }
}
