//! A folder's listing as a Gopher menu (RFC 1436, section 3.4).

use std::io::Write as _;

use super::entries::{Entry, Kind, Summary, cut_note};
use crate::escape::EscapedText;
use crate::http::mime::ContentTypes;
use crate::limits::NAME_BYTES_MAX;

/// Adds a line. A name that no selector can hold, that would steer a terminal, or that would be too
/// long to be asked for, has none.
pub fn entry(entry: &Entry, folder: &[u8], host: &str, port: u16, plus: bool, out: &mut Vec<u8>) {
    let name = &entry.name;
    let slash = match entry.kind {
        Kind::Folder => &b"/"[..],
        Kind::File => b"",
    };
    let selector = [folder, name, slash].concat();
    // C1 controls steer terminals, too.
    let has_control = String::from_utf8_lossy(&selector).contains(char::is_control);
    if selector.len() > NAME_BYTES_MAX || has_control {
        return;
    }
    let shown = String::from_utf8_lossy(name);
    line(item_type(entry), &shown, &selector, host, port, plus, out);
}

fn line(
    kind: u8,
    shown: &str,
    selector: &[u8],
    host: &str,
    port: u16,
    plus: bool,
    out: &mut Vec<u8>,
) {
    if plus {
        out.extend_from_slice(b"+INFO: ");
    }
    out.push(kind);
    // Writing to memory doesn't fail.
    let _ = write!(out, "{}\t", EscapedText(shown));
    out.extend_from_slice(selector);
    let host: String = host.chars().filter(|c| !c.is_control()).collect();
    let _ = write!(out, "\t{host}\t{port}\r\n");
}

/// What a menu for Gopher+ begins with: it goes well, and ends with a dot on a line.
pub fn head(plus: bool, out: &mut Vec<u8>) {
    if plus {
        out.extend_from_slice(b"+-1\r\n");
    }
}

/// RFC 1436, section 3.8, and the letters that clients agree on beyond it.
fn item_type(entry: &Entry) -> u8 {
    if entry.kind == Kind::Folder {
        return b'1';
    }
    let content_type = ContentTypes::default().of(&entry.name);
    match content_type.split(['/', ';']).collect::<Vec<_>>()[..] {
        ["text", "html", ..] => b'h',
        ["text", ..] => b'0',
        ["image", "gif", ..] => b'g',
        ["image", ..] => b'I',
        ["audio", ..] => b's',
        _ => b'9',
    }
}

/// The menu's end. A line of text, which clients agree on beyond RFC 1436, says if it is cut.
pub fn foot(summary: Summary, host: &str, port: u16, plus: bool, out: &mut Vec<u8>) {
    if let Some(note) = cut_note(summary) {
        line(b'i', &note, b"", host, port, plus, out);
    }
    out.extend_from_slice(b".\r\n");
}
