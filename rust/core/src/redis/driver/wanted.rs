//! Which topics this process wants, at which server each is, and how far its subscription has come.
//!
//! With a hundred thousand topics nothing may look at all of them for each event: what is asked of all is counted here as it
//! changes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use tokio::time::Instant;

use super::calls::CallId;
use super::node_key::NodeKey;
use crate::shrink::Shrink;

/// The progress of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subscription {
    /// There is no connection to ask on.
    Wanted,
    /// It waits for its turn on the connection.
    Queued,
    /// It was asked for on the connection that is there.
    Asked,
    Confirmed,
}

#[derive(Debug)]
pub(super) struct TopicState {
    /// Where it is asked for.
    node: Option<NodeKey>,
    subscription: Subscription,
    /// Who waits for the confirmation, and until when.
    pub(super) waiting: Vec<(CallId, Instant)>,
    /// Since when this process does not need it.
    pub(super) unused: Option<Instant>,
    /// It was confirmed once: what it missed since is a gap.
    pub(super) was_confirmed: bool,
    /// Until when late messages may come, which a former server of it passes on.
    pub(super) late_until: Option<Instant>,
}

impl TopicState {
    fn new() -> Self {
        Self {
            node: None,
            subscription: Subscription::Wanted,
            waiting: Vec::new(),
            unused: None,
            was_confirmed: false,
            late_until: None,
        }
    }

    pub(super) fn node(&self) -> Option<&NodeKey> {
        self.node.as_ref()
    }

    pub(super) fn subscription(&self) -> Subscription {
        self.subscription
    }

    pub(super) fn is_confirmed(&self) -> bool {
        self.subscription == Subscription::Confirmed
    }
}

/// All topics that are wanted, by name.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    states: HashMap<String, TopicState>,
    /// How many are not confirmed, by their server; none that has no such topics.
    unconfirmed: HashMap<Option<NodeKey>, usize>,
}

impl Wanted {
    pub(super) fn get(&self, topic: &str) -> Option<&TopicState> {
        self.states.get(topic)
    }

    pub(super) fn get_mut(&mut self, topic: &str) -> Option<&mut TopicState> {
        self.states.get_mut(topic)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &TopicState)> {
        self.states.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&String, &mut TopicState)> {
        self.states.iter_mut()
    }

    /// The names of those that are asked for at a server.
    pub(super) fn at(&self, node: &NodeKey) -> Vec<String> {
        let here = self.iter().filter(|(_, state)| state.node() == Some(node));
        here.map(|(topic, _)| topic.clone()).collect()
    }

    /// The names of those that there is no connection for, as far as is known.
    pub(super) fn unasked(&self) -> impl Iterator<Item = &String> {
        let unasked = self
            .iter()
            .filter(|(_, state)| state.subscription == Subscription::Wanted);
        unasked.map(|(topic, _)| topic)
    }

    /// Whether the confirmation of some is still to come.
    pub(super) fn are_awaited(&self) -> bool {
        !self.unconfirmed.is_empty()
    }

    /// The same, of those at a server.
    pub(super) fn are_awaited_at(&self, node: &NodeKey) -> bool {
        self.unconfirmed.contains_key(&Some(node.clone()))
    }

    /// The state of a topic, which is wanted from now on.
    pub(super) fn want(&mut self, topic: &str) -> &mut TopicState {
        if !self.states.contains_key(topic) {
            *self.unconfirmed.entry(None).or_default() += 1;
        }
        let state = self.states.entry(topic.to_owned());
        state.or_insert_with(TopicState::new)
    }

    /// Notes where a topic is asked for, and how far it is there.
    pub(super) fn set(&mut self, topic: &str, node: Option<NodeKey>, subscription: Subscription) {
        let Some(state) = self.states.get_mut(topic) else {
            return;
        };
        if (&state.node, state.subscription) == (&node, subscription) {
            return;
        }
        let before = std::mem::replace(&mut state.node, node.clone());
        let was_confirmed =
            std::mem::replace(&mut state.subscription, subscription) == Subscription::Confirmed;
        if subscription != Subscription::Confirmed {
            *self.unconfirmed.entry(node).or_default() += 1;
        }
        if !was_confirmed {
            self.uncount(before);
        }
    }

    /// Notes how far a topic is at its server.
    pub(super) fn progress(&mut self, topic: &str, subscription: Subscription) {
        if let Some(state) = self.states.get(topic) {
            let node = state.node.clone();
            self.set(topic, node, subscription);
        }
    }

    /// Whether a topic is that far at this server.
    pub(super) fn is(&self, topic: &str, node: &NodeKey, subscription: Subscription) -> bool {
        let state = self.get(topic);
        state.is_some_and(|state| state.subscription == subscription && state.node() == Some(node))
    }

    pub(super) fn remove(&mut self, topic: &str) -> Option<TopicState> {
        let state = self.states.remove(topic)?;
        if !state.is_confirmed() {
            self.uncount(state.node.clone());
        }
        Some(state)
    }

    /// Gives back the memory of topics that are gone, if it is most of all.
    pub(super) fn shrink_if_sparse(&mut self) {
        self.states.shrink_if_sparse();
    }

    /// For how many topics there is memory.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.states.capacity()
    }

    /// Counts one unconfirmed topic less at this server: it was confirmed or removed.
    fn uncount(&mut self, node: Option<NodeKey>) {
        if let Entry::Occupied(mut count) = self.unconfirmed.entry(node) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SUBSCRIPTIONS: [Subscription; 4] = [
        Subscription::Wanted,
        Subscription::Queued,
        Subscription::Asked,
        Subscription::Confirmed,
    ];

    proptest! {
        /// What is counted is what a look at all of them finds.
        #[test]
        fn the_unconfirmed_are_counted(
            steps in prop::collection::vec((0_u8..3, 0..4_usize, 0..3_usize, 0..4_usize), 0..60),
        ) {
            let mut topics = Wanted::default();
            for (action, topic, node, subscription) in steps {
                let topic = topic.to_string();
                match action {
                    0 => {
                        topics.want(&topic);
                    }
                    1 => {
                        let node = node.checked_sub(1).map(NodeKey::Shard);
                        topics.set(&topic, node, SUBSCRIPTIONS[subscription]);
                    }
                    _ => {
                        topics.remove(&topic);
                    }
                }
                let open = |node: Option<NodeKey>| {
                    let open = |state: &TopicState| !state.is_confirmed() && state.node == node;
                    topics.iter().filter(|(_, state)| open(state)).count()
                };
                for node in [None, Some(NodeKey::Shard(0)), Some(NodeKey::Shard(1))] {
                    let counted = topics.unconfirmed.get(&node).copied();
                    prop_assert_eq!(counted, Some(open(node)).filter(|count| *count > 0));
                }
                prop_assert_eq!(topics.are_awaited(), topics.iter().any(|(_, state)| !state.is_confirmed()));
            }
        }
    }
}
