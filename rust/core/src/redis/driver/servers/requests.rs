//! Routes requests to servers, writes them in pipelines, and handles the answers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::joined::{join, replies_to};
use super::{ServerOutcome, Servers};
use crate::redis::driver::node_key::{LinkId, NodeKey, Role};
use crate::redis::driver::outbox::Outbox;
use crate::redis::driver::request::{Request, Target, Then, passing};
use crate::redis::fault::{Fault, FaultKind};
use crate::redis::link::{Command, Link, Refusal, Reply};
use crate::redis::wire::envelope::Date;

/// How much is written to a server before it has answered, in bytes, and a request more: enough to keep it busy, and little
/// enough for it to answer in time whether it is there. A request is in memory once while it waits, and several times once it is written.
const WINDOW: usize = 2 << 20;
/// How long to wait before something is asked again that the server cannot do just now.
const AGAIN: Duration = Duration::from_millis(50);

/// Requests that are written together.
pub(crate) struct Pipeline {
    pub(crate) id: LinkId,
    pub(crate) link: Arc<dyn Link>,
    pub(crate) requests: Vec<Request>,
    pub(crate) bytes: usize,
    /// When the last of them is given up.
    pub(crate) until: Instant,
}

impl Pipeline {
    /// The commands of its requests, as they are written.
    pub(crate) fn commands(&self) -> Vec<&Command> {
        let mut commands = Vec::with_capacity(self.requests.len() * 2);
        for request in &self.requests {
            request.write(&mut commands);
        }
        commands
    }
}

impl Servers {
    /// Takes a request, which is sent as soon as there is a connection for it.
    pub(crate) fn submit(&mut self, request: Request, now: Instant) {
        if request.then.carries_a_message() {
            self.outstanding += 1;
        }
        if request.urgent {
            self.outbox_for(&request, now).push_front(request);
        } else {
            self.route(request, now);
        }
    }

    /// Whether every message has been taken by a server or given up.
    pub(crate) fn have_carried_all(&self) -> bool {
        self.outstanding == 0
    }

    /// Whether requests wait for a connection, or to be sent again.
    pub(crate) fn have_waiting(&self) -> bool {
        let mut outboxes = self.nodes.values().map(|node| &node.outbox);
        !self.delayed.is_empty()
            || !self.unrouted.is_empty()
            || outboxes.any(|outbox| !outbox.is_empty())
    }

    fn target_of(&self, request: &Request) -> Option<NodeKey> {
        match &request.target {
            Target::Node(node) => Some(node.clone()),
            Target::Name { name, slot } if request.publishes() => {
                self.map.node_of_published(name, *slot)
            }
            Target::Name { name, slot } => self.map.node_of(name, *slot),
        }
    }

    fn outbox_for(&mut self, request: &Request, now: Instant) -> &mut Outbox {
        let key = self.target_of(request);
        let key = key.filter(|key| self.node_entry(key, now).is_some());
        match key.and_then(|key| self.nodes.get_mut(&key)) {
            Some(node) => &mut node.outbox,
            None => &mut self.unrouted,
        }
    }

    fn route(&mut self, request: Request, now: Instant) {
        if self.map.is_passed_on() && matches!(request.then, Then::History(_)) {
            // What one server publishes comes to the subscribers of the others at any time: nobody knows what has come.
            let text = "'history' needs sharded pub/sub on a cluster, and so RESP 3: leave out 'protocol', or 'history'";
            self.fail(request, &Fault::new(FaultKind::Lacking, text));
            return;
        }
        self.outbox_for(&request, now).push_back(request);
    }

    /// Routes the requests that waited for the map.
    pub(super) fn route_again(&mut self, now: Instant) {
        for request in self.unrouted.take() {
            self.route(request, now);
        }
    }

    /// Reroutes the requests that waited for a server that is no part of the cluster any more.
    pub(super) fn reroute(&mut self, mut outbox: Outbox, now: Instant) {
        for request in outbox.take() {
            match request.target {
                Target::Name { .. } => self.route(request, now),
                Target::Node(_) => {
                    let fault = Fault::new(FaultKind::Lost, "the server has left the cluster");
                    self.fail(request, &fault);
                }
            }
        }
    }

    /// What is to be written now, wherever there is a connection; `wall` is the time in milliseconds since the Unix epoch, for
    /// servers whose time is not known.
    pub(crate) fn pipelines(&mut self, now: Instant, wall: u64) -> Vec<Pipeline> {
        let sharded = self.map.publishes_sharded();
        let expiry = u64::try_from(self.settings.expiry.as_millis()).unwrap_or(u64::MAX);
        let mut pipelines = Vec::new();
        for (key, node) in &mut self.nodes {
            let Some(link) = node.writer.link().map(Arc::clone) else {
                continue;
            };
            let time = node.clock.map(|clock| clock.milliseconds(now));
            let date = Date {
                now: time.unwrap_or(wall),
                expiry,
                crypt: self.settings.crypt.as_deref(),
            };
            while node.unanswered < WINDOW && !node.outbox.is_empty() {
                let room = WINDOW - node.unanswered;
                let (mut requests, bytes) = node.outbox.pipeline(room);
                node.unanswered += bytes;
                let mut until = now;
                for request in &mut requests {
                    request.date(&date);
                    request.publish_sharded(sharded);
                    until = until.max(request.until);
                }
                join(&mut requests);
                pipelines.push(Pipeline {
                    id: node.id(key, Role::Writer),
                    link: Arc::clone(&link),
                    requests,
                    bytes,
                    until,
                });
            }
        }
        pipelines
    }

