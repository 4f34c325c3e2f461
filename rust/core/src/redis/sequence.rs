//! Numbers that show a hole: the sender counts its messages per destination, the receiver compares.
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

/// From one beginning of a sender that never uses a number again to the next. There are 2^40 of them: enough to forget a thousand
/// destinations a second for 34 years.
const EPOCH: u64 = 1 << 24;
/// How far below the highest number, of those that come once, one may come that was overtaken.
const WINDOW: u64 = 64;

/// What a number says about those before it.
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
    book: Book,
}

impl Sequences {
    /// Remembers up to `capacity` pairs of sender and topic, at least one.
    pub fn new(capacity: usize) -> Self {
        Self {
            book: Book::new(capacity),
        }
    }

    /// Takes note of a message. The highest number stays the last one, except that 1 (and 0, which nobody sends) begins
    /// anew.
    pub fn note(&mut self, sender: ProcessId, topic: &str, sequence: u64) -> Seen {
        let known = self.book.entry(sender, topic);
        if known.is_some_and(Entry::is_once) {
            // What is not authenticated is no measure of what is.
            return Seen::First;
        }
        let (seen, last) = match known.map(|entry| entry.last) {
            None => (Seen::First, sequence),
            Some(last) if sequence > last && self.book.is_excused(sender, topic) => {
                (Seen::First, sequence)
            }
            Some(_) if sequence <= 1 => (Seen::First, sequence),
            Some(last) if sequence <= last => (Seen::Again, last),
            Some(last) => match sequence - last - 1 {
                0 => (Seen::Next, sequence),
                missed => (Seen::Gap(missed), sequence),
            },
        };
        self.book.set(sender, topic, last);
        seen
    }

    /// Takes note of a message whose number its sender uses once. The first number that is seen of a sender is a beginning:
    /// those below it count as seen.
    pub fn note_once(&mut self, sender: ProcessId, topic: &str, sequence: u64) -> Seen {
        if let Some(entry) = self.book.use_once(sender, topic) {
            return entry.note_once(sequence);
        }
        self.book.set(sender, topic, sequence);
        if let Some(entry) = self.book.entry_mut(sender, topic) {
            entry.seen = u64::MAX;
        }
        Seen::First
    }

    /// Whether a sender whose numbers come once was seen on a topic.
    pub fn knows(&self, sender: ProcessId, topic: &str) -> bool {
        self.book.entry(sender, topic).is_some_and(Entry::is_once)
    }

    /// Takes the next hole of each sender on a topic for a new beginning: after its subscription was interrupted. What is not
    /// above the last number is still told, because the former server may pass it on late.
    pub fn excuse_topic(&mut self, topic: &str) {
        self.book.excuse_topic(topic);
    }

    /// Forgets all senders on a topic, after its subscription ended; but not the numbers that come once, or what was seen could
    /// come again.
    pub fn forget_topic(&mut self, topic: &str) {
        self.book.remove_topic(topic);
        self.book.excuse_topic(topic);
    }

    /// Forgets everything: after a connection was lost.
    pub fn clear(&mut self) {
        self.book.clear();
    }

    /// The pairs that are remembered.
    pub fn len(&self) -> usize {
        self.book.entries.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.book.entries.is_empty()
    }
}

/// The sender's side: the next number for each destination.
#[derive(Debug)]
pub struct Counters {
    book: Book,
    /// The number before the first of a destination that is new: a multiple of `EPOCH`.
    begun: u64,
    /// Whether a destination that was forgotten goes on above all numbers that it had.
    rising: bool,
}

