//! Which channels are in which groups.
//!
//! Channels are known here by their place in the engine's slab. A membership is one record, found three ways: by
//! its group and channel (add, discard), from its group (fan-out walks a dense array of members), and from its
//! channel (a channel that is gone leaves all its groups). Each removal swaps the last element into the gap and
//! corrects that element's record, so all of them take constant time.

use std::sync::Arc;

use hashbrown::HashMap;
use slab::Slab;

use super::channels::{ChannelKey, key};
use crate::clock::Moment;
use crate::expiry::ExpiryList;
use crate::shrink::{Shrink, is_sparse};

#[derive(Debug, Default)]
pub(crate) struct Groups {
    names: HashMap<Arc<str>, u32>,
    records: Slab<Group>,
    memberships: Slab<Membership>,
    index: HashMap<(u32, ChannelKey), u32>,
    /// The memberships of each channel, at the channel's key.
    joined: Vec<Vec<u32>>,
    expiry: ExpiryList,
    /// Memberships that have ended in groups with a presence, until the caller takes them.
    left: Vec<(Arc<str>, ChannelKey)>,
}

#[derive(Debug)]
pub(crate) struct Group {
    name: Arc<str>,
    members: Vec<Member>,
    /// Whether a member was present, so that its end is to be noted.
    has_presence: bool,
    pub(crate) sends: u64,
    pub(crate) delivered: u64,
    pub(crate) dropped_full: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    pub(crate) channel: ChannelKey,
    membership: u32,
}

#[derive(Clone, Copy, Debug)]
struct Membership {
    group: u32,
    channel: ChannelKey,
    /// Its place in the group's members.
    in_group: u32,
    /// Its place in the channel's entry of `joined`.
    in_channel: u32,
}

impl Groups {
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn memberships(&self) -> usize {
        self.memberships.len()
    }

    pub(crate) fn find(&self, name: &str) -> Option<u32> {
        self.names.get(name).copied()
    }

    pub(crate) fn get(&self, group: u32) -> &Group {
        &self.records[group as usize]
    }

    pub(crate) fn get_mut(&mut self, group: u32) -> &mut Group {
        &mut self.records[group as usize]
    }

    /// The group's record, made if there is none. It must be given a member at once: an empty group is gone.
    pub(crate) fn find_or_create(&mut self, name: &str) -> u32 {
        if let Some(group) = self.find(name) {
            return group;
        }
        let name: Arc<str> = name.into();
        let group = key(self.records.insert(Group::new(Arc::clone(&name))));
        self.names.insert(name, group);
        group
    }

    /// Joins, or renews. A membership of a channel that is held does not end at its deadline. Returns whether the channel was no
    /// member before, or one whose time was over.
    pub(crate) fn add(
        &mut self,
        group: u32,
        channel: ChannelKey,
        (now, deadline): (Moment, Moment),
        held: bool,
    ) -> bool {
        let known = self.index.get(&(group, channel)).copied();
        let is_new = known.is_none_or(|membership| self.is_overdue(membership, now));
        let membership = known.unwrap_or_else(|| self.create(group, channel));
        if held {
            self.expiry.suspend(membership, deadline);
        } else {
            self.expiry.arm(membership, deadline);
        }
        is_new
    }

    /// Notes from now on which memberships of a group end.
    pub(crate) fn note_ends_of(&mut self, group: u32) {
        self.records[group as usize].has_presence = true;
    }

    /// Whether memberships have ended in groups with a presence.
    #[inline]
    pub(crate) fn has_left(&self) -> bool {
        !self.left.is_empty()
    }

    /// Those, by the name of the group.
    pub(crate) fn take_left(&mut self) -> Vec<(Arc<str>, ChannelKey)> {
        std::mem::take(&mut self.left)
    }

    fn is_overdue(&self, membership: u32, now: Moment) -> bool {
        self.expiry.is_armed(membership) && self.expiry.deadline(membership) <= now
    }

