//! The writes of one turn of a loop, which are made together, with the interpreter's lock released.
//!
//! While a call of `drain` gives messages to sockets that need no Python, their frames are kept here, for this thread. They are
//! written before anything of Python's runs in it: so nothing overtakes a frame, nothing is sent behind a close, and no
//! socket is closed between the look at it and the write. They are also written when there are some dozens, so that a turn
//! that is to last a millisecond does.

use std::cell::RefCell;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyBytesMethods};

use super::FrameWriter;
use super::socket::{Write, send_all};
use crate::once::intern;

/// How many frames are written at once: about a quarter of a millisecond's work.
const MOST: usize = 64;

struct Queued {
    /// Whose transport holds nothing back.
    writer: Py<FrameWriter>,
    descriptor: i32,
    frame: Py<PyBytes>,
}

thread_local! {
    static PASS: RefCell<Vec<Queued>> = const { RefCell::new(Vec::new()) };
}

/// Adds a frame for a socket whose transport holds nothing back.
pub(super) fn push(
    writer: &Bound<'_, FrameWriter>,
    descriptor: i32,
    frame: &Bound<'_, PyBytes>,
) -> PyResult<()> {
    let queued = Queued {
        writer: writer.clone().unbind(),
        descriptor,
        frame: frame.clone().unbind(),
    };
    let waiting = PASS.with_borrow_mut(|pass| {
        pass.push(queued);
        pass.len()
    });
    if waiting < MOST {
        return Ok(());
    }
    flush(writer.py())
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
    let writes: Vec<Write<'_>> = pass
        .iter()
        .map(|queued| (queued.descriptor, queued.frame.as_bytes(py)))
        .collect();
    let taken = py.detach(|| send_all(&writes));
    let mut flushed = Ok(());
    for (queued, taken) in pass.iter().zip(taken) {
        let (own, frame) = (queued.writer.get(), queued.frame.bind(py));
        own.note_flushed();
        if taken < frame.as_bytes().len() {
            flushed = flushed.and(hand_over(own.transport(py), frame, taken));
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
