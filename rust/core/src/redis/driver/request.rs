//! A request to a server: its commands, when it is given up, and what follows from the answer.

use bytes::Bytes;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::LazyLock;
use tokio::time::Instant;

use super::calls::CallId;
use super::history_then::HistoryThen;
use super::node_key::NodeKey;
use super::presence_then::PresenceThen;
use crate::redis::link::{Command, Refusal, Reply};
use crate::redis::wire::envelope::Date;
use crate::redis::wire::keys::hash_slot;

/// Precedes what follows a redirection with `ASK`.
static ASKING: LazyLock<Command> = LazyLock::new(|| Command::new("ASKING"));
/// The begin and the end of a transaction.
static MULTI: LazyLock<Command> = LazyLock::new(|| Command::new("MULTI"));
static EXEC: LazyLock<Command> = LazyLock::new(|| Command::new("EXEC"));

/// Some commands for one server, and what to do with the answers.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) target: Target,
    commands: Vec<Command>,
    /// The answers so far, if some of the commands have to be asked again; empty until then.
    answers: Vec<Option<Reply>>,
    /// When it is given up.
    pub(super) until: Instant,
    /// Doing it twice is doing it once: it may be sent again though it is not known whether it was done.
    pub(super) safe: bool,
    /// It is sent before all that wait for the same connection.
    pub(super) urgent: bool,
    form: Form,
    /// It follows a redirection with `ASK`, so `ASKING` precedes each command.
    pub(super) asking: bool,
    pub(super) then: Then,
}

/// How its commands belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Each is done or not.
    Separate,
    /// They are done together or not at all.
    Transaction,
    /// So are those of the request before it, and with them.
    Joined,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Where this name belongs among shards, and this slot in a cluster.
    Name { name: String, slot: u16 },
    /// To this server.
    Node(NodeKey),
}

/// What follows from the answers.
#[derive(Debug)]
pub(super) enum Then {
    Ignored,
    /// About the history of a group.
    History(HistoryThen),
    /// About who is present in a group.
    Presence(PresenceThen),
    Published {
        call: CallId,
        at: Instant,
        /// To the topic of a process: if nobody gets it, the process is gone.
        direct: bool,
        /// It announces a change of memberships: if it may not have come, that is announced again.
        announces: bool,
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
        call: Option<CallId>,
    },
    /// Entries were removed from that list.
    Acknowledged {
        channel: String,
        entries: Vec<u64>,
    },
    /// Messages went back to the front of their queue.
    HandedBack {
        call: CallId,
        messages: u64,
    },
    /// What that list held when the connection was back.
    Recovered {
        channel: String,
    },
    Members,
    Membership {
        change: MembershipChange,
        call: CallId,
    },
    /// The names of the queues that are to be removed.
    Index {
        call: CallId,
        /// Those that were found, and where else to look.
        names: BTreeSet<String>,
        hours: RangeInclusive<u64>,
    },
    /// Part of a flush.
    Removed {
        call: CallId,
        queue: bool,
    },
    /// The memberships were removed by a flush.
    MembersRemoved {
        call: CallId,
    },
}

/// A change of a membership that this process has asked for.
#[derive(Debug)]
pub(super) struct MembershipChange {
    pub(super) group: String,
    pub(super) channel: String,
    /// In milliseconds; none if it has ended.
    pub(super) lasts: Option<u64>,
    /// How many changes by others had come when it was asked for.
    pub(super) begun: u64,
}

