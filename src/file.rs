//! Files that are sent, open ones and those in memory, and how they are read although the loop never
//! waits for a disk. The modules in reading order, each of which uses only those before it:
//! [`version`] (which state of a file this is), [`Semaphore`] (descriptors and bytes that are shared out),
//! [`FsClass`] (whether reading from a file system may wait), [`ThreadPool`] (threads that wait in the
//! loop's place), [`OpenFile`], [`Digests`] (of what files hold), [`List`] (a directory's), [`Piece`] (of a body that is made while it is sent),
//! [`DiskTask`] (what the loop leaves to threads), and [`DiskTasks`] (who waits for which, and who does it).

mod digests;
mod disk_tasks;
mod fs_class;
mod list;
mod open_file;
mod piece;
mod semaphore;
mod task;
mod thread_pool;
pub mod version;

pub use digests::{ContentDigest, Digests};
pub use disk_tasks::{DiskTasks, Notify};
pub use fs_class::{FsClass, FsClasses, MayBlock, Mount};
pub use list::{FreshList, List, ListError, ListMemory, ListTask, Listed};
pub use open_file::{Inode, Lookup, LookupError, OpenFile, Probe, ReadError};
pub use piece::{Piece, PieceError, PieceTask, Pieces, Segment};
pub use semaphore::{Permit, Semaphore};
pub use task::{Chunk, ChunkBytes, DiskTask, ReadTask, TaskResult};
pub use thread_pool::ThreadPool;
