//! All rings of a layer, within one bound of bytes.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashMap;
use slab::Slab;

use super::position::{Position, Stamp, tag_of};
use super::replay::Replay;
use super::ring::Ring;
use super::rules::HistoryRules;
use crate::clock::{Moment, wall_time};
use crate::expiry::ExpiryList;
use crate::shrink::Shrink;

/// What a message counts beside its own bytes.
const MESSAGE_BYTES: usize = 64;
/// What a group counts beside its messages and its name: a group that has none is bounded too.
const GROUP_BYTES: usize = 256;
/// How many streams whose time is over one operation removes, for each rule.
const SWEEP: usize = 2;

/// The rings of all groups that have a history.
#[derive(Debug)]
pub struct Histories<M> {
    rules: HistoryRules,
    most_bytes: usize,
    streams: Slab<Stream<M>>,
    names: HashMap<Arc<str>, u32>,
    /// All streams, the one that was unused for longest first.
    used: ExpiryList,
    /// The same of those without messages: they go before the others.
    empty: ExpiryList,
    /// Those of each rule by when they end.
    ends: Vec<ExpiryList>,
    /// The random state that epochs come from.
    seed: u64,
    /// What all streams count together.
    bytes: usize,
    messages: usize,
    evicted: u64,
    /// What was removed, until the caller takes it.
    dropped: Vec<M>,
}

#[derive(Debug)]
struct Stream<M> {
    name: Arc<str>,
    tag: u32,
    rule: usize,
    ring: Ring<M>,
}

/// Behind what somebody wants the messages.
#[derive(Clone, Copy, Debug)]
pub enum Since {
    /// Behind this position; `None` stands for a text that was no position of the group.
    Position(Option<Position>),
    /// So many of the newest.
    Newest(usize),
}

/// What was found behind a position.
#[derive(Debug)]
pub struct Found<M> {
    /// The messages, or `None` if they are not complete.
    pub replay: Option<Replay<M>>,
    /// The newest position of the stream.
    pub head: Position,
}

impl<M: Clone> Found<M> {
    /// The last `count` of messages up to this position, which were read elsewhere.
    pub fn read(messages: &Arc<Vec<M>>, count: usize, head: Position) -> Self {
        Self {
            replay: Some(Replay::of_last(Arc::clone(messages), count)),
            head,
        }
    }
}

/// A part of what is kept of a group.
#[derive(Debug)]
pub struct Recent<M> {
    /// The messages, oldest first; none if they are not complete.
    pub messages: Vec<M>,
    /// That of the last of them, or what was asked for. The newest one if they are not complete.
    pub position: Stamp,
    /// Whether nothing is missing between what was asked for and that position.
    pub complete: bool,
}

/// A reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryStats {
    /// Messages that are kept.
    pub messages: usize,
    /// What counts against the bound of bytes.
    pub bytes: usize,
    /// Groups whose messages were dropped because all together were over that bound.
    pub evicted: u64,
}

impl<M: Clone> Histories<M> {
    /// No streams yet. They count at most `most_bytes` together; their epochs come from the seed.
    pub fn new(rules: HistoryRules, most_bytes: usize, seed: u64) -> Self {
        Self {
            ends: (0..rules.len()).map(|_| ExpiryList::default()).collect(),
            rules,
            most_bytes,
            streams: Slab::new(),
            names: HashMap::new(),
            used: ExpiryList::default(),
            empty: ExpiryList::default(),
            seed,
            bytes: 0,
            messages: 0,
            evicted: 0,
            dropped: Vec::new(),
        }
    }

    /// Which groups have a history.
    pub fn rules(&self) -> &HistoryRules {
        &self.rules
    }

    /// Whether a group has a history. It looks at the rules, and not at what is kept.
    pub fn keeps(&self, group: &str) -> bool {
        self.names.contains_key(group) || self.rules.of(group).is_some()
    }

    /// How many messages of a group are kept, at most. `None` if it has no history.
    pub fn size_of(&self, group: &str) -> Option<usize> {
        self.rules.of(group).map(|rule| self.rules.get(rule).size)
    }

    /// Keeps the next message of a group, and returns where it stands; `None` if the group has no history. `stamp` is called
    /// with that before.
    pub fn push(
        &mut self,
        group: &str,
        now: Moment,
        bytes: usize,
        stamp: impl FnOnce(Stamp) -> M,
    ) -> Option<Stamp> {
        let stream = self.open(group, now)?;
        let Stream { tag, ring, .. } = &self.streams[stream as usize];
        let stamped = Stamp {
            position: ring.head().next(0),
            tag: *tag,
        };
        let message = stamp(stamped);
        self.add(stream, stamped.position, message, bytes, now);
        Some(stamped)
    }

