//! `carafe soak http://…`: servers that keep connections or close them, frame their answers in
//! every way, and lie.

use std::thread;
use std::time::Duration;

use crate::common::{has_tool, pattern, root_with, shell};
use crate::liars::http::{Style, serve};
use crate::liars::scripts::Script;
use crate::liars::{Answer, Bodies, Server, bare, honest, now_and_then};
use crate::soaking::{Soaked, soak_words, word};
use tempfile::TempDir;

const STYLES: [Style; 5] = [
    Style::KeptAlive,
    Style::Closed,
    Style::TenEach,
    Style::Chunked,
    Style::UntilClose,
];

const FIVE_LIES: &str = "-n 1000 -c 4 --timeout 1s";

/// The files `body` and `none`, which is empty, in a folder and for servers.
fn bodies() -> (TempDir, Bodies) {
    let files = [("body", pattern(3, 20_011)), ("none", Vec::new())];
    let folder = root_with(&files);
    (
        folder,
        files.map(|(name, bytes)| (name.into(), bytes)).into(),
    )
}

/// A server, and a run against it that compares with the files.
fn soak_http(
    style: Style,
    choose: impl Fn(u64) -> Answer + Send + Sync + 'static,
    flags: &str,
) -> (Server, Soaked) {
    let (folder, bodies) = bodies();
    let server = serve(bodies, style, choose);
    let against = word(folder.path());
    let words = format!("http://{}/body --against {against} {flags}", server.addr);
    (server, soak_words(&words))
}

#[test]
fn the_servers_speak_http() {
    if !has_tool("curl") {
        return;
    }
    for style in STYLES {
        let (_folder, bodies) = bodies();
        let server = serve(bodies.clone(), style, honest);
        let url = format!("http://{}/body", server.addr);
        let got = shell("curl -sSf \"$1\" \"$1\"", &[url.as_ref(), url.as_ref()]);
        assert!(
            got == [&bodies["body"][..], &bodies["body"]].concat(),
            "{style:?}"
        );
        let is_kept = !matches!(style, Style::Closed | Style::UntilClose);
        assert_eq!(
            server.connections(),
            if is_kept { 1 } else { 2 },
            "{style:?}"
        );
        assert_eq!(server.downloads(), 2);
    }
}

#[test]
fn honest_servers_of_every_style_pass() {
    for style in STYLES {
        for flags in ["", "--no-keep-alive"] {
            let (server, soaked) = soak_http(style, honest, &format!("-n 300 -c 3 {flags}"));
            soaked.assert_pass();
            assert_eq!(soaked.count("complete"), 300, "{style:?} {flags}");
            assert_eq!(server.downloads(), 300);
            assert_eq!(soaked.number("verification.bytes"), 300 * 20_011);
            assert_eq!(soaked.number("load.body_bytes"), 300 * 20_011);
            let connections = match (style, flags) {
                (_, "--no-keep-alive") | (Style::Closed | Style::UntilClose, _) => 300..=300,
                (Style::TenEach, _) => 30..=33,
                _ => 3..=3,
            };
            let got = server.connections();
            assert!(connections.contains(&got), "{style:?} {flags}: {got}");
        }
    }
}

#[test]
fn an_empty_file_is_no_failure() {
    for style in STYLES {
        let (folder, bodies) = bodies();
        let server = serve(bodies, style, honest);
        let urls = format!("http://{0}/none http://{0}/body", server.addr);
        for check in [
            format!("--against {}", word(folder.path())),
            "--verify".into(),
        ] {
            soak_words(&format!("{urls} -n 100 -c 2 {check}")).assert_pass();
        }
    }
}

/// Runs against one lie in each two hundred downloads, for each style; gives the last sample.
#[track_caller]
fn caught(styles: &[Style], lie: Answer, class: &str) -> String {
    let mut sample = String::new();
    for &style in styles {
        let (server, soaked) = soak_http(style, now_and_then(lie), FIVE_LIES);
        sample = soaked.assert_caught(class, 5).into();
        assert!(sample.contains("/body"), "{style:?}: {sample}");
        assert_eq!(server.downloads(), 1000, "{style:?}");
    }
    sample
}

