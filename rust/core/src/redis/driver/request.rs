//! A request: what is asked of a server, when it is given up, and what follows from the answer.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use tokio::time::Instant;

use super::node_key::NodeKey;
use crate::redis::link::{Command, Refusal, Reply};
use crate::redis::wire::envelope::Date;
use crate::redis::wire::keys::hash_slot;

/// Some commands for one server, and what to do with the answers.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) place: Place,
    pub(super) commands: Vec<Command>,
    /// The answers so far, if some of the commands have to be asked again; empty until then.
    answers: Vec<Option<Reply>>,
    /// When it is given up.
    pub(super) until: Instant,
    /// Doing it twice is doing it once: it may be sent again though it is not known whether it was done.
    pub(super) safe: bool,
    /// The server that it goes to has to be told that it was named by another.
    pub(super) asking: bool,
    pub(super) then: Then,
}

#[derive(Clone, Debug)]
pub(super) enum Place {
    /// Where this name belongs among shards, and this slot in a cluster.
    Name { name: String, slot: u16 },
    /// To this server.
    Node(NodeKey),
}

/// What follows from the answers.
#[derive(Debug)]
pub(super) enum Then {
    Ignored,
    Published {
        tally: usize,
        at: Instant,
        /// To the inbox of a process: if nobody gets it, the process is gone.
        inbox: bool,
    },
    /// The name of a queue was put into the index.
    Indexed {
        channel: String,
    },
    /// An entry was pushed to a queue.
    Queued(Pushed),
    /// The oldest entries of a full queue.
    Oldest(Pushed),
    /// Expired ones were removed, and these are beyond the capacity still.
    Pruned(Pushed),
    /// The entry was withdrawn from a full queue, if nobody had taken it.
    Withdrawn(Pushed),
    /// Entries were moved to the list of what this process takes.
    Fetched {
        channel: String,
        asked: usize,
        tally: Option<usize>,
    },
    /// Entries were removed from that list.
    Acknowledged {
        channel: String,
        entries: Vec<u64>,
    },
    /// Messages went back to the front of their queue.
    HandedBack {
        tally: usize,
        messages: u64,
    },
    /// What that list held when the connection was back.
    Recovered {
        channel: String,
    },
    Members,
    Membership {
        group: String,
        channel: String,
        /// In milliseconds; none if it has ended.
        lasts: Option<u64>,
        tally: usize,
    },
    /// The names of the queues that are to be removed.
    Index {
        tally: usize,
        /// Those that were found, and where else to look.
        names: BTreeSet<String>,
        hours: RangeInclusive<u64>,
    },
    /// Part of a flush.
    Removed {
        tally: usize,
        queue: bool,
    },
}

/// An entry on its way into a queue.
#[derive(Debug)]
pub(super) struct Pushed {
    pub(super) channel: String,
    /// As it was written; nothing before that.
    pub(super) entry: Arc<[u8]>,
    /// How many entries the queue held with this one.
    pub(super) length: u64,
    pub(super) tally: usize,
    /// Whether an entry was asked for right behind it.
    pub(super) follows: bool,
}

impl Then {
    pub(super) fn carries_a_message(&self) -> bool {
        matches!(
            self,
            Self::Published { .. }
                | Self::Queued(_)
                | Self::Oldest(_)
                | Self::Pruned(_)
                | Self::Withdrawn(_)
                | Self::HandedBack { .. }
        )
    }
}

impl Request {
    /// A request to where the name belongs; the key decides in a cluster.
    pub(super) fn new(
        name: &str,
        key: &str,
        commands: Vec<Command>,
        until: Instant,
        then: Then,
    ) -> Self {
        Self {
            place: Place::Name {
                name: name.to_owned(),
                slot: hash_slot(key.as_bytes()),
            },
            commands,
            answers: Vec::new(),
            until,
            safe: false,
            asking: false,
            then,
        }
    }

    /// A request to one server, whatever it is about.
    pub(super) fn to(node: NodeKey, commands: Vec<Command>, until: Instant, then: Then) -> Self {
        Self {
            place: Place::Node(node),
            commands,
            answers: Vec::new(),
            until,
            safe: false,
            asking: false,
            then,
        }
    }

    pub(super) fn safe(mut self) -> Self {
        self.safe = true;
        self
    }

    /// Sets what depends on the server that it is written to, and on the time there, which it is now.
    pub(super) fn date(&mut self, date: &Date<'_>) {
        for command in &mut self.commands {
            command.date(date);
        }
    }

    /// Roughly how many bytes it takes on the wire.
    pub(super) fn len(&self) -> usize {
        self.commands.iter().map(Command::len).sum()
    }

    /// Whether it is about a topic and no key.
    pub(super) fn publishes(&self) -> bool {
        self.commands.first().is_some_and(Command::is_publish)
    }

    /// The commands that are still to be asked.
    pub(super) fn open(&self) -> impl Iterator<Item = &Command> {
        let is_open = |index: &usize| self.answers.get(*index).is_none_or(Option::is_none);
        let indexed = self.commands.iter().enumerate();
        indexed.filter_map(move |(index, command)| is_open(&index).then_some(command))
    }

    /// How many answers the server gives.
    pub(super) fn replies(&self) -> usize {
        self.open().count() * if self.asking { 2 } else { 1 }
    }

    /// Keeps the answers of what was done. While a slot moves some of the commands may be done where it was, and the others
    /// have to be asked where it is now: what was done must not be done twice, and what it gave must not be lost.
    pub(super) fn keep(&mut self, replies: Vec<Reply>) {
        self.answers.resize(self.commands.len(), None);
        let mut refused = false;
        let open = self
            .commands
            .iter()
            .zip(&mut self.answers)
            .filter(|(_, answer)| answer.is_none());
        for ((command, answer), reply) in open.zip(replies) {
            let again = passing(&reply).is_some();
            refused |= again;
            // A bell that rang for what was not there yet has to ring again.
            if !(again || refused && command.is_publish()) {
                *answer = Some(reply);
            }
        }
    }

    /// All answers, with these for those that were missing.
    pub(super) fn complete(&mut self, replies: Vec<Reply>) -> Vec<Reply> {
        if self.answers.is_empty() {
            return replies;
        }
        let mut replies = replies.into_iter();
        let answers = std::mem::take(&mut self.answers).into_iter();
        answers
            .filter_map(|answer| answer.or_else(|| replies.next()))
            .collect()
    }
}

/// The refusal that an answer is, if it will pass.
pub(super) fn passing(reply: &Reply) -> Option<Refusal> {
    Refusal::of(reply).filter(Refusal::passes)
}

/// The number that the server answered; 0 if it answered anything else.
pub(super) fn integer(reply: Option<&Reply>) -> u64 {
    match reply {
        Some(Reply::Int(number)) => u64::try_from(*number).unwrap_or(0),
        _ => 0,
    }
}
