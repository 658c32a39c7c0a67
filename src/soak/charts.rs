//! What the page plots: which figures of a report, over which axes.

use super::metric::Unit;
use super::plot::{Axis, Plot, Shape};
use super::report::{
    Comparison, Report, Sample, Search, Second, ServerUsage, Step, ThresholdOutcome,
};
use super::threshold::Conditions;
use super::units;

/// The most points of a line: as many as a desk's screen can tell apart, and a run may last days.
const POINTS_MAX: usize = 600;

/// What a plot is higher than its highest point, which would be drawn half outside otherwise.
const HEADROOM: f64 = 1.03;

/// Some seconds in a row.
struct Bucket {
    from: f64,
    to: f64,
    seconds: Vec<Second>,
}

impl Bucket {
    fn middle(&self) -> f64 {
        f64::midpoint(self.from, self.to)
    }

    fn mean(&self, of: fn(&Second) -> u64) -> f64 {
        self.sum(of) as f64 / (self.to - self.from)
    }

    fn sum(&self, of: fn(&Second) -> u64) -> u64 {
        self.seconds.iter().map(of).sum()
    }

    fn least(&self, of: fn(&Second) -> u64) -> f64 {
        let each = self.seconds.iter();
        let rates = each.map(|second| of(second) as f64 / f64::from(second.seconds.max(1)));
        rates.reduce(f64::min).unwrap_or(0.0)
    }
}

/// The plots of a run's seconds, as many as there is data for.
pub fn of_seconds(report: &Report) -> Vec<Plot> {
    let seconds = whole_seconds(report);
    let width = seconds.len().div_ceil(POINTS_MAX).max(1);
    let chunks = seconds.chunks(width);
    let buckets: Vec<_> = chunks.filter_map(bucket).collect();
    let width = width * seconds.first().map_or(1, |second| second.seconds as usize);
    let to = buckets.last().map_or(0.0, |bucket| bucket.to);
    if buckets.is_empty() {
        return Vec::new();
    }
    let time = || Axis::time(0.0, to);
    let plots = [
        latency(&buckets, width, time()),
        Some(requests(&buckets, width, time())),
        Some(bytes(&buckets, width, time())),
        errors(&buckets, width, time()),
    ];
    let mut plots: Vec<_> = plots.into_iter().flatten().collect();
    for (plot, server) in plots.iter_mut().zip(report.server.iter().cycle()) {
        // Pauses are no time without load that the server has lost.
        plot.marks.splice(0..0, quiet(&server.samples));
    }
    plots
}

/// Without the last second where that is a part of one, in which a rate would seem to drop; unless
/// there is no other.
fn whole_seconds(report: &Report) -> &[Second] {
    match report.seconds.split_last() {
        Some((last, whole)) if !whole.is_empty() && end(last) > report.load.seconds => whole,
        _ => &report.seconds,
    }
}

fn end(second: &Second) -> f64 {
    f64::from(second.at) + f64::from(second.seconds.max(1))
}

fn bucket(seconds: &[Second]) -> Option<Bucket> {
    Some(Bucket {
        from: f64::from(seconds.first()?.at),
        to: end(seconds.last()?),
        seconds: seconds.to_vec(),
    })
}

/// What a point stands for, where it is not one second.
fn each_point(width: usize, means: &str) -> String {
    match width {
        1 => String::new(),
        _ => format!("Each point is {width} s: {means}."),
    }
}

