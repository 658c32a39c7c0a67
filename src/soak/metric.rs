//! The figures that a condition may be about: their names, units and where a report has them.

use super::outcome::Class;
use super::report::{Percentiles, Report, Resource, ServerUsage};
use crate::units::{parse_bytes, parse_duration};

/// A figure that a condition is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Metric {
    Time(Timing, Quantile),
    Stall,
    Class(Class),
    Errors,
    ErrorRate,
    RateEnded,
    RateStarted,
    Cpu,
    Max(ServerResource),
    Left(ServerResource),
    Trend(ServerResource),
}

/// What a time is of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Timing {
    Corrected,
    Total,
    FirstByte,
    Connect,
    Lateness,
}

/// Which time of many.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Quantile {
    P50,
    P90,
    P99,
    P999,
    Max,
}

/// What the server's process uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum ServerResource {
    Memory,
    Descriptors,
}

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

const SPANS: [(&str, Timing); 5] = [
    ("", Timing::Corrected),
    ("raw_", Timing::Total),
    ("ttfb_", Timing::FirstByte),
    ("connect_", Timing::Connect),
    ("lateness_", Timing::Lateness),
];

const RANKS: [(&str, Quantile); 5] = [
    ("p50", Quantile::P50),
    ("p90", Quantile::P90),
    ("p99", Quantile::P99),
    ("p99.9", Quantile::P999),
    ("max", Quantile::Max),
];

const OTHERS: [(&str, Metric); 12] = [
    ("silence", Metric::Stall),
    ("errors", Metric::Errors),
    ("error_rate", Metric::ErrorRate),
    ("rate", Metric::RateEnded),
    ("rate_started", Metric::RateStarted),
    ("cpu", Metric::Cpu),
    ("rss_max", Metric::Max(ServerResource::Memory)),
    ("rss_left", Metric::Left(ServerResource::Memory)),
    ("rss_slope", Metric::Trend(ServerResource::Memory)),
    ("fd_max", Metric::Max(ServerResource::Descriptors)),
    ("fd_left", Metric::Left(ServerResource::Descriptors)),
    ("fd_slope", Metric::Trend(ServerResource::Descriptors)),
];

const TIME_UNITS: &[(f64, &str)] = &[(1.0, " µs"), (1e3, " ms"), (1e6, " s")];
const BYTE_UNITS: &[(f64, &str)] = &[(1.0, " B"), (1e3, " kB"), (1e6, " MB"), (1e9, " GB")];
const NO_UNIT: &[(f64, &str)] = &[(1.0, "")];

impl Metric {
    pub(super) fn named(name: &str) -> Option<Self> {
        let time = SPANS.iter().find_map(|(prefix, span)| {
            let rank = name.strip_prefix(prefix)?;
            let (_, rank) = RANKS.iter().find(|(text, _)| *text == rank)?;
            Some(Self::Time(*span, *rank))
        });
        let class = || classes().find(|class| class.as_str() == name);
        let other = || OTHERS.iter().find(|(text, _)| *text == name);
        time.or_else(|| class().map(Self::Class))
            .or_else(|| other().map(|(_, metric)| *metric))
    }

    pub(super) fn unit(self) -> Unit {
        match self {
            Self::Time(..) | Self::Stall => Unit::Time,
            Self::Class(_) | Self::Errors => Unit::Number,
            Self::Max(ServerResource::Descriptors) | Self::Left(ServerResource::Descriptors) => {
                Unit::Number
            }
            Self::ErrorRate | Self::Cpu => Unit::Percent,
            Self::RateEnded | Self::RateStarted => Unit::Rate,
            Self::Max(ServerResource::Memory) | Self::Left(ServerResource::Memory) => Unit::Bytes,
            Self::Trend(ServerResource::Memory) => Unit::BytesTrend,
            Self::Trend(ServerResource::Descriptors) => Unit::NumberTrend,
        }
    }

    pub(super) fn needs_pid(self) -> bool {
        matches!(
            self,
            Self::Cpu | Self::Max(_) | Self::Left(_) | Self::Trend(_)
        )
    }

