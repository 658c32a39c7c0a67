//! Requests (RFC 9112): where a head ends, what it says, and whether what begins on the shared port
//! is HTTP at all. One head gives one answer, however its bytes were split.

use std::fmt;

use ::http::StatusCode;

use super::fields::{Field, Fields, count_leading, is_token, split_token, trim};
use super::method::{METHODS, Method};
use super::target::{Target, is_authority};
use crate::limits::{
    HTTP_EMPTY_LINES_MAX, HTTP_HEAD_BYTES_MAX, HTTP_LINE_BYTES_MAX, NAME_BYTES_MAX,
};

/// What this server does, as the Allow field says it (RFC 9110, section 10.2.1).
pub const ALLOW: &str = "GET, HEAD, OPTIONS";

/// What the bytes received say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// The head isn't whole.
    Partial,
    /// No request can be read. Where the next one would begin isn't known, so the connection
    /// closes after the answer.
    Bad(RequestError),
    /// A whole head.
    Whole {
        /// How many bytes it takes, skipped empty lines included.
        used: usize,
        /// What it says.
        request: Request<'a>,
    },
}

/// The head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The request line without its end, for the log.
    pub line: &'a [u8],
    /// The method as it was written.
    pub method_name: &'a [u8],
    /// The method.
    pub method: Method,
    /// What it is about.
    pub target: Target<'a>,
    /// The version.
    pub version: Version,
    /// The authority: of an absolute-form, else the Host field's value, which may be empty.
    pub host: Option<&'a [u8]>,
    /// Whether the client lets the connection go on (RFC 9112, section 9.3).
    pub keep_alive: bool,
    /// What follows the head.
    pub body: RequestBody,
    /// Whether an interim answer, a final one or nothing fits what the client expects.
    pub expectation: Expectation,
    /// The header fields.
    pub fields: Fields<'a>,
}

/// A version of HTTP/1 (RFC 9112, section 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1, and every later minor version, which is served as this one (RFC 9110, section
    /// 2.5).
    Http11,
}

/// A body that nobody here wants (RFC 9112, section 6.3): it is drained within limits, or the
/// connection closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestBody {
    /// There is none.
    None,
    /// So many bytes, at least one.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// The Expect field (RFC 9110, section 10.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// Nothing, or 100-continue from a client of HTTP/1.0, which is ignored.
    None,
    /// 100-continue. A client that gets a final answer first may leave its body out or send it;
    /// where a body was announced, the connection should close.
    Continue,
    /// Something that can't be met.
    Unknown,
}

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// The request line is none (RFC 9112, section 3).
    Line,
    /// The target isn't in a form for the method (RFC 9112, section 3.2).
    Target,
    /// The request line is too long (RFC 9110, section 15.5.15).
    LineTooLong,
    /// Another major version than 1 (RFC 9110, section 15.6.6).
    Version,
    /// A field line is none, is folded, or holds a bare CR (RFC 9112, sections 5.1, 5.2 and 2.2).
    Field,
    /// The head is too long or has too many fields (RFC 6585, section 5).
    HeadTooLarge,
    /// Host is missing, is there twice, or is none (RFC 9112, section 3.2).
    Host,
    /// Content-Length is no number, or there are several (RFC 9112, section 6.3).
    Length,
    /// Transfer-Encoding doesn't end in one `chunked`, comes with a Content-Length, or in HTTP/1.0
    /// (RFC 9112, sections 6.1 and 6.3).
    TransferEncoding,
    /// A transfer coding before `chunked` (RFC 9112, section 6.1).
    Coding,
    /// The method is known and not served here (RFC 9110, section 15.5.6).
    MethodNotAllowed,
    /// The method isn't known (RFC 9110, section 15.6.2).
    MethodUnknown,
    /// An expectation other than 100-continue (RFC 9110, section 10.1.1).
    Expectation,
}

impl RequestError {
    /// The status of the answer.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::Line
            | Self::Target
            | Self::Field
            | Self::Host
            | Self::Length
            | Self::TransferEncoding => StatusCode::BAD_REQUEST,
            Self::LineTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Coding | Self::MethodUnknown => StatusCode::NOT_IMPLEMENTED,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
        }
    }

    /// Whether the connection must close after the answer, because it isn't known where the next
    /// request begins.
    #[must_use]
    pub fn closes(self) -> bool {
        !matches!(
            self,
            Self::MethodNotAllowed | Self::MethodUnknown | Self::Expectation
        )
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Line => "not a request line",
            Self::Target => "a request target in no known form",
            Self::LineTooLong => "the request line is too long",
            Self::Version => "an HTTP version that is not spoken",
            Self::Field => "not a header field",
            Self::HeadTooLarge => "the request's head is too large",
            Self::Host => "not exactly one valid Host",
            Self::Length => "not one valid Content-Length",
            Self::TransferEncoding => "a faulty Transfer-Encoding",
            Self::Coding => "an unknown transfer coding",
            Self::MethodNotAllowed => "a method that is not served",
            Self::MethodUnknown => "an unknown method",
            Self::Expectation => "an unknown expectation",
        })
    }
}