fn latency(buckets: &[Bucket], width: usize, x: Axis) -> Option<Plot> {
    let measured = |bucket: &Bucket, of: fn(&Second) -> u64| -> Vec<u64> {
        // A second in which nothing was completed has no latency.
        let seconds = bucket.seconds.iter().filter(|second| second.max > 0);
        let mut figures: Vec<_> = seconds.map(of).map(|us| us.max(1)).collect();
        figures.sort_unstable();
        figures
    };
    let line = |of: fn(&Second) -> u64, which: fn(&[u64]) -> Option<u64>| -> Vec<_> {
        let points = buckets.iter().map(|bucket| {
            let figure = which(&measured(bucket, of));
            (bucket.middle(), figure.map(|us| us as f64))
        });
        points.collect()
    };
    let p50 = line(
        |second| second.p50,
        |figures| figures.get(figures.len() / 2).copied(),
    );
    let p99 = line(|second| second.p99, |figures| figures.last().copied());
    let max = line(|second| second.max, |figures| figures.last().copied());
    let all = || {
        [&p50, &p99, &max]
            .into_iter()
            .flatten()
            .filter_map(|point| point.1)
    };
    let least = all().reduce(f64::min)?;
    let y = Axis::log(least, all().fold(least, f64::max) * HEADROOM, tick_time);
    Some(Plot {
        title: "Latency",
        note: each_point(width, "the middle p50, the highest p99 and maximum"),
        x,
        y,
        marks: vec![
            ("third", "max", Shape::Line(max)),
            ("second", "p99", Shape::Line(p99)),
            ("first", "p50", Shape::Line(p50)),
        ],
    })
}

fn requests(buckets: &[Bucket], width: usize, x: Axis) -> Plot {
    let completed = |second: &Second| second.completed;
    let started = means(buckets, |second| second.started);
    let max = highest(buckets, |second| second.started.max(second.completed));
    let lines = [
        ("third", "started", Shape::Line(started)),
        ("first", "completed", Shape::Line(means(buckets, completed))),
    ];
    Plot {
        title: "Requests a second",
        note: each_point(width, "the mean, and the lowest second"),
        x,
        y: Axis::whole(max * HEADROOM, tick_count),
        marks: lowest(buckets, width, completed)
            .into_iter()
            .chain(lines)
            .collect(),
    }
}

fn bytes(buckets: &[Bucket], width: usize, x: Axis) -> Plot {
    let received = |second: &Second| second.body_bytes;
    let label = if width == 1 { "" } else { "mean" };
    let line = ("first", label, Shape::Line(means(buckets, received)));
    Plot {
        title: "Bytes received a second",
        note: each_point(width, "the mean, and the lowest second"),
        x,
        y: Axis::bytes(highest(buckets, received) * HEADROOM, tick_bytes),
        marks: lowest(buckets, width, received)
            .into_iter()
            .chain([line])
            .collect(),
    }
}

fn errors(buckets: &[Bucket], width: usize, x: Axis) -> Option<Plot> {
    let failed = |second: &Second| second.failed;
    let bars = buckets.iter().filter(|bucket| bucket.sum(failed) > 0);
    let bars = bars.map(|bucket| {
        let count = bucket.sum(failed);
        let tooltip = format!("{} at {} s", units::count(count), bucket.from);
        (bucket.from, bucket.to, count as f64, tooltip)
    });
    let bars: Vec<_> = bars.collect();
    let max = bars.iter().map(|bar| bar.2).reduce(f64::max)?;
    Some(Plot {
        title: "Errors",
        note: match width {
            1 => "In each second.".into(),
            _ => format!("In each {width} s."),
        },
        x,
        y: Axis::whole(max, tick_count),
        marks: vec![("bad", "", Shape::Bars(bars))],
    })
}

fn means(buckets: &[Bucket], of: fn(&Second) -> u64) -> Vec<(f64, Option<f64>)> {
    let points = buckets.iter();
    points
        .map(|bucket| (bucket.middle(), Some(bucket.mean(of))))
        .collect()
}

fn highest(buckets: &[Bucket], of: fn(&Second) -> u64) -> f64 {
    let means = buckets.iter().map(|bucket| bucket.mean(of));
    means.fold(0.0, f64::max)
}

/// A stall of a second drowns in a mean, so where a point is several seconds the lowest is drawn.
fn lowest(
    buckets: &[Bucket],
    width: usize,
    of: fn(&Second) -> u64,
) -> Option<(&'static str, &'static str, Shape)> {
    let points = buckets.iter();
    let points = points.map(|bucket| (bucket.middle(), Some(bucket.least(of))));
    (width > 1).then(|| ("second", "lowest second", Shape::Line(points.collect())))
}

