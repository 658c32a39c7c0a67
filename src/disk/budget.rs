//! A share of something that is scarce: descriptors that files may have, bytes that helpers may hand
//! over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What may be taken, and what is. One loop takes; helpers, too, give back.
#[derive(Clone, Debug)]
pub struct Budget {
    taken: Arc<AtomicU64>,
    most: u64,
}

/// A part of a budget, until it is dropped.
#[derive(Debug)]
pub struct Lease {
    budget: Budget,
    amount: u64,
}

impl Budget {
    /// A budget of which nothing is taken.
    #[must_use]
    pub fn new(most: u64) -> Self {
        let taken = Arc::default();
        Self { taken, most }
    }

    /// Takes so much, if that much is left.
    #[must_use]
    pub fn lease(&self, amount: u64) -> Option<Lease> {
        let has_room = |taken: u64| taken.checked_add(amount).filter(|&sum| sum <= self.most);
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, has_room)
            .ok()?;
        let budget = self.clone();
        Some(Lease { budget, amount })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.amount, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is_and_all_comes_back() {
        let budget = Budget::new(10);
        let six = budget.lease(6).unwrap();
        assert!(budget.lease(5).is_none() && budget.lease(u64::MAX).is_none());
        let four = budget.lease(4).unwrap();
        assert!(budget.lease(1).is_none());
        drop(six);
        assert!(budget.lease(7).is_none() && budget.lease(6).is_some());
        drop(four);
        assert!(budget.lease(10).is_some());
    }
}
