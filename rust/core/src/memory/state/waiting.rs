//! Receivers that wait at their channels.

use super::State;
use crate::memory::channels::ChannelKey;
use crate::message::ByteSize;

impl<M: Clone + ByteSize, W> State<M, W> {
    pub(crate) fn wait(&mut self, channel: ChannelKey, waiter: W) {
        self.mailbox_mut(channel).wait(waiter);
        self.channels.mark_in_use(channel);
        self.totals.waiters += 1;
    }

    /// Queues the waiter of an earlier wait again, if `again` returns it.
    pub(crate) fn wait_again(
        &mut self,
        channel: ChannelKey,
        again: impl FnOnce(&W) -> Option<W>,
    ) -> bool {
        match self.mailbox(channel).spare().and_then(again) {
            Some(waiter) => {
                self.wait(channel, waiter);
                true
            }
            None => false,
        }
    }

    pub(crate) fn keep_spare(&mut self, channel: ChannelKey, spare: Option<W>) {
        if let Some(spare) = spare {
            let old = self.mailbox_mut(channel).keep_spare(spare);
            self.retired.extend(old);
        }
    }

    pub(crate) fn forget(
        &mut self,
        channel: ChannelKey,
        is_it: impl FnMut(&W) -> bool,
    ) -> Option<W> {
        let waiter = self.mailbox_mut(channel).forget(is_it)?;
        self.totals.waiters -= 1;
        self.mark_idle_if_empty(channel);
        Some(waiter)
    }

    pub(crate) fn forget_all(&mut self, is_it: &mut impl FnMut(&W) -> bool) -> Vec<W> {
        let mut removed = Vec::new();
        for channel in self.channels.keys() {
            self.totals.waiters -= self
                .mailbox_mut(channel)
                .forget_all(&mut *is_it, &mut removed);
            self.mark_idle_if_empty(channel);
        }
        removed
    }
}
