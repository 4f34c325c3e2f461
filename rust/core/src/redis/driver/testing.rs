//! What the tests of the driver and of its parts begin with.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::calls::Calls;
use super::context::Context;
use super::publishing::counters;
use super::refusals::Refusals;
use super::servers::Servers;
use crate::clock::ManualClock;
use crate::config::Config;
use crate::handoff::HandOff;
use crate::history::{HistoryRules, Stamp, Stamped};
use crate::memory::MemoryEngine;
use crate::presence::{PresenceRules, Presences};
use crate::redis::fault::Fault;
use crate::redis::host::{Answer, Host, RawMessage};
use crate::redis::link::{BoxFuture, Change, Command, Link, Refusal, Reply};
use crate::redis::settings::{
    Counted, Endpoint, Protocol, Server, Settings, SocketAddress, Topology,
};
use crate::redis::wire::form::Wire;
use crate::redis::wire::keys::{Keys, ProcessId};
use crate::redis::wire::ring::Ring;
use crate::sync::Mutex;

pub(super) const ME: ProcessId = ProcessId(0x0123_4567_89ab_cdef);
pub(super) const OTHER: ProcessId = ProcessId(0xfedc_ba98_7654_3210);
/// Messages are their payloads, waiters and tickets are numbers.
#[derive(Debug, Default)]
pub(in crate::redis) struct World {
    pub(in crate::redis) answers: Mutex<HashMap<u32, Answer>>,
    pub(in crate::redis) received: Mutex<Vec<(u32, Vec<u8>)>>,
}

impl Stamped for Vec<u8> {
    fn stamp(&self, _stamp: Stamp) {}

    fn stamped(&self) -> Option<Stamp> {
        None
    }
}

impl Host for World {
    type Message = Vec<u8>;
    type Waiter = u32;
    type Ticket = u32;
    type Clock = ManualClock;

    fn message(&self, raw: RawMessage) -> Vec<u8> {
        raw.payload.to_vec()
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

pub(super) fn endpoint() -> Endpoint {
    Endpoint {
        socket: SocketAddress::tcp("seed", 1),
        username: None,
        password: None,
        credentials: None,
        database: 0,
        tls: None,
        protocol: Protocol::Newest,
    }
}

pub(in crate::redis) fn settings(topology: Topology) -> Settings {
    Settings {
        max_message_bytes: 1 << 20,
        prefix: "t".to_owned(),
        hosts: vec![Server {
            endpoint: endpoint(),
            sentinels: Vec::new(),
            master_name: None,
        }],
        topology,
        ring: Ring::Rendezvous,
        wire: Wire::Headrace,
        crypt: None,
        history: HistoryRules::default(),
        presence: PresenceRules::default(),
        counted: Counted::default(),
        presence_limit: Duration::from_secs(15),
        expiry: Duration::from_secs(60),
        send_timeout: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(1),
        subscription_linger: Duration::from_secs(5),
        on_disconnect: None,
        on_reconnect: None,
        on_gap: None,
    }
}

/// What the parts of a layer share, of which nothing has happened.
pub(super) fn context(settings: Settings) -> Context<World> {
    let (settings, now) = (Arc::new(settings), Instant::now());
    let presences = Presences::new(settings.presence.clone()).noting_own();
    let local = MemoryEngine::new(Config::default(), ManualClock::default());
    Context {
        servers: Servers::new(&settings, now),
        counters: counters(&settings, 16),
        local: Arc::new(local.with_presences(presences)),
        joins: Arc::default(),
        host: Arc::default(),
        settings,
        keys: Keys::new("t").expect("a plain prefix"),
        me: ME,
        shared: Arc::default(),
        now,
        calls: Calls::default(),
        refusals: Refusals::default(),
        requests: Vec::new(),
        hand_offs: Vec::new(),
        changed: false,
    }
}

/// The error of a server.
pub(super) fn refused(text: &str) -> Reply {
    let (code, detail) = text.split_once(' ').unwrap_or((text, ""));
    redis::parse_redis_value(format!("-{code} {detail}\r\n").as_bytes()).expect("an error of RESP")
}

/// A connection that never answers.
pub(super) struct SilentLink;

impl Link for SilentLink {
    fn request(&self, _commands: &[&Command]) -> BoxFuture<Result<Vec<Reply>, Fault>> {
        Box::pin(std::future::pending())
    }

    fn change(&self, _changes: &[Change], _sharded: bool) -> BoxFuture<Vec<(usize, Refusal)>> {
        Box::pin(std::future::pending())
    }

    fn ping(&self) -> BoxFuture<bool> {
        Box::pin(std::future::pending())
    }

    fn can_shard(&self) -> bool {
        true
    }

    fn ended(&self) -> Option<BoxFuture<()>> {
        None
    }
}
