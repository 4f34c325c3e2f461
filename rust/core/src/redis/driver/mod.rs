//! The one task that does the input and output of a layer: it alone decides, one event after the other.
//!
//! Callers ask it, connections tell it; it keeps all state, so that no lock is held across a wait and no two decisions
//! race. What takes time (opening, asking, subscribing) runs beside it and comes back as an event.
//!
//! Invariants: every request that was submitted is answered once, by a reply or by a fault, at its deadline at the latest.
//! Requests to one server are written in the order in which they were asked for.

mod arrivals;
mod ask;
mod away;
mod backlog;
mod discovery;
mod event;
mod health;
mod members;
mod node;
mod node_key;
mod nodes;
mod outbox;
mod queues;
mod refusals;
mod request;
mod requests;
mod sends;
mod shared;
mod shrinking;
mod subscribing;
mod taking;
mod tallies;
mod topics;
mod wanted;

pub(super) use ask::Ask;
pub(super) use backlog::Claim;
pub(super) use sends::Dispatch;
pub(super) use shared::Shared;

use std::collections::{HashMap, HashSet, VecDeque};
use std::mem::Discriminant;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;
use tokio::sync::mpsc::{unbounded_channel, UnboundedReceiver, UnboundedSender};
use tokio::time::Instant;

use self::discovery::Map;
use self::event::Event;
use self::members::BeforeMembers;
use self::node::Node;
use self::node_key::NodeKey;
use self::outbox::Outbox;
use self::queues::Queue;
use self::refusals::Refusals;
use self::request::Request;
use self::tallies::Tally;
use self::wanted::Topics;
use crate::handoff::HandOff;
use crate::memory::MemoryEngine;
use crate::redis::fault::{Fault, FaultKind};
use crate::redis::host::{Answer, Host};
use crate::redis::link::Transport;
use crate::redis::meter::{count, ConnectionState};
use crate::redis::notice::Notice;
use crate::redis::settings::Settings;
use crate::redis::wire::crypt::Version;
use crate::redis::wire::envelope::Control;
use crate::redis::wire::keys::{Keys, ProcessId};
use crate::redis::wire::sequence::{Counters, Sequences};
use crate::sync::assert_unlocked;

/// How often connections are looked after when nothing else happens.
const HEALTH: Duration = Duration::from_secs(1);
/// How often, while somebody waits for a connection or an answer.
const BUSY: Duration = Duration::from_millis(25);
/// How long a layer that nobody holds any more goes on to send what it was given.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How many events are handled before what they gave is delivered.
const BATCH: usize = 512;
/// How many senders, and how many senders and topics, are watched for holes.
const WATCHED: usize = 65_536;

pub(super) type Local<H> =
    MemoryEngine<<H as Host>::Message, <H as Host>::Waiter, <H as Host>::Clock>;

#[expect(
    clippy::struct_excessive_bools,
    reason = "each says of another thing whether it has to be seen to"
)]
pub(crate) struct Driver<H: Host> {
    // Dropped in this order: the host knows where the engine may be dropped.
    engine: Arc<Local<H>>,
    host: Arc<H>,
    settings: Arc<Settings>,
    keys: Keys,
    me: ProcessId,
    shared: Arc<Shared>,
    transport: Arc<dyn Transport>,
    /// What the connections that ask say, and what else is to be handled at once.
    events: UnboundedSender<Event>,
    /// What those say that subscribe, in its order.
    pushes: UnboundedSender<Event>,
    now: Instant,

    map: Map,
    /// A look at the map is under way, or was so lately.
    mapping: bool,
    next_mapping: Instant,
    nodes: HashMap<NodeKey, Node>,
    /// Counts the attempts to connect. A server that leaves a cluster and comes back is none that was known before.
    attempts: u64,
    /// Whether all connections so far could carry sharded channels.
    sharding: bool,
    /// Requests that cannot be sent before the map is known.
    unrouted: Outbox,
    /// Requests to be sent again at their time.
    delayed: Vec<(Instant, Request)>,
    /// Messages for which there is no room yet, in their order.
    crowd: VecDeque<(Vec<Dispatch>, usize)>,
    /// Why the last attempt to connect failed.
    last_fault: Option<Fault>,
    /// Why the map is not known, if the last look failed and none succeeded.
    unmapped: Option<Fault>,

    topics: Topics,
    /// Slots have moved, and the topics have not been given their places since.
    to_place: bool,
    /// Who waits for a confirmation, by the time at which that is given up.
    waits: VecDeque<(Instant, String)>,
    /// Something has changed about topics or connections since it was last seen whether all is whole.
    changed: bool,
    /// Some topics were not confirmed then.
    awaiting: bool,
    /// Topics that may have missed messages since the connection was whole.
    lost: Vec<String>,
    /// A connection was made, or all topics of one were confirmed, since that was last told.
    node_is_back: bool,
    disconnected: bool,
    /// Nothing could be reached since all was whole, and the owner was told.
    unreached: bool,

