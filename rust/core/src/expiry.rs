//! Which entry expires next, for entries that all have the same time to live.
//!
//! A timer wheel or a heap would serve any deadlines at the price of a logarithm, or of a walk over stale
//! entries when some are disarmed early. Here all entries of one list have the same time to live, so the
//! order of arming is the order of deadlines: a doubly linked list over slab indices arms, disarms, renews
//! and finds the next due entry in constant time, holds nothing stale, and costs 16 bytes an entry.

use crate::clock::Moment;

const NONE: u32 = u32::MAX;

/// A link that points at itself is not in the list.
#[derive(Clone, Copy, Debug)]
struct ListLink {
    previous: u32,
    next: u32,
    deadline: Moment,
}

/// Entries, each a small index, in the order in which they fall due.
#[derive(Debug)]
pub(crate) struct ExpiryList {
    links: Vec<ListLink>,
    first: u32,
    last: u32,
}

impl Default for ExpiryList {
    fn default() -> Self {
        Self {
            links: Vec::new(),
            first: NONE,
            last: NONE,
        }
    }
}

impl ExpiryList {
    /// Puts the entry at the end of the list, wherever it was before.
    ///
    /// Deadlines never go back from one call to the next; the list is in order only because of that.
    pub(crate) fn arm(&mut self, entry: u32, deadline: Moment) {
        self.unlink(entry);
        self.links[entry as usize] = ListLink {
            previous: self.last,
            next: NONE,
            deadline,
        };
        match self.last {
            NONE => self.first = entry,
            last => self.links[last as usize].next = entry,
        }
        self.last = entry;
    }

    /// Takes the entry out of the list and notes a deadline for it, at which nothing happens.
    pub(crate) fn suspend(&mut self, entry: u32, deadline: Moment) {
        self.unlink(entry);
        self.links[entry as usize].deadline = deadline;
    }

    /// Takes the entry out of the list, and makes sure that it has a link.
    fn unlink(&mut self, entry: u32) {
        self.disarm(entry);
        let index = entry as usize;
        if index >= self.links.len() {
            let from = self.links.len();
            self.links.extend((from..=index).map(unlinked));
        }
    }

    pub(crate) fn disarm(&mut self, entry: u32) {
        if !self.is_armed(entry) {
            return;
        }
        let ListLink { previous, next, .. } = self.links[entry as usize];
        match previous {
            NONE => self.first = next,
            previous => self.links[previous as usize].next = next,
        }
        match next {
            NONE => self.last = previous,
            next => self.links[next as usize].previous = previous,
        }
        self.links[entry as usize] = unlinked(entry as usize);
    }

    /// The entry that was armed longest ago. It stays armed.
    pub(crate) fn first(&self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }

    pub(crate) fn is_armed(&self, entry: u32) -> bool {
        self.links
            .get(entry as usize)
            .is_some_and(|link| link.next != entry)
    }

    /// The deadline of an entry that is armed or suspended.
    pub(crate) fn deadline(&self, entry: u32) -> Moment {
        let link = self.links.get(entry as usize);
        link.map_or_else(Moment::default, |link| link.deadline)
    }

    /// The first entry, if its deadline has come. It stays armed.
    pub(crate) fn due(&self, now: Moment) -> Option<u32> {
        let first = self.links.get(self.first as usize)?;
        (first.deadline <= now).then_some(self.first)
    }

    /// Gives an entry another index, which is that of no entry.
    pub(crate) fn rename(&mut self, from: u32, to: u32) {
        let Some(&link) = self.links.get(from as usize) else {
            return;
        };
        if !self.is_armed(from) {
            self.suspend(to, link.deadline);
            return;
        }
        match link.previous {
            NONE => self.first = to,
            previous => self.links[previous as usize].next = to,
        }
        match link.next {
            NONE => self.last = to,
            next => self.links[next as usize].previous = to,
        }
        self.links[to as usize] = link;
        self.links[from as usize] = unlinked(from as usize);
    }

