//! The awaitable that a receiving task waits on, and how the task is resumed.
//!
//! A task parks on a future, and `Future.set_result` makes a handle for it, which the loop runs in its turn: for a group
//! of a thousand that is a thousand handles. Here the task parks on an exact asyncio future too, so it waits, is cancelled
//! and is inspected like any other. But that future is never resolved. When the message is there, one callback of the
//! loop, for a whole batch of tasks, takes each task's wake-up off its future and calls it, in the task's
//! context, just as the handle would have done. The future stays pending and serves the next wait.
//!
//! That is done where the wake-up is the one of asyncio's own task, in C, and nothing else hangs on the future. Any other
//! task gets its future resolved the ordinary way; and so does every task of a layer with `wake="future"`.
//!
//! A message that was handed over and not taken, because the task was cancelled in between, goes back to its mailbox: the
//! exception that ends the wait passes through `throw`, which leaves the line and gives back, and so does the drop of a
//! waiter that nobody awaits any more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::OnceLock;

use headrace_core::sync::Mutex;
use headrace_core::{Envelope, Phase, Received, Slot};
use pyo3::exceptions::{PyException, PyRuntimeError, PyStopAsyncIteration, PyStopIteration};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyCFunction, PyDict, PyList, PyString, PyTuple};

use crate::errors::to_python;
use crate::event_loop::{
    address, drained_loop, queue_of, running_loop, LoopQueue, Pace, Turn, Wake, Wakes,
};
use crate::layer::MemoryLayer;
use crate::message::Message;
use crate::receiver::{give_back, hand_out, Receiver};
use crate::stub::Steps;

mod attend;

/// A wait for a message, for one task at a time.
///
/// One made by `MemoryLayer.receive` is in line already, and is awaited once: it says only that the message is
/// there, and `take` takes it, because on Python 3.12 and later an awaitable returns None for nothing, but a value at
/// the price of an exception. One that belongs to an `Inbox` gets in line each time it is awaited and returns the message.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct Waiter {
    layer: Py<MemoryLayer>,
    channel: Py<PyString>,
    queue: Py<LoopQueue>,
    slot: Slot<Message>,
    of_inbox: bool,
    /// Whether a task is parked: the next step must find its message there.
    awaited: AtomicBool,
    /// Whether the task that is parked has been resumed: any other has to stay away from its message.
    woken: AtomicBool,
    /// What the task is parked on, made by the first wait.
    future: OnceLock<Py<PyAny>>,
    /// The wake-up of the task that is parked, and its context, as long as it is parked: known from the last time.
    wake_up: Mutex<Option<WakeUp>>,
    /// Whether the one who waits, or comes next to wait, is to be told that there is something else to do.
    called_away: AtomicBool,
    /// Whether the last wait ended with `None`.
    answered_call: AtomicBool,
    /// Called with each message in the stead of the task that is parked; see `attend`.
    attendant: Option<Py<PyAny>>,
    /// What the attendant has left to the task: the value of its `await`, or the error.
    left: Mutex<Option<PyResult<Py<PyAny>>>>,
    /// Set when the future was cancelled or resolved: this waiter serves no further wait.
    spent: AtomicBool,
    /// Of an inbox: how long the task that takes the messages has gone on without a turn of the loop.
    pace: Pace,
}

/// How a parked task is resumed: a method of the task, and the context to call it in.
#[derive(Debug)]
struct WakeUp {
    function: Py<PyAny>,
    task: Py<PyAny>,
    context: Py<PyAny>,
}

