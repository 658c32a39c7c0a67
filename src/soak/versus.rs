//! Two servers that were asked the same in one run: how their figures differ, and how sure that is.
//!
//! Both are asked in turn, so that what the machine does to one it does to the other a moment later. The run is
//! cut into stretches; a figure of the whole run is reckoned once more without each of them, at both servers
//! at once. How much that changes the difference tells how sure it is: the grouped jackknife (Quenouille 1956,
//! Tukey 1958). What the stretches say of it follows each other in time, so that where neighbours are alike they
//! count for fewer.

use super::report::{Difference, Interval, Sample, ServerUsage};
use super::stretches::{Stretch, Stretches};
use super::sure;
use crate::limits::{COMPARED_STRETCHES_MIN, RSS_STEP_BYTES};

/// The quantiles that are compared.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

/// A figure of one server: of the whole run, and of the run without each of its stretches.
struct Figure {
    whole: f64,
    without: Vec<f64>,
    /// Of each stretch alone, for a plot.
    alone: Vec<f64>,
}

/// How the second server differs from the first. Nothing, if there are too few stretches to tell.
pub(super) fn differences(
    sides: [&Stretches; 2],
    servers: [Option<&ServerUsage>; 2],
) -> Vec<Difference> {
    let sides = sides.map(Stretches::over);
    let count = sides[0].len();
    // They were opened and closed at the same moments.
    if count < COMPARED_STRETCHES_MIN || sides[1].len() != count {
        return Vec::new();
    }
    let times = sides.map(Times::new);
    let ends: Vec<f64> = sides[0].iter().map(|stretch| stretch.to).collect();
    let mut all = Vec::new();
    let mut add = |name: &str, [a, b]: [Option<Figure>; 2], least: f64| {
        if let (Some(a), Some(b)) = (a, b) {
            all.push(difference(name, &a, &b, least, &ends));
        }
    };
    add("mean", times.each_ref().map(Times::mean), 0.0);
    for (name, at) in QUANTILES {
        add(name, times.each_ref().map(|times| times.quantile(at)), 0.0);
    }
    let rate = |stretches: &[Stretch]| {
        ratio(stretches, |stretch| {
            Some((stretch.ended as f64, stretch.seconds))
        })
    };
    add("rate", sides.map(rate), 0.0);
    if let [Some(a), Some(b)] = servers {
        let watched = [(sides[0], a), (sides[1], b)];
        let cpu = watched.map(|(stretches, server)| {
            ratio(stretches, |stretch| {
                let [from, to] = [stretch.from, stretch.to].map(|at| cpu_at(&server.samples, at));
                Some((to? - from?, stretch.ended as f64))
            })
        });
        add("cpu", cpu, 0.0);
        let rss = watched.map(|(stretches, server)| {
            ratio(stretches, |stretch| Some(memory(&server.samples, stretch)))
        });
        // The kernel's count of either may be a step behind.
        add("rss", rss, 2.0 * RSS_STEP_BYTES);
    }
    all
}

/// Two figures and what is sure of their difference, which is never surer than `least`.
fn difference(name: &str, a: &Figure, b: &Figure, least: f64, ends: &[f64]) -> Difference {
    let of = |change: fn(f64, f64) -> f64, least: f64| {
        let whole = change(a.whole, b.whole);
        let count = a.without.len() as f64;
        let without = a.without.iter().zip(&b.without);
        let pseudo: Vec<f64> = without
            .map(|(&a, &b)| count * whole - (count - 1.0) * change(a, b))
            .collect();
        let Interval { value, low, high } = sure::mean(&pseudo).around(whole);
        Interval {
            value,
            low: low.min(value - least),
            high: high.max(value + least),
        }
    };
    let alone = a.alone.iter().zip(&b.alone);
    Difference {
        quantity: name.to_owned().into(),
        values: [a.whole, b.whole],
        absolute: of(|a, b| b - a, least),
        percent: of(percent, percent(a.whole, a.whole + least)),
        stretches: ends
            .iter()
            .zip(alone)
            .filter(|(_, (a, b))| a.is_finite() && b.is_finite())
            .map(|(&at, (&a, &b))| (at, a, b))
            .collect(),
    }
}

/// How much more the second is than the first, in percent of that.
pub(super) fn percent(a: f64, b: f64) -> f64 {
    (b - a) / a * 100.0
}

/// A sum over the stretches, by another one. None where a stretch has none, or all have nothing.
fn ratio(stretches: &[Stretch], of: impl Fn(&Stretch) -> Option<(f64, f64)>) -> Option<Figure> {
    let parts: Vec<_> = stretches.iter().map(of).collect::<Option<_>>()?;
    let sums = parts
        .iter()
        .fold((0.0, 0.0), |sums, part| (sums.0 + part.0, sums.1 + part.1));
    let figure = Figure {
        whole: sums.0 / sums.1,
        without: parts
            .iter()
            .map(|part| (sums.0 - part.0) / (sums.1 - part.1))
            .collect(),
        alone: parts.iter().map(|part| part.0 / part.1).collect(),
    };
    (figure.whole > 0.0).then_some(figure)
}

