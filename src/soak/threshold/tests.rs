use super::super::report::*;
use super::*;

fn times(factor: u64) -> Percentiles {
    Percentiles {
        count: 1000,
        p50: factor,
        p90: 2 * factor,
        p99: 3 * factor,
        p999: 4 * factor,
        max: 5 * factor,
        intervals: None,
    }
}

fn server() -> ServerUsage {
    let resource = |unit: f64, slope| Resource {
        before: 4.0 * unit,
        max: 10.0 * unit,
        after: 7.0 * unit,
        left: None,
        slope,
    };
    let fitted = |per_minute, low, high| Slope::Fitted {
        per_minute,
        low,
        high,
        finds: 2.0 * (high - low),
    };
    let rest = Sample {
        at_us: 9_000_000,
        is_quiet: true,
        ..Sample::default()
    };
    ServerUsage {
        pid: 1,
        name: "server".into(),
        died: false,
        samples: vec![rest],
        cpu_percent: 12.5,
        cpu_interval: None,
        rss: resource(1e6, fitted(420e3, 310e3, 530e3)),
        descriptors: resource(1.0, fitted(0.01, -0.02, 0.04)),
    }
}

/// 1,000 requests, of which 5 failed.
fn report() -> Report {
    let class = |class: Class, count| ClassCount {
        class: class.as_str().into(),
        is_failure: class.is_failure(),
        count,
        sample: None,
    };
    Report {
        load: Load {
            rate_started: 100.0,
            rate_ended: 98.5,
            ..Load::default()
        },
        outcomes: Outcomes {
            started: 1000,
            asked_again: 0,
            failed_share: None,
            never_complete: Vec::new(),
            classes: vec![
                class(Class::Complete, 993),
                class(Class::Unfinished, 2),
                class(Class::ResetBefore, 4),
                class(Class::Short, 1),
            ],
        },
        latency: Latency {
            connect: times(10),
            first_byte: times(100),
            total: times(1000),
            corrected: times(10_000),
            longest_silence_us: 1_500_000,
            ..Latency::default()
        },
        verification: Verification {
            against: Against::FirstDownload,
            bodies: 994,
            short: 1,
            ..Verification::default()
        },
        server: Some(server()),
        ..Report::default()
    }
}

fn conditions(text: &str) -> Conditions {
    text.parse()
        .unwrap_or_else(|why| panic!("{text}: it {why}"))
}

fn judge(text: &str, report: &Report) -> (String, ThresholdOutcome) {
    let found = conditions(text).evaluate(report).swap_remove(0);
    assert_eq!(found.text, text);
    (found.measured, found.outcome)
}

#[test]
fn values_are_compared() {
    use ThresholdOutcome::{Failed, Held};
    let report = report();
    for (text, measured, outcome) in [
        ("p50>10ms", "10.000 ms", Held),
        ("p50>=10ms", "10.000 ms", Failed),
        ("p50<10ms", "10.000 ms", Held),
        ("p50<=10ms", "10.000 ms", Failed),
        ("p99 > 29ms 999us", "30.000 ms", Failed),
        ("p99.9>1s", "40.000 ms", Held),
        ("max>49ms", "50.000 ms", Failed),
        ("raw_p90>2ms", "2.000 ms", Held),
        ("ttfb_p99.9>399us", "400 µs", Failed),
        ("connect_max>0", "50 µs", Failed),
        ("silence>1s", "1.500 s", Failed),
        ("errors>5", "5", Held),
        ("errors>4", "5", Failed),
        ("reset_before_first_byte>3", "4", Failed),
        ("timeout>0", "0", Held),
        ("unfinished>1", "2", Failed),
        ("corrupt>0", "0", Held),
        ("short>0", "1", Failed),
        ("error_rate>0.5%", "0.50 %", Held),
        ("error_rate>=.5 %", "0.50 %", Failed),
        ("rate<100", "98.50/s", Failed),
        ("rate_started<100/s", "100.00/s", Held),
        ("cpu>12%", "12.50 %", Failed),
        ("rss_max>10MB", "10.00 MB", Held),
        ("rss_left>2.9MB", "3.00 MB", Failed),
        ("rss_left>2.9MiB", "3.00 MB", Held),
        ("fd_max>10", "10", Held),
        ("fd_left>0", "3", Failed),
    ] {
        assert_eq!(judge(text, &report), (measured.into(), outcome), "{text}");
    }
}

