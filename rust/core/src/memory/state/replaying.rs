//! The histories of groups, and what those who were away get of them.

use super::State;
use crate::clock::{Clock, Moment};
use crate::handoff::HandOff;
use crate::history::{Found, Histories, HistoryStats, Recent, Since, Stamp, Stamped};
use crate::memory::channels::ChannelKey;
use crate::message::{ByteSize, Envelope};

impl<M: Clone + ByteSize, W> State<M, W> {
    pub(crate) fn set_histories(&mut self, histories: Histories<M>) {
        self.histories = Some(Box::new(histories));
    }

    /// All messages that are kept.
    pub(crate) fn kept(&self) -> impl Iterator<Item = &M> {
        self.histories
            .iter()
            .flat_map(|histories| histories.messages())
    }

    pub(super) fn history_stats(&mut self, now: Moment) -> HistoryStats {
        self.histories(|histories| histories.stats(now))
            .unwrap_or_default()
    }

    pub(super) fn clear_histories(&mut self) {
        self.histories(Histories::clear);
    }

    /// Works on the histories, if there are any. What that removes is dropped without the lock.
    pub(crate) fn histories<R>(&mut self, work: impl FnOnce(&mut Histories<M>) -> R) -> Option<R> {
        let histories = self.histories.as_mut()?;
        let result = work(histories);
        let dropped = histories.take_dropped();
        if self.dropped.is_empty() {
            self.dropped = dropped;
        } else {
            self.dropped.extend(dropped);
        }
        Some(result)
    }

    /// Takes the next message of a channel that has replays.
    #[cold]
    pub(super) fn take_in_order(
        &mut self,
        channel: ChannelKey,
        clock: &impl Clock,
    ) -> Option<Envelope<M>> {
        let mailbox = &mut self.channels[channel].mailbox;
        let (before, bytes) = (self.dropped.len(), mailbox.bytes());
        let taken = mailbox.take_in_order(clock, &mut self.dropped);
        self.count_bytes(channel, bytes);
        self.count_expired(before);
        self.collect_replays(channel);
        if taken.is_some() {
            self.totals.depth -= 1;
            self.totals.delivered += 1;
        }
        self.mark_idle_if_empty(channel);
        taken
    }

    pub(super) fn collect_replays(&mut self, channel: ChannelKey) {
        self.channels[channel]
            .mailbox
            .collect_replays(&mut self.dropped);
    }
}

impl<M: Clone + ByteSize + Stamped, W> State<M, W> {
    /// Keeps a message of a group, if that has a history; it is stamped with where it stands.
    pub(crate) fn keep(&mut self, group: &str, message: &M, now: Moment) -> Option<Stamp> {
        self.histories(|histories| {
            histories.push(group, now, message.byte_size(), |stamp| {
                message.stamp(stamp);
                message.clone()
            })
        })?
    }

    pub(crate) fn recent(
        &mut self,
        group: &str,
        since: Since,
        limit: usize,
        now: Moment,
    ) -> Option<Recent<M>> {
        self.histories(|histories| histories.recent(group, since, limit, now))?
    }

    /// Has a channel get what it missed of a group, before what is sent from now on. Returns whether that is complete, and what
    /// went to those who wait at the channel; `None` if the group has no history.
    pub(crate) fn replay(
        &mut self,
        group: &str,
        channel: ChannelKey,
        since: Since,
        (now, deadline): (Moment, Moment),
    ) -> Option<(bool, Vec<HandOff<M, W>>)> {
        let found = self.histories(|histories| histories.find(group, since, now))??;
        Some(self.replay_found(channel, found, deadline))
    }

    /// The same, with what was found.
    pub(crate) fn replay_found(
        &mut self,
        channel: ChannelKey,
        Found { replay, head }: Found<M>,
        deadline: Moment,
    ) -> (bool, Vec<HandOff<M, W>>) {
        let mut hand_offs = Vec::new();
        let Some(mut replay) = replay else {
            return (false, hand_offs);
        };
        let number = head.number.saturating_sub(replay.len() as u64);
        self.drop_stream(channel, head.epoch, number);
        let mailbox = &mut self.channels[channel].mailbox;
        self.totals.sent += replay.len() as u64;
        let sequence = self.next_sequence;
        self.next_sequence += replay.len() as u64;
        let mut taken = 0;
        // Whoever waits there found nothing before.
        while !replay.is_empty()
            && let Some(waiter) = mailbox.next_waiter()
            && let Some(message) = replay.next()
        {
            let envelope = Envelope {
                message,
                sequence: sequence + taken,
                deadline,
            };
            hand_offs.push(HandOff { waiter, envelope });
            taken += 1;
        }
        self.totals.waiters -= hand_offs.len();
        self.totals.delivered += taken;
        if replay.is_empty() {
            replay.finish(&mut Vec::new(), &mut self.dropped);
            return (true, hand_offs);
        }
        self.totals.depth += replay.len();
        mailbox.replay(replay, sequence + taken, deadline);
        if !self.unswept.is_armed(channel) {
            self.unswept.arm(channel, deadline);
        }
        (true, hand_offs)
    }

    /// Drops what waits of a stream and is to be replayed: it came in while the channel was a member before.
    fn drop_stream(&mut self, channel: ChannelKey, epoch: u64, number: u64) {
        let mailbox = &mut self.channels[channel].mailbox;
        let bytes = mailbox.bytes();
        let again = mailbox.drop_stream(epoch, number, &mut self.dropped);
        if again > 0 {
            self.totals.depth -= again;
            self.totals.dropped_replaced += again as u64;
            self.count_bytes(channel, bytes);
        }
        self.collect_replays(channel);
    }
}
