//! What each rule says, the mistake that breaks it, and where the rule is kept.

use crate::core::Rule;

pub struct Text {
    pub rule: Rule,
    /// What the command line and the pages call it.
    pub name: &'static str,
    pub title: &'static str,
    /// What the broken core does.
    pub mistake: &'static str,
    /// Why that matters.
    pub why: &'static str,
    /// Where pour.rs keeps the rule, and where carafe does.
    pub pour: &'static str,
    pub carafe: &'static str,
    pub manual: &'static str,
    /// Descriptors for connections that there are in its runs.
    pub descriptors: u8,
}

pub const ALL: [Text; 11] = [
    Text {
        rule: Rule::AcceptAgain,
        name: "accept-again",
        title: "Out of descriptors, accept again when one is free",
        mistake: "When accept fails with EMFILE, the server goes back to waiting for the listener.",
        why: "The listener's edge has come, and was used up. Who waits in the backlog makes no new one: the client is \
              connected, its name is sent, and nobody will ever look.",
        pour: "Reactor::accept",
        carafe: "src/reactor/listener.rs",
        manual: "accept(2), EMFILE",
        descriptors: 1,
    },
    Text {
        rule: Rule::RegisterBoth,
        name: "register-both",
        title: "Register a socket once, for both directions",
        mistake: "A socket is registered for reading, since a request comes first. That it will be written to is \
                  thought of later, or not.",
        why: "It works for every file that fits into the send buffer. A longer one waits for room, and the edge that \
              tells of room isn't asked for.",
        pour: "Reactor::accept",
        carafe: "src/reactor/conn_slab.rs",
        manual: "epoll_ctl(2), EPOLLIN and EPOLLOUT",
        descriptors: 2,
    },
    Text {
        rule: Rule::ReadUntilWouldBlock,
        name: "read-until-would-block",
        title: "Read until WouldBlock, or go to the run queue",
        mistake: "For each edge, one read.",
        why: "Bytes that come before the server has looked share one edge. One read takes some of them; of the others \
              no edge tells again.",
        pour: "Conn::read_name",
        carafe: "src/conn/reading.rs",
        manual: "epoll(7), EPOLLET",
        descriptors: 2,
    },
    Text {
        rule: Rule::ZeroRead,
        name: "zero-read",
        title: "After a zero-length read the client says no more, and still listens",
        mistake: "A read of zero bytes means that the client has gone, so the connection is closed.",
        why: "It means that the client has shut its side. One that ends its name so (`nc -N`, `socat`) waits for its file. \
              Only without a name is there nothing to do but close.",
        pour: "Conn::read_name",
        carafe: "src/conn/reading.rs",
        manual: "shutdown(2), SHUT_WR",
        descriptors: 2,
    },
    Text {
        rule: Rule::WriteFirst,
        name: "write-first",
        title: "Write first, wait after",
        mistake: "When the name is whole, the server waits until the socket becomes writable, and writes then.",
        why: "It has been writable all the time. That edge came when the socket was registered, and was used up by a \
              step that had nothing to write.",
        pour: "Conn::step, Action::Enter",
        carafe: "src/conn.rs",
        manual: "epoll(7), question 9",
        descriptors: 2,
    },
    Text {
        rule: Rule::ShortWrite,
        name: "short-write",
        title: "A short write is no error, and isn't everything",
        mistake: "What write returns isn't looked at: no error, so all was sent.",
        why: "A socket that doesn't block takes what it has room for. The skipped part is missing from the middle, and \
              the end comes in good order: the client has a file that looks whole.",
        pour: "Conn::send",
        carafe: "src/conn/sending.rs",
        manual: "send(2), write(2)",
        descriptors: 2,
    },
    Text {
        rule: Rule::Budget,
        name: "budget",
        title: "A step has a budget, and who used it up goes behind the others",
        mistake: "A step sends until WouldBlock, as reading does.",
        why: "A client that takes bytes as fast as they come never makes a send block. Until it has all of its file, \
              whatever its size, the loop serves nobody else.",
        pour: "Conn::send, SENT_BYTES_MAX",
        carafe: "src/conn/sending.rs",
        manual: "epoll(7), starvation",
        descriptors: 2,
    },
    Text {
        rule: Rule::ResetWhatIsCut,
        name: "reset-what-is-cut",
        title: "What is cut must look cut",
        mistake: "The file has become shorter than was promised, so the server closes the connection.",
        why: "By the bare protocol the end of the connection is the end of the file. A close in order says: this is all. \
              With SO_LINGER on, and zero seconds, close sends a reset, and the client sees an error.",
        pour: "Conn::step, Action::Reset",
        carafe: "src/conn.rs",
        manual: "socket(7), SO_LINGER",
        descriptors: 2,
    },
    Text {
        rule: Rule::DrainBeforeClose,
        name: "drain-before-close",
        title: "Shut, read what is unread, then close",
        mistake: "When the last byte is written, the socket is closed.",
        why: "Written means: copied into the kernel. A close while input is unread sends a reset, and what had not \
              arrived by then never does. One byte too many from the client, and it loses the end of its file.",
        pour: "Conn::send, Conn::discard",
        carafe: "src/conn/closing.rs",
        manual: "RFC 9112 9.6; RFC 2525 2.17",
        descriptors: 2,
    },
    Text {
        rule: Rule::FreeAtTheEnd,
        name: "free-at-the-end",
        title: "Free nothing within a turn",
        mistake: "A connection that ends is freed at once, with its key.",
        why: "One connection can be meant twice in a turn: by the run queue, and by an event that was fetched before. In \
              between its key may have become a newcomer's, who gets what was meant for the other: here a hang-up.",
        pour: "Reactor::turn",
        carafe: "src/reactor/shutdown.rs",
        manual: "epoll(7), event caches",
        descriptors: 2,
    },
    Text {
        rule: Rule::Generations,
        name: "generations",
        title: "A key is no identity: it needs a generation",
        mistake: "A deadline remembers its connection by its key.",
        why: "Deadlines, like all that outlives a turn, may come when their connection has gone and its key is another's. \
              The newcomer is closed for being late with its name, in half of its time.",
        pour: "there a deadline is in its connection, and dies with it",
        carafe: "src/reactor/timer_wheel.rs",
        manual: "epoll(7), event caches",
        descriptors: 2,
    },
];
