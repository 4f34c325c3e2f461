//! How one task takes the messages of an inbox, one after the other.

use std::sync::atomic::{AtomicBool, Ordering};

use headrace_core::sync::Mutex;
use headrace_core::{Phase, Slot};
use pyo3::exceptions::{PyRuntimeError, PyStopAsyncIteration, PyStopIteration};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::{InboxWaiter, Mailboxes, Receiver, Registration, hand_out};
use crate::errors::to_python;
use crate::event_loop::{
    LoopQueue, Pace, Turn, Wake, Wakes, address, drained_loop, queue_of, running_loop,
};
use crate::once::intern;
use crate::park::{Park, return_value};
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
            registration: Registration {
                mailboxes,
                channel: channel.clone().unbind(),
                slot: Slot::idle(),
            },
            park: Park::new(queue, direct),
            woken: AtomicBool::new(false),
            interrupted: AtomicBool::new(false),
            answered_interrupt: AtomicBool::new(false),
            attendant,
            left: Mutex::default(),
            pace: Pace::default(),
        })
    }

    /// Whether it may serve another wait, as far as it knows.
    pub(crate) fn is_of_use(&self) -> bool {
        self.park.is_of_use()
    }

    /// Ends the present wait without a message, while the layer is open.
    pub(crate) fn end_wait(this: Py<Self>, py: Python<'_>) -> PyResult<()> {
        let registration = &this.get().registration;
        if registration.slot.phase() != Phase::Waiting || !registration.leave(py) {
            return Ok(());
        }
        registration.slot.close();
        let mut wakes = Wakes::default();
        wakes.add(py, this);
        wakes.flush(py)
    }

    /// Ends the present wait with `None`, or the next if there is none. To be called in the loop of the task.
    pub(crate) fn interrupt(this: Py<Self>, py: Python<'_>) -> PyResult<()> {
        let waiter = this.get();
        let was_interrupted = waiter.interrupted.swap(true, Ordering::Relaxed);
        let registration = &waiter.registration;
        match registration.slot.phase() {
            Phase::Waiting if registration.leave(py) => registration.slot.interrupt(),
            // A message is on its way to the task: this wait ends with it, and the next is interrupted. The task is woken
            // early, so that neither waits behind a whole group.
            Phase::Filled if !was_interrupted => {}
            _ => return Ok(()),
        }
        let mut wakes = Wakes::default();
        wakes.add_interrupted(py, this);
        wakes.flush(py)
    }

    /// Whether an interruption is pending. It ends the next wait.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    pub(crate) fn note_interrupt(&self) {
        self.interrupted.store(true, Ordering::Relaxed);
    }

    /// Ends a wait with `None`, or with a message if the wait before ended with `None` too: interruptions and messages
    /// alternate, so that a task that is interrupted all the time gets its messages too.
    fn answer_interrupt<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        if self.answered_interrupt.swap(false, Ordering::Relaxed) {
            let engine = self.registration.engine();
            if let Some(envelope) = engine
                .take(self.registration.channel(py))
                .map_err(to_python)?
            {
                let message = hand_out(py, engine, envelope)?;
                return Err(PyStopIteration::new_err((message,)));
            }
        }
        self.interrupted.store(false, Ordering::Relaxed);
        self.answered_interrupt.store(true, Ordering::Relaxed);
        Ok(None)
    }

    /// Has the loop take a turn before the next message.
    pub(crate) fn end_turn(&self) {
        self.pace.end();
    }

    /// Whether the loop is to have a turn before the task looks for a message: the task has ended its own turn and would
    /// go on at once, because it is interrupted, or because the next call of `drain` comes before what the task has
    /// started.
    fn owes_turn(&self) -> bool {
        self.pace.has_ended()
            && (self.is_interrupted() || self.park.queue().get().is_drain_scheduled())
    }

    /// Gives what the task yields to be resumed in the loop's next turn.
    fn give_way<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.pace.rest();
        py.None().into_bound(py)
    }

    /// Begins a wait. On an error neither the receiver is left among the waiters nor the slot in the phase of a wait.
    fn begin<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let (py, waiter) = (slf.py(), slf.get());
        let here = match drained_loop() {
            Some(address) => address,
            None => address(&running_loop(py)?),
        };
        if !waiter.park.serves(here) || !waiter.registration.slot.reset() {
            return Err(PyRuntimeError::new_err(
                "this inbox is in use in another event loop",
            ));
        }
        waiter.park.vacate();
        waiter.woken.store(false, Ordering::Relaxed);
        Self::enqueue(slf).inspect_err(|_| waiter.release(py))
    }

    /// Adds the receiver to the waiters, or returns the message that is there.
    fn enqueue<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let (py, waiter) = (slf.py(), slf.get());
        let receiver = Receiver::Inbox(slf.clone().unbind());
        let Some(envelope) = waiter.registration.wait(py, receiver)? else {
            waiter.pace.rest();
            return waiter.park.park(py).map(Some);
        };
        // The slot is not registered, so nobody else fills it. The message passes through it, which leaves it ready for
        // the next.
        let _ = waiter.registration.slot.fill(envelope);
        if !waiter
            .pace
            .is_over(waiter.park.queue().get().created().elapsed())
        {
            return waiter.deliver(py);
        }
        // The message waits in the slot for the task's next step.
        waiter.woken.store(true, Ordering::Relaxed);
        Ok(Some(waiter.give_way(py)))
    }

    /// Why there will be no message: the layer was closed, or only this inbox has ended.
    fn ending(&self) -> PyErr {
        match self.registration.engine().check_open() {
            Ok(()) => PyStopAsyncIteration::new_err(()),
            Err(error) => to_python(error),
        }
    }

    /// Ends the step with the message as the value of the `await`.
    fn deliver<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(envelope) = self.registration.slot.take() else {
            return Err(PyRuntimeError::new_err("there is no message to take"));
        };
        return_value(py, &hand_out(py, self.registration.engine(), envelope)?);
        Ok(None)
    }

    /// Ends the wait. A message that was not taken goes back.
    fn release(&self, py: Python<'_>) {
        self.park.spend();
        self.registration.leave(py);
        self.registration.give_back(py);
    }
}

