//! All tables of a layer: which group has one, when each is due, and what is told to other processes.

use std::num::NonZeroU32;
use std::time::Duration;

use super::*;
use crate::presence::diff::Scope;

fn at(milliseconds: u64) -> Moment {
    Moment::default().after(Duration::from_millis(milliseconds))
}

fn rule(kind: &str, interval: u64, linger: u64) -> PresenceRule {
    let time = Duration::from_millis;
    PresenceRule::new(kind, time(interval), time(linger), 2)
}

fn presences() -> Presences {
    let rules = PresenceRules::default()
        .with_rule("room.*", rule("room.diff", 500, 0))
        .with_rule("slow.*", rule("slow.diff", 2000, 5000));
    Presences::new(rules).noting_own()
}

fn add(presences: &mut Presences, group: &str, channel: &str, key: &str, now: u64) -> bool {
    presences.set(group, &channel.into(), (key, &[1]), at(now))
}

#[test]
fn only_groups_that_a_rule_names_have_a_presence() {
    let mut presences = presences();
    assert!(!add(&mut presences, "hall", "a", "ann", 0));
    assert!(presences.list("hall").is_none() && presences.counts("hall").is_none());
    assert!(!presences.begin_load("hall") && !presences.watch("hall"));
    assert!(presences.rule_of("hall").is_none());
    assert_eq!(
        presences.rule_of("room.1").map(|rule| &*rule.kind),
        Some("room.diff")
    );
    let empty = Listing {
        list: vec![0x80],
        is_hidden: false,
        counts: Counts::default(),
        version: 0,
    };
    assert_eq!(presences.list("room.1"), Some(empty));
    assert_eq!(
        (presences.groups().count(), presences.stats()),
        (0, PresenceStats::default())
    );
}

#[test]
fn groups_are_told_when_each_is_due() {
    let mut presences = presences();
    assert!(add(&mut presences, "slow.1", "a", "ann", 0));
    assert!(add(&mut presences, "room.1", "a", "ann", 100));
    assert!(add(&mut presences, "room.2", "a", "ann", 100));
    assert_eq!(presences.due(), Some(at(600)));
    assert!(presences.tell(at(599)).is_none());
    let told: Vec<_> = std::iter::from_fn(|| presences.tell(at(600))).collect();
    let named: Vec<_> = told
        .iter()
        .map(|(group, rule, _)| (&**group, &*rule.kind))
        .collect();
    assert_eq!(named, [("room.1", "room.diff"), ("room.2", "room.diff")]);
    assert_eq!(presences.due(), Some(at(2000)));
    let (group, _, diff) = presences.tell(at(2000)).expect("it is due");
    assert_eq!((&*group, diff.scope), ("slow.1", Scope::Changes));
    assert_eq!((presences.due(), presences.stats().diffs), (None, 3));
}

#[test]
fn a_list_that_begins_anew_has_a_later_version() {
    let mut presences = presences();
    add(&mut presences, "room.1", "a", "ann", 0);
    let (_, _, first) = presences.tell(at(500)).expect("it is due");
    presences.remove("room.1", &"a".into(), at(500));
    let (_, _, last) = presences.tell(at(1000)).expect("it is due");
    assert_eq!(last.previous, first.version);
    assert_eq!(presences.groups().count(), 0);
    let seen = presences.list("room.1").expect("it has a presence").version;
    assert!(seen >= last.version);
    add(&mut presences, "room.1", "a", "ann", 1000);
    let (_, _, again) = presences.tell(at(1500)).expect("it is due");
    assert!(again.previous >= seen && again.version > again.previous);
}

#[test]
fn what_became_of_the_entries_of_this_process_is_noted_once() {
    let mut presences = presences();
    let channel: Arc<str> = "a".into();
    add(&mut presences, "room.1", "a", "ann", 0);
    assert!(presences.update("room.1", &channel, &[2], at(0)));
    add(&mut presences, "room.2", "a", "ann", 0);
    presences.remove("room.2", &channel, at(0));
    assert!(presences.has_own());
    let changes = presences.take_own();
    let entries: Vec<_> = changes
        .iter()
        .map(|change| (&*change.group, change.entry.clone()))
        .collect();
    assert_eq!(
        entries,
        [
            ("room.1", Some(("ann".into(), [2].into()))),
            ("room.2", None)
        ]
    );
    assert!(changes[1].version > changes[0].version);
    assert!(!presences.has_own() && presences.take_own().is_empty());
    // To be written anew, with later versions.
    let again = presences.own_of("room.1");
    assert_eq!(again.len(), 1);
    assert!(again[0].version > changes[1].version);
    assert!(presences.own_of("room.9").is_empty());
    assert!(!presences.update("room.9", &channel, &[2], at(0)));
    assert!(!presences.remove("room.9", &channel, at(0)));
}

#[test]
fn the_entries_of_others_are_forgotten_when_nobody_watches() {
    let mut presences = presences();
    let owner = Owner::process(NonZeroU32::MIN);
    let entry = ForeignEntry {
        owner,
        channel: "b".into(),
        key: "bob".into(),
        meta: [1].into(),
        version: 4,
    };
    assert!(presences.watch("room.1") && presences.is_watched("room.1"));
    assert!(presences.begin_load("room.1"));
    presences.finish_load("room.1", [entry.clone()], at(0));
    assert_eq!(presences.entry("room.1", "b"), Some(("bob", &[1][..], 4)));
    assert!(presences.tell(at(500)).is_some());
    assert_eq!(
        presences.apply_removal("room.1", owner, &"b".into(), 3, at(500)),
        Arrival::Outdated
    );
    assert_eq!(
        presences.apply_removal("room.9", owner, &"b".into(), 3, at(500)),
        Arrival::Outdated
    );
    assert_eq!(presences.apply("hall", &entry, at(500)), Arrival::Outdated);
    assert_eq!(presences.stats().outdated, 3);
    presences.remove_owner(owner, at(500));
    let (_, _, diff) = presences.tell(at(1000)).expect("it is due");
    assert_eq!(diff.counts, Counts::default());
    assert_eq!(presences.groups().count(), 1);
    assert_eq!(
        presences.apply("room.1", &entry, at(1000)),
        Arrival::Applied
    );
    presences.unwatch("room.1", at(1000));
    assert!(presences.tell(at(9000)).is_none());
    assert_eq!((presences.groups().count(), presences.due()), (0, None));
    presences.begin_load("room.1");
    presences.abandon_load("room.1");
    assert_eq!(presences.groups().count(), 0);
}

#[test]
fn a_list_that_is_too_long_is_counted_when_it_is_told() {
    let mut presences = presences();
    for channel in ["a", "b", "c"] {
        add(&mut presences, "room.1", channel, channel, 0);
    }
    presences.tell(at(500));
    let listing = presences.list("room.1").expect("it has a presence");
    assert!(listing.is_hidden);
    assert_eq!((listing.list, listing.counts.channels), (vec![0x80], 3));
    assert_eq!(
        (presences.stats().hidden, presences.stats().entries),
        (1, 3)
    );
    presences.clear();
    assert_eq!(
        (
            presences.stats().entries,
            presences.due(),
            presences.has_own()
        ),
        (0, None, false)
    );
}
