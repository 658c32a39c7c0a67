//! How the program ends, and what a command that gave up says.

use std::any::Any;
use std::io::Write as _;
use std::process::ExitCode;

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
    /// `get`: the server's certificate won't do.
    Untrusted,
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
            Exit::Untrusted => 5,
            Exit::Protocol => 7,
            Exit::NoFile => 8,
            // The first number that wget leaves free.
            Exit::Mismatch => 9,
            Exit::Signal(number) => 128 + number,
        })
    }
}

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
