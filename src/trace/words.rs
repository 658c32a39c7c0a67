//! What happened, in words: its name, the rule that decided what came of it, and where to read on.

use std::io;

use super::record::{Awaited, Call, Record, TaskKind, What};
use crate::limits::STEP_BYTES_MAX;
use crate::reactor::event::{Action, Event, Readiness};
use crate::telemetry::{Reason, Stage};

/// What is said of a record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Words {
    /// What it is called, as others of its kind.
    pub(super) name: &'static str,
    /// What happened.
    pub(super) title: String,
    /// The rule that decided it.
    pub(super) rule: &'static str,
    /// The manual page, as `man` names it.
    pub(super) man: &'static str,
    /// The function here.
    pub(super) function: &'static str,
}

/// The system call's name as strace has it, its manual page, our function, and what it is for.
type CallWords = (&'static str, &'static str, &'static str, &'static str);

/// Each call, in the order of [`Call`].
const CALLS: [(Call, CallWords); 32] = [
    (
        Call::Accept,
        (
            "accept4",
            "accept(2)",
            "Reactor::accept",
            "Who has connected is let in until the queue is empty, 128 a turn at most: only then does an edge come again.",
        ),
    ),
    (
        Call::Receive,
        (
            "recvfrom",
            "recv(2)",
            "Transport::read",
            "What has come is read; a reading of zero bytes is the peer's FIN.",
        ),
    ),
    (
        Call::Send,
        (
            "sendto",
            "send(2)",
            "Transport::write",
            "The kernel takes what its send buffer has room for.",
        ),
    ),
    (
        Call::SendGathered,
        (
            "sendmsg",
            "send(2)",
            "Transport::write_gathered",
            "Head and body go out by one call, so that they share segments.",
        ),
    ),
    (
        Call::SendFile,
        (
            "sendfile",
            "sendfile(2)",
            "Transport::send_file",
            "The kernel takes the file's bytes from its page cache, and no copy goes through the process.",
        ),
    ),
    (
        Call::Flush,
        (
            "setsockopt",
            "tcp(7)",
            "Transport::flush",
            "TCP_NODELAY sends what MSG_MORE has held back: nothing follows in this step.",
        ),
    ),
    (
        Call::Guard,
        (
            "setsockopt",
            "socket(7)",
            "Conn::set_abort_on_close",
            "SO_LINGER: should the process die while this client waits, it sees a reset and no end that looks whole.",
        ),
    ),
    (
        Call::AskTcpInfo,
        (
            "getsockopt",
            "tcp(7)",
            "Transport::acked_bytes",
            "TCP_INFO tells what the peer has acknowledged: whether it takes what it is sent.",
        ),
    ),
    (
        Call::AskAddress,
        (
            "getsockname",
            "getsockname(2)",
            "Transport::reached_address",
            "A Gopher menu names the address that its reader has connected to.",
        ),
    ),
    (
        Call::AskListener,
        (
            "getsockopt",
            "tcp(7)",
            "Listener::is_wanted",
            "The listener is asked who waits in its queue, or for how long.",
        ),
    ),
    (
        Call::SetListener,
        (
            "setsockopt",
            "ip(7)",
            "Listener::shut",
            "The least TTL keeps new clients out while those in the queue are let in.",
        ),
    ),
    (
        Call::ShutDown,
        (
            "shutdown",
            "shutdown(2)",
            "Closing::new",
            "Our FIN goes out behind the last byte; what the peer still sends is read away, or the close would reset.",
        ),
    ),
    (
        Call::Register,
        (
            "epoll_ctl",
            "epoll_ctl(2)",
            "Slot::register",
            "A socket is registered once, for both directions, when its first attempt would block.",
        ),
    ),
    (
        Call::Deregister,
        (
            "epoll_ctl",
            "epoll_ctl(2)",
            "Listener::close",
            "The poll forgets a listener by itself only when no other process has it, too.",
        ),
    ),
    (
        Call::CloseListener,
        (
            "close",
            "close(2)",
            "Listener",
            "Everyone in the accept queue has been let in.",
        ),
    ),
    (
        Call::Reset,
        (
            "setsockopt",
            "socket(7)",
            "Reactor::reap",
            "SO_LINGER of zero seconds makes the close a reset: what was cut short must not look whole.",
        ),
    ),
    (
        Call::CloseSocket,
        (
            "close",
            "close(2)",
            "Reactor::reap",
            "What ended in this turn is freed at its end, so that nobody steps what is gone.",
        ),
    ),
    (
        Call::Open,
        (
            "openat2",
            "openat2(2)",
            "RootDir::find",
            "RESOLVE_BENEATH keeps every name under the root; RESOLVE_CACHED keeps the loop from waiting for a disk.",
        ),
    ),
    (
        Call::Stat,
        (
            "fstat",
            "stat(2)",
            "Snapshot::of",
            "Length and times of what is open: what is promised, and which version it is.",
        ),
    ),
    (
        Call::StatEntry,
        (
            "newfstatat",
            "stat(2)",
            "read_folder",
            "What the entry of a list is, without opening it.",
        ),
    ),
    (
        Call::StatFs,
        (
            "fstatfs",
            "statfs(2)",
            "FsClasses::of",
            "Which file system it is on tells whether a read may wait.",
        ),
    ),
    (
        Call::Duplicate,
        (
            "fcntl",
            "fcntl(2)",
            "Root::open_path",
            "A folder that a disk thread has opened is shared.",
        ),
    ),
    (
        Call::ReadLink,
        (
            "readlinkat",
            "readlink(2)",
            "RootDir::mount_on_the_way",
            "Where a symbolic link leads to.",
        ),
    ),
    (
        Call::MayRead,
        (
            "faccessat2",
            "access(2)",
            "listing::is_readable",
            "A list shows only what the server may read.",
        ),
    ),
    (
        Call::ReadNowait,
        (
            "preadv2",
            "preadv2(2)",
            "OpenFile::read_nowait",
            "RWF_NOWAIT reads what is in memory; EAGAIN says that a disk would have to be waited for.",
        ),
    ),
    (
        Call::Read,
        (
            "pread64",
            "pread(2)",
            "OpenFile::read_blocking",
            "This read may wait, unless the bytes are known to be in memory.",
        ),
    ),
    (
        Call::ReadAhead,
        (
            "fadvise64",
            "posix_fadvise(2)",
            "ReadTask::read_ahead",
            "The kernel is told what will be wanted next.",
        ),
    ),
    (
        Call::ReadEvents,
        (
            "read",
            "inotify(7)",
            "Cache::read_events",
            "What has changed is read before a look-up: an event is queued before the change is seen.",
        ),
    ),
    (
        Call::AskMounts,
        (
            "ppoll",
            "proc(5)",
            "Mounts::ask",
            "A mount makes no such event: the kernel marks the table of mounts, which is asked once a second.",
        ),
    ),
    (
        Call::Watch,
        (
            "inotify_add_watch",
            "inotify(7)",
            "watch_thread::watch",
            "Watched first, looked at then, so that no change falls between.",
        ),
    ),
    (
        Call::Unwatch,
        (
            "inotify_rm_watch",
            "inotify(7)",
            "watch_thread::remove",
            "Nobody has asked for it for a while.",
        ),
    ),
    (
        Call::CloseFile,
        (
            "close",
            "close(2)",
            "OpenFile",
            "Nobody sends from it any more.",
        ),
    ),
];