    /// The memberships of a channel last from now on.
    pub(crate) fn hold(&mut self, channel: ChannelKey) {
        for &membership in self.joined.get(channel as usize).into_iter().flatten() {
            let deadline = self.expiry.deadline(membership);
            self.expiry.suspend(membership, deadline);
        }
    }

    /// The memberships of a channel end at this deadline, unless they are renewed.
    pub(crate) fn release(&mut self, channel: ChannelKey, deadline: Moment) {
        for &membership in self.joined.get(channel as usize).into_iter().flatten() {
            self.expiry.arm(membership, deadline);
        }
    }

    fn create(&mut self, group: u32, channel: ChannelKey) -> u32 {
        if self.joined.len() <= channel as usize {
            self.joined.resize_with(channel as usize + 1, Vec::new);
        }
        let members = &mut self.records[group as usize].members;
        let joined = &mut self.joined[channel as usize];
        let membership = key(self.memberships.insert(Membership {
            group,
            channel,
            in_group: key(members.len()),
            in_channel: key(joined.len()),
        }));
        members.push(Member {
            channel,
            membership,
        });
        joined.push(membership);
        self.index.insert((group, channel), membership);
        membership
    }

    /// Leaves; returns whether the channel was a member.
    pub(crate) fn discard(&mut self, group: u32, channel: ChannelKey) -> bool {
        match self.index.get(&(group, channel)) {
            Some(&membership) => {
                self.remove(membership);
                true
            }
            None => false,
        }
    }

    pub(crate) fn leave_all(&mut self, channel: ChannelKey) {
        while let Some(&membership) = self.joined.get(channel as usize).and_then(|all| all.last()) {
            self.remove(membership);
        }
    }

    /// Ends one membership whose time is over, if there is one, and gives its channel.
    pub(crate) fn expire_one(&mut self, now: Moment) -> Option<ChannelKey> {
        let membership = self.expiry.due(now)?;
        Some(self.remove(membership))
    }

    /// Ends the memberships of one group whose time is over, and gives their channels. It walks the group only
    /// when some membership of the engine is overdue, that is, when a sweep has fallen behind.
    pub(crate) fn expire_group(&mut self, group: u32, now: Moment) -> Vec<ChannelKey> {
        if self.expiry.due(now).is_none() {
            return Vec::new();
        }
        let overdue = |member: &Member| self.is_overdue(member.membership, now);
        let members = &self.records[group as usize].members;
        let ended: Vec<Member> = members.iter().copied().filter(overdue).collect();
        ended
            .into_iter()
            .map(|member| self.remove(member.membership))
            .collect()
    }

    fn remove(&mut self, membership: u32) -> ChannelKey {
        let Membership {
            group,
            channel,
            in_group,
            in_channel,
        } = self.memberships.remove(membership as usize);
        self.expiry.disarm(membership);
        self.index.remove(&(group, channel));

        let record = &mut self.records[group as usize];
        if record.has_presence {
            self.left.push((Arc::clone(&record.name), channel));
        }
        let members = &mut record.members;
        members.swap_remove(in_group as usize);
        members.shrink_if_sparse();
        if let Some(moved) = members.get(in_group as usize) {
            self.memberships[moved.membership as usize].in_group = in_group;
        } else if members.is_empty() {
            let gone = self.records.remove(group as usize);
            self.names.remove(&gone.name);
        }

        let joined = &mut self.joined[channel as usize];
        joined.swap_remove(in_channel as usize);
        joined.shrink_if_sparse();
        if let Some(&moved) = joined.get(in_channel as usize) {
            self.memberships[moved as usize].in_channel = in_channel;
        } else if joined.is_empty() {
            *joined = Vec::new();
        }
        channel
    }

    /// How many groups the channel is in.
    pub(crate) fn count_of(&self, channel: ChannelKey) -> usize {
        self.joined.get(channel as usize).map_or(0, Vec::len)
    }

