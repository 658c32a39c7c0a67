//! An HTTP/1.1 answer as a client reads it: where its head ends and what it says, and where its body
//! ends. `get` and `soak` share it.

use std::borrow::Cow;
use std::ops::Range;

use crate::limits::{RESPONSE_FIELDS_MAX, RESPONSE_HEAD_BYTES_MAX};

/// Fields that are parsed without an allocation. Most answers have a dozen.
const FEW_FIELDS: usize = 64;

/// What the bytes of an answer's head say.
#[derive(Debug, PartialEq, Eq)]
pub enum Head {
    /// There is more to come.
    Partial,
    /// This is no answer, for this reason.
    Bad(&'static str),
    /// It is whole.
    Whole {
        /// How many bytes it takes.
        used: usize,
        /// The status code.
        status: u16,
        /// Where the body ends.
        framing: Framing,
        /// Whether the connection may carry another request.
        keep_alive: bool,
    },
}

/// Where a body ends: RFC 9112, 6.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes.
    Length(u64),
    /// After the chunk of length zero, and its trailers.
    Chunked,
    /// With the connection.
    UntilClose,
}

/// Looks at an answer's first bytes. Interim answers (1xx) count for nothing; they are skipped.
#[must_use]
pub fn parse_head(bytes: &[u8]) -> Head {
    parse_fields(bytes, |_, _| {})
}

/// As [`parse_head`], and hands over each field of a whole head: its name as it came, and its value
/// in one line.
pub fn parse_fields(bytes: &[u8], mut each_field: impl FnMut(&str, &[u8])) -> Head {
    let mut skipped = 0;
    loop {
        let head = parse_one(&bytes[skipped..], &mut each_field);
        let length = match head {
            Head::Whole { used, .. } => skipped + used,
            _ => bytes.len(),
        };
        return match head {
            // However it was cut: a longer one that came at once is no better.
            Head::Partial if length >= RESPONSE_HEAD_BYTES_MAX => TOO_LONG,
            Head::Whole { .. } if length > RESPONSE_HEAD_BYTES_MAX => TOO_LONG,
            Head::Whole { status: 101, .. } => Head::Bad("it switches protocols"),
            Head::Whole { status, .. } if (100..200).contains(&status) => {
                skipped = length;
                continue;
            }
            Head::Whole {
                status,
                framing,
                keep_alive,
                ..
            } => Head::Whole {
                used: length,
                status,
                framing,
                keep_alive,
            },
            other => other,
        };
    }
}

const TOO_LONG: Head = Head::Bad("its head is too long");

fn parse_one(bytes: &[u8], each_field: &mut impl FnMut(&str, &[u8])) -> Head {
    let bytes = &*as_known_version(bytes);
    let mut few = [httparse::EMPTY_HEADER; FEW_FIELDS];
    let parsed = match parse_within(bytes, &mut few, each_field) {
        Err(httparse::Error::TooManyHeaders) => {
            let mut many = vec![httparse::EMPTY_HEADER; RESPONSE_FIELDS_MAX];
            parse_within(bytes, &mut many, each_field)
        }
        parsed => parsed,
    };
    parsed.unwrap_or_else(|error| match error {
        httparse::Error::TooManyHeaders => Head::Bad("its head has too many fields"),
        _ => Head::Bad("its head is no HTTP/1"),
    })
}

/// A later minor version is read as 1.1: RFC 9110, 2.5.
fn as_known_version(bytes: &[u8]) -> Cow<'_, [u8]> {
    match bytes {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9', ..] => {
            let mut known = bytes.to_vec();
            known[7] = b'1';
            known.into()
        }
        _ => bytes.into(),
    }
}

/// Folded lines and spaces before a colon are old, and no danger to who reads one answer a request:
/// RFC 9112, 5.1 and 5.2.
fn parse_within<'b>(
    bytes: &'b [u8],
    fields: &mut [httparse::Header<'b>],
    each_field: &mut impl FnMut(&str, &[u8]),
) -> Result<Head, httparse::Error> {
    let mut response = httparse::Response::new(fields);
    let used = httparse::ParserConfig::default()
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true)
        .parse_response(&mut response, bytes)?;
    let httparse::Status::Complete(used) = used else {
        return Ok(Head::Partial);
    };
    let (Some(status), Some(version)) = (response.code, response.version) else {
        return Ok(Head::Bad("it has no status"));
    };
    let mut said = Said {
        keep_alive: version == 1,
        ..Said::default()
    };
    for field in response.headers.iter() {
        let value = unfold(field.value);
        if let Err(why) = said.take(field.name, &value) {
            return Ok(Head::Bad(why));
        }
        // An interim answer's fields are not the answer's.
        if status >= 200 {
            each_field(field.name, &value);
        }
    }
    let framing = match (status, said.is_chunked, said.length) {
        (100..=199 | 204 | 304, ..) => Framing::Length(0),
        (_, true, _) => Framing::Chunked,
        (_, false, Some(length)) => Framing::Length(length),
        (_, false, None) => Framing::UntilClose,
    };
    // In HTTP/1.0 chunks are a fault, after which no second answer can be trusted: RFC 9112, 6.1.
    let is_sound = framing != Framing::UntilClose && (version == 1 || framing != Framing::Chunked);
    Ok(Head::Whole {
        used,
        status,
        framing,
        keep_alive: said.keep_alive && is_sound,
    })
}

