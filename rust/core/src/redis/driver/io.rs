//! The tasks beside the driver: opening, requesting and subscribing. Each sends its result as an event.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use super::event::{Event, LinkEvent};
use super::history_then::Mark;
use super::map::Look;
use super::node::Node;
use super::node_key::{LinkId, NodeKey, Role};
use super::servers::{Dial, Pipeline};
use crate::redis::fault::{Fault, FaultKind};
use crate::redis::link::probe;
use crate::redis::link::sentinel::{Address, Master, Sentinels};
use crate::redis::link::{Change, Link, PushSink, Transport};
use crate::redis::settings::Settings;

/// How long a connection may be silent after it was asked whether it is there.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The events of the tasks. Messages may come faster than they can be delivered, so answers do not wait behind them.
pub(super) struct Inbound {
    /// The events of connections for requests, and whatever else is to be handled at once.
    pub(super) events: UnboundedReceiver<Event>,
    /// The events of connections for subscriptions, in their order.
    pub(super) pushes: UnboundedReceiver<Event>,
}

impl Inbound {
    /// The next event of either channel. Nothing is lost if this is dropped.
    pub(super) async fn next(&mut self) -> Option<Event> {
        tokio::select! {
            Some(event) = self.events.recv() => Some(event),
            Some(event) = self.pushes.recv() => Some(event),
            else => None,
        }
    }
}

/// Starts the tasks.
pub(super) struct Io {
    transport: Arc<dyn Transport>,
    /// The masters of the servers that are behind Sentinels.
    masters: HashMap<NodeKey, Arc<Master>>,
    /// How long one attempt to connect may take.
    timeout: Duration,
    events: UnboundedSender<Event>,
    pushes: UnboundedSender<Event>,
}

impl Io {
    pub(super) fn new(
        transport: Arc<dyn Transport>,
        sentinels: &Sentinels,
        settings: &Settings,
    ) -> (Self, Inbound) {
        let (events, handled_first) = unbounded_channel();
        let (pushes, in_order) = unbounded_channel();
        let inbound = Inbound {
            events: handled_first,
            pushes: in_order,
        };
        let hosts = settings.hosts.iter().enumerate();
        let masters = hosts.filter_map(|(shard, server)| {
            let master = sentinels.master(&transport, server)?;
            Some((NodeKey::Shard(shard), Arc::new(master)))
        });
        let io = Self {
            masters: masters.collect(),
            transport,
            timeout: settings.connect_timeout,
            events,
            pushes,
        };
        for (key, master) in &io.masters {
            io.follow(key, master);
        }
        (io, inbound)
    }

    /// Sends an event whenever a Sentinel has news of the master of a server.
    fn follow(&self, key: &NodeKey, master: &Master) {
        for mut news in master.news() {
            let (events, key) = (self.events.clone(), key.clone());
            tokio::spawn(async move {
                loop {
                    tokio::select! {
                        changed = news.changed() => {
                            if changed.is_err() {
                                return;
                            }
                            let _ = events.send(Event::Switched(key.clone()));
                        }
                        () = events.closed() => return,
                    }
                }
            });
        }
    }

    /// Makes a connection.
    pub(super) fn open(&self, dial: Dial) {
        let Dial { id, server } = dial;
        let pushes: Option<PushSink> = (id.role == Role::Subscriber).then(|| {
            let pushes = EventSender::new(&self.pushes, &id);
            Arc::new(move |push| pushes.send(LinkEvent::Pushed(push))) as PushSink
        });
        let (events, transport) = (
            EventSender::new(&self.events, &id),
            Arc::clone(&self.transport),
        );
        let (master, timeout) = (self.masters.get(&id.node).cloned(), self.timeout);
        tokio::spawn(async move {
            let (to, at, master) = (&*transport, &server.endpoint, master.as_deref());
            let opened = match id.role {
                Role::Writer => probe::open_writer(to, at, master, timeout).await,
                Role::Subscriber => probe::open(to, at, master, timeout, pushes).await,
            };
            events.send(LinkEvent::Opened(opened));
        });
    }

    /// Sends an event when a connection for requests has ended, so that no message has to be lost to find out.
    pub(super) fn watch(&self, id: &LinkId, link: &Arc<dyn Link>) {
        if let Some(ended) = link.ended() {
            let events = EventSender::new(&self.events, id);
            tokio::spawn(async move {
                ended.await;
                events.send(LinkEvent::Ended);
            });
        }
    }

