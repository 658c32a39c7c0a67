//! When a failed try is worth another: a delay that doubles, and what the server asks for.

use std::thread;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::RETRY_AFTER;

use crate::failure::Failure;
use crate::{limits, units};

/// Why a try failed, and whether another is worth it.
#[derive(Debug)]
pub(super) enum FetchError {
    /// It would be the same again.
    Permanent(Failure),
    /// It may be better later; the server may have said after how long.
    Transient(Failure, Option<Duration>),
}

impl From<Failure> for FetchError {
    fn from(failure: Failure) -> Self {
        Self::Permanent(failure)
    }
}

impl From<FetchError> for Failure {
    fn from(trouble: FetchError) -> Self {
        let (FetchError::Permanent(failure) | FetchError::Transient(failure, _)) = trouble;
        failure
    }
}

/// How many new tries there may be without progress, and the delay before the next.
#[derive(Debug)]
pub(super) struct Backoff {
    retries_max: u64,
    retries: u64,
    first_delay: Duration,
    delay: Duration,
    delay_max: Duration,
}

impl Backoff {
    pub(super) fn new(retries_max: u64, first_delay: Duration) -> Self {
        Self {
            retries_max,
            retries: 0,
            first_delay,
            delay: first_delay,
            delay_max: first_delay.max(limits::RETRY_DELAY_MAX),
        }
    }

    /// How long to wait before the next try, at least as long as the server asked for; `None` if
    /// there is none left.
    fn next(&mut self, retry_after: Option<Duration>) -> Option<Duration> {
        if self.retries == self.retries_max {
            return None;
        }
        self.retries += 1;
        let delay = self.delay;
        self.delay = (2 * delay).min(self.delay_max);
        let retry_after = retry_after.unwrap_or_default().min(limits::RETRY_AFTER_MAX);
        Some(delay.max(retry_after))
    }

    /// Bytes came: what failed before says nothing about the next try.
    pub(super) fn reset(&mut self) {
        self.retries = 0;
        self.delay = self.first_delay;
    }

    /// Rests before the next try, after it has told of it; the failure if there is no other try, or
    /// if so little time is left.
    pub(super) fn rest(
        &mut self,
        failure: Failure,
        retry_after: Option<Duration>,
        left: Option<Duration>,
        tell: impl FnOnce(&str),
    ) -> Result<(), Failure> {
        let is_in_time = |delay: &Duration| left.is_none_or(|left| *delay < left);
        let Some(delay) = self.next(retry_after).filter(is_in_time) else {
            return Err(failure);
        };
        let (line, nth, count) = (failure.line, self.retries, self.retries_max);
        let time = units::duration(delay);
        tell(&format!(
            "{line}; trying again in {time} ({nth} of {count})"
        ));
        thread::sleep(delay);
        Ok(())
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
    let wait = date.duration_since(now).unwrap_or_default();
    // A date is in whole seconds.
    let whole_second = u64::from(wait.subsec_millis() > 0);
    Some(Duration::from_secs(wait.as_secs() + whole_second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_up_to_its_limit() {
        let mut backoff = Backoff::new(7, Duration::from_secs(1));
        let delays: Vec<_> = std::iter::from_fn(|| backoff.next(None)).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30].map(Duration::from_secs));
        let mut slow = Backoff::new(2, Duration::from_secs(3600));
        assert_eq!(slow.next(None), slow.next(None));
        assert_eq!(slow.next(None), None);
        backoff.reset();
        assert_eq!(backoff.next(None), Some(Duration::from_secs(1)));
        let mut told = String::new();
        let failure = || Failure::new(crate::failure::Exit::Network, "broken");
        let mut rest = |left| backoff.rest(failure(), None, left, |line| told.push_str(line));
        assert_eq!(
            rest(Some(Duration::from_secs(2))).unwrap_err().line,
            "broken"
        );
        assert_eq!(told, "");
        let mut quick = Backoff::new(2, Duration::ZERO);
        quick
            .rest(failure(), None, None, |line| told.push_str(line))
            .unwrap();
        assert_eq!(told, "broken; trying again in 0s (1 of 2)");
    }

    #[test]
    fn a_server_may_ask_for_more_within_limits() {
        let mut backoff = Backoff::new(9, Duration::from_secs(8));
        for (asked, delay) in [(1, 8), (60, 60), (u64::MAX, 120)] {
            let next = backoff.next(Some(Duration::from_secs(asked)));
            assert_eq!(next, Some(Duration::from_secs(delay)));
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
