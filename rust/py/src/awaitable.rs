//! The future that a receiving task waits on.
//!
//! A task that awaits a future of its own kind is resumed by a handle of its own: `set_result` makes one for every task,
//! and the loop runs them one by one. [`Waiter`] speaks the same protocol (`_asyncio_future_blocking`,
//! `add_done_callback` with a context, `result`), so a task cannot tell the difference, but it keeps the task's
//! wake-up to itself, and one callback of the loop enters the contexts and calls the wake-ups of a whole batch.
//!
//! A waiter resolves to `None`: it only says that the message is there. `take` takes it. A message that was handed over and
//! not taken, because the task was cancelled in between, goes back to its mailbox when the waiter is released, and
//! every way out of `receive` releases it; dropping the waiter does too.

use std::sync::atomic::{AtomicBool, Ordering};

use headrace_core::{Envelope, Phase, Slot};
use pyo3::exceptions::{PyException, PyRuntimeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyCFunction, PyDict, PyString};
use pyo3::{import_exception, intern};

use crate::errors::layer_closed;
use crate::event_loop::{give_back, LoopQueue, Wakes};
use crate::layer::MemoryLayer;
use crate::message::Message;
use crate::receiver::Receiver;

import_exception!(asyncio, CancelledError);
import_exception!(asyncio, InvalidStateError);

/// A future of one message: await it, then `take` the message.
#[pyclass(frozen, weakref, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct Waiter {
    layer: Py<MemoryLayer>,
    channel: Py<PyString>,
    /// Asked for by tasks and by asyncio's helpers, which fall back on it where there is no `get_loop`: a plain
    /// member is read faster than a method is called.
    #[pyo3(get, name = "_loop")]
    event_loop: Py<PyAny>,
    queue: Py<LoopQueue>,
    slot: Slot<Message, Callbacks>,
    /// Set when it is yielded to a task, cleared by the task when it agrees to wait.
    blocking: AtomicBool,
    /// Whether it was yielded before: the next step must find it done.
    yielded: AtomicBool,
    /// With `wake="future"`: the exact asyncio future that is awaited in this one's place.
    future: Option<Py<PyAny>>,
}

/// Nearly always there is one: the wake-up of the waiting task.
#[derive(Debug, Default)]
struct Callbacks {
    first: Option<Callback>,
    others: Vec<Callback>,
}

#[derive(Debug)]
struct Callback {
    function: Py<PyAny>,
    context: Py<PyAny>,
}

