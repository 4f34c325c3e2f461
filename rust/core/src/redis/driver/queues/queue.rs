//! What is known of one queue.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

use crate::redis::driver::calls::CallId;

/// How many entries that have come are remembered, for a list that still holds them when the connection is back.
const REMEMBERED: usize = 4096;

/// What is known of one queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Entries that were asked for and have not come.
    pub(super) fetching: usize,
    /// Of these, those that were asked for right behind a push.
    pub(super) following: usize,
    /// Entries may have been taken whose coming was not seen: the list of those taken has to be read.
    pub(super) unsure: bool,
    /// That list is being read.
    pub(super) recovering: bool,
    /// Calls that take entries when it has been read.
    pub(super) held: Vec<DeferredFetch>,
    /// A wake-up came since entries were asked for; the request may have been done before the push.
    pub(super) woken: bool,
    /// Entries that have come, and whether they were removed from the list of those taken.
    come: HashMap<u64, bool>,
    /// Of these, the latest that were removed: a replica that takes over may still hold them.
    removed: VecDeque<u64>,
    /// When entries came for the last time: for a while another server may take over that still holds them.
    pub(super) came: Option<Instant>,
    /// When it was last looked how long it is, by the number of the look.
    pub(super) looked: u64,
    /// Since when messages wait here without a receiver.
    pub(super) stale: Option<Instant>,
    /// The hour in whose index its name is.
    pub(super) indexed: Option<u64>,
}

impl Queue {
    /// Notes that an entry has come; returns whether it is the first time.
    pub(super) fn has_come(&mut self, entry: u64) -> bool {
        let before = self.come.len();
        self.come.entry(entry).or_insert(false);
        self.come.len() > before
    }

    /// Entries were removed from the list of those taken. One that came twice is acknowledged twice, and one may be acknowledged so
    /// late that this record is another.
    pub(super) fn acknowledged(&mut self, entries: &[u64]) {
        for entry in entries {
            if let Some(removed @ false) = self.come.get_mut(entry) {
                *removed = true;
                self.removed.push_back(*entry);
            }
        }
        let over = self.removed.len().saturating_sub(REMEMBERED);
        for entry in self.removed.drain(..over) {
            self.come.remove(&entry);
        }
    }

    /// Whether all that has come was removed from the list of those taken.
    pub(super) fn is_acknowledged(&self) -> bool {
        self.come.len() == self.removed.len()
    }
}

/// A call that takes entries whether anybody waits or not.
#[derive(Debug)]
pub(super) struct DeferredFetch {
    /// How many at most.
    pub(super) most: usize,
    pub(super) call: CallId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_acknowledged_however_often_and_late() {
        let mut queue = Queue::default();
        assert!(queue.has_come(1));
        assert!(queue.has_come(2));
        assert!(!queue.is_acknowledged());
        queue.acknowledged(&[1]);
        assert!(!queue.has_come(1), "the list of those taken still had it");
        queue.acknowledged(&[1, 2]);
        assert!(queue.is_acknowledged());
        queue.acknowledged(&[3]);
        assert!(queue.is_acknowledged(), "another record had that one");
        assert!(queue.has_come(3));
        assert!(!queue.is_acknowledged());
    }

    #[test]
    fn the_latest_entries_are_remembered() {
        let mut queue = Queue::default();
        let entries: Vec<u64> = (0..=REMEMBERED as u64).collect();
        for &entry in &entries {
            assert!(queue.has_come(entry));
        }
        queue.acknowledged(&entries);
        assert!(queue.is_acknowledged());
        assert!(queue.has_come(0), "it was removed longest ago");
        assert!(!queue.has_come(1));
    }
}
