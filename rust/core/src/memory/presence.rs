//! Groups that tell their members who is there.

use std::ops::Range;

use super::MemoryEngine;
use crate::clock::{Clock, Moment};
use crate::error::Error;
use crate::handoff::HandOff;
use crate::message::ByteSize;
use crate::name::check_group;
use crate::presence::{Counts, Listing, Presences};

impl<M: Clone + ByteSize, W, C: Clock> MemoryEngine<M, W, C> {
    /// The same, with a presence for the groups that its rules name.
    #[must_use]
    pub fn with_presences(self, presences: Presences) -> Self {
        self.state.lock().set_presences(presences);
        self
    }

    /// Has a function called, without the lock, whenever `presence_due` has become earlier. The first one stays.
    pub fn on_presence_due(&self, ring: impl Fn() + Send + Sync + 'static) {
        self.bell.hang(ring);
    }

    /// Puts a channel in a group, as `group_add` does, and shows it there under a key with a meta, which is one value of msgpack.
    /// False if the group has no presence; nothing is done then.
    ///
    /// # Errors
    /// As `group_add`.
    pub fn presence_add(
        &self,
        group: &str,
        channel: &str,
        key: &str,
        meta: &[u8],
    ) -> Result<bool, Error> {
        check_group(group)?;
        self.with_channel(channel, |state, channel, now| {
            let has_presence = state.presences(|presences| presences.rule_of(group).is_some());
            if has_presence != Some(true) {
                state.mark_idle_if_empty(channel);
                return false;
            }
            let deadline = now.after(self.config.group_expiry);
            state.join(group, channel, (now, deadline));
            state.enter(group, channel, (key, meta), now)
        })
    }

    /// Gives the entry of a channel another meta. Returns whether it has one.
    ///
    /// # Errors
    /// A name is invalid, or the engine is closed.
    pub fn presence_update(&self, group: &str, channel: &str, meta: &[u8]) -> Result<bool, Error> {
        self.with(|state, now| {
            state.find_group(group)?;
            let Some(channel) = state.find_open(channel)? else {
                return Ok(false);
            };
            let name = state.name(channel).clone();
            let updated = state.presences(|presences| presences.update(group, &name, meta, now));
            Ok(updated == Some(true))
        })
    }

    /// Removes the entry of a channel, which stays a member. Returns whether it had one.
    ///
    /// # Errors
    /// A name is invalid, or the engine is closed.
    pub fn presence_discard(&self, group: &str, channel: &str) -> Result<bool, Error> {
        self.with(|state, now| {
            state.find_group(group)?;
            let Some(channel) = state.find_open(channel)? else {
                return Ok(false);
            };
            let name = state.name(channel).clone();
            let removed = state.presences(|presences| presences.remove(group, &name, now));
            Ok(removed == Some(true))
        })
    }

    /// Who is in a group, as it was told. `None` if the group has no presence.
    ///
    /// # Errors
    /// The name is invalid, or the engine is closed.
    pub fn presence_list(&self, group: &str) -> Result<Option<Listing>, Error> {
        self.with(|state, _| {
            state.find_group(group)?;
            Ok(state.presences(|presences| presences.list(group)).flatten())
        })
    }

    /// How many are in a group, as it was told. `None` if the group has no presence.
    ///
    /// # Errors
    /// The name is invalid, or the engine is closed.
    pub fn presence_counts(&self, group: &str) -> Result<Option<Counts>, Error> {
        self.with(|state, _| {
            state.find_group(group)?;
            Ok(state
                .presences(|presences| presences.counts(group))
                .flatten())
        })
    }

    /// How long it is until `presence_tell` is to be called; `None` if there is nothing to come.
    pub fn presence_due(&self) -> Option<Moment> {
        let mut state = self.state.lock();
        state.presences(|presences| presences.due()).flatten()
    }

    /// The time of the engine's clock.
    pub fn now(&self) -> Moment {
        self.clock.exact()
    }

    /// Tells all groups what is due, and returns those who waited for it. `message` makes a message of its msgpack, and of where
    /// in that the text of its type is; it is called under the lock, and must run no foreign code.
    pub fn presence_tell(
        &self,
        message: impl Fn(Vec<u8>, Range<usize>) -> M,
    ) -> Vec<HandOff<M, W>> {
        let mut hand_offs = Vec::new();
        // The lock is given back between groups.
        while let Some(fan_out) = self.with(|state, now| {
            let times = (now, now.after(self.config.expiry));
            // The clock of the other operations may be behind, and by it this would not be due yet.
            state.tell(self.clock.exact(), times, &message)
        }) {
            hand_offs.extend(fan_out.hand_offs);
        }
        hand_offs
    }

    /// Works on the presences, if there are any, under the lock. It must run no foreign code.
    pub fn presences<R>(&self, work: impl FnOnce(&mut Presences, Moment) -> R) -> Option<R> {
        self.with(|state, now| state.presences(|presences| work(presences, now)))
    }
}
