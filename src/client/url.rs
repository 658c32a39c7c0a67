//! URLs on the command line and in redirects: what they ask for, and the file name they suggest.

use fluent_uri::{Uri, UriRef};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};

use crate::cli::ServerAddress;

/// Bytes that people and servers write into URLs though RFC 3986 has them encoded. Whatever is not
/// ASCII is encoded, too.
const UNWISE: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'[')
    .add(b']')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

const HTTP_PORT: u16 = 80;
const GOPHER_PORT: u16 = 70;

/// Where a file comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// A name, over the bare protocol.
    Bare {
        server: ServerAddress,
        name: Vec<u8>,
    },
    /// An `http:` URL without a fragment.
    Http(Uri<String>),
}

/// Understands an `http://` or `gopher://` URL: RFC 3986, RFC 4266.
///
/// # Errors
/// Why it won't do.
pub(super) fn parse(text: &[u8]) -> Result<Source, String> {
    let uri = Uri::parse(tidy(text)).map_err(|(error, _)| error.to_string())?;
    if uri.scheme().as_str().eq_ignore_ascii_case("gopher") {
        return bare(&uri);
    }
    http(uri).map(Source::Http)
}

/// Where a `Location` leads: RFC 9110, 10.2.2.
///
/// # Errors
/// Why it can't be followed.
pub(super) fn follow(base: &Uri<String>, location: &[u8]) -> Result<Uri<String>, String> {
    let reference = UriRef::parse(tidy(location)).map_err(|(error, _)| error.to_string())?;
    let uri = reference
        .resolve_against(base)
        .map_err(|error| error.to_string())?;
    http(uri)
}

/// The last component of the path, decoded, if that can be a file's name.
pub(super) fn file_name(uri: &Uri<String>) -> Option<Vec<u8>> {
    let path = uri.path().as_str();
    let last = path.rsplit('/').next().unwrap_or(path);
    let name: Vec<u8> = percent_decode_str(last).collect();
    let is_fit =
        !matches!(&name[..], b"" | b"." | b"..") && !name.iter().any(|b| b"/\0".contains(b));
    is_fit.then_some(name)
}

fn http(uri: Uri<String>) -> Result<Uri<String>, String> {
    match uri.scheme().as_str().to_ascii_lowercase().as_str() {
        "http" => {}
        "https" => return Err("there is no TLS here; http:// it takes".into()),
        _ => return Err("it takes http:// or gopher://".into()),
    }
    server(&uri, HTTP_PORT)?;
    Ok(uri.strip_fragment().to_owned())
}

/// The type character of a selector says what a browser does with the file: 9 is binary, 0 text.
fn bare(uri: &Uri<String>) -> Result<Source, String> {
    const TAKES: &str = "it takes gopher://HOST[:PORT]/9NAME";
    let server = server(uri, GOPHER_PORT)?;
    let path = uri.path().as_str();
    let selector = path.strip_prefix("/9").or_else(|| path.strip_prefix("/0"));
    let mut name: Vec<u8> = percent_decode_str(selector.ok_or(TAKES)?).collect();
    if let Some(query) = uri.query() {
        name.push(b'?');
        name.extend(percent_decode_str(query.as_str()));
    }
    Ok(Source::Bare { server, name })
}

fn server(uri: &Uri<String>, default_port: u16) -> Result<ServerAddress, String> {
    let authority = uri.authority().ok_or("it names no host")?;
    if authority.has_userinfo() {
        return Err("it takes no user and no password".into());
    }
    let host = authority.host().trim_matches(['[', ']']);
    if host.is_empty() {
        return Err("it names no host".into());
    }
    let port = match authority.port_to_u16() {
        Ok(None) => default_port,
        Ok(Some(port)) if port != 0 => port,
        _ => return Err("its port is none".into()),
    };
    Ok(ServerAddress {
        host: host.into(),
        port,
    })
}

