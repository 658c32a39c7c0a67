//! How a request ends: exactly one class each, counted, with one sample of every failure.

macro_rules! classes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $fails:literal;)*) => {
        /// A way for a request to end. This table is the only one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Class {
            $($(#[$doc])* $name,)*
        }

        impl Class {
            /// All classes, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What reports and `--fail-if` call it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Whether it counts as a failure.
            pub const fn is_failure(self) -> bool {
                match self { $(Self::$name => $fails,)* }
            }
        }
    };
}

classes! {
    /// The whole body came, and was right as far as it was checked.
    Complete = "complete", false;
    /// The client broke off, as its kind does.
    Aborted = "aborted", false;
    /// A client that says nothing was closed by the server without a byte.
    IdleClosed = "idle_closed", false;
    /// Still under way when the run was over; nothing had gone wrong.
    Unfinished = "unfinished", false;
    /// The connection was refused.
    Refused = "refused", true;
    /// No route, or another error while connecting.
    Unreachable = "unreachable", true;
    /// No local port was free (EADDRNOTAVAIL).
    OutOfPorts = "out_of_ports", true;
    /// No descriptor was free on our side (EMFILE, ENFILE).
    OutOfDescriptors = "out_of_descriptors", true;
    /// TLS could not be set up.
    TlsFailed = "tls_failed", true;
    /// The connection broke before the first byte of the answer.
    ResetBefore = "reset_before_first_byte", true;
    /// The connection broke after the first byte of the answer.
    ResetAfter = "reset_after_first_byte", true;
    /// The answer ended in order, but without a byte, and one was expected.
    Empty = "empty", true;
    /// The answer ended in order and early.
    Short = "short", true;
    /// A byte was wrong, or there was one too many.
    Corrupt = "corrupt", true;
    /// Nothing came for the timeout.
    Timeout = "timeout", true;
    /// HTTP: another status than 200.
    Status = "status", true;
    /// HTTP: an answer that is none.
    BadAnswer = "bad_answer", true;
}
