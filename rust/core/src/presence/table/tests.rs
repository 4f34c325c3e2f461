//! One group, case by case and against a model.

mod foreign;
mod model;

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::presence::diff::{Diff, Scope, Turn};

const INTERVAL: u64 = 1;
const LINGER: u64 = 10;
const MAX: usize = 4;

fn at(seconds: u64) -> Moment {
    Moment::default().after(Duration::from_secs(seconds))
}

fn table(linger: u64) -> Table {
    let seconds = Duration::from_secs;
    let rule = PresenceRule::new("diff", seconds(INTERVAL), seconds(linger), MAX);
    Table::new(Arc::new(rule), 0)
}

fn set(table: &mut Table, channel: &str, key: &str, meta: u8, now: u64) {
    table.set(&channel.into(), key, &[meta], now, at(now));
}

fn tell(table: &mut Table, now: u64) -> Option<Diff> {
    let next = table.version() + 1;
    table.tell(at(now), || next)
}

/// The list as a member has it: the metas of each key, in order.
type List = BTreeMap<String, Vec<u8>>;

fn list(table: &Table) -> List {
    let mut bytes = Vec::new();
    table.write_list(&mut bytes);
    let read = rmpv::decode::read_value(&mut bytes.as_slice()).expect("it is msgpack");
    let metas = |value: &rmpv::Value| {
        let metas = value.as_array().expect("an array").iter();
        let metas =
            metas.map(|meta| u8::try_from(meta.as_u64().expect("a number")).expect("a small one"));
        sorted(metas.collect())
    };
    let entries = read.as_map().expect("a map").iter();
    entries
        .map(|(key, value)| (key.as_str().expect("a text").to_owned(), metas(value)))
        .collect()
}

fn sorted(mut metas: Vec<u8>) -> Vec<u8> {
    metas.sort_unstable();
    metas
}

fn of(entries: &[(&str, &[u8])]) -> List {
    let entries = entries.iter();
    entries
        .map(|(key, metas)| ((*key).to_owned(), metas.to_vec()))
        .collect()
}

/// What a member does with a diff.
fn follow(list: &mut List, diff: &Diff) {
    if diff.scope == Scope::Full {
        list.clear();
    }
    if diff.scope == Scope::Counts {
        list.clear();
        return;
    }
    for change in &diff.keys {
        let metas = list.entry(change.key.to_string()).or_default();
        let was = !metas.is_empty();
        for left in &change.leaves {
            let place = metas.iter().position(|meta| [*meta] == **left);
            metas.remove(place.expect("what leaves has joined"));
        }
        metas.extend(change.joins.iter().map(|meta| meta[0]));
        metas.sort_unstable();
        let turn = match (was, !metas.is_empty()) {
            (false, true) => Some(Turn::Online),
            (true, false) => Some(Turn::Offline),
            _ => None,
        };
        if diff.scope == Scope::Changes {
            assert_eq!(change.turn, turn);
        }
    }
    list.retain(|_, metas| !metas.is_empty());
}

/// A key, the metas that joined and that left, and whether it came or went.
type Change = (String, Vec<u8>, Vec<u8>, Option<Turn>);

fn changes(diff: Option<Diff>) -> Vec<Change> {
    let Some(diff) = diff else {
        return Vec::new();
    };
    assert_eq!(diff.scope, Scope::Changes);
    let flat = |metas: Vec<Box<[u8]>>| metas.iter().map(|meta| meta[0]).collect();
    let keys = diff.keys.into_iter();
    keys.map(|change| {
        (
            change.key.to_string(),
            flat(change.joins),
            flat(change.leaves),
            change.turn,
        )
    })
    .collect()
}

#[test]
fn a_join_is_told_after_the_interval_and_is_in_the_list_then() {
    let mut table = table(LINGER);
    set(&mut table, "a", "ann", 1, 0);
    assert_eq!(table.due(), Some(at(INTERVAL)));
    assert_eq!((tell(&mut table, 0), list(&table)), (None, List::new()));
    let diff = tell(&mut table, INTERVAL).expect("there is one");
    assert_eq!((diff.version, diff.previous), (1, 0));
    assert_eq!(
        diff.counts,
        Counts {
            keys: 1,
            channels: 1
        }
    );
    assert_eq!(
        changes(Some(diff)),
        [("ann".into(), vec![1], vec![], Some(Turn::Online))]
    );
    assert_eq!(list(&table), of(&[("ann", &[1])]));
    assert_eq!(table.due(), None);
}

#[test]
fn changes_within_the_interval_are_one_diff() {
    let mut table = table(0);
    for (channel, key) in [("a", "ann"), ("b", "bob"), ("c", "ann")] {
        set(&mut table, channel, key, 1, 0);
    }
    assert!(table.remove("b", at(0)));
    let told = changes(tell(&mut table, INTERVAL));
    assert_eq!(
        told,
        [("ann".into(), vec![1, 1], vec![], Some(Turn::Online))]
    );
    assert_eq!(
        table.counts(),
        Counts {
            keys: 1,
            channels: 2
        }
    );
}

