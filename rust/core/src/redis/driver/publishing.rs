//! How messages are published: numbered for their destination, and with what follows from the answer.

use super::calls::CallId;
use super::context::Context;
use super::request::{Request, Then};
use crate::redis::fault::{Fault, FaultKind};
use crate::redis::host::Host;
use crate::redis::link::Command;
use crate::redis::meter::count;
use crate::redis::settings::Settings;
use crate::redis::wire::crypt::Version;
use crate::redis::wire::envelope::{self, Control, Draft, Header, OutgoingBody};
use crate::redis::wire::keys::ProcessId;
use crate::redis::wire::sequence::SequenceCounters;

/// What is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Published {
    /// A message for a group.
    Group,
    /// A message for a channel of a process. If nobody gets it, the process is gone.
    Direct,
    /// A control message; it has a deadline only if it is authenticated.
    Control,
    /// A control message that announces a change of memberships.
    Announcement,
    /// A message as `channels_redis` sends it, without an envelope.
    Payload,
}

/// Counts the messages for up to so many destinations.
pub(super) fn counters(settings: &Settings, watched: usize) -> SequenceCounters {
    let crypt = settings.crypt.as_deref();
    if crypt.is_some_and(|crypt| crypt.sends(Version::Two)) {
        SequenceCounters::rising(watched)
    } else {
        SequenceCounters::new(watched)
    }
}

impl<H: Host> Context<H> {
    /// Gives an envelope its number. Its deadline is set when it is written.
    pub(super) fn numbered(&mut self, destination: &str, mut entry: Draft) -> Draft {
        entry.number(self.counters.next(destination));
        entry
    }

    /// Publishes a message on a pub/sub channel that belongs where the name does.
    pub(super) fn publish(
        &mut self,
        name: &str,
        topic: &str,
        what: Published,
        draft: Draft,
        call: CallId,
    ) {
        count(&self.shared.meter.bytes_out, draft.len() as u64);
        let has_deadline = match what {
            Published::Group | Published::Direct => true,
            Published::Control | Published::Announcement => draft.is_sealed(),
            Published::Payload => false,
        };
        let command = Command::publish(topic);
        let command = if has_deadline {
            command.envelope(draft)
        } else {
            command.bytes(draft.into_bytes())
        };
        let until = self.add_part(call);
        let then = Then::Published {
            call,
            at: self.now,
            direct: what == Published::Direct,
            announces: what == Published::Announcement,
        };
        self.submit(Request::new(name, topic, vec![command], until, then));
    }

    /// Sends a control message to a process.
    pub(super) fn send_control(&mut self, process: ProcessId, control: &Control, call: CallId) {
        let (name, topic) = (process.to_string(), self.keys.process(process));
        self.publish_control(&name, &topic, Published::Control, control, call);
    }

    /// Sends a control message to all processes.
    pub(super) fn broadcast_control(&mut self, control: &Control, call: CallId) {
        let topic = self.keys.control();
        self.publish_control("", &topic, Published::Control, control, call);
    }

    /// Announces to all processes how memberships change. Returns the number of the announcement.
    pub(super) fn announce(&mut self, control: &Control, call: CallId) -> Option<u64> {
        let topic = self.keys.members();
        let number = self.publish_control("", &topic, Published::Announcement, control, call)?;
        if *control != Control::ReadMembers {
            // Processes of earlier releases read the members whenever something has changed. The caller does not depend on
            // them, whose topic may be on another server.
            let (topic, call) = (self.keys.control(), self.call(0, None));
            let changed = Control::MembersChanged;
            self.publish_control("", &topic, Published::Announcement, &changed, call)?;
        }
        Some(number)
    }

    /// Publishes a control message. Returns its number.
    fn publish_control(
        &mut self,
        name: &str,
        topic: &str,
        what: Published,
        control: &Control,
        call: CallId,
    ) -> Option<u64> {
        let header = Header {
            sender: self.me,
            sequence: self.counters.next(topic),
            deadline: 0,
        };
        match envelope::encode(&header, OutgoingBody::Control(control), self.seal()) {
            Ok(draft) => {
                self.publish(name, topic, what, draft, call);
                Some(header.sequence)
            }
            Err(error) => {
                let fault = Fault::new(FaultKind::Refused, error.to_string());
                self.calls.fail(call, fault);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{context, settings};
    use super::*;
    use crate::redis::settings::Topology;

    /// Processes of earlier releases read the control topic alone, and know its messages.
    #[test]
    fn a_change_of_memberships_is_told_to_earlier_releases_in_their_words() {
        let mut cx = context(settings(Topology::Shards));
        let membership = Control::Membership {
            group: "room".to_owned(),
            channel: "work".to_owned(),
            end: 1,
        };
        for control in [membership, Control::MembersChanged, Control::ReadMembers] {
            let call = cx.call(1, None);
            cx.announce(&control, call);
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
}
