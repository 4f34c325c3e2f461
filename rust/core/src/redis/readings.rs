//! Questions about a layer: what is in this process, and what is known of its queues from the last look at the server. The answers
//! change nothing, and nothing is asked of the server.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::engine::RedisEngine;
use super::host::Host;
use super::meter::LinkStats;
use super::plain::PlainSends;
use crate::engine::{ChannelStats, GroupStats, LayerStats};
use crate::error::Error;

impl<H: Host> RedisEngine<H> {
    /// The channels of a group that are in this process, and the queues that are in it.
    ///
    /// # Errors
    /// The name is invalid, or the layer is closed.
    pub fn group_channels(&self, group: &str) -> Result<Vec<Arc<str>>, Error> {
        let mut channels = self.local.group_channels(group)?;
        let plain = self.shared.plain.lock();
        let queues = plain.of_group(group, self.shared.now());
        channels.extend(queues.into_iter().map(Arc::from));
        Ok(channels)
    }

    /// How many `group_channels` gives.
    ///
    /// # Errors
    /// As `group_channels`.
    pub fn group_count(&self, group: &str) -> Result<usize, Error> {
        Ok(self.local.group_count(group)? + self.queues_in(group))
    }

    /// The groups that a channel of this process, or a queue, is in.
    ///
    /// # Errors
    /// The name is invalid, or the layer is closed.
    pub fn channel_groups(&self, channel: &str) -> Result<Vec<Arc<str>>, Error> {
        let mut groups = self.local.channel_groups(channel)?;
        let plain = self.shared.plain.lock();
        let of_queue = plain.of_channel(channel, self.shared.now());
        groups.extend(of_queue.into_iter().map(Arc::from));
        Ok(groups)
    }

    /// How many queues are in a group.
    fn queues_in(&self, group: &str) -> usize {
        self.shared.plain.lock().count(group, self.shared.now())
    }

    /// Whether queues are in a group, which may be full.
    pub fn has_queues(&self, group: &str) -> bool {
        self.queues_in(group) > 0
    }

    /// A reading of the layer, and of its connections. What is in queues counts, as far as this process put it in or took it
    /// out.
    pub fn stats(&self) -> (LayerStats, LinkStats) {
        let (here, link) = (self.local.stats(), self.link_stats());
        let (groups, memberships, queues) = self.of_queues();
        let messages = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        let layer = LayerStats {
            channels: here.channels + queues,
            groups: here.groups + groups,
            memberships: here.memberships + memberships,
            depth: here.depth + messages(link.queue_depth),
            // Those that were fetched were counted by their sender, and those that came late are counted as expired.
            sent: (here.sent + link.queued + link.late).saturating_sub(link.fetched),
            delivered: here.delivered.saturating_sub(link.handed_back),
            dropped_full: here.dropped_full + link.queue_full,
            dropped_expired: here.dropped_expired + link.late + link.queue_expired,
            dropped_other: here.dropped_other + link.queue_dropped,
            ..here
        };
        (layer, link)
    }

    /// Groups that only queues are in, the memberships of queues, and queues of which nothing is in this process.
    fn of_queues(&self) -> (usize, usize, usize) {
        let mut names: HashSet<String> = self.shared.depths.lock().keys().cloned().collect();
        let mut groups: HashMap<String, usize> = HashMap::new();
        let plain = self.shared.plain.lock();
        for (group, channel) in plain.iter(self.shared.now()) {
            *groups.entry(group.to_owned()).or_default() += 1;
            names.insert(channel.to_owned());
        }
        drop(plain);
        let memberships = groups.values().sum();
        // The groups and channels of this process are walked only if there is something to be compared with them.
        if !groups.is_empty() {
            for group in self.local.group_names() {
                groups.remove(&*group);
            }
        }
        if !names.is_empty() {
            for channel in self.local.channel_names() {
                names.remove(&*channel);
            }
        }
        (groups.len(), memberships, names.len())
    }

    /// A reading of one channel in this process; the depth of a queue is that of the last look.
    ///
    /// # Errors
    /// The name is invalid, or the layer is closed.
    pub fn channel_stats(&self, channel: &str) -> Result<ChannelStats, Error> {
        let here = self.local.channel_stats(channel)?;
        let depth = self.shared.depths.lock().get(channel).copied();
        let plain = self.shared.plain.lock();
        Ok(ChannelStats {
            depth: here.depth
                + depth.map_or(0, |depth| usize::try_from(depth).unwrap_or(usize::MAX)),
            groups: here.groups + plain.of_channel(channel, self.shared.now()).len(),
            ..here
        })
    }

