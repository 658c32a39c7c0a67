//! Where a trace goes: a thread of its own renders and writes it, so that the loop never waits for a disk.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::timeline::Timeline;
use super::{chrome, page, record};
use crate::escape::Escaped;
use crate::failure::Failure;
use crate::limits::TRACE_FOR;

/// How a trace is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceFormat {
    /// One page that needs nothing else.
    Html,
    /// Chrome's Trace Event Format, which Perfetto opens.
    Json,
}

impl TraceFormat {
    /// By the file's extension.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "html" => Some(Self::Html),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// A trace that is recorded, and written when it is asked for and when this is dropped.
#[derive(Debug)]
pub struct TraceFile {
    /// `None` once no more will be asked for.
    asks: Option<Sender<()>>,
    writer: Option<JoinHandle<()>>,
}

impl TraceFile {
    /// Begins to record. That the file can't be written must not turn out at the end, so it is made.
    ///
    /// # Errors
    /// The file can't be written, or no thread can be started.
    pub fn start(path: PathBuf, last: Option<Duration>) -> Result<Self, Failure> {
        let shown = Escaped(path.as_os_str().as_encoded_bytes()).to_string();
        let cannot = |error: io::Error| {
            Failure::usage(format!(
                "--trace: '{shown}' won't do: it takes a file to write to ({error})"
            ))
        };
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .map_err(cannot)?;
        record::start();
        let (asks, asked) = channel();
        let last = last.unwrap_or(TRACE_FOR);
        let writer = thread::Builder::new()
            .name("trace".into())
            .spawn(move || write_when_asked(&asked, &path, last))
            .map_err(cannot)?;
        Ok(Self {
            asks: Some(asks),
            writer: Some(writer),
        })
    }

    /// Has it written as it is now.
    pub fn write(&self) {
        record::hand_over();
        if let Some(asks) = &self.asks {
            // The writer lives as long as this.
            let _ = asks.send(());
        }
    }
}

impl Drop for TraceFile {
    fn drop(&mut self) {
        self.write();
        self.asks = None;
        if let Some(writer) = self.writer.take() {
            // Should it have panicked, the trace is lost and nothing else.
            let _ = writer.join();
        }
    }
}

fn write_when_asked(asked: &Receiver<()>, path: &Path, last: Duration) {
    while asked.recv().is_ok() {
        let shown = Escaped(path.as_os_str().as_encoded_bytes());
        match write(path, last) {
            Ok(()) => log::info!("the trace was written to \"{shown}\""),
            Err(error) => log::warn!("the trace can't be written to \"{shown}\": {error}"),
        }
    }
}

/// Whoever reads the file sees a whole trace: it takes its name when it is.
fn write(path: &Path, last: Duration) -> io::Result<()> {
    let timeline = Timeline::new(&record::snapshot(), Instant::now(), last);
    let format = TraceFormat::of(path).unwrap_or(TraceFormat::Html);
    let text = match format {
        TraceFormat::Html => page::render(&timeline),
        TraceFormat::Json => chrome::render(&timeline)?,
    };
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    fs::write(&beside, text)?;
    fs::rename(&beside, path)
}
