//! Messages that come from the servers: checked, counted, and put into the local mailboxes.

use super::context::Context;
use super::node_key::NodeKey;
use super::refusals::{MISPLACED, NO_NAME, Origin, Refusals};
use super::topics::Topics;
use crate::error::SendError;
use crate::handoff::HandOff;
use crate::redis::host::{Host, RawMessage};
use crate::redis::meter::count;
use crate::redis::notice::Notice;
use crate::redis::wire::envelope::{
    self, Body, Control, DecodedEnvelope, Header, Malformed, Payload,
};
use crate::redis::wire::keys::{ProcessId, Topic, process_of};
use crate::redis::wire::payload;
use crate::redis::wire::sequence::{Seen, Sequences};
use crate::redis::wire::system_message;

/// What the local engine returns for a message.
type Sent<H> = Result<
    Option<HandOff<<H as Host>::Message, <H as Host>::Waiter>>,
    SendError<<H as Host>::Message>,
>;

/// What an envelope adds to a message at most: its header, and the names of excluded channels.
const ENVELOPE: usize = 64 * 1024;

/// The origin of messages from this process to its own channels.
const ITSELF: Origin<'_> = Origin {
    place: "this process",
    sender: None,
};

/// What arrived, if it is no message for a mailbox.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrived {
    /// The queue of this channel has entries.
    Wake(String),
    /// A control message, with its sender.
    Control(ProcessId, Control),
    /// How memberships change, with its sender and number.
    Members(ProcessId, u64, Control),
}

#[derive(Debug)]
pub(super) struct Arrivals {
    sequences: Sequences,
    refusals: Refusals,
    /// Something that changes memberships was missed, or came late.
    missed_change: bool,
}

impl Arrivals {
    /// Watches up to so many senders and topics for holes.
    pub(super) fn new(watched: usize) -> Self {
        Self {
            sequences: Sequences::new(watched),
            refusals: Refusals::default(),
            missed_change: false,
        }
    }

    /// Whether something that changes memberships was missed, or came late, since this was asked last.
    pub(super) fn take_missed_change(&mut self) -> bool {
        std::mem::take(&mut self.missed_change)
    }

    pub(super) fn refusals(&mut self) -> &mut Refusals {
        &mut self.refusals
    }

    /// The subscription was interrupted: the next hole of each sender on the topic is not counted.
    pub(super) fn excuse_topic(&mut self, topic: &str) {
        self.sequences.excuse_topic(topic);
    }

    pub(super) fn forget_topic(&mut self, topic: &str) {
        self.sequences.forget_topic(topic);
    }

