//! The run in a few dozen stretches: how they differ tells how sure its figures are.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use serde::{Deserialize, Serialize};

use super::encoded::{self, DIGITS};
use super::figures::Interval;
use super::sure::{self, Parts};
use crate::limits::{SOAK_LONGEST_US, SOAK_TICK, STRETCHES_MAX};

/// What is counted in one stretch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stretch {
    /// From when, in seconds since the load began: pauses are in it, where it is of two loads.
    pub from: f64,
    /// To when.
    pub to: f64,
    /// How long load was offered.
    pub seconds: f64,
    /// Requests started.
    pub started: u64,
    /// Requests that ended.
    pub ended: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Of complete downloads, in microseconds: since a request was due, or started.
    #[serde(with = "encoded")]
    pub times: Histogram<u32>,
}

/// All stretches. When there are too many, each two become one.
#[derive(Clone, Debug)]
pub(super) struct Stretches {
    origin: Instant,
    length: Duration,
    began: Instant,
    current: Stretch,
    over: Vec<Stretch>,
}

impl Stretch {
    fn new() -> Self {
        Self {
            from: 0.0,
            to: 0.0,
            seconds: 0.0,
            started: 0,
            ended: 0,
            failed: 0,
            // It takes up to five digits.
            times: Histogram::new(DIGITS).expect("the digits are sound"),
        }
    }

    fn add(&mut self, other: &Self) {
        self.to = other.to;
        self.seconds += other.seconds;
        self.count(other);
    }

    fn count(&mut self, other: &Self) {
        self.started += other.started;
        self.ended += other.ended;
        self.failed += other.failed;
        // Both grow with what they hold.
        self.times.add(&other.times).expect("it grows");
    }
}

impl Stretches {
    pub(super) fn new(began: Instant) -> Self {
        Self {
            origin: began,
            length: SOAK_TICK,
            began,
            current: Stretch::new(),
            over: Vec::new(),
        }
    }

    pub(super) fn start(&mut self) {
        self.current.started += 1;
    }

    pub(super) fn end(&mut self, is_failure: bool) {
        self.current.ended += 1;
        self.current.failed += u64::from(is_failure);
    }

    /// A download's time, in microseconds.
    pub(super) fn record(&mut self, us: u64) {
        // saturating_record would take what it doesn't hold yet for the longest that it does.
        self.current
            .times
            .record(us.clamp(1, SOAK_LONGEST_US))
            .expect("it grows to a day");
    }

    /// Closes the current stretch if it is over.
    pub(super) fn roll(&mut self, now: Instant) {
        if now.saturating_duration_since(self.began) >= self.length {
            self.close(now);
        }
    }

    /// Load begins again: the pause before it is in no stretch.
    pub(super) fn resume(&mut self, now: Instant) {
        self.began = now;
    }

    /// Closes the current stretch: load ends. What is shorter than half of one belongs to the one before.
    pub(super) fn close(&mut self, now: Instant) {
        let took = now.saturating_duration_since(self.began);
        let since = |at: Instant| at.saturating_duration_since(self.origin).as_secs_f64();
        let (from, to) = (since(self.began), since(now));
        self.began = now;
        let mut stretch = std::mem::replace(&mut self.current, Stretch::new());
        (stretch.from, stretch.to) = (from, to);
        stretch.seconds = took.as_secs_f64();
        match self.over.last_mut() {
            Some(last) if took < self.length / 2 => last.add(&stretch),
            _ => self.over.push(stretch),
        }
        if self.over.len() >= STRETCHES_MAX {
            self.length *= 2;
            let pairs = self.over.chunks(2).map(|pair| {
                let mut both = pair[0].clone();
                pair[1..].iter().for_each(|second| both.add(second));
                both
            });
            self.over = pairs.collect();
        }
    }

    /// Those that are over.
    pub(super) fn over(&self) -> &[Stretch] {
        &self.over
    }
}