    /// A reading of one group in this process, and of what this process sent to the queues that are in it.
    ///
    /// # Errors
    /// The name is invalid, or the layer is closed.
    pub fn group_stats(&self, group: &str) -> Result<GroupStats, Error> {
        let here = self.local.group_stats(group)?;
        let queues = self.queues_in(group);
        let PlainSends {
            sends,
            queued,
            full,
        } = if queues == 0 {
            PlainSends::default()
        } else {
            let groups = self.shared.groups.lock();
            groups.get(group).copied().unwrap_or_default()
        };
        Ok(GroupStats {
            members: here.members + queues,
            sends: here.sends.max(sends),
            delivered: here.delivered + queued,
            dropped_full: here.dropped_full + full,
        })
    }

    /// How often messages of a group with a history may have been missed that no server has any more.
    pub fn unhealed(&self) -> u64 {
        self.shared.unhealed.load(Ordering::Relaxed)
    }

    /// A reading of the connections.
    pub fn link_stats(&self) -> LinkStats {
        self.shared.stats()
    }
}

#[cfg(test)]
mod tests {
    use super::super::driver::testing::World;
    use super::super::engine::tests::undriven;
    use super::super::meter::count;
    use super::super::wire::form::Wire;
    use super::*;

    /// A layer that has asked nothing of a server.
    fn engine() -> RedisEngine<World> {
        undriven(Wire::Headrace).0
    }

    fn name(text: &str) -> Arc<str> {
        Arc::from(text)
    }

    fn join(engine: &RedisEngine<World>, group: &str, queue: &str) {
        engine.shared.plain.lock().set(group, queue, u64::MAX, 0);
    }

    #[test]
    fn members_are_those_of_this_process_and_the_queues() {
        let engine = engine();
        engine.local.group_add("room", "a.b!c").expect("it is open");
        join(&engine, "room", "work");
        let members = engine.group_channels("room").expect("it is open");
        assert_eq!(members, [name("a.b!c"), name("work")]);
        assert_eq!(engine.group_count("room"), Ok(2));
        assert_eq!(engine.channel_groups("work"), Ok(vec![name("room")]));
        assert!(engine.has_queues("room") && !engine.has_queues("other"));
        assert!(engine.group_channels("a room").is_err());
    }

    #[test]
    fn a_group_or_queue_that_is_known_in_both_ways_counts_once() {
        let engine = engine();
        for group in ["room", "hall"] {
            engine.local.group_add(group, "a.b!c").expect("it is open");
        }
        join(&engine, "room", "work");
        join(&engine, "queues", "work");
        join(&engine, "queues", "waiting");
        engine.shared.depths.lock().insert("work".into(), 3);
        engine.shared.depths.lock().insert("more".into(), 1);
        assert!(engine.local.send("waiting", vec![1]).is_ok());
        let (layer, link) = engine.stats();
        assert_eq!(layer.groups, 3, "room, hall and queues");
        assert_eq!(layer.memberships, 5);
        assert_eq!(layer.channels, 4, "the one here, work, waiting and more");
        assert_eq!((layer.depth, link.queue_depth), (5, 4));
    }

    #[test]
    fn what_went_through_queues_is_counted_and_the_books_balance() {
        let engine = engine();
        let meter = &engine.shared.meter;
        for (counter, messages) in [
            (&meter.queued, 5),
            (&meter.late, 1),
            (&meter.queue_expired, 1),
            (&meter.queue_full, 7),
            (&meter.queue_dropped, 1),
        ] {
            count(counter, messages);
        }
        engine.shared.depths.lock().insert("work".into(), 3);
        let (layer, _) = engine.stats();
        assert_eq!((layer.sent, layer.depth, layer.dropped_full), (6, 3, 7));
        assert_eq!((layer.dropped_expired, layer.dropped_other), (2, 1));
        let ended = layer.delivered + layer.dropped_expired + layer.dropped_other;
        assert_eq!(layer.sent, ended + layer.depth as u64);
    }

    #[test]
    fn a_channel_and_a_group_are_read_with_their_queues() {
        let engine = engine();
        join(&engine, "jobs", "work");
        engine.shared.depths.lock().insert("work".into(), 3);
        engine.shared.note_plain_sends("jobs".into(), 1, 1);
        assert!(engine.local.send("work", vec![1]).is_ok());
        let channel = engine.channel_stats("work").expect("it is open");
        assert_eq!((channel.depth, channel.groups), (4, 1));
        let group = engine.group_stats("jobs").expect("it is open");
        assert_eq!((group.members, group.sends), (1, 1));
        assert_eq!((group.delivered, group.dropped_full), (1, 1));
        // What was sent to queues that have left is not told of those that join later.
        engine.shared.plain.lock().remove("jobs", "work");
        assert_eq!(engine.group_stats("jobs"), Ok(GroupStats::default()));
    }
}
