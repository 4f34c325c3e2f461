//! How channels join groups and leave them, and who is in them.

use std::time::Duration;

use super::driver::Ask;
use super::engine::{Location, Progress, RedisEngine};
use super::host::Host;
use super::joins::Join;
use super::wire::envelope::Control;
use super::wire::keys::process_of;
use crate::error::Error;
use crate::name::{check_channel, check_group};

impl<H: Host> RedisEngine<H> {
    /// Puts a channel in a group, or renews its membership.
    ///
    /// A channel of this process is a member at once. The operation is done when the server has confirmed the subscription.
    /// The caller keeps the join until the ticket is answered, and confirms it if there was no fault. A join that is dropped
    /// has failed, and takes back the membership that it made.
    ///
    /// # Errors
    /// A name is invalid, or the layer is closed.
    pub fn group_add(
        &self,
        group: &str,
        channel: &str,
        expiry: Duration,
        ticket: H::Ticket,
    ) -> Result<Progress<H::Ticket, Join<H>>, Error> {
        check_group(group)?;
        check_channel(channel)?;
        self.check_open()?;
        let milliseconds = u64::try_from(expiry.as_millis()).unwrap_or(u64::MAX);
        match self.location(channel) {
            Location::Here => {
                let topic = self.keys.group(group);
                let is_subscribed = || self.shared.topics.lock().contains(&topic);
                let join = self
                    .joins
                    .begin(&self.local, group, channel, is_subscribed)?;
                let Some(join) = join else {
                    self.note_members(group);
                    return Ok(Progress::Done(ticket));
                };
                self.ask(Ask::Subscribe { topic, ticket });
                return Ok(Progress::Asked(join));
            }
            Location::Elsewhere => {
                let control = Control::Join {
                    request: 0,
                    group: group.to_owned(),
                    channel: channel.to_owned(),
                    expiry_ms: milliseconds,
                };
                self.send_control(channel, control, ticket);
            }
            Location::Queue => {
                self.ask(Ask::Membership {
                    group: group.to_owned(),
                    channel: channel.to_owned(),
                    lasts: Some(milliseconds),
                    ticket: Some(ticket),
                });
            }
        }
        Ok(Progress::Asked(Join::elsewhere()))
    }

    fn send_control(&self, channel: &str, control: Control, ticket: H::Ticket) {
        if let Some(process) = process_of(channel) {
            self.ask(Ask::SendControl {
                process,
                control,
                ticket,
            });
        }
    }

    /// Takes a channel out of a group.
    ///
    /// # Errors
    /// A name is invalid, or the layer is closed.
    pub fn group_discard(
        &self,
        group: &str,
        channel: &str,
        ticket: H::Ticket,
    ) -> Result<Progress<H::Ticket>, Error> {
        check_group(group)?;
        check_channel(channel)?;
        self.check_open()?;
        match self.location(channel) {
            Location::Here => {
                self.local.group_discard(group, channel)?;
                self.note_left(self.has_presence(group));
                self.note_members(group);
                return Ok(Progress::Done(ticket));
            }
            Location::Elsewhere => {
                let control = Control::Leave {
                    request: 0,
                    group: group.to_owned(),
                    channel: channel.to_owned(),
                };
                self.send_control(channel, control, ticket);
            }
            Location::Queue => {
                // Also if no membership is known here: it may not have been read yet, or not heard of.
                self.ask(Ask::Membership {
                    group: group.to_owned(),
                    channel: channel.to_owned(),
                    lasts: None,
                    ticket: Some(ticket),
                });
            }
        }
        Ok(Progress::Asked(()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::engine::tests::undriven;
    use super::super::wire::form::Wire;
    use super::*;

    const EXPIRY: Duration = Duration::from_secs(60);

    #[test]
    fn a_queue_is_taken_out_of_a_group_whether_its_membership_is_known_here_or_not() {
        let (engine, mut asked) = undriven(Wire::Headrace);
        for is_known in [false, true] {
            let end = if is_known { u64::MAX } else { 0 };
            engine.shared.plain.lock().set("room", "work", end, 0);
            let discarded = engine.group_discard("room", "work", 7);
            assert_eq!(discarded, Ok(Progress::Asked(())));
            assert!(matches!(
                asked.try_recv(),
                Ok(Ask::Membership {
                    lasts: None,
                    ticket: Some(7),
                    ..
                })
            ));
        }
    }

    #[test]
    fn a_group_is_subscribed_to_for_its_first_member_and_no_other() {
        let (engine, mut asked) = undriven(Wire::Headrace);
        let channel = format!("a.{}!b", engine.process());
        let Ok(Progress::Asked(join)) = engine.group_add("room", &channel, EXPIRY, 7) else {
            panic!("nobody is subscribed to the group")
        };
        assert!(matches!(
            asked.try_recv(),
            Ok(Ask::Subscribe { ticket: 7, .. })
        ));
        let topic = engine.keys.group("room");
        engine.shared.topics.lock().insert(topic);
        join.confirm();
        let again = engine.group_add("room", &channel, EXPIRY, 8);
        assert!(matches!(again, Ok(Progress::Done(8))));
        assert!(asked.try_recv().is_err());
        assert_eq!(engine.group_count("room"), Ok(1));
    }
}
