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

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::connection::{Command, Reply};
use super::driver::Driver;
use super::envelope::{self, Body, Control, Header, Outgoing, HEADER};
use super::fault::Fault;
use super::host::Host;
use super::keys::{member_field, membership_of, process_of};
use super::nodes::NodeKey;
use super::requests::{integer, Request, Then};
use super::settings::Wire;
use super::shared::{count, lock};

/// How many entries are taken with one request at most.
const MOST: usize = 64;
/// How many of the oldest entries of a full queue are looked at, to find some that have expired.
const OLDEST: i64 = 16;
/// How long a message waits here for a receiver that left, before it goes back to its queue.
const STALE: Duration = Duration::from_secs(1);

/// What is known of one queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Entries that were asked for and have not come.
    fetching: usize,
    /// Of these, those that were asked for right behind a push.
    following: usize,
    /// Entries that have come, and may still be on the list of those taken.
    unacknowledged: HashSet<(u64, u64)>,
    /// Since when messages wait here for nobody.
    stale: Option<Instant>,
    /// Its name is in the index.
    indexed: bool,
}

/// An entry on its way into a queue.
#[derive(Debug)]
pub(super) struct Pushed {
    pub(super) channel: String,
    pub(super) entry: Arc<[u8]>,
    /// How many entries the queue held with this one.
    length: u64,
    pub(super) tally: usize,
}

/// A message to a group whose plain members are not known yet.
#[derive(Debug)]
pub(super) struct BeforeMembers {
    group: String,
    exclude: Vec<String>,
    entry: Arc<[u8]>,
    tally: usize,
}

impl<H: Host> Driver<H> {
    fn expiry_ms(&self) -> u64 {
        u64::try_from(self.settings.expiry.as_millis()).unwrap_or(u64::MAX)
    }

    fn stamped(&mut self, destination: &str, mut entry: Vec<u8>) -> Arc<[u8]> {
        let deadline = self.shared.now().saturating_add(self.expiry_ms());
        envelope::stamp(&mut entry, self.counters.next(destination), deadline);
        Arc::from(entry)
    }

    /// Carries a message to a channel: to the process that has it, or into its queue.
    pub(super) fn send(&mut self, channel: &str, entry: Vec<u8>, tally: usize) {
        if self.settings.wire == Wire::ChannelsRedis {
            self.publish(channel, channel.to_owned(), Arc::from(entry), tally, false);
            return;
        }
        if let Some(process) = process_of(channel) {
            let topic = self.keys.inbox(process);
            let entry = self.stamped(&topic, entry);
            self.publish(&process.to_string(), topic, entry, tally, true);
            return;
        }
        let entry = self.stamped(&self.keys.queue(channel), entry);
        self.push(channel, entry, tally);
    }

    /// Carries a message to a group: to the processes that have members of it, and into the queues that are in it.
    pub(super) fn group_send(
        &mut self,
        group: &str,
        exclude: &[String],
        entry: Vec<u8>,
        tally: usize,
    ) {
        if self.settings.wire == Wire::ChannelsRedis {
            let topic = self.keys.channels_redis_group(group);
            self.publish(&topic.clone(), topic, Arc::from(entry), tally, false);
            return;
        }
        let topic = self.keys.group(group);
        let entry = self.stamped(&topic, entry);
        self.publish(group, topic, Arc::clone(&entry), tally, false);
        if self.members_read {
            self.push_to_members(group, exclude, &entry, tally);
            return;
        }
        if self.before_members.is_empty() {
            self.load_members();
        }
        if let Some(known) = self.tallies.get_mut(tally) {
            known.left += 1;
        }
        self.before_members.push(BeforeMembers {
            group: group.to_owned(),
            exclude: exclude.to_vec(),
            entry,
            tally,
        });
    }

    fn push_to_members(
        &mut self,
        group: &str,
        exclude: &[String],
        entry: &Arc<[u8]>,
        tally: usize,
    ) {
        let queues = lock(&self.shared.plain).of_group(group, self.shared.now());
        if queues.is_empty() {
            return;
        }
        if let Some(known) = self.tallies.get_mut(tally) {
            known.group = Some(group.to_owned());
        }
        for channel in queues {
            if !exclude.contains(&channel) {
                self.push(&channel, Arc::clone(entry), tally);
            }
        }
    }

