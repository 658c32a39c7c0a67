//! The access log: one line for every reply, in Apache's combined format or as JSON. Lines are made
//! here and written by a thread ([`crate::telemetry::log_writer`]); what a peer sent can't forge one.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::escape::{Excerpt, is_unsafe};
use crate::limits::{
    ACCESS_LOG_FIELD_BYTES_MAX, ACCESS_LOG_REQUEST_BYTES_MAX, LOG_QUEUE_BYTES_MAX,
};
use crate::telemetry::Reason;
use crate::telemetry::line_text::{LineText as _, text_of};
use crate::telemetry::log_file::LogFile;
use crate::telemetry::log_writer::LineWriter;
use crate::telemetry::phases::Phases;
use crate::telemetry::response::Response;
use crate::telemetry::stamp::SecondStamp;

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Apache's and nginx's "combined".
    #[default]
    Combined,
    /// One JSON object.
    Json,
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Combined => "combined",
            Self::Json => "json",
        })
    }
}

/// A log of replies.
#[derive(Clone, Debug)]
pub struct AccessLog {
    writer: LineWriter,
    format: LogFormat,
    /// The time in a combined line.
    stamp: RefCell<SecondStamp>,
}

/// Where somebody is. `None`: at the other end of a unix socket.
pub type Address = Option<SocketAddr>;

/// One reply, as the log tells of it.
#[derive(Clone, Copy, Debug)]
pub struct LogEntry<'a> {
    /// Who asked; by a unix socket they have no address.
    pub peer: Address,
    /// The proxy that spoke for them.
    pub proxy: Option<Address>,
    /// When the request had come.
    pub at: Timestamp,
    /// From then until the last byte was accepted, or until it was clear that it won't be.
    pub took: Duration,
    /// Where that time went, if it was timed.
    pub phases: Option<Phases>,
    /// What was sent.
    pub response: &'a Response,
    /// How it ended.
    pub reason: Reason,
}

impl AccessLog {
    /// Appends to a file, which is made if there is none; `-` is standard output.
    ///
    /// # Errors
    /// The file can't be opened for writing, or no thread can be started.
    pub fn open(path: &Path, format: LogFormat) -> io::Result<Self> {
        let writer = LineWriter::new(LogFile::open(path)?)?;
        Ok(Self {
            writer,
            format,
            stamp: RefCell::default(),
        })
    }

    /// Queues the line of one reply. It is dropped and counted if the log doesn't take them fast
    /// enough.
    pub fn record(&self, entry: &LogEntry<'_>) {
        match self.format {
            LogFormat::Combined => {
                let mut stamp = self.stamp.borrow_mut();
                let time = stamp.of(entry.at.as_second(), combined_time);
                let most = LOG_QUEUE_BYTES_MAX;
                self.writer
                    .push_line(most, |line| push_combined(line, entry, time));
            }
            LogFormat::Json => self.writer.print(&format_args!("{}", json(entry))),
        }
    }

    /// Opens the file anew by its path. What was recorded before goes to the old one.
    pub fn reopen(&self) {
        self.writer.reopen();
    }

    /// Lines lost so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.writer.dropped()
    }

    /// Waits for what is queued, but not longer than [`crate::limits::LOG_FLUSH`]. Returns how many
    /// lines were lost in all.
    #[must_use]
    pub fn finish(&self) -> u64 {
        self.writer.finish()
    }
}

/// When a request arrived, so long ago.
#[must_use]
pub fn arrival(ago: Duration) -> Timestamp {
    let now = Timestamp::now();
    if ago.is_zero() {
        // It came in this turn, as most do.
        return now;
    }
    now.checked_sub(ago).unwrap_or(now)
}

