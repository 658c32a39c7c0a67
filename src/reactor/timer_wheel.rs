//! Deadlines: a hashed wheel of coarse ticks. Setting one costs the same however many there are;
//! moving one later, which every piece of progress does, is a store: the entry stays where it is
//! and is put in again when it comes up too early. An idle wheel asks for no wake-up, and a slot
//! that was emptied holds no memory.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// The wheel's resolution. A deadline is never early, and late by one tick at most.
const TICK_MS: u64 = 16;

const TICK_NS: u64 = TICK_MS * 1_000_000;

/// Ticks in one revolution, 32.8 s. A later deadline is met on the way and put in again.
const SLOTS: u64 = 2048;

const WORD_BITS: u64 = u64::BITS as u64;

const WORDS: u64 = SLOTS / WORD_BITS;

const _: () = assert!(WORDS == u32::BITS as u64, "a bit of one word for each");

/// One deadline, kept by whoever it belongs to. There is one in every connection's place in the
/// slab, so it is packed: with the padding that a u64's alignment asks for it would be 16 bytes.
#[derive(Clone, Copy, Debug, Default)]
#[repr(Rust, packed(4))]
pub struct Deadline {
    /// Nanoseconds since the wheel's epoch, if it is set. They last 584 years: an uptime of
    /// centuries and a year-long timeout fit in.
    due: Option<NonZeroU64>,
    /// The tick under which the wheel holds it: the lower 16 bits of its number. An entry of
    /// another tick is a stale one.
    armed: Option<u16>,
}

const _: () = assert!(size_of::<Deadline>() == 12);

// The ticks that the wheel holds are fewer than half of what 16 bits tell apart, so that their
// lower bits have the order that they have.
const _: () = assert!(SLOTS < 1 << 15);

/// Where a slot's bit is.
fn word_and_bit(slot: usize) -> (usize, u64) {
    let bits = WORD_BITS as usize;
    (slot / bits, 1 << (slot % bits))
}

/// The wheel. `K` names the owner of a deadline. An owner that is gone leaves its entry behind; if
/// its name comes to mean another one, [`Timers::is_due`] tells their deadlines apart.
#[derive(Debug)]
pub struct Timers<K> {
    epoch: Instant,
    /// Every tick up to this one has been expired.
    done: u64,
    slots: Vec<Vec<K>>,
    /// One bit a slot: it holds something.
    occupied: [u64; WORDS as usize],
    /// One bit a word of `occupied`: it isn't zero.
    occupied_words: u32,
    /// When the first occupied tick comes: what every turn asks.
    next: Option<Instant>,
}

