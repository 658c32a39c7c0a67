//! The list of a directory, which a disk thread makes for all requests that came before it began. All
//! lists together have a bounded amount of memory.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::fs_class::{MayBlock, Mount};
use super::open_file::LookupError;
use super::semaphore::{Permit, Semaphore};
use super::thread_pool::ThreadPool;
use crate::limits::LISTING_FREED_BYTES_MIN;

/// Why there is no list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListError {
    /// All lists together have as much memory as they may.
    NoMemory,
    /// It has more entries than are dealt with at once.
    TooMany,
    /// The directory can't be read.
    Failed(LookupError),
}

impl From<LookupError> for ListError {
    fn from(error: LookupError) -> Self {
        Self::Failed(error)
    }
}

/// What came of a list.
pub type Listed = Result<FreshList, ListError>;

/// A list that was just made.
#[derive(Clone, Debug)]
pub struct FreshList {
    /// The list.
    pub list: Arc<List>,
    /// It shows every change from before this time.
    pub begun: Instant,
    /// How long it took to make.
    pub took: Duration,
    /// Whether a change of what it shows makes an event in its folder (inotify(7)).
    pub shows_events_only: bool,
}

/// A list, rendered.
#[derive(Debug)]
pub struct List {
    bytes: Vec<u8>,
    /// Its memory's permit, given back after the bytes were freed. `None` only while it is dropped.
    permit: Option<Permit>,
    /// The threads that free a large list: munmap(2) of 10 MB takes a millisecond.
    freer: OnceLock<ThreadPool>,
}

impl List {
    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Leaves it to threads to free the list, if it is large.
    pub(super) fn defer_free_to(&self, pool: &ThreadPool) {
        self.freer.get_or_init(|| pool.clone());
    }
}

impl Drop for List {
    fn drop(&mut self) {
        if let Some(pool) = self.freer.take()
            && self.bytes.len() >= LISTING_FREED_BYTES_MIN
        {
            let content = (std::mem::take(&mut self.bytes), self.permit.take());
            pool.run(Mount::default(), move || drop(content));
        }
    }
}

/// A list to be made. A request that comes before it is begun may wait for it, too: the directory will
/// be read after that request came.
pub struct ListTask {
    /// The number of the task that makes it, once it was sent.
    number: OnceLock<u64>,
    is_begun: AtomicBool,
    is_cancelled: AtomicBool,
    make: Box<Make>,
}

type Make = dyn Fn(&ListTask, MayBlock) -> Listed + Send + Sync;

impl ListTask {
    /// `make` gives [`LookupError::OtherMount`] for what lies further than it may wait.
    pub fn new(make: impl Fn(&Self, MayBlock) -> Listed + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            number: OnceLock::new(),
            is_begun: AtomicBool::new(false),
            is_cancelled: AtomicBool::new(false),
            make: Box::new(make),
        })
    }

    /// Its task's number; if it has none yet, this one from now on.
    pub(super) fn number_or(&self, number: u64) -> u64 {
        *self.number.get_or_init(|| number)
    }

    /// Whether a request that comes now may wait for it, too.
    #[must_use]
    pub fn can_be_joined(&self) -> bool {
        !self.is_begun.load(Ordering::SeqCst) && !self.is_cancelled()
    }

    /// Ends it at the next entry: nobody waits for it any more.
    pub fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::SeqCst);
    }

    /// Whether nobody waits for it any more.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::SeqCst)
    }

    /// Makes the list. If that may wait for another mount, another thread will begin anew.
    pub(super) fn run(&self, may_block: MayBlock) -> Listed {
        self.is_begun.store(true, Ordering::SeqCst);
        let listed = (self.make)(self, may_block);
        if let Err(ListError::Failed(LookupError::OtherMount(_))) = listed {
            self.is_begun.store(false, Ordering::SeqCst);
        }
        listed
    }
}

impl fmt::Debug for ListTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ListTask").field(&self.number).finish()
    }
}

