//! For tests and benches only: transports that do what a test says, a bench that steps one
//! connection as the loop would, and choices that can be enumerated. Not part of the interface.

pub mod crowd;
pub mod tls_wire;
pub mod wire;

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::conn::transport::{SendFileError, Transport};
use crate::conn::{Conn, StepIo, Timeouts};
use crate::file::{DiskTask, FsClass, MayBlock, OpenFile, Probe, ReadError, TaskResult};
use crate::limits::{
    DISK_TIMEOUT, KEEP_ALIVE, MIN_RATE_BYTES, REQUEST_TIMEOUT, SCRATCH_BYTES, STALL_TIMEOUT,
};
use crate::protocol::Protocol;
use crate::reactor::event::{Action, Event, Readiness, StepContext};
use crate::telemetry::Stage;
use crate::telemetry::response::Response;

/// An edge that says that a read may find something.
pub const READABLE: Event = Event::Ready(Readiness {
    readable: true,
    writable: false,
    read_closed: false,
    dead: false,
});

/// An edge that says that a write may find room.
pub const WRITABLE: Event = Event::Ready(Readiness {
    readable: false,
    writable: true,
    read_closed: false,
    dead: false,
});

/// An edge on which data and the peer's FIN came together.
pub const READ_CLOSED: Event = Event::Ready(Readiness {
    readable: true,
    writable: false,
    read_closed: true,
    dead: false,
});

/// An edge of a reset.
pub const DEAD: Event = Event::Ready(Readiness {
    readable: true,
    writable: true,
    read_closed: true,
    dead: true,
});

/// One connection, stepped by hand, with a clock that stands.
#[derive(Debug)]
pub struct Bench<T, P> {
    /// The connection under test.
    pub conn: Conn,
    /// Its socket.
    pub transport: T,
    /// What it serves.
    pub protocol: P,
    /// The time that the next step sees.
    pub now: Instant,
    /// When it wants [`Event::Deadline`].
    pub deadline: Option<Instant>,
    /// Whether the server is stopping.
    pub draining: bool,
    /// Whether the room for connections runs out.
    pub is_crowded: bool,
    /// What became of replies after which the connection went on.
    pub finished: Vec<Response>,
    /// What a helper shall do for the connection.
    pub task: Option<DiskTask>,
    scratch: Vec<u8>,
}

impl<T: Transport + Turning, P: Protocol> Bench<T, P> {
    /// A connection that was just accepted.
    pub fn new(transport: T, protocol: P) -> Self {
        let now = Instant::now();
        let conn = Conn::new(now + REQUEST_TIMEOUT);
        let scratch = vec![0; SCRATCH_BYTES];
        Self {
            conn,
            transport,
            protocol,
            now,
            deadline: None,
            draining: false,
            is_crowded: false,
            finished: Vec::new(),
            task: None,
            scratch,
        }
    }

    /// One turn with one step.
    pub fn step(&mut self, event: Event) -> Action {
        self.step_with(event, None)
    }

    /// Runs the task that the connection waits for, and wakes it. There must be one.
    pub fn fetch(&mut self) -> Action {
        let task = self.task.take().expect("there is a task");
        self.step_with(Event::Woken, Some(task.run(MayBlock::Forever)))
    }

    /// One turn with one step, in which a task is over.
    pub fn step_with(&mut self, event: Event, mut task_result: Option<TaskResult>) -> Action {
        self.transport.begin_turn();
        let mut turn = StepContext {
            now: self.now,
            scratch: &mut self.scratch,
            deadline: self.deadline,
            bytes_moved: 0,
            draining: self.draining,
            is_crowded: self.is_crowded,
        };
        let mut io = StepIo {
            transport: &mut self.transport,
            protocol: &mut self.protocol,
            timeouts: &Timeouts {
                request: REQUEST_TIMEOUT,
                keep_alive: KEEP_ALIVE,
                stall: STALL_TIMEOUT,
                min_rate: MIN_RATE_BYTES,
                disk: DISK_TIMEOUT,
            },
            turn: &mut turn,
            finished: &mut self.finished,
            task: &mut self.task,
            task_result: &mut task_result,
        };
        let next = match io.transport.before_step(event) {
            Some(ending) => ending,
            None => {
                let next = self.conn.step(&mut io, event);
                self.transport
                    .after_step(next, self.conn.stage(), &mut turn)
            }
        };
        self.deadline = turn.deadline;
        assert!(
            matches!(next, Action::Close(_) | Action::Reset(_)) || !self.transport.holds_back(),
            "bytes are held back while the connection waits"
        );
        next
    }

