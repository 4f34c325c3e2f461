//! Taking messages out of queues: as many as receivers wait here, acknowledged when they have come, and handed back when nobody
//! here wants them any more. See `queues` for what a queue is.

use std::sync::Arc;
use std::time::Duration;

use super::node_key::NodeKey;
use super::queues::{entries, entry, id, Held};
use super::refusals::{Origin, MISPLACED};
use super::request::{integer, Request, Then};
use super::Driver;
use crate::redis::fault::Fault;
use crate::redis::host::Host;
use crate::redis::link::{Command, Reply};
use crate::redis::meter::count;
use crate::redis::wire::envelope;
use crate::redis::wire::envelope::{Body, Draft, Envelope, Header, Outgoing};
use crate::redis::wire::keys::hash_slot;

/// How many entries are taken with one request at most.
const MOST: usize = 64;
/// For how long entries that have come are remembered where the messages live longer: a server that takes over is not further
/// behind.
const LAG: Duration = Duration::from_secs(60);
/// How many queues at which nobody waits here are looked at in a second.
const LOOKS: usize = 64;
/// How long a message waits here for a receiver that left, before it goes back to its queue.
const STALE: Duration = Duration::from_secs(1);

/// Where entries come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// The queue, which holds each once.
    Queue,
    /// The list of what this process took, which may hold some that have come.
    Taken,
}

impl<H: Host> Driver<H> {
    /// Somebody here waits for a message of a queue.
    pub(super) fn want(&mut self, channel: &str) {
        self.want_topic(&self.keys.bell(channel), None);
        self.fetch(channel);
    }

    /// Takes as many entries as receivers wait here. Entries that were moved to our list and perhaps never arrived are older, so they are
    /// read first.
    pub(super) fn fetch(&mut self, channel: &str) {
        if self.queues.get(channel).is_some_and(|queue| queue.unsure) {
            self.recover(channel);
            return;
        }
        let missing = self.missing(channel);
        if missing > 0 {
            self.ask_entries(channel, missing, None);
        }
    }

    /// There is something in a queue. What was asked for before does not count: it may find the queue as it was.
    pub(super) fn rung(&mut self, channel: &str) {
        if let Some(queue) = self.queues.get_mut(channel) {
            queue.rung = queue.fetching > 0;
        }
        self.fetch(channel);
    }

    /// Asks again for those whose entries were asked for before the bell was heard, and have not come.
    fn heed_bell(&mut self, channel: &str) {
        let missing = self.missing(channel);
        let Some(queue) = self.queues.get_mut(channel) else {
            return;
        };
        if queue.rung && (missing > 0 || queue.fetching == 0) {
            queue.rung = false;
            self.fetch(channel);
        }
    }

