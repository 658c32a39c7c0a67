//! When the open model's requests are due.

use std::time::Duration;

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
pub(super) fn arrivals_by(time: Duration, rate: f64, ramp: Duration) -> u64 {
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
