//! ReadingName: collects bytes until the protocol has heard a whole request.

use std::io::ErrorKind;
use std::time::Instant;

use super::closing::Extra;
use super::input_buffer::InputBuffer;
use super::sending::{KeptAlive, Leftover, NextInput, Sending};
use super::step::Step::{self, Enter, Stay};
use super::step::{StepIo, await_disk, blame, go_on_waiting};
use crate::conn::transport::Transport;
use crate::escape::Excerpt;
use crate::file::TaskResult;
use crate::limits::{REQUEST_MEMORY_SHARE_BYTES, REQUEST_READ_BYTES_MAX, SUSPENDED_CHECK_INTERVAL};
use crate::protocol::{Decision, InputState, Protocol, Reached, Request};
use crate::reactor::event::{Action, Event, Reclaimable};
use crate::telemetry::Reason;

#[derive(Debug)]
pub(super) struct Reading {
    /// The incomplete request. Empty, and without a heap block, while the client is silent.
    pending: InputBuffer,
    speculative_lookups: u8,
    expires: Instant,
    wait: Wait,
    previous: Previous,
}

/// What came before on this connection.
#[derive(Clone, Copy, Debug)]
enum Previous {
    /// Nothing: this is its first request.
    Nothing,
    /// A reply.
    Reply {
        /// When its last byte was accepted.
        at: Instant,
        /// Where the next bytes are.
        input: NextInput,
        /// The bytes of all replies so far.
        sent: u64,
    },
}

#[derive(Debug)]
enum Wait {
    Bytes,
    /// There was no descriptor to try the bytes.
    Descriptor(Box<PendingRequest>),
    /// A disk thread does something for the protocol, since then.
    DiskTask(Box<PendingRequest>, Instant),
}

/// What is kept of a request that is answered in several steps.
#[derive(Debug)]
struct PendingRequest {
    /// When the protocol was asked last.
    input_state: InputState,
    /// When the request had come.
    at: Instant,
    /// What tasks for it came to.
    results: Vec<TaskResult>,
    /// How long it may wait for a descriptor, if it did.
    until: Option<Instant>,
}

impl PendingRequest {
    /// Whether its time to wait for a descriptor is over.
    fn is_late(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now >= until)
    }
}

impl Wait {
    fn asked(&self) -> Option<&PendingRequest> {
        match self {
            Self::Bytes => None,
            Self::Descriptor(asked) | Self::DiskTask(asked, _) => Some(asked),
        }
    }

    /// What is kept when it waits for something else from now on.
    fn take(&mut self, input_state: InputState, now: Instant) -> Box<PendingRequest> {
        match std::mem::replace(self, Self::Bytes) {
            Self::Bytes => Box::new(PendingRequest {
                input_state,
                at: now,
                results: Vec::new(),
                until: None,
            }),
            Self::Descriptor(asked) | Self::DiskTask(asked, _) => asked,
        }
    }
}

impl Reading {
    pub(super) fn new(expires: Instant) -> Self {
        Self {
            pending: InputBuffer::default(),
            speculative_lookups: 0,
            expires,
            wait: Wait::Bytes,
            previous: Previous::Nothing,
        }
    }

    /// The request after a reply.
    pub(super) fn after_reply(kept: KeptAlive) -> Self {
        let KeptAlive {
            pending,
            input,
            sent,
            at,
            expires,
        } = kept;
        Self {
            pending,
            previous: Previous::Reply { at, input, sent },
            ..Self::new(expires)
        }
    }

    /// The request as far as it came.
    pub(super) fn pending(&self) -> &[u8] {
        self.pending.as_slice()
    }

    /// Whether the connection has carried a reply.
    pub(super) fn is_keep_alive(&self) -> bool {
        matches!(self.previous, Previous::Reply { .. })
    }

    /// When its time is over, if not one byte has come on this connection.
    pub(super) fn silent_until(&self) -> Option<Instant> {
        let is_silent = self.pending.is_empty()
            && self.speculative_lookups == 0
            && matches!(
                (&self.wait, self.previous),
                (Wait::Bytes, Previous::Nothing)
            );
        is_silent.then_some(self.expires)
    }

    /// Whether it waits for what a disk thread does.
    pub(super) fn awaits_task(&self) -> bool {
        matches!(self.wait, Wait::DiskTask(..))
    }

