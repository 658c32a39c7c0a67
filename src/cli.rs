//! The command line: the flags, what they take, and what they mean to the rooms below.
//! A bad value is refused here, in one line that names the flag, the value and what it takes.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::escape::EscapedText;
use crate::limits;
use crate::telemetry::access_log::Format as LogFormat;
use crate::units;

mod help;
mod serve;
mod soak;

pub use serve::{ListenArgs, ServeArgs};
pub use soak::SoakArgs;

/// carafe pours files: clients connect, name a file, get its bytes.
#[derive(Debug, Parser)]
#[command(name = "carafe", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The five programs in one.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve a folder's files to everyone who names one
    Serve(ServeArgs),
    /// Download files by name
    Get(GetArgs),
    /// Print each client's text and answer "thank you !"
    Thank(ThankArgs),
    /// Send a text and print the reply
    Say(SayArgs),
    /// Load a server with clients of all kinds, and tell the truth about it
    Soak(Box<SoakArgs>),
}

impl Command {
    /// What is wrong with flags that are each right.
    fn contradiction(&self) -> Option<String> {
        match self {
            Self::Serve(args) => args.contradiction(),
            Self::Thank(args) => args.listen.contradiction(),
            Self::Get(_) | Self::Say(_) | Self::Soak(_) => None,
        }
    }
}

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

/// `carafe get`.
#[derive(Args, Debug)]
#[command(
    override_usage = "carafe get [OPTIONS] HOST:PORT NAME...\n       carafe get [OPTIONS] URL..."
)]
pub struct GetArgs {
    /// A server, or a URL.
    #[arg(
        value_name = "HOST:PORT|URL",
        help = "A server, or a URL: http://HOST[:PORT]/PATH, gopher://HOST[:PORT]/9NAME; \
                without it, carafe asks for ip, port and name"
    )]
    pub first: Option<First>,

    /// Names of files on the server, or more URLs
    #[arg(value_name = "NAME|URL")]
    pub names: Vec<OsString>,

    /// Where to write instead of the default.
    #[arg(
        short,
        long,
        value_name = "FILE",
        conflicts_with = "remote_name",
        help = "Write to this file, or to standard output for - [default: the remote name, with \
                [接收] before a NAME]"
    )]
    pub output: Option<PathBuf>,

    /// Keep the remote name.
    #[arg(
        short = 'O',
        long,
        help = "Keep the remote name of a NAME, too, without [接收]"
    )]
    pub remote_name: bool,

    /// Write files there; it is made if need be
    #[arg(
        short = 'P',
        long = "directory-prefix",
        value_name = "DIR",
        conflicts_with = "output"
    )]
    pub directory: Option<PathBuf>,

    /// Downloads at once
    #[arg(short, long, value_name = "N", allow_negative_numbers = true, default_value_t = 1, value_parser = Count::new(1, limits::JOBS_MAX))]
    pub jobs: u64,

    /// How often an HTTP download that broke is tried again, from where it broke
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = limits::RETRIES, value_parser = Count::new(0, 1 << 30))]
    pub retries: u64,

    /// The rest before the first new try; each later one is twice as long, up to 30s
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, default_value = "1s", value_parser = duration)]
    pub retry_delay: Duration,

    /// The SHA-256 that the one file must have to get its name
    #[arg(long, value_name = "HEX", value_parser = sha256)]
    pub sha256: Option<String>,

    /// Send the name without the LF that ends it
    #[arg(long)]
    pub unterminated: bool,

    /// How long to wait and how much to say.
    #[command(flatten)]
    pub patience: ClientArgs,
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

/// `carafe thank`.
#[derive(Args, Debug)]
pub struct ThankArgs {
    /// Port to listen on; 0 takes a free one
    #[arg(short, long, value_name = "N", allow_negative_numbers = true, default_value_t = 7788, value_parser = port)]
    pub port: u16,

    /// What the loop is given.
    #[command(flatten)]
    pub listen: ListenArgs,

    /// Silence after which a text that ends in half a character is taken as it stands
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, default_value = "1s", value_parser = timeout)]
    pub text_gap: Duration,

    /// End after one client's text
    #[arg(long)]
    pub once: bool,

    /// How texts are encoded, by a WHATWG label such as gbk or utf-8
    #[arg(long, value_name = "NAME", default_value = "gbk", value_parser = encoding)]
    pub encoding: &'static encoding_rs::Encoding,
}

/// `carafe say`.
#[derive(Args, Debug)]
pub struct SayArgs {
    /// The server; carafe asks for what is missing
    #[arg(value_name = "HOST:PORT")]
    pub server: Option<ServerAddress>,

    /// What to say
    #[arg(value_name = "TEXT")]
    pub text: Option<String>,

