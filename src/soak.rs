//! `carafe soak`: load and soak tests that tell the truth. Another application on the same
//! reactor: its connections are clients.

pub mod args;
mod charts;
mod check;
mod client;
mod compare;
mod encoded;
mod engine;
mod figures;
mod finding;
#[cfg(test)]
mod fixtures;
mod histograms;
mod in_flight;
mod ledger;
mod live;
mod merge;
mod metric;
mod outcome;
mod outputs;
mod page;
mod part;
mod pipeline;
mod plan;
pub mod plot;
mod population;
pub mod process;
mod report;
mod run;
mod search;
mod slope;
mod stretches;
mod sure;
#[cfg(test)]
mod synthetic;
mod tally;
mod text;
mod threshold;
mod units;
mod verdict;
mod versus;
mod watch;
mod wording;

pub use run::run;
