//! The memberships of plain channels, which every process knows, and the end of everything that the layer has on the servers.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::arrivals::Arrivals;
use super::calls::CallId;
use super::context::Context;
use super::outgoing::Outgoing;
use super::queues::{HOUR, Queues};
use super::refusals::{NO_NAME, Origin};
use super::reply::{integer, text, words};
use super::request::{Request, Then};
use crate::name::{check_channel, check_group};
use crate::redis::fault::Fault;
use crate::redis::host::Host;
use crate::redis::link::{Command, Reply};
use crate::redis::meter::count;
use crate::redis::wire::envelope::{Control, Draft};
use crate::redis::wire::form::Wire;
use crate::redis::wire::keys::{member_field, membership_of, process_of};
use crate::redis::wire::membership::{self, NoMembership};

/// By how many milliseconds the clock of a server may differ from that of the server that takes its place.
const MARGIN: u64 = 60_000;
/// How far back `flush` looks for queues, in milliseconds: a month, however long messages live.
const OLDEST_INDEX: u64 = 31 * 24 * HOUR;

/// A request that waits until the plain members of groups are known.
#[derive(Debug)]
enum Deferred {
    /// To carry a message to those of a group.
    Message {
        group: String,
        exclude: Vec<String>,
        entry: Draft,
        call: CallId,
    },
    /// To take this channel out of all its groups.
    Close { channel: String },
}

#[derive(Debug, Default)]
pub(super) struct Members {
    /// They have been read once.
    read: bool,
    /// They are being read.
    loading: bool,
    /// They have changed since that was asked for.
    stale: bool,
    /// What waits for them to be read.
    held: Vec<Deferred>,
}

fn removal<H: Host>(cx: &Context<H>, channel: &str, call: CallId) -> Request {
    let (queue, taken) = (cx.keys.queue(channel), cx.keys.taken(channel, cx.me));
    let commands = vec![
        Command::new("LLEN").text(&queue),
        Command::new("DEL").text(&queue),
        Command::new("DEL").text(taken),
    ];
    let then = Then::Removed { call, queue: true };
    Request::new(channel, &queue, commands, cx.until(), then).safe()
}

/// Makes a plain channel a member of a group, for so many milliseconds, or takes it out.
pub(super) fn change<H: Host>(
    cx: &mut Context<H>,
    group: String,
    channel: String,
    lasts: Option<u64>,
    ticket: Option<H::Ticket>,
) {
    let key = cx.keys.members();
    let field = member_field(&group, &channel);
    let commands = match lasts {
        Some(lasts) => {
            // As long as the longest of all: others may last longer than this one.
            let last = cx.shared.plain.lock().last_deadline();
            let left = last.saturating_sub(cx.shared.now()).max(lasts);
            vec![
                Command::new("HSET").text(&key).text(field).end_after(lasts),
                Command::expire(&key, left),
            ]
        }
        None => vec![Command::new("HDEL").text(&key).text(field)],
    };
    let then = Then::Membership {
        group,
        channel,
        lasts,
        call: cx.call(1, ticket),
    };
    cx.submit(Request::new("", &key, commands, cx.until(), then).safe());
}

/// A membership was changed: all other processes are notified before the call is answered.
pub(super) fn changed<H: Host>(
    cx: &mut Context<H>,
    outgoing: &mut Outgoing,
    (group, channel): (&str, &str),
    lasts: Option<u64>,
    call: CallId,
) {
    let now = cx.shared.now();
    let mut plain = cx.shared.plain.lock();
    match lasts {
        Some(lasts) => plain.add(group, channel, now.saturating_add(lasts)),
        None => plain.remove(group, channel),
    }
    drop(plain);
    outgoing.broadcast_control(cx, &Control::MembersChanged, call);
    cx.calls.done(call);
}

/// Removes the messages and memberships that are here. The process that requested the flush removes what is on the servers.
pub(super) fn flush_here<H: Host>(cx: &Context<H>, queues: &mut Queues) {
    cx.local.flush();
    cx.shared.plain.lock().clear();
    cx.shared.depths.lock().clear();
    queues.index_anew();
}

impl Members {
    /// Whether nothing waits for the members to be read.
    pub(super) fn is_idle(&self) -> bool {
        self.held.is_empty()
    }

    /// Removes a queue and what it holds.
    pub(super) fn close_queue<H: Host>(&mut self, cx: &mut Context<H>, channel: &str) {
        cx.shared.depths.lock().remove(channel);
        if !self.read {
            let channel = channel.to_owned();
            self.hold(cx, Deferred::Close { channel });
        }
        let call = cx.call(1, None);
        cx.submit(removal(cx, channel, call));
    }

