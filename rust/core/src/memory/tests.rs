//! The engine, case by case; `model` has the random runs.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::clock::{Clock, ManualClock, Moment};
use crate::config::{Capacities, CapacityRule};
use crate::engine::LayerStats;
use crate::message::ByteSize;

const EXPIRY: u64 = 10;
const GROUP_EXPIRY: u64 = 25;
const CAPACITY: usize = 3;
const CAPACITY_BYTES: usize = 8;

/// Messages from this number on are final; their sizes are those of others.
const FINAL: u64 = 1_000_000;

mod final_messages;
mod history;
mod model;
mod presence;

type Engine = MemoryEngine<u64, u64, Arc<ManualClock>>;

impl ByteSize for u64 {
    /// Numbers that come one after the other differ in size, and some are larger than all that fits.
    fn byte_size(&self) -> usize {
        [1, 5, 2, 9, 3][usize::try_from(*self % 5).unwrap_or(0)]
    }

    fn is_final(&self) -> bool {
        *self >= FINAL
    }
}

fn engine(clock: &Arc<ManualClock>) -> Engine {
    let config = Config {
        expiry: Duration::from_secs(EXPIRY),
        group_expiry: Duration::from_secs(GROUP_EXPIRY),
        capacities: Capacities::new(CAPACITY),
        capacity_bytes: CAPACITY_BYTES,
    };
    MemoryEngine::new(config, Arc::clone(clock))
}

#[test]
fn a_mailbox_takes_one_message_of_any_size_and_so_many_bytes_behind_it() {
    let engine = engine(&Arc::new(ManualClock::default()));
    // 3 takes nine bytes, one more than the capacity; 1 and 5 take five and one.
    for message in [3, 1] {
        assert!(matches!(engine.send("c", message), Ok(None)));
    }
    assert!(matches!(engine.send("c", 6), Err(SendError::Full(6))));
    assert!(matches!(engine.send("c", 5), Ok(None)));
    let stats = engine.channel_stats("c").unwrap_or_default();
    assert_eq!((stats.bytes, stats.capacity_bytes), (15, CAPACITY_BYTES));
    assert_eq!((stats.dropped_full, stats.full_by_bytes), (1, 1));
    assert!(matches!(engine.take("c"), Ok(Some(_))));
    assert_eq!(engine.stats().bytes, 6);
}

#[test]
fn members_are_counted_without_those_that_are_passed_by() {
    let engine = engine(&Arc::new(ManualClock::default()));
    for channel in ["a", "b", "c"] {
        assert_eq!(engine.group_add("room", channel), Ok(()));
    }
    assert_eq!(engine.group_add("other", "d"), Ok(()));
    for (exclude, expected) in [
        (&[][..], 3),
        (&["a"], 2),
        (&["a", "a", "d", "unknown"], 2),
        (&["a", "b", "c"], 0),
    ] {
        assert_eq!(engine.group_count_without("room", exclude), Ok(expected));
    }
    assert_eq!(engine.group_count_without("nobody", &[]), Ok(0));
}

#[test]
fn an_owner_sets_how_many_bytes_its_channel_holds() {
    let engine = engine(&Arc::new(ManualClock::default()));
    let capacity = NonZeroUsize::MAX;
    let owned = engine.own("c", capacity, Some(6), Overflow::DropOld, Some(7));
    assert_eq!(owned, Ok(()));
    for message in [1, 6, 11, 16] {
        assert!(matches!(engine.send("c", message), Ok(None)));
    }
    let stats = engine.channel_stats("c").unwrap_or_default();
    assert_eq!((stats.depth, stats.bytes, stats.capacity_bytes), (2, 10, 6));
    assert_eq!((stats.dropped_replaced, stats.full_by_bytes), (2, 2));
    assert_eq!(engine.take_alarms(), vec![7]);
}

#[test]
fn a_full_mailbox_makes_room_for_expired_messages() {
    let clock = Arc::new(ManualClock::default());
    let engine = engine(&clock);
    for message in 0..3 {
        assert!(matches!(engine.send("c", message), Ok(None)));
    }
    assert!(matches!(engine.send("c", 3), Err(SendError::Full(3))));
    clock.advance(Duration::from_secs(EXPIRY));
    assert!(matches!(engine.send("c", 4), Ok(None)));
    assert_eq!(
        engine
            .take("c")
            .map(|taken| taken.map(|envelope| envelope.message)),
        Ok(Some(4))
    );
    assert_eq!(engine.stats().dropped_expired, 3);
}

/// A clock that is behind, as the coarse one of a system is, unless it is asked for the exact moment.
#[derive(Debug)]
struct CoarseClock(Arc<ManualClock>);

impl Clock for CoarseClock {
    fn now(&self) -> Moment {
        self.0.now()
    }

    fn exact(&self) -> Moment {
        self.0.now().after(Duration::from_millis(4))
    }
}

#[test]
fn an_expired_message_is_not_delivered_while_the_coarse_clock_is_behind() {
    let clock = Arc::new(ManualClock::default());
    let config = Config {
        expiry: Duration::from_secs(EXPIRY),
        ..Config::default()
    };
    let engine = MemoryEngine::<u64, u64, _>::new(config, CoarseClock(Arc::clone(&clock)));
    assert!(matches!(engine.send("fresh", 1), Ok(None)));
    assert!(matches!(engine.send("expired", 2), Ok(None)));
    clock.advance(Duration::from_millis(EXPIRY * 1_000 - 5));
    assert!(matches!(engine.take("fresh"), Ok(Some(_))));
    clock.advance(Duration::from_millis(1));
    assert!(matches!(engine.take("expired"), Ok(None)));
}

