//! Questions about channels and groups. The answers change nothing.

use std::sync::Arc;
use std::time::Duration;

use super::MemoryEngine;
use crate::clock::Clock;
use crate::engine::{ChannelStats, GroupStats, LayerStats};
use crate::error::Error;
use crate::message::ByteSize;

impl<M: Clone + ByteSize, W, C: Clock> MemoryEngine<M, W, C> {
    /// The channels of a group.
    ///
    /// # Errors
    /// The name is invalid, or the engine is closed.
    pub fn group_channels(&self, group: &str) -> Result<Vec<Arc<str>>, Error> {
        Ok(self
            .group_members(group)?
            .into_iter()
            .map(|(channel, _)| channel)
            .collect())
    }

    /// The channels of a group, each with the time since its latest `group_add`.
    ///
    /// # Errors
    /// The name is invalid, or the engine is closed.
    pub fn group_members(&self, group: &str) -> Result<Vec<(Arc<str>, Duration)>, Error> {
        self.with(|state, now| {
            let Some(group) = state.find_fresh_group(group, now)? else {
                return Ok(Vec::new());
            };
            let members = state.groups.members_of(group);
            Ok(members
                .map(|(channel, deadline)| {
                    let age = now.after(self.config.group_expiry).since(deadline);
                    (Arc::clone(state.name(channel)), age)
                })
                .collect())
        })
    }

    /// How many channels a group has.
    ///
    /// # Errors
    /// The name is invalid, or the engine is closed.
    pub fn group_count(&self, group: &str) -> Result<usize, Error> {
        self.with(|state, now| {
            let group = state.find_fresh_group(group, now)?;
            Ok(group.map_or(0, |group| state.groups.get(group).members().len()))
        })
    }

    /// How many channels a group has beside those named.
    ///
    /// # Errors
    /// The name is invalid, or the engine is closed.
    pub fn group_count_without(&self, group: &str, exclude: &[&str]) -> Result<usize, Error> {
        self.with(|state, now| {
            let Some(group) = state.find_fresh_group(group, now)? else {
                return Ok(0);
            };
            let mut excluded = state.keys(exclude);
            excluded.dedup();
            excluded.retain(|channel| state.groups.holds(group, *channel));
            Ok(state.groups.get(group).members().len() - excluded.len())
        })
    }

    /// The groups that a channel is in.
    ///
    /// # Errors
    /// The name is invalid, or the engine is closed.
    pub fn channel_groups(&self, channel: &str) -> Result<Vec<Arc<str>>, Error> {
        self.with(|state, now| {
            let Some(channel) = state.find_open(channel)? else {
                return Ok(Vec::new());
            };
            let names: Vec<_> = state.groups.of_channel(channel).cloned().collect();
            let mut fresh = Vec::new();
            for name in names {
                let group = state.find_fresh_group(&name, now)?;
                if group.is_some_and(|group| state.groups.holds(group, channel)) {
                    fresh.push(name);
                }
            }
            Ok(fresh)
        })
    }

    /// The names of all groups.
    pub fn group_names(&self) -> Vec<Arc<str>> {
        self.with(|state, now| {
            state.sweep_all(now, self.config.expiry);
            state.groups.names().cloned().collect()
        })
    }

    /// The names of all channels that hold messages or waiters. It walks them all.
    pub fn channel_names(&self) -> Vec<Arc<str>> {
        self.with(|state, now| {
            let held = state
                .channels()
                .filter(|(_, mailbox)| mailbox.waiting() > 0 || !mailbox.is_stale(now));
            held.map(|(name, _)| Arc::clone(name)).collect()
        })
    }

    /// A reading of the whole engine.
    pub fn stats(&self) -> LayerStats {
        self.with(|state, now| {
            state.sweep_all(now, self.config.expiry);
            state.stats(now)
        })
    }