    /// A message has come on a topic, from this server.
    pub(super) fn arrived<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        topics: &mut Topics,
        (node, topic): (&NodeKey, &str),
        bytes: Vec<u8>,
    ) -> Option<Arrived> {
        if is_oversized(cx, topic, bytes.len()) {
            return None;
        }
        if !cx.settings.wire.has_envelopes() {
            self.arrived_plainly(cx, topic, bytes);
            return None;
        }
        // A wake-up has no content.
        if let Some(Topic::Wake(channel)) = cx.keys.topic(topic) {
            return Some(Arrived::Wake(channel.to_owned()));
        }
        let from = Origin {
            place: topic,
            sender: Some(envelope::sender(&bytes)),
        };
        match envelope::decode(bytes, topic, cx.settings.crypt.as_deref()) {
            Ok(envelope) => {
                let DecodedEnvelope {
                    header,
                    body,
                    authenticated,
                } = envelope;
                let due = if authenticated {
                    self.is_due(cx, topics, (node, topic), &header)
                } else {
                    self.is_probably_due(cx, topics, (node, topic), &header)
                };
                due.then(|| self.opened(cx, from, header.sequence, body))
                    .flatten()
            }
            Err(malformed) => {
                self.refusals.refuse(&cx.shared, from, malformed);
                None
            }
        }
    }

    fn opened<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        from: Origin<'_>,
        number: u64,
        body: Body,
    ) -> Option<Arrived> {
        match (cx.keys.topic(from.place), body) {
            (Some(Topic::Group(group)), Body::Group { exclude, payload }) => {
                let exclude: Vec<&str> = exclude.iter().map(String::as_str).collect();
                self.deliver_to_group(cx, group, payload, &exclude, from);
            }
            (Some(Topic::Process(_)), Body::Direct { channel, payload }) => {
                self.deliver_to_channel(cx, &channel, payload, from);
            }
            (Some(Topic::Process(_) | Topic::Control), Body::Control(control))
                if !control.is_announcement() =>
            {
                return from.sender.map(|sender| Arrived::Control(sender, control));
            }
            (Some(Topic::Members), Body::Control(control))
                if control.is_announcement() || control == Control::MembersChanged =>
            {
                let members = |sender| Arrived::Members(sender, number, control);
                return from.sender.map(members);
            }
            _ => self.refuse_content(cx, from, MISPLACED, ""),
        }
        None
    }

    pub(super) fn refuse_content<H: Host>(
        &mut self,
        cx: &Context<H>,
        from: Origin<'_>,
        kind: &'static str,
        detail: &str,
    ) {
        self.refusals.refuse_content(&cx.shared, from, kind, detail);
    }

    /// Whether an authenticated message is to be delivered: none is after its deadline, and none twice.
    ///
    /// A deadline counts even if the server's clock was set, unlike without keys: otherwise a recorded message could be
    /// replayed at any later time.
    fn is_due<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        topics: &mut Topics,
        (node, topic): (&NodeKey, &str),
        header: &Header,
    ) -> bool {
        let Header {
            sender,
            sequence,
            deadline,
        } = *header;
        let there = cx.servers.node(node);
        let expired = there.and_then(|node| node.is_expired(deadline, cx.now));
        // By the time here, if the time there is not known yet.
        let expired = expired.unwrap_or_else(|| deadline <= cx.shared.now());
        // The number of an expired message is not remembered if nothing else of its sender is known.
        let seen = if expired && !self.sequences.knows(sender, topic) {
            Seen::First
        } else {
            self.sequences.note_once(sender, topic, sequence)
        };
        let late = match seen {
            Seen::Again | Seen::Late if topics.is_late_expected(topic, cx.now) => true,
            Seen::Again => {
                let from = Origin {
                    place: topic,
                    sender: Some(sender),
                };
                self.refusals.refuse_replay(&cx.shared, from);
                return false;
            }
            Seen::Gap(missed) => {
                self.found_hole(cx, topics, topic, missed);
                expired
            }
            Seen::First | Seen::Next | Seen::Late => expired,
        };
        if late || seen == Seen::Late {
            self.note_missed_change(cx, topic);
        }
        if late {
            count(&cx.shared.meter.late, 1);
        }
        if expired {
            cx.shared.notices.push_once(Notice::Late);
        }
        !late
    }

    /// Whether a message is to be delivered, if its header is not authenticated.
    fn is_probably_due<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        topics: &mut Topics,
        (node, topic): (&NodeKey, &str),
        header: &Header,
    ) -> bool {
        match self.sequences.note(header.sender, topic, header.sequence) {
            Seen::Again if topics.is_late_expected(topic, cx.now) => {
                count(&cx.shared.meter.late, 1);
                self.note_missed_change(cx, topic);
                return false;
            }
            // An older number comes late when it had to be sent again, because its slot was moving.
            Seen::Again | Seen::Late => self.note_missed_change(cx, topic),
            Seen::First | Seen::Next => {}
            Seen::Gap(missed) => self.found_hole(cx, topics, topic, missed),
        }
        let deadline = header.deadline;
        let is_late = deadline != 0
            && cx
                .servers
                .node(node)
                .is_some_and(|node| node.is_late(deadline, cx.now));
        if is_late {
            count(&cx.shared.meter.late, 1);
            cx.shared.notices.push_once(Notice::Late);
            self.note_missed_change(cx, topic);
        }
        !is_late
    }

    /// Notes that what came on a topic is not all of it, or not in order, if it is one that changes memberships.
    fn note_missed_change<H: Host>(&mut self, cx: &Context<H>, topic: &str) {
        let topic = cx.keys.topic(topic);
        self.missed_change |= matches!(topic, Some(Topic::Control | Topic::Members));
    }

    fn found_hole<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        topics: &mut Topics,
        topic: &str,
        missed: u64,
    ) {
        if cx.servers.map().is_passed_on() {
            topics.expect_late(topic, cx.now);
        }
        self.note_missed_change(cx, topic);
        self.report_gap(cx, &[topic.to_owned()], missed);
    }

    /// As `channels_redis` sends it: a payload, encrypted or not, on the topic of a group or of a channel.
    fn arrived_plainly<H: Host>(&mut self, cx: &mut Context<H>, topic: &str, bytes: Vec<u8>) {
        let from = Origin {
            place: topic,
            sender: None,
        };
        let payload = match &cx.settings.crypt {
            Some(crypt) => match crypt.decrypt(&bytes) {
                Ok(bytes) => bytes,
                Err(why) => {
                    let malformed = Malformed::Undecryptable(why);
                    self.refusals.refuse(&cx.shared, from, malformed);
                    return;
                }
            },
            None => bytes,
        };
        match cx.keys.group_of(topic) {
            Some(group) => self.deliver_to_group(cx, group, payload.into(), &[], from),
            None => self.deliver_to_channel(cx, topic, payload.into(), from),
        }
    }

    /// Checks a payload, so that a receiver can decode it without an error.
    fn message<H: Host>(
        &mut self,
        cx: &Context<H>,
        payload: Payload,
        from: Origin<'_>,
    ) -> Option<H::Message> {
        let bytes = payload.as_bytes().len();
        if bytes > cx.settings.max_message_bytes {
            refuse_oversized(cx, from.place, bytes);
            return None;
        }
        let shape = match payload::inspect(payload.as_bytes()) {
            Ok(shape) => shape,
            Err(bad) => {
                self.refuse_content(cx, from, "it holds no message", &bad.to_string());
                return None;
            }
        };
        Some(cx.host.message(RawMessage {
            payload: payload.into_bytes(),
            kind: shape.kind,
        }))
    }

    fn deliver_to_group<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        group: &str,
        payload: Payload,
        exclude: &[&str],
        from: Origin<'_>,
    ) {
        if let Some(message) = self.message(cx, payload, from)
            && let Ok(fan_out) = cx.local.group_send(group, message, exclude)
        {
            cx.hand_offs.extend(fan_out.hand_offs);
        }
    }

    /// Delivers to a local mailbox. If it is full the engine counts that.
    fn deliver_to_channel<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        channel: &str,
        payload: Payload,
        from: Origin<'_>,
    ) {
        if let Some(message) = self.message(cx, payload, from) {
            let sent = cx.local.send(channel, message);
            self.delivered(cx, sent, from);
        }
    }

    /// Delivers a message of a queue to its local mailbox. It has left the queue, so it is not refused for its bytes.
    pub(super) fn deliver_taken<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        channel: &str,
        payload: Payload,
        from: Origin<'_>,
    ) {
        if let Some(message) = self.message(cx, payload, from) {
            let sent = cx.local.accept(channel, message);
            self.delivered(cx, sent, from);
        }
    }

    fn delivered<H: Host>(&mut self, cx: &mut Context<H>, sent: Sent<H>, from: Origin<'_>) {
        match sent {
            Ok(hand_off) => cx.hand_offs.extend(hand_off),
            Err(SendError::Full(_)) => {}
            Err(SendError::Refused(..)) => self.refuse_content(cx, from, NO_NAME, ""),
        }
    }

    /// Sends a notification about the connection to every local channel; of queues only to those with waiting receivers,
    /// because what nobody here takes goes back to the queue.
    pub(super) fn notify_channels<H: Host>(&mut self, cx: &mut Context<H>, kind: &str) {
        for channel in cx.local.known_channels() {
            let here = !cx.settings.wire.has_queues()
                || process_of(&channel).is_some()
                || cx.local.waiters(&channel) > 0;
            if here {
                let payload = system_message::plain(kind).into();
                self.deliver_to_channel(cx, &channel, payload, ITSELF);
            }
        }
    }

    /// Reports that these topics may have missed messages. The owner is told of those that carry messages of users; what was missed
    /// on another is read again, or asked for again.
    pub(super) fn report_gap<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        topics: &[String],
        missed: u64,
    ) {
        let groups = topics.iter().filter_map(|topic| cx.keys.group_of(topic));
        let groups: Vec<String> = groups.map(str::to_owned).collect();
        count(&cx.shared.meter.gaps, 1);
        count(&cx.shared.meter.missed, missed);
        if let Some(kind) = cx.settings.on_gap.clone() {
            for group in &groups {
                let payload = system_message::gap(&kind, group, missed);
                self.deliver_to_group(cx, group, payload.into(), &[], ITSELF);
            }
        }
        let is_direct = |topic: &String| {
            let topic = cx.keys.topic(topic);
            matches!(topic, Some(Topic::Process(_) | Topic::Channel(_)))
        };
        let direct = topics.iter().any(is_direct);
        if direct || !groups.is_empty() {
            cx.shared.notice(Notice::Gap {
                direct,
                groups,
                missed,
            });
        }
    }
}

/// Whether bytes are more than the longest message takes on its way. They are not even decrypted then.
pub(super) fn is_oversized<H: Host>(cx: &Context<H>, place: &str, bytes: usize) -> bool {
    let limit = cx.settings.max_message_bytes;
    // Fernet's tokens are text: four characters for each three bytes.
    let encrypted = if cx.settings.crypt.is_some() {
        limit / 3
    } else {
        0
    };
    let oversized = bytes > limit.saturating_add(encrypted).saturating_add(ENVELOPE);
    if oversized {
        refuse_oversized(cx, place, bytes);
    }
    oversized
}

fn refuse_oversized<H: Host>(cx: &Context<H>, place: &str, bytes: usize) {
    count(&cx.shared.meter.oversized, 1);
    cx.shared.notices.push_once(Notice::Oversized {
        place: place.to_owned(),
        bytes,
        limit: cx.settings.max_message_bytes,
    });
}

#[cfg(test)]
mod tests;
