//! The in-process layer as Python sees it: convert, call, convert back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use headrace_core::MemoryEngine;
use headrace_core::history::HistoryRules;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::arguments::{Channel, Exclude, Group, Outgoing, Pairs, Since};
use crate::config::{LayerClock, LayerConfig, ManualClock};
use crate::errors::{ChannelEmpty, send_to_python, to_python};
use crate::event_loop::Wakes;
use crate::first_use::FirstUse;
use crate::inbox::Inbox;
use crate::presence::{Key, Meta, Timer};
use crate::receiver::{Engine, Mailboxes, Receiver, call_alarms, deliver, drop_attached, hand_out};
use crate::reply::Reply;
use crate::stats::{ChannelStats, GroupStats, LayerStats, SendReport};

mod history;
mod presence;
mod receiving;
mod sending;

/// Mailboxes and groups in this process: the engine behind `headrace.layers.InMemoryChannelLayer`.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct MemoryLayer {
    engine: Arc<Engine>,
    /// Which groups have a history.
    histories: HistoryRules,
    strict: bool,
    direct_wake: bool,
    /// Whether there is, or was, a channel that compares the types of messages: else they are not read.
    compares_types: Arc<AtomicBool>,
    /// Whether messages come from other processes too.
    connected: AtomicBool,
    /// The process that made it.
    process: u32,
    /// How the part before the `!` of its channels' names ends: no other channel is received from. There is none if messages
    /// for any name come here.
    owner: OnceLock<String>,
    /// The pattern objects that the engine's capacity rules ask; kept here for the garbage collector.
    patterns: Vec<Arc<Py<PyAny>>>,
    first_group_send: FirstUse,
    /// Tells who is present when it is time.
    timer: Timer,
}

impl MemoryLayer {
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The mailboxes, for a receiver of this layer.
    pub(crate) fn mailboxes(slf: &Bound<'_, Self>) -> Mailboxes {
        let layer = slf.get();
        Mailboxes {
            engine: Arc::clone(&layer.engine),
            layer: slf.clone().into_any().unbind(),
            direct_wake: layer.direct_wake,
        }
    }

    /// Whether tasks are resumed directly.
    pub(crate) fn wakes_directly(&self) -> bool {
        self.direct_wake
    }

    /// Notes that messages come from other processes too, and whose channels these mailboxes are for.
    pub(crate) fn connect(&self, owner: Option<String>) {
        self.connected.store(true, Ordering::Relaxed);
        if let Some(owner) = owner {
            self.owner.get_or_init(|| owner);
        }
    }
}

#[pymethods]
impl MemoryLayer {
    #[new]
    #[pyo3(signature = (config, clock=None, owner=None, before_group_send=None))]
    fn new(
        py: Python<'_>,
        config: LayerConfig,
        clock: Option<&ManualClock>,
        owner: Option<String>,
        before_group_send: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let (settings, patterns) = config.to_core(py)?;
        let histories = config.histories()?;
        let rules = histories
            .as_ref()
            .map(|histories| histories.rules().clone());
        let engine = MemoryEngine::new(settings, LayerClock::new(clock));
        let engine = engine.with_drop_waiters(drop_attached);
        let engine = match histories {
            Some(histories) => engine.with_histories(histories),
            None => engine,
        };
        let presences = config.presences()?;
        let tells = presences.is_some();
        let engine = Arc::new(match presences {
            Some(presences) => engine.with_presences(presences),
            None => engine,
        });
        let timer = Timer::new(&engine, clock.filter(|_| tells));
        Ok(Self {
            engine,
            timer,
            histories: rules.unwrap_or_default(),
            strict: config.strict,
            direct_wake: config.direct_wake,
            compares_types: Arc::default(),
            connected: AtomicBool::new(false),
            process: std::process::id(),
            owner: owner.map(OnceLock::from).unwrap_or_default(),
            patterns,
            first_group_send: FirstUse::new(before_group_send),
        })
    }

