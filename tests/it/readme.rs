//! The transcripts of the README and of docs/, run as they are printed. What differs from run to run
//! (times, ports, dates, what a machine is called) counts as equal; everything else must be as the page
//! has it. The tables of flags must be those of the help.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::common::{
    Carafe, Followed, exchange, has_tool, pattern, reserved_port, root_with, skip, until,
    with_default_interrupt,
};
use crate::origin::{Origin, Version};
use crate::pty::OnTerminal;
use regex::Regex;
use rustix::process::{Pid, Signal, kill_process_group};
use socket2::Socket;
use tempfile::TempDir;

const SERVE: &str = include_str!("../../docs/serve.md");
const GET: &str = include_str!("../../docs/get.md");
const SOAK: &str = include_str!("../../docs/soak.md");
const THANK: &str = include_str!("../../docs/thank.md");

/// The pages with transcripts.
const PAGES: [&str; 7] = [
    include_str!("../../README.md"),
    include_str!("../../docs/protocol.md"),
    include_str!("../../docs/web.md"),
    SERVE,
    GET,
    SOAK,
    THANK,
];

// ---- what the pages say ----

/// Lines that are set off, without what sets them off and without the empty ones.
#[derive(Debug)]
struct Block {
    section: &'static str,
    lines: Vec<&'static str>,
}

/// What somebody types, and what it brings.
#[derive(Debug)]
struct Step {
    command: String,
    output: Vec<&'static str>,
}

/// How a transcript is run.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// A server that has a terminal for itself.
    Server,
    /// What that server says later.
    Later,
    /// A shell that starts its own servers.
    Shell,
    /// A download that is interrupted, and continued.
    Interrupted,
    /// A shell that talks to a server of `files`.
    Client,
    /// No transcript.
    Other,
}

fn blocks() -> Vec<Block> {
    let (mut blocks, mut section, mut is_inside) = (Vec::<Block>::new(), "", false);
    for line in PAGES.iter().flat_map(|page| page.lines()) {
        if let Some(title) = line.strip_prefix("## ") {
            section = title;
        }
        match line.strip_prefix("    ") {
            Some(text) if is_inside => blocks.last_mut().unwrap().lines.push(text),
            Some(text) => blocks.push(Block {
                section,
                lines: vec![text],
            }),
            None if line.is_empty() => continue,
            None => {}
        }
        is_inside = line.starts_with("    ");
    }
    blocks
}

impl Block {
    fn kind(&self) -> Kind {
        let steps = self.steps();
        let types = |what: &str| steps.iter().any(|step| step.command.contains(what));
        if steps.is_empty() {
            let is_later = self.lines.iter().any(|line| line.contains("; replied "));
            return if is_later { Kind::Later } else { Kind::Other };
        }
        if steps[0].command == "carafe serve files" {
            Kind::Server
        } else if types("files &") || types("thank -q &") {
            Kind::Shell
        } else if self.lines.iter().any(|line| line.starts_with("^C")) {
            Kind::Interrupted
        } else if types("carafe soak ") {
            // Against servers that lie, of which a page tells.
            Kind::Other
        } else {
            Kind::Client
        }
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        for &line in &self.lines {
            let goes_on = steps
                .last()
                .is_some_and(|step| step.command.ends_with('\\'));
            match (line.strip_prefix("$ "), steps.last_mut()) {
                (Some(command), _) => steps.push(Step {
                    command: command.into(),
                    output: Vec::new(),
                }),
                (None, Some(step)) if goes_on => {
                    step.command = format!("{}\n{line}", step.command);
                }
                (None, Some(step)) => step.output.push(line),
                (None, None) => {}
            }
        }
        steps
    }
}

/// The transcripts of this kind; there is one at least.
fn transcripts(kind: &Kind) -> Vec<Block> {
    let found: Vec<_> = blocks()
        .into_iter()
        .filter(|block| block.kind() == *kind)
        .collect();
    assert!(!found.is_empty(), "no page has any: {kind:?}");
    found
}

// ---- what really happens ----

/// The folder that the README speaks of, and a port that stands for the one in it.
struct Scene {
    folder: TempDir,
    port: u16,
    _reserved: Socket,
}

