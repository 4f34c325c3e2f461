//! The readings of the hashes.

use std::collections::HashSet;
use std::sync::Arc;

use super::Presence;
use super::commands::remove_fields;
use super::group::{AGAIN, trusted};
use super::looking::answer;
use super::rows::{foreign, request, rows};
use super::tables::tables;
use crate::presence::ForeignEntry;
use crate::redis::driver::context::Context;
use crate::redis::driver::presence_then::PresenceThen;
use crate::redis::fault::Fault;
use crate::redis::host::Host;
use crate::redis::link::Reply;
use crate::redis::wire::keys::{ProcessId, process_of};
use crate::redis::wire::presence::Row;

impl Presence {
    /// Reads the hash of a group of which a copy is kept.
    pub(super) fn read<H: Host>(&mut self, cx: &mut Context<H>, group: &str) {
        self.readings += 1;
        let reading = self.readings;
        let Some(known) = self.groups.get_mut(group) else {
            return;
        };
        known.reading = Some(reading);
        known.is_stale = false;
        known.counts.begin();
        tables(cx, |tables, _| tables.begin_load(group));
        let group = group.to_owned();
        let then = PresenceThen::Read {
            group: group.clone(),
            reading,
        };
        let request = request(cx, &group, then);
        cx.submit(request);
    }

    /// The hash was read: the copy is what it says, and what was announced since that was asked for.
    pub(super) fn has_read<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        group: &str,
        reading: u64,
        replies: Vec<Reply>,
    ) {
        let known = self.groups.get(group);
        if known.is_none_or(|known| known.reading != Some(reading)) {
            return;
        }
        let (rows, counts) = rows(cx, group, replies);
        let (own, others): (Vec<Row>, Vec<Row>) =
            rows.into_iter().partition(|row| row.owner == cx.me);
        self.compare_own(cx, group, &own);
        let processes = counts.keys().filter(|process| **process != cx.me);
        let mut left: Vec<String> = processes
            .filter(|process| !self.living.met(**process))
            .map(ProcessId::to_string)
            .collect();
        let mut entries = Vec::with_capacity(others.len());
        for row in others {
            if self.living.met(row.owner) {
                let owner = self.owners.of(row.owner);
                entries.push(foreign(row, owner));
            } else {
                left.push(row.channel);
            }
        }
        // Each other process may have taken another for the one that removes what the dead have left.
        remove_fields(cx, group, left.iter().map(String::as_str));
        let Some(known) = self.groups.get_mut(group) else {
            return;
        };
        let absent = absent(cx, group, &entries, |process| self.living.met(process));
        // Those that were not there the last time either have left.
        let spared = absent
            .into_iter()
            .filter(|entry| known.is_loaded && !known.absent.contains(&entry.channel));
        let spared: Vec<ForeignEntry> = spared.collect();
        known.absent = spared
            .iter()
            .map(|entry| Arc::clone(&entry.channel))
            .collect();
        known
            .counts
            .read(cx.me, counts, |process| self.living.met(process));
        if known.counts.has_changed {
            self.unwritten.insert(group.to_owned());
        }
        let is_whole = spared.is_empty() && !known.counts.has_absent();
        known.read_at = trusted(cx.now, is_whole);
        known.reading = None;
        let is_first = !std::mem::replace(&mut known.is_loaded, true);
        let looks = std::mem::take(&mut known.looks);
        let is_stale = known.is_stale;
        entries.extend(spared);
        tables(cx, |tables, now| {
            tables.finish_load(group, entries, now);
            if is_first {
                tables.hasten(group, now);
            }
        });
        if is_first {
            // Callers see it from now on: it has to be in the list.
            self.tell(cx);
            cx.shared.present.lock().insert(group.to_owned());
        }
        if let Some(known) = self.groups.get(group) {
            for (look, _) in looks {
                answer(cx, group, known, look);
            }
        }
        if is_stale {
            self.read(cx, group);
        }
    }

    /// Notes which entries of this process are to be written, and removes those that it has no more.
    fn compare_own<H: Host>(&mut self, cx: &mut Context<H>, group: &str, rows: &[Row]) {
        let (own, is_same) = tables(cx, |tables, _| {
            let is_same = |row: &Row| {
                let entry = tables.entry(group, &row.channel);
                entry.is_none_or(|(key, meta, _)| key == row.key && meta == row.meta)
            };
            (tables.own_channels(group), rows.iter().all(is_same))
        });
        let written: HashSet<&str> = rows.iter().map(|row| row.channel.as_str()).collect();
        if !is_same || own.iter().any(|channel| !written.contains(&**channel)) {
            self.write_whole(group);
        }
        let own: HashSet<&str> = own.iter().map(|channel| &**channel).collect();
        remove_fields(cx, group, written.difference(&own).copied());
    }

    pub(super) fn not_read<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        group: &str,
        reading: u64,
        fault: &Fault,
    ) {
        let Some(known) = self.groups.get_mut(group) else {
            return;
        };
        if known.reading != Some(reading) {
            return;
        }
        known.reading = None;
        known.read_at = cx.now + AGAIN;
        tables(cx, |tables, _| tables.abandon_load(group));
        for (look, _) in std::mem::take(&mut known.looks) {
            cx.calls.fail(look.call(), fault.clone());
        }
    }
}

/// The entries of the copy, of processes that live, that a reading does not have. If the server was flushed, or has begun anew, their
/// processes are about to write them again.
fn absent<H: Host>(
    cx: &Context<H>,
    group: &str,
    entries: &[ForeignEntry],
    mut lives: impl FnMut(ProcessId) -> bool,
) -> Vec<ForeignEntry> {
    let read: HashSet<&str> = entries.iter().map(|entry| &*entry.channel).collect();
    let mut others = tables(cx, |tables, _| tables.others_of(group));
    others.retain(|entry| {
        !read.contains(&*entry.channel) && process_of(&entry.channel).is_some_and(&mut lives)
    });
    others
}