    /// What the report says, in the metric's unit; none where it says nothing, or more than one
    /// number, as of a trend.
    pub(super) fn value(self, report: &Report) -> Option<f64> {
        let server = report.server.as_ref();
        match self {
            Self::Time(span, rank) => {
                let times = span.of(report);
                (times.count > 0).then(|| rank.of(times) as f64)
            }
            Self::Stall => Some(report.latency.longest_silence_us as f64),
            Self::Class(class) => Some(class_count(report, class) as f64),
            Self::Errors => Some(errors(report) as f64),
            Self::ErrorRate => {
                let started = report.outcomes.started;
                (started > 0).then(|| errors(report) as f64 * 100.0 / started as f64)
            }
            Self::RateEnded => Some(report.load.rate_ended),
            Self::RateStarted => Some(report.load.rate_started),
            Self::Cpu => server.map(|server| server.cpu_percent),
            Self::Max(thing) => server.map(|server| thing.of(server).max),
            Self::Left(thing) => server
                .filter(|server| has_settled(server))
                .map(|server| thing.of(server).after - thing.of(server).before),
            Self::Trend(_) => None,
        }
    }
}

/// The classes that a condition may name.
fn classes() -> impl Iterator<Item = Class> {
    let all = Class::ALL.iter().copied();
    all.filter(|&class| class.is_failure() || class == Class::Unfinished)
}

/// All names, for the message that refuses another one.
pub(super) fn names() -> String {
    let spans = SPANS.map(|(prefix, _)| prefix);
    let ranks = RANKS.map(|(text, _)| text);
    let mut names = vec![format!(
        "{}, each also with {} before it",
        ranks.join(", "),
        spans[1..].join(", ")
    )];
    names.extend(OTHERS.map(|(text, _)| text.to_owned()));
    names.extend(classes().map(|class| class.as_str().to_owned()));
    names.join(", ")
}

fn class_count(report: &Report, class: Class) -> u64 {
    let classes = report.outcomes.classes.iter();
    let found = classes.filter(|found| found.class == class.as_str());
    let count = found.map(|found| found.count).sum();
    // A request that ended in another way may have shown a wrong byte before.
    match class {
        Class::Corrupt => report.verification.corrupt.max(count),
        Class::Short => report.verification.short.max(count),
        _ => count,
    }
}

fn errors(report: &Report) -> u64 {
    let classes = report.outcomes.classes.iter();
    let failures = classes.filter(|class| class.is_failure);
    failures.map(|class| class.count).sum()
}

/// Whether it was seen without clients after the load began: only then is something "left".
fn has_settled(server: &ServerUsage) -> bool {
    let mut samples = server.samples.iter();
    !server.died && samples.any(|sample| sample.is_quiet && sample.at_us > 0)
}

impl Timing {
    fn of(self, report: &Report) -> &Percentiles {
        match self {
            Self::Corrected => &report.latency.corrected,
            Self::Total => &report.latency.total,
            Self::FirstByte => &report.latency.first_byte,
            Self::Connect => &report.latency.connect,
            Self::Lateness => &report.generator.lateness,
        }
    }
}

impl Quantile {
    fn of(self, times: &Percentiles) -> u64 {
        match self {
            Self::P50 => times.p50,
            Self::P90 => times.p90,
            Self::P99 => times.p99,
            Self::P999 => times.p999,
            Self::Max => times.max,
        }
    }
}

impl ServerResource {
    pub(super) fn of(self, server: &ServerUsage) -> &Resource {
        match self {
            Self::Memory => &server.rss,
            Self::Descriptors => &server.descriptors,
        }
    }

    /// A slope and the ends of its interval, as `0.42 MB/min (95 %: 0.31 to 0.53)`.
    pub(super) fn show_trend(self, trend: [f64; 3], per: Per) -> String {
        let units = match self {
            Self::Memory => BYTE_UNITS,
            Self::Descriptors => NO_UNIT,
        };
        let largest = trend.map(f64::abs).into_iter().fold(0.0, f64::max);
        let (size, unit) = unit_for(largest, units);
        let decimals = decimals_for(largest / size);
        let [slope, low, high] = trend.map(|end| end / size);
        let per = per.as_str();
        format!("{slope:.decimals$}{unit}/{per} (95 %: {low:.decimals$} to {high:.decimals$})")
    }
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
