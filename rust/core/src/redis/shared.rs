//! What callers in any thread see of the engine without asking the thread that does the input and output.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicU8, Ordering};
use std::sync::Arc;
use std::time::Duration;

use super::backlog::{Backlog, MOST};
use super::fault::{Fault, FaultKind};
use super::server_clock::SharedClock;
use crate::shrink::Shrink;
use crate::sync::{Condvar, Mutex};

/// How many notices are kept for somebody to read.
const NOTICES: usize = 1024;

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

/// Something that the owner of a layer may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A connection was lost: these groups get nothing until it is back.
    Disconnected {
        /// Why, in words.
        reason: String,
    },
    /// All connections are there again.
    Reconnected,
    /// A server's clock was set while this process was connected, by so many milliseconds: what was sent just then may have
    /// expired early, or late.
    ClockSet {
        /// The server.
        server: String,
        /// Forward, or, if negative, back.
        milliseconds: i64,
    },
    /// Messages were given up of which nobody waits to hear.
    Unsent {
        /// How many since the last time.
        messages: u64,
        /// Why the latest was, in words.
        reason: String,
    },
    /// A message came after its deadline and was dropped, for the first time; the others are counted.
    Late,
    /// A message that came was longer than a message may be and was dropped, for the first time; the others are counted.
    Oversized {
        /// The pub/sub channel, the channel or the group that it came by.
        place: String,
        /// Its bytes.
        bytes: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A message of a queue expired before anybody took it, for the first time; the others are counted.
    QueueExpired {
        /// The queue.
        channel: String,
    },
    /// Something was refused because of its encryption, for the first time from this sender for this reason; the others are
    /// counted.
    Refused {
        /// The pub/sub channel or the key that it came by.
        place: String,
        /// The process that it names as its sender, if it names one.
        sender: Option<String>,
        /// Why, in words.
        reason: String,
        /// The field of [`LinkStats`] that counts it.
        counter: &'static str,
    },
    /// These groups and queues may have missed messages.
    Gap {
        /// Groups whose subscription was interrupted, or in whose messages there is a hole.
        groups: Vec<String>,
        /// Whether messages to channels of this process may be among them, which come without a group.
        direct: bool,
        /// How many messages are known to be missing; 0 if that is not known.
        missed: u64,
    },
}

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
    /// Messages that arrived after their deadline, or after a gap was told of them.
    pub late: u64,
    /// Messages of queues that nobody took in time.
    pub queue_expired: u64,
    /// Messages put into queues by this process.
    pub queued: u64,
    /// Messages taken from queues by this process.
    pub fetched: u64,
    /// Messages refused by full queues.
    pub queue_full: u64,
    /// Messages of queues thrown away, or left to others, by this process.
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

/// Messages that a group's plain channels were sent by this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlainSends {
    /// Sends to the group.
    pub sends: u64,
    /// Messages that queues took.
    pub queued: u64,
    /// Messages that full queues refused.
    pub full: u64,
}

/// The memberships of plain channels, as the whole fleet has them.
#[derive(Debug, Default)]
pub(crate) struct PlainMembers {
    /// Group, channel, and until when in milliseconds since the epoch, by the server's clock.
    by_group: HashMap<String, BTreeMap<String, u64>>,
}

impl PlainMembers {
    pub(crate) fn replace(&mut self, memberships: impl Iterator<Item = (String, String, u64)>) {
        self.by_group.clear();
        for (group, channel, deadline) in memberships {
            self.add(&group, &channel, deadline);
        }
    }

    pub(crate) fn add(&mut self, group: &str, channel: &str, deadline: u64) {
        let members = self.by_group.entry(group.to_owned()).or_default();
        members.insert(channel.to_owned(), deadline);
    }

