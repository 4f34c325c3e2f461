//! The joins that wait for the server: those that fail leave no membership behind.
//!
//! A channel is a member here before the server has confirmed the subscription to its group, so that no message is missed. A
//! join that fails, or that is cancelled, takes the membership back, but not if the channel was a member before, and not if
//! another join of it has succeeded meanwhile: of several that wait, the last to end decides. One that need not wait, because the
//! subscription is there already, or because another process waits for it, has succeeded at once. It leaves no record.
//!
//! The records change under the lock of the mailboxes, together with the memberships. So no thread joins between the decision
//! to take a membership back and its end.

use std::fmt;
use std::sync::Arc;

use hashbrown::{Equivalent, HashMap};

use super::host::{Host, Local};
use crate::error::Error;
use crate::shrink::Shrink;
use crate::sync::Mutex;

/// A group and a channel.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Pair {
    group: String,
    channel: String,
}

/// The same, for a look at the records: it has the hash of a [`Pair`].
#[derive(Hash)]
struct Names<'a> {
    group: &'a str,
    channel: &'a str,
}

impl Equivalent<Arc<Pair>> for Names<'_> {
    fn equivalent(&self, pair: &Arc<Pair>) -> bool {
        (self.group, self.channel) == (pair.group.as_str(), pair.channel.as_str())
    }
}

/// The joins of one channel to one group that have not ended.
#[derive(Debug, Default)]
struct Waiting {
    count: usize,
    /// One of them made the membership: before, there was none.
    made: bool,
    confirmed: bool,
}

/// All joins of a process that have not ended.
#[derive(Debug, Default)]
pub(super) struct Joins(Mutex<HashMap<Arc<Pair>, Waiting>>);

impl Joins {
    /// Puts a channel in a group, for now. There is nothing to wait for if the group is subscribed to, which is asked under the
    /// lock of the mailboxes once the channel is a member: see `Topics::leave`.
    pub(super) fn begin<H: Host>(
        self: &Arc<Self>,
        local: &Arc<Local<H>>,
        group: &str,
        channel: &str,
        is_subscribed: impl FnOnce() -> bool,
    ) -> Result<Option<Join<H>>, Error> {
        let waits = local.group_add_then(group, channel, |is_new| {
            if is_subscribed() {
                self.succeed(group, channel);
                None
            } else {
                Some(self.wait(group, channel, is_new))
            }
        })?;
        let pending = |pair| Pending {
            joins: Arc::clone(self),
            local: Arc::clone(local),
            pair,
        };
        Ok(waits.map(|pair| Join(Some(pending(pair)))))
    }

    /// Puts a channel in a group for another process, which waits for the server itself.
    pub(super) fn add<H: Host>(
        &self,
        local: &Local<H>,
        group: &str,
        channel: &str,
    ) -> Result<(), Error> {
        local.group_add_then(group, channel, |_is_new| self.succeed(group, channel))
    }

    /// Records a join that is made later, by whoever answers it: it is to call [`Joins::made`].
    pub(super) fn expect<H: Host>(
        self: &Arc<Self>,
        local: &Arc<Local<H>>,
        group: &str,
        channel: &str,
    ) -> Join<H> {
        Join(Some(Pending {
            joins: Arc::clone(self),
            local: Arc::clone(local),
            pair: self.wait(group, channel, false),
        }))
    }

    /// A join that was expected has made the membership: before, there was none. To be called under the lock of the mailboxes.
    pub(super) fn made(&self, group: &str, channel: &str) {
        if let Some(waiting) = self.0.lock().get_mut(&Names { group, channel }) {
            waiting.made = true;
            waiting.confirmed = false;
        }
    }

    /// Records one more join that waits.
    fn wait(&self, group: &str, channel: &str, is_new: bool) -> Arc<Pair> {
        let pair = Arc::new(Pair {
            group: group.to_owned(),
            channel: channel.to_owned(),
        });
        let mut all = self.0.lock();
        let waiting = all.entry(Arc::clone(&pair)).or_default();
        waiting.count += 1;
        if is_new {
            // The membership of an earlier join has been removed meanwhile.
            waiting.made = true;
            waiting.confirmed = false;
        }
        pair
    }

