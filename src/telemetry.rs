//! Counters, one block a loop. Every connection ends for exactly one reason, and
//! `accepted = sum of reasons + open` holds at the end of every turn.

pub mod access_log;
pub mod exposition;
pub(crate) mod line_text;
mod log_file;
pub mod log_writer;
pub mod logger;
pub mod phases;
pub mod rate_limit;
pub mod response;
mod stamp;

use std::fmt;
use std::ops::AddAssign;
use std::time::Duration;

use crate::limits::HISTOGRAM_BOUNDS;
use phases::{Phase, Phases};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a reply or a connection ended. This table is the only one: log lines and counters
        /// use it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// All reasons, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What log lines and summaries call it, of a reply.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// Every byte promised was accepted by the kernel.
    Complete = "complete",
    /// The name brings no file; the peer saw an orderly close without a byte.
    Refused = "refused",
    /// The client shut its side before a whole request had come, or while it waited for a disk or
    /// a descriptor and others needed its place.
    ClientLeft = "client left",
    /// No complete request came in time.
    RequestTimeout = "request timeout",
    /// It had not asked for anything, or took next to nothing of what it was sent, when its place, or the
    /// memory of its partial request, was needed for others.
    Evicted = "evicted",
    /// Its client has as many connections as one client may have.
    TooManyConnections = "too many connections",
    /// There was no memory for what it sent.
    OutOfMemory = "out of memory",
    /// The peer acknowledged nothing for the stall timeout.
    Stalled = "stalled",
    /// The peer reset the connection, or it broke.
    PeerReset = "reset by peer",
    /// A trusted proxy that didn't say for whom it speaks, or not so that it could be understood.
    BadProxyHeader = "bad PROXY header",
    /// It spoke TLS, and broke its rules or found nothing in common with this server.
    TlsFailed = "TLS failed",
    /// The file ended before the length that was promised.
    FileShort = "file became shorter",
    /// The file was overwritten in place while it was sent.
    FileChanged = "file changed",
    /// The file could not be read.
    ReadFailed = "read failed",
    /// The file could not be opened, and that is not the name's fault.
    OpenFailed = "open failed",
    /// No descriptor for the file became free in time.
    NoDescriptor = "no descriptor",
    /// The disk that the file is on did not answer in time.
    DiskTimeout = "disk timeout",
    /// The socket could not be written, and that is not the peer's fault.
    SendFailed = "send failed",
    /// The poll failed, or would not watch the socket.
    PollFailed = "poll failed",
    /// The drain's deadline came first.
    DrainDeadline = "drain deadline",
    /// A second signal ended everything.
    Stopped = "stopped",
}

impl Reason {
    /// What they call it of a connection. Which answer was its last is a matter of replies: a
    /// connection that has carried it to its end was closed, as one that was idle is.
    #[must_use]
    pub const fn of_connection(self) -> &'static str {
        match self {
            Self::Complete | Self::Refused => "closed",
            reason => reason.as_str(),
        }
    }

    /// Those for which connections are counted: one for each word.
    pub fn of_connections() -> impl Iterator<Item = Self> {
        let all = Self::ALL.iter().copied();
        all.filter(|&reason| reason != Self::Refused)
    }

    const fn index_of_connection(self) -> usize {
        match self {
            Self::Refused => Self::Complete as usize,
            reason => reason as usize,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a connection does, seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Waits for a request or the rest of one.
    Reading,
    /// Was kept alive, and waits for another request.
    Idle,
    /// Sends a reply.
    Sending,
    /// Has sent everything, and waits for the peer's FIN.
    Closing,
}

impl Stage {
    /// All stages, in their order.
    pub const ALL: [Self; 4] = [Self::Reading, Self::Idle, Self::Sending, Self::Closing];

    /// What counters call it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reading => "reading",
            Self::Idle => "idle",
            Self::Sending => "sending",
            Self::Closing => "closing",
        }
    }
}

/// A histogram of durations.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// A bucket for each of [`HISTOGRAM_BOUNDS`], and one for what took longer.
    counts: [u64; HISTOGRAM_BOUNDS.len() + 1],
    total: Duration,
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, took: Duration) {
        // From the shortest on, since nearly all are short.
        let bucket = HISTOGRAM_BOUNDS.iter().position(|&bound| took <= bound);
        self.counts[bucket.unwrap_or(HISTOGRAM_BOUNDS.len())] += 1;
        self.total += took;
    }

    /// The counts of the buckets that end at each of [`HISTOGRAM_BOUNDS`], and of what took longer.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// The sum of all durations.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.total
    }
}

