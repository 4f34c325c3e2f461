//! The driver against servers that are not there: a transport that answers from a script, and a clock that is told.
//!
//! What a real server does is the business of `tests/redis`; here are the moments that a real one seldom gives.

use std::collections::{HashMap, HashSet};

use tokio::sync::watch;
use tokio::time::sleep;

use super::*;
use crate::clock::ManualClock;
use crate::config::Config;
use crate::redis::backlog;
use crate::redis::connection::{Change, Command, Link, Pending, Push, PushSink, Refusal, Reply};
use crate::redis::envelope::{self, Header};
use crate::redis::host::Frame;
use crate::redis::ring::Ring;
use crate::redis::settings::{Endpoint, Host as ServerHost, Topology, Wire};
use crate::redis::shared::Notice;
use crate::sync::Mutex;

mod authenticated;
mod queues;
mod topics;

const ME: ProcessId = ProcessId(0x0123_4567_89ab_cdef);
const OTHER: ProcessId = ProcessId(0xfedc_ba98_7654_3210);
/// `{"type": "x"}`
const PAYLOAD: &[u8] = b"\x81\xa4type\xa1x";

/// Messages are their payloads, waiters and tickets are numbers.
#[derive(Debug, Default)]
struct World {
    answers: Mutex<HashMap<u32, Answer>>,
    received: Mutex<Vec<(u32, Vec<u8>)>>,
}

impl Host for World {
    type Message = Vec<u8>;
    type Waiter = u32;
    type Ticket = u32;
    type Clock = ManualClock;

    fn message(&self, frame: Frame) -> Vec<u8> {
        frame.bytes[frame.payload].to_vec()
    }

    fn payload<'a>(&self, message: &'a Vec<u8>) -> Option<&'a [u8]> {
        Some(message)
    }

    fn deliver(&self, answers: Vec<(u32, Answer)>, hand_offs: Vec<HandOff<Vec<u8>, u32>>) {
        self.answers.lock().extend(answers);
        let received = hand_offs
            .into_iter()
            .map(|hand_off| (hand_off.waiter, hand_off.envelope.message));
        self.received.lock().extend(received);
    }
}

type Answerer = dyn Fn(&str) -> Option<Reply> + Send + Sync;

/// All servers at once: they answer by a function of the command, and note what they were asked.
struct Servers {
    /// `None` loses the connection.
    answer: Mutex<Box<Answerer>>,
    refusing: Mutex<bool>,
    /// The addresses at which nobody is.
    gone: Mutex<HashSet<String>>,
    /// What they refuse who connects with, if they do.
    refusal: Mutex<Option<Fault>>,
    asked: Mutex<Vec<(String, String)>>,
    /// The last bytes of what each server was asked.
    written: Mutex<Vec<(String, Vec<u8>)>>,
    /// The clocks of those that tell the time: at this moment it was so many seconds after the epoch.
    clocks: Mutex<HashMap<String, (Instant, u64)>>,
    /// What was pushed last; it is what stands beyond the capacity.
    pushed: Mutex<Vec<u8>>,
    sinks: Mutex<Vec<PushSink>>,
    /// The connections that ask last until these are dropped.
    ends: Mutex<Vec<watch::Sender<()>>>,
    subscriptions: Mutex<Subscriptions>,
}

