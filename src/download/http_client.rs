//! One request over HTTP/1.1, redirects followed, and what its failures mean: worth another try or
//! not. An answer's bytes are understood by `crate::http::response`.
//!
//! Everything goes through `Read + Write`: whether TLS is beneath is the connection's business.

use std::fmt::Write as _;
use std::io::{self, Read, Write as _};
use std::ops::Range;
use std::time::SystemTime;

use http::header::LOCATION;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::backoff::{self, FetchError};
use super::connection::{self, Connection, TimeLimits};
use super::resume::Validator;
use super::transfer::Session;
use super::url::{self, FolderUrl, HttpUrl};
use crate::escape::{Escaped, EscapedText};
use crate::failure::{Exit, Failure};
use crate::http::response::{Chunk, Chunks, Framing, Head, parse_fields};
use crate::limits;
use crate::tls::client::{ALPN_HTTP, Connector};

const USER_AGENT: &str = concat!("carafe/", env!("CARGO_PKG_VERSION"));

/// Asks servers, each time on a connection of its own.
#[derive(Debug)]
pub(super) struct HttpClient<'a> {
    time_limits: TimeLimits,
    connector: &'a Connector,
    /// Whether a redirect may lead from https down to http.
    may_downgrade: bool,
    /// The folder that none may lead out of.
    bounds: Option<&'a FolderUrl>,
}

/// What is wanted of a URL.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted<'a> {
    Whole,
    /// What follows so many bytes, if they are still of this version.
    After(u64, &'a Validator),
    /// A folder's list, in a form that is read here.
    List,
    /// A folder's list, as browsers have it.
    Page,
}

/// A server's answer: the head, and a reader for the body.
pub(super) struct HttpResponse {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: ResponseBody,
}

impl<'a> HttpClient<'a> {
    pub(super) fn new(
        session: &'a Session<'_>,
        time_limits: TimeLimits,
        bounds: Option<&'a FolderUrl>,
    ) -> Self {
        Self {
            time_limits,
            connector: &session.connector,
            may_downgrade: session.args.allow_downgrade,
            bounds,
        }
    }

    /// Asks for a URL. The answer's status is not looked at, except for redirects, which are followed.
    ///
    /// # Errors
    /// No connection, no answer in time, one that is no HTTP, or a redirect that leads nowhere.
    pub(super) fn ask(
        &self,
        method: &Method,
        url: &HttpUrl,
        wanted: Wanted<'_>,
    ) -> Result<HttpResponse, FetchError> {
        let answer = self.ask_anywhere(method, url, wanted);
        answer.map(|(_, response)| response)
    }

    /// As [`HttpClient::ask`], with the URL that the last redirect has led to.
    ///
    /// # Errors
    /// As there.
    pub(super) fn ask_anywhere(
        &self,
        method: &Method,
        url: &HttpUrl,
        wanted: Wanted<'_>,
    ) -> Result<(HttpUrl, HttpResponse), FetchError> {
        let mut url = url.clone();
        for _ in 0..=limits::REDIRECTS_MAX {
            let response = self.ask_once(method, &url, wanted)?;
            let Some(location) = location(&response) else {
                return Ok((url, response));
            };
            let wont_do = |why: &str| {
                let location = Escaped(location);
                let why = EscapedText(why);
                let line = format!("the server redirects to '{location}', which won't do: {why}");
                Failure::new(Exit::Protocol, line)
            };
            let next = url::follow(&url, location).map_err(|why| wont_do(&why))?;
            if url.is_tls() && !next.is_tls() && !self.may_downgrade {
                let why = "it leads from https down to http, which --allow-downgrade follows";
                return Err(wont_do(why).into());
            }
            if self.bounds.is_some_and(|folder| !folder.holds(&next)) {
                return Err(wont_do("it leads out of the folder").into());
            }
            url = next;
        }
        let max = limits::REDIRECTS_MAX;
        let line = format!("the server redirects more than {max} times");
        Err(Failure::new(Exit::Protocol, line).into())
    }

    fn ask_once(
        &self,
        method: &Method,
        url: &HttpUrl,
        wanted: Wanted<'_>,
    ) -> Result<HttpResponse, FetchError> {
        let (server, limits) = (url.server(), &self.time_limits);
        let mut connection = if url.is_tls() {
            Connection::open_tls(server, limits, self.connector, Some(ALPN_HTTP))?
        } else {
            Connection::open(server, limits)?
        };
        let request = request(method, url, wanted);
        connection.write_all(request.as_bytes()).map_err(|error| {
            ResponseError::from(error).into_fetch_error("the request could not be sent")
        })?;
        receive(connection, method).map_err(|error| error.into_fetch_error("no answer came"))
    }
}

