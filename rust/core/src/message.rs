//! A message on its way: the caller's value with what a mailbox needs to keep order and time.

use std::sync::Arc;

use crate::clock::Moment;

/// How much a message counts in a mailbox that is bounded in bytes.
///
/// It is asked under the engine's lock when a message is queued and when it leaves, so it must be known by then, never
/// change, and run no foreign code.
pub trait ByteSize {
    /// The bytes of the message. A message that many mailboxes share counts in full in each.
    fn byte_size(&self) -> usize;

    /// Whether it tells its receiver to end. Such a message is not refused for want of room and gives way to none, and sent to
    /// a group it lives as long as a membership, because what it ends may be stuck. A full mailbox holds one of them beyond
    /// its bounds. Most often it is asked when a mailbox is full.
    fn is_final(&self) -> bool {
        false
    }
}

impl ByteSize for Arc<str> {
    fn byte_size(&self) -> usize {
        self.len()
    }
}

impl ByteSize for Vec<u8> {
    fn byte_size(&self) -> usize {
        self.len()
    }
}

impl ByteSize for u32 {
    fn byte_size(&self) -> usize {
        size_of::<Self>()
    }
}

/// One message for one channel.
///
/// A fan-out makes an envelope per member from one message, so `M` should be cheap to clone (an `Arc`).
#[derive(Clone, Debug)]
pub struct Envelope<M> {
    /// What the sender gave.
    pub message: M,
    /// Its place among all messages of the engine: a message that comes back takes its old place by it.
    pub(crate) sequence: u64,
    /// From this moment on the message is no longer delivered from a mailbox.
    pub(crate) deadline: Moment,
}

impl<M> Envelope<M> {
    /// A value for somebody who waits for it outside of any mailbox.
    pub fn alone(message: M) -> Self {
        Self {
            message,
            sequence: 0,
            deadline: Moment::default(),
        }
    }
}
