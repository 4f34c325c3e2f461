//! The Redis layer as Python sees it: convert, call, convert back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use headrace_core::name::NameKind;
use headrace_core::redis::{
    Answer, Notice, Place, Prepared, Progress, RedisEngine, Runtime as Thread, Unsent,
};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::config::seconds;
use crate::errors::{fault_to_python, to_python, ChannelFull};
use crate::event_loop::running_loop;
use crate::layer::{channel, excluded, group, read_pairs, MemoryLayer};
use crate::message::encode::encode_into;
use crate::receiver::Waiter;
use crate::sleep::sleep;

mod config;
mod host;
mod ledger;
mod stats;

use config::RedisConfig;
use host::{Asking, Bindings, Ticket};
pub(crate) use ledger::Ledger;
pub(crate) use stats::LinkStats;

/// The thread that does the input and output of all layers of a process. It ends with this object.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct Runtime(Arc<Thread>);

#[pymethods]
impl Runtime {
    #[new]
    fn new() -> PyResult<Self> {
        let thread = Thread::start().map_err(|error| PyOSError::new_err(error.to_string()))?;
        Ok(Self(Arc::new(thread)))
    }
}

/// Mailboxes in this process and the way to those in others: the engine behind `headrace.layers.RedisChannelLayer`.
///
/// What takes the server's time returns a `Waiter`; awaited, its `take` gives what became of it.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct RedisLayer {
    engine: RedisEngine<Bindings>,
    local: Py<MemoryLayer>,
    limit: usize,
    /// Sends that were given a ledger of their sender's.
    unattended: Ledger,
}

/// How long whoever does not want to wait waits for the server's answer at most, in seconds.
const ROUND_TRIP: f64 = 0.25;

/// A wait for an answer, or nothing to wait for.
type Wait = Option<Py<Waiter>>;

impl RedisLayer {
    fn waiter(&self, py: Python<'_>) -> PyResult<Py<Waiter>> {
        let nobody = intern!(py, "");
        let mailboxes = MemoryLayer::mailboxes(self.local.bind(py));
        let waiter = Waiter::new(mailboxes, nobody, &running_loop(py)?)?;
        Py::new(py, waiter)
    }

    /// Asks for something and gives the waiter for the answer.
    fn awaited(&self, py: Python<'_>, ask: impl FnOnce(Ticket)) -> PyResult<Py<Waiter>> {
        let waiter = self.waiter(py)?;
        ask(Ticket::Task(waiter.clone_ref(py)));
        Ok(waiter)
    }

    fn progress(
        &self,
        py: Python<'_>,
        ask: impl FnOnce(Ticket) -> PyResult<Progress<Ticket>>,
    ) -> PyResult<Wait> {
        let waiter = self.waiter(py)?;
        match ask(Ticket::Task(waiter.clone_ref(py)))? {
            Progress::Asked => Ok(Some(waiter)),
            Progress::Done(_) => Ok(None),
        }
    }

    /// Sends a message and sleeps until it is known what became of it.
    fn confirmed(&self, py: Python<'_>, message: Prepared) -> PyResult<Option<Outcome>> {
        let answer = slept(py, None, |ticket| {
            self.engine.send(message, Some(ticket));
            Ok(true)
        })?;
        answer.map(|answer| outcome(py, answer)).transpose()
    }

    /// Sends a message that nobody waits for, as soon as there is room for it.
    fn send_with_room(
        &self,
        py: Python<'_>,
        message: Prepared,
        ticket: Option<Ticket>,
    ) -> PyResult<Option<Outcome>> {
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
        Ok(None)
    }

    fn encode(&self, message: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
        let mut bytes = Vec::with_capacity(256);
        encode_into(&mut bytes, message, self.limit)?;
        Ok(bytes)
    }

    fn pairs(&self, pairs: &Bound<'_, PyAny>, kind: NameKind) -> PyResult<Vec<(String, Vec<u8>)>> {
        read_pairs(self.engine.local(), pairs, kind, |message| {
            self.encode(message)
        })
    }
}

/// Asks for something and sleeps until it is answered.
fn slept(
    py: Python<'_>,
    timeout: Option<f64>,
    ask: impl FnOnce(Ticket) -> PyResult<bool>,
) -> PyResult<Option<Answer>> {
    let timeout = timeout.map_or(Ok(Duration::MAX), seconds)?;
    let asking = Arc::new(Asking::default());
    if !ask(Ticket::Thread(Arc::clone(&asking)))? {
        return Ok(Some(Answer::default()));
    }
    asking.sleep(py, timeout)
}

