//! `carafe say`: sends a text and prints the reply.

use crate::cli::{Exit, SayArgs};

/// Says it.
#[must_use]
pub fn run(_args: &SayArgs) -> Exit {
    Exit::Failed
}
