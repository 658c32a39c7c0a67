//! The head of an answer, and the small pages of those that bring no file.

use std::io::Write as _;
use std::ops::Range;

use ::http::StatusCode;

use super::date::Now;
use super::fields::is_in_value;
use super::range;
use super::request::{ALLOW, Version};
use super::validators::Validators;

/// The type of the pages that this server writes as text.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// The field that has browsers take bodies for what they are said to be.
pub const NO_SNIFF: &str = "X-Content-Type-Options";

/// The Server field (RFC 9110, section 10.2.4), between the ends of two lines.
const SERVER: &str = concat!("\r\nServer: carafe/", env!("CARGO_PKG_VERSION"), "\r\n");

/// An answer's head under construction. Whatever is put in, a field stays one line.
#[derive(Clone, Debug)]
pub struct Head {
    bytes: Vec<u8>,
}

impl Head {
    /// Begins with the status line, Date and Server (RFC 9112, section 4; RFC 9110, sections 6.6.1
    /// and 10.2.4). The version is the server's own, whatever the client speaks (RFC 9110, section
    /// 2.5).
    #[must_use]
    pub fn new(status: StatusCode, now: impl Into<Now>) -> Self {
        let reason = status.canonical_reason().unwrap_or_default();
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(b"HTTP/1.1 ");
        bytes.extend_from_slice(status.as_str().as_bytes());
        bytes.push(b' ');
        bytes.extend_from_slice(reason.as_bytes());
        if let Some(date) = now.into().date() {
            bytes.extend_from_slice(b"\r\nDate: ");
            bytes.extend_from_slice(date);
        }
        bytes.extend_from_slice(SERVER.as_bytes());
        Self { bytes }
    }

    /// The head of an answer that brings no file. 405 says what is allowed (RFC 9110, section
    /// 15.5.6).
    #[must_use]
    pub fn error(status: StatusCode, now: impl Into<Now>) -> Self {
        let head = Self::new(status, now);
        match status {
            StatusCode::METHOD_NOT_ALLOWED => head.allow(),
            _ => head,
        }
    }

    /// Adds a field whose value is known to be one.
    fn clean_field(mut self, name: &'static str, value: &[u8]) -> Self {
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(b": ");
        self.bytes.extend_from_slice(value);
        self.bytes.extend_from_slice(b"\r\n");
        self
    }

    /// Adds a field. A byte that no value may hold becomes a space (RFC 9110, section 5.5).
    #[must_use]
    pub fn field(self, name: &'static str, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        if value.iter().all(|&byte| is_in_value(byte)) {
            return self.clean_field(name, value);
        }
        let clean = |&byte: &u8| if is_in_value(byte) { byte } else { b' ' };
        let value: Vec<u8> = value.iter().map(clean).collect();
        self.clean_field(name, &value)
    }

    /// Adds whole lines, which must be fields.
    #[must_use]
    pub fn fields(mut self, fields: &[u8]) -> Self {
        self.bytes.extend_from_slice(fields);
        self
    }

    /// The fields of an answer with a whole file that are the same whenever it is asked for; `others` are
    /// lines that don't follow from these.
    #[must_use]
    pub fn fields_of(
        validators: &Validators,
        content_type: &str,
        length: u64,
        others: &[u8],
    ) -> Vec<u8> {
        let head = Self { bytes: Vec::new() };
        head.validators(validators)
            .accept_ranges()
            .content(content_type, length)
            .fields(others)
            .bytes
    }

    /// Content-Type and Content-Length (RFC 9110, sections 8.3 and 8.6).
    #[must_use]
    pub fn content(self, content_type: &str, length: u64) -> Self {
        self.field("Content-Type", content_type).length(length)
    }

    /// Content-Length alone, for an answer of no bytes.
    #[must_use]
    pub fn length(mut self, length: u64) -> Self {
        // Writing to memory doesn't fail.
        let _ = write!(self.bytes, "Content-Length: {length}\r\n");
        self
    }

    /// ETag and Last-Modified (RFC 9110, sections 8.8.3 and 8.8.2), which a 304 carries too
    /// (section 15.4.5), as far as there are any.
    #[must_use]
    pub fn validators(self, validators: &Validators) -> Self {
        let head = match validators.etag() {
            Some(tag) => self.field("ETag", tag),
            None => self,
        };
        match validators.last_modified() {
            Some(date) => head.field("Last-Modified", date),
            None => head,
        }
    }

    /// Tells browsers to take the server's own pages for what they are said to be (the Fetch standard,
    /// "X-Content-Type-Options header"). Files go without: their types are guesses by their names.
    #[must_use]
    pub fn no_sniff(self) -> Self {
        self.field(NO_SNIFF, "nosniff")
    }

    /// Accept-Ranges (RFC 9110, section 14.3).
    #[must_use]
    pub fn accept_ranges(self) -> Self {
        self.field("Accept-Ranges", "bytes")
    }

    /// Content-Range of a 206 with one range (RFC 9110, section 14.4).
    #[must_use]
    pub fn content_range(self, range: &Range<u64>, length: u64) -> Self {
        self.field("Content-Range", range::content_range(range, length))
    }

    /// Content-Range of a 416 (RFC 9110, section 15.5.17).
    #[must_use]
    pub fn unsatisfied_range(self, length: u64) -> Self {
        self.field("Content-Range", range::unsatisfied_range(length))
    }

    /// Location (RFC 9110, section 10.2.2), as [`super::target::folder_location`] makes it.
    #[must_use]
    pub fn location(self, location: impl AsRef<[u8]>) -> Self {
        self.field("Location", location)
    }

    /// Allow (RFC 9110, section 10.2.1).
    #[must_use]
    pub fn allow(self) -> Self {
        self.field("Allow", ALLOW)
    }

    /// Says whether the connection goes on, where the version doesn't say it by itself (RFC 9112,
    /// section 9.3).
    #[must_use]
    pub fn connection(self, version: Version, keep_alive: bool) -> Self {
        match (version, keep_alive) {
            (Version::Http11, true) => self,
            (Version::Http10, true) => self.field("Connection", "keep-alive"),
            (_, false) => self.field("Connection", "close"),
        }
    }

    /// The bytes, with the empty line at the end.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(b"\r\n");
        self.bytes
    }
}

