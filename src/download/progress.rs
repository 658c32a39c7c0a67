//! What a person sees: a bar for each download under way, one line for all of them, and messages above
//! these. A terminal of 80 columns holds it.

use std::io::{self, IsTerminal as _};
use std::os::unix::ffi::OsStrExt as _;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::Destination;
use crate::escape::Escaped;
use crate::failure::tell;
use crate::flags::Verbosity;

/// Standard error, shared by all downloads.
#[derive(Debug)]
pub(super) struct Console {
    bars: MultiProgress,
    /// What all downloads come to; it shows nothing if there is one.
    total: ProgressBar,
    has_total: bool,
    verbosity: Verbosity,
}

/// How far one download is.
#[derive(Debug)]
pub(super) struct DownloadBar {
    bar: ProgressBar,
    total: ProgressBar,
    /// Bytes that are in the total.
    counted: u64,
}

impl Console {
    /// For one download, or for many.
    pub(super) fn new(verbosity: Verbosity, are_many: bool) -> Self {
        let mut console = Self {
            bars: MultiProgress::new(),
            total: ProgressBar::hidden(),
            has_total: false,
            verbosity,
        };
        if are_many && console.shows() {
            let total = ProgressBar::no_length()
                .with_style(style("{msg} {bytes} {bytes_per_sec} {elapsed}"));
            console.total = console.bars.add(total);
            console.has_total = true;
        }
        console
    }

    /// So many lists were read, of which it isn't known yet how many there are.
    pub(super) fn count_lists(&self, read: usize) {
        self.total.set_message(format!("{read} lists"));
    }

    /// So many of the downloads are over.
    pub(super) fn count(&self, over: usize, all: usize) {
        self.total.set_message(format!("{over} of {all} files"));
    }

    fn shows(&self) -> bool {
        !self.verbosity.quiet && io::stderr().is_terminal()
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

    /// Whether a person wants to know how things went that didn't fail.
    pub(super) fn tells_results(&self) -> bool {
        self.is_verbose() || self.shows()
    }

    pub(super) fn is_verbose(&self) -> bool {
        self.verbosity.verbose > 0
    }

    /// Whether a person looks on. A file that goes to the terminal must not be mixed with progress.
    pub(super) fn is_watched(&self, destination: &Destination) -> bool {
        let mixes = destination.is_stdout() && io::stdout().is_terminal();
        self.shows() && !mixes
    }

    /// A bar for a download into this destination; one that shows nothing if nobody looks on.
    pub(super) fn bar(&self, label: &[u8], destination: &Destination) -> DownloadBar {
        let hidden = |bar| DownloadBar {
            bar,
            total: ProgressBar::hidden(),
            counted: 0,
        };
        if !self.is_watched(destination) {
            return hidden(ProgressBar::hidden());
        }
        let name = match destination {
            Destination::File(path) | Destination::Mirrored(_, path) => {
                path.file_name().map_or(label, |name| name.as_bytes())
            }
            Destination::Stdout => label,
        };
        let template = format!("{{msg:{NAME_COLUMNS}!}} {{bytes}} {{bytes_per_sec}} {{elapsed}}");
        let bar = ProgressBar::no_length()
            .with_style(style(&template))
            .with_message(shortened(&Escaped(name).to_string()));
        let bar = if self.has_total {
            self.bars.insert_before(&self.total, bar)
        } else {
            self.bars.add(bar)
        };
        DownloadBar {
            total: self.total.clone(),
            ..hidden(bar)
        }
    }

    /// Takes a bar away.
    pub(super) fn finish(&self, bar: &DownloadBar) {
        bar.bar.finish_and_clear();
        self.bars.remove(&bar.bar);
    }

    /// Nothing more is under way.
    pub(super) fn finish_all(&self) {
        self.total.finish_and_clear();
    }
}

impl DownloadBar {
    /// Where a download stands when bytes begin to come, and where it ends if that is known. Speed and
    /// the time that is left count what comes from now on.
    pub(super) fn begin(&mut self, at: u64, length: Option<u64>) {
        if let Some(length) = length {
            self.bar.set_style(style(&format!(
                "{{msg:{NAME_COLUMNS}!}} [{{bar:8}}] {{percent:>3}}% {{bytes}}/{{total_bytes}} \
                 {{bytes_per_sec}} eta {{eta}}"
            )));
            self.bar.set_length(length);
        }
        self.counted = at;
        self.bar.set_position(at);
        self.bar.reset_eta();
    }

    /// So many bytes are there.
    pub(super) fn reach(&mut self, bytes: u64) {
        self.bar.set_position(bytes);
        self.total.inc(bytes.saturating_sub(self.counted));
        self.counted = bytes;
    }
}

/// Columns for a file's name. With a bar, a speed and an estimate beside it that makes 80.
const NAME_COLUMNS: usize = 20;

/// A name that fits its columns. It is cut in the middle: names of many files differ in their ends.
fn shortened(name: &str) -> String {
    // Good enough: what is wide in a terminal is beyond these letters.
    let columns = |c: char| if c < '\u{1100}' { 1 } else { 2 };
    if name.chars().map(columns).sum::<usize>() <= NAME_COLUMNS {
        return name.to_owned();
    }
    let fitting = |chars: &mut dyn Iterator<Item = char>, most: usize| -> Vec<char> {
        let mut left = most;
        let mut fits = |c: &char| {
            let rest = left.checked_sub(columns(*c));
            left = rest.unwrap_or_default();
            rest.is_some()
        };
        chars.take_while(|c| fits(c)).collect()
    };
    let half = NAME_COLUMNS / 2;
    let begin = fitting(&mut name.chars(), NAME_COLUMNS - half - 1);
    let end = fitting(&mut name.chars().rev(), half);
    let end = end.into_iter().rev();
    begin.into_iter().chain(['…']).chain(end).collect()
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("the template is well-formed")
        .progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_differ_at_an_end_look_different() {
        for (name, expected) in [
            ("short.iso", "short.iso"),
            ("twenty-columns-wide.", "twenty-columns-wide."),
            ("debian-12.5.0-amd64-DVD-1.iso", "debian-12…-DVD-1.iso"),
            ("debian-12.5.0-amd64-DVD-2.iso", "debian-12…-DVD-2.iso"),
            ("接收接收接收接收接收接收.txt", "接收接收…收接收.txt"),
        ] {
            assert_eq!(shortened(name), expected);
        }
    }
}
