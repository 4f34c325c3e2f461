//! Groups with a history: the engine against all messages that were ever sent.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use proptest::prelude::*;

use super::*;
use crate::history::{Histories, HistoryRules, Position, Since, Stamp, Stamped};

const SIZE: usize = 4;
const TTL: u64 = 30;

/// A message that can be stamped.
#[derive(Clone, Debug)]
struct Note(Arc<(u64, OnceLock<Stamp>)>);

impl Note {
    fn new(text: u64) -> Self {
        Self(Arc::new((text, OnceLock::new())))
    }
}

impl ByteSize for Note {
    fn byte_size(&self) -> usize {
        1
    }
}

impl Stamped for Note {
    fn stamp(&self, stamp: Stamp) {
        self.0.1.get_or_init(|| stamp);
    }

    fn stamped(&self) -> Option<Stamp> {
        self.0.1.get().copied()
    }
}

type Engine = MemoryEngine<Note, u64, Arc<ManualClock>>;

fn engine(clock: &Arc<ManualClock>) -> Engine {
    let config = Config {
        expiry: Duration::from_secs(EXPIRY),
        group_expiry: Duration::from_secs(GROUP_EXPIRY),
        capacities: Capacities::new(CAPACITY),
        ..Config::default()
    };
    let rules = HistoryRules::default().with_rule("kept.*", SIZE, Duration::from_secs(TTL));
    let histories = Histories::new(rules, 10_000, 1);
    MemoryEngine::new(config, Arc::clone(clock)).with_histories(histories)
}

fn send(engine: &Engine, group: &str, text: u64) -> Option<Position> {
    let sent = engine.group_send_kept(group, Note::new(text), &[]);
    sent.ok()?.1.map(|stamp| stamp.position)
}

fn since(position: Option<Position>) -> Since {
    Since::Position(position)
}

fn add(engine: &Engine, group: &str, channel: &str, since: Since) -> Option<bool> {
    let resumed = engine.group_add_since(group, channel, since).ok()??;
    Some(resumed.complete)
}

fn received(engine: &Engine, channel: &str) -> Vec<u64> {
    std::iter::from_fn(|| engine.take(channel).ok().flatten())
        .map(|envelope| envelope.message.0.0)
        .collect()
}

#[test]
fn what_was_missed_comes_before_what_is_sent_later() {
    let engine = engine(&Arc::default());
    let first = send(&engine, "kept.1", 1);
    send(&engine, "kept.1", 2);
    assert!(engine.send("c", Note::new(0)).is_ok());
    assert_eq!(add(&engine, "kept.1", "c", since(first)), Some(true));
    send(&engine, "kept.1", 3);
    let stats = engine.channel_stats("c").unwrap_or_default();
    assert_eq!((stats.depth, stats.groups), (3, 1));
    assert_eq!(received(&engine, "c"), vec![0, 2, 3]);
    let stats = engine.stats();
    assert_eq!((stats.sent, stats.delivered, stats.depth), (3, 3, 0));
    assert_eq!(stats.history_messages, 3);
}

#[test]
fn a_position_that_is_not_complete_replays_nothing() {
    let engine = engine(&Arc::default());
    let first = send(&engine, "kept.1", 0);
    for text in 1..=SIZE as u64 + 1 {
        send(&engine, "kept.1", text);
    }
    send(&engine, "kept.2", 0);
    for (group, since) in [
        ("kept.1", since(first)),
        ("kept.1", since(None)),
        ("kept.2", since(first)),
    ] {
        assert_eq!(add(&engine, group, "c", since), Some(false));
        assert_eq!(received(&engine, "c"), Vec::<u64>::new());
    }
    send(&engine, "kept.1", 9);
    assert_eq!(received(&engine, "c"), vec![9]);
    assert_eq!(add(&engine, "other", "c", Since::Newest(1)), None);
    assert_eq!(engine.group_count("other"), Ok(0));
}

#[test]
fn what_is_replayed_takes_no_room_from_what_is_sent() {
    let engine = engine(&Arc::default());
    for text in 0..SIZE as u64 {
        send(&engine, "kept.1", text);
    }
    assert_eq!(add(&engine, "kept.1", "c", Since::Newest(SIZE)), Some(true));
    for text in 10..14 {
        send(&engine, "kept.1", text);
    }
    assert_eq!(engine.stats().dropped_full, 1);
    assert_eq!(received(&engine, "c"), vec![0, 1, 2, 3, 10, 11, 12]);
}

