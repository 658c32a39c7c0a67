//! What `--help` looks like: flags in groups, in the order in which a reader looks for them, and
//! examples. A terminal of 80 columns is wide enough.

use clap::Command;

/// A heading, and the flags beneath it by their long names.
type Group = (&'static str, &'static [&'static str]);

const SERVE: &[Group] = &[
    (
        "What is served",
        &[
            "listing",
            "index",
            "mime",
            "hidden",
            "exact-names",
            "gopher-host",
        ],
    ),
    (
        "Where clients come in",
        &["port", "bind", "backlog", "no-defer-accept"],
    ),
    (
        "How long things may take",
        &[
            "request-timeout",
            "keep-alive",
            "stall-timeout",
            "min-rate",
            "disk-timeout",
            "name-gap",
            "drain",
        ],
    ),
    (
        "How much at once",
        &["max-connections", "workers", "open-files", "cache"],
    ),
    (
        "What is told",
        &["access-log", "log-format", "metrics", "quiet", "verbose"],
    ),
];

const THANK: &[Group] = &[
    ("What is done", &["encoding", "once"]),
    (
        "Where clients come in",
        &["port", "bind", "backlog", "no-defer-accept"],
    ),
    (
        "How long things may take",
        &["request-timeout", "text-gap", "drain"],
    ),
    ("How much at once", &["max-connections"]),
    ("What is told", &["quiet", "verbose"]),
];

const GET: &[Group] = &[
    (
        "Where files go",
        &["output", "remote-name", "directory-prefix"],
    ),
    (
        "How they are fetched",
        &["jobs", "sha256", "retries", "retry-delay", "unterminated"],
    ),
    (
        "How long things may take",
        &["connect-timeout", "timeout", "max-time"],
    ),
    ("What is told", &["quiet", "verbose"]),
];

const SAY: &[Group] = &[
    ("What is sent", &["encoding"]),
    (
        "How long things may take",
        &["connect-timeout", "timeout", "max-time"],
    ),
    ("What is told", &["quiet", "verbose"]),
];

const SOAK: &[Group] = &[
    (
        "How much load",
        &["clients", "rate", "duration", "requests", "ramp"],
    ),
    ("What is asked for", &["names-from", "zipf", "seed"]),
    (
        "Who asks",
        &[
            "mix",
            "slow-rate",
            "slow-buffer",
            "split-pause",
            "unterminated",
            "no-keep-alive",
            "source",
            "timeout",
        ],
    ),
    ("What must be right", &["against", "verify", "fail-if"]),
    (
        "The server's process",
        &["pid", "sample-every", "warm-up", "quiet-every", "settle"],
    ),
    ("The report", &["json", "report", "quiet"]),
];

const EXAMPLES: &str = "\
Examples:
  carafe serve --listing                 share this folder, with lists
  carafe get localhost:7890 hello.txt    fetch a file from it by name
  carafe help serve                      say more about a command";

const SERVE_EXAMPLES: &str = "\
Examples:
  carafe serve                           this folder, on port 7890
  carafe serve music --listing -p 8000   with lists, on another port
  carafe serve -b 127.0.0.1 -b ::1       for this machine only
  carafe serve /srv/www --access-log access.log --metrics 127.0.0.1:9100

Ctrl-C (SIGINT) and SIGTERM let clients finish, a second one ends at once.
SIGHUP opens the access log and ROOT anew.";

const GET_EXAMPLES: &str = "\
Examples:
  carafe get localhost:7890 hello.txt    into [接收]hello.txt
  carafe get -P photos http://localhost:7890/photos/big.jpg
  carafe get -o - gopher://localhost:7890/9hello.txt | wc -c
  carafe get                             asks, as the tutorial's client does

Exit codes: 0 done, 1 failed, 2 usage, 3 a file here, 4 network, 7 protocol,
8 no such file, 9 another SHA-256, 130 by Ctrl-C, which says what is kept.";

const THANK_EXAMPLES: &str = "\
Examples:
  carafe thank                           on port 7788, texts in GBK
  carafe thank --once --encoding utf-8   one text, in UTF-8";

const SAY_EXAMPLES: &str = "\
Examples:
  carafe say localhost:7788 你好
  carafe say                             asks for server and text";

const SOAK_EXAMPLES: &str = "\
Examples:
  carafe soak localhost:7890 hello.txt   ten clients for ten seconds
  carafe soak http://localhost:7890/hello.txt -q 1000 -z 1m
  carafe soak localhost:7890 hello.txt --against files \\
      --mix fast=80%,slow=20% --fail-if 'p99>50ms,errors>0'

Exit codes: 0 pass, 1 a threshold or a byte was wrong, 2 usage, 3 it could not
run, not offer the load, or not compare.";

/// Gives each command its groups and examples.
pub(super) fn arrange(cli: Command) -> Command {
    let commands = [
        ("serve", SERVE, SERVE_EXAMPLES),
        ("get", GET, GET_EXAMPLES),
        ("thank", THANK, THANK_EXAMPLES),
        ("say", SAY, SAY_EXAMPLES),
        ("soak", SOAK, SOAK_EXAMPLES),
    ];
    let cli = cli.max_term_width(WIDTH).after_help(EXAMPLES);
    commands
        .into_iter()
        .fold(cli, |cli, (name, groups, examples)| {
            cli.mut_subcommand(name, |command| {
                grouped(command, groups)
                    .max_term_width(WIDTH)
                    .after_help(examples)
            })
        })
}

/// Columns. More of them make lines that nobody likes to read.
const WIDTH: usize = 80;

/// Headings come in the order of their first flags; a flag that is changed becomes the last one.
fn grouped(mut command: Command, groups: &[Group]) -> Command {
    let mut order = 0;
    for &(heading, flags) in groups {
        for &flag in flags {
            let find = |arg: &&clap::Arg| arg.get_long() == Some(flag);
            let Some(id) = command
                .get_arguments()
                .find(find)
                .map(|arg| arg.get_id().clone())
            else {
                continue;
            };
            command = command.mut_arg(id, |arg| arg.help_heading(heading).display_order(order));
            order += 1;
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn cli() -> Command {
        arrange(crate::cli::Cli::command())
    }

    #[test]
    fn every_flag_stands_in_a_group_and_every_group_has_flags() {
        for (name, groups) in [
            ("serve", SERVE),
            ("get", GET),
            ("thank", THANK),
            ("say", SAY),
            ("soak", SOAK),
        ] {
            let mut cli = cli();
            let command = cli.find_subcommand_mut(name).unwrap();
            let flags = command.get_opts().map(|arg| arg.get_long().unwrap());
            let flags: Vec<_> = flags.collect();
            let grouped: Vec<_> = groups.iter().flat_map(|(_, flags)| *flags).collect();
            for flag in &flags {
                assert!(grouped.contains(&flag), "{name}: --{flag} has no group");
            }
            for &flag in grouped {
                let arg = command
                    .get_arguments()
                    .find(|arg| arg.get_long() == Some(flag));
                assert!(arg.is_some(), "{name}: there is no --{flag}");
            }
        }
    }

    /// Columns, as far as a terminal shows wide characters in two.
    fn columns(line: &str) -> usize {
        line.chars()
            .map(|c| if c > '\u{1100}' { 2 } else { 1 })
            .sum()
    }

    #[test]
    fn no_line_of_any_help_is_wider_than_a_terminal() {
        let mut cli = cli();
        let mut helps = vec![cli.render_long_help().to_string()];
        let commands = cli.get_subcommands_mut();
        for command in commands.filter(|command| command.get_name() != "help") {
            helps.push(command.render_long_help().to_string());
            helps.push(command.render_help().to_string());
        }
        for help in helps {
            let wide = help.lines().find(|line| columns(line) > WIDTH);
            assert_eq!(wide, None, "{help}");
            assert!(help.contains("\nExamples:\n"), "{help}");
        }
    }
}
