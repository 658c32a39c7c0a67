//! The flags of `carafe soak`.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::part::Part;
use super::population::Mix;
use super::threshold::Conditions;
use crate::flags::{Count, TrustArgs, size, timeout};

/// `carafe soak`.
#[derive(Args, Clone, Debug)]
pub struct SoakArgs {
    /// A server and names, or URLs.
    #[arg(
        value_name = "TARGET",
        required = true,
        help = "HOST:PORT and names, or one or more http[s]://HOST:PORT/PATH"
    )]
    pub targets: Vec<OsString>,

    /// Compare with another server, which is asked the same in the same run: HOST:PORT, or http://HOST:PORT
    #[arg(long, value_name = "TARGET")]
    pub versus: Option<OsString>,

    /// Read more names (or paths) from a file, one a line
    #[arg(long, value_name = "FILE")]
    pub names_from: Option<PathBuf>,

    /// Ask for names by Zipf's law, the first one most often; S is its exponent
    #[arg(long, value_name = "S", num_args = 0..=1, default_missing_value = "1", value_parser = exponent)]
    pub zipf: Option<f64>,

    /// Clients at once; with --rate, at most so many [default: 10; with --rate, what descriptors allow]
    #[arg(short, long, value_name = "N", value_parser = Count::new(1, 1 << 20))]
    pub clients: Option<u64>,

    /// Arrivals a second, whatever the server does (open model); for --find, from which to which
    #[arg(short = 'q', long, value_name = "N", value_parser = Rates::from_str)]
    pub rate: Option<Rates>,

    /// Search for the highest --rate FROM..TO at which this holds; each step takes --duration
    #[arg(
        long, value_name = "CONDITION,...", value_parser = Conditions::from_str,
        conflicts_with_all = ["versus", "part", "requests", "ramp"]
    )]
    pub find: Option<Conditions>,

    /// How long load is offered [default: 10s, or without end with -n]
    #[arg(short = 'z', long, value_name = "TIME", allow_hyphen_values = true, value_parser = timeout)]
    pub duration: Option<Duration>,

    /// How many requests are started at most
    #[arg(short = 'n', long, value_name = "N", value_parser = Count::new(1, 1 << 50))]
    pub requests: Option<u64>,

    /// Reach the full load over this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = timeout)]
    pub ramp: Option<Duration>,

    /// One of several generators that share the load, each started with the same flags: this one is the second
    /// of four by 2/4
    #[arg(long, value_name = "K/N", value_parser = Part::from_str)]
    pub part: Option<Part>,

    /// Begin the load then: 2026-05-06T07:08:09Z, or seconds of the Unix epoch
    #[arg(long, value_name = "TIME", value_parser = start)]
    pub start_at: Option<Timestamp>,

    /// Who the clients are: shares of fast, slow, abort, halfclose, split, idle
    #[arg(long, value_name = "KIND=N%,...", default_value = "fast=100%", value_parser = Mix::from_str)]
    pub mix: Mix,

    /// How fast a slow client reads, a second
    #[arg(long, value_name = "BYTES", default_value = "16KiB", value_parser = bytes)]
    pub slow_rate: u64,

    /// A slow client's receive buffer
    #[arg(long, value_name = "BYTES", default_value = "4KiB", value_parser = bytes)]
    pub slow_buffer: u64,

    /// How long a split client waits between the pieces of its name; under the server's name gap
    #[arg(long, value_name = "TIME", default_value = "50ms", allow_hyphen_values = true, value_parser = timeout)]
    pub split_pause: Duration,

    /// Bare protocol: send names without their LF, as the tutorial's client does
    #[arg(long)]
    pub unterminated: bool,

    /// HTTP: a connection for each request
    #[arg(long)]
    pub no_keep_alive: bool,

    /// Ask HOST:PORT for names by TLS
    #[arg(long)]
    pub tls: bool,

    /// Whom it trusts.
    #[command(flatten)]
    pub trust: TrustArgs,

    /// TLS: a full handshake for each connection
    #[arg(long)]
    pub no_resumption: bool,

    /// Replays a run's choices [default: another one each time, which the report names]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// Spread clients over these local addresses, such as 127.0.1.0/28
    #[arg(long, value_name = "CIDR", value_parser = source)]
    pub source: Option<ipnet::IpNet>,

    /// Compare every body with the first download of its name
    #[arg(long)]
    pub verify: bool,

    /// Compare every body with the file of that name in this folder
    #[arg(long, value_name = "DIR")]
    pub against: Option<PathBuf>,

    /// A request fails when nothing moves for so long
    #[arg(short, long, value_name = "TIME", default_value = "10s", allow_hyphen_values = true, value_parser = timeout)]
    pub timeout: Duration,

    /// Watch the server's process; with --versus, the other one's, too, by a second --pid
    #[arg(long, value_name = "PID", value_parser = Count::new(1, 1 << 30))]
    pub pid: Vec<u64>,

    /// How often the server is looked at [default: 200 times, but each 50ms to 1s; each 250ms with -n]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = timeout)]
    pub sample_every: Option<Duration>,

    /// What counts for no slope at the beginning [default: a fifth of the run, a minute at most]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = timeout)]
    pub warm_up: Option<Duration>,

    /// Pause the load so often, to judge leaks while nobody is there [default: three times, but each 10m
    /// at least]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = timeout)]
    pub quiet_every: Option<Duration>,

    /// How long the server may take to come to rest when the last client has gone
    #[arg(long, value_name = "TIME", default_value = "5s", allow_hyphen_values = true, value_parser = timeout)]
    pub settle: Duration,

    /// What makes the run fail, beside corrupt>0 and short>0 [default: errors>0, with --pid also
    /// fd_left>0,rss_leak>0/h,fd_leak>0/h; of two servers errors>0,p50.diff>5%,p99.diff>5%, watched also
    /// cpu.diff>5%]
    #[arg(long, value_name = "CONDITION,...", value_parser = Conditions::from_str)]
    pub fail_if: Option<Conditions>,

    /// Write the report as JSON; - is standard output, and the text goes to stderr then
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Write the report as an HTML page (or to -)
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,

    /// Write the thresholds as JUnit's XML, a test case each (or to -)
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,

    /// Write a summary in Markdown, such as for $GITHUB_STEP_SUMMARY (or to -)
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,

    /// Write the latencies as HdrHistogram's interval log, V2 (or to -)
    #[arg(long, value_name = "FILE")]
    pub hdr: Option<PathBuf>,

    /// No live view
    #[arg(long)]
    pub quiet: bool,
}

