//! Deadlines: a hashed wheel of coarse ticks. Setting one costs the same however many there are;
//! moving one later, which every piece of progress does, is a store: the entry stays where it is
//! and is put in again when it comes up too early. An idle wheel asks for no wake-up.

use std::time::{Duration, Instant};

use crate::limits::WARNING_INTERVAL;

/// The wheel's resolution. A deadline is never early, and late by one tick at most.
const TICK_MS: u64 = 16;

/// Ticks in one revolution, 32.8 s. A later deadline is met on the way and put in again.
const SLOTS: u64 = 2048;

const WORD_BITS: u64 = u64::BITS as u64;

/// One deadline, kept by whoever it belongs to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deadline {
    at: Option<Instant>,
    /// The tick under which the wheel holds it. An entry of another tick is a stale one.
    armed: Option<u64>,
}

impl Deadline {
    /// When it is due, if it is set.
    #[must_use]
    pub fn at(&self) -> Option<Instant> {
        self.at
    }
}

/// The wheel. `K` names the owner of a deadline.
#[derive(Debug)]
pub struct Timers<K> {
    epoch: Instant,
    /// Every tick up to this one has been expired.
    done: u64,
    slots: Vec<Vec<K>>,
    /// One bit a slot: it holds something.
    occupied: [u64; (SLOTS / WORD_BITS) as usize],
}

impl<K: Copy> Timers<K> {
    /// An empty wheel whose first tick begins at `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            done: 0,
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            occupied: [0; (SLOTS / WORD_BITS) as usize],
        }
    }

    /// Sets, moves or (with `None`) clears a deadline.
    pub fn set(&mut self, deadline: &mut Deadline, at: Option<Instant>, key: K) {
        deadline.at = at;
        if let Some(at) = at {
            let tick = self.reachable(at);
            if deadline.armed.is_none_or(|armed| tick < armed) {
                self.insert(tick, key);
                deadline.armed = Some(tick);
            }
        }
    }

    /// Takes out everything whose tick has passed: the keys with the tick they stood under.
    /// The caller asks [`Timers::is_due`] of each.
    pub fn expire(&mut self, now: Instant, into: &mut Vec<(K, u64)>) {
        let until = self.floor_tick(now);
        while let Some(tick) = self.next_tick().filter(|&tick| tick <= until) {
            let slot = (tick % SLOTS) as usize;
            self.occupied[slot / 64] &= !(1 << (slot % 64));
            into.extend(
                std::mem::take(&mut self.slots[slot])
                    .into_iter()
                    .map(|key| (key, tick)),
            );
            self.done = tick;
        }
        self.done = self.done.max(until);
    }

    /// Whether the deadline behind an expired entry has really come. One that was moved meanwhile
    /// is put in again; a stale entry is dropped.
    pub fn is_due(&mut self, deadline: &mut Deadline, tick: u64, now: Instant, key: K) -> bool {
        if deadline.armed != Some(tick) {
            return false;
        }
        deadline.armed = None;
        match deadline.at {
            Some(at) if at <= now => {
                deadline.at = None;
                true
            }
            later => {
                self.set(deadline, later, key);
                false
            }
        }
    }

    /// When [`Timers::expire`] has something to do next.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.next_tick()
            .map(|tick| self.epoch + Duration::from_millis(tick * TICK_MS))
    }

    fn floor_tick(&self, at: Instant) -> u64 {
        // A u64 of milliseconds lasts half a billion years.
        at.saturating_duration_since(self.epoch).as_millis() as u64 / TICK_MS
    }

    /// The tick at or after `at`, as far as one revolution reaches.
    fn reachable(&self, at: Instant) -> u64 {
        let after = at.saturating_duration_since(self.epoch).as_nanos();
        let tick = after.div_ceil(u128::from(TICK_MS) * 1_000_000);
        tick.clamp(u128::from(self.done) + 1, u128::from(self.done + SLOTS - 1)) as u64
    }

    fn insert(&mut self, tick: u64, key: K) {
        let slot = (tick % SLOTS) as usize;
        self.slots[slot].push(key);
        self.occupied[slot / 64] |= 1 << (slot % 64);
    }

    /// The first occupied tick after `done`, found by the bits.
    fn next_tick(&self) -> Option<u64> {
        let words = SLOTS / WORD_BITS;
        let first = self.done + 1;
        let (first_word, first_bit) = (first % SLOTS / WORD_BITS, first % WORD_BITS);
        // The first word is looked at twice: its upper part first, its lower part last.
        (0..=words).find_map(|step| {
            let word = (first_word + step) % words;
            let mask = match step {
                0 => u64::MAX << first_bit,
                _ if step == words => (1 << first_bit) - 1,
                _ => u64::MAX,
            };
            let bits = self.occupied[word as usize] & mask;
            (bits != 0)
                .then(|| first - first_bit + step * WORD_BITS + u64::from(bits.trailing_zeros()))
        })
    }
}

/// Lets something pass once in a while: a shortage is met by every client, and said once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seldom {
    passed: Option<Instant>,
}