#[test]
fn a_held_channel_knows_how_many_messages_have_expired() {
    let clock = Arc::new(ManualClock::default());
    let engine = engine(&clock);
    assert_eq!(engine.hold("c"), Ok(()));
    for message in 0..3 {
        assert!(matches!(engine.send("c", message), Ok(None)));
    }
    assert_eq!(engine.expired("c"), 0);
    clock.advance(Duration::from_secs(EXPIRY));
    assert!(matches!(engine.send("other", 4), Ok(None)));
    assert_eq!((engine.expired("c"), engine.expired("other")), (3, 0));
    assert_eq!(engine.expired("unknown"), 0);
}

#[test]
fn a_group_may_expire_as_a_whole_before_a_send_to_it() {
    let clock = Arc::new(ManualClock::default());
    let engine = engine(&clock);
    for channel in 0..20 {
        assert_eq!(engine.group_add("g", &format!("c{channel}")), Ok(()));
    }
    clock.advance(Duration::from_secs(GROUP_EXPIRY));
    let fan_out = engine.group_send("g", 1, &[]).map(|fan_out| fan_out.report);
    assert_eq!(fan_out, Ok(crate::SendReport::default()));
    assert_eq!(engine.channel_groups("c19"), Ok(Vec::new()));
    assert_eq!(engine.stats().memberships, 0);
}

#[test]
fn a_held_channel_keeps_its_memberships() {
    let clock = Arc::new(ManualClock::default());
    let engine = engine(&clock);
    assert_eq!(engine.group_add("before", "c"), Ok(()));
    assert_eq!(engine.hold("c"), Ok(()));
    assert_eq!(engine.group_add("after", "c"), Ok(()));
    let span = Duration::from_secs(GROUP_EXPIRY * 100);
    clock.advance(span);
    assert_eq!(engine.channel_groups("c").map(|groups| groups.len()), Ok(2));
    let ages = engine.group_members("after");
    assert_eq!(ages, Ok(vec![(Arc::from("c"), span)]));
    assert_eq!(engine.close_channel("c"), Ok(()));
    assert_eq!((engine.stats().groups, engine.stats().channels), (0, 1));
    engine.release("c");
    assert_eq!(engine.stats().channels, 0);
}

#[test]
fn abandoned_mailboxes_are_swept_by_work_on_other_channels() {
    let clock = Arc::new(ManualClock::default());
    let engine = engine(&clock);
    for channel in 0..1_000 {
        assert!(engine.send(&format!("c{channel}"), channel).is_ok());
    }
    clock.advance(Duration::from_secs(EXPIRY));
    for message in 0..1_000 / 2 {
        assert!(engine.send("busy", message).is_ok());
        assert!(engine.take("busy").is_ok());
    }
    let state = engine.state.lock();
    assert!(
        state.channels().count() <= 4,
        "{}",
        state.channels().count()
    );
}

#[test]
fn a_capacity_rule_may_use_the_engine() {
    let own: Arc<std::sync::OnceLock<Arc<Engine>>> = Arc::default();
    let seen = Arc::clone(&own);
    let rule = CapacityRule::Predicate(Arc::new(move |_| {
        seen.get().is_some_and(|engine| engine.stats().sent == 0)
    }));
    let config = Config {
        capacities: Capacities::new(2).with_rule(rule, 1),
        ..Config::default()
    };
    let engine = Arc::new(MemoryEngine::new(config, Arc::new(ManualClock::default())));
    assert!(own.set(Arc::clone(&engine)).is_ok());
    assert!(engine.send("c", 1).is_ok());
    assert!(matches!(engine.send("c", 2), Err(SendError::Full(2))));
}

#[test]
fn a_closed_engine_refuses_and_gives_out_its_waiters() {
    let engine = engine(&Arc::new(ManualClock::default()));
    assert!(matches!(
        engine.wait("c", 7, Some(8)),
        Ok(Received::Waiting)
    ));
    assert_eq!(engine.close(), vec![7]);
    assert!(matches!(
        engine.send("c", 1),
        Err(SendError::Refused(Error::Closed, 1))
    ));
    assert!(matches!(engine.take("c"), Err(Error::Closed)));
    assert_eq!(engine.group_add("g", "c"), Err(Error::Closed));
    assert_eq!(engine.close(), Vec::<u64>::new());
}

#[test]
fn the_spare_waiter_is_queued_again_if_it_fits() {
    let engine = engine(&Arc::new(ManualClock::default()));
    assert!(matches!(
        engine.receive("c", |spare| Some(*spare)),
        Ok(Received::Empty)
    ));
    assert!(matches!(
        engine.wait("c", 7, Some(8)),
        Ok(Received::Waiting)
    ));
    assert!(
        engine
            .send("c", 1)
            .is_ok_and(|hand_off| hand_off.is_some_and(|to| to.waiter == 7))
    );
    assert!(matches!(engine.receive("c", |_| None), Ok(Received::Empty)));
    assert!(matches!(
        engine.receive("c", |spare| Some(*spare)),
        Ok(Received::Waiting)
    ));
    assert!(
        engine
            .send("c", 2)
            .is_ok_and(|hand_off| hand_off.is_some_and(|to| to.waiter == 8))
    );
}
