//! Which connections have sent a helper on an errand, and what it brought them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::disk::pool::Pool;
use crate::disk::{Errand, Fetched};
use crate::reactor::{Control, Remote, SourceId, Token};

/// The errands of one loop's connections.
#[derive(Debug)]
pub(super) struct Errands {
    pool: Pool<Token>,
    /// Whose errands are under way, or done and not taken yet.
    out: HashMap<Token, Option<Fetched>>,
}

impl Errands {
    /// Errands whose end makes the loop call the application's `source`.
    pub(super) fn new(remote: Remote, source: SourceId) -> Self {
        let notify = move || {
            if let Err(error) = remote.notify(source) {
                log::error!("the loop can't be woken: {error}");
            }
        };
        Self {
            pool: Pool::new(notify),
            out: HashMap::new(),
        }
    }

    /// Sends a helper on an errand for a connection.
    pub(super) fn send(&mut self, token: Token, errand: Errand) {
        self.out.insert(token, None);
        self.pool.send(token, errand);
    }

    /// Keeps what was brought, and wakes those for whom it is. For a connection that has ended it is
    /// dropped.
    pub(super) fn collect<C>(&mut self, control: &mut Control<C>) {
        for (token, fetched) in self.pool.take() {
            if let Entry::Occupied(mut waiting) = self.out.entry(token) {
                waiting.insert(Some(fetched));
                control.wake(token);
            }
        }
    }

    /// What was brought for a connection, if it was.
    pub(super) fn take(&mut self, token: Token) -> Option<Fetched> {
        match self.out.entry(token) {
            Entry::Occupied(done) if done.get().is_some() => done.remove(),
            _ => None,
        }
    }

    /// A connection has ended.
    pub(super) fn forget(&mut self, token: Token) {
        self.out.remove(&token);
    }
}
