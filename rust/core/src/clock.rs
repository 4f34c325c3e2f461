//! Time, as an input. This is the only file that reads the machine's clocks.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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

/// The clock of an engine. Two calls of one method never go back.
pub trait Clock: Debug + Send + Sync {
    /// The present moment, or one that was less than `LAG` ago.
    fn now(&self) -> Moment;

    /// The present moment, for a deadline that is too near for `now`.
    fn exact(&self) -> Moment {
        self.now()
    }

    /// Whether the deadline has come.
    fn reached(&self, deadline: Moment) -> bool {
        let left = deadline.since(self.now());
        left.is_zero() || (left < LAG && deadline <= self.exact())
    }
}

/// More than the coarsest timer of a system is behind: that of 100 Hz.
const LAG: Duration = Duration::from_millis(11);

/// The machine's monotonic clock.
#[derive(Debug, Default)]
pub struct MonotonicClock(machine::Clock);

impl Clock for MonotonicClock {
    fn now(&self) -> Moment {
        Moment(self.0.coarse())
    }

    fn exact(&self) -> Moment {
        Moment(self.0.exact())
    }
}

/// The system keeps a coarse clock beside the exact one, on the same scale. It is read in a fraction of the time.
#[cfg(target_os = "linux")]
mod machine {
    use rustix::time::{ClockId, clock_gettime};

    #[derive(Debug, Default)]
    pub(super) struct Clock;

    impl Clock {
        #[expect(clippy::unused_self, reason = "that of other systems has a beginning")]
        pub(super) fn coarse(&self) -> u64 {
            read(ClockId::MonotonicCoarse)
        }

        #[expect(clippy::unused_self, reason = "that of other systems has a beginning")]
        pub(super) fn exact(&self) -> u64 {
            read(ClockId::Monotonic)
        }
    }

    fn read(clock: ClockId) -> u64 {
        let time = clock_gettime(clock);
        // The system's monotonic clock begins at zero.
        let part = |part: i64| u64::try_from(part).unwrap_or_default();
        part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
    }
}

#[cfg(not(target_os = "linux"))]
mod machine {
    use std::time::Instant;

    #[derive(Debug)]
    pub(super) struct Clock(Instant);

    impl Default for Clock {
        fn default() -> Self {
            Self(Instant::now())
        }
    }

    impl Clock {
        pub(super) fn coarse(&self) -> u64 {
            self.exact()
        }

        pub(super) fn exact(&self) -> u64 {
            super::nanoseconds(self.0.elapsed())
        }
    }
}

/// The time since the Unix epoch, as this machine has it. It is set now and then: nothing may be measured with it.
pub fn wall_time() -> Duration {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default()
}

/// A clock that moves only by `advance`, for tests.
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

    fn exact(&self) -> Moment {
        (**self).exact()
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
        let first = clock.exact();
        assert!(clock.exact() >= first);
    }

    #[test]
    fn the_coarse_clock_is_behind_the_exact_one_by_less_than_the_lag() {
        let clock = MonotonicClock::default();
        let until = clock.exact().after(3 * LAG);
        let mut now = clock.exact();
        while now < until {
            let before = clock.exact();
            let coarse = clock.now();
            now = clock.exact();
            assert!(coarse <= now);
            // A thread that did not run between the readings proves nothing.
            if now.since(before) < Duration::from_millis(1) {
                assert!(now.since(coarse) < LAG);
            }
        }
    }

    /// A clock whose `now` is some milliseconds behind, as a coarse one is.
    #[derive(Debug)]
    struct Behind(Moment);

    impl Clock for Behind {
        fn now(&self) -> Moment {
            Moment(self.0.0 - nanoseconds(Duration::from_millis(4)))
        }

        fn exact(&self) -> Moment {
            self.0
        }
    }

    #[test]
    fn a_deadline_is_reached_when_its_exact_moment_has_come() {
        let moment = Moment::default().after(Duration::from_secs(1));
        let before = Moment(moment.0 - 1);
        assert!(Behind(moment).reached(moment));
        assert!(!Behind(before).reached(moment));
        assert!(!Behind(moment).reached(moment.after(LAG)));
    }
}
