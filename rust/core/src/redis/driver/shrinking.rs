//! The memory that the tables of the driver needed at a peak is given back: once a second, because no event is to pay for it.

use super::Driver;
use crate::redis::host::Host;
use crate::shrink::{is_sparse, Shrink};

impl<H: Host> Driver<H> {
    /// Makes the tables smaller that are nearly empty.
    pub(super) fn shrink_tables(&mut self) {
        self.topics.shrink_if_sparse();
        self.waits.shrink_if_sparse();
        self.queues.shrink_if_sparse();
        self.told.shrink_if_sparse();
        self.delayed.shrink_if_sparse();
        self.crowd.shrink_if_sparse();
        self.unrouted.shrink_if_sparse();
        for node in self.nodes.values_mut() {
            node.outbox.shrink_if_sparse();
            node.changes.shrink_if_sparse();
            node.refused.shrink_if_sparse();
        }
        // Requests know tallies by their places, so no tally is moved: what goes are the places behind the last one.
        if is_sparse(self.tallies.len(), self.tallies.capacity()) {
            self.tallies.shrink_to_fit();
        }
        self.shared.shrink_if_sparse();
    }
}