/// The status of a reply. Over HTTP it is the one that was sent, whatever came after it. The bare
/// protocol has none: a file is 200 and a refusal 404; a reply that was cut short is 499 if the
/// peer or the network cut it, and 500 if we did.
#[must_use]
pub fn status(response: &Response, reason: Reason) -> u16 {
    if let Some(status) = response.status {
        return status.as_u16();
    }
    match reason {
        Reason::Complete => 200,
        Reason::Refused => 404,
        Reason::ClientLeft
        | Reason::RequestTimeout
        | Reason::Evicted
        | Reason::TooManyConnections
        | Reason::Stalled
        | Reason::BadProxyHeader
        | Reason::TlsFailed
        | Reason::PeerReset => 499,
        Reason::FileShort
        | Reason::FileChanged
        | Reason::ReadFailed
        | Reason::OpenFailed
        | Reason::NoDescriptor
        | Reason::OutOfMemory
        | Reason::DiskTimeout
        | Reason::SendFailed
        | Reason::PollFailed
        | Reason::DrainDeadline
        | Reason::Stopped => 500,
    }
}

// A client decides how long these are, and the log's reader has the disk.

fn request_text(line: &[u8]) -> Excerpt<'_> {
    Excerpt::new(line, ACCESS_LOG_REQUEST_BYTES_MAX)
}

fn field_text(field: &[u8]) -> Excerpt<'_> {
    Excerpt::new(field, ACCESS_LOG_FIELD_BYTES_MAX)
}

/// Who asked, as nginx's logs have it.
fn push_host(line: &mut String, address: Address) {
    match address {
        Some(address) => line.push_ip(address.ip()),
        None => line.push_str(LOCAL_CLIENT),
    }
}

fn host(address: Address) -> String {
    text_of(|text| push_host(text, address))
}

/// What stands in an address's place where there is none: the client came by a unix socket.
pub const LOCAL_CLIENT: &str = "unix:";

// ---- combined ----

fn combined_time(at: Timestamp) -> String {
    at.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string()
}

/// Appends `%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i"`.
fn push_combined(line: &mut String, entry: &LogEntry<'_>, time: &str) {
    let response = entry.response;
    push_host(line, entry.peer);
    line.extend([" - - [", time, "] \""]);
    let http_log = response.http_log.as_deref();
    if http_log.is_none() {
        line.extend([BARE_METHOD, " "]);
    }
    request_text(&response.target).push_to(line);
    line.push_str("\" ");
    line.push_number(status(response, entry.reason));
    line.push(' ');
    match response.offset {
        0 => line.push('-'),
        bytes => line.push_number(bytes),
    }
    let referer = http_log.and_then(|http_log| http_log.referer.as_deref());
    let agent = http_log.and_then(|http_log| http_log.agent.as_deref());
    for field in [referer, agent] {
        line.push_str(" \"");
        field_text(field.unwrap_or(b"-")).push_to(line);
        line.push('"');
    }
}

/// What stands in a method's place where the protocol has none.
const BARE_METHOD: &str = "NAME";

// ---- JSON ----

#[derive(Serialize)]
struct JsonLine<'a> {
    /// RFC 3339, UTC, to the millisecond.
    time: String,
    peer: String,
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<String>,
    protocol: &'static str,
    method: Cow<'a, str>,
    target: Cow<'a, str>,
    status: u16,
    bytes_sent: u64,
    bytes_promised: u64,
    duration_seconds: f64,
    /// What of that was spent on each phase.
    #[serde(skip_serializing_if = "Option::is_none")]
    phases_seconds: Option<Phases>,
    reason: String,
    referer: Option<Cow<'a, str>>,
    agent: Option<Cow<'a, str>>,
}

fn json(entry: &LogEntry<'_>) -> String {
    let response = entry.response;
    let http_log = response.http_log.as_deref();
    let (protocol, method, target) = match http_log {
        Some(_) => {
            let (method, target) = method_and_target(&response.target);
            ("http", request_text(method).to_text(), target)
        }
        None => ("bare", BARE_METHOD.into(), &*response.target),
    };
    let line = JsonLine {
        time: format!("{:.3}", entry.at),
        peer: host(entry.peer),
        port: entry.peer.map(|peer| peer.port()).filter(|&port| port > 0),
        proxy: entry.proxy.map(host),
        protocol,
        method,
        target: request_text(target).to_text(),
        status: status(response, entry.reason),
        bytes_sent: response.offset,
        bytes_promised: response.body_len,
        duration_seconds: entry.took.as_secs_f64(),
        phases_seconds: entry.phases,
        reason: text_of(|text| response.push_end(text, entry.reason)),
        referer: http_log.and_then(|http_log| text(http_log.referer.as_deref())),
        agent: http_log.and_then(|http_log| text(http_log.agent.as_deref())),
    };
    let mut bytes = Vec::with_capacity(512);
    line.serialize(&mut serde_json::Serializer::with_formatter(
        &mut bytes, OneLine,
    ))
    .expect("text and numbers are JSON, and memory takes it");
    String::from_utf8(bytes).expect("JSON is UTF-8")
}

