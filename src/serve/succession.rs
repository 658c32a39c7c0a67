//! Restarts without a gap. SIGUSR2 starts the program that lies at our path now; it is given the listeners
//! over a socket, which is its stdin, and says when it is ready. Until then this process serves, and after
//! that it drains. Both accept from the same queues, so nobody is refused and nobody is lost.

use std::env;
use std::fs::{self, File};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{self, Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;

use mio::net::TcpListener;
use rustix::cmsg_space;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use socket2::SockRef;

use super::sources::SUCCESSOR;
use crate::failure::{Exit, Failure};
use crate::limits::SUCCESSOR_TIMEOUT;
use crate::reactor::Remote;

/// Tells a process that its stdin leads to the one whose listeners it takes over.
const TAKES_OVER: &str = "CARAFE_TAKES_OVER";

/// What was meant for this process and isn't for its successor.
const NOT_INHERITED: [&str; 4] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"];

/// Where a listener comes from, which decides how its end is dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It was bound here, for one loop.
    Own,
    /// A unix socket whose file was made here. All loops share it.
    File,
    /// It was passed by a service manager. All loops share it.
    Passed,
    /// It is for the metrics.
    Metrics,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Own, Self::File, Self::Passed, Self::Metrics];
}

/// Listeners by kind.
pub(super) type Listeners = Vec<(Kind, TcpListener)>;

// ---- the process that goes ----

/// What a successor is given, and how far it is.
#[derive(Debug)]
pub(super) struct Succession {
    program: PathBuf,
    listeners: Vec<(Kind, Weak<TcpListener>)>,
    remote: Remote,
    is_starting: bool,
    /// What has become of the start.
    started: Arc<Mutex<Option<Result<Successor, String>>>>,
}

/// A process that is ready to serve. Unless it is told to, it ends with this.
#[derive(Debug)]
pub(super) struct Successor {
    socket: OwnedFd,
    child: Child,
}

impl Successor {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it serve.
    pub(super) fn go(self) -> io::Result<()> {
        say(&self.socket, GO)
    }
}

impl Succession {
    pub(super) fn new(remote: Remote) -> Self {
        Self {
            program: own_path(),
            listeners: Vec::new(),
            remote,
            is_starting: false,
            started: Arc::default(),
        }
    }

    /// These are a loop's.
    pub(super) fn add(&mut self, listeners: impl IntoIterator<Item = (Kind, Weak<TcpListener>)>) {
        self.listeners.extend(listeners);
    }

