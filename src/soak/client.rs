//! One client: connects, sends its request in the manner of its kind, and checks what comes.

mod body;
mod channel;

use std::io::{self, ErrorKind};
use std::time::Instant;

use mio::net::TcpStream;

use super::in_flight::{InFlight, RequestEnd};
use super::ledger::{Ledger, Phase};
use super::outcome::Class;
use super::plan::TargetProtocol;
use super::population::ClientKind;
use crate::http::response::{Framing, Head, parse_head};
use crate::limits::{SOAK_PACE, SOAK_READS_MAX};
use crate::reactor::event::{Action, Event, StepContext};
use crate::telemetry::Reason;

use crate::tls::client::Refusal;
use body::BodyReader;
use channel::Channel;

/// Stands for no client of the closed model.
pub(super) const NO_CLIENT: u32 = u32::MAX;

/// A connection and the request on it.
pub(super) struct Client {
    /// Which of the closed model's clients it is, or [`NO_CLIENT`].
    pub(super) id: u32,
    /// Which of two servers it is connected to.
    pub(super) side: usize,
    /// It could not connect.
    pub(super) connect_failed: bool,
    /// What it carries; after its end, what another connection must carry.
    pub(super) request: Option<InFlight>,
    state: ClientState,
    channel: Channel,
    /// It has carried a request before.
    is_reused: bool,
    /// When a byte last went or came, or the connection was set up.
    last_progress: Instant,
}

/// What a step works on.
struct Step<'s, 'p, 't> {
    request: &'s mut InFlight,
    socket: &'s mut TcpStream,
    ledger: &'s mut Ledger<'p>,
    turn: &'s mut StepContext<'t>,
}

enum ClientState {
    Connecting,
    /// TLS is set up.
    Handshaking,
    /// So many bytes of the request are sent; the next piece follows then.
    Sending {
        at: usize,
        resume: Option<Instant>,
    },
    /// An HTTP answer's head, as far as it came.
    Head(Vec<u8>),
    Body(BodyReader),
    /// Says nothing, and waits for the server to close.
    Silent,
    /// Kept alive, without a request.
    Idle,
}

impl ClientState {
    const SENDING: Self = Self::Sending {
        at: 0,
        resume: None,
    };

    fn phase(&self) -> Phase {
        match self {
            Self::Connecting | Self::Handshaking => Phase::Connecting,
            Self::Sending { .. } | Self::Head(_) => Phase::Waiting,
            Self::Body(_) => Phase::Receiving,
            Self::Silent | Self::Idle => Phase::Idle,
        }
    }
}

impl Client {
    /// A client whose connect has begun.
    pub(super) fn new(id: u32, request: InFlight, ledger: &mut Ledger<'_>) -> Self {
        ledger.enter(None, Some(Phase::Connecting));
        Self {
            id,
            side: request.choice.side,
            connect_failed: false,
            state: ClientState::Connecting,
            channel: Channel::Plain,
            is_reused: false,
            last_progress: request.started,
            request: Some(request),
        }
    }

    /// The connection has ended.
    pub(super) fn leave(&self, ledger: &mut Ledger<'_>) {
        ledger.enter(Some(self.state.phase()), None);
    }

    fn enter(&mut self, state: ClientState, ledger: &mut Ledger<'_>) {
        ledger.enter(Some(self.state.phase()), Some(state.phase()));
        self.state = state;
    }

    /// An idle connection takes a request. False if it can't carry it: the server may have closed it,
    /// as it may at any time (RFC 9112, 9.3.1).
    pub(super) fn begin(
        &mut self,
        request: InFlight,
        socket: &mut TcpStream,
        ledger: &mut Ledger<'_>,
    ) -> bool {
        self.request = Some(request);
        self.is_reused = true;
        let is_open = self.channel.is_quiet(socket, &mut ledger.tls_buffers);
        if is_open {
            self.last_progress = Instant::now();
            self.enter(ClientState::SENDING, ledger);
        }
        is_open
    }

