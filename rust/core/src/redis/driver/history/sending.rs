//! The messages of groups that keep their history, on their way to the streams.
//!
//! A message is added to the stream and published by one transaction. The server gives it its number: the id is
//! `<epoch>-*`. Whoever writes must know the epoch, and so asks for the newest entry first: it goes on in that epoch, or begins a
//! new one where there is no stream. It asks again whenever what it knows proves wrong:
//!
//! - the stream is gone (nothing was added, because of `NOMKSTREAM`), or there is a higher epoch;
//! - the number is not above those before it: the stream was lost, and another one is there. Its epoch is left, so that no
//!   position of the former one is taken for one of this;
//! - the connection was lost, or the stream was not written to for so long that it may have ended.
//!
//! Until there is an answer all messages for that stream wait, so that those of one sender are kept in their order; what is not to be
//! kept waits with them, and is published alone. A message that was
//! published and not kept is written again with the same number, by which the listeners know it.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::limits::{Limits, limits};
use super::rows::{Row, done, rows};
use crate::history::{Position, Stamp};
use crate::redis::driver::calls::CallId;
use crate::redis::driver::context::Context;
use crate::redis::driver::history_then::HistoryThen;
use crate::redis::driver::publishing::Published;
use crate::redis::driver::queues::HOUR;
use crate::redis::driver::reply::{bytes, integer};
use crate::redis::driver::request::{Request, Then};
use crate::redis::fault::{Fault, FaultKind};
use crate::redis::host::Host;
use crate::redis::link::{Command, Refusal, Reply};
use crate::redis::meter::{count, smooth};
use crate::redis::random;
use crate::redis::wire::envelope::Draft;
use crate::redis::wire::history::{EntryId, FIELD, Identity, new_epoch};
use crate::shrink::Shrink;

/// How many streams are remembered before those are forgotten to which nothing is on its way.
const STREAMS: usize = 65_536;

/// The streams that this process writes to.
#[derive(Debug, Default)]
pub(super) struct Sending {
    streams: HashMap<String, Stream>,
    /// How many messages wait for an epoch.
    waiting: usize,
}

#[derive(Debug)]
struct Stream {
    /// The epoch to write in, if it is known.
    epoch: Option<u64>,
    /// The highest number that is known to be in it.
    highest: Option<u64>,
    /// The latest epoch that was written in: a new one is above it.
    latest: Option<u64>,
    /// The epoch of the newest entry is not to be gone on with.
    leaves: bool,
    asking: bool,
    waiting: Vec<Write>,
    /// How many messages were written that the server has not answered.
    unanswered: usize,
    /// When the end of the stream is to be set again.
    renew: Instant,
    used: Instant,
}

/// A message to be written.
#[derive(Debug)]
struct Write {
    draft: Draft,
    call: CallId,
    at: Instant,
    until: Instant,
}

/// What became of a message.
enum Outcome {
    Kept(EntryId),
    /// It was published and not kept: there is no stream, or the epoch is over.
    NotKept,
    Failed(Fault),
}

impl Outcome {
    fn of(added: Option<Reply>) -> Self {
        let refusal = added.as_ref().and_then(Refusal::of);
        match (added, refusal) {
            (_, Some(refusal)) if refusal.detail.contains("equal or smaller") => Self::NotKept,
            (_, Some(refusal)) => Self::Failed(refusal.into_fault()),
            (Some(Reply::Nil), None) => Self::NotKept,
            (added, None) => {
                let id = added.and_then(bytes);
                let id = id.and_then(|id| EntryId::parse(&id));
                id.map_or_else(|| Self::Failed(no_answer()), Self::Kept)
            }
        }
    }
}

pub(super) fn no_answer() -> Fault {
    let text = "the server did not answer a transaction as Redis does: is there a proxy before it that allows none?";
    Fault::new(FaultKind::Refused, text)
}

impl Stream {
    fn new(now: Instant) -> Self {
        Self {
            epoch: None,
            highest: None,
            latest: None,
            leaves: false,
            asking: false,
            waiting: Vec::new(),
            unanswered: 0,
            renew: now,
            used: now,
        }
    }

