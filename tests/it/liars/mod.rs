//! Servers that lie on purpose, and honest ones to tell them from: one thread a connection, each
//! in the test's process. What a server does is a function of how many downloads were asked for
//! before, so a test knows the count of every lie.

pub(crate) mod http;
pub(crate) mod scripts;

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// How often a server lies: in one download of so many.
pub(crate) const EVERY: u64 = 200;

/// What one download gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The body, and an orderly end.
    Whole,
    /// So many bytes of it, and an orderly end.
    Cut(usize),
    /// The body with one bit of the byte at this offset turned.
    Flipped(usize),
    /// The body and a byte more.
    OneTooMany,
    /// So many bytes, and a reset.
    Reset(usize),
    /// So many bytes, and nothing more until the client leaves.
    Silent(usize),
    /// HTTP: a page that says 404.
    NotFound,
    /// HTTP: words that are no answer.
    Garbage,
    /// These bytes, and an orderly end.
    Raw(&'static str),
}

/// What the answers are made of: a body for each name.
pub(crate) type Bodies = HashMap<String, Vec<u8>>;

/// A server that is there until the test's process ends.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    connections: AtomicU64,
    downloads: AtomicU64,
}

impl Server {
    /// Connections let in so far.
    pub(crate) fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::SeqCst)
    }

    /// Downloads asked for so far.
    pub(crate) fn downloads(&self) -> u64 {
        self.counts.downloads.load(Ordering::SeqCst)
    }

    /// This download's number; the first is 1.
    fn count_download(&self) -> u64 {
        self.counts.downloads.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Handles each connection on a thread of its own. What goes wrong on one ends it: the client
    /// has left, and its test will say so.
    fn start(
        handle: impl Fn(&Self, TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        crate::common::raise_own_limit();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            addr: listener.local_addr().unwrap(),
            counts: Arc::default(),
        };
        let (shared, handle) = (server.clone(), Arc::new(handle));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                shared.counts.connections.fetch_add(1, Ordering::SeqCst);
                let (shared, handle) = (shared.clone(), Arc::clone(&handle));
                thread::spawn(move || handle(&shared, stream));
            }
        });
        server
    }
}

/// The bare protocol: a name and LF (or the end of what the client says), then what `choose` says
/// about this download. A name that has no body gets no byte.
pub(crate) fn bare(
    bodies: Bodies,
    choose: impl Fn(u64) -> Answer + Send + Sync + 'static,
) -> Server {
    Server::start(move |server, mut stream| {
        // All of the name is read, so that the close is no reset.
        let mut name = Vec::new();
        BufReader::new(&stream).read_until(b'\n', &mut name)?;
        let name = String::from_utf8_lossy(&name);
        let name = name.trim_end_matches('\n');
        if name.is_empty() {
            return Ok(());
        }
        let answer = choose(server.count_download());
        let body = bodies.get(name).map_or(&[][..], Vec::as_slice);
        stream.write_all(&told(answer, body))?;
        end(answer, stream)
    })
}

/// The bytes of the body as this answer tells them.
fn told(answer: Answer, body: &[u8]) -> Vec<u8> {
    let mut bytes = body.to_vec();
    match answer {
        Answer::Cut(count) | Answer::Reset(count) | Answer::Silent(count) => bytes.truncate(count),
        Answer::Flipped(offset) => bytes[offset] ^= 1,
        Answer::OneTooMany => bytes.push(b'!'),
        Answer::Raw(text) => return text.into(),
        Answer::Whole | Answer::NotFound | Answer::Garbage => {}
    }
    bytes
}

/// Ends a connection as this answer does.
fn end(answer: Answer, mut stream: TcpStream) -> std::io::Result<()> {
    match answer {
        Answer::Reset(_) => socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)),
        Answer::Silent(_) => stream.read_to_end(&mut Vec::new()).map(drop),
        _ => Ok(()),
    }
}

/// No lies.
pub(crate) fn honest(_: u64) -> Answer {
    Answer::Whole
}

/// This answer in one download of [`EVERY`].
pub(crate) fn now_and_then(lie: Answer) -> impl Fn(u64) -> Answer + Send + Sync + 'static {
    move |download| match download % EVERY {
        0 => lie,
        _ => Answer::Whole,
    }
}

/// Always this answer.
pub(crate) fn always(answer: Answer) -> impl Fn(u64) -> Answer + Send + Sync + 'static {
    move |_| answer
}

/// Honest, but from one download on nobody gets a byte for so long; connections are let in.
pub(crate) fn stalling_at(
    download: u64,
    time: Duration,
) -> impl Fn(u64) -> Answer + Send + Sync + 'static {
    let end = OnceLock::new();
    move |asked| {
        if asked == download {
            end.set(Instant::now() + time).unwrap();
        }
        if let Some(&end) = end.get() {
            thread::sleep(Instant::saturating_duration_since(&end, Instant::now()));
        }
        Answer::Whole
    }
}

/// A port where nobody listens, and that nobody else gets meanwhile.
pub(crate) struct Refusing(socket2::Socket);

impl Refusing {
    pub(crate) fn new() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(&any.into()).unwrap();
        Self(socket)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.0.local_addr().unwrap().as_socket().unwrap()
    }
}
