//! The channels of an engine, by name and by key.
//!
//! A channel that holds nothing is idle, and appears in no reading. A few idle channels are kept, because a channel that
//! carries one message at a time would otherwise be made and removed for each message.

use std::ops::{Index, IndexMut};
use std::sync::Arc;

use hashbrown::HashMap;
use slab::Slab;

use super::mailbox::{Mailbox, MailboxCounters};
use crate::clock::Moment;
use crate::expiry::ExpiryList;
use crate::message::ByteSize;
use crate::shrink::is_sparse;

/// The place of a channel in the table. It changes when the table is compacted.
pub(crate) type ChannelKey = u32;

/// How many idle channels are kept.
const IDLE: usize = if cfg!(any(test, loom)) { 2 } else { 256 };

pub(crate) struct Channels<M, W> {
    entries: Slab<Channel<M, W>>,
    names: HashMap<Arc<str>, ChannelKey>,
    /// How many channels are idle.
    idle: usize,
    /// Channels that were idle when they were put here, the oldest first; they may hold something again.
    kept: ExpiryList,
}

pub(crate) struct Channel<M, W> {
    pub(crate) name: Arc<str>,
    pub(crate) mailbox: Mailbox<M, W>,
    /// How many hold it: its memberships last meanwhile.
    pub(crate) holders: u32,
    idle: bool,
}

impl<M: Clone + ByteSize, W> Channel<M, W> {
    /// Whether nothing but a membership could keep it from being idle.
    pub(crate) fn holds_nothing(&self) -> bool {
        self.mailbox.is_idle() && !self.mailbox.is_owned() && self.holders == 0
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.idle
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "four thousand million entries do not fit in memory"
)]
pub(super) fn key(index: usize) -> u32 {
    index as u32
}

impl<M, W> Default for Channels<M, W> {
    fn default() -> Self {
        Self {
            entries: Slab::new(),
            names: HashMap::new(),
            idle: 0,
            kept: ExpiryList::default(),
        }
    }
}

impl<M, W> Index<ChannelKey> for Channels<M, W> {
    type Output = Channel<M, W>;

    fn index(&self, channel: ChannelKey) -> &Self::Output {
        &self.entries[channel as usize]
    }
}

impl<M, W> IndexMut<ChannelKey> for Channels<M, W> {
    fn index_mut(&mut self, channel: ChannelKey) -> &mut Self::Output {
        &mut self.entries[channel as usize]
    }
}

impl<M, W> Channels<M, W> {
    /// How many channels hold something.
    pub(crate) fn held(&self) -> usize {
        self.entries.len() - self.idle
    }

    pub(crate) fn find(&self, name: &str) -> Option<ChannelKey> {
        self.names.get(name).copied()
    }

    /// All channels, idle ones too.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Channel<M, W>> {
        self.entries.iter().map(|(_, channel)| channel)
    }

    pub(crate) fn keys(&self) -> Vec<ChannelKey> {
        self.entries.iter().map(|(index, _)| key(index)).collect()
    }

    /// Adds a channel under a name that none has.
    pub(crate) fn add(&mut self, name: &str, mailbox: Mailbox<M, W>) -> ChannelKey {
        let name: Arc<str> = name.into();
        let channel = key(self.entries.insert(Channel {
            name: Arc::clone(&name),
            mailbox,
            holders: 0,
            idle: false,
        }));
        self.names.insert(name, channel);
        channel
    }

    /// Notes that a channel holds nothing any more.
    pub(crate) fn set_idle(&mut self, channel: ChannelKey) {
        let entry = &mut self[channel];
        entry.idle = true;
        entry.mailbox.counters = MailboxCounters::default();
        self.idle += 1;
        if !self.kept.is_armed(channel) {
            self.kept.arm(channel, Moment::default());
        }
    }

    /// Notes that a channel holds something again.
    pub(crate) fn mark_in_use(&mut self, channel: ChannelKey) {
        let entry = &mut self[channel];
        if entry.idle {
            entry.idle = false;
            self.idle -= 1;
        }
    }

    /// Removes the channel that has been idle for longest, if more are idle than are kept.
    pub(crate) fn remove_surplus(&mut self) -> Option<(ChannelKey, Channel<M, W>)> {
        while self.idle > IDLE {
            let oldest = self.kept.first()?;
            if let Some(gone) = self.remove_idle(oldest) {
                return Some((oldest, gone));
            }
        }
        None
    }

    /// Removes a channel if it is idle. In any case it is no longer among those that are removed by age.
    pub(crate) fn remove_idle(&mut self, channel: ChannelKey) -> Option<Channel<M, W>> {
        self.kept.disarm(channel);
        if !self[channel].idle {
            return None;
        }
        self.idle -= 1;
        let gone = self.entries.remove(channel as usize);
        self.names.remove(&gone.name);
        Some(gone)
    }

    /// Removes all channels.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Channel<M, W>> + '_ {
        self.names.clear();
        self.idle = 0;
        self.kept.clear();
        self.entries.drain()
    }

    pub(crate) fn is_sparse(&self) -> bool {
        is_sparse(self.entries.len(), self.entries.capacity())
    }

    /// Moves the channels together and frees memory. Calls the function with the old and the new key of each channel that got
    /// another, and returns how many channels there are.
    pub(crate) fn compact(&mut self, mut moved: impl FnMut(ChannelKey, ChannelKey)) -> usize {
        self.entries.compact(|channel, from, to| {
            let (from, to) = (key(from), key(to));
            self.names.insert(Arc::clone(&channel.name), to);
            self.kept.rename(from, to);
            moved(from, to);
            true
        });
        let left = self.entries.len();
        self.names.shrink_to(2 * left);
        self.kept.truncate(left);
        left
    }

    /// For how many entries the tables have memory.
    #[cfg(test)]
    pub(crate) fn room(&self) -> [usize; 3] {
        [
            self.entries.capacity(),
            self.names.capacity(),
            self.kept.room(),
        ]
    }
}
