//! `carafe soak` as its users meet it: how much load, which names, who the clients are, where the
//! report goes, and what is refused before anybody connects.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::common::{
    Carafe, ENDED, has_tool, pattern, raise_own_limit, root_with, shell, skip, until,
};
use crate::fake::Untouched;
use crate::liars::{Answer, Bodies, bare, honest};
use crate::soaking::{Soak, Soaked, soak, soak_words, word};
use rustix::process::Signal;
use tempfile::TempDir;

/// A folder with five files, and carafe that serves it.
fn five_files() -> (TempDir, Carafe) {
    let files = ["ant", "bee", "cat", "dog", "elk"].map(|name| (name, pattern(5, 1_000)));
    let root = root_with(&files);
    let carafe = Carafe::serve(root.path(), &[]);
    (root, carafe)
}

/// The names that the log's lines tell, in their order.
fn names(log: &str) -> Vec<String> {
    let lines = log.lines().filter(|line| line.contains(ENDED));
    let name = |line: &str| Some(line.split('"').nth(1)?.to_owned());
    lines.filter_map(name).collect()
}

// ---- how much, and what ----

#[test]
fn as_many_requests_are_started_as_were_asked_for() {
    for load in [
        "-c 7",
        "-c 7 --ramp 200ms",
        "-q 500",
        "-q 500 --ramp 200ms",
        "-c 50",
    ] {
        let (_root, carafe) = five_files();
        let soaked = soak_words(&format!("{} ant -n 33 {load}", carafe.addr()));
        soaked.assert_pass();
        assert_eq!(
            (soaked.started(), soaked.count("complete")),
            (33, 33),
            "{load}"
        );
        assert_eq!(soaked.number("load.never_started"), 0);
        let log = carafe.stop();
        assert!(log.contains(" accepted 33, closed 33;"), "{load}: {log}");
    }
}

#[test]
fn a_duration_ends_a_run_and_counts_what_is_under_way() {
    let (_root, carafe) = five_files();
    let soaked = soak_words(&format!("{} ant bee -c 5 -z 500ms", carafe.addr()));
    soaked.assert_pass();
    assert!(soaked.number("load.clients_max") <= 5);
    assert!(soaked.count("unfinished") <= 5, "{soaked:#?}");
    assert_eq!(soaked.at("verdict.cut_short"), false);
    let log = carafe.stop();
    assert!(
        log.contains(&format!(" accepted {}, ", soaked.started())),
        "{log}"
    );
}

#[test]
fn the_open_model_lasts_as_long_as_it_was_asked_to() {
    let (_root, carafe) = five_files();
    let soaked = soak_words(&format!("{} ant --rate 2 -z 1s", carafe.addr()));
    soaked.assert_pass();
    assert_eq!(soaked.started(), 2);
    assert_eq!(soaked.at("load.seconds").as_f64(), Some(1.0));
    assert_eq!(soaked.at("load.rate_started").as_f64(), Some(2.0));
}

#[test]
fn a_load_that_is_not_offered_is_no_pass() {
    let (_root, carafe) = five_files();
    let soaked = soak_words(&format!("{} ant -q 1000000 -c 50 -z 1s", carafe.addr()));
    soaked.assert_not_offered();
    assert!(soaked.number("load.never_started") > 0);
    assert!(soaked.at("load.rate_started").as_f64() < Some(1e6));
    assert_eq!(soaked.at("load.rate_asked").as_f64(), Some(1e6));
}

#[test]
fn load_that_comes_late_is_no_pass() {
    let slow = |_| {
        std::thread::sleep(Duration::from_millis(10));
        Answer::Whole
    };
    let server = bare(Bodies::from([("ant".into(), b"ant".to_vec())]), slow);
    let soaked = soak_words(&format!("{} ant -q 1000 -c 1 -n 100", server.addr));
    soaked.assert_not_offered();
    assert_eq!(soaked.count("complete"), 100);
    assert_eq!(soaked.number("load.never_started"), 0);
    assert!(soaked.number("load.started_late") > 0);
    // Nothing is started long after the end.
    let soaked = soak_words(&format!("{} ant -q 1000 -c 1 -z 1s", server.addr));
    soaked.assert_not_offered();
    assert!(soaked.started() < 200, "{soaked:#?}");
    assert_eq!(soaked.started() + soaked.number("load.never_started"), 1000);
}

