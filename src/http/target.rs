//! What a request asks for: the forms of a request target, and the way from its path to the bytes
//! of a name.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::Ipv6Addr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};

use super::fields::{count_leading, letters_digits_and};
use super::method::Method;
use crate::dot_segments::remove_dot_segments;

/// Everything but the unreserved characters of RFC 3986, section 2.3. What is left can't be taken
/// for a scheme, a query or markup.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A request target (RFC 9112, section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// origin-form, or what an absolute-form says behind its authority.
    Resource {
        /// The path, still encoded; begins with a slash.
        path: &'a [u8],
        /// What follows the first question mark.
        query: Option<&'a [u8]>,
    },
    /// `*`: the server as a whole.
    Server,
    /// authority-form, for CONNECT alone.
    Authority(&'a [u8]),
}

impl<'a> Target<'a> {
    /// Reads a target, and the authority of an absolute-form, which stands above the Host field
    /// (RFC 9112, section 3.2.2). `None` if its form isn't one for this method.
    #[must_use]
    pub fn parse(method: Method, bytes: &'a [u8]) -> Option<(Self, Option<&'a [u8]>)> {
        // Bytes above ASCII are no URI's, but old clients send them as they were typed.
        let is_allowed = |byte| byte > b' ' && byte != 0x7f && byte != b'#';
        if count_leading(bytes, is_allowed) < bytes.len() {
            return None;
        }
        if method == Method::Connect {
            let has_port = bytes.contains(&b':');
            let fits = has_port && is_authority(bytes) && !bytes.starts_with(b":");
            return fits.then_some((Self::Authority(bytes), None));
        }
        if bytes == b"*" {
            let fits = matches!(method, Method::Options | Method::Unknown);
            return fits.then_some((Self::Server, None));
        }
        if bytes.starts_with(b"/") {
            return Some((Self::resource(bytes), None));
        }
        let (scheme, rest) = bytes.split_at_checked(7)?;
        if !scheme.eq_ignore_ascii_case(b"http://") {
            return None;
        }
        let end = rest.iter().position(|byte| b"/?".contains(byte));
        let (authority, rest) = rest.split_at(end.unwrap_or(rest.len()));
        // An empty host is an error (RFC 9110, section 4.2.1).
        if authority.is_empty() || authority.starts_with(b":") || !is_authority(authority) {
            return None;
        }
        let target = match (method, rest) {
            // RFC 9112, section 3.2.4.
            (Method::Options, b"") => Self::Server,
            _ => Self::resource(rest),
        };
        Some((target, Some(authority)))
    }

    /// The path, still encoded, if there is one.
    #[must_use]
    pub fn path(&self) -> &'a [u8] {
        match *self {
            Self::Resource { path, .. } => path,
            Self::Server | Self::Authority(_) => b"",
        }
    }

    fn resource(bytes: &'a [u8]) -> Self {
        let (path, query) = bytes.split_at(count_leading(bytes, |byte| byte != b'?'));
        let query = query.split_first().map(|(_, query)| query);
        let path = if path.is_empty() { b"/" } else { path };
        Self::Resource { path, query }
    }
}

/// Whether these bytes are `uri-host [":" port]` (RFC 9110, section 7.2). The empty host is one;
/// user names are not (RFC 9110, section 4.2.4).
#[must_use]
pub fn is_authority(bytes: &[u8]) -> bool {
    let (host, port) = match bytes.strip_prefix(b"[") {
        Some(rest) => {
            let Some(end) = rest.iter().position(|&byte| byte == b']') else {
                return false;
            };
            let (literal, port) = (&rest[..end], &rest[end + 1..]);
            if !is_ip_literal(literal) {
                return false;
            }
            (&b""[..], port)
        }
        None => {
            const NAME: [bool; 256] = letters_digits_and(b"-._~!$&'()*+,;=%");
            let end = bytes.iter().position(|&byte| !NAME[usize::from(byte)]);
            bytes.split_at(end.unwrap_or(bytes.len()))
        }
    };
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    is_port && has_whole_escapes(host)
}

/// Whether these bytes are an IPv6address or an IPvFuture (RFC 3986, section 3.2.2).
fn is_ip_literal(bytes: &[u8]) -> bool {
    let [b'v' | b'V', future @ ..] = bytes else {
        let text = std::str::from_utf8(bytes).ok();
        return text.is_some_and(|text| text.parse::<Ipv6Addr>().is_ok());
    };
    let mut parts = future.splitn(2, |&byte| byte == b'.');
    let (version, address) = (parts.next().unwrap_or_default(), parts.next());
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:".contains(byte);
    !version.is_empty()
        && version.iter().all(u8::is_ascii_hexdigit)
        && address.is_some_and(|address| !address.is_empty() && address.iter().all(is_letter))
}

/// Whether there is a percent sign.
fn has_escapes(bytes: &[u8]) -> bool {
    count_leading(bytes, |byte| byte != b'%') < bytes.len()
}

