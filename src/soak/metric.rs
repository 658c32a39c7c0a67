//! The figures that a condition may be about: their names, units and where a report has them.

use super::outcome::Class;
use super::report::{Interval, Percentiles, Report, Resource, ServerUsage, Slope};
use crate::units::{parse_bytes, parse_duration};

/// A figure that a condition is about.
#[derive(Clone, Debug)]
pub(super) struct Metric {
    pub(super) name: String,
    pub(super) unit: Unit,
    pub(super) source: Source,
}

/// Where a report has a figure.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    /// A quantile of some times.
    Time(Times, Quantile),
    /// How many requests ended so.
    Class(Class),
    /// One figure of the run; none where it says nothing.
    Run(fn(&Report) -> Option<Interval>),
    /// One figure of the server's process; as above.
    Server(fn(&ServerUsage) -> Option<Interval>),
    /// What is left of a resource of that process.
    Left(fn(&ServerUsage) -> &Resource),
    /// How it grew.
    Trend(fn(&ServerUsage) -> &Resource),
    /// By how much it is sure to have grown: the lower end alone counts.
    Leak(fn(&ServerUsage) -> &Resource),
    /// By how much it differs between two servers, or runs; whether in percent.
    Diff(&'static str, bool),
}

type Times = fn(&Report) -> &Percentiles;
/// The figure, and which of the intervals is its own.
type Quantile = (fn(&Percentiles) -> u64, Option<usize>);

/// What a trend is per.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Per {
    Second,
    Minute,
    Hour,
}

/// What a figure is in.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unit {
    Time,
    Number,
    Percent,
    Rate,
    Bytes,
    NumberTrend,
    BytesTrend,
}

const TIMES: [(&str, Times); 6] = [
    ("", |report| &report.latency.corrected),
    ("raw_", |report| &report.latency.total),
    ("ttfb_", |report| &report.latency.first_byte),
    ("connect_", |report| &report.latency.connect),
    ("handshake_", |report| &report.latency.handshake),
    ("lateness_", |report| &report.generator.lateness),
];

const QUANTILES: [(&str, Quantile); 5] = [
    ("p50", (|times| times.p50, Some(0))),
    ("p90", (|times| times.p90, Some(1))),
    ("p99", (|times| times.p99, Some(2))),
    ("p99.9", (|times| times.p999, Some(3))),
    ("max", (|times| times.max, None)),
];

const OTHERS: [(&str, Unit, Source); 16] = {
    use Source::{Leak, Left, Run, Server, Trend};
    const MEMORY: fn(&ServerUsage) -> &Resource = |server| &server.rss;
    const DESCRIPTORS: fn(&ServerUsage) -> &Resource = |server| &server.descriptors;
    [
        (
            "silence",
            Unit::Time,
            Run(|report| exact(report.latency.longest_silence_us)),
        ),
        (
            "errors",
            Unit::Number,
            Run(|report| exact(report.outcomes.failed())),
        ),
        (
            "asked_again",
            Unit::Number,
            Run(|report| exact(report.outcomes.asked_again)),
        ),
        ("error_rate", Unit::Percent, Run(error_percent)),
        (
            "rate",
            Unit::Rate,
            Run(|report| rate(report, report.load.rate_ended, 1)),
        ),
        (
            "rate_started",
            Unit::Rate,
            Run(|report| rate(report, report.load.rate_started, 0)),
        ),
        (
            "capacity",
            Unit::Rate,
            Run(|report| report.search.as_ref()?.capacity),
        ),
        ("cpu", Unit::Percent, Server(cpu)),
        (
            "rss_max",
            Unit::Bytes,
            Server(|server| Some(Interval::exact(server.rss.max))),
        ),
        ("rss_left", Unit::Bytes, Left(MEMORY)),
        ("rss_slope", Unit::BytesTrend, Trend(MEMORY)),
        ("rss_leak", Unit::BytesTrend, Leak(MEMORY)),
        (
            "fd_max",
            Unit::Number,
            Server(|server| Some(Interval::exact(server.descriptors.max))),
        ),
        ("fd_left", Unit::Number, Left(DESCRIPTORS)),
        ("fd_slope", Unit::NumberTrend, Trend(DESCRIPTORS)),
        ("fd_leak", Unit::NumberTrend, Leak(DESCRIPTORS)),
    ]
};