    /// How texts are encoded, by a WHATWG label such as gbk or utf-8
    #[arg(long, value_name = "NAME", default_value = "gbk", value_parser = encoding)]
    pub encoding: &'static encoding_rs::Encoding,

    /// How long to wait and how much to say.
    #[command(flatten)]
    pub patience: ClientArgs,
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

/// What `get` is told first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum First {
    /// A server of the bare protocol; names follow.
    Server(ServerAddress),
    /// A URL, which is looked at later; others follow.
    Url(String),
}

impl FromStr for First {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            return Ok(Self::Url(text.into()));
        }
        text.parse()
            .map(Self::Server)
            .map_err(|takes: String| format!("{takes}, or a URL"))
    }
}

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Everything asked for was done.
    Done,
    /// It failed in a way that has no number of its own.
    Failed,
    /// The command line could not be used.
    Usage,
    /// `get`: the file could not be written here.
    FileIo,
    /// `get`, `say`: no connection, a broken one, or silence.
    Network,
    /// `get`: what the server says is no HTTP, or leads nowhere.
    Protocol,
    /// `get`: the server has no such file, or an empty one; over HTTP, it answered with an error.
    NoFile,
    /// `get`: the file has another SHA-256 than it must have.
    Mismatch,
    /// `soak`: it could not run, or not offer the load.
    NotOffered,
    /// A second signal ended it at once; its number.
    Signal(u8),
}

impl From<Exit> for ExitCode {
    /// The numbers are wget's, and a shell's for signals.
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::FileIo | Exit::NotOffered => 3,
            Exit::Network => 4,
            Exit::Protocol => 7,
            Exit::NoFile => 8,
            // The first number that wget leaves free.
            Exit::Mismatch => 9,
            Exit::Signal(number) => 128 + number,
        })
    }
}

/// Parses the program's arguments.
///
/// # Errors
/// `Err` holds what to print and how to end: help and version are no failures, and a bad value is
/// one line.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, (String, Exit)> {
    let parsed = help::arrange(Cli::command())
        .try_get_matches_from(args)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    match parsed {
        Ok(cli) => match cli.command.contradiction() {
            Some(line) => Err((format!("carafe: {}\n", EscapedText(&line)), Exit::Usage)),
            None => Ok(cli.command),
        },
        Err(error) if !error.use_stderr() => Err((error.to_string(), Exit::Done)),
        Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Err((error.to_string(), Exit::Usage))
        }
        Err(error) => Err((format!("carafe: {}\n", one_line(&error)), Exit::Usage)),
    }
}

/// clap's message in one line, with one hint for all.
fn one_line(error: &clap::Error) -> String {
    let context = |kind| error.get(kind).map(ToString::to_string);
    let line = match (
        error.kind(),
        context(ContextKind::InvalidArg),
        context(ContextKind::InvalidValue),
        std::error::Error::source(error),
    ) {
        (ErrorKind::ValueValidation, Some(flag), Some(value), Some(takes)) => {
            let flag = flag
                .split([' ', '='])
                .next()
                .unwrap_or(&flag)
                .trim_matches(['<', '>', '[', ']']);
            format!("{flag}: '{value}' won't do: it {takes}")
        }
        _ => {
            let text = error.to_string();
            let first = text.split("\n\n").next().unwrap_or(&text);
            let words: Vec<_> = first.split_whitespace().collect();
            let what = words.join(" ");
            let what = what.trim_start_matches("error: ");
            let meant = [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg];
            let nearest = meant.into_iter().find_map(|kind| nearest(error.get(kind)?));
            let unknown = context(ContextKind::InvalidSubcommand);
            match (nearest, unknown) {
                (Some(word), _) => format!("{what}; did you mean '{word}'?"),
                (None, Some(word)) if word.contains("://") => {
                    format!("{what}; did you mean 'get {word}'?")
                }
                (None, Some(word)) if Path::new(&word).is_dir() => {
                    format!("{what}; did you mean 'serve {word}'?")
                }
                (None, _) => format!("{what}; --help shows what there is"),
            }
        }
    };
    EscapedText(&line).to_string()
}

/// The likeliest of clap's suggestions, which it puts last.
fn nearest(suggestions: &ContextValue) -> Option<&str> {
    match suggestions {
        ContextValue::String(word) => Some(word),
        ContextValue::Strings(words) => words.last().map(String::as_str),
        _ => None,
    }
}

/// Parses a whole number between two bounds, both included.
#[derive(Clone, Copy, Debug)]
struct Count {
    min: u64,
    max: u64,
}

impl Count {
    const fn new(min: u64, max: u64) -> Self {
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

fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "takes a port, 0 to 65535".into())
}