/// The lists of a loop, and the memory that all of them may have, those under way included.
#[derive(Clone, Debug)]
pub struct ListMemory {
    semaphore: Semaphore,
    /// The lists that connections still send.
    lists: Arc<Mutex<Vec<Weak<List>>>>,
}

impl ListMemory {
    /// No list yet, and `bytes_max` for all that will be.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        let (semaphore, lists) = (Semaphore::new(bytes_max), Arc::default());
        Self { semaphore, lists }
    }

    /// A permit for a list that is begun, of no byte yet.
    #[must_use]
    pub fn reserve(&self) -> Permit {
        self.semaphore.acquire_none()
    }

    /// A finished list. If a connection still sends one with the same bytes, it is that one: the list of
    /// a directory that doesn't change is in memory once, however many slow clients ask for it.
    #[must_use]
    pub fn share(&self, bytes: Vec<u8>, permit: Permit) -> Arc<List> {
        let lists = || self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let others: Vec<_> = lists().iter().filter_map(Weak::upgrade).collect();
        if let Some(same) = others.into_iter().find(|other| other.bytes == bytes) {
            return same;
        }
        let list = Arc::new(List {
            bytes,
            permit: Some(permit),
            freer: OnceLock::new(),
        });
        let mut lists = lists();
        lists.retain(|list| list.strong_count() > 0);
        lists.push(Arc::downgrade(&list));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether so much is taken of a memory of 100 bytes.
    fn has_taken(memory: &ListMemory, bytes: u64) -> bool {
        let left = memory.semaphore.try_acquire(100 - bytes);
        left.is_some() && memory.semaphore.try_acquire(1).is_none()
    }

    #[test]
    fn the_same_list_is_held_once_as_long_as_somebody_has_it() {
        let memory = ListMemory::new(100);
        let made = |text: &str| {
            let mut reservation = memory.reserve();
            assert!(reservation.resize(text.len() as u64));
            memory.share(text.into(), reservation)
        };
        let (one, again, other) = (made("list"), made("list"), made("other"));
        assert!(Arc::ptr_eq(&one, &again) && !Arc::ptr_eq(&one, &other));
        assert!(has_taken(&memory, 9));
        drop((one, again, other));
        assert!(has_taken(&memory, 0));
        let anew = made("list");
        assert_eq!(anew.bytes(), b"list");
        assert_eq!(memory.lists.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_large_list_is_freed_by_a_thread_and_a_small_one_at_once() {
        let memory = ListMemory::new(LISTING_FREED_BYTES_MIN as u64);
        let pool = ThreadPool::new(1);
        let is_held = || {
            memory
                .semaphore
                .try_acquire(LISTING_FREED_BYTES_MIN as u64)
                .is_none()
        };
        for length in [LISTING_FREED_BYTES_MIN - 1, LISTING_FREED_BYTES_MIN] {
            let (begin, begun) = std::sync::mpsc::channel::<()>();
            // The only thread has something else to do.
            pool.run(Mount::default(), move || begun.recv().unwrap());
            let mut reservation = memory.reserve();
            assert!(reservation.resize(length as u64));
            let list = memory.share(vec![0; length], reservation);
            list.defer_free_to(&pool);
            drop(list);
            let is_freed = length < LISTING_FREED_BYTES_MIN;
            assert_eq!(is_held(), !is_freed);
            begin.send(()).unwrap();
            while is_held() {
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn a_list_is_joined_until_it_is_begun_or_nobody_waits() {
        let task = ListTask::new(|task, may_block| {
            assert!(!task.can_be_joined());
            match may_block {
                MayBlock::Forever => Err(ListError::NoMemory),
                _ => Err(LookupError::OtherMount(Mount::default()).into()),
            }
        });
        assert!(task.can_be_joined());
        assert!(task.run(MayBlock::OnDisk).is_err());
        assert!(task.can_be_joined(), "it will be begun anew");
        assert_eq!(
            task.run(MayBlock::Forever).unwrap_err(),
            ListError::NoMemory
        );
        assert!(!task.can_be_joined());
        let task = ListTask::new(|_, _| Err(ListError::NoMemory));
        task.cancel();
        assert!(!task.can_be_joined());
    }
}
