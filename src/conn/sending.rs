//! Sending(offset): moves a reply's body, a budget's worth a turn, and chooses how to end.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use super::body_source::{BodySource, SendError};
use super::closing::{Closing, Extra, Look, OnTheWire, Patience, ReplyEnd, close_table};
use super::input_buffer::Kept;
use super::step::Step::{self, Enter, EnterWaiting, Stay};
use super::step::{StepIo, await_disk, blame};
use crate::conn::transport::{SendFileError, Transport};
use crate::escape::Excerpt;
use crate::file::{DiskTask, FsClass, Probe, Segment, TaskResult};
use crate::limits::{
    COLD_BLOCK_BYTES, COLD_READ_BYTES, CONN_TURN_BYTES_MAX, COPIED_BODY_BYTES_MAX,
    HTTP_BODY_LINGER_BYTES_MAX, SENDFILE_SEGMENT_BYTES, STALL_CHECKS, SUSPENDED_CHECK_INTERVAL,
};
use crate::protocol::{Body, Reply, RequestEnd, Then};
use crate::reactor::event::{Action, Event, StepContext};
use crate::telemetry::Reason;
use crate::telemetry::response::Response;

#[derive(Debug)]
pub(super) struct Sending {
    pub(super) delivery: Response,
    /// The bytes of the replies before this one.
    sent_before: u64,
    /// What goes before the body, and how much of it was accepted.
    head: Vec<u8>,
    head_sent: usize,
    body: Body,
    ended_by: RequestEnd,
    then: Then,
    following: Leftover,
    /// How the reply has gone so far.
    pace: Progress,
    supply: BodySource,
    /// What the next read by a helper takes, in bytes.
    cold_bytes: u64,
    /// What was thrown away of a body that nobody reads, in bytes.
    discarded: u64,
}

/// The input after a request, when it is answered.
#[derive(Debug)]
pub(super) struct Leftover {
    pub(super) extra: Extra,
    /// The receive queue was found empty in this very step.
    pub(super) is_empty: bool,
    /// The queue was empty after the request, and an edge will come.
    pub(super) is_drained: bool,
    /// What was read with the request and belongs to the next one.
    pub(super) read: Kept,
}

/// What a connection does after a reply.
pub(super) enum AfterReply {
    Close(Closing),
    ReadOn(KeptAlive),
}

/// A connection that is kept alive.
pub(super) struct KeptAlive {
    /// What has come of the next request.
    pub(super) pending: Kept,
    pub(super) input: NextInput,
    /// The bytes of all replies so far.
    pub(super) sent: u64,
}

/// Where the next bytes are when a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextInput {
    /// Some were read with the request, and the protocol was not asked about them yet.
    Pending,
    /// In the receive queue, perhaps.
    Queued,
    /// Nowhere: the queue was found empty, and an edge will come.
    Awaited,
}

#[derive(Debug)]
enum Progress {
    /// All in the turn in which the request was answered.
    FirstTurn,
    /// It had to wait.
    Resumed {
        mark: Mark,
        /// It waited for its turn alone: the peer took all that the last one gave it.
        keeps_up: bool,
    },
}

/// When the peer had last taken enough to be waited for.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    /// What it had acknowledged then.
    acked: u64,
    /// When it will be looked at again.
    next_look: Instant,
}

impl Sending {
    pub(super) fn new(
        reply: Reply,
        following: Leftover,
        sent_before: u64,
        asked_at: Instant,
    ) -> Self {
        let Reply {
            subject,
            head,
            body,
            outcome,
            ended_by,
            then,
            status,
            exchange,
            ..
        } = reply;
        let delivery = Response {
            subject,
            offset: 0,
            promised: body.length(),
            outcome,
            asked_at,
            status,
            exchange,
        };
        Self {
            delivery,
            sent_before,
            head,
            head_sent: 0,
            body,
            ended_by,
            then,
            following,
            pace: Progress::FirstTurn,
            supply: BodySource::Unknown,
            cold_bytes: COLD_BLOCK_BYTES,
            discarded: 0,
        }
    }

    /// Whether a part of what goes before the body was not accepted yet.
    fn has_head_left(&self) -> bool {
        self.head_sent < self.head.len()
    }

    /// Whether it waits for what a helper reads.
    pub(super) fn awaits_errand(&self) -> bool {
        matches!(self.supply, BodySource::Awaited(_))
    }

    /// Whether the peer is told the body's length.
    pub(super) fn has_head(&self) -> bool {
        !self.head.is_empty()
    }