    queues: HashMap<String, Queue>,
    /// Counts the looks at how long a queue is.
    looks: u64,
    /// The plain members of groups have been read once.
    members_read: bool,
    /// They are being read, and have changed since that was asked for.
    members_loading: bool,
    members_stale: bool,
    /// What waits for that.
    before_members: Vec<BeforeMembers>,
    tallies: Slab<Tally<H::Ticket>>,
    /// What other processes were told, and who waits for them to say that it is done.
    told: HashMap<u64, (usize, Instant)>,
    next_told: u64,
    /// What is to be told as soon as the answer can come.
    to_tell: Vec<(ProcessId, Control, usize, Instant)>,
    /// Messages that were given up and that nobody waits for, and why the latest was, until the owner is told.
    unsent: Option<(u64, Fault)>,
    /// What the owner was told of once, and is not told of again.
    told_once: HashSet<Discriminant<Notice>>,
    /// Probes of the way through the server and back, by number.
    probe: Option<(u64, Instant)>,

    sequences: Sequences,
    counters: Counters,
    refusals: Refusals,
    /// Messages on their way to a server.
    outstanding: usize,
    drains: Vec<usize>,
    connects: Vec<(usize, Instant)>,
    next_health: Instant,

    answers: Vec<(H::Ticket, Answer)>,
    hand_offs: Vec<HandOff<H::Message, H::Waiter>>,
}

/// What the driver is told. Messages may come faster than they can be delivered: a sender does not wait behind them for its
/// answer.
struct Inbound {
    events: UnboundedReceiver<Event>,
    pushes: UnboundedReceiver<Event>,
}

/// What a driver is made from.
pub(crate) struct Parts<H: Host> {
    pub(crate) host: Arc<H>,
    pub(crate) engine: Arc<Local<H>>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) keys: Keys,
    pub(crate) me: ProcessId,
    pub(crate) shared: Arc<Shared>,
    pub(crate) transport: Arc<dyn Transport>,
}

impl<H: Host> Driver<H> {
    fn new(parts: Parts<H>) -> (Self, Inbound) {
        let now = Instant::now();
        let map = Map::first(&parts.settings);
        let counters = match &parts.settings.crypt {
            Some(crypt) if crypt.sends(Version::Two) => Counters::rising(WATCHED),
            _ => Counters::new(WATCHED),
        };
        let (events, handled_first) = unbounded_channel();
        let (pushes, in_order) = unbounded_channel();
        let inbound = Inbound {
            events: handled_first,
            pushes: in_order,
        };
        let driver = Self {
            host: parts.host,
            engine: parts.engine,
            settings: parts.settings,
            keys: parts.keys,
            me: parts.me,
            shared: parts.shared,
            transport: parts.transport,
            events,
            pushes,
            now,
            map,
            mapping: false,
            next_mapping: now,
            nodes: HashMap::new(),
            attempts: 0,
            sharding: true,
            unrouted: Outbox::default(),
            delayed: Vec::new(),
            crowd: VecDeque::new(),
            last_fault: None,
            unmapped: None,
            topics: Topics::default(),
            to_place: false,
            waits: VecDeque::new(),
            changed: true,
            awaiting: true,
            lost: Vec::new(),
            node_is_back: false,
            disconnected: false,
            unreached: false,
            queues: HashMap::new(),
            looks: 0,
            members_read: false,
            members_loading: false,
            members_stale: false,
            before_members: Vec::new(),
            tallies: Slab::new(),
            told: HashMap::new(),
            next_told: 0,
            to_tell: Vec::new(),
            unsent: None,
            told_once: HashSet::new(),
            probe: None,
            sequences: Sequences::new(WATCHED),
            counters,
            refusals: Refusals::default(),
            outstanding: 0,
            drains: Vec::new(),
            connects: Vec::new(),
            next_health: now + HEALTH,
            answers: Vec::new(),
            hand_offs: Vec::new(),
        };
        (driver, inbound)
    }

