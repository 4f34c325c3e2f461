//! How long to wait before the next attempt to connect: exponential, with full jitter.
//!
//! Each wait is drawn from zero up to a limit that doubles from attempt to attempt. Processes that lost the same server
//! at the same moment thus come back spread over the whole span; a fixed part of the wait would only bunch them.

use std::time::Duration;

/// The waits between attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    /// Waits since the last success.
    attempt: u32,
}

impl Backoff {
    /// Waits of up to `first`, then up to twice that and so on, but never more than `most`.
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            attempt: 0,
        }
    }

    /// The wait before the next attempt, for a random number from 0 up to 1; a number outside counts as 1.
    pub(crate) fn next(&mut self, random: f64) -> Duration {
        let factor = 1_u32.checked_shl(self.attempt).unwrap_or(u32::MAX);
        let limit = self.first.saturating_mul(factor).min(self.most);
        self.attempt = self.attempt.saturating_add(1);
        let random = if (0.0..=1.0).contains(&random) {
            random
        } else {
            1.0
        };
        let wait = Duration::try_from_secs_f64(limit.as_secs_f64() * random);
        wait.map_or(limit, |wait| wait.min(limit))
    }

    /// Begins anew, after a success.
    pub(crate) fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn the_limit_doubles_up_to_the_most() {
        let mut backoff = Backoff::new(MS(50), MS(1000));
        let waits: Vec<_> = (0..7).map(|_| backoff.next(1.0)).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1000, 1000].map(MS));
        backoff.reset();
        assert_eq!(backoff.next(0.5), MS(25));
        assert_eq!(backoff.next(0.0), Duration::ZERO);
    }

    #[test]
    fn odd_numbers_make_no_odd_waits() {
        for odd in [f64::NAN, f64::INFINITY, -1.0, 2.0] {
            assert_eq!(Backoff::new(MS(50), MS(1000)).next(odd), MS(50));
        }
        let mut longest = Backoff::new(Duration::MAX, Duration::MAX);
        assert_eq!(longest.next(1.0), Duration::MAX);
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_its_limit(
            first in any::<Duration>(),
            most in any::<Duration>(),
            randoms in prop::collection::vec(0.0..1.0, 0..80),
        ) {
            let mut backoff = Backoff::new(first, most);
            let mut limit = first;
            for random in randoms {
                prop_assert!(backoff.next(random) <= limit.min(most));
                limit = limit.saturating_mul(2);
            }
        }
    }
}
