//! Bytes from a peer, made fit for a log line or a terminal: one line stays one line, and nothing
//! in it can steer a terminal or reorder what a person reads.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use crate::limits::LOG_TEXT_BYTES_MAX;

/// Shows bytes as text. Valid UTF-8 passes; everything that could forge or hide something is
/// written as `\xHH`, byte by byte: C0 and DEL, C1, `"` and `\`, bidirectional controls, line and
/// paragraph separators, and bytes that are not UTF-8.
///
/// ```
/// use carafe::escape::Escaped;
/// assert_eq!(Escaped(b"a\n\x1b[2J").to_string(), r"a\x0a\x1b[2J");
/// assert_eq!(Escaped("接收".as_bytes()).to_string(), "接收");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_escaped(self.0, f, is_escaped)
    }
}

/// What could forge or hide something between quotes.
fn is_escaped(c: char) -> bool {
    is_unsafe(c) || matches!(c, '"' | '\\')
}

/// Shows the beginning of what a peer sent, escaped as [`Escaped`] does it. Whatever its length, what
/// is shown has a bound; `...` stands for the rest.
#[derive(Clone, Copy, Debug)]
pub struct Excerpt<'a> {
    /// All of it, if nothing in it is escaped.
    plain: Option<&'a str>,
    shown: &'a [u8],
    is_cut: bool,
}

impl<'a> Excerpt<'a> {
    /// At most `shown_max` bytes, after escaping.
    #[must_use]
    pub fn new(bytes: &'a [u8], shown_max: usize) -> Self {
        let fits = bytes.len() <= shown_max;
        let plain = fits.then(|| plain_text(bytes)).flatten();
        let shown = match plain {
            Some(_) => bytes,
            None => &bytes[..escaped_prefix(bytes, shown_max)],
        };
        Self {
            plain,
            shown,
            is_cut: shown.len() < bytes.len(),
        }
    }

    /// What a line on stderr shows of a request: its first line, never the fields that follow, for
    /// they hold passwords and cookies.
    #[must_use]
    pub fn of_request(bytes: &'a [u8]) -> Self {
        let is_text = |byte: &u8| !matches!(byte, b'\r' | b'\n');
        let begin = bytes.iter().position(is_text).unwrap_or(bytes.len());
        let bytes = &bytes[begin..];
        let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or(bytes);
        Self::new(line.strip_suffix(b"\r").unwrap_or(line), LOG_TEXT_BYTES_MAX)
    }

    /// The text, unescaped. Bytes that aren't UTF-8 are replaced.
    #[must_use]
    pub fn to_text(self) -> Cow<'a, str> {
        let text = String::from_utf8_lossy(self.shown);
        if self.is_cut { text + "..." } else { text }
    }

    /// Appends it as it is displayed.
    pub(crate) fn push_to(self, line: &mut String) {
        match self.plain {
            Some(text) => line.push_str(text),
            None => line.push_str(&self.to_string()),
        }
    }
}

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = self.plain {
            return f.write_str(text);
        }
        Escaped(self.shown).fmt(f)?;
        f.write_str(if self.is_cut { "..." } else { "" })
    }
}

/// How many bytes at the beginning take at most `shown_max` when they are escaped. No character is
/// cut in two.
fn escaped_prefix(bytes: &[u8], shown_max: usize) -> usize {
    let (mut taken, mut shown) = (0, 0);
    for chunk in bytes.utf8_chunks() {
        let valid = chunk.valid().chars().map(|c| {
            (
                c.len_utf8(),
                c.len_utf8() * if is_escaped(c) { 4 } else { 1 },
            )
        });
        for (length, width) in valid.chain(chunk.invalid().iter().map(|_| (1, 4))) {
            if shown + width > shown_max {
                return taken;
            }
            (taken, shown) = (taken + length, shown + width);
        }
    }
    taken
}

/// Shows a text that stands alone on its line, without quotes around it: as [`Escaped`], but
/// quotes and backslashes pass.
#[derive(Clone, Copy, Debug)]
pub struct EscapedText<'a>(pub &'a str);

