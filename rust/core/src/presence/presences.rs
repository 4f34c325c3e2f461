//! The tables of all groups of a layer, and when each is due.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use hashbrown::HashMap;
use slab::Slab;

use super::diff::{Counts, Diff, Scope};
use super::rules::{PresenceRule, PresenceRules};
use super::table::{Arrival, ForeignEntry, Owner, Table};
use crate::clock::Moment;
use crate::shrink::Shrink;

/// The entries of all groups that have a presence.
#[derive(Debug)]
pub struct Presences {
    rules: PresenceRules,
    groups: Slab<Group>,
    names: HashMap<Arc<str>, usize>,
    /// When which group has something to be told.
    due: BTreeSet<(Moment, usize)>,
    /// The last version of a list: one count for all, so that a list that begins anew has no version twice.
    version: u64,
    /// The last version of an entry of this process.
    entry_version: u64,
    /// The channels of this process whose entries changed; `None` if nobody wants to know.
    own: Option<Vec<(Arc<str>, Arc<str>)>>,
    /// Whether the first of all is due earlier than it was when this was last asked.
    is_due_earlier: bool,
    totals: PresenceStats,
}

#[derive(Debug)]
struct Group {
    name: Arc<str>,
    table: Table,
    due: Option<Moment>,
    /// Whether it stays, with no entries too.
    is_watched: bool,
}

/// The list of a group, as it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// In msgpack: a map from keys to the metas of their entries. Empty if the list is too long.
    pub list: Vec<u8>,
    /// Whether the list is too long, so that there are counts alone.
    pub is_hidden: bool,
    /// How many are there.
    pub counts: Counts,
    /// Later diffs have a higher version.
    pub version: u64,
}

/// What became of the entry of a channel of this process, for the other processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnChange {
    /// The group.
    pub group: Arc<str>,
    /// The channel.
    pub channel: Arc<str>,
    /// The version of the change.
    pub version: u64,
    /// Its key and its meta; `None` if it is gone.
    pub entry: Option<(Box<str>, Box<[u8]>)>,
}

/// A reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PresenceStats {
    /// Entries, with those whose leave is not told yet.
    pub entries: usize,
    /// Diffs that were told.
    pub diffs: u64,
    /// Those of them that had counts alone, because the list was too long.
    pub hidden: u64,
    /// Changes of other processes that were dropped because a later one was there.
    pub outdated: u64,
}

impl Presences {
    /// No entries yet.
    pub fn new(rules: PresenceRules) -> Self {
        Self {
            rules,
            groups: Slab::new(),
            names: HashMap::new(),
            due: BTreeSet::new(),
            version: 0,
            entry_version: 0,
            own: None,
            is_due_earlier: false,
            totals: PresenceStats::default(),
        }
    }

    /// The same, noting what becomes of the entries of this process: `take_own` is to be called.
    #[must_use]
    pub fn noting_own(mut self) -> Self {
        self.own = Some(Vec::new());
        self
    }

    /// Notes from now on what becomes of the entries of this process: `take_own` is to be called.
    pub fn note_own_changes(&mut self) {
        self.own.get_or_insert_default();
    }

    /// The rules.
    pub fn rules(&self) -> &PresenceRules {
        &self.rules
    }

    /// The rule of a group; `None` if it has no presence.
    pub fn rule_of(&self, group: &str) -> Option<&Arc<PresenceRule>> {
        match self.names.get(group) {
            Some(known) => Some(self.groups[*known].table.rule()),
            None => self.rules.of(group),
        }
    }

    /// Puts a channel of this process under a key, or gives it another key or meta. False if the group has no presence.
    pub fn set(
        &mut self,
        group: &str,
        channel: &Arc<str>,
        (key, meta): (&str, &[u8]),
        now: Moment,
    ) -> bool {
        let Some(place) = self.open(group) else {
            return false;
        };
        self.entry_version += 1;
        let version = self.entry_version;
        self.groups[place]
            .table
            .set(channel, key, meta, version, now);
        self.note_own(place, channel);
        self.arm(place);
        true
    }

    /// Gives a channel of this process another meta. Returns whether it has an entry.
    pub fn update(&mut self, group: &str, channel: &Arc<str>, meta: &[u8], now: Moment) -> bool {
        let Some(&place) = self.names.get(group) else {
            return false;
        };
        self.entry_version += 1;
        let version = self.entry_version;
        let updated = self.groups[place].table.update(channel, meta, version, now);
        if updated {
            self.note_own(place, channel);
            self.arm(place);
        }
        updated
    }

    /// Removes the entry of a channel of this process. Returns whether it had one.
    pub fn remove(&mut self, group: &str, channel: &Arc<str>, now: Moment) -> bool {
        let Some(&place) = self.names.get(group) else {
            return false;
        };
        let removed = self.groups[place].table.remove(channel, now);
        if removed {
            self.note_own(place, channel);
            self.arm(place);
        }
        removed
    }