impl Scene {
    /// None, said aloud, where a transcript can't be run.
    fn set() -> Option<Self> {
        if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
            skip("ipv6", "the README listens on [::]");
            return None;
        }
        if !["curl", "nc", "find"].into_iter().all(has_tool) {
            return None;
        }
        let folder = root_with(&[("files/hello.txt", b"Pour me a glass.\n".to_vec())]);
        fs::create_dir(folder.path().join("files/photos")).unwrap();
        let photo = folder.path().join("files/photos/big.jpg");
        fs::write(photo, pattern(7, 30_000_000)).unwrap();
        // curl shows its progress where its output is no terminal.
        fs::write(folder.path().join(".curlrc"), "silent\nshow-error\n").unwrap();
        let (reserved, port) = reserved_port();
        Some(Self {
            folder,
            port,
            _reserved: reserved,
        })
    }

    /// A program that finds this build's carafe first.
    fn command(&self, program: &str, script: &str) -> Command {
        let binary = Path::new(env!("CARGO_BIN_EXE_carafe")).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        let mut command = with_default_interrupt(program);
        command
            .args(["-c", script])
            .current_dir(self.folder.path())
            .env("PATH", format!("{}:{path}", binary.display()))
            .env("CURL_HOME", self.folder.path())
            .env("NO_COLOR", "1")
            .env("TERM", "xterm")
            .env_remove("RUST_LOG");
        command
    }

    /// The README's port is another one here.
    fn adapt(&self, command: &str) -> String {
        let port = self.port.to_string();
        let command = ["7890", "7788", "8000"]
            .iter()
            .fold(command.to_owned(), |text, documented| {
                text.replace(documented, &port)
            });
        command
            .replace("carafe serve ", &format!("carafe serve -p {port} "))
            .replace("carafe thank ", &format!("carafe thank -p {port} "))
    }

    /// Runs a shell that types all this. Gives what each step has printed.
    fn shell(&self, steps: &[Step]) -> Vec<String> {
        let mut script = String::from("exec 2>&1\n");
        for (index, step) in steps.iter().enumerate() {
            script += &self.adapt(&step.command);
            if step.command.contains(" & ") || step.command.ends_with('&') {
                let is_up = format!("(exec 9<>/dev/tcp/localhost/{}) 2>/dev/null", self.port);
                script += &format!("\nuntil {is_up}; do sleep 0.01; done");
            }
            script += &format!("\nprintf '\\001{index}\\n'\n");
        }
        let mut shell = Shell::start(&mut self.command("bash", &script));
        let mut rest = shell
            .output
            .wait_for(&format!("\u{1}{}\n", steps.len() - 1));
        shell.end();
        let mut outputs = Vec::new();
        for index in 0..steps.len() {
            let (output, after) = rest.split_once(&format!("\u{1}{index}\n")).unwrap();
            outputs.push(output.to_owned());
            rest = after.to_owned();
        }
        outputs
    }
}

/// A shell, and all that it has started.
struct Shell {
    child: Child,
    output: Followed,
}

