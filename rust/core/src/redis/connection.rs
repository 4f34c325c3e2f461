//! Connections to servers over the streams of `dial`: with `login`, which reads its errors, all that is known of redis-rs.
//!
//! redis-rs logs in, speaks RESP 2 and 3, and pipelines. Its own ways to subscribe again and to follow a cluster
//! are not used, because they send the channels of many slots in one command, and do not act when a server takes a
//! subscription away. Two more things to know of it, as of 1.6: it takes any push about a subscription for the
//! answer to the oldest command of the connection, so a subscriber connection sends one channel in each command and takes an
//! answer for no more than a hint; and with RESP 2 it knows nothing of sharded channels.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::{MultiplexedConnection, PubSub, PubSubSink};
use redis::{
    AsyncConnectionConfig, ErrorKind, ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo,
    RedisError, Value,
};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::dial::{dial, Stream};
use super::envelope::{Date, Draft};
use super::fault::{Fault, FaultKind};
use super::login;
use super::membership;
use super::settings::{Credentials, Endpoint};

/// An answer of a server.
pub(crate) type Reply = Value;

pub(crate) type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a subscriber connection says by itself.
#[derive(Debug)]
pub(crate) enum Push {
    /// A message on a pub/sub channel.
    Message { topic: Vec<u8>, payload: Vec<u8> },
    /// From here on the messages of a pub/sub channel come.
    Subscribed { topic: Vec<u8> },
    /// No more messages of it come, whether that was asked for or not.
    Unsubscribed { topic: Vec<u8> },
    /// The connection is lost.
    Lost,
}

/// Whom a subscriber connection tells.
pub(crate) type PushSink = Arc<dyn Fn(Push) + Send + Sync>;

/// Opens connections. There is one for real, and one for tests.
pub(crate) trait Transport: Send + Sync + 'static {
    /// Connects, and proves who we are.
    fn open(
        &self,
        endpoint: &Endpoint,
        timeout: Duration,
        pushes: Option<PushSink>,
    ) -> Pending<Result<Arc<dyn Link>, Fault>>;
}

/// One open connection.
pub(crate) trait Link: Send + Sync {
    /// Sends commands, each a list of words, and gives their answers in order; an error of the server is an answer.
    fn request(&self, commands: &[Command]) -> Pending<Result<Vec<Reply>, Fault>>;
    /// Subscribes to channels and unsubscribes from others, in this order. When all are answered it gives what was refused,
    /// by place; of a lost connection nothing, which is told by itself.
    fn change(&self, changes: &[Change], sharded: bool) -> Pending<Vec<(usize, Refusal)>>;
    /// Whether the server answers.
    fn ping(&self) -> Pending<bool>;
    /// Whether it can carry sharded channels.
    fn can_shard(&self) -> bool;
    /// Waits until it is lost, or let go; none if that shows only when it is used.
    fn ended(&self) -> Option<Pending<()>>;
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

    fn command(&self, sharded: bool) -> &'static str {
        match (self.joins, sharded) {
            (true, false) => "SUBSCRIBE",
            (true, true) => "SSUBSCRIBE",
            (false, false) => "UNSUBSCRIBE",
            (false, true) => "SUNSUBSCRIBE",
        }
    }
}

/// One command, word by word.
#[derive(Clone, Debug)]
pub(crate) struct Command(Vec<Word>);

#[derive(Clone, Debug)]
enum Word {
    /// `PUBLISH`, or `SPUBLISH` where topics are sharded.
    Publish,
    Name(&'static str),
    Text(String),
    Bytes(Arc<[u8]>),
    /// An envelope, whose deadline depends on when and to whom it is written.
    Envelope(Draft),
    /// The time at which something ends that lasts for so many milliseconds from when it is written.
    End(u64),
}

impl Command {
    pub(crate) fn new(name: &'static str) -> Self {
        Self(vec![Word::Name(name)])
    }

    /// Publishes on a pub/sub channel, sharded or not: that is decided when it is written. The message is to follow.
    pub(crate) fn publish(topic: impl Into<String>) -> Self {
        Self(vec![Word::Publish, Word::Text(topic.into())])
    }

    pub(crate) fn published(mut self, sharded: bool) -> Self {
        if let Some(first @ Word::Publish) = self.0.first_mut() {
            *first = Word::Name(if sharded { "SPUBLISH" } else { "PUBLISH" });
        }
        self
    }

