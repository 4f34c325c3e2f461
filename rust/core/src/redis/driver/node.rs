//! What is known of a server, and of the two connections to it: one that asks, one that subscribes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::node_key::Role;
use super::outbox::Outbox;
use crate::redis::fault::Fault;
use crate::redis::link::backoff::Backoff;
use crate::redis::link::probe::Address;
use crate::redis::link::server_clock::ServerClock;
use crate::redis::link::{Change, Link};
use crate::redis::settings::Host as ServerHost;

/// The first wait before another attempt to connect, and the longest; each is drawn from zero to that. The longest is short
/// enough for messages to flow again within a second of a server's return.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// How long a connection may be silent after it was asked whether it is there.
pub(super) const SILENCE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Node {
    pub(super) server: ServerHost,
    pub(super) writer: LinkState,
    pub(super) subscriber: LinkState,
    /// What waits to be written.
    pub(super) outbox: Outbox,
    /// What was written on the connection that is there, and not answered, in bytes.
    pub(super) unanswered: usize,
    /// What waits to be changed about the topics, and how many batches of that were asked for and not answered.
    pub(super) changes: VecDeque<Change>,
    pub(super) batches: usize,
    /// The topics that were refused on the connection that is there, and when they are asked for again.
    pub(super) refused: VecDeque<(Instant, String)>,
    /// What time it is there, as soon as that is known.
    pub(super) clock: Option<ServerClock>,
}

pub(super) struct LinkState {
    pub(super) phase: Phase,
    /// Which attempt it is, of all to any server: what an earlier connection says is not heard.
    pub(super) generation: u64,
    /// Where it goes, if the Sentinels told.
    pub(super) address: Option<Address>,
    pub(super) backoff: Backoff,
    /// The latest moment of which is known that what comes now was sent after it.
    pub(super) since: Instant,
    /// When something came on it for the last time.
    pub(super) heard: Instant,
    /// Whether it was there before.
    pub(super) was_open: bool,
    /// When it was lost, or its server named by another: it is waited for until `send_timeout` after that.
    pub(super) lost: Option<Instant>,
    /// Why the latest attempt failed.
    pub(super) failure: Option<Fault>,
}

pub(super) enum Phase {
    Closed,
    Waiting(Instant),
    Opening,
    Open(Arc<dyn Link>),
}

impl std::fmt::Debug for LinkState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkState")
            .field("open", &self.link().is_some())
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl LinkState {
    fn new(now: Instant) -> Self {
        Self {
            phase: Phase::Closed,
            generation: 0,
            address: None,
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            since: now,
            heard: now,
            was_open: false,
            lost: None,
            failure: None,
        }
    }

    pub(super) fn link(&self) -> Option<&Arc<dyn Link>> {
        match &self.phase {
            Phase::Open(link) => Some(link),
            _ => None,
        }
    }

    fn next_attempt(&self) -> Option<Instant> {
        match self.phase {
            Phase::Waiting(until) => Some(until),
            _ => None,
        }
    }
}

impl Node {
    pub(super) fn new(server: ServerHost, now: Instant) -> Self {
        Self {
            server,
            writer: LinkState::new(now),
            subscriber: LinkState::new(now),
            outbox: Outbox::default(),
            unanswered: 0,
            changes: VecDeque::new(),
            batches: 0,
            refused: VecDeque::new(),
            clock: None,
        }
    }

    pub(super) fn next_attempt(&self) -> Option<Instant> {
        let both = [self.writer.next_attempt(), self.subscriber.next_attempt()];
        both.into_iter().flatten().min()
    }

    /// Marks a server that others named as lost just now, because it may be about to take another's place: it is waited for until
    /// `send_timeout` after that.
    pub(super) fn named(mut self, now: Instant) -> Self {
        self.writer.lost = Some(now);
        self.subscriber.lost = Some(now);
        self
    }

    pub(super) fn state(&mut self, role: Role) -> &mut LinkState {
        match role {
            Role::Writer => &mut self.writer,
            Role::Subscriber => &mut self.subscriber,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.writer.link().is_some() && self.subscriber.link().is_some()
    }
}
