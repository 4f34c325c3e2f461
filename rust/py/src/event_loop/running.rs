//! Which event loop runs in this thread.

use std::cell::Cell;

use pyo3::prelude::*;

use crate::once::Once;

thread_local! {
    /// The address of the loop whose queue is being drained in this thread, or 0.
    static DRAINED: Cell<usize> = const { Cell::new(0) };
}

/// The loop that runs in this thread, as far as that is known without asking asyncio, which makes a system call to find
/// out whether the process has forked: a task that `drain` woke runs in the loop that called `drain`.
pub(crate) fn drained_loop() -> Option<usize> {
    let address = DRAINED.get();
    (address != 0).then_some(address)
}

/// Marks a loop as the one that is drained in this thread, until it is dropped.
pub(super) struct Draining {
    before: usize,
}

impl Draining {
    pub(super) fn new(address: usize) -> Self {
        Self {
            before: DRAINED.replace(address),
        }
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        DRAINED.set(self.before);
    }
}

/// Forgets the loop that is drained: the child of a fork that a task made does not run that loop.
pub(super) fn forget_drained() {
    DRAINED.set(0);
}

/// The event loop that runs in this thread.
///
/// # Errors
/// `RuntimeError`: there is none.
pub(crate) fn running_loop(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static RUNNING: Once<Py<PyAny>> = Once::new();
    RUNNING.import(py, "asyncio", "get_running_loop")?.call0()
}

/// The event loop that runs in this thread, or None.
fn current(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static RUNNING: Once<Py<PyAny>> = Once::new();
    RUNNING.import(py, "asyncio", "_get_running_loop")?.call0()
}

/// Whether any loop runs in this thread.
pub(crate) fn is_running(py: Python<'_>) -> bool {
    current(py).is_ok_and(|running| !running.is_none())
}

/// Whether this loop runs in this thread, and is in the middle of a call. Anywhere else it has to be woken.
pub(super) fn runs_here(event_loop: &Bound<'_, PyAny>) -> bool {
    match drained_loop() {
        Some(drained) => drained == address(event_loop),
        None => current(event_loop.py()).is_ok_and(|running| running.is(event_loop)),
    }
}

/// The address of an object, by which a loop is known as long as it lives.
pub(crate) fn address(object: &Bound<'_, PyAny>) -> usize {
    object.as_ptr() as usize
}
