//! When this process counts.

use tokio::time::Instant;

/// How many beats there are in the time after which a process that does not beat is known to be dead: three that are missed, and
/// two for the chance of the moment.
pub(super) const BEATS: u32 = 5;

#[derive(Debug, Default)]
pub(super) struct Counting {
    /// How often this process has counted.
    pub(super) count: u64,
    /// When it counts next; none if it has not begun.
    pub(super) next: Option<Instant>,
    pub(super) is_asked: bool,
    pub(super) is_over: bool,
}

impl Counting {
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.next.filter(|_| !self.is_asked && !self.is_over)
    }
}
