//! What is said of two servers is true: noise of a machine with two busy cores was recorded from two servers
//! that were the same (`noise.txt`), and is played to them again, in other orders and with one made slower.

use std::time::{Duration, Instant};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::soak::fixtures;
use crate::soak::report::{Comparison, Report, ThresholdOutcome, Usage};
use crate::soak::synthetic::stands_in_the_docs;
use crate::soak::threshold::Conditions;

/// Of each quarter of a second a line: the CPU time of both servers, then the times of requests in pairs, all
/// in microseconds.
const NOISE: &str = include_str!("noise.txt");

/// So many lines are played in a row: what slows one core lasts.
const IN_A_ROW: usize = 80;

const LOOK: Duration = Duration::from_millis(250);
const RUNS: u64 = 100;

/// How many minutes it takes to find 3 % of CPU time.
const MANY: u32 = 5;

/// The longest run, in minutes, whose times are played.
const LONG: u32 = 4;

/// What is not the same at the second server.
#[derive(Clone, Copy)]
struct Made {
    slower_us: u64,
    busier: f64,
}

const SAME: Made = Made {
    slower_us: 0,
    busier: 1.0,
};

fn noise() -> Vec<Vec<u64>> {
    let number = |word: &str| word.parse().expect("a number");
    let line = |line: &str| line.split(' ').map(number).collect();
    NOISE.lines().map(line).collect()
}

/// A run of so long, by recorded noise: stretches of it in another order, and either server in either's place.
fn run(noise: &[Vec<u64>], seed: u64, minutes: u32, made: Made) -> Report {
    // A long run is about CPU time alone.
    let times = if minutes > LONG { 0 } else { usize::MAX };
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let began = Instant::now();
    let mut sides = [Stretches::new(began), Stretches::new(began)];
    let look = |at_us, cpu_us: f64| Sample {
        at_us,
        is_quiet: false,
        usage: Usage {
            cpu_us: cpu_us as u64,
            ..Usage::default()
        },
    };
    let mut cpu = [0.0; 2];
    let mut samples = [vec![look(-1, 0.0)], vec![look(-1, 0.0)]];
    let (mut at, mut swap) = (0, 0);
    for number in 0..minutes * 240 {
        if (number as usize).is_multiple_of(IN_A_ROW) {
            at = rng.random_range(0..noise.len() - IN_A_ROW);
            swap = usize::from(rng.random::<bool>());
        }
        let line = &noise[at];
        at += 1;
        let now = began + LOOK * (number + 1);
        for (index, &us) in line.iter().enumerate().take(times.max(2)) {
            let side = (index + swap) % 2;
            if index < 2 {
                cpu[side] += us as f64 * if side == 1 { made.busier } else { 1.0 };
                samples[side].push(look((now - began).as_micros() as i64, cpu[side]));
                sides[side].end(false);
            } else {
                sides[side].record(us + if side == 1 { made.slower_us } else { 0 });
            }
        }
        sides.iter_mut().for_each(|side| side.roll(now));
    }
    let after = i64::from(minutes) * 60_000_000 + 1;
    let [a, b] = [0, 1].map(|side| ServerUsage {
        samples: [&samples[side][..], &[look(after, cpu[side])]].concat(),
        ..ServerUsage::default()
    });
    Report {
        comparison: Some(Comparison {
            differences: differences([&sides[0], &sides[1]], [Some(&a), Some(&b)]),
            ..Comparison::default()
        }),
        ..fixtures::report()
    }
}

/// In how many of a hundred runs one of these conditions fails.
fn failed(noise: &[Vec<u64>], minutes: u32, made: Made, conditions: &str) -> u64 {
    let conditions: Conditions = conditions.parse().expect("conditions");
    let fails = |&seed: &u64| {
        let thresholds = conditions.evaluate(&run(noise, seed, minutes, made));
        let mut outcomes = thresholds.iter().map(|threshold| threshold.outcome);
        // The last two are of bytes.
        let differences = thresholds.len() - 2;
        outcomes
            .by_ref()
            .take(differences)
            .any(|outcome| outcome == ThresholdOutcome::Failed)
    };
    (0..RUNS).filter(fails).count() as u64
}

#[test]
fn what_is_said_of_two_servers_is_true_and_stands_in_the_docs() {
    const ANY: &str = "mean.diff>0us,p50.diff>0us,p90.diff>0us,p99.diff>0us,cpu.diff>0%";
    const CPU: &str = "cpu.diff>0%";
    let noise = noise();
    let slower = Made {
        slower_us: 50,
        ..SAME
    };
    let busier = Made {
        busier: 1.03,
        ..SAME
    };
    let mut table = "| a run of | the second server | fails | of |\n|---|---|---|---|".to_owned();
    for (minutes, made, what, condition, few) in [
        (
            2,
            SAME,
            "is the same: mean, p50, p90, p99 or CPU",
            ANY,
            true,
        ),
        (2, slower, "is 50 µs slower", "p50.diff>0us", false),
        (MANY, SAME, "is the same: CPU", CPU, true),
        (MANY, busier, "takes 3 % more CPU", CPU, false),
    ] {
        let count = failed(&noise, minutes, made, condition);
        table += &format!("\n| {minutes} min | {what} | {count} | {RUNS} |");
        assert!(if few { count <= 5 } else { count >= 90 }, "{table}");
    }
    stands_in_the_docs("versus", &table);
}

#[test]
fn a_difference_is_as_large_as_it_is() {
    let noise = noise();
    let report = run(
        &noise,
        1,
        4,
        Made {
            slower_us: 300,
            busier: 1.5,
        },
    );
    let comparison = report.comparison.expect("one");
    let of = |name: &str| {
        let mut all = comparison.differences.iter();
        all.find(|found| found.quantity == name).expect(name)
    };
    let median = of("p50");
    assert!(
        (median.absolute.low..median.absolute.high).contains(&300.0),
        "{median:?}"
    );
    let cpu = of("cpu");
    assert!(
        (cpu.percent.low..cpu.percent.high).contains(&50.0),
        "{cpu:?}"
    );
    assert!(cpu.values[1] > cpu.values[0] * 1.2 && cpu.stretches.len() > 30);
}

#[test]
fn too_little_says_nothing() {
    let began = Instant::now();
    let mut sides = [Stretches::new(began), Stretches::new(began)];
    for number in 1..=40 {
        sides.iter_mut().for_each(|side| {
            side.end(false);
            side.record(1000);
            side.roll(began + LOOK * number);
        });
        let found = differences([&sides[0], &sides[1]], [None, None]);
        let has = |name: &str| found.iter().any(|difference| difference.quantity == name);
        assert_eq!(
            has("mean"),
            number as usize >= COMPARED_STRETCHES_MIN,
            "{number}"
        );
        assert!(!has("p99") && !has("cpu"));
    }
}
