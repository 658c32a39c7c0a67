//! `carafe soak` against servers that lie, and an honest one: every lie is found, named and fails
//! the run, and the honest server passes the same.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::common::{Carafe, connect, exchange, has_tool, pattern, root_with, until};
use crate::liars::scripts::Script;
use crate::liars::{
    Answer, Bodies, EVERY, Refusing, Server, always, bare, honest, now_and_then, stalling_at,
};
use crate::soaking::{Soak, Soaked, soak, soak_words, word};
use tempfile::TempDir;

/// All kinds of clients.
const WHOLE_MIX: &str = "fast=80%,slow=10%,abort=5%,halfclose=2%,split=2%,idle=1%";

/// Requests of a run that meets five lies.
const FIVE_LIES: &str = "-n 1000 -c 4 --timeout 1s";

/// The file `body`, in a folder and for liars; its length is prime.
fn body() -> (TempDir, Bodies) {
    let bytes = pattern(3, 20_011);
    let folder = root_with(&[("body", &bytes)]);
    (folder, Bodies::from([("body".into(), bytes)]))
}

/// A liar, and a run against it that compares with the files.
fn soak_liar(
    choose: impl Fn(u64) -> Answer + Send + Sync + 'static,
    flags: &str,
) -> (Server, Soaked) {
    let (folder, bodies) = body();
    let server = bare(bodies, choose);
    let against = word(folder.path());
    let soaked = soak_words(&format!("{} body --against {against} {flags}", server.addr));
    (server, soaked)
}

// ---- the liars themselves ----

/// What the first so many downloads brought; `None` is an error.
fn downloads(addr: SocketAddr, count: u64) -> Vec<Option<Vec<u8>>> {
    (0..count).map(|_| exchange(addr, b"body\n").ok()).collect()
}

#[test]
fn the_liars_lie_as_often_as_they_say() {
    let (_folder, bodies) = body();
    let truth = &bodies["body"];
    let mut flipped = truth.clone();
    flipped[12_345] ^= 1;
    let cases = [
        (Answer::Whole, Some(truth.clone())),
        (Answer::Cut(7_001), Some(truth[..7_001].to_vec())),
        (Answer::Flipped(12_345), Some(flipped)),
        (Answer::OneTooMany, Some([truth, &b"!"[..]].concat())),
        (Answer::Reset(0), None),
        (Answer::Reset(7_001), None),
    ];
    for (lie, lied) in cases {
        let server = bare(bodies.clone(), now_and_then(lie));
        for (download, got) in (1..).zip(downloads(server.addr, 2 * EVERY)) {
            let expected = if download % EVERY == 0 {
                &lied
            } else {
                &Some(truth.clone())
            };
            assert!(got == *expected, "{lie:?}: download {download}");
        }
        assert_eq!(server.downloads(), 2 * EVERY);
    }
}

#[test]
fn the_stalling_liar_lets_everybody_wait_once() {
    let (_folder, bodies) = body();
    let (pause, start) = (Duration::from_millis(300), Instant::now());
    let server = bare(bodies, stalling_at(2, pause));
    exchange(server.addr, b"body\n").unwrap();
    let mut waiting: Vec<_> = (0..20).map(|_| connect(server.addr)).collect();
    for client in &mut waiting {
        client.write_all(b"body\n").unwrap();
    }
    for mut client in waiting {
        client.read_exact(&mut [0]).unwrap();
        assert!(start.elapsed() >= pause, "a client was served meanwhile");
    }
}

#[test]
fn the_scripts_serve_and_the_leaky_one_leaks() {
    if !has_tool("python3") {
        return;
    }
    let (folder, bodies) = body();
    let tutorial = Script::tutorial(folder.path());
    assert_eq!(exchange(tutorial.addr, b"body").unwrap(), bodies["body"]);
    let leaky = Script::leaky(&folder.path().join("body"));
    let descriptors = || {
        std::fs::read_dir(format!("/proc/{}/fd", leaky.pid()))
            .unwrap()
            .count()
    };
    // Python has opened and closed its own files when the first client is served.
    exchange(leaky.addr, b"body\n").unwrap();
    let before = descriptors();
    for _ in 0..10 {
        assert_eq!(exchange(leaky.addr, b"body\n").unwrap(), bodies["body"]);
    }
    // The first client's may have come after the count.
    until("ten are leaked", || descriptors() >= before + 10);
}

// ---- lies about bytes ----

