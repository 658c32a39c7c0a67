//! Sockets that listen already when this process starts: systemd passes them (sd_listen_fds(3)).

use std::os::fd::OwnedFd;

use listenfd::ListenFd;
use mio::net::TcpListener;
use socket2::SockRef;

use crate::failure::Failure;

/// What was passed.
#[derive(Debug, Default)]
pub(super) struct Passed {
    /// For clients.
    pub(super) clients: Vec<TcpListener>,
    /// For the metrics: a socket with that name (`FileDescriptorName=` in systemd.socket(5)).
    pub(super) metrics: Option<TcpListener>,
}

/// The metrics' name.
const METRICS: &str = "metrics";

impl Passed {
    /// Takes them. The environment is changed, so no other thread may run yet.
    pub(super) fn take() -> Result<Self, Failure> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut passed = Self::default();
        let mut descriptors = ListenFd::from_env();
        for index in 0..descriptors.len() {
            let socket = listener(&mut descriptors, index).ok_or_else(|| {
                // sd_listen_fds(3): the first one is 3.
                let number = index + 3;
                Failure::usage(format!(
                    "LISTEN_FDS: descriptor {number} won't do: it takes a stream socket that listens \
                     (Accept=no)"
                ))
            })?;
            if names.next() == Some(METRICS) {
                passed.metrics = Some(socket);
            } else {
                passed.clients.push(socket);
            }
        }
        Ok(passed)
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
