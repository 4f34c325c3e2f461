//! The messages of a mailbox that are received once more, in their place among those that wait.

use super::Mailbox;
use crate::clock::{Clock, Moment};
use crate::history::{Replay, Stamped};
use crate::message::{ByteSize, Envelope};

impl<M: Clone + ByteSize, W> Mailbox<M, W> {
    pub(crate) fn has_replays(&self) -> bool {
        self.replays.is_some()
    }

    /// As `take`, if there are replays: the message of whichever began before the other was sent.
    pub(crate) fn take_in_order(
        &mut self,
        clock: &impl Clock,
        expired: &mut Vec<M>,
    ) -> Option<Envelope<M>> {
        self.expire_if(|deadline| clock.reached(deadline), expired);
        self.expire_replays(|deadline| clock.reached(deadline), expired);
        let queued = self.queue.front().map(|queued| queued.sequence);
        let replays = self.replays.as_mut()?;
        let envelope = match (queued, replays.sequence()) {
            (Some(queued), Some(replayed)) if replayed < queued => replays.take(),
            (None, Some(_)) => replays.take(),
            _ => self.pop(),
        }?;
        self.counters.delivered += 1;
        Some(envelope)
    }

    /// Has the messages of a replay received in their place: their sequence numbers begin with this one.
    pub(crate) fn replay(&mut self, replay: Replay<M>, sequence: u64, deadline: Moment) {
        let replays = self.replays.get_or_insert_default();
        replays.push(replay, sequence, deadline);
    }

    /// Drops the messages of one stream behind a number, because they are to be replayed; returns how many.
    pub(crate) fn drop_stream(&mut self, epoch: u64, number: u64, dropped: &mut Vec<M>) -> usize
    where
        M: Stamped,
    {
        let is_again = |message: &M| {
            let position = message.stamped().map(|stamp| stamp.position);
            position.is_some_and(|position| position.epoch == epoch && position.number > number)
        };
        let mut again = 0;
        if self.queue.iter().any(|queued| is_again(&queued.message)) {
            for queued in std::mem::take(&mut self.queue) {
                if is_again(&queued.message) {
                    self.bytes -= queued.message.byte_size();
                    dropped.push(queued.message);
                    again += 1;
                } else {
                    self.queue.push_back(queued);
                }
            }
        }
        if let Some(replays) = &mut self.replays {
            again += replays.drop_stream(epoch, number);
        }
        self.counters.dropped_replaced += again as u64;
        again
    }

    /// Removes what replays have left behind, and is to be dropped without the lock.
    pub(crate) fn collect_replays(&mut self, dropped: &mut Vec<M>) {
        if let Some(replays) = &mut self.replays {
            replays.collect(dropped);
            if replays.len() == 0 {
                self.replays = None;
            }
        }
    }

    pub(super) fn expire_replays(
        &mut self,
        reached: impl Fn(Moment) -> bool,
        expired: &mut Vec<M>,
    ) {
        if let Some(replays) = &mut self.replays {
            self.counters.dropped_expired += replays.expire(reached, expired);
        }
    }
}
