//! The report as one HTML page that needs nothing else: no script, no font, no picture. It can be
//! sent to someone and opened anywhere.

use maud::{Markup, PreEscaped, Render, html};

use super::plot::Plot;
use super::report::{
    ClassCount, Comparison, Model, Report, Search, ServerUsage, Status, Threshold, ThresholdOutcome,
};
use super::{charts, units, wording};
use crate::escape::EscapedText;

/// How many names the page lists.
const NAMES_LISTED: usize = 100;

/// What stands before the title. Elements are closed as in XML, so that tests can read the page
/// strictly; the policy keeps a browser from running or loading anything, whatever a name holds.
const HEAD: &str = concat!(
    r#"<meta charset="utf-8"/>"#,
    r#"<meta name="viewport" content="width=device-width, initial-scale=1"/>"#,
    r#"<meta http-equiv="Content-Security-Policy" "#,
    r#"content="default-src 'none'; style-src 'unsafe-inline'"/>"#,
    "<style>",
    include_str!("page.css"),
    "</style>",
);

/// A text from outside: controls are shown as such, and maud escapes what HTML takes for its own.
struct Untrusted<'a>(&'a str);

impl Render for Untrusted<'_> {
    fn render_to(&self, buffer: &mut String) {
        EscapedText(self.0).to_string().render_to(buffer);
    }
}

/// Renders a report.
pub fn render(report: &Report) -> String {
    let page = html! {
        (PreEscaped("<!DOCTYPE html>\n"))
        html lang="en" {
            head {
                (PreEscaped(HEAD))
                title { (wording::status(report.verdict.status)) ": carafe soak of " (Untrusted(&report.target)) }
            }
            body {
                (banner(report))
                (search(report.search.as_ref()))
                (keys(report))
                (over_time(report))
                (comparison(report.comparison.as_ref()))
                (latency(report))
                (outcomes(report))
                (thresholds(&report.thresholds))
                (load(report))
                (server(report.server.as_ref()))
                (verification_and_generator(report))
                (notes(report))
                (glossary())
                (footer(report))
            }
        }
    };
    page.into_string()
}

fn banner(report: &Report) -> Markup {
    let verdict = &report.verdict;
    let class = match verdict.status {
        Status::Pass => "pass",
        Status::Fail => "fail",
        Status::NotOffered | Status::Undecided => "unsaid",
    };
    html! {
        header class={ "banner " (class) } {
            h1 { (wording::verdict(verdict)) }
            @if !verdict.reasons.is_empty() {
                ul { @for reason in &verdict.reasons { li { (Untrusted(reason)) } } }
            }
            @if verdict.status == Status::Pass && !verdict.finds.is_empty() {
                p { "It " (wording::FINDS) }
                ul { @for finding in &verdict.finds { li { (finding.text) } } }
            }
            p {
                (Untrusted(&report.target)) ", "
                (units::seconds(report.load.seconds)) ", began " (report.started_at)
            }
            @if let Some(tls) = report.tls { p { (wording::tls(tls)) } }
        }
    }
}

/// The figures that most readers come for: a label, the figure, and what it is to be held against.
fn keys(report: &Report) -> Markup {
    let (load, corrected) = (&report.load, &report.latency.corrected);
    let [p50, _, p99, _, max] = wording::percentiles(corrected);
    let ended = format!("{}/s", units::number(load.rate_ended));
    let asked = match load.rate_asked {
        Some(rate) => format!("of {}/s asked", units::number(rate)),
        None => format!("clients: {}", units::count(load.clients)),
    };
    let failed = report.outcomes.failed();
    let started = report.outcomes.started;
    let share = match failed {
        0 => "none".into(),
        failed => units::share(failed, started),
    };
    let received = units::bytes(load.body_bytes);
    let keys = [
        ("Requests", units::count(started), "started".into()),
        ("Ended", ended, asked),
        ("Errors", units::count(failed), share),
        ("Latency, p50", p50, "corrected".into()),
        ("Latency, p99", p99, format!("max {max}")),
        ("Received", received, wording::throughput(load)),
    ];
    html! {
        dl class="keys" {
            @for (label, figure, against) in keys {
                div { dt { (label) } dd { (figure) } dd { (against) } }
            }
        }
    }
}