    /// Sends a message to the queues that are in a group.
    pub(super) fn send<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        queues: &mut Queues,
        (group, exclude): (String, Vec<String>),
        entry: Draft,
        call: CallId,
    ) {
        if self.read {
            push_to_members(cx, queues, &group, &exclude, &entry, call);
            return;
        }
        cx.add_part(call);
        let message = Deferred::Message {
            group,
            exclude,
            entry,
            call,
        };
        self.hold(cx, message);
    }

    fn hold<H: Host>(&mut self, cx: &mut Context<H>, held: Deferred) {
        if self.held.is_empty() {
            self.load(cx);
        }
        self.held.push(held);
    }

    /// Reads the members, once for all that changes while they are read.
    pub(super) fn load<H: Host>(&mut self, cx: &mut Context<H>) {
        if std::mem::replace(&mut self.loading, true) {
            self.stale = true;
            return;
        }
        let key = cx.keys.members();
        let command = Command::new("HGETALL").text(&key);
        cx.submit(Request::new("", &key, vec![command], cx.until(), Then::Members).safe());
    }

    fn loaded<H: Host>(&mut self, cx: &mut Context<H>) {
        self.loading = false;
        if std::mem::take(&mut self.stale) {
            self.load(cx);
        }
    }

    /// Who is a member could not be read: what was to go to them has not been sent.
    pub(super) fn not_loaded<H: Host>(&mut self, cx: &mut Context<H>, fault: &Fault) {
        self.loaded(cx);
        for held in std::mem::take(&mut self.held) {
            if let Deferred::Message { call, .. } = held {
                cx.calls.fail(call, fault.clone());
            }
        }
    }

    pub(super) fn read<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        arrivals: &mut Arrivals,
        queues: &mut Queues,
        replies: Vec<Reply>,
    ) {
        let (now, key) = (cx.shared.now(), cx.keys.members());
        let mut expired = Vec::new();
        let mut memberships = Vec::new();
        let mut words = words(replies).into_iter();
        while let (Some(field), Some(deadline)) = (words.next(), words.next()) {
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
                arrivals.refuse_content(cx, from, NO_NAME, "");
                continue;
            }
            let crypt = cx.settings.crypt.as_deref();
            let deadline = match membership::end(&key, &field, &deadline, crypt) {
                Ok(deadline) => deadline,
                Err(NoMembership::Malformed) => continue,
                Err(NoMembership::Unauthenticated) => {
                    let refusals = arrivals.refusals();
                    refusals.refuse_member(&cx.shared, &key, group, channel);
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
        cx.shared.plain.lock().replace(memberships.into_iter());
        self.read = true;
        self.loaded(cx);
        for held in std::mem::take(&mut self.held) {
            resume(cx, queues, held);
        }
        if !expired.is_empty() {
            let command = Command::new("HDEL").text(&key);
            let command = expired.into_iter().fold(command, Command::text);
            cx.submit(Request::new("", &key, vec![command], cx.until(), Then::Ignored).safe());
        }
    }
}

/// Does what was asked for before the members were known.
fn resume<H: Host>(cx: &mut Context<H>, queues: &mut Queues, held: Deferred) {
    match held {
        Deferred::Message {
            group,
            exclude,
            entry,
            call,
        } => {
            push_to_members(cx, queues, &group, &exclude, &entry, call);
            cx.calls.done(call);
        }
        Deferred::Close { channel } => {
            let now = cx.shared.now();
            let groups = cx.shared.plain.lock().of_channel(&channel, now);
            for group in groups {
                change(cx, group, channel.clone(), None, None);
            }
        }
    }
}

fn push_to_members<H: Host>(
    cx: &mut Context<H>,
    queues: &mut Queues,
    group: &str,
    exclude: &[String],
    entry: &Draft,
    call: CallId,
) {
    let members = cx.shared.plain.lock().of_group(group, cx.shared.now());
    if members.is_empty() {
        return;
    }
    cx.calls.sends_to_queues(call, group);
    for channel in members {
        if !exclude.contains(&channel) {
            queues.push(cx, &channel, entry.clone(), call);
        }
    }
}

/// Removes what the layer has: here, on the servers, and in the other processes.
pub(super) fn flush<H: Host>(
    cx: &mut Context<H>,
    outgoing: &mut Outgoing,
    queues: &mut Queues,
    ticket: H::Ticket,
) {
    cx.local.flush();
    cx.shared.plain.lock().clear();
    let call = cx.call(1, Some(ticket));
    if cx.settings.wire == Wire::ChannelsRedis {
        cx.calls.done(call);
        return;
    }
    let hours = index_hours(cx);
    read_index(cx, outgoing, queues, call, BTreeSet::new(), hours);
}

/// The hours in which a queue that is still there can have been pushed to, by clocks that differ a little.
fn index_hours<H: Host>(cx: &Context<H>) -> RangeInclusive<u64> {
    let now = cx.shared.now();
    let age = cx.expiry_ms().saturating_add(MARGIN).min(OLDEST_INDEX);
    let oldest = now.saturating_sub(age);
    oldest / HOUR..=now.saturating_add(MARGIN) / HOUR
}

fn read_index<H: Host>(
    cx: &mut Context<H>,
    outgoing: &mut Outgoing,
    queues: &mut Queues,
    call: CallId,
    names: BTreeSet<String>,
    mut hours: RangeInclusive<u64>,
) {
    let Some(hour) = hours.next() else {
        remove_queues(cx, outgoing, queues, call, &names);
        return;
    };
    let key = cx.keys.index(hour);
    let command = Command::new("SMEMBERS").text(&key);
    let then = Then::Index { call, names, hours };
    cx.submit(Request::new("", &key, vec![command], cx.until(), then).safe());
}

/// An hour's names have come; the next hour is asked for, or all that was found is removed.
pub(super) fn index_read<H: Host>(
    cx: &mut Context<H>,
    outgoing: &mut Outgoing,
    queues: &mut Queues,
    (call, mut names, hours): (CallId, BTreeSet<String>, RangeInclusive<u64>),
    replies: Vec<Reply>,
) {
    names.extend(words(replies).into_iter().filter_map(text));
    read_index(cx, outgoing, queues, call, names, hours);
}

fn remove_queues<H: Host>(
    cx: &mut Context<H>,
    outgoing: &mut Outgoing,
    queues: &mut Queues,
    call: CallId,
    channels: &BTreeSet<String>,
) {
    let removals = channels.iter().map(|channel| removal(cx, channel, call));
    let mut requests: Vec<Request> = removals.collect();
    let indexes = index_hours(cx).map(|hour| cx.keys.index(hour));
    for key in indexes.chain([cx.keys.members()]) {
        let command = Command::new("DEL").text(&key);
        let then = Then::Removed { call, queue: false };
        requests.push(Request::new("", &key, vec![command], cx.until(), then).safe());
    }
    cx.calls.add_parts(call, requests.len());
    cx.shared.depths.lock().clear();
    queues.index_anew();
    cx.requests.extend(requests);
    outgoing.broadcast_control(cx, &Control::Flush, call);
    cx.calls.done(call);
}

/// Part of a flush, or a queue that was closed.
pub(super) fn removed<H: Host>(cx: &mut Context<H>, call: CallId, queue: bool, replies: &[Reply]) {
    if queue {
        count(&cx.shared.meter.queue_dropped, integer(replies.first()));
    }
    cx.calls.done(call);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, context, settings};
    use super::*;
    use crate::redis::fault::FaultKind;
    use crate::redis::settings::Topology;

    fn parts() -> (Context<World>, Arrivals, Queues, Members) {
        let cx = context(settings(Topology::Shards));
        (cx, Arrivals::new(16), Queues::default(), Members::default())
    }

    /// The first command of each request that was made since.
    fn asked(cx: &mut Context<World>) -> Vec<String> {
        let requests = std::mem::take(&mut cx.requests);
        let first = |request: Request| request.to_strings().into_iter().next();
        let words = requests.into_iter().filter_map(first);
        words
            .map(|words| words.split(' ').next().unwrap_or_default().to_owned())
            .collect()
    }

    fn send(cx: &mut Context<World>, queues: &mut Queues, members: &mut Members) {
        let call = cx.call(0, Some(1));
        let room = ("room".to_owned(), Vec::new());
        members.send(cx, queues, room, vec![0; 40].into(), call);
    }

    fn hash(cx: &Context<World>) -> Vec<Reply> {
        let end = (cx.shared.now() + 60_000).to_string();
        let word = |text: &str| Reply::BulkString(text.as_bytes().to_vec());
        vec![Reply::Array(vec![word("room\0work"), word(&end)])]
    }

    #[test]
    fn a_message_to_a_group_waits_until_its_members_have_been_read_once() {
        let (mut cx, mut arrivals, mut queues, mut members) = parts();
        send(&mut cx, &mut queues, &mut members);
        send(&mut cx, &mut queues, &mut members);
        assert_eq!(asked(&mut cx), ["HGETALL"]);
        let replies = hash(&cx);
        members.read(&mut cx, &mut arrivals, &mut queues, replies);
        assert_eq!(asked(&mut cx), ["SADD", "RPUSH", "RPUSH"]);
        send(&mut cx, &mut queues, &mut members);
        assert_eq!(asked(&mut cx), ["RPUSH"]);
    }

    #[test]
    fn members_that_change_while_they_are_read_are_read_again_once() {
        let (mut cx, mut arrivals, mut queues, mut members) = parts();
        for _ in 0..3 {
            members.load(&mut cx);
        }
        assert_eq!(asked(&mut cx), ["HGETALL"]);
        let replies = hash(&cx);
        members.read(&mut cx, &mut arrivals, &mut queues, replies);
        assert_eq!(asked(&mut cx), ["HGETALL"]);
        let replies = hash(&cx);
        members.read(&mut cx, &mut arrivals, &mut queues, replies);
        assert_eq!(asked(&mut cx).len(), 0);
    }

    #[test]
    fn what_waits_for_members_that_cannot_be_read_fails() {
        let (mut cx, _, mut queues, mut members) = parts();
        send(&mut cx, &mut queues, &mut members);
        members.not_loaded(&mut cx, &Fault::new(FaultKind::Lost, "lost"));
        let answers = cx.calls.take_answers();
        assert!(matches!(answers.as_slice(), [(1, answer)] if answer.fault.is_some()));
        assert!(members.is_idle());
    }
}
