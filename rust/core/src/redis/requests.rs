//! What is asked of the servers: where it goes, when it is given up, and what follows from the answer.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use tokio::time::Instant;

use super::connection::{Command, Refusal, Reply};
use super::discovery::address;
use super::discovery::Map;
use super::driver::Driver;
use super::envelope::Date;
use super::fault::{Fault, FaultKind};
use super::host::Host;
use super::keys::hash_slot;
use super::nodes::{Event, NodeKey, Role};
use super::outbox::Outbox;
use super::queues::Pushed;
use super::shared::{count, smooth};

/// How much is written to a server before it has answered, in bytes, and a request more: enough to keep it busy, and little
/// enough for it to answer in time whether it is there. What waits is held once, and what is written several times.
const WINDOW: usize = 2 << 20;
/// How long to wait before something is asked again that the server cannot do just now.
const AGAIN: std::time::Duration = std::time::Duration::from_millis(50);

/// Some commands for one server, and what to do with the answers.
#[derive(Debug)]
pub(super) struct Request {
    place: Place,
    commands: Vec<Command>,
    /// The answers so far, if some of the commands have to be asked again; empty until then.
    answers: Vec<Option<Reply>>,
    /// When it is given up.
    pub(super) until: Instant,
    /// Doing it twice is doing it once: it may be sent again though it is not known whether it was done.
    safe: bool,
    /// The server that it goes to has to be told that it was named by another.
    asking: bool,
    pub(super) then: Then,
}

#[derive(Clone, Debug)]
enum Place {
    /// Where this name belongs among shards, and this slot in a cluster.
    Name { name: String, slot: u16 },
    /// To this server.
    Node(NodeKey),
}

/// What follows from the answers.
#[derive(Debug)]
pub(super) enum Then {
    Ignored,
    Published {
        tally: usize,
        at: Instant,
        /// To the inbox of a process: if nobody gets it, the process is gone.
        inbox: bool,
    },
    /// The name of a queue was put into the index.
    Indexed {
        channel: String,
    },
    /// An entry was pushed to a queue.
    Queued(Pushed),
    /// The oldest entries of a full queue.
    Oldest(Pushed),
    /// Expired ones were removed, and these are beyond the capacity still.
    Pruned(Pushed),
    /// The entry was withdrawn from a full queue, if nobody had taken it.
    Withdrawn(Pushed),
    /// Entries were moved to the list of what this process takes.
    Fetched {
        channel: String,
        asked: usize,
        tally: Option<usize>,
    },
    /// Entries were removed from that list.
    Acknowledged {
        channel: String,
        entries: Vec<u64>,
    },
    /// Messages went back to the front of their queue.
    HandedBack {
        tally: usize,
        messages: u64,
    },
    /// What that list held when the connection was back.
    Recovered {
        channel: String,
    },
    Members,
    Membership {
        group: String,
        channel: String,
        /// In milliseconds; none if it has ended.
        lasts: Option<u64>,
        tally: usize,
    },
    /// The names of the queues that are to be removed.
    Index {
        tally: usize,
        /// Those that were found, and where else to look.
        names: BTreeSet<String>,
        hours: RangeInclusive<u64>,
    },
    /// Part of a flush.
    Removed {
        tally: usize,
        queue: bool,
    },
}

impl Then {
    fn carries_a_message(&self) -> bool {
        matches!(
            self,
            Self::Published { .. }
                | Self::Queued(_)
                | Self::Oldest(_)
                | Self::Pruned(_)
                | Self::Withdrawn(_)
                | Self::HandedBack { .. }
        )
    }
}

impl Request {
    /// A request to where the name belongs; the key decides in a cluster.
    pub(super) fn new(
        name: &str,
        key: &str,
        commands: Vec<Command>,
        until: Instant,
        then: Then,
    ) -> Self {
        Self {
            place: Place::Name {
                name: name.to_owned(),
                slot: hash_slot(key.as_bytes()),
            },
            commands,
            answers: Vec::new(),
            until,
            safe: false,
            asking: false,
            then,
        }
    }

    /// A request to one server, whatever it is about.
    pub(super) fn to(node: NodeKey, commands: Vec<Command>, until: Instant, then: Then) -> Self {
        Self {
            place: Place::Node(node),
            commands,
            answers: Vec::new(),
            until,
            safe: false,
            asking: false,
            then,
        }
    }

