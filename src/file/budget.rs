//! A share of something that is scarce: descriptors that files may have, bytes that helpers may hand
//! over.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What may be taken, and what is. Any thread takes and gives back.
#[derive(Clone, Debug)]
pub struct Budget {
    shared: Arc<Shared>,
    most: u64,
}

#[derive(Debug, Default)]
struct Shared {
    taken: Mutex<u64>,
    given_back: Condvar,
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
        let shared = Arc::default();
        Self { shared, most }
    }

    fn taken(&self) -> MutexGuard<'_, u64> {
        let taken = self.shared.taken.lock();
        taken.unwrap_or_else(PoisonError::into_inner)
    }

    fn has_room(&self, taken: u64, amount: u64) -> bool {
        taken
            .checked_add(amount)
            .is_some_and(|sum| sum <= self.most)
    }

    fn take(&self, mut taken: MutexGuard<'_, u64>, amount: u64) -> Lease {
        *taken += amount;
        let budget = self.clone();
        Lease { budget, amount }
    }

    /// Takes so much, if that much is left.
    #[must_use]
    pub fn lease(&self, amount: u64) -> Option<Lease> {
        let taken = self.taken();
        let has_room = self.has_room(*taken, amount);
        has_room.then(|| self.take(taken, amount))
    }

    /// Takes so much, of all that there is at most, and waits until that much is left.
    #[must_use]
    pub fn wait_for(&self, amount: u64) -> Lease {
        let amount = amount.min(self.most);
        let is_full = |taken: &mut u64| !self.has_room(*taken, amount);
        let taken = self.shared.given_back.wait_while(self.taken(), is_full);
        self.take(taken.unwrap_or_else(PoisonError::into_inner), amount)
    }
}

impl Lease {
    /// Whether more than half of the budget is taken: who has a part of it that it can do without
    /// gives it back.
    #[must_use]
    pub fn is_scarce(&self) -> bool {
        *self.budget.taken() > self.budget.most / 2
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        *self.budget.taken() -= self.amount;
        self.budget.shared.given_back.notify_all();
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

    #[test]
    fn who_waits_gets_what_is_given_back() {
        let budget = Budget::new(10);
        let six = budget.lease(6).unwrap();
        assert!(six.is_scarce());
        let waits = budget.clone();
        let waiting = std::thread::spawn(move || waits.wait_for(100));
        assert!(!waiting.is_finished());
        drop(six);
        let all = waiting.join().unwrap();
        assert!(budget.lease(1).is_none());
        drop(all);
        assert!(!budget.lease(5).unwrap().is_scarce());
    }
}
