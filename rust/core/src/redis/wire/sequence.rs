//! Sequence numbers, which show lost messages: the sender counts its messages per destination, the receiver compares.
//!
//! Both sides remember a bounded number of counts and forget those that were used longest ago. A sender that
//! forgot begins at 1 again, and a receiver takes a 1 for a beginning, always: so forgetting never looks like
//! a hole, and never like a message that came twice. The price: a first message that is lost or comes twice is not
//! noticed. Time and memory per message are constant.
//!
//! Where envelopes are authenticated a number never comes again: a sender that forgot goes on above all that it used before,
//! so the receiver can refuse what it has seen, and what is far below the highest number. The upper bits are raised for each
//! destination that is forgotten.

use std::sync::Arc;

use hashbrown::HashMap;
use slab::Slab;

use super::keys::ProcessId;
use crate::clock::Moment;
use crate::expiry::ExpiryList;

/// The distance between the first numbers of destinations, for a sender that never uses a number again. There are 2^40
/// epochs: enough to forget a thousand destinations a second for 34 years.
const EPOCH: u64 = 1 << 24;
/// How far below the highest number one may be that was overtaken, if numbers come once.
const WINDOW: u64 = 64;

/// What a number shows about those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The first of this sender on this topic, or a new beginning: what came before, if anything, is not known.
    First,
    /// The one expected.
    Next,
    /// Not above the last one: it came twice or late, or the sender began anew and its first message was lost. Among numbers
    /// that come once: it was seen, or is too far below to know.
    Again,
    /// Not above the last one, and not seen before.
    Late,
    /// So many between the last one and this never came.
    Gap(u64),
}

/// The receiver's side: the last number of each sender on each topic.
#[derive(Debug)]
pub struct Sequences {
    table: SequenceTable,
}

impl Sequences {
    /// Remembers up to `capacity` pairs of sender and topic, at least one.
    pub fn new(capacity: usize) -> Self {
        Self {
            table: SequenceTable::new(capacity),
        }
    }

    /// Takes note of a message. The highest number stays the last one, except that 1 (and 0, which nobody sends) begins
    /// anew.
    pub fn note(&mut self, sender: ProcessId, topic: &str, sequence: u64) -> Seen {
        let known = self.table.entry(sender, topic);
        if known.is_some_and(SequenceEntry::is_once) {
            // A number that is not authenticated must not change what is known of those that are.
            return Seen::First;
        }
        let (seen, last) = match known.map(|entry| entry.last) {
            None => (Seen::First, sequence),
            Some(last) if sequence > last && self.table.is_excused(sender, topic) => {
                (Seen::First, sequence)
            }
            Some(_) if sequence <= 1 => (Seen::First, sequence),
            Some(last) if sequence <= last => (Seen::Again, last),
            Some(last) => match sequence - last - 1 {
                0 => (Seen::Next, sequence),
                missed => (Seen::Gap(missed), sequence),
            },
        };
        self.table.set(sender, topic, last);
        seen
    }

    /// Takes note of a message whose number its sender uses once. The first number that is seen of a sender is a beginning:
    /// those below it count as seen.
    pub fn note_once(&mut self, sender: ProcessId, topic: &str, sequence: u64) -> Seen {
        if let Some(entry) = self.table.use_once(sender, topic) {
            return entry.note_once(sequence);
        }
        self.table.set(sender, topic, sequence);
        if let Some(entry) = self.table.entry_mut(sender, topic) {
            entry.seen = u64::MAX;
        }
        Seen::First
    }

    /// Whether a sender whose numbers come once was seen on a topic.
    pub fn knows(&self, sender: ProcessId, topic: &str) -> bool {
        self.table
            .entry(sender, topic)
            .is_some_and(SequenceEntry::is_once)
    }