/// What may differ, and its unit.
pub(super) const DIFFERENCES: [(&str, Unit); 8] = [
    ("mean", Unit::Time),
    ("p50", Unit::Time),
    ("p90", Unit::Time),
    ("p99", Unit::Time),
    ("p99.9", Unit::Time),
    ("rate", Unit::Rate),
    ("cpu", Unit::Time),
    ("rss", Unit::Bytes),
];

const TIME_UNITS: &[(f64, &str)] = &[(1.0, " µs"), (1e3, " ms"), (1e6, " s")];
const BYTE_UNITS: &[(f64, &str)] = &[(1.0, " B"), (1e3, " kB"), (1e6, " MB"), (1e9, " GB")];
const NO_UNIT: &[(f64, &str)] = &[(1.0, "")];

impl Metric {
    /// The metric of this name. A difference is in what its bound is in, which may be percent.
    pub(super) fn named(name: &str, bound: &str) -> Option<Self> {
        if let Some(of) = name.strip_suffix(".diff") {
            let (of, unit) = DIFFERENCES.into_iter().find(|(known, _)| *known == of)?;
            let is_percent = bound.ends_with('%');
            return Some(Self {
                name: name.into(),
                unit: if is_percent { Unit::Percent } else { unit },
                source: Source::Diff(of, is_percent),
            });
        }
        let mut times = TIMES.iter();
        let time = times.find_map(|(prefix, times)| {
            let quantile = name.strip_prefix(prefix)?;
            let (_, quantile) = QUANTILES.iter().find(|(text, _)| *text == quantile)?;
            Some((Unit::Time, Source::Time(*times, *quantile)))
        });
        let class = || Class::ALL.iter().find(|class| class.as_str() == name);
        let other = || OTHERS.iter().find(|(text, ..)| *text == name);
        let (unit, source) = time
            .or_else(|| class().map(|&class| (Unit::Number, Source::Class(class))))
            .or_else(|| other().map(|&(_, unit, source)| (unit, source)))?;
        Some(Self {
            name: name.into(),
            unit,
            source,
        })
    }

    pub(super) fn needs_pid(&self) -> bool {
        use Source::{Leak, Left, Server, Trend};
        matches!(self.source, Server(_) | Left(_) | Trend(_) | Leak(_))
    }

    /// What differs, of a difference.
    pub(super) fn difference(&self) -> Option<&'static str> {
        match self.source {
            Source::Diff(of, _) => Some(of),
            _ => None,
        }
    }

    /// Whether it is a trend, which is per something.
    pub(super) fn is_trend(&self) -> bool {
        matches!(self.source, Source::Trend(_) | Source::Leak(_))
    }

    /// The same as the server saw it: without the time for which an arrival waited to be sent.
    pub(super) fn as_sent(&self) -> Option<Self> {
        Self::named(&format!("raw_{}", self.name), "")
    }

    /// By which power of the run's length an interval shrinks: that of a slope by more, as what it is
    /// measured against grows, too.
    pub(super) fn shrinks_by(&self) -> f64 {
        if self.is_trend() { 1.5 } else { 0.5 }
    }

    /// What the report says, in the metric's unit (trends: per minute); none where it says nothing.
    pub(super) fn interval(&self, report: &Report) -> Option<Interval> {
        let server = report.server.as_ref();
        match self.source {
            Source::Time(times, quantile) => time(times(report), quantile),
            Source::Class(class) => exact(class_count(report, class)),
            Source::Run(value) => value(report),
            Source::Server(value) => server.and_then(value),
            Source::Left(of) => server.and_then(|server| left(server, of(server))),
            Source::Diff(of, is_percent) => {
                let mut all = report.comparison.as_ref()?.differences.iter();
                let found = all.find(|found| found.quantity == of)?;
                Some(if is_percent {
                    found.percent
                } else {
                    found.absolute
                })
            }
            Source::Trend(of) | Source::Leak(of) => server.and_then(|server| trend(of(server))),
        }
    }
}

