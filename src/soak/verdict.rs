//! What a report means: the thresholds, what a reader should know before believing a figure, and
//! the run in one word.

use std::time::Duration;

use super::outcome::Class;
use super::report::{Against, Finding, Model, Report, Status, Threshold, ThresholdOutcome};
use super::threshold::Conditions;
use super::wording;
use crate::limits::{SOAK_LATE_MAX, SOAK_MISSING_SHARE_MAX};

/// A silence that is shorter is nothing to speak of.
const SILENCE_MIN_US: u64 = 100_000;

/// What a closed model hides of its p99 is nothing to speak of when it is less.
const HIDDEN_MIN_US: u64 = 10_000;

/// The loop's thread is as good as busy all the time.
const BUSY_PERCENT: f64 = 90.0;

/// Fills in thresholds, notes and verdict.
pub fn judge(report: &mut Report, conditions: &Conditions) {
    report.thresholds = conditions.evaluate(report);
    report.notes = notes(report);
    let failed = report
        .thresholds
        .iter()
        .filter(|threshold| threshold.outcome == ThresholdOutcome::Failed);
    let mut reasons: Vec<String> = failed
        .map(|threshold| format!("{}: {}", threshold.text, threshold.measured))
        .collect();
    let other = report.comparison.as_ref();
    let other = other.and_then(|comparison| comparison.server.as_ref());
    for (whose, server) in [("the", &report.server.as_ref()), ("the second", &other)] {
        if server.is_some_and(|server| server.died) {
            reasons.push(format!("{whose} server's process ended during the run"));
        }
    }
    let not_offered = not_offered(report);
    let undecided = undecided(report);
    report.verdict.status = if !reasons.is_empty() {
        Status::Fail
    } else if not_offered.is_some() {
        Status::NotOffered
    } else if !undecided.is_empty() {
        Status::Undecided
    } else {
        Status::Pass
    };
    reasons.extend(not_offered);
    reasons.extend(undecided);
    report.verdict.reasons = reasons;
    report.verdict.finds = finds(&report.thresholds);
}

/// The least fault of each kind that a condition would have found.
fn finds(thresholds: &[Threshold]) -> Vec<Finding> {
    let mut least: Vec<Finding> = Vec::new();
    for finding in thresholds
        .iter()
        .filter_map(|threshold| threshold.finding.as_ref())
    {
        let size = |finding: &Finding| finding.per_request.unwrap_or(f64::INFINITY);
        match least.iter_mut().find(|found| found.of == finding.of) {
            Some(found) if size(finding) < size(found) => *found = finding.clone(),
            Some(_) => {}
            None => least.push(finding.clone()),
        }
    }
    least
}

/// What the run can't tell, and what would.
fn undecided(report: &Report) -> Vec<String> {
    let (outcomes, verification) = (&report.outcomes, &report.verification);
    let thresholds = report.thresholds.iter().filter_map(|threshold| {
        let Threshold { text, measured, .. } = threshold;
        match threshold.outcome {
            ThresholdOutcome::Undecided => {
                let longer = wording::longer(threshold, report);
                Some(format!("{text}: {measured}; {longer}"))
            }
            ThresholdOutcome::NotEnoughData if !threshold.is_optional => {
                Some(format!("{text}: not enough data; a longer run has more"))
            }
            _ => None,
        }
    });
    let mut reasons: Vec<_> = thresholds.collect();
    let search = report.search.as_ref();
    if let Some(search) = search.filter(|search| search.held.is_none() && search.capacity.is_some())
    {
        reasons.push(format!(
            "{}: no rate held for sure; longer steps (-z) may tell",
            search.condition
        ));
    }
    // Clients that break off, and those that say nothing, complete nothing.
    let mut kinds = report.load.mix.iter();
    let completes = kinds.any(|(kind, share)| *share > 0.0 && kind != "abort" && kind != "idle");
    if completes && outcomes.count(Class::Complete) == 0 {
        reasons.push("nothing was complete".into());
    } else if completes && verification.bodies == 0 && verification.against != Against::Nothing {
        reasons.push("nothing was compared".into());
    }
    if let [name, others @ ..] = &outcomes.never_complete[..] {
        let more = match others.len() {
            0 => String::new(),
            more => format!(", nor {more} more"),
        };
        reasons.push(format!("'{name}' never came{more}"));
    }
    reasons
}

/// Failures that are not the server's.
const OURS: [Class; 2] = [Class::OutOfPorts, Class::OutOfDescriptors];

/// Whether the generator was as good as busy all the time.
pub(super) fn busy(report: &Report) -> Option<String> {
    let percent = report.generator.cpu_percent;
    (percent >= BUSY_PERCENT).then(|| format!("the generator used {percent:.0} % of its core"))
}

