//! What a trace is made of: system calls, steps and waits, in a ring for each thread. Any room may record;
//! nothing is kept unless a trace was asked for, and then only as much as a ring holds.

use std::cell::{Cell, OnceCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use rustix::io::Errno;

use crate::limits::{LOG_TEXT_BYTES_MAX, TRACE_NAMES_MAX, TRACE_RECORDS_MAX, TRACE_THREADS_MAX};
use crate::reactor::event::{Action, Event};
use crate::telemetry::phases::Phases;
use crate::telemetry::{Reason, Stage};

/// A system call on a socket or a file, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(
    missing_docs,
    reason = "`Call::words` in src/trace/words.rs tells each"
)]
pub enum Call {
    Accept,
    Receive,
    Send,
    SendGathered,
    SendFile,
    Flush,
    Guard,
    AskTcpInfo,
    AskAddress,
    AskListener,
    SetListener,
    ShutDown,
    Register,
    Deregister,
    CloseListener,
    Reset,
    CloseSocket,
    Open,
    Stat,
    StatFs,
    Duplicate,
    ReadLink,
    MayRead,
    ReadNowait,
    Read,
    ReadAhead,
    ReadEvents,
    Watch,
    Unwatch,
    CloseFile,
}

/// What a connection waits for when it is suspended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// Nothing: it isn't.
    Nothing,
    /// A disk thread.
    Disk,
    /// A descriptor.
    Descriptor,
}

/// What a disk thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "their names tell")]
pub enum TaskKind {
    Open,
    List,
    Read,
    Make,
}

/// What happened.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// A system call.
    Call {
        /// Which.
        call: Call,
        /// How many bytes it may move.
        asked: u64,
        /// How many it has moved, or minus the errno.
        result: i64,
    },
    /// A connection's step.
    Step {
        /// Why it was stepped.
        event: Event,
        /// What it wanted next.
        action: Action,
        /// What it did before and does now.
        stages: [Stage; 2],
        /// What it waits for, if it is suspended.
        awaited: Awaited,
        /// The bytes that it sent or threw away.
        moved: u64,
    },
    /// A client was let in; by a unix socket it has no address.
    Accepted(Option<SocketAddr>),
    /// A connection has ended.
    Ended(Reason),
    /// The loop waited for events.
    Waited,
    /// A source of the loop that is no connection, by its number.
    Source(u32),
    /// A disk thread did something for a connection.
    Task(TaskKind),
}

/// One thing that happened.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// When it began, in nanoseconds since the trace did.
    pub began: u64,
    /// How long it took, in nanoseconds.
    pub took: u64,
    /// For which connection; zero is none.
    pub conn: u64,
    /// What it was.
    pub what: What,
}

/// What a connection has asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Who.
    pub conn: u64,
    /// When, in nanoseconds since the trace began.
    pub at: u64,
    /// What, as far as the log shows it; bytes from the peer.
    pub name: Box<[u8]>,
    /// Where the time of its reply went, once that is over.
    pub phases: Option<Phases>,
}

/// What one thread has recorded.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    /// What the thread is called.
    pub thread: String,
    /// The latest, in the order in which they ended.
    pub records: VecDeque<Record>,
    /// What was asked for.
    pub asked: VecDeque<Asked>,
    /// Whether older ones have gone.
    pub is_full: bool,
}

static IS_ON: AtomicBool = AtomicBool::new(false);
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);
static RINGS: Mutex<Vec<Arc<Mutex<Ring>>>> = Mutex::new(Vec::new());

thread_local! {
    /// The thread's own; `None` if there are too many threads.
    static RING: OnceCell<Option<Arc<Mutex<Ring>>>> = const { OnceCell::new() };
    static CONN: Cell<u64> = const { Cell::new(0) };
}

/// Begins to record, in all threads.
pub fn start() {
    LazyLock::force(&EPOCH);
    IS_ON.store(true, Ordering::Release);
}

/// Whether anything is recorded.
#[inline]
#[must_use]
pub fn is_on() -> bool {
    IS_ON.load(Ordering::Relaxed)
}

/// The time, in nanoseconds since the trace began.
#[must_use]
pub fn now() -> u64 {
    nanos(Instant::now())
}

/// A time, in nanoseconds since the trace began.
#[must_use]
pub fn nanos(at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(*EPOCH).as_nanos()).unwrap_or(u64::MAX)
}

/// For which connection this thread works; zero is none.
#[must_use]
pub fn conn() -> u64 {
    CONN.get()
}

/// From now on this thread works for this connection.
pub fn set_conn(conn: u64) {
    CONN.set(conn);
}

/// Begins something longer that this thread does for a connection: when that was, unless nothing is
/// recorded.
#[must_use]
pub fn begin(conn: u64) -> Option<u64> {
    is_on().then(|| {
        set_conn(conn);
        now()
    })
}

/// Records what [`begin`] began.
pub fn end(began: Option<u64>, what: impl FnOnce() -> What) {
    if let Some(began) = began {
        note(began, what());
    }
}

