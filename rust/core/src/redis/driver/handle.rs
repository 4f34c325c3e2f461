//! Dispatches events to the parts, and what follows from them.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::Driver;
use super::arrivals::Arrived;
use super::calls::Purpose;
use super::event::{Event, LinkEvent};
use super::io::ANSWER_TIMEOUT;
use super::members;
use super::node_key::{LinkId, NodeKey, Role};
use super::refusals::{NO_NAME, Origin};
use super::reply::integer;
use super::request::{Request, Then};
use super::servers::ServerOutcome;
use crate::redis::fault::{Fault, FaultKind};
use crate::redis::host::{Answer, Host};
use crate::redis::link::probe::Opened;
use crate::redis::link::server_clock::Reading;
use crate::redis::link::{Command, Push, Reply};
use crate::redis::meter::{count, smooth};
use crate::redis::notice::Notice;
use crate::redis::settings::Topology;
use crate::redis::wire::envelope::Control;
use crate::redis::wire::keys::{ProcessId, Topic, hash_slot};

/// By how many milliseconds a server's clock must have been set for the owner to be notified.
const NOTABLE: i64 = 1000;

impl<H: Host> Driver<H> {
    pub(super) fn handle(&mut self, event: Event) {
        match event {
            Event::Link(id, event) => self.handle_link(&id, event),
            Event::Mapped(found) => self.cx.servers.mapped(found, self.cx.now),
            Event::Switched(key) => {
                let servers = &self.cx.servers;
                if let Some(node) = servers.node(&key) {
                    self.io.check_master(&key, node, servers.are_open());
                }
            }
        }
        self.run_follow_ups();
    }

    fn handle_link(&mut self, id: &LinkId, event: LinkEvent) {
        let now = self.cx.now;
        let servers = &mut self.cx.servers;
        let is_current = servers.is_current(id);
        match event {
            LinkEvent::Replied {
                requests,
                bytes,
                replies,
            } => servers.replied(id, requests, bytes, replies, now),
            LinkEvent::Succeeded(address) => servers.succeeded(&id.node, &address, now),
            // Events of an earlier connection are ignored.
            _ if !is_current => {}
            LinkEvent::Opened(opened) => self.opened(id, opened),
            LinkEvent::Pushed(push) => {
                servers.note_push(id, now);
                self.pushed(id, push);
            }
            LinkEvent::Changed { batch, refusals } => {
                let (cx, node) = (&mut self.cx, &id.node);
                self.topics.changed(cx, node, &batch, refusals);
            }
            LinkEvent::Settled(marks, certain) => {
                self.history.settled(&mut self.cx, marks, certain);
            }
            LinkEvent::Timed(time) => self.note_time(&id.node, time.as_ref()),
            LinkEvent::Answered(asked) => servers.note_answer(id, asked),
            LinkEvent::Unanswered(asked) => servers.unanswered(id, asked, now),
            LinkEvent::Ended => {
                let fault = Fault::new(FaultKind::Lost, "the connection was lost");
                servers.lose(id, &fault, now);
            }
        }
    }

    fn opened(&mut self, id: &LinkId, opened: Result<Opened, Fault>) {
        let mut time = None;
        if let (Role::Writer, Ok(opened)) = (id.role, &opened) {
            self.io.watch(id, &opened.link);
            time = Some(opened.time);
        }
        self.cx.servers.opened(id, opened, self.cx.now);
        if let Some(time) = time {
            self.note_time(&id.node, time.as_ref());
        }
    }

    fn note_time(&mut self, key: &NodeKey, time: Option<&Reading>) {
        let cx = &mut self.cx;
        let set = cx.servers.note_time(key, time, cx.now);
        let Some(node) = cx.servers.node(key) else {
            return;
        };
        if let Some(milliseconds) = set.filter(|set| set.abs() >= NOTABLE) {
            let server = node.server.endpoint.to_string();
            cx.shared.notice(Notice::ClockSet {
                server,
                milliseconds,
            });
        }
        let members = hash_slot(cx.keys.members().as_bytes());
        let is_shared = cx.servers.map().node_of("", members).as_ref() == Some(key);
        if let Some(clock) = node.clock.filter(|_| is_shared) {
            cx.shared.clock.set(clock);
        }
    }