/// Runs against one lie in each two hundred downloads; gives the sample.
#[track_caller]
fn caught(lie: Answer, class: &str) -> String {
    let (server, soaked) = soak_liar(now_and_then(lie), FIVE_LIES);
    let sample = soaked.assert_caught(class, 5);
    assert!(sample.contains("body"), "{sample}");
    assert_eq!(soaked.started(), 1000);
    assert_eq!(server.downloads(), 1000);
    sample.into()
}

#[test]
fn an_honest_server_passes() {
    let (server, soaked) = soak_liar(honest, FIVE_LIES);
    soaked.assert_pass();
    assert_eq!(soaked.count("complete"), 1000);
    assert_eq!(server.connections(), 1000);
    assert_eq!(soaked.number("verification.bodies"), 1000);
    assert_eq!(soaked.number("verification.bytes"), 1000 * 20_011);
    assert_eq!(soaked.number("load.body_bytes"), 1000 * 20_011);
    assert_eq!(soaked.number("latency.total.count"), 1000);
}

#[test]
fn downloads_that_end_early_are_short() {
    let sample = caught(Answer::Cut(7_001), "short");
    assert!(
        sample.contains("7001") && sample.contains("20011"),
        "{sample}"
    );
}

#[test]
fn downloads_that_end_without_a_byte_are_empty() {
    caught(Answer::Cut(0), "empty");
}

#[test]
fn a_wrong_byte_is_found_at_its_offset() {
    let sample = caught(Answer::Flipped(12_345), "corrupt");
    assert!(sample.contains("offset 12345"), "{sample}");
    let sample = caught(Answer::Flipped(0), "corrupt");
    assert!(sample.contains("offset 0"), "{sample}");
    let sample = caught(Answer::Flipped(20_010), "corrupt");
    assert!(sample.contains("offset 20010"), "{sample}");
}

#[test]
fn a_byte_too_many_is_a_wrong_one() {
    let sample = caught(Answer::OneTooMany, "corrupt");
    assert!(sample.contains("offset 20011"), "{sample}");
}

#[test]
fn resets_are_told_apart_by_the_first_byte() {
    caught(Answer::Reset(0), "reset_before_first_byte");
    caught(Answer::Reset(7_001), "reset_after_first_byte");
}

#[test]
fn answers_that_never_come_or_never_end_are_timeouts() {
    caught(Answer::Silent(0), "timeout");
    caught(Answer::Silent(7_001), "timeout");
}

#[test]
fn a_server_that_never_answers_is_nothing_but_timeouts() {
    let (_, soaked) = soak_liar(always(Answer::Silent(0)), "-n 6 -c 3 --timeout 300ms");
    soaked.assert_caught("timeout", 6);
    assert_eq!(soaked.number("latency.total.count"), 0);
}

#[test]
fn where_nobody_listens_clients_are_refused() {
    let port = Refusing::new();
    let soaked = soak_words(&format!("{} body -n 5 -c 1", port.addr()));
    soaked.assert_caught("refused", 5);
    assert_eq!(soaked.threshold("errors>0"), "failed");
}

#[test]
fn the_first_download_is_what_others_are_compared_with() {
    for (lie, class, says) in [
        (Answer::Whole, "complete", ""),
        (Answer::Cut(7_001), "short", "7001"),
        (Answer::Flipped(12_345), "corrupt", "block"),
        (Answer::OneTooMany, "corrupt", ""),
    ] {
        let (_folder, bodies) = body();
        let server = bare(bodies, now_and_then(lie));
        let soaked = soak_words(&format!("{} body --verify {FIVE_LIES}", server.addr));
        assert_eq!(soaked.at("verification.against"), "first_download");
        if lie == Answer::Whole {
            soaked.assert_pass();
        } else {
            let sample = soaked.assert_caught(class, 5);
            assert!(sample.contains(says), "{lie:?}: {sample}");
        }
    }
}

#[test]
fn a_first_download_that_lies_makes_no_liar_honest() {
    for lie in [
        Answer::Cut(7_001),
        Answer::Flipped(12_345),
        Answer::OneTooMany,
    ] {
        let (_folder, bodies) = body();
        let choose = move |download| if download == 1 { lie } else { Answer::Whole };
        let server = bare(bodies, choose);
        soak_words(&format!("{} body --verify -n 100 -c 1", server.addr)).assert_fail();
    }
}

#[test]
fn bodies_that_could_not_be_compared_are_no_pass() {
    let (_folder, bodies) = body();
    let choose = |download| match download {
        1 => Answer::Reset(0),
        _ => Answer::Whole,
    };
    let server = bare(bodies, choose);
    let soaked = soak_words(&format!("{} body --verify -n 100 -c 1", server.addr));
    soaked.assert_not_offered();
    assert_eq!(soaked.count("complete"), 100);
    assert_eq!(soaked.number("verification.bodies"), 0);
}

