//! Which server has what: shards by a ring, masters by Sentinels, slots by a cluster.

use std::sync::Arc;
use std::time::Duration;

use super::event::Event;
use super::node::Node;
use super::node_key::NodeKey;
use super::Driver;
use crate::redis::fault::Fault;
use crate::redis::host::Host;
use crate::redis::link::probe::{look, Found, SlotRange, PATIENCE};
use crate::redis::random;
use crate::redis::settings::{Endpoint, Host as ServerHost, Settings, Topology};
use crate::redis::wire::ring::score_at_address;

/// How long a look at the map of a cluster is good for, at least.
const MAP_AGE: Duration = Duration::from_millis(200);

/// Which server has what.
#[derive(Debug)]
pub(super) enum Map {
    /// Not known yet.
    Unknown,
    /// The hosts, by the ring.
    Shards,
    /// Masters of slots, in the order of the slots.
    Slots(Vec<SlotRange>),
}

impl Map {
    pub(super) fn first(settings: &Settings) -> Self {
        let behind_sentinels = settings.hosts.iter().any(|host| !host.sentinels.is_empty());
        match settings.topology {
            Topology::Shards => Self::Shards,
            Topology::Auto if behind_sentinels => Self::Shards,
            Topology::Auto | Topology::Cluster | Topology::Serverless => Self::Unknown,
        }
    }
}

impl<H: Host> Driver<H> {
    pub(super) fn is_serverless(&self) -> bool {
        self.settings.topology == Topology::Serverless
    }

    pub(super) fn needs_map(&self) -> bool {
        matches!(self.map, Map::Unknown)
    }

    /// Whether topics are sharded channels: in a cluster, so that a message goes to one node and not to all.
    pub(super) fn publishes_sharded(&self) -> bool {
        let asked_for = self
            .settings
            .hosts
            .iter()
            .all(|host| host.endpoint.protocol != 2);
        matches!(self.map, Map::Slots(_)) && asked_for && self.sharding
    }

    /// Whether each server passes on what is published on it to all others: in a cluster, what is not sharded.
    pub(super) fn is_passed_on(&self) -> bool {
        matches!(self.map, Map::Slots(_)) && !self.publishes_sharded()
    }

    /// All servers that messages go to; none before the map is known.
    pub(super) fn servers(&self) -> Vec<NodeKey> {
        match &self.map {
            Map::Unknown => Vec::new(),
            Map::Shards => (0..self.settings.hosts.len()).map(NodeKey::Shard).collect(),
            Map::Slots(slots) => {
                let address = |range: &SlotRange| NodeKey::Address(range.host.clone(), range.port);
                let mut servers: Vec<NodeKey> = slots.iter().map(address).collect();
                servers.sort_unstable();
                servers.dedup();
                servers
            }
        }
    }

    /// The server to which a name belongs, or a slot.
    pub(super) fn node_of(&self, name: &str, slot: u16) -> Option<NodeKey> {
        match &self.map {
            Map::Unknown => None,
            Map::Shards => {
                let shards = self.settings.hosts.len();
                Some(NodeKey::Shard(self.settings.ring.shard(name, shards)))
            }
            Map::Slots(slots) => {
                let place = slots.partition_point(|range| range.last < slot);
                let range = slots.get(place).filter(|range| range.first <= slot)?;
                Some(NodeKey::Address(range.host.clone(), range.port))
            }
        }
    }

    /// The server on which a topic is published and heard. What is not sharded may be published anywhere in a cluster; it is done
    /// at one place that stays when slots move, because a message that goes from server to server may be overtaken.
    pub(super) fn node_of_published(&self, name: &str, slot: u16) -> Option<NodeKey> {
        match &self.map {
            Map::Slots(slots) if !self.publishes_sharded() => {
                let score = |range: &&SlotRange| score_at_address(&range.host, range.port, slot);
                let range = slots.iter().max_by_key(score)?;
                Some(NodeKey::Address(range.host.clone(), range.port))
            }
            _ => self.node_of(name, slot),
        }
    }

    /// The record of a server, made if there is none.
    pub(super) fn node_entry(&mut self, key: &NodeKey) -> Option<&mut Node> {
        if !self.nodes.contains_key(key) {
            let node = self.new_node(key)?;
            self.nodes.insert(key.clone(), node);
        }
        self.nodes.get_mut(key)
    }

    fn new_node(&self, key: &NodeKey) -> Option<Node> {
        match key {
            NodeKey::Shard(shard) => {
                let server = self.settings.hosts.get(*shard)?.clone();
                Some(Node::new(server, self.now))
            }
            NodeKey::Address(host, port) => {
                let seed = self.settings.hosts.first()?;
                let server = ServerHost {
                    endpoint: seed.endpoint.at(host, *port),
                    sentinels: Vec::new(),
                    master_name: None,
                };
                Some(Node::new(server, self.now).named(self.now))
            }
        }
    }

