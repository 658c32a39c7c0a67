//! The clients: a closed loop on one thread, as cheap as it can be, so that the server is what is
//! measured. Lengths are checked always, content on a sample.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with,
};

use crate::Result;
use crate::content::Content;

/// Set by a signal: the run ends at its next turn, and everything that was started with it.
pub static IS_INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// As much as a read takes: what fits a core's own cache.
const BUFFER_BYTES: usize = 256 * 1024;

/// Events taken at a time.
const EVENTS: usize = 512;

/// One read of so many is compared byte by byte: a prime, so that every client has its turn.
const SAMPLE: u64 = 61;

/// A server that gives nothing for so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How a client asks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Protocol {
    /// The name and LF; the end of the file is the end of the connection.
    Bare,
    /// The name alone, as the tutorial's client asks.
    Unterminated,
    /// HTTP/1.1 with `Connection: close`.
    Http,
    /// HTTP/1.1, one request at a time and connection.
    KeepAlive,
}

impl Protocol {
    /// What is sent to get a file.
    pub fn request(self, name: &str) -> Vec<u8> {
        match self {
            Self::Bare => format!("{name}\n"),
            Self::Unterminated => name.to_owned(),
            Self::Http => {
                format!("GET /{name} HTTP/1.1\r\nHost: peers\r\nConnection: close\r\n\r\n")
            }
            Self::KeepAlive => format!("GET /{name} HTTP/1.1\r\nHost: peers\r\n\r\n"),
        }
        .into_bytes()
    }
}

/// What a stretch of time brought.
#[derive(Debug)]
pub struct Tally {
    /// Whole downloads.
    pub downloads: u64,
    /// Bytes received, heads included.
    pub bytes: u64,
    /// From connect, or from the request on a connection that was kept, to the last byte; in
    /// nanoseconds.
    pub latency_ns: Histogram<u64>,
    /// How long it took.
    pub elapsed: Duration,
}

impl Tally {
    fn new() -> Result<Self> {
        Ok(Self {
            downloads: 0,
            bytes: 0,
            latency_ns: Histogram::new(3)?,
            elapsed: Duration::ZERO,
        })
    }

    /// What so many percent of the downloads took at most, in milliseconds.
    pub fn percentile_ms(&self, percentile: f64) -> f64 {
        self.latency_ns.value_at_percentile(percentile) as f64 / 1e6
    }
}

struct Client {
    socket: Option<OwnedFd>,
    has_asked: bool,
    /// Which of the files it downloads.
    file: usize,
    received: u64,
    began: Instant,
}

/// A file, and how it is asked for.
struct Asked<'a> {
    request: Vec<u8>,
    content: &'a Content,
    head_bytes: u64,
}

impl Asked<'_> {
    fn answer_bytes(&self) -> u64 {
        self.head_bytes + self.content.length
    }
}

/// A number of clients that download files of one server, over and over.
pub struct Load<'a> {
    epoll: OwnedFd,
    address: SocketAddrV4,
    protocol: Protocol,
    files: Vec<Asked<'a>>,
    /// Who asks next, asks for this one.
    next_file: usize,
    clients: Vec<Client>,
    buffer: Vec<u8>,
    tally: Tally,
    reads: u64,
    /// How those reads are made that aren't compared.
    flags: RecvFlags,
}

impl<'a> Load<'a> {
    /// Downloads once and compares all of it, then connects the clients.
    pub fn begin(
        address: SocketAddrV4,
        protocol: Protocol,
        content: &'a Content,
        clients: usize,
    ) -> Result<Self> {
        Self::begin_in_turn(address, protocol, std::slice::from_ref(content), clients)
    }

