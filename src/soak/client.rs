//! One client: connects, sends its request in the manner of its kind, and checks what comes.

mod in_flight;

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::time::Instant;

use mio::net::TcpStream;

use super::engine::{Context, Engine};
use super::outcome::Class;
use super::plan::TargetProtocol;
use super::population::ClientKind;
use crate::http::response::{Chunk, Chunks, Framing, Head, parse_head};
use crate::limits::{SOAK_PACE, SOAK_READS_MAX};
use crate::reactor::event::{Action, Event};
use crate::telemetry::Reason;

pub(super) use in_flight::InFlight;
use in_flight::RequestEnd;

/// A connection and the request on it.
#[allow(missing_debug_implementations, reason = "a checker has none")]
pub struct Client {
    /// Which of the closed model's clients it is.
    pub(super) client_id: u32,
    /// It could not connect.
    pub(super) connect_failed: bool,
    state: ClientState,
    order: Option<InFlight>,
    /// When something last moved.
    last_progress: Instant,
}

enum ClientState {
    Connecting,
    /// So many bytes of the request are sent; the next piece follows then.
    Sending {
        at: usize,
        resume: Option<Instant>,
    },
    /// An HTTP answer's head, as far as it came.
    Head(Vec<u8>),
    BodyReader(BodyReader),
    /// Says nothing, and waits for the server to close.
    Silent,
    /// Kept alive, without a request.
    Idle,
}

/// Where a body ends.
enum BodyReader {
    UntilClose,
    Length {
        left: u64,
        keep_alive: bool,
    },
    Chunked {
        chunks: Box<Chunks>,
        keep_alive: bool,
    },
}

/// How clients are spread, for the live view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The handshake is under way.
    Connecting,
    /// The request is sent, or on its way.
    Waiting,
    /// A body is coming.
    Receiving,
    /// Silent, or kept alive.
    Idle,
}

impl ClientState {
    fn phase(&self) -> Phase {
        match self {
            Self::Connecting => Phase::Connecting,
            Self::Sending { .. } | Self::Head(_) => Phase::Waiting,
            Self::BodyReader(_) => Phase::Receiving,
            Self::Silent | Self::Idle => Phase::Idle,
        }
    }
}

impl Client {
    /// A client whose connect has begun.
    pub(super) fn new(client_id: u32, order: InFlight, engine: &mut Engine<'_>) -> Self {
        engine.enter(None, Some(Phase::Connecting));
        let last_progress = order.started;
        Self {
            client_id,
            connect_failed: false,
            state: ClientState::Connecting,
            order: Some(order),
            last_progress,
        }
    }

    /// The request that another connection must carry, of one that has ended.
    pub(super) fn take_in_flight(&mut self) -> Option<InFlight> {
        self.order.take()
    }

    /// The connection has ended.
    pub(super) fn leave(&self, engine: &mut Engine<'_>) {
        engine.enter(Some(self.state.phase()), None);
    }

    fn enter(&mut self, state: ClientState, engine: &mut Engine<'_>) {
        engine.enter(Some(self.state.phase()), Some(state.phase()));
        self.state = state;
    }

    /// Goes on as far as it can.
    pub(super) fn step(
        &mut self,
        socket: &mut TcpStream,
        event: Event,
        engine: &mut Engine<'_>,
        cx: &mut Context<'_>,
    ) -> Action {
        if let Event::Stop(reason) = event {
            if let Some(order) = self.order.take() {
                engine.finish(order, Class::Unfinished, String::new);
            }
            return Action::Reset(reason);
        }
        if self.order.is_none() {
            if let Event::Ready(_) = event {
                // The server closes a connection that is kept alive. What was left for it goes to
                // another one.
                engine.forget_idle(cx.token());
                self.order = engine.next_for_idle(self.client_id);
                return Action::Close(Reason::ClientLeft);
            }
            if let Some(next) = self.take_order(socket, engine, cx) {
                return next;
            }
        }
        loop {
            let before = self.last_progress;
            let end = match self.advance(socket, engine, cx) {
                Ok(Action::Wait) if self.is_late(event, before, engine) => {
                    let silence = engine.plan.timeout;
                    RequestEnd::new(
                        Class::Timeout,
                        format!("nothing came for {silence:?}{}", self.progress()),
                    )
                }
                Ok(next) => return next,
                Err(end) => end,
            };
            if let Some(next) = self.end(end, socket, engine) {
                return next;
            }
            if let Some(next) = self.take_order(socket, engine, cx) {
                return next;
            }
        }
    }

