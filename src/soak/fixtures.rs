//! Reports made by hand, for the tests of what is made from a report.

use super::histograms::Histograms;
use super::outcome::Class;
use super::report::{
    Against, ClassCount, Generator, Interval, Latency, Load, Model, Outcomes, Percentiles, Phase,
    Report, Resource, SCHEMA, Sample, Search, Second, ServerUsage, Slope, Status, Step, Threshold,
    ThresholdOutcome, Usage, Verdict, Verification,
};

const MIB: f64 = 1024.0 * 1024.0;

/// Two minutes of load with a stall, some failures and a server that grows.
pub fn report() -> Report {
    let seconds: Vec<_> = (0..120).map(second).collect();
    Report {
        schema: SCHEMA.into(),
        carafe: "0.1.0".into(),
        command: "carafe soak 127.0.0.1:7890 --rate 5000 'a b'".into(),
        started_at: "2026-02-03T04:05:06Z".into(),
        target: "127.0.0.1:7890".into(),
        names: ["a.txt", "photos/dog.jpg", "big.bin", "接收.txt"]
            .map(Into::into)
            .into(),
        names_total: 250,
        seed: 10_177_104_022_274_072_153,
        verdict: Verdict {
            status: Status::Fail,
            reasons: vec![
                "errors>0: there were 63".into(),
                "p99>50ms: it was 61.2 ms".into(),
            ],
            finds: Vec::new(),
            cut_short: false,
        },
        load: load(&seconds),
        outcomes: outcomes(&seconds),
        latency: latency(),
        tls: None,
        verification: Verification {
            against: Against::FirstDownload,
            bodies: 563_201,
            bytes: 36_909_940_736,
            corrupt: 0,
            short: 2,
        },
        generator: Generator {
            lateness: percentiles(563_320, [38, 90, 1_210, 4_800, 21_000]),
            cpu_percent: 61.4,
            rss_max_bytes: 23_400_448,
        },
        server: Some(server()),
        thresholds: vec![
            threshold("errors>0", "63", ThresholdOutcome::Failed),
            threshold("p99>50ms", "61.2 ms", ThresholdOutcome::Failed),
            threshold("fd_left>0", "0", ThresholdOutcome::Held),
            threshold("rss_slope>1MiB/min", "", ThresholdOutcome::NotEnoughData),
        ],
        seconds,
        comparison: None,
        search: None,
        part: None,
        missing_parts: Vec::new(),
        stretches: Vec::new(),
        histograms: Histograms::default(),
        notes: vec![
            "The load generator and the server ran on the same machine and shared its 2 cores."
                .into(),
            "142 arrivals started more than a millisecond late; corrected latency has them.".into(),
        ],
    }
}

/// The same as the last step of a search.
pub fn search() -> Report {
    let step = |phase, rate, ms: f64, outcome| Step {
        phase,
        rate,
        seconds: 10.0,
        figure: Some(Interval {
            value: ms * 1e3,
            low: ms * 900.0,
            high: ms * 1100.0,
        }),
        measured: format!("p99 {ms} ms, errors 0"),
        outcome,
        is_offered: true,
    };
    Report {
        search: Some(Search {
            condition: "p99<50ms,errors<=0".into(),
            between: [1_000.0, 50_000.0],
            capacity: Some(Interval {
                value: 5_020.0,
                low: 4_900.0,
                high: 5_150.0,
            }),
            crossed: Some([5_050.0, 4_990.0]),
            held: Some(4_900.0),
            not_offered: None,
            steps: vec![
                step(Phase::Climb, 1_000.0, 3.0, ThresholdOutcome::Held),
                step(Phase::Climb, 8_000.0, 4_000.0, ThresholdOutcome::Failed),
                step(Phase::Walk, 5_020.0, 50.0, ThresholdOutcome::Undecided),
                step(Phase::Hold, 4_900.0, 40.0, ThresholdOutcome::Held),
            ],
        }),
        ..report()
    }
}

