//! How a layer over Redis receives: what is in a queue is fetched from the server.

use std::time::Instant;

use pyo3::prelude::*;
use pyo3::types::PyList;

use super::RedisLayer;
use super::patience::{left, patience};
use crate::arguments::Channel;
use crate::errors::fault_to_python;
use crate::event_loop::is_running;
use crate::reply::{Forgiven, Reply};

impl RedisLayer {
    /// The oldest message of a channel, or a waiter for the next one; before the first of a queue, the reply to wait for.
    pub(super) fn look_and_take(
        &self,
        py: Python<'_>,
        channel: Channel<'_, '_>,
    ) -> PyResult<Py<PyAny>> {
        if self.engine.has_to_look(channel.name()?)
            && let Some(reply) = self.look(py, channel, 1)?
        {
            return Ok(Py::new(py, reply)?.into_any());
        }
        self.receive_next(py, channel)
    }

    /// Sleeps until there is a message, or until the time is over.
    pub(super) fn sleep_for_one(
        &self,
        py: Python<'_>,
        channel: Channel<'_, '_>,
        timeout: Option<f64>,
    ) -> PyResult<Py<PyAny>> {
        self.first_use.note(py)?;
        let name = channel.name()?;
        let begun = Instant::now();
        if let Some(fetched) = self.look_at_once(name)? {
            // A message that is there is returned without a timeout. A server that is unreachable is waited for, as by
            // any receiver.
            fetched.sleep(py, patience(begun, timeout)?)?;
        }
        let mailboxes = self.local.get();
        mailboxes.receive_sync_then(py, channel, left(begun, timeout), || self.attend(name))
    }

    /// The same, with more that have come here by then.
    pub(super) fn sleep_for_many<'py>(
        &self,
        py: Python<'py>,
        channel: Channel<'_, '_>,
        most: usize,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyList>> {
        let begun = Instant::now();
        let mailboxes = self.local.get();
        if let Some(fetched) = self.look(py, channel, most)?
            && !is_running(py)
            && let Some(answer) = fetched.sleep(py, patience(begun, timeout)?)?
            && let Some(fault) = answer.fault
        {
            return Err(fault_to_python(py, &fault));
        }
        let ready = mailboxes.receive_ready(py, channel, most)?;
        if !ready.is_empty() {
            return Ok(ready);
        }
        let first = self.sleep_for_one(py, channel, left(begun, timeout))?;
        mailboxes.with_ready(py, first, channel, most)
    }

    /// Has the server get what was sent, at the end. None: there is nothing to wait for.
    pub(super) fn end_soon(&self) -> Option<Reply> {
        // What has expired by now was not dropped by the end.
        self.engine.local().stats();
        if !self.engine.is_started() || self.is_closed() {
            return None;
        }
        let reply = self.asked(|ticket| self.engine.drain(true, ticket));
        Some(reply.with_forgiven(Forgiven::All))
    }
}