    /// Forgets all indices from this one on, which are those of no entries.
    pub(crate) fn truncate(&mut self, indices: usize) {
        self.links.truncate(indices);
        self.links.shrink_to_fit();
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many indices there is memory for.
    #[cfg(test)]
    pub(crate) fn room(&self) -> usize {
        self.links.capacity()
    }
}

fn unlinked(index: usize) -> ListLink {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the index is a slab key that came in as a u32"
    )]
    let itself = index as u32;
    ListLink {
        previous: itself,
        next: itself,
        deadline: Moment::default(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::default().after(Duration::from_secs(seconds))
    }

    #[test]
    fn entries_fall_due_in_the_order_of_arming() {
        let mut list = ExpiryList::default();
        list.arm(3, at(1));
        list.arm(0, at(2));
        assert_eq!(list.due(at(0)), None);
        assert_eq!(list.due(at(1)), Some(3));
        list.disarm(3);
        assert_eq!(list.due(at(1)), None);
        assert_eq!(list.due(at(2)), Some(0));
    }

    #[test]
    fn arming_again_renews() {
        let mut list = ExpiryList::default();
        list.arm(0, at(1));
        list.arm(1, at(2));
        list.arm(0, at(3));
        assert_eq!(list.due(at(5)), Some(1));
        assert_eq!(list.deadline(0), at(3));
    }

    #[test]
    fn a_suspended_entry_never_falls_due() {
        let mut list = ExpiryList::default();
        list.arm(0, at(1));
        list.arm(1, at(2));
        list.suspend(0, at(1));
        list.suspend(7, at(1));
        assert_eq!(list.due(at(9)), Some(1));
        assert_eq!((list.deadline(0), list.deadline(7)), (at(1), at(1)));
        list.arm(0, at(3));
        list.disarm(1);
        assert_eq!(list.due(at(9)), Some(0));
    }

    proptest! {
        /// Entries that are moved to lower indices stay in their order, with their deadlines.
        #[test]
        fn renamed_entries_keep_their_places(
            armed in prop::collection::vec(0_u32..16, 0..24), suspended in prop::collection::vec(0_u32..16, 0..4),
        ) {
            let mut list = ExpiryList::default();
            let mut order: Vec<(u32, Moment)> = Vec::new();
            for (time, entry) in armed.into_iter().enumerate() {
                list.arm(entry, at(time as u64));
                order.retain(|(other, _)| *other != entry);
                order.push((entry, at(time as u64)));
            }
            let mut resting = Vec::new();
            for entry in suspended {
                list.suspend(entry, at(99));
                order.retain(|(other, _)| *other != entry);
                resting.push(entry);
            }
            let mut taken: Vec<u32> = order.iter().map(|(entry, _)| *entry).chain(resting.iter().copied()).collect();
            taken.sort_unstable();
            taken.dedup();
            let names: Vec<(u32, u32)> = taken.iter().copied().zip(0..).collect();
            for &(from, to) in names.iter().filter(|(from, to)| from != to) {
                list.rename(from, to);
            }
            let renamed = |entry: u32| {
                let known = names.iter().find(|(from, _)| *from == entry);
                known.expect("it is there").1
            };
            list.truncate(taken.len());
            prop_assert_eq!(list.room(), taken.len());
            for entry in resting {
                prop_assert!(!list.is_armed(renamed(entry)));
                prop_assert_eq!(list.deadline(renamed(entry)), at(99));
            }
            for (entry, deadline) in order {
                prop_assert_eq!(list.first(), Some(renamed(entry)));
                prop_assert_eq!(list.deadline(renamed(entry)), deadline);
                list.disarm(renamed(entry));
            }
            prop_assert_eq!(list.first(), None);
        }

        /// Against the obvious list: a vector searched from the front.
        #[test]
        fn behaves_like_a_vector(steps in prop::collection::vec((0u32..8, any::<bool>()), 0..64)) {
            let mut list = ExpiryList::default();
            let mut model: Vec<(u32, Moment)> = Vec::new();
            for (time, (entry, arm)) in steps.into_iter().enumerate() {
                model.retain(|(armed, _)| *armed != entry);
                if arm {
                    list.arm(entry, at(time as u64));
                    model.push((entry, at(time as u64)));
                } else {
                    list.disarm(entry);
                }
                for entry in 0..8 {
                    prop_assert_eq!(list.is_armed(entry), model.iter().any(|(armed, _)| *armed == entry));
                }
                prop_assert_eq!(list.due(at(1000)), model.first().map(|(entry, _)| *entry));
                prop_assert_eq!(list.first(), list.due(at(1000)));
            }
        }
    }
}
