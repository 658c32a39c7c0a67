//! An HTTP server that tests write the answers for: honest by default, with as many lies as they
//! like, and a note of what was asked.

pub(crate) mod tls;

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::fake::{Outcome, carafe, run};

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Names in small letters.
    fields: Vec<(String, String)>,
}

impl Asked {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut found = self.fields.iter().filter(|(field, _)| field == name);
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} comes twice");
        value
    }

    /// Where the range begins, if one is asked for.
    pub(crate) fn from(&self) -> Option<usize> {
        let range = self.field("range")?;
        let from = range.strip_prefix("bytes=").unwrap();
        Some(from.strip_suffix('-').unwrap().parse().unwrap())
    }

    /// The head that comes next on a connection.
    pub(crate) fn read(stream: impl Read) -> Option<Self> {
        let mut lines = BufReader::new(stream).lines();
        let first = lines.next()?.ok()?;
        let mut words = first.split(' ');
        let (method, path) = (words.next()?.into(), words.next()?.into());
        let mut fields = Vec::new();
        for line in lines {
            match line.ok()?.split_once(": ") {
                Some((name, value)) => fields.push((name.to_ascii_lowercase(), value.into())),
                None => break,
            }
        }
        Some(Self {
            method,
            path,
            fields,
        })
    }
}

/// A server whose every connection has one answer, on a thread of its own.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Origin {
    /// `answer` gets the request, how many came before it, and the connection.
    pub(crate) fn start(answer: impl Fn(&Asked, usize, TcpStream) + Send + Sync + 'static) -> Self {
        crate::common::raise_own_limit();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (noted, answer) = (Arc::clone(&asked), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let (noted, answer) = (Arc::clone(&noted), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let Some(request) = Asked::read(&stream) else {
                        return;
                    };
                    let mut all = noted.lock().unwrap();
                    let count = all.len();
                    all.push(request.clone());
                    drop(all);
                    answer(&request, count, stream);
                });
            }
        });
        Self { address, asked }
    }

    /// A server whose answers are bytes that end with the connection.
    pub(crate) fn of(answer: impl Fn(&Asked, usize) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start(move |asked, count, mut stream| {
            // The client may be gone before all is sent.
            let _ = stream.write_all(&answer(asked, count));
        })
    }

    /// An honest server of one version of one file.
    pub(crate) fn honest(version: &Version) -> Self {
        let version = version.clone();
        Self::of(move |asked, _| version.answer(asked))
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Everything asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Where the ranges began that were asked for so far.
    pub(crate) fn from(&self) -> Vec<Option<usize>> {
        self.asked().iter().map(Asked::from).collect()
    }
}

/// One version of a file.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) body: Vec<u8>,
    /// Header lines, each with its CRLF.
    pub(crate) validators: String,
}

impl Version {
    pub(crate) fn new(body: impl Into<Vec<u8>>, etag: &str) -> Self {
        Self {
            body: body.into(),
            validators: format!("ETag: {etag}\r\n"),
        }
    }

    /// What an honest server answers: RFC 9110, 13.1.5 and 14.
    pub(crate) fn answer(&self, asked: &Asked) -> Vec<u8> {
        let if_range = asked.field("if-range");
        let is_same = if_range.is_none_or(|validator| {
            let lines = self.validators.split("\r\n");
            let mut values = lines.filter_map(|line| line.split_once(": "));
            values.any(|(name, value)| name != "Date" && value == validator)
        });
        let whole = self.body.len();
        match asked.from() {
            Some(from) if is_same && from < whole => self.part(from, from, whole),
            Some(_) if is_same => self.with_head(
                "416 Range Not Satisfiable",
                &format!("Content-Range: bytes */{whole}\r\nContent-Length: 0\r\n"),
                b"",
            ),
            _ => {
                let length = format!("Content-Length: {whole}\r\n");
                let is_head = asked.method == "HEAD";
                let body = if is_head { &[] } else { &self.body[..] };
                self.with_head("200 OK", &length, body)
            }
        }
    }

    /// A 206 of the bytes from `from` that says it begins at `said`, of so many in all.
    pub(crate) fn part(&self, from: usize, said: usize, total: usize) -> Vec<u8> {
        let body = &self.body[from..];
        let last = said + body.len() - 1;
        let length = body.len();
        let fields =
            format!("Content-Range: bytes {said}-{last}/{total}\r\nContent-Length: {length}\r\n");
        self.with_head("206 Partial Content", &fields, body)
    }

    pub(crate) fn with_head(&self, status: &str, fields: &str, body: &[u8]) -> Vec<u8> {
        let head = format!("HTTP/1.1 {status}\r\n{}{fields}\r\n", self.validators);
        [head.as_bytes(), body].concat()
    }
}

/// Cuts an answer off so many bytes after its head.
pub(crate) fn cut(mut answer: Vec<u8>, body_bytes: usize) -> Vec<u8> {
    let head = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap()
        + 4;
    answer.truncate(head + body_bytes);
    answer
}

/// A server that answers everything with these bytes.
pub(crate) fn saying(answer: impl Into<Vec<u8>>) -> Origin {
    let answer = answer.into();
    Origin::of(move |_, _| answer.clone())
}

/// `carafe get -O` with these words, without rests between tries.
pub(crate) fn get<W: AsRef<OsStr>>(folder: &Path, words: &[W]) -> Outcome {
    let mut command = carafe(folder);
    command.args(["get", "-O", "--retry-delay", "0s"]);
    command.args(words);
    run(&mut command, b"")
}

/// The folder's names, sorted.
pub(crate) fn listing(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Whether the file has at least so many bytes.
pub(crate) fn has_bytes(path: &Path, count: u64) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.len() >= count)
}
