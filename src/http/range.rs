//! Ranges (RFC 9110, section 14): which bytes of a file a request asks for, and how several go
//! into one answer.

use std::ops::Range;

use super::fields::trim;
use crate::limits::HTTP_RANGES_MAX;

/// What a Range field asks of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// The field is ignored: another unit, no valid set, or a set that isn't worth it (RFC 9110,
    /// sections 14.2 and 17.15). 200.
    Whole,
    /// One range: 206 with Content-Range.
    One(Range<u64>),
    /// Several, in the order asked for: 206 as multipart/byteranges.
    Many(Vec<Range<u64>>),
    /// No range begins within the file: 416.
    Unsatisfiable,
}

/// Reads a Range field's value for a file of `length` bytes. No range of the result is empty or
/// reaches beyond the file; no two overlap, so that all together aren't longer than the file. Of an
/// empty file no range is unsatisfiable: some clients ask for `bytes=0-` of whatever they read.
#[must_use]
pub fn parse(value: &[u8], length: u64) -> Ranges {
    if length == 0 {
        return Ranges::Whole;
    }
    let Some((unit, set)) = value.split_at_checked(6) else {
        return Ranges::Whole;
    };
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return Ranges::Whole;
    }
    let (mut ranges, mut members) = (Vec::new(), 0);
    let set = set.split(|&byte| byte == b',').map(trim);
    for member in set.filter(|member| !member.is_empty()) {
        members += 1;
        if members > HTTP_RANGES_MAX {
            return Ranges::Whole;
        }
        match Spec::parse(member).map(|spec| spec.within(length)) {
            None => return Ranges::Whole,
            Some(range) => ranges.extend(range),
        }
    }
    match &ranges[..] {
        _ if members == 0 => Ranges::Whole,
        [] => Ranges::Unsatisfiable,
        [only] => Ranges::One(only.clone()),
        _ if overlap(&ranges) => Ranges::Whole,
        _ => Ranges::Many(ranges),
    }
}

/// A range-spec (RFC 9110, section 14.1.1). Numbers beyond 64 bits count as the largest.
enum Spec {
    /// `5-9` and `5-`.
    From { first: u64, last: u64 },
    /// `-5`.
    Suffix(u64),
}

impl Spec {
    fn parse(member: &[u8]) -> Option<Self> {
        let dash = member.iter().position(|&byte| byte == b'-')?;
        match (&member[..dash], &member[dash + 1..]) {
            (b"", suffix) => number(suffix).map(Self::Suffix),
            (first, b"") => number(first).map(|first| Self::From {
                first,
                last: u64::MAX,
            }),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::From { first, last })
            }
        }
    }

    /// What of a file it means, if any (RFC 9110, section 14.1.2).
    fn within(self, length: u64) -> Option<Range<u64>> {
        match self {
            Self::From { first, last } if first < length => {
                Some(first..last.saturating_add(1).min(length))
            }
            Self::From { .. } | Self::Suffix(0) => None,
            Self::Suffix(count) => Some(length.saturating_sub(count)..length),
        }
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |sum: u64, digit: &u8| {
        sum.saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    };
    Some(digits.iter().fold(0, add))
}

fn overlap(ranges: &[Range<u64>]) -> bool {
    let mut sorted: Vec<_> = ranges.iter().collect();
    sorted.sort_unstable_by_key(|range| range.start);
    sorted.windows(2).any(|pair| pair[1].start < pair[0].end)
}

/// The Content-Range field's value of a 206 (RFC 9110, section 14.4). The range isn't empty.
#[must_use]
pub fn content_range(range: &Range<u64>, length: u64) -> String {
    let last = range.end.saturating_sub(1);
    format!("bytes {}-{last}/{length}", range.start)
}

/// The Content-Range field's value of a 416 (RFC 9110, section 15.5.17).
#[must_use]
pub fn unsatisfied_range(length: u64) -> String {
    format!("bytes */{length}")
}

/// Several ranges in one content (RFC 9110, section 14.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multipart {
    /// The Content-Type field's value.
    pub content_type: String,
    /// The content's length in bytes.
    pub length: u64,
    /// What is sent, in order: some bytes, and a part of the file, each of which may be empty.
    pub parts: Vec<(Box<[u8]>, Range<u64>)>,
}