    fn push(&mut self, channel: &str, entry: Arc<[u8]>, tally: usize) {
        count(&self.shared.meter.bytes_out, entry.len() as u64);
        self.index(channel);
        let key = self.keys.queue(channel);
        let mut commands = vec![
            Command::new("RPUSH").text(&key).bytes(Arc::clone(&entry)),
            self.expire(&key),
            Command::publish(self.keys.bell(channel), Arc::from(Vec::new())),
        ];
        // If somebody waits here, the first entry is taken at once: it is ours to take, and saves the way of the bell. What
        // was asked for before is no reason not to: it was done before this push, and cannot have taken this.
        let waiting = self.engine.waiters(channel);
        let queue = self.queues.entry(channel.to_owned()).or_default();
        if waiting > queue.following {
            queue.following += 1;
            queue.fetching += 1;
            commands.push(self.take(channel));
            commands.push(self.expire(&self.keys.taken(channel, self.me)));
        }
        if let Some(known) = self.tallies.get_mut(tally) {
            known.left += 1;
        }
        let pushed = Pushed {
            channel: channel.to_owned(),
            entry,
            length: 0,
            tally,
        };
        let request = Request::new(channel, &key, commands, self.until(), Then::Queued(pushed));
        self.submit(request);
    }

    /// Puts the name of a queue where `flush` finds it.
    fn index(&mut self, channel: &str) {
        let queue = self.queues.entry(channel.to_owned()).or_default();
        if std::mem::replace(&mut queue.indexed, true) {
            return;
        }
        let key = self.keys.index();
        let command = Command::new("SADD").text(&key).text(channel);
        let then = Then::Indexed {
            channel: channel.to_owned(),
        };
        let request = Request::new("", &key, vec![command], self.until(), then).safe();
        self.submit(request);
    }

    /// It is not in the index: the next message for the queue puts it there.
    pub(super) fn index_failed(&mut self, channel: &str) {
        if let Some(queue) = self.queues.get_mut(channel) {
            queue.indexed = false;
        }
    }

    /// A server that is back may have lost the index.
    pub(super) fn index_anew(&mut self) {
        for queue in self.queues.values_mut() {
            queue.indexed = false;
        }
    }

    fn expire(&self, key: &str) -> Command {
        let milliseconds = self.expiry_ms().saturating_add(1000);
        Command::new("EXPIRE")
            .text(key)
            .number(milliseconds.div_ceil(1000))
    }

    fn take(&self, channel: &str) -> Command {
        Command::new("LMOVE")
            .text(self.keys.queue(channel))
            .text(self.keys.taken(channel, self.me))
            .word("LEFT")
            .word("RIGHT")
    }

    /// How many receivers here wait for messages that have not been asked for.
    fn missing(&self, channel: &str) -> usize {
        let fetching = self.queues.get(channel).map_or(0, |queue| queue.fetching);
        self.engine.waiters(channel).saturating_sub(fetching)
    }

