//! The proof of what is said of leaks: servers of thirty kinds, whose memory is made up, with and
//! without a leak, through the code that judges. What comes out stands in docs/soak.md.

use std::fs;
use std::path::Path;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use super::fixtures;
use super::report::{Report, Slope, ThresholdOutcome};
use super::slope;
use super::threshold::Conditions;
use crate::limits::RSS_STEP_BYTES;

/// Half an hour with a look each second and a thousand requests.
const SECONDS: u32 = 1800;
const WARM_UP: f64 = 60.0;
const RATE: f64 = 1000.0;
const SEEDS: u64 = 20;

const MB: f64 = 1e6;
const KB: f64 = 1e3;
const PAGE: f64 = 4096.0;
const HUGE_PAGE: f64 = 2.0 * 1024.0 * 1024.0;

/// Sets this, to have the table written instead of compared.
const WRITE: &str = "CARAFE_WRITE_DOCS";

/// How memory moves beside a leak: bytes at a second.
type Shape = fn(&mut ChaCha8Rng) -> Vec<f64>;

fn still(_: &mut ChaCha8Rng) -> Vec<f64> {
    each(|_| 0.0)
}

fn noise(rng: &mut ChaCha8Rng) -> f64 {
    rng.sample(StandardNormal)
}

fn each(mut at: impl FnMut(f64) -> f64) -> Vec<f64> {
    (0..SECONDS).map(|second| at(f64::from(second))).collect()
}

fn white(rng: &mut ChaCha8Rng, size: f64) -> Vec<f64> {
    each(|_| size * noise(rng))
}

/// Noise of which each value keeps a part of the one before.
fn red(rng: &mut ChaCha8Rng, kept: f64, size: f64) -> Vec<f64> {
    let mut at = 0.0;
    each(|_| {
        at = kept * at + size * noise(rng);
        at
    })
}

/// A heap that is collected each so often, give or take a part of it.
fn saw(rng: &mut ChaCha8Rng, period: f64, jitter: f64) -> Vec<f64> {
    let (mut since, mut next) = (rng.random::<f64>() * period, period);
    each(|_| {
        since += 1.0;
        if since >= next {
            since -= next;
            next = period * (1.0 + jitter * (rng.random::<f64>() - 0.5));
        }
        30.0 * MB * since / period
    })
}

fn cache(rng: &mut ChaCha8Rng, time: f64, noise_size: f64) -> Vec<f64> {
    each(|at| 100.0 * MB * (1.0 - (-at / time).exp()) + noise_size * noise(rng))
}

/// So many steps up, at times of their own.
fn steps(rng: &mut ChaCha8Rng, count: u32, size: f64) -> Vec<f64> {
    let times: Vec<_> = (0..count)
        .map(|_| rng.random::<f64>() * f64::from(SECONDS))
        .collect();
    each(|at| size * times.iter().filter(|&&time| time <= at).count() as f64)
}

/// Memory that is no leak.
const HEALTHY: [(&str, Shape); 22] = [
    ("stays as it is", still),
    ("noise of 100 kB", |rng| white(rng, 100.0 * KB)),
    ("noise of 5 MB", |rng| white(rng, 5.0 * MB)),
    ("noise that keeps a half of itself", |rng| red(rng, 0.5, MB)),
    ("noise that keeps nine tenths", |rng| red(rng, 0.9, MB)),
    ("noise that keeps 99 hundredths", |rng| {
        red(rng, 0.99, 100.0 * KB)
    }),
    ("a random walk", |rng| red(rng, 1.0, 30.0 * KB)),
    ("collected every 2 s", |rng| saw(rng, 2.0, 0.2)),
    ("collected every 7 s, like a clock", |rng| {
        saw(rng, 7.0, 0.0)
    }),
    ("collected every 20 s", |rng| saw(rng, 20.0, 0.2)),
    ("collected every 60 s", |rng| saw(rng, 60.0, 0.2)),
    ("collected every 150 s", |rng| saw(rng, 150.0, 0.2)),
    ("a cache, nearly full after 3 min", |rng| {
        cache(rng, 60.0, 0.0)
    }),
    ("a cache, after 9 min, with noise", |rng| {
        cache(rng, 180.0, 50.0 * KB)
    }),
    ("a cache, after 18 min", |rng| cache(rng, 360.0, 0.0)),
    ("a cache that fills evenly, for 10 min", |_| {
        each(|at| 100.0 * MB * (at / 600.0).min(1.0))
    }),
    ("one step of 8 MB, sometime", |rng| steps(rng, 1, 8.0 * MB)),
    ("three steps of 2 MB, sometime", |rng| {
        steps(rng, 3, 2.0 * MB)
    }),
    ("a heap that keeps its highest", |rng| {
        let mut high = 0.0_f64;
        each(|_| {
            high = high.max(MB * noise(rng));
            high
        })
    }),
    ("a heap that jumps up and is trimmed", |rng| {
        let mut at = 0.0;
        each(|_| {
            if rng.random::<f64>() < 0.02 {
                at = rng.random::<f64>() * 20.0 * MB;
            }
            at
        })
    }),
    ("spikes of 50 MB", |rng| {
        each(|_| {
            let is_spike = rng.random::<f64>() < 0.01;
            let noise = 20.0 * KB * noise(rng);
            if is_spike { 50.0 * MB } else { noise }
        })
    }),
    ("huge pages", |rng| {
        each(|_| ((10.0 * MB + MB * noise(rng)) / HUGE_PAGE).ceil() * HUGE_PAGE)
    }),
];

