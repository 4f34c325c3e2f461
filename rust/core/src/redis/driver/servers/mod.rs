//! The servers, their connections, and the requests that wait for them.
//!
//! Nothing here touches a socket. The outcomes of an event are kept until the driver takes them and acts on them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::map::Map;
use super::node::{Connection, LinkState, Node};
use super::node_key::{LinkId, NodeKey, Role};
use super::outbox::Outbox;
use super::request::{Request, Then};
use crate::redis::fault::{Fault, FaultKind};
use crate::redis::link::Reply;
use crate::redis::link::probe::{MapReply, Opened};
use crate::redis::link::sentinel::Address;
use crate::redis::link::server_clock::Reading;
use crate::redis::random;
use crate::redis::settings::{Server, Settings};
use crate::redis::wire::keys::hash_slot;
use crate::shrink::Shrink;

mod joined;
mod requests;
mod unreachable;

pub(super) use requests::Pipeline;

/// The outcome of an event, for the driver to act on.
pub(super) enum ServerOutcome {
    /// A request was answered. With the answers comes the envelope that it carried.
    Answered(Then, Vec<Reply>, Bytes),
    /// A request was not done, or it is not known whether it was.
    Failed(Then, Fault),
    /// A connection for requests was made.
    WriterOpened(NodeKey),
    /// A connection for subscriptions was made, or lost.
    SubscriberOpened(NodeKey),
    SubscriberLost(NodeKey, Fault),
    /// An attempt to connect failed.
    NotReached(Fault),
    /// The map was read: names may have other servers now.
    Mapped,
    /// A slot has another server now.
    Moved,
}

/// A connection that is to be made.
pub(super) struct Dial {
    pub(super) id: LinkId,
    pub(super) server: Server,
}

pub(super) struct Servers {
    settings: Arc<Settings>,
    map: Map,
    nodes: HashMap<NodeKey, Node>,
    /// Counts the attempts to connect. A server that leaves a cluster and comes back is a new one.
    attempts: u64,
    /// Requests that cannot be sent before the map is known.
    unrouted: Outbox,
    /// Requests to be sent again at their time.
    delayed: Vec<(Instant, Request)>,
    /// Messages on their way to a server.
    outstanding: usize,
    /// Why the last attempt to connect failed, the last connection was lost, or a server last refused.
    last_fault: Option<Fault>,
    outcomes: VecDeque<ServerOutcome>,
    /// Something has changed about connections or the map since that was last asked.
    changed: bool,
}

impl Servers {
    pub(super) fn new(settings: &Arc<Settings>, now: Instant) -> Self {
        Self {
            settings: Arc::clone(settings),
            map: Map::new(settings, now),
            nodes: HashMap::new(),
            attempts: 0,
            unrouted: Outbox::default(),
            delayed: Vec::new(),
            outstanding: 0,
            last_fault: None,
            outcomes: VecDeque::new(),
            changed: true,
        }
    }

    pub(super) fn next_outcome(&mut self) -> Option<ServerOutcome> {
        self.outcomes.pop_front()
    }

    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    pub(super) fn map(&self) -> &Map {
        &self.map
    }

    pub(super) fn map_mut(&mut self) -> &mut Map {
        &mut self.map
    }

    pub(super) fn last_fault(&self) -> Option<&Fault> {
        self.last_fault.as_ref()
    }

    pub(super) fn note_fault(&mut self, fault: Fault) {
        self.last_fault = Some(fault);
    }

    pub(super) fn node(&self, key: &NodeKey) -> Option<&Node> {
        self.nodes.get(key)
    }