impl Multipart {
    /// Puts ranges of a file of `length` bytes and of this type into one content. `nonce` goes
    /// into the boundary, which must not occur in the file: it is drawn anew for each answer, so
    /// that nobody can write a file that holds it.
    ///
    /// A line end comes before the first boundary, too. It needs none (RFC 2046, section 5.1.1), but other
    /// servers send one, and zsync throws the first line away.
    #[must_use]
    pub fn new(ranges: &[Range<u64>], length: u64, content_type: &str, nonce: u128) -> Self {
        let boundary = format!("carafe-{nonce:032x}");
        let mut parts = Vec::with_capacity(ranges.len() + 1);
        let mut push = |head: String, range| parts.push((head.into_bytes().into(), range));
        for range in ranges {
            let head = format!(
                "\r\n--{boundary}\r\nContent-Type: {content_type}\r\n\
                 Content-Range: {}\r\n\r\n",
                content_range(range, length)
            );
            push(head, range.clone());
        }
        push(format!("\r\n--{boundary}--\r\n"), 0..0);
        let length_of = |(head, range): &(Box<[u8]>, Range<u64>)| {
            head.len() as u64 + range.end.saturating_sub(range.start)
        };
        Self {
            content_type: format!("multipart/byteranges; boundary={boundary}"),
            // The ranges are at most the file, and no file comes near the end of 64 bits.
            length: parts.iter().map(length_of).fold(0, u64::saturating_add),
            parts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sets_of_ranges() {
        let one = |first, end| Ranges::One(first..end);
        let many = |ranges: &[(u64, u64)]| Ranges::Many(ranges.iter().map(|r| r.0..r.1).collect());
        use Ranges::{Unsatisfiable, Whole};
        for (value, length, expected) in [
            ("bytes=0-499", 10_000, one(0, 500)),
            ("bytes=500-999", 10_000, one(500, 1000)),
            ("bytes=-500", 10_000, one(9500, 10_000)),
            ("bytes=9500-", 10_000, one(9500, 10_000)),
            ("bytes=0-0,-1", 10_000, many(&[(0, 1), (9999, 10_000)])),
            (
                "bytes= 0-9, 20-29,, 40-49 ,",
                100,
                many(&[(0, 10), (20, 30), (40, 50)]),
            ),
            (
                "bytes=500-600,601-999",
                10_000,
                many(&[(500, 601), (601, 1000)]),
            ),
            ("bytes=20-29,0-9", 100, many(&[(20, 30), (0, 10)])),
            ("BYTES=1-2", 10, one(1, 3)),
            ("bytes=0-", 10, one(0, 10)),
            ("bytes=0-9", 10, one(0, 10)),
            ("bytes=0-10", 10, one(0, 10)),
            ("bytes=9-9", 10, one(9, 10)),
            ("bytes=9-99999999999999999999999", 10, one(9, 10)),
            ("bytes=-10", 10, one(0, 10)),
            ("bytes=-11", 10, one(0, 10)),
            ("bytes=-99999999999999999999999", 10, one(0, 10)),
            ("bytes=0-18446744073709551615", u64::MAX, one(0, u64::MAX)),
            // One of several that lies within the file stands alone.
            ("bytes=0-1,10-", 10, one(0, 2)),
            ("bytes=-0,5-", 10, one(5, 10)),
            // Beyond the end.
            ("bytes=10-", 10, Unsatisfiable),
            ("bytes=10-20,30-40", 10, Unsatisfiable),
            ("bytes=-0", 10, Unsatisfiable),
            ("bytes=99999999999999999999999-", 10, Unsatisfiable),
            ("bytes=18446744073709551615-", u64::MAX, Unsatisfiable),
            // An empty file.
            ("bytes=0-", 0, Whole),
            ("bytes=5-9", 0, Whole),
            ("bytes=-1", 0, Whole),
            ("bytes=-0", 0, Whole),
            // Overlaps.
            ("bytes=0-5,5-9", 10, Whole),
            ("bytes=0-,0-", 10, Whole),
            ("bytes=5-9,0-5", 10, Whole),
            ("bytes=0-0,-10", 10, Whole),
            // No sets of byte ranges.
            ("", 10, Whole),
            ("bytes", 10, Whole),
            ("bytes=", 10, Whole),
            ("bytes=,", 10, Whole),
            ("bytes=-", 10, Whole),
            ("bytes=x", 10, Whole),
            ("bytes=5", 10, Whole),
            ("bytes=5-4", 10, Whole),
            ("bytes=0-1,5-4", 10, Whole),
            ("bytes=0-1,x", 10, Whole),
            ("bytes=+1-2", 10, Whole),
            ("bytes=1 - 2", 10, Whole),
            ("bytes=1--2", 10, Whole),
            ("bytes=--2", 10, Whole),
            ("bytes=0x1-2", 10, Whole),
            ("bytes 0-1", 10, Whole),
            ("bytes =0-1", 10, Whole),
            ("lines=0-1", 10, Whole),
        ] {
            assert_eq!(
                parse(value.as_bytes(), length),
                expected,
                "{value} of {length}"
            );
        }
    }

    #[test]
    fn so_many_ranges_and_no_more() {
        let set = |count: usize| {
            let ranges: Vec<_> = (0..count).map(|at| format!("{0}-{0}", 2 * at)).collect();
            format!("bytes={}", ranges.join(","))
        };
        let most = parse(set(HTTP_RANGES_MAX).as_bytes(), 1000);
        assert!(matches!(most, Ranges::Many(ranges) if ranges.len() == HTTP_RANGES_MAX));
        let more = parse(set(HTTP_RANGES_MAX + 1).as_bytes(), 1000);
        assert_eq!(more, Ranges::Whole);
        let beyond = parse(set(HTTP_RANGES_MAX + 1).as_bytes(), 0);
        assert_eq!(beyond, Ranges::Whole);
    }

    #[test]
    fn values() {
        assert_eq!(content_range(&(0..500), 1234), "bytes 0-499/1234");
        assert_eq!(content_range(&(9..10), 10), "bytes 9-9/10");
        assert_eq!(unsatisfied_range(0), "bytes */0");
    }

    #[test]
    fn parts() {
        let multipart = Multipart::new(&[0..2, 5..8], 10, "text/plain", 0xc0ffee);
        let boundary = "carafe-00000000000000000000000000c0ffee";
        let file: &[u8] = b"0123456789";
        let mut content = Vec::new();
        for (bytes, range) in &multipart.parts {
            content.extend_from_slice(bytes);
            content.extend_from_slice(&file[range.start as usize..range.end as usize]);
        }
        let expected = format!(
            "\r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\r\n\
             --{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 5-7/10\r\n\r\n567\r\n\
             --{boundary}--\r\n"
        );
        assert_eq!(String::from_utf8(content).unwrap(), expected);
        assert_eq!(multipart.length, expected.len() as u64);
        let content_type = format!("multipart/byteranges; boundary={boundary}");
        assert_eq!(multipart.content_type, content_type);
    }

    fn check(value: &[u8], length: u64) -> Result<(), TestCaseError> {
        let ranges = match parse(value, length) {
            Ranges::One(range) => vec![range],
            Ranges::Many(ranges) => ranges,
            Ranges::Whole | Ranges::Unsatisfiable => return Ok(()),
        };
        let mut total = 0u64;
        for range in &ranges {
            prop_assert!(range.start < range.end && range.end <= length);
            total = total.checked_add(range.end - range.start).unwrap();
        }
        prop_assert!(total <= length);
        let multipart = Multipart::new(&ranges, length, "a/b", 0);
        prop_assert!(multipart.length > total || length > u64::MAX / 2);
        Ok(())
    }

    proptest! {
        #[test]
        fn ranges_lie_within_the_file(set in "[0-9,-]{0,40}", length in 0u64..1000) {
            check(format!("bytes={set}").as_bytes(), length)?;
        }

        #[test]
        fn nothing_panics(value: Vec<u8>, length: u64) {
            check(&value, length)?;
            check(&[b"bytes=", &value[..]].concat(), length)?;
        }
    }
}
