//! The examples keep the bare protocol, however they wait: its tests run against each of them.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use crate::common::{Carafe, POUR, assert_same, connect, pattern};

/// What they leave to their grown-up twin: flags, HTTP, the lines of connections that ask for nothing.
const LEFT_OUT: [&str; 5] = [
    "exact_names",
    "like_http",
    "a_cr_after",
    "files_named",
    "the_request_timeout",
];

/// One that serves one client after the other can't answer a second while the first is in the middle of its
/// name, as these tests ask of it.
const ONE_BY_ONE: [&str; 5] = [
    "byte_by_byte",
    "a_name_ends",
    "a_name_has_1024_bytes",
    "a_name_may_be_split",
    "when_guesses_have_run_out",
];

/// The longest tests of names alone. Who has its states from the core in one file has these from there.
const OF_NAMES: [&str; 3] = [
    "a_name_has_1024_bytes",
    "a_name_may_be_split",
    "when_guesses_have_run_out",
];

pub fn example(name: &str) -> PathBuf {
    let binary = std::env::current_exe().unwrap();
    let example = binary.parent().unwrap().join("../examples").join(name);
    assert!(example.exists(), "cargo test builds the examples");
    example
}

fn speaks_the_bare_protocol(name: &str, left_out: &[&str]) {
    let mut tests = Command::new(std::env::current_exe().unwrap());
    tests.env(POUR, example(name)).arg("protocol::");
    // One that never sleeps leaves little to others.
    tests.args(["--test-threads", "2"]);
    // Its processes' flags are not those of a mode.
    tests.env_remove("CARAFE_SERVE_FLAGS");
    for name in LEFT_OUT.iter().chain(left_out) {
        tests.args(["--skip", name]);
    }
    let output = tests.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{name}: {text}");
    let passed = text.matches("... ok").count();
    assert!(passed >= 14 - left_out.len(), "{name}: {text}");
}

#[test]
fn the_core_in_one_file_speaks_the_bare_protocol() {
    speaks_the_bare_protocol("pour", &[]);
}

/// One after the other: the machine has other tests to run.
#[test]
fn those_that_wait_in_other_ways_speak_the_bare_protocol() {
    speaks_the_bare_protocol("blocking", &ONE_BY_ONE);
    speaks_the_bare_protocol("threads", &[]);
    for name in ["busy", "level", "handler"] {
        speaks_the_bare_protocol(name, &OF_NAMES);
    }
}

#[test]
fn the_echo_server_gives_back_what_it_got_and_ends_when_its_client_does() {
    let mut command = Command::new(example("echo"));
    command.arg("127.0.0.1:0");
    let echo = Carafe::start(command);
    let sent = pattern(0, 20 * 1024 * 1024);
    let mut client = connect(echo.addr());
    // More than the buffers of both ends hold, and read only by and by.
    let mut writer = client.try_clone().unwrap();
    let got = thread::scope(|scope| {
        scope.spawn(|| {
            writer.write_all(&sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        got
    });
    assert_same("the echo", &got, &sent);
}
