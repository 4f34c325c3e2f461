//! What the layer gives of who is present in groups.

use pyo3::prelude::*;

use super::MemoryLayer;
use crate::arguments::{Channel, Group};
use crate::errors::{no_presence, to_python};
use crate::message::listing::{Present, present};
use crate::presence::{Key, Meta};

impl MemoryLayer {
    pub(super) fn enter(
        &self,
        group: Group<'_, '_>,
        channel: Channel<'_, '_>,
        key: Key<'_, '_>,
        meta: Meta<'_, '_>,
    ) -> PyResult<()> {
        let (group, channel) = (group.name()?, self.own_name(&channel)?);
        let (key, meta) = (key.text()?, meta.pack()?);
        self.timer.start(&self.engine)?;
        let added = self.engine.presence_add(group, channel, key, &meta);
        if added.map_err(to_python)? {
            Ok(())
        } else {
            Err(no_presence(group))
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

    pub(super) fn present<'py>(
        &self,
        py: Python<'py>,
        group: Group<'_, '_>,
    ) -> PyResult<Present<'py>> {
        let group = group.name()?;
        let listing = self.engine.presence_list(group).map_err(to_python)?;
        let listing = listing.ok_or_else(|| no_presence(group))?;
        present(py, &listing)
    }

    pub(super) fn count_present(&self, group: Group<'_, '_>) -> PyResult<(usize, usize)> {
        let group = group.name()?;
        let counts = self.engine.presence_counts(group).map_err(to_python)?;
        let counts = counts.ok_or_else(|| no_presence(group))?;
        Ok((counts.keys, counts.channels))
    }

    /// Refuses a group that has no presence.
    fn check_presence(&self, group: &str) -> PyResult<()> {
        let counts = self.engine.presence_counts(group).map_err(to_python)?;
        counts.map(drop).ok_or_else(|| no_presence(group))
    }
}
