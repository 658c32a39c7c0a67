//! What `--help` looks like: flags in groups, in the order in which a reader looks for them, and
//! examples. A terminal of 80 columns is wide enough.

use clap::Command;

use super::environment;

/// A heading, and the flags beneath it by their long names.
type Group = (&'static str, &'static [&'static str]);

const SERVE: &[Group] = &[
    (
        "What is served",
        &[
            "listing",
            "index",
            "clean-urls",
            "spa",
            "error-page",
            "precompressed",
            "etag",
            "mime",
            "default-type",
            "hidden",
            "exact-names",
            "gopher-host",
        ],
    ),
    (
        "What answers say",
        &[
            "header",
            "header-for",
            "cache-control",
            "cors",
            "server-timing",
        ],
    ),
    (
        "Where clients come in",
        &[
            "port",
            "bind",
            "socket-mode",
            "trusted-proxy",
            "backlog",
            "no-defer-accept",
        ],
    ),
    (
        "How they speak TLS",
        &["tls-cert", "tls-key", "tls-only", "hsts"],
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
        &[
            "max-connections",
            "max-connections-per-client",
            "limit-rate",
            "workers",
            "open-files",
            "cache",
        ],
    ),
    ("As whom, and with what", &["user", "no-sandbox"]),
    (
        "What is told",
        &[
            "access-log",
            "log-format",
            "metrics",
            "trace",
            "trace-for",
            "quiet",
            "verbose",
        ],
    ),
];

const THANK: &[Group] = &[
    ("What is done", &["encoding", "once"]),
    (
        "Where clients come in",
        &["port", "bind", "socket-mode", "backlog", "no-defer-accept"],
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
        &[
            "recursive",
            "jobs",
            "sha256",
            "retries",
            "retry-delay",
            "unterminated",
        ],
    ),
    (
        "How TLS is spoken",
        &["tls", "cacert", "insecure", "allow-downgrade"],
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

const NOTES: &[Group] = &[("What is told", &["html"])];

const SOAK: &[Group] = &[
    (
        "How much load",
        &[
            "clients", "rate", "find", "duration", "requests", "ramp", "part", "start-at",
        ],
    ),
    (
        "What is asked for",
        &["versus", "names-from", "zipf", "seed"],
    ),
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
    (
        "How TLS is spoken",
        &["tls", "cacert", "insecure", "no-resumption"],
    ),
    ("What must be right", &["against", "verify", "fail-if"]),
    (
        "The server's process",
        &["pid", "sample-every", "warm-up", "quiet-every", "settle"],
    ),
    (
        "The report",
        &["json", "report", "junit", "summary", "hdr", "quiet"],
    ),
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
  carafe serve -b unix:/run/carafe.sock  for a proxy on this machine
  carafe serve /srv/www --access-log access.log --metrics 127.0.0.1:9100
  carafe serve -p 443 --tls-cert fullchain.pem --tls-key privkey.pem

Ctrl-C (SIGINT) and SIGTERM let clients finish, a second one ends at once.
SIGHUP opens the access log, ROOT and certificates anew. SIGUSR2 starts the program
anew, which takes over.

A variable (env) counts where its flag is missing: yes or no for a flag without
a value; several values stand on a line each.";

const GET_EXAMPLES: &str = "\
Examples:
  carafe get localhost:7890 hello.txt    into [接收]hello.txt
  carafe get -P photos http://localhost:7890/photos/big.jpg
  carafe get -o - gopher://localhost:7890/9hello.txt | wc -c
  carafe get --cacert ca.pem https://localhost:7890/hello.txt
  carafe get                             asks, as the tutorial's client does

Exit codes: 0 done, 1 failed, 2 usage, 3 a file here, 4 network, 5 a certificate,
7 protocol, 8 no such file, 9 another SHA-256, 130 by Ctrl-C, which says what is
kept.";

const THANK_EXAMPLES: &str = "\
Examples:
  carafe thank                           on port 7788, texts in GBK
  carafe thank --once --encoding utf-8   one text, in UTF-8";

const SAY_EXAMPLES: &str = "\
Examples:
  carafe say localhost:7788 你好
  carafe say                             asks for server and text";

const SOAK_USAGE: &str = "\
carafe soak [OPTIONS] HOST:PORT NAME...
       carafe soak [OPTIONS] http[s]://HOST:PORT/PATH...
       carafe soak compare A.json B.json [--fail-if ...]
       carafe soak merge PART.json... [--fail-if ...]";

const SOAK_EXAMPLES: &str = "\
Examples:
  carafe soak localhost:7890 hello.txt   ten clients for ten seconds
  carafe soak http://localhost:7890/hello.txt --rate 1000 -z 1m
  carafe soak http://localhost:7890/hello.txt --rate 100..20000 --find 'p99<20ms'
  carafe soak localhost:7890 hello.txt --against files \\
      --mix fast=80%,slow=20% --fail-if 'p99>50ms,errors>0'

Exit codes: 0 pass, 1 a threshold or a byte was wrong, 2 usage, 3 undecided, or
it could not run, not offer the load, or not compare.";

const NOTES_EXAMPLES: &str = "\
Examples:
  carafe notes 9                         what a zero-length read means
  carafe notes --html notes.html         all nine, and as a page";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  source <(carafe completions bash)
  carafe completions fish > ~/.config/fish/completions/carafe.fish";

const MAN_EXAMPLES: &str = "\
Examples:
  carafe man serve | man -l -";

/// The name of each command, its groups and examples.
pub(super) const COMMANDS: &[(&str, &[Group], &str)] = &[
    ("serve", SERVE, SERVE_EXAMPLES),
    ("get", GET, GET_EXAMPLES),
    ("thank", THANK, THANK_EXAMPLES),
    ("say", SAY, SAY_EXAMPLES),
    ("soak", SOAK, SOAK_EXAMPLES),
    ("notes", NOTES, NOTES_EXAMPLES),
    ("completions", &[], COMPLETIONS_EXAMPLES),
    ("man", &[], MAN_EXAMPLES),
];

/// Columns. More of them make lines that nobody likes to read.
pub(super) const WIDTH: usize = 80;

/// Gives each command its groups and examples.
pub(super) fn arrange(cli: Command) -> Command {
    let cli = cli.max_term_width(WIDTH).after_help(EXAMPLES);
    let cli = cli.mut_subcommand("serve", environment::shown);
    let cli = cli.mut_subcommand("soak", |soak| soak.override_usage(SOAK_USAGE));
    COMMANDS.iter().fold(cli, |cli, &(name, groups, examples)| {
        cli.mut_subcommand(name, |command| {
            grouped(command, groups)
                .max_term_width(WIDTH)
                .after_help(examples)
        })
    })
}

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
