//! Restarts without a gap. SIGUSR2 has the program that lies at our path now started, by a process that does
//! nothing else ([`Starter`]). The new one is given the listeners over a socket, which is its stdin, and says when
//! it is ready. Until then this process serves, and after that it drains. Both accept from the same queues, so
//! nobody is refused and nobody is lost.

mod message;
mod starter;

use std::env;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;

use mio::net::TcpListener;
use socket2::SockRef;

use super::sources::SUCCESSOR;
use crate::failure::{Exit, Failure};
use crate::limits::SUCCESSOR_TIMEOUT;
use crate::reactor::Remote;

use message::{Message, receive, send};
use starter::TAKES_OVER;

pub(crate) use starter::{Starter, run_if_told};

/// Where a listener comes from, which decides how its end is dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListenerKind {
    /// It was bound here, for one loop.
    Own,
    /// A unix socket whose file was made here. All loops share it.
    File,
    /// It was passed by a service manager. All loops share it.
    Passed,
    /// It is for the metrics.
    Metrics,
}

impl ListenerKind {
    const ALL: [Self; 4] = [Self::Own, Self::File, Self::Passed, Self::Metrics];
}

/// Listeners by kind.
pub(crate) type Listeners = Vec<(ListenerKind, TcpListener)>;

// ---- the process that goes ----

/// What a successor is given, and how far it is.
#[derive(Debug)]
pub(crate) struct Succession {
    starter: Arc<io::Result<Starter>>,
    listeners: Vec<(ListenerKind, Weak<TcpListener>)>,
    remote: Remote,
    is_starting: bool,
    /// What has become of the start.
    started: Arc<Mutex<Option<Result<Successor, String>>>>,
}

/// A process that is ready to serve. Unless it is told to, it ends with this.
#[derive(Debug)]
pub(crate) struct Successor {
    pid: u32,
    socket: OwnedFd,
}

impl Successor {
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Has it serve.
    pub(crate) fn go(self) -> io::Result<()> {
        send(&self.socket, GO, None)
    }
}

impl Succession {
    pub(crate) fn new(starter: io::Result<Starter>, remote: Remote) -> Self {
        Self {
            starter: Arc::new(starter),
            listeners: Vec::new(),
            remote,
            is_starting: false,
            started: Arc::default(),
        }
    }

    /// These are a loop's.
    pub(crate) fn add(
        &mut self,
        listeners: impl IntoIterator<Item = (ListenerKind, Weak<TcpListener>)>,
    ) {
        self.listeners.extend(listeners);
    }

    /// Starts a successor, aside. Its end or its readiness is a [`SUCCESSOR`] for the loop.
    pub(crate) fn begin(&mut self) {
        if self.is_starting {
            log::info!("a new process is being started already");
            return;
        }
        let sockets = self.listeners.iter();
        let sockets = sockets.filter_map(|(kind, socket)| Some((*kind, socket.upgrade()?)));
        let sockets: Vec<_> = sockets.collect();
        let (starter, remote) = (Arc::clone(&self.starter), self.remote.clone());
        let started = Arc::clone(&self.started);
        let start = move || {
            let result = start(&starter, &sockets);
            drop(sockets);
            *started.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
            if let Err(error) = remote.notify(SUCCESSOR) {
                log::error!("the loop can't be woken: {error}");
            }
        };
        match thread::Builder::new().name("successor".into()).spawn(start) {
            Ok(_) => self.is_starting = true,
            Err(error) => log::warn!("no thread to start a new process: {error}"),
        }
    }

    /// The successor that is ready.
    pub(crate) fn take(&mut self) -> Option<Successor> {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        let result = started.take();
        drop(started);
        self.is_starting = false;
        let failed = |why| log::warn!("{why}; this process goes on");
        result?.map_err(failed).ok()
    }
}

/// Has the program started and gives it the listeners. When this returns well, it is ready.
fn start(
    starter: &io::Result<Starter>,
    sockets: &[(ListenerKind, Arc<TcpListener>)],
) -> Result<Successor, String> {
    let cannot = |error: &io::Error| format!("a new process can't be started: {error}");
    let starter = starter.as_ref().map_err(cannot)?;
    let (pid, socket) = starter.start().map_err(|error| cannot(&error))?;
    match introduce(&socket, sockets) {
        Ok(()) => Ok(Successor { pid, socket }),
        Err(error) => {
            let status = starter.kill().map_err(|error| cannot(&error))?;
            Err(format!("the new process is not ready ({error}, {status})"))
        }
    }
}

/// Gives the listeners away, and waits until they are taken.
fn introduce(socket: &OwnedFd, sockets: &[(ListenerKind, Arc<TcpListener>)]) -> io::Result<()> {
    let ours = SockRef::from(socket);
    ours.set_read_timeout(Some(SUCCESSOR_TIMEOUT))?;
    ours.set_write_timeout(Some(SUCCESSOR_TIMEOUT))?;
    for (kind, listener) in sockets {
        send(socket, &[*kind as u8], Some(listener.as_fd()))?;
    }
    send(socket, THAT_IS_ALL, None)?;
    match &*receive(socket.as_fd())?.bytes {
        READY => Ok(()),
        [] => Err(io::Error::other("it has ended")),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

// ---- the words between them ----

// A kind's byte with a listener, or one of these.
const THAT_IS_ALL: &[u8] = b".";
const READY: &[u8] = b"r";
const GO: &[u8] = b"g";

// ---- the process that comes ----

/// The process whose listeners this one takes over, which serves until this one is ready. Our stdin leads
/// to it.
#[derive(Debug)]
pub(crate) struct Predecessor(());

impl Predecessor {
    /// If there is one, and its listeners.
    pub(crate) fn find() -> Result<Option<(Self, Listeners)>, Failure> {
        if env::var_os(TAKES_OVER).is_none() {
            return Ok(None);
        }
        let mut listeners = Vec::new();
        loop {
            let Message { bytes, descriptor } = receive(io::stdin().as_fd()).map_err(gone)?;
            let kind = ListenerKind::ALL
                .into_iter()
                .find(|&kind| bytes == [kind as u8]);
            match (kind, descriptor) {
                (Some(kind), Some(socket)) => listeners.push((kind, socket.into())),
                _ if bytes == THAT_IS_ALL => return Ok(Some((Self(()), listeners))),
                _ => return Err(gone("it has ended")),
            }
        }
    }

    /// Says that this process is ready, and waits until it may serve.
    pub(crate) fn take_over(self) -> Result<(), Failure> {
        let stdin = io::stdin();
        send(&stdin, READY, None).map_err(gone)?;
        if receive(stdin.as_fd()).map_err(gone)?.bytes != GO {
            return Err(gone("it stops"));
        }
        let nothing = File::open("/dev/null").and_then(|file| Ok(rustix::stdio::dup2_stdin(file)?));
        nothing.map_err(gone)
    }
}

fn gone(why: impl std::fmt::Display) -> Failure {
    let line = format!("the process before this one has handed nothing over: {why}");
    Failure::new(Exit::Failed, line)
}
