//! The wheel of deadlines: what it costs to set one, to move one later, as every piece of progress
//! does, and to let one expire, by how many there are. The cost of one must not grow with them.
#![allow(missing_docs, reason = "a bench")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use carafe::reactor::timer_wheel::{Deadline, Timers};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// How long deadlines are away, at most.
const SPAN: Duration = Duration::from_secs(30);

/// Their owners, and the wheel.
struct World {
    start: Instant,
    timers: Timers<u32>,
    deadlines: Vec<Deadline>,
}

impl World {
    fn unset(count: u32) -> Self {
        let start = Instant::now();
        Self {
            start,
            timers: Timers::new(start),
            deadlines: vec![Deadline::default(); count as usize],
        }
    }

    fn set(count: u32) -> Self {
        let mut world = Self::unset(count);
        world.set_all(Duration::ZERO);
        world
    }

    /// Spreads them over the span, in no order, and all later by `offset`.
    fn set_all(&mut self, offset: Duration) {
        let span = SPAN.as_millis() as u32;
        for (key, deadline) in (0..).zip(&mut self.deadlines) {
            // Knuth's multiplicative hash.
            let after = u32::wrapping_mul(key, 2_654_435_761) % span;
            let at = self.start + offset + Duration::from_millis(after.into());
            self.timers.set(deadline, Some(at), key);
        }
    }

    /// Runs the clock until all have come.
    fn expire_all(&mut self) -> usize {
        let (mut expired, mut count) = (Vec::new(), 0);
        while let Some(now) = self.timers.next() {
            self.timers.expire(now, &mut expired);
            for (key, tick) in expired.drain(..) {
                let deadline = &mut self.deadlines[key as usize];
                count += usize::from(self.timers.is_due(deadline, tick, now, key));
            }
        }
        count
    }
}

/// A test run shows that it works, not how fast it is.
fn sizes() -> &'static [u32] {
    if std::env::args().any(|arg| arg == "--bench") {
        &[1_000, 10_000, 100_000, 1_000_000]
    } else {
        &[100]
    }
}

fn timers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("timers");
    for &count in sizes() {
        group.throughput(Throughput::Elements(count.into()));
        group.bench_with_input(BenchmarkId::new("set", count), &count, |b, &count| {
            b.iter_batched_ref(
                || World::unset(count),
                |world| world.set_all(Duration::ZERO),
                BatchSize::PerIteration,
            );
        });
        group.bench_with_input(BenchmarkId::new("move", count), &count, |b, &count| {
            b.iter_batched_ref(
                || World::set(count),
                |world| world.set_all(Duration::from_secs(1)),
                BatchSize::PerIteration,
            );
        });
        group.bench_with_input(BenchmarkId::new("expire", count), &count, |b, &count| {
            b.iter_batched_ref(
                || World::set(count),
                |world| assert_eq!(black_box(world.expire_all()), count as usize),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = timers
}
criterion_main!(benches);
