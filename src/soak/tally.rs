//! What is counted and timed while a run goes on, and what the report makes of it.

use std::time::{Duration, Instant};

use super::histograms::{Histograms, LatencyHistogram, micros};
use super::outcome::Class;
use super::report::{ClassCount, Outcomes, Second};
use super::stretches::{Stretch, Stretches};
use crate::limits::{SECONDS_MAX, SOAK_LATE_MAX};

/// Everything that is counted.
#[derive(Debug)]
pub struct Tally {
    /// When the load began.
    pub began: Instant,
    /// Requests started.
    pub started: u64,
    /// Requests that were sent a second time, as their kept connection had been closed.
    pub asked_again: u64,
    counts: [u64; Class::ALL.len()],
    samples: [Option<String>; Class::ALL.len()],
    /// From connect to the handshake's end.
    pub connect: LatencyHistogram,
    /// From there to the end of TLS's.
    pub handshake: LatencyHistogram,
    /// Handshakes that resumed a session.
    pub resumed: u64,
    /// From the request to the answer's first byte.
    pub first_byte: LatencyHistogram,
    /// Sent minus due.
    pub lateness: LatencyHistogram,
    /// Arrivals that were sent later than counts as offered.
    pub late: u64,
    total: LatencyHistogram,
    /// From the moment a request was due: open model.
    since_due: LatencyHistogram,
    /// Total times by the body's length, a class for each power of four: what a client that waits
    /// would have sent meanwhile depends on how long such a body takes.
    by_length: Vec<LatencyHistogram>,
    /// Bytes of bodies.
    pub body_bytes: u64,
    /// Bodies that were compared to their end, and their bytes.
    pub checked: (u64, u64),
    /// The seconds that are over.
    pub seconds: Vec<Second>,
    second: Second,
    second_times: LatencyHistogram,
    stall: Stall,
    stretches: Stretches,
    /// The same of each of two servers that are compared.
    sides: Vec<Stretches>,
}

/// The longest time in which clients waited and nobody received a byte.
#[derive(Debug)]
struct Stall {
    waiting: u64,
    since: Instant,
    longest: Duration,
    longest_at: Instant,
}

impl Tally {
    /// Nothing was counted; the load begins now, of so many servers.
    pub fn new(began: Instant, sides: usize) -> Self {
        Self {
            began,
            started: 0,
            asked_again: 0,
            counts: Default::default(),
            samples: Default::default(),
            connect: LatencyHistogram::default(),
            handshake: LatencyHistogram::default(),
            resumed: 0,
            first_byte: LatencyHistogram::default(),
            lateness: LatencyHistogram::default(),
            late: 0,
            total: LatencyHistogram::default(),
            since_due: LatencyHistogram::default(),
            by_length: Vec::new(),
            body_bytes: 0,
            checked: (0, 0),
            seconds: Vec::new(),
            second: Second::default(),
            second_times: LatencyHistogram::default(),
            stall: Stall {
                waiting: 0,
                since: began,
                longest: Duration::ZERO,
                longest_at: began,
            },
            stretches: Stretches::new(began),
            sides: match sides {
                2 => vec![Stretches::new(began); 2],
                _ => Vec::new(),
            },
        }
    }

    /// A request was started.
    pub fn start(&mut self) {
        self.started += 1;
        self.second.started += 1;
        self.stretches.start();
    }

    /// An arrival was sent so long after it was due.
    pub fn record_lateness(&mut self, time: Duration) {
        self.lateness.record(time);
        self.late += u64::from(time > SOAK_LATE_MAX);
    }

    /// A request has ended. The sample is made for the first failure of its class only.
    pub fn end(&mut self, class: Class, sample: impl FnOnce() -> String) {
        self.counts[class as usize] += 1;
        self.second.completed += u64::from(class == Class::Complete);
        self.stretches.end(class.is_failure());
        if class.is_failure() {
            self.second.failed += 1;
            self.samples[class as usize].get_or_insert_with(sample);
        }
    }

