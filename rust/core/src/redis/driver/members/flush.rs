//! The end of everything that the layer has on the servers, and of a queue that is closed.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::super::calls::CallId;
use super::super::context::Context;
use super::super::queues::{HOUR, Queues};
use super::super::reply::{integer, text, words};
use super::super::request::{Request, Then};
use crate::redis::host::Host;
use crate::redis::link::{Command, Reply};
use crate::redis::meter::count;
use crate::redis::wire::envelope::Control;

/// By how many milliseconds the clock of a server may differ from that of the server that takes its place.
pub(super) const MARGIN: u64 = 60_000;
/// How far back `flush` looks for queues, in milliseconds: a month, however long messages live.
const OLDEST_INDEX: u64 = 31 * 24 * HOUR;

/// The request that removes a queue and what it holds.
pub(super) fn removal<H: Host>(cx: &Context<H>, channel: &str, call: CallId) -> Request {
    let (queue, taken) = (cx.keys.queue(channel), cx.keys.taken(channel, cx.me));
    let commands = vec![
        Command::new("LLEN").text(&queue),
        Command::new("DEL").text(&queue),
        Command::new("DEL").text(taken),
    ];
    let then = Then::Removed { call, queue: true };
    Request::new(channel, &queue, commands, cx.until(), then).safe()
}

/// The request that removes the history of a group.
fn history_removal<H: Host>(cx: &Context<H>, group: &str, call: CallId) -> Request {
    let key = cx.keys.history(group);
    let command = Command::new("DEL").text(&key);
    let then = Then::Removed { call, queue: false };
    Request::new(group, &key, vec![command], cx.until(), then).safe()
}

/// Removes the messages and memberships that are here. The process that requested the flush removes what is on the servers.
pub(crate) fn flush_here<H: Host>(cx: &Context<H>, queues: &mut Queues) {
    cx.local.flush();
    cx.shared.plain.lock().clear();
    cx.shared.depths.lock().clear();
    queues.index_anew();
}

/// Removes what the layer has: here, on the servers, and in the other processes. Gives the call, to which other parts may be added
/// at once.
pub(crate) fn flush<H: Host>(
    cx: &mut Context<H>,
    queues: &mut Queues,
    ticket: H::Ticket,
) -> CallId {
    cx.local.flush();
    let call = cx.call(1, Some(ticket));
    if !cx.settings.wire.has_peers() {
        cx.shared.plain.lock().clear();
        cx.calls.done(call);
        return call;
    }
    let hours = index_hours(cx);
    read_index(cx, queues, call, BTreeSet::new(), hours);
    call
}

/// The hours in which a queue that is still there can have been pushed to, by clocks that differ a little.
fn index_hours<H: Host>(cx: &Context<H>) -> RangeInclusive<u64> {
    let now = cx.shared.now();
    let age = cx.index_ms().saturating_add(MARGIN).min(OLDEST_INDEX);
    let oldest = now.saturating_sub(age);
    oldest / HOUR..=now.saturating_add(MARGIN) / HOUR
}

fn read_index<H: Host>(
    cx: &mut Context<H>,
    queues: &mut Queues,
    call: CallId,
    names: BTreeSet<String>,
    mut hours: RangeInclusive<u64>,
) {
    let Some(hour) = hours.next() else {
        remove_queues(cx, queues, call, &names);
        return;
    };
    let key = cx.keys.index(hour);
    let command = Command::new("SMEMBERS").text(&key);
    let then = Then::Index { call, names, hours };
    cx.submit(Request::new("", &key, vec![command], cx.until(), then).safe());
}

/// An hour's names have come; the next hour is asked for, or all that was found is removed.
pub(crate) fn index_read<H: Host>(
    cx: &mut Context<H>,
    queues: &mut Queues,
    (call, mut names, hours): (CallId, BTreeSet<String>, RangeInclusive<u64>),
    replies: Vec<Reply>,
) {
    names.extend(words(replies).into_iter().filter_map(text));
    read_index(cx, queues, call, names, hours);
}

fn remove_queues<H: Host>(
    cx: &mut Context<H>,
    queues: &mut Queues,
    call: CallId,
    channels: &BTreeSet<String>,
) {
    let removals = channels.iter().map(|name| match name.strip_prefix(':') {
        Some(group) => history_removal(cx, group, call),
        None => removal(cx, name, call),
    });
    let mut requests: Vec<Request> = removals.collect();
    let indexes = index_hours(cx).map(|hour| cx.keys.index(hour));
    let indexes = indexes.map(|key| (key, Then::Removed { call, queue: false }));
    let members = (cx.keys.members(), Then::MembersRemoved { call });
    for (key, then) in indexes.chain([members]) {
        let command = Command::new("DEL").text(&key);
        requests.push(Request::new("", &key, vec![command], cx.until(), then).safe());
    }
    cx.calls.add_parts(call, requests.len());
    // Not before: where the names cannot be read nothing is removed.
    cx.shared.plain.lock().clear();
    cx.shared.depths.lock().clear();
    queues.index_anew();
    cx.requests.extend(requests);
    cx.broadcast_control(&Control::Flush, call);
    cx.calls.done(call);
}

/// Part of a flush, or a queue that was closed.
pub(crate) fn removed<H: Host>(cx: &mut Context<H>, call: CallId, queue: bool, replies: &[Reply]) {
    if queue {
        count(&cx.shared.meter.queue_dropped, integer(replies.first()));
    }
    cx.calls.done(call);
}

/// The memberships were removed by a flush: what others announced meanwhile may have been removed with them.
pub(crate) fn members_removed<H: Host>(cx: &mut Context<H>, call: CallId) {
    cx.announce(&Control::MembersChanged, call);
    cx.calls.done(call);
}
