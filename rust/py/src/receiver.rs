//! The receivers that wait at a mailbox, and how a message gets from the engine to them.
//!
//! A message that was handed over and not taken, because the receiver left in between, goes back to its mailbox. Whatever
//! ends a wait without the message removes the receiver from the mailbox's waiters and gives the message back. So does the
//! drop of a receiver.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use headrace_core::sync::Mutex;
use headrace_core::{Envelope, HandOff, MemoryEngine, Parker, Phase, Received, Slot};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::config::LayerClock;
use crate::errors::to_python;
use crate::event_loop::{Alarm, DetachedWakes, LoopQueue, Pace, WaitQueues, Wake, Wakes};
use crate::message::Message;
use crate::park::Park;

mod attend;
mod forward;
mod inbox;
mod receive;
mod thread;

pub(crate) use forward::Forward;

pub(crate) type Engine = MemoryEngine<Message, Receiver, LayerClock>;

/// A waiter of a mailbox.
#[derive(Debug)]
pub(crate) enum Receiver {
    /// A task that waits for one message.
    Task(Py<Waiter>),
    /// A task that takes one message after the other.
    Inbox(Py<InboxWaiter>),
    /// A thread that sleeps in `receive_sync`.
    Thread(Arc<SleepingThread>),
    /// No receiver, but a function to be called when the mailbox is full.
    Alarm(Py<Alarm>),
}

/// A wait for a message, for one task at a time.
///
/// It is among the waiters of the mailbox already, and is awaited once. The await returns None when the message is there,
/// and `take` returns the message: on Python 3.12 and later, to return a value from an awaitable costs an exception.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct Waiter {
    registration: Registration,
    park: Park,
}

/// A wait for the next message of an inbox, for one task at a time. Each await registers it anew, and returns
/// the message.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct InboxWaiter {
    registration: Registration,
    park: Park,
    /// Whether the task that is parked has been resumed: any other must not take its message.
    woken: AtomicBool,
    /// Whether this wait, or the next, is to be interrupted: to end with `None`.
    interrupted: AtomicBool,
    /// Whether the last wait was interrupted, that is, ended with `None`.
    answered_interrupt: AtomicBool,
    /// Called with each message instead of the task that is parked; see `attend`.
    attendant: Option<Py<PyAny>>,
    /// What the attendant has left to the task: the value of its `await`, or the error.
    left: Mutex<Option<PyResult<Py<PyAny>>>>,
    /// How long the task has gone on without a turn of the loop.
    pace: Pace,
}

/// A thread in `receive_sync`.
#[derive(Debug)]
pub(crate) struct SleepingThread {
    channel: String,
    parker: Parker<Message>,
}

/// The mailboxes of a layer, for a receiver of its own.
#[derive(Debug)]
pub(crate) struct Mailboxes {
    pub(crate) engine: Arc<Engine>,
    /// The layer. It shows the garbage collector what is in the mailboxes, so every waiter refers to it.
    pub(crate) layer: Py<PyAny>,
    /// Whether tasks are resumed directly: `wake="direct"`.
    pub(crate) direct_wake: bool,
}

impl Mailboxes {
    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self {
            engine: Arc::clone(&self.engine),
            layer: self.layer.clone_ref(py),
            direct_wake: self.direct_wake,
        }
    }
}

/// The registration of a task as a waiter of one mailbox, with the slot for its message.
#[derive(Debug)]
struct Registration {
    mailboxes: Mailboxes,
    channel: Py<PyString>,
    slot: Slot<Message>,
}

impl Registration {
    fn engine(&self) -> &Engine {
        &self.mailboxes.engine
    }

    fn channel<'a>(&'a self, py: Python<'a>) -> &'a str {
        // The name was read as text before this was made.
        self.channel.to_str(py).unwrap_or_default()
    }

    /// Whether the wait is over.
    fn is_served(&self) -> bool {
        matches!(
            self.slot.phase(),
            Phase::Filled | Phase::Closed | Phase::Interrupted
        )
    }

