//! `carafe soak`: load and soak tests that tell the truth. Another application on the same
//! reactor: its connections are clients.

mod charts;
pub mod live;
pub mod outcome;
pub mod page;
mod plot;
pub mod population;
pub mod report;
#[cfg(test)]
mod sample;
pub mod text;
pub mod threshold;
mod units;
mod wording;

use crate::cli::{Exit, SoakArgs};

/// Runs a soak test.
#[must_use]
pub fn run(_args: &SoakArgs) -> Exit {
    Exit::Failed
}