    pub(crate) fn is_publish(&self) -> bool {
        matches!(self.0.first(), Some(Word::Publish))
    }

    pub(crate) fn word(mut self, word: &'static str) -> Self {
        self.0.push(Word::Name(word));
        self
    }

    pub(crate) fn text(mut self, word: impl Into<String>) -> Self {
        self.0.push(Word::Text(word.into()));
        self
    }

    pub(crate) fn number(self, word: impl std::fmt::Display) -> Self {
        self.text(word.to_string())
    }

    pub(crate) fn bytes(mut self, word: Arc<[u8]>) -> Self {
        self.0.push(Word::Bytes(word));
        self
    }

    pub(crate) fn envelope(mut self, word: Draft) -> Self {
        self.0.push(Word::Envelope(word));
        self
    }

    pub(crate) fn end_after(mut self, milliseconds: u64) -> Self {
        self.0.push(Word::End(milliseconds));
        self
    }

    /// Sets what depends on the server and on the time there, which it is now.
    pub(crate) fn date(&mut self, date: &Date<'_>) {
        match self.0.as_mut_slice() {
            [_, Word::Text(destination), Word::Envelope(draft)] => draft.date(date, destination),
            [_, Word::Text(key), Word::Text(field), end] => {
                if let Word::End(lasts) = *end {
                    let at = date.now.saturating_add(lasts);
                    *end = Word::Text(membership::value(key, field, at, date.crypt));
                }
            }
            _ => {}
        }
    }

    /// The envelope that it carries.
    pub(crate) fn carried(&self) -> Option<&Arc<[u8]>> {
        self.0.iter().find_map(|word| match word {
            Word::Envelope(envelope) => Some(envelope.bytes()),
            _ => None,
        })
    }

    /// Roughly how many bytes it takes on the wire.
    pub(crate) fn len(&self) -> usize {
        let word = |word: &Word| match word {
            Word::Publish => 8,
            Word::Name(name) => name.len(),
            Word::Text(text) => text.len(),
            Word::Bytes(bytes) => bytes.len(),
            Word::Envelope(envelope) => envelope.len(),
            Word::End(_) => 64,
        };
        self.0.iter().map(|each| word(each) + 8).sum()
    }

    fn to_redis(&self) -> redis::Cmd {
        let mut command = redis::Cmd::with_capacity(self.0.len(), self.len());
        for word in &self.0 {
            match word {
                Word::Publish => command.arg("PUBLISH"),
                Word::Name(name) => command.arg(*name),
                Word::Text(text) => command.arg(text.as_str()),
                Word::Bytes(bytes) => command.arg(&bytes[..]),
                Word::Envelope(envelope) => command.arg(&envelope.bytes()[..]),
                Word::End(lasts) => command.arg(lasts),
            };
        }
        command
    }
}

#[cfg(test)]
impl Command {
    /// The last of its words that are bytes.
    pub(crate) fn last_bytes(&self) -> Vec<u8> {
        let bytes = self.0.iter().rev().find_map(|word| match word {
            Word::Bytes(bytes) => Some(bytes.to_vec()),
            Word::Envelope(envelope) => Some(envelope.bytes().to_vec()),
            _ => None,
        });
        bytes.unwrap_or_default()
    }
}

#[cfg(test)]
impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words: Vec<String> = self
            .0
            .iter()
            .map(|word| match word {
                Word::Publish => "PUBLISH".to_owned(),
                Word::Name(name) => (*name).to_owned(),
                Word::Text(text) => text.clone(),
                Word::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                Word::Envelope(envelope) => String::from_utf8_lossy(envelope.bytes()).into_owned(),
                Word::End(lasts) => lasts.to_string(),
            })
            .collect();
        f.write_str(&words.join(" "))
    }
}

/// A server's error.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) code: String,
    pub(crate) detail: String,
}

impl Refusal {
    pub(crate) fn of(reply: &Reply) -> Option<Self> {
        match reply {
            Value::ServerError(error) => Some(Self {
                code: error.code().to_owned(),
                detail: error.details().unwrap_or_default().to_owned(),
            }),
            _ => None,
        }
    }

