//! The driver against simulated servers: a transport that answers from a script, and a clock that is set.
//!
//! What a real server does is the business of `tests/redis`; here are the moments that a real one seldom gives.

use std::collections::{HashMap, HashSet};

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::sleep;

use super::testing::{self, ME, OTHER, World, refused, settings};
use super::*;
use crate::clock::ManualClock;
use crate::config::Config;
use crate::memory::MemoryEngine;
use crate::redis::fault::{Fault, FaultKind};
use crate::redis::link::{BoxFuture, Change, Command, Link, Push, PushSink, Refusal, Reply};
use crate::redis::notice::Notice;
use crate::redis::settings::{Endpoint, Topology};
use crate::redis::wire::envelope::{self, Header};
use crate::sync::Mutex;

mod agreement;
mod authenticated;
mod clocks;
mod queues;
mod room;
mod sentinel;
mod servers;
mod taking;
mod topics;

/// `{"type": "x"}`
const PAYLOAD: &[u8] = b"\x81\xa4type\xa1x";

type Answerer = dyn Fn(&str) -> Option<Reply> + Send + Sync;

/// All servers at once: they answer by a function of the command, and note what they were asked.
struct Servers {
    /// `None` loses the connection.
    answer: Mutex<Box<Answerer>>,
    refusing: Mutex<bool>,
    /// The addresses that accept no connection.
    gone: Mutex<HashSet<String>>,
    /// The error with which they refuse connections, if they do.
    refusal: Mutex<Option<Fault>>,
    asked: Mutex<Vec<(String, String)>>,
    /// The last bytes of what each server was asked.
    written: Mutex<Vec<(String, Vec<u8>)>>,
    /// The clocks of those that answer `TIME`: at this moment it was so many seconds after the epoch.
    clocks: Mutex<HashMap<String, (Instant, u64)>>,
    /// What was pushed last; it is what stands beyond the capacity.
    pushed: Mutex<Vec<u8>>,
    sinks: Mutex<Vec<PushSink>>,
    /// The connections for requests last until these are dropped.
    ends: Mutex<Vec<watch::Sender<()>>>,
    subscriptions: Mutex<Subscriptions>,
}

impl Servers {
    /// The answer of a server to `TIME`.
    fn time_at(&self, address: &str) -> Option<Reply> {
        let (at, seconds) = self.clocks.lock().get(address).copied()?;
        let time = Duration::from_secs(seconds) + at.elapsed();
        let word = |number: u64| Reply::BulkString(number.to_string().into_bytes());
        Some(Reply::Array(vec![
            word(time.as_secs()),
            word(time.subsec_micros().into()),
        ]))
    }
}

/// What subscriber connections were asked, and how they answer.
#[derive(Debug, Default)]
struct Subscriptions {
    changes: Vec<Change>,
    unanswered: usize,
    most_unanswered: usize,
    /// How long they take to answer.
    pause: Duration,
    no_pong: bool,
    /// What these topics are refused with, each once.
    refusals: HashMap<String, Refusal>,
}

impl Subscriptions {
    fn asked(&mut self, changes: &[Change]) {
        self.changes.extend_from_slice(changes);
        self.unanswered += changes.len();
        self.most_unanswered = self.most_unanswered.max(self.unanswered);
    }

    fn refuse(&mut self, topic: &str) -> Option<Refusal> {
        self.refusals.remove(topic)
    }
}

struct FakeLink {
    servers: Arc<Servers>,
    address: String,
    pushes: Option<PushSink>,
}

struct FakeTransport(Arc<Servers>);

impl Transport for FakeTransport {
    fn open(
        &self,
        endpoint: &Endpoint,
        _timeout: Duration,
        pushes: Option<PushSink>,
    ) -> BoxFuture<Result<Arc<dyn Link>, Fault>> {
        let servers = Arc::clone(&self.0);
        let address = endpoint.to_string();
        Box::pin(async move {
            if *servers.refusing.lock() || servers.gone.lock().contains(&address) {
                return Err(Fault::new(FaultKind::Unreachable, "nobody is there"));
            }
            if let Some(refusal) = servers.refusal.lock().clone() {
                return Err(refusal);
            }
            servers.sinks.lock().extend(pushes.clone());
            let link = FakeLink {
                servers,
                address,
                pushes,
            };
            Ok(Arc::new(link) as Arc<dyn Link>)
        })
    }
}

