//! The state behind the memory engine's lock: pure bookkeeping, one caller at a time.

mod finals;
mod presence;
mod reading;
mod replaying;
mod sweep;
mod waiting;

use std::num::NonZeroUsize;
use std::sync::Arc;

use super::channels::{Channel, ChannelKey, Channels};
use super::group::Groups;
use super::mailbox::{Bound, Mailbox, Offer};
use crate::clock::{Clock, Moment};
use crate::engine::LayerStats;
use crate::error::Error;
use crate::expiry::ExpiryList;
use crate::fanout::FanOut;
use crate::handoff::HandOff;
use crate::history::Histories;
use crate::message::{ByteSize, Envelope};
use crate::name::{check_channel, check_group};
use crate::overflow::Overflow;
use crate::presence::Presences;

pub(crate) struct State<M, W> {
    channels: Channels<M, W>,
    pub(crate) groups: Groups,
    /// Mailboxes with messages, by when they were last known to be fresh, plus the expiry.
    unswept: ExpiryList,
    /// What is counted as it happens; the numbers of channels and groups are looked up.
    totals: LayerStats,
    /// How many bytes a mailbox holds behind its first message.
    capacity_bytes: usize,
    next_sequence: u64,
    closed: bool,
    /// What the present operation dropped, kept until the lock is released.
    dropped: Vec<M>,
    /// The waiters that it removed, kept for the same reason.
    retired: Vec<W>,
    /// Alarms of mailboxes that were full, until the engine takes them.
    alarms: Vec<W>,
    /// The newest messages of groups. None if no group of the layer has a history.
    histories: Option<Box<Histories<M>>>,
    /// Who is present in groups. None if no group of the layer has a presence.
    presences: Option<Box<Presences>>,
}

impl<M: Clone + ByteSize, W> State<M, W> {
    pub(crate) fn new(capacity_bytes: usize) -> Self {
        Self {
            channels: Channels::default(),
            groups: Groups::default(),
            unswept: ExpiryList::default(),
            totals: LayerStats::default(),
            capacity_bytes,
            next_sequence: 0,
            closed: false,
            dropped: Vec::new(),
            retired: Vec::new(),
            alarms: Vec::new(),
            histories: None,
            presences: None,
        }
    }

    pub(crate) fn mailbox(&self, channel: ChannelKey) -> &Mailbox<M, W> {
        &self.channels[channel].mailbox
    }

    pub(crate) fn name(&self, channel: ChannelKey) -> &Arc<str> {
        &self.channels[channel].name
    }

    pub(crate) fn channels(&self) -> impl Iterator<Item = (&Arc<str>, &Mailbox<M, W>)> {
        self.channels
            .iter()
            .map(|channel| (&channel.name, &channel.mailbox))
    }

    pub(crate) fn mailboxes(&self) -> impl Iterator<Item = &Mailbox<M, W>> {
        self.channels.iter().map(|channel| &channel.mailbox)
    }

    fn mailbox_mut(&mut self, channel: ChannelKey) -> &mut Mailbox<M, W> {
        &mut self.channels[channel].mailbox
    }

