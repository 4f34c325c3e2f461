//! The state behind the memory engine's lock: pure bookkeeping, one caller at a time.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use slab::Slab;

use crate::clock::{Clock, Moment};
use crate::engine::{ChannelStats, LayerStats};
use crate::error::Error;
use crate::expiry::ExpiryList;
use crate::fanout::FanOut;
use crate::group::{key, ChannelKey, Groups};
use crate::handoff::HandOff;
use crate::mailbox::{Bound, Counters, Mailbox, Offer};
use crate::message::{ByteSize, Envelope};
use crate::name::{check_channel, check_group};
use crate::overflow::Overflow;
use crate::shrink::is_sparse;

/// How many overdue mailboxes and how many memberships one operation clears away at most. Two where most add one at most,
/// so the sweep keeps up; a `group_send` may fill many mailboxes, and those wait for their turn.
const SWEEP: usize = 2;

/// How many channels that hold nothing are kept for their names to come back. They are gone for everybody who looks; but
/// a channel that is used for one message at a time would otherwise be made and thrown away with each.
const IDLE: usize = if cfg!(any(test, loom)) { 2 } else { 256 };

pub(crate) struct State<M, W> {
    channels: Slab<Channel<M, W>>,
    names: HashMap<Arc<str>, ChannelKey>,
    pub(crate) groups: Groups,
    /// Mailboxes with messages, by when they were last known to be fresh, plus the expiry.
    unswept: ExpiryList,
    /// How many channels hold nothing.
    idle: usize,
    /// Channels that held nothing when they were put here, the first of them at the front; they may have come back since.
    kept: ExpiryList,
    totals: Totals,
    /// How many bytes a mailbox holds behind its first message.
    capacity_bytes: usize,
    next_sequence: u64,
    closed: bool,
    /// What the present operation dropped, kept until the lock is released.
    dropped: Vec<M>,
    /// The waiters that it let go, kept for the same reason.
    retired: Vec<W>,
    /// Whom to tell that their mailbox is full, until the engine asks.
    alarms: Vec<W>,
}

struct Channel<M, W> {
    name: Arc<str>,
    mailbox: Mailbox<M, W>,
    /// How many hold it: its memberships last meanwhile.
    holders: u32,
    /// Holds nothing: gone for everybody who looks.
    idle: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    depth: usize,
    bytes: usize,
    waiters: usize,
    sent: u64,
    delivered: u64,
    returned: u64,
    dropped_full: u64,
    dropped_expired: u64,
    dropped_replaced: u64,
    full_by_bytes: u64,
    dropped_other: u64,
}

impl<M: Clone + ByteSize, W> State<M, W> {
    pub(crate) fn new(capacity_bytes: usize) -> Self {
        Self {
            channels: Slab::new(),
            names: HashMap::new(),
            groups: Groups::default(),
            unswept: ExpiryList::default(),
            idle: 0,
            kept: ExpiryList::default(),
            totals: Totals::default(),
            capacity_bytes,
            next_sequence: 0,
            closed: false,
            dropped: Vec::new(),
            retired: Vec::new(),
            alarms: Vec::new(),
        }
    }

    pub(crate) fn mailbox(&self, channel: ChannelKey) -> &Mailbox<M, W> {
        &self.channels[channel as usize].mailbox
    }

    pub(crate) fn name(&self, channel: ChannelKey) -> &Arc<str> {
        &self.channels[channel as usize].name
    }

    pub(crate) fn channels(&self) -> impl Iterator<Item = (&Arc<str>, &Mailbox<M, W>)> {
        self.channels
            .iter()
            .map(|(_, channel)| (&channel.name, &channel.mailbox))
    }

    pub(crate) fn mailboxes(&self) -> impl Iterator<Item = &Mailbox<M, W>> {
        self.channels.iter().map(|(_, channel)| &channel.mailbox)
    }

    fn mailbox_mut(&mut self, channel: ChannelKey) -> &mut Mailbox<M, W> {
        &mut self.channels[channel as usize].mailbox
    }

    pub(crate) fn find(&self, channel: &str) -> Option<ChannelKey> {
        self.names.get(channel).copied()
    }

    pub(crate) fn check_open(&self) -> Result<(), Error> {
        if self.closed {
            return Err(Error::Closed);
        }
        Ok(())
    }