fn text(field: Option<&[u8]>) -> Option<Cow<'_, str>> {
    field.map(|field| field_text(field).to_text())
}

/// A request line that isn't one is all target.
fn method_and_target(line: &[u8]) -> (&[u8], &[u8]) {
    let Some(space) = line.iter().position(|&byte| byte == b' ') else {
        return (b"", line);
    };
    let (method, rest) = (&line[..space], &line[space + 1..]);
    let target = match rest.iter().rposition(|&byte| byte == b' ') {
        Some(space) if rest[space + 1..].starts_with(b"HTTP/") => &rest[..space],
        _ => rest,
    };
    (method, target)
}

/// Compact JSON in which nothing can steer a terminal or end a line.
struct OneLine;

impl serde_json::ser::Formatter for OneLine {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut from = 0;
        for (at, unsafe_one) in fragment.char_indices().filter(|&(_, c)| is_unsafe(c)) {
            writer.write_all(&fragment.as_bytes()[from..at])?;
            // All of them have four digits.
            write!(writer, "\\u{:04x}", u32::from(unsafe_one))?;
            from = at + unsafe_one.len_utf8();
        }
        writer.write_all(&fragment.as_bytes()[from..])
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::telemetry::response::HttpLogFields;
    use http::StatusCode;
    use serde_json::Value;

    fn bare(name: &[u8], offset: u64, body_len: u64, refused: Option<&'static str>) -> Response {
        Response {
            target: name.into(),
            offset,
            body_len,
            refused,
            asked_at: Instant::now(),
            status: None,
            http_log: None,
        }
    }

    fn over_http(
        line: &[u8],
        status: u16,
        referer: Option<&[u8]>,
        agent: Option<&[u8]>,
    ) -> Response {
        let http_log = HttpLogFields {
            referer: referer.map(Into::into),
            agent: agent.map(Into::into),
            forwarded_for: None,
        };
        let mut response = bare(line, 1234, 1234, None);
        response.status = StatusCode::from_u16(status).ok();
        response.http_log = Some(Box::new(http_log));
        response
    }