impl Call {
    fn words(self) -> CallWords {
        CALLS[self as usize].1
    }

    /// Whether it is one on a listener, which is no client's.
    pub(super) fn is_of_listener(self) -> bool {
        matches!(
            self,
            Self::Accept
                | Self::AskListener
                | Self::SetListener
                | Self::Deregister
                | Self::CloseListener
        )
    }

    /// Whether it is one on a client's socket that moves its bytes.
    pub(super) fn is_sending(self) -> bool {
        matches!(self, Self::Send | Self::SendGathered | Self::SendFile)
    }

    /// Whether it tries to move bytes of the connection, and may find that it would block.
    pub(super) fn is_attempt(self) -> bool {
        self.is_sending() || self == Self::Receive
    }
}

/// What is said of a system call.
pub(super) fn of_call(call: Call, asked: u64, result: i64) -> Words {
    let (name, man, function, mut rule) = call.words();
    let moved = result.unsigned_abs();
    let title = match i32::try_from(-result).unwrap_or(0) {
        _ if result >= 0 && asked > 0 => format!("{name}: {moved} of {asked} bytes"),
        _ if result >= 0 => name.to_owned(),
        libc::EAGAIN if asked > 0 => format!("{name}: would block (EAGAIN), 0 of {asked} bytes"),
        libc::EAGAIN => format!("{name}: would block (EAGAIN)"),
        errno => format!("{name}: {}", io::Error::from_raw_os_error(errno)),
    };
    rule = match (call, result, -result == i64::from(libc::EAGAIN)) {
        (Call::Receive, 0, _) => {
            "A reading of zero bytes is the peer's FIN: it has no more to say. It may still read."
        }
        (Call::Receive, _, true) => "The receive queue is empty: the next byte makes an edge.",
        (Call::Accept, _, true) => "The accept queue is empty: the next client makes an edge.",
        (Call::Open, _, true) => {
            "The name isn't in memory (RESOLVE_CACHED): a disk thread looks it up."
        }
        (_, _, true) if call.is_sending() => {
            "The send buffer is full: when the peer has taken a third of it, an edge comes."
        }
        (_, 0.., _) if call.is_sending() && moved < asked => {
            "A short write is no error: the send buffer had no room for more."
        }
        _ => rule,
    };
    Words {
        name,
        title,
        rule,
        man,
        function,
    }
}

