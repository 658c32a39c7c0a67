//! Sending(offset): moves a reply's body, a budget's worth a turn, and chooses how to end.

use std::io::{self, ErrorKind};
use std::time::Instant;

use super::body_source::{BodySource, SendError};
use super::closing::{Closing, Extra, Look, OnTheWire, close_table};
use super::input_buffer::InputBuffer;
use super::progress::{Acked, Progress};
use super::step::Step::{self, Enter, EnterWaiting, Stay};
use super::step::{StepIo, await_disk, blame};
use crate::conn::transport::{SendFileError, Transport};
use crate::escape::Excerpt;
use crate::file::{FsClass, Piece, Probe, Segment, TaskResult};
use crate::limits::{
    COLD_BLOCK_BYTES, COLD_READ_BYTES, COPIED_BODY_BYTES_MAX, COPIED_PART_BYTES_MAX,
    GATHERED_BYTES_MIN, HTTP_BODY_LINGER_BYTES_MAX, SENDFILE_SEGMENT_BYTES, STEP_BYTES_MAX,
    SUSPENDED_CHECK_INTERVAL,
};
use crate::protocol::{Body, Reply, RequestEnd};
use crate::reactor::event::{Action, Event};
use crate::telemetry::Reason;
use crate::telemetry::response::Response;

#[derive(Debug)]
pub(super) struct Sending {
    pub(super) response: Response,
    /// The bytes of the replies before this one.
    sent_before: u64,
    /// What goes before the body, and how much of it was accepted.
    head: Vec<u8>,
    head_sent: usize,
    body: Body,
    ended_by: RequestEnd,
    keep_alive: bool,
    leftover: Leftover,
    /// How the reply has gone so far.
    progress: Progress,
    source: BodySource,
    /// What comes next of a body that disk threads make.
    piece: Option<Box<Piece>>,
    /// What the next read by a disk thread takes, in bytes.
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
    pub(super) read: InputBuffer,
}

/// What a connection does after a reply.
pub(super) enum AfterReply {
    Close(Closing),
    ReadOn(KeptAlive),
}

/// A connection that is kept alive.
pub(super) struct KeptAlive {
    /// What has come of the next request.
    pub(super) pending: InputBuffer,
    pub(super) input: NextInput,
    /// The bytes of all replies so far.
    pub(super) sent: u64,
    /// When the last of them was accepted.
    pub(super) at: Instant,
    /// Until when the next request must have come, or begun.
    pub(super) expires: Instant,
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

impl Sending {
    pub(super) fn new(
        reply: Reply,
        leftover: Leftover,
        sent_before: u64,
        asked_at: Instant,
    ) -> Self {
        let Reply {
            target,
            head,
            body,
            refused,
            ended_by,
            keep_alive,
            status,
            http_log,
            ..
        } = reply;
        let response = Response {
            target,
            offset: 0,
            body_len: body.length(),
            refused,
            asked_at,
            status,
            http_log,
        };
        Self {
            response,
            sent_before,
            head,
            head_sent: 0,
            body,
            ended_by,
            keep_alive,
            leftover,
            progress: Progress::FirstStep,
            source: BodySource::Unknown,
            piece: None,
            cold_bytes: COLD_BLOCK_BYTES,
            discarded: 0,
        }
    }

    /// Whether a part of what goes before the body was not accepted yet.
    fn has_head_left(&self) -> bool {
        self.head_sent < self.head.len()
    }

    /// Whether its body is bytes and parts of files in turn.
    fn has_parts(&self) -> bool {
        matches!(self.body, Body::Parts(..) | Body::Pieces(..))
    }

    /// Whether it waits for what a disk thread does.
    pub(super) fn awaits_task(&self) -> bool {
        matches!(self.source, BodySource::Awaited(_))
    }

    /// Whether the peer is told the body's length.
    pub(super) fn has_head(&self) -> bool {
        !self.head.is_empty()
    }

