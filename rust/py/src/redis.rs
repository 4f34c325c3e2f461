//! The Redis layer as Python sees it: convert, call, convert back.

use std::sync::Arc;
use std::time::Duration;

use headrace_core::redis::{ConnectionState, Location, RedisEngine};
use pyo3::exceptions::PyValueError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::arguments::{Channel, Exclude, Group, Outgoing, Pairs, Since, to_strings};
use crate::config::seconds;
use crate::errors::to_python;
use crate::first_use::FirstUse;
use crate::layer::MemoryLayer;
use crate::message::listing::Present;
use crate::presence::{Key, Meta};
use crate::receiver::Waiter;
use crate::reply::{Forgiven, Known, Reply, Sent};
use crate::stats::{ChannelStats, GroupStats, LayerStats};

mod config;
mod history;
mod host;
mod ledger;
mod notice;
mod patience;
mod presence;
mod purpose;
mod receiving;
mod requests;
mod stats;
mod thread;

use config::{RedisConfig, presence_rules};
use host::{Bindings, Ticket};
pub(crate) use ledger::Ledger;
use purpose::Purpose;
pub(crate) use stats::LinkStats;
pub(crate) use thread::Runtime;

/// Mailboxes in this process and the way to those in others: the engine behind `headrace.layers.RedisChannelLayer`.
///
/// What takes the server's time returns a `Reply`.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct RedisLayer {
    engine: RedisEngine<Bindings>,
    local: Py<MemoryLayer>,
    direct_wake: bool,
    limit: usize,
    /// Sends that were given a ledger of their sender's.
    unattended: Ledger,
    /// How long a membership lasts.
    group_expiry: Duration,
    first_use: FirstUse,
}

#[pymethods]
impl RedisLayer {
    #[new]
    fn new(
        config: RedisConfig,
        local: Bound<'_, MemoryLayer>,
        expiry: f64,
        group_expiry: f64,
        runtime: &Runtime,
        before_use: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let limit = config.max_message_bytes;
        let engine = Arc::clone(local.get().engine());
        let rules = (engine.history_rules(), presence_rules(&engine));
        let settings = config.into_core(seconds(expiry)?, rules)?;
        let host = Arc::new(Bindings::new(Arc::clone(&engine)));
        let engine = RedisEngine::new(host, engine, settings, runtime.thread());
        let engine = engine.map_err(PyValueError::new_err)?;
        let owner = || format!(".{}", engine.process());
        local.get().connect(engine.wire().has_queues().then(owner));
        Ok(Self {
            engine,
            direct_wake: local.get().wakes_directly(),
            local: local.unbind(),
            limit,
            unattended: Ledger::default(),
            group_expiry: seconds(group_expiry)?,
            first_use: FirstUse::new(before_use),
        })
    }

    /// The id of this process in the names of its channels.
    #[getter]
    fn process(&self) -> String {
        self.engine.process().to_string()
    }

    /// Whether the connection has been made and confirmed.
    fn is_ready(&self) -> bool {
        self.engine.is_ready()
    }

    /// Whether a channel is a queue, and no channel of a process.
    fn is_queue(&self, channel: Channel<'_, '_>) -> PyResult<bool> {
        Ok(self.engine.location(channel.name()?) == Location::Queue)
    }

    /// Become connected.
    fn connect(&self, py: Python<'_>) -> PyResult<Reply> {
        self.first_use.note(py)?;
        Ok(self.asked(|ticket| self.engine.connect(ticket)))
    }

    /// Send one message.
    fn send(
        &self,
        py: Python<'_>,
        channel: Channel<'_, '_>,
        message: Outgoing<'_, '_>,
    ) -> PyResult<Reply> {
        self.first_use.note(py)?;
        let message = self.prepare_send(channel, message)?;
        let sent = Sent {
            channel: Some(channel.name()?.to_owned()),
            ..Sent::default()
        };
        let reply = self.asked(|ticket| self.engine.send(message, Some(ticket)));
        Ok(reply.with_sent(sent))
    }

    /// Send one message, and wait for nothing but room, if too much waits already. To a queue, which may be full, there is a
    /// reply.
    fn send_soon(
        &self,
        py: Python<'_>,
        channel: Channel<'_, '_>,
        message: Outgoing<'_, '_>,
    ) -> PyResult<Option<Reply>> {
        if self.is_queue(channel)? {
            return self.send(py, channel, message).map(Some);
        }
        self.first_use.note(py)?;
        let message = self.prepare_send(channel, message)?;
        self.send_with_room(py, message, None)?;
        Ok(None)
    }

