//! A folder's listing as JSON: an array, an object a line. Where it is cut, the last object says so.

use serde::Serialize;

use super::entries::{Entry, Kind, Summary, timestamp};
use crate::http::target::encode_segment;

#[derive(Serialize)]
struct Row<'a> {
    /// What isn't UTF-8 is replaced; `href` is exact.
    name: &'a str,
    href: String,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    mtime: Option<String>,
}

/// Stands behind the entries of a listing that doesn't show all.
#[derive(Serialize)]
struct Cut {
    #[serde(rename = "type")]
    kind: &'static str,
    shown: usize,
    total: usize,
}

pub fn head(out: &mut Vec<u8>) {
    out.extend_from_slice(b"[");
}

pub fn entry(entry: &Entry, is_first: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(if is_first { b"\n" } else { b",\n" });
    let (kind, slash, size) = match entry.kind {
        Kind::Folder => ("folder", "/", None),
        Kind::File => ("file", "", Some(entry.size)),
    };
    let row = Row {
        name: &String::from_utf8_lossy(&entry.name),
        href: encode_segment(&entry.name) + slash,
        kind,
        size,
        mtime: entry.mtime.and_then(timestamp),
    };
    serde_json::to_writer(out, &row).expect("memory takes all, and a row has no map");
}

pub fn foot(summary: Summary, out: &mut Vec<u8>) {
    if summary.is_cut() {
        let cut = Cut {
            kind: "cut",
            shown: summary.shown,
            total: summary.total(),
        };
        out.extend_from_slice(b",\n");
        serde_json::to_writer(&mut *out, &cut).expect("memory takes all, and it has no map");
    }
    out.extend_from_slice(b"\n]\n");
}
