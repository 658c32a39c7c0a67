//! Times as HTTP writes them. A file's time may be anything that fits into 64 bits of seconds;
//! only those that four digits of a year can show are written.

use std::time::{Duration, SystemTime};

use crate::file::version::Stamp;

/// The first second of the year 10000.
const END: Duration = Duration::from_secs(253_402_300_800);

/// The time, cut to whole seconds, if it lies in the years 1970 to 9999.
#[must_use]
pub fn whole_second(time: SystemTime) -> Option<SystemTime> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let whole = Duration::from_secs(since.as_secs());
    (whole < END).then(|| SystemTime::UNIX_EPOCH + whole)
}

/// A time as stat(2) tells it, if a `SystemTime` can hold it.
#[must_use]
pub fn from_stat((seconds, nanoseconds): Stamp) -> Option<SystemTime> {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base = match seconds {
        0.. => SystemTime::UNIX_EPOCH.checked_add(whole),
        _ => SystemTime::UNIX_EPOCH.checked_sub(whole),
    };
    base?.checked_add(Duration::from_nanos(nanoseconds))
}

/// IMF-fixdate (RFC 9110, section 5.6.7), where the time has one.
#[must_use]
pub fn format(time: SystemTime) -> Option<String> {
    whole_second(time).map(httpdate::fmt_http_date)
}

/// Bytes of an IMF-fixdate.
const FIXDATE_BYTES: usize = 29;

/// A time, and how a Date field writes it.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The time.
    pub time: SystemTime,
    date: Option<[u8; FIXDATE_BYTES]>,
}

impl Now {
    /// The Date field's value, where the time has one.
    #[must_use]
    pub fn date(&self) -> Option<&[u8; FIXDATE_BYTES]> {
        self.date.as_ref()
    }
}

impl From<SystemTime> for Now {
    fn from(time: SystemTime) -> Self {
        let date = format(time).and_then(|date| date.into_bytes().try_into().ok());
        Self { time, date }
    }
}

/// Writes each second's date once.
#[derive(Debug, Default)]
pub struct Clock {
    /// The latest second, and when it began.
    latest: Option<(i64, Now)>,
}

impl Clock {
    /// A time, as a file's stamp has it, with its date.
    pub fn at(&mut self, (second, nanosecond): Stamp) -> Now {
        let begun = match &mut self.latest {
            Some((latest, begun)) if *latest == second => begun,
            latest => {
                let time = from_stat((second, 0)).unwrap_or(SystemTime::UNIX_EPOCH);
                &mut latest.insert((second, time.into())).1
            }
        };
        let time = begun.time + Duration::from_nanos(nanosecond);
        Now { time, ..*begun }
    }
}

/// Fifty years, to a day.
const FIFTY_YEARS: Duration = Duration::from_secs(50 * 31_556_952);

/// Reads an HTTP-date in any of its three forms. Of the one that has two digits for the year, it is the
/// latest such year that isn't more than fifty years ahead (RFC 9110, section 5.6.7).
#[must_use]
pub fn parse(value: &[u8], now: SystemTime) -> Option<SystemTime> {
    let text = std::str::from_utf8(value).ok()?;
    let date = match without_century(text) {
        Some(parts) => in_its_century(parts, now),
        None => httpdate::parse_http_date(text).ok(),
    };
    date.and_then(whole_second)
}

