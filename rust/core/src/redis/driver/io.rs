//! What takes time, beside the driver: opening, asking and subscribing. Each comes back as an event.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{unbounded_channel, UnboundedReceiver, UnboundedSender};
use tokio::time::Instant;

use super::event::Event;
use super::map::Look;
use super::node::{LinkState, Node};
use super::node_key::{NodeKey, Role};
use super::servers::{Dial, Pipeline};
use crate::redis::fault::{Fault, FaultKind};
use crate::redis::link::probe::{self, Address};
use crate::redis::link::{Change, Link, PushSink, Transport};

/// How long a connection may be silent after it was asked whether it is there.
pub(super) const SILENCE: Duration = Duration::from_secs(2);

/// What the tasks tell. Messages may come faster than they can be delivered: a sender does not wait behind them for its answer.
pub(super) struct Inbound {
    /// What the connections that ask say, and what else is to be handled at once.
    pub(super) events: UnboundedReceiver<Event>,
    /// What those say that subscribe, in its order.
    pub(super) pushes: UnboundedReceiver<Event>,
}

impl Inbound {
    /// What comes next of either. Nothing is lost if this is dropped.
    pub(super) async fn next(&mut self) -> Option<Event> {
        tokio::select! {
            Some(event) = self.events.recv() => Some(event),
            Some(event) = self.pushes.recv() => Some(event),
            else => None,
        }
    }
}

/// Starts the tasks. Nobody is left to be told when the driver has ended.
pub(super) struct Io {
    transport: Arc<dyn Transport>,
    /// How long one attempt to connect may take.
    timeout: Duration,
    events: UnboundedSender<Event>,
    pushes: UnboundedSender<Event>,
}

impl Io {
    pub(super) fn new(transport: Arc<dyn Transport>, timeout: Duration) -> (Self, Inbound) {
        let (events, handled_first) = unbounded_channel();
        let (pushes, in_order) = unbounded_channel();
        let inbound = Inbound {
            events: handled_first,
            pushes: in_order,
        };
        let io = Self {
            transport,
            timeout,
            events,
            pushes,
        };
        (io, inbound)
    }

    /// Makes a connection.
    pub(super) fn open(&self, dial: Dial) {
        let Dial {
            node,
            role,
            generation,
            server,
        } = dial;
        let pushes: Option<PushSink> = (role == Role::Subscriber).then(|| {
            let (pushes, node) = (self.pushes.clone(), node.clone());
            let sink = move |push| {
                let _ = pushes.send(Event::Pushed {
                    node: node.clone(),
                    generation,
                    push,
                });
            };
            Arc::new(sink) as PushSink
        });
        let (events, transport) = (self.events.clone(), Arc::clone(&self.transport));
        let timeout = self.timeout;
        tokio::spawn(async move {
            let opened = match role {
                Role::Writer => probe::open_writer(&*transport, &server, timeout).await,
                Role::Subscriber => probe::open(&*transport, &server, timeout, pushes).await,
            };
            let _ = events.send(Event::Opened {
                node,
                role,
                generation,
                opened,
            });
        });
    }

    /// Tells when a connection that asks has ended: that is found out before the next message is written to nobody, and not by it.
    pub(super) fn watch(&self, node: &NodeKey, generation: u64, link: &Arc<dyn Link>) {
        if let Some(ended) = link.ended() {
            let (events, node) = (self.events.clone(), node.clone());
            tokio::spawn(async move {
                ended.await;
                let _ = events.send(Event::Ended { node, generation });
            });
        }
    }

    /// Writes requests.
    pub(super) fn write(&self, pipeline: Pipeline) {
        let Pipeline {
            node,
            generation,
            link,
            requests,
            commands,
            bytes,
            until,
        } = pipeline;
        let (events, answer) = (self.events.clone(), link.request(&commands));
        tokio::spawn(async move {
            let replies = match tokio::time::timeout_at(until, answer).await {
                Ok(replies) => replies,
                Err(_) => Err(Fault::new(
                    FaultKind::Timeout,
                    "the server did not answer in time; it may have taken the message",
                )),
            };
            let _ = events.send(Event::Replied {
                node,
                generation,
                requests,
                bytes,
                replies,
            });
        });
    }

    /// Subscribes to topics and unsubscribes from others. The answer comes behind the confirmations.
    pub(super) fn change(
        &self,
        node: &NodeKey,
        subscriber: &LinkState,
        batch: Vec<Change>,
        sharded: bool,
    ) {
        let Some(link) = subscriber.link() else {
            return;
        };
        let (pushes, answer) = (self.pushes.clone(), link.change(&batch, sharded));
        let (node, generation) = (node.clone(), subscriber.generation);
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

    /// Asks a server on both connections whether it is there, and the Sentinels whether it is still the master. A server that has
    /// moved or died without a word is found out by that.
    pub(super) fn check(&self, key: &NodeKey, node: &Node) {
        self.check_writer(key, &node.writer);
        self.check_subscriber(key, &node.subscriber);
        self.check_master(key, node);
    }

    /// Asks what time it is, which is as good a question as any.
    fn check_writer(&self, key: &NodeKey, writer: &LinkState) {
        let Some(link) = writer.link().map(Arc::clone) else {
            return;
        };
        let (events, node, generation) = (self.events.clone(), key.clone(), writer.generation);
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

    fn check_subscriber(&self, key: &NodeKey, subscriber: &LinkState) {
        let Some(link) = subscriber.link() else {
            return;
        };
        let (pushes, node, generation) = (self.pushes.clone(), key.clone(), subscriber.generation);
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

    fn check_master(&self, key: &NodeKey, node: &Node) {
        let links = [&node.writer, &node.subscriber];
        let known: Vec<Address> = links
            .into_iter()
            .filter_map(|link| link.address.clone())
            .collect();
        if known.is_empty() {
            return;
        }
        let (events, node, server) = (self.events.clone(), key.clone(), node.server.clone());
        let (transport, timeout) = (Arc::clone(&self.transport), self.timeout);
        tokio::spawn(async move {
            let found = probe::successor(&*transport, &server, &known, timeout).await;
            if let Some(address) = found {
                let _ = events.send(Event::Succeeded { node, address });
            }
        });
    }
}
