//! A folder's listing as one page: no script, no picture, nothing to load.

use maud::{Markup, PreEscaped, Render, html};

use super::entries::{
    Entry, Key, Kind, Sort, Summary, components, cut_note, timestamp, with_commas,
};
use crate::escape::EscapedText;
use crate::http::page;
use crate::http::target::encode_segment;
use crate::units::bytes;

/// A name: what isn't UTF-8 is replaced, controls are shown as such, and maud escapes what HTML
/// takes for its own.
struct Name<'a>(&'a [u8]);

impl Render for Name<'_> {
    fn render_to(&self, buffer: &mut String) {
        let text = String::from_utf8_lossy(self.0);
        maud::display(EscapedText(&text)).render_to(buffer);
    }
}

/// Everything up to the first entry.
pub fn head(top: &[u8], folder: &[u8], sort: Sort, summary: Summary, out: &mut Vec<u8>) {
    let page = html! {
        (page::head(&html! { "Index of " (Name(folder)) }))
        header {
            nav aria-label="Path" { (breadcrumbs(top, folder, sort)) }
            @if let Some(words) = in_words(summary) { p { (words) } (as_tar()) }
            @if let Some(note) = cut_note(summary) { p class="note" { (note) } }
        }
        (PreEscaped("<table><thead>"))
        tr { @for key in Key::ALL { (column(key, sort)) } }
        (PreEscaped("</thead>\n<tbody>"))
        @if components(folder).next().is_some() {
            tr class="up" {
                td class="name" { a class="folder" href={ "../" (kept(sort)) } { ".." } }
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
                    span title=(in_bytes(entry.size)) { (bytes(entry.size)) }
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
        @if summary.total() == 0 { p class="empty" { "This folder is empty." } }
        (page::foot())
    };
    out.extend_from_slice(page.into_string().as_bytes());
}

/// The button that brings all of it in one piece. It is no link, so that who follows links gets each file
/// once.
fn as_tar() -> Markup {
    html! {
        form class="tar" rel="nofollow" { button name="tar" { "as tar" } }
    }
}

/// A link for each folder on the way, and the name of this one. All are relative: a proxy may have
/// put a path in front of ours.
///
/// The space before the equals sign is HTML as any other, but keeps those who look for entries by a
/// pattern and not by a parser (fsspec) from taking the folders above for what is in this one.
fn breadcrumbs(top: &[u8], folder: &[u8], sort: Sort) -> Markup {
    let names: Vec<_> = std::iter::once(top).chain(components(folder)).collect();
    let last = names.len() - 1;
    let query = kept(sort).replace('&', "&amp;");
    html! {
        @for (at, name) in names.into_iter().enumerate() {
            @if at == last {
                span aria-current="page" { bdi { (Name(name)) } }
            } @else {
                (PreEscaped(format!("<a href =\"{}{query}\">", "../".repeat(last - at))))
                bdi { (Name(name)) }
                (PreEscaped("</a>"))
                span class="slash" { "/" }
            }
        }
    }
}

/// The query by which a link to a folder keeps the order.
fn kept(sort: Sort) -> String {
    if sort == Sort::default() {
        String::new()
    } else {
        sort.query()
    }
}

/// A column's title: a button that orders by it, or turns the order round. It is no link, so that
/// who follows links finds each folder once.
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
    let is_descending = if is_sorted {
        !sort.is_descending
    } else {
        // Who asks for times wants to see what is new.
        key == Key::Time
    };
    let order = Sort { key, is_descending }.order();
    html! {
        th class=(key.word()) scope="col" aria-sort=[aria] {
            form rel="nofollow" {
                (PreEscaped(format!("<input type=\"hidden\" name=\"order\" value=\"{order}\"/>")))
                button name="sort" value=(key.word()) {
                    (title) @if key == Key::Time { small { " UTC" } }
                }
            }
        }
    }
}

/// What there is; nothing of an empty folder.
fn in_words(summary: Summary) -> Option<String> {
    let count = |count: usize, word: &str| counted(count as u64, word);
    let folders = (summary.folders > 0).then(|| count(summary.folders, "folder"));
    let files = (summary.files > 0)
        .then(|| format!("{}, {}", count(summary.files, "file"), bytes(summary.bytes)));
    match (folders, files) {
        (Some(folders), Some(files)) => Some(format!("{folders}, {files}")),
        (one, other) => one.or(other),
    }
}

/// One thing, or several.
fn counted(count: u64, word: &str) -> String {
    match count {
        1 => format!("1 {word}"),
        _ => format!("{} {word}s", with_commas(count)),
    }
}

fn in_bytes(bytes: u64) -> String {
    counted(bytes, "byte")
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
