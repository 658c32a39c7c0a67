//! The flags of `carafe serve` and `carafe thank`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use clap::Args;
use clap::builder::{OsStringValueParser, PathBufValueParser, TypedValueParser as _};

use super::address::ListenAddress;
use crate::flags::{Count, ServerAddress, Verbosity, duration, encoding, size, timeout};
use crate::http::custom_fields::{AllowedOrigin, CustomField, CustomFields, FieldRule};
use crate::http::mime::{ContentTypes, Override};
use crate::limits;
use crate::peer::proxies::TrustedProxy;
use crate::protocol::http::{ErrorPage, Pages};
use crate::root::DotFiles;
use crate::telemetry::access_log::LogFormat;
use crate::tls::certificates::PairFiles;
use crate::trace::file::TraceFormat;

/// `carafe serve`.
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// The folder to serve
    #[arg(value_name = "ROOT", default_value = ".")]
    pub root: PathBuf,

    /// Port to listen on; 0 takes a free one
    #[arg(short, long, value_name = "N", allow_negative_numbers = true, default_value_t = 7890, value_parser = port)]
    pub port: u16,

    /// What the loop is given.
    #[command(flatten)]
    pub listen: ListenArgs,

    /// Believe this proxy, or network of such, for whom it speaks: by a PROXY header, or X-Forwarded-For; unix is all unix sockets; may be repeated
    #[arg(long, value_name = "CIDR", value_parser = TrustedProxy::from_str)]
    pub trusted_proxy: Vec<TrustedProxy>,

    /// Serve as this user, once the ports are bound; takes a start as root
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,

    /// Leave this process all files and system calls of its user
    #[arg(long)]
    pub no_sandbox: bool,

    /// Loops that serve side by side, each on a thread and with listeners of its own
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 1, value_parser = Count::new(1, limits::WORKERS_MAX))]
    pub workers: u64,

    /// Connections of one address at once, or of one /64 of IPv6; 0 for no limit [default: a quarter of all, 64 at least]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = Count::new(0, 1 << 30))]
    pub max_connections_per_client: Option<u64>,

    /// Bytes a second that a connection is sent at most
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true, value_parser = rate)]
    pub limit_rate: Option<u64>,

    /// Files that are open at the same time [default: a quarter of the descriptor limit]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = Count::new(1, 1 << 30))]
    pub open_files: Option<u64>,

    /// Memory for files that are asked for again, all that belongs to them included; 0 keeps none
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true, default_value = "64MiB", value_parser = size)]
    pub cache: u64,

    /// Silence after which an unterminated name is taken as it stands
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, default_value = "1s", value_parser = timeout)]
    pub name_gap: Duration,

    /// Reset a client that acknowledges nothing, or too little, for so long while a file is sent to it
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, default_value = "60s", value_parser = timeout)]
    pub stall_timeout: Duration,

    /// Bytes a second that a client must take over the stall timeout; 0 asks for one byte at all
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true, default_value = "64", value_parser = size)]
    pub min_rate: u64,

    /// Reset a client whose file's disk doesn't answer for so long
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, default_value = "60s", value_parser = timeout)]
    pub disk_timeout: Duration,

    /// How long a connection that was kept alive may say nothing
    #[arg(long, value_name = "TIME", default_value = "75s", allow_hyphen_values = true, value_parser = timeout)]
    pub keep_alive: Duration,

    /// A name ends at its LF or at end of file only
    #[arg(long)]
    pub exact_names: bool,

    /// HTTP: the file that stands for its folder; an empty name for none
    #[arg(long, value_name = "NAME", default_value = "index.html",
          value_parser = OsStringValueParser::new().try_map(index_name))]
    pub index: OsString,

    /// List folders: a page, JSON, or a Gopher menu for clients of the bare protocol
    #[arg(long)]
    pub listing: bool,

    /// HTTP: the type of files with this extension, * for all others; may be repeated
    #[arg(long, value_name = "EXT=TYPE", value_parser = Override::from_str)]
    pub mime: Vec<Override>,

    /// HTTP: the type of files of which nothing else is known
    #[arg(long, value_name = "TYPE", value_parser = Override::of_unknown)]
    pub default_type: Option<Override>,

    /// HTTP: a file beneath ROOT that is sent with an error's status; may be repeated
    #[arg(long, value_name = "STATUS=FILE", value_parser = OsStringValueParser::new().try_map(error_page))]
    pub error_page: Vec<ErrorPage>,

    /// HTTP: a file beneath ROOT that browsers show where there is nothing
    #[arg(long, value_name = "FILE")]
    pub spa: Option<OsString>,

    /// HTTP: /x brings x.html, and /x.html leads there
    #[arg(long)]
    pub clean_urls: bool,

    /// HTTP: send x.br, x.zst or x.gz for x to clients that take it
    #[arg(long)]
    pub precompressed: bool,

    /// HTTP: what ETags are made of: version (of the file on this machine) or content (its bytes, equal on all machines)
    #[arg(long, value_name = "KIND", default_value = "version", value_parser = tag_source)]
    pub etag: TagSource,

    /// HTTP: a field of every answer; may be repeated
    #[arg(long, value_name = "NAME: VALUE", value_parser = CustomField::from_str)]
    pub header: Vec<CustomField>,

    /// HTTP: a field of answers with files whose path beneath ROOT matches; may be repeated
    #[arg(long, value_name = "GLOB=NAME: VALUE", value_parser = FieldRule::from_str)]
    pub header_for: Vec<FieldRule>,

    /// HTTP: what Cache-Control says of files whose path beneath ROOT matches; may be repeated
    #[arg(long, value_name = "GLOB=VALUE", value_parser = FieldRule::cache_control)]
    pub cache_control: Vec<FieldRule>,

    /// HTTP: let pages of other sites read answers: those of all sites, or of this one; may be repeated
    #[arg(long, value_name = "ORIGIN", num_args = 0..=1, require_equals = true, default_missing_value = "*",
          value_parser = AllowedOrigin::from_str)]
    pub cors: Vec<AllowedOrigin>,

    /// HTTP: say in Server-Timing where the time went until the answer was made
    #[arg(long)]
    pub server_timing: bool,

    /// Where clients find this server, as Gopher menus say it [default: the address that each has connected to]
    #[arg(long, value_name = "HOST:PORT", value_parser = ServerAddress::from_str)]
    pub gopher_host: Option<ServerAddress>,

    /// Serve names that begin with a dot: all of them, or this one; may be repeated
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = ALL_DOTFILES,
          value_parser = OsStringValueParser::new().try_map(hidden_name))]
    pub hidden: Vec<OsString>,

    /// Who speaks TLS, and how.
    #[command(flatten)]
    pub tls: TlsArgs,

    /// Append a line for every reply to this file, or to standard output for -
    #[arg(long, value_name = "FILE")]
    pub access_log: Option<PathBuf>,

    /// How its lines look: combined or json [default: combined]
    #[arg(long, value_name = "FORMAT", value_parser = log_format)]
    pub log_format: Option<LogFormat>,

    /// Write what the loop did and why to this file, at the end and on SIGUSR1: a page (.html), or for Perfetto (.json)
    #[arg(long, value_name = "FILE", value_parser = PathBufValueParser::new().try_map(trace_file))]
    pub trace: Option<PathBuf>,

    /// How much of it: what happened in so much time before it is written [default: 60s]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = timeout)]
    pub trace_for: Option<Duration>,

    /// Listen here for GET /metrics and GET /healthz
    #[arg(long, value_name = "ADDR:PORT", value_parser = socket_address)]
    pub metrics: Option<SocketAddr>,
}

