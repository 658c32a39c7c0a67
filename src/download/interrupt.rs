//! ^C and SIGTERM: what is kept is told, then the signal does what it always does.

use std::fs;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::progress::Console;
use super::target::Left;
use crate::escape::Escaped;

/// What a download is called, and what would be left of it.
type Labelled = (Vec<u8>, Left);

/// The downloads that are under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Running(Arc<Mutex<Vec<Labelled>>>);

impl Running {
    fn lock(&self) -> MutexGuard<'_, Vec<Labelled>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more is under way, until what is returned is dropped.
    pub(super) fn enter(&self, label: &[u8], left: &Left) -> Entered {
        self.lock().push((label.to_vec(), left.clone()));
        Entered {
            running: self.clone(),
            left: left.clone(),
        }
    }

    /// Says of each what is left of it.
    fn tell(&self, console: &Console) {
        for (label, left) in self.lock().iter() {
            let kept = left
                .kept()
                .map_or(String::new(), |kept| format!("; {kept}"));
            console.tell(&format!("{}: interrupted{kept}", Escaped(label)));
        }
    }
}

/// A download that is under way.
#[derive(Debug)]
pub(super) struct Entered {
    running: Running,
    left: Left,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.running.lock().retain(|(_, left)| !left.is(&self.left));
    }
}

/// From now on the first signal is answered before it ends the program. A second one ends it at once,
/// whatever the first one's answer waits for.
///
/// # Errors
/// No signal can be caught, or no thread started: then a signal ends it without a word.
pub(super) fn listen(console: Arc<Console>, running: Running) -> io::Result<()> {
    let ignored = ignored_signals();
    let is_heard = |signal: &i32| ignored & (1 << (signal - 1)) == 0;
    let heard: Vec<i32> = [SIGINT, SIGTERM].into_iter().filter(is_heard).collect();
    for &signal in &heard {
        let is_second = Arc::new(AtomicBool::new(false));
        flag::register_conditional_default(signal, Arc::clone(&is_second))?;
        flag::register(signal, is_second)?;
    }
    let mut signals = Signals::new(heard)?;
    thread::Builder::new().spawn(move || {
        for signal in signals.forever() {
            console.clear();
            running.tell(&console);
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
