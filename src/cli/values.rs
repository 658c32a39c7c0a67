//! What flags take: each value is read here, or refused with the words for what the flag takes.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs as _};
use std::str::FromStr;
use std::time::Duration;

use crate::limits;
use crate::telemetry::access_log::LogFormat;
use crate::units;

/// A server to connect to: a host name or an address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    /// A name to resolve, or an address without brackets.
    pub host: String,
    /// A TCP port, 1 to 65535.
    pub port: u16,
}

impl FromStr for ServerAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const TAKES: &str = "takes HOST:PORT, such as localhost:7890 or [::1]:7890";
        let (host, port) = text.rsplit_once(':').ok_or(TAKES)?;
        let host = match host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            Some(address) => address,
            None if host.contains([':', '/', '[', ']']) => return Err(TAKES.into()),
            None => host,
        };
        let port = port.parse().ok().filter(|&port| port != 0).ok_or(TAKES)?;
        if host.is_empty() {
            return Err(TAKES.into());
        }
        Ok(Self {
            host: host.into(),
            port,
        })
    }
}

/// Parses a whole number between two bounds, both included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count {
    min: u64,
    max: u64,
}

impl Count {
    pub(super) const fn new(min: u64, max: u64) -> Self {
        Self { min, max }
    }
}

impl clap::builder::TypedValueParser for Count {
    type Value = u64;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<u64, clap::Error> {
        let Self { min, max } = *self;
        let parse = move |text: &str| {
            text.parse()
                .ok()
                .filter(|number| (min..=max).contains(number))
                .ok_or_else(|| format!("takes a whole number from {min} to {max}"))
        };
        clap::builder::TypedValueParser::parse_ref(&parse, command, arg, value)
    }
}

pub(super) fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "takes a port, 0 to 65535".into())
}

/// An address to listen on, with no port yet. One that is good on a link only has its zone behind it
/// (RFC 4007, section 11).
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    if let Some(address) = zoned(bare) {
        return address;
    }
    bare.parse()
        .map(|address: IpAddr| (address, 0).into())
        .map_err(|_| "takes an IP address, such as 127.0.0.1, ::1 or fe80::1%eth0".into())
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

pub(super) fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "takes ADDR:PORT, such as 127.0.0.1:9100 or [::1]:9100".into())
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "combined" => Ok(LogFormat::Combined),
        "json" => Ok(LogFormat::Json),
        _ => Err("takes combined or json".into()),
    }
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    units::parse_duration(text)
        .filter(|&duration| duration <= limits::DURATION_MAX)
        .ok_or_else(|| "takes a duration of at most a year, such as 10s or 250ms".into())
}

pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    duration(text)
        .ok()
        .filter(|&duration| duration >= Duration::from_millis(1))
        .ok_or_else(|| "takes a duration from 1ms to a year, such as 10s or 250ms".into())
}

pub(super) fn size(text: &str) -> Result<u64, String> {
    units::parse_bytes(text)
        .filter(|size| (0..=1 << 40).contains(size))
        .ok_or_else(|| "takes a number of bytes, such as 0, 4096, 64kB or 16MiB".into())
}

/// 32 bytes in hexadecimal digits; the letters become small.
pub(super) fn sha256(text: &str) -> Result<String, String> {
    let is_digest = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digest = is_digest.then(|| text.to_ascii_lowercase());
    digest.ok_or_else(|| "takes 64 hexadecimal digits".into())
}

pub(super) fn encoding(label: &str) -> Result<&'static encoding_rs::Encoding, String> {
    encoding_rs::Encoding::for_label(label.as_bytes())
        .filter(|encoding| encoding.output_encoding() == *encoding)
        .ok_or_else(|| "takes the label of an encoding, such as gbk or utf-8".into())
}