/// A request's bytes. A connection carries one: its end is one more sign of the body's.
fn request(method: &Method, url: &HttpUrl, wanted: Wanted<'_>) -> String {
    let (target, host) = (url.target(), url.host_field());
    let accept = match wanted {
        Wanted::List => "application/json, text/html;q=0.9, */*;q=0.1",
        Wanted::Page => "text/html, */*;q=0.1",
        Wanted::Whole | Wanted::After(..) => "*/*",
    };
    let mut text = format!(
        "{method} {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {USER_AGENT}\r\n\
         Accept: {accept}\r\nAccept-Encoding: identity\r\nConnection: close\r\n"
    );
    if let Wanted::After(bytes, validator) = wanted
        && let Some(if_range) = validator.if_range()
    {
        // Writing to memory doesn't fail.
        let _ = write!(text, "Range: bytes={bytes}-\r\nIf-Range: {if_range}\r\n");
    }
    text + "\r\n"
}

/// Reads an answer's head.
fn receive(
    mut stream: impl Read + 'static,
    method: &Method,
) -> Result<HttpResponse, ResponseError> {
    let mut buffer = vec![0; limits::CLIENT_BUFFER_BYTES];
    let mut head = Vec::new();
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(ResponseError::CutOff);
        }
        head.extend_from_slice(&buffer[..count]);
        let mut headers = HeaderMap::new();
        let mut is_sound = true;
        let parsed = parse_fields(&head, |name, value| {
            is_sound &= add_field(&mut headers, name, value).is_some();
        });
        let (used, status, framing) = match parsed {
            Head::Partial => continue,
            Head::Bad(why) => return Err(ResponseError::NoHttp(why)),
            Head::Whole { .. } if !is_sound => {
                return Err(ResponseError::NoHttp("a field is none"));
            }
            Head::Whole {
                used,
                status,
                framing,
                ..
            } => (used, status, framing),
        };
        let status =
            StatusCode::from_u16(status).map_err(|_| ResponseError::NoHttp("it has no status"))?;
        let remaining = match framing {
            _ if *method == Method::HEAD => RemainingBody::Length(0),
            Framing::Length(length) => RemainingBody::Length(length),
            Framing::Chunked => RemainingBody::Chunks(Chunks::default()),
            Framing::UntilClose => RemainingBody::UntilClose,
        };
        // What follows the head came with its last bytes.
        let unread = count - (head.len() - used)..count;
        let body = ResponseBody {
            stream: Box::new(stream),
            buffer,
            unread,
            remaining,
        };
        return Ok(HttpResponse {
            status,
            headers,
            body,
        });
    }
}

fn add_field(headers: &mut HeaderMap, name: &str, value: &[u8]) -> Option<()> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    let value = HeaderValue::from_bytes(value).ok()?;
    headers.try_append(name, value).ok().map(|_| ())
}

/// Reads a body.
pub(super) struct ResponseBody {
    stream: Box<dyn Read>,
    buffer: Vec<u8>,
    /// Which bytes of the buffer were read from the stream and not handed out.
    unread: Range<usize>,
    remaining: RemainingBody,
}

/// How much of a body is still to come.
enum RemainingBody {
    Length(u64),
    Chunks(Chunks),
    UntilClose,
}

impl ResponseBody {
    /// The next bytes; `None` when all have come. Only the end that the head announced is one: a
    /// connection that ends a body of no known length must be closed, not broken.
    ///
    /// # Errors
    /// Why there is no more, though there should be.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, ResponseError> {
        loop {
            let Range { start, end } = self.unread;
            let bytes = match &mut self.remaining {
                RemainingBody::Length(0) => return Ok(None),
                RemainingBody::Length(left) => {
                    let count =
                        usize::try_from(*left).map_or(end - start, |left| left.min(end - start));
                    *left -= count as u64;
                    start..start + count
                }
                RemainingBody::UntilClose => start..end,
                RemainingBody::Chunks(chunks) => match chunks.next(&self.buffer[..end], start) {
                    Chunk::Data(range) => range,
                    Chunk::NeedMore => end..end,
                    Chunk::End(_) => {
                        self.remaining = RemainingBody::Length(0);
                        return Ok(None);
                    }
                    Chunk::Bad(why) => return Err(ResponseError::NoHttp(why)),
                },
            };
            self.unread.start = bytes.end;
            if !bytes.is_empty() {
                return Ok(Some(&self.buffer[bytes]));
            }
            let count = self.stream.read(&mut self.buffer)?;
            if count == 0 {
                return match self.remaining {
                    RemainingBody::UntilClose => Ok(None),
                    _ => Err(ResponseError::CutOff),
                };
            }
            self.unread = 0..count;
        }
    }

    /// All of it, or `None` if it has more bytes than that.
    ///
    /// # Errors
    /// As [`ResponseBody::next`].
    pub(super) fn all(mut self, bytes_max: usize) -> Result<Option<Vec<u8>>, ResponseError> {
        let mut all = Vec::new();
        while let Some(bytes) = self.next()? {
            if bytes.len() > bytes_max - all.len() {
                return Ok(None);
            }
            all.extend_from_slice(bytes);
        }
        Ok(Some(all))
    }
}

