//! The work of each part after a batch of events, and the end of the driver.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::history_then::Mark;
use super::node_key::{NodeKey, Role};
use super::{Driver, HEALTH};
use crate::redis::fault::{Fault, FaultKind};
use crate::redis::host::Host;
use crate::redis::meter::{ConnectionState, count};
use crate::redis::notice::Notice;
use crate::redis::random;
use crate::redis::wire::keys::Topic;
use crate::shrink::Shrink;
use crate::sync::assert_unlocked;

/// How often the parts run while a call waits for a connection or an answer.
const BUSY: Duration = Duration::from_millis(25);

impl<H: Host> Driver<H> {
    pub(super) fn next_wake(&self) -> Instant {
        let busy = self.cx.servers.have_waiting()
            || self.history.is_waiting()
            || self.peers.are_waiting()
            || self.outgoing.has_waiting()
            || self.topics.are_awaited()
            || !self.cx.servers.map().is_known();
        let attempt = self.cx.servers.next_attempt().unwrap_or(self.next_health);
        let health = self.next_health.min(attempt);
        let health = health.min(self.presence.next_due().unwrap_or(health));
        if busy {
            health.min(Instant::now() + BUSY)
        } else {
            health
        }
    }

    /// Gives each part its turn after some events, and delivers what they gave.
    pub(super) fn end_turn(&mut self) {
        let now = self.cx.now;
        if let Some(look) = self.cx.servers.map_mut().next_look(now, random::below) {
            self.io.look(look);
        }
        self.topics.place_if_moved(&mut self.cx);
        for dial in self.cx.servers.due(now) {
            self.io.open(dial);
        }
        self.cx.servers.resubmit_delayed(now);
        self.give_up_late();
        if now >= self.next_health {
            self.next_health = now + HEALTH;
            self.look_after_all();
        }
        self.go_on();
        self.presence.act(&mut self.cx);
        while let Some((messages, call)) = self.outgoing.admit(&mut self.cx) {
            self.send(messages, call);
        }
        self.run_follow_ups();
        self.write();
        if self.cx.shared.meter.state() != ConnectionState::Up {
            *self.cx.shared.unreachable.lock() = self.cx.servers.all_unreachable(now);
        }
        if self.cx.servers.take_changed() | std::mem::take(&mut self.cx.changed) {
            self.note_status();
        }
        self.answer_drains();
        self.run_follow_ups();
        self.deliver();
    }

    fn give_up_late(&mut self) {
        self.cx.servers.give_up_late(self.cx.now);
        self.run_follow_ups();
        self.peers.give_up_late(&mut self.cx);
        self.history.give_up_late(&mut self.cx);
        self.topics.give_up_waits(&mut self.cx);
        self.topics.ask_again_for_refused(&mut self.cx);
    }

    /// What is done once a second.
    fn look_after_all(&mut self) {
        let cx = &mut self.cx;
        let calm = cx.servers.are_open();
        for (key, node) in cx.servers.nodes() {
            self.io.check(key, node, calm);
        }
        if cx.settings.wire.has_peers() && self.topics.are_connected(cx) {
            self.peers.send_probe(cx);
            self.members.look_after(cx);
        }
        let is_awaited = |group: &str| self.history.is_awaited(group);
        for topic in self.topics.sweep(cx, is_awaited) {
            self.arrivals.forget_topic(&topic);
            match cx.keys.topic(&topic) {
                Some(Topic::Group(group)) => self.history.forget(cx, group),
                Some(Topic::Presence(group)) => self.presence.forget(cx, group),
                _ => {}
            }
        }
        self.queues.audit(cx);
        self.history.look_after(cx);
        self.presence.look_after(cx);
        self.shrink_tables();
        self.report_unsent();
    }

    /// Frees the memory that the tables needed at a peak: once a second, and not at the expense of an event.
    pub(super) fn shrink_tables(&mut self) {
        self.cx.calls.shrink_if_sparse();
        self.cx.requests.shrink_if_sparse();
        self.cx.shared.shrink_if_sparse();
        self.cx.servers.shrink_if_sparse();
        self.topics.shrink_if_sparse();
        self.outgoing.shrink_if_sparse();
        self.peers.shrink_if_sparse();
        self.queues.shrink_if_sparse();
        self.members.shrink_if_sparse();
    }

