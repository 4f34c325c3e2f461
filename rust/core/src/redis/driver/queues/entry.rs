//! Entries of queues, as far as they are read before they are opened.

use std::hash::{DefaultHasher, Hasher};

use crate::redis::wire::envelope::HEADER;

fn number(entry: &[u8], from: usize) -> Option<u64> {
    let bytes = entry.get(from..from + 8)?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// When an entry expires; nothing that is too short for a header has a deadline.
pub(super) fn deadline(entry: &[u8]) -> Option<u64> {
    number(entry, HEADER - 8)
}

/// Identifies an entry among all others of its queue. Its number is not enough: a sender may begin again at 1, and counts
/// groups separately.
pub(super) fn id(entry: &[u8]) -> Option<u64> {
    entry.get(..HEADER)?;
    let mut hasher = DefaultHasher::new();
    hasher.write(entry);
    Some(hasher.finish())
}
