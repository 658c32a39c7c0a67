//! The dashboard and the alert rules in packaging/: what they ask for is what the metrics are.

use std::collections::BTreeSet;
use std::process::Command;

use crate::authority::Authority;
use crate::common::{exchange, root_with, skip, until};
use crate::scrape::{get, metrics_of};
use regex::Regex;
use serde_json::Value;

const DASHBOARD: &str = include_str!("../../packaging/grafana-dashboard.json");
const ALERTS: &str = include_str!("../../packaging/alerts.yml");

/// What the dashboard asks for.
fn queries_of_dashboard() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array());
    let queries = targets
        .flatten()
        .map(|target| target["expr"].as_str().unwrap().to_owned());
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let definitions = variables.filter_map(|variable| variable["definition"].as_str());
    let definitions = definitions.map(|text| text.to_owned());
    queries.chain(definitions).collect()
}

/// What the rules ask for.
fn queries_of_alerts() -> Vec<String> {
    let lines = ALERTS
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr: "));
    lines.map(str::to_owned).collect()
}

/// A metrics page with everything in it: names of samples, and which label has which value.
fn page() -> (BTreeSet<String>, BTreeSet<(String, String, String)>) {
    let root = root_with(&[("small", "small bytes")]);
    let authority = Authority::new();
    authority.sign("a", &["localhost"], (2040, 1, 1));
    let outer = tempfile::tempdir().unwrap();
    let log = outer.path().join("log");
    let flags = [
        "--metrics",
        "127.0.0.1:0",
        "--access-log",
        log.to_str().unwrap(),
    ];
    let carafe = authority.serve(root.path(), &["a"], &flags);
    let metrics = metrics_of(&carafe);
    let mut page = String::new();
    // Where a reply's time went is shown of those that there were.
    exchange(carafe.addr(), b"small\n").unwrap();
    until("the reply is counted", || {
        page = get(metrics, "/metrics").1;
        page.contains("carafe_reply_phase_duration_seconds")
    });
    let label = Regex::new(r#"([a-z]+)="([^"]*)""#).unwrap();
    let (mut names, mut labels) = (BTreeSet::new(), BTreeSet::new());
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        names.insert(name.to_owned());
        for pair in label.captures_iter(line) {
            labels.insert((name.to_owned(), pair[1].to_owned(), pair[2].to_owned()));
        }
    }
    carafe.stop_clean();
    (names, labels)
}

/// What Prometheus adds to each sample.
const ADDED: [&str; 2] = ["job", "instance"];

#[test]
fn dashboard_and_alerts_ask_for_what_there_is() {
    let (names, labels) = page();
    let metric = Regex::new(r"\b((?:carafe|process)_[a-z_]+)(?:\{([^}]*)\})?").unwrap();
    let matcher = Regex::new(r#"([a-z]+)(=|!=|=~|!~)"([^"]*)""#).unwrap();
    let by = Regex::new(r"by \(([a-z, ]+)\)").unwrap();
    let [dashboard, alerts] = [queries_of_dashboard(), queries_of_alerts()];
    assert!(dashboard.len() > 12 && alerts.len() == ALERTS.matches("- alert: ").count());
    let mut asked = BTreeSet::new();
    for query in dashboard.iter().chain(&alerts) {
        for found in metric.captures_iter(query) {
            let name = &found[1];
            assert!(names.contains(name), "there is no {name}: {query}");
            asked.insert(name.to_owned());
            let matchers = found.get(2).map_or("", |matchers| matchers.as_str());
            for one in matcher.captures_iter(matchers) {
                let (label, values) = (&one[1], &one[3]);
                for value in values.split('|').filter(|_| !ADDED.contains(&label)) {
                    let sample = (name.to_owned(), label.to_owned(), value.to_owned());
                    assert!(labels.contains(&sample), "none is {sample:?}: {query}");
                }
            }
            for label in by.captures_iter(query).flat_map(|by| {
                let labels = by[1].split(", ").map(str::to_owned);
                labels.collect::<Vec<_>>()
            }) {
                let has = |(of, own, _): &(String, String, String)| of == name && *own == label;
                let is_known = ADDED.contains(&&*label) || labels.iter().any(has);
                assert!(is_known, "{name} has no {label}: {query}");
            }
        }
    }
    // A histogram is seen by its buckets, or by its sum.
    let whole = |name: &String| {
        let part = ["_bucket", "_sum", "_count"].iter();
        let whole = part.filter_map(|part| name.strip_suffix(part)).next();
        whole.unwrap_or(name).to_owned()
    };
    let [there, asked] =
        [names, asked].map(|names| names.iter().map(whole).collect::<BTreeSet<_>>());
    let unseen: Vec<_> = there.difference(&asked).collect();
    assert!(unseen.is_empty(), "{unseen:?}");
}

#[test]
fn prometheus_takes_the_rules() {
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/alerts.yml");
    let Ok(output) = Command::new("promtool")
        .args(["check", "rules", rules])
        .output()
    else {
        return skip(
            "promtool",
            "promtool isn't installed: the alert rules are not checked by it",
        );
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{complaints}");
    let count = format!("{} rules found", queries_of_alerts().len());
    assert!(text.contains(&count), "{text}");
}
