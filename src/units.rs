//! How durations and sizes are written, on the command line and in messages.

use std::time::Duration;

use bytesize::ByteSize;
use jiff::civil::{Date, date};
use jiff::fmt::friendly::{Designator, SpanParser, SpanPrinter};

/// Days have 24 hours everywhere; months and years are those that begin here.
const CALENDAR: Date = date(2001, 1, 1);

/// Reads a duration such as `10s`, `250ms` or `1h 30m`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO); // Nothing needs no unit.
    }
    let span = SpanParser::new().parse_span(text).ok()?;
    span.to_duration(CALENDAR).ok()?.try_into().ok()
}

/// Writes a duration as [`parse_duration`] reads it, such as `1m 30s`.
#[must_use]
pub fn duration(duration: Duration) -> String {
    SpanPrinter::new()
        .designator(Designator::HumanTime)
        .unsigned_duration_to_string(&duration)
}

/// Reads a number of bytes such as `4096`, `64kB` (64,000) or `16MiB`.
#[must_use]
pub fn parse_bytes(text: &str) -> Option<u64> {
    text.parse::<ByteSize>().ok().map(|size| size.as_u64())
}

/// Writes a number of bytes in powers of 1024, such as `1.5 KiB`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_numbers_with_units() {
        let cases = [
            ("0s", Duration::ZERO),
            ("0", Duration::ZERO),
            ("250ms", Duration::from_millis(250)),
            ("50us", Duration::from_micros(50)),
            ("1500ns", Duration::from_nanos(1500)),
            ("10 s", Duration::from_secs(10)),
            ("1m 30s", Duration::from_secs(90)),
            ("1m30s", Duration::from_secs(90)),
            ("2hours", Duration::from_secs(7200)),
            ("1d", Duration::from_secs(86_400)),
            ("1week", Duration::from_secs(7 * 86_400)),
            ("1year", Duration::from_secs(365 * 86_400)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_duration(text), Some(expected), "{text}");
        }
        for bad in ["", "10", "s", "-1s", "1s ago", "900000years", "1 fortnight"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_duration_is_read_as_it_is_written() {
        for (millis, expected) in [
            (0, "0s"),
            (250, "250ms"),
            (1_500, "1s 500ms"),
            (60_000, "1m"),
            (3_600_000, "1h"),
            (5_430_000, "1h 30m 30s"),
        ] {
            let written = duration(Duration::from_millis(millis));
            assert_eq!(written, expected);
            assert_eq!(
                parse_duration(&written),
                Some(Duration::from_millis(millis))
            );
        }
    }

    #[test]
    fn sizes_have_units_of_1000_and_of_1024() {
        for (text, expected) in [
            ("4096", Some(4096)),
            ("64kB", Some(64_000)),
            ("16MiB", Some(16 << 20)),
            ("a few", None),
            ("-1", None),
        ] {
            assert_eq!(parse_bytes(text), expected, "{text}");
        }
        assert_eq!(bytes(1_536), "1.5 KiB");
    }
}