/// What is said of a step. `last` is the last system call in it.
pub(super) fn of_step(
    (event, action): (Event, Action),
    [before, after]: [Stage; 2],
    awaited: Awaited,
    moved: u64,
    last: Option<&Record>,
) -> Words {
    let mut title = format!("{}, so it {}", of_event(event), of_action(action));
    if before != after {
        title.push_str(&format!("; {} → {}", before.as_str(), after.as_str()));
    }
    if moved > 0 {
        title.push_str(&format!("; {moved} bytes"));
    }
    let (rule, man) = match action {
        Action::Wait => waits(after, last),
        Action::Yield if moved >= STEP_BYTES_MAX => (
            "It has moved its 1 MiB of this turn and nothing has blocked. No edge will come, so it goes behind the others in the run queue.",
            "epoll(7)",
        ),
        Action::Yield => (
            "It stopped without having seen WouldBlock. No edge will come, so it goes behind the others in the run queue.",
            "epoll(7)",
        ),
        Action::Suspend if awaited == Awaited::Descriptor => (
            "No descriptor is free for a file: it waits in the line of those who need one.",
            "getrlimit(2)",
        ),
        Action::Suspend => (
            "The bytes or the name are not in memory. A disk thread waits for them, and the loop serves others.",
            "preadv2(2)",
        ),
        Action::Close(_) => (
            "All is sent or there is nothing to send: the close table says what goes on the wire, a FIN.",
            "close(2)",
        ),
        Action::Reset(_) => (
            "It can't end well: SO_LINGER of zero seconds makes the close a reset, and the peer sees an error.",
            "socket(7)",
        ),
    };
    let function = match event {
        Event::Deadline => "Reactor::expire",
        Event::Resume | Event::Woken | Event::Ready(_) => "Reactor::dispatch",
        _ => "Conn::step",
    };
    Words {
        name: "step",
        title,
        rule,
        man,
        function,
    }
}

fn waits(stage: Stage, last: Option<&Record>) -> (&'static str, &'static str) {
    let last = last.map(|record| record.what);
    let rule = match (stage, last) {
        (_, Some(What::Call { call, result, .. })) if result == -i64::from(libc::EAGAIN) => {
            if call == Call::Receive {
                "Its last attempt would have blocked, so it waits: what comes next makes an edge (EPOLLET), once."
            } else {
                "Its last attempt would have blocked, so it waits until there is room: epoll reports that once (EPOLLET)."
            }
        }
        (
            Stage::Reading | Stage::Idle,
            Some(What::Call {
                call: Call::Receive,
                ..
            }),
        ) => {
            "The read was shorter than the buffer, which on this edge proves that the queue is empty. What comes next makes an edge."
        }
        (Stage::Sending, _) => "The edge was not for sending; it waits on for room.",
        (Stage::Closing, _) => "Everything is sent. It waits for the peer's FIN.",
        _ => "Everything that came is answered. It waits for the next request.",
    };
    (rule, "epoll(7)")
}

fn of_event(event: Event) -> String {
    match event {
        Event::Start => "it was just accepted".into(),
        Event::Ready(edge) => format!("an edge came ({})", of_edge(edge)),
        Event::Resume => "its turn in the run queue came".into(),
        Event::Deadline => "its deadline has passed".into(),
        Event::Woken => "what it waited for may be there".into(),
        Event::Drain => "a drain begins".into(),
        Event::Reclaim => "others need its place".into(),
        Event::Stop(reason) => format!("it must end ({reason})"),
    }
}

fn of_edge(edge: Readiness) -> String {
    let parts = [
        (edge.readable, "readable"),
        (edge.writable, "writable"),
        (edge.read_closed, "the peer's FIN"),
        (edge.dead, "dead"),
    ];
    let said: Vec<_> = parts
        .iter()
        .filter(|part| part.0)
        .map(|part| part.1)
        .collect();
    said.join(", ")
}

fn of_action(action: Action) -> String {
    match action {
        Action::Wait => "waits".into(),
        Action::Suspend => "is suspended".into(),
        Action::Yield => "yields".into(),
        Action::Close(reason) => format!("closes: {}", reason.of_connection()),
        Action::Reset(reason) => format!("resets: {}", reason.of_connection()),
    }
}