    fn is_idle(&self) -> bool {
        !self.asking && self.waiting.is_empty()
    }

    fn forget_epoch(&mut self) {
        self.epoch = None;
        self.highest = None;
    }

    /// Notes the number of a message; if it cannot follow those before it, another stream is there.
    fn note(&mut self, id: EntryId) {
        if self.epoch != Some(id.epoch) {
            return;
        }
        if self.highest.is_some_and(|highest| id.number <= highest) {
            self.forget_epoch();
            self.leaves = true;
        } else {
            self.highest = Some(id.number);
        }
    }

    /// Chooses the epoch to write in, by the newest entry; returns whether it is a new one.
    fn choose(&mut self, newest: Option<EntryId>, milliseconds: u64) -> bool {
        let leaves = std::mem::take(&mut self.leaves);
        if let Some(newest) = newest.filter(|_| !leaves) {
            self.epoch = Some(newest.epoch);
            self.highest = Some(newest.number);
            return false;
        }
        let above = newest.map(|newest| newest.epoch).max(self.latest);
        let drawn = random::below(1024) as u64;
        self.epoch = Some(new_epoch(milliseconds, drawn, above));
        self.highest = None;
        true
    }
}

impl Sending {
    /// Adds a message to the stream of its group, unless it is not to be kept, and publishes it. Its number is set.
    pub(super) fn send<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        group: &str,
        draft: Draft,
        call: CallId,
    ) {
        let Some(limits) = limits(cx, group) else {
            return;
        };
        let streams = &self.streams;
        if !draft.is_kept() && streams.get(group).is_none_or(Stream::is_idle) {
            let topic = cx.keys.group(group);
            cx.publish(group, &topic, Published::Group, draft, call);
            return;
        }
        if draft.is_kept() {
            count(&cx.shared.meter.bytes_out, draft.len() as u64);
        }
        let until = cx.add_part(call);
        let write = Write {
            draft,
            call,
            at: cx.now,
            until,
        };
        self.make_room();
        if !self.streams.contains_key(group) {
            self.streams.insert(group.to_owned(), Stream::new(cx.now));
        }
        let Some(stream) = self.streams.get_mut(group) else {
            return;
        };
        if stream.used + limits.ttl <= cx.now {
            // It may have ended: then a message would be published, and not kept.
            stream.forget_epoch();
        }
        stream.used = cx.now;
        match stream.epoch {
            Some(epoch) if stream.is_idle() => {
                write_to(cx, group, limits, stream, (epoch, false), write);
            }
            _ => self.wait(cx, group, write),
        }
    }

    fn make_room(&mut self) {
        if self.streams.len() >= STREAMS {
            self.streams.retain(|_, stream| !stream.is_idle());
        }
    }

    /// Has a message wait until the epoch is known.
    fn wait<H: Host>(&mut self, cx: &mut Context<H>, group: &str, write: Write) {
        if let Some(stream) = self.streams.get_mut(group) {
            stream.waiting.push(write);
            self.waiting += 1;
            if !std::mem::replace(&mut stream.asking, true) {
                let group = group.to_owned();
                let request = newest(
                    cx,
                    &group,
                    HistoryThen::Newest {
                        group: group.clone(),
                    },
                );
                cx.submit(request);
            }
        }
    }

    /// The newest entry of a stream is known: those that waited are written behind it.
    pub(super) fn chosen<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        group: &str,
        replies: Vec<Reply>,
    ) {
        let newest = newest_of(done(replies)).map(|row| row.id);
        let milliseconds = milliseconds(cx, group);
        let Some(limits) = limits(cx, group) else {
            return;
        };
        let Some(stream) = self.streams.get_mut(group) else {
            return;
        };
        stream.asking = false;
        let mut waiting = std::mem::take(&mut stream.waiting);
        self.waiting = self.waiting.saturating_sub(waiting.len());
        let now = cx.now;
        for write in waiting.extract_if(.., |write| write.until <= now) {
            let fault = cx.servers.unreachable();
            give_up(cx, write.call, &fault);
        }
        waiting.sort_by_key(|write| Identity::of(write.draft.bytes()).map(|known| known.sequence));
        let keeps = waiting.iter().any(|write| write.draft.is_kept());
        let mut creates = keeps && stream.choose(newest, milliseconds);
        for write in waiting {
            match stream.epoch.filter(|_| write.draft.is_kept()) {
                Some(epoch) => {
                    let creates = std::mem::take(&mut creates);
                    write_to(cx, group, limits, stream, (epoch, creates), write);
                }
                None => publish(cx, group, write),
            }
        }
    }

    /// The newest entry cannot be had.
    pub(super) fn not_chosen<H: Host>(&mut self, cx: &mut Context<H>, group: &str, fault: &Fault) {
        let Some(stream) = self.streams.get_mut(group) else {
            return;
        };
        stream.asking = false;
        for write in std::mem::take(&mut stream.waiting) {
            self.waiting = self.waiting.saturating_sub(1);
            if write.draft.is_kept() || write.until <= cx.now {
                give_up(cx, write.call, fault);
            } else {
                publish(cx, group, write);
            }
        }
    }

    /// A message was published, and kept if there was a stream of its epoch.
    pub(super) fn written<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        then: HistoryThen,
        replies: Vec<Reply>,
        carried: Bytes,
    ) {
        let HistoryThen::Written {
            group,
            epoch,
            call,
            at,
            until,
            identity,
            digest,
        } = then
        else {
            return;
        };
        if let Some(stream) = self.streams.get_mut(&group) {
            stream.unanswered = stream.unanswered.saturating_sub(1);
        }
        let mut done = done(replies).into_iter();
        let outcome = Outcome::of(done.next());
        let receivers = integer(done.next().as_ref());
        match outcome {
            Outcome::Kept(id) => {
                count(&cx.shared.meter.published, 1);
                smooth(&cx.shared.meter.publish_latency, cx.now - at);
                let position = Position {
                    epoch: id.epoch,
                    number: id.number,
                    print: identity.map_or(0, Identity::print),
                };
                cx.calls.complete_part(call, |answer| {
                    answer.receivers += receivers;
                    answer.position = Some(Stamp::new(&group, position));
                });
                if let Some(stream) = self.streams.get_mut(&group) {
                    stream.note(id);
                }
            }
            Outcome::NotKept => {
                let stream = self.streams.entry(group.clone());
                let stream = stream.or_insert_with(|| Stream::new(cx.now));
                if stream.epoch == Some(epoch) {
                    stream.forget_epoch();
                }
                stream.latest = stream.latest.max(Some(epoch));
                let draft = Draft::again(carried, digest);
                let write = Write {
                    draft,
                    call,
                    at,
                    until,
                };
                self.wait(cx, &group, write);
            }
            Outcome::Failed(fault) => give_up(cx, call, &fault),
        }
    }

    /// It is not known whether a message was kept, or it was not.
    pub(super) fn not_written(&mut self, group: &str, now: Instant) {
        if let Some(stream) = self.streams.get_mut(group) {
            stream.renew = now;
            stream.unanswered = stream.unanswered.saturating_sub(1);
        }
    }

    /// A server is back: what was known of its streams counts no longer.
    pub(super) fn forget_epochs(&mut self) {
        self.streams.values_mut().for_each(Stream::forget_epoch);
    }

    pub(super) fn has_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// Whether messages of this process stand behind an entry, or may.
    pub(super) fn is_ahead(&self, group: &str, last: EntryId) -> bool {
        self.streams.get(group).is_some_and(|stream| {
            let newest = stream.epoch.zip(stream.highest);
            let newest = newest.map(|(epoch, number)| EntryId { epoch, number });
            stream.unanswered > 0 || !stream.is_idle() || newest.is_some_and(|id| id > last)
        })
    }

    /// Forgets the streams whose epoch would be asked for again anyway.
    pub(super) fn look_after<H: Host>(&mut self, cx: &Context<H>) {
        self.streams.retain(|group, stream| {
            let ttl = limits(cx, group).map_or(Duration::ZERO, |limits| limits.ttl);
            !stream.is_idle() || cx.now < stream.used + ttl
        });
        self.streams.shrink_if_sparse();
    }
}

