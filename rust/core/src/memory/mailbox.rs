//! The messages of one channel and the receivers that wait for them.
//!
//! A bounded first-in-first-out queue would be an `mpsc` channel, and wakers a `Notify`; neither will do. A
//! message that was handed to a receiver which is then cancelled has to come back to its old place, in front of
//! younger messages, and it must not be lost between the wake and the resumption. So a mailbox hands the message
//! over at send time, with its sequence number, and takes it back by that number.
//!
//! It is bounded in messages and in bytes. The first message is always accepted and does not count against the bound in bytes:
//! otherwise a message larger than the bound could never be sent.
//!
//! Invariants: waiters wait only while the queue is empty and nothing is replayed; the queue is in order of sequence, and therefore of
//! deadline, because all messages of an engine live equally long. A final message may live longer: what waits behind it
//! expires when it has been taken.

mod finals;
mod replaying;

use std::collections::VecDeque;
use std::num::NonZeroUsize;

use super::replays::Replays;
use super::waiters::Waiters;
use crate::clock::{Clock, Moment};
use crate::handoff::HandOff;
use crate::message::{ByteSize, Envelope};
use crate::overflow::Overflow;

#[derive(Debug)]
pub(crate) struct Mailbox<M, W> {
    queue: VecDeque<Envelope<M>>,
    waiters: Waiters<W>,
    /// What members of a group with a history have missed. Each has its place among the messages in the queue.
    replays: Option<Box<Replays<M>>>,
    /// The waiter of an earlier wait, kept because the next wait is most often by the same receiver.
    spare: Option<W>,
    capacity: usize,
    /// How many bytes may wait behind the first message.
    capacity_bytes: usize,
    /// The bytes of all messages in the queue.
    bytes: usize,
    /// Set while the channel has an owner, which decides what happens when the mailbox is full.
    owned: Option<Box<Owned<M, W>>>,
    /// Woken when a final message has to wait for the first time.
    final_alarm: Option<W>,
    pub(crate) counters: MailboxCounters,
}

#[derive(Debug)]
struct Owned<M, W> {
    overflow: Overflow<M>,
    /// Woken when the mailbox is full for the first time.
    alarm: Option<W>,
    /// The capacity without the owner, in messages and in bytes.
    former: (usize, usize),
}

/// What happened to the messages of this mailbox since its channel was last idle.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MailboxCounters {
    pub(crate) delivered: u64,
    pub(crate) dropped_full: u64,
    pub(crate) dropped_expired: u64,
    pub(crate) dropped_replaced: u64,
    pub(crate) full_by_bytes: u64,
}

/// Which bounds a message must keep to be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// The number of messages, and their bytes.
    Both,
    /// The number alone: the message was already removed from a server, and a refusal would lose it.
    Messages,
}

/// What a mailbox did with an envelope.
#[derive(Debug)]
pub(crate) enum Offer<M, W> {
    HandedOff(HandOff<M, W>),
    Queued,
    /// Queued, and this many older messages were dropped for it.
    Replaced(usize),
    Full(Envelope<M>),
}

