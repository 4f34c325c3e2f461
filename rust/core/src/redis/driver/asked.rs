//! Dispatches the requests of callers to the parts.

use super::Driver;
use super::ask::Ask;
use super::calls::CallId;
use super::dispatch::Dispatch;
use super::history::{self, Resume};
use super::members;
use super::outgoing::{self, Rest};
use super::presence_then::Look;
use crate::redis::host::Host;

impl<H: Host> Driver<H> {
    pub(super) fn ask(&mut self, ask: Ask<H::Ticket>) {
        let cx = &mut self.cx;
        let queues = &mut self.queues;
        match ask {
            Ask::Connect { ticket } => self.peers.connect(cx, ticket),
            Ask::Send {
                messages,
                claim,
                ticket,
            } => {
                let accepted = self.outgoing.accept(cx, messages, claim, ticket);
                if let Some((messages, call)) = accepted {
                    self.send(messages, call);
                }
            }
            Ask::Subscribe { topic, ticket } => self.subscribe(&topic, ticket),
            Ask::Membership {
                group,
                channel,
                lasts,
                ticket,
            } => self.members.change(cx, (group, channel), lasts, ticket),
            Ask::SendControl {
                process,
                control,
                ticket,
            } => {
                let connected = self.topics.are_connected(cx);
                let request = (process, control);
                self.peers.ask(cx, request, ticket, connected);
            }
            Ask::CloseQueue { channel } => self.members.close_queue(cx, &channel),
            Ask::Want { channel } => {
                let wake = cx.keys.wake(&channel);
                self.topics.want(cx, &wake, None);
                queues.fetch(cx, &channel);
            }
            Ask::Fetch {
                channel,
                most,
                patient,
                ticket,
            } => {
                let call = cx.call(1, Some(ticket));
                if patient {
                    cx.calls.excuse_unreachable(call);
                }
                queues.fetch_for(cx, &channel, most, call);
            }
            Ask::Resume {
                group,
                channel,
                since,
                cancelled,
                ticket,
            } => {
                let call = cx.call(1, Some(ticket));
                let topic = cx.keys.group(&group);
                self.topics.want(cx, &topic, None);
                self.presence.want(cx, &mut self.topics, &group);
                let resume = Resume::new(call, Some((channel, since, cancelled)), cx.until());
                self.history.resume(cx, &group, resume);
            }
            Ask::Look {
                group,
                wanted,
                ticket,
            } => {
                let call = cx.call(1, Some(ticket));
                self.history.look(cx, &group, wanted, call);
            }
            Ask::Presence { group } => {
                self.presence.note_members(cx, &mut self.topics, &group);
            }
            Ask::LookPresence {
                group,
                counts,
                ticket,
            } => {
                let call = cx.call(1, Some(ticket));
                let look = if counts { Look::Count } else { Look::List };
                self.presence.look(cx, &group, look(call));
            }
            Ask::Flush { ticket } => {
                let call = members::flush(cx, queues, ticket);
                self.history.flushed(cx);
                self.presence.flushed(cx, Some(call));
            }
            Ask::Drain { ending, ticket } => {
                if ending {
                    queues.hand_back_all(cx);
                    self.presence.leave_all(cx);
                }
                self.peers.drain(cx, ticket);
            }
            // What has changed is looked for after any request.
            Ask::PresenceLeft | Ask::Close { .. } => {}
        }
    }

    fn subscribe(&mut self, topic: &str, ticket: H::Ticket) {
        let cx = &mut self.cx;
        let call = cx.call(1, Some(ticket));
        let group = cx.keys.group_of(topic);
        if let Some(group) = group {
            self.presence.want(cx, &mut self.topics, group);
        }
        match group.filter(|group| history::keeps(cx, group)) {
            None => self.topics.want(cx, topic, Some(call)),
            Some(group) => {
                let waiting = Resume::new(call, None, cx.until());
                self.topics.want(cx, topic, None);
                self.history.resume(cx, group, waiting);
            }
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.topics.are_connected(&self.cx)
    }

    /// Whether every message has been taken by a server or given up.
    pub(super) fn has_sent_all(&self) -> bool {
        self.cx.servers.have_carried_all()
            && !self.outgoing.has_waiting()
            && !self.history.has_waiting()
    }

    /// Sends messages, with one answer for all.
    pub(super) fn send(&mut self, messages: Vec<Dispatch>, call: CallId) {
        let (cx, queues) = (&mut self.cx, &mut self.queues);
        for message in messages {
            match outgoing::send(cx, message, call) {
                Rest::Nowhere => {}
                Rest::History {
                    group,
                    exclude,
                    entry,
                } => {
                    self.history.send(cx, &group, entry.clone(), call);
                    self.members.send(cx, queues, (group, exclude), entry, call);
                }
                Rest::Queue { channel, entry } => queues.push(cx, &channel, entry, call),
                Rest::Members {
                    group,
                    exclude,
                    entry,
                } => self.members.send(cx, queues, (group, exclude), entry, call),
            }
        }
        cx.calls.done(call);
    }
}
