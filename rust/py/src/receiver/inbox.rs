//! How one task takes the messages of an inbox, one after the other.

use std::sync::atomic::{AtomicBool, Ordering};

use headrace_core::sync::Mutex;
use headrace_core::{Phase, Slot};
use pyo3::exceptions::{PyRuntimeError, PyStopAsyncIteration, PyStopIteration};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::{hand_out, InboxWaiter, Mailboxes, Place, Receiver};
use crate::errors::to_python;
use crate::event_loop::{
    address, drained_loop, queue_of, running_loop, LoopQueue, Pace, Turn, Wake, Wakes,
};
use crate::once::intern;
use crate::park::{return_value, Park};
use crate::stub::Steps;

impl InboxWaiter {
    /// A waiter of tasks of the loop.
    pub(crate) fn new(
        mailboxes: Mailboxes,
        channel: &Bound<'_, PyString>,
        event_loop: &Bound<'_, PyAny>,
        attendant: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let queue = queue_of(event_loop)?;
        queue.get().remember(&mailboxes.engine);
        let direct = mailboxes.direct_wake;
        Ok(Self {
            place: Place {
                mailboxes,
                channel: channel.clone().unbind(),
                slot: Slot::idle(),
            },
            park: Park::new(queue, direct),
            woken: AtomicBool::new(false),
            called_away: AtomicBool::new(false),
            answered_call: AtomicBool::new(false),
            attendant,
            left: Mutex::default(),
            pace: Pace::default(),
        })
    }

    /// Whether it may serve another wait, as far as it knows.
    pub(crate) fn is_of_use(&self) -> bool {
        self.park.is_of_use()
    }

    /// Ends the wait of whoever waits here, without a message and while the layer is open.
    pub(crate) fn end_wait(this: Py<Self>, py: Python<'_>) -> PyResult<()> {
        let place = &this.get().place;
        if place.slot.phase() != Phase::Waiting || !place.leave(py) {
            return Ok(());
        }
        place.slot.close();
        let mut wakes = Wakes::default();
        wakes.add(py, this);
        wakes.flush(py)
    }

    /// Lets the wait end with `None`: the one that goes on, or else the next. To be called in the loop of the task.
    pub(crate) fn call_away(this: Py<Self>, py: Python<'_>) -> PyResult<()> {
        let waiter = this.get();
        let is_called = waiter.called_away.swap(true, Ordering::Relaxed);
        let place = &waiter.place;
        match place.slot.phase() {
            Phase::Waiting if place.leave(py) => place.slot.interrupt(),
            // A message is on its way to the task, which gets that first and the call with its next wait. It is woken early, so
            // that neither waits behind a whole group.
            Phase::Filled if !is_called => {}
            _ => return Ok(()),
        }
        let mut wakes = Wakes::default();
        wakes.call(py, this);
        wakes.flush(py)
    }

    /// Whether a call has not been answered yet; it is for the next wait then.
    pub(crate) fn is_called_away(&self) -> bool {
        self.called_away.load(Ordering::Relaxed)
    }

    pub(crate) fn note_call(&self) {
        self.called_away.store(true, Ordering::Relaxed);
    }

    /// Ends a wait with `None`, or with a message if the wait before ended with `None` too: calls and messages take turns, so
    /// that a task that is called away without pause gets its messages too.
    fn answer_call<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        if self.answered_call.swap(false, Ordering::Relaxed) {
            let engine = self.place.engine();
            if let Some(envelope) = engine.take(self.place.channel(py)).map_err(to_python)? {
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
        self.pace.has_ended() && (self.is_called_away() || self.park.queue().get().is_called())
    }

    /// Gives what the task yields to be resumed in the loop's next turn.
    fn give_way<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.pace.rest();
        py.None().into_bound(py)
    }

    /// Begins a wait. One that cannot begin leaves nothing behind: neither a place in line nor a slot that looks as if it had
    /// one.
    fn begin<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let (py, waiter) = (slf.py(), slf.get());
        let here = match drained_loop() {
            Some(address) => address,
            None => address(&running_loop(py)?),
        };
        if !waiter.park.serves(here) || !waiter.place.slot.reset() {
            return Err(PyRuntimeError::new_err(
                "this inbox is in use in another event loop",
            ));
        }
        waiter.park.vacate();
        waiter.woken.store(false, Ordering::Relaxed);
        Self::line_up(slf).inspect_err(|_| waiter.release(py))
    }

    /// Gets in line for the next message, or returns the one that is there.
    fn line_up<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let (py, waiter) = (slf.py(), slf.get());
        let in_line = Receiver::Inbox(slf.clone().unbind());
        let Some(envelope) = waiter.place.wait(py, in_line)? else {
            waiter.pace.rest();
            return waiter.park.park(py).map(Some);
        };
        // Nobody else knows of this slot: the message passes through it, and leaves it ready for the next.
        let _ = waiter.place.slot.fill(envelope);
        if !waiter
            .pace
            .is_over(waiter.park.queue().get().born().elapsed())
        {
            return waiter.deliver(py);
        }
        // The message waits in the slot for the task's next step.
        waiter.woken.store(true, Ordering::Relaxed);
        Ok(Some(waiter.give_way(py)))
    }

    /// Why there will be no message: the layer was closed, or only this inbox has ended.
    fn ending(&self) -> PyErr {
        match self.place.engine().check_open() {
            Ok(()) => PyStopAsyncIteration::new_err(()),
            Err(error) => to_python(error),
        }
    }

    /// Ends the step with the message as the value of the `await`.
    fn deliver<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(envelope) = self.place.slot.take() else {
            return Err(PyRuntimeError::new_err("there is no message to take"));
        };
        return_value(py, &hand_out(py, self.place.engine(), envelope)?);
        Ok(None)
    }

    /// The wait is over: the task goes, with or without its message.
    fn release(&self, py: Python<'_>) {
        self.park.spend();
        self.place.leave(py);
        self.place.give_back(py);
    }
}

impl Wake for InboxWaiter {
    fn queue(&self) -> Option<&Py<LoopQueue>> {
        Some(self.park.queue())
    }

    fn wake(slf: &Bound<'_, Self>, turn: &Turn) -> PyResult<()> {
        let waiter = slf.get();
        // A receiver that has left since may be waiting again already: then this wake is not for it.
        if !waiter.place.is_served() {
            return Ok(());
        }
        waiter.woken.store(true, Ordering::Relaxed);
        if Self::attend(slf, turn)? {
            return Ok(());
        }
        let slot = &waiter.place.slot;
        let waits = || slot.phase() == Phase::Waiting;
        waiter.park.resume(slf.py(), waits)
    }

    fn give_back(&self, py: Python<'_>) {
        self.place.give_back(py);
    }
}

#[pymethods]
impl InboxWaiter {
    fn __await__(slf: Bound<'_, Self>) -> Steps<'_> {
        Steps::new(slf)
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let (py, waiter) = (slf.py(), slf.get());
        match waiter.place.slot.phase() {
            Phase::Filled if waiter.woken.load(Ordering::Relaxed) => waiter.deliver(py),
            Phase::Closed => Err(waiter.ending()),
            Phase::Taken | Phase::Released | Phase::Interrupted => {
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
            Phase::Waiting | Phase::Filled => Err(PyRuntimeError::new_err(
                "one task at a time waits for a message here",
            )),
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
            // The exception is for what is left to the task, and not for the wait.
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

    // No `__clear__`: a cycle through a waiter goes through its layer or its task too, and those can be cleared.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.attendant)?;
        self.park.traverse(&visit)?;
        self.place.traverse(&visit)
    }
}
