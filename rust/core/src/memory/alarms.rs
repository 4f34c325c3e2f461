//! The alarms of channels that have been full, or that hold a final message.

use std::sync::atomic::Ordering;

use super::MemoryEngine;
use super::state::State;
use crate::clock::Clock;
use crate::message::ByteSize;

impl<M: Clone + ByteSize, W, C: Clock> MemoryEngine<M, W, C> {
    /// Whether there are alarms to be taken. Does not wait for the lock.
    #[inline]
    pub fn has_alarms(&self) -> bool {
        self.alarmed.load(Ordering::Acquire)
    }

    /// Those whose channels have been full, or have held a final message, since the last time this was asked.
    #[must_use = "an alarm that is not delivered is lost"]
    #[inline]
    pub fn take_alarms(&self) -> Vec<W> {
        if self.has_alarms() {
            self.take_alarms_at_hand()
        } else {
            Vec::new()
        }
    }

    #[cold]
    fn take_alarms_at_hand(&self) -> Vec<W> {
        self.alarmed.store(false, Ordering::Relaxed);
        self.with_receiver(State::take_alarms)
    }
}
