//! The flag table, what it refuses and in which words.

use std::net::SocketAddr;

use super::*;
use crate::daemon::address::address;
use crate::flags::ServerAddress;
use crate::limits;

fn parse_words(words: &str) -> Result<Command, (String, Exit)> {
    parse(words.split_whitespace().map(OsString::from), |_| None)
}

#[test]
fn the_flag_table_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn a_default_in_the_help_is_the_default_in_limits() {
    let Ok(Command::Serve(args)) = parse_words("carafe serve") else {
        panic!("serve parses")
    };
    assert_eq!(args.name_gap, limits::NAME_GAP);
    assert_eq!(args.stall_timeout, limits::STALL_TIMEOUT);
    assert_eq!(args.disk_timeout, limits::DISK_TIMEOUT);
    assert_eq!(args.keep_alive, limits::KEEP_ALIVE);
    assert_eq!(args.listen.request_timeout, limits::REQUEST_TIMEOUT);
    assert_eq!(args.listen.drain, limits::DRAIN);
    let Ok(Command::Get(args)) = parse_words("carafe get") else {
        panic!("get parses")
    };
    assert_eq!(args.retry_delay, limits::RETRY_DELAY);
    assert_eq!(args.client.connect_timeout, limits::CONNECT_TIMEOUT);
    assert_eq!(args.client.timeout, limits::CLIENT_TIMEOUT);
}

