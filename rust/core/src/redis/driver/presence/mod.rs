//! Who is present in groups, in all processes.
//!
//! The entries of a group are a hash on the server of the group, of which each process that has members in it keeps a copy: the
//! table in the engine of the mailboxes. Each process writes the entries of its own channels, and announces each change
//! (`writing`) on the pub/sub channel that has the name of the hash. Whoever hears that changes its copy, and tells its members.
//! The hash is read when the subscription is confirmed, and when something may have been missed (`reading`).
//!
//! Who lives is known by a hash in which every process counts (`living`, `counting`). The entries of a process that does not
//! count any more leave everywhere, and are removed from the hashes. A process that finds that its own count was removed writes
//! its entries again: others took it for dead, or the server was flushed.
//!
//! How many members a group has in all processes is known in the same way, where it is counted (`counts`).

use std::collections::{HashMap, HashSet};

use tokio::time::Instant;

use self::beats::Counting;
use self::commands::{removal, remove_beat};
use self::group::{Group, Owners};
use self::living::Living;
use self::tables::tables;
use super::calls::CallId;
use super::context::Context;
use super::presence_then::{Look, PresenceThen};
use super::refusals::{NO_NAME, Origin};
use super::request::{Request, Then};
use super::topics::Topics;
use crate::presence::ForeignEntry;
use crate::redis::fault::Fault;
use crate::redis::host::{Host, RawMessage};
use crate::redis::link::{Command, Reply};
use crate::redis::wire::keys::{ProcessId, process_of};
use crate::redis::wire::presence::Change;
use crate::shrink::Shrink;

mod beats;
mod commands;
mod counting;
mod counts;
mod group;
mod living;
mod looking;
mod members;
mod reading;
mod rows;
mod tables;
mod writing;

#[derive(Debug, Default)]
pub(super) struct Presence {
    groups: HashMap<String, Group>,
    /// The groups of which this process has something to write.
    unwritten: HashSet<String>,
    counting: Counting,
    living: Living,
    owners: Owners,
    /// Numbers the readings.
    readings: u64,
    /// Numbers the changes of how many members this process has.
    versions: u64,
    /// When the members of some group are to be told something.
    tell_at: Option<Instant>,
}

impl Presence {
    /// This process has a member in a group: if that has a presence, a copy is kept from now on.
    pub(super) fn want<H: Host>(&mut self, cx: &mut Context<H>, topics: &mut Topics, group: &str) {
        if cx.settings.presence.of(group).is_none() && !cx.settings.counted.has(group) {
            return;
        }
        let topic = cx.keys.presence(group);
        topics.want(cx, &topic, None);
        match self.groups.get_mut(group) {
            Some(known) if !known.is_over => return self.recount(cx, group),
            Some(known) => known.is_over = false,
            None => drop(self.groups.insert(group.to_owned(), Group::new(cx.now))),
        }
        tables(cx, |tables, _| tables.watch(group));
        self.recount(cx, group);
    }

    /// The subscription of a group has ended: this process has no member there.
    pub(super) fn forget<H: Host>(&mut self, cx: &mut Context<H>, group: &str) {
        self.take_own(cx);
        self.recount(cx, group);
        let Some(known) = self.groups.get_mut(group) else {
            return;
        };
        known.is_over = true;
        known.is_loaded = false;
        known.reading = None;
        let fault = cx.servers.unreachable();
        for (look, _) in std::mem::take(&mut known.looks) {
            cx.calls.fail(look.call(), fault.clone());
        }
        cx.shared.present.lock().remove(group);
        tables(cx, |tables, now| tables.unwatch(group, now));
        self.drop_if_over(group);
    }

    /// Forgets a group in which this process has no member, if there is nothing to write.
    fn drop_if_over(&mut self, group: &str) {
        let is_done = |known: &Group| {
            let is_written = known.changes.is_empty() && !known.counts.has_changed;
            known.is_over && known.writing.is_none() && is_written
        };
        if self.groups.get(group).is_some_and(is_done) {
            self.groups.remove(group);
            self.groups.shrink_if_sparse();
        }
    }

    /// Something may have been missed, or the subscription is confirmed: the hash is read.
    pub(super) fn distrust<H: Host>(&mut self, cx: &mut Context<H>, group: &str) {
        match self.groups.get_mut(group) {
            Some(known) if known.reading.is_some() => known.is_stale = true,
            Some(known) if known.is_over => {}
            Some(_) => self.read(cx, group),
            None => {}
        }
    }

