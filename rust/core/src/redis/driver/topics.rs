//! What this process is subscribed to: what it wants to be, what the servers have confirmed, and the way from one to the other.
//!
//! redis-rs would subscribe again by itself; this does it instead, topic by topic, because only so a slot that moves, a
//! server that takes a subscription away, and a connection that comes back to another server end the same way: the
//! topic is wanted and not confirmed, so it is asked for again where it belongs now.

use super::node::Node;
use super::node_key::{NodeKey, Role};
use super::wanted::{Phase, TopicState};
use super::Driver;
use crate::redis::fault::{Fault, FaultKind};
use crate::redis::host::Host;
use crate::redis::link::{Push, Refusal};
use crate::redis::meter::{count, ConnectionState};
use crate::redis::notice::Notice;
use crate::redis::settings::Wire;
use crate::redis::wire::keys::Topic;

/// How long after a subscription is back a message may come that was sent before newer ones.
const SETTLES: std::time::Duration = std::time::Duration::from_secs(5);

impl<H: Host> Driver<H> {
    pub(super) fn subscribe_to_own_topics(&mut self) {
        if self.settings.wire == Wire::Headrace {
            self.want_topic(&self.keys.inbox(self.me), None);
            self.want_topic(&self.keys.control(), None);
        }
    }

    /// Whether all of the process's own topics are confirmed, and their servers can be sent to.
    pub(super) fn is_connected(&self) -> bool {
        let confirmed = |topic: &str| {
            let known = self.topics.get(topic);
            let known = known.filter(|state| state.is_confirmed());
            let node = known.and_then(|state| self.nodes.get(state.node()?));
            node.is_some_and(|node| node.writer.link().is_some())
        };
        match self.settings.wire {
            Wire::Headrace => {
                confirmed(&self.keys.inbox(self.me)) && confirmed(&self.keys.control())
            }
            Wire::ChannelsRedis => !self.nodes.is_empty() && self.nodes.values().all(Node::is_open),
        }
    }

    /// The name by which a topic is placed among shards: that of its group, queue or process.
    pub(super) fn place_name(&self, topic: &str) -> String {
        if self.settings.wire == Wire::ChannelsRedis {
            return topic.to_owned();
        }
        match self.keys.topic(topic) {
            Some(Topic::Group(name) | Topic::Bell(name)) => name.to_owned(),
            Some(Topic::Inbox(process)) => process.to_string(),
            Some(Topic::Control) | None => String::new(),
        }
    }

    /// Whether it is one of those by which this process is reached.
    pub(super) fn is_own(&self, topic: &str) -> bool {
        matches!(
            self.keys.topic(topic),
            Some(Topic::Inbox(_) | Topic::Control)
        )
    }

    /// Subscribes to a topic, and notes who waits for that.
    pub(super) fn want_topic(&mut self, topic: &str, tally: Option<usize>) {
        let until = self.until();
        let state = self.topics.want(topic);
        state.unused = None;
        if state.is_confirmed() {
            if let Some(tally) = tally {
                self.finish(tally, |_| {});
            }
            return;
        }
        self.changed = true;
        if let Some(tally) = tally {
            state.waiting.push((tally, until));
            self.waits.push_back((until, topic.to_owned()));
        }
        if state.phase() == Phase::Wanted {
            self.ask_for(topic);
        }
    }

    pub(super) fn subscriber_opened(&mut self, key: &NodeKey) {
        let wanted = self.topics.wanted();
        let here = |topic: &String| self.node_of_topic(topic).as_ref() == Some(key);
        let wanted: Vec<String> = wanted.map(String::clone).filter(here).collect();
        for topic in wanted {
            self.ask_for(&topic);
        }
    }

