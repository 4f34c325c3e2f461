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

/// A membership with changes of this process under way.
#[derive(Debug, Default)]
struct Open {
    changes: usize,
    /// How many changes by others had come with the last one of this membership.
    disturbed: u64,
}

/// A change whose announcement was sent and has not come back.
#[derive(Debug)]
struct Announced {
    /// Of the announcement.
    number: u64,
    field: String,
    /// How many changes by others had come when it was asked for.
    begun: u64,
}

#[derive(Debug, Default)]
pub(super) struct Announcements {
    /// How many changes by others have come.
    others: u64,
    /// The same, with the last one that may have been of any membership.
    disturbed: u64,
    /// By the field of the hash.
    open: HashMap<String, Open>,
    /// In the order of their numbers.
    announced: VecDeque<Announced>,
}

impl Announcements {
    /// A change is asked for. Returns what is to be given back when it has been made.
    pub(super) fn begin(&mut self, group: &str, channel: &str) -> u64 {
        let open = self.open.entry(member_field(group, channel)).or_default();
        open.changes += 1;
        self.others
    }

    /// A change was made, and its announcement was sent with this number.
    pub(super) fn announced(&mut self, (group, channel): (&str, &str), begun: u64, number: u64) {
        // A sender that forgot the destination counts from 1 again.
        for earlier in self.announced.iter_mut().rev() {
            if earlier.number < number {
                break;
            }
            earlier.number = number;
        }
        self.announced.push_back(Announced {
            number,
            field: member_field(group, channel),
            begun,
        });
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
        while self
            .announced
            .front()
            .is_some_and(|next| next.number <= number)
            && let Some(back) = self.announced.pop_front()
        {
            disturbed |= self.disturbed.max(self.end(&back.field)) > back.begun;
        }
        disturbed
    }

    /// The announcements that were sent may not come back. Returns whether there are any.
    pub(super) fn give_up(&mut self) -> bool {
        let announced = std::mem::take(&mut self.announced);
        for Announced { field, .. } in &announced {
            self.end(field);
        }
        !announced.is_empty()
    }

    /// Ends a change; returns when another process has changed the membership last.
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
        self.announced.shrink_if_sparse();
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
        changes.announced(WORK, first, 1);
        assert!(!changes.came_back(1), "it concerned another membership");
        let second = changes.begin(WORK.0, WORK.1);
        changes.disturb(WORK.0, WORK.1);
        let third = changes.begin(WORK.0, WORK.1);
        changes.announced(WORK, second, 2);
        changes.announced(WORK, third, 3);
        assert!(changes.came_back(2));
        assert!(!changes.came_back(3), "it was asked for later");
        assert!(changes.open.is_empty() && changes.announced.is_empty());
    }

    #[test]
    fn any_change_is_disturbed_by_what_may_concern_all() {
        let mut changes = Announcements::default();
        let begun = changes.begin(WORK.0, WORK.1);
        changes.disturb_all();
        changes.announced(WORK, begun, 1);
        assert!(changes.came_back(4), "and what is behind it says the same");
        let begun = changes.begin(WORK.0, WORK.1);
        changes.announced(WORK, begun, 5);
        assert!(!changes.came_back(5));
    }

    #[test]
    fn what_does_not_come_back_is_given_up() {
        let mut changes = Announcements::default();
        assert!(!changes.give_up());
        let begun = changes.begin(WORK.0, WORK.1);
        let failed = changes.begin(WORK.0, WORK.1);
        changes.announced(WORK, begun, 1);
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
            changes.announced(WORK, begun, number);
        }
        changes.disturb(WORK.0, WORK.1);
        assert!(changes.came_back(1));
        assert!(changes.open.is_empty());
    }
}