#[test]
fn a_full_house_takes_no_descriptor_too_many() {
    let (_root, carafe) = five_files();
    for load in ["-q 1000000", "-c 268"] {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n 300; exec \"$0\" \"$@\""]);
        command.args([env!("CARGO_BIN_EXE_carafe"), "soak"]);
        command.args([&carafe.addr().to_string(), "ant", "-n", "5000"]);
        command.args(load.split(' '));
        let soaked = Soak::start_command(command).wait();
        assert_eq!(soaked.count("complete"), 5000, "{soaked:#?}");
        assert!(soaked.number("load.clients_max") <= 268);
    }
}

#[test]
fn more_clients_than_descriptors_is_no_pass() {
    let (_root, carafe) = five_files();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 40; exec \"$0\" \"$@\""]);
    command.args([env!("CARGO_BIN_EXE_carafe"), "soak"]);
    command.args([&carafe.addr().to_string(), "ant", "-c", "100", "-n", "1000"]);
    command.args(["--mix", "idle=100%"]);
    let soaked = Soak::start_command(command).wait();
    assert_eq!(soaked.code, Some(2), "{soaked:#?}");
    let said = format!("{}{}", soaked.stdout, soaked.stderr);
    assert!(said.contains("descriptor"), "{said}");
}

#[test]
fn a_seed_replays_the_choices() {
    let asked = |seed: &str| {
        let (_root, carafe) = five_files();
        let words = format!("{} ant bee cat dog elk --zipf -n 300 -c 1", carafe.addr());
        let soaked = soak_words(&format!("{words} --seed {seed}"));
        soaked.assert_pass();
        assert_eq!(soaked.number("seed").to_string(), seed);
        let names = names(&carafe.stop());
        assert_eq!(names.len(), 300);
        names
    };
    let first = asked("7");
    assert_eq!(first, asked("7"));
    assert_ne!(first, asked("8"));
    // The first name is asked for more often than the last one, which is asked for too.
    let count = |name: &str| first.iter().filter(|asked| *asked == name).count();
    assert!(count("ant") > count("elk") && count("elk") > 0);
}

#[test]
fn a_run_without_a_seed_names_the_one_it_took() {
    let (_root, carafe) = five_files();
    let run = || soak_words(&format!("{} ant -n 1 -c 1", carafe.addr()));
    let (first, second) = (run(), run());
    assert_ne!(first.number("seed"), second.number("seed"));
    let seed = first.number("seed").to_string();
    assert!(first.stdout.contains(&seed), "{}", first.stdout);
}

#[test]
fn names_may_come_from_a_file() {
    let (root, carafe) = five_files();
    let list = root.path().join("list");
    fs::write(&list, "bee\ncat\n").unwrap();
    let words = format!("{} --names-from {} -n 50 -c 2", carafe.addr(), word(&list));
    let soaked = soak_words(&words);
    soaked.assert_pass();
    assert_eq!(soaked.number("names_total"), 2);
    let soaked = soak_words(&format!("{words} ant"));
    assert_eq!(soaked.number("names_total"), 3);
    let asked: BTreeSet<_> = names(&carafe.stop()).into_iter().collect();
    assert!(asked.contains("bee") && asked.contains("cat"), "{asked:?}");
    assert!(!asked.contains("dog"), "{asked:?}");
}

#[test]
fn clients_are_spread_over_addresses() {
    let (_root, carafe) = five_files();
    let words = format!("{} ant -n 200 -c 8 --source 127.0.1.0/28", carafe.addr());
    soak_words(&words).assert_pass();
    let log = carafe.stop();
    let lines = log.lines().filter(|line| line.contains("\"ant\""));
    let address = |line: &str| -> u8 {
        let rest = line.split_once("] 127.0.1.").expect("one of them").1;
        rest.split(':').next().unwrap().parse().unwrap()
    };
    let addresses: BTreeSet<_> = lines.map(address).collect();
    assert!(addresses.len() > 8, "{addresses:?}");
    assert!(addresses.iter().all(|&last| last < 16), "{addresses:?}");
}

