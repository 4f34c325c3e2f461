//! Topics that a server is to be asked for: each once on a connection, in batches, with few batches unanswered at a time.
//!
//! A server that is asked for a hundred thousand topics at once answers nothing else for seconds, not even a ping. A
//! topic that it has answered and not confirmed was refused: it is requested again after a pause.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::redis::link::Change;
use crate::shrink::Shrink;

/// How many topics a server is asked for at once.
const BATCH: usize = 512;
/// How many batches may be unanswered: the server has the next one when it is done with the first.
const BATCHES: usize = 2;
/// How long after a refusal a topic is asked for again.
const REFUSED: Duration = Duration::from_millis(500);

/// The changes that wait for one connection.
#[derive(Debug, Default)]
pub(super) struct Changes {
    waiting: VecDeque<Change>,
    /// Batches that were written and not answered.
    unanswered: usize,
    /// The topics that were refused on the connection, and when they are asked for again.
    refused: VecDeque<(Instant, String)>,
}

impl Changes {
    pub(super) fn push(&mut self, change: Change) {
        self.waiting.push_back(change);
    }

    /// Queues a change before all others.
    pub(super) fn push_first(&mut self, change: Change) {
        self.waiting.push_front(change);
    }

    /// Takes the next batch, of those changes that are still wanted, if the connection is not busy with others.
    pub(super) fn next_batch(
        &mut self,
        mut is_wanted: impl FnMut(&Change) -> bool,
    ) -> Option<Vec<Change>> {
        while self.unanswered < BATCHES && !self.waiting.is_empty() {
            let next = self.waiting.drain(..self.waiting.len().min(BATCH));
            let batch: Vec<Change> = next.filter(|change| is_wanted(change)).collect();
            if !batch.is_empty() {
                self.unanswered += 1;
                return Some(batch);
            }
        }
        None
    }

    /// Notes that a batch was answered, and these topics refused.
    pub(super) fn answered(&mut self, refused: impl IntoIterator<Item = String>, now: Instant) {
        self.unanswered = self.unanswered.saturating_sub(1);
        let again = now + REFUSED;
        self.refused
            .extend(refused.into_iter().map(|topic| (again, topic)));
    }

    /// Takes the topics that were refused a while ago.
    pub(super) fn take_refused(&mut self, now: Instant) -> impl Iterator<Item = String> + '_ {
        let due = self.refused.iter().take_while(|(at, _)| *at <= now);
        let due = due.count();
        self.refused.drain(..due).map(|(_, topic)| topic)
    }

    /// Forgets all: the connection is lost.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.unanswered = 0;
        self.refused.clear();
    }

    pub(super) fn shrink_if_sparse(&mut self) {
        self.waiting.shrink_if_sparse();
        self.refused.shrink_if_sparse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(topics: usize) -> Changes {
        let mut changes = Changes::default();
        for topic in 0..topics {
            changes.push(Change::join(&topic.to_string()));
        }
        changes
    }

    #[test]
    fn few_batches_are_unanswered_at_a_time() {
        let mut changes = changes(3 * BATCH);
        let sizes = |changes: &mut Changes| {
            let batches = std::iter::from_fn(|| changes.next_batch(|_| true));
            batches.map(|batch| batch.len()).collect::<Vec<_>>()
        };
        assert_eq!(sizes(&mut changes), [BATCH; BATCHES]);
        changes.answered([], Instant::now());
        assert_eq!(sizes(&mut changes), [BATCH]);
    }

    #[test]
    fn what_is_not_wanted_any_more_is_left_out_and_fills_no_batch() {
        let mut changes = changes(BATCH + 1);
        let last = BATCH.to_string();
        let batch = changes.next_batch(|change| change.topic == last);
        assert_eq!(batch, Some(vec![Change::join(&last)]));
    }

    #[test]
    fn what_was_refused_is_asked_for_again_after_a_pause() {
        let (now, mut changes) = (Instant::now(), changes(1));
        assert!(changes.next_batch(|_| true).is_some());
        changes.answered(["0".to_owned()], now);
        assert_eq!(changes.take_refused(now).count(), 0);
        let due: Vec<_> = changes.take_refused(now + REFUSED).collect();
        assert_eq!(due, ["0"]);
        assert_eq!(changes.take_refused(now + REFUSED).count(), 0);
    }
}
