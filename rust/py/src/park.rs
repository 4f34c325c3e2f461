//! How a task is parked while it waits, and how it is resumed. What it waits for is not known here.
//!
//! A task parks on a future, and `Future.set_result` makes a handle for it, which the loop runs in its turn: for a group
//! of a thousand that is a thousand handles. Here the task parks on an exact asyncio future too, so it waits, is cancelled
//! and is inspected like any other. But that future is never resolved. When there is something for the task, one callback of
//! the loop, for a whole batch of tasks, takes each task's wake-up off its future and calls it, in the task's
//! context, just as the handle would have done. The future stays pending and serves the next wait.
//!
//! That is done where the wake-up is the one of asyncio's own task, in C, and the future has no other callback. Any other
//! task gets its future resolved the ordinary way; and so does every task of a layer with `wake="future"`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use headrace_core::sync::Mutex;
use pyo3::exceptions::{PyException, PyRuntimeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyCFunction, PyDict, PyList, PyTuple};

use crate::event_loop::LoopQueue;
use crate::frames::flush;
use crate::locks::refer;
use crate::once::{Once, intern};

/// Where one task at a time is parked.
#[derive(Debug)]
pub(crate) struct Park {
    /// The queue of the task's loop.
    queue: Py<LoopQueue>,
    /// Whether the task's wake-up is called, where that is possible; else its future is resolved.
    direct: bool,
    /// Whether a task is parked: its next step must find what it waits for.
    parked: AtomicBool,
    /// What the task is parked on, made by the first wait.
    future: OnceLock<Py<PyAny>>,
    /// The wake-up of the task that is parked, and its context, as long as it is parked: known from the last time.
    wake_up: Mutex<Option<WakeUp>>,
    /// Set when the future was cancelled or resolved: it serves no further wait.
    spent: AtomicBool,
}

impl Park {
    pub(crate) fn new(queue: Py<LoopQueue>, direct: bool) -> Self {
        Self {
            queue,
            direct,
            parked: AtomicBool::new(false),
            future: OnceLock::new(),
            wake_up: Mutex::default(),
            spent: AtomicBool::new(false),
        }
    }

    pub(crate) fn queue(&self) -> &Py<LoopQueue> {
        &self.queue
    }

    /// Whether it may serve another wait, as far as is known.
    pub(crate) fn is_of_use(&self) -> bool {
        !self.is_spent() && !self.queue.get().is_closed()
    }

    /// Whether it may serve another wait of a task of the loop at this address.
    pub(crate) fn serves(&self, event_loop: usize) -> bool {
        self.queue.get().is_at(event_loop) && !self.is_spent()
    }

    /// Whether it serves no further wait.
    pub(crate) fn is_spent(&self) -> bool {
        self.spent.load(Ordering::Relaxed)
    }

    /// Ends the wait for good: the task was cancelled, or goes on without what it waited for.
    pub(crate) fn spend(&self) {
        self.spent.store(true, Ordering::Relaxed);
        drop(self.wake_up.take());
    }

    /// Whether a task is parked.
    pub(crate) fn is_taken(&self) -> bool {
        self.parked.load(Ordering::Relaxed)
    }

    /// Begins another wait, for which no task is parked yet.
    pub(crate) fn vacate(&self) {
        self.parked.store(false, Ordering::Relaxed);
    }