    /// Takes entries whether anybody waits or not, as many as there is room for here. What was taken before and may not have
    /// come is read first.
    pub(super) fn fetch_for(&mut self, channel: &str, most: usize, tally: usize) {
        if let Some(queue) = self.queues.get_mut(channel).filter(|queue| queue.unsure) {
            queue.held.push(Held { most, tally });
            self.recover(channel);
            return;
        }
        let fetching = self.queues.get(channel).map_or(0, |queue| queue.fetching);
        let room = self.engine.capacity_of(channel) + self.engine.waiters(channel);
        let most = most.min(room.saturating_sub(self.engine.depth(channel) + fetching));
        if most == 0 || self.engine.has_all_its_bytes(channel) {
            self.finish(tally, |_| {});
            return;
        }
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
    pub(super) fn followed(&mut self, channel: &str, asked: usize) {
        if let Some(queue) = self.queues.get_mut(channel) {
            queue.following = queue.following.saturating_sub(asked);
        }
    }

    /// A push has failed, and what was asked for behind it.
    pub(super) fn push_failed(&mut self, channel: &str) {
        if let Some(queue) = self.queues.get_mut(channel) {
            queue.following = queue.following.saturating_sub(1);
            queue.fetching = queue.fetching.saturating_sub(1);
            queue.unsure = true;
        }
    }

    /// The answer to a request for entries was lost, and perhaps not the entries.
    pub(super) fn be_unsure(&mut self, channel: &str) {
        if let Some(queue) = self.queues.get_mut(channel) {
            queue.unsure = true;
        }
    }

    pub(super) fn fetch_failed(&mut self, channel: &str, asked: usize) {
        if let Some(queue) = self.queues.get_mut(channel) {
            queue.fetching = queue.fetching.saturating_sub(asked);
        }
    }

    /// Entries that were asked for have come, or there were none; counts those that came.
    pub(super) fn took(&mut self, channel: &str, asked: usize, replies: Vec<Reply>) -> u64 {
        self.fetch_failed(channel, asked);
        let taken: Vec<Vec<u8>> = replies.into_iter().filter_map(entry).collect();
        let count = taken.len() as u64;
        self.deliver_entries(channel, taken, Source::Queue);
        self.heed_bell(channel);
        count
    }

    /// Puts entries into the local mailbox, and removes them from the list of what was taken.
    fn deliver_entries(&mut self, channel: &str, entries: Vec<Vec<u8>>, source: Source) {
        if entries.is_empty() {
            return;
        }
        let (key, taken) = (self.keys.queue(channel), self.keys.taken(channel, self.me));
        let mut acknowledged = Vec::with_capacity(entries.len());
        let mut commands = Vec::with_capacity(entries.len());
        for entry in entries {
            let bytes: Arc<[u8]> = Arc::from(entry.as_slice());
            commands.push(Command::new("LREM").text(&taken).number(1).bytes(bytes));
            let Some(id) = id(&entry) else {
                let from = Origin {
                    place: &key,
                    sender: None,
                };
                self.refuse_content(from, "it is shorter than the header of an envelope", "");
                continue;
            };
            acknowledged.push(id);
            let queue = self.queues.entry(channel.to_owned()).or_default();
            queue.came = Some(self.now);
            if queue.has_come(id) {
                self.deliver_entry(channel, &key, id, entry);
            } else if source == Source::Queue && self.settings.crypt.is_some() {
                self.refuse_replay(&key, envelope::sender(&entry));
            }
        }
        let then = Then::Acknowledged {
            channel: channel.to_owned(),
            entries: acknowledged,
        };
        let request = Request::new(channel, &taken, commands, self.until(), then);
        self.submit(request.safe());
    }

    fn deliver_entry(&mut self, channel: &str, key: &str, id: u64, entry: Vec<u8>) {
        count(&self.shared.meter.bytes_in, entry.len() as u64);
        if self.is_oversized(key, entry.len()) {
            return;
        }
        let sender = envelope::sender(&entry);
        match envelope::decode(entry, key, self.settings.crypt.as_deref()) {
            Ok(envelope) => self.opened_entry(channel, key, id, envelope),
            Err(malformed) => self.refuse(key, Some(sender), malformed),
        }
    }

    fn opened_entry(&mut self, channel: &str, key: &str, id: u64, envelope: Envelope) {
        let Envelope { header, body, .. } = envelope;
        if header.deadline <= self.time_at_queue(channel) {
            self.expired(channel, 1);
            return;
        }
        if envelope.authenticated && !self.is_taken_once(key, id, header.sender) {
            return;
        }
        let from = Origin {
            place: key,
            sender: Some(header.sender),
        };
        match body {
            Body::Group { payload, .. } | Body::Direct { payload, .. } => {
                count(&self.shared.meter.fetched, 1);
                self.deliver_taken(channel, payload, from);
            }
            Body::Control(_) => self.refuse_content(from, MISPLACED, ""),
        }
    }

    pub(super) fn acknowledged(&mut self, channel: &str, entries: &[u64]) {
        if let Some(queue) = self.queues.get_mut(channel) {
            queue.acknowledged(entries);
        }
    }

    /// Reads what the server gave before the connection broke.
    pub(super) fn recover_taken(&mut self, node: &NodeKey) {
        let channels: Vec<String> = self.queues.keys().cloned().collect();
        for channel in channels {
            let slot = hash_slot(self.keys.queue(&channel).as_bytes());
            if self.node_of(&channel, slot).as_ref() == Some(node) {
                self.recover_anew(&channel);
            }
        }
    }

    /// Asks for the list of what was taken, though that was done: a reading that was lost with the connection is none.
    fn recover_anew(&mut self, channel: &str) {
        if let Some(queue) = self.queues.get_mut(channel) {
            queue.recovering = false;
        }
        self.recover(channel);
    }

    /// The list of what was taken could not be read.
    pub(super) fn not_recovered(&mut self, channel: &str, fault: &Fault) {
        let Some(queue) = self.queues.get_mut(channel) else {
            return;
        };
        queue.recovering = false;
        for Held { tally, .. } in std::mem::take(&mut queue.held) {
            self.finish_with(tally, fault.clone());
        }
    }

    /// Asks for the list of what was taken. Where there is no connection the request waits, and has one be made: the queue may
    /// be at a server now that nothing else is asked of.
    fn recover(&mut self, channel: &str) {
        let Some(queue) = self.queues.get_mut(channel) else {
            return;
        };
        if std::mem::replace(&mut queue.recovering, true) {
            return;
        }
        let taken = self.keys.taken(channel, self.me);
        let command = Command::new("LRANGE").text(&taken).number(0).number(-1);
        let then = Then::Recovered {
            channel: channel.to_owned(),
        };
        let request = Request::new(channel, &taken, vec![command], self.until(), then);
        self.submit_first(request.safe());
    }

    pub(super) fn recovered(&mut self, channel: &str, replies: Vec<Reply>) {
        let held = self.queues.get_mut(channel).map(|queue| {
            queue.unsure = false;
            queue.recovering = false;
            std::mem::take(&mut queue.held)
        });
        let before = self.engine.depth(channel);
        let entries: Vec<Vec<u8>> = entries(replies).collect();
        self.deliver_entries(channel, entries, Source::Taken);
        // They are for the calls that waited for them.
        let mut here = self.engine.depth(channel).saturating_sub(before);
        for Held { most, tally } in held.unwrap_or_default() {
            self.fetch_for(channel, most.saturating_sub(here), tally);
            here = here.saturating_sub(most);
        }
        self.fetch(channel);
    }

    /// Looks whether there is something in the queues that somebody waits for here, gives back what nobody here wants any more,
    /// and forgets the queues that nobody uses and of which nothing can come twice.
    pub(super) fn audit_queues(&mut self) {
        let channels: Vec<String> = self.queues.keys().cloned().collect();
        let mut known_ones = Vec::new();
        let remembered = self.settings.expiry.min(LAG);
        for channel in channels {
            if self.engine.waiters(&channel) > 0 {
                self.fetch(&channel);
                continue;
            }
            if self.engine.depth(&channel) > 0 {
                self.hand_back_if_stale(&channel);
                continue;
            }
            let known = self.shared.depths.lock().contains_key(&channel);
            let Some(queue) = self.queues.get_mut(&channel) else {
                continue;
            };
            queue.stale = None;
            let past = queue.came.is_none_or(|came| self.now - came >= remembered);
            let over = past && queue.is_acknowledged();
            if queue.unsure {
                self.recover(&channel);
            } else if known && queue.fetching == 0 {
                known_ones.push((queue.looked, channel));
            } else if !known && queue.fetching == 0 && over {
                self.queues.remove(&channel);
            }
        }
        self.look_at_some(known_ones);
    }

    /// Asks how long those queues are that were not looked at for longest: nobody but `stats()` needs to know.
    fn look_at_some(&mut self, mut queues: Vec<(u64, String)>) {
        if queues.len() > LOOKS {
            queues.select_nth_unstable(LOOKS);
            queues.truncate(LOOKS);
        }
        for (_, channel) in queues {
            self.look_at(&channel);
        }
    }

    /// Asks how long a queue is.
    fn look_at(&mut self, channel: &str) {
        self.looks += 1;
        if let Some(queue) = self.queues.get_mut(channel) {
            queue.looked = self.looks;
        }
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
    ///
    /// Only where there is a connection: what was taken out of the mailbox would be lost with the request.
    fn hand_back(&mut self, channel: &str) {
        if !self.can_write_to(channel) {
            return;
        }
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
                commands.push(Command::new("LPUSH").text(&key).envelope(entry));
            }
        }
        self.index(channel);
        let handed_back = commands.len() as u64;
        count(&self.shared.meter.handed_back, handed_back);
        self.note_depth(channel, handed_back);
        commands.push(self.expire(&key));
        commands.push(self.ring(channel));
        let tally = self.tally(1, None);
        let then = Then::HandedBack {
            tally,
            messages: handed_back,
        };
        let request = Request::new(channel, &key, commands, self.until(), then);
        self.submit(request);
    }

    fn entry_of(&mut self, channel: &str, message: &H::Message) -> Option<Draft> {
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
        Some(self.numbered(&self.keys.queue(channel), entry))
    }
}
