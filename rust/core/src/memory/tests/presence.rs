//! Groups that tell who is present: whom it reaches, and what ends an entry.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::presence::{PresenceRule, PresenceRules, Presences};

const INTERVAL: u64 = 1;

type Engine = MemoryEngine<Vec<u8>, u64, Arc<ManualClock>>;

fn engine(clock: &Arc<ManualClock>) -> Engine {
    let config = Config {
        expiry: Duration::from_secs(EXPIRY),
        group_expiry: Duration::from_secs(GROUP_EXPIRY),
        capacities: Capacities::new(CAPACITY),
        ..Config::default()
    };
    let rule = PresenceRule::new("diff", Duration::from_secs(INTERVAL), Duration::ZERO, 100);
    let presences = Presences::new(PresenceRules::default().with_rule("room.*", rule));
    MemoryEngine::new(config, Arc::clone(clock)).with_presences(presences)
}

/// Moves the clock by an interval, tells what is due, and returns how many waited for it.
fn tell(engine: &Engine, clock: &ManualClock) -> usize {
    clock.advance(Duration::from_secs(INTERVAL));
    engine.presence_tell(|event, _| event).len()
}

fn counts(engine: &Engine, group: &str) -> (usize, usize) {
    let counts = engine.presence_counts(group).expect("the name is valid");
    let counts = counts.expect("it has a presence");
    (counts.keys, counts.channels)
}

/// What of a field the events in a mailbox say, one after the other.
fn events(engine: &Engine, channel: &str, field: &str) -> Vec<String> {
    let taken = std::iter::from_fn(|| engine.take(channel).expect("the name is valid"));
    taken
        .map(|envelope| {
            let event = rmpv::decode::read_value(&mut envelope.message.as_slice());
            let event = event.expect("it is msgpack");
            let fields = event.as_map().expect("a map").iter();
            let found = fields.clone().find(|(key, _)| key.as_str() == Some(field));
            found.expect("it has the field").1.to_string()
        })
        .collect()
}

fn add(engine: &Engine, channel: &str, key: &str) -> bool {
    let added = engine.presence_add("room.1", channel, key, &[0x80]);
    added.expect("the names are valid")
}

#[test]
fn each_member_is_told_once_of_all_who_came() {
    let clock = Arc::new(ManualClock::default());
    let engine = engine(&clock);
    engine.group_add("room.1", "watcher").expect("it is valid");
    assert!(add(&engine, "a", "ann") && add(&engine, "b", "bob"));
    assert_eq!(engine.take("a").expect("it is valid").map(|_| ()), None);
    assert_eq!(
        engine.presence_due(),
        Some(clock.now().after(Duration::from_secs(INTERVAL)))
    );
    tell(&engine, &clock);
    assert_eq!(engine.presence_due(), None);
    for channel in ["watcher", "a", "b"] {
        let joins = r#"{"ann": [{}], "bob": [{}]}"#;
        assert_eq!(events(&engine, channel, "joins"), [joins]);
    }
    assert_eq!(engine.stats().presence_diffs, 1);
    assert_eq!(engine.stats().presence_entries, 2);
}

#[test]
fn only_groups_that_a_rule_names_have_a_presence() {
    let engine = engine(&Arc::new(ManualClock::default()));
    assert_eq!(engine.presence_add("hall", "a", "ann", &[0x80]), Ok(false));
    assert_eq!(engine.presence_counts("hall"), Ok(None));
    assert_eq!(engine.presence_list("hall"), Ok(None));
    // It has made nobody a member, and no channel.
    assert_eq!((engine.stats().groups, engine.stats().channels), (0, 0));
    let without = super::engine(&Arc::new(ManualClock::default()));
    assert_eq!(
        without.presence_add("room.1", "a", "ann", &[0x80]),
        Ok(false)
    );
    assert_eq!(without.presence_due(), None);
    assert!(engine.presence_add("no room", "a", "ann", &[0x80]).is_err());
}

