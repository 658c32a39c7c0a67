//! Parse, dispatch, exit code: the only place that exits.

use std::io::Write as _;
use std::process::ExitCode;

use carafe::cli::{self, Command};
use carafe::download;
use carafe::failure::{Exit, Failure};
use carafe::serve;

fn main() -> ExitCode {
    let exit = match cli::parse(std::env::args_os()) {
        Ok(Command::Get(args)) => download::get::run(&args),
        Ok(Command::Say(args)) => download::say::run(&args),
        Ok(Command::Serve(args)) => started(serve::serve(&args)),
        Ok(Command::Soak(args)) => carafe::soak::run(&args),
        Ok(Command::Thank(args)) => started(serve::thank(&args)),
        Err((message, exit)) => print_and(&message, exit),
    };
    exit.into()
}

/// Help goes to stdout, a complaint to stderr. Neither can do anything about a closed stream.
fn print_and(message: &str, exit: Exit) -> Exit {
    let _ = match exit {
        Exit::Done => std::io::stdout().write_all(message.as_bytes()),
        _ => std::io::stderr().write_all(message.as_bytes()),
    };
    exit
}

/// What the servers log is written before the program ends.
fn started(result: Result<Exit, Failure>) -> Exit {
    log::logger().flush();
    result.unwrap_or_else(|failure| failure.report())
}
