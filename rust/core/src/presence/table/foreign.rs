//! The entries of other processes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Owner, Table, place};
use crate::clock::Moment;

/// The entry of a channel of another process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignEntry {
    /// Whose channel it is.
    pub owner: Owner,
    /// The channel.
    pub channel: Arc<str>,
    /// Its key.
    pub key: Box<str>,
    /// Its meta, in msgpack.
    pub meta: Box<[u8]>,
    /// The version that its process gave it.
    pub version: u64,
}

/// What became of a change that another process made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is in the table.
    Applied,
    /// A later one is in the table, or the channel is of another process.
    Outdated,
}

impl Table {
    /// Takes what another process wrote.
    pub fn apply(&mut self, entry: &ForeignEntry, now: Moment) -> Arrival {
        let ForeignEntry {
            owner,
            channel,
            key,
            meta,
            version,
        } = entry;
        if self.is_outdated(channel, *owner, *version) {
            return Arrival::Outdated;
        }
        self.note_arrival(channel, *version);
        self.put(channel, key, meta, (*owner, *version), now);
        Arrival::Applied
    }

    /// Takes that another process has removed the entry of a channel of its own.
    pub fn apply_removal(
        &mut self,
        owner: Owner,
        channel: &Arc<str>,
        version: u64,
        now: Moment,
    ) -> Arrival {
        if self.is_outdated(channel, owner, version) {
            return Arrival::Outdated;
        }
        self.note_arrival(channel, version);
        if let Some(entry) = self.find(channel) {
            self.leave(entry, now, true);
        }
        Arrival::Applied
    }

    /// Removes all entries of a process that died. They do not linger: it was waited for long enough.
    pub fn remove_owner(&mut self, owner: Owner, now: Moment) {
        for entry in self.present(|other| other == owner) {
            self.leave(entry, now, false);
        }
    }

    /// Removes the entries of all processes that the function does not know. They do not linger.
    pub fn retain_owners(&mut self, is_known: impl Fn(Owner) -> bool, now: Moment) {
        for entry in self.present(|owner| !owner.is_here() && !is_known(owner)) {
            self.leave(entry, now, false);
        }
    }

    /// Notes that the entries of the other processes are being read: what comes of them from now on is newer.
    pub fn begin_load(&mut self) {
        self.loading = Some(HashMap::new());
    }

    /// Whether they are being read.
    pub fn is_loading(&self) -> bool {
        self.loading.is_some()
    }

    /// Forgets that they are being read.
    pub fn abandon_load(&mut self) {
        self.loading = None;
    }

    /// Takes the entries of the other processes as they were read, after `begin_load`. What came meanwhile counts, and
    /// what is neither in there nor came meanwhile has left. Returns how many entries were outdated.
    pub fn finish_load(
        &mut self,
        entries: impl IntoIterator<Item = ForeignEntry>,
        now: Moment,
    ) -> usize {
        let newer = self.loading.take().unwrap_or_default();
        let mut read = HashSet::new();
        let mut outdated = 0;
        for entry in entries {
            let came = newer.get(&entry.channel);
            let is_old = came.is_some_and(|version| *version > entry.version);
            if is_old || self.apply(&entry, now) == Arrival::Outdated {
                outdated += 1;
            }
            read.insert(entry.channel);
        }
        for entry in self.present(|owner| !owner.is_here()) {
            let channel = &self.entry(entry).channel;
            if !read.contains(channel) && !newer.contains_key(channel) {
                self.leave(entry, now, true);
            }
        }
        outdated
    }

    /// The entries of the other processes, told or not.
    pub fn others(&self) -> Vec<ForeignEntry> {
        let foreign = self.present(|owner| !owner.is_here()).into_iter();
        let foreign = foreign.map(|place| self.entry(place));
        let entry = |entry: &super::Entry| ForeignEntry {
            owner: entry.owner,
            channel: Arc::clone(&entry.channel),
            key: self.keys[entry.key as usize].name.clone(),
            meta: entry.meta.clone(),
            version: entry.stage.version().unwrap_or_default(),
        };
        foreign.map(entry).collect()
    }

    fn is_outdated(&self, channel: &str, owner: Owner, version: u64) -> bool {
        let known = self.find(channel).map(|entry| self.entry(entry));
        known.is_some_and(|known| {
            let newest = known.stage.version();
            known.owner != owner || newest.is_some_and(|newest| newest > version)
        })
    }

    fn note_arrival(&mut self, channel: &Arc<str>, version: u64) {
        if let Some(newer) = &mut self.loading {
            newer.insert(Arc::clone(channel), version);
        }
    }

    /// The entries that are there of some owners.
    fn present(&self, of: impl Fn(Owner) -> bool) -> Vec<u32> {
        let all = self.entries.iter();
        let some = all.filter(|(_, entry)| of(entry.owner) && entry.stage.version().is_some());
        some.map(|(entry, _)| place(entry)).collect()
    }
}
