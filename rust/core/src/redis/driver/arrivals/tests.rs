use std::sync::Arc;
use std::time::Duration;

use super::super::delivery::ENVELOPE;
use super::super::testing::{ME, OTHER, World, context, settings};
use super::*;
use crate::redis::settings::Topology;
use crate::redis::wire::crypt::Crypt;
use crate::redis::wire::envelope::{Date, OutgoingBody, Seal};

const SHARD: NodeKey = NodeKey::Shard(0);
/// `{"type": "x"}`
const PAYLOAD: &[u8] = b"\x81\xa4type\xa1x";

fn parts() -> (Context<World>, Topics, Arrivals) {
    let cx = context(settings(Topology::Shards));
    (cx, Topics::default(), Arrivals::new(16))
}

fn direct(channel: &str, sequence: u64) -> Vec<u8> {
    let header = Header {
        sender: OTHER,
        sequence,
        deadline: u64::MAX,
    };
    let payload = PAYLOAD;
    let body = OutgoingBody::Direct { channel, payload };
    let draft = envelope::encode(&header, body, None).expect("it fits");
    draft.bytes().to_vec()
}

#[test]
fn a_message_goes_into_its_mailbox_and_a_hole_before_it_is_reported() {
    let (mut cx, mut topics, mut arrivals) = parts();
    let (own_topic, channel) = (cx.keys.process(ME), format!("specific.{ME}!a"));
    for (sequence, missed) in [(1, 0), (2, 0), (5, 2)] {
        let from = (&SHARD, own_topic.as_str());
        let bytes = direct(&channel, sequence);
        assert_eq!(arrivals.arrived(&mut cx, &mut topics, from, bytes), None);
        assert_eq!(cx.shared.stats().missed, missed);
    }
    assert_eq!(cx.local.depth(&channel), 3);
}

#[test]
fn what_is_no_message_is_refused_or_for_another_part() {
    let (mut cx, mut topics, mut arrivals) = parts();
    let mut arrive = |topic: &str, bytes: Vec<u8>| {
        arrivals.arrived(&mut cx, &mut topics, (&SHARD, topic), bytes)
    };
    let wake = arrive("t:b:{work}", Vec::new());
    assert_eq!(wake, Some(Arrived::Wake("work".to_owned())));
    assert_eq!(arrive("t:g:room", b"nonsense".to_vec()), None);
    assert_eq!(
        arrive("t:g:room", direct("work", 1)),
        None,
        "it is misplaced"
    );
    assert_eq!(cx.shared.stats().malformed, 2);
    let much = vec![0; cx.settings.max_message_bytes + ENVELOPE + 1];
    let from = (&SHARD, "t:g:room");
    assert_eq!(arrivals.arrived(&mut cx, &mut topics, from, much), None);
    assert_eq!(cx.shared.stats().oversized, 1);
}

fn control(control: &Control, sequence: u64, crypt: Option<&Crypt>, place: &str) -> Vec<u8> {
    let header = Header {
        sender: OTHER,
        sequence,
        deadline: 0,
    };
    let seal = crypt.map(|crypt| Seal { crypt, now: 0 });
    let draft = envelope::encode(&header, OutgoingBody::Control(control), seal);
    let mut draft = draft.expect("it fits");
    let date = Date {
        now: u64::MAX - 100_000,
        expiry: 0,
        crypt,
    };
    if draft.is_sealed() {
        draft.date(&date, place);
    }
    draft.bytes().to_vec()
}

fn joins() -> Control {
    Control::Membership {
        group: "room".to_owned(),
        channel: "work".to_owned(),
        end: u64::MAX,
    }
}

#[test]
fn memberships_are_announced_on_their_topic_and_on_no_other() {
    let (mut cx, mut topics, mut arrivals) = parts();
    let own_topic = cx.keys.process(ME);
    let mut sequence = 0;
    for (topic, what, accepted) in [
        ("t:m", joins(), true),
        ("t:m", Control::ReadMembers, true),
        ("t:m", Control::MembersChanged, true),
        ("t:m", Control::Flush, false),
        ("t:c", joins(), false),
        ("t:c", Control::ReadMembers, false),
        (&own_topic, joins(), false),
    ] {
        sequence += 1;
        let bytes = control(&what, sequence, None, topic);
        let arrived = arrivals.arrived(&mut cx, &mut topics, (&SHARD, topic), bytes);
        let expected = accepted.then_some(Arrived::Members(OTHER, sequence, what));
        assert_eq!(arrived, expected, "{topic}");
    }
    assert_eq!(cx.shared.stats().malformed, 4);
}