    /// A known name was checked when it came in; an unknown one is checked now.
    pub(crate) fn find_open(&self, channel: &str) -> Result<Option<ChannelKey>, Error> {
        let found = self.find(channel);
        if found.is_none() {
            check_channel(channel)?;
            self.check_open()?;
        }
        Ok(found)
    }

    pub(crate) fn find_group(&self, group: &str) -> Result<Option<u32>, Error> {
        let found = self.groups.find(group);
        if found.is_none() {
            check_group(group)?;
            self.check_open()?;
        }
        Ok(found)
    }

    pub(crate) fn find_fresh_group(
        &mut self,
        group: &str,
        now: Moment,
    ) -> Result<Option<u32>, Error> {
        let Some(found) = self.find_group(group)? else {
            return Ok(None);
        };
        self.expire_group(found, now);
        Ok(self.groups.find(group))
    }

    /// The channel of this name, made if there is none. Whoever calls leaves it with something to hold, or settles it.
    pub(crate) fn open(&mut self, name: &str, capacity: usize) -> Result<ChannelKey, Error> {
        if let Some(channel) = self.find_open(name)? {
            return Ok(channel);
        }
        let name: Arc<str> = name.into();
        let channel = key(self.channels.insert(Channel {
            name: Arc::clone(&name),
            mailbox: Mailbox::new(capacity, self.capacity_bytes),
            holders: 0,
            idle: false,
        }));
        self.names.insert(name, channel);
        Ok(channel)
    }

    /// Lets a channel go that holds nothing any more.
    pub(crate) fn settle(&mut self, channel: ChannelKey) {
        let entry = &mut self.channels[channel as usize];
        let holds = !entry.mailbox.is_idle() || entry.mailbox.is_owned() || entry.holders > 0;
        if entry.idle || holds || self.groups.count_of(channel) > 0 {
            return;
        }
        entry.idle = true;
        entry.mailbox.counters = Counters::default();
        self.idle += 1;
        if !self.kept.is_armed(channel) {
            self.kept.arm(channel, Moment::default());
        }
    }

    /// Ends an operation: forgets the channels that have been idle for longest if there are too many, gives back memory that
    /// nothing needs any more, and gives what is to be dropped without the lock. Not in `settle`: there the operation may
    /// still hold keys of other channels.
    pub(crate) fn finish(&mut self) -> (Vec<M>, Vec<W>) {
        while self.idle > IDLE {
            let Some(oldest) = self.kept.first() else {
                break;
            };
            self.kept.disarm(oldest);
            if self.channels[oldest as usize].idle {
                self.forget_channel(oldest);
            }
        }
        if is_sparse(self.channels.len(), self.channels.capacity()) {
            self.shrink_channels();
        }
        self.groups.shrink_if_sparse();
        (
            std::mem::take(&mut self.dropped),
            std::mem::take(&mut self.retired),
        )
    }

    /// Moves the channels that are left together, with their memberships, and gives the memory of the others back. Channels
    /// have other keys then.
    #[cold]
    fn shrink_channels(&mut self) {
        self.channels.compact(|channel, from, to| {
            let (from, to) = (key(from), key(to));
            self.names.insert(Arc::clone(&channel.name), to);
            self.groups.rename_channel(from, to);
            self.unswept.rename(from, to);
            self.kept.rename(from, to);
            true
        });
        let channels = self.channels.len();
        self.names.shrink_to(2 * channels);
        self.groups.truncate_channels(channels);
        self.unswept.truncate(channels);
        self.kept.truncate(channels);
    }

    /// Forgets a channel that holds nothing, because nobody is expected to come back to it.
    pub(crate) fn let_go(&mut self, channel: ChannelKey) {
        if self.channels[channel as usize].idle {
            self.kept.disarm(channel);
            self.forget_channel(channel);
        }
    }

    /// The channel has something to hold again.
    fn revive(&mut self, channel: ChannelKey) {
        let entry = &mut self.channels[channel as usize];
        if entry.idle {
            entry.idle = false;
            self.idle -= 1;
        }
    }

    fn forget_channel(&mut self, channel: ChannelKey) {
        self.idle -= 1;
        self.unswept.disarm(channel);
        let gone = self.channels.remove(channel as usize);
        self.names.remove(&gone.name);
        self.retired.extend(gone.mailbox.into_waiters().1);
    }

