//! Connections for subscriptions, with RESP 2.

use std::sync::Arc;

use futures_util::StreamExt;
use redis::aio::{PubSub, PubSubSink};
use redis::{RedisConnectionInfo, RedisError, Value};

use super::command::Command;
use super::dial::Stream;
use super::login;
use super::refusal::{Refusal, Reply};
use super::transport::{BoxFuture, Change, Link, Push, PushSink};
use crate::redis::fault::{Fault, FaultKind};

/// With RESP 2 a connection with subscriptions can do nothing else, and redis-rs has another type for it.
struct Resp2Subscriber {
    sink: PubSubSink,
    pushes: PushSink,
    reader: tokio::task::JoinHandle<()>,
}

pub(super) async fn open_subscriber(
    stream: Stream,
    settings: &RedisConnectionInfo,
    pushes: PushSink,
) -> Result<Arc<dyn Link>, RedisError> {
    let (sink, mut stream) = PubSub::new(settings, stream).await?.split();
    let on_message = Arc::clone(&pushes);
    let reader = tokio::spawn(async move {
        while let Some(message) = stream.next().await {
            on_message(Push::Message {
                topic: message.get_channel_name().as_bytes().to_vec(),
                payload: message.get_payload_bytes().to_vec(),
            });
        }
        on_message(Push::Lost);
    });
    Ok(Arc::new(Resp2Subscriber {
        sink,
        pushes,
        reader,
    }))
}

impl Drop for Resp2Subscriber {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Link for Resp2Subscriber {
    fn request(&self, _commands: &[&Command]) -> BoxFuture<Result<Vec<Reply>, Fault>> {
        let text = "a connection of RESP 2 that subscribes takes no other commands";
        Box::pin(async move { Err(Fault::new(FaultKind::Refused, text)) })
    }

    fn change(&self, changes: &[Change], _sharded: bool) -> BoxFuture<Vec<(usize, Refusal)>> {
        let (sink, pushes) = (self.sink.clone(), Arc::clone(&self.pushes));
        let changes = changes.to_vec();
        Box::pin(async move {
            let answers = changes.into_iter().enumerate().map(|(place, change)| {
                let (mut sink, pushes) = (sink.clone(), Arc::clone(&pushes));
                async move {
                    if !change.joins {
                        let _ = sink.unsubscribe(change.topic).await;
                        return None;
                    }
                    if let Err(error) = sink.subscribe(&change.topic).await {
                        return Some((place, login::refusal(&error)));
                    }
                    let topic = change.topic.into_bytes();
                    pushes(Push::Subscribed { topic });
                    None
                }
            });
            let refusals = futures_util::future::join_all(answers).await;
            refusals.into_iter().flatten().collect()
        })
    }

    fn ping(&self) -> BoxFuture<bool> {
        let mut sink = self.sink.clone();
        Box::pin(async move { sink.ping::<Value>().await.is_ok() })
    }

    fn can_shard(&self) -> bool {
        false
    }

    fn ended(&self) -> Option<BoxFuture<()>> {
        None
    }
}