/// A command line, and what its complaint contains.
const BAD_VALUES: &[(&str, &str)] = &[
    (
        "serve -p 70000",
        "--port: '70000' won't do: it takes a port, 0 to 65535",
    ),
    (
        "serve --bind unix:",
        "--bind: 'unix:' won't do: it takes a path of 1 to 107 bytes behind unix:",
    ),
    (
        "serve --bind unix:@name",
        "--bind: 'unix:@name' won't do: it takes a path behind unix:; that of a file whose name begins with @ is ./@NAME",
    ),
    (
        "serve --trusted-proxy 010.0.0.0/8",
        "--trusted-proxy: '010.0.0.0/8' won't do: it takes a network, such as 10.0.0.0/8 or ::1, or unix",
    ),
    (
        "serve --trusted-proxy 10.0.0.0/08",
        "--trusted-proxy: '10.0.0.0/08' won't do: it takes a network, such as 10.0.0.0/8 or ::1, or unix",
    ),
    (
        "serve --trusted-proxy 010.0.0.1",
        "--trusted-proxy: '010.0.0.1' won't do: it takes a network, such as 10.0.0.0/8 or ::1, or unix",
    ),
    (
        "serve --bind unix:s --socket-mode 888",
        "--socket-mode: '888' won't do: it takes permissions in octal",
    ),
    (
        "serve --bind lo",
        "--bind: 'lo' won't do: it takes an IP address",
    ),
    (
        "serve --bind fe80::1%nosuch0",
        "--bind: 'fe80::1%nosuch0' won't do: it takes an interface of this machine, and 'nosuch0' is none",
    ),
    (
        "serve --bind 127.0.0.1%lo",
        "--bind: '127.0.0.1%lo' won't do: it takes an IP address",
    ),
    (
        "serve --backlog 0",
        "--backlog: '0' won't do: it takes a whole number from 1 to",
    ),
    (
        "serve --workers 0",
        "--workers: '0' won't do: it takes a whole number from 1 to 512",
    ),
    (
        "serve --name-gap 0s",
        "--name-gap: '0s' won't do: it takes a duration from 1ms",
    ),
    (
        "serve --drain 10",
        "--drain: '10' won't do: it takes a duration",
    ),
    (
        "serve --stall-timeout 900years",
        "--stall-timeout: '900years' won't do",
    ),
    (
        "serve --metrics localhost:9100",
        "--metrics: 'localhost:9100' won't do: it takes ADDR:PORT",
    ),
    (
        "serve --mime foo=bar",
        "--mime: 'foo=bar' won't do: it takes EXT=TYPE with a media type such as text/plain",
    ),
    (
        "serve --mime a/b=text/plain",
        "--mime: 'a/b=text/plain' won't do: it takes EXT=TYPE with an extension such as log",
    ),
    (
        "serve --mime log",
        "--mime: 'log' won't do: it takes EXT=TYPE, as in log=text/plain",
    ),
    (
        "serve --index a/b",
        "--index: 'a/b' won't do: it takes a file's name without a slash",
    ),
    (
        "serve --index ../x",
        "--index: '../x' won't do: it takes a file's name without a slash, and without a dot in front",
    ),
    (
        "serve --index .x",
        "--index: '.x' won't do: it takes a file's name",
    ),
    (
        "serve --hidden=x",
        "--hidden: 'x' won't do: it takes a name that begins with a dot",
    ),
    (
        "serve --hidden=.a/b",
        "--hidden: '.a/b' won't do: it takes a name that begins with a dot",
    ),
    (
        "serve --header X-A",
        "--header: 'X-A' won't do: it takes 'NAME: VALUE', as in 'X-Frame-Options: DENY'",
    ),
    (
        "serve --header content-length:3",
        "--header: 'content-length:3' won't do: it takes no field that is a connection's own",
    ),
    (
        "serve --header-for *.js",
        "--header-for: '*.js' won't do: it takes GLOB='NAME: VALUE', as in",
    ),
    (
        "serve --header-for [a=X-A:b",
        "--header-for: '[a=X-A:b' won't do: it takes a GLOB such as *.js: unclosed character class",
    ),
    (
        "serve --header-for *.js=Connection:close",
        "--header-for: '*.js=Connection:close' won't do: it takes no field that is a connection's own",
    ),
    (
        "serve --cache-control no-store",
        "--cache-control: 'no-store' won't do: it takes GLOB=VALUE, as in 'assets/*=max-age",
    ),
    (
        "serve --error-page 404.html",
        "--error-page: '404.html' won't do: it takes STATUS=FILE, as in 404=404.html",
    ),
    (
        "serve --error-page 403=x",
        "--error-page: '403=x' won't do: it takes STATUS=FILE with one of 404, 405, 406, 412, 416, 500, 501, 503",
    ),
    (
        "serve --default-type text",
        "--default-type: 'text' won't do: it takes a media type such as text/plain",
    ),
    (
        "serve --cors=app.example",
        "--cors: 'app.example' won't do: it takes an origin as browsers write it, such as https://",
    ),
    (
        "serve --cors=https://a.example --cors",
        "--cors: '*' won't do beside others: it is all of them",
    ),
    (
        "serve --log-format xml",
        "--log-format: 'xml' won't do: it takes combined or json",
    ),
    (
        "thank --encoding klingon",
        "--encoding: 'klingon' won't do: it takes the label",
    ),
    (
        "get localhost a",
        "HOST:PORT|URL: 'localhost' won't do: it takes HOST:PORT, such as localhost:7890 \
             or [::1]:7890, or a URL",
    ),
    (
        "get ::1:80 a",
        "HOST:PORT|URL: '::1:80' won't do: it takes HOST:PORT",
    ),
    (
        "get h:0 a",
        "HOST:PORT|URL: 'h:0' won't do: it takes HOST:PORT",
    ),
    (
        "serve -p -1",
        "--port: '-1' won't do: it takes a port, 0 to 65535",
    ),
    (
        "serve --drain -1s",
        "--drain: '-1s' won't do: it takes a duration",
    ),
    (
        "serve --no-such",
        "unexpected argument '--no-such' found; --help shows",
    ),
    ("serve -q -v", "cannot be used with"),
    (
        "serve --listings",
        "unexpected argument '--listings' found; did you mean '--listing'?",
    ),
    (
        "pour",
        "unrecognized subcommand 'pour'; --help shows what there is",
    ),
    (
        "serv",
        "unrecognized subcommand 'serv'; did you mean 'serve'?",
    ),
    (
        "..",
        "unrecognized subcommand '..'; did you mean 'serve ..'?",
    ),
    (
        "http://h/x",
        "unrecognized subcommand 'http://h/x'; did you mean 'get http://h/x'?",
    ),
    (
        "serve --log-format json",
        "--log-format: 'json' won't do: it takes an --access-log whose lines it is for",
    ),
    (
        "serve --metrics 127.0.0.1:7890",
        "--metrics: '127.0.0.1:7890' won't do: clients come in there (-p 7890): it takes \
         another port",
    ),
    (
        "serve -p 80 -b ::1 --metrics [::]:80",
        "--metrics: '[::]:80' won't do: clients come in there (-p 80)",
    ),
    (
        "serve -b 127.0.0.1 -b 127.0.0.1",
        "--bind: '127.0.0.1' won't do: it takes what '127.0.0.1' has already",
    ),
    (
        "serve -b unix:s -b unix:s",
        "--bind: 'unix:s' won't do: it takes what 'unix:s' has already",
    ),
    (
        "serve -b ::1 --socket-mode 660",
        "--socket-mode: takes a --bind unix:PATH whose file it is for",
    ),
    (
        "thank -b :: -b 127.0.0.1",
        "--bind: '127.0.0.1' won't do: it takes what '::' has already",
    ),
];

