use proptest::prelude::*;

use super::*;

const A: ProcessId = ProcessId(1);
const B: ProcessId = ProcessId(2);

#[test]
fn holes_and_repetitions_are_reported() {
    let mut seen = Sequences::new(8);
    for (sequence, expected) in [
        (5, Seen::First),
        (6, Seen::Next),
        (6, Seen::Again),
        (10, Seen::Gap(3)),
        (8, Seen::Again),
        (11, Seen::Next),
        (1, Seen::First),
        (2, Seen::Next),
        (1, Seen::First),
        (1, Seen::First),
        (u64::MAX, Seen::Gap(u64::MAX - 2)),
        (u64::MAX, Seen::Again),
        (0, Seen::First),
        (1, Seen::First),
    ] {
        assert_eq!(seen.note(A, "room", sequence), expected, "{sequence}");
    }
}

#[test]
fn the_first_hole_after_an_interruption_is_none_and_what_is_late_is_late() {
    let mut seen = Sequences::new(8);
    assert_eq!(seen.note(A, "room", 7), Seen::First);
    assert_eq!(seen.note(A, "hall", 7), Seen::First);
    seen.excuse_topic("room");
    seen.excuse_topic("nowhere");
    for (topic, sequence, expected) in [
        ("hall", 9, Seen::Gap(1)),
        ("room", 6, Seen::Again),
        ("room", 10, Seen::First),
        ("room", 8, Seen::Again),
        ("room", 12, Seen::Gap(1)),
    ] {
        assert_eq!(
            seen.note(A, topic, sequence),
            expected,
            "{topic} {sequence}"
        );
    }
}

#[test]
fn senders_and_topics_count_apart() {
    let mut seen = Sequences::new(8);
    assert_eq!(seen.note(A, "room", 7), Seen::First);
    assert_eq!(seen.note(B, "room", 9), Seen::First);
    assert_eq!(seen.note(A, "hall", 9), Seen::First);
    assert_eq!(seen.note(A, "room", 8), Seen::Next);
    seen.forget_topic("room");
    assert_eq!(seen.table.entries.len(), 1);
    assert_eq!(seen.note(A, "room", 20), Seen::First);
    assert_eq!(seen.note(A, "hall", 10), Seen::Next);
}

#[test]
fn what_was_used_longest_ago_is_forgotten() {
    let mut seen = Sequences::new(2);
    for (topic, sequence, expected) in [
        ("a", 5, Seen::First),
        ("b", 5, Seen::First),
        ("a", 6, Seen::Next),
        ("c", 5, Seen::First),
        ("a", 7, Seen::Next),
        ("b", 9, Seen::First),
        ("c", 9, Seen::First),
    ] {
        assert_eq!(
            seen.note(A, topic, sequence),
            expected,
            "{topic} {sequence}"
        );
        assert!(seen.table.entries.len() <= 2);
    }
}

#[test]
fn a_sender_that_forgot_is_not_taken_for_a_hole() {
    let (mut counters, mut seen) = (SequenceCounters::new(1), Sequences::new(8));
    let mut send = |topic| seen.note(A, topic, counters.next(topic));
    assert_eq!(send("a"), Seen::First);
    assert_eq!(send("a"), Seen::Next);
    assert_eq!(send("b"), Seen::First);
    assert_eq!(send("a"), Seen::First);
    assert_eq!(send("a"), Seen::Next);
}

#[test]
fn a_capacity_of_nothing_is_one() {
    let mut counters = SequenceCounters::new(0);
    assert_eq!((counters.next("a"), counters.next("a")), (1, 2));
}

#[test]
fn a_number_that_comes_once_is_seen_once() {
    let mut seen = Sequences::new(8);
    for (sequence, expected) in [
        (5, Seen::First),
        (5, Seen::Again),
        // It may have been delivered before this process looked.
        (4, Seen::Again),
        (6, Seen::Next),
        (10, Seen::Gap(3)),
        (8, Seen::Late),
        (8, Seen::Again),
        (6, Seen::Again),
        (1, Seen::Again),
        (0, Seen::Again),
        (10 + WINDOW, Seen::Gap(WINDOW - 1)),
        (10, Seen::Again),
        (11, Seen::Late),
        (EPOCH - 1, Seen::Gap(EPOCH - 1 - 10 - WINDOW - 1)),
        (EPOCH + 1, Seen::First),
        (EPOCH - 1, Seen::Again),
        (EPOCH + 2, Seen::Next),
        (1, Seen::Again),
        (3 * EPOCH + 3, Seen::Gap(2)),
        (u64::MAX, Seen::Gap(EPOCH - 2)),
        (u64::MAX, Seen::Again),
    ] {
        assert_eq!(seen.note_once(A, "room", sequence), expected, "{sequence}");
    }
}

#[test]
fn what_comes_once_outlives_the_subscription() {
    let mut seen = Sequences::new(8);
    assert_eq!(seen.note_once(A, "room", 7), Seen::First);
    seen.forget_topic("room");
    assert_eq!(seen.note_once(A, "room", 7), Seen::Again);
    assert_eq!(
        seen.note_once(A, "room", 9),
        Seen::First,
        "the hole is excused"
    );
    assert_eq!(seen.note_once(A, "room", 11), Seen::Gap(1));
}

