//! One of several generators that share a load.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Which part of a run this one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// From 1 on.
    pub number: u64,
    /// How many there are.
    pub of: u64,
}

impl Part {
    /// All of it.
    pub const WHOLE: Self = Self { number: 1, of: 1 };

    /// The number among all parts' of what is so and so of this one, arrivals or clients. Those that belong
    /// together, of two servers, stay so.
    pub fn of_all(self, own: u64, together: u64) -> u64 {
        (own / together * self.of + self.number - 1) * together + own % together
    }

    /// How many of the first so many are this part's.
    pub fn share(self, all: u64, together: u64) -> u64 {
        let (rounds, left) = (all / (self.of * together), all % (self.of * together));
        let before = (self.number - 1) * together;
        rounds * together + left.saturating_sub(before).min(together)
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/');
        let numbers =
            numbers.and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        match numbers {
            Some((number, of)) if (1..=of).contains(&number) && of <= 1 << 16 => {
                Ok(Self { number, of })
            }
            _ => Err("takes one of several parts, such as 2/4".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is numbered belongs to exactly one part.
        #[test]
        fn parts_are_the_whole(of in 1_u64..9, all in 0_u64..200, together in 1_u64..3) {
            let mut numbers: Vec<u64> = (1..=of)
                .map(|number| Part { number, of })
                .flat_map(|part| (0..part.share(all, together)).map(move |own| part.of_all(own, together)))
                .collect();
            numbers.sort_unstable();
            prop_assert_eq!(numbers, (0..all).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_part_is_one_of_some() {
        assert_eq!("2/4".parse(), Ok(Part { number: 2, of: 4 }));
        for bad in ["", "2", "0/4", "5/4", "1/0", "a/b", "1/99999999"] {
            assert!(bad.parse::<Part>().is_err(), "{bad}");
        }
    }
}
