//! The process that starts successors. The server can't: its sandbox has it run no program, and with `--user` it
//! has given up what a new process needs. So before it has given up anything it starts its own program once
//! more, as this. All that it can be told is to start that program again and to kill what it has started: an
//! intruder in the server gains nothing by it.

use std::env;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{self, Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;

use signal_hook::consts::{SIGHUP, SIGUSR1, SIGUSR2};

use super::message::{Message, pair, receive, send};
use crate::failure::{Exit, Failure};

/// Tells a process that its stdin leads to the one whose listeners it takes over.
pub(super) const TAKES_OVER: &str = "CARAFE_TAKES_OVER";

/// Tells a process that it is to be this. Its stdin leads to the server.
const STARTS: &str = "CARAFE_STARTS";

/// What was meant for the server and isn't for its successors.
const NOT_INHERITED: [&str; 5] = [
    STARTS,
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "WATCHDOG_PID",
];

// What the server asks for.
const START: &[u8] = b"s";
const KILL: &[u8] = b"k";

/// The way to that process.
#[derive(Debug)]
pub(crate) struct Starter(OwnedFd);

impl Starter {
    /// Starts it. Who is to have no rights that are given up later calls this before.
    ///
    /// # Errors
    /// The program isn't found, or the kernel has no room.
    pub(crate) fn spawn() -> io::Result<Self> {
        let (ours, theirs) = pair()?;
        Command::new(own_path())
            .args(env::args_os().skip(1))
            .env(STARTS, "1")
            .stdin(theirs)
            // What ends the server from a terminal ends it, not this: so a drain may begin.
            .process_group(0)
            .spawn()?;
        Ok(Self(ours))
    }

    /// Starts a successor: its pid, and the socket that is its stdin.
    pub(super) fn start(&self) -> io::Result<(u32, OwnedFd)> {
        send(&self.0, START, None)?;
        let Message { bytes, descriptor } = receive(self.0.as_fd())?;
        let text = String::from_utf8_lossy(&bytes);
        match (text.parse(), descriptor) {
            (Ok(pid), Some(socket)) => Ok((pid, socket)),
            _ if bytes.is_empty() => Err(io::Error::other("who would start it has ended")),
            _ => Err(io::Error::other(text)),
        }
    }

    /// Kills the last one, if it hasn't ended, and says how it ended.
    pub(super) fn kill(&self) -> io::Result<String> {
        send(&self.0, KILL, None)?;
        let message = receive(self.0.as_fd())?;
        Ok(String::from_utf8_lossy(&message.bytes).into_owned())
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

/// Is that process, if it is to be: until the server ends.
///
/// # Errors
/// Stdin isn't what it should be.
pub(crate) fn run_if_told() -> Option<Result<Exit, Failure>> {
    env::var_os(STARTS)?;
    let failed = |error| {
        Failure::new(
            Exit::Failed,
            format!("nobody to start a process for: {error}"),
        )
    };
    Some(run().map(|()| Exit::Done).map_err(failed))
}

fn run() -> io::Result<()> {
    // Who sends these to all processes of a name means servers.
    for signal in [SIGHUP, SIGUSR1, SIGUSR2] {
        signal_hook::flag::register(signal, Arc::default())?;
    }
    let (server, mut last) = (io::stdin(), None);
    loop {
        let message = receive(server.as_fd())?;
        match (&*message.bytes, &mut last) {
            (START, last) => match start() {
                Ok((child, socket)) => {
                    let pid = child.id().to_string();
                    *last = Some(child);
                    send(&server, pid.as_bytes(), Some(socket.as_fd()))?;
                }
                Err(error) => send(&server, error.to_string().as_bytes(), None)?,
            },
            (KILL, Some(child)) => {
                // One that has ended has its status already.
                let _ = child.kill();
                send(&server, child.wait()?.to_string().as_bytes(), None)?;
            }
            _ => return Ok(()),
        }
    }
}

fn start() -> io::Result<(Child, OwnedFd)> {
    let (ours, theirs) = pair()?;
    let mut args = env::args_os();
    let mut command = Command::new(args.next().unwrap_or_default());
    for variable in NOT_INHERITED {
        command.env_remove(variable);
    }
    command.args(args).env(TAKES_OVER, "1").stdin(theirs);
    Ok((command.spawn()?, ours))
}
