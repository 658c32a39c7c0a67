//! Who does the disk tasks of one loop, and how the loop gets their results.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::budget::Budget;
use super::fs_class::{MayBlock, Mount};
use super::open_file::Lookup;
use super::task::{Chunk, DiskTask, TaskResult};
use super::thread_pool::ThreadPool;
use crate::failure::panic_message;
use crate::limits::{POOL_THREADS_MAX, REMOTE_POOL_THREADS_MAX, TASK_RESULTS_TOTAL_BYTES_MAX};

/// The threads of one loop. `K` says whom a task is for. Tasks that may wait for ever have threads of
/// their own: a network that is down must not keep anybody from a disk. So have those that open a root
/// anew: the old one may be what doesn't answer.
pub struct TaskPool<K> {
    local: ThreadPool,
    remote: ThreadPool,
    reopeners: ThreadPool,
    /// Tasks so far.
    sent: u64,
    /// The bytes that results may hold.
    kept: Budget,
    done: Sender<(K, TaskResult)>,
    results: Receiver<(K, TaskResult)>,
    notify: Arc<dyn Fn() + Send + Sync>,
}

/// A task that was sent to a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskId {
    number: u64,
    /// The remote lane that it is in, if it is in one.
    remote: Option<Mount>,
}

impl TaskId {
    /// Whether the task may wait for ever.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        self.remote.is_some()
    }
}

impl<K: Send + 'static> TaskPool<K> {
    /// Threads that call `notify` when there is something to take.
    pub fn new(notify: impl Fn() + Send + Sync + 'static) -> Self {
        let (done, results) = channel();
        Self {
            local: ThreadPool::new(POOL_THREADS_MAX),
            remote: ThreadPool::new(REMOTE_POOL_THREADS_MAX),
            reopeners: ThreadPool::new(2 * POOL_THREADS_MAX),
            sent: 0,
            kept: Budget::new(TASK_RESULTS_TOTAL_BYTES_MAX),
            done,
            results,
            notify: Arc::new(notify),
        }
    }

    /// Has a task done. `remote`: it may wait for ever, for this mount; else it goes no further than
    /// a disk of this machine.
    pub fn send(&mut self, key: K, task: DiskTask, remote: Option<Mount>) -> TaskId {
        self.sent += 1;
        let number = self.sent;
        let (pool, mount, may_block) = match remote {
            Some(mount) => (&self.remote, mount, MayBlock::Forever),
            None => (&self.local, Mount::default(), MayBlock::OnDisk),
        };
        let (kept, freer, closer) = (self.kept.clone(), self.local.clone(), self.remote.clone());
        let (done, notify) = (self.done.clone(), Arc::clone(&self.notify));
        let run = move || {
            let lease = task.kept_bytes().map(|bytes| kept.lease_waiting(bytes));
            let mut result =
                catch_unwind(AssertUnwindSafe(|| task.run(may_block))).unwrap_or_else(|panic| {
                    log::error!("a helper panicked: {}", panic_message(&*panic));
                    TaskResult::Panicked
                });
            match &mut result {
                TaskResult::Read(Ok(Chunk {
                    kept: Some(kept), ..
                })) => kept.lease = lease,
                TaskResult::Opened {
                    lookup: Ok(Lookup::File(file)),
                    ..
                } => file.defer_close_to(&closer, mount),
                TaskResult::Listed(Ok(list)) => list.defer_free_to(&freer),
                _ => {}
            }
            // Without a loop nobody takes it.
            let _ = done.send((key, result));
            notify();
        };
        pool.push(mount, Some(number), Box::new(run));
        TaskId { number, remote }
    }

    /// Those who open a root anew, and close the old one.
    #[must_use]
    pub fn reopeners(&self) -> &ThreadPool {
        &self.reopeners
    }

    /// Nobody waits for this task any more. What was begun is done all the same.
    pub fn cancel(&self, task: TaskId) {
        match task.remote {
            Some(mount) => self.remote.cancel(mount, task.number),
            None => self.local.cancel(Mount::default(), task.number),
        }
    }

    /// The results since this was called last.
    #[must_use]
    pub fn take(&self) -> Vec<(K, TaskResult)> {
        self.results.try_iter().collect()
    }
}

impl<K> Drop for TaskPool<K> {
    fn drop(&mut self) {
        for pool in [&self.local, &self.remote, &self.reopeners] {
            pool.close();
        }
    }
}

