//! What a folder's listing lists: entries, their order, and how numbers, paths and times are written.

use std::cmp::Ordering;
use std::time::SystemTime;

use jiff::civil::date;

use crate::http::date::whole_second;

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
    /// The name, as people order them.
    #[default]
    Name,
    /// The length.
    Size,
    /// The time of the last change.
    Time,
}

impl Key {
    pub(super) const ALL: [Self; 3] = [Self::Name, Self::Size, Self::Time];

    pub(super) fn word(self) -> &'static str {
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
    pub(super) fn query(self) -> String {
        format!("?sort={}&order={}", self.key.word(), self.order())
    }

    /// The word for its direction.
    pub(super) fn order(self) -> &'static str {
        if self.is_descending { "desc" } else { "asc" }
    }

    fn compare(self, a: &Entry, b: &Entry) -> Ordering {
        let by_key = match self.key {
            Key::Name => by_name(a, b),
            Key::Size if a.kind == Kind::Folder => Ordering::Equal,
            Key::Size => a.size.cmp(&b.size),
            Key::Time => a.mtime.cmp(&b.mtime),
        };
        let by_key = if self.is_descending {
            by_key.reverse()
        } else {
            by_key
        };
        a.kind.cmp(&b.kind).then(by_key).then_with(|| by_name(a, b))
    }
}

pub(super) fn by_name(a: &Entry, b: &Entry) -> Ordering {
    natural(&a.name, &b.name).then_with(|| a.name.cmp(&b.name))
}

/// As people order names: capitals and small letters are alike, and a number counts as a number, so
/// that `d2` stands before `d10`.
fn natural(mut a: &[u8], mut b: &[u8]) -> Ordering {
    while let (Some(&x), Some(&y)) = (a.first(), b.first()) {
        let order = if x.is_ascii_digit() && y.is_ascii_digit() {
            let (x, y) = (take_number(&mut a), take_number(&mut b));
            x.len().cmp(&y.len()).then_with(|| x.cmp(y))
        } else {
            (a, b) = (&a[1..], &b[1..]);
            x.to_ascii_lowercase().cmp(&y.to_ascii_lowercase())
        };
        if order.is_ne() {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

/// The digits in front without leading zeros. They are taken off.
fn take_number<'n>(name: &mut &'n [u8]) -> &'n [u8] {
    let end = name.iter().position(|byte| !byte.is_ascii_digit());
    let (digits, rest) = name.split_at(end.unwrap_or(name.len()));
    *name = rest;
    let zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
    &digits[zeros..]
}

/// What there is in a folder, whether it is shown or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) folders: usize,
    pub(super) files: usize,
    /// How long the files are in all.
    pub(super) bytes: u64,
    /// How many are shown: the first ones in the order asked for.
    pub(super) shown: usize,
}

impl Summary {
    pub(super) fn total(self) -> usize {
        self.folders + self.files
    }

    pub(super) fn is_cut(self) -> bool {
        self.shown < self.total()
    }
}

/// A folder's entries as they are read, in any order. All are counted; those are kept that come
/// first in the order asked for.
#[derive(Debug)]
pub struct Entries {
    pub(super) sort: Sort,
    shown_max: usize,
    pub(super) kept: Vec<Entry>,
    /// What the names of those that are kept take.
    name_bytes: usize,
    pub(super) summary: Summary,
}

impl Entries {
    /// None yet, for a listing that shows at most so many.
    #[must_use]
    pub fn new(sort: Sort, shown_max: usize) -> Self {
        Self {
            sort,
            shown_max,
            kept: Vec::new(),
            name_bytes: 0,
            summary: Summary::default(),
        }
    }

    /// Adds one.
    pub fn push(&mut self, entry: Entry) {
        match entry.kind {
            Kind::Folder => self.summary.folders += 1,
            Kind::File => {
                self.summary.files += 1;
                self.summary.bytes = self.summary.bytes.saturating_add(entry.size);
            }
        }
        self.name_bytes += entry.name.capacity();
        self.kept.push(entry);
        // One sort for as many entries as are shown: a large folder's don't pile up.
        if self.kept.len() > 2 * self.shown_max {
            self.sort();
        }
    }

    /// The memory that they take, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.kept.capacity() * size_of::<Entry>() + self.name_bytes
    }

    /// How many there are, and how many of them a listing shows.
    #[must_use]
    pub fn total_and_shown(&self) -> (usize, usize) {
        let total = self.summary.total();
        (total, total.min(self.shown_max))
    }

    pub(super) fn sort(&mut self) {
        let sort = self.sort;
        self.kept.sort_unstable_by(|a, b| sort.compare(a, b));
        self.kept.truncate(self.shown_max);
        self.name_bytes = self.kept.iter().map(|entry| entry.name.capacity()).sum();
        self.summary.shown = self.kept.len();
    }
}

/// A number with a comma between its thousands.
pub(super) fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// That a listing is cut, in words.
pub(super) fn cut_note(summary: Summary) -> Option<String> {
    let commas = |count: usize| with_commas(count as u64);
    summary.is_cut().then(|| {
        let (shown, total) = (commas(summary.shown), commas(summary.total()));
        format!("These are the first {shown} of {total} entries, in this order.")
    })
}

/// The components of a path, from the root on.
pub(super) fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/')
        .filter(|part| !part.is_empty())
}

/// A time as RFC 3339 writes it, in UTC, if four digits are enough for its year.
pub(super) fn timestamp(time: SystemTime) -> Option<String> {
    let time = whole_second(time)?;
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    // jiff's `Timestamp` ends a day before the year 9999 does.
    let time = date(1970, 1, 1).at(0, 0, 0, 0).checked_add(since).ok()?;
    Some(format!("{time}Z"))
}