#[test]
fn a_replay_survives_what_the_ring_drops_meanwhile() {
    let engine = engine(&Arc::default());
    for text in 0..3 {
        send(&engine, "kept.1", text);
    }
    assert_eq!(add(&engine, "kept.1", "c", Since::Newest(3)), Some(true));
    assert_eq!(engine.group_discard("kept.1", "c"), Ok(()));
    for text in 10..30 {
        send(&engine, "kept.1", text);
    }
    assert_eq!(received(&engine, "c"), vec![0, 1, 2]);
}

#[test]
fn a_receiver_that_waits_gets_what_was_missed() {
    let engine = engine(&Arc::default());
    for text in 0..3 {
        send(&engine, "kept.1", text);
    }
    for waiter in 0..2 {
        assert!(matches!(
            engine.wait("c", waiter, None),
            Ok(Received::Waiting)
        ));
    }
    let resumed = engine.group_add_since("kept.1", "c", Since::Newest(5));
    let resumed = resumed.ok().flatten().map(|resumed| resumed.hand_offs);
    let given: Vec<_> = resumed.into_iter().flatten().collect();
    let texts: Vec<_> = given
        .iter()
        .map(|given| (given.waiter, given.envelope.message.0.0))
        .collect();
    assert_eq!(texts, vec![(0, 0), (1, 1)]);
    // Both have left.
    for HandOff { envelope, .. } in given.into_iter().rev() {
        assert!(engine.give_back("c", envelope).is_none());
    }
    send(&engine, "kept.1", 3);
    assert_eq!(received(&engine, "c"), vec![0, 1, 2, 3]);
    assert_eq!(engine.stats().waiters, 0);
}

#[test]
fn a_member_that_asks_again_gets_nothing_twice_that_still_waits() {
    let engine = engine(&Arc::default());
    assert_eq!(engine.group_add("kept.1", "c"), Ok(()));
    let first = send(&engine, "kept.1", 0);
    send(&engine, "kept.1", 1);
    send(&engine, "kept.2", 5);
    for _ in 0..3 {
        assert_eq!(add(&engine, "kept.2", "c", Since::Newest(1)), Some(true));
        assert_eq!(add(&engine, "kept.1", "c", since(first)), Some(true));
    }
    assert_eq!(received(&engine, "c"), vec![0, 5, 1]);
    let stats = engine.stats();
    assert_eq!(stats.sent, stats.delivered + stats.dropped_replaced);
}

#[test]
fn what_is_replayed_expires_as_what_is_sent() {
    let clock = Arc::new(ManualClock::default());
    let engine = engine(&clock);
    send(&engine, "kept.1", 0);
    clock.advance(Duration::from_secs(EXPIRY + 1));
    assert_eq!(add(&engine, "kept.1", "c", Since::Newest(1)), Some(true));
    assert_eq!(add(&engine, "kept.1", "d", Since::Newest(1)), Some(true));
    clock.advance(Duration::from_secs(EXPIRY - 1));
    assert_eq!(received(&engine, "c"), vec![0]);
    clock.advance(Duration::from_secs(1));
    assert_eq!(received(&engine, "d"), Vec::<u64>::new());
    let stats = engine.stats();
    assert_eq!(
        (stats.depth, stats.dropped_expired, stats.history_messages),
        (0, 1, 1)
    );
}

#[test]
fn a_flush_ends_all_streams_and_replays() {
    let engine = engine(&Arc::default());
    let first = send(&engine, "kept.1", 0);
    send(&engine, "kept.1", 1);
    assert_eq!(add(&engine, "kept.1", "c", since(first)), Some(true));
    engine.flush();
    let stats = engine.stats();
    assert_eq!(
        (stats.history_messages, stats.depth, stats.dropped_other),
        (0, 0, 1)
    );
    assert_eq!(stats.channels, 0);
    assert_eq!(add(&engine, "kept.1", "c", since(first)), Some(false));
    let _ = engine.close();
    assert!(engine.group_position("kept.1").is_err());
    assert!(engine.group_history("kept.1", Since::Newest(1), 1).is_err());
    assert!(engine.group_send_kept("kept.1", Note::new(1), &[]).is_err());
}

