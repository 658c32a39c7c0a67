//! The disk tasks of one loop: who waits for which, which threads do them, and how the loop gets what
//! they came to.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::fs_class::{MayBlock, Mount};
use super::list::ListTask;
use super::open_file::Lookup;
use super::semaphore::Semaphore;
use super::task::{Chunk, DiskTask, TaskResult};
use super::thread_pool::ThreadPool;
use crate::failure::panic_message;
use crate::limits::{POOL_THREADS_MAX, REMOTE_POOL_THREADS_MAX, TASK_RESULTS_TOTAL_BYTES_MAX};
use crate::trace::record::{self, What};

/// The disk tasks of one loop; `K` tells those apart that wait for them. Tasks that may wait for ever
/// have threads of their own: a network that is down must not keep anybody from a disk. So have those
/// that open a root anew: the old one may be what doesn't answer.
pub struct DiskTasks<K> {
    local: ThreadPool,
    remote: ThreadPool,
    reopeners: ThreadPool,
    /// How many tasks were sent so far, which is the latest one's number.
    sent: u64,
    /// The tasks for which somebody waits, by their numbers.
    tasks: HashMap<u64, Task<K>>,
    /// The number of the task that each waits for.
    awaited: HashMap<K, u64>,
    /// Results, until those who waited for them take them.
    ready: HashMap<K, TaskResult>,
    /// The bytes that results may hold.
    result_memory: Semaphore,
    done: Sender<(u64, TaskResult)>,
    results: Receiver<(u64, TaskResult)>,
    notify: Notify,
}

/// Tells the loop, from any thread, that something is done.
pub type Notify = Arc<dyn Fn() + Send + Sync>;

/// A task that was sent.
struct Task<K> {
    /// The mount that it may wait for, perhaps for ever; without one it waits for no more than a disk of
    /// this machine.
    remote: Option<Mount>,
    /// The list that it makes, if it makes one.
    list: Option<Arc<ListTask>>,
    /// Who waits for it: one connection, or for a list several.
    waiting: Vec<K>,
}

impl<K: Copy + Eq + Hash> DiskTasks<K> {
    /// No task yet. Threads call `notify` when there is something to collect.
    pub fn new(notify: impl Fn() + Send + Sync + 'static) -> Self {
        let (done, results) = channel();
        Self {
            local: ThreadPool::new(POOL_THREADS_MAX),
            remote: ThreadPool::new(REMOTE_POOL_THREADS_MAX),
            reopeners: ThreadPool::new(2 * POOL_THREADS_MAX),
            sent: 0,
            tasks: HashMap::new(),
            awaited: HashMap::new(),
            ready: HashMap::new(),
            result_memory: Semaphore::new(TASK_RESULTS_TOTAL_BYTES_MAX),
            done,
            results,
            notify: Arc::new(notify),
        }
    }

    /// Sends a task for `key`, which waits for it. A list that others wait for already is made once for all.
    pub fn send(&mut self, key: K, task: DiskTask) {
        let remote = task.mount();
        self.start(key, task, remote);
    }

    fn start(&mut self, key: K, task: DiskTask, remote: Option<Mount>) {
        self.sent += 1;
        let list = match &task {
            DiskTask::List(list) => Some(Arc::clone(list)),
            _ => None,
        };
        let number = list
            .as_ref()
            .map_or(self.sent, |list| list.number_or(self.sent));
        self.awaited.insert(key, number);
        match self.tasks.entry(number) {
            Entry::Occupied(mut task) => task.get_mut().waiting.push(key),
            Entry::Vacant(vacant) => {
                vacant.insert(Task {
                    remote,
                    list,
                    waiting: vec![key],
                });
                self.push(number, task, remote);
            }
        }
    }

    /// Queues a task for the local threads, or for those that may wait for this remote mount.
    fn push(&self, number: u64, task: DiskTask, remote: Option<Mount>) {
        let (pool, mount) = self.lane(remote);
        let may_block = match remote {
            Some(_) => MayBlock::Forever,
            None => MayBlock::OnDisk,
        };
        let (memory, freer, closer) = (
            self.result_memory.clone(),
            self.local.clone(),
            self.remote.clone(),
        );
        let (done, notify) = (self.done.clone(), self.notify());
        let conn = record::conn();
        let run = move || {
            let permit = task.kept_bytes().map(|bytes| memory.acquire(bytes));
            let (kind, began) = (task.kind(), record::begin(conn));
            let mut result =
                catch_unwind(AssertUnwindSafe(|| task.run(may_block))).unwrap_or_else(|panic| {
                    log::error!("a disk thread panicked: {}", panic_message(&*panic));
                    TaskResult::Panicked
                });
            record::end(began, || What::Task(kind));
            match &mut result {
                TaskResult::Read(Ok(Chunk {
                    kept: Some(kept), ..
                })) => kept.permit = permit,
                TaskResult::Opened {
                    lookup: Ok(Lookup::File(file)),
                    ..
                } => file.defer_close_to(&closer, mount),
                TaskResult::Listed(Ok(fresh)) => fresh.list.defer_free_to(&freer),
                TaskResult::Made(Ok(piece)) => piece.hold(permit, &closer, mount),
                _ => {}
            }
            // The send fails when the loop has ended: then nobody takes the result.
            let _ = done.send((number, result));
            notify();
        };
        pool.push(mount, Some(number), Box::new(run));
    }

