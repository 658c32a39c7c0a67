//! carafe pours files: clients connect, name a file, get its bytes.
//!
//! This library exists for the binary, the tests, the benches and the examples, which need what is
//! public here. It promises nothing else: anything may change from one commit to the next.
//!
//! One binary, one event loop. `ARCHITECTURE.md` shows the rooms and what may know what; each
//! room opens with what it is for. To read the whole in one go, start at [`reactor`], then
//! [`conn`], then [`protocol`] and what implements it.

// In tests a number that is cut, or a time before the clock's first, is a failure, and no fault.
#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::unchecked_time_subtraction)
)]

pub mod cli;
#[allow(
    clippy::cast_possible_truncation,
    reason = "lengths that a buffer bounds"
)]
pub mod conn;
pub mod daemon;
pub mod descriptors;
pub mod dot_segments;
pub mod download;
pub mod escape;
pub mod failure;
#[allow(
    clippy::cast_possible_truncation,
    reason = "lengths that a buffer bounds"
)]
pub mod file;
pub mod flags;
pub mod http;
pub mod limits;
pub mod notes;
pub mod peer;
#[allow(
    clippy::cast_possible_truncation,
    reason = "lengths of what is in memory"
)]
pub mod protocol;
pub mod random;
#[allow(
    clippy::cast_possible_truncation,
    reason = "a slab has fewer than 2^32 slots; the wheel cuts ticks on purpose"
)]
pub mod reactor;
pub mod root;
pub mod serve;
pub mod signals;
#[allow(clippy::cast_possible_truncation, reason = "figures for people")]
pub mod soak;
pub mod sockopt;
pub mod telemetry;
#[cfg(feature = "testing")]
#[doc(hidden)]
#[allow(clippy::cast_possible_truncation, reason = "small numbers")]
pub mod testing;
#[allow(
    clippy::cast_possible_truncation,
    reason = "lengths that a buffer bounds"
)]
pub mod tls;
#[allow(clippy::cast_possible_truncation, reason = "figures for people")]
pub mod trace;
pub mod units;
