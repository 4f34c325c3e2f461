//! What the engine needs of whoever it works for: messages of its own kind, and somebody to wake its waiters.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use super::fault::Fault;
use crate::clock::Clock;
use crate::handoff::HandOff;
use crate::message::ByteSize;

/// The world around the engine. Its methods are called in the thread that does the input and output, never wait, and know
/// no lock of the engine to be held.
pub trait Host: Debug + Send + Sync + 'static {
    /// A message in a local mailbox.
    type Message: Clone + ByteSize + Send + Sync + 'static;
    /// A receiver in line at a local mailbox.
    type Waiter: Send + 'static;
    /// Who asked for something and waits for the answer.
    type Ticket: Send + 'static;
    /// The clock of the local mailboxes.
    type Clock: Clock + 'static;

    /// Makes a message of what came from a server.
    fn message(&self, frame: Frame) -> Self::Message;
    /// The bytes of a message that was made by `message`, without its envelope.
    fn payload<'a>(&self, message: &'a Self::Message) -> Option<&'a [u8]>;
    /// Gives the answers to those who asked and then the messages to those who wait, and wakes both.
    fn deliver(
        &self,
        answers: Vec<(Self::Ticket, Answer)>,
        hand_offs: Vec<HandOff<Self::Message, Self::Waiter>>,
    );
}

/// A message as it came: msgpack, looked over, so that it can be decoded.
#[derive(Clone, Debug)]
pub struct Frame {
    /// What it is part of.
    pub bytes: Arc<[u8]>,
    /// Where the message is.
    pub payload: Range<usize>,
    /// Where the text of its `type` is, if it has one.
    pub kind: Option<Range<usize>>,
}

/// What became of what was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Processes that the server passed the message on to.
    pub receivers: u64,
    /// Queues that took it.
    pub queued: u64,
    /// Queues that were full.
    pub full: u64,
    /// Why not all was done, if it was not.
    pub fault: Option<Fault>,
}