/// A run in which nothing happened and nothing was watched.
pub fn empty() -> Report {
    let Report {
        schema,
        carafe,
        started_at,
        target,
        seed,
        generator,
        ..
    } = report();
    Report {
        schema,
        carafe,
        started_at,
        target,
        seed,
        generator,
        verdict: Verdict {
            status: Status::NotOffered,
            reasons: vec!["no request was started".into()],
            finds: Vec::new(),
            cut_short: true,
        },
        load: Load {
            clients: 1,
            mix: vec![("fast".into(), 100.0)],
            ..Load::default()
        },
        ..Report::default()
    }
}

/// A report whose every string from outside tries to be markup or to steer a terminal.
pub fn hostile() -> Report {
    let hostile = || "\"<script>alert('&')</script>\x1b[2J\n\u{202e}".to_owned();
    let mut report = report();
    report.target = hostile();
    report.command = hostile();
    report.names = vec![hostile(); 3];
    report.verdict.reasons = vec![hostile(); 2];
    report.notes = vec![hostile(); 2];
    report.verification.against = Against::Folder(hostile());
    for class in &mut report.outcomes.classes {
        class.sample = Some(hostile());
    }
    for threshold in &mut report.thresholds {
        threshold.text = hostile();
        threshold.measured = hostile();
    }
    if let Some(server) = &mut report.server {
        server.name = hostile();
    }
    report
}

/// Something that looks like noise and is the same each time: from 0 to 1.
fn noise(at: u32) -> f64 {
    f64::from(at.wrapping_mul(2_654_435_761) >> 16) / 65_536.0
}

fn second(at: u32) -> Second {
    let stall = (70..73).contains(&at);
    let ramp = (f64::from(at + 1) / 8.0).min(1.0);
    let completed = (4_950.0 * ramp + 110.0 * noise(at)) as u64;
    let completed = if stall { completed / 40 } else { completed };
    let p99 = 7_000 + (6_000.0 * noise(at + 1)) as u64;
    Second {
        at,
        seconds: 1,
        started: (5_000.0 * ramp) as u64,
        completed,
        failed: match at {
            31 => 4,
            70..73 => u64::from(at - 69) * 9,
            73 => 5,
            _ => 0,
        },
        body_bytes: completed * 65_536,
        clients: if stall { 900 } else { 60 + u64::from(at % 9) },
        p50: 900 + (300.0 * noise(at + 2)) as u64 + if stall { 240_000 } else { 0 },
        p99: if stall { 900_000 } else { p99 },
        max: if stall {
            2_400_000
        } else {
            p99 * 2 + (30_000.0 * noise(at + 3)) as u64
        },
    }
}

fn load(seconds: &[Second]) -> Load {
    Load {
        model: Model::Open,
        clients: 1_000,
        clients_max: 903,
        rate_asked: Some(5_000.0),
        rate_started: 4_822.4,
        rate_ended: 4_821.9,
        rate_intervals: None,
        never_started: 17,
        started_late: 0,
        seconds: 120.0,
        ramp_seconds: 8.0,
        mix: [("fast", 80.0), ("slow", 15.0), ("idle", 5.0)]
            .map(|(kind, share)| (kind.into(), share))
            .into(),
        body_bytes: seconds.iter().map(|second| second.body_bytes).sum(),
    }
}