    pub(super) fn subscriber_lost(&mut self, key: &NodeKey, fault: &Fault) {
        self.changed = true;
        if let Some(node) = self.nodes.get_mut(key) {
            node.changes.clear();
            node.batches = 0;
            node.refused.clear();
        }
        let mut confirmed = self.shared.topics.lock();
        for topic in self.topics.at(key) {
            let known = self.topics.get(&topic);
            let was_confirmed = known.is_some_and(TopicState::is_confirmed);
            self.topics.set_phase(&topic, Phase::Wanted);
            if was_confirmed {
                confirmed.remove(&topic);
                self.lost.push(topic);
            }
        }
        drop(confirmed);
        if !self.disconnected {
            self.disconnected = true;
            self.shared.notice(Notice::Disconnected {
                reason: fault.to_string(),
            });
            if let Some(kind) = self.settings.on_disconnect.clone() {
                self.tell_all(&kind);
            }
        }
    }

    pub(super) fn pushed(&mut self, key: &NodeKey, generation: u64, push: Push) {
        let Some(node) = self.nodes.get_mut(key) else {
            return;
        };
        if node.subscriber.generation != generation {
            return;
        }
        node.subscriber.heard = self.now;
        match push {
            Push::Message { topic, payload } => {
                count(&self.shared.meter.bytes_in, payload.len() as u64);
                match String::from_utf8(topic) {
                    // A master that became a replica goes on passing on what its successor gives it: the same messages
                    // as come from there, and later.
                    Ok(topic) if self.is_elsewhere(key, &topic) => {}
                    Ok(topic) => self.arrived(key, &topic, payload),
                    Err(_) => count(&self.shared.meter.malformed, 1),
                }
            }
            Push::Subscribed { topic } => self.confirmed(key, &String::from_utf8_lossy(&topic)),
            Push::Unsubscribed { topic } => {
                self.taken_away(key, &String::from_utf8_lossy(&topic));
            }
            Push::Lost => {
                let server = self
                    .nodes
                    .get(key)
                    .map(|node| node.server.endpoint.to_string());
                let text = format!("the connection to {} was lost", server.unwrap_or_default());
                let fault = Fault::new(FaultKind::Lost, text);
                self.lose(key, Role::Subscriber, generation, &fault);
            }
        }
    }

    /// Whether what comes late on a topic comes too late: its server or that of a sender has changed, the former one passes on
    /// what it still got, and newer messages were delivered. That is part of the gap that was told.
    pub(super) fn is_unsettled(&self, topic: &str) -> bool {
        let known = self.topics.get(topic).and_then(|state| state.unsettled);
        known.is_some_and(|until| self.now < until)
    }

    /// A hole was found. Where servers pass on to each other what is published, what is missing may be on its way still: its
    /// sender has another server now, whose messages overtake those that the former one took. It is part of the gap.
    pub(super) fn unsettle(&mut self, topic: &str) {
        if self.is_passed_on() {
            if let Some(state) = self.topics.get_mut(topic) {
                state.unsettled = Some(self.now + SETTLES);
            }
        }
    }

    fn is_elsewhere(&self, key: &NodeKey, topic: &str) -> bool {
        let known = self.topics.get(topic);
        known.is_some_and(|state| state.node() != Some(key))
    }

    fn confirmed(&mut self, key: &NodeKey, topic: &str) {
        let Some(state) = self.topics.get_mut(topic) else {
            return;
        };
        // What confirms an earlier join says nothing of a topic that was left since, and waits to be asked for again.
        if state.node() != Some(key) || state.phase() != Phase::Asked {
            return;
        }
        self.changed = true;
        state.unsettled = state.was_confirmed.then(|| self.now + SETTLES);
        state.was_confirmed = true;
        let waiting = std::mem::take(&mut state.waiting);
        self.topics.set_phase(topic, Phase::Confirmed);
        self.node_is_back |= !self.topics.are_awaited_at(key);
        self.shared.topics.lock().insert(topic.to_owned());
        // What was counted before a gap is no measure for what comes behind it.
        self.sequences.excuse_topic(topic);
        for (tally, _) in waiting {
            self.finish(tally, |_| {});
        }
        match self.keys.topic(topic) {
            Some(Topic::Bell(channel)) => {
                let channel = channel.to_owned();
                self.rung(&channel);
            }
            Some(Topic::Control) => self.load_members(),
            _ => {}
        }
    }

