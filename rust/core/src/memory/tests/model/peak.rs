//! The memory of a peak is given back, whatever ends it, and nothing that is left is lost by that.

use super::*;

/// How many channels there are at the peak.
const PEAK: usize = 4000;
const GROUPS: usize = 100;
/// The most that a table has room for in the end: few channels are kept for their names to come back.
const LITTLE: usize = 32;
/// How many channels the crowds of a run have.
const CHANNELS: u8 = 24;

fn names() -> impl Iterator<Item = (String, String)> {
    (0..PEAK).map(|index| (format!("c{index}"), format!("g{}", index % GROUPS)))
}

/// An engine with a message and a membership for each channel.
fn full(clock: &Arc<ManualClock>) -> Engine {
    let engine = engine(clock);
    for (channel, group) in names() {
        assert!(matches!(engine.send(&channel, 1), Ok(None)));
        assert_eq!(engine.group_add(&group, &channel), Ok(()));
    }
    assert_eq!(engine.group_add("all", "c0"), Ok(()));
    assert_eq!(engine.stats().channels, PEAK);
    engine
}

fn largest(engine: &Engine) -> usize {
    let room = engine.state.lock().room();
    room.into_iter().max().unwrap_or_default()
}

fn receive_and_leave(engine: &Engine, channel: &str, group: &str) {
    assert!(matches!(engine.take(channel), Ok(Some(_))));
    assert_eq!(engine.group_discard(group, channel), Ok(()));
}

#[test]
fn the_memory_of_a_peak_is_given_back_when_its_channels_are_gone() {
    type End = fn(&Engine, &ManualClock);
    let clock = Arc::new(ManualClock::default());
    let ends: [(&str, End); 5] = [
        ("receive and leave", |engine, _| {
            for (channel, group) in names() {
                receive_and_leave(engine, &channel, &group);
            }
            assert_eq!(engine.group_discard("all", "c0"), Ok(()));
        }),
        ("close the channels", |engine, _| {
            for (channel, _) in names() {
                assert_eq!(engine.close_channel(&channel), Ok(()));
            }
        }),
        ("expire, swept by other work", |engine, clock| {
            clock.advance(Duration::from_secs(GROUP_EXPIRY));
            for _ in 0..PEAK {
                assert!(matches!(engine.send("other", 1), Ok(None)));
                assert!(matches!(engine.take("other"), Ok(Some(_))));
            }
        }),
        ("flush", |engine, _| engine.flush()),
        ("close", |engine, _| assert_eq!(engine.close(), [0; 0])),
    ];
    for (end, bring_about) in ends {
        let engine = full(&clock);
        assert!(largest(&engine) >= PEAK);
        bring_about(&engine, &clock);
        let stats = engine.stats();
        assert_eq!((stats.channels, stats.memberships), (0, 0), "{end}");
        assert!(largest(&engine) <= LITTLE, "{end}: {}", largest(&engine));
    }
}

#[test]
fn what_outlives_a_peak_goes_on_as_before() {
    let clock = Arc::new(ManualClock::default());
    let engine = full(&clock);
    let stays = |channel: &str| channel.ends_with("777");
    for (channel, group) in names().filter(|(channel, _)| !stays(channel)) {
        receive_and_leave(&engine, &channel, &group);
    }
    assert_eq!(engine.group_discard("all", "c0"), Ok(()));
    assert_eq!(engine.stats().channels, 4);
    assert!(largest(&engine) <= LITTLE, "{}", largest(&engine));
    assert_eq!(engine.group_count("g77"), Ok(4));
    let report = engine.group_send("g77", 2, &[]).map(|sent| sent.report);
    assert_eq!(report.map(|report| report.delivered), Ok(4));
    for (channel, _) in names().filter(|(channel, _)| stays(channel)) {
        for message in [1, 2] {
            let taken = engine
                .take(&channel)
                .map(|taken| taken.map(|envelope| envelope.message));
            assert_eq!(taken, Ok(Some(message)));
        }
        let groups = engine.channel_groups(&channel).unwrap_or_default();
        assert_eq!(groups, [Arc::from("g77")]);
    }
    clock.advance(Duration::from_secs(GROUP_EXPIRY));
    assert_eq!(engine.stats().memberships, 0);
}

#[test]
fn a_group_that_was_large_gives_memory_back_while_it_lives() {
    let clock = Arc::new(ManualClock::default());
    let engine = engine(&clock);
    let room = || {
        let state = engine.state.lock();
        let group = state.groups.find("g").expect("it has a member");
        state.groups.get(group).room()
    };
    for (channel, _) in names() {
        assert_eq!(engine.group_add("g", &channel), Ok(()));
    }
    assert!(room() >= PEAK);
    for (channel, _) in names().skip(1) {
        assert_eq!(engine.group_discard("g", &channel), Ok(()));
    }
    assert_eq!(engine.group_count("g"), Ok(1));
    assert!(room() <= LITTLE);
}

#[test]
fn a_channel_that_was_full_gives_memory_back_while_it_lives() {
    let clock = Arc::new(ManualClock::default());
    let config = Config {
        expiry: Duration::from_secs(EXPIRY),
        group_expiry: Duration::from_secs(1000),
        capacities: Capacities::new(PEAK),
        capacity_bytes: usize::MAX,
    };
    let engine: Engine = MemoryEngine::new(config, Arc::clone(&clock));
    let room = || {
        let state = engine.state.lock();
        let channel = state.find("c").expect("it is held");
        state.mailbox(channel).room()
    };
    assert_eq!(engine.hold("c"), Ok(()));
    for _ in 0..PEAK {
        assert!(matches!(engine.send("c", 1), Ok(None)));
    }
    for _ in 1..PEAK {
        assert!(matches!(engine.take("c"), Ok(Some(_))));
    }
    assert!(room() >= PEAK);
    clock.advance(Duration::from_secs(EXPIRY));
    assert!(matches!(engine.send("other", 1), Ok(None)));
    assert!(room() <= LITTLE);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Crowds come and go, and most of each goes one by one.
    #[test]
    fn behaves_like_the_model_while_crowds_come_and_go(
        crowds in prop::collection::vec((prop::collection::vec(step(CHANNELS), 20..80), leaving()), 1..3)
    ) {
        let mut run = Run::new(CHANNELS);
        for (steps, leaving) in crowds {
            for step in steps.into_iter().chain(leaving.into_iter().map(Step::CloseChannel)) {
                run.model.expire();
                run.apply(step)?;
                run.compare()?;
            }
        }
    }
}

fn leaving() -> impl Strategy<Value = Vec<u8>> {
    let all: Vec<u8> = (0..CHANNELS).collect();
    prop::sample::subsequence(all, usize::from(CHANNELS) / 2..=usize::from(CHANNELS)).prop_shuffle()
}