impl Request<'_> {
    /// Why a well-formed request is answered with an error before anyone looks at its target. The
    /// connection may go on.
    #[must_use]
    pub fn error(&self) -> Option<RequestError> {
        match (self.method, self.expectation) {
            (Method::Unknown, _) => Some(RequestError::MethodUnknown),
            (Method::Connect | Method::Other, _) => Some(RequestError::MethodNotAllowed),
            (_, Expectation::Unknown) => Some(RequestError::Expectation),
            _ => None,
        }
    }
}

/// Reads the head that the bytes begin with. A single LF ends a line as CR LF does (RFC 9112,
/// section 2.2). Its fields are put into a table; if that has too little room, the head is too large.
#[must_use]
pub fn parse<'a: 't, 't>(bytes: &'a [u8], table: &'t mut [Field<'a>]) -> Parsed<'t> {
    let Some(skipped) = empty_lines(bytes) else {
        return Parsed::Partial;
    };
    let bytes = &bytes[skipped..];
    let (start, line_used) = match RequestLine::parse(bytes) {
        Ok(whole) => whole,
        Err(error) => {
            return match first_line(bytes) {
                FirstLine::Partial => Parsed::Partial,
                FirstLine::TooLong => Parsed::Bad(RequestError::LineTooLong),
                FirstLine::Whole(_) => Parsed::Bad(error),
            };
        }
    };
    let within = bytes.len().min(HTTP_HEAD_BYTES_MAX);
    let (fields_used, fields) = match Fields::parse(&bytes[line_used..within], table) {
        Ok(Some(whole)) => whole,
        Ok(None) if within == HTTP_HEAD_BYTES_MAX => {
            return Parsed::Bad(RequestError::HeadTooLarge);
        }
        Ok(None) => return Parsed::Partial,
        Err(httparse::Error::TooManyHeaders) => return Parsed::Bad(RequestError::HeadTooLarge),
        Err(_) => return Parsed::Bad(RequestError::Field),
    };
    match start.with(fields) {
        Ok(request) => Parsed::Whole {
            used: skipped + line_used + fields_used,
            request,
        },
        Err(error) => Parsed::Bad(error),
    }
}

/// The length of the empty lines in front (RFC 9112, section 2.2). `None`: more may follow.
fn empty_lines(bytes: &[u8]) -> Option<usize> {
    let mut skipped = 0;
    for _ in 0..HTTP_EMPTY_LINES_MAX {
        match line_end(&bytes[skipped..])? {
            0 => break,
            end => skipped += end,
        }
    }
    Some(skipped)
}

/// The length of the line end in front; zero if there is none. `None`: it may become one.
fn line_end(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [b'\n', ..] => Some(1),
        [b'\r', b'\n', ..] => Some(2),
        [] | [b'\r'] => None,
        _ => Some(0),
    }
}

enum FirstLine<'a> {
    Partial,
    TooLong,
    /// Without its end.
    Whole(&'a [u8]),
}

fn first_line(bytes: &[u8]) -> FirstLine<'_> {
    // A CR may stand between the longest line and its line feed.
    let within = &bytes[..bytes.len().min(HTTP_LINE_BYTES_MAX + 2)];
    let line_feed = count_leading(within, |byte| byte != b'\n');
    if line_feed == within.len() {
        let is_too_long = match bytes.len() {
            ..=HTTP_LINE_BYTES_MAX => false,
            len => len > HTTP_LINE_BYTES_MAX + 1 || !bytes.ends_with(b"\r"),
        };
        return if is_too_long {
            FirstLine::TooLong
        } else {
            FirstLine::Partial
        };
    }
    let line = &within[..line_feed];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match line.len() {
        ..=HTTP_LINE_BYTES_MAX => FirstLine::Whole(line),
        _ => FirstLine::TooLong,
    }
}

/// A request line, taken apart (RFC 9112, section 3).
struct RequestLine<'a> {
    line: &'a [u8],
    method_name: &'a [u8],
    method: Method,
    target: Target<'a>,
    authority: Option<&'a [u8]>,
    version: Version,
}