    /// The server has ended a subscription. If that was not asked for, its slot has moved; if it was, and the topic is wanted
    /// again, it was asked for again behind that.
    fn taken_away(&mut self, key: &NodeKey, topic: &str) {
        let known = self.topics.get(topic);
        if !known.is_some_and(|state| state.is_confirmed() && state.node() == Some(key)) {
            return;
        }
        self.topics.set_phase(topic, Phase::Wanted);
        self.lost.push(topic.to_owned());
        self.shared.topics.lock().remove(topic);
        self.remap();
        self.ask_for(topic);
    }

    /// A server has refused a topic.
    pub(super) fn subscription_refused(&mut self, key: &NodeKey, topic: &str, refusal: Refusal) {
        let Some(state) = self.topics.get_mut(topic) else {
            return;
        };
        if state.is_confirmed() {
            return;
        }
        if let Some((slot, host, port)) = refusal.elsewhere() {
            self.moved(key, slot, &host, port);
            return;
        }
        if refusal.code.is_empty() || refusal.passes() {
            // The connection is lost, which is told by itself, or it will pass.
            self.remap();
            return;
        }
        let fault = refusal.into_fault();
        self.last_fault = Some(fault.clone());
        for (tally, _) in std::mem::take(&mut state.waiting) {
            self.finish_with(tally, fault.clone());
        }
    }

    /// Gives every topic its place after the map has changed.
    pub(super) fn place_topics(&mut self) {
        let place = |topic: &String| (topic.clone(), self.node_of_topic(topic));
        let places: Vec<_> = self.topics.iter().map(|(topic, _)| place(topic)).collect();
        let sharded = self.publishes_sharded();
        for (topic, place) in places {
            let Some(state) = self.topics.get(&topic) else {
                continue;
            };
            // What is not sharded is heard on every server of a cluster, wherever its slot is.
            let is_there = |node: &NodeKey| self.nodes.contains_key(node);
            let hears =
                state.node() == place.as_ref() || !sharded && state.node().is_some_and(is_there);
            if hears && state.phase() != Phase::Wanted {
                continue;
            }
            if state.is_confirmed() {
                self.lost.push(topic.clone());
                self.shared.topics.lock().remove(&topic);
            }
            self.topics.set_phase(&topic, Phase::Wanted);
            self.ask_for(&topic);
        }
    }

    /// Gives up the waits for confirmations that are late, or in vain.
    pub(super) fn give_up_waits(&mut self) {
        let now = self.now;
        while self.waits.front().is_some_and(|(until, _)| *until <= now) {
            let Some((_, topic)) = self.waits.pop_front() else {
                break;
            };
            let Some(state) = self.topics.get_mut(&topic) else {
                continue;
            };
            let late: Vec<_> = state
                .waiting
                .extract_if(.., |(_, until)| *until <= now)
                .collect();
            for (tally, _) in late {
                let fault = self.unreachable();
                self.finish_with(tally, fault);
            }
        }
        self.give_up_waits_in_vain();
    }

    fn give_up_waits_in_vain(&mut self) {
        if self.waits.is_empty() {
            return;
        }
        let given_up = self.nodes_given_up();
        if given_up.is_empty() {
            return;
        }
        for (until, topic) in std::mem::take(&mut self.waits) {
            let Some(state) = self.topics.get_mut(&topic) else {
                continue;
            };
            if let Some(fault) = given_up.get(&state.node().cloned()) {
                for (tally, _) in std::mem::take(&mut state.waiting) {
                    self.finish_with(tally, fault.clone());
                }
            } else if !state.waiting.is_empty() {
                self.waits.push_back((until, topic));
            }
        }
    }

