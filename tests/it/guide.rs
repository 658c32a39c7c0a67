//! The guide's afternoon, typed from its first command to its last in one shell: each brings what the page shows.
//! What its pages link to the glossary is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::reserved_port;
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
fn what_the_guide_links_to_the_glossary_is_there() {
    let link = Regex::new(r"\[([^\]]+)\]\([./]*ARCHITECTURE\.md#glossary\)").unwrap();
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let architecture = fs::read_to_string(top.join("ARCHITECTURE.md")).unwrap();
    let (_, glossary) = architecture.split_once("## Glossary\n").unwrap();
    let rows = glossary.lines().filter_map(|line| line.strip_prefix("| "));
    let terms: Vec<&str> = rows
        .flat_map(|row| row.split(" | ").next().unwrap().split(", "))
        .collect();
    let mut seen = 0;
    for page in ["README.md", "ways.md"] {
        let text = fs::read_to_string(guide().join(page)).unwrap();
        for found in link
            .captures_iter(&text)
            .filter(|found| &found[1] != "glossary")
        {
            let word = found[1].to_owned();
            let is_there = |term: &&str| *term == word || format!("{term}s") == word;
            assert!(terms.iter().any(is_there), "{page}: {word}");
            seen += 1;
        }
    }
    assert!(seen > 12, "{seen}");
}
