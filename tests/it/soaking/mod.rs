//! Runs of `carafe soak`, and what their reports say.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::common::{Followed, PATIENCE};

/// Ways to end that are no failures.
pub(crate) const GOOD: [&str; 4] = ["complete", "aborted", "idle_closed", "unfinished"];

/// A run that has begun. Killed on drop.
pub(crate) struct Soak {
    child: Child,
    folder: TempDir,
    stdout: Followed,
    stderr: Followed,
}

/// A run that has ended.
#[derive(Debug)]
pub(crate) struct Soaked {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// `Null` if none was written.
    pub(crate) json: Value,
}

/// Runs `carafe soak` with these words and a JSON report, to its end.
#[track_caller]
pub(crate) fn soak<A: AsRef<OsStr>>(args: &[A]) -> Soaked {
    Soak::start(args).wait()
}

/// As [`soak`], with the words in one text.
#[track_caller]
pub(crate) fn soak_words(words: &str) -> Soaked {
    soak(&words.split_whitespace().collect::<Vec<_>>())
}

impl Soak {
    pub(crate) fn start<A: AsRef<OsStr>>(args: &[A]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_carafe"));
        command.arg("soak").args(args);
        Self::start_command(command)
    }

    /// Starts a command that becomes `carafe soak`.
    pub(crate) fn start_command(mut command: Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = command
            .arg("--json")
            .arg(folder.path().join("report.json"))
            .arg("--quiet")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            stdout: Followed::new(child.stdout.take().unwrap()),
            stderr: Followed::new(child.stderr.take().unwrap()),
            child,
            folder,
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for the end. Whatever a report says, its counts add up.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Soaked {
        let end = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < end, "the run does not end");
            thread::sleep(Duration::from_millis(2));
        };
        let json = std::fs::read(self.folder.path().join("report.json")).unwrap_or_default();
        let soaked = Soaked {
            code: status.code(),
            stdout: self.stdout.wait_for_end(),
            stderr: self.stderr.wait_for_end(),
            json: serde_json::from_slice(&json).unwrap_or_default(),
        };
        // Nothing here is a terminal.
        assert!(!soaked.stdout.contains('\x1b'), "{}", soaked.stdout);
        if !soaked.json.is_null() {
            soaked.assert_adds_up();
        }
        soaked
    }
}

impl Drop for Soak {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Soaked {
    /// The value at a path such as `latency.total.p99`.
    #[track_caller]
    pub(crate) fn at(&self, path: &str) -> &Value {
        path.split('.').fold(&self.json, |value, key| {
            value
                .get(key)
                .unwrap_or_else(|| panic!("no {path} in the report: {self:#?}"))
        })
    }

    #[track_caller]
    pub(crate) fn number(&self, path: &str) -> u64 {
        let value = self.at(path);
        value.as_u64().unwrap_or_else(|| panic!("{path}: {value}"))
    }

    fn class(&self, class: &str) -> Option<&Value> {
        let classes = self.at("outcomes.classes").as_array().unwrap();
        classes.iter().find(|entry| entry["class"] == class)
    }

    /// How many requests ended in this way.
    #[track_caller]
    pub(crate) fn count(&self, class: &str) -> u64 {
        self.class(class)
            .map_or(0, |entry| entry["count"].as_u64().unwrap())
    }

    /// The sample of a way to fail.
    #[track_caller]
    pub(crate) fn sample(&self, class: &str) -> &str {
        let sample = self.class(class).and_then(|entry| entry["sample"].as_str());
        sample.unwrap_or_else(|| panic!("no sample of {class}: {self:#?}"))
    }

    pub(crate) fn started(&self) -> u64 {
        self.number("outcomes.started")
    }

    pub(crate) fn notes(&self) -> String {
        let notes = self.at("notes").as_array().unwrap();
        let notes = notes.iter().map(|note| note.as_str().unwrap());
        notes.collect::<Vec<_>>().join("\n")
    }

    /// How a threshold came out.
    #[track_caller]
    pub(crate) fn threshold(&self, text: &str) -> &str {
        let thresholds = self.at("thresholds").as_array().unwrap();
        let found = thresholds.iter().find(|entry| entry["text"] == text);
        let found = found.unwrap_or_else(|| panic!("no threshold {text}: {thresholds:#?}"));
        found["outcome"].as_str().unwrap()
    }