/// An address to listen on, with no port yet. One that is good on a link only has its zone behind it
/// (RFC 4007, section 11).
fn address(text: &str) -> Result<SocketAddr, String> {
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

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "takes ADDR:PORT, such as 127.0.0.1:9100 or [::1]:9100".into())
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "combined" => Ok(LogFormat::Combined),
        "json" => Ok(LogFormat::Json),
        _ => Err("takes combined or json".into()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    units::parse_duration(text)
        .filter(|&duration| duration <= limits::DURATION_MAX)
        .ok_or_else(|| "takes a duration of at most a year, such as 10s or 250ms".into())
}

fn timeout(text: &str) -> Result<Duration, String> {
    duration(text)
        .ok()
        .filter(|&duration| duration >= Duration::from_millis(1))
        .ok_or_else(|| "takes a duration from 1ms to a year, such as 10s or 250ms".into())
}

fn size(text: &str) -> Result<u64, String> {
    units::parse_bytes(text)
        .filter(|size| (0..=1 << 40).contains(size))
        .ok_or_else(|| "takes a number of bytes, such as 0, 4096, 64kB or 16MiB".into())
}

/// 32 bytes in hexadecimal digits; the letters become small.
fn sha256(text: &str) -> Result<String, String> {
    let is_digest = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digest = is_digest.then(|| text.to_ascii_lowercase());
    digest.ok_or_else(|| "takes 64 hexadecimal digits".into())
}

