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
        let mut name = decoded(last_segment(path))?;
        name.extend_from_slice(extension.as_bytes());
        Some(name)
    }

    /// The last component of a folder's path, with a slash behind it or without, if that can be a name.
    pub(super) fn folder_name(&self) -> Option<Vec<u8>> {
        let path = self.uri.path().as_str();
        decoded(last_segment(path.strip_suffix('/').unwrap_or(path)))
    }
}

fn last_segment(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A segment of a path, decoded, if that can be a name in a folder.
fn decoded(segment: &str) -> Option<Vec<u8>> {
    let name: Vec<u8> = percent_decode_str(segment).collect();
    let is_fit =
        !matches!(&name[..], b"" | b"." | b"..") && !name.iter().any(|b| b"/\0".contains(b));
    is_fit.then_some(name)
}

/// A folder on a server: its path ends with a slash, and it has no query.
#[derive(Clone, Debug)]
pub(super) struct FolderUrl(HttpUrl);

/// What a folder's list names: something in the folder itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// As it stands in URLs, without a slash.
    pub(super) segment: Box<str>,
    pub(super) is_folder: bool,
}

/// Where a link in a list leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Entry(Entry),
    /// To what would be an entry, but that no file can have its name.
    Unfit,
    /// To the folder above, to another order of the list, to another server.
    Elsewhere,
}

impl FolderUrl {
    /// The folder that a URL is, if its path ends with a slash.
    pub(super) fn of(url: &HttpUrl) -> Option<Self> {
        let path = url.uri.path().as_str();
        let is_folder = path.is_empty() || path.ends_with('/');
        let folder = is_folder.then(|| follow(url, b"./").ok())?;
        folder.map(Self)
    }

    pub(super) fn url(&self) -> &HttpUrl {
        &self.0
    }

    fn path(&self) -> &str {
        self.0.uri.path().as_str()
    }

    /// What follows the folder's path in this URL's, if it is on the same server and beneath.
    fn rest<'u>(&self, url: &'u HttpUrl) -> Option<&'u str> {
        let (here, there) = (self.0.server(), url.server());
        let is_here = self.0.is_tls() == url.is_tls()
            && here.port == there.port
            && here.host.eq_ignore_ascii_case(&there.host);
        let rest = url.uri.path().as_str().strip_prefix(self.path());
        rest.filter(|_| is_here)
    }

    /// Whether this URL is the folder or lies beneath it, by whatever rules a server decodes its path.
    pub(super) fn holds(&self, url: &HttpUrl) -> bool {
        self.rest(url).is_some_and(|rest| {
            let folders = rest.strip_suffix('/').unwrap_or(rest);
            rest.is_empty() || folders.split('/').all(|segment| decoded(segment).is_some())
        })
    }

    /// Where a link in this folder's list leads.
    pub(super) fn link(&self, reference: &[u8]) -> Link {
        let Ok(url) = follow(&self.0, reference) else {
            return Link::Elsewhere;
        };
        let rest = self.rest(&url).filter(|_| !url.uri.has_query());
        let Some(rest) = rest else {
            return Link::Elsewhere;
        };
        let segment = rest.strip_suffix('/').unwrap_or(rest);
        if segment.is_empty() || segment.contains('/') {
            return Link::Elsewhere;
        }
        match decoded(segment) {
            None => Link::Unfit,
            Some(_) => Link::Entry(Entry {
                segment: segment.into(),
                is_folder: rest.ends_with('/'),
            }),
        }
    }

    /// The URL of an entry.
    pub(super) fn join(&self, entry: &Entry) -> HttpUrl {
        let slash = if entry.is_folder { "/" } else { "" };
        // A colon in it must not make a scheme of what stands before.
        let reference = format!("./{}{slash}", entry.segment);
        follow(&self.0, reference.as_bytes()).expect("it was resolved against this folder before")
    }
}

impl Entry {
    /// Its name, decoded.
    pub(super) fn name(&self) -> Vec<u8> {
        percent_decode_str(&self.segment).collect()
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

    fn folder(text: &str) -> Option<FolderUrl> {
        match parse(text.as_bytes()) {
            Ok(DownloadSource::Http(url)) => FolderUrl::of(&url),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_link_in_a_list_leads_to_an_entry_or_elsewhere() {
        assert!(folder("http://h/a").is_none());
        assert_eq!(folder("http://h").unwrap().url().identity(), "http://h/");
        let list = folder("http://H:1/a/b/?C=N;O=D").unwrap();
        assert_eq!(list.url().identity(), "http://H:1/a/b/");
        let entry = |segment: &str, is_folder| {
            let segment = segment.into();
            Link::Entry(Entry { segment, is_folder })
        };
        for (reference, expected) in [
            ("x", entry("x", false)),
            ("x/", entry("x", true)),
            ("./x:y", entry("x:y", false)),
            ("x#top", entry("x", false)),
            ("../b/x", entry("x", false)),
            ("/a/b/%78/", entry("%78", true)),
            ("http://h:1/a/b/x", entry("x", false)),
            ("x y[1]|", entry("x%20y%5B1%5D%7C", false)),
            ("..x", entry("..x", false)),
            ("x\n\u{202e}", entry("x%0A%E2%80%AE", false)),
            ("%2e%2e/", Link::Elsewhere),
            (".%2E", Link::Elsewhere),
            ("%2E", Link::Elsewhere),
            ("..%2fx", Link::Unfit),
            ("x%00", Link::Unfit),
            ("x%2Fy/", Link::Unfit),
            ("", Link::Elsewhere),
            ("./", Link::Elsewhere),
            ("../", Link::Elsewhere),
            ("/", Link::Elsewhere),
            ("..", Link::Elsewhere),
            ("../../../etc/passwd", Link::Elsewhere),
            ("?C=S;O=A", Link::Elsewhere),
            ("x?y", Link::Elsewhere),
            ("x/y", Link::Elsewhere),
            ("x//", Link::Elsewhere),
            ("//h:2/a/b/x", Link::Elsewhere),
            ("//i:1/a/b/x", Link::Elsewhere),
            ("https://h:1/a/b/x", Link::Elsewhere),
            ("http://me@h:1/a/b/x", Link::Elsewhere),
            ("x:y", Link::Elsewhere),
            ("mailto:x", Link::Elsewhere),
            ("javascript:x", Link::Elsewhere),
            ("%zz", Link::Elsewhere),
        ] {
            let link = list.link(reference.as_bytes());
            assert_eq!(link, expected, "{reference}");
            if let Link::Entry(entry) = link {
                let url = list.join(&entry);
                assert_eq!(
                    list.link(url.identity().as_bytes()),
                    expected,
                    "{reference}"
                );
                assert!(list.holds(&url), "{reference}");
            }
        }
    }

    #[test]
    fn a_folder_holds_what_is_beneath() {
        let list = folder("http://H:1/a/b/").unwrap();
        let holds = |location: &str| list.holds(&follow(list.url(), location.as_bytes()).unwrap());
        for inside in ["x", "x/y/", "", "x?y", "x/%2e%2E/y"] {
            assert!(holds(inside), "{inside}");
        }
        for outside in ["..", "x/..%2f", "x//", "/a/bb/", "/a/b", "//i/a/b/x"] {
            assert!(!holds(outside), "{outside}");
        }
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
