//! Who waits in a mailbox, and how a message gets from the engine to them.

use std::sync::Arc;

use headrace_core::{Envelope, HandOff, MemoryEngine, Parker};
use pyo3::prelude::*;

use crate::awaitable::Waiter;
use crate::config::LayerClock;
use crate::event_loop::Wakes;
use crate::message::Message;

pub(crate) type Engine = MemoryEngine<Message, Receiver, LayerClock>;

/// A receiver in line at a mailbox.
#[derive(Debug)]
pub(crate) enum Receiver {
    /// A task of some event loop.
    Task(Py<Waiter>),
    /// A thread that sleeps in `receive_sync`.
    Thread(Arc<SleepingThread>),
}

#[derive(Debug)]
pub(crate) struct SleepingThread {
    pub(crate) channel: String,
    pub(crate) parker: Parker<Message>,
}

/// Puts each message in its receiver's hands, then wakes every event loop concerned, once.
///
/// A receiver may have left since the engine gave it out; then its message goes back, and perhaps on to the next one.
pub(crate) fn deliver(
    py: Python<'_>,
    engine: &Engine,
    hand_offs: impl IntoIterator<Item = HandOff<Message, Receiver>>,
) {
    let mut wakes = Wakes::default();
    for hand_off in hand_offs {
        let mut next = Some(hand_off);
        while let Some(HandOff { waiter, envelope }) = next {
            next = put(py, engine, waiter, envelope, &mut wakes);
        }
    }
    wakes.ring(py);
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
        Receiver::Thread(thread) => match thread.parker.slot().fill(envelope) {
            Ok(()) => {
                thread.parker.wake();
                None
            }
            Err(envelope) => engine.give_back(&thread.channel, envelope),
        },
    }
}
