//! The subscriptions of this process: which topics it wants, which the servers have confirmed, and how it gets there.
//!
//! redis-rs can resubscribe by itself. It is done here instead, topic by topic, so that three cases are handled the same
//! way: a slot moves, a server ends a subscription, a connection comes back at another server. In each the topic is
//! wanted and not confirmed, so it is requested again where it belongs now.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use self::needs::{is_used, linger};
use super::calls::CallId;
use super::context::Context;
use super::node::Node;
use super::node_key::NodeKey;
use super::wanted::{Subscription, TopicState, Wanted};
use crate::redis::fault::Fault;
use crate::redis::host::Host;
use crate::redis::link::{Change, Refusal};
use crate::redis::wire::keys::{Topic, hash_slot};
use crate::shrink::Shrink;

mod needs;

/// How long after a subscription is back older messages may come behind newer ones.
const LATE_WINDOW: Duration = Duration::from_secs(5);

/// The topics that are wanted, and who waits for them.
#[derive(Debug, Default)]
pub(super) struct Topics {
    wanted: Wanted,
    /// Who waits for a confirmation, by the time at which that is given up.
    waits: VecDeque<(Instant, String)>,
    /// Topics that may have missed messages since the connection was whole.
    lost: Vec<String>,
    /// Slots have moved, and the topics have not been given their places since.
    to_place: bool,
}

fn node_of<H: Host>(cx: &Context<H>, topic: &str) -> Option<NodeKey> {
    let slot = hash_slot(topic.as_bytes());
    let map = cx.servers.map();
    map.node_of_published(&cx.keys.place(topic), slot)
}

impl Topics {
    /// Subscribes to the topics by which this process is reached.
    pub(super) fn want_own<H: Host>(&mut self, cx: &mut Context<H>) {
        for topic in cx.keys.own(cx.me) {
            self.want(cx, &topic, None);
        }
    }

    /// The server at which a topic is asked for.
    pub(super) fn node_of(&self, topic: &str) -> Option<&NodeKey> {
        self.wanted.get(topic)?.node()
    }

    /// Whether all of the process's own topics are confirmed, and their servers can be sent to; without any, whether all servers
    /// are there.
    pub(super) fn are_connected<H: Host>(&self, cx: &Context<H>) -> bool {
        let own = cx.keys.own(cx.me);
        if own.is_empty() {
            return !cx.servers.is_empty() && cx.servers.are_open();
        }
        let writes = |node: &Node| node.writer.link().is_some();
        own.iter().all(|topic| {
            let state = self.wanted.get(topic);
            let node = state.filter(|state| state.is_confirmed());
            let node = node.and_then(TopicState::node);
            node.and_then(|key| cx.servers.node(key))
                .is_some_and(writes)
        })
    }

    /// The fault for calls that wait for the process's own topics, if they have waited long enough or in vain.
    pub(super) fn not_connected<H: Host>(&self, cx: &Context<H>, until: Instant) -> Option<Fault> {
        let servers = &cx.servers;
        if until <= cx.now {
            return Some(servers.unreachable());
        }
        if !servers.map().is_known() {
            return servers.given_up(None, cx.now);
        }
        let own = cx.keys.own(cx.me);
        if own.is_empty() {
            let mut nodes = servers.nodes();
            return nodes.find_map(|(key, _)| servers.given_up(Some(key), cx.now));
        }
        own.iter().find_map(|topic| {
            let node = self.wanted.get(topic)?.node()?;
            servers.given_up(Some(node), cx.now)
        })
    }

    /// Subscribes to a topic, and notes which call waits for that.
    pub(super) fn want<H: Host>(&mut self, cx: &mut Context<H>, topic: &str, call: Option<CallId>) {
        let until = cx.until();
        let state = self.wanted.want(topic);
        state.unused = None;
        if state.is_confirmed() {
            if let Some(call) = call {
                cx.calls.done(call);
            }
            return;
        }
        cx.changed = true;
        if let Some(call) = call {
            state.waiting.push((call, until));
            self.waits.push_back((until, topic.to_owned()));
        }
        if state.subscription() == Subscription::Wanted {
            self.ask_for(cx, topic);
        }
    }

