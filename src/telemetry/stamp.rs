//! A time stamp of whole seconds. Very many lines are written within one second, and its text is made
//! once for all of them.

use jiff::Timestamp;

/// The text of the second that was asked for last.
#[derive(Clone, Debug, Default)]
pub(super) struct SecondStamp {
    second: Option<i64>,
    text: String,
}

impl SecondStamp {
    /// What `format` makes of the second in which `time` lies. It must be the same function every time.
    pub(super) fn of(&mut self, time: Timestamp, format: impl FnOnce(Timestamp) -> String) -> &str {
        let second = time.as_second();
        if self.second != Some(second) {
            self.text = format(time);
            self.second = Some(second);
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_anew_with_each_second() {
        let mut stamp = SecondStamp::default();
        let format = |time: Timestamp| time.strftime("%T").to_string();
        for (nanosecond, expected) in [
            (0, "00:00:00"),
            (999_999_999, "00:00:00"),
            (1_000_000_000, "00:00:01"),
            (0, "00:00:00"),
        ] {
            let time = Timestamp::from_nanosecond(nanosecond).unwrap();
            assert_eq!(stamp.of(time, format), expected);
        }
    }
}
