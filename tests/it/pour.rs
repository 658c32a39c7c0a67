//! The core in one file keeps the bare protocol: its tests run against it.

use std::process::Command;

use crate::common::POUR;

/// What it leaves to its grown-up twin: flags, HTTP, the lines of connections that ask for nothing.
const LEFT_OUT: [&str; 5] = [
    "exact_names",
    "like_http",
    "a_cr_after",
    "files_named",
    "the_request_timeout",
];

#[test]
fn the_core_in_one_file_speaks_the_bare_protocol() {
    let binary = std::env::current_exe().unwrap();
    let pour = binary.parent().unwrap().join("../examples/pour");
    assert!(pour.exists(), "cargo test builds the examples");
    let mut tests = Command::new(binary);
    tests.env(POUR, pour).arg("protocol::");
    // Its processes' flags are not those of a mode.
    tests.env_remove("CARAFE_SERVE_FLAGS");
    for name in LEFT_OUT {
        tests.args(["--skip", name]);
    }
    let output = tests.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let passed = text.matches("... ok").count();
    assert!(passed >= 14, "{text}");
}