    fn lane(&self, remote: Option<Mount>) -> (&ThreadPool, Mount) {
        match remote {
            Some(mount) => (&self.remote, mount),
            None => (&self.local, Mount::default()),
        }
    }

    /// Takes the results of the threads. Returns who is to be woken, because a result is there or
    /// because the task turned out to wait for a remote mount; and how many tasks panicked.
    pub fn collect(&mut self) -> (Vec<K>, u64) {
        let (mut woken, mut panics) = (Vec::new(), 0);
        while let Ok((number, result)) = self.results.try_recv() {
            panics += u64::from(matches!(result, TaskResult::Panicked));
            let Entry::Occupied(mut task) = self.tasks.entry(number) else {
                // All who waited for it have ended.
                continue;
            };
            woken.extend_from_slice(&task.get().waiting);
            if let TaskResult::NeedsRemoteLane(again, mount) = result {
                task.get_mut().remote = Some(mount);
                self.push(number, again, Some(mount));
                continue;
            }
            let waiting = task.remove().waiting;
            for &key in &waiting[1..] {
                self.deliver(key, result.shared());
            }
            self.deliver(waiting[0], result);
        }
        (woken, panics)
    }

    fn deliver(&mut self, key: K, result: TaskResult) {
        self.awaited.remove(&key);
        self.ready.insert(key, result);
    }

    /// Takes the result of the task that `key` waits for, if it is done.
    pub fn take(&mut self, key: K) -> Option<TaskResult> {
        self.ready.remove(&key)
    }

    /// Whether `key` waits for a remote mount, which may never answer.
    #[must_use]
    pub fn is_remote(&self, key: K) -> bool {
        let task = self.awaited.get(&key).map(|number| &self.tasks[number]);
        task.is_some_and(|task| task.remote.is_some())
    }

    /// A connection has ended. Its task is cancelled if no thread has begun it and nobody else waits; a
    /// list that was begun stops at its next entry.
    pub fn forget(&mut self, key: K) {
        self.ready.remove(&key);
        let Some(number) = self.awaited.remove(&key) else {
            return;
        };
        let Entry::Occupied(mut task) = self.tasks.entry(number) else {
            return;
        };
        task.get_mut().waiting.retain(|&other| other != key);
        if task.get().waiting.is_empty() {
            let Task { remote, list, .. } = task.remove();
            if let Some(list) = list {
                list.cancel();
            }
            let (pool, mount) = self.lane(remote);
            pool.cancel(mount, number);
        }
    }

    /// The threads that open a root anew, and close the old one.
    #[must_use]
    pub fn reopeners(&self) -> &ThreadPool {
        &self.reopeners
    }

    /// What the threads call when there is something to collect.
    #[must_use]
    pub fn notify(&self) -> Notify {
        Arc::clone(&self.notify)
    }
}

impl<K> Drop for DiskTasks<K> {
    fn drop(&mut self) {
        for pool in [&self.local, &self.remote, &self.reopeners] {
            pool.close();
        }
    }
}