    /// Takes what another process wrote. What is of a group without presence is outdated: the rules have changed.
    pub fn apply(&mut self, group: &str, entry: &ForeignEntry, now: Moment) -> Arrival {
        let arrival = match self.open(group) {
            Some(place) => {
                let arrival = self.groups[place].table.apply(entry, now);
                self.arm(place);
                arrival
            }
            None => Arrival::Outdated,
        };
        self.count_arrival(arrival)
    }

    /// Takes that another process has removed the entry of a channel of its own.
    pub fn apply_removal(
        &mut self,
        group: &str,
        owner: Owner,
        channel: &Arc<str>,
        version: u64,
        now: Moment,
    ) -> Arrival {
        let Some(&place) = self.names.get(group) else {
            return self.count_arrival(Arrival::Outdated);
        };
        let table = &mut self.groups[place].table;
        let arrival = table.apply_removal(owner, channel, version, now);
        self.arm(place);
        self.count_arrival(arrival)
    }

    /// Removes all entries of a process that died, of all groups.
    pub fn remove_owner(&mut self, owner: Owner, now: Moment) {
        self.each(|table| table.remove_owner(owner, now));
    }

    /// Notes that the entries of the other processes are being read. False if the group has no presence.
    pub fn begin_load(&mut self, group: &str) -> bool {
        let place = self.open(group);
        if let Some(place) = place {
            self.groups[place].table.begin_load();
        }
        place.is_some()
    }

    /// Takes the entries of the other processes as they were read since `begin_load`.
    pub fn finish_load(
        &mut self,
        group: &str,
        entries: impl IntoIterator<Item = ForeignEntry>,
        now: Moment,
    ) {
        if let Some(&place) = self.names.get(group) {
            let outdated = self.groups[place].table.finish_load(entries, now);
            self.totals.outdated += outdated as u64;
            self.arm(place);
        }
    }

    /// Forgets that the entries of the other processes are being read.
    pub fn abandon_load(&mut self, group: &str) {
        if let Some(&place) = self.names.get(group) {
            self.groups[place].table.abandon_load();
            self.arm(place);
        }
    }

    /// Has what changed in a group be told with the next call of `tell`, and not wait for more.
    pub fn hasten(&mut self, group: &str, now: Moment) {
        if let Some(&place) = self.names.get(group) {
            self.groups[place].table.hasten(now);
            self.arm(place);
        }
    }

    /// The entries of the other processes in a group, told or not.
    pub fn others_of(&self, group: &str) -> Vec<ForeignEntry> {
        let place = self.names.get(group);
        place.map_or_else(Vec::new, |place| self.groups[*place].table.others())
    }

    /// The channels of this process that have an entry in a group.
    pub fn own_channels(&self, group: &str) -> Vec<Arc<str>> {
        let place = self.names.get(group);
        let own = place.map(|place| self.groups[*place].table.own_channels());
        own.into_iter().flatten().cloned().collect()
    }

    /// Keeps the table of a group, with no entries too, until `unwatch`. False if the group has no presence.
    pub fn watch(&mut self, group: &str) -> bool {
        let place = self.open(group);
        if let Some(place) = place {
            self.groups[place].is_watched = true;
        }
        place.is_some()
    }

    /// Undoes `watch`, and forgets the entries of the other processes: nobody here wants to know of them.
    pub fn unwatch(&mut self, group: &str, now: Moment) {
        if let Some(&place) = self.names.get(group) {
            let known = &mut self.groups[place];
            known.is_watched = false;
            known.table.abandon_load();
            known.table.retain_owners(|_| false, now);
            self.arm(place);
        }
    }

    /// Whether a group is watched.
    pub fn is_watched(&self, group: &str) -> bool {
        let known = self.names.get(group);
        known.is_some_and(|place| self.groups[*place].is_watched)
    }

    /// The list of a group; `None` if it has no presence.
    pub fn list(&self, group: &str) -> Option<Listing> {
        let mut list = Vec::new();
        let Some(&place) = self.names.get(group) else {
            self.rules.of(group)?;
            list.push(0x80);
            return Some(Listing {
                list,
                is_hidden: false,
                counts: Counts::default(),
                version: self.version,
            });
        };
        let table = &self.groups[place].table;
        table.write_list(&mut list);
        Some(Listing {
            list,
            is_hidden: table.is_hidden(),
            counts: table.counts(),
            version: table.version(),
        })
    }

    /// How many are in the list of a group; `None` if it has no presence.
    pub fn counts(&self, group: &str) -> Option<Counts> {
        match self.names.get(group) {
            Some(place) => Some(self.groups[*place].table.counts()),
            None => self.rules.of(group).map(|_| Counts::default()),
        }
    }

    /// The entry of a channel as it is now, told or not: its key, its meta and its version.
    pub fn entry(&self, group: &str, channel: &str) -> Option<(&str, &[u8], u64)> {
        let place = *self.names.get(group)?;
        self.groups[place].table.get(channel)
    }

    /// When `tell` is to be called next; `None` if there is nothing to come.
    pub fn due(&self) -> Option<Moment> {
        self.due.first().map(|(moment, _)| *moment)
    }

    /// Whether that has become earlier since this was last asked.
    pub fn take_due_earlier(&mut self) -> bool {
        std::mem::take(&mut self.is_due_earlier)
    }

