//! Whether what is here of a file and what a server offers of it are of one version: validators,
//! the record kept beside a `.part`, and the ranges of a partial answer.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, LAST_MODIFIED, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use rustix::fs::Stat;
use serde::{Deserialize, Serialize};

use crate::limits;

/// A strong validator: two answers that carry it hold the same bytes. RFC 9110, 8.8.1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Validator {
    /// An entity tag that is not weak, with its quotes.
    Etag(String),
    /// A date so far before the answer's own that no second change can hide in it.
    LastModified(String),
}

impl Validator {
    /// The strong validator of an answer. With an entity tag, even a weak one, `If-Range` may hold
    /// no date (RFC 9110, 13.1.5).
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        if headers.contains_key(ETAG) {
            return only(headers, ETAG)
                .filter(|tag| is_strong_tag(tag))
                .map(|tag| Self::Etag(tag.into()));
        }
        let modified = only(headers, LAST_MODIFIED)?;
        let is_strong = strong_until(modified)? <= date(only(headers, DATE)?)?;
        is_strong.then(|| Self::LastModified(modified.into()))
    }

    /// As `If-Range` holds it, byte for byte as it came; `None` if no header field can.
    pub(super) fn if_range(&self) -> Option<&str> {
        let (Self::Etag(text) | Self::LastModified(text)) = self;
        let is_fit = match self {
            Self::Etag(tag) => is_strong_tag(tag),
            Self::LastModified(text) => date(text).is_some(),
        };
        (is_fit && HeaderValue::from_str(text).is_ok()).then_some(text)
    }

    /// Whether a 206 may be of this version. It must repeat an entity tag, and may leave out a date:
    /// RFC 9110, 15.3.7.
    fn allows(&self, headers: &HeaderMap) -> bool {
        match self {
            Self::Etag(tag) => only(headers, ETAG) == Some(tag),
            Self::LastModified(_) if !headers.contains_key(LAST_MODIFIED) => true,
            Self::LastModified(date) => only(headers, LAST_MODIFIED) == Some(date),
        }
    }
}

/// The field's value, if it comes once and is ASCII.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    value.to_str().ok().map(str::trim)
}

/// RFC 9110, 8.8.3: visible characters between two quotes.
fn is_strong_tag(tag: &str) -> bool {
    let inner = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
    inner.is_some_and(|tag| {
        tag.bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'"')
    })
}

fn date(text: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(text).ok()
}

fn strong_until(modified: &str) -> Option<SystemTime> {
    date(modified)?.checked_add(limits::STRONG_DATE_GAP)
}

/// What is known of the version whose first bytes a `.part` holds; kept beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// The URL that was asked for, before any redirect.
    url: String,
    validator: Validator,
    /// Of the whole file, in bytes, if the server said it.
    length: Option<u64>,
}

impl Record {
    /// The record of a whole answer that begins; `None` if it can't be continued.
    pub(super) fn of(url: &str, headers: &HeaderMap) -> Option<Self> {
        is_plain(headers).then_some(())?;
        Some(Self {
            url: url.into(),
            validator: Validator::of(headers)?,
            length: content_length(headers),
        })
    }

