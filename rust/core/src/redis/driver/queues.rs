//! Plain channels: queues on the server, each message to exactly one receiver of the fleet.
//!
//! A queue is a list. A sender pushes at its end and learns how long it is now; if that is more than the capacity it takes
//! its own entry out again, and if somebody was quicker, the message was delivered. So the capacity is exact without a
//! script, which serverless endpoints do not run. Nobody blocks on a list: a bell (a pub/sub channel) says that there is
//! something, and a look every second makes up for a bell that was not heard.
//!
//! A process takes no more than it has receivers that wait, by moving entries to a list of its own, from which it removes
//! them as soon as it has them. If the connection breaks in between, that list holds what the server gave and nobody got, and
//! is read when the connection is back. What the list of a process that was killed holds is dropped by the
//! server after the expiry: at most once, as the specification wants it.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use tokio::time::Instant;

use super::node::Node;
use super::request::{integer, Pushed, Request, Then};
use super::Driver;
use crate::redis::host::Host;
use crate::redis::link::{Command, Reply};
use crate::redis::meter::count;
use crate::redis::notice::Notice;
use crate::redis::wire::envelope::{Draft, HEADER};
use crate::redis::wire::keys::hash_slot;

/// How many entries that have come are remembered, for a list that still holds them when the connection is back.
const REMEMBERED: usize = 4096;
/// How many of the oldest entries of a full queue are looked at, to find some that have expired.
const OLDEST: i64 = 16;
/// Milliseconds of an hour: what was pushed to in one is in an index of its own.
pub(super) const HOUR: u64 = 3_600_000;
/// A century: seconds after which a key ends at the latest, because servers refuse what is far beyond.
const LONGEST: u64 = 100 * 365 * 86_400;

/// What is known of one queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Entries that were asked for and have not come.
    pub(super) fetching: usize,
    /// Of these, those that were asked for right behind a push.
    pub(super) following: usize,
    /// Entries may have been taken whose coming was not seen: the list of those taken has to be read.
    pub(super) unsure: bool,
    /// That list is being read.
    pub(super) recovering: bool,
    /// Calls that take entries when it has been read.
    pub(super) held: Vec<Held>,
    /// The bell was heard since entries were asked for, which may have been done before that.
    pub(super) rung: bool,
    /// Entries that have come, and whether they were removed from the list of those taken.
    come: HashMap<u64, bool>,
    /// Of these, the latest that were removed: a replica that takes over may not have heard of it.
    removed: VecDeque<u64>,
    /// When entries came for the last time: for a while another server may take over that still holds them.
    pub(super) came: Option<Instant>,
    /// When it was last looked how long it is, by the number of the look.
    pub(super) looked: u64,
    /// Since when messages wait here for nobody.
    pub(super) stale: Option<Instant>,
    /// The hour in whose index its name is.
    pub(super) indexed: Option<u64>,
}

impl Queue {
    /// Notes that an entry has come; tells whether it is the first time.
    pub(super) fn has_come(&mut self, entry: u64) -> bool {
        let before = self.come.len();
        self.come.entry(entry).or_insert(false);
        self.come.len() > before
    }

    /// Entries were removed from the list of those taken. One that came twice is acknowledged twice, and one may be acknowledged so
    /// late that this record is another.
    pub(super) fn acknowledged(&mut self, entries: &[u64]) {
        for entry in entries {
            if let Some(removed @ false) = self.come.get_mut(entry) {
                *removed = true;
                self.removed.push_back(*entry);
            }
        }
        let over = self.removed.len().saturating_sub(REMEMBERED);
        for entry in self.removed.drain(..over) {
            self.come.remove(&entry);
        }
    }

    /// Whether all that has come was removed from the list of those taken.
    pub(super) fn is_acknowledged(&self) -> bool {
        self.come.len() == self.removed.len()
    }
}

