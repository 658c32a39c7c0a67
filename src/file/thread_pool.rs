//! Threads that wait for disks so that the loop need not. They are started when there is something to
//! do, so that a server whose files are in memory never has them.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::fs_class::Mount;
use crate::failure::panic_message;
use crate::limits::POOL_THREADS_MAX;

/// Threads, and the jobs that they have to do. Each mount has a lane of its own: one that doesn't
/// answer takes as many threads as a lane may have, and no more.
#[derive(Clone)]
pub struct ThreadPool(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    threads_max: usize,
}

#[derive(Default)]
pub(super) struct Queue {
    /// Lanes that have a job. The one whose turn is next comes first.
    pub(super) lanes: VecDeque<Lane>,
    pub(super) threads: usize,
    pub(super) idle: usize,
    /// The threads end when there is nothing left to do.
    is_closed: bool,
    /// How many jobs of one lane may run at the same time.
    lane_threads_max: usize,
}

/// Jobs that may wait for the same mount. They begin in the order in which they came.
pub(super) struct Lane {
    mount: Mount,
    waiting: VecDeque<Job>,
    pub(super) running: usize,
}

struct Job {
    /// What it is cancelled by, if it can be.
    number: Option<u64>,
    run: Box<dyn FnOnce() + Send>,
}

impl Lane {
    /// How many of its jobs may begin now.
    fn startable(&self, threads_max: usize) -> usize {
        self.waiting.len().min(threads_max - self.running)
    }
}

impl Queue {
    /// The lane of a mount, a new one if there is none.
    pub(super) fn lane(&mut self, mount: Mount) -> &mut Lane {
        let known = self.lanes.iter().position(|lane| lane.mount == mount);
        let at = known.unwrap_or_else(|| {
            self.lanes.push_back(Lane {
                mount,
                waiting: VecDeque::new(),
                running: 0,
            });
            self.lanes.len() - 1
        });
        &mut self.lanes[at]
    }

    /// How many jobs may begin now, if threads are free.
    pub(super) fn startable(&self) -> usize {
        let startable = |lane: &Lane| lane.startable(self.lane_threads_max);
        self.lanes.iter().map(startable).sum()
    }

    /// Begins a job: the first of the first lane that has one to begin, which then comes last.
    fn begin(&mut self) -> Option<(Mount, Job)> {
        let most = self.lane_threads_max;
        let mut lanes = self.lanes.iter();
        let at = lanes.position(|lane| lane.startable(most) > 0)?;
        let mut lane = self.lanes.remove(at)?;
        let begun = lane.waiting.pop_front().map(|job| (lane.mount, job));
        lane.running += 1;
        self.lanes.push_back(lane);
        begun
    }

    /// A job of this mount is over.
    fn end(&mut self, mount: Mount) {
        self.lane(mount).running -= 1;
        self.drop_empty_lanes();
    }

    fn drop_empty_lanes(&mut self) {
        self.lanes
            .retain(|lane| lane.running > 0 || !lane.waiting.is_empty());
    }
}

impl ThreadPool {
    /// A pool that starts up to `threads_max` threads, none of them yet.
    #[must_use]
    pub fn new(threads_max: usize) -> Self {
        Self::with_lanes(threads_max, POOL_THREADS_MAX)
    }

    /// One of whose threads no more than `lane_threads_max` wait for the same mount.
    #[must_use]
    pub fn with_lanes(threads_max: usize, lane_threads_max: usize) -> Self {
        Self(Arc::new(Shared {
            queue: Mutex::new(Queue {
                lane_threads_max,
                ..Queue::default()
            }),
            changed: Condvar::new(),
            threads_max,
        }))
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a thread run a closure that may wait for this mount.
    pub fn run(&self, mount: Mount, run: impl FnOnce() + Send + 'static) {
        self.push(mount, None, Box::new(run));
    }

    /// Has a thread run a closure, in place of those given to this before that no thread has begun.
    pub fn replace_waiting(&self, run: impl FnOnce() + Send + 'static) {
        let replaced = std::mem::take(&mut self.queue().lane(Mount::LATEST).waiting);
        drop(replaced);
        self.run(Mount::LATEST, run);
    }

    /// Queues a job, which may be cancelled by its number. Those of one lane begin in the order in
    /// which they come.
    pub(super) fn push(&self, mount: Mount, number: Option<u64>, run: Box<dyn FnOnce() + Send>) {
        let mut queue = self.queue();
        queue.lane(mount).waiting.push_back(Job { number, run });
        if queue.idle >= queue.startable() || queue.threads == self.0.threads_max {
            self.0.changed.notify_one();
            return;
        }
        queue.threads += 1;
        drop(queue);
        let pool = self.clone();
        let started = thread::Builder::new()
            .name("disk".into())
            .spawn(move || pool.work());
        if let Err(error) = started {
            // The loop must not do the job itself. The next job tries again to start a thread, and clients
            // wait no longer than the disk timeout.
            log::error!("a thread that waits for disks can't be started: {error}");
            self.queue().threads -= 1;
        }
    }

    /// What each thread does until the pool is closed.
    fn work(&self) {
        let mut queue = self.queue();
        loop {
            if let Some((mount, job)) = queue.begin() {
                drop(queue);
                // A task's panic is caught where it runs, so this was a job that nobody waits for.
                if let Err(panic) = catch_unwind(AssertUnwindSafe(job.run)) {
                    log::error!("a disk thread panicked: {}", panic_message(&*panic));
                }
                queue = self.queue();
                queue.end(mount);
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

    /// Drops a job that no thread has begun.
    pub(super) fn cancel(&self, mount: Mount, number: u64) {
        let mut queue = self.queue();
        let waiting = &mut queue.lane(mount).waiting;
        let at = waiting.iter().position(|job| job.number == Some(number));
        let job = at.and_then(|at| waiting.remove(at));
        queue.drop_empty_lanes();
        drop(queue);
        drop(job);
    }

    /// The threads end when they have done what is queued.
    pub(super) fn close(&self) {
        self.queue().is_closed = true;
        self.0.changed.notify_all();
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = self.queue();
        f.debug_struct("ThreadPool")
            .field("threads", &queue.threads)
            .field("lanes", &queue.lanes.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::mpsc::channel;

    #[test]
    fn what_nobody_waits_for_may_panic_too() {
        let (pool, (done, is_done)) = (ThreadPool::new(1), channel());
        pool.run(Mount::default(), || unreachable!("as it was told"));
        pool.run(Mount::default(), move || done.send(()).unwrap());
        is_done.recv().unwrap();
    }

    #[test]
    fn of_those_who_wait_to_do_the_same_the_latest_remains() {
        let (pool, (order, is_done)) = (ThreadPool::new(1), channel());
        let barrier = Arc::new(Barrier::new(2));
        let until = Arc::clone(&barrier);
        pool.replace_waiting(move || {
            until.wait();
        });
        while pool.queue().lane(Mount::LATEST).running == 0 {
            thread::yield_now();
        }
        for number in 0..5 {
            let order = order.clone();
            pool.replace_waiting(move || order.send(number).unwrap());
        }
        drop(order);
        barrier.wait();
        assert_eq!(is_done.iter().collect::<Vec<_>>(), [4]);
    }
}
