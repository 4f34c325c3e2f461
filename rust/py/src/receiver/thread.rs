//! A thread that waits for a message.

use std::sync::Arc;
use std::time::Instant;

use headrace_core::{Envelope, Parker};
use pyo3::prelude::*;

use super::{Engine, Receiver, SleepingThread, give_back};
use crate::errors::layer_closed;
use crate::message::Message;
use crate::sleep::sleep;

impl SleepingThread {
    pub(crate) fn new(channel: &str) -> Self {
        Self {
            channel: channel.to_owned(),
            parker: Parker::default(),
        }
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
            Err(exception) => {
                if let Some(envelope) = self.leave(engine) {
                    give_back(py, engine, &self.channel, envelope);
                }
                Err(exception)
            }
        }
    }

    /// Removes the thread from the waiters, and returns a message that came at the last moment. A later one finds the slot
    /// released, and goes back.
    fn leave(self: &Arc<Self>, engine: &Engine) -> Option<Envelope<Message>> {
        let own = |receiver: &Receiver| match receiver {
            Receiver::Thread(waiting) => Arc::ptr_eq(waiting, self),
            Receiver::Task(_) | Receiver::Inbox(_) | Receiver::Alarm(_) => false,
        };
        drop(engine.forget(&self.channel, own));
        self.parker.slot().release()
    }
}
