//! Where the report goes: files, and standard output.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::args::SoakArgs;
use super::report::Report;
use super::{page, pipeline, text};
use crate::escape::Escaped;
use crate::failure::{Exit, Failure};

/// A form of the report, and where it goes.
struct Output<'a> {
    flag: &'static str,
    path: &'a Path,
    render: fn(&Report) -> io::Result<Vec<u8>>,
}

/// What the command line asks for, beside the text.
fn outputs(args: &SoakArgs) -> impl Iterator<Item = Output<'_>> {
    let json: fn(&Report) -> io::Result<Vec<u8>> = |report| Ok(serde_json::to_vec_pretty(report)?);
    [
        ("--json", &args.json, json),
        ("--report", &args.report, |report| {
            Ok(page::render(report).into())
        }),
        ("--junit", &args.junit, pipeline::junit),
        ("--summary", &args.summary, pipeline::summary),
        ("--hdr", &args.hdr, pipeline::interval_log),
    ]
    .into_iter()
    .filter_map(|(flag, path, render)| {
        let path = path.as_deref()?;
        Some(Output { flag, path, render })
    })
}

impl Output<'_> {
    fn is_stdout(&self) -> bool {
        self.path == Path::new("-")
    }

    fn shown(&self) -> Escaped<'_> {
        Escaped(self.path.as_os_str().as_encoded_bytes())
    }

    /// Which file it is, by whatever name; `None` for devices, which may take several forms.
    fn file(&self) -> Option<PathBuf> {
        if self.is_stdout() {
            return Some(self.path.into());
        }
        if let Ok(metadata) = fs::metadata(self.path) {
            let numbers = format!("{} {}", metadata.dev(), metadata.ino());
            return metadata.is_file().then(|| numbers.into());
        }
        let folder = self.path.parent().filter(|folder| *folder != Path::new(""));
        let folder = fs::canonicalize(folder.unwrap_or(Path::new("."))).ok()?;
        Some(folder.join(self.path.file_name()?))
    }

    /// That a report can't be written must not turn out after an hour of load. A file that was not
    /// there is not left behind.
    fn check(&self) -> Result<(), Failure> {
        let is_new = !self.path.exists();
        let mut file = OpenOptions::new();
        let opened = file.append(true).create(true).open(self.path);
        let checked = opened.and_then(|_| {
            if is_new {
                fs::remove_file(self.path)
            } else {
                Ok(())
            }
        });
        checked.map_err(|error| {
            Failure::usage(format!("'{}' can't be written: {error}", self.shown()))
        })
    }
}

/// Looks at where the report is to go, before anybody is connected to.
/// An error is a usage error: something can't be written, or would be written over.
pub(super) fn check(args: &SoakArgs) -> Result<(), Failure> {
    let outputs: Vec<_> = outputs(args).collect();
    for (index, output) in outputs.iter().enumerate() {
        let file = output.file();
        let is_same = |other: &&Output<'_>| file.is_some() && other.file() == file;
        if let Some(other) = outputs[..index].iter().find(is_same) {
            let (flag, path) = (output.flag, output.shown());
            return Err(Failure::usage(format!(
                "{flag}: '{path}' won't do: it is what {} is written to",
                other.flag
            )));
        }
        if !output.is_stdout() {
            output.check()?;
        }
    }
    Ok(())
}

/// The report goes to the files that were asked for, and to standard output even if one of them
/// can't be written. Where one of its forms goes to standard output, the text goes to standard error.
pub(super) fn write(args: &SoakArgs, report: &Report) -> Result<(), Failure> {
    let mut written = Ok(());
    let mut on_stdout = None;
    for output in outputs(args) {
        let rendered = (output.render)(report);
        let this = if output.is_stdout() {
            rendered.map(|bytes| on_stdout = Some(bytes))
        } else {
            rendered.and_then(|bytes| fs::write(output.path, bytes))
        };
        written = written.and(this.map_err(|error| unwritten(&output.shown(), &error)));
    }
    let text = text::render(report);
    if on_stdout.is_some() {
        // Nobody is left to be told of an error.
        let _ = io::stderr().write_all(text.as_bytes());
    }
    let bytes = on_stdout.unwrap_or_else(|| text.into());
    // Last, since a terminal may be stuck. Whoever closed standard output doesn't want it.
    match io::stdout().write_all(&bytes) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            written.and(Err(unwritten(&"standard output", &error)))
        }
        _ => written,
    }
}

fn unwritten(what: &dyn std::fmt::Display, error: &io::Error) -> Failure {
    let line = format!("'{what}' can't be written: {error}");
    Failure::new(Exit::NotOffered, line)
}