/// Whether the load that was asked for was there; else why not.
pub(super) fn not_offered(report: &Report) -> Option<String> {
    let load = &report.load;
    let started = report.outcomes.started;
    if let Some(why) = report
        .search
        .as_ref()
        .and_then(|search| search.not_offered.clone())
    {
        return Some(why);
    }
    if !report.missing_parts.is_empty() {
        let missing: Vec<_> = report.missing_parts.iter().map(u64::to_string).collect();
        return Some(format!(
            "the load was not offered: of its parts these are missing: {}",
            missing.join(", ")
        ));
    }
    let mut classes = report.outcomes.classes.iter();
    if let Some(ours) = classes.find(|found| OURS.iter().any(|class| class.as_str() == found.class))
    {
        return Some(format!(
            "the load was not offered: {} requests were {} on this side",
            ours.count,
            ours.class.replace('_', " ")
        ));
    }
    if started == 0 {
        return Some("the load was not offered: nothing was started".into());
    }
    let due = started + load.never_started;
    let missing = (load.never_started + load.started_late) as f64 / due as f64;
    if load.model == Model::Closed || missing <= SOAK_MISSING_SHARE_MAX {
        return unverified(report);
    }
    let why = if load.clients_max >= load.clients {
        format!(
            "{} requests were under way, the most that --clients or the descriptors allow",
            load.clients
        )
    } else {
        format!(
            "the generator used {:.0} % of its core",
            report.generator.cpu_percent
        )
    };
    Some(format!(
        "the load was not offered: of {due} arrivals that were due, {} were never started and {} more than \
         {} ms late; {why}",
        load.never_started,
        load.started_late,
        SOAK_LATE_MAX.as_millis()
    ))
}

/// Whether bodies that were to be compared were not.
fn unverified(report: &Report) -> Option<String> {
    let complete = report.outcomes.count(Class::Complete);
    let unchecked = complete.saturating_sub(report.verification.bodies);
    let checks = !matches!(report.verification.against, Against::Nothing);
    (checks && unchecked > 0).then(|| {
        format!(
            "{unchecked} bodies were compared with nothing: the first download of their name had failed, \
             or the file could not be opened"
        )
    })
}

fn notes(report: &Report) -> Vec<String> {
    let mut notes = Vec::new();
    if report
        .comparison
        .as_ref()
        .is_some_and(|two| two.is_of_two_runs)
    {
        notes.push(wording::TWO_RUNS.into());
    }
    let (latency, load) = (&report.latency, &report.load);
    if matches!(report.verification.against, Against::Nothing) {
        notes.push(
            "bodies were compared with nothing, so a wrong byte would not be noticed: --verify or --against DIR \
             compares them"
                .into(),
        );
    }
    if load.seconds < load.ramp_seconds {
        notes.push("the run was over before its ramp was: the full load was never reached".into());
    }
    if let again @ 1.. = report.outcomes.asked_again {
        notes.push(format!(
            "{again} requests were sent a second time: the server had closed, without an answer, the connection \
             that it had kept (asked_again>0 fails a run by it)"
        ));
    }
    let silence = latency.longest_silence_us;
    if silence >= SILENCE_MIN_US && silence >= 10 * latency.total.p50 {
        notes.push(format!(
            "silence: for {} from second {:.1} on, clients waited and nobody received a byte",
            time(silence),
            latency.longest_silence_at_us as f64 / 1e6
        ));
    }
    let (raw, corrected) = (latency.total.p99, latency.corrected.p99);
    let hides = corrected >= 2 * raw && corrected - raw >= HIDDEN_MIN_US;
    if load.model == Model::Closed && hides {
        notes.push(format!(
            "coordinated omission: clients of a closed model wait with the server, so that their p99 of {} hides \
             what others would have seen, {} (corrected); --rate measures it",
            time(latency.total.p99),
            time(latency.corrected.p99)
        ));
    }
    let lateness = report.generator.lateness.p99;
    if lateness >= 1000 && lateness >= latency.corrected.p50 / 10 {
        notes.push(format!(
            "one request in a hundred was sent {} late or later; that is in the corrected latency",
            time(lateness)
        ));
    }
    if report.generator.cpu_percent >= BUSY_PERCENT {
        notes.push(format!(
            "the generator used {:.0} % of its core: it, and not the server, may be what limits the rate",
            report.generator.cpu_percent
        ));
    }
    let has_split = load.mix.iter().any(|(kind, _)| kind == "split");
    let is_bare = !report.target.starts_with("http://");
    if has_split && is_bare && !matches!(report.verification.against, Against::Folder(_)) {
        notes.push(
            "split clients: without --against it isn't known whether a name's beginning names another file, \
             which a server may rightly serve"
                .into(),
        );
    }
    notes
}

fn time(us: u64) -> String {
    let time = Duration::from_micros(us);
    format!("{time:.1?}")
}
