//! What a trace is made of: system calls, steps and waits, in a ring for each thread. Any room may record;
//! nothing is kept unless a trace was asked for, and then only as much as a ring holds.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

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
    StatEntry,
    StatFs,
    Duplicate,
    ReadLink,
    MayRead,
    ReadNowait,
    Read,
    ReadAhead,
    ReadEvents,
    AskMounts,
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
    /// When it began.
    pub began: Instant,
    /// When it was over.
    pub ended: Instant,
    /// For which connection; zero is none.
    pub conn: u64,
    /// What it was.
    pub what: What,
}

impl Record {
    /// How long it took.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.ended.saturating_duration_since(self.began)
    }
}

/// What a connection has asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Who.
    pub conn: u64,
    /// When.
    pub at: Instant,
    /// How many bytes of [`Ring::names`] tell what.
    pub name_bytes: usize,
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
    /// The names of these behind each other, as far as the log shows them; bytes from peers.
    pub names: VecDeque<u8>,
    /// Whether older ones have gone.
    pub is_full: bool,
}

static IS_ON: AtomicBool = AtomicBool::new(false);
static RINGS: Mutex<Vec<&'static Mutex<Ring>>> = Mutex::new(Vec::new());

thread_local! {
    static OWN: RefCell<Own> = const {
        RefCell::new(Own {
            ring: OnceCell::new(),
            holds: false,
            held: None,
        })
    };
    static CONN: Cell<u64> = const { Cell::new(0) };
    static LAST_CALL: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Begins to record, in all threads.
pub fn start() {
    IS_ON.store(true, Ordering::Release);
}

/// Whether anything is recorded.
#[inline]
#[must_use]
pub fn is_on() -> bool {
    IS_ON.load(Ordering::Relaxed)
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

/// When this thread's last call was over, if it was recorded.
#[must_use]
pub fn last_call() -> Option<Instant> {
    LAST_CALL.get()
}

/// Begins something longer that this thread does for a connection: when that was, unless nothing is
/// recorded.
#[must_use]
pub fn begin(conn: u64) -> Option<Instant> {
    is_on().then(|| {
        set_conn(conn);
        Instant::now()
    })
}

/// Records what [`begin`] began.
pub fn end(began: Option<Instant>, what: impl FnOnce() -> What) {
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
    let began = Instant::now();
    let outcome = make();
    let ended = Instant::now();
    LAST_CALL.set(Some(ended));
    let result = match &outcome {
        Ok(value) => moved(value),
        Err(error) => -i64::from(error.errno()),
    };
    note_span(
        began,
        ended,
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
pub fn note(began: Instant, what: What) {
    note_span(began, Instant::now(), what);
}

/// As [`note`], of what was over then.
pub fn note_span(began: Instant, ended: Instant, what: What) {
    let conn = conn();
    with_ring(|ring| {
        if ring.records.len() == TRACE_RECORDS_MAX {
            ring.records.pop_front();
            ring.is_full = true;
        }
        ring.records.push_back(Record {
            began,
            ended,
            conn,
            what,
        });
    });
}

/// Records what this thread's connection has asked for at a time. It is escaped when it is shown.
pub fn note_asked(at: Instant, name: &[u8], phases: Option<Phases>) {
    let conn = conn();
    let name = &name[..name.len().min(LOG_TEXT_BYTES_MAX)];
    with_ring(|ring| {
        if ring.asked.len() == TRACE_NAMES_MAX
            && let Some(oldest) = ring.asked.pop_front()
        {
            ring.names.drain(..oldest.name_bytes);
        }
        ring.names.extend(name);
        ring.asked.push_back(Asked {
            conn,
            at,
            name_bytes: name.len(),
            phases,
        });
    });
}

/// From now on this thread, which is a loop's, has its ring for itself from the first record of a turn until
/// it hands it over.
pub fn hold() {
    OWN.with_borrow_mut(|own| own.holds = true);
}

/// What this thread has recorded can be seen by others.
pub fn hand_over() {
    OWN.with_borrow_mut(|own| own.held = None);
}

/// A thread's ring.
#[derive(Debug)]
struct Own {
    /// `None` if there are too many threads.
    ring: OnceCell<Option<&'static Mutex<Ring>>>,
    holds: bool,
    held: Option<MutexGuard<'static, Ring>>,
}

fn with_ring(act: impl FnOnce(&mut Ring)) {
    OWN.with_borrow_mut(|own| {
        if let Some(held) = &mut own.held {
            act(held);
        } else if let Some(ring) = own.ring.get_or_init(new_ring) {
            let mut ring = lock(ring);
            act(&mut ring);
            own.held = own.holds.then_some(ring);
        }
    });
}

/// It stays for as long as the process does, as what it has recorded does.
fn new_ring() -> Option<&'static Mutex<Ring>> {
    let mut rings = lock(&RINGS);
    if rings.len() == TRACE_THREADS_MAX {
        return None;
    }
    let thread = thread::current().name().unwrap_or("thread").to_owned();
    let ring = Box::leak(Box::new(Mutex::new(Ring {
        thread,
        ..Ring::default()
    })));
    rings.push(ring);
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