#[test]
fn a_history_is_read_page_by_page() {
    let engine = engine(&Arc::default());
    let start = engine.group_position("kept.1").ok().flatten();
    for text in 0..4 {
        send(&engine, "kept.1", text);
    }
    let mut position = start.map(|stamp| stamp.position);
    let mut pages = Vec::new();
    for _ in 0..3 {
        let page = engine.group_history("kept.1", since(position), 3);
        let page = page.ok().flatten().filter(|page| page.complete);
        position = page.as_ref().map(|page| page.position.position);
        let texts = page.map(|page| page.messages.iter().map(|note| note.0.0).collect());
        pages.push(texts.unwrap_or_else(|| vec![99]));
    }
    assert_eq!(pages, vec![vec![0, 1, 2], vec![3], vec![]]);
    assert_eq!(
        position,
        engine
            .group_position("kept.1")
            .ok()
            .flatten()
            .map(|stamp| stamp.position)
    );
}

proptest! {
    /// Some channels come and go, and receive now and then; each stream is compared with all that was ever sent to it.
    #[test]
    fn complete_is_all_once_and_in_order(
        steps in prop::collection::vec((0..8_u8, 0..2_u8, 0..3_u8, 0..6_usize), 0..80)
    ) {
        let clock = Arc::new(ManualClock::default());
        let engine = engine(&clock);
        let mut sent: BTreeMap<String, Vec<Position>> = BTreeMap::new();
        // Of each channel and group that it was added to: what it is to receive.
        let mut expected: BTreeMap<(String, String), Vec<Position>> = BTreeMap::new();
        for (text, (action, group, channel, number)) in steps.into_iter().enumerate() {
            let (group, channel) = (format!("kept.{group}"), format!("c{channel}"));
            let all = sent.entry(group.clone()).or_default();
            match action {
                0..3 => {
                    let position = send(&engine, &group, text as u64);
                    prop_assert!(position.is_some());
                    all.extend(position);
                    for ((_, member), expected) in &mut expected {
                        if *member == group {
                            expected.extend(position);
                        }
                    }
                }
                3 | 4 => {
                    let since = all.iter().rev().nth(number).copied();
                    let complete = add(&engine, &group, &channel, Since::Position(since));
                    let start = since.and_then(|since| all.iter().position(|other| *other == since));
                    let behind = start.map_or(&[][..], |start| &all[start + 1..]);
                    let head = engine.group_position(&group).ok().flatten();
                    // It is a member from now on in any case, and what waits of earlier is not taken away.
                    let expected = expected.entry((channel, group)).or_default();
                    if complete == Some(true) {
                        prop_assert!(behind.iter().all(|other| Some(other.epoch) == since.map(|since| since.epoch)));
                        expected.retain(|other| !behind.contains(other));
                        expected.extend(behind);
                    } else if since.is_some_and(|since| head.is_some_and(|head| head.position.epoch == since.epoch)) {
                        prop_assert!(behind.len() > SIZE);
                    }
                }
                5 => {
                    prop_assert!(engine.close_channel(&channel).is_ok());
                    expected.retain(|(other, _), _| *other != channel);
                }
                6 => clock.advance(Duration::from_secs(number as u64)),
                _ => {
                    while let Ok(Some(envelope)) = engine.take(&channel) {
                        let position = envelope.message.stamped().map(|stamp| stamp.position);
                        let group = sent.iter().find(|(_, all)| all.iter().any(|other| Some(*other) == position));
                        let group = group.map(|(group, _)| group.clone()).unwrap_or_default();
                        if let Some(expected) = expected.get_mut(&(channel.clone(), group)) {
                            // What expired or did not fit is left out, and nothing else.
                            let place = expected.iter().position(|other| Some(*other) == position);
                            prop_assert!(place.is_some(), "{position:?} twice, or out of order");
                            expected.drain(..=place.unwrap_or(0));
                        }
                    }
                }
            }
            let stats = engine.stats();
            let gone = stats.dropped_expired + stats.dropped_replaced + stats.dropped_other;
            prop_assert_eq!(stats.sent, stats.delivered + stats.depth as u64 + gone);
            if stats.dropped_expired == 0 && stats.dropped_full == 0 {
                for channel in 0..3 {
                    let waiting: usize = expected
                        .iter()
                        .filter(|((other, _), _)| *other == format!("c{channel}"))
                        .map(|(_, expected)| expected.len())
                        .sum();
                    let depth = engine.depth(&format!("c{channel}"));
                    prop_assert!(depth >= waiting);
                }
            }
        }
    }
}
