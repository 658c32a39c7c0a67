//! One connection: `ReadingName` -> `Sending(offset)` -> `Closing`. It knows a transport and a
//! service; no poll, no slab, no clock. Each state is a struct with what only that state needs.
//!
//! The steps of a state say what should happen (`Step`); [`Conn::step`] alone makes it happen.
//! On entering a state its first attempt is made at once: waiting comes after WouldBlock only.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use crate::escape::Escaped;
use crate::limits::{
    COPIED_BODY_BYTES_MAX, LINGER_BYTES_MAX, LINGER_IDLE, LINGER_TOTAL, SENDFILE_PIECE_BYTES,
    TURN_BYTES_MAX,
};
use crate::service::{Body, Moment, OpenFile, Outcome, Reply, Request, RequestEnd};
use crate::service::{Service, Verdict};
use crate::stats::Reason;
use crate::transport::{SendFileError, Transport};
use crate::turn::{Next, Turn, Why};

/// How long a connection may take, as the flags say.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From accept to the end of the request; absolute.
    pub request: Duration,
    /// Without an acknowledgement while sending.
    pub stall: Duration,
}

/// What a step works with.
#[derive(Debug)]
pub struct Env<'a, 't, T, S> {
    /// The socket.
    pub transport: &'a mut T,
    /// What is served.
    pub service: &'a mut S,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// The time, the scratch buffer and the deadline.
    pub turn: &'a mut Turn<'t>,
}

/// One client.
#[derive(Debug)]
pub struct Conn {
    state: State,
    guard: Guard,
}

/// What the sudden death of the process does to the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guard {
    /// A close in order.
    Off,
    /// A reset: whoever waits for an answer, or for the rest of one, must see an error.
    On,
}

#[derive(Debug)]
enum State {
    ReadingName(Reading),
    Sending(Sending),
    Closing(Closing),
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            Self::ReadingName(_) => "ReadingName",
            Self::Sending(_) => "Sending",
            Self::Closing(_) => "Closing",
        }
    }
}

/// What one step of a state asks the driver for.
enum Step {
    Stay(Next),
    Enter(State),
    /// Enter a state whose first attempt was made already, and would block.
    EnterWaiting(State),
}

use Step::{Enter, EnterWaiting, Stay};

impl Conn {
    /// A connection accepted just now, which has until `expires` to name a file.
    #[must_use]
    pub fn new(expires: Instant) -> Self {
        let (pending, guesses, wait) = (Vec::new(), 0, Wait::ForBytes);
        let reading = Reading {
            pending,
            guesses,
            expires,
            wait,
        };
        Self {
            state: State::ReadingName(reading),
            guard: Guard::Off,
        }
    }

    /// The driver: steps the state until it has to wait or ends.
    pub fn step<T: Transport, S: Service>(
        &mut self,
        env: &mut Env<'_, '_, T, S>,
        mut why: Why,
    ) -> Next {
        loop {
            let step = match &mut self.state {
                State::ReadingName(reading) => reading.step(env, why),
                State::Sending(sending) => sending.step(env, why),
                State::Closing(closing) => closing.step(env, why),
            };
            let next = match step {
                Stay(next) => Some(next),
                EnterWaiting(state) => {
                    self.enter(state);
                    Some(Next::Wait)
                }
                Enter(state) => {
                    self.enter(state);
                    None
                }
            };
            self.set_guard(env.transport, next);
            if let Some(next) = next {
                return next;
            }
            why = Why::Start;
        }
    }

    /// Sets the guard for what comes now: `next`, or the first attempt of a state just entered.
    /// What is over in one step is never guarded, unless sendfile can be cut within its step.
    fn set_guard<T: Transport>(&mut self, transport: &mut T, next: Option<Next>) {
        let is_owed = match (&self.state, next) {
            (_, Some(Next::Close(_))) | (State::Closing(_), _) => false,
            (State::Sending(sending), None) => {
                self.guard == Guard::On || sending.delivery.promised > SENDFILE_PIECE_BYTES
            }
            _ => true,
        };
        let guard = if is_owed { Guard::On } else { Guard::Off };
        if guard != self.guard {
            transport.reset_on_close(guard == Guard::On);
            self.guard = guard;
        }
    }

