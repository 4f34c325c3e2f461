//! Who waits in a mailbox, and how a message gets from the engine to them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use headrace_core::{Envelope, HandOff, MemoryEngine, Parker};
use pyo3::prelude::*;

use crate::awaitable::Waiter;
use crate::config::LayerClock;
use crate::errors::layer_closed;
use crate::event_loop::{Alarm, Lines, LoopQueue, Wake, Wakes};
use crate::greenlets;
use crate::message::Message;

pub(crate) type Engine = MemoryEngine<Message, Receiver, LayerClock>;

/// A receiver in line at a mailbox.
#[derive(Debug)]
pub(crate) enum Receiver {
    /// A task of some event loop.
    Task(Py<Waiter>),
    /// A thread that sleeps in `receive_sync`.
    Thread(Arc<SleepingThread>),
    /// Nobody who waits, but whom to tell that the mailbox is full.
    Alarm(Py<Alarm>),
}

impl Lines for Engine {
    fn forget_loop(&self, queue: &LoopQueue) {
        let is_its = |receiver: &Receiver| match receiver {
            Receiver::Task(waiter) => std::ptr::eq(waiter.get().queue().get(), queue),
            Receiver::Alarm(alarm) => std::ptr::eq(alarm.get().queue().get(), queue),
            Receiver::Thread(_) => false,
        };
        drop(self.forget_all(is_its));
    }
}

/// Tells those whose mailboxes were full; to be called after a send for which some mailbox was.
#[inline]
pub(crate) fn sound_alarms(py: Python<'_>, engine: &Engine) -> PyResult<()> {
    let alarms = engine.take_alarms();
    if alarms.is_empty() {
        return Ok(());
    }
    for receiver in alarms {
        if let Receiver::Alarm(alarm) = receiver {
            alarm.get().sound(py)?;
        }
    }
    Ok(())
}

/// A thread in `receive_sync`.
#[derive(Debug)]
pub(crate) struct SleepingThread {
    channel: String,
    parker: Parker<Message>,
}

/// How long a sleeping thread goes without looking for signals.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(50);

/// Sleeps, by a function that does so for a time and tells whether it was woken, until it was or the time is over. A
/// signal's exception ends it.
pub(crate) fn sleep(
    py: Python<'_>,
    end: Option<Instant>,
    asleep: impl Fn(Duration) -> bool + Sync,
) -> PyResult<bool> {
    if let Some(woken) = greenlets::wait(py, end, || asleep(Duration::ZERO))? {
        return Ok(woken);
    }
    loop {
        let left = end.map_or(Duration::MAX, |end| {
            end.saturating_duration_since(Instant::now())
        });
        if py.detach(|| asleep(left.min(SIGNAL_INTERVAL))) {
            return Ok(true);
        }
        py.check_signals()?;
        if left.is_zero() {
            return Ok(false);
        }
    }
}

impl SleepingThread {
    pub(crate) fn new(channel: &str) -> Self {
        Self {
            channel: channel.to_owned(),
            parker: Parker::default(),
        }
    }

    pub(crate) fn channel(&self) -> &str {
        &self.channel
    }

    /// Puts the message in the thread's hands, and wakes it.
    pub(crate) fn fill(&self, envelope: Envelope<Message>) -> Result<(), Envelope<Message>> {
        self.parker.slot().fill(envelope)?;
        self.parker.wake();
        Ok(())
    }

    /// Sleeps until the message comes or the time is over.
    pub(crate) fn sleep(
        self: &Arc<Self>,
        py: Python<'_>,
        engine: &Engine,
        end: Option<Instant>,
    ) -> PyResult<Option<Envelope<Message>>> {
        match sleep(py, end, |time| self.parker.sleep(time)) {
            Ok(true) => self.parker.slot().take().ok_or_else(layer_closed).map(Some),
            Ok(false) => Ok(self.leave(engine)),
            Err(interrupt) => {
                if let Some(envelope) = self.leave(engine) {
                    give_back(py, engine, &self.channel, envelope);
                }
                Err(interrupt)
            }
        }
    }

    /// Leaves the line, with the message that came at the last moment. One that is still on its way finds the slot
    /// released, and goes back.
    fn leave(self: &Arc<Self>, engine: &Engine) -> Option<Envelope<Message>> {
        let own = |receiver: &Receiver| match receiver {
            Receiver::Thread(waiting) => Arc::ptr_eq(waiting, self),
            Receiver::Task(_) | Receiver::Alarm(_) => false,
        };
        drop(engine.forget(&self.channel, own));
        self.parker.slot().release()
    }

    /// Ends the wait without a message, because the layer was closed.
    pub(crate) fn end(&self) {
        self.parker.slot().close();
        self.parker.wake();
    }
}

/// Puts each message in its receiver's hands, then wakes every event loop concerned, once.
///
/// A receiver may have left since the engine gave it out; then its message goes back, and perhaps on to the next one.
/// Whatever is raised was raised in the caller's thread while a loop was woken, by a signal handler for instance: the
/// messages are delivered all the same.
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
    wakes.ring(py)
}

fn put(
    py: Python<'_>,
    engine: &Engine,
    receiver: Receiver,
    envelope: Envelope<Message>,
    wakes: &mut Wakes,
) -> Option<HandOff<Message, Receiver>> {
    match receiver {
        Receiver::Task(waiter) => match waiter.get().fill(envelope) {
            Ok(()) => {
                wakes.add(py, waiter);
                None
            }
            Err(envelope) => engine.give_back(waiter.get().channel(py), envelope),
        },
        Receiver::Thread(thread) => match thread.fill(envelope) {
            Ok(()) => None,
            Err(envelope) => engine.give_back(&thread.channel, envelope),
        },
        // Never in line, so never given a message.
        Receiver::Alarm(_) => None,
    }
}

/// Lets receivers go in a thread that is attached to Python: any other would leak them.
pub(crate) fn bury(receivers: Vec<Receiver>) {
    // Without an interpreter there is nothing left that they could keep alive.
    Python::try_attach(|_| drop(receivers));
}

/// Gives a message that was not taken back to its mailbox, or on to the next receiver.
pub(crate) fn give_back(
    py: Python<'_>,
    engine: &Engine,
    channel: &str,
    envelope: Envelope<Message>,
) {
    if envelope.message.is_answer() {
        return;
    }
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
    if envelope.message.is_answer() {
        return envelope.message.into_python(py);
    }
    envelope
        .message
        .into_python(py)
        .inspect_err(|_| engine.count_unusable())
}
