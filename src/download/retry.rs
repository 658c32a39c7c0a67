//! When to try again: a rest that doubles, and what the server asks for.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::RETRY_AFTER;

use super::Failure;
use crate::limits;

/// Why something didn't come, and whether it is worth another try.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It would be the same again.
    Lasting(Failure),
    /// It may be better later: at the server's word, after so long.
    Passing(Failure, Option<Duration>),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Lasting(failure)
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        let (Trouble::Lasting(failure) | Trouble::Passing(failure, _)) = trouble;
        failure
    }
}

/// How many new tries there may be without progress, and the rest before the next.
#[derive(Debug)]
pub(super) struct Retries {
    count: u64,
    made: u64,
    first_rest: Duration,
    rest: Duration,
    rest_max: Duration,
}

impl Retries {
    pub(super) fn new(count: u64, first_rest: Duration) -> Self {
        Self {
            count,
            made: 0,
            first_rest,
            rest: first_rest,
            rest_max: first_rest.max(limits::RETRY_DELAY_MAX),
        }
    }

    /// How long to rest before the next try, at least as long as the server asked for; `None` if
    /// there is none left.
    pub(super) fn next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        if self.made == self.count {
            return None;
        }
        self.made += 1;
        let rest = self.rest;
        self.rest = (2 * rest).min(self.rest_max);
        let asked = asked.unwrap_or_default().min(limits::RETRY_AFTER_MAX);
        Some(rest.max(asked))
    }

    /// Something came: what failed before says nothing about the next try.
    pub(super) fn begin_anew(&mut self) {
        self.made = 0;
        self.rest = self.first_rest;
    }

    /// Which of the new tries is the next, of how many.
    pub(super) fn position(&self) -> (u64, u64) {
        (self.made, self.count)
    }
}

/// What `Retry-After` asks for, seconds or a date: RFC 9110, 10.2.3.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that no integer holds is longer than any limit.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let rest = date.duration_since(now).unwrap_or_default();
    // A date is in whole seconds.
    Some(Duration::from_secs(rest.as_millis().div_ceil(1000) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_doubles_up_to_its_limit() {
        let mut retries = Retries::new(7, Duration::from_secs(1));
        let rests: Vec<_> = std::iter::from_fn(|| retries.next(None)).collect();
        assert_eq!(rests, [1, 2, 4, 8, 16, 30, 30].map(Duration::from_secs));
        let mut slow = Retries::new(2, Duration::from_secs(3600));
        assert_eq!(slow.next(None), slow.next(None));
        assert_eq!(slow.next(None), None);
        retries.begin_anew();
        assert_eq!(retries.next(None), Some(Duration::from_secs(1)));
        assert_eq!(retries.position(), (1, 7));
    }

    #[test]
    fn a_server_may_ask_for_more_within_limits() {
        let mut retries = Retries::new(9, Duration::from_secs(8));
        for (asked, rest) in [(1, 8), (60, 60), (u64::MAX, 120)] {
            let next = retries.next(Some(Duration::from_secs(asked)));
            assert_eq!(next, Some(Duration::from_secs(rest)));
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let now = now - Duration::from_millis(1);
        for (value, expected) in [
            ("7", Some(7)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(61)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            let expected = expected.map(Duration::from_secs);
            assert_eq!(retry_after(&headers, now), expected, "{value}");
        }
    }
}