    /// Where else to ask, if that is what the server says: `MOVED slot host:port`, and `ASK` alike.
    pub(crate) fn elsewhere(&self) -> Option<(u16, String, u16)> {
        if self.code != "MOVED" && self.code != "ASK" {
            return None;
        }
        let (slot, address) = self.detail.split_once(' ')?;
        let (host, port) = address.rsplit_once(':')?;
        Some((slot.parse().ok()?, host.to_owned(), port.parse().ok()?))
    }

    /// Whether to ask again in a while: nothing was done, and it will not be so for ever.
    pub(crate) fn passes(&self) -> bool {
        matches!(
            self.code.as_str(),
            "MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN" | "LOADING" | "READONLY" | "MASTERDOWN"
        )
    }

    pub(crate) fn is_unknown_command(&self) -> bool {
        unknown_command(&self.code, &self.detail).is_some()
    }

    pub(crate) fn into_fault(self) -> Fault {
        let Self { code, detail } = self;
        if let Some(name) = unknown_command(&code, &detail) {
            return Fault::new(FaultKind::Lacking, no_such_command(name));
        }
        let kind = match code.as_str() {
            "NOPERM" => FaultKind::Lacking,
            _ => FaultKind::Refused,
        };
        let advice = match code.as_str() {
            "NOPERM" => ": the user's ACL has to allow it; docs/redis.md lists what is needed",
            "NOAUTH" | "WRONGPASS" => ": give a username and a password",
            "OOM" => ": the server's memory is full",
            _ => "",
        };
        let text = format!("the server refused: {code} {detail}{advice}");
        Fault::new(kind, text)
    }
}

/// The command that a server says it does not know. What it says beside that holds parts of messages.
fn unknown_command<'a>(code: &str, detail: &'a str) -> Option<&'a str> {
    let detail = detail
        .strip_prefix("unknown command")
        .filter(|_| code == "ERR")?;
    detail.split(['\'', '`']).nth(1)
}

fn no_such_command(name: &str) -> String {
    let since = match name {
        "HELLO" => "6.0",
        "LMOVE" => "6.2",
        "SPUBLISH" | "SSUBSCRIBE" | "SUNSUBSCRIBE" => "7.0",
        _ => {
            return format!(
                "the server has no command {name}: it may have been renamed or taken away"
            )
        }
    };
    format!(
        "the server has no command {name}: Redis {since} and newer and any Valkey have it, unless it was renamed or taken away"
    )
}

/// Connections by redis-rs.
#[derive(Debug)]
pub(crate) struct RedisTransport;