    pub(super) fn safe(mut self) -> Self {
        self.safe = true;
        self
    }

    /// Sets what depends on the server that it is written to, and on the time there, which it is now.
    fn date(&mut self, date: &Date<'_>) {
        for command in &mut self.commands {
            command.date(date);
        }
    }

    /// Roughly how many bytes it takes on the wire.
    pub(super) fn len(&self) -> usize {
        self.commands.iter().map(Command::len).sum()
    }

    /// Whether it is about a topic and no key.
    fn publishes(&self) -> bool {
        self.commands.first().is_some_and(Command::is_publish)
    }

    /// The commands that are still to be asked.
    fn open(&self) -> impl Iterator<Item = &Command> {
        let is_open = |index: &usize| self.answers.get(*index).is_none_or(Option::is_none);
        let indexed = self.commands.iter().enumerate();
        indexed.filter_map(move |(index, command)| is_open(&index).then_some(command))
    }

    /// How many answers the server gives.
    fn replies(&self) -> usize {
        self.open().count() * if self.asking { 2 } else { 1 }
    }

    /// Keeps the answers of what was done. While a slot moves some of the commands may be done where it was, and the others
    /// have to be asked where it is now: what was done must not be done twice, and what it gave must not be lost.
    fn keep(&mut self, replies: Vec<Reply>) {
        self.answers.resize(self.commands.len(), None);
        let mut refused = false;
        let open = self
            .commands
            .iter()
            .zip(&mut self.answers)
            .filter(|(_, answer)| answer.is_none());
        for ((command, answer), reply) in open.zip(replies) {
            let again = passing(&reply).is_some();
            refused |= again;
            // A bell that rang for what was not there yet has to ring again.
            if !(again || refused && command.is_publish()) {
                *answer = Some(reply);
            }
        }
    }

    /// All answers, with these for those that were missing.
    fn complete(&mut self, replies: Vec<Reply>) -> Vec<Reply> {
        if self.answers.is_empty() {
            return replies;
        }
        let mut replies = replies.into_iter();
        let answers = std::mem::take(&mut self.answers).into_iter();
        answers
            .filter_map(|answer| answer.or_else(|| replies.next()))
            .collect()
    }
}

/// The refusal that an answer is, if it will pass.
fn passing(reply: &Reply) -> Option<Refusal> {
    Refusal::of(reply).filter(Refusal::passes)
}

impl<H: Host> Driver<H> {
    /// Sends a request as soon as there is a connection for it.
    pub(super) fn submit(&mut self, request: Request) {
        if request.then.carries_a_message() {
            self.outstanding += 1;
        }
        self.route(request);
    }

    /// Sends a request before all that wait for the same connection.
    pub(super) fn submit_first(&mut self, request: Request) {
        let node = self.place_of(&request);
        match node.and_then(|key| self.node_entry(&key)) {
            Some(node) => node.outbox.push_front(request),
            None => self.unrouted.push_front(request),
        }
    }

    fn place_of(&self, request: &Request) -> Option<NodeKey> {
        match &request.place {
            Place::Node(node) => Some(node.clone()),
            Place::Name { name, slot } if request.publishes() => {
                self.node_of_published(name, *slot)
            }
            Place::Name { name, slot } => self.node_of(name, *slot),
        }
    }

    fn route(&mut self, request: Request) {
        let node = self.place_of(&request);
        match node.and_then(|key| self.node_entry(&key)) {
            Some(node) => node.outbox.push_back(request),
            None => self.unrouted.push_back(request),
        }
    }

    /// Sends those that had nowhere to go.
    pub(super) fn route_again(&mut self) {
        for request in self.unrouted.take() {
            self.route(request);
        }
    }

    /// Takes what waited for a server that is no part of the cluster any more.
    pub(super) fn reroute(&mut self, mut outbox: Outbox) {
        for request in outbox.take() {
            match request.place {
                Place::Name { .. } => self.route(request),
                Place::Node(_) => {
                    let fault = Fault::new(FaultKind::Lost, "the server has left the cluster");
                    self.fail(request, &fault);
                }
            }
        }
    }

