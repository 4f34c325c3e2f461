//! Which server has what: shards by a ring, masters by Sentinels, slots by a cluster.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::connection::{Command, Link, PushSink, Refusal, Reply, Transport};
use super::driver::Driver;
use super::fault::{Fault, FaultKind};
use super::host::Host;
use super::nodes::{Event, Node, NodeKey};
use super::ring::score_at_address;
use super::server_clock::Reading;
use super::settings::{Endpoint, Host as ServerHost, Settings, Topology};

/// How long a look at the map of a cluster is good for, at least.
const MAP_AGE: Duration = Duration::from_millis(200);

/// How long a Sentinel, or a server that is asked for the map, may take.
const PATIENCE: Duration = Duration::from_secs(1);

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

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlotRange {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) host: String,
    pub(super) port: u16,
}

/// What a look found.
#[derive(Debug)]
pub(super) enum Found {
    NoCluster,
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

/// An open connection.
pub(super) struct Opened {
    pub(super) link: Arc<dyn Link>,
    /// Where to, if the Sentinels told.
    pub(super) address: Option<Address>,
    /// What time it is there, if that was asked and told.
    pub(super) time: Option<Reading>,
}

/// A host and a port.
pub(super) type Address = (String, u16);

/// Opens a connection to a server, or to whichever the Sentinels say is the master.
pub(super) async fn open(
    transport: &dyn Transport,
    server: &ServerHost,
    timeout: Duration,
    pushes: Option<PushSink>,
) -> Result<Opened, Fault> {
    if server.sentinels.is_empty() {
        let link = transport.open(&server.endpoint, timeout, pushes).await?;
        return Ok(Opened {
            link,
            address: None,
            time: None,
        });
    }
    let mut last = None;
    for sentinel in &server.sentinels {
        let opened = match master(transport, sentinel, server, timeout).await {
            Ok(address) => {
                let endpoint = server.endpoint.at(&address.0, address.1);
                let opening = open_master(transport, &endpoint, timeout, pushes.clone()).await;
                opening.map(|link| Opened {
                    link,
                    address: Some(address),
                    time: None,
                })
            }
            Err(fault) => Err(fault),
        };
        match opened {
            Ok(opened) => return Ok(opened),
            Err(fault) => last = Some(fault),
        }
    }
    Err(last.unwrap_or_else(|| Fault::new(FaultKind::Unreachable, "no Sentinel is given")))
}

/// Where the master is that the Sentinels name, if that is not where the connections go: a master that was replaced may not
/// know it for seconds, and what it is given until then is lost.
pub(super) async fn successor(
    transport: &dyn Transport,
    server: &ServerHost,
    known: &[Address],
    timeout: Duration,
) -> Option<Address> {
    for sentinel in &server.sentinels {
        let Ok(address) = master(transport, sentinel, server, timeout).await else {
            continue;
        };
        if known.iter().all(|known| *known == address) {
            return None;
        }
        // The Sentinel may be the one that has not heard: whoever is to be the master has to agree.
        let endpoint = server.endpoint.at(&address.0, address.1);
        if open_master(transport, &endpoint, timeout, None)
            .await
            .is_ok()
        {
            return Some(address);
        }
    }
    None
}

async fn master(
    transport: &dyn Transport,
    sentinel: &Endpoint,
    server: &ServerHost,
    timeout: Duration,
) -> Result<Address, Fault> {
    // There are others to ask: one that is silent must not keep everything waiting.
    let timeout = timeout.min(PATIENCE);
    let name = server.master_name.as_deref().unwrap_or_default();
    let link = transport.open(sentinel, timeout, None).await?;
    let ask = Command::new("SENTINEL")
        .word("GET-MASTER-ADDR-BY-NAME")
        .text(name);
    let replies = in_time(timeout, link.request(&[ask])).await?;
    if let Some(refusal) = replies.first().and_then(Refusal::of) {
        if refusal.is_unknown_command() {
            let text = format!(
                "{sentinel} is a server and no Sentinel: give it without 'sentinels', or give the address of a Sentinel, whose \
                 port is 26379 unless it was changed"
            );
            return Err(Fault::new(FaultKind::Refused, text));
        }
        return Err(refusal.into_fault());
    }
    let address = match replies.first() {
        Some(Reply::Array(words)) => {
            let host = words.first().and_then(text);
            let port = words
                .get(1)
                .and_then(text)
                .and_then(|port| port.parse().ok());
            host.zip(port)
        }
        _ => None,
    };
    address.ok_or_else(|| {
        Fault::new(
            FaultKind::Unreachable,
            format!("the Sentinel {sentinel} knows no master '{name}'"),
        )
    })
}

/// A Sentinel may not have noticed yet that its master is none any more.
async fn open_master(
    transport: &dyn Transport,
    endpoint: &Endpoint,
    timeout: Duration,
    pushes: Option<PushSink>,
) -> Result<Arc<dyn Link>, Fault> {
    let asks = pushes.is_none();
    let link = transport.open(endpoint, timeout, pushes).await?;
    if asks {
        let replies = in_time(timeout, link.request(&[Command::new("ROLE")])).await?;
        if !is_master(replies.first()) {
            let text = format!("{endpoint} is no master yet, or no longer");
            return Err(Fault::new(FaultKind::Unreachable, text));
        }
    }
    Ok(link)
}

/// What a server says of its role; one that does not say is believed.
fn is_master(reply: Option<&Reply>) -> bool {
    role(reply).is_none_or(|role| role == "master")
}

fn role(reply: Option<&Reply>) -> Option<String> {
    match reply {
        Some(Reply::Array(words)) => words.first().and_then(text),
        _ => None,
    }
}

/// Opens a connection that asks. It is good for nothing before it is known what time it is there.
pub(super) async fn open_writer(
    transport: &dyn Transport,
    server: &ServerHost,
    timeout: Duration,
) -> Result<Opened, Fault> {
    let opened = open(transport, server, timeout, None).await?;
    let time = time_at(&*opened.link, timeout).await?;
    if time.is_none() {
        // A Sentinel does not tell the time. Nor does a server whose user may not ask.
        refuse_sentinel(&*opened.link, &server.endpoint, timeout).await?;
    }
    Ok(Opened { time, ..opened })
}

async fn refuse_sentinel(
    link: &dyn Link,
    endpoint: &Endpoint,
    timeout: Duration,
) -> Result<(), Fault> {
    let replies = in_time(timeout, link.request(&[Command::new("ROLE")])).await?;
    if role(replies.first()).as_deref() != Some("sentinel") {
        return Ok(());
    }
    let text = format!(
        "{endpoint} is a Sentinel, which keeps no messages: give it in 'sentinels', with the 'master_name', or give the server"
    );
    Err(Fault::new(FaultKind::Refused, text))
}

/// What time it is at a server; none if it does not say. It may not be allowed to.
pub(super) async fn time_at(link: &dyn Link, timeout: Duration) -> Result<Option<Reading>, Fault> {
    let asked = Instant::now();
    let replies = in_time(timeout, link.request(&[Command::new("TIME")])).await?;
    Ok(Reading::new(asked, Instant::now(), replies.first()))
}

async fn in_time<T>(
    timeout: Duration,
    answer: impl std::future::Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    let late = |_| Fault::new(FaultKind::Timeout, "the server did not answer in time");
    tokio::time::timeout(timeout, answer).await.map_err(late)?
}

fn text(reply: &Reply) -> Option<String> {
    match reply {
        Reply::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Reply::SimpleString(text) | Reply::VerbatimString { text, .. } => Some(text.clone()),
        _ => None,
    }
}

/// Asks one server after the other for the map, until one knows.
async fn look(
    transport: Arc<dyn Transport>,
    candidates: Vec<Endpoint>,
    timeout: Duration,
    must_be_cluster: bool,
) -> Result<Found, Fault> {
    let mut last = None;
    for endpoint in candidates {
        match look_at(&*transport, &endpoint, timeout, must_be_cluster).await {
            Ok(found) => return Ok(found),
            Err(fault) => last = Some(fault),
        }
    }
    Err(last.unwrap_or_else(|| Fault::new(FaultKind::Unreachable, "no server is given")))
}

async fn look_at(
    transport: &dyn Transport,
    endpoint: &Endpoint,
    timeout: Duration,
    must_be_cluster: bool,
) -> Result<Found, Fault> {
    let link = transport.open(endpoint, timeout, None).await?;
    let ask = Command::new("CLUSTER").word("SLOTS");
    let replies = in_time(timeout, link.request(&[ask])).await?;
    if let Some(refusal) = replies.first().and_then(Refusal::of) {
        if must_be_cluster || refusal.passes() {
            return Err(refusal.into_fault());
        }
        return Ok(Found::NoCluster);
    }
    let slots = slots(replies.first(), endpoint);
    if slots.is_empty() {
        let text = format!("{endpoint} knows of no server that has slots");
        return Err(Fault::new(FaultKind::Unreachable, text));
    }
    Ok(Found::Slots(slots))
}

/// Reads the answer to `CLUSTER SLOTS`; a master without a name is the one that was asked.
fn slots(reply: Option<&Reply>, asked: &Endpoint) -> Vec<SlotRange> {
    let Some(Reply::Array(ranges)) = reply else {
        return Vec::new();
    };
    let range = |reply: &Reply| {
        let Reply::Array(words) = reply else {
            return None;
        };
        let number = |word: Option<&Reply>| match word {
            Some(Reply::Int(number)) => u16::try_from(*number).ok(),
            _ => None,
        };
        let Some(Reply::Array(master)) = words.get(2) else {
            return None;
        };
        let host = master
            .first()
            .and_then(text)
            .filter(|host| !host.is_empty() && host != "?");
        Some(SlotRange {
            first: number(words.first())?,
            last: number(words.get(1))?,
            host: host.unwrap_or_else(|| asked.host.clone()),
            port: number(master.get(1))?,
        })
    };
    let mut slots: Vec<SlotRange> = ranges.iter().filter_map(range).collect();
    slots.sort_by_key(|range| range.first);
    slots
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
                let first = super::random::below(candidates.len());
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

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Endpoint {
        Endpoint {
            host: "asked".to_owned(),
            port: 1,
            path: None,
            username: None,
            password: None,
            credentials: None,
            database: 0,
            tls: None,
            protocol: 0,
        }
    }

    fn range(first: i64, last: i64, host: &str, port: i64) -> Reply {
        let master = Reply::Array(vec![
            Reply::BulkString(host.as_bytes().to_vec()),
            Reply::Int(port),
            Reply::BulkString(b"id".to_vec()),
        ]);
        Reply::Array(vec![Reply::Int(first), Reply::Int(last), master])
    }

    #[test]
    fn the_map_is_read_in_the_order_of_slots() {
        let reply = Reply::Array(vec![
            range(8192, 16383, "b", 7001),
            range(0, 8191, "", 7000),
            Reply::Nil,
            range(5, 70_000, "nonsense", 7002),
        ]);
        let expected = vec![
            SlotRange {
                first: 0,
                last: 8191,
                host: "asked".to_owned(),
                port: 7000,
            },
            SlotRange {
                first: 8192,
                last: 16383,
                host: "b".to_owned(),
                port: 7001,
            },
        ];
        assert_eq!(slots(Some(&reply), &endpoint()), expected);
        assert_eq!(slots(Some(&Reply::Nil), &endpoint()), Vec::new());
        assert_eq!(slots(None, &endpoint()), Vec::new());
    }

    #[test]
    fn only_a_server_that_says_otherwise_is_no_master() {
        let role = |role: &str| Reply::Array(vec![Reply::BulkString(role.as_bytes().to_vec())]);
        assert!(is_master(Some(&role("master"))));
        assert!(!is_master(Some(&role("slave"))));
        assert!(is_master(Some(&Reply::Nil)));
        assert!(is_master(None));
    }
}
