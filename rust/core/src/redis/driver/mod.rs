//! The one task that does the input and output of a layer. It makes every decision, one event after the other.
//!
//! It receives the requests of callers and the events of connections. It keeps all state, so that no lock is held across
//! an await and no two decisions race. Whatever takes time (opening, requesting, subscribing) runs in tasks of its own
//! (`io`), and its result comes back as an event.
//!
//! The driver consists of parts: servers, topics, queues and so on. Each has its own state, and depends neither on the
//! driver nor on a part above it. A part handles an event and puts its requests, answers and hand-offs into the
//! [`Context`]. What every part may do, to publish a message and to deliver one here, the context does for it (`publishing`,
//! `delivery`). `turn` defines the order in which the parts run, `handle` dispatches events, and `asked` the requests of
//! callers.
//!
//! Invariants: every request that was submitted is answered once, by a reply or by a fault, at its deadline at the latest.
//! Requests to one server are written in the order in which they were asked for.

#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::panic,
        clippy::expect_used,
        reason = "what it handles comes from servers"
    )
)]

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use self::arrivals::Arrivals;
use self::calls::Calls;
use self::context::Context;
use self::history::History;
use self::io::{Inbound, Io};
use self::members::Members;
use self::outgoing::Outgoing;
use self::peers::Peers;
use self::presence::Presence;
use self::publishing::counters;
use self::queues::Queues;
use self::refusals::Refusals;
use self::servers::Servers;
use self::status::Status;
use self::topics::Topics;
use super::host::{Answer, Host, Local};
use super::joins::Joins;
use super::link::Transport;
use super::link::sentinel::Sentinels;
use super::meter::{ConnectionState, count};
use super::settings::Settings;
use super::wire::keys::{Keys, ProcessId};

mod arrivals;
mod ask;
mod asked;
mod backlog;
mod calls;
mod changes;
mod context;
mod delivery;
mod dispatch;
mod event;
mod handle;
mod history;
mod history_then;
mod io;
mod map;
mod members;
mod node;
mod node_key;
mod outbox;
mod outgoing;
mod peers;
mod presence;
mod presence_then;
mod publishing;
mod queues;
mod refusals;
mod reply;
mod request;
mod servers;
mod shared;
mod status;
mod topics;
mod turn;
mod wanted;

pub(super) use ask::Ask;
pub(super) use backlog::Claim;
pub(super) use dispatch::Dispatch;
pub(super) use history_then::Wanted;
pub(super) use shared::Shared;

/// How often connections are checked when nothing else happens.
const HEALTH: Duration = Duration::from_secs(1);
/// How long a layer goes on sending after its last caller was dropped.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How many events are handled before what they gave is delivered.
const BATCH: usize = 512;
/// How many senders, and how many senders and topics, are watched for holes.
const WATCHED: usize = 65_536;

pub(crate) struct Driver<H: Host> {
    cx: Context<H>,
    io: Io,
    topics: Topics,
    outgoing: Outgoing,
    arrivals: Arrivals,
    peers: Peers,
    queues: Queues,
    members: Members,
    history: History,
    presence: Presence,
    status: Status,
    next_health: Instant,
}

/// What a driver is made from.
pub(crate) struct DriverParts<H: Host> {
    pub(crate) host: Arc<H>,
    pub(crate) engine: Arc<Local<H>>,
    pub(crate) joins: Arc<Joins>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) keys: Keys,
    pub(crate) me: ProcessId,
    pub(crate) shared: Arc<Shared>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) sentinels: Arc<Sentinels>,
}

impl<H: Host> Driver<H> {
    fn new(parts: DriverParts<H>) -> (Self, Inbound) {
        let now = Instant::now();
        let settings = parts.settings;
        let (io, inbound) = Io::new(parts.transport, &parts.sentinels, &settings);
        let servers = Servers::new(&settings, now);
        let driver = Self {
            io,
            topics: Topics::default(),
            outgoing: Outgoing::default(),
            arrivals: Arrivals::new(WATCHED),
            peers: Peers::default(),
            queues: Queues::default(),
            members: Members::default(),
            history: History::default(),
            presence: Presence::default(),
            status: Status::default(),
            next_health: now + HEALTH,
            cx: Context {
                counters: counters(&settings, WATCHED),
                local: parts.engine,
                joins: parts.joins,
                host: parts.host,
                settings,
                keys: parts.keys,
                me: parts.me,
                shared: parts.shared,
                now,
                servers,
                calls: Calls::default(),
                refusals: Refusals::default(),
                requests: Vec::new(),
                hand_offs: Vec::new(),
                changed: true,
            },
        };
        (driver, inbound)
    }

    /// Runs until the layer is closed, or until no caller is left.
    pub(crate) async fn run(parts: DriverParts<H>, mut asks: UnboundedReceiver<Ask<H::Ticket>>) {
        let (mut driver, mut inbound) = Self::new(parts);
        let shared = Arc::clone(&driver.cx.shared);
        shared.meter.set_state(ConnectionState::Connecting);
        driver.topics.want_own(&mut driver.cx);
        loop {
            let wake = driver.next_wake();
            tokio::select! {
                ask = asks.recv() => {
                    driver.cx.now = Instant::now();
                    let Some(ask) = ask else {
                        driver.finish_sending(&mut inbound).await;
                        return;
                    };
                    if driver.is_last(ask) {
                        driver.refuse_rest(asks);
                        return;
                    }
                }
                Some(event) = inbound.next() => {
                    driver.cx.now = Instant::now();
                    driver.handle(event);
                }
                () = tokio::time::sleep_until(wake) => driver.cx.now = Instant::now(),
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
                // The tasks that write and read the connections have to run too.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Handles the events that have come, up to a number; returns whether there may be more.
    fn handle_some(&mut self, inbound: &mut Inbound) -> bool {
        let mut more = false;
        for events in [&mut inbound.events, &mut inbound.pushes] {
            let some = std::iter::from_fn(|| events.try_recv().ok());
            let handled = some.take(BATCH).map(|event| self.handle(event)).count();
            more |= handled == BATCH;
        }
        more
    }

    /// Sends what was asked for before the last caller was dropped, for a limited time.
    async fn finish_sending(&mut self, inbound: &mut Inbound) {
        let end = Instant::now() + CLOSE_TIMEOUT;
        while !self.has_sent_all() && self.cx.now < end {
            tokio::select! {
                Some(event) = inbound.next() => {
                    self.cx.now = Instant::now();
                    self.handle(event);
                }
                () = tokio::time::sleep_until(end.min(self.next_wake())) => self.cx.now = Instant::now(),
            }
            self.end_turn();
        }
        self.close();
        self.deliver();
    }

    /// Refuses the requests that came too late.
    fn refuse_rest(&mut self, mut asks: UnboundedReceiver<Ask<H::Ticket>>) {
        asks.close();
        while let Ok(ask) = asks.try_recv() {
            count(&self.cx.shared.meter.unsent, ask.messages());
            if let Some((ticket, answer)) = ask.refused() {
                self.cx.calls.answer(ticket, answer);
            }
        }
        self.deliver();
    }

    /// Handles a request; true if it was to close.
    fn is_last(&mut self, ask: Ask<H::Ticket>) -> bool {
        let Ask::Close { ticket } = ask else {
            self.ask(ask);
            self.run_follow_ups();
            return false;
        };
        self.close();
        self.cx.calls.answer(ticket, Answer::default());
        self.deliver();
        true
    }
}

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
