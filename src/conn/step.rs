//! What the steps of all states share: what a step may use, what it asks the driver for, and how long
//! things may take.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use super::transport::Transport;
use crate::escape::Excerpt;
use crate::file::{DiskTask, TaskResult};
use crate::limits::SUSPENDED_CHECK_INTERVAL;
use crate::reactor::event::{Action, StepContext};
use crate::telemetry::Reason;
use crate::telemetry::response::Response;

/// How long a connection may take, as the flags say.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From accept to the end of the request; absolute.
    pub request: Duration,
    /// Between requests.
    pub keep_alive: Duration,
    /// Without enough acknowledged while sending.
    pub stall: Duration,
    /// Bytes a second that are enough.
    pub min_rate: u64,
    /// Without an answer from the disk that a file is on.
    pub disk: Duration,
}

impl Timeouts {
    /// What a peer must have acknowledged after so long to be waited for on. One byte at least.
    pub(super) fn least_bytes(&self, within: Duration) -> u64 {
        let bytes = within.as_millis().saturating_mul(self.min_rate.into()) / 1000;
        u64::try_from(bytes).unwrap_or(u64::MAX).max(1)
    }
}

/// What a step works with.
#[derive(Debug)]
pub struct StepIo<'a, 't, T, P> {
    /// The socket.
    pub transport: &'a mut T,
    /// Who answers.
    pub protocol: &'a mut P,
    /// How long things may take.
    pub timeouts: &'a Timeouts,
    /// The time, the scratch buffer and the deadline.
    pub turn: &'a mut StepContext<'t>,
    /// Takes what became of replies after which the connection goes on.
    pub finished: &'a mut Vec<Response>,
    /// Takes what a disk thread shall do. The connection is suspended until it has the result.
    pub task: &'a mut Option<DiskTask>,
    /// What the connection's last disk task came to, if it is done.
    pub task_result: &'a mut Option<TaskResult>,
}

impl<'t, P> StepIo<'_, 't, (), P> {
    /// For one step over a transport.
    pub fn over<'b, T>(&'b mut self, transport: &'b mut T) -> StepIo<'b, 't, T, P> {
        StepIo {
            transport,
            protocol: self.protocol,
            timeouts: self.timeouts,
            turn: self.turn,
            finished: self.finished,
            task: self.task,
            task_result: self.task_result,
        }
    }
}

/// What one step of a state asks the driver for. `N` is what the state may become.
pub(super) enum Step<N> {
    Stay(Action),
    /// Enter another state, whose first attempt is made at once.
    Enter(N),
    /// Enter another state, whose first attempt was made already, and would block.
    EnterWaiting(N),
}

/// Goes on waiting for a disk, until the disk's time is over.
pub(super) fn await_disk<T: Transport, P>(
    io: &mut StepIo<'_, '_, T, P>,
    since: Instant,
    target: &[u8],
) -> Action {
    let disk = io.timeouts.disk;
    if io.turn.now >= since + disk {
        let name = Excerpt::of_request(target);
        log::warn!("\"{name}\": the disk has not answered within {disk:?}");
        return Action::Reset(Reason::DiskTimeout);
    }
    go_on_waiting(io, since, since + disk)
}

/// Goes on waiting for what is no readiness. A FIN doesn't tell whether the client has left or has
/// no more to say, so it keeps its place unless others need that.
pub(super) fn go_on_waiting<T: Transport, P>(
    io: &mut StepIo<'_, '_, T, P>,
    since: Instant,
    until: Instant,
) -> Action {
    let now = io.turn.now;
    let others_come_first =
        io.turn.is_crowded && !io.turn.draining && now >= since + SUSPENDED_CHECK_INTERVAL;
    if others_come_first && io.transport.peer_has_finished() {
        return Action::Reset(Reason::ClientLeft);
    }
    io.turn.deadline = Some(until.min(now + SUSPENDED_CHECK_INTERVAL));
    Action::Suspend
}

/// Whose fault an error of the socket is: the peer's or the network's, or else ours.
pub(super) fn blame(error: &io::Error) -> Reason {
    let is_peers = matches!(
        error.kind(),
        ErrorKind::BrokenPipe
            | ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NotConnected
            | ErrorKind::TimedOut
    );
    if is_peers {
        log::debug!("the connection broke: {error}");
        Reason::PeerReset
    } else {
        log::warn!("a socket failed: {error}");
        Reason::SendFailed
    }
}
