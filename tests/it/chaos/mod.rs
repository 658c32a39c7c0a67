//! Random runs that can be replayed: `CARAFE_SEED=... cargo test --test NAME`.

use std::hash::{BuildHasher as _, RandomState};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRng, TestRunner};

/// A seed from the environment, or a new one.
fn seed() -> u64 {
    match std::env::var("CARAFE_SEED") {
        Ok(text) => text.parse().expect("CARAFE_SEED is a number"),
        Err(_) => RandomState::new().hash_one(0),
    }
}

/// Runs a property over random inputs; a failure names the seed.
pub fn chaos<T: Strategy>(
    cases: u32,
    inputs: T,
    property: impl Fn(T::Value) -> Result<(), TestCaseError>,
) {
    let seed = seed();
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(config.rng_algorithm, &bytes);
    if let Err(error) = TestRunner::new_with_rng(config, rng).run(&inputs, property) {
        panic!("CARAFE_SEED={seed} replays this: {error}");
    }
}
