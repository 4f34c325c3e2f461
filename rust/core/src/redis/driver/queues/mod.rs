//! Plain channels: queues on the server, each message to exactly one receiver of the fleet.
//!
//! A queue is a list. A sender pushes at its end and learns how long it is now; if that is more than the capacity it
//! takes its own entry out again; if another process took it before, the message was delivered. So the capacity is exact
//! without a script, which serverless endpoints do not run. No process blocks on a list: a wake-up (a message on a
//! pub/sub channel) reports that there are entries, and a look every second makes up for a wake-up that was missed.
//!
//! A process takes no more than it has receivers that wait, by moving entries to a list of its own, from which it removes
//! them as soon as it has them. If the connection breaks in between, that list holds the entries that did not arrive, and
//! is read when the connection is back. The server drops the list of a process that was killed after the expiry: delivery
//! is at most once, as the specification requires.

use std::collections::HashMap;

use bytes::Bytes;

use self::entry::deadline;
use self::queue::Queue;
use super::calls::CallId;
use super::context::Context;
use super::reply::{bytes, integer, words};
use super::request::{Pushed, Request, Then};
use crate::redis::host::Host;
use crate::redis::link::{Command, Reply};
use crate::redis::meter::count;
use crate::redis::notice::Notice;
use crate::redis::wire::envelope::Draft;
use crate::shrink::Shrink;

mod audit;
mod entry;
mod queue;
mod taking;

/// How many of the oldest entries of a full queue are looked at, to find some that have expired.
const OLDEST: i64 = 16;
/// Milliseconds of an hour: what was pushed to in one is in an index of its own.
pub(super) const HOUR: u64 = 3_600_000;

#[derive(Debug, Default)]
pub(super) struct Queues {
    queues: HashMap<String, Queue>,
    /// Counts the looks at how long a queue is.
    looks: u64,
}

/// What moves the oldest entry of a queue to the list of what this process took.
fn take<H: Host>(cx: &Context<H>, channel: &str) -> Command {
    Command::new("LMOVE")
        .text(cx.keys.queue(channel))
        .text(cx.keys.taken(channel, cx.me))
        .word("LEFT")
        .word("RIGHT")
}

/// Wakes the processes that wait for entries of a queue.
fn wake<H: Host>(cx: &Context<H>, channel: &str) -> Command {
    Command::publish(cx.keys.wake(channel)).bytes(Bytes::new())
}

/// Asks for the entries that have no place in a queue. Several senders may remove the same expired ones, so
/// the length of the queue does not show whose entry has a place.
fn beyond<H: Host>(cx: &Context<H>, channel: &str) -> Command {
    Command::new("LRANGE")
        .text(cx.keys.queue(channel))
        .number(cx.local.capacity_of(channel))
        .number(-1)
}

/// The time at the server of a queue, in milliseconds since the epoch.
fn time_at<H: Host>(cx: &Context<H>, channel: &str) -> u64 {
    let time = cx
        .servers
        .time_at_key(channel, &cx.keys.queue(channel), cx.now);
    time.unwrap_or_else(|| cx.shared.now())
}

/// Messages were in a queue until they expired.
fn expired<H: Host>(cx: &Context<H>, channel: &str, messages: u64) {
    count(&cx.shared.meter.queue_expired, messages);
    if messages > 0 {
        cx.shared.notices.push_once(Notice::QueueExpired {
            channel: channel.to_owned(),
        });
    }
}

fn withdraw<H: Host>(cx: &mut Context<H>, pushed: Pushed) {
    let key = cx.keys.queue(&pushed.channel);
    let own = pushed.entry.clone();
    let command = Command::new("LREM").text(&key).number(-1).bytes(own);
    let name = pushed.channel.clone();
    let then = Then::Withdrawn(pushed);
    cx.submit(Request::new(&name, &key, vec![command], cx.until(), then));
}

impl Queues {
    fn queue(&mut self, channel: &str) -> &mut Queue {
        self.queues.entry(channel.to_owned()).or_default()
    }

