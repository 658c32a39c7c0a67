//! What shells and man(1) are told of the command line, by the real programs; and flags that come by the
//! environment of a real process. What isn't installed is skipped aloud.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::common::{Carafe, exchange, has_tool, root_with, until};
use crate::talk::{ask, get};

fn carafe(words: &[&str]) -> Output {
    let carafe = env!("CARGO_BIN_EXE_carafe");
    Command::new(carafe).args(words).output().unwrap()
}

/// Writes what carafe prints to a file.
fn printed(folder: &TempDir, name: &str, words: &[&str]) -> PathBuf {
    let output = carafe(words);
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{words:?}"
    );
    let path = folder.path().join(name);
    fs::write(&path, output.stdout).unwrap();
    path
}

/// What a shell's script prints, which finds the completions' file as its first argument, and carafe on PATH.
fn told(shell: &[&str], script: &str, file: &Path) -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_carafe"));
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", binary.parent().unwrap().display());
    let home = tempfile::tempdir().unwrap();
    let output = Command::new(shell[0])
        .args(&shell[1..])
        .args(["-c", script])
        .args((shell[0] != "fish").then_some(shell[0]))
        .arg(file)
        .envs([("PATH", path.as_str()), ("TERM", "dumb")])
        .env("HOME", home.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{complaints}");
    text
}

#[test]
fn shells_complete_commands_and_flags() {
    let folder = tempfile::tempdir().unwrap();
    let bash = r#"
        source "$1"
        try() {
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
            _carafe carafe "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
            echo "${COMPREPLY[@]}"
        }
        try carafe ser
        try carafe serve --lis
        complete -p carafe"#;
    let fish = "
        source $argv[1]
        complete -C 'carafe ser'
        complete -C 'carafe serve --lis'";
    // It completes only at a prompt.
    let zsh = r#"
        zmodload zsh/zpty
        zpty shell zsh -f -i
        zpty -w shell "PS1=; autoload -U compinit && compinit -u -D && source '$1'"
        zpty -w -n shell $'carafe ser\t--lis\t'
        zpty -r shell text '*serve*--listing*' && print -r -- "$text""#;
    for (shell, words, script) in [
        ("bash", &["bash", "--norc"][..], bash),
        ("fish", &["fish", "--no-config"], fish),
        ("zsh", &["zsh", "-f"], zsh),
    ] {
        if has_tool(shell) {
            let file = printed(&folder, shell, &["completions", shell]);
            let text = told(words, script, &file);
            for word in ["serve", "--listing"] {
                assert!(text.contains(word), "{shell}: {text}");
            }
        }
    }
    let unknown = carafe(&["completions", "sh"]);
    assert_eq!(unknown.status.code(), Some(2));
}

#[test]
fn manual_pages_are_sound_and_fit_a_terminal() {
    if !has_tool("mandoc") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let overstruck = regex::Regex::new(".\u{8}").unwrap();
    for command in [
        "",
        "serve",
        "get",
        "thank",
        "say",
        "soak",
        "completions",
        "man",
    ] {
        let words: Vec<_> = ["man", command]
            .into_iter()
            .filter(|word| !word.is_empty())
            .collect();
        let page = printed(&folder, "page.1", &words);
        let lint = Command::new("mandoc")
            .args(["-T", "lint", "-W", "error"])
            .arg(&page)
            .output()
            .unwrap();
        let complaints = String::from_utf8_lossy(&lint.stdout);
        assert!(lint.status.success(), "{command}: {complaints}");
        let shown = Command::new("mandoc")
            .args(["-T", "ascii", "-O", "width=78"])
            .arg(&page)
            .output()
            .unwrap();
        let text = String::from_utf8(shown.stdout).unwrap();
        let plain = overstruck.replace_all(&text, "");
        let name = if command.is_empty() {
            "carafe -".into()
        } else {
            format!("carafe-{command}")
        };
        assert!(plain.contains(&name), "{plain}");
        for line in plain.lines() {
            assert!(line.chars().count() <= 80, "{command}: {line}");
        }
        assert!(plain.contains("Examples:"), "{plain}");
    }
}

#[test]
fn the_environment_of_a_process_says_what_flags_would() {
    let root = root_with(&[("small", "small bytes")]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_carafe"));
    command.arg("serve").envs([
        ("CARAFE_ROOT", root.path().to_str().unwrap()),
        ("CARAFE_BIND", "127.0.0.1\n127.0.0.2"),
        ("CARAFE_PORT", "no port: the flag wins"),
        ("CARAFE_LISTING", "yes"),
    ]);
    command.args(["-p", "0"]);
    let carafe = Carafe::start(command);
    until("both addresses are announced", || {
        carafe.announced().len() == 2
    });
    for address in carafe.announced() {
        assert_eq!(exchange(address, b"small\n").unwrap(), b"small bytes");
        assert!(ask(address, &get("/", "")).text().contains(">small<"));
    }
    carafe.stop_clean();
}
