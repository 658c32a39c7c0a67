//! Flags that several commands share.

use std::net::SocketAddr;
use std::time::Duration;

use clap::builder::TypedValueParser as _;
use clap::{ArgAction, Args};

use super::values::{Count, address, duration, timeout};
use crate::limits;

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

/// What `get` and `say` share.
#[derive(Args, Clone, Copy, Debug)]
pub struct ClientArgs {
    /// Time for the connection to be set up
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, default_value = "10s", value_parser = timeout)]
    pub connect_timeout: Duration,

    /// Give up when nothing moves for so long
    #[arg(short, long, value_name = "TIME", allow_hyphen_values = true, default_value = "60s", value_parser = timeout)]
    pub timeout: Duration,

    /// Give up when all of it takes longer, tries and rests included
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = timeout)]
    pub max_time: Option<Duration>,

    /// How much is said on stderr.
    #[command(flatten)]
    pub verbosity: Verbosity,
}

/// What `serve` and `thank` share.
#[derive(Args, Debug)]
pub struct ListenArgs {
    /// Address to listen on; may be repeated [default: all, IPv6 and IPv4]
    #[arg(short, long, value_name = "ADDR", value_parser = address)]
    pub bind: Vec<SocketAddr>,

    /// Length of the accept queue
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = limits::BACKLOG,
          value_parser = Count::new(1, 1 << 30).try_map(i32::try_from))]
    pub backlog: i32,

    /// Accept clients before they have said anything
    #[arg(long)]
    pub no_defer_accept: bool,

    /// Clients at once; more of them wait in the accept queue [default: by the descriptor limit]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = Count::new(1, 1 << 30))]
    pub max_connections: Option<u64>,

    /// Time from accept to the end of the request
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, default_value = "10s", value_parser = timeout)]
    pub request_timeout: Duration,

    /// Time to finish what is under way after SIGTERM, SIGINT or SIGQUIT
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, default_value = "30s", value_parser = duration)]
    pub drain: Duration,

    /// How much is said on stderr.
    #[command(flatten)]
    pub verbosity: Verbosity,
}

impl ListenArgs {
    /// Whether a listener for clients and one on this address would get in each other's way.
    pub(super) fn covers(&self, mut address: SocketAddr) -> bool {
        address.set_port(0);
        let mut bound = self.bind.iter();
        self.bind.is_empty() || bound.any(|&bound| overlap(bound, address))
    }

    /// An address that another one includes can't be bound: two listeners would want its clients.
    pub(super) fn contradiction(&self) -> Option<String> {
        let is_wildcard_pair =
            |a: SocketAddr, b: SocketAddr| a.ip().is_unspecified() && b.ip().is_unspecified();
        self.bind.iter().enumerate().find_map(|(index, &second)| {
            let first = self.bind[..index].iter().copied();
            let first = first
                .filter(|&first| overlap(first, second))
                // These two share the families among them.
                .find(|&first| first == second || !is_wildcard_pair(first, second))?;
            let (first, second) = (first.ip(), second.ip());
            Some(format!(
                "--bind: '{second}' won't do: it takes what '{first}' has already"
            ))
        })
    }
}

/// Whether one address includes the other. All of IPv6 includes IPv4, since one socket takes both.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let includes = |all: SocketAddr, one: SocketAddr| {
        all.ip().is_unspecified() && (all.is_ipv6() || one.is_ipv4())
    };
    a == b || includes(a, b) || includes(b, a)
}