    /// Since when there has been nothing to do, after a reply.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        match self.previous {
            Previous::Reply { at, .. } if self.pending.is_empty() => Some(at),
            _ => None,
        }
    }

    /// What it waits for, if it may be ended when others need its place. What it has heard and not
    /// judged yet may be a whole request.
    pub(super) fn reclaimable(&self) -> Option<Reclaimable> {
        match (&self.wait, self.previous) {
            (
                Wait::Bytes,
                Previous::Reply {
                    input: NextInput::Pending,
                    ..
                },
            ) => None,
            (Wait::Bytes, _) if self.is_large() => Some(Reclaimable::Large),
            (Wait::Descriptor(_) | Wait::DiskTask(..), _) if self.is_large() => {
                Some(Reclaimable::Suspended)
            }
            (Wait::Descriptor(_) | Wait::DiskTask(..), _) => None,
            (Wait::Bytes, Previous::Nothing) if self.pending.is_empty() => {
                Some(Reclaimable::Silent)
            }
            (Wait::Bytes, Previous::Reply { .. }) if self.pending.is_empty() => {
                Some(Reclaimable::Idle)
            }
            (Wait::Bytes, _) => Some(Reclaimable::Partial),
        }
    }

    fn is_large(&self) -> bool {
        self.held_bytes() > REQUEST_MEMORY_SHARE_BYTES
    }

    /// The memory that holds what has come, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.pending.held_bytes()
    }

    /// What a connection that ends here is counted as, if nothing broke.
    fn end(&self, otherwise: Reason) -> Step<Sending> {
        Stay(Action::Close(match self.idle_since() {
            Some(_) => Reason::Complete,
            None => otherwise,
        }))
    }

    pub(super) fn step<T: Transport, P: Protocol>(
        &mut self,
        io: &mut StepIo<'_, '_, T, P>,
        event: Event,
    ) -> Step<Sending> {
        match (&self.wait, event) {
            (Wait::Bytes, Event::Stop(_)) => self.end(Reason::RequestTimeout),
            (Wait::Bytes, Event::Ready(edge)) if !(edge.readable || edge.dead) => {
                Stay(Action::Wait)
            }
            (Wait::Bytes, Event::Drain) if self.idle_since().is_none() => Stay(Action::Wait),
            (Wait::Bytes, _) => self.go_on(io, event),
            (_, Event::Stop(reason)) => Stay(Action::Reset(reason)),
            // Its memory is needed. It is owed an answer.
            (Wait::Descriptor(_) | Wait::DiskTask(..), Event::Reclaim) => {
                Stay(Action::Reset(Reason::Evicted))
            }
            (Wait::Descriptor(_) | Wait::DiskTask(..), Event::Ready(_)) => {
                Stay(Action::Close(Reason::PeerReset))
            }
            (Wait::Descriptor(asked), Event::Drain) if !asked.is_late(io.turn.now) => {
                let until = asked.until.unwrap_or(io.turn.now);
                let since = until.checked_sub(io.timeouts.stall).unwrap_or(until);
                Stay(go_on_waiting(io, since, until))
            }
            (Wait::Descriptor(asked), _) => {
                let input_state = asked.input_state;
                self.respond_again(io, input_state)
            }
            (Wait::DiskTask(..), _) => self.take_result(io),
        }
    }

    /// Asks the protocol what it couldn't say before.
    fn respond_again<T: Transport, P: Protocol>(
        &mut self,
        io: &mut StepIo<'_, '_, T, P>,
        input_state: InputState,
    ) -> Step<Sending> {
        match self.respond(io, 0, input_state) {
            // A guess that was wrong. No edge is remembered meanwhile, so what came is read now.
            Stay(Action::Wait) => {
                self.wait = Wait::Bytes;
                self.read(io, Event::Resume)
            }
            decided => decided,
        }
    }

    /// A disk thread is done, or the disk's time may be over. The client's clock stood meanwhile.
    fn take_result<T: Transport, P: Protocol>(
        &mut self,
        io: &mut StepIo<'_, '_, T, P>,
    ) -> Step<Sending> {
        let Wait::DiskTask(asked, since) = &mut self.wait else {
            return Stay(Action::Suspend);
        };
        match io.task_result.take() {
            Some(TaskResult::Panicked) => return Stay(Action::Reset(Reason::OpenFailed)),
            Some(result @ (TaskResult::Opened { .. } | TaskResult::Listed(_))) => {
                asked.results.push(result);
            }
            _ => return Stay(await_disk(io, *since, self.pending.as_slice())),
        }
        let waited = io.turn.now - *since;
        self.expires += waited;
        asked.until = asked.until.map(|until| until + waited);
        let input_state = asked.input_state;
        self.respond_again(io, input_state)
    }

    /// After a reply, what was read with its request comes first.
    fn go_on<T: Transport, P: Protocol>(
        &mut self,
        io: &mut StepIo<'_, '_, T, P>,
        event: Event,
    ) -> Step<Sending> {
        let Previous::Reply { input, .. } = &mut self.previous else {
            return self.read(io, event);
        };
        match std::mem::replace(input, NextInput::Queued) {
            NextInput::Pending => match self.respond(io, 0, InputState::Arrived) {
                Stay(Action::Wait) => self.read(io, Event::Resume),
                decided => decided,
            },
            NextInput::Awaited if event == Event::Start => Stay(Action::Wait),
            _ => self.read(io, event),
        }
    }

    /// Reads until the queue is empty or the protocol has heard enough. A deadline, too, counts
    /// only after a look at the queue: after a pause of the whole process, it may have passed
    /// while the request lay there.
    fn read<T: Transport, P: Protocol>(
        &mut self,
        io: &mut StepIo<'_, '_, T, P>,
        event: Event,
    ) -> Step<Sending> {
        if event == Event::Start && !self.is_keep_alive() {
            io.turn.deadline = Some(self.expires);
        }
        // A read that doesn't fill the buffer has emptied the queue. What comes later makes a new
        // edge, unless the FIN was part of this one. (On `Start` it isn't registered yet: to add it to
        // epoll reports what is there then, the FIN included.) (Urgent data ends a read early, too; who
        // sends it waits for the deadline's look.)
        let short_read_drains = match event {
            Event::Start => !self.is_keep_alive(),
            Event::Ready(edge) => !edge.read_closed && !edge.dead,
            _ => false,
        };
        let mut has_unseen = false;
        loop {
            let most = REQUEST_READ_BYTES_MAX.min(io.turn.scratch.len());
            let fresh = match io.transport.read(&mut io.turn.scratch[..most]) {
                Ok(0) if self.pending.is_empty() => return self.end(Reason::ClientLeft),
                Ok(0) => return self.respond(io, 0, InputState::Ended),
                Ok(n) if n < most && short_read_drains => {
                    return self.respond(io, n, InputState::WouldBlock);
                }
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return self.on_would_block(io, event, has_unseen);
                }
                Err(error) => return Stay(Action::Reset(blame(&error))),
            };
            match self.respond(io, fresh, InputState::Arrived) {
                Stay(Action::Wait) => has_unseen = true,
                decided => return decided,
            }
        }
    }

    /// The queue is empty. `has_unseen`: bytes came in this step, after which the
    /// protocol was not yet told that the queue is empty.
    fn on_would_block<T: Transport, P: Protocol>(
        &mut self,
        io: &mut StepIo<'_, '_, T, P>,
        event: Event,
        has_unseen: bool,
    ) -> Step<Sending> {
        let step = match event {
            _ if has_unseen => self.respond(io, 0, InputState::WouldBlock),
            Event::Deadline if io.turn.now < self.expires => {
                self.respond(io, 0, InputState::IdleTimeout)
            }
            // What waits for nothing but silence is taken as it stands.
            Event::Reclaim if io.turn.deadline.is_some_and(|at| at < self.expires) => {
                self.respond(io, 0, InputState::IdleTimeout)
            }
            _ => Stay(Action::Wait),
        };
        match step {
            Stay(Action::Wait) if event == Event::Deadline && io.turn.now >= self.expires => {
                self.end(Reason::RequestTimeout)
            }
            Stay(Action::Wait) if event == Event::Drain && self.idle_since().is_some() => {
                self.end(Reason::RequestTimeout)
            }
            Stay(Action::Wait) if event == Event::Reclaim => self.end(Reason::Evicted),
            step => step,
        }
    }

    /// Puts the pending bytes and `fresh` more from the scratch buffer to the protocol.
    fn respond<T: Transport, P: Protocol>(
        &mut self,
        io: &mut StepIo<'_, '_, T, P>,
        fresh: usize,
        input_state: InputState,
    ) -> Step<Sending> {
        if self.idle_since().is_some() {
            // The keep-alive is over; the request's own time begins with its first byte.
            self.expires = io.turn.now + io.timeouts.request;
        }
        let fresh = &io.turn.scratch[..fresh];
        let copied = !self.pending.is_empty();
        if copied && self.pending.append(fresh).is_err() {
            return Stay(Action::Close(Reason::OutOfMemory));
        }
        let bytes = if copied {
            self.pending.as_slice()
        } else {
            fresh
        };
        let transport = &*io.transport;
        let reached = || transport.reached_address();
        let request = Request {
            bytes,
            input_state,
            is_new: !fresh.is_empty(),
            now: io.turn.now,
            speculative_lookups: self.speculative_lookups,
            is_keep_alive: self.is_keep_alive(),
            draining: io.turn.draining,
            is_crowded: io.turn.is_crowded,
            is_encrypted: transport.is_encrypted(),
            results: self.wait.asked().map_or(&[], |asked| &asked.results),
            reached: Reached::new(&reached),
        };
        let decision = io.protocol.respond(&request);
        if let Decision::Reply(reply) = decision {
            let has_waited = !matches!(self.wait, Wait::Bytes);
            let is_drained = matches!(
                input_state,
                InputState::WouldBlock | InputState::IdleTimeout
            ) && !has_waited;
            let has_more = bytes.len() > reply.used;
            let is_empty = fresh.is_empty() && is_drained;
            let extra = match (has_more, has_waited) {
                (true, _) => Extra::Certain,
                // Nobody read while it waited.
                (false, true) => Extra::Possible,
                (false, false) => Extra::Nothing,
            };
            let mut read = std::mem::take(&mut self.pending);
            if copied {
                read.consume(reply.used);
            } else if reply.keep_alive && has_more && read.append(&fresh[reply.used..]).is_err() {
                return Stay(Action::Close(Reason::OutOfMemory));
            }
            let input = Leftover {
                extra,
                is_empty,
                is_drained,
                read,
            };
            let sent_before = match self.previous {
                Previous::Reply { sent, .. } => sent,
                Previous::Nothing => 0,
            };
            let asked_at = self.wait.asked().map_or(io.turn.now, |asked| asked.at);
            let sending = Sending::new(reply, input, sent_before, asked_at);
            return Enter(sending);
        }
        if !copied && self.pending.append(fresh).is_err() {
            return Stay(Action::Close(Reason::OutOfMemory));
        }
        Stay(self.wait_for(io, decision, input_state))
    }

    /// There is no answer yet.
    fn wait_for<T, P>(
        &mut self,
        io: &mut StepIo<'_, '_, T, P>,
        decision: Decision,
        input_state: InputState,
    ) -> Action {
        let now = io.turn.now;
        match decision {
            Decision::NeedMore { .. } if input_state == InputState::Ended => {
                Action::Close(Reason::ClientLeft)
            }
            Decision::NeedMore { speculative, gap } => {
                self.speculative_lookups += u8::from(speculative);
                let silence = gap.map_or(self.expires, |gap| now + gap);
                io.turn.deadline = Some(self.expires.min(silence));
                Action::Wait
            }
            Decision::WaitForFd => self.wait_for_fd(io, input_state),
            Decision::Suspend(task) => {
                self.wait = Wait::DiskTask(self.wait.take(input_state, now), now);
                *io.task = Some(task);
                io.turn.deadline = Some(now + io.timeouts.disk.min(SUSPENDED_CHECK_INTERVAL));
                Action::Suspend
            }
            Decision::Abort(reason) => Action::Reset(reason),
            Decision::Reply(_) => unreachable!("it is an answer"),
        }
    }

    /// Waits for a descriptor, and not for the client: the request's timeout doesn't count.
    fn wait_for_fd<T, P>(
        &mut self,
        io: &mut StepIo<'_, '_, T, P>,
        input_state: InputState,
    ) -> Action {
        let now = io.turn.now;
        let mut asked = self.wait.take(input_state, now);
        // It is looked up anew: for a part of it there was no descriptor.
        asked.results.clear();
        let until = *asked.until.get_or_insert(now + io.timeouts.stall);
        if now >= until {
            let (name, stall) = (
                Excerpt::of_request(self.pending.as_slice()),
                io.timeouts.stall,
            );
            log::warn!("no descriptor for \"{name}\" within {stall:?}");
            return Action::Reset(Reason::NoDescriptor);
        }
        self.wait = Wait::Descriptor(asked);
        io.turn.deadline = Some(until.min(now + SUSPENDED_CHECK_INTERVAL));
        Action::Suspend
    }
}
