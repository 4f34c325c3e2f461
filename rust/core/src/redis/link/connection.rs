//! Connections to servers over the streams of `dial`, by redis-rs.
//!
//! redis-rs logs in, speaks RESP 2 and 3, and pipelines. Its own resubscription and cluster support
//! are not used, because they send the channels of many slots in one command, and do not act when a server ends a
//! subscription. Two more things to know of it, as of 1.6: it takes any push about a subscription for the
//! answer to the oldest command of the connection, so a subscriber connection sends one channel in each command and takes an
//! answer for no more than a hint; and with RESP 2 it knows nothing of sharded channels.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, ErrorKind, ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo,
    RedisError, Value,
};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::command::Command;
use super::dial::{Stream, dial};
use super::login;
use super::refusal::{Refusal, Reply};
use super::resp2;
use super::transport::{BoxFuture, Change, Link, Push, PushSink, Transport};
use crate::redis::fault::{Fault, FaultKind};
use crate::redis::settings::{Credentials, Endpoint, Protocol};

/// Connections by redis-rs.
#[derive(Debug)]
pub(crate) struct RedisTransport;

impl Transport for RedisTransport {
    fn open(
        &self,
        endpoint: &Endpoint,
        timeout: Duration,
        pushes: Option<PushSink>,
    ) -> BoxFuture<Result<Arc<dyn Link>, Fault>> {
        let endpoint = endpoint.clone();
        Box::pin(async move {
            let opening = open(&endpoint, pushes);
            match tokio::time::timeout(timeout, opening).await {
                Ok(opened) => opened,
                Err(_) => Err(Fault::new(
                    FaultKind::Unreachable,
                    format!("{endpoint} did not answer in {} s", timeout.as_secs_f64()),
                )),
            }
        })
    }
}

async fn open(endpoint: &Endpoint, pushes: Option<PushSink>) -> Result<Arc<dyn Link>, Fault> {
    let endpoint = &with_certificates(endpoint).await?;
    let credentials = credentials(endpoint).await?;
    let log_in = async |protocol| {
        let stream = stream(endpoint).await?;
        Ok(log_in(stream, endpoint, &credentials, pushes.clone(), protocol).await)
    };
    let newest = match endpoint.protocol {
        Protocol::Resp2 => ProtocolVersion::RESP2,
        Protocol::Newest | Protocol::Resp3 => ProtocolVersion::RESP3,
    };
    let mut link = log_in(newest).await?;
    let lacks_newest = link.as_ref().is_err_and(lacks_resp3);
    if endpoint.protocol == Protocol::Newest && lacks_newest {
        link = log_in(ProtocolVersion::RESP2).await?;
    }
    match link {
        Ok(link) => Ok(link),
        Err(error) => Err(login::failed(endpoint, &error).await),
    }
}

async fn stream(endpoint: &Endpoint) -> Result<Stream, Fault> {
    let fault = |why| Fault::new(FaultKind::Unreachable, format!("{endpoint}: {why}"));
    dial(endpoint).await.map_err(fault)
}

type NameAndPassword = (Option<String>, Option<String>);

/// The same, with the certificates that there are now.
async fn with_certificates(endpoint: &Endpoint) -> Result<Endpoint, Fault> {
    let mut endpoint = endpoint.clone();
    let Some(tls) = &mut endpoint.tls else {
        return Ok(endpoint);
    };
    let Some(source) = tls.source.clone() else {
        return Ok(endpoint);
    };
    match fetched(move || source.fetch()).await {
        Ok(certificates) => {
            tls.certificates = certificates;
            Ok(endpoint)
        }
        Err(why) => {
            let text = format!("the certificates for {endpoint} could not be had: {why}");
            Err(Fault::new(FaultKind::Unreachable, text))
        }
    }
}

/// What a source gives. It may be foreign code, and take its time.
async fn fetched<T: Send + 'static>(
    fetch: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let fetched = tokio::task::spawn_blocking(fetch).await;
    fetched.unwrap_or_else(|_| Err("it panicked".to_owned()))
}

async fn credentials(endpoint: &Endpoint) -> Result<NameAndPassword, Fault> {
    let Some(source) = &endpoint.credentials else {
        return Ok((endpoint.username.clone(), endpoint.password.clone()));
    };
    let source: Arc<dyn Credentials> = Arc::clone(source);
    match fetched(move || source.fetch()).await {
        Ok((username, password)) => Ok((
            username.or_else(|| endpoint.username.clone()),
            Some(password),
        )),
        Err(why) => {
            let text = format!("the password for {endpoint} could not be had: {why}");
            Err(Fault::new(FaultKind::Unreachable, text))
        }
    }
}

fn lacks_resp3(error: &RedisError) -> bool {
    error.kind() == ErrorKind::RESP3NotSupported
        || error.code() == Some("NOPROTO")
        || error.to_string().contains("unknown command")
}

