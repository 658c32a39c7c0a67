//! Flags of `serve` that the environment gives: each has a variable, such as CARAFE_PORT for `--port`. What
//! stands on the command line wins.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::complaint;

/// The command whose flags have variables.
const COMMAND: &str = "serve";

/// These exclude each other: one of them on the command line wins over both variables.
const LEVELS: [&str; 2] = ["quiet", "verbose"];

/// What the environment says of one flag.
pub(super) struct Setting {
    flag: String,
    variable: String,
    words: Vec<OsString>,
}

/// The variable of a flag, or of ROOT, if it has one.
pub(super) fn variable(arg: &Arg) -> Option<String> {
    if matches!(arg.get_action(), ArgAction::Help | ArgAction::Version) {
        return None;
    }
    let name = arg.get_long().unwrap_or(arg.get_id().as_str());
    Some(format!("CARAFE_{}", name.to_uppercase().replace('-', "_")))
}

/// Says of each flag which variable it has.
pub(super) fn shown(serve: Command) -> Command {
    serve.mut_args(|arg| match (variable(&arg), arg.get_help().cloned()) {
        (Some(variable), Some(help)) => arg.help(format!("{help} [env: {variable}]")),
        _ => arg,
    })
}

/// What the environment says of flags that are not on the command line.
///
/// # Errors
/// A variable's value won't do; the text says why.
pub(super) fn settings(
    cli: &Command,
    matches: &ArgMatches,
    get: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<Setting>, String> {
    let mut settings = Vec::new();
    let (Some(command), Some(given)) = (
        cli.find_subcommand(COMMAND),
        matches.subcommand_matches(COMMAND),
    ) else {
        return Ok(settings);
    };
    let is_given = |id: &str| given.value_source(id) == Some(ValueSource::CommandLine);
    for arg in command.get_arguments() {
        let id = arg.get_id().as_str();
        let has_level = LEVELS.contains(&id) && LEVELS.into_iter().any(is_given);
        let Some(variable) = variable(arg).filter(|_| !is_given(id) && !has_level) else {
            continue;
        };
        let Some(value) = get(&variable) else {
            continue;
        };
        let flag = arg
            .get_long()
            .map_or("ROOT".to_owned(), |long| format!("--{long}"));
        let words = words(arg, &flag, &value).ok_or_else(|| {
            let takes = match arg.get_action() {
                ArgAction::Count => "0, 1 or 2",
                _ => "yes or no",
            };
            let value = value.to_string_lossy();
            complaint::escaped(&format!("{variable}: '{value}' won't do: it takes {takes}"))
        })?;
        let setting = Setting {
            flag,
            variable,
            words,
        };
        // Each alone, so that the variable can be named whose value won't do.
        if let Err(error) = cli.clone().try_get_matches_from(setting.alone()) {
            return Err(setting.named(&complaint::one_line(&error)));
        }
        settings.push(setting);
    }
    Ok(settings)
}

/// The command line with these settings.
pub(super) fn with(args: &[OsString], settings: &[Setting]) -> Vec<OsString> {
    // The program and the command stand in front.
    let (front, rest) = args.split_at(args.len().min(2));
    let (roots, flags): (Vec<_>, Vec<_>) = settings.iter().partition(|one| one.is_root());
    let words = |settings: &[&Setting]| settings.iter().flat_map(|one| one.words.clone()).collect();
    let (roots, flags): (Vec<OsString>, Vec<OsString>) = (words(&roots), words(&flags));
    let separator = (!roots.is_empty() && !rest.iter().any(|arg| arg == "--")).then(|| "--".into());
    let rest = rest.iter().cloned().chain(separator).chain(roots);
    front.iter().cloned().chain(flags).chain(rest).collect()
}

impl Setting {
    fn is_root(&self) -> bool {
        !self.flag.starts_with('-')
    }

    /// A command line of this setting alone.
    fn alone(&self) -> Vec<OsString> {
        with(
            &["carafe".into(), COMMAND.into()],
            std::slice::from_ref(self),
        )
    }

    /// A complaint about the flag, made one about its variable.
    pub(super) fn named(&self, line: &str) -> String {
        match line.strip_prefix(&self.flag) {
            Some(rest) if rest.starts_with(':') => format!("{}{rest}", self.variable),
            _ => line.to_owned(),
        }
    }
}

/// The words of a command line that say what a variable does. `None` if its value makes no sense. Several
/// values of one flag stand on a line each.
fn words(arg: &Arg, flag: &str, value: &OsStr) -> Option<Vec<OsString>> {
    let assigned = |value: &[u8]| OsString::from_vec([flag.as_bytes(), b"=", value].concat());
    match arg.get_action() {
        _ if arg.is_positional() => Some(vec![value.to_owned()]),
        ArgAction::SetTrue => {
            let is_on = match &*value.to_string_lossy().to_ascii_lowercase() {
                "1" | "true" | "yes" | "on" => true,
                "" | "0" | "false" | "no" | "off" => false,
                _ => return None,
            };
            Some(is_on.then(|| flag.into()).into_iter().collect())
        }
        ArgAction::Count => {
            let count = match value.to_string_lossy().trim() {
                "" => 0,
                text => text.parse().ok().filter(|count| (0..=2).contains(count))?,
            };
            Some(vec![flag.into(); count])
        }
        ArgAction::Append => {
            let lines = value.as_bytes().split(|&byte| byte == b'\n');
            let lines = lines.filter(|line| !line.is_empty());
            Some(lines.map(assigned).collect())
        }
        _ => Some(vec![assigned(value.as_bytes())]),
    }
}