    /// The setter: the only place where the state changes.
    fn enter(&mut self, state: State) {
        log::trace!("{} -> {}", self.state.name(), state.name());
        assert!(
            matches!(
                (&self.state, &state),
                (State::ReadingName(_), State::Sending(_)) | (State::Sending(_), State::Closing(_))
            ),
            "no such arrow in the state machine"
        );
        self.state = state;
    }

    /// What was asked for, as far as it came; bytes from the peer.
    #[must_use]
    pub fn subject(&self) -> &[u8] {
        match &self.state {
            State::ReadingName(reading) => &reading.pending,
            State::Sending(Sending { delivery, .. }) | State::Closing(Closing { delivery, .. }) => {
                &delivery.subject
            }
        }
    }

    /// What is or was sent, once a request was answered.
    #[must_use]
    pub fn delivery(&self) -> Option<&Delivery> {
        match &self.state {
            State::ReadingName(_) => None,
            State::Sending(Sending { delivery, .. }) | State::Closing(Closing { delivery, .. }) => {
                Some(delivery)
            }
        }
    }
}

/// What became of a reply.
#[derive(Debug)]
pub struct Delivery {
    /// What was asked for; bytes from the peer.
    pub subject: Box<[u8]>,
    /// The body's bytes that the kernel has accepted.
    pub offset: u64,
    /// The body's length.
    pub promised: u64,
    /// How it ends if nothing goes wrong.
    pub outcome: Outcome,
}

// ---- ReadingName ----

#[derive(Debug)]
struct Reading {
    /// The incomplete request. Empty, and without a heap block, while the client is silent.
    pending: Vec<u8>,
    guesses: u8,
    expires: Instant,
    wait: Wait,
}

#[derive(Debug)]
enum Wait {
    ForBytes,
    /// There was no descriptor to try the bytes; `moment` is when that was.
    ForDescriptor {
        moment: Moment,
        until: Instant,
    },
}

impl Reading {
    fn step<T: Transport, S: Service>(&mut self, env: &mut Env<'_, '_, T, S>, why: Why) -> Step {
        match (&self.wait, why) {
            (Wait::ForBytes, Why::Stop(_)) => Stay(Next::Close(Reason::RequestTimeout)),
            (Wait::ForBytes, Why::Ready(edge)) if !(edge.readable || edge.dead) => Stay(Next::Wait),
            (Wait::ForBytes, _) => self.read(env, why),
            (Wait::ForDescriptor { .. }, Why::Stop(reason)) => Stay(Next::Reset(reason)),
            (Wait::ForDescriptor { .. }, Why::Ready(_)) => Stay(Next::Close(Reason::PeerReset)),
            (&Wait::ForDescriptor { moment, .. }, _) => match self.ask(env, 0, moment) {
                // A guess that was wrong. No edge is remembered while parked, so what came
                // meanwhile is read now.
                Stay(Next::Wait) => {
                    self.wait = Wait::ForBytes;
                    self.read(env, Why::Again)
                }
                decided => decided,
            },
        }
    }