#[test]
fn what_is_not_authenticated_is_no_measure_of_what_is() {
    let mut seen = Sequences::new(8);
    assert_eq!(seen.note(A, "room", 1 << 60), Seen::First);
    assert!(!seen.knows(A, "room"));
    assert_eq!(seen.note_once(A, "room", 7), Seen::First);
    assert_eq!(seen.note(A, "room", 1 << 60), Seen::First);
    assert_eq!(seen.note_once(A, "room", 8), Seen::Next);
}

#[test]
fn rising_numbers_are_new_to_whoever_remembers() {
    let (mut counters, mut seen) = (SequenceCounters::rising(2), Sequences::new(8));
    let mut send = |topic| {
        let number = counters.next(topic);
        (number, seen.note_once(A, topic, number))
    };
    assert_eq!(send("a"), (1, Seen::First));
    assert_eq!(send("b"), (1, Seen::First));
    assert_eq!(send("a"), (2, Seen::Next));
    assert_eq!(send("c"), (EPOCH + 1, Seen::First));
    assert_eq!(send("b"), (2 * EPOCH + 1, Seen::First));
    assert_eq!(send("b"), (2 * EPOCH + 2, Seen::Next));
}

#[test]
fn a_sender_that_forgot_many_destinations_goes_on() {
    let (mut counters, mut seen) = (SequenceCounters::rising(1), Sequences::new(8));
    // As after that many were forgotten.
    counters.begun = ((1 << 24) - 1) * EPOCH;
    for topic in ["a", "b", "a", "b"] {
        for expected in [Seen::First, Seen::Next, Seen::Next] {
            let number = counters.next(topic);
            assert_eq!(seen.note_once(A, topic, number), expected, "{number}");
        }
    }
}

#[test]
fn a_destination_with_more_numbers_than_to_the_next_beginning_gets_none_twice() {
    let (mut counters, mut seen) = (SequenceCounters::rising(1), Sequences::new(8));
    // As after that many messages to it.
    counters.table.set(ProcessId(0), "a", 5 * EPOCH - 2);
    let mut send = |topic| {
        let number = counters.next(topic);
        (number, seen.note_once(A, topic, number))
    };
    assert_eq!(send("a"), (5 * EPOCH - 1, Seen::First));
    assert_eq!(send("a"), (5 * EPOCH, Seen::First));
    assert_eq!(send("a"), (5 * EPOCH + 1, Seen::Next));
    assert_eq!(send("b"), (6 * EPOCH + 1, Seen::First));
    assert_eq!(send("a"), (7 * EPOCH + 1, Seen::First));
}

#[derive(Clone, Debug)]
enum Step {
    Note(u64, usize, u64),
    Forget(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (0..3_u64, 0..4_usize, 0..12_u64).prop_map(|(s, t, n)| Step::Note(s, t, n)),
        1 => (0..4_usize).prop_map(Step::Forget),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    /// Against a set of all numbers that came.
    #[test]
    fn nothing_that_comes_once_is_new_twice(sequences in prop::collection::vec(1..200_u64, 1..80)) {
        let mut seen = Sequences::new(1);
        let mut model: Vec<u64> = Vec::new();
        for sequence in sequences {
            let top = model.iter().max().copied();
            let lost = |top: u64| model.contains(&sequence) || top - sequence >= WINDOW || sequence < model[0];
            let expected = match top {
                None => Seen::First,
                Some(top) if sequence == top + 1 => Seen::Next,
                Some(top) if sequence > top => Seen::Gap(sequence - top - 1),
                Some(top) if lost(top) => Seen::Again,
                Some(_) => Seen::Late,
            };
            prop_assert_eq!(seen.note_once(A, "room", sequence), expected);
            model.push(sequence);
        }
    }

    /// Against a vector in the order of use.
    #[test]
    fn behaves_like_a_vector(steps in steps(), capacity in 1..8_usize) {
        const TOPICS: [&str; 4] = ["a", "b", "c", "d"];
        let mut seen = Sequences::new(capacity);
        let mut model: Vec<((u64, usize), u64)> = Vec::new();
        for step in steps {
            match step {
                Step::Note(sender, topic, sequence) => {
                    let key = (sender, topic);
                    let place = model.iter().position(|(other, _)| *other == key);
                    let last = place.map(|place| model.remove(place).1);
                    let expected = match last {
                        Some(last) if sequence > 1 && sequence <= last => Seen::Again,
                        Some(last) if sequence > 1 && sequence == last + 1 => Seen::Next,
                        Some(last) if sequence > 1 => Seen::Gap(sequence - last - 1),
                        _ => Seen::First,
                    };
                    if last.is_none() && model.len() == capacity {
                        model.remove(0);
                    }
                    let last = if expected == Seen::Again { last } else { None };
                    model.push((key, last.unwrap_or(sequence)));
                    prop_assert_eq!(seen.note(ProcessId(sender), TOPICS[topic], sequence), expected);
                }
                Step::Forget(topic) => {
                    model.retain(|((_, other), _)| *other != topic);
                    seen.forget_topic(TOPICS[topic]);
                }
            }
            prop_assert_eq!(seen.table.entries.len(), model.len());
            prop_assert!(seen.table.topics.values().all(|senders| !senders.is_empty()));
        }
    }
}
