//! What is published: messages to processes and groups, and control messages; and the messages that wait for room.

use std::collections::VecDeque;

use super::backlog::Claim;
use super::calls::CallId;
use super::context::Context;
use super::dispatch::Dispatch;
use super::request::{Request, Then};
use crate::redis::fault::{Fault, FaultKind};
use crate::redis::host::Host;
use crate::redis::link::Command;
use crate::redis::meter::count;
use crate::redis::settings::Settings;
use crate::redis::wire::crypt::Version;
use crate::redis::wire::envelope::{self, Control, Draft, Header};
use crate::redis::wire::keys::{ProcessId, process_of};
use crate::redis::wire::sequence::SequenceCounters;
use crate::shrink::Shrink;

/// What is published, as it travels.
#[derive(Debug)]
enum Published {
    /// The envelope of a message for a group.
    Group(Draft),
    /// That of a message for a channel of a process. If nobody gets it, the process is gone.
    Direct(Draft),
    /// A control message; it has a deadline only if it is authenticated.
    Control(Draft),
    /// One that announces a change of memberships.
    Announcement(Draft),
    /// A message as `channels_redis` sends it, without an envelope.
    Payload(Draft),
}

/// Where else a message has to go after it was published.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rest {
    Nowhere,
    /// Into a queue.
    Queue {
        channel: String,
        entry: Draft,
    },
    /// Into the queues that are in a group.
    Members {
        group: String,
        exclude: Vec<String>,
        entry: Draft,
    },
}

#[derive(Debug)]
pub(super) struct Outgoing {
    counters: SequenceCounters,
    /// Messages for which there is no room yet, in their order.
    waiting: VecDeque<(Vec<Dispatch>, CallId)>,
}

impl Outgoing {
    /// Counts up to so many destinations.
    pub(super) fn new(settings: &Settings, watched: usize) -> Self {
        let crypt = settings.crypt.as_deref();
        let rising = crypt.is_some_and(|crypt| crypt.sends(Version::Two));
        Self {
            counters: if rising {
                SequenceCounters::rising(watched)
            } else {
                SequenceCounters::new(watched)
            },
            waiting: VecDeque::new(),
        }
    }

    /// Gives an envelope its number. Its deadline is set when it is written.
    pub(super) fn numbered(&mut self, destination: &str, mut entry: Draft) -> Draft {
        entry.number(self.counters.next(destination));
        entry
    }

