//! The servers, and the two connections to each: one that asks, one that subscribes.

use std::sync::Arc;

use super::event::Event;
use super::node::{LinkState, Phase, SILENCE};
use super::node_key::{NodeKey, Role};
use super::request::{Request, Then};
use super::Driver;
use crate::redis::fault::{Fault, FaultKind};
use crate::redis::host::Host;
use crate::redis::link::probe::{self, Address, Opened};
use crate::redis::link::{Command, PushSink};
use crate::redis::notice::Notice;
use crate::redis::random;
use crate::redis::settings::Host as ServerHost;

impl<H: Host> Driver<H> {
    /// Whether requests wait for a connection.
    pub(super) fn waits_to_be_written(&self) -> bool {
        !self.unrouted.is_empty() || self.nodes.values().any(|node| !node.outbox.is_empty())
    }

    pub(super) fn handle(&mut self, event: Event) {
        match event {
            Event::Opened {
                node,
                role,
                generation,
                opened,
            } => self.opened(&node, role, generation, opened),
            Event::Pushed {
                node,
                generation,
                push,
            } => self.pushed(&node, generation, push),
            Event::Replied {
                node,
                generation,
                requests,
                bytes,
                replies,
            } => self.replied(&node, generation, requests, bytes, replies),
            Event::Changed {
                node,
                generation,
                batch,
                refusals,
            } => {
                if self.is_current(&node, Role::Subscriber, generation) {
                    self.changes_answered(&node, &batch, refusals);
                }
            }
            Event::Timed {
                node,
                generation,
                time,
            } => {
                if self.is_current(&node, Role::Writer, generation) {
                    self.note_time(&node, time.as_ref());
                }
            }
            Event::Heard {
                node,
                generation,
                asked,
            } => {
                if self.is_current(&node, Role::Subscriber, generation) {
                    self.note_heard(&node, asked);
                }
            }
            Event::Silent {
                node,
                role,
                generation,
                asked,
            } => self.is_silent(&node, role, generation, asked),
            Event::Ended { node, generation } => {
                let fault = Fault::new(FaultKind::Lost, "the connection was lost");
                self.lose(&node, Role::Writer, generation, &fault);
            }
            Event::Succeeded { node, address } => self.succeeded(&node, &address),
            Event::Mapped(found) => self.mapped(found),
        }
    }

    /// Requests were answered, or given up.
    pub(super) fn note_answered(&mut self, node: &NodeKey, generation: u64, bytes: usize) {
        if let Some(node) = self.nodes.get_mut(node) {
            if node.writer.generation == generation {
                node.unanswered = node.unanswered.saturating_sub(bytes);
                node.writer.heard = self.now;
            }
        }
    }

    fn is_current(&self, node: &NodeKey, role: Role, generation: u64) -> bool {
        self.nodes.get(node).is_some_and(|node| match role {
            Role::Writer => node.writer.generation == generation,
            Role::Subscriber => node.subscriber.generation == generation,
        })
    }

    /// Opens what is not open and whose time has come.
    pub(super) fn attempt_links(&mut self) {
        let now = self.now;
        let mut due = Vec::new();
        for (key, node) in &mut self.nodes {
            for role in [Role::Writer, Role::Subscriber] {
                let state = node.state(role);
                let ready = match state.phase {
                    Phase::Closed => true,
                    Phase::Waiting(until) => until <= now,
                    Phase::Opening | Phase::Open(_) => false,
                };
                if ready {
                    state.phase = Phase::Opening;
                    state.since = now;
                    self.attempts += 1;
                    state.generation = self.attempts;
                    due.push((key.clone(), role, state.generation, node.server.clone()));
                }
            }
        }
        for (key, role, generation, server) in due {
            self.open(key, role, generation, server);
        }
    }