    pub(crate) fn envelope(&mut self, message: M, deadline: Moment) -> Envelope<M> {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        Envelope {
            message,
            sequence,
            deadline,
        }
    }

    pub(crate) fn keys(&self, channels: &[&str]) -> Vec<ChannelKey> {
        let mut keys: Vec<_> = channels.iter().filter_map(|name| self.find(name)).collect();
        keys.sort_unstable();
        keys
    }

    pub(crate) fn offer(
        &mut self,
        channel: ChannelKey,
        envelope: Envelope<M>,
        bound: Bound,
        now: Moment,
    ) -> Offer<M, W> {
        let deadline = envelope.deadline;
        let mailbox = &mut self.channels[channel as usize].mailbox;
        let mut before = self.dropped.len();
        let (bytes, full_by_bytes) = (mailbox.bytes(), mailbox.counters.full_by_bytes);
        let offer = mailbox.offer(envelope, bound, now, &mut self.dropped);
        self.totals.bytes = self.totals.bytes - bytes + mailbox.bytes();
        match &offer {
            Offer::HandedOff(_) => {
                self.totals.waiters -= 1;
                self.totals.sent += 1;
                self.totals.delivered += 1;
            }
            Offer::Queued => {
                self.totals.sent += 1;
                self.totals.depth += 1;
                self.revive(channel);
                if !self.unswept.is_armed(channel) {
                    self.unswept.arm(channel, deadline);
                }
            }
            Offer::Replaced(older) => {
                self.totals.sent += 1;
                self.totals.depth += 1;
                self.totals.depth -= older;
                self.totals.dropped_replaced += *older as u64;
                before += older;
                self.note_full(channel, full_by_bytes);
            }
            Offer::Full(_) => {
                self.totals.dropped_full += 1;
                self.note_full(channel, full_by_bytes);
            }
        }
        self.count_expired(before);
        offer
    }

    /// Notes that a mailbox was full, and whether that was for its bytes.
    fn note_full(&mut self, channel: ChannelKey, full_by_bytes: u64) {
        let mailbox = self.mailbox_mut(channel);
        let more = mailbox.counters.full_by_bytes - full_by_bytes;
        let alarm = mailbox.take_alarm();
        self.totals.full_by_bytes += more;
        self.alarms.extend(alarm);
    }

    pub(crate) fn has_alarms(&self) -> bool {
        !self.alarms.is_empty()
    }

    pub(crate) fn take_alarms(&mut self) -> Vec<W> {
        std::mem::take(&mut self.alarms)
    }

    pub(crate) fn own(
        &mut self,
        channel: ChannelKey,
        capacity: NonZeroUsize,
        capacity_bytes: Option<usize>,
        overflow: Overflow<M>,
        alarm: Option<W>,
    ) {
        let mailbox = self.mailbox_mut(channel);
        mailbox.own(capacity, capacity_bytes, overflow, alarm);
        self.revive(channel);
    }

    pub(crate) fn disown(&mut self, channel: ChannelKey) {
        let alarm = self.mailbox_mut(channel).disown();
        self.retired.extend(alarm);
    }

    pub(crate) fn hold(&mut self, channel: ChannelKey) {
        self.channels[channel as usize].holders += 1;
        self.groups.hold(channel);
        self.revive(channel);
    }

    /// Undoes one `hold`; after the last of them its memberships end at the deadline.
    pub(crate) fn release(&mut self, channel: ChannelKey, deadline: Moment) {
        let entry = &mut self.channels[channel as usize];
        entry.holders = entry.holders.saturating_sub(1);
        if entry.holders == 0 {
            self.groups.release(channel, deadline);
            self.settle(channel);
            self.let_go(channel);
        }
    }

    pub(crate) fn take(&mut self, channel: ChannelKey, clock: &impl Clock) -> Option<Envelope<M>> {
        let mailbox = &mut self.channels[channel as usize].mailbox;
        if mailbox.depth() == 0 {
            return None;
        }
        let (before, bytes) = (self.dropped.len(), mailbox.bytes());
        let taken = mailbox.take(clock, &mut self.dropped);
        self.totals.bytes = self.totals.bytes - bytes + mailbox.bytes();
        self.count_expired(before);
        if taken.is_some() {
            self.totals.depth -= 1;
            self.totals.delivered += 1;
            self.settle(channel);
        }
        taken
    }

