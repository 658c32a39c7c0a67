//! Where the time of each reply goes. The clock is read before and after each step and each answer of the
//! protocol; what lies between belongs to one phase. For what a full send buffer had waited, the kernel
//! tells (tcp(7), TCP_INFO).

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::conn::Conn;
use crate::daemon::args::ServeArgs;
use crate::limits::{LONG_STEP, TCP_INFO_TICK, THREAD_CLOCK_AGE_MAX};
use crate::protocol::{Decision, Protocol, Request};
use crate::reactor::event::{Action, Event};
use crate::sockopt::TcpTimes;
use crate::telemetry::Stage;
use crate::telemetry::access_log::LogFormat;
use crate::telemetry::phases::{Phase, Phases};
use crate::trace::record;
use crate::trace::transport::TracedSocket;

/// What a loop needs to time its replies.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timings {
    /// Whether anybody wants to know.
    is_on: bool,
    /// Heads of answers tell it (Server-Timing).
    tells_clients: bool,
    /// What the loop's thread had run when that was looked at last.
    thread: Option<(Instant, Duration)>,
    /// When the last two turns with a step began.
    turns: Option<[Instant; 2]>,
    /// When the step that comes began, if somebody has read the clock for it.
    step_began: Option<Instant>,
}

/// The times of one connection's replies.
#[derive(Debug)]
pub(super) struct Timing {
    tells_clients: bool,
    /// When what this step reads had come.
    came: Instant,
    /// When this step began.
    began: Instant,
    /// When the last reply was over.
    over_since: Option<Instant>,
    under_way: Option<TimedReply>,
    /// Replies that are over and not yet counted, in their order.
    over: VecDeque<TimedReply>,
}

/// A reply whose request has come.
#[derive(Debug)]
struct TimedReply {
    phases: Phases,
    /// All time before belongs to a phase.
    until: Instant,
    /// What the time from then on belongs to.
    awaits: Phase,
    is_answered: bool,
    /// What the kernel had counted when its send buffer was full for the first time.
    full: Option<(Instant, TcpTimes)>,
}

impl Timings {
    /// Replies are timed if a flag shows what comes of it.
    pub(super) fn new(args: &ServeArgs, has_metrics: bool) -> Self {
        let is_logged = args.access_log.is_some() && args.log_format == Some(LogFormat::Json);
        let is_shown = has_metrics || args.trace.is_some() || is_logged;
        Self {
            is_on: is_shown || args.server_timing,
            tells_clients: args.server_timing,
            ..Self::default()
        }
    }

    /// A step begins now; the clock need not be read again for it.
    pub(super) fn note_step(&mut self, now: Instant) {
        self.step_began = Some(now);
    }

    /// A client is stepped in the turn that began at `turn`.
    #[inline]
    pub(super) fn begin(
        &mut self,
        timing: &mut Option<Box<Timing>>,
        event: Event,
        turn: Instant,
        socket: &TracedSocket<'_>,
    ) {
        if self.is_on {
            self.note_begin(timing, event, turn, socket);
        }
    }

    fn note_begin(
        &mut self,
        timing: &mut Option<Box<Timing>>,
        event: Event,
        turn: Instant,
        socket: &TracedSocket<'_>,
    ) {
        let now = self.step_began.take().unwrap_or_else(Instant::now);
        if self
            .thread
            .is_none_or(|(at, _)| now - at > THREAD_CLOCK_AGE_MAX)
        {
            self.thread = Some((now, thread_time()));
        }
        let turns = match self.turns {
            Some(turns @ [_, last]) if last == turn => turns,
            Some([_, last]) => [last, turn],
            None => [turn; 2],
        };
        self.turns = Some(turns);
        let timing = timing.get_or_insert_with(|| Box::new(Timing::new(now, self.tells_clients)));
        timing.began = now;
        match &mut timing.under_way {
            Some(reply) => {
                reply.pass(reply.awaits, turn);
                reply.pass(Phase::Loop, now);
            }
            None => timing.came = timing.came(event, turns, socket),
        }
    }

