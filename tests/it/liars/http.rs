//! An HTTP/1.1 server of few words, honest or not.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use super::{Answer, Bodies, Server, end, told};

/// How an answer says where it ends, and whether another may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Content-Length; the connection stays.
    KeptAlive,
    /// Content-Length; the connection is closed, and that is said.
    Closed,
    /// Content-Length; the tenth answer of a connection says that it is the last.
    TenEach,
    /// Content-Length; each eleventh request of a connection is read, and finds it closed.
    TenUnsaid,
    /// Chunks of many sizes; the connection stays.
    Chunked,
    /// The body ends with the connection.
    UntilClose,
}

/// Serves `/NAME` for every body.
pub(crate) fn serve(
    bodies: Bodies,
    style: Style,
    choose: impl Fn(u64) -> Answer + Send + Sync + 'static,
) -> Server {
    Server::start(move |server, stream| {
        let mut reader = BufReader::new(stream.try_clone()?);
        for answered in 1.. {
            let Some(request) = Request::read(&mut reader)? else {
                break;
            };
            if style == Style::TenUnsaid && answered == 11 {
                break;
            }
            let is_last = request.says_close
                || matches!(style, Style::Closed | Style::UntilClose)
                || (style == Style::TenEach && answered == 10);
            let answer = choose(server.count_download());
            let body = bodies.get(&request.name);
            let goes_on = reply(&stream, style, answer, body, &request, is_last)?;
            if !goes_on {
                return end(answer, stream);
            }
            if is_last {
                break;
            }
        }
        Ok(())
    })
}

/// Answers one request; whether the connection may go on.
fn reply(
    mut stream: &TcpStream,
    style: Style,
    answer: Answer,
    body: Option<&Vec<u8>>,
    request: &Request,
    is_last: bool,
) -> std::io::Result<bool> {
    let connection = if is_last { "Connection: close\r\n" } else { "" };
    let page = |status: &str| {
        format!("HTTP/1.1 {status}\r\n{connection}Content-Length: 5\r\n\r\nsorry").into_bytes()
    };
    let (bytes, goes_on) = match (answer, body) {
        (Answer::Garbage, _) => (b"this is no HTTP\r\n\r\n".to_vec(), false),
        (Answer::Reset(0) | Answer::Silent(0), _) => (Vec::new(), false),
        _ if !request.is_fit => (page("400 Bad Request"), true),
        (Answer::NotFound, _) | (_, None) => (page("404 Not Found"), true),
        (_, Some(body)) => {
            let head = format!("HTTP/1.1 200 OK\r\nServer: liar\r\n{connection}");
            let goes_on = matches!(
                answer,
                Answer::Whole | Answer::Flipped(_) | Answer::OneTooMany
            );
            let framed = framed(style, answer, body);
            ([head.as_bytes(), &framed].concat(), goes_on)
        }
    };
    stream.write_all(&bytes)?;
    Ok(goes_on)
}

/// The rest of the head, and the body. A body that ends early was announced whole.
fn framed(style: Style, answer: Answer, body: &[u8]) -> Vec<u8> {
    let told = told(answer, body);
    match style {
        Style::KeptAlive | Style::Closed | Style::TenEach | Style::TenUnsaid => {
            let length = body.len().max(told.len());
            let head = format!("Content-Length: {length}\r\n\r\n");
            [head.as_bytes(), &told].concat()
        }
        Style::UntilClose => [b"\r\n", &told[..]].concat(),
        Style::Chunked => {
            let mut bytes = b"Transfer-Encoding: chunked\r\n\r\n".to_vec();
            // Sizes of one to four digits, in both cases of letters, one with an extension.
            let (mut rest, mut sizes) = (&told[..], [1, 10, 255, 4096, 700].iter().cycle());
            while !rest.is_empty() {
                let (chunk, later) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
                let size = match chunk.len() % 2 {
                    0 => format!("{:x}\r\n", chunk.len()),
                    _ => format!("{:X};kind=odd\r\n", chunk.len()),
                };
                bytes.extend([size.as_bytes(), chunk, b"\r\n"].concat());
                rest = later;
            }
            if told.len() >= body.len() {
                bytes.extend(b"0\r\nTrailer: some\r\n\r\n");
            }
            bytes
        }
    }
}

/// What was asked for.
struct Request {
    name: String,
    /// GET, of this version, with a host.
    is_fit: bool,
    says_close: bool,
}

impl Request {
    /// The next one of a connection; `None` if the client leaves instead.
    fn read(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Self>> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            match line.strip_suffix("\r\n") {
                Some("") => break,
                Some(line) => lines.push(line.to_ascii_lowercase()),
                None => lines.push(String::new()),
            }
        }
        let first = lines.first().cloned().unwrap_or_default();
        let words: Vec<_> = first.split(' ').collect();
        let name = words.get(1).map_or("", |path| path.trim_start_matches('/'));
        let is_fit = matches!(words[..], ["get", path, "http/1.1"] if path.starts_with('/'))
            && lines
                .iter()
                .filter(|line| line.starts_with("host: "))
                .count()
                == 1
            && !lines.contains(&String::new());
        Ok(Some(Self {
            name: name.into(),
            is_fit,
            says_close: lines.iter().any(|line| line == "connection: close"),
        }))
    }
}