    /// What is to be told now of one group; `None` if there is nothing left. To be called until then.
    pub fn tell(&mut self, now: Moment) -> Option<(Arc<str>, Arc<PresenceRule>, Diff)> {
        while let Some(&(_, place)) = self.due.first().filter(|(moment, _)| *moment <= now) {
            let version = &mut self.version;
            let group = &mut self.groups[place];
            let diff = group.table.tell(now, || {
                *version += 1;
                *version
            });
            let name = Arc::clone(&group.name);
            let rule = Arc::clone(group.table.rule());
            self.arm(place);
            if let Some(diff) = diff {
                self.totals.diffs += 1;
                self.totals.hidden += u64::from(diff.scope == Scope::Counts);
                return Some((name, rule, diff));
            }
        }
        None
    }

    /// What became of the entries of this process since this was last called, each in its present state.
    pub fn take_own(&mut self) -> Vec<OwnChange> {
        let noted = self.own.as_mut().map(std::mem::take).unwrap_or_default();
        let mut seen = HashSet::new();
        let mut changes = Vec::new();
        for (group, channel) in noted {
            if seen.insert((Arc::clone(&group), Arc::clone(&channel))) {
                changes.push(self.own_change(group, channel));
            }
        }
        changes
    }

    /// Whether `take_own` would return something.
    pub fn has_own(&self) -> bool {
        self.own.as_ref().is_some_and(|own| !own.is_empty())
    }

    /// All entries of this process in a group, with new versions: to be written anew.
    pub fn own_of(&mut self, group: &str) -> Vec<OwnChange> {
        let Some(&place) = self.names.get(group) else {
            return Vec::new();
        };
        let known = &self.groups[place];
        let name = Arc::clone(&known.name);
        let channels: Vec<Arc<str>> = known.table.own_channels().cloned().collect();
        let changes = channels.into_iter();
        changes
            .map(|channel| self.own_change(Arc::clone(&name), channel))
            .collect()
    }

    /// The names of all groups that have a table.
    pub fn groups(&self) -> impl Iterator<Item = &Arc<str>> {
        self.groups.iter().map(|(_, group)| &group.name)
    }

    /// Forgets all entries; nothing is told of it.
    pub fn clear(&mut self) {
        self.groups.clear();
        self.names.clear();
        self.due.clear();
        if let Some(own) = &mut self.own {
            own.clear();
        }
    }

    /// A reading.
    pub fn stats(&self) -> PresenceStats {
        let tables = self.groups.iter().map(|(_, group)| group.table.len());
        PresenceStats {
            entries: tables.sum(),
            ..self.totals
        }
    }

    /// The place of a group that has a presence, made if there is none.
    fn open(&mut self, group: &str) -> Option<usize> {
        if let Some(&place) = self.names.get(group) {
            return Some(place);
        }
        let rule = Arc::clone(self.rules.of(group)?);
        let name: Arc<str> = group.into();
        let place = self.groups.insert(Group {
            name: Arc::clone(&name),
            table: Table::new(rule, self.version),
            due: None,
            is_watched: false,
        });
        self.names.insert(name, place);
        Some(place)
    }

    /// Notes when a group is due, or forgets it if nothing is there.
    fn arm(&mut self, place: usize) {
        let group = &mut self.groups[place];
        let is_gone = group.table.is_empty() && !group.is_watched;
        let due = if is_gone { None } else { group.table.due() };
        if due != group.due {
            if let Some(before) = group.due {
                self.due.remove(&(before, place));
            }
            if let Some(due) = due {
                self.is_due_earlier |= self.due.first().is_none_or(|(first, _)| due < *first);
                self.due.insert((due, place));
            }
            group.due = due;
        }
        if is_gone {
            let gone = self.groups.remove(place);
            self.names.remove(&gone.name);
            self.names.shrink_if_sparse();
            if self.groups.is_empty() {
                self.groups.shrink_to_fit();
            }
        }
    }

    fn each(&mut self, mut work: impl FnMut(&mut Table)) {
        let places: Vec<usize> = self.groups.iter().map(|(place, _)| place).collect();
        for place in places {
            work(&mut self.groups[place].table);
            self.arm(place);
        }
    }

    fn note_own(&mut self, place: usize, channel: &Arc<str>) {
        if let Some(own) = &mut self.own {
            own.push((Arc::clone(&self.groups[place].name), Arc::clone(channel)));
        }
    }

    /// A removal has a version as well, which is higher than that of all that was there before.
    fn own_change(&mut self, group: Arc<str>, channel: Arc<str>) -> OwnChange {
        self.entry_version += 1;
        let version = self.entry_version;
        let entry = self.entry(&group, &channel);
        let entry = entry.map(|(key, meta, _)| (key.into(), meta.into()));
        OwnChange {
            group,
            channel,
            version,
            entry,
        }
    }

    fn count_arrival(&mut self, arrival: Arrival) -> Arrival {
        self.totals.outdated += u64::from(arrival == Arrival::Outdated);
        arrival
    }
}

#[cfg(test)]
mod tests;