/// The unit of what differs.
pub(super) fn difference_unit(of: &str) -> Unit {
    let mut all = DIFFERENCES.into_iter();
    all.find(|(known, _)| *known == of)
        .map_or(Unit::Number, |(_, unit)| unit)
}

fn exact(count: u64) -> Option<Interval> {
    Some(Interval::exact(count as f64))
}

fn time(times: &Percentiles, (quantile, index): Quantile) -> Option<Interval> {
    let value = quantile(times) as f64;
    let interval = index.and_then(|index| Some(times.intervals?[index]));
    let interval = interval.map_or(Interval::exact(value), |(low, high)| Interval {
        value,
        low: low as f64,
        high: high.map_or(f64::INFINITY, |high| high as f64),
    });
    (times.count > 0).then_some(interval)
}

fn rate(report: &Report, rate: f64, index: usize) -> Option<Interval> {
    let interval = report
        .load
        .rate_intervals
        .map(|both| both[index].around(rate));
    Some(interval.unwrap_or(Interval::exact(rate)))
}

fn trend(resource: &Resource) -> Option<Interval> {
    match resource.slope {
        Slope::NotEnoughData => None,
        Slope::Fitted {
            per_minute,
            low,
            high,
            ..
        } => Some(Interval {
            value: per_minute,
            low,
            high,
        }),
    }
}

fn cpu(server: &ServerUsage) -> Option<Interval> {
    let exact = Interval::exact(server.cpu_percent);
    Some(
        server
            .cpu_interval
            .map_or(exact, |interval| interval.around(server.cpu_percent)),
    )
}

/// All names, for the message that refuses another one.
pub(super) fn names() -> String {
    let times = TIMES.map(|(prefix, _)| prefix);
    let quantiles = QUANTILES.map(|(text, _)| text).join(", ");
    let times = times[1..].join(", ");
    let mut names = vec![format!("{quantiles}, each also with {times} before it")];
    let differences = DIFFERENCES.map(|(of, _)| format!("{of}.diff"));
    names.extend(differences);
    names.extend(OTHERS.map(|(text, ..)| text.to_owned()));
    names.extend(Class::ALL.iter().map(|class| class.as_str().to_owned()));
    names.join(", ")
}

fn class_count(report: &Report, class: Class) -> u64 {
    let count = report.outcomes.count(class);
    // A request that ended in another way may have shown a wrong byte before.
    match class {
        Class::Corrupt => report.verification.corrupt.max(count),
        Class::Short => report.verification.short.max(count),
        _ => count,
    }
}

fn error_percent(report: &Report) -> Option<Interval> {
    let (started, failed) = (report.outcomes.started, report.outcomes.failed());
    let seen = Interval::exact(failed as f64 * 100.0 / started as f64);
    let interval = report.outcomes.failed_share;
    (started > 0).then(|| interval.map_or(seen, |share| share.scaled(100.0)))
}

/// What is left of a resource: only where the server was seen without clients after the load began.
fn left(server: &ServerUsage, resource: &Resource) -> Option<Interval> {
    let mut samples = server.samples.iter();
    let has_settled = samples.any(|sample| sample.is_quiet && sample.at_us > 0);
    let value = resource.after - resource.before;
    let interval = resource
        .left
        .map_or(Interval::exact(value), |left| Interval {
            value,
            low: left.low,
            high: left.high,
        });
    (has_settled && !server.died).then_some(interval)
}

impl Per {
    fn as_str(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Minute => "min",
            Self::Hour => "h",
        }
    }

    pub(super) fn minutes(self) -> f64 {
        match self {
            Self::Second => 1.0 / 60.0,
            Self::Minute => 1.0,
            Self::Hour => 60.0,
        }
    }
}