    /// Writes what waits, wherever there is a connection.
    pub(super) fn write(&mut self) {
        let (sharded, expiry) = (self.publishes_sharded(), self.expiry_ms());
        for (key, node) in &mut self.nodes {
            let Some(link) = node.writer.link() else {
                continue;
            };
            let time = node.clock.map(|clock| clock.milliseconds(self.now));
            let date = Date {
                now: time.unwrap_or_else(|| self.shared.now()),
                expiry,
                crypt: self.settings.crypt.as_deref(),
            };
            while node.unanswered < WINDOW && !node.outbox.is_empty() {
                let room = WINDOW - node.unanswered;
                let (mut requests, bytes) = node.outbox.pipeline(room);
                node.unanswered += bytes;
                let mut commands = Vec::with_capacity(requests.len() * 2);
                let mut until = self.now;
                for request in &mut requests {
                    request.date(&date);
                    until = until.max(request.until);
                    for command in request.open() {
                        if request.asking {
                            commands.push(Command::new("ASKING"));
                        }
                        commands.push(command.clone().published(sharded));
                    }
                }
                let answer = link.request(&commands);
                let (events, node, generation) =
                    (self.events.clone(), key.clone(), node.writer.generation);
                tokio::spawn(async move {
                    let replies = match tokio::time::timeout_at(until, answer).await {
                        Ok(replies) => replies,
                        Err(_) => Err(Fault::new(
                            FaultKind::Timeout,
                            "the server did not answer in time; it may have taken the message",
                        )),
                    };
                    let _ = events.send(Event::Replied {
                        node,
                        generation,
                        requests,
                        bytes,
                        replies,
                    });
                });
            }
        }
    }

    pub(super) fn replied(
        &mut self,
        node: &NodeKey,
        generation: u64,
        requests: Vec<Request>,
        bytes: usize,
        replies: Result<Vec<Reply>, Fault>,
    ) {
        self.note_answered(node, generation, bytes);
        let replies = match replies {
            Ok(replies) => replies,
            Err(fault) => {
                self.lose(node, Role::Writer, generation, &fault);
                for request in requests {
                    if request.safe && request.until > self.now {
                        self.route(request);
                    } else {
                        self.fail(request, &fault);
                    }
                }
                return;
            }
        };
        let mut replies = replies.into_iter();
        for request in requests {
            let own: Vec<Reply> = replies.by_ref().take(request.replies()).collect();
            let own: Vec<Reply> = if request.asking {
                own.into_iter().skip(1).step_by(2).collect()
            } else {
                own
            };
            self.answered(node, generation, request, own);
        }
    }

    fn answered(
        &mut self,
        node: &NodeKey,
        generation: u64,
        mut request: Request,
        replies: Vec<Reply>,
    ) {
        let in_the_way = replies.iter().find_map(passing);
        if let Some(refusal) = in_the_way.filter(|_| request.until > self.now) {
            request.keep(replies);
            self.ask_again(node, generation, request, refusal);
            return;
        }
        let replies = request.complete(replies);
        if let Some(refusal) = replies.first().and_then(Refusal::of) {
            self.fail(request, &refusal.into_fault());
            return;
        }
        if request.then.carries_a_message() {
            self.outstanding -= 1;
        }
        let carried = request.commands.first().and_then(Command::carried);
        let carried = carried.cloned().unwrap_or_default();
        self.then(request.then, replies, carried);
    }

    /// Asks where the server says, or here in a while.
    fn ask_again(
        &mut self,
        node: &NodeKey,
        generation: u64,
        mut request: Request,
        refusal: Refusal,
    ) {
        if matches!(self.map, Map::Shards) && refusal.elsewhere().is_some() {
            let text = "the server is part of a cluster: set the topology to \"cluster\"";
            self.fail(request, &Fault::new(FaultKind::Refused, text));
            return;
        }
        request.asking = false;
        match (refusal.elsewhere(), refusal.code.as_str()) {
            (Some((slot, host, port)), "MOVED") => {
                self.moved(node, slot, &host, port);
                self.route(request);
            }
            (Some((_, host, port)), _) => {
                let key = address(node, &host, port);
                request.asking = true;
                match self.node_entry(&key) {
                    Some(node) => node.outbox.push_back(request),
                    None => self.unrouted.push_back(request),
                }
            }
            (None, code) => {
                if code == "READONLY" {
                    self.last_fault = Some(refusal.clone().into_fault());
                    let fault = refusal.into_fault();
                    self.demoted(node, generation, &fault);
                } else {
                    self.remap();
                }
                self.delayed.push((self.now + AGAIN, request));
            }
        }
    }