/// A value in one line: RFC 9112, 5.2.
fn unfold(value: &[u8]) -> Cow<'_, [u8]> {
    let value = value.trim_ascii();
    if !value.contains(&b'\n') {
        return value.into();
    }
    let spaced = |&byte: &u8| match byte {
        b'\r' | b'\n' => b' ',
        byte => byte,
    };
    value.iter().map(spaced).collect::<Vec<_>>().into()
}

/// What the fields say about the body's end and the connection's.
#[derive(Debug, Default)]
struct Said {
    length: Option<u64>,
    is_chunked: bool,
    keep_alive: bool,
}

impl Said {
    fn take(&mut self, name: &str, value: &[u8]) -> Result<(), &'static str> {
        let parts = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        if name.eq_ignore_ascii_case("content-length") {
            // The same number several times is that number: RFC 9110, 8.6.
            for part in parts {
                let length = number(part).ok_or("its Content-Length is none")?;
                if self.length.is_some_and(|before| before != length) {
                    return Err("its Content-Lengths differ");
                }
                self.length = Some(length);
            }
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            for part in parts {
                if part.eq_ignore_ascii_case(b"chunked") && !self.is_chunked {
                    self.is_chunked = true;
                } else if !part.eq_ignore_ascii_case(b"identity") || self.is_chunked {
                    return Err("its Transfer-Encoding is not chunked");
                }
            }
        } else if name.eq_ignore_ascii_case("connection") {
            let has = |word: &[u8]| parts.clone().any(|part| part.eq_ignore_ascii_case(word));
            self.keep_alive = !has(b"close") && (self.keep_alive || has(b"keep-alive"));
        }
        Ok(())
    }
}

/// Digits alone: no sign, and not more than 64 bits hold.
fn number(text: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(text).ok()?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten()
}

/// Takes a chunked body apart: RFC 9112, 7.1.
#[derive(Debug, Default)]
pub struct Chunks {
    /// The bytes of a line that isn't whole.
    line: Vec<u8>,
    state: ChunkState,
    /// Bytes of lines that no data has paid for: extensions and trailers must not go on for ever.
    overhead: usize,
}

#[derive(Clone, Copy, Debug, Default)]
enum ChunkState {
    #[default]
    Size,
    Data(u64),
    /// The line end after the data.
    DataEnd,
    Trailer,
}

/// What comes next in a chunked body.
#[derive(Debug, PartialEq, Eq)]
pub enum Chunk {
    /// These bytes of the input are the body's.
    Data(Range<usize>),
    /// The input is used up.
    NeedMore,
    /// The body has ended; the input is used up to here.
    End(usize),
    /// This is no chunk, for this reason.
    Bad(&'static str),
}

impl Chunks {
    /// Looks at the input from `at` on.
    pub fn next(&mut self, input: &[u8], mut at: usize) -> Chunk {
        loop {
            if let ChunkState::Data(left) = self.state {
                if at == input.len() {
                    return Chunk::NeedMore;
                }
                let here = input.len() - at;
                let count = usize::try_from(left).map_or(here, |left| left.min(here));
                self.state = match left - count as u64 {
                    0 => ChunkState::DataEnd,
                    left => ChunkState::Data(left),
                };
                return Chunk::Data(at..at + count);
            }
            let end = input[at..].iter().position(|&byte| byte == b'\n');
            let line_end = end.map_or(input.len(), |end| at + end + 1);
            self.line.extend_from_slice(&input[at..line_end]);
            at = line_end;
            if self.overhead + self.line.len() > RESPONSE_HEAD_BYTES_MAX {
                return Chunk::Bad("its chunks' extensions or trailers are too long");
            }
            if end.is_none() {
                return Chunk::NeedMore;
            }
            let line = std::mem::take(&mut self.line);
            self.state = match self.next_state(&line) {
                Ok(Some(state)) => state,
                Ok(None) => return Chunk::End(at),
                Err(why) => return Chunk::Bad(why),
            };
        }
    }