#[test]
fn answers_that_end_before_their_length_are_short() {
    caught(
        &[Style::KeptAlive, Style::Closed, Style::Chunked],
        Answer::Cut(7_001),
        "short",
    );
    // Without a length, only the file tells.
    let sample = caught(&[Style::UntilClose], Answer::Cut(7_001), "short");
    assert!(sample.contains("7001"), "{sample}");
}

#[test]
fn a_wrong_byte_is_found_at_its_offset() {
    for style in [Style::KeptAlive, Style::Chunked, Style::UntilClose] {
        let sample = caught(&[style], Answer::Flipped(12_345), "corrupt");
        assert!(sample.contains("offset 12345"), "{style:?}: {sample}");
    }
}

#[test]
fn a_byte_too_many_is_a_wrong_one() {
    let sample = caught(
        &[Style::KeptAlive, Style::Chunked],
        Answer::OneTooMany,
        "corrupt",
    );
    assert!(sample.contains("offset 20011"), "{sample}");
}

#[test]
fn resets_and_silence_have_their_names() {
    let styles = [Style::KeptAlive, Style::Closed];
    // On a kept connection it may be the server's right.
    caught(&styles[1..], Answer::Reset(0), "reset_before_first_byte");
    caught(&styles, Answer::Reset(7_001), "reset_after_first_byte");
    caught(&styles[..1], Answer::Silent(0), "timeout");
    caught(&styles[..1], Answer::Silent(7_001), "timeout");
}

#[test]
fn another_status_fails() {
    let sample = caught(
        &[Style::KeptAlive, Style::Closed],
        Answer::NotFound,
        "status",
    );
    assert!(sample.contains("404"), "{sample}");
}

#[test]
fn what_is_no_answer_fails() {
    caught(
        &[Style::KeptAlive, Style::Closed],
        Answer::Garbage,
        "bad_answer",
    );
}

#[test]
fn a_length_that_is_not_kept_is_found_without_comparing() {
    for style in [Style::KeptAlive, Style::Chunked] {
        let (_folder, bodies) = bodies();
        let server = serve(bodies, style, now_and_then(Answer::Cut(7_001)));
        let soaked = soak_words(&format!("http://{}/body {FIVE_LIES}", server.addr));
        soaked.assert_caught("short", 5);
    }
}

#[test]
fn the_whole_mix_passes_over_http() {
    for style in [Style::KeptAlive, Style::Closed, Style::Chunked] {
        let mix = "fast=75%,slow=10%,abort=5%,halfclose=5%,split=5%";
        let (_, soaked) = soak_http(style, honest, &format!("--mix {mix} -c 20 -n 200"));
        soaked.assert_pass();
        assert!(soaked.count("aborted") > 0, "{soaked:#?}");
    }
}

#[test]
fn pythons_own_server_passes() {
    if !has_tool("python3") {
        return;
    }
    let (folder, _) = bodies();
    let python = Script::http_server(folder.path());
    let words = format!(
        "http://{}/body --against {}",
        python.addr,
        word(folder.path())
    );
    let soaked = soak_words(&format!("{words} -c 3 -n 150 --pid {}", python.pid()));
    soaked.assert_pass();
    assert_eq!(soaked.count("complete"), 150);
    let soaked = soak_words(&format!("http://{}/missing -c 1 -n 5", python.addr));
    let sample = soaked.assert_caught("status", 5);
    assert!(sample.contains("404"), "{sample}");
}

// ---- connections that are kept alive ----

