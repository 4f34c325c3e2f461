//! A channel's messages as an asynchronous iterator, with nothing allocated between two messages.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Mutex;

use pyo3::exceptions::PyStopAsyncIteration;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::awaitable::Waiter;
use crate::event_loop::{lock, running_loop};
use crate::layer::MemoryLayer;
use crate::stub::NextMessage;

/// The messages of one channel: `async for message in inbox`, or `await anext(inbox)`, by one task at a time.
///
/// Cancelling loses nothing. It ends when its subscription does, and raises `LayerClosed` when the layer is closed. To race
/// it against something else, give `asyncio.ensure_future` the `anext(inbox)`.
#[pyclass(frozen, module = "headrace")]
#[derive(Debug)]
pub(crate) struct Inbox {
    layer: Py<MemoryLayer>,
    /// The channel's name.
    #[pyo3(get)]
    channel: Py<PyString>,
    /// Made when the first message is awaited, in the loop that awaits it.
    waiter: Mutex<Option<Py<Waiter>>>,
    /// Set at the end of the subscription.
    ended: AtomicBool,
}

impl Inbox {
    pub(crate) fn new(layer: Py<MemoryLayer>, channel: Py<PyString>) -> Self {
        Self {
            layer,
            channel,
            waiter: Mutex::default(),
            ended: AtomicBool::new(false),
        }
    }
}

#[pymethods]
impl Inbox {
    fn __aiter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __anext__(&self, py: Python<'_>) -> PyResult<NextMessage> {
        if self.ended.load(Ordering::Relaxed) {
            return Err(PyStopAsyncIteration::new_err(()));
        }
        let kept = lock(&self.waiter)
            .as_ref()
            .map(|waiter| waiter.clone_ref(py));
        if let Some(waiter) = kept.filter(|waiter| waiter.get().is_of_use()) {
            return Ok(NextMessage(waiter));
        }
        let waiter = Waiter::new(
            self.layer.bind(py),
            self.channel.bind(py),
            &running_loop(py)?,
            true,
        )?;
        let waiter = Py::new(py, waiter)?;
        let spent = lock(&self.waiter).replace(waiter.clone_ref(py));
        drop(spent);
        Ok(NextMessage(waiter))
    }

    /// End the iteration: whoever waits for the next message is told that there is none.
    fn end(&self, py: Python<'_>) -> PyResult<()> {
        self.ended.store(true, Ordering::Relaxed);
        let waiter = lock(&self.waiter).take();
        waiter.map_or(Ok(()), |waiter| Waiter::end_wait(waiter, py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.layer)?;
        match self.waiter.try_lock() {
            Ok(waiter) => visit.call(&*waiter),
            Err(_) => Ok(()),
        }
    }

    fn __clear__(&self) {
        let waiter = lock(&self.waiter).take();
        drop(waiter);
    }
}
