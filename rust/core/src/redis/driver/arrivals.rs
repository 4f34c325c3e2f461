//! What comes from the servers, on its way into the local mailboxes.

use std::sync::Arc;

use super::node_key::NodeKey;
use super::refusals::{Origin, MISPLACED, NO_NAME};
use super::request::{Request, Then};
use super::sends::Published;
use super::Driver;
use crate::error::SendError;
use crate::handoff::HandOff;
use crate::redis::fault::{Fault, FaultKind};
use crate::redis::host::{Frame, Host};
use crate::redis::link::Command;
use crate::redis::meter::{count, smooth};
use crate::redis::notice::Notice;
use crate::redis::settings::Wire;
use crate::redis::wire::envelope;
use crate::redis::wire::envelope::{Body, Control, Draft, Envelope, Header, Malformed, Payload};
use crate::redis::wire::keys::{process_of, ProcessId, Topic};
use crate::redis::wire::payload;
use crate::redis::wire::sequence::Seen;
use crate::redis::wire::system_message;

/// What the local engine says of a message.
type Sent<H> = Result<
    Option<HandOff<<H as Host>::Message, <H as Host>::Waiter>>,
    SendError<<H as Host>::Message>,
>;

/// What an envelope adds to a message at most: its header, and the names of excluded channels.
const ENVELOPE: usize = 64 * 1024;

/// What this process tells its own channels.
const ITSELF: Origin<'_> = Origin {
    place: "this process",
    sender: None,
};

impl<H: Host> Driver<H> {
    /// A message has come on a topic, from this server.
    pub(super) fn arrived(&mut self, node: &NodeKey, topic: &str, bytes: Vec<u8>) {
        if self.is_oversized(topic, bytes.len()) {
            return;
        }
        if self.settings.wire == Wire::ChannelsRedis {
            self.arrived_plainly(topic, bytes);
            return;
        }
        // A bell says no more than that there is something.
        if let Some(Topic::Bell(channel)) = self.keys.topic(topic) {
            let channel = channel.to_owned();
            self.rung(&channel);
            return;
        }
        let sender = envelope::sender(&bytes);
        match envelope::decode(bytes, topic, self.settings.crypt.as_deref()) {
            Ok(envelope) => self.opened_envelope(node, topic, envelope),
            Err(malformed) => self.refuse(topic, Some(sender), malformed),
        }
    }

    /// Whether what came takes more bytes than the longest message does on its way; it is not even decrypted then.
    pub(super) fn is_oversized(&mut self, place: &str, bytes: usize) -> bool {
        let limit = self.settings.max_message_bytes;
        // Fernet's tokens are text: four characters for each three bytes.
        let encrypted = if self.settings.crypt.is_some() {
            limit / 3
        } else {
            0
        };
        let oversized = bytes > limit.saturating_add(encrypted).saturating_add(ENVELOPE);
        if oversized {
            self.refuse_oversized(place, bytes);
        }
        oversized
    }

    fn refuse_oversized(&mut self, place: &str, bytes: usize) {
        count(&self.shared.meter.oversized, 1);
        self.tell_once(Notice::Oversized {
            place: place.to_owned(),
            bytes,
            limit: self.settings.max_message_bytes,
        });
    }

    fn opened_envelope(&mut self, node: &NodeKey, topic: &str, envelope: Envelope) {
        let Envelope { header, body, .. } = envelope;
        let due = if envelope.authenticated {
            self.is_due(node, topic, &header)
        } else {
            self.is_probably_due(node, topic, &header)
        };
        if !due {
            return;
        }
        let from = Origin {
            place: topic,
            sender: Some(header.sender),
        };
        match (self.keys.topic(topic), body) {
            (Some(Topic::Group(group)), Body::Group { exclude, payload }) => {
                let exclude: Vec<&str> = exclude.iter().map(String::as_str).collect();
                self.deliver_to_group(group, payload, &exclude, from);
            }
            (Some(Topic::Inbox(_)), Body::Direct { channel, payload }) => {
                self.deliver_to_channel(&channel, payload, from);
            }
            (Some(Topic::Inbox(_) | Topic::Control), Body::Control(control)) => {
                self.told(header.sender, control);
            }
            _ => self.refuse_content(from, MISPLACED, ""),
        }
    }

    /// Whether a message is to be delivered of which nothing is authenticated but its body.
    fn is_probably_due(&mut self, node: &NodeKey, topic: &str, header: &Header) -> bool {
        match self.sequences.note(header.sender, topic, header.sequence) {
            Seen::Again if self.is_unsettled(topic) => {
                count(&self.shared.meter.late, 1);
                return false;
            }
            // An older number comes late when it had to be sent again, because its slot was moving.
            Seen::First | Seen::Next | Seen::Again | Seen::Late => {}
            Seen::Gap(missed) => {
                self.unsettle(topic);
                self.tell_gap(&[topic.to_owned()], missed);
            }
        }
        if header.deadline != 0 && self.is_late(node, header.deadline) {
            count(&self.shared.meter.late, 1);
            self.tell_once(Notice::Late);
            return false;
        }
        true
    }

