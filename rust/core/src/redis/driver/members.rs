//! The memberships of plain channels, which every process knows, and the end of everything that the layer has on the servers.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::queues::{end_after, entry, HOUR};
use super::refusals::{Origin, NO_NAME};
use super::request::{integer, Request, Then};
use super::Driver;
use crate::name::{check_channel, check_group};
use crate::redis::fault::Fault;
use crate::redis::host::Host;
use crate::redis::link::{Command, Reply};
use crate::redis::meter::count;
use crate::redis::settings::Wire;
use crate::redis::wire::envelope::{Control, Draft};
use crate::redis::wire::keys::{member_field, membership_of, process_of};
use crate::redis::wire::membership;
use crate::redis::wire::membership::NoMembership;

/// By how many milliseconds the clocks of servers may differ, one of which may take the other's place.
const MARGIN: u64 = 60_000;
/// How far back `flush` looks for queues, in milliseconds: a month, however long messages live.
const OLDEST_INDEX: u64 = 31 * 24 * HOUR;

/// What was asked for when the plain members of groups were not known yet.
#[derive(Debug)]
pub(super) enum BeforeMembers {
    /// To carry a message to those of a group.
    Message {
        group: String,
        exclude: Vec<String>,
        entry: Draft,
        tally: usize,
    },
    /// To take this channel out of all its groups.
    Close { channel: String },
}

impl<H: Host> Driver<H> {
    /// Removes a queue and what it holds.
    pub(super) fn close_queue(&mut self, channel: &str) {
        self.shared.depths.lock().remove(channel);
        if !self.members_read {
            self.when_members_are_read(BeforeMembers::Close {
                channel: channel.to_owned(),
            });
        }
        let tally = self.tally(1, None);
        let request = self.removal(channel, tally);
        self.submit(request);
    }

    fn removal(&self, channel: &str, tally: usize) -> Request {
        let (queue, taken) = (self.keys.queue(channel), self.keys.taken(channel, self.me));
        let commands = vec![
            Command::new("LLEN").text(&queue),
            Command::new("DEL").text(&queue),
            Command::new("DEL").text(taken),
        ];
        let then = Then::Removed { tally, queue: true };
        Request::new(channel, &queue, commands, self.until(), then).safe()
    }

    pub(super) fn change_membership(
        &mut self,
        group: String,
        channel: String,
        lasts: Option<u64>,
        tally: usize,
    ) {
        let key = self.keys.members();
        let field = member_field(&group, &channel);
        let commands = match lasts {
            Some(lasts) => {
                // As long as the longest of all: others may last longer than this one.
                let last = self.shared.plain.lock().last_deadline();
                let left = last.saturating_sub(self.shared.now()).max(lasts);
                vec![
                    Command::new("HSET").text(&key).text(field).end_after(lasts),
                    end_after(&key, left),
                ]
            }
            None => vec![Command::new("HDEL").text(&key).text(field)],
        };
        let then = Then::Membership {
            group,
            channel,
            lasts,
            tally,
        };
        let request = Request::new("", &key, commands, self.until(), then).safe();
        self.submit(request);
    }

    pub(super) fn membership_changed(
        &mut self,
        group: &str,
        channel: &str,
        lasts: Option<u64>,
        tally: usize,
    ) {
        let now = self.shared.now();
        let mut plain = self.shared.plain.lock();
        match lasts {
            Some(lasts) => plain.add(group, channel, now.saturating_add(lasts)),
            None => plain.remove(group, channel),
        }
        drop(plain);
        // The answer comes when the others have been told.
        self.say_to_all(&Control::MembersChanged, tally);
        self.finish(tally, |_| {});
    }

    /// Who is a member could not be read: what was to go to them has not been sent.
    fn members_loaded(&mut self) {
        self.members_loading = false;
        if std::mem::take(&mut self.members_stale) {
            self.load_members();
        }
    }

    pub(super) fn members_unread(&mut self, fault: &Fault) {
        self.members_loaded();
        for asked in std::mem::take(&mut self.before_members) {
            if let BeforeMembers::Message { tally, .. } = asked {
                self.finish_with(tally, fault.clone());
            }
        }
    }

    pub(super) fn when_members_are_read(&mut self, asked: BeforeMembers) {
        if self.before_members.is_empty() {
            self.load_members();
        }
        self.before_members.push(asked);
    }

    fn do_before_members(&mut self, asked: BeforeMembers) {
        match asked {
            BeforeMembers::Message {
                group,
                exclude,
                entry,
                tally,
            } => {
                self.push_to_members(&group, &exclude, &entry, tally);
                self.finish(tally, |_| {});
            }
            BeforeMembers::Close { channel } => {
                let groups = self
                    .shared
                    .plain
                    .lock()
                    .of_channel(&channel, self.shared.now());
                for group in groups {
                    let tally = self.tally(1, None);
                    self.change_membership(group, channel.clone(), None, tally);
                }
            }
        }
    }

