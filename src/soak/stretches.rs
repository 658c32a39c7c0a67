//! The run in a few dozen stretches: how they differ tells how sure its figures are.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::report::Interval;
use super::sure::{self, Parts};
use crate::limits::{SOAK_TICK, STRETCHES_MAX};

/// What is counted in one stretch.
#[derive(Clone, Debug)]
struct Stretch {
    seconds: f64,
    started: u64,
    ended: u64,
    failed: u64,
    /// Right to a hundredth, which takes a few kilobytes.
    times: Histogram<u32>,
}

/// All stretches. When there are too many, each two become one.
#[derive(Debug)]
pub(super) struct Stretches {
    length: Duration,
    began: Instant,
    current: Stretch,
    over: Vec<Stretch>,
}

impl Stretch {
    fn new() -> Self {
        Self {
            seconds: 0.0,
            started: 0,
            ended: 0,
            failed: 0,
            // It takes two digits.
            times: Histogram::new(2).expect("the digits are sound"),
        }
    }

    fn add(&mut self, other: &Self) {
        self.seconds += other.seconds;
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
        self.current.times.saturating_record(us.max(1));
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
        self.began = now;
        let mut stretch = std::mem::replace(&mut self.current, Stretch::new());
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

    /// How many requests were started, and ended, a second.
    pub(super) fn rates(&self) -> [Interval; 2] {
        let rates = |of: fn(&Stretch) -> u64| {
            let stretches = self.over.iter().filter(|stretch| stretch.seconds > 0.0);
            let rates = stretches.map(|stretch| of(stretch) as f64 / stretch.seconds);
            sure::mean(&rates.collect::<Vec<_>>())
        };
        [
            rates(|stretch| stretch.started),
            rates(|stretch| stretch.ended),
        ]
    }

    /// The share of requests that failed.
    pub(super) fn failures(&self) -> Interval {
        let stretches = self.over.iter();
        let parts: Parts = stretches
            .map(|stretch| (stretch.failed as f64, stretch.ended as f64))
            .collect();
        let sum = |of: fn(&(f64, f64)) -> f64| parts.iter().map(of).sum::<f64>();
        let (failed, ended) = (sum(|part| part.0), sum(|part| part.1));
        sure::share(failed, ended, sure::design_effect(&parts, failed / ended))
    }

    /// How much less the times tell of each of these quantiles than as many independent ones would. In the
    /// closed model, `interval` fills in the requests that waiting clients did not send.
    pub(super) fn design_effects<const N: usize>(
        &self,
        quantiles: [f64; N],
        interval: Option<u64>,
    ) -> [f64; N] {
        let corrected = |stretch: &Stretch| match interval {
            Some(interval) => stretch.times.clone_correct(interval),
            None => stretch.times.clone(),
        };
        let all: Vec<_> = self.over.iter().map(corrected).collect();
        let mut whole = Histogram::<u32>::new(2).expect("the digits are sound");
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
}
