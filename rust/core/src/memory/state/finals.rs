//! The final messages of a channel that wait, and the alarms for them.

use super::State;
use crate::memory::channels::ChannelKey;
use crate::message::{ByteSize, Envelope};

impl<M: Clone + ByteSize, W> State<M, W> {
    /// Keeps an alarm for the first final message that waits, or gives it out if one waits already.
    pub(crate) fn watch_final(&mut self, channel: ChannelKey, alarm: W) {
        let mailbox = self.mailbox_mut(channel);
        let former = mailbox.watch_final(alarm);
        let due = mailbox.has_final().then(|| mailbox.take_final_alarm());
        self.retired.extend(former);
        self.alarms.extend(due.flatten());
        self.mark_idle_if_empty(channel);
    }

    /// Gives the alarm out if the message that was queued last is a final one.
    #[cold]
    pub(super) fn note_queued(&mut self, channel: ChannelKey) {
        let alarm = self.mailbox_mut(channel).alarm_of_last();
        self.alarms.extend(alarm);
    }

    /// Takes the final message, past those that came before it.
    pub(crate) fn take_final(&mut self, channel: ChannelKey) -> Option<Envelope<M>> {
        let mailbox = self.mailbox_mut(channel);
        let bytes = mailbox.bytes();
        let taken = mailbox.take_final()?;
        self.totals.bytes = self.totals.bytes - bytes + self.mailbox(channel).bytes();
        self.totals.depth -= 1;
        self.totals.delivered += 1;
        self.mark_idle_if_empty(channel);
        Some(taken)
    }
}