/// The histogram of corrected latency. Both scales are logarithmic: one request that took a second
/// is seen beside a million that took a millisecond.
pub fn histogram(report: &Report) -> Option<Plot> {
    let latency = &report.latency;
    let bars = latency.histogram.iter();
    // Nothing is at zero on a logarithmic scale.
    let bars = bars.map(|&(from, to, count)| (from.max(1), to.max(2), count));
    let bars: Vec<_> = bars
        .map(|(from, to, count)| {
            let [short, long] = [from, to].map(units::time);
            let tooltip = format!("{short} to {long}: {}", units::count(count));
            (from as f64, to as f64, count as f64, tooltip)
        })
        .collect();
    let (least, greatest) = (bars.first()?.0, bars.last()?.1);
    let most = bars.iter().map(|bar| bar.2).reduce(f64::max)?;
    let corrected = &latency.corrected;
    let guides = [
        ("p50", corrected.p50),
        ("p99", corrected.p99),
        ("max", corrected.max),
    ];
    let guides = guides.map(|(name, us)| {
        let label = format!("{name} {}", units::time(us));
        ("", "", Shape::Guide(us as f64, label))
    });
    Some(Plot {
        title: "Corrected latency",
        note: "Requests by latency; both scales are logarithmic.".into(),
        x: Axis::log(least, greatest, tick_time),
        // A bar of one must be seen.
        y: Axis::log(0.5, most * HEADROOM, tick_count),
        marks: std::iter::once(("first", "", Shape::Bars(bars)))
            .chain(guides)
            .collect(),
    })
}

/// The server's memory and descriptors.
pub fn of_server(server: &ServerUsage) -> Vec<Plot> {
    let samples = &server.samples;
    let Some((first, last)) = samples.first().zip(samples.last()) else {
        return Vec::new();
    };
    let (from, to) = (at(first), at(last));
    let plot = |title, of: fn(&Sample) -> u64, axis: fn(f64) -> Axis| {
        let points = highest_samples(samples, of);
        let max = points
            .iter()
            .filter_map(|point| point.1)
            .fold(0.0, f64::max);
        Plot {
            title,
            note: String::new(),
            x: Axis::time(from, to),
            y: axis(max * HEADROOM),
            marks: quiet(samples)
                .chain([("first", "", Shape::Line(points))])
                .collect(),
        }
    };
    vec![
        plot(
            "The server's memory",
            |sample| sample.usage.rss_bytes,
            |max| Axis::bytes(max, tick_bytes),
        ),
        plot(
            "The server's descriptors",
            |sample| sample.usage.descriptors,
            |max| Axis::whole(max, tick_count),
        ),
    ]
}