    fn open(&self, node: NodeKey, role: Role, generation: u64, server: ServerHost) {
        let events = self.events.clone();
        let pushes: Option<PushSink> = (role == Role::Subscriber).then(|| {
            let (pushes, node) = (self.pushes.clone(), node.clone());
            let sink = move |push| {
                // Nobody is left to be told when the driver has ended.
                let _ = pushes.send(Event::Pushed {
                    node: node.clone(),
                    generation,
                    push,
                });
            };
            Arc::new(sink) as PushSink
        });
        let transport = Arc::clone(&self.transport);
        let timeout = self.settings.connect_timeout;
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

    fn opened(
        &mut self,
        key: &NodeKey,
        role: Role,
        generation: u64,
        opened: Result<Opened, Fault>,
    ) {
        if !self.is_current(key, role, generation) {
            return;
        }
        let now = self.now;
        self.changed = true;
        let Some(node) = self.nodes.get_mut(key) else {
            return;
        };
        let state = node.state(role);
        match opened {
            Ok(Opened {
                link,
                address,
                time,
            }) => {
                state.address = address;
                let shards = link.can_shard();
                // Found out before the next message is written to nobody, and not by it.
                if let Some(ended) = link.ended().filter(|_| role == Role::Writer) {
                    let (events, node) = (self.events.clone(), key.clone());
                    tokio::spawn(async move {
                        ended.await;
                        let _ = events.send(Event::Ended { node, generation });
                    });
                }
                state.phase = Phase::Open(link);
                state.backoff.reset();
                state.was_open = true;
                state.failure = None;
                self.node_is_back = true;
                self.sharding &= shards;
                match role {
                    Role::Writer => {
                        self.note_time(key, time.as_ref());
                        self.writer_opened(key);
                    }
                    Role::Subscriber => self.subscriber_opened(key),
                }
            }
            Err(fault) => {
                state.phase = Phase::Waiting(now + state.backoff.next(random::fraction()));
                state.failure = Some(fault.clone());
                self.not_reached(fault);
                self.remap();
            }
        }
    }

    /// A server could not be reached. Of the first time, before there ever was a connection, the owner is told; later ones
    /// belong to the loss of which he was told.
    pub(super) fn not_reached(&mut self, fault: Fault) {
        if !self.disconnected && !self.unreached {
            self.unreached = true;
            self.shared.notice(Notice::Disconnected {
                reason: fault.to_string(),
            });
        }
        self.last_fault = Some(fault);
    }

    fn writer_opened(&mut self, key: &NodeKey) {
        let serverless = self.is_serverless();
        let name = format!("headrace-{}", self.me);
        let Some(node) = self.nodes.get_mut(key) else {
            return;
        };
        if !serverless {
            let command = Command::new("CLIENT").word("SETNAME").text(name);
            let until = self.now + SILENCE;
            let request = Request::to(key.clone(), vec![command], until, Then::Ignored);
            node.outbox.push_front(request);
        }
        self.index_anew();
        self.recover_taken(key);
    }

    /// A connection is lost, or has to be given up.
    pub(super) fn lose(&mut self, key: &NodeKey, role: Role, generation: u64, fault: &Fault) {
        if !self.is_current(key, role, generation) {
            return;
        }
        let now = self.now;
        self.changed = true;
        let Some(node) = self.nodes.get_mut(key) else {
            return;
        };
        let state = node.state(role);
        if state.link().is_none() {
            return;
        }
        state.phase = Phase::Waiting(now + state.backoff.next(random::fraction()));
        state.address = None;
        state.lost = Some(now);
        self.attempts += 1;
        state.generation = self.attempts;
        if role == Role::Writer {
            node.unanswered = 0;
        }
        self.last_fault = Some(fault.clone());
        if role == Role::Subscriber {
            self.subscriber_lost(key, fault);
        }
        self.remap();
    }

    /// The server says that it is a replica. Behind Sentinels there is a master elsewhere, and that is where messages are
    /// heard first.
    pub(super) fn demoted(&mut self, key: &NodeKey, generation: u64, fault: &Fault) {
        let subscriber = self.nodes.get(key).and_then(|node| {
            let together = node.subscriber.address == node.writer.address;
            let told = node.writer.generation == generation && node.writer.address.is_some();
            (together && told).then_some(node.subscriber.generation)
        });
        self.lose(key, Role::Writer, generation, fault);
        if let Some(generation) = subscriber {
            self.lose(key, Role::Subscriber, generation, fault);
        }
    }

    /// There is another master: what goes elsewhere is given up.
    fn succeeded(&mut self, key: &NodeKey, address: &Address) {
        let Some(node) = self.nodes.get(key) else {
            return;
        };
        let fault = Fault::new(FaultKind::Lost, "the Sentinels name another master");
        let links = [
            (Role::Writer, &node.writer),
            (Role::Subscriber, &node.subscriber),
        ];
        let elsewhere =
            |link: &LinkState| link.address.as_ref().is_some_and(|known| known != address);
        let old: Vec<_> = links
            .into_iter()
            .filter(|(_, link)| elsewhere(link))
            .map(|(role, link)| (role, link.generation))
            .collect();
        for (role, generation) in old {
            self.lose(key, role, generation, &fault);
        }
    }
}