impl<K> fmt::Debug for TaskPool<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskPool")
            .field("local", &self.local)
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::thread;

    use crate::file::list::{ListError, ListTask};
    use crate::file::open_file::LookupError;
    use std::sync::Barrier;
    use std::sync::mpsc::{Sender, channel};

    fn pool() -> (TaskPool<u32>, std::sync::mpsc::Receiver<()>) {
        let (told, is_told) = channel();
        let told = Mutex::new(told);
        let notify = move || told.lock().unwrap().send(()).unwrap();
        (TaskPool::new(notify), is_told)
    }

    fn task(barrier: &Arc<Barrier>, begun: &Sender<()>) -> DiskTask {
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
    fn threads_are_few_and_begin_with_the_first_task() {
        let (mut pool, is_told) = pool();
        assert_eq!(pool.local.queue().threads, 0);
        let barrier = Arc::new(Barrier::new(POOL_THREADS_MAX + 1));
        let (begun, has_begun) = channel();
        let count = 2 * POOL_THREADS_MAX as u32;
        for key in 0..count {
            pool.send(key, task(&barrier, &begun), None);
        }
        for _ in 0..POOL_THREADS_MAX {
            has_begun.recv().unwrap();
        }
        assert_eq!(pool.local.queue().threads, POOL_THREADS_MAX);
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
    fn one_thread_does_for_tasks_that_come_one_after_the_other() {
        let (mut pool, is_told) = pool();
        for key in 0..10 {
            pool.send(
                key,
                DiskTask::Open {
                    name: Box::default(),
                    open: Box::new(|_| Err(LookupError::NoDescriptor)),
                },
                None,
            );
            is_told.recv().unwrap();
            while pool.local.queue().idle == 0 {
                thread::yield_now();
            }
            assert_eq!(pool.take().len(), 1);
        }
        assert_eq!(pool.local.queue().threads, 1);
    }

    #[test]
    fn the_threads_end_with_the_pool() {
        let (mut pool, is_told) = pool();
        let (barrier, (begun, has_begun)) = (Arc::new(Barrier::new(2)), channel());
        pool.send(1, task(&barrier, &begun), None);
        has_begun.recv().unwrap();
        let threads = pool.local.clone();
        drop(pool);
        barrier.wait();
        is_told.recv().unwrap();
        while threads.queue().threads > 0 {
            thread::yield_now();
        }
    }

    #[test]
    fn those_who_wait_for_ever_keep_nobody_from_a_disk() {
        let (mut pool, is_told) = pool();
        let (barrier, (begun, has_begun)) =
            (Arc::new(Barrier::new(POOL_THREADS_MAX + 1)), channel());
        for key in 0..POOL_THREADS_MAX as u32 {
            pool.send(key, task(&barrier, &begun), Some(Mount::default()));
            has_begun.recv().unwrap();
        }
        let near = DiskTask::Open {
            name: Box::default(),
            open: Box::new(|_| Err(LookupError::Refused("it is not there"))),
        };
        let list = DiskTask::List(ListTask::new(1, |_, _| Err(ListError::NoMemory)));
        for task in [near, list] {
            pool.send(99, task, None);
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
    fn what_leads_further_comes_back_as_a_task() {
        let (mut pool, is_told) = pool();
        let mut take = |task, remote| {
            pool.send(1, task, remote);
            is_told.recv().unwrap();
            pool.take().pop().unwrap().1
        };
        let within = |may_block| match may_block {
            MayBlock::Forever => LookupError::Refused("it is not there"),
            _ => LookupError::OtherMount(Mount::default()),
        };
        let open = DiskTask::Open {
            name: b"file".as_slice().into(),
            open: Box::new(move |may_block| Err(within(may_block))),
        };
        let list = DiskTask::List(ListTask::new(1, move |_, may_block| {
            Err(within(may_block).into())
        }));
        for task in [open, list] {
            let TaskResult::NeedsRemoteLane(task, _) = take(task, None) else {
                panic!("it is not further");
            };
            match take(task, Some(Mount::default())) {
                TaskResult::Opened { name, lookup } => {
                    assert!(*name == *b"file" && matches!(lookup, Err(LookupError::Refused(_))));
                }
                TaskResult::Listed(Err(ListError::Failed(LookupError::Refused(_)))) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_task_that_is_cancelled_is_done_only_if_it_was_begun() {
        let (mut pool, is_told) = pool();
        let (barrier, (begun, has_begun)) =
            (Arc::new(Barrier::new(POOL_THREADS_MAX + 1)), channel());
        let count = 2 * POOL_THREADS_MAX as u32;
        let ids: Vec<_> = (0..count)
            .map(|key| pool.send(key, task(&barrier, &begun), None))
            .collect();
        for _ in 0..POOL_THREADS_MAX {
            has_begun.recv().unwrap();
        }
        for id in ids {
            pool.cancel(id);
        }
        assert!(pool.local.queue().ready.is_empty());
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
            pool.send(key, task(&barrier, &begun), Some(hung));
        }
        for _ in 0..POOL_THREADS_MAX {
            has_begun.recv().unwrap();
        }
        for mount in [sound, Mount::default()] {
            for _ in 0..2 * POOL_THREADS_MAX {
                pool.send(99, quick(), Some(mount));
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
        while !pool.remote.queue().lanes.is_empty() {
            thread::yield_now();
        }
        assert!(pool.remote.queue().ready.is_empty());
    }

    #[test]
    fn a_thread_that_panics_says_so_and_goes_on() {
        let (mut pool, is_told) = pool();
        // More often than there are threads.
        for key in 0..2 * POOL_THREADS_MAX as u32 {
            let fragile = DiskTask::Open {
                name: Box::default(),
                open: Box::new(|_| unreachable!("as it was told")),
            };
            pool.send(key, fragile, None);
            is_told.recv().unwrap();
            assert!(matches!(pool.take()[..], [(of, TaskResult::Panicked)] if of == key));
        }
        pool.send(99, quick(), None);
        is_told.recv().unwrap();
        assert!(matches!(pool.take()[..], [(99, TaskResult::Opened { .. })]));
        assert!(pool.local.queue().threads <= POOL_THREADS_MAX);
    }
}
