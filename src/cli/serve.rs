//! The flags of `carafe serve`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};

use super::shared::ListenArgs;
use super::values::{Count, ServerAddress, log_format, port, size, socket_address, timeout};
use crate::http::mime::Override;
use crate::limits;
use crate::root::DotFiles;
use crate::telemetry::access_log::LogFormat;

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

    /// Loops that serve side by side, each on a thread and with listeners of its own
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 1, value_parser = Count::new(1, limits::WORKERS_MAX))]
    pub workers: u64,

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
    #[arg(long, value_name = "TIME", default_value = "60s", allow_hyphen_values = true, value_parser = timeout)]
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

    /// Where clients find this server, as Gopher menus say it [default: the address that each has connected to]
    #[arg(long, value_name = "HOST:PORT", value_parser = ServerAddress::from_str)]
    pub gopher_host: Option<ServerAddress>,

    /// Serve names that begin with a dot: all of them, or this one; may be repeated
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = ALL_DOTFILES,
          value_parser = OsStringValueParser::new().try_map(hidden_name))]
    pub hidden: Vec<OsString>,

    /// Append a line for every reply to this file, or to standard output for -
    #[arg(long, value_name = "FILE")]
    pub access_log: Option<PathBuf>,

    /// How its lines look: combined or json [default: combined]
    #[arg(long, value_name = "FORMAT", value_parser = log_format)]
    pub log_format: Option<LogFormat>,

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

    /// What is wrong with flags that are each right.
    pub(super) fn contradiction(&self) -> Option<String> {
        if let (Some(format), None) = (self.log_format, &self.access_log) {
            return Some(format!(
                "--log-format: '{format}' won't do: it takes an --access-log whose lines it is for"
            ));
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
        self.listen.contradiction()
    }
}

/// A name that a folder's index can have.
fn index_name(name: OsString) -> Result<OsString, &'static str> {
    let bytes = name.as_encoded_bytes();
    if bytes.contains(&b'/') || bytes.starts_with(b".") {
        return Err("takes a file's name without a slash, and without a dot in front");
    }
    Ok(name)
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