impl Shell {
    fn start(command: &mut Command) -> Self {
        let spawned = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn();
        let mut child = spawned.unwrap();
        let output = Followed::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// Ends what it has left behind.
    fn end(&mut self) {
        let group = Pid::from_raw(self.child.id() as i32).unwrap();
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.end();
    }
}

// ---- whether they are the same ----

/// What is the same in every run.
fn constant(line: &str) -> Option<String> {
    let line = line.trim_end();
    // Another machine has other addresses; one that runs tests as root is told so.
    let is_elsewhere = line.trim_start().starts_with("http://") || line.contains(" more");
    if line.is_empty() || is_elsewhere || line.contains("running as root") {
        return None;
    }
    let mut text = line.trim_start_matches("^C").to_owned();
    for (varies, stands_for_it) in [
        (r"^\d\d:\d\d:\d\d ", "TIME "),
        (r#"(127\.0\.0\.1|\[::1\]):\d+ ""#, "PEER \""),
        (r"\d+\.\d+ ?s\b", "SECONDS"),
        (r"^(Date|ETag|Last-Modified): .*", "$1: VARIES"),
        (r"(localhost|\[::\]):\d+", "$1:PORT"),
        (r"\d+ of them", "SOME of them"),
    ] {
        let pattern = Regex::new(varies).unwrap();
        text = pattern.replace_all(&text, stands_for_it).into_owned();
    }
    Some(text).filter(|text| !text.is_empty())
}

fn constants<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    lines.into_iter().filter_map(constant).collect()
}

#[track_caller]
fn assert_step(step: &Step, output: &str) {
    let (expected, found) = (
        constants(step.output.iter().copied()),
        constants(output.lines()),
    );
    assert_eq!(found, expected, "$ {}\n{output}", step.command);
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

#[test]
fn a_minutes_tour_is_as_the_readme_tells_it() {
    let Some(scene) = Scene::set() else { return };
    let [server] = &transcripts(&Kind::Server)[..] else {
        panic!("one server has a terminal")
    };
    let [step] = &server.steps()[..] else {
        panic!("and nothing is typed there")
    };
    let mut running = OnTerminal::start(
        &mut scene.command("bash", &format!("exec {}", scene.adapt(&step.command))),
    );
    let greeting = running.screen.wait_for("twice at once");
    assert_step(step, &greeting.replace(&scene.port.to_string(), "7890"));
    for block in transcripts(&Kind::Client) {
        if block.section == server.section {
            let steps = block.steps();
            for (step, output) in steps.iter().zip(scene.shell(&steps)) {
                assert_step(step, &output);
            }
        }
    }
    let screen = running.end();
    let (_, later) = screen.split_once("twice at once").unwrap();
    let [told] = &transcripts(&Kind::Later)[..] else {
        panic!("it tells the rest at once")
    };
    // Which of two connections is over first isn't always the same.
    assert_eq!(
        sorted(constants(later.lines())),
        sorted(constants(told.lines.iter().copied())),
        "{later}"
    );
    let copy = fs::read(scene.folder.path().join("[接收]hello.txt")).unwrap();
    assert_eq!(copy, b"Pour me a glass.\n");
}

#[test]
fn every_other_transcript_of_a_client_is_true() {
    let Some(scene) = Scene::set() else { return };
    let mut command = Command::new(env!("CARGO_BIN_EXE_carafe"));
    command.arg("serve").arg(scene.folder.path().join("files"));
    let carafe = Carafe::start({
        command.args(["-p", &scene.port.to_string()]);
        command
    });
    // A file that was just made has no date to go by yet, which the reader's has.
    let here = SocketAddr::from((Ipv6Addr::LOCALHOST, scene.port));
    until("the file is old enough", || {
        let head = exchange(here, b"HEAD /hello.txt HTTP/1.0\r\n\r\n").unwrap();
        String::from_utf8_lossy(&head).contains("Last-Modified: ")
    });
    for block in transcripts(&Kind::Client) {
        if block.section != "A minute's tour" {
            let steps = block.steps();
            for (step, output) in steps.iter().zip(scene.shell(&steps)) {
                assert_step(step, &output);
            }
        }
    }
    carafe.stop();
}

#[test]
fn shells_with_servers_of_their_own_print_what_the_readme_says() {
    for block in transcripts(&Kind::Shell) {
        let Some(scene) = Scene::set() else { return };
        let mut steps = block.steps();
        for step in &mut steps {
            // The same, in less time than a reader has.
            step.command = step
                .command
                .replace("--rate 1000 -z 45s", "--rate 50 -z 2s");
        }
        let outputs = scene.shell(&steps);
        let is_soak = steps.last().unwrap().command.starts_with("carafe soak ");
        if is_soak {
            let report = &outputs[steps.len() - 1];
            assert!(report.contains("PASS\n"), "{report}");
            assert!(scene.folder.path().join("soak.html").exists());
            for label in soak_labels() {
                let is_there = report.lines().any(|line| line.starts_with(label));
                assert!(is_there, "{label}: {report}");
            }
            continue;
        }
        // Two programs print here: lines of one step may come with those of the next.
        let expected = steps.iter().flat_map(|step| step.output.iter().copied());
        let found = outputs.iter().flat_map(|output| output.lines());
        assert_eq!(
            sorted(constants(found)),
            sorted(constants(expected)),
            "{outputs:#?}"
        );
    }
}

/// What the lines of the report in docs/soak.md begin with.
fn soak_labels() -> Vec<&'static str> {
    let blocks = blocks();
    let report = blocks.iter().find(|block| block.lines[0] == "PASS");
    let lines = report.unwrap().lines.iter();
    let labels = lines.filter(|line| !line.starts_with(' '));
    labels.map(|line| line.split(' ').next().unwrap()).collect()
}

#[test]
fn an_interrupted_download_goes_on_as_the_readme_says() {
    let Some(scene) = Scene::set() else { return };
    let [block] = &transcripts(&Kind::Interrupted)[..] else {
        panic!("one download is interrupted")
    };
    let steps = block.steps();
    // The file has the length that the README names.
    let file = pattern(3, 30_000_000);
    let honest = Version::new(&file[..], "\"1\"");
    let server = Origin::start(move |asked, count, mut stream| {
        let answer = honest.answer(asked);
        if count > 0 {
            stream.write_all(&answer).unwrap();
            return;
        }
        stream
            .write_all(&crate::origin::cut(answer, 12_124_160))
            .unwrap();
        // The rest doesn't come, until the client is gone.
        let _ = stream.read(&mut [0]);
    });
    let port = server.address.port().to_string();
    let typed = |step: &Step| format!("exec 2>&1 {}", step.command.replace("8000", &port));
    let part = scene.folder.path().join("big.bin.part");
    let mut interrupted = Shell::start(&mut scene.command("bash", &typed(&steps[0])));
    until("half of it has come", || {
        fs::metadata(&part).is_ok_and(|part| part.len() == 12_124_160)
    });
    let group = Pid::from_raw(interrupted.child.id() as i32).unwrap();
    kill_process_group(group, Signal::INT).unwrap();
    interrupted.child.wait().unwrap();
    assert_step(&steps[0], &interrupted.output.wait_for_end());
    let continued = scene.command("bash", &typed(&steps[1])).output();
    let output = continued.unwrap();
    assert_step(&steps[1], &String::from_utf8(output.stdout).unwrap());
    assert!(fs::read(scene.folder.path().join("big.bin")).unwrap() == file);
}

// ---- the flags ----

/// A flag as the help has it.
struct Flag {
    short: Option<String>,
    long: String,
    default: Option<String>,
}

fn flags_of(command: &str) -> Vec<Flag> {
    let help = crate::common::run_carafe(&[command.as_ref(), "--help".as_ref()]);
    let help = String::from_utf8(help.stdout).unwrap();
    let (help, _) = help.split_once("\nExamples:").unwrap();
    let beginning = Regex::new(r"(?m)^ +(?:-(\w), )?--([a-z0-9-]+)").unwrap();
    let default = Regex::new(r"\[default: ([^\]]*)\]").unwrap();
    let ends = beginning.find_iter(help).skip(1).map(|found| found.start());
    let ends = ends.chain([help.len()]);
    let flags = beginning.captures_iter(help).zip(ends).map(|(flag, end)| {
        let text: Vec<_> = help[flag.get(0).unwrap().start()..end]
            .split_whitespace()
            .collect();
        Flag {
            short: flag.get(1).map(|short| short.as_str().to_owned()),
            long: flag[2].to_owned(),
            default: default
                .captures(&text.join(" "))
                .map(|default| default[1].to_owned()),
        }
    });
    flags.filter(|flag| flag.long != "help").collect()
}

/// The cells of the rows about flags beneath a heading.
fn flag_rows(page: &'static str, heading: &str) -> Vec<Vec<&'static str>> {
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `-"));
    rows.map(|row| row.split('|').map(str::trim).collect())
        .collect()
}

#[test]
fn the_tables_of_flags_are_those_of_the_help() {
    let named = Regex::new(r"(?:^|[` ])(--?[A-Za-z0-9][A-Za-z0-9-]*)").unwrap();
    for (command, page, heading) in [
        ("serve", SERVE, "Flags"),
        ("get", GET, "Flags"),
        ("soak", SOAK, "Flags"),
        ("thank", THANK, "thank"),
        ("say", THANK, "say"),
    ] {
        let (flags, rows) = (flags_of(command), flag_rows(page, heading));
        let has_defaults = command != "get";
        for row in &rows {
            for name in named.captures_iter(row[1]) {
                let name = name[1].trim_start_matches('-');
                let is_it = |flag: &&Flag| flag.long == name || flag.short.as_deref() == Some(name);
                let is_repeated = ["vv"].contains(&name);
                let flag = flags.iter().find(is_it);
                assert!(
                    is_repeated || flag.is_some(),
                    "{command}: there is no {name}"
                );
                if let (Some(flag), true, false) = (flag, has_defaults, row[2].is_empty()) {
                    let told = row[2].replace('`', "");
                    assert_eq!(flag.default.as_deref(), Some(&*told), "--{}", flag.long);
                }
            }
        }
        let names: Vec<_> = rows
            .iter()
            .flat_map(|row| named.captures_iter(row[1]))
            .map(|name| name[1].to_owned())
            .collect();
        for flag in &flags {
            let short = flag.short.as_ref().map(|short| format!("-{short}"));
            let is_told = names.contains(&format!("--{}", flag.long))
                || short.is_some_and(|short| names.contains(&short));
            assert!(is_told, "{command}: no page tells of --{}", flag.long);
        }
    }
}
