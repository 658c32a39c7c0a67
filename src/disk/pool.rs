//! The helpers: a few threads that wait for disks so that the loop need not. They are started when
//! there is something to do, so that a server whose files are in memory never has them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::errand::{Errand, Fetched, Reach};
use crate::limits::HELPERS_MAX;

/// Something to do.
struct Job {
    /// Whose errand it is, if it is one.
    ticket: Option<Ticket>,
    run: Box<dyn FnOnce() + Send>,
}

/// An errand among those of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// The threads, and what they have to do.
#[derive(Clone)]
pub struct Helpers(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    /// The threads end when there is nothing left to do.
    is_closed: bool,
}

impl Helpers {
    fn new() -> Self {
        Self(Arc::new(Shared {
            queue: Mutex::default(),
            changed: Condvar::new(),
        }))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has something done that is nobody's errand.
    pub fn run(&self, run: impl FnOnce() + Send + 'static) {
        let (ticket, run) = (None, Box::new(run));
        self.push(Job { ticket, run });
    }

    /// Has a job done, in the order in which they come.
    fn push(&self, job: Job) {
        let mut queue = self.queue();
        queue.jobs.push_back(job);
        if queue.idle >= queue.jobs.len() || queue.threads == HELPERS_MAX {
            self.0.changed.notify_one();
            return;
        }
        queue.threads += 1;
        drop(queue);
        let helpers = self.clone();
        let started = thread::Builder::new()
            .name("disk".into())
            .spawn(move || helpers.work());
        if let Err(error) = started {
            log::warn!("a thread that reads can't be started: {error}");
            self.work_without_threads();
        }
    }

    /// A thread's life.
    fn work(&self) {
        let mut queue = self.queue();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                drop(queue);
                (job.run)();
                queue = self.queue();
            } else if queue.is_closed {
                queue.threads -= 1;
                return;
            } else {
                queue.idle += 1;
                let waited = self.0.changed.wait(queue);
                queue = waited.unwrap_or_else(PoisonError::into_inner);
                queue.idle -= 1;
            }
        }
    }

    /// Without a thread the loop itself waits, which is better than that nobody does.
    fn work_without_threads(&self) {
        let mut queue = self.queue();
        queue.threads -= 1;
        while queue.threads == 0
            && let Some(job) = queue.jobs.pop_front()
        {
            drop(queue);
            (job.run)();
            queue = self.queue();
        }
    }

    /// Leaves an errand undone that no thread has begun.
    fn forget(&self, ticket: Ticket) {
        let mut queue = self.queue();
        let is_it = |job: &Job| job.ticket == Some(ticket);
        let job = queue.jobs.iter().position(is_it);
        let job = job.and_then(|at| queue.jobs.remove(at));
        drop(queue);
        drop(job);
    }

    fn close(&self) {
        self.queue().is_closed = true;
        self.0.changed.notify_all();
    }
}

impl fmt::Debug for Helpers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = self.queue();
        f.debug_struct("Helpers")
            .field("threads", &queue.threads)
            .field("jobs", &queue.jobs.len())
            .finish_non_exhaustive()
    }
}

/// The helpers of one loop. `K` says whom an errand is for. Those who may wait for ever have threads
/// of their own: a network that is down must not keep anybody from a disk. So have those who read
/// folders: each entry of a large one may take a disk's seek.
pub struct Pool<K> {
    near: Helpers,
    lists: Helpers,
    far: Helpers,
    done: Arc<Done<K>>,
    /// Errands so far.
    sent: u64,
}

/// What was fetched and not yet taken, and how the loop is told.
struct Done<K> {
    fetched: Mutex<Vec<(K, Fetched)>>,
    notify: Box<dyn Fn() + Send + Sync>,
}

impl<K> Done<K> {
    /// Adds what was fetched, and tells the loop if there was nothing before. A foreign file is
    /// closed by those who go far.
    fn push(&self, key: K, mut fetched: Fetched, far: &Helpers) {
        fetched.close_by(far);
        let mut all = self.fetched();
        all.push((key, fetched));
        let is_first = all.len() == 1;
        drop(all);
        if is_first {
            (self.notify)();
        }
    }

