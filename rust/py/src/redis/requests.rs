//! How a layer makes requests to its engine: the arguments, and the replies.

use std::time::{Duration, Instant};

use headrace_core::Error;
use headrace_core::name::NameKind;
use headrace_core::redis::{Join, Prepared, Progress, Unsent};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::RedisLayer;
use super::host::{Bindings, Ticket};
use super::purpose::Purpose;
use crate::arguments::{Channel, Exclude, Group, Outgoing, Pairs};
use crate::errors::{ChannelFull, fault_to_python, to_python};
use crate::message::encode::encode_into;
use crate::reply::{Provisional, Reply, Sent};
use crate::sleep::sleep;
use crate::stats::SendReport;

impl RedisLayer {
    /// Makes a request.
    pub(super) fn asked(&self, ask: impl FnOnce(Ticket)) -> Reply {
        let reply = Reply::new(self.direct_wake);
        ask(Ticket::Reply(reply.pending()));
        reply
    }

    /// Has the messages of a channel come here, for a receiver that waits.
    pub(super) fn attend(&self, channel: &str) {
        let ticket = || Ticket::Reply(Reply::new(self.direct_wake).pending());
        self.engine.attend(channel, ticket);
    }

    /// Makes a request that may be done already: then there is no reply.
    pub(super) fn progress(
        &self,
        ask: impl FnOnce(Ticket) -> Result<Progress<Ticket>, Error>,
    ) -> PyResult<Option<Reply>> {
        let reply = Reply::new(self.direct_wake);
        match ask(Ticket::Reply(reply.pending())).map_err(to_python)? {
            Progress::Asked(()) => Ok(Some(reply)),
            Progress::Done(_) => Ok(None),
        }
    }

    /// Puts a channel in a group. Unless that is confirmed already, there is a reply, which keeps the join.
    pub(super) fn join(
        &self,
        group: &str,
        channel: &str,
        expiry: Duration,
    ) -> PyResult<Option<Reply>> {
        let reply = Reply::new(self.direct_wake);
        let ticket = Ticket::Reply(reply.pending());
        let joined = self.engine.group_add(group, channel, expiry, ticket);
        match joined.map_err(to_python)? {
            Progress::Asked(join) => Ok(Some(reply.with_provisional(Box::new(Joining::new(join))))),
            Progress::Done(_) => Ok(None),
        }
    }

    /// Sends several messages, or none of them.
    pub(super) fn all_asked<T>(
        &self,
        ask: impl FnOnce(Ticket) -> Result<T, Unsent>,
    ) -> PyResult<(T, Reply)> {
        let reply = Reply::new(self.direct_wake);
        let sent = ask(Ticket::Reply(reply.pending()));
        // A full mailbox is counted and no error, so no error names a channel.
        let sent = sent.map_err(|error| unsent(error, ""))?;
        Ok((sent, reply))
    }

    /// Sends a message that nobody waits for, as soon as there is room for it.
    pub(super) fn send_with_room(
        &self,
        py: Python<'_>,
        message: Prepared,
        ticket: Option<Ticket>,
    ) -> PyResult<()> {
        if let Some(fault) = self.engine.refuse_unreachable() {
            return Err(fault_to_python(py, &fault));
        }
        if !message.has_room() {
            let end = Instant::now().checked_add(self.engine.send_timeout());
            if !sleep(py, end, |time| message.wait_for_room(time))? {
                return Err(fault_to_python(py, &self.engine.give_up(message)));
            }
            // It may have been closed meanwhile, which makes room.
            self.engine.check_open().map_err(to_python)?;
        }
        self.engine.send(message, ticket);
        Ok(())
    }

    /// Prepares a message to a channel.
    pub(super) fn prepare_send(
        &self,
        channel: Channel<'_, '_>,
        message: Outgoing<'_, '_>,
    ) -> PyResult<Prepared> {
        let payload = self.encode(message.value())?;
        let channel = channel.name()?;
        let prepared = self.engine.prepare_send(channel, &payload);
        prepared.map_err(|error| unsent(error, channel))
    }

    /// Sends to the members of a group but the excluded.
    pub(super) fn send_to_group(
        &self,
        py: Python<'_>,
        group: Group<'_, '_>,
        message: Outgoing<'_, '_>,
        exclude: Exclude<'_, '_>,
        purpose: Purpose,
    ) -> PyResult<Reply> {
        self.first_use.note(py)?;
        let (message, here) = self.prepare_group_send(group, message, Some(exclude), purpose)?;
        let reply = self.asked(|ticket| self.engine.send(message, Some(ticket)));
        Ok(reply.with_sent(Sent {
            here,
            ..Sent::default()
        }))
    }