    fn pushed(&mut self, id: &LinkId, push: Push) {
        let key = &id.node;
        let (cx, topics) = (&mut self.cx, &mut self.topics);
        match push {
            Push::Message { topic, payload } => {
                count(&cx.shared.meter.bytes_in, payload.len() as u64);
                let Ok(topic) = String::from_utf8(topic) else {
                    count(&cx.shared.meter.malformed, 1);
                    return;
                };
                if topics.is_elsewhere(key, &topic) {
                    return;
                }
                self.arrived(key, &topic, payload);
            }
            Push::Subscribed { topic } => {
                self.subscribed(key, &String::from_utf8_lossy(&topic));
            }
            Push::Unsubscribed { topic } => {
                topics.ended(cx, key, &String::from_utf8_lossy(&topic));
            }
            Push::Lost => {
                let node = cx.servers.node(key);
                let server = node.map(|node| node.server.endpoint.to_string());
                let text = format!("the connection to {} was lost", server.unwrap_or_default());
                let fault = Fault::new(FaultKind::Lost, text);
                let now = cx.now;
                cx.servers.lose(id, &fault, now);
            }
        }
    }

    /// A message has come on a topic, from this server.
    pub(super) fn arrived(&mut self, key: &NodeKey, topic: &str, payload: Vec<u8>) {
        let (cx, topics) = (&mut self.cx, &mut self.topics);
        let arrivals = &mut self.arrivals;
        match arrivals.arrived(cx, topics, (key, topic), payload) {
            Some(Arrived::Wake(channel)) => self.queues.woken(cx, &channel),
            Some(Arrived::Control(sender, control)) => self.control_received(sender, control),
            Some(Arrived::Members(sender, number, control)) => {
                self.members.heard(cx, (sender, number), control);
            }
            Some(Arrived::Kept(group, pushed)) => self.history.pushed(cx, &group, pushed),
            Some(Arrived::Unkept(group, unkept)) => self.history.unkept(cx, &group, unkept),
            Some(Arrived::Presence(group, sender, changes)) => {
                self.presence.heard(cx, &group, sender, changes);
            }
            None => {}
        }
        for group in self.arrivals.take_missed_presence() {
            self.presence.distrust(&mut self.cx, &group);
        }
        if self.arrivals.take_missed_change() {
            self.members.distrust(&mut self.cx);
        }
    }

    /// A server has confirmed the subscription to a topic.
    fn subscribed(&mut self, key: &NodeKey, topic: &str) {
        let cx = &mut self.cx;
        if !self.topics.confirmed(cx, key, topic) {
            return;
        }
        let is_back = !self.topics.are_awaited_at(key);
        self.status.note_node_is_back(is_back);
        self.arrivals.excuse_topic(topic);
        match cx.keys.topic(topic) {
            Some(Topic::Wake(channel)) => self.queues.woken(cx, channel),
            Some(Topic::Control | Topic::Members) => self.members.subscribed(cx),
            Some(Topic::Group(group)) => self.history.subscribed(cx, group),
            Some(Topic::Presence(group)) => self.presence.distrust(cx, group),
            _ => {}
        }
    }