#[test]
fn a_trend_fails_by_its_whole_interval() {
    use ThresholdOutcome::{Failed, Held, Undecided};
    let report = report();
    for (text, measured, outcome) in [
        (
            "rss_slope>400kB/min",
            "420.00 kB/min (99 %: 310.00 to 530.00)",
            Undecided,
        ),
        (
            "rss_slope>600kB/min",
            "420.00 kB/min (99 %: 310.00 to 530.00)",
            Held,
        ),
        (
            "rss_slope>300kB / min",
            "420.00 kB/min (99 %: 310.00 to 530.00)",
            Failed,
        ),
        (
            "rss_slope>=18.6MB/h",
            "25.20 MB/h (99 %: 18.60 to 31.80)",
            Failed,
        ),
        ("rss_slope<5kB/s", "7.00 kB/s (99 %: 5.17 to 8.83)", Held),
        ("rss_leak>0/h", "25.20 MB/h (99 %: 18.60 to 31.80)", Failed),
        ("fd_leak>0/h", "0.60/h (99 %: -1.20 to 2.40)", Held),
        ("rss_slope<9kB/s", "7.00 kB/s (99 %: 5.17 to 8.83)", Failed),
        (
            "fd_slope>0/min",
            "0.010/min (99 %: -0.020 to 0.040)",
            Undecided,
        ),
        ("fd_slope<3/h", "0.60/h (99 %: -1.20 to 2.40)", Failed),
        (
            "fd_slope<0.1/s",
            "0.00017/s (99 %: -0.00033 to 0.00067)",
            Failed,
        ),
    ] {
        assert_eq!(judge(text, &report), (measured.into(), outcome), "{text}");
    }
}

#[test]
fn an_interval_on_both_sides_is_undecided_and_says_how_much_longer() {
    let mut report = report();
    report.latency.corrected.intervals = Some([
        (9_000, Some(11_000)),
        (19_000, Some(22_000)),
        (28_000, Some(31_000)),
        (38_000, None),
    ]);
    let mean = |value, low, high| Interval { value, low, high };
    report.load.rate_intervals = Some([mean(100.0, 99.0, 101.0); 2]);
    report.outcomes.failed_share = Some(mean(0.005, 0.001, 0.012));
    let judged = |text: &str| {
        let found = conditions(text).evaluate(&report).swap_remove(0);
        (found.measured, found.outcome, found.longer.map(f64::round))
    };
    use ThresholdOutcome::{Failed, Held, Undecided};
    for (text, measured, outcome, longer) in [
        ("p50>12ms", "10.00 ms (99 %: 9.00 to 11.00)", Held, None),
        ("p50>8ms", "10.00 ms (99 %: 9.00 to 11.00)", Failed, None),
        (
            "p50>10500us",
            "10.00 ms (99 %: 9.00 to 11.00)",
            Undecided,
            Some(4.0),
        ),
        (
            "p99.9>1h",
            "40.00 ms (99 %: 38.00 or more)",
            Undecided,
            None,
        ),
        ("p99.9>37ms", "40.00 ms (99 %: 38.00 or more)", Failed, None),
        ("max>49ms", "50.000 ms", Failed, None),
        (
            "rate<98",
            "98.50/s (99 %: 97.50 to 99.50)",
            Undecided,
            Some(4.0),
        ),
        (
            "error_rate>1%",
            "0.50 % (99 %: 0.10 to 1.20)",
            Undecided,
            Some(2.0),
        ),
        (
            "rss_slope>400kB/min",
            "420.00 kB/min (99 %: 310.00 to 530.00)",
            Undecided,
            Some(3.0),
        ),
    ] {
        assert_eq!(judged(text), (measured.into(), outcome, longer), "{text}");
    }
}

#[test]
fn nothing_is_said_without_data() {
    let mut report = report();
    report.latency.corrected = Percentiles::default();
    report.outcomes.started = 0;
    let nothing = |text, report: &Report| {
        let (measured, outcome) = judge(text, report);
        assert_eq!(outcome, ThresholdOutcome::NotEnoughData, "{text}");
        assert_eq!(measured, "not enough data", "{text}");
    };
    for text in ["p99>0", "max<1s", "lateness_p99>1ms", "error_rate>0%"] {
        nothing(text, &report);
    }

    let mut flat = server();
    flat.rss.slope = Slope::NotEnoughData;
    report.server = Some(flat);
    nothing("rss_slope>0/min", &report);

    // What is left can't be told of the dead, nor before the load has paused.
    let dead = ServerUsage {
        died: true,
        ..server()
    };
    let restless = ServerUsage {
        samples: Vec::new(),
        ..server()
    };
    for server in [dead, restless] {
        report.server = Some(server);
        nothing("fd_left>0", &report);
        nothing("rss_left>0", &report);
        assert_eq!(judge("fd_max>9", &report).1, ThresholdOutcome::Failed);
    }

    report.server = None;
    for text in ["cpu>1%", "rss_max>0", "fd_left>0", "fd_slope>0/s"] {
        nothing(text, &report);
    }
}