impl Seldom {
    /// Whether the last time is [`WARNING_INTERVAL`] ago; then this is the last time.
    pub fn passes(&mut self, now: Instant) -> bool {
        let passes = self
            .passed
            .is_none_or(|passed| now - passed >= WARNING_INTERVAL);
        if passes {
            self.passed = Some(now);
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Expires at `now` and says whether the one deadline fired.
    fn fires(timers: &mut Timers<u8>, deadline: &mut Deadline, now: Instant) -> bool {
        let mut expired = Vec::new();
        timers.expire(now, &mut expired);
        let mut due = |&(key, tick): &(u8, u64)| timers.is_due(deadline, tick, now, key);
        expired.iter().filter(|entry| due(entry)).count() > 0
    }

    #[test]
    fn never_early_and_at_most_a_tick_late() {
        let start = Instant::now();
        for after in [1, 15, 16, 17, 1_000, 32_767, 32_768, 60_000, 3_600_000] {
            let (mut timers, mut deadline) = (Timers::new(start), Deadline::default());
            timers.set(&mut deadline, Some(start + ms(after)), 1);
            let mut now = start;
            while now < start + ms(after) {
                assert!(!fires(&mut timers, &mut deadline, now), "{after} ms, early");
                now = timers.next().expect("a deadline is set");
            }
            assert!(now - start < ms(after + TICK_MS), "{after} ms, late");
            assert!(
                fires(&mut timers, &mut deadline, now),
                "{after} ms, at {:?}",
                now - start
            );
            assert_eq!(timers.next(), None);
        }
    }

    #[test]
    fn seldom_is_once_an_interval() {
        let (start, mut seldom) = (Instant::now(), Seldom::default());
        let passes: Vec<_> = (0..5)
            .map(|n| seldom.passes(start + n * WARNING_INTERVAL / 2))
            .collect();
        assert_eq!(passes, [true, false, true, false, true]);
    }

    #[test]
    fn moving_later_adds_no_entry() {
        let start = Instant::now();
        let (mut timers, mut deadline) = (Timers::new(start), Deadline::default());
        for after in 100..1_000 {
            timers.set(&mut deadline, Some(start + ms(after)), 1);
        }
        assert_eq!(timers.slots.iter().map(Vec::len).sum::<usize>(), 1);
        assert!(!fires(&mut timers, &mut deadline, start + ms(500)));
        assert!(fires(&mut timers, &mut deadline, start + ms(1_100)));
    }

    #[test]
    fn moving_earlier_fires_once() {
        let start = Instant::now();
        let (mut timers, mut deadline) = (Timers::new(start), Deadline::default());
        timers.set(&mut deadline, Some(start + ms(5_000)), 1);
        timers.set(&mut deadline, Some(start + ms(50)), 1);
        assert!(fires(&mut timers, &mut deadline, start + ms(100)));
        assert!(!fires(&mut timers, &mut deadline, start + ms(6_000)));
    }

    #[test]
    fn a_cleared_deadline_never_fires() {
        let start = Instant::now();
        let (mut timers, mut deadline) = (Timers::new(start), Deadline::default());
        timers.set(&mut deadline, Some(start + ms(50)), 1);
        timers.set(&mut deadline, None, 1);
        assert!(!fires(&mut timers, &mut deadline, start + ms(100)));
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_nap_longer_than_a_revolution_loses_nothing() {
        let start = Instant::now();
        let mut timers = Timers::new(start);
        let mut deadlines = [Deadline::default(); 100];
        for (key, deadline) in deadlines.iter_mut().enumerate() {
            timers.set(deadline, Some(start + ms(key as u64 * 700)), key);
        }
        let now = start + ms(1_000_000);
        let mut fired = 0;
        while timers.next().is_some_and(|next| next <= now) {
            let mut expired = Vec::new();
            timers.expire(now, &mut expired);
            for (key, tick) in expired {
                fired += usize::from(timers.is_due(&mut deadlines[key], tick, now, key));
            }
        }
        assert_eq!(fired, 100);
    }

    proptest! {
        /// Whatever is set and moved: each deadline fires exactly once, after its last time.
        #[test]
        fn like_a_sorted_list(moves in prop::collection::vec((0usize..8, 0u64..100_000, 0u64..3_000), 1..200)) {
            let start = Instant::now();
            let mut now = start;
            let mut timers = Timers::new(start);
            let mut deadlines = [Deadline::default(); 8];
            let mut model = [None::<Instant>; 8];
            let run = |timers: &mut Timers<usize>, deadlines: &mut [Deadline; 8], model: &mut [Option<Instant>; 8], now: Instant| {
                let mut expired = Vec::new();
                timers.expire(now, &mut expired);
                for (key, tick) in expired {
                    if timers.is_due(&mut deadlines[key], tick, now, key) {
                        assert!(model[key].take().is_some_and(|at| at <= now));
                    }
                }
                for at in model.iter().flatten() {
                    assert!(*at + ms(TICK_MS) > now, "overdue by {:?}", now - *at);
                }
            };
            for (key, after, advance) in moves {
                model[key] = Some(now + ms(after));
                timers.set(&mut deadlines[key], model[key], key);
                now += ms(advance);
                run(&mut timers, &mut deadlines, &mut model, now);
            }
        }
    }
}