impl Transport for RedisTransport {
    fn open(
        &self,
        endpoint: &Endpoint,
        timeout: Duration,
        pushes: Option<PushSink>,
    ) -> Pending<Result<Arc<dyn Link>, Fault>> {
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
    if endpoint.protocol != 2 {
        let stream = stream(endpoint).await?;
        let resp3 = ProtocolVersion::RESP3;
        match log_in(stream, endpoint, &credentials, pushes.clone(), resp3).await {
            Ok(link) => return Ok(link),
            Err(error) if endpoint.protocol != 3 && lacks_resp3(&error) => {}
            Err(error) => return Err(login::failed(endpoint, &error).await),
        }
    }
    let stream = stream(endpoint).await?;
    match log_in(
        stream,
        endpoint,
        &credentials,
        pushes,
        ProtocolVersion::RESP2,
    )
    .await
    {
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
    let fetched = tokio::task::spawn_blocking(move || source.fetch()).await;
    let why = match fetched {
        Ok(Ok(certificates)) => {
            tls.certificates = certificates;
            return Ok(endpoint);
        }
        Ok(Err(reason)) => reason,
        Err(_) => "it panicked".to_owned(),
    };
    let text = format!("the certificates for {endpoint} could not be had: {why}");
    Err(Fault::new(FaultKind::Unreachable, text))
}

async fn credentials(endpoint: &Endpoint) -> Result<NameAndPassword, Fault> {
    let Some(source) = &endpoint.credentials else {
        return Ok((endpoint.username.clone(), endpoint.password.clone()));
    };
    let source: Arc<dyn Credentials> = Arc::clone(source);
    // It may be foreign code, and take its time.
    let fetched = tokio::task::spawn_blocking(move || source.fetch()).await;
    match fetched {
        Ok(Ok((username, password))) => Ok((
            username.or_else(|| endpoint.username.clone()),
            Some(password),
        )),
        Ok(Err(reason)) => Err(no_credentials(endpoint, &reason)),
        Err(_) => Err(no_credentials(endpoint, "it panicked")),
    }
}

fn no_credentials(endpoint: &Endpoint, reason: &str) -> Fault {
    Fault::new(
        FaultKind::Unreachable,
        format!("the password for {endpoint} could not be had: {reason}"),
    )
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
    if protocol == ProtocolVersion::RESP2 {
        if let Some(pushes) = pushes {
            return open_resp2_subscriber(stream, &settings, pushes).await;
        }
    }
    // Time is kept by whoever asks: a request has its own deadline.
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

/// What reads and writes for a connection, until nobody needs it.
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
    /// Changes when the connection is lost, and loses its sender when it is let go. redis-rs tells only with RESP 3.
    ended: Option<watch::Receiver<()>>,
}

impl Link for Multiplexed {
    fn request(&self, commands: &[Command]) -> Pending<Result<Vec<Reply>, Fault>> {
        let (mut connection, work) = (self.connection.clone(), Arc::clone(&self.work));
        let mut pipeline = redis::Pipeline::with_capacity(commands.len());
        for command in commands {
            pipeline.add_command(command.to_redis());
        }
        let count = commands.len();
        Box::pin(async move {
            let replies = connection.send_packed_commands(&pipeline, 0, count).await;
            drop(work);
            replies.map_err(|error| {
                let text = format!("the connection was lost before the server answered ({error})");
                Fault::new(FaultKind::Lost, text)
            })
        })
    }

    fn change(&self, changes: &[Change], sharded: bool) -> Pending<Vec<(usize, Refusal)>> {
        let (mut connection, work) = (self.connection.clone(), Arc::clone(&self.work));
        let mut pipeline = redis::Pipeline::with_capacity(changes.len());
        for change in changes {
            pipeline.cmd(change.command(sharded)).arg(&change.topic);
        }
        let count = changes.len();
        Box::pin(async move {
            let replies = connection.send_packed_commands(&pipeline, 0, count).await;
            drop(work);
            let replies = replies.unwrap_or_default().into_iter().enumerate();
            let refused = |(place, reply): (usize, Reply)| Some((place, Refusal::of(&reply)?));
            replies.filter_map(refused).collect()
        })
    }

    fn ping(&self) -> Pending<bool> {
        let (mut connection, work) = (self.connection.clone(), Arc::clone(&self.work));
        Box::pin(async move {
            let ping = redis::cmd("PING");
            let answered = connection.send_packed_command(&ping).await.is_ok();
            drop(work);
            answered
        })
    }

    fn can_shard(&self) -> bool {
        self.ended.is_some()
    }

    fn ended(&self) -> Option<Pending<()>> {
        let mut ended = self.ended.clone()?;
        Some(Box::pin(async move {
            // An error says that it was let go.
            let _ = ended.changed().await;
        }))
    }
}

/// With RESP 2 a connection that subscribes can do nothing else, and redis-rs has another type for it.
struct Resp2Subscriber {
    sink: PubSubSink,
    pushes: PushSink,
    reader: tokio::task::JoinHandle<()>,
}

async fn open_resp2_subscriber(
    stream: Stream,
    settings: &RedisConnectionInfo,
    pushes: PushSink,
) -> Result<Arc<dyn Link>, RedisError> {
    let (sink, mut stream) = PubSub::new(settings, stream).await?.split();
    let told = Arc::clone(&pushes);
    let reader = tokio::spawn(async move {
        while let Some(message) = stream.next().await {
            told(Push::Message {
                topic: message.get_channel_name().as_bytes().to_vec(),
                payload: message.get_payload_bytes().to_vec(),
            });
        }
        told(Push::Lost);
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
    fn request(&self, _commands: &[Command]) -> Pending<Result<Vec<Reply>, Fault>> {
        let text = "a connection of RESP 2 that subscribes takes no other commands";
        Box::pin(async move { Err(Fault::new(FaultKind::Refused, text)) })
    }

    fn change(&self, changes: &[Change], _sharded: bool) -> Pending<Vec<(usize, Refusal)>> {
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

    fn ping(&self) -> Pending<bool> {
        let mut sink = self.sink.clone();
        Box::pin(async move { sink.ping::<Value>().await.is_ok() })
    }

    fn can_shard(&self) -> bool {
        false
    }

    fn ended(&self) -> Option<Pending<()>> {
        None
    }
}
