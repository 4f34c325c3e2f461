//! A reading of the connections as a frozen Python record.

use std::time::Duration;

use headrace_core::redis::{self as core, ConnectionState};
use pyo3::prelude::*;

/// Defines a frozen record that mirrors a plain struct of the core, field by field; `= function` converts a field.
macro_rules! reading {
    ($(#[$doc:meta])* $name:ident from $source:ty {
        $($(#[$field_doc:meta])* $field:ident: $type:ty $(= $convert:ident)?,)*
    }) => {
        $(#[$doc])*
        #[pyclass(frozen, eq, get_all, skip_from_py_object, module = "headrace")]
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub(crate) struct $name {
            $($(#[$field_doc])* $field: $type,)*
        }

        impl From<$source> for $name {
            fn from(source: $source) -> Self {
                Self { $($field: $($convert)?(source.$field),)* }
            }
        }
    };
}

reading! {
    /// A reading of the way to the servers; counts since the layer was made.
    LinkStats from core::LinkStats {
        /// "idle", "connecting", "up", "down" or "closed".
        state: &'static str = state_name,
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
        /// Messages that came after their deadline, or after a gap was reported that includes them.
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
        publish_latency: f64 = seconds,
        /// Seconds from here through the server and back, smoothed.
        lag: f64 = seconds,
        /// Pub/sub channels that are subscribed to.
        subscriptions: u64,
    }
}

#[pymethods]
impl LinkStats {
    fn __repr__(&self) -> String {
        format!(
            "LinkStats(state={:?}, reconnects={}, gaps={}, missed={}, published={}, unsent={}, subscriptions={})",
            self.state,
            self.reconnects,
            self.gaps,
            self.missed,
            self.published,
            self.unsent,
            self.subscriptions
        )
    }
}

fn state_name(state: ConnectionState) -> &'static str {
    match state {
        ConnectionState::Idle => "idle",
        ConnectionState::Connecting => "connecting",
        ConnectionState::Up => "up",
        ConnectionState::Down => "down",
        ConnectionState::Closed => "closed",
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
