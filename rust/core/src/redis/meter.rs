//! Counters and readings of the connections, which any thread may look at.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

/// Whether messages can flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConnectionState {
    /// Nobody has needed a connection yet.
    #[default]
    Idle,
    /// Connections are being made, or subscriptions are not confirmed yet.
    Connecting,
    /// All connections are there, and all subscriptions confirmed.
    Up,
    /// A connection was lost and is not back.
    Down,
    /// The layer was closed.
    Closed,
}

const STATES: [ConnectionState; 5] = [
    ConnectionState::Idle,
    ConnectionState::Connecting,
    ConnectionState::Up,
    ConnectionState::Down,
    ConnectionState::Closed,
];

/// Counters and readings of the connections, in messages, bytes, or nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    state: AtomicU8,
    pub(crate) reconnects: AtomicU64,
    pub(crate) gaps: AtomicU64,
    pub(crate) missed: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) published: AtomicU64,
    pub(crate) unsent: AtomicU64,
    pub(crate) unreachable: AtomicU64,
    pub(crate) malformed: AtomicU64,
    pub(crate) oversized: AtomicU64,
    pub(crate) unauthenticated: AtomicU64,
    pub(crate) replayed: AtomicU64,
    pub(crate) late: AtomicU64,
    pub(crate) queue_expired: AtomicU64,
    pub(crate) queued: AtomicU64,
    pub(crate) fetched: AtomicU64,
    pub(crate) queue_full: AtomicU64,
    pub(crate) queue_dropped: AtomicU64,
    pub(crate) handed_back: AtomicU64,
    pub(crate) publish_latency: AtomicU64,
    pub(crate) lag: AtomicU64,
}

/// A weight of an eighth for the newest reading.
pub(crate) fn smooth(reading: &AtomicU64, newest: Duration) {
    let newest = u64::try_from(newest.as_nanos()).unwrap_or(u64::MAX);
    let before = reading.load(Ordering::Relaxed);
    let after = if before == 0 {
        newest
    } else {
        before - before / 8 + newest / 8
    };
    reading.store(after, Ordering::Relaxed);
}

pub(crate) fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

impl Meter {
    pub(crate) fn state(&self) -> ConnectionState {
        STATES
            .get(usize::from(self.state.load(Ordering::Relaxed)))
            .copied()
            .unwrap_or_default()
    }

    /// What was closed stays so, whatever its connections do until they end.
    pub(crate) fn set_state(&self, state: ConnectionState) {
        let next = |now: u8| (now != ConnectionState::Closed as u8).then_some(state as u8);
        let _ = self
            .state
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// The counters as they are now; the fields that are no counters are left at zero.
    pub(crate) fn read(&self) -> LinkStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LinkStats {
            state: self.state(),
            reconnects: read(&self.reconnects),
            gaps: read(&self.gaps),
            missed: read(&self.missed),
            bytes_in: read(&self.bytes_in),
            bytes_out: read(&self.bytes_out),
            published: read(&self.published),
            unsent: read(&self.unsent),
            unreachable: read(&self.unreachable),
            malformed: read(&self.malformed),
            oversized: read(&self.oversized),
            unauthenticated: read(&self.unauthenticated),
            replayed: read(&self.replayed),
            late: read(&self.late),
            queue_expired: read(&self.queue_expired),
            queued: read(&self.queued),
            fetched: read(&self.fetched),
            queue_full: read(&self.queue_full),
            queue_dropped: read(&self.queue_dropped),
            handed_back: read(&self.handed_back),
            publish_latency: Duration::from_nanos(read(&self.publish_latency)),
            lag: Duration::from_nanos(read(&self.lag)),
            ..LinkStats::default()
        }
    }
}

/// A reading of the connections.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LinkStats {
    /// Whether messages can flow.
    pub state: ConnectionState,
    /// How often a lost connection came back.
    pub reconnects: u64,
    /// How often messages may have been missed.
    pub gaps: u64,
    /// Messages known to be missing, by the sequence numbers of their senders.
    pub missed: u64,
    /// Bytes of messages received.
    pub bytes_in: u64,
    /// Bytes of messages sent.
    pub bytes_out: u64,
    /// Messages that a server took.
    pub published: u64,
    /// Messages that were given up because no server took them in time.
    pub unsent: u64,
    /// Messages to channels of processes that are gone.
    pub unreachable: u64,
    /// Messages that could not be read.
    pub malformed: u64,
    /// Messages that were longer than a message may be.
    pub oversized: u64,
    /// Messages, and memberships of queues, that no key of this layer authenticates.
    pub unauthenticated: u64,
    /// Authenticated messages that came before.
    pub replayed: u64,
    /// Messages that arrived after their deadline, or after a gap was reported that includes them.
    pub late: u64,
    /// Messages of queues that nobody took in time.
    pub queue_expired: u64,
    /// Messages put into queues by this process.
    pub queued: u64,
    /// Messages taken from queues by this process.
    pub fetched: u64,
    /// Messages refused by full queues.
    pub queue_full: u64,
    /// Messages of queues that this process dropped, or left to others.
    pub queue_dropped: u64,
    /// Messages that went back to their queues, because nobody here waited for them any more.
    pub handed_back: u64,
    /// Messages in the queues that this process uses, when it last looked.
    pub queue_depth: u64,
    /// The queues that hold them.
    pub queues: u64,
    /// From the sending of a message to the server's answer, smoothed.
    pub publish_latency: Duration,
    /// From the sending of a message to its arrival here by way of the server, smoothed.
    pub lag: Duration,
    /// Pub/sub channels that are subscribed to.
    pub subscriptions: u64,
}