impl<M: Clone + ByteSize, W> Mailbox<M, W> {
    pub(crate) fn new(capacity: usize, capacity_bytes: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            waiters: Waiters::default(),
            replays: None,
            spare: None,
            capacity,
            capacity_bytes,
            bytes: 0,
            owned: None,
            final_alarm: None,
            counters: MailboxCounters::default(),
        }
    }

    /// Gives the mailbox an owner, which sets its capacity and what happens when it is full.
    pub(crate) fn own(
        &mut self,
        capacity: NonZeroUsize,
        capacity_bytes: Option<usize>,
        overflow: Overflow<M>,
        alarm: Option<W>,
    ) {
        self.owned = Some(Box::new(Owned {
            overflow,
            alarm,
            former: (self.capacity, self.capacity_bytes),
        }));
        self.capacity = capacity.get();
        self.capacity_bytes = capacity_bytes.unwrap_or(self.capacity_bytes);
    }

    /// Removes the owner. Returns its alarm if the mailbox was never full.
    pub(crate) fn disown(&mut self) -> Option<W> {
        let owned = self.owned.take()?;
        (self.capacity, self.capacity_bytes) = owned.former;
        owned.alarm
    }

    pub(crate) fn is_owned(&self) -> bool {
        self.owned.is_some()
    }

    /// The owner's alarm, the first time that this is called.
    pub(crate) fn take_alarm(&mut self) -> Option<W> {
        self.owned.as_mut()?.alarm.take()
    }

    pub(crate) fn depth(&self) -> usize {
        let replayed = self.replays.as_ref().map_or(0, |replays| replays.len());
        self.queue.len() + replayed
    }

    /// Whether there is no message, and nothing that a replay has left behind.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.replays.is_none()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiters.len()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn capacity_bytes(&self) -> usize {
        self.capacity_bytes
    }

    /// The bytes of the messages in it.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn has_room_for(&self, size: usize, bound: Bound) -> bool {
        self.queue.len() < self.capacity && (bound != Bound::Both || self.has_bytes_for(size))
    }

    /// Whether a message of this size may wait, as far as bytes go. The first message may, and does not count.
    fn has_bytes_for(&self, size: usize) -> bool {
        let together = self.bytes.saturating_add(size);
        together <= self.capacity_bytes
            || self
                .queue
                .front()
                .is_none_or(|first| together - first.message.byte_size() <= self.capacity_bytes)
    }

    /// Whether there are neither messages nor waiters.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_empty() && self.waiters.is_empty()
    }

    /// Whether every message in it is past its deadline.
    pub(crate) fn is_stale(&self, now: Moment) -> bool {
        let replays = self.replays.as_ref();
        let youngest = self.queue.back().map(|youngest| youngest.deadline);
        let replayed = replays.and_then(|replays| replays.last_deadline());
        youngest
            .max(replayed)
            .is_none_or(|deadline| deadline <= now)
    }

    /// Hands the envelope to the first waiter, or queues it, or applies the overflow policy when the queue is full.
    #[inline]
    pub(crate) fn offer(
        &mut self,
        envelope: Envelope<M>,
        bound: Bound,
        now: Moment,
        dropped: &mut Vec<M>,
    ) -> Offer<M, W> {
        if let Some(waiter) = self.waiters.next() {
            self.counters.delivered += 1;
            return Offer::HandedOff(HandOff { waiter, envelope });
        }
        let size = envelope.message.byte_size();
        if !self.has_room_for(size, bound) {
            self.expire(now, dropped);
            if !self.has_room_for(size, bound) {
                return self.overflow(envelope, size, bound, dropped);
            }
        }
        self.bytes += size;
        self.queue.push_back(envelope);
        Offer::Queued
    }

    /// Whether a message of this size would be refused.
    pub(crate) fn would_refuse(&self, size: usize) -> bool {
        self.waiters.is_empty() && self.owned.is_none() && !self.has_room_for(size, Bound::Both)
    }

    /// Counts a message that was refused before it was offered; returns whether that was for its bytes.
    pub(crate) fn count_full(&mut self) -> bool {
        let by_bytes = self.queue.len() < self.capacity;
        self.counters.dropped_full += 1;
        self.counters.full_by_bytes += u64::from(by_bytes);
        by_bytes
    }

    #[cold]
    fn overflow(
        &mut self,
        envelope: Envelope<M>,
        size: usize,
        bound: Bound,
        dropped: &mut Vec<M>,
    ) -> Offer<M, W> {
        if envelope.message.is_final() {
            return self.accept_final(envelope, size, dropped);
        }
        let before = self.queue.len();
        self.counters.full_by_bytes += u64::from(before < self.capacity);
        if self.oldest_replaceable().is_none() {
            // Final messages alone are there: what comes behind them is for nobody.
            self.counters.dropped_full += 1;
            return Offer::Full(envelope);
        }
        match self.owned.as_ref().map(|owned| &owned.overflow) {
            None | Some(Overflow::DropNew) => {
                self.counters.dropped_full += 1;
                return Offer::Full(envelope);
            }
            Some(Overflow::DropOld) => {}
            Some(Overflow::Coalesce(replaces)) => {
                for older in std::mem::take(&mut self.queue) {
                    if !older.message.is_final() && replaces(&envelope.message, &older.message) {
                        self.bytes -= older.message.byte_size();
                        dropped.push(older.message);
                    } else {
                        self.queue.push_back(older);
                    }
                }
            }
        }
        while !self.has_room_for(size, bound) {
            let Some(oldest) = self.oldest_replaceable() else {
                break;
            };
            dropped.extend(self.remove(oldest));
        }
        let replaced = before - self.queue.len();
        self.counters.dropped_replaced += replaced as u64;
        self.bytes += size;
        self.queue.push_back(envelope);
        Offer::Replaced(replaced)
    }

    /// Queues a final message beyond the bounds, or in the place of one that is there already.
    fn accept_final(
        &mut self,
        envelope: Envelope<M>,
        size: usize,
        dropped: &mut Vec<M>,
    ) -> Offer<M, W> {
        self.bytes += size;
        let earlier = self.queue.iter_mut().find(|it| it.message.is_final());
        let Some(earlier) = earlier else {
            self.queue.push_back(envelope);
            return Offer::Queued;
        };
        let replaced = std::mem::replace(&mut earlier.message, envelope.message);
        self.bytes -= replaced.byte_size();
        dropped.push(replaced);
        self.counters.dropped_replaced += 1;
        Offer::Replaced(1)
    }

    /// The place of the oldest message that may give way to another.
    fn oldest_replaceable(&self) -> Option<usize> {
        self.queue.iter().position(|it| !it.message.is_final())
    }

    /// Takes a message out of the queue, wherever it is.
    fn remove(&mut self, place: usize) -> Option<M> {
        let message = self.queue.remove(place)?.message;
        self.bytes -= message.byte_size();
        Some(message)
    }

    /// Takes the first message out of the queue.
    fn pop(&mut self) -> Option<Envelope<M>> {
        let first = self.queue.pop_front()?;
        self.bytes -= first.message.byte_size();
        Some(first)
    }

    /// Takes the oldest message that has not expired.
    pub(crate) fn take(&mut self, clock: &impl Clock, expired: &mut Vec<M>) -> Option<Envelope<M>> {
        self.expire_if(|deadline| clock.reached(deadline), expired);
        let envelope = self.pop()?;
        self.counters.delivered += 1;
        Some(envelope)
    }

    /// The waiter that is to get the next message, for one that is not offered.
    pub(crate) fn next_waiter(&mut self) -> Option<W> {
        let waiter = self.waiters.next()?;
        self.counters.delivered += 1;
        Some(waiter)
    }

    pub(crate) fn wait(&mut self, waiter: W) {
        debug_assert!(
            self.depth() == 0,
            "a receiver takes the messages that are there before it waits"
        );
        self.waiters.push(waiter);
    }

    /// Removes the first waiter that the caller recognises.
    pub(crate) fn forget(&mut self, is_it: impl FnMut(&W) -> bool) -> Option<W> {
        self.waiters.take(is_it)
    }

    pub(crate) fn spare(&self) -> Option<&W> {
        self.spare.as_ref()
    }

    pub(crate) fn keep_spare(&mut self, waiter: W) -> Option<W> {
        self.spare.replace(waiter)
    }

    /// Removes every waiter that the caller recognises; returns how many of them were queued.
    pub(crate) fn forget_all(
        &mut self,
        mut is_it: impl FnMut(&W) -> bool,
        removed: &mut Vec<W>,
    ) -> usize {
        let before = self.waiters.len();
        self.waiters.take_all(&mut is_it, removed);
        let forgotten = before - self.waiters.len();
        removed.extend(self.spare.take_if(|spare| is_it(spare)));
        if let Some(owned) = &mut self.owned {
            removed.extend(owned.alarm.take_if(|alarm| is_it(alarm)));
        }
        removed.extend(self.final_alarm.take_if(|alarm| is_it(alarm)));
        forgotten
    }

    /// Takes back a message whose receiver did not consume it: to the next waiter, or to its old place.
    ///
    /// It may overfill the queue by as many messages as were on their way: a message that was once accepted is
    /// not dropped for want of room.
    pub(crate) fn give_back(&mut self, envelope: Envelope<M>) -> Option<HandOff<M, W>> {
        if let Some(waiter) = self.waiters.next() {
            return Some(HandOff { waiter, envelope });
        }
        self.counters.delivered = self.counters.delivered.saturating_sub(1);
        let place = self
            .queue
            .partition_point(|queued| queued.sequence < envelope.sequence);
        self.bytes += envelope.message.byte_size();
        self.queue.insert(place, envelope);
        None
    }

    /// Drops the messages past their deadline; they are at the front.
    pub(crate) fn expire(&mut self, now: Moment, expired: &mut Vec<M>) {
        self.expire_if(|deadline| deadline <= now, expired);
        self.expire_replays(|deadline| deadline <= now, expired);
    }

    fn expire_if(&mut self, reached: impl Fn(Moment) -> bool, expired: &mut Vec<M>) {
        while self
            .queue
            .front()
            .is_some_and(|oldest| reached(oldest.deadline))
        {
            expired.extend(self.pop().map(|envelope| envelope.message));
            self.counters.dropped_expired += 1;
        }
    }

    /// Gives back memory for messages that are gone.
    pub(crate) fn shrink(&mut self) {
        self.queue.shrink_to(2 * self.queue.len());
    }

    /// For how many messages there is memory.
    #[cfg(test)]
    pub(crate) fn room(&self) -> usize {
        self.queue.capacity()
    }

    /// Drops all messages and keeps the waiters: they go on waiting for the next.
    pub(crate) fn empty(&mut self, dropped: &mut Vec<M>) {
        self.bytes = 0;
        dropped.extend(self.queue.drain(..).map(|envelope| envelope.message));
        if let Some(replays) = &mut self.replays {
            replays.empty(dropped);
        }
    }

    /// Takes the mailbox apart: the queued waiters, and the spare one with the alarms.
    pub(crate) fn into_waiters(mut self) -> (impl Iterator<Item = W>, impl Iterator<Item = W>) {
        let alarm = self.disown();
        (
            self.waiters.into_iter(),
            self.spare.into_iter().chain(alarm).chain(self.final_alarm),
        )
    }

    pub(crate) fn messages(&self) -> impl Iterator<Item = &M> {
        self.queue.iter().map(|envelope| &envelope.message)
    }

    /// The queued waiters and the alarms.
    pub(crate) fn waiters(&self) -> impl Iterator<Item = &W> {
        let alarm = self.owned.as_ref().and_then(|owned| owned.alarm.as_ref());
        self.waiters.iter().chain(alarm).chain(&self.final_alarm)
    }
}
