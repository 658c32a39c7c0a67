//! Which connections have sent a helper on an errand, and what it brought them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::sources::REOPENED;
use crate::file::{DiskTask, ListTask, Mount, TaskId, TaskPool, TaskResult};
use crate::protocol::Protocol;
use crate::reactor::{LoopHandle, Remote, SourceId, Token};

/// The errands of one loop's connections.
#[derive(Debug)]
pub(super) struct DiskTasks {
    pool: TaskPool<Whose>,
    out: HashMap<Token, Out>,
    /// Lists that are being made, by their ids.
    lists: HashMap<u64, Making>,
    remote: Remote,
}

/// Whom an errand is for.
#[derive(Clone, Copy, Debug)]
enum Whose {
    /// A connection.
    One(Token),
    /// All who wait for a list.
    List(u64),
}

/// A connection's errand.
#[derive(Debug)]
struct Out {
    of: Of,
    /// Once a helper is back.
    brought: Option<TaskResult>,
}

#[derive(Debug)]
enum Of {
    /// Its own.
    Own(TaskId),
    /// A list, others' too.
    List(u64),
}

/// A list that is being made.
#[derive(Debug)]
struct Making {
    task: Arc<ListTask>,
    id: TaskId,
    waiting: Vec<Token>,
}

fn notify(remote: &Remote, source: SourceId) {
    if let Err(error) = remote.notify(source) {
        log::error!("the loop can't be woken: {error}");
    }
}

impl DiskTasks {
    /// Errands whose end makes the loop call the application's `source`.
    pub(super) fn new(remote: Remote, source: SourceId) -> Self {
        let for_pool = remote.clone();
        Self {
            pool: TaskPool::new(move || notify(&for_pool, source)),
            out: HashMap::new(),
            lists: HashMap::new(),
            remote,
        }
    }

    /// Sends a helper on an errand for a connection, unless it is one for a list that was sent
    /// before.
    pub(super) fn send(&mut self, token: Token, errand: DiskTask) {
        let of = match errand {
            DiskTask::List(task) => {
                let id = task.id();
                match self.lists.get_mut(&id) {
                    Some(making) => making.waiting.push(token),
                    None => self.send_list(task, None, vec![token]),
                }
                Of::List(id)
            }
            errand => {
                let remote = errand.mount();
                Of::Own(self.pool.send(Whose::One(token), errand, remote))
            }
        };
        self.out.insert(token, Out { of, brought: None });
    }

    /// `beyond`: to which mount it leads, if that is known.
    fn send_list(&mut self, task: Arc<ListTask>, beyond: Option<Mount>, waiting: Vec<Token>) {
        let (id, errand) = (task.id(), DiskTask::List(Arc::clone(&task)));
        let making = Making {
            id: self.pool.send(Whose::List(id), errand, beyond),
            task,
            waiting,
        };
        self.lists.insert(id, making);
    }

    /// Has a service open anew what it serves, and the loop called for it when that is done.
    pub(super) fn reopen(&self, service: &mut impl Protocol) {
        let remote = self.remote.clone();
        let told = move || notify(&remote, REOPENED);
        service.reopen(self.pool.reopeners(), Box::new(told));
    }

    /// Keeps what was brought, and wakes those for whom it is, or whose errand leads further. For a
    /// connection that has ended it is dropped.
    pub(super) fn collect<C>(&mut self, control: &mut LoopHandle<C>) {
        for (whose, fetched) in self.pool.take() {
            if let TaskResult::Panicked = fetched {
                control.stats.helper_panics += 1;
            }
            match whose {
                Whose::One(token) => self.bring(token, fetched, control),
                Whose::List(id) => self.bring_list(id, fetched, control),
            }
        }
    }

    fn bring<C>(&mut self, token: Token, fetched: TaskResult, control: &mut LoopHandle<C>) {
        let Some(out) = self.out.get_mut(&token) else {
            return;
        };
        match fetched {
            TaskResult::NeedsRemoteLane(errand, mount) => {
                out.of = Of::Own(self.pool.send(Whose::One(token), errand, Some(mount)));
            }
            fetched => out.brought = Some(fetched),
        }
        control.wake(token);
    }

    fn bring_list<C>(&mut self, id: u64, fetched: TaskResult, control: &mut LoopHandle<C>) {
        let Some(Making { waiting, .. }) = self.lists.remove(&id) else {
            return;
        };
        for &token in &waiting {
            if let Some(out) = self.out.get_mut(&token) {
                out.brought = match &fetched {
                    TaskResult::Listed(listed) => Some(TaskResult::Listed(listed.clone())),
                    TaskResult::Panicked => Some(TaskResult::Panicked),
                    _ => None,
                };
            }
            control.wake(token);
        }
        if let TaskResult::NeedsRemoteLane(DiskTask::List(task), mount) = fetched {
            self.send_list(task, Some(mount), waiting);
        }
    }

    /// What was brought for a connection, if it was.
    pub(super) fn take(&mut self, token: Token) -> Option<TaskResult> {
        match self.out.entry(token) {
            Entry::Occupied(out) if out.get().brought.is_some() => out.remove().brought,
            _ => None,
        }
    }

    /// Whether a helper is out for a connection, perhaps for ever.
    pub(super) fn is_far(&self, token: Token) -> bool {
        let Some(out) = self.out.get(&token) else {
            return false;
        };
        let task = match out.of {
            Of::Own(task) => Some(task),
            Of::List(id) => self.lists.get(&id).map(|making| making.id),
        };
        out.brought.is_none() && task.is_some_and(|task| task.is_remote())
    }

    /// A connection ends. A list that nobody waits for any more is left undone, or unfinished.
    pub(super) fn forget(&mut self, token: Token) {
        let Some(Out { of, .. }) = self.out.remove(&token) else {
            return;
        };
        let id = match of {
            Of::Own(task) => return self.pool.cancel(task),
            Of::List(id) => id,
        };
        let Entry::Occupied(mut making) = self.lists.entry(id) else {
            return;
        };
        making.get_mut().waiting.retain(|&waiting| waiting != token);
        if making.get().waiting.is_empty() {
            let making = making.remove();
            making.task.cancel();
            self.pool.cancel(making.id);
        }
    }
}
