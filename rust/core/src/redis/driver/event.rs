//! What the tasks beside the driver tell it.

use tokio::time::Instant;

use super::node_key::{NodeKey, Role};
use super::request::Request;
use crate::redis::fault::Fault;
use crate::redis::link::probe::{self, Address, Opened};
use crate::redis::link::server_clock::Reading;
use crate::redis::link::{Change, Push, Refusal, Reply};

/// What the tasks beside the driver tell it.
pub(super) enum Event {
    Opened {
        node: NodeKey,
        role: Role,
        generation: u64,
        opened: Result<Opened, Fault>,
    },
    Pushed {
        node: NodeKey,
        generation: u64,
        push: Push,
    },
    Replied {
        node: NodeKey,
        generation: u64,
        requests: Vec<Request>,
        bytes: usize,
        replies: Result<Vec<Reply>, Fault>,
    },
    /// A batch of changes was answered; these of them were refused.
    Changed {
        node: NodeKey,
        generation: u64,
        batch: Vec<Change>,
        refusals: Vec<(usize, Refusal)>,
    },
    /// A server has said what time it is, or would not.
    Timed {
        node: NodeKey,
        generation: u64,
        time: Option<Reading>,
    },
    /// A connection that subscribes has answered what it was asked at that moment.
    Heard {
        node: NodeKey,
        generation: u64,
        asked: Instant,
    },
    /// A connection has not answered what it was asked at that moment.
    Silent {
        node: NodeKey,
        role: Role,
        generation: u64,
        asked: Instant,
    },
    /// A connection that asks has ended. One that subscribes says so itself.
    Ended {
        node: NodeKey,
        generation: u64,
    },
    /// The Sentinels name another master.
    Succeeded {
        node: NodeKey,
        address: Address,
    },
    Mapped(Result<probe::Found, Fault>),
}
