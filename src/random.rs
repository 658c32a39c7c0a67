//! Numbers that nobody can guess.

use std::hash::{BuildHasher as _, RandomState};

/// 128 bits from the keys that the standard library makes of the kernel's randomness. It asks by a system call
/// (getrandom(2)) even in a static binary, so that no /dev is needed.
#[must_use]
pub fn random() -> u128 {
    let keys = RandomState::new();
    u128::from(keys.hash_one(0)) << 64 | u128::from(keys.hash_one(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_the_same() {
        assert_ne!(random(), random());
    }
}
