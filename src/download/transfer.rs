//! One file on its way: what every protocol shares, from the target to the last line.

use std::sync::Arc;
use std::time::Instant;

use super::connection::Patience;
use super::interrupt::Running;
use super::progress::{Console, Progress};
use super::target::{Destination, Target};
use super::url::Source;
use super::{Failure, bare, fetch};
use crate::cli::GetArgs;
use crate::escape::Escaped;
use crate::failure::Exit;

/// One file to fetch.
#[derive(Debug)]
pub(super) struct Order {
    /// The name or the URL, as it was asked for.
    pub(super) label: Vec<u8>,
    pub(super) source: Source,
    pub(super) destination: Destination,
}

/// What all downloads of one command share.
#[derive(Debug)]
pub(super) struct Session<'a> {
    pub(super) args: &'a GetArgs,
    pub(super) console: Arc<Console>,
    pub(super) running: Running,
    /// The permission bits of a new file.
    pub(super) new_mode: u32,
}

/// How a download ended, when it ended in order.
#[derive(Clone, Copy, Debug)]
pub(super) enum Came {
    /// End of file before any byte.
    Nothing,
    /// The whole file, of so many bytes.
    Whole(u64),
    /// Whoever reads our output has closed it.
    Enough,
}

/// One file on its way.
#[derive(Debug)]
pub(super) struct Download<'a> {
    pub(super) order: &'a Order,
    pub(super) session: &'a Session<'a>,
    pub(super) patience: Patience,
    pub(super) target: Target,
    pub(super) progress: Progress,
    /// Bytes of the whole that an earlier download had left.
    pub(super) resumed_bytes: u64,
}

impl<'a> Download<'a> {
    /// Downloads one file.
    ///
    /// # Errors
    /// Why there is no file; what is left of it is told.
    pub(super) fn run(order: &'a Order, session: &'a Session<'a>) -> Result<Came, Failure> {
        let started = Instant::now();
        let (args, console) = (session.args, &session.console);
        let mut download = Self {
            order,
            session,
            patience: Patience::starting_now(args.client),
            target: Target::at(&order.destination, session.new_mode, args.sha256.is_some())?,
            progress: console.bar(&order.label, &order.destination),
            resumed_bytes: 0,
        };
        let entered = session.running.enter(&order.label, download.target.left());
        let result = download.fetch();
        drop(entered);
        console.finish(&download.progress);
        if let Ok(Came::Whole(bytes)) = result
            && (console.is_verbose() || console.is_watched(&order.destination))
        {
            let name = Escaped(&order.label);
            let earlier = match download.resumed_bytes {
                0 => String::new(),
                count => format!(", {count} of them from an earlier download,"),
            };
            let seconds = started.elapsed().as_secs_f64();
            let target = &order.destination;
            console.tell(&format!(
                "{name}: {bytes} bytes{earlier} in {seconds:.3} s to {target}"
            ));
        }
        result
    }

    /// A file is had only when it has its name; what is left of a failed one is told.
    fn fetch(&mut self) -> Result<Came, Failure> {
        let result = match &self.order.source {
            Source::Bare { server, name } => bare::fetch(self, server, name),
            Source::Http(url) => fetch::fetch(self, url),
        };
        self.tell_notes();
        let result = result.and_then(|came| match came {
            Came::Nothing => Err(Failure::new(
                Exit::NoFile,
                "the server sent nothing: it has no such file, or an empty one",
            )),
            Came::Whole(_) => self.finish().map(|()| came),
            Came::Enough => Ok(came),
        });
        result.map_err(|mut failure| {
            if let Some(kept) = self.target.left().kept() {
                failure.line = format!("{}; {kept}", failure.line);
            }
            failure
        })
    }

    /// Bytes with another digest never take the target's name, nor are they continued.
    fn finish(&mut self) -> Result<(), Failure> {
        if let Some(expected) = &self.session.args.sha256 {
            let got = self.target.sha256();
            if got.as_deref() != Some(expected) {
                self.target.forget()?;
                let got = got.unwrap_or_default();
                let line = format!("its SHA-256 is {got}, not {expected}");
                return Err(Failure::new(Exit::Mismatch, line));
            }
        }
        self.target.finish()
    }

    /// Says what the target has found.
    pub(super) fn tell_notes(&mut self) {
        for line in self.target.take_notes() {
            self.note(&line);
        }
    }

    /// Says something about this download unless it is to be quiet.
    pub(super) fn note(&self, line: &str) {
        let name = Escaped(&self.order.label);
        self.session.console.note(&format!("{name}: {line}"));
    }
}