#[test]
fn thousands_of_clients_take_less_than_a_kilobyte_each() {
    const MANY: u64 = 10_000;
    // Three quarters of the server's descriptors are for connections.
    if raise_own_limit() < MANY * 4 / 3 + 300 {
        return skip("10000-clients", "descriptors don't allow so many");
    }
    let root = root_with(&[("ant", "ant")]);
    let carafe = Carafe::serve(root.path(), &["--request-timeout", "5m"]);
    let run = |clients: u64, time: &str| {
        let soaked = soak_words(&format!(
            "{} ant --mix idle=100% --timeout 5m -c {clients} -n {clients} -z {time}",
            carafe.addr()
        ));
        soaked.assert_pass();
        assert_eq!(soaked.count("unfinished"), clients);
        assert_eq!(soaked.number("load.clients_max"), clients);
        soaked.number("generator.rss_max_bytes")
    };
    let (few, many) = (run(10, "1s"), run(MANY, "4s"));
    let each = many.saturating_sub(few) / MANY;
    assert!(each < 1024, "{each} bytes for a client");
}

// ---- an early end ----

#[test]
fn an_interrupt_ends_a_run_with_its_report() {
    for (signal, load) in [(Signal::INT, ["-c", "4"]), (Signal::TERM, ["-q", "200"])] {
        let (_root, carafe) = five_files();
        let addr = carafe.addr().to_string();
        let run = Soak::start(&[&addr, "ant", "-z", "10m", load[0], load[1]]);
        carafe.wait_for_log(" complete\n");
        run.signal(signal);
        let soaked = run.wait();
        soaked.assert_pass();
        assert_eq!(soaked.at("verdict.cut_short"), true);
        assert!(soaked.stdout.contains("cut short"), "{}", soaked.stdout);
        assert!(soaked.count("complete") > 0);
        let log = carafe.stop();
        assert!(
            log.contains(&format!(" accepted {}, ", soaked.started())),
            "{log}"
        );
    }
}

#[test]
fn an_interrupt_before_the_load_is_no_pass() {
    for load in ["-c 4", "-q 200"] {
        let mute = bare(Bodies::new(), |_| Answer::Silent(0));
        let addr = mute.addr.to_string();
        let mut words = vec![&*addr, "ant", "--verify", "-z", "10m"];
        words.extend(load.split(' '));
        let run = Soak::start(&words);
        until("the first download is asked for", || mute.downloads() == 1);
        run.signal(Signal::INT);
        let soaked = run.wait();
        soaked.assert_not_offered();
        assert_eq!(soaked.started(), 0);
        assert_eq!(soaked.at("verdict.cut_short"), true);
    }
}

// ---- the report ----

/// A run against an honest server that writes a page; and the page.
fn page(flags: &str) -> (Soaked, TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let server = bare(Bodies::from([("body".into(), pattern(3, 5_000))]), honest);
    let path = folder.path().join("report.html");
    let words = format!("{} body -z 2s -c 4 --verify {flags}", server.addr);
    let soaked = soak_words(&format!("{words} --report {}", word(&path)));
    let page = fs::read_to_string(&path).unwrap();
    (soaked, folder, page)
}

#[test]
fn the_page_is_complete_in_itself() {
    let (soaked, _folder, page) = page("");
    soaked.assert_pass();
    assert!(page.starts_with("<!DOCTYPE html>"), "{page}");
    let lower = page.to_lowercase();
    for from_elsewhere in [
        "<link",
        "@import",
        "url(http",
        "src=\"http",
        "src=\"//",
        "href=\"http",
        "<iframe",
        "<script src",
    ] {
        assert!(!lower.contains(from_elsewhere), "{from_elsewhere}");
    }
    let plots: Vec<_> = page
        .match_indices("<svg")
        .map(|(start, _)| {
            let end = start + page[start..].find("</svg>").expect("an end") + "</svg>".len();
            &page[start..end]
        })
        .collect();
    assert!(plots.len() >= 4, "{} plots", plots.len());
    for plot in plots {
        roxmltree::Document::parse(plot).unwrap_or_else(|error| panic!("{error}: {plot}"));
    }
    assert!(page.contains(&soaked.number("seed").to_string()));
}

