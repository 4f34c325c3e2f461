//! Several processes change memberships at once: in whatever order they hear of that, in the end all know what the hash says.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use proptest::prelude::*;

use super::super::node_key::NodeKey;
use super::super::request::{Request, Then};
use super::*;
use crate::redis::wire::envelope::{Control, Date};
use crate::redis::wire::keys::member_field;

const PROCESSES: usize = 4;
/// The place of the process that is of an earlier release: it says that something has changed, and not what.
const OLD: usize = 3;
const FIELDS: [(&str, &str); 3] = [("room", "work"), ("room", "mail"), ("hall", "work")];

/// What may happen next, to a process by its place.
#[derive(Clone, Debug)]
enum Step {
    /// It asks for a change of a membership.
    Ask {
        field: usize,
        joins: bool,
    },
    /// The server does what it asked for first, so many times.
    Serve(u8),
    /// The server does it, and will do it again: the connection was lost, and it may be asked for twice.
    Repeat,
    /// The connection is lost before it hears the answer, or before the server has done it.
    Lose {
        done: bool,
    },
    /// It hears the next answers.
    Answer(u8),
    /// It hears the next messages.
    Hear(u8),
    /// It loses its subscriptions, and what was on the way.
    Unsubscribe,
    Subscribe,
    /// A second is over.
    Look,
    Flush,
}

/// A process that no transport connects: the test carries its requests and messages.
struct Process {
    driver: Driver<World>,
    /// What it asked for.
    asked: VecDeque<Request>,
    answers: VecDeque<(Then, Vec<Reply>, Bytes)>,
    pushes: VecDeque<(String, Vec<u8>)>,
    subscribed: bool,
}

struct NoTransport;

impl Transport for NoTransport {
    fn open(
        &self,
        _endpoint: &Endpoint,
        _timeout: Duration,
        _pushes: Option<PushSink>,
    ) -> BoxFuture<Result<Arc<dyn Link>, Fault>> {
        Box::pin(std::future::pending())
    }
}

impl Process {
    fn new(place: usize) -> Self {
        let parts = DriverParts {
            host: Arc::default(),
            engine: Arc::new(MemoryEngine::new(Config::default(), ManualClock::default())),
            joins: Arc::default(),
            settings: Arc::new(settings(Topology::Shards)),
            keys: Keys::new("t").expect("a plain prefix"),
            me: ProcessId(place as u64 + 1),
            shared: Arc::default(),
            transport: Arc::new(NoTransport),
            sentinels: Arc::default(),
        };
        Self {
            driver: Driver::new(parts).0,
            asked: VecDeque::new(),
            answers: VecDeque::new(),
            pushes: VecDeque::new(),
            subscribed: false,
        }
    }

    /// Takes what the driver has asked for since.
    fn collect(&mut self) {
        self.asked
            .append(&mut self.driver.cx.requests.drain(..).collect());
    }

    fn unsubscribe(&mut self) {
        self.subscribed = false;
        self.pushes.clear();
        self.driver.cx.shared.topics.lock().clear();
    }

    fn subscribe(&mut self) {
        if self.subscribed {
            return;
        }
        self.subscribed = true;
        let driver = &mut self.driver;
        for topic in [driver.cx.keys.control(), driver.cx.keys.members()] {
            driver.arrivals.excuse_topic(&topic);
            driver.cx.shared.topics.lock().insert(topic);
            driver.members.subscribed(&mut driver.cx);
        }
    }

    fn answer(&mut self, is_old: bool) {
        let Some((then, replies, carried)) = self.answers.pop_front() else {
            return;
        };
        match then {
            Then::Membership { call, .. } if is_old => {
                let cx = &mut self.driver.cx;
                cx.broadcast_control(&Control::MembersChanged, call);
            }
            then => self.driver.answered(then, replies, carried),
        }
    }

    fn memberships(&self) -> BTreeMap<String, u64> {
        let plain = self.driver.cx.shared.plain.lock();
        let deadline = |(group, channel)| {
            Some((
                member_field(group, channel),
                plain.deadline(group, channel)?,
            ))
        };
        FIELDS.into_iter().filter_map(deadline).collect()
    }
}

struct Fleet {
    processes: Vec<Process>,
    hash: BTreeMap<String, u64>,
    time: u64,
}

impl Fleet {
    fn new() -> Self {
        let mut processes: Vec<_> = (0..PROCESSES).map(Process::new).collect();
        let time = processes[0].driver.cx.shared.now();
        processes.iter_mut().for_each(Process::subscribe);
        let mut world = Self {
            processes,
            hash: BTreeMap::new(),
            time,
        };
        world.settle();
        world
    }

    fn step(&mut self, place: usize, step: &Step) {
        let process = &mut self.processes[place];
        let Process { driver, .. } = process;
        match step {
            Step::Ask { field, joins } => {
                let (group, channel) = FIELDS[*field];
                let names = (group.to_owned(), channel.to_owned());
                let lasts = joins.then_some(3_600_000);
                driver.members.change(&mut driver.cx, names, lasts, None);
            }
            Step::Serve(times) => (0..*times).for_each(|_| self.serve(place)),
            Step::Repeat => self.repeat(place),
            Step::Lose { done } => {
                if *done {
                    self.serve(place);
                }
                let process = &mut self.processes[place];
                let fault = Fault::new(FaultKind::Lost, "the connection was lost");
                for (then, ..) in process.answers.drain(..) {
                    process.driver.failed(then, &fault);
                }
                for request in process.asked.drain(..) {
                    process.driver.failed(request.then, &fault);
                }
            }
            Step::Answer(times) => (0..*times).for_each(|_| process.answer(place == OLD)),
            Step::Hear(times) => {
                let count = process.pushes.len().min(usize::from(*times));
                for (topic, payload) in process.pushes.drain(..count) {
                    driver.arrived(&NodeKey::Shard(0), &topic, payload);
                }
            }
            Step::Unsubscribe => process.unsubscribe(),
            Step::Subscribe => process.subscribe(),
            Step::Look if process.subscribed => {
                driver.members.look_after(&mut driver.cx);
            }
            Step::Look => {}
            Step::Flush => {
                let cx = &mut driver.cx;
                super::super::members::flush(cx, &mut driver.queues, 1);
            }
        }
        self.processes[place].collect();
    }

