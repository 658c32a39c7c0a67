//! The clients: blocking sockets, one thing after the other; several downloads on as many threads.

pub mod args;
pub mod get;
pub mod say;

mod backoff;
mod bare;
mod connection;
mod http;
mod http_client;
mod interrupt;
mod list;
mod local_name;
mod mirror;
mod output;
mod part_file;
mod pool;
mod progress;
mod prompt;
mod resume;
mod run;
mod target_dir;
mod transfer;
mod url;