    pub(crate) fn of_channel(&self, channel: ChannelKey) -> impl Iterator<Item = &Arc<str>> {
        let joined = self.joined.get(channel as usize);
        joined.into_iter().flatten().map(|&membership| {
            let group = self.memberships[membership as usize].group;
            &self.records[group as usize].name
        })
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.records.iter().map(|(_, group)| &group.name)
    }

    /// The members of a group with the moments at which their memberships end if they are not held.
    pub(crate) fn members_of(&self, group: u32) -> impl Iterator<Item = (ChannelKey, Moment)> + '_ {
        let members = &self.records[group as usize].members;
        members
            .iter()
            .map(|member| (member.channel, self.expiry.deadline(member.membership)))
    }

    pub(crate) fn holds(&self, group: u32, channel: ChannelKey) -> bool {
        self.index.contains_key(&(group, channel))
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Gives a channel another key, which is that of no channel.
    pub(crate) fn rename_channel(&mut self, from: ChannelKey, to: ChannelKey) {
        let joined = self.joined.get_mut(from as usize).map(std::mem::take);
        for &membership in joined.iter().flatten() {
            let known = &mut self.memberships[membership as usize];
            known.channel = to;
            self.records[known.group as usize].members[known.in_group as usize].channel = to;
            self.index.remove(&(known.group, from));
            self.index.insert((known.group, to), membership);
        }
        if let Some(joined) = joined {
            self.joined[to as usize] = joined;
        }
    }

    /// Forgets all channels from this key on, which are none.
    pub(crate) fn truncate_channels(&mut self, channels: usize) {
        self.joined.truncate(channels);
        self.joined.shrink_to_fit();
    }

    /// Gives back the memory of groups and memberships that are gone, if it is most of all. Groups and memberships have
    /// other keys then.
    #[inline]
    pub(crate) fn shrink_if_sparse(&mut self) {
        if is_sparse(self.memberships.len(), self.memberships.capacity()) {
            self.shrink_memberships();
        }
        if is_sparse(self.records.len(), self.records.capacity()) {
            self.shrink_records();
        }
    }

    #[cold]
    fn shrink_memberships(&mut self) {
        self.memberships.compact(|membership, from, to| {
            let (from, to) = (key(from), key(to));
            let group = &mut self.records[membership.group as usize];
            group.members[membership.in_group as usize].membership = to;
            self.joined[membership.channel as usize][membership.in_channel as usize] = to;
            self.index
                .insert((membership.group, membership.channel), to);
            self.expiry.rename(from, to);
            true
        });
        let memberships = self.memberships.len();
        self.expiry.truncate(memberships);
        self.index.shrink_to(2 * memberships);
    }

    #[cold]
    fn shrink_records(&mut self) {
        self.records.compact(|group, from, to| {
            let (from, to) = (key(from), key(to));
            self.names.insert(Arc::clone(&group.name), to);
            for member in &group.members {
                self.memberships[member.membership as usize].group = to;
                self.index.remove(&(from, member.channel));
                self.index.insert((to, member.channel), member.membership);
            }
            true
        });
        self.names.shrink_to(2 * self.records.len());
    }

    /// For how many groups, memberships and channels there is memory.
    #[cfg(test)]
    pub(crate) fn room(&self) -> [usize; 6] {
        [
            self.names.capacity(),
            self.records.capacity(),
            self.memberships.capacity(),
            self.index.capacity(),
            self.joined.capacity(),
            self.expiry.room(),
        ]
    }
}

impl Group {
    fn new(name: Arc<str>) -> Self {
        Self {
            name,
            members: Vec::new(),
            has_presence: false,
            sends: 0,
            delivered: 0,
            dropped_full: 0,
        }
    }

    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    /// For how many members there is memory.
    #[cfg(test)]
    pub(crate) fn room(&self) -> usize {
        self.members.capacity()
    }

    /// For a pass that must also change the channels: it takes the members and puts them back.
    pub(crate) fn members_mut(&mut self) -> &mut Vec<Member> {
        &mut self.members
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::default().after(Duration::from_secs(seconds))
    }

