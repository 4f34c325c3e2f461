//! The host of the Redis engine: messages that Python decodes, and the wake-up of tasks and threads.
//!
//! All of this runs in the I/O thread. That is not attached to Python, and attaches only in four cases: a message comes
//! too late for a receiver that was cancelled, and goes to the next; a loop is gone, or can only be woken by calling it;
//! a capacity rule is a compiled pattern of Python's; and receivers, or the engine, are dropped.

use std::sync::Arc;

use headrace_core::HandOff;
use headrace_core::redis::{Answer, Host, LedgerEntry, RawMessage};
use pyo3::prelude::*;

use crate::config::LayerClock;
use crate::event_loop::DetachedWakes;
use crate::message::Message;
use crate::receiver::{Engine, Receiver, deliver_detached};
use crate::reply::Pending;

/// Where an answer of the engine goes.
#[derive(Debug)]
pub(crate) enum Ticket {
    /// To the reply that Python holds.
    Reply(Arc<Pending>),
    /// To a ledger, which is read later.
    Ledger(LedgerEntry),
}

/// The bindings' side of the engine.
#[derive(Debug)]
pub(crate) struct Bindings {
    /// Taken only by the drop.
    local: Option<Arc<Engine>>,
}

impl Bindings {
    pub(crate) fn new(local: Arc<Engine>) -> Self {
        Self { local: Some(local) }
    }
}

impl Drop for Bindings {
    /// The driver may drop it last, in its thread. The engine holds objects of Python, which that thread would leak.
    fn drop(&mut self) {
        let local = self.local.take();
        Python::try_attach(|_| drop(local));
    }
}

impl Host for Bindings {
    type Message = Message;
    type Waiter = Receiver;
    type Ticket = Ticket;
    type Clock = LayerClock;

    fn message(&self, raw: RawMessage) -> Message {
        Message::from_frame(raw.payload, raw.kind)
    }

    fn payload<'a>(&self, message: &'a Message) -> Option<&'a [u8]> {
        message.payload()
    }

    fn deliver(&self, answers: Vec<(Ticket, Answer)>, hand_offs: Vec<HandOff<Message, Receiver>>) {
        let mut wakes = DetachedWakes::default();
        for (ticket, answer) in answers {
            match ticket {
                Ticket::Reply(pending) => pending.answer(answer, &mut wakes),
                Ticket::Ledger(entry) => entry.answer(&answer),
            }
        }
        match &self.local {
            Some(local) => deliver_detached(local, hand_offs, wakes),
            None => wakes.flush(),
        }
    }
}