    /// Reads until the queue is empty or the service has heard enough. A deadline, too, counts
    /// only after a look at the queue: after a pause of the whole process, it may have passed
    /// while the request lay there.
    fn read<T: Transport, S: Service>(&mut self, env: &mut Env<'_, '_, T, S>, why: Why) -> Step {
        if why == Why::Start {
            env.turn.deadline = Some(self.expires);
        }
        // A read that doesn't fill the buffer has emptied the queue. What comes later makes a new
        // edge, unless the FIN was part of this one. (Urgent data ends a read early, too; who
        // sends it waits for the deadline's look.)
        let short_read_drains = match why {
            Why::Start => true,
            Why::Ready(edge) => !edge.read_closed && !edge.dead,
            _ => false,
        };
        let mut unasked = false;
        loop {
            let fresh = match env.transport.read(env.turn.scratch) {
                Ok(0) if self.pending.is_empty() => return Stay(Next::Close(Reason::ClientLeft)),
                Ok(0) => return self.ask(env, 0, Moment::Ended),
                Ok(n) if n < env.turn.scratch.len() && short_read_drains => {
                    return self.ask(env, n, Moment::Drained);
                }
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return self.drained(env, why, unasked);
                }
                Err(error) => return Stay(Next::Reset(blame(&error))),
            };
            match self.ask(env, fresh, Moment::Arrived) {
                Stay(Next::Wait) => unasked = true,
                decided => return decided,
            }
        }
    }

    /// The queue is empty. `unasked`: there are bytes about which the service was not asked since.
    fn drained<T, S: Service>(
        &mut self,
        env: &mut Env<'_, '_, T, S>,
        why: Why,
        unasked: bool,
    ) -> Step {
        let step = match why {
            _ if unasked => self.ask(env, 0, Moment::Drained),
            Why::Deadline if env.turn.now < self.expires => self.ask(env, 0, Moment::Quiet),
            _ => Stay(Next::Wait),
        };
        match step {
            Stay(Next::Wait) if why == Why::Deadline && env.turn.now >= self.expires => {
                Stay(Next::Close(Reason::RequestTimeout))
            }
            step => step,
        }
    }

    /// Puts the pending bytes and `fresh` more from the scratch buffer to the service.
    fn ask<T, S: Service>(
        &mut self,
        env: &mut Env<'_, '_, T, S>,
        fresh: usize,
        moment: Moment,
    ) -> Step {
        let fresh = &env.turn.scratch[..fresh];
        let copied = !self.pending.is_empty();
        if copied {
            self.pending.extend_from_slice(fresh);
        }
        let bytes = if copied { &self.pending } else { fresh };
        let request = Request {
            bytes,
            moment,
            guesses: self.guesses,
        };
        let verdict = env.service.judge(&request);
        if let Verdict::Reply(reply) = verdict {
            let rest = match (&self.wait, fresh.is_empty(), moment) {
                (Wait::ForDescriptor { .. }, _, _) => Rest::Some,
                _ if bytes.len() > reply.used => Rest::Some,
                (_, true, Moment::Drained | Moment::Quiet) => Rest::Empty,
                _ => Rest::Unknown,
            };
            return Enter(State::Sending(Sending::new(reply, rest)));
        }
        if !copied {
            self.pending.extend_from_slice(fresh);
        }
        Stay(match verdict {
            Verdict::NeedMore { .. } if moment == Moment::Ended => Next::Close(Reason::ClientLeft),
            Verdict::NeedMore { guessed, quiet } => {
                self.guesses += u8::from(guessed);
                let silence = quiet.map_or(self.expires, |quiet| env.turn.now + quiet);
                env.turn.deadline = Some(self.expires.min(silence));
                Next::Wait
            }
            Verdict::Later => self.park(env, moment),
            Verdict::Abandon(reason) => Next::Reset(reason),
            Verdict::Reply(_) => unreachable!("returned above"),
        })
    }

    /// Waits for a descriptor, and not for the client: the request's timeout doesn't count.
    fn park<T, S>(&mut self, env: &mut Env<'_, '_, T, S>, moment: Moment) -> Next {
        let now = env.turn.now;
        let until = match self.wait {
            Wait::ForDescriptor { until, .. } => until,
            Wait::ForBytes => now + env.timeouts.stall,
        };
        if now >= until {
            let (name, stall) = (Escaped(&self.pending), env.timeouts.stall);
            log::warn!("no descriptor for \"{name}\" within {stall:?}");
            return Next::Reset(Reason::NoDescriptor);
        }
        self.wait = Wait::ForDescriptor { moment, until };
        env.turn.deadline = Some(until);
        Next::Park
    }
}

// ---- Sending ----

#[derive(Debug)]
struct Sending {
    delivery: Delivery,
    body: Body,
    ended_by: RequestEnd,
    rest: Rest,
    /// How the reply has gone so far.
    pace: Pace,
}

