//! `carafe soak compare A.json B.json`: two runs of different times beside each other.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::metric::{DIFFERENCES, Metric};
use super::report::{Comparison, Difference, Interval, Report, SCHEMA};
use super::versus::percent;
use crate::escape::Escaped;
use crate::failure::Failure;
use crate::limits::{COUNT_MAX, RSS_STEP_BYTES};

/// Reads a report that `--json` has written.
/// An error is one line: a usage error.
pub(super) fn read(path: &Path) -> Result<Report, Failure> {
    let wont_do = |why: String| {
        let path = Escaped(path.as_os_str().as_encoded_bytes());
        Failure::usage(format!("'{path}' won't do: {why}"))
    };
    let text = fs::read(path).map_err(|error| wont_do(error.to_string()))?;
    let no_report =
        |error: serde_json::Error| wont_do(format!("it is no report of --json: {error}"));
    let json: Value = serde_json::from_slice(&text).map_err(no_report)?;
    if let Some(key) = unsound("", &json) {
        return Err(wont_do(format!("'{key}' is no figure of a run")));
    }
    let report: Report = serde_json::from_value(json).map_err(no_report)?;
    if report.schema == SCHEMA {
        Ok(report)
    } else {
        Err(wont_do(format!("its schema is not {SCHEMA}")))
    }
}

/// What may be below zero: intervals of differences and slopes, and what is looked at before the load.
const SIGNED: [&str; 6] = ["value", "low", "high", "per_minute", "finds", "at_us"];

/// A number that no run has: one below zero, or so large that sums of it overflow.
fn unsound<'a>(key: &'a str, value: &'a Value) -> Option<&'a str> {
    match value {
        Value::Object(fields) => fields.iter().find_map(|(key, value)| unsound(key, value)),
        Value::Array(values) => values.iter().find_map(|value| unsound(key, value)),
        Value::Number(number) if key != "seed" => {
            let number = number.as_f64()?;
            let is_negative = number < 0.0 && !SIGNED.contains(&key);
            (is_negative || number.abs() > COUNT_MAX).then_some(key)
        }
        _ => None,
    }
}

/// The second run's report, and how it differs from the first.
pub(super) fn two_runs(names: [String; 2], [a, mut b]: [Report; 2]) -> Report {
    let differences = DIFFERENCES.iter().filter_map(|&(name, _)| {
        let [a, b] = [&a, &b].map(|report| figure(name, report));
        Some(difference(name, a?, b?))
    });
    b.comparison = Some(Comparison {
        names,
        is_of_two_runs: true,
        ended: [&a, &b].map(|report| (report.outcomes.ended(), report.outcomes.failed())),
        differences: differences.collect(),
        server: None,
    });
    b
}

/// A run's figure, as sure as that run was of it. A mean has no interval.
fn figure(name: &str, report: &Report) -> Option<Interval> {
    let server = report.server.as_ref();
    let figure = match name {
        "mean" => None,
        "cpu" => {
            let share = Metric::named("cpu", "")?.interval(report)?;
            Some(share.scaled(1e4 / report.load.rate_ended))
        }
        "rss" => {
            let value = server?.rss.max;
            Some(Interval {
                value,
                low: value - RSS_STEP_BYTES,
                high: value + RSS_STEP_BYTES,
            })
        }
        _ => Metric::named(name, "")?.interval(report),
    };
    figure.filter(|figure| figure.high.is_finite())
}

/// The difference of two figures whose errors have nothing to do with each other, by their own intervals
/// (Zou and Donner, "Construction of confidence limits about effect measures", Statist. Med. 27, 2008).
fn difference(name: &'static str, a: Interval, b: Interval) -> Difference {
    let value = b.value - a.value;
    let absolute = Interval {
        value,
        low: value - (b.value - b.low).hypot(a.high - a.value),
        high: value + (b.high - b.value).hypot(a.value - a.low),
    };
    Difference {
        quantity: name.into(),
        values: [a.value, b.value],
        absolute,
        percent: Interval {
            value: percent(a.value, b.value),
            ..absolute.scaled(100.0 / a.value)
        },
        stretches: Vec::new(),
    }
}