    pub(super) fn step<T: Transport, S>(
        &mut self,
        env: &mut StepIo<'_, '_, T, S>,
        why: Event,
    ) -> Step<AfterReply> {
        match why {
            Event::Stop(reason) => return Stay(Action::Reset(reason)),
            // Only the peer's death gets through to one that waits for a helper.
            Event::Ready(_) if self.awaits_errand() => {
                return Stay(Action::Reset(Reason::PeerReset));
            }
            _ => {}
        }
        if let BodySource::Awaited(since) = self.supply {
            match env.fetched.take() {
                Some(TaskResult::Read(Ok(chunk))) => {
                    self.excuse(env.turn.now - since);
                    self.supply = BodySource::from(chunk);
                }
                Some(TaskResult::Read(Err(error))) => {
                    return Stay(self.fail(SendError::File(error), env));
                }
                Some(TaskResult::Panicked) => return Stay(Action::Reset(Reason::ReadFailed)),
                _ => return Stay(await_disk(env, since, &self.delivery.subject)),
            }
            return self.send(env);
        }
        match why {
            Event::Deadline => self.check_stall(env),
            Event::Ready(edge) if !(edge.writable || edge.dead) => Stay(self.discard_input(env)),
            Event::Evict | Event::Reclaim => Stay(Action::Wait),
            _ => self.send(env),
        }
    }

    /// Sends until it has to wait, or its budget is used up, or all is sent.
    fn send<T: Transport, S>(&mut self, env: &mut StepIo<'_, '_, T, S>) -> Step<AfterReply> {
        let budget_ends = self.delivery.offset + CONN_TURN_BYTES_MAX;
        while self.has_head_left() || self.delivery.offset < self.delivery.promised {
            if self.delivery.offset >= budget_ends {
                self.pause(true, env);
                return Stay(Action::Yield);
            }
            let until = budget_ends.min(self.delivery.promised);
            if self.was_overwritten(until) {
                return Stay(Action::Reset(Reason::FileChanged));
            }
            let before = self.sent();
            match self.send_until(until, env) {
                Ok(sent) => {
                    self.delivery.offset += sent;
                    env.turn.moved += self.sent() - before;
                }
                Err(error) => return Stay(self.fail(error, env)),
            }
        }
        self.finish(env)
    }

    /// No more could be sent now, or at all.
    fn fail<T: Transport, S>(
        &mut self,
        error: SendError,
        env: &mut StepIo<'_, '_, T, S>,
    ) -> Action {
        match error {
            SendError::WouldBlock => {
                let was_empty = self.found_empty();
                self.pause(false, env);
                if was_empty {
                    Action::Wait
                } else {
                    self.discard_input(env)
                }
            }
            SendError::Cold(read) => {
                self.pause(false, env);
                // The client's clock doesn't run while our disk is waited for; the disk's does.
                let now = env.turn.now;
                env.turn.deadline = Some(now + env.timeouts.disk.min(SUSPENDED_CHECK_INTERVAL));
                self.supply = BodySource::Awaited(now);
                // Its client takes what it is sent, so it will want more.
                self.cold_bytes = COLD_READ_BYTES.min(2 * self.cold_bytes);
                *env.errand = Some(DiskTask::Read(read));
                Action::Suspend
            }
            SendError::Socket(error) => Action::Reset(blame(&error)),
            SendError::File(error) => {
                self.warn(&format_args!("can't be read: {error}"));
                Action::Reset(Reason::ReadFailed)
            }
            SendError::FileEnded => {
                self.warn(&"became shorter while it was sent");
                Action::Reset(Reason::FileShort)
            }
        }
    }

