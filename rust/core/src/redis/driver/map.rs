//! The map from names to servers: by the ring of the shards, or by the slots of a cluster.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::node_key::NodeKey;
use crate::redis::fault::Fault;
use crate::redis::link::PROBE_TIMEOUT;
use crate::redis::link::probe::{MapReply, SlotRange};
use crate::redis::settings::{Endpoint, Protocol, Settings, Topology};
use crate::redis::wire::ring::score_at_address;

/// How long a look at the map of a cluster is good for, at least.
const MAP_AGE: Duration = Duration::from_millis(200);
/// When the next look may begin while one is under way: its answer comes long before that.
const LOOKING: Duration = Duration::from_secs(3600);

/// The map, and when it is to be read again.
#[derive(Debug)]
pub(super) struct Map {
    settings: Arc<Settings>,
    places: Places,
    /// It has to be read again.
    stale: bool,
    /// When it may be read again.
    next_look: Instant,
    /// Whether all connections so far could carry sharded channels.
    can_shard: bool,
    /// Why the map is not known, if the last look failed and none succeeded.
    failure: Option<Fault>,
}

#[derive(Debug)]
enum Places {
    /// Not known yet.
    Unknown,
    /// The hosts, by the ring.
    Shards,
    /// Masters of slots, in the order of the slots.
    Slots(Vec<SlotRange>),
}

/// A look at the map: which servers to ask, and whether one that is in no cluster is an error.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) candidates: Vec<Endpoint>,
    pub(super) timeout: Duration,
    pub(super) must_be_cluster: bool,
}

fn key_of(range: &SlotRange) -> NodeKey {
    NodeKey::Address(range.host.clone(), range.port)
}

fn range_at(slots: &[SlotRange], slot: u16) -> Option<usize> {
    let index = slots.partition_point(|range| range.last < slot);
    slots
        .get(index)
        .is_some_and(|range| range.first <= slot)
        .then_some(index)
}

impl Map {
    pub(super) fn new(settings: &Arc<Settings>, now: Instant) -> Self {
        let behind_sentinels = settings.hosts.iter().any(|host| !host.sentinels.is_empty());
        let places = match settings.topology {
            Topology::Shards => Places::Shards,
            Topology::Auto if behind_sentinels => Places::Shards,
            Topology::Auto | Topology::Cluster | Topology::Serverless => Places::Unknown,
        };
        Self {
            settings: Arc::clone(settings),
            places,
            stale: false,
            next_look: now,
            can_shard: true,
            failure: None,
        }
    }