async fn log_in(
    stream: Stream,
    endpoint: &Endpoint,
    (username, password): &NameAndPassword,
    pushes: Option<PushSink>,
    protocol: ProtocolVersion,
) -> Result<Arc<dyn Link>, RedisError> {
    let mut settings = RedisConnectionInfo::default()
        .set_protocol(protocol)
        .set_skip_set_lib_name()
        .set_db(endpoint.database);
    if let Some(username) = username {
        settings = settings.set_username(username);
    }
    if let Some(password) = password {
        settings = settings.set_password(password);
    }
    if protocol == ProtocolVersion::RESP2
        && let Some(pushes) = pushes
    {
        return resp2::open_subscriber(stream, &settings, pushes).await;
    }
    // No timeout here: each request has a deadline of its own.
    let mut config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None)
        .set_pipeline_buffer_size(1024);
    let resp3 = protocol == ProtocolVersion::RESP3;
    let (open, ended) = watch::channel(());
    if resp3 {
        config = config.set_push_sender(move |info: PushInfo| {
            if info.kind == PushKind::Disconnection {
                open.send_replace(());
            }
            if let (Some(pushes), Some(push)) = (&pushes, push(info)) {
                pushes(push);
            }
            Ok::<(), ()>(())
        });
    }
    let (connection, work) =
        MultiplexedConnection::new_with_config(&settings, stream, config).await?;
    let work = Work(tokio::spawn(work).abort_handle());
    Ok(Arc::new(Multiplexed {
        connection,
        work: Arc::new(work),
        ended: resp3.then_some(ended),
        settles: AtomicU64::new(0),
    }))
}

fn push(info: PushInfo) -> Option<Push> {
    let mut words = info.data.into_iter().map(|word| match word {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        _ => None,
    });
    let topic = words.next().flatten();
    match info.kind {
        PushKind::Message | PushKind::SMessage => Some(Push::Message {
            topic: topic?,
            payload: words.next().flatten()?,
        }),
        PushKind::Subscribe | PushKind::SSubscribe => Some(Push::Subscribed { topic: topic? }),
        PushKind::Unsubscribe | PushKind::SUnsubscribe => {
            Some(Push::Unsubscribed { topic: topic? })
        }
        PushKind::Disconnection => Some(Push::Lost),
        _ => None,
    }
}

/// The task that reads and writes for a connection; dropping this ends it.
struct Work(AbortHandle);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Multiplexed {
    connection: MultiplexedConnection,
    /// Shared with what waits for an answer.
    work: Arc<Work>,
    /// Changes when the connection is lost, and loses its sender when the connection is dropped. redis-rs reports only with
    /// RESP 3.
    ended: Option<watch::Receiver<()>>,
    /// How often it was asked to settle.
    settles: AtomicU64,
}

impl Multiplexed {
    /// Sends commands; gives their answers in order.
    fn send(
        &self,
        pipeline: redis::Pipeline,
    ) -> impl Future<Output = Result<Vec<Reply>, RedisError>> + Send + use<> {
        let (mut connection, work) = (self.connection.clone(), Arc::clone(&self.work));
        async move {
            let count = pipeline.len();
            let replies = connection.send_packed_commands(&pipeline, 0, count).await;
            drop(work);
            replies
        }
    }
}

impl Link for Multiplexed {
    fn request(&self, commands: &[&Command]) -> BoxFuture<Result<Vec<Reply>, Fault>> {
        let mut pipeline = redis::Pipeline::with_capacity(commands.len());
        for command in commands {
            pipeline.add_command(command.to_redis());
        }
        let answer = self.send(pipeline);
        Box::pin(async move {
            answer.await.map_err(|error| {
                let text = format!("the connection was lost before the server answered ({error})");
                Fault::new(FaultKind::Lost, text)
            })
        })
    }

    fn change(&self, changes: &[Change], sharded: bool) -> BoxFuture<Vec<(usize, Refusal)>> {
        let mut pipeline = redis::Pipeline::with_capacity(changes.len());
        for change in changes {
            pipeline.cmd(change.command(sharded)).arg(&change.topic);
        }
        let answer = self.send(pipeline);
        Box::pin(async move {
            let replies = answer.await.unwrap_or_default().into_iter().enumerate();
            let refused = |(place, reply): (usize, Reply)| Some((place, Refusal::of(&reply)?));
            replies.filter_map(refused).collect()
        })
    }

    fn ping(&self) -> BoxFuture<bool> {
        let (mut connection, work) = (self.connection.clone(), Arc::clone(&self.work));
        Box::pin(async move {
            let ping = redis::cmd("PING");
            let answered = connection.send_packed_command(&ping).await.is_ok();
            drop(work);
            answered
        })
    }

    /// redis-rs takes a push about a subscription for an answer, so that any other answer could be that of another question.
    fn settle(&self) -> BoxFuture<bool> {
        let (mut connection, work) = (self.connection.clone(), Arc::clone(&self.work));
        let mark = format!("settle {}", self.settles.fetch_add(1, Ordering::Relaxed));
        Box::pin(async move {
            let mut ping = redis::cmd("PING");
            ping.arg(&mark);
            let answer = connection.send_packed_command(&ping).await;
            drop(work);
            matches!(answer, Ok(Value::BulkString(said)) if said == mark.as_bytes())
        })
    }

    fn can_shard(&self) -> bool {
        self.ended.is_some()
    }

    fn ended(&self) -> Option<BoxFuture<()>> {
        let mut ended = self.ended.clone()?;
        Some(Box::pin(async move {
            // An error means that the connection was dropped.
            let _ = ended.changed().await;
        }))
    }
}
