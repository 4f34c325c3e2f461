//! What the layer gives of the histories of groups.

use headrace_core::history;
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::MemoryLayer;
use crate::arguments::{Channel, Group, Since};
use crate::errors::{no_history, to_python};
use crate::receiver::deliver;

impl MemoryLayer {
    pub(super) fn resume(
        &self,
        py: Python<'_>,
        group: Group<'_, '_>,
        channel: Channel<'_, '_>,
        since: Since<'_, '_>,
    ) -> PyResult<bool> {
        let group = group.name()?;
        let since = since.read(group)?;
        let resumed = self.engine.group_add_since(group, channel.name()?, since);
        let resumed = resumed.map_err(to_python)?;
        let resumed = resumed.ok_or_else(|| no_history(group))?;
        deliver(py, &self.engine, resumed.hand_offs)?;
        Ok(resumed.complete)
    }

    pub(super) fn newest_position(&self, group: Group<'_, '_>) -> PyResult<Option<String>> {
        let stamp = self.engine.group_position(group.name()?);
        let stamp = stamp.map_err(to_python)?;
        Ok(stamp.map(|stamp| stamp.token().as_str().to_owned()))
    }

    pub(super) fn recent<'py>(
        &self,
        py: Python<'py>,
        group: Group<'_, '_>,
        since: Option<Since<'_, '_>>,
        limit: usize,
    ) -> PyResult<(Bound<'py, PyList>, String, bool)> {
        let group = group.name()?;
        let since = since.map(|since| since.read(group)).transpose()?;
        let since = since.unwrap_or(history::Since::Newest(limit));
        let recent = self.engine.group_history(group, since, limit);
        let recent = recent.map_err(to_python)?;
        let recent = recent.ok_or_else(|| no_history(group))?;
        let messages = PyList::empty(py);
        for message in recent.messages {
            messages.append(message.into_python(py)?)?;
        }
        let position = recent.position.token().as_str().to_owned();
        Ok((messages, position, recent.complete))
    }
}
