//! What is known of a group of which this process keeps a copy.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::counts::Counts;
use crate::presence::{OwnChange, Owner};
use crate::redis::driver::presence_then::Look;
use crate::redis::wire::keys::ProcessId;

/// How long after a failure it is tried again.
pub(super) const AGAIN: Duration = Duration::from_secs(1);
/// How long a copy is trusted. What was changed and not announced is known after that.
const TRUSTED: Duration = Duration::from_secs(300);
/// How long after a reading it is read again, because entries were missing that may be written anew.
const DOUBTED: Duration = Duration::from_secs(3);
/// How often it is looked whether a hash is still there.
pub(super) const RENEWAL: Duration = Duration::from_secs(60);

/// When a copy is read again that has all that was known, or not.
pub(super) fn trusted(now: Instant, is_whole: bool) -> Instant {
    now + if is_whole { TRUSTED } else { DOUBTED }
}

/// A group of which this process keeps a copy.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is true or false whatever the others are"
)]
pub(super) struct Group {
    /// The number of the reading that is waited for.
    pub(super) reading: Option<u64>,
    /// It has to be read again after that.
    pub(super) is_stale: bool,
    /// When it is read at the latest.
    pub(super) read_at: Instant,
    pub(super) is_loaded: bool,
    /// Entries of processes that live, which were not in the hash when it was last read.
    pub(super) absent: HashSet<Arc<str>>,
    /// Who waits for it to be read, and until when.
    pub(super) looks: Vec<(Look, Instant)>,
    /// What is to be written of the entries of this process.
    pub(super) changes: HashMap<Arc<str>, OwnChange>,
    /// What is being written; none if nothing is.
    pub(super) writing: Option<Vec<OwnChange>>,
    /// With it, how many members this process has.
    pub(super) has_count: bool,
    pub(super) counts: Counts,
    /// All of them are to be written.
    pub(super) is_whole: bool,
    /// An announcement may have been lost.
    pub(super) is_unannounced: bool,
    /// When it may be written next.
    pub(super) write_at: Instant,
    /// When it is looked whether the hash is still there.
    pub(super) renew_at: Instant,
    /// This process has no member there any more: it goes when all is written.
    pub(super) is_over: bool,
}

impl Group {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            reading: None,
            is_stale: false,
            read_at: now + TRUSTED,
            is_loaded: false,
            absent: HashSet::new(),
            looks: Vec::new(),
            changes: HashMap::new(),
            writing: None,
            has_count: false,
            counts: Counts::default(),
            is_whole: false,
            is_unannounced: false,
            write_at: now,
            renew_at: now + RENEWAL,
            is_over: false,
        }
    }
}

/// The numbers by which the tables know the other processes.
#[derive(Debug, Default)]
pub(super) struct Owners(HashMap<ProcessId, NonZeroU32>);

impl Owners {
    pub(super) fn of(&mut self, process: ProcessId) -> Owner {
        let next = u32::try_from(self.0.len()).unwrap_or(u32::MAX - 1);
        let number = self
            .0
            .entry(process)
            .or_insert(NonZeroU32::MIN.saturating_add(next));
        Owner::process(*number)
    }
}
