//! The changes of memberships that this process makes, until their announcements have come back to it.
//!
//! Each change is made on the hash, and announced when the server has confirmed that. Another process may change the same
//! membership in between, so that announcements come in another order than the changes were made in. Whoever makes a change
//! notices that: all processes hear all announcements in one order. If another one about the same membership comes after the
//! change was asked for, and before its own announcement has come back, nobody knows which change was the last one. If none
//! does, all changes that were announced before were made before, too.

use std::collections::{HashMap, VecDeque};

use crate::redis::wire::keys::member_field;
use crate::shrink::Shrink;

/// How many announcements may be on their way back. With more they are given up: the subscription brings nothing.
pub(super) const MOST: usize = 16_384;

/// A membership that this process is changing.
#[derive(Debug, Default)]
struct Open {
    /// Changes that were asked for and have not ended.
    changes: usize,
    /// The count of changes by others when the latest of them concerned this membership.
    disturbed: u64,
}

/// A change whose announcement was sent and has not come back.
#[derive(Debug)]
struct Sent {
    /// The number of the announcement.
    number: u64,
    field: String,
    /// The count of changes by others when this one was asked for.
    begun: u64,
}

#[derive(Debug, Default)]
pub(super) struct Announcements {
    /// Counts the changes by others.
    others: u64,
    /// That count when the latest of them may have concerned any membership.
    disturbed: u64,
    /// The memberships that this process is changing, by the field of the hash.
    open: HashMap<String, Open>,
    /// The announcements that were sent and have not come back, in the order of their numbers.
    sent: VecDeque<Sent>,
}

impl Announcements {
    /// A change is asked for. Returns what is to be given to `sent` when it has been made.
    pub(super) fn begin(&mut self, group: &str, channel: &str) -> u64 {
        let open = self.open.entry(member_field(group, channel)).or_default();
        open.changes += 1;
        self.others
    }

    /// A change was made, and its announcement was sent with this number.
    pub(super) fn sent(&mut self, (group, channel): (&str, &str), begun: u64, number: u64) {
        // A sender that forgot the destination counts from 1 again.
        for earlier in self.sent.iter_mut().rev() {
            if earlier.number < number {
                break;
            }
            earlier.number = number;
        }
        self.sent.push_back(Sent {
            number,
            field: member_field(group, channel),
            begun,
        });
    }

    /// Whether so many are on their way back that they are to be given up.
    pub(super) fn are_too_many(&self) -> bool {
        self.sent.len() > MOST
    }

    /// A change will not be announced.
    pub(super) fn abandon(&mut self, group: &str, channel: &str) {
        self.end(&member_field(group, channel));
    }

    /// Another process has changed a membership.
    pub(super) fn disturb(&mut self, group: &str, channel: &str) {
        self.others += 1;
        if !self.open.is_empty()
            && let Some(open) = self.open.get_mut(&member_field(group, channel))
        {
            open.disturbed = self.others;
        }
    }

    /// Other processes may have changed any memberships.
    pub(super) fn disturb_all(&mut self) {
        self.others += 1;
        self.disturbed = self.others;
    }

    /// An announcement of this process has come back: it and those before it are over. Returns whether another process has
    /// changed one of these memberships meanwhile.
    pub(super) fn came_back(&mut self, number: u64) -> bool {
        let mut disturbed = false;
        while self.sent.front().is_some_and(|next| next.number <= number)
            && let Some(back) = self.sent.pop_front()
        {
            disturbed |= self.disturbed.max(self.end(&back.field)) > back.begun;
        }
        disturbed
    }

    /// The announcements that were sent may not come back. Returns whether there are any.
    pub(super) fn give_up(&mut self) -> bool {
        let sent = std::mem::take(&mut self.sent);
        for Sent { field, .. } in &sent {
            self.end(field);
        }
        !sent.is_empty()
    }

    /// Ends a change; returns the count of changes by others when the latest of them concerned its membership.
    fn end(&mut self, field: &str) -> u64 {
        let Some(open) = self.open.get_mut(field) else {
            return 0;
        };
        let disturbed = open.disturbed;
        open.changes = open.changes.saturating_sub(1);
        if open.changes == 0 {
            self.open.remove(field);
        }
        disturbed
    }

    pub(super) fn shrink_if_sparse(&mut self) {
        self.open.shrink_if_sparse();
        self.sent.shrink_if_sparse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORK: (&str, &str) = ("room", "work");

    #[test]
    fn a_change_is_disturbed_by_another_one_that_comes_before_it_is_back() {
        let mut changes = Announcements::default();
        changes.disturb(WORK.0, WORK.1);
        let first = changes.begin(WORK.0, WORK.1);
        changes.disturb("room", "other");
        changes.sent(WORK, first, 1);
        assert!(!changes.came_back(1), "it concerned another membership");
        let second = changes.begin(WORK.0, WORK.1);
        changes.disturb(WORK.0, WORK.1);
        let third = changes.begin(WORK.0, WORK.1);
        changes.sent(WORK, second, 2);
        changes.sent(WORK, third, 3);
        assert!(changes.came_back(2));
        assert!(!changes.came_back(3), "it was asked for later");
        assert!(changes.open.is_empty() && changes.sent.is_empty());
    }

    #[test]
    fn any_change_is_disturbed_by_what_may_concern_all() {
        let mut changes = Announcements::default();
        let begun = changes.begin(WORK.0, WORK.1);
        changes.disturb_all();
        changes.sent(WORK, begun, 1);
        assert!(changes.came_back(4), "and what is behind it says the same");
        let begun = changes.begin(WORK.0, WORK.1);
        changes.sent(WORK, begun, 5);
        assert!(!changes.came_back(5));
    }

    #[test]
    fn what_does_not_come_back_is_given_up() {
        let mut changes = Announcements::default();
        assert!(!changes.give_up());
        let begun = changes.begin(WORK.0, WORK.1);
        let failed = changes.begin(WORK.0, WORK.1);
        changes.sent(WORK, begun, 1);
        assert!(changes.give_up());
        assert_eq!(changes.begin(WORK.0, WORK.1), failed);
        changes.abandon(WORK.0, WORK.1);
        changes.abandon(WORK.0, WORK.1);
        assert!(changes.open.is_empty());
    }

    #[test]
    fn numbers_that_begin_anew_are_behind_those_before_them() {
        let mut changes = Announcements::default();
        for number in [65_000, 65_001, 1] {
            let begun = changes.begin(WORK.0, WORK.1);
            changes.sent(WORK, begun, number);
        }
        changes.disturb(WORK.0, WORK.1);
        assert!(changes.came_back(1));
        assert!(changes.open.is_empty());
    }
}
