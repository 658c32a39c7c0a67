//! URLs on the command line and in redirects: what they ask for, and the file name they suggest.

use std::ops::Range;

use fluent_uri::pct_enc::EStr;
use fluent_uri::{Uri, UriRef};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};

use crate::flags::ServerAddress;

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
const HTTPS_PORT: u16 = 443;
const GOPHER_PORT: u16 = 70;

/// Where a file comes from.
#[derive(Debug)]
pub(super) enum DownloadSource {
    /// A name, over the bare protocol.
    Bare {
        server: ServerAddress,
        is_tls: bool,
        name: Vec<u8>,
    },
    /// An `http:` or `https:` URL.
    Http(HttpUrl),
}

/// An `http:` or `https:` URL without a fragment.
#[derive(Clone, Debug)]
pub(super) struct HttpUrl {
    uri: Uri<String>,
    server: ServerAddress,
    is_tls: bool,
    /// Which of this machine's links a link-local address is on. No server is told: RFC 6874, 4.
    zone: Option<String>,
}

impl HttpUrl {
    fn new(uri: Uri<String>, zone: Option<String>) -> Result<Self, String> {
        let (is_tls, default_port) = match &*uri.scheme().as_str().to_ascii_lowercase() {
            "http" => (false, HTTP_PORT),
            "https" => (true, HTTPS_PORT),
            _ => return Err("it takes http:// and https:// only".into()),
        };
        Ok(Self {
            server: server(&uri, zone.as_deref(), default_port)?,
            is_tls,
            uri: uri.strip_fragment().to_owned(),
            zone,
        })
    }

    /// Where to connect.
    pub(super) fn server(&self) -> &ServerAddress {
        &self.server
    }

    /// Whether it is asked by TLS.
    pub(super) fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// What the first line of a request names: RFC 9112, 3.2.1.
    pub(super) fn target(&self) -> String {
        let path = self.uri.path().as_str();
        let path = if path.is_empty() { "/" } else { path };
        match self.uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        }
    }

    /// The value of `Host`: RFC 9110, 7.2.
    pub(super) fn host_field(&self) -> String {
        let authority = self.uri.authority();
        let text = authority.map_or("", |authority| authority.as_str());
        text.trim_end_matches(':').to_owned()
    }

    /// What tells it from other URLs.
    pub(super) fn identity(&self) -> String {
        match &self.zone {
            Some(zone) => format!("{zone}%{}", self.uri),
            None => self.uri.as_str().to_owned(),
        }
    }

    /// The last component of the path, decoded, if that can be a file's name; of a folder's tar the folder's
    /// name with `.tar`.
    pub(super) fn file_name(&self) -> Option<Vec<u8>> {
        let path = self.uri.path().as_str();
        // A folder's tar, as carafe and others send it.
        let folder = path.strip_suffix('/');
        let query = self.uri.query().map(EStr::as_str);
        let folder = folder.filter(|_| matches!(query, Some("tar" | "tar=")));
        let (path, extension) = folder.map_or((path, ""), |folder| (folder, ".tar"));
        let last = path.rsplit('/').next().unwrap_or(path);
        let mut name: Vec<u8> = percent_decode_str(last).collect();
        let is_fit =
            !matches!(&name[..], b"" | b"." | b"..") && !name.iter().any(|b| b"/\0".contains(b));
        name.extend_from_slice(extension.as_bytes());
        is_fit.then_some(name)
    }
}

/// Understands an `http://`, `https://` or `gopher://` URL: RFC 3986, RFC 4266.
///
/// # Errors
/// Why it won't do.
pub(super) fn parse(text: &[u8]) -> Result<DownloadSource, String> {
    let (text, zone) = without_zone(text)?;
    let uri = Uri::parse(tidy(&text)).map_err(|(error, _)| error.to_string())?;
    match uri.scheme().as_str().to_ascii_lowercase().as_str() {
        "gopher" => bare(&uri, zone.as_deref()),
        "http" | "https" => HttpUrl::new(uri, zone).map(DownloadSource::Http),
        _ => Err("it takes http://, https:// or gopher://".into()),
    }
}

/// Where a `Location` leads: RFC 9110, 10.2.2. On the same host, it is the same link.
///
/// # Errors
/// Why it can't be followed.
pub(super) fn follow(base: &HttpUrl, location: &[u8]) -> Result<HttpUrl, String> {
    let reference = UriRef::parse(tidy(location)).map_err(|(error, _)| error.to_string())?;
    let uri = reference
        .resolve_against(&base.uri)
        .map_err(|error| error.to_string())?;
    let host = |uri: &Uri<String>| uri.authority().map(|authority| authority.host().to_owned());
    let is_same = host(&uri) == host(&base.uri);
    HttpUrl::new(uri, base.zone.clone().filter(|_| is_same))
}

/// The type character of a selector says what a browser does with the file: 9 is binary, 0 text.
fn bare(uri: &Uri<String>, zone: Option<&str>) -> Result<DownloadSource, String> {
    const TAKES: &str = "it takes gopher://HOST[:PORT]/9NAME";
    let server = server(uri, zone, GOPHER_PORT)?;
    let path = uri.path().as_str();
    let selector = path.strip_prefix("/9").or_else(|| path.strip_prefix("/0"));
    let mut name: Vec<u8> = percent_decode_str(selector.ok_or(TAKES)?).collect();
    if let Some(query) = uri.query() {
        name.push(b'?');
        name.extend(percent_decode_str(query.as_str()));
    }
    Ok(DownloadSource::Bare {
        server,
        is_tls: false,
        name,
    })
}

fn server(
    uri: &Uri<String>,
    zone: Option<&str>,
    default_port: u16,
) -> Result<ServerAddress, String> {
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
    let host = match zone {
        Some(zone) => format!("{host}%{zone}"),
        None => host.to_owned(),
    };
    Ok(ServerAddress { host, port })
}

