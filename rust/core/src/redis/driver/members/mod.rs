//! The memberships of plain channels, which every process knows.
//!
//! They are a hash, of which every process keeps a copy. It is read when the subscription to its changes is confirmed;
//! from then on the changes are announced, each with what it says, and made on the copy in the order in which they come.
//! That is the order in which they were made on the hash, unless somebody notices that it may not be
//! ([`announcements`](self::announcements)): then every process reads the hash again. It is also read when something was
//! missed, when a process of an earlier release has changed something, and now and then, because a process may die
//! between a change and its announcement.

use std::collections::HashSet;
use std::mem;
use std::time::Duration;

use tokio::time::Instant;

use self::announcements::Announcements;
use self::flush::removal;
use super::calls::{CallId, Purpose};
use super::context::Context;
use super::queues::Queues;
use super::refusals::{NO_NAME, Origin};
use super::request::{MembershipChange, Request, Then};
use crate::redis::fault::Fault;
use crate::redis::host::Host;
use crate::redis::link::Command;
use crate::redis::wire::envelope::{Control, Draft};
use crate::redis::wire::keys::{ProcessId, member_field, process_of};
use crate::redis::wire::membership;
use crate::shrink::Shrink;

mod announcements;
mod flush;
mod reading;

pub(super) use self::flush::{flush, flush_here, index_read, members_removed, removed};

/// How long the copy is trusted. What was changed and not announced is known after that.
const TRUSTED: Duration = Duration::from_secs(300);
/// How long after a reading that failed it is tried again, if nothing else asks for it.
const RETRY: Duration = Duration::from_secs(10);
/// How long after a change by a process of an earlier release the members are read once more: on a cluster its announcement
/// may overtake others, which come from another server.
const OVERTAKEN: Duration = Duration::from_secs(1);
/// How many changes that come during a reading are kept; with more the members are read again.
const KEPT: usize = 4096;
/// How many processes that announce their changes are remembered.
const SENDERS: usize = 4096;

/// A request that waits until the plain members of groups are known.
#[derive(Debug)]
enum Deferred {
    /// To carry a message to those of a group.
    Message {
        group: String,
        exclude: Vec<String>,
        entry: Draft,
        call: CallId,
    },
    /// To take this channel out of all its groups.
    Close { channel: String },
}

/// Whether the members are being read.
#[derive(Debug, Default, PartialEq, Eq)]
enum Reading {
    #[default]
    Idle,
    Asked,
    /// They have to be read again after that.
    Stale,
}

#[derive(Debug, Default)]
pub(super) struct Members {
    /// They have been read once.
    read: bool,
    reading: Reading,
    /// What waits for them to be read.
    held: Vec<Deferred>,
    /// Group, channel and end of what has changed since the reading was asked for: it may have been too early for that.
    since: Vec<(String, String, u64)>,
    /// When they are read at the latest.
    next_reading: Option<Instant>,
    announcements: Announcements,
    /// Processes whose announcements were heard: that something has changed they tell those of earlier releases.
    announcers: HashSet<ProcessId>,
    /// A change of this process may not have been announced.
    unannounced: bool,
}

impl Members {
    /// Whether nothing waits for the members to be read.
    pub(super) fn is_idle(&self) -> bool {
        self.held.is_empty()
    }

