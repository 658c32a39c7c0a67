//! What the pages of this server have in common, and the page of an answer that brings no file: no
//! script, no picture, nothing to load.

use ::http::StatusCode;
use maud::{Markup, PreEscaped, Render, html};

use crate::escape::EscapedText;

/// The type of pages.
pub const HTML: &str = "text/html; charset=utf-8";

/// What stands before the title. Elements are closed as in XML, so that tests can read the page
/// strictly; the policy keeps a browser from running or loading anything, whatever a name holds.
/// The empty icon keeps it from asking for one.
const HEAD: &str = concat!(
    "<!DOCTYPE html>\n<html lang=\"en\"><head>",
    r#"<meta charset="utf-8"/>"#,
    r#"<meta name="viewport" content="width=device-width, initial-scale=1"/>"#,
    r#"<meta http-equiv="Content-Security-Policy" "#,
    r#"content="default-src 'none'; img-src data:; style-src 'unsafe-inline'"/>"#,
    r#"<link rel="icon" href="data:,"/>"#,
    "<style>",
    include_str!("page.css"),
    "</style>",
);

/// Everything up to the body's first element.
pub(super) fn head(title: &impl Render) -> Markup {
    html! {
        (PreEscaped(HEAD))
        title { (title) }
        (PreEscaped("</head>\n<body>"))
    }
}

/// Everything from the body's last element on.
pub(super) fn foot() -> Markup {
    html! {
        footer { "carafe " (env!("CARGO_PKG_VERSION")) }
        (PreEscaped("</body></html>\n"))
    }
}

/// What can be said of an answer that brings no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Nothing more than its status.
    None,
    /// The first page of a server that has none, since it lists no folders.
    NoFirstPage,
    /// A folder with too many entries to be sent in one piece.
    TooManyForTar,
}

impl Hint {
    /// What the client reads.
    fn for_client(self, status: StatusCode) -> &'static str {
        match (self, status) {
            (Self::NoFirstPage, _) => {
                "This server doesn’t list its folders. Files are there under their own addresses."
            }
            (Self::TooManyForTar, _) => {
                "This folder has more in it than goes into one tar. The folders in it may do."
            }
            (_, StatusCode::MOVED_PERMANENTLY) => "It has another address.",
            (_, StatusCode::NOT_FOUND) => "There is nothing at this address.",
            (_, StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED) => {
                "This server gives out files, and takes nothing."
            }
            (_, StatusCode::NOT_ACCEPTABLE) => "It isn’t here in a form that was asked for.",
            (_, StatusCode::PRECONDITION_FAILED) => "What is there is not what was expected.",
            (_, StatusCode::RANGE_NOT_SATISFIABLE) => "The file ends before what was asked for.",
            (_, StatusCode::SERVICE_UNAVAILABLE) => {
                "The server has too much to do at the moment. Try again in a few seconds."
            }
            (_, status) if status.is_server_error() => "The server has failed at this.",
            _ => "The server can’t make sense of this request.",
        }
    }
}

/// The page of an answer that brings no file. `slashes` is how many the path asked for has, from
/// which follows where the first page is; `index` what a file that would be it is called.
#[must_use]
pub fn error(status: StatusCode, hint: Hint, slashes: usize, index: Option<&[u8]>) -> Vec<u8> {
    let reason = status.canonical_reason().unwrap_or_default();
    let title = format!("{} {reason}", status.as_str());
    let above = slashes.saturating_sub(1);
    let page = html! {
        (head(&title))
        main class="error" {
            h1 { span class="status" { (status.as_str()) } " " (reason) }
            p { (hint.for_client(status)) }
            @if hint == Hint::NoFirstPage {
                p class="aside" {
                    "If it is yours: " code { "carafe serve --listing" }
                    " lists folders"
                    @if let Some(index) = index.map(String::from_utf8_lossy) {
                        ", and a file " code { (EscapedText(&index).to_string()) } " becomes this page"
                    }
                    "."
                }
            }
            @if above > 0 {
                p { a href=("../".repeat(above)) { "To the first page" } }
            } @else if hint == Hint::None {
                p { a href="./" { "To the first page" } }
            }
        }
        (foot())
    };
    page.into_string().into_bytes()
}

/// The same as a line of text.
#[must_use]
pub fn error_text(status: StatusCode, hint: Hint) -> Vec<u8> {
    let mut text = super::head::page(status);
    match hint {
        Hint::None => {}
        Hint::TooManyForTar => {
            text.extend_from_slice(hint.for_client(status).as_bytes());
            text.push(b'\n');
        }
        Hint::NoFirstPage => text.extend_from_slice(
            b"This server doesn't list its folders. If it is yours: carafe serve --listing does.\n",
        ),
    }
    text
}