    pub(super) fn is_known(&self) -> bool {
        !matches!(self.places, Places::Unknown)
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.places, Places::Slots(_))
    }

    /// Why it is not known.
    pub(super) fn failure(&self) -> Option<&Fault> {
        self.failure.as_ref()
    }

    /// Whether topics are sharded channels: in a cluster, so that a message goes to one node and not to all.
    pub(super) fn publishes_sharded(&self) -> bool {
        let hosts = &self.settings.hosts;
        let asked_for = hosts
            .iter()
            .all(|host| host.endpoint.protocol != Protocol::Resp2);
        self.is_cluster() && asked_for && self.can_shard
    }

    /// Notes whether a new connection can carry sharded channels.
    pub(super) fn note_sharding(&mut self, can_shard: bool) {
        self.can_shard &= can_shard;
    }

    /// Whether each server passes published messages on to all others: in a cluster whose topics are not sharded.
    pub(super) fn is_passed_on(&self) -> bool {
        self.is_cluster() && !self.publishes_sharded()
    }

    /// All servers that messages go to; none before the map is known.
    pub(super) fn servers(&self) -> Vec<NodeKey> {
        match &self.places {
            Places::Unknown => Vec::new(),
            Places::Shards => (0..self.settings.hosts.len()).map(NodeKey::Shard).collect(),
            Places::Slots(slots) => {
                let mut servers: Vec<NodeKey> = slots.iter().map(key_of).collect();
                servers.sort_unstable();
                servers.dedup();
                servers
            }
        }
    }

    /// Whether messages go to a server.
    pub(super) fn has(&self, key: &NodeKey) -> bool {
        match (&self.places, key) {
            (Places::Slots(slots), NodeKey::Address(host, port)) => slots
                .iter()
                .any(|range| range.host == *host && range.port == *port),
            (Places::Slots(_), NodeKey::Shard(_)) => false,
            (Places::Unknown | Places::Shards, _) => true,
        }
    }

    /// The server to which a name belongs, or a slot.
    pub(super) fn node_of(&self, name: &str, slot: u16) -> Option<NodeKey> {
        match &self.places {
            Places::Unknown => None,
            Places::Shards => {
                let shards = self.settings.hosts.len();
                Some(NodeKey::Shard(self.settings.ring.shard(name, shards)))
            }
            Places::Slots(slots) => slots.get(range_at(slots, slot)?).map(key_of),
        }
    }

    /// The server on which a topic is published and subscribed to. A topic that is not sharded may be published anywhere
    /// in a cluster. One server is used for it that stays when slots move, because messages that pass between servers may
    /// be reordered.
    pub(super) fn node_of_published(&self, name: &str, slot: u16) -> Option<NodeKey> {
        match &self.places {
            Places::Slots(slots) if !self.publishes_sharded() => {
                let score = |range: &&SlotRange| score_at_address(&range.host, range.port, slot);
                slots.iter().max_by_key(score).map(key_of)
            }
            _ => self.node_of(name, slot),
        }
    }

    /// Requests another look at the map, if it can change.
    pub(super) fn look_again(&mut self) {
        if !matches!(self.places, Places::Shards) {
            self.stale = true;
        }
    }

    /// The look that is due, if one is. The known servers are asked before the seeds, beginning with the one of this index: not
    /// always with the same one, which may have the old map.
    pub(super) fn next_look(
        &mut self,
        now: Instant,
        below: impl FnOnce(usize) -> usize,
    ) -> Option<Look> {
        let is_due = self.stale || !self.is_known();
        if !is_due || now < self.next_look {
            return None;
        }
        self.next_look = now + LOOKING;
        self.stale = false;
        let mut candidates: Vec<Endpoint> = Vec::new();
        if let (Places::Slots(slots), Some(seed)) = (&self.places, self.settings.hosts.first()) {
            let known = slots.iter().map(|range| (&range.host, range.port));
            let mut known: Vec<_> = known.collect();
            known.sort_unstable();
            known.dedup();
            let at = |(host, port): (&String, u16)| seed.endpoint.at(host, port);
            candidates.extend(known.into_iter().map(at));
            if !candidates.is_empty() {
                let first = below(candidates.len());
                candidates.rotate_left(first);
            }
        }
        let seeds = self.settings.hosts.iter();
        candidates.extend(seeds.map(|host| host.endpoint.clone()));
        Some(Look {
            candidates,
            timeout: self.settings.connect_timeout.min(PROBE_TIMEOUT),
            must_be_cluster: self.settings.topology != Topology::Auto || self.is_cluster(),
        })
    }

    /// Handles the reply to a look.
    pub(super) fn found(&mut self, now: Instant, found: MapReply) {
        self.next_look = now + MAP_AGE;
        self.failure = None;
        self.places = match found {
            MapReply::NoCluster => Places::Shards,
            MapReply::Slots(slots) => Places::Slots(slots),
        };
    }

    /// Notes that a look failed; there will be another.
    pub(super) fn not_found(&mut self, now: Instant, fault: &Fault) {
        self.next_look = now + MAP_AGE;
        self.stale = true;
        if !self.is_known() {
            self.failure = Some(fault.clone());
        }
    }

    /// Notes that a slot has a new master.
    pub(super) fn moved(&mut self, slot: u16, host: String, port: u16) {
        self.stale = true;
        let Places::Slots(slots) = &mut self.places else {
            return;
        };
        let Some(index) = range_at(slots, slot) else {
            return;
        };
        let range = slots.remove(index);
        let (first, last) = (range.first, range.last);
        let before = (first < slot).then(|| SlotRange {
            last: slot - 1,
            ..range.clone()
        });
        let behind = (slot < last).then(|| SlotRange {
            first: slot + 1,
            ..range
        });
        let moved = SlotRange {
            first: slot,
            last: slot,
            host,
            port,
        };
        let parts = before.into_iter().chain([moved]).chain(behind);
        slots.splice(index..index, parts);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::settings;
    use super::*;

    fn range(first: u16, last: u16, host: &str) -> SlotRange {
        SlotRange {
            first,
            last,
            host: host.to_owned(),
            port: 1,
        }
    }

    fn cluster(now: Instant) -> Map {
        let mut map = Map::new(&Arc::new(settings(Topology::Cluster)), now);
        let slots = vec![range(0, 8191, "a"), range(8192, 16383, "b")];
        map.found(now, MapReply::Slots(slots));
        map
    }

    fn host(map: &Map, slot: u16) -> Option<String> {
        match map.node_of("", slot)? {
            NodeKey::Address(host, _) => Some(host),
            NodeKey::Shard(_) => None,
        }
    }

    #[test]
    fn a_slot_that_moved_has_its_new_master_and_its_neighbours_keep_theirs() {
        for slot in [0, 5, 8191] {
            let mut map = cluster(Instant::now());
            map.moved(slot, "c".to_owned(), 2);
            assert_eq!(host(&map, slot).as_deref(), Some("c"));
            for other in [0, 4, 6, 8190, 8191].iter().filter(|other| **other != slot) {
                assert_eq!(host(&map, *other).as_deref(), Some("a"), "{slot} {other}");
            }
            assert_eq!(host(&map, 8192).as_deref(), Some("b"));
        }
    }

    #[test]
    fn one_look_is_under_way_at_a_time_and_a_failed_one_is_repeated() {
        let now = Instant::now();
        let mut map = Map::new(&Arc::new(settings(Topology::Cluster)), now);
        assert!(map.next_look(now, |_| 0).is_some());
        assert!(map.next_look(now + MAP_AGE, |_| 0).is_none());
        let fault = Fault::new(crate::redis::FaultKind::Unreachable, "nobody is there");
        map.not_found(now, &fault);
        assert_eq!(map.failure(), Some(&fault));
        assert!(map.next_look(now, |_| 0).is_none(), "it was just looked at");
        assert!(map.next_look(now + MAP_AGE, |_| 0).is_some());
    }

    #[test]
    fn shards_are_never_looked_at() {
        let now = Instant::now();
        let mut map = Map::new(&Arc::new(settings(Topology::Shards)), now);
        map.look_again();
        assert!(map.next_look(now, |_| 0).is_none());
        assert_eq!(map.node_of("work", 5), Some(NodeKey::Shard(0)));
    }

    #[test]
    fn the_known_servers_are_asked_before_the_seeds() {
        let now = Instant::now();
        let mut map = cluster(now);
        map.look_again();
        let look = map.next_look(now + MAP_AGE, |_| 1).expect("it is due");
        let asked: Vec<_> = look.candidates.iter().map(ToString::to_string).collect();
        assert_eq!(asked, ["b:1", "a:1", "seed:1"]);
        assert!(look.must_be_cluster);
    }
}
