//! Counters and readings of the connections, which any thread may look at.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

/// Whether messages can flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConnectionState {
    /// Nobody has needed a connection yet.
    #[default]
    Idle,
    /// Connections are being made, or their first subscriptions are not confirmed yet.
    Connecting,
    /// All connections are there, and no subscription is lost. A new one may still be unconfirmed.
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

/// Defines the counters in one list: as they are counted, and as they are read.
macro_rules! counters {
    ($($(#[$meaning:meta])+ $name:ident,)+) => {
        /// Counters and readings of the connections, in messages, bytes, or nanoseconds.
        #[derive(Debug, Default)]
        pub(crate) struct Meter {
            state: AtomicU8,
            $(pub(crate) $name: AtomicU64,)+
            pub(crate) publish_latency: AtomicU64,
            pub(crate) lag: AtomicU64,
        }

        /// A reading of the connections.
        #[derive(Clone, Copy, Debug, Default, PartialEq)]
        pub struct LinkStats {
            /// Whether messages can flow.
            pub state: ConnectionState,
            $($(#[$meaning])+ pub $name: u64,)+
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

        impl Meter {
            /// The counters as they are now; the fields that are no counters are left at zero.
            pub(crate) fn read(&self) -> LinkStats {
                let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
                LinkStats {
                    state: self.state(),
                    $($name: read(&self.$name),)+
                    publish_latency: Duration::from_nanos(read(&self.publish_latency)),
                    lag: Duration::from_nanos(read(&self.lag)),
                    ..LinkStats::default()
                }
            }
        }
    };
}

counters! {
    /// How often a lost connection came back.
    reconnects,
    /// How often messages may have been missed.
    gaps,
    /// Messages known to be missing, by the sequence numbers of their senders.
    missed,
    /// Bytes of messages received.
    bytes_in,
    /// Bytes of messages sent.
    bytes_out,
    /// Messages that a server took.
    published,
    /// Messages that were given up because no server took them in time.
    unsent,
    /// Messages to channels of processes that are gone.
    unreachable,
    /// Messages that could not be read.
    malformed,
    /// Messages that were longer than a message may be.
    oversized,
    /// Messages, and memberships of queues, that no key of this layer authenticates.
    unauthenticated,
    /// Authenticated messages that came before.
    replayed,
    /// Messages that arrived after their deadline, or after a gap was reported that includes them.
    late,
    /// Messages of queues that nobody took in time.
    queue_expired,
    /// Messages put into queues by this process.
    queued,
    /// Messages taken from queues by this process.
    fetched,
    /// Messages refused by full queues.
    queue_full,
    /// Messages of queues that this process dropped, or left to others.
    queue_dropped,
    /// Messages that went back to their queues, because nobody here waited for them any more.
    handed_back,
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
}
