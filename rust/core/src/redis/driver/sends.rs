//! Where a message goes that was given to be sent: to the inbox of a process, to the topic of a group, or into a queue.

use super::backlog::Claim;
use super::members::BeforeMembers;
use super::request::{Request, Then};
use super::Driver;
use crate::redis::host::Host;
use crate::redis::link::Command;
use crate::redis::meter::count;
use crate::redis::settings::Wire;
use crate::redis::wire::envelope::Draft;
use crate::redis::wire::keys::process_of;

/// A message on its way out. Its envelope has room for what is known only when it is sent.
#[derive(Debug)]
pub(crate) enum Dispatch {
    /// To a channel.
    Channel { channel: String, entry: Draft },
    /// To a group.
    Group {
        group: String,
        exclude: Vec<String>,
        entry: Draft,
    },
}

impl Dispatch {
    /// How many bytes travel.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Channel { entry, .. } | Self::Group { entry, .. } => entry.len(),
        }
    }
}

/// What is published, as it travels.
#[derive(Debug)]
pub(super) enum Published {
    /// The envelope of a message for a group.
    Group(Draft),
    /// That of a message for a channel of a process. If nobody gets it, the process is gone.
    Direct(Draft),
    /// What one engine says to another; it has a deadline only if it is authenticated.
    Control(Draft),
    /// A message as `channels_redis` sends it, without an envelope.
    Payload(Draft),
}

impl<H: Host> Driver<H> {
    pub(super) fn expiry_ms(&self) -> u64 {
        u64::try_from(self.settings.expiry.as_millis()).unwrap_or(u64::MAX)
    }

    /// Gives an envelope its number. Its deadline is set when it is written.
    pub(super) fn numbered(&mut self, destination: &str, mut entry: Draft) -> Draft {
        entry.number(self.counters.next(destination));
        entry
    }

    /// Carries messages, with one answer for all; those for which there is no room when there is some.
    pub(super) fn carry_when_there_is_room(
        &mut self,
        messages: impl IntoIterator<Item = Dispatch>,
        claim: Claim,
        ticket: Option<H::Ticket>,
    ) {
        // One part more until all parts are known, so that it is not done before.
        let tally = self.tally(1, ticket);
        let admitted = claim.is_admitted() || self.crowd.is_empty() && claim.admit();
        if let Some(known) = self.tallies.get_mut(tally) {
            known.claim = Some(claim);
        }
        if admitted {
            self.carry(messages, tally);
        } else {
            self.crowd
                .push_back((messages.into_iter().collect(), tally));
        }
    }

    /// Carries the first of those that wait for room, as far as there is some, and gives up those that waited too long.
    pub(super) fn admit_crowd(&mut self) {
        while let Some((_, tally)) = self.crowd.front() {
            let known = self.tallies.get(*tally);
            let admitted =
                known.is_some_and(|known| known.claim.as_ref().is_some_and(Claim::admit));
            let late = known.is_none_or(|known| known.until <= self.now);
            if !admitted && !late {
                return;
            }
            let Some((messages, tally)) = self.crowd.pop_front() else {
                return;
            };
            if admitted {
                self.carry(messages, tally);
            } else {
                count(&self.shared.meter.unsent, messages.len() as u64);
                let fault = self.shared.crowded(self.settings.send_timeout);
                self.finish_with(tally, fault);
            }
        }
    }

    fn carry(&mut self, messages: impl IntoIterator<Item = Dispatch>, tally: usize) {
        for message in messages {
            match message {
                Dispatch::Channel { channel, entry } => self.send(&channel, entry, tally),
                Dispatch::Group {
                    group,
                    exclude,
                    entry,
                } => self.group_send(&group, &exclude, entry, tally),
            }
        }
        self.finish(tally, |_| {});
    }

    /// Whether every message has been taken by a server or given up.
    pub(super) fn has_carried_all(&self) -> bool {
        self.outstanding == 0 && self.crowd.is_empty()
    }

    /// Carries a message to a channel: to the process that has it, or into its queue.
    pub(super) fn send(&mut self, channel: &str, entry: Draft, tally: usize) {
        if self.settings.wire == Wire::ChannelsRedis {
            let message = Published::Payload(entry);
            self.publish(channel, channel, message, tally);
            return;
        }
        if let Some(process) = process_of(channel) {
            let topic = self.keys.inbox(process);
            let message = Published::Direct(self.numbered(&topic, entry));
            self.publish(&process.to_string(), &topic, message, tally);
            return;
        }
        let entry = self.numbered(&self.keys.queue(channel), entry);
        self.push(channel, entry, tally);
    }

    /// Carries a message to a group: to the processes that have members of it, and into the queues that are in it.
    pub(super) fn group_send(
        &mut self,
        group: &str,
        exclude: &[String],
        entry: Draft,
        tally: usize,
    ) {
        if self.settings.wire == Wire::ChannelsRedis {
            let topic = self.keys.channels_redis_group(group);
            let message = Published::Payload(entry);
            self.publish(&topic, &topic, message, tally);
            return;
        }
        let topic = self.keys.group(group);
        let entry = self.numbered(&topic, entry);
        let message = Published::Group(entry.clone());
        self.publish(group, &topic, message, tally);
        if self.members_read {
            self.push_to_members(group, exclude, &entry, tally);
            return;
        }
        self.add_part(tally);
        self.when_members_are_read(BeforeMembers::Message {
            group: group.to_owned(),
            exclude: exclude.to_vec(),
            entry,
            tally,
        });
    }

    pub(super) fn push_to_members(
        &mut self,
        group: &str,
        exclude: &[String],
        entry: &Draft,
        tally: usize,
    ) {
        let queues = self.shared.plain.lock().of_group(group, self.shared.now());
        if queues.is_empty() {
            return;
        }
        if let Some(known) = self.tallies.get_mut(tally) {
            known.group = Some(group.to_owned());
        }
        for channel in queues {
            if !exclude.contains(&channel) {
                self.push(&channel, entry.clone(), tally);
            }
        }
    }

    /// Publishes a message on a pub/sub channel that belongs where the name does.
    pub(super) fn publish(&mut self, name: &str, topic: &str, message: Published, tally: usize) {
        let inbox = matches!(message, Published::Direct(_));
        let command = Command::publish(topic);
        let (length, command) = match message {
            Published::Control(draft) if !draft.is_sealed() => {
                (draft.len(), command.bytes(draft.into_bytes()))
            }
            Published::Payload(draft) => (draft.len(), command.bytes(draft.into_bytes())),
            Published::Group(draft) | Published::Direct(draft) | Published::Control(draft) => {
                (draft.len(), command.envelope(draft))
            }
        };
        count(&self.shared.meter.bytes_out, length as u64);
        let until = self.add_part(tally);
        let at = self.now;
        let then = Then::Published { tally, at, inbox };
        self.submit(Request::new(name, topic, vec![command], until, then));
    }
}