    /// Goes on as far as it can. `None`: the request has ended, and the connection is idle.
    pub(super) fn step(
        &mut self,
        socket: &mut TcpStream,
        event: Event,
        ledger: &mut Ledger<'_>,
        turn: &mut StepContext<'_>,
    ) -> Option<Action> {
        let mut request = self.request.take()?;
        let before = self.last_progress;
        let advanced = self.advance(&mut Step {
            request: &mut request,
            socket: &mut *socket,
            ledger: &mut *ledger,
            turn,
        });
        let end = match advanced {
            Ok(Action::Wait) if self.is_late(event, before, ledger) => {
                let timeout = ledger.plan.timeout;
                let progress = self.progress(&request);
                RequestEnd::new(
                    Class::Timeout,
                    format!("nothing came for {timeout:?}{progress}"),
                )
            }
            Ok(action) => {
                self.request = Some(request);
                return Some(action);
            }
            Err(end) if self.is_reused && end.is_unanswered && !request.has_answer => {
                // The server may have closed the connection while the request was on its way, and a GET
                // may be sent again: RFC 9110, 9.2.2, and RFC 9112, 9.3.1. It goes to a new connection, once.
                ledger.ask_again(&mut request);
                self.request = Some(request);
                return Some(Action::Close(Reason::ClientLeft));
            }
            Err(end) => end,
        };
        self.end(request, end, socket, ledger)
    }

    fn is_late(&self, event: Event, before: Instant, ledger: &Ledger<'_>) -> bool {
        event == Event::Deadline
            && !matches!(self.state, ClientState::Silent)
            && self.last_progress == before
            && before.elapsed() >= ledger.plan.timeout
    }

    fn progress(&self, request: &InFlight) -> String {
        match &self.state {
            ClientState::Connecting => " while connecting".into(),
            ClientState::Handshaking => " in the TLS handshake".into(),
            ClientState::Body(_) => format!(" after {} bytes", request.received),
            _ => " before the first byte".into(),
        }
    }

    /// Counts the end of a request, and says what becomes of the connection; `None` if it is kept
    /// alive.
    fn end(
        &mut self,
        request: InFlight,
        end: RequestEnd,
        socket: &TcpStream,
        ledger: &mut Ledger<'_>,
    ) -> Option<Action> {
        self.connect_failed = matches!(
            self.state,
            ClientState::Connecting | ClientState::Handshaking
        );
        let by_reset = request.abort_at().is_some_and(|(_, by_reset)| by_reset);
        let may_be_kept = match request.choice.kind {
            ClientKind::HalfClose => false,
            // The open model's next request may be of another kind, which would have this small buffer.
            ClientKind::Slow => self.id != NO_CLIENT,
            _ => true,
        };
        ledger.finish(request, end.class, || match socket.local_addr() {
            Ok(address) => format!("{} ({address})", end.what),
            Err(_) => end.what.into_owned(),
        });
        match end.class {
            _ if end.reusable && may_be_kept => {
                self.enter(ClientState::Idle, ledger);
                None
            }
            Class::Complete | Class::IdleClosed => Some(Action::Close(Reason::Complete)),
            Class::Aborted if !by_reset => Some(Action::Close(Reason::ClientLeft)),
            _ => Some(Action::Reset(Reason::ClientLeft)),
        }
    }

    /// One state after the other, until one has to wait.
    fn advance(&mut self, step: &mut Step<'_, '_, '_>) -> Result<Action, RequestEnd> {
        loop {
            let action = match &mut self.state {
                ClientState::Connecting => self.connect(step)?,
                ClientState::Handshaking => self.shake_hands(step)?,
                ClientState::Sending { .. } => self.send(step)?,
                _ => Some(self.receive(step)?),
            };
            let Some(action) = action else { continue };
            let turn = &mut *step.turn;
            if action == Action::Wait && turn.deadline.is_none_or(|at| at <= turn.now) {
                turn.deadline = self.timeout_at(step.ledger);
            }
            return Ok(action);
        }
    }

    /// When the request has waited for too long. A silent client waits for ever.
    fn timeout_at(&self, ledger: &Ledger<'_>) -> Option<Instant> {
        let waits = !matches!(self.state, ClientState::Silent);
        waits.then(|| self.last_progress + ledger.plan.timeout)
    }

    fn connect(&mut self, step: &mut Step<'_, '_, '_>) -> Result<Option<Action>, RequestEnd> {
        let failed = |error: io::Error| RequestEnd::new(connect_class(&error), error.to_string());
        match step.socket.peer_addr() {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotConnected => {
                return match step.socket.take_error() {
                    Ok(None) => Ok(Some(Action::Wait)),
                    Ok(Some(error)) | Err(error) => Err(failed(error)),
                };
            }
            Err(error) => return Err(failed(error)),
        }
        self.last_progress = Instant::now();
        let took = self.last_progress - step.request.started;
        step.ledger.tally.connect.record(took);
        if let Some(target) = step.ledger.plan.tls(self.side) {
            self.channel = Channel::tls(target).map_err(|error| tls_failed(&error))?;
            self.enter(ClientState::Handshaking, step.ledger);
        } else {
            self.connected(step);
        }
        Ok(None)
    }

