//! The memberships of plain channels, as this process knows them, and what became of the messages that it sent to them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::shrink::Shrink;

/// Messages that a group's plain channels were sent by this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PlainSends {
    /// Sends to the group.
    pub(crate) sends: u64,
    /// Messages that queues took.
    pub(crate) queued: u64,
    /// Messages that full queues refused.
    pub(crate) full: u64,
}

/// The memberships of plain channels, as the whole fleet has them.
#[derive(Debug, Default)]
pub(crate) struct PlainMembers {
    /// Group, channel, and until when in milliseconds since the epoch, by the server's clock.
    by_group: HashMap<Arc<str>, BTreeMap<Arc<str>, u64>>,
    /// The groups of each channel. The names are those of the other table.
    by_channel: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// The latest end of any membership that was there since all were read.
    last_deadline: u64,
}

/// The key of a table that equals a name, or a new one.
fn key<V>(table: &HashMap<Arc<str>, V>, name: &str) -> Arc<str> {
    let known = table.get_key_value(name).map(|(key, _)| Arc::clone(key));
    known.unwrap_or_else(|| Arc::from(name))
}

impl FromIterator<(String, String, u64)> for PlainMembers {
    /// Groups, channels, and until when, as they were read.
    fn from_iter<I: IntoIterator<Item = (String, String, u64)>>(memberships: I) -> Self {
        let mut all = Self::default();
        for (group, channel, deadline) in memberships {
            all.add(&group, &channel, deadline);
        }
        all
    }
}

impl PlainMembers {
    /// A membership ends then, or has ended already.
    pub(crate) fn set(&mut self, group: &str, channel: &str, deadline: u64, now: u64) {
        if deadline > now {
            self.add(group, channel, deadline);
        } else {
            self.remove(group, channel);
        }
    }

    fn add(&mut self, group: &str, channel: &str, deadline: u64) {
        self.last_deadline = self.last_deadline.max(deadline);
        let members = self.by_group.get_mut(group);
        if let Some(known) = members.and_then(|members| members.get_mut(channel)) {
            *known = deadline;
            return;
        }
        let (group, channel) = (key(&self.by_group, group), key(&self.by_channel, channel));
        let groups = self.by_channel.entry(Arc::clone(&channel)).or_default();
        groups.insert(Arc::clone(&group));
        let members = self.by_group.entry(group).or_default();
        members.insert(channel, deadline);
    }

    pub(crate) fn remove(&mut self, group: &str, channel: &str) {
        if let Some(members) = self.by_group.get_mut(group) {
            members.remove(channel);
            if members.is_empty() {
                self.by_group.remove(group);
            }
        }
        if let Some(groups) = self.by_channel.get_mut(channel) {
            groups.remove(group);
            if groups.is_empty() {
                self.by_channel.remove(channel);
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.by_group.clear();
        self.by_channel.clear();
        self.last_deadline = 0;
    }

    pub(crate) fn shrink_if_sparse(&mut self) {
        self.by_group.shrink_if_sparse();
        self.by_channel.shrink_if_sparse();
    }

    pub(crate) fn has(&self, group: &str) -> bool {
        self.by_group.contains_key(group)
    }

    /// When the last of all memberships ends, or one that has been removed since all were read.
    pub(crate) fn last_deadline(&self) -> u64 {
        self.last_deadline
    }

    pub(crate) fn deadline(&self, group: &str, channel: &str) -> Option<u64> {
        self.by_group.get(group)?.get(channel).copied()
    }

    pub(crate) fn holds(&self, group: &str, channel: &str, now: u64) -> bool {
        let deadline = self.deadline(group, channel);
        deadline.is_some_and(|deadline| deadline > now)
    }

    pub(crate) fn of_group(&self, group: &str, now: u64) -> Vec<String> {
        self.members(group, now).map(str::to_owned).collect()
    }

    /// How many `of_group` gives.
    pub(crate) fn count(&self, group: &str, now: u64) -> usize {
        self.members(group, now).count()
    }

    fn members(&self, group: &str, now: u64) -> impl Iterator<Item = &str> {
        let members = self.by_group.get(group).into_iter().flatten();
        members
            .filter(move |(_, deadline)| **deadline > now)
            .map(|(channel, _)| &**channel)
    }

    pub(crate) fn of_channel(&self, channel: &str, now: u64) -> Vec<String> {
        let groups = self.by_channel.get(channel).into_iter().flatten();
        groups
            .filter(|group| self.holds(group, channel, now))
            .map(|group| group.as_ref().to_owned())
            .collect()
    }

    /// All memberships that last.
    pub(crate) fn iter(&self, now: u64) -> impl Iterator<Item = (&str, &str)> {
        self.by_group.iter().flat_map(move |(group, members)| {
            let fresh = members.iter().filter(move |(_, deadline)| **deadline > now);
            fresh.map(move |(channel, _)| (group.as_ref(), channel.as_ref()))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_latest_end_is_that_of_all_that_were_there_since_all_were_read() {
        let mut plain = PlainMembers::default();
        plain.set("room", "work", 50, 10);
        plain.set("room", "work", 20, 10);
        plain.set("room", "mail", 9, 10);
        assert_eq!(plain.last_deadline(), 50);
        plain.remove("room", "work");
        assert_eq!(plain.last_deadline(), 50);
        plain = PlainMembers::from_iter([("room".to_owned(), "work".to_owned(), 30)]);
        assert_eq!(plain.last_deadline(), 30);
    }

    #[test]
    fn the_memory_of_a_peak_is_given_back() {
        let mut plain = PlainMembers::default();
        let names: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        for name in &names {
            plain.set(name, name, 1, 0);
        }
        for name in &names {
            plain.remove(name, name);
        }
        plain.shrink_if_sparse();
        assert_eq!(plain.by_group.capacity() + plain.by_channel.capacity(), 0);
    }

    proptest! {
        /// The index by channel always says what a walk through all memberships would say.
        #[test]
        fn the_groups_of_a_channel_are_those_that_hold_it(
            steps in prop::collection::vec((0..4_u8, 0..4_u8, 0..20_u64), 1..60),
            now in 0..10_u64,
        ) {
            let mut plain = PlainMembers::default();
            for (group, channel, deadline) in steps {
                plain.set(&group.to_string(), &channel.to_string(), deadline, 5);
            }
            for channel in ["0", "1", "2", "3"] {
                let mut groups: Vec<_> = plain.iter(now).filter(|(_, member)| *member == channel).collect();
                groups.sort_unstable();
                let expected: Vec<_> = groups.into_iter().map(|(group, _)| group.to_owned()).collect();
                prop_assert_eq!(plain.of_channel(channel, now), expected);
            }
            let all: usize = plain.by_channel.values().map(BTreeSet::len).sum();
            prop_assert_eq!(all, plain.by_group.values().map(BTreeMap::len).sum::<usize>());
        }
    }
}
