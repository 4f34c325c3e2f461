use std::sync::Arc;

use super::*;
use crate::redis::driver::node_key::{LinkId, Role};
use crate::redis::driver::testing::{SilentLink, World, context, settings};
use crate::redis::fault::FaultKind;
use crate::redis::link::probe::Opened;
use crate::redis::settings::Topology;

const SHARD: NodeKey = NodeKey::Shard(0);
const TOPIC: &str = "t:g:room";

fn parts() -> (Context<World>, Topics) {
    (context(settings(Topology::Shards)), Topics::default())
}

/// Opens the connection for subscriptions, and returns it.
fn connect(cx: &mut Context<World>, topics: &mut Topics) -> LinkId {
    let due = cx.servers.due(cx.now + Duration::from_secs(1));
    let mut due = due.into_iter().map(|dial| dial.id);
    let id = due.find(|id| id.role == Role::Subscriber);
    let id = id.expect("it is due");
    let opened = Opened {
        link: Arc::new(SilentLink),
        address: None,
        time: None,
    };
    cx.servers.opened(&id, Ok(opened), cx.now);
    topics.subscriber_opened(cx, &SHARD);
    id
}

/// The topics that a server is asked for now.
fn asked(cx: &mut Context<World>, topics: &mut Topics) -> Vec<Change> {
    let node = cx.servers.node_mut(&SHARD).expect("it is known");
    let batches = std::iter::from_fn(|| topics.next_batch(&SHARD, node));
    batches.flatten().collect()
}

#[test]
fn a_topic_is_asked_for_once_there_is_a_connection_and_the_call_is_answered_when_it_is_confirmed() {
    let (mut cx, mut topics) = parts();
    let call = cx.call(1, Some(7));
    topics.want(&mut cx, TOPIC, Some(call));
    assert_eq!(asked(&mut cx, &mut topics), []);
    connect(&mut cx, &mut topics);
    assert_eq!(asked(&mut cx, &mut topics), [Change::join(TOPIC)]);
    assert_eq!(asked(&mut cx, &mut topics), [], "only once");
    assert!(cx.calls.take_answers().is_empty() && topics.are_awaited());
    assert!(topics.confirmed(&mut cx, &SHARD, TOPIC));
    assert_eq!(cx.calls.take_answers().len(), 1);
    assert!(!topics.are_awaited() && cx.shared.topics.lock().contains(TOPIC));
}

#[test]
fn a_confirmed_topic_that_is_lost_may_have_missed_messages_and_is_asked_for_again() {
    let (mut cx, mut topics) = parts();
    topics.want(&mut cx, TOPIC, None);
    let subscriber = connect(&mut cx, &mut topics);
    asked(&mut cx, &mut topics);
    topics.confirmed(&mut cx, &SHARD, TOPIC);
    let fault = Fault::new(FaultKind::Lost, "lost");
    cx.servers.lose(&subscriber, &fault, cx.now);
    topics.subscriber_lost(&mut cx, &SHARD);
    assert!(topics.have_lost() && cx.shared.topics.lock().is_empty());
    assert_eq!(topics.take_lost_that_are_back(&cx), [""; 0]);
    connect(&mut cx, &mut topics);
    assert_eq!(asked(&mut cx, &mut topics), [Change::join(TOPIC)]);
    assert_eq!(topics.take_lost(), [TOPIC]);
}

#[test]
fn a_topic_that_nobody_needs_is_left_after_a_while() {
    let (mut cx, mut topics) = parts();
    topics.want(&mut cx, TOPIC, None);
    connect(&mut cx, &mut topics);
    asked(&mut cx, &mut topics);
    topics.confirmed(&mut cx, &SHARD, TOPIC);
    assert_eq!(topics.sweep(&mut cx, |_| false), [""; 0]);
    cx.now += cx.settings.subscription_linger;
    let channel = format!("specific.{}!a", cx.me);
    assert_eq!(cx.local.group_add("room", &channel), Ok(()));
    assert_eq!(topics.sweep(&mut cx, |_| false), [""; 0], "it is used");
    assert_eq!(cx.local.group_discard("room", &channel), Ok(()));
    topics.sweep(&mut cx, |_| false);
    cx.now += cx.settings.subscription_linger;
    let is_awaited = |group: &str| group == "room";
    assert_eq!(topics.sweep(&mut cx, is_awaited), [""; 0], "it is awaited");
    topics.sweep(&mut cx, |_| false);
    cx.now += cx.settings.subscription_linger;
    assert_eq!(topics.sweep(&mut cx, |_| false), [TOPIC]);
    assert_eq!(asked(&mut cx, &mut topics), [Change::leave(TOPIC)]);
}

#[test]
fn a_call_gives_up_waiting_for_a_topic_at_its_time() {
    let (mut cx, mut topics) = parts();
    let call = cx.call(1, Some(7));
    topics.want(&mut cx, TOPIC, Some(call));
    topics.give_up_waits(&mut cx);
    assert!(cx.calls.take_answers().is_empty());
    cx.now += cx.settings.send_timeout;
    topics.give_up_waits(&mut cx);
    let answers = cx.calls.take_answers();
    assert!(matches!(answers.as_slice(), [(7, answer)] if answer.fault.is_some()));
}

#[test]
fn tables_shrink_when_most_of_the_topics_are_gone() {
    let (mut cx, mut topics) = parts();
    let names: Vec<String> = (0..4000).map(|number| format!("t:g:{number}")).collect();
    for topic in &names {
        let call = cx.call(1, None);
        topics.want(&mut cx, topic, Some(call));
    }
    let rooms = |topics: &Topics| [topics.wanted.room(), topics.waits.capacity()];
    topics.shrink_if_sparse();
    assert!(rooms(&topics).iter().all(|room| *room >= 4000));
    cx.now += cx.settings.send_timeout;
    topics.give_up_waits(&mut cx);
    topics.sweep(&mut cx, |_| false);
    cx.now += cx.settings.subscription_linger;
    topics.sweep(&mut cx, |_| false);
    topics.shrink_if_sparse();
    assert!(
        rooms(&topics).iter().all(|room| *room <= 16),
        "{:?}",
        rooms(&topics)
    );
}