#[test]
fn whoever_comes_and_goes_within_the_interval_is_no_event() {
    let mut table = table(LINGER);
    set(&mut table, "a", "ann", 1, 0);
    assert!(table.remove("a", at(0)));
    assert_eq!(tell(&mut table, INTERVAL), None);
    assert!(table.is_empty());
    assert_eq!(table.due(), None);
}

#[test]
fn whoever_comes_and_goes_all_the_time_takes_no_room() {
    let mut table = table(LINGER);
    set(&mut table, "b", "bob", 1, 0);
    for _ in 0..1000 {
        set(&mut table, "a", "ann", 1, 0);
        set(&mut table, "c", "ann", 1, 0);
        assert!(table.remove("a", at(0)) && table.remove("c", at(0)));
    }
    assert_eq!((table.len(), table.listed.len()), (1, 1));
    let told = changes(tell(&mut table, INTERVAL));
    assert_eq!(told, [("bob".into(), vec![1], vec![], Some(Turn::Online))]);
}

#[test]
fn a_key_that_returns_within_linger_is_no_event() {
    let mut table = table(LINGER);
    set(&mut table, "a", "ann", 1, 0);
    tell(&mut table, INTERVAL);
    assert!(table.remove("a", at(5)));
    assert_eq!(
        (tell(&mut table, 6), list(&table)),
        (None, of(&[("ann", &[1])]))
    );
    set(&mut table, "b", "ann", 1, 5 + LINGER - 1);
    assert_eq!(tell(&mut table, 5 + LINGER), None);
    assert_eq!(tell(&mut table, 99), None);
    assert_eq!(list(&table), of(&[("ann", &[1])]));
    assert_eq!(table.len(), 1);
}

#[test]
fn a_key_that_does_not_return_is_told_an_interval_after_linger() {
    let mut table = table(LINGER);
    set(&mut table, "a", "ann", 1, 0);
    tell(&mut table, INTERVAL);
    assert!(table.remove("a", at(5)));
    assert_eq!(table.due(), Some(at(5 + LINGER)));
    assert_eq!(tell(&mut table, 5 + LINGER), None);
    assert_eq!(table.due(), Some(at(5 + LINGER + INTERVAL)));
    let told = changes(tell(&mut table, 5 + LINGER + INTERVAL));
    assert_eq!(told, [("ann".into(), vec![], vec![1], Some(Turn::Offline))]);
    assert!(table.is_empty());
}

#[test]
fn a_key_that_returns_with_another_meta_only_changes_it() {
    let mut table = table(LINGER);
    set(&mut table, "a", "ann", 1, 0);
    tell(&mut table, INTERVAL);
    table.remove("a", at(2));
    set(&mut table, "b", "ann", 2, 3);
    assert_eq!(list(&table), of(&[("ann", &[1])]));
    let told = changes(tell(&mut table, 4));
    assert_eq!(told, [("ann".into(), vec![2], vec![1], None)]);
    assert_eq!(list(&table), of(&[("ann", &[2])]));
}

#[test]
fn a_key_that_is_there_again_before_it_leaves_is_no_event() {
    let mut table = table(0);
    set(&mut table, "a", "ann", 1, 0);
    tell(&mut table, INTERVAL);
    set(&mut table, "b", "ann", 1, 2);
    table.remove("a", at(2));
    assert_eq!(tell(&mut table, 3), None);
    assert_eq!((table.len(), list(&table)), (1, of(&[("ann", &[1])])));
}

#[test]
fn each_tab_takes_the_place_of_the_one_with_its_meta() {
    let mut table = table(LINGER);
    for (channel, meta) in [("a", 1), ("b", 2), ("c", 3)] {
        set(&mut table, channel, "ann", meta, 0);
    }
    tell(&mut table, INTERVAL);
    for channel in ["a", "b", "c"] {
        table.remove(channel, at(2));
    }
    for (channel, meta) in [("d", 3), ("e", 1), ("f", 2)] {
        set(&mut table, channel, "ann", meta, 3);
    }
    assert_eq!(tell(&mut table, 99), None);
    assert_eq!(list(&table), of(&[("ann", &[1, 2, 3])]));
}

#[test]
fn online_and_offline_are_the_first_and_the_last_channel_of_a_key() {
    let mut table = table(0);
    set(&mut table, "a", "ann", 1, 0);
    let turns = |told: Vec<Change>| told[0].3;
    assert_eq!(turns(changes(tell(&mut table, 1))), Some(Turn::Online));
    set(&mut table, "b", "ann", 2, 1);
    assert_eq!(turns(changes(tell(&mut table, 2))), None);
    table.remove("a", at(2));
    assert_eq!(turns(changes(tell(&mut table, 3))), None);
    table.remove("b", at(3));
    assert_eq!(turns(changes(tell(&mut table, 4))), Some(Turn::Offline));
}

