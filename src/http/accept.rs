//! What an Accept field asks for (RFC 9110, section 12.5.1), as far as there is a choice.

use super::fields::{Fields, trim};

/// Whether an Accept field's value prefers JSON to a page (RFC 9110, section 12.5.1). JSON must be
/// named: what takes anything gets the page.
pub fn prefers_json(accept: &[u8]) -> bool {
    let (mut json, mut html, mut any_text, mut any) = (None, None, None, None);
    for (name, quality) in members(accept) {
        match &name.to_ascii_lowercase()[..] {
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

/// Whether an Accept field's value names pages, as those of browsers do.
#[must_use]
pub fn names_html(accept: &[u8]) -> bool {
    members(accept).any(|(name, quality)| name.eq_ignore_ascii_case(b"text/html") && quality > 0)
}

/// Whether a browser asks for a page to show, and not a page for something in it: it names pages, and
/// says nothing else (Fetch Metadata, "Sec-Fetch-Mode"). Not all say so, and none to plain HTTP on
/// another machine.
#[must_use]
pub fn is_navigation(fields: &Fields<'_>) -> bool {
    let mode = fields.first("sec-fetch-mode");
    mode.is_none_or(|mode| mode == b"navigate") && fields.all("accept").any(names_html)
}

/// The members of a list with weights, each with the thousandths of its own.
pub(super) fn members(list: &[u8]) -> impl Iterator<Item = (&[u8], u32)> {
    list.split(|&byte| byte == b',').map(|member| {
        let mut parts = member.split(|&byte| byte == b';').map(trim);
        let name = parts.next().unwrap_or_default();
        let quality = parts.find_map(quality).unwrap_or(1000);
        (name, quality)
    })
}

/// The thousandths of a weight (RFC 9110, section 12.4.2); a malformed one counts as none at all.
#[expect(clippy::cast_possible_truncation, reason = "a thousand at most")]
fn quality(parameter: &[u8]) -> Option<u32> {
    let [b'q' | b'Q', b'=', value @ ..] = parameter else {
        return None;
    };
    let text = std::str::from_utf8(value).ok()?;
    let quality = text.parse::<f32>().ok().filter(|q| (0.0..=1.0).contains(q));
    Some(quality.map_or(0, |quality| (quality * 1000.0).round() as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gets_json() {
        for (accept, expected) in [
            ("application/json", true),
            ("Application/JSON", true),
            ("application/json; charset=utf-8", true),
            ("application/json, */*", true),
            ("application/json, text/plain, */*", true),
            ("*/*, application/json;q=1", true),
            ("text/html;q=0.5, application/json", true),
            ("text/html;q=0, application/json;q=0.1", true),
            ("application/json;q=0.5, */*;q=0.1", true),
            ("text/html, application/json", false),
            ("text/html, application/json;q=0.9", false),
            ("application/json;q=0.5, */*", false),
            ("application/json;q=0.5, text/*", false),
            ("application/json;q=0", false),
            ("application/json; q=0.000", false),
            ("application/json;q=x", false),
            ("application/json;q=NaN", false),
            ("application/json;q=2", false),
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
                false,
            ),
            ("*/*", false),
            ("application/*", false),
            ("application/jsonp", false),
            ("", false),
            (";;q=,,", false),
        ] {
            assert_eq!(prefers_json(accept.as_bytes()), expected, "{accept}");
        }
        assert!(!prefers_json(b"\xff;q=\xff"));
    }

    #[test]
    fn who_gets_pages() {
        for (accept, expected) in [
            ("text/html", true),
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
                true,
            ),
            ("image/png, Text/HTML;q=0.1", true),
            ("text/html;q=0", false),
            ("*/*", false),
            ("text/*", false),
            ("text/htmlx", false),
            ("", false),
        ] {
            assert_eq!(names_html(accept.as_bytes()), expected, "{accept}");
        }
    }
}
