//! Who the clients are: kinds and their shares.

use std::str::FromStr;

/// What a client is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientKind {
    /// Asks and reads as fast as it can.
    Fast,
    /// Has a small receive buffer and reads at a byte rate.
    Slow,
    /// Breaks off at some byte, by FIN or by RST.
    Abort,
    /// Shuts its write side after the request, as `nc -N` does.
    HalfClose,
    /// Sends its request in pieces.
    Split,
    /// Connects and says nothing.
    Idle,
}

impl ClientKind {
    /// All kinds, in the order in which reports name them.
    pub const ALL: [Self; 6] = [
        Self::Fast,
        Self::Slow,
        Self::Abort,
        Self::HalfClose,
        Self::Split,
        Self::Idle,
    ];

    /// What the command line and reports call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Slow => "slow",
            Self::Abort => "abort",
            Self::HalfClose => "halfclose",
            Self::Split => "split",
            Self::Idle => "idle",
        }
    }
}

/// Kinds and their shares, which are 100 % in all.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    shares: [f64; ClientKind::ALL.len()],
}

impl Mix {
    /// The share of one kind, in percent.
    pub fn share(&self, kind: ClientKind) -> f64 {
        self.shares[kind as usize]
    }

    /// The kind at a point of the whole, from 0 to 1: kinds stand side by side in their order.
    pub fn at(&self, point: f64) -> ClientKind {
        let mut left = point * 100.0;
        let present = ClientKind::ALL
            .into_iter()
            .filter(|&kind| self.share(kind) > 0.0);
        let mut last = ClientKind::Fast;
        for kind in present {
            last = kind;
            left -= self.share(kind);
            if left < 0.0 {
                break;
            }
        }
        last
    }

    /// The kinds of so many clients that are there at once: each kind has its share, rounded so
    /// that the sum is right (largest remainders).
    pub fn spread(&self, clients: usize) -> Vec<ClientKind> {
        let exact = self.shares.map(|share| share * clients as f64 / 100.0);
        let mut counts = exact.map(|count| count as usize);
        let mut order: Vec<_> = (0..exact.len()).collect();
        order.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()));
        let missing = clients - counts.iter().sum::<usize>().min(clients);
        for &kind in order.iter().take(missing) {
            counts[kind] += 1;
        }
        let kinds = ClientKind::ALL.into_iter().zip(counts);
        kinds
            .flat_map(|(kind, count)| std::iter::repeat_n(kind, count))
            .collect()
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const TAKES: &str = "takes shares of fast, slow, abort, halfclose, split and idle that are \
             100 % in all, such as fast=90%,slow=10%";
        let mut shares = [0.0; ClientKind::ALL.len()];
        for part in text.split(',') {
            let (name, share) = part.split_once('=').ok_or(TAKES)?;
            let kind = ClientKind::ALL
                .into_iter()
                .find(|kind| kind.as_str() == name.trim());
            let share = share.trim().trim_end_matches('%').parse::<f64>();
            match (kind, share) {
                (Some(kind), Ok(share))
                    if (0.0..=100.0).contains(&share) && shares[kind as usize] == 0.0 =>
                {
                    shares[kind as usize] = share;
                }
                _ => return Err(TAKES.into()),
            }
        }
        let sum: f64 = shares.iter().sum();
        if (sum - 100.0).abs() > 1e-6 {
            return Err(TAKES.into());
        }
        Ok(Self { shares })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_a_hundred_percent_in_all() {
        for good in [
            "fast=100%",
            "fast=80%, slow=10%,idle=10%",
            "slow=99.5,idle=.5",
        ] {
            assert!(good.parse::<Mix>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "fast",
            "fast=50%",
            "quick=100%",
            "fast=50%,fast=50%",
            "fast=110%,slow=-10%",
            "fast=NaN",
        ] {
            assert!(bad.parse::<Mix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_population_has_its_shares() {
        let mix: Mix = "fast=80%,slow=15%,idle=5%".parse().expect("a mix");
        let kinds = mix.spread(7);
        let count = |kind| kinds.iter().filter(|&&other| other == kind).count();
        assert_eq!(
            (
                kinds.len(),
                count(ClientKind::Fast),
                count(ClientKind::Slow)
            ),
            (7, 6, 1)
        );
        assert_eq!(mix.at(0.0), ClientKind::Fast);
        assert_eq!(mix.at(0.799), ClientKind::Fast);
        assert_eq!(mix.at(0.8), ClientKind::Slow);
        assert_eq!(mix.at(0.999_999_9), ClientKind::Idle);
        assert_eq!(mix.at(1.0), ClientKind::Idle);
    }
}
