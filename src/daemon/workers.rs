//! What loops that serve side by side share: how each wakes the others, how many still accept, and what
//! each has counted.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::sources::{OTHER_ENDED, STOP_NOW};
use crate::limits::WATCHDOG_BEATS;
use crate::reactor::{Remote, SourceId};
use crate::telemetry::{Stage, Stats, add_each};

/// A loop among those that serve together: what they share, and its index. The first one (0) has the
/// signals and the metrics, and ends last. `None` is a loop that serves alone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Worker(Option<(Arc<Workers>, usize)>);

/// What the loops share.
#[derive(Debug)]
pub(crate) struct Workers {
    /// Wake each of the loops, by its index.
    remotes: Vec<Remote>,
    /// How many have not begun to drain.
    accepting: AtomicUsize,
    /// How many beside the first have not ended.
    others_running: AtomicUsize,
    /// What each of the others had counted when its latest turn was over. Empty without metrics.
    figures: Vec<Mutex<Figures>>,
    watched: Option<Watched>,
}

/// What a watchdog must know: whether all loops turn.
#[derive(Debug)]
struct Watched {
    /// How often each turns at least.
    every: Duration,
    since: Instant,
    /// When each of the others has turned, in microseconds since then.
    turns: Vec<AtomicU64>,
}

/// What one loop has counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) stats: Stats,
    /// Open connections, in the order of [`Stage::ALL`].
    pub(crate) stages: [u64; Stage::ALL.len()],
}

impl Workers {
    /// For the loops that these wake, none of which has ended. `is_shown`: the first shows what all
    /// have counted. With a watchdog each turns within half of its time.
    pub(crate) fn new(remotes: Vec<Remote>, is_shown: bool, watchdog: Option<Duration>) -> Self {
        let others = remotes.len() - 1;
        let shown = if is_shown { others } else { 0 };
        let watched = watchdog.map(|watchdog| Watched {
            every: watchdog / (2 * WATCHDOG_BEATS),
            since: Instant::now(),
            turns: (0..others).map(|_| AtomicU64::default()).collect(),
        });
        Self {
            accepting: AtomicUsize::new(remotes.len()),
            others_running: AtomicUsize::new(others),
            remotes,
            figures: (0..shown).map(|_| Mutex::default()).collect(),
            watched,
        }
    }

    fn notify(&self, index: usize, id: SourceId) {
        if let Err(error) = self.remotes[index].notify(id) {
            log::error!("loop {index} can't be woken: {error}");
        }
    }

    fn notify_all_but(&self, index: usize, id: SourceId) {
        for other in (0..self.remotes.len()).filter(|&other| other != index) {
            self.notify(other, id);
        }
    }

    /// Adds what the loops beside the first had counted when their latest turns were over.
    pub(crate) fn add_to(&self, sums: &mut Figures) {
        for figures in &self.figures {
            let figures = figures.lock().unwrap_or_else(PoisonError::into_inner);
            sums.stats += &figures.stats;
            add_each(&mut sums.stages, &figures.stages);
        }
    }
}

impl Watched {
    fn micros(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.since);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }
}

impl Worker {
    pub(crate) fn new(workers: Arc<Workers>, index: usize) -> Self {
        Self(Some((workers, index)))
    }

    /// Its index; one that serves alone is the first.
    pub(crate) fn index(&self) -> usize {
        self.0.as_ref().map_or(0, |&(_, index)| index)
    }

    /// A signal came to the first loop, which passes it on to the others.
    pub(crate) fn pass_on(&self, id: SourceId) {
        if let Some((workers, 0)) = &self.0 {
            workers.notify_all_but(0, id);
        }
    }

    /// This loop has stopped accepting. Whether all have now.
    pub(crate) fn begins_to_drain(&self) -> bool {
        self.0.as_ref().is_none_or(|(workers, _)| {
            // The last to come here has seen that the others accept no more.
            workers.accepting.fetch_sub(1, Ordering::AcqRel) == 1
        })
    }

    /// The first has the signals, so it stays until the others have ended.
    pub(crate) fn may_end(&self) -> bool {
        match &self.0 {
            Some((workers, 0)) => workers.others_running.load(Ordering::Acquire) == 0,
            _ => true,
        }
    }

    /// Shows the first loop what this one has counted.
    pub(crate) fn publish(&self, stats: &Stats, stages: [u64; Stage::ALL.len()]) {
        if let Some((workers, index)) = &self.0
            && let Some(figures) = index.checked_sub(1).and_then(|at| workers.figures.get(at))
        {
            let mut figures = figures.lock().unwrap_or_else(PoisonError::into_inner);
            figures.stats.clone_from(stats);
            figures.stages = stages;
        }
    }

    /// What all have counted, given what this one has.
    pub(crate) fn sum_with(&self, stats: &Stats) -> Stats {
        let mut sums = Figures {
            stats: stats.clone(),
            ..Figures::default()
        };
        if let Some((workers, 0)) = &self.0 {
            workers.add_to(&mut sums);
        }
        sums.stats
    }

    /// For a watchdog: a loop beside the first has turned. Returns when it must turn again.
    pub(crate) fn turned(&self, now: Instant) -> Option<Instant> {
        let (workers, index) = self.0.as_ref()?;
        let watched = workers.watched.as_ref()?;
        let turn = watched.turns.get(index.checked_sub(1)?)?;
        turn.store(watched.micros(now), Ordering::Relaxed);
        Some(now + watched.every)
    }

    /// For a watchdog: whether all others have turned within the time before `now`, or have ended.
    pub(crate) fn all_turned_within(&self, time: Duration, now: Instant) -> bool {
        let watched = self
            .0
            .as_ref()
            .and_then(|(workers, _)| workers.watched.as_ref());
        watched.is_none_or(|watched| {
            let least = watched.micros(now.checked_sub(time).unwrap_or(now));
            let mut turns = watched.turns.iter();
            turns.all(|turn| turn.load(Ordering::Relaxed) >= least)
        })
    }

    /// The loop is over. One that failed takes the others with it.
    pub(crate) fn leave(&self, failed: bool) {
        let Some((workers, index)) = &self.0 else {
            return;
        };
        if let Some(watched) = &workers.watched
            && let Some(turn) = index.checked_sub(1).and_then(|at| watched.turns.get(at))
        {
            // It needs no watch any more.
            turn.store(u64::MAX, Ordering::Relaxed);
        }
        if failed {
            workers.notify_all_but(*index, STOP_NOW);
        }
        if *index != 0 {
            workers.others_running.fetch_sub(1, Ordering::AcqRel);
            workers.notify(0, OTHER_ENDED);
        }
    }
}
