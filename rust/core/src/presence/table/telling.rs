//! What is told of a table, and when.

use std::collections::HashMap;
use std::sync::Arc;

use hashbrown::HashTable;
use slab::Slab;

use super::{Key, NONE, Stage, Table, place};
use crate::clock::Moment;
use crate::presence::diff::{Counts, Diff, KeyDiff, Scope, Turn};
use crate::presence::msgpack::{array, map, text};
use crate::shrink::{Shrink, is_sparse};

/// What changed, by the place of the key; with it how many of its entries had been told before.
#[derive(Default)]
struct Changes {
    keys: Vec<(usize, KeyDiff)>,
    places: HashMap<u32, usize>,
}

impl Table {
    /// The version of the list.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How many are in the list.
    pub fn counts(&self) -> Counts {
        self.told
    }

    /// Whether the list is too long to be shown.
    pub fn is_hidden(&self) -> bool {
        self.is_hidden
    }

    /// When `tell` is to be called next; `None` if there is nothing to come.
    pub fn due(&self) -> Option<Moment> {
        let lingers = self.lingering.front().map(|(until, _)| *until);
        match (self.tell_at, lingers) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// Has what changed be told now, and not gathered for longer.
    pub fn hasten(&mut self, now: Moment) {
        self.tell_at = self.tell_at.map(|at| at.min(now));
    }

    /// What is to be told now. `next_version` is asked for the version of the list that it makes.
    pub fn tell(&mut self, now: Moment, next_version: impl FnOnce() -> u64) -> Option<Diff> {
        self.end_lingering(now);
        if self.tell_at.is_none_or(|at| now < at) {
            return None;
        }
        self.tell_at = None;
        let before = self.told;
        let changes = self.collect();
        let was_hidden = self.is_hidden;
        self.is_hidden = self.told.channels > self.rule.max;
        let (scope, keys) = match (was_hidden, self.is_hidden) {
            (true, true) if before == self.told => return None,
            (_, true) => (Scope::Counts, Vec::new()),
            (true, false) => (Scope::Full, self.list_as_joins()),
            (false, false) if changes.is_empty() => return None,
            (false, false) => (Scope::Changes, changes),
        };
        let previous = self.version;
        self.version = next_version();
        Some(Diff {
            scope,
            keys,
            counts: self.told,
            version: self.version,
            previous,
        })
    }

    /// Writes the list in msgpack: a map from keys to the metas that were told. It is empty if the list is too long.
    pub fn write_list(&self, bytes: &mut Vec<u8>) {
        if self.is_hidden {
            return map(bytes, 0);
        }
        map(bytes, self.told.keys);
        for (key, known) in &self.keys {
            if known.told > 0 {
                text(bytes, &known.name);
                array(bytes, known.told as usize);
                self.told_metas(key, |meta| bytes.extend_from_slice(meta));
            }
        }
    }

    fn list_as_joins(&self) -> Vec<KeyDiff> {
        let told = self.keys.iter().filter(|(_, key)| key.told > 0);
        told.map(|(place, key)| {
            let mut joins = Vec::with_capacity(key.told as usize);
            self.told_metas(place, |meta| joins.push(Box::from(meta)));
            KeyDiff {
                key: key.name.clone(),
                joins,
                ..KeyDiff::default()
            }
        })
        .collect()
    }

    /// Calls the function with each meta of a key that was told.
    fn told_metas(&self, key: usize, mut meta: impl FnMut(&[u8])) {
        let mut next = self.keys[key].first;
        while next != NONE {
            let entry = self.entry(next);
            match entry.stage {
                Stage::Told(_) | Stage::Lingering(_) | Stage::Leaving => meta(&entry.meta),
                Stage::Changed(_) => meta(self.replaced.get(&next).unwrap_or(&entry.meta)),
                Stage::New(_) => {}
            }
            next = entry.next;
        }
    }

    /// Has those leave whose time to linger is over.
    fn end_lingering(&mut self, now: Moment) {
        while let Some(&(until, entry)) = self.lingering.front() {
            let known = self.entries.get(entry as usize);
            let lingers = known.is_some_and(|entry| entry.stage == Stage::Lingering(until));
            if lingers && now < until {
                break;
            }
            self.lingering.pop_front();
            if lingers {
                self.entry_mut(entry).stage = Stage::Leaving;
                self.list(entry, now);
            }
        }
        self.lingering.shrink_if_sparse();
    }

    /// Notes all changes as told, and returns them.
    fn collect(&mut self) -> Vec<KeyDiff> {
        let mut changes = Changes::default();
        for entry in std::mem::take(&mut self.listed) {
            let known = &mut self.entries[entry as usize];
            known.listed_at = NONE;
            let change = |changes| changes_of(changes, &self.keys, known.key);
            match known.stage {
                Stage::New(version) => {
                    known.stage = Stage::Told(version);
                    change(&mut changes).joins.push(known.meta.clone());
                    self.keys[known.key as usize].told += 1;
                }
                Stage::Changed(version) => {
                    known.stage = Stage::Told(version);
                    let change = change(&mut changes);
                    change.joins.push(known.meta.clone());
                    change.leaves.extend(self.replaced.remove(&entry));
                }
                Stage::Leaving => {
                    let meta = std::mem::take(&mut known.meta);
                    change(&mut changes).leaves.push(meta);
                    self.keys[known.key as usize].told -= 1;
                    self.free(entry);
                }
                Stage::Told(_) | Stage::Lingering(_) => {}
            }
        }
        if is_sparse(self.entries.len(), self.entries.capacity()) {
            self.shrink();
        }
        let changes = changes.keys.into_iter();
        changes
            .map(|(before, diff)| self.count(before, diff))
            .collect()
    }

    /// Counts what changed under a key that had so many entries told before.
    fn count(&mut self, before: usize, mut diff: KeyDiff) -> KeyDiff {
        let (joins, leaves) = (diff.joins.len(), diff.leaves.len());
        self.told.channels = self.told.channels + joins - leaves;
        diff.turn = match (before, before + joins - leaves) {
            (0, 1..) => Some(Turn::Online),
            (1.., 0) => Some(Turn::Offline),
            _ => None,
        };
        match diff.turn {
            Some(Turn::Online) => self.told.keys += 1,
            Some(Turn::Offline) => self.told.keys -= 1,
            None => {}
        }
        diff
    }

    /// Gives back the memory of a peak: entries have other places then. None may be listed.
    #[cold]
    fn shrink(&mut self) {
        let mut moved = HashMap::new();
        self.entries.compact(|_, from, to| {
            moved.insert(place(from), place(to));
            true
        });
        let to = |from: u32| moved.get(&from).copied().unwrap_or(from);
        let replaced = std::mem::take(&mut self.replaced).into_iter();
        self.replaced = replaced.map(|(entry, meta)| (to(entry), meta)).collect();
        for (_, entry) in &mut self.lingering {
            *entry = to(*entry);
        }
        for (_, key) in &mut self.keys {
            key.first = to(key.first);
        }
        self.by_channel = HashTable::with_capacity(self.entries.len());
        for index in 0..self.entries.len() {
            let entry = &mut self.entries[index];
            entry.next = to(entry.next);
            entry.previous = to(entry.previous);
            if entry.stage.version().is_some() {
                let channel = Arc::clone(&entry.channel);
                self.index_channel(&channel, place(index));
            }
        }
        self.shrink_keys();
    }

    fn shrink_keys(&mut self) {
        let mut moved = HashMap::new();
        self.keys.compact(|_, from, to| {
            moved.insert(place(from), place(to));
            true
        });
        for (_, entry) in &mut self.entries {
            entry.key = moved.get(&entry.key).copied().unwrap_or(entry.key);
        }
        self.by_key = HashTable::with_capacity(self.keys.len());
        for index in 0..self.keys.len() {
            self.index_key(place(index));
        }
    }
}

/// What changed under a key. No key is added while changes are collected, so that none has the place of another.
fn changes_of<'a>(changes: &'a mut Changes, keys: &Slab<Key>, key: u32) -> &'a mut KeyDiff {
    let place = *changes.places.entry(key).or_insert_with(|| {
        let known = &keys[key as usize];
        let diff = KeyDiff {
            key: known.name.clone(),
            ..KeyDiff::default()
        };
        changes.keys.push((known.told as usize, diff));
        changes.keys.len() - 1
    });
    &mut changes.keys[place].1
}