/// What `--hidden` stands for alone.
const ALL_DOTFILES: &str = "*";

impl ServeArgs {
    /// Which names that begin with a dot are served.
    #[must_use]
    pub fn dotfiles(&self) -> DotFiles {
        if self.hidden.iter().any(|name| name == ALL_DOTFILES) {
            return DotFiles::AllowAll;
        }
        let names = self
            .hidden
            .iter()
            .map(|name| name.as_encoded_bytes().into());
        DotFiles::Allow(names.collect())
    }

    /// The types of files.
    #[must_use]
    pub fn content_types(&self) -> ContentTypes {
        ContentTypes::new(self.default_type.iter().chain(&self.mime).cloned())
    }

    /// The pages that stand for others.
    #[must_use]
    pub fn pages(&self) -> Pages {
        let spa = self.spa.as_ref();
        Pages {
            clean_urls: self.clean_urls,
            spa: spa.map(|file| file.as_encoded_bytes().into()),
            errors: self.error_page.clone(),
        }
    }

    /// The fields to add to answers.
    ///
    /// # Errors
    /// They are too much; the text says so.
    pub fn custom_fields(&self) -> Result<CustomFields, String> {
        let rules = [&self.header_for[..], &self.cache_control].concat();
        let fields = CustomFields::new(self.header.clone(), rules, &self.cors);
        let fields = fields.map_err(|error| {
            format!("--header-for, --cache-control: these globs won't do together: {error}")
        })?;
        match fields.bytes_max() {
            ..=limits::CUSTOM_FIELDS_BYTES_MAX => Ok(fields),
            bytes => Err(format!(
                "--header, --header-for, --cache-control: {bytes} bytes won't do: together they take {} \
                 at most",
                limits::CUSTOM_FIELDS_BYTES_MAX
            )),
        }
    }