/// A message was not sent.
fn give_up<H: Host>(cx: &mut Context<H>, call: CallId, fault: &Fault) {
    count(&cx.shared.meter.unsent, 1);
    cx.calls.fail(call, fault.clone());
}

/// Publishes a message that has waited, and is not to be kept.
fn publish<H: Host>(cx: &mut Context<H>, group: &str, write: Write) {
    let topic = cx.keys.group(group);
    let Write { draft, call, .. } = write;
    cx.publish(group, &topic, Published::Group, draft, call);
    // The part of the call that has waited.
    cx.calls.done(call);
}

fn write_to<H: Host>(
    cx: &mut Context<H>,
    group: &str,
    limits: Limits,
    stream: &mut Stream,
    (epoch, creates): (u64, bool),
    write: Write,
) {
    let Write {
        mut draft,
        call,
        at,
        until,
    } = write;
    stream.latest = stream.latest.max(Some(epoch));
    stream.unanswered += 1;
    draft.epoch(epoch);
    let then = HistoryThen::Written {
        group: group.to_owned(),
        epoch,
        call,
        at,
        until,
        identity: Identity::of(draft.bytes()),
        digest: draft.digest(),
    };
    let (key, topic) = (cx.keys.history(group), cx.keys.group(group));
    let add = Command::with_capacity("XADD", 9).text(&key);
    let add = if creates { add } else { add.word("NOMKSTREAM") };
    // By the block: a search for the last entry to go would take the server as long as all the rest, and free no memory.
    let add = add.word("MAXLEN").word("~").number(limits.size);
    let add = add
        .text(format!("{epoch}-*"))
        .word(FIELD)
        .kept(draft, &topic);
    let mut commands = vec![add, Command::publish(&topic).bytes(Bytes::new())];
    if creates || stream.renew <= cx.now {
        stream.renew = cx.now + limits.ttl / 2;
        commands.push(limits.expire(&key));
    }
    let renews = commands.len() > 2;
    let request = Request::new(group, &topic, commands, until, Then::History(then));
    cx.submit(request.atomic());
    if renews {
        index(cx, group);
    }
}

