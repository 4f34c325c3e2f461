//! How the layer receives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use headrace_core::Received;
use headrace_core::name::NameKind;
use pyo3::exceptions::{PyRuntimeError, PyTimeoutError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::MemoryLayer;
use crate::arguments::Channel;
use crate::errors::{foreign_channel, not_own, to_python};
use crate::event_loop::{address, drained_loop, is_running, running_loop};
use crate::receiver::{Engine, Receiver, SleepingThread, Waiter, give_back, hand_out};

/// The `!` in the name of a channel of one process, and what `new_channel` puts behind it.
const TOKEN_BYTES: usize = 1 + 24;

impl MemoryLayer {
    /// A message, and up to so many with it that are there.
    pub(crate) fn with_ready<'py>(
        &self,
        py: Python<'py>,
        first: Py<PyAny>,
        channel: Channel<'_, '_>,
        most: usize,
    ) -> PyResult<Bound<'py, PyList>> {
        let messages = self.receive_ready(py, channel, most.saturating_sub(1))?;
        messages.insert(0, first)?;
        Ok(messages)
    }

    /// As `receive_sync`; `on_queued` is called when this thread is among the waiters.
    pub(crate) fn receive_sync_then(
        &self,
        py: Python<'_>,
        channel: Channel<'_, '_>,
        timeout: Option<f64>,
        on_queued: impl FnOnce(),
    ) -> PyResult<Py<PyAny>> {
        let name = self.receivable(&channel)?;
        let end = match timeout {
            Some(timeout) if timeout.is_nan() => {
                return Err(PyValueError::new_err("timeout is not a number"));
            }
            // A time that the clock cannot hold is no limit.
            Some(timeout) => {
                let span = Duration::try_from_secs_f64(timeout.max(0.0)).unwrap_or(Duration::MAX);
                Instant::now().checked_add(span)
            }
            None => None,
        };
        if let Some(envelope) = self.engine.take(name).map_err(to_python)? {
            return hand_out(py, &self.engine, envelope);
        }
        if is_running(py) {
            return Err(PyRuntimeError::new_err(
                "receive_sync() would block the event loop that runs in this thread; await receive() there",
            ));
        }
        let thread = Arc::new(SleepingThread::new(name));
        let waiting = Receiver::Thread(Arc::clone(&thread));
        let received = self.engine.wait(name, waiting, None);
        if let Received::Ready(envelope) = received.map_err(to_python)? {
            return hand_out(py, &self.engine, envelope);
        }
        on_queued();
        match thread.sleep(py, &self.engine, end)? {
            Some(envelope) => hand_out(py, &self.engine, envelope),
            None => Err(PyTimeoutError::new_err(format!(
                "no message on '{name}' in {} seconds",
                timeout.unwrap_or_default()
            ))),
        }
    }

    /// A channel that can be received from here.
    pub(super) fn receivable<'a>(&self, channel: &'a Channel<'_, '_>) -> PyResult<&'a str> {
        let name = channel.name()?;
        self.check_owner(name)?;
        Ok(name)
    }

    pub(super) fn check_owner(&self, name: &str) -> PyResult<()> {
        let Some(owner) = self.owner.get() else {
            return Ok(());
        };
        // Most names were made by this layer, and are recognised without a search.
        if is_made_of(name, owner) {
            return Ok(());
        }
        let Some((maker, _token)) = name.split_once('!') else {
            return Ok(());
        };
        if maker.ends_with(owner) {
            return Ok(());
        }
        let valid = NameKind::Channel.check(name);
        valid.map_err(|invalid| to_python(invalid.into()))?;
        Err(foreign_channel(name, owner))
    }

    /// The name of a channel that `new_channel` of this layer has made.
    pub(super) fn own_name<'a>(&self, channel: &'a Channel<'_, '_>) -> PyResult<&'a str> {
        let name = channel.valid_name()?;
        let owner = self.owner.get().map_or("", String::as_str);
        if is_made_of(name, owner) {
            return Ok(name);
        }
        Err(not_own(name, owner))
    }

    /// The oldest message of a channel, or a waiter for the next one.
    pub(super) fn take_or_wait(
        slf: &Bound<'_, Self>,
        channel: Channel<'_, '_>,
    ) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let engine = &slf.get().engine;
        let (string, name) = channel.text()?;
        slf.get().check_owner(name)?;
        if let Some(found) = Self::take_or_wait_again(py, engine, name, drained_loop())? {
            return Ok(found);
        }
        let event_loop = running_loop(py)?;
        if let Some(found) = Self::take_or_wait_again(py, engine, name, Some(address(&event_loop)))?
        {
            return Ok(found);
        }
        let waiter = Py::new(py, Waiter::new(Self::mailboxes(slf), string, &event_loop)?)?;
        let receiver = Receiver::Task(waiter.clone_ref(py));
        let spare = Receiver::Task(waiter.clone_ref(py));
        match engine
            .wait(name, receiver, Some(spare))
            .map_err(to_python)?
        {
            Received::Ready(envelope) => hand_out(py, engine, envelope),
            Received::Waiting | Received::Empty => Ok(waiter.into_any()),
        }
    }

    /// Up to so many messages that are there.
    pub(super) fn take_ready<'py>(
        &self,
        py: Python<'py>,
        channel: Channel<'_, '_>,
        most: usize,
    ) -> PyResult<Bound<'py, PyList>> {
        let name = self.receivable(&channel)?;
        let messages = PyList::empty(py);
        while messages.len() < most {
            // What was taken is not to be lost to an error: the next receive will meet it again.
            let Ok(Some(envelope)) = self.engine.take(name) else {
                break;
            };
            let Ok(message) = envelope.message.clone().into_python(py) else {
                give_back(py, &self.engine, name, envelope);
                break;
            };
            messages.append(message)?;
        }
        Ok(messages)
    }

    /// The oldest message of a channel; or the waiter of an earlier wait, which waits again, if there is one of this loop.
    pub(super) fn take_or_wait_again(
        py: Python<'_>,
        engine: &Engine,
        channel: &str,
        event_loop: Option<usize>,
    ) -> PyResult<Option<Py<PyAny>>> {
        let mut reused = None;
        let received = engine.receive(channel, |spare| match (spare, event_loop) {
            (Receiver::Task(waiter), Some(event_loop)) if waiter.get().again(event_loop) => {
                reused = Some(waiter.clone_ref(py).into_any());
                Some(Receiver::Task(waiter.clone_ref(py)))
            }
            _ => None,
        });
        match received.map_err(to_python)? {
            Received::Ready(envelope) => hand_out(py, engine, envelope).map(Some),
            Received::Waiting | Received::Empty => Ok(reused),
        }
    }
}

/// Whether a name ends as those of `new_channel` do: with the owner, `!` and a token.
fn is_made_of(name: &str, owner: &str) -> bool {
    let at_token = name.len().checked_sub(TOKEN_BYTES);
    let parts = at_token.and_then(|at| name.split_at_checked(at));
    parts.is_some_and(|(maker, token)| token.starts_with('!') && maker.ends_with(owner))
}