    /// Begins a call that sends messages. Gives them back if there is room for them; if not, they wait.
    pub(super) fn accept<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        messages: Vec<Dispatch>,
        claim: Claim,
        ticket: Option<H::Ticket>,
    ) -> Option<(Vec<Dispatch>, CallId)> {
        // One part more until all parts are known, so that it is not done before.
        let call = cx.call(1, ticket);
        let admitted = claim.is_admitted() || self.waiting.is_empty() && claim.admit();
        cx.calls.hold(call, claim);
        if admitted {
            return Some((messages, call));
        }
        self.waiting.push_back((messages, call));
        None
    }

    /// Takes the first messages that wait, if there is room for them now. Those that have waited too long are given up.
    pub(super) fn admit<H: Host>(
        &mut self,
        cx: &mut Context<H>,
    ) -> Option<(Vec<Dispatch>, CallId)> {
        while let Some((_, call)) = self.waiting.front() {
            let admitted = cx.calls.admit(*call);
            if !admitted && !cx.calls.is_late(*call, cx.now) {
                return None;
            }
            let (messages, call) = self.waiting.pop_front()?;
            if admitted {
                return Some((messages, call));
            }
            count(&cx.shared.meter.unsent, messages.len() as u64);
            let fault = cx.shared.no_room(cx.settings.send_timeout);
            cx.calls.fail(call, fault);
        }
        None
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Gives up the messages that wait for room; gives how many there are.
    pub(super) fn give_up_waiting(&mut self) -> u64 {
        let waiting = self.waiting.drain(..);
        waiting.map(|(messages, _)| messages.len() as u64).sum()
    }

    /// Publishes a message, and returns where else it goes.
    pub(super) fn send<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        message: Dispatch,
        call: CallId,
    ) -> Rest {
        match message {
            Dispatch::Channel { channel, entry } => self.send_to_channel(cx, channel, entry, call),
            Dispatch::Group {
                group,
                exclude,
                entry,
            } => {
                let topic = cx.keys.group(&group);
                if !cx.settings.wire.has_envelopes() {
                    publish(cx, &topic, &topic, Published::Payload(entry), call);
                    return Rest::Nowhere;
                }
                let entry = self.numbered(&topic, entry);
                publish(cx, &group, &topic, Published::Group(entry.clone()), call);
                Rest::Members {
                    group,
                    exclude,
                    entry,
                }
            }
        }
    }

    fn send_to_channel<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        channel: String,
        entry: Draft,
        call: CallId,
    ) -> Rest {
        if !cx.settings.wire.has_envelopes() {
            publish(cx, &channel, &channel, Published::Payload(entry), call);
            return Rest::Nowhere;
        }
        if let Some(process) = process_of(&channel) {
            let topic = cx.keys.process(process);
            let message = Published::Direct(self.numbered(&topic, entry));
            publish(cx, &process.to_string(), &topic, message, call);
            return Rest::Nowhere;
        }
        let entry = self.numbered(&cx.keys.queue(&channel), entry);
        Rest::Queue { channel, entry }
    }

    /// Sends a control message to a process.
    pub(super) fn send_control<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        process: ProcessId,
        control: &Control,
        call: CallId,
    ) {
        let topic = cx.keys.process(process);
        if let Some((_, entry)) = self.encoded(cx, &topic, control, call) {
            let name = process.to_string();
            publish(cx, &name, &topic, Published::Control(entry), call);
        }
    }

    /// Sends a control message to all processes.
    pub(super) fn broadcast_control<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        control: &Control,
        call: CallId,
    ) {
        let topic = cx.keys.control();
        if let Some((_, entry)) = self.encoded(cx, &topic, control, call) {
            publish(cx, "", &topic, Published::Control(entry), call);
        }
    }

    /// Announces to all processes how memberships change. Returns the number of the announcement.
    pub(super) fn announce<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        control: &Control,
        call: CallId,
    ) -> Option<u64> {
        let topic = cx.keys.members();
        let (number, entry) = self.encoded(cx, &topic, control, call)?;
        publish(cx, "", &topic, Published::Announcement(entry), call);
        if *control != Control::ReadMembers {
            // Processes of earlier releases read the members whenever something has changed. The caller does not depend on
            // them, whose topic may be on another server.
            let topic = cx.keys.control();
            let call = cx.call(0, None);
            let (_, entry) = self.encoded(cx, &topic, &Control::MembersChanged, call)?;
            publish(cx, "", &topic, Published::Announcement(entry), call);
        }
        Some(number)
    }

    /// The envelope of a control message for a topic, and its number.
    fn encoded<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        topic: &str,
        control: &Control,
        call: CallId,
    ) -> Option<(u64, Draft)> {
        let sequence = self.counters.next(topic);
        let header = Header {
            sender: cx.me,
            sequence,
            deadline: 0,
        };
        match envelope::encode(&header, envelope::OutgoingBody::Control(control), cx.seal()) {
            Ok(entry) => Some((sequence, entry)),
            Err(error) => {
                let fault = Fault::new(FaultKind::Refused, error.to_string());
                cx.calls.fail(call, fault);
                None
            }
        }
    }

    pub(super) fn shrink_if_sparse(&mut self) {
        self.waiting.shrink_if_sparse();
    }
}