#[test]
fn a_bad_value_is_one_line_with_flag_value_and_what_it_takes() {
    for (words, expected) in BAD_VALUES {
        let Err((message, exit)) = parse_words(&format!("carafe {words}")) else {
            panic!("{words} is refused")
        };
        assert_eq!(exit, Exit::Usage, "{words}");
        assert!(message.contains(expected), "{words}: {message}");
        assert_eq!(message.matches('\n').count(), 1, "{words}: {message}");
    }
}

#[test]
fn fields_of_ones_own_are_bounded() {
    let rule = format!("*=X-A: {}", "a".repeat(limits::CUSTOM_FIELDS_BYTES_MAX));
    let words = ["carafe", "serve", "--header-for", &rule].map(OsString::from);
    let Err((message, exit)) = parse(words, |_| None) else {
        panic!("it is too much")
    };
    let expected =
        "--header, --header-for, --cache-control: 6151 bytes won't do: together they take";
    assert_eq!(exit, Exit::Usage);
    assert!(message.contains(expected), "{message}");
}

#[test]
fn flags_that_only_look_alike_are_no_contradiction() {
    for words in [
        "serve --log-format json --access-log -",
        "serve --metrics 127.0.0.1:7891",
        "serve -p 0 --metrics 127.0.0.1:0",
        "serve -b ::1 --metrics 127.0.0.1:7890",
        "serve -b 0.0.0.0 -b :: --metrics 127.0.0.1:7891",
        "serve -b 0.0.0.0 -b ::1",
    ] {
        let parsed = parse_words(&format!("carafe {words}"));
        assert!(parsed.is_ok(), "{words}: {parsed:?}");
    }
}

#[test]
fn addresses_with_a_zone() {
    let zone = |text: &str| match address(text) {
        Ok(SocketAddr::V6(address)) => address.scope_id(),
        other => panic!("{other:?}"),
    };
    // The loopback is the first interface everywhere.
    assert_eq!(zone("fe80::1%lo"), 1);
    assert_eq!(zone("[fe80::1%lo]"), 1);
    assert_eq!(zone("fe80::1%7"), 7);
    assert_eq!(zone("fe80::1"), 0);
}

