//! Messages that tell their receiver to end: no full mailbox loses one, whatever it does with others.

use super::*;

fn drain(engine: &Engine, channel: &str) -> Vec<u64> {
    std::iter::from_fn(|| engine.take(channel).expect("a valid name"))
        .map(|envelope| envelope.message)
        .collect()
}

fn member(clock: &Arc<ManualClock>, overflow: Option<Overflow<u64>>) -> Engine {
    let engine = engine(clock);
    engine.group_add("g", "c").expect("valid names");
    if let Some(overflow) = overflow {
        let capacity = NonZeroUsize::new(CAPACITY).expect("a capacity");
        engine
            .own("c", capacity, None, overflow, None)
            .expect("a valid name");
    }
    engine
}

/// Four messages of one byte each, of which three fit.
const SMALL: [u64; 4] = [0, 5, 10, 15];

fn fill(engine: &Engine) {
    for message in &SMALL[..3] {
        assert!(matches!(engine.send("c", *message), Ok(None)));
    }
}

fn close(engine: &Engine, message: u64) {
    let report = engine
        .group_send("g", message, &[])
        .expect("a valid name")
        .report;
    assert_eq!((report.delivered, report.dropped_full), (1, 0));
}

#[test]
fn a_full_mailbox_takes_one_behind_what_is_there() {
    for overflow in [
        None,
        Some(Overflow::DropNew),
        Some(Overflow::DropOld),
        Some(Overflow::Coalesce(|_, _| true)),
    ] {
        let engine = member(&Arc::new(ManualClock::default()), overflow);
        fill(&engine);
        close(&engine, FINAL);
        assert_eq!(drain(&engine, "c"), [0, 5, 10, FINAL]);
        let stats = engine.stats();
        assert_eq!(
            (stats.depth, stats.bytes, stats.sent, stats.delivered),
            (0, 0, 4, 4)
        );
    }
}

#[test]
fn a_second_one_in_a_full_mailbox_takes_the_place_of_the_first() {
    let engine = member(&Arc::new(ManualClock::default()), None);
    fill(&engine);
    for number in 0..10 {
        close(&engine, FINAL + number);
    }
    let stats = engine.stats();
    assert_eq!(
        (stats.depth, stats.dropped_replaced, stats.sent),
        (4, 9, 13)
    );
    assert_eq!(stats.bytes, 3 + (FINAL + 9).byte_size());
    assert_eq!(drain(&engine, "c"), [0, 5, 10, FINAL + 9]);
}

#[test]
fn it_does_not_give_way_to_newer_messages() {
    let engine = member(&Arc::new(ManualClock::default()), Some(Overflow::DropOld));
    close(&engine, FINAL);
    for message in SMALL {
        assert!(matches!(engine.send("c", message), Ok(None)));
    }
    assert_eq!(drain(&engine, "c"), [FINAL, 10, 15]);

    let engine = member(
        &Arc::new(ManualClock::default()),
        Some(Overflow::Coalesce(|_, _| true)),
    );
    close(&engine, FINAL);
    for message in SMALL {
        assert!(matches!(engine.send("c", message), Ok(None)));
    }
    let left = drain(&engine, "c");
    assert_eq!((left[0], left[left.len() - 1]), (FINAL, 15));
}

#[test]
fn a_mailbox_that_holds_nothing_else_refuses_what_comes_behind() {
    let engine = member(&Arc::new(ManualClock::default()), Some(Overflow::DropOld));
    for number in [0, 5, 10] {
        close(&engine, FINAL + number);
    }
    assert!(matches!(engine.send("c", 0), Err(SendError::Full(0))));
    assert_eq!(drain(&engine, "c"), [FINAL, FINAL + 5, FINAL + 10]);
}