    /// Started = sum of the ways to end, here and in what is told of each second; failures have
    /// samples, and only they count as failures.
    #[track_caller]
    fn assert_adds_up(&self) {
        assert_eq!(self.at("schema"), "carafe-soak/1");
        let classes = self.at("outcomes.classes").as_array().unwrap();
        let counts = classes.iter().map(|entry| entry["count"].as_u64().unwrap());
        assert_eq!(self.started(), counts.sum::<u64>(), "{classes:#?}");
        for entry in classes {
            let class = entry["class"].as_str().unwrap();
            assert!(entry["count"].as_u64() > Some(0), "{entry}");
            assert_eq!(entry["is_failure"], !GOOD.contains(&class), "{entry}");
            assert_eq!(
                entry["sample"].is_string(),
                !GOOD.contains(&class),
                "{entry}"
            );
        }
        let seconds = self.at("seconds").as_array().unwrap();
        let sum = |key: &str| -> u64 {
            seconds
                .iter()
                .map(|second| second[key].as_u64().unwrap())
                .sum()
        };
        assert_eq!(sum("started"), self.started());
        assert_eq!(sum("completed"), self.count("complete"));
        let failures = classes.iter().filter(|entry| entry["is_failure"] == true);
        let failures = failures.map(|entry| entry["count"].as_u64().unwrap());
        assert_eq!(sum("failed"), failures.sum::<u64>());
        assert_eq!(sum("body_bytes"), self.number("load.body_bytes"));
        let word = self.at("verdict.word").as_str().unwrap();
        let code = match word {
            "pass" => 0,
            "fail" => 1,
            _ => 3,
        };
        assert_eq!(self.code, Some(code), "{word}: {self:#?}");
    }

    /// Asserts the exit code and the verdict's word, which stands in the text's first line too.
    #[track_caller]
    fn assert_verdict(&self, code: i32, word: &str) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert_eq!(self.at("verdict.word"), word, "{self:#?}");
        let reasons = self.at("verdict.because").as_array().unwrap();
        assert_eq!(reasons.is_empty(), code == 0, "{reasons:?}");
        let first = self.stdout.lines().find(|line| !line.trim().is_empty());
        let first = first.unwrap_or_default().to_lowercase();
        assert!(first.contains(&word.replace('_', " ")), "{}", self.stdout);
    }

    /// Passed, and nothing failed.
    #[track_caller]
    pub(crate) fn assert_pass(&self) {
        self.assert_verdict(0, "pass");
        self.assert_no_failure();
    }

    /// Nothing failed, whatever else the verdict is about.
    #[track_caller]
    pub(crate) fn assert_no_failure(&self) {
        let failed = self.at("outcomes.classes").as_array().unwrap();
        let failed: Vec<_> = failed
            .iter()
            .filter(|entry| entry["is_failure"] == true)
            .collect();
        assert!(failed.is_empty(), "{failed:#?}");
    }

    #[track_caller]
    pub(crate) fn assert_fail(&self) {
        self.assert_verdict(1, "fail");
    }

    #[track_caller]
    pub(crate) fn assert_undecided(&self) {
        self.assert_verdict(3, "undecided");
    }

    #[track_caller]
    pub(crate) fn assert_not_offered(&self) {
        self.assert_verdict(3, "not_offered");
    }

    /// So many requests ended in this way, which fails the run and is named and shown. All others
    /// were complete.
    #[track_caller]
    pub(crate) fn assert_caught(&self, class: &str, count: u64) -> &str {
        self.assert_fail();
        assert_eq!(self.count(class), count, "{self:#?}");
        assert_eq!(self.count("complete"), self.started() - count, "{self:#?}");
        assert!(self.stdout.contains(class), "{}", self.stdout);
        self.sample(class)
    }

    /// The one line of a usage error; there is no report.
    #[track_caller]
    pub(crate) fn complaint(&self) -> &str {
        assert_eq!(self.code, Some(2), "{self:#?}");
        assert_eq!(self.stderr.matches('\n').count(), 1, "{}", self.stderr);
        assert_eq!(self.stdout, "");
        assert!(self.json.is_null());
        &self.stderr
    }
}

/// A path as a word of a command line.
pub(crate) fn word(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
