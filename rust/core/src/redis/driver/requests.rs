//! What is asked of the servers: where it goes, when it is given up, and what follows from the answer.

use std::sync::Arc;

use super::discovery::{address, Map};
use super::event::Event;
use super::node_key::{NodeKey, Role};
use super::outbox::Outbox;
use super::request::{integer, passing, Place, Pushed, Request, Then};
use super::Driver;
use crate::redis::fault::{Fault, FaultKind};
use crate::redis::host::Host;
use crate::redis::link::{Command, Refusal, Reply};
use crate::redis::meter::{count, smooth};
use crate::redis::wire::envelope::Date;

/// How much is written to a server before it has answered, in bytes, and a request more: enough to keep it busy, and little
/// enough for it to answer in time whether it is there. What waits is held once, and what is written several times.
const WINDOW: usize = 2 << 20;
/// How long to wait before something is asked again that the server cannot do just now.
const AGAIN: std::time::Duration = std::time::Duration::from_millis(50);

impl<H: Host> Driver<H> {
    /// Sends a request as soon as there is a connection for it.
    pub(super) fn submit(&mut self, request: Request) {
        if request.then.carries_a_message() {
            self.outstanding += 1;
        }
        self.route(request);
    }

    /// Sends a request before all that wait for the same connection.
    pub(super) fn submit_first(&mut self, request: Request) {
        let node = self.place_of(&request);
        match node.and_then(|key| self.node_entry(&key)) {
            Some(node) => node.outbox.push_front(request),
            None => self.unrouted.push_front(request),
        }
    }

    fn place_of(&self, request: &Request) -> Option<NodeKey> {
        match &request.place {
            Place::Node(node) => Some(node.clone()),
            Place::Name { name, slot } if request.publishes() => {
                self.node_of_published(name, *slot)
            }
            Place::Name { name, slot } => self.node_of(name, *slot),
        }
    }

    fn route(&mut self, request: Request) {
        let node = self.place_of(&request);
        match node.and_then(|key| self.node_entry(&key)) {
            Some(node) => node.outbox.push_back(request),
            None => self.unrouted.push_back(request),
        }
    }

    /// Sends those that had nowhere to go.
    pub(super) fn route_again(&mut self) {
        for request in self.unrouted.take() {
            self.route(request);
        }
    }

    /// Takes what waited for a server that is no part of the cluster any more.
    pub(super) fn reroute(&mut self, mut outbox: Outbox) {
        for request in outbox.take() {
            match request.place {
                Place::Name { .. } => self.route(request),
                Place::Node(_) => {
                    let fault = Fault::new(FaultKind::Lost, "the server has left the cluster");
                    self.fail(request, &fault);
                }
            }
        }
    }