fn over_time(report: &Report) -> Markup {
    let plots = charts::of_seconds(report);
    html! {
        section {
            h2 { "Over time" }
            @if plots.is_empty() { p { "The run has no whole second to show." } }
            (grid(&plots))
        }
    }
}

fn grid(plots: &[Plot]) -> Markup {
    html! {
        @if !plots.is_empty() {
            div class="plots" { @for plot in plots { (plot.render()) } }
        }
    }
}

fn latency(report: &Report) -> Markup {
    let latency = &report.latency;
    html! {
        section {
            h2 { "Latency" }
            div class="plots" {
                @if let Some(plot) = charts::histogram(report) { (plot.render()) }
                div {
                    div class="card" {
                        table class="figures" {
                            thead { tr {
                                th {} th { "p50" } th { "p90" } th { "p99" } th { "p99.9" } th { "max" }
                            } }
                            tbody {
                                @for (label, figures) in wording::latencies(latency) {
                                    tr { th { (label) } @for figure in figures { td { (figure) } } }
                                }
                            }
                        }
                    }
                    p class="soft" { (wording::LATENCY_OF) ". " (wording::corrected(report.load.model)) "." }
                    p class="soft" { "Longest silence: " (wording::stall(latency)) "." }
                }
            }
        }
    }
}

fn search(search: Option<&Search>) -> Markup {
    let Some(search) = search else {
        return html! {};
    };
    let rows = wording::steps(search);
    html! {
        section {
            h2 { "Search" }
            ul class="notes" { @for line in wording::search(search) { li { (Untrusted(&line)) } } }
            @if let Some(plot) = charts::of_search(search) { (plot.render()) }
            details {
                summary { "The steps" }
                div class="card" {
                    table {
                        thead { tr { @for cell in &rows[0] { th { (cell) } } } }
                        tbody {
                            @for [phase, figures @ ..] in &rows[1..] {
                                tr { th { (phase) } @for figure in figures { td { (Untrusted(figure)) } } }
                            }
                        }
                    }
                }
            }
            p { "What follows is of the last step." }
        }
    }
}

fn comparison(comparison: Option<&Comparison>) -> Markup {
    let Some(comparison) = comparison else {
        return html! {};
    };
    let rows = wording::differences(comparison);
    html! {
        section {
            h2 { "A or B" }
            (grid(&charts::of_comparison(comparison)))
            div class="card" {
                table class="figures comparison" {
                    thead { tr { @for cell in &rows[0] { th { (Untrusted(cell)) } } } }
                    tbody {
                        @for [label, figures @ ..] in &rows[1..] {
                            tr { th { (label) } @for figure in figures { td { (figure) } } }
                        }
                    }
                }
            }
            @if let Some(server) = &comparison.server {
                p { "The second: " (Untrusted(&wording::server(server))) }
            }
        }
    }
}

fn outcomes(report: &Report) -> Markup {
    let row = |class: &ClassCount| {
        html! {
            tr {
                th {
                    span class=[class.is_failure.then_some("failed")] { (class.class) }
                    @if let Some(sample) = &class.sample { p class="soft" { (Untrusted(sample)) } }
                }
                td class="figure" { (units::count(class.count)) }
            }
        }
    };
    html! {
        section {
            h2 { "What became of the requests" }
            @if report.outcomes.failed() == 0 { p { "No errors." } }
            @if !report.outcomes.classes.is_empty() {
                div class="card" {
                    table {
                        thead { tr { th { "end, with an example" } th class="figure" { "how often" } } }
                        tbody { @for class in &report.outcomes.classes { (row(class)) } }
                    }
                }
            }
        }
    }
}

fn thresholds(thresholds: &[Threshold]) -> Markup {
    let row = |threshold: &Threshold| {
        let failed = threshold.outcome == ThresholdOutcome::Failed;
        html! {
            tr {
                th { code { (Untrusted(&threshold.text)) } }
                td { (Untrusted(&threshold.measured)) }
                td class={ "outcome" @if failed { " failed" } } { (wording::outcome(threshold.outcome)) }
            }
        }
    };
    html! {
        @if !thresholds.is_empty() {
            section {
                h2 { "Thresholds" }
                div class="card" {
                    table {
                        thead { tr { th { "the run fails if" } th { "measured" } th {} } }
                        tbody { @for threshold in thresholds { (row(threshold)) } }
                    }
                }
            }
        }
    }
}

