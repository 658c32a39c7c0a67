//! The guide's afternoon, typed from its first command to its last in one shell: each brings what the page shows.
//! Each term is a link to the glossary on each of its pages, and is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::reserved_port;
use crate::docs::prose;
use crate::pour::example;
use regex::Regex;

fn guide() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guide")
}

/// What is typed, and what it brings.
struct Step {
    command: String,
    output: Vec<String>,
}

fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in page.lines().filter_map(|line| line.strip_prefix("    ")) {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push(Step {
                command: command.to_owned(),
                output: Vec::new(),
            }),
            (None, Some(step)) => step.output.push(line.to_owned()),
            (None, None) => {}
        }
    }
    steps
}

/// All is built: cargo needn't be asked. The end of a server in the background is waited for.
const PRELUDE: &str = r#"exec 2>&1
cargo() {
    if [ "$1" = build ]; then return; fi
    local program=$EXAMPLES/$4
    shift 5
    if [ $BASHPID = $$ ]; then "$program" "$@"; else exec "$program" "$@"; fi
}
"#;

#[test]
fn an_afternoon_goes_as_the_guide_tells() {
    let (_reserved, port) = reserved_port();
    let adapt = |text: &str| text.replace("7890", &port.to_string());
    let page = fs::read_to_string(guide().join("README.md")).unwrap();
    let steps = steps(&page);
    assert!(steps.len() > 30, "{}", steps.len());
    let mut script = PRELUDE.to_owned();
    for (index, Step { command, .. }) in steps.iter().enumerate() {
        script += &adapt(command);
        if command.starts_with("kill ") {
            script += "\nwait $! 2>/dev/null";
        }
        script += &format!("\nprintf '\\001{index}\\n'\n");
    }
    let carafe = Path::new(env!("CARGO_BIN_EXE_carafe")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let folder = tempfile::tempdir().unwrap();
    // Its end takes along what it has started, should it have to be stopped.
    let output = Command::new("timeout")
        .args(["-k", "5", "300", "bash", "-c", &script])
        .env("PATH", format!("{}:{path}", carafe.display()))
        .env("EXAMPLES", example("pour").parent().unwrap())
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut rest = text.as_str();
    for (index, Step { command, output }) in steps.iter().enumerate() {
        let end = format!("\u{1}{index}\n");
        let Some((came, after)) = rest.split_once(&end) else {
            panic!("`{command}` never ended: {rest}");
        };
        let came: Vec<_> = came.lines().collect();
        let output: Vec<_> = output.iter().map(|line| adapt(line)).collect();
        assert_eq!(came, output, "{command}");
        rest = after;
    }
}

#[test]
fn terms_lead_to_the_glossary_and_are_there() {
    let link = Regex::new(r"\[([^\]]+)\]\([./]*ARCHITECTURE\.md#glossary\)").unwrap();
    let any_link = Regex::new(r"\[([^\]]+)\]\(").unwrap();
    let code_or_link = Regex::new(r"`[^`]*`|\[[^\]]*\]\([^)]*\)").unwrap();
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let architecture = fs::read_to_string(top.join("ARCHITECTURE.md")).unwrap();
    let (_, glossary) = architecture.split_once("## Glossary\n").unwrap();
    let rows = glossary.lines().filter_map(|line| line.strip_prefix("| "));
    let terms: Vec<&str> = rows
        .flat_map(|row| row.split(" | ").next().unwrap().split(", "))
        .collect();
    let (mut seen, mut wrong) = (0, Vec::new());
    for (page, text) in pages() {
        let text = prose(&text);
        for found in link
            .captures_iter(&text)
            .filter(|found| &found[1] != "glossary")
        {
            let word = &found[1];
            let is_there = |term: &&str| *term == word || format!("{term}s") == word;
            assert!(terms.iter().any(is_there), "{page}: {word}");
            seen += 1;
        }
        let linked = any_link.captures_iter(&text);
        let linked: Vec<_> = linked.map(|found| found[1].replace('\n', " ")).collect();
        let plain = code_or_link.replace_all(&text, "");
        for term in terms.iter().filter(|term| !EVERYDAY.contains(term)) {
            let is_used = Regex::new(&format!(r"(?m)^[^|#].*\b{term}s?\b")).unwrap();
            let is_linked = linked
                .iter()
                .any(|word| word.trim_end_matches('s') == *term);
            if is_used.is_match(&plain) && !is_linked {
                wrong.push(format!("{page}: {term}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen > 40, "{seen}");
}

/// Terms that the guide has as words of every day, too.
const EVERYDAY: [&str; 9] = [
    "line", "gap", "turn", "warm", "cold", "guard", "guess", "permit", "piece",
];

/// The guide's pages by name.
fn pages() -> Vec<(String, String)> {
    let folders = [guide(), guide().join("lab")];
    let files = folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap());
    let paths = files.map(|file| file.unwrap().path());
    let pages = paths.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let page = |path: PathBuf| {
        (
            path.display().to_string(),
            fs::read_to_string(path).unwrap(),
        )
    };
    pages.map(page).collect()
}