/// Day, month, last two digits of the year, and the rest of a date that has no more: `06-Nov-94`.
fn without_century(text: &str) -> Option<[&str; 4]> {
    let (weekday, date) = text.trim().split_once(", ")?;
    if !weekday.ends_with("day") {
        return None;
    }
    let mut parts = date.splitn(3, '-');
    let (day, month, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let (year, rest) = rest.split_at_checked(2)?;
    Some([day, month, year, rest])
}

fn in_its_century([day, month, year, rest]: [&str; 4], now: SystemTime) -> Option<SystemTime> {
    let latest = now.checked_add(FIFTY_YEARS)?;
    let written = format(latest)?;
    // `Sun, 06 Nov 1994`. Which weekday it was depends on the century.
    let century: u32 = written.get(12..14)?.parse().ok()?;
    let dates = (0..=century).rev().filter_map(|century| {
        let weekdays = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
        weekdays.iter().find_map(|weekday| {
            let date = format!("{weekday}, {day} {month} {century:02}{year}{rest}");
            httpdate::parse_http_date(&date).ok()
        })
    });
    dates.into_iter().find(|&date| date <= latest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_writes_what_the_time_is() {
        let mut clock = Clock::default();
        for millis in [0, 999, 1_000, 1_999, 500, 86_400_000, 253_402_300_800_000] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
            let now = clock.at((millis as i64 / 1_000, millis % 1_000 * 1_000_000));
            assert_eq!(now.time, time);
            let date = now
                .date()
                .map(|date| String::from_utf8(date.to_vec()).unwrap());
            assert_eq!(date, format(time), "{millis}");
        }
    }

    #[test]
    fn only_four_digits_of_a_year_are_written() {
        for (seconds, expected) in [
            (0, Some("Thu, 01 Jan 1970 00:00:00 GMT")),
            (784_111_777, Some("Sun, 06 Nov 1994 08:49:37 GMT")),
            (253_402_300_799, Some("Fri, 31 Dec 9999 23:59:59 GMT")),
            (253_402_300_800, None),
            (1 << 55, None),
            (i64::MAX, None),
            (-1, None),
            (i64::MIN, None),
        ] {
            let written = from_stat((seconds, 999_999_999)).and_then(format);
            assert_eq!(written.as_deref(), expected, "{seconds}");
        }
    }

    #[test]
    fn three_forms_are_read() {
        for (text, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("Sun, 06 Nov 1994 08:49:37", None),
            ("Sun, 31 Feb 1994 08:49:37 GMT", None),
            ("1994-11-06T08:49:37Z", None),
            ("784111777", None),
            ("", None),
        ] {
            let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH);
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
            let read = parse(text.as_bytes(), now).map(|time| since(time).unwrap().as_secs());
            assert_eq!(read, expected, "{text}");
        }
        assert_eq!(parse(b"\xff", SystemTime::UNIX_EPOCH), None);
    }

    #[test]
    #[rustfmt::skip]
    fn two_digits_mean_a_year_that_is_at_most_fifty_years_ahead() {
        let imf = |text: &str| httpdate::parse_http_date(text).unwrap();
        for (now, text, expected) in [
            ("Wed, 25 Nov 2026 12:00:00 GMT", "Wednesday, 25-Nov-26 12:00:00 GMT", Some(2026)),
            ("Wed, 25 Nov 2026 12:00:00 GMT", "Saturday, 01-Jan-00 00:00:00 GMT", Some(2000)),
            ("Wed, 25 Nov 2026 12:00:00 GMT", "Friday, 01-Jan-27 00:00:00 GMT", Some(2027)),
            ("Wed, 25 Nov 2026 12:00:00 GMT", "Saturday, 01-Feb-70 00:00:00 GMT", Some(2070)),
            ("Wed, 25 Nov 2026 12:00:00 GMT", "Sunday, 22-Nov-76 12:00:00 GMT", Some(2076)),
            ("Wed, 25 Nov 2026 12:00:00 GMT", "Sunday, 28-Nov-76 12:00:00 GMT", Some(1976)),
            ("Wed, 25 Nov 2026 12:00:00 GMT", "Saturday, 01-Jan-77 00:00:00 GMT", Some(1977)),
            ("Wed, 25 Nov 2026 12:00:00 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", Some(1994)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", Some(1994)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-43 08:49:37 GMT", Some(2043)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", "Saturday, 06-Nov-71 08:49:37 GMT", Some(1971)),
            ("Wed, 25 Nov 2099 12:00:00 GMT", "Friday, 01-Jan-05 00:00:00 GMT", Some(2105)),
            // A day that only one of the centuries has.
            ("Wed, 25 Nov 2099 12:00:00 GMT", "Friday, 29-Feb-00 00:00:00 GMT", Some(2000)),
            // Before 1970: no such time is known here.
            ("Thu, 01 Jan 1970 00:00:00 GMT", "Sunday, 06-Nov-40 08:49:37 GMT", None),
            ("Wed, 25 Nov 2026 12:00:00 GMT", "Sunday, 06-Nov-1994 08:49:37 GMT", None),
            ("Wed, 25 Nov 2026 12:00:00 GMT", "Sunday, 31-Nov-94 08:49:37 GMT", None),
        ] {
            let date = parse(text.as_bytes(), imf(now));
            let year = date
                .and_then(format)
                .map(|date| date[12..16].parse().unwrap());
            assert_eq!(year, expected, "{text} in {now}");
        }
    }
}
