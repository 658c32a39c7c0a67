//! carafe pours files: clients connect, name a file, get its bytes.
//!
//! This library exists for the binary, the tests, the benches and the examples, which need what is
//! public here. It promises nothing else: anything may change from one commit to the next.
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
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod testing;
pub mod units;
