//! The engine against the obvious model: maps of queues, walked from end to end by every operation.

mod peak;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

#[derive(Default)]
struct Model {
    now: u64,
    /// Per channel: messages with the time at which they were sent.
    queues: BTreeMap<String, VecDeque<(u64, u64)>>,
    waiters: BTreeMap<String, VecDeque<u64>>,
    groups: BTreeMap<String, BTreeMap<String, u64>>,
    /// Per channel that has an owner: what it does when it is full, and its alarm.
    owned: BTreeMap<String, (Overflow<u64>, Option<u64>)>,
    alarms: Vec<u64>,
    /// Per channel, how many hold it.
    held: BTreeMap<String, u8>,
    replaced: u64,
    expired: u64,
    full: u64,
    full_by_bytes: u64,
    other: u64,
    sent: u64,
    returned: u64,
    delivered: u64,
}

/// Whether a message may wait behind those of a queue: in messages, and in bytes behind the first.
fn fits(queue: &VecDeque<(u64, u64)>, message: u64) -> bool {
    let sizes = queue.iter().map(|(queued, _)| queued.byte_size());
    let behind: usize = sizes.chain([message.byte_size()]).skip(1).sum();
    queue.len() < CAPACITY && behind <= CAPACITY_BYTES
}

impl Model {
    fn expire(&mut self) {
        for queue in self.queues.values_mut() {
            let before = queue.len();
            queue.retain(|(_, sent)| sent + EXPIRY > self.now);
            self.expired += (before - queue.len()) as u64;
        }
        for members in self.groups.values_mut() {
            members.retain(|channel, added| {
                self.held.contains_key(channel) || *added + GROUP_EXPIRY > self.now
            });
        }
        self.tidy();
    }

    fn tidy(&mut self) {
        self.queues.retain(|_, queue| !queue.is_empty());
        self.waiters.retain(|_, waiters| !waiters.is_empty());
        self.groups.retain(|_, members| !members.is_empty());
    }

    /// Who gets the message, if anybody waits; `Err` if it does not fit.
    fn offer(&mut self, channel: &str, message: u64) -> Result<Option<u64>, ()> {
        let waiter = self.waiters.get_mut(channel).and_then(VecDeque::pop_front);
        let queue = self.queues.entry(channel.to_owned()).or_default();
        let before = queue.len();
        if waiter.is_none() && !fits(queue, message) {
            self.full_by_bytes += u64::from(before < CAPACITY);
            let owner = self.owned.get_mut(channel);
            let overflow = owner.map_or(Overflow::DropNew, |(overflow, alarm)| {
                self.alarms.extend(alarm.take());
                *overflow
            });
            match overflow {
                Overflow::DropNew => {
                    self.full += 1;
                    return Err(());
                }
                Overflow::DropOld => {}
                Overflow::Coalesce(replaces) => {
                    queue.retain(|(older, _)| !replaces(&message, older));
                }
            }
            while !fits(queue, message) {
                queue.pop_front();
            }
            self.replaced += (before - queue.len()) as u64;
        }
        self.sent += 1;
        match waiter {
            Some(_) => self.delivered += 1,
            None => queue.push_back((message, self.now)),
        }
        self.tidy();
        Ok(waiter)
    }

    fn bytes(&self) -> usize {
        let messages = self.queues.values().flatten();
        messages.map(|(message, _)| message.byte_size()).sum()
    }

    fn channels(&self) -> BTreeSet<&String> {
        let members = self.groups.values().flat_map(BTreeMap::keys);
        self.queues
            .keys()
            .chain(self.waiters.keys())
            .chain(self.owned.keys())
            .chain(self.held.keys())
            .chain(members)
            .collect()
    }