/// What is known, when a request is answered, of the input after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// The request's last read brought nothing more.
    Unknown,
    /// There is more, or it had the time to come.
    Some,
    /// The receive queue was found empty in this very step.
    Empty,
}

#[derive(Debug)]
enum Pace {
    /// All in the turn in which the request was answered.
    FirstTurn,
    /// It had to wait. `acked` is what the peer had acknowledged when that was last looked at.
    Resumed { acked: u64 },
}

/// Why no more of a body could be sent.
enum SendError {
    WouldBlock,
    Socket(io::Error),
    File(io::Error),
    FileEnded,
}

impl From<io::Error> for SendError {
    /// An error of the socket.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::WouldBlock => Self::WouldBlock,
            _ => Self::Socket(error),
        }
    }
}

impl Sending {
    fn new(reply: Reply, rest: Rest) -> Self {
        let Reply {
            subject,
            body,
            outcome,
            ended_by,
            ..
        } = reply;
        let delivery = Delivery {
            subject,
            offset: 0,
            promised: body.length(),
            outcome,
        };
        Self {
            delivery,
            body,
            ended_by,
            rest,
            pace: Pace::FirstTurn,
        }
    }

    fn step<T: Transport, S>(&mut self, env: &mut Env<'_, '_, T, S>, why: Why) -> Step {
        match why {
            Why::Stop(reason) => return Stay(Next::Reset(reason)),
            Why::Deadline => return Stay(self.check_stall(env)),
            Why::Ready(edge) if !(edge.writable || edge.dead) => return Stay(Next::Wait),
            _ => {}
        }
        let budget_ends = self.delivery.offset + TURN_BYTES_MAX;
        while self.delivery.offset < self.delivery.promised {
            if self.delivery.offset >= budget_ends {
                self.pause(env);
                return Stay(Next::Again);
            }
            let until = budget_ends.min(self.delivery.promised);
            if self.was_overwritten(until) {
                return Stay(Next::Reset(Reason::FileChanged));
            }
            match self.send_until(until, env) {
                Ok(sent) => self.delivery.offset += sent,
                Err(SendError::WouldBlock) => {
                    self.pause(env);
                    return Stay(Next::Wait);
                }
                Err(SendError::Socket(error)) => return Stay(Next::Reset(blame(&error))),
                Err(SendError::File(error)) => {
                    self.warn(&format_args!("can't be read: {error}"));
                    return Stay(Next::Reset(Reason::ReadFailed));
                }
                Err(SendError::FileEnded) => {
                    self.warn(&"became shorter while it was sent");
                    return Stay(Next::Reset(Reason::FileShort));
                }
            }
        }
        self.finish(env)
    }

    /// Sends what it can of the bytes from the offset to `until`, which is beyond it.
    fn send_until<T: Transport, S>(
        &self,
        until: u64,
        env: &mut Env<'_, '_, T, S>,
    ) -> Result<u64, SendError> {
        let offset = self.delivery.offset;
        // Both fit: a turn's bytes are few.
        let count = (until - offset) as usize;
        let sent = match &self.body {
            Body::Bytes(bytes) => {
                let start = offset as usize;
                env.transport
                    .write(&bytes[start..start + count], self.closes_at_once(env.turn))?
            }
            Body::File(file) if file.length() <= COPIED_BODY_BYTES_MAX => {
                self.copy(file, count, env)?
            }
            Body::File(file) => match env.transport.send_file(file.file(), offset, count) {
                Ok(0) => return Err(SendError::FileEnded),
                Ok(sent) => sent,
                Err(SendFileError::Unsupported) => self.copy(file, count, env)?,
                Err(SendFileError::WouldBlock) => return Err(SendError::WouldBlock),
                Err(SendFileError::Socket(error)) => return Err(SendError::Socket(error)),
                Err(SendFileError::File(error)) => return Err(SendError::File(error)),
            },
        };
        Ok(sent as u64)
    }