/// The page of an answer that brings no file: its status as a line of text.
#[must_use]
pub fn page(status: StatusCode) -> Vec<u8> {
    let reason = status.canonical_reason().unwrap_or_default();
    format!("{} {reason}\n", status.as_str()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    use crate::file::version::{Facts, Trust};
    use crate::http::entity_tag::TagKey;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn text(head: Head) -> String {
        String::from_utf8(head.finish()).unwrap()
    }

    #[test]
    fn a_file() {
        let modified = NOW - Duration::from_secs(9);
        let now = NOW + Duration::from_secs(784_111_777);
        let facts = |trust| Facts {
            inode: None,
            length: 3,
            modified: (1, 0),
            changed: (5, 6),
            trust,
        };
        let key = TagKey::new(b"");
        let validators = Validators::new(&facts(Trust::Second), &key, now);
        let head = Head::new(StatusCode::PARTIAL_CONTENT, now)
            .content("text/html", 2)
            .validators(&validators)
            .accept_ranges()
            .content_range(&(0..2), 3)
            .connection(Version::Http11, true);
        let expected = format!(
            "HTTP/1.1 206 Partial Content\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             Server: carafe/{}\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\
             ETag: \"{}\"\r\nLast-Modified: Thu, 01 Jan 1970 00:00:05 GMT\r\n\
             Accept-Ranges: bytes\r\nContent-Range: bytes 0-1/3\r\n\r\n",
            env!("CARGO_PKG_VERSION"),
            key.tag(&facts(Trust::Second))
        );
        assert_eq!(text(head), expected);
        assert!(!text(Head::new(StatusCode::OK, modified)).contains("Date"));
        let young = Validators::new(&facts(Trust::Nothing), &key, now);
        let head = text(Head::new(StatusCode::OK, now).validators(&young));
        assert_eq!(head, text(Head::new(StatusCode::OK, now)));
    }

    #[test]
    fn errors() {
        for (status, line) in [
            (400, "400 Bad Request"),
            (404, "404 Not Found"),
            (405, "405 Method Not Allowed"),
            (412, "412 Precondition Failed"),
            (414, "414 URI Too Long"),
            (416, "416 Range Not Satisfiable"),
            (417, "417 Expectation Failed"),
            (431, "431 Request Header Fields Too Large"),
            (501, "501 Not Implemented"),
            (503, "503 Service Unavailable"),
            (505, "505 HTTP Version Not Supported"),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let page = page(status);
            let head = Head::error(status, NOW).content(TEXT, page.len() as u64);
            let head = text(head);
            assert_eq!(page, format!("{line}\n").into_bytes());
            assert!(head.starts_with(&format!("HTTP/1.1 {line}\r\n")), "{head}");
            assert!(head.contains(&format!("Content-Length: {}\r\n", page.len())));
            assert!(head.contains("Content-Type: text/plain; charset=utf-8\r\n"));
            let allow = head.contains("Allow: GET, HEAD, OPTIONS\r\n");
            assert_eq!(allow, status == StatusCode::METHOD_NOT_ALLOWED);
        }
        let head = Head::new(StatusCode::RANGE_NOT_SATISFIABLE, NOW).unsatisfied_range(7);
        assert!(text(head).contains("Content-Range: bytes */7\r\n"));
    }

    #[test]
    fn connections() {
        for (version, keep_alive, expected) in [
            (Version::Http11, true, None),
            (Version::Http11, false, Some("Connection: close\r\n")),
            (Version::Http10, true, Some("Connection: keep-alive\r\n")),
            (Version::Http10, false, Some("Connection: close\r\n")),
        ] {
            let head = text(Head::new(StatusCode::OK, NOW).connection(version, keep_alive));
            assert_eq!(head.contains("Connection"), expected.is_some());
            assert!(head.contains(expected.unwrap_or_default()));
        }
    }

    #[test]
    fn a_value_stays_one_line() {
        let head = Head::new(StatusCode::OK, NOW)
            .location("/a\r\nSet-Cookie: b")
            .field("X", b"\0\x01\x7f\n\xff\t!");
        let bytes = head.finish();
        let lines: Vec<_> = bytes.split(|&byte| byte == b'\n').collect();
        assert!(lines.contains(&&b"Location: /a  Set-Cookie: b\r"[..]));
        assert!(lines.contains(&&b"X:     \xff\t!\r"[..]));
    }
}
