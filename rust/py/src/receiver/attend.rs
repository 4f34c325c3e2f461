//! Messages that are handled without resuming the task that waits for them.
//!
//! A task that handles one message after the other is resumed for each, only to call a function and to wait again. Its
//! inbox may have an attendant: a Python function that the loop's callback itself calls, in the task's
//! context, while the task stays parked. What the attendant cannot finish at once it returns, and the task is resumed
//! with that as the value of its `await`. The loop has a turn after a message that may have started something, and
//! when messages have been handled for about a millisecond.
//!
//! The attendant is called only while the task is parked and neither cancelled nor interrupted. What is only written, by
//! `Forward`, may still be written when the task has been cancelled and has not had its turn.

use std::sync::atomic::Ordering;

use pyo3::prelude::*;
use pyo3::types::PyBool;

use super::{Forward, InboxWaiter, Receiver, hand_out};
use crate::event_loop::{Turn, Wakes};
use crate::frames::flush;
use crate::message::Message;
use crate::once::intern;

impl InboxWaiter {
    /// Calls the attendant, if there is one and it may act for the task. True if the task goes on waiting.
    pub(super) fn attend(slf: &Bound<'_, Self>, turn: &Turn) -> PyResult<bool> {
        let (py, waiter) = (slf.py(), slf.get());
        let Some(attendant) = &waiter.attendant else {
            return Ok(false);
        };
        if waiter.is_interrupted() || !waiter.park.knows_task() {
            return Ok(false);
        }
        let registration = &waiter.registration;
        let mut context = None;
        loop {
            let Some(envelope) = registration.slot.take() else {
                return Ok(false);
            };
            let left = match forwarded(attendant.bind(py), &envelope.message) {
                Ok(true) => Ok(PyBool::new(py, true).to_owned().into_any()),
                Ok(false) => {
                    // What needs no Python needs neither the task nor its context: they are not looked at for it.
                    if context.is_none() {
                        context = waiter.park.context(py)?;
                    }
                    let Some(context) = &context else {
                        registration.slot.reset();
                        let _ = registration.slot.fill(envelope);
                        return Ok(false);
                    };
                    let message = hand_out(py, registration.engine(), envelope);
                    message.and_then(|message| attended(context.bind(py), attendant, message))
                }
                Err(error) => Err(error),
            };
            let goes_on = match left {
                Ok(left) if left.is_none() => false,
                Ok(left) if left.is(PyBool::new(py, true)) => true,
                left => {
                    drop(waiter.left.replace(left.map(Bound::unbind)));
                    return Ok(false);
                }
            };
            registration.slot.reset();
            if waiter.is_interrupted() {
                registration.slot.interrupt();
                return Self::wake_again(slf, Wakes::add_interrupted);
            }
            match registration.wait(py, Receiver::Inbox(slf.clone().unbind())) {
                // The slot is not registered, so nobody else fills it.
                Ok(Some(next)) => {
                    drop(registration.slot.fill(next));
                    if !goes_on || turn.is_over() {
                        return Self::wake_again(slf, Wakes::add);
                    }
                }
                Ok(None) => {
                    waiter.woken.store(false, Ordering::Relaxed);
                    return Ok(true);
                }
                Err(_) => {
                    registration.slot.close();
                    return Ok(false);
                }
            }
        }
    }

    /// Has the waiter woken again in the loop's next turn. The task waits on.
    fn wake_again(
        slf: &Bound<'_, Self>,
        add: fn(&mut Wakes, Python<'_>, Py<Self>),
    ) -> PyResult<bool> {
        slf.get().woken.store(false, Ordering::Relaxed);
        let mut wakes = Wakes::default();
        add(&mut wakes, slf.py(), slf.clone().unbind());
        wakes.flush(slf.py()).map(|()| true)
    }
}

/// Whether the message was forwarded, without any of Python's.
fn forwarded(attendant: &Bound<'_, PyAny>, message: &Message) -> PyResult<bool> {
    match attendant.cast_exact::<Forward>() {
        Ok(forward) => forward.get().forward(attendant.py(), message),
        Err(_) => Ok(false),
    }
}

/// Calls the attendant in the task's context.
fn attended<'py>(
    context: &Bound<'py, PyAny>,
    attendant: &Py<PyAny>,
    message: Py<PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = context.py();
    // It may send to a socket that a frame waits for.
    flush(py)?;
    let function = match attendant.bind(py).cast_exact::<Forward>() {
        Ok(forward) => forward.get().attendant(),
        Err(_) => attendant,
    };
    context.call_method1(intern!(py, "run"), (function, message))
}