    /// Lets the clock run to the deadline, and steps. There must be one.
    pub fn expire(&mut self) -> Action {
        let passed = self.deadline;
        self.now = passed.expect("a deadline is set");
        let next = self.step(Event::Deadline);
        if self.deadline == passed {
            self.deadline = None;
        }
        next
    }

    /// Time until the deadline.
    pub fn patience(&self) -> Option<Duration> {
        self.deadline.map(|at| at - self.now)
    }
}

/// What is told that a turn begins.
pub trait Turning {
    /// A new turn: what blocked in the last one may be tried again.
    fn begin_turn(&mut self);

    /// Whether a write has promised more, and nothing has come since.
    fn holds_back(&self) -> bool {
        false
    }

    /// A step of the connection comes: what happens instead, if something does.
    fn before_step(&mut self, _event: Event) -> Option<Action> {
        None
    }

    /// What becomes of what a connection wants after a step.
    fn after_step(&mut self, next: Action, _stage: Stage, _turn: &mut StepContext<'_>) -> Action {
        next
    }
}

/// A transport that tells by itself what comes next.
pub trait Edges: Transport + Turning {
    /// What the poll would report next, if anything can still happen without time passing.
    fn edge(&mut self) -> Option<Event>;
}

// ---- a script ----

/// What the next read does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// Gives these bytes.
    Bytes(Vec<u8>),
    /// Would block.
    Block,
    /// The peer's FIN.
    Eof,
    /// Fails.
    Fail(ErrorKind),
}

/// What the next write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Takes up to so many bytes.
    Take(usize),
    /// Would block.
    Block,
    /// Fails.
    Fail(ErrorKind),
    /// sendfile only: the file can't be read.
    FailFile,
    /// sendfile only: the file system can't do it.
    Unsupported,
}

/// A transport that follows a script to the letter. A call that is not in it fails the test, and
/// so does one after WouldBlock in the same turn.
#[derive(Debug, Default)]
pub struct Scripted {
    /// What reads do, in order.
    pub reads: VecDeque<Read>,
    /// What writes do, in order.
    pub writes: VecDeque<Write>,
    /// What was written.
    pub sent: Vec<u8>,
    /// The flag of each write: may the kernel hold a part back?
    pub more: Vec<bool>,
    /// Whether the write side was shut.
    pub is_shut: bool,
    /// Whether a close would be a reset.
    pub resets_on_close: bool,
    /// Each change of that.
    pub guards: Vec<bool>,
    /// What the peer acknowledged.
    pub acked: u64,
    /// Whether the peer has shut its side.
    pub peer_has_finished: bool,
    /// So many of the next looks at a file find that its bytes are not in memory.
    pub colds: u32,
    read_blocked: bool,
    write_blocked: bool,
    holds_back: bool,
}

impl Scripted {
    /// A script.
    pub fn new(
        reads: impl IntoIterator<Item = Read>,
        writes: impl IntoIterator<Item = Write>,
    ) -> Self {
        let (reads, writes) = (reads.into_iter().collect(), writes.into_iter().collect());
        Self {
            reads,
            writes,
            ..Self::default()
        }
    }

    /// Everything in the script has happened.
    pub fn assert_done(&self) {
        assert!(self.reads.is_empty(), "reads left over: {:?}", self.reads);
        assert!(
            self.writes.is_empty(),
            "writes left over: {:?}",
            self.writes
        );
    }

    fn is_next_cold(&mut self) -> bool {
        let is_cold = self.colds > 0;
        self.colds -= u32::from(is_cold);
        is_cold
    }

    fn next_write(&mut self) -> Write {
        assert!(!self.write_blocked, "a write after WouldBlock in one turn");
        let write = self
            .writes
            .pop_front()
            .expect("a write that is not in the script");
        self.write_blocked = write == Write::Block;
        write
    }
}

impl Turning for Scripted {
    fn begin_turn(&mut self) {
        (self.read_blocked, self.write_blocked) = (false, false);
    }

    fn holds_back(&self) -> bool {
        self.holds_back
    }
}

