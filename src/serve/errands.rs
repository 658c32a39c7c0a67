//! Which connections have sent a helper on an errand, and what it brought them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::disk::pool::{Pool, Ticket};
use crate::disk::{Errand, Fetched, Mount, Reach};
use crate::reactor::{Control, Remote, SourceId, Token};

/// The errands of one loop's connections.
#[derive(Debug)]
pub(super) struct Errands {
    pool: Pool<Token>,
    out: HashMap<Token, Out>,
}

/// A connection's errand.
#[derive(Debug)]
struct Out {
    ticket: Ticket,
    reach: Reach,
    /// Once a helper is back.
    brought: Option<Fetched>,
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
        let (reach, mount) = (errand.reach(), errand.mount());
        self.send_within(reach, mount, token, errand);
    }

    fn send_within(&mut self, reach: Reach, mount: Mount, token: Token, errand: Errand) {
        let out = Out {
            ticket: self.pool.send(token, errand, reach, mount),
            reach,
            brought: None,
        };
        self.out.insert(token, out);
    }

    /// Keeps what was brought, and wakes those for whom it is, or whose errand leads further. For a
    /// connection that has ended it is dropped.
    pub(super) fn collect<C>(&mut self, control: &mut Control<C>) {
        for (token, fetched) in self.pool.take() {
            if let Fetched::Panicked = fetched {
                control.stats.helper_panics += 1;
            }
            let Some(out) = self.out.get_mut(&token) else {
                continue;
            };
            match fetched {
                Fetched::Further(errand, mount) => {
                    self.send_within(Reach::Anywhere, mount, token, errand);
                }
                fetched => out.brought = Some(fetched),
            }
            control.wake(token);
        }
    }

    /// What was brought for a connection, if it was.
    pub(super) fn take(&mut self, token: Token) -> Option<Fetched> {
        match self.out.entry(token) {
            Entry::Occupied(out) if out.get().brought.is_some() => out.remove().brought,
            _ => None,
        }
    }

    /// Whether a helper is out for a connection, perhaps for ever.
    pub(super) fn is_far(&self, token: Token) -> bool {
        let is_far = |out: &Out| out.brought.is_none() && out.reach == Reach::Anywhere;
        self.out.get(&token).is_some_and(is_far)
    }

    /// A connection ends.
    pub(super) fn forget(&mut self, token: Token) {
        if let Some(Out { ticket, .. }) = self.out.remove(&token) {
            self.pool.forget(ticket);
        }
    }
}