impl<'a> RequestLine<'a> {
    /// Reads the line that the bytes begin with, and says how long it is with its end. An error tells why it
    /// is none, if it is whole and not too long.
    fn parse(bytes: &'a [u8]) -> Result<(Self, usize), RequestError> {
        let (method_name, rest) = split_token(bytes);
        let [b' ', rest @ ..] = rest else {
            return Err(RequestError::Line);
        };
        let target_end = count_leading(rest, |byte| !matches!(byte, b' ' | b'\n'));
        let (target, rest) = rest.split_at(target_end);
        let Some((&[b' ', ref version @ ..], rest)) = rest.split_first_chunk::<9>() else {
            return Err(RequestError::Line);
        };
        let end = line_end(rest).unwrap_or_default();
        if method_name.is_empty() || end == 0 {
            return Err(RequestError::Line);
        }
        let version = match version {
            b"HTTP/1.0" => Version::Http10,
            [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9'] => Version::Http11,
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                return Err(RequestError::Version);
            }
            _ => return Err(RequestError::Line),
        };
        let length = bytes.len() - rest.len();
        if length > HTTP_LINE_BYTES_MAX {
            return Err(RequestError::LineTooLong);
        }
        let known = METHODS.iter().find(|(name, _)| *name == method_name);
        let method = known.map_or(Method::Unknown, |&(_, method)| method);
        let (target, authority) = Target::parse(method, target).ok_or(RequestError::Target)?;
        let start = Self {
            line: &bytes[..length],
            method_name,
            method,
            target,
            authority,
            version,
        };
        Ok((start, length + end))
    }

    /// Judges the fields together with the line.
    fn with(self, fields: Fields<'a>) -> Result<Request<'a>, RequestError> {
        let body = body(self.version, &fields)?;
        let host = host(self.version, &fields)?;
        Ok(Request {
            line: self.line,
            method_name: self.method_name,
            method: self.method,
            target: self.target,
            version: self.version,
            host: self.authority.or(host),
            keep_alive: keep_alive(self.version, &fields),
            body,
            expectation: expectation(self.version, &fields),
            fields,
        })
    }
}

/// RFC 9112, section 6.3. Whatever could be read in two ways is refused: the other reading may be
/// that of a proxy in between.
fn body(version: Version, fields: &Fields<'_>) -> Result<RequestBody, RequestError> {
    if fields.has("transfer-encoding") {
        if version == Version::Http10 || fields.has("content-length") {
            return Err(RequestError::TransferEncoding);
        }
        let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
        let codings: Vec<_> = fields.members("transfer-encoding").collect();
        return match &codings[..] {
            [last] if is_chunked(last) => Ok(RequestBody::Chunked),
            [first @ .., last] if is_chunked(last) && !first.iter().any(|c| is_chunked(c)) => {
                Err(RequestError::Coding)
            }
            _ => Err(RequestError::TransferEncoding),
        };
    }
    if !fields.has("content-length") {
        return Ok(RequestBody::None);
    }
    let digits = fields.only("content-length").ok_or(RequestError::Length)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(RequestError::Length);
    }
    let length = std::str::from_utf8(digits)
        .ok()
        .and_then(|text| text.parse().ok());
    match length {
        Some(0) => Ok(RequestBody::None),
        Some(length) => Ok(RequestBody::Length(length)),
        None => Err(RequestError::Length),
    }
}

/// RFC 9112, section 3.2.
fn host<'a>(version: Version, fields: &Fields<'a>) -> Result<Option<&'a [u8]>, RequestError> {
    match (fields.only("host"), version) {
        (Some(host), _) if is_authority(host) => Ok(Some(host)),
        (None, Version::Http10) if !fields.has("host") => Ok(None),
        _ => Err(RequestError::Host),
    }
}

/// RFC 9112, section 9.3.
fn keep_alive(version: Version, fields: &Fields<'_>) -> bool {
    let has = |option: &[u8]| {
        fields
            .members("connection")
            .any(|member| member.eq_ignore_ascii_case(option))
    };
    !has(b"close") && (version == Version::Http11 || has(b"keep-alive"))
}

/// RFC 9110, section 10.1.1.
fn expectation(version: Version, fields: &Fields<'_>) -> Expectation {
    let is_continue = |member: &[u8]| member.eq_ignore_ascii_case(b"100-continue");
    let mut members = fields.members("expect").peekable();
    if members.peek().is_none() {
        Expectation::None
    } else if !members.all(is_continue) {
        Expectation::Unknown
    } else if version == Version::Http10 {
        Expectation::None
    } else {
        Expectation::Continue
    }
}