    proptest! {
        /// Against the obvious model: a map of sets.
        #[test]
        fn behaves_like_a_map_of_sets(
            steps in prop::collection::vec((0u8..4, 0u32..4, 0u32..6), 0..120)
        ) {
            let mut groups = Groups::default();
            let mut model: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
            for (time, (action, group, channel)) in steps.into_iter().enumerate() {
                let name = format!("group{group}");
                match action {
                    0 | 1 => {
                        let group = groups.find_or_create(&name);
                        let times = (at(0), at(time as u64 + 1));
                        let is_new = groups.add(group, channel, times, time % 2 == 0);
                        prop_assert_eq!(is_new, model.entry(name).or_default().insert(channel));
                    }
                    2 => {
                        let left = groups.find(&name).is_some_and(|group| groups.discard(group, channel));
                        let expected = model.get_mut(&name).is_some_and(|set| set.remove(&channel));
                        prop_assert_eq!(left, expected);
                    }
                    _ => {
                        groups.leave_all(channel);
                        for set in model.values_mut() {
                            set.remove(&channel);
                        }
                    }
                }
                model.retain(|_, set| !set.is_empty());
                prop_assert_eq!(groups.len(), model.len());
                prop_assert_eq!(groups.memberships(), model.values().map(BTreeSet::len).sum::<usize>());
                for (name, set) in &model {
                    let group = groups.find(name).expect("the model has it");
                    let members: BTreeSet<u32> = groups.members_of(group).map(|(channel, _)| channel).collect();
                    prop_assert_eq!(&members, set);
                    prop_assert_eq!(groups.get(group).members().len(), set.len());
                }
                for channel in 0..6 {
                    let expected = model.values().filter(|set| set.contains(&channel)).count();
                    prop_assert_eq!(groups.count_of(channel), expected);
                    prop_assert_eq!(groups.of_channel(channel).count(), expected);
                }
            }
        }
    }

    #[test]
    fn memberships_end_in_the_order_in_which_they_were_renewed() {
        let mut groups = Groups::default();
        let group = groups.find_or_create("g");
        groups.add(group, 0, (at(0), at(1)), false);
        groups.add(group, 1, (at(0), at(2)), false);
        groups.add(group, 0, (at(0), at(3)), false);
        groups.add(group, 2, (at(0), at(3)), true);
        assert_eq!(groups.expire_one(at(1)), None);
        assert_eq!(groups.expire_one(at(2)), Some(1));
        assert_eq!(groups.expire_one(at(2)), None);
        assert_eq!(groups.expire_group(group, at(3)), vec![0]);
        assert_eq!(groups.expire_group(group, at(9)), Vec::<u32>::new());
        assert!(groups.discard(group, 2));
        assert_eq!(groups.find("g"), None);
    }

    #[test]
    fn to_join_again_when_the_time_is_over_is_to_join_anew() {
        let mut groups = Groups::default();
        let group = groups.find_or_create("g");
        assert!(groups.add(group, 0, (at(0), at(2)), false));
        assert!(!groups.add(group, 0, (at(1), at(2)), false));
        assert!(groups.add(group, 0, (at(2), at(4)), false));
        assert!(!groups.add(group, 0, (at(3), at(4)), true));
        assert!(!groups.add(group, 0, (at(9), at(10)), true));
    }

    #[test]
    fn memberships_of_a_held_channel_last_until_it_is_released() {
        let mut groups = Groups::default();
        let group = groups.find_or_create("g");
        groups.add(group, 0, (at(0), at(1)), false);
        groups.hold(0);
        groups.add(group, 1, (at(0), at(2)), false);
        assert_eq!(groups.expire_one(at(1)), None);
        assert_eq!(groups.expire_group(group, at(9)), vec![1]);
        groups.release(0, at(10));
        assert_eq!(groups.expire_one(at(9)), None);
        assert_eq!(groups.expire_one(at(10)), Some(0));
    }
}
