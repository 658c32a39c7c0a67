//! `carafe soak`: load and soak tests that tell the truth. Another application on the same
//! reactor: its connections are clients.

mod metric;
pub mod outcome;
pub mod population;
pub mod process;
pub mod report;
pub mod slope;
pub mod threshold;
pub mod watch;

use crate::cli::{Exit, SoakArgs};

/// Runs a soak test.
#[must_use]
pub fn run(_args: &SoakArgs) -> Exit {
    Exit::Failed
}
