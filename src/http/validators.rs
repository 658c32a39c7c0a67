//! Validators of a file, and what a request's conditions make of them (RFC 9110, sections 8.8
//! and 13).

use std::time::SystemTime;

use super::date;
use super::fields::{Fields, trim};
use super::method::Method;
use crate::file::version::{Facts, Trust};
use crate::http::entity_tag::TagKey;

/// What tells versions of a file apart. None is ever that of two versions: each is missing while a
/// later version could have the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validators {
    /// The entity tag's text, without quotes. It is strong (RFC 9110, section 8.8.1).
    tag: Option<String>,
    /// The second of the file's last change.
    changed: Option<SystemTime>,
    last_modified: Option<SystemTime>,
    /// When they were looked at.
    now: SystemTime,
}

impl Validators {
    /// Made of what is known of a file (RFC 9110, sections 8.8.2 and 8.8.3).
    ///
    /// The date is that of the file's last change of any kind, ctime. The time of its bytes, mtime, is
    /// set by whoever unpacks, copies or synchronises files; several versions may have the same one.
    #[must_use]
    pub fn new(facts: &Facts, key: &TagKey, now: SystemTime) -> Self {
        let changed = date::from_stat(facts.changed).and_then(date::whole_second);
        Self {
            tag: (facts.trust >= Trust::Stamp).then(|| key.tag(facts)),
            changed,
            // Never later than the answer's Date (RFC 9110, section 8.8.2.1).
            last_modified: changed.filter(|&at| facts.trust == Trust::Second && at <= now),
            now,
        }
    }

    /// The same with another tag, or without one.
    #[must_use]
    pub fn with_tag(self, tag: Option<String>) -> Self {
        Self { tag, ..self }
    }

    /// An entity tag alone, if there is one.
    #[must_use]
    pub fn of_tag(tag: Option<String>, now: SystemTime) -> Self {
        Self {
            tag,
            changed: None,
            last_modified: None,
            now,
        }
    }

    /// The ETag field's value.
    #[must_use]
    pub fn etag(&self) -> Option<String> {
        self.tag.as_ref().map(|tag| format!("\"{tag}\""))
    }

    /// The Last-Modified field's value; a time that HTTP can't write has none.
    #[must_use]
    pub fn last_modified(&self) -> Option<String> {
        self.last_modified.and_then(date::format)
    }

    /// Whether both are there: as long as the version is the same, they stay as they are.
    #[must_use]
    pub fn are_final(&self) -> bool {
        self.tag.is_some() && self.last_modified.is_some()
    }

    /// The weak comparison of RFC 9110, section 8.8.3.2.
    fn matches_weakly(&self, tag: &Tag<'_>) -> bool {
        self.tag
            .as_ref()
            .is_some_and(|own| tag.opaque == own.as_bytes())
    }

    /// The strong one.
    fn matches_strongly(&self, tag: &Tag<'_>) -> bool {
        !tag.is_weak && self.matches_weakly(tag)
    }

    /// Whether a date is the one that this version is known by. A later one isn't: a folder that is
    /// swapped for another brings files that were last changed before those that were there.
    fn has_date(&self, date: Option<SystemTime>) -> bool {
        date.is_some() && date == self.last_modified
    }
}

/// What the conditions say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evaluation {
    /// Do what the method asks for.
    Proceed {
        /// The request has a Range field, and it counts.
        range: bool,
    },
    /// 304.
    NotModified,
    /// 412.
    PreconditionFailed,
}

/// Evaluates the conditions of a request for a file that exists and would be answered with 200, in
/// the order of RFC 9110, section 13.2.2. Methods other than GET and HEAD have none (section
/// 13.2.1).
#[must_use]
pub fn evaluate(method: Method, fields: &Fields<'_>, validators: &Validators) -> Evaluation {
    if !matches!(method, Method::Get | Method::Head) {
        return Evaluation::Proceed { range: false };
    }
    let date_of = |name| {
        fields
            .only(name)
            .and_then(|date| date::parse(date, validators.now))
    };
    let mut is_this_version = true;
    // Steps 1 and 2.
    if fields.has("if-match") {
        if !any_tag(fields, "if-match", |tag| validators.matches_strongly(tag)) {
            return Evaluation::PreconditionFailed;
        }
    } else if let Some(limit) = date_of("if-unmodified-since") {
        if validators.changed.is_some_and(|changed| changed > limit) {
            return Evaluation::PreconditionFailed;
        }
        is_this_version = validators.has_date(Some(limit));
    }
    // Steps 3 and 4.
    if fields.has("if-none-match") {
        if any_tag(fields, "if-none-match", |tag| {
            validators.matches_weakly(tag)
        }) {
            return Evaluation::NotModified;
        }
    } else if validators.has_date(date_of("if-modified-since")) {
        return Evaluation::NotModified;
    }
    // Step 5. Range is defined for GET alone (RFC 9110, section 14.2). What holds for another version,
    // too, is no ground for a part.
    let range = method == Method::Get && fields.has("range") && is_this_version;
    Evaluation::Proceed {
        range: range && if_range(fields, validators),
    }
}

/// RFC 9110, section 13.1.5: a strong tag, or exactly the date that was sent.
fn if_range(fields: &Fields<'_>, validators: &Validators) -> bool {
    if !fields.has("if-range") {
        return true;
    }
    let Some(value) = fields.only("if-range") else {
        return false;
    };
    match Tag::read(value) {
        Some((tag, rest)) => rest.is_empty() && validators.matches_strongly(&tag),
        None => validators.has_date(date::parse(value, validators.now)),
    }
}

/// An entity tag (RFC 9110, section 8.8.3).
struct Tag<'a> {
    is_weak: bool,
    opaque: &'a [u8],
}

impl<'a> Tag<'a> {
    /// Reads a tag, and what follows it.
    fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (is_weak, rest) = match bytes.strip_prefix(b"W/") {
            Some(rest) => (true, rest),
            None => (false, bytes),
        };
        let rest = rest.strip_prefix(b"\"")?;
        let end = rest.iter().position(|&byte| byte == b'"')?;
        let (opaque, rest) = (&rest[..end], &rest[end + 1..]);
        let is_tag = |byte: &u8| matches!(byte, 0x21 | 0x23..=0x7e | 0x80..);
        let tag = Self { is_weak, opaque };
        opaque.iter().all(is_tag).then_some((tag, rest))
    }
}

/// Whether a field holds `*`, or a list in which a tag matches. A list counts up to where it stops
/// being one: commas may stand inside tags, so there is no telling where the next one begins.
fn any_tag(fields: &Fields<'_>, name: &str, matches: impl Fn(&Tag<'_>) -> bool) -> bool {
    if fields.only(name) == Some(b"*") {
        return true;
    }
    fields.all(name).any(|value| {
        let mut rest = trim_list(value);
        while let Some((tag, after)) = Tag::read(rest) {
            let after = trim(after);
            if !after.is_empty() && !after.starts_with(b",") {
                return false;
            }
            if matches(&tag) {
                return true;
            }
            rest = trim_list(after);
        }
        false
    })
}

/// Cuts whitespace and empty members in front.
fn trim_list(mut list: &[u8]) -> &[u8] {
    while let [b' ' | b'\t' | b',', rest @ ..] = list {
        list = rest;
    }
    list
}

#[cfg(test)]
mod tests;
