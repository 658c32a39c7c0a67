//! SIGINT (^C) and SIGTERM: the program says what it keeps, then the signal ends it as it always does.

use std::fs;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::part_file::SharedPart;
use super::progress::Console;
use crate::escape::Escaped;
use crate::signals;

/// A download's name as it was asked for, and its `.part`.
type Labelled = (Vec<u8>, SharedPart);

/// The downloads that are under way.
#[derive(Clone, Debug, Default)]
pub(super) struct ActiveDownloads(Arc<Mutex<Vec<Labelled>>>);

impl ActiveDownloads {
    fn lock(&self) -> MutexGuard<'_, Vec<Labelled>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a download, until the guard is dropped.
    pub(super) fn enter(&self, label: &[u8], part: &SharedPart) -> ActiveGuard {
        self.lock().push((label.to_vec(), part.clone()));
        ActiveGuard {
            active: self.clone(),
            part: part.clone(),
        }
    }

    /// Says of each download what is kept of it.
    fn tell(&self, console: &Console) {
        for (label, part) in self.lock().iter() {
            let kept = part
                .kept()
                .map_or(String::new(), |kept| format!("; {kept}"));
            console.tell(&format!("{}: interrupted{kept}", Escaped(label)));
        }
    }
}

/// Removes its download from the active ones when it is dropped.
#[derive(Debug)]
pub(super) struct ActiveGuard {
    active: ActiveDownloads,
    part: SharedPart,
}

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        self.active.lock().retain(|(_, part)| !part.is(&self.part));
    }
}

/// Starts a thread that answers the first signal, which then ends the program. A second signal ends it
/// at once, whatever that thread waits for.
///
/// # Errors
/// No signal can be caught, or no thread started: then a signal ends it without a word.
pub(super) fn listen(console: Arc<Console>, active: ActiveDownloads) -> io::Result<()> {
    let ignored = ignored_signals();
    let is_heard = |signal: &i32| ignored & (1 << (signal - 1)) == 0;
    let heard: Vec<i32> = [SIGINT, SIGTERM].into_iter().filter(is_heard).collect();
    let first_has_come = signals::first_has_come(&heard)?;
    for &signal in &heard {
        flag::register_conditional_default(signal, Arc::clone(&first_has_come))?;
    }
    let mut signals = Signals::new(heard)?;
    thread::Builder::new().spawn(move || {
        for signal in signals.forever() {
            console.clear();
            active.tell(&console);
            // If it doesn't end us, the next one will.
            let _ = emulate_default_handler(signal);
        }
    })?;
    Ok(())
}

/// The signals that whoever started us wants to be ignored, a bit each from signal 1 on: a shell does
/// that to what it starts in the background.
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut lines = status.lines();
    let mask = lines.find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default()
}