    /// Adds the receiver to the waiters, or takes the message that is there.
    fn wait(&self, py: Python<'_>, receiver: Receiver) -> PyResult<Option<Envelope<Message>>> {
        let result = self.engine().wait(self.channel(py), receiver, None);
        match result.map_err(to_python)? {
            Received::Ready(envelope) => Ok(Some(envelope)),
            Received::Waiting | Received::Empty => Ok(None),
        }
    }

    /// Removes the receiver from the waiters; false if it was not among them.
    fn leave(&self, py: Python<'_>) -> bool {
        let own = |receiver: &Receiver| {
            let registration = receiver.registration();
            registration.is_some_and(|registration| std::ptr::eq(registration, self))
        };
        self.engine().forget(self.channel(py), own).is_some()
    }

    /// Gives back what was handed over and not taken.
    fn give_back(&self, py: Python<'_>) {
        if let Some(envelope) = self.slot.release() {
            give_back(py, self.engine(), self.channel(py), envelope);
        }
    }

    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.mailboxes.layer)?;
        self.slot
            .peek(|message| message.traverse(visit))
            .unwrap_or(Ok(()))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(envelope) = self.slot.release() {
            Python::try_attach(|py| {
                give_back(py, self.engine(), self.channel(py), envelope);
            });
        }
    }
}

impl Receiver {
    /// The registration of a task.
    fn registration(&self) -> Option<&Registration> {
        match self {
            Self::Task(waiter) => Some(&waiter.get().registration),
            Self::Inbox(waiter) => Some(&waiter.get().registration),
            Self::Thread(_) | Self::Alarm(_) => None,
        }
    }

    /// The queue of the loop that is to wake it.
    fn queue(&self) -> Option<&Py<LoopQueue>> {
        match self {
            Self::Task(waiter) => waiter.get().queue(),
            Self::Inbox(waiter) => waiter.get().queue(),
            Self::Alarm(alarm) => alarm.get().queue(),
            Self::Thread(_) => None,
        }
    }

    pub(crate) fn channel<'a>(&'a self, py: Python<'a>) -> &'a str {
        match self {
            Self::Task(waiter) => waiter.get().registration.channel(py),
            Self::Inbox(waiter) => waiter.get().registration.channel(py),
            Self::Thread(thread) => &thread.channel,
            Self::Alarm(_) => "",
        }
    }

    /// Gives it the message; it is still to be woken. One that has left gives it back.
    pub(crate) fn fill(&self, envelope: Envelope<Message>) -> Result<(), Envelope<Message>> {
        match self {
            Self::Task(waiter) => waiter.get().registration.slot.fill(envelope),
            Self::Inbox(waiter) => waiter.get().registration.slot.fill(envelope),
            Self::Thread(thread) => thread.parker.slot().fill(envelope),
            // It is no waiter for messages.
            Self::Alarm(_) => Ok(()),
        }
    }

    /// Wakes it: a thread at once, a task with all others of its loop.
    pub(crate) fn wake(self, py: Python<'_>, wakes: &mut Wakes) {
        match self {
            Self::Task(waiter) => wakes.add(py, waiter),
            Self::Inbox(waiter) => wakes.add(py, waiter),
            Self::Thread(thread) => thread.parker.wake(),
            Self::Alarm(_) => {}
        }
    }

    /// As `wake`, in a thread that is not attached to Python.
    pub(crate) fn wake_detached(self, wakes: &mut DetachedWakes) {
        match self {
            Self::Task(waiter) => wakes.add(waiter),
            Self::Inbox(waiter) => wakes.add(waiter),
            Self::Thread(thread) => thread.parker.wake(),
            Self::Alarm(alarm) => wakes.add_alarm(alarm),
        }
    }

    /// Ends its wait without a message; it is still to be woken.
    pub(crate) fn end(&self) {
        match self {
            Self::Task(waiter) => waiter.get().registration.slot.close(),
            Self::Inbox(waiter) => waiter.get().registration.slot.close(),
            Self::Thread(thread) => thread.parker.slot().close(),
            Self::Alarm(_) => {}
        }
    }