/// CPU time until then, in microseconds: between two looks as if it had been used evenly.
fn cpu_at(samples: &[Sample], seconds: f64) -> Option<f64> {
    let at = |sample: &Sample| (sample.at_us as f64 / 1e6, sample.usage.cpu_us as f64);
    let next = samples.partition_point(|sample| at(sample).0 < seconds);
    let (before, after) = (samples.get(next.checked_sub(1)?)?, samples.get(next)?);
    let ((from, used), (to, used_then)) = (at(before), at(after));
    Some(used + (used_then - used) * (seconds - from) / (to - from))
}

/// The sum of what was seen under load in a stretch, and how often it was looked at.
fn memory(samples: &[Sample], stretch: &Stretch) -> (f64, f64) {
    let within = samples.iter().filter(|sample| {
        let at = sample.at_us as f64 / 1e6;
        !sample.is_quiet && (stretch.from..stretch.to).contains(&at)
    });
    within.fold((0.0, 0.0), |(sum, count), sample| {
        (sum + sample.usage.rss_bytes as f64, count + 1.0)
    })
}

/// One server's times: how many are in each cell of a histogram, stretch by stretch.
struct Times {
    /// From and to, in microseconds.
    cells: Vec<(f64, f64)>,
    stretches: Vec<Vec<u64>>,
    all: Vec<u64>,
}

impl Times {
    fn new(stretches: &[Stretch]) -> Self {
        let recorded = |stretch: &Stretch| {
            let times = &stretch.times;
            let cell = |value: u64, count| {
                (
                    times.lowest_equivalent(value),
                    times.highest_equivalent(value) + 1,
                    count,
                )
            };
            let cells = times.iter_recorded();
            cells
                .map(|found| cell(found.value_iterated_to(), found.count_at_value()))
                .collect::<Vec<_>>()
        };
        let found: Vec<_> = stretches.iter().map(recorded).collect();
        let mut cells: Vec<_> = found
            .iter()
            .flatten()
            .map(|&(from, to, _)| (from, to))
            .collect();
        cells.sort_unstable();
        cells.dedup();
        let counts = |found: &Vec<(u64, u64, u32)>| {
            let mut counts = vec![0; cells.len()];
            for &(from, _, count) in found {
                let at = cells.partition_point(|cell| cell.0 < from);
                counts[at] = u64::from(count);
            }
            counts
        };
        let stretches: Vec<Vec<u64>> = found.iter().map(counts).collect();
        let all = (0..cells.len()).map(|at| stretches.iter().map(|counts| counts[at]).sum());
        Self {
            all: all.collect(),
            cells: cells
                .iter()
                .map(|&(from, to)| (from as f64, to as f64))
                .collect(),
            stretches,
        }
    }

    fn mean(&self) -> Option<Figure> {
        self.figure(|counts| {
            let cells = self.cells.iter().zip(counts);
            let (sum, count) = cells.fold((0.0, 0.0), |(sum, all), ((from, to), &count)| {
                (sum + (from + to) / 2.0 * count as f64, all + count as f64)
            });
            sum / count
        })
    }

    /// A quantile, between a cell's ends as if its times lay evenly there: what is left out moves it, however
    /// little.
    fn quantile(&self, at: f64) -> Option<Figure> {
        let above = (1.0 - at) * self.all.iter().sum::<u64>() as f64;
        // With fewer a stretch has it or not, and says nothing of how far it moves.
        if above < self.stretches.len() as f64 {
            return None;
        }
        self.figure(|counts| {
            let mut rank = at * counts.iter().sum::<u64>() as f64;
            for (&(from, to), &count) in self.cells.iter().zip(counts) {
                let count = count as f64;
                if count > 0.0 && rank <= count {
                    return from + (to - from) * rank / count;
                }
                rank -= count;
            }
            f64::NAN
        })
    }

    fn figure(&self, of: impl Fn(&[u64]) -> f64) -> Option<Figure> {
        let without = |counts: &Vec<u64>| {
            let rest = self.all.iter().zip(counts).map(|(all, count)| all - count);
            of(&rest.collect::<Vec<_>>())
        };
        let figure = Figure {
            whole: of(&self.all),
            without: self.stretches.iter().map(without).collect(),
            alone: self.stretches.iter().map(|counts| of(counts)).collect(),
        };
        let is_told =
            figure.whole.is_finite() && figure.without.iter().all(|value| value.is_finite());
        is_told.then_some(figure)
    }
}

#[cfg(test)]
mod tests;
