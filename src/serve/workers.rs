//! What loops that serve side by side share: whom the first tells what it was told, how many let in, and
//! what each has counted.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::sources::{OTHER_ENDED, STOP_NOW};
use crate::reactor::{Remote, SourceId};
use crate::telemetry::{Stage, Stats, add_each};

/// A loop's place among those that serve together.
#[derive(Clone, Debug, Default)]
pub(super) enum WorkerRole {
    /// There is no other.
    #[default]
    Alone,
    /// It tells the others what to do, and ends after them.
    First(Arc<Workers>),
    /// It does as it is told.
    Other(Arc<Workers>, usize),
}

/// What the loops share.
#[derive(Debug)]
pub(super) struct Workers {
    /// Reach each of the loops; the first of them comes first.
    remotes: Vec<Remote>,
    /// How many have not begun to drain.
    letting_in: AtomicUsize,
    /// How many beside the first have not ended.
    others_running: AtomicUsize,
    /// What each of the others had counted when its latest turn was over. Empty if nobody looks.
    figures: Vec<Mutex<Figures>>,
}

/// What one loop has counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    pub(super) stats: Stats,
    /// Open connections, in the order of [`Stage::ALL`].
    pub(super) stages: [u64; Stage::ALL.len()],
}

impl Workers {
    /// For loops that these reach, none of which has ended; the first shows what the others count, if
    /// somebody looks.
    pub(super) fn new(remotes: Vec<Remote>, is_looked_at: bool) -> Self {
        let others = remotes.len() - 1;
        let shown = if is_looked_at { others } else { 0 };
        Self {
            letting_in: AtomicUsize::new(remotes.len()),
            others_running: AtomicUsize::new(others),
            remotes,
            figures: (0..shown).map(|_| Mutex::default()).collect(),
        }
    }

    fn tell(&self, to: usize, id: SourceId) {
        if let Err(error) = self.remotes[to].notify(id) {
            log::error!("loop {to} can't be told: {error}");
        }
    }

    fn tell_all_but(&self, but: usize, id: SourceId) {
        for to in (0..self.remotes.len()).filter(|&to| to != but) {
            self.tell(to, id);
        }
    }

    /// Adds what the loops beside the first had counted when their latest turns were over.
    pub(super) fn add_to(&self, sums: &mut Figures) {
        for figures in &self.figures {
            let figures = figures.lock().unwrap_or_else(PoisonError::into_inner);
            sums.stats += &figures.stats;
            add_each(&mut sums.stages, &figures.stages);
        }
    }
}

impl WorkerRole {
    /// Tells the others what the first was told.
    pub(super) fn pass_on(&self, id: SourceId) {
        if let Self::First(workers) = self {
            workers.tell_all_but(0, id);
        }
    }

    /// This loop lets nobody in any more. Whether that is so of all loops now.
    pub(super) fn begins_to_drain(&self) -> bool {
        match self {
            Self::Alone => true,
            // Who comes last has seen that the others' doors are shut.
            Self::First(workers) | Self::Other(workers, _) => {
                workers.letting_in.fetch_sub(1, Ordering::AcqRel) == 1
            }
        }
    }

    /// The first has the signals, so it stays until the others have ended.
    pub(super) fn may_end(&self) -> bool {
        match self {
            Self::First(workers) => workers.others_running.load(Ordering::Acquire) == 0,
            Self::Alone | Self::Other(..) => true,
        }
    }

    /// Shows the first what this loop has counted.
    pub(super) fn publish(&self, stats: &Stats, stages: [u64; Stage::ALL.len()]) {
        if let Self::Other(workers, index) = self
            && let Some(figures) = workers.figures.get(index - 1)
        {
            let mut figures = figures.lock().unwrap_or_else(PoisonError::into_inner);
            figures.stats.clone_from(stats);
            figures.stages = stages;
        }
    }

    /// The loop is over. One that failed takes the others with it.
    pub(super) fn leave(&self, failed: bool) {
        let (workers, index) = match self {
            Self::Alone => return,
            Self::First(workers) => (workers, 0),
            Self::Other(workers, index) => (workers, *index),
        };
        if failed {
            workers.tell_all_but(index, STOP_NOW);
        }
        if index != 0 {
            workers.others_running.fetch_sub(1, Ordering::AcqRel);
            workers.tell(0, OTHER_ENDED);
        }
    }
}