impl Unit {
    /// A figure and, where it isn't a fact, the ends of its interval: `0.42 MB/min (99 %: 0.31 to 0.53)`.
    pub(super) fn show_interval(self, interval: Interval, per: Per) -> String {
        let Interval { value, low, high } = interval;
        let (units, per) = match self {
            Self::BytesTrend => (BYTE_UNITS, format!("/{}", per.as_str())),
            Self::NumberTrend => (NO_UNIT, format!("/{}", per.as_str())),
            _ if low >= high => return self.show(value),
            Self::Time => (TIME_UNITS, String::new()),
            Self::Bytes => (BYTE_UNITS, String::new()),
            Self::Number => (NO_UNIT, String::new()),
            Self::Percent => (NO_UNIT, " %".into()),
            Self::Rate => (NO_UNIT, "/s".into()),
        };
        let finite = [value, low, high].into_iter().filter(|end| end.is_finite());
        let largest = finite.map(f64::abs).fold(0.0, f64::max);
        let (size, unit) = unit_for(largest, units);
        let decimals = decimals_for(largest / size);
        let [value, low, high] = [value, low, high].map(|end| end / size);
        if low >= high {
            return format!("{value:.decimals$}{unit}{per}");
        }
        let high = if high.is_finite() {
            format!("to {high:.decimals$}")
        } else {
            "or more".into()
        };
        format!("{value:.decimals$}{unit}{per} (99 %: {low:.decimals$} {high})")
    }

    pub(super) fn takes(self) -> &'static str {
        match self {
            Self::Time => "a time, such as 50ms",
            Self::Number => "a whole number, such as 0",
            Self::Percent => "a share, such as 0.5%",
            Self::Rate => "a number a second, such as 1000",
            Self::Bytes => "a number of bytes, such as 64MB",
            Self::NumberTrend => "a number per s, min or h, such as 0.1/min",
            Self::BytesTrend => "bytes per s, min or h, such as 1MB/min",
        }
    }

    pub(super) fn parse(self, text: &str) -> Option<(f64, Per)> {
        let (text, per) = match self {
            Self::NumberTrend | Self::BytesTrend => {
                let (value, per) = text.split_once('/')?;
                let mut all = [Per::Second, Per::Minute, Per::Hour].into_iter();
                let per = all.find(|known| known.as_str() == per.trim())?;
                (value.trim(), per)
            }
            _ => (text, Per::Minute),
        };
        let value = match self {
            Self::Time => parse_duration(text)?.as_nanos() as f64 / 1e3,
            Self::Number => text.parse::<u64>().ok()? as f64,
            Self::Percent => number(text.strip_suffix('%')?.trim())?,
            Self::Rate => number(text.strip_suffix("/s").unwrap_or(text).trim())?,
            Self::NumberTrend => number(text)?,
            Self::Bytes | Self::BytesTrend => parse_bytes(text)? as f64,
        };
        Some((value, per))
    }

    pub(super) fn show(self, value: f64) -> String {
        match self {
            Self::Time => show(value, TIME_UNITS, 3),
            Self::Bytes | Self::BytesTrend => show(value, BYTE_UNITS, 2),
            Self::Number => format!("{value}"),
            Self::Percent => format!("{value:.*} %", decimals_for(value)),
            Self::Rate | Self::NumberTrend => format!("{value:.*}/s", decimals_for(value)),
        }
    }
}

fn number(text: &str) -> Option<f64> {
    let number = text.parse::<f64>().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number)
}

/// In the largest unit in which it is at least one. The smallest one has no parts.
fn show(value: f64, units: &[(f64, &str)], decimals: usize) -> String {
    let (size, unit) = unit_for(value.abs(), units);
    let decimals = if size == 1.0 { 0 } else { decimals };
    format!("{:.decimals$}{unit}", value / size)
}

fn unit_for<'a>(largest: f64, units: &[(f64, &'a str)]) -> (f64, &'a str) {
    let fitting = units.iter().rfind(|(size, _)| *size <= largest);
    *fitting.unwrap_or(&units[0])
}

/// Two decimals, or as many as show two digits of a small number; none from a thousand on.
fn decimals_for(largest: f64) -> usize {
    match largest.abs().log10().floor() {
        3.0.. => 0,
        power if power.is_finite() => (1.0 - power).clamp(2.0, 9.0) as usize,
        _ => 2,
    }
}
