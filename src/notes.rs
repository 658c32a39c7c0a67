//! `carafe notes`: the nine notes that this program began with, each shown by a server and a client that
//! really make the calls, side by side as a sequence chart.

mod chart;
mod page;
mod scenes;
mod talk;

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;

use crate::failure::{Exit, Failure};
use chart::Chart;
use scenes::NOTES;

/// `carafe notes`.
#[derive(Args, Debug)]
pub struct NotesArgs {
    /// Which note, 1 to 9 [default: all]
    #[arg(value_name = "N", value_parser = note_number)]
    pub number: Option<u8>,

    /// Write a page with the charts to this file, too
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

fn note_number(text: &str) -> Result<u8, &'static str> {
    let number = text.parse().ok();
    number
        .filter(|number| (1..=9).contains(number))
        .ok_or("takes 1 to 9")
}

/// Runs `carafe notes`.
#[must_use]
pub fn run(args: &NotesArgs) -> Exit {
    match show(args, &mut io::stdout()) {
        Ok(()) => Exit::Done,
        // Who reads on has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => Failure::new(Exit::Failed, error.to_string()).report(),
    }
}

/// Plays the notes, and shows each line as it happens.
fn show(args: &NotesArgs, out: &mut dyn Write) -> io::Result<()> {
    let mut charts = Vec::new();
    for (number, note) in (1..).zip(&NOTES) {
        if args.number.is_some_and(|only| only != number) {
            continue;
        }
        if !charts.is_empty() {
            writeln!(out)?;
        }
        let mut chart = Chart::begin(number, note, out)?;
        (note.play)(&mut chart)?;
        charts.push(chart.end()?);
    }
    if let Some(path) = &args.html {
        let cannot = |error: io::Error| {
            io::Error::new(
                error.kind(),
                format!("--html: '{}' can't be written: {error}", path.display()),
            )
        };
        fs::write(path, page::render(&charts)).map_err(cannot)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
