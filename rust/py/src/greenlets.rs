//! Waiting in a process whose threads are greenlets: gevent and eventlet replace `threading`, and all threads of a program
//! are greenlets of one. A wait that blocks that thread blocks them all, and most often the one that it waits for.

use std::time::{Duration, Instant};

use pyo3::prelude::*;

/// The first pause between two polls, and the longest. The pauses double, so a wait takes at most twice as long as needed, or
/// the longest pause more.
const FIRST: Duration = Duration::from_micros(200);
const LONGEST: Duration = Duration::from_millis(25);

/// The `time.sleep` that gives other greenlets their turn, if this process has been patched.
///
/// It is looked up each time: a process may be patched after this was called first.
fn patched_sleep(py: Python<'_>) -> Option<Bound<'_, PyAny>> {
    let sleep = py.import("time").ok()?.getattr("sleep").ok()?;
    let module = sleep.getattr("__module__").ok()?;
    let module: String = module.extract().ok()?;
    let patched = ["gevent.", "eventlet."].map(|name| module.starts_with(name));
    patched.contains(&true).then_some(sleep)
}

/// Whether gevent or eventlet has made greenlets of this process's threads.
#[pyfunction]
pub(crate) fn threads_are_greenlets(py: Python<'_>) -> bool {
    patched_sleep(py).is_some()
}

/// Polls until it is there or the time is over, and lets other greenlets run in between; returns whether it is there. None if
/// this process has threads.
pub(crate) fn wait(
    py: Python<'_>,
    end: Option<Instant>,
    is_there: impl Fn() -> bool,
) -> PyResult<Option<bool>> {
    let Some(sleep) = patched_sleep(py) else {
        return Ok(None);
    };
    let mut pause = FIRST;
    while !is_there() {
        let left = end.map_or(LONGEST, |end| end.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return Ok(Some(false));
        }
        sleep.call1((pause.min(left).as_secs_f64(),))?;
        pause = (pause * 2).min(LONGEST);
    }
    Ok(Some(true))
}
