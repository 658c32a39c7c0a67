//! Content-Disposition (RFC 6266): what a browser calls a body that it keeps.

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};

/// The line that has a body kept under this name. Of one that isn't ASCII the first form is for clients that
/// know no other; a name that isn't UTF-8 has no second one (RFC 8187, section 3.2.1).
#[must_use]
pub fn disposition(name: &[u8]) -> String {
    let is_plain = |&byte: &u8| matches!(byte, b' '..=b'~') && !b"\"\\%/".contains(&byte);
    let plain: String = String::from_utf8_lossy(name)
        .chars()
        .map(|c| match u8::try_from(c) {
            Ok(byte) if is_plain(&byte) => c,
            _ => '_',
        })
        .collect();
    let line = format!("Content-Disposition: attachment; filename=\"{plain}\"");
    if plain.as_bytes() == name || str::from_utf8(name).is_err() {
        return line + "\r\n";
    }
    let encoded = percent_encode(name, NON_ALPHANUMERIC);
    format!("{line}; filename*=UTF-8''{encoded}\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, expected) in [
            (&b"a b.tar"[..], "filename=\"a b.tar\""),
            (
                b"a\"b\\\r\nX: y%.tar",
                "filename=\"a_b___X: y_.tar\"; filename*=UTF-8''a%22b%5C%0D%0AX%3A%20y%25%2Etar",
            ),
            (
                "\u{6728}.tar".as_bytes(),
                "filename=\"_.tar\"; filename*=UTF-8''%E6%9C%A8%2Etar",
            ),
            (b"\xff.tar", "filename=\"_.tar\""),
        ] {
            let expected = format!("Content-Disposition: attachment; {expected}\r\n");
            assert_eq!(disposition(name), expected);
        }
    }
}