    /// Downloads each once and compares all of it, then connects clients that ask for one after the
    /// other.
    pub fn begin_in_turn(
        address: SocketAddrV4,
        protocol: Protocol,
        contents: &'a [Content],
        clients: usize,
    ) -> Result<Self> {
        let asked = |content: &'a Content| {
            let request = protocol.request(&content.name);
            let head_bytes = probe(address, protocol, &request, content)?;
            Ok(Asked {
                request,
                content,
                head_bytes,
            })
        };
        let files = contents.iter().map(asked).collect::<Result<_>>()?;
        let began = Instant::now();
        let client = || Client {
            socket: None,
            has_asked: false,
            file: 0,
            received: 0,
            began,
        };
        let mut load = Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            address,
            protocol,
            files,
            next_file: 0,
            clients: (0..clients).map(|_| client()).collect(),
            buffer: vec![0; BUFFER_BYTES],
            tally: Tally::new()?,
            reads: 0,
            flags: RecvFlags::empty(),
        };
        for key in 0..clients {
            load.connect(key)?;
        }
        Ok(load)
    }

    /// Lets the kernel throw away what isn't compared (tcp(7), MSG_TRUNC): a client that copies is
    /// slower than a server that doesn't.
    pub fn discarding(mut self) -> Self {
        self.flags = RecvFlags::TRUNC;
        self
    }

    /// Lets the clients work for so long.
    pub fn run(&mut self, time: Duration) -> Result<Tally> {
        self.tally = Tally::new()?;
        let began = Instant::now();
        let mut events = Vec::with_capacity(EVENTS);
        let mut last_heard = began;
        loop {
            let now = Instant::now();
            let Some(rest) = time.checked_sub(now - began).filter(|rest| !rest.is_zero()) else {
                break;
            };
            if IS_INTERRUPTED.load(Ordering::Relaxed) {
                return Err("interrupted".into());
            }
            if now - last_heard > PATIENCE {
                return Err(format!("{} has fallen silent", self.address).into());
            }
            let timeout = Timespec::try_from(rest.min(Duration::from_millis(100)))?;
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout)) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            if !events.is_empty() {
                last_heard = now;
            }
            for event in &events {
                let epoll::Event { data, flags } = *event;
                self.ready(data.u64() as usize, flags)?;
            }
        }
        self.tally.elapsed = began.elapsed();
        Ok(std::mem::replace(&mut self.tally, Tally::new()?))
    }

    /// Adds those that wait still to a tally, with the time they have waited so far.
    pub fn outstanding(&self, tally: &mut Tally) -> Result<()> {
        for client in &self.clients {
            let waited = client.began.elapsed();
            tally.latency_ns.record(waited.as_nanos() as u64)?;
        }
        Ok(())
    }

    fn connect(&mut self, key: usize) -> Result<()> {
        let began = Instant::now();
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        match connect(&socket, &self.address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(format!("connect: {error}").into()),
        }
        // Over loopback the handshake is over when connect returns.
        let file = self.choose();
        let has_asked = self.ask(&socket, file)?;
        let mut interest = EventFlags::IN | EventFlags::RDHUP;
        interest.set(EventFlags::OUT, !has_asked);
        let data = EventData::new_u64(key as u64);
        epoll::add(&self.epoll, &socket, data, interest)?;
        self.clients[key] = Client {
            socket: Some(socket),
            has_asked,
            file,
            received: 0,
            began,
        };
        Ok(())
    }

    /// Which file is asked for now.
    fn choose(&mut self) -> usize {
        let file = self.next_file;
        self.next_file = (file + 1) % self.files.len();
        file
    }

    /// Whether the request could be sent already.
    fn ask(&self, socket: &OwnedFd, file: usize) -> Result<bool> {
        let request = &self.files[file].request[..];
        match send(socket, request, SendFlags::NOSIGNAL) {
            Ok(count) if count == request.len() => Ok(true),
            Ok(_) => Err("a request did not fit the send buffer".into()),
            Err(Errno::AGAIN) => Ok(false),
            Err(error) => Err(format!("send: {error}").into()),
        }
    }

    fn ready(&mut self, key: usize, flags: EventFlags) -> Result<()> {
        let client = &self.clients[key];
        let Some(socket) = &client.socket else {
            return Ok(());
        };
        if !client.has_asked {
            if self.ask(socket, client.file)? {
                let data = EventData::new_u64(key as u64);
                let interest = EventFlags::IN | EventFlags::RDHUP;
                epoll::modify(&self.epoll, socket, data, interest)?;
                self.clients[key].has_asked = true;
            }
            return Ok(());
        }
        self.reads += 1;
        let is_sample = self.reads.is_multiple_of(SAMPLE);
        let how = if is_sample {
            RecvFlags::empty()
        } else {
            self.flags
        };
        let count = match recv(socket, &mut self.buffer[..], how) {
            Ok((_, count)) => count,
            Err(Errno::AGAIN) => return Ok(()),
            Err(error) => return Err(format!("recv: {error}").into()),
        };
        let offset = client.received;
        self.tally.bytes += count as u64;
        if is_sample {
            let file = &self.files[client.file];
            let skipped = file.head_bytes.saturating_sub(offset).min(count as u64);
            let in_body = (offset + skipped).saturating_sub(file.head_bytes);
            let bytes = &self.buffer[skipped as usize..count];
            file.content.compare(in_body, bytes)?;
        }
        self.clients[key].received += count as u64;
        // A read that leaves the buffer unfilled has emptied the queue, and FIN is behind it.
        let is_end = count == 0 || (flags.contains(EventFlags::RDHUP) && count < BUFFER_BYTES);
        self.received(key, is_end)
    }

    fn received(&mut self, key: usize, is_end: bool) -> Result<()> {
        let received = self.clients[key].received;
        let expected = self.files[self.clients[key].file].answer_bytes();
        let is_kept = self.protocol == Protocol::KeepAlive;
        if received > expected || (is_end && received < expected) {
            // A server may end a connection that it has kept for long, between two answers.
            if is_kept && is_end && received == 0 {
                return self.connect(key);
            }
            return Err(format!("{received} bytes of an answer of {expected}").into());
        }
        if received < expected || !(is_end || is_kept) {
            return Ok(());
        }
        let latency = self.clients[key].began.elapsed();
        self.tally.latency_ns.record(latency.as_nanos() as u64)?;
        self.tally.downloads += 1;
        if !is_kept || is_end {
            self.clients[key].socket = None;
            return self.connect(key);
        }
        let file = self.choose();
        let client = &mut self.clients[key];
        (client.file, client.received, client.began) = (file, 0, Instant::now());
        let Some(socket) = &self.clients[key].socket else {
            return Ok(());
        };
        match self.ask(socket, file) {
            Ok(true) => Ok(()),
            Ok(false) => Err("the send buffer of an idle connection is full".into()),
            Err(_) => self.connect(key),
        }
    }
}