fn load(report: &Report) -> Markup {
    let load = &report.load;
    let [heading, rows @ ..] = wording::asked_and_achieved(load);
    html! {
        section {
            h2 { "Load" }
            p { (wording::model(load.model)) "." }
            div class="card" {
                table {
                    thead { tr { @for cell in heading { th { (cell) } } } }
                    tbody {
                        @for [label, asked, achieved] in rows {
                            tr { th { (label) } td { (asked) } td { (achieved) } }
                        }
                        @if load.model == Model::Open {
                            tr { th { "never started" } td {} td { (units::count(load.never_started)) } }
                            tr { th { "more than 250 ms late" } td {} td { (units::count(load.started_late)) } }
                        }
                        @if let Some(mix) = wording::mix(load) {
                            tr { th { "clients' mix" } td { (mix) } td {} }
                        }
                    }
                }
            }
        }
    }
}

fn server(server: Option<&ServerUsage>) -> Markup {
    let Some(server) = server else {
        return html! {
            section { h2 { "Server" } p { "Its process was not watched; " code { "--pid" } " watches it." } }
        };
    };
    let [heading, rows @ ..] = wording::resources(server);
    html! {
        section {
            h2 { "Server" }
            p { (Untrusted(&wording::server(server))) }
            (grid(&charts::of_server(server)))
            div class="card" {
                table class="figures slopes" {
                    thead { tr { @for cell in heading { th { (cell) } } } }
                    tbody {
                        @for [label, figures @ ..] in rows {
                            tr { th { (label) } @for figure in figures { td { (figure) } } }
                        }
                    }
                }
            }
        }
    }
}

fn verification_and_generator(report: &Report) -> Markup {
    let generator = &report.generator;
    let [p50, _, p99, _, max] = wording::percentiles(&generator.lateness);
    let mut verification = wording::verification(&report.verification);
    verification.push('.');
    html! {
        section {
            h2 { "Verification" }
            p { (Untrusted(&verification)) }
            h2 { "Load generator" }
            p {
                "CPU " (units::number(generator.cpu_percent)) " % of one core, memory "
                (units::bytes(generator.rss_max_bytes)) " at most."
                @if report.load.model == Model::Open {
                    " Requests were sent late by " (p50) " (p50), " (p99) " (p99), " (max) " (max)."
                }
            }
        }
    }
}

fn notes(report: &Report) -> Markup {
    html! {
        @if !report.notes.is_empty() {
            section {
                h2 { "Notes" }
                ul class="notes" { @for note in &report.notes { li { (Untrusted(note)) } } }
            }
        }
    }
}

fn glossary() -> Markup {
    html! {
        section {
            h2 { "Words" }
            dl class="glossary" {
                @for (word, meaning) in wording::GLOSSARY { dt { (word) } dd { (meaning) } }
            }
        }
    }
}