    /// What is written beside the `.part`. Cut anywhere, it is no record.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and a number have a form in JSON")
    }

    /// Reads what [`Record::to_bytes`] wrote; `None` for a torn one.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let record: Self = serde_json::from_slice(bytes).ok()?;
        record.validator.if_range().is_some().then_some(record)
    }

    /// Whether it is this URL's.
    pub(super) fn is_of(&self, url: &str) -> bool {
        self.url == url
    }

    /// Whether so many bytes of it may be here: not more than the whole has.
    pub(super) fn may_have(&self, bytes: u64) -> bool {
        self.length.is_none_or(|length| bytes <= length)
    }

    pub(super) fn validator(&self) -> &Validator {
        &self.validator
    }

    /// Where a 206 leads that continues this version right at `from`; `None` if it does not.
    pub(super) fn continued_by(&self, headers: &HeaderMap, from: u64) -> Option<Continuation> {
        let ContentRange::Of { start, end, total } = content_range(headers)? else {
            return None;
        };
        let is_same_total = match (total, self.length) {
            (Some(total), Some(length)) => total == length,
            _ => true,
        };
        let total = total.or(self.length);
        let is_fit = start == from
            && is_plain(headers)
            && is_same_total
            && total.is_none_or(|total| end <= total)
            && content_length(headers).is_none_or(|length| length == end - start)
            && self.validator.allows(headers);
        is_fit.then_some(Continuation { end, total })
    }

    /// Whether the answer to a HEAD says that the file is this version, so many bytes long.
    pub(super) fn is_whole_by(&self, headers: &HeaderMap, bytes: u64) -> bool {
        Validator::of(headers).as_ref() == Some(&self.validator)
            && is_plain(headers)
            && content_length(headers).is_none_or(|length| length == bytes)
            && self.length.is_none_or(|length| length == bytes)
    }
}

/// A file that an earlier download has left, whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Existing {
    bytes: u64,
    /// As the server said then, if nobody has written into it since.
    modified: SystemTime,
}

impl From<&Stat> for Existing {
    fn from(stat: &Stat) -> Self {
        // What is before 1970 is no time of ours.
        let seconds = Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or_default());
        Self {
            bytes: u64::try_from(stat.st_size).unwrap_or_default(),
            modified: UNIX_EPOCH + seconds + Duration::from_nanos(stat.st_mtime_nsec),
        }
    }
}

impl Existing {
    /// Whether the answer to a HEAD says that this is the file: of its length and of its time.
    pub(super) fn is_same_by(&self, headers: &HeaderMap) -> bool {
        is_plain(headers)
            && content_length(headers) == Some(self.bytes)
            && last_modified(headers) == Some(self.modified)
    }
}

/// When the file was last modified, if no second change of it can have the same time any more.
pub(super) fn settled_modified(headers: &HeaderMap) -> Option<SystemTime> {
    let modified = last_modified(headers)?;
    let now = date(only(headers, DATE)?)?;
    let age = now.duration_since(modified);
    age.is_ok_and(|age| age >= limits::SETTLED_AFTER)
        .then_some(modified)
}

/// Whether the bytes are the file's own. Those of a coding that nobody asked for are another file's,
/// whatever the validator says.
pub(super) fn is_plain(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    codings.all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// What a 206 adds to the bytes that are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Continuation {
    /// One past the last byte it holds.
    pub(super) end: u64,
    /// The length of the whole file, if that is known.
    pub(super) total: Option<u64>,
}

/// `Content-Range`: RFC 9110, 14.4. `end` is one past the last byte.
#[derive(Debug, PartialEq, Eq)]
enum ContentRange {
    Of {
        start: u64,
        end: u64,
        total: Option<u64>,
    },
    Unsatisfied {
        total: u64,
    },
}

/// The file's length by a 416.
pub(super) fn unsatisfied_length(headers: &HeaderMap) -> Option<u64> {
    match content_range(headers)? {
        ContentRange::Unsatisfied { total } => Some(total),
        ContentRange::Of { .. } => None,
    }
}

/// When the file was last modified, if the head says so.
pub(super) fn last_modified(headers: &HeaderMap) -> Option<SystemTime> {
    date(only(headers, LAST_MODIFIED)?)
}

/// The length that the head gives, in bytes. In chunks it counts for nothing: RFC 9112, 6.3.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    if headers.contains_key(TRANSFER_ENCODING) {
        return None;
    }
    number(only(headers, CONTENT_LENGTH)?)
}