    pub(crate) fn remove(&mut self, group: &str, channel: &str) {
        if let Some(members) = self.by_group.get_mut(group) {
            members.remove(channel);
            if members.is_empty() {
                self.by_group.remove(group);
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.by_group.clear();
    }

    fn shrink_if_sparse(&mut self) {
        self.by_group.shrink_if_sparse();
    }

    pub(crate) fn has(&self, group: &str) -> bool {
        self.by_group.contains_key(group)
    }

    /// When the last of all memberships ends.
    pub(crate) fn last_deadline(&self) -> u64 {
        let all = self.by_group.values().flat_map(BTreeMap::values);
        all.copied().max().unwrap_or(0)
    }

    pub(crate) fn holds(&self, group: &str, channel: &str, now: u64) -> bool {
        let deadline = self.by_group.get(group).and_then(|all| all.get(channel));
        deadline.is_some_and(|deadline| *deadline > now)
    }

    pub(crate) fn of_group(&self, group: &str, now: u64) -> Vec<String> {
        let members = self.by_group.get(group).into_iter().flatten();
        members
            .filter(|(_, deadline)| **deadline > now)
            .map(|(channel, _)| channel.clone())
            .collect()
    }

    pub(crate) fn of_channel(&self, channel: &str, now: u64) -> Vec<String> {
        let memberships = self.iter(now).filter(|(_, member)| *member == channel);
        memberships.map(|(group, _)| group.to_owned()).collect()
    }

    /// All memberships that last.
    pub(crate) fn iter(&self, now: u64) -> impl Iterator<Item = (&str, &str)> {
        self.by_group.iter().flat_map(move |(group, members)| {
            let fresh = members.iter().filter(move |(_, deadline)| **deadline > now);
            fresh.map(move |(channel, _)| (group.as_str(), channel.as_str()))
        })
    }
}

#[derive(Debug, Default)]
struct Notices {
    waiting: VecDeque<Notice>,
    ended: bool,
}

/// What several threads look at.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) meter: Meter,
    /// The topics whose subscription is confirmed.
    pub(crate) topics: Mutex<HashSet<String>>,
    pub(crate) plain: Mutex<PlainMembers>,
    /// How many messages the queues that this process uses held when it last looked.
    pub(crate) depths: Mutex<HashMap<String, u64>>,
    /// The time at the server that has the memberships of plain channels.
    pub(crate) clock: SharedClock,
    /// What waits to be sent, or for an answer.
    pub(super) backlog: Arc<Backlog>,
    /// Why no server can be sent to, as far as the driver knows.
    pub(super) away: Mutex<Option<Fault>>,
    /// What became of messages to groups that have plain channels in them.
    pub(crate) groups: Mutex<HashMap<String, PlainSends>>,
    notices: Mutex<Notices>,
    noticed: Condvar,
}

impl Shared {
    /// The server's time, in milliseconds since the epoch.
    pub(crate) fn now(&self) -> u64 {
        self.clock.now()
    }

    /// Why a message would be given up at once, if every server is away.
    pub(super) fn away(&self) -> Option<Fault> {
        let may_be = matches!(
            self.meter.state(),
            ConnectionState::Connecting | ConnectionState::Down
        );
        if may_be {
            self.away.lock().clone()
        } else {
            None
        }
    }

    /// Why there is no room for a message: whether the servers are slow, or away.
    pub(super) fn crowded(&self, waited: Duration) -> Fault {
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
        let mut notices = self.notices.lock();
        if notices.waiting.len() >= NOTICES {
            notices.waiting.pop_front();
        }
        notices.waiting.push_back(notice);
        drop(notices);
        self.noticed.notify_all();
    }

    /// There will be no more notices.
    pub(crate) fn end_notices(&self) {
        self.notices.lock().ended = true;
        self.noticed.notify_all();
    }

    /// Takes the oldest notice, or waits for one; none when the time is over, or the end has come.
    pub(crate) fn next_notice(&self, timeout: Duration) -> Option<Notice> {
        let told = |notices: &Notices| !notices.waiting.is_empty() || notices.ended;
        let mut notices = self.noticed.wait_until(self.notices.lock(), timeout, told);
        notices.waiting.pop_front()
    }

    /// Gives back the memory of what is gone, where it is most of all.
    pub(super) fn shrink_if_sparse(&self) {
        self.topics.lock().shrink_if_sparse();
        self.plain.lock().shrink_if_sparse();
        self.depths.lock().shrink_if_sparse();
        self.groups.lock().shrink_if_sparse();
    }

    pub(crate) fn stats(&self) -> LinkStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let meter = &self.meter;
        let subscriptions = self.topics.lock().len() as u64;
        let depths = self.depths.lock();
        LinkStats {
            state: meter.state(),
            reconnects: read(&meter.reconnects),
            gaps: read(&meter.gaps),
            missed: read(&meter.missed),
            bytes_in: read(&meter.bytes_in),
            bytes_out: read(&meter.bytes_out),
            published: read(&meter.published),
            unsent: read(&meter.unsent),
            unreachable: read(&meter.unreachable),
            malformed: read(&meter.malformed),
            oversized: read(&meter.oversized),
            unauthenticated: read(&meter.unauthenticated),
            replayed: read(&meter.replayed),
            late: read(&meter.late),
            queue_expired: read(&meter.queue_expired),
            queued: read(&meter.queued),
            fetched: read(&meter.fetched),
            queue_full: read(&meter.queue_full),
            queue_dropped: read(&meter.queue_dropped),
            handed_back: read(&meter.handed_back),
            queue_depth: depths.values().sum(),
            queues: depths.values().filter(|depth| **depth > 0).count() as u64,
            publish_latency: Duration::from_nanos(read(&meter.publish_latency)),
            lag: Duration::from_nanos(read(&meter.lag)),
            subscriptions,
        }
    }
}