    fn fetched(&self) -> MutexGuard<'_, Vec<(K, Fetched)>> {
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Send + 'static> Pool<K> {
    /// Helpers that call `notify` when there is something to take.
    pub fn new(notify: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            near: Helpers::new(),
            lists: Helpers::new(),
            far: Helpers::new(),
            sent: 0,
            done: Arc::new(Done {
                fetched: Mutex::default(),
                notify: Box::new(notify),
            }),
        }
    }

    /// Sends somebody on an errand, no further than this.
    pub fn send(&mut self, key: K, errand: Errand, reach: Reach) -> Ticket {
        self.sent += 1;
        let ticket = Ticket(self.sent);
        let helpers = match (reach, &errand) {
            (Reach::Anywhere, _) => &self.far,
            (_, Errand::List { .. }) => &self.lists,
            _ => &self.near,
        };
        let (far, done) = (self.far.clone(), Arc::clone(&self.done));
        helpers.push(Job {
            ticket: Some(ticket),
            run: Box::new(move || done.push(key, errand.run(reach), &far)),
        });
        ticket
    }

    /// Nobody waits for this errand any more. What was begun is done all the same.
    pub fn forget(&self, ticket: Ticket) {
        for helpers in [&self.near, &self.lists, &self.far] {
            helpers.forget(ticket);
        }
    }

    /// What was fetched since this was called last.
    #[must_use]
    pub fn take(&self) -> Vec<(K, Fetched)> {
        std::mem::take(&mut self.done.fetched())
    }
}

impl<K> Drop for Pool<K> {
    fn drop(&mut self) {
        for helpers in [&self.near, &self.lists, &self.far] {
            helpers.close();
        }
    }
}

