//! The memberships of plain channels, which every process knows, and the end of everything that the layer has on the servers.

use std::sync::Arc;

use super::connection::{Command, Reply};
use super::driver::Driver;
use super::envelope::Control;
use super::fault::Fault;
use super::host::Host;
use super::keys::{member_field, membership_of};
use super::queues::entry;
use super::requests::{integer, Request, Then};
use super::settings::Wire;
use super::shared::{count, lock};

/// A message to a group whose plain members are not known yet.
#[derive(Debug)]
pub(super) struct BeforeMembers {
    pub(super) group: String,
    pub(super) exclude: Vec<String>,
    pub(super) entry: Arc<[u8]>,
    pub(super) tally: usize,
}

impl<H: Host> Driver<H> {
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