    /// Requests a topic from its server, as soon as there is a connection.
    fn ask_for<H: Host>(&mut self, cx: &mut Context<H>, topic: &str) {
        cx.changed = true;
        let key = node_of(cx, topic);
        let node = key
            .as_ref()
            .and_then(|key| cx.servers.node_entry(key, cx.now));
        let (Some(node), Some(state)) = (node, self.wanted.get(topic)) else {
            self.wanted.set(topic, None, Subscription::Wanted);
            return;
        };
        if node.subscriber.link().is_none() {
            self.wanted.set(topic, key, Subscription::Wanted);
            return;
        }
        if state.subscription() == Subscription::Queued && state.node() == key.as_ref() {
            return;
        }
        match cx.keys.topic(topic) {
            // Calls wait for these before all others.
            Some(Topic::Process(_) | Topic::Control | Topic::Members) => {
                node.changes.push_first(Change::join(topic));
            }
            _ => node.changes.push(Change::join(topic)),
        }
        self.wanted.set(topic, key, Subscription::Queued);
    }

    pub(super) fn subscriber_opened<H: Host>(&mut self, cx: &mut Context<H>, key: &NodeKey) {
        let here = |topic: &&String| node_of(cx, topic).as_ref() == Some(key);
        let topics: Vec<String> = self.wanted.unasked().filter(here).cloned().collect();
        for topic in topics {
            self.ask_for(cx, &topic);
        }
    }

    pub(super) fn subscriber_lost<H: Host>(&mut self, cx: &mut Context<H>, key: &NodeKey) {
        cx.changed = true;
        for topic in self.wanted.at(key) {
            let known = self.wanted.get(&topic);
            let was_confirmed = known.is_some_and(TopicState::is_confirmed);
            self.wanted.progress(&topic, Subscription::Wanted);
            if was_confirmed {
                // The lock is taken for each: a channel that joins waits for it, and all mailboxes with that.
                cx.shared.topics.lock().remove(&topic);
                self.lost.push(topic);
            }
        }
    }

    /// Whether a late message on a topic is to be dropped: its server or that of a sender has changed, the former server
    /// passes on the last messages that it got, and newer ones were delivered. The message is part of the gap that was
    /// reported.
    pub(super) fn is_late_expected(&self, topic: &str, now: Instant) -> bool {
        let known = self.wanted.get(topic).and_then(|state| state.late_until);
        known.is_some_and(|until| now < until)
    }

    /// A hole was found. Where servers pass published messages on to each other, the missing ones may still come: their
    /// sender has another server now, whose messages overtake those of the former one. They are part of the gap.
    pub(super) fn expect_late(&mut self, topic: &str, now: Instant) {
        if let Some(state) = self.wanted.get_mut(topic) {
            state.late_until = Some(now + LATE_WINDOW);
        }
    }

    /// Whether a topic is subscribed to at another server. A master that became a replica goes on passing on the messages
    /// of its successor, which come from there as well, and earlier.
    pub(super) fn is_elsewhere(&self, key: &NodeKey, topic: &str) -> bool {
        let known = self.wanted.get(topic);
        known.is_some_and(|state| state.node() != Some(key))
    }

