//! How much of which group is kept.

use std::time::Duration;

use crate::redis::driver::context::Context;
use crate::redis::host::Host;
use crate::redis::link::Command;

/// How much of a group is kept, and for how long after the last message.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    pub(super) size: usize,
    pub(super) ttl: Duration,
}

impl Limits {
    /// Sets the end of a stream, which is set again whenever half of the time is over.
    pub(super) fn expire(self, key: &str) -> Command {
        let milliseconds = u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX);
        Command::expire(key, milliseconds.saturating_add(milliseconds / 2))
    }
}

pub(super) fn limits<H: Host>(cx: &Context<H>, group: &str) -> Option<Limits> {
    let (size, ttl) = cx.settings.history.limits_of(group)?;
    Some(Limits { size, ttl })
}

/// Whether a group keeps its history.
pub(in crate::redis::driver) fn keeps<H: Host>(cx: &Context<H>, group: &str) -> bool {
    limits(cx, group).is_some()
}