impl AddAssign<&Self> for Histogram {
    fn add_assign(&mut self, other: &Self) {
        add_each(&mut self.counts, &other.counts);
        self.total += other.total;
    }
}

/// Adds counters that stand in the same order.
pub(crate) fn add_each(sums: &mut [u64], counts: &[u64]) {
    for (sum, count) in sums.iter_mut().zip(counts) {
        *sum += count;
    }
}

/// The counters of one loop, or of several together.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Connections accepted so far.
    pub accepted: u64,
    /// Connections by the reason for which they ended.
    ended: [u64; Reason::ALL.len()],
    /// Replies by how they ended.
    outcomes: [u64; Reason::ALL.len()],
    /// Replies by the first digit of their status: 1xx first, 5xx last.
    pub replies_by_class: [u64; 5],
    /// Bytes of bodies that the kernel has accepted.
    pub bytes_sent: u64,
    /// From a request's arrival to the last byte of its reply.
    pub requests: Histogram,
    /// From the end of the loop's wait to its next wait.
    pub turns: Histogram,
    /// Clients that had connected and were never accepted, because the drain was over.
    pub never_accepted: u64,
    /// Helpers that panicked while a client waited.
    pub helper_panics: u64,
    /// What replies spent on each phase, in the order of [`Phase::ALL`], once one was timed.
    pub phases: Option<Box<PhaseTimes>>,
}

/// A histogram for each phase.
pub type PhaseTimes = [Histogram; Phase::ALL.len()];

impl Stats {
    /// Counts a new connection.
    pub fn count_accepted(&mut self) {
        self.accepted += 1;
    }

    /// Counts a connection's end.
    pub fn count_ended(&mut self, reason: Reason) {
        self.ended[reason.index_of_connection()] += 1;
    }

    /// Counts a reply: its status, how it ended, how many bytes of its body the kernel has accepted,
    /// and how long that took.
    pub fn count_reply(&mut self, status: u16, outcome: Reason, bytes: u64, took: Duration) {
        self.outcomes[outcome as usize] += 1;
        self.bytes_sent += bytes;
        self.requests.record(took);
        let class = usize::from(status / 100).clamp(1, self.replies_by_class.len());
        self.replies_by_class[class - 1] += 1;
    }

    /// Counts where a reply's time went. A phase on which it spent none isn't counted.
    pub fn count_phases(&mut self, phases: &Phases) {
        let times = self.phases.get_or_insert_default();
        for (phase, time) in phases.spent() {
            times[phase as usize].record(time);
        }
    }

    /// Counts a turn of the loop that took so long, without its wait.
    pub fn count_turn(&mut self, took: Duration) {
        self.turns.record(took);
    }

    /// Replies so far: one for a connection, or more for one that was kept alive.
    #[must_use]
    pub fn replies(&self) -> u64 {
        self.outcomes.iter().sum()
    }

    /// Replies that ended so.
    #[must_use]
    pub fn replied(&self, outcome: Reason) -> u64 {
        self.outcomes[outcome as usize]
    }

    /// Connections that ended for this reason, or another with the same word.
    #[must_use]
    pub fn ended(&self, reason: Reason) -> u64 {
        self.ended[reason.index_of_connection()]
    }

    /// Clients whose connection was reset because the drain was over.
    #[must_use]
    pub fn cut_by_drain(&self) -> u64 {
        self.ended(Reason::DrainDeadline) + self.never_accepted
    }

    /// Connections accepted and not yet ended.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.accepted - self.ended.iter().sum::<u64>()
    }
}

impl AddAssign<&Self> for Stats {
    fn add_assign(&mut self, other: &Self) {
        // By name, so that no counter is forgotten.
        let Self {
            accepted,
            ended,
            outcomes,
            replies_by_class,
            bytes_sent,
            requests,
            turns,
            never_accepted,
            helper_panics,
            phases,
        } = other;
        self.accepted += accepted;
        add_each(&mut self.ended, ended);
        add_each(&mut self.outcomes, outcomes);
        add_each(&mut self.replies_by_class, replies_by_class);
        self.bytes_sent += bytes_sent;
        self.requests += requests;
        self.turns += turns;
        self.never_accepted += never_accepted;
        self.helper_panics += helper_panics;
        if let Some(phases) = phases {
            let sums = self.phases.get_or_insert_default();
            for (sum, times) in sums.iter_mut().zip(phases.iter()) {
                *sum += times;
            }
        }
    }
}