    /// A free connection takes the next request; else it says what becomes of the connection. The
    /// server may have closed it, as it may at any time: RFC 9112, 9.3.1.
    fn take_order(
        &mut self,
        socket: &TcpStream,
        engine: &mut Engine<'_>,
        cx: &mut Context<'_>,
    ) -> Option<Action> {
        let Some(order) = engine.next_for_idle(self.client_id) else {
            return Some(engine.keep(cx));
        };
        let waits = socket.peek(&mut [0]).map_err(|error| error.kind());
        if !matches!(waits, Err(ErrorKind::WouldBlock)) {
            self.order = Some(order);
            return Some(Action::Close(Reason::ClientLeft));
        }
        self.last_progress = Instant::now();
        self.order = Some(order);
        self.enter(
            ClientState::Sending {
                at: 0,
                resume: None,
            },
            engine,
        );
        None
    }

    fn is_late(&self, event: Event, before: Instant, engine: &Engine<'_>) -> bool {
        let waits = !matches!(self.state, ClientState::Silent | ClientState::Idle);
        event == Event::Deadline
            && waits
            && self.last_progress == before
            && before.elapsed() >= engine.plan.timeout
    }

    fn progress(&self) -> String {
        match (&self.state, &self.order) {
            (ClientState::Connecting, _) => " while connecting".into(),
            (ClientState::BodyReader(_), Some(order)) => format!(" after {} bytes", order.received),
            _ => " before the first byte".into(),
        }
    }

    /// Counts the end of a request, and says what becomes of the connection; `None` if it carries
    /// the next one.
    fn end(
        &mut self,
        end: RequestEnd,
        socket: &TcpStream,
        engine: &mut Engine<'_>,
    ) -> Option<Action> {
        let order = self.order.take()?;
        self.connect_failed = matches!(self.state, ClientState::Connecting);
        let by_reset = order.abort_at().is_some_and(|(_, by_reset)| by_reset);
        let kind = order.choice.kind;
        let peer = socket.local_addr();
        engine.finish(order, end.class, || match peer {
            Ok(address) => format!("{} ({address})", end.what),
            Err(_) => end.what.into_owned(),
        });
        match end.class {
            _ if end.reusable && self.may_be_kept(kind) => {
                self.enter(ClientState::Idle, engine);
                None
            }
            Class::Complete | Class::IdleClosed => Some(Action::Close(Reason::Complete)),
            Class::Aborted if !by_reset => Some(Action::Close(Reason::ClientLeft)),
            _ => Some(Action::Reset(Reason::ClientLeft)),
        }
    }

    /// Whether the next request may use the connection: not after a half-close, and others than a
    /// slow client would have to do with its buffer.
    fn may_be_kept(&self, kind: ClientKind) -> bool {
        match kind {
            ClientKind::HalfClose => false,
            ClientKind::Slow => self.client_id != Engine::NO_CLIENT,
            _ => true,
        }
    }

