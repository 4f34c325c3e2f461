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
                let join = self.joins.begin(&self.local, group, channel)?;
                // After the join: see `Topics::leave`.
                return Ok(match self.listen(&self.keys.group(group), ticket) {
                    Progress::Asked(()) => Progress::Asked(join),
                    Progress::Done(ticket) => {
                        join.confirm();
                        Progress::Done(ticket)
                    }
                });
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
                if !self
                    .shared
                    .plain
                    .lock()
                    .holds(group, channel, self.shared.now())
                {
                    return Ok(Progress::Done(ticket));
                }
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