/// Makes a system call.
///
/// # Errors
/// Those of the call.
#[inline]
pub fn call<T, E: Failed>(call: Call, make: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    if is_on() {
        observe(call, 0, make, |_| 0)
    } else {
        make()
    }
}

/// Makes a system call that moves up to `asked` bytes, and says how many.
///
/// # Errors
/// Those of the call.
#[inline]
pub fn transfer<E: Failed>(
    call: Call,
    asked: usize,
    make: impl FnOnce() -> Result<usize, E>,
) -> Result<usize, E> {
    if is_on() {
        observe(call, asked as u64, make, |&moved| moved as i64)
    } else {
        make()
    }
}

/// As [`call`], for one whose failure is dealt with where it is made.
#[inline]
pub fn made<T>(which: Call, make: impl FnOnce() -> T) -> T {
    match call(which, || Ok::<_, Infallible>(make())) {
        Ok(value) => value,
        Err(never) => match never {},
    }
}

/// Closes a descriptor.
#[inline]
pub fn close(which: Call, descriptor: impl Sized) {
    made(which, || drop(descriptor));
}

#[cold]
fn observe<T, E: Failed>(
    call: Call,
    asked: u64,
    make: impl FnOnce() -> Result<T, E>,
    moved: impl FnOnce(&T) -> i64,
) -> Result<T, E> {
    let began = now();
    let outcome = make();
    let result = match &outcome {
        Ok(value) => moved(value),
        Err(error) => -i64::from(error.errno()),
    };
    note(
        began,
        What::Call {
            call,
            asked,
            result,
        },
    );
    outcome
}

/// A descriptor of a file or folder, whose close is recorded.
#[derive(Debug)]
pub struct Handle(Option<OwnedFd>);

impl From<OwnedFd> for Handle {
    fn from(descriptor: OwnedFd) -> Self {
        Self(Some(descriptor))
    }
}

impl From<Handle> for OwnedFd {
    fn from(mut handle: Handle) -> Self {
        handle.0.take().expect(OPEN)
    }
}

/// A handle gives its descriptor away only when it is consumed.
const OPEN: &str = "a handle is open";

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_ref().expect(OPEN).as_fd()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(descriptor) = self.0.take() {
            close(Call::CloseFile, descriptor);
        }
    }
}

/// Records what began then and is over now, for the connection that this thread works for.
pub fn note(began: u64, what: What) {
    note_span(began, now(), what);
}

/// As [`note`], of what was over then.
pub fn note_span(began: u64, ended: u64, what: What) {
    let took = ended.saturating_sub(began);
    let conn = conn();
    with_ring(|ring| {
        if ring.records.len() == TRACE_RECORDS_MAX {
            ring.records.pop_front();
            ring.is_full = true;
        }
        ring.records.push_back(Record {
            began,
            took,
            conn,
            what,
        });
    });
}

/// Records what this thread's connection has asked for at a time. It is escaped when it is shown.
pub fn note_asked(at: Instant, name: &[u8], phases: Option<Phases>) {
    let (at, conn) = (nanos(at), conn());
    let name = name[..name.len().min(LOG_TEXT_BYTES_MAX)].into();
    with_ring(|ring| {
        if ring.asked.len() == TRACE_NAMES_MAX {
            ring.asked.pop_front();
        }
        ring.asked.push_back(Asked {
            conn,
            at,
            name,
            phases,
        });
    });
}

fn with_ring(act: impl FnOnce(&mut Ring)) {
    RING.with(|ring| {
        if let Some(ring) = ring.get_or_init(new_ring) {
            act(&mut lock(ring));
        }
    });
}

fn new_ring() -> Option<Arc<Mutex<Ring>>> {
    let mut rings = lock(&RINGS);
    if rings.len() == TRACE_THREADS_MAX {
        return None;
    }
    let thread = thread::current().name().unwrap_or("thread").to_owned();
    let ring = Arc::new(Mutex::new(Ring {
        thread,
        ..Ring::default()
    }));
    rings.push(Arc::clone(&ring));
    Some(ring)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What all threads have recorded so far.
#[must_use]
pub fn snapshot() -> Vec<Ring> {
    let rings = lock(&RINGS).clone();
    rings.iter().map(|ring| lock(ring).clone()).collect()
}

/// Why a system call failed.
pub trait Failed {
    /// Its number in errno(3); zero is unknown.
    fn errno(&self) -> i32;
}

impl Failed for Infallible {
    fn errno(&self) -> i32 {
        match *self {}
    }
}

impl Failed for io::Error {
    fn errno(&self) -> i32 {
        self.raw_os_error().unwrap_or(0)
    }
}

impl Failed for Errno {
    fn errno(&self) -> i32 {
        self.raw_os_error()
    }
}

impl Failed for nix::errno::Errno {
    fn errno(&self) -> i32 {
        *self as i32
    }
}