fn encoding(label: &str) -> Result<&'static encoding_rs::Encoding, String> {
    encoding_rs::Encoding::for_label(label.as_bytes())
        .filter(|encoding| encoding.output_encoding() == *encoding)
        .ok_or_else(|| "takes the label of an encoding, such as gbk or utf-8".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &str) -> Result<Command, (String, Exit)> {
        parse(words.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_flag_table_is_sound() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_default_in_the_help_is_the_default_in_limits() {
        let Ok(Command::Serve(args)) = parse_words("carafe serve") else {
            panic!("serve parses")
        };
        assert_eq!(args.name_gap, limits::NAME_GAP);
        assert_eq!(args.stall_timeout, limits::STALL_TIMEOUT);
        assert_eq!(args.disk_timeout, limits::DISK_TIMEOUT);
        assert_eq!(args.keep_alive, limits::KEEP_ALIVE);
        assert_eq!(args.listen.request_timeout, limits::REQUEST_TIMEOUT);
        assert_eq!(args.listen.drain, limits::DRAIN);
        let Ok(Command::Get(args)) = parse_words("carafe get") else {
            panic!("get parses")
        };
        assert_eq!(args.retry_delay, limits::RETRY_DELAY);
        assert_eq!(args.patience.connect_timeout, limits::CONNECT_TIMEOUT);
        assert_eq!(args.patience.timeout, limits::CLIENT_TIMEOUT);
    }

    /// A command line, and what its complaint contains.
    const BAD_VALUES: &[(&str, &str)] = &[
        (
            "serve -p 70000",
            "--port: '70000' won't do: it takes a port, 0 to 65535",
        ),
        (
            "serve --bind lo",
            "--bind: 'lo' won't do: it takes an IP address",
        ),
        (
            "serve --bind fe80::1%nosuch0",
            "--bind: 'fe80::1%nosuch0' won't do: it takes an interface of this machine, and 'nosuch0' is none",
        ),
        (
            "serve --bind 127.0.0.1%lo",
            "--bind: '127.0.0.1%lo' won't do: it takes an IP address",
        ),
        (
            "serve --backlog 0",
            "--backlog: '0' won't do: it takes a whole number from 1 to",
        ),
        (
            "serve --workers 0",
            "--workers: '0' won't do: it takes a whole number from 1 to 512",
        ),
        (
            "serve --name-gap 0s",
            "--name-gap: '0s' won't do: it takes a duration from 1ms",
        ),
        (
            "serve --drain 10",
            "--drain: '10' won't do: it takes a duration",
        ),
        (
            "serve --stall-timeout 900years",
            "--stall-timeout: '900years' won't do",
        ),
        (
            "serve --metrics localhost:9100",
            "--metrics: 'localhost:9100' won't do: it takes ADDR:PORT",
        ),
        (
            "serve --mime foo=bar",
            "--mime: 'foo=bar' won't do: it takes EXT=TYPE with a media type such as text/plain",
        ),
        (
            "serve --mime a/b=text/plain",
            "--mime: 'a/b=text/plain' won't do: it takes EXT=TYPE with an extension such as log",
        ),
        (
            "serve --mime log",
            "--mime: 'log' won't do: it takes EXT=TYPE, as in log=text/plain",
        ),
        (
            "serve --index a/b",
            "--index: 'a/b' won't do: it takes a file's name without a slash",
        ),
        (
            "serve --index ../x",
            "--index: '../x' won't do: it takes a file's name without a slash, and without a dot in front",
        ),
        (
            "serve --index .x",
            "--index: '.x' won't do: it takes a file's name",
        ),
        (
            "serve --hidden=x",
            "--hidden: 'x' won't do: it takes a name that begins with a dot",
        ),
        (
            "serve --hidden=.a/b",
            "--hidden: '.a/b' won't do: it takes a name that begins with a dot",
        ),
        (
            "serve --log-format xml",
            "--log-format: 'xml' won't do: it takes combined or json",
        ),
        (
            "thank --encoding klingon",
            "--encoding: 'klingon' won't do: it takes the label",
        ),
        (
            "get localhost a",
            "HOST:PORT|URL: 'localhost' won't do: it takes HOST:PORT, such as localhost:7890 \
                 or [::1]:7890, or a URL",
        ),
        (
            "get ::1:80 a",
            "HOST:PORT|URL: '::1:80' won't do: it takes HOST:PORT",
        ),
        (
            "get h:0 a",
            "HOST:PORT|URL: 'h:0' won't do: it takes HOST:PORT",
        ),
        (
            "serve -p -1",
            "--port: '-1' won't do: it takes a port, 0 to 65535",
        ),
        (
            "serve --drain -1s",
            "--drain: '-1s' won't do: it takes a duration",
        ),
        (
            "serve --no-such",
            "unexpected argument '--no-such' found; --help shows",
        ),
        ("serve -q -v", "cannot be used with"),
        (
            "serve --listings",
            "unexpected argument '--listings' found; did you mean '--listing'?",
        ),
        (
            "pour",
            "unrecognized subcommand 'pour'; --help shows what there is",
        ),
        (
            "serv",
            "unrecognized subcommand 'serv'; did you mean 'serve'?",
        ),
        (
            "..",
            "unrecognized subcommand '..'; did you mean 'serve ..'?",
        ),
        (
            "http://h/x",
            "unrecognized subcommand 'http://h/x'; did you mean 'get http://h/x'?",
        ),
        (
            "serve --log-format json",
            "--log-format: 'json' won't do: it takes an --access-log whose lines it is for",
        ),
        (
            "serve --metrics 127.0.0.1:7890",
            "--metrics: '127.0.0.1:7890' won't do: clients come in there (-p 7890): it takes \
             another port",
        ),
        (
            "serve -p 80 -b ::1 --metrics [::]:80",
            "--metrics: '[::]:80' won't do: clients come in there (-p 80)",
        ),
        (
            "serve -b 127.0.0.1 -b 127.0.0.1",
            "--bind: '127.0.0.1' won't do: it takes what '127.0.0.1' has already",
        ),
        (
            "thank -b :: -b 127.0.0.1",
            "--bind: '127.0.0.1' won't do: it takes what '::' has already",
        ),
    ];

    #[test]
    fn a_bad_value_is_one_line_with_flag_value_and_what_it_takes() {
        for (words, expected) in BAD_VALUES {
            let Err((message, exit)) = parse_words(&format!("carafe {words}")) else {
                panic!("{words} is refused")
            };
            assert_eq!(exit, Exit::Usage, "{words}");
            assert!(message.contains(expected), "{words}: {message}");
            assert_eq!(message.matches('\n').count(), 1, "{words}: {message}");
        }
    }

    #[test]
    fn flags_that_only_look_alike_are_no_contradiction() {
        for words in [
            "serve --log-format json --access-log -",
            "serve --metrics 127.0.0.1:7891",
            "serve -p 0 --metrics 127.0.0.1:0",
            "serve -b ::1 --metrics 127.0.0.1:7890",
            "serve -b 0.0.0.0 -b :: --metrics 127.0.0.1:7891",
            "serve -b 0.0.0.0 -b ::1",
        ] {
            let parsed = parse_words(&format!("carafe {words}"));
            assert!(parsed.is_ok(), "{words}: {parsed:?}");
        }
    }

    #[test]
    fn addresses_with_a_zone() {
        let zone = |text: &str| match address(text) {
            Ok(SocketAddr::V6(address)) => address.scope_id(),
            other => panic!("{other:?}"),
        };
        // The loopback is the first interface everywhere.
        assert_eq!(zone("fe80::1%lo"), 1);
        assert_eq!(zone("[fe80::1%lo]"), 1);
        assert_eq!(zone("fe80::1%7"), 7);
        assert_eq!(zone("fe80::1"), 0);
    }

    #[test]
    fn addresses_of_servers() {
        let parse = |text: &str| text.parse::<ServerAddress>().map(|a| (a.host, a.port));
        assert_eq!(parse("[::1]:7890"), Ok(("::1".into(), 7890)));
        assert_eq!(parse("localhost:1"), Ok(("localhost".into(), 1)));
        for bad in [
            "",
            ":",
            "h:",
            ":1",
            "h:65536",
            "[]:1",
            "http://h:1",
            "[::1:1",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