/// Why an answer did not come, or not to its end.
#[derive(Debug)]
pub(super) enum ResponseError {
    /// The connection failed: a reset, a silence.
    Broken(io::Error),
    /// It was closed before the end.
    CutOff,
    /// These bytes are no HTTP, for this reason.
    NoHttp(&'static str),
}

impl From<io::Error> for ResponseError {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl ResponseError {
    /// Adds what failed, and whether another try may help.
    pub(super) fn into_fetch_error(self, what: &str) -> FetchError {
        match self {
            Self::Broken(error) => FetchError::Transient(connection::broken(what, &error), None),
            Self::CutOff => {
                let line = format!("{what}: the server closed the connection too early");
                FetchError::Transient(Failure::new(Exit::Network, line), None)
            }
            Self::NoHttp(why) => Failure::new(Exit::Protocol, format!("{what}: {why}")).into(),
        }
    }
}

/// Where to ask instead: RFC 9110, 15.4. The other 3xx are for other requests than ours.
fn location(response: &HttpResponse) -> Option<&[u8]> {
    let is_redirect = matches!(response.status.as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = response.headers.get(LOCATION).filter(|_| is_redirect);
    location.map(HeaderValue::as_bytes)
}

/// Whether an answer holds all of what was asked for: as its server has it, or as a proxy has changed it
/// (203, RFC 9110 15.3.4).
pub(super) fn holds_whole(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::OK | StatusCode::NON_AUTHORITATIVE_INFORMATION
    )
}

/// The failure of an answer that holds no file. Those are tried again that curl and wget try again:
/// the server, or one before it, has trouble of its own, or too much to do.
pub(super) fn refusal(status: StatusCode, headers: &HeaderMap) -> FetchError {
    let failure = Failure::new(Exit::NoFile, format!("the server says {status}"));
    match status.as_u16() {
        408 | 429 | 500 | 502..=504 => {
            FetchError::Transient(failure, backoff::retry_after(headers, SystemTime::now()))
        }
        _ => FetchError::Permanent(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// What a connection brings: bytes, then an end.
    struct Script(VecDeque<io::Result<Vec<u8>>>);

    impl Read for Script {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let bytes = self.0.pop_front().unwrap_or(Ok(Vec::new()))?;
            buffer[..bytes.len()].copy_from_slice(&bytes);
            Ok(bytes.len())
        }
    }

    fn body(
        pieces: impl IntoIterator<Item = io::Result<Vec<u8>>>,
    ) -> Result<Vec<u8>, ResponseError> {
        let script = Script(pieces.into_iter().collect());
        let body = receive(script, &Method::GET)?.body;
        let all = body.all(4)?;
        Ok(all.expect("no more than there is"))
    }

    const LENGTH: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwine";
    const CHUNKS: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nw\r\n3\r\nine\r\n0\r\nA: b\r\n\r\n";
    const CLOSE: &str = "HTTP/1.1 200 OK\r\n\r\nwine";

    fn pieces(text: &str, size: usize) -> impl Iterator<Item = io::Result<Vec<u8>>> {
        text.as_bytes().chunks(size).map(|piece| Ok(piece.to_vec()))
    }

    #[test]
    fn a_body_is_the_same_however_it_is_cut() {
        for text in [LENGTH, CHUNKS, CLOSE] {
            for size in 1..=text.len() {
                assert_eq!(body(pieces(text, size)).unwrap(), b"wine", "{text} {size}");
            }
        }
    }

    #[test]
    fn no_end_but_the_announced_one_is_an_end() {
        let reset = || Err(io::Error::from(io::ErrorKind::ConnectionReset));
        for text in [LENGTH, CHUNKS, CLOSE] {
            for end in 0..text.len() {
                let cut = &text[..end];
                let broken = body(pieces(cut, 7).chain([reset()]));
                assert!(
                    matches!(broken, Err(ResponseError::Broken(_))),
                    "{cut}: {broken:?}"
                );
                if text != CLOSE || end < CLOSE.len() - 4 {
                    let closed = body(pieces(cut, 7));
                    assert!(
                        matches!(closed, Err(ResponseError::CutOff)),
                        "{cut}: {closed:?}"
                    );
                }
            }
            let broken_after_all = body(pieces(text, 7).chain([reset()]));
            assert_eq!(broken_after_all.is_ok(), text != CLOSE, "{text}");
        }
    }

    #[test]
    fn a_body_that_is_too_long_is_not_kept() {
        let body = receive(Script(pieces(LENGTH, 7).collect()), &Method::GET).unwrap();
        assert!(body.body.all(3).unwrap().is_none());
    }

    #[test]
    fn the_answer_to_a_head_has_no_body() {
        let script = Script(pieces("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", 99).collect());
        let mut response = receive(script, &Method::HEAD).unwrap();
        assert!(response.body.next().unwrap().is_none());
        assert_eq!(response.headers.len(), 1);
    }
}
