//! The laboratory, examples/lab: each rule that is broken loses somebody's download, with all kept nobody loses
//! any; the guide's pages are what it writes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::pour::example;

fn lab(words: &str) -> String {
    let words = words.split_whitespace();
    let output = Command::new(example("lab")).args(words).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A folder's files by name.
fn files(folder: &Path) -> BTreeMap<String, String> {
    let paths = fs::read_dir(folder).unwrap();
    let paths = paths.map(|entry| entry.unwrap().path());
    let file = |path: std::path::PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(path).unwrap())
    };
    paths.map(file).collect()
}

fn pages() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guide/lab")
}

#[test]
fn each_broken_rule_loses_a_download_within_twelve_moves_as_its_page_shows() {
    let written = tempfile::tempdir().unwrap();
    lab(&format!("--write {}", written.path().display()));
    let (written, pages) = (files(written.path()), files(&pages()));
    let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&written), names(&pages));
    for (name, text) in &written {
        assert!(
            text == &pages[name],
            "{name}: `lab --write docs/guide/lab` was not run"
        );
    }
    let rules = lab("");
    assert_eq!(rules.lines().count(), 11);
    for rule in rules.lines().map(|line| line.split(' ').next().unwrap()) {
        let chart = lab(rule);
        assert!(
            chart.lines().all(|line| line.chars().count() <= 80),
            "{chart}"
        );
        assert!(
            chart.contains("! ") && chart.contains("✗ client "),
            "{chart}"
        );
        assert!(pages[&format!("{rule}.md")].contains(&chart));
        let moves = chart
            .lines()
            .filter_map(|line| line[..2].trim().parse::<u32>().ok());
        assert!(moves.max().unwrap() <= 12, "{chart}");
    }
}

#[test]
fn with_all_rules_kept_no_run_of_twelve_moves_loses_any() {
    let said = lab("none 12");
    assert!(
        said.starts_with("no fault in any run of 12 moves"),
        "{said}"
    );
    let page = fs::read_to_string(pages().join("README.md")).unwrap();
    assert!(page.contains(&format!("    {said}")), "{said}");
}

#[test]
fn on_real_sockets_the_same_is_lost() {
    let mut played = 0;
    for rule in lab("").lines().map(|line| line.split(' ').next().unwrap()) {
        let (chart, real) = (lab(rule), lab(&format!("{rule} --play")));
        let fault = chart.lines().last().unwrap();
        if real.starts_with("it can't be played") {
            continue;
        }
        let ends = if fault.contains("hangs") {
            "and waits"
        } else if fault.contains("is reset") {
            "and a reset"
        } else {
            "and FIN"
        };
        assert!(real.trim_end().ends_with(ends), "{rule}: {real}");
        let who = |line: &str| line.split_once("client ").unwrap().1[..1].to_owned();
        assert_eq!(who(fault), who(&real), "{rule}");
        assert!(!real.contains("16 of 16"), "{rule}: {real}");
        played += 1;
    }
    assert_eq!(played, 9);
}