impl Transport for Scripted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        assert!(!self.read_blocked, "a read after WouldBlock in one turn");
        match self
            .reads
            .pop_front()
            .expect("a read that is not in the script")
        {
            Read::Bytes(mut bytes) => {
                let n = bytes.len().min(buf.len());
                buf[..n].copy_from_slice(&bytes[..n]);
                if n < bytes.len() {
                    self.reads.push_front(Read::Bytes(bytes.split_off(n)));
                }
                Ok(n)
            }
            Read::Eof => Ok(0),
            Read::Fail(kind) => Err(kind.into()),
            Read::Block => {
                self.read_blocked = true;
                Err(ErrorKind::WouldBlock.into())
            }
        }
    }

    fn write(&mut self, bytes: &[u8], more: bool) -> io::Result<usize> {
        match self.next_write() {
            Write::Take(max) => {
                let n = max.min(bytes.len());
                self.sent.extend_from_slice(&bytes[..n]);
                self.more.push(more);
                self.holds_back = more;
                Ok(n)
            }
            Write::Block => Err(ErrorKind::WouldBlock.into()),
            Write::Fail(kind) => Err(kind.into()),
            other => unreachable!("{other:?} is for files"),
        }
    }

    fn flush(&mut self) {
        self.holds_back = false;
    }

    fn send_file(
        &mut self,
        file: &OpenFile,
        offset: u64,
        count: usize,
    ) -> Result<usize, SendFileError> {
        match self.next_write() {
            Write::Take(max) => {
                self.holds_back = false;
                let mut bytes = vec![0; max.min(count)];
                let n = file
                    .read_blocking(&mut bytes, offset)
                    .expect("a test's own file is readable");
                self.sent.extend_from_slice(&bytes[..n]);
                Ok(n)
            }
            Write::Block => Err(SendFileError::WouldBlock),
            Write::Fail(kind) => Err(SendFileError::Socket(kind.into())),
            Write::FailFile => Err(SendFileError::File(ErrorKind::Other.into())),
            Write::Unsupported => Err(SendFileError::Unsupported),
        }
    }

    fn would_block(&mut self, file: &OpenFile, start: u64, count: usize, probe: Probe) -> bool {
        self.is_next_cold() || must_wait(file, start, count, probe)
    }

    fn read_file(
        &mut self,
        file: &OpenFile,
        buf: &mut [u8],
        start: u64,
    ) -> Result<usize, ReadError> {
        read_unless_cold(self, file, buf, start)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.is_shut = true;
        Ok(())
    }

    fn reset_on_close(&mut self, on: bool) {
        self.resets_on_close = on;
        self.guards.push(on);
    }

    fn acked_bytes(&mut self, _: u64) -> u64 {
        self.acked
    }

    fn peer_has_finished(&mut self) -> bool {
        self.peer_has_finished
    }

    fn reached_address(&self) -> Option<SocketAddr> {
        None
    }
}

/// Whether a file is one that the loop must not read. Whether a local one is cold is the script's
/// to say.
fn must_wait(file: &OpenFile, start: u64, count: usize, probe: Probe) -> bool {
    match file.fs_class() {
        FsClass::InMemory | FsClass::Nowait => false,
        FsClass::ReadOnce | FsClass::Remote => file.would_block(start, count, probe),
    }
}

/// Reads what the transport doesn't take for cold.
fn read_unless_cold(
    transport: &mut impl Transport,
    file: &OpenFile,
    buf: &mut [u8],
    start: u64,
) -> Result<usize, ReadError> {
    if transport.would_block(file, start, buf.len(), Probe::Last) {
        Err(ReadError::WouldBlock)
    } else {
        file.read_blocking(buf, start).map_err(ReadError::Failed)
    }
}

// ---- nothing ----

/// A transport without a kernel: one request is there at once, and every write takes everything.
#[derive(Debug)]
pub struct Null {
    /// What the only read gives.
    pub request: &'static [u8],
    /// Bytes written so far.
    pub sent: u64,
}

impl Turning for Null {
    fn begin_turn(&mut self) {}
}

impl Transport for Null {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let request = std::mem::take(&mut self.request);
        buf[..request.len()].copy_from_slice(request);
        Ok(request.len())
    }

    fn write(&mut self, bytes: &[u8], _more: bool) -> io::Result<usize> {
        self.sent += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) {}

    fn send_file(&mut self, _: &OpenFile, _: u64, count: usize) -> Result<usize, SendFileError> {
        self.sent += count as u64;
        Ok(count)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn reset_on_close(&mut self, _on: bool) {}

    fn acked_bytes(&mut self, _: u64) -> u64 {
        self.sent
    }

    fn peer_has_finished(&mut self) -> bool {
        false
    }

    fn reached_address(&self) -> Option<SocketAddr> {
        None
    }
}
