//! What follows from the answers to requests about histories.

use tokio::time::Instant;

use super::calls::CallId;
use crate::history::Since;
use crate::redis::wire::crypt::sealing::Digest;
use crate::redis::wire::history::Identity;

#[derive(Debug)]
pub(super) enum HistoryThen {
    /// A message was kept and published.
    Written {
        group: String,
        epoch: u64,
        call: CallId,
        at: Instant,
        until: Instant,
        identity: Option<Identity>,
        digest: Option<Digest>,
    },
    /// The newest entry of a stream, for those that write to it.
    Newest { group: String },
    /// The entries behind the last one that a listener has, and the newest entry, for the reading of this number.
    Read { group: String, reading: u64 },
    /// The newest entry of a stream that had none, and has a head now.
    Begun { group: String, reading: u64 },
    /// The entries of a stream from this number on, up to the last one that was given.
    Loaded {
        group: String,
        reading: u64,
        from: u64,
    },
    /// What a caller wants to know.
    Looked {
        group: String,
        call: CallId,
        wanted: Wanted,
        /// The stream was not there, and was given a head.
        begun: bool,
    },
}

/// A reading that is waited for: of a group, by its number.
pub(super) type Mark = (String, u64);

/// What a caller wants to know of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted {
    /// Where it is now.
    Position,
    /// Its messages behind a position, or the newest ones, up to so many.
    Messages { since: Since, limit: usize },
}
