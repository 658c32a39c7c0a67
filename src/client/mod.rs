//! The clients: blocking sockets, one thing after the other; several downloads on as many threads.

pub mod get;
pub mod say;

mod bare;
mod connection;
mod download;
mod fetch;
mod http;
mod pool;
mod progress;
mod prompt;
mod resume;
mod retry;
mod target;
mod url;

use std::io::Write as _;

use crate::cli::Exit;

/// Why a client gave up: one line for stderr, and how the program ends.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    line: String,
}

impl Failure {
    fn new(exit: Exit, line: impl Into<String>) -> Self {
        Self {
            exit,
            line: line.into(),
        }
    }

    fn usage(line: impl Into<String>) -> Self {
        Self::new(Exit::Usage, line)
    }

    /// Prints the line and returns how to end.
    fn report(&self) -> Exit {
        tell(&self.line);
        self.exit
    }
}

/// Writes one message to stderr, in one call so that nothing comes between. A closed stderr is no
/// reason to fail.
fn tell(line: &str) {
    let _ = std::io::stderr().write_all(format!("carafe: {line}\n").as_bytes());
}