impl WakeUp {
    /// Whether the task has come to its end, although somebody waits where it waited: a task that it started eagerly, as
    /// Python 3.12 and later can. Before that nobody could have come there while it ran, and it is not asked.
    fn has_finished(&self, py: Python<'_>) -> bool {
        static EAGER: PyOnceLock<bool> = PyOnceLock::new();
        if !*EAGER.get_or_init(py, || py.version_info() >= (3, 12)) {
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

/// What takes a task out of those that a future is awaited by. Python 3.14 and later keep them for `capture_call_graph`, and take
/// a task out when it is woken with that very future; here it is woken with another.
fn discard_from_awaited_by(py: Python<'_>) -> PyResult<Option<&Bound<'_, PyAny>>> {
    static DISCARD: PyOnceLock<Option<Py<PyAny>>> = PyOnceLock::new();
    let discard = DISCARD.get_or_try_init(py, || {
        let asyncio = py.import("asyncio")?;
        let discard = asyncio.getattr_opt("future_discard_from_awaited_by")?;
        Ok::<_, PyErr>(discard.map(Bound::unbind))
    })?;
    Ok(discard.as_ref().map(|discard| discard.bind(py)))
}

impl Waiter {
    pub(crate) fn new(
        layer: &Bound<'_, MemoryLayer>,
        channel: &Bound<'_, PyString>,
        event_loop: &Bound<'_, PyAny>,
        of_inbox: bool,
        attendant: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let queue = queue_of(event_loop)?;
        queue.get().remember(layer.get().engine());
        Ok(Self {
            layer: layer.clone().unbind(),
            channel: channel.clone().unbind(),
            queue,
            slot: if of_inbox {
                Slot::idle()
            } else {
                Slot::default()
            },
            of_inbox,
            awaited: AtomicBool::new(false),
            woken: AtomicBool::new(false),
            future: OnceLock::new(),
            wake_up: Mutex::default(),
            called_away: AtomicBool::new(false),
            answered_call: AtomicBool::new(false),
            attendant,
            left: Mutex::default(),
            spent: AtomicBool::new(false),
            pace: Pace::default(),
        })
    }

    /// Makes the waiter ready for another wait of a task of the loop at this address; false if it is still in use, or of
    /// no use any more.
    pub(crate) fn again(&self, event_loop: usize) -> bool {
        if !self.queue.get().is_at(event_loop) || self.is_spent() || !self.slot.reset() {
            return false;
        }
        self.awaited.store(false, Ordering::Relaxed);
        self.woken.store(false, Ordering::Relaxed);
        true
    }

    fn is_spent(&self) -> bool {
        self.spent.load(Ordering::Relaxed)
    }

    /// Whether it may serve another wait, as far as it knows.
    pub(crate) fn is_of_use(&self) -> bool {
        !self.is_spent() && !self.queue.get().is_closed()
    }

    fn event_loop<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let event_loop = self.queue.get().event_loop(py);
        event_loop.ok_or_else(|| PyRuntimeError::new_err("the event loop of this receiver is gone"))
    }

    pub(crate) fn loop_queue(&self) -> &LoopQueue {
        self.queue.get()
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
    pub(crate) fn end(&self) {
        self.slot.close();
    }

    /// Ends the wait of whoever waits here, without a message and while the layer is open.
    pub(crate) fn end_wait(this: Py<Self>, py: Python<'_>) -> PyResult<()> {
        let waiter = this.get();
        if waiter.slot.phase() != Phase::Waiting || !waiter.leave(py) {
            return Ok(());
        }
        waiter.end();
        let mut wakes = Wakes::default();
        wakes.add(py, this);
        wakes.ring(py)
    }

    /// Lets the wait end with `None`: the one that goes on, or else the next. To be called in the loop of the task.
    pub(crate) fn call_away(this: Py<Self>, py: Python<'_>) -> PyResult<()> {
        let waiter = this.get();
        let is_called = waiter.called_away.swap(true, Ordering::Relaxed);
        match waiter.slot.phase() {
            Phase::Waiting if waiter.leave(py) => waiter.slot.call_away(),
            // A message is on its way to the task, which gets that first and the call with its next wait. It is woken early, so
            // that neither waits behind a whole group.
            Phase::Filled if !is_called => {}
            _ => return Ok(()),
        }
        let mut wakes = Wakes::default();
        wakes.call(py, this);
        wakes.ring(py)
    }

    /// Whether a call has not been answered yet; it is the next waiter's then.
    pub(crate) fn is_called_away(&self) -> bool {
        self.called_away.load(Ordering::Relaxed)
    }

    pub(crate) fn note_call(&self) {
        self.called_away.store(true, Ordering::Relaxed);
    }

    /// Ends a wait with `None`, or with a message if the wait before ended with `None` too: calls and messages take turns, so
    /// that who is called away without pause gets the messages too.
    fn answer_call<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        if self.answered_call.swap(false, Ordering::Relaxed) {
            let engine = self.layer.get().engine();
            if let Some(envelope) = engine.take(self.channel(py)).map_err(to_python)? {
                let message = hand_out(py, engine, envelope)?;
                return Err(PyStopIteration::new_err((message,)));
            }
        }
        self.called_away.store(false, Ordering::Relaxed);
        self.answered_call.store(true, Ordering::Relaxed);
        Ok(None)
    }

    /// Has the loop take a turn before the next message.
    pub(crate) fn end_turn(&self) {
        self.pace.end();
    }

    /// Whether the loop is to have a turn before the task looks for a message, because the task has ended its own and
    /// would go on at once: it is called away, or the next call of `drain` comes before what the task has started.
    fn owes_turn(&self) -> bool {
        self.pace.has_ended() && (self.is_called_away() || self.loop_queue().is_called())
    }

    /// Gives what the task yields to be resumed in the loop's next turn.
    fn give_way<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.pace.rest();
        py.None().into_bound(py)
    }

    /// Begins a wait of an inbox. One that cannot begin leaves nothing behind: neither a place in line nor a slot that
    /// looks as if it had one.
    fn begin<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = slf.py();
        let here = match drained_loop() {
            Some(address) => address,
            None => address(&running_loop(py)?),
        };
        if !slf.get().again(here) {
            return Err(PyRuntimeError::new_err(
                "this inbox is in use in another event loop",
            ));
        }
        Self::line_up(slf).inspect_err(|_| slf.get().release(py))
    }

    /// Gets in line for the next message, or returns the one that is there.
    fn line_up<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let (py, waiter) = (slf.py(), slf.get());
        let in_line = Receiver::Task(slf.clone().unbind());
        let waiting = waiter
            .layer
            .get()
            .engine()
            .wait(waiter.channel(py), in_line, None);
        match waiting.map_err(to_python)? {
            Received::Ready(envelope) => {
                // Nobody else knows of this slot: the message passes through it, and leaves it ready for the next.
                let _ = waiter.slot.fill(envelope);
                if !waiter.pace.is_over(waiter.loop_queue().born().elapsed()) {
                    return waiter.deliver(py);
                }
                // The message waits in the slot for the task's next step.
                waiter.woken.store(true, Ordering::Relaxed);
                Ok(Some(waiter.give_way(py)))
            }
            Received::Waiting | Received::Empty => waiter.park(py).map(Some),
        }
    }

