//! Figures as a person reads them: times, sizes, counts and rates, with their units.

use indicatif::HumanCount;

pub use crate::units::bytes;

/// Stands for a figure that could not be computed.
const UNKNOWN: &str = "unknown";

/// A time in microseconds: three digits that matter, from minutes on two units.
pub fn time(us: u64) -> String {
    let seconds = us / 1_000_000;
    match us {
        0 => "0 s".into(),
        1..=999 => format!("{us} µs"),
        1_000..=999_499 => format!("{} ms", three_digits(us as f64 / 1e3)),
        999_500..=119_999_999 => format!("{} s", three_digits(us as f64 / 1e6)),
        120_000_000..=7_199_999_999 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// A time in seconds.
pub fn seconds(seconds: f64) -> String {
    // A cast of a float saturates, and no time is negative.
    time((seconds * 1e6) as u64)
}

/// A number of bytes that was computed: it may be broken, and negative.
pub fn bytes_about(bytes: f64) -> String {
    if !bytes.is_finite() {
        return UNKNOWN.into();
    }
    let sign = if bytes <= -0.5 { "-" } else { "" };
    format!("{sign}{}", self::bytes(bytes.abs().round() as u64))
}

/// A whole number, with its thousands apart.
pub fn count(count: u64) -> String {
    HumanCount(count).to_string()
}

/// A number that was computed, such as a rate.
pub fn number(number: f64) -> String {
    if !number.is_finite() {
        return UNKNOWN.into();
    }
    let sign = if number < 0.0 { "-" } else { "" };
    let size = number.abs();
    match size {
        _ if size.fract() == 0.0 => format!("{sign}{}", count(size as u64)),
        100.0.. => format!("{sign}{}", count(size.round() as u64)),
        0.005.. => format!("{sign}{}", three_digits(size)),
        _ => format!("{sign}{size:.1e}"),
    }
}

/// A share, so that neither a few of many nor all but a few are rounded away.
pub fn share(part: u64, whole: u64) -> String {
    let percent = part as f64 * 100.0 / whole.max(1) as f64;
    match percent {
        _ if part >= whole => "all of them".into(),
        1.0.. => format!("{:.2} %", (percent * 100.0).floor() / 100.0),
        _ => format!("one in {}", count(whole / part.max(1))),
    }
}

fn three_digits(number: f64) -> String {
    match number {
        99.95.. => format!("{number:.0}"),
        9.995.. => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_a_unit() {
        let cases = [
            (0, "0 s"),
            (999, "999 µs"),
            (1_000, "1.00 ms"),
            (9_999, "10.0 ms"),
            (99_960, "100 ms"),
            (999_499, "999 ms"),
            (999_999, "1.00 s"),
            (61_000_000, "61.0 s"),
            (125_000_000, "2 min 05 s"),
            (7_260_000_000, "2 h 01 min"),
        ];
        for (us, text) in cases {
            assert_eq!(time(us), text);
        }
        assert_eq!(seconds(10.0), "10.0 s");
    }

    #[test]
    fn sizes_and_numbers_keep_their_sign() {
        assert_eq!(bytes(1_536), "1.5 KiB");
        assert_eq!(bytes_about(-2_048.0), "-2.0 KiB");
        assert_eq!(bytes_about(-0.1), "0 B");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(number(-12_345.6), "-12,346");
        assert_eq!(number(0.25), "0.25");
        assert_eq!(number(9.0), "9");
        assert_eq!(number(-0.001), "-1.0e-3");
        assert_eq!(number(f64::NAN), "unknown");
        assert_eq!(bytes_about(f64::INFINITY), "unknown");
    }

    #[test]
    fn a_share_is_neither_rounded_to_nothing_nor_to_all() {
        assert_eq!(share(999_999, 1_000_000), "99.99 %");
        assert_eq!(share(3, 1_000_000), "one in 333,333");
        assert_eq!(share(7, 7), "all of them");
    }
}
