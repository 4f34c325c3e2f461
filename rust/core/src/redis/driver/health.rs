//! What is asked of every server each second: whether it is there, what time it is, and whether it is the master.

use std::sync::Arc;

use tokio::time::Instant;

use super::event::Event;
use super::node::{LinkState, Node, SILENCE};
use super::node_key::{NodeKey, Role};
use super::Driver;
use crate::redis::fault::{Fault, FaultKind};
use crate::redis::host::Host;
use crate::redis::link::probe;
use crate::redis::link::probe::Address;
use crate::redis::link::server_clock::{Reading, ServerClock};
use crate::redis::notice::Notice;
use crate::redis::wire::keys::hash_slot;

/// By how many milliseconds a server's clock must have been set for the owner to be told.
const NOTABLE: i64 = 1000;

impl<H: Host> Driver<H> {
    /// Asks every connection whether it is there. A server that has moved or died without a word is found out by that.
    pub(super) fn check_links(&mut self) {
        for (key, node) in &self.nodes {
            self.check_writer(key, &node.writer);
            self.check_subscriber(key, &node.subscriber);
            self.check_master(key, node);
        }
        self.send_probe();
    }

    /// Asks what time it is, which is as good a question as any.
    fn check_writer(&self, key: &NodeKey, state: &LinkState) {
        let Some(link) = state.link().map(Arc::clone) else {
            return;
        };
        let (events, node, generation) = (self.events.clone(), key.clone(), state.generation);
        let asked = Instant::now();
        tokio::spawn(async move {
            let event = match probe::time_at(&*link, SILENCE).await {
                Ok(time) => Event::Timed {
                    node,
                    generation,
                    time,
                },
                Err(_) => Event::Silent {
                    node,
                    role: Role::Writer,
                    generation,
                    asked,
                },
            };
            let _ = events.send(event);
        });
    }

    fn check_subscriber(&self, key: &NodeKey, state: &LinkState) {
        let Some(link) = state.link() else { return };
        let (pushes, node, generation) = (self.pushes.clone(), key.clone(), state.generation);
        let (asked, answer) = (Instant::now(), link.ping());
        tokio::spawn(async move {
            let answered = tokio::time::timeout(SILENCE, answer).await;
            let event = if answered.unwrap_or(false) {
                Event::Heard {
                    node,
                    generation,
                    asked,
                }
            } else {
                Event::Silent {
                    node,
                    role: Role::Subscriber,
                    generation,
                    asked,
                }
            };
            // Behind the messages that came before it.
            let _ = pushes.send(event);
        });
    }

    /// A connection has not answered in time. It is lost, unless other things came on it meanwhile.
    pub(super) fn is_silent(&mut self, key: &NodeKey, role: Role, generation: u64, asked: Instant) {
        let heard = self.nodes.get(key).map(|node| match role {
            Role::Writer => node.writer.heard,
            Role::Subscriber => node.subscriber.heard,
        });
        if heard.is_none_or(|heard| heard <= asked) {
            let fault = Fault::new(FaultKind::Timeout, "the server has gone silent");
            self.lose(key, role, generation, &fault);
        }
    }

    /// Asks the Sentinels whether the server is still the master.
    fn check_master(&self, key: &NodeKey, node: &Node) {
        let links = [&node.writer, &node.subscriber];
        let known: Vec<Address> = links
            .into_iter()
            .filter_map(|link| link.address.clone())
            .collect();
        if known.is_empty() {
            return;
        }
        let (events, key, server) = (self.events.clone(), key.clone(), node.server.clone());
        let (transport, timeout) = (Arc::clone(&self.transport), self.settings.connect_timeout);
        tokio::spawn(async move {
            let found = probe::successor(&*transport, &server, &known, timeout).await;
            if let Some(address) = found {
                let _ = events.send(Event::Succeeded { node: key, address });
            }
        });
    }

    /// A server has said what time it is, or has not. It is followed: its clock may be set, and another server may take its
    /// place.
    pub(super) fn note_time(&mut self, key: &NodeKey, time: Option<&Reading>) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(key) else {
            return;
        };
        let clock = node.clock.get_or_insert_with(|| {
            time.map_or_else(|| ServerClock::assumed(now), ServerClock::new)
        });
        let set = time.and_then(|time| clock.follow(time));
        let clock = *clock;
        if let Some(milliseconds) = set.filter(|set| set.abs() >= NOTABLE) {
            let server = node.server.endpoint.to_string();
            self.shared.notice(Notice::ClockSet {
                server,
                milliseconds,
            });
        }
        let members = hash_slot(self.keys.members().as_bytes());
        if self.node_of("", members).as_ref() == Some(key) {
            self.shared.clock.set(clock);
        }
    }

    /// What comes from now on was sent after the question whose answer has come: both take the same way.
    pub(super) fn note_heard(&mut self, key: &NodeKey, asked: Instant) {
        if let Some(node) = self.nodes.get_mut(key) {
            node.subscriber.since = asked;
        }
    }

    /// Whether a deadline is past at a server, or here if the time there is not known yet.
    pub(super) fn is_expired(&self, key: &NodeKey, deadline: u64) -> bool {
        let clock = self.nodes.get(key).and_then(|node| node.clock);
        let now = clock.map_or_else(|| self.shared.now(), |clock| clock.milliseconds(self.now));
        deadline <= now
    }

    /// Whether a message that a server passes on comes after its deadline.
    ///
    /// Not if the deadline is before the moment after which the message was sent: then the server's clock was set, and the
    /// sender had not heard of it.
    pub(super) fn is_late(&self, key: &NodeKey, deadline: u64) -> bool {
        self.nodes.get(key).is_some_and(|node| {
            let late = |clock: ServerClock| {
                let sent = clock.milliseconds(node.subscriber.since);
                (sent..=clock.milliseconds(self.now)).contains(&deadline)
            };
            node.clock.is_some_and(late)
        })
    }
}