    pub(crate) fn find(&self, channel: &str) -> Option<ChannelKey> {
        self.channels.find(channel)
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

    /// The channel of this name, made if there is none. The caller leaves something in it, or calls
    /// `mark_idle_if_empty`.
    pub(crate) fn open(&mut self, name: &str, capacity: usize) -> Result<ChannelKey, Error> {
        if let Some(channel) = self.find_open(name)? {
            return Ok(channel);
        }
        let mailbox = Mailbox::new(capacity, self.capacity_bytes);
        Ok(self.channels.add(name, mailbox))
    }

    /// Makes a channel idle if it holds nothing any more.
    pub(crate) fn mark_idle_if_empty(&mut self, channel: ChannelKey) {
        let entry = &self.channels[channel];
        if entry.is_idle() || !entry.holds_nothing() || self.groups.count_of(channel) > 0 {
            return;
        }
        self.channels.set_idle(channel);
    }

    /// Ends an operation: removes the channels that have been idle for longest if there are too many, frees unused
    /// memory, and returns what is to be dropped without the lock. Not in `mark_idle_if_empty`: there the operation may
    /// still hold keys of other channels.
    pub(crate) fn end_operation(&mut self) -> (Vec<M>, Vec<W>) {
        while let Some((channel, gone)) = self.channels.remove_surplus() {
            self.retire(channel, gone);
        }
        if self.channels.is_sparse() {
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
        let left = self.channels.compact(|from, to| {
            self.groups.rename_channel(from, to);
            self.unswept.rename(from, to);
        });
        self.groups.truncate_channels(left);
        self.unswept.truncate(left);
    }

    /// Removes a channel that holds nothing at once, because its name is not expected to be used again.
    pub(crate) fn forget_channel(&mut self, channel: ChannelKey) {
        if let Some(gone) = self.channels.remove_idle(channel) {
            self.retire(channel, gone);
        }
    }

    fn retire(&mut self, channel: ChannelKey, gone: Channel<M, W>) {
        self.unswept.disarm(channel);
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
        let mailbox = &mut self.channels[channel].mailbox;
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
                self.channels.mark_in_use(channel);
                if !self.unswept.is_armed(channel) {
                    self.unswept.arm(channel, deadline);
                }
                if self.mailbox(channel).watches_final() {
                    self.note_queued(channel);
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
        self.channels.mark_in_use(channel);
    }

    pub(crate) fn disown(&mut self, channel: ChannelKey) {
        let alarm = self.mailbox_mut(channel).disown();
        self.retired.extend(alarm);
    }

    pub(crate) fn hold(&mut self, channel: ChannelKey) {
        self.channels[channel].holders += 1;
        self.groups.hold(channel);
        self.channels.mark_in_use(channel);
    }

    /// Undoes one `hold`; after the last of them its memberships end at the deadline.
    pub(crate) fn release(&mut self, channel: ChannelKey, deadline: Moment) {
        let entry = &mut self.channels[channel];
        entry.holders = entry.holders.saturating_sub(1);
        if entry.holders == 0 {
            self.groups.release(channel, deadline);
            self.mark_idle_if_empty(channel);
            self.forget_channel(channel);
        }
    }

    pub(crate) fn take(&mut self, channel: ChannelKey, clock: &impl Clock) -> Option<Envelope<M>> {
        let mailbox = &mut self.channels[channel].mailbox;
        if mailbox.has_replays() {
            return self.take_in_order(channel, clock);
        }
        if mailbox.is_empty() {
            return None;
        }
        let (before, bytes) = (self.dropped.len(), mailbox.bytes());
        let taken = mailbox.take(clock, &mut self.dropped);
        self.totals.bytes = self.totals.bytes - bytes + mailbox.bytes();
        self.count_expired(before);
        if taken.is_some() {
            self.totals.depth -= 1;
            self.totals.delivered += 1;
            self.mark_idle_if_empty(channel);
        }
        taken
    }

    /// Puts a channel in a group; returns whether it was no member before.
    pub(crate) fn join(
        &mut self,
        group: &str,
        channel: ChannelKey,
        (now, deadline): (Moment, Moment),
    ) -> bool {
        let group = self.groups.find_or_create(group);
        let held = self.channels[channel].holders > 0;
        let is_new = self.groups.add(group, channel, (now, deadline), held);
        self.channels.mark_in_use(channel);
        is_new
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
            self.mark_idle_if_empty(channel);
        } else {
            self.totals.delivered -= 1;
            self.totals.depth += 1;
            self.channels.mark_in_use(channel);
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
        self.channels[channel].mailbox.empty(&mut self.dropped);
        self.count_bytes(channel, bytes);
        let emptied = self.dropped.len() - before;
        self.collect_replays(channel);
        self.totals.depth -= emptied;
        self.totals.dropped_other += emptied as u64;
        self.mark_idle_if_empty(channel);
    }

    pub(crate) fn flush(&mut self) {
        self.clear_histories();
        self.clear_presences();
        self.groups.clear();
        for channel in self.channels.keys() {
            self.empty(channel);
        }
        self.unswept.clear();
    }

    /// Refuses everything from now on; the engine was flushed before.
    pub(crate) fn close(&mut self) -> Vec<W> {
        self.closed = true;
        self.totals.waiters = 0;
        self.unswept.clear();
        let mut waiters = Vec::new();
        for channel in self.channels.drain() {
            let (queued, spare) = channel.mailbox.into_waiters();
            waiters.extend(queued);
            self.retired.extend(spare);
        }
        waiters
    }

    pub(crate) fn count_full(&mut self, channel: ChannelKey) {
        let by_bytes = self.mailbox_mut(channel).count_full();
        self.totals.dropped_full += 1;
        self.totals.full_by_bytes += u64::from(by_bytes);
    }

    pub(crate) fn would_refuse(&mut self, channel: ChannelKey, size: usize, now: Moment) -> bool {
        self.expire(channel, now);
        self.mailbox(channel).would_refuse(size)
    }

    pub(crate) fn known_channels(&self) -> Vec<Arc<str>> {
        let channels = self.channels.iter();
        channels.map(|channel| Arc::clone(&channel.name)).collect()
    }

    /// Whether a channel has messages, receivers, an inbox or groups.
    pub(crate) fn is_held(&self, name: &str) -> bool {
        let known = self.find(name);
        known.is_some_and(|channel| !self.channels[channel].is_idle())
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
}
