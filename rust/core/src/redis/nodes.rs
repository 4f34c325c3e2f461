//! The servers, and the two connections to each: one that asks, one that subscribes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::backoff::Backoff;
use super::connection::{Change, Command, Link, Push, PushSink, Refusal, Reply};
use super::discovery::{self, Address, Opened};
use super::driver::Driver;
use super::fault::{Fault, FaultKind};
use super::host::Host;
use super::outbox::Outbox;
use super::requests::{Request, Then};
use super::server_clock::{Reading, ServerClock};
use super::settings::Host as ServerHost;
use super::shared::Notice;

/// The first wait before another attempt to connect, and the longest; each is drawn from zero to that. The longest is short
/// enough for messages to flow again within a second of a server's return.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// How long a connection may be silent after it was asked whether it is there.
pub(super) const SILENCE: Duration = Duration::from_secs(2);

/// Which server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum NodeKey {
    /// The shard of this number.
    Shard(usize),
    /// The node of a cluster at this address.
    Address(String, u16),
}

/// Which of the two connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Writer,
    Subscriber,
}

/// What the tasks beside the driver tell it.
pub(super) enum Event {
    Opened {
        node: NodeKey,
        role: Role,
        generation: u64,
        opened: Result<Opened, Fault>,
    },
    Pushed {
        node: NodeKey,
        generation: u64,
        push: Push,
    },
    Replied {
        node: NodeKey,
        generation: u64,
        requests: Vec<Request>,
        bytes: usize,
        replies: Result<Vec<Reply>, Fault>,
    },
    /// A batch of changes was answered; these of them were refused.
    Changed {
        node: NodeKey,
        generation: u64,
        batch: Vec<Change>,
        refusals: Vec<(usize, Refusal)>,
    },
    /// A server has said what time it is, or would not.
    Timed {
        node: NodeKey,
        generation: u64,
        time: Option<Reading>,
    },
    /// A connection that subscribes has answered what it was asked at that moment.
    Heard {
        node: NodeKey,
        generation: u64,
        asked: Instant,
    },
    /// A connection has not answered what it was asked at that moment.
    Silent {
        node: NodeKey,
        role: Role,
        generation: u64,
        asked: Instant,
    },
    /// A connection that asks has ended. One that subscribes says so itself.
    Ended {
        node: NodeKey,
        generation: u64,
    },
    /// The Sentinels name another master.
    Succeeded {
        node: NodeKey,
        address: Address,
    },
    Mapped(Result<discovery::Found, Fault>),
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) server: ServerHost,
    pub(super) writer: LinkState,
    pub(super) subscriber: LinkState,
    /// What waits to be written.
    pub(super) outbox: Outbox,
    /// What was written on the connection that is there, and not answered, in bytes.
    pub(super) unanswered: usize,
    /// What waits to be changed about the topics, and how many batches of that were asked for and not answered.
    pub(super) changes: VecDeque<Change>,
    pub(super) batches: usize,
    /// The topics that were refused on the connection that is there, and when they are asked for again.
    pub(super) refused: VecDeque<(Instant, String)>,
    /// What time it is there, as soon as that is known.
    pub(super) clock: Option<ServerClock>,
}

pub(super) struct LinkState {
    phase: Phase,
    /// Which attempt it is, of all to any server: what an earlier connection says is not heard.
    pub(super) generation: u64,
    /// Where it goes, if the Sentinels told.
    pub(super) address: Option<Address>,
    backoff: Backoff,
    /// The latest moment of which is known that what comes now was sent after it.
    pub(super) since: Instant,
    /// When something came on it for the last time.
    pub(super) heard: Instant,
    /// Whether it was there before.
    pub(super) was_open: bool,
    /// When it was lost, or its server named by another: it is waited for until `send_timeout` after that.
    pub(super) lost: Option<Instant>,
    /// Why the latest attempt failed.
    pub(super) failure: Option<Fault>,
}

enum Phase {
    Closed,
    Waiting(Instant),
    Opening,
    Open(Arc<dyn Link>),
}

impl std::fmt::Debug for LinkState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkState")
            .field("open", &self.link().is_some())
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl LinkState {
    fn new(now: Instant) -> Self {
        Self {
            phase: Phase::Closed,
            generation: 0,
            address: None,
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            since: now,
            heard: now,
            was_open: false,
            lost: None,
            failure: None,
        }
    }

    pub(super) fn link(&self) -> Option<&Arc<dyn Link>> {
        match &self.phase {
            Phase::Open(link) => Some(link),
            _ => None,
        }
    }

    fn next_attempt(&self) -> Option<Instant> {
        match self.phase {
            Phase::Waiting(until) => Some(until),
            _ => None,
        }
    }
}

impl Node {
    pub(super) fn new(server: ServerHost, now: Instant) -> Self {
        Self {
            server,
            writer: LinkState::new(now),
            subscriber: LinkState::new(now),
            outbox: Outbox::default(),
            unanswered: 0,
            changes: VecDeque::new(),
            batches: 0,
            refused: VecDeque::new(),
            clock: None,
        }
    }

    pub(super) fn next_attempt(&self) -> Option<Instant> {
        let both = [self.writer.next_attempt(), self.subscriber.next_attempt()];
        both.into_iter().flatten().min()
    }

    /// Marks a server that others named as lost just now, because it may be about to take another's place: it is waited for until
    /// `send_timeout` after that.
    pub(super) fn named(mut self, now: Instant) -> Self {
        self.writer.lost = Some(now);
        self.subscriber.lost = Some(now);
        self
    }

    fn state(&mut self, role: Role) -> &mut LinkState {
        match role {
            Role::Writer => &mut self.writer,
            Role::Subscriber => &mut self.subscriber,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.writer.link().is_some() && self.subscriber.link().is_some()
    }
}

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
                Role::Writer => discovery::open_writer(&*transport, &server, timeout).await,
                Role::Subscriber => discovery::open(&*transport, &server, timeout, pushes).await,
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
                state.phase = Phase::Waiting(now + state.backoff.next(super::random::fraction()));
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
        state.phase = Phase::Waiting(now + state.backoff.next(super::random::fraction()));
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