    /// One state after the other, until one has to wait.
    fn advance(
        &mut self,
        socket: &mut TcpStream,
        engine: &mut Engine<'_>,
        cx: &mut Context<'_>,
    ) -> Result<Action, RequestEnd> {
        loop {
            let step = match &mut self.state {
                ClientState::Connecting => self.connect(socket, engine)?,
                ClientState::Sending { .. } => self.send(socket, engine, cx)?,
                ClientState::Head(_) | ClientState::BodyReader(_) | ClientState::Silent => {
                    Some(self.receive(socket, engine, cx)?)
                }
                ClientState::Idle => Some(Action::Wait),
            };
            let Some(next) = step else { continue };
            if next == Action::Wait && cx.turn.deadline.is_none_or(|at| at <= cx.turn.now) {
                cx.turn.deadline = match self.state {
                    ClientState::Silent | ClientState::Idle => None,
                    _ => Some(self.last_progress + engine.plan.timeout),
                };
            }
            return Ok(next);
        }
    }

    fn connect(
        &mut self,
        socket: &TcpStream,
        engine: &mut Engine<'_>,
    ) -> Result<Option<Action>, RequestEnd> {
        match socket.peer_addr() {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotConnected => {
                return match socket.take_error() {
                    Ok(None) => Ok(Some(Action::Wait)),
                    Ok(Some(error)) | Err(error) => {
                        Err(RequestEnd::new(connect_class(&error), error.to_string()))
                    }
                };
            }
            Err(error) => return Err(RequestEnd::new(connect_class(&error), error.to_string())),
        }
        self.last_progress = Instant::now();
        let order = self.order.as_ref();
        let (kind, started) = order.map_or((ClientKind::Fast, self.last_progress), |order| {
            (order.choice.kind, order.started)
        });
        engine.tally.connect.record(self.last_progress - started);
        let state = match kind {
            ClientKind::Idle => ClientState::Silent,
            _ => ClientState::Sending {
                at: 0,
                resume: None,
            },
        };
        self.enter(state, engine);
        Ok(None)
    }

