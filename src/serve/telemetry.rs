//! Who looks on while a server serves: the access log, and the metrics on a port of their own.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use mio::net::{TcpListener, TcpStream};

use super::conn_record::{Active, ConnRecord, Role};
use super::timing::{ReplyTime, Timings};
use crate::conn::transport::Socket;
use crate::conn::{StepIo, Timeouts};
use crate::daemon::address::ListenAddress;
use crate::daemon::args::ServeArgs;
use crate::daemon::listeners::{bind, cannot_bind};
use crate::daemon::tls::Tls;
use crate::daemon::workers::{Figures, Workers};
use crate::descriptors::{descriptor_limit, open_descriptors};
use crate::escape::Escaped;
use crate::failure::Failure;
use crate::limits::{
    DISK_TIMEOUT, KEEP_ALIVE, METRICS_BACKLOG, METRICS_CONNECTIONS_MAX, MIN_RATE_BYTES,
    REQUEST_TIMEOUT, STALL_TIMEOUT,
};
use crate::peer::{Client, Peer};
use crate::protocol::metrics::Metrics;
use crate::reactor::event::{Action, Event};
use crate::reactor::{Context, ListenerId, Reactor};
use crate::telemetry::Stage;
use crate::telemetry::access_log::{self, AccessLog, LogEntry};
use crate::telemetry::exposition::{self, MetricsSnapshot};
use crate::telemetry::log_writer::LineWriter;
use crate::telemetry::response::Response;
use crate::telemetry::{Reason, Stats};
use crate::trace::file::TraceFile;
use crate::trace::record;
use crate::trace::transport::TracedSocket;

/// Those that the flags ask for, before the server starts.
#[derive(Debug, Default)]
pub(super) struct TelemetryConfig {
    pub(super) access_log: Option<AccessLog>,
    metrics: Option<TcpListener>,
    trace: Option<TraceFile>,
    /// A hangup doesn't end the server: files are opened anew.
    pub(super) hangups: bool,
    pub(super) timings: Timings,
}

impl TelemetryConfig {
    /// `passed`: a listener for the metrics that is there already.
    pub(super) fn open(args: &ServeArgs, passed: Option<TcpListener>) -> Result<Self, Failure> {
        let open = |path: &PathBuf| {
            AccessLog::open(path, args.log_format.unwrap_or_default()).map_err(|error| {
                let shown = Escaped(path.as_os_str().as_encoded_bytes());
                Failure::usage(format!(
                    "--access-log: '{shown}' won't do: it takes a file to append to ({error})"
                ))
            })
        };
        let listen = |at| {
            let only_v6 = false;
            bind(at, METRICS_BACKLOG, only_v6).map_err(|error| cannot_bind(at, "--metrics", &error))
        };
        let metrics = match passed {
            None => args.metrics.map(listen).transpose()?,
            passed => passed,
        };
        Ok(Self {
            access_log: args.access_log.as_ref().map(open).transpose()?,
            timings: Timings::new(args, metrics.is_some()),
            metrics,
            trace: args
                .trace
                .clone()
                .map(|file| TraceFile::start(file, args.trace_for))
                .transpose()?,
            hangups: true,
        })
    }

    /// What a loop beside the first notes: it has no metrics of its own.
    pub(super) fn beside(&self) -> Telemetry {
        Telemetry {
            access_log: self.access_log.clone(),
            timings: self.timings,
            ..Telemetry::default()
        }
    }

    /// Descriptors that the metrics may take.
    pub(super) fn descriptors(&self) -> u64 {
        match self.metrics {
            Some(_) => 1 + METRICS_CONNECTIONS_MAX as u64,
            None => 0,
        }
    }
}

/// How long things may take on a connection of the metrics; the flags are for clients.
pub(super) const TIMEOUTS: Timeouts = Timeouts {
    request: REQUEST_TIMEOUT,
    keep_alive: KEEP_ALIVE,
    stall: STALL_TIMEOUT,
    min_rate: MIN_RATE_BYTES,
    disk: DISK_TIMEOUT,
};

/// What is noted of every connection and every reply, and who reads it.
#[derive(Debug, Default)]
pub(super) struct Telemetry {
    access_log: Option<AccessLog>,
    trace: Option<TraceFile>,
    /// The metrics' listener, and where it listens.
    admin_listener: Option<(ListenerId, ListenAddress)>,
    /// Other loops, whose figures are shown too.
    others: Option<Arc<Workers>>,
    tls: Option<Tls>,
    pub(super) timings: Timings,
    /// Open connections, in the order of [`Stage::ALL`].
    stages: [u64; Stage::ALL.len()],
    started_at: Option<SystemTime>,
}