    /// The server does what a process asked for first.
    fn serve(&mut self, place: usize) {
        if let Some(mut request) = self.processes[place].asked.pop_front() {
            let replies = self.replies(&mut request);
            let carried = request.carried();
            let answers = &mut self.processes[place].answers;
            answers.push_back((request.then, replies, carried));
        }
    }

    fn repeat(&mut self, place: usize) {
        if let Some(mut request) = self.processes[place].asked.pop_front() {
            if request.safe {
                self.replies(&mut request);
            }
            self.processes[place].asked.push_front(request);
        }
    }

    fn replies(&mut self, request: &mut Request) -> Vec<Reply> {
        self.time += 1;
        request.date(&Date {
            now: self.time,
            expiry: 60_000,
            crypt: None,
        });
        let (commands, carried) = (request.to_strings(), request.carried());
        let replies = commands.iter().map(|words| self.reply(words, &carried));
        replies.collect()
    }

    fn reply(&mut self, words: &str, carried: &[u8]) -> Reply {
        let words: Vec<&str> = words.split(' ').collect();
        match words[..] {
            ["HSET", "t:m", field, end] => {
                self.hash
                    .insert(field.to_owned(), end.parse().expect("an end"));
            }
            ["HDEL", "t:m", field] => {
                self.hash.remove(field);
            }
            ["DEL", "t:m"] => self.hash.clear(),
            ["HGETALL", "t:m"] => {
                let word = |text: String| Reply::BulkString(text.into_bytes());
                let words = self
                    .hash
                    .iter()
                    .flat_map(|(field, end)| [field.clone(), end.to_string()]);
                return Reply::Array(words.map(word).collect());
            }
            ["SMEMBERS", _] => return Reply::Array(Vec::new()),
            ["PUBLISH", topic, ..] => {
                for process in self
                    .processes
                    .iter_mut()
                    .filter(|process| process.subscribed)
                {
                    process
                        .pushes
                        .push_back((topic.to_owned(), carried.to_vec()));
                }
            }
            _ => assert!(words[0] == "EXPIRE" || words[0] == "DEL", "{words:?}"),
        }
        Reply::Int(1)
    }

    /// Everything that is on its way comes.
    fn settle(&mut self) {
        for place in 0..PROCESSES {
            self.step(place, &Step::Subscribe);
        }
        for _ in 0..4 {
            loop {
                let mut moved = false;
                for place in 0..PROCESSES {
                    let process = &self.processes[place];
                    moved |= !(process.asked.is_empty()
                        && process.answers.is_empty()
                        && process.pushes.is_empty());
                    for step in [Step::Serve(1), Step::Answer(1), Step::Hear(1)] {
                        self.step(place, &step);
                    }
                }
                if !moved {
                    break;
                }
            }
            for place in 0..PROCESSES {
                // Long enough for what is tried again, and not for what is done now and then.
                self.processes[place].driver.cx.now += Duration::from_secs(11);
                self.step(place, &Step::Look);
            }
        }
    }

    /// Plays the steps, lets everything come, and compares.
    fn play(steps: &[(usize, Step)]) -> Result<(), TestCaseError> {
        let mut fleet = Self::new();
        for (place, step) in steps {
            fleet.step(*place, step);
        }
        fleet.settle();
        for process in fleet.processes.iter().take(OLD) {
            prop_assert_eq!(process.memberships(), fleet.hash.clone());
            prop_assert!(process.driver.members.is_idle());
        }
        Ok(())
    }
}

fn changes() -> impl Strategy<Value = Step> {
    (0..FIELDS.len(), any::<bool>()).prop_map(|(field, joins)| Step::Ask { field, joins })
}

/// Changes, and all orders in which they are made, announced and heard.
fn usual() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => changes(),
        2 => (1..6_u8).prop_map(Step::Serve),
        2 => (1..6_u8).prop_map(Step::Answer),
        1 => (1..9_u8).prop_map(Step::Hear),
    ]
}

/// The same, with everything that goes wrong.
fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        60 => usual(),
        4 => Just(Step::Repeat),
        1 => any::<bool>().prop_map(|done| Step::Lose { done }),
        4 => Just(Step::Unsubscribe),
        8 => Just(Step::Subscribe),
        1 => Just(Step::Look),
        1 => Just(Step::Flush),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_agree_with_the_hash_in_whatever_order_changes_are_heard(
        steps in prop::collection::vec((0..OLD, usual()), 0..80),
    ) {
        Fleet::play(&steps)?;
    }

    #[test]
    fn all_agree_with_the_hash_after_lost_connections(
        steps in prop::collection::vec((0..OLD, any_step()), 0..80),
    ) {
        Fleet::play(&steps)?;
    }

    /// A process of an earlier release changes members as well.
    #[test]
    fn all_agree_with_the_hash_while_a_fleet_is_upgraded(
        steps in prop::collection::vec((0..PROCESSES, usual()), 0..80),
    ) {
        Fleet::play(&steps)?;
    }
}