    fn shake_hands(&mut self, step: &mut Step<'_, '_, '_>) -> Result<Option<Action>, RequestEnd> {
        let buffers = &mut step.ledger.tls_buffers;
        let is_resumed = match self.channel.shake_hands(step.socket, buffers) {
            Ok(is_resumed) => is_resumed,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Some(Action::Wait)),
            Err(error) => return Err(tls_failed(&error)),
        };
        let began = std::mem::replace(&mut self.last_progress, Instant::now());
        let tally = &mut step.ledger.tally;
        tally.handshake.record(self.last_progress - began);
        tally.resumed += u64::from(is_resumed);
        self.connected(step);
        Ok(None)
    }

    /// The connection is there: what its kind does first.
    fn connected(&mut self, step: &mut Step<'_, '_, '_>) {
        let state = if step.request.choice.kind == ClientKind::Idle {
            ClientState::Silent
        } else {
            ClientState::SENDING
        };
        self.enter(state, step.ledger);
    }

    fn send(&mut self, step: &mut Step<'_, '_, '_>) -> Result<Option<Action>, RequestEnd> {
        let ClientState::Sending { at, resume } = &mut self.state else {
            return Ok(None);
        };
        let turn = &mut *step.turn;
        if let Some(resume) = *resume
            && resume > turn.now
        {
            turn.deadline = Some(resume);
            return Ok(Some(Action::Wait));
        }
        let plan = step.ledger.plan;
        let choice = step.request.choice;
        let bytes = &plan.request(choice).bytes;
        while *at < bytes.len() {
            let piece_ends = match choice.kind {
                ClientKind::Split => piece_ends(*at, bytes.len(), choice.variate),
                _ => bytes.len(),
            };
            // Before the write: its answer may be there when it returns.
            self.last_progress = Instant::now();
            let piece = &bytes[*at..piece_ends];
            let buffers = &mut step.ledger.tls_buffers;
            match self.channel.write(step.socket, piece, buffers) {
                Ok(count) => *at += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(Some(Action::Wait));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    let what = format!("sending: {error}");
                    return Err(RequestEnd::new(Class::ResetBefore, what).unanswered());
                }
            }
            if *at == piece_ends && *at < bytes.len() {
                *resume = Some(turn.now + plan.split_pause);
                turn.deadline = *resume;
                return Ok(Some(Action::Wait));
            }
        }
        turn.deadline = None;
        self.request_sent(step)
    }

    /// The whole request is with the kernel.
    fn request_sent(&mut self, step: &mut Step<'_, '_, '_>) -> Result<Option<Action>, RequestEnd> {
        if step.request.choice.kind == ClientKind::HalfClose {
            // If the connection has broken, the read says so.
            let _ = self.channel.shutdown_write(step.socket);
        }
        step.request.sent = Some(self.last_progress);
        if step.request.counts_time() {
            step.ledger.tally.wait_begins(self.last_progress);
        }
        if let Some((0, _)) = step.request.abort_at() {
            return Err(RequestEnd::new(Class::Aborted, ""));
        }
        let state = match step.ledger.plan.protocol {
            TargetProtocol::Bare => ClientState::Body(BodyReader::new(Framing::UntilClose, false)),
            TargetProtocol::Http { .. } => ClientState::Head(Vec::new()),
        };
        self.enter(state, step.ledger);
        Ok(None)
    }

    fn receive(&mut self, step: &mut Step<'_, '_, '_>) -> Result<Action, RequestEnd> {
        let Step {
            request,
            socket,
            ledger,
            turn,
        } = step;
        for _ in 0..SOAK_READS_MAX {
            let budget = read_budget(request, ledger, turn);
            if budget == 0 {
                // This pause is ours, not the server's.
                self.last_progress = turn.now;
                turn.deadline = Some(turn.now + SOAK_PACE);
                return Ok(Action::Wait);
            }
            let bytes = &mut turn.scratch[..budget];
            match self.channel.read(socket, bytes, &mut ledger.tls_buffers) {
                Ok(0) => return Err(self.peer_closed(request, ledger)),
                Ok(count) => {
                    self.last_progress = Instant::now();
                    self.bytes_arrived(request, ledger);
                    self.take(request, &turn.scratch[..count], ledger)?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    turn.deadline = self.timeout_at(ledger);
                    return Ok(Action::Wait);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    let class = if request.has_answer {
                        Class::ResetAfter
                    } else {
                        Class::ResetBefore
                    };
                    let what = format!("{error}{}", self.progress(request));
                    return Err(RequestEnd::new(class, what).unanswered());
                }
            }
        }
        Ok(Action::Yield)
    }

    /// Times the first bytes of an answer.
    fn bytes_arrived(&self, request: &mut InFlight, ledger: &mut Ledger<'_>) {
        if let Some(sent) = request.sent
            && request.counts_time()
        {
            if !request.has_answer {
                ledger.tally.first_byte.record(self.last_progress - sent);
            }
            ledger.tally.heard(self.last_progress);
        }
        request.has_answer = true;
    }

    /// Takes what one read brought.
    fn take(
        &mut self,
        request: &mut InFlight,
        bytes: &[u8],
        ledger: &mut Ledger<'_>,
    ) -> Result<(), RequestEnd> {
        let head = match &mut self.state {
            ClientState::Head(head) => head,
            ClientState::Body(body) => return body.take(bytes, request, ledger),
            _ => return Ok(()), // A silent client doesn't listen either.
        };
        head.extend_from_slice(bytes);
        match parse_head(head) {
            Head::Partial => Ok(()),
            Head::Bad(reason) => Err(RequestEnd::new(Class::BadAnswer, reason)),
            Head::Whole {
                used,
                status,
                framing,
                keep_alive,
            } => {
                let body_bytes = head.split_off(used);
                if status != 200 {
                    request.refuse(status);
                }
                if let (Framing::Length(length), Some(expected)) = (framing, request.expected)
                    && length != expected
                {
                    let class = if length < expected {
                        Class::Short
                    } else {
                        Class::Corrupt
                    };
                    let what = format!("Content-Length is {length} instead of {expected}");
                    return Err(RequestEnd::new(class, what));
                }
                let mut body = BodyReader::new(framing, keep_alive);
                let taken = body.take(&body_bytes, request, ledger);
                self.enter(ClientState::Body(body), ledger);
                taken
            }
        }
    }

    /// The server has shut its side.
    fn peer_closed(&self, request: &mut InFlight, ledger: &Ledger<'_>) -> RequestEnd {
        match &self.state {
            ClientState::Silent => RequestEnd::new(Class::IdleClosed, ""),
            ClientState::Body(_)
                if ledger.plan.protocol == TargetProtocol::Bare
                    && request.received == 0
                    && request.expected != Some(0) =>
            {
                RequestEnd::new(Class::Empty, "closed without a byte")
            }
            ClientState::Body(body) if self.channel.is_cut() && body.ends_with_connection() => {
                RequestEnd::new(Class::Short, "an end without TLS's close_notify")
            }
            ClientState::Body(body) => body.peer_closed(request),
            ClientState::Head(head) if !head.is_empty() => {
                RequestEnd::new(Class::BadAnswer, "its head is cut short")
            }
            _ => RequestEnd::new(Class::Empty, "closed without a byte").unanswered(),
        }
    }
}

