//! The name that a remote file gets here.

use crate::escape::is_unsafe;
use crate::limits;

/// Goes before the name of what came over the bare protocol, as the tutorial's client does.
const RECEIVED: &[u8] = "[接收]".as_bytes();

/// A file's name that steers no terminal and is one line: controls, and what reorders text, become
/// `%HH`, as in wget. A lone byte that an old terminal takes for a control does, too.
pub(super) fn escaped(name: &[u8]) -> Vec<u8> {
    let mut safe = Vec::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            let mut utf8 = [0; 4];
            put(&mut safe, c.encode_utf8(&mut utf8).as_bytes(), is_unsafe(c));
        }
        for byte in chunk.invalid() {
            put(&mut safe, &[*byte], (0x80..0xa0).contains(byte));
        }
    }
    safe
}

fn put(safe: &mut Vec<u8>, bytes: &[u8], escapes: bool) {
    if !escapes {
        return safe.extend_from_slice(bytes);
    }
    for byte in bytes {
        safe.extend_from_slice(format!("%{byte:02X}").as_bytes());
    }
}

/// The name with that prefix, unless both together are too long.
pub(super) fn received(name: Vec<u8>) -> Vec<u8> {
    if RECEIVED.len() + name.len() > limits::FILE_NAME_BYTES_MAX {
        return name;
    }
    [RECEIVED, &name].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_escaped_and_nothing_else() {
        for (name, expected) in [
            (&b"a b%20\"'\\~"[..], &b"a b%20\"'\\~"[..]),
            ("木 é".as_bytes(), "木 é".as_bytes()),
            (b"\x1b[2J\n\r\t\x7f", b"%1B[2J%0A%0D%09%7F"),
            ("a\u{202e}b\u{9b}".as_bytes(), b"a%E2%80%AEb%C2%9B"),
            (b"\xff\x9b\xa0", b"\xff%9B\xa0"),
        ] {
            assert_eq!(escaped(name), expected, "{name:?}");
        }
    }

    #[test]
    fn a_prefix_that_makes_a_name_too_long_is_left_out() {
        for (count, expected) in [(1, 9), (247, 255), (248, 248), (255, 255)] {
            assert_eq!(received(vec![b'n'; count]).len(), expected);
        }
    }
}
