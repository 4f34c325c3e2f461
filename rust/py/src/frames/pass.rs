//! The writes of one turn of a loop, which are made together, with the interpreter's lock released.
//!
//! While a call of `drain` gives messages to sockets that need no Python, their frames are kept here, for this thread. They are
//! written before anything of Python's runs in it: so nothing overtakes a frame, nothing is sent behind a close, and no
//! socket is closed between the look at it and the write. They are also written when there are some dozens, so that a turn
//! that is to last a millisecond does.

use std::cell::{Cell, RefCell};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyBytesMethods};

use super::socket::{Write, send_all};
use crate::once::intern;

/// How many frames are written at once: about a quarter of a millisecond's work.
const MOST: usize = 64;

struct Queued {
    descriptor: i32,
    /// The transport of that socket, which holds nothing back.
    transport: Py<PyAny>,
    frame: Py<PyBytes>,
}

thread_local! {
    static PASS: RefCell<Vec<Queued>> = const { RefCell::new(Vec::new()) };
    static NUMBER: Cell<u64> = const { Cell::new(1) };
}

/// The number of the pass that frames are kept for, from 1 on: what was added to an earlier one has been written.
pub(super) fn number() -> u64 {
    NUMBER.get()
}

/// Adds a frame for a socket whose transport holds nothing back.
pub(super) fn push(
    descriptor: i32,
    transport: &Bound<'_, PyAny>,
    frame: &Bound<'_, PyBytes>,
) -> PyResult<()> {
    let queued = Queued {
        descriptor,
        transport: transport.clone().unbind(),
        frame: frame.clone().unbind(),
    };
    let waiting = PASS.with_borrow_mut(|pass| {
        pass.push(queued);
        pass.len()
    });
    if waiting < MOST {
        return Ok(());
    }
    flush(transport.py())
}

/// Writes what waits. What the system does not take goes to the transports.
///
/// # Errors
/// The first of those that transports have raised; all frames have been given away.
pub(crate) fn flush(py: Python<'_>) -> PyResult<()> {
    let pass = PASS.take();
    if pass.is_empty() {
        return Ok(());
    }
    NUMBER.set(number() + 1);
    let writes: Vec<Write<'_>> = pass
        .iter()
        .map(|queued| (queued.descriptor, queued.frame.as_bytes(py)))
        .collect();
    let taken = py.detach(|| send_all(&writes));
    let mut flushed = Ok(());
    for (queued, taken) in pass.iter().zip(taken) {
        let frame = queued.frame.bind(py);
        if taken < frame.as_bytes().len() {
            flushed = flushed.and(hand_over(queued.transport.bind(py), frame, taken));
        }
    }
    flushed
}

/// Gives a transport what of a frame has not been written.
pub(super) fn hand_over(
    transport: &Bound<'_, PyAny>,
    frame: &Bound<'_, PyBytes>,
    taken: usize,
) -> PyResult<()> {
    let py = frame.py();
    let left = match frame.as_bytes().get(taken..) {
        Some(left) if taken > 0 => &PyBytes::new(py, left),
        _ => frame,
    };
    transport.call_method1(intern!(py, "write"), (left,))?;
    Ok(())
}