    /// Handles a control message from another process, or from this one.
    fn control_received(&mut self, sender: ProcessId, control: Control) {
        let cx = &mut self.cx;
        let done = match control {
            Control::Join {
                request,
                group,
                channel,
                expiry_ms: _,
            } => cx.joins.add::<H>(&cx.local, &group, &channel).map(|()| {
                let call = cx.call(1, None);
                let process = sender;
                cx.calls
                    .set_purpose(call, Purpose::Acknowledge { process, request });
                let topic = cx.keys.group(&group);
                self.topics.want(cx, &topic, Some(call));
                self.presence.want(cx, &mut self.topics, &group);
            }),
            Control::Leave {
                request,
                group,
                channel,
            } => cx.local.group_discard(&group, &channel).map(|()| {
                let call = cx.call(0, None);
                cx.send_control(sender, &Control::Done { request }, call);
            }),
            Control::Done { request } => {
                self.peers.done(cx, request);
                return;
            }
            Control::MembersChanged => return self.members.changed_somehow(cx, sender),
            Control::Flush if sender != cx.me => {
                self.presence.flushed(cx, None);
                members::flush_here(cx, &mut self.queues);
                self.history.flushed(cx);
                // What was changed since may have been heard before.
                return self.members.distrust(cx);
            }
            Control::Flush | Control::Membership { .. } | Control::ReadMembers => return,
        };
        if done.is_err() {
            let topic = cx.keys.process(cx.me);
            let from = Origin::of(sender, &topic);
            cx.refuse_content(from, NO_NAME, "");
        }
    }

    /// Handles all that follows: submits requests to their servers, and passes the outcomes of others to the parts.
    pub(super) fn run_follow_ups(&mut self) {
        loop {
            for (purpose, answer) in self.cx.calls.take_follow_ups() {
                self.follow_up(purpose, answer);
            }
            // The vector is used again.
            let mut requests = std::mem::take(&mut self.cx.requests);
            for request in requests.drain(..) {
                self.cx.servers.submit(request, self.cx.now);
            }
            self.cx.requests = requests;
            match self.cx.servers.next_outcome() {
                Some(outcome) => self.act_on(outcome),
                None if self.cx.calls.has_follow_ups() => {}
                None => return,
            }
        }
    }

    fn follow_up(&mut self, purpose: Purpose, answer: Answer) {
        let cx = &mut self.cx;
        match purpose {
            Purpose::Acknowledge { process, request } => {
                let call = cx.call(0, None);
                cx.send_control(process, &Control::Done { request }, call);
            }
            Purpose::Control(number) => self.peers.unreached(cx, number, answer.fault),
            Purpose::SendToQueues { group } => {
                let Answer { queued, full, .. } = answer;
                cx.shared.note_plain_sends(group, queued, full);
            }
        }
    }

    fn act_on(&mut self, outcome: ServerOutcome) {
        let cx = &mut self.cx;
        match outcome {
            ServerOutcome::Answered(then, replies, carried) => {
                self.answered(then, replies, carried);
            }
            ServerOutcome::Failed(then, fault) => self.failed(then, &fault),
            ServerOutcome::WriterOpened(key) => {
                self.status.note_node_is_back(true);
                if cx.settings.topology != Topology::Serverless {
                    let command = Command::new("CLIENT").word("SETNAME");
                    let commands = vec![command.text(format!("headrace-{}", cx.me))];
                    let until = cx.now + ANSWER_TIMEOUT;
                    let request = Request::to(key.clone(), commands, until, Then::Ignored);
                    cx.submit(request.urgent());
                }
                self.history.writer_opened();
                self.queues.index_anew();
                self.queues.recover_taken(cx, &key);
            }
            ServerOutcome::SubscriberOpened(key) => {
                self.status.note_node_is_back(true);
                self.topics.subscriber_opened(cx, &key);
            }
            ServerOutcome::SubscriberLost(key, fault) => {
                self.topics.subscriber_lost(cx, &key);
                if self.status.lost(cx, &fault)
                    && let Some(kind) = cx.settings.on_disconnect.clone()
                {
                    cx.notify_channels(&kind);
                }
            }
            ServerOutcome::NotReached(fault) => self.status.not_reached(cx, &fault),
            ServerOutcome::Mapped => self.topics.place_all(cx),
            ServerOutcome::Moved => self.topics.place_later(),
        }
    }