    /// Starts a successor, aside. Its end or its readiness is a [`SUCCESSOR`] for the loop.
    pub(super) fn begin(&mut self) {
        if self.is_starting {
            log::info!("a new process is being started already");
            return;
        }
        let sockets = self.listeners.iter();
        let sockets = sockets.filter_map(|(kind, socket)| Some((*kind, socket.upgrade()?)));
        let sockets: Vec<_> = sockets.collect();
        let (program, remote) = (self.program.clone(), self.remote.clone());
        let started = Arc::clone(&self.started);
        let start = move || {
            let result = start(&program, &sockets);
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
    pub(super) fn take(&mut self) -> Option<Successor> {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        let result = started.take();
        drop(started);
        self.is_starting = false;
        let failed = |why| log::warn!("{why}; this process goes on");
        result?.map_err(failed).ok()
    }
}

/// The path by which this program was started, if what lies there is this program; else where it is now.
fn own_path() -> PathBuf {
    let running = env::current_exe().unwrap_or_default();
    let named = env::args_os().next().map(PathBuf::from);
    let identity = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    named
        .filter(|path| path.components().count() > 1)
        .and_then(|path| path::absolute(path).ok())
        .filter(|path| identity(path).is_some_and(|file| Some(file) == identity(&running)))
        .unwrap_or(running)
}

/// Starts the program and gives it the listeners. When this returns well, it is ready.
fn start(program: &Path, sockets: &[(Kind, Arc<TcpListener>)]) -> Result<Successor, String> {
    let cannot = |error: io::Error| format!("a new process can't be started: {error}");
    let (socket, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|errno| cannot(errno.into()))?;
    let ours = SockRef::from(&socket);
    ours.set_read_timeout(Some(SUCCESSOR_TIMEOUT))
        .map_err(cannot)?;
    ours.set_write_timeout(Some(SUCCESSOR_TIMEOUT))
        .map_err(cannot)?;
    let mut args = env::args_os();
    let mut command = Command::new(program);
    command.arg0(args.next().unwrap_or_default()).args(args);
    for variable in NOT_INHERITED {
        command.env_remove(variable);
    }
    command.env(TAKES_OVER, "1").stdin(theirs);
    let mut child = command.spawn().map_err(cannot)?;
    // Its end is to be seen.
    drop(command);
    match introduce(&socket, sockets) {
        Ok(()) => Ok(Successor { socket, child }),
        Err(error) => {
            // One that has ended has its status already.
            let _ = child.kill();
            let status = child.wait().map_err(cannot)?;
            Err(format!("the new process is not ready ({error}, {status})"))
        }
    }
}

/// Gives the listeners away, and waits until they are taken.
fn introduce(socket: &OwnedFd, sockets: &[(Kind, Arc<TcpListener>)]) -> io::Result<()> {
    for (kind, listener) in sockets {
        let descriptors = [listener.as_fd()];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let message = [*kind as u8];
        let message = [IoSlice::new(&message)];
        sendmsg(socket, &message, &mut control, SendFlags::NOSIGNAL)?;
    }
    say(socket, THAT_IS_ALL)?;
    match hear(socket.as_fd())? {
        Heard::Byte(READY) => Ok(()),
        Heard::End => Err(io::Error::other("it has ended")),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

// ---- the words between them ----

// A kind and a listener, or one of these.
const THAT_IS_ALL: u8 = b'.';
const READY: u8 = b'r';
const GO: u8 = b'g';

/// One message.
enum Heard {
    Byte(u8),
    Listener(Kind, OwnedFd),
    End,
}

fn say(socket: &OwnedFd, byte: u8) -> io::Result<()> {
    rustix::net::send(socket, &[byte], SendFlags::NOSIGNAL)?;
    Ok(())
}

fn hear(socket: BorrowedFd<'_>) -> io::Result<Heard> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::io::retry_on_intr(|| {
        recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut byte)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    let [byte] = byte;
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    let kind = Kind::ALL.into_iter().find(|&kind| kind as u8 == byte);
    Ok(match (message.bytes, descriptor, kind) {
        (0, _, _) => Heard::End,
        (_, Some(descriptor), Some(kind)) => Heard::Listener(kind, descriptor),
        _ => Heard::Byte(byte),
    })
}

// ---- the process that comes ----

/// The process whose listeners this one takes over, which serves until this one is ready. Our stdin leads
/// to it.
#[derive(Debug)]
pub(super) struct Predecessor(());

impl Predecessor {
    /// If there is one, and its listeners.
    pub(super) fn find() -> Result<Option<(Self, Listeners)>, Failure> {
        if env::var_os(TAKES_OVER).is_none() {
            return Ok(None);
        }
        let mut listeners = Vec::new();
        loop {
            match hear(io::stdin().as_fd()) {
                Ok(Heard::Listener(kind, socket)) => listeners.push((kind, socket.into())),
                Ok(Heard::Byte(THAT_IS_ALL)) => return Ok(Some((Self(()), listeners))),
                Ok(_) => return Err(gone("it has ended")),
                Err(error) => return Err(gone(error)),
            }
        }
    }

    /// Says that this process is ready, and waits until it may serve.
    pub(super) fn take_over(self) -> Result<(), Failure> {
        let stdin = io::stdin();
        rustix::net::send(&stdin, &[READY], SendFlags::NOSIGNAL).map_err(gone)?;
        match hear(stdin.as_fd()) {
            Ok(Heard::Byte(GO)) => {}
            Ok(_) => return Err(gone("it stops")),
            Err(error) => return Err(gone(error)),
        }
        let nothing = File::open("/dev/null").and_then(|file| Ok(rustix::stdio::dup2_stdin(file)?));
        nothing.map_err(gone)
    }
}

fn gone(why: impl std::fmt::Display) -> Failure {
    let line = format!("the process before this one has handed nothing over: {why}");
    Failure::new(Exit::Failed, line)
}