    pub(super) fn step<T: Transport, P>(
        &mut self,
        io: &mut StepIo<'_, '_, T, P>,
        event: Event,
    ) -> Step<AfterReply> {
        match event {
            Event::Stop(reason) => return Stay(Action::Reset(reason)),
            // Only the peer's death gets through to one that waits for a disk thread.
            Event::Ready(_) if self.awaits_task() => {
                return Stay(Action::Reset(Reason::PeerReset));
            }
            _ => {}
        }
        if let BodySource::Awaited(since) = self.source {
            match io.task_result.take() {
                Some(TaskResult::Read(Ok(chunk))) => {
                    self.progress.excuse(io.turn.now - since);
                    self.source = BodySource::from(chunk);
                }
                Some(TaskResult::Read(Err(error))) => {
                    return Stay(self.stopped_by(SendError::File(error), io));
                }
                Some(TaskResult::Made(Ok(piece))) => {
                    self.progress.excuse(io.turn.now - since);
                    (self.source, self.piece) = (BodySource::Unknown, Some(Box::new(piece)));
                }
                Some(TaskResult::Made(Err(error))) => {
                    return Stay(self.stopped_by(error.into(), io));
                }
                Some(TaskResult::Panicked) => return Stay(Action::Reset(Reason::ReadFailed)),
                _ => return Stay(await_disk(io, since, &self.response.target)),
            }
            return self.send(io);
        }
        match event {
            Event::Deadline => self.check_stall(io),
            Event::Ready(edge) if !(edge.writable || edge.dead) => Stay(self.discard_input(io)),
            Event::Drain => Stay(Action::Wait),
            Event::Reclaim => Stay(self.make_room(io)),
            _ => self.send(io),
        }
    }

    /// Sends until it has to wait, or its budget is used up, or all is sent.
    fn send<T: Transport, P>(&mut self, io: &mut StepIo<'_, '_, T, P>) -> Step<AfterReply> {
        let budget_ends = self.response.offset + STEP_BYTES_MAX;
        let mut must_look = true;
        while self.has_head_left() || self.response.offset < self.response.body_len {
            if self.response.offset >= budget_ends {
                self.pause(true, io);
                return Stay(Action::Yield);
            }
            let until = budget_ends.min(self.response.body_len);
            if must_look && self.was_overwritten(until) {
                return Stay(Action::Reset(Reason::FileChanged));
            }
            // A file is looked at once a step; the next piece may be of another one.
            must_look = self.piece.is_some();
            let before = self.sent();
            match self.send_until(until, io) {
                Ok(sent) => {
                    self.response.offset += sent;
                    io.turn.bytes_moved += self.sent() - before;
                }
                Err(error) => return Stay(self.stopped_by(error, io)),
            }
        }
        self.finish(io)
    }

