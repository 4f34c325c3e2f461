//! What an event loop is given to call.

use std::sync::atomic::{AtomicBool, Ordering};

use headrace_core::sync::Mutex;
use pyo3::exceptions::{PyAttributeError, PyNotImplementedError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::LoopQueue;

/// What `call_soon` is given. Dropped without being called, it asks whether the loop is gone, because some loops are closed
/// while an exception that passed through them keeps their bell; if it is not, the loop lost the call, and gets another.
#[pyclass(frozen)]
pub(super) struct Drain {
    queue: Py<LoopQueue>,
    called: AtomicBool,
    /// Raised in the loop by the call.
    interrupt: Mutex<Option<PyErr>>,
}

impl Drain {
    pub(super) fn call(
        queue: &Py<LoopQueue>,
        event_loop: &Bound<'_, PyAny>,
        method: &Bound<'_, PyString>,
        interrupt: Option<PyErr>,
    ) -> PyResult<()> {
        let py = event_loop.py();
        let drain = Self {
            queue: queue.clone_ref(py),
            called: AtomicBool::new(false),
            interrupt: Mutex::new(interrupt),
        };
        let drain = Bound::new(py, drain)?;
        let scheduled = event_loop.call_method1(method, (&drain,));
        if scheduled.is_err() {
            drain.get().called.store(true, Ordering::Relaxed);
        }
        scheduled.map(|_| ())
    }
}

#[pymethods]
impl Drain {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        self.called.store(true, Ordering::Relaxed);
        match self.interrupt.take() {
            Some(interrupt) => Err(interrupt),
            None => LoopQueue::drain(&self.queue, py),
        }
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        if !*self.called.get_mut() {
            Python::try_attach(|py| {
                if self.queue.get().is_gone(py) {
                    self.queue.get().close(py);
                } else {
                    LoopQueue::finish(&self.queue, py);
                }
            });
        }
    }
}

/// What `add_reader` is given, held by the loop alone.
#[pyclass(frozen)]
pub(super) struct Bell {
    queue: Py<LoopQueue>,
}

impl Bell {
    /// Gives the loop a bell at the end of the wire. A loop that takes none does without, and without a wire.
    pub(super) fn hang(
        queue: &Py<LoopQueue>,
        event_loop: &Bound<'_, PyAny>,
        descriptor: i32,
    ) -> PyResult<()> {
        let py = event_loop.py();
        let bell = Self {
            queue: queue.clone_ref(py),
        };
        // In a context of its own: the loop would keep that of the task which happened to wait first.
        let context = py.import("contextvars")?.getattr("Context")?.call0()?;
        let add_reader = event_loop.getattr(intern!(py, "add_reader"));
        let hung = add_reader
            .and_then(|add_reader| context.call_method1("run", (add_reader, descriptor, bell)));
        match hung {
            Ok(_) => queue.get().ready.has_bell.store(true, Ordering::Relaxed),
            Err(error) if cannot_read(py, &error) => drop(queue.get().ready.wire.take()),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

#[pymethods]
impl Bell {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        self.queue.get().ready.quiet_wire();
        // An exception that is kept keeps the frames that it passed through, and those keep what they called. The bell is to
        // be kept by the loop alone, so what interrupts it is raised from another call.
        match (
            LoopQueue::drain(&self.queue, py),
            self.queue.get().event_loop(py),
        ) {
            (Err(interrupt), Some(event_loop)) => Drain::call(
                &self.queue,
                &event_loop,
                intern!(py, "call_soon"),
                Some(interrupt),
            ),
            (drained, _) => drained,
        }
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        // A loop that refused the bell lives on without it.
        if self.queue.get().has_bell() {
            Python::try_attach(|py| self.queue.get().close(py));
        }
    }
}

fn cannot_read(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyNotImplementedError>(py)
        || error.is_instance_of::<PyAttributeError>(py)
}