    /// A download was completed by a client whose time counts.
    pub fn complete(&mut self, total: Duration, since_due: Option<Duration>, length: u64) {
        self.total.record(total);
        match since_due {
            Some(since_due) => self.since_due.record(since_due),
            None => {
                let class = length.checked_ilog(4).unwrap_or(0) as usize;
                if self.by_length.len() <= class {
                    self.by_length
                        .resize_with(class + 1, LatencyHistogram::default);
                }
                self.by_length[class].record(total);
            }
        }
        let time = since_due.unwrap_or(total);
        self.second_times.record(time);
        self.stretches.record(micros(time));
    }

    /// The same, with [`end`](Self::end), for one of two servers that are compared.
    pub fn end_of_side(&mut self, side: usize, class: Class, time: Option<Duration>) {
        if let Some(stretches) = self.sides.get_mut(side) {
            stretches.start();
            stretches.end(class.is_failure());
            if let Some(time) = time {
                stretches.record(micros(time));
            }
        }
    }

    /// Both servers' stretches, where two are compared.
    pub fn sides(&self) -> Option<[&Stretches; 2]> {
        let [a, b] = &self.sides[..] else { return None };
        Some([a, b])
    }

    fn all_stretches(&mut self) -> impl Iterator<Item = &mut Stretches> {
        std::iter::once(&mut self.stretches).chain(&mut self.sides)
    }

    /// Bytes of a body have come.
    pub fn count_bytes(&mut self, bytes: usize) {
        self.body_bytes += bytes as u64;
        self.second.body_bytes += bytes as u64;
    }

    /// A client begins to wait for its answer.
    pub fn wait_begins(&mut self, now: Instant) {
        if self.stall.waiting == 0 {
            self.stall.since = now;
        }
        self.stall.waiting += 1;
    }

    /// Such a client received something.
    pub fn heard(&mut self, now: Instant) {
        let stall = &mut self.stall;
        let took = now.saturating_duration_since(stall.since);
        if took > stall.longest {
            (stall.longest, stall.longest_at) = (took, stall.since);
        }
        stall.since = now;
    }

    /// Such a client waits no more. It may have given up, without having heard anything.
    pub fn wait_ends(&mut self, now: Instant, gave_up: bool) {
        if !gave_up || self.stall.waiting == 1 {
            self.heard(now);
        }
        self.stall.waiting -= 1;
    }

    /// Load is offered again, after a pause.
    pub fn resume(&mut self, now: Instant) {
        self.all_stretches()
            .for_each(|stretches| stretches.resume(now));
    }

    /// Load is no longer offered, for a while or for good.
    pub fn pause(&mut self, now: Instant) {
        self.all_stretches()
            .for_each(|stretches| stretches.close(now));
    }

    /// Closes the seconds that are over.
    pub fn roll(&mut self, now: Instant, clients: u64) {
        self.all_stretches()
            .for_each(|stretches| stretches.roll(now));
        let now = now.saturating_duration_since(self.began).as_secs();
        while u64::from(self.second.at + self.second.seconds) <= now {
            self.close_second(clients);
        }
    }

    fn close_second(&mut self, clients: u64) {
        let times = self.second_times.percentiles();
        self.second_times.reset();
        let Second { at, seconds, .. } = self.second;
        let next = Second::new(at + seconds, seconds);
        let mut second = std::mem::replace(&mut self.second, next);
        (second.p50, second.p99, second.max) = (times.p50, times.p99, times.max);
        second.clients = clients;
        self.seconds.push(second);
        if self.seconds.len() >= SECONDS_MAX {
            let pairs = self.seconds.chunks(2).map(|pair| {
                let mut both = pair[pair.len() - 1];
                (both.at, both.seconds) = (pair[0].at, pair.iter().map(|one| one.seconds).sum());
                pair[..pair.len() - 1]
                    .iter()
                    .for_each(|first| both.add(first));
                both
            });
            self.seconds = pairs.collect();
            self.second.seconds *= 2;
        }
    }

    /// Closes the last second, which may be a part of one.
    pub fn close(&mut self, now: Instant) {
        self.roll(now, 0);
        let second = &self.second;
        if second.started + second.completed + second.failed + second.body_bytes > 0 {
            self.close_second(0);
        }
    }

    /// How many ended so.
    pub fn count(&self, class: Class) -> u64 {
        self.counts[class as usize]
    }

