//! The header fields of a request, as they came.

use httparse::{Error, Header, Status};

/// A name and its value; at first neither.
pub type Field<'a> = Header<'a>;

/// What a table of fields begins with.
pub const NO_FIELD: Field<'_> = httparse::EMPTY_HEADER;

/// Header fields in the order received. Names are compared without regard to case (RFC 9110,
/// section 5.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields<'a> {
    fields: &'a [Field<'a>],
    /// A bit for each letter with which a name begins: most of those that are asked for aren't there.
    initials: u32,
}

impl<'a> Fields<'a> {
    /// Reads lines up to an empty one into a table. Returns how many bytes they take with it. `None`: more
    /// may follow.
    ///
    /// # Errors
    /// A line is no field (RFC 9112, section 5), or there are more than the table has room for.
    pub(super) fn parse<'b: 'a>(
        lines: &'b [u8],
        table: &'a mut [Field<'b>],
    ) -> Result<Option<(usize, Self)>, Error> {
        Ok(match httparse::parse_headers(lines, table)? {
            Status::Complete((used, fields)) => Some((used, Self::new(fields))),
            Status::Partial => None,
        })
    }

    fn new(fields: &'a [Field<'a>]) -> Self {
        let initials = fields.iter().map(|field| initial(field.name));
        let initials = initials.fold(0, |all, one| all | one);
        Self { fields, initials }
    }

    /// The values of a name, a line each.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let fields = match self.initials & initial(name) {
            0 => &[],
            _ => self.fields,
        };
        fields
            .iter()
            .filter(move |field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value)
    }

    /// Whether the name is there at all.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// Whether any field asks for something else than the whole of what is there: a condition or a
    /// range (RFC 9110, sections 13.1 and 14.2).
    #[must_use]
    pub fn has_condition_or_range(&self) -> bool {
        let begins = |name: &str, with: &[u8]| {
            let begin = name.as_bytes().get(..with.len());
            begin.is_some_and(|begin| begin.eq_ignore_ascii_case(with))
        };
        if self.initials & (initial("if-") | initial("range")) == 0 {
            return false;
        }
        let mut names = self.fields.iter().map(|field| field.name);
        names.any(|name| begins(name, b"if-") || begins(name, b"range"))
    }

    /// The first line's value.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// The value of a field that may stand only once: nothing if it stands more often (RFC 9110,
    /// section 5.3).
    #[must_use]
    pub fn only(&self, name: &str) -> Option<&'a [u8]> {
        let mut values = self.all(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// The members of a list without quoted strings, over all lines; empty ones are dropped
    /// (RFC 9110, section 5.6.1.2).
    pub fn members(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.all(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(trim)
            .filter(|member| !member.is_empty())
    }
}

#[cfg(test)]
impl<'a> FromIterator<(&'a str, &'a [u8])> for Fields<'a> {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a [u8])>>(fields: I) -> Self {
        let fields = fields.into_iter();
        let fields: Vec<_> = fields.map(|(name, value)| Header { name, value }).collect();
        Self::new(fields.leak())
    }
}

/// The bit of a name's first byte. Small and capital letters have the same, and that is not only theirs.
fn initial(name: &str) -> u32 {
    name.as_bytes()
        .first()
        .map_or(0, |&byte| 1 << (byte & 0x1f))
}

/// How many bytes in front are all such, where a few comparisons tell it: compilers look at eight as quickly
/// as at one.
#[inline]
pub(super) fn count_leading(bytes: &[u8], is_such: impl Fn(u8) -> bool) -> usize {
    let (blocks, _) = bytes.as_chunks::<8>();
    let is_all = |block: &&[u8; 8]| block.iter().fold(true, |all, &byte| all & is_such(byte));
    let begin = 8 * blocks.iter().take_while(is_all).count();
    let rest = bytes[begin..].iter().position(|&byte| !is_such(byte));
    rest.map_or(bytes.len(), |at| begin + at)
}

/// Cuts bytes behind a token, which may be empty (RFC 9110, section 5.6.2).
pub(super) fn split_token(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|&byte| !is_in_token(byte));
    bytes.split_at(end.unwrap_or(bytes.len()))
}

/// Cuts optional whitespace: spaces and tabs (RFC 9110, section 5.6.3).
#[must_use]
pub fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Whether a field's value may have this byte (RFC 9110, section 5.5).
#[must_use]
pub(super) fn is_in_value(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=0x7e | 0x80..)
}

/// Whether these bytes are a token (RFC 9110, section 5.6.2).
#[must_use]
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_in_token(byte))
}

/// Whether a token may have this byte.
fn is_in_token(byte: u8) -> bool {
    const TCHARS: [bool; 256] = letters_digits_and(b"!#$%&'*+-.^_`|~");
    TCHARS[usize::from(byte)]
}

/// Which bytes are ASCII letters, digits or one of `others`: to look one up takes one instruction.
pub(super) const fn letters_digits_and(others: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = u8::MAX;
    while byte > 0 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte -= 1;
    }
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_and_ranges_are_seen() {
        let has =
            |name| Fields::from_iter([("Host", &b"h"[..]), (name, b"x")]).has_condition_or_range();
        for name in [
            "Range",
            "range",
            "If-Range",
            "if-none-match",
            "IF-MODIFIED-SINCE",
        ] {
            assert!(has(name), "{name}");
        }
        for name in ["Accept", "I", "If", "Rang", "Accept-Ranges"] {
            assert!(!has(name), "{name}");
        }
    }

    #[test]
    fn lines_and_members() {
        let lines: [(&str, &[u8]); 4] = [
            ("Connection", b"close"),
            ("Accept", b" a ,, b\t,"),
            ("accept", b"c"),
            ("Empty", b""),
        ];
        let fields: Fields<'_> = lines.into_iter().collect();
        assert_eq!(fields.only("connection"), Some(&b"close"[..]));
        assert_eq!(fields.only("accept"), None);
        assert_eq!(fields.only("none"), None);
        assert_eq!(fields.first("ACCEPT"), Some(&b" a ,, b\t,"[..]));
        assert!(fields.has("empty") && !fields.has("none"));
        let members: Vec<_> = fields.members("Accept").collect();
        assert_eq!(members, [b"a", b"b", b"c"]);
        assert_eq!(fields.members("empty").count(), 0);
    }

    #[test]
    fn tokens() {
        assert!(is_token(b"GET") && is_token(b"x-!#$%&'*+.^_`|~9"));
        for other in [
            &b""[..],
            b"a b",
            b"a/b",
            b"a:",
            b"\"",
            b"\xe9",
            b"a\0",
            b"(",
        ] {
            assert!(!is_token(other), "{other:?}");
        }
    }
}