    fn copy<T: Transport, S>(
        &self,
        file: &OpenFile,
        count: usize,
        env: &mut Env<'_, '_, T, S>,
    ) -> Result<usize, SendError> {
        let count = count.min(env.turn.scratch.len());
        let offset = self.delivery.offset;
        let filled = match file.read_at(&mut env.turn.scratch[..count], offset) {
            Ok(0) => return Err(SendError::FileEnded),
            Ok(filled) => filled,
            Err(error) => return Err(SendError::File(error)),
        };
        let completes = offset + filled as u64 == self.delivery.promised;
        let more = completes && self.closes_at_once(env.turn);
        Ok(env.transport.write(&env.turn.scratch[..filled], more)?)
    }

    /// Whether the close follows the last byte without a look at the receive queue: the request
    /// had an end, nothing came after it, and there was no time for more to come.
    fn closes_at_once(&self, turn: &Turn<'_>) -> bool {
        matches!(self.pace, Pace::FirstTurn)
            && self.ended_by != RequestEnd::Guess
            && self.rest != Rest::Some
            && !turn.draining
    }

    /// Before the last bytes of a reply that took more than one turn: were those before them
    /// overwritten meanwhile? A fault in asking shows in the reading itself.
    fn was_overwritten(&self, until: u64) -> bool {
        let (Body::File(file), Pace::Resumed { .. }) = (&self.body, &self.pace) else {
            return false;
        };
        let overwritten =
            until == self.delivery.promised && file.is_overwritten().unwrap_or_default();
        if overwritten {
            self.warn(&"changed while it was sent");
        }
        overwritten
    }

    /// Stops before the end, for the budget or for the peer.
    fn pause<T, S>(&mut self, env: &mut Env<'_, '_, T, S>) {
        if matches!(self.pace, Pace::FirstTurn) {
            self.pace = Pace::Resumed { acked: 0 };
        }
        env.turn.deadline = Some(env.turn.now + env.timeouts.stall);
    }

    /// Writable edges alone come minutes apart for an honest slow reader with a large buffer,
    /// so acknowledged bytes decide.
    fn check_stall<T: Transport, S>(&mut self, env: &mut Env<'_, '_, T, S>) -> Next {
        let acked = env.transport.acked_bytes();
        match self.pace {
            Pace::Resumed { acked: before } if before == acked => Next::Reset(Reason::Stalled),
            _ => {
                self.pace = Pace::Resumed { acked };
                env.turn.deadline = Some(env.turn.now + env.timeouts.stall);
                Next::Wait
            }
        }
    }

    /// All bytes are accepted. Unread input would turn the close into a reset that eats them.
    fn finish<T: Transport, S>(&mut self, env: &mut Env<'_, '_, T, S>) -> Step {
        let close = Stay(Next::Close(self.delivery.outcome.reason()));
        if self.closes_at_once(env.turn) {
            return close;
        }
        let guessed = self.ended_by == RequestEnd::Guess;
        let draining = env.turn.draining;
        match self.look(env) {
            Ok(0) => close,
            Ok(n) if guessed && !draining && is_terminator(&env.turn.scratch[..n]) => close,
            Ok(n) => match self.linger(env, n as u64) {
                Ok(closing) => Enter(State::Closing(closing)),
                Err(error) => Stay(Next::Close(blame(&error))),
            },
            Err(error) if error.kind() != ErrorKind::WouldBlock => Stay(Next::Close(blame(&error))),
            Err(_) if !guessed && self.rest != Rest::Some && !draining => close,
            Err(_) => match self.linger(env, 0) {
                Ok(closing) => {
                    env.turn.deadline = Some(closing.deadline());
                    EnterWaiting(State::Closing(closing))
                }
                Err(error) => Stay(Next::Close(blame(&error))),
            },
        }
    }

    /// The one read before a close, unless the answer is known.
    fn look<T: Transport, S>(&self, env: &mut Env<'_, '_, T, S>) -> io::Result<usize> {
        match (self.rest, &self.pace) {
            (Rest::Empty, Pace::FirstTurn) => Err(ErrorKind::WouldBlock.into()),
            _ => env.transport.read(env.turn.scratch),
        }
    }

