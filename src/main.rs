//! Parse, dispatch, exit code: the only place that exits.

use std::io::Write as _;
use std::process::ExitCode;

use carafe::cli::{self, Command};
use carafe::download;
use carafe::failure::{Exit, Failure};
use carafe::serve;

fn main() -> ExitCode {
    let exit = match cli::parse(std::env::args_os(), |name| std::env::var_os(name)) {
        Ok(Command::Get(args)) => download::get::run(&args),
        Ok(Command::Say(args)) => download::say::run(&args),
        Ok(Command::Serve(args)) => started(serve::serve(&args)),
        Ok(Command::Soak(args)) => carafe::soak::run(&args),
        Ok(Command::Notes(args)) => carafe::notes::run(&args),
        Ok(Command::Thank(args)) => started(serve::thank(&args)),
        Ok(Command::Completions { shell }) => print_and(&cli::completions(shell), Exit::Done),
        Ok(Command::Man { command }) => print_and(&cli::manual(command.as_deref()), Exit::Done),
        Err((message, exit)) => print_and(message.as_bytes(), exit),
    };
    exit.into()
}

/// Help and the like go to stdout, a complaint to stderr. Neither can do anything about a closed stream.
fn print_and(message: &[u8], exit: Exit) -> Exit {
    let _ = match exit {
        Exit::Done => std::io::stdout().write_all(message),
        _ => std::io::stderr().write_all(message),
    };
    exit
}

/// What the servers log is written before the program ends.
fn started(result: Result<Exit, Failure>) -> Exit {
    log::logger().flush();
    result.unwrap_or_else(|failure| failure.report())
}
