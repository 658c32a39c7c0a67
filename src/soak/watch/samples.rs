//! What the looks at a process tell of a load: quiet points, trends, and what a report holds of them.

use std::time::{Duration, Instant};

use crate::limits::{LEFT_SLOWS, REPORT_SAMPLES, TREND_LOOKS_MIN};
use crate::soak::report::{Interval, Left, Resource, Sample, Usage};
use crate::soak::slope;
use crate::soak::sure;

/// One look at the process.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawSample {
    pub(super) at: Instant,
    /// The stretch without clients in which all of it was taken.
    pub(super) quiet_phase: Option<u64>,
    pub(super) usage: Usage,
}

impl RawSample {
    pub(super) fn report(&self, origin: Instant) -> Sample {
        let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        let after = self.at.saturating_duration_since(origin);
        let before = origin.saturating_duration_since(self.at);
        Sample {
            at_us: micros(after) - micros(before),
            is_quiet: self.quiet_phase.is_some(),
            usage: self.usage,
        }
    }
}

/// The last look of each stretch without clients.
fn quiet_points(samples: &[RawSample]) -> impl Iterator<Item = &RawSample> {
    samples
        .chunk_by(|one, next| one.quiet_phase == next.quiet_phase)
        .filter_map(|run| run.last().filter(|sample| sample.quiet_phase.is_some()))
}

/// Whether the last look found no more descriptors than the first quiet point, if that is of an
/// earlier stretch.
pub(super) fn is_at_rest(samples: &[RawSample]) -> bool {
    match (quiet_points(samples).next(), samples.last()) {
        (Some(first), Some(last)) => {
            first.quiet_phase == last.quiet_phase
                || last.usage.descriptors <= first.usage.descriptors
        }
        _ => true,
    }
}

/// How long load was offered until then: pauses are no time in which anything leaks.
fn load_time(turns: &[Instant], at: Instant) -> Duration {
    let loads = turns.chunks(2).map(|load| {
        let ended = load.get(1).map_or(at, |&ended| ended.min(at));
        ended.saturating_duration_since(load[0])
    });
    loads.sum()
}

/// How one resource moved. Load began and ended at the turns.
///
/// A quiet point is the last look of a stretch without clients: those before it may have seen the
/// server still winding down. Trends leave out the warm-up. They are fitted to the quiet points where
/// those are enough, to the looks under load otherwise.
pub(super) fn resource(
    samples: &[RawSample],
    turns: &[Instant],
    warm_up: Duration,
    (value, step): (fn(&Usage) -> u64, f64),
) -> Resource {
    let figure = |sample: &RawSample| value(&sample.usage) as f64;
    let quiet: Vec<_> = quiet_points(samples).map(figure).collect();
    let before = quiet.first().copied().unwrap_or(0.0);
    let after = quiet.last().copied().unwrap_or(before);
    let seen = match turns {
        [began, .., ended] => trend(samples, *began, *ended),
        _ => Vec::new(),
    };
    let is_quiet = seen
        .first()
        .is_some_and(|sample| sample.quiet_phase.is_some());
    let points = seen.iter().map(|sample| {
        let time = load_time(turns, sample.at);
        (time.as_secs_f64(), figure(sample))
    });
    let points: Vec<_> = points.collect();
    let warm_up = warm_up.as_secs_f64();
    Resource {
        before,
        max: samples
            .iter()
            .map(figure)
            .reduce(f64::max)
            .unwrap_or(before),
        after,
        left: left(&quiet, step),
        slope: if is_quiet {
            slope::of_quiet_points(&points, warm_up, step)
        } else {
            slope::of_looks(&points, warm_up, step)
        },
    }
}

/// What loads left behind, by the quiet points before and after each of them. What the first one leaves may be
/// what every server needs once.
fn left(quiet: &[f64], step: f64) -> Option<Left> {
    let rises: Vec<_> = quiet.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let all: f64 = rises.iter().sum();
    let unclear = |loads| Left {
        low: all.min(0.0),
        high: all.max(0.0),
        loads,
    };
    let exactly = |value, loads| Left {
        low: value,
        high: value,
        loads,
    };
    let (_, later) = rises.split_first()?;
    let loads = later.len();
    let (first, last) = match loads {
        0 => return Some(unclear(0)),
        1 => (&rises[..1], later),
        _ => (&later[..loads / 2], &later[loads - loads / 2..]),
    };
    let sum = |some: &[f64]| some.iter().sum::<f64>();
    let repeats = later.iter().filter(|&&rise| rise >= step).count() * 2 > loads;
    let slows_down = sum(last) < LEFT_SLOWS * sum(first);
    Some(match sum(later) {
        after_first if after_first < step => exactly(after_first, loads),
        _ if repeats && !slows_down => exactly(all, loads),
        _ => unclear(loads),
    })
}