/// Whether two hexadecimal digits follow each percent sign (RFC 3986, section 2.1).
fn has_whole_escapes(bytes: &[u8]) -> bool {
    let is_whole =
        |rest: &[u8]| matches!(rest, [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit());
    !has_escapes(bytes) || bytes.split(|&byte| byte == b'%').skip(1).all(is_whole)
}

/// A path of a target, decoded, without dot segments: the name that the root looks up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name<'a> {
    /// The bytes, leading slashes included.
    pub bytes: Cow<'a, [u8]>,
    /// Whether it ends in a slash, and so can only mean a folder.
    pub is_folder: bool,
}

/// Decodes a path once (RFC 3986, section 2.4). `None` if an escape is cut short or stands for
/// NUL, which no name holds.
#[must_use]
pub fn decode(path: &[u8]) -> Option<Name<'_>> {
    let bytes = if !has_escapes(path) {
        remove_dot_segments(path)
    } else {
        let decoded = has_whole_escapes(path).then(|| Cow::from(percent_decode(path)))?;
        if decoded.contains(&0) {
            return None;
        }
        remove_dot_segments(&decoded).into_owned().into()
    };
    let is_folder = bytes.ends_with(b"/");
    Some(Name { bytes, is_folder })
}

/// Whether a path has as many components as the name that it stands for: no doubled or encoded
/// slash, no dots. Otherwise relative references from there lead elsewhere.
#[must_use]
pub fn is_plain(path: &[u8], name: &Name<'_>) -> bool {
    let slashes = count_slashes(path);
    slashes == components(&name.bytes).count() + usize::from(name.is_folder)
}

/// How many slashes there are, of which one is in front.
#[must_use]
pub fn count_slashes(path: &[u8]) -> usize {
    path.iter().filter(|&&byte| byte == b'/').count()
}

fn components(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    name.split(|&byte| byte == b'/')
        .filter(|component| !component.is_empty())
}

/// The Location of a folder that was named without its slash, or not plainly. It is relative to the
/// path that was asked for: a proxy may have put another one in front of it. It is built from the
/// decoded name, whose components are encoded, so that it can't be another host or scheme.
#[must_use]
pub fn folder_location(path: &[u8], name: &Name<'_>, query: Option<&[u8]>) -> String {
    let components: Vec<String> = components(&name.bytes).map(encode_segment).collect();
    let mut location = match components.last() {
        Some(last) if is_plain(path, name) => format!("{last}/"),
        _ => "../".repeat(count_slashes(path).saturating_sub(1)),
    };
    if !is_plain(path, name) {
        location.extend(
            components
                .iter()
                .flat_map(|component| [component.as_str(), "/"]),
        );
    }
    if location.is_empty() {
        location.push_str("./");
    }
    push_query(&mut location, query);
    location
}

/// The Location of a name that is in the same folder as the plain path that was asked for: of its last
/// component, or of the folder if it ends in a slash.
#[must_use]
pub fn location_beside(name: &[u8], query: Option<&[u8]>) -> String {
    let last = name.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let mut location = match last {
        [] => "./".to_owned(),
        last => encode_segment(last),
    };
    push_query(&mut location, query);
    location
}

fn push_query(location: &mut String, query: Option<&[u8]>) {
    if let Some(query) = query {
        // Writing to memory doesn't fail.
        let _ = write!(location, "?{}", percent_encode(query, QUERY));
    }
}

/// What can't stand in a query as it is. Percent signs stay: the query is not decoded.
const QUERY: &AsciiSet = &percent_encoding::CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'\\');