/// A call that takes entries whether anybody waits or not.
#[derive(Debug)]
pub(super) struct Held {
    /// How many at most.
    pub(super) most: usize,
    pub(super) tally: usize,
}

impl<H: Host> Driver<H> {
    pub(super) fn push(&mut self, channel: &str, entry: Draft, tally: usize) {
        count(&self.shared.meter.bytes_out, entry.len() as u64);
        self.index(channel);
        let key = self.keys.queue(channel);
        let mut commands = vec![
            Command::new("RPUSH").text(&key).envelope(entry),
            self.expire(&key),
            self.ring(channel),
        ];
        // If somebody waits here, the first entry is taken at once: it is ours to take, and saves the way of the bell. What
        // was asked for before is no reason not to: it was done before this push, and cannot have taken this.
        let waiting = self.engine.waiters(channel);
        let queue = self.queues.entry(channel.to_owned()).or_default();
        let follows = waiting > queue.following && !queue.unsure;
        if follows {
            queue.following += 1;
            queue.fetching += 1;
            commands.push(self.take(channel));
            commands.push(self.expire(&self.keys.taken(channel, self.me)));
        }
        let until = self.add_part(tally);
        let pushed = Pushed {
            channel: channel.to_owned(),
            entry: Arc::default(),
            length: 0,
            tally,
            follows,
        };
        let request = Request::new(channel, &key, commands, until, Then::Queued(pushed));
        self.submit(request);
    }

    /// The server of a queue.
    fn node_of_queue(&self, channel: &str) -> Option<&Node> {
        let slot = hash_slot(self.keys.queue(channel).as_bytes());
        let key = self.node_of(channel, slot)?;
        self.nodes.get(&key)
    }

    /// Whether there is a connection to the server of a queue.
    pub(super) fn can_write_to(&self, channel: &str) -> bool {
        let node = self.node_of_queue(channel);
        node.is_some_and(|node| node.writer.link().is_some())
    }

    /// The time at the server of a queue, in milliseconds since the epoch.
    pub(super) fn time_at_queue(&self, channel: &str) -> u64 {
        let clock = self.node_of_queue(channel).and_then(|node| node.clock);
        clock.map_or_else(|| self.shared.now(), |clock| clock.milliseconds(self.now))
    }

    /// Puts the name of a queue where `flush` finds it.
    pub(super) fn index(&mut self, channel: &str) {
        let hour = self.shared.now() / HOUR;
        let queue = self.queues.entry(channel.to_owned()).or_default();
        if queue.indexed.replace(hour) == Some(hour) {
            return;
        }
        let key = self.keys.index(hour);
        let commands = vec![
            Command::new("SADD").text(&key).text(channel),
            end_after(&key, self.expiry_ms().saturating_add(2 * HOUR)),
        ];
        let then = Then::Indexed {
            channel: channel.to_owned(),
        };
        let request = Request::new("", &key, commands, self.until(), then).safe();
        self.submit(request);
    }

    /// It is not in the index: the next message for the queue puts it there.
    pub(super) fn index_failed(&mut self, channel: &str) {
        if let Some(queue) = self.queues.get_mut(channel) {
            queue.indexed = None;
        }
    }

    /// A server that is back may have lost the index.
    pub(super) fn index_anew(&mut self) {
        for queue in self.queues.values_mut() {
            queue.indexed = None;
        }
    }

    pub(super) fn expire(&self, key: &str) -> Command {
        end_after(key, self.expiry_ms())
    }

    /// Rings the bell of a queue.
    pub(super) fn ring(&self, channel: &str) -> Command {
        Command::publish(self.keys.bell(channel)).bytes(Arc::default())
    }

    pub(super) fn take(&self, channel: &str) -> Command {
        Command::new("LMOVE")
            .text(self.keys.queue(channel))
            .text(self.keys.taken(channel, self.me))
            .word("LEFT")
            .word("RIGHT")
    }