    /// A join has succeeded that need not wait: those that do leave the membership, whatever becomes of them.
    fn succeed(&self, group: &str, channel: &str) {
        if let Some(waiting) = self.0.lock().get_mut(&Names { group, channel }) {
            waiting.confirmed = true;
        }
    }

    /// Ends one join; returns whether the membership is to be taken back.
    fn end(&self, pair: &Pair, confirmed: bool) -> bool {
        let mut all = self.0.lock();
        let Some(waiting) = all.get_mut(pair) else {
            return false;
        };
        waiting.confirmed |= confirmed;
        waiting.count -= 1;
        if waiting.count > 0 {
            return false;
        }
        let fails = waiting.made && !waiting.confirmed;
        all.remove(pair);
        all.shrink_if_sparse();
        fails
    }
}

/// A join that waits for the server. One that is dropped, and was not confirmed, has failed.
pub struct Join<H: Host>(Option<Pending<H>>);

struct Pending<H: Host> {
    joins: Arc<Joins>,
    local: Arc<Local<H>>,
    pair: Arc<Pair>,
}

impl<H: Host> Join<H> {
    /// One of a channel that is not of this process: whether it succeeds changes nothing here.
    pub(super) fn elsewhere() -> Self {
        Self(None)
    }

    /// The server has confirmed it.
    pub fn confirm(mut self) {
        if let Some(Pending { joins, pair, .. }) = self.0.take() {
            joins.end(&pair, true);
        }
    }
}

impl<H: Host> Drop for Join<H> {
    fn drop(&mut self) {
        if let Some(Pending { joins, local, pair }) = self.0.take() {
            let fails = || joins.end(&pair, false);
            // A layer that was closed meanwhile has no memberships.
            let _ = local.group_discard_if(&pair.group, &pair.channel, fails);
        }
    }
}