    fn report_unsent(&mut self) {
        if let Some((messages, fault)) = self.cx.calls.take_unsent() {
            let reason = fault.to_string();
            self.cx.shared.notice(Notice::Unsent { messages, reason });
        }
    }

    pub(super) fn deliver(&mut self) {
        let answers = self.cx.calls.take_answers();
        let hand_offs = std::mem::take(&mut self.cx.hand_offs);
        if !answers.is_empty() || !hand_offs.is_empty() || self.cx.local.has_alarms() {
            assert_unlocked();
            self.cx.host.deliver(answers, hand_offs);
        }
    }

    pub(super) fn close(&mut self) {
        let fault = match self.cx.servers.last_fault() {
            // For what waited for an unreachable server, the text names that as well.
            Some(cause) if !self.is_connected() => {
                let text = format!("the layer was closed before a server was reached: {cause}");
                Fault::new(FaultKind::Closed, text).because_of(cause.clone())
            }
            _ => Fault::new(FaultKind::Closed, "the layer was closed"),
        };
        self.cx.servers.give_up_all(&fault);
        self.run_follow_ups();
        let waiting = self.outgoing.give_up_waiting();
        count(&self.cx.shared.meter.unsent, waiting);
        self.cx.calls.end_all(&fault);
        self.report_unsent();
        self.cx.shared.meter.set_state(ConnectionState::Closed);
        self.cx.shared.notices.end();
    }

    /// Writes what waits, wherever there is a connection.
    fn write(&mut self) {
        let wall = self.cx.shared.now();
        for pipeline in self.cx.servers.pipelines(self.cx.now, wall) {
            self.io.write(pipeline);
        }
        self.settle();
        let sharded = self.cx.servers.map().publishes_sharded();
        for (key, node) in self.cx.servers.nodes_mut() {
            let Some(link) = node.subscriber.link().map(Arc::clone) else {
                continue;
            };
            let id = node.id(key, Role::Subscriber);
            while let Some(batch) = self.topics.next_batch(key, node) {
                self.io.change(&id, &*link, batch, sharded);
            }
        }
    }

    /// Has the readings settled that were answered, on the connections where their groups are published.
    fn settle(&mut self) {
        let marks = self.history.take_unsettled();
        if marks.is_empty() {
            return;
        }
        let mut by_node: HashMap<NodeKey, Vec<Mark>> = HashMap::new();
        for mark in marks {
            let topic = self.cx.keys.group(&mark.0);
            // Without a server the topic is subscribed to anew, and read then.
            if let Some(node) = self.topics.node_of(&topic) {
                by_node.entry(node.clone()).or_default().push(mark);
            }
        }
        for (key, marks) in by_node {
            let node = self.cx.servers.node(&key);
            if let Some(node) = node
                && let Some(link) = node.subscriber.link()
            {
                let id = node.id(&key, Role::Subscriber);
                self.io.settle(&id, &**link, marks);
            }
        }
    }

    /// Goes on with what waits for the connection.
    fn go_on(&mut self) {
        if self.peers.have_pending() {
            let (connected, topics) = (self.is_connected(), &self.topics);
            let not_connected = |cx: &_, until| topics.not_connected(cx, until);
            self.peers.go_on(&mut self.cx, not_connected, connected);
        }
    }

    /// Notes whether messages can flow, and notifies the owner and the channels.
    fn note_status(&mut self) {
        let mut news = self.status.note(&self.cx, &mut self.topics);
        // A group that keeps its history reports what it misses once it has read what is there.
        let (keys, history) = (&self.cx.keys, &self.history);
        let heals = |topic: &str| {
            let group = keys.group_of(topic);
            group.is_some_and(|group| history.heals(group))
        };
        news.gaps.retain(|topic| !heals(topic));
        if news.reconnected
            && let Some(kind) = self.cx.settings.on_reconnect.clone()
        {
            self.cx.notify_channels(&kind);
        }
        if !news.gaps.is_empty() {
            self.cx.report_gap(&news.gaps, 0);
        }
    }

    /// Answers those who wait until all is sent.
    fn answer_drains(&mut self) {
        if !self.has_sent_all() || !self.members.is_idle() {
            return;
        }
        for call in self.peers.take_drains() {
            if !self.cx.settings.wire.has_peers() || !self.is_connected() {
                self.cx.calls.done(call);
            } else {
                self.peers.complete_when_back(&mut self.cx, call);
            }
        }
    }
}