    fn send(
        &mut self,
        socket: &mut TcpStream,
        engine: &mut Engine<'_>,
        cx: &mut Context<'_>,
    ) -> Result<Option<Action>, RequestEnd> {
        let (ClientState::Sending { at, resume }, Some(order)) = (&mut self.state, &mut self.order)
        else {
            return Ok(Some(Action::Wait));
        };
        if let Some(resume) = *resume
            && resume > cx.turn.now
        {
            cx.turn.deadline = Some(resume);
            return Ok(Some(Action::Wait));
        }
        let plan = engine.plan;
        let request = &plan.names[order.choice.name as usize].bytes;
        while *at < request.len() {
            let piece_ends = match order.choice.kind {
                ClientKind::Split => piece_ends(*at, request.len(), order.choice.variate),
                _ => request.len(),
            };
            // Before the write: its answer may be there when it returns.
            self.last_progress = Instant::now();
            match socket.write(&request[*at..piece_ends]) {
                Ok(count) => *at += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(Some(Action::Wait));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(RequestEnd::new(
                        Class::ResetBefore,
                        format!("sending: {error}"),
                    ));
                }
            }
            if *at == piece_ends && *at < request.len() {
                let then = cx.turn.now + plan.split_pause;
                *resume = Some(then);
                cx.turn.deadline = Some(then);
                return Ok(Some(Action::Wait));
            }
        }
        if order.choice.kind == ClientKind::HalfClose {
            // If the connection has broken, the read says so.
            let _ = socket.shutdown(Shutdown::Write);
        }
        order.sent = Some(self.last_progress);
        if order.counts_time() {
            engine.tally.wait_begins(self.last_progress);
        }
        if let Some((0, _)) = order.abort_at() {
            return Err(RequestEnd::new(Class::Aborted, ""));
        }
        let state = match plan.protocol {
            TargetProtocol::Bare => ClientState::BodyReader(BodyReader::UntilClose),
            TargetProtocol::Http { .. } => ClientState::Head(Vec::new()),
        };
        cx.turn.deadline = None;
        self.enter(state, engine);
        Ok(None)
    }

    fn receive(
        &mut self,
        socket: &mut TcpStream,
        engine: &mut Engine<'_>,
        cx: &mut Context<'_>,
    ) -> Result<Action, RequestEnd> {
        for _ in 0..SOAK_READS_MAX {
            let read_budget = self.read_budget(engine, cx);
            if read_budget == 0 {
                // This pause is ours, not the server's.
                self.last_progress = cx.turn.now;
                cx.turn.deadline = Some(cx.turn.now + SOAK_PACE);
                return Ok(Action::Wait);
            }
            match socket.read(&mut cx.turn.scratch[..read_budget]) {
                Ok(0) => return Err(self.peer_closed(engine)),
                Ok(count) => {
                    self.last_progress = Instant::now();
                    self.heard(engine);
                    self.take(&cx.turn.scratch[..count], engine)?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    cx.turn.deadline = Some(self.last_progress + engine.plan.timeout)
                        .filter(|_| !self.is_silent());
                    return Ok(Action::Wait);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    let class = match &self.order {
                        Some(order) if order.has_answer => Class::ResetAfter,
                        _ => Class::ResetBefore,
                    };
                    return Err(RequestEnd::new(
                        class,
                        format!("{error}{}", self.progress()),
                    ));
                }
            }
        }
        Ok(Action::Yield)
    }

    fn is_silent(&self) -> bool {
        matches!(self.state, ClientState::Silent)
    }

    /// How many bytes may be read now: a slow client keeps to its rate.
    fn read_budget(&self, engine: &Engine<'_>, cx: &Context<'_>) -> usize {
        let most = cx.turn.scratch.len();
        match &self.order {
            Some(InFlight {
                choice,
                sent: Some(sent),
                received,
                ..
            }) if choice.kind == ClientKind::Slow => {
                let rate = engine.plan.slow_rate as f64;
                let time = cx.turn.now.saturating_duration_since(*sent) + SOAK_PACE;
                let allowed = (time.as_secs_f64() * rate) as u64;
                // What is left is less than the scratch buffer's length, or cut to it.
                allowed.saturating_sub(*received).min(most as u64) as usize
            }
            _ => most,
        }
    }

    /// Bytes have come: the first ones of an answer are timed.
    fn heard(&mut self, engine: &mut Engine<'_>) {
        let Some(order) = &mut self.order else { return };
        if let Some(sent) = order.sent {
            if !order.has_answer && order.counts_time() {
                engine.tally.first_byte.record(self.last_progress - sent);
            }
            if order.counts_time() {
                engine.tally.heard(self.last_progress);
            }
        }
        order.has_answer = true;
    }

    /// Takes what one read brought.
    fn take(&mut self, bytes: &[u8], engine: &mut Engine<'_>) -> Result<(), RequestEnd> {
        let ClientState::Head(head) = &mut self.state else {
            return self.take_body(bytes, engine);
        };
        head.extend_from_slice(bytes);
        match parse_head(head) {
            Head::Partial => Ok(()),
            Head::Bad(event) => Err(RequestEnd::new(Class::BadAnswer, event)),
            Head::Whole {
                used,
                status,
                framing,
                keep_alive,
            } => {
                let rest = head.split_off(used);
                if status != 200 {
                    // Its body is read, and compared with nothing.
                    self.order.iter_mut().for_each(|order| order.refuse(status));
                }
                if let (
                    Framing::Length(length),
                    Some(InFlight {
                        expected: Some(expected),
                        ..
                    }),
                ) = (framing, &self.order)
                    && length != *expected
                {
                    let class = if length < *expected {
                        Class::Short
                    } else {
                        Class::Corrupt
                    };
                    let what = format!("Content-Length is {length} instead of {expected}");
                    return Err(RequestEnd::new(class, what));
                }
                // Who has shut its side can't ask again.
                let has_shut = |order: &InFlight| order.choice.kind == ClientKind::HalfClose;
                let keep_alive = keep_alive && !self.order.as_ref().is_some_and(has_shut);
                self.enter(
                    ClientState::BodyReader(BodyReader::new(framing, keep_alive)),
                    engine,
                );
                self.take_body(&rest, engine)
            }
        }
    }

    fn take_body(&mut self, mut bytes: &[u8], engine: &mut Engine<'_>) -> Result<(), RequestEnd> {
        let (ClientState::BodyReader(body), Some(order)) = (&mut self.state, &mut self.order)
        else {
            return Ok(()); // A silent client doesn't listen either.
        };
        match body {
            BodyReader::UntilClose => order.take(bytes, engine),
            BodyReader::Length { left, keep_alive } => {
                let surplus = (bytes.len() as u64).saturating_sub(*left);
                if surplus > 0 {
                    // No more than `bytes`.
                    bytes = &bytes[..bytes.len() - surplus as usize];
                }
                *left -= bytes.len() as u64;
                order.take(bytes, engine)?;
                match (*left, surplus, *keep_alive) {
                    (0, 0, keep_alive) => Err(order.whole(keep_alive)),
                    (0, _, _) => Err(RequestEnd::new(Class::BadAnswer, "bytes follow the body")),
                    _ => Ok(()),
                }
            }
            BodyReader::Chunked { chunks, keep_alive } => {
                let mut at = 0;
                loop {
                    match chunks.next(bytes, at) {
                        Chunk::Data(range) => {
                            at = range.end;
                            order.take(&bytes[range], engine)?;
                        }
                        Chunk::NeedMore => return Ok(()),
                        Chunk::End(used) if used == bytes.len() => {
                            return Err(order.whole(*keep_alive));
                        }
                        Chunk::End(_) => {
                            return Err(RequestEnd::new(Class::BadAnswer, "bytes follow the body"));
                        }
                        Chunk::Bad(event) => return Err(RequestEnd::new(Class::BadAnswer, event)),
                    }
                }
            }
        }
    }

    /// The server has shut its side.
    fn peer_closed(&mut self, engine: &Engine<'_>) -> RequestEnd {
        let Some(order) = &mut self.order else {
            return RequestEnd::complete(false);
        };
        let received = order.received;
        match &self.state {
            ClientState::Silent => RequestEnd::new(Class::IdleClosed, ""),
            ClientState::BodyReader(BodyReader::UntilClose)
                if received == 0
                    && order.expected != Some(0)
                    && engine.plan.protocol == TargetProtocol::Bare =>
            {
                RequestEnd::new(Class::Empty, "closed without a byte")
            }
            ClientState::BodyReader(BodyReader::UntilClose) => order.whole(false),
            ClientState::BodyReader(BodyReader::Length { left, .. }) => RequestEnd::new(
                Class::Short,
                format!("{received} bytes of {}", received + left),
            ),
            ClientState::BodyReader(BodyReader::Chunked { .. }) => {
                RequestEnd::new(Class::Short, format!("{received} bytes, and no last chunk"))
            }
            ClientState::Head(head) if !head.is_empty() => {
                RequestEnd::new(Class::BadAnswer, "its head is cut short")
            }
            _ => RequestEnd::new(Class::Empty, "closed without a byte"),
        }
    }
}

impl BodyReader {
    fn new(framing: Framing, keep_alive: bool) -> Self {
        match framing {
            Framing::UntilClose => Self::UntilClose,
            Framing::Length(left) => Self::Length { left, keep_alive },
            Framing::Chunked => Self::Chunked {
                chunks: Box::default(),
                keep_alive,
            },
        }
    }
}

/// Where the next piece of a split request ends: the first anywhere, the second in the middle of
/// what is left.
fn piece_ends(at: usize, length: usize, variate: f64) -> usize {
    let first = 1 + (variate * (length.saturating_sub(1)) as f64) as usize;
    let second = first + (length.saturating_sub(first)).div_ceil(2);
    let ends = [first, second, length];
    ends.into_iter()
        .find(|&end| end > at)
        .unwrap_or(length)
        .min(length)
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