    /// A server has confirmed a topic; returns whether that was waited for.
    pub(super) fn confirmed<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        key: &NodeKey,
        topic: &str,
    ) -> bool {
        let Some(state) = self.wanted.get_mut(topic) else {
            return false;
        };
        // This may confirm an earlier join of a topic that was left since, and is not requested again yet.
        if state.node() != Some(key) || state.subscription() != Subscription::Asked {
            return false;
        }
        cx.changed = true;
        state.late_until = state.was_confirmed.then(|| cx.now + LATE_WINDOW);
        state.was_confirmed = true;
        let waiting = std::mem::take(&mut state.waiting);
        self.wanted.progress(topic, Subscription::Confirmed);
        cx.shared.topics.lock().insert(topic.to_owned());
        for (call, _) in waiting {
            cx.calls.done(call);
        }
        true
    }

    /// The server has ended a subscription. If that was not asked for, its slot has moved; if it was, and the topic is wanted
    /// again, it was asked for again behind that.
    pub(super) fn ended<H: Host>(&mut self, cx: &mut Context<H>, key: &NodeKey, topic: &str) {
        let known = self.wanted.get(topic);
        if !known.is_some_and(|state| state.is_confirmed() && state.node() == Some(key)) {
            return;
        }
        self.wanted.progress(topic, Subscription::Wanted);
        self.lost.push(topic.to_owned());
        cx.shared.topics.lock().remove(topic);
        cx.servers.map_mut().look_again();
        self.ask_for(cx, topic);
    }

    /// Takes the next batch that is to be written to a server, if it is not busy with others.
    pub(super) fn next_batch(&mut self, key: &NodeKey, node: &mut Node) -> Option<Vec<Change>> {
        let wanted = &mut self.wanted;
        node.changes.next_batch(|change| {
            let queued = wanted.is(&change.topic, key, Subscription::Queued);
            if change.joins && queued {
                wanted.progress(&change.topic, Subscription::Asked);
            }
            !change.joins || queued
        })
    }

    /// A server has answered a batch. The confirmations have come before that.
    pub(super) fn changed<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        key: &NodeKey,
        batch: &[Change],
        refusals: Vec<(usize, Refusal)>,
    ) {
        for (place, refusal) in refusals {
            if let Some(change) = batch.get(place).filter(|change| change.joins) {
                self.refused(cx, key, &change.topic, refusal);
            }
        }
        let is_asked = |change: &&Change| self.wanted.is(&change.topic, key, Subscription::Asked);
        let joins = batch.iter().filter(|change| change.joins);
        let refused = joins.filter(is_asked).map(|change| change.topic.clone());
        if let Some(node) = cx.servers.node_mut(key) {
            node.changes.answered(refused, cx.now);
        }
    }

    /// A server has refused a topic.
    fn refused<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        key: &NodeKey,
        topic: &str,
        refusal: Refusal,
    ) {
        let state = self.wanted.get_mut(topic);
        let Some(state) = state.filter(|state| !state.is_confirmed()) else {
            return;
        };
        if let Some((slot, host, port)) = refusal.elsewhere() {
            cx.servers.moved(key, slot, &host, port);
            return;
        }
        if refusal.code.is_empty() || refusal.passes() {
            // The connection is lost, which is another event, or the refusal is temporary.
            cx.servers.map_mut().look_again();
            return;
        }
        let fault = refusal.into_fault();
        cx.servers.note_fault(fault.clone());
        for (call, _) in std::mem::take(&mut state.waiting) {
            cx.calls.fail(call, fault.clone());
        }
    }

    /// Asks again for what was refused a while ago.
    pub(super) fn ask_again_for_refused<H: Host>(&mut self, cx: &mut Context<H>) {
        let mut due = Vec::new();
        for (key, node) in cx.servers.nodes_mut() {
            let topics = node.changes.take_refused(cx.now);
            due.extend(topics.map(|topic| (key.clone(), topic)));
        }
        if due.is_empty() {
            return;
        }
        cx.servers.map_mut().look_again();
        for (key, topic) in due {
            if self.wanted.is(&topic, &key, Subscription::Asked) {
                self.ask_for(cx, &topic);
            }
        }
    }

    /// Slots have moved: each topic is given its place before anything is written.
    pub(super) fn place_later(&mut self) {
        self.to_place = true;
    }

    pub(super) fn place_if_moved<H: Host>(&mut self, cx: &mut Context<H>) {
        if std::mem::take(&mut self.to_place) {
            self.place_all(cx);
        }
    }

    /// Gives every topic its place after the map has changed.
    pub(super) fn place_all<H: Host>(&mut self, cx: &mut Context<H>) {
        let place = |topic: &String| (topic.clone(), node_of(cx, topic));
        let places: Vec<_> = self.wanted.iter().map(|(topic, _)| place(topic)).collect();
        let sharded = cx.servers.map().publishes_sharded();
        for (topic, place) in places {
            let Some(state) = self.wanted.get(&topic) else {
                continue;
            };
            // A topic that is not sharded may be subscribed to at any server of a cluster.
            let is_there = |key: &NodeKey| cx.servers.node(key).is_some();
            let hears =
                state.node() == place.as_ref() || !sharded && state.node().is_some_and(is_there);
            if hears && state.subscription() != Subscription::Wanted {
                continue;
            }
            if state.is_confirmed() {
                self.lost.push(topic.clone());
                cx.shared.topics.lock().remove(&topic);
            }
            self.wanted.progress(&topic, Subscription::Wanted);
            self.ask_for(cx, &topic);
        }
    }

    /// Gives up the waits for confirmations that are late, or in vain.
    pub(super) fn give_up_waits<H: Host>(&mut self, cx: &mut Context<H>) {
        let now = cx.now;
        while self.waits.front().is_some_and(|(until, _)| *until <= now) {
            let Some((_, topic)) = self.waits.pop_front() else {
                break;
            };
            let Some(state) = self.wanted.get_mut(&topic) else {
                continue;
            };
            for (call, _) in state.waiting.extract_if(.., |(_, until)| *until <= now) {
                cx.calls.fail(call, cx.servers.unreachable());
            }
        }
        self.give_up_unreachable_waits(cx);
    }

    fn give_up_unreachable_waits<H: Host>(&mut self, cx: &mut Context<H>) {
        if self.waits.is_empty() {
            return;
        }
        let given_up = cx.servers.all_given_up(cx.now);
        if given_up.is_empty() {
            return;
        }
        for (until, topic) in std::mem::take(&mut self.waits) {
            let Some(state) = self.wanted.get_mut(&topic) else {
                continue;
            };
            if let Some(fault) = given_up.get(&state.node().cloned()) {
                for (call, _) in std::mem::take(&mut state.waiting) {
                    cx.calls.fail(call, fault.clone());
                }
            } else if !state.waiting.is_empty() {
                self.waits.push_back((until, topic));
            }
        }
    }

    /// Unsubscribes from topics that this process has not needed for a while; returns them.
    pub(super) fn sweep<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        is_awaited: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        let mut over = Vec::new();
        for (topic, state) in self.wanted.iter_mut() {
            if !state.waiting.is_empty() || is_used(cx, topic, &is_awaited) {
                state.unused = None;
                continue;
            }
            let since = *state.unused.get_or_insert(cx.now);
            if since + linger(cx, topic) <= cx.now {
                over.push(topic.clone());
            }
        }
        over.retain(|topic| self.leave(cx, topic));
        over
    }

    fn leave<H: Host>(&mut self, cx: &mut Context<H>, topic: &str) -> bool {
        // A channel joins first and looks then whether the topic is confirmed. So one that still found it confirmed is a
        // member by now, and counted here; any later one finds that it is not, and asks for it.
        let confirmed = cx.shared.topics.lock().remove(topic);
        let group = cx.keys.group_of(topic);
        if group.is_some_and(|group| cx.local.group_count(group).unwrap_or(0) > 0) {
            if confirmed {
                cx.shared.topics.lock().insert(topic.to_owned());
            }
            return false;
        }
        let Some(state) = self.wanted.remove(topic) else {
            return false;
        };
        cx.changed = true;
        if let Subscription::Asked | Subscription::Confirmed = state.subscription() {
            let node = state.node().and_then(|key| cx.servers.node_mut(key));
            if let Some(node) = node.filter(|node| node.subscriber.link().is_some()) {
                node.changes.push(Change::leave(topic));
            }
        }
        true
    }

    /// Whether the confirmation of some is still to come.
    pub(super) fn are_awaited(&self) -> bool {
        self.wanted.are_awaited()
    }

    /// The same, of those at a server.
    pub(super) fn are_awaited_at(&self, node: &NodeKey) -> bool {
        self.wanted.are_awaited_at(node)
    }

    /// Whether some may have missed messages.
    pub(super) fn have_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Takes the topics that may have missed messages.
    pub(super) fn take_lost(&mut self) -> Vec<String> {
        each_once(std::mem::take(&mut self.lost))
    }

    /// The same, of those whose servers are back, while others are still unreachable.
    pub(super) fn take_lost_that_are_back<H: Host>(&mut self, cx: &Context<H>) -> Vec<String> {
        let is_open = |key: &NodeKey| {
            cx.servers.node(key).is_some_and(Node::is_open) && !self.wanted.are_awaited_at(key)
        };
        let is_back = |topic: &String| match self.wanted.get(topic).map(TopicState::node) {
            Some(Some(node)) => is_open(node),
            Some(None) => false,
            None => cx.servers.nodes().all(|(key, _)| is_open(key)),
        };
        let (back, still_lost) = std::mem::take(&mut self.lost)
            .into_iter()
            .partition(is_back);
        self.lost = still_lost;
        each_once(back)
    }

    pub(super) fn shrink_if_sparse(&mut self) {
        self.wanted.shrink_if_sparse();
        self.waits.shrink_if_sparse();
    }
}

fn each_once(mut topics: Vec<String>) -> Vec<String> {
    topics.sort_unstable();
    topics.dedup();
    topics
}

#[cfg(test)]
mod tests;
