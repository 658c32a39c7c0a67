//! The helpers: a few threads that wait for disks so that the loop need not. They are started when
//! there is something to do, so that a server whose files are in memory never has them.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::budget::Budget;
use super::task::{DiskTask, Fetched, Mount, Reach};
use crate::failure::panic_message;
use crate::limits::{POOL_THREADS_MAX, REMOTE_POOL_THREADS_MAX, TASK_RESULTS_TOTAL_BYTES_MAX};

/// Something to do.
struct Job {
    /// Whose errand it is, if it is one.
    number: Option<u64>,
    run: Box<dyn FnOnce() + Send>,
}

/// An errand among those of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    number: u64,
    mount: Mount,
}

/// The threads, and what they have to do. Each mount has a lane of its own: one that doesn't answer
/// takes as many threads as a lane may have, and no more.
#[derive(Clone)]
pub struct ThreadPool(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    threads_max: usize,
}

#[derive(Default)]
struct Queue {
    /// Those that have something to do.
    lanes: HashMap<Mount, Lane>,
    /// The lanes whose jobs can begin, in the order in which they shall: each as often as it has
    /// such jobs.
    ready: VecDeque<Mount>,
    threads: usize,
    idle: usize,
    /// The threads end when there is nothing left to do.
    is_closed: bool,
}

#[derive(Default)]
struct Lane {
    jobs: VecDeque<Job>,
    running: usize,
}

impl Lane {
    /// How many of its jobs could begin at once.
    fn startable(&self) -> usize {
        self.jobs.len().min(POOL_THREADS_MAX - self.running)
    }
}

impl Queue {
    /// Changes a lane, and keeps what is said of it.
    fn change<T>(&mut self, mount: Mount, change: impl FnOnce(&mut Lane) -> T) -> T {
        let lane = self.lanes.entry(mount).or_default();
        let before = lane.startable();
        let result = change(lane);
        let after = lane.startable();
        if lane.jobs.is_empty() && lane.running == 0 {
            self.lanes.remove(&mount);
        }
        for _ in before..after {
            self.ready.push_back(mount);
        }
        for _ in after..before {
            let first = self.ready.iter().position(|&one| one == mount);
            first.and_then(|first| self.ready.remove(first));
        }
        result
    }

    /// The next job, which begins.
    fn next(&mut self) -> Option<(Mount, Job)> {
        let mount = *self.ready.front()?;
        let job = self.change(mount, |lane| {
            lane.running += 1;
            lane.jobs.pop_front()
        });
        Some((mount, job?))
    }
}

