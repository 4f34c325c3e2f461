//! Messages that come from the servers: opened, checked for what is missing, late, or came before.

use super::context::Context;
use super::history::{Pushed, Unkept, keeps};
use super::node_key::NodeKey;
use super::refusals::{MISPLACED, Origin};
use super::topics::Topics;
use crate::redis::host::Host;
use crate::redis::meter::count;
use crate::redis::notice::Notice;
use crate::redis::wire::envelope::{self, Body, Control, DecodedEnvelope, Header, Malformed};
use crate::redis::wire::history::Identity;
use crate::redis::wire::keys::{ProcessId, Topic};
use crate::redis::wire::presence::{self, Change};
use crate::redis::wire::sequence::{Seen, Sequences};

/// Why an announcement of who is present is refused.
const NO_CHANGES: &str = "it does not say who comes or leaves";

/// What arrived, if it is no message for a mailbox.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrived {
    /// The queue of this channel has entries.
    Wake(String),
    /// A control message, with its sender.
    Control(ProcessId, Control),
    /// How memberships change, with its sender and number.
    Members(ProcessId, u64, Control),
    /// A message of a group that keeps its history.
    Kept(String, Pushed),
    /// One that is not kept, of such a group.
    Unkept(String, Unkept),
    /// How a process changes who is present in a group.
    Presence(String, ProcessId, Vec<Change>),
}

#[derive(Debug)]
pub(super) struct Arrivals {
    sequences: Sequences,
    /// Something that changes memberships was missed, or came late.
    missed_change: bool,
    /// The groups of which changes of who is present were missed, or came late.
    missed_presence: Vec<String>,
}

impl Arrivals {
    /// Watches up to so many senders and topics for holes.
    pub(super) fn new(watched: usize) -> Self {
        Self {
            sequences: Sequences::new(watched),
            missed_change: false,
            missed_presence: Vec::new(),
        }
    }

    /// Whether something that changes memberships was missed, or came late, since this was asked last.
    pub(super) fn take_missed_change(&mut self) -> bool {
        std::mem::take(&mut self.missed_change)
    }

