//! A kernel and two clients in a few bytes, so that all that can happen can be tried.
//!
//! A file has four blocks, and two lie between server and client at most: a send may be short, or
//! block. What is queued is the client's when it reads; a reset destroys it (Linux
//! keeps what the peer's kernel has received already). Edges are epoll's: they come once, of
//! a socket that is registered, merged until the server asks, in the order in which they came. What is no
//! longer so when it asks isn't reported.

use crate::core::{Errno, Event, Kernel};

pub const FILE_BLOCKS: u64 = 4;
const QUEUE_BLOCKS: u64 = 2;
pub const BUDGET_BLOCKS: u64 = 3;
/// How often time passes before a client must have sent its name.
pub const DEADLINE_TICKS: u8 = 2;

/// What can happen: a client does something, time passes, the server has a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    Turn,
    Connect(usize),
    /// The next byte: the name, then the line feed.
    Say(usize),
    /// A byte after the request, which nobody asked for.
    Junk(usize),
    HalfClose(usize),
    /// Reads all there is.
    Read(usize),
    /// From now on reads whatever comes, at once.
    ReadAlways(usize),
    /// Is gone: the connection is reset.
    Leave(usize),
    Tick,
    /// Somebody shortens the file to its first block.
    Truncate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    Fin,
    Reset,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Client {
    // What it did.
    is_connected: bool,
    said: u8,
    has_junk: bool,
    is_half_closed: bool,
    always_reads: bool,
    has_left: bool,
    ticks: u8,
    got: u64,
    end: Option<End>,
    // What the kernel holds of its connection.
    unread: Vec<u8>,
    queued: u64,
    has_fin: bool,
    has_reset: bool,
    // The server's end of it.
    is_accepted: bool,
    is_closed: bool,
    /// Its key, and whether edges of both directions are wanted.
    registered: Option<(usize, bool)>,
    /// A send found too little room.
    wants_room: bool,
    promised: Option<u64>,
}

impl Client {
    fn has_asked(&self) -> bool {
        self.said == 2 || (self.said == 1 && self.is_half_closed)
    }

    /// What is so now, of what is wanted: readable, writable.
    fn readiness(&self) -> [bool; 2] {
        let wants_both = self.registered.is_some_and(|(_, both)| both);
        let has_room = self.queued < QUEUE_BLOCKS || self.always_reads || self.has_fin;
        [
            !self.unread.is_empty() || self.is_half_closed || self.has_left,
            wants_both && (has_room || self.has_left),
        ]
    }

    fn waits(&self) -> bool {
        self.has_asked() && !self.has_left && self.end.is_none()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Ready {
    Listener,
    Socket { client: usize, hangup: bool },
}

/// All of it that can make a difference to what comes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scene {
    clients: [Client; 2],
    backlog: Vec<usize>,
    ready: Vec<Ready>,
    descriptors: u8,
    /// Key, generation and age.
    timers: Vec<(usize, u32, u8)>,
    is_truncated: bool,
    /// Who has begun to be sent its file in this turn.
    began: Option<usize>,
    starved: Option<usize>,
}

/// A call, and what came of it: for the picture.
#[derive(Clone, Debug)]
pub struct Call {
    pub client: Option<usize>,
    pub text: String,
    /// Blocks or an end went to the client.
    pub reaches_client: bool,
    pub is_mistake: bool,
}

#[derive(Clone, Debug)]
pub struct World {
    pub scene: Scene,
    /// The calls of the last turn, if they are wanted.
    pub calls: Option<Vec<Call>>,
}

impl World {
    pub fn new(descriptors: u8) -> Self {
        let scene = Scene {
            clients: Default::default(),
            backlog: Vec::new(),
            ready: Vec::new(),
            descriptors,
            timers: Vec::new(),
            is_truncated: false,
            began: None,
            starved: None,
        };
        let calls = None;
        Self { scene, calls }
    }

    fn note(&mut self, client: Option<usize>, reaches_client: bool, text: impl FnOnce() -> String) {
        if let Some(calls) = &mut self.calls {
            calls.push(Call {
                client,
                text: text(),
                reaches_client,
                is_mistake: false,
            });
        }
    }

    pub fn has_news(&self) -> bool {
        let is_due = |timer: &(usize, u32, u8)| timer.2 >= DEADLINE_TICKS;
        self.scene
            .ready
            .iter()
            .any(|&ready| self.scene.is_so(ready))
            || self.scene.timers.iter().any(is_due)
    }