#[test]
fn addresses_of_servers() {
    let parse = |text: &str| text.parse::<ServerAddress>().map(|a| (a.host, a.port));
    assert_eq!(parse("[::1]:7890"), Ok(("::1".into(), 7890)));
    assert_eq!(parse("localhost:1"), Ok(("localhost".into(), 1)));
    for bad in [
        "",
        ":",
        "h:",
        ":1",
        "h:65536",
        "[]:1",
        "http://h:1",
        "[::1:1",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

/// What comes of a command line, where these variables are set.
fn parse_in(environment: &[(&str, &str)], words: &str) -> Result<Command, String> {
    let get = |name: &str| {
        let set = environment.iter().find(|(variable, _)| *variable == name);
        set.map(|(_, value)| value.into())
    };
    parse(words.split_whitespace().map(OsString::from), get).map_err(|(message, _)| message)
}

fn serve_in(environment: &[(&str, &str)], words: &str) -> Box<crate::daemon::args::ServeArgs> {
    match parse_in(environment, &format!("carafe serve {words}")) {
        Ok(Command::Serve(args)) => args,
        other => panic!("{words}: {other:?}"),
    }
}

#[test]
fn every_flag_of_serve_has_a_variable_and_the_flag_wins() {
    let environment = [
        ("CARAFE_ROOT", "-odd/folder"),
        ("CARAFE_PORT", "8000"),
        ("CARAFE_BIND", "127.0.0.1\n\n::1\n"),
        ("CARAFE_LISTING", "Yes"),
        ("CARAFE_TLS_ONLY", "0"),
        ("CARAFE_VERBOSE", "2"),
        ("CARAFE_HEADER", "X-A: b, c; d\nX-B: e"),
        ("CARAFE_HIDDEN", ".a\n.b"),
        ("CARAFE_CORS", "*"),
        ("CARAFE_INDEX", ""),
        ("CARAFE_MIME", ""),
        ("CARAFE_SERVE_FLAGS", "of tests"),
    ];
    let args = serve_in(&environment, "");
    assert_eq!(args.root.to_str(), Some("-odd/folder"));
    assert_eq!((args.port, args.listen.bind.len()), (8000, 2));
    assert!(args.listing && !args.tls.tls_only && args.cors.len() == 1);
    assert_eq!((args.listen.verbosity.verbose, args.header.len()), (2, 2));
    assert_eq!((args.hidden.len(), args.mime.len()), (2, 0));
    assert!(args.index.is_empty());
    let args = serve_in(&environment, "-p 1 --bind ::1 --index i -q folder");
    assert_eq!((args.port, args.listen.bind.len()), (1, 1));
    assert_eq!(args.root.to_str(), Some("folder"));
    assert!(args.index == "i" && args.listing);
    assert!(args.listen.verbosity.quiet && args.listen.verbosity.verbose == 0);
    // Whatever a flag takes.
    let cli = cli();
    for arg in cli.find_subcommand("serve").unwrap().get_arguments() {
        let is_help = arg.get_id() == "help";
        assert_eq!(environment::variable(arg).is_none(), is_help, "{arg}");
    }
    // Other commands have none.
    let thank = parse_in(&[("CARAFE_PORT", "x")], "carafe thank");
    assert!(matches!(thank, Ok(Command::Thank(args)) if args.port == 7788));
}

#[test]
fn a_bad_value_names_its_variable() {
    for (variable, value, words, expected) in [
        (
            "PORT",
            "x",
            "",
            "CARAFE_PORT: 'x' won't do: it takes a port",
        ),
        ("PORT", "", "", "CARAFE_PORT: '' won't do: it takes a port"),
        (
            "LISTING",
            "perhaps",
            "",
            "CARAFE_LISTING: 'perhaps' won't do: it takes yes or no",
        ),
        (
            "VERBOSE",
            "3",
            "",
            "CARAFE_VERBOSE: '3' won't do: it takes 0, 1 or 2",
        ),
        (
            "BIND",
            "::1\nlo",
            "",
            "CARAFE_BIND: 'lo' won't do: it takes an IP address",
        ),
        (
            "NAME_GAP",
            "0s\x1b",
            "",
            "CARAFE_NAME_GAP: '0s\\x1b' won't do",
        ),
        (
            "LOG_FORMAT",
            "json",
            "",
            "CARAFE_LOG_FORMAT: 'json' won't do: it takes an --access-log",
        ),
        (
            "METRICS",
            "[::]:7890",
            "",
            "CARAFE_METRICS: '[::]:7890' won't do: clients come in there",
        ),
        (
            "LISTING",
            "yes",
            "--log-format json",
            "--log-format: 'json' won't do",
        ),
    ] {
        let variable = format!("CARAFE_{variable}");
        let words = format!("carafe serve {words}");
        let message = parse_in(&[(&variable, value)], &words).unwrap_err();
        assert!(message.contains(expected), "{message}");
        assert_eq!(message.matches('\n').count(), 1, "{message}");
    }
    // What the command line overrules isn't looked at.
    assert_eq!(serve_in(&[("CARAFE_PORT", "x")], "-p 3").port, 3);
}

fn cli() -> clap::Command {
    help::arrange(Cli::command())
}

#[test]
fn every_flag_stands_in_a_group_and_every_group_has_flags() {
    for &(name, groups, _) in help::COMMANDS {
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
        let wide = help.lines().find(|line| columns(line) > help::WIDTH);
        assert_eq!(wide, None, "{help}");
        assert!(help.contains("\nExamples:\n"), "{help}");
    }
}
