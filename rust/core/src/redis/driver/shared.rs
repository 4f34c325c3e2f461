//! The state of the engine that callers in any thread read without a request to the I/O thread.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use super::backlog::{Backlog, MOST};
use crate::redis::fault::{Fault, FaultKind};
use crate::redis::link::server_clock::SharedClock;
use crate::redis::meter::{ConnectionState, LinkStats, Meter};
use crate::redis::notice::{Notice, Notices};
use crate::redis::plain::{PlainMembers, PlainSends};
use crate::shrink::Shrink;
use crate::sync::Mutex;

/// How many groups with plain channels are counted before those are forgotten that have none any more.
const GROUPS: usize = 1024;

/// State that several threads share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) meter: Meter,
    /// The topics whose subscription is confirmed.
    pub(crate) topics: Mutex<HashSet<String>>,
    /// The groups of which it is known here who is present.
    pub(crate) present: Mutex<HashSet<String>>,
    pub(crate) plain: Mutex<PlainMembers>,
    /// How many messages the queues that this process uses held when it last looked.
    pub(crate) depths: Mutex<HashMap<String, u64>>,
    /// The time at the server that has the memberships of plain channels.
    pub(crate) clock: SharedClock,
    /// The room for messages that wait to be sent, or for an answer.
    pub(crate) backlog: Arc<Backlog>,
    /// Why no server can be sent to, as far as the driver knows.
    pub(crate) unreachable: Mutex<Option<Fault>>,
    /// The outcomes of messages to groups that have plain channels in them.
    pub(crate) groups: Mutex<HashMap<String, PlainSends>>,
    pub(crate) notices: Notices,
    /// How often messages of a group with a history may have been missed that no server has any more.
    pub(crate) unhealed: AtomicU64,
    /// A server has answered a request for messages of a queue: it has what queues need.
    pub(crate) has_queues: AtomicBool,
}

impl Shared {
    /// The server's time, in milliseconds since the epoch.
    pub(crate) fn now(&self) -> u64 {
        self.clock.now()
    }

    /// Why a message would be given up at once, if every server is unreachable.
    pub(crate) fn unreachable(&self) -> Option<Fault> {
        let may_be = matches!(
            self.meter.state(),
            ConnectionState::Connecting | ConnectionState::Down
        );
        if may_be {
            self.unreachable.lock().clone()
        } else {
            None
        }
    }

    /// Why there is no room for a message: whether the servers are slow, or unreachable.
    pub(crate) fn no_room(&self, waited: Duration) -> Fault {
        let (most, seconds) = (MOST >> 20, waited.as_secs_f64());
        let text = if self.meter.state() == ConnectionState::Up {
            format!(
                "messages are sent faster than the server takes them: {most} MiB wait for it, and there was no room for \
                 another in {seconds} s"
            )
        } else {
            format!(
                "{most} MiB of messages wait for the connection to come back, and there was no room for another in \
                 {seconds} s"
            )
        };
        Fault::new(FaultKind::Backlog, text)
    }

    pub(crate) fn notice(&self, notice: Notice) {
        self.notices.push(notice);
    }

    /// Counts the outcome of a message to a group that has queues in it.
    pub(crate) fn note_plain_sends(&self, group: String, queued: u64, full: u64) {
        let mut groups = self.groups.lock();
        if groups.len() >= GROUPS {
            let plain = self.plain.lock();
            groups.retain(|group, _| plain.has(group));
        }
        let known = groups.entry(group).or_default();
        known.sends += 1;
        known.queued += queued;
        known.full += full;
    }

    /// Gives back the memory of what is gone, where it is most of all.
    pub(super) fn shrink_if_sparse(&self) {
        self.topics.lock().shrink_if_sparse();
        self.present.lock().shrink_if_sparse();
        self.plain.lock().shrink_if_sparse();
        self.depths.lock().shrink_if_sparse();
        self.groups.lock().shrink_if_sparse();
    }

    pub(crate) fn stats(&self) -> LinkStats {
        let subscriptions = self.topics.lock().len() as u64;
        let depths = self.depths.lock();
        LinkStats {
            queue_depth: depths.values().sum(),
            queues: depths.values().filter(|depth| **depth > 0).count() as u64,
            subscriptions,
            ..self.meter.read()
        }
    }
}