    /// How many receivers here wait for messages that have not been asked for.
    pub(super) fn missing(&self, channel: &str) -> usize {
        let fetching = self.queues.get(channel).map_or(0, |queue| queue.fetching);
        self.engine.waiters(channel).saturating_sub(fetching)
    }

    pub(super) fn queued(&mut self, mut pushed: Pushed, entry: Arc<[u8]>, replies: Vec<Reply>) {
        pushed.entry = entry;
        let mut replies = replies.into_iter();
        pushed.length = integer(replies.next().as_ref());
        let taken: Vec<Reply> = replies.skip(2).take(1).collect();
        self.followed(&pushed.channel, taken.len());
        let capacity = self.engine.capacity_of(&pushed.channel);
        if pushed.length > capacity as u64 {
            let last = OLDEST - 1;
            let key = self.keys.queue(&pushed.channel);
            let commands = vec![
                Command::new("LRANGE").text(&key).number(0).number(last),
                self.beyond(&pushed),
            ];
            let name = pushed.channel.clone();
            let then = Then::Oldest(pushed);
            let request = Request::new(&name, &key, commands, self.until(), then);
            self.submit(request);
            self.took(&name, taken.len(), taken);
            return;
        }
        let (channel, length) = (pushed.channel.clone(), pushed.length);
        self.accept(&pushed);
        let took = self.took(&channel, taken.len(), taken);
        self.note_depth(&channel, length.saturating_sub(took));
    }

    fn accept(&mut self, pushed: &Pushed) {
        count(&self.shared.meter.queued, 1);
        self.note_depth(&pushed.channel, pushed.length);
        self.finish(pushed.tally, |answer| answer.queued += 1);
    }

    pub(super) fn note_depth(&mut self, channel: &str, depth: u64) {
        let mut depths = self.shared.depths.lock();
        if depth == 0 {
            depths.remove(channel);
        } else {
            depths.insert(channel.to_owned(), depth);
            // What is known of it may have been forgotten while the answer was on its way; it is looked at from now on.
            self.queues.entry(channel.to_owned()).or_default();
        }
    }

    /// Asks for the entries that have no place in a queue. Several senders may find the same expired ones to remove, so
    /// how long the queue was does not tell who has one.
    fn beyond(&self, pushed: &Pushed) -> Command {
        Command::new("LRANGE")
            .text(self.keys.queue(&pushed.channel))
            .number(self.engine.capacity_of(&pushed.channel))
            .number(-1)
    }

    /// The queue was full: perhaps of messages that have expired. If not, the new one goes.
    pub(super) fn prune(&mut self, pushed: Pushed, mut replies: Vec<Reply>) {
        let beyond = replies.pop();
        let key = self.keys.queue(&pushed.channel);
        let now = self.time_at_queue(&pushed.channel);
        let mut commands: Vec<Command> = entries(replies)
            .filter(|entry| deadline(entry).is_some_and(|deadline| deadline <= now))
            .map(|entry| {
                Command::new("LREM")
                    .text(&key)
                    .number(1)
                    .bytes(Arc::from(entry))
            })
            .collect();
        if commands.is_empty() {
            self.settle_place(pushed, beyond);
            return;
        }
        commands.push(self.beyond(&pushed));
        let name = pushed.channel.clone();
        let request = Request::new(&name, &key, commands, self.until(), Then::Pruned(pushed));
        self.submit(request.safe());
    }

    pub(super) fn pruned(&mut self, mut pushed: Pushed, mut replies: Vec<Reply>) {
        let beyond = replies.pop();
        let removed = replies.iter().map(|reply| integer(Some(reply))).sum();
        self.expired(&pushed.channel, removed);
        pushed.length = pushed.length.saturating_sub(removed);
        self.settle_place(pushed, beyond);
    }