    pub(super) fn queued(&mut self, mut pushed: Pushed, replies: Vec<Reply>) {
        let mut replies = replies.into_iter();
        pushed.length = integer(replies.next().as_ref());
        let taken: Vec<Reply> = replies.skip(2).take(1).collect();
        self.followed(&pushed.channel, taken.len());
        let capacity = self.engine.capacity_of(&pushed.channel);
        if pushed.length > capacity as u64 {
            let last = OLDEST - 1;
            let key = self.keys.queue(&pushed.channel);
            let command = Command::new("LRANGE").text(&key).number(0).number(last);
            let name = pushed.channel.clone();
            let request = Request::new(
                &name,
                &key,
                vec![command],
                self.until(),
                Then::Oldest(pushed),
            );
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

    fn note_depth(&mut self, channel: &str, depth: u64) {
        let mut depths = lock(&self.shared.depths);
        if depth == 0 {
            depths.remove(channel);
        } else {
            depths.insert(channel.to_owned(), depth);
        }
    }

    /// The queue is full: perhaps of messages that have expired. If not, the new one goes.
    pub(super) fn prune(&mut self, pushed: Pushed, replies: Vec<Reply>) {
        let key = self.keys.queue(&pushed.channel);
        let now = self.shared.now();
        let expired: Vec<Command> = entries(replies)
            .filter(|entry| deadline(entry).is_some_and(|deadline| deadline <= now))
            .map(|entry| {
                Command::new("LREM")
                    .text(&key)
                    .number(1)
                    .bytes(Arc::from(entry))
            })
            .collect();
        if expired.is_empty() {
            self.withdraw(pushed);
            return;
        }
        // Several senders may have found the same to remove: who has a place now is told by what stands beyond the last.
        let capacity = self.engine.capacity_of(&pushed.channel) as u64;
        let mut commands = expired;
        commands.push(
            Command::new("LRANGE")
                .text(&key)
                .number(capacity)
                .number(-1),
        );
        let name = pushed.channel.clone();
        let request = Request::new(&name, &key, commands, self.until(), Then::Pruned(pushed));
        self.submit(request.safe());
    }

    pub(super) fn pruned(&mut self, mut pushed: Pushed, mut replies: Vec<Reply>) {
        let mut beyond = entries(replies.pop().into_iter().collect());
        let has_no_place = beyond.any(|entry| *entry == *pushed.entry);
        drop(beyond);
        let removed = replies.iter().map(|reply| integer(Some(reply))).sum();
        count(&self.shared.meter.queue_expired, removed);
        pushed.length = pushed.length.saturating_sub(removed);
        if has_no_place {
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

    // Receiving.

    /// Somebody here waits for a message of a queue.
    pub(super) fn want(&mut self, channel: &str) {
        self.want_topic(self.keys.bell(channel), None);
        self.fetch(channel);
    }

    /// Takes as many entries as receivers wait here.
    pub(super) fn fetch(&mut self, channel: &str) {
        let missing = self.missing(channel);
        if missing > 0 {
            self.ask_entries(channel, missing, None);
        }
    }

    /// Takes entries whether anybody waits or not.
    pub(super) fn fetch_for(&mut self, channel: &str, most: usize, tally: usize) {
        self.ask_entries(channel, most, Some(tally));
    }

    fn ask_entries(&mut self, channel: &str, entries: usize, tally: Option<usize>) {
        let asked = entries.min(MOST);
        self.queues.entry(channel.to_owned()).or_default().fetching += asked;
        let key = self.keys.queue(channel);
        let mut commands = vec![self.take(channel); asked];
        commands.push(self.expire(&self.keys.taken(channel, self.me)));
        commands.push(Command::new("LLEN").text(&key));
        let then = Then::Fetched {
            channel: channel.to_owned(),
            asked,
            tally,
        };
        let request = Request::new(channel, &key, commands, self.until(), then);
        self.submit(request);
    }

    pub(super) fn fetched(
        &mut self,
        channel: &str,
        asked: usize,
        tally: Option<usize>,
        mut replies: Vec<Reply>,
    ) {
        let depth = integer(replies.pop().as_ref());
        replies.truncate(asked);
        let took = self.took(channel, asked, replies);
        self.note_depth(channel, depth);
        if let Some(tally) = tally {
            self.finish(tally, |answer| answer.queued += took);
        }
        if depth > 0 {
            self.fetch(channel);
        }
    }

    /// What was asked for behind a push has come, or will not come.
    fn followed(&mut self, channel: &str, asked: usize) {
        if let Some(queue) = self.queues.get_mut(channel) {
            queue.following = queue.following.saturating_sub(asked);
        }
    }

    /// A push has failed, and with it what was asked for behind it.
    pub(super) fn push_failed(&mut self, channel: &str) {
        if let Some(queue) = self.queues.get_mut(channel) {
            let asked = std::mem::take(&mut queue.following);
            queue.fetching = queue.fetching.saturating_sub(asked);
        }
    }

    pub(super) fn fetch_failed(&mut self, channel: &str, asked: usize) {
        if let Some(queue) = self.queues.get_mut(channel) {
            queue.fetching = queue.fetching.saturating_sub(asked);
        }
    }

    /// Entries that were asked for have come, or there were none; counts those that came.
    fn took(&mut self, channel: &str, asked: usize, replies: Vec<Reply>) -> u64 {
        self.fetch_failed(channel, asked);
        let taken: Vec<Vec<u8>> = replies.into_iter().filter_map(entry).collect();
        let count = taken.len() as u64;
        self.deliver_entries(channel, taken);
        count
    }

    /// Puts entries into the local mailbox, and removes them from the list of what was taken.
    fn deliver_entries(&mut self, channel: &str, entries: Vec<Vec<u8>>) {
        if entries.is_empty() {
            return;
        }
        let taken = self.keys.taken(channel, self.me);
        let mut acknowledged = Vec::with_capacity(entries.len());
        let mut commands = Vec::with_capacity(entries.len());
        for entry in entries {
            let bytes: Arc<[u8]> = Arc::from(entry.as_slice());
            commands.push(Command::new("LREM").text(&taken).number(1).bytes(bytes));
            let Some(id) = id(&entry) else {
                count(&self.shared.meter.malformed, 1);
                continue;
            };
            acknowledged.push(id);
            let queue = self.queues.entry(channel.to_owned()).or_default();
            if queue.unacknowledged.insert(id) {
                self.deliver_entry(channel, entry);
            }
        }
        let then = Then::Acknowledged {
            channel: channel.to_owned(),
            entries: acknowledged,
        };
        let request = Request::new(channel, &taken, commands, self.until(), then);
        self.submit(request.safe());
    }

    fn deliver_entry(&mut self, channel: &str, entry: Vec<u8>) {
        count(&self.shared.meter.bytes_in, entry.len() as u64);
        let now = self.shared.now();
        if deadline(&entry).is_some_and(|deadline| deadline <= now) {
            count(&self.shared.meter.queue_expired, 1);
            return;
        }
        match envelope::decode(entry, self.settings.crypt.as_deref()).map(|envelope| envelope.body)
        {
            Ok(Body::Group { payload, .. } | Body::Direct { payload, .. }) => {
                count(&self.shared.meter.fetched, 1);
                self.deliver_to_channel(channel, payload);
            }
            Ok(Body::Control(_)) | Err(_) => count(&self.shared.meter.malformed, 1),
        }
    }

    pub(super) fn acknowledged(&mut self, channel: &str, entries: &[(u64, u64)]) {
        if let Some(queue) = self.queues.get_mut(channel) {
            for entry in entries {
                queue.unacknowledged.remove(entry);
            }
        }
    }

    /// Reads what the server gave before the connection broke.
    pub(super) fn recover_taken(&mut self, node: &NodeKey) {
        let channels: Vec<String> = self.queues.keys().cloned().collect();
        for channel in channels {
            let taken = self.keys.taken(&channel, self.me);
            let slot = super::keys::hash_slot(taken.as_bytes());
            if self.node_of(&channel, slot).as_ref() != Some(node) {
                continue;
            }
            let command = Command::new("LRANGE").text(&taken).number(0).number(-1);
            let then = Then::Recovered {
                channel: channel.clone(),
            };
            let request = Request::new(&channel, &taken, vec![command], self.until(), then);
            self.submit(request.safe());
        }
    }

    pub(super) fn recovered(&mut self, channel: &str, replies: Vec<Reply>) {
        let entries: Vec<Vec<u8>> = entries(replies).collect();
        self.deliver_entries(channel, entries);
        self.fetch(channel);
    }

    /// Looks whether there is something in the queues that somebody waits for here, gives back what nobody here wants any more,
    /// and forgets the queues that nobody uses.
    pub(super) fn audit_queues(&mut self) {
        let channels: Vec<String> = self.queues.keys().cloned().collect();
        for channel in channels {
            if self.engine.waiters(&channel) > 0 {
                self.fetch(&channel);
                continue;
            }
            if self.engine.depth(&channel) > 0 {
                self.hand_back_if_stale(&channel);
                continue;
            }
            let known = lock(&self.shared.depths).contains_key(&channel);
            let Some(queue) = self.queues.get_mut(&channel) else {
                continue;
            };
            queue.stale = None;
            if known && queue.fetching == 0 {
                self.look_at(&channel);
            } else if !known && queue.fetching == 0 && queue.unacknowledged.is_empty() {
                self.queues.remove(&channel);
            }
        }
    }

    /// Asks how long a queue is.
    fn look_at(&mut self, channel: &str) {
        let key = self.keys.queue(channel);
        let command = Command::new("LLEN").text(&key);
        let then = Then::Fetched {
            channel: channel.to_owned(),
            asked: 0,
            tally: None,
        };
        let request = Request::new(channel, &key, vec![command], self.until(), then);
        self.submit(request.safe());
    }

    fn hand_back_if_stale(&mut self, channel: &str) {
        let now = self.now;
        let Some(queue) = self.queues.get_mut(channel) else {
            return;
        };
        let since = *queue.stale.get_or_insert(now);
        if since + STALE <= now {
            queue.stale = None;
            self.hand_back(channel);
        }
    }

    pub(super) fn hand_back_all(&mut self) {
        let channels: Vec<String> = self.queues.keys().cloned().collect();
        for channel in channels {
            self.hand_back(&channel);
        }
    }

    /// Puts the messages that wait here back to the front of their queue. They expire anew: how old they are is not known
    /// any more.
    fn hand_back(&mut self, channel: &str) {
        let mut messages = Vec::new();
        while let Ok(Some(message)) = self.engine.take(channel) {
            messages.push(message.message);
        }
        if messages.is_empty() {
            return;
        }
        let key = self.keys.queue(channel);
        let mut commands = Vec::with_capacity(messages.len() + 2);
        for message in messages.iter().rev() {
            if let Some(entry) = self.entry_of(channel, message) {
                commands.push(Command::new("LPUSH").text(&key).bytes(entry));
            }
        }
        let handed_back = commands.len() as u64;
        count(&self.shared.meter.handed_back, handed_back);
        self.note_depth(channel, handed_back);
        commands.push(self.expire(&key));
        commands.push(Command::publish(
            self.keys.bell(channel),
            Arc::from(Vec::new()),
        ));
        let tally = self.tally(1, None);
        let then = Then::HandedBack { tally };
        let request = Request::new(channel, &key, commands, self.until(), then);
        self.submit(request);
    }

    fn entry_of(&mut self, channel: &str, message: &H::Message) -> Option<Arc<[u8]>> {
        let payload = self.host.payload(message)?.to_vec();
        let header = Header {
            sender: self.me,
            ..Header::default()
        };
        let seal = self.settings.crypt.as_deref().map(|crypt| envelope::Seal {
            crypt,
            now: self.shared.now() / 1000,
        });
        let body = Outgoing::Direct {
            channel,
            payload: &payload,
        };
        let entry = envelope::encode(&header, body, seal).ok()?;
        Some(self.stamped(&self.keys.queue(channel), entry))
    }

    // The memberships of plain channels, and the end of everything.

    /// Removes a queue and what it holds.
    pub(super) fn close_queue(&mut self, channel: &str) {
        lock(&self.shared.depths).remove(channel);
        let tally = self.tally(1, None);
        let request = self.removal(channel, tally);
        self.submit(request);
    }

    fn removal(&self, channel: &str, tally: usize) -> Request {
        let (queue, taken) = (self.keys.queue(channel), self.keys.taken(channel, self.me));
        let commands = vec![
            Command::new("LLEN").text(&queue),
            Command::new("DEL").text(&queue),
            Command::new("DEL").text(taken),
        ];
        let then = Then::Removed { tally, queue: true };
        Request::new(channel, &queue, commands, self.until(), then).safe()
    }

    pub(super) fn change_membership(
        &mut self,
        group: String,
        channel: String,
        deadline: Option<u64>,
        tally: usize,
    ) {
        let key = self.keys.members();
        let field = member_field(&group, &channel);
        let command = match deadline {
            Some(deadline) => Command::new("HSET").text(&key).text(field).number(deadline),
            None => Command::new("HDEL").text(&key).text(field),
        };
        let then = Then::Membership {
            group,
            channel,
            deadline,
            tally,
        };
        let request = Request::new("", &key, vec![command], self.until(), then).safe();
        self.submit(request);
    }

    pub(super) fn membership_changed(
        &mut self,
        group: &str,
        channel: &str,
        deadline: Option<u64>,
        tally: usize,
    ) {
        let mut plain = lock(&self.shared.plain);
        match deadline {
            Some(deadline) => plain.add(group, channel, deadline),
            None => plain.remove(group, channel),
        }
        drop(plain);
        // The answer comes when the others have been told.
        self.say_to_all(&Control::MembersChanged, tally);
        self.finish(tally, |_| {});
    }

    /// Who is a member could not be read: what was to go to them has not been sent.
    pub(super) fn members_unread(&mut self, fault: &Fault) {
        for message in std::mem::take(&mut self.before_members) {
            self.finish_with(message.tally, fault.clone());
        }
    }

    pub(super) fn read_members(&mut self, replies: Vec<Reply>) {
        let words: Vec<Reply> = match replies.into_iter().next() {
            Some(Reply::Map(pairs)) => pairs
                .into_iter()
                .flat_map(|(key, value)| [key, value])
                .collect(),
            Some(Reply::Array(words)) => words,
            _ => Vec::new(),
        };
        let now = self.shared.now();
        let mut expired = Vec::new();
        let mut memberships = Vec::new();
        let mut words = words.into_iter();
        while let (Some(field), Some(deadline)) = (words.next(), words.next()) {
            let text = |word: Reply| entry(word).and_then(|bytes| String::from_utf8(bytes).ok());
            let (Some(field), Some(deadline)) = (text(field), text(deadline)) else {
                continue;
            };
            let (Some((group, channel)), Ok(deadline)) = (membership_of(&field), deadline.parse())
            else {
                continue;
            };
            if deadline > now {
                memberships.push((group.to_owned(), channel.to_owned(), deadline));
            } else {
                expired.push(field);
            }
        }
        lock(&self.shared.plain).replace(memberships.into_iter());
        self.members_read = true;
        for message in std::mem::take(&mut self.before_members) {
            self.push_to_members(
                &message.group,
                &message.exclude,
                &message.entry,
                message.tally,
            );
            self.finish(message.tally, |_| {});
        }
        if !expired.is_empty() {
            let key = self.keys.members();
            let command = expired
                .into_iter()
                .fold(Command::new("HDEL").text(&key), Command::text);
            let request = Request::new("", &key, vec![command], self.until(), Then::Ignored);
            self.submit(request.safe());
        }
    }

    /// Removes what the layer has: here, on the servers, and in the other processes.
    pub(super) fn flush(&mut self, tally: usize) {
        self.engine.flush();
        lock(&self.shared.plain).clear();
        if self.settings.wire == Wire::ChannelsRedis {
            self.finish(tally, |_| {});
            return;
        }
        let key = self.keys.index();
        let command = Command::new("SMEMBERS").text(&key);
        let request = Request::new("", &key, vec![command], self.until(), Then::Index { tally });
        self.submit(request.safe());
    }

    pub(super) fn remove_queues(&mut self, tally: usize, replies: Vec<Reply>) {
        let names: Vec<Reply> = match replies.into_iter().next() {
            Some(Reply::Array(names) | Reply::Set(names)) => names,
            _ => Vec::new(),
        };
        let channels: Vec<String> = names
            .into_iter()
            .filter_map(|name| String::from_utf8(entry(name)?).ok())
            .collect();
        let mut requests = Vec::with_capacity(channels.len() + 2);
        for channel in channels {
            requests.push(self.removal(&channel, tally));
        }
        for key in [self.keys.index(), self.keys.members()] {
            let command = Command::new("DEL").text(&key);
            let then = Then::Removed {
                tally,
                queue: false,
            };
            requests.push(Request::new("", &key, vec![command], self.until(), then));
        }
        if let Some(known) = self.tallies.get_mut(tally) {
            known.left += requests.len();
        }
        lock(&self.shared.depths).clear();
        self.index_anew();
        for request in requests {
            self.submit(request.safe());
        }
        self.say_to_all(&Control::Flush, tally);
        self.finish(tally, |_| {});
    }

    pub(super) fn removed(&mut self, tally: usize, queue: bool, replies: &[Reply]) {
        if queue {
            count(&self.shared.meter.queue_dropped, integer(replies.first()));
        }
        self.finish(tally, |_| {});
    }
}

fn entry(reply: Reply) -> Option<Vec<u8>> {
    match reply {
        Reply::BulkString(bytes) => Some(bytes),
        Reply::SimpleString(text) => Some(text.into_bytes()),
        _ => None,
    }
}

/// The entries of a list, which is the first answer.
fn entries(replies: Vec<Reply>) -> impl Iterator<Item = Vec<u8>> {
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
fn deadline(entry: &[u8]) -> Option<u64> {
    number(entry, HEADER - 8)
}

/// What tells an entry from all others of its queue: its sender and its number.
fn id(entry: &[u8]) -> Option<(u64, u64)> {
    Some((number(entry, 2)?, number(entry, 10)?))
}
