//! Some processes and a server, to which things happen in any order: in the end all processes have the same copy, which is the truth.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::redis::wire::envelope::{self, Body};

const PROCESSES: u64 = 4;
/// After so many beats in which nothing happens all is as it should be.
const CALM: usize = 14;

/// What happens, to the process of a number.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A channel comes, or goes.
    Turn(u8, u8),
    /// Some time passes, and all that was asked is answered.
    Beat,
    /// It asks, and the server answers its oldest request.
    Answer(u8),
    /// The oldest message that was published reaches it.
    Hear(u8),
    /// It loses its connection. Its requests fail; they may have been done.
    Cut(u8, bool),
    /// It has its connection again.
    Heal(u8),
    /// It stands still, or goes on.
    Pause(u8),
    /// It dies, and another takes its place.
    Crash(u8),
    /// The server loses all that it has.
    Flush,
}

fn steps() -> impl Strategy<Value = Step> {
    let process = || 0..u8::try_from(PROCESSES).unwrap_or(u8::MAX);
    prop_oneof![
        6 => (process(), 0..3_u8).prop_map(|(process, token)| Step::Turn(process, token)),
        4 => Just(Step::Beat),
        6 => process().prop_map(Step::Answer),
        6 => process().prop_map(Step::Hear),
        1 => (process(), any::<bool>()).prop_map(|(process, done)| Step::Cut(process, done)),
        2 => process().prop_map(Step::Heal),
        1 => process().prop_map(Step::Pause),
        1 => process().prop_map(Step::Crash),
        1 => Just(Step::Flush),
    ]
}

type Hash = BTreeMap<Vec<u8>, Vec<u8>>;

struct Process {
    part: Part,
    inbox: VecDeque<(ProcessId, Vec<Change>)>,
    requests: VecDeque<Request>,
    is_cut: bool,
    is_paused: bool,
    own: BTreeSet<String>,
}

impl Process {
    fn new(number: u64) -> Self {
        let mut part = Part::reading();
        part.cx.me = ProcessId(number);
        part.cx.shared.topics.lock().insert(HASH.to_owned());
        Self {
            part,
            inbox: VecDeque::new(),
            requests: VecDeque::new(),
            is_cut: false,
            is_paused: false,
            own: BTreeSet::new(),
        }
    }

    fn turn(&mut self, token: u8) {
        let channel = format!("specific.{}!{token}", self.part.cx.me);
        let local = &self.part.cx.local;
        if self.own.remove(&channel) {
            assert_eq!(local.presence_discard(GROUP, &channel), Ok(true));
        } else {
            assert_eq!(local.presence_add(GROUP, &channel, "ada", META), Ok(true));
            self.own.insert(channel);
        }
    }

    /// Lets it do what is due.
    fn act(&mut self) {
        let part = &mut self.part;
        part.presence.act(&mut part.cx);
        self.requests.extend(std::mem::take(&mut part.cx.requests));
    }

    fn answered(&mut self, then: Then, replies: Vec<Reply>) {
        if let Then::Presence(then) = then {
            self.part.answered(then, replies);
        }
        self.act();
    }

    fn fail(&mut self, then: Then) {
        let lost = Fault::new(FaultKind::Lost, "lost");
        if let Then::Presence(then) = then {
            let part = &mut self.part;
            assert_eq!(part.presence.failed(&mut part.cx, then, &lost), None);
        }
        self.act();
    }

    fn others(&self) -> BTreeSet<String> {
        let others = tables(&self.part.cx, |tables, _| tables.others_of(GROUP));
        let names = others.iter().map(|entry| entry.channel.to_string());
        names.collect()
    }
}

#[derive(Default)]
struct Fleet {
    processes: Vec<Process>,
    hashes: BTreeMap<Vec<u8>, Hash>,
    started: u64,
}

impl Fleet {
    fn new() -> Self {
        let mut fleet = Self::default();
        for _ in 0..PROCESSES {
            let process = fleet.start();
            fleet.processes.push(process);
        }
        fleet
    }

    fn start(&mut self) -> Process {
        self.started += 1;
        Process::new(self.started)
    }