    /// Makes a plain channel a member of a group, for so many milliseconds, or takes it out.
    pub(super) fn change<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        (group, channel): (String, String),
        lasts: Option<u64>,
        ticket: Option<H::Ticket>,
    ) {
        let key = cx.keys.members();
        let field = member_field(&group, &channel);
        let commands = match lasts {
            Some(lasts) => {
                // As long as the longest of all: others may last longer than this one.
                let last = cx.shared.plain.lock().last_deadline();
                let left = last.saturating_sub(cx.shared.now()).max(lasts);
                vec![
                    Command::new("HSET").text(&key).text(field).end_after(lasts),
                    Command::expire(&key, left),
                ]
            }
            None => vec![Command::new("HDEL").text(&key).text(field)],
        };
        let change = MembershipChange {
            begun: self.announcements.begin(&group, &channel),
            group,
            channel,
            lasts,
        };
        let call = cx.call(1, ticket);
        let then = Then::Membership { change, call };
        cx.submit(Request::new("", &key, commands, cx.until(), then).safe());
    }

    /// A membership was changed: all other processes are notified before the call is answered. The server was given this
    /// value.
    pub(super) fn changed<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        change: MembershipChange,
        value: &[u8],
        call: CallId,
    ) {
        let MembershipChange {
            group,
            channel,
            lasts,
            begun,
        } = change;
        let end = lasts.map_or(0, |lasts| {
            let crypt = cx.settings.crypt.as_deref();
            let (key, field) = (cx.keys.members(), member_field(&group, &channel));
            let value = std::str::from_utf8(value).unwrap_or_default();
            let end = membership::end(&key, &field, value, crypt);
            end.unwrap_or_else(|_| cx.shared.now().saturating_add(lasts))
        });
        let announcement = Control::Membership {
            group: group.clone(),
            channel: channel.clone(),
            end,
        };
        if let Some(number) = cx.announce(&announcement, call) {
            let field = (group.as_str(), channel.as_str());
            self.announcements.sent(field, begun, number);
            if self.announcements.are_too_many() {
                self.unannounced |= self.announcements.give_up();
                self.distrust(cx);
            }
        } else {
            self.announcements.abandon(&group, &channel);
            self.unannounced = true;
        }
        self.apply(cx, group, channel, end);
        cx.calls.done(call);
    }

    /// A change failed. Unless the server has refused it, it may have been made, and nobody was told.
    pub(super) fn failed(&mut self, change: &MembershipChange, fault: &Fault) {
        self.announcements.abandon(&change.group, &change.channel);
        self.unannounced |= !fault.is_refusal();
    }

    /// A change that was announced may not have reached the others.
    pub(super) fn note_unannounced(&mut self) {
        self.unannounced = true;
    }

    /// Hears what somebody announces on the topic of the members.
    pub(super) fn heard<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        (sender, number): (ProcessId, u64),
        control: Control,
    ) {
        let own = sender == cx.me;
        if own && self.announcements.came_back(number) {
            let call = cx.call(0, None);
            cx.announce(&Control::ReadMembers, call);
        }
        if self.announcers.len() >= SENDERS {
            // Until they are heard again they are taken for processes of an earlier release, which costs readings.
            self.announcers.clear();
        }
        self.announcers.insert(sender);
        let Control::Membership {
            group,
            channel,
            end,
        } = control
        else {
            if control != Control::ReadMembers {
                self.announcements.disturb_all();
            }
            self.load(cx);
            return;
        };
        if process_of(&channel).is_some() {
            let topic = cx.keys.members();
            cx.refuse_content(Origin::of(sender, &topic), NO_NAME, "");
            return;
        }
        if !own {
            self.announcements.disturb(&group, &channel);
            self.apply(cx, group, channel, end);
        }
        // There every server passes on what others were given, and processes may hear it in different orders.
        if cx.servers.map().is_passed_on() {
            self.load(cx);
        }
    }

    /// Some process says that members have changed, and not how.
    pub(super) fn changed_somehow<H: Host>(&mut self, cx: &mut Context<H>, sender: ProcessId) {
        if sender == cx.me || self.announcers.contains(&sender) {
            return;
        }
        self.distrust(cx);
        self.next_reading = Some(cx.now + OVERTAKEN);
    }

    /// Changes may have been missed, of any memberships.
    pub(super) fn distrust<H: Host>(&mut self, cx: &mut Context<H>) {
        self.announcements.disturb_all();
        self.load(cx);
    }

    /// The subscription to one of the topics that change members is confirmed, for the first time or again. They are read when
    /// both are.
    pub(super) fn subscribed<H: Host>(&mut self, cx: &mut Context<H>) {
        self.unannounced |= self.announcements.give_up();
        self.announcements.disturb_all();
        let topics = cx.shared.topics.lock();
        let both = topics.contains(&cx.keys.control()) && topics.contains(&cx.keys.members());
        drop(topics);
        if both {
            self.load(cx);
        }
    }

    /// What is done once a second while the topics are subscribed to.
    pub(super) fn look_after<H: Host>(&mut self, cx: &mut Context<H>) {
        if mem::take(&mut self.unannounced) {
            let call = cx.call(0, None);
            cx.announce(&Control::MembersChanged, call);
        }
        if self.next_reading.is_some_and(|next| next <= cx.now) {
            self.load(cx);
        }
    }

    pub(super) fn shrink_if_sparse(&mut self) {
        self.since.shrink_if_sparse();
        self.announcers.shrink_if_sparse();
        self.announcements.shrink_if_sparse();
    }

    /// Changes the copy as the hash was changed.
    fn apply<H: Host>(&mut self, cx: &Context<H>, group: String, channel: String, end: u64) {
        let now = cx.shared.now();
        cx.shared.plain.lock().set(&group, &channel, end, now);
        if self.reading == Reading::Idle {
            return;
        }
        if self.since.len() < KEPT {
            self.since.push((group, channel, end));
        } else {
            self.reading = Reading::Stale;
        }
    }

    /// Removes a queue and what it holds.
    pub(super) fn close_queue<H: Host>(&mut self, cx: &mut Context<H>, channel: &str) {
        cx.shared.depths.lock().remove(channel);
        if !self.read {
            let channel = channel.to_owned();
            self.hold(cx, Deferred::Close { channel });
        }
        let call = cx.call(1, None);
        cx.submit(removal(cx, channel, call));
    }

    /// Sends a message to the queues that are in a group.
    pub(super) fn send<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        queues: &mut Queues,
        (group, exclude): (String, Vec<String>),
        entry: Draft,
        call: CallId,
    ) {
        if self.read {
            push_to_members(cx, queues, &group, &exclude, &entry, call);
            return;
        }
        cx.add_part(call);
        let message = Deferred::Message {
            group,
            exclude,
            entry,
            call,
        };
        self.hold(cx, message);
    }

    fn hold<H: Host>(&mut self, cx: &mut Context<H>, held: Deferred) {
        if self.held.is_empty() {
            self.load(cx);
        }
        self.held.push(held);
    }

    /// Reads the members, once for all that changes while they are read.
    pub(super) fn load<H: Host>(&mut self, cx: &mut Context<H>) {
        if self.reading != Reading::Idle {
            self.reading = Reading::Stale;
            return;
        }
        self.reading = Reading::Asked;
        // An earlier one that is still to come stays: it is for what may come after the answer to this.
        let latest = cx.now + TRUSTED;
        let earlier = self.next_reading.filter(|next| *next > cx.now);
        self.next_reading = Some(earlier.map_or(latest, |next| next.min(latest)));
        let key = cx.keys.members();
        let command = Command::new("HGETALL").text(&key);
        cx.submit(Request::new("", &key, vec![command], cx.until(), Then::Members).safe());
    }

    fn loaded<H: Host>(&mut self, cx: &mut Context<H>) {
        self.since.clear();
        if mem::take(&mut self.reading) == Reading::Stale {
            self.load(cx);
        }
    }

    /// Who is a member could not be read: what was to go to them has not been sent.
    pub(super) fn not_loaded<H: Host>(&mut self, cx: &mut Context<H>, fault: &Fault) {
        self.next_reading = Some(cx.now + RETRY);
        self.loaded(cx);
        for held in mem::take(&mut self.held) {
            if let Deferred::Message { call, .. } = held {
                cx.calls.fail(call, fault.clone());
            }
        }
    }

    /// Does what was asked for before the members were known.
    fn resume<H: Host>(&mut self, cx: &mut Context<H>, queues: &mut Queues, held: Deferred) {
        match held {
            Deferred::Message {
                group,
                exclude,
                entry,
                call,
            } => {
                push_to_members(cx, queues, &group, &exclude, &entry, call);
                cx.calls.done(call);
            }
            Deferred::Close { channel } => {
                let now = cx.shared.now();
                let groups = cx.shared.plain.lock().of_channel(&channel, now);
                for group in groups {
                    self.change(cx, (group, channel.clone()), None, None);
                }
            }
        }
    }
}

fn push_to_members<H: Host>(
    cx: &mut Context<H>,
    queues: &mut Queues,
    group: &str,
    exclude: &[String],
    entry: &Draft,
    call: CallId,
) {
    let members = cx.shared.plain.lock().of_group(group, cx.shared.now());
    if members.is_empty() {
        return;
    }
    let purpose = Purpose::SendToQueues {
        group: group.to_owned(),
    };
    cx.calls.set_purpose(call, purpose);
    for channel in members {
        if !exclude.contains(&channel) {
            queues.push(cx, &channel, entry.clone(), call);
        }
    }
}

#[cfg(test)]
mod tests;
