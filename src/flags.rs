//! What flags of several commands take: each value is read here, or refused with the words for what
//! the flag takes. Each command's own flags stand in its room (`args.rs`).

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgAction, Args};

use crate::limits;
use crate::units;

/// `-q` and `-v`, for every command.
#[derive(Args, Clone, Copy, Debug)]
pub struct Verbosity {
    /// Say less: warnings and errors only
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Say more; twice for everything
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
}

impl Verbosity {
    /// The log level that the flags ask for, if they ask for one.
    #[must_use]
    pub fn level(self) -> Option<log::LevelFilter> {
        match (self.quiet, self.verbose) {
            (true, _) => Some(log::LevelFilter::Warn),
            (false, 0) => None,
            (false, 1) => Some(log::LevelFilter::Debug),
            (false, _) => Some(log::LevelFilter::Trace),
        }
    }
}

/// Whom a client of TLS trusts.
#[derive(Args, Clone, Debug, Default)]
pub struct TrustArgs {
    /// Trust who is in this PEM file, not the system's authorities
    #[arg(long, value_name = "FILE")]
    pub cacert: Option<PathBuf>,

    /// Don't check who the server is: anybody on the way may read and change all
    #[arg(long, conflicts_with = "cacert")]
    pub insecure: bool,
}

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
pub(crate) struct Count {
    min: u64,
    max: u64,
}

impl Count {
    pub(crate) const fn new(min: u64, max: u64) -> Self {
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

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    units::parse_duration(text)
        .filter(|&duration| duration <= limits::DURATION_MAX)
        .ok_or_else(|| "takes a duration of at most a year, such as 10s or 250ms".into())
}

pub(crate) fn timeout(text: &str) -> Result<Duration, String> {
    duration(text)
        .ok()
        .filter(|&duration| duration >= Duration::from_millis(1))
        .ok_or_else(|| "takes a duration from 1ms to a year, such as 10s or 250ms".into())
}

pub(crate) fn size(text: &str) -> Result<u64, String> {
    units::parse_bytes(text)
        .filter(|size| (0..=1 << 40).contains(size))
        .ok_or_else(|| "takes a number of bytes, such as 0, 4096, 64kB or 16MiB".into())
}

pub(crate) fn encoding(label: &str) -> Result<&'static encoding_rs::Encoding, String> {
    encoding_rs::Encoding::for_label(label.as_bytes())
        .filter(|encoding| encoding.output_encoding() == *encoding)
        .ok_or_else(|| "takes the label of an encoding, such as gbk or utf-8".into())
}