    /// Shuts the write side; `discarded` bytes of input were thrown away already.
    fn linger<T: Transport, S>(
        &mut self,
        env: &mut Env<'_, '_, T, S>,
        discarded: u64,
    ) -> io::Result<Closing> {
        env.transport.shutdown_write()?;
        let nothing = Delivery {
            subject: Box::default(),
            ..self.delivery
        };
        let delivery = std::mem::replace(&mut self.delivery, nothing);
        let (idle_ends, total_ends) = (env.turn.now + LINGER_IDLE, env.turn.now + LINGER_TOTAL);
        let acked = env.transport.acked_bytes();
        Ok(Closing {
            delivery,
            discarded,
            idle_ends,
            total_ends,
            acked,
        })
    }

    fn warn(&self, what: &dyn std::fmt::Display) {
        let Delivery {
            subject,
            offset,
            promised,
            ..
        } = &self.delivery;
        log::warn!(
            "\"{}\" {what} ({offset} of {promised} bytes sent)",
            Escaped(subject)
        );
    }
}

/// The end of a line that a guessed name didn't wait for.
fn is_terminator(bytes: &[u8]) -> bool {
    matches!(bytes, b"\n" | b"\r\n")
}

/// Whose fault an error of the socket is: the peer's or the network's, or else ours.
fn blame(error: &io::Error) -> Reason {
    let is_peers = matches!(
        error.kind(),
        ErrorKind::BrokenPipe
            | ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NotConnected
            | ErrorKind::TimedOut
    );
    if is_peers {
        log::debug!("the connection broke: {error}");
        Reason::PeerReset
    } else {
        log::warn!("a socket failed: {error}");
        Reason::SendFailed
    }
}

// ---- Closing ----

/// The write side is shut; input is read and thrown away until the peer's FIN, so that no reset
/// overtakes the last bytes (RFC 9112, 9.6, tells the story).
#[derive(Debug)]
struct Closing {
    delivery: Delivery,
    discarded: u64,
    idle_ends: Instant,
    total_ends: Instant,
    acked: u64,
}

impl Closing {
    fn step<T: Transport, S>(&mut self, env: &mut Env<'_, '_, T, S>, why: Why) -> Step {
        let close = Stay(Next::Close(self.delivery.outcome.reason()));
        match why {
            Why::Stop(_) => return close,
            Why::Deadline => self.wind_clocks(env),
            Why::Ready(edge) if !(edge.readable || edge.dead) => return Stay(Next::Wait),
            _ => {}
        }
        let budget_ends = self.discarded + TURN_BYTES_MAX;
        while self.discarded < budget_ends {
            match env.transport.read(env.turn.scratch) {
                Ok(0) => return close,
                Ok(n) => {
                    self.discarded += n as u64;
                    self.idle_ends = env.turn.now + LINGER_IDLE;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    env.turn.deadline = Some(self.deadline());
                    let is_over = self.deadline() <= env.turn.now;
                    return if is_over { close } else { Stay(Next::Wait) };
                }
                Err(error) => return Stay(Next::Close(blame(&error))),
            }
            if self.discarded > LINGER_BYTES_MAX {
                return close;
            }
        }
        env.turn.deadline = Some(self.deadline());
        Stay(Next::Again)
    }

    fn deadline(&self) -> Instant {
        self.idle_ends.min(self.total_ends)
    }

    /// Both clocks stand while the peer goes on acknowledging: it is still taking what was sent.
    /// Our FIN counts for a byte, and its acknowledgement for nothing. A server that stops waits
    /// until the peer has everything: the process's end may take the network's with it.
    fn wind_clocks<T: Transport, S>(&mut self, env: &mut Env<'_, '_, T, S>) {
        let before = std::mem::replace(&mut self.acked, env.transport.acked_bytes());
        let has_all = self.acked > self.delivery.promised;
        if self.acked > before + 1 || (env.turn.draining && !has_all) {
            self.idle_ends = env.turn.now + LINGER_IDLE;
            self.total_ends = env.turn.now + LINGER_TOTAL;
        }
    }
}
