//! The header in front of a connection that a proxy has made for a client (HAProxy's proxy-protocol.txt), in
//! either version: bytes in, for whom they speak out.

use std::net::{IpAddr, SocketAddr};

use ppp::{v1, v2};

use crate::http::request::{Sniffed, sniff};
use crate::limits::PROXY_HEADER_BYTES_MAX;

/// For whom a proxy speaks.
#[derive(Debug, PartialEq)]
pub(super) enum SpeaksFor {
    /// It has left.
    Nobody,
    /// Its own checks, or requests that name their clients.
    Itself,
    /// A client, which may have come by a unix socket.
    Client(Option<SocketAddr>),
}

/// What the first bytes of a proxy's connection are.
#[derive(Debug, PartialEq)]
pub(super) enum Frame {
    /// They may become a header, or HTTP.
    Unclear,
    /// A header, of which more will come.
    Partial,
    /// A header of so many bytes.
    Whole(usize),
    /// HTTP, or TLS, in which it may be.
    None,
}

pub(super) const NO_HEADER: &str = "there is neither a PROXY header nor HTTP";
const TOO_LONG: &str = "its PROXY header is too long";

/// The version and the command of a header of version 2 that says nothing of a client.
pub(super) const VERSION_2_LOCAL: u8 = 0x20;

/// The first bytes of version 1, up to the protocol.
const VERSION_1: &[u8] = b"PROXY ";

/// The longest header of version 1 (proxy-protocol.txt, 2.1).
const VERSION_1_BYTES_MAX: usize = 107;

/// What version 2 has in front of its addresses: a prefix, and in the last two bytes the length of the rest
/// (proxy-protocol.txt, 2.2).
pub(super) const VERSION_2_HEAD_BYTES: usize = 16;

/// How much of that prefix an HTTP client may send, too: empty lines.
const EMPTY_LINES_BYTES: usize = 4;

/// A record of TLS's handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// What they are, or why they may not be there.
pub(super) fn frame(bytes: &[u8]) -> Result<Frame, &'static str> {
    if bytes.starts_with(v2::PROTOCOL_PREFIX) {
        let Some(&[high, low]) = bytes.get(VERSION_2_HEAD_BYTES - 2..VERSION_2_HEAD_BYTES) else {
            return Ok(Frame::Partial);
        };
        let length = VERSION_2_HEAD_BYTES + usize::from(u16::from_be_bytes([high, low]));
        return match length {
            ..=PROXY_HEADER_BYTES_MAX if length <= bytes.len() => Ok(Frame::Whole(length)),
            ..=PROXY_HEADER_BYTES_MAX => Ok(Frame::Partial),
            _ => Err(TOO_LONG),
        };
    }
    if bytes.starts_with(VERSION_1) {
        let line = &bytes[..bytes.len().min(VERSION_1_BYTES_MAX)];
        return match line.iter().position(|&byte| byte == b'\n') {
            Some(end) => Ok(Frame::Whole(end + 1)),
            None if line.len() < VERSION_1_BYTES_MAX => Ok(Frame::Partial),
            None => Err(TOO_LONG),
        };
    }
    if v2::PROTOCOL_PREFIX.starts_with(bytes) && bytes.len() > EMPTY_LINES_BYTES {
        return Ok(Frame::Partial);
    }
    if VERSION_1.starts_with(bytes) || v2::PROTOCOL_PREFIX.starts_with(bytes) {
        return Ok(Frame::Unclear);
    }
    if bytes.first() == Some(&TLS_HANDSHAKE) {
        return Ok(Frame::None);
    }
    match sniff(bytes) {
        Sniffed::Http | Sniffed::Simple(_) | Sniffed::Maybe { whole_method: true } => {
            Ok(Frame::None)
        }
        Sniffed::Maybe { .. } | Sniffed::Empty => Ok(Frame::Unclear),
        Sniffed::Name => Err(NO_HEADER),
    }
}

/// For whom a whole header speaks, or what is wrong with it.
pub(super) fn parse(header: &[u8]) -> Result<SpeaksFor, String> {
    if header.starts_with(VERSION_1) {
        let header = v1::Header::try_from(header).map_err(|error| error.to_string())?;
        let client = match header.addresses {
            v1::Addresses::Unknown => return Ok(SpeaksFor::Itself),
            v1::Addresses::Tcp4(ip) => client(ip.source_address, ip.source_port),
            v1::Addresses::Tcp6(ip) => client(ip.source_address, ip.source_port),
        };
        // ppp takes a port with a sign.
        if header.header.contains('+') {
            return Err("a port is no number".to_owned());
        }
        return Ok(client);
    }
    // What stands behind this command means nothing, the family included.
    if header.get(v2::PROTOCOL_PREFIX.len()) == Some(&VERSION_2_LOCAL) {
        return Ok(SpeaksFor::Itself);
    }
    let header = v2::Header::try_from(header).map_err(|error| error.to_string())?;
    Ok(match header.addresses {
        v2::Addresses::Unspecified => SpeaksFor::Itself,
        v2::Addresses::IPv4(ip) => client(ip.source_address, ip.source_port),
        v2::Addresses::IPv6(ip) => client(ip.source_address, ip.source_port),
        v2::Addresses::Unix(_) => SpeaksFor::Client(None),
    })
}

fn client(ip: impl Into<IpAddr>, port: u16) -> SpeaksFor {
    SpeaksFor::Client(Some(SocketAddr::new(ip.into(), port)))
}
