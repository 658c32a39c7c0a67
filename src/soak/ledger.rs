//! What a client's step may use of its run: what is asked of whom, and the books on what became of it.

use std::time::Instant;

use super::check::{Checker, Reference};
use super::in_flight::{InFlight, RequestEnd};
use super::outcome::Class;
use super::plan::{Choice, Plan, RequestTemplate};
use super::population::ClientKind;
use super::tally::Tally;
use crate::escape::Escaped;
use crate::limits::SCRATCH_BYTES;
use crate::tls::session::Buffers;

/// How clients are spread, for the live view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The handshake is under way.
    Connecting,
    /// The request is sent, or on its way.
    Waiting,
    /// A body is coming.
    Receiving,
    /// Silent, or kept alive.
    Idle,
}

/// The requests of a run.
pub(super) struct Ledger<'a> {
    pub(super) plan: &'a Plan,
    pub(super) tally: Tally,
    /// What each name must bring.
    pub(super) references: Vec<Option<Reference>>,
    /// Requests under way.
    pub(super) in_flight: u64,
    /// The most that were under way at one time.
    pub(super) in_flight_max: u64,
    /// Of those under way, the clients' that say nothing: they hold up no end.
    pub(super) silent: u64,
    /// Of each name, whether a client that wants all of it had an end, and whether it was complete.
    ends: Vec<(bool, bool)>,
    phases: [u64; 4],
    /// What a body is compared with is read into it.
    buffer: Box<[u8]>,
    /// What TLS connections pass through.
    pub(super) tls_buffers: Buffers,
}

impl<'a> Ledger<'a> {
    pub(super) fn new(plan: &'a Plan, references: Vec<Option<Reference>>) -> Self {
        Self {
            plan,
            tally: Tally::new(Instant::now(), plan.sides()),
            ends: vec![(false, false); references.len()],
            references,
            in_flight: 0,
            in_flight_max: 0,
            silent: 0,
            phases: [0; 4],
            buffer: vec![0; SCRATCH_BYTES].into(),
            tls_buffers: Buffers::default(),
        }
    }

    /// Counts a request's start. One that learns finds out what its body is like.
    pub(super) fn start(&mut self, choice: Choice, due: Option<Instant>, learns: bool) -> InFlight {
        let reference = self.references[choice.name as usize].as_ref();
        let checker = match reference {
            _ if learns => Checker::Learn(Default::default(), Box::default()),
            // A file that can't be opened any more brings an unchecked body; the report counts those
            // that were checked.
            Some(reference) if choice.kind != ClientKind::Idle => {
                reference.checker().unwrap_or(Checker::Nothing)
            }
            _ => Checker::Nothing,
        };
        let request = InFlight {
            choice,
            due,
            started: Instant::now(),
            checker,
            expected: reference.map(Reference::length),
            bad_status: None,
            sent: None,
            has_answer: false,
            received: 0,
        };
        self.tally.start();
        self.in_flight += 1;
        self.in_flight_max = self.in_flight_max.max(self.in_flight);
        self.silent += u64::from(choice.kind == ClientKind::Idle);
        if let Some(due) = due {
            let late = request.started.saturating_duration_since(due);
            self.tally.record_lateness(late);
        }
        request
    }

    /// Checks bytes of a body.
    pub(super) fn take(&mut self, request: &mut InFlight, bytes: &[u8]) -> Result<(), RequestEnd> {
        self.tally.count_bytes(bytes.len());
        request.take(bytes, &mut self.buffer)
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
        if request.waits() {
            let gave_up = class == Class::Timeout || class == Class::Unfinished;
            self.tally.wait_ends(now, gave_up);
        }
        let wants_all = !matches!(request.choice.kind, ClientKind::Abort | ClientKind::Idle);
        let ends = &mut self.ends[request.choice.name as usize];
        ends.0 |= wants_all && class != Class::Unfinished;
        ends.1 |= class == Class::Complete;
        let name = &self.plan.names[request.choice.name as usize].shown;
        self.tally
            .end(class, || format!("{}: {}", Escaped(name), what()));
        let since_due = request.due.map(|due| now.saturating_duration_since(due));
        let total = now - request.started;
        let is_timed = class == Class::Complete && request.counts_time();
        let time = is_timed.then(|| since_due.unwrap_or(total));
        self.tally.end_of_side(request.choice.side, class, time);
        if class != Class::Complete {
            return;
        }
        if is_timed {
            self.tally.complete(total, since_due, request.received);
        }
        if !matches!(request.checker, Checker::Nothing | Checker::Learn(..)) {
            self.tally.checked.0 += 1;
            self.tally.checked.1 += request.received;
        }
        if let Some(reference) = request.checker.into_reference() {
            self.references[request.choice.name as usize] = Some(reference);
        }
    }

    /// A request goes to another connection: its server has closed the one that it was sent on.
    pub(super) fn ask_again(&mut self, request: &mut InFlight) {
        if request.waits() {
            self.tally.wait_ends(Instant::now(), true);
        }
        request.sent = None;
        self.tally.asked_again += 1;
    }

    /// Counts a request that the end of the run cut off.
    pub(super) fn cut_off(&mut self, request: InFlight) {
        self.finish(request, Class::Unfinished, String::new);
    }

    /// A client goes from one phase to another; none is before its connection and after it.
    pub(super) fn enter(&mut self, from: Option<Phase>, to: Option<Phase>) {
        if let Some(from) = from {
            self.phases[from as usize] -= 1;
        }
        if let Some(to) = to {
            self.phases[to as usize] += 1;
        }
    }

    /// The names that never came, though somebody had wanted all of them.
    pub(super) fn never_complete(&self) -> impl Iterator<Item = &RequestTemplate> {
        let names = self.plan.names.iter().zip(&self.ends);
        names.filter_map(|(name, &(ended, came))| (ended && !came).then_some(name))
    }

    /// How many clients are in a phase.
    pub(super) fn phase(&self, phase: Phase) -> u64 {
        self.phases[phase as usize]
    }

    /// How many clients there are.
    pub(super) fn clients(&self) -> u64 {
        self.phases.iter().sum()
    }

    /// Forgets what was counted: what follows is the load.
    pub(super) fn begin_count(&mut self) {
        self.tally = Tally::new(Instant::now(), self.plan.sides());
        self.ends.fill((false, false));
        self.in_flight_max = 0;
    }
}