#[test]
fn a_hole_among_announcements_is_noted_and_one_among_messages_is_not() {
    let (mut cx, mut topics, mut arrivals) = parts();
    for (topic, sequence, missed) in [
        ("t:m", 1, false),
        ("t:m", 2, false),
        ("t:m", 4, true),
        ("t:m", 3, true),
        ("t:c", 1, false),
        ("t:c", 3, true),
    ] {
        let bytes = control(&Control::MembersChanged, sequence, None, topic);
        let arrived = arrivals.arrived(&mut cx, &mut topics, (&SHARD, topic), bytes);
        assert!(arrived.is_some());
        assert_eq!(arrivals.take_missed_change(), missed, "{topic} {sequence}");
    }
    let notice = cx.shared.notices.next(Duration::ZERO);
    assert_eq!(notice, None, "no message of a user was missed");
    let (topic, channel) = (cx.keys.process(ME), format!("specific.{ME}!a"));
    for sequence in [1, 3] {
        let bytes = direct(&channel, sequence);
        arrivals.arrived(&mut cx, &mut topics, (&SHARD, &topic), bytes);
    }
    assert!(!arrivals.take_missed_change());
    let gap = Notice::Gap {
        direct: true,
        groups: Vec::new(),
        missed: 1,
    };
    assert_eq!(cx.shared.notices.next(Duration::ZERO), Some(gap));
    assert_eq!(cx.shared.stats().gaps, 3);
}

#[test]
fn an_announcement_that_no_key_authenticates_is_refused_and_counted() {
    let keys = |secret: &str| Crypt::new([secret]).expect("there is a secret");
    let mut settings = settings(Topology::Shards);
    settings.crypt = Some(Arc::new(keys("ours")));
    let (mut cx, mut topics, mut arrivals) =
        (context(settings), Topics::default(), Arrivals::new(16));
    let ours = control(&joins(), 1, Some(&keys("ours")), "t:m");
    for forged in [
        control(&joins(), 1, None, "t:m"),
        control(&joins(), 1, Some(&keys("theirs")), "t:m"),
        control(&joins(), 1, Some(&keys("ours")), "other:m"),
    ] {
        let arrived = arrivals.arrived(&mut cx, &mut topics, (&SHARD, "t:m"), forged);
        assert_eq!(arrived, None);
    }
    assert_eq!(cx.shared.stats().unauthenticated, 3);
    let arrived = arrivals.arrived(&mut cx, &mut topics, (&SHARD, "t:m"), ours.clone());
    assert_eq!(arrived, Some(Arrived::Members(OTHER, 1, joins())));
    let again = arrivals.arrived(&mut cx, &mut topics, (&SHARD, "t:m"), ours);
    assert_eq!((again, cx.shared.stats().replayed), (None, 1));
}

fn to_group(kept: bool, sequence: u64, crypt: Option<&Crypt>) -> Vec<u8> {
    let header = Header {
        sender: OTHER,
        sequence,
        deadline: u64::MAX,
    };
    let (exclude, payload) = (&[][..], PAYLOAD);
    let body = if kept {
        OutgoingBody::Kept { exclude, payload }
    } else {
        OutgoingBody::Group { exclude, payload }
    };
    let seal = crypt.map(|crypt| Seal { crypt, now: 0 });
    let mut draft = envelope::encode(&header, body, seal).expect("it fits");
    draft.epoch(7);
    let date = Date {
        now: u64::MAX - 100_000,
        expiry: 50_000,
        crypt,
    };
    draft.date(&date, "t:g:room");
    draft.bytes().to_vec()
}

/// Both are counted together, wherever the group keeps a history.
#[test]
fn messages_that_are_kept_are_no_hole_before_those_that_are_not() {
    for keeps in [false, true] {
        for encrypted in [false, true] {
            let crypt = Crypt::new(["ours"]).expect("there is a secret");
            let crypt = encrypted.then(|| Arc::new(crypt));
            let mut settings = settings(Topology::Shards);
            settings.crypt = crypt.clone();
            if keeps {
                let history = settings.history;
                settings.history = history.with_rule("room", 5, Duration::from_secs(60));
            }
            let (mut cx, mut topics, mut arrivals) =
                (context(settings), Topics::default(), Arrivals::new(16));
            let kept = [true, true, false, true, true, false, false, true, false];
            for (sequence, kept) in (1..).zip(kept) {
                let bytes = to_group(kept, sequence, crypt.as_deref());
                let from = (&SHARD, "t:g:room");
                let arrived = arrivals.arrived(&mut cx, &mut topics, from, bytes);
                let expected = match arrived {
                    Some(Arrived::Kept(..)) => keeps && kept,
                    Some(Arrived::Unkept(..)) => keeps && !kept,
                    _ => !keeps,
                };
                assert!(expected, "{sequence}");
                assert_eq!(cx.shared.stats().gaps, 0, "{sequence}");
            }
            let bytes = to_group(false, 12, crypt.as_deref());
            arrivals.arrived(&mut cx, &mut topics, (&SHARD, "t:g:room"), bytes);
            assert_eq!(cx.shared.stats().missed, 2);
        }
    }
}