    /// Messages were in a queue until they expired.
    pub(super) fn expired(&mut self, channel: &str, messages: u64) {
        count(&self.shared.meter.queue_expired, messages);
        if messages > 0 {
            self.tell_once(Notice::QueueExpired {
                channel: channel.to_owned(),
            });
        }
    }

    fn settle_place(&mut self, pushed: Pushed, beyond: Option<Reply>) {
        let mut beyond = entries(beyond.into_iter().collect());
        if beyond.any(|entry| *entry == *pushed.entry) {
            self.withdraw(pushed);
        } else {
            self.accept(&pushed);
        }
    }

    fn withdraw(&mut self, pushed: Pushed) {
        let key = self.keys.queue(&pushed.channel);
        let own = Arc::clone(&pushed.entry);
        let command = Command::new("LREM").text(&key).number(-1).bytes(own);
        let name = pushed.channel.clone();
        let then = Then::Withdrawn(pushed);
        let request = Request::new(&name, &key, vec![command], self.until(), then);
        self.submit(request);
    }

    pub(super) fn withdrawn(&mut self, pushed: &Pushed, replies: &[Reply]) {
        if integer(replies.first()) == 0 {
            // Somebody took it meanwhile.
            self.accept(pushed);
            return;
        }
        count(&self.shared.meter.queue_full, 1);
        self.note_depth(&pushed.channel, pushed.length.saturating_sub(1));
        self.finish(pushed.tally, |answer| answer.full += 1);
    }
}

/// Has the server remove a key when that time is over, and not before.
pub(super) fn end_after(key: &str, milliseconds: u64) -> Command {
    let seconds = milliseconds.saturating_add(1000).div_ceil(1000);
    Command::new("EXPIRE")
        .text(key)
        .number(seconds.min(LONGEST))
}

pub(super) fn entry(reply: Reply) -> Option<Vec<u8>> {
    match reply {
        Reply::BulkString(bytes) => Some(bytes),
        Reply::SimpleString(text) => Some(text.into_bytes()),
        _ => None,
    }
}

/// The entries of a list, which is the first answer.
pub(super) fn entries(replies: Vec<Reply>) -> impl Iterator<Item = Vec<u8>> {
    let list = match replies.into_iter().next() {
        Some(Reply::Array(list)) => list,
        _ => Vec::new(),
    };
    list.into_iter().filter_map(entry)
}

fn number(entry: &[u8], from: usize) -> Option<u64> {
    let bytes = entry.get(from..from + 8)?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// When an entry expires; nothing that is too short for a header has a deadline.
pub(super) fn deadline(entry: &[u8]) -> Option<u64> {
    number(entry, HEADER - 8)
}

/// What tells an entry from all others of its queue. Its number is not enough: a sender counts anew, and for groups apart.
pub(super) fn id(entry: &[u8]) -> Option<u64> {
    entry.get(..HEADER)?;
    let mut hasher = DefaultHasher::new();
    hasher.write(entry);
    Some(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_acknowledged_however_often_and_late() {
        let mut queue = Queue::default();
        assert!(queue.has_come(1));
        assert!(queue.has_come(2));
        assert!(!queue.is_acknowledged());
        queue.acknowledged(&[1]);
        assert!(!queue.has_come(1), "the list of those taken still had it");
        queue.acknowledged(&[1, 2]);
        assert!(queue.is_acknowledged());
        queue.acknowledged(&[3]);
        assert!(queue.is_acknowledged(), "another record had that one");
        assert!(queue.has_come(3));
        assert!(!queue.is_acknowledged());
    }

    #[test]
    fn the_latest_entries_are_remembered() {
        let mut queue = Queue::default();
        let entries: Vec<u64> = (0..=REMEMBERED as u64).collect();
        for &entry in &entries {
            assert!(queue.has_come(entry));
        }
        queue.acknowledged(&entries);
        assert!(queue.is_acknowledged());
        assert!(queue.has_come(0), "it was removed longest ago");
        assert!(!queue.has_come(1));
    }
}