/// Leaks in bytes a request, and in what steps they are seen.
const LEAKY: [(&str, f64, f64, Shape); 9] = [
    ("1 B a request", 1.0, PAGE, still),
    ("10 B a request", 10.0, PAGE, still),
    ("100 B a request", 100.0, PAGE, still),
    ("1,000 B a request", 1000.0, PAGE, still),
    (
        "10 B in steps of 132 KiB, noise of 100 kB",
        10.0,
        132.0 * 1024.0,
        |rng| white(rng, 100.0 * KB),
    ),
    ("100 B in steps of 2 MiB", 100.0, HUGE_PAGE, still),
    ("100 B, collected every 20 s", 100.0, PAGE, |rng| {
        saw(rng, 20.0, 0.2)
    }),
    (
        "a descriptor in 10,000 requests, of 60 to 80",
        1e-4,
        1.0,
        |rng| each(|_| (20.0 * rng.random::<f64>()).floor()),
    ),
    ("100 B, beside a cache of 9 min", 100.0, PAGE, |rng| {
        cache(rng, 180.0, 0.0)
    }),
];

/// What is said of such a server's memory, or descriptors.
fn memory(seed: u64, shape: Shape, leak: f64, step: f64) -> Slope {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let moves = shape(&mut rng).into_iter();
    // Descriptors are counted one by one.
    let page = step.min(PAGE);
    let looks: Vec<_> = (0..SECONDS)
        .zip(moves)
        .map(|(second, moved)| {
            let time = f64::from(second);
            let leaked = (leak * RATE * time / step).floor() * step;
            (time, ((50.0 * MB + moved + leaked) / page).floor() * page)
        })
        .collect();
    let least = if page < PAGE { 1.0 } else { RSS_STEP_BYTES };
    slope::of_looks(&looks, WARM_UP, least)
}

/// How a condition on the server's memory comes out.
fn outcome(slope: Slope, condition: &str) -> ThresholdOutcome {
    let mut report: Report = fixtures::report();
    if let Some(server) = &mut report.server {
        server.rss.slope = slope;
    }
    let conditions: Conditions = condition.parse().expect("a condition");
    conditions.evaluate(&report)[0].outcome
}

fn fails(slope: Slope) -> bool {
    outcome(slope, "rss_leak>0/h") == ThresholdOutcome::Failed
}

/// A condition whose bound is so many bytes a request.
fn above(bytes: f64) -> String {
    format!("rss_slope>{:.0}B/h", bytes * RATE * 3600.0)
}

fn found_size(slope: Slope) -> Option<f64> {
    match slope {
        Slope::Fitted { finds, .. } if !fails(slope) => Some(finds / 60.0 / RATE),
        _ => None,
    }
}

/// What came of a kind, of [`SEEDS`] runs each.
#[derive(Default)]
struct Row {
    pass: u64,
    undecided: u64,
    fail: u64,
    /// The sizes that a pass named, and how often a leak of this size was found.
    sizes: Vec<f64>,
    found: u64,
    /// Conditions that came out on the wrong side.
    wrong: u64,
}

