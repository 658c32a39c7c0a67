//! The clients: blocking sockets, one thing after the other; several downloads on as many threads.

pub mod get;
pub mod say;

mod bare;
mod connection;
mod fetch;
mod http;
mod interrupt;
mod local_name;
mod pool;
mod progress;
mod prompt;
mod resume;
mod retry;
mod target;
mod transfer;
mod url;

use crate::failure::{Failure, tell};