/// Takes a zone out of an address, `[fe80::1%25eth0]` (RFC 6874) or `[fe80::1%eth0]` as people type it.
fn without_zone(text: &[u8]) -> Result<(Vec<u8>, Option<String>), String> {
    let authority = authority(text);
    let host = &text[authority.clone()];
    let find = |byte| host.iter().position(|&other| other == byte);
    let (Some(b'['), Some(percent), Some(end)) = (host.first(), find(b'%'), find(b']')) else {
        return Ok((text.to_vec(), None));
    };
    let zone = host.get(percent + 1..end).unwrap_or_default();
    let zone = zone.strip_prefix(b"25").unwrap_or(zone);
    let is_fit = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    if zone.is_empty() || !zone.iter().all(is_fit) {
        return Err("its zone is none".into());
    }
    let zone = String::from_utf8_lossy(zone).into_owned();
    let (before, after) = (authority.start + percent, authority.start + end);
    Ok(([&text[..before], &text[after..]].concat(), Some(zone)))
}

/// Where the authority stands; nowhere at the beginning if there is none.
fn authority(text: &[u8]) -> Range<usize> {
    let is_path = |byte: &u8| b"/?#".contains(byte);
    let slashes = text.windows(2).position(|two| two == b"//");
    match slashes {
        Some(at) if !text[..at].iter().any(is_path) => {
            let start = at + 2;
            let length = text[start..].iter().position(is_path);
            start..length.map_or(text.len(), |length| start + length)
        }
        _ => 0..0,
    }
}

/// Encodes what should have been, outside of the authority, where brackets mean an address.
fn tidy(text: &[u8]) -> String {
    let (authority, rest) = text.split_at(authority(text).end);
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
            Ok(DownloadSource::Http(url)) => url.uri.into_string(),
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
    fn a_request_names_the_path_and_the_host_as_they_stand() {
        for (text, target, host) in [
            ("http://h", "/", "h"),
            ("http://h:?", "/?", "h"),
            ("http://H:80/a%2fb?c=d#e", "/a%2fb?c=d", "H:80"),
            ("http://[::1]:81/", "/", "[::1]:81"),
        ] {
            let Ok(DownloadSource::Http(url)) = parse(text.as_bytes()) else {
                panic!("{text}")
            };
            assert_eq!((&*url.target(), &*url.host_field()), (target, host));
        }
    }

    #[test]
    fn https_has_a_port_of_its_own() {
        for (text, port, is_tls) in [
            ("http://h/", 80, false),
            ("https://h/", 443, true),
            ("HTTPS://[::1]:7890/", 7890, true),
        ] {
            let Ok(DownloadSource::Http(url)) = parse(text.as_bytes()) else {
                panic!("{text}")
            };
            assert_eq!((url.server().port, url.is_tls()), (port, is_tls));
        }
    }

    #[test]
    fn a_zone_is_for_us_and_not_for_the_server() {
        for text in ["http://[fe80::1%25lo]:1/x", "http://[fe80::1%lo]:1/x"] {
            let Ok(DownloadSource::Http(url)) = parse(text.as_bytes()) else {
                panic!("{text}")
            };
            assert_eq!(url.server().host, "fe80::1%lo");
            assert_eq!(url.host_field(), "[fe80::1]:1");
            assert_ne!(url.identity(), "http://[fe80::1]:1/x");
            let there = |location: &str| follow(&url, location.as_bytes()).unwrap().server;
            assert_eq!(there("/y").host, "fe80::1%lo");
            assert_eq!(there("http://[fe80::1]:2/y").host, "fe80::1%lo");
            assert_eq!(there("http://[fe80::2]/y").host, "fe80::2");
            assert!(follow(&url, b"http://[fe80::1%25lo]/").is_err());
        }
        let Ok(DownloadSource::Bare { server, .. }) = parse(b"gopher://[fe80::1%25lo]/9x") else {
            panic!("a name")
        };
        assert_eq!(server.host, "fe80::1%lo");
        for text in [
            "http://[fe80::1%]/",
            "http://[fe80::1%25]/",
            "http://[fe80::1%a b]/",
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err(), "its zone is none");
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
            let Ok(DownloadSource::Bare {
                server, name: got, ..
            }) = parse(text.as_bytes())
            else {
                panic!("{text}")
            };
            assert_eq!((&*server.host, server.port, &got[..]), (host, port, name));
        }
    }

    #[test]
    fn a_redirect_is_resolved_against_where_it_came_from() {
        let Ok(DownloadSource::Http(base)) = parse(b"http://h:1/a/b?c") else {
            panic!("a URL")
        };
        for (location, expected) in [
            ("d", "http://h:1/a/d"),
            ("../d e", "http://h:1/d%20e"),
            ("/d#x", "http://h:1/d"),
            ("//i/d", "http://i/d"),
            ("https://h/d", "https://h/d"),
            ("http://[::1]/d[1]", "http://[::1]/d%5B1%5D"),
            ("?q", "http://h:1/a/b?q"),
        ] {
            let uri = follow(&base, location.as_bytes()).expect(location);
            assert_eq!(uri.identity(), expected);
        }
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
            ("http://h/a/b%20c/?tar", Some(b"b c.tar")),
            ("http://h/a/?tar=", Some(b"a.tar")),
            ("http://h/a/?tar=1", None),
            ("http://h/a?tar", Some(b"a")),
            ("http://h/?tar", None),
            ("http://h", None),
        ] {
            let Ok(DownloadSource::Http(url)) = parse(text.as_bytes()) else {
                panic!("{text}")
            };
            assert_eq!(url.file_name().as_deref(), name, "{text}");
        }
    }
}