/// How two servers' figures went, side by side.
pub fn of_comparison(comparison: &Comparison) -> Vec<Plot> {
    let plot = |quantity: &str, title, axis: fn(f64) -> Axis| {
        let mut all = comparison.differences.iter();
        let stretches = &all.find(|found| found.quantity == quantity)?.stretches;
        let to = stretches.last()?.0;
        let max = stretches
            .iter()
            .fold(0.0_f64, |max, (_, a, b)| max.max(*a).max(*b));
        let line = |of: fn(&(f64, f64, f64)) -> f64| {
            Shape::Line(
                stretches
                    .iter()
                    .map(|stretch| (stretch.0, Some(of(stretch))))
                    .collect(),
            )
        };
        Some(Plot {
            title,
            note: "In each stretch of the run.".into(),
            x: Axis::time(0.0, to),
            y: axis(max * HEADROOM),
            marks: vec![
                ("first", "the first server", line(|stretch| stretch.1)),
                ("second", "the second", line(|stretch| stretch.2)),
            ],
        })
    };
    let time: fn(f64) -> Axis = |max| Axis::whole(max, tick_time);
    [
        plot("p50", "Latency of both, p50", time),
        plot("p99", "Latency of both, p99", time),
        plot("cpu", "CPU time a request of both", time),
        plot("rss", "Memory of both", |max| Axis::bytes(max, tick_bytes)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A search's steps: what was measured at which rate, and how it came out.
pub fn of_search(search: &Search) -> Option<Plot> {
    let (unit, bound) = search.condition.parse::<Conditions>().ok()?.first()?;
    let figures = search.steps.iter();
    let points = figures.filter_map(|step| Some((step, step.figure?.value)));
    let points: Vec<(&Step, f64)> = points.collect();
    let ends = |of: fn(&(&Step, f64)) -> f64, one: f64| {
        let all = points.iter().map(of);
        all.fold((one, one), |(low, high), at| (low.min(at), high.max(at)))
    };
    let (low, high) = ends(|(step, _)| step.rate, points.first()?.0.rate);
    let (least, most) = ends(|(_, figure)| *figure, bound);
    let dots = |is_it: fn(&Step) -> bool| {
        let dots = points.iter().filter(|(step, _)| is_it(step));
        // A gap after each makes it a dot.
        let dots = dots.flat_map(|(step, at)| [(step.rate, Some(*at)), (step.rate, None)]);
        Shape::Line(dots.collect())
    };
    let capacity = search.capacity.iter().flat_map(|capacity| {
        let label = format!("{}/s", units::number(capacity.value));
        let band = Shape::Band(capacity.low, capacity.high.min(high));
        [
            ("quiet", "the highest rate that holds", band),
            ("", "", Shape::Guide(capacity.value, label)),
        ]
    });
    let limit = Shape::Line(vec![(low, Some(bound)), (high, Some(bound))]);
    let marks = [
        ("third", "what is asked for", limit),
        (
            "bad dot",
            "didn't hold",
            dots(|step| step.outcome == ThresholdOutcome::Failed),
        ),
        (
            "second dot",
            "undecided",
            dots(|step| {
                !matches!(
                    step.outcome,
                    ThresholdOutcome::Failed | ThresholdOutcome::Held
                )
            }),
        ),
        (
            "first dot",
            "held",
            dots(|step| step.outcome == ThresholdOutcome::Held),
        ),
    ];
    Some(Plot {
        title: "Steps of the search",
        note: format!("What {} is about, at each rate.", search.condition),
        x: Axis::log(low, high, tick_count),
        y: match unit {
            Unit::Time => Axis::log(least.max(1.0), most * HEADROOM, tick_time),
            _ => Axis::whole(most * HEADROOM, tick_count),
        },
        marks: capacity.chain(marks).collect(),
    })
}

fn at(sample: &Sample) -> f64 {
    sample.at_us as f64 / 1e6
}

fn highest_samples(samples: &[Sample], of: fn(&Sample) -> u64) -> Vec<(f64, Option<f64>)> {
    let chunks = samples.chunks(samples.len().div_ceil(POINTS_MAX).max(1));
    let highest = chunks.filter_map(|chunk| chunk.iter().max_by_key(|sample| of(sample)));
    highest
        .map(|sample| (at(sample), Some(of(sample) as f64)))
        .collect()
}

/// The stretches in which no client was there.
fn quiet(samples: &[Sample]) -> impl Iterator<Item = (&'static str, &'static str, Shape)> {
    let stretches = samples.chunk_by(|a, b| a.is_quiet == b.is_quiet);
    let quiet = stretches.filter(|stretch| stretch[0].is_quiet);
    let bands = quiet.filter_map(|stretch| Some((at(stretch.first()?), at(stretch.last()?))));
    bands.enumerate().map(|(index, (from, to))| {
        let label = if index == 0 { "no client" } else { "" };
        ("quiet", label, Shape::Band(from, to))
    })
}

fn tick_time(us: f64) -> String {
    match us {
        1e6.. => format!("{} s", us / 1e6),
        1e3.. => format!("{} ms", us / 1e3),
        _ => format!("{us} µs"),
    }
}

fn tick_count(count: f64) -> String {
    let round = |count: f64| (count * 10.0).round() / 10.0;
    match count {
        1e9.. => format!("{}G", round(count / 1e9)),
        1e6.. => format!("{}M", round(count / 1e6)),
        1e4.. => format!("{}k", round(count / 1e3)),
        _ if count.fract() > 0.0 => format!("{count}"),
        _ => units::count(count as u64),
    }
}

fn tick_bytes(bytes: f64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units
        .iter()
        .find(|(bits, _)| bytes >= f64::from(1_u32 << bits));
    match unit {
        Some((bits, unit)) => format!("{} {unit}", bytes / f64::from(1_u32 << bits)),
        None => format!("{bytes} B"),
    }
}