    /// What a client, time or somebody else may do now.
    pub fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        for (index, client) in self.scene.clients.iter().enumerate() {
            // The second one comes after the first: which is which makes no difference.
            if !client.is_connected {
                moves.push(Move::Connect(index));
                break;
            }
            if client.has_left || client.end.is_some() {
                continue;
            }
            moves.push(Move::Leave(index));
            if client.said < 2 && !client.is_half_closed {
                moves.push(Move::Say(index));
            }
            if client.said >= 1 && !client.is_half_closed {
                moves.push(Move::HalfClose(index));
            }
            if client.said == 2 && !client.is_half_closed && !client.has_junk {
                moves.push(Move::Junk(index));
            }
            if client.queued > 0 || client.has_fin || client.has_reset {
                moves.push(Move::Read(index));
            }
            if client.said == 0 && !client.always_reads {
                moves.push(Move::ReadAlways(index));
            }
        }
        if self
            .scene
            .timers
            .iter()
            .any(|timer| timer.2 < DEADLINE_TICKS)
        {
            moves.push(Move::Tick);
        }
        if !self.scene.is_truncated
            && self
                .scene
                .clients
                .iter()
                .any(|client| client.promised.is_some())
        {
            moves.push(Move::Truncate);
        }
        moves
    }

    /// All but the server's turns.
    pub fn take(&mut self, mv: Move) {
        let scene = &mut self.scene;
        match mv {
            Move::Turn => {}
            Move::Connect(index) => {
                scene.clients[index].is_connected = true;
                scene.backlog.push(index);
                if !scene.ready.contains(&Ready::Listener) {
                    scene.ready.push(Ready::Listener);
                }
            }
            Move::Say(index) => {
                let client = &mut scene.clients[index];
                let byte = [b'a', b'\n'][usize::from(client.said)];
                client.said += 1;
                scene.arrives(index, Some(byte));
            }
            Move::Junk(index) => {
                scene.clients[index].has_junk = true;
                scene.arrives(index, Some(b'j'));
            }
            Move::HalfClose(index) => {
                scene.clients[index].is_half_closed = true;
                scene.arrives(index, None);
            }
            Move::Read(index) => scene.read(index),
            Move::ReadAlways(index) => scene.clients[index].always_reads = true,
            Move::Leave(index) => {
                scene.clients[index].has_left = true;
                scene.clients[index].unread.clear();
                scene.edge(index, true);
            }
            Move::Tick => {
                for timer in &mut scene.timers {
                    timer.2 += 1;
                }
                for client in &mut scene.clients {
                    client.ticks += u8::from(client.is_connected && !client.has_asked());
                }
            }
            Move::Truncate => scene.is_truncated = true,
        }
    }

    /// The byte that a client has just sent.
    pub fn said(&self, index: usize) -> &'static str {
        match self.scene.clients[index].said {
            1 => "sends \"a\"",
            _ => "sends \"\\n\"",
        }
    }

    /// What a client has by now.
    pub fn has_read(&self, index: usize) -> String {
        let client = &self.scene.clients[index];
        match client.end {
            None => format!("has {} of {FILE_BLOCKS}", client.got),
            Some(End::Fin) => format!("has {}, FIN", client.got),
            Some(End::Reset) => format!("has {}, reset", client.got),
        }
    }

    /// What is wrong, and with whose download; nothing so far if there is none.
    pub fn fault(&self, server_has_work: bool) -> Option<(usize, &'static str)> {
        let scene = &self.scene;
        if let Some(index) = scene.starved {
            return Some((index, "starved until the other one has all of its file"));
        }
        let is_asleep = !server_has_work && !self.has_news();
        let fault = |client: &Client| {
            let is_excused =
                client.ticks >= DEADLINE_TICKS || (scene.is_truncated && client.promised.is_some());
            let is_whole = client.promised == Some(client.got);
            match client.end {
                _ if client.has_left => None,
                Some(_) if is_whole => None,
                Some(End::Fin) if client.got > 0 => {
                    Some("cut off, and the end looks like the file's")
                }
                Some(_) if is_excused => None,
                Some(End::Fin) => Some("turned away without a byte"),
                Some(End::Reset) => Some("reset, and what was under way is lost"),
                None => {
                    let has_nothing = client.queued == 0 && !client.has_fin && !client.has_reset;
                    let could = client.is_accepted || scene.descriptors > 0;
                    let hangs = client.waits() && has_nothing && could && is_asleep;
                    hangs.then_some("hangs: no edge will come, and the run queue is empty")
                }
            }
        };
        let clients = scene.clients.iter().enumerate();
        clients
            .filter_map(|(index, client)| Some((index, fault(client)?)))
            .next()
    }
}

