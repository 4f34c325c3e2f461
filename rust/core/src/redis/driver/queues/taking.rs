//! Taking messages out of queues: as many as receivers wait here, acknowledged when they have come.

use bytes::Bytes;

use super::entry::id;
use super::queue::DeferredFetch;
use super::{Queues, expired, take, time_at};
use crate::redis::driver::calls::CallId;
use crate::redis::driver::context::Context;
use crate::redis::driver::node_key::NodeKey;
use crate::redis::driver::refusals::{MISPLACED, Origin};
use crate::redis::driver::reply::{bytes, integer, words};
use crate::redis::driver::request::{Request, Then};
use crate::redis::fault::Fault;
use crate::redis::host::Host;
use crate::redis::link::{Command, Reply};
use crate::redis::meter::count;
use crate::redis::wire::envelope::{self, Body, DecodedEnvelope};
use crate::redis::wire::keys::hash_slot;

/// How many entries are taken with one request at most.
const MOST: usize = 64;

/// Where entries come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// The queue, which holds each once.
    Queue,
    /// The list of entries that this process took. It may have received some of them already.
    Taken,
}

impl Queues {
    /// How many receivers here wait for messages that have not been asked for.
    fn missing<H: Host>(&self, cx: &Context<H>, channel: &str) -> usize {
        let fetching = self.queues.get(channel).map_or(0, |queue| queue.fetching);
        cx.local.waiters(channel).saturating_sub(fetching)
    }

    /// Takes as many entries as receivers wait here. Entries that were moved to our list and perhaps never arrived are older, so they are
    /// read first.
    pub(crate) fn fetch<H: Host>(&mut self, cx: &mut Context<H>, channel: &str) {
        if self.queues.get(channel).is_some_and(|queue| queue.unsure) {
            self.recover(cx, channel);
            return;
        }
        let missing = self.missing(cx, channel);
        if missing > 0 {
            self.ask_entries(cx, channel, missing, None);
        }
    }

    /// A queue has entries. Earlier requests for entries do not count: they may find the queue as it was.
    pub(crate) fn woken<H: Host>(&mut self, cx: &mut Context<H>, channel: &str) {
        if let Some(queue) = self.queues.get_mut(channel) {
            queue.woken = queue.fetching > 0;
        }
        self.fetch(cx, channel);
    }

    /// Asks again for the entries that were asked for before the wake-up, and have not come.
    fn fetch_again_if_woken<H: Host>(&mut self, cx: &mut Context<H>, channel: &str) {
        let missing = self.missing(cx, channel);
        let Some(queue) = self.queues.get_mut(channel) else {
            return;
        };
        if queue.woken && (missing > 0 || queue.fetching == 0) {
            queue.woken = false;
            self.fetch(cx, channel);
        }
    }