    /// Another process announces what it has changed.
    pub(super) fn heard<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        group: &str,
        sender: ProcessId,
        changes: Vec<Change>,
    ) {
        if sender == cx.me || !self.groups.contains_key(group) {
            return;
        }
        self.living.heard(sender);
        let owner = self.owners.of(sender);
        for change in changes {
            let channel = change.channel().map(process_of);
            if channel.is_some_and(|process| process != Some(sender)) {
                let topic = cx.keys.presence(group);
                cx.refuse_content(Origin::of(sender, &topic), NO_NAME, "");
                continue;
            }
            match change {
                Change::Here {
                    channel,
                    version,
                    key,
                    meta,
                } => {
                    let entry = ForeignEntry {
                        owner,
                        channel: channel.into(),
                        key: key.into(),
                        meta: meta[..].into(),
                        version,
                    };
                    tables(cx, |tables, now| {
                        tables.apply(group, &entry, now);
                    });
                }
                Change::Gone { channel, version } => {
                    let channel = channel.into();
                    tables(cx, |tables, now| {
                        tables.apply_removal(group, owner, &channel, version, now);
                    });
                }
                Change::Read => self.distrust(cx, group),
                Change::Count { version, members } => {
                    self.count_heard(group, sender, (version, members));
                }
            }
        }
    }

    /// Answers a caller once it is known here who is present in a group, or how many members it has.
    pub(super) fn look<H: Host>(&mut self, cx: &mut Context<H>, group: &str, look: Look) {
        let until = cx.until();
        match self.groups.get_mut(group) {
            Some(known) if known.is_loaded => looking::answer(cx, group, known, look),
            Some(known) if !known.is_over => known.looks.push((look, until)),
            _ => looking::look(cx, group, look),
        }
    }

    /// Everything was removed here. The process that has asked for that removes the hashes, each other one its own entries.
    pub(super) fn flushed<H: Host>(&mut self, cx: &mut Context<H>, call: Option<CallId>) {
        for (group, known) in &mut self.groups {
            known.changes.clear();
            known.absent.clear();
            known.counts.clear();
            let key = cx.keys.presence(group);
            let (command, then) = if let Some(call) = call {
                cx.add_part(call);
                let then = Then::Removed { call, queue: false };
                (Command::new("DEL").text(&key), then)
            } else {
                let own = tables(cx, |tables, _| tables.own_channels(group));
                let me = cx.me.to_string();
                let fields = own.iter().map(|name| &**name).chain([me.as_str()]);
                (removal(&key, fields), Then::Ignored)
            };
            let request = Request::new(group, &key, vec![command], cx.until(), then);
            cx.submit(request.safe());
        }
        let groups = &self.groups;
        tables(cx, |tables, _| {
            tables.clear();
            for group in groups.keys() {
                tables.watch(group);
            }
        });
        self.unwritten.clear();
    }

    /// When something is to be done next, whatever comes.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let writes = self
            .unwritten
            .iter()
            .filter_map(|group| self.groups.get(group));
        let writes = writes
            .filter(|known| known.writing.is_none())
            .map(|known| known.write_at);
        let count_at = self.counting.next_due().filter(|_| !self.groups.is_empty());
        writes.chain(self.tell_at).chain(count_at).min()
    }

    /// Does what is due, after some events.
    pub(super) fn act<H: Host>(&mut self, cx: &mut Context<H>) {
        if self.groups.is_empty() {
            return;
        }
        self.take_own(cx);
        self.write_due(cx);
        self.count_due(cx);
        self.tell(cx);
    }

    /// Tells the members of this process what has changed, where that is due.
    fn tell<H: Host>(&mut self, cx: &mut Context<H>) {
        let host = &cx.host;
        let told = cx.local.presence_tell(|payload, kind| {
            host.message(RawMessage {
                payload: payload.into(),
                kind: Some(kind),
            })
        });
        cx.hand_offs.extend(told);
        let wait = tables(cx, |tables, now| tables.due().map(|due| due.since(now)));
        self.tell_at = wait.map(|wait| cx.now + wait);
    }

    /// What is done once a second.
    pub(super) fn look_after<H: Host>(&mut self, cx: &mut Context<H>) {
        let now = cx.now;
        let mut to_read = Vec::new();
        for (group, known) in &mut self.groups {
            let fault = cx.servers.unreachable();
            for (look, _) in known.looks.extract_if(.., |(_, until)| *until <= now) {
                cx.calls.fail(look.call(), fault.clone());
            }
            if known.reading.is_none() && known.read_at <= now {
                to_read.push(group.clone());
            }
        }
        for group in to_read {
            // Without the subscription it is read when that is confirmed.
            let topic = cx.keys.presence(&group);
            if cx.shared.topics.lock().contains(&topic) {
                self.read(cx, &group);
            }
        }
        self.recount_all(cx);
        self.renew_due(cx);
        self.unwritten.shrink_if_sparse();
    }

    pub(super) fn answered<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        then: PresenceThen,
        replies: Vec<Reply>,
    ) {
        match then {
            PresenceThen::Written { group } => self.written(cx, &group, &replies),
            PresenceThen::Read { group, reading } => self.has_read(cx, &group, reading, replies),
            PresenceThen::Looked { group, look } => looking::looked(cx, &group, look, replies),
            PresenceThen::Renewed { group } => self.renewed(&group, &replies),
            PresenceThen::Counted => self.counted(cx, replies),
            PresenceThen::Removed { process } => remove_beat(cx, process),
        }
    }

    /// It was not done. Gives the call that fails.
    pub(super) fn failed<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        then: PresenceThen,
        fault: &Fault,
    ) -> Option<CallId> {
        match then {
            PresenceThen::Written { group } => self.not_written(cx, &group, fault),
            PresenceThen::Read { group, reading } => self.not_read(cx, &group, reading, fault),
            PresenceThen::Looked { look, .. } => return Some(look.call()),
            PresenceThen::Counted => self.not_counted(cx.now),
            // Both are done again.
            PresenceThen::Renewed { .. } | PresenceThen::Removed { .. } => {}
        }
        None
    }
}

#[cfg(test)]
mod tests;
