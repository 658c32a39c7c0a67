//! Files that are sent: open ones and those in memory, and how their bytes are had although the loop
//! never waits for a disk. The rooms in reading order, each of which uses only those before it:
//! [`version`] (which state of a file this is), [`Budget`] (descriptors and bytes that are shared out),
//! [`FsClass`] (whether reading from a file system may wait), [`thread_pool`] (threads that wait in the
//! loop's place), [`OpenFile`], [`List`] (a directory's), [`DiskTask`] (what the loop leaves to
//! threads), and [`TaskPool`] (who does it).

mod budget;
mod fs_class;
mod list;
mod open_file;
mod task;
mod task_pool;
pub mod thread_pool;
pub mod version;

pub use budget::{Budget, Lease};
pub use fs_class::{FsClass, FsClasses, MayBlock, Mount};
pub use list::{List, ListError, ListMemory, ListTask, Listed};
pub use open_file::{Inode, Lookup, LookupError, OpenFile, Probe, ReadError, ReadMode, Segment};
pub use task::{Chunk, ChunkBytes, DiskTask, ReadTask, TaskResult};
pub use task_pool::{TaskId, TaskPool};
