//! What the engine needs of its caller: a type of messages, and a way to wake waiters.

use std::fmt::Debug;
use std::ops::Range;

use bytes::Bytes;

use super::fault::Fault;
use crate::clock::Clock;
use crate::handoff::HandOff;
use crate::history::{Stamp, Stamped};
use crate::memory::MemoryEngine;
use crate::message::ByteSize;
use crate::presence::Listing;

/// The caller of the engine. The methods are called in the I/O thread, without any lock of the engine, and must not block.
pub trait Host: Debug + Send + Sync + 'static {
    /// A message in a local mailbox.
    type Message: Clone + ByteSize + Stamped + Send + Sync + 'static;
    /// A waiter of a local mailbox.
    type Waiter: Send + 'static;
    /// Identifies a request whose answer is waited for.
    type Ticket: Send + 'static;
    /// The clock of the local mailboxes.
    type Clock: Clock + 'static;

    /// Makes a message from what a server sent.
    fn message(&self, raw: RawMessage) -> Self::Message;
    /// The bytes of a message that was made by `message`, without its envelope.
    fn payload<'a>(&self, message: &'a Self::Message) -> Option<&'a [u8]>;
    /// Delivers the answers, then the messages, and wakes the tasks and threads that wait for them.
    fn deliver(
        &self,
        answers: Vec<(Self::Ticket, Answer)>,
        hand_offs: Vec<HandOff<Self::Message, Self::Waiter>>,
    );
}

/// The mailboxes of this process.
pub(crate) type Local<H> =
    MemoryEngine<<H as Host>::Message, <H as Host>::Waiter, <H as Host>::Clock>;

/// A message from a server: msgpack that was checked and can be decoded.
#[derive(Clone, Debug)]
pub struct RawMessage {
    /// The msgpack, in the buffer that it came in: nothing else is in that but what an envelope adds.
    pub payload: Bytes,
    /// Where in it the text of its `type` is, if it has one.
    pub kind: Option<Range<usize>>,
}

/// A message of a group's history, for a caller who asked for it: msgpack that was checked and can be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptMessage {
    /// Where it stands.
    pub stamp: Stamp,
    /// The msgpack.
    pub payload: Bytes,
}

/// The outcome of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Processes that the server passed the message on to.
    pub receivers: u64,
    /// Queues that took it.
    pub queued: u64,
    /// Queues that were full.
    pub full: u64,
    /// Where the message stands in the history of its group, or where that is now.
    pub position: Option<Stamp>,
    /// Whether all was found that is behind a position.
    pub complete: Option<bool>,
    /// What was asked for of a history.
    pub messages: Vec<KeptMessage>,
    /// How many members a group has in the processes that count them.
    pub members: Option<u64>,
    /// Who is present in a group.
    pub listing: Option<Listing>,
    /// Why not all was done, if it was not.
    pub fault: Option<Fault>,
}
