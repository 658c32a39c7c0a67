//! What a person sees: a bar for each download under way, and lines between them.

use std::io::{self, IsTerminal as _};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::target::Destination;
use super::tell;
use crate::cli::Verbosity;
use crate::escape::Escaped;

/// Standard error, shared by all downloads.
#[derive(Debug)]
pub(super) struct Console {
    bars: MultiProgress,
    verbosity: Verbosity,
}

impl Console {
    pub(super) fn new(verbosity: Verbosity) -> Self {
        Self {
            bars: MultiProgress::new(),
            verbosity,
        }
    }

    /// Writes one line, above the bars.
    pub(super) fn tell(&self, line: &str) {
        self.bars.suspend(|| tell(line));
    }

    /// Takes all bars away: the program is about to end.
    pub(super) fn clear(&self) {
        // A terminal that has gone has no bars.
        let _ = self.bars.clear();
        self.bars.set_draw_target(ProgressDrawTarget::hidden());
    }

    /// Writes one line unless it is to be quiet.
    pub(super) fn note(&self, line: &str) {
        if !self.verbosity.quiet {
            self.tell(line);
        }
    }

    pub(super) fn is_verbose(&self) -> bool {
        self.verbosity.verbose > 0
    }

    /// Whether a person looks on. A file that goes to the terminal must not be mixed with progress.
    pub(super) fn is_watched(&self, destination: &Destination) -> bool {
        let mixes = *destination == Destination::Stdout && io::stdout().is_terminal();
        !self.verbosity.quiet && io::stderr().is_terminal() && !mixes
    }

    /// A bar for a download into this destination; one that shows nothing if nobody looks on.
    pub(super) fn bar(&self, name: &[u8], destination: &Destination) -> ProgressBar {
        if !self.is_watched(destination) {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::no_length()
            .with_style(style("{wide_msg} {bytes} {bytes_per_sec} {elapsed}"))
            .with_message(Escaped(name).to_string());
        self.bars.add(bar)
    }

    /// Takes a bar away.
    pub(super) fn finish(&self, bar: &ProgressBar) {
        bar.finish_and_clear();
        self.bars.remove(bar);
    }
}

/// Where a download stands when bytes begin to come, and where it ends if that is known. Speed and
/// the time that is left count what comes from now on.
pub(super) fn begin(bar: &ProgressBar, at: u64, length: Option<u64>) {
    if let Some(length) = length {
        bar.set_style(style(
            "{wide_msg} {bytes}/{total_bytes} {bytes_per_sec} eta {eta}",
        ));
        bar.set_length(length);
    }
    bar.set_position(at);
    bar.reset_eta();
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is well-formed")
}
