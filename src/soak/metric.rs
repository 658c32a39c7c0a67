//! The figures that a condition may be about: their names, units and where a report has them.

use super::outcome::Class;
use super::report::{Percentiles, Report, Resource, ServerUsage};
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
    /// One number of the run; none where it says nothing.
    Run(fn(&Report) -> Option<f64>),
    /// One number of the server's process; as above.
    Server(fn(&ServerUsage) -> Option<f64>),
    /// How a resource of that process grew.
    Trend(fn(&ServerUsage) -> &Resource),
}

type Times = fn(&Report) -> &Percentiles;
type Quantile = fn(&Percentiles) -> u64;

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

const TIMES: [(&str, Times); 5] = [
    ("", |report| &report.latency.corrected),
    ("raw_", |report| &report.latency.total),
    ("ttfb_", |report| &report.latency.first_byte),
    ("connect_", |report| &report.latency.connect),
    ("lateness_", |report| &report.generator.lateness),
];

const QUANTILES: [(&str, Quantile); 5] = [
    ("p50", |times| times.p50),
    ("p90", |times| times.p90),
    ("p99", |times| times.p99),
    ("p99.9", |times| times.p999),
    ("max", |times| times.max),
];

const OTHERS: [(&str, Unit, Source); 13] = {
    use Source::{Run, Server, Trend};
    [
        (
            "silence",
            Unit::Time,
            Run(|report| Some(report.latency.longest_silence_us as f64)),
        ),
        (
            "errors",
            Unit::Number,
            Run(|report| Some(report.outcomes.failed() as f64)),
        ),
        (
            "asked_again",
            Unit::Number,
            Run(|report| Some(report.outcomes.asked_again as f64)),
        ),
        ("error_rate", Unit::Percent, Run(error_percent)),
        (
            "rate",
            Unit::Rate,
            Run(|report| Some(report.load.rate_ended)),
        ),
        (
            "rate_started",
            Unit::Rate,
            Run(|report| Some(report.load.rate_started)),
        ),
        (
            "cpu",
            Unit::Percent,
            Server(|server| Some(server.cpu_percent)),
        ),
        (
            "rss_max",
            Unit::Bytes,
            Server(|server| Some(server.rss.max)),
        ),
        (
            "rss_left",
            Unit::Bytes,
            Server(|server| left(server, &server.rss)),
        ),
        ("rss_slope", Unit::BytesTrend, Trend(|server| &server.rss)),
        (
            "fd_max",
            Unit::Number,
            Server(|server| Some(server.descriptors.max)),
        ),
        (
            "fd_left",
            Unit::Number,
            Server(|server| left(server, &server.descriptors)),
        ),
        (
            "fd_slope",
            Unit::NumberTrend,
            Trend(|server| &server.descriptors),
        ),
    ]
};

const TIME_UNITS: &[(f64, &str)] = &[(1.0, " µs"), (1e3, " ms"), (1e6, " s")];
const BYTE_UNITS: &[(f64, &str)] = &[(1.0, " B"), (1e3, " kB"), (1e6, " MB"), (1e9, " GB")];
const NO_UNIT: &[(f64, &str)] = &[(1.0, "")];

impl Metric {
    pub(super) fn named(name: &str) -> Option<Self> {
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
        matches!(self.source, Source::Server(_) | Source::Trend(_))
    }

    /// What the report says, in the metric's unit; none where it says nothing, or more than one
    /// number, as of a trend.
    pub(super) fn value(&self, report: &Report) -> Option<f64> {
        match self.source {
            Source::Time(times, quantile) => {
                let times = times(report);
                (times.count > 0).then(|| quantile(times) as f64)
            }
            Source::Class(class) => Some(class_count(report, class) as f64),
            Source::Run(value) => value(report),
            Source::Server(value) => report.server.as_ref().and_then(value),
            Source::Trend(_) => None,
        }
    }
}

/// All names, for the message that refuses another one.
pub(super) fn names() -> String {
    let times = TIMES.map(|(prefix, _)| prefix);
    let quantiles = QUANTILES.map(|(text, _)| text).join(", ");
    let times = times[1..].join(", ");
    let mut names = vec![format!("{quantiles}, each also with {times} before it")];
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

fn error_percent(report: &Report) -> Option<f64> {
    let started = report.outcomes.started;
    (started > 0).then(|| report.outcomes.failed() as f64 * 100.0 / started as f64)
}

/// What is left of a resource: only where the server was seen without clients after the load began.
fn left(server: &ServerUsage, resource: &Resource) -> Option<f64> {
    let mut samples = server.samples.iter();
    let has_settled = samples.any(|sample| sample.is_quiet && sample.at_us > 0);
    (has_settled && !server.died).then_some(resource.after - resource.before)
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
    /// A slope and the ends of its interval, as `0.42 MB/min (95 %: 0.31 to 0.53)`.
    pub(super) fn show_trend(self, trend: [f64; 3], per: Per) -> String {
        let units = match self {
            Self::BytesTrend => BYTE_UNITS,
            _ => NO_UNIT,
        };
        let largest = trend.map(f64::abs).into_iter().fold(0.0, f64::max);
        let (size, unit) = unit_for(largest, units);
        let decimals = decimals_for(largest / size);
        let [slope, low, high] = trend.map(|end| end / size);
        let per = per.as_str();
        format!("{slope:.decimals$}{unit}/{per} (95 %: {low:.decimals$} to {high:.decimals$})")
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

/// Two decimals, or as many as show two digits of a small number.
fn decimals_for(largest: f64) -> usize {
    let power = largest.abs().log10().floor();
    if power.is_finite() {
        (1.0 - power).clamp(2.0, 9.0) as usize
    } else {
        2
    }
}