    /// Takes the next hole of each sender on a topic for a new beginning: after its subscription was interrupted. A
    /// number that is not above the last one is still reported, because the former server may pass it on late.
    pub fn excuse_topic(&mut self, topic: &str) {
        self.table.excuse_topic(topic);
    }

    /// Forgets all senders on a topic, after its subscription ended; but not the numbers that come once, or what was seen could
    /// come again.
    pub fn forget_topic(&mut self, topic: &str) {
        self.table.remove_topic(topic);
        self.table.excuse_topic(topic);
    }
}

/// The sender's side: the next number for each destination.
#[derive(Debug)]
pub struct SequenceCounters {
    table: SequenceTable,
    /// The number before the first of a destination that is new: a multiple of `EPOCH`.
    begun: u64,
    /// Whether a destination that was forgotten goes on above all numbers that it had.
    rising: bool,
}

impl SequenceCounters {
    /// Remembers up to `capacity` destinations, at least one.
    pub fn new(capacity: usize) -> Self {
        Self {
            table: SequenceTable::new(capacity),
            begun: 0,
            rising: false,
        }
    }

    /// The same, but no destination gets a number twice.
    pub fn rising(capacity: usize) -> Self {
        Self {
            rising: true,
            ..Self::new(capacity)
        }
    }

    /// The number of the next message: 1 for a destination that is new or was forgotten, or, if numbers rise, one more than a
    /// multiple of 2^24.
    pub fn next(&mut self, destination: &str) -> u64 {
        // All entries are of one sender, so any id will do.
        let sender = ProcessId(0);
        let last = self.table.get(sender, destination);
        if last.is_none() && self.rising {
            self.make_room();
        }
        let next = last.unwrap_or(self.begun).saturating_add(1);
        self.table.set(sender, destination, next);
        next
    }

    /// Forgets a destination if there is no room for another, and begins the next ones above all numbers that it had.
    fn make_room(&mut self) {
        if self.table.is_full() {
            let last = self.table.remove_oldest().unwrap_or(0);
            // It may have had more numbers than there are from one beginning to the next.
            let used = last - last % EPOCH;
            self.begun = self.begun.max(used).saturating_add(EPOCH);
        }
    }
}

/// Numbers by topic and sender; when it is full, the one that was set longest ago is removed.
#[derive(Debug)]
struct SequenceTable {
    capacity: usize,
    /// A topic is there as long as it has a sender.
    topics: HashMap<Arc<str>, HashMap<ProcessId, u32>>,
    entries: Slab<SequenceEntry>,
    /// In the order of setting; the deadlines mean nothing.
    order: ExpiryList,
}

#[derive(Debug)]
struct SequenceEntry {
    topic: Arc<str>,
    sender: ProcessId,
    last: u64,
    excused: bool,
    /// Which of the last and those below it were seen, from the lowest bit on; 0 where numbers may come again.
    seen: u64,
}

impl SequenceEntry {
    fn is_once(&self) -> bool {
        self.seen != 0
    }

    fn note_once(&mut self, sequence: u64) -> Seen {
        let ahead = sequence.saturating_sub(self.last);
        if ahead == 0 {
            let below = self.last - sequence;
            let bit = if below < WINDOW { 1 << below } else { 0 };
            if self.seen & bit == bit {
                return Seen::Again;
            }
            self.seen |= bit;
            return Seen::Late;
        }
        let begins = self.last / EPOCH < sequence / EPOCH;
        let missed = if begins { sequence % EPOCH } else { ahead }.saturating_sub(1);
        let shifted = u32::try_from(ahead)
            .ok()
            .and_then(|by| self.seen.checked_shl(by));
        self.seen = shifted.unwrap_or(0) | 1;
        self.last = sequence;
        match missed {
            _ if std::mem::take(&mut self.excused) => Seen::First,
            0 if begins => Seen::First,
            0 => Seen::Next,
            missed => Seen::Gap(missed),
        }
    }
}