impl<K> fmt::Debug for Pool<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("near", &self.near)
            .field("lists", &self.lists)
            .field("far", &self.far)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::LookupError;
    use std::sync::Barrier;
    use std::sync::mpsc::{Sender, channel};

    fn pool() -> (Pool<u32>, std::sync::mpsc::Receiver<()>) {
        let (told, is_told) = channel();
        let told = Mutex::new(told);
        let notify = move || told.lock().unwrap().send(()).unwrap();
        (Pool::new(notify), is_told)
    }

    fn errand(barrier: &Arc<Barrier>, begun: &Sender<()>) -> Errand {
        let (barrier, begun) = (Arc::clone(barrier), begun.clone());
        Errand::Open {
            name: Box::default(),
            open: Box::new(move |_| {
                begun.send(()).unwrap();
                barrier.wait();
                Err(LookupError::NoDescriptor)
            }),
        }
    }

    #[test]
    fn helpers_are_few_and_begin_with_the_first_errand() {
        let (mut pool, is_told) = pool();
        assert_eq!(pool.near.queue().threads, 0);
        let barrier = Arc::new(Barrier::new(HELPERS_MAX + 1));
        let (begun, has_begun) = channel();
        let count = 2 * HELPERS_MAX as u32;
        for key in 0..count {
            pool.send(key, errand(&barrier, &begun), Reach::Disk);
        }
        for _ in 0..HELPERS_MAX {
            has_begun.recv().unwrap();
        }
        assert_eq!(pool.near.queue().threads, HELPERS_MAX);
        assert!(
            has_begun.try_recv().is_err(),
            "the others wait for a thread"
        );
        barrier.wait();
        barrier.wait();
        let mut keys = Vec::new();
        while keys.len() < count as usize {
            is_told.recv().unwrap();
            keys.extend(pool.take().into_iter().map(|(key, _)| key));
        }
        keys.sort_unstable();
        assert_eq!(keys, (0..count).collect::<Vec<_>>());
        assert!(pool.take().is_empty());
    }

    #[test]
    fn one_thread_does_for_errands_that_come_one_after_the_other() {
        let (mut pool, is_told) = pool();
        for key in 0..10 {
            pool.send(
                key,
                Errand::Open {
                    name: Box::default(),
                    open: Box::new(|_| Err(LookupError::NoDescriptor)),
                },
                Reach::Disk,
            );
            is_told.recv().unwrap();
            while pool.near.queue().idle == 0 {
                thread::yield_now();
            }
            assert_eq!(pool.take().len(), 1);
        }
        assert_eq!(pool.near.queue().threads, 1);
    }

    #[test]
    fn the_threads_end_with_the_pool() {
        let (mut pool, is_told) = pool();
        let (barrier, (begun, has_begun)) = (Arc::new(Barrier::new(2)), channel());
        pool.send(1, errand(&barrier, &begun), Reach::Disk);
        has_begun.recv().unwrap();
        let helpers = pool.near.clone();
        drop(pool);
        barrier.wait();
        is_told.recv().unwrap();
        while helpers.queue().threads > 0 {
            thread::yield_now();
        }
    }

    #[test]
    fn those_who_wait_for_ever_keep_nobody_from_a_disk() {
        let (mut pool, is_told) = pool();
        let (barrier, (begun, has_begun)) = (Arc::new(Barrier::new(HELPERS_MAX + 1)), channel());
        for key in 0..HELPERS_MAX as u32 {
            pool.send(key, errand(&barrier, &begun), Reach::Anywhere);
            has_begun.recv().unwrap();
        }
        let near = Errand::Open {
            name: Box::default(),
            open: Box::new(|_| Err(LookupError::Refused("it is not there"))),
        };
        let list = Errand::List {
            name: Box::default(),
            list: Box::new(|_| Ok(Vec::new())),
        };
        for errand in [near, list] {
            pool.send(99, errand, Reach::Disk);
            is_told.recv().unwrap();
            assert!(matches!(pool.take()[..], [(99, _)]));
        }
        barrier.wait();
        let mut count = 0;
        while count < HELPERS_MAX {
            is_told.recv().unwrap();
            count += pool.take().len();
        }
    }

    #[test]
    fn what_leads_further_comes_back_as_an_errand() {
        let (mut pool, is_told) = pool();
        let mut take = |errand, reach| {
            pool.send(1, errand, reach);
            is_told.recv().unwrap();
            pool.take().pop().unwrap().1
        };
        let within = |reach| match reach {
            Reach::Anywhere => LookupError::Refused("it is not there"),
            _ => LookupError::Cold,
        };
        let open = Errand::Open {
            name: b"file".as_slice().into(),
            open: Box::new(move |reach| Err(within(reach))),
        };
        let list = Errand::List {
            name: b"folder".as_slice().into(),
            list: Box::new(move |reach| Err(within(reach))),
        };
        for (errand, of) in [(open, &b"file"[..]), (list, b"folder")] {
            let Fetched::Further(errand) = take(errand, Reach::Disk) else {
                panic!("{of:?} is not further");
            };
            match take(errand, Reach::Anywhere) {
                Fetched::Opened { name, found } => {
                    assert!(*name == *of && matches!(found, Err(LookupError::Refused(_))));
                }
                Fetched::Listed { name, entries } => {
                    assert!(*name == *of && matches!(entries, Err(LookupError::Refused(_))));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn an_errand_that_is_forgotten_is_done_only_if_it_was_begun() {
        let (mut pool, is_told) = pool();
        let (barrier, (begun, has_begun)) = (Arc::new(Barrier::new(HELPERS_MAX + 1)), channel());
        let count = 2 * HELPERS_MAX as u32;
        let tickets: Vec<_> = (0..count)
            .map(|key| pool.send(key, errand(&barrier, &begun), Reach::Disk))
            .collect();
        for _ in 0..HELPERS_MAX {
            has_begun.recv().unwrap();
        }
        for ticket in tickets {
            pool.forget(ticket);
        }
        assert!(pool.near.queue().jobs.is_empty());
        barrier.wait();
        let mut keys = Vec::new();
        while keys.len() < HELPERS_MAX {
            is_told.recv().unwrap();
            keys.extend(pool.take().into_iter().map(|(key, _)| key));
        }
        assert!(has_begun.try_recv().is_err());
    }
}
