//! The core of `pour.rs`, smaller, and with a switch at each rule: what stands behind `breaks` is the mistake.
//!
//! It knows its sockets by [`Kernel`] only, so that it runs on a scripted kernel (`world.rs`) and on
//! real sockets (`play.rs`). Left out are what a name's bytes are, and all refusals: a request is one
//! byte and a line feed, and there is one file.

/// The rules, in the order in which a download meets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    AcceptAgain,
    RegisterBoth,
    ReadUntilWouldBlock,
    ZeroRead,
    WriteFirst,
    ShortWrite,
    Budget,
    ResetWhatIsCut,
    DrainBeforeClose,
    FreeAtTheEnd,
    Generations,
}

/// One that is broken, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rules(pub Option<Rule>);

impl Rules {
    /// Whether a rule is broken, here and now. What is done instead goes into the picture.
    fn breaks<K: Kernel>(self, rule: Rule, kernel: &mut K, instead: &'static str) -> bool {
        let is_broken = self.0 == Some(rule);
        if is_broken {
            kernel.mistake(instead);
        }
        is_broken
    }
}

/// What a call may fail with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errno {
    WouldBlock,
    NoDescriptor,
    Reset,
}

/// What the poll reports. `hangup`: the peer is gone (EPOLLHUP).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    Listener,
    Socket { key: usize, hangup: bool },
    Timer { key: usize, generation: u32 },
}

/// The calls. `Fd` is a socket; lengths are in units of the kernel's own: bytes, or blocks.
pub trait Kernel {
    type Fd: Clone;
    /// What happened since the last wait. Doesn't wait if there is something to run.
    fn wait(&mut self, may_sleep: bool) -> Vec<Event>;
    fn accept(&mut self, key: usize) -> Result<Self::Fd, Errno>;
    /// For edges; of both directions, or of reading alone.
    fn register(&mut self, fd: &Self::Fd, key: usize, both: bool);
    fn set_timer(&mut self, key: usize, generation: u32);
    /// One byte at most; zero is the peer's FIN.
    fn read(&mut self, fd: &Self::Fd) -> Result<Option<u8>, Errno>;
    /// Sends the file from an offset on; gives how much was taken. None: the file ends before.
    fn send(&mut self, fd: &Self::Fd, from: u64, most: u64) -> Result<Option<u64>, Errno>;
    fn file_len(&mut self, fd: &Self::Fd) -> u64;
    fn budget(&self) -> u64;
    fn shutdown(&mut self, fd: &Self::Fd);
    fn close(&mut self, fd: &Self::Fd, with_reset: bool);
    /// No call: a rule was broken here.
    fn mistake(&mut self, instead: &'static str);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    ReadingName,
    Sending,
    Closing,
    Ended,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Conn<Fd> {
    fd: Fd,
    generation: u32,
    state: State,
    name_bytes: u8,
    offset: u64,
    len: u64,
    is_cut: bool,
}

enum Action {
    Wait,
    Yield,
    Enter(State),
    Close,
    Reset,
}

/// `pour.rs` has it as `Reactor`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Core<Fd> {
    rules: Rules,
    conns: Vec<Option<Conn<Fd>>>,
    generation: u32,
    run_queue: Vec<usize>,
    /// Clients wait in the backlog, for whom there was no descriptor.
    accept_again: bool,
    has_freed: bool,
}

impl<Fd: Clone> Core<Fd> {
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            conns: Vec::new(),
            generation: 0,
            run_queue: Vec::new(),
            accept_again: false,
            has_freed: false,
        }
    }

    /// Whether the next turn has something to do without any event.
    pub fn has_work(&self) -> bool {
        !self.run_queue.is_empty()
    }

    /// Wait, step those who yielded and those with news, accept, reap.
    pub fn turn<K: Kernel<Fd = Fd>>(&mut self, kernel: &mut K) {
        let yielded = std::mem::take(&mut self.run_queue);
        let events = kernel.wait(yielded.is_empty());
        for key in yielded {
            self.step(key, kernel);
        }
        for event in events {
            match event {
                Event::Listener => self.accept(kernel),
                Event::Socket { key, hangup: true } => self.end(key, kernel),
                Event::Socket { key, .. } => self.step(key, kernel),
                Event::Timer { key, generation } => self.expire(key, generation, kernel),
            }
        }
        self.reap(kernel);
    }

    fn accept<K: Kernel<Fd = Fd>>(&mut self, kernel: &mut K) {
        self.accept_again = false;
        loop {
            let vacant = self.conns.iter().position(Option::is_none);
            let key = vacant.unwrap_or(self.conns.len());
            let fd = match kernel.accept(key) {
                Ok(fd) => fd,
                Err(Errno::WouldBlock | Errno::Reset) => return,
                Err(Errno::NoDescriptor) => {
                    // Who waits in the backlog makes no new edge.
                    let instead = "waits for a new edge";
                    self.accept_again = !self.rules.breaks(Rule::AcceptAgain, kernel, instead);
                    return;
                }
            };
            let is_one = self
                .rules
                .breaks(Rule::RegisterBoth, kernel, "asks for reading alone");
            kernel.register(&fd, key, !is_one);
            kernel.set_timer(key, self.generation);
            let conn = Conn {
                fd,
                generation: self.generation,
                state: State::ReadingName,
                name_bytes: 0,
                offset: 0,
                len: 0,
                is_cut: false,
            };
            self.generation += 1;
            if key == self.conns.len() {
                self.conns.push(None);
            }
            self.conns[key] = Some(conn);
            self.step(key, kernel);
        }
    }

    /// The time for a name is over. The socket is looked at before the clock.
    fn expire<K: Kernel<Fd = Fd>>(&mut self, key: usize, generation: u32, kernel: &mut K) {
        let conn = self.conns.get(key).and_then(Option::as_ref);
        let Some(conn) = conn.filter(|conn| conn.state == State::ReadingName) else {
            return;
        };
        let instead = "takes who has the key now";
        if conn.generation != generation && !self.rules.breaks(Rule::Generations, kernel, instead) {
            return;
        }
        self.step(key, kernel);
        let conn = self.conns[key].as_ref();
        if conn.is_some_and(|conn| conn.state == State::ReadingName) {
            self.end(key, kernel);
        }
    }

    /// A connection has ended: its peer is gone, or its time.
    fn end<K: Kernel<Fd = Fd>>(&mut self, key: usize, kernel: &mut K) {
        if let Some(Some(conn)) = self.conns.get_mut(key) {
            conn.state = State::Ended;
            self.free_early(key, kernel);
        }
    }

    fn free_early<K: Kernel<Fd = Fd>>(&mut self, key: usize, kernel: &mut K) {
        if self
            .rules
            .breaks(Rule::FreeAtTheEnd, kernel, "frees the key at once")
        {
            self.free(key, kernel);
        }
    }

    fn free<K: Kernel<Fd = Fd>>(&mut self, key: usize, kernel: &mut K) {
        if let Some(conn) = self.conns[key].take() {
            kernel.close(&conn.fd, conn.is_cut);
            self.has_freed = true;
        }
    }

    /// Frees what has ended in this turn. A descriptor that is free again lets somebody in.
    fn reap<K: Kernel<Fd = Fd>>(&mut self, kernel: &mut K) {
        for key in 0..self.conns.len() {
            let conn = self.conns[key].as_ref();
            if conn.is_some_and(|conn| conn.state == State::Ended) {
                self.free(key, kernel);
            }
        }
        if self.accept_again && self.has_freed {
            self.accept(kernel);
        }
        self.has_freed = false;
    }

    /// Steps a connection's state until it waits or ends.
    fn step<K: Kernel<Fd = Fd>>(&mut self, key: usize, kernel: &mut K) {
        let Some(Some(conn)) = self.conns.get_mut(key) else {
            return;
        };
        loop {
            let action = match conn.state {
                State::ReadingName => conn.read_name(self.rules, kernel),
                State::Sending => conn.send(self.rules, kernel),
                State::Closing => conn.discard(kernel),
                State::Ended => return,
            };
            match action {
                Action::Wait => return,
                Action::Yield => return self.run_queue.push(key),
                Action::Enter(state) => {
                    conn.state = state;
                    let instead = "waits to become writable";
                    if state == State::Sending
                        && self.rules.breaks(Rule::WriteFirst, kernel, instead)
                    {
                        return;
                    }
                }
                Action::Close => break,
                Action::Reset => {
                    let instead = "closes as if it were whole";
                    conn.is_cut = !self.rules.breaks(Rule::ResetWhatIsCut, kernel, instead);
                    break;
                }
            }
        }
        conn.state = State::Ended;
        self.free_early(key, kernel);
    }
}