/// Puts the name of a stream where `flush` finds it, whenever its end is set. No name of a queue begins with a colon.
pub(super) fn index<H: Host>(cx: &mut Context<H>, group: &str) {
    let key = cx.keys.index(cx.shared.now() / HOUR);
    let lasts = cx.index_ms().saturating_add(2 * HOUR);
    let commands = vec![
        Command::new("SADD").text(&key).text(format!(":{group}")),
        Command::expire(&key, lasts),
    ];
    cx.submit(Request::new("", &key, commands, cx.until(), Then::Ignored).safe());
}

/// The request for the newest entry of a stream. It is a transaction, so that a server that allows none refuses it before
/// anything is written.
pub(super) fn newest<H: Host>(cx: &Context<H>, group: &str, then: HistoryThen) -> Request {
    let key = cx.keys.history(group);
    let command = newest_command(&key);
    let request = Request::new(group, &key, vec![command], cx.until(), Then::History(then));
    request.atomic().safe()
}

pub(super) fn newest_command(key: &str) -> Command {
    let command = Command::new("XREVRANGE").text(key).word("+").word("-");
    command.word("COUNT").word("1")
}

/// The newest entry, of the last answer.
pub(super) fn newest_of(replies: Vec<Reply>) -> Option<Row> {
    let last = replies.into_iter().next_back();
    last.map(rows).and_then(|rows| rows.into_iter().next())
}

/// The time at the server of a group, in milliseconds since the epoch.
pub(super) fn milliseconds<H: Host>(cx: &Context<H>, group: &str) -> u64 {
    let key = cx.keys.history(group);
    let there = cx.servers.time_at_key(group, &key, cx.now);
    there.unwrap_or_else(|| cx.shared.now())
}

#[cfg(test)]
mod tests;
