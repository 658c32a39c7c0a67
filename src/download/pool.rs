//! Several things at a time, on as many threads.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Does the work for each item, in their order, by up to so many threads of which this is one.
/// After a `Break` nothing more is begun. With fewer threads than asked for, it takes longer.
pub(super) fn each<T: Sync>(
    items: &[T],
    workers: NonZeroUsize,
    work: impl Fn(&T) -> ControlFlow<()> + Sync,
) {
    let next = AtomicUsize::new(0);
    let run = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if work(item).is_break() {
                next.store(items.len(), Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..workers.get().min(items.len()) {
            if thread::Builder::new().spawn_scoped(scope, run).is_err() {
                break;
            }
        }
        run();
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Barrier, Mutex};

    #[test]
    fn everything_is_done_once_by_as_many_as_asked_for() {
        let all_at_once = Barrier::new(4);
        let done = Mutex::new(Vec::new());
        let items: Vec<_> = (0..8).collect();
        each(&items, NonZeroUsize::new(4).unwrap(), |item| {
            all_at_once.wait();
            done.lock().unwrap().push(*item);
            ControlFlow::Continue(())
        });
        let mut done = done.into_inner().unwrap();
        done.sort();
        assert_eq!(done, items);
    }

    #[test]
    fn nothing_is_begun_after_a_break() {
        let begun = AtomicUsize::new(0);
        each(&[0; 9], NonZeroUsize::MIN, |_| {
            match begun.fetch_add(1, Ordering::Relaxed) {
                2 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        });
        assert_eq!(begun.into_inner(), 3);
    }
}
