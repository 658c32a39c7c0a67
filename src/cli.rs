//! The command line: which command, and what is printed when it can't be used. A bad value is refused
//! in one line that names the flag, the value and what it takes.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::daemon::args::{ServeArgs, ThankArgs};
use crate::download::args::{GetArgs, SayArgs};
use crate::failure::Exit;
use crate::notes::NotesArgs;
use crate::soak::args::SoakArgs;

mod complaint;
mod environment;
mod help;

/// carafe pours files: clients connect, name a file, get its bytes.
#[derive(Debug, Parser)]
#[command(name = "carafe", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The six programs in one, and what shells and man(1) know of them.
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
    /// Play nine notes on TCP sockets, by a server and a client
    Notes(NotesArgs),
    /// Print what has a shell complete flags
    Completions {
        /// The shell: bash, elvish, fish, powershell or zsh
        shell: Shell,
    },
    /// Print a manual page, in roff
    Man {
        /// The command that it is of [default: all of carafe]
        #[arg(value_parser = ["serve", "get", "thank", "say", "soak", "notes", "completions", "man"])]
        command: Option<String>,
    },
}

impl Command {
    /// What is wrong with flags that are each right.
    fn contradiction(&self) -> Option<String> {
        match self {
            Self::Serve(args) => args.contradiction(),
            Self::Thank(args) => args.listen.contradiction(),
            Self::Get(_)
            | Self::Say(_)
            | Self::Soak(_)
            | Self::Notes(_)
            | Self::Completions { .. }
            | Self::Man { .. } => None,
        }
    }
}

/// Parses the program's arguments, and what `environment` says of flags of `serve`.
///
/// # Errors
/// `Err` holds what to print and how to end: help and version are no failures, and a bad value is
/// one line.
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Command, (String, Exit)> {
    let complaint = |line: &str| (format!("carafe: {line}\n"), Exit::Usage);
    let unparsed = |error: clap::Error| match error.kind() {
        _ if !error.use_stderr() => (error.to_string(), Exit::Done),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => (error.to_string(), Exit::Usage),
        _ => complaint(&complaint::one_line(&error)),
    };
    let args: Vec<_> = args.into_iter().collect();
    let cli = help::arrange(Cli::command());
    let mut matches = cli.clone().try_get_matches_from(&args).map_err(unparsed)?;
    let settings = environment::settings(&cli, &matches, environment);
    let settings = settings.map_err(|line| complaint(&line))?;
    if !settings.is_empty() {
        let args = environment::with(&args, &settings);
        matches = cli.try_get_matches_from(args).map_err(unparsed)?;
    }
    let cli = Cli::from_arg_matches(&matches).map_err(unparsed)?;
    let contradiction = cli.command.contradiction();
    match contradiction.or_else(|| unused(&cli.command, &matches)) {
        Some(line) => {
            let name = |line: String, setting: &environment::Setting| setting.named(&line);
            let line = settings.iter().fold(line, name);
            Err(complaint(&complaint::escaped(&line)))
        }
        None => Ok(cli.command),
    }
}

/// A flag that `soak compare` and `soak merge` have no use for.
fn unused(command: &Command, matches: &ArgMatches) -> Option<String> {
    let Command::Soak(args) = command else {
        return None;
    };
    let (name, matches) = (args.of_reports()?, matches.subcommand_matches("soak")?);
    let is_given = |id: &&clap::Id| {
        let source = matches.value_source(id.as_str());
        source == Some(ValueSource::CommandLine) && !SoakArgs::OF_REPORTS.contains(&id.as_str())
    };
    let groups = |id: &&clap::Id| matches.try_contains_id(id.as_str()).is_ok();
    let id = matches.ids().filter(groups).find(is_given)?;
    let flag = id.as_str().replace('_', "-");
    Some(format!(
        "--{flag}: {name} reads reports, and has no use for it"
    ))
}

/// What has this shell complete commands and flags.
#[must_use]
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(
        shell,
        &mut help::arrange(Cli::command()),
        "carafe",
        &mut script,
    );
    script
}

/// A manual page (man(7)): of one command, or of all of carafe.
#[must_use]
pub fn manual(command: Option<&str>) -> Vec<u8> {
    let mut cli = help::arrange(Cli::command()).disable_help_subcommand(true);
    cli.build();
    let page = match command.and_then(|name| cli.find_subcommand(name)) {
        Some(command) => {
            let name = format!("carafe-{}", command.get_name());
            command.clone().display_name(name)
        }
        None => cli,
    };
    let mut roff = Vec::new();
    // Writing to memory doesn't fail.
    let version = concat!("carafe ", env!("CARGO_PKG_VERSION"));
    let _ = Man::new(page).source(version).render(&mut roff);
    roff
}

#[cfg(test)]
mod tests;