    pub(super) fn read_members(&mut self, replies: Vec<Reply>) {
        let words: Vec<Reply> = match replies.into_iter().next() {
            Some(Reply::Map(pairs)) => pairs
                .into_iter()
                .flat_map(|(key, value)| [key, value])
                .collect(),
            Some(Reply::Array(words)) => words,
            _ => Vec::new(),
        };
        let (now, key) = (self.shared.now(), self.keys.members());
        let mut expired = Vec::new();
        let mut memberships = Vec::new();
        let mut words = words.into_iter();
        while let (Some(field), Some(deadline)) = (words.next(), words.next()) {
            let text = |word: Reply| entry(word).and_then(|bytes| String::from_utf8(bytes).ok());
            let (Some(field), Some(deadline)) = (text(field), text(deadline)) else {
                continue;
            };
            let Some((group, channel)) = membership_of(&field) else {
                continue;
            };
            // Whoever can write to the server can write any names there.
            let valid = check_group(group).is_ok() && check_channel(channel).is_ok();
            if !valid || process_of(channel).is_some() {
                let from = Origin {
                    place: &key,
                    sender: None,
                };
                self.refuse_content(from, NO_NAME, "");
                continue;
            }
            let crypt = self.settings.crypt.as_deref();
            let deadline = match membership::end(&key, &field, &deadline, crypt) {
                Ok(deadline) => deadline,
                Err(NoMembership::Malformed) => continue,
                Err(NoMembership::Unauthenticated) => {
                    self.refuse_member(group, channel);
                    continue;
                }
            };
            if deadline > now {
                memberships.push((group.to_owned(), channel.to_owned(), deadline));
            } else if deadline.saturating_add(MARGIN) < now {
                // Not at once: it may be renewed between the reading and the removal.
                expired.push(field);
            }
        }
        self.shared.plain.lock().replace(memberships.into_iter());
        self.members_read = true;
        self.members_loaded();
        for asked in std::mem::take(&mut self.before_members) {
            self.do_before_members(asked);
        }
        if !expired.is_empty() {
            let command = expired
                .into_iter()
                .fold(Command::new("HDEL").text(&key), Command::text);
            let request = Request::new("", &key, vec![command], self.until(), Then::Ignored);
            self.submit(request.safe());
        }
    }

    /// Removes what the layer has: here, on the servers, and in the other processes.
    pub(super) fn flush(&mut self, tally: usize) {
        self.engine.flush();
        self.shared.plain.lock().clear();
        if self.settings.wire == Wire::ChannelsRedis {
            self.finish(tally, |_| {});
            return;
        }
        self.read_index(tally, BTreeSet::new(), self.index_hours());
    }

    /// The hours in which a queue that is still there can have been pushed to, by clocks that differ a little.
    fn index_hours(&self) -> RangeInclusive<u64> {
        let now = self.shared.now();
        let age = self.expiry_ms().saturating_add(MARGIN).min(OLDEST_INDEX);
        let oldest = now.saturating_sub(age);
        oldest / HOUR..=now.saturating_add(MARGIN) / HOUR
    }

    fn read_index(
        &mut self,
        tally: usize,
        names: BTreeSet<String>,
        mut hours: RangeInclusive<u64>,
    ) {
        let Some(hour) = hours.next() else {
            self.remove_queues(tally, names);
            return;
        };
        let key = self.keys.index(hour);
        let command = Command::new("SMEMBERS").text(&key);
        let then = Then::Index {
            tally,
            names,
            hours,
        };
        let request = Request::new("", &key, vec![command], self.until(), then);
        self.submit(request.safe());
    }

    /// An hour's names have come; the next hour is asked for, or all that was found is removed.
    pub(super) fn index_read(
        &mut self,
        tally: usize,
        mut names: BTreeSet<String>,
        hours: RangeInclusive<u64>,
        replies: Vec<Reply>,
    ) {
        let found: Vec<Reply> = match replies.into_iter().next() {
            Some(Reply::Array(found) | Reply::Set(found)) => found,
            _ => Vec::new(),
        };
        let found = found.into_iter().filter_map(entry);
        names.extend(found.filter_map(|name| String::from_utf8(name).ok()));
        self.read_index(tally, names, hours);
    }

    fn remove_queues(&mut self, tally: usize, channels: BTreeSet<String>) {
        let mut requests = Vec::with_capacity(channels.len() + 3);
        for channel in channels {
            requests.push(self.removal(&channel, tally));
        }
        let indexes = self.index_hours().map(|hour| self.keys.index(hour));
        for key in indexes.chain([self.keys.members()]) {
            let command = Command::new("DEL").text(&key);
            let then = Then::Removed {
                tally,
                queue: false,
            };
            requests.push(Request::new("", &key, vec![command], self.until(), then));
        }
        if let Some(known) = self.tallies.get_mut(tally) {
            known.left += requests.len();
        }
        self.shared.depths.lock().clear();
        self.index_anew();
        for request in requests {
            self.submit(request.safe());
        }
        self.say_to_all(&Control::Flush, tally);
        self.finish(tally, |_| {});
    }

    pub(super) fn removed(&mut self, tally: usize, queue: bool, replies: &[Reply]) {
        if queue {
            count(&self.shared.meter.queue_dropped, integer(replies.first()));
        }
        self.finish(tally, |_| {});
    }
}