/// Publishes a message on a pub/sub channel that belongs where the name does.
fn publish<H: Host>(
    cx: &mut Context<H>,
    name: &str,
    topic: &str,
    message: Published,
    call: CallId,
) {
    let direct = matches!(message, Published::Direct(_));
    let announces = matches!(message, Published::Announcement(_));
    let command = Command::publish(topic);
    let (length, command) = match message {
        Published::Control(draft) | Published::Announcement(draft) if !draft.is_sealed() => {
            (draft.len(), command.bytes(draft.into_bytes()))
        }
        Published::Payload(draft) => (draft.len(), command.bytes(draft.into_bytes())),
        Published::Group(draft)
        | Published::Direct(draft)
        | Published::Control(draft)
        | Published::Announcement(draft) => (draft.len(), command.envelope(draft)),
    };
    count(&cx.shared.meter.bytes_out, length as u64);
    let until = cx.add_part(call);
    let then = Then::Published {
        call,
        at: cx.now,
        direct,
        announces,
    };
    cx.submit(Request::new(name, topic, vec![command], until, then));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::backlog::{Backlog, MOST};
    use super::super::testing::{OTHER, World, context, settings};
    use super::*;
    use crate::redis::settings::Topology;
    use crate::redis::wire::form::Wire;

    fn parts(wire: Wire) -> (Context<World>, Outgoing) {
        let mut cx = context(settings(Topology::Shards));
        cx.keys = cx.keys.in_form(wire);
        cx.settings = Arc::new(Settings {
            wire,
            ..(*cx.settings).clone()
        });
        let outgoing = Outgoing::new(&cx.settings, 16);
        (cx, outgoing)
    }

    fn message(channel: &str) -> Dispatch {
        Dispatch::Channel {
            channel: channel.to_owned(),
            entry: vec![0; 40].into(),
        }
    }

    #[test]
    fn a_message_is_published_where_its_channel_is_read_or_left_for_a_queue() {
        let specific = format!("specific.{OTHER}!a");
        for (wire, channel, topic) in [
            (
                Wire::Headrace,
                specific.as_str(),
                Some(format!("t:p:{OTHER}")),
            ),
            (Wire::Headrace, "work", None),
            (Wire::ChannelsRedis, "work", Some("work".to_owned())),
        ] {
            let (mut cx, mut outgoing) = parts(wire);
            let call = cx.call(1, Some(1));
            let rest = outgoing.send(&mut cx, message(channel), call);
            assert_eq!(matches!(rest, Rest::Queue { .. }), topic.is_none());
            let published = cx.requests.first().map(Request::to_strings);
            let words = published.and_then(|commands| commands.into_iter().next());
            let to = words.and_then(|words| words.split(' ').nth(1).map(str::to_owned));
            assert_eq!(to, topic);
        }
    }

    /// Processes of earlier releases read the control topic alone, and know its messages.
    #[test]
    fn a_change_of_memberships_is_told_to_earlier_releases_in_their_words() {
        let (mut cx, mut outgoing) = parts(Wire::Headrace);
        let membership = Control::Membership {
            group: "room".to_owned(),
            channel: "work".to_owned(),
            end: 1,
        };
        for control in [membership, Control::MembersChanged, Control::ReadMembers] {
            let call = cx.call(1, None);
            outgoing.announce(&mut cx, &control, call);
        }
        let published: Vec<_> = cx.requests.iter().map(Request::carried).collect();
        let words = |request: &Request| request.to_strings().concat();
        let to = |words: String| words.split(' ').nth(1).map(str::to_owned);
        let topics: Vec<_> = cx.requests.iter().map(words).filter_map(to).collect();
        assert_eq!(topics, ["t:m", "t:c", "t:m", "t:c", "t:m"]);
        for (place, sequence) in [(1, 1), (3, 2)] {
            let mut old = vec![1, 2];
            old.extend(cx.me.0.to_be_bytes());
            old.extend(u64::to_be_bytes(sequence));
            old.extend([0; 8]);
            old.push(4);
            assert_eq!(published[place][..], old);
        }
    }

    #[test]
    fn a_message_waits_for_room_and_is_not_overtaken() {
        let (mut cx, mut outgoing) = parts(Wire::Headrace);
        let backlog: Arc<Backlog> = Arc::default();
        let all = Claim::new(&backlog, 0, MOST);
        let claim = || Claim::new(&backlog, 1, 1);
        for ticket in [1, 2] {
            let messages = vec![message("work")];
            let accepted = outgoing.accept(&mut cx, messages, claim(), Some(ticket));
            assert!(accepted.is_none());
        }
        assert!(outgoing.admit(&mut cx).is_none());
        drop(all);
        let third = outgoing.accept(&mut cx, Vec::new(), claim(), Some(3));
        assert!(
            third.is_none(),
            "there is room, and there are others before it"
        );
        let admitted = std::iter::from_fn(|| outgoing.admit(&mut cx));
        assert_eq!(admitted.count(), 3);
        assert!(!outgoing.has_waiting());
    }

    #[test]
    fn a_message_for_which_no_room_comes_is_given_up() {
        let (mut cx, mut outgoing) = parts(Wire::Headrace);
        let backlog: Arc<Backlog> = Arc::default();
        let _all = Claim::new(&backlog, 0, MOST);
        let claim = Claim::new(&backlog, 1, 1);
        outgoing.accept(&mut cx, vec![message("work")], claim, Some(1));
        cx.now += cx.settings.send_timeout + Duration::from_millis(1);
        assert!(outgoing.admit(&mut cx).is_none());
        let answers = cx.calls.take_answers();
        let fault = answers.first().and_then(|(_, answer)| answer.fault.clone());
        assert_eq!(fault.map(|fault| fault.kind()), Some(FaultKind::Backlog));
        assert_eq!(cx.shared.stats().unsent, 1);
    }
}
