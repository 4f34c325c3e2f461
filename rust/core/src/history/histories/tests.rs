//! The rings of a layer, case by case and against a model.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const SIZE: usize = 3;
const TTL: u64 = 10;

fn at(seconds: u64) -> Moment {
    Moment::default().after(Duration::from_secs(seconds))
}

fn histories(most_bytes: usize) -> Histories<u64> {
    let rules = HistoryRules::default()
        .with_rule("room.*", SIZE, Duration::from_secs(TTL))
        .with_rule("state", 1, Duration::from_secs(4 * TTL));
    Histories::new(rules, most_bytes, 1)
}

fn push(histories: &mut Histories<u64>, group: &str, message: u64, now: u64) -> Option<Position> {
    let stamp = histories.push(group, at(now), 100, |_| message)?;
    Some(stamp.position)
}

fn since(
    histories: &mut Histories<u64>,
    group: &str,
    position: Option<Position>,
    now: u64,
) -> Option<Vec<u64>> {
    let found = histories.find(group, Since::Position(position), at(now));
    found?.replay.map(Iterator::collect)
}

#[test]
fn only_groups_that_a_rule_names_have_a_history() {
    let mut histories = histories(usize::MAX);
    assert_eq!(push(&mut histories, "hall", 1, 0), None);
    assert!(histories.head("hall", at(0)).is_none());
    assert!(histories.find("hall", Since::Newest(3), at(0)).is_none());
    assert!(!histories.keeps("hall") && histories.keeps("state"));
    assert_eq!(histories.stats(at(0)), HistoryStats::default());
}

#[test]
fn a_size_of_one_keeps_the_latest_state() {
    let mut histories = histories(usize::MAX);
    for message in 0..5 {
        push(&mut histories, "state", message, 0);
    }
    let found = histories.find("state", Since::Newest(10), at(0));
    let replay = found.and_then(|found| found.replay);
    assert_eq!(replay.map(Iterator::collect), Some(vec![4]));
}

#[test]
fn each_stream_has_an_epoch_of_its_own() {
    let (mut one, mut other) = (histories(usize::MAX), histories(usize::MAX));
    other.seed = 2;
    let first = push(&mut one, "room.1", 1, 0);
    push(&mut one, "room.2", 1, 0);
    push(&mut other, "room.1", 1, 0);
    assert_eq!(since(&mut one, "room.1", first, 0), Some(vec![]));
    assert_eq!(since(&mut one, "room.2", first, 0), None);
    assert_eq!(since(&mut other, "room.1", first, 0), None);
    one.forget("room.1");
    push(&mut one, "room.1", 1, 0);
    assert_eq!(since(&mut one, "room.1", first, 0), None);
    assert_eq!(since(&mut one, "room.1", None, 0), None);
    assert_ne!(random_seed(), random_seed());
}

#[test]
fn a_stream_ends_so_long_after_its_last_message() {
    let mut histories = histories(usize::MAX);
    let start = histories.head("room.1", at(0)).map(|stamp| stamp.position);
    let first = push(&mut histories, "room.1", 1, TTL - 1);
    push(&mut histories, "room.2", 1, TTL - 1);
    assert_eq!(
        since(&mut histories, "room.1", start, 2 * TTL - 2),
        Some(vec![1])
    );
    assert_eq!(since(&mut histories, "room.1", first, 2 * TTL - 1), None);
    assert_eq!(histories.stats(at(2 * TTL - 1)).messages, 0);
}

#[test]
fn the_group_that_was_unused_for_longest_goes_first() {
    let each = GROUP_BYTES + 6 + 164;
    let mut histories = histories(3 * each);
    let positions: Vec<_> = ["room.1", "room.2", "room.3"]
        .map(|group| push(&mut histories, group, 1, 0))
        .into();
    assert_eq!(
        since(&mut histories, "room.1", positions[0], 1),
        Some(vec![])
    );
    push(&mut histories, "room.4", 1, 1);
    assert_eq!(
        histories.stats(at(1)),
        HistoryStats {
            messages: 3,
            bytes: 3 * each,
            evicted: 1
        }
    );
    assert_eq!(
        since(&mut histories, "room.1", positions[0], 1),
        Some(vec![])
    );
    assert_eq!(
        since(&mut histories, "room.3", positions[2], 1),
        Some(vec![])
    );
    assert!(histories.ring("room.2", at(1)).is_none());
    assert_eq!(histories.take_dropped(), vec![1]);
}

/// redis-streams-adapter #47: what is kept has a bound, whatever the number of groups that somebody names.
#[test]
fn redis_streams_adapter_47_groups_without_messages_are_bounded_too() {
    let mut histories = histories(10 * (GROUP_BYTES + 10));
    for group in 0..1_000 {
        histories.head(&format!("room.{group}"), at(0));
    }
    assert!(
        histories.streams.len() <= 10 && histories.stats(at(0)).bytes <= 10 * (GROUP_BYTES + 10)
    );
}