#[test]
fn what_others_say_is_no_part_of_the_page() {
    let name = "<script>alert(1)</script>&\"'";
    let folder = tempfile::tempdir().unwrap();
    let server = bare(Bodies::from([(name.into(), b"body".to_vec())]), honest);
    let (addr, path) = (server.addr.to_string(), folder.path().join("report.html"));
    let soaked = soak(&[&addr, name, "-n", "10", "-c", "1", "--report", word(&path)]);
    soaked.assert_pass();
    let page = fs::read_to_string(&path).unwrap();
    assert!(!page.contains("<script>alert"), "{page}");
    assert!(page.contains("&lt;script&gt;alert"), "{page}");
}

/// The page as a browser has it, once its own work is done.
fn in_chromium(profile: &Path, page: &Path) -> String {
    let script = "chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
         --user-data-dir=\"$1\" --virtual-time-budget=5000 --dump-dom \"file://$2\"";
    let dom = shell(script, &[profile.as_os_str(), page.as_os_str()]);
    String::from_utf8(dom).unwrap()
}

#[test]
fn a_browser_shows_the_page() {
    if !has_tool("chromium") {
        return;
    }
    for (flags, verdict) in [("", "pass"), ("--fail-if p50>1us", "fail")] {
        let (soaked, folder, _) = page(flags);
        assert_eq!(soaked.at("verdict.word"), verdict);
        let dom = in_chromium(folder.path(), &folder.path().join("report.html"));
        let visible = dom.split_once("<body").expect("a body").1.to_lowercase();
        assert!(visible.contains(verdict), "{dom}");
        assert!(visible.contains("<svg"), "{dom}");
    }
}

#[test]
fn a_minus_is_standard_output_and_moves_the_text() {
    let (_root, carafe) = five_files();
    let run = |flag: &str| {
        let addr = carafe.addr().to_string();
        let output = Command::new(env!("CARGO_BIN_EXE_carafe"))
            .args(["soak", &addr, "ant", "-n", "5", flag, "-"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0));
        [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap())
    };
    let [json, text] = run("--json");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["verdict"]["word"], "pass");
    assert!(text.starts_with("PASS"), "{text}");
    assert!(run("--report")[0].starts_with("<!DOCTYPE html>"));
    assert!(run("--summary")[0].starts_with("## PASS"));
    let [xml, _] = run("--junit");
    let document = roxmltree::Document::parse(&xml).unwrap();
    let suite = document.root_element().first_element_child().unwrap();
    assert_eq!(suite.attribute("errors"), Some("0"));
    assert_eq!(suite.attribute("tests"), Some("4"));
    assert!(!Path::new("-").exists());
}

#[test]
fn every_class_can_be_a_condition() {
    let (_root, carafe) = five_files();
    let conditions = "complete<5,aborted>0,idle_closed>0";
    let words = format!("{} ant -n 5 --fail-if {conditions}", carafe.addr());
    let soaked = soak_words(&words);
    soaked.assert_pass();
    for condition in conditions.split(',') {
        assert_eq!(soaked.threshold(condition), "held");
    }
}

#[test]
fn a_ramp_that_was_not_climbed_is_told() {
    let (_root, carafe) = five_files();
    let soaked = soak_words(&format!("{} ant --rate 500 -n 5 --ramp 10s", carafe.addr()));
    assert!(soaked.notes().contains("ramp"), "{soaked:#?}");
}

// ---- what is refused ----