    pub(super) fn answered(&mut self, then: Then, replies: Vec<Reply>, carried: Bytes) {
        let cx = &mut self.cx;
        let queues = &mut self.queues;
        match then {
            Then::Ignored | Then::Indexed { .. } => {}
            Then::History(then) => self.history.answered(cx, then, replies, carried),
            Then::Presence(then) => self.presence.answered(cx, then, replies),
            Then::Published {
                call, at, direct, ..
            } => {
                let receivers = integer(replies.first());
                count(&cx.shared.meter.published, 1);
                smooth(&cx.shared.meter.publish_latency, cx.now - at);
                if direct && receivers == 0 {
                    count(&cx.shared.meter.unreachable, 1);
                }
                cx.calls
                    .complete_part(call, |answer| answer.receivers += receivers);
            }
            Then::Queued(pushed) => {
                queues.queued(cx, (pushed, carried), replies);
            }
            Then::Oldest(pushed) => queues.prune(cx, pushed, replies),
            Then::Pruned(pushed) => queues.pruned(cx, pushed, replies),
            Then::Withdrawn(pushed) => queues.withdrawn(cx, &pushed, &replies),
            Then::Fetched {
                channel,
                asked,
                call,
            } => {
                cx.shared.has_queues.store(true, Ordering::Relaxed);
                queues.fetched(cx, (&channel, asked, call), replies);
            }
            Then::Acknowledged { channel, entries } => queues.acknowledged(&channel, &entries),
            Then::HandedBack { call, .. } => cx.calls.done(call),
            Then::Recovered { channel } => {
                queues.recovered(cx, &channel, replies);
            }
            Then::Members => self.members.read(cx, queues, replies),
            Then::Membership { change, call } => {
                self.members.changed(cx, change, &carried, call);
            }
            Then::Index { call, names, hours } => {
                let found = (call, names, hours);
                members::index_read(cx, queues, found, replies);
            }
            Then::Removed { call, queue } => members::removed(cx, call, queue, &replies),
            Then::MembersRemoved { call } => {
                members::members_removed(cx, call);
            }
        }
    }

    /// It was not done, or it is not known whether it was.
    pub(super) fn failed(&mut self, then: Then, fault: &Fault) {
        let (cx, queues) = (&mut self.cx, &mut self.queues);
        if then.carries_a_message() {
            count(&cx.shared.meter.unsent, 1);
        }
        let call = match then {
            Then::Ignored | Then::Acknowledged { .. } => None,
            Then::History(then) => self.history.failed(cx, then, fault),
            Then::Presence(then) => self.presence.failed(cx, then, fault),
            Then::Recovered { channel } => {
                queues.not_recovered(cx, &channel, fault);
                None
            }
            Then::Members => {
                self.members.not_loaded(cx, fault);
                None
            }
            Then::Indexed { channel } => {
                queues.index_failed(&channel);
                None
            }
            Then::Fetched {
                channel,
                asked,
                call,
            } => {
                queues.fetch_failed(&channel, asked);
                call
            }
            Then::HandedBack { call, messages } => {
                count(&cx.shared.meter.queue_dropped, messages);
                Some(call)
            }
            Then::Queued(pushed) => {
                queues.push_failed(&pushed);
                Some(pushed.call)
            }
            Then::Oldest(pushed) | Then::Pruned(pushed) | Then::Withdrawn(pushed) => {
                Some(pushed.call)
            }
            Then::Membership { change, call } => {
                self.members.failed(&change, fault);
                Some(call)
            }
            Then::MembersRemoved { call }
            | Then::Published {
                call,
                announces: true,
                ..
            } => {
                self.members.note_unannounced();
                Some(call)
            }
            Then::Published { call, .. }
            | Then::Index { call, .. }
            | Then::Removed { call, .. } => Some(call),
        };
        if let Some(call) = call {
            cx.calls.fail(call, fault.clone());
        }
    }
}
