//! The report as a pipeline reads it: JUnit's XML, a test case for each threshold, and a summary in Markdown.

use std::fmt::Write as _;
use std::io;
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;
use jiff::Timestamp;
use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};

use super::report::{Comparison, Model, Report, Status, Threshold, ThresholdOutcome};
use super::{units, wording};
use crate::escape::EscapedText;

/// The case that stands for the run as a whole.
const RUN: &str = "the run";

/// Renders JUnit's XML. What can't be told is an error, as it is no pass: pipelines tell it from a failure.
pub fn junit(report: &Report) -> io::Result<Vec<u8>> {
    let mut suite = TestSuite::new(format!(
        "carafe soak {}",
        EscapedText(&wording::subject(report))
    ));
    suite.add_test_cases(report.thresholds.iter().map(|threshold| {
        let status = match threshold.outcome {
            ThresholdOutcome::Held => TestCaseStatus::success(),
            ThresholdOutcome::NotEnoughData if threshold.is_optional => TestCaseStatus::skipped(),
            ThresholdOutcome::Failed => not_passed(NonSuccessKind::Failure, &measured(threshold)),
            _ => not_passed(NonSuccessKind::Error, &measured(threshold)),
        };
        TestCase::new(EscapedText(&threshold.text).to_string(), status)
    }));
    let reasons = report.verdict.reasons.join("; ");
    let status = match report.verdict.status {
        Status::Pass => TestCaseStatus::success(),
        Status::Fail => not_passed(NonSuccessKind::Failure, &reasons),
        Status::NotOffered | Status::Undecided => not_passed(NonSuccessKind::Error, &reasons),
    };
    let mut run = TestCase::new(RUN, status);
    run.set_time(Duration::try_from_secs_f64(report.load.seconds).unwrap_or_default());
    if let Some(tls) = report.tls {
        run.set_system_out(wording::tls(tls));
    }
    suite.add_test_case(run);
    let mut whole = quick_junit::Report::new("carafe soak");
    whole.add_test_suite(suite);
    let xml = whole.to_string().map_err(io::Error::other)?;
    Ok(xml.into_bytes())
}

/// Renders HdrHistogram's interval log: the run's stretches.
pub fn interval_log(report: &Report) -> io::Result<Vec<u8>> {
    let began = SystemTime::from(
        report
            .started_at
            .parse::<Timestamp>()
            .map_err(io::Error::other)?,
    );
    let mut text = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .with_start_time(began)
        .with_base_time(began)
        .with_max_value_divisor(1e3)
        .begin_log_with(&mut text, &mut serializer)?;
    log.write_comment(
        "microseconds, of complete downloads; the maxima beside them in milliseconds",
    )?;
    for stretch in &report.stretches {
        let time = |seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let (from, took) = (time(stretch.from), time(stretch.to - stretch.from));
        log.write_histogram(&stretch.times, from, took, None)
            .map_err(io::Error::other)?;
    }
    Ok(text)
}

fn not_passed(kind: NonSuccessKind, why: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind);
    status.set_message(EscapedText(why).to_string());
    status
}

fn measured(threshold: &Threshold) -> String {
    format!(
        "{}: {}",
        wording::outcome(threshold.outcome),
        threshold.measured
    )
}

/// A text as Markdown shows it: every mark of ASCII may have a backslash before it (CommonMark 2.4).
fn plain(text: &str) -> String {
    let text = EscapedText(text).to_string();
    let marked = text.chars().flat_map(|char| {
        let backslash = char.is_ascii_punctuation().then_some('\\');
        backslash.into_iter().chain([char])
    });
    marked.collect()
}