/// Encodes one component of a path, byte by byte.
#[must_use]
pub fn encode_segment(segment: &[u8]) -> String {
    percent_encode(segment, SEGMENT).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(
        path: &'static str,
        query: Option<&'static str>,
        authority: Option<&'static str>,
    ) -> Option<(Target<'static>, Option<&'static [u8]>)> {
        let target = Target::Resource {
            path: path.as_bytes(),
            query: query.map(str::as_bytes),
        };
        Some((target, authority.map(str::as_bytes)))
    }

    #[test]
    fn forms() {
        use Method::{Connect, Get, Options, Other, Unknown};
        let server =
            |authority: Option<&'static str>| Some((Target::Server, authority.map(str::as_bytes)));
        #[rustfmt::skip]
        let cases = [
            (Get, "/", resource("/", None, None)),
            (Get, "/a/b?c?d", resource("/a/b", Some("c?d"), None)),
            (Get, "/a?", resource("/a", Some(""), None)),
            (Get, "//a//b", resource("//a//b", None, None)),
            (Get, "/é", resource("/é", None, None)),
            (Get, "http://h", resource("/", None, Some("h"))),
            (Get, "http://h?q", resource("/", Some("q"), Some("h"))),
            (Get, "HTTP://h:80/x?q", resource("/x", Some("q"), Some("h:80"))),
            (Get, "http://[::1]:7890/x", resource("/x", None, Some("[::1]:7890"))),
            (Get, "http:///x", None),
            (Get, "http://:80/x", None),
            (Get, "http://user@h/x", None),
            (Get, "http://h:8a/x", None),
            (Get, "https://h/x", None),
            (Get, "ftp://h/x", None),
            (Get, "http:/x", None),
            (Get, "x", None),
            (Get, "", None),
            (Get, "h:80", None),
            (Get, "*", None),
            (Get, "/a b", None),
            (Get, "/a#b", None),
            (Get, "/a\rb", None),
            (Get, "/a\0", None),
            (Get, "/a\x7f", None),
            (Options, "*", server(None)),
            (Options, "http://h", server(Some("h"))),
            (Options, "http://h/", resource("/", None, Some("h"))),
            (Options, "/x", resource("/x", None, None)),
            (Unknown, "*", server(None)),
            (Other, "*", None),
            (Connect, "h:443", Some((Target::Authority(b"h:443"), None))),
            (Connect, "[::1]:443", Some((Target::Authority(b"[::1]:443"), None))),
            (Connect, "h", None),
            (Connect, ":443", None),
            (Connect, "/x", None),
            (Connect, "http://h/x", None),
            (Connect, "*", None),
        ];
        for (method, text, expected) in cases {
            let parsed = Target::parse(method, text.as_bytes());
            assert_eq!(parsed, expected, "{method:?} {text}");
        }
    }

    #[test]
    fn authorities() {
        for valid in [
            "",
            "h",
            "h:",
            "h:80",
            "127.0.0.1:7890",
            "[::1]",
            "[::1]:80",
            "a_b-c.d",
            "%41",
            ":80",
            "[v1.x]",
            "[v1.!a]",
            "[VF.a:b]:80",
            "[::ffff:127.0.0.1]",
            "[2001:db8::1]:",
        ] {
            assert!(is_authority(valid.as_bytes()), "{valid}");
        }
        for invalid in [
            "h:x",
            "h:80:81",
            "u@h",
            "h/x",
            "h x",
            "h,i/",
            "[::1",
            "[]",
            "[::1]x",
            "[:/:]",
            "[ab..cd::1]",
            "[1::2::3]",
            "[12345::]",
            "[fe80::1%lo]",
            "[1.2.3.4]",
            "[v1]",
            "[v1.]",
            "[v.a]",
            "[vg.a]",
            "[v1.a/b]",
            "[::1",
            "[~]",
            "%4",
            "%zz",
            "h\"",
            "é",
            "h?",
            "h#",
            "h\\",
            "a b",
        ] {
            assert!(!is_authority(invalid.as_bytes()), "{invalid}");
        }
    }

    #[test]
    fn paths_are_decoded_once() {
        let cases = [
            ("/", Some((&b"/"[..], true))),
            ("/a", Some((b"/a", false))),
            ("/a/", Some((b"/a/", true))),
            ("/a%2F", Some((b"/a/", true))),
            ("/a%20b+c", Some((b"/a b+c", false))),
            ("/%E6%8E%A5", Some(("/接".as_bytes(), false))),
            ("/%ff%FE", Some((b"/\xff\xfe", false))),
            ("/%252e", Some((b"/%2e", false))),
            ("/%2e%2e/x", Some((b"/../x", false))),
            ("/a/../b", Some((b"/b", false))),
            ("/a/%2E%2e/b", Some((b"/b", false))),
            ("/a%2f..%2fb", Some((b"/b", false))),
            ("/./a", Some((b"/a", false))),
            ("/a/.", Some((b"/a/", true))),
            ("/a/..", Some((b"/", true))),
            ("/%00", None),
            ("/%", None),
            ("/%2", None),
            ("/%zz", None),
            ("/%%41", None),
        ];
        for (path, expected) in cases {
            let name = decode(path.as_bytes());
            let seen = name.as_ref().map(|name| (&*name.bytes, name.is_folder));
            assert_eq!(seen, expected, "{path}");
        }
    }

    #[test]
    fn a_folders_location_is_relative_and_stays_on_this_host() {
        for (path, query, expected) in [
            ("/a", None, "a/"),
            ("/a/b", Some("sort=size"), "b/?sort=size"),
            ("/a:b", None, "a%3Ab/"),
            ("/http:", None, "http%3A/"),
            ("//evil.example", None, "../evil.example/"),
            ("/x//evil.example", None, "../../x/evil.example/"),
            ("//evil.example/", None, "../../evil.example/"),
            ("/%2Fevil.example", None, "evil.example/"),
            ("/a%2Fb/", Some("x"), "../a/b/?x"),
            ("/\\evil.example", None, "%5Cevil.example/"),
            (
                "/a%0D%0Ab:%20c",
                Some("x\r\ny: z"),
                "a%0D%0Ab%3A%20c/?x%0D%0Ay:%20z",
            ),
            ("/接", Some("é%20"), "%E6%8E%A5/?%C3%A9%20"),
            ("/%3F%23", None, "%3F%23/"),
            ("//", None, "../"),
            ("/", None, "./"),
        ] {
            let name = decode(path.as_bytes()).unwrap();
            let query = query.map(str::as_bytes);
            let location = folder_location(path.as_bytes(), &name, query);
            assert_eq!(location, expected, "{path}");
        }
        assert_eq!(encode_segment(b"a/b:c\xff"), "a%2Fb%3Ac%FF");
    }
}
