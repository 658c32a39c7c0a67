//! Bytes from a peer, made fit for a log line or a terminal: one line stays one line, and nothing
//! in it can steer a terminal or reorder what a person reads.

use std::fmt::{self, Write as _};

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
        write_escaped(self.0, f, |c| is_unsafe(c) || matches!(c, '"' | '\\'))
    }
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
    fn a_text_keeps_its_quotes_but_no_control() {
        assert_eq!(
            EscapedText("\"a\\b\"\x07\u{202e}").to_string(),
            "\"a\\b\"\\x07\\xe2\\x80\\xae"
        );
    }
}
