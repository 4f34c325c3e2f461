//! The state of a server, and of the two connections to it: one for requests (the writer), one for subscriptions (the
//! subscriber).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::changes::Changes;
use super::node_key::{LinkId, NodeKey, Role};
use super::outbox::Outbox;
use crate::redis::fault::Fault;
use crate::redis::link::Link;
use crate::redis::link::backoff::Backoff;
use crate::redis::link::sentinel::Address;
use crate::redis::link::server_clock::{Reading, ServerClock};
use crate::redis::settings::Server;

/// The first wait before another attempt to connect, and the longest; each is drawn from zero to that. The longest is short
/// enough for messages to flow again within a second of a server's return.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct Node {
    pub(super) server: Server,
    pub(super) writer: LinkState,
    pub(super) subscriber: LinkState,
    /// Requests that wait to be written.
    pub(super) outbox: Outbox,
    /// How many bytes were written on the present connection and not answered.
    pub(super) unanswered: usize,
    /// Subscriptions and unsubscriptions that wait to be written.
    pub(super) changes: Changes,
    /// The clock of the server, as soon as its time is known.
    pub(super) clock: Option<ServerClock>,
}

/// One of the two connections.
pub(super) struct LinkState {
    pub(super) connection: Connection,
    /// The number of the attempt, of all to any server: events of an earlier connection are ignored.
    pub(super) generation: u64,
    /// Where it goes, if a Sentinel named the address.
    pub(super) address: Option<Address>,
    pub(super) backoff: Backoff,
    /// The latest moment after which the server must have sent whatever comes now.
    pub(super) since: Instant,
    /// When something came on it for the last time.
    pub(super) last_received: Instant,
    /// Whether it was there before.
    pub(super) was_open: bool,
    /// When it was lost, or its server named by another: requests wait for it until `send_timeout` after that.
    pub(super) lost: Option<Instant>,
    /// Why the latest attempt failed.
    pub(super) failure: Option<Fault>,
}

/// The state of a connection.
pub(super) enum Connection {
    Closed,
    /// The next attempt is at that time.
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
            connection: Connection::Closed,
            generation: 0,
            address: None,
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            since: now,
            last_received: now,
            was_open: false,
            lost: None,
            failure: None,
        }
    }

    pub(super) fn link(&self) -> Option<&Arc<dyn Link>> {
        match &self.connection {
            Connection::Open(link) => Some(link),
            Connection::Closed | Connection::Waiting(_) | Connection::Opening => None,
        }
    }

    fn next_attempt(&self) -> Option<Instant> {
        match self.connection {
            Connection::Waiting(until) => Some(until),
            Connection::Closed | Connection::Opening | Connection::Open(_) => None,
        }
    }

    /// Whether it is time to connect.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        match self.connection {
            Connection::Closed => true,
            Connection::Waiting(until) => until <= now,
            Connection::Opening | Connection::Open(_) => false,
        }
    }

    /// Schedules another attempt after a random delay.
    pub(super) fn retry(&mut self, now: Instant, drawn: f64) {
        self.connection = Connection::Waiting(now + self.backoff.next(drawn));
    }

    /// Why no request waits for it: the latest attempt failed, and it was not lost within this time. A server that refuses
    /// connections is up, and will not come back by waiting.
    pub(super) fn given_up(&self, now: Instant, patience: Duration) -> Option<&Fault> {
        let returns = |lost: Instant| now < lost + patience;
        let may_return = self.lost.is_some_and(returns);
        let failure = self.failure.as_ref();
        failure.filter(|failure| !may_return || failure.is_refusal())
    }
}

impl Node {
    pub(super) fn new(server: Server, now: Instant) -> Self {
        Self {
            server,
            writer: LinkState::new(now),
            subscriber: LinkState::new(now),
            outbox: Outbox::default(),
            unanswered: 0,
            changes: Changes::default(),
            clock: None,
        }
    }

    pub(super) fn next_attempt(&self) -> Option<Instant> {
        let both = [self.writer.next_attempt(), self.subscriber.next_attempt()];
        both.into_iter().flatten().min()
    }

    /// Marks a server that others named as lost just now, because it may be about to take another's place: requests wait
    /// for it until `send_timeout` after that.
    pub(super) fn named(mut self, now: Instant) -> Self {
        self.writer.lost = Some(now);
        self.subscriber.lost = Some(now);
        self
    }

    /// Which connection one of the two is now, of the server of this key.
    pub(super) fn id(&self, key: &NodeKey, role: Role) -> LinkId {
        LinkId {
            node: key.clone(),
            role,
            generation: self.link(role).generation,
        }
    }

    pub(super) fn link(&self, role: Role) -> &LinkState {
        match role {
            Role::Writer => &self.writer,
            Role::Subscriber => &self.subscriber,
        }
    }

    pub(super) fn link_mut(&mut self, role: Role) -> &mut LinkState {
        match role {
            Role::Writer => &mut self.writer,
            Role::Subscriber => &mut self.subscriber,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.writer.link().is_some() && self.subscriber.link().is_some()
    }

    /// Why no request waits for one of its connections.
    pub(super) fn given_up(&self, now: Instant, patience: Duration) -> Option<&Fault> {
        let writer = self.writer.given_up(now, patience);
        writer.or_else(|| self.subscriber.given_up(now, patience))
    }

    /// Notes what time it is there, or that the server refused; returns by how many milliseconds the clock was set.
    pub(super) fn note_time(&mut self, time: Option<&Reading>, now: Instant) -> Option<i64> {
        let clock = self.clock.get_or_insert_with(|| {
            time.map_or_else(|| ServerClock::assumed(now), ServerClock::new)
        });
        time.and_then(|time| clock.follow(time))
    }

    /// Whether a deadline is past there; nothing if the time there is not known yet.
    pub(super) fn is_expired(&self, deadline: u64, now: Instant) -> Option<bool> {
        let clock = self.clock?;
        Some(deadline <= clock.milliseconds(now))
    }

    /// Whether a message that the server passes on comes after its deadline.
    ///
    /// Not if the deadline is before the moment after which the message was sent: then the server's clock was set, and the
    /// sender did not know that yet.
    pub(super) fn is_late(&self, deadline: u64, now: Instant) -> bool {
        self.clock.is_some_and(|clock| {
            let sent = clock.milliseconds(self.subscriber.since);
            (sent..=clock.milliseconds(now)).contains(&deadline)
        })
    }
}
