//! A limit on how often a warning is written.

use std::time::Instant;

use crate::limits::WARNING_INTERVAL;

/// Allows one warning an interval: every client meets a shortage, and the log tells of it once.
#[derive(Clone, Copy, Debug, Default)]
pub struct RateLimit {
    last: Option<Instant>,
}

impl RateLimit {
    /// Whether the last allowed time is at least [`WARNING_INTERVAL`] ago; then `now` becomes the
    /// last one.
    pub fn allows(&mut self, now: Instant) -> bool {
        let is_over = |last| now.saturating_duration_since(last) >= WARNING_INTERVAL;
        let allows = self.last.is_none_or(is_over);
        if allows {
            self.last = Some(now);
        }
        allows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_an_interval() {
        let (start, mut limit) = (Instant::now(), RateLimit::default());
        let allowed: Vec<_> = (0..5)
            .map(|n| limit.allows(start + n * WARNING_INTERVAL / 2))
            .collect();
        assert_eq!(allowed, [true, false, true, false, true]);
    }
}