    /// A reading of one channel.
    ///
    /// # Errors
    /// The name is invalid, or the engine is closed.
    pub fn channel_stats(&self, channel: &str) -> Result<ChannelStats, Error> {
        let capacity = self.capacity(channel);
        self.with(|state, now| {
            let Some(channel) = state.find_open(channel)? else {
                return Ok(ChannelStats {
                    capacity,
                    capacity_bytes: self.config.capacity_bytes,
                    ..ChannelStats::default()
                });
            };
            let stats = state.channel_stats(channel, now);
            state.mark_idle_if_empty(channel);
            Ok(stats)
        })
    }

    /// How many messages of a channel nobody took in time. Of one that does not exist, or of a closed engine, none.
    pub fn expired(&self, channel: &str) -> u64 {
        self.with(|state, now| {
            let known = state.find(channel);
            known.map_or(0, |channel| {
                state.channel_stats(channel, now).dropped_expired
            })
        })
    }

    /// A reading of one group.
    ///
    /// # Errors
    /// The name is invalid, or the engine is closed.
    pub fn group_stats(&self, group: &str) -> Result<GroupStats, Error> {
        self.with(|state, now| {
            let group = state.find_fresh_group(group, now)?;
            Ok(group.map_or_else(GroupStats::default, |group| {
                let group = state.groups.get(group);
                GroupStats {
                    members: group.members().len(),
                    sends: group.sends,
                    delivered: group.delivered,
                    dropped_full: group.dropped_full,
                }
            }))
        })
    }

    /// How many receivers wait at a channel.
    pub fn waiters(&self, channel: &str) -> usize {
        let state = self.state.lock();
        let known = state.find(channel);
        known.map_or(0, |channel| state.mailbox(channel).waiting())
    }

    /// Whether a channel has messages, receivers, an inbox or groups.
    pub fn is_held(&self, channel: &str) -> bool {
        self.state.lock().is_held(channel)
    }

    /// How many messages a channel holds, expired ones among them.
    pub fn depth(&self, channel: &str) -> usize {
        let state = self.state.lock();
        let known = state.find(channel);
        known.map_or(0, |channel| state.mailbox(channel).depth())
    }

    /// Whether a channel holds as many bytes as it may.
    pub fn has_all_its_bytes(&self, channel: &str) -> bool {
        let state = self.state.lock();
        let known = state.find(channel).map(|channel| state.mailbox(channel));
        known.is_some_and(|mailbox| mailbox.bytes() >= mailbox.capacity_bytes())
    }

    /// How many messages a channel holds at most.
    pub fn capacity_of(&self, channel: &str) -> usize {
        self.config.capacities.of(channel)
    }

    /// Whether a message of this size to the channel would be refused now.
    pub fn is_full(&self, channel: &str, size: usize) -> bool {
        self.with(|state, now| {
            let known = state.find(channel);
            known.is_some_and(|channel| state.would_refuse(channel, size, now))
        })
    }

    /// The names of all channels that hold messages or waiters, or are in groups, and of the last that did and were not
    /// closed: a receiver may be on its way back to them. It walks them all.
    pub fn known_channels(&self) -> Vec<Arc<str>> {
        self.with(|state, _| state.known_channels())
    }

    /// Shows every message, every queued waiter, every alarm and every spare waiter, for a garbage collector. It waits for
    /// the lock: a collector that is shown something the first time and not the second takes it for garbage.
    ///
    /// # Errors
    /// The first error of a function. They are called under the lock, and must run no foreign code.
    pub fn visit<E>(
        &self,
        mut message: impl FnMut(&M) -> Result<(), E>,
        mut waiter: impl FnMut(&W) -> Result<(), E>,
        mut spare: impl FnMut(&W) -> Result<(), E>,
    ) -> Result<(), E> {
        let state = self.state.lock();
        // A list that replays share is not shown: each of its messages would be shown once for each of those.
        state.kept().try_for_each(&mut message)?;
        for mailbox in state.mailboxes() {
            mailbox.messages().try_for_each(&mut message)?;
            mailbox.waiters().try_for_each(&mut waiter)?;
            mailbox.spare().map_or(Ok(()), &mut spare)?;
        }
        Ok(())
    }
}
