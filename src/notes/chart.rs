//! A sequence chart: what each side calls, what it gets, and what goes over the wire between them.

use std::fmt;
use std::io::{self, Write};

/// A note, and what shows it.
#[derive(Debug)]
pub(super) struct Note {
    /// What it says, in English and Chinese.
    pub(super) says: [&'static str; 2],
    pub(super) play: fn(&mut Chart<'_>) -> io::Result<()>,
    /// Why it is so, in a few lines.
    pub(super) because: &'static [&'static str],
    /// The manual page.
    pub(super) man: &'static str,
    /// Where this program does it: a function, and its file.
    pub(super) here: (&'static str, &'static str),
}

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

/// What a call sends over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wire {
    pub(super) to: Side,
    pub(super) label: String,
    /// The server's kernel drops it.
    pub(super) is_lost: bool,
}

/// A line of a chart.
#[derive(Debug)]
pub(super) enum Line {
    Call {
        by: Side,
        call: String,
        result: String,
        wire: Option<Wire>,
        /// What comes back before it returns.
        answer: Option<Wire>,
    },
    /// What comes now.
    Heading(&'static str),
}

/// A note that has been shown.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) number: u8,
    pub(super) note: &'static Note,
    pub(super) lines: Vec<Line>,
}

/// A chart that is being drawn.
pub(super) struct Chart<'a> {
    shown: Shown,
    out: &'a mut dyn Write,
}

/// Columns of a side, and of the wire between them: 78 in all.
const SIDE: usize = 32;
const WIRE: usize = 14;

impl<'a> Chart<'a> {
    pub(super) fn begin(
        number: u8,
        note: &'static Note,
        out: &'a mut dyn Write,
    ) -> io::Result<Self> {
        let [english, chinese] = note.says;
        writeln!(out, "Note {number}. {english}\n        {chinese}\n")?;
        writeln!(out, "{:SIDE$}{:WIRE$}server", "client", "")?;
        let shown = Shown {
            number,
            note,
            lines: Vec::new(),
        };
        Ok(Self { shown, out })
    }

    pub(super) fn add(&mut self, line: Line) -> io::Result<()> {
        write!(self.out, "{line}")?;
        self.out.flush()?;
        self.shown.lines.push(line);
        Ok(())
    }

    /// Says why, and where to read on.
    pub(super) fn end(self) -> io::Result<Shown> {
        let note = self.shown.note;
        writeln!(self.out)?;
        for line in note.because {
            writeln!(self.out, "{line}")?;
        }
        writeln!(
            self.out,
            "Read on: man {}; {} in {}",
            note.man, note.here.0, note.here.1
        )?;
        Ok(self.shown)
    }
}

/// An arrow as wide as the wire's column.
impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dashes = WIRE - 5 - self.label.len();
        let (before, after) = ("─".repeat(dashes / 2), "─".repeat(dashes - dashes / 2));
        let label = &self.label;
        match (self.to, self.is_lost) {
            (Side::Server, false) => write!(f, " {before} {label} {after}▶ "),
            (Side::Server, true) => write!(f, " {before} {label} {after}✗ "),
            (Side::Client, _) => write!(f, " ◀{before} {label} {after} "),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (by, call, result, wires) = match self {
            Self::Heading(text) => return writeln!(f, "\n· {text}"),
            Self::Call {
                by,
                call,
                result,
                wire,
                answer,
            } => (*by, call, result, [wire, answer]),
        };
        let [wire, answer] = wires.map(|wire| wire.as_ref().map(Wire::to_string));
        let row = |f: &mut fmt::Formatter<'_>, text: &str, wire: &Option<String>| {
            let wire = wire.as_deref().unwrap_or_default();
            match by {
                Side::Client => writeln!(f, "{}", format!("{text:SIDE$}{wire}").trim_end()),
                Side::Server => writeln!(f, "{:SIDE$}{wire:WIRE$}{text}", ""),
            }
        };
        let whole = format!("{call} = {result}");
        if answer.is_none() && whole.chars().count() <= SIDE {
            return row(f, &whole, &wire);
        }
        row(f, call, &wire)?;
        row(f, &format!("  = {result}"), &answer)
    }
}