impl Scene {
    /// Whether what has come to be is so still.
    fn is_so(&self, ready: Ready) -> bool {
        match ready {
            Ready::Listener => !self.backlog.is_empty(),
            Ready::Socket { client, .. } => self.clients[client].readiness().contains(&true),
        }
    }

    fn edge(&mut self, index: usize, is_hangup: bool) {
        if self.clients[index].registered.is_none() {
            return;
        }
        let found = self.ready.iter_mut().find_map(|ready| match ready {
            Ready::Socket { client, hangup } if *client == index => Some(hangup),
            _ => None,
        });
        match found {
            Some(hangup) => *hangup |= is_hangup,
            None => self.ready.push(Ready::Socket {
                client: index,
                hangup: is_hangup,
            }),
        }
    }

    fn arrives(&mut self, index: usize, byte: Option<u8>) {
        let client = &mut self.clients[index];
        if client.is_closed {
            // The server's end is closed: its kernel answers with a reset.
            (client.has_reset, client.queued) = (true, 0);
            return;
        }
        client.unread.extend(byte);
        self.edge(index, false);
    }

    fn read(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if client.has_reset {
            client.end = Some(End::Reset);
            return;
        }
        client.got += client.queued;
        client.queued = 0;
        if client.has_fin {
            client.end = Some(End::Fin);
            if !client.is_closed {
                client.is_half_closed = true;
                self.edge(index, false);
            }
        } else if client.wants_room && client.registered.is_some_and(|(_, both)| both) {
            client.wants_room = false;
            self.edge(index, false);
        }
    }
}

fn name(index: usize) -> &'static str {
    ["A", "B"][index]
}

impl Kernel for World {
    type Fd = usize;

    fn wait(&mut self, _: bool) -> Vec<Event> {
        let scene = &mut self.scene;
        scene.began = None;
        let (mut events, mut words) = (Vec::new(), Vec::new());
        for ready in std::mem::take(&mut scene.ready) {
            if !scene.is_so(ready) {
                continue;
            }
            match ready {
                Ready::Listener => {
                    events.push(Event::Listener);
                    words.push("listener".to_owned());
                }
                Ready::Socket { client, hangup } => {
                    let client = &scene.clients[client];
                    let Some((key, _)) = client.registered else {
                        continue;
                    };
                    events.push(Event::Socket { key, hangup });
                    words.push(match client.readiness() {
                        _ if hangup => format!("key {key} hung up"),
                        [true, true] => format!("key {key} (readable, writable)"),
                        [true, _] => format!("key {key} (readable)"),
                        _ => format!("key {key} (writable)"),
                    });
                }
            }
        }
        scene.timers.retain(|&(key, generation, age)| {
            if age >= DEADLINE_TICKS {
                events.push(Event::Timer { key, generation });
                words.push(format!("deadline of key {key}"));
            }
            age < DEADLINE_TICKS
        });
        self.note(None, false, || {
            if words.is_empty() {
                words.push("–".to_owned());
            }
            format!("epoll_wait: {}", words.join(", "))
        });
        events
    }

    fn accept(&mut self, key: usize) -> Result<usize, Errno> {
        if self.scene.descriptors == 0 {
            self.note(None, false, || "accept: EMFILE".to_owned());
            return Err(Errno::NoDescriptor);
        }
        if self.scene.backlog.is_empty() {
            self.note(None, false, || "accept: would block".to_owned());
            return Err(Errno::WouldBlock);
        }
        let index = self.scene.backlog.remove(0);
        self.scene.descriptors -= 1;
        self.scene.clients[index].is_accepted = true;
        self.note(Some(index), false, || {
            format!("accept: {}, key {key}", name(index))
        });
        Ok(index)
    }

    fn register(&mut self, &fd: &usize, key: usize, both: bool) {
        self.scene.clients[fd].registered = Some((key, both));
        self.scene.edge(fd, self.scene.clients[fd].has_left);
        self.note(Some(fd), false, || {
            let what = if both { "both directions" } else { "reading" };
            format!("epoll_ctl {}: {what}", name(fd))
        });
    }

    fn set_timer(&mut self, key: usize, generation: u32) {
        self.scene.timers.push((key, generation, 0));
    }