impl Callbacks {
    fn add(&mut self, callback: Callback) {
        if self.first.is_none() && self.others.is_empty() {
            self.first = Some(callback);
        } else {
            self.others.push(callback);
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Callback> {
        self.first.iter().chain(&self.others)
    }

    fn into_iter(self) -> impl Iterator<Item = Callback> {
        self.first.into_iter().chain(self.others)
    }
}

impl Waiter {
    pub(crate) fn new(layer: &Bound<'_, MemoryLayer>, channel: &Bound<'_, PyString>) -> PyResult<Self> {
        let py = layer.py();
        let (event_loop, queue) = LoopQueue::current(py, layer.get().engine())?;
        let future = if layer.get().wakes_directly() {
            None
        } else {
            Some(event_loop.call_method0(intern!(py, "create_future"))?.unbind())
        };
        Ok(Self {
            layer: layer.clone().unbind(),
            channel: channel.clone().unbind(),
            event_loop: event_loop.unbind(),
            queue,
            slot: Slot::default(),
            blocking: AtomicBool::new(false),
            yielded: AtomicBool::new(false),
            future,
        })
    }

    pub(crate) fn queue(&self) -> &LoopQueue {
        self.queue.get()
    }

    pub(crate) fn queue_handle(&self) -> &Py<LoopQueue> {
        &self.queue
    }

    pub(crate) fn channel<'a>(&'a self, py: Python<'a>) -> &'a str {
        // The name was read as text before the waiter was made.
        self.channel.to_str(py).unwrap_or_default()
    }

    /// Puts the message in the task's hands; the caller wakes the task.
    pub(crate) fn fill(&self, envelope: Envelope<Message>) -> Result<(), Envelope<Message>> {
        self.slot.fill(envelope)
    }

    /// Tells the task that the layer was closed; the caller wakes it.
    pub(crate) fn close(&self) {
        self.slot.close();
    }

    fn is_done(&self) -> bool {
        self.slot.phase() != Phase::Waiting
    }

    fn error(&self) -> Option<PyErr> {
        match self.slot.phase() {
            Phase::Waiting | Phase::Filled => None,
            Phase::Released => Some(CancelledError::new_err(())),
            Phase::Closed => Some(layer_closed()),
        }
    }

    /// Gives back what was handed over and not taken.
    pub(crate) fn release(&self, py: Python<'_>) {
        if let Some(envelope) = self.slot.release() {
            give_back(py, self.layer.get().engine(), self.channel(py), envelope);
        }
    }

    /// Leaves the line at the mailbox; false if a message is here or on its way.
    fn leave(&self, py: Python<'_>) -> bool {
        let own = |receiver: &Receiver| match receiver {
            Receiver::Task(waiter) => std::ptr::eq(waiter.get(), self),
            Receiver::Thread(_) => false,
        };
        self.layer.get().engine().forget(self.channel(py), own).is_some()
    }

    /// Calls everything that waits for this future; to be called by the loop and by no task.
    ///
    /// An exception of a callback goes to the loop's handler, as it would from a handle of its own; what is to end the
    /// loop (`KeyboardInterrupt`, `SystemExit`) is returned.
    pub(crate) fn wake(&self, this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        if let Some(future) = &self.future {
            return self.resolve(future.bind(py));
        }
        let filled = self.slot.phase() == Phase::Filled;
        for callback in self.slot.notice().into_iter() {
            let context = callback.context.bind(py);
            let function = callback.function.bind(py);
            let called = if filled && function.is_exact_instance_of::<PyCFunction>() {
                context.call_method1(intern!(py, "run"), (function, finished(py)?))
            } else {
                context.call_method1(intern!(py, "run"), (function, this))
            };
            match called {
                Err(error) if error.is_instance_of::<PyException>(py) => self.report(py, error)?,
                called => {
                    called?;
                }
            }
        }
        Ok(())
    }

    fn resolve(&self, future: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = future.py();
        if future.call_method0(intern!(py, "done"))?.is_truthy()? {
            return Ok(());
        }
        match self.error() {
            Some(error) => future.call_method1(intern!(py, "set_exception"), (error,))?,
            None => future.call_method1(intern!(py, "set_result"), (py.None(),))?,
        };
        Ok(())
    }

    fn report(&self, py: Python<'_>, error: PyErr) -> PyResult<()> {
        let details = PyDict::new(py);
        details.set_item("message", "exception in a callback of a receiver")?;
        details.set_item("exception", error)?;
        self.event_loop.call_method1(py, intern!(py, "call_exception_handler"), (details,))?;
        Ok(())
    }
}

#[pymethods]
impl Waiter {
    fn __await__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        match &slf.get().future {
            Some(future) => future.bind(slf.py()).call_method0(intern!(slf.py(), "__await__")),
            None => Ok(slf.into_any()),
        }
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(slf: Bound<'_, Self>) -> PyResult<Option<Bound<'_, Self>>> {
        let waiter = slf.get();
        if waiter.is_done() {
            return waiter.error().map_or(Ok(None), Err);
        }
        if waiter.yielded.load(Ordering::Relaxed) {
            return Err(PyRuntimeError::new_err("the task was resumed before its message came"));
        }
        waiter.yielded.store(true, Ordering::Relaxed);
        waiter.blocking.store(true, Ordering::Relaxed);
        Ok(Some(slf))
    }

    #[getter(_asyncio_future_blocking)]
    fn blocking(&self) -> bool {
        self.blocking.load(Ordering::Relaxed)
    }

    #[setter(_asyncio_future_blocking)]
    fn set_blocking(&self, blocking: bool) {
        self.blocking.store(blocking, Ordering::Relaxed);
    }

    /// Take the message, once. None if there is none: not yet, or not any more.
    fn take(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let taken = self.slot.take();
        taken.map(|envelope| envelope.message.into_python(py)).transpose()
    }

    /// Stop waiting, and give back a message that was handed over and not taken.
    #[pyo3(name = "release")]
    fn py_release(&self, py: Python<'_>) {
        self.leave(py);
        self.release(py);
    }

    #[pyo3(signature = (fn_, /, *, context=None))]
    fn add_done_callback(slf: &Bound<'_, Self>, fn_: Py<PyAny>, context: Option<Py<PyAny>>) -> PyResult<()> {
        let (py, waiter) = (slf.py(), slf.get());
        let context = match context {
            Some(context) => context,
            None => copy_context(py)?,
        };
        let mut callback = Some(Callback { function: fn_, context });
        let waiting = waiter.slot.ask(|callbacks| callback.take().into_iter().for_each(|new| callbacks.add(new)));
        let Some(Callback { function, context }) = callback.filter(|_| !waiting) else {
            return Ok(());
        };
        let options = PyDict::new(py);
        options.set_item(intern!(py, "context"), context)?;
        let event_loop = waiter.event_loop.bind(py);
        event_loop.call_method(intern!(py, "call_soon"), (function, slf), Some(&options))?;
        Ok(())
    }

    #[pyo3(signature = (fn_, /))]
    fn remove_done_callback(&self, fn_: &Bound<'_, PyAny>) -> PyResult<usize> {
        let mut removed = 0;
        for callback in self.slot.notice().into_iter() {
            if callback.function.bind(fn_.py()).eq(fn_)? {
                removed += 1;
            } else {
                self.slot.amend(|callbacks| callbacks.add(callback));
            }
        }
        Ok(removed)
    }

    /// Stop waiting. False if a message was handed over before: then the task goes on with it, or is told of its own
    /// cancellation and gives it back.
    #[pyo3(signature = (msg=None))]
    fn cancel(slf: Bound<'_, Self>, msg: Option<&Bound<'_, PyAny>>) -> bool {
        // The text of a cancellation is the task's business: it raises its own.
        let _ = msg;
        let (py, waiter) = (slf.py(), slf.get());
        if waiter.is_done() || !waiter.leave(py) {
            return false;
        }
        waiter.slot.release();
        let mut wakes = Wakes::default();
        wakes.add(py, slf.unbind());
        wakes.ring(py);
        true
    }

    fn cancelled(&self) -> bool {
        self.slot.phase() == Phase::Released
    }

    fn done(&self) -> bool {
        self.is_done()
    }

    fn result(&self) -> PyResult<()> {
        match self.error() {
            Some(error) => Err(error),
            None if !self.is_done() => Err(InvalidStateError::new_err("there is no message yet")),
            None => Ok(()),
        }
    }

    fn exception(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        match self.slot.phase() {
            Phase::Closed => Ok(self.error().map(|error| error.into_value(py).into_any())),
            _ => self.result().map(|()| None),
        }
    }

    fn _make_cancelled_error(&self, py: Python<'_>) -> Py<PyAny> {
        CancelledError::new_err(()).into_value(py).into_any()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.layer)?;
        visit.call(&self.event_loop)?;
        visit.call(&self.future)?;
        let content = self.slot.peek(|message, callbacks| {
            for callback in callbacks.iter() {
                visit.call(&callback.function)?;
                visit.call(&callback.context)?;
            }
            message.map_or(Ok(()), |message| message.traverse(&visit))
        });
        content.unwrap_or(Ok(()))
    }

    fn __clear__(&self) {
        drop(self.slot.notice());
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let Some(envelope) = self.slot.release() {
            Python::try_attach(|py| {
                give_back(py, self.layer.get().engine(), self.channel(py), envelope);
            });
        }
    }
}

/// A future that is done, for waking tasks. A task asks what it is woken with for its outcome, and knows that of an
/// exact asyncio future without a call; that the wait was for another future it does not ask.
fn finished(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static FINISHED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let finished = FINISHED.get_or_try_init(py, || {
        // A future wants a loop, and of a loop it asks only whether it is being debugged.
        let options = PyDict::new(py);
        options.set_item("get_debug", py.get_type::<PyBool>())?;
        let no_loop = py.import("types")?.getattr("SimpleNamespace")?.call((), Some(&options))?;
        let options = PyDict::new(py);
        options.set_item("loop", no_loop)?;
        let future = py.import("asyncio")?.getattr("Future")?.call((), Some(&options))?;
        future.call_method1("set_result", (py.None(),))?;
        Ok::<_, PyErr>(future.unbind())
    })?;
    Ok(finished.bind(py))
}

fn copy_context(py: Python<'_>) -> PyResult<Py<PyAny>> {
    static COPY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    Ok(COPY.import(py, "contextvars", "copy_context")?.call0()?.unbind())
}
