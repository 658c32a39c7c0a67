//! Rows that are about latency: a few small downloads beside something large.

use crate::Result;
use crate::bench::Bench;
use crate::table::Table;

/// One small client beside 32 bulk readers.
pub fn beside_bulk(_bench: &Bench) -> Result<Vec<Table>> {
    Ok(Vec::new())
}