    /// What is wrong with flags that are each right.
    pub(crate) fn contradiction(&self) -> Option<String> {
        if let Err(line) = self.custom_fields() {
            return Some(line);
        }
        if self.cors.len() > 1 && self.cors.iter().any(AllowedOrigin::is_all) {
            return Some("--cors: '*' won't do beside others: it is all of them".into());
        }
        if let (Some(format), None) = (self.log_format, &self.access_log) {
            return Some(format!(
                "--log-format: '{format}' won't do: it takes an --access-log whose lines it is for"
            ));
        }
        if let (None, Some(_)) = (&self.trace, self.trace_for) {
            return Some("--trace-for: takes a --trace whose time it is".into());
        }
        if let Some(metrics) = self.metrics
            && metrics.port() == self.port
            && self.port != 0
            && self.listen.covers(metrics)
        {
            return Some(format!(
                "--metrics: '{metrics}' won't do: clients come in there (-p {}): it takes another \
                 port",
                self.port
            ));
        }
        if let Some(rate) = self.limit_rate
            && rate < 2 * self.min_rate
        {
            return Some(format!(
                "--limit-rate: '{rate}' won't do: it takes twice --min-rate ({}) at least, since who is sent \
                 no more must not lose its place for it",
                self.min_rate
            ));
        }
        self.tls
            .contradiction()
            .or_else(|| self.listen.contradiction())
    }
}

/// TLS in `carafe serve`.
#[derive(Args, Clone, Debug)]
pub struct TlsArgs {
    /// Speak TLS, too: a certificate and its chain, in PEM; may be repeated, the client's server name chooses
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Vec<PathBuf>,

    /// The private key of the certificate, in PEM; one for each, in the same order
    #[arg(long, value_name = "FILE")]
    pub tls_key: Vec<PathBuf>,

    /// Refuse clients without TLS; HTTP is sent to https
    #[arg(long)]
    pub tls_only: bool,

    /// HTTP: browsers that have come by TLS shall come by nothing else, for a year or for TIME
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, allow_hyphen_values = true,
          default_missing_value = HSTS_AGE, value_parser = duration)]
    pub hsts: Option<Duration>,
}

/// What `--hsts` stands for alone. The list of those that browsers know without a visit takes no less
/// (hstspreload.org).
const HSTS_AGE: &str = "365d";

impl TlsArgs {
    /// Each certificate's file and its key's.
    #[must_use]
    pub fn pairs(&self) -> Vec<PairFiles> {
        let files = self.tls_cert.iter().zip(&self.tls_key);
        let pair = |(certificate, key): (&PathBuf, &PathBuf)| PairFiles {
            certificate: certificate.clone(),
            key: key.clone(),
        };
        files.map(pair).collect()
    }

    fn contradiction(&self) -> Option<String> {
        let (certificates, keys) = (self.tls_cert.len(), self.tls_key.len());
        if certificates != keys {
            let (flag, other) = if certificates < keys {
                ("--tls-key", "--tls-cert")
            } else {
                ("--tls-cert", "--tls-key")
            };
            return Some(format!("{flag}: each takes a {other} that goes with it"));
        }
        let lone = match (certificates, self.tls_only, self.hsts) {
            (0, true, _) => "--tls-only",
            (0, _, Some(_)) => "--hsts",
            _ => return None,
        };
        Some(format!("{lone}: takes a --tls-cert and its --tls-key"))
    }
}

fn rate(text: &str) -> Result<u64, String> {
    size(text)
        .ok()
        .filter(|&rate| rate >= limits::LIMIT_RATE_BYTES_MIN)
        .ok_or_else(|| "takes a number of bytes of at least 4096, such as 64kB or 1MiB".into())
}