impl Telemetry {
    pub(super) fn begin(
        config: TelemetryConfig,
        reactor: &mut Reactor<ConnRecord>,
    ) -> io::Result<Self> {
        let mut admin_listener = None;
        if let Some(listener) = config.metrics {
            let address = ListenAddress::of(&listener)?;
            admin_listener = Some((
                reactor.add_admin_listener(listener, METRICS_CONNECTIONS_MAX)?,
                address,
            ));
        }
        Ok(Self {
            admin_listener,
            trace: config.trace,
            started_at: Some(SystemTime::now()),
            access_log: config.access_log,
            timings: config.timings,
            ..Self::default()
        })
    }

    /// Where the metrics are.
    pub(super) fn metrics(&self) -> Option<&ListenAddress> {
        self.admin_listener.as_ref().map(|(_, address)| address)
    }

    /// The metrics show the figures of these loops, too.
    pub(super) fn look_at(&mut self, others: Arc<Workers>) {
        self.others = Some(others);
    }

    /// The metrics show its figures, too.
    pub(super) fn show_tls(&mut self, tls: Tls) {
        self.tls = Some(tls);
    }

    /// Open connections, in the order of [`Stage::ALL`].
    pub(super) fn stages(&self) -> [u64; Stage::ALL.len()] {
        self.stages
    }

    /// Opens the access log anew.
    pub(super) fn reopen(&self) {
        if let Some(log) = &self.access_log {
            log.reopen();
        }
    }

    /// Writes the trace, if there is one.
    pub(super) fn write_trace(&self) {
        if let Some(trace) = &self.trace {
            trace.write();
        }
    }

    /// Ends the trace and the access log, and returns how many of its lines were lost.
    pub(super) fn finish(&mut self) -> u64 {
        drop(self.trace.take());
        self.access_log.as_ref().map_or(0, AccessLog::finish)
    }

    // ---- connections ----

    /// Who came by this listener.
    pub(super) fn on_accept(&mut self, from: ListenerId) -> Role {
        if self
            .admin_listener
            .as_ref()
            .is_some_and(|&(id, _)| id == from)
        {
            return Role::Admin;
        }
        self.stages[Stage::Reading as usize] += 1;
        Role::Client(Stage::Reading)
    }

    /// A client has made a step.
    pub(super) fn on_step(&mut self, client: &mut Active) {
        if let Role::Client(before) = &mut client.role {
            let now = client.conn.stage();
            self.stages[*before as usize] -= 1;
            self.stages[now as usize] += 1;
            *before = now;
        }
    }

    /// A connection has ended.
    pub(super) fn on_close(&mut self, client: &Active) {
        if let Role::Client(stage) = client.role {
            self.stages[stage as usize] -= 1;
        }
    }

    /// A reply is over, for this reason.
    pub(super) fn count_reply(
        &self,
        client: Client,
        response: &Response,
        reason: Reason,
        time: ReplyTime,
        stats: &mut Stats,
    ) {
        let ReplyTime {
            whole: took,
            phases,
            asked_ago,
        } = time;
        if record::is_on() {
            record::note_asked(response.asked_at, &response.target, phases);
        }
        let status = access_log::status(response, reason);
        stats.count_reply(status, reason, response.offset, took);
        if let Some(phases) = &phases {
            stats.count_phases(phases);
        }
        if let Some(log) = &self.access_log {
            log.record(&LogEntry {
                peer: client.peer.address(),
                proxy: client.proxy.map(Peer::address),
                at: access_log::arrival(asked_ago),
                took,
                phases,
                response,
                reason,
            });
        }
    }

    // ---- the metrics ----

    /// Steps a connection of the metrics.
    pub(super) fn answer(
        &self,
        client: &mut Active,
        socket: &mut TcpStream,
        event: Event,
        cx: &mut Context<'_, ConnRecord>,
        log_writer: &LineWriter,
    ) -> Action {
        let stats = &cx.control.stats;
        let mut protocol = Metrics::new(|| {
            let mut sums = Figures {
                stats: stats.clone(),
                stages: self.stages,
            };
            if let Some(others) = &self.others {
                others.add_to(&mut sums);
            }
            exposition::render(MetricsSnapshot {
                stats: sums.stats,
                stages: sums.stages,
                lines_dropped: (
                    log_writer.dropped(),
                    self.access_log.as_ref().map(AccessLog::dropped),
                ),
                started_at: self.started_at,
                descriptors: (open_descriptors(), descriptor_limit()),
                tls: self.tls.as_ref().map(Tls::figures),
            })
        });
        let mut io = StepIo {
            transport: &mut TracedSocket::new(Socket::new(socket)),
            protocol: &mut protocol,
            timeouts: &TIMEOUTS,
            turn: &mut cx.turn,
            finished: &mut Vec::new(),
            // The metrics are no file.
            task: &mut None,
            task_result: &mut None,
        };
        client.conn.step(&mut io, event)
    }
}