    /// Why there will be no message: the layer was closed, or only this inbox has ended.
    fn ending(&self) -> PyErr {
        match self.layer.get().engine().check_open() {
            Ok(()) => PyStopAsyncIteration::new_err(()),
            Err(error) => to_python(error),
        }
    }

    /// Ends the step with the message as the value of the `await`.
    fn deliver<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let message = self.take(py)?;
        return_value(py, &message);
        Ok(None)
    }

    /// The wait is over: the task goes, with or without its message.
    fn release(&self, py: Python<'_>) {
        self.spent.store(true, Ordering::Relaxed);
        drop(self.wake_up.take());
        self.leave(py);
        self.give_back(py);
    }

    /// Leaves the line at the mailbox; false if it was not there.
    fn leave(&self, py: Python<'_>) -> bool {
        let own = |receiver: &Receiver| match receiver {
            Receiver::Task(waiter) => std::ptr::eq(waiter.get(), self),
            Receiver::Thread(_) | Receiver::Alarm(_) => false,
        };
        let engine = self.layer.get().engine();
        engine.forget(self.channel(py), own).is_some()
    }

    /// Parks the task that is about to wait: gives the future for it to be told of.
    fn park<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.awaited.store(true, Ordering::Relaxed);
        self.pace.rest();
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

    fn resume(&self, py: Python<'_>, wake_up: &WakeUp) -> PyResult<()> {
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

    /// The ordinary way: the future is resolved, and the loop makes handles for what hangs on it. It is not used again.
    fn resolve(&self, future: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = future.py();
        self.spent.store(true, Ordering::Relaxed);
        if !future.call_method0(intern!(py, "done"))?.is_truthy()? {
            future.call_method1(intern!(py, "set_result"), (py.None(),))?;
        }
        Ok(())
    }

    fn report(&self, py: Python<'_>, error: PyErr) -> PyResult<()> {
        let details = PyDict::new(py);
        details.set_item("message", "exception while a receiver was resumed")?;
        details.set_item("exception", error)?;
        let event_loop = self.event_loop(py)?;
        event_loop.call_method1(intern!(py, "call_exception_handler"), (details,))?;
        Ok(())
    }
}

