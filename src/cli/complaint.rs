//! What clap finds wrong with a command line, in one line.

use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::escape::EscapedText;

/// clap's message in one line, with one hint for all.
pub(super) fn one_line(error: &clap::Error) -> String {
    let context = |kind| error.get(kind).map(ToString::to_string);
    let line = match (
        error.kind(),
        context(ContextKind::InvalidArg),
        context(ContextKind::InvalidValue),
        std::error::Error::source(error),
    ) {
        (ErrorKind::ValueValidation, Some(flag), Some(value), Some(takes)) => {
            let flag = flag
                .split([' ', '='])
                .next()
                .unwrap_or(&flag)
                .trim_matches(['<', '>', '[', ']']);
            format!("{flag}: '{value}' won't do: it {takes}")
        }
        _ => {
            let text = error.to_string();
            let first = text.split("\n\n").next().unwrap_or(&text);
            let words: Vec<_> = first.split_whitespace().collect();
            let what = words.join(" ");
            let what = what.trim_start_matches("error: ");
            let meant = [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg];
            let nearest = meant.into_iter().find_map(|kind| nearest(error.get(kind)?));
            let unknown = context(ContextKind::InvalidSubcommand);
            match (nearest, unknown) {
                (Some(word), _) => format!("{what}; did you mean '{word}'?"),
                (None, Some(word)) if word.contains("://") => {
                    format!("{what}; did you mean 'get {word}'?")
                }
                (None, Some(word)) if Path::new(&word).is_dir() => {
                    format!("{what}; did you mean 'serve {word}'?")
                }
                (None, _) => format!("{what}; --help shows what there is"),
            }
        }
    };
    escaped(&line)
}

/// A line that can't steer a terminal.
pub(super) fn escaped(line: &str) -> String {
    EscapedText(line).to_string()
}

/// The likeliest of clap's suggestions, which it puts last.
fn nearest(suggestions: &ContextValue) -> Option<&str> {
    match suggestions {
        ContextValue::String(word) => Some(word),
        ContextValue::Strings(words) => words.last().map(String::as_str),
        _ => None,
    }
}
