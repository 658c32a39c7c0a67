//! How long things took: histograms of times, what a report tells of them, and how it keeps them.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::encoded::{self, DIGITS};
use super::figures::{Latency, Percentiles};
use super::stretches::{self, Stretch};
use super::sure;
use crate::limits::SOAK_LONGEST_US;

/// The quantiles that a report tells, beside the maximum.
const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];

/// One distribution of times.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LatencyHistogram(#[serde(with = "encoded")] Histogram<u64>);

impl Default for LatencyHistogram {
    fn default() -> Self {
        // The bounds and the digits are constants that it takes.
        Self(Histogram::new_with_bounds(1, SOAK_LONGEST_US, DIGITS).expect("the bounds are sound"))
    }
}

impl LatencyHistogram {
    /// Counts one.
    pub fn record(&mut self, time: Duration) {
        self.0.saturating_record(micros(time));
    }

    /// Forgets all of them.
    pub fn reset(&mut self) {
        self.0.reset();
    }

    /// Counts another one's, too. False if it isn't of this kind.
    fn add(&mut self, other: &Self) -> bool {
        other.0.sigfig() == DIGITS && self.0.add(&other.0).is_ok()
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The percentiles, in microseconds.
    pub fn percentiles(&self) -> Percentiles {
        if self.0.is_empty() {
            return Percentiles::default();
        }
        Percentiles {
            count: self.0.len(),
            p50: self.0.value_at_quantile(0.5),
            p90: self.0.value_at_quantile(0.9),
            p99: self.0.value_at_quantile(0.99),
            p999: self.0.value_at_quantile(0.999),
            max: self.0.max(),
            intervals: None,
        }
    }

    /// The same with their intervals, by the design effect of each.
    fn sure_percentiles(&self, effects: [f64; QUANTILES.len()]) -> Percentiles {
        let count = self.0.len() as f64;
        let interval = |index: usize| {
            let (low, high) = sure::quantile(QUANTILES[index], count, effects[index]);
            let high = high.map(|high| self.0.value_at_quantile(high));
            (self.0.value_at_quantile(low), high)
        };
        Percentiles {
            intervals: (count > 0.0).then(|| std::array::from_fn(interval)),
            ..self.percentiles()
        }
    }

    /// From, to and count of steps that grow by a quarter; empty ones are left out.
    fn steps(&self) -> Vec<(u64, u64, u64)> {
        let mut steps: Vec<(u64, u64, u64)> = Vec::new();
        let mut end = 0;
        for value in self.0.iter_recorded() {
            let at = value.value_iterated_to();
            if at >= end {
                let mut begin = end.max(1);
                end = begin + (begin / 4).max(1);
                while at >= end {
                    begin = end;
                    end = begin + (begin / 4).max(1);
                }
                steps.push((begin, end, 0));
            }
            if let Some((_, _, count)) = steps.last_mut() {
                *count += value.count_at_value();
            }
        }
        steps
    }
}

/// A time in whole microseconds.
pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// All times of a run. Those of several runs add up to what one would have counted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Histograms {
    /// From connect to the handshake's end.
    pub connect: LatencyHistogram,
    /// From there to the end of TLS's handshake.
    #[serde(default)]
    pub handshake: LatencyHistogram,
    /// From the request to the answer's first byte.
    pub first_byte: LatencyHistogram,
    /// Sent minus due.
    pub lateness: LatencyHistogram,
    /// From the start to the last byte.
    pub total: LatencyHistogram,
    /// From the moment a request was due: open model.
    pub since_due: LatencyHistogram,
    /// Closed model: `total` by the body's length, a class for each power of four.
    pub by_length: Vec<LatencyHistogram>,
}

impl Histograms {
    /// Counts another run's, too. False if they are of another kind.
    pub fn add(&mut self, other: &Self) -> bool {
        let classes = self.by_length.len().max(other.by_length.len());
        self.by_length
            .resize_with(classes, LatencyHistogram::default);
        let by_length = self.by_length.iter_mut().zip(&other.by_length);
        [
            (&mut self.connect, &other.connect),
            (&mut self.handshake, &other.handshake),
            (&mut self.first_byte, &other.first_byte),
            (&mut self.lateness, &other.lateness),
            (&mut self.total, &other.total),
            (&mut self.since_due, &other.since_due),
        ]
        .into_iter()
        .chain(by_length)
        .all(|(sum, more)| sum.add(more))
    }

    /// How long things took. The stretches say how sure that is.
    pub fn latency(&self, stretches: &[Stretch], silence: (u64, u64)) -> Latency {
        let corrected = self.corrected();
        let raw = stretches::design_effects(stretches, QUANTILES, None);
        let is_open = !self.since_due.0.is_empty() || self.total.0.is_empty();
        let filled_in = if is_open {
            raw
        } else {
            let interval = self.total.0.value_at_quantile(0.5).max(1);
            stretches::design_effects(stretches, QUANTILES, Some(interval))
        };
        Latency {
            connect: self.connect.sure_percentiles(raw),
            handshake: self.handshake.sure_percentiles(raw),
            first_byte: self.first_byte.sure_percentiles(raw),
            total: self.total.sure_percentiles(raw),
            corrected: corrected.sure_percentiles(filled_in),
            histogram: corrected.steps(),
            longest_silence_us: silence.0,
            longest_silence_at_us: silence.1,
        }
    }

    /// In the open model, times since due. In the closed one, what a client that doesn't wait
    /// would have seen: each time that is longer than the median of its length's class stands for
    /// the requests that were not sent meanwhile, too.
    fn corrected(&self) -> LatencyHistogram {
        let mut corrected = self.since_due.clone();
        for times in self.by_length.iter().filter(|times| !times.0.is_empty()) {
            let interval = times.0.value_at_quantile(0.5).max(1);
            // Both have the same bounds.
            corrected
                .0
                .add(times.0.clone_correct(interval))
                .expect("the bounds are the same");
        }
        corrected
    }
}