    /// Writes requests.
    pub(super) fn write(&self, pipeline: Pipeline) {
        let answer = pipeline.link.request(&pipeline.commands());
        let Pipeline {
            id,
            link: _,
            requests,
            bytes,
            until,
        } = pipeline;
        let events = EventSender::new(&self.events, &id);
        tokio::spawn(async move {
            let replies = match tokio::time::timeout_at(until, answer).await {
                Ok(replies) => replies,
                Err(_) => Err(Fault::new(
                    FaultKind::Timeout,
                    "the server did not answer in time; it may have taken the message",
                )),
            };
            events.send(LinkEvent::Replied {
                requests,
                bytes,
                replies,
            });
        });
    }

    /// Subscribes to topics and unsubscribes from others. The answer comes behind the confirmations.
    pub(super) fn change(&self, id: &LinkId, link: &dyn Link, batch: Vec<Change>, sharded: bool) {
        let (pushes, answer) = (
            EventSender::new(&self.pushes, id),
            link.change(&batch, sharded),
        );
        tokio::spawn(async move {
            let refusals = answer.await;
            pushes.send(LinkEvent::Changed { batch, refusals });
        });
    }

    /// Waits until all has come on a connection that was pushed before these readings were answered.
    pub(super) fn settle(&self, id: &LinkId, link: &dyn Link, marks: Vec<Mark>) {
        let (pushes, settled) = (EventSender::new(&self.pushes, id), link.settle());
        tokio::spawn(async move {
            let settled = tokio::time::timeout(ANSWER_TIMEOUT, settled).await;
            pushes.send(LinkEvent::Settled(marks, settled.unwrap_or(false)));
        });
    }

    /// Looks at the map of a cluster.
    pub(super) fn look(&self, look: Look) {
        let (events, transport) = (self.events.clone(), Arc::clone(&self.transport));
        tokio::spawn(async move {
            let Look {
                candidates,
                timeout,
                must_be_cluster,
            } = look;
            let found = probe::look(transport, candidates, timeout, must_be_cluster).await;
            let _ = events.send(Event::Mapped(found));
        });
    }

    /// Checks both connections of a server, and asks the Sentinels whether it is still the master. This detects a server
    /// that has moved or died without closing its connections.
    pub(super) fn check(&self, key: &NodeKey, node: &Node, calm: bool) {
        if let Some(link) = node.writer.link() {
            self.check_writer(&node.id(key, Role::Writer), Arc::clone(link));
        }
        if let Some(link) = node.subscriber.link() {
            self.check_subscriber(&node.id(key, Role::Subscriber), &**link);
        }
        self.check_master(key, node, calm);
    }

    /// Checks the connection with `TIME`, whose answer is needed anyway.
    fn check_writer(&self, id: &LinkId, link: Arc<dyn Link>) {
        let (events, asked) = (EventSender::new(&self.events, id), Instant::now());
        tokio::spawn(async move {
            let time = probe::time_at(&*link, ANSWER_TIMEOUT).await;
            events.send(time.map_or(LinkEvent::Unanswered(asked), LinkEvent::Timed));
        });
    }

    fn check_subscriber(&self, id: &LinkId, link: &dyn Link) {
        // Behind the messages that came before the answer.
        let (pushes, asked) = (EventSender::new(&self.pushes, id), Instant::now());
        let answer = link.ping();
        tokio::spawn(async move {
            let answered = tokio::time::timeout(ANSWER_TIMEOUT, answer).await;
            pushes.send(if answered.unwrap_or(false) {
                LinkEvent::Answered(asked)
            } else {
                LinkEvent::Unanswered(asked)
            });
        });
    }

    /// Looks up whether a server is still the master. `calm` is whether all servers are reachable.
    pub(super) fn check_master(&self, key: &NodeKey, node: &Node, calm: bool) {
        let links = [&node.writer, &node.subscriber].into_iter();
        let known: Vec<Address> = links.filter_map(|link| link.address.clone()).collect();
        let Some(master) = self.masters.get(key).filter(|_| !known.is_empty()) else {
            return;
        };
        let events = EventSender::new(&self.events, &node.id(key, Role::Writer));
        let (transport, master) = (Arc::clone(&self.transport), Arc::clone(master));
        let (endpoint, timeout) = (node.server.endpoint.clone(), self.timeout);
        tokio::spawn(async move {
            let (to, at) = (&*transport, &endpoint);
            let found = probe::successor(to, at, &master, &known, timeout, calm).await;
            if let Some(address) = found {
                events.send(LinkEvent::Succeeded(address));
            }
        });
    }
}

/// Sends the events of a connection to the driver. They are dropped when the driver has ended.
struct EventSender {
    events: UnboundedSender<Event>,
    id: LinkId,
}

impl EventSender {
    fn new(events: &UnboundedSender<Event>, id: &LinkId) -> Self {
        Self {
            events: events.clone(),
            id: id.clone(),
        }
    }

    fn send(&self, event: LinkEvent) {
        let _ = self.events.send(Event::Link(self.id.clone(), event));
    }
}