    pub(super) fn push<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        channel: &str,
        entry: Draft,
        call: CallId,
    ) {
        count(&cx.shared.meter.bytes_out, entry.len() as u64);
        self.index(cx, channel);
        let key = cx.keys.queue(channel);
        let expiry = cx.expiry_ms();
        let mut commands = vec![
            Command::new("RPUSH").text(&key).envelope(entry),
            Command::expire(&key, expiry),
            wake(cx, channel),
        ];
        // If a receiver waits here, the first entry is taken at once, which saves the round trip of the wake-up. Earlier
        // requests do not count: they were done before this push, and cannot have taken its entry.
        let waiting = cx.local.waiters(channel);
        let queue = self.queue(channel);
        let follows = waiting > queue.following && !queue.unsure;
        if follows {
            queue.following += 1;
            queue.fetching += 1;
            commands.push(take(cx, channel));
            commands.push(Command::expire(cx.keys.taken(channel, cx.me), expiry));
        }
        let until = cx.add_part(call);
        let pushed = Pushed {
            channel: channel.to_owned(),
            entry: Bytes::new(),
            length: 0,
            call,
            follows,
        };
        let then = Then::Queued(pushed);
        cx.submit(Request::new(channel, &key, commands, until, then));
    }

    /// Puts the name of a queue where `flush` finds it.
    fn index<H: Host>(&mut self, cx: &mut Context<H>, channel: &str) {
        let hour = cx.shared.now() / HOUR;
        if self.queue(channel).indexed.replace(hour) == Some(hour) {
            return;
        }
        let key = cx.keys.index(hour);
        let commands = vec![
            Command::new("SADD").text(&key).text(channel),
            Command::expire(&key, cx.index_ms().saturating_add(2 * HOUR)),
        ];
        let then = Then::Indexed {
            channel: channel.to_owned(),
        };
        cx.submit(Request::new("", &key, commands, cx.until(), then).safe());
    }

    /// It is not in the index: the next message for the queue puts it there.
    pub(super) fn index_failed(&mut self, channel: &str) {
        if let Some(queue) = self.queues.get_mut(channel) {
            queue.indexed = None;
        }
    }

    /// A server that is back may have lost the index.
    pub(super) fn index_anew(&mut self) {
        for queue in self.queues.values_mut() {
            queue.indexed = None;
        }
    }

    /// An entry was pushed.
    pub(super) fn queued<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        (mut pushed, entry): (Pushed, Bytes),
        replies: Vec<Reply>,
    ) {
        pushed.entry = entry;
        let mut replies = replies.into_iter();
        pushed.length = integer(replies.next().as_ref());
        let taken: Vec<Reply> = replies.skip(2).take(1).collect();
        let (channel, length) = (pushed.channel.clone(), pushed.length);
        if let Some(queue) = self.queues.get_mut(&channel) {
            queue.following = queue.following.saturating_sub(taken.len());
        }
        if length > cx.local.capacity_of(&channel) as u64 {
            let key = cx.keys.queue(&channel);
            let commands = vec![
                Command::new("LRANGE")
                    .text(&key)
                    .number(0)
                    .number(OLDEST - 1),
                beyond(cx, &channel),
            ];
            let then = Then::Oldest(pushed);
            cx.submit(Request::new(&channel, &key, commands, cx.until(), then));
            self.took(cx, &channel, taken.len(), taken);
            return;
        }
        self.accept(cx, &pushed);
        let took = self.took(cx, &channel, taken.len(), taken);
        self.note_depth(cx, &channel, length.saturating_sub(took));
    }

    fn accept<H: Host>(&mut self, cx: &mut Context<H>, pushed: &Pushed) {
        count(&cx.shared.meter.queued, 1);
        self.note_depth(cx, &pushed.channel, pushed.length);
        cx.calls
            .complete_part(pushed.call, |answer| answer.queued += 1);
    }

    fn note_depth<H: Host>(&mut self, cx: &Context<H>, channel: &str, depth: u64) {
        let mut depths = cx.shared.depths.lock();
        if depth == 0 {
            depths.remove(channel);
        } else {
            depths.insert(channel.to_owned(), depth);
            // What is known of it may have been forgotten while the answer was on its way; it is looked at from now on.
            self.queue(channel);
        }
    }

    /// The queue was full. Removes entries that have expired; if there are none, the new one is withdrawn.
    pub(super) fn prune<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        pushed: Pushed,
        mut replies: Vec<Reply>,
    ) {
        let beyond_now = replies.pop();
        let key = cx.keys.queue(&pushed.channel);
        let now = time_at(cx, &pushed.channel);
        let oldest = words(replies).into_iter().filter_map(bytes);
        let expired = oldest.filter(|entry| deadline(entry).is_some_and(|end| end <= now));
        let remove = |entry: Vec<u8>| {
            let command = Command::new("LREM").text(&key).number(1);
            command.bytes(entry.into())
        };
        let mut commands: Vec<Command> = expired.map(remove).collect();
        if commands.is_empty() {
            self.accept_or_withdraw(cx, pushed, beyond_now);
            return;
        }
        commands.push(beyond(cx, &pushed.channel));
        let name = pushed.channel.clone();
        let then = Then::Pruned(pushed);
        cx.submit(Request::new(&name, &key, commands, cx.until(), then).safe());
    }

    pub(super) fn pruned<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        mut pushed: Pushed,
        mut replies: Vec<Reply>,
    ) {
        let beyond = replies.pop();
        let removed = replies.iter().map(|reply| integer(Some(reply))).sum();
        expired(cx, &pushed.channel, removed);
        pushed.length = pushed.length.saturating_sub(removed);
        self.accept_or_withdraw(cx, pushed, beyond);
    }

    fn accept_or_withdraw<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        pushed: Pushed,
        beyond: Option<Reply>,
    ) {
        let beyond = words(beyond.into_iter().collect());
        let mut beyond = beyond.into_iter().filter_map(bytes);
        if beyond.any(|entry| entry == pushed.entry) {
            withdraw(cx, pushed);
        } else {
            self.accept(cx, &pushed);
        }
    }

    pub(super) fn withdrawn<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        pushed: &Pushed,
        replies: &[Reply],
    ) {
        if integer(replies.first()) == 0 {
            // It was taken meanwhile.
            self.accept(cx, pushed);
            return;
        }
        count(&cx.shared.meter.queue_full, 1);
        self.note_depth(cx, &pushed.channel, pushed.length.saturating_sub(1));
        cx.calls
            .complete_part(pushed.call, |answer| answer.full += 1);
    }

    /// A push has failed, and perhaps what was asked for behind it.
    pub(super) fn push_failed(&mut self, pushed: &Pushed) {
        if let Some(queue) = self
            .queues
            .get_mut(&pushed.channel)
            .filter(|_| pushed.follows)
        {
            queue.following = queue.following.saturating_sub(1);
            queue.fetching = queue.fetching.saturating_sub(1);
            queue.unsure = true;
        }
    }

    pub(super) fn shrink_if_sparse(&mut self) {
        self.queues.shrink_if_sparse();
    }
}

#[cfg(test)]
mod tests;
