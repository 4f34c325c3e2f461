//! Time, as an input. This is the only file that asks the machine what time it is.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coarsetime::Instant;

/// A point on a clock that never goes back, in nanoseconds since that clock began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    /// The moment `span` later; the end of time if that is too far to count.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanoseconds(span)))
    }

    /// How long ago `earlier` was; zero if it is still to come.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Tells the time to an engine. Two calls never go back.
pub trait Clock: Debug + Send + Sync {
    /// The present moment.
    fn now(&self) -> Moment;
}

/// The machine's monotonic clock, as coarse as the system's timer: some milliseconds.
#[derive(Debug)]
pub struct MonotonicClock {
    start: Instant,
}

impl Default for MonotonicClock {
    fn default() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Clock for MonotonicClock {
    fn now(&self) -> Moment {
        Moment(self.start.elapsed().as_nanos())
    }
}

/// The time since the Unix epoch, as this machine has it. It is set now and then: nothing may be measured with it.
#[cfg(feature = "redis")]
pub(crate) fn wall_time() -> Duration {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default()
}

/// A clock that stands still until it is told to move, for tests.
#[derive(Debug, Default)]
pub struct ManualClock {
    nanoseconds: AtomicU64,
}

impl ManualClock {
    /// Moves the clock forward.
    pub fn advance(&self, span: Duration) {
        let later = |now: u64| Some(now.saturating_add(nanoseconds(span)));
        // The closure always gives a value, so this cannot fail.
        let _ = self
            .nanoseconds
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, later);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Moment {
        Moment(self.nanoseconds.load(Ordering::SeqCst))
    }
}

impl<C: Clock + ?Sized> Clock for std::sync::Arc<C> {
    fn now(&self) -> Moment {
        (**self).now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_too_far_away_is_the_end_of_time() {
        let end = Moment::default().after(Duration::MAX);
        assert_eq!(end, end.after(Duration::from_secs(1)));
        assert_eq!(Moment::default().since(end), Duration::ZERO);
    }

    #[test]
    fn the_monotonic_clock_does_not_go_back() {
        let clock = MonotonicClock::default();
        let first = clock.now();
        assert!(clock.now() >= first);
    }
}
