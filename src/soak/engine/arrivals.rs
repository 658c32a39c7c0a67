//! The open model: when requests are due, and whether there is room for them.

use std::time::{Duration, Instant};

use super::{Engine, LoopHandle, Workload};
use crate::limits::SOAK_LATE_MAX;
use crate::soak::population::ClientKind;

impl Engine<'_> {
    /// Begins the next arrival, if there is room for it.
    pub(super) fn begin_arrival(&mut self, due: Instant, control: &mut LoopHandle) -> bool {
        if !self.may_begin() {
            return false;
        }
        let choice = self.plan.choose(self.arrival_number, None);
        let kept = self.idle.pop();
        if let Some(token) = kept
            && choice.kind != ClientKind::Fast
            && !self.may_open()
        {
            // Its place is needed: the next try finds it.
            self.evictions += 1;
            control.wake(token);
            return false;
        }
        self.arrival_number += 1;
        self.arrivals += 1;
        let request = self.request(choice, Some(due));
        match kept {
            Some(token) if choice.kind == ClientKind::Fast => {
                self.queued_for_idle.push_back(request);
                control.wake(token);
            }
            unused => {
                self.idle.extend(unused);
                self.connect(Self::NO_CLIENT, request, control);
            }
        }
        true
    }

    /// Whether another request may be under way.
    pub(super) fn may_begin(&self) -> bool {
        match self.workload {
            Workload::Open { clients_max, .. } => {
                self.in_flight < clients_max && (self.may_open() || !self.idle.is_empty())
            }
            _ => true,
        }
    }

    /// Whether another socket may be open.
    pub(super) fn may_open(&self) -> bool {
        match self.workload {
            Workload::Open { clients_max, .. } => self.sockets < clients_max,
            _ => true,
        }
    }

    /// A request or a connection has ended. Whoever waits for its place doesn't wait for the next
    /// tick.
    pub(super) fn rearm(&mut self) {
        if std::mem::take(&mut self.arrival_waits)
            && let Err(error) = self.arm(Instant::now())
        {
            log::error!("the clock can't be set: {error}");
        }
    }

    /// When the next arrival of the open model is due. What is still to be begun a while after
    /// the end never is.
    pub(super) fn next_arrival(&self, now: Instant) -> Option<Instant> {
        let Workload::Open { rate, .. } = self.workload else {
            return None;
        };
        let at = self.began + arrival(self.arrivals, rate, self.limits.ramp);
        let in_time = self.limits.time.is_none_or(|time| {
            let end = self.began + time;
            at < end && now < end + SOAK_LATE_MAX
        });
        let in_number = self.limits.requests.is_none_or(|most| self.arrivals < most);
        (in_time && in_number && !self.is_over).then_some(at)
    }

    /// How many arrivals were due when the stage ended, and for long enough to have been begun.
    pub(super) fn were_due(&self) -> u64 {
        let Workload::Open { rate, .. } = self.workload else {
            return 0;
        };
        let passed = self.over_at.saturating_duration_since(self.began);
        let passed = passed.saturating_sub(SOAK_LATE_MAX);
        let time = self.limits.time.map_or(passed, |time| time.min(passed));
        let due = arrivals_by(time, rate, self.limits.ramp);
        self.limits.requests.map_or(due, |most| due.min(most))
    }
}

/// When an arrival is due, from the beginning: at an even rate, which a ramp reaches evenly.
pub(super) fn arrival(number: u64, rate: f64, ramp: Duration) -> Duration {
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