    /// A pipeline was answered, or given up.
    pub(crate) fn replied(
        &mut self,
        id: &LinkId,
        requests: Vec<Request>,
        bytes: usize,
        replies: Result<Vec<Reply>, Fault>,
        now: Instant,
    ) {
        let current = self.is_current(id);
        if let Some(node) = self.nodes.get_mut(&id.node).filter(|_| current) {
            node.unanswered = node.unanswered.saturating_sub(bytes);
            node.writer.last_received = now;
        }
        let replies = match replies {
            Ok(replies) => replies,
            Err(fault) => {
                self.lose(id, &fault, now);
                for request in requests {
                    if request.safe && request.until > now {
                        self.route(request, now);
                    } else {
                        self.fail(request, &fault);
                    }
                }
                return;
            }
        };
        let own = replies_to(&requests, replies);
        for (request, own) in requests.into_iter().zip(own) {
            self.answered(id, request, own, now);
        }
    }

    fn answered(&mut self, id: &LinkId, mut request: Request, replies: Vec<Reply>, now: Instant) {
        let in_the_way = replies.iter().find_map(passing);
        if let Some(refusal) = in_the_way.filter(|_| request.until > now) {
            request.keep(replies);
            self.ask_again(id, request, refusal, now);
            return;
        }
        let replies = request.complete(replies);
        if let Some(refusal) = request.refusal(&replies) {
            self.fail(request, &refusal.into_fault());
            return;
        }
        if request.then.carries_a_message() {
            self.outstanding -= 1;
        }
        let carried = request.carried();
        let answered = ServerOutcome::Answered(request.then, replies, carried);
        self.outcomes.push_back(answered);
    }

    /// Fails a request that was not done, or that may not have been done.
    pub(super) fn fail(&mut self, request: Request, fault: &Fault) {
        if request.then.carries_a_message() {
            self.outstanding -= 1;
        }
        let failed = ServerOutcome::Failed(request.then, fault.clone());
        self.outcomes.push_back(failed);
    }

    /// Follows the redirection, or retries here in a while.
    fn ask_again(&mut self, id: &LinkId, mut request: Request, refusal: Refusal, now: Instant) {
        let is_shard = self.map.is_known() && !self.map.is_cluster();
        if is_shard && refusal.elsewhere().is_some() {
            let text = "the server is part of a cluster: set the topology to \"cluster\"";
            self.fail(request, &Fault::new(FaultKind::Refused, text));
            return;
        }
        request.asking = false;
        match (refusal.elsewhere(), refusal.code.as_str()) {
            (Some((slot, host, port)), "MOVED") => {
                self.moved(&id.node, slot, &host, port);
                self.route(request, now);
            }
            (Some((_, host, port)), _) => {
                let key = id.node.named(&host, port);
                request.asking = true;
                match self.node_entry(&key, now) {
                    Some(node) => node.outbox.push_back(request),
                    None => self.unrouted.push_back(request),
                }
            }
            (None, code) => {
                if code == "READONLY" {
                    let fault = refusal.into_fault();
                    self.last_fault = Some(fault.clone());
                    self.demoted(id, &fault, now);
                } else {
                    self.map.look_again();
                }
                self.delayed.push((now + AGAIN, request));
            }
        }
    }

    /// Resubmits the delayed requests that are due.
    pub(crate) fn resubmit_delayed(&mut self, now: Instant) {
        for (at, request) in std::mem::take(&mut self.delayed) {
            if at <= now {
                self.route(request, now);
            } else {
                self.delayed.push((at, request));
            }
        }
    }

    /// Gives up the requests that have waited too long for a connection.
    pub(crate) fn give_up_late(&mut self, now: Instant) {
        let mut late = Vec::new();
        for node in self.nodes.values_mut() {
            late.extend(node.outbox.take_late(now));
        }
        late.extend(self.unrouted.take_late(now));
        if !late.is_empty() {
            let fault = self.unreachable();
            for request in late {
                self.fail(request, &fault);
            }
        }
        self.give_up_unreachable(now);
    }

    /// Gives up all that waits, and every server.
    pub(crate) fn give_up_all(&mut self, fault: &Fault) {
        let mut all: Vec<Request> = self.unrouted.take().collect();
        for node in self.nodes.values_mut() {
            all.extend(node.outbox.take());
        }
        all.extend(self.delayed.drain(..).map(|(_, request)| request));
        for request in all {
            self.fail(request, fault);
        }
        self.nodes.clear();
    }
}
