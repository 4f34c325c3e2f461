//! The entries of one group, and what of them was told.
//!
//! Each entry goes through a few stages. It is *new* until it is told; then *told*; *changed* while it is told with another meta
//! than it has. One that was told and is gone *lingers*, and then *leaves* with the next diff. One that was never told and is gone is
//! forgotten at once. What the list shows are the told metas of all that are told, changed, lingering or leaving.

mod foreign;
mod telling;

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::num::NonZeroU32;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};
use slab::Slab;

pub use self::foreign::{Arrival, ForeignEntry};
use super::diff::Counts;
use super::rules::PresenceRule;
use crate::clock::Moment;

const NONE: u32 = u32::MAX;

/// The process that has a channel, and so writes its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner(Option<NonZeroU32>);

impl Owner {
    /// This process.
    pub const HERE: Self = Self(None);

    /// Another process, by a number that the caller has given it.
    pub fn process(number: NonZeroU32) -> Self {
        Self(Some(number))
    }

    /// Whether it is this process.
    #[must_use]
    pub fn is_here(self) -> bool {
        self.0.is_none()
    }
}

/// The entries of one group.
#[derive(Debug)]
pub struct Table {
    rule: Arc<PresenceRule>,
    entries: Slab<Entry>,
    keys: Slab<Key>,
    /// The entries that are there, by channel. Two tables of places and no maps: names are in the entries already.
    by_channel: HashTable<u32>,
    by_key: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// The metas that were told of entries that have another one now.
    replaced: HashMap<u32, Box<[u8]>>,
    /// What may have to be told, each once.
    listed: Vec<u32>,
    /// When that is to be told.
    tell_at: Option<Moment>,
    /// Which entries linger until when, in order. A place may be out of date: its entry has returned since.
    lingering: VecDeque<(Moment, u32)>,
    told: Counts,
    /// Whether counts alone were told last, because the list is too long.
    is_hidden: bool,
    version: u64,
    /// While the entries of other processes are read: the last version of each of their channels that came meanwhile.
    loading: Option<HashMap<Arc<str>, u64>>,
}

#[derive(Debug)]
struct Entry {
    channel: Arc<str>,
    meta: Box<[u8]>,
    stage: Stage,
    owner: Owner,
    key: u32,
    /// Its neighbours among the entries of its key.
    next: u32,
    previous: u32,
    /// Its place among those that may have to be told.
    listed_at: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    New(Version),
    Told(Version),
    Changed(Version),
    Lingering(Moment),
    Leaving,
}

type Version = u64;

impl Stage {
    /// The version of an entry that is there.
    fn version(self) -> Option<Version> {
        match self {
            Self::New(version) | Self::Told(version) | Self::Changed(version) => Some(version),
            Self::Lingering(_) | Self::Leaving => None,
        }
    }

    /// Whether an entry that was told is gone, and that was not told.
    fn has_left(self) -> bool {
        matches!(self, Self::Lingering(_) | Self::Leaving)
    }
}

#[derive(Debug)]
struct Key {
    name: Box<str>,
    first: u32,
    /// How many of its entries are told.
    told: u32,
}

impl Table {
    /// No entries yet, in a list of this version.
    pub fn new(rule: Arc<PresenceRule>, version: u64) -> Self {
        Self {
            rule,
            entries: Slab::new(),
            keys: Slab::new(),
            by_channel: HashTable::new(),
            by_key: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            replaced: HashMap::new(),
            listed: Vec::new(),
            tell_at: None,
            lingering: VecDeque::new(),
            told: Counts::default(),
            is_hidden: false,
            version,
            loading: None,
        }
    }

    /// How its changes are told.
    pub fn rule(&self) -> &Arc<PresenceRule> {
        &self.rule
    }

