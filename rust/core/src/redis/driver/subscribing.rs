//! How servers are asked for topics: each once on a connection, in batches, of which few are unanswered at a time.
//!
//! A server that is asked for a hundred thousand topics at once answers nothing else for seconds, the question whether it is
//! there included. What it has answered and not confirmed was refused: that is asked for again after a pause.

use std::time::Duration;

use super::event::Event;
use super::node_key::NodeKey;
use super::wanted::Phase;
use super::Driver;
use crate::redis::host::Host;
use crate::redis::link::{Change, Refusal};
use crate::redis::wire::keys::hash_slot;

/// How many topics a server is asked for at once.
const BATCH: usize = 512;
/// How many batches may be unanswered: the server has the next one when it is done with the first.
const BATCHES: usize = 2;
/// How long after a refusal a topic is asked for again.
const REFUSED: Duration = Duration::from_millis(500);

impl<H: Host> Driver<H> {
    pub(super) fn node_of_topic(&self, topic: &str) -> Option<NodeKey> {
        self.node_of_published(&self.place_name(topic), hash_slot(topic.as_bytes()))
    }

    /// Has the server of a topic be asked for it, as soon as there is a connection.
    pub(super) fn ask_for(&mut self, topic: &str) {
        self.changed = true;
        let node = self.node_of_topic(topic);
        let Some(key) = node.filter(|key| self.node_entry(key).is_some()) else {
            self.topics.set(topic, None, Phase::Wanted);
            return;
        };
        let own = self.is_own(topic);
        let (Some(node), Some(state)) = (self.nodes.get_mut(&key), self.topics.get(topic)) else {
            return;
        };
        if node.subscriber.link().is_none() {
            self.topics.set(topic, Some(key), Phase::Wanted);
            return;
        }
        if state.phase() == Phase::Queued && state.node() == Some(&key) {
            return;
        }
        let change = Change::join(topic);
        if own {
            // Calls wait for these before all others.
            node.changes.push_front(change);
        } else {
            node.changes.push_back(change);
        }
        self.topics.set(topic, Some(key), Phase::Queued);
    }

    /// Has the server of a topic that is not wanted any more be told so.
    pub(super) fn ask_to_leave(&mut self, topic: &str, key: &NodeKey) {
        if let Some(node) = self.nodes.get_mut(key) {
            if node.subscriber.link().is_some() {
                node.changes.push_back(Change::leave(topic));
            }
        }
    }

    /// Writes what waits to be asked, where there is a connection that is not busy with it.
    pub(super) fn write_changes(&mut self) {
        let sharded = self.publishes_sharded();
        for (key, node) in &mut self.nodes {
            let Some(link) = node.subscriber.link() else {
                continue;
            };
            while node.batches < BATCHES && !node.changes.is_empty() {
                let topics = &mut self.topics;
                let mut is_wanted = |change: &Change| {
                    let state = topics.get(&change.topic);
                    let queued = state.is_some_and(|state| {
                        state.phase() == Phase::Queued && state.node() == Some(key)
                    });
                    if change.joins && queued {
                        topics.set_phase(&change.topic, Phase::Asked);
                    }
                    !change.joins || queued
                };
                let next = node.changes.drain(..node.changes.len().min(BATCH));
                let batch: Vec<Change> = next.filter(|change| is_wanted(change)).collect();
                if batch.is_empty() {
                    continue;
                }
                node.batches += 1;
                let answer = link.change(&batch, sharded);
                // Behind the confirmations.
                let (pushes, node, generation) =
                    (self.pushes.clone(), key.clone(), node.subscriber.generation);
                tokio::spawn(async move {
                    let refusals = answer.await;
                    let _ = pushes.send(Event::Changed {
                        node,
                        generation,
                        batch,
                        refusals,
                    });
                });
            }
        }
    }

    /// A server has answered a batch. The confirmations have come before that.
    pub(super) fn changes_answered(
        &mut self,
        key: &NodeKey,
        batch: &[Change],
        refusals: Vec<(usize, Refusal)>,
    ) {
        if let Some(node) = self.nodes.get_mut(key) {
            node.batches = node.batches.saturating_sub(1);
        }
        for (place, refusal) in refusals {
            if let Some(change) = batch.get(place).filter(|change| change.joins) {
                self.subscription_refused(key, &change.topic, refusal);
            }
        }
        let again = self.now + REFUSED;
        let joins = batch.iter().filter(|change| change.joins);
        let refused: Vec<_> = joins
            .filter(|change| self.is_asked(key, &change.topic))
            .map(|change| (again, change.topic.clone()))
            .collect();
        if let Some(node) = self.nodes.get_mut(key) {
            node.refused.extend(refused);
        }
    }

    fn is_asked(&self, key: &NodeKey, topic: &str) -> bool {
        let state = self.topics.get(topic);
        state.is_some_and(|state| state.phase() == Phase::Asked && state.node() == Some(key))
    }

    /// Asks again for what was refused a while ago.
    pub(super) fn ask_again_for_refused(&mut self) {
        let now = self.now;
        let mut due = Vec::new();
        for (key, node) in &mut self.nodes {
            let late = node.refused.iter().take_while(|(at, _)| *at <= now);
            let late = late.count();
            let topics = node.refused.drain(..late).map(|(_, topic)| topic);
            due.extend(topics.map(|topic| (key.clone(), topic)));
        }
        if due.is_empty() {
            return;
        }
        self.remap();
        for (key, topic) in due {
            if self.is_asked(&key, &topic) {
                self.ask_for(&topic);
            }
        }
    }
}
