//! Sockets that listen already when this process starts: systemd passes them (sd_listen_fds(3)), or the
//! process that this one succeeds.

use std::os::fd::OwnedFd;

use listenfd::ListenFd;
use mio::net::TcpListener;
use socket2::SockRef;

use super::succession::{ListenerKind, Listeners, Predecessor};
use crate::daemon::args::{ListenArgs, ServeArgs};
use crate::escape::Escaped;
use crate::failure::Failure;
use crate::limits::PASSED_SOCKETS_MAX;
use crate::sockopt;

/// What was passed.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    /// For clients.
    pub(crate) clients: Listeners,
    /// For the metrics: a socket with that name (`FileDescriptorName=` in systemd.socket(5)).
    pub(crate) metrics: Option<TcpListener>,
    /// They are all that there are: this process succeeds another one.
    pub(crate) is_succession: bool,
    /// That one, until it is told.
    pub(crate) predecessor: Option<Predecessor>,
}

/// The metrics' name.
const METRICS: &str = "metrics";

impl Passed {
    /// Takes them. The environment is changed, so no other thread may run yet.
    pub(crate) fn take() -> Result<Self, Failure> {
        let mut passed = Self::default();
        let listeners = match Predecessor::find()? {
            Some((predecessor, listeners)) => {
                passed.is_succession = true;
                passed.predecessor = Some(predecessor);
                listeners
            }
            None => of_service_manager()?,
        };
        for (kind, socket) in listeners {
            if kind != ListenerKind::Metrics {
                passed.clients.push((kind, socket));
            } else if passed.metrics.replace(socket).is_some() {
                return Err(Failure::usage(format!(
                    "LISTEN_FDNAMES: several sockets are called {METRICS}: there is one for them"
                )));
            }
        }
        Ok(passed)
    }

    /// Takes the metrics' socket, which makes a flag for them one too many.
    pub(crate) fn take_metrics(&mut self, is_asked: bool) -> Result<Option<TcpListener>, Failure> {
        if is_asked && self.metrics.is_some() && !self.is_succession {
            return Err(Failure::usage(format!(
                "--metrics: a socket called {METRICS} was passed already"
            )));
        }
        Ok(self.metrics.take())
    }

    /// What would bound nobody is refused.
    pub(crate) fn check_rate(&self, args: &ServeArgs) -> Result<(), Failure> {
        let binds_ip = args.listen.bind.is_empty() || args.listen.ip_addresses().next().is_some();
        let has_ip = |(_, socket): &(ListenerKind, TcpListener)| !sockopt::is_unix(socket);
        let is_needless = args.limit_rate.is_some() && !binds_ip;
        if is_needless && !self.clients.iter().any(has_ip) {
            return Err(Failure::usage(
                "--limit-rate: takes an address to listen on, since unix sockets know no rate"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// On how many addresses each of so many loops will listen.
    pub(crate) fn addresses(&self, listen: &ListenArgs, loops: u64) -> usize {
        if self.is_succession {
            let loops = usize::try_from(loops).unwrap_or(usize::MAX);
            return self.clients.len().div_ceil(loops);
        }
        listen.bind.len() + self.clients.len()
    }
}

fn of_service_manager() -> Result<Listeners, Failure> {
    check_count()?;
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut descriptors = ListenFd::from_env();
    let count = descriptors.len();
    let take = |index| {
        let socket = listener(&mut descriptors, index).ok_or_else(|| {
            // sd_listen_fds(3): the first one is 3.
            let number = index + 3;
            Failure::usage(format!(
                "LISTEN_FDS: descriptor {number} won't do: it takes a stream socket that listens \
                 (Accept=no)"
            ))
        })?;
        let kind = match names.next() {
            Some(METRICS) => ListenerKind::Metrics,
            _ => ListenerKind::Passed,
        };
        Ok((kind, socket))
    };
    (0..count).map(take).collect()
}

/// What is no number, or no likely one, is refused before anything is made for so many.
fn check_count() -> Result<(), Failure> {
    let for_whom = std::env::var("LISTEN_PID").ok();
    let is_ours = for_whom.and_then(|pid| pid.parse().ok()) == Some(std::process::id());
    let Some(count) = std::env::var_os("LISTEN_FDS").filter(|_| is_ours) else {
        return Ok(());
    };
    let number = count.to_str().and_then(|count| count.parse().ok());
    match number {
        Some(0..=PASSED_SOCKETS_MAX) => Ok(()),
        _ => Err(Failure::usage(format!(
            "LISTEN_FDS: '{}' won't do: it takes a number of sockets, {PASSED_SOCKETS_MAX} at most",
            Escaped(count.as_encoded_bytes())
        ))),
    }
}

fn listener(descriptors: &mut ListenFd, index: usize) -> Option<TcpListener> {
    let families = [libc::AF_INET, libc::AF_UNIX];
    let socket: OwnedFd = families.into_iter().find_map(|family| {
        let taken = descriptors.take_custom(index, family, libc::SOCK_STREAM, "stream socket");
        taken.ok().flatten()
    })?;
    let is_listener = SockRef::from(&socket).is_listener().is_ok_and(|is| is);
    SockRef::from(&socket).set_nonblocking(true).ok()?;
    is_listener.then(|| socket.into())
}
