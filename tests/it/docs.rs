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
        root.join("docs/guide"),
        root.join("docs/guide/lab"),
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
pub(crate) fn prose(text: &str) -> String {
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

/// The paths and texts of all code beneath a folder.
pub(crate) fn code_beneath(folder: &Path) -> Vec<(PathBuf, String)> {
    let paths = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let code = |path: PathBuf| {
        if path.is_dir() {
            return code_beneath(&path);
        }
        let is_code = path.extension().is_some_and(|extension| extension == "rs");
        let text = is_code.then(|| fs::read_to_string(&path).unwrap());
        text.map(|text| (path, text)).into_iter().collect()
    };
    paths.flat_map(code).collect()
}

#[test]
fn names_of_code_in_the_architecture_are_in_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = code_beneath(&root.join("src"));
    let word = Regex::new(r"\w+").unwrap();
    let words = files.iter().map(|(_, text)| {
        let words = word.find_iter(text).map(|found| found.as_str());
        words.collect::<BTreeSet<_>>()
    });
    let words: Vec<_> = words.collect();
    // A type, a constant, a path of either; a file.
    let name = r"`((?:[a-z_]+::)*[A-Z]\w+(?:::\w+)*|(?:\w+::)+\w+)(?:\([^`]*\))?`";
    let name = Regex::new(name).unwrap();
    let file = Regex::new(r"`((?:\w+/)+\w+\.rs)`").unwrap();
    let is_ours = |page: &Path| {
        page.ends_with("ARCHITECTURE.md") || page.parent().unwrap().ends_with("internals")
    };
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (page, text) in pages().into_iter().filter(|(page, _)| is_ours(page)) {
        let page = page.display();
        for found in name.captures_iter(&text) {
            // A module is a path's beginning, and in no file by that name.
            let is_module = |part: &&str| part.starts_with(char::is_lowercase);
            let parts: Vec<_> = found[1].split("::").skip_while(is_module).collect();
            let has_all = |file: &BTreeSet<&str>| parts.iter().all(|part| file.contains(part));
            if !words.iter().any(has_all) {
                wrong.push(format!("{page}: {}", &found[1]));
            }
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

#[test]
fn the_map_names_every_file_of_the_rooms_that_it_shows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let (_, map) = text.split_once("## The rooms\n\n```\n").unwrap();
    let (map, _) = map.split_once("```").unwrap();
    let word = Regex::new(r"\w+").unwrap();
    let named: BTreeSet<&str> = word.find_iter(map).map(|found| found.as_str()).collect();
    let mut missing = Vec::new();
    for room in [
        "reactor",
        "conn",
        "protocol",
        "root",
        "file",
        "serve",
        "daemon",
        "peer",
        "telemetry",
    ] {
        for entry in fs::read_dir(root.join("src").join(room)).unwrap() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if !named.contains(&*stem) {
                missing.push(format!("{room}/{stem}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// What the script lists by hand of the way of a download is there.
#[test]
fn the_script_that_counts_finds_what_it_lists() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/size.py");
    let counted = std::process::Command::new("python3").arg(script).output();
    let counted = counted.expect("Python is there");
    let text = String::from_utf8_lossy(&counted.stdout);
    assert!(counted.status.success(), "{counted:?}");
    assert!(text.contains("a warm bare download of 2 KiB: "), "{text}");
}
