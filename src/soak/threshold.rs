//! `--fail-if`: conditions on what a report says.

use std::str::FromStr;

use super::report::{Report, Threshold};

/// Conditions that make a run fail.
#[derive(Clone, Debug)]
pub struct Conditions {}

impl Conditions {
    /// Looks at each condition.
    #[must_use]
    pub fn evaluate(&self, _report: &Report) -> Vec<Threshold> {
        Vec::new()
    }
}

impl FromStr for Conditions {
    type Err = String;

    fn from_str(_text: &str) -> Result<Self, String> {
        Ok(Self {})
    }
}