/// How many bytes may be read now: a slow client keeps to its rate.
fn read_budget(request: &InFlight, ledger: &Ledger<'_>, turn: &StepContext<'_>) -> usize {
    let most = turn.scratch.len();
    let Some(sent) = request.sent else {
        return most;
    };
    if request.choice.kind != ClientKind::Slow {
        return most;
    }
    let time = turn.now.saturating_duration_since(sent) + SOAK_PACE;
    let allowed = (time.as_secs_f64() * ledger.plan.slow_rate as f64) as u64;
    // It is at most the scratch buffer's length.
    allowed.saturating_sub(request.received).min(most as u64) as usize
}

/// Where the next piece of a split request ends: the first anywhere, the second in the middle of
/// what is left.
fn piece_ends(at: usize, length: usize, variate: f64) -> usize {
    let first = 1 + (variate * (length.saturating_sub(1)) as f64) as usize;
    let second = first + (length.saturating_sub(first)).div_ceil(2);
    let ends = [first, second].into_iter().find(|&end| end > at);
    ends.unwrap_or(length).min(length)
}

/// How a request ends that found no TLS.
fn tls_failed(error: &io::Error) -> RequestEnd {
    let what = match Refusal::of(error) {
        Some(refusal) => refusal.line,
        None => format!("in the TLS handshake: {error}"),
    };
    RequestEnd::new(Class::TlsFailed, what)
}

/// What an error of connect means.
pub(super) fn connect_class(error: &io::Error) -> Class {
    match error.raw_os_error() {
        Some(libc::EADDRNOTAVAIL) => Class::OutOfPorts,
        Some(libc::EMFILE | libc::ENFILE) => Class::OutOfDescriptors,
        Some(libc::ECONNREFUSED) => Class::Refused,
        Some(libc::ECONNRESET | libc::EPIPE) => Class::ResetBefore,
        Some(libc::ETIMEDOUT) => Class::Timeout,
        _ => Class::Unreachable,
    }
}