    /// Takes entries whether anybody waits or not, as many as there is room for here. What was taken before and may not have
    /// come is read first.
    pub(crate) fn fetch_for<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        channel: &str,
        most: usize,
        call: CallId,
    ) {
        if let Some(queue) = self.queues.get_mut(channel).filter(|queue| queue.unsure) {
            queue.held.push(DeferredFetch { most, call });
            self.recover(cx, channel);
            return;
        }
        let fetching = self.queues.get(channel).map_or(0, |queue| queue.fetching);
        let room = cx.local.capacity_of(channel) + cx.local.waiters(channel);
        let most = most.min(room.saturating_sub(cx.local.depth(channel) + fetching));
        if most == 0 || cx.local.has_all_its_bytes(channel) {
            cx.calls.done(call);
            return;
        }
        self.ask_entries(cx, channel, most, Some(call));
    }

    fn ask_entries<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        channel: &str,
        entries: usize,
        call: Option<CallId>,
    ) {
        let asked = entries.min(MOST);
        self.queue(channel).fetching += asked;
        let key = cx.keys.queue(channel);
        let mut commands = vec![take(cx, channel); asked];
        let taken = cx.keys.taken(channel, cx.me);
        commands.push(Command::expire(taken, cx.expiry_ms()));
        commands.push(Command::new("LLEN").text(&key));
        let then = Then::Fetched {
            channel: channel.to_owned(),
            asked,
            call,
        };
        cx.submit(Request::new(channel, &key, commands, cx.until(), then));
    }

    /// Entries were asked for, and how long the queue is.
    pub(crate) fn fetched<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        (channel, asked, call): (&str, usize, Option<CallId>),
        mut replies: Vec<Reply>,
    ) {
        let depth = integer(replies.pop().as_ref());
        replies.truncate(asked);
        let took = self.took(cx, channel, asked, replies);
        self.note_depth(cx, channel, depth);
        if let Some(call) = call {
            cx.calls.complete_part(call, |answer| answer.queued += took);
        }
        if depth > 0 {
            self.fetch(cx, channel);
        }
    }

    /// The answer to a request for entries was lost, and perhaps not the entries.
    pub(crate) fn fetch_failed(&mut self, channel: &str, asked: usize) {
        if let Some(queue) = self.queues.get_mut(channel) {
            queue.fetching = queue.fetching.saturating_sub(asked);
            queue.unsure = true;
        }
    }

    /// Entries that were asked for have come, or there were none; counts those that came.
    pub(super) fn took<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        channel: &str,
        asked: usize,
        replies: Vec<Reply>,
    ) -> u64 {
        if let Some(queue) = self.queues.get_mut(channel) {
            queue.fetching = queue.fetching.saturating_sub(asked);
        }
        let taken = replies.into_iter().filter_map(bytes);
        let taken: Vec<Bytes> = taken.map(Bytes::from).collect();
        let count = taken.len() as u64;
        self.deliver_entries(cx, channel, taken, Source::Queue);
        self.fetch_again_if_woken(cx, channel);
        count
    }

    /// Puts entries into the local mailbox, and removes them from the list of what was taken.
    fn deliver_entries<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        channel: &str,
        entries: Vec<Bytes>,
        source: Source,
    ) {
        if entries.is_empty() {
            return;
        }
        let (key, taken) = (cx.keys.queue(channel), cx.keys.taken(channel, cx.me));
        let mut acknowledged = Vec::with_capacity(entries.len());
        let mut commands = Vec::with_capacity(entries.len());
        for entry in entries {
            let removal = Command::new("LREM").text(&taken).number(1);
            commands.push(removal.bytes(entry.clone()));
            let Some(id) = id(&entry) else {
                let reason = "it is shorter than the header of an envelope";
                cx.refuse_content(Origin::at(&key), reason, "");
                continue;
            };
            acknowledged.push(id);
            let from = Origin::of(envelope::sender(&entry), &key);
            let queue = self.queue(channel);
            queue.came = Some(cx.now);
            if queue.has_come(id) {
                deliver_entry(cx, channel, from, id, entry);
            } else if source == Source::Queue && cx.settings.crypt.is_some() {
                cx.refusals.refuse_replay(&cx.shared, from);
            }
        }
        let then = Then::Acknowledged {
            channel: channel.to_owned(),
            entries: acknowledged,
        };
        cx.submit(Request::new(channel, &taken, commands, cx.until(), then).safe());
    }

    pub(crate) fn acknowledged(&mut self, channel: &str, entries: &[u64]) {
        if let Some(queue) = self.queues.get_mut(channel) {
            queue.acknowledged(entries);
        }
    }

    /// Reads the entries that a server moved before the connection broke.
    pub(crate) fn recover_taken<H: Host>(&mut self, cx: &mut Context<H>, node: &NodeKey) {
        let is_there = |channel: &&String| {
            let slot = hash_slot(cx.keys.queue(channel).as_bytes());
            cx.servers.map().node_of(channel, slot).as_ref() == Some(node)
        };
        let channels: Vec<String> = self.queues.keys().filter(is_there).cloned().collect();
        for channel in channels {
            // A read that was lost with the connection does not count.
            self.queue(&channel).recovering = false;
            self.recover(cx, &channel);
        }
    }

    /// The list of taken entries could not be read.
    pub(crate) fn not_recovered<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        channel: &str,
        fault: &Fault,
    ) {
        let Some(queue) = self.queues.get_mut(channel) else {
            return;
        };
        queue.recovering = false;
        for DeferredFetch { call, .. } in std::mem::take(&mut queue.held) {
            cx.calls.fail(call, fault.clone());
        }
    }

    /// Asks for the list of what was taken. Where there is no connection the request waits, and has one be made: the queue may
    /// be at a server now that nothing else is asked of.
    pub(super) fn recover<H: Host>(&mut self, cx: &mut Context<H>, channel: &str) {
        let Some(queue) = self.queues.get_mut(channel) else {
            return;
        };
        if std::mem::replace(&mut queue.recovering, true) {
            return;
        }
        let taken = cx.keys.taken(channel, cx.me);
        let command = Command::new("LRANGE").text(&taken).number(0).number(-1);
        let then = Then::Recovered {
            channel: channel.to_owned(),
        };
        let request = Request::new(channel, &taken, vec![command], cx.until(), then);
        cx.submit(request.safe().urgent());
    }

    pub(crate) fn recovered<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        channel: &str,
        replies: Vec<Reply>,
    ) {
        let held = self.queues.get_mut(channel).map(|queue| {
            queue.unsure = false;
            queue.recovering = false;
            std::mem::take(&mut queue.held)
        });
        let before = cx.local.depth(channel);
        let entries = words(replies).into_iter().filter_map(bytes);
        let entries = entries.map(Bytes::from).collect();
        self.deliver_entries(cx, channel, entries, Source::Taken);
        // The entries count for the calls that were deferred.
        let mut here = cx.local.depth(channel).saturating_sub(before);
        for DeferredFetch { most, call } in held.unwrap_or_default() {
            self.fetch_for(cx, channel, most.saturating_sub(here), call);
            here = here.saturating_sub(most);
        }
        self.fetch(cx, channel);
    }
}

fn deliver_entry<H: Host>(
    cx: &mut Context<H>,
    channel: &str,
    from: Origin<'_>,
    id: u64,
    entry: Bytes,
) {
    count(&cx.shared.meter.bytes_in, entry.len() as u64);
    if cx.is_oversized(from.place, entry.len()) {
        return;
    }
    let envelope = match envelope::decode(entry, from.place, cx.settings.crypt.as_deref()) {
        Ok(envelope) => envelope,
        Err(malformed) => {
            cx.refusals.refuse(&cx.shared, from, malformed);
            return;
        }
    };
    let DecodedEnvelope {
        header,
        body,
        authenticated,
    } = envelope;
    if header.deadline <= time_at(cx, channel) {
        expired(cx, channel, 1);
        return;
    }
    if authenticated && !cx.refusals.is_taken_once(&cx.shared, from, id) {
        return;
    }
    match body {
        Body::Group { payload, .. } | Body::Kept { payload, .. } | Body::Direct { payload, .. } => {
            count(&cx.shared.meter.fetched, 1);
            cx.deliver_taken(channel, payload, from);
        }
        Body::Control(_) => cx.refuse_content(from, MISPLACED, ""),
    }
}