/// How many requests were started, and ended, a second.
pub fn rates(stretches: &[Stretch]) -> [Interval; 2] {
    let rates = |of: fn(&Stretch) -> u64| {
        let stretches = stretches.iter().filter(|stretch| stretch.seconds > 0.0);
        let rates = stretches.map(|stretch| of(stretch) as f64 / stretch.seconds);
        sure::mean(&rates.collect::<Vec<_>>())
    };
    [
        rates(|stretch| stretch.started),
        rates(|stretch| stretch.ended),
    ]
}

/// The share of requests that failed; none of nothing.
pub fn failures(stretches: &[Stretch]) -> Option<Interval> {
    let parts: Parts = stretches
        .iter()
        .map(|stretch| (stretch.failed as f64, stretch.ended as f64))
        .collect();
    let sum = |of: fn(&(f64, f64)) -> f64| parts.iter().map(of).sum::<f64>();
    let (failed, ended) = (sum(|part| part.0), sum(|part| part.1));
    let effect = sure::design_effect(&parts, failed / ended);
    (ended > 0.0).then(|| sure::share(failed, ended, effect))
}

/// Counts another run's stretches, too, each with the one that was at its middle, so many seconds later.
pub fn add(stretches: &mut [Stretch], others: &[Stretch], later: f64) {
    for other in others {
        let middle = f64::midpoint(other.from, other.to) + later;
        let at = stretches.partition_point(|stretch| stretch.to <= middle);
        let last = stretches.len().saturating_sub(1);
        if let Some(stretch) = stretches.get_mut(at.min(last)) {
            stretch.count(other);
        }
    }
}

/// How much less the times tell of each of these quantiles than as many independent ones would. In the
/// closed model, `interval` fills in the requests that waiting clients did not send.
pub fn design_effects<const N: usize>(
    stretches: &[Stretch],
    quantiles: [f64; N],
    interval: Option<u64>,
) -> [f64; N] {
    let corrected = |stretch: &Stretch| match interval {
        Some(interval) => stretch.times.clone_correct(interval),
        None => stretch.times.clone(),
    };
    let all: Vec<_> = stretches.iter().map(corrected).collect();
    let mut whole = Histogram::<u32>::new(DIGITS).expect("the digits are sound");
    for times in &all {
        whole.add(times).expect("it grows");
    }
    quantiles.map(|at| {
        let value = whole.value_at_quantile(at);
        let below = |times: &Histogram<u32>| times.count_between(0, value) as f64;
        let parts: Parts = all
            .iter()
            .map(|times| (below(times), times.len() as f64))
            .collect();
        // The value's cell of the histogram is all below, and so a share that is seen.
        let seen = parts.iter().map(|part| part.0).sum::<f64>() / (whole.len() as f64).max(1.0);
        if seen < 1.0 {
            sure::design_effect(&parts, seen)
        } else {
            1.0
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_holds_times_of_any_length() {
        let began = Instant::now();
        let mut stretches = Stretches::new(began);
        for us in [3, 70_000, 2_000_000, u64::MAX] {
            stretches.record(us);
        }
        stretches.close(began + SOAK_TICK);
        let times = &stretches.over()[0].times;
        let held = times.iter_recorded().map(|found| found.count_at_value());
        assert_eq!(held.collect::<Vec<_>>(), [1; 4]);
        assert!(times.max() >= SOAK_LONGEST_US);
    }

    /// Slow requests come together, so that they say less than as many that don't.
    #[test]
    fn slow_requests_of_one_moment_count_for_fewer() {
        let began = Instant::now();
        let effect = |is_slow: fn(u32, u32) -> bool| {
            let mut stretches = Stretches::new(began);
            for stretch in 0..40 {
                for request in 0..100 {
                    stretches.record(if is_slow(stretch, request) {
                        90_000
                    } else {
                        1_000
                    });
                }
                stretches.close(began + SOAK_TICK * (stretch + 1));
            }
            design_effects(stretches.over(), [0.8], None)[0]
        };
        let apart = effect(|_, request| request % 8 == 0);
        let together = effect(|stretch, _| stretch % 8 == 0);
        assert!(apart < 2.0 && together > 20.0, "{apart} {together}");
    }
}