/// The looks that a trend is fitted to.
fn trend(samples: &[RawSample], from: Instant, to: Instant) -> Vec<&RawSample> {
    let quiet: Vec<_> = quiet_points(samples)
        .filter(|sample| sample.at >= from)
        .collect();
    if quiet.len() >= TREND_LOOKS_MIN {
        return quiet;
    }
    samples
        .iter()
        .filter(|sample| sample.quiet_phase.is_none() && (from..=to).contains(&sample.at))
        .collect()
}

/// CPU time over the load, in percent of one core. It is taken between the looks around the load, as the
/// server rests outside of it, and in the pauses within. Load began and ended at the turns.
pub(super) fn cpu_percent(
    samples: &[RawSample],
    turns: &[Instant],
    began: Instant,
    ended: Instant,
) -> f64 {
    let from = samples.iter().rfind(|sample| sample.at <= began);
    let to = samples.iter().find(|sample| sample.at >= ended);
    let (Some(from), Some(to)) = (from.or(samples.first()), to.or(samples.last())) else {
        return 0.0;
    };
    let until = |at| load_time(turns, at);
    let time = until(to.at.min(ended)).saturating_sub(until(from.at.max(began)));
    if time.is_zero() {
        return 0.0;
    }
    let cpu_us = to.usage.cpu_us.saturating_sub(from.usage.cpu_us);
    cpu_us as f64 / 1e6 / time.as_secs_f64() * 100.0
}

/// The same between looks under load: how sure its mean is.
pub(super) fn cpu_interval(samples: &[RawSample]) -> Interval {
    let pairs = samples.windows(2);
    let under_load = pairs.filter(|pair| pair.iter().all(|sample| sample.quiet_phase.is_none()));
    let rates = under_load.map(|pair| {
        let time = pair[1]
            .at
            .saturating_duration_since(pair[0].at)
            .as_secs_f64();
        let cpu_us = pair[1].usage.cpu_us.saturating_sub(pair[0].usage.cpu_us);
        cpu_us as f64 / 1e4 / time.max(1e-6)
    });
    sure::mean(&rates.collect::<Vec<_>>())
}

/// What the report holds: of a long watch so few looks that about [`REPORT_SAMPLES`] are left.
pub(super) fn thinned(samples: &[RawSample], origin: Instant) -> Vec<Sample> {
    let kept = every_so_many(samples, samples.len().div_ceil(REPORT_SAMPLES));
    kept.map(|sample| sample.report(origin)).collect()
}

/// As if it had been looked only half as often.
pub(super) fn forget_half(samples: &mut Vec<RawSample>) {
    *samples = every_so_many(samples, 2).copied().collect();
}

