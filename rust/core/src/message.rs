//! A message on its way: the caller's value with what a mailbox needs to keep order and time.

use crate::clock::Moment;

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
