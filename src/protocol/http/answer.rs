//! An answer, before it is known what becomes of its connection.

use std::sync::Arc;

use ::http::StatusCode;

use crate::file::OpenFile;
use crate::http::custom_fields::CustomFields;
use crate::http::date::Now;
use crate::http::head::{Head, NO_SNIFF, TEXT};
use crate::http::page::{self, Hint};
use crate::http::target;
use crate::protocol::Body;

/// What is answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) head: Head,
    pub(super) body: Body,
    /// In place of a body, for who reads the answer, until it is known in which form.
    pub(super) hint: Option<Hint>,
    /// Why it brings nothing.
    pub(super) refused: Option<&'static str>,
    /// The operator's fields are in the head: those of a file.
    pub(super) has_custom_fields: bool,
}

impl Answer {
    pub(super) fn new(status: StatusCode, head: Head, body: Body) -> Self {
        Self {
            status,
            head,
            body,
            hint: None,
            refused: None,
            has_custom_fields: false,
        }
    }

    /// An answer with a file, or about it, whose head has all that belongs to the file.
    pub(super) fn of_file(status: StatusCode, head: Head, body: Body) -> Self {
        Self {
            has_custom_fields: true,
            ..Self::new(status, head, body)
        }
    }

    pub(super) fn error(status: StatusCode, why: &'static str, now: Now) -> Self {
        Self {
            hint: Some(Hint::None),
            refused: Some(why),
            ..Self::new(status, Head::error(status, now), Body::empty())
        }
    }

    /// Adds a field.
    pub(super) fn with_field(self, name: &'static str, value: &str) -> Self {
        Self {
            head: self.head.field(name, value),
            ..self
        }
    }

    /// A page for browsers, a line of text for others.
    pub(super) fn readable(
        self,
        accepts_html: impl FnOnce() -> bool,
        path: &[u8],
        index: Option<&[u8]>,
        custom: &CustomFields,
    ) -> Self {
        let Some(hint) = self.hint else { return self };
        let (content_type, bytes) = if accepts_html() {
            let slashes = target::count_slashes(path);
            (page::HTML, page::error(self.status, hint, slashes, index))
        } else {
            (TEXT, page::error_text(self.status, hint))
        };
        let head = self.head.content(content_type, bytes.len() as u64);
        Self {
            head: no_sniff(head, custom).field("Vary", "Accept"),
            body: Body::Bytes(bytes.into()),
            ..self
        }
    }
}

/// An answer with all of a file.
pub(super) fn whole(file: &Arc<OpenFile>, fields: &[u8], now: Now) -> Answer {
    let status = StatusCode::OK;
    let head = Head::new(status, now).fields(fields);
    Answer::of_file(status, head, Body::File(Arc::clone(file)))
}

/// What was asked for is found under another path.
pub(super) fn moved(location: impl AsRef<[u8]>, now: Now) -> Answer {
    let status = StatusCode::MOVED_PERMANENTLY;
    let head = Head::error(status, now).location(location);
    Answer {
        hint: Some(Hint::None),
        ..Answer::new(status, head, Body::empty())
    }
}

/// Has a page of this server taken for what it is, unless the operator says so of all answers.
pub(super) fn no_sniff(head: Head, custom: &CustomFields) -> Head {
    if custom.have(NO_SNIFF) {
        head
    } else {
        head.no_sniff()
    }
}
