//! Counters, one block a loop. Every connection ends for exactly one reason, and
//! `accepted = sum of reasons + open` holds at the end of every turn.

use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a connection ended. This table is the only one: log lines and counters use it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// All reasons, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What log lines and summaries call it.
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
    /// The client shut its side before a whole request had come.
    ClientLeft = "client left",
    /// No complete request came in time.
    RequestTimeout = "request timeout",
    /// The peer acknowledged nothing for the stall timeout.
    Stalled = "stalled",
    /// The peer reset the connection, or it broke.
    PeerReset = "reset by peer",
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
    /// The socket could not be written, and that is not the peer's fault.
    SendFailed = "send failed",
    /// The poll failed, or would not watch the socket.
    PollFailed = "poll failed",
    /// The drain's deadline came first.
    DrainDeadline = "drain deadline",
    /// A second signal ended everything.
    Stopped = "stopped",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The counters of one loop.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    accepted: u64,
    ended: [u64; Reason::ALL.len()],
    replies: u64,
    bytes_sent: u64,
    /// Clients that had connected and were never accepted, because the drain was over.
    pub left_in_queue: u64,
}

impl Stats {
    /// Counts a new connection.
    pub fn count_accepted(&mut self) {
        self.accepted += 1;
    }

    /// Counts a connection's end.
    pub fn count_ended(&mut self, reason: Reason) {
        self.ended[reason as usize] += 1;
    }

    /// Counts a reply, of whose body the kernel has accepted so many bytes.
    pub fn count_reply(&mut self, bytes: u64) {
        self.replies += 1;
        self.bytes_sent += bytes;
    }

    /// Replies so far: one for a connection, or more for one that was kept alive.
    #[must_use]
    pub fn replies(&self) -> u64 {
        self.replies
    }

    /// Bytes of bodies that the kernel has accepted.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.bytes_sent
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Connections that ended for this reason.
    #[must_use]
    pub fn ended(&self, reason: Reason) -> u64 {
        self.ended[reason as usize]
    }

    /// Clients whose connection was reset because the drain was over.
    #[must_use]
    pub fn cut_by_drain(&self) -> u64 {
        self.ended(Reason::DrainDeadline) + self.left_in_queue
    }

    /// Connections accepted and not yet ended.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.accepted - self.ended.iter().sum::<u64>()
    }
}

/// One line: clients, then each reason that occurred, then bytes.
impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "accepted {}", self.accepted)?;
        for &reason in Reason::ALL.iter().filter(|&&reason| self.ended(reason) > 0) {
            write!(f, ", {reason} {}", self.ended(reason))?;
        }
        if self.open() > 0 {
            write!(f, ", open {}", self.open())?;
        }
        write!(f, "; {} bytes sent", self.bytes_sent)?;
        if self.left_in_queue > 0 {
            write!(f, "; {} never accepted", self.left_in_queue)?;
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
            assert_eq!(stats.ended(reason), 1);
        }
        stats.count_accepted();
        assert_eq!(stats.open(), 1);
    }

    #[test]
    fn the_summary_names_what_occurred() {
        let mut stats = Stats::default();
        stats.count_reply(5);
        stats.count_accepted();
        stats.count_accepted();
        stats.count_ended(Reason::Complete);
        assert_eq!(
            stats.to_string(),
            "accepted 2, complete 1, open 1; 5 bytes sent"
        );
    }
}