    /// No more can be sent now, as the socket or a disk has to be waited for, or at all.
    fn stopped_by<T: Transport, P>(
        &mut self,
        error: SendError,
        io: &mut StepIo<'_, '_, T, P>,
    ) -> Action {
        match error {
            SendError::WouldBlock => {
                let was_empty = self.found_empty();
                self.pause(false, io);
                if was_empty {
                    Action::Wait
                } else {
                    self.discard_input(io)
                }
            }
            SendError::Awaits(task) => {
                self.pause(false, io);
                // The client's clock doesn't run while our disk is waited for; the disk's does.
                let now = io.turn.now;
                io.turn.deadline = Some(now + io.timeouts.disk.min(SUSPENDED_CHECK_INTERVAL));
                self.source = BodySource::Awaited(now);
                // Its client takes what it is sent, so it will want more.
                self.cold_bytes = COLD_READ_BYTES.min(2 * self.cold_bytes);
                *io.task = Some(task);
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
            SendError::Changed => {
                self.warn(&"has changed since it was begun");
                Action::Reset(Reason::FileChanged)
            }
        }
    }

    /// The peer takes no more now. Perhaps it takes nothing before it has sent the whole body of its
    /// request, so what has come of that is thrown away. No edge will tell of what a turn leaves in the
    /// queue, so the next turn goes on.
    fn discard_input<T: Transport, P>(&mut self, io: &mut StepIo<'_, '_, T, P>) -> Action {
        if self.ended_by != RequestEnd::Unread {
            return Action::Wait;
        }
        let budget_ends = self.discarded + STEP_BYTES_MAX;
        while self.discarded < HTTP_BODY_LINGER_BYTES_MAX {
            if self.discarded >= budget_ends {
                return Action::Yield;
            }
            match io.transport.read(io.turn.scratch) {
                Ok(0) => return Action::Wait,
                Ok(count) => {
                    self.discarded += count as u64;
                    io.turn.bytes_moved += count as u64;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Action::Wait,
                Err(error) => return Action::Reset(blame(&error)),
            }
        }
        Action::Wait
    }

    /// Sends what it can of the head, and of the body's bytes from the offset to `until`. Returns
    /// how many of the body's were accepted.
    fn send_until<T: Transport, P>(
        &mut self,
        until: u64,
        io: &mut StepIo<'_, '_, T, P>,
    ) -> Result<u64, SendError> {
        let offset = self.response.offset;
        // It fits: a turn's bytes are few.
        let count = (until - offset) as usize;
        let is_one_of_several = self.has_parts();
        let is_short = |length: u64| {
            if is_one_of_several {
                length <= COPIED_PART_BYTES_MAX
            } else {
                self.response.body_len <= COPIED_BODY_BYTES_MAX
            }
        };
        let sent = match segment_at(&self.body, self.piece.as_deref(), offset) {
            Segment::Piece { of, start, length } => {
                return Err(SendError::unmade(of, start, length));
            }
            Segment::Bytes(bytes)
                if bytes.len() < GATHERED_BYTES_MIN
                    || is_one_of_several && is_short(bytes.len() as u64) =>
            {
                return self.copy(count, io);
            }
            Segment::Bytes(bytes) => {
                let bytes = &bytes[..count.min(bytes.len())];
                let more = self.more_follows(bytes.len(), io);
                let head = &self.head[self.head_sent..];
                let sent = io.transport.write_gathered(head, bytes, more)?;
                self.note_head_sent(sent)
            }
            Segment::File { file, length, .. }
                if file.fs_class() == FsClass::Remote
                    || is_short(length)
                    || !io.transport.sends_files() =>
            {
                return self.copy(count, io);
            }
            Segment::File {
                file,
                start,
                length,
            } => {
                // At most `count`.
                let most = length.min(count as u64) as usize;
                let ends = if self.progress.is_first_step() {
                    Probe::Sample
                } else {
                    Probe::Last
                };
                let (wanted, cold) = ((start, most, start + length), self.cold_bytes);
                let now = io.turn.now;
                let warm = self
                    .source
                    .warm(file, wanted, ends, cold, io.transport, now)?;
                let count = warm.min(self.sendfile_bytes_max());
                if self.has_head_left() {
                    return self.send_head(io);
                }
                match io.transport.send_file(file, start, count) {
                    Ok(0) => return Err(SendError::FileEnded),
                    Ok(sent) => sent,
                    Err(SendFileError::Unsupported) => return self.copy(count, io),
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
        if self.progress.is_fast_reader() {
            SENDFILE_SEGMENT_BYTES
        } else {
            usize::MAX
        }
    }

    /// Sends what is left of the head alone. The body follows in this step, as it says.
    fn send_head<T: Transport, P>(
        &mut self,
        io: &mut StepIo<'_, '_, T, P>,
    ) -> Result<u64, SendError> {
        let more = true;
        self.head_sent += io.transport.write(&self.head[self.head_sent..], more)?;
        Ok(0)
    }

    /// Sends what is left of the head and up to `count` bytes of the body from the scratch buffer,
    /// in one call.
    fn copy<T: Transport, P>(
        &mut self,
        count: usize,
        io: &mut StepIo<'_, '_, T, P>,
    ) -> Result<u64, SendError> {
        let head = &self.head[self.head_sent..];
        let scratch = &mut *io.turn.scratch;
        scratch[..head.len()].copy_from_slice(head);
        let room = count.min(scratch.len() - head.len());
        let filled = self.fill(&mut scratch[head.len()..][..room], io.transport)?;
        let more = self.more_follows(filled, io);
        let head_left = head.len();
        let sent = io
            .transport
            .write(&io.turn.scratch[..head_left + filled], more)?;
        Ok(self.note_head_sent(sent) as u64)
    }

    /// So many bytes were accepted, of what is left of the head first. Returns how many are the body's.
    fn note_head_sent(&mut self, sent: usize) -> usize {
        let of_head = sent.min(self.head.len() - self.head_sent);
        self.head_sent += of_head;
        sent - of_head
    }

    /// Copies what comes next of the body, and of several pieces as many as fit, so that no short one
    /// makes a packet of its own. What is long enough for sendfile is left to it, unless it comes first.
    fn fill<T: Transport>(&self, into: &mut [u8], transport: &mut T) -> Result<usize, SendError> {
        let mut filled = 0;
        while filled < into.len() {
            let into = &mut into[filled..];
            let at = self.response.offset + filled as u64;
            let (segment, copied) = match segment_at(&self.body, self.piece.as_deref(), at) {
                Segment::Piece { .. } if filled > 0 => break,
                Segment::Piece { of, start, length } => {
                    return Err(SendError::unmade(of, start, length));
                }
                Segment::Bytes([]) => break,
                Segment::Bytes(bytes) => {
                    let count = bytes.len().min(into.len());
                    into[..count].copy_from_slice(&bytes[..count]);
                    (bytes.len() as u64, count)
                }
                Segment::File { length, .. } if filled > 0 && length > COPIED_PART_BYTES_MAX => {
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
                    match self.source.read(
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

    /// Whether the kernel may hold back the last of so many bytes: when they are accepted the connection
    /// closes in this step, or another piece of the body or another request is at hand.
    fn more_follows<T: Transport, P>(&self, bytes: usize, io: &StepIo<'_, '_, T, P>) -> bool {
        let is_last = self.response.offset + bytes as u64 == self.response.body_len;
        if !is_last {
            self.has_parts()
        } else if self.keep_alive {
            !io.turn.draining && !self.leftover.read.is_empty()
        } else {
            self.on_the_wire(None, io) == OnTheWire::Close
        }
    }

    /// Before the last bytes of a reply that took more than one turn, or of a file that is a piece of it:
    /// were those before them overwritten meanwhile? A fault in asking shows in the reading itself.
    fn was_overwritten(&self, until: u64) -> bool {
        if self.progress.is_first_step() {
            return false;
        }
        let offset = self.response.offset;
        let (file, end) = match segment_at(&self.body, self.piece.as_deref(), offset) {
            Segment::File { file, length, .. } if self.piece.is_some() => {
                (&**file, offset + length)
            }
            _ => match self.body.file() {
                Some(file) => (file, self.response.body_len),
                None => return false,
            },
        };
        let is_overwritten = || match (&self.source, file.fs_class()) {
            (BodySource::Fetched(_, kept), _) => file.version().is_overwritten_in(&kept.version),
            // Asking may wait; a disk thread asks when it has read those bytes.
            (_, FsClass::Remote) => false,
            _ => file.is_overwritten().unwrap_or_default(),
        };
        let overwritten = until >= end && is_overwritten();
        if overwritten {
            self.warn(&"changed while it was sent");
        }
        overwritten
    }

    /// Stops before the end. `fast_reader`: it stopped for its budget alone.
    fn pause<T, P>(&mut self, fast_reader: bool, io: &mut StepIo<'_, '_, T, P>) {
        let next_check = self
            .progress
            .pause(fast_reader, io.turn.now, io.timeouts.stall);
        io.turn.deadline = Some(next_check);
        let offset = self.response.offset;
        let next = match segment_at(&self.body, self.piece.as_deref(), offset) {
            Segment::File { start, .. } => Some(start),
            Segment::Bytes(_) | Segment::Piece { .. } => None,
        };
        self.source.pause(next);
        if let Some(piece) = self.piece.take()
            && let Segment::Piece { start, .. } = self.body.segment(offset)
        {
            self.piece = piece.keep_from(start).map(Box::new);
        }
    }

    /// What the peer has acknowledged.
    fn acked<T: Transport, P>(&self, io: &mut StepIo<'_, '_, T, P>) -> Acked {
        let sent = self.sent();
        Acked {
            bytes: io.transport.acked_bytes(sent),
            of: sent,
            at: io.turn.now,
        }
    }

    fn check_stall<T: Transport, P>(&mut self, io: &mut StepIo<'_, '_, T, P>) -> Step<AfterReply> {
        let Some(next_check) = self.progress.check(self.acked(io), io.timeouts) else {
            return Stay(Action::Reset(Reason::Stalled));
        };
        io.turn.deadline = Some(next_check);
        if self.progress.is_fast_reader() {
            // It is its turn.
            self.send(io)
        } else {
            Stay(Action::Wait)
        }
    }

    /// Whether its place is the peer's no more if others need it.
    pub(super) fn is_slow(&self) -> bool {
        self.progress.is_slow() && !self.awaits_task()
    }

    /// Others need its place: it goes, unless its peer has taken enough since the last look.
    fn make_room<T: Transport, P>(&mut self, io: &mut StepIo<'_, '_, T, P>) -> Action {
        if !self.is_slow() || self.progress.has_caught_up(self.acked(io), io.timeouts) {
            Action::Wait
        } else {
            Action::Reset(Reason::Evicted)
        }
    }

    /// All bytes are accepted. Unread input would turn the close into a reset that eats them.
    fn finish<T: Transport, P>(&mut self, io: &mut StepIo<'_, '_, T, P>) -> Step<AfterReply> {
        if self.keep_alive && !io.turn.draining {
            return self.read_on(io);
        }
        let close = Action::Close(self.response.reason());
        if self.on_the_wire(None, io) == OnTheWire::Close {
            return Stay(close);
        }
        let (look, discarded) = match self.look_once(io) {
            Ok(0) => (Look::Fin, 0),
            Ok(n) if matches!(&io.turn.scratch[..n], b"\n" | b"\r\n") => (Look::Terminator, n),
            Ok(n) => (Look::Bytes, n),
            Err(error) if error.kind() == ErrorKind::WouldBlock => (Look::Empty, 0),
            Err(error) => return Stay(Action::Close(blame(&error))),
        };
        if self.on_the_wire(Some(look), io) == OnTheWire::Close {
            return Stay(close);
        }
        match self.linger(io, discarded as u64) {
            Ok(closing) if look == Look::Empty => {
                io.turn.deadline = Some(closing.deadline());
                EnterWaiting(AfterReply::Close(closing))
            }
            Ok(closing) => Enter(AfterReply::Close(closing)),
            Err(error) => Stay(Action::Close(blame(&error))),
        }
    }

    /// What the close table says. Whoever had to wait gave its peer the time to say more.
    fn on_the_wire<T: Transport, P>(
        &self,
        look: Option<Look>,
        io: &StepIo<'_, '_, T, P>,
    ) -> OnTheWire {
        let extra = match self.leftover.extra {
            Extra::Nothing if !self.progress.is_first_step() => Extra::Possible,
            extra => extra,
        };
        let awaits_fin = io.turn.draining || io.transport.is_encrypted();
        close_table(self.ended_by, extra, awaits_fin, look)
    }

    /// The connection is kept alive. While the reply waited, the edge of what came was ignored.
    fn read_on<T, P>(&mut self, io: &mut StepIo<'_, '_, T, P>) -> Step<AfterReply> {
        let sent = self.sent();
        let response = self.take_response();
        io.finished.push(response);
        let pending = std::mem::take(&mut self.leftover.read);
        let input = if !pending.is_empty() {
            NextInput::Pending
        } else if self.leftover.is_drained && self.progress.is_first_step() {
            NextInput::Awaited
        } else {
            NextInput::Queued
        };
        let at = io.turn.now;
        let timeout = if pending.is_empty() {
            io.timeouts.keep_alive
        } else {
            io.timeouts.request
        };
        let expires = at + timeout;
        io.turn.deadline = Some(expires);
        Enter(AfterReply::ReadOn(KeptAlive {
            pending,
            input,
            sent,
            at,
            expires,
        }))
    }

    /// The bytes of all replies that the kernel has accepted.
    fn sent(&self) -> u64 {
        self.sent_before + self.head_sent as u64 + self.response.offset
    }

    fn take_response(&mut self) -> Response {
        Response {
            target: std::mem::take(&mut self.response.target),
            http_log: self.response.http_log.take(),
            ..self.response
        }
    }

    /// The one read before a close, unless the answer is known.
    fn look_once<T: Transport, P>(&self, io: &mut StepIo<'_, '_, T, P>) -> io::Result<usize> {
        if self.found_empty() {
            Err(ErrorKind::WouldBlock.into())
        } else {
            io.transport.read(io.turn.scratch)
        }
    }

    /// Whether a read would have blocked in this turn. An edge will come.
    fn found_empty(&self) -> bool {
        self.leftover.is_empty && self.progress.is_first_step()
    }

    /// Shuts the write side; `discarded` bytes of input were thrown away already.
    fn linger<T: Transport, P>(
        &mut self,
        io: &mut StepIo<'_, '_, T, P>,
        discarded: u64,
    ) -> io::Result<Closing> {
        io.transport.shutdown_write()?;
        let sent = self.sent();
        let is_body = self.ended_by == RequestEnd::Unread;
        let response = self.take_response();
        let discarded = self.discarded + discarded;
        Ok(Closing::new(response, sent, (discarded, is_body), io))
    }

    fn warn(&self, what: &dyn std::fmt::Display) {
        let Response {
            target,
            offset,
            body_len,
            ..
        } = &self.response;
        log::warn!(
            "\"{}\" {what} ({offset} of {body_len} bytes sent)",
            Excerpt::of_request(target)
        );
    }
}

/// What follows an offset of a body, made already if this piece has it.
fn segment_at<'a>(body: &'a Body, piece: Option<&'a Piece>, offset: u64) -> Segment<'a> {
    let segment = body.segment(offset);
    let Segment::Piece { start, length, .. } = segment else {
        return segment;
    };
    let made = piece.and_then(|piece| piece.segment(start, length));
    made.unwrap_or(segment)
}