#[test]
fn an_update_replaces_the_meta_and_adds_none() {
    let mut table = table(LINGER);
    set(&mut table, "a", "ann", 1, 0);
    tell(&mut table, INTERVAL);
    for meta in 2..9 {
        assert!(table.update("a", &[meta], 2, at(2)));
    }
    assert_eq!(list(&table), of(&[("ann", &[1])]));
    let told = changes(tell(&mut table, 3));
    assert_eq!(told, [("ann".into(), vec![8], vec![1], None)]);
    assert_eq!(list(&table), of(&[("ann", &[8])]));
    assert!(!table.update("b", &[1], 3, at(3)));
}

#[test]
fn an_update_that_is_taken_back_is_no_event() {
    let mut table = table(LINGER);
    set(&mut table, "a", "ann", 1, 0);
    tell(&mut table, INTERVAL);
    table.update("a", &[2], 2, at(2));
    table.update("a", &[1], 3, at(2));
    assert_eq!(tell(&mut table, 3), None);
    // It is gone before the new meta was told: the one that was told leaves.
    table.update("a", &[2], 4, at(4));
    table.remove("a", at(4));
    assert_eq!(list(&table), of(&[("ann", &[1])]));
    assert_eq!(tell(&mut table, 5), None);
    assert_eq!(tell(&mut table, 4 + LINGER), None);
    let told = changes(tell(&mut table, 5 + LINGER));
    assert_eq!(told, [("ann".into(), vec![], vec![1], Some(Turn::Offline))]);
}

#[test]
fn a_channel_that_takes_another_key_leaves_the_first() {
    let mut table = table(0);
    set(&mut table, "a", "ann", 1, 0);
    tell(&mut table, INTERVAL);
    set(&mut table, "a", "bob", 2, 2);
    let mut told = changes(tell(&mut table, 3));
    told.sort_by(|one, other| one.0.cmp(&other.0));
    let expected = [
        ("ann".into(), vec![], vec![1], Some(Turn::Offline)),
        ("bob".into(), vec![2], vec![], Some(Turn::Online)),
    ];
    assert_eq!(told, expected);
    assert_eq!(table.get("a"), Some(("bob", &[2][..], 2)));
}

#[test]
fn a_list_that_is_too_long_is_told_as_counts_and_then_whole() {
    let mut table = table(0);
    for channel in 0..=MAX {
        set(
            &mut table,
            &format!("c{channel}"),
            &format!("k{channel}"),
            1,
            0,
        );
    }
    let diff = tell(&mut table, 1).expect("there is one");
    assert_eq!((diff.scope, diff.keys.len()), (Scope::Counts, 0));
    assert_eq!(
        diff.counts,
        Counts {
            keys: MAX + 1,
            channels: MAX + 1
        }
    );
    assert!(table.is_hidden() && list(&table).is_empty());
    // What changes no count is not told.
    table.update("c0", &[2], 2, at(1));
    assert_eq!(tell(&mut table, 2), None);
    table.remove("c1", at(2));
    let diff = tell(&mut table, 3).expect("there is one");
    assert_eq!(
        (diff.scope, diff.keys.len(), diff.counts.keys),
        (Scope::Full, MAX, MAX)
    );
    assert!(
        diff.keys
            .iter()
            .all(|change| change.leaves.is_empty() && change.turn.is_none())
    );
    assert_eq!(list(&table).get("k0"), Some(&vec![2]));
    assert!(!table.is_hidden());
}

fn owner(number: u32) -> Owner {
    Owner::process(NonZeroU32::new(number).expect("it is not zero"))
}

fn foreign(process: u32, channel: &str, key: &str, meta: u8, version: u64) -> ForeignEntry {
    ForeignEntry {
        owner: owner(process),
        channel: channel.into(),
        key: key.into(),
        meta: [meta].into(),
        version,
    }
}

#[test]
fn the_memory_of_a_peak_is_given_back() {
    let mut table = table(0);
    for channel in 0..200 {
        set(
            &mut table,
            &format!("c{channel}"),
            &format!("k{}", channel / 2),
            1,
            0,
        );
    }
    tell(&mut table, 1);
    // Every twentieth stays.
    for channel in (0..200).filter(|channel| channel % 20 != 0) {
        table.remove(&format!("c{channel}"), at(1));
    }
    tell(&mut table, 2);
    assert!(
        table.entries.capacity() <= 40,
        "{}",
        table.entries.capacity()
    );
    for channel in (0..200).step_by(20) {
        let key = format!("k{}", channel / 2);
        assert_eq!(
            table
                .get(&format!("c{channel}"))
                .map(|found| found.0.to_owned()),
            Some(key)
        );
    }
    assert_eq!(
        table.counts(),
        Counts {
            keys: 10,
            channels: 10
        }
    );
}
