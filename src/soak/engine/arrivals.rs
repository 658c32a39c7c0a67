//! The open model: when requests are due.

use std::time::{Duration, Instant};

use crate::limits::SOAK_LATE_MAX;
use crate::soak::part::Part;

/// How far a stage goes.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::soak) struct StageLimits {
    /// How long requests are started.
    pub(in crate::soak) time: Option<Duration>,
    /// How many requests are started.
    pub(in crate::soak) requests: Option<u64>,
    /// Over what time the full load is reached.
    pub(in crate::soak) ramp: Duration,
}

/// The arrivals of one stage.
pub(super) struct Arrivals {
    /// When the stage began.
    pub(super) began: Instant,
    pub(super) limits: StageLimits,
    /// Arrivals a second, of all parts.
    pub(super) rate: f64,
    /// Which of them are this one's, and how many belong together.
    pub(super) part: (Part, u64),
    /// How many requests were begun.
    pub(super) begun: u64,
}

impl Arrivals {
    /// When the next one is due. What is still to be begun a while after the end never is.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let at = self.began + self.next_after();
        let in_time = self.limits.time.is_none_or(|time| {
            let end = self.began + time;
            at < end && now < end + SOAK_LATE_MAX
        });
        let in_number = self.limits.requests.is_none_or(|most| self.begun < most);
        (in_time && in_number).then_some(at)
    }

    /// The same, from the stage's beginning and however far the stage goes.
    pub(super) fn next_after(&self) -> Duration {
        let (part, together) = self.part;
        arrival(
            part.of_all(self.begun, together),
            self.rate,
            self.limits.ramp,
        )
    }

    /// How many were never begun of those that were due when the stage ended, and for long enough to
    /// have been begun.
    pub(super) fn missed(&self, ended: Instant) -> u64 {
        let passed = ended.saturating_duration_since(self.began);
        let passed = passed.saturating_sub(SOAK_LATE_MAX);
        let time = self.limits.time.map_or(passed, |time| time.min(passed));
        let (part, together) = self.part;
        let due = part.share(arrivals_by(time, self.rate, self.limits.ramp), together);
        let due = self.limits.requests.map_or(due, |most| due.min(most));
        due.saturating_sub(self.begun)
    }
}

/// When an arrival is due, from the beginning: at an even rate, which a ramp reaches evenly.
fn arrival(number: u64, rate: f64, ramp: Duration) -> Duration {
    let (number, ramp) = (number as f64, ramp.as_secs_f64());
    let in_ramp = rate * ramp / 2.0;
    let seconds = if number < in_ramp {
        (2.0 * ramp * number / rate).sqrt()
    } else {
        ramp + (number - in_ramp) / rate
    };
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX / 4)
}

/// How many arrivals are due before a time.
fn arrivals_by(time: Duration, rate: f64, ramp: Duration) -> u64 {
    let (time, ramp) = (time.as_secs_f64(), ramp.as_secs_f64());
    let due = if time < ramp {
        rate * time * time / (2.0 * ramp)
    } else {
        rate * (time - ramp / 2.0)
    };
    due.ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_even_after_a_ramp() {
        let second = Duration::from_secs(1);
        for ramp in [Duration::ZERO, second, 3 * second] {
            let mut before = Duration::ZERO;
            for number in 0..1000 {
                let at = arrival(number, 100.0, ramp);
                assert!(at >= before, "{number}");
                before = at;
                let by = arrivals_by(at + Duration::from_micros(1), 100.0, ramp);
                assert_eq!(by, number + 1, "{ramp:?}");
            }
        }
        assert_eq!(arrival(100, 100.0, Duration::ZERO), second);
        assert_eq!(arrival(50, 100.0, second), second);
        assert_eq!(arrival(150, 100.0, second), 2 * second);
    }
}
