//! The report as plain text, for a terminal or a pipe: the verdict first, then what it rests on.

use super::report::{
    ClassCount, Comparison, Load, Model, Percentiles, Report, Search, ServerUsage, Status,
};
use super::{units, wording};
use crate::escape::EscapedText;

/// How many reasons and notes are shown, and how many characters of a sample: the JSON has the
/// rest, and the whole fits on a screen.
const REASONS_SHOWN: usize = 5;
const SAMPLE_CHARS: usize = 100;

/// The width of the labels at the left, with the space after them.
const LABEL_WIDTH: usize = 14;

type Lines = Vec<String>;

/// Renders a report. Every line ends in LF, and nothing that came from outside can steer a
/// terminal.
pub fn render(report: &Report) -> String {
    let blank = || vec![String::new()];
    let sections = [
        verdict(report),
        blank(),
        labelled("Run", run(report)),
        labelled("Search", search(report.search.as_ref())),
        labelled("Load", load(&report.load)),
        blank(),
        labelled("Requests", requests(report)),
        labelled("Errors", errors(report)),
        blank(),
        labelled("Latency", latency(report)),
        blank(),
        labelled("Verification", verification(report)),
        labelled("Generator", generator(report)),
        labelled("Server", server(report.server.as_ref())),
        labelled("A or B", comparison(report.comparison.as_ref())),
        labelled("Thresholds", thresholds(report)),
        labelled("Notes", listed(&report.notes)),
        labelled("Seed", vec![format!("--seed {}", report.seed)]),
    ];
    let lines = sections.concat();
    let lines = lines.iter().map(|line| EscapedText(line.trim_end()));
    lines.map(|line| format!("{line}\n")).collect()
}

/// Sets lines to the right of a label.
fn labelled(label: &str, lines: Lines) -> Lines {
    let labels = std::iter::once(label).chain(std::iter::repeat(""));
    let lines = labels.zip(lines);
    lines
        .map(|(label, line)| format!("{label:<LABEL_WIDTH$}{line}"))
        .collect()
}

/// Lines of cells in columns, one character of `align` for each: `<` or `>`.
fn columns<const N: usize>(align: &str, rows: &[[String; N]]) -> Lines {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).zip(align.chars());
        let cells = cells.map(|((cell, width), align)| match align {
            '>' => format!("{cell:>width$}"),
            _ => format!("{cell:<width$}"),
        });
        cells.collect::<Vec<_>>().join("  ")
    };
    rows.iter().map(line).collect()
}

/// The first of them, and how many more there are.
fn listed(items: &[String]) -> Lines {
    let mut lines: Lines = items.iter().take(REASONS_SHOWN).cloned().collect();
    if let more @ 1.. = items.len().saturating_sub(REASONS_SHOWN) {
        lines.push(format!("and {more} more"));
    }
    lines
}

fn verdict(report: &Report) -> Lines {
    let reasons = listed(&report.verdict.reasons);
    let mut lines = vec![wording::verdict(&report.verdict)];
    lines.extend(reasons.iter().map(|reason| format!("  {reason}")));
    let finds = &report.verdict.finds;
    if report.verdict.status == Status::Pass && !finds.is_empty() {
        lines.push(format!("  {}", wording::FINDS));
        lines.extend(finds.iter().map(|finding| format!("  - {}", finding.text)));
    }
    lines
}

fn run(report: &Report) -> Lines {
    let seconds = units::seconds(report.load.seconds);
    let mut lines = vec![
        format!("{}: {}", report.target, wording::names(report)),
        format!("{seconds}, began {}", report.started_at),
    ];
    lines.extend(report.tls.map(wording::tls));
    lines
}

fn search(search: Option<&Search>) -> Lines {
    let Some(search) = search else {
        return Lines::new();
    };
    let mut lines = wording::search(search);
    let mut steps = wording::steps(search);
    steps.retain(|[phase, ..]| phase != "walk");
    lines.extend(columns("<><<", &steps));
    lines.push(
        "the walk's steps are in --json and --report; what follows is of the last step".into(),
    );
    lines
}

fn load(load: &Load) -> Lines {
    let mut lines = vec![wording::model(load.model).to_owned()];
    let rows = wording::asked_and_achieved(load);
    lines.extend(columns("<<<", &rows));
    if load.model == Model::Open {
        let [never, late] = [load.never_started, load.started_late].map(units::count);
        lines.push(format!(
            "arrivals that were due and never started: {never}; more than 250 ms late: {late}"
        ));
    }
    lines.extend(wording::mix(load).map(|mix| format!("mix: {mix}")));
    lines
}

fn requests(report: &Report) -> Lines {
    let classes = report.outcomes.classes.iter();
    let good = classes.filter(|class| !class.is_failure);
    let good: Vec<_> = good
        .map(|class| format!("{} {}", units::count(class.count), class.class))
        .collect();
    let started = units::count(report.outcomes.started);
    let line = format!("{started} started: {}", good.join(", "));
    vec![line.trim_end_matches([':', ' ']).to_owned()]
}

fn errors(report: &Report) -> Lines {
    let row = |class: &ClassCount| {
        let sample = class.sample.as_deref().unwrap_or_default();
        [
            units::count(class.count),
            class.class.to_string(),
            cut(sample),
        ]
    };
    let rows: Vec<_> = report.outcomes.failures().map(row).collect();
    if rows.is_empty() {
        return vec!["no errors".into()];
    }
    let failed = report.outcomes.failed();
    let share = units::share(failed, report.outcomes.started);
    let mut lines = vec![format!("{}, {share}", units::count(failed))];
    lines.extend(columns("><<", &rows));
    lines
}

