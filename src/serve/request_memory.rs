//! The memory that all connections together hold for requests that aren't whole yet.

use crate::limits::{REQUEST_MEMORY_BYTES_MIN, REQUEST_MEMORY_SHARE_BYTES};

/// How many bytes they hold, and how many they may hold.
#[derive(Debug)]
pub(super) struct RequestMemory {
    bytes: usize,
    max: usize,
    /// What `max` is while there is memory.
    share_of_all: usize,
}

impl RequestMemory {
    /// With so many connections at most.
    pub(super) fn new(connections_max: usize) -> Self {
        let share_of_all = connections_max.saturating_mul(REQUEST_MEMORY_SHARE_BYTES);
        let max = share_of_all.max(REQUEST_MEMORY_BYTES_MIN);
        Self {
            bytes: 0,
            max,
            share_of_all: max,
        }
    }

    /// A connection that held `before` holds `now` bytes.
    pub(super) fn note(&mut self, before: &mut u32, now: usize) {
        self.bytes = self.bytes - *before as usize + now;
        // A request is far shorter than 4 GiB.
        *before = u32::try_from(now).unwrap_or(u32::MAX);
        if self.bytes <= self.max / 2 {
            self.max = self.share_of_all;
        }
    }

    pub(super) fn is_too_much(&self) -> bool {
        self.bytes > self.max
    }

    /// An allocation has failed. Connections are to be closed until an eighth is given back, so that
    /// everything else has memory; when half of it is free, the bound is lifted again.
    pub(super) fn run_out(&mut self) {
        self.max = self.bytes - self.bytes / 8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_share_and_few_have_enough() {
        let mut memory = RequestMemory::new(2);
        let mut one = 0;
        memory.note(&mut one, REQUEST_MEMORY_BYTES_MIN);
        assert!(!memory.is_too_much());
        memory.note(&mut one, REQUEST_MEMORY_BYTES_MIN + 1);
        assert!(memory.is_too_much());
        memory.note(&mut one, 0);
        assert!(!memory.is_too_much());

        let mut memory = RequestMemory::new(10_000);
        let mut each = [0; 10_000];
        for one in &mut each {
            memory.note(one, REQUEST_MEMORY_SHARE_BYTES);
        }
        assert!(!memory.is_too_much());
        memory.note(&mut each[0], REQUEST_MEMORY_SHARE_BYTES + 1);
        assert!(memory.is_too_much());
    }

    #[test]
    fn without_memory_it_is_less_until_half_of_that_is_free() {
        let mut memory = RequestMemory::new(1);
        let (mut one, mut other) = (0, 0);
        memory.note(&mut one, 1000);
        memory.note(&mut other, 1000);
        memory.run_out();
        assert!(memory.is_too_much());
        memory.note(&mut one, 750);
        assert!(!memory.is_too_much());
        memory.note(&mut one, 751);
        assert!(memory.is_too_much());
        memory.note(&mut one, 0);
        // The bound is what it was: there is memory again.
        memory.note(&mut other, 875);
        memory.note(&mut other, REQUEST_MEMORY_BYTES_MIN);
        assert!(!memory.is_too_much());
    }
}
