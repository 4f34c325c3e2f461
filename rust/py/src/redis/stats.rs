//! A reading of the connections as a frozen Python record.

use headrace_core::redis::{self as core, ConnectionState};
use pyo3::prelude::*;

/// A reading of the way to the servers; counts since the layer was made.
#[pyclass(frozen, eq, get_all, skip_from_py_object, module = "headrace")]
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LinkStats {
    /// "idle", "connecting", "up", "down" or "closed".
    state: &'static str,
    /// Lost connections that came back.
    reconnects: u64,
    /// How often messages may have been missed.
    gaps: u64,
    /// Messages known to be missing.
    missed: u64,
    /// Bytes of messages received.
    bytes_in: u64,
    /// Bytes of messages sent.
    bytes_out: u64,
    /// Messages that a server took for pub/sub.
    published: u64,
    /// Messages given up because no server took them in time.
    unsent: u64,
    /// Messages to channels of processes that are gone.
    unreachable: u64,
    /// Messages that could not be read.
    malformed: u64,
    /// Messages that came and were longer than `max_message_bytes`.
    oversized: u64,
    /// Messages, and memberships of queues, that no key of this layer authenticates.
    unauthenticated: u64,
    /// Authenticated messages that came before.
    replayed: u64,
    /// Messages that came after their deadline, or after a gap was told of them.
    late: u64,
    /// Messages of queues that nobody took in time.
    queue_expired: u64,
    /// Messages put into queues.
    queued: u64,
    /// Messages taken from queues.
    fetched: u64,
    /// Messages refused by full queues.
    queue_full: u64,
    /// Messages of queues thrown away by `flush`, or left to others by `close`.
    queue_dropped: u64,
    /// Messages that went back to their queues.
    handed_back: u64,
    /// Messages in the queues that this process uses, at the last look.
    queue_depth: u64,
    /// The queues that hold them.
    queues: u64,
    /// Seconds from the sending of a message to the server's answer, smoothed.
    publish_latency: f64,
    /// Seconds from here through the server and back, smoothed.
    lag: f64,
    /// Pub/sub channels that are subscribed to.
    subscriptions: u64,
}

#[pymethods]
impl LinkStats {
    fn __repr__(&self) -> String {
        format!(
            "LinkStats(state={:?}, reconnects={}, gaps={}, missed={}, published={}, unsent={}, subscriptions={})",
            self.state, self.reconnects, self.gaps, self.missed, self.published, self.unsent, self.subscriptions
        )
    }
}

impl From<core::LinkStats> for LinkStats {
    fn from(source: core::LinkStats) -> Self {
        Self {
            state: match source.state {
                ConnectionState::Idle => "idle",
                ConnectionState::Connecting => "connecting",
                ConnectionState::Up => "up",
                ConnectionState::Down => "down",
                ConnectionState::Closed => "closed",
            },
            reconnects: source.reconnects,
            gaps: source.gaps,
            missed: source.missed,
            bytes_in: source.bytes_in,
            bytes_out: source.bytes_out,
            published: source.published,
            unsent: source.unsent,
            unreachable: source.unreachable,
            malformed: source.malformed,
            oversized: source.oversized,
            unauthenticated: source.unauthenticated,
            replayed: source.replayed,
            late: source.late,
            queue_expired: source.queue_expired,
            queued: source.queued,
            fetched: source.fetched,
            queue_full: source.queue_full,
            queue_dropped: source.queue_dropped,
            handed_back: source.handed_back,
            queue_depth: source.queue_depth,
            queues: source.queues,
            publish_latency: source.publish_latency.as_secs_f64(),
            lag: source.lag.as_secs_f64(),
            subscriptions: source.subscriptions,
        }
    }
}