/// One of so many looks, and beside them every quiet point and the highest memory and descriptors.
fn every_so_many(samples: &[RawSample], step: usize) -> impl Iterator<Item = &RawSample> {
    let highest = |value: fn(&Usage) -> u64| {
        (0..samples.len()).max_by_key(|&index| value(&samples[index].usage))
    };
    let highest = [
        highest(|usage| usage.rss_bytes),
        highest(|usage| usage.descriptors),
    ];
    let is_kept = move |&index: &usize| {
        let run = samples[index].quiet_phase;
        let next = samples.get(index + 1).and_then(|sample| sample.quiet_phase);
        index % step == 0 || highest.contains(&Some(index)) || (run.is_some() && run != next)
    };
    let kept = (0..samples.len()).filter(is_kept);
    kept.map(|index| &samples[index])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::WATCH_SAMPLES_MAX;

    /// Looks a second apart, so many before the load.
    fn samples(
        origin: Instant,
        count: u64,
        at: impl Fn(u64) -> (Option<u64>, u64),
    ) -> Vec<RawSample> {
        let second = |number| {
            let (quiet_phase, descriptors) = at(number);
            RawSample {
                at: origin + Duration::from_secs(number),
                quiet_phase,
                usage: Usage {
                    descriptors,
                    cpu_us: number * 250_000,
                    ..Usage::default()
                },
            }
        };
        (0..count).map(second).collect()
    }

    /// A day's looks and pauses take as much memory as some hours', and tell the same.
    #[test]
    fn a_day_of_looks_is_no_more_than_some_hours() {
        let origin = Instant::now();
        let day = samples(origin, 86_400, |second| {
            let is_quiet = second % 600 < 5;
            let phase = second / 600 * 2 + u64::from(!is_quiet);
            (is_quiet.then_some(phase), 10 + second / 3600)
        });
        let mut kept = Vec::new();
        let mut most = 0;
        for sample in &day {
            kept.push(*sample);
            most = most.max(kept.len());
            if kept.len() >= WATCH_SAMPLES_MAX {
                forget_half(&mut kept);
            }
        }
        assert_eq!(most, WATCH_SAMPLES_MAX);
        let points =
            |all: &[RawSample]| quiet_points(all).map(|point| point.at).collect::<Vec<_>>();
        assert_eq!(points(&kept), points(&day));
        let highest = |all: &[RawSample]| all.iter().map(|sample| sample.usage.descriptors).max();
        assert_eq!(highest(&kept), highest(&day));
    }

    #[test]
    fn pauses_are_no_load() {
        let origin = Instant::now();
        let at = |second| origin + Duration::from_secs(second);
        let turns = [at(10), at(20), at(25), at(30)];
        for (second, load) in [(0, 0), (10, 0), (15, 5), (22, 10), (27, 12), (99, 15)] {
            assert_eq!(load_time(&turns, at(second)), Duration::from_secs(load));
        }
        assert_eq!(load_time(&turns[..3], at(99)), Duration::from_secs(84));
    }

    #[test]
    fn quiet_points_are_the_last_of_their_stretches() {
        // Two stretches may meet, when the load between them was too short for a look.
        let runs = [Some(1), Some(1), None, Some(3), Some(3), Some(5), None];
        let samples = samples(Instant::now(), 7, |number| (runs[number as usize], number));
        let points: Vec<_> = quiet_points(&samples)
            .map(|sample| sample.usage.descriptors)
            .collect();
        assert_eq!(points, [1, 4, 5]);
    }

    #[test]
    fn a_trend_is_taken_from_enough_quiet_points_or_from_the_load() {
        let origin = Instant::now();
        let after = |seconds| origin + Duration::from_secs(seconds);
        // A pause of one look in every ten, from the first look on.
        let samples = samples(origin, 300, |number| {
            ((number % 10 == 0).then_some(number), number)
        });
        let under_load = trend(&samples[..200], after(5), after(104));
        assert_eq!(under_load.len(), 90);
        assert!(under_load.iter().all(|sample| sample.quiet_phase.is_none()));
        let quiet = trend(&samples, after(95), after(299));
        assert_eq!(quiet.len(), 20);
        assert!(quiet.iter().all(|sample| sample.quiet_phase.is_some()));
    }

    #[test]
    fn what_repeats_is_left_and_what_a_cache_keeps_is_not() {
        let told = |quiet: &[f64]| left(quiet, 1.0).map(|left| (left.low, left.high));
        for (quiet, low, high) in [
            // One load: it may be either.
            (&[10.0, 13.0][..], 0.0, 3.0),
            (&[10.0, 10.0], 0.0, 0.0),
            // A file that is opened once; a pool.
            (&[10.0, 11.0, 11.0, 11.0], 0.0, 0.0),
            (&[10.0, 90.0, 90.0, 88.0], -2.0, -2.0),
            // A leak.
            (&[10.0, 40.0, 70.0, 100.0, 130.0], 120.0, 120.0),
            (&[10.0, 20.0, 30.0], 20.0, 20.0),
            // A cache that still fills, and a rise at the end.
            (&[10.0, 110.0, 130.0, 135.0, 136.0], 0.0, 126.0),
            (&[10.0, 10.0, 10.0, 10.0, 11.0], 0.0, 1.0),
        ] {
            assert_eq!(told(quiet), Some((low, high)), "{quiet:?}");
        }
        assert_eq!(told(&[10.0]), None);
    }

    #[test]
    fn cpu_time_is_of_the_load() {
        let origin = Instant::now();
        let at = |millis| origin + Duration::from_millis(millis);
        let samples = samples(origin, 20, |_| (None, 0));
        let close = |samples: &[RawSample], turns: &[u64], known: f64| {
            let turns: Vec<_> = turns.iter().map(|&millis| at(millis)).collect();
            let found = cpu_percent(samples, &turns, turns[0], turns[turns.len() - 1]);
            assert!((found - known).abs() < 1e-9, "{found}");
        };
        close(&samples, &[4000, 12_000], 25.0);
        // Two seconds' work around a load of one and a half.
        close(&samples, &[4250, 5750], 100.0 / 3.0);
        // Eight seconds' work for two of load, with a pause of six between them.
        close(&samples, &[4000, 5000, 11_000, 12_000], 100.0);
        // It ended, and was no longer looked at.
        close(&samples, &[9000, 99_000], 25.0);
        close(&samples, &[9000, 9000], 0.0);
        close(&[], &[0, 9000], 0.0);
    }

    #[test]
    fn a_long_watch_is_thinned() {
        let origin = Instant::now();
        let samples = samples(origin, 86_400, |number| match number {
            0..3 => (Some(1), 0),
            43_217..43_219 => (Some(3), 1),
            77_777 => (None, 99),
            _ => (None, 5),
        });
        let kept = thinned(&samples, origin + Duration::from_secs(10));
        assert!((REPORT_SAMPLES / 2..REPORT_SAMPLES + 10).contains(&kept.len()));
        assert_eq!(kept[0].at_us, -10_000_000);
        assert!(kept.is_sorted_by_key(|sample| sample.at_us));
        let has = |number: i64| {
            let mut all = kept.iter();
            all.any(|sample| sample.at_us == (number - 10) * 1_000_000)
        };
        assert!(has(2) && has(43_218) && has(77_777));
        assert_eq!(thinned(&samples[..50], origin).len(), 50);
        assert!(thinned(&[], origin).is_empty());
    }
}
