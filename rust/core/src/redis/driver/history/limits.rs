//! How much of which group is kept.

use std::time::Duration;

use crate::history::Position;
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
    /// Whether a stream that ends with the newest entry still keeps this one. A server may have it longer, because it removes
    /// entries by the block.
    pub(super) fn keep(self, entry: Position, newest: Position) -> bool {
        let behind = if entry.epoch == newest.epoch {
            newest.number.saturating_sub(entry.number)
        } else {
            newest.number.saturating_add(1)
        };
        behind < self.size as u64
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_kept_until_so_many_have_come_behind_it() {
        let limits = Limits {
            size: 3,
            ttl: Duration::ZERO,
        };
        let id = |epoch, number| Position {
            epoch,
            number,
            print: 0,
        };
        for (entry, newest, kept) in [
            (id(7, 9), id(7, 9), true),
            (id(7, 7), id(7, 9), true),
            (id(7, 6), id(7, 9), false),
            (id(7, 6), id(8, 1), true),
            (id(7, 6), id(8, 2), false),
        ] {
            assert_eq!(limits.keep(entry, newest), kept, "{entry:?} {newest:?}");
        }
    }
}