    /// How many failed.
    pub fn failed(&self) -> u64 {
        let failures = Class::ALL.iter().filter(|class| class.is_failure());
        failures.map(|&class| self.count(class)).sum()
    }

    /// What became of every request.
    pub fn outcomes(&self) -> Outcomes {
        let occurred = Class::ALL.iter().filter(|&&class| self.count(class) > 0);
        let classes = occurred.map(|&class| ClassCount {
            class: class.as_str().into(),
            is_failure: class.is_failure(),
            count: self.count(class),
            sample: self.samples[class as usize].clone(),
        });
        Outcomes {
            started: self.started,
            asked_again: self.asked_again,
            failed_share: None,
            never_complete: Vec::new(),
            classes: classes.collect(),
        }
    }

    /// All times, for a report.
    pub fn histograms(&self) -> Histograms {
        Histograms {
            connect: self.connect.clone(),
            handshake: self.handshake.clone(),
            first_byte: self.first_byte.clone(),
            lateness: self.lateness.clone(),
            total: self.total.clone(),
            since_due: self.since_due.clone(),
            by_length: self.by_length.clone(),
        }
    }

    /// The longest time in which clients waited and nobody received a byte, and when it began.
    pub fn silence(&self) -> (u64, u64) {
        let at = self.stall.longest_at.saturating_duration_since(self.began);
        (micros(self.stall.longest), micros(at))
    }

