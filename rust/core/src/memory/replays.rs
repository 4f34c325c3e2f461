//! What the owner of a mailbox has missed of groups with a history, and is to receive before what is sent to them now.
//!
//! A replay has a place among the messages of the mailbox: a sequence number for each of its messages, and the deadline of a
//! message that was sent when it began. It holds a cursor, and no message of its own. It does not count against the
//! capacity: it would be the live messages that were refused for it.

use std::collections::VecDeque;

use crate::clock::Moment;
use crate::history::{Replay, Stamped};
use crate::message::Envelope;

#[derive(Debug)]
pub(crate) struct Replays<M> {
    /// In the order in which they began, and therefore of sequence and deadline.
    begun: VecDeque<Begun<M>>,
    /// What replays that are over have left, to be dropped without the lock.
    unused: Vec<M>,
}

#[derive(Debug)]
struct Begun<M> {
    replay: Replay<M>,
    /// That of the message that it gives next.
    sequence: u64,
    deadline: Moment,
}

impl<M> Default for Replays<M> {
    fn default() -> Self {
        Self {
            begun: VecDeque::new(),
            unused: Vec::new(),
        }
    }
}

impl<M: Clone> Replays<M> {
    /// How many messages are still to be received.
    pub(crate) fn len(&self) -> usize {
        self.begun.iter().map(|begun| begun.replay.len()).sum()
    }

    pub(crate) fn push(&mut self, replay: Replay<M>, sequence: u64, deadline: Moment) {
        self.begun.push_back(Begun {
            replay,
            sequence,
            deadline,
        });
    }

    /// The place of the next message.
    pub(crate) fn sequence(&self) -> Option<u64> {
        self.begun.front().map(|first| first.sequence)
    }

    pub(crate) fn last_deadline(&self) -> Option<Moment> {
        self.begun.back().map(|last| last.deadline)
    }

    pub(crate) fn take(&mut self) -> Option<Envelope<M>> {
        let first = self.begun.front_mut()?;
        let message = first.replay.next()?;
        let (sequence, deadline) = (first.sequence, first.deadline);
        first.sequence += 1;
        if first.replay.is_empty() {
            self.finish_first(&mut Vec::new());
        }
        Some(Envelope {
            message,
            sequence,
            deadline,
        })
    }

    /// Ends the replays that nobody received in time; returns how many messages those had still to give.
    pub(crate) fn expire(&mut self, reached: impl Fn(Moment) -> bool, expired: &mut Vec<M>) -> u64 {
        let before = expired.len();
        while self
            .begun
            .front()
            .is_some_and(|first| reached(first.deadline))
        {
            self.finish_first(expired);
        }
        (expired.len() - before) as u64
    }

    /// Leaves out the messages of one stream behind a number; returns how many.
    pub(crate) fn drop_stream(&mut self, epoch: u64, number: u64) -> usize
    where
        M: Stamped,
    {
        let before = self.len();
        for mut begun in std::mem::take(&mut self.begun) {
            let next = begun.replay.peek().and_then(Stamped::stamped);
            if let Some(next) = next.filter(|next| next.position.epoch == epoch) {
                let kept = (number + 1).saturating_sub(next.position.number);
                begun.replay = begun
                    .replay
                    .limited(usize::try_from(kept).unwrap_or(usize::MAX));
            }
            if begun.replay.is_empty() {
                begun.replay.finish(&mut Vec::new(), &mut self.unused);
            } else {
                self.begun.push_back(begun);
            }
        }
        before - self.len()
    }

    /// Ends all replays.
    pub(crate) fn empty(&mut self, dropped: &mut Vec<M>) {
        while !self.begun.is_empty() {
            self.finish_first(dropped);
        }
    }

    /// Moves what is to be dropped without the lock.
    pub(crate) fn collect(&mut self, dropped: &mut Vec<M>) {
        dropped.append(&mut self.unused);
    }

    fn finish_first(&mut self, rest: &mut Vec<M>) {
        if let Some(Begun { replay, .. }) = self.begun.pop_front() {
            replay.finish(rest, &mut self.unused);
        }
    }
}
