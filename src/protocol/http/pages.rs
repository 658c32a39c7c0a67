//! Pages that stand for others: for paths without an extension, for routes that a script knows, and for
//! this server's own.

use ::http::StatusCode;

/// Which pages stand for others. Files are named by their paths beneath the root.
#[derive(Debug, Default)]
pub struct Pages {
    /// `/x` brings `x.html`, and `/x.html` leads there.
    pub clean_urls: bool,
    /// What a browser shows where there is nothing: the page whose script knows the path.
    pub spa: Option<Box<[u8]>>,
    /// What is sent in place of this server's own pages.
    pub errors: Vec<ErrorPage>,
}

/// A file that is sent with a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorPage {
    status: StatusCode,
    /// Its path beneath the root.
    pub file: Box<[u8]>,
}

/// What clean paths go without.
pub(super) const EXTENSION: &[u8] = b".html";

/// What decides whether a missing path is a route.
pub(super) const SPA_VARIES_BY: &str = "Accept, Sec-Fetch-Mode";

/// The errors that may have a page: those of a request that was understood.
const STATUSES: [u16; 8] = [404, 405, 406, 412, 416, 500, 501, 503];

impl ErrorPage {
    /// Parses `STATUS=FILE`; of several pages for one status the last one counts.
    ///
    /// # Errors
    /// The text says what it takes.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let mut parts = text.splitn(2, |&byte| byte == b'=');
        let (status, file) = match (parts.next(), parts.next()) {
            (Some(status), Some(file)) if !file.is_empty() => (status, file),
            _ => return Err("takes STATUS=FILE, as in 404=404.html".into()),
        };
        let status = StatusCode::from_bytes(status).ok();
        let status = status.filter(|status| STATUSES.contains(&status.as_u16()));
        let status = status.ok_or_else(|| {
            let known = STATUSES.map(|status| status.to_string()).join(", ");
            format!("takes STATUS=FILE with one of {known}")
        })?;
        let file = file.into();
        Ok(Self { status, file })
    }
}

impl Pages {
    /// The file that is sent with this status.
    pub(super) fn of_error(&self, status: StatusCode) -> Option<&[u8]> {
        let mut pages = self.errors.iter().rev();
        let page = pages.find(|page| page.status == status)?;
        Some(&page.file)
    }
}

/// The clean path of a file: of an index its folder, which ends in a slash. `None` if it has no other
/// than its own. Of what begins with a dot nothing would be left that is a name.
pub(super) fn without_extension<'n>(name: &'n [u8], index: Option<&[u8]>) -> Option<&'n [u8]> {
    let stem = name.strip_suffix(EXTENSION)?;
    let slash = stem.iter().rposition(|&byte| byte == b'/');
    let last = slash.map_or(0, |slash| slash + 1);
    if is_index(name, index) {
        return Some(&name[..last]);
    }
    (!matches!(stem[last..], [] | [b'.', ..])).then_some(stem)
}

/// Whether a file stands for its folder.
pub(super) fn is_index(name: &[u8], index: Option<&[u8]>) -> bool {
    name.rsplit(|&byte| byte == b'/').next() == index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_paths() {
        for (name, expected) in [
            ("/x.html", Some("/x")),
            ("/d/x.html", Some("/d/x")),
            ("/x.y.html", Some("/x.y")),
            ("/x.html.html", Some("/x.html")),
            ("/index.html", Some("/")),
            ("/d/index.html", Some("/d/")),
            ("/x", None),
            ("/x.htm", None),
            ("/x.HTML", None),
            ("/x.html/y", None),
            ("/.html", None),
            ("/d/.html", None),
            ("/...html", None),
            ("/.x.html", None),
        ] {
            let found = without_extension(name.as_bytes(), Some(b"index.html"));
            assert_eq!(found, expected.map(str::as_bytes), "{name}");
        }
        let is_like_others = without_extension(b"/d/index.html", None);
        assert_eq!(is_like_others, Some(&b"/d/index"[..]));
    }

    #[test]
    fn error_pages() {
        let parse = |text: &str| ErrorPage::parse(text.as_bytes());
        let errors = ["404=a", "503=/b/c=d", "404=e"].map(|text| parse(text).unwrap());
        let pages = Pages {
            errors: errors.into(),
            ..Pages::default()
        };
        for (status, expected) in [
            (StatusCode::NOT_FOUND, Some("e")),
            (StatusCode::SERVICE_UNAVAILABLE, Some("/b/c=d")),
            (StatusCode::METHOD_NOT_ALLOWED, None),
        ] {
            assert_eq!(pages.of_error(status), expected.map(str::as_bytes));
        }
        for bad in [
            "", "404", "404=", "x=a", "=a", "200=a", "403=a", "400=a", "4040=a",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