impl fmt::Display for EscapedText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_escaped(self.0.as_bytes(), f, is_unsafe)
    }
}

fn write_escaped(
    bytes: &[u8],
    f: &mut fmt::Formatter<'_>,
    escapes: impl Fn(char) -> bool,
) -> fmt::Result {
    if let Some(text) = plain_text(bytes) {
        return f.write_str(text);
    }
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if escapes(c) {
                write_hex(c.encode_utf8(&mut [0; 4]).as_bytes(), f)?;
            } else {
                f.write_char(c)?;
            }
        }
        write_hex(chunk.invalid(), f)?;
    }
    Ok(())
}

/// ASCII in which nothing is escaped by anyone, as nearly everything is. It is looked at to its end, so that
/// a compiler may look at many bytes at a time.
fn plain_text(bytes: &[u8]) -> Option<&str> {
    let is_plain = |byte| matches!(byte, b' '..=b'~') & (byte != b'"') & (byte != b'\\');
    let are_plain = bytes.iter().fold(true, |all, &byte| all & is_plain(byte));
    if are_plain {
        std::str::from_utf8(bytes).ok()
    } else {
        None
    }
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))
}

/// Controls (C0, DEL, C1), the Unicode bidirectional controls of UAX 9, and the two separators
/// that some terminals and log readers take for a line's end.
pub(crate) fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forged_line_stays_one_line() {
        let forged = Escaped(b"a\n127.0.0.1 - - fake\x1b[2J\r").to_string();
        assert_eq!(forged, r"a\x0a127.0.0.1 - - fake\x1b[2J\x0d");
    }

    #[test]
    fn controls_quotes_and_bad_bytes_are_hex() {
        let cases: [(&[u8], &str); 7] = [
            (b"\x00\x7f", r"\x00\x7f"),
            (b"say \"hi\" \\", r"say \x22hi\x22 \x5c"),
            ("\u{9b}31m".as_bytes(), r"\xc2\x9b31m"),
            (b"\xff\xfe", r"\xff\xfe"),
            ("a\u{202e}txt.exe".as_bytes(), r"a\xe2\x80\xaetxt.exe"),
            ("\u{2028}\u{2066}".as_bytes(), r"\xe2\x80\xa8\xe2\x81\xa6"),
            ("n\u{303} 文 🍷".as_bytes(), "n\u{303} 文 🍷"),
        ];
        for (bytes, shown) in cases {
            assert_eq!(Escaped(bytes).to_string(), shown);
        }
    }

    #[test]
    fn an_excerpt_has_a_bound_after_escaping_and_cuts_no_character() {
        let cases: [(&[u8], &str); 6] = [
            (b"12345678", "12345678"),
            (b"123456789", "12345678..."),
            (b"\xff\xff", r"\xff\xff"),
            (b"\xff\xff\xff", r"\xff\xff..."),
            (b"123456\n8", "123456..."),
            ("1234567é".as_bytes(), "1234567..."),
        ];
        for (bytes, shown) in cases {
            assert_eq!(Excerpt::new(bytes, 8).to_string(), shown);
        }
        assert_eq!(
            Excerpt::new(b"\xff\xff\xff", 8).to_text(),
            "\u{fffd}\u{fffd}..."
        );
    }

    #[test]
    fn of_a_request_only_its_first_line_is_shown() {
        let head = b"\r\nGET /x HTTP/1.1\r\nAuthorization: Basic c2VjcmV0\r\n";
        assert_eq!(Excerpt::of_request(head).to_string(), "GET /x HTTP/1.1");
        assert_eq!(Excerpt::of_request(b" a ").to_string(), " a ");
        let long = Excerpt::of_request(&[0xff; 16_384]).to_string();
        assert_eq!(long.len(), LOG_TEXT_BYTES_MAX + "...".len());
    }

    #[test]
    fn a_text_keeps_its_quotes_but_no_control() {
        assert_eq!(
            EscapedText("\"a\\b\"\x07\u{202e}").to_string(),
            "\"a\\b\"\\x07\\xe2\\x80\\xae"
        );
    }
}
