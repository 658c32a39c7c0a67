//! `carafe soak`: load and soak tests that tell the truth. Another application on the same
//! reactor: its connections are clients.

mod charts;
pub mod check;
pub mod client;
pub mod engine;
#[cfg(test)]
mod fixtures;
pub mod live;
mod metric;
pub mod outcome;
pub mod page;
pub mod plan;
pub mod plot;
pub mod population;
pub mod process;
pub mod report;
pub mod run;
pub mod slope;
pub mod tally;
pub mod text;
pub mod threshold;
mod units;
pub mod verdict;
pub mod watch;
mod wording;

pub use run::run;