    /// Runs until the layer is closed, or until nobody is left who could ask.
    pub(crate) async fn run(parts: Parts<H>, mut asks: UnboundedReceiver<Ask<H::Ticket>>) {
        let (mut driver, mut inbound) = Self::new(parts);
        driver.shared.meter.set_state(ConnectionState::Connecting);
        driver.subscribe_to_own_topics();
        loop {
            let wake = driver.next_wake();
            tokio::select! {
                ask = asks.recv() => {
                    driver.now = Instant::now();
                    let Some(ask) = ask else {
                        driver.finish_sending(&mut inbound).await;
                        return;
                    };
                    if driver.is_last(ask) {
                        driver.refuse_rest(asks);
                        return;
                    }
                }
                Some(event) = inbound.events.recv() => {
                    driver.now = Instant::now();
                    driver.handle(event);
                }
                Some(event) = inbound.pushes.recv() => {
                    driver.now = Instant::now();
                    driver.handle(event);
                }
                () = tokio::time::sleep_until(wake) => driver.now = Instant::now(),
            }
            let more = driver.handle_some(&mut inbound);
            for _ in 0..BATCH {
                let Ok(ask) = asks.try_recv() else { break };
                if driver.is_last(ask) {
                    driver.refuse_rest(asks);
                    return;
                }
            }
            driver.end_turn();
            if more {
                // Who writes and reads the connections has a turn too.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Handles what has come, up to a number; tells whether there may be more.
    fn handle_some(&mut self, inbound: &mut Inbound) -> bool {
        let mut more = false;
        for events in [&mut inbound.events, &mut inbound.pushes] {
            let some = std::iter::from_fn(|| events.try_recv().ok());
            let handled = some.take(BATCH).map(|event| self.handle(event)).count();
            more |= handled == BATCH;
        }
        more
    }

    /// Nobody is left who could ask; what was asked for before still goes out, if that does not take long.
    async fn finish_sending(&mut self, inbound: &mut Inbound) {
        let end = Instant::now() + LAST_WORDS;
        while !self.has_carried_all() && self.now < end {
            tokio::select! {
                Some(event) = inbound.events.recv() => {
                    self.now = Instant::now();
                    self.handle(event);
                }
                Some(event) = inbound.pushes.recv() => {
                    self.now = Instant::now();
                    self.handle(event);
                }
                () = tokio::time::sleep_until(end.min(self.next_wake())) => self.now = Instant::now(),
            }
            self.end_turn();
        }
        self.close();
        self.deliver();
    }

    /// Answers those who asked too late.
    fn refuse_rest(&mut self, mut asks: UnboundedReceiver<Ask<H::Ticket>>) {
        asks.close();
        while let Ok(ask) = asks.try_recv() {
            count(&self.shared.meter.unsent, ask.messages());
            self.answers.extend(ask.refused());
        }
        self.deliver();
    }

    /// Does what was asked; true if that was to end.
    fn is_last(&mut self, ask: Ask<H::Ticket>) -> bool {
        let Ask::Close { ticket } = ask else {
            self.ask(ask);
            return false;
        };
        self.close();
        self.answers.push((ticket, Answer::default()));
        self.deliver();
        true
    }

    fn ask(&mut self, ask: Ask<H::Ticket>) {
        match ask {
            Ask::Connect { ticket } => {
                let tally = self.tally(1, Some(ticket));
                self.connects.push((tally, self.until()));
            }
            Ask::Carry {
                dispatch,
                claim,
                ticket,
            } => self.carry_when_there_is_room([dispatch], claim, ticket),
            Ask::CarryAll {
                dispatches,
                claim,
                ticket,
            } => self.carry_when_there_is_room(dispatches, claim, Some(ticket)),
            Ask::Subscribe { topic, ticket } => {
                let tally = self.tally(1, Some(ticket));
                self.want_topic(&topic, Some(tally));
            }
            Ask::Membership {
                group,
                channel,
                lasts,
                ticket,
            } => {
                let tally = self.tally(1, ticket);
                self.change_membership(group, channel, lasts, tally);
            }
            Ask::Tell {
                process,
                control,
                ticket,
            } => {
                let tally = self.tally(1, Some(ticket));
                // Not before the answer can come.
                if self.is_connected() {
                    self.tell(process, control, tally);
                } else {
                    let until = self.until();
                    self.to_tell.push((process, control, tally, until));
                }
            }
            Ask::CloseQueue { channel } => self.close_queue(&channel),
            Ask::Want { channel } => self.want(&channel),
            Ask::Fetch {
                channel,
                most,
                ticket,
            } => {
                let tally = self.tally(1, Some(ticket));
                self.fetch_for(&channel, most, tally);
            }
            Ask::Flush { ticket } => {
                let tally = self.tally(1, Some(ticket));
                self.flush(tally);
            }
            Ask::Drain { ending, ticket } => {
                if ending {
                    self.hand_back_all();
                }
                let tally = self.tally(1, Some(ticket));
                self.drains.push(tally);
            }
            Ask::Close { .. } => {}
        }
    }

    fn tell_unsent(&mut self) {
        if let Some((messages, fault)) = self.unsent.take() {
            let reason = fault.to_string();
            self.shared.notice(Notice::Unsent { messages, reason });
        }
    }

    /// Tells the owner of the first of many that are only counted.
    pub(super) fn tell_once(&mut self, notice: Notice) {
        if self.told_once.insert(std::mem::discriminant(&notice)) {
            self.shared.notice(notice);
        }
    }

    fn next_wake(&self) -> Instant {
        let busy = self.waits_to_be_written()
            || !self.delayed.is_empty()
            || !self.connects.is_empty()
            || !self.to_tell.is_empty()
            || !self.told.is_empty()
            || !self.crowd.is_empty()
            || self.awaiting
            || self.needs_map();
        let soon = Instant::now() + BUSY;
        let links = self.nodes.values().filter_map(Node::next_attempt).min();
        let health = self.next_health.min(links.unwrap_or(self.next_health));
        if busy {
            health.min(soon)
        } else {
            health
        }
    }

    fn end_turn(&mut self) {
        self.look_for_map();
        if std::mem::take(&mut self.to_place) {
            self.place_topics();
        }
        self.attempt_links();
        self.resubmit_delayed();
        self.give_up_late();
        if self.now >= self.next_health {
            self.next_health = self.now + HEALTH;
            self.check_links();
            self.sweep_topics();
            self.audit_queues();
            self.shrink_tables();
            self.tell_unsent();
        }
        self.tell_what_waits();
        self.admit_crowd();
        self.write();
        self.write_changes();
        self.note_away();
        if std::mem::take(&mut self.changed) {
            self.note_state();
        }
        self.answer_waiting();
        self.deliver();
    }

    fn give_up_late(&mut self) {
        self.give_up_requests();
        let now = self.now;
        let late: Vec<u64> = self
            .told
            .iter()
            .filter(|(_, (_, until))| *until <= now)
            .map(|(number, _)| *number)
            .collect();
        for number in late {
            if let Some((tally, _)) = self.told.remove(&number) {
                let text = "the process of that channel did not answer in time";
                self.finish_with(tally, Fault::new(FaultKind::Timeout, text));
            }
        }
        self.give_up_waits();
        self.ask_again_for_refused();
    }

    fn tell_what_waits(&mut self) {
        if self.to_tell.is_empty() {
            return;
        }
        let up = self.is_connected();
        for (process, control, tally, until) in std::mem::take(&mut self.to_tell) {
            if up {
                self.tell(process, control, tally);
            } else if let Some(fault) = self.not_connected(until) {
                self.finish_with(tally, fault);
            } else {
                self.to_tell.push((process, control, tally, until));
            }
        }
    }

    fn answer_connects(&mut self) {
        if self.connects.is_empty() {
            return;
        }
        let up = self.is_connected();
        for (tally, until) in std::mem::take(&mut self.connects) {
            if up {
                self.finish(tally, |_| {});
            } else if let Some(fault) = self.not_connected(until) {
                self.finish_with(tally, fault);
            } else {
                self.connects.push((tally, until));
            }
        }
    }

    fn answer_waiting(&mut self) {
        self.answer_connects();
        if self.has_carried_all() && self.before_members.is_empty() {
            for tally in std::mem::take(&mut self.drains) {
                self.finish_when_back(tally);
            }
        }
    }

    fn deliver(&mut self) {
        if !self.answers.is_empty() || !self.hand_offs.is_empty() {
            let answers = std::mem::take(&mut self.answers);
            let hand_offs = std::mem::take(&mut self.hand_offs);
            assert_unlocked();
            self.host.deliver(answers, hand_offs);
        }
    }

    fn close(&mut self) {
        let fault = match &self.last_fault {
            // What waited for a server that is away: whoever reads of it wants to know of that too.
            Some(cause) if !self.is_connected() => {
                let text = format!("the layer was closed before a server was reached: {cause}");
                Fault::new(FaultKind::Closed, text).because_of(cause.clone())
            }
            _ => Fault::new(FaultKind::Closed, "the layer was closed"),
        };
        self.give_up_all(&fault);
        for (messages, _) in self.crowd.drain(..) {
            count(&self.shared.meter.unsent, messages.len() as u64);
        }
        let tallies: Vec<usize> = self.tallies.iter().map(|(tally, _)| tally).collect();
        for tally in tallies {
            let mut done = self.tallies.remove(tally);
            done.answer.fault = Some(fault.clone());
            self.close_tally(done);
        }
        self.tell_unsent();
        self.shared.meter.set_state(ConnectionState::Closed);
        self.shared.notices.end();
    }
}

#[cfg(test)]
mod tests;