impl Counters {
    /// Remembers up to `capacity` destinations, at least one.
    pub fn new(capacity: usize) -> Self {
        Self {
            book: Book::new(capacity),
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
        let last = self.book.get(sender, destination);
        if last.is_none() && self.rising {
            self.make_room();
        }
        let next = last.unwrap_or(self.begun).saturating_add(1);
        self.book.set(sender, destination, next);
        next
    }

    /// Forgets a destination if there is no room for another, and begins the next ones above all numbers that it had.
    fn make_room(&mut self) {
        if self.book.is_full() {
            let last = self.book.remove_oldest().unwrap_or(0);
            // It may have had more numbers than there are from one beginning to the next.
            let used = last - last % EPOCH;
            self.begun = self.begun.max(used).saturating_add(EPOCH);
        }
    }
}

/// Numbers by topic and sender; when it is full, the one that was set longest ago gives way.
#[derive(Debug)]
struct Book {
    capacity: usize,
    /// A topic is there as long as it has a sender.
    topics: HashMap<Arc<str>, HashMap<ProcessId, u32>>,
    entries: Slab<Entry>,
    /// In the order of setting; the deadlines mean nothing.
    order: ExpiryList,
}

#[derive(Debug)]
struct Entry {
    topic: Arc<str>,
    sender: ProcessId,
    last: u64,
    excused: bool,
    /// Which of the last and those below it were seen, from the lowest bit on; 0 where numbers may come again.
    seen: u64,
}

impl Entry {
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

impl Book {
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

    fn entry(&self, sender: ProcessId, topic: &str) -> Option<&Entry> {
        self.entries.get(self.place(sender, topic)? as usize)
    }

