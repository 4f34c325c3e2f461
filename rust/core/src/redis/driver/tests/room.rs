//! Messages for which there is no room yet.

use super::super::backlog;
use super::*;

/// A message that fills all room but a little.
const HUGE: usize = backlog::MOST - 1;

#[tokio::test(start_paused = true)]
async fn a_message_for_which_there_is_no_room_waits_for_those_before_it() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    for ticket in 1..=4 {
        layer.begin_to_send_bytes(&format!("work-{ticket}"), HUGE, ticket);
    }
    for ticket in 1..=4 {
        let answer = layer.answer(ticket).await;
        assert_eq!((answer.queued, answer.fault), (1, None));
    }
    let pushed = layer.servers.asked.lock().clone();
    let pushed = pushed
        .iter()
        .filter(|(_, words)| words.starts_with("RPUSH"));
    let queues: Vec<_> = pushed
        .filter_map(|(_, words)| words.split(' ').nth(1))
        .collect();
    assert_eq!(
        queues,
        [
            "t:q:{work-1}",
            "t:q:{work-2}",
            "t:q:{work-3}",
            "t:q:{work-4}"
        ]
    );
    assert!(Claim::new(&layer.shared.backlog, 1, 1).is_admitted());
}

#[tokio::test(start_paused = true)]
async fn a_message_for_which_no_room_comes_is_given_up_at_its_time() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    let all = Claim::new(&layer.shared.backlog, 0, backlog::MOST);
    let before = Instant::now();
    let fault = layer.send("work", 1).await.fault.expect("there is no room");
    assert_eq!(fault.kind(), FaultKind::Backlog);
    assert!(
        fault
            .to_string()
            .contains("faster than the server takes them"),
        "{fault}"
    );
    assert_eq!(before.elapsed().as_secs(), 5);
    assert_eq!(layer.shared.stats().unsent, 1);
    drop(all);
    assert_eq!(layer.send("work", 2).await.fault, None);
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_ends_gives_up_what_waits_for_room() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    let _all = Claim::new(&layer.shared.backlog, 0, backlog::MOST);
    layer.begin_to_send("work", 1);
    layer.ask(Ask::Close { ticket: 2 });
    let fault = layer.answer(1).await.fault.map(|fault| fault.kind());
    assert_eq!(fault, Some(FaultKind::Closed));
    assert_eq!(layer.shared.stats().unsent, 1);
}