    pub(super) fn node_mut(&mut self, key: &NodeKey) -> Option<&mut Node> {
        self.nodes.get_mut(key)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = (&NodeKey, &Node)> {
        self.nodes.iter()
    }

    pub(super) fn nodes_mut(&mut self) -> impl Iterator<Item = (&NodeKey, &mut Node)> {
        self.nodes.iter_mut()
    }

    /// The record of a server, made if there is none.
    pub(super) fn node_entry(&mut self, key: &NodeKey, now: Instant) -> Option<&mut Node> {
        if !self.nodes.contains_key(key) {
            let node = self.new_node(key, now)?;
            self.nodes.insert(key.clone(), node);
        }
        self.nodes.get_mut(key)
    }

    fn new_node(&self, key: &NodeKey, now: Instant) -> Option<Node> {
        match key {
            NodeKey::Shard(shard) => {
                let server = self.settings.hosts.get(*shard)?.clone();
                Some(Node::new(server, now))
            }
            NodeKey::Address(host, port) => {
                let seed = self.settings.hosts.first()?;
                let server = Server {
                    endpoint: seed.endpoint.at(host, *port),
                    sentinels: Vec::new(),
                    master_name: None,
                };
                Some(Node::new(server, now).named(now))
            }
        }
    }

    /// Whether all servers that are known have both connections.
    pub(super) fn are_open(&self) -> bool {
        self.nodes.values().all(Node::is_open)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Whether a server that was there is not there now.
    pub(super) fn has_lost_one(&self) -> bool {
        let lost = |node: &Node| node.writer.was_open && !node.is_open();
        self.nodes.values().any(lost)
    }

    pub(super) fn is_current(&self, id: &LinkId) -> bool {
        let node = self.nodes.get(&id.node);
        node.is_some_and(|node| node.link(id.role).generation == id.generation)
    }

    fn link_mut(&mut self, id: &LinkId) -> Option<&mut LinkState> {
        let node = self.nodes.get_mut(&id.node)?;
        Some(node.link_mut(id.role)).filter(|link| link.generation == id.generation)
    }

    /// Notes that something came on a connection.
    pub(super) fn note_push(&mut self, id: &LinkId, now: Instant) {
        if let Some(link) = self.link_mut(id) {
            link.last_received = now;
        }
    }

    /// Notes that whatever comes from now on was sent after `asked`: it comes behind the answer to the ping of that moment.
    pub(super) fn note_answer(&mut self, id: &LinkId, asked: Instant) {
        if let Some(link) = self.link_mut(id) {
            link.since = asked;
        }
    }

    /// When the next attempt to connect is due, if one waits for that.
    pub(super) fn next_attempt(&self) -> Option<Instant> {
        self.nodes.values().filter_map(Node::next_attempt).min()
    }

    /// The connections that are due to be opened.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Dial> {
        let mut due = Vec::new();
        for (key, node) in &mut self.nodes {
            for role in [Role::Writer, Role::Subscriber] {
                let state = node.link_mut(role);
                if !state.is_due(now) {
                    continue;
                }
                self.attempts += 1;
                state.connection = Connection::Opening;
                state.since = now;
                state.generation = self.attempts;
                due.push(Dial {
                    id: node.id(key, role),
                    server: node.server.clone(),
                });
            }
        }
        due
    }

    /// Handles the result of an attempt to connect.
    pub(super) fn opened(&mut self, id: &LinkId, opened: Result<Opened, Fault>, now: Instant) {
        self.changed = true;
        let Some(node) = self.nodes.get_mut(&id.node) else {
            return;
        };
        let state = node.link_mut(id.role);
        match opened {
            Ok(Opened { link, address, .. }) => {
                self.map.note_sharding(link.can_shard());
                state.address = address;
                state.connection = Connection::Open(link);
                state.backoff.reset();
                state.was_open = true;
                state.failure = None;
                let key = id.node.clone();
                self.outcomes.push_back(match id.role {
                    Role::Writer => ServerOutcome::WriterOpened(key),
                    Role::Subscriber => ServerOutcome::SubscriberOpened(key),
                });
            }
            Err(fault) => {
                state.retry(now, random::fraction());
                state.failure = Some(fault.clone());
                self.not_reached(fault);
                self.map.look_again();
            }
        }
    }

    fn not_reached(&mut self, fault: Fault) {
        self.last_fault = Some(fault.clone());
        self.outcomes.push_back(ServerOutcome::NotReached(fault));
    }

    /// Handles the loss of a connection, or gives it up.
    pub(super) fn lose(&mut self, id: &LinkId, fault: &Fault, now: Instant) {
        let generation = self.attempts + 1;
        let Some(link) = self.link_mut(id).filter(|link| link.link().is_some()) else {
            return;
        };
        link.retry(now, random::fraction());
        link.address = None;
        link.lost = Some(now);
        link.generation = generation;
        self.attempts = generation;
        self.changed = true;
        self.last_fault = Some(fault.clone());
        if let Some(node) = self.nodes.get_mut(&id.node) {
            match id.role {
                Role::Writer => node.unanswered = 0,
                Role::Subscriber => {
                    node.changes.clear();
                    let lost = ServerOutcome::SubscriberLost(id.node.clone(), fault.clone());
                    self.outcomes.push_back(lost);
                }
            }
        }
        self.map.look_again();
    }

    /// A connection has not answered in time. It is lost, unless other things came on it meanwhile.
    pub(super) fn unanswered(&mut self, id: &LinkId, asked: Instant, now: Instant) {
        if self
            .link_mut(id)
            .is_none_or(|link| link.last_received <= asked)
        {
            let fault = Fault::new(FaultKind::Timeout, "the server has gone silent");
            self.lose(id, &fault, now);
        }
    }

    /// The server reports that it is a replica. Behind Sentinels there is a master elsewhere, and that is where messages are
    /// published first.
    fn demoted(&mut self, writer: &LinkId, fault: &Fault, now: Instant) {
        let key = &writer.node;
        let current = self.is_current(writer);
        let node = self.nodes.get(key).filter(|_| current);
        let address = node.and_then(|node| node.writer.address.as_ref());
        let subscriber = node
            .filter(|node| address.is_some() && node.subscriber.address.as_ref() == address)
            .map(|node| node.id(key, Role::Subscriber));
        self.lose(writer, fault, now);
        if let Some(subscriber) = subscriber {
            self.lose(&subscriber, fault, now);
        }
    }

    /// There is another master, at this address: connections to any other address are given up.
    pub(super) fn succeeded(&mut self, key: &NodeKey, address: &Address, now: Instant) {
        let Some(node) = self.nodes.get(key) else {
            return;
        };
        let fault = Fault::new(FaultKind::Lost, "the Sentinels name another master");
        let goes_elsewhere = |role: &Role| {
            let known = node.link(*role).address.as_ref();
            known.is_some_and(|known| known != address)
        };
        let roles = [Role::Writer, Role::Subscriber].into_iter();
        let old: Vec<LinkId> = roles
            .filter(goes_elsewhere)
            .map(|role| node.id(key, role))
            .collect();
        for id in old {
            self.lose(&id, &fault, now);
        }
    }

    /// A look at the map has an answer.
    pub(super) fn mapped(&mut self, found: Result<MapReply, Fault>, now: Instant) {
        self.changed = true;
        match found {
            Ok(found) => self.map.found(now, found),
            Err(fault) => {
                self.map.not_found(now, &fault);
                self.not_reached(fault);
                return;
            }
        }
        self.leave_nodes(now);
        self.route_again(now);
        self.outcomes.push_back(ServerOutcome::Mapped);
        // A server that is down may still have its slots on the map: look until another has them.
        if self.has_lost_one() {
            self.map.look_again();
        }
    }

    /// Forgets the servers that have no slots any more.
    fn leave_nodes(&mut self, now: Instant) {
        let gone = self.nodes.keys().filter(|key| !self.map.has(key));
        let gone: Vec<NodeKey> = gone.cloned().collect();
        for key in gone {
            if let Some(node) = self.nodes.remove(&key) {
                self.reroute(node.outbox, now);
            }
        }
    }

    /// A server reports that a slot has a new master.
    pub(super) fn moved(&mut self, named_by: &NodeKey, slot: u16, host: &str, port: u16) {
        if let NodeKey::Address(host, port) = named_by.named(host, port) {
            self.map.moved(slot, host, port);
            self.outcomes.push_back(ServerOutcome::Moved);
        }
    }

    /// A server has answered with its time, or refused to. Its clock is followed: it may be set, and another server may
    /// take its place. Gives by how many milliseconds it was set.
    pub(super) fn note_time(
        &mut self,
        key: &NodeKey,
        time: Option<&Reading>,
        now: Instant,
    ) -> Option<i64> {
        self.nodes.get_mut(key)?.note_time(time, now)
    }

    /// The server of a key that belongs to a name.
    pub(super) fn node_of_key(&self, name: &str, key: &str) -> Option<&Node> {
        let key = self.map.node_of(name, hash_slot(key.as_bytes()))?;
        self.nodes.get(&key)
    }

    /// Whether there is a connection to the server of a key.
    pub(super) fn can_write(&self, name: &str, key: &str) -> bool {
        let node = self.node_of_key(name, key);
        node.is_some_and(|node| node.writer.link().is_some())
    }

    /// The time at the server of a key, in milliseconds since the epoch, if it is known.
    pub(super) fn time_at_key(&self, name: &str, key: &str, now: Instant) -> Option<u64> {
        let clock = self.node_of_key(name, key)?.clock?;
        Some(clock.milliseconds(now))
    }

    pub(super) fn shrink_if_sparse(&mut self) {
        self.delayed.shrink_if_sparse();
        self.unrouted.shrink_if_sparse();
        self.outcomes.shrink_if_sparse();
        for node in self.nodes.values_mut() {
            node.outbox.shrink_if_sparse();
            node.changes.shrink_if_sparse();
        }
    }
}

#[cfg(test)]
mod tests;
