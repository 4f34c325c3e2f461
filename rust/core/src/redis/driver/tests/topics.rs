//! What servers are asked for topics, and what becomes of it.

use super::*;
use crate::redis::wire::envelope::{Control, OutgoingBody};

impl Layer {
    /// Joins so many groups, each with a member, and gives their topics.
    async fn join(&self, groups: u32) -> Vec<String> {
        let channel = format!("specific.{ME}!a");
        let mut topics = Vec::new();
        for ticket in 0..groups {
            let group = format!("group-{ticket}");
            self.local.group_add(&group, &channel).expect("valid names");
            let topic = self.keys.group(&group);
            topics.push(topic.clone());
            self.ask(Ask::Subscribe { topic, ticket });
        }
        for ticket in 0..groups {
            assert_eq!(self.answer(ticket).await.fault, None);
        }
        topics
    }

    /// Forgets what was asked until now.
    fn forget_changes(&self) {
        let mut subscriptions = self.servers.subscriptions.lock();
        subscriptions.changes.clear();
        subscriptions.most_unanswered = 0;
    }

    fn changes(&self) -> Vec<Change> {
        self.servers.subscriptions.lock().changes.clone()
    }

    async fn is_up(&self) {
        while self.shared.stats().state != ConnectionState::Up {
            sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn many_topics_are_each_asked_for_once_and_few_at_a_time() {
    let layer = willing_layer(settings(Topology::Shards));
    layer.connect().await;
    let topics = layer.join(20_000).await;
    layer.forget_changes();
    // Slower than any pause after which something used to be asked for again, or a connection was taken for lost.
    layer.servers.subscriptions.lock().pause = Duration::from_millis(700);
    layer.lose_all().await;
    layer.is_up().await;
    let changes = layer.changes();
    let own = layer.keys.own(ME);
    let first: HashSet<&String> = changes.iter().take(3).map(|change| &change.topic).collect();
    assert_eq!(first, own.iter().collect());
    let mut asked: Vec<_> = changes.iter().map(|change| change.topic.clone()).collect();
    let mut expected: Vec<_> = topics.into_iter().chain(own).collect();
    asked.sort_unstable();
    expected.sort_unstable();
    assert_eq!(asked, expected);
    assert!(layer.servers.subscriptions.lock().most_unanswered <= 1024);
    assert_eq!(layer.shared.stats().reconnects, 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_to_be_asked_on_a_lost_connection_is_dropped_with_it() {
    let layer = willing_layer(settings(Topology::Shards));
    layer.connect().await;
    layer.join(5000).await;
    layer.servers.subscriptions.lock().pause = Duration::from_secs(1);
    for _ in 0..5 {
        layer.lose_all().await;
        sleep(Duration::from_millis(600)).await;
    }
    layer.forget_changes();
    layer.lose_all().await;
    layer.is_up().await;
    assert_eq!(layer.changes().len(), 5003);
    let gap = std::iter::from_fn(|| layer.shared.notices.next(Duration::ZERO));
    let missed = gap.filter_map(|notice| match notice {
        Notice::Gap { groups, .. } => Some(groups.len()),
        _ => None,
    });
    assert_eq!(missed.collect::<Vec<_>>(), [5000]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_silent_only_if_nothing_comes_on_it() {
    let layer = willing_layer(settings(Topology::Shards));
    layer.connect().await;
    layer.servers.subscriptions.lock().no_pong = true;
    let own_topic = layer.keys.process(ME).into_bytes();
    for _ in 0..20 {
        layer.push(|| Push::Message {
            topic: own_topic.clone(),
            payload: Vec::new(),
        });
        sleep(Duration::from_millis(500)).await;
    }
    let notice = layer.shared.notices.next(Duration::ZERO);
    assert!(
        matches!(notice, Some(Notice::Refused { .. })),
        "what came was no envelope"
    );
    let lost = |layer: &Layer| layer.shared.notices.next(Duration::ZERO).is_some();
    assert!(!lost(&layer));
    sleep(Duration::from_secs(4)).await;
    assert!(lost(&layer));
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_was_refused_is_asked_for_again() {
    let layer = willing_layer(settings(Topology::Shards));
    layer.connect().await;
    let topics = ["passing", "forbidden"].map(|group| layer.keys.group(group));
    for (topic, code) in topics.iter().zip(["LOADING", "NOPERM"]) {
        let refusal = Refusal {
            code: code.to_owned(),
            detail: String::new(),
        };
        let mut subscriptions = layer.servers.subscriptions.lock();
        subscriptions.refusals.insert(topic.clone(), refusal);
    }
    for (topic, ticket) in topics.iter().zip([1, 2]) {
        let topic = topic.clone();
        layer.ask(Ask::Subscribe { topic, ticket });
    }
    let began = Instant::now();
    let fault = layer.answer(2).await.fault.map(|fault| fault.kind());
    assert_eq!(fault, Some(FaultKind::Lacking));
    assert_eq!(layer.answer(1).await.fault, None);
    assert!(began.elapsed() < Duration::from_secs(1));
    let confirmed = layer.shared.topics.lock().clone();
    assert!(topics.iter().all(|topic| confirmed.contains(topic)));
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_on_a_lost_connection_is_asked_for_once_on_the_next() {
    let layer = willing_layer(settings(Topology::Shards));
    layer.connect().await;
    let topic = layer.keys.group("room");
    let refusal = Refusal {
        code: "LOADING".to_owned(),
        detail: String::new(),
    };
    let mut subscriptions = layer.servers.subscriptions.lock();
    subscriptions.refusals.insert(topic.clone(), refusal);
    drop(subscriptions);
    layer.ask(Ask::Subscribe {
        topic: topic.clone(),
        ticket: 1,
    });
    while !layer.changes().contains(&Change::join(&topic)) {
        sleep(Duration::from_millis(1)).await;
    }
    sleep(Duration::from_millis(10)).await;
    layer.forget_changes();
    // It is asked for on the next connection before it would have been on this, and confirmed after that.
    layer.servers.subscriptions.lock().pause = Duration::from_secs(2);
    layer.lose_all().await;
    layer.is_up().await;
    let asked = layer.changes();
    let about = asked.iter().filter(|change| change.topic == topic);
    assert_eq!(about.count(), 1, "{asked:?}");
    assert_eq!(layer.answer(1).await.fault, None);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_left_and_wanted_again_is_asked_for_in_that_order() {
    let layer = willing_layer(settings(Topology::Shards));
    layer.connect().await;
    let topic = layer.join(1).await.remove(0);
    layer.forget_changes();
    let channel = format!("specific.{ME}!a");
    layer
        .local
        .group_discard("group-0", &channel)
        .expect("valid names");
    while layer.changes().is_empty() {
        sleep(Duration::from_millis(1)).await;
    }
    layer.join(1).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(
        layer.changes(),
        [Change::leave(&topic), Change::join(&topic)]
    );
    assert!(layer.shared.topics.lock().contains(&topic));
    assert_eq!(layer.shared.stats().gaps, 0);
}

#[tokio::test(start_paused = true)]
async fn what_confirms_a_topic_that_was_left_does_not_confirm_it_when_it_is_wanted_again() {
    let layer = willing_layer(settings(Topology::Shards));
    layer.connect().await;
    layer.forget_changes();
    // The server is that busy.
    layer.servers.subscriptions.lock().pause = Duration::from_secs(30);
    let topic = layer.keys.group("room");
    let subscribe = |ticket| Ask::Subscribe {
        topic: topic.clone(),
        ticket,
    };
    layer.ask(subscribe(1));
    assert!(layer.answer(1).await.fault.is_some());
    while layer.changes().len() < 2 {
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(
        layer.changes(),
        [Change::join(&topic), Change::leave(&topic)]
    );
    let channel = format!("specific.{ME}!a");
    layer
        .local
        .group_add("room", &channel)
        .expect("valid names");
    layer.ask(subscribe(2));
    while layer.changes().len() < 3 {
        assert!(!layer.shared.topics.lock().contains(&topic));
        sleep(Duration::from_millis(100)).await;
    }
    assert!(!layer.shared.topics.lock().contains(&topic));
    while !layer.shared.topics.lock().contains(&topic) {
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(layer.changes()[2..], [Change::join(&topic)]);
    assert_eq!(layer.shared.stats().gaps, 0);
}

#[tokio::test(start_paused = true)]
async fn topics_get_their_places_once_for_all_slots_that_have_moved() {
    let map = |words: &str| {
        (words == "CLUSTER SLOTS").then(|| {
            let master = vec![Reply::BulkString(b"a".to_vec()), Reply::Int(1)];
            let all = vec![Reply::Int(0), Reply::Int(16383), Reply::Array(master)];
            Reply::Array(vec![Reply::Array(all)])
        })
    };
    let answer = move |words: &str| Some(map(words).unwrap_or_else(|| willing(words)));
    let layer = Layer::connected(Topology::Cluster, Box::new(answer)).await;
    let topic = layer.join(1).await.remove(0);
    layer.forget_changes();
    // The server reports that the slot of the topic has moved and, behind that, that it is where it was.
    let slot = crate::redis::wire::keys::hash_slot(topic.as_bytes());
    let owners = Mutex::new(vec!["a:1", "b:2"]);
    layer.answering(move |words| {
        let pushed = words.starts_with("RPUSH");
        let to = pushed.then(|| owners.lock().pop()).flatten();
        match to {
            Some(to) => Some(refused(&format!("MOVED {slot} {to}"))),
            None => answer(words),
        }
    });
    for ticket in [11, 12] {
        layer.begin_to_send("work", ticket);
    }
    for ticket in [11, 12] {
        assert_eq!(layer.answer(ticket).await.fault, None);
    }
    assert_eq!(layer.asked("RPUSH").len(), 4);
    assert_eq!(layer.changes(), []);
    assert!(layer.shared.topics.lock().contains(&topic));
    assert_eq!(layer.shared.stats().gaps, 0);
}

#[tokio::test(start_paused = true)]
async fn the_memory_of_many_topics_and_queues_is_given_back() {
    let layer = willing_layer(settings(Topology::Shards));
    layer.connect().await;
    layer.join(4000).await;
    for ticket in 0..4000 {
        let sent = layer.send(&format!("queue-{ticket}"), ticket).await;
        assert_eq!((sent.fault, sent.queued), (None, 1));
    }
    let room = || {
        (
            layer.shared.topics.lock().capacity(),
            layer.shared.depths.lock().capacity(),
        )
    };
    assert!(room().0 >= 4000 && room().1 >= 4000, "{:?}", room());
    layer.local.flush();
    layer.ask(Ask::Flush { ticket: 1 });
    assert_eq!(layer.answer(1).await.fault, None);
    while layer.shared.stats().subscriptions > 3 {
        sleep(Duration::from_secs(1)).await;
    }
    sleep(Duration::from_secs(2)).await;
    assert!(room().0 <= 16 && room().1 <= 16, "{:?}", room());
}

#[tokio::test(start_paused = true)]
async fn a_join_that_fails_leaves_the_membership_that_another_process_has_asked_for() {
    let layer = willing_layer(settings(Topology::Shards));
    layer.connect().await;
    let channel = format!("specific.{ME}!a");
    let joins = &layer.joins;
    let join = joins.begin::<World>(&layer.local, "room", &channel, || false);
    let join = join.expect("the names are valid");
    let header = Header {
        sender: OTHER,
        sequence: 1,
        deadline: 0,
    };
    let control = Control::Join {
        request: 1,
        group: "room".to_owned(),
        channel,
        expiry_ms: 0,
    };
    let draft = envelope::encode(&header, OutgoingBody::Control(&control), None);
    let draft = draft.expect("it fits");
    layer.push(|| Push::Message {
        topic: layer.keys.process(ME).into_bytes(),
        payload: draft.bytes().to_vec(),
    });
    sleep(Duration::from_millis(1)).await;
    drop(join);
    assert_eq!(layer.local.group_count("room"), Ok(1));
}
