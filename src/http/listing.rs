//! A folder's listing: as a page that works without a script, as JSON, and as a Gopher menu. It is
//! rendered in slices, so that a folder of ten thousand files holds up nobody.

use std::cmp::Ordering;
use std::time::SystemTime;
use std::vec;

use super::fields::trim;

mod gopher;
mod html;
mod json;

/// One file or folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name in the folder.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Its length in bytes; means nothing for a folder.
    pub size: u64,
    /// When its content changed last, if that is known.
    pub mtime: Option<SystemTime>,
}

/// What an entry is. Folders stand before files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A regular file.
    File,
}

/// How a listing is ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sort {
    /// By what.
    pub key: Key,
    /// Whether the largest comes first.
    pub is_descending: bool,
}

/// What a listing is ordered by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Key {
    /// The name, capitals and small letters alike.
    #[default]
    Name,
    /// The length.
    Size,
    /// The time of the last change.
    Time,
}

impl Key {
    const ALL: [Self; 3] = [Self::Name, Self::Size, Self::Time];

    fn word(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Size => "size",
            Self::Time => "time",
        }
    }
}

impl Sort {
    /// Reads `sort=name|size|time` and `order=asc|desc`; the last of each counts, and what is
    /// neither is ignored.
    #[must_use]
    pub fn from_query(query: Option<&[u8]>) -> Self {
        let mut sort = Self::default();
        for pair in query.unwrap_or_default().split(|&byte| byte == b'&') {
            match pair {
                b"order=asc" => sort.is_descending = false,
                b"order=desc" => sort.is_descending = true,
                _ => {
                    let word = pair.strip_prefix(b"sort=");
                    let key = Key::ALL
                        .into_iter()
                        .find(|key| word == Some(key.word().as_bytes()));
                    sort.key = key.unwrap_or(sort.key);
                }
            }
        }
        sort
    }

    /// The query that asks for this order.
    fn query(self) -> String {
        let order = if self.is_descending { "desc" } else { "asc" };
        format!("?sort={}&order={order}", self.key.word())
    }

    fn compare(self, a: &Entry, b: &Entry) -> Ordering {
        let by_key = match self.key {
            Key::Name => by_name(a, b),
            Key::Size if a.kind == Kind::Folder => Ordering::Equal,
            Key::Size => a.size.cmp(&b.size),
            Key::Time => a.mtime.cmp(&b.mtime),
        };
        let by_key = match self.is_descending {
            true => by_key.reverse(),
            false => by_key,
        };
        a.kind.cmp(&b.kind).then(by_key).then_with(|| by_name(a, b))
    }
}

fn by_name(a: &Entry, b: &Entry) -> Ordering {
    let alike = a
        .name
        .iter()
        .map(u8::to_ascii_lowercase)
        .cmp(b.name.iter().map(u8::to_ascii_lowercase));
    alike.then_with(|| a.name.cmp(&b.name))
}

/// What a listing is rendered as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// A page.
    Html,
    /// An array of objects.
    Json,
    /// A menu (RFC 1436), whose lines say where to connect.
    Gopher {
        /// The host by which the client reaches this server.
        host: String,
        /// The port.
        port: u16,
    },
}

impl Format {
    /// The Content-Type of what is rendered, where there is one.
    #[must_use]
    pub fn content_type(&self) -> &'static str {
        match self {
            Self::Html => "text/html; charset=utf-8",
            Self::Json => "application/json",
            Self::Gopher { .. } => "application/gopher-menu",
        }
    }
}

/// A listing that is being rendered.
#[derive(Debug)]
pub struct Renderer {
    format: Format,
    /// The folder's path from the root, decoded: a slash in front and at the end, none doubled.
    folder: Vec<u8>,
    sort: Sort,
    summary: Summary,
    entries: vec::IntoIter<Entry>,
    stage: Stage,
}

/// How many there are, and how long the files are in all.
#[derive(Clone, Copy, Debug, Default)]
struct Summary {
    folders: usize,
    files: usize,
    bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing is rendered.
    Head,
    /// The head is, and no entry.
    FirstEntry,
    /// An entry is.
    Entries,
    /// All is.
    Done,
}