impl Row {
    fn count(&mut self, slope: Slope) {
        match slope {
            Slope::NotEnoughData => self.undecided += 1,
            _ if fails(slope) => self.fail += 1,
            _ => self.pass += 1,
        }
    }
}

fn healthy(shape: Shape) -> Row {
    let mut row = Row::default();
    for seed in 0..SEEDS {
        let slope = memory(seed, shape, 0.0, PAGE);
        row.count(slope);
        row.wrong += u64::from(outcome(slope, &above(0.001)) == ThresholdOutcome::Failed);
        let Some(size) = found_size(slope) else {
            continue;
        };
        row.sizes.push(size);
        // Another run of the kind, that would pass as well.
        let mut others = (1..100).map(|round| round * SEEDS + seed);
        let other = others.find(|&other| found_size(memory(other, shape, 0.0, PAGE)).is_some());
        let leaky = memory(other.expect("others pass"), shape, size, PAGE);
        row.found += u64::from(fails(leaky));
    }
    row.sizes.sort_by(f64::total_cmp);
    row
}

fn leaky(leak: f64, step: f64, shape: Shape) -> Row {
    let mut row = Row::default();
    for seed in 0..SEEDS {
        let slope = memory(seed, shape, leak, step);
        row.count(slope);
        let is_held = outcome(slope, &above(leak / 2.0)) == ThresholdOutcome::Held;
        let is_failed = outcome(slope, &above(leak * 2.0)) == ThresholdOutcome::Failed;
        row.wrong += u64::from(is_held || is_failed);
    }
    row
}

#[test]
fn what_is_said_of_leaks_is_true_and_stands_in_the_docs() {
    let mut lines = vec![
        "| memory that is no leak | PASS | UNDECIDED | FAIL | PASS names, in B a request | found |"
            .to_owned(),
        "|---|---|---|---|---|---|".into(),
    ];
    let mut sum = Row::default();
    for (name, shape) in HEALTHY {
        let row = healthy(shape);
        let size = row.sizes.get(row.sizes.len() / 2);
        let size = size.map_or("-".into(), |size| format!("{size:.1}"));
        let found = format!("{} of {}", row.found, row.sizes.len());
        lines.push(format!(
            "| {name} | {} | {} | {} | {size} | {found} |",
            row.pass, row.undecided, row.fail
        ));
        sum.fail += row.fail;
        sum.found += row.found;
        sum.wrong += row.wrong;
        sum.sizes.extend(row.sizes);
    }
    lines.extend([
        String::new(),
        "| a leak | FAIL | UNDECIDED | PASS | across a threshold |".into(),
        "|---|---|---|---|---|".into(),
    ]);
    for (name, leak, step, shape) in LEAKY {
        let row = leaky(leak, step, shape);
        lines.push(format!(
            "| {name} | {} | {} | {} | {} |",
            row.fail, row.undecided, row.pass, row.wrong
        ));
        sum.wrong += row.wrong;
    }
    let table = lines.join("\n");
    let (runs, sizes) = (HEALTHY.len() as u64 * SEEDS, sum.sizes.len() as u64);
    assert!(
        sum.fail * 100 <= runs,
        "{} false of {runs}\n{table}",
        sum.fail
    );
    assert!(
        sum.found * 100 >= sizes * 95,
        "{} of {sizes}\n{table}",
        sum.found
    );
    assert!(sum.wrong * 100 <= runs, "{} across\n{table}", sum.wrong);
    assert!(sizes * 2 > runs, "PASS names too little\n{table}");

    stands_in_the_docs("proof", &table);
}

/// A table stands in docs/soak.md between its marks, or is written there.
pub(super) fn stands_in_the_docs(mark: &str, table: &str) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/soak.md");
    let text = fs::read_to_string(&page).expect("the page");
    if std::env::var_os(WRITE).is_some() {
        let [begin, end] = [format!("<!-- {mark} -->\n"), format!("<!-- /{mark} -->")];
        let (before, rest) = text.split_once(&begin).expect("its mark");
        let (_, after) = rest.split_once(&end).expect("its mark");
        let text = format!("{before}{begin}\n{table}\n\n{end}{after}");
        fs::write(page, text).expect("written");
    } else {
        assert!(
            text.contains(table),
            "{WRITE}=1 writes the page's table:\n{table}"
        );
    }
}