    /// As `channels_redis` sends it: a payload, encrypted or not, on the topic of a group or of a channel.
    fn arrived_plainly(&mut self, topic: &str, bytes: Vec<u8>) {
        let payload = match &self.settings.crypt {
            Some(crypt) => match crypt.decrypt(&bytes) {
                Ok(bytes) => bytes,
                Err(why) => {
                    self.refuse(topic, None, Malformed::Undecryptable(why));
                    return;
                }
            },
            None => bytes,
        };
        let from = Origin {
            place: topic,
            sender: None,
        };
        match self.keys.channels_redis_group_of(topic) {
            Some(group) => self.deliver_to_group(group, payload.into(), &[], from),
            None => self.deliver_to_channel(topic, payload.into(), from),
        }
    }

    /// Looks a payload over, so that a receiver can decode it without a surprise.
    fn message(&mut self, payload: Payload, from: Origin<'_>) -> Option<H::Message> {
        let bytes = payload.as_bytes().len();
        if bytes > self.settings.max_message_bytes {
            self.refuse_oversized(from.place, bytes);
            return None;
        }
        let shape = match payload::inspect(payload.as_bytes()) {
            Ok(shape) => shape,
            Err(bad) => {
                self.refuse_content(from, "it holds no message", &bad.to_string());
                return None;
            }
        };
        let (bytes, start) = payload.into_parts();
        let kind = shape.kind.map(|kind| kind.start + start..kind.end + start);
        Some(self.host.message(Frame {
            payload: start..bytes.len(),
            bytes: Arc::from(bytes),
            kind,
        }))
    }

    fn deliver_to_group(
        &mut self,
        group: &str,
        payload: Payload,
        exclude: &[&str],
        from: Origin<'_>,
    ) {
        if let Some(message) = self.message(payload, from) {
            if let Ok(fan_out) = self.engine.group_send(group, message, exclude) {
                self.hand_offs.extend(fan_out.hand_offs);
            }
        }
    }

    /// To a local mailbox. If it is full the engine counts that.
    pub(super) fn deliver_to_channel(&mut self, channel: &str, payload: Payload, from: Origin<'_>) {
        if let Some(message) = self.message(payload, from) {
            let sent = self.engine.send(channel, message);
            self.delivered(sent, from);
        }
    }

    /// To the local mailbox of a queue, which it has left: its bytes are no reason to lose it.
    pub(super) fn deliver_taken(&mut self, channel: &str, payload: Payload, from: Origin<'_>) {
        if let Some(message) = self.message(payload, from) {
            let sent = self.engine.accept(channel, message);
            self.delivered(sent, from);
        }
    }

    fn delivered(&mut self, sent: Sent<H>, from: Origin<'_>) {
        match sent {
            Ok(hand_off) => self.hand_offs.extend(hand_off),
            Err(SendError::Full(_)) => {}
            Err(SendError::Refused(..)) => self.refuse_content(from, NO_NAME, ""),
        }
    }

    /// Another process, or this one, says something to the engine itself.
    fn told(&mut self, sender: ProcessId, control: Control) {
        match control {
            Control::Join {
                request,
                group,
                channel,
                expiry_ms: _,
            } => {
                if self.engine.group_add(&group, &channel).is_err() {
                    let place = &self.keys.inbox(self.me);
                    let sender = Some(sender);
                    self.refuse_content(Origin { place, sender }, NO_NAME, "");
                    return;
                }
                let topic = self.keys.group(&group);
                let tally = self.tally(1, None);
                self.acknowledge_when(sender, request, tally);
                self.want_topic(&topic, Some(tally));
            }
            Control::Leave {
                request,
                group,
                channel,
            } => {
                if self.engine.group_discard(&group, &channel).is_err() {
                    let place = &self.keys.inbox(self.me);
                    let sender = Some(sender);
                    self.refuse_content(Origin { place, sender }, NO_NAME, "");
                    return;
                }
                self.say(sender, &Control::Done { request });
            }
            Control::Done { request } => self.done(request),
            Control::MembersChanged if sender != self.me => self.load_members(),
            Control::Flush if sender != self.me => {
                self.engine.flush();
                self.shared.plain.lock().clear();
                self.shared.depths.lock().clear();
                self.index_anew();
            }
            Control::MembersChanged | Control::Flush => {}
        }
    }

    /// Tells the process that what it asked for is done, as soon as the tally is.
    fn acknowledge_when(&mut self, process: ProcessId, request: u64, tally: usize) {
        if let Some(known) = self.tallies.get_mut(tally) {
            known.acknowledge = Some((process, request));
        }
    }

    fn done(&mut self, request: u64) {
        if let Some((number, at)) = self.probe {
            if number == request {
                self.probe = None;
                smooth(&self.shared.meter.lag, self.now - at);
                return;
            }
        }
        if let Some((tally, _)) = self.told.remove(&request) {
            self.finish(tally, |_| {});
        }
    }

    fn next_number(&mut self) -> u64 {
        self.next_told += 1;
        self.next_told
    }