impl Wake for Waiter {
    fn queue(&self) -> &Py<LoopQueue> {
        &self.queue
    }

    /// Resumes the task; to be called by the loop, and by no task.
    ///
    /// An exception goes to the loop's handler, as it would from a handle; what is to end the loop (`KeyboardInterrupt`,
    /// `SystemExit`) is returned.
    fn wake(slf: &Bound<'_, Self>, turn: &Turn) -> PyResult<()> {
        let (py, waiter) = (slf.py(), slf.get());
        // A receiver that has left since may be waiting again already: then this wake is not for it.
        if !matches!(
            waiter.slot.phase(),
            Phase::Filled | Phase::Closed | Phase::CalledAway
        ) {
            return Ok(());
        }
        waiter.woken.store(true, Ordering::Relaxed);
        // A task that was never parked is about to find its message by itself.
        let Some(future) = waiter.future.get() else {
            return Ok(());
        };
        let future = future.bind(py);
        if waiter.layer.get().wakes_directly() {
            if Self::attend(slf, future, turn)? {
                return Ok(());
            }
            let known = match waiter.wake_up.take() {
                Some(known) if known.detach(future)? => Some(known),
                _ => learn(future)?,
            };
            if let Some(wake_up) = known {
                let resumed = waiter.resume(py, &wake_up);
                // The same task waits again: it will be woken the same way. Any other has gone, and is not to be kept.
                let waits =
                    waiter.awaited.load(Ordering::Relaxed) && waiter.slot.phase() == Phase::Waiting;
                if waits && !wake_up.has_finished(py) {
                    drop(waiter.wake_up.replace(wake_up));
                }
                return resumed;
            }
        }
        waiter.resolve(future)
    }

    /// Gives back what was handed over and not taken.
    fn give_back(&self, py: Python<'_>) {
        if let Some(envelope) = self.slot.release() {
            give_back(py, self.layer.get().engine(), self.channel(py), envelope);
        }
    }
}

/// Finds the wake-up of the task that is parked on the future, and takes it off. `None` if what hangs there is not one
/// task of asyncio's own.
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

