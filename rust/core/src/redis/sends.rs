//! Where a message goes that was given to be sent: to the inbox of a process, to the topic of a group, or into a queue.

use std::sync::Arc;

use super::driver::Driver;
use super::envelope;
use super::host::Host;
use super::keys::process_of;
use super::members::BeforeMembers;
use super::settings::Wire;
use super::shared::lock;

impl<H: Host> Driver<H> {
    pub(super) fn expiry_ms(&self) -> u64 {
        u64::try_from(self.settings.expiry.as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn stamped(&mut self, destination: &str, mut entry: Vec<u8>) -> Arc<[u8]> {
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
        if let Some(known) = self.tallies.get_mut(tally) {
            known.left += 1;
        }
        self.when_members_are_read(BeforeMembers::Message {
            group: group.to_owned(),
            exclude: exclude.to_vec(),
            entry,
            tally,
        });
    }

    pub(super) fn push_to_members(
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
}