    /// Send to the members of a group but the excluded.
    fn group_send(
        &self,
        py: Python<'_>,
        group: Group<'_, '_>,
        message: Outgoing<'_, '_>,
        exclude: Exclude<'_, '_>,
    ) -> PyResult<Reply> {
        self.send_to_group(py, group, message, exclude, Purpose::Inform)
    }

    /// Send to the members of a group, and wait for nothing but room, if too much waits already: that gives a report. If there
    /// are queues in the group, which may be full, there is a reply.
    #[pyo3(signature = (group, message, exclude) -> "SendReport | Reply")]
    fn group_send_soon<'py>(
        &self,
        py: Python<'py>,
        group: Group<'_, '_>,
        message: Outgoing<'_, '_>,
        exclude: Exclude<'_, '_>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.send_to_group_soon(py, group, message, exclude, Purpose::Inform)
    }

    /// Do what `group_send` does with a message that tells its receivers to end. No history keeps it.
    fn group_close(
        &self,
        py: Python<'_>,
        group: Group<'_, '_>,
        message: Outgoing<'_, '_>,
        exclude: Exclude<'_, '_>,
    ) -> PyResult<Reply> {
        self.send_to_group(py, group, message, exclude, Purpose::End)
    }

    /// Do what `group_send_soon` does with such a message.
    #[pyo3(signature = (group, message, exclude) -> "SendReport | Reply")]
    fn group_close_soon<'py>(
        &self,
        py: Python<'py>,
        group: Group<'_, '_>,
        message: Outgoing<'_, '_>,
        exclude: Exclude<'_, '_>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.send_to_group_soon(py, group, message, exclude, Purpose::End)
    }

    /// Send to the members of a group, and wait for nothing but room, if too much waits already. What becomes of it is entered
    /// in the ledger.
    fn group_send_unattended(
        &self,
        py: Python<'_>,
        group: Group<'_, '_>,
        message: Outgoing<'_, '_>,
        ledger: &Bound<'_, Ledger>,
    ) -> PyResult<()> {
        let entry = || Ticket::Ledger(ledger.get().enter(&self.unattended));
        self.send_to_group_unattended(py, group, message, entry)
    }

    /// Send each message to its channel. A full channel is counted, and no error.
    fn send_many(&self, py: Python<'_>, pairs: Pairs<'_, '_>) -> PyResult<Reply> {
        self.first_use.note(py)?;
        self.send_to_channels(pairs)
    }

    /// Send each message to its group, but not to the excluded channels.
    fn group_send_many(
        &self,
        py: Python<'_>,
        pairs: Pairs<'_, '_>,
        exclude: Exclude<'_, '_>,
    ) -> PyResult<Reply> {
        self.send_to_groups(py, pairs, exclude)
    }

    /// Put a channel in a group. None: it is done.
    fn group_add(
        &self,
        py: Python<'_>,
        group: Group<'_, '_>,
        channel: Channel<'_, '_>,
    ) -> PyResult<Option<Reply>> {
        self.first_use.note(py)?;
        self.join(group.name()?, channel.name()?, self.group_expiry)
    }

    /// Put a channel in a group that has a history, with what it missed. The reply has whether that is complete.
    fn group_add_since(
        &self,
        py: Python<'_>,
        group: Group<'_, '_>,
        channel: Channel<'_, '_>,
        since: Since<'_, '_>,
    ) -> PyResult<Reply> {
        self.first_use.note(py)?;
        self.resume(group, channel, since)
    }

    /// Ask for the newest position of a group, which the reply has; None if it has no history.
    fn group_position(&self, py: Python<'_>, group: Group<'_, '_>) -> PyResult<Option<Reply>> {
        self.first_use.note(py)?;
        self.newest_position(group)
    }

    /// Ask for the oldest `limit` messages of a group behind a position, or for the newest of all. The reply has them, the position
    /// of the last, and whether they are complete.
    fn group_history(
        &self,
        py: Python<'_>,
        group: Group<'_, '_>,
        since: Option<Since<'_, '_>>,
        limit: usize,
    ) -> PyResult<Reply> {
        self.first_use.note(py)?;
        self.recent(group, since, limit)
    }

    /// Put a channel of this process in a group, and show it there under a key. None: it is done.
    fn presence_add(
        &self,
        py: Python<'_>,
        group: Group<'_, '_>,
        channel: Channel<'_, '_>,
        key: Key<'_, '_>,
        meta: Meta<'_, '_>,
    ) -> PyResult<Option<Reply>> {
        self.first_use.note(py)?;
        self.enter(group, channel, key, meta)
    }

    /// Give a channel another meta; tell whether it is present.
    fn presence_update(
        &self,
        group: Group<'_, '_>,
        channel: Channel<'_, '_>,
        meta: Meta<'_, '_>,
    ) -> PyResult<bool> {
        self.change(group, channel, meta)
    }

    /// Show a channel no longer in a group.
    fn presence_discard(&self, group: Group<'_, '_>, channel: Channel<'_, '_>) -> PyResult<()> {
        self.withdraw(group, channel)
    }

    /// Who is present in a group, as the in-process layer gives it; or the reply whose `presence` will have it.
    #[pyo3(signature = (group) -> "tuple[dict[str, list[dict[str, object]]], int, int, int, bool] | Reply")]
    fn presence<'py>(
        &self,
        py: Python<'py>,
        group: Group<'_, '_>,
    ) -> PyResult<Known<Present<'py>>> {
        self.first_use.note(py)?;
        self.present(py, group)
    }

    /// How many keys and channels are present in a group; or the reply whose `presence` will have that.
    #[pyo3(signature = (group) -> "tuple[int, int] | Reply")]
    fn presence_count(
        &self,
        py: Python<'_>,
        group: Group<'_, '_>,
    ) -> PyResult<Known<(usize, usize)>> {
        self.first_use.note(py)?;
        self.count_present(group)
    }

    /// Ask how many members a group has in all processes, without its queues: the reply's `members`.
    fn group_count_everywhere(&self, py: Python<'_>, group: Group<'_, '_>) -> PyResult<Reply> {
        self.first_use.note(py)?;
        self.count_everywhere(group.name()?)
    }

    /// Take a channel out of a group. None: it is done.
    fn group_discard(
        &self,
        py: Python<'_>,
        group: Group<'_, '_>,
        channel: Channel<'_, '_>,
    ) -> PyResult<Option<Reply>> {
        self.first_use.note(py)?;
        let (group, channel) = (group.name()?, channel.name()?);
        self.progress(|ticket| self.engine.group_discard(group, channel, ticket))
    }

    /// Subscribe to a channel by its name. None: it is done.
    fn listen(&self, py: Python<'_>, channel: Channel<'_, '_>) -> PyResult<Option<Reply>> {
        self.first_use.note(py)?;
        let channel = channel.name()?;
        self.progress(|ticket| Ok(self.engine.listen(channel, ticket)))
    }

    /// Do what `receive_next` does. Before the first of a queue, return the `Reply` that is to be waited for in front of that.
    fn receive(&self, py: Python<'_>, channel: Channel<'_, '_>) -> PyResult<Py<PyAny>> {
        self.first_use.note(py)?;
        self.look_and_take(py, channel)
    }

    /// Take the oldest message of a channel, or return a `Waiter` for the next one.
    fn receive_next(&self, py: Python<'_>, channel: Channel<'_, '_>) -> PyResult<Py<PyAny>> {
        let received = MemoryLayer::receive(self.local.bind(py), channel)?;
        if received.bind(py).is_exact_instance_of::<Waiter>() {
            self.attend(channel.name()?);
        }
        Ok(received)
    }

    /// Take up to so many messages of a queue into the local mailbox; an unreachable server has none. None: it is no queue.
    fn look(
        &self,
        py: Python<'_>,
        channel: Channel<'_, '_>,
        most: usize,
    ) -> PyResult<Option<Reply>> {
        self.first_use.note(py)?;
        let channel = channel.name()?;
        self.progress(|ticket| self.engine.look(channel, most, ticket))
    }

    /// Take the oldest message. For a queue this asks the server, and sleeps for one round trip.
    #[pyo3(signature = (channel) -> "dict[str, object]")]
    fn receive_nowait(&self, py: Python<'_>, channel: Channel<'_, '_>) -> PyResult<Py<PyAny>> {
        self.first_use.note(py)?;
        if let Some(fetched) = self.look_at_once(channel.name()?)? {
            fetched.wait(py, None)?;
        }
        self.local.get().receive_nowait(py, channel)
    }

    /// Take the oldest message of a queue; sleep until there is one, or until the time is over.
    #[pyo3(signature = (channel, timeout=None) -> "dict[str, object]")]
    fn receive_sync(
        &self,
        py: Python<'_>,
        channel: Channel<'_, '_>,
        timeout: Option<f64>,
    ) -> PyResult<Py<PyAny>> {
        self.sleep_for_one(py, channel, timeout)
    }

    /// As `receive_sync`, with up to so many messages, of which those behind the first are the ones that have come here by then.
    #[pyo3(signature = (channel, most, timeout=None) -> "list[dict[str, object]]")]
    fn receive_many_sync<'py>(
        &self,
        py: Python<'py>,
        channel: Channel<'_, '_>,
        most: usize,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyList>> {
        self.sleep_for_many(py, channel, most, timeout)
    }

    /// Drop the messages of a channel and take it out of all its groups; of a queue, for the whole fleet.
    fn close_channel(&self, channel: Channel<'_, '_>) -> PyResult<()> {
        self.engine
            .close_channel(channel.name()?)
            .map_err(to_python)
    }

    fn group_channels(&self, group: Group<'_, '_>) -> PyResult<Vec<String>> {
        let channels = self.engine.group_channels(group.name()?);
        channels.map(to_strings).map_err(to_python)
    }

    fn group_count(&self, group: Group<'_, '_>) -> PyResult<usize> {
        self.engine.group_count(group.name()?).map_err(to_python)
    }

    fn channel_groups(&self, channel: Channel<'_, '_>) -> PyResult<Vec<String>> {
        let groups = self.engine.channel_groups(channel.name()?);
        groups.map(to_strings).map_err(to_python)
    }

    /// A reading of the layer, and of its connections.
    fn stats(&self) -> (LayerStats, LinkStats) {
        let (layer, link) = self.engine.stats();
        (layer.into(), link.into())
    }

    /// How often messages of a group with a history may have been missed that no server has any more.
    fn unhealed(&self) -> u64 {
        self.engine.unhealed()
    }

    fn channel_stats(&self, channel: Channel<'_, '_>) -> PyResult<ChannelStats> {
        let stats = self.engine.channel_stats(channel.name()?);
        stats.map(Into::into).map_err(to_python)
    }

    fn group_stats(&self, group: Group<'_, '_>) -> PyResult<GroupStats> {
        let stats = self.engine.group_stats(group.name()?);
        stats.map(Into::into).map_err(to_python)
    }

    /// Remove what the layer has, everywhere. It is no error if it is closed.
    fn flush(&self) -> Reply {
        self.engine.local().flush();
        let reply = self.asked(|ticket| self.engine.flush(ticket));
        reply.with_forgiven(Forgiven::Closed)
    }

    /// Wait until the server has what was sent, and what of it was for this process has come. None: nothing was.
    fn drain(&self) -> Option<Reply> {
        let started = self.engine.is_started();
        started.then(|| self.asked(|ticket| self.engine.drain(false, ticket)))
    }

    /// Wait until the server has what was sent, at the end; it is no error if it does not get it. None: there is nothing to wait
    /// for.
    fn finish(&self) -> Option<Reply> {
        self.end_soon()
    }

    /// What became of all sends that were given a ledger.
    fn unattended(&self) -> Ledger {
        self.unattended.clone()
    }

    /// End the connections.
    fn close(&self) {
        if !self.is_closed() {
            self.asked(|ticket| self.engine.close(ticket));
        }
    }

    /// Whether the connections were ended.
    fn is_closed(&self) -> bool {
        self.engine.link_stats().state == ConnectionState::Closed
    }

    /// A reading of the connections alone.
    fn link_stats(&self) -> LinkStats {
        self.engine.link_stats().into()
    }

    /// Wait, without a loop, for something that the owner may want to know: as a dict with "kind".
    #[pyo3(signature = (timeout) -> "dict[str, object] | None")]
    fn next_notice<'py>(
        &self,
        py: Python<'py>,
        timeout: f64,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        let timeout = seconds(timeout)?;
        let notice = py.detach(|| self.engine.next_notice(timeout));
        notice.map(|it| notice::to_python(py, it)).transpose()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.first_use.traverse(&visit)?;
        visit.call(&self.local)
    }
}