    /// The step is over, and wants this.
    #[inline]
    pub(super) fn end(
        &self,
        timing: &mut Option<Box<Timing>>,
        conn: &Conn,
        action: Action,
        socket: &TracedSocket<'_>,
    ) {
        if let Some(timing) = timing {
            self.note_end(timing, conn, action, socket);
        }
    }

    fn note_end(
        &self,
        timing: &mut Timing,
        conn: &Conn,
        action: Action,
        socket: &TracedSocket<'_>,
    ) {
        let Some(mut reply) = timing.under_way.take() else {
            return;
        };
        // What it has been given, the kernel has had since the last call.
        let last_call = record::last_call().filter(|&at| at > timing.began);
        let now = last_call.unwrap_or_else(Instant::now);
        let phase = if reply.is_answered {
            Phase::Sending
        } else {
            Phase::LookUp
        };
        reply.pass(phase, now);
        reply
            .phases
            .shift(phase, Phase::Loop, self.stood_still(timing.began, now));
        let ends = matches!(action, Action::Close(_) | Action::Reset(_));
        if ends || (reply.is_answered && conn.stage() != Stage::Sending) {
            if !reply.phases.get(Phase::Network).is_zero() {
                reply.settle(socket.tcp_times());
            }
            timing.over.push_back(reply);
            timing.over_since = Some(now);
            return;
        }
        reply.awaits = match action {
            Action::Suspend if conn.awaits_task() => Phase::Disk,
            Action::Suspend => Phase::Descriptor,
            Action::Wait => Phase::Network,
            Action::Yield | Action::Close(_) | Action::Reset(_) => Phase::Loop,
        };
        if action == Action::Wait && reply.full.is_none() {
            reply.full = socket.tcp_times().map(|times| (now, times));
        }
        timing.under_way = Some(reply);
    }

    /// How much of a step the loop's thread did not run: the process was stopped, others had its core, or
    /// a call waited after all.
    fn stood_still(&self, began: Instant, ended: Instant) -> Duration {
        match self.thread {
            Some((at, ran)) if ended - began >= LONG_STEP => {
                let ran = thread_time().saturating_sub(ran);
                (ended - at).saturating_sub(ran).min(ended - began)
            }
            _ => Duration::ZERO,
        }
    }
}

impl Timing {
    fn new(now: Instant, tells_clients: bool) -> Self {
        Self {
            tells_clients,
            came: now,
            began: now,
            over_since: None,
            under_way: None,
            over: VecDeque::new(),
        }
    }

    /// When what is read now had come. Before the turn saw it, it may have lain in the receive queue since
    /// the turn before, or for turns in which its edge had no step ([`Event::Resume`]); what came while a
    /// reply was under way waited for that.
    fn came(
        &self,
        event: Event,
        [before, turn]: [Instant; 2],
        socket: &TracedSocket<'_>,
    ) -> Instant {
        let may_have_lain = match event {
            Event::Resume => true,
            Event::Start | Event::Ready(_) => turn - before >= TCP_INFO_TICK,
            _ => false,
        };
        if !may_have_lain {
            return turn;
        }
        let lay = socket.tcp_times().map(|times| times.since_data_came);
        let came = match lay.filter(|&lay| lay > TCP_INFO_TICK) {
            Some(lay) => self.began.checked_sub(lay).unwrap_or(turn),
            None => turn,
        };
        self.over_since
            .map_or(came, |over| came.max(over))
            .min(self.began)
    }

    fn is_sending(&self) -> bool {
        self.under_way
            .as_ref()
            .is_some_and(|reply| reply.is_answered)
    }