    /// What a line leads to; `None` at the end of the body.
    fn next_state(&mut self, line: &[u8]) -> Result<Option<ChunkState>, &'static str> {
        let is_empty = matches!(line, b"\r\n" | b"\n");
        self.overhead += line.len();
        match self.state {
            ChunkState::Size => {
                let size = chunk_size(line).ok_or("a chunk's size is none")?;
                let paid = usize::try_from(size).unwrap_or(usize::MAX);
                let paid = paid.saturating_mul(2).saturating_add(CHUNK_LINE_BYTES);
                self.overhead = self.overhead.saturating_sub(paid);
                Ok(Some(match size {
                    0 => ChunkState::Trailer,
                    size => ChunkState::Data(size),
                }))
            }
            ChunkState::DataEnd if is_empty => Ok(Some(ChunkState::Size)),
            ChunkState::Trailer if is_empty => Ok(None),
            ChunkState::Trailer => Ok(Some(ChunkState::Trailer)),
            ChunkState::DataEnd | ChunkState::Data(_) => Err("a chunk is longer than its size"),
        }
    }
}

/// What a chunk's two lines take, without an extension.
const CHUNK_LINE_BYTES: usize = 20;

/// The size at the beginning of a line. What follows it, blanks or an extension, says nothing to us.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let is_digit = |byte: &u8| byte.is_ascii_hexdigit();
    let count = line.iter().take_while(|byte| is_digit(byte)).count();
    let (digits, rest) = line.split_at(count);
    let is_end = matches!(rest.trim_ascii_start().first(), None | Some(b';'));
    let digits = std::str::from_utf8(digits).ok().filter(|_| is_end)?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(head: &str) -> (u16, Framing, bool) {
        match parse_head(head.as_bytes()) {
            Head::Whole {
                used,
                status,
                framing,
                keep_alive,
            } => {
                assert_eq!(used, head.len());
                (status, framing, keep_alive)
            }
            other => panic!("{head:?}: {other:?}"),
        }
    }

    #[test]
    #[allow(clippy::panic, reason = "a test says what failed by panicking")]
    fn heads() {
        use Framing::{Chunked, Length, UntilClose};
        let cases = [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                (200, Length(5), true),
            ),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n",
                (200, Length(5), false),
            ),
            (
                "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\ncontent-length: 0\r\n\r\n",
                (200, Length(0), true),
            ),
            (
                "HTTP/1.1 200 OK\r\nConnection: x, close\r\nContent-Length: 1\r\n\r\n",
                (200, Length(1), false),
            ),
            ("HTTP/1.1 200 OK\r\n\r\n", (200, UntilClose, false)),
            (
                "HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n",
                (404, Chunked, true),
            ),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 304 x\r\n\r\n",
                (304, Length(0), true),
            ),
            (
                "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n",
                (200, Chunked, false),
            ),
            (
                "HTTP/1.2 200\r\nContent-Length : 5, 5\r\n\r\n",
                (200, Length(5), true),
            ),
            (
                "HTTP/1.1 200 OK\r\nA: b\r\n\tc\r\nContent-Length:\r\n 5\r\n\r\n",
                (200, Length(5), true),
            ),
            (
                "HTTP/1.1 200 OK\nTransfer-Encoding: identity\nContent-Length: 5\n\n",
                (200, Length(5), true),
            ),
        ];
        for (head, expected) in cases {
            assert_eq!(whole(head), expected, "{head}");
            for cut in 0..head.len() {
                assert_eq!(
                    parse_head(&head.as_bytes()[..cut]),
                    Head::Partial,
                    "{head} to {cut}"
                );
            }
        }
        for bad in [
            "garbage\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 101 Switching\r\n\r\n",
            "HTTP/2 200\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
        ] {
            assert!(matches!(parse_head(bad.as_bytes()), Head::Bad(_)), "{bad}");
        }
    }

    #[test]
    fn fields_are_the_last_heads_and_each_in_one_line() {
        let head = b"HTTP/1.1 103 x\r\nLink: a\r\n\r\nHTTP/1.1 200 x\r\nA: b\r\n c\r\nB:\r\n\r\n";
        let mut fields = Vec::new();
        parse_fields(head, |name, value| {
            fields.push((name.to_owned(), value.to_vec()));
        });
        assert_eq!(
            fields,
            [("A".into(), b"b   c".to_vec()), ("B".into(), Vec::new())]
        );
    }

    #[test]
    fn a_head_has_many_fields_and_a_limit() {
        let of = |count: usize| format!("HTTP/1.1 204 x\r\n{}\r\n", "A: b\r\n".repeat(count));
        assert_eq!(whole(&of(RESPONSE_FIELDS_MAX)).0, 204);
        let too_many = of(RESPONSE_FIELDS_MAX + 1);
        assert!(matches!(parse_head(too_many.as_bytes()), Head::Bad(_)));
        let endless = "HTTP/1.1 102 x\r\n\r\n".repeat(RESPONSE_HEAD_BYTES_MAX / 10);
        assert!(matches!(parse_head(endless.as_bytes()), Head::Bad(_)));
    }

    /// Feeds the input piece by piece; gives how many bytes of it were looked at before the end, and
    /// why it is bad.
    fn fed(pieces: impl Iterator<Item = Vec<u8>>) -> (usize, Option<&'static str>) {
        let (mut chunks, mut bytes) = (Chunks::default(), 0);
        for piece in pieces {
            bytes += piece.len();
            let mut at = 0;
            loop {
                match chunks.next(&piece, at) {
                    Chunk::Data(range) => at = range.end,
                    Chunk::NeedMore => break,
                    Chunk::End(_) => return (bytes, None),
                    Chunk::Bad(why) => return (bytes, Some(why)),
                }
            }
        }
        (bytes, None)
    }

    #[test]
    fn extensions_and_trailers_end_and_honest_ones_pass() {
        let line = |line: &str| line.as_bytes().to_vec();
        let endless: [Box<dyn Iterator<Item = Vec<u8>>>; 4] = [
            Box::new(std::iter::once(line("0\r\n")).chain(std::iter::repeat(line("A: b\r\n")))),
            Box::new(std::iter::once(line("0\r\n")).chain(std::iter::repeat(line("A")))),
            Box::new(std::iter::repeat(line(&format!(
                "1;{}\r\na\r\n",
                "x".repeat(100)
            )))),
            Box::new(std::iter::once(line("1;")).chain(std::iter::repeat(line("x")))),
        ];
        for pieces in endless {
            let (bytes, why) = fed(pieces);
            assert!(
                why.is_some() && bytes < 2 * RESPONSE_HEAD_BYTES_MAX,
                "{bytes}"
            );
        }
        let long_lines = std::iter::repeat_n(
            line(&format!(
                "ff;{}\r\n{}\r\n",
                "x".repeat(500),
                "a".repeat(255)
            )),
            1000,
        );
        let trailers = line(&format!("0\r\nA: {}\r\n\r\n", "b".repeat(20_000)));
        assert_eq!(fed(long_lines.chain([trailers])).1, None);
        assert_eq!(
            fed(std::iter::repeat_n(line("1\r\na\r\n"), 100_000)).1,
            None
        );
    }

    #[test]
    fn a_chunks_size_is_hexadecimal_digits() {
        for (text, size) in [
            ("5\r\n", Some(5)),
            ("5\n", Some(5)),
            ("00000000000000000000000Fa ; x\r\n", Some(250)),
            ("5 \r\n", Some(5)),
            ("ffffffffffffffff\r\n", Some(u64::MAX)),
            ("10000000000000000\r\n", None),
            ("5x\r\n", None),
            ("5 5\r\n", None),
            ("+5\r\n", None),
            (" 5\r\n", None),
            (";x\r\n", None),
            ("\r\n", None),
        ] {
            assert_eq!(chunk_size(text.as_bytes()), size, "{text:?}");
        }
    }

    #[test]
    fn chunks_come_out_the_same_however_they_are_cut() {
        let input = b"5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\nTrailer: 1\r\n\r\n";
        for cut in 1..=input.len() {
            let (mut chunks, mut body, mut ended) = (Chunks::default(), Vec::new(), false);
            for piece in input.chunks(cut) {
                let mut at = 0;
                loop {
                    match chunks.next(piece, at) {
                        Chunk::Data(range) => {
                            at = range.end;
                            body.extend_from_slice(&piece[range]);
                        }
                        Chunk::NeedMore => break,
                        Chunk::End(used) => {
                            assert_eq!(used, piece.len());
                            ended = true;
                            break;
                        }
                        Chunk::Bad(why) => unreachable!("it is well-formed: {why}"),
                    }
                }
            }
            assert!(ended);
            assert_eq!(body, b"hello, world");
        }
        for bad in [&b"x\r\n"[..], b"1\r\nab\r\n", b"\r\n"] {
            let mut chunks = Chunks::default();
            let first = chunks.next(bad, 0);
            let next = match first {
                Chunk::Data(range) => chunks.next(bad, range.end),
                other => other,
            };
            assert!(matches!(next, Chunk::Bad(_)), "{bad:?}: {next:?}");
        }
    }
}