    /// Unsubscribes from what nobody here has needed for a while.
    pub(super) fn sweep_topics(&mut self) {
        let mut over = Vec::new();
        for (topic, state) in self.topics.iter_mut() {
            let used = !state.waiting.is_empty()
                || match self.settings.wire {
                    Wire::ChannelsRedis => match self.keys.channels_redis_group_of(topic) {
                        Some(group) => self.engine.group_count(group).unwrap_or(0) > 0,
                        None => self.engine.is_held(topic),
                    },
                    Wire::Headrace => match self.keys.topic(topic) {
                        Some(Topic::Group(group)) => {
                            self.engine.group_count(group).unwrap_or(0) > 0
                        }
                        Some(Topic::Bell(channel)) => self
                            .engine
                            .channel_stats(channel)
                            .is_ok_and(|stats| stats.waiters > 0),
                        Some(Topic::Inbox(_) | Topic::Control) => true,
                        None => false,
                    },
                };
            if used {
                state.unused = None;
                continue;
            }
            let since = *state.unused.get_or_insert(self.now);
            // Between two receives of a channel its handler is at work: what comes meanwhile waits as long as in a mailbox.
            let linger = match (self.settings.wire, self.keys.channels_redis_group_of(topic)) {
                (Wire::ChannelsRedis, None) => {
                    self.settings.subscription_linger.max(self.settings.expiry)
                }
                _ => self.settings.subscription_linger,
            };
            if since + linger <= self.now {
                over.push(topic.clone());
            }
        }
        for topic in over {
            self.leave_topic(&topic);
        }
    }

    fn leave_topic(&mut self, topic: &str) {
        // A channel joins first and looks then whether the topic is confirmed. So one that still found it confirmed is a
        // member by now, and counted here; any later one finds that it is not, and asks for it.
        let confirmed = self.shared.topics.lock().remove(topic);
        let group = match self.settings.wire {
            Wire::ChannelsRedis => self.keys.channels_redis_group_of(topic),
            Wire::Headrace => self.keys.group_of(topic),
        };
        if group.is_some_and(|group| self.engine.group_count(group).unwrap_or(0) > 0) {
            if confirmed {
                self.shared.topics.lock().insert(topic.to_owned());
            }
            return;
        }
        let Some(state) = self.topics.remove(topic) else {
            return;
        };
        self.changed = true;
        self.sequences.forget_topic(topic);
        if let (Some(key), Phase::Asked | Phase::Confirmed) = (state.node(), state.phase()) {
            self.ask_to_leave(topic, key);
        }
    }

    /// Notes whether messages can flow, and tells those who asked to be told.
    pub(super) fn note_state(&mut self) {
        self.awaiting = self.topics.are_awaited();
        let whole = !self.awaiting
            && !self.needs_map()
            && self.nodes.values().all(Node::is_open)
            && self.is_connected();
        let meter = &self.shared.meter;
        if whole {
            meter.set_state(ConnectionState::Up);
        } else {
            let was_open = |node: &Node| node.writer.was_open && !node.is_open();
            let down = self.disconnected || self.nodes.values().any(was_open);
            meter.set_state(if down {
                ConnectionState::Down
            } else {
                ConnectionState::Connecting
            });
            self.tell_gaps_of_whole_servers();
            return;
        }
        let unreached = std::mem::take(&mut self.unreached);
        if unreached && !self.disconnected {
            self.shared.notice(Notice::Reconnected);
        }
        if self.disconnected {
            self.disconnected = false;
            count(&meter.reconnects, 1);
            self.shared.notice(Notice::Reconnected);
            if let Some(kind) = self.settings.on_reconnect.clone() {
                self.tell_all(&kind);
            }
        }
        if !self.lost.is_empty() {
            let mut topics = std::mem::take(&mut self.lost);
            topics.sort_unstable();
            topics.dedup();
            self.tell_gap(&topics, 0);
        }
    }

    /// Tells what was missed on servers that are back, while others stay away.
    fn tell_gaps_of_whole_servers(&mut self) {
        if self.lost.is_empty() || !std::mem::take(&mut self.node_is_back) {
            return;
        }
        let is_open = |key: &NodeKey| {
            let node = self.nodes.get(key);
            node.is_some_and(Node::is_open) && !self.topics.are_awaited_at(key)
        };
        let is_back = |topic: &String| match self.topics.get(topic).map(TopicState::node) {
            Some(Some(node)) => is_open(node),
            Some(None) => false,
            None => self.nodes.keys().all(is_open),
        };
        let (mut back, away): (Vec<_>, Vec<_>) = std::mem::take(&mut self.lost)
            .into_iter()
            .partition(is_back);
        self.lost = away;
        back.sort_unstable();
        back.dedup();
        if !back.is_empty() {
            self.tell_gap(&back, 0);
        }
    }
}