#[test]
fn a_run_that_compares_nothing_says_so() {
    let (_folder, bodies) = body();
    let server = bare(bodies, now_and_then(Answer::Flipped(12_345)));
    let soaked = soak_words(&format!("{} body {FIVE_LIES}", server.addr));
    soaked.assert_pass();
    assert_eq!(soaked.at("verification.against"), "nothing");
    assert_eq!(soaked.number("verification.bytes"), 0);
    assert!(soaked.notes().contains("--verify"), "{}", soaked.notes());
}

#[test]
fn no_threshold_lets_a_wrong_byte_pass() {
    let flags = format!("{FIVE_LIES} --fail-if errors>1000000");
    for (lie, class) in [(Answer::Flipped(7), "corrupt"), (Answer::Cut(7), "short")] {
        let (_, soaked) = soak_liar(now_and_then(lie), &flags);
        soaked.assert_caught(class, 5);
        assert_eq!(soaked.threshold(&format!("{class}>0")), "failed");
        assert_eq!(soaked.threshold("errors>1000000"), "held");
    }
    // Other failures are as bad as the thresholds say.
    let (_, soaked) = soak_liar(now_and_then(Answer::Reset(0)), &flags);
    assert_eq!(soaked.at("verdict.word"), "pass");
    assert_eq!(soaked.count("reset_before_first_byte"), 5);
}

// ---- lies about time ----

const STALL: Duration = Duration::from_secs(2);

#[test]
fn the_open_model_shows_a_stall_of_two_seconds() {
    let (_, soaked) = soak_liar(stalling_at(200, STALL), "-q 200 -z 4s");
    soaked.assert_pass();
    let p99 = soaked.number("latency.corrected.p99");
    assert!(p99 >= 1_000_000, "{p99}");
    let silence = soaked.number("latency.longest_silence_us");
    assert!(silence >= 1_900_000, "{silence}");
    assert_eq!(soaked.at("load.model"), "open");
}

#[test]
fn the_closed_model_hides_a_stall_of_two_seconds_and_says_so() {
    // Ten of three thousand wait: far from one in a hundred.
    let (_, soaked) = soak_liar(stalling_at(1500, STALL), "-c 10 -n 3000");
    soaked.assert_pass();
    let raw = soaked.number("latency.total.p99");
    let corrected = soaked.number("latency.corrected.p99");
    assert!(raw < 1_000_000, "{raw}");
    assert!(corrected > raw, "{corrected}, {raw}");
    assert!(soaked.number("latency.total.max") >= 1_900_000);
    let silence = soaked.number("latency.longest_silence_us");
    assert!(silence >= 1_900_000, "{silence}");
    let notes = soaked.notes();
    assert!(
        notes.contains("silen") || notes.contains("coordinated"),
        "{notes}"
    );
    assert_eq!(soaked.at("load.model"), "closed");
}

#[test]
fn a_stall_can_fail_a_run() {
    let flags = "-q 200 -z 4s --fail-if p99>1s,errors>0";
    let (_, soaked) = soak_liar(stalling_at(200, STALL), flags);
    soaked.assert_fail();
    assert_eq!(soaked.threshold("p99>1s"), "failed");
    assert!(soaked.stdout.contains("p99>1s"), "{}", soaked.stdout);
    assert_eq!(soaked.threshold("errors>0"), "held");
}

// ---- lies about rest ----

/// A run against the leaky server that watches it.
fn soak_leaky(flags: &str) -> Option<Soaked> {
    if !has_tool("python3") {
        return None;
    }
    let (folder, _) = body();
    let leaky = Script::leaky(&folder.path().join("body"));
    let words = format!(
        "{} body --pid {} --settle 300ms {flags}",
        leaky.addr,
        leaky.pid()
    );
    Some(soak_words(&words))
}

#[test]
fn descriptors_that_are_left_fail_a_run() {
    for flags in ["-n 300 --fail-if fd_left>0", "-n 300"] {
        let Some(soaked) = soak_leaky(flags) else {
            return;
        };
        soaked.assert_fail();
        assert_eq!(soaked.threshold("fd_left>0"), "failed");
        assert_eq!(soaked.count("complete"), 300);
        let number = |path| soaked.at(path).as_f64().unwrap();
        let left = number("server.descriptors.after") - number("server.descriptors.before");
        assert_eq!(left, 300.0);
    }
}