#[test]
fn arrivals_find_room_as_soon_as_there_is_some() {
    for flags in ["", "--no-keep-alive", "--mix fast=70%,halfclose=30%"] {
        let (server, soaked) = soak_http(
            Style::KeptAlive,
            honest,
            &format!("-q 100 -c 2 -n 200 {flags}"),
        );
        soaked.assert_pass();
        assert_eq!(server.downloads(), 200, "{flags}");
        assert!(soaked.number("load.clients_max") <= 2, "{flags}");
    }
}

#[test]
fn a_connection_that_is_half_closed_or_slow_carries_one_request() {
    for load in [
        "-c 5 --mix halfclose=100%",
        "-q 200 --mix halfclose=100%",
        "-q 200 --mix slow=100%",
    ] {
        let flags = format!("-n 50 --slow-rate 1MiB {load}");
        let (server, soaked) = soak_http(Style::KeptAlive, honest, &flags);
        soaked.assert_pass();
        assert_eq!(server.connections(), 50, "{load}");
    }
}

#[test]
fn what_finds_its_kept_connection_closed_is_asked_again() {
    for load in ["-c 3", "--rate 200 -c 3"] {
        let (server, soaked) = soak_http(Style::TenUnsaid, honest, &format!("-n 300 {load}"));
        soaked.assert_pass();
        assert_eq!(soaked.count("complete"), 300, "{load}");
        assert_eq!(server.downloads(), 300);
        assert!(soaked.number("outcomes.asked_again") > 0, "{load}");
        assert!(soaked.notes().contains("a second time"), "{soaked:#?}");
    }
    // A reset that comes after the request looks the same to who sent it; a condition can forbid it.
    let flags = format!("{FIVE_LIES} --fail-if asked_again>0");
    let (server, soaked) = soak_http(Style::KeptAlive, now_and_then(Answer::Reset(0)), &flags);
    soaked.assert_fail();
    // What comes on a connection that is new by then is a failure.
    let asked_again = soaked.number("outcomes.asked_again");
    assert!((1..=5).contains(&asked_again), "{soaked:#?}");
    assert_eq!(soaked.count("complete"), 995 + asked_again);
    assert_eq!(server.downloads(), 1000 + asked_again);
}

#[test]
fn a_length_with_a_sign_is_none_and_odd_heads_are_read() {
    let many: String = (0..65).map(|n| format!("X-{n}: y\r\n")).collect();
    for (fields, class) in [
        ("Content-Length: +5\r\n".to_owned(), "bad_answer"),
        (format!("{many}Content-Length: 5\r\n"), "complete"),
        (
            "X-Odd: a\r\n b\r\nContent-Length: 5\r\n".to_owned(),
            "complete",
        ),
    ] {
        let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\nsorry");
        let server = bare(Bodies::new(), move |_| Answer::Raw(head.clone().leak()));
        let soaked = soak_words(&format!(
            "http://{}/a -c 1 -n 3 --no-keep-alive",
            server.addr
        ));
        assert_eq!(soaked.count(class), 3, "{soaked:#?}");
    }
}

/// A single client's requests take no less than the server's time, and together no more than the run's.
#[test]
fn a_latency_is_the_servers_time_and_no_more_than_the_runs() {
    let service = Duration::from_millis(20);
    let slow = move |_| {
        thread::sleep(service);
        Answer::Whole
    };
    for keeping in ["", "--no-keep-alive"] {
        let (_server, soaked) = soak_http(Style::KeptAlive, slow, &format!("-c 1 -n 10 {keeping}"));
        soaked.assert_pass();
        let [p50, max] = ["p50", "max"].map(|name| {
            let at = format!("latency.total.{name}");
            soaked.at(&at).as_f64().unwrap() / 1e6
        });
        let least = service.as_secs_f64() * 0.99; // A histogram's bucket is narrower than 1 %.
        assert!(least <= p50 && p50 <= max, "{soaked:#?}");
        let run = soaked.at("load.seconds").as_f64().unwrap();
        assert!(
            p50 * 5.0 <= run * 1.01,
            "half of ten took as long: {soaked:#?}"
        );
    }
}