    fn read(&mut self, &fd: &usize) -> Result<Option<u8>, Errno> {
        let client = &mut self.scene.clients[fd];
        let result = if client.has_left {
            Err(Errno::Reset)
        } else if !client.unread.is_empty() {
            Ok(Some(client.unread.remove(0)))
        } else if client.is_half_closed {
            Ok(None)
        } else {
            Err(Errno::WouldBlock)
        };
        self.note(Some(fd), false, || {
            let what = match result {
                Ok(Some(byte)) => format!("\"{}\"", byte.escape_ascii()),
                Ok(None) => "0, its end".to_owned(),
                Err(error) => word(error).to_owned(),
            };
            format!("read {}: {what}", name(fd))
        });
        result
    }

    fn send(&mut self, &fd: &usize, from: u64, most: u64) -> Result<Option<u64>, Errno> {
        let len = if self.scene.is_truncated {
            1
        } else {
            FILE_BLOCKS
        };
        let client = &mut self.scene.clients[fd];
        let room = if client.always_reads {
            most
        } else {
            QUEUE_BLOCKS - client.queued
        };
        let result = if client.has_left || client.is_closed {
            Err(Errno::Reset)
        } else if from >= len {
            Ok(None)
        } else if room == 0 {
            client.wants_room = true;
            Err(Errno::WouldBlock)
        } else {
            let count = most.min(len - from).min(room);
            client.wants_room |= count < most;
            if client.always_reads {
                client.got += count;
            } else {
                client.queued += count;
            }
            Ok(Some(count))
        };
        self.note(Some(fd), matches!(result, Ok(Some(_))), || {
            let what = match result {
                Ok(Some(count)) => format!("{count} of {most} blocks"),
                Ok(None) => "the file is shorter".to_owned(),
                Err(error) => word(error).to_owned(),
            };
            format!("send {}: {what}", name(fd))
        });
        let scene = &mut self.scene;
        if let Ok(Some(count)) = result {
            if from == 0 {
                scene.began = Some(fd);
            }
            let other = &scene.clients[1 - fd];
            let waits = other.waits() && other.got == 0 && other.queued == 0 && !other.has_fin;
            if scene.began == Some(fd) && from + count == FILE_BLOCKS && waits {
                scene.starved = Some(1 - fd);
            }
        }
        result
    }

    fn file_len(&mut self, &fd: &usize) -> u64 {
        let len = if self.scene.is_truncated {
            1
        } else {
            FILE_BLOCKS
        };
        self.scene.clients[fd].promised = Some(len);
        self.note(Some(fd), false, || {
            format!("open: {len} blocks for {}", name(fd))
        });
        len
    }

    fn budget(&self) -> u64 {
        BUDGET_BLOCKS
    }

    fn shutdown(&mut self, &fd: &usize) {
        self.scene.clients[fd].has_fin = true;
        self.note(Some(fd), true, || format!("shutdown {}: FIN", name(fd)));
    }

    fn mistake(&mut self, instead: &'static str) {
        if let Some(calls) = &mut self.calls {
            calls.push(Call {
                client: None,
                text: format!("! {instead}"),
                reaches_client: false,
                is_mistake: true,
            });
        }
    }

    fn close(&mut self, &fd: &usize, with_reset: bool) {
        let scene = &mut self.scene;
        let client = &mut scene.clients[fd];
        let is_reset = with_reset || !client.unread.is_empty();
        // Who is gone, or has the end already, isn't reached.
        let is_known = client.has_fin || client.has_left;
        if is_reset {
            (client.has_reset, client.queued) = (true, 0);
        } else {
            client.has_fin = true;
        }
        (client.is_closed, client.registered) = (true, None);
        scene.descriptors += 1;
        scene
            .ready
            .retain(|ready| !matches!(ready, Ready::Socket { client, .. } if *client == fd));
        self.note(Some(fd), is_reset || !is_known, || {
            let what = match (is_reset, with_reset, is_known) {
                (true, true, _) => ": reset",
                (true, false, _) => ": reset, for unread input",
                (false, _, false) => ": FIN",
                (false, _, true) => "",
            };
            format!("close {}{what}", name(fd))
        });
    }
}

fn word(error: Errno) -> &'static str {
    match error {
        Errno::WouldBlock => "would block",
        Errno::NoDescriptor => "EMFILE",
        Errno::Reset => "ECONNRESET",
    }
}