impl Link for FakeLink {
    fn request(&self, commands: &[&Command]) -> BoxFuture<Result<Vec<Reply>, Fault>> {
        let mut replies = Some(Vec::new());
        for command in commands {
            let words = command.to_string();
            self.servers
                .asked
                .lock()
                .push((self.address.clone(), words.clone()));
            if words.starts_with("RPUSH") {
                *self.servers.pushed.lock() = command.last_bytes();
            }
            let written = (self.address.clone(), command.last_bytes());
            self.servers.written.lock().push(written);
            let mut reply = self.servers.answer.lock()(&words);
            if words == "TIME" {
                reply = self.servers.time_at(&self.address).or(reply);
            }
            if words.starts_with("LRANGE t:q:") && words.ends_with(" -1") {
                let pushed = self.servers.pushed.lock().clone();
                reply = Some(Reply::Array(vec![Reply::BulkString(pushed)]));
            }
            replies = replies.zip(reply).map(|(mut replies, reply)| {
                replies.push(reply);
                replies
            });
        }
        let lost = || Fault::new(FaultKind::Lost, "the connection was lost");
        Box::pin(async move { replies.ok_or_else(lost) })
    }

    fn change(&self, changes: &[Change], _sharded: bool) -> BoxFuture<Vec<(usize, Refusal)>> {
        let (changes, pushes) = (changes.to_vec(), self.pushes.clone());
        let servers = Arc::clone(&self.servers);
        servers.subscriptions.lock().asked(&changes);
        Box::pin(async move {
            let pause = servers.subscriptions.lock().pause;
            sleep(pause).await;
            let mut refusals = Vec::new();
            for (place, change) in changes.iter().enumerate() {
                if let Some(refusal) = servers.subscriptions.lock().refuse(&change.topic) {
                    refusals.push((place, refusal));
                } else if let Some(pushes) = &pushes {
                    let topic = change.topic.clone().into_bytes();
                    pushes(if change.joins {
                        Push::Subscribed { topic }
                    } else {
                        Push::Unsubscribed { topic }
                    });
                }
            }
            servers.subscriptions.lock().unanswered -= changes.len();
            refusals
        })
    }

    fn ping(&self) -> BoxFuture<bool> {
        let answers = !self.servers.subscriptions.lock().no_pong;
        Box::pin(async move { answers || std::future::pending().await })
    }

    fn can_shard(&self) -> bool {
        true
    }

    fn ended(&self) -> Option<BoxFuture<()>> {
        let (end, mut ended) = watch::channel(());
        self.servers.ends.lock().push(end);
        Some(Box::pin(async move {
            let _ = ended.changed().await;
        }))
    }
}

/// A server that takes everything, and holds nothing.
fn willing(command: &str) -> Reply {
    match command.split(' ').next() {
        Some("HGETALL" | "LRANGE" | "SMEMBERS" | "TIME") => Reply::Array(Vec::new()),
        Some("LMOVE") => Reply::Nil,
        _ => Reply::Int(1),
    }
}

struct Layer {
    world: Arc<World>,
    servers: Arc<Servers>,
    local: Arc<Local<World>>,
    joins: Arc<Joins>,
    shared: Arc<Shared>,
    keys: Keys,
    asks: UnboundedSender<Ask<u32>>,
    /// Shared by the layers of a process.
    sentinels: Arc<Sentinels>,
}

impl Layer {
    async fn connected(topology: Topology, answer: Box<Answerer>) -> Self {
        let layer = Self::new(topology, answer);
        layer.connect().await;
        layer
    }

    async fn connect(&self) {
        self.ask(Ask::Connect { ticket: 1000 });
        assert_eq!(self.answer(1000).await.fault, None);
    }

    fn new(topology: Topology, answer: Box<Answerer>) -> Self {
        Self::with(settings(topology), answer)
    }

    fn with(settings: Settings, answer: Box<Answerer>) -> Self {
        let servers = Arc::new(Servers {
            answer: Mutex::new(answer),
            refusing: Mutex::new(false),
            gone: Mutex::default(),
            refusal: Mutex::default(),
            asked: Mutex::default(),
            written: Mutex::default(),
            clocks: Mutex::default(),
            pushed: Mutex::default(),
            sinks: Mutex::default(),
            ends: Mutex::default(),
            subscriptions: Mutex::default(),
        });
        let keys = Keys::new("t").expect("a plain prefix");
        let layer = Self {
            world: Arc::default(),
            local: Arc::new(MemoryEngine::new(Config::default(), ManualClock::default())),
            joins: Arc::default(),
            shared: Arc::default(),
            servers,
            keys,
            asks: unbounded_channel().0,
            sentinels: Arc::default(),
        };
        let (asks, asked) = unbounded_channel();
        tokio::spawn(Driver::run(layer.parts(settings), asked));
        Self { asks, ..layer }
    }

