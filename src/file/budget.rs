//! A share of something that is scarce: descriptors that files may have, bytes of memory.

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

    fn has_left(&self, taken: u64, amount: u64) -> bool {
        taken
            .checked_add(amount)
            .is_some_and(|sum| sum <= self.most)
    }

    /// Takes so much, if that much is left.
    #[must_use]
    pub fn lease(&self, amount: u64) -> Option<Lease> {
        let mut lease = self.lease_nothing();
        lease.resize(amount).then_some(lease)
    }

    /// Takes nothing yet.
    #[must_use]
    pub fn lease_nothing(&self) -> Lease {
        let (budget, amount) = (self.clone(), 0);
        Lease { budget, amount }
    }

    /// Takes so much, of all that there is at most, and waits until that much is left.
    #[must_use]
    pub fn lease_waiting(&self, amount: u64) -> Lease {
        let (budget, amount) = (self.clone(), amount.min(self.most));
        let is_short = |taken: &mut u64| !self.has_left(*taken, amount);
        let taken = self.shared.given_back.wait_while(self.taken(), is_short);
        *taken.unwrap_or_else(PoisonError::into_inner) += amount;
        Lease { budget, amount }
    }
}

impl Lease {
    /// Takes more, or gives some back: so much is taken then. Says whether that much was left.
    #[must_use]
    pub fn resize(&mut self, amount: u64) -> bool {
        let mut taken = self.budget.taken();
        let others = *taken - self.amount;
        let fits = amount <= self.amount || self.budget.has_left(others, amount);
        if fits {
            *taken = others + amount;
            drop(taken);
            self.amount = amount;
            self.budget.shared.given_back.notify_all();
        }
        fits
    }

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
        let waiting = std::thread::spawn(move || waits.lease_waiting(100));
        assert!(!waiting.is_finished());
        drop(six);
        let all = waiting.join().unwrap();
        assert!(budget.lease(1).is_none());
        drop(all);
        assert!(!budget.lease(5).unwrap().is_scarce());
    }

    #[test]
    fn a_lease_grows_as_far_as_there_is_something_left() {
        let budget = Budget::new(100);
        let (mut one, mut two) = (budget.lease_nothing(), budget.lease_nothing());
        assert!(one.resize(60) && two.resize(40) && !two.resize(41));
        drop(two);
        assert!(one.resize(100) && one.resize(70));
        let mut three = budget.lease_nothing();
        assert!(!three.resize(31) && three.resize(30));
        drop((one, three));
        assert!(budget.lease(100).is_some());
    }
}