    /// Has the map looked at again, if there is one that changes.
    pub(super) fn remap(&mut self) {
        if !matches!(self.map, Map::Shards) {
            self.mapping = true;
        }
    }

    pub(super) fn look_for_map(&mut self) {
        if !(self.mapping || self.needs_map()) || self.now < self.next_mapping {
            return;
        }
        // Until the answer: it comes in less than twice the time of one attempt for each server.
        self.next_mapping = self.now + Duration::from_secs(3600);
        self.mapping = false;
        let mut candidates: Vec<Endpoint> = Vec::new();
        if let (Map::Slots(slots), Some(seed)) = (&self.map, self.settings.hosts.first()) {
            let mut known: Vec<_> = slots
                .iter()
                .map(|range| (&range.host, range.port))
                .collect();
            known.sort_unstable();
            known.dedup();
            candidates.extend(
                known
                    .iter()
                    .map(|(host, port)| seed.endpoint.at(host, *port)),
            );
            // Not the same one first each time: it may be the one that has the old map.
            if !candidates.is_empty() {
                let first = random::below(candidates.len());
                candidates.rotate_left(first);
            }
        }
        candidates.extend(self.settings.hosts.iter().map(|host| host.endpoint.clone()));
        let must_be_cluster =
            self.settings.topology != Topology::Auto || matches!(self.map, Map::Slots(_));
        let (events, transport) = (self.events.clone(), Arc::clone(&self.transport));
        let timeout = self.settings.connect_timeout.min(PATIENCE);
        tokio::spawn(async move {
            let found = look(transport, candidates, timeout, must_be_cluster).await;
            let _ = events.send(Event::Mapped(found));
        });
    }

    pub(super) fn mapped(&mut self, found: Result<Found, Fault>) {
        self.next_mapping = self.now + MAP_AGE;
        self.changed = true;
        match found {
            Ok(Found::NoCluster) => self.map = Map::Shards,
            Ok(Found::Slots(slots)) => self.map = Map::Slots(slots),
            Err(fault) => {
                if self.needs_map() {
                    self.unmapped = Some(fault.clone());
                }
                self.not_reached(fault);
                self.mapping = true;
                return;
            }
        }
        self.unmapped = None;
        self.leave_nodes();
        self.route_again();
        self.place_topics();
        // A server that is down may still have its slots on the map: look until another has them.
        if self
            .nodes
            .values()
            .any(|node| !node.is_open() && node.writer.was_open)
        {
            self.remap();
        }
    }

    /// Forgets the servers that have no slots any more.
    fn leave_nodes(&mut self) {
        let Map::Slots(slots) = &self.map else { return };
        let stays = |key: &NodeKey| match key {
            NodeKey::Shard(_) => false,
            NodeKey::Address(host, port) => slots
                .iter()
                .any(|range| range.host == *host && range.port == *port),
        };
        let gone: Vec<NodeKey> = self
            .nodes
            .keys()
            .filter(|key| !stays(key))
            .cloned()
            .collect();
        for key in gone {
            if let Some(node) = self.nodes.remove(&key) {
                self.reroute(node.outbox);
            }
        }
    }

    /// A slot has a new master. The topics are still to be given their places.
    pub(super) fn moved(&mut self, named_by: &NodeKey, slot: u16, host: &str, port: u16) {
        let NodeKey::Address(host, port) = address(named_by, host, port) else {
            return;
        };
        if let Map::Slots(slots) = &mut self.map {
            let place = slots.partition_point(|range| range.last < slot);
            if let Some(range) = slots
                .get(place)
                .filter(|range| range.first <= slot)
                .cloned()
            {
                let mut parts = Vec::with_capacity(3);
                if range.first < slot {
                    parts.push(SlotRange {
                        last: slot - 1,
                        ..range.clone()
                    });
                }
                parts.push(SlotRange {
                    first: slot,
                    last: slot,
                    host,
                    port,
                });
                if slot < range.last {
                    parts.push(SlotRange {
                        first: slot + 1,
                        ..range
                    });
                }
                slots.splice(place..=place, parts);
            }
        }
        self.mapping = true;
        self.to_place = true;
    }
}

/// The address that a server named; one that names none means itself.
pub(super) fn address(named_by: &NodeKey, host: &str, port: u16) -> NodeKey {
    match named_by {
        NodeKey::Address(here, _) if host.is_empty() => NodeKey::Address(here.clone(), port),
        _ => NodeKey::Address(host.to_owned(), port),
    }
}
