//! Turns: what runs between two polls of an event loop for its sockets and other tasks.
//!
//! A loop cannot interrupt what it has called. A call of `drain` that wakes one task after the other, and a task that finds
//! one message after the other, keep it from its other work; so both give way after about a millisecond. A task can end its
//! turn earlier, where what its handler has started is to run before it handles the next message.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a turn may last.
const BUDGET: Duration = Duration::from_micros(800);

/// The part of a call of `drain` that is for waiters of one kind.
#[derive(Debug)]
pub(crate) struct Turn(Instant);

impl Turn {
    pub(super) fn begin() -> Self {
        Self(Instant::now())
    }

    /// Whether it has lasted long enough.
    pub(crate) fn is_over(&self) -> bool {
        self.0.elapsed() >= BUDGET
    }
}

/// When the task at an inbox began to find its messages without waiting. Only the thread of its loop looks at it.
///
/// 0 means rested, 1 means ended, any other value is a time in nanoseconds since the loop's start. One integer, because there may
/// be a million of these.
#[derive(Debug, Default)]
pub(crate) struct Pace(AtomicU64);

/// The loop had a turn since the task's last message.
const RESTED: u64 = 0;
/// The task has ended its turn.
const ENDED: u64 = 1;

impl Pace {
    /// Notes that the loop has a turn before the task's next message.
    pub(crate) fn rest(&self) {
        self.0.store(RESTED, Ordering::Relaxed);
    }

    /// Ends the turn of the task, however short it was.
    pub(crate) fn end(&self) {
        self.0.store(ENDED, Ordering::Relaxed);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.0.load(Ordering::Relaxed) == ENDED
    }

    /// Whether the loop is to have a turn before the task gets a message that is there already, so long after the loop's start.
    pub(crate) fn is_over(&self, elapsed: Duration) -> bool {
        let now = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        match self.0.load(Ordering::Relaxed) {
            RESTED => {
                self.0.store(now.max(ENDED + 1), Ordering::Relaxed);
                false
            }
            ENDED => true,
            began => u128::from(now.saturating_sub(began)) >= BUDGET.as_nanos(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Pace;

    fn is_over(pace: &Pace, microseconds: u64) -> bool {
        pace.is_over(Duration::from_micros(microseconds))
    }

    #[test]
    fn a_task_that_goes_on_for_as_long_as_a_turn_gives_way() {
        let pace = Pace::default();
        assert!(!is_over(&pace, 5000));
        assert!(!is_over(&pace, 5000));
        assert!(!is_over(&pace, 5799));
        assert!(is_over(&pace, 5800));
        pace.rest();
        assert!(!is_over(&pace, 5800));
        assert!(!is_over(&pace, 6599));
        assert!(is_over(&pace, 6600));
    }

    #[test]
    fn a_task_can_begin_when_the_loop_does() {
        let pace = Pace::default();
        assert!(!is_over(&pace, 0));
        assert!(!pace.has_ended());
        assert!(!is_over(&pace, 800));
        assert!(is_over(&pace, 801));
    }

    #[test]
    fn a_turn_that_was_ended_is_over_until_the_loop_has_had_one() {
        let pace = Pace::default();
        pace.end();
        assert!(pace.has_ended());
        assert!(is_over(&pace, 0));
        pace.rest();
        assert!(!pace.has_ended());
        assert!(!is_over(&pace, 0));
    }
}