#[test]
fn an_entry_ends_with_the_membership_of_its_channel() {
    let clock = Arc::new(ManualClock::default());
    let engine = engine(&clock);
    for (channel, key) in [
        ("a", "ann"),
        ("b", "bob"),
        ("c", "cid"),
        ("d", "dan"),
        ("e", "eve"),
    ] {
        add(&engine, channel, key);
    }
    engine.hold("d").expect("it is valid");
    engine.hold("e").expect("it is valid");
    tell(&engine, &clock);
    assert_eq!(counts(&engine, "room.1"), (5, 5));
    engine.group_discard("room.1", "a").expect("it is valid");
    engine.close_channel("b").expect("it is valid");
    engine.release("e");
    tell(&engine, &clock);
    assert_eq!(counts(&engine, "room.1"), (3, 3));
    assert_eq!(
        events(&engine, "d", "offline").pop().as_deref(),
        Some(r#"["ann", "bob"]"#)
    );
    // Those that nobody holds expire; whatever is done next finds it.
    clock.advance(Duration::from_secs(GROUP_EXPIRY));
    assert_eq!(engine.group_count("room.1"), Ok(1));
    tell(&engine, &clock);
    assert_eq!(counts(&engine, "room.1"), (1, 1));
    assert_eq!(events(&engine, "d", "offline"), [r#"["cid", "eve"]"#]);
    engine.release("d");
    clock.advance(Duration::from_secs(GROUP_EXPIRY));
    assert_eq!(engine.stats().memberships, 0);
    tell(&engine, &clock);
    assert_eq!(
        (counts(&engine, "room.1"), engine.stats().presence_entries),
        ((0, 0), 0)
    );
}

#[test]
fn whoever_is_discarded_stays_a_member() {
    let clock = Arc::new(ManualClock::default());
    let engine = engine(&clock);
    add(&engine, "a", "ann");
    tell(&engine, &clock);
    assert_eq!(engine.presence_update("room.1", "a", &[0xc0]), Ok(true));
    tell(&engine, &clock);
    assert_eq!(engine.presence_discard("room.1", "a"), Ok(true));
    assert_eq!(engine.presence_discard("room.1", "a"), Ok(false));
    assert_eq!(engine.presence_update("room.1", "a", &[0xc0]), Ok(false));
    assert_eq!(engine.presence_discard("room.1", "nobody"), Ok(false));
    assert_eq!(
        engine.presence_update("room.1", "nobody", &[0xc0]),
        Ok(false)
    );
    tell(&engine, &clock);
    let joins = [r#"{"ann": [{}]}"#, r#"{"ann": [nil]}"#, "{}"];
    assert_eq!(events(&engine, "a", "joins"), joins);
    assert_eq!(engine.group_count("room.1"), Ok(1));
}

#[test]
fn a_member_that_is_full_is_counted_and_sees_the_hole() {
    let clock = Arc::new(ManualClock::default());
    let engine = engine(&clock);
    engine.group_add("room.1", "slow").expect("it is valid");
    for number in 0..CAPACITY + 2 {
        add(&engine, &format!("c{number}"), "ann");
        tell(&engine, &clock);
    }
    let slow = engine.channel_stats("slow").expect("it is valid");
    assert_eq!(slow.dropped_full, 2);
    let versions = events(&engine, "slow", "version");
    add(&engine, "last", "ann");
    tell(&engine, &clock);
    assert_ne!(events(&engine, "slow", "previous").last(), versions.last());
}

#[test]
fn whoever_waits_for_a_diff_is_handed_it() {
    let clock = Arc::new(ManualClock::default());
    let engine = engine(&clock);
    add(&engine, "a", "ann");
    let waiting = engine.wait("a", 7, None).expect("it is valid");
    assert!(matches!(waiting, Received::Waiting));
    assert_eq!(tell(&engine, &clock), 1);
}

#[test]
fn a_flush_forgets_who_was_present() {
    let clock = Arc::new(ManualClock::default());
    let engine = engine(&clock);
    add(&engine, "a", "ann");
    tell(&engine, &clock);
    engine.flush();
    assert_eq!(
        (counts(&engine, "room.1"), engine.presence_due()),
        ((0, 0), None)
    );
    add(&engine, "a", "ann");
    tell(&engine, &clock);
    assert_eq!(events(&engine, "a", "online"), [r#"["ann"]"#]);
    drop(engine.close());
    assert!(
        engine
            .presence_add("room.1", "new", "ann", &[0x80])
            .is_err()
    );
}

#[test]
fn the_bell_rings_when_something_is_due_earlier() {
    let clock = Arc::new(ManualClock::default());
    let engine = engine(&clock);
    let rings = Arc::new(AtomicUsize::new(0));
    let rung = Arc::clone(&rings);
    engine.on_presence_due(move || {
        rung.fetch_add(1, Ordering::Relaxed);
    });
    engine.group_add("room.1", "watcher").expect("it is valid");
    assert_eq!(rings.load(Ordering::Relaxed), 0);
    add(&engine, "a", "ann");
    add(&engine, "b", "bob");
    assert_eq!(rings.load(Ordering::Relaxed), 1);
    tell(&engine, &clock);
    engine.close_channel("a").expect("it is valid");
    assert_eq!(rings.load(Ordering::Relaxed), 2);
    let taken = engine.presences(|presences, _| presences.due());
    assert_eq!(taken.flatten(), engine.presence_due());
}
