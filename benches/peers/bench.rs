//! A run: its settings, its folder, and one measurement of one server.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use crate::Result;
use crate::content::{Content, Maker};
use crate::load::{Load, Protocol, Tally};
use crate::processes;
use crate::servers::{self, Logs, Need, Peer, Place, Server};

/// Before each measurement: caches warm up and connections find their place.
pub const WARM_UP: Duration = Duration::from_millis(200);

/// What is fixed for all rows.
pub struct Bench {
    /// How often each server has its turn.
    pub rounds: usize,
    /// How long a turn is.
    pub turn: Duration,
    /// The size of the largest file.
    pub big_bytes: u64,
    /// Where things are.
    pub place: Place,
    /// Makes the files.
    pub maker: Maker,
    /// What was said to be missing, so that it is said once.
    pub missing: RefCell<BTreeSet<String>>,
}

/// A server, asked in one way.
#[derive(Clone, Copy, Debug)]
pub struct Contestant {
    /// Who.
    pub peer: Peer,
    protocol: Option<Protocol>,
    logs: Logs,
}

impl Contestant {
    /// Asked as it is asked best.
    pub const fn of(peer: Peer) -> Self {
        Self {
            peer,
            protocol: None,
            logs: Logs::Quiet,
        }
    }

    /// Asked over HTTP, though it has something shorter.
    pub const fn over_http(peer: Peer) -> Self {
        Self::by(peer, Protocol::Http)
    }

    /// Asked so.
    pub const fn by(peer: Peer, protocol: Protocol) -> Self {
        Self {
            peer,
            protocol: Some(protocol),
            logs: Logs::Quiet,
        }
    }

    /// While it writes these.
    pub const fn logging(self, logs: Logs) -> Self {
        Self { logs, ..self }
    }

    /// How it is asked.
    pub fn protocol(self) -> Protocol {
        self.protocol.unwrap_or_else(|| self.peer.protocol())
    }

    /// Its name in tables.
    pub fn label(self) -> String {
        let peer = self.peer.label();
        match (self.logs, self.protocol) {
            (Logs::Default, _) => format!("{peer}, default log"),
            (Logs::Access, _) => format!("{peer}, access log"),
            (Logs::Quiet, Some(Protocol::Http)) => format!("{peer}, HTTP"),
            (Logs::Quiet, _) => peer,
        }
    }
}

/// What a measurement of one server brought.
pub struct Measured {
    cpu: Duration,
    /// What the clients saw.
    pub tally: Tally,
}

impl Measured {
    /// The CPU time in microseconds.
    pub fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6
    }
}

impl Bench {
    /// Makes a file in the folder that is served.
    pub fn file(&self, name: &str, length: u64) -> Result<Content> {
        self.maker.make(&self.place.root, name, length)
    }

    /// Starts those that the machine has.
    pub fn start(
        &self,
        contestants: &[Contestant],
        need: Need,
        content: &Content,
    ) -> Result<Vec<(Contestant, Server)>> {
        let mut servers = Vec::new();
        for &contestant in contestants {
            if let Some(server) = self.start_one(contestant, need, content)? {
                servers.push((contestant, server));
            }
        }
        Ok(servers)
    }

    /// Starts one, or says aloud that the machine hasn't got it.
    pub fn start_one(
        &self,
        contestant: Contestant,
        need: Need,
        content: &Content,
    ) -> Result<Option<Server>> {
        let file = self.place.root.join(&content.name);
        let file = file.to_str().ok_or("the folder's name is not UTF-8")?;
        let server = servers::start((contestant.peer, contestant.logs), need, &self.place, file)?;
        if server.is_none() {
            self.say_missing(contestant.peer);
        }
        Ok(server)
    }

    fn say_missing(&self, peer: Peer) {
        let label = peer.label();
        if peer != Peer::Before && self.missing.borrow_mut().insert(label.clone()) {
            println!("{label} is not on this machine: left out");
        }
    }

    /// One turn of one server.
    pub fn measure(
        &self,
        server: &Server,
        protocol: Protocol,
        content: &Content,
        clients: usize,
    ) -> Result<Measured> {
        self.measure_in_turn(server, protocol, std::slice::from_ref(content), clients)
    }

    /// One turn of one server, whose clients ask for one file after the other.
    pub fn measure_in_turn(
        &self,
        server: &Server,
        protocol: Protocol,
        contents: &[Content],
        clients: usize,
    ) -> Result<Measured> {
        let first = &contents.first().ok_or("no file to ask for")?.name;
        let told = |error| format!("{}, {first}: {error}", server.peer.label());
        let began = Load::begin_in_turn(server.address, protocol, contents, clients);
        let mut load = began.map_err(told)?;
        load.run(WARM_UP).map_err(told)?;
        let pid = server.pid()?;
        let before = processes::cpu_time(pid)?;
        let tally = load.run(self.turn).map_err(told)?;
        let cpu = processes::cpu_time(pid)? - before;
        if tally.bytes == 0 {
            return Err(told("nothing was downloaded".into()).into());
        }
        Ok(Measured { cpu, tally })
    }
}
