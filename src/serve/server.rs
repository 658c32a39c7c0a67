//! A server: a loop with its listeners, and the application on it.

use std::io;
use std::iter;
use std::sync::Weak;
use std::time::Duration;

use mio::net::TcpListener;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ};
use signal_hook_mio::v1_0::Signals;

use super::conn_record::ConnRecord;
use super::fd_budget::FdBudget;
use super::serving::Serving;
use super::telemetry::{Telemetry, TelemetryConfig};
use crate::conn::Timeouts;
use crate::daemon::address::ListenAddress;
use crate::daemon::args::ListenArgs;
use crate::daemon::listeners::{ClientListener, say_lower_somaxconn};
use crate::daemon::sources::{SIGNALS, STOP};
use crate::daemon::succession::{ListenerKind, Starter, Succession};
use crate::failure::{Exit, Failure};
use crate::protocol::Protocol;
use crate::reactor::{ListenerId, Reactor, Remote};
use crate::telemetry::Stats;
use crate::telemetry::log_writer::LineWriter;

/// What would end the process by default. SIGXFSZ comes with the EFBIG of a file that has reached a limit
/// of the process, such as the access log.
const SIGNALS_TAKEN: [i32; 6] = [SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGXFSZ];

/// A protocol on its own loop, listening.
#[allow(
    missing_debug_implementations,
    reason = "signal-hook's Signals has none"
)]
pub struct Server<P> {
    pub(super) reactor: Reactor<ConnRecord>,
    pub(super) app: Serving<P>,
    pub(super) addresses: Vec<ListenAddress>,
    /// Of its listeners, in their order.
    kinds: Vec<ListenerKind>,
    pub(super) log_writer: LineWriter,
}

impl<P: Protocol> Server<P> {
    pub(super) fn start(
        protocol: P,
        timeouts: Timeouts,
        listen: &ListenArgs,
        listeners: Vec<ClientListener>,
        fd_budget: FdBudget,
        log_writer: LineWriter,
        telemetry: TelemetryConfig,
    ) -> Result<Self, Failure> {
        say_lower_somaxconn(listen.backlog);
        let most = fd_budget.connections_max(0);
        let server = Self::new(protocol, timeouts, listeners, most, log_writer);
        let mut server = server.map_err(no_loop)?;
        server.app.drain_timeout = listen.drain;
        let mut signals = Signals::new(SIGNALS_TAKEN).map_err(no_loop)?;
        if telemetry.hangups {
            signals.add_signal(SIGHUP).map_err(no_loop)?;
        }
        server
            .reactor
            .add_source(&mut signals, SIGNALS)
            .map_err(no_loop)?;
        server.app.signals = Some(signals);
        server.app.telemetry = Telemetry::begin(telemetry, &mut server.reactor).map_err(no_loop)?;
        Ok(server)
    }

    /// Says where it listens.
    pub(super) fn announce(&self) {
        for address in &self.addresses {
            self.log_writer
                .announce(&format_args!("listening on {address}"));
        }
        if let Some(address) = self.app.telemetry.metrics() {
            self.log_writer
                .announce(&format_args!("metrics on {address}"));
        }
    }

    /// A server on listeners that are bound and non-blocking, without signals.
    ///
    /// # Errors
    /// The poll can't be made.
    pub fn new(
        protocol: P,
        timeouts: Timeouts,
        listeners: Vec<impl Into<ClientListener>>,
        connections_max: usize,
        log_writer: LineWriter,
    ) -> io::Result<Self> {
        let (mut sockets, mut socket_files, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
        for listener in listeners {
            let ClientListener { socket, kind, file } = listener.into();
            sockets.push(socket);
            socket_files.extend(file);
            kinds.push(kind);
        }
        let addresses = sockets
            .iter()
            .map(ListenAddress::of)
            .collect::<Result<_, _>>()?;
        let mut reactor = Reactor::new(sockets, connections_max)?;
        for (id, _) in (0..)
            .zip(&kinds)
            .filter(|&(_, &kind)| kind == ListenerKind::Passed)
        {
            reactor.share(ListenerId(id));
        }
        let app = Serving::new(
            protocol,
            timeouts,
            &reactor,
            connections_max,
            socket_files,
            log_writer.clone(),
        );
        Ok(Self {
            reactor,
            app,
            addresses,
            kinds,
            log_writer,
        })
    }

    /// Lets a SIGUSR2 replace it by another process.
    pub(super) fn allow_succession(&mut self, starter: io::Result<Starter>) {
        let mut succession = Succession::new(starter, self.reactor.remote());
        succession.add(self.listeners());
        self.app.succession = Some(succession);
    }

    /// Its listeners, by kind.
    pub(super) fn listeners(&self) -> Vec<(ListenerKind, Weak<TcpListener>)> {
        // What was added after those for clients is the metrics'.
        let kinds = self
            .kinds
            .iter()
            .copied()
            .chain(iter::repeat(ListenerKind::Metrics));
        kinds.zip(self.reactor.listeners()).collect()
    }

    /// Where it listens, with the real ports.
    #[must_use]
    pub fn addresses(&self) -> &[ListenAddress] {
        &self.addresses
    }

    /// Stops it from another thread, as the first signal does.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(self.reactor.remote())
    }

    /// How long a stop may take.
    pub fn set_drain(&mut self, drain_timeout: Duration) {
        self.app.drain_timeout = drain_timeout;
    }

    /// Runs until it is stopped, and says what it counted.
    ///
    /// # Errors
    /// The poll fails.
    pub fn run(mut self) -> io::Result<Stats> {
        self.reactor.run(&mut self.app)?;
        Ok(self.reactor.stats().clone())
    }
}

pub(super) fn no_loop(error: io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("the loop can't be made: {error}"))
}

/// Stops a [`Server`].
#[derive(Clone, Debug)]
pub struct Stopper(Remote);

impl Stopper {
    /// Begins the drain.
    ///
    /// # Errors
    /// As [`Remote::notify`].
    pub fn stop(&self) -> io::Result<()> {
        self.0.notify(STOP)
    }
}
