//! A channel's messages as an asynchronous iterator, with nothing allocated between two messages.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use headrace_core::Overflow;
use headrace_core::sync::Mutex;
use pyo3::exceptions::{PyRuntimeError, PyStopAsyncIteration, PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::errors::{show, to_python};
use crate::event_loop::{Alarm, queue_of, running_loop};
use crate::locks::{refer, visit};
use crate::message::Message;
use crate::receiver::{InboxWaiter, Mailboxes, Receiver, call_alarms, hand_out};
use crate::stub::NextMessage;

/// The messages of one channel: `async for message in inbox`, or `await anext(inbox)`, by one task at a time.
///
/// Cancelling loses nothing. It ends when its subscription does, and raises `LayerClosed` when the layer is closed. To race
/// it against something else, give `asyncio.ensure_future` the `anext(inbox)`. Until it is released, or nobody has it any more,
/// the memberships of its channel do not expire.
#[pyclass(frozen, module = "headrace")]
#[derive(Debug)]
pub(crate) struct Inbox {
    mailboxes: Mailboxes,
    /// Whether the layer reads the types of messages; see `compares_types` of the layer.
    compares_types: Arc<AtomicBool>,
    /// The channel's name.
    #[pyo3(get)]
    channel: Py<PyString>,
    /// Made when the first message is awaited, in the loop that awaits it.
    waiter: Mutex<Option<Py<InboxWaiter>>>,
    /// Called with each message instead of the task that waits.
    attendant: Mutex<Option<Py<PyAny>>>,
    /// Whether the next wait is to end at once with None: an interruption that the former waiter left pending.
    interrupted: AtomicBool,
    /// Set at the end of the subscription.
    ended: AtomicBool,
    /// Whether the channel is held in the engine, so that it keeps its memberships.
    holds: AtomicBool,
    /// Whether its subscription began with all that was missed; not set if that was not asked for.
    complete: OnceLock<bool>,
    /// The process that made it: in the child of a fork another thread may have had the engine's lock for ever.
    process: u32,
}

impl Inbox {
    /// The inbox of a channel, whose name is valid.
    pub(crate) fn new(
        mailboxes: Mailboxes,
        compares_types: Arc<AtomicBool>,
        channel: Py<PyString>,
        name: &str,
    ) -> Self {
        // On a closed layer there is nothing to hold: the first wait raises what is to be raised.
        let held = mailboxes.engine.hold(name);
        Self {
            mailboxes,
            compares_types,
            channel,
            waiter: Mutex::default(),
            attendant: Mutex::default(),
            interrupted: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            holds: AtomicBool::new(held.is_ok()),
            complete: OnceLock::new(),
            process: std::process::id(),
        }
    }

    fn release_hold(&self, py: Python<'_>) {
        if !self.holds.swap(false, Ordering::Relaxed) || self.process != std::process::id() {
            return;
        }
        if let Ok(name) = self.channel.to_str(py) {
            self.mailboxes.engine.release(name);
        }
    }

    /// The waiter of the latest wait if it serves for another, or a new one.
    fn waiter(&self, py: Python<'_>) -> PyResult<Py<InboxWaiter>> {
        let kept = refer(py, &self.waiter, Option::as_ref);
        if let Some(waiter) = kept.filter(|waiter| waiter.get().is_of_use()) {
            return Ok(waiter);
        }
        let waiter = InboxWaiter::new(
            self.mailboxes.clone_ref(py),
            self.channel.bind(py),
            &running_loop(py)?,
            refer(py, &self.attendant, Option::as_ref),
        )?;
        let waiter = Py::new(py, waiter)?;
        drop(self.replace_waiter(Some(waiter.clone_ref(py))));
        if self.interrupted.swap(false, Ordering::Relaxed) {
            waiter.get().note_interrupt();
        }
        Ok(waiter)
    }

    /// Replaces the latest waiter, or removes it. Its pending interruption is kept.
    #[must_use = "what it drops is dropped by the caller, without the lock"]
    fn replace_waiter(&self, waiter: Option<Py<InboxWaiter>>) -> Option<Py<InboxWaiter>> {
        let former = self.waiter.with(|place| std::mem::replace(place, waiter));
        if former
            .as_ref()
            .is_some_and(|former| former.get().is_interrupted())
        {
            self.interrupted.store(true, Ordering::Relaxed);
        }
        former
    }

    fn change_attendant(&self, attendant: Option<Py<PyAny>>) {
        let former = self
            .attendant
            .with(|place| std::mem::replace(place, attendant));
        drop((former, self.replace_waiter(None)));
    }

    /// A function to be called in the running loop.
    fn alarm(&self, callback: Bound<'_, PyAny>) -> PyResult<Receiver> {
        let py = callback.py();
        check_callable("alarm", &callback)?;
        let queue = queue_of(&running_loop(py)?)?;
        queue.get().remember(&self.mailboxes.engine);
        let alarm = Alarm::new(queue, callback.unbind());
        Ok(Receiver::Alarm(Py::new(py, alarm)?))
    }

    fn overflow(&self, name: &str) -> PyResult<Overflow<Message>> {
        match name {
            "drop_new" => Ok(Overflow::DropNew),
            "drop_old" => Ok(Overflow::DropOld),
            "coalesce" => {
                // What was sent before has no type to be compared by.
                self.compares_types.store(true, Ordering::Relaxed);
                Ok(Overflow::Coalesce(Message::is_of_type_of))
            }
            other => Err(PyValueError::new_err(format!(
                "overflow must be 'drop_new', 'drop_old' or 'coalesce', got '{other}'"
            ))),
        }
    }
}

#[pymethods]
impl Inbox {
    fn __aiter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __anext__(&self, py: Python<'_>) -> PyResult<NextMessage> {
        let waiter = if self.ended.load(Ordering::Relaxed) {
            Err(PyStopAsyncIteration::new_err(()))
        } else {
            self.waiter(py)
        };
        match waiter {
            Ok(waiter) => Ok(NextMessage(waiter.into_any())),
            Err(error) => {
                Py::new(py, Raises::new(error)).map(|raises| NextMessage(raises.into_any()))
            }
        }
    }

    /// End the wait for the next message with None: the present wait, or the next if there is none.
    ///
    /// To be called in the thread of the event loop of the one who waits.
    fn call_away(&self, py: Python<'_>) -> PyResult<()> {
        InboxWaiter::interrupt(self.waiter(py)?, py)
    }

    /// Let the event loop have a turn before the next message, so that what the last one has started runs before.
    ///
    /// To be called in the thread of the event loop of the one who takes the messages. Without it a task that finds one
    /// message after the other gives way after about a millisecond.
    fn end_turn(&self, py: Python<'_>) -> PyResult<()> {
        self.waiter(py)?.get().end_turn();
        Ok(())
    }

    /// Say how much the channel holds and what becomes of the rest, until it is closed.
    ///
    /// Args:
    ///     capacity: Messages that it holds.
    ///     overflow: ``"drop_new"``, ``"drop_old"``, or ``"coalesce"`` (those of the type of the new one give way to it; what
    ///         the process sent before this call has no type then).
    ///     alarm: To be called in the running loop, without arguments, after the channel was full for the first time.
    ///     capacity_bytes: Bytes that it holds behind the first message; None for those of any channel of the layer.
    ///
    /// Raises:
    ///     ValueError: A capacity is not positive, or the overflow is unknown.
    ///     TypeError: The alarm cannot be called.
    ///     RuntimeError: The inbox has ended, or there is an alarm and no running loop.
    ///     LayerClosed: The layer was closed.
    #[pyo3(signature = (capacity: "int", overflow, alarm=None, capacity_bytes: "int | None"=None))]
    fn own(
        &self,
        py: Python<'_>,
        capacity: &Bound<'_, PyAny>,
        overflow: &str,
        alarm: Option<Bound<'_, PyAny>>,
        capacity_bytes: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        if self.ended.load(Ordering::Relaxed) {
            let text = "the inbox has ended: its channel has no owner any more";
            return Err(PyRuntimeError::new_err(text));
        }
        let capacity = positive("capacity", capacity)?;
        let bytes = capacity_bytes.map(|bytes| positive("capacity_bytes", &bytes));
        let bytes = bytes.transpose()?.map(NonZeroUsize::get);
        let overflow = self.overflow(overflow)?;
        let engine = &self.mailboxes.engine;
        let alarm = alarm.map(|callback| self.alarm(callback)).transpose()?;
        let channel = self.channel.to_str(py)?;
        engine
            .own(channel, capacity, bytes, overflow, alarm)
            .map_err(to_python)
    }

    /// Have a function called when a message that tells the receiver to end has to wait behind what it is at; once.
    ///
    /// Args:
    ///     alarm: To be called in the running loop, without arguments; also if such a message waits already.
    ///
    /// Raises:
    ///     TypeError: The alarm cannot be called.
    ///     RuntimeError: There is no running loop.
    ///     LayerClosed: The layer was closed.
    fn watch_close(&self, py: Python<'_>, alarm: Bound<'_, PyAny>) -> PyResult<()> {
        let alarm = self.alarm(alarm)?;
        let engine = &self.mailboxes.engine;
        let watched = engine.watch_final(self.channel.to_str(py)?, alarm);
        watched.map_err(to_python)?;
        call_alarms(py, engine)
    }

    /// Take the message that tells the receiver to end, past those that came before it; None if there is none.
    ///
    /// Raises:
    ///     LayerClosed: The layer was closed.
    fn take_close(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let engine = &self.mailboxes.engine;
        let taken = engine.take_final(self.channel.to_str(py)?);
        let taken = taken.map_err(to_python)?;
        taken
            .map(|envelope| hand_out(py, engine, envelope))
            .transpose()
    }

    /// Have a function called with each message that comes while a task waits here, instead of the task, in its context.
    ///
    /// It returns None if that was all; the loop has a turn then before the next message. It returns True if what waits may
    /// be attended to at once. Anything else resumes the task, as the value of its await. It is for one task, from
    /// the next wait on; None takes the function away. If the task is cancelled before it gets what is left, it gets it all
    /// the same, with the exception as its attribute ``cancelled``.
    ///
    /// Raises:
    ///     TypeError: The attendant cannot be called.
    #[pyo3(signature = (attendant=None))]
    fn attend(&self, attendant: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        if let Some(attendant) = &attendant {
            check_callable("attendant", attendant)?;
        }
        self.change_attendant(attendant.map(Bound::unbind));
        Ok(())
    }

    /// Whether all that was missed is received first: that of a subscription with `since`. None without.
    #[getter]
    fn complete(&self) -> Option<bool> {
        self.complete.get().copied()
    }

    /// Say whether all that was missed is received first; to be called once.
    fn note_complete(&self, complete: bool) {
        self.complete.get_or_init(|| complete);
    }

    /// End the iteration, and the present wait with `StopAsyncIteration`.
    fn end(&self, py: Python<'_>) -> PyResult<()> {
        self.ended.store(true, Ordering::Relaxed);
        self.waiter
            .take()
            .map_or(Ok(()), |waiter| InboxWaiter::end_wait(waiter, py))
    }

    /// Count the messages of the channel that expired before somebody took them.
    fn expired(&self, py: Python<'_>) -> PyResult<u64> {
        let name = self.channel.to_str(py)?;
        Ok(self.mailboxes.engine.expired(name))
    }

    /// Let the memberships of the channel expire as those of any other; to be called once nobody receives from it.
    fn release(&self, py: Python<'_>) {
        self.release_hold(py);
    }

    fn __traverse__(&self, collector: PyVisit<'_>) -> Result<(), PyTraverseError> {
        collector.call(&self.mailboxes.layer)?;
        visit(&collector, &self.attendant)?;
        visit(&collector, &self.waiter)
    }

    fn __clear__(&self) {
        self.change_attendant(None);
    }
}

fn positive(argument: &str, value: &Bound<'_, PyAny>) -> PyResult<NonZeroUsize> {
    let number = value.extract().ok().and_then(NonZeroUsize::new);
    number.ok_or_else(|| {
        let text = format!("{argument} must be a positive integer, got {}", show(value));
        PyValueError::new_err(text)
    })
}

fn check_callable(argument: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    if value.is_callable() {
        return Ok(());
    }
    let text = format!("{argument} must be callable, got {}", show(value));
    Err(PyTypeError::new_err(text))
}

/// An awaitable that raises, where there is no message to wait for. `__anext__` itself must not raise: `anext(inbox, default)`
/// would end the process, as CPython (3.11 to 3.13 at least) assumes that there is something to await.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct Raises(Mutex<Option<PyErr>>);

impl Raises {
    fn new(error: PyErr) -> Self {
        Self(Mutex::new(Some(error)))
    }
}

#[pymethods]
impl Raises {
    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self) -> PyResult<()> {
        let error = self.0.take();
        Err(error.unwrap_or_else(|| PyRuntimeError::new_err("this was awaited before")))
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        // Without an interpreter nobody uses the engine any more.
        Python::try_attach(|py| self.release_hold(py));
    }
}