#[test]
fn wrong_and_short_bodies_are_always_looked_at_and_once() {
    let mut report = report();
    let texts = |text: &str| -> Vec<_> {
        let found = conditions(text).evaluate(&report).into_iter();
        found.map(|threshold| threshold.text).collect()
    };
    assert_eq!(texts("p50>1s"), ["p50>1s", "corrupt>0", "short>0"]);
    assert_eq!(
        texts("short > 0,max>1s , p50>1s"),
        ["short > 0", "max>1s", "p50>1s", "corrupt>0"]
    );
    assert_eq!(texts("corrupt>5"), ["corrupt>5", "corrupt>0", "short>0"]);

    // A wrong byte counts, also in a request that ended in another way.
    report.verification.corrupt = 1;
    assert_eq!(judge("corrupt>0", &report).1, ThresholdOutcome::Failed);
    report.verification.corrupt = 0;
    report.verification.against = Against::Nothing;
    let (measured, _) = judge("corrupt>0", &report);
    assert_eq!(measured, "0, but nothing was compared");
}

#[test]
fn the_defaults_are_no_errors_and_nothing_left() {
    assert_eq!(Conditions::default_for(false), conditions("errors>0"));
    assert_eq!(
        Conditions::default_for(true),
        conditions("errors>0,fd_left>0,rss_leak>0/h,fd_leak>0/h")
    );
    let found = Conditions::default_for(true).evaluate(&report());
    let texts: Vec<_> = found.iter().map(|found| found.text.as_str()).collect();
    assert_eq!(texts[..2], ["errors>0", "fd_left>0"]);
    assert_eq!(texts[4..], ["corrupt>0", "short>0"]);
}

#[test]
fn what_needs_a_process_says_so() {
    for text in [
        "cpu>1%",
        "rss_max>0",
        "p50>1s,rss_left>0",
        "rss_slope>0/s",
        "fd_max>1",
        "fd_left>0",
        "fd_slope>0/s",
    ] {
        assert!(conditions(text).needs_pid(), "{text}");
    }
    for text in [
        "p99>1s",
        "errors>0,rate<5",
        "lateness_p50>1ms",
        "silence>1s",
    ] {
        assert!(!conditions(text).needs_pid(), "{text}");
    }
}

#[test]
fn every_class_can_be_named() {
    for class in Class::ALL {
        let text = format!("{}>0", class.as_str());
        assert!(text.parse::<Conditions>().is_ok(), "{text}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    for (text, why) in [
        ("", "in '', a metric, one of"),
        ("p99", "in 'p99', a metric, one of"),
        ("p99=5ms", "in 'p99=5ms', a metric, one of"),
        ("p99>5ms,", "in '', a metric, one of"),
        ("p99>5ms,quick>0", "in 'quick>0', 'quick' is no metric"),
        (">5ms", "'' is no metric"),
        ("p98>5ms", "'p98' is no metric"),
        ("P99>5ms", "'P99' is no metric"),
        ("raw_p99.99>5ms", "'raw_p99.99' is no metric"),
        ("raw_errors>5", "'raw_errors' is no metric"),
        ("completed>5", "'completed' is no metric"),
        ("p99>", "the value must be a time"),
        ("p99>50", "the value must be a time"),
        ("p99>-5ms", "the value must be a time"),
        ("p99>>5ms", "the value must be a time"),
        ("p99=>5ms", "'p99=' is no metric"),
        ("p99>5MB", "the value must be a time"),
        ("p99>5%", "the value must be a time"),
        ("errors>1%", "the value must be a whole number"),
        ("errors>-1", "the value must be a whole number"),
        ("fd_left>1.5", "the value must be a whole number"),
        ("fd_max>1kB", "the value must be a whole number"),
        ("error_rate>0.01", "the value must be a share"),
        ("error_rate>NaN%", "the value must be a share"),
        ("cpu>50", "the value must be a share"),
        ("rate<inf", "the value must be a number a second"),
        ("rate<5/min", "the value must be a number a second"),
        ("rss_max>5ms", "the value must be a number of bytes"),
        ("rss_left>1MB/min", "the value must be a number of bytes"),
        ("rss_slope>1MB", "the value must be bytes per"),
        ("rss_slope>1MB/day", "the value must be bytes per"),
        ("fd_slope>0.1", "the value must be a number per"),
        ("fd_slope>1MB/min", "the value must be a number per"),
    ] {
        let message = text.parse::<Conditions>().expect_err(text);
        assert!(message.starts_with("takes "), "{message}");
        assert!(message.contains(why), "{text}: {message}");
        for metric in ["p99.9", "ttfb_", "rss_slope", "bad_answer", "unfinished"] {
            assert!(message.contains(metric), "{message}");
        }
    }
}
