//! The flags of `carafe get` and `carafe say`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use crate::flags::{Count, ServerAddress, TrustArgs, Verbosity, duration, encoding, timeout};
use crate::limits;

/// `carafe get`.
#[derive(Args, Debug)]
#[command(
    override_usage = "carafe get [OPTIONS] HOST:PORT NAME...\n       carafe get [OPTIONS] URL...\n       \
                      carafe get -r [OPTIONS] URL..."
)]
pub struct GetArgs {
    /// A server, or a URL.
    #[arg(
        value_name = "HOST:PORT|URL",
        help = "A server, or a URL: http[s]://HOST[:PORT]/PATH, gopher://HOST[:PORT]/9NAME; \
                without it, carafe asks for ip, port and name"
    )]
    pub first: Option<Origin>,

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

    /// Fetch all that a folder's list names, and the lists beneath, into a folder of that name
    #[arg(short, long, conflicts_with = "sha256")]
    pub recursive: bool,

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

    /// Ask HOST:PORT for names by TLS
    #[arg(long)]
    pub tls: bool,

    /// Whom it trusts.
    #[command(flatten)]
    pub trust: TrustArgs,

    /// Follow redirects from https down to http, too
    #[arg(long)]
    pub allow_downgrade: bool,

    /// How long to wait and how much to say.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// What `get` is told first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A server of the bare protocol; names follow.
    Server(ServerAddress),
    /// A URL, which is looked at later; others follow.
    Url(String),
}

impl FromStr for Origin {
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
    pub client: ClientArgs,
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

/// 32 bytes in hexadecimal digits; the letters become small.
fn sha256(text: &str) -> Result<String, String> {
    let is_digest = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digest = is_digest.then(|| text.to_ascii_lowercase());
    digest.ok_or_else(|| "takes 64 hexadecimal digits".into())
}