    /// Writes what waits, wherever there is a connection.
    pub(super) fn write(&mut self) {
        let (sharded, expiry) = (self.publishes_sharded(), self.expiry_ms());
        for (key, node) in &mut self.nodes {
            let Some(link) = node.writer.link() else {
                continue;
            };
            let time = node.clock.map(|clock| clock.milliseconds(self.now));
            let date = Date {
                now: time.unwrap_or_else(|| self.shared.now()),
                expiry,
                crypt: self.settings.crypt.as_deref(),
            };
            while node.unanswered < WINDOW && !node.outbox.is_empty() {
                let room = WINDOW - node.unanswered;
                let (mut requests, bytes) = node.outbox.pipeline(room);
                node.unanswered += bytes;
                let mut commands = Vec::with_capacity(requests.len() * 2);
                let mut until = self.now;
                for request in &mut requests {
                    request.date(&date);
                    until = until.max(request.until);
                    for command in request.open() {
                        if request.asking {
                            commands.push(Command::new("ASKING"));
                        }
                        commands.push(command.clone().published(sharded));
                    }
                }
                let answer = link.request(&commands);
                let (events, node, generation) =
                    (self.events.clone(), key.clone(), node.writer.generation);
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
        }
    }

    pub(super) fn replied(
        &mut self,
        node: &NodeKey,
        generation: u64,
        requests: Vec<Request>,
        bytes: usize,
        replies: Result<Vec<Reply>, Fault>,
    ) {
        self.note_answered(node, generation, bytes);
        let replies = match replies {
            Ok(replies) => replies,
            Err(fault) => {
                self.lose(node, Role::Writer, generation, &fault);
                for request in requests {
                    if request.safe && request.until > self.now {
                        self.route(request);
                    } else {
                        self.fail(request, &fault);
                    }
                }
                return;
            }
        };
        let mut replies = replies.into_iter();
        for request in requests {
            let own: Vec<Reply> = replies.by_ref().take(request.replies()).collect();
            let own: Vec<Reply> = if request.asking {
                own.into_iter().skip(1).step_by(2).collect()
            } else {
                own
            };
            self.answered(node, generation, request, own);
        }
    }

    fn answered(
        &mut self,
        node: &NodeKey,
        generation: u64,
        mut request: Request,
        replies: Vec<Reply>,
    ) {
        let in_the_way = replies.iter().find_map(passing);
        if let Some(refusal) = in_the_way.filter(|_| request.until > self.now) {
            request.keep(replies);
            self.ask_again(node, generation, request, refusal);
            return;
        }
        let replies = request.complete(replies);
        if let Some(refusal) = replies.first().and_then(Refusal::of) {
            self.fail(request, &refusal.into_fault());
            return;
        }
        if request.then.carries_a_message() {
            self.outstanding -= 1;
        }
        let carried = request.commands.first().and_then(Command::carried);
        let carried = carried.cloned().unwrap_or_default();
        self.then(request.then, replies, carried);
    }

    /// Asks where the server says, or here in a while.
    fn ask_again(
        &mut self,
        node: &NodeKey,
        generation: u64,
        mut request: Request,
        refusal: Refusal,
    ) {
        if matches!(self.map, Map::Shards) && refusal.elsewhere().is_some() {
            let text = "the server is part of a cluster: set the topology to \"cluster\"";
            self.fail(request, &Fault::new(FaultKind::Refused, text));
            return;
        }
        request.asking = false;
        match (refusal.elsewhere(), refusal.code.as_str()) {
            (Some((slot, host, port)), "MOVED") => {
                self.moved(node, slot, &host, port);
                self.route(request);
            }
            (Some((_, host, port)), _) => {
                let key = address(node, &host, port);
                request.asking = true;
                match self.node_entry(&key) {
                    Some(node) => node.outbox.push_back(request),
                    None => self.unrouted.push_back(request),
                }
            }
            (None, code) => {
                if code == "READONLY" {
                    self.last_fault = Some(refusal.clone().into_fault());
                    let fault = refusal.into_fault();
                    self.demoted(node, generation, &fault);
                } else {
                    self.remap();
                }
                self.delayed.push((self.now + AGAIN, request));
            }
        }
    }

    pub(super) fn resubmit_delayed(&mut self) {
        let now = self.now;
        for (at, request) in std::mem::take(&mut self.delayed) {
            if at <= now {
                self.route(request);
            } else {
                self.delayed.push((at, request));
            }
        }
    }

    /// Gives up what has waited too long for a connection.
    pub(super) fn give_up_requests(&mut self) {
        let now = self.now;
        let mut late = Vec::new();
        for node in self.nodes.values_mut() {
            late.extend(node.outbox.take_late(now));
        }
        late.extend(self.unrouted.take_late(now));
        for request in late {
            let fault = self.unreachable();
            self.fail(request, &fault);
        }
        self.give_up_in_vain();
    }

    pub(super) fn give_up_all(&mut self, fault: &Fault) {
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

    fn then(&mut self, then: Then, replies: Vec<Reply>, carried: Arc<[u8]>) {
        match then {
            Then::Ignored | Then::Indexed { .. } => {}
            Then::Published { tally, at, inbox } => {
                let receivers = integer(replies.first());
                count(&self.shared.meter.published, 1);
                smooth(&self.shared.meter.publish_latency, self.now - at);
                if inbox && receivers == 0 {
                    count(&self.shared.meter.unreachable, 1);
                }
                self.finish(tally, |answer| answer.receivers += receivers);
            }
            Then::Queued(pushed) => self.queued(pushed, carried, replies),
            Then::Oldest(pushed) => self.prune(pushed, replies),
            Then::Pruned(pushed) => self.pruned(pushed, replies),
            Then::Withdrawn(pushed) => self.withdrawn(&pushed, &replies),
            Then::Fetched {
                channel,
                asked,
                tally,
            } => self.fetched(&channel, asked, tally, replies),
            Then::Acknowledged { channel, entries } => self.acknowledged(&channel, &entries),
            Then::HandedBack { tally, .. } => self.finish(tally, |_| {}),
            Then::Recovered { channel } => self.recovered(&channel, replies),
            Then::Members => self.read_members(replies),
            Then::Membership {
                group,
                channel,
                lasts,
                tally,
            } => self.membership_changed(&group, &channel, lasts, tally),
            Then::Index {
                tally,
                names,
                hours,
            } => self.index_read(tally, names, hours, replies),
            Then::Removed { tally, queue } => self.removed(tally, queue, &replies),
        }
    }

    /// It was not done, or it is not known whether it was.
    pub(super) fn fail(&mut self, request: Request, fault: &Fault) {
        if request.then.carries_a_message() {
            self.outstanding -= 1;
            count(&self.shared.meter.unsent, 1);
        }
        match request.then {
            // The members are read again when the control topic is confirmed again.
            Then::Ignored | Then::Acknowledged { .. } => {}
            Then::Recovered { channel } => self.not_recovered(&channel, fault),
            Then::Members => self.members_unread(fault),
            Then::Fetched {
                channel,
                asked,
                tally,
            } => {
                self.fetch_failed(&channel, asked);
                self.be_unsure(&channel);
                if let Some(tally) = tally {
                    self.finish_with(tally, fault.clone());
                }
            }
            Then::Indexed { channel } => self.index_failed(&channel),
            Then::HandedBack { tally, messages } => {
                count(&self.shared.meter.queue_dropped, messages);
                self.finish_with(tally, fault.clone());
            }
            Then::Queued(Pushed {
                tally,
                channel,
                follows,
                ..
            }) => {
                if follows {
                    self.push_failed(&channel);
                }
                self.finish_with(tally, fault.clone());
            }
            Then::Published { tally, .. }
            | Then::Oldest(Pushed { tally, .. })
            | Then::Pruned(Pushed { tally, .. })
            | Then::Withdrawn(Pushed { tally, .. })
            | Then::Membership { tally, .. }
            | Then::Index { tally, .. }
            | Then::Removed { tally, .. } => self.finish_with(tally, fault.clone()),
        }
    }
}
