//! carafe pours files: clients connect, name a file, get its bytes.
//!
//! One binary, one event loop. `ARCHITECTURE.md` shows the rooms and what may know what; each
//! room opens with what it is for. To read the whole in one go, start at [`reactor`], then
//! [`conn`], then [`service`] and what implements it.

pub mod access_log;
pub mod cli;
pub mod client;
pub mod conn;
pub mod descriptors;
pub mod disk;
pub mod escape;
pub mod failure;
pub mod http;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod reactor;
pub mod serve;
pub mod service;
pub mod services;
pub mod soak;
pub mod sockopt;
pub mod stats;
#[doc(hidden)]
pub mod testing;
pub mod timers;
pub mod transport;
pub mod turn;
pub mod version;
