//! What a layer over Redis gives of who is present in groups.

use headrace_core::presence::Listing;
use headrace_core::redis::Progress;
use pyo3::prelude::*;

use super::RedisLayer;
use super::host::Ticket;
use super::requests::Joining;
use crate::arguments::{Channel, Group};
use crate::errors::{no_presence, not_own, to_python};
use crate::message::listing::{Present, present};
use crate::presence::{Key, Meta};
use crate::reply::{Known, Reply};

impl RedisLayer {
    /// The name of a channel that `new_channel` of this layer has made.
    fn own_name<'a>(&self, channel: &'a Channel<'_, '_>) -> PyResult<&'a str> {
        let name = channel.valid_name()?;
        if self.engine.has_made(name) {
            return Ok(name);
        }
        Err(not_own(name, &format!(".{}", self.engine.process())))
    }

    fn check_presence(&self, group: &str) -> PyResult<()> {
        headrace_core::name::check_group(group)
            .map_err(|error| to_python(headrace_core::Error::from(error)))?;
        if self.engine.has_presence(group) {
            Ok(())
        } else {
            Err(no_presence(group))
        }
    }

    pub(super) fn enter(
        &self,
        group: Group<'_, '_>,
        channel: Channel<'_, '_>,
        key: Key<'_, '_>,
        meta: Meta<'_, '_>,
    ) -> PyResult<Option<Reply>> {
        let (group, channel) = (group.name()?, self.own_name(&channel)?);
        let (key, meta) = (key.text()?, meta.pack()?);
        self.check_presence(group)?;
        let reply = Reply::new(self.direct_wake);
        let ticket = Ticket::Reply(reply.pending());
        let expiry = self.group_expiry;
        let added = self
            .engine
            .presence_add(group, channel, (key, &meta), expiry, ticket);
        match added.map_err(to_python)? {
            Progress::Asked(join) => Ok(Some(reply.with_provisional(Box::new(Joining::new(join))))),
            Progress::Done(_) => Ok(None),
        }
    }

    pub(super) fn change(
        &self,
        group: Group<'_, '_>,
        channel: Channel<'_, '_>,
        meta: Meta<'_, '_>,
    ) -> PyResult<bool> {
        let (group, channel) = (group.name()?, self.own_name(&channel)?);
        let meta = meta.pack()?;
        self.check_presence(group)?;
        let updated = self.engine.presence_update(group, channel, &meta);
        updated.map_err(to_python)
    }

    pub(super) fn withdraw(&self, group: Group<'_, '_>, channel: Channel<'_, '_>) -> PyResult<()> {
        let (group, channel) = (group.name()?, self.own_name(&channel)?);
        self.check_presence(group)?;
        let removed = self.engine.presence_discard(group, channel);
        removed.map(drop).map_err(to_python)
    }

    /// The list of a group, made into something.
    fn listing<T>(
        &self,
        group: Group<'_, '_>,
        make: impl FnOnce(&Listing) -> PyResult<T>,
    ) -> PyResult<Known<T>> {
        let group = group.name()?;
        self.check_presence(group)?;
        let reply = Reply::new(self.direct_wake);
        let ticket = Ticket::Reply(reply.pending());
        match self.engine.presence(group, ticket).map_err(to_python)? {
            Progress::Asked(()) => Ok(Known::Soon(reply)),
            Progress::Done(listing) => {
                let listing = listing.ok_or_else(|| no_presence(group))?;
                make(&listing).map(Known::Now)
            }
        }
    }

    pub(super) fn present<'py>(
        &self,
        py: Python<'py>,
        group: Group<'_, '_>,
    ) -> PyResult<Known<Present<'py>>> {
        self.listing(group, |listing| present(py, listing))
    }

    pub(super) fn count_everywhere(&self, group: &str) -> PyResult<Reply> {
        let reply = Reply::new(self.direct_wake);
        let ticket = Ticket::Reply(reply.pending());
        let asked = self.engine.group_count_everywhere(group, ticket);
        asked.map_err(to_python)?;
        Ok(reply)
    }

    pub(super) fn count_present(&self, group: Group<'_, '_>) -> PyResult<Known<(usize, usize)>> {
        self.listing(group, |listing| {
            Ok((listing.counts.keys, listing.counts.channels))
        })
    }
}
