//! What was taken from queues, and is read back; and which queues are looked at.

use super::*;

#[tokio::test(start_paused = true)]
async fn what_was_taken_is_read_back_before_anything_else_is_taken() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    for waiter in [7, 8] {
        let _ = layer.local.wait("work", waiter, None);
    }
    layer.answering(|words| (!words.starts_with("LMOVE")).then(|| willing(words)));
    let want = || Ask::Want {
        channel: "work".to_owned(),
    };
    layer.ask(want());
    // The server has moved an entry, and the connection breaks before it answers; then a wake-up comes.
    *layer.servers.refusing.lock() = true;
    sleep(Duration::from_millis(20)).await;
    layer.ask(want());
    layer.ask(want());
    sleep(Duration::from_millis(200)).await;
    layer.servers.asked.lock().clear();
    layer.answering(|words| {
        let empty = words.starts_with("LLEN").then_some(Reply::Int(0));
        Some(empty.unwrap_or_else(|| willing(words)))
    });
    *layer.servers.refusing.lock() = false;
    sleep(Duration::from_secs(1)).await;
    let asked = layer.servers.asked.lock().clone();
    let first = |command: &str| {
        let mut places = asked.iter().enumerate();
        let place = places.find(|(_, (_, words))| words.starts_with(command));
        place.map(|(place, _)| place).expect(command)
    };
    assert!(
        first("LRANGE t:t:{work}") < first("LMOVE t:q:{work}"),
        "{asked:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_is_read_back_before_a_call_takes_anything_else() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    let fetch = |ticket, most| Ask::Fetch {
        channel: "work".to_owned(),
        most,
        patient: false,
        ticket,
    };
    layer.answering(|words| (!words.starts_with("LMOVE")).then(|| willing(words)));
    // The server has moved an entry, and the connection breaks before it answers.
    *layer.servers.refusing.lock() = true;
    layer.ask(fetch(1, 1));
    assert!(layer.answer(1).await.fault.is_some());
    layer.servers.asked.lock().clear();
    layer.answering(|words| {
        let taken = Reply::BulkString(entry("work", OTHER, 1));
        Some(match words.split(' ').next() {
            Some("LRANGE") => Reply::Array(vec![taken]),
            Some("LLEN") => Reply::Int(0),
            _ => willing(words),
        })
    });
    layer.ask(fetch(2, 1));
    layer.ask(fetch(3, 2));
    *layer.servers.refusing.lock() = false;
    assert_eq!(layer.answer(2).await.fault, None);
    assert_eq!(layer.answer(3).await.fault, None);
    assert_eq!(layer.local.depth("work"), 1);
    let asked = layer.servers.asked.lock().clone();
    let names = asked
        .iter()
        .filter_map(|(_, words)| words.split(' ').next());
    let mut names: Vec<_> = names
        .filter(|name| ["LRANGE", "LMOVE"].contains(name))
        .collect();
    // The connection that is back asks as well.
    names.dedup_by(|name, before| (*name, *before) == ("LRANGE", "LRANGE"));
    // The entry that was read is the one that the first of these calls takes.
    assert_eq!(names, ["LRANGE", "LMOVE", "LMOVE"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_fails_when_what_was_taken_could_not_be_read_back() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    layer.answering(|words| (!words.starts_with("LMOVE")).then(|| willing(words)));
    *layer.servers.refusing.lock() = true;
    for ticket in [1, 2] {
        layer.ask(Ask::Fetch {
            channel: "work".to_owned(),
            most: 1,
            patient: false,
            ticket,
        });
        let fault = layer.answer(ticket).await.fault;
        assert!(fault.is_some(), "{ticket}");
    }
}

/// The map of a cluster of many, as `CLUSTER SLOTS` gives it. One of them has this slot and no other.
fn slots(slot: u16, host: &str) -> Reply {
    let range = |first: u16, last: u16, host: String| {
        let master = vec![Reply::BulkString(host.into_bytes()), Reply::Int(1)];
        Reply::Array(vec![
            Reply::Int(first.into()),
            Reply::Int(last.into()),
            Reply::Array(master),
        ])
    };
    let mut ranges = vec![range(slot, slot, host.to_owned())];
    // As what is not sharded is spread over all servers, that one has no topics.
    ranges.extend((0..slot).step_by(100).map(|first| {
        let last = (first + 99).min(slot - 1);
        range(first, last, format!("other-{first}"))
    }));
    ranges.push(range(slot + 1, 16383, "last".to_owned()));
    Reply::Array(ranges)
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_is_read_back_from_a_server_that_was_not_needed_before() {
    let mut settings = settings(Topology::Cluster);
    settings.hosts[0].endpoint.protocol = crate::redis::settings::Protocol::Resp2;
    let slot = crate::redis::wire::keys::hash_slot(b"t:q:{work}");
    let answer = move |words: &str, master| match words {
        "CLUSTER SLOTS" => slots(slot, master),
        _ => willing(words),
    };
    let layer = Layer::with(settings, Box::new(move |words| Some(answer(words, "old"))));
    assert_eq!(layer.send("work", 1).await.fault, None);
    let _ = layer.local.wait("work", 7, None);
    layer.servers.gone.lock().insert("old:1".to_owned());
    // The old master moves the entry, and is gone; the new one has its list. Nothing but the queue is there.
    layer.answering(move |words| {
        (!words.starts_with("LMOVE")).then(|| match words.split(' ').next() {
            Some("LRANGE") => Reply::Array(vec![Reply::BulkString(entry("work", OTHER, 1))]),
            _ => answer(words, "new"),
        })
    });
    layer.ask(Ask::Want {
        channel: "work".to_owned(),
    });
    sleep(Duration::from_secs(3)).await;
    assert_eq!(
        layer.asked("LRANGE t:t:{work}").last().map(String::as_str),
        Some("new:1")
    );
    assert_eq!(*layer.world.received.lock(), [(7, PAYLOAD.to_vec())]);
}

#[tokio::test(start_paused = true)]
async fn names_of_members_that_are_none_are_counted_and_not_used() {
    let specific = format!("specific.{OTHER}!a");
    let fields = ["room\0work", "room\0{", "room\0", "no group\0work", "room"].map(str::to_owned);
    let fields = fields.into_iter().chain([format!("room\0{specific}")]);
    let end = Reply::BulkString(u64::MAX.to_string().into_bytes());
    let pair = |field: String| [Reply::BulkString(field.into_bytes()), end.clone()];
    let members = Reply::Array(fields.flat_map(pair).collect());
    let answer = move |words: &str| {
        Some(match words.split(' ').next() {
            Some("HGETALL") => members.clone(),
            _ => willing(words),
        })
    };
    let layer = Layer::connected(Topology::Shards, Box::new(answer)).await;
    sleep(Duration::from_millis(10)).await;
    let memberships: Vec<_> = layer.shared.plain.lock().of_group("room", 0);
    assert_eq!(memberships, ["work"]);
    assert_eq!(layer.shared.stats().malformed, 4);
}

#[tokio::test(start_paused = true)]
async fn queues_that_only_the_statistics_need_are_looked_at_in_turn() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    for ticket in 0..200 {
        layer.send(&format!("work-{ticket}"), ticket).await;
    }
    let look = |words: &str| words.starts_with("LLEN").then(|| words.to_owned());
    let looks = || {
        let mut asked = layer.servers.asked.lock();
        let asked = asked.drain(..);
        asked
            .filter_map(|(_, words)| look(&words))
            .collect::<Vec<_>>()
    };
    looks();
    let (mut seen, mut counts) = (HashSet::new(), Vec::new());
    for _ in 0..4 {
        sleep(Duration::from_secs(1)).await;
        let looks = looks();
        assert!(looks.len() <= 64, "{}", looks.len());
        counts.push(looks.len());
        seen.extend(looks);
    }
    // Those too whose message was on its way when it was last decided which queues nobody uses.
    assert_eq!(seen.len(), 200, "{counts:?}");
}
