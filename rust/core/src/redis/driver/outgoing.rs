//! Messages on their way out: those that wait for room, and where each goes.

use std::collections::VecDeque;

use super::backlog::Claim;
use super::calls::CallId;
use super::context::Context;
use super::dispatch::Dispatch;
use super::history::keeps;
use super::publishing::Published;
use crate::redis::host::Host;
use crate::redis::meter::count;
use crate::redis::wire::envelope::Draft;
use crate::redis::wire::keys::process_of;
use crate::shrink::Shrink;

/// Where else a message has to go after it was published.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rest {
    Nowhere,
    /// Into a queue.
    Queue {
        channel: String,
        entry: Draft,
    },
    /// To a group that keeps its history, in which it may stand, and into the queues that are in it.
    History {
        group: String,
        exclude: Vec<String>,
        entry: Draft,
    },
    /// Into the queues that are in a group.
    Members {
        group: String,
        exclude: Vec<String>,
        entry: Draft,
    },
}

/// The messages for which there is no room yet, in their order.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    waiting: VecDeque<(Vec<Dispatch>, CallId)>,
}

impl Outgoing {
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

    pub(super) fn shrink_if_sparse(&mut self) {
        self.waiting.shrink_if_sparse();
    }
}

/// Publishes a message, and returns where else it goes.
pub(super) fn send<H: Host>(cx: &mut Context<H>, message: Dispatch, call: CallId) -> Rest {
    match message {
        Dispatch::Channel { channel, entry } => send_to_channel(cx, channel, entry, call),
        Dispatch::Group {
            group,
            exclude,
            entry,
        } => {
            let topic = cx.keys.group(&group);
            if !cx.settings.wire.has_envelopes() {
                cx.publish(&topic, &topic, Published::Payload, entry, call);
                return Rest::Nowhere;
            }
            let entry = cx.numbered(&topic, entry);
            if entry.is_kept() || keeps(cx, &group) {
                return Rest::History {
                    group,
                    exclude,
                    entry,
                };
            }
            cx.publish(&group, &topic, Published::Group, entry.clone(), call);
            Rest::Members {
                group,
                exclude,
                entry,
            }
        }
    }
}

fn send_to_channel<H: Host>(
    cx: &mut Context<H>,
    channel: String,
    entry: Draft,
    call: CallId,
) -> Rest {
    if !cx.settings.wire.has_envelopes() {
        cx.publish(&channel, &channel, Published::Payload, entry, call);
        return Rest::Nowhere;
    }
    if let Some(process) = process_of(&channel) {
        let topic = cx.keys.process(process);
        let entry = cx.numbered(&topic, entry);
        let name = process.to_string();
        cx.publish(&name, &topic, Published::Direct, entry, call);
        return Rest::Nowhere;
    }
    let entry = cx.numbered(&cx.keys.queue(&channel), entry);
    Rest::Queue { channel, entry }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::backlog::{Backlog, MOST};
    use super::super::request::Request;
    use super::super::testing::{OTHER, World, context, settings};
    use super::*;
    use crate::redis::fault::FaultKind;
    use crate::redis::settings::{Settings, Topology};
    use crate::redis::wire::form::Wire;

    fn parts(wire: Wire) -> (Context<World>, Outgoing) {
        let mut cx = context(settings(Topology::Shards));
        cx.keys = cx.keys.in_form(wire);
        cx.settings = Arc::new(Settings {
            wire,
            ..(*cx.settings).clone()
        });
        (cx, Outgoing::default())
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
            let (mut cx, _) = parts(wire);
            let call = cx.call(1, Some(1));
            let rest = send(&mut cx, message(channel), call);
            assert_eq!(matches!(rest, Rest::Queue { .. }), topic.is_none());
            let published = cx.requests.first().map(Request::to_strings);
            let words = published.and_then(|commands| commands.into_iter().next());
            let to = words.and_then(|words| words.split(' ').nth(1).map(str::to_owned));
            assert_eq!(to, topic);
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
