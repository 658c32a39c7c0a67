//! The client's side of HTTP/1.1: where an answer's head ends, and its body.

use std::ops::Range;

use crate::limits::{SOAK_HEAD_BYTES_MAX, SOAK_HEADERS_MAX};

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
    /// After the chunk of length zero.
    Chunked,
    /// With the connection.
    UntilClose,
}

/// Looks at an answer's first bytes. Interim answers (1xx) count for nothing; they are skipped.
#[must_use]
pub fn parse_head(bytes: &[u8]) -> Head {
    let mut skipped = 0;
    loop {
        match parse_one(&bytes[skipped..]) {
            Head::Whole { used, status, .. } if (100..200).contains(&status) => skipped += used,
            Head::Whole {
                used,
                status,
                framing,
                keep_alive,
            } => {
                return Head::Whole {
                    used: skipped + used,
                    status,
                    framing,
                    keep_alive,
                };
            }
            Head::Partial if bytes.len() >= SOAK_HEAD_BYTES_MAX => {
                return Head::Bad("its head is too long");
            }
            other => return other,
        }
    }
}

fn parse_one(bytes: &[u8]) -> Head {
    let mut headers = [httparse::EMPTY_HEADER; SOAK_HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let used = match response.parse(bytes) {
        Ok(httparse::Status::Complete(used)) => used,
        Ok(httparse::Status::Partial) => return Head::Partial,
        Err(_) => return Head::Bad("its head is no HTTP/1"),
    };
    let (Some(status), Some(version)) = (response.code, response.version) else {
        return Head::Bad("it has no status");
    };
    let mut framing = Framing::UntilClose;
    let mut keep_alive = version == 1;
    for header in response.headers.iter() {
        let value = header.value.trim_ascii();
        if header.name.eq_ignore_ascii_case("content-length") && framing != Framing::Chunked {
            let length = std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse().ok());
            match (length, framing) {
                (Some(length), Framing::UntilClose) => framing = Framing::Length(length),
                (Some(length), Framing::Length(before)) if before == length => {}
                _ => return Head::Bad("its Content-Length is none"),
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Head::Bad("its Transfer-Encoding is not chunked");
            }
            framing = Framing::Chunked;
        } else if header.name.eq_ignore_ascii_case("connection") {
            let has = |word: &[u8]| {
                value
                    .split(|&byte| byte == b',')
                    .any(|part| part.trim_ascii().eq_ignore_ascii_case(word))
            };
            keep_alive = !has(b"close") && (keep_alive || has(b"keep-alive"));
        }
    }
    if matches!(status, 100..=199 | 204 | 304) {
        framing = Framing::Length(0);
    }
    keep_alive &= framing != Framing::UntilClose;
    Head::Whole {
        used,
        status,
        framing,
        keep_alive,
    }
}

/// Takes a chunked body apart: RFC 9112, 7.1.
#[derive(Debug, Default)]
pub struct Chunks {
    /// The bytes of a line that isn't whole.
    line: Vec<u8>,
    state: ChunkState,
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
    /// This is no chunk.
    Bad,
}

impl Chunks {
    /// Looks at the input from `at` on.
    pub fn next(&mut self, input: &[u8], mut at: usize) -> Chunk {
        loop {
            if let ChunkState::Data(left) = self.state {
                if at == input.len() {
                    return Chunk::NeedMore;
                }
                let count = left.min((input.len() - at) as u64);
                self.state = match left - count {
                    0 => ChunkState::DataEnd,
                    left => ChunkState::Data(left),
                };
                // It is at most the input's length.
                return Chunk::Data(at..at + count as usize);
            }
            let Some(end) = input[at..].iter().position(|&byte| byte == b'\n') else {
                self.line.extend_from_slice(&input[at..]);
                let fits = self.line.len() <= SOAK_HEAD_BYTES_MAX;
                return if fits { Chunk::NeedMore } else { Chunk::Bad };
            };
            self.line.extend_from_slice(&input[at..=at + end]);
            at += end + 1;
            let line = std::mem::take(&mut self.line);
            let is_empty = matches!(&line[..], b"\r\n" | b"\n");
            let has_size = line.first().is_some_and(u8::is_ascii_hexdigit);
            self.state = match self.state {
                // httparse takes a line without a digit for zero.
                ChunkState::Size if !has_size => return Chunk::Bad,
                ChunkState::Size => match httparse::parse_chunk_size(&line) {
                    Ok(httparse::Status::Complete((_, 0))) => ChunkState::Trailer,
                    Ok(httparse::Status::Complete((_, size))) => ChunkState::Data(size),
                    _ => return Chunk::Bad,
                },
                ChunkState::DataEnd if is_empty => ChunkState::Size,
                ChunkState::Trailer if is_empty => return Chunk::End(at),
                ChunkState::Trailer => ChunkState::Trailer,
                ChunkState::DataEnd | ChunkState::Data(_) => return Chunk::Bad,
            };
        }
    }
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
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        ] {
            assert!(matches!(parse_head(bad.as_bytes()), Head::Bad(_)), "{bad}");
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
                        Chunk::Bad => unreachable!("it is well-formed"),
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
            assert_eq!(next, Chunk::Bad);
        }
    }
}
