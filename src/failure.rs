//! Why a command gave up, and how it says so.

use std::any::Any;
use std::io::Write as _;

use crate::cli::Exit;

/// Why a command gave up: one line for stderr, and how the program ends.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// One line for the person who started it.
    pub line: String,
}

impl Failure {
    /// A failure that ends the program so.
    pub fn new(exit: Exit, line: impl Into<String>) -> Self {
        Self {
            exit,
            line: line.into(),
        }
    }

    /// The command line could not be used.
    pub fn usage(line: impl Into<String>) -> Self {
        Self::new(Exit::Usage, line)
    }

    /// Prints the line and returns how to end.
    #[must_use]
    pub fn report(&self) -> Exit {
        tell(&self.line);
        self.exit
    }
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it doesn't say why")
}

/// Writes one message to stderr, in one call so that nothing comes between. A closed stderr is no
/// reason to fail.
pub fn tell(line: &str) {
    let _ = std::io::stderr().write_all(format!("carafe: {line}\n").as_bytes());
}
