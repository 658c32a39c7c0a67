//! The command line: which command, and what is printed when it can't be used. A bad value is refused
//! in one line that names the flag, the value and what it takes.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::download::args::{GetArgs, SayArgs};
use crate::escape::EscapedText;
use crate::failure::Exit;
use crate::serve::args::{ServeArgs, ThankArgs};
use crate::soak::args::SoakArgs;

mod complaint;
mod help;

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
    Serve(Box<ServeArgs>),
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
        Err(error) => Err((
            format!("carafe: {}\n", complaint::one_line(&error)),
            Exit::Usage,
        )),
    }
}

#[cfg(test)]
mod tests;
