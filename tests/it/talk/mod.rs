//! A client of HTTP by the byte: it sends what the test wrote, and takes an answer for one only if
//! its head says how long it is.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::common::{connect, connect_narrow, send_and_see_read, until};

/// The example of RFC 9110, section 5.6.7.
pub(crate) const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
pub(crate) const MODIFIED_SECONDS: u64 = 784_111_777;

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Without the empty line at its end.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The field's value; nothing if it isn't there. It must not be there twice.
    #[track_caller]
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.head.lines().skip(1).filter_map(|line| {
            let (field, value) = line.split_once(": ").expect("a field");
            field.eq_ignore_ascii_case(name).then_some(value)
        });
        let value = values.next();
        assert!(values.next().is_none(), "{name} twice: {}", self.head);
        value
    }

    /// Whether the connection goes on.
    pub(crate) fn is_last(&self) -> bool {
        self.field("connection") == Some("close")
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection.
pub(crate) struct Talk {
    pub(crate) stream: BufReader<TcpStream>,
}

impl Talk {
    pub(crate) fn to(addr: SocketAddr) -> Self {
        Self::over(connect(addr))
    }

    /// With a small receive buffer.
    pub(crate) fn narrow(addr: SocketAddr) -> Self {
        Self::over(connect_narrow(addr, 64 * 1024))
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        let stream = BufReader::new(stream);
        Self { stream }
    }

    pub(crate) fn socket(&mut self) -> &mut TcpStream {
        self.stream.get_mut()
    }

    pub(crate) fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket().write_all(bytes.as_ref()).unwrap();
    }

    /// The server has read it when this returns.
    pub(crate) fn say_and_see_read(&mut self, bytes: impl AsRef<[u8]>) {
        send_and_see_read(self.socket(), bytes.as_ref());
    }

    pub(crate) fn half_close(&mut self) {
        self.socket().shutdown(Shutdown::Write).unwrap();
    }

    /// As [`Self::say_and_see_read`], where a new client would take another's place: one that is
    /// there already is asked instead.
    pub(crate) fn say_and_see_read_by(&mut self, bytes: impl AsRef<[u8]>, other: &mut Self) {
        let acked = |talk: &mut Self| carafe::sockopt::acked_bytes(talk.socket()).unwrap();
        let all = acked(self) + bytes.as_ref().len() as u64;
        self.say(bytes);
        until("the server's kernel has the bytes", || acked(self) >= all);
        // Their edge comes with the next turn at the latest.
        for _ in 0..2 {
            assert_eq!(other.get("/missing").status, 404);
        }
    }

    /// The next answer's head; its body is not read.
    #[track_caller]
    pub(crate) fn head(&mut self) -> Answer {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let count = self.stream.read_until(b'\n', &mut head).unwrap();
            let so_far = head.escape_ascii();
            assert!(count > 0, "the end instead of an answer: {so_far}");
            assert!(head.ends_with(b"\r\n"), "no line: {so_far}");
        }
        let head = String::from_utf8(head).unwrap();
        let head = head.trim_end().to_owned();
        let status = head.strip_prefix("HTTP/1.1 ").expect("a status line");
        Answer {
            status: status[..3].parse().unwrap(),
            head,
            body: Vec::new(),
        }
    }

    /// The next answer.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        let mut answer = self.head();
        let length = answer.field("content-length").map(|n| n.parse().unwrap());
        let is_bodiless = matches!(answer.status, 204 | 304);
        assert_eq!(is_bodiless, length.is_none(), "{}", answer.head);
        answer.body = self.take(length.unwrap_or(0));
        answer
    }

    /// So many bytes of a body.
    #[track_caller]
    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, request: &str) -> Answer {
        self.say(request);
        self.answer()
    }

    /// GET on a connection that goes on.
    #[track_caller]
    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.ask(&get(path, ""))
    }

    /// All that comes until the end, which must be orderly.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.stream
            .read_to_end(&mut rest)
            .expect("an orderly end, no reset");
        rest
    }

    /// The server ends the connection in order, without another byte.
    #[track_caller]
    pub(crate) fn ends(&mut self) {
        let rest = self.rest();
        assert_eq!(rest.escape_ascii().to_string(), "");
        assert!(self.socket().take_error().unwrap().is_none(), "a reset");
    }

    /// Nothing has come, and the connection is open.
    #[track_caller]
    pub(crate) fn waits(&mut self) {
        assert!(self.stream.buffer().is_empty());
        let socket = self.socket();
        socket.set_nonblocking(true).unwrap();
        let peeked = socket.peek(&mut [0]).map_err(|error| error.kind());
        socket.set_nonblocking(false).unwrap();
        assert_eq!(peeked, Err(ErrorKind::WouldBlock));
    }
}

/// A GET with more field lines, each with its end.
pub(crate) fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n{fields}\r\n")
}

/// One request, and its answer. A connection that is said to end does.
#[track_caller]
pub(crate) fn ask(addr: SocketAddr, request: &str) -> Answer {
    let mut talk = Talk::to(addr);
    let answer = talk.ask(request);
    if answer.is_last() {
        talk.ends();
    }
    answer
}

/// What comes without the lines that tell the time.
pub(crate) fn without_dates(bytes: &[u8]) -> String {
    let lines = bytes.split_inclusive(|&byte| byte == b'\n');
    let lines = lines.filter(|line| !line.starts_with(b"Date: "));
    lines.map(|line| line.escape_ascii().to_string()).collect()
}

/// The Last-Modified field's value of a file that has one: its last change, in GMT.
pub(crate) fn changed(path: &Path) -> String {
    let changed = Duration::from_secs(fs::metadata(path).unwrap().ctime().unsigned_abs());
    carafe::http::date::format(SystemTime::UNIX_EPOCH + changed).unwrap()
}

/// Waits until all files beneath have both validators: until nothing that is done to them later can
/// leave the second of their last change as it is.
pub(crate) fn settle(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => settle(&entry.path()),
            kind if kind.is_file() => {
                let changed = entry.metadata().unwrap().ctime();
                until("a file is old enough", || {
                    carafe::file::version::stamp_clock() > (changed + 1, 10_000_000)
                });
            }
            _ => {}
        }
    }
}

/// Sets a file's time to [`MODIFIED`].
pub(crate) fn age(path: &Path) {
    set_time(
        path,
        SystemTime::UNIX_EPOCH + Duration::from_secs(MODIFIED_SECONDS),
    );
}

pub(crate) fn set_time(path: &Path, time: SystemTime) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(time).unwrap();
}

/// Sets the time of all files beneath.
pub(crate) fn age_all(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => age_all(&entry.path()),
            kind if kind.is_file() => age(&entry.path()),
            _ => {}
        }
    }
}
