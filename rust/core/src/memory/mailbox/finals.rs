//! The final message of a mailbox, and who is told that it waits.

use super::Mailbox;
use crate::message::{ByteSize, Envelope};

impl<M: ByteSize, W> Mailbox<M, W> {
    /// Keeps an alarm for the first final message that waits. Returns the former.
    pub(crate) fn watch_final(&mut self, alarm: W) -> Option<W> {
        self.final_alarm.replace(alarm)
    }

    pub(crate) fn has_final(&self) -> bool {
        self.queue.iter().any(|it| it.message.is_final())
    }

    pub(crate) fn take_final_alarm(&mut self) -> Option<W> {
        self.final_alarm.take()
    }

    /// Whether there is an alarm for the first final message that waits.
    #[inline]
    pub(crate) fn watches_final(&self) -> bool {
        self.final_alarm.is_some()
    }

    /// The alarm, if the last message of the queue is a final one.
    pub(crate) fn alarm_of_last(&mut self) -> Option<W> {
        let last = self.queue.back()?;
        last.message
            .is_final()
            .then(|| self.final_alarm.take())
            .flatten()
    }

    /// Takes the final message, wherever it is.
    pub(crate) fn take_final(&mut self) -> Option<Envelope<M>> {
        let place = self.queue.iter().position(|it| it.message.is_final())?;
        let taken = self.queue.remove(place)?;
        self.bytes -= taken.message.byte_size();
        self.counters.delivered += 1;
        Some(taken)
    }
}