fn footer(report: &Report) -> Markup {
    let names = report.names.iter().take(NAMES_LISTED);
    html! {
        footer class="soft" {
            p { "Started as " code { (Untrusted(&report.command)) } }
            p { "carafe " (report.carafe) ", " code { "--seed " (report.seed) } " replays the run's choices." }
            details {
                summary {
                    (units::count(report.names_total as u64)) " names were asked for"
                    @if names.len() < report.names_total { "; the first " (names.len()) " of them" }
                }
                ul class="notes" { @for name in names { li { (Untrusted(name)) } } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures;
    use super::super::plot::Shape;
    use super::super::report::{Report, Second};
    use super::*;

    /// Reads the page strictly, and gives its text.
    fn text_of(report: &Report) -> String {
        let page = render(report);
        let options = roxmltree::ParsingOptions {
            allow_dtd: true,
            ..Default::default()
        };
        let document = roxmltree::Document::parse_with_options(&page, options)
            .unwrap_or_else(|error| panic!("{error}\n{page}"));
        for node in document.descendants().filter(|node| node.is_element()) {
            let name = node.tag_name().name();
            assert!(
                !["script", "img", "link", "iframe", "a"].contains(&name),
                "<{name}>"
            );
            for attribute in node.attributes() {
                let (key, value) = (attribute.name(), attribute.value());
                assert!(
                    !key.starts_with("on") && !["src", "href"].contains(&key),
                    "{key}"
                );
                assert!(
                    !value.contains("NaN") && !value.contains("inf"),
                    "{key}={value}"
                );
            }
        }
        assert!(!page.contains("url("));
        let texts = document.descendants().filter(|node| node.is_text());
        texts.filter_map(|node| node.text()).collect()
    }

    #[test]
    fn the_page_is_well_formed_and_holds_the_figures() {
        let text = text_of(&fixtures::report());
        for part in [
            "FAIL",
            "errors>0: there were 63",
            "4,822/s",
            "of 5,000/s asked",
            "reset_before_first_byte",
            "photos/dog.jpg: ended after 65536 of 148213 bytes",
            "61.2 ms",
            "2.30 s, from 70.1 s on",
            "fast 80 %, slow 15 %, idle 5 %",
            "737.3 KiB (675.8 KiB to 798.7 KiB)",
            "0 corrupt, 2 short",
            "not enough data",
            "--seed 10177104022274072153",
            "The server's descriptors",
            "接收.txt",
            "carafe soak 127.0.0.1:7890 --rate 5000 'a b'",
            "coordinated omission",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
    }

    #[test]
    fn a_search_has_its_steps_and_their_plot() {
        let text = text_of(&fixtures::search());
        for part in [
            "the highest rate that holds: 5020/s (99 %: 4900 to 5150)",
            "crossed at 5,050/s on the way up, at 4,990/s from above",
            "4,900/s held with its whole interval",
            "Steps of the search",
            "p99 3 ms, errors 0",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
    }

    #[test]
    fn nothing_is_a_page_as_well() {
        let text = text_of(&fixtures::empty());
        assert!(
            text.contains("NOT OFFERED (cut short by a signal)"),
            "{text}"
        );
        assert!(text.contains("would not be noticed"), "{text}");
        assert!(text.contains("not watched"), "{text}");
    }

    #[test]
    fn markup_from_outside_is_text() {
        let page = render(&fixtures::hostile());
        assert!(!page.contains("<script") && !page.contains("http://"));
        let text = text_of(&fixtures::hostile());
        assert!(
            text.contains(r#""<script>alert('&')</script>\x1b[2J\x0a"#),
            "{text}"
        );
    }

    #[test]
    fn odd_runs_are_pages_too() {
        let mut report = fixtures::report();
        report.seconds = vec![Second::default()];
        report.latency.histogram = vec![(0, 0, 1), (u64::MAX / 2, u64::MAX, 1)];
        report.load.seconds = f64::MIN_POSITIVE;
        if let Some(server) = &mut report.server {
            server.samples.truncate(1);
            server.rss.before = f64::NAN;
        }
        text_of(&report);
        if let Some(server) = &mut report.server {
            server.samples.clear();
        }
        text_of(&report);
    }

    #[test]
    fn a_part_of_a_second_is_no_point() {
        let mut report = fixtures::report();
        let second = report.seconds[0];
        report.seconds = (0..4).map(|at| Second { at, ..second }).collect();
        let points = |report: &Report| {
            let plots = charts::of_seconds(report);
            let plot = plots
                .into_iter()
                .find(|plot| plot.title == "Requests a second");
            let marks = plot.map(|plot| plot.marks).unwrap_or_default();
            let lines = marks.iter().filter_map(|mark| match &mark.2 {
                Shape::Line(points) => Some(points.len()),
                _ => None,
            });
            lines.max()
        };
        report.load.seconds = 4.0;
        assert_eq!(points(&report), Some(4));
        report.load.seconds = 3.2;
        assert_eq!(points(&report), Some(3));
        report.seconds.truncate(1);
        assert_eq!(points(&report), Some(1));
    }

    #[test]
    fn a_day_makes_no_larger_page_than_ten_minutes() {
        let mut report = fixtures::report();
        let second = report.seconds[0];
        report.seconds = (0..86_400).map(|at| Second { at, ..second }).collect();
        let size = render(&report).len();
        assert!(size < 150_000, "{size} bytes");
        assert!(text_of(&report).contains("Each point is 144 s"));
    }
}