    /// The groups of which changes of who is present were missed, or came late, since this was asked last.
    pub(super) fn take_missed_presence(&mut self) -> Vec<String> {
        std::mem::take(&mut self.missed_presence)
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
        if cx.is_oversized(topic, bytes.len()) {
            return None;
        }
        if !cx.settings.wire.has_envelopes() {
            arrived_plainly(cx, topic, bytes);
            return None;
        }
        // A wake-up has no content.
        if let Some(Topic::Wake(channel)) = cx.keys.topic(topic) {
            return Some(Arrived::Wake(channel.to_owned()));
        }
        let from = Origin::of(envelope::sender(&bytes), topic);
        match envelope::decode(bytes, topic, cx.settings.crypt.as_deref()) {
            Ok(envelope) => {
                let DecodedEnvelope {
                    header,
                    body,
                    authenticated,
                } = envelope;
                let body = match kept(cx, node, topic, (&header, authenticated), body) {
                    Ok((group, kept)) => {
                        self.note_kept(topic, &header, authenticated, kept.stale);
                        return Some(Arrived::Kept(group, kept));
                    }
                    Err(body) => body,
                };
                let due = if authenticated {
                    self.is_due(cx, topics, (node, topic), &header)
                } else {
                    self.is_probably_due(cx, topics, (node, topic), &header)
                };
                due.then(|| opened(cx, from, header.sequence, body))
                    .flatten()
            }
            Err(malformed) => {
                cx.refusals.refuse(&cx.shared, from, malformed);
                None
            }
        }
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
                let from = Origin::of(sender, topic);
                cx.refusals.refuse_replay(&cx.shared, from);
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

    /// Notes the number of a message that is kept: those that are not kept are counted with it. What is missing before it is seen in the
    /// stream.
    fn note_kept(&mut self, topic: &str, header: &Header, authenticated: bool, stale: bool) {
        let Header {
            sender, sequence, ..
        } = *header;
        if !authenticated {
            self.sequences.note(sender, topic, sequence);
        } else if !stale || self.sequences.knows(sender, topic) {
            self.sequences.note_once(sender, topic, sequence);
        }
    }

    /// Notes that what came on a topic is not all of it, or not in order, if it is one that changes memberships, or who is present.
    fn note_missed_change<H: Host>(&mut self, cx: &Context<H>, topic: &str) {
        match cx.keys.topic(topic) {
            Some(Topic::Control | Topic::Members) => self.missed_change = true,
            Some(Topic::Presence(group)) => self.missed_presence.push(group.to_owned()),
            _ => {}
        }
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
        cx.report_gap(&[topic.to_owned()], missed);
    }
}

/// A message whose group keeps its history here: the stream shows what is missing, late, or came before. Else its body.
fn kept<H: Host>(
    cx: &Context<H>,
    node: &NodeKey,
    topic: &str,
    (header, authenticated): (&Header, bool),
    body: Body,
) -> Result<(String, Pushed), Body> {
    let Body::Kept {
        epoch,
        exclude,
        payload,
    } = body
    else {
        return Err(body);
    };
    let group = match cx.keys.topic(topic) {
        Some(Topic::Group(group)) if cx.settings.history.limits_of(group).is_some() => group,
        _ => return Err(Body::Group { exclude, payload }),
    };
    let expired = || {
        let there = cx.servers.node(node);
        let expired = there.and_then(|node| node.is_expired(header.deadline, cx.now));
        expired.unwrap_or_else(|| header.deadline <= cx.shared.now())
    };
    let pushed = Pushed {
        epoch,
        identity: Identity {
            sender: header.sender,
            sequence: header.sequence,
        },
        exclude,
        payload,
        stale: authenticated && expired(),
    };
    Ok((group.to_owned(), pushed))
}

/// Gives what an envelope holds to the mailboxes, or returns it if it is for another part.
fn opened<H: Host>(
    cx: &mut Context<H>,
    from: Origin<'_>,
    number: u64,
    body: Body,
) -> Option<Arrived> {
    match (cx.keys.topic(from.place), body) {
        (Some(Topic::Group(group)), Body::Group { exclude, payload }) => {
            if let Some(sender) = from.sender
                && keeps(cx, group)
            {
                let unkept = Unkept {
                    identity: Identity {
                        sender,
                        sequence: number,
                    },
                    exclude,
                    payload,
                };
                return Some(Arrived::Unkept(group.to_owned(), unkept));
            }
            let exclude: Vec<&str> = exclude.iter().map(String::as_str).collect();
            cx.deliver_to_group(group, payload, &exclude, from);
        }
        (Some(Topic::Presence(group)), Body::Group { exclude, payload }) if exclude.is_empty() => {
            match presence::changes(&payload.into_bytes()) {
                Some(changes) => {
                    let arrived = |sender| Arrived::Presence(group.to_owned(), sender, changes);
                    return from.sender.map(arrived);
                }
                None => cx.refuse_content(from, NO_CHANGES, ""),
            }
        }
        (Some(Topic::Process(_)), Body::Direct { channel, payload }) => {
            cx.deliver_to_channel(&channel, payload, from);
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
        _ => cx.refuse_content(from, MISPLACED, ""),
    }
    None
}

/// As `channels_redis` sends it: a payload, encrypted or not, on the topic of a group or of a channel.
fn arrived_plainly<H: Host>(cx: &mut Context<H>, topic: &str, bytes: Vec<u8>) {
    let from = Origin::at(topic);
    let payload = match &cx.settings.crypt {
        Some(crypt) => match crypt.decrypt(&bytes) {
            Ok(bytes) => bytes,
            Err(why) => {
                let malformed = Malformed::Undecryptable(why);
                cx.refusals.refuse(&cx.shared, from, malformed);
                return;
            }
        },
        None => bytes,
    };
    match cx.keys.group_of(topic) {
        Some(group) => cx.deliver_to_group(group, payload.into(), &[], from),
        None => cx.deliver_to_channel(topic, payload.into(), from),
    }
}

#[cfg(test)]
mod tests;