    fn stats(&self) -> LayerStats {
        LayerStats {
            channels: self.channels().len(),
            groups: self.groups.len(),
            memberships: self.groups.values().map(BTreeMap::len).sum(),
            waiters: self.waiters.values().map(VecDeque::len).sum(),
            depth: self.queues.values().map(VecDeque::len).sum(),
            bytes: self.bytes(),
            sent: self.sent,
            delivered: self.delivered,
            returned: self.returned,
            dropped_full: self.full,
            dropped_expired: self.expired,
            dropped_replaced: self.replaced,
            full_by_bytes: self.full_by_bytes,
            dropped_other: self.other,
            ..LayerStats::default()
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Send(u8),
    Receive(u8),
    Forget(u8, u64),
    GiveBack(usize),
    Add(u8, u8),
    Discard(u8, u8),
    GroupSend(u8, Option<u8>),
    CloseChannel(u8),
    Own(u8, u8),
    Hold(u8),
    Release(u8),
    Advance(u64),
    Flush,
}

fn step(channels: u8) -> impl Strategy<Value = Step> {
    let (channel, group) = (0..channels, 0..3_u8);
    prop_oneof![
        6 => channel.clone().prop_map(Step::Send),
        6 => channel.clone().prop_map(Step::Receive),
        2 => (channel.clone(), 0..40_u64).prop_map(|(channel, waiter)| Step::Forget(channel, waiter)),
        3 => (0..8_usize).prop_map(Step::GiveBack),
        5 => (group.clone(), channel.clone()).prop_map(|(group, channel)| Step::Add(group, channel)),
        2 => (group.clone(), channel.clone()).prop_map(|(group, channel)| Step::Discard(group, channel)),
        4 => (group, prop::option::of(channel.clone())).prop_map(|(group, except)| Step::GroupSend(group, except)),
        1 => channel.clone().prop_map(Step::CloseChannel),
        1 => channel.clone().prop_map(Step::Hold),
        1 => channel.clone().prop_map(Step::Release),
        1 => (channel, 0..3_u8).prop_map(|(channel, overflow)| Step::Own(channel, overflow)),
        3 => (1..8_u64).prop_map(Step::Advance),
        1 => Just(Step::Flush),
    ]
}

struct Run {
    /// How many channels it uses.
    channels: u8,
    engine: Engine,
    clock: Arc<ManualClock>,
    model: Model,
    /// Messages in the hands of waiters, with the channel and the time at which they were sent.
    handed: Vec<(String, Envelope<u64>, u64)>,
    next: u64,
}

impl Run {
    fn new(channels: u8) -> Self {
        let clock = Arc::new(ManualClock::default());
        Self {
            channels,
            engine: engine(&clock),
            clock,
            model: Model::default(),
            handed: Vec::new(),
            next: 0,
        }
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn apply(&mut self, step: Step) -> Result<(), TestCaseError> {
        let name = |channel: u8| format!("c{channel}");
        match step {
            Step::Send(channel) => self.send(&name(channel))?,
            Step::Receive(channel) => self.receive(&name(channel))?,
            Step::Forget(channel, waiter) => self.forget(&name(channel), waiter)?,
            Step::GiveBack(index) => self.give_back(index)?,
            Step::Add(group, channel) => {
                prop_assert_eq!(
                    self.engine.group_add(&format!("g{group}"), &name(channel)),
                    Ok(())
                );
                let members = self.model.groups.entry(format!("g{group}")).or_default();
                members.insert(name(channel), self.model.now);
            }
            Step::Discard(group, channel) => {
                prop_assert_eq!(
                    self.engine
                        .group_discard(&format!("g{group}"), &name(channel)),
                    Ok(())
                );
                if let Some(members) = self.model.groups.get_mut(&format!("g{group}")) {
                    members.remove(&name(channel));
                }
            }
            Step::GroupSend(group, except) => {
                self.group_send(&format!("g{group}"), except.map(name).as_deref())?;
            }
            Step::CloseChannel(channel) => {
                prop_assert_eq!(self.engine.close_channel(&name(channel)), Ok(()));
                let queue = self.model.queues.remove(&name(channel));
                self.model.other += queue.map_or(0, |queue| queue.len() as u64);
                self.model.owned.remove(&name(channel));
                for members in self.model.groups.values_mut() {
                    members.remove(&name(channel));
                }
            }
            Step::Own(channel, overflow) => {
                let replaces = |new: &u64, old: &u64| new % 2 == old % 2;
                let overflow = [
                    Overflow::DropNew,
                    Overflow::DropOld,
                    Overflow::Coalesce(replaces),
                ][usize::from(overflow)];
                let alarm = self.fresh();
                let capacity = NonZeroUsize::new(CAPACITY).expect("there is room");
                let owned = self
                    .engine
                    .own(&name(channel), capacity, None, overflow, Some(alarm));
                prop_assert_eq!(owned, Ok(()));
                self.model
                    .owned
                    .insert(name(channel), (overflow, Some(alarm)));
            }
            Step::Hold(channel) => {
                prop_assert_eq!(self.engine.hold(&name(channel)), Ok(()));
                *self.model.held.entry(name(channel)).or_default() += 1;
            }
            Step::Release(channel) => self.release(&name(channel)),
            Step::Advance(seconds) => {
                self.clock.advance(Duration::from_secs(seconds));
                self.model.now += seconds;
            }
            Step::Flush => {
                self.engine.flush();
                let queued: usize = self.model.queues.values().map(VecDeque::len).sum();
                self.model.other += queued as u64;
                self.model.queues.clear();
                self.model.groups.clear();
            }
        }
        self.model.tidy();
        let mut alarms = self.engine.take_alarms();
        alarms.sort_unstable();
        self.model.alarms.sort_unstable();
        prop_assert_eq!(alarms, std::mem::take(&mut self.model.alarms));
        Ok(())
    }

    /// Releases a channel, if somebody holds it.
    fn release(&mut self, channel: &str) {
        let Some(holders) = self.model.held.get_mut(channel) else {
            return;
        };
        self.engine.release(channel);
        *holders -= 1;
        if *holders == 0 {
            self.model.held.remove(channel);
            for members in self.model.groups.values_mut() {
                if let Some(added) = members.get_mut(channel) {
                    *added = self.model.now;
                }
            }
        }
    }

    fn send(&mut self, channel: &str) -> Result<(), TestCaseError> {
        let message = self.fresh();
        let expected = self.model.offer(channel, message);
        match (self.engine.send(channel, message), expected) {
            (Ok(None), Ok(None)) => {}
            (Ok(Some(hand_off)), Ok(Some(waiter))) => {
                self.hand(channel, hand_off, waiter, message)?;
            }
            (Err(SendError::Full(back)), Err(())) => prop_assert_eq!(back, message),
            (got, expected) => prop_assert!(false, "{got:?} instead of {expected:?}"),
        }
        Ok(())
    }

    fn hand(
        &mut self,
        channel: &str,
        hand_off: HandOff<u64, u64>,
        waiter: u64,
        message: u64,
    ) -> Result<(), TestCaseError> {
        prop_assert_eq!(hand_off.waiter, waiter);
        prop_assert_eq!(hand_off.envelope.message, message);
        self.handed
            .push((channel.to_owned(), hand_off.envelope, self.model.now));
        Ok(())
    }

    fn receive(&mut self, channel: &str) -> Result<(), TestCaseError> {
        let waiter = self.fresh() % 40;
        let expected = self
            .model
            .queues
            .get_mut(channel)
            .and_then(VecDeque::pop_front);
        match (self.engine.wait(channel, waiter, None), expected) {
            (Ok(Received::Ready(envelope)), Some((message, _))) => {
                prop_assert_eq!(envelope.message, message);
                self.model.delivered += 1;
            }
            (Ok(Received::Waiting), None) => {
                let waiters = self.model.waiters.entry(channel.to_owned()).or_default();
                waiters.push_back(waiter);
            }
            (got, expected) => prop_assert!(false, "{got:?} instead of {expected:?}"),
        }
        Ok(())
    }

    fn forget(&mut self, channel: &str, waiter: u64) -> Result<(), TestCaseError> {
        let waiters = self.model.waiters.get_mut(channel);
        let expected = waiters.and_then(|waiters| {
            let place = waiters.iter().position(|waiting| *waiting == waiter)?;
            waiters.remove(place)
        });
        prop_assert_eq!(
            self.engine.forget(channel, |waiting| *waiting == waiter),
            expected
        );
        Ok(())
    }

    fn give_back(&mut self, index: usize) -> Result<(), TestCaseError> {
        if index >= self.handed.len() {
            return Ok(());
        }
        let (channel, envelope, sent) = self.handed.remove(index);
        let message = envelope.message;
        self.model.returned += 1;
        let waiters = self.model.waiters.get_mut(&channel);
        let expected = waiters.and_then(VecDeque::pop_front);
        let got = self.engine.give_back(&channel, envelope);
        match (got, expected) {
            (Some(hand_off), Some(waiter)) => {
                prop_assert_eq!(hand_off.waiter, waiter);
                self.handed.push((channel, hand_off.envelope, sent));
            }
            (None, None) => {
                self.model.delivered -= 1;
                let queue = self.model.queues.entry(channel).or_default();
                // Messages are numbered as they are sent.
                let place = queue.partition_point(|(queued, _)| *queued < message);
                queue.insert(place, (message, sent));
            }
            (got, expected) => prop_assert!(false, "{got:?} instead of {expected:?}"),
        }
        Ok(())
    }

    fn group_send(&mut self, group: &str, except: Option<&str>) -> Result<(), TestCaseError> {
        let message = self.fresh();
        let members = self.model.groups.get(group).cloned().unwrap_or_default();
        let mut expected = BTreeSet::new();
        let mut report = crate::SendReport::default();
        for channel in members
            .keys()
            .filter(|channel| Some(channel.as_str()) != except)
        {
            match self.model.offer(channel, message) {
                Ok(waiter) => {
                    report.delivered += 1;
                    expected.extend(waiter.map(|waiter| (channel.clone(), waiter)));
                }
                Err(()) => report.dropped_full += 1,
            }
        }
        let exclude: Vec<&str> = except.into_iter().collect();
        let fan_out = self.engine.group_send(group, message, &exclude);
        let Ok(fan_out) = fan_out else {
            return Err(TestCaseError::fail("refused"));
        };
        prop_assert_eq!(fan_out.report, report);
        prop_assert_eq!(fan_out.hand_offs.len(), expected.len());
        for hand_off in fan_out.hand_offs {
            prop_assert_eq!(hand_off.envelope.message, message);
            let key = expected
                .iter()
                .find(|(_, waiter)| *waiter == hand_off.waiter)
                .cloned();
            let Some((channel, waiter)) = key else {
                return Err(TestCaseError::fail("handed to nobody who waited"));
            };
            expected.remove(&(channel.clone(), waiter));
            self.handed
                .push((channel, hand_off.envelope, self.model.now));
        }
        Ok(())
    }

    fn compare(&mut self) -> Result<(), TestCaseError> {
        self.model.expire();
        // The model drops a message on time, the engine when it meets it: let it meet them all.
        for channel in 0..self.channels {
            let name = format!("c{channel}");
            prop_assert!(self.engine.channel_stats(&name).is_ok());
        }
        let names: BTreeSet<String> = self
            .engine
            .channel_names()
            .iter()
            .map(ToString::to_string)
            .collect();
        let held: BTreeSet<String> = self
            .model
            .queues
            .keys()
            .chain(self.model.waiters.keys())
            .cloned()
            .collect();
        prop_assert_eq!(names, held);
        for (channel, queue) in &self.model.queues {
            let stats = self.engine.channel_stats(channel).map(|stats| stats.depth);
            prop_assert_eq!(stats, Ok(queue.len()));
        }
        for (group, members) in &self.model.groups {
            let channels = self.engine.group_channels(group).unwrap_or_default();
            let channels: BTreeSet<String> = channels.iter().map(ToString::to_string).collect();
            prop_assert_eq!(&channels, &members.keys().cloned().collect::<BTreeSet<_>>());
            prop_assert_eq!(self.engine.group_count(group), Ok(members.len()));
        }
        let stats = self.engine.stats();
        prop_assert_eq!(stats, self.model.stats());
        let accounted = stats.delivered
            + stats.depth as u64
            + stats.dropped_expired
            + stats.dropped_replaced
            + stats.dropped_other;
        prop_assert_eq!(stats.sent, accounted);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_the_model(steps in prop::collection::vec(step(6), 0..80)) {
        let mut run = Run::new(6);
        for step in steps {
            run.model.expire();
            run.apply(step)?;
            run.compare()?;
        }
    }
}