impl SequenceTable {
    fn new(capacity: usize) -> Self {
        Self {
            // Places are u32, and the last of them means none.
            capacity: capacity.clamp(1, u32::MAX as usize - 1),
            topics: HashMap::new(),
            entries: Slab::new(),
            order: ExpiryList::default(),
        }
    }

    fn place(&self, sender: ProcessId, topic: &str) -> Option<u32> {
        self.topics.get(topic)?.get(&sender).copied()
    }

    fn entry(&self, sender: ProcessId, topic: &str) -> Option<&SequenceEntry> {
        self.entries.get(self.place(sender, topic)? as usize)
    }

    fn entry_mut(&mut self, sender: ProcessId, topic: &str) -> Option<&mut SequenceEntry> {
        let place = self.place(sender, topic)?;
        self.entries.get_mut(place as usize)
    }

    fn get(&self, sender: ProcessId, topic: &str) -> Option<u64> {
        self.entry(sender, topic).map(|entry| entry.last)
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= self.capacity
    }

    /// The entry of a sender whose numbers come once, which is used now.
    fn use_once(&mut self, sender: ProcessId, topic: &str) -> Option<&mut SequenceEntry> {
        let place = self.place(sender, topic)?;
        let entry = self.entries.get_mut(place as usize);
        let entry = entry.filter(|entry| entry.is_once())?;
        self.order.arm(place, Moment::default());
        Some(entry)
    }

    fn set(&mut self, sender: ProcessId, topic: &str, last: u64) {
        let place = match self.place(sender, topic) {
            Some(place) => place,
            None => self.insert(sender, topic),
        };
        if let Some(entry) = self.entries.get_mut(place as usize) {
            entry.excused &= entry.last == last;
            entry.last = last;
        }
        self.order.arm(place, Moment::default());
    }

    fn is_excused(&self, sender: ProcessId, topic: &str) -> bool {
        self.entry(sender, topic).is_some_and(|entry| entry.excused)
    }

    fn excuse_topic(&mut self, topic: &str) {
        for place in self.topics.get(topic).into_iter().flat_map(HashMap::values) {
            if let Some(entry) = self.entries.get_mut(*place as usize) {
                entry.excused = true;
            }
        }
    }

    fn insert(&mut self, sender: ProcessId, topic: &str) -> u32 {
        if self.is_full() {
            self.remove_oldest();
        }
        let known = self
            .topics
            .get_key_value(topic)
            .map(|(known, _)| Arc::clone(known));
        let topic = known.unwrap_or_else(|| Arc::from(topic));
        let entry = SequenceEntry {
            topic: Arc::clone(&topic),
            sender,
            last: 0,
            excused: false,
            seen: 0,
        };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the capacity is below u32::MAX"
        )]
        let place = self.entries.insert(entry) as u32;
        self.topics.entry(topic).or_default().insert(sender, place);
        place
    }

    /// Removes the one that was set longest ago, and gives its last number.
    fn remove_oldest(&mut self) -> Option<u64> {
        let place = self.order.first()?;
        self.order.disarm(place);
        let SequenceEntry {
            topic,
            sender,
            last,
            ..
        } = self.entries.try_remove(place as usize)?;
        if let Some(senders) = self.topics.get_mut(&topic) {
            senders.remove(&sender);
            if senders.is_empty() {
                self.topics.remove(&topic);
            }
        }
        Some(last)
    }

    /// Removes what is known of the senders on a topic, except of those whose numbers come once.
    fn remove_topic(&mut self, topic: &str) {
        let Some(senders) = self.topics.get_mut(topic) else {
            return;
        };
        senders.retain(|_, place| {
            let known = self.entries.get(*place as usize);
            let kept = known.is_some_and(SequenceEntry::is_once);
            if !kept {
                self.order.disarm(*place);
                self.entries.try_remove(*place as usize);
            }
            kept
        });
        if senders.is_empty() {
            self.topics.remove(topic);
        }
    }
}

#[cfg(test)]
mod tests;