impl<Fd: Clone> Conn<Fd> {
    fn read_name<K: Kernel<Fd = Fd>>(&mut self, rules: Rules, kernel: &mut K) -> Action {
        loop {
            match kernel.read(&self.fd) {
                Ok(Some(b'\n')) => break,
                Ok(Some(_)) => self.name_bytes += 1,
                // The client has shut its side: what has come is the name.
                Ok(None) if self.name_bytes > 0 => {
                    if rules.breaks(Rule::ZeroRead, kernel, "takes it for gone") {
                        return Action::Close;
                    }
                    break;
                }
                Ok(None) => return Action::Close,
                Err(Errno::WouldBlock) => return Action::Wait,
                Err(_) => return Action::Close,
            }
            if rules.breaks(Rule::ReadUntilWouldBlock, kernel, "reads no further") {
                return Action::Wait;
            }
        }
        self.len = kernel.file_len(&self.fd);
        Action::Enter(State::Sending)
    }

    fn send<K: Kernel<Fd = Fd>>(&mut self, rules: Rules, kernel: &mut K) -> Action {
        let mut budget_ends = self.offset + kernel.budget();
        if self.len > budget_ends && rules.breaks(Rule::Budget, kernel, "has no bound") {
            budget_ends = u64::MAX;
        }
        while self.offset < self.len {
            if self.offset >= budget_ends {
                return Action::Yield;
            }
            let most = self.len.min(budget_ends) - self.offset;
            match kernel.send(&self.fd, self.offset, most) {
                Ok(None) => return Action::Reset,
                Ok(Some(count)) => {
                    let is_short = count < most;
                    let is_lost =
                        is_short && rules.breaks(Rule::ShortWrite, kernel, "takes it for all");
                    self.offset += if is_lost { most } else { count };
                }
                Err(Errno::WouldBlock) => return Action::Wait,
                Err(_) => return Action::Close,
            }
        }
        if rules.breaks(Rule::DrainBeforeClose, kernel, "closes at once") {
            return Action::Close;
        }
        kernel.shutdown(&self.fd);
        Action::Enter(State::Closing)
    }

    fn discard<K: Kernel<Fd = Fd>>(&mut self, kernel: &mut K) -> Action {
        loop {
            match kernel.read(&self.fd) {
                Ok(Some(_)) => {}
                Err(Errno::WouldBlock) => return Action::Wait,
                Ok(None) | Err(_) => return Action::Close,
            }
        }
    }
}