    /// Has another process do something, and waits for it to say that it is done.
    pub(super) fn tell(&mut self, process: ProcessId, mut control: Control, tally: usize) {
        let number = self.next_number();
        if let Control::Join { request, .. } | Control::Leave { request, .. } = &mut control {
            *request = number;
        }
        let until = self.until();
        self.told.insert(number, (tally, until));
        let published = self.tally(0, None);
        if let Some(known) = self.tallies.get_mut(published) {
            known.instead = Some(number);
        }
        self.say_counted(process, &control, published);
    }

    /// What was told reached nobody, or could not be told: whoever waits for the answer waits no longer. A process that is
    /// gone has no members, so nothing is wrong.
    pub(super) fn told_nobody(&mut self, number: u64, fault: Option<Fault>) {
        if let Some((tally, _)) = self.told.remove(&number) {
            self.finish(tally, |answer| answer.fault = fault);
        }
    }

    pub(super) fn say(&mut self, process: ProcessId, control: &Control) {
        let tally = self.tally(0, None);
        self.say_counted(process, control, tally);
    }

    fn say_counted(&mut self, process: ProcessId, control: &Control, tally: usize) {
        let topic = self.keys.inbox(process);
        self.say_on(&process.to_string(), &topic, control, tally);
    }

    /// Says something to all processes.
    pub(super) fn say_to_all(&mut self, control: &Control, tally: usize) {
        let topic = self.keys.control();
        self.say_on("", &topic, control, tally);
    }

    fn say_on(&mut self, name: &str, topic: &str, control: &Control, tally: usize) {
        match self.sealed(topic, control) {
            Ok(entry) => self.publish(name, topic, Published::Control(entry), tally),
            Err(fault) => self.finish_with(tally, fault),
        }
    }

    fn sealed(&mut self, topic: &str, control: &Control) -> Result<Draft, Fault> {
        let header = Header {
            sender: self.me,
            sequence: self.counters.next(topic),
            deadline: 0,
        };
        let seal = self.settings.crypt.as_deref().map(|crypt| envelope::Seal {
            crypt,
            now: self.shared.now() / 1000,
        });
        envelope::encode(&header, envelope::Outgoing::Control(control), seal)
            .map_err(|error| Fault::new(FaultKind::Refused, error.to_string()))
    }

    /// Sends a word to ourselves, to see how long the way takes.
    pub(super) fn send_probe(&mut self) {
        if self.settings.wire == Wire::ChannelsRedis || !self.is_connected() {
            return;
        }
        let number = self.next_number();
        self.probe = Some((number, self.now));
        self.say(self.me, &Control::Done { request: number });
    }

    /// Finishes a tally when all that went out before has come back, as far as it was for this process: a word to ourselves
    /// comes behind it.
    pub(super) fn finish_when_back(&mut self, tally: usize) {
        if self.settings.wire == Wire::ChannelsRedis || !self.is_connected() {
            self.finish(tally, |_| {});
            return;
        }
        let number = self.next_number();
        self.told.insert(number, (tally, self.until()));
        // If it does not get through nothing comes back.
        let published = self.tally(0, None);
        if let Some(known) = self.tallies.get_mut(published) {
            known.instead = Some(number);
        }
        self.say_counted(self.me, &Control::Done { request: number }, published);
    }

    /// Tells every local channel something about the connection; of queues only those at which somebody waits, because what
    /// nobody here takes goes back to the fleet.
    pub(super) fn tell_all(&mut self, kind: &str) {
        for channel in self.engine.known_channels() {
            let here = self.settings.wire == Wire::ChannelsRedis
                || process_of(&channel).is_some()
                || self.engine.waiters(&channel) > 0;
            if here {
                self.deliver_to_channel(&channel, system_message::plain(kind).into(), ITSELF);
            }
        }
    }

    /// Says that these topics may have missed messages.
    pub(super) fn tell_gap(&mut self, topics: &[String], missed: u64) {
        let groups: Vec<String> = topics
            .iter()
            .filter_map(|topic| match self.settings.wire {
                Wire::ChannelsRedis => self.keys.channels_redis_group_of(topic),
                Wire::Headrace => self.keys.group_of(topic),
            })
            .map(str::to_owned)
            .collect();
        count(&self.shared.meter.gaps, 1);
        count(&self.shared.meter.missed, missed);
        if let Some(kind) = self.settings.on_gap.clone() {
            for group in &groups {
                let payload = system_message::gap(&kind, group, missed);
                self.deliver_to_group(group, payload.into(), &[], ITSELF);
            }
        }
        let inbox = self.keys.inbox(self.me);
        let direct = match self.settings.wire {
            Wire::ChannelsRedis => groups.len() < topics.len(),
            Wire::Headrace => topics.contains(&inbox),
        };
        self.shared.notice(Notice::Gap {
            direct,
            groups,
            missed,
        });
    }

    // The memberships of plain channels.

    /// Reads them, once for all that changes while they are read.
    pub(super) fn load_members(&mut self) {
        if std::mem::replace(&mut self.members_loading, true) {
            self.members_stale = true;
            return;
        }
        let command = Command::new("HGETALL").text(self.keys.members());
        let key = self.keys.members();
        let request = Request::new("", &key, vec![command], self.until(), Then::Members).safe();
        self.submit(request);
    }
}