/// An entry on its way into a queue.
#[derive(Debug)]
pub(super) struct Pushed {
    pub(super) channel: String,
    /// As it was written; nothing before that.
    pub(super) entry: Bytes,
    /// How many entries the queue held with this one.
    pub(super) length: u64,
    pub(super) call: CallId,
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
                | Self::History(HistoryThen::Written { .. })
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
        let target = Target::Name {
            name: name.to_owned(),
            slot: hash_slot(key.as_bytes()),
        };
        Self::at(target, commands, until, then)
    }

    /// A request to one server, whatever it is about.
    pub(super) fn to(node: NodeKey, commands: Vec<Command>, until: Instant, then: Then) -> Self {
        Self::at(Target::Node(node), commands, until, then)
    }

    fn at(target: Target, commands: Vec<Command>, until: Instant, then: Then) -> Self {
        Self {
            target,
            commands,
            answers: Vec::new(),
            until,
            safe: false,
            urgent: false,
            form: Form::Separate,
            asking: false,
            then,
        }
    }

    pub(super) fn safe(mut self) -> Self {
        self.safe = true;
        self
    }

    pub(super) fn urgent(mut self) -> Self {
        self.urgent = true;
        self
    }

    /// Makes one transaction of its commands: one that cannot be done is the answer to all of them.
    pub(super) fn atomic(mut self) -> Self {
        self.form = Form::Transaction;
        self
    }

    fn is_atomic(&self) -> bool {
        self.form != Form::Separate
    }

    /// Whether it can be written into the transaction before it: both carry a message to the same place. If one of them cannot be
    /// done, the other cannot.
    pub(super) fn can_join(&self, before: &Self) -> bool {
        let alike = |request: &Self| {
            request.is_atomic() && !request.asking && request.then.carries_a_message()
        };
        alike(self) && alike(before) && self.target == before.target
    }

    /// Says whether it is written into the transaction before it, if it is one.
    pub(super) fn set_joined(&mut self, joined: bool) {
        self.form = match self.form {
            Form::Separate => Form::Separate,
            _ if joined => Form::Joined,
            _ => Form::Transaction,
        };
    }

    pub(super) fn is_joined(&self) -> bool {
        self.form == Form::Joined
    }

    /// How many commands it has, without those that begin and end a transaction.
    pub(super) fn count(&self) -> usize {
        self.commands.len()
    }

    /// Sets what depends on the server that it is written to, and on the time there, which it is now.
    pub(super) fn date(&mut self, date: &Date<'_>) {
        for command in &mut self.commands {
            command.date(date);
        }
        if !self.is_atomic() {
            return;
        }
        if let Some(kept) = self.commands.iter().find_map(Command::kept_bytes) {
            for command in &mut self.commands {
                command.publish_bytes(&kept);
            }
        }
    }

    /// Says whether topics are sharded on the server that it is written to.
    pub(super) fn publish_sharded(&mut self, sharded: bool) {
        for command in &mut self.commands {
            command.publish_sharded(sharded);
        }
    }

    /// Why it was not done, if a server refused it.
    pub(super) fn refusal(&self, replies: &[Reply]) -> Option<Refusal> {
        if self.is_atomic() {
            // The first is the cause; the end of the transaction says only that there was one.
            replies.iter().find_map(Refusal::of)
        } else {
            replies.first().and_then(Refusal::of)
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
    fn open(&self) -> impl Iterator<Item = &Command> {
        let is_open = |index: &usize| self.answers.get(*index).is_none_or(Option::is_none);
        let indexed = self.commands.iter().enumerate();
        indexed.filter_map(move |(index, command)| is_open(&index).then_some(command))
    }

    /// Adds the commands that are still to be asked, as they are written.
    pub(super) fn write<'a>(&'a self, commands: &mut Vec<&'a Command>) {
        if self.is_atomic() {
            if self.is_joined() {
                // The end of the transaction before it.
                commands.pop();
            } else {
                commands.extend(self.asking.then_some(&*ASKING));
                commands.push(&MULTI);
            }
            commands.extend(&self.commands);
            commands.push(&EXEC);
            return;
        }
        for command in self.open() {
            commands.extend(self.asking.then_some(&*ASKING));
            commands.push(command);
        }
    }

    /// Takes the answers to those commands from the answers to a pipeline.
    pub(super) fn own_replies(&self, replies: &mut impl Iterator<Item = Reply>) -> Vec<Reply> {
        let asking = usize::from(self.asking);
        if self.is_atomic() {
            // Also to the begin and the end of the transaction.
            let count = asking + self.count() + 2;
            return replies.take(count).skip(asking).collect();
        }
        let count = self.open().count() * (1 + asking);
        replies
            .take(count)
            .skip(asking)
            .step_by(1 + asking)
            .collect()
    }

    /// The words of its commands.
    #[cfg(test)]
    pub(super) fn to_words(&self) -> Vec<Vec<Vec<u8>>> {
        self.commands.iter().map(Command::words).collect()
    }

    /// Its commands in words.
    #[cfg(test)]
    pub(super) fn to_strings(&self) -> Vec<String> {
        self.commands.iter().map(Command::to_string).collect()
    }

    /// The envelope that it carries, or the value of a membership, as it was written.
    pub(super) fn carried(&self) -> Bytes {
        let mut commands = self.commands.iter();
        let first = if self.is_atomic() {
            commands.find_map(Command::kept_bytes)
        } else {
            commands.next().and_then(Command::carried).cloned()
        };
        first.unwrap_or_default()
    }

    /// Keeps the answers of what was done. While a slot moves some of the commands may be done where it was, and the others
    /// have to be asked where it is now: what was done must not be done twice, and what it gave must not be lost.
    pub(super) fn keep(&mut self, replies: Vec<Reply>) {
        if self.is_atomic() {
            return;
        }
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
            // The wake-up was published before its entry was there, so it has to be published again.
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