impl<H: Host> fmt::Debug for Join<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pair = self.0.as_ref().map(|pending| &pending.pair);
        f.debug_tuple("Join").field(&pair).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::super::driver::testing::World;
    use super::*;
    use crate::clock::ManualClock;
    use crate::config::Config;
    use crate::memory::MemoryEngine;

    struct Layer {
        joins: Arc<Joins>,
        local: Arc<Local<World>>,
    }

    impl Layer {
        fn new() -> Self {
            Self::with(Config::default())
        }

        fn with(config: Config) -> Self {
            let local = MemoryEngine::new(config, ManualClock::default());
            Self {
                joins: Arc::default(),
                local: Arc::new(local),
            }
        }

        fn join(&self) -> Join<World> {
            let join = self.begin(false);
            join.expect("the group is not subscribed to")
        }

        fn begin(&self, is_subscribed: bool) -> Option<Join<World>> {
            let join = self.joins.begin(&self.local, "room", "c", || is_subscribed);
            join.expect("the names are valid")
        }

        fn is_member(&self) -> bool {
            self.local.group_count("room") == Ok(1)
        }

        fn assert_none_waits(&self) {
            assert!(self.joins.0.lock().is_empty());
        }
    }

    #[test]
    fn a_channel_is_a_member_while_it_joins_and_stays_one_when_that_is_confirmed() {
        let layer = Layer::new();
        let join = layer.join();
        assert!(layer.is_member());
        join.confirm();
        assert!(layer.is_member());
        layer.assert_none_waits();
    }

    #[test]
    fn a_join_that_fails_takes_its_membership_back() {
        let layer = Layer::new();
        drop(layer.join());
        assert!(!layer.is_member());
        layer.assert_none_waits();
    }

    #[test]
    fn a_join_that_fails_leaves_an_earlier_membership() {
        let layer = Layer::new();
        layer.join().confirm();
        drop(layer.join());
        assert!(layer.is_member());
    }

    #[test]
    fn of_several_joins_one_that_succeeds_is_enough_whatever_the_order() {
        for succeeds in 0..3 {
            let layer = Layer::new();
            for (place, join) in [layer.join(), layer.join(), layer.join()]
                .into_iter()
                .enumerate()
            {
                assert!(layer.is_member());
                if place == succeeds {
                    join.confirm();
                }
            }
            assert!(layer.is_member());
            layer.assert_none_waits();
        }
    }

    #[test]
    fn the_last_of_several_joins_that_fail_takes_the_membership_back() {
        let layer = Layer::new();
        let (first, second) = (layer.join(), layer.join());
        drop(first);
        assert!(layer.is_member());
        drop(second);
        assert!(!layer.is_member());
        layer.assert_none_waits();
    }

    #[test]
    fn what_succeeded_does_not_outlive_a_discard() {
        let layer = Layer::new();
        layer.join().confirm();
        layer.local.group_discard("room", "c").expect("it is open");
        drop(layer.join());
        assert!(!layer.is_member());
    }

    #[test]
    fn what_succeeded_does_not_outlive_a_discard_while_another_join_waits() {
        let layer = Layer::new();
        let (first, second) = (layer.join(), layer.join());
        first.confirm();
        layer.local.group_discard("room", "c").expect("it is open");
        let third = layer.join();
        drop(second);
        drop(third);
        assert!(!layer.is_member());
        layer.assert_none_waits();
    }

    #[test]
    fn a_join_of_a_group_that_is_subscribed_to_needs_no_record() {
        let layer = Layer::new();
        assert!(layer.begin(true).is_none());
        assert!(layer.is_member());
        assert_eq!(layer.joins.0.lock().capacity(), 0);
    }

    #[test]
    fn a_join_that_fails_leaves_the_membership_of_one_that_need_not_wait() {
        for for_another_process in [false, true] {
            let layer = Layer::new();
            let join = layer.join();
            if for_another_process {
                let added = layer.joins.add::<World>(&layer.local, "room", "c");
                added.expect("the names are valid");
            } else {
                assert!(layer.begin(true).is_none());
            }
            drop(join);
            assert!(layer.is_member());
            layer.assert_none_waits();
        }
    }

    #[test]
    fn a_join_that_is_made_later_takes_back_what_it_made_and_nothing_else() {
        let layer = Layer::new();
        let add = |is_first: bool| {
            let made = |is_new| {
                assert_eq!(is_new, is_first);
                if is_new {
                    layer.joins.made("room", "c");
                }
            };
            let added = layer.local.group_add_then("room", "c", made);
            added.expect("the names are valid");
        };
        let expect = || layer.joins.expect::<World>(&layer.local, "room", "c");
        let join = expect();
        assert!(!layer.is_member());
        add(true);
        drop(join);
        assert!(!layer.is_member());
        let confirmed = expect();
        add(true);
        confirmed.confirm();
        assert!(layer.is_member());
        let second = expect();
        add(false);
        drop(second);
        assert!(layer.is_member());
        layer.assert_none_waits();
    }

    #[test]
    fn a_join_that_was_not_made_leaves_the_membership_that_another_one_made() {
        let layer = Layer::new();
        let join = layer.joins.expect::<World>(&layer.local, "room", "c");
        assert!(layer.begin(true).is_none());
        drop(join);
        assert!(layer.is_member());
        layer.assert_none_waits();
    }

    #[test]
    fn a_membership_whose_time_is_over_is_none() {
        let config = Config {
            group_expiry: Duration::ZERO,
            ..Config::default()
        };
        let layer = Layer::with(config);
        layer.join().confirm();
        let join = layer.join();
        assert!(layer.joins.0.lock().values().all(|waiting| waiting.made));
        drop(join);
    }

    #[test]
    fn a_join_that_ends_after_its_layer_was_closed_is_forgotten() {
        let layer = Layer::new();
        let join = layer.join();
        assert!(layer.local.close().is_empty());
        drop(join);
        layer.assert_none_waits();
    }

    #[test]
    fn names_that_are_not_valid_join_nothing() {
        let Layer { joins, local } = &Layer::new();
        for (group, channel) in [("a room", "c"), ("room", "a c")] {
            assert!(
                joins
                    .begin::<World>(local, group, channel, || false)
                    .is_err()
            );
            assert!(joins.add::<World>(local, group, channel).is_err());
        }
        assert!(joins.0.lock().is_empty());
    }

    #[test]
    fn joins_of_many_threads_leave_what_one_of_them_confirmed_and_nothing_else() {
        for confirms in [false, true] {
            let layer = Layer::new();
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| (0..200).for_each(|_| drop(layer.join())));
                }
                if confirms {
                    scope.spawn(|| {
                        layer.join().confirm();
                        for _ in 0..200 {
                            assert!(layer.is_member());
                        }
                    });
                }
            });
            assert_eq!(layer.is_member(), confirms);
            layer.assert_none_waits();
        }
    }
}