    /// The protocol was asked, at this time if a reply before is not yet over, and has decided.
    fn decided(&mut self, asked: Option<Instant>, decision: &mut Decision) {
        let now = Instant::now();
        if matches!(decision, Decision::NeedMore { .. }) {
            // The client's time goes on.
            self.under_way.take_if(|reply| !reply.is_answered);
            return;
        }
        let mut reply = match self.under_way.take() {
            Some(reply) if !reply.is_answered => reply,
            Some(mut before) => {
                let asked = asked.unwrap_or(now);
                before.pass(Phase::Sending, asked);
                self.over.push_back(before);
                TimedReply::new(self.came, asked)
            }
            None => TimedReply::new(self.came, self.began),
        };
        reply.pass(Phase::LookUp, now);
        if let Decision::Reply(answer) = decision {
            reply.is_answered = true;
            if self.tells_clients {
                tell(&mut answer.head, &reply.phases);
            }
        }
        self.under_way = Some(reply);
    }
}

/// How long a reply took, from its request's arrival to its last byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReplyTime {
    pub(super) whole: Duration,
    pub(super) phases: Option<Phases>,
    /// How long ago its request came.
    pub(super) asked_ago: Duration,
}

impl ReplyTime {
    /// Of the first reply that its client's timing has not told of. If nothing was timed, nobody wants to
    /// know more than how long it took from turn to turn.
    pub(super) fn new(
        timing: &mut Option<Box<Timing>>,
        took: Duration,
        asked_ago: Duration,
    ) -> Self {
        let timed = timing.as_mut().and_then(|timing| timing.over.pop_front());
        let phases = timed.map(|reply| reply.phases);
        let whole = phases.as_ref().map_or(took, Phases::total);
        Self {
            whole,
            phases,
            asked_ago,
        }
    }
}

impl TimedReply {
    /// For a request that `came`, and that the loop has looked at since `seen`.
    fn new(came: Instant, seen: Instant) -> Self {
        let mut reply = Self {
            phases: Phases::default(),
            until: came,
            awaits: Phase::Loop,
            is_answered: false,
            full: None,
        };
        reply.pass(Phase::Loop, seen);
        reply
    }

    /// The time until then belongs to this phase.
    fn pass(&mut self, phase: Phase, until: Instant) {
        self.phases
            .add(phase, until.saturating_duration_since(self.until));
        self.until = self.until.max(until);
    }

    /// Divides the time for which the send buffer was full. The kernel counts for how long it had bytes
    /// that weren't sent or acknowledged, and for how much of that the peer's window had no room. When it had none,
    /// it waited for us: in the phases in which we did other things for this reply, and beyond them
    /// because the loop didn't come.
    fn settle(&mut self, now: Option<TcpTimes>) {
        let waited = self.phases.get(Phase::Network);
        let (Some((since, before)), Some(after)) = (self.full, now) else {
            // A unix socket's buffer is full until its peer reads.
            self.phases.shift(Phase::Network, Phase::Client, waited);
            return;
        };
        let span = self.until - since;
        let idle = span.saturating_sub(after.busy.saturating_sub(before.busy));
        let ours = idle.saturating_sub(span.saturating_sub(waited));
        if ours > TCP_INFO_TICK {
            self.phases.shift(Phase::Network, Phase::Loop, ours);
        }
        let closed = after.window_full.saturating_sub(before.window_full);
        self.phases.shift(Phase::Network, Phase::Client, closed);
    }
}

/// What a thread has run so far.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // It is never negative.
    Duration::try_from(time).unwrap_or_default()
}

/// Adds to an answer's head where the time went until it was made: Server-Timing, in milliseconds.
fn tell(head: &mut Vec<u8>, phases: &Phases) {
    const END: &str = "\r\n\r\n";
    if !head.ends_with(END.as_bytes()) {
        return;
    }
    let mut field = String::from("\r\nServer-Timing: ");
    for (index, (phase, time)) in phases.spent().enumerate() {
        let comma = if index > 0 { ", " } else { "" };
        let (name, micros) = (phase.as_str(), time.as_micros());
        let (millis, micros) = (micros / 1000, micros % 1000);
        let _ = write!(field, "{comma}{name};dur={millis}.{micros:03}");
    }
    head.truncate(head.len() - END.len());
    head.extend_from_slice(field.as_bytes());
    head.extend_from_slice(END.as_bytes());
}

/// A protocol whose answers are timed, if anybody wants to know.
#[derive(Debug)]
pub(super) struct Timed<'a, P> {
    protocol: &'a mut P,
    timing: Option<&'a mut Timing>,
}

