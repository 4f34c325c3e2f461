//! The memberships of plain channels, as this process knows them, and what became of the messages that it sent to them.

use std::collections::{BTreeMap, HashMap};

use crate::shrink::Shrink;

/// Messages that a group's plain channels were sent by this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlainSends {
    /// Sends to the group.
    pub sends: u64,
    /// Messages that queues took.
    pub queued: u64,
    /// Messages that full queues refused.
    pub full: u64,
}

/// The memberships of plain channels, as the whole fleet has them.
#[derive(Debug, Default)]
pub(crate) struct PlainMembers {
    /// Group, channel, and until when in milliseconds since the epoch, by the server's clock.
    by_group: HashMap<String, BTreeMap<String, u64>>,
    /// The latest end of any membership that was there since all were read.
    last_deadline: u64,
}

impl PlainMembers {
    pub(crate) fn replace(&mut self, memberships: impl Iterator<Item = (String, String, u64)>) {
        self.clear();
        for (group, channel, deadline) in memberships {
            self.add(&group, &channel, deadline);
        }
    }

    pub(crate) fn add(&mut self, group: &str, channel: &str, deadline: u64) {
        let members = self.by_group.entry(group.to_owned()).or_default();
        members.insert(channel.to_owned(), deadline);
        self.last_deadline = self.last_deadline.max(deadline);
    }

    pub(crate) fn remove(&mut self, group: &str, channel: &str) {
        if let Some(members) = self.by_group.get_mut(group) {
            members.remove(channel);
            if members.is_empty() {
                self.by_group.remove(group);
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.by_group.clear();
        self.last_deadline = 0;
    }

    pub(crate) fn shrink_if_sparse(&mut self) {
        self.by_group.shrink_if_sparse();
    }

    pub(crate) fn has(&self, group: &str) -> bool {
        self.by_group.contains_key(group)
    }

    /// When the last of all memberships ends, or one that has been removed since all were read.
    pub(crate) fn last_deadline(&self) -> u64 {
        self.last_deadline
    }

    pub(crate) fn holds(&self, group: &str, channel: &str, now: u64) -> bool {
        let deadline = self.by_group.get(group).and_then(|all| all.get(channel));
        deadline.is_some_and(|deadline| *deadline > now)
    }

    pub(crate) fn of_group(&self, group: &str, now: u64) -> Vec<String> {
        let members = self.by_group.get(group).into_iter().flatten();
        members
            .filter(|(_, deadline)| **deadline > now)
            .map(|(channel, _)| channel.clone())
            .collect()
    }

    pub(crate) fn of_channel(&self, channel: &str, now: u64) -> Vec<String> {
        let memberships = self.iter(now).filter(|(_, member)| *member == channel);
        memberships.map(|(group, _)| group.to_owned()).collect()
    }

    /// All memberships that last.
    pub(crate) fn iter(&self, now: u64) -> impl Iterator<Item = (&str, &str)> {
        self.by_group.iter().flat_map(move |(group, members)| {
            let fresh = members.iter().filter(move |(_, deadline)| **deadline > now);
            fresh.map(move |(channel, _)| (group.as_str(), channel.as_str()))
        })
    }
}