#[test]
fn slopes_fail_a_run() {
    let thresholds = "fd_slope>0.1/min,rss_slope>10kB/min";
    // Ten arrivals a sample would leave residuals that only drift, which tell next to nothing.
    let flags = "-q 200 -z 3s --sample-every 47ms --warm-up 100ms";
    let Some(soaked) = soak_leaky(&format!("{flags} --fail-if {thresholds}")) else {
        return;
    };
    soaked.assert_fail();
    for threshold in thresholds.split(',') {
        assert_eq!(soaked.threshold(threshold), "failed", "{soaked:#?}");
    }
    // Two hundred a second.
    let low = soaked.at("server.descriptors.slope.fitted.low").as_f64();
    let high = soaked.at("server.descriptors.slope.fitted.high").as_f64();
    assert!(
        low < Some(12_500.0) && high > Some(11_500.0),
        "{low:?} to {high:?}"
    );
}

#[test]
fn a_cache_and_a_collected_heap_are_no_leaks() {
    if !has_tool("python3") {
        return;
    }
    let (folder, _) = body();
    let body = folder.path().join("body");
    for how in ["cache", "collect"] {
        let server = Script::keeping(&body, how);
        let flags = "--rate 200 -z 4s --sample-every 40ms --warm-up 1s";
        let words = format!("{} body --pid {} {flags}", server.addr, server.pid());
        let soaked = soak_words(&words);
        for threshold in ["fd_left>0", "rss_leak>0/h", "fd_leak>0/h"] {
            assert_ne!(soaked.threshold(threshold), "failed", "{how}: {soaked:#?}");
        }
        // One was opened with the first download, and no more with the later ones.
        assert_eq!(soaked.threshold("fd_left>0"), "held", "{how}: {soaked:#?}");
    }
}

#[test]
fn a_pass_names_what_it_would_have_found() {
    let (server, soaked) = soak_liar(honest, FIVE_LIES);
    soaked.assert_pass();
    assert_eq!(server.downloads(), 1000);
    for says in [
        "would have found, 95 times in 100",
        "- errors: one in 333",
        "- wrong bytes: one body in 333",
    ] {
        assert!(soaked.stdout.contains(says), "{}", soaked.stdout);
    }
    let finds = soaked.at("verdict.finds").as_array().unwrap();
    assert_eq!(finds[0]["per_request"], 0.003);
    let soaked = soak_words(&format!("{} body -n 20 -c 1", server.addr));
    assert!(
        soaked.stdout.contains("NOTHING WAS COMPARED"),
        "{soaked:#?}"
    );
}

#[test]
fn what_cannot_be_told_is_no_pass() {
    // The one condition has an interval on both sides: of 20 requests none tells of the slowest hundredth.
    let (server, soaked) = soak_liar(honest, "-n 20 -c 1 --fail-if p99>1h");
    soaked.assert_undecided();
    assert_eq!(soaked.threshold("p99>1h"), "undecided");
    // Nothing is complete, and the condition is on something else.
    for flags in [
        "missing --fail-if silence>1h",
        "body missing --fail-if silence>1h",
    ] {
        let soaked = soak_words(&format!("{} {flags} -n 100 -c 2", server.addr));
        soaked.assert_undecided();
        assert!(
            soaked.stdout.contains("'missing' never came"),
            "{soaked:#?}"
        );
    }
    let soaked = soak_words(&format!(
        "{} missing -n 9 -c 1 --fail-if silence>1h",
        server.addr
    ));
    assert!(
        soaked.stdout.contains("nothing was complete"),
        "{soaked:#?}"
    );
}

#[test]
fn a_slope_of_too_few_samples_is_no_verdict() {
    let Some(soaked) = soak_leaky("-n 50 --fail-if fd_slope>0.1/min") else {
        return;
    };
    assert_eq!(soaked.threshold("fd_slope>0.1/min"), "not_enough_data");
    assert!(
        soaked.stdout.contains("not enough data"),
        "{}",
        soaked.stdout
    );
    soaked.assert_undecided();
}

// ---- the truth ----

#[test]
fn an_honest_server_passes_the_whole_mix() {
    let root = root_with(&[("small", pattern(1, 500)), ("large", pattern(2, 9_000))]);
    let carafe = Carafe::serve(root.path(), &["--request-timeout", "2s"]);
    let soaked = soak_words(&format!(
        "{} small large --pid {} --against {} --mix {WHOLE_MIX} -c 100 -n 1000",
        carafe.addr(),
        carafe.pid(),
        word(root.path())
    ));
    soaked.assert_pass();
    for threshold in ["errors>0", "fd_left>0", "corrupt>0", "short>0"] {
        assert_eq!(soaked.threshold(threshold), "held");
    }
    assert_eq!(soaked.started(), 1000);
    for class in ["complete", "aborted"] {
        assert!(soaked.count(class) > 0, "{class}");
    }
    assert_eq!(soaked.at("server.name"), "carafe");
    let log = carafe.stop();
    assert!(log.contains(" accepted 1000, "), "{log}");
    assert!(crate::common::reply_count(&log, "complete") >= soaked.count("complete"));
}

