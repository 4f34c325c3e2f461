//! What an event loop is given to call: `Drain` by `call_soon`, `PipeReader` by `add_reader`.

use std::sync::atomic::{AtomicBool, Ordering};

use headrace_core::sync::Mutex;
use pyo3::exceptions::{PyAttributeError, PyNotImplementedError};
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::queue::LoopQueue;
use super::running::runs_here;
use super::self_pipe::SelfPipe;
use crate::frames::flush;
use crate::once::intern;

/// The queue of a loop, which is made if it has none yet; for a task of that loop that is about to wait.
pub(crate) fn queue_of(event_loop: &Bound<'_, PyAny>) -> PyResult<Py<LoopQueue>> {
    if let Some(queue) = LoopQueue::find(event_loop) {
        return Ok(queue);
    }
    let py = event_loop.py();
    let pipe = SelfPipe::new()?;
    let descriptor = pipe.as_ref().map(SelfPipe::descriptor);
    let queue = Py::new(py, LoopQueue::new(event_loop, pipe)?)?;
    if let Some(descriptor) = descriptor {
        PipeReader::register(&queue, event_loop, descriptor)?;
    }
    LoopQueue::register(&queue, py);
    Ok(queue)
}

/// Schedules one call of `drain`.
///
/// A loop's `call_soon` may be Python, and a signal handler may raise in it: then the pipe is written to, and the exception
/// goes to the caller. Only a loop that is really gone is treated as gone.
pub(super) fn schedule_drain(handle: &Py<LoopQueue>, py: Python<'_>) -> PyResult<()> {
    let queue = handle.get();
    let Some(event_loop) = queue.event_loop(py) else {
        queue.close(py);
        return Ok(());
    };
    let here = runs_here(&event_loop);
    if !here && queue.ready.notify() {
        return Ok(());
    }
    let method = if here {
        intern!(py, "call_soon")
    } else {
        intern!(py, "call_soon_threadsafe")
    };
    let called = Drain::call(handle, &event_loop, method, None);
    if called.is_ok() {
        return called;
    }
    if queue.is_gone(py) {
        queue.close(py);
        return Ok(());
    }
    if !queue.ready.notify() {
        queue.give_up();
    }
    called
}

/// Wakes what is in the queue now, as long as the turn lasts; the rest is woken in the loop's next turn.
fn drain(queue: &Py<LoopQueue>, py: Python<'_>) -> PyResult<()> {
    let _draining = queue.get().draining();
    let drained = queue.get().wake_all(py);
    let drained = drained.and(flush(py));
    end_drain(queue, py);
    drained
}

/// Ends one call of `drain`, and schedules another if there is more to do.
fn end_drain(queue: &Py<LoopQueue>, py: Python<'_>) {
    if queue.get().end_drain() {
        // There is no caller to raise it in.
        if let Err(error) = schedule_drain(queue, py) {
            error.write_unraisable(py, None);
        }
    }
}

/// What `call_soon` is given. If it is dropped without being called, either the loop is gone (some loops are closed while an
/// exception that passed through them keeps their reader), or it lost the call, which is then made again.
#[pyclass(frozen)]
pub(crate) struct Drain {
    queue: Py<LoopQueue>,
    called: AtomicBool,
    /// Raised in the loop by the call.
    exception: Mutex<Option<PyErr>>,
}

impl Drain {
    fn call(
        queue: &Py<LoopQueue>,
        event_loop: &Bound<'_, PyAny>,
        method: &Bound<'_, PyString>,
        exception: Option<PyErr>,
    ) -> PyResult<()> {
        let py = event_loop.py();
        let drain = Self {
            queue: queue.clone_ref(py),
            called: AtomicBool::new(false),
            exception: Mutex::new(exception),
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
        match self.exception.take() {
            Some(exception) => Err(exception),
            None => drain(&self.queue, py),
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
                    end_drain(&self.queue, py);
                }
            });
        }
    }
}

/// What `add_reader` is given, held by the loop alone.
#[pyclass(frozen)]
pub(crate) struct PipeReader {
    queue: Py<LoopQueue>,
}

impl PipeReader {
    /// Has the loop read the pipe. A loop that cannot read has no reader, and no pipe.
    fn register(
        queue: &Py<LoopQueue>,
        event_loop: &Bound<'_, PyAny>,
        descriptor: i32,
    ) -> PyResult<()> {
        let py = event_loop.py();
        let reader = Self {
            queue: queue.clone_ref(py),
        };
        // In a context of its own: the loop would keep that of the task which happened to wait first.
        let context = py.import("contextvars")?.getattr("Context")?.call0()?;
        let add_reader = event_loop.getattr(intern!(py, "add_reader"));
        let added = add_reader
            .and_then(|add_reader| context.call_method1("run", (add_reader, descriptor, reader)));
        match added {
            Ok(_) => queue.get().ready.has_reader.store(true, Ordering::Relaxed),
            Err(error) if cannot_read(py, &error) => drop(queue.get().ready.pipe.take()),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

#[pymethods]
impl PipeReader {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        self.queue.get().ready.clear_pipe();
        // A reference to an exception keeps its frames alive, and what those called. Only the loop may keep the reader, so its
        // exception is raised from another call.
        match (drain(&self.queue, py), self.queue.get().event_loop(py)) {
            (Err(exception), Some(event_loop)) => Drain::call(
                &self.queue,
                &event_loop,
                intern!(py, "call_soon"),
                Some(exception),
            ),
            (drained, _) => drained,
        }
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        // A loop that refused the reader lives on without it.
        if self.queue.get().has_reader() {
            Python::try_attach(|py| self.queue.get().close(py));
        }
    }
}

fn cannot_read(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyNotImplementedError>(py)
        || error.is_instance_of::<PyAttributeError>(py)
}
