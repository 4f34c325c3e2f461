//! How long a receiver waits for a server's answer.

use std::time::Instant;

use pyo3::PyResult;

use crate::config::seconds;

/// How long a receiver that does not want to wait waits for the server's answer at most, in seconds.
const ROUND_TRIP: f64 = 0.25;

/// Until when a receiver with this timeout, in seconds, waits for the server's answer.
pub(super) fn patience(begun: Instant, timeout: Option<f64>) -> PyResult<Option<Instant>> {
    let Some(timeout) = timeout else {
        return Ok(None);
    };
    Ok(begun.checked_add(seconds(timeout.max(ROUND_TRIP))?))
}

/// What is left of a timeout. NaN stays NaN, to be refused.
pub(super) fn left(begun: Instant, timeout: Option<f64>) -> Option<f64> {
    timeout.map(|timeout| timeout - begun.elapsed().as_secs_f64())
}