    /// Send one message. Never blocks.
    fn send(
        &self,
        py: Python<'_>,
        channel: Channel<'_, '_>,
        message: Outgoing<'_, '_>,
    ) -> PyResult<()> {
        let message = self.message(message.value())?;
        let channel = channel.name()?;
        let sent = self.engine.send(channel, message);
        call_alarms(py, &self.engine)?;
        let hand_off = sent.map_err(|error| send_to_python(error, channel))?;
        if let Some(hand_off) = hand_off {
            deliver(py, &self.engine, [hand_off])?;
        }
        Ok(())
    }

    /// Do what `send` does: there is nothing to wait for.
    fn send_soon(
        &self,
        py: Python<'_>,
        channel: Channel<'_, '_>,
        message: Outgoing<'_, '_>,
    ) -> PyResult<()> {
        self.send(py, channel, message)
    }

    /// Send to every member of a group but the excluded. Never blocks.
    fn group_send(
        &self,
        py: Python<'_>,
        group: Group<'_, '_>,
        message: Outgoing<'_, '_>,
        exclude: Exclude<'_, '_>,
    ) -> PyResult<SendReport> {
        let exclude = exclude.channels()?;
        let exclude: Vec<&str> = exclude.iter().map(String::as_str).collect();
        self.group_send_past(py, group, message, &exclude)
    }

    /// Send a message to a group that tells its receivers to end, and that no full mailbox refuses.
    fn group_close(
        &self,
        py: Python<'_>,
        group: Group<'_, '_>,
        message: Outgoing<'_, '_>,
        exclude: Exclude<'_, '_>,
    ) -> PyResult<SendReport> {
        self.group_close_past(py, group, message, &exclude.channels()?)
    }

    /// Do what `group_close` does: there is nothing to wait for.
    fn group_close_soon(
        &self,
        py: Python<'_>,
        group: Group<'_, '_>,
        message: Outgoing<'_, '_>,
        exclude: Exclude<'_, '_>,
    ) -> PyResult<SendReport> {
        self.group_close(py, group, message, exclude)
    }

    /// Do what `group_send` does: there is nothing to wait for.
    fn group_send_soon(
        &self,
        py: Python<'_>,
        group: Group<'_, '_>,
        message: Outgoing<'_, '_>,
        exclude: Exclude<'_, '_>,
    ) -> PyResult<SendReport> {
        self.group_send(py, group, message, exclude)
    }

    /// Send to a group. It is done when it returns: there is nothing that could fail later, and nothing to enter in the ledger.
    fn group_send_unattended(
        &self,
        py: Python<'_>,
        group: Group<'_, '_>,
        message: Outgoing<'_, '_>,
        _ledger: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.group_send_past(py, group, message, &[]).map(drop)
    }

    /// Send each message to its channel. Bad input is found before anything is sent; full channels are counted.
    fn send_many(&self, py: Python<'_>, pairs: Pairs<'_, '_>) -> PyResult<SendReport> {
        self.send_pairs(py, pairs)
    }

    /// Send each message to its group, but not to the excluded channels. Bad input is found before anything is sent.
    fn group_send_many(
        &self,
        py: Python<'_>,
        pairs: Pairs<'_, '_>,
        exclude: Exclude<'_, '_>,
    ) -> PyResult<SendReport> {
        self.group_send_pairs(py, pairs, exclude)
    }

    /// Do what `receive` does: nothing has to be looked for first.
    fn receive_next(slf: &Bound<'_, Self>, channel: Channel<'_, '_>) -> PyResult<Py<PyAny>> {
        Self::receive(slf, channel)
    }

    /// Have up to so many messages come here. They are here.
    #[staticmethod]
    fn look(_channel: Channel<'_, '_>, _most: usize) -> Option<Reply> {
        None
    }

    /// Take the oldest message, or return a `Waiter` for the next one.
    pub(crate) fn receive(slf: &Bound<'_, Self>, channel: Channel<'_, '_>) -> PyResult<Py<PyAny>> {
        Self::take_or_wait(slf, channel)
    }

