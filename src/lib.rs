//! carafe pours files: clients connect, name a file, get its bytes.
//!
//! One binary, one event loop. `ARCHITECTURE.md` shows the rooms and what may know what; each
//! room opens with what it is for. To read the whole in one go, start at [`reactor`], then
//! [`conn`], then [`protocol`] and what implements it.

pub mod cli;
pub mod conn;
pub mod descriptors;
pub mod download;
pub mod escape;
pub mod failure;
pub mod file;
pub mod http;
pub mod limits;
pub mod protocol;
pub mod reactor;
pub mod root;
pub mod serve;
pub mod soak;
pub mod sockopt;
pub mod telemetry;
#[doc(hidden)]
pub mod testing;
