//! Notices for the owner of a layer, kept until the owner reads them.

use std::collections::{HashSet, VecDeque};
use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use crate::sync::{Condvar, Mutex};

/// How many unread notices are kept.
const NOTICES: usize = 1024;

/// A notice for the owner of a layer.
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
    /// Messages were given up whose answers nobody waits for.
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
        /// The field of [`LinkStats`](super::LinkStats) that counts it.
        counter: &'static str,
    },
    /// These groups, or channels of this process, may have missed messages.
    Gap {
        /// Groups whose subscription was interrupted, or in whose messages there is a hole.
        groups: Vec<String>,
        /// Whether messages to channels of this process may be among them, which come without a group.
        direct: bool,
        /// How many messages are known to be missing; 0 if that is not known.
        missed: u64,
    },
}

/// The unread notices. If there are too many, the oldest is dropped.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    waiting: Mutex<Waiting>,
    noticed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    notices: VecDeque<Notice>,
    /// Those that `push_once` has pushed.
    once: HashSet<Discriminant<Notice>>,
    ended: bool,
}

impl Notices {
    pub(crate) fn push(&self, notice: Notice) {
        let mut waiting = self.waiting.lock();
        if waiting.notices.len() >= NOTICES {
            waiting.notices.pop_front();
        }
        waiting.notices.push_back(notice);
        drop(waiting);
        self.noticed.notify_all();
    }

    /// Notes the first of a kind; the others are only counted.
    pub(crate) fn push_once(&self, notice: Notice) {
        if self.waiting.lock().once.insert(discriminant(&notice)) {
            self.push(notice);
        }
    }

    /// There will be no more notices.
    pub(crate) fn end(&self) {
        self.waiting.lock().ended = true;
        self.noticed.notify_all();
    }

    /// Takes the oldest notice, or waits for one; none at the timeout, or after the end.
    pub(crate) fn next(&self, timeout: Duration) -> Option<Notice> {
        let ready = |waiting: &Waiting| !waiting.notices.is_empty() || waiting.ended;
        let mut waiting = self.noticed.wait_until(self.waiting.lock(), timeout, ready);
        waiting.notices.pop_front()
    }
}