/// What is said of a connection's end.
pub(super) fn of_end(reason: Reason) -> Words {
    Words {
        name: "end",
        title: format!("end: {}", reason.of_connection()),
        rule: "A connection ends for exactly one reason, and is freed here, at the turn's end.",
        man: "close(2)",
        function: "Reactor::reap",
    }
}

/// What is said of a task on a disk thread.
pub(super) fn of_task(kind: TaskKind) -> Words {
    let (title, rule) = match kind {
        TaskKind::Open => (
            "look-up",
            "This thread may wait for the disk where the loop may not.",
        ),
        TaskKind::List => (
            "list of a folder",
            "A folder is read entry by entry, which may wait for the disk.",
        ),
        TaskKind::Make => (
            "piece of a tar",
            "A tar is made piece by piece while it is sent, which may wait for the disk.",
        ),
        TaskKind::Read => (
            "read",
            "The bytes are read into memory, so that the loop can send them without a wait.",
        ),
    };
    Words {
        name: title,
        title: title.into(),
        rule,
        man: "pread(2)",
        function: "DiskTask::run",
    }
}

/// What is said of the loop's wait.
pub(super) fn of_wait() -> Words {
    Words {
        name: "epoll_wait",
        title: "epoll_wait".into(),
        rule: "Nobody can go on: the loop sleeps until an edge, a deadline or a note from another thread.",
        man: "epoll_wait(2)",
        function: "Reactor::wait",
    }
}

/// What is said of a source that is no connection.
pub(super) fn of_source() -> Words {
    Words {
        name: "source",
        title: "signals and notes from other threads".into(),
        rule: "Signals and what disk threads have done reach the loop as events of the same poll.",
        man: "epoll(7)",
        function: "Handler::source",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn each_call_has_its_own_words() {
        for (index, (call, _)) in CALLS.iter().enumerate() {
            assert_eq!(*call as usize, index);
        }
    }

    #[test]
    fn what_a_call_came_to_decides_what_is_said_of_it() {
        let blocked = -i64::from(libc::EAGAIN);
        for (call, asked, result, title, rule) in [
            (
                Call::Receive,
                9,
                4,
                "recvfrom: 4 of 9 bytes",
                "What has come",
            ),
            (
                Call::Receive,
                9,
                0,
                "recvfrom: 0 of 9 bytes",
                "A reading of zero bytes is the peer's FIN",
            ),
            (
                Call::Receive,
                9,
                blocked,
                "recvfrom: would block (EAGAIN), 0 of 9 bytes",
                "The receive queue is empty",
            ),
            (
                Call::Send,
                9,
                4,
                "sendto: 4 of 9 bytes",
                "A short write is no error",
            ),
            (
                Call::SendFile,
                9,
                blocked,
                "sendfile: would block (EAGAIN), 0 of 9 bytes",
                "The send buffer is full",
            ),
            (
                Call::Accept,
                0,
                blocked,
                "accept4: would block (EAGAIN)",
                "The accept queue is empty",
            ),
            (
                Call::Open,
                0,
                -2,
                "openat2: No such file or directory (os error 2)",
                "RESOLVE_BENEATH",
            ),
        ] {
            let words = of_call(call, asked, result);
            assert_eq!(words.title, title);
            assert!(words.rule.starts_with(rule), "{}", words.rule);
        }
    }

    #[test]
    fn the_last_attempt_of_a_step_tells_why_it_waits() {
        let at = Instant::now();
        let last = |call, result| Record {
            began: at,
            ended: at,
            conn: 1,
            what: What::Call {
                call,
                asked: 9,
                result,
            },
        };
        let blocked = -i64::from(libc::EAGAIN);
        let told = |action, moved, last: Option<Record>| {
            let step = (Event::Resume, action);
            of_step(
                step,
                [Stage::Sending; 2],
                Awaited::Disk,
                moved,
                last.as_ref(),
            )
        };
        let full = told(Action::Wait, 5, Some(last(Call::SendFile, blocked)));
        assert_eq!(
            full.title,
            "its turn in the run queue came, so it waits; 5 bytes"
        );
        assert!(full.rule.contains("until there is room"), "{}", full.rule);
        let spent = told(Action::Yield, STEP_BYTES_MAX, Some(last(Call::SendFile, 9)));
        assert!(spent.rule.contains("nothing has blocked"), "{}", spent.rule);
        assert!(
            told(Action::Suspend, 0, None)
                .rule
                .contains("A disk thread")
        );
    }
}
