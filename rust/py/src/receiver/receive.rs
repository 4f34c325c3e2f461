//! How one task waits for one message.

use headrace_core::{Phase, Slot};
use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::{Mailboxes, Registration, Waiter, hand_out};
use crate::errors::layer_closed;
use crate::event_loop::{LoopQueue, Turn, Wake, queue_of};
use crate::park::Park;
use crate::stub::Steps;

impl Waiter {
    /// A waiter for a task of the loop. It is not registered yet.
    pub(crate) fn new(
        mailboxes: Mailboxes,
        channel: &Bound<'_, PyString>,
        event_loop: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let queue = queue_of(event_loop)?;
        queue.get().remember(&mailboxes.engine);
        let direct = mailboxes.direct_wake;
        Ok(Self {
            registration: Registration {
                mailboxes,
                channel: channel.clone().unbind(),
                slot: Slot::default(),
            },
            park: Park::new(queue, direct),
        })
    }

    /// Makes the waiter ready for another wait of a task of the loop at this address; false if it is still in use, or of
    /// no use any more.
    pub(crate) fn again(&self, event_loop: usize) -> bool {
        // The address identifies the loop only as long as that loop's end would be noticed.
        let serves = self.park.queue().get().has_reader() && self.park.serves(event_loop);
        if !serves || !self.registration.slot.reset() {
            return false;
        }
        self.park.vacate();
        true
    }

    /// Ends the wait. A message that was not taken goes back.
    fn release(&self, py: Python<'_>) {
        self.park.spend();
        self.registration.leave(py);
        self.registration.give_back(py);
    }
}

impl Wake for Waiter {
    fn queue(&self) -> Option<&Py<LoopQueue>> {
        Some(self.park.queue())
    }

    fn wake(slf: &Bound<'_, Self>, _: &Turn) -> PyResult<()> {
        let waiter = slf.get();
        // The receiver may have left and be waiting again: then this wake was for the earlier wait.
        if !waiter.registration.is_served() {
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
impl Waiter {
    fn __await__(slf: Bound<'_, Self>) -> Steps<'_> {
        Steps::new(slf)
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.registration.slot.phase() {
            Phase::Filled => Ok(None),
            Phase::Closed => Err(layer_closed()),
            Phase::Waiting if !self.park.is_taken() => self.park.park(py).map(Some),
            Phase::Waiting | Phase::Taken | Phase::Released | Phase::Interrupted => Err(
                PyRuntimeError::new_err("one task at a time waits for a message here"),
            ),
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
        self.release(py);
        Err(PyErr::from_value(val.unwrap_or(typ)))
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
        match self.registration.slot.take() {
            Some(envelope) => hand_out(py, self.registration.engine(), envelope),
            None => Err(PyRuntimeError::new_err("there is no message to take")),
        }
    }

    // No `__clear__`: a cycle through a waiter goes through its layer or its task too, and those can be cleared.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.park.traverse(&visit)?;
        self.registration.traverse(&visit)
    }
}
