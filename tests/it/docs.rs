//! The pages themselves: each relative link leads to a file and a heading that exist, and the names of
//! code that ARCHITECTURE and docs/internals use are in src/.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

/// The pages at the top and beneath docs/, with their texts.
fn pages() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = [
        root.to_owned(),
        root.join("docs"),
        root.join("docs/internals"),
    ];
    let entries = folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap());
    let paths = entries.map(|entry| entry.unwrap().path());
    let is_page = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    paths
        .filter(is_page)
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path, text)
        })
        .collect()
}

/// A page without what is set off as code.
fn prose(text: &str) -> String {
    let fenced = Regex::new(r"(?ms)^```.*?^```$").unwrap();
    let text = fenced.replace_all(text, "");
    let lines = text.lines().filter(|line| !line.starts_with("    "));
    lines.collect::<Vec<_>>().join("\n")
}

/// The anchors of a page's headings, made as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let prose = prose(text);
    let titles = prose.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title
            .chars()
            .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
        kept.map(|letter| if letter == ' ' { '-' } else { letter })
            .collect()
    };
    titles.map(anchor).collect()
}

#[test]
fn links_lead_to_files_and_headings_that_exist() {
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let (mut wrong, mut followed) = (Vec::new(), 0);
    for (page, text) in pages() {
        for found in link.captures_iter(&prose(&text)) {
            let target = &found[1];
            if target.contains("://") {
                continue;
            }
            followed += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() {
                page.clone()
            } else {
                page.parent().unwrap().join(file)
            };
            let is_there = path.exists()
                && (anchor.is_empty()
                    || anchors(&fs::read_to_string(path).unwrap()).contains(anchor));
            if !is_there {
                wrong.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(followed > 40, "{followed}");
}

/// The code of all files beneath a folder.
fn code(folder: &Path, into: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            code(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn names_of_code_in_the_architecture_are_in_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = String::new();
    code(&root.join("src"), &mut all);
    let word = Regex::new(r"\w+").unwrap();
    let words: BTreeSet<&str> = word.find_iter(&all).map(|found| found.as_str()).collect();
    // A type, a constant, a path of either; a file.
    let name =
        Regex::new(r"`((?:[a-z_]+::)*[A-Z]\w+(?:::\w+)*|(?:\w+::)+\w+)(?:\([^`]*\))?`").unwrap();
    let file = Regex::new(r"`((?:\w+/)+\w+\.rs)`").unwrap();
    let is_ours = |page: &Path| {
        page.ends_with("ARCHITECTURE.md") || page.parent().unwrap().ends_with("internals")
    };
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (page, text) in pages().into_iter().filter(|(page, _)| is_ours(page)) {
        let page = page.display();
        for found in name.captures_iter(&text) {
            let missing = word
                .find_iter(&found[1])
                .filter(|part| !words.contains(part.as_str()));
            wrong.extend(missing.map(|part| format!("{page}: {} of {}", part.as_str(), &found[1])));
            seen += 1;
        }
        for found in file.captures_iter(&text) {
            if !root.join(&found[1]).exists() && !root.join("src").join(&found[1]).exists() {
                wrong.push(format!("{page}: {}", &found[1]));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen > 20, "{seen}");
}
