//! What the state says of itself.

use super::State;
use crate::clock::Moment;
use crate::engine::{ChannelStats, LayerStats};
use crate::memory::channels::ChannelKey;
use crate::message::ByteSize;

impl<M: Clone + ByteSize, W> State<M, W> {
    /// For how many entries the tables have memory.
    #[cfg(test)]
    pub(crate) fn room(&self) -> Vec<usize> {
        let groups = self.groups.room();
        let channels = self.channels.room();
        [&channels[..], &[self.unswept.room()], &groups].concat()
    }

    pub(crate) fn stats(&mut self, now: Moment) -> LayerStats {
        let history = self.history_stats(now);
        let presence = self.presence_stats();
        LayerStats {
            channels: self.channels.held(),
            groups: self.groups.len(),
            memberships: self.groups.memberships(),
            history_messages: history.messages,
            history_bytes: history.bytes,
            history_evicted: history.evicted,
            presence_entries: presence.entries,
            presence_diffs: presence.diffs,
            presence_hidden: presence.hidden,
            presence_outdated: presence.outdated,
            ..self.totals
        }
    }

    pub(crate) fn channel_stats(&mut self, channel: ChannelKey, now: Moment) -> ChannelStats {
        self.expire(channel, now);
        let mailbox = self.mailbox(channel);
        ChannelStats {
            depth: mailbox.depth(),
            capacity: mailbox.capacity(),
            bytes: mailbox.bytes(),
            capacity_bytes: mailbox.capacity_bytes(),
            waiters: mailbox.waiting(),
            groups: self.groups.count_of(channel),
            delivered: mailbox.counters.delivered,
            dropped_full: mailbox.counters.dropped_full,
            dropped_expired: mailbox.counters.dropped_expired,
            dropped_replaced: mailbox.counters.dropped_replaced,
            full_by_bytes: mailbox.counters.full_by_bytes,
        }
    }
}