    /// Parks the task that is about to wait: returns the future that it yields.
    pub(crate) fn park<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.parked.store(true, Ordering::Relaxed);
        let future = if let Some(future) = self.future.get() {
            future.bind(py).clone()
        } else {
            let future = self
                .event_loop(py)?
                .call_method0(intern!(py, "create_future"))?;
            self.future.get_or_init(|| future.unbind()).bind(py).clone()
        };
        future.setattr(
            intern!(py, "_asyncio_future_blocking"),
            PyBool::new(py, true),
        )?;
        Ok(future)
    }

    /// Whether the task that is parked is known, and would be resumed directly.
    pub(crate) fn knows_task(&self) -> bool {
        self.wake_up.with(|known| known.is_some())
    }

    /// The context of the task that is parked, if the task is known, would be resumed directly, and has not been cancelled.
    pub(crate) fn context(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let Some(future) = self.future.get().filter(|_| self.direct) else {
            return Ok(None);
        };
        if is_done(future.bind(py))? {
            return Ok(None);
        }
        Ok(refer(py, &self.wake_up, |known| {
            known.as_ref().map(|wake_up| &wake_up.context)
        }))
    }

    /// Resumes the task that is parked, if one is; to be called by the loop, and by no task. `waits` returns
    /// afterwards whether there is another wait here.
    ///
    /// An exception goes to the loop's handler, as it would from a handle; what is to end the loop (`KeyboardInterrupt`,
    /// `SystemExit`) is returned.
    pub(crate) fn resume(&self, py: Python<'_>, waits: impl FnOnce() -> bool) -> PyResult<()> {
        // The task may send to a socket that a frame waits for.
        let flushed = flush(py);
        flushed.and(self.resume_parked(py, waits))
    }

    fn resume_parked(&self, py: Python<'_>, waits: impl FnOnce() -> bool) -> PyResult<()> {
        // A task that was never parked is about to find by itself what it waits for.
        let Some(future) = self.future.get() else {
            return Ok(());
        };
        let future = future.bind(py);
        if self.direct {
            let known = match self.wake_up.take() {
                Some(known) if known.detach(future)? => Some(known),
                _ => learn(future)?,
            };
            if let Some(wake_up) = known {
                let resumed = self.call(py, &wake_up);
                // The same task waits again: it will be woken the same way. Any other has gone, and is not to be kept.
                if self.is_taken() && waits() && !wake_up.has_finished(py) {
                    drop(self.wake_up.replace(wake_up));
                }
                return resumed;
            }
        }
        self.resolve(future)
    }

    fn call(&self, py: Python<'_>, wake_up: &WakeUp) -> PyResult<()> {
        let WakeUp {
            function, context, ..
        } = wake_up;
        match context
            .bind(py)
            .call_method1(intern!(py, "run"), (function, finished(py)?))
        {
            Err(error) if error.is_instance_of::<PyException>(py) => self.report(py, error),
            resumed => resumed.map(|_| ()),
        }
    }

    /// The ordinary way: the future is resolved, and the loop makes handles for its callbacks. It is not used again.
    fn resolve(&self, future: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = future.py();
        self.spent.store(true, Ordering::Relaxed);
        if !is_done(future)? {
            future.call_method1(intern!(py, "set_result"), (py.None(),))?;
        }
        Ok(())
    }

    fn report(&self, py: Python<'_>, error: PyErr) -> PyResult<()> {
        let details = PyDict::new(py);
        details.set_item("message", "exception while a task was resumed")?;
        details.set_item("exception", error)?;
        let event_loop = self.event_loop(py)?;
        event_loop.call_method1(intern!(py, "call_exception_handler"), (details,))?;
        Ok(())
    }

    fn event_loop<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let event_loop = self.queue.get().event_loop(py);
        event_loop.ok_or_else(|| PyRuntimeError::new_err("the event loop of this task is gone"))
    }

    /// Shows the garbage collector the task that is parked, and what it is parked on.
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(self.future.get())?;
        if let Some(Some(wake_up)) = self.wake_up.try_lock().as_deref() {
            visit.call(&wake_up.function)?;
            visit.call(&wake_up.task)?;
            visit.call(&wake_up.context)?;
        }
        Ok(())
    }
}

fn is_done(future: &Bound<'_, PyAny>) -> PyResult<bool> {
    future
        .call_method0(intern!(future.py(), "done"))?
        .is_truthy()
}

/// How a parked task is resumed: a method of the task, and the context to call it in.
#[derive(Debug)]
struct WakeUp {
    function: Py<PyAny>,
    task: Py<PyAny>,
    context: Py<PyAny>,
}

impl WakeUp {
    /// Whether the task has finished although a task waits here: one that it started eagerly, which Python 3.12 and later
    /// can. Earlier versions cannot, so there the task is not asked.
    fn has_finished(&self, py: Python<'_>) -> bool {
        static EAGER: Once<bool> = Once::new();
        if !*EAGER.get_or_init(|| py.version_info() >= (3, 12)) {
            return false;
        }
        let done = self.task.bind(py).call_method0(intern!(py, "done"));
        done.and_then(|done| done.is_truthy()).unwrap_or(true)
    }

