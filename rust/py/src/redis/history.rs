//! What a layer over Redis gives of the histories of groups.

use headrace_core::history;
use headrace_core::redis::Resuming;
use pyo3::prelude::*;

use super::RedisLayer;
use super::host::{Bindings, Ticket};
use crate::arguments::{Channel, Group, Since};
use crate::errors::{no_history, to_python};
use crate::reply::{Provisional, Reply};

impl RedisLayer {
    fn check_history(&self, group: &str) -> PyResult<()> {
        headrace_core::name::check_group(group)
            .map_err(|error| to_python(headrace_core::Error::from(error)))?;
        if self.engine.keeps(group) {
            Ok(())
        } else {
            Err(no_history(group))
        }
    }

    pub(super) fn resume(
        &self,
        group: Group<'_, '_>,
        channel: Channel<'_, '_>,
        since: Since<'_, '_>,
    ) -> PyResult<Reply> {
        let group = group.name()?;
        let since = since.read(group)?;
        self.check_history(group)?;
        let reply = Reply::new(self.direct_wake);
        let ticket = Ticket::Reply(reply.pending());
        let expiry = self.group_expiry;
        let resuming = self
            .engine
            .group_add_since(group, channel.name()?, since, expiry, ticket);
        let resuming = resuming.map_err(to_python)?;
        Ok(reply.with_provisional(Box::new(Joining::new(resuming))))
    }

    pub(super) fn newest_position(&self, group: Group<'_, '_>) -> PyResult<Option<Reply>> {
        let group = group.name()?;
        if !self.engine.keeps(group) {
            self.engine.group_count(group).map_err(to_python)?;
            return Ok(None);
        }
        let reply = Reply::new(self.direct_wake);
        let ticket = Ticket::Reply(reply.pending());
        self.engine
            .group_position(group, ticket)
            .map_err(to_python)?;
        Ok(Some(reply))
    }

    pub(super) fn recent(
        &self,
        group: Group<'_, '_>,
        since: Option<Since<'_, '_>>,
        limit: usize,
    ) -> PyResult<Reply> {
        let group = group.name()?;
        let since = since.map(|since| since.read(group)).transpose()?;
        let since = since.unwrap_or(history::Since::Newest(limit));
        self.check_history(group)?;
        let reply = Reply::new(self.direct_wake);
        let ticket = Ticket::Reply(reply.pending());
        let asked = self.engine.group_history(group, since, limit, ticket);
        asked.map_err(to_python)?;
        Ok(reply)
    }
}

/// A join with a position that waits for its answer.
#[derive(Debug)]
struct Joining {
    /// Taken when it ends.
    resuming: Option<Resuming<Bindings>>,
    /// The process that made it.
    process: u32,
}

impl Joining {
    fn new(resuming: Resuming<Bindings>) -> Self {
        Self {
            resuming: Some(resuming),
            process: std::process::id(),
        }
    }

    /// As that of a join without a position.
    fn take(&mut self) -> Option<Resuming<Bindings>> {
        let resuming = self.resuming.take()?;
        if self.process == std::process::id() {
            return Some(resuming);
        }
        std::mem::forget(resuming);
        None
    }
}

impl Provisional for Joining {
    fn confirm(mut self: Box<Self>) {
        if let Some(resuming) = self.take() {
            resuming.confirm();
        }
    }
}

impl Drop for Joining {
    fn drop(&mut self) {
        drop(self.take());
    }
}
