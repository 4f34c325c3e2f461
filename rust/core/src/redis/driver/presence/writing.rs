//! What this process writes: its own entries, and the announcements of what has changed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Presence;
use super::commands::{LASTS, removal};
use super::group::{AGAIN, Group, RENEWAL};
use super::tables::tables;
use crate::presence::OwnChange;
use crate::redis::driver::context::Context;
use crate::redis::driver::presence_then::PresenceThen;
use crate::redis::driver::reply::integer;
use crate::redis::driver::request::{Request, Then};
use crate::redis::fault::{Fault, FaultKind};
use crate::redis::host::Host;
use crate::redis::link::{Command, Refusal, Reply};
use crate::redis::meter::count;
use crate::redis::notice::Notice;
use crate::redis::wire::envelope::{self, Header, OutgoingBody, Unsendable};
use crate::redis::wire::presence::{self, Change};

/// How long after a writing the next one of the same group begins: what changes meanwhile goes together.
const PACE: Duration = Duration::from_millis(50);
/// How many fields one command sets or removes.
const FIELDS: usize = 256;
/// After how many bytes another announcement begins.
const LONGEST: usize = 64 * 1024;

/// The commands that write some changes to the hash of a group.
fn writes<H: Host>(
    cx: &Context<H>,
    group: &str,
    changes: &[OwnChange],
) -> Result<Vec<Command>, Unsendable> {
    let key = cx.keys.presence(group);
    let mut commands = Vec::new();
    let (here, gone): (Vec<&OwnChange>, Vec<&OwnChange>) =
        changes.iter().partition(|change| change.entry.is_some());
    for some in here.chunks(FIELDS) {
        let mut command = Command::new("HSET").text(&key);
        for change in some {
            let Some((name, meta)) = &change.entry else {
                continue;
            };
            let place = (key.as_str(), &*change.channel);
            let value = presence::value(place, (cx.me, change.version), (name, meta), cx.seal())?;
            command = command.text(&*change.channel).bytes(value);
        }
        commands.push(command);
    }
    let gone = gone.chunks(FIELDS);
    commands.extend(gone.map(|some| removal(&key, some.iter().map(|change| &*change.channel))));
    if !here.is_empty() {
        commands.push(Command::expire(&key, LASTS));
    }
    Ok(commands)
}

/// The commands that announce some changes of entries, and others behind them.
fn announcements<H: Host>(
    cx: &mut Context<H>,
    group: &str,
    changes: &[OwnChange],
    others: Vec<Change>,
) -> Result<Vec<Command>, Unsendable> {
    let mut payloads = vec![Vec::new()];
    let all = changes.iter().map(change);
    for change in all.chain(others) {
        if payloads.last().is_none_or(|last| last.len() > LONGEST) {
            payloads.push(Vec::new());
        }
        if let Some(payload) = payloads.last_mut() {
            change.write(payload);
        }
    }
    let topic = cx.keys.presence(group);
    let mut commands = Vec::with_capacity(payloads.len());
    for payload in payloads.iter().filter(|payload| !payload.is_empty()) {
        let header = Header {
            sender: cx.me,
            sequence: cx.counters.next(&topic),
            deadline: 0,
        };
        let body = OutgoingBody::Group {
            exclude: &[],
            payload,
        };
        let draft = envelope::encode(&header, body, cx.seal())?;
        count(&cx.shared.meter.bytes_out, draft.len() as u64);
        let command = Command::publish(&topic);
        commands.push(if draft.is_sealed() {
            command.envelope(draft)
        } else {
            command.bytes(draft.into_bytes())
        });
    }
    Ok(commands)
}

fn change(own: &OwnChange) -> Change {
    let (channel, version) = (own.channel.to_string(), own.version);
    match &own.entry {
        Some((key, meta)) => Change::Here {
            channel,
            version,
            key: key.to_string(),
            meta: Bytes::copy_from_slice(meta),
        },
        None => Change::Gone { channel, version },
    }
}

impl Presence {
    /// Entries of this process in a group may have changed.
    pub(super) fn take_own<H: Host>(&mut self, cx: &Context<H>) {
        for change in tables(cx, |tables, _| tables.take_own()) {
            if let Some(known) = self.groups.get_mut(&*change.group) {
                self.unwritten.insert(change.group.to_string());
                known.changes.insert(Arc::clone(&change.channel), change);
            }
        }
    }

    /// All entries of this process in a group are to be written.
    pub(super) fn write_whole(&mut self, group: &str) {
        if let Some(known) = self.groups.get_mut(group) {
            known.is_whole = true;
            known.counts.write_again();
            self.unwritten.insert(group.to_owned());
        }
    }

    /// The same, in all groups.
    pub(super) fn write_all(&mut self) {
        for (group, known) in &mut self.groups {
            known.is_whole = true;
            known.counts.write_again();
            self.unwritten.insert(group.clone());
        }
    }