    /// The same, without waiting for anything but room, if too much waits already: that gives a report. If there are queues in the
    /// group, which may be full, there is a reply.
    pub(super) fn send_to_group_soon<'py>(
        &self,
        py: Python<'py>,
        group: Group<'_, '_>,
        message: Outgoing<'_, '_>,
        exclude: Exclude<'_, '_>,
        purpose: Purpose,
    ) -> PyResult<Bound<'py, PyAny>> {
        if self.engine.has_queues(group.name()?) {
            let reply = self.send_to_group(py, group, message, exclude, purpose)?;
            return Ok(Bound::new(py, reply)?.into_any());
        }
        self.first_use.note(py)?;
        let (message, here) = self.prepare_group_send(group, message, Some(exclude), purpose)?;
        self.send_with_room(py, message, None)?;
        Ok(Bound::new(py, SendReport::of_unanswered(here))?.into_any())
    }

    /// Sends to the members of a group, and waits for nothing but room. The outcome goes to the ticket.
    pub(super) fn send_to_group_unattended(
        &self,
        py: Python<'_>,
        group: Group<'_, '_>,
        message: Outgoing<'_, '_>,
        ticket: impl FnOnce() -> Ticket,
    ) -> PyResult<()> {
        self.first_use.note(py)?;
        let (message, _) = self.prepare_group_send(group, message, None, Purpose::Inform)?;
        self.send_with_room(py, message, Some(ticket()))
    }

    /// Sends each message to its channel. A full channel is counted, and no error.
    pub(super) fn send_to_channels(&self, pairs: Pairs<'_, '_>) -> PyResult<Reply> {
        let messages = self.pairs(pairs, NameKind::Channel)?;
        let (full_here, reply) =
            self.all_asked(|ticket| self.engine.send_many(&messages, ticket))?;
        let here = messages
            .iter()
            .filter(|(name, _)| self.engine.has_made(name));
        Ok(reply.with_sent(Sent {
            here: here.count().saturating_sub(full_here),
            full_here,
            channel: None,
        }))
    }

    /// Sends each message to its group, but not to the excluded channels.
    pub(super) fn send_to_groups(
        &self,
        py: Python<'_>,
        pairs: Pairs<'_, '_>,
        exclude: Exclude<'_, '_>,
    ) -> PyResult<Reply> {
        self.first_use.note(py)?;
        self.check_exclude(exclude)?;
        let messages = self.pairs(pairs, NameKind::Group)?;
        let exclude = exclude.channels()?;
        let exclude: Vec<&str> = exclude.iter().map(String::as_str).collect();
        // Before the messages are sent: who is a member may change by what they cause.
        let local = self.engine.local();
        let members = messages
            .iter()
            .map(|(group, _)| local.group_count_without(group, &exclude));
        let here: usize = members.sum::<Result<_, _>>().map_err(to_python)?;
        let ((), reply) =
            self.all_asked(|ticket| self.engine.group_send_many(&messages, &exclude, ticket))?;
        Ok(reply.with_sent(Sent {
            here,
            ..Sent::default()
        }))
    }

    /// Prepares a message to a group; gives how many of its members are in this process, too.
    pub(super) fn prepare_group_send(
        &self,
        group: Group<'_, '_>,
        message: Outgoing<'_, '_>,
        exclude: Option<Exclude<'_, '_>>,
        purpose: Purpose,
    ) -> PyResult<(Prepared, usize)> {
        if let Some(exclude) = exclude {
            self.check_exclude(exclude)?;
        }
        let payload = self.encode(message.value())?;
        let exclude = exclude.map_or_else(|| Ok(Vec::new()), Exclude::channels)?;
        let exclude: Vec<&str> = exclude.iter().map(String::as_str).collect();
        let group = group.name()?;
        let prepared = match purpose {
            Purpose::Inform => self.engine.prepare_group_send(group, &payload, &exclude),
            Purpose::End => self.engine.prepare_group_close(group, &payload, &exclude),
        };
        let prepared = prepared.map_err(|error| unsent(error, group))?;
        let members = self.engine.local().group_count_without(group, &exclude);
        Ok((prepared, members.map_err(to_python)?))
    }

    /// Refuses excluded channels where a message cannot name them.
    pub(super) fn check_exclude(&self, exclude: Exclude<'_, '_>) -> PyResult<()> {
        if !self.engine.wire().has_envelopes() && exclude.is_given() {
            return Err(PyValueError::new_err(
                "messages of wire='channels_redis' name no excluded channels: exclude must not be given",
            ));
        }
        Ok(())
    }

    /// Takes a message of a queue into the local mailbox, for somebody who does not wait. None: there is nothing to wait for.
    pub(super) fn look_at_once(&self, channel: &str) -> PyResult<Option<Reply>> {
        self.progress(|ticket| Ok(self.engine.look_at_once(channel, ticket)))
    }

    fn encode(&self, message: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
        let mut bytes = Vec::with_capacity(256);
        encode_into(&mut bytes, message, self.limit)?;
        Ok(bytes)
    }

    /// Pairs of a name and a message, in msgpack.
    pub(super) fn pairs(
        &self,
        pairs: Pairs<'_, '_>,
        kind: NameKind,
    ) -> PyResult<Vec<(String, Vec<u8>)>> {
        let local = self.engine.local();
        local.check_open().map_err(to_python)?;
        pairs.read(kind, |_, message| self.encode(message))
    }
}

/// A join that waits for its answer.
#[derive(Debug)]
pub(super) struct Joining {
    /// Taken when it ends.
    join: Option<Join<Bindings>>,
    /// The process that made it.
    process: u32,
}

impl Joining {
    pub(super) fn new(join: Join<Bindings>) -> Self {
        Self {
            join: Some(join),
            process: std::process::id(),
        }
    }

    /// The join. In the child of a fork there is none, as another thread of the parent may have the engine's lock for ever.
    fn take(&mut self) -> Option<Join<Bindings>> {
        let join = self.join.take()?;
        if self.process == std::process::id() {
            return Some(join);
        }
        std::mem::forget(join);
        None
    }
}

impl Provisional for Joining {
    fn confirm(mut self: Box<Self>) {
        if let Some(join) = self.take() {
            join.confirm();
        }
    }
}

impl Drop for Joining {
    fn drop(&mut self) {
        drop(self.take());
    }
}

/// The error for a message that was not taken.
fn unsent(unsent: Unsent, channel: &str) -> PyErr {
    match unsent {
        Unsent::Refused(error) => to_python(error),
        Unsent::Full => ChannelFull::new_err(channel.to_owned()),
        Unsent::Unsendable(why) => PyValueError::new_err(why.to_string()),
    }
}
