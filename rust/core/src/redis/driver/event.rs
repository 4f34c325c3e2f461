//! The events that the driver's tasks send to it.

use tokio::time::Instant;

use super::history_then::Mark;
use super::node_key::{LinkId, NodeKey};
use super::request::Request;
use crate::redis::fault::Fault;
use crate::redis::link::probe::{MapReply, Opened};
use crate::redis::link::sentinel::Address;
use crate::redis::link::server_clock::Reading;
use crate::redis::link::{Change, Push, Refusal, Reply};

pub(super) enum Event {
    /// Something about a connection.
    Link(LinkId, LinkEvent),
    /// A look at the map has an answer.
    Mapped(Result<MapReply, Fault>),
    /// A Sentinel has news of the master of a server.
    Switched(NodeKey),
}

pub(super) enum LinkEvent {
    Opened(Result<Opened, Fault>),
    Pushed(Push),
    Replied {
        requests: Vec<Request>,
        bytes: usize,
        replies: Result<Vec<Reply>, Fault>,
    },
    /// A batch of changes was answered; these of them were refused.
    Changed {
        batch: Vec<Change>,
        refusals: Vec<(usize, Refusal)>,
    },
    /// The server has answered with its time, or refused to.
    Timed(Option<Reading>),
    /// All that had been pushed before these readings were answered has come on it; or it is not certain that it has.
    Settled(Vec<Mark>, bool),
    /// A connection for subscriptions has answered what it was asked at that moment.
    Answered(Instant),
    /// A connection has not answered what it was asked at that moment.
    Unanswered(Instant),
    /// A connection for requests has ended. One for subscriptions reports that as a push.
    Ended,
    /// The Sentinels name another master.
    Succeeded(Address),
}