#[test]
fn each_kind_alone_does_what_it_is_for() {
    let bytes = pattern(1, 9_000);
    let root = root_with(&[("body", &bytes)]);
    for (kind, class, reason) in [
        ("fast", "complete", "complete"),
        ("slow", "complete", "complete"),
        ("halfclose", "complete", "complete"),
        ("split", "complete", "complete"),
        ("abort", "aborted", ""),
        ("idle", "idle_closed", "request timeout"),
    ] {
        let carafe = Carafe::serve(root.path(), &["--request-timeout", "2s"]);
        let soaked = soak_words(&format!(
            "{} body --against {} --mix {kind}=100% -c 20 -n 20",
            carafe.addr(),
            word(root.path())
        ));
        soaked.assert_pass();
        assert_eq!(soaked.count(class), 20, "{kind}: {soaked:#?}");
        let log = carafe.stop();
        assert!(log.contains("accepted 20, "), "{kind}: {log}");
        if !reason.is_empty() {
            let count = crate::common::reply_count(&log, reason)
                + crate::common::reason_count(&log, reason);
            assert_eq!(count, 20, "{kind}: {log}");
        }
    }
}

#[test]
fn the_tutorials_server_takes_names_without_an_end() {
    if !has_tool("python3") {
        return;
    }
    let (folder, _) = body();
    let tutorial = Script::tutorial(folder.path());
    let against = word(folder.path());
    let words = format!("{} body --unterminated --against {against}", tutorial.addr);
    let soaked = soak_words(&format!("{words} -c 4 -n 200"));
    soaked.assert_pass();
    assert_eq!(soaked.count("complete"), 200);
}

#[test]
fn a_server_that_dies_is_noticed() {
    let (folder, _) = body();
    let carafe = Carafe::serve(folder.path(), &[]);
    let (addr, pid) = (carafe.addr().to_string(), carafe.pid().to_string());
    let run = Soak::start(&[
        &addr[..],
        "body",
        "-q",
        "100",
        "-z",
        "2s",
        "--pid",
        &pid,
        "--sample-every",
        "50ms",
    ]);
    carafe.wait_for_log(" complete\n");
    carafe.signal(rustix::process::Signal::KILL);
    carafe.wait();
    let soaked = run.wait();
    soaked.assert_fail();
    assert_eq!(soaked.at("server.died"), true);
    assert!(soaked.count("refused") > 0, "{soaked:#?}");
}

#[test]
#[ignore = "twenty seconds; .ci/run asks for it by name"]
fn twenty_seconds_of_the_whole_mix_have_no_wrong_byte_and_flat_descriptors() {
    let files: Vec<_> = (0..20u32)
        .map(|n| (format!("file-{n:02}"), pattern(n.into(), 1 << (n % 15))))
        .collect();
    let root = root_with(&files);
    // The load pauses, so who says nothing is closed between two pauses.
    let carafe = Carafe::serve(root.path(), &["--request-timeout", "2s"]);
    let (addr, pid) = (carafe.addr().to_string(), carafe.pid().to_string());
    let mut args = vec![&addr[..]];
    args.extend(files.iter().map(|(name, _)| &name[..]));
    args.extend(["--against", word(root.path()), "--mix", WHOLE_MIX, "--zipf"]);
    args.extend([
        "-c",
        "200",
        "-z",
        "20s",
        "--pid",
        &pid,
        "--sample-every",
        "250ms",
    ]);
    args.extend(["--fail-if", "errors>0,fd_left>0"]);
    let soaked = soak(&args);
    soaked.assert_pass();
    for class in ["complete", "aborted", "idle_closed"] {
        assert!(soaked.count(class) > 0, "{class}");
    }
    // Twenty seconds are too few for a slope.
    assert_eq!(soaked.threshold("fd_left>0"), "held", "{soaked:#?}");
    assert_eq!(soaked.number("verification.corrupt"), 0);
    assert!(soaked.number("verification.bytes") > 0);
    let log = carafe.stop();
    assert!(
        log.contains(&format!(" accepted {}, ", soaked.started())),
        "{log}"
    );
}
