//! Very many connections without a kernel, kept as the loop keeps them: in its slab's places and
//! its wheel, stepped over a transport on which nothing comes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use slab::Slab;

use super::{Read, Scripted, Turning as _};
use crate::conn::{StepIo, Timeouts};
use crate::limits::{DISK_TIMEOUT, KEEP_ALIVE, MIN_RATE_BYTES, STALL_TIMEOUT};
use crate::protocol::{Decision, Protocol, Request};
use crate::reactor::conn_slab::{Link, Schedule, Slot};
use crate::reactor::event::{Action, Event, StepContext};
use crate::reactor::timer_wheel::{Deadline, Timers};
use crate::serve::{ConnRecord, Role};
use crate::telemetry::Reason;
use crate::telemetry::Stage;

/// Clients of `serve` that say nothing.
#[derive(Debug)]
pub struct Crowd {
    slots: Slab<Slot<ConnRecord, Nobody>>,
    timers: Timers<u32>,
    patience: Duration,
    transport: Scripted,
}

/// Whose address they have.
const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// As large as a socket. Like a descriptor, it leaves one number out.
#[derive(Debug)]
struct Nobody(#[allow(dead_code, reason = "it takes room")] NonZeroU32);

/// Hears nothing, so nobody asks it.
struct Deaf;

impl Protocol for Deaf {
    fn respond(&mut self, _: &Request<'_>) -> Decision {
        unreachable!("not a byte has come")
    }
}

impl Crowd {
    /// Nobody yet. Each who comes will have `patience` to say something.
    #[must_use]
    pub fn new(now: Instant, patience: Duration) -> Self {
        Self {
            slots: Slab::new(),
            timers: Timers::new(now),
            patience,
            transport: Scripted::default(),
        }
    }

    /// How many are here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether nobody is here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// One more is accepted, makes its first step and waits.
    pub fn admit(&mut self, now: Instant) {
        let role = Role::Client(Stage::Reading);
        let mut client = ConnRecord::new(Some(PEER), role, now, self.patience);
        let mut deadline = None;
        let next = self.step(&mut client, Event::Start, now, &mut deadline);
        assert_eq!(next, Action::Wait);
        let vacant = self.slots.vacant_entry();
        let key = vacant.key() as u32;
        let mut slot = Slot {
            socket: Nobody(NonZeroU32::MIN),
            generation: key,
            registered: true,
            is_admin: false,
            schedule: Schedule::Waiting,
            line: None,
            link: Link::default(),
            deadline: Deadline::default(),
            conn: client,
        };
        self.timers.set(&mut slot.deadline, deadline, key);
        vacant.insert(slot);
    }

    /// Lets the time pass until `now`. Returns how many ran out of theirs; they are gone.
    pub fn expire(&mut self, now: Instant) -> usize {
        let mut expired = Vec::new();
        self.timers.expire(now, &mut expired);
        let before = self.slots.len();
        for (key, tick) in expired {
            let slot = &mut self.slots[key as usize];
            if self.timers.is_due(&mut slot.deadline, tick, now, key) {
                let mut slot = self.slots.remove(key as usize);
                let mut deadline = self.timers.at(&slot.deadline);
                let next = self.step(&mut slot.conn, Event::Deadline, now, &mut deadline);
                assert_eq!(next, Action::Close(Reason::RequestTimeout));
            }
        }
        before - self.slots.len()
    }

    fn step(
        &mut self,
        client: &mut ConnRecord,
        event: Event,
        now: Instant,
        deadline: &mut Option<Instant>,
    ) -> Action {
        let (_, _, active) = client.activate(*deadline, self.patience);
        self.transport.begin_turn();
        self.transport.reads.push_back(Read::Block);
        let mut turn = StepContext {
            now,
            scratch: &mut [0; 16],
            deadline: *deadline,
            bytes_moved: 0,
            draining: false,
            is_crowded: false,
        };
        let mut io = StepIo {
            transport: &mut self.transport,
            protocol: &mut Deaf,
            timeouts: &Timeouts {
                request: self.patience,
                keep_alive: KEEP_ALIVE,
                stall: STALL_TIMEOUT,
                min_rate: MIN_RATE_BYTES,
                disk: DISK_TIMEOUT,
            },
            turn: &mut turn,
            finished: &mut Vec::new(),
            task: &mut None,
            task_result: &mut None,
        };
        let next = active.conn.step(&mut io, event);
        *deadline = turn.deadline;
        // What a guard that is set would tell the kernel.
        self.transport.guards.clear();
        client.hibernate(next, *deadline);
        next
    }
}