/// One line: clients and each reason for which they ended, replies and each of their outcomes, as far
/// as they occurred, and bytes.
impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "accepted {}", self.accepted)?;
        for reason in Reason::of_connections().filter(|&reason| self.ended(reason) > 0) {
            write!(f, ", {} {}", reason.of_connection(), self.ended(reason))?;
        }
        if self.open() > 0 {
            write!(f, ", open {}", self.open())?;
        }
        write!(f, "; replied {}", self.replies())?;
        for &outcome in Reason::ALL.iter().filter(|&&it| self.replied(it) > 0) {
            write!(f, ", {outcome} {}", self.replied(outcome))?;
        }
        write!(f, "; {} bytes sent", self.bytes_sent)?;
        if self.never_accepted > 0 {
            write!(f, "; {} never accepted", self.never_accepted)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_and_the_counters_agree() {
        let mut stats = Stats::default();
        for (index, &reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(reason as usize, index);
            stats.count_accepted();
            stats.count_ended(reason);
            stats.count_reply(200, reason, 0, Duration::ZERO);
            assert_eq!(stats.replied(reason), 1);
        }
        for reason in Reason::of_connections() {
            let closed = u64::from(reason == Reason::Complete);
            assert_eq!(stats.ended(reason), 1 + closed, "{reason}");
        }
        stats.count_accepted();
        assert_eq!(stats.open(), 1);
    }

    #[test]
    fn a_time_on_the_bound_is_within_it() {
        let mut times = Histogram::default();
        let (first, last) = (
            HISTOGRAM_BOUNDS[0],
            HISTOGRAM_BOUNDS[HISTOGRAM_BOUNDS.len() - 1],
        );
        for took in [Duration::ZERO, first, first + Duration::from_nanos(1)] {
            times.record(took);
        }
        times.record(last + Duration::from_nanos(1));
        assert_eq!(times.counts()[..2], [2, 1]);
        assert_eq!(times.counts().last(), Some(&1));
        assert_eq!(times.total(), 2 * first + last + Duration::from_nanos(2));
    }

    #[test]
    fn statuses_are_counted_by_their_first_digit() {
        let mut stats = Stats::default();
        for status in [200, 206, 304, 404, 499, 500, 999] {
            stats.count_reply(status, Reason::Complete, 0, Duration::ZERO);
        }
        assert_eq!(stats.replies_by_class, [0, 2, 1, 2, 2]);
    }

    #[test]
    fn the_counters_of_several_loops_add_up() {
        let counted = |seconds| {
            let mut stats = Stats::default();
            stats.count_accepted();
            stats.count_ended(Reason::Stalled);
            stats.count_accepted();
            stats.count_reply(404, Reason::Refused, 7, Duration::from_secs(seconds));
            stats.count_turn(Duration::from_secs(seconds));
            stats.never_accepted = seconds;
            stats
        };
        let mut sum = counted(1);
        sum += &counted(2);
        assert_eq!(
            sum.to_string(),
            "accepted 4, stalled 2, open 2; replied 2, refused 2; 14 bytes sent; 3 never accepted"
        );
        assert_eq!(sum.replies(), 2);
        assert_eq!(sum.replies_by_class, [0, 0, 0, 2, 0]);
        for times in [&sum.requests, &sum.turns] {
            assert_eq!(times.counts().iter().sum::<u64>(), 2);
            assert_eq!(times.total(), Duration::from_secs(3));
        }
    }

    #[test]
    fn the_summary_names_what_occurred() {
        let mut stats = Stats::default();
        for (status, outcome) in [(200, Reason::Complete), (404, Reason::Refused)] {
            stats.count_reply(status, outcome, 5, Duration::from_millis(1));
        }
        stats.count_accepted();
        stats.count_accepted();
        stats.count_ended(Reason::Complete);
        assert_eq!(
            stats.to_string(),
            "accepted 2, closed 1, open 1; replied 2, complete 1, refused 1; 10 bytes sent"
        );
    }
}
