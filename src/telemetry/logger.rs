//! The log on stderr: env_logger formats, a [`LineWriter`] writes. A person at a terminal gets short
//! lines, everything else whole time stamps.

use std::io::{self, IsTerminal as _, Write};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use log::{Level, LevelFilter, Log, Metadata, Record};

use super::log_writer::LineWriter;
use super::stamp::SecondStamp;
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
    let target = env_logger::Target::Pipe(Box::new(LineSink(writer.clone())));
    builder
        .target(target)
        .write_style(env_logger::WriteStyle::Never);
    let person = io::stderr().is_terminal().then(Colours::wanted);
    let stamp = Mutex::new(SecondStamp::default());
    builder.format(move |line, record| {
        // It is whole after every use.
        let mut stamp = stamp.lock().unwrap_or_else(PoisonError::into_inner);
        match person {
            Some(colours) => {
                let time = stamp.of(Timestamp::now(), local_time_of_day);
                write_for_person(line, record, time, colours)
            }
            None => write_for_program(line, record, stamp.of(Timestamp::now(), whole_time)),
        }
    });
    let inner = builder.build();
    log::set_max_level(inner.filter());
    log::set_boxed_logger(Box::new(QueueLogger {
        inner,
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
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
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

/// As env_logger writes a line by itself.
fn write_for_program(line: &mut impl Write, record: &Record<'_>, time: &str) -> io::Result<()> {
    let (level, target) = (record.level(), record.target());
    writeln!(line, "[{time} {level:<5} {target}] {}", record.args())
}

/// The time of day where the person is, and the text. A level is named only if it isn't info, nor is
/// it of interest where in the program the line comes from.
fn write_for_person(
    line: &mut impl Write,
    record: &Record<'_>,
    time: &str,
    colours: Colours,
) -> io::Result<()> {
    // ECMA-48's graphic renditions: faint, bold and a colour.
    let (level, rendition) = match record.level() {
        Level::Error => ("error: ", "1;31"),
        Level::Warn => ("warning: ", "1;33"),
        Level::Info => ("", ""),
        Level::Debug => ("debug: ", "2"),
        Level::Trace => ("trace: ", "2"),
    };
    let text = record.args();
    match colours {
        Colours::Off => writeln!(line, "{time} {level}{text}"),
        Colours::On if level.is_empty() => writeln!(line, "\x1b[2m{time}\x1b[0m {text}"),
        Colours::On => writeln!(
            line,
            "\x1b[2m{time}\x1b[0m \x1b[{rendition}m{level}\x1b[0m{text}"
        ),
    }
}

/// Where env_logger writes: one call is one whole line.
struct LineSink(LineWriter);

impl Write for LineSink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line, LOG_QUEUE_BYTES_MAX + LOG_RESERVE_BYTES);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Formats by env_logger, but not the lines that would be dropped.
struct QueueLogger {
    inner: env_logger::Logger,
    writer: LineWriter,
}

impl Log for QueueLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.inner.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let is_ordinary = record.level() >= log::Level::Info;
        if self.inner.matches(record) && !(is_ordinary && self.writer.should_drop()) {
            self.inner.log(record);
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
            (Level::Info, Colours::Off, "21:00:00 text\n"),
            (Level::Warn, Colours::Off, "21:00:00 warning: text\n"),
            (Level::Info, Colours::On, "\x1b[2m21:00:00\x1b[0m text\n"),
            (
                Level::Error,
                Colours::On,
                "\x1b[2m21:00:00\x1b[0m \x1b[1;31merror: \x1b[0mtext\n",
            ),
        ];
        for (level, colours, expected) in cases {
            let mut line = Vec::new();
            let text = format_args!("text");
            let record = Record::builder().level(level).args(text).build();
            write_for_person(&mut line, &record, "21:00:00", colours).unwrap();
            assert_eq!(String::from_utf8(line).unwrap(), expected);
        }
    }
}