    /// Keeps a message that was counted elsewhere, at that position. If it does not follow what is kept, that is dropped.
    /// Returns whether the group has a history.
    pub fn accept(
        &mut self,
        group: &str,
        position: Position,
        message: M,
        bytes: usize,
        now: Moment,
    ) -> bool {
        let stream = self.open(group, now);
        if let Some(stream) = stream {
            self.add(stream, position, message, bytes, now);
        } else {
            self.dropped.push(message);
        }
        stream.is_some()
    }

    /// Begins the stream of a group anew: the next message is the one behind this position. Returns whether the group has a
    /// history.
    pub fn restart(&mut self, group: &str, head: Position, now: Moment) -> bool {
        let Some(stream) = self.open(group, now) else {
            return false;
        };
        let ring = &mut self.streams[stream as usize].ring;
        let (messages, bytes) = (ring.len(), ring.bytes());
        ring.restart(head, &mut self.dropped);
        self.empty.arm(stream, now);
        self.messages -= messages;
        self.bytes -= bytes + messages * MESSAGE_BYTES;
        true
    }

    /// Forgets the stream of a group.
    pub fn forget(&mut self, group: &str) {
        if let Some(stream) = self.names.get(group) {
            self.remove(*stream);
        }
    }

    /// The newest position of a group, which has a stream from now on; `None` if it has no history.
    pub fn head(&mut self, group: &str, now: Moment) -> Option<Stamp> {
        let stream = self.open(group, now)?;
        let Stream { tag, ring, .. } = &self.streams[stream as usize];
        Some(Stamp {
            position: ring.head(),
            tag: *tag,
        })
    }

    /// Looks for the messages of a group behind a position; `None` if the group has no history.
    pub fn find(&mut self, group: &str, since: Since, now: Moment) -> Option<Found<M>> {
        let stream = self.open(group, now)?;
        let ring = &mut self.streams[stream as usize].ring;
        let count = match since {
            Since::Position(position) => position.and_then(|position| ring.behind(&position)),
            Since::Newest(count) => Some(count),
        };
        Some(Found {
            replay: count.map(|count| ring.replay(count)),
            head: ring.head(),
        })
    }

    /// The oldest `limit` messages behind a position, or the newest of all; `None` if the group has no history.
    pub fn recent(
        &mut self,
        group: &str,
        since: Since,
        limit: usize,
        now: Moment,
    ) -> Option<Recent<M>> {
        let stream = self.open(group, now)?;
        let ring = &self.streams[stream as usize].ring;
        let behind = match since {
            Since::Position(position) => position.and_then(|position| ring.behind(&position)),
            Since::Newest(count) => Some(count.min(ring.len())),
        };
        let count = behind.unwrap_or(0);
        let messages = ring.messages().skip(ring.len() - count);
        let messages: Vec<M> = messages.take(limit).cloned().collect();
        let position = ring.position_before(count - messages.len());
        Some(Recent {
            messages,
            position: Stamp::new(group, position.unwrap_or(ring.head())),
            complete: behind.is_some(),
        })
    }

    /// The ring of a group, if there is one now.
    pub fn ring(&mut self, group: &str, now: Moment) -> Option<&Ring<M>> {
        let stream = self.fresh(group, now)?;
        Some(&self.streams[stream as usize].ring)
    }

    /// Drops all streams. Positions of them are not complete any more.
    pub fn clear(&mut self) {
        while let Some(stream) = self.used.first() {
            self.remove(stream);
        }
    }

    /// What was removed since this was last called; to be dropped where foreign code may run.
    #[must_use = "it is to be dropped where foreign code may run"]
    pub fn take_dropped(&mut self) -> Vec<M> {
        std::mem::take(&mut self.dropped)
    }

    /// A reading, once all that has ended is removed.
    pub fn stats(&mut self, now: Moment) -> HistoryStats {
        while self.sweep(now) {}
        HistoryStats {
            messages: self.messages,
            bytes: self.bytes,
            evicted: self.evicted,
        }
    }

    /// All messages that are kept.
    pub fn messages(&self) -> impl Iterator<Item = &M> {
        self.streams
            .iter()
            .flat_map(|(_, stream)| stream.ring.messages())
    }