    /// Takes the task off the future that it is parked on; false if it is not there, because another task is parked now.
    fn detach(&self, future: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = future.py();
        let remove = intern!(py, "remove_done_callback");
        let removed = future.call_method1(remove, (&self.function,))?;
        if !removed.is_truthy()? {
            return Ok(false);
        }
        if let Some(discard) = discard_from_awaited_by(py)? {
            discard.call1((future, &self.task))?;
        }
        Ok(true)
    }
}

/// `asyncio.future_discard_from_awaited_by`, where there is one. Python 3.14 and later note which tasks await a future, for
/// `capture_call_graph`, and forget a task when it is woken with that future; here it is woken with another.
fn discard_from_awaited_by(py: Python<'_>) -> PyResult<Option<&Bound<'_, PyAny>>> {
    static DISCARD: Once<Option<Py<PyAny>>> = Once::new();
    let discard = DISCARD.get_or_try_init(|| {
        let asyncio = py.import("asyncio")?;
        let discard = asyncio.getattr_opt("future_discard_from_awaited_by")?;
        Ok::<_, PyErr>(discard.map(Bound::unbind))
    })?;
    Ok(discard.as_ref().map(|discard| discard.bind(py)))
}

/// Finds the wake-up of the task that is parked on the future, and takes it off. `None` if the future's callback is not that of
/// one task of asyncio's own.
fn learn(future: &Bound<'_, PyAny>) -> PyResult<Option<WakeUp>> {
    let callbacks = future.getattr(intern!(future.py(), "_callbacks"))?;
    let only = match callbacks.cast::<PyList>() {
        Ok(callbacks) if callbacks.len() == 1 => callbacks.get_item(0)?,
        _ => return Ok(None),
    };
    let Ok(pair) = only.cast::<PyTuple>() else {
        return Ok(None);
    };
    let (function, context) = (pair.get_item(0)?, pair.get_item(1)?);
    if !function.is_exact_instance_of::<PyCFunction>() {
        return Ok(None);
    }
    let wake_up = WakeUp {
        task: function.getattr(intern!(future.py(), "__self__"))?.unbind(),
        function: function.unbind(),
        context: context.unbind(),
    };
    Ok(wake_up.detach(future)?.then_some(wake_up))
}

/// Makes the value that of the `await`: sets `StopIteration(value)`, for a `__next__` that returns `None` then.
///
/// `Err(PyStopIteration::new_err(value))` does the same at a higher price: the exception is made, raised and taken apart
/// again, where the interpreter needs only its type and its value. Beside a bare future, a delivery to an inbox cost 0.78
/// with it and 0.68 without in a group of 1,000, 1.03 and 0.92 in one of 100 (`python -m benches.compare --only fanout
/// --loops uvloop`, CPython 3.11, 2026-11-21).
#[expect(unsafe_code, reason = "an eighth of a delivery: see above")]
pub(crate) fn return_value(_attached: Python<'_>, value: &Py<PyAny>) {
    // SAFETY: this thread is attached to the interpreter, as the token shows, both pointers are of live objects, and the call borrows
    // them. A message is a dict, so it is taken for the exception's only argument and not for several.
    unsafe {
        pyo3::ffi::PyErr_SetObject(pyo3::ffi::PyExc_StopIteration, value.as_ptr());
    }
}

/// A future that is done, with which tasks are woken. A task reads the outcome of the future that it is woken with, without a
/// call if that is an exact asyncio future, and does not check that it waited for this one.
fn finished(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static FINISHED: Once<Py<PyAny>> = Once::new();
    let finished = FINISHED.get_or_try_init(|| {
        // A future needs a loop, and calls only its `get_debug`.
        let options = PyDict::new(py);
        options.set_item("get_debug", py.get_type::<PyBool>())?;
        let no_loop = py
            .import("types")?
            .getattr("SimpleNamespace")?
            .call((), Some(&options))?;
        let options = PyDict::new(py);
        options.set_item("loop", no_loop)?;
        let future = py
            .import("asyncio")?
            .getattr("Future")?
            .call((), Some(&options))?;
        future.call_method1("set_result", (py.None(),))?;
        Ok::<_, PyErr>(future.unbind())
    })?;
    Ok(finished.bind(py))
}