    /// What a driver of this layer is made from.
    fn parts(&self, settings: Settings) -> DriverParts<World> {
        DriverParts {
            host: Arc::clone(&self.world),
            engine: Arc::clone(&self.local),
            joins: Arc::clone(&self.joins),
            settings: Arc::new(settings),
            keys: self.keys.clone(),
            me: ME,
            shared: Arc::clone(&self.shared),
            transport: Arc::new(FakeTransport(Arc::clone(&self.servers))),
            sentinels: Arc::clone(&self.sentinels),
        }
    }

    fn ask(&self, ask: Ask<u32>) {
        self.asks.send(ask).expect("the driver runs");
    }

    fn answering(&self, answer: impl Fn(&str) -> Option<Reply> + Send + Sync + 'static) {
        *self.servers.answer.lock() = Box::new(answer);
    }

    /// The answer for a ticket; tokio's clock runs on until there is one.
    async fn answer(&self, ticket: u32) -> Answer {
        for _ in 0..2000 {
            if let Some(answer) = self.world.answers.lock().remove(&ticket) {
                return answer;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("ticket {ticket} was not answered")
    }

    fn begin_to_send(&self, channel: &str, ticket: u32) {
        self.begin_to_send_bytes(channel, 0, ticket);
    }

    /// Sends a message as if it had so many bytes more than it has.
    fn begin_to_send_bytes(&self, channel: &str, bytes: usize, ticket: u32) {
        self.ask(Ask::Send {
            messages: vec![Dispatch::Channel {
                channel: channel.to_owned(),
                entry: entry(channel, ME, 0).into(),
            }],
            claim: Claim::new(&self.shared.backlog, 1, bytes),
            ticket: Some(ticket),
        });
    }

    async fn send(&self, channel: &str, ticket: u32) -> Answer {
        self.begin_to_send(channel, ticket);
        self.answer(ticket).await
    }

    fn asked(&self, command: &str) -> Vec<String> {
        let asked = self.servers.asked.lock();
        let matching = asked.iter().filter(|(_, words)| words.starts_with(command));
        matching.map(|(address, _)| address.clone()).collect()
    }

    /// Sets the clock of a server: so many seconds after the epoch it is now.
    fn set_clock(&self, address: &str, seconds: u64) {
        let clock = (Instant::now(), seconds);
        self.servers.clocks.lock().insert(address.to_owned(), clock);
    }

    /// The deadlines of the messages that a server was given, in whole seconds after the epoch.
    fn deadlines(&self, address: &str) -> Vec<u64> {
        let written = self.servers.written.lock();
        let bytes = written.iter().filter(|(to, _)| to == address);
        let deadlines = bytes.filter_map(|(_, bytes)| {
            let envelope = envelope::decode(bytes.clone(), "", None).ok()?;
            Some(envelope.header.deadline / 1000)
        });
        deadlines.filter(|deadline| *deadline > 0).collect()
    }

    /// Has a message come for a channel of this process, which expires so many seconds after the epoch.
    async fn comes(&self, channel: &str, sequence: u64, deadline: u64) {
        let own_topic = self.keys.process(ME);
        self.push(|| Push::Message {
            topic: own_topic.clone().into_bytes(),
            payload: dated_entry(channel, OTHER, sequence, deadline * 1000),
        });
        sleep(Duration::from_millis(1)).await;
    }

    /// Loses all connections.
    async fn lose_all(&self) {
        self.push(|| Push::Lost);
        self.servers.ends.lock().clear();
        sleep(Duration::from_millis(1)).await;
    }

    fn push(&self, push: impl Fn() -> Push) {
        for sink in self.servers.sinks.lock().iter() {
            sink(push());
        }
    }
}

fn entry(channel: &str, sender: ProcessId, sequence: u64) -> Vec<u8> {
    dated_entry(channel, sender, sequence, u64::MAX)
}

fn dated_entry(channel: &str, sender: ProcessId, sequence: u64, deadline: u64) -> Vec<u8> {
    let header = Header {
        sender,
        sequence,
        deadline,
    };
    let body = envelope::OutgoingBody::Direct {
        channel,
        payload: PAYLOAD,
    };
    let draft = envelope::encode(&header, body, None).expect("it fits");
    draft.bytes().to_vec()
}

fn willing_layer(settings: Settings) -> Layer {
    Layer::with(settings, Box::new(|words| Some(willing(words))))
}