    /// Shows it to the garbage collector.
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Task(waiter) => visit.call(waiter),
            Self::Inbox(waiter) => visit.call(waiter),
            Self::Alarm(alarm) => visit.call(alarm),
            Self::Thread(_) => Ok(()),
        }
    }
}

impl WaitQueues for Engine {
    fn forget_loop(&self, queue: &LoopQueue) {
        let is_its = |receiver: &Receiver| {
            let own = receiver.queue();
            own.is_some_and(|own| std::ptr::eq(own.get(), queue))
        };
        drop(self.forget_all(is_its));
    }
}

/// Calls the alarms of mailboxes that were full; to be called after each send.
#[inline]
pub(crate) fn call_alarms(py: Python<'_>, engine: &Engine) -> PyResult<()> {
    let alarms = engine.take_alarms();
    if alarms.is_empty() {
        return Ok(());
    }
    for receiver in alarms {
        if let Receiver::Alarm(alarm) = receiver {
            alarm.get().call_soon(py)?;
        }
    }
    Ok(())
}

/// Gives each message to its receiver, then wakes every event loop concerned, once.
///
/// A receiver may have left since the engine removed it from the waiters. Then its message goes back to the engine, or to
/// the next receiver.
///
/// An error was raised in the caller's thread while a loop was woken, by a signal handler for instance. All messages are
/// delivered all the same.
pub(crate) fn deliver(
    py: Python<'_>,
    engine: &Engine,
    hand_offs: impl IntoIterator<Item = HandOff<Message, Receiver>>,
) -> PyResult<()> {
    let mut wakes = Wakes::default();
    for hand_off in hand_offs {
        let mut next = Some(hand_off);
        while let Some(HandOff { waiter, envelope }) = next {
            next = put(py, engine, waiter, envelope, &mut wakes);
        }
    }
    wakes.flush(py)
}

/// As `deliver` and `call_alarms`, in a thread that is not attached to Python. It attaches where a receiver has left.
pub(crate) fn deliver_detached(
    engine: &Engine,
    hand_offs: impl IntoIterator<Item = HandOff<Message, Receiver>>,
    mut wakes: DetachedWakes,
) {
    for HandOff { waiter, envelope } in hand_offs {
        match waiter.fill(envelope) {
            Ok(()) => waiter.wake_detached(&mut wakes),
            Err(envelope) => {
                Python::try_attach(|py| {
                    give_back(py, engine, waiter.channel(py), envelope);
                    drop(waiter);
                });
            }
        }
    }
    for alarm in engine.take_alarms() {
        alarm.wake_detached(&mut wakes);
    }
    wakes.flush();
}

/// Gives a message to its receiver, or back to the engine if the receiver has left: then it may be for the next.
fn put(
    py: Python<'_>,
    engine: &Engine,
    receiver: Receiver,
    envelope: Envelope<Message>,
    wakes: &mut Wakes,
) -> Option<HandOff<Message, Receiver>> {
    match receiver.fill(envelope) {
        Ok(()) => {
            receiver.wake(py, wakes);
            None
        }
        Err(envelope) => engine.give_back(receiver.channel(py), envelope),
    }
}

/// Drops receivers in a thread that is attached to Python: any other would leak them.
pub(crate) fn drop_attached(receivers: Vec<Receiver>) {
    // Without an interpreter they keep nothing alive.
    Python::try_attach(|_| drop(receivers));
}

/// Gives a message that was not taken back to its mailbox, or on to the next receiver.
pub(crate) fn give_back(
    py: Python<'_>,
    engine: &Engine,
    channel: &str,
    envelope: Envelope<Message>,
) {
    if let Err(error) = deliver(py, engine, engine.give_back(channel, envelope)) {
        error.write_unraisable(py, None);
    }
}

/// Gives a receiver its copy of a message. One that cannot be copied any more is dropped, and counted as that.
pub(crate) fn hand_out(
    py: Python<'_>,
    engine: &Engine,
    envelope: Envelope<Message>,
) -> PyResult<Py<PyAny>> {
    envelope
        .message
        .into_python(py)
        .inspect_err(|_| engine.count_unusable())
}