impl<K> fmt::Debug for DiskTasks<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskTasks")
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

    /// What came of tasks, and for whom.
    fn take(pool: &mut DiskTasks<u32>) -> Vec<(u32, TaskResult)> {
        let of = |(number, result)| (pool.tasks.remove(&number).unwrap().waiting[0], result);
        pool.results.try_iter().map(of).collect()
    }

    fn pool() -> (DiskTasks<u32>, std::sync::mpsc::Receiver<()>) {
        let (told, is_told) = channel();
        let told = Mutex::new(told);
        let notify = move || told.lock().unwrap().send(()).unwrap();
        (DiskTasks::new(notify), is_told)
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
            pool.start(key, task(&barrier, &begun), None);
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
            keys.extend(take(&mut pool).into_iter().map(|(key, _)| key));
        }
        keys.sort_unstable();
        assert_eq!(keys, (0..count).collect::<Vec<_>>());
        assert!(take(&mut pool).is_empty());
    }

    #[test]
    fn one_thread_does_for_tasks_that_come_one_after_the_other() {
        let (mut pool, is_told) = pool();
        for key in 0..10 {
            pool.start(
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
            assert_eq!(take(&mut pool).len(), 1);
        }
        assert_eq!(pool.local.queue().threads, 1);
    }

    #[test]
    fn the_threads_end_with_the_pool() {
        let (mut pool, is_told) = pool();
        let (barrier, (begun, has_begun)) = (Arc::new(Barrier::new(2)), channel());
        pool.start(1, task(&barrier, &begun), None);
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
            pool.start(key, task(&barrier, &begun), Some(Mount::default()));
            has_begun.recv().unwrap();
        }
        let near = DiskTask::Open {
            name: Box::default(),
            open: Box::new(|_| Err(LookupError::Refused("it is not there"))),
        };
        let list = DiskTask::List(ListTask::new(|_, _| Err(ListError::NoMemory)));
        for task in [near, list] {
            pool.start(99, task, None);
            is_told.recv().unwrap();
            assert!(matches!(take(&mut pool)[..], [(99, _)]));
        }
        barrier.wait();
        let mut count = 0;
        while count < POOL_THREADS_MAX {
            is_told.recv().unwrap();
            count += take(&mut pool).len();
        }
    }

    #[test]
    fn what_leads_further_comes_back_as_a_task() {
        let (mut pool, is_told) = pool();
        let mut take = |task, remote| {
            pool.start(1, task, remote);
            is_told.recv().unwrap();
            take(&mut pool).pop().unwrap().1
        };
        let within = |may_block| match may_block {
            MayBlock::Forever => LookupError::Refused("it is not there"),
            _ => LookupError::OtherMount(Mount::default()),
        };
        let open = DiskTask::Open {
            name: b"file".as_slice().into(),
            open: Box::new(move |may_block| Err(within(may_block))),
        };
        let list = DiskTask::List(ListTask::new(move |_, may_block| {
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
        for key in 0..count {
            pool.start(key, task(&barrier, &begun), None);
        }
        for _ in 0..POOL_THREADS_MAX {
            has_begun.recv().unwrap();
        }
        for key in 0..count {
            pool.forget(key);
        }
        assert!(pool.local.queue().startable() == 0);
        barrier.wait();
        for _ in 0..POOL_THREADS_MAX {
            is_told.recv().unwrap();
        }
        assert_eq!(pool.collect(), (Vec::new(), 0), "nobody waits");
        assert!(has_begun.try_recv().is_err());
    }

    #[test]
    fn a_list_is_made_once_for_all_who_wait_and_not_for_nobody() {
        let (mut pool, is_told) = pool();
        let ((made, count), barrier) = (channel(), Arc::new(Barrier::new(2)));
        let until = Arc::clone(&barrier);
        let list = ListTask::new(move |_, may_block| {
            made.send(()).unwrap();
            if may_block != MayBlock::Forever {
                return Err(LookupError::OtherMount(Mount::default()).into());
            }
            until.wait();
            Err(ListError::NoMemory)
        });
        for key in 1..=3 {
            pool.send(key, DiskTask::List(Arc::clone(&list)));
        }
        pool.forget(2);
        for (is_remote, is_done) in [(true, false), (false, true)] {
            is_told.recv().unwrap();
            assert_eq!(pool.collect(), (vec![1, 3], 0));
            for key in [1, 3] {
                assert_eq!(pool.is_remote(key), is_remote);
                let result = pool.take(key);
                let is_listed =
                    matches!(result, Some(TaskResult::Listed(Err(ListError::NoMemory))));
                assert!(is_listed == is_done && result.is_some() == is_done);
            }
            if is_remote {
                barrier.wait();
            }
        }
        assert_eq!(
            count.try_iter().count(),
            2,
            "once for a disk, once for ever"
        );
        assert!(pool.take(2).is_none() && pool.tasks.is_empty() && pool.awaited.is_empty());

        let list = ListTask::new(|_, _| Err(ListError::NoMemory));
        pool.send(4, DiskTask::List(Arc::clone(&list)));
        pool.forget(4);
        assert!(!list.can_be_joined());
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
            pool.start(key, task(&barrier, &begun), Some(hung));
        }
        for _ in 0..POOL_THREADS_MAX {
            has_begun.recv().unwrap();
        }
        for mount in [sound, Mount::default()] {
            for _ in 0..2 * POOL_THREADS_MAX {
                pool.start(99, quick(), Some(mount));
                is_told.recv().unwrap();
                assert!(matches!(take(&mut pool)[..], [(99, _)]));
            }
        }
        assert!(has_begun.try_recv().is_err(), "its lane is full");
        for _ in 0..3 {
            barrier.wait();
        }
        let mut ended = 0;
        while ended < count as usize {
            is_told.recv().unwrap();
            ended += take(&mut pool).len();
        }
        while !pool.remote.queue().lanes.is_empty() {
            thread::yield_now();
        }
        assert!(pool.remote.queue().startable() == 0);
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
            pool.start(key, fragile, None);
            is_told.recv().unwrap();
            assert!(matches!(take(&mut pool)[..], [(of, TaskResult::Panicked)] if of == key));
        }
        pool.start(99, quick(), None);
        is_told.recv().unwrap();
        assert!(matches!(
            take(&mut pool)[..],
            [(99, TaskResult::Opened { .. })]
        ));
        assert!(pool.local.queue().threads <= POOL_THREADS_MAX);
    }
}