impl Servers {
    /// The answer of a server that tells the time.
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
    ) -> Pending<Result<Arc<dyn Link>, Fault>> {
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
    fn request(&self, commands: &[Command]) -> Pending<Result<Vec<Reply>, Fault>> {
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

    fn change(&self, changes: &[Change], _sharded: bool) -> Pending<Vec<(usize, Refusal)>> {
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

    fn ping(&self) -> Pending<bool> {
        let answers = !self.servers.subscriptions.lock().no_pong;
        Box::pin(async move { answers || std::future::pending().await })
    }

    fn can_shard(&self) -> bool {
        true
    }

    fn ended(&self) -> Option<Pending<()>> {
        let (end, mut ended) = watch::channel(());
        self.servers.ends.lock().push(end);
        Some(Box::pin(async move {
            let _ = ended.changed().await;
        }))
    }
}

fn endpoint() -> Endpoint {
    Endpoint {
        host: "seed".to_owned(),
        port: 1,
        path: None,
        username: None,
        password: None,
        credentials: None,
        database: 0,
        tls: None,
        protocol: 0,
    }
}

fn settings(topology: Topology) -> Settings {
    Settings {
        max_message_bytes: 1 << 20,
        prefix: "t".to_owned(),
        hosts: vec![ServerHost {
            endpoint: endpoint(),
            sentinels: Vec::new(),
            master_name: None,
        }],
        topology,
        ring: Ring::Rendezvous,
        wire: Wire::Headrace,
        crypt: None,
        expiry: Duration::from_secs(60),
        send_timeout: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(1),
        subscription_linger: Duration::from_secs(5),
        on_disconnect: None,
        on_reconnect: None,
        on_gap: None,
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

fn refused(text: &str) -> Reply {
    let (code, detail) = text.split_once(' ').unwrap_or((text, ""));
    redis::parse_redis_value(format!("-{code} {detail}\r\n").as_bytes()).expect("an error of RESP")
}

struct Layer {
    world: Arc<World>,
    servers: Arc<Servers>,
    local: Arc<Local<World>>,
    shared: Arc<Shared>,
    keys: Keys,
    asks: UnboundedSender<Ask<u32>>,
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
            shared: Arc::default(),
            servers,
            keys,
            asks: unbounded_channel().0,
        };
        let (asks, asked) = unbounded_channel();
        tokio::spawn(Driver::run(layer.parts(settings), asked));
        Self { asks, ..layer }
    }

    /// What a driver of this layer is made from.
    fn parts(&self, settings: Settings) -> Parts<World> {
        Parts {
            host: Arc::clone(&self.world),
            engine: Arc::clone(&self.local),
            settings: Arc::new(settings),
            keys: self.keys.clone(),
            me: ME,
            shared: Arc::clone(&self.shared),
            transport: Arc::new(FakeTransport(Arc::clone(&self.servers))),
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
        self.ask(Ask::Carry {
            dispatch: Dispatch::Channel {
                channel: channel.to_owned(),
                entry: entry(channel, ME, 0).into(),
            },
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
        let inbox = self.keys.inbox(ME);
        self.push(|| Push::Message {
            topic: inbox.clone().into_bytes(),
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
    let body = envelope::Outgoing::Direct {
        channel,
        payload: PAYLOAD,
    };
    let draft = envelope::encode(&header, body, None).expect("it fits");
    draft.bytes().to_vec()
}

#[tokio::test(start_paused = true)]
async fn a_message_to_a_process_that_is_gone_is_counted() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    layer.answering(|words| {
        Some(if words.starts_with("PUBLISH") {
            Reply::Int(0)
        } else {
            willing(words)
        })
    });
    let answer = layer.send(&format!("specific.{OTHER}!a"), 1).await;
    assert_eq!((answer.receivers, answer.fault), (0, None));
    assert_eq!(layer.shared.stats().unreachable, 1);
}

#[tokio::test(start_paused = true)]
async fn a_push_beyond_the_capacity_is_withdrawn() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    layer.answering(|words| {
        Some(if words.starts_with("RPUSH") {
            Reply::Int(101)
        } else {
            willing(words)
        })
    });
    let answer = layer.send("work", 1).await;
    assert_eq!((answer.queued, answer.full), (0, 1));
    assert_eq!(layer.asked("LREM t:q:{work} -1").len(), 1);
    // Whoever took the entry before it could be withdrawn has the message.
    layer.answering(|words| {
        Some(match words.split(' ').next() {
            Some("RPUSH") => Reply::Int(101),
            Some("LREM") => Reply::Int(0),
            _ => willing(words),
        })
    });
    let answer = layer.send("work", 2).await;
    assert_eq!((answer.queued, answer.full), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_fails_what_was_on_it_and_nothing_else() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    layer.answering(|words| (!words.starts_with("PUBLISH t:p:fed")).then(|| willing(words)));
    let answer = layer.send(&format!("specific.{OTHER}!a"), 1).await;
    assert_eq!(
        answer.fault.map(|fault| fault.kind()),
        Some(FaultKind::Lost)
    );
    assert_eq!(layer.shared.stats().unsent, 1);
    layer.answering(|words| Some(willing(words)));
    let answer = layer.send(&format!("specific.{OTHER}!a"), 2).await;
    assert_eq!((answer.receivers, answer.fault), (1, None));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_at_once_fails_all_that_waits_for_it_at_once() {
    let layer = willing_layer(settings(Topology::Shards));
    *layer.servers.refusing.lock() = true;
    let before = Instant::now();
    for round in [10, 20] {
        layer.begin_to_send("work", round);
        layer.begin_to_send(&format!("specific.{OTHER}!a"), round + 1);
        layer.ask(Ask::Connect { ticket: round + 2 });
        let topic = layer.keys.group("room");
        layer.ask(Ask::Subscribe {
            topic,
            ticket: round + 3,
        });
        layer.ask(Ask::Tell {
            process: OTHER,
            control: Control::Flush,
            ticket: round + 4,
        });
        for ticket in round..round + 5 {
            let fault = layer.answer(ticket).await.fault.expect("nobody is there");
            assert_eq!(fault.kind(), FaultKind::Unreachable);
            assert_eq!(
                fault.to_string(),
                "no server could be reached: nobody is there"
            );
        }
    }
    assert!(before.elapsed() < Duration::from_secs(1));
    assert!(layer.shared.away().is_some());
    *layer.servers.refusing.lock() = false;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(layer.send("work", 1).await.fault, None);
    assert_eq!(layer.shared.away(), None);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_lost_is_waited_for_once() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    *layer.servers.refusing.lock() = true;
    layer.lose_all().await;
    // It is back in time.
    layer.begin_to_send("work", 1);
    sleep(Duration::from_secs(4)).await;
    assert_eq!(layer.shared.away(), None);
    *layer.servers.refusing.lock() = false;
    assert_eq!(layer.answer(1).await.fault, None);
    // It is not.
    *layer.servers.refusing.lock() = true;
    layer.lose_all().await;
    let lost = Instant::now();
    layer.send("work", 2).await.fault.expect("nobody is there");
    assert_eq!(lost.elapsed().as_secs(), 5);
    layer.send("work", 3).await.fault.expect("nobody is there");
    assert_eq!(lost.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_lost_server_that_refuses_who_connects_is_not_waited_for() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    let wrong = Fault::new(FaultKind::Refused, "WRONGPASS");
    *layer.servers.refusal.lock() = Some(wrong.clone());
    layer.lose_all().await;
    let lost = Instant::now();
    assert_eq!(layer.send("work", 1).await.fault, Some(wrong));
    assert!(lost.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_cluster_of_which_no_server_is_there_fails_at_once() {
    let layer = willing_layer(settings(Topology::Cluster));
    *layer.servers.refusing.lock() = true;
    let before = Instant::now();
    layer.send("work", 1).await.fault.expect("nobody is there");
    layer.ask(Ask::Connect { ticket: 2 });
    layer.answer(2).await.fault.expect("nobody is there");
    assert!(before.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_has_moved_is_followed() {
    let map = |words: &str| {
        (words == "CLUSTER SLOTS").then(|| {
            let master = Reply::Array(vec![Reply::BulkString(b"a".to_vec()), Reply::Int(1)]);
            Reply::Array(vec![Reply::Array(vec![
                Reply::Int(0),
                Reply::Int(16383),
                master,
            ])])
        })
    };
    let answer = move |words: &str| Some(map(words).unwrap_or_else(|| willing(words)));
    let layer = Layer::connected(Topology::Cluster, Box::new(answer)).await;
    let slot = crate::redis::keys::hash_slot(layer.keys.queue("work").as_bytes());
    let moved = Mutex::new(false);
    layer.answering(move |words| {
        if words.starts_with("RPUSH") && !std::mem::replace(&mut *moved.lock(), true) {
            return Some(refused(&format!("MOVED {slot} b:2")));
        }
        answer(words)
    });
    let answer = layer.send("work", 1).await;
    assert_eq!((answer.queued, answer.fault), (1, None));
    assert_eq!(layer.asked("RPUSH"), ["a:1", "b:2"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_and_not_received_is_recovered_once() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    let _ = layer.local.wait("work", 7, None);
    // The server moves the entry, and the connection breaks before it says so.
    layer.answering(|words| (!words.starts_with("LMOVE")).then(|| willing(words)));
    layer.ask(Ask::Want {
        channel: "work".to_owned(),
    });
    sleep(Duration::from_secs(1)).await;
    layer.answering(|words| {
        Some(match words.split(' ').next() {
            Some("LRANGE") => Reply::Array(vec![Reply::BulkString(entry("work", OTHER, 1))]),
            Some("LMOVE") => Reply::Nil,
            _ => willing(words),
        })
    });
    sleep(Duration::from_secs(3)).await;
    assert_eq!(*layer.world.received.lock(), [(7, PAYLOAD.to_vec())]);
    assert!(!layer.asked("LREM t:t:{work}").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_taken_away_is_asked_for_again_and_reported() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    let topic = layer.keys.group("room");
    layer.ask(Ask::Subscribe {
        topic: topic.clone(),
        ticket: 1,
    });
    assert_eq!(layer.answer(1).await.fault, None);
    layer.push(|| Push::Unsubscribed {
        topic: topic.clone().into_bytes(),
    });
    sleep(Duration::from_secs(1)).await;
    assert!(layer.shared.topics.lock().contains(&topic));
    let notice = layer.shared.next_notice(Duration::ZERO);
    let expected = Notice::Gap {
        groups: vec!["room".to_owned()],
        direct: false,
        missed: 0,
    };
    assert_eq!(notice, Some(expected));
}

#[tokio::test(start_paused = true)]
async fn a_topic_is_left_when_its_group_has_had_no_member_for_a_while() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    let topics: Vec<_> = ["used", "unused"]
        .map(|group| layer.keys.group(group))
        .into();
    for (topic, ticket) in topics.iter().zip(1..) {
        let topic = topic.clone();
        layer.ask(Ask::Subscribe { topic, ticket });
        assert_eq!(layer.answer(ticket).await.fault, None);
    }
    let channel = format!("specific.{ME}!a");
    assert_eq!(layer.local.group_add("used", &channel), Ok(()));
    sleep(Duration::from_secs(10)).await;
    let confirmed = layer.shared.topics.lock().clone();
    let left = topics.iter().map(|topic| !confirmed.contains(topic));
    assert_eq!(left.collect::<Vec<_>>(), [false, true]);
    assert_eq!(layer.send("work", 3).await.fault, None, "the driver runs");
}

#[tokio::test(start_paused = true)]
async fn a_hole_in_a_senders_numbers_is_reported() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    let inbox = layer.keys.inbox(ME);
    let channel = format!("specific.{ME}!a");
    for sequence in [1, 2, 5] {
        layer.push(|| Push::Message {
            topic: inbox.clone().into_bytes(),
            payload: entry(&channel, OTHER, sequence),
        });
    }
    sleep(Duration::from_millis(100)).await;
    assert_eq!(
        (layer.shared.stats().gaps, layer.shared.stats().missed),
        (1, 2)
    );
    assert_eq!(layer.local.depth(&channel), 3);
}

#[tokio::test(start_paused = true)]
async fn what_waits_at_the_end_is_answered() {
    let layer = Layer::new(Topology::Shards, Box::new(|words| Some(willing(words))));
    *layer.servers.refusing.lock() = true;
    layer.begin_to_send("work", 1);
    layer.ask(Ask::Close { ticket: 2 });
    let fault = layer.answer(1).await.fault.map(|fault| fault.kind());
    assert_eq!(fault, Some(FaultKind::Closed));
    assert_eq!(layer.answer(2).await, Answer::default());
    assert_eq!(layer.shared.stats().state, ConnectionState::Closed);
}

/// An hour after the epoch, at "seed:1"; the machine that the tests run on is decades ahead.
const HOUR: u64 = 3600;

fn willing_layer(settings: Settings) -> Layer {
    Layer::with(settings, Box::new(|words| Some(willing(words))))
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_before_there_is_a_connection_is_dated_by_the_server() {
    let layer = willing_layer(settings(Topology::Shards));
    layer.set_clock("seed:1", HOUR);
    layer.send(&format!("specific.{OTHER}!a"), 1).await;
    layer.send("work", 2).await;
    assert_eq!(layer.deadlines("seed:1"), [HOUR + 60, HOUR + 60]);
}

#[tokio::test(start_paused = true)]
async fn each_server_has_a_clock_of_its_own() {
    let mut settings = settings(Topology::Shards);
    let mut second = settings.hosts[0].clone();
    second.endpoint.host = "second".to_owned();
    settings.hosts.push(second);
    let layer = willing_layer(settings);
    layer.set_clock("seed:1", HOUR);
    layer.set_clock("second:1", 2 * HOUR);
    layer.connect().await;
    for ticket in 0..8 {
        layer.send(&format!("work-{ticket}"), ticket).await;
    }
    for (server, time) in [("seed:1", HOUR), ("second:1", 2 * HOUR)] {
        let deadlines = layer.deadlines(server);
        assert!(!deadlines.is_empty());
        assert!(
            deadlines.iter().all(|deadline| *deadline == time + 60),
            "{deadlines:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_servers_clock_that_is_set_is_followed_and_told_of() {
    let layer = willing_layer(settings(Topology::Shards));
    layer.set_clock("seed:1", HOUR);
    layer.connect().await;
    layer.set_clock("seed:1", 2 * HOUR);
    sleep(Duration::from_secs(2)).await;
    layer.send("work", 1).await;
    assert_eq!(layer.deadlines("seed:1"), [2 * HOUR + 62]);
    let Some(Notice::ClockSet {
        server,
        milliseconds,
    }) = layer.shared.next_notice(Duration::ZERO)
    else {
        panic!("nobody was told")
    };
    assert_eq!(server, "seed:1");
    // An hour, less what had passed since it connected.
    assert!(
        (3_599_000..3_600_000).contains(&milliseconds),
        "{milliseconds}"
    );
    assert_eq!(layer.shared.next_notice(Duration::ZERO), None);
}

#[tokio::test(start_paused = true)]
async fn a_message_is_late_by_the_clock_of_its_server_alone() {
    let layer = willing_layer(settings(Topology::Shards));
    layer.set_clock("seed:1", HOUR);
    layer.connect().await;
    let channel = format!("specific.{ME}!a");
    // The server was heard within the last second, and what expired in that time may have been sent before.
    sleep(Duration::from_millis(10_900)).await;
    layer.comes(&channel, 1, HOUR + 11).await;
    assert_eq!(
        (layer.local.depth(&channel), layer.shared.stats().late),
        (1, 0)
    );
    sleep(Duration::from_secs(1)).await;
    layer.comes(&channel, 2, HOUR + 11).await;
    layer.comes(&channel, 3, HOUR + 11).await;
    assert_eq!(
        (layer.local.depth(&channel), layer.shared.stats().late),
        (1, 2)
    );
    assert_eq!(layer.shared.next_notice(Duration::ZERO), Some(Notice::Late));
    assert_eq!(layer.shared.next_notice(Duration::ZERO), None);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_was_sent_just_now_is_not_late_whatever_a_clock_says() {
    let layer = willing_layer(settings(Topology::Shards));
    layer.set_clock("seed:1", 2 * HOUR);
    layer.connect().await;
    let channel = format!("specific.{ME}!a");
    sleep(Duration::from_secs(10)).await;
    // Its sender does not know yet that the server's clock was set forward by an hour.
    layer.comes(&channel, 1, HOUR + 70).await;
    assert_eq!(
        (layer.local.depth(&channel), layer.shared.stats().late),
        (1, 0)
    );
}

/// A message that fills all room but a little.
const HUGE: usize = backlog::MOST - 1;

#[tokio::test(start_paused = true)]
async fn a_message_for_which_there_is_no_room_waits_for_those_before_it() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    for ticket in 1..=4 {
        layer.begin_to_send_bytes(&format!("work-{ticket}"), HUGE, ticket);
    }
    for ticket in 1..=4 {
        let answer = layer.answer(ticket).await;
        assert_eq!((answer.queued, answer.fault), (1, None));
    }
    let pushed = layer.servers.asked.lock().clone();
    let pushed = pushed
        .iter()
        .filter(|(_, words)| words.starts_with("RPUSH"));
    let queues: Vec<_> = pushed
        .filter_map(|(_, words)| words.split(' ').nth(1))
        .collect();
    assert_eq!(
        queues,
        [
            "t:q:{work-1}",
            "t:q:{work-2}",
            "t:q:{work-3}",
            "t:q:{work-4}"
        ]
    );
    assert!(Claim::new(&layer.shared.backlog, 1, 1).is_admitted());
}

#[tokio::test(start_paused = true)]
async fn a_message_for_which_no_room_comes_is_given_up_at_its_time() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    let all = Claim::new(&layer.shared.backlog, 0, backlog::MOST);
    let before = Instant::now();
    let fault = layer.send("work", 1).await.fault.expect("there is no room");
    assert_eq!(fault.kind(), FaultKind::Backlog);
    assert!(
        fault
            .to_string()
            .contains("faster than the server takes them"),
        "{fault}"
    );
    assert_eq!(before.elapsed().as_secs(), 5);
    assert_eq!(layer.shared.stats().unsent, 1);
    drop(all);
    assert_eq!(layer.send("work", 2).await.fault, None);
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_ends_gives_up_what_waits_for_room() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    let _all = Claim::new(&layer.shared.backlog, 0, backlog::MOST);
    layer.begin_to_send("work", 1);
    layer.ask(Ask::Close { ticket: 2 });
    let fault = layer.answer(1).await.fault.map(|fault| fault.kind());
    assert_eq!(fault, Some(FaultKind::Closed));
    assert_eq!(layer.shared.stats().unsent, 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_is_read_back_before_anything_else_is_taken() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    for waiter in [7, 8] {
        let _ = layer.local.wait("work", waiter, None);
    }
    layer.answering(|words| (!words.starts_with("LMOVE")).then(|| willing(words)));
    let want = || Ask::Want {
        channel: "work".to_owned(),
    };
    layer.ask(want());
    // The server has moved an entry, and the connection breaks before it says so; then a bell rings.
    *layer.servers.refusing.lock() = true;
    sleep(Duration::from_millis(20)).await;
    layer.ask(want());
    layer.ask(want());
    sleep(Duration::from_millis(200)).await;
    layer.servers.asked.lock().clear();
    layer.answering(|words| {
        let empty = words.starts_with("LLEN").then_some(Reply::Int(0));
        Some(empty.unwrap_or_else(|| willing(words)))
    });
    *layer.servers.refusing.lock() = false;
    sleep(Duration::from_secs(1)).await;
    let asked = layer.servers.asked.lock().clone();
    let first = |command: &str| {
        let mut places = asked.iter().enumerate();
        let place = places.find(|(_, (_, words))| words.starts_with(command));
        place.map(|(place, _)| place).expect(command)
    };
    assert!(
        first("LRANGE t:t:{work}") < first("LMOVE t:q:{work}"),
        "{asked:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_is_read_back_before_a_call_takes_anything_else() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    let fetch = |ticket, most| Ask::Fetch {
        channel: "work".to_owned(),
        most,
        ticket,
    };
    layer.answering(|words| (!words.starts_with("LMOVE")).then(|| willing(words)));
    // The server has moved an entry, and the connection breaks before it says so.
    *layer.servers.refusing.lock() = true;
    layer.ask(fetch(1, 1));
    assert!(layer.answer(1).await.fault.is_some());
    layer.servers.asked.lock().clear();
    layer.answering(|words| {
        let taken = Reply::BulkString(entry("work", OTHER, 1));
        Some(match words.split(' ').next() {
            Some("LRANGE") => Reply::Array(vec![taken]),
            Some("LLEN") => Reply::Int(0),
            _ => willing(words),
        })
    });
    layer.ask(fetch(2, 1));
    layer.ask(fetch(3, 2));
    *layer.servers.refusing.lock() = false;
    assert_eq!(layer.answer(2).await.fault, None);
    assert_eq!(layer.answer(3).await.fault, None);
    assert_eq!(layer.local.depth("work"), 1);
    let asked = layer.servers.asked.lock().clone();
    let names = asked
        .iter()
        .filter_map(|(_, words)| words.split(' ').next());
    let mut names: Vec<_> = names
        .filter(|name| ["LRANGE", "LMOVE"].contains(name))
        .collect();
    // The connection that is back asks as well.
    names.dedup_by(|name, before| (*name, *before) == ("LRANGE", "LRANGE"));
    // The entry that was read is the one that the first of these calls takes.
    assert_eq!(names, ["LRANGE", "LMOVE", "LMOVE"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_is_told_that_what_was_taken_could_not_be_read_back() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    layer.answering(|words| (!words.starts_with("LMOVE")).then(|| willing(words)));
    *layer.servers.refusing.lock() = true;
    for ticket in [1, 2] {
        layer.ask(Ask::Fetch {
            channel: "work".to_owned(),
            most: 1,
            ticket,
        });
        let fault = layer.answer(ticket).await.fault;
        assert!(fault.is_some(), "{ticket}");
    }
}

/// The map of a cluster of many, as `CLUSTER SLOTS` gives it. One of them has this slot and no other.
fn slots(slot: u16, host: &str) -> Reply {
    let range = |first: u16, last: u16, host: String| {
        let master = vec![Reply::BulkString(host.into_bytes()), Reply::Int(1)];
        Reply::Array(vec![
            Reply::Int(first.into()),
            Reply::Int(last.into()),
            Reply::Array(master),
        ])
    };
    let mut ranges = vec![range(slot, slot, host.to_owned())];
    // As what is not sharded is spread over all servers, that one has no topics.
    ranges.extend((0..slot).step_by(100).map(|first| {
        let last = (first + 99).min(slot - 1);
        range(first, last, format!("other-{first}"))
    }));
    ranges.push(range(slot + 1, 16383, "last".to_owned()));
    Reply::Array(ranges)
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_is_read_back_from_a_server_that_was_not_needed_before() {
    let mut settings = settings(Topology::Cluster);
    settings.hosts[0].endpoint.protocol = 2;
    let slot = crate::redis::keys::hash_slot(b"t:q:{work}");
    let answer = move |words: &str, master| match words {
        "CLUSTER SLOTS" => slots(slot, master),
        _ => willing(words),
    };
    let layer = Layer::with(settings, Box::new(move |words| Some(answer(words, "old"))));
    assert_eq!(layer.send("work", 1).await.fault, None);
    let _ = layer.local.wait("work", 7, None);
    layer.servers.gone.lock().insert("old:1".to_owned());
    // The old master moves the entry, and is gone; the new one has its list. Nothing but the queue is there.
    layer.answering(move |words| {
        (!words.starts_with("LMOVE")).then(|| match words.split(' ').next() {
            Some("LRANGE") => Reply::Array(vec![Reply::BulkString(entry("work", OTHER, 1))]),
            _ => answer(words, "new"),
        })
    });
    layer.ask(Ask::Want {
        channel: "work".to_owned(),
    });
    sleep(Duration::from_secs(3)).await;
    assert_eq!(
        layer.asked("LRANGE t:t:{work}").last().map(String::as_str),
        Some("new:1")
    );
    assert_eq!(*layer.world.received.lock(), [(7, PAYLOAD.to_vec())]);
}

#[tokio::test(start_paused = true)]
async fn names_of_members_that_are_none_are_counted_and_not_used() {
    let specific = format!("specific.{OTHER}!a");
    let fields = ["room\0work", "room\0{", "room\0", "no group\0work", "room"].map(str::to_owned);
    let fields = fields.into_iter().chain([format!("room\0{specific}")]);
    let end = Reply::BulkString(u64::MAX.to_string().into_bytes());
    let pair = |field: String| [Reply::BulkString(field.into_bytes()), end.clone()];
    let members = Reply::Array(fields.flat_map(pair).collect());
    let answer = move |words: &str| {
        Some(match words.split(' ').next() {
            Some("HGETALL") => members.clone(),
            _ => willing(words),
        })
    };
    let layer = Layer::connected(Topology::Shards, Box::new(answer)).await;
    sleep(Duration::from_millis(10)).await;
    let memberships: Vec<_> = layer.shared.plain.lock().of_group("room", 0);
    assert_eq!(memberships, ["work"]);
    assert_eq!(layer.shared.stats().malformed, 4);
}

#[tokio::test(start_paused = true)]
async fn queues_that_only_the_statistics_need_are_looked_at_in_turn() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    for ticket in 0..200 {
        layer.send(&format!("work-{ticket}"), ticket).await;
    }
    let look = |words: &str| words.starts_with("LLEN").then(|| words.to_owned());
    let looks = || {
        let mut asked = layer.servers.asked.lock();
        let asked = asked.drain(..);
        asked
            .filter_map(|(_, words)| look(&words))
            .collect::<Vec<_>>()
    };
    looks();
    let (mut seen, mut counts) = (HashSet::new(), Vec::new());
    for _ in 0..4 {
        sleep(Duration::from_secs(1)).await;
        let looks = looks();
        assert!(looks.len() <= 64, "{}", looks.len());
        counts.push(looks.len());
        seen.extend(looks);
    }
    // Those too whose message was on its way when it was last decided which queues nobody uses.
    assert_eq!(seen.len(), 200, "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_sender_does_not_wait_behind_messages_that_have_come() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    let (inbox, channel) = (layer.keys.inbox(ME), format!("specific.{ME}!a"));
    let before = layer.shared.stats().bytes_in;
    let payload = entry(&channel, OTHER, 1);
    for _ in 0..100_000 {
        layer.push(|| Push::Message {
            topic: inbox.clone().into_bytes(),
            payload: payload.clone(),
        });
    }
    layer.begin_to_send("work", 1);
    let mut answer = None;
    while answer.is_none() {
        tokio::task::yield_now().await;
        answer = layer.world.answers.lock().remove(&1);
    }
    assert_eq!(answer.and_then(|answer| answer.fault), None);
    let came = layer.shared.stats().bytes_in - before;
    assert!(came < (payload.len() * 50_000) as u64, "{came}");
}