fn cut(sample: &str) -> String {
    match sample.char_indices().nth(SAMPLE_CHARS) {
        Some((end, _)) => format!("{}…", &sample[..end]),
        None => sample.into(),
    }
}

fn latency(report: &Report) -> Lines {
    let latency = &report.latency;
    let heading = ["", "p50", "p90", "p99", "p99.9", "max"].map(Into::into);
    let rows = wording::latencies(latency)
        .into_iter()
        .map(|(label, [p50, p90, p99, p999, max])| [label.into(), p50, p90, p99, p999, max]);
    let rows: Vec<_> = std::iter::once(heading).chain(rows).collect();
    let mut lines = columns("<>>>>>", &rows);
    lines.push(wording::LATENCY_OF.into());
    lines.push(wording::corrected(report.load.model).into());
    lines.push(format!("longest silence: {}", wording::stall(latency)));
    lines
}

fn verification(report: &Report) -> Lines {
    vec![wording::verification(&report.verification)]
}

fn generator(report: &Report) -> Lines {
    let generator = &report.generator;
    let cpu = units::number(generator.cpu_percent);
    let rss = units::bytes(generator.rss_max_bytes);
    let mut lines = vec![format!("CPU {cpu} % of one core, memory {rss} at most")];
    if report.load.model == Model::Open {
        lines.push(lateness(&generator.lateness));
    }
    lines
}

fn lateness(lateness: &Percentiles) -> String {
    let [p50, p90, p99, p999, max] = wording::percentiles(lateness);
    format!("sent late by: p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p999}, max {max}")
}

fn server(server: Option<&ServerUsage>) -> Lines {
    let Some(server) = server else {
        return vec!["not watched; --pid watches it".into()];
    };
    let mut lines = vec![wording::server(server)];
    let rows = wording::resources(server);
    lines.extend(columns("<>>>>", &rows));
    lines
}

fn comparison(comparison: Option<&Comparison>) -> Lines {
    let Some(comparison) = comparison else {
        return Lines::new();
    };
    let mut lines = columns("<>>>>", &wording::differences(comparison));
    if comparison.differences.is_empty() {
        lines.push("too short a run to compare anything else".into());
    }
    let mut other = comparison.server.iter();
    lines.extend(
        other
            .next()
            .map(|server| format!("the second: {}", wording::server(server))),
    );
    lines
}

fn thresholds(report: &Report) -> Lines {
    let rows = report.thresholds.iter().map(|threshold| {
        let outcome = wording::outcome(threshold.outcome).into();
        [outcome, threshold.text.clone(), threshold.measured.clone()]
    });
    columns("<<<", &rows.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::super::fixtures;
    use super::super::outcome::Class;
    use super::super::report::{Against, Status};
    use super::*;

    #[test]
    fn the_verdict_is_first_and_the_figures_follow() {
        let text = render(&fixtures::report());
        assert!(
            text.starts_with("FAIL\n  errors>0: there were 63\n"),
            "{text}"
        );
        for part in [
            "127.0.0.1:7890: a.txt, photos/dog.jpg, big.bin and 247 more",
            "1,000 at most",
            "never started: 17",
            "mix: fast 80 %, slow 15 %, idle 5 %",
            "12  reset_before_first_byte  a.txt: Connection reset by peer",
            "corrected   1.08 ms  2.30 ms  61.2 ms   1.40 s  2.90 s",
            "longest silence: 2.30 s, from 70.1 s on",
            "0 corrupt, 2 short",
            "sent late by: p50 38 µs",
            "carafe (pid 4711), CPU 87 % of one core",
            "737.3 KiB (675.8 KiB to 798.7 KiB)",
            "FAILED           p99>50ms",
            "not enough data  rss_slope>1MiB/min",
            "--seed 10177104022274072153",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
    }

    #[test]
    fn a_search_has_its_steps() {
        let text = render(&fixtures::search());
        for part in [
            "Search        p99<50ms,errors<=0, from 1,000/s to 50,000/s, in 4 steps\n",
            "climb  8,000/s  FAILED  p99 4000 ms, errors 0\n",
            "hold   4,900/s  held    p99 40 ms, errors 0\n",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
    }

    #[test]
    fn nothing_is_said_to_be_nothing() {
        let text = render(&fixtures::empty());
        assert!(
            text.starts_with("NOT OFFERED (cut short by a signal)\n"),
            "{text}"
        );
        for part in [
            "0 started\n",
            "no errors",
            "would not be noticed",
            "not watched",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        assert!(!text.contains("sent late"), "{text}");
    }

    #[test]
    fn nothing_steers_a_terminal() {
        let text = render(&fixtures::hostile());
        let lines = render(&fixtures::report()).lines().count();
        assert_eq!(text.lines().count(), lines, "{text}");
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text}");
        assert!(!text.contains('\u{202e}'), "{text}");
    }

    #[test]
    fn the_worst_run_still_fits_on_a_screen() {
        let mut report = fixtures::report();
        report.verdict.status = Status::NotOffered;
        report.verdict.reasons = vec!["a reason".into(); 20];
        report.notes = vec!["a note".into(); 20];
        report.verification.against = Against::Folder("files".into());
        let sample = Some("a long sample ".repeat(100));
        let classes = Class::ALL.iter().map(|class| ClassCount {
            class: class.as_str().into(),
            is_failure: class.is_failure(),
            count: 1_000_000,
            sample: sample.clone(),
        });
        report.outcomes.classes = classes.collect();
        let text = render(&report);
        assert!(text.lines().count() <= 62, "{text}");
        assert!(text.contains("and 15 more"), "{text}");
        assert!(
            text.lines().all(|line| line.chars().count() < 160),
            "{text}"
        );
    }
}