/// Encodes what should have been, outside of the authority, where brackets mean an address.
fn tidy(text: &[u8]) -> String {
    let after_slashes = text
        .windows(2)
        .position(|two| two == b"//")
        .map(|at| at + 2);
    let is_path = |byte: &u8| b"/?#".contains(byte);
    let authority_end = match after_slashes {
        Some(start) if !text[..start - 2].iter().any(is_path) => {
            let length = text[start..].iter().position(is_path);
            length.map_or(text.len(), |length| start + length)
        }
        _ => 0,
    };
    let (authority, rest) = text.split_at(authority_end);
    // A host that is not ASCII ends as one with percent signs, which no resolver knows.
    format!(
        "{}{}",
        percent_encode(authority, CONTROLS),
        percent_encode(rest, UNWISE)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http_url(text: &str) -> String {
        match parse(text.as_bytes()) {
            Ok(Source::Http(uri)) => uri.into_string(),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_url_is_encoded_where_it_should_have_been() {
        for (text, expected) in [
            ("http://h/a?b#c", "http://h/a?b"),
            (
                "HTTP://[::1]:80/[接收]x y",
                "HTTP://[::1]:80/%5B%E6%8E%A5%E6%94%B6%5Dx%20y",
            ),
            ("http://h:8080", "http://h:8080"),
            ("http://h/%41//b/", "http://h/%41//b/"),
        ] {
            assert_eq!(http_url(text), expected);
        }
    }

    #[test]
    fn what_is_no_url_of_ours_is_refused_with_a_reason() {
        for (text, reason) in [
            ("https://h/x", "there is no TLS here"),
            ("ftp://h/x", "it takes http://"),
            ("http:///x", "it names no host"),
            ("http:x", "it names no host"),
            ("http://:80/x", "it names no host"),
            ("http://me:secret@h/x", "it takes no user"),
            ("http://h:0/x", "its port is none"),
            ("http://h:65536/x", "its port is none"),
            ("http://h/%zz", "invalid percent-encoded octet"),
            ("gopher://h/1x", "it takes gopher://"),
            ("gopher://h", "it takes gopher://"),
        ] {
            let why = parse(text.as_bytes()).expect_err(text);
            assert!(why.contains(reason), "{text}: {why}");
        }
    }

    #[test]
    fn a_gopher_url_is_a_name() {
        for (text, host, port, name) in [
            ("gopher://h/9a.txt", "h", 70, &b"a.txt"[..]),
            (
                "gopher://[::1]:7890/0sub/a%20b%ff",
                "::1",
                7890,
                b"sub/a b\xff",
            ),
            ("gopher://h/9a?b%3fc", "h", 70, b"a?b?c"),
            ("gopher://h/9", "h", 70, b""),
        ] {
            let Ok(Source::Bare { server, name: got }) = parse(text.as_bytes()) else {
                panic!("{text}")
            };
            assert_eq!((&*server.host, server.port, &got[..]), (host, port, name));
        }
    }

    #[test]
    fn a_redirect_is_resolved_against_where_it_came_from() {
        let Ok(Source::Http(base)) = parse(b"http://h:1/a/b?c") else {
            panic!("a URL")
        };
        for (location, expected) in [
            ("d", "http://h:1/a/d"),
            ("../d e", "http://h:1/d%20e"),
            ("/d#x", "http://h:1/d"),
            ("//i/d", "http://i/d"),
            ("http://[::1]/d[1]", "http://[::1]/d%5B1%5D"),
            ("?q", "http://h:1/a/b?q"),
        ] {
            let uri = follow(&base, location.as_bytes()).expect(location);
            assert_eq!(uri.as_str(), expected);
        }
        assert!(follow(&base, b"https://h/").is_err());
        assert!(follow(&base, b"//me@h/").is_err());
    }

    #[test]
    fn the_last_component_is_decoded_or_no_name() {
        for (text, name) in [
            ("http://h/a/b.txt?x/y", Some(&b"b.txt"[..])),
            ("http://h/%E6%8E%A5%ff", Some(b"\xe6\x8e\xa5\xff")),
            ("http://h/a%2Fb", None),
            ("http://h/a%00", None),
            ("http://h/%2e%2E", None),
            ("http://h/.", None),
            ("http://h/a/", None),
            ("http://h", None),
        ] {
            let Ok(Source::Http(uri)) = parse(text.as_bytes()) else {
                panic!("{text}")
            };
            assert_eq!(file_name(&uri).as_deref(), name, "{text}");
        }
    }
}
