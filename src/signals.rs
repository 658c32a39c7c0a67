//! Which signal is a second one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use signal_hook::iterator::Signals;

use crate::limits::SIGNAL_PAIR_TIME;

/// Becomes true when the first of these signals has come and [`SIGNAL_PAIR_TIME`] has passed: what comes then
/// is a second one.
///
/// # Errors
/// No signal can be caught, or no thread started.
pub fn first_has_come(signals: &[i32]) -> io::Result<Arc<AtomicBool>> {
    let has_come = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&has_come);
    let mut signals = Signals::new(signals)?;
    thread::Builder::new().spawn(move || {
        if signals.forever().next().is_some() {
            thread::sleep(SIGNAL_PAIR_TIME);
            told.store(true, Ordering::SeqCst);
        }
    })?;
    Ok(has_come)
}
