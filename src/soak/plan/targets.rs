//! The targets of the command line: a server, how it is spoken to, and what it is asked for.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustls::client::UnbufferedClientConnection;

use crate::escape::Escaped;
use crate::flags::{ServerAddress, TrustArgs};
use crate::limits::{CONNECT_TIMEOUT, NAME_BYTES_MAX};
use crate::soak::args::SoakArgs;
use crate::tls::client::{self, ALPN_HTTP, Connector};

/// What the command line names.
#[derive(Debug)]
pub struct Targets {
    /// The server, as the report names it.
    pub server: String,
    /// Its address.
    pub address: SocketAddr,
    /// How it is spoken to.
    pub protocol: TargetProtocol,
    /// How TLS is begun with it, if it is.
    pub tls: Option<TlsTarget>,
    /// What it may be asked for.
    pub names: Vec<RequestTemplate>,
}

/// How TLS is begun with a server.
#[derive(Debug)]
pub struct TlsTarget {
    connector: Connector,
    host: String,
    alpn: Option<&'static [u8]>,
}

impl TlsTarget {
    fn new(host: &str, alpn: Option<&'static [u8]>, args: &SoakArgs) -> Result<Self, String> {
        let TrustArgs { cacert, insecure } = &args.trust;
        let connector = Connector::new(cacert.as_deref(), *insecure);
        let connector = connector.map_err(|why| format!("--cacert: {why}"))?;
        let connector = if args.no_resumption {
            connector.without_resumption()
        } else {
            connector
        };
        connector.config()?;
        client::server_name(host)?;
        Ok(Self {
            connector,
            host: host.to_owned(),
            alpn,
        })
    }

    /// Begins a connection. Nothing is sent yet.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn begin(&self) -> io::Result<UnbufferedClientConnection> {
        let begun = self.connector.connect_unbuffered(&self.host, self.alpn);
        begun.map_err(io::Error::other)
    }
}

/// How a server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetProtocol {
    /// A name, and the bytes until the end of file.
    Bare,
    /// HTTP/1.1; whether a connection carries more than one request.
    Http {
        /// Whether it may.
        keep_alive: bool,
    },
}

/// Something to ask for.
#[derive(Debug)]
pub struct RequestTemplate {
    /// The name, or the path.
    pub shown: Box<[u8]>,
    /// What is sent for it.
    pub bytes: Rc<[u8]>,
}

impl Targets {
    /// What TARGET names.
    pub(super) fn new(args: &SoakArgs) -> Result<Self, String> {
        let targets: Vec<&[u8]> = args.targets.iter().map(|word| word.as_bytes()).collect();
        Self::of(&targets, args)
    }

    /// The same of the server that it is compared with.
    pub(super) fn versus(args: &SoakArgs) -> Result<Option<Self>, String> {
        let Some(versus) = &args.versus else {
            return Ok(None);
        };
        let versus = versus.as_bytes();
        let versus = versus.strip_suffix(b"/").unwrap_or(versus);
        if after_scheme(versus).is_some_and(|(_, server)| server.contains(&b'/')) {
            return Err(
                "--versus: it takes no path: it is asked for what the first server is".into(),
            );
        }
        let mut targets: Vec<Vec<u8>> = Vec::new();
        for (index, target) in args.targets.iter().enumerate() {
            let target = target.as_bytes();
            targets.push(match after_scheme(target) {
                Some((_, rest)) => {
                    let path = rest.iter().position(|&byte| byte == b'/');
                    [versus, &rest[path.unwrap_or(rest.len())..]].concat()
                }
                None if index == 0 => versus.to_vec(),
                None => target.to_vec(),
            });
        }
        let targets: Vec<&[u8]> = targets.iter().map(Vec::as_slice).collect();
        let other = Self::of(&targets, args).map_err(|error| format!("--versus: {error}"))?;
        Ok(Some(other))
    }

