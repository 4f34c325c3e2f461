//! Who is present in groups, and what their members are told of it.

use std::ops::Range;

use super::State;
use crate::clock::Moment;
use crate::fanout::FanOut;
use crate::memory::channels::ChannelKey;
use crate::message::ByteSize;
use crate::presence::{PresenceStats, Presences};

impl<M: Clone + ByteSize, W> State<M, W> {
    pub(crate) fn set_presences(&mut self, presences: Presences) {
        self.presences = Some(Box::new(presences));
    }

    /// Works on the presences, if there are any.
    pub(crate) fn presences<R>(&mut self, work: impl FnOnce(&mut Presences) -> R) -> Option<R> {
        self.presences.as_mut().map(|presences| work(presences))
    }

    /// Puts a member of a group under a key there. False if the group has no presence.
    pub(crate) fn enter(
        &mut self,
        group: &str,
        channel: ChannelKey,
        entry: (&str, &[u8]),
        now: Moment,
    ) -> bool {
        let Some(presences) = &mut self.presences else {
            return false;
        };
        let name = &self.channels[channel].name;
        let entered = presences.set(group, name, entry, now);
        if let Some(group) = self.groups.find(group).filter(|_| entered) {
            self.groups.note_ends_of(group);
        }
        entered
    }

    /// Removes the entries of those whose memberships have ended. To be called while their channels are known.
    #[inline]
    pub(crate) fn note_left(&mut self, now: Moment) {
        if self.groups.has_left() {
            self.remove_left(now);
        }
    }

    #[cold]
    fn remove_left(&mut self, now: Moment) {
        for (group, channel) in self.groups.take_left() {
            if let Some(presences) = &mut self.presences {
                presences.remove(&group, &self.channels[channel].name, now);
            }
        }
    }

    /// Tells the members of one group what is due; `None` if nothing is any more.
    pub(crate) fn tell(
        &mut self,
        due: Moment,
        (now, deadline): (Moment, Moment),
        message: impl FnOnce(Vec<u8>, Range<usize>) -> M,
    ) -> Option<FanOut<M, W>> {
        let (group, rule, diff) = self.presences.as_mut()?.tell(due)?;
        let Some(found) = self.groups.find(&group) else {
            return Some(FanOut::empty());
        };
        let (event, kind) = diff.event(&rule.kind, &group);
        Some(self.fan_out(found, &message(event, kind), &[], now, deadline))
    }

    /// Whether something is due earlier than it was.
    #[inline]
    pub(crate) fn take_due_earlier(&mut self) -> bool {
        self.presences
            .as_mut()
            .is_some_and(|presences| presences.take_due_earlier())
    }

    pub(super) fn presence_stats(&self) -> PresenceStats {
        let presences = self.presences.as_ref();
        presences
            .map(|presences| presences.stats())
            .unwrap_or_default()
    }

    pub(super) fn clear_presences(&mut self) {
        self.presences(Presences::clear);
    }
}
