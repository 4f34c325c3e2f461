//! A connection as the driver uses it, whether redis-rs makes it or a test.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::command::Command;
use super::refusal::{Refusal, Reply};
use crate::redis::fault::Fault;
use crate::redis::settings::Endpoint;

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a subscriber connection receives without a request.
#[derive(Debug)]
pub(crate) enum Push {
    /// A message on a pub/sub channel.
    Message { topic: Vec<u8>, payload: Vec<u8> },
    /// The messages of a pub/sub channel come from here on.
    Subscribed { topic: Vec<u8> },
    /// No more messages of it come, whether that was asked for or not.
    Unsubscribed { topic: Vec<u8> },
    /// The connection is lost.
    Lost,
}

/// Called with each push of a subscriber connection.
pub(crate) type PushSink = Arc<dyn Fn(Push) + Send + Sync>;

/// Opens connections. There is one for real, and one for tests.
pub(crate) trait Transport: Send + Sync + 'static {
    /// Connects, and authenticates.
    fn open(
        &self,
        endpoint: &Endpoint,
        timeout: Duration,
        pushes: Option<PushSink>,
    ) -> BoxFuture<Result<Arc<dyn Link>, Fault>>;
}

/// One open connection.
pub(crate) trait Link: Send + Sync {
    /// Sends commands, each a list of words, and gives their answers in order; an error of the server is an answer.
    fn request(&self, commands: &[&Command]) -> BoxFuture<Result<Vec<Reply>, Fault>>;
    /// Subscribes to channels and unsubscribes from others, in this order. When all are answered it gives what was refused,
    /// by index; nothing if the connection was lost, which is reported as a push.
    fn change(&self, changes: &[Change], sharded: bool) -> BoxFuture<Vec<(usize, Refusal)>>;
    /// Whether the server answers.
    fn ping(&self) -> BoxFuture<bool>;
    /// Waits until all that the server had pushed when this was asked has come; false if that cannot be said.
    fn settle(&self) -> BoxFuture<bool> {
        self.ping()
    }
    /// Whether it can carry sharded channels.
    fn can_shard(&self) -> bool;
    /// Waits until it is lost, or dropped; none if that shows only when it is used.
    fn ended(&self) -> Option<BoxFuture<()>>;
}

/// What is to be changed about the topics of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) topic: String,
    /// Subscribe, or unsubscribe.
    pub(crate) joins: bool,
}

impl Change {
    pub(crate) fn join(topic: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            joins: true,
        }
    }

    pub(crate) fn leave(topic: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            joins: false,
        }
    }

    pub(super) fn command(&self, sharded: bool) -> &'static str {
        match (self.joins, sharded) {
            (true, false) => "SUBSCRIBE",
            (true, true) => "SSUBSCRIBE",
            (false, false) => "UNSUBSCRIBE",
            (false, true) => "SUNSUBSCRIBE",
        }
    }
}