/// Renders a summary in Markdown, for the page of a pipeline's step.
pub fn summary(report: &Report) -> io::Result<Vec<u8>> {
    let verdict = wording::verdict(&report.verdict);
    let subject = plain(&wording::subject(report));
    let mut text = format!("## {verdict}: carafe soak {subject}\n\n");
    for reason in &report.verdict.reasons {
        line(&mut text, format_args!("- {}", plain(reason)));
    }
    if report.verdict.status == Status::Pass && !report.verdict.finds.is_empty() {
        line(&mut text, format_args!("It {}\n", wording::FINDS));
        for finding in &report.verdict.finds {
            line(&mut text, format_args!("- {}", plain(&finding.text)));
        }
    }
    for found in report.search.iter().flat_map(wording::search) {
        line(&mut text, format_args!("- {}", plain(&found)));
    }
    let (load, latency) = (&report.load, &report.latency);
    let asked = match load.model {
        Model::Open => load
            .rate_asked
            .map(|rate| format!("{}/s asked", units::number(rate))),
        Model::Closed => Some(format!("{} clients", units::count(load.clients))),
    };
    line(
        &mut text,
        format_args!(
            "\n{} requests in {}: {}/s ended, {}; {} failed\n",
            units::count(report.outcomes.started),
            units::seconds(load.seconds),
            units::number(load.rate_ended),
            asked.unwrap_or_default(),
            units::count(report.outcomes.failed()),
        ),
    );
    line(
        &mut text,
        format_args!("| latency | p50 | p90 | p99 | p99.9 | max |\n|---|--:|--:|--:|--:|--:|"),
    );
    for (label, figures) in wording::latencies(latency) {
        line(
            &mut text,
            format_args!("| {label} | {} |", figures.join(" | ")),
        );
    }
    if let Some(comparison) = &report.comparison {
        differences(&mut text, comparison);
    }
    line(
        &mut text,
        format_args!("\n| the run fails if | measured | |\n|---|---|---|"),
    );
    for threshold in &report.thresholds {
        line(
            &mut text,
            format_args!(
                "| {} | {} | {} |",
                plain(&threshold.text),
                plain(&threshold.measured),
                wording::outcome(threshold.outcome)
            ),
        );
    }
    if let Some(tls) = report.tls {
        line(&mut text, format_args!("\n{}.", plain(&wording::tls(tls))));
    }
    let verification = plain(&wording::verification(&report.verification));
    line(
        &mut text,
        format_args!("\n{verification}. Seed {}.", report.seed),
    );
    Ok(text.into_bytes())
}

/// The table of what differs.
fn differences(text: &mut String, comparison: &Comparison) {
    let mut rows = wording::differences(comparison).into_iter();
    let row = |text: &mut String, cells: [String; 5]| {
        let cells = cells.each_ref().map(|cell| plain(cell));
        line(text, format_args!("| {} |", cells.join(" | ")));
    };
    text.push('\n');
    if let Some(heading) = rows.next() {
        row(text, heading);
        line(text, format_args!("|---|--:|--:|--:|--:|"));
    }
    rows.for_each(|cells| row(text, cells));
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string takes all that is written");
}

#[cfg(test)]
mod tests {
    use super::super::fixtures;
    use super::*;

    fn text(of: fn(&Report) -> io::Result<Vec<u8>>, report: &Report) -> String {
        String::from_utf8(of(report).expect("a report")).expect("UTF-8")
    }

    #[test]
    fn each_threshold_is_a_test_case() {
        let xml = text(junit, &fixtures::report());
        let document = roxmltree::Document::parse(&xml).expect("XML");
        let cases: Vec<_> = document
            .descendants()
            .filter(|node| node.has_tag_name("testcase"))
            .map(|case| {
                let inner = case.children().find(|child| child.is_element());
                let status = inner.map_or("", |inner| inner.tag_name().name());
                (
                    case.attribute("name").unwrap_or_default().to_owned(),
                    status.to_owned(),
                )
            })
            .collect();
        let expected = [
            ("errors>0", "failure"),
            ("p99>50ms", "failure"),
            ("fd_left>0", ""),
            ("rss_slope>1MiB/min", "error"),
            (RUN, "failure"),
        ];
        assert_eq!(
            cases,
            expected.map(|(name, status)| (name.to_owned(), status.to_owned()))
        );
        let suite = document
            .descendants()
            .find(|node| node.has_tag_name("testsuite"));
        let count = |name| suite.and_then(|suite| suite.attribute(name));
        assert_eq!(
            (count("tests"), count("failures"), count("errors")),
            (Some("5"), Some("3"), Some("1"))
        );
    }

    #[test]
    fn the_summary_has_the_verdict_first_and_the_figures() {
        let text = text(summary, &fixtures::report());
        assert!(
            text.starts_with("## FAIL: carafe soak 127\\.0\\.0\\.1\\:7890\n\n- errors\\>0"),
            "{text}"
        );
        for part in [
            "| corrected | 1.08 ms | 2.30 ms | 61.2 ms |",
            "| p99\\>50ms | 61\\.2 ms | FAILED |",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
    }

    #[test]
    fn nothing_from_outside_is_markup() {
        let report = fixtures::hostile();
        let xml = text(junit, &report);
        roxmltree::Document::parse(&xml).expect("XML");
        let markdown = text(summary, &report);
        assert!(
            !markdown.contains("<script>") && !markdown.contains('\x1b'),
            "{markdown}"
        );
        let rows = |report: &Report| text(summary, report).lines().count();
        assert_eq!(rows(&report), rows(&fixtures::report()));
    }
}