    /// The run in stretches.
    pub fn stretches(&self) -> &[Stretch] {
        self.stretches.over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latency(tally: &Tally) -> crate::soak::report::Latency {
        tally.histograms().latency(&[], tally.silence())
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Whether a figure in microseconds is this time, as far as a histogram's digits go.
    #[track_caller]
    fn assert_about(us: u64, time: Duration) {
        let exact = micros(time);
        assert!(us.abs_diff(exact) <= exact / 100, "{us} us is not {time:?}");
    }

    /// A day takes no more memory than half of one: what is kept is counted by the sizes of its collections.
    #[test]
    fn a_day_is_kept_in_the_memory_of_some_hours() {
        let began = Instant::now();
        let mut tally = Tally::new(began, 2);
        let mut sizes = Vec::new();
        for second in 1..=86_400_u32 {
            let now = began + Duration::from_secs(second.into());
            tally.start();
            tally.end(Class::Complete, String::new);
            tally.complete(ms(u64::from(second % 1000)), None, 1000);
            tally.end_of_side(second as usize % 2, Class::Complete, Some(ms(1)));
            tally.roll(now, 1);
            if second % 43_200 == 0 {
                let times = |stretches: &Stretches| {
                    let over = stretches.over().iter();
                    over.map(|one| 4 * one.times.distinct_values())
                        .sum::<usize>()
                };
                let of_stretches: usize = tally.all_stretches().map(|all| times(all)).sum();
                let of_seconds = tally.seconds.capacity() * size_of::<Second>();
                sizes.push((of_seconds, of_stretches, tally.by_length.len()));
            }
        }
        let started: u64 = tally.seconds.iter().map(|second| second.started).sum();
        let covered: u32 = tally.seconds.iter().map(|second| second.seconds).sum();
        assert!(started + tally.second.started == 86_400 && covered <= 86_400);
        let most = SECONDS_MAX * 2 * size_of::<Second>();
        assert!(sizes.iter().all(|size| size.0 <= most), "{sizes:?}");
        let [half, whole] = [sizes[0], sizes[1]];
        assert!(whole.1 <= half.1 * 2 && whole.2 == half.2, "{sizes:?}");
        assert!(tally.stretches().len() <= crate::limits::STRETCHES_MAX);
    }

    #[test]
    fn a_stall_among_fast_answers_shows_up_in_corrected() {
        let mut tally = Tally::new(Instant::now(), 1);
        for _ in 0..2_000 {
            tally.complete(ms(1), None, 1000);
        }
        tally.complete(ms(2_000), None, 1000);
        let latency = latency(&tally);
        assert_eq!(latency.total.count, 2_001);
        assert_about(latency.total.p99, ms(1));
        assert_about(latency.total.max, ms(2_000));
        // The stall stands for the 1,999 requests of a millisecond that were not sent meanwhile.
        assert!((3_990..=4_010).contains(&latency.corrected.count));
        assert_about(latency.corrected.p90, ms(1_600));
        assert!(latency.corrected.p99 > 1_900_000);
        let counts = latency.histogram.iter().map(|step| step.2);
        assert_eq!(counts.sum::<u64>(), latency.corrected.count);
    }

    #[test]
    fn long_bodies_are_no_stall() {
        let mut tally = Tally::new(Instant::now(), 1);
        for _ in 0..100 {
            tally.complete(ms(1), None, 1_000);
            tally.complete(ms(500), None, 1_000_000);
        }
        let latency = latency(&tally);
        assert_eq!(latency.corrected, latency.total);
    }

    #[test]
    fn the_open_model_counts_from_the_moment_when_a_request_was_due() {
        let mut tally = Tally::new(Instant::now(), 1);
        for late in 0..100 {
            tally.complete(ms(10), Some(ms(10 + late)), 1000);
        }
        let latency = latency(&tally);
        assert_about(latency.total.p99, ms(10));
        assert_eq!(latency.corrected.count, 100);
        assert_about(latency.corrected.p50, ms(59));
        assert_about(latency.corrected.max, ms(109));
    }

    #[test]
    fn lateness_is_counted_beyond_what_is_allowed() {
        let mut tally = Tally::new(Instant::now(), 1);
        for late in [ms(0), SOAK_LATE_MAX, SOAK_LATE_MAX + ms(1), ms(9_000)] {
            tally.record_lateness(late);
        }
        assert_eq!((tally.late, tally.lateness.percentiles().count), (2, 4));
    }

    #[test]
    fn silence_is_time_in_which_somebody_waits_and_nobody_hears() {
        let began = Instant::now();
        let at = |time: u64| began + ms(time);
        let mut tally = Tally::new(began, 1);
        // Nobody waits until 1,000.
        tally.wait_begins(at(1_000));
        tally.wait_begins(at(1_100));
        tally.heard(at(1_200));
        tally.wait_ends(at(1_250), false);
        // The one that gives up has heard nothing, and the other waits on.
        tally.wait_begins(at(1_300));
        tally.wait_ends(at(1_500), true);
        tally.heard(at(1_950));
        tally.wait_ends(at(2_000), false);
        // Nobody waits any more.
        tally.wait_begins(at(9_000));
        tally.heard(at(9_100));
        let latency = latency(&tally);
        assert_eq!(latency.longest_silence_us, 700_000);
        assert_eq!(latency.longest_silence_at_us, 1_250_000);
    }

    #[test]
    fn seconds_add_up() {
        let began = Instant::now();
        let mut tally = Tally::new(began, 1);
        for number in 0..35_u64 {
            tally.roll(began + ms(number * 100), number);
            tally.start();
            tally.count_bytes(7);
            match number % 5 {
                0 => tally.end(Class::Short, || "short".into()),
                _ => {
                    tally.end(Class::Complete, String::new);
                    tally.complete(ms(1), None, 7);
                }
            }
        }
        tally.close(began + ms(3_450));
        let seconds = &tally.seconds;
        let at: Vec<_> = seconds.iter().map(|second| second.at).collect();
        assert_eq!(at, [0, 1, 2, 3]);
        let figures: Vec<_> = seconds
            .iter()
            .map(|second| (second.started, second.completed, second.failed))
            .collect();
        assert_eq!(figures, [(10, 8, 2), (10, 8, 2), (10, 8, 2), (5, 4, 1)]);
        assert!(seconds.iter().all(|second| second.max == 1000));
        assert_eq!(
            seconds.iter().map(|second| second.body_bytes).sum::<u64>(),
            245
        );
        assert_eq!(
            (tally.started, tally.outcomes().ended(), tally.failed()),
            (35, 35, 7)
        );
        assert_eq!(tally.body_bytes, 245);
        let outcomes = tally.outcomes();
        assert_eq!(outcomes.classes.len(), 2);
        assert_eq!(outcomes.classes[1].sample.as_deref(), Some("short"));
    }
}
