//! How a thread waits: detached from Python, and by turns attached to look for signals.

use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::greenlets;

/// How long a thread sleeps before it looks for signals again.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(50);

/// Sleeps until woken or until the time is over. `asleep` sleeps for a time and returns whether it was woken. The exception
/// of a signal handler ends it.
pub(crate) fn sleep(
    py: Python<'_>,
    end: Option<Instant>,
    asleep: impl Fn(Duration) -> bool + Sync,
) -> PyResult<bool> {
    if let Some(woken) = greenlets::wait(py, end, || asleep(Duration::ZERO))? {
        return Ok(woken);
    }
    loop {
        let left = end.map_or(Duration::MAX, |end| {
            end.saturating_duration_since(Instant::now())
        });
        if py.detach(|| asleep(left.min(SIGNAL_INTERVAL))) {
            return Ok(true);
        }
        py.check_signals()?;
        if left.is_zero() {
            return Ok(false);
        }
    }
}
