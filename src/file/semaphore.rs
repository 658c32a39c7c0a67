//! What is scarce and shared out: descriptors that files may have, bytes of memory. A counting semaphore
//! (sem_overview(7)) whose permits have a size.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// So many units, of which any thread takes some and gives them back.
#[derive(Clone, Debug)]
pub struct Semaphore {
    shared: Arc<Shared>,
    max: u64,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    given_back: Condvar,
}

#[derive(Debug, Default)]
struct State {
    taken: u64,
    /// Threads that wait for units. If there are none nobody is woken, which would be a system call.
    waiting: usize,
}

/// Units that are taken until this is dropped.
#[derive(Debug)]
pub struct Permit {
    semaphore: Semaphore,
    amount: u64,
}

impl Semaphore {
    /// So many units, all of them free.
    #[must_use]
    pub fn new(max: u64) -> Self {
        let shared = Arc::default();
        Self { shared, max }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let state = self.shared.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, amount: u64) {
        let mut state = self.state();
        state.taken -= amount;
        let is_awaited = state.waiting > 0;
        drop(state);
        if is_awaited {
            self.shared.given_back.notify_all();
        }
    }

    fn has_left(&self, taken: u64, amount: u64) -> bool {
        taken.checked_add(amount).is_some_and(|sum| sum <= self.max)
    }

    /// Takes so many units, if they are free.
    #[must_use]
    pub fn try_acquire(&self, amount: u64) -> Option<Permit> {
        let mut permit = self.acquire_none();
        permit.resize(amount).then_some(permit)
    }

    /// Takes no unit yet.
    #[must_use]
    pub fn acquire_none(&self) -> Permit {
        let (semaphore, amount) = (self.clone(), 0);
        Permit { semaphore, amount }
    }

    /// Takes so many units, or all if there are fewer, and waits until they are free.
    #[must_use]
    pub fn acquire(&self, amount: u64) -> Permit {
        let (semaphore, amount) = (self.clone(), amount.min(self.max));
        let is_short = |state: &mut State| !self.has_left(state.taken, amount);
        let mut state = self.state();
        state.waiting += 1;
        let state = self.shared.given_back.wait_while(state, is_short);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        state.taken += amount;
        Permit { semaphore, amount }
    }
}

impl Permit {
    /// Takes more units, or gives some back. Says whether enough were free; if not, nothing changes.
    #[must_use]
    pub fn resize(&mut self, amount: u64) -> bool {
        if amount < self.amount {
            self.semaphore.give_back(self.amount - amount);
        } else {
            let more = amount - self.amount;
            let mut state = self.semaphore.state();
            if !self.semaphore.has_left(state.taken, more) {
                return false;
            }
            state.taken += more;
        }
        self.amount = amount;
        true
    }

    /// Whether more than half of all units are taken: who can do without its own gives them back.
    #[must_use]
    pub fn is_scarce(&self) -> bool {
        self.semaphore.state().taken > self.semaphore.max / 2
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.semaphore.give_back(self.amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is_and_all_comes_back() {
        let semaphore = Semaphore::new(10);
        let six = semaphore.try_acquire(6).unwrap();
        assert!(semaphore.try_acquire(5).is_none() && semaphore.try_acquire(u64::MAX).is_none());
        let four = semaphore.try_acquire(4).unwrap();
        assert!(semaphore.try_acquire(1).is_none());
        drop(six);
        assert!(semaphore.try_acquire(7).is_none() && semaphore.try_acquire(6).is_some());
        drop(four);
        assert!(semaphore.try_acquire(10).is_some());
    }

    #[test]
    fn who_waits_gets_what_is_given_back() {
        let semaphore = Semaphore::new(10);
        let six = semaphore.try_acquire(6).unwrap();
        assert!(six.is_scarce());
        let waits = semaphore.clone();
        let waiting = std::thread::spawn(move || waits.acquire(100));
        assert!(!waiting.is_finished());
        drop(six);
        let all = waiting.join().unwrap();
        assert!(semaphore.try_acquire(1).is_none());
        drop(all);
        assert!(!semaphore.try_acquire(5).unwrap().is_scarce());
    }

    #[test]
    fn a_lease_grows_as_far_as_there_is_something_left() {
        let semaphore = Semaphore::new(100);
        let (mut one, mut two) = (semaphore.acquire_none(), semaphore.acquire_none());
        assert!(one.resize(60) && two.resize(40) && !two.resize(41));
        drop(two);
        assert!(one.resize(100) && one.resize(70));
        let mut three = semaphore.acquire_none();
        assert!(!three.resize(31) && three.resize(30));
        drop((one, three));
        assert!(semaphore.try_acquire(100).is_some());
    }
}