    fn entry_mut(&mut self, sender: ProcessId, topic: &str) -> Option<&mut Entry> {
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
    fn use_once(&mut self, sender: ProcessId, topic: &str) -> Option<&mut Entry> {
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
        let entry = Entry {
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
        let Entry {
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
            let kept = known.is_some_and(Entry::is_once);
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

    fn clear(&mut self) {
        self.topics.clear();
        self.entries.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: ProcessId = ProcessId(1);
    const B: ProcessId = ProcessId(2);

    #[test]
    fn holes_and_repetitions_are_told() {
        let mut seen = Sequences::new(8);
        for (sequence, expected) in [
            (5, Seen::First),
            (6, Seen::Next),
            (6, Seen::Again),
            (10, Seen::Gap(3)),
            (8, Seen::Again),
            (11, Seen::Next),
            (1, Seen::First),
            (2, Seen::Next),
            (1, Seen::First),
            (1, Seen::First),
            (u64::MAX, Seen::Gap(u64::MAX - 2)),
            (u64::MAX, Seen::Again),
            (0, Seen::First),
            (1, Seen::First),
        ] {
            assert_eq!(seen.note(A, "room", sequence), expected, "{sequence}");
        }
    }

    #[test]
    fn the_first_hole_after_an_interruption_is_none_and_what_is_late_is_late() {
        let mut seen = Sequences::new(8);
        assert_eq!(seen.note(A, "room", 7), Seen::First);
        assert_eq!(seen.note(A, "hall", 7), Seen::First);
        seen.excuse_topic("room");
        seen.excuse_topic("nowhere");
        for (topic, sequence, expected) in [
            ("hall", 9, Seen::Gap(1)),
            ("room", 6, Seen::Again),
            ("room", 10, Seen::First),
            ("room", 8, Seen::Again),
            ("room", 12, Seen::Gap(1)),
        ] {
            assert_eq!(
                seen.note(A, topic, sequence),
                expected,
                "{topic} {sequence}"
            );
        }
    }

    #[test]
    fn senders_and_topics_count_apart() {
        let mut seen = Sequences::new(8);
        assert_eq!(seen.note(A, "room", 7), Seen::First);
        assert_eq!(seen.note(B, "room", 9), Seen::First);
        assert_eq!(seen.note(A, "hall", 9), Seen::First);
        assert_eq!(seen.note(A, "room", 8), Seen::Next);
        seen.forget_topic("room");
        assert_eq!(seen.len(), 1);
        assert_eq!(seen.note(A, "room", 20), Seen::First);
        assert_eq!(seen.note(A, "hall", 10), Seen::Next);
        seen.clear();
        assert!(seen.is_empty());
        assert_eq!(seen.note(A, "hall", 11), Seen::First);
    }

    #[test]
    fn what_was_used_longest_ago_is_forgotten() {
        let mut seen = Sequences::new(2);
        for (topic, sequence, expected) in [
            ("a", 5, Seen::First),
            ("b", 5, Seen::First),
            ("a", 6, Seen::Next),
            ("c", 5, Seen::First),
            ("a", 7, Seen::Next),
            ("b", 9, Seen::First),
            ("c", 9, Seen::First),
        ] {
            assert_eq!(
                seen.note(A, topic, sequence),
                expected,
                "{topic} {sequence}"
            );
            assert!(seen.len() <= 2);
        }
    }

    #[test]
    fn a_sender_that_forgot_is_not_taken_for_a_hole() {
        let (mut counters, mut seen) = (Counters::new(1), Sequences::new(8));
        let mut send = |topic| seen.note(A, topic, counters.next(topic));
        assert_eq!(send("a"), Seen::First);
        assert_eq!(send("a"), Seen::Next);
        assert_eq!(send("b"), Seen::First);
        assert_eq!(send("a"), Seen::First);
        assert_eq!(send("a"), Seen::Next);
    }

    #[test]
    fn a_capacity_of_nothing_is_one() {
        let mut counters = Counters::new(0);
        assert_eq!((counters.next("a"), counters.next("a")), (1, 2));
    }

    #[test]
    fn a_number_that_comes_once_is_seen_once() {
        let mut seen = Sequences::new(8);
        for (sequence, expected) in [
            (5, Seen::First),
            (5, Seen::Again),
            // It may have been delivered before this process looked.
            (4, Seen::Again),
            (6, Seen::Next),
            (10, Seen::Gap(3)),
            (8, Seen::Late),
            (8, Seen::Again),
            (6, Seen::Again),
            (1, Seen::Again),
            (0, Seen::Again),
            (10 + WINDOW, Seen::Gap(WINDOW - 1)),
            (10, Seen::Again),
            (11, Seen::Late),
            (EPOCH - 1, Seen::Gap(EPOCH - 1 - 10 - WINDOW - 1)),
            (EPOCH + 1, Seen::First),
            (EPOCH - 1, Seen::Again),
            (EPOCH + 2, Seen::Next),
            (1, Seen::Again),
            (3 * EPOCH + 3, Seen::Gap(2)),
            (u64::MAX, Seen::Gap(EPOCH - 2)),
            (u64::MAX, Seen::Again),
        ] {
            assert_eq!(seen.note_once(A, "room", sequence), expected, "{sequence}");
        }
    }

    #[test]
    fn what_comes_once_outlives_the_subscription() {
        let mut seen = Sequences::new(8);
        assert_eq!(seen.note_once(A, "room", 7), Seen::First);
        seen.forget_topic("room");
        assert_eq!(seen.note_once(A, "room", 7), Seen::Again);
        assert_eq!(
            seen.note_once(A, "room", 9),
            Seen::First,
            "the hole is excused"
        );
        assert_eq!(seen.note_once(A, "room", 11), Seen::Gap(1));
    }

    #[test]
    fn what_is_not_authenticated_is_no_measure_of_what_is() {
        let mut seen = Sequences::new(8);
        assert_eq!(seen.note(A, "room", 1 << 60), Seen::First);
        assert!(!seen.knows(A, "room"));
        assert_eq!(seen.note_once(A, "room", 7), Seen::First);
        assert_eq!(seen.note(A, "room", 1 << 60), Seen::First);
        assert_eq!(seen.note_once(A, "room", 8), Seen::Next);
    }

    #[test]
    fn rising_numbers_are_new_to_whoever_remembers() {
        let (mut counters, mut seen) = (Counters::rising(2), Sequences::new(8));
        let mut send = |topic| {
            let number = counters.next(topic);
            (number, seen.note_once(A, topic, number))
        };
        assert_eq!(send("a"), (1, Seen::First));
        assert_eq!(send("b"), (1, Seen::First));
        assert_eq!(send("a"), (2, Seen::Next));
        assert_eq!(send("c"), (EPOCH + 1, Seen::First));
        assert_eq!(send("b"), (2 * EPOCH + 1, Seen::First));
        assert_eq!(send("b"), (2 * EPOCH + 2, Seen::Next));
    }

    #[test]
    fn a_sender_that_forgot_many_destinations_goes_on() {
        let (mut counters, mut seen) = (Counters::rising(1), Sequences::new(8));
        // As after that many were forgotten.
        counters.begun = ((1 << 24) - 1) * EPOCH;
        for topic in ["a", "b", "a", "b"] {
            for expected in [Seen::First, Seen::Next, Seen::Next] {
                let number = counters.next(topic);
                assert_eq!(seen.note_once(A, topic, number), expected, "{number}");
            }
        }
    }

    #[test]
    fn a_destination_with_more_numbers_than_to_the_next_beginning_gets_none_twice() {
        let (mut counters, mut seen) = (Counters::rising(1), Sequences::new(8));
        // As after that many messages to it.
        counters.book.set(ProcessId(0), "a", 5 * EPOCH - 2);
        let mut send = |topic| {
            let number = counters.next(topic);
            (number, seen.note_once(A, topic, number))
        };
        assert_eq!(send("a"), (5 * EPOCH - 1, Seen::First));
        assert_eq!(send("a"), (5 * EPOCH, Seen::First));
        assert_eq!(send("a"), (5 * EPOCH + 1, Seen::Next));
        assert_eq!(send("b"), (6 * EPOCH + 1, Seen::First));
        assert_eq!(send("a"), (7 * EPOCH + 1, Seen::First));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Note(u64, usize, u64),
        Forget(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            12 => (0..3_u64, 0..4_usize, 0..12_u64).prop_map(|(s, t, n)| Step::Note(s, t, n)),
            1 => (0..4_usize).prop_map(Step::Forget),
        ];
        prop::collection::vec(step, 0..80)
    }

    proptest! {
        /// Against a set of all numbers that came.
        #[test]
        fn nothing_that_comes_once_is_new_twice(sequences in prop::collection::vec(1..200_u64, 1..80)) {
            let mut seen = Sequences::new(1);
            let mut model: Vec<u64> = Vec::new();
            for sequence in sequences {
                let top = model.iter().max().copied();
                let lost = |top: u64| model.contains(&sequence) || top - sequence >= WINDOW || sequence < model[0];
                let expected = match top {
                    None => Seen::First,
                    Some(top) if sequence == top + 1 => Seen::Next,
                    Some(top) if sequence > top => Seen::Gap(sequence - top - 1),
                    Some(top) if lost(top) => Seen::Again,
                    Some(_) => Seen::Late,
                };
                prop_assert_eq!(seen.note_once(A, "room", sequence), expected);
                model.push(sequence);
            }
        }

        /// Against a vector in the order of use.
        #[test]
        fn behaves_like_a_vector(steps in steps(), capacity in 1..8_usize) {
            const TOPICS: [&str; 4] = ["a", "b", "c", "d"];
            let mut seen = Sequences::new(capacity);
            let mut model: Vec<((u64, usize), u64)> = Vec::new();
            for step in steps {
                match step {
                    Step::Note(sender, topic, sequence) => {
                        let key = (sender, topic);
                        let place = model.iter().position(|(other, _)| *other == key);
                        let last = place.map(|place| model.remove(place).1);
                        let expected = match last {
                            Some(last) if sequence > 1 && sequence <= last => Seen::Again,
                            Some(last) if sequence > 1 && sequence == last + 1 => Seen::Next,
                            Some(last) if sequence > 1 => Seen::Gap(sequence - last - 1),
                            _ => Seen::First,
                        };
                        if last.is_none() && model.len() == capacity {
                            model.remove(0);
                        }
                        let last = if expected == Seen::Again { last } else { None };
                        model.push((key, last.unwrap_or(sequence)));
                        prop_assert_eq!(seen.note(ProcessId(sender), TOPICS[topic], sequence), expected);
                    }
                    Step::Forget(topic) => {
                        model.retain(|((_, other), _)| *other != topic);
                        seen.forget_topic(TOPICS[topic]);
                    }
                }
                prop_assert_eq!(seen.len(), model.len());
                prop_assert!(seen.book.topics.values().all(|senders| !senders.is_empty()));
            }
        }
    }
}
