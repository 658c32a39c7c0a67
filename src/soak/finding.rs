//! The least faults that a run would have found, 95 times in 100.

use super::metric::{Metric, Source};
use super::outcome::Class;
use super::report::{Against, Finding, Report, Resource, Slope};
use super::units;
use crate::limits::{DIFFERENCE_FOUND_MARGINS, LEFT_FOUND_PER_LOAD};

/// So many of a thing's mean number are seen at least once, 95 times in 100: Poisson's law has `exp(-3)` for
/// none.
const RULE_OF_THREE: f64 = 3.0;

const MEMORY: &str = "memory";
const DESCRIPTORS: &str = "descriptors";

/// What a condition on this figure would have found, with a bound that counts as too much (trends: per
/// minute). None where that is nothing to speak of.
pub(super) fn of(metric: &Metric, bound: Option<f64>, report: &Report) -> Option<Finding> {
    let bound = bound?;
    let started = report.outcomes.started as f64;
    match metric.source {
        Source::Trend(of) | Source::Leak(of) => {
            let resource = of(report.server.as_ref()?);
            Some(leak(what(metric), resource, bound, report))
        }
        Source::Left(_) if bound == 0.0 => {
            let loads = report.server.as_ref()?.descriptors.left?.loads as f64;
            let requests = started / (loads + 1.0);
            (loads > 0.0 && what(metric) == DESCRIPTORS).then(|| {
                rare(
                    DESCRIPTORS,
                    "one in",
                    LEFT_FOUND_PER_LOAD / requests,
                    report,
                )
            })
        }
        Source::Diff(name, is_percent) => {
            let interval = metric.interval(report)?;
            let least = bound + (interval.high - interval.value) * DIFFERENCE_FOUND_MARGINS;
            let unit = metric.unit.show(least);
            let of_what = if is_percent {
                " of the first one's"
            } else {
                ""
            };
            Some(Finding {
                of: metric.name.clone().into(),
                per_request: Some(least),
                per_hour: None,
                text: format!("{name}: a difference of {unit}{of_what}"),
            })
        }
        Source::Class(Class::Corrupt) if bound == 0.0 => Some(compared(report)),
        _ if metric.name == "errors" && bound == 0.0 => {
            Some(rare("errors", "one in", RULE_OF_THREE / started, report))
        }
        _ => None,
    }
}

fn what(metric: &Metric) -> &'static str {
    if metric.name.starts_with("rss") {
        MEMORY
    } else {
        DESCRIPTORS
    }
}

fn compared(report: &Report) -> Finding {
    let bodies = report.verification.bodies as f64;
    match report.verification.against {
        Against::Nothing => Finding {
            of: "wrong bytes".into(),
            per_request: None,
            per_hour: None,
            text:
                "NOTHING WAS COMPARED: wrong bytes, or error pages that say 200, would have passed"
                    .into(),
        },
        _ => rare("wrong bytes", "one body in", RULE_OF_THREE / bodies, report),
    }
}

/// Something that happens to few requests.
fn rare(of: &'static str, unit: &str, per_request: f64, report: &Report) -> Finding {
    let every = (1.0 / per_request).floor();
    let text = if every >= 1.0 {
        format!("{of}: {unit} {}", units::count(every as u64))
    } else {
        format!("{of}: none, of so few requests")
    };
    let per_request = (every >= 1.0).then_some(per_request);
    Finding {
        of: of.into(),
        per_request,
        per_hour: per_request.map(|share| share * report.load.rate_started * 3600.0),
        text,
    }
}

fn leak(of: &'static str, resource: &Resource, bound: f64, report: &Report) -> Finding {
    let Slope::Fitted { finds, .. } = resource.slope else {
        return Finding {
            of: of.into(),
            per_request: None,
            per_hour: None,
            text: format!("{of}: no leak of any size, for there were too few looks, or cycles"),
        };
    };
    let per_hour = (bound + finds) * 60.0;
    let per_request = per_hour / 3600.0 / report.load.rate_started.max(1e-9);
    let text = match of {
        MEMORY => format!(
            "{of}: a leak of {} B a request, {} an hour",
            units::number(per_request),
            units::bytes_about(per_hour)
        ),
        _ => format!(
            "{of}: one in {} requests, {} an hour",
            units::number((1.0 / per_request).floor()),
            units::number(per_hour)
        ),
    };
    Finding {
        of: of.into(),
        per_request: Some(per_request),
        per_hour: Some(per_hour),
        text,
    }
}