#[pymethods]
impl Waiter {
    fn __await__(slf: Bound<'_, Self>) -> Steps<'_> {
        Steps(slf)
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let (py, waiter) = (slf.py(), slf.get());
        match waiter.slot.phase() {
            Phase::Filled if !waiter.of_inbox => Ok(None),
            Phase::Filled if waiter.woken.load(Ordering::Relaxed) => waiter.deliver(py),
            Phase::Closed => Err(waiter.ending()),
            Phase::Waiting if !waiter.awaited.load(Ordering::Relaxed) => waiter.park(py).map(Some),
            Phase::Taken | Phase::Released | Phase::CalledAway if waiter.of_inbox => {
                if let Some(left) = waiter.left.take() {
                    // Whatever it is: unlike a message it may be what an exception is made from.
                    return Err(PyStopIteration::new_err((left?,)));
                }
                if waiter.owes_turn() {
                    return Ok(Some(waiter.give_way(py)));
                }
                if waiter.is_called_away() {
                    return waiter.answer_call(py);
                }
                waiter.answered_call.store(false, Ordering::Relaxed);
                Self::begin(slf)
            }
            Phase::Waiting | Phase::Filled | Phase::Taken | Phase::Released | Phase::CalledAway => {
                Err(PyRuntimeError::new_err(
                    "one task at a time waits for a message here",
                ))
            }
        }
    }

    /// End the wait with an exception.
    #[pyo3(signature = (typ, val=None, tb=None, /))]
    fn throw(
        &self,
        py: Python<'_>,
        typ: Bound<'_, PyAny>,
        val: Option<Bound<'_, PyAny>>,
        tb: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        // An exception brings its traceback along.
        drop(tb);
        let left = self.left.take();
        self.release(py);
        let exception = val.unwrap_or(typ);
        if let Some(Ok(left)) = left {
            // What is left to the task is to meet the exception where it waits, and not here.
            let told = left.bind(py).setattr(intern!(py, "cancelled"), &exception);
            if told.is_ok() {
                return Err(PyStopIteration::new_err((left,)));
            }
        }
        Err(PyErr::from_value(exception))
    }

    /// End the wait.
    fn close(&self, py: Python<'_>) {
        self.release(py);
    }

    /// Take the message, once.
    ///
    /// Raises:
    ///     RuntimeError: It is not there: not yet, or not any more.
    #[pyo3(signature = () -> "dict[str, object]")]
    fn take(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match self.slot.take() {
            Some(envelope) => hand_out(py, self.layer.get().engine(), envelope),
            None => Err(PyRuntimeError::new_err("there is no message to take")),
        }
    }

    // No `__clear__`: a cycle through a waiter goes through its layer or its task too, and those can be cleared.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.layer)?;
        visit.call(self.future.get())?;
        visit.call(&self.attendant)?;
        if let Some(Some(wake_up)) = self.wake_up.try_lock().as_deref() {
            visit.call(&wake_up.function)?;
            visit.call(&wake_up.task)?;
            visit.call(&wake_up.context)?;
        }
        self.slot
            .peek(|message| message.traverse(&visit))
            .unwrap_or(Ok(()))
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

/// Makes the value that of the `await`: sets `StopIteration(value)`, for a `__next__` that returns `None` then.
///
/// `Err(PyStopIteration::new_err(value))` does the same at a higher price: the exception is made, raised and taken apart
/// again, where the interpreter needs only its type and its value. Beside a bare future, a delivery to an inbox cost 0.78
/// with it and 0.68 without in a group of 1,000, 1.03 and 0.92 in one of 100 (`python -m benches.compare --only fanout
/// --loops uvloop`, CPython 3.11, 2026-11-21).
#[expect(unsafe_code, reason = "an eighth of a delivery: see above")]
fn return_value(_attached: Python<'_>, value: &Py<PyAny>) {
    // SAFETY: this thread is attached to the interpreter, as the token shows, both pointers are of live objects, and the call borrows
    // them. A message is a dict, so it is taken for the exception's only argument and not for several.
    unsafe {
        pyo3::ffi::PyErr_SetObject(pyo3::ffi::PyExc_StopIteration, value.as_ptr());
    }
}

/// A future that is done, for waking tasks. A task asks what it is woken with for its outcome, and knows that of an
/// exact asyncio future without a call; that it waited for another future it does not ask.
fn finished(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static FINISHED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let finished = FINISHED.get_or_try_init(py, || {
        // A future wants a loop, and of a loop it asks only whether it is being debugged.
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