fn unsent(unsent: Unsent, channel: &str) -> PyErr {
    match unsent {
        Unsent::Refused(error) => to_python(error),
        Unsent::Full => ChannelFull::new_err(channel.to_owned()),
        Unsent::Unsendable(why) => PyValueError::new_err(why.to_string()),
    }
}

/// What became of it: processes that were told, queues that took it, queues that were full.
pub(crate) type Outcome = (u64, u64, u64);

pub(crate) fn outcome(py: Python<'_>, answer: Answer) -> PyResult<Outcome> {
    match answer.fault {
        Some(fault) => Err(fault_to_python(py, &fault)),
        None => Ok((answer.receivers, answer.queued, answer.full)),
    }
}

#[pymethods]
impl RedisLayer {
    #[new]
    fn new(
        config: RedisConfig,
        local: Bound<'_, MemoryLayer>,
        expiry: f64,
        runtime: &Runtime,
    ) -> PyResult<Self> {
        let limit = config.max_message_bytes;
        let settings = config.into_core(seconds(expiry)?)?;
        local.get().connect();
        let engine = Arc::clone(local.get().engine());
        let host = Arc::new(Bindings::new(Arc::clone(&engine)));
        let engine = RedisEngine::new(host, engine, settings, Arc::clone(&runtime.0));
        Ok(Self {
            engine: engine.map_err(PyValueError::new_err)?,
            local: local.unbind(),
            limit,
            unattended: Ledger::default(),
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

    /// Whether it was ever used.
    fn is_started(&self) -> bool {
        self.engine.is_started()
    }

    /// Whether a channel is a queue, and no channel of a process.
    #[pyo3(signature = (channel: "str"))]
    fn is_queue(&self, channel: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(self.engine.place(self::channel(channel)?) == Place::Queue)
    }

    /// Whether what is sent to a channel comes here without being asked for.
    #[pyo3(signature = (channel: "str"))]
    fn is_subscribed(&self, channel: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(self.engine.is_subscribed(self::channel(channel)?))
    }

    /// Become connected.
    fn connect(&self, py: Python<'_>) -> PyResult<Py<Waiter>> {
        self.awaited(py, |ticket| self.engine.connect(ticket))
    }

    /// Become connected, some time.
    fn connect_soon(&self) {
        self.engine.connect(Ticket::Nobody);
    }

    /// Become connected, and sleep until that is done. None: the time was over first.
    #[pyo3(signature = (timeout=None))]
    fn connect_sync(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Outcome>> {
        let answer = slept(py, timeout, |ticket| {
            self.engine.connect(ticket);
            Ok(true)
        })?;
        answer.map(|answer| outcome(py, answer)).transpose()
    }

    /// Send one message.
    #[pyo3(signature = (channel: "str", message: "dict[str, object]"))]
    fn send(
        &self,
        py: Python<'_>,
        channel: &Bound<'_, PyAny>,
        message: &Bound<'_, PyAny>,
    ) -> PyResult<Py<Waiter>> {
        let payload = self.encode(message)?;
        let channel = self::channel(channel)?;
        let waiter = self.waiter(py)?;
        let message = self.engine.prepare_send(channel, &payload);
        let message = message.map_err(|error| unsent(error, channel))?;
        let ticket = Ticket::Task(waiter.clone_ref(py));
        self.engine.send(message, Some(ticket));
        Ok(waiter)
    }

    /// Send one message, and sleep until it is known what became of it, if that is wanted; if not, sleep while too much waits
    /// already.
    #[pyo3(signature = (channel: "str", message: "dict[str, object]", confirm: "bool"))]
    fn send_sync(
        &self,
        py: Python<'_>,
        channel: &Bound<'_, PyAny>,
        message: &Bound<'_, PyAny>,
        confirm: bool,
    ) -> PyResult<Option<Outcome>> {
        let payload = self.encode(message)?;
        let channel = self::channel(channel)?;
        let message = self.engine.prepare_send(channel, &payload);
        let message = message.map_err(|error| unsent(error, channel))?;
        if confirm {
            return self.confirmed(py, message);
        }
        self.send_with_room(py, message, None)
    }

    /// Send to the members of a group but the excluded.
    #[pyo3(signature = (group: "str", message: "dict[str, object]", exclude=None))]
    fn group_send(
        &self,
        py: Python<'_>,
        group: &Bound<'_, PyAny>,
        message: &Bound<'_, PyAny>,
        exclude: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<Waiter>> {
        let payload = self.encode(message)?;
        let exclude = exclude.map_or_else(|| Ok(Vec::new()), excluded)?;
        let exclude: Vec<&str> = exclude.iter().map(String::as_str).collect();
        let group = self::group(group)?;
        let waiter = self.waiter(py)?;
        let message = self.engine.prepare_group_send(group, &payload, &exclude);
        let message = message.map_err(|error| unsent(error, group))?;
        let ticket = Ticket::Task(waiter.clone_ref(py));
        self.engine.send(message, Some(ticket));
        Ok(waiter)
    }

    /// Send to the members of a group, and sleep until it is known what became of it, if that is wanted; if not, sleep while
    /// too much waits already, and a ledger may keep it.
    #[pyo3(signature = (group: "str", message: "dict[str, object]", exclude, confirm: "bool", ledger=None))]
    fn group_send_sync(
        &self,
        py: Python<'_>,
        group: &Bound<'_, PyAny>,
        message: &Bound<'_, PyAny>,
        exclude: Option<&Bound<'_, PyAny>>,
        confirm: bool,
        ledger: Option<&Bound<'_, Ledger>>,
    ) -> PyResult<Option<Outcome>> {
        let payload = self.encode(message)?;
        let exclude = exclude.map_or_else(|| Ok(Vec::new()), excluded)?;
        let exclude: Vec<&str> = exclude.iter().map(String::as_str).collect();
        let group = self::group(group)?;
        let message = self.engine.prepare_group_send(group, &payload, &exclude);
        let message = message.map_err(|error| unsent(error, group))?;
        if confirm {
            return self.confirmed(py, message);
        }
        let enter = |ledger: &Bound<'_, Ledger>| ledger.get().enter(&self.unattended);
        self.send_with_room(py, message, ledger.map(enter).map(Ticket::Ledger))
    }

    /// Send each message to its channel; gives how many, how many of them were refused by full mailboxes here, and the wait.
    fn send_many(
        &self,
        py: Python<'_>,
        pairs: &Bound<'_, PyAny>,
    ) -> PyResult<(usize, usize, Py<Waiter>)> {
        let messages = self.pairs(pairs, NameKind::Channel)?;
        let waiter = self.waiter(py)?;
        let ticket = Ticket::Task(waiter.clone_ref(py));
        let sent = self.engine.send_many(&messages, ticket);
        let full = sent.map_err(|error| unsent(error, ""))?;
        Ok((messages.len(), full, waiter))
    }

    /// Send each message to its group; gives the groups and the wait.
    fn group_send_many(
        &self,
        py: Python<'_>,
        pairs: &Bound<'_, PyAny>,
    ) -> PyResult<(Vec<String>, Py<Waiter>)> {
        let messages = self.pairs(pairs, NameKind::Group)?;
        let waiter = self.waiter(py)?;
        let ticket = Ticket::Task(waiter.clone_ref(py));
        let sent = self.engine.group_send_many(&messages, ticket);
        sent.map_err(|error| unsent(error, ""))?;
        Ok((
            messages.into_iter().map(|(group, _)| group).collect(),
            waiter,
        ))
    }

    /// Put a channel in a group for so many seconds. None: it is done.
    #[pyo3(signature = (group: "str", channel: "str", expiry))]
    fn group_add(
        &self,
        py: Python<'_>,
        group: &Bound<'_, PyAny>,
        channel: &Bound<'_, PyAny>,
        expiry: f64,
    ) -> PyResult<Wait> {
        let (group, channel) = (self::group(group)?, self::channel(channel)?);
        let expiry = seconds(expiry)?;
        self.progress(py, |ticket| {
            self.engine
                .group_add(group, channel, expiry, ticket)
                .map_err(to_python)
        })
    }

    /// As `group_add`, asleep until it is done.
    #[pyo3(signature = (group: "str", channel: "str", expiry))]
    fn group_add_sync(
        &self,
        py: Python<'_>,
        group: &Bound<'_, PyAny>,
        channel: &Bound<'_, PyAny>,
        expiry: f64,
    ) -> PyResult<()> {
        let (group, channel) = (self::group(group)?, self::channel(channel)?);
        let expiry = seconds(expiry)?;
        let answer = slept(py, None, |ticket| {
            let progress = self.engine.group_add(group, channel, expiry, ticket);
            Ok(matches!(progress.map_err(to_python)?, Progress::Asked))
        })?;
        answer.map_or(Ok(()), |answer| outcome(py, answer).map(|_| ()))
    }

    /// Take a channel out of a group. None: it is done.
    #[pyo3(signature = (group: "str", channel: "str"))]
    fn group_discard(
        &self,
        py: Python<'_>,
        group: &Bound<'_, PyAny>,
        channel: &Bound<'_, PyAny>,
    ) -> PyResult<Wait> {
        let (group, channel) = (self::group(group)?, self::channel(channel)?);
        self.progress(py, |ticket| {
            self.engine
                .group_discard(group, channel, ticket)
                .map_err(to_python)
        })
    }

    /// As `group_discard`, asleep until it is done.
    #[pyo3(signature = (group: "str", channel: "str"))]
    fn group_discard_sync(
        &self,
        py: Python<'_>,
        group: &Bound<'_, PyAny>,
        channel: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let (group, channel) = (self::group(group)?, self::channel(channel)?);
        let answer = slept(py, None, |ticket| {
            let progress = self.engine.group_discard(group, channel, ticket);
            Ok(matches!(progress.map_err(to_python)?, Progress::Asked))
        })?;
        answer.map_or(Ok(()), |answer| outcome(py, answer).map(|_| ()))
    }

    /// Subscribe to a channel by its name. None: it is done.
    #[pyo3(signature = (channel: "str"))]
    fn listen(&self, py: Python<'_>, channel: &Bound<'_, PyAny>) -> PyResult<Wait> {
        let channel = self::channel(channel)?;
        self.progress(py, |ticket| Ok(self.engine.listen(channel, ticket)))
    }

    /// As `listen`, asleep until it is done.
    #[pyo3(signature = (channel: "str"))]
    fn listen_sync(&self, py: Python<'_>, channel: &Bound<'_, PyAny>) -> PyResult<()> {
        let channel = self::channel(channel)?;
        let answer = slept(py, None, |ticket| {
            let progress = self.engine.listen(channel, ticket);
            Ok(matches!(progress, Progress::Asked))
        })?;
        answer.map_or(Ok(()), |answer| outcome(py, answer).map(|_| ()))
    }

    /// Subscribe to a channel by its name, some time.
    #[pyo3(signature = (channel: "str"))]
    fn listen_soon(&self, channel: &Bound<'_, PyAny>) -> PyResult<()> {
        self.engine.listen(self::channel(channel)?, Ticket::Nobody);
        Ok(())
    }

    /// Say that somebody waits for a message of a queue.
    #[pyo3(signature = (channel: "str"))]
    fn want(&self, channel: &Bound<'_, PyAny>) -> PyResult<()> {
        self.engine.want(self::channel(channel)?);
        Ok(())
    }

    /// Take messages of a queue into the local mailbox.
    #[pyo3(signature = (channel: "str", most: "int"))]
    fn fetch(
        &self,
        py: Python<'_>,
        channel: &Bound<'_, PyAny>,
        most: usize,
    ) -> PyResult<Py<Waiter>> {
        let channel = self::channel(channel)?;
        self.awaited(py, |ticket| self.engine.fetch(channel, most, ticket))
    }

    /// As `fetch`, asleep until it is done.
    #[pyo3(signature = (channel: "str", most: "int"))]
    fn fetch_sync(
        &self,
        py: Python<'_>,
        channel: &Bound<'_, PyAny>,
        most: usize,
    ) -> PyResult<Option<Outcome>> {
        let channel = self::channel(channel)?;
        let answer = slept(py, None, |ticket| {
            self.engine.fetch(channel, most, ticket);
            Ok(true)
        })?;
        answer.map(|answer| outcome(py, answer)).transpose()
    }

    /// Take the oldest message of a queue; sleep until there is one, or until the time is over.
    #[pyo3(signature = (channel: "str", timeout=None) -> "dict[str, object]")]
    fn receive_sync(
        &self,
        py: Python<'_>,
        channel: &Bound<'_, PyAny>,
        timeout: Option<f64>,
    ) -> PyResult<Py<PyAny>> {
        let name = self::channel(channel)?;
        let queue = self.engine.place(name) == Place::Queue;
        let here = self.engine.local().channel_stats(name);
        let begun = Instant::now();
        if queue && here.is_ok_and(|here| here.depth == 0 && here.waiters == 0) {
            // What is there is to be had without waiting. A server that is away is waited for, as by any receiver.
            let patience = timeout.map(|timeout| timeout.max(ROUND_TRIP));
            slept(py, patience, |ticket| {
                self.engine.fetch(name, 1, ticket);
                Ok(true)
            })?;
        }
        // What is no number stays so, to be refused.
        let left = |timeout: f64| timeout - begun.elapsed().as_secs_f64();
        let timeout = timeout.map(left);
        let in_line = || {
            if queue {
                self.engine.want(name);
            } else if self.engine.is_plain_wire() {
                self.engine.listen(name, Ticket::Nobody);
            }
        };
        self.local
            .get()
            .receive_sync_then(py, channel, timeout, in_line)
    }

    /// Drop the messages of a channel and take it out of all its groups; of a queue, for the whole fleet.
    #[pyo3(signature = (channel: "str"))]
    fn close_channel(&self, channel: &Bound<'_, PyAny>) -> PyResult<()> {
        self.engine
            .close_channel(self::channel(channel)?)
            .map_err(to_python)
    }

    /// The plain channels of a group.
    #[pyo3(signature = (group: "str"))]
    fn plain_members(&self, group: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
        Ok(self.engine.plain_members(self::group(group)?))
    }

    /// The groups of a plain channel.
    #[pyo3(signature = (channel: "str"))]
    fn plain_groups(&self, channel: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
        Ok(self.engine.plain_groups(self::channel(channel)?))
    }

    /// All memberships of plain channels, as group and channel.
    fn plain_memberships(&self) -> Vec<(String, String)> {
        self.engine.plain_memberships()
    }

    /// What this process has sent to the plain channels of a group: sends, messages that queues took, and that were refused.
    #[pyo3(signature = (group: "str"))]
    fn plain_sends(&self, group: &Bound<'_, PyAny>) -> PyResult<(u64, u64, u64)> {
        let sends = self.engine.plain_sends(self::group(group)?);
        Ok((sends.sends, sends.queued, sends.full))
    }

    /// How many messages a queue held at the last look.
    #[pyo3(signature = (channel: "str"))]
    fn queue_depth(&self, channel: &Bound<'_, PyAny>) -> PyResult<u64> {
        Ok(self.engine.queue_depth(self::channel(channel)?))
    }

    /// The queues that held messages at the last look.
    fn queues(&self) -> Vec<String> {
        self.engine.queues()
    }

    /// Remove what the layer has, everywhere.
    fn flush(&self, py: Python<'_>) -> PyResult<Py<Waiter>> {
        self.awaited(py, |ticket| self.engine.flush(ticket))
    }

    /// Wait until the server has what was sent.
    fn drain(&self, py: Python<'_>, ending: bool) -> PyResult<Py<Waiter>> {
        self.awaited(py, |ticket| self.engine.drain(ending, ticket))
    }

    /// As `drain`, asleep until it is done. None: the time was over first.
    #[pyo3(signature = (ending, timeout=None))]
    fn drain_sync(
        &self,
        py: Python<'_>,
        ending: bool,
        timeout: Option<f64>,
    ) -> PyResult<Option<Outcome>> {
        let answer = slept(py, timeout, |ticket| {
            self.engine.drain(ending, ticket);
            Ok(true)
        })?;
        answer.map(|answer| outcome(py, answer)).transpose()
    }

    /// What became of all sends that were given a ledger.
    fn unattended(&self) -> Ledger {
        self.unattended.clone()
    }

    /// End the connections.
    fn close(&self) {
        self.engine.close(Ticket::Nobody);
    }

    fn stats(&self) -> LinkStats {
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
        let Some(notice) = py.detach(|| self.engine.next_notice(timeout)) else {
            return Ok(None);
        };
        let told = PyDict::new(py);
        match notice {
            Notice::Disconnected { reason } => {
                told.set_item("kind", "disconnected")?;
                told.set_item("reason", reason)?;
            }
            Notice::Reconnected => told.set_item("kind", "reconnected")?,
            Notice::ClockSet {
                server,
                milliseconds,
            } => {
                told.set_item("kind", "clock set")?;
                told.set_item("server", server)?;
                told.set_item("milliseconds", milliseconds)?;
            }
            Notice::Unsent { messages, reason } => {
                told.set_item("kind", "unsent")?;
                told.set_item("messages", messages)?;
                told.set_item("reason", reason)?;
            }
            Notice::Late => told.set_item("kind", "late")?,
            Notice::Oversized {
                place,
                bytes,
                limit,
            } => {
                told.set_item("kind", "oversized")?;
                told.set_item("place", place)?;
                told.set_item("bytes", bytes)?;
                told.set_item("limit", limit)?;
            }
            Notice::QueueExpired { channel } => {
                told.set_item("kind", "queue expired")?;
                told.set_item("channel", channel)?;
            }
            Notice::Refused {
                place,
                sender,
                reason,
                counter,
            } => {
                told.set_item("kind", "refused")?;
                told.set_item("place", place)?;
                told.set_item("sender", sender)?;
                told.set_item("reason", reason)?;
                told.set_item("counter", counter)?;
            }
            Notice::Gap {
                groups,
                direct,
                missed,
            } => {
                told.set_item("kind", "gap")?;
                told.set_item("direct", direct)?;
                told.set_item("groups", groups)?;
                told.set_item("missed", missed)?;
            }
        }
        Ok(Some(told))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.local)
    }
}
