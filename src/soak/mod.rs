//! `carafe soak`: load and soak tests that tell the truth. Another application on the same
//! reactor: its connections are clients.

pub mod check;
pub mod client;
pub mod engine;
pub mod http;
mod metric;
pub mod outcome;
pub mod plan;
pub mod population;
pub mod process;
pub mod report;
pub mod run;
pub mod slope;
pub mod tally;
pub mod threshold;
pub mod verdict;
pub mod watch;

pub use run::run;