    /// Writes what there is to write, where it is time.
    pub(super) fn write_due<H: Host>(&mut self, cx: &mut Context<H>) {
        let now = cx.now;
        let is_due = |known: &Group| known.writing.is_none() && known.write_at <= now;
        let groups = &self.groups;
        let due = self
            .unwritten
            .extract_if(|group| groups.get(group).is_none_or(is_due));
        for group in due.collect::<Vec<String>>() {
            self.write(cx, &group);
        }
    }

    fn write<H: Host>(&mut self, cx: &mut Context<H>, group: &str) {
        let Some(known) = self.groups.get_mut(group) else {
            return;
        };
        let mut changes = std::mem::take(&mut known.changes);
        if std::mem::take(&mut known.is_whole) {
            let all = tables(cx, |tables, _| tables.own_of(group));
            changes.extend(all.into_iter().map(|own| (Arc::clone(&own.channel), own)));
        }
        let is_unannounced = std::mem::take(&mut known.is_unannounced);
        let changes: Vec<OwnChange> = changes.into_values().collect();
        let mut others: Vec<Change> = is_unannounced.then_some(Change::Read).into_iter().collect();
        known.has_count = known.counts.has_changed;
        let count = known.counts.write(cx, group);
        let commands = count.and_then(|count| {
            let mut commands = writes(cx, group, &changes)?;
            if let Some((command, change)) = count {
                commands.insert(0, command);
                others.push(change);
            }
            commands.extend(announcements(cx, group, &changes, others)?);
            Ok(commands)
        });
        known.writing = Some(changes);
        known.write_at = cx.now + PACE;
        let commands = match commands {
            Ok(commands) => commands,
            Err(error) => {
                let fault = Fault::new(FaultKind::Refused, error.to_string());
                return self.not_written(cx, group, &fault);
            }
        };
        if commands.is_empty() {
            known.writing = None;
            return self.drop_if_over(group);
        }
        let then = Then::Presence(PresenceThen::Written {
            group: group.to_owned(),
        });
        let key = cx.keys.presence(group);
        cx.submit(Request::new(group, &key, commands, cx.until(), then));
    }

    pub(super) fn written<H: Host>(&mut self, cx: &mut Context<H>, group: &str, replies: &[Reply]) {
        if let Some(refusal) = replies.iter().find_map(Refusal::of) {
            return self.not_written(cx, group, &refusal.into_fault());
        }
        if let Some(known) = self.groups.get_mut(group) {
            known.writing = None;
        }
        self.drop_if_over(group);
    }

    /// It is not known what of it was done: it is written again, and the others read it.
    pub(super) fn not_written<H: Host>(&mut self, cx: &mut Context<H>, group: &str, fault: &Fault) {
        let Some(known) = self.groups.get_mut(group) else {
            return;
        };
        for change in known.writing.take().into_iter().flatten() {
            known
                .changes
                .entry(Arc::clone(&change.channel))
                .or_insert(change);
        }
        known.is_unannounced = true;
        known.counts.has_changed |= known.has_count;
        known.write_at = cx.now + AGAIN;
        self.unwritten.insert(group.to_owned());
        if !fault.may_pass() {
            cx.shared.notices.push_once(Notice::Unsent {
                messages: 1,
                reason: fault.to_string(),
            });
        }
    }

    /// Looks whether the hashes are still there to which this process has written.
    pub(super) fn renew_due<H: Host>(&mut self, cx: &mut Context<H>) {
        let now = cx.now;
        let due = self
            .groups
            .iter_mut()
            .filter(|(_, known)| known.renew_at <= now);
        let mut groups = Vec::new();
        for (group, known) in due {
            known.renew_at = now + RENEWAL;
            groups.push(group.clone());
        }
        for group in groups {
            let has_own = !tables(cx, |tables, _| tables.own_channels(&group)).is_empty();
            let counts = self
                .groups
                .get(&group)
                .is_some_and(|known| known.counts.has_own());
            if !has_own && !counts {
                continue;
            }
            let key = cx.keys.presence(&group);
            let then = Then::Presence(PresenceThen::Renewed {
                group: group.clone(),
            });
            let command = Command::expire(&key, LASTS);
            cx.submit(Request::new(&group, &key, vec![command], cx.until(), then).safe());
        }
    }

    /// The server has answered whether a hash was there.
    pub(super) fn renewed(&mut self, group: &str, replies: &[Reply]) {
        if integer(replies.first()) == 0 {
            self.write_whole(group);
        }
    }

    /// Removes all entries of this process, at its end.
    pub(in crate::redis::driver) fn leave_all<H: Host>(&mut self, cx: &mut Context<H>) {
        let groups: Vec<String> = self.groups.keys().cloned().collect();
        for group in groups {
            let own = tables(cx, |tables, _| tables.own_of(&group));
            let gone = own.into_iter().map(|own| OwnChange { entry: None, ..own });
            if let Some(known) = self.groups.get_mut(&group) {
                known
                    .changes
                    .extend(gone.map(|own| (Arc::clone(&own.channel), own)));
                known.is_whole = false;
                known.counts.end();
                self.write(cx, &group);
            }
        }
        self.stop_counting(cx);
    }
}