    /// Has the server do one command.
    fn execute(&mut self, words: &[Vec<u8>]) -> Reply {
        let (name, key) = (words[0].as_slice(), words[1].clone());
        let hash = self.hashes.entry(key.clone()).or_default();
        let number = |count: usize| Reply::Int(i64::try_from(count).unwrap_or(0));
        match name {
            b"HSET" => {
                let pairs = words[2..].chunks(2);
                let new =
                    pairs.filter(|pair| hash.insert(pair[0].clone(), pair[1].clone()).is_none());
                number(new.count())
            }
            b"HDEL" => number(
                words[2..]
                    .iter()
                    .filter(|field| hash.remove(*field).is_some())
                    .count(),
            ),
            b"EXPIRE" => number(usize::from(!hash.is_empty())),
            b"HGETALL" => {
                let words = hash.iter().flat_map(|(field, value)| [field, value]);
                Reply::Array(words.cloned().map(Reply::BulkString).collect())
            }
            b"PUBLISH" => {
                let topic = String::from_utf8(key).expect("a name");
                let envelope =
                    envelope::decode(words[2].clone(), &topic, None).expect("an envelope");
                let Body::Group { payload, .. } = envelope.body else {
                    panic!("it is of another kind")
                };
                let changes = presence::changes(&payload.into_bytes()).expect("changes");
                for process in self.processes.iter_mut().filter(|process| !process.is_cut) {
                    process
                        .inbox
                        .push_back((envelope.header.sender, changes.clone()));
                }
                Reply::Int(1)
            }
            _ => panic!("{words:?} is not expected"),
        }
    }

    fn done(&mut self, request: &Request) -> Vec<Reply> {
        let commands = request.to_words();
        commands.iter().map(|words| self.execute(words)).collect()
    }

    fn answer(&mut self, place: usize) {
        self.processes[place].act();
        let process = &mut self.processes[place];
        if process.is_paused {
            return;
        }
        let Some(request) = process.requests.pop_front() else {
            return;
        };
        if process.is_cut {
            process.fail(request.then);
        } else {
            let replies = self.done(&request);
            self.processes[place].answered(request.then, replies);
        }
    }

    fn hear(&mut self, place: usize) {
        let process = &mut self.processes[place];
        if process.is_paused {
            return;
        }
        if let Some((sender, changes)) = process.inbox.pop_front() {
            let part = &mut process.part;
            part.presence.heard(&mut part.cx, GROUP, sender, changes);
        }
    }

    /// Time passes, and all is answered and heard.
    fn beat(&mut self) {
        for process in &mut self.processes {
            process.part.cx.now += Duration::from_secs(3);
            if !process.is_paused {
                process.part.presence.look_after(&mut process.part.cx);
            }
        }
        for _ in 0..60 {
            for place in 0..self.processes.len() {
                self.answer(place);
                self.hear(place);
            }
        }
    }

    fn cut(&mut self, place: usize, done: bool) {
        for request in std::mem::take(&mut self.processes[place].requests) {
            if done && !self.processes[place].is_cut {
                self.done(&request);
            }
            self.processes[place].fail(request.then);
        }
        let process = &mut self.processes[place];
        process.is_cut = true;
        process.inbox.clear();
        process.part.cx.shared.topics.lock().clear();
    }

    fn heal(&mut self, place: usize) {
        let process = &mut self.processes[place];
        if std::mem::take(&mut process.is_cut) {
            let part = &mut process.part;
            part.cx.shared.topics.lock().insert(HASH.to_owned());
            part.presence.distrust(&mut part.cx, GROUP);
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Turn(place, token) => self.processes[usize::from(place)].turn(token),
            Step::Beat => self.beat(),
            Step::Answer(place) => self.answer(place.into()),
            Step::Hear(place) => self.hear(place.into()),
            Step::Cut(place, done) => self.cut(place.into(), done),
            Step::Heal(place) => self.heal(place.into()),
            Step::Pause(place) => {
                let process = &mut self.processes[usize::from(place)];
                process.is_paused = !process.is_paused;
            }
            Step::Crash(place) => {
                let next = self.start();
                self.processes[usize::from(place)] = next;
            }
            Step::Flush => self.hashes.clear(),
        }
    }

    /// Everybody is well again.
    fn calm(&mut self) {
        for place in 0..self.processes.len() {
            self.heal(place);
            self.processes[place].is_paused = false;
        }
        for _ in 0..CALM {
            self.beat();
        }
        // Nobody is trusted for longer, so that all is read once more.
        for process in &mut self.processes {
            process.part.cx.now += Duration::from_secs(300);
        }
        self.beat();
        self.beat();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn in_the_end_all_know_who_is_there(steps in prop::collection::vec(steps(), 0..120)) {
        let mut fleet = Fleet::new();
        for step in steps {
            fleet.take(step);
        }
        fleet.calm();
        let all: BTreeSet<String> = fleet.processes.iter().flat_map(|process| process.own.clone()).collect();
        for process in &fleet.processes {
            let expected: BTreeSet<String> = all.difference(&process.own).cloned().collect();
            prop_assert_eq!(process.others(), expected);
        }
        let hash = fleet.hashes.get(HASH.as_bytes()).cloned().unwrap_or_default();
        let written: BTreeSet<String> = hash.into_keys().map(|field| String::from_utf8(field).expect("a name")).collect();
        prop_assert_eq!(written, all);
    }
}
