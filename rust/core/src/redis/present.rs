//! How callers say who is present in a group, and ask for it.

use std::time::Duration;

use super::driver::Ask;
use super::engine::{Progress, RedisEngine};
use super::host::Host;
use super::joins::Join;
use crate::error::Error;
use crate::name::check_group;
use crate::presence::Listing;

impl<H: Host> RedisEngine<H> {
    /// Whether it is known who is present in a group.
    pub fn has_presence(&self, group: &str) -> bool {
        !self.settings.presence.is_empty() && self.settings.presence.of(group).is_some()
    }

    /// Puts a channel of this process in a group that has a presence, and under a key, with a meta in msgpack.
    ///
    /// It is present here at once, and for the other processes as soon as they hear of it. The operation is done when the channel
    /// is a member; the caller keeps the join until the ticket is answered, as that of `group_add`.
    ///
    /// # Errors
    /// A name is invalid, or the layer is closed.
    pub fn presence_add(
        &self,
        group: &str,
        channel: &str,
        (key, meta): (&str, &[u8]),
        expiry: Duration,
        ticket: H::Ticket,
    ) -> Result<Progress<H::Ticket, Join<H>>, Error> {
        let progress = self.group_add(group, channel, expiry, ticket)?;
        self.local.presence_add(group, channel, key, meta)?;
        self.ask(Ask::Presence {
            group: group.to_owned(),
        });
        Ok(progress)
    }

    /// Gives a channel another meta. False if it is not present.
    ///
    /// # Errors
    /// A name is invalid, or the layer is closed.
    pub fn presence_update(&self, group: &str, channel: &str, meta: &[u8]) -> Result<bool, Error> {
        let updated = self.local.presence_update(group, channel, meta)?;
        if updated {
            self.ask(Ask::Presence {
                group: group.to_owned(),
            });
        }
        Ok(updated)
    }

    /// Takes a channel out of those that are present. It stays a member. False if it was not present.
    ///
    /// # Errors
    /// A name is invalid, or the layer is closed.
    pub fn presence_discard(&self, group: &str, channel: &str) -> Result<bool, Error> {
        let removed = self.local.presence_discard(group, channel)?;
        self.note_left(removed);
        Ok(removed)
    }

    /// Entries may have left with a membership: it is announced.
    pub(super) fn note_left(&self, may_have: bool) {
        let tells = !(self.settings.presence.is_empty() && self.settings.counted.is_empty());
        if may_have && tells {
            self.ask(Ask::PresenceLeft);
        }
    }

    /// Who is present in a group that has a presence. Nothing is asked of a server where this process has a member of it; else the
    /// answer has the list.
    ///
    /// # Errors
    /// The name is invalid, or the layer is closed.
    pub fn presence(
        &self,
        group: &str,
        ticket: H::Ticket,
    ) -> Result<Progress<Option<Listing>>, Error> {
        check_group(group)?;
        self.check_open()?;
        if self.shared.present.lock().contains(group) {
            return Ok(Progress::Done(self.local.presence_list(group)?));
        }
        self.ask(Ask::LookPresence {
            group: group.to_owned(),
            counts: false,
            ticket,
        });
        Ok(Progress::Asked(()))
    }

    /// Whether the members of a group are counted in all processes.
    pub fn is_counted(&self, group: &str) -> bool {
        !self.settings.counted.is_empty() && self.settings.counted.has(group)
    }

    /// Members of a group that is counted may have come or gone.
    pub(super) fn note_members(&self, group: &str) {
        if self.is_counted(group) {
            self.ask(Ask::Presence {
                group: group.to_owned(),
            });
        }
    }

    /// Asks how many members a group has that is counted, in all processes. Nothing is asked of a server where this process has a
    /// member of it. The answer does not count queues, of which there are as many as `queues_in` says.
    ///
    /// # Errors
    /// The name is invalid, or the layer is closed.
    pub fn group_count_everywhere(&self, group: &str, ticket: H::Ticket) -> Result<(), Error> {
        check_group(group)?;
        self.check_open()?;
        self.ask(Ask::LookPresence {
            group: group.to_owned(),
            counts: true,
            ticket,
        });
        Ok(())
    }
}
