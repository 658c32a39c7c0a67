//! Which connections have sent a helper on an errand, and what it brought them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::disk::pool::{Pool, Ticket};
use crate::disk::{Errand, Fetched, Reach};
use crate::reactor::{Control, Remote, SourceId, Token};

/// The errands of one loop's connections.
#[derive(Debug)]
pub(super) struct Errands {
    pool: Pool<Token>,
    out: HashMap<Token, Out>,
}

/// How far a connection's errand has come.
#[derive(Debug)]
enum Out {
    UnderWay { ticket: Ticket, reach: Reach },
    Done(Fetched),
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
        let reach = errand.reach();
        let ticket = self.pool.send(token, errand, reach);
        self.out.insert(token, Out::UnderWay { ticket, reach });
    }

    /// Keeps what was brought, and wakes those for whom it is, or whose errand leads further. For a
    /// connection that has ended it is dropped.
    pub(super) fn collect<C>(&mut self, control: &mut Control<C>) {
        for (token, fetched) in self.pool.take() {
            let Entry::Occupied(mut waiting) = self.out.entry(token) else {
                continue;
            };
            waiting.insert(match fetched {
                Fetched::Further(errand) => {
                    let reach = Reach::Anywhere;
                    let ticket = self.pool.send(token, errand, reach);
                    Out::UnderWay { ticket, reach }
                }
                fetched => Out::Done(fetched),
            });
            control.wake(token);
        }
    }

    /// What was brought for a connection, if it was.
    pub(super) fn take(&mut self, token: Token) -> Option<Fetched> {
        match self.out.remove(&token)? {
            Out::Done(fetched) => Some(fetched),
            under_way => {
                self.out.insert(token, under_way);
                None
            }
        }
    }

    /// Whether a connection's errand may take for ever.
    pub(super) fn is_far(&self, token: Token) -> bool {
        let far = |out: &Out| {
            matches!(
                out,
                Out::UnderWay {
                    reach: Reach::Anywhere,
                    ..
                }
            )
        };
        self.out.get(&token).is_some_and(far)
    }

    /// A connection ends.
    pub(super) fn forget(&mut self, token: Token) {
        if let Some(Out::UnderWay { ticket, .. }) = self.out.remove(&token) {
            self.pool.forget(ticket);
        }
    }
}