#[test]
fn what_cannot_be_meant_is_refused_in_one_line_before_anybody_connects() {
    let port = Untouched::new();
    let addr = port.address();
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    fs::write(&empty, "").unwrap();
    let missing = folder.path().join("missing");
    let (empty, missing) = (word(&empty), word(&missing));
    for words in [
        format!("{addr}"),
        format!("{addr} --names-from {empty}"),
        format!("{addr} --names-from {missing}"),
        format!("{addr} a --mix fast=50%"),
        format!("{addr} a --mix quick=100%"),
        format!("{addr} a --mix fast=100%,slow=10%"),
        format!("{addr} a --against {missing}"),
        format!("{addr} a --against {empty}"),
        format!("{addr} a --fail-if fd_left>0"),
        format!("{addr} a --fail-if speed>1"),
        format!("{addr} a -q 0"),
        format!("{addr} a -c 0"),
        format!("{addr} a -n 0"),
        format!("{addr} a -z never"),
        format!("{addr} a -z 1s --ramp 2s"),
        format!("{addr} a --ramp 11s"),
        format!("{addr} a --mix fast=98%,idle=2%"),
        format!("{addr} a --zipf much"),
        format!("{addr} a --source 127.0.1.0/99"),
        format!("{addr} a --no-keep-alive"),
        format!("{addr} a http://{addr}/a"),
        format!("http://{addr}/a a"),
        format!("http://{addr}/a --unterminated"),
        format!("http://{addr}/a http://127.0.0.1:1/a"),
        format!("https://{addr}/a http://{addr}/a"),
        format!("https://{addr}/a --cacert {missing}"),
        format!("https://{addr}/a --cacert {empty}"),
        format!("http://{addr}/a --tls --insecure"),
        format!("{addr} a --no-resumption"),
        "http:///a".into(),
        "http://127.0.0.1:65536/a".into(),
        "http://127.0.0.1:0/a".into(),
        "127.0.0.1 a".into(),
    ] {
        soak_words(&words).complaint();
        port.assert(&words);
    }
}

#[test]
fn a_report_that_cannot_be_written_is_refused_before_anybody_connects() {
    let port = Untouched::new();
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("missing/report");
    for flag in ["--json", "--report"] {
        for place in [word(&inside), word(folder.path())] {
            // Without the helper's own --json.
            let output = Command::new(env!("CARGO_BIN_EXE_carafe"))
                .args([
                    "soak",
                    &port.address().to_string(),
                    "a",
                    "-n",
                    "1",
                    flag,
                    place,
                ])
                .output()
                .unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{stderr}");
            assert_eq!(stderr.matches('\n').count(), 1, "{stderr}");
            assert!(stderr.contains(place), "{stderr}");
            port.assert(flag);
        }
    }
    let twice = folder.path().join("twice");
    for _ in 0..2 {
        let soaked = soak_words(&format!(
            "{} a --json {} --report {}/./twice",
            port.address(),
            word(&twice),
            word(folder.path())
        ));
        assert!(soaked.stderr.contains("--json"), "{soaked:#?}");
        port.assert("twice");
        fs::write(&twice, "").unwrap();
    }
}

#[test]
fn a_full_disk_takes_one_copy_of_the_report_and_is_told() {
    let (_root, carafe) = five_files();
    let run = |words: &str| {
        let script = format!("\"$0\" soak {} ant -n 5 {words}", carafe.addr());
        let mut command = Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_carafe")]);
        let output = command.output().unwrap();
        let [stdout, stderr] =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(output.status.code(), Some(3), "{words}: {stderr}");
        assert!(stderr.contains("No space left"), "{stderr}");
        stdout
    };
    assert!(run("--json /dev/full").starts_with("PASS"));
    assert_eq!(run("> /dev/full"), "");
}

#[test]
fn what_this_machine_does_not_have_is_no_load() {
    let port = Untouched::new();
    let addr = port.address();
    for (words, name) in [
        ("host.invalid:1 a".into(), "host.invalid"),
        (format!("{addr} a --pid 999999999"), "999999999"),
        (format!("{addr} a --source 192.0.2.1"), "192.0.2.1"),
        (format!("{addr} a --source ::1"), "::1"),
    ] {
        let soaked = soak_words(&format!("{words} -n 1"));
        // Could not run; or seen early enough to be a usage error.
        assert!(matches!(soaked.code, Some(2 | 3)), "{soaked:#?}");
        let said = format!("{}{}", soaked.stdout, soaked.stderr);
        assert!(said.contains(name), "{said}");
        port.assert(&words);
    }
}

#[test]
fn a_run_leaves_nothing_behind_at_the_server() {
    let (_root, carafe) = five_files();
    let before = carafe.sockets();
    let words = format!("{} ant bee -c 30 -z 500ms", carafe.addr());
    soak_words(&format!("{words} --mix fast=50%,idle=20%,slow=30%")).assert_pass();
    until("all are forgotten", || carafe.sockets() == before);
    carafe.stop();
}