    /// Whether nothing is there, or remembered.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.loading.is_none()
    }

    /// How many entries there are, with those that are not told yet, and those whose leave is not.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Puts a channel of this process under a key, or gives it another key or meta.
    pub fn set(&mut self, channel: &Arc<str>, key: &str, meta: &[u8], version: u64, now: Moment) {
        self.put(channel, key, meta, (Owner::HERE, version), now);
    }

    /// Gives a channel of this process another meta. Returns whether it has an entry.
    pub fn update(&mut self, channel: &str, meta: &[u8], version: u64, now: Moment) -> bool {
        let found = self.find(channel);
        let found = found.filter(|entry| self.entry(*entry).owner.is_here());
        if let Some(entry) = found {
            self.change(entry, meta, version, now);
        }
        found.is_some()
    }

    /// Removes the entry of a channel of this process. Returns whether it had one.
    pub fn remove(&mut self, channel: &str, now: Moment) -> bool {
        let found = self.find(channel);
        let found = found.filter(|entry| self.entry(*entry).owner.is_here());
        if let Some(entry) = found {
            self.leave(entry, now, true);
        }
        found.is_some()
    }

    /// The key, the meta and the version of the entry that a channel has now, told or not.
    pub fn get(&self, channel: &str) -> Option<(&str, &[u8], u64)> {
        let entry = self.entry(self.find(channel)?);
        let version = entry.stage.version()?;
        Some((&self.keys[entry.key as usize].name, &entry.meta, version))
    }

    /// The channels of this process that have an entry now.
    pub fn own_channels(&self) -> impl Iterator<Item = &Arc<str>> {
        let own = self.entries.iter().map(|(_, entry)| entry);
        let own = own.filter(|entry| entry.owner.is_here() && entry.stage.version().is_some());
        own.map(|entry| &entry.channel)
    }

    fn entry(&self, entry: u32) -> &Entry {
        &self.entries[entry as usize]
    }

    fn entry_mut(&mut self, entry: u32) -> &mut Entry {
        &mut self.entries[entry as usize]
    }

    fn find(&self, channel: &str) -> Option<u32> {
        let is_it = |entry: &u32| *self.entry(*entry).channel == *channel;
        let found = self.by_channel.find(self.hasher.hash_one(channel), is_it);
        found.copied()
    }

    fn put(
        &mut self,
        channel: &Arc<str>,
        key: &str,
        meta: &[u8],
        (owner, version): (Owner, u64),
        now: Moment,
    ) {
        if let Some(entry) = self.find(channel) {
            if *self.keys[self.entry(entry).key as usize].name == *key {
                self.entry_mut(entry).owner = owner;
                return self.change(entry, meta, version, now);
            }
            self.leave(entry, now, true);
        }
        let key = self.key(key);
        let entry = self.insert(channel, key, meta, owner, version);
        match self.sibling(entry, Stage::has_left, meta) {
            Some(left) => {
                self.replace(left, entry, now);
                self.drop_entry(left);
            }
            None => self.list(entry, now),
        }
    }

    /// Gives an entry that is there a meta.
    fn change(&mut self, entry: u32, meta: &[u8], version: u64, now: Moment) {
        let known = &mut self.entries[entry as usize];
        match known.stage {
            Stage::Told(_) if *known.meta != *meta => {
                let told = std::mem::replace(&mut known.meta, meta.into());
                known.stage = Stage::Changed(version);
                self.replaced.insert(entry, told);
                self.list(entry, now);
            }
            Stage::Changed(_)
                if self
                    .replaced
                    .get(&entry)
                    .is_some_and(|told| **told == *meta) =>
            {
                known.meta = meta.into();
                known.stage = Stage::Told(version);
                self.replaced.remove(&entry);
            }
            Stage::Told(_) => known.stage = Stage::Told(version),
            Stage::New(_) => {
                known.meta = meta.into();
                known.stage = Stage::New(version);
            }
            Stage::Changed(_) => {
                known.meta = meta.into();
                known.stage = Stage::Changed(version);
            }
            // It is not there.
            Stage::Lingering(_) | Stage::Leaving => {}
        }
    }

    /// Ends an entry that is there. It lingers only if it may.
    fn leave(&mut self, entry: u32, now: Moment, may_linger: bool) {
        self.forget_channel(entry);
        match self.entry(entry).stage {
            Stage::New(_) => return self.drop_entry(entry),
            Stage::Changed(_) => {
                if let Some(told) = self.replaced.remove(&entry) {
                    self.entry_mut(entry).meta = told;
                }
            }
            Stage::Told(_) | Stage::Lingering(_) | Stage::Leaving => {}
        }
        let meta = std::mem::take(&mut self.entry_mut(entry).meta);
        let sibling = self.sibling(entry, |stage| matches!(stage, Stage::New(_)), &meta);
        self.entry_mut(entry).meta = meta;
        if let Some(new) = sibling {
            self.replace(entry, new, now);
            return self.drop_entry(entry);
        }
        if may_linger && !self.rule.linger.is_zero() {
            let until = now.after(self.rule.linger);
            self.entry_mut(entry).stage = Stage::Lingering(until);
            self.lingering.push_back((until, entry));
        } else {
            self.entry_mut(entry).stage = Stage::Leaving;
            self.list(entry, now);
        }
    }

    /// Another entry of the same key in such a stage, most of all one with this meta.
    fn sibling(&self, entry: u32, is_in: impl Fn(Stage) -> bool, meta: &[u8]) -> Option<u32> {
        let mut found = None;
        let mut next = self.keys[self.entry(entry).key as usize].first;
        while next != NONE {
            let other = self.entry(next);
            if next != entry && is_in(other.stage) {
                if *other.meta == *meta {
                    return Some(next);
                }
                found = Some(next);
            }
            next = other.next;
        }
        found
    }

    /// Has an entry that was not told take the place of one that was and has left.
    fn replace(&mut self, left: u32, new: u32, now: Moment) {
        let told = std::mem::take(&mut self.entry_mut(left).meta);
        let entry = self.entry_mut(new);
        let version = entry.stage.version().unwrap_or_default();
        if entry.meta == told {
            entry.stage = Stage::Told(version);
        } else {
            entry.stage = Stage::Changed(version);
            self.replaced.insert(new, told);
            self.list(new, now);
        }
    }

    /// Notes that an entry may have to be told.
    fn list(&mut self, entry: u32, now: Moment) {
        let known = &mut self.entries[entry as usize];
        if known.listed_at == NONE {
            known.listed_at = place(self.listed.len());
            self.listed.push(entry);
        }
        if self.tell_at.is_none() {
            self.tell_at = Some(now.after(self.rule.interval));
        }
    }

    /// The place of a key, made if there is none. It must be given an entry at once.
    fn key(&mut self, name: &str) -> u32 {
        let hash = self.hasher.hash_one(name);
        let keys = &self.keys;
        let is_it = |key: &u32| *keys[*key as usize].name == *name;
        if let Some(&key) = self.by_key.find(hash, is_it) {
            return key;
        }
        let key = place(self.keys.insert(Key {
            name: name.into(),
            first: NONE,
            told: 0,
        }));
        self.index_key(key);
        key
    }

    fn index_key(&mut self, key: u32) {
        let (keys, hasher) = (&self.keys, &self.hasher);
        let hash_of = |key: &u32| hasher.hash_one(&*keys[*key as usize].name);
        self.by_key.insert_unique(hash_of(&key), key, hash_of);
    }

    fn insert(
        &mut self,
        channel: &Arc<str>,
        key: u32,
        meta: &[u8],
        owner: Owner,
        version: u64,
    ) -> u32 {
        let next = self.keys[key as usize].first;
        let entry = place(self.entries.insert(Entry {
            channel: Arc::clone(channel),
            meta: meta.into(),
            stage: Stage::New(version),
            owner,
            key,
            next,
            previous: NONE,
            listed_at: NONE,
        }));
        if next != NONE {
            self.entry_mut(next).previous = entry;
        }
        self.keys[key as usize].first = entry;
        self.index_channel(channel, entry);
        entry
    }

    fn index_channel(&mut self, channel: &str, entry: u32) {
        let (entries, hasher) = (&self.entries, &self.hasher);
        let hash_of = |entry: &u32| hasher.hash_one(&*entries[*entry as usize].channel);
        let hash = hasher.hash_one(channel);
        self.by_channel.insert_unique(hash, entry, hash_of);
    }

    fn forget_channel(&mut self, entry: u32) {
        let hash = self.hasher.hash_one(&*self.entry(entry).channel);
        if let Ok(found) = self.by_channel.find_entry(hash, |other| *other == entry) {
            found.remove();
        }
    }

    /// Forgets an entry that is not in the list, or whose place another has taken.
    fn drop_entry(&mut self, entry: u32) {
        let listed_at = self.entry(entry).listed_at;
        if listed_at != NONE {
            self.listed.swap_remove(listed_at as usize);
            if let Some(&moved) = self.listed.get(listed_at as usize) {
                self.entry_mut(moved).listed_at = listed_at;
            }
        }
        self.free(entry);
    }

    fn free(&mut self, entry: u32) {
        let gone = self.entries.remove(entry as usize);
        match gone.previous {
            NONE => self.keys[gone.key as usize].first = gone.next,
            previous => self.entry_mut(previous).next = gone.next,
        }
        if gone.next != NONE {
            self.entry_mut(gone.next).previous = gone.previous;
        }
        if self.keys[gone.key as usize].first == NONE {
            let key = self.keys.remove(gone.key as usize);
            let hash = self.hasher.hash_one(&*key.name);
            if let Ok(found) = self.by_key.find_entry(hash, |other| *other == gone.key) {
                found.remove();
            }
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "four thousand million entries do not fit in memory"
)]
fn place(index: usize) -> u32 {
    index as u32
}

#[cfg(test)]
mod tests;