impl ThreadPool {
    /// None that works yet, and up to so many.
    #[must_use]
    pub fn new(threads_max: usize) -> Self {
        Self(Arc::new(Shared {
            queue: Mutex::default(),
            changed: Condvar::new(),
            threads_max,
        }))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has something done that is nobody's errand, and may wait for this mount.
    pub fn run(&self, mount: Mount, run: impl FnOnce() + Send + 'static) {
        let (number, run) = (None, Box::new(run));
        self.push(mount, Job { number, run });
    }

    /// Has something done in the place of what was asked for likewise and hasn't begun. A few may wait
    /// at the same time.
    pub fn replace_waiting(&self, run: impl FnOnce() + Send + 'static) {
        let waiting = self
            .queue()
            .change(Mount::LATEST, |lane| std::mem::take(&mut lane.jobs));
        drop(waiting);
        self.run(Mount::LATEST, run);
    }

    /// Has a job done. Those of one lane begin in the order in which they come.
    fn push(&self, mount: Mount, job: Job) {
        let mut queue = self.queue();
        queue.change(mount, |lane| lane.jobs.push_back(job));
        if queue.idle >= queue.ready.len() || queue.threads == self.0.threads_max {
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
            // The loop must not wait in its place. The next job tries again, and nobody's client
            // waits for ever.
            log::error!("a thread that waits for disks can't be started: {error}");
            self.queue().threads -= 1;
        }
    }

    /// A thread's life.
    fn work(&self) {
        let mut queue = self.queue();
        loop {
            if let Some((mount, job)) = queue.next() {
                drop(queue);
                // Whoever waits for it is told by what the job drops.
                if let Err(panic) = catch_unwind(AssertUnwindSafe(job.run)) {
                    log::error!("a helper panicked: {}", panic_message(&*panic));
                }
                queue = self.queue();
                queue.change(mount, |lane| lane.running -= 1);
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

    /// Leaves an errand undone that no thread has begun.
    fn forget(&self, ticket: Ticket) {
        let mut queue = self.queue();
        let job = queue.change(ticket.mount, |lane| {
            let is_it = |job: &Job| job.number == Some(ticket.number);
            let at = lane.jobs.iter().position(is_it);
            at.and_then(|at| lane.jobs.remove(at))
        });
        drop(queue);
        drop(job);
    }

    fn close(&self) {
        self.queue().is_closed = true;
        self.0.changed.notify_all();
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = self.queue();
        f.debug_struct("Helpers")
            .field("threads", &queue.threads)
            .field("lanes", &queue.lanes.len())
            .finish_non_exhaustive()
    }
}

/// The helpers of one loop. `K` says whom an errand is for. Those who may wait for ever have threads
/// of their own: a network that is down must not keep anybody from a disk. So have those who read
/// folders: each entry of a large one may take a disk's seek. And so have those who open a root anew:
/// the old one may be what doesn't answer.
pub struct Pool<K> {
    near: ThreadPool,
    lists: ThreadPool,
    far: ThreadPool,
    reopeners: ThreadPool,
    done: Arc<Done<K>>,
    /// Errands so far.
    sent: u64,
    /// The bytes that they may bring.
    kept: Budget,
}

/// What was fetched and not yet taken, and how the loop is told.
struct Done<K> {
    fetched: Mutex<Vec<(K, Fetched)>>,
    notify: Box<dyn Fn() + Send + Sync>,
}

impl<K> Done<K> {
    /// Adds what was fetched, and tells the loop if there was nothing before.
    fn push(&self, key: K, fetched: Fetched) {
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

/// Tells the loop what an errand came to, if only that it panicked.
struct Promise<K> {
    key: Option<K>,
    done: Arc<Done<K>>,
}

impl<K> Promise<K> {
    fn keep(mut self, fetched: Fetched) {
        if let Some(key) = self.key.take() {
            self.done.push(key, fetched);
        }
    }
}

impl<K> Drop for Promise<K> {
    fn drop(&mut self) {
        // An errand that was forgotten is dropped, too.
        if thread::panicking()
            && let Some(key) = self.key.take()
        {
            self.done.push(key, Fetched::Panicked);
        }
    }
}

impl<K: Send + 'static> Pool<K> {
    /// Helpers that call `notify` when there is something to take.
    pub fn new(notify: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            near: ThreadPool::new(POOL_THREADS_MAX),
            lists: ThreadPool::new(POOL_THREADS_MAX),
            far: ThreadPool::new(REMOTE_POOL_THREADS_MAX),
            reopeners: ThreadPool::new(2 * POOL_THREADS_MAX),
            sent: 0,
            kept: Budget::new(TASK_RESULTS_TOTAL_BYTES_MAX),
            done: Arc::new(Done {
                fetched: Mutex::default(),
                notify: Box::new(notify),
            }),
        }
    }

    /// Sends somebody on an errand, no further than this.
    pub fn send(&mut self, key: K, errand: DiskTask, reach: Reach, mount: Mount) -> Ticket {
        self.sent += 1;
        let number = self.sent;
        let (helpers, mount) = match (reach, &errand) {
            (Reach::Anywhere, _) => (&self.far, mount),
            (_, DiskTask::List(_)) => (&self.lists, Mount::default()),
            _ => (&self.near, Mount::default()),
        };
        let (far, lists) = (self.far.clone(), self.lists.clone());
        let promise = Promise {
            key: Some(key),
            done: Arc::clone(&self.done),
        };
        let kept = self.kept.clone();
        let run = move || {
            let lease = errand.kept_bytes().map(|bytes| kept.wait_for(bytes));
            let mut fetched = errand.run(reach);
            fetched.keep_on(lease);
            // A foreign file is closed by those who go as far.
            fetched.close_by(&far, mount, &lists);
            promise.keep(fetched);
        };
        let job = Job {
            number: Some(number),
            run: Box::new(run),
        };
        helpers.push(mount, job);
        Ticket { number, mount }
    }

    /// Those who open a root anew, and close the old one.
    #[must_use]
    pub fn reopeners(&self) -> &ThreadPool {
        &self.reopeners
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
        for helpers in [&self.near, &self.lists, &self.far, &self.reopeners] {
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
    use crate::file::{ListError, ListTask};
    use crate::protocol::LookupError;
    use std::sync::Barrier;
    use std::sync::mpsc::{Sender, channel};

    fn pool() -> (Pool<u32>, std::sync::mpsc::Receiver<()>) {
        let (told, is_told) = channel();
        let told = Mutex::new(told);
        let notify = move || told.lock().unwrap().send(()).unwrap();
        (Pool::new(notify), is_told)
    }

    fn errand(barrier: &Arc<Barrier>, begun: &Sender<()>) -> DiskTask {
        let (barrier, begun) = (Arc::clone(barrier), begun.clone());
        DiskTask::Open {
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
        let barrier = Arc::new(Barrier::new(POOL_THREADS_MAX + 1));
        let (begun, has_begun) = channel();
        let count = 2 * POOL_THREADS_MAX as u32;
        for key in 0..count {
            pool.send(key, errand(&barrier, &begun), Reach::Disk, Mount::default());
        }
        for _ in 0..POOL_THREADS_MAX {
            has_begun.recv().unwrap();
        }
        assert_eq!(pool.near.queue().threads, POOL_THREADS_MAX);
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
                DiskTask::Open {
                    name: Box::default(),
                    open: Box::new(|_| Err(LookupError::NoDescriptor)),
                },
                Reach::Disk,
                Mount::default(),
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
        pool.send(1, errand(&barrier, &begun), Reach::Disk, Mount::default());
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
        let (barrier, (begun, has_begun)) =
            (Arc::new(Barrier::new(POOL_THREADS_MAX + 1)), channel());
        for key in 0..POOL_THREADS_MAX as u32 {
            pool.send(
                key,
                errand(&barrier, &begun),
                Reach::Anywhere,
                Mount::default(),
            );
            has_begun.recv().unwrap();
        }
        let near = DiskTask::Open {
            name: Box::default(),
            open: Box::new(|_| Err(LookupError::Refused("it is not there"))),
        };
        let list = DiskTask::List(ListTask::new(1, |_, _| Err(ListError::NoMemory)));
        for errand in [near, list] {
            pool.send(99, errand, Reach::Disk, Mount::default());
            is_told.recv().unwrap();
            assert!(matches!(pool.take()[..], [(99, _)]));
        }
        barrier.wait();
        let mut count = 0;
        while count < POOL_THREADS_MAX {
            is_told.recv().unwrap();
            count += pool.take().len();
        }
    }

    #[test]
    fn what_leads_further_comes_back_as_an_errand() {
        let (mut pool, is_told) = pool();
        let mut take = |errand, reach| {
            pool.send(1, errand, reach, Mount::default());
            is_told.recv().unwrap();
            pool.take().pop().unwrap().1
        };
        let within = |reach| match reach {
            Reach::Anywhere => LookupError::Refused("it is not there"),
            _ => LookupError::Elsewhere(Mount::default()),
        };
        let open = DiskTask::Open {
            name: b"file".as_slice().into(),
            open: Box::new(move |reach| Err(within(reach))),
        };
        let list = DiskTask::List(ListTask::new(1, move |_, reach| Err(within(reach).into())));
        for errand in [open, list] {
            let Fetched::Further(errand, _) = take(errand, Reach::Disk) else {
                panic!("it is not further");
            };
            match take(errand, Reach::Anywhere) {
                Fetched::Opened { name, found } => {
                    assert!(*name == *b"file" && matches!(found, Err(LookupError::Refused(_))));
                }
                Fetched::Listed(Err(ListError::Failed(LookupError::Refused(_)))) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn an_errand_that_is_forgotten_is_done_only_if_it_was_begun() {
        let (mut pool, is_told) = pool();
        let (barrier, (begun, has_begun)) =
            (Arc::new(Barrier::new(POOL_THREADS_MAX + 1)), channel());
        let count = 2 * POOL_THREADS_MAX as u32;
        let tickets: Vec<_> = (0..count)
            .map(|key| pool.send(key, errand(&barrier, &begun), Reach::Disk, Mount::default()))
            .collect();
        for _ in 0..POOL_THREADS_MAX {
            has_begun.recv().unwrap();
        }
        for ticket in tickets {
            pool.forget(ticket);
        }
        assert!(pool.near.queue().ready.is_empty());
        barrier.wait();
        let mut keys = Vec::new();
        while keys.len() < POOL_THREADS_MAX {
            is_told.recv().unwrap();
            keys.extend(pool.take().into_iter().map(|(key, _)| key));
        }
        assert!(has_begun.try_recv().is_err());
    }

    /// One that comes back at once with nothing.
    fn quick() -> DiskTask {
        DiskTask::Open {
            name: Box::default(),
            open: Box::new(|_| Err(LookupError::Refused("it is not there"))),
        }
    }

    #[test]
    fn a_mount_that_does_not_answer_takes_its_own_lane_and_no_more() {
        let (mut pool, is_told) = pool();
        let (barrier, (begun, has_begun)) =
            (Arc::new(Barrier::new(POOL_THREADS_MAX + 1)), channel());
        let [hung, sound] = [Mount::at(1, 2, b"hung"), Mount::at(1, 2, b"sound")];
        let count = 3 * POOL_THREADS_MAX as u32;
        for key in 0..count {
            pool.send(key, errand(&barrier, &begun), Reach::Anywhere, hung);
        }
        for _ in 0..POOL_THREADS_MAX {
            has_begun.recv().unwrap();
        }
        for mount in [sound, Mount::default()] {
            for _ in 0..2 * POOL_THREADS_MAX {
                pool.send(99, quick(), Reach::Anywhere, mount);
                is_told.recv().unwrap();
                assert!(matches!(pool.take()[..], [(99, _)]));
            }
        }
        assert!(has_begun.try_recv().is_err(), "its lane is full");
        for _ in 0..3 {
            barrier.wait();
        }
        let mut ended = 0;
        while ended < count as usize {
            is_told.recv().unwrap();
            ended += pool.take().len();
        }
        while !pool.far.queue().lanes.is_empty() {
            thread::yield_now();
        }
        assert!(pool.far.queue().ready.is_empty());
    }

    #[test]
    fn a_helper_that_panics_says_so_and_goes_on() {
        let (mut pool, is_told) = pool();
        // More often than there are helpers.
        for key in 0..2 * POOL_THREADS_MAX as u32 {
            let fragile = DiskTask::Open {
                name: Box::default(),
                open: Box::new(|_| unreachable!("as it was told")),
            };
            pool.send(key, fragile, Reach::Disk, Mount::default());
            is_told.recv().unwrap();
            assert!(matches!(pool.take()[..], [(of, Fetched::Panicked)] if of == key));
        }
        pool.send(99, quick(), Reach::Disk, Mount::default());
        is_told.recv().unwrap();
        assert!(matches!(pool.take()[..], [(99, Fetched::Opened { .. })]));
        assert!(pool.near.queue().threads <= POOL_THREADS_MAX);
    }

    #[test]
    fn what_nobody_waits_for_may_panic_too() {
        let (pool, _is_told) = pool();
        let (done, is_done) = channel();
        pool.near
            .run(Mount::default(), || unreachable!("as it was told"));
        pool.near
            .run(Mount::default(), move || done.send(()).unwrap());
        is_done.recv().unwrap();
    }

    #[test]
    fn of_those_who_wait_to_do_the_same_the_latest_remains() {
        let (helpers, (order, is_done)) = (ThreadPool::new(1), channel());
        let barrier = Arc::new(Barrier::new(2));
        let until = Arc::clone(&barrier);
        helpers.replace_waiting(move || {
            until.wait();
        });
        while helpers.queue().lanes[&Mount::LATEST].running == 0 {
            thread::yield_now();
        }
        for number in 0..5 {
            let order = order.clone();
            helpers.replace_waiting(move || order.send(number).unwrap());
        }
        drop(order);
        barrier.wait();
        assert_eq!(is_done.iter().collect::<Vec<_>>(), [4]);
    }
}
