//! Functions that an event loop calls when a mailbox is full.

use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use super::queue::LoopQueue;
use super::turn::Turn;
use super::wakes::Wake;
use crate::once::intern;

/// A function to be called in its event loop.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct Alarm {
    queue: Py<LoopQueue>,
    callback: Py<PyAny>,
}

impl Alarm {
    pub(crate) fn new(queue: Py<LoopQueue>, callback: Py<PyAny>) -> Self {
        Self { queue, callback }
    }

    /// Has the loop call the function, from any thread that is attached to Python.
    pub(crate) fn call_soon(&self, py: Python<'_>) -> PyResult<()> {
        let Some(event_loop) = self.queue.get().event_loop(py) else {
            return Ok(());
        };
        let called =
            event_loop.call_method1(intern!(py, "call_soon_threadsafe"), (&self.callback,));
        match called {
            // The loop was closed: nothing calls the function.
            Err(error) if error.is_instance_of::<PyRuntimeError>(py) => Ok(()),
            called => called.map(|_| ()),
        }
    }
}

impl Wake for Alarm {
    fn queue(&self) -> Option<&Py<LoopQueue>> {
        Some(&self.queue)
    }

    fn wake(slf: &Bound<'_, Self>, _: &Turn) -> PyResult<()> {
        slf.get().callback.call0(slf.py()).map(|_| ())
    }

    fn give_back(&self, _: Python<'_>) {}
}

#[pymethods]
impl Alarm {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.callback)
    }
}