/// Downloads the file once, compares all of it, and returns the length of what stands before it.
fn probe(
    address: SocketAddrV4,
    protocol: Protocol,
    request: &[u8],
    content: &Content,
) -> Result<u64> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut first = Vec::new();
    let is_http = matches!(protocol, Protocol::Http | Protocol::KeepAlive);
    let head_bytes = loop {
        if !is_http {
            break 0;
        }
        if let Some(end) = first.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        match stream.read(&mut buffer)? {
            0 => return Err("the answer ended in its head".into()),
            count => first.extend_from_slice(&buffer[..count]),
        }
    };
    if is_http {
        let head = String::from_utf8_lossy(&first[..head_bytes]).to_lowercase();
        let length = format!("\r\ncontent-length: {}\r\n", content.length);
        if !head.contains(" 200 ok\r\n") || !head.contains(&length) {
            return Err(format!("not the expected answer: {head}").into());
        }
    }
    let mut received = (first.len() - head_bytes) as u64;
    content.compare(0, &first[head_bytes..])?;
    while received < content.length {
        match stream.read(&mut buffer)? {
            0 => return Err(format!("{received} bytes of {}", content.length).into()),
            count => {
                content.compare(received, &buffer[..count])?;
                received += count as u64;
            }
        }
    }
    Ok(head_bytes as u64)
}
