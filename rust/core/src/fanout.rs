//! What one `group_send` did.

use crate::handoff::HandOff;

/// How many copies of a message went where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendReport {
    /// Mailboxes and waiting receivers that got the message.
    pub delivered: usize,
    /// Mailboxes that were full, and so did not get it.
    pub dropped_full: usize,
    /// Members that did not get it for any other reason. In one process there is none; an engine with a network has them.
    pub dropped_other: usize,
}

impl std::ops::AddAssign for SendReport {
    fn add_assign(&mut self, other: Self) {
        self.delivered += other.delivered;
        self.dropped_full += other.dropped_full;
        self.dropped_other += other.dropped_other;
    }
}

/// The outcome of one pass over a group: the report, and the waiters that now hold a message.
#[derive(Debug)]
#[must_use = "a waiter that is not woken never learns of its message"]
pub struct FanOut<M, W> {
    /// The counts.
    pub report: SendReport,
    /// Every waiter that was found, with its envelope, in no promised order.
    pub hand_offs: Vec<HandOff<M, W>>,
}

impl<M, W> FanOut<M, W> {
    pub(crate) fn empty() -> Self {
        Self {
            report: SendReport::default(),
            hand_offs: Vec::new(),
        }
    }
}