    /// The messages of a channel, one after the other, as an asynchronous iterator. While there is one, the channel keeps its
    /// memberships.
    fn inbox(slf: Bound<'_, Self>, channel: Channel<'_, '_>) -> PyResult<Inbox> {
        let (string, name) = channel.text()?;
        channel.valid_name()?;
        slf.get().check_owner(name)?;
        let compares_types = Arc::clone(&slf.get().compares_types);
        let channel = string.clone().unbind();
        Ok(Inbox::new(
            Self::mailboxes(&slf),
            compares_types,
            channel,
            name,
        ))
    }

    /// Take the oldest message.
    #[pyo3(signature = (channel) -> "dict[str, object]")]
    pub(crate) fn receive_nowait(
        &self,
        py: Python<'_>,
        channel: Channel<'_, '_>,
    ) -> PyResult<Py<PyAny>> {
        let name = self.receivable(&channel)?;
        match self.engine.take(name).map_err(to_python)? {
            Some(envelope) => hand_out(py, &self.engine, envelope),
            None => Err(ChannelEmpty::new_err(name.to_owned())),
        }
    }

    /// Take up to so many messages that are there.
    #[pyo3(signature = (channel, most) -> "list[dict[str, object]]")]
    pub(crate) fn receive_ready<'py>(
        &self,
        py: Python<'py>,
        channel: Channel<'_, '_>,
        most: usize,
    ) -> PyResult<Bound<'py, PyList>> {
        self.take_ready(py, channel, most)
    }

    /// Take the oldest message; sleep until there is one, or until the time is over.
    #[pyo3(signature = (channel, timeout=None) -> "dict[str, object]")]
    fn receive_sync(
        &self,
        py: Python<'_>,
        channel: Channel<'_, '_>,
        timeout: Option<f64>,
    ) -> PyResult<Py<PyAny>> {
        self.receive_sync_then(py, channel, timeout, || {})
    }

    /// As `receive_sync`, with up to so many messages, of which those behind the first are there.
    #[pyo3(signature = (channel, most, timeout=None) -> "list[dict[str, object]]")]
    fn receive_many_sync<'py>(
        &self,
        py: Python<'py>,
        channel: Channel<'_, '_>,
        most: usize,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyList>> {
        let first = self.receive_sync_then(py, channel, timeout, || {})?;
        self.with_ready(py, first, channel, most)
    }

    fn group_add(&self, group: Group<'_, '_>, channel: Channel<'_, '_>) -> PyResult<()> {
        self.engine
            .group_add(group.name()?, channel.name()?)
            .map_err(to_python)
    }

    /// Put a channel in a group, with what it missed; tell whether that is complete.
    fn group_add_since(
        &self,
        py: Python<'_>,
        group: Group<'_, '_>,
        channel: Channel<'_, '_>,
        since: Since<'_, '_>,
    ) -> PyResult<bool> {
        self.resume(py, group, channel, since)
    }

    /// The newest position of a group; None if it has no history.
    fn group_position(&self, group: Group<'_, '_>) -> PyResult<Option<String>> {
        self.newest_position(group)
    }

    /// The oldest `limit` messages of a group behind a position, or the newest of all; the position of the last of them, and whether
    /// they are complete.
    #[pyo3(signature = (group, since, limit) -> "tuple[list[dict[str, object]], str, bool]")]
    fn group_history<'py>(
        &self,
        py: Python<'py>,
        group: Group<'_, '_>,
        since: Option<Since<'_, '_>>,
        limit: usize,
    ) -> PyResult<(Bound<'py, PyList>, String, bool)> {
        self.recent(py, group, since, limit)
    }

    /// Put a channel of this process in a group, and show it there under a key.
    fn presence_add(
        &self,
        group: Group<'_, '_>,
        channel: Channel<'_, '_>,
        key: Key<'_, '_>,
        meta: Meta<'_, '_>,
    ) -> PyResult<()> {
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

    /// Who is present in a group, the version of that, how many keys and channels they are, and whether there are too many to be named.
    #[pyo3(signature = (group) -> "tuple[dict[str, list[dict[str, object]]], int, int, int, bool]")]
    fn presence<'py>(
        &self,
        py: Python<'py>,
        group: Group<'_, '_>,
    ) -> PyResult<(Bound<'py, PyAny>, u64, usize, usize, bool)> {
        self.present(py, group)
    }

    /// How many keys and channels are present in a group.
    fn presence_count(&self, group: Group<'_, '_>) -> PyResult<(usize, usize)> {
        self.count_present(group)
    }

    fn group_discard(&self, group: Group<'_, '_>, channel: Channel<'_, '_>) -> PyResult<()> {
        self.engine
            .group_discard(group.name()?, channel.name()?)
            .map_err(to_python)
    }

    fn group_channels(&self, group: Group<'_, '_>) -> PyResult<Vec<String>> {
        let channels = self.engine.group_channels(group.name()?);
        let channels = channels.map_err(to_python)?;
        Ok(channels.iter().map(ToString::to_string).collect())
    }

    /// The channels of a group, each with the seconds since its latest `group_add`.
    fn group_members(&self, group: Group<'_, '_>) -> PyResult<Vec<(String, f64)>> {
        let members = self.engine.group_members(group.name()?);
        let members = members.map_err(to_python)?;
        Ok(members
            .iter()
            .map(|(channel, age)| (channel.to_string(), age.as_secs_f64()))
            .collect())
    }

    fn group_count(&self, group: Group<'_, '_>) -> PyResult<usize> {
        self.engine.group_count(group.name()?).map_err(to_python)
    }

    fn group_names(&self) -> Vec<String> {
        self.engine
            .group_names()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    fn channel_groups(&self, channel: Channel<'_, '_>) -> PyResult<Vec<String>> {
        let groups = self.engine.channel_groups(channel.name()?);
        let groups = groups.map_err(to_python)?;
        Ok(groups.iter().map(ToString::to_string).collect())
    }

    /// The channels that hold messages or waiting receivers.
    fn channel_names(&self) -> Vec<String> {
        self.engine
            .channel_names()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    /// Drop the messages of a channel and take it out of all its groups.
    fn close_channel(&self, channel: Channel<'_, '_>) -> PyResult<()> {
        self.engine
            .close_channel(channel.name()?)
            .map_err(to_python)
    }

    fn flush(&self) {
        self.engine.flush();
    }

    /// Wait until all that was sent is where it belongs. It is.
    #[staticmethod]
    fn finish() -> Option<Reply> {
        None
    }

    /// Flush, refuse everything from now on, and wake all receivers with `LayerClosed`.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let mut wakes = Wakes::default();
        for receiver in self.engine.close() {
            receiver.end();
            receiver.wake(py, &mut wakes);
        }
        wakes.flush(py)
    }

    fn stats(&self) -> LayerStats {
        self.engine.stats().into()
    }

    fn channel_stats(&self, channel: Channel<'_, '_>) -> PyResult<ChannelStats> {
        let stats = self.engine.channel_stats(channel.name()?);
        Ok(stats.map_err(to_python)?.into())
    }

    fn group_stats(&self, group: Group<'_, '_>) -> PyResult<GroupStats> {
        let stats = self.engine.group_stats(group.name()?);
        Ok(stats.map_err(to_python)?.into())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        for pattern in &self.patterns {
            visit.call(&**pattern)?;
        }
        self.first_group_send.traverse(&visit)?;
        // In the child of a fork another thread of the parent may have the engine's lock for ever.
        if self.process != std::process::id() {
            return Ok(());
        }
        let show = |receiver: &Receiver| receiver.traverse(&visit);
        // A receiver of messages from elsewhere is no garbage, even if nothing here refers to it; and the thread that
        // delivers them may remove it from the waiters while the collector runs.
        let reachable = self.connected.load(Ordering::Relaxed);
        self.engine.visit(
            |message| message.traverse(&visit),
            |receiver| if reachable { Ok(()) } else { show(receiver) },
            show,
        )
    }

    /// The layer and everything that it refers to is unreachable, so no receiver is left to be woken.
    fn __clear__(&self) {
        drop(self.engine.close());
    }
}