impl SoakArgs {
    /// What `compare` and `merge` take, which load nobody: the other flags would say nothing.
    pub const OF_REPORTS: [&str; 8] = [
        "targets", "fail_if", "json", "report", "junit", "summary", "hdr", "quiet",
    ];

    /// `compare` or `merge`, if it is that.
    #[must_use]
    pub fn of_reports(&self) -> Option<&str> {
        let first = self.targets.first()?.to_str()?;
        ["compare", "merge"].contains(&first).then_some(first)
    }
}

/// Arrivals a second: one rate, or from one to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// The lower one.
    pub from: f64,
    /// The higher one, which may be the same.
    pub to: f64,
}

impl FromStr for Rates {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((from, to)) = text.split_once("..") else {
            let rate = rate(text)?;
            return Ok(Self {
                from: rate,
                to: rate,
            });
        };
        let (from, to) = (rate(from)?, rate(to)?);
        if from < to {
            Ok(Self { from, to })
        } else {
            Err("takes the lower rate first".into())
        }
    }
}

fn exponent(text: &str) -> Result<f64, String> {
    number(text)
        .filter(|exponent| (0.0..=10.0).contains(exponent))
        .ok_or_else(|| "takes an exponent from 0 to 10".into())
}

fn rate(text: &str) -> Result<f64, String> {
    number(text)
        .filter(|&rate| (1e-3..=1e7).contains(&rate))
        .ok_or_else(|| "takes a number of arrivals a second, from 0.001 to 10000000".into())
}

fn start(text: &str) -> Result<Timestamp, String> {
    let seconds = text
        .parse()
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok());
    seconds
        .or_else(|| text.parse().ok())
        .ok_or_else(|| "takes a time such as 2026-05-06T07:08:09Z, or 1778051289".into())
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok()
}

fn bytes(text: &str) -> Result<u64, String> {
    size(text)
        .ok()
        .filter(|&size| size > 0)
        .ok_or_else(|| "takes a number of bytes, such as 4096, 64kB or 16KiB".into())
}

fn source(text: &str) -> Result<ipnet::IpNet, String> {
    text.parse()
        .or_else(|_| text.parse::<IpAddr>().map(ipnet::IpNet::from))
        .map_err(|_| "takes addresses of this machine, such as 127.0.1.0/28".into())
}