    pub(crate) fn wait(&mut self, channel: ChannelKey, waiter: W) {
        self.mailbox_mut(channel).wait(waiter);
        self.revive(channel);
        self.totals.waiters += 1;
    }

    /// Puts the waiter of an earlier wait in line again, if the caller finds it fit.
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
        self.settle(channel);
        Some(waiter)
    }

    pub(crate) fn forget_all(&mut self, is_it: &mut impl FnMut(&W) -> bool) -> Vec<W> {
        let mut removed = Vec::new();
        for channel in self.channel_keys() {
            self.totals.waiters -= self
                .mailbox_mut(channel)
                .forget_all(&mut *is_it, &mut removed);
            self.settle(channel);
        }
        removed
    }

    pub(crate) fn join(&mut self, group: &str, channel: ChannelKey, deadline: Moment) {
        let group = self.groups.find_or_create(group);
        let held = self.channels[channel as usize].holders > 0;
        self.groups.add(group, channel, deadline, held);
        self.revive(channel);
    }

    fn channel_keys(&self) -> Vec<ChannelKey> {
        self.channels.iter().map(|(index, _)| key(index)).collect()
    }

    /// Counts the bytes of a mailbox that had so many before.
    fn count_bytes(&mut self, channel: ChannelKey, before: usize) {
        self.totals.bytes = self.totals.bytes - before + self.mailbox(channel).bytes();
    }

    /// Counts the messages that were dropped for their age since `dropped` had this length.
    fn count_expired(&mut self, before: usize) {
        let expired = self.dropped.len() - before;
        if expired > 0 {
            self.totals.depth -= expired;
            self.totals.dropped_expired += expired as u64;
        }
    }

    pub(crate) fn give_back(
        &mut self,
        channel: ChannelKey,
        envelope: Envelope<M>,
        sweep: Moment,
    ) -> Option<HandOff<M, W>> {
        self.totals.returned += 1;
        let bytes = self.mailbox(channel).bytes();
        let hand_off = self.mailbox_mut(channel).give_back(envelope);
        self.count_bytes(channel, bytes);
        if hand_off.is_some() {
            self.totals.waiters -= 1;
            self.settle(channel);
        } else {
            self.totals.delivered -= 1;
            self.totals.depth += 1;
            self.revive(channel);
            if !self.unswept.is_armed(channel) {
                self.unswept.arm(channel, sweep);
            }
        }
        hand_off
    }

    pub(crate) fn fan_out(
        &mut self,
        group: u32,
        message: &M,
        exclude: &[ChannelKey],
        now: Moment,
        deadline: Moment,
    ) -> FanOut<M, W> {
        let mut fan_out = FanOut::empty();
        let members = std::mem::take(self.groups.get_mut(group).members_mut());
        fan_out
            .hand_offs
            .reserve(members.len().min(self.totals.waiters));
        for member in &members {
            if !exclude.is_empty() && exclude.binary_search(&member.channel).is_ok() {
                continue;
            }
            let envelope = self.envelope(message.clone(), deadline);
            match self.offer(member.channel, envelope, Bound::Both, now) {
                Offer::HandedOff(hand_off) => {
                    fan_out.report.delivered += 1;
                    fan_out.hand_offs.push(hand_off);
                }
                Offer::Queued | Offer::Replaced(_) => fan_out.report.delivered += 1,
                Offer::Full(_) => fan_out.report.dropped_full += 1,
            }
        }
        let group = self.groups.get_mut(group);
        *group.members_mut() = members;
        group.sends += 1;
        group.delivered += fan_out.report.delivered as u64;
        group.dropped_full += fan_out.report.dropped_full as u64;
        fan_out
    }

    pub(crate) fn empty(&mut self, channel: ChannelKey) {
        let (before, bytes) = (self.dropped.len(), self.mailbox(channel).bytes());
        self.channels[channel as usize]
            .mailbox
            .empty(&mut self.dropped);
        self.count_bytes(channel, bytes);
        let emptied = self.dropped.len() - before;
        self.totals.depth -= emptied;
        self.totals.dropped_other += emptied as u64;
        self.settle(channel);
    }

    pub(crate) fn flush(&mut self) {
        self.groups.clear();
        for channel in self.channel_keys() {
            self.empty(channel);
        }
        self.unswept.clear();
    }

    /// Refuses everything from now on; the engine was flushed before.
    pub(crate) fn close(&mut self) -> Vec<W> {
        self.closed = true;
        self.totals.waiters = 0;
        self.names.clear();
        self.idle = 0;
        self.kept.clear();
        self.unswept.clear();
        let mut waiters = Vec::new();
        for channel in self.channels.drain() {
            let (in_line, spare) = channel.mailbox.into_waiters();
            waiters.extend(in_line);
            self.retired.extend(spare);
        }
        waiters
    }

    #[cfg(feature = "redis")]
    pub(crate) fn count_full(&mut self, channel: ChannelKey) {
        let by_bytes = self.mailbox_mut(channel).count_full();
        self.totals.dropped_full += 1;
        self.totals.full_by_bytes += u64::from(by_bytes);
    }

    #[cfg(feature = "redis")]
    pub(crate) fn would_refuse(&mut self, channel: ChannelKey, size: usize, now: Moment) -> bool {
        self.expire(channel, now);
        self.mailbox(channel).would_refuse(size)
    }

    #[cfg(feature = "redis")]
    pub(crate) fn known_channels(&self) -> Vec<Arc<str>> {
        let names = self.channels.iter();
        names
            .map(|(_, channel)| Arc::clone(&channel.name))
            .collect()
    }

    /// Whether a channel has messages, receivers, an inbox or groups.
    #[cfg(feature = "redis")]
    pub(crate) fn is_held(&self, name: &str) -> bool {
        let known = self.find(name);
        known.is_some_and(|channel| !self.channels[channel as usize].idle)
    }

    pub(crate) fn count_unusable(&mut self) {
        self.totals.delivered -= 1;
        self.totals.dropped_other += 1;
    }

    /// A message that came back when there was nowhere left to put it.
    pub(crate) fn drop_returned(&mut self, envelope: Envelope<M>) {
        self.count_unusable();
        self.dropped.push(envelope.message);
    }

    fn expire_group(&mut self, group: u32, now: Moment) {
        for channel in self.groups.expire_group(group, now) {
            self.settle(channel);
        }
    }

    /// Clears away a few mailboxes and memberships whose time is over.
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

    /// Looks at the mailbox that was left alone for longest, and at the oldest membership; false if neither is due.
    fn sweep_one(&mut self, now: Moment, expiry: Duration) -> bool {
        let mailbox = self.unswept.due(now);
        if let Some(channel) = mailbox {
            self.sweep_mailbox(channel, now, expiry);
        }
        let member = self.groups.expire_one(now);
        if let Some(channel) = member {
            self.settle(channel);
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
        self.settle(channel);
    }

    fn expire(&mut self, channel: ChannelKey, now: Moment) {
        let (before, bytes) = (self.dropped.len(), self.mailbox(channel).bytes());
        self.channels[channel as usize]
            .mailbox
            .expire(now, &mut self.dropped);
        self.count_bytes(channel, bytes);
        self.count_expired(before);
    }

    /// For how many entries the tables have memory.
    #[cfg(test)]
    pub(crate) fn room(&self) -> Vec<usize> {
        let groups = self.groups.room();
        let lists = [self.unswept.room(), self.kept.room()];
        let channels = [self.channels.capacity(), self.names.capacity()];
        [&channels[..], &lists, &groups].concat()
    }

    pub(crate) fn stats(&self) -> LayerStats {
        let totals = self.totals;
        LayerStats {
            channels: self.channels.len() - self.idle,
            groups: self.groups.len(),
            memberships: self.groups.memberships(),
            waiters: totals.waiters,
            depth: totals.depth,
            bytes: totals.bytes,
            sent: totals.sent,
            delivered: totals.delivered,
            returned: totals.returned,
            dropped_full: totals.dropped_full,
            dropped_expired: totals.dropped_expired,
            dropped_replaced: totals.dropped_replaced,
            full_by_bytes: totals.full_by_bytes,
            dropped_other: totals.dropped_other,
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