fn outcomes(seconds: &[Second]) -> Outcomes {
    let completed = seconds.iter().map(|second| second.completed).sum();
    let failure = |class: Class, count, sample: &str| ClassCount {
        class: class.as_str().into(),
        is_failure: true,
        count,
        sample: Some(sample.into()),
    };
    let good = |class: Class, count| ClassCount {
        class: class.as_str().into(),
        is_failure: false,
        count,
        sample: None,
    };
    let classes = vec![
        good(Class::Complete, completed),
        good(Class::IdleClosed, 260),
        good(Class::Unfinished, 3),
        failure(
            Class::ResetBefore,
            12,
            "a.txt: Connection reset by peer (os error 104), after 1.31 s",
        ),
        failure(
            Class::Short,
            2,
            "photos/dog.jpg: ended after 65536 of 148213 bytes",
        ),
        failure(Class::Timeout, 49, "big.bin: nothing came for 10 s"),
    ];
    Outcomes {
        started: classes.iter().map(|class| class.count).sum(),
        asked_again: 4,
        failed_share: None,
        never_complete: Vec::new(),
        classes,
    }
}

fn percentiles(count: u64, [p50, p90, p99, p999, max]: [u64; 5]) -> Percentiles {
    Percentiles {
        count,
        p50,
        p90,
        p99,
        p999,
        max,
        intervals: None,
    }
}

fn latency() -> Latency {
    let bucket = |index: u32| {
        let from = 300.0 * 1.05_f64.powi(index.cast_signed());
        let distance = (f64::from(index) - 26.0) / 11.0;
        let body = 40_000.0 * (-distance * distance).exp();
        let tail = 900.0 * (-f64::from(index) / 24.0).exp();
        let stall = if index > 160 {
            12.0 * noise(index)
        } else {
            0.0
        };
        (
            from as u64,
            (from * 1.05) as u64,
            (body + tail + stall) as u64,
        )
    };
    Latency {
        connect: percentiles(563_201, [61, 140, 910, 3_900, 1_020_000]),
        handshake: Percentiles::default(),
        first_byte: percentiles(563_201, [310, 900, 6_200, 41_000, 1_900_000]),
        total: percentiles(563_201, [1_030, 2_100, 12_300, 310_000, 2_400_000]),
        corrected: percentiles(563_201, [1_080, 2_300, 61_200, 1_400_000, 2_900_000]),
        histogram: (0..187).map(bucket).filter(|b| b.2 > 0).collect(),
        longest_silence_us: 2_300_000,
        longest_silence_at_us: 70_100_000,
    }
}

fn server() -> ServerUsage {
    let sample = |index: i64| {
        let is_quiet = !(0..=120).contains(&index);
        let grown = index.clamp(0, 120) as f64;
        let wobble = noise(index.unsigned_abs() as u32);
        Sample {
            at_us: index * 1_000_000,
            is_quiet,
            usage: Usage {
                cpu_us: (grown * 870_000.0) as u64,
                rss_bytes: ((4.1 + grown * 0.012 + if is_quiet { 0.0 } else { 1.5 + wobble }) * MIB)
                    as u64,
                descriptors: if is_quiet {
                    9
                } else {
                    69 + (wobble * 12.0) as u64
                },
                tcp_in_use: if is_quiet { 4 } else { 80 },
                tcp_time_wait: (grown * 200.0) as u64,
            },
        }
    };
    ServerUsage {
        pid: 4711,
        name: "carafe".into(),
        died: false,
        samples: (-2..=125).map(sample).collect(),
        cpu_percent: 87.0,
        cpu_interval: None,
        rss: Resource {
            before: 4.1 * MIB,
            max: 8.04 * MIB,
            after: 5.54 * MIB,
            left: None,
            slope: Slope::Fitted {
                per_minute: 0.72 * MIB,
                low: 0.66 * MIB,
                high: 0.78 * MIB,
                finds: 0.12 * MIB,
            },
        },
        descriptors: Resource {
            before: 9.0,
            max: 80.0,
            after: 9.0,
            left: None,
            slope: Slope::Fitted {
                per_minute: 0.04,
                low: -0.31,
                high: 0.39,
                finds: 0.7,
            },
        },
    }
}

fn threshold(text: &str, measured: &str, outcome: ThresholdOutcome) -> Threshold {
    Threshold {
        text: text.into(),
        measured: measured.into(),
        outcome,
        longer: None,
        is_optional: false,
        finding: None,
    }
}
