//! The message that tells a receiver to end, where that receiver is too busy to come to it.

use super::MemoryEngine;
use crate::clock::Clock;
use crate::error::Error;
use crate::message::{ByteSize, Envelope};

impl<M: Clone + ByteSize, W, C: Clock> MemoryEngine<M, W, C> {
    /// Has `alarm` given out by [`Self::take_alarms`] once a final message waits in the channel, also if one waits already.
    ///
    /// # Errors
    /// The name is invalid, or the engine is closed.
    pub fn watch_final(&self, channel: &str, alarm: W) -> Result<(), Error> {
        // Borrowed by the operation, so that an alarm that is not needed is dropped when the lock is released.
        let mut alarm = Some(alarm);
        self.with_channel(channel, |state, channel, _| {
            if let Some(alarm) = alarm.take() {
                state.watch_final(channel, alarm);
            }
        })
    }

    /// Takes the final message of a channel, past those that came before it.
    ///
    /// # Errors
    /// The name is invalid, or the engine is closed.
    pub fn take_final(&self, channel: &str) -> Result<Option<Envelope<M>>, Error> {
        self.with_receiver(|state| {
            let found = state.find_open(channel)?;
            Ok(found.and_then(|channel| state.take_final(channel)))
        })
    }
}
