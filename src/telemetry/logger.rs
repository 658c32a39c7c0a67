//! The log on stderr: env_logger chooses, a [`LineWriter`] writes. A person at a terminal gets short
//! lines, everything else whole time stamps.

use std::env;
use std::io::{self, IsTerminal as _};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use log::{Level, LevelFilter, Log, Metadata, Record};

use super::log_writer::{LineWriter, append};
use super::stamp::{SecondStamp, this_second};
use crate::limits::{LOG_QUEUE_BYTES_MAX, LOG_RESERVE_BYTES};

/// Sends everything logged to stderr through a queue. `level` overrides RUST_LOG, which overrides
/// the default, info. A terminal gets short lines, everything else whole stamps.
///
/// # Errors
/// A thread can't be started, or a logger was installed before.
pub fn start(level: Option<LevelFilter>) -> io::Result<LineWriter> {
    let writer = LineWriter::new(io::stderr())?;
    let mut builder = env_logger::Builder::new();
    match level {
        Some(level) => builder.filter_level(level),
        None => builder.parse_env(env_logger::Env::default().default_filter_or("info")),
    };
    let chosen = builder.build();
    log::set_max_level(chosen.filter());
    log::set_boxed_logger(Box::new(QueueLogger {
        chosen,
        person: io::stderr().is_terminal().then(Colours::wanted),
        stamp: Mutex::default(),
        writer: writer.clone(),
    }))
    .map_err(io::Error::other)?;
    Ok(writer)
}

/// Whether a person reads the log and is told what happens.
#[must_use]
pub fn is_watched() -> bool {
    io::stderr().is_terminal() && log::log_enabled!(log::Level::Info)
}

/// Whether lines for a person have colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Colours {
    On,
    Off,
}

impl Colours {
    /// No, if NO_COLOR is anything but empty (no-color.org), or if the terminal knows none.
    fn wanted() -> Self {
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
        if is_set("NO_COLOR") || is_dumb {
            Self::Off
        } else {
            Self::On
        }
    }
}

fn local_time_of_day(time: Timestamp) -> String {
    let local = time.to_zoned(TimeZone::system());
    local.strftime("%H:%M:%S").to_string()
}

/// RFC 3339, UTC, to the second.
fn whole_time(time: Timestamp) -> String {
    format!("{time:.0}")
}

/// Begins a line as env_logger does.
fn begin_for_program(line: &mut String, record: &Record<'_>, time: &str) {
    let level = match record.level() {
        Level::Error => " ERROR ",
        Level::Warn => " WARN  ",
        Level::Info => " INFO  ",
        Level::Debug => " DEBUG ",
        Level::Trace => " TRACE ",
    };
    line.extend(["[", time, level, record.target(), "] "]);
}

/// Begins it with the time of day where the person is. A level is named only if it isn't info, nor is
/// it of interest where in the program the line comes from.
fn begin_for_person(line: &mut String, record: &Record<'_>, time: &str, colours: Colours) {
    // ECMA-48's graphic renditions: faint, bold and a colour.
    let (level, rendition) = match record.level() {
        Level::Error => ("error: ", "1;31"),
        Level::Warn => ("warning: ", "1;33"),
        Level::Info => ("", ""),
        Level::Debug => ("debug: ", "2"),
        Level::Trace => ("trace: ", "2"),
    };
    match colours {
        Colours::Off => line.extend([time, " ", level]),
        Colours::On => {
            line.extend(["\x1b[2m", time, "\x1b[0m "]);
            if !level.is_empty() {
                line.extend(["\x1b[", rendition, "m", level, "\x1b[0m"]);
            }
        }
    }
}

/// Makes lines, but not those that would be dropped.
struct QueueLogger {
    /// Which lines are wanted. It makes none: its formatter sends each piece of a text through io::Write, which takes
    /// twice the instructions.
    chosen: env_logger::Logger,
    /// Lines are for a person.
    person: Option<Colours>,
    stamp: Mutex<SecondStamp>,
    writer: LineWriter,
}

impl QueueLogger {
    fn begin(&self, line: &mut String, record: &Record<'_>) {
        // It is whole after every use.
        let mut stamp = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
        match self.person {
            Some(colours) => {
                begin_for_person(
                    line,
                    record,
                    stamp.of(this_second(), local_time_of_day),
                    colours,
                );
            }
            None => begin_for_program(line, record, stamp.of(this_second(), whole_time)),
        }
    }
}

impl Log for QueueLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.chosen.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let is_ordinary = record.level() >= Level::Info;
        if self.chosen.matches(record) && !(is_ordinary && self.writer.should_drop()) {
            let most = LOG_QUEUE_BYTES_MAX + LOG_RESERVE_BYTES;
            self.writer.push_line(most, |line| {
                self.begin(line, record);
                append(line, *record.args());
            });
        }
    }

    fn flush(&self) {
        // The caller prints by itself how many lines were dropped.
        let _ = self.writer.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_a_person_is_short_and_names_a_level_that_matters() {
        let cases = [
            (Level::Info, Colours::Off, "21:00:00 "),
            (Level::Warn, Colours::Off, "21:00:00 warning: "),
            (Level::Info, Colours::On, "\x1b[2m21:00:00\x1b[0m "),
            (
                Level::Error,
                Colours::On,
                "\x1b[2m21:00:00\x1b[0m \x1b[1;31merror: \x1b[0m",
            ),
        ];
        for (level, colours, expected) in cases {
            let mut line = String::new();
            let record = Record::builder().level(level).build();
            begin_for_person(&mut line, &record, "21:00:00", colours);
            assert_eq!(line, expected);
        }
    }

    #[test]
    fn a_line_for_a_program_names_its_level_in_five_letters() {
        for level in Level::iter() {
            let mut line = String::new();
            let record = Record::builder().level(level).target("a::b").build();
            begin_for_program(&mut line, &record, "T");
            assert_eq!(line, format!("[T {level:<5} a::b] "));
        }
    }
}
