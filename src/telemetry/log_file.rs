//! The file of a log: opened by its path, and anew when it was renamed; a line is whole, or cut for all to
//! see.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::escape::Escaped;
use crate::telemetry::log_writer::Sink;
use crate::telemetry::rate_limit::RateLimit;

/// The file that the writer's thread writes to.
pub(super) struct LogFile {
    file: File,
    /// None for standard output, which can't be opened anew.
    path: Option<PathBuf>,
    line: LineState,
    warning_limit: RateLimit,
}

/// What of a line was written last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LineState {
    Whole,
    Part,
    /// A part, and the rest won't come: what follows must begin on a line of its own.
    Cut,
}

/// A FIFO doesn't hold up the start, nor ever blocks the writer where it can't be told to end: the
/// descriptor is non-blocking. One without a reader can be opened for both directions only, and
/// keeps its lines for the next reader.
fn open_for_append(path: &Path) -> io::Result<File> {
    let flags =
        OFlags::APPEND | OFlags::CREATE | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
    let opened = match rustix::fs::open(path, flags | OFlags::WRONLY, mode) {
        Err(Errno::NXIO) => rustix::fs::open(path, flags | OFlags::RDWR, mode),
        opened => opened,
    };
    Ok(File::from(opened?))
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.line == LineState::Cut {
            self.write_raw(b"\n")?;
        }
        self.write_raw(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LogFile {
    /// Appends to a file, which is made if there is none; `-` is standard output.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let (file, path) = match path.as_os_str().as_encoded_bytes() {
            b"-" => (File::from(io::stdout().as_fd().try_clone_to_owned()?), None),
            _ => (open_for_append(path)?, Some(path.to_owned())),
        };
        Ok(Self {
            file,
            path,
            line: LineState::Whole,
            warning_limit: RateLimit::default(),
        })
    }

    fn write_raw(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.file.write(bytes);
        match &result {
            Ok(0) => {}
            Ok(count) if bytes[count - 1] == b'\n' => self.line = LineState::Whole,
            Ok(_) => self.line = LineState::Part,
            Err(error) if is_temporary(error) => {}
            Err(error) => {
                if self.line == LineState::Part {
                    self.line = LineState::Cut;
                }
                if self.warning_limit.allows(Instant::now()) {
                    log::warn!("the access log can't be written: {error}");
                }
            }
        }
        result
    }

    /// What it is called, for the operator.
    fn name(&self) -> String {
        let path = self.path.as_deref().unwrap_or(Path::new("-"));
        Escaped(path.as_os_str().as_encoded_bytes()).to_string()
    }
}

/// Another attempt follows.
fn is_temporary(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, WouldBlock};
    matches!(error.kind(), Interrupted | WouldBlock)
}

impl Sink for LogFile {
    fn reopen(&mut self) {
        let Some(path) = &self.path else { return };
        match open_for_append(path) {
            Ok(file) => {
                self.file = file;
                self.line = LineState::Whole;
                log::info!("the access log \"{}\" was opened anew", self.name());
            }
            Err(error) => {
                let name = self.name();
                log::warn!("the access log \"{name}\" can't be opened anew: {error}");
            }
        }
    }

    /// A line about it in the file would be no entry, so it goes to the log for people.
    fn report_dropped(&mut self, lines: u64) -> String {
        if self.warning_limit.allows(Instant::now()) {
            log::warn!("the access log is too slow: {lines} lines dropped");
        }
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_is_not_gone_on_with() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut log = LogFile::open(file.path()).unwrap();
        log.write_all(b"one\ntw").unwrap();
        // A descriptor that can't be written stands for a disk that is full.
        let writable = std::mem::replace(&mut log.file, File::open(file.path()).unwrap());
        assert!(log.write(b"o\n").is_err());
        log.file = writable;
        log.write_all(b"three\n").unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(text, "one\ntw\nthree\n");
    }

    #[test]
    fn a_fifo_without_a_reader_is_opened_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        let mut file = open_for_append(&path).unwrap();
        file.write_all(b"kept\n").unwrap();
        let mut reader = File::open(&path).unwrap();
        drop(file);
        let mut text = String::new();
        io::Read::read_to_string(&mut reader, &mut text).unwrap();
        assert_eq!(text, "kept\n");
    }
}