    fn of(targets: &[&[u8]], args: &SoakArgs) -> Result<Self, String> {
        let from_file = args.names_from.as_deref().map(names_in).transpose()?;
        let from_file = from_file.unwrap_or_default();
        let scheme = after_scheme(targets[0]).map(|(scheme, _)| scheme);
        let is_http = scheme.is_some();
        let (address, server, names) = if is_http {
            http_names(targets, from_file, args)?
        } else {
            bare_names(targets, from_file, args)?
        };
        if names.is_empty() {
            return Err("there is no name to ask for: NAME or --names-from gives some".into());
        }
        let protocol = if is_http {
            TargetProtocol::Http {
                keep_alive: !args.no_keep_alive,
            }
        } else {
            TargetProtocol::Bare
        };
        if args.tls && is_http {
            return Err("--tls is for HOST:PORT; a URL says https://".into());
        }
        let tls = match scheme {
            Some(Scheme::Https) => Some(TlsTarget::new(&address.host, Some(ALPN_HTTP), args)?),
            None if args.tls => Some(TlsTarget::new(&address.host, None, args)?),
            _ => None,
        };
        if tls.is_none() && args.no_resumption {
            return Err("--no-resumption is for https:// and --tls".into());
        }
        Ok(Self {
            server,
            address: resolve(&address)?,
            protocol,
            tls,
            names,
        })
    }
}

/// What a URL begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

impl Scheme {
    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http://",
            Self::Https => "https://",
        }
    }
}

/// A URL's scheme, and what follows it.
fn after_scheme(target: &[u8]) -> Option<(Scheme, &[u8])> {
    let mut schemes = [Scheme::Http, Scheme::Https].into_iter();
    schemes.find_map(|scheme| Some((scheme, target.strip_prefix(scheme.as_str().as_bytes())?)))
}

/// Where a server is, how the report names it, and what it is asked for.
type Understood = (ServerAddress, String, Vec<RequestTemplate>);

fn bare_names(
    targets: &[&[u8]],
    mut names: Vec<Vec<u8>>,
    args: &SoakArgs,
) -> Result<Understood, String> {
    if args.no_keep_alive {
        return Err("--no-keep-alive is for http:// and https://".into());
    }
    let text = String::from_utf8_lossy(targets[0]);
    let server: ServerAddress = text.parse().map_err(|takes| {
        format!(
            "TARGET: '{}' won't do: it {takes}, or http[s]://HOST:PORT/PATH",
            Escaped(targets[0])
        )
    })?;
    if let Some(url) = targets.iter().find(|word| after_scheme(word).is_some()) {
        return Err(format!("'{}': names and URLs don't mix", Escaped(url)));
    }
    names.splice(0..0, targets[1..].iter().map(|name| name.to_vec()));
    let bytes = |shown: Vec<u8>| {
        if shown.is_empty() || shown.len() > NAME_BYTES_MAX || shown.contains(&b'\n') {
            let name = Escaped(&shown);
            return Err(format!(
                "'{name}': a name takes 1 to {NAME_BYTES_MAX} bytes and no LF"
            ));
        }
        let mut bytes = shown.clone();
        if !args.unterminated {
            bytes.push(b'\n');
        }
        Ok(RequestTemplate {
            shown: shown.into(),
            bytes: bytes.into(),
        })
    };
    let names = names.into_iter().map(bytes).collect::<Result<_, _>>()?;
    Ok((server, text.into_owned(), names))
}

/// A host as it is looked up, and what of it no server is told: the link that a link-local address is
/// on (RFC 6874).
fn split_zone(host: &str) -> (String, &str) {
    let bare = host.trim_matches(['[', ']']);
    match bare.split_once('%') {
        Some((address, zone)) => {
            let zone = zone.strip_prefix("25").unwrap_or(zone);
            (format!("{address}%{zone}"), &bare[address.len()..])
        }
        None => (bare.to_owned(), ""),
    }
}

/// The port that a URL names, or its scheme's.
fn port_of(authority: &http::uri::Authority, scheme: Scheme) -> Option<u16> {
    match authority.as_str().rsplit_once(':') {
        // The brackets of an address hold colons, too; an empty port is the default one (RFC 3986, 3.2.3).
        Some((_, port)) if !port.is_empty() && !port.ends_with(']') => {
            port.parse().ok().filter(|&port| port != 0)
        }
        _ => Some(match scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }),
    }
}

const TAKES_URL: &str = "it takes http[s]://HOST:PORT/PATH";