impl<'a, P> Timed<'a, P> {
    pub(super) fn new(protocol: &'a mut P, timing: Option<&'a mut Timing>) -> Self {
        Self { protocol, timing }
    }
}

impl<P: Protocol> Protocol for Timed<'_, P> {
    fn respond(&mut self, request: &Request<'_>) -> Decision {
        let Some(timing) = &mut self.timing else {
            return self.protocol.respond(request);
        };
        let asked = timing.is_sending().then(Instant::now);
        let mut decision = self.protocol.respond(request);
        timing.decided(asked, &mut decision);
        decision
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A reply whose request came 5 ms before the loop saw it, and that instant.
    fn reply() -> (TimedReply, Instant) {
        let seen = Instant::now() + 5 * MS;
        (
            TimedReply::new(seen.checked_sub(5 * MS).unwrap(), seen),
            seen,
        )
    }

    #[test]
    fn no_time_is_lost_or_counted_twice() {
        let (mut reply, seen) = reply();
        let mut at = seen;
        for (millis, phase) in [
            (1, Phase::LookUp),
            (20, Phase::Disk),
            (2, Phase::Loop),
            (3, Phase::Sending),
        ] {
            at += millis * MS;
            reply.pass(phase, at);
            // A turn that began before is no news.
            reply.pass(Phase::Network, at.checked_sub(MS).unwrap());
        }
        assert_eq!(reply.phases.total(), 31 * MS);
        let spent: Vec<_> = reply
            .phases
            .spent()
            .map(|(phase, time)| (phase, time.as_millis()))
            .collect();
        let all = [
            (Phase::Loop, 7),
            (Phase::LookUp, 1),
            (Phase::Disk, 20),
            (Phase::Sending, 3),
        ];
        assert_eq!(spent, all);
    }

    /// Of 100 ms after the send buffer was full first, 70 with it full, as the kernel saw them.
    fn settled(busy: u64, closed: u64) -> Phases {
        let (mut reply, seen) = reply();
        let times = |busy, closed| TcpTimes {
            since_data_came: Duration::ZERO,
            busy: Duration::from_millis(busy),
            window_full: Duration::from_millis(closed),
        };
        reply.full = Some((seen, times(1_000, 500)));
        reply.pass(Phase::Network, seen + 70 * MS);
        reply.pass(Phase::Sending, seen + 100 * MS);
        reply.settle(Some(times(1_000 + busy, 500 + closed)));
        assert_eq!(reply.phases.total(), 105 * MS);
        reply.phases
    }

    #[test]
    fn the_kernel_says_for_whom_a_full_buffer_waited() {
        for (busy, closed, of_loop, client, network) in [
            (100, 0, 0, 0, 70),
            (100, 60, 0, 60, 10),
            // It was idle, while its own reply was given to the kernel.
            (70, 60, 0, 60, 10),
            // It was idle for longer than that: nobody came.
            (40, 0, 30, 0, 40),
            (0, 0, 70, 0, 0),
            // Ticks say more than there was.
            (110, 90, 0, 70, 0),
        ] {
            let phases = settled(busy, closed);
            let found = [Phase::Loop, Phase::Client, Phase::Network].map(|phase| phases.get(phase));
            assert_eq!(
                found,
                [(5 + of_loop) * MS, client * MS, network * MS],
                "{busy} {closed}"
            );
        }
    }

    #[test]
    fn only_a_head_is_told() {
        let mut phases = Phases::default();
        phases.add(Phase::LookUp, Duration::from_micros(1_234));
        phases.add(Phase::Disk, 20 * MS);
        let mut head = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n".to_vec();
        tell(&mut head, &phases);
        let told =
            "HTTP/1.1 200 OK\r\nA: b\r\nServer-Timing: lookup;dur=1.234, disk;dur=20.000\r\n\r\n";
        assert_eq!(head, told.as_bytes());
        let mut none = Vec::new();
        tell(&mut none, &phases);
        assert!(none.is_empty());
    }
}
