//! Removing what has expired, a little with each operation.

use std::time::Duration;

use super::State;
use crate::clock::Moment;
use crate::memory::channels::ChannelKey;
use crate::message::ByteSize;

/// How many overdue mailboxes and how many memberships one operation removes at most. Two where most add one at most,
/// so the sweep keeps up; a `group_send` may fill many mailboxes, and those wait for their turn.
const SWEEP: usize = 2;

impl<M: Clone + ByteSize, W> State<M, W> {
    /// Removes a few mailboxes and memberships whose time is over.
    pub(crate) fn sweep(&mut self, now: Moment, expiry: Duration) {
        for _ in 0..SWEEP {
            if !self.sweep_one(now, expiry) {
                return;
            }
        }
    }

    pub(crate) fn sweep_all(&mut self, now: Moment, expiry: Duration) {
        while self.sweep_one(now, expiry) {}
    }

    /// Looks at the mailbox that was not swept for longest, and at the oldest membership; false if neither is due.
    fn sweep_one(&mut self, now: Moment, expiry: Duration) -> bool {
        let mailbox = self.unswept.due(now);
        if let Some(channel) = mailbox {
            self.sweep_mailbox(channel, now, expiry);
        }
        let member = self.groups.expire_one(now);
        if let Some(channel) = member {
            self.mark_idle_if_empty(channel);
        }
        mailbox.is_some() || member.is_some()
    }

    fn sweep_mailbox(&mut self, channel: ChannelKey, now: Moment, expiry: Duration) {
        self.expire(channel, now);
        self.unswept.disarm(channel);
        // Here, because it is done once in a while, and not with each message.
        self.mailbox_mut(channel).shrink();
        if self.mailbox(channel).depth() > 0 {
            self.unswept.arm(channel, now.after(expiry));
        }
        self.mark_idle_if_empty(channel);
    }

    pub(super) fn expire(&mut self, channel: ChannelKey, now: Moment) {
        let (before, bytes) = (self.dropped.len(), self.mailbox(channel).bytes());
        self.channels[channel]
            .mailbox
            .expire(now, &mut self.dropped);
        self.count_bytes(channel, bytes);
        self.count_expired(before);
        self.collect_replays(channel);
    }

    pub(super) fn expire_group(&mut self, group: u32, now: Moment) {
        for channel in self.groups.expire_group(group, now) {
            self.mark_idle_if_empty(channel);
        }
    }
}