    fn entry(response: &Response, reason: Reason) -> LogEntry<'_> {
        LogEntry {
            peer: "192.0.2.1:50000".parse().ok(),
            proxy: None,
            at: "2026-11-23T07:31:02.0459Z".parse().unwrap(),
            took: Duration::from_nanos(1_234_567),
            phases: None,
            response,
            reason,
        }
    }

    fn combined_line(response: &Response, reason: Reason) -> String {
        combined(&entry(response, reason))
    }

    fn combined(entry: &LogEntry<'_>) -> String {
        text_of(|line| push_combined(line, entry, &combined_time(entry.at)))
    }

    #[test]
    fn a_request_over_http_is_a_combined_line() {
        let response = over_http(b"GET /x HTTP/1.1", 200, Some(b"http://a/"), Some(b"curl/8"));
        let expected = "192.0.2.1 - - [23/Nov/2026:07:31:02 +0000] \"GET /x HTTP/1.1\" 200 1234 \
                        \"http://a/\" \"curl/8\"";
        assert_eq!(combined_line(&response, Reason::Complete), expected);
        // The status is what was sent, however the reply ended.
        let cut = combined_line(&response, Reason::PeerReset);
        assert_eq!(cut, expected);
    }

    #[test]
    fn a_name_is_a_combined_line_too() {
        let refused = Some("no such file");
        let cases = [
            (None, 17, Reason::Complete, "200 17"),
            (None, 0, Reason::Complete, "200 -"),
            (refused, 0, Reason::Refused, "404 -"),
            (None, 9, Reason::Stalled, "499 9"),
            (None, 9, Reason::PeerReset, "499 9"),
            (None, 9, Reason::FileShort, "500 9"),
            (None, 9, Reason::DrainDeadline, "500 9"),
        ];
        for (refused, offset, reason, shown) in cases {
            let response = bare(b"hello.txt", offset, 17, refused);
            let expected = format!(
                "192.0.2.1 - - [23/Nov/2026:07:31:02 +0000] \"NAME hello.txt\" {shown} \"-\" \"-\""
            );
            assert_eq!(combined_line(&response, reason), expected);
        }
    }

    /// What a peer would put anywhere to forge a line or steer a terminal.
    const FORGED: &[u8] = b"a\" 200 1\n192.0.2.9 - - \\\x1b[2J\xff\xc2\x9b\xe2\x80\xa8{\"b\":1}";

    #[test]
    fn nothing_that_a_peer_sends_forges_a_combined_line() {
        let lines = [
            over_http(FORGED, 400, Some(FORGED), Some(FORGED)),
            bare(FORGED, 0, 0, Some("no such file")),
        ];
        for response in lines {
            let line = combined_line(&response, Reason::Complete);
            assert_eq!(line.matches('"').count(), 6, "{line}");
            assert!(!line.contains(is_unsafe), "{line}");
            let escaped = r"a\x22 200 1\x0a192.0.2.9 - - \x5c\x1b[2J\xff\xc2\x9b\xe2\x80\xa8{\x22b";
            assert!(line.contains(escaped), "{line}");
        }
    }

    #[test]
    fn no_line_is_longer_than_its_bound_whatever_a_peer_sends() {
        let long = [0xff; 1024];
        let responses = [
            over_http(&long, 400, Some(&long), Some(&long)),
            bare(&long, 0, 0, Some("no such file")),
        ];
        for response in responses {
            let entry = entry(&response, Reason::Complete);
            let bound = ACCESS_LOG_REQUEST_BYTES_MAX + 2 * ACCESS_LOG_FIELD_BYTES_MAX + 500;
            assert!(combined(&entry).len() < bound);
            assert!(json(&entry).len() < bound);
            assert!(combined(&entry).contains("\\xff...\" "));
        }
    }

    #[test]
    fn json_tells_everything() {
        let response = over_http(b"GET /a b HTTP/1.1", 206, None, Some(b"curl/8"));
        let line = json(&entry(&response, Reason::Stalled));
        let value: Value = serde_json::from_str(&line).unwrap();
        let expected = serde_json::json!({
            "time": "2026-11-23T07:31:02.045Z",
            "peer": "192.0.2.1",
            "port": 50000,
            "protocol": "http",
            "method": "GET",
            "target": "/a b",
            "status": 206,
            "bytes_sent": 1234,
            "bytes_promised": 1234,
            "duration_seconds": 0.001_234_567,
            "reason": "stalled",
            "referer": null,
            "agent": "curl/8",
        });
        assert_eq!(value, expected);
        let refused = bare(b"x", 0, 0, Some("no such file"));
        let value: Value = serde_json::from_str(&json(&entry(&refused, Reason::Refused))).unwrap();
        assert_eq!(value["protocol"], "bare");
        assert_eq!(value["method"], "NAME");
        assert_eq!(value["target"], "x");
        assert_eq!(value["status"], 404);
        assert_eq!(value["reason"], "refused: no such file");
    }

    #[test]
    fn whatever_a_peer_sends_is_valid_json_on_one_line() {
        let response = over_http(FORGED, 400, Some(FORGED), Some(b"\x7f\""));
        let line = json(&entry(&response, Reason::Complete));
        assert!(!line.contains(is_unsafe), "{line}");
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["agent"], "\x7f\"");
        assert_eq!(value["referer"], String::from_utf8_lossy(FORGED).as_ref());
    }

    #[test]
    fn a_request_line_falls_apart_into_method_and_target() {
        let cases = [
            ("GET / HTTP/1.1", "GET", "/"),
            ("GET /a b HTTP/1.0", "GET", "/a b"),
            ("GET /old", "GET", "/old"),
            ("GET /a b", "GET", "/a b"),
            ("GET", "", "GET"),
            ("", "", ""),
        ];
        for (line, method, target) in cases {
            let parts = (method.as_bytes(), target.as_bytes());
            assert_eq!(method_and_target(line.as_bytes()), parts);
        }
    }
}
