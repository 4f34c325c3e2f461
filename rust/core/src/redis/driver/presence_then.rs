//! What follows from the answers to requests about who is present.

use super::calls::CallId;
use crate::redis::wire::keys::ProcessId;

/// Who waits for a reading.
#[derive(Clone, Copy, Debug)]
pub(super) enum Look {
    /// Who is present.
    List(CallId),
    /// How many members there are.
    Count(CallId),
}

impl Look {
    pub(super) fn call(self) -> CallId {
        match self {
            Self::List(call) | Self::Count(call) => call,
        }
    }
}

#[derive(Debug)]
pub(super) enum PresenceThen {
    /// Changes of this process were written and announced.
    Written { group: String },
    /// The hash, for the reading of this number.
    Read { group: String, reading: u64 },
    /// The hash, for a caller in a process that does not keep it.
    Looked { group: String, look: Look },
    /// Whether the hash was still there.
    Renewed { group: String },
    /// This process has counted, and what all count.
    Counted,
    /// The entries of a process that died were removed from the hash.
    Removed { process: ProcessId },
}
