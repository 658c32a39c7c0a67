//! A time stamp of whole seconds. Very many lines are written within one second, and its text is made
//! once for all of them.

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// The text of the second that was asked for last.
#[derive(Clone, Debug, Default)]
pub(super) struct SecondStamp {
    second: Option<i64>,
    text: String,
}

impl SecondStamp {
    /// What `format` makes of a second since 1970. It must be the same function every time.
    pub(super) fn of(&mut self, second: i64, format: impl FnOnce(Timestamp) -> String) -> &str {
        if self.second != Some(second) {
            // A clock that is set beyond the year 9999 shows 1970.
            self.text = format(Timestamp::from_second(second).unwrap_or_default());
            self.second = Some(second);
        }
        &self.text
    }
}

/// The second that it is, by the clock of the kernel's last tick: a few milliseconds late, and read in a third of the
/// time.
pub(super) fn this_second() -> i64 {
    // Every kernel since 2.6.32 has it.
    clock_gettime(ClockId::CLOCK_REALTIME_COARSE).map_or(0, |now| now.tv_sec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_anew_with_each_second() {
        let mut stamp = SecondStamp::default();
        let format = |time: Timestamp| time.strftime("%T").to_string();
        for (second, expected) in [(0, "00:00:00"), (0, "00:00:00"), (1, "00:00:01")] {
            assert_eq!(stamp.of(second, format), expected);
        }
        assert_eq!(stamp.of(i64::MAX, format), "00:00:00");
    }

    #[test]
    fn the_second_is_the_one_of_other_clocks() {
        let before = Timestamp::now().as_second();
        let second = this_second();
        // It may be a tick behind.
        assert!((before - 1..=Timestamp::now().as_second()).contains(&second));
    }
}