    /// The stream of a group, unless its time is over.
    fn fresh(&mut self, group: &str, now: Moment) -> Option<u32> {
        let stream = *self.names.get(group)?;
        let ends = &self.ends[self.streams[stream as usize].rule];
        if ends.deadline(stream) <= now {
            self.remove(stream);
            return None;
        }
        Some(stream)
    }

    /// The stream of a group, made if there is none. It counts as used now.
    fn open(&mut self, group: &str, now: Moment) -> Option<u32> {
        for _ in 0..SWEEP {
            if !self.sweep(now) {
                break;
            }
        }
        let stream = match self.fresh(group, now) {
            Some(stream) => stream,
            None => self.create(group, now)?,
        };
        self.used.arm(stream, now);
        if self.streams[stream as usize].ring.is_empty() {
            self.empty.arm(stream, now);
        }
        Some(stream)
    }

    fn create(&mut self, group: &str, now: Moment) -> Option<u32> {
        let rule = self.rules.of(group)?;
        let name: Arc<str> = group.into();
        let head = Position {
            epoch: self.next_epoch(),
            number: 0,
            print: 0,
        };
        let stream = key(self.streams.insert(Stream {
            name: Arc::clone(&name),
            tag: tag_of(group),
            rule,
            ring: Ring::new(head),
        }));
        self.names.insert(name, stream);
        self.bytes += GROUP_BYTES + group.len();
        self.used.arm(stream, now);
        self.ends[rule].arm(stream, now.after(self.rules.get(rule).ttl));
        self.trim(stream);
        Some(stream)
    }

    fn add(&mut self, stream: u32, position: Position, message: M, bytes: usize, now: Moment) {
        let Stream { rule, ring, .. } = &mut self.streams[stream as usize];
        let limits = self.rules.get(*rule);
        let before = (ring.len(), ring.bytes());
        ring.push(position, message, bytes, limits.size, &mut self.dropped);
        let (len, bytes) = (ring.len(), ring.bytes());
        self.ends[*rule].arm(stream, now.after(limits.ttl));
        self.empty.disarm(stream);
        self.messages = self.messages - before.0 + len;
        self.bytes = self.bytes + bytes + len * MESSAGE_BYTES - before.1 - before.0 * MESSAGE_BYTES;
        self.trim(stream);
    }

    /// Keeps the bound of bytes. Those go first that have no messages: who only asks where groups are takes nothing from others. This
    /// stream was used last, so that it is the last to lose messages, and stays.
    fn trim(&mut self, last: u32) {
        while self.bytes > self.most_bytes {
            let streams = [self.empty.first(), self.used.first()];
            let first = streams.into_iter().flatten().find(|stream| *stream != last);
            if let Some(stream) = first {
                self.remove(stream);
                self.evicted += 1;
                continue;
            }
            let ring = &mut self.streams[last as usize].ring;
            let before = ring.bytes();
            if !ring.drop_oldest(&mut self.dropped) {
                return;
            }
            self.messages -= 1;
            self.bytes -= before - ring.bytes() + MESSAGE_BYTES;
        }
    }

    /// Removes one stream of each rule whose time is over; false if there is none.
    fn sweep(&mut self, now: Moment) -> bool {
        let mut found = false;
        for rule in 0..self.ends.len() {
            if let Some(stream) = self.ends[rule].due(now) {
                self.remove(stream);
                found = true;
            }
        }
        found
    }

    fn remove(&mut self, stream: u32) {
        let Stream {
            name,
            rule,
            mut ring,
            ..
        } = self.streams.remove(stream as usize);
        self.used.disarm(stream);
        self.empty.disarm(stream);
        self.ends[rule].disarm(stream);
        self.names.remove(&name);
        self.names.shrink_if_sparse();
        self.messages -= ring.len();
        self.bytes -= ring.bytes() + ring.len() * MESSAGE_BYTES + GROUP_BYTES + name.len();
        ring.restart(ring.head(), &mut self.dropped);
    }

    /// A number that no other stream has, as far as chance goes: `SplitMix64`.
    fn next_epoch(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.seed ^ self.seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) & Position::MAX_EPOCH).max(1)
    }
}

/// A seed that no other layer has: not in another process either, and not in the child of a fork.
pub fn random_seed() -> u64 {
    let moment = (std::process::id(), wall_time());
    RandomState::new().hash_one(moment)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "four thousand million streams do not fit in memory"
)]
fn key(index: usize) -> u32 {
    index as u32
}

#[cfg(test)]
mod tests;