    /// The peer takes no more now. Perhaps it takes nothing before it has sent the whole body of its
    /// request, so what has come of that is thrown away. No edge will tell of what a turn leaves in the
    /// queue, so the next turn goes on.
    fn discard_input<T: Transport, S>(&mut self, env: &mut StepIo<'_, '_, T, S>) -> Action {
        if self.ended_by != RequestEnd::Unread {
            return Action::Wait;
        }
        let budget_ends = self.discarded + CONN_TURN_BYTES_MAX;
        while self.discarded < HTTP_BODY_LINGER_BYTES_MAX {
            if self.discarded >= budget_ends {
                return Action::Yield;
            }
            match env.transport.read(env.turn.scratch) {
                Ok(0) => return Action::Wait,
                Ok(count) => {
                    self.discarded += count as u64;
                    env.turn.moved += count as u64;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Action::Wait,
                Err(error) => return Action::Reset(blame(&error)),
            }
        }
        Action::Wait
    }

    /// Sends what it can of the head, and of the body's bytes from the offset to `until`. Returns
    /// how many of the body's were accepted.
    fn send_until<T: Transport, S>(
        &mut self,
        until: u64,
        env: &mut StepIo<'_, '_, T, S>,
    ) -> Result<u64, SendError> {
        let offset = self.delivery.offset;
        // It fits: a turn's bytes are few.
        let count = (until - offset) as usize;
        if self.delivery.promised <= COPIED_BODY_BYTES_MAX {
            return self.copy(count, env);
        }
        let is_one_of_several = matches!(self.body, Body::Parts(..));
        let is_short = |length: u64| is_one_of_several && length <= COPIED_BODY_BYTES_MAX;
        let sent = match self.body.segment(offset) {
            Segment::Bytes(bytes) if is_short(bytes.len() as u64) => return self.copy(count, env),
            Segment::Bytes(_) if self.has_head_left() => return self.send_head(env),
            Segment::Bytes(bytes) => {
                let bytes = &bytes[..count.min(bytes.len())];
                let more = self.more_follows(bytes.len(), env.turn);
                env.transport.write(bytes, more)?
            }
            Segment::File { file, length, .. }
                if file.fs_class() == FsClass::Remote || is_short(length) =>
            {
                return self.copy(count, env);
            }
            Segment::File {
                file,
                start,
                length,
            } => {
                // At most `count`.
                let most = length.min(count as u64) as usize;
                let ends = match self.pace {
                    Progress::FirstTurn => Probe::Both,
                    Progress::Resumed { .. } => Probe::Last,
                };
                let (wanted, cold) = ((start, most, start + length), self.cold_bytes);
                let warm = self.supply.warm(file, wanted, ends, cold, env.transport)?;
                let count = warm.min(self.sendfile_bytes_max());
                if self.has_head_left() {
                    return self.send_head(env);
                }
                match env.transport.send_file(file, start, count) {
                    Ok(0) => return Err(SendError::FileEnded),
                    Ok(sent) => sent,
                    Err(SendFileError::Unsupported) => return self.copy(count, env),
                    Err(SendFileError::WouldBlock) => return Err(SendError::WouldBlock),
                    Err(SendFileError::Socket(error)) => return Err(SendError::Socket(error)),
                    Err(SendFileError::File(error)) => return Err(SendError::File(error)),
                }
            }
        };
        Ok(sent as u64)
    }

    /// What one sendfile moves at most.
    fn sendfile_bytes_max(&self) -> usize {
        match self.pace {
            Progress::Resumed { keeps_up: true, .. } => SENDFILE_SEGMENT_BYTES,
            _ => usize::MAX,
        }
    }

    /// Sends what is left of the head alone. The body follows in this step, as it says.
    fn send_head<T: Transport, S>(
        &mut self,
        env: &mut StepIo<'_, '_, T, S>,
    ) -> Result<u64, SendError> {
        let more = true;
        self.head_sent += env.transport.write(&self.head[self.head_sent..], more)?;
        Ok(0)
    }

    /// Sends what is left of the head and up to `count` bytes of the body from the scratch buffer,
    /// in one call.
    fn copy<T: Transport, S>(
        &mut self,
        count: usize,
        env: &mut StepIo<'_, '_, T, S>,
    ) -> Result<u64, SendError> {
        let head = &self.head[self.head_sent..];
        let scratch = &mut *env.turn.scratch;
        scratch[..head.len()].copy_from_slice(head);
        let room = count.min(scratch.len() - head.len());
        let filled = self.fill(&mut scratch[head.len()..][..room], env.transport)?;
        let more = self.more_follows(filled, env.turn);
        let head_left = head.len();
        let sent = env
            .transport
            .write(&env.turn.scratch[..head_left + filled], more)?;
        self.head_sent += sent.min(head_left);
        Ok(sent.saturating_sub(head_left) as u64)
    }

    /// Copies what comes next of the body, and of several pieces as many as fit, so that no short one
    /// makes a packet of its own. What is long enough for sendfile is left to it, unless it comes first.
    fn fill<T: Transport>(&self, into: &mut [u8], transport: &mut T) -> Result<usize, SendError> {
        let mut filled = 0;
        while filled < into.len() {
            let into = &mut into[filled..];
            let (segment, copied) = match self.body.segment(self.delivery.offset + filled as u64) {
                Segment::Bytes([]) => break,
                Segment::Bytes(bytes) => {
                    let count = bytes.len().min(into.len());
                    into[..count].copy_from_slice(&bytes[..count]);
                    (bytes.len() as u64, count)
                }
                Segment::File { length, .. } if filled > 0 && length > COPIED_BODY_BYTES_MAX => {
                    break;
                }
                Segment::File {
                    file,
                    start,
                    length,
                } => {
                    // At most what `into` holds.
                    let room = length.min(into.len() as u64) as usize;
                    let into = &mut into[..room];
                    match self.supply.read(
                        file,
                        into,
                        (start, start + length),
                        self.cold_bytes,
                        transport,
                    ) {
                        Ok(0) if filled == 0 => return Err(SendError::FileEnded),
                        Err(error) if filled == 0 => return Err(error),
                        // What is there is sent first.
                        Ok(0) | Err(_) => break,
                        Ok(count) => (length, count),
                    }
                }
            };
            filled += copied;
            if (copied as u64) < segment {
                break;
            }
        }
        Ok(filled)
    }

    /// Whether the kernel may hold back the last of so many bytes: the connection closes in this step
    /// when they are accepted, or another piece of the body is at hand.
    fn more_follows(&self, bytes: usize, turn: &StepContext<'_>) -> bool {
        let is_last = self.delivery.offset + bytes as u64 == self.delivery.promised;
        if is_last {
            let end = self.end(turn.draining);
            self.then == Then::Close && close_table(end, None) == OnTheWire::Close
        } else {
            matches!(self.body, Body::Parts(..))
        }
    }

    /// Before the last bytes of a reply that took more than one turn: were those before them
    /// overwritten meanwhile? A fault in asking shows in the reading itself.
    fn was_overwritten(&self, until: u64) -> bool {
        let (Some(file), Progress::Resumed { .. }) = (self.body.file(), &self.pace) else {
            return false;
        };
        let is_overwritten = || match (&self.supply, file.fs_class()) {
            (BodySource::Fetched(kept), _) => file.is_overwritten_by(&kept.stat),
            // Asking may wait; a helper will, when it has read those bytes.
            (_, FsClass::Remote) => false,
            _ => file.is_overwritten().unwrap_or_default(),
        };
        let overwritten = until == self.delivery.promised && is_overwritten();
        if overwritten {
            self.warn(&"changed while it was sent");
        }
        overwritten
    }

    /// Stops before the end. `keeps_up` says that neither the peer nor the disk was the reason.
    fn pause<T, S>(&mut self, keeps_up: bool, env: &mut StepIo<'_, '_, T, S>) {
        let (now, stall) = (env.turn.now, env.timeouts.stall);
        let mark = match self.pace {
            Progress::FirstTurn => Mark {
                at: now,
                // The first look finds what it has acknowledged so far.
                acked: 0,
                next_look: now + stall / STALL_CHECKS,
            },
            Progress::Resumed { mark, .. } if keeps_up => Mark { at: now, ..mark },
            Progress::Resumed { mark, .. } => mark,
        };
        self.pace = Progress::Resumed { mark, keeps_up };
        let next = match self.body.segment(self.delivery.offset) {
            Segment::File { start, .. } => Some(start),
            Segment::Bytes(_) => None,
        };
        self.supply.rest(next);
        env.turn.deadline = Some(mark.next_look);
    }

    /// Looks at what the peer has acknowledged. Writable edges alone come minutes apart for an honest
    /// slow reader with a large buffer. It must take some bytes within the stall timeout, and is looked
    /// at often enough for the timeout to count from when it last did.
    fn check_stall<T: Transport, S>(&mut self, env: &mut StepIo<'_, '_, T, S>) -> Step<AfterReply> {
        let Progress::Resumed { mark, keeps_up } = self.pace else {
            return Stay(Action::Wait);
        };
        let (now, stall) = (env.turn.now, env.timeouts.stall);
        let acked = env.transport.acked_bytes();
        let took = acked.saturating_sub(mark.acked);
        // If it has all, it waits for us.
        let has_all = acked > 0 && acked >= self.sent();
        let mut mark = match took >= env.timeouts.least_bytes(stall) || has_all || keeps_up {
            true => Mark {
                at: now,
                acked,
                ..mark
            },
            false if now >= mark.at + stall => return Stay(Action::Reset(Reason::Stalled)),
            false => mark,
        };
        mark.next_look = (now + stall / STALL_CHECKS).min(mark.at + stall);
        self.pace = Progress::Resumed { mark, keeps_up };
        env.turn.deadline = Some(mark.next_look);
        if keeps_up {
            // It is its turn.
            self.send(env)
        } else {
            Stay(Action::Wait)
        }
    }

    /// The peer's clock stood for so long.
    fn excuse(&mut self, waited: Duration) {
        if let Progress::Resumed { mark, .. } = &mut self.pace {
            mark.at += waited;
            mark.next_look += waited;
        }
    }

    /// All bytes are accepted. Unread input would turn the close into a reset that eats them.
    fn finish<T: Transport, S>(&mut self, env: &mut StepIo<'_, '_, T, S>) -> Step<AfterReply> {
        if self.then == Then::ReadOn && !env.turn.draining {
            return self.read_on(env);
        }
        let close = Stay(Action::Close(self.delivery.outcome.reason()));
        let end = self.end(env.turn.draining);
        if close_table(end, None) == OnTheWire::Close {
            return close;
        }
        let (look, discarded) = match self.look(env) {
            Ok(0) => (Look::Fin, 0),
            Ok(n) if matches!(&env.turn.scratch[..n], b"\n" | b"\r\n") => (Look::Terminator, n),
            Ok(n) => (Look::Bytes, n),
            Err(error) if error.kind() == ErrorKind::WouldBlock => (Look::Empty, 0),
            Err(error) => return Stay(Action::Close(blame(&error))),
        };
        if close_table(end, Some(look)) == OnTheWire::Close {
            return close;
        }
        match self.linger(env, discarded as u64) {
            Ok(closing) if look == Look::Empty => {
                env.turn.deadline = Some(closing.deadline());
                EnterWaiting(AfterReply::Close(closing))
            }
            Ok(closing) => Enter(AfterReply::Close(closing)),
            Err(error) => Stay(Action::Close(blame(&error))),
        }
    }

    /// What is known at the reply's end. Whoever had to wait gave its peer the time to say more.
    fn end(&self, draining: bool) -> ReplyEnd {
        let extra = match (self.following.extra, &self.pace) {
            (Extra::None, Progress::Resumed { .. }) => Extra::Possible,
            (extra, _) => extra,
        };
        ReplyEnd {
            ended_by: self.ended_by,
            extra,
            draining,
        }
    }

    /// The connection is kept alive. While the reply waited, the edge of what came was ignored.
    fn read_on<T, S>(&mut self, env: &mut StepIo<'_, '_, T, S>) -> Step<AfterReply> {
        let sent = self.sent();
        let delivery = self.take_delivery();
        env.delivered.push(delivery);
        let pending = std::mem::take(&mut self.following.read);
        let input = match (&self.pace, self.following.is_drained) {
            _ if !pending.is_empty() => NextInput::Pending,
            (Progress::FirstTurn, true) => NextInput::Awaited,
            _ => NextInput::Queued,
        };
        Enter(AfterReply::ReadOn(KeptAlive {
            pending,
            input,
            sent,
        }))
    }

    /// The bytes of all replies that the kernel has accepted.
    fn sent(&self) -> u64 {
        self.sent_before + self.head_sent as u64 + self.delivery.offset
    }

    fn take_delivery(&mut self) -> Response {
        let nothing = Response {
            subject: Box::default(),
            exchange: None,
            ..self.delivery
        };
        std::mem::replace(&mut self.delivery, nothing)
    }

    /// The one read before a close, unless the answer is known.
    fn look<T: Transport, S>(&self, env: &mut StepIo<'_, '_, T, S>) -> io::Result<usize> {
        if self.found_empty() {
            Err(ErrorKind::WouldBlock.into())
        } else {
            env.transport.read(env.turn.scratch)
        }
    }

    /// Whether a read would have blocked in this turn. An edge will come.
    fn found_empty(&self) -> bool {
        self.following.is_empty && matches!(self.pace, Progress::FirstTurn)
    }

    /// Shuts the write side; `discarded` bytes of input were thrown away already.
    fn linger<T: Transport, S>(
        &mut self,
        env: &mut StepIo<'_, '_, T, S>,
        discarded: u64,
    ) -> io::Result<Closing> {
        env.transport.shutdown_write()?;
        let sent = self.sent();
        let patience = match self.ended_by {
            RequestEnd::Unread => Patience::Body,
            _ => Patience::Ordinary,
        };
        let delivery = self.take_delivery();
        Ok(Closing::new(
            delivery,
            sent,
            (self.discarded + discarded, patience),
            env,
        ))
    }

    fn warn(&self, what: &dyn std::fmt::Display) {
        let Response {
            subject,
            offset,
            promised,
            ..
        } = &self.delivery;
        log::warn!(
            "\"{}\" {what} ({offset} of {promised} bytes sent)",
            Excerpt::of_request(subject)
        );
    }
}