fn content_range(headers: &HeaderMap) -> Option<ContentRange> {
    let (unit, range) = only(headers, CONTENT_RANGE)?.split_once(' ')?;
    let (range, total) = range.split_once('/')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    if range == "*" {
        let total = number(total)?;
        return Some(ContentRange::Unsatisfied { total });
    }
    let total = match total {
        "*" => None,
        total => Some(number(total)?),
    };
    let (start, last) = range.split_once('-')?;
    let (start, end) = (number(start)?, number(last)?.checked_add(1)?);
    let is_sound = start < end && total.is_none_or(|total| end <= total);
    is_sound.then_some(ContentRange::Of { start, end, total })
}

/// Digits alone: no sign.
fn number(text: &str) -> Option<u64> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let fields = lines.iter().map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (
                name.parse::<HeaderName>().unwrap(),
                value.parse::<HeaderValue>().unwrap(),
            )
        });
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, value);
        }
        headers
    }

    const DATED: &str = "last-modified: Sun, 06 Nov 1994 08:49:37 GMT";

    #[test]
    fn only_a_strong_validator_is_one() {
        let tag = |tag: &str| Some(Validator::Etag(tag.into()));
        let dated = Some(Validator::LastModified(
            "Sun, 06 Nov 1994 08:49:37 GMT".into(),
        ));
        let minute_later = "date: Sun, 06 Nov 1994 08:50:37 GMT";
        let cases: [(&[&str], Option<Validator>); 12] = [
            (&["etag: \"a\""], tag("\"a\"")),
            (&["etag: \"\"", DATED, minute_later], tag("\"\"")),
            (&["etag: W/\"a\""], None),
            (&["etag: W/\"a\"", DATED, minute_later], None),
            (&["etag: a"], None),
            (&["etag: \"a\"b\""], None),
            (&["etag: \""], None),
            (&["etag: \"a\"", "etag: \"b\""], None),
            (&[DATED, minute_later], dated),
            (&[DATED, "date: Sun, 06 Nov 1994 08:50:36 GMT"], None),
            (&[DATED], None),
            (&["last-modified: yesterday", minute_later], None),
        ];
        for (lines, expected) in cases {
            assert_eq!(Validator::of(&headers(lines)), expected, "{lines:?}");
        }
    }

    fn record(length: Option<u64>) -> Record {
        Record {
            url: "http://h/x".into(),
            validator: Validator::Etag("\"a\"".into()),
            length,
        }
    }

    #[test]
    fn a_record_is_whole_or_none() {
        let bytes = record(Some(10)).to_bytes();
        assert_eq!(Record::parse(&bytes), Some(record(Some(10))));
        for cut in 0..bytes.len() {
            assert_eq!(Record::parse(&bytes[..cut]), None, "{cut}");
        }
        let forged = String::from_utf8(bytes)
            .unwrap()
            .replace("\\\"a\\\"", "\\\"a\\\"\\r\\n");
        assert_eq!(Record::parse(forged.as_bytes()), None);
        let record = record(Some(10));
        assert!(record.is_of("http://h/x") && !record.is_of("http://h/y"));
        assert!(record.may_have(10) && !record.may_have(11));
    }

    #[test]
    fn a_file_is_the_same_by_its_length_and_a_time_that_is_past() {
        let then = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let existing = |bytes, nanoseconds| Existing {
            bytes,
            modified: then + Duration::from_nanos(nanoseconds),
        };
        let length = "content-length: 4";
        let later = "last-modified: Sun, 06 Nov 1994 08:49:38 GMT";
        let cases: [(&[&str], Existing, bool); 7] = [
            (&[DATED, length], existing(4, 0), true),
            (&[DATED, length], existing(5, 0), false),
            (&[DATED, length], existing(4, 1), false),
            (&[DATED], existing(4, 0), false),
            (&[length], existing(4, 0), false),
            (
                &[DATED, length, "content-encoding: gzip"],
                existing(4, 0),
                false,
            ),
            (&[later, length], existing(4, 0), false),
        ];
        for (lines, existing, expected) in cases {
            let same = existing.is_same_by(&headers(lines));
            assert_eq!(same, expected, "{lines:?} {existing:?}");
        }
        for (lines, expected) in [
            (
                &[DATED, "date: Sun, 06 Nov 1994 08:49:38 GMT"][..],
                Some(then),
            ),
            (&[DATED, "date: Sun, 06 Nov 1994 08:49:37 GMT"], None),
            (&[DATED, "date: Sun, 06 Nov 1994 08:49:36 GMT"], None),
            (&[DATED], None),
        ] {
            assert_eq!(settled_modified(&headers(lines)), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_206_continues_only_the_same_version_at_the_right_place() {
        let rest = |end, total| Some(Continuation { end, total });
        let etag = "etag: \"a\"";
        let cases: [(&[&str], Option<u64>, Option<Continuation>); 18] = [
            (
                &[
                    "content-range: bytes 4-9/10",
                    "content-encoding: gzip",
                    etag,
                ],
                Some(10),
                None,
            ),
            (
                &[
                    "content-range: bytes 4-9/10",
                    "content-encoding: Identity",
                    etag,
                ],
                None,
                rest(10, Some(10)),
            ),
            (
                &["content-range: bytes 4-9/10", etag],
                Some(10),
                rest(10, Some(10)),
            ),
            (
                &["content-range: BYTES 4-9/10", etag],
                None,
                rest(10, Some(10)),
            ),
            (&["content-range: bytes 4-8/*", etag], None, rest(9, None)),
            (
                &["content-range: bytes 4-8/*", etag],
                Some(10),
                rest(9, Some(10)),
            ),
            (
                &["content-range: bytes 4-9/10", "content-length: 6", etag],
                None,
                rest(10, Some(10)),
            ),
            (
                &["content-range: bytes 4-9/10", "content-length: 5", etag],
                None,
                None,
            ),
            (&["content-range: bytes 3-9/10", etag], Some(10), None),
            (&["content-range: bytes 5-9/10", etag], Some(10), None),
            (&["content-range: bytes 4-10/11", etag], Some(10), None),
            (&["content-range: bytes 4-10/*", etag], Some(10), None),
            (&["content-range: bytes 4-10/10", etag], None, None),
            (
                &["content-range: bytes 4-9/10", "etag: \"b\""],
                Some(10),
                None,
            ),
            (
                &["content-range: bytes 4-9/10", "etag: W/\"a\""],
                Some(10),
                None,
            ),
            (&["content-range: bytes 4-9/10"], Some(10), None),
            (&["content-range: bytes */10", etag], Some(10), None),
            (
                &["content-type: multipart/byteranges; boundary=x", etag],
                Some(10),
                None,
            ),
        ];
        for (lines, length, expected) in cases {
            let got = record(length).continued_by(&headers(lines), 4);
            assert_eq!(got, expected, "{lines:?} {length:?}");
        }
    }

    #[test]
    fn a_206_may_leave_out_the_date_but_not_change_it() {
        let dated = Record {
            validator: Validator::LastModified("Sun, 06 Nov 1994 08:49:37 GMT".into()),
            ..record(None)
        };
        let range = "content-range: bytes 4-9/10";
        let other = "last-modified: Sun, 06 Nov 1994 08:49:38 GMT";
        for (lines, is_fit) in [
            (&[range][..], true),
            (&[range, DATED], true),
            (&[range, other], false),
        ] {
            let rest = dated.continued_by(&headers(lines), 4);
            assert_eq!(rest.is_some(), is_fit, "{lines:?}");
        }
    }

    #[test]
    fn ranges_that_make_no_sense_are_none() {
        for value in [
            "bytes 9-4/10",
            "bytes 0-9/9",
            "bytes 0-18446744073709551615/*",
            "bytes +0-9/10",
            "bytes -9/10",
            "bytes 0-9",
            "lines 0-9/10",
            "bytes=0-9/10",
            "bytes */*",
            "",
        ] {
            let headers = headers(&[&format!("content-range: {value}")]);
            assert_eq!(content_range(&headers), None, "{value}");
        }
        let headers = headers(&["content-range: bytes */10"]);
        assert_eq!(unsatisfied_length(&headers), Some(10));
    }
}