impl<K: Copy> Timers<K> {
    /// An empty wheel whose first tick begins at `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            done: 0,
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            occupied: [0; WORDS as usize],
            occupied_words: 0,
            next: None,
        }
    }

    /// When a deadline is due, if it is set: to the nanosecond what was set, but for one before the
    /// wheel's epoch.
    #[must_use]
    pub fn at(&self, deadline: &Deadline) -> Option<Instant> {
        let due = deadline.due;
        due.map(|due| self.epoch + Duration::from_nanos(due.get()))
    }

    /// Sets, moves or (with `None`) clears a deadline.
    pub fn set(&mut self, deadline: &mut Deadline, at: Option<Instant>, key: K) {
        deadline.due = at.map(|at| self.nanos(at));
        self.arm(deadline, key);
    }

    /// Sees to it that an entry comes up in time.
    fn arm(&mut self, deadline: &mut Deadline, key: K) {
        let due = deadline.due;
        let Some(due) = due else { return };
        let tick = self.reachable(due.get());
        let is_earlier = |armed: u16| (tick as u16).wrapping_sub(armed).cast_signed() < 0;
        let armed = deadline.armed;
        if armed.is_none_or(is_earlier) {
            self.insert(tick, key);
            deadline.armed = Some(tick as u16);
        }
    }

    /// Takes out everything whose tick has passed: the keys with the tick they stood under.
    /// The caller asks [`Timers::is_due`] of each.
    pub fn expire(&mut self, now: Instant, into: &mut Vec<(K, u64)>) {
        if self.next.is_none_or(|next| now < next) {
            // That ticks without an entry have passed may be noted later: what is set until then is met too early
            // at worst, as a deadline more than a revolution ahead is.
            return;
        }
        let until = self.nanos(now).get() / TICK_NS;
        while let Some(tick) = self.next_tick().filter(|&tick| tick <= until) {
            let slot = (tick % SLOTS) as usize;
            let (word, bit) = word_and_bit(slot);
            self.occupied[word] &= !bit;
            if self.occupied[word] == 0 {
                self.occupied_words &= !(1 << word);
            }
            // Taken, not drained: the slot shall not keep room for the most that it ever held.
            let keys = std::mem::take(&mut self.slots[slot]);
            into.extend(keys.into_iter().map(|key| (key, tick)));
            self.done = tick;
        }
        self.done = self.done.max(until);
        self.next = self.next_tick().map(|tick| self.begin_of(tick));
    }

    /// Whether the deadline behind an expired entry has really come. One that was moved meanwhile
    /// is put in again; a stale entry is dropped. (After a nap of 17 minutes the lower bits of a
    /// stale one may look like those of a live one. Then, too, it is the time that decides.)
    ///
    /// One that has come stays set until its owner sets it anew: when it was due is still known.
    pub fn is_due(&mut self, deadline: &mut Deadline, tick: u64, now: Instant, key: K) -> bool {
        let (due, armed) = (deadline.due, deadline.armed);
        if armed != Some(tick as u16) {
            return false;
        }
        deadline.armed = None;
        if due.is_some_and(|due| due <= self.nanos(now)) {
            return true;
        }
        self.arm(deadline, key);
        false
    }

    /// When [`Timers::expire`] has something to do next.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.next
    }

    fn begin_of(&self, tick: u64) -> Instant {
        self.epoch + Duration::from_nanos(tick * TICK_NS)
    }

    /// Forgets all entries. All owners must be gone.
    pub fn clear(&mut self) {
        self.slots.fill_with(Vec::new);
        self.occupied = [0; WORDS as usize];
        self.occupied_words = 0;
        self.next = None;
    }

    /// Nanoseconds since the epoch, at least one.
    fn nanos(&self, at: Instant) -> NonZeroU64 {
        let nanos = at.saturating_duration_since(self.epoch).as_nanos();
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        NonZeroU64::new(nanos).unwrap_or(NonZeroU64::MIN)
    }

    /// The tick at or after so many nanoseconds, as far as one revolution reaches.
    fn reachable(&self, nanos: u64) -> u64 {
        nanos
            .div_ceil(TICK_NS)
            .clamp(self.done + 1, self.done + SLOTS - 1)
    }

    fn insert(&mut self, tick: u64, key: K) {
        let slot = (tick % SLOTS) as usize;
        self.slots[slot].push(key);
        let (word, bit) = word_and_bit(slot);
        self.occupied[word] |= bit;
        self.occupied_words |= 1 << word;
        let at = self.begin_of(tick);
        self.next = self.next.map_or(at, |next| next.min(at)).into();
    }

    /// The first occupied tick after `done`, found by the bits.
    fn next_tick(&self) -> Option<u64> {
        let first = self.done + 1;
        let (first_word, first_bit) = (first % SLOTS / WORD_BITS, first % WORD_BITS);
        let upper = self.occupied[first_word as usize] & (u64::MAX << first_bit);
        let (words_on, bits) = if upper == 0 {
            // Bit 0 is the word after the first. The first word comes last: what is left of it is lower.
            let after = self.occupied_words.rotate_right(first_word as u32 + 1);
            let words_on = u64::from(after.trailing_zeros()) + 1;
            let word = (first_word + words_on) % WORDS;
            (words_on, self.occupied[word as usize])
        } else {
            (0, upper)
        };
        let tick = first - first_bit + words_on * WORD_BITS + u64::from(bits.trailing_zeros());
        (bits != 0).then_some(tick)
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
    fn what_was_set_is_read_back_to_the_nanosecond() {
        let start = Instant::now();
        let (mut timers, mut deadline) = (Timers::new(start), Deadline::default());
        assert_eq!(timers.at(&deadline), None);
        let year = Duration::from_secs(365 * 24 * 3600);
        for after in [Duration::from_nanos(1), ms(16), ms(17), year, 200 * year] {
            let at = start + after + Duration::from_nanos(1);
            timers.set(&mut deadline, Some(at), 1);
            assert_eq!(timers.at(&deadline), Some(at));
        }
        timers.set(&mut deadline, None, 1);
        assert_eq!(timers.at(&deadline), None);
    }

    #[test]
    fn a_year_long_deadline_after_years_of_uptime_comes_in_time() {
        let day = Duration::from_secs(24 * 3600);
        let start = Instant::now();
        let (mut timers, mut deadline) = (Timers::new(start), Deadline::default());
        let mut now = start + 1000 * day;
        assert!(!fires(&mut timers, &mut deadline, now));
        let due = now + 365 * day;
        timers.set(&mut deadline, Some(due), 1);
        now += 364 * day;
        while now < due {
            assert!(!fires(&mut timers, &mut deadline, now), "early");
            now = timers.next().expect("a deadline is set");
        }
        assert!(now - due < ms(TICK_MS), "late by {:?}", now - due);
        assert!(fires(&mut timers, &mut deadline, now));
    }

    #[test]
    fn one_that_has_come_is_known_until_it_is_set_anew_and_comes_once() {
        let start = Instant::now();
        let (mut timers, mut deadline) = (Timers::new(start), Deadline::default());
        let due = start + ms(50);
        timers.set(&mut deadline, Some(due), 1);
        assert!(fires(&mut timers, &mut deadline, start + ms(100)));
        assert_eq!(timers.at(&deadline), Some(due));
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn an_owner_whose_name_was_another_ones_has_its_own_time() {
        let start = Instant::now();
        let (mut timers, mut gone) = (Timers::new(start), Deadline::default());
        timers.set(&mut gone, Some(start + ms(50)), 1);
        let mut successor = Deadline::default();
        timers.set(&mut successor, Some(start + ms(500)), 1);
        assert!(!fires(&mut timers, &mut successor, start + ms(100)));
        assert!(fires(&mut timers, &mut successor, start + ms(516)));
    }

    #[test]
    fn an_emptied_wheel_holds_no_memory() {
        let start = Instant::now();
        let mut timers = Timers::new(start);
        let fill = |timers: &mut Timers<usize>, now| {
            let mut deadlines = [Deadline::default(); 1000];
            for (key, deadline) in deadlines.iter_mut().enumerate() {
                timers.set(deadline, Some(now + ms(key as u64 % 50)), key);
            }
        };
        let held = |timers: &Timers<usize>| timers.slots.iter().map(Vec::capacity).sum::<usize>();
        fill(&mut timers, start);
        assert!(held(&timers) >= 1000);
        timers.expire(start + ms(1000), &mut Vec::new());
        assert_eq!(held(&timers), 0);
        fill(&mut timers, start + ms(1000));
        timers.clear();
        assert_eq!((held(&timers), timers.next()), (0, None));
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
