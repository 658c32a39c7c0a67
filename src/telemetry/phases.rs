//! Where the time of a reply went: phases that add up to the whole.

use std::time::Duration;

use serde::{Serialize, Serializer};

/// What a reply's time was spent on, or for whom it waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The loop did other things, or its thread didn't run.
    Loop,
    /// Its request was read and judged, its file was looked up.
    LookUp,
    /// A disk.
    Disk,
    /// A free descriptor.
    Descriptor,
    /// Its bytes were given to the kernel.
    Sending,
    /// Its client, whose receive window had no room.
    Client,
    /// The network, or a client that acknowledges late: bytes were under way, and the send buffer full.
    Network,
}

impl Phase {
    /// All phases, in their order.
    pub const ALL: [Self; 7] = [
        Self::Loop,
        Self::LookUp,
        Self::Disk,
        Self::Descriptor,
        Self::Sending,
        Self::Client,
        Self::Network,
    ];

    /// What logs and counters call it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Loop => "loop",
            Self::LookUp => "lookup",
            Self::Disk => "disk",
            Self::Descriptor => "descriptor",
            Self::Sending => "sending",
            Self::Client => "client",
            Self::Network => "network",
        }
    }
}

/// A time for each phase, in the order of [`Phase::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases([Duration; Phase::ALL.len()]);

impl Phases {
    /// Spends so much more on a phase.
    pub fn add(&mut self, phase: Phase, time: Duration) {
        self.0[phase as usize] += time;
    }

    /// Finds that so much of one phase, if it has as much, belongs to another.
    pub fn shift(&mut self, from: Phase, to: Phase, time: Duration) {
        let time = time.min(self.get(from));
        self.0[from as usize] -= time;
        self.add(to, time);
    }

    /// What was spent on a phase.
    #[must_use]
    pub fn get(&self, phase: Phase) -> Duration {
        self.0[phase as usize]
    }

    /// What was spent on all.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.0.iter().sum()
    }

    /// Each phase on which any time was spent.
    pub fn spent(&self) -> impl Iterator<Item = (Phase, Duration)> {
        let all = Phase::ALL.into_iter().zip(self.0);
        all.filter(|(_, time)| !time.is_zero())
    }
}

/// An object with the seconds of each phase.
impl Serialize for Phases {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let seconds = self.0.map(|time| time.as_secs_f64());
        serializer.collect_map(Phase::ALL.map(Phase::as_str).into_iter().zip(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shifted_stays_in_the_sum() {
        let mut phases = Phases::default();
        let [two, three] = [2, 3].map(Duration::from_secs);
        phases.add(Phase::Network, two);
        phases.add(Phase::Sending, three);
        phases.shift(Phase::Network, Phase::Client, three);
        assert_eq!(phases.total(), two + three);
        let spent: Vec<_> = phases.spent().collect();
        assert_eq!(spent, [(Phase::Sending, three), (Phase::Client, two)]);
        let json = serde_json::to_value(phases).unwrap();
        assert_eq!(json.as_object().unwrap().len(), Phase::ALL.len());
        assert_eq!((&json["client"], &json["disk"]), (&2.0.into(), &0.0.into()));
    }

    #[test]
    fn phases_stand_in_their_order() {
        for (index, phase) in Phase::ALL.into_iter().enumerate() {
            assert_eq!(phase as usize, index, "{}", phase.as_str());
        }
    }
}
