//! The flags of `carafe say`, and of `carafe thank`, which answers it.

use std::time::Duration;

use clap::Args;

use super::shared::{ClientArgs, ListenArgs};
use super::values::{ServerAddress, encoding, port, timeout};

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