    pub(super) fn resubmit_delayed(&mut self) {
        let now = self.now;
        for (at, request) in std::mem::take(&mut self.delayed) {
            if at <= now {
                self.route(request);
            } else {
                self.delayed.push((at, request));
            }
        }
    }

    /// Gives up what has waited too long for a connection.
    pub(super) fn give_up_requests(&mut self) {
        let now = self.now;
        let mut late = Vec::new();
        for node in self.nodes.values_mut() {
            late.extend(node.outbox.take_late(now));
        }
        late.extend(self.unrouted.take_late(now));
        for request in late {
            let fault = self.unreachable();
            self.fail(request, &fault);
        }
        self.give_up_in_vain();
    }

    pub(super) fn give_up_all(&mut self, fault: &Fault) {
        let mut all: Vec<Request> = self.unrouted.take().collect();
        for node in self.nodes.values_mut() {
            all.extend(node.outbox.take());
        }
        all.extend(self.delayed.drain(..).map(|(_, request)| request));
        for request in all {
            self.fail(request, fault);
        }
        self.nodes.clear();
    }

    fn then(&mut self, then: Then, replies: Vec<Reply>, carried: Arc<[u8]>) {
        match then {
            Then::Ignored | Then::Indexed { .. } => {}
            Then::Published { tally, at, inbox } => {
                let receivers = integer(replies.first());
                count(&self.shared.meter.published, 1);
                smooth(&self.shared.meter.publish_latency, self.now - at);
                if inbox && receivers == 0 {
                    count(&self.shared.meter.unreachable, 1);
                }
                self.finish(tally, |answer| answer.receivers += receivers);
            }
            Then::Queued(pushed) => self.queued(pushed, carried, replies),
            Then::Oldest(pushed) => self.prune(pushed, replies),
            Then::Pruned(pushed) => self.pruned(pushed, replies),
            Then::Withdrawn(pushed) => self.withdrawn(&pushed, &replies),
            Then::Fetched {
                channel,
                asked,
                tally,
            } => self.fetched(&channel, asked, tally, replies),
            Then::Acknowledged { channel, entries } => self.acknowledged(&channel, &entries),
            Then::HandedBack { tally, .. } => self.finish(tally, |_| {}),
            Then::Recovered { channel } => self.recovered(&channel, replies),
            Then::Members => self.read_members(replies),
            Then::Membership {
                group,
                channel,
                lasts,
                tally,
            } => self.membership_changed(&group, &channel, lasts, tally),
            Then::Index {
                tally,
                names,
                hours,
            } => self.index_read(tally, names, hours, replies),
            Then::Removed { tally, queue } => self.removed(tally, queue, &replies),
        }
    }

    /// It was not done, or it is not known whether it was.
    pub(super) fn fail(&mut self, request: Request, fault: &Fault) {
        if request.then.carries_a_message() {
            self.outstanding -= 1;
            count(&self.shared.meter.unsent, 1);
        }
        match request.then {
            // The members are read again when the control topic is confirmed again.
            Then::Ignored | Then::Acknowledged { .. } => {}
            Then::Recovered { channel } => self.not_recovered(&channel, fault),
            Then::Members => self.members_unread(fault),
            Then::Fetched {
                channel,
                asked,
                tally,
            } => {
                self.fetch_failed(&channel, asked);
                self.be_unsure(&channel);
                if let Some(tally) = tally {
                    self.finish_with(tally, fault.clone());
                }
            }
            Then::Indexed { channel } => self.index_failed(&channel),
            Then::HandedBack { tally, messages } => {
                count(&self.shared.meter.queue_dropped, messages);
                self.finish_with(tally, fault.clone());
            }
            Then::Queued(Pushed {
                tally,
                channel,
                follows,
                ..
            }) => {
                if follows {
                    self.push_failed(&channel);
                }
                self.finish_with(tally, fault.clone());
            }
            Then::Published { tally, .. }
            | Then::Oldest(Pushed { tally, .. })
            | Then::Pruned(Pushed { tally, .. })
            | Then::Withdrawn(Pushed { tally, .. })
            | Then::Membership { tally, .. }
            | Then::Index { tally, .. }
            | Then::Removed { tally, .. } => self.finish_with(tally, fault.clone()),
        }
    }
}

/// The number that the server answered; 0 if it answered anything else.
pub(super) fn integer(reply: Option<&Reply>) -> u64 {
    match reply {
        Some(Reply::Int(number)) => u64::try_from(*number).unwrap_or(0),
        _ => 0,
    }
}