/// A name that a folder's index can have.
fn index_name(name: OsString) -> Result<OsString, &'static str> {
    let bytes = name.as_encoded_bytes();
    if bytes.contains(&b'/') || bytes.starts_with(b".") {
        return Err("takes a file's name without a slash, and without a dot in front");
    }
    Ok(name)
}

fn error_page(text: OsString) -> Result<ErrorPage, String> {
    ErrorPage::parse(text.as_encoded_bytes())
}

/// A name that is hidden without `--hidden`.
fn hidden_name(name: OsString) -> Result<OsString, &'static str> {
    let bytes = name.as_encoded_bytes();
    let is_dotfile = bytes.starts_with(b".") && !matches!(bytes, b"." | b"..");
    if name == ALL_DOTFILES || (is_dotfile && !bytes.contains(&b'/')) {
        return Ok(name);
    }
    Err("takes a name that begins with a dot, such as .nojekyll, or nothing")
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

/// What `serve` and `thank` share.
#[derive(Args, Debug)]
pub struct ListenArgs {
    /// Address to listen on, or unix:PATH; may be repeated [default: all, IPv6 and IPv4]
    #[arg(short, long, value_name = "ADDR", value_parser = OsStringValueParser::new().try_map(ListenAddress::parse))]
    pub bind: Vec<ListenAddress>,

    /// Permissions of the files of unix sockets, such as 660 [default: as the umask has it]
    #[arg(long, value_name = "MODE", value_parser = socket_mode)]
    pub socket_mode: Option<u32>,

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
    fn covers(&self, mut address: SocketAddr) -> bool {
        address.set_port(0);
        self.bind.is_empty() || self.ip_addresses().any(|bound| overlap(bound, address))
    }

    /// The addresses that aren't those of unix sockets.
    pub(crate) fn ip_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.bind.iter().filter_map(ListenAddress::ip)
    }

    /// An address that another one includes can't be bound: two listeners would want its clients.
    pub(crate) fn contradiction(&self) -> Option<String> {
        use ListenAddress::{Ip, Unix};
        if self.socket_mode.is_some() && self.ip_addresses().count() == self.bind.len() {
            return Some("--socket-mode: takes a --bind unix:PATH whose file it is for".to_owned());
        }
        let is_wildcard_pair =
            |a: SocketAddr, b: SocketAddr| a.ip().is_unspecified() && b.ip().is_unspecified();
        let clash = |first: &ListenAddress, second: &ListenAddress| match (first, second) {
            // These two share the families among them.
            (&Ip(a), &Ip(b)) => a == b || (overlap(a, b) && !is_wildcard_pair(a, b)),
            (Unix(a), Unix(b)) => a == b,
            _ => false,
        };
        let shown = |address: &ListenAddress| match address {
            Ip(address) => address.ip().to_string(),
            unix => unix.to_string(),
        };
        self.bind.iter().enumerate().find_map(|(index, second)| {
            let first = self.bind[..index]
                .iter()
                .find(|first| clash(first, second))?;
            let (first, second) = (shown(first), shown(second));
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

fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "takes a port, 0 to 65535".into())
}

fn socket_mode(text: &str) -> Result<u32, &'static str> {
    let mode = u32::from_str_radix(text, 8)
        .ok()
        .filter(|&mode| mode <= 0o777);
    mode.ok_or("takes permissions in octal, such as 600, 660 or 666")
}

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "takes ADDR:PORT, such as 127.0.0.1:9100 or [::1]:9100".into())
}

fn trace_file(path: PathBuf) -> Result<PathBuf, &'static str> {
    TraceFormat::of(&path)
        .map(|_| path)
        .ok_or("takes a file whose name ends in .html or .json")
}

/// What entity tags of files are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagSource {
    /// What this machine's file system says of them.
    Version,
    /// Their bytes.
    Content,
}

fn tag_source(text: &str) -> Result<TagSource, String> {
    match text {
        "version" => Ok(TagSource::Version),
        "content" => Ok(TagSource::Content),
        _ => Err("takes version or content".into()),
    }
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "combined" => Ok(LogFormat::Combined),
        "json" => Ok(LogFormat::Json),
        _ => Err("takes combined or json".into()),
    }
}
