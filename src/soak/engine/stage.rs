//! One stage of a run: how requests are started, how far it goes, and how far it is.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::Range;
use std::time::Instant;

use super::arrivals::Arrivals;
pub(in crate::soak) use super::arrivals::StageLimits;
use crate::limits::SOAK_LEARNERS;
use crate::reactor::Token;
use crate::soak::in_flight::InFlight;
use crate::soak::part::Part;
use crate::soak::population::ClientKind;

/// How requests are started.
#[derive(Clone, Debug)]
pub(in crate::soak) enum Workload {
    /// So many clients, each of which waits for its answer.
    Closed(Vec<ClientKind>),
    /// Arrivals a second; so many connections at most.
    Open {
        /// Arrivals a second, of all parts.
        rate: f64,
        /// Connections at most.
        clients_max: u64,
    },
    /// Each of these names once, by a few clients at once, to learn what they bring.
    Learn(Range<u32>),
}

impl Workload {
    /// The closed model's clients. There are fewer than 2^21.
    pub(super) fn clients(&self) -> u32 {
        match self {
            Self::Closed(kinds) => kinds.len() as u32,
            Self::Learn(_) => SOAK_LEARNERS,
            Self::Open { .. } => 0,
        }
    }
}

/// A server's connections that are kept alive.
#[derive(Default)]
pub(super) struct Idle {
    pub(super) tokens: Vec<Token>,
    /// What was left for them.
    pub(super) queued: VecDeque<InFlight>,
}

/// What begins anew with each stage.
pub(super) struct Stage {
    pub(super) workload: Workload,
    pub(super) limits: StageLimits,
    pub(super) began: Instant,
    /// Requests started.
    pub(super) started: u64,
    /// When the last of them was.
    pub(super) last_start: Instant,
    /// When a client of the closed model starts again.
    pub(super) restarts: BinaryHeap<Reverse<(Instant, u32)>>,
    /// The open model's arrivals.
    pub(super) arrivals: Option<Arrivals>,
    /// Connections kept alive for the next arrival, of each server.
    pub(super) idle: [Idle; 2],
    /// So many idle connections must end, for others to have their places.
    pub(super) evictions: u64,
    /// An arrival waits for a place: whoever makes one sets the clock.
    pub(super) arrival_waits: bool,
    pub(super) next_tick: Instant,
    /// When the stage ended: nothing is started any more.
    pub(super) over: Option<Instant>,
}

impl Stage {
    pub(super) fn new(workload: Workload, limits: StageLimits, part: (Part, u64)) -> Self {
        let began = Instant::now();
        let clients = workload.clients();
        let restarts = (0..clients).map(|id| {
            let share = f64::from(id) / f64::from(clients);
            Reverse((began + limits.ramp.mul_f64(share), id))
        });
        let arrivals = match workload {
            Workload::Open { rate, .. } => Some(Arrivals {
                began,
                limits,
                rate,
                part,
                begun: 0,
            }),
            _ => None,
        };
        Self {
            limits,
            began,
            started: 0,
            last_start: began,
            restarts: restarts.collect(),
            arrivals,
            idle: Default::default(),
            evictions: 0,
            arrival_waits: false,
            next_tick: began,
            over: None,
            workload,
        }
    }

    pub(super) fn may_start(&self, now: Instant) -> bool {
        let limits = &self.limits;
        let in_time = limits.time.is_none_or(|time| now < self.began + time);
        let has_more = !matches!(&self.workload, Workload::Learn(names) if names.is_empty());
        in_time && !self.has_started_all() && has_more && self.over.is_none()
    }

    /// Whether as many requests were started as may be.
    pub(super) fn has_started_all(&self) -> bool {
        let most = self.limits.requests;
        most.is_some_and(|most| self.started >= most)
    }

    pub(super) fn next_arrival(&self, now: Instant) -> Option<Instant> {
        let arrivals = self.arrivals.as_ref().filter(|_| self.over.is_none())?;
        arrivals.next(now)
    }

    pub(super) fn forget_idle(&mut self, token: Token) {
        for idle in &mut self.idle {
            idle.tokens.retain(|&idle| idle != token);
        }
    }

    pub(super) fn has_idle(&self) -> bool {
        self.idle.iter().any(|idle| !idle.tokens.is_empty())
    }
}
