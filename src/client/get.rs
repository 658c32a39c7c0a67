//! `carafe get`: downloads files by name.

use crate::cli::{Exit, GetArgs};

/// Downloads every name asked for.
#[must_use]
pub fn run(_args: &GetArgs) -> Exit {
    Exit::Failed
}
