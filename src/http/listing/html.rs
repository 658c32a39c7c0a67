//! A folder's listing as one page: no script, no picture, nothing to load.

use maud::{Markup, PreEscaped, Render, html};

use super::{Entry, Key, Kind, Sort, Summary, components, timestamp};
use crate::escape::EscapedText;
use crate::http::target::{encode_path, encode_segment};

/// What stands before the title. Elements are closed as in XML, so that tests can read the page
/// strictly; the policy keeps a browser from running or loading anything, whatever a name holds.
/// The empty icon keeps it from asking for one.
const HEAD: &str = concat!(
    r#"<meta charset="utf-8"/>"#,
    r#"<meta name="viewport" content="width=device-width, initial-scale=1"/>"#,
    r#"<meta http-equiv="Content-Security-Policy" "#,
    r#"content="default-src 'none'; img-src data:; style-src 'unsafe-inline'"/>"#,
    r#"<link rel="icon" href="data:,"/>"#,
    "<style>",
    include_str!("page.css"),
    "</style>",
);

/// A name: what isn't UTF-8 is replaced, controls are shown as such, and maud escapes what HTML
/// takes for its own.
struct Name<'a>(&'a [u8]);

impl Render for Name<'_> {
    fn render_to(&self, buffer: &mut String) {
        let text = String::from_utf8_lossy(self.0);
        EscapedText(&text).to_string().render_to(buffer);
    }
}

/// Everything up to the first entry.
pub fn head(folder: &[u8], sort: Sort, summary: Summary, out: &mut Vec<u8>) {
    let page = html! {
        (PreEscaped("<!DOCTYPE html>\n<html lang=\"en\"><head>"))
        (PreEscaped(HEAD))
        title { "Index of " (Name(folder)) }
        (PreEscaped("</head>\n<body>"))
        header {
            nav aria-label="Path" { (breadcrumbs(folder, sort)) }
            @if let Some(words) = in_words(summary) { p { (words) } }
        }
        (PreEscaped("<table><thead>"))
        tr { @for key in Key::ALL { (column(key, sort)) } }
        (PreEscaped("</thead>\n<tbody>"))
        @if let Some(parent) = parent(folder) {
            tr class="up" {
                td class="name" { a class="folder" href={ (encode_path(parent)) (kept(sort)) } { ".." } }
            }
        }
    };
    out.extend_from_slice(page.into_string().as_bytes());
}

/// A row.
pub fn entry(entry: &Entry, sort: Sort, out: &mut Vec<u8>) {
    let href = encode_segment(&entry.name);
    let row = html! {
        (PreEscaped("\n"))
        tr {
            td class="name" {
                @match entry.kind {
                    Kind::Folder => a class="folder" href={ (href) "/" (kept(sort)) } {
                        bdi { (Name(&entry.name)) } "/"
                    },
                    Kind::File => a class="file" href=(href) { bdi { (Name(&entry.name)) } },
                }
            }
            td class="size" {
                @if entry.kind == Kind::File {
                    span title={ (entry.size) " bytes" } { (size(entry.size)) }
                }
            }
            td class="time" { (time(entry)) }
        }
    };
    out.extend_from_slice(row.into_string().as_bytes());
}

/// Everything after the last entry.
pub fn foot(summary: Summary, out: &mut Vec<u8>) {
    let page = html! {
        (PreEscaped("\n</tbody></table>"))
        @if summary.folders + summary.files == 0 { p class="empty" { "This folder is empty." } }
        footer { "carafe " (env!("CARGO_PKG_VERSION")) }
        (PreEscaped("</body></html>\n"))
    };
    out.extend_from_slice(page.into_string().as_bytes());
}

/// A link for each folder on the way, and the name of this one.
fn breadcrumbs(folder: &[u8], sort: Sort) -> Markup {
    let mut paths = vec![(&b"root"[..], b"/".to_vec())];
    for component in components(folder) {
        let (_, above) = &paths[paths.len() - 1];
        paths.push((component, [above, component, b"/"].concat()));
    }
    let last = paths.len() - 1;
    html! {
        @for (at, (name, path)) in paths.iter().enumerate() {
            @if at == last {
                span aria-current="page" { bdi { (Name(name)) } }
            } @else {
                a href={ (encode_path(path)) (kept(sort)) } { bdi { (Name(name)) } }
                span class="slash" { "/" }
            }
        }
    }
}

/// The folder above; the root has none.
fn parent(folder: &[u8]) -> Option<&[u8]> {
    let folder = folder.strip_suffix(b"/")?;
    let slash = folder.iter().rposition(|&byte| byte == b'/')?;
    Some(&folder[..=slash])
}

/// The query by which a link to a folder keeps the order.
fn kept(sort: Sort) -> String {
    match sort == Sort::default() {
        true => String::new(),
        false => sort.query(),
    }
}

/// A column's title: a link that orders by it, or turns the order round.
fn column(key: Key, sort: Sort) -> Markup {
    let is_sorted = key == sort.key;
    let title = match key {
        Key::Name => "Name",
        Key::Size => "Size",
        Key::Time => "Modified",
    };
    let aria = match (is_sorted, sort.is_descending) {
        (false, _) => None,
        (true, false) => Some("ascending"),
        (true, true) => Some("descending"),
    };
    let next = Sort {
        key,
        is_descending: is_sorted && !sort.is_descending,
    };
    html! {
        th class=(key.word()) scope="col" aria-sort=[aria] {
            a href=(next.query()) { (title) @if key == Key::Time { small { " UTC" } } }
        }
    }
}

/// What there is; nothing of an empty folder.
fn in_words(summary: Summary) -> Option<String> {
    let count = |count: usize, word: &str| match count {
        1 => format!("1 {word}"),
        _ => format!("{count} {word}s"),
    };
    let folders = (summary.folders > 0).then(|| count(summary.folders, "folder"));
    let files = (summary.files > 0)
        .then(|| format!("{}, {}", count(summary.files, "file"), size(summary.bytes)));
    match (folders, files) {
        (Some(folders), Some(files)) => Some(format!("{folders}, {files}")),
        (one, other) => one.or(other),
    }
}

/// A length in powers of 1024.
fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}

fn time(entry: &Entry) -> Markup {
    let stamp = entry.mtime.and_then(timestamp);
    // RFC 3339 has the date in ten characters, a T, and the minutes in five.
    let parts = stamp
        .as_ref()
        .and_then(|stamp| Some((stamp, stamp.get(..10)?, stamp.get(11..16)?)));
    html! {
        @if let Some((stamp, day, minute)) = parts {
            time datetime=(stamp) { (day) " " (minute) }
        }
    }
}
