//! A folder's listing: as a page that works without a script, as JSON, as a Gopher menu, and as the plan of
//! a tar.

use super::accept::prefers_json;
use crate::limits::LISTING_SLICE_ENTRIES;
use entries::{Entries, Sort, components};

pub mod entries;
mod gopher;
mod html;
mod json;
#[allow(
    clippy::cast_possible_truncation,
    reason = "lengths of what is in memory"
)]
pub mod tar;

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
        /// Whether it is for Gopher+, whose lines are information on items.
        plus: bool,
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

/// How a listing looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListingStyle {
    /// In which order.
    pub sort: Sort,
    /// As what.
    pub format: Format,
}

impl ListingStyle {
    /// What a request's query and Accept fields ask for.
    pub fn new<'a>(query: Option<&[u8]>, mut accept: impl Iterator<Item = &'a [u8]>) -> Self {
        let format = if accept.any(prefers_json) {
            Format::Json
        } else {
            Format::Html
        };
        let sort = Sort::from_query(query);
        Self { sort, format }
    }
}

/// Renders the listing of a folder, whose path from the root is decoded; the root itself is called
/// `top`. After every few entries `goes_on` is asked with the bytes so far.
///
/// # Errors
/// What `goes_on` says.
pub fn render<E>(
    format: &Format,
    top: &[u8],
    folder: &[u8],
    mut entries: Entries,
    mut goes_on: impl FnMut(usize) -> Result<(), E>,
) -> Result<Vec<u8>, E> {
    entries.sort();
    let Entries {
        sort,
        kept,
        summary,
        ..
    } = entries;
    let mut path = vec![b'/'];
    for component in components(folder) {
        path.extend_from_slice(component);
        path.push(b'/');
    }
    let mut out = Vec::new();
    match format {
        Format::Html => html::head(top, &path, sort, summary, &mut out),
        Format::Json => json::head(&mut out),
        Format::Gopher { plus, .. } => gopher::head(*plus, &mut out),
    }
    for (at, entry) in kept.iter().enumerate() {
        if at % LISTING_SLICE_ENTRIES == 0 {
            goes_on(out.len())?;
        }
        match format {
            Format::Html => html::entry(entry, sort, &mut out),
            Format::Json => json::entry(entry, at == 0, &mut out),
            Format::Gopher { host, port, plus } => {
                gopher::entry(entry, &path, host, *port, *plus, &mut out);
            }
        }
    }
    match format {
        Format::Html => html::foot(summary, &mut out),
        Format::Json => json::foot(summary, &mut out),
        Format::Gopher { host, port, plus } => gopher::foot(summary, host, *port, *plus, &mut out),
    }
    out.shrink_to_fit();
    Ok(out)
}

#[cfg(test)]
mod tests;