/// What the first bytes of a connection on the shared port are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sniffed<'a> {
    /// HTTP: [`parse`] has the say.
    Http,
    /// A whole line `GET /x` without a version: HTTP/0.9. The target, still encoded.
    Simple(&'a [u8]),
    /// A name, or the beginning of one: the bare protocol has the say.
    Name,
    /// No line end has come, and it may become a request line.
    Maybe {
        /// A known method and its space are there; else only a beginning of one.
        whole_method: bool,
    },
    /// Empty lines, and perhaps the beginning of another line. They belong to a request if that
    /// becomes a request line, and are an empty name otherwise.
    Empty,
}

/// Judges the first line that isn't empty. Empty lines in front of a request line are skipped (RFC
/// 9112, section 2.2); in front of anything else the first one is a name.
#[must_use]
pub fn sniff(bytes: &[u8]) -> Sniffed<'_> {
    let skipped = match empty_lines(bytes) {
        Some(0) => return judge_line(bytes),
        Some(skipped) => skipped,
        None if bytes.contains(&b'\n') => return Sniffed::Empty,
        None => return judge_line(bytes),
    };
    let rest = &bytes[skipped..];
    let is_whole = rest.contains(&b'\n');
    match judge_line(rest) {
        Sniffed::Simple(_) => Sniffed::Name,
        // A CR may stand between the longest line that can wait and its line feed.
        Sniffed::Name if !is_whole && rest.len() <= NAME_BYTES_MAX + 1 => Sniffed::Empty,
        Sniffed::Maybe {
            whole_method: false,
        } => Sniffed::Empty,
        guess => guess,
    }
}

/// HTTP begins with a method and a target, and goes on after them; or it begins with any token and
/// ends in a version; or it begins with a method and is longer than a request line may be. Whether
/// it is well-formed is for [`parse`] to say. Everything else is a name. So is a line of an unknown
/// method that is longer than a name may be: in pieces it would be refused as a name before its end
/// can be seen.
fn judge_line(bytes: &[u8]) -> Sniffed<'_> {
    let first = first_line(bytes);
    let so_far = match first {
        FirstLine::Whole(line) => line,
        FirstLine::Partial | FirstLine::TooLong => bytes,
    };
    let is_method_begun = || METHODS.iter().any(|(method, _)| method.starts_with(bytes));
    let (word, rest) = so_far.split_at(count_leading(so_far, |byte| !is_blank(&byte)));
    if rest.is_empty() {
        return match first {
            FirstLine::Partial if is_method_begun() => Sniffed::Maybe {
                whole_method: false,
            },
            _ => Sniffed::Name,
        };
    }
    let has_method = METHODS.iter().any(|(method, _)| *method == word);
    if has_method && is_target_and_more(rest) {
        return Sniffed::Http;
    }
    let line = match first {
        FirstLine::Whole(line) => line,
        FirstLine::TooLong if has_method => return Sniffed::Http,
        FirstLine::Partial if has_method => return Sniffed::Maybe { whole_method: true },
        FirstLine::Partial | FirstLine::TooLong => return Sniffed::Name,
    };
    let can_wait = has_method || line.len() <= NAME_BYTES_MAX;
    if ends_in_version(line) && is_token(word) && can_wait {
        return Sniffed::Http;
    }
    match line.strip_prefix(b"GET ") {
        Some(target) if target.starts_with(b"/") => Sniffed::Simple(target),
        _ => Sniffed::Name,
    }
}

/// What separates words: a space, or a tab where there should be one (RFC 9112, section 3).
fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Whether these bytes, behind a method, are what only a request line has: a target of one of the
/// forms that no name begins with, and something behind it.
fn is_target_and_more(rest: &[u8]) -> bool {
    let mut words = rest.split(is_blank).skip_while(|word| word.is_empty());
    let Some(target) = words.next() else {
        return false;
    };
    let has_scheme = |scheme: &[u8]| {
        let begin = target.get(..scheme.len());
        begin.is_some_and(|begin| begin.eq_ignore_ascii_case(scheme))
    };
    let is_target =
        matches!(target[0], b'/' | b'*') || has_scheme(b"http://") || has_scheme(b"https://");
    is_target && words.next().is_some()
}

/// Whether the last word is a version of HTTP, in capitals or not.
fn ends_in_version(line: &[u8]) -> bool {
    let line = trim(line);
    let Some((before, [name @ .., major, b'.', minor])) = line.split_last_chunk::<8>() else {
        return false;
    };
    before.last().is_some_and(is_blank)
        && name.eq_ignore_ascii_case(b"HTTP/")
        && major.is_ascii_digit()
        && minor.is_ascii_digit()
}

#[cfg(test)]
mod tests;