fn http_names(
    targets: &[&[u8]],
    from_file: Vec<Vec<u8>>,
    args: &SoakArgs,
) -> Result<Understood, String> {
    if args.unterminated {
        return Err("--unterminated is for the bare protocol".into());
    }
    let scheme = after_scheme(targets[0]).map_or(Scheme::Http, |(scheme, _)| scheme);
    let mut authority = None;
    let mut paths = Vec::new();
    for url in targets {
        let wont_do = |why: &str| format!("'{}' won't do: {why}", Escaped(url));
        let uri: http::Uri = std::str::from_utf8(url)
            .ok()
            .filter(|text| after_scheme(text.as_bytes()).is_some())
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| wont_do(TAKES_URL))?;
        let this = uri
            .authority()
            .cloned()
            .filter(|authority| !authority.as_str().contains('@'));
        let this = this.ok_or_else(|| wont_do(TAKES_URL))?;
        let is_scheme = url.starts_with(scheme.as_str().as_bytes());
        if authority.get_or_insert_with(|| this.clone()) != &this || !is_scheme {
            return Err(wont_do("all must be of one server"));
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        paths.push(path.as_bytes().to_vec());
    }
    let authority = authority.ok_or("there is no URL")?;
    if args.names_from.is_some() && paths == [b"/"] {
        // It only names the server.
        paths.clear();
    }
    for mut path in from_file {
        if path[0] != b'/' {
            path.insert(0, b'/');
        }
        if path
            .iter()
            .any(|byte| byte.is_ascii_control() || *byte == b' ')
        {
            return Err(format!(
                "'{}': a path takes no space and no control character",
                Escaped(&path)
            ));
        }
        paths.push(path);
    }
    let close = if args.no_keep_alive {
        "Connection: close\r\n"
    } else {
        ""
    };
    let (host, zone) = split_zone(authority.host());
    let host_field = authority.as_str().replacen(zone, "", 1);
    let tail = format!(" HTTP/1.1\r\nHost: {host_field}\r\nUser-Agent: carafe-soak\r\n{close}\r\n");
    let name = |path: Vec<u8>| {
        let bytes = [b"GET ", &path[..], tail.as_bytes()].concat().into();
        RequestTemplate {
            shown: path.into(),
            bytes,
        }
    };
    let port = port_of(&authority, scheme)
        .ok_or_else(|| format!("'{}' won't do: a port is 1 to 65535", Escaped(targets[0])))?;
    let server = ServerAddress { host, port };
    let target = format!("{}{authority}", scheme.as_str());
    Ok((server, target, paths.into_iter().map(name).collect()))
}

fn names_in(path: &Path) -> Result<Vec<Vec<u8>>, String> {
    let text = fs::read(path).map_err(|error| {
        let path = Escaped(path.as_os_str().as_bytes());
        format!("--names-from: '{path}' can't be read: {error}")
    })?;
    let lines = text.split(|&byte| byte == b'\n');
    let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut seen = HashSet::new();
    Ok(lines
        .filter(|line| !line.is_empty() && seen.insert(*line))
        .map(<[u8]>::to_vec)
        .collect())
}

/// The server's address. Of several, the first one that answers, as other clients choose.
fn resolve(server: &ServerAddress) -> Result<SocketAddr, String> {
    let host = || Escaped(server.host.as_bytes());
    let addresses: Vec<_> = (server.host.as_str(), server.port)
        .to_socket_addrs()
        .map_err(|error| format!("{}: {error}", host()))?
        .collect();
    let answers =
        |address: &&SocketAddr| TcpStream::connect_timeout(address, CONNECT_TIMEOUT).is_ok();
    let several = addresses.len() > 1;
    let first = addresses.iter().find(|address| several && answers(address));
    first
        .or(addresses.first())
        .copied()
        .ok_or_else(|| format!("{} has no address", host()))
}

impl RequestTemplate {
    /// The file that it means, beneath a folder. A path is percent-encoded and may have a query.
    pub(super) fn file_in(&self, folder: &Path, protocol: TargetProtocol) -> PathBuf {
        let name = match protocol {
            TargetProtocol::Bare => self.shown.to_vec(),
            TargetProtocol::Http { .. } => {
                let mut parts = self.shown.split(|&byte| byte == b'?');
                percent_encoding::percent_decode(parts.next().unwrap_or_default()).collect()
            }
        };
        let slashes = name.iter().take_while(|&&byte| byte == b'/').count();
        folder.join(OsStr::from_bytes(&name[slashes..]))
    }
}
