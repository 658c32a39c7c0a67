//! Where a server listens: an IP address and a port, or a unix socket's file.

use std::ffi::OsString;
use std::fmt::{self, Display};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs as _};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use socket2::SockRef;

use crate::escape::Escaped;
use crate::limits::UNIX_PATH_BYTES_MAX;

/// Where clients come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// An address; its port is zero while none is known.
    Ip(SocketAddr),
    /// A unix socket's file. One that systemd passed may have a name without a file, which begins with
    /// `@` here (unix(7), abstract).
    Unix(PathBuf),
}

impl ListenAddress {
    /// As `--bind` takes it.
    ///
    /// # Errors
    /// What it takes.
    pub(crate) fn parse(text: OsString) -> Result<Self, String> {
        if let Some(path) = text.as_bytes().strip_prefix(UNIX.as_bytes()) {
            return match path {
                // Elsewhere that is one without a file, whose permissions nobody could set.
                [b'@', ..] => Err(format!(
                    "takes a path behind {UNIX}; that of a file whose name begins with @ is ./@NAME"
                )),
                _ if (1..=UNIX_PATH_BYTES_MAX).contains(&path.len()) && !path.contains(&0) => {
                    Ok(Self::Unix(OsString::from_vec(path.to_vec()).into()))
                }
                _ => Err(format!(
                    "takes a path of 1 to {UNIX_PATH_BYTES_MAX} bytes behind {UNIX}"
                )),
            };
        }
        address(&text.to_string_lossy()).map(Self::Ip)
    }

    /// Where a socket listens.
    ///
    /// # Errors
    /// It has no such address.
    pub(crate) fn of(socket: &impl AsFd) -> io::Result<Self> {
        let address = SockRef::from(socket).local_addr()?;
        let abstract_name = || {
            let name = [b"@", address.as_abstract_namespace()?].concat();
            Some(Path::new(&OsString::from_vec(name)).to_owned())
        };
        if let Some(ip) = address.as_socket() {
            return Ok(Self::Ip(ip));
        }
        let path = address.as_pathname().map(Path::to_owned);
        let path = path.or_else(abstract_name);
        path.map(Self::Unix)
            .ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    /// `None` for a unix socket.
    #[must_use]
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

/// What stands before a unix socket's path.
const UNIX: &str = "unix:";

impl Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", Escaped(path.as_os_str().as_bytes())),
        }
    }
}

/// An address to listen on, with no port yet. One that is good on a link only has its zone behind it
/// (RFC 4007, section 11).
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    if let Some(address) = zoned(bare) {
        return address;
    }
    bare.parse()
        .map(|address: IpAddr| (address, 0).into())
        .map_err(|_| {
            "takes an IP address, such as 127.0.0.1, ::1 or fe80::1%eth0, or unix:PATH".into()
        })
}

/// An IPv6 address with a zone: the name of an interface, or its number.
fn zoned(text: &str) -> Option<Result<SocketAddr, String>> {
    let (address, zone) = text.split_once('%')?;
    let address: Ipv6Addr = address.parse().ok()?;
    let known = || (text, 0).to_socket_addrs().ok()?.next();
    let by_number = zone.parse().ok();
    let by_number = by_number.map(|zone| SocketAddrV6::new(address, 0, 0, zone).into());
    let found = by_number.or_else(known);
    Some(found.ok_or_else(|| format!("takes an interface of this machine, and '{zone}' is none")))
}
