//! What was read of a stream for those who go on, and what may still be read for them. Pure.

use super::listener::Last;
use crate::history::Since;
use crate::memory::Extent;

/// The entries that were read up to the last one: from which number on, and what was held then; if it was all of their messages.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Loaded(Option<(u64, Extent)>);

impl Loaded {
    /// The entries from this number on were read. Their messages from the oldest on are held here, if there was room.
    pub(super) fn note(&mut self, held: Option<Extent>, from: u64, oldest: Option<u64>) {
        let earlier = held.and_then(|held| self.from(held));
        let is_all = held.is_some_and(|held| Some(held.oldest) == oldest);
        if is_all || earlier.is_none() {
            let from = from.min(earlier.unwrap_or(from));
            self.0 = held.filter(|_| is_all).map(|held| (from, held));
        }
    }

    /// From which number on entries were read, if all of their messages are still held here.
    pub(super) fn from(self, held: Extent) -> Option<u64> {
        let (from, then) = self.0?;
        (held.epoch == then.epoch && held.oldest <= then.oldest).then_some(from)
    }

    /// From which entry on the server is to be asked for what somebody wants, if it may have what is not held here. It has so many
    /// entries, up to the last one.
    pub(super) fn lacks(
        self,
        held: Option<Extent>,
        size: usize,
        last: Last,
        since: Since,
    ) -> Option<u64> {
        let newest = last.id.number;
        let first = newest.saturating_sub(size as u64);
        let number = match since {
            Since::Position(position) => {
                let position = position.filter(|position| position.epoch == last.id.epoch)?;
                if position.number > newest {
                    // It is on its way here.
                    return Some(newest);
                }
                (position.number >= first).then_some(position.number)?
            }
            Since::Newest(count) => newest.saturating_sub(count as u64).max(first),
        };
        let Some(held) = held.filter(|held| held.epoch == last.id.epoch) else {
            return Some(number);
        };
        let is_read = self.from(held).is_some_and(|from| number >= from);
        let is_here = held.is_full || number >= held.oldest || is_read;
        (!is_here).then_some(number)
    }
}