#[test]
fn it_lives_as_long_as_a_membership() {
    let clock = Arc::new(ManualClock::default());
    let engine = member(&clock, None);
    engine.hold("c").expect("a valid name");
    assert!(matches!(engine.send("c", 0), Ok(None)));
    close(&engine, FINAL);
    assert!(matches!(engine.send("c", 5), Ok(None)));
    clock.advance(Duration::from_secs(EXPIRY + 1));
    assert_eq!(drain(&engine, "c"), [FINAL]);
    assert_eq!(engine.stats().dropped_expired, 2);

    close(&engine, FINAL);
    clock.advance(Duration::from_secs(GROUP_EXPIRY + 1));
    assert_eq!(drain(&engine, "c"), []);
}

#[test]
fn one_that_comes_back_keeps_its_place() {
    let engine = member(&Arc::new(ManualClock::default()), None);
    close(&engine, FINAL);
    for message in &SMALL[..2] {
        assert!(matches!(engine.send("c", *message), Ok(None)));
    }
    let taken = engine.take("c").expect("a valid name").expect("a message");
    assert!(engine.give_back("c", taken).is_none());
    assert_eq!(drain(&engine, "c"), [FINAL, 0, 5]);
}

#[test]
fn those_that_are_excluded_and_those_that_join_later_get_none() {
    let engine = member(&Arc::new(ManualClock::default()), None);
    engine.group_add("g", "d").expect("valid names");
    let report = engine
        .group_send("g", FINAL, &["c"])
        .expect("a valid name")
        .report;
    assert_eq!(report.delivered, 1);
    engine.group_add("g", "e").expect("valid names");
    assert_eq!(drain(&engine, "c"), []);
    assert_eq!(drain(&engine, "d"), [FINAL]);
    assert_eq!(drain(&engine, "e"), []);
}

#[test]
fn an_alarm_is_given_out_once_when_one_has_to_wait() {
    let engine = member(&Arc::new(ManualClock::default()), None);
    engine.watch_final("c", 7).expect("a valid name");
    fill(&engine);
    assert_eq!(engine.take_alarms(), []);
    close(&engine, FINAL);
    assert_eq!(engine.take_alarms(), [7]);
    close(&engine, FINAL + 5);
    assert_eq!(engine.take_alarms(), []);
}

#[test]
fn an_alarm_that_comes_late_is_given_out_at_once() {
    let engine = member(&Arc::new(ManualClock::default()), None);
    close(&engine, FINAL);
    engine.watch_final("c", 7).expect("a valid name");
    assert_eq!(engine.take_alarms(), [7]);
}

#[test]
fn who_waits_gets_it_without_an_alarm() {
    let engine = member(&Arc::new(ManualClock::default()), None);
    engine.watch_final("c", 7).expect("a valid name");
    let waits = engine.wait("c", 1, None).expect("a valid name");
    assert!(matches!(waits, Received::Waiting));
    let sent = engine.group_send("g", FINAL, &[]).expect("a valid name");
    assert_eq!(sent.hand_offs.len(), 1);
    assert_eq!(engine.take_alarms(), []);
}

#[test]
fn one_can_be_taken_past_what_came_before() {
    let engine = member(&Arc::new(ManualClock::default()), None);
    assert!(matches!(engine.take_final("c"), Ok(None)));
    fill(&engine);
    close(&engine, FINAL);
    let taken = engine.take_final("c").expect("a valid name");
    assert_eq!(taken.map(|envelope| envelope.message), Some(FINAL));
    assert!(matches!(engine.take_final("c"), Ok(None)));
    let stats = engine.stats();
    assert_eq!(
        (stats.depth, stats.bytes, stats.sent, stats.delivered),
        (3, 3, 4, 1)
    );
    assert_eq!(drain(&engine, "c"), [0, 5, 10]);
}

#[test]
fn an_alarm_is_dropped_with_its_channel() {
    let engine = member(&Arc::new(ManualClock::default()), None);
    engine.hold("c").expect("a valid name");
    engine.watch_final("c", 7).expect("a valid name");
    engine.close_channel("c").expect("a valid name");
    close_nobody(&engine);
    assert_eq!(engine.take_alarms(), []);
}

fn close_nobody(engine: &Engine) {
    let report = engine
        .group_send("g", FINAL, &[])
        .expect("a valid name")
        .report;
    assert_eq!(report.delivered, 0);
}