impl Wake for InboxWaiter {
    fn queue(&self) -> Option<&Py<LoopQueue>> {
        Some(self.park.queue())
    }

    fn wake(slf: &Bound<'_, Self>, turn: &Turn) -> PyResult<()> {
        let waiter = slf.get();
        // The receiver may have left and be waiting again: then this wake was for the earlier wait.
        if !waiter.registration.is_served() {
            return Ok(());
        }
        waiter.woken.store(true, Ordering::Relaxed);
        if Self::attend(slf, turn)? {
            return Ok(());
        }
        let slot = &waiter.registration.slot;
        let waits = || slot.phase() == Phase::Waiting;
        waiter.park.resume(slf.py(), waits)
    }

    fn give_back(&self, py: Python<'_>) {
        self.registration.give_back(py);
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
        match waiter.registration.slot.phase() {
            Phase::Filled if waiter.woken.load(Ordering::Relaxed) => waiter.deliver(py),
            Phase::Closed => Err(waiter.ending()),
            Phase::Taken | Phase::Released | Phase::Interrupted => {
                if let Some(left) = waiter.left.take() {
                    // Not by `return_value`: unlike a message, it may be of a type that `StopIteration` unpacks.
                    return Err(PyStopIteration::new_err((left?,)));
                }
                if waiter.owes_turn() {
                    return Ok(Some(waiter.give_way(py)));
                }
                if waiter.is_interrupted() {
                    return waiter.answer_interrupt(py);
                }
                waiter.answered_interrupt.store(false, Ordering::Relaxed);
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
            // The exception is passed on with what is left to the task.
            let set = left.bind(py).setattr(intern!(py, "cancelled"), &exception);
            if set.is_ok() {
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
        self.registration.traverse(&visit)
    }
}
