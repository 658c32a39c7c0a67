//! What the service manager is told (sd_notify(3)): from the loop's own turn, so that a loop that stands
//! falls silent, and is restarted where systemd has a WatchdogSec.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use rustix::time::{ClockId, clock_gettime};

use super::sources::RELOADED;
use super::workers::Worker;
use crate::escape::Escaped;
use crate::limits::{SERVICE_RETRY, SERVICE_STATUS_EVERY, WATCHDOG_BEATS};
use crate::reactor::Remote;
use crate::telemetry::Stats;

/// The service manager, if there is one.
#[derive(Debug)]
pub(crate) struct ServiceManager {
    socket: UnixDatagram,
    address: SocketAddr,
    /// It restarts us if it hears nothing for so long.
    watchdog: Option<Duration>,
    next_beat: Instant,
    next_status: Instant,
    /// Of which figures the status is that it has: accepted, open, replied.
    status_of: Option<(u64, u64, u64)>,
    is_draining: bool,
    /// Another process is the service's main one by now.
    is_succeeded: bool,
    /// What has begun to be opened anew, and is not yet.
    reloads: u32,
    /// What it must know, and had no room for.
    unsaid: VecDeque<String>,
    /// It couldn't be told something, which was warned of.
    is_deaf: bool,
}

impl ServiceManager {
    /// As the environment names it.
    pub(crate) fn of_environment() -> Option<Self> {
        let name = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())?;
        let manager = Self::at(&name, watchdog());
        if let Err(error) = &manager {
            let shown = Escaped(name.as_bytes());
            log::warn!("NOTIFY_SOCKET \"{shown}\" is no service manager's: {error}");
        }
        manager.ok()
    }

    fn at(name: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => return Err(io::Error::other("it begins with neither / nor @")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        let now = Instant::now();
        Ok(Self {
            socket,
            address,
            watchdog,
            next_beat: now,
            next_status: now,
            status_of: None,
            is_draining: false,
            is_succeeded: false,
            reloads: 0,
            unsaid: VecDeque::new(),
            is_deaf: false,
        })
    }

    /// Within what time every loop must have turned.
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// It serves.
    pub(crate) fn ready(&mut self) {
        self.say("READY=1".to_owned());
    }

    /// Files are opened anew, until nobody holds what is returned any more.
    pub(crate) fn reloading(&mut self, remote: Remote) -> Arc<Reload> {
        self.reloads += 1;
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.say(format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
        Arc::new(Reload(remote))
    }

    /// Files have been opened anew.
    pub(crate) fn reloaded(&mut self) {
        self.reloads = self.reloads.saturating_sub(1);
        if self.reloads == 0 && !self.is_draining && !self.is_succeeded {
            self.ready();
        }
    }

    /// Another process serves now, and says the rest.
    pub(crate) fn succeeded_by(&mut self, pid: u32) {
        self.is_succeeded = true;
        self.say(format!("MAINPID={pid}"));
    }

    /// A drain begins.
    pub(crate) fn stopping(&mut self) {
        if self.is_succeeded {
            return;
        }
        self.is_draining = true;
        (self.status_of, self.next_status) = (None, Instant::now());
        self.say("STOPPING=1".to_owned());
    }

    /// A turn of the first loop is over: the watchdog hears of it, if the other loops turn, too. Returns when
    /// the next one must be over.
    pub(crate) fn turn_over(
        &mut self,
        stats: &Stats,
        now: Instant,
        worker: &Worker,
    ) -> Option<Instant> {
        let retry = self.unsaid.pop_front().and_then(|text| {
            self.say(text);
            (!self.unsaid.is_empty()).then_some(now + SERVICE_RETRY)
        });
        if self.is_succeeded {
            return retry;
        }
        let beat = self.watchdog.map(|watchdog| {
            if now >= self.next_beat {
                let every = watchdog / WATCHDOG_BEATS;
                self.next_beat = now + every;
                if worker.all_turned_within(every, now) {
                    self.tell("WATCHDOG=1");
                }
            }
            self.next_beat
        });
        let status = self.update_status(stats, now, worker);
        retry.into_iter().chain(beat).chain(status).min()
    }

    /// Says how many there are, now and then and only if it has changed. Returns when it will have to.
    fn update_status(&mut self, stats: &Stats, now: Instant, worker: &Worker) -> Option<Instant> {
        let figures = (stats.accepted, stats.open(), stats.replies());
        if self.status_of == Some(figures) {
            return None;
        }
        if now >= self.next_status {
            self.status_of = Some(figures);
            self.next_status = now + SERVICE_STATUS_EVERY;
            let status = self.status(worker.sum_with(stats));
            self.tell(&status);
            return None;
        }
        Some(self.next_status)
    }

    fn status(&self, stats: Stats) -> String {
        let doing = if self.is_draining {
            "draining"
        } else {
            "serving"
        };
        let (open, accepted, replies) = (stats.open(), stats.accepted, stats.replies());
        let sent = ByteSize(stats.bytes_sent);
        format!("STATUS={doing}: {open} open, {accepted} accepted, {replies} replied, {sent} sent")
    }

    /// Says what must arrive.
    fn say(&mut self, text: String) {
        if self.tell(&text) == Told::NoRoom {
            self.unsaid.push_front(text);
        }
    }

    fn tell(&mut self, text: &str) -> Told {
        match self.socket.send_to_addr(text.as_bytes(), &self.address) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Told::NoRoom,
            Err(error) if self.is_deaf => {
                log::debug!("the service manager can't be told {text:?}: {error}");
            }
            Err(error) => {
                self.is_deaf = true;
                log::warn!("the service manager (NOTIFY_SOCKET) can't be told {text:?}: {error}");
            }
            Ok(_) => {}
        }
        Told::Told
    }
}

#[derive(PartialEq)]
enum Told {
    Told,
    NoRoom,
}

/// Something is being opened anew while anybody has this; then the loop is told.
#[derive(Debug)]
pub(crate) struct Reload(Remote);

impl Drop for Reload {
    fn drop(&mut self) {
        if let Err(error) = self.0.notify(RELOADED) {
            log::error!("the loop can't be woken: {error}");
        }
    }
}

/// sd_watchdog_enabled(3): it may be meant for another process.
fn watchdog() -> Option<Duration> {
    let micros: u64 = env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    let pid = env::var("WATCHDOG_PID").ok();
    let is_ours = pid.is_none_or(|pid| pid == process::id().to_string());
    (is_ours && micros > 0).then(|| Duration::from_micros(micros))
}
