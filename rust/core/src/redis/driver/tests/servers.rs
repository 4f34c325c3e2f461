//! Servers that refuse, are lost, or have moved, and what is reported of that.

use super::*;
use crate::redis::wire::envelope::Control;

#[tokio::test(start_paused = true)]
async fn a_message_to_a_process_that_is_gone_is_counted() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    layer.answering(|words| {
        Some(if words.starts_with("PUBLISH") {
            Reply::Int(0)
        } else {
            willing(words)
        })
    });
    let answer = layer.send(&format!("specific.{OTHER}!a"), 1).await;
    assert_eq!((answer.receivers, answer.fault), (0, None));
    assert_eq!(layer.shared.stats().unreachable, 1);
}

#[tokio::test(start_paused = true)]
async fn a_push_beyond_the_capacity_is_withdrawn() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    layer.answering(|words| {
        Some(if words.starts_with("RPUSH") {
            Reply::Int(101)
        } else {
            willing(words)
        })
    });
    let answer = layer.send("work", 1).await;
    assert_eq!((answer.queued, answer.full), (0, 1));
    assert_eq!(layer.asked("LREM t:q:{work} -1").len(), 1);
    // Whoever took the entry before it could be withdrawn has the message.
    layer.answering(|words| {
        Some(match words.split(' ').next() {
            Some("RPUSH") => Reply::Int(101),
            Some("LREM") => Reply::Int(0),
            _ => willing(words),
        })
    });
    let answer = layer.send("work", 2).await;
    assert_eq!((answer.queued, answer.full), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_fails_what_was_on_it_and_nothing_else() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    layer.answering(|words| (!words.starts_with("PUBLISH t:p:fed")).then(|| willing(words)));
    let answer = layer.send(&format!("specific.{OTHER}!a"), 1).await;
    assert_eq!(
        answer.fault.map(|fault| fault.kind()),
        Some(FaultKind::Lost)
    );
    assert_eq!(layer.shared.stats().unsent, 1);
    layer.answering(|words| Some(willing(words)));
    let answer = layer.send(&format!("specific.{OTHER}!a"), 2).await;
    assert_eq!((answer.receivers, answer.fault), (1, None));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_at_once_fails_all_that_waits_for_it_at_once() {
    let layer = willing_layer(settings(Topology::Shards));
    *layer.servers.refusing.lock() = true;
    let before = Instant::now();
    for round in [10, 20] {
        layer.begin_to_send("work", round);
        layer.begin_to_send(&format!("specific.{OTHER}!a"), round + 1);
        layer.ask(Ask::Connect { ticket: round + 2 });
        let topic = layer.keys.group("room");
        layer.ask(Ask::Subscribe {
            topic,
            ticket: round + 3,
        });
        layer.ask(Ask::SendControl {
            process: OTHER,
            control: Control::Flush,
            ticket: round + 4,
        });
        for ticket in round..round + 5 {
            let fault = layer.answer(ticket).await.fault.expect("nobody is there");
            assert_eq!(fault.kind(), FaultKind::Unreachable);
            assert_eq!(
                fault.to_string(),
                "no server could be reached: nobody is there"
            );
        }
    }
    assert!(before.elapsed() < Duration::from_secs(1));
    assert!(layer.shared.unreachable().is_some());
    *layer.servers.refusing.lock() = false;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(layer.send("work", 1).await.fault, None);
    assert_eq!(layer.shared.unreachable(), None);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_lost_is_waited_for_once() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    *layer.servers.refusing.lock() = true;
    layer.lose_all().await;
    // It is back in time.
    layer.begin_to_send("work", 1);
    sleep(Duration::from_secs(4)).await;
    assert_eq!(layer.shared.unreachable(), None);
    *layer.servers.refusing.lock() = false;
    assert_eq!(layer.answer(1).await.fault, None);
    // It is not.
    *layer.servers.refusing.lock() = true;
    layer.lose_all().await;
    let lost = Instant::now();
    layer.send("work", 2).await.fault.expect("nobody is there");
    assert_eq!(lost.elapsed().as_secs(), 5);
    layer.send("work", 3).await.fault.expect("nobody is there");
    assert_eq!(lost.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_lost_server_that_refuses_who_connects_is_not_waited_for() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    let wrong = Fault::new(FaultKind::Refused, "WRONGPASS");
    *layer.servers.refusal.lock() = Some(wrong.clone());
    layer.lose_all().await;
    let lost = Instant::now();
    assert_eq!(layer.send("work", 1).await.fault, Some(wrong));
    assert!(lost.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_cluster_of_which_no_server_is_there_fails_at_once() {
    let layer = willing_layer(settings(Topology::Cluster));
    *layer.servers.refusing.lock() = true;
    let before = Instant::now();
    layer.send("work", 1).await.fault.expect("nobody is there");
    layer.ask(Ask::Connect { ticket: 2 });
    layer.answer(2).await.fault.expect("nobody is there");
    assert!(before.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_has_moved_is_followed() {
    let map = |words: &str| {
        (words == "CLUSTER SLOTS").then(|| {
            let master = Reply::Array(vec![Reply::BulkString(b"a".to_vec()), Reply::Int(1)]);
            Reply::Array(vec![Reply::Array(vec![
                Reply::Int(0),
                Reply::Int(16383),
                master,
            ])])
        })
    };
    let answer = move |words: &str| Some(map(words).unwrap_or_else(|| willing(words)));
    let layer = Layer::connected(Topology::Cluster, Box::new(answer)).await;
    let slot = crate::redis::wire::keys::hash_slot(layer.keys.queue("work").as_bytes());
    let moved = Mutex::new(false);
    layer.answering(move |words| {
        if words.starts_with("RPUSH") && !std::mem::replace(&mut *moved.lock(), true) {
            return Some(refused(&format!("MOVED {slot} b:2")));
        }
        answer(words)
    });
    let answer = layer.send("work", 1).await;
    assert_eq!((answer.queued, answer.fault), (1, None));
    assert_eq!(layer.asked("RPUSH"), ["a:1", "b:2"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_and_not_received_is_recovered_once() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    let _ = layer.local.wait("work", 7, None);
    // The server moves the entry, and the connection breaks before it answers.
    layer.answering(|words| (!words.starts_with("LMOVE")).then(|| willing(words)));
    layer.ask(Ask::Want {
        channel: "work".to_owned(),
    });
    sleep(Duration::from_secs(1)).await;
    layer.answering(|words| {
        Some(match words.split(' ').next() {
            Some("LRANGE") => Reply::Array(vec![Reply::BulkString(entry("work", OTHER, 1))]),
            Some("LMOVE") => Reply::Nil,
            _ => willing(words),
        })
    });
    sleep(Duration::from_secs(3)).await;
    assert_eq!(*layer.world.received.lock(), [(7, PAYLOAD.to_vec())]);
    assert!(!layer.asked("LREM t:t:{work}").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_taken_away_is_asked_for_again_and_reported() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    let topic = layer.keys.group("room");
    layer.ask(Ask::Subscribe {
        topic: topic.clone(),
        ticket: 1,
    });
    assert_eq!(layer.answer(1).await.fault, None);
    layer.push(|| Push::Unsubscribed {
        topic: topic.clone().into_bytes(),
    });
    sleep(Duration::from_secs(1)).await;
    assert!(layer.shared.topics.lock().contains(&topic));
    let notice = layer.shared.notices.next(Duration::ZERO);
    let expected = Notice::Gap {
        groups: vec!["room".to_owned()],
        direct: false,
        missed: 0,
    };
    assert_eq!(notice, Some(expected));
}

#[tokio::test(start_paused = true)]
async fn a_topic_is_left_when_its_group_has_had_no_member_for_a_while() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    let topics: Vec<_> = ["used", "unused"]
        .map(|group| layer.keys.group(group))
        .into();
    for (topic, ticket) in topics.iter().zip(1..) {
        let topic = topic.clone();
        layer.ask(Ask::Subscribe { topic, ticket });
        assert_eq!(layer.answer(ticket).await.fault, None);
    }
    let channel = format!("specific.{ME}!a");
    assert_eq!(layer.local.group_add("used", &channel), Ok(()));
    sleep(Duration::from_secs(10)).await;
    let confirmed = layer.shared.topics.lock().clone();
    let left = topics.iter().map(|topic| !confirmed.contains(topic));
    assert_eq!(left.collect::<Vec<_>>(), [false, true]);
    assert_eq!(layer.send("work", 3).await.fault, None, "the driver runs");
}

#[tokio::test(start_paused = true)]
async fn a_hole_in_a_senders_numbers_is_reported() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    let own_topic = layer.keys.process(ME);
    let channel = format!("specific.{ME}!a");
    for sequence in [1, 2, 5] {
        layer.push(|| Push::Message {
            topic: own_topic.clone().into_bytes(),
            payload: entry(&channel, OTHER, sequence),
        });
    }
    sleep(Duration::from_millis(100)).await;
    assert_eq!(
        (layer.shared.stats().gaps, layer.shared.stats().missed),
        (1, 2)
    );
    assert_eq!(layer.local.depth(&channel), 3);
}

#[tokio::test(start_paused = true)]
async fn what_waits_at_the_end_is_answered() {
    let layer = Layer::new(Topology::Shards, Box::new(|words| Some(willing(words))));
    *layer.servers.refusing.lock() = true;
    layer.begin_to_send("work", 1);
    layer.ask(Ask::Close { ticket: 2 });
    let fault = layer.answer(1).await.fault.map(|fault| fault.kind());
    assert_eq!(fault, Some(FaultKind::Closed));
    assert_eq!(layer.answer(2).await, Answer::default());
    assert_eq!(layer.shared.stats().state, ConnectionState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_sender_does_not_wait_behind_messages_that_have_come() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    let (own_topic, channel) = (layer.keys.process(ME), format!("specific.{ME}!a"));
    let before = layer.shared.stats().bytes_in;
    let payload = entry(&channel, OTHER, 1);
    for _ in 0..100_000 {
        layer.push(|| Push::Message {
            topic: own_topic.clone().into_bytes(),
            payload: payload.clone(),
        });
    }
    layer.begin_to_send("work", 1);
    let mut answer = None;
    while answer.is_none() {
        tokio::task::yield_now().await;
        answer = layer.world.answers.lock().remove(&1);
    }
    assert_eq!(answer.and_then(|answer| answer.fault), None);
    let came = layer.shared.stats().bytes_in - before;
    assert!(came < (payload.len() * 50_000) as u64, "{came}");
}