impl Renderer {
    /// Begins a listing of a folder, whose path from the root is decoded.
    #[must_use]
    pub fn new(format: Format, folder: &[u8], sort: Sort, mut entries: Vec<Entry>) -> Self {
        entries.sort_unstable_by(|a, b| sort.compare(a, b));
        let mut summary = Summary::default();
        for entry in &entries {
            match entry.kind {
                Kind::Folder => summary.folders += 1,
                Kind::File => summary.files += 1,
            }
            if entry.kind == Kind::File {
                summary.bytes = summary.bytes.saturating_add(entry.size);
            }
        }
        let mut path = vec![b'/'];
        for component in components(folder) {
            path.extend_from_slice(component);
            path.push(b'/');
        }
        Self {
            format,
            folder: path,
            sort,
            summary,
            entries: entries.into_iter(),
            stage: Stage::Head,
        }
    }

    /// The next slice, with at most so many entries (and at least one, if there is one left);
    /// `None` when all is rendered.
    pub fn next_chunk(&mut self, entries_max: usize) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match self.stage {
            Stage::Done => return None,
            Stage::Head => {
                self.head(&mut out);
                self.stage = Stage::FirstEntry;
            }
            Stage::FirstEntry | Stage::Entries => {}
        }
        for _ in 0..entries_max.max(1) {
            let Some(entry) = self.entries.next() else {
                break;
            };
            self.entry(&entry, &mut out);
            self.stage = Stage::Entries;
        }
        if self.entries.len() == 0 {
            self.foot(&mut out);
            self.stage = Stage::Done;
        }
        Some(out)
    }

    fn head(&self, out: &mut Vec<u8>) {
        match &self.format {
            Format::Html => html::head(&self.folder, self.sort, self.summary, out),
            Format::Json => json::head(out),
            Format::Gopher { .. } => {}
        }
    }

    fn entry(&self, entry: &Entry, out: &mut Vec<u8>) {
        match &self.format {
            Format::Html => html::entry(entry, self.sort, out),
            Format::Json => json::entry(entry, self.stage == Stage::FirstEntry, out),
            Format::Gopher { host, port } => gopher::entry(entry, &self.folder, host, *port, out),
        }
    }

    fn foot(&self, out: &mut Vec<u8>) {
        match &self.format {
            Format::Html => html::foot(self.summary, out),
            Format::Json => json::foot(out),
            Format::Gopher { .. } => gopher::foot(out),
        }
    }
}

/// The components of a path, from the root on.
fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/')
        .filter(|part| !part.is_empty())
}

/// A time as RFC 3339 writes it, in UTC, if four digits are enough for its year.
fn timestamp(time: SystemTime) -> Option<String> {
    let time = super::date::whole_second(time)?;
    Some(humantime::format_rfc3339_seconds(time).to_string())
}

/// Whether an Accept field's value prefers JSON to a page (RFC 9110, section 12.5.1). JSON must be
/// named: what takes anything gets the page.
#[must_use]
pub fn accepts_json(accept: &[u8]) -> bool {
    let (mut json, mut html, mut any_text, mut any) = (None, None, None, None);
    for member in accept.split(|&byte| byte == b',') {
        let mut parts = member.split(|&byte| byte == b';').map(trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts.find_map(quality).unwrap_or(1000);
        match &name[..] {
            b"application/json" => json = Some(quality),
            b"text/html" => html = Some(quality),
            b"text/*" => any_text = Some(quality),
            b"*/*" => any = Some(quality),
            _ => {}
        }
    }
    let json = json.unwrap_or(0);
    match html {
        Some(html) => json > html,
        None => json > 0 && json >= any_text.or(any).unwrap_or(0),
    }
}

/// The thousandths of a weight (RFC 9110, section 12.4.2); a malformed one counts as none at all.
fn quality(parameter: &[u8]) -> Option<u32> {
    let [b'q' | b'Q', b'=', value @ ..] = parameter else {
        return None;
    };
    let text = std::str::from_utf8(value).ok()?;
    let quality = text.parse::<f32>().ok().filter(|q| (0.0..=1.0).contains(q));
    // It is between 0 and 1.
    Some(quality.map_or(0, |quality| (quality * 1000.0).round() as u32))
}

#[cfg(test)]
mod tests;