#[test]
fn streams_without_messages_go_before_those_that_have_some() {
    let mut histories = histories(4 * (GROUP_BYTES + 10) + 2 * (100 + MESSAGE_BYTES));
    let first = push(&mut histories, "room.1", 1, 0);
    push(&mut histories, "room.1", 2, 0);
    for number in 10..100 {
        histories.head(&format!("room.{number}"), at(0));
    }
    assert_eq!(since(&mut histories, "room.1", first, 0), Some(vec![2]));
    assert!(histories.stats(at(0)).evicted > 80);
    let third = push(&mut histories, "room.99", 1, 0);
    histories.head("room.2", at(0));
    histories.head("room.3", at(0));
    assert_eq!(since(&mut histories, "room.99", third, 0), Some(vec![]));
}

#[test]
fn a_part_of_what_is_kept_is_told_with_where_it_ends() {
    let mut histories = histories(usize::MAX);
    let all: Vec<_> = (0..5)
        .map(|message| push(&mut histories, "room.1", message, 0))
        .collect();
    let mut told = |since, limit| {
        let recent = histories.recent("room.1", since, limit, at(0));
        let recent = recent.expect("it has a history");
        (
            recent.messages,
            Some(recent.position.position),
            recent.complete,
        )
    };
    let behind = |number: usize| Since::Position(all[number]);
    assert_eq!(told(behind(2), 9), (vec![3, 4], all[4], true));
    assert_eq!(told(behind(2), 1), (vec![3], all[3], true));
    assert_eq!(told(behind(4), 9), (vec![], all[4], true));
    assert_eq!(told(behind(0), 9), (vec![], all[4], false));
    assert_eq!(told(Since::Newest(2), 9), (vec![3, 4], all[4], true));
    assert_eq!(told(Since::Newest(9), 2), (vec![2, 3], all[3], true));
}

#[test]
fn a_message_larger_than_the_bound_is_missing_and_not_passed_over() {
    let mut histories = histories(GROUP_BYTES + 6 + 200);
    let first = push(&mut histories, "room.1", 1, 0);
    let large = histories.push("room.1", at(0), 1_000, |_| 2);
    assert_eq!(since(&mut histories, "room.1", first, 0), None);
    assert_eq!(
        since(
            &mut histories,
            "room.1",
            large.map(|stamp| stamp.position),
            0
        ),
        Some(vec![])
    );
    push(&mut histories, "room.1", 3, 0);
    assert_eq!(
        since(
            &mut histories,
            "room.1",
            large.map(|stamp| stamp.position),
            0
        ),
        Some(vec![3])
    );
    assert_eq!(since(&mut histories, "room.1", first, 0), None);
}

#[test]
fn messages_that_were_counted_elsewhere_are_kept_where_they_stand() {
    let mut histories = histories(usize::MAX);
    let head = Position {
        epoch: 77,
        number: 40,
        print: 9,
    };
    assert!(histories.restart("room.1", head, at(0)));
    assert!(histories.accept("room.1", head.next(5), 41, 1, at(0)));
    assert!(!histories.accept("hall", head, 0, 1, at(0)));
    assert!(!histories.restart("hall", head, at(0)));
    assert_eq!(
        since(&mut histories, "room.1", Some(head), 0),
        Some(vec![41])
    );
    assert!(histories.accept("room.1", Position { number: 50, ..head }, 50, 1, at(0)));
    assert_eq!(since(&mut histories, "room.1", Some(head), 0), None);
    // The list that those who resumed have shared is among it.
    assert_eq!(histories.take_dropped(), vec![0, 41, 41]);
}

proptest! {
    /// Against the obvious model: all messages ever of each group, with the one from which they are held.
    #[test]
    fn what_is_complete_is_all_and_what_is_counted_is_there(
        steps in prop::collection::vec((0..6_u8, 0..4_u8, 0..8_u64), 0..100)
    ) {
        let most = 3 * GROUP_BYTES + 1_000;
        let mut histories = histories(most);
        let mut sent: BTreeMap<String, Vec<(Position, u64)>> = BTreeMap::new();
        let mut now = 0;
        for (action, group, number) in steps {
            let group = format!("room.{group}");
            let all = sent.entry(group.clone()).or_default();
            match action {
                0..3 => {
                    let message = all.len() as u64;
                    let position = push(&mut histories, &group, message, now);
                    all.extend(position.map(|position| (position, message)));
                }
                3 => now += number,
                4 => histories.forget(&group),
                _ => {
                    let back = usize::try_from(number).unwrap_or(0);
                    let from = all.len().saturating_sub(back + 1);
                    if let Some((position, _)) = all.get(from) {
                        let behind: Vec<u64> = all[from + 1..].iter().map(|(_, message)| *message).collect();
                        let lost = all[from..].iter().any(|(other, _)| other.epoch != position.epoch);
                        let found = since(&mut histories, &group, Some(*position), now);
                        prop_assert!(found.is_none() || !lost);
                        prop_assert!(found.is_none_or(|found| found == behind));
                    }
                }
            }
            let stats = histories.stats(at(now));
            let streams = histories.streams.iter().map(|(_, stream)| stream);
            let counted: usize = streams.map(|stream| {
                GROUP_BYTES + stream.name.len() + stream.ring.bytes() + 64 * stream.ring.len()
            }).sum();
            prop_assert_eq!((stats.bytes, stats.messages), (counted, histories.messages().count()));
            prop_assert!(stats.bytes <= most);
            prop_assert_eq!(histories.names.len(), histories.streams.len());
        }
    }
}
